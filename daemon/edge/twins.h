/* SPDX-License-Identifier: MIT */
#ifndef READYD_TWINS_H
#define READYD_TWINS_H

/*
 * Parks by what they are: one description is parked once by a user. Where the kernel does not compare
 * descriptions (kcmp(2)), nothing is ever found.
 */

#include "parking.h"

/* Whether this user has parked the description behind fd. */
bool twins_find(struct parking *k, int fd);

/* The park's fd is there from now on, until it is removed, which is before it is closed. */
void twins_add(struct parking *k, struct park *p);
void twins_remove(struct parking *k, struct park *p);

void twins_deinit(struct parking *k);

#endif
