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

struct parks {
	struct parks_stats stats;
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

/* NULL: nobody. Keeps references, the handles' queues, and the idle ones up to date. */
void parks_set_maker(struct parks *ps, struct park *p, struct park_handle *maker);
void parks_set_worker(struct parks *ps, struct park *p, struct park_handle *worker);

/* Puts it on the list of changes. */
void parks_list_change(struct parks *ps, struct park *p);

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
