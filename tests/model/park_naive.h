/* SPDX-License-Identifier: MIT */
#ifndef READYD_TESTS_PARK_NAIVE_H
#define READYD_TESTS_PARK_NAIVE_H

/*
 * The rules of park.h in the plainest form: arrays, everything counted when it is asked for. Parks
 * are named by slot, handles by the number of their process. Each call returns what the real one
 * must return.
 */

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/park_group.h"

enum {
	NAIVE_OWNERS = 2,
	NAIVE_PARKS = 20,
	NAIVE_PROCESSES = 60,
	NAIVE_NAMES = 3,  /* 0: none */
	NAIVE_GROUPS = 3, /* the same */
	NOBODY = -1,
};

struct naive_park {
	bool exists;
	bool gone; /* and not freed */
	bool handed, answered, timed_out, shared;
	uint8_t interest, ready, end;
	uint32_t flags;
	unsigned owner, name, group;
	int64_t ready_since; /* 0: never was */
	uint16_t note;
	uint64_t number;
	uint64_t version; /* one more with each change that a record shows */
	uint64_t changed; /* the call that put it on the list of changes; 0: not on it */
	uint64_t connection;
	int64_t deadline;
	int maker, worker;
};

struct naive_handle {
	bool known, attached;
	unsigned owner;
	uint64_t connections;
};

struct naive_worker {
	bool exists, shared;
	uint32_t credit, capacity;
	uint64_t turn;
};

struct naive {
	struct naive_park parks[NAIVE_PARKS];
	struct naive_worker workers[NAIVE_PROCESSES][NAIVE_GROUPS];
	struct naive_handle handles[NAIVE_PROCESSES];
	uint64_t limit[NAIVE_OWNERS][QUOTA_MAX];
	uint64_t last_number;
	uint64_t call; /* each gets a number */
	int64_t now;   /* the caller's to set */
	uint64_t taken, dropped, expired, returned;
};

uint64_t naive_used(const struct naive *n, unsigned owner, enum quota_kind kind);
bool naive_is_ready(const struct naive_park *p);
uint32_t naive_references(const struct naive *n, int handle);

int naive_park(struct naive *n, int maker, unsigned slot, const struct naive_park *new);
void naive_answered(struct naive *n, unsigned slot);
int naive_claim(struct naive *n, int maker, unsigned slot);
int naive_hand(struct naive *n, unsigned slot, int worker);
void naive_take_back(struct naive *n, unsigned slot);
/* DROPPED by a request, or EXPIRED by its age. */
int naive_drop(struct naive *n, unsigned slot, enum park_end end);
int naive_state_held(struct naive *n, int worker, unsigned slot, bool held);
void naive_state_no_other(struct naive *n, int worker);
void naive_disconnected(struct naive *n, int handle);
void naive_died(struct naive *n, int handle);
void naive_ready(struct naive *n, unsigned slot, unsigned directions);
void naive_expire(struct naive *n, int64_t now);
/* The park is as it was recorded. */
void naive_restore(struct naive *n, unsigned slot, const struct naive_park *recorded);

/* ---- Groups (park_naive_group.c). One is named by an owner, NOBODY being all, and its number. ---- */

struct naive_group {
	int owner;
	unsigned group;
};

static inline struct naive_group naive_group_of(unsigned owner, unsigned group, bool shared)
{
	return (struct naive_group){.owner = shared ? NOBODY : (int)owner, .group = group};
}

int naive_offer(struct naive *n, int handle, const struct naive_group *g, uint32_t more,
		uint32_t capacity);
void naive_end_workers(struct naive *n, int handle);
void naive_set_shared(struct naive *n, unsigned slot, bool shared);

/* Whether something of the group can be handed; and whether this park may be, to this handle. */
bool naive_has_match(const struct naive *n, const struct naive_group *g);
bool naive_is_match(const struct naive *n, const struct naive_group *g, unsigned slot, int handle);
void naive_hand_match(struct naive *n, const struct naive_group *g, unsigned slot, int handle);

/* What can be seen of a group, counted; `all` 0: there is none. */
struct naive_numbers {
	uint64_t all, parks, ready, handed, workers, credit, capacity;
	int64_t oldest;
};
struct naive_numbers naive_count_group(const struct naive *n, const struct naive_group *g);

#endif
