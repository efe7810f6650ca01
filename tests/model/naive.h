/* SPDX-License-Identifier: MIT */
#ifndef READYD_TESTS_NAIVE_H
#define READYD_TESTS_NAIVE_H

/*
 * A core in the simplest form that keeps the rules: arrays, linear search, no heap, no lists. It is
 * written from the specification and shares nothing with the core but the public header's enums.
 *
 * Where a call breaks several rules at once the specification does not say which refusal comes
 * first: `struct naive_allowed` holds every negative result that would be right. Empty: the call
 * must succeed with `result`.
 */

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/core.h"

enum {
	NAIVE_SESSIONS = 4,
	NAIVE_QUOTAS = 2,
	NAIVE_WATCHES = 40, /* ids 1 to 40 of a session */
	NAIVE_TIMERS = 10,
};

struct naive_slot {
	bool latch;
	bool waiting;
	uint8_t code;   /* unsent: one code; in stream mode a mask */
	uint16_t stamp; /* of the deadline that is set */
	uint16_t sent_stamp;
	int64_t deadline; /* 0 none, -1 expired */
	int64_t node;     /* the time at which it is looked at; not later than the deadline */
	uint64_t armed;   /* when that time was set, in order */
	int64_t since;    /* waiting since */
};

struct naive_watch {
	bool live;
	bool registered;
	bool closing;
	bool error;
	uint8_t interest, mode, kind;
	int32_t fd;
	uint32_t id, gen, word;
	uint64_t cookie, tag;
	int64_t since;
	uint64_t fired;
	uint64_t order; /* of its first unsent bit; 0: nothing unsent */
	struct naive_slot slot[2];
};

struct naive_timer {
	bool live;
	bool pending;
	uint32_t id, gen, count;
	uint64_t cookie;
	int64_t when, period;
	uint64_t armed, order;
	uint64_t fired, fired_before; /* by this arming; by earlier ones of the same life */
};

/* A counter of which the specification fixes bounds only. */
struct naive_range {
	uint64_t low, high;
};

struct naive_counters {
	uint64_t events;
	struct naive_range coalesced;
	uint64_t entries;
};

struct naive_session {
	bool live;
	bool broken; /* an unsent break */
	bool held;
	unsigned quota;
	uint64_t order; /* of its first unsent entry; 0: none, or held */
	uint64_t messages;
	struct naive_counters counters;
	struct naive_watch watches[NAIVE_WATCHES];
	struct naive_timer timers[NAIVE_TIMERS];
};

struct naive {
	bool level;
	uint64_t order;
	uint64_t limit[NAIVE_QUOTAS][2]; /* watches, timers */
	uint64_t stale;
	struct naive_range breaks;
	struct naive_counters counters;
	struct naive_session sessions[NAIVE_SESSIONS];
};

struct naive_allowed {
	int refusal[6];
	unsigned n;
	int result;
};

/* Live items of a session, in numbers. */
struct naive_numbers {
	uint64_t watches, timers, waiting, ready, deadlines;
};

void naive_init(struct naive *n, bool level);
void naive_add_session(struct naive *n, unsigned s, unsigned quota);
void naive_end_session(struct naive *n, unsigned s);

struct naive_allowed naive_watch(struct naive *n, unsigned s, const struct core_watch *w,
				 int64_t now);
void naive_registered(struct naive *n, uint64_t tag, uint32_t word);
void naive_forget(struct naive *n, uint64_t tag);
struct naive_allowed naive_find(const struct naive *n, unsigned s, uint32_t id, uint32_t gen);
struct naive_allowed naive_unwatch(struct naive *n, unsigned s, uint32_t id, uint32_t gen,
				   struct core_entry *ret_entry);
struct naive_allowed naive_wait(struct naive *n, unsigned s, uint32_t id, uint32_t gen,
				unsigned directions, int64_t now, unsigned *ret_arm);
struct naive_allowed naive_unwait(struct naive *n, unsigned s, uint32_t id, uint32_t gen,
				  unsigned directions);
struct naive_allowed naive_reset(struct naive *n, unsigned s, uint32_t id, uint32_t gen,
				 unsigned directions);
struct naive_allowed naive_set_deadline(struct naive *n, unsigned s, uint32_t id, uint32_t gen,
					unsigned directions, int64_t when, bool relative,
					uint16_t stamp, int64_t now);
struct naive_allowed naive_evict(struct naive *n, unsigned s, uint32_t id, uint32_t gen);
struct naive_allowed naive_set_timer(struct naive *n, unsigned s, const struct core_timer *t,
				     int64_t now, bool *ret_pending);
struct naive_allowed naive_stop_timer(struct naive *n, unsigned s, uint32_t id, uint32_t gen);

void naive_break(struct naive *n, unsigned s);
void naive_hold(struct naive *n, unsigned s, bool held);
void naive_event(struct naive *n, uint64_t tag, unsigned directions, bool error);
void naive_expire(struct naive *n, int64_t now);

/* Entries in order, at most max. */
unsigned naive_peek(const struct naive *n, unsigned s, struct core_entry *entries, unsigned max);
void naive_commit(struct naive *n, unsigned s, unsigned entries);

/* The live watch of a tag, or NULL. */
struct naive_watch *naive_tag(struct naive *n, uint64_t tag, unsigned *ret_session);

/* The earliest pending deadline or timer; INT64_MAX: none. */
int64_t naive_earliest(const struct naive *n);

/* The session with an unsent entry that comes after order `after`; -1: none. */
int naive_next_ready(const struct naive *n, uint64_t after);

struct naive_numbers naive_numbers(const struct naive *n, unsigned s);

/* What is charged to a quota: watches (0) or timers (1). */
uint64_t naive_used(const struct naive *n, unsigned quota, unsigned which);

/* CORE_SLOT_* of a wait-mode slot. */
enum core_slot_state naive_state(const struct naive_slot *slot);

#endif
