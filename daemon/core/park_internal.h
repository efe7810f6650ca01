/* SPDX-License-Identifier: MIT */
#ifndef READYD_PARK_INTERNAL_H
#define READYD_PARK_INTERNAL_H

/* What the files of parks share. */

#include "hash_map.h"
#include "park.h"
#include "timer_heap.h"

/* By index: a park, or the next free index. */
struct park_place {
	struct park *park;
	uint32_t next_free;
};

struct park_group_name;

struct park_groups {
	void *tree; /* of tsearch(3) */
	TAILQ_HEAD(, park_group) all, matching;
	TAILQ_HEAD(, park_team) starved;
	uint64_t last_number;
	uint64_t last_turn;
};

struct parks {
	struct parks_stats stats;
	struct park_groups groups;
	uint64_t last_number;
	uint64_t last_serial;
	struct park_place *places; /* [0] is unused */
	uint32_t end;              /* of those in use or free */
	uint32_t room;
	uint32_t free;          /* first free one, or 0 */
	struct timer_heap heap; /* deadlines; ref: index */
	struct hash_key key;
	struct hash_map by_token; /* parks that are not gone; so the next two */
	struct hash_map by_number;
	struct hash_map by_name; /* only those with a name */
	void *owners;            /* trees of tsearch(3) */
	void *handles;
	uint64_t n_owners, n_handles;
	struct park_queue changes;
	TAILQ_HEAD(, park_handle) idle;
};

/* ---- park_table.c ---- */

/* Not gone, of any owner. */
struct park *parks_at_token(const struct parks *ps, const uint8_t token[PARK_TOKEN_SIZE]);
struct park *parks_at_number(const struct parks *ps, uint64_t number);
struct park *parks_at_name(const struct parks *ps, const struct park_owner *o,
			   const struct park_text *t);

/* A park with what `new` says and this number, in all tables, neither charged nor linked to anybody;
 * nothing of it was there. -ENOMEM. */
int parks_make(struct parks *ps, struct park_owner *o, const struct park_new *new, uint64_t number,
	       struct park **ret);

/* Out of all tables, and out of the heap: it is gone. */
void parks_hide(struct parks *ps, struct park *p);

/* Puts it on the list of changes. */
void parks_list_change(struct parks *ps, struct park *p);

/* ---- park_handle.c ---- */

/* NULL: nobody. Keeps references, the handles' queues, and the idle ones up to date. */
void parks_set_maker(struct parks *ps, struct park *p, struct park_handle *maker);
void parks_set_worker(struct parks *ps, struct park *p, struct park_handle *worker);

/* ---- park_group.c ---- */

void parks_init_groups(struct parks *ps);
void parks_free_groups(struct parks *ps);

/* The group of this name, made if need be; it ends unless something enters it. -ENOMEM. */
int parks_get_group(struct parks *ps, const struct park_group_name *name, struct park_group **ret);
void parks_end_group_if_empty(struct parks *ps, struct park_group *g);

/* Whether it has a match may have changed. */
void parks_update_group(struct parks *ps, struct park_group *g);

/* The park becomes one of its group, if it has one, and is counted by nobody yet. -ENOMEM. */
int parks_enter_group(struct parks *ps, struct park *p);

/* The same backwards. */
void parks_leave_group(struct parks *ps, struct park *p);

/* Whatever it is in its group's numbers, and whether it is due, goes in (1) or out (-1): around each
 * change of its state, readiness, or answer. */
void parks_count_in_group(struct parks *ps, struct park *p, int sign);

/* It gets its turn, if it is ready and has none. */
void parks_note_ready(struct parks *ps, struct park *p, int64_t now);

/* ---- park_worker.c ---- */

/* How many are handed to it has passed PARK_UNSETTLED_MAX. */
void parks_update_workers(struct parks *ps, struct park_handle *h);

/* Its connection has ended, or its process. */
void parks_end_workers(struct parks *ps, struct park_handle *h);

/* ---- park_group_check.c ---- */

void parks_check_groups(const struct parks *ps);

/* ---- park.c ---- */

/* Held, and ready or timed out: what stats.ready counts. */
bool park_is_ready(const struct park *p);

/* Whether a flag, a direction, a text or the token makes no sense. */
bool park_new_is_bad(const struct park_new *new);

/* A new park that is charged becomes part of the numbers and of the list of changes; `worker` NULL:
 * it is held. */
void parks_begin(struct parks *ps, struct park *p, struct park_handle *maker,
		 struct park_handle *worker);

/* Held again; ready, since nobody knows what came meanwhile. */
void parks_give_back(struct parks *ps, struct park *p, int64_t now);

#endif
