/* SPDX-License-Identifier: MIT */
#ifndef READYD_WATCHING_H
#define READYD_WATCHING_H

/* Records of requests about watches, one at a time. */

#include "result.h"

void watching_watch(struct request *q, const struct wire_watch *w);

/* What a watch that goes is still owed is told before the answer (O4). */
void watching_unwatch(struct request *q, const struct wire_unwatch *u);

/* WAIT, UNWAIT, RESET, EVICT. */
void watching_change_slots(struct request *q, const struct wire_slots *w);
void watching_set_deadline(struct request *q, const struct wire_deadline *d);

/*
 * RESET must clear what the kernel has already seen: all of it is taken first (H2). Once a datagram
 * is enough, since the client reads only after the answer; and no more than each watch once, since
 * what fires without end would never be all.
 */
void watching_take_events(struct connection *c);

/* The connection ends: what its dead registrations are charged is given back. */
void watching_end(struct connection *c);

#endif
