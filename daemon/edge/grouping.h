/* SPDX-License-Identifier: MIT */
#ifndef READYD_GROUPING_H
#define READYD_GROUPING_H

/* Workers of groups: ATTACH and DETACH, and what is handed to them. */

#include "parking.h"

struct park_group_name;
struct park_worker;

/* ATTACH, DETACH. */
void grouping_apply(struct request *q, const void *record);

/* Hands what is ready in groups to their workers, as much as one turn allows. */
void grouping_run(struct server *s);

/* Whether there is something to hand; then the next turn has to come at once. */
bool grouping_is_due(struct server *s);

/* It gets no more: what was handed to it and is not sent yet is parked again. */
void grouping_end_worker(struct connection *c, struct park_worker *w);

/*
 * The same worker, for another group of its name. What was handed to it and is not sent yet is parked
 * again, and costs it no credit. On failure it is to be ended: -ENOMEM; -EINVAL, if its client has
 * said that it has got what was not sent.
 */
int grouping_move_worker(struct connection *c, struct park_worker *w,
			 const struct park_group_name *name);

/* LIST_GROUPS (inspect_groups.c). */
void inspect_groups(struct connection *c, const struct wire_view *request);

#endif
