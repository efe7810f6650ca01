/* SPDX-License-Identifier: MIT */
#ifndef READYD_PARK_GROUP_H
#define READYD_PARK_GROUP_H

/*
 * Groups: parks with one group name, of one owner or shared between owners, and the workers that take
 * them when they are ready. Who may do what in a shared group is the caller's to decide.
 *
 * A *worker* is a handle's offer to one group: `capacity`, what it works at, at once, and `credit`,
 * what it may still be handed. Its load is the one less the other. It is free while it has credit,
 * and less than PARK_UNSETTLED_MAX parks are handed to its handle and not settled. It ends with its
 * handle's connection.
 *
 * A park is *due* when it is held, answered, and ready or timed out. parks_next_match() brings
 * together the park that has been ready longest and the free worker with the smallest load, among
 * equals the one that has waited longest since it was free, or handed something. Readiness is kept
 * while a park is handed, so one that comes back has its place again.
 *
 * A group exists while it has parks or workers.
 */

#include "pair_heap.h"
#include "park.h"

enum {
	PARK_CAPACITY_MAX = 1024,
	PARK_WORKERS_MAX = 64,   /* of one handle */
	PARK_UNSETTLED_MAX = 16, /* parks at one handle, beyond which its workers get none */
};

/* Those of one owner among the workers of a group. */
struct park_team {
	struct park_group *group;
	struct park_owner *owner;
	struct pair_heap free;  /* workers */
	struct pair_node place; /* among the group's teams: has a free worker, and is not starved */
	bool starved;           /* its owner's quota of hand-outs was used up */
	TAILQ_HEAD(, park_worker) workers;
	TAILQ_ENTRY(park_team) of_group, of_starved;
};

struct park_worker {
	struct park_team *team;
	struct park_handle *handle;
	struct pair_node place; /* in the team's heap: it is free */
	uint32_t credit;
	uint32_t capacity;
	uint64_t turn; /* since when it waits */
	TAILQ_ENTRY(park_worker) of_team, of_handle;
};

/* Read-only for the caller. */
struct park_group {
	struct park_owner *owner; /* NULL: shared */
	uint64_t number;          /* never used again */
	uint64_t n_parks;
	uint64_t n_ready; /* held, and ready or timed out */
	uint64_t n_handed;
	uint64_t credit, capacity; /* of all workers */
	uint32_t n_workers;
	uint8_t name_length;
	bool matching;         /* on the list of groups with a due park and a free worker */
	struct pair_heap due;  /* parks */
	struct pair_heap free; /* teams */
	TAILQ_HEAD(, park_team) teams;
	TAILQ_ENTRY(park_group) all, match;
	uint8_t name[];
};

/* How groups are named: of an owner, or shared (NULL). 1 to 255 bytes. */
struct park_group_name {
	const struct park_owner *owner;
	const void *bytes;
	uint8_t length;
};

/* NULL: there is none. */
struct park_group *parks_find_group(const struct parks *ps, const struct park_group_name *name);

/* The group after `after` in the order of their numbers, NULL: the first one. NULL: no more. */
struct park_group *parks_next_group(const struct parks *ps, const struct park_group *after);

/* Since when the park that comes next is ready, ns; 0: none is due. */
int64_t park_group_oldest(const struct park_group *g);

/* The handle's worker by the group's name, whether shared or not; NULL: none. */
struct park_worker *parks_find_worker(const struct park_handle *h, const void *name, size_t length);

/*
 * ATTACH: a worker of an attached handle is made, or changed: `more` is added to its credit. -EINVAL:
 * no name, a capacity of 0 or above PARK_CAPACITY_MAX, a credit above it. -ENOSPC:
 * PARK_WORKERS_MAX. -ENOMEM.
 */
int parks_offer(struct parks *ps, struct park_handle *h, const struct park_group_name *name,
		uint32_t more, uint32_t capacity);

/* DETACH: frees it. What was handed to it stays handed. */
void parks_end_worker(struct parks *ps, struct park_worker *w);

/* The same worker, in another group. -ENOMEM. */
int parks_move_worker(struct parks *ps, struct park_worker *w, const struct park_group_name *name);

/* Whether the park's group is the shared one of its name. It has a group, and is not gone. -ENOMEM. */
int parks_set_shared(struct parks *ps, struct park *p, bool shared);

/* What belongs together now; nothing has changed. */
struct park_match {
	struct park *park;
	struct park_worker *worker;
};

/* false: there is none. Each group has its turn, which ends when one is handed. */
bool parks_next_match(struct parks *ps, struct park_match *ret);

/* The match that parks_next_match() has just given: handed, as by parks_hand(). */
void parks_hand_match(struct parks *ps, const struct park_match *m, int64_t now);

#endif
