/* SPDX-License-Identifier: MIT */
#ifndef READYD_HELLO_H
#define READYD_HELLO_H

#include "result.h"

/* HELLO: picks the protocol version, makes the session, grants features, says WELCOME. */
void hello_apply(struct request *q);

#endif
