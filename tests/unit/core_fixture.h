/* SPDX-License-Identifier: MIT */
#ifndef READYD_TESTS_CORE_FIXTURE_H
#define READYD_TESTS_CORE_FIXTURE_H

/* A core with one session and a fake clock, and the few steps that all tests of the core share.
 * Every wrong return fails the test at once, so that a test reads as the story it tells. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/core.h"

#define SECOND INT64_C(1000000000)
#define MS INT64_C(1000000)

enum { FIXTURE_GEN = 1, FIXTURE_COOKIE = 7000, FIXTURE_BATCH = 1024 };

struct fixture {
	struct core *core;
	struct session *session;
	struct quota quota;
	int64_t now;
};

static inline void quota_open(struct quota *q)
{
	*q = (struct quota){0};
	for (unsigned i = 0; i < QUOTA_MAX; i++)
		q->limit[i] = UINT64_MAX;
}

static inline void fixture_open(struct fixture *f, bool level)
{
	struct core_options options = {.level = level};

	*f = (struct fixture){.now = 1000 * SECOND};
	quota_open(&f->quota);
	assert_int_equal(core_new(&options, &f->core), 0);
	assert_int_equal(core_add_session(f->core, 1, f, &f->quota, &f->session), 0);
}

/* Ends all, and looks at what must be zero then. */
static inline void fixture_close(struct fixture *f)
{
	const struct core_stats *st = core_stats(f->core);

	core_check(f->core);
	session_end(f->session);
	core_check(f->core);
	assert_int_equal(st->watches, 0);
	assert_int_equal(st->timers, 0);
	assert_int_equal(st->waiting, 0);
	assert_int_equal(st->deadlines, 0);
	assert_int_equal(st->ready, 0);
	assert_int_equal(st->heap_nodes, 0);
	assert_int_equal(f->quota.used[QUOTA_WATCHES], 0);
	assert_int_equal(f->quota.used[QUOTA_TIMERS], 0);
	assert_null(core_free(f->core));
}

/* Most tests are given a fixture with an edge core, and have it checked afterwards. */
static inline int fixture_setup(void **state)
{
	static struct fixture f;

	fixture_open(&f, false);
	*state = &f;
	return 0;
}

static inline int fixture_setup_level(void **state)
{
	static struct fixture f;

	fixture_open(&f, true);
	*state = &f;
	return 0;
}

static inline int fixture_teardown(void **state)
{
	fixture_close(*state);
	return 0;
}

static inline uint64_t fixture_watch_as(struct fixture *f, uint32_t id, uint32_t gen,
					unsigned interest, enum core_mode mode)
{
	struct core_watch w = {
		.id = id,
		.gen = gen,
		.cookie = FIXTURE_COOKIE + id,
		.interest = (uint8_t)interest,
		.mode = (uint8_t)mode,
		.fd = (int32_t)id + 10,
	};
	uint64_t tag = 0;

	assert_int_equal(session_watch(f->session, &w, f->now, &tag), 0);
	assert_true(tag != 0);
	watch_registered(f->core, tag, id + 100);
	return tag;
}

/* Wait mode, both directions, and no initial level: the "drained pair". */
static inline uint64_t fixture_watch(struct fixture *f, uint32_t id)
{
	return fixture_watch_as(f, id, FIXTURE_GEN, CORE_BOTH, CORE_MODE_WAIT);
}

static inline uint64_t fixture_stream(struct fixture *f, uint32_t id, unsigned interest)
{
	return fixture_watch_as(f, id, FIXTURE_GEN, interest, CORE_MODE_STREAM);
}

/* A WAIT that must be accepted; returns what is to be armed. */
static inline unsigned fixture_wait(struct fixture *f, uint32_t id, unsigned directions)
{
	unsigned arm = 99;

	assert_int_equal(session_wait(f->session, id, FIXTURE_GEN, directions, f->now, &arm), 0);
	assert_int_equal(arm & ~directions, 0);
	return arm;
}

static inline int fixture_wait_result(struct fixture *f, uint32_t id, unsigned directions)
{
	unsigned arm = 0;

	return session_wait(f->session, id, FIXTURE_GEN, directions, f->now, &arm);
}

static inline int fixture_unwait(struct fixture *f, uint32_t id, unsigned directions)
{
	return session_unwait(f->session, id, FIXTURE_GEN, directions);
}

static inline int fixture_reset(struct fixture *f, uint32_t id, unsigned directions)
{
	return session_reset(f->session, id, FIXTURE_GEN, directions);
}

static inline int fixture_evict(struct fixture *f, uint32_t id)
{
	return session_evict(f->session, id, FIXTURE_GEN);
}

/* An absolute deadline that must be accepted: 0 none, < 0 past. */
static inline void fixture_deadline(struct fixture *f, uint32_t id, unsigned directions,
				    int64_t when, uint16_t stamp)
{
	assert_int_equal(session_set_deadline(f->session, id, FIXTURE_GEN, directions, when, false,
					      stamp, f->now),
			 0);
}

/* Moves the clock and lets expire what is due. */
static inline void fixture_advance(struct fixture *f, int64_t ns)
{
	f->now += ns;
	core_expire(f->core, f->now);
}

static inline void fixture_nothing(const struct fixture *f)
{
	struct core_entry e;

	assert_int_equal(session_peek(f->session, &e, 1), 0);
	assert_null(core_next_ready(f->core, NULL));
}

/* Field by field: the padding is anybody's. */
static inline void fixture_same_entries(const struct core_entry *a, const struct core_entry *b,
					unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(a[i].kind, b[i].kind);
		assert_int_equal(a[i].mode, b[i].mode);
		assert_int_equal(a[i].read, b[i].read);
		assert_int_equal(a[i].write, b[i].write);
		assert_int_equal(a[i].read_stamp, b[i].read_stamp);
		assert_int_equal(a[i].write_stamp, b[i].write_stamp);
		assert_int_equal(a[i].id, b[i].id);
		assert_int_equal(a[i].gen, b[i].gen);
		assert_int_equal(a[i].cookie, b[i].cookie);
		assert_int_equal(a[i].count, b[i].count);
	}
}

/* Exactly one entry is unsent; it stays so. */
static inline struct core_entry fixture_peek_one(const struct fixture *f)
{
	struct core_entry e[2];

	assert_int_equal(session_peek(f->session, e, 2), 1);
	return e[0];
}

/* Exactly one unsent entry, a watch's, with these codes; it is sent. */
static inline struct core_entry fixture_entry(struct fixture *f, uint32_t id, unsigned read,
					      unsigned write)
{
	struct core_entry e = fixture_peek_one(f);

	assert_int_equal(e.kind, CORE_ENTRY_WATCH);
	assert_int_equal(e.id, id);
	assert_int_equal(e.read, read);
	assert_int_equal(e.write, write);
	assert_int_equal(e.cookie, FIXTURE_COOKIE + id);
	session_commit(f->session, 1);
	fixture_nothing(f);
	return e;
}

/* The same for one direction, nothing about the other. */
static inline struct core_entry fixture_entry_of(struct fixture *f, uint32_t id,
						 enum core_direction direction, unsigned code)
{
	return fixture_entry(f, id, direction == CORE_READ ? code : 0,
			     direction == CORE_WRITE ? code : 0);
}

/* WAIT, and its entry, which is known at once. */
static inline void fixture_wait_gives(struct fixture *f, uint32_t id, enum core_direction direction,
				      unsigned code)
{
	assert_int_equal(fixture_wait(f, id, direction), 0);
	fixture_entry_of(f, id, direction, code);
}

/* WAIT, which goes on waiting; takes it back. */
static inline void fixture_wait_waits(struct fixture *f, uint32_t id, enum core_direction direction)
{
	assert_int_equal(fixture_wait(f, id, direction), direction);
	fixture_nothing(f);
	assert_int_equal(fixture_unwait(f, id, direction), 0);
	fixture_nothing(f);
}

/* The row of one item. */
static inline bool fixture_find(const struct fixture *f, bool timer, uint32_t id,
				struct core_item_info *ret)
{
	uint64_t cursor = 0;

	while (core_next_item(f->core, &cursor, ret))
		if (ret->session == f->session && ret->timer == timer && ret->id == id)
			return true;
	return false;
}

static inline struct core_slot_info fixture_slot(const struct fixture *f, uint32_t id,
						 enum core_direction direction)
{
	struct core_item_info info;

	assert_true(fixture_find(f, false, id, &info));
	return direction == CORE_READ ? info.read : info.write;
}

static inline bool fixture_timer_at(struct fixture *f, uint32_t id, uint32_t gen, int64_t when,
				    int64_t period)
{
	struct core_timer t = {
		.id = id,
		.gen = gen,
		.cookie = FIXTURE_COOKIE + id,
		.when = when,
		.period = period,
	};
	bool pending = !fixture_find(f, true, id, &(struct core_item_info){0});

	assert_int_equal(session_set_timer(f->session, &t, f->now, &pending), 0);
	return pending;
}

/* Exactly one unsent entry, a timer's; it is sent. */
static inline void fixture_timer_entry(struct fixture *f, uint32_t id, uint32_t gen, uint32_t count)
{
	struct core_entry e = fixture_peek_one(f);

	assert_int_equal(e.kind, CORE_ENTRY_TIMER);
	assert_int_equal(e.id, id);
	assert_int_equal(e.gen, gen);
	assert_int_equal(e.count, count);
	assert_int_equal(e.cookie, FIXTURE_COOKIE + id);
	session_commit(f->session, 1);
	fixture_nothing(f);
}

/* A small generator, so that a seed gives the same run everywhere. */
static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

#endif
