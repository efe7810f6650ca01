/* SPDX-License-Identifier: MIT */
#ifndef READYD_HOLDER_LINK_H
#define READYD_HOLDER_LINK_H

/* The link between a uid's parks and its holder, among its own files; parking.h has what others call. */

#include "parking.h"

/* Connections that waited go on, if all has been told and all is back. */
void link_settle(struct parking *k);

/* Its queue is full, or has room again. */
void link_set_full(struct parking *k, bool full);

/* A park's record is to be written; or need not be, any more. */
void link_mark(struct parking *k, struct park *p);
void link_clear(struct parking *k, struct park *p);

/* The holder has gone, or is stuck, and its copies with it: the next one is told all from the start. */
void link_lose(struct parking *k, bool stuck);

#endif
