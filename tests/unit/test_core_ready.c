/* SPDX-License-Identifier: MIT */

/*
 * What a session is to be told: breaks, ready-lists and their order, streams, errors, generations,
 * and what the inspection shows; told by the numbers of the conformance checklist where the core
 * alone can show an item.
 */

#include "core_fixture.h"

#define R CORE_CODE_READY
#define C CORE_CODE_CLOSING
#define T CORE_CODE_TIMEOUT
#define N CORE_CODE_NOT_POLLABLE

enum { A = 1, B = 2 };

/* ---- Break ---- */

static void S_065_ten_thousand_breaks_are_one(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 10000; i++)
		session_break(f->session);
	assert_int_equal(core_stats(f->core)->ready, 1);
	assert_int_equal(fixture_peek_one(f).kind, CORE_ENTRY_BREAK);
	session_commit(f->session, 1);
	fixture_nothing(f);
	session_break(f->session);
	assert_int_equal(fixture_peek_one(f).kind, CORE_ENTRY_BREAK);
	session_commit(f->session, 1);
}

static void S_067_break_together_with_an_entry(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);
	struct core_entry e[4];

	fixture_wait(f, A, CORE_READ);
	core_event(f->core, tag, CORE_READ, false);
	session_break(f->session);
	assert_int_equal(session_peek(f->session, e, 4), 2);
	assert_int_equal(e[0].kind, CORE_ENTRY_BREAK);
	assert_int_equal(e[1].kind, CORE_ENTRY_WATCH);
	session_commit(f->session, 1);
	fixture_entry(f, A, R, 0);
}

static void S_068_break_is_one_sessions(void **state)
{
	struct fixture *f = *state;
	struct session *second;
	struct core_entry e;

	assert_int_equal(core_add_session(f->core, 2, NULL, &f->quota, &second), 0);
	session_break(second);
	assert_int_equal(session_peek(f->session, &e, 1), 0);
	assert_ptr_equal(core_next_ready(f->core, NULL), second);
	assert_null(core_next_ready(f->core, second));
	session_end(second);
	assert_null(core_next_ready(f->core, NULL));
}

/* ---- Batches, coalescing, sending ---- */

enum { MANY = 5000 };

static void S_072_five_thousand_in_batches(void **state)
{
	struct fixture *f = *state;
	static bool seen[MANY + 1];
	static uint64_t tags[MANY + 1];
	struct core_entry e[FIXTURE_BATCH];
	unsigned n, total = 0;

	memset(seen, 0, sizeof(seen));
	for (uint32_t i = 1; i <= MANY; i++) {
		tags[i] = fixture_watch(f, i);
		fixture_wait(f, i, CORE_READ);
	}
	for (uint32_t i = MANY; i >= 1; i--)
		core_event(f->core, tags[i], CORE_BOTH, false);
	while ((n = session_peek(f->session, e, FIXTURE_BATCH)) > 0) {
		for (unsigned i = 0; i < n; i++) {
			/* In order of completion. */
			assert_int_equal(e[i].id, MANY - total - i);
			assert_false(seen[e[i].id]);
			seen[e[i].id] = true;
		}
		total += n;
		session_commit(f->session, n);
	}
	assert_int_equal(total, MANY);
}

static void S_073_stream_edges_coalesce(void **state)
{
	struct fixture *f = *state;
	uint64_t tags[101];
	struct core_entry e[FIXTURE_BATCH];

	for (uint32_t i = 1; i <= 100; i++)
		tags[i] = fixture_stream(f, i, CORE_READ);
	for (unsigned round = 0; round < 100; round++)
		for (uint32_t i = 1; i <= 100; i++)
			core_event(f->core, tags[i], CORE_READ, false);
	assert_int_equal(core_stats(f->core)->coalesced, 9900);
	assert_int_equal(session_peek(f->session, e, FIXTURE_BATCH), 100);
	session_commit(f->session, 100);
	fixture_nothing(f);
}

static void S_074_blocked_in_the_middle_loses_nothing(void **state)
{
	struct fixture *f = *state;
	struct core_entry e[10], again[10];
	uint64_t tags[11];

	for (uint32_t i = 1; i <= 10; i++) {
		tags[i] = fixture_watch(f, i);
		fixture_wait(f, i, CORE_READ);
		core_event(f->core, tags[i], CORE_READ, false);
	}
	assert_int_equal(session_peek(f->session, e, 10), 10);
	session_commit(f->session, 4);
	assert_int_equal(session_peek(f->session, again, 10), 6);
	fixture_same_entries(&e[4], again, 6);
	/* A new wait of a sent one comes behind the old unsent ones. */
	core_event(f->core, tags[1], CORE_READ, false);
	fixture_wait(f, 1, CORE_READ);
	session_commit(f->session, 0);
	assert_int_equal(session_peek(f->session, again, 10), 7);
	fixture_same_entries(&e[4], again, 6);
	assert_int_equal(again[6].id, 1);
	session_commit(f->session, 7);
	fixture_nothing(f);
}

static void H6_peek_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct core_entry first[4], second[4];
	uint64_t tag = fixture_watch(f, A);

	fixture_stream(f, B, CORE_READ);
	assert_true(fixture_timer_at(f, 3, 1, 1, 0) == false);
	session_break(f->session);
	fixture_wait(f, A, CORE_BOTH);
	core_event(f->core, tag, CORE_READ, false);
	fixture_advance(f, 1);
	struct core_stats before = *core_stats(f->core);

	assert_int_equal(session_peek(f->session, first, 4), 3);
	assert_int_equal(session_peek(f->session, second, 1), 1);
	assert_int_equal(session_peek(f->session, second, 0), 0);
	assert_int_equal(session_peek(f->session, second, 4), 3);
	fixture_same_entries(first, second, 3);
	assert_memory_equal(&before, core_stats(f->core), sizeof(before));
	assert_int_equal(fixture_slot(f, A, CORE_READ).state, CORE_SLOT_DONE);
	core_check(f->core);
	session_commit(f->session, 3);
	fixture_nothing(f);
}

/* O5: the order is that of an item's first unsent bit. */
static void O5_order_of_completion(void **state)
{
	struct fixture *f = *state;
	uint64_t a = fixture_watch(f, A), b = fixture_watch(f, B);
	struct core_entry e[4];

	fixture_wait(f, A, CORE_BOTH);
	fixture_wait(f, B, CORE_BOTH);
	core_event(f->core, b, CORE_WRITE, false);
	core_event(f->core, a, CORE_READ, false);
	core_event(f->core, b, CORE_READ, false);
	assert_int_equal(session_peek(f->session, e, 4), 2);
	assert_int_equal(e[0].id, B);
	assert_int_equal(e[0].read, R);
	assert_int_equal(e[0].write, R);
	assert_int_equal(e[1].id, A);
	assert_int_equal(e[1].write, 0);
	session_commit(f->session, 2);
}

static void ready_sessions_take_turns(void **state)
{
	struct fixture *f = *state;
	struct session *s[3];

	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(core_add_session(f->core, 10 + i, &s[i], &f->quota, &s[i]), 0);
		assert_int_equal(session_number(s[i]), 10 + i);
		assert_ptr_equal(session_owner(s[i]), &s[i]);
	}
	session_break(s[2]);
	session_break(s[0]);
	session_break(s[1]);
	session_break(s[2]);
	assert_ptr_equal(core_next_ready(f->core, NULL), s[2]);
	assert_ptr_equal(core_next_ready(f->core, s[2]), s[0]);
	assert_ptr_equal(core_next_ready(f->core, s[0]), s[1]);
	assert_null(core_next_ready(f->core, s[1]));
	session_commit(s[2], 1);
	assert_ptr_equal(core_next_ready(f->core, NULL), s[0]);
	session_break(s[2]);
	session_end(s[0]);
	assert_ptr_equal(core_next_ready(f->core, NULL), s[1]);
	assert_ptr_equal(core_next_ready(f->core, s[1]), s[2]);
	session_end(s[1]);
	session_end(s[2]);
}

/* A session whose socket is full: out of the order, but nothing is lost. */
static void S_074_held_session_goes_on_coalescing(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_stream(f, A, CORE_READ);
	struct session *second;

	assert_int_equal(core_add_session(f->core, 2, NULL, &f->quota, &second), 0);
	core_event(f->core, tag, CORE_READ, false);
	session_break(second);
	session_hold(f->session, true);
	session_hold(f->session, true);
	assert_ptr_equal(core_next_ready(f->core, NULL), second);
	assert_null(core_next_ready(f->core, second));
	core_event(f->core, tag, CORE_READ, false);
	session_break(f->session);
	assert_null(core_next_ready(f->core, second));
	core_check(f->core);
	session_hold(f->session, false);
	session_hold(f->session, false);
	assert_ptr_equal(core_next_ready(f->core, NULL), second);
	assert_ptr_equal(core_next_ready(f->core, second), f->session);
	session_commit(f->session, 1);
	assert_ptr_equal(core_next_ready(f->core, second), f->session);
	session_end(second);
	fixture_entry(f, A, R, 0);
	/* Held while it has nothing: the first entry does not bring it back. */
	session_hold(f->session, true);
	core_event(f->core, tag, CORE_READ, false);
	assert_null(core_next_ready(f->core, NULL));
	session_hold(f->session, false);
	fixture_entry(f, A, R, 0);
	/* The end of a held one. */
	session_break(f->session);
	session_hold(f->session, true);
}

/* ---- Stream mode ---- */

static void S_077_each_sent_edge_is_followed_by_a_new_entry(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_stream(f, A, CORE_READ);

	for (unsigned i = 0; i < 3; i++) {
		core_event(f->core, tag, CORE_READ, false);
		assert_int_equal(fixture_entry(f, A, R, 0).mode, CORE_MODE_STREAM);
	}
}

static void S_078_unsent_edges_merge(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_stream(f, A, CORE_BOTH);

	for (unsigned i = 0; i < 10; i++)
		core_event(f->core, tag, i % 2 ? CORE_WRITE : CORE_READ, false);
	fixture_entry(f, A, R, R);
}

static void S_079_sent_entry_swallows_no_edge(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_stream(f, A, CORE_READ);

	core_event(f->core, tag, CORE_READ, false);
	(void)fixture_peek_one(f);
	core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, R, 0);
	core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, R, 0);
}

static void S_080_stream_keeps_to_its_interest(void **state)
{
	struct fixture *f = *state;
	uint64_t read = fixture_stream(f, A, CORE_READ), write = fixture_stream(f, B, CORE_WRITE);

	core_event(f->core, read, CORE_BOTH, false);
	fixture_entry(f, A, R, 0);
	core_event(f->core, read, CORE_WRITE, false);
	fixture_nothing(f);
	core_event(f->core, write, CORE_BOTH, true);
	fixture_entry(f, B, 0, R);
}

static void S_081_stream_refuses_wait_and_outlives_a_deadline(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_stream(f, A, CORE_READ);

	assert_int_equal(fixture_wait_result(f, A, CORE_READ), -EINVAL);
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 5);
	fixture_advance(f, SECOND);
	assert_int_equal(fixture_entry(f, A, T, 0).read_stamp, 5);
	fixture_advance(f, SECOND);
	fixture_nothing(f);
	core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, R, 0);
	/* A past one counts as an expiry, and a timeout merges with an edge. */
	fixture_deadline(f, A, CORE_READ, 0, 6);
	core_event(f->core, tag, CORE_READ, false);
	fixture_deadline(f, A, CORE_READ, -1, 7);
	assert_int_equal(fixture_entry(f, A, R | T, 0).read_stamp, 7);
}

static void stream_reset_clears_unsent_edges(void **state)
{
	struct fixture *f = *state;
	uint64_t a = fixture_stream(f, A, CORE_BOTH), b = fixture_stream(f, B, CORE_READ);

	core_event(f->core, a, CORE_BOTH, false);
	assert_int_equal(fixture_reset(f, A, CORE_READ), 0);
	fixture_entry(f, A, 0, R);
	/* Nothing left: it leaves the list, and comes in at its end later. */
	core_event(f->core, a, CORE_BOTH, false);
	assert_int_equal(fixture_reset(f, A, CORE_BOTH), 0);
	fixture_nothing(f);
	core_event(f->core, b, CORE_READ, false);
	core_event(f->core, a, CORE_READ, false);
	struct core_entry e[2];

	assert_int_equal(session_peek(f->session, e, 2), 2);
	assert_int_equal(e[0].id, B);
	assert_int_equal(e[1].id, A);
	session_commit(f->session, 2);
	/* After the check. */
	core_event(f->core, a, CORE_BOTH, true);
	assert_int_equal(fixture_reset(f, A, CORE_BOTH), N);
	fixture_entry(f, A, R | N, R);
}

static void stream_closing_is_told_once(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_stream(f, A, CORE_READ);

	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 1);
	assert_int_equal(fixture_evict(f, A), 0);
	fixture_entry(f, A, C, 0);
	core_event(f->core, tag, CORE_READ, false);
	fixture_advance(f, 2 * SECOND);
	fixture_nothing(f);
	assert_int_equal(fixture_evict(f, A), C);
	fixture_nothing(f);
}

static void stream_is_refused_by_a_level_core(void **state)
{
	struct fixture *f = *state;
	struct core_watch w = {.id = A, .interest = CORE_READ, .mode = CORE_MODE_STREAM};
	uint64_t tag;

	assert_int_equal(session_watch(f->session, &w, f->now, &tag), -EOPNOTSUPP);
	assert_int_equal(core_stats(f->core)->watches, 0);
	assert_int_equal(f->quota.used[QUOTA_WATCHES], 0);
}

/* ---- Errors ---- */

static void S_089_bare_error(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	core_event(f->core, tag, CORE_BOTH, true);
	fixture_wait_gives(f, A, CORE_READ, N);
	fixture_wait_gives(f, A, CORE_WRITE, R);
	assert_int_equal(fixture_reset(f, A, CORE_READ), N);
	assert_int_equal(fixture_reset(f, A, CORE_WRITE), 0);
}

static void S_090_wait_of_that_moment_gets_ready(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	fixture_wait(f, A, CORE_BOTH);
	core_event(f->core, tag, CORE_BOTH, true);
	fixture_entry(f, A, R, R);
	fixture_wait_gives(f, A, CORE_READ, N);
	fixture_wait_waits(f, A, CORE_WRITE);
}

static void S_091_not_pollable_ends_with_the_next_event(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	core_event(f->core, tag, CORE_BOTH, true);
	fixture_wait_gives(f, A, CORE_READ, N);
	core_event(f->core, tag, CORE_READ, false);
	fixture_wait_gives(f, A, CORE_READ, R);
	fixture_wait_waits(f, A, CORE_READ);
	core_event(f->core, tag, CORE_BOTH, true);
	core_event(f->core, tag, CORE_WRITE, false);
	assert_int_equal(fixture_reset(f, A, CORE_BOTH), 0);
}

static void S_092_precedence(void **state)
{
	struct fixture *f = *state;

	for (uint32_t id = 1; id <= 3; id++) {
		uint64_t tag = fixture_watch(f, id);

		core_event(f->core, tag, CORE_BOTH, true);
		if (id <= 2)
			fixture_deadline(f, id, CORE_READ, -1, 1);
		if (id <= 1)
			assert_int_equal(fixture_evict(f, id), 0);
	}
	const unsigned code[] = {0, C, T, N};

	for (uint32_t id = 1; id <= 3; id++) {
		assert_int_equal(fixture_reset(f, id, CORE_READ), code[id]);
		fixture_wait_gives(f, id, CORE_READ, code[id]);
	}
	/* Timeout and not-pollable are one direction's. */
	fixture_wait_gives(f, 2, CORE_WRITE, R);
	fixture_wait_gives(f, 1, CORE_WRITE, C);
}

static void S_093_unknown_and_stale_names(void **state)
{
	struct fixture *f = *state;
	struct session *s = f->session;
	const struct core_timer timer = {.id = 2, .gen = 1, .when = INT64_MAX};
	struct core_entry e;
	unsigned arm = 5;
	bool pending;

	fixture_watch(f, A);
	assert_int_equal(session_set_timer(s, &timer, f->now, &pending), 0);
	for (uint32_t id = 1; id <= 2; id++) {
		int want = id == A ? -ESTALE : -ENOENT;

		assert_int_equal(session_wait(s, id, 2, CORE_READ, f->now, &arm), want);
		assert_int_equal(session_unwait(s, id, 2, CORE_READ), want);
		assert_int_equal(session_reset(s, id, 2, CORE_READ), want);
		assert_int_equal(session_evict(s, id, 2), want);
		assert_int_equal(session_unwatch(s, id, 2, &e), want);
		assert_int_equal(session_set_deadline(s, id, 2, CORE_READ, -1, false, 1, f->now),
				 want);
	}
	assert_int_equal(arm, 5);
	assert_int_equal(session_stop_timer(s, 1, 1), -ENOENT);
	assert_int_equal(session_stop_timer(s, 2, 2), -ESTALE);
	assert_int_equal(core_stats(f->core)->timers, 1);
	fixture_wait_waits(f, A, CORE_READ);
	assert_int_equal(session_stop_timer(s, 2, 1), 0);
}

/* ---- Backends, ids, generations ---- */

/* A level-triggered poller: a direction is reported for each arm, once. */
static void S_100_arm_once_for_each_idle_to_waiting(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	/* Nobody waits, so nothing was armed: nothing is latched either. */
	core_event(f->core, tag, CORE_BOTH, false);
	assert_int_equal(fixture_wait(f, A, CORE_READ), CORE_READ);
	assert_int_equal(fixture_wait(f, A, CORE_WRITE), CORE_WRITE);
	unsigned arm = 5;

	assert_int_equal(session_wait(f->session, A, FIXTURE_GEN, CORE_BOTH, f->now, &arm), -EBUSY);
	assert_int_equal(arm, 5);
	/* The other direction stays armed. */
	core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, R, 0);
	assert_int_equal(fixture_wait(f, A, CORE_READ), CORE_READ);
	core_event(f->core, tag, CORE_BOTH, false);
	fixture_entry(f, A, R, R);
	/* What is known at once is not armed. */
	fixture_deadline(f, A, CORE_READ, -1, 1);
	assert_int_equal(fixture_wait(f, A, CORE_BOTH), CORE_WRITE);
	fixture_entry(f, A, T, 0);
	assert_int_equal(fixture_evict(f, A), 0);
	fixture_entry(f, A, 0, C);
	assert_int_equal(fixture_wait(f, A, CORE_BOTH), 0);
	fixture_entry(f, A, C, C);
}

static void S_102_event_after_the_place_was_reused(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	for (uint32_t gen = 2; gen < 2000; gen++) {
		struct core_entry owed;
		uint64_t old = tag;

		assert_int_equal(
			session_unwatch(f->session, A, gen == 2 ? FIXTURE_GEN : gen - 1, &owed),
			gen != 2);
		tag = fixture_watch_as(f, A, gen, CORE_BOTH, CORE_MODE_WAIT);
		assert_true(tag != old);
		unsigned arm;

		assert_int_equal(session_wait(f->session, A, gen, CORE_BOTH, f->now, &arm), 0);
		core_event(f->core, old, CORE_BOTH, true);
		fixture_nothing(f);
		assert_int_equal(core_stats(f->core)->stale, gen - 1);
	}
}

static void S_103_generations_tell_pipelined_entries_apart(void **state)
{
	struct fixture *f = *state;
	struct core_entry owed = {0};
	uint64_t first = fixture_watch_as(f, A, 1, CORE_BOTH, CORE_MODE_WAIT);

	fixture_wait(f, A, CORE_READ);
	assert_int_equal(session_unwatch(f->session, A, 1, &owed), 1);
	assert_int_equal(owed.gen, 1);
	assert_int_equal(owed.read, C);
	uint64_t second = fixture_watch_as(f, A, 2, CORE_BOTH, CORE_MODE_WAIT);
	unsigned arm;

	assert_int_equal(session_wait(f->session, A, 2, CORE_READ, f->now, &arm), 0);
	assert_int_equal(fixture_wait_result(f, A, CORE_WRITE), -ESTALE);
	core_event(f->core, first, CORE_READ, false);
	fixture_nothing(f);
	core_event(f->core, second, CORE_READ, false);
	assert_int_equal(fixture_entry(f, A, R, 0).gen, 2);
}

/* ---- Inspection, numbers ---- */

static void rows_show_every_item(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A), cursor = 0, last = 0;
	struct core_item_info info;
	unsigned items = 0;

	fixture_stream(f, B, CORE_WRITE);
	assert_false(fixture_timer_at(f, A, 4, f->now + SECOND, 2 * SECOND));
	while (core_next_item(f->core, &cursor, &info)) {
		assert_true(cursor > last);
		last = cursor;
		items++;
	}
	assert_int_equal(items, 3);
	fixture_wait(f, A, CORE_BOTH);
	core_event(f->core, tag, CORE_READ, true);
	fixture_deadline(f, A, CORE_WRITE, f->now + SECOND, 1);
	assert_true(fixture_find(f, false, A, &info));
	assert_int_equal(info.gen, FIXTURE_GEN);
	assert_int_equal(info.cookie, FIXTURE_COOKIE + A);
	assert_int_equal(info.interest, CORE_BOTH);
	assert_int_equal(info.mode, CORE_MODE_WAIT);
	assert_int_equal(info.word, A + 100);
	assert_int_equal(info.fd, A + 10);
	assert_true(info.error && !info.closing);
	assert_true(f->now - info.since >= 0 && f->now - info.since < INT64_C(1) << 27);
	assert_int_equal(info.read.state, CORE_SLOT_DONE);
	assert_int_equal(info.read.code, R);
	assert_int_equal(info.write.state, CORE_SLOT_DONE); /* a bare error is both directions' */
	assert_int_equal(info.write.deadline, f->now + SECOND);
	assert_int_equal(info.fired, 0);
	fixture_entry(f, A, R, R);
	assert_true(fixture_find(f, false, A, &info));
	assert_int_equal(info.fired, 1);
	assert_true(fixture_find(f, true, A, &info));
	assert_int_equal(info.gen, 4);
	assert_int_equal(info.when, f->now + SECOND);
	assert_int_equal(info.period, 2 * SECOND);
}

static void numbers_add_up(void **state)
{
	struct fixture *f = *state;
	const struct session_stats *mine = session_stats(f->session);
	const struct core_stats *all = core_stats(f->core);
	uint64_t tag = fixture_watch(f, A);

	fixture_wait(f, A, CORE_BOTH);
	assert_int_equal(mine->waiting, 2);
	core_event(f->core, tag, CORE_READ, false);
	core_event(f->core, tag, CORE_READ, false);
	assert_int_equal(mine->events, 2);
	assert_int_equal(all->events, 2);
	assert_int_equal(mine->coalesced, 1);
	assert_int_equal(all->coalesced, 1);
	assert_int_equal(mine->ready, 1);
	assert_int_equal(mine->waiting, 1);
	fixture_entry(f, A, R, 0);
	assert_int_equal(mine->entries, 1);
	assert_int_equal(mine->messages, 1);
	assert_int_equal(all->entries, 1);
	assert_int_equal(mine->watches, 1);
	assert_int_equal(mine->timers, 0);
}

#define EDGE_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
#define LEVEL_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup_level, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EDGE_TEST(S_065_ten_thousand_breaks_are_one),
		EDGE_TEST(S_067_break_together_with_an_entry),
		EDGE_TEST(S_068_break_is_one_sessions),
		EDGE_TEST(S_072_five_thousand_in_batches),
		EDGE_TEST(S_073_stream_edges_coalesce),
		EDGE_TEST(S_074_blocked_in_the_middle_loses_nothing),
		EDGE_TEST(H6_peek_changes_nothing),
		EDGE_TEST(O5_order_of_completion),
		EDGE_TEST(ready_sessions_take_turns),
		EDGE_TEST(S_074_held_session_goes_on_coalescing),
		EDGE_TEST(S_077_each_sent_edge_is_followed_by_a_new_entry),
		EDGE_TEST(S_078_unsent_edges_merge),
		EDGE_TEST(S_079_sent_entry_swallows_no_edge),
		EDGE_TEST(S_080_stream_keeps_to_its_interest),
		EDGE_TEST(S_081_stream_refuses_wait_and_outlives_a_deadline),
		EDGE_TEST(stream_reset_clears_unsent_edges),
		EDGE_TEST(stream_closing_is_told_once),
		LEVEL_TEST(stream_is_refused_by_a_level_core),
		EDGE_TEST(S_089_bare_error),
		EDGE_TEST(S_090_wait_of_that_moment_gets_ready),
		EDGE_TEST(S_091_not_pollable_ends_with_the_next_event),
		EDGE_TEST(S_092_precedence),
		EDGE_TEST(S_093_unknown_and_stale_names),
		LEVEL_TEST(S_100_arm_once_for_each_idle_to_waiting),
		EDGE_TEST(S_102_event_after_the_place_was_reused),
		EDGE_TEST(S_103_generations_tell_pipelined_entries_apart),
		EDGE_TEST(rows_show_every_item),
		EDGE_TEST(numbers_add_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
