/* SPDX-License-Identifier: MIT */
#ifndef READYD_UPGRADING_H
#define READYD_UPGRADING_H

/* UPGRADE: a client asks for another binary. The rest of it is in server.h. */

#include "result.h"

void upgrading_apply(struct request *q);

#endif
