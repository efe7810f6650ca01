/* SPDX-License-Identifier: MIT */
#ifndef READYD_DURABLE_INTERNAL_H
#define READYD_DURABLE_INTERNAL_H

/* What the files of durable parks share; durable.h has the rest. */

#include "durable.h"

bool durable_in_office(const struct durable *d);

/* Into a list of those that wait, out of the one where it is; and out of it. */
void durable_queue(struct holding *h, struct holding_list *list);
void durable_unqueue(struct holding *h);

/* It is this depot's now; or none's. */
void durable_move_to(struct depot *depot, struct holding *h);
void durable_leave_depot(struct holding *h);

/* The loop is to be told that this serial of a park is stored, or is lost. */
void durable_tell(struct durable *d, struct holding *h, uint64_t serial, bool lost);

/* It cannot be stored: tells the loop, if that waits. Returns whether it is there still. */
bool durable_lose(struct durable *d, struct holding *h, const char *reason);
void durable_lose_all(struct durable *d, const char *reason);

/* Frees one that has left the table, and that nothing else has. */
void durable_free_if_unused(struct holding *h);

/* NULL: no memory. The fd is taken over. */
struct depot *durable_new_depot(struct depot_list *list, uint32_t serial, int fd);
/* Out of its list already. Closes it. */
void durable_free_depot(struct durable *d, struct depot *depot);

/* Writes what has to be written: what is in `fresh` then is to be sent, and what is in `old` to be
 * removed after that. 1; 0: there is nothing; negative errno: not now. */
int durable_write(struct durable *d, int64_t now);

bool durable_has_stale(const struct durable *d);

#endif
