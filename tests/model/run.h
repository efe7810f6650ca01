/* SPDX-License-Identifier: MIT */
#ifndef READYD_TESTS_RUN_H
#define READYD_TESTS_RUN_H

/* One run of the model test: the core, its naive twin, and the comparison of the two. A difference
 * is told, with the command that replays it, and ends the program. */

#include <stdbool.h>
#include <stdint.h>

#include "naive.h"

#define SECOND INT64_C(1000000000)

enum {
	ROUND = 20000,
	STALE_TAGS = 256,
	ENTRIES = NAIVE_WATCHES + NAIVE_TIMERS + 1,
	CHECK_EVERY = 64,
	ROWS_EVERY = 16,
	PEEK_EVERY = 8,
	SINCE_STEP = 1 << 27, /* precision of the rows' `since` */
	HEAP_SLACK = 64,
};

struct run {
	uint64_t seed, state;
	uint64_t step, steps, trace, round;
	bool paranoid;

	struct core *core;
	struct naive naive;
	struct session *sessions[NAIVE_SESSIONS];
	uint64_t numbers[NAIVE_SESSIONS], next_number;
	struct quota quotas[NAIVE_QUOTAS];
	int64_t now;
	unsigned shift; /* of the clock's step */
	uint32_t ids;
	unsigned lazy; /* how seldom a client reads */
	uint64_t stale[STALE_TAGS];
	unsigned n_stale;
	unsigned touched; /* mask of sessions: looked at after this step */
	char text[256];   /* the call at hand */
};

/* Tells what the call at hand is; with --trace also to stdout. */
__attribute__((format(printf, 2, 3))) void say(struct run *r, const char *format, ...);

/* Where a difference is, and how to see it again. */
void print_where(const struct run *r);

__attribute__((noreturn, format(printf, 2, 3))) void differ(const struct run *r, const char *format,
							    ...);

void expect(const struct run *r, const char *what, uint64_t want, uint64_t got);

/* True if the call succeeded, as both say. */
bool expect_result(const struct run *r, const struct naive_allowed *a, int got);

void compare_entry(const struct run *r, const struct core_entry *want,
		   const struct core_entry *got);

/* How many entries there are, at most max. */
unsigned compare_peek(const struct run *r, unsigned s, unsigned max);

void compare_quotas(const struct run *r);

/* Everything that is to be looked at after this step. */
void compare(struct run *r);

#endif
