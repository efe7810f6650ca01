/* SPDX-License-Identifier: MIT */

/*
 * Watches, waits, latches, resets and evictions of the core, told by the numbers of the conformance
 * checklist where the core alone can show an item. Ready-lists, streams and errors are in
 * test_core_ready.c, what has to do with time in test_deadlines.c and test_timers.c, quotas in
 * test_quota.c.
 */

#include <stdio.h>
#include <stdlib.h>

#include "core_fixture.h"

#define R CORE_CODE_READY
#define C CORE_CODE_CLOSING
#define T CORE_CODE_TIMEOUT

enum { A = 1, B = 2 };

/* ---- Open, close ---- */

static void S_005_live_id_is_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);
	struct core_watch again = {.id = A, .gen = 2, .interest = CORE_BOTH};
	uint64_t other = 5;

	assert_int_equal(session_watch(f->session, &again, f->now, &other), -EEXIST);
	assert_int_equal(other, 5);
	again.gen = FIXTURE_GEN;
	assert_int_equal(session_watch(f->session, &again, f->now, &other), -EEXIST);
	assert_int_equal(core_stats(f->core)->watches, 1);
	assert_int_equal(f->quota.used[QUOTA_WATCHES], 1);
	fixture_wait(f, A, CORE_READ);
	core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, R, 0);
}

static void S_006_unwatch_then_watch_again(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);
	struct core_entry owed;

	assert_int_equal(session_unwatch(f->session, A, FIXTURE_GEN, &owed), 0);
	assert_int_equal(session_unwatch(f->session, A, FIXTURE_GEN, &owed), -ENOENT);
	core_event(f->core, tag, CORE_BOTH, false);
	fixture_nothing(f);
	uint64_t again = fixture_watch(f, A);

	assert_true(again != tag);
	core_event(f->core, tag, CORE_BOTH, false);
	fixture_wait_waits(f, A, CORE_READ);
	core_event(f->core, again, CORE_READ, false);
	fixture_wait_gives(f, A, CORE_READ, R);
}

static void S_013_session_end_takes_everything(void **state)
{
	struct fixture *f = *state;
	const struct core_stats *st = core_stats(f->core);
	struct session *second;
	uint64_t tags[10];

	assert_int_equal(core_add_session(f->core, 2, NULL, &f->quota, &second), 0);
	assert_int_equal(st->sessions, 2);
	fixture_watch(f, A);
	for (unsigned i = 0; i < 10; i++) {
		struct core_watch w = {.id = i + 1, .interest = CORE_BOTH};
		struct core_timer t = {.id = i + 1, .when = f->now + SECOND};
		unsigned arm;
		bool pending;

		assert_int_equal(session_watch(second, &w, f->now, &tags[i]), 0);
		watch_registered(f->core, tags[i], 0);
		assert_int_equal(session_wait(second, i + 1, 0, CORE_BOTH, f->now, &arm), 0);
		assert_int_equal(session_set_deadline(second, i + 1, 0, CORE_BOTH, f->now + SECOND,
						      false, 0, f->now),
				 0);
		assert_int_equal(session_set_timer(second, &t, f->now, &pending), 0);
	}
	session_break(second);
	core_event(f->core, tags[3], CORE_READ, false);
	assert_int_equal(st->waiting, 19);
	assert_int_equal(st->ready, 2);
	session_end(second);
	core_check(f->core);
	assert_int_equal(st->sessions, 1);
	assert_int_equal(st->watches, 1);
	assert_int_equal(st->waiting + st->ready + st->timers + st->deadlines + st->heap_nodes, 0);
	assert_int_equal(f->quota.used[QUOTA_WATCHES], 1);
	assert_int_equal(f->quota.used[QUOTA_TIMERS], 0);
	core_event(f->core, tags[4], CORE_READ, false);
	fixture_advance(f, 2 * SECOND);
	fixture_nothing(f);
}

static void watch_refuses_bad_fields(void **state)
{
	struct fixture *f = *state;
	const struct core_watch good = {.id = A, .gen = 1, .interest = CORE_BOTH};
	struct core_watch bad[4] = {good, good, good, good};
	uint64_t tag = 5;

	bad[0].id = 0;
	bad[1].interest = 0;
	bad[2].interest = 4;
	bad[3].mode = 2;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(session_watch(f->session, &bad[i], f->now, &tag), -EINVAL);
	assert_int_equal(tag, 5);
	assert_int_equal(core_stats(f->core)->watches, 0);
	assert_int_equal(f->quota.used[QUOTA_WATCHES], 0);
	assert_int_equal(session_watch(f->session, &good, f->now, &tag), 0);
}

static void forget_leaves_no_trace(void **state)
{
	struct fixture *f = *state;
	struct core_watch w = {.id = A, .gen = 1, .interest = CORE_BOTH, .mode = CORE_MODE_STREAM};
	struct core_item_info info;
	uint64_t tag = 0, cursor = 0;

	assert_int_equal(session_watch(f->session, &w, f->now, &tag), 0);
	core_event(f->core, tag, CORE_BOTH, false);
	watch_forget(f->core, tag);
	core_check(f->core);
	fixture_nothing(f);
	assert_false(core_next_item(f->core, &cursor, &info));
	assert_int_equal(core_stats(f->core)->watches, 0);
	assert_int_equal(core_stats(f->core)->ready, 0);
	assert_int_equal(f->quota.used[QUOTA_WATCHES], 0);
	core_event(f->core, tag, CORE_BOTH, false);
	fixture_nothing(f);
	fixture_watch(f, A);
}

static void find_watch_gives_tag_and_word(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A), found = 0;
	uint32_t word = 0;

	assert_int_equal(session_find_watch(f->session, A, FIXTURE_GEN, &found, &word), 0);
	assert_true(found == tag);
	assert_int_equal(word, A + 100);
	assert_int_equal(session_find_watch(f->session, A, 9, &found, &word), -ESTALE);
	assert_int_equal(session_find_watch(f->session, B, FIXTURE_GEN, &found, &word), -ENOENT);
}

/* Many ids come and go, in another order than they came. */
static void ids_come_and_go(void **state)
{
	struct fixture *f = *state;
	enum { IDS = 6000, STRIDE = 977, KEPT = 7 };

	for (unsigned round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < IDS; i++)
			if (round == 0 || i % KEPT)
				fixture_watch(f, 1 + i * 3);
		core_check(f->core);
		for (uint32_t i = 0; i < IDS; i++) {
			uint32_t n = i * STRIDE % IDS;
			struct core_entry owed;

			if (n % KEPT == 0)
				continue;
			assert_int_equal(session_unwatch(f->session, 1 + n * 3, FIXTURE_GEN, &owed),
					 0);
		}
		core_check(f->core);
		for (uint32_t i = 0; i < IDS * 3; i++) {
			uint64_t tag;
			uint32_t word;
			bool live = i % 3 == 0 && i / 3 % KEPT == 0;

			assert_int_equal(
				session_find_watch(f->session, 1 + i, FIXTURE_GEN, &tag, &word),
				live ? 0 : -ENOENT);
			if (live)
				assert_int_equal(word, 1 + i + 100);
		}
	}
}

/* ---- Wait ---- */

static void S_015_second_wait_is_busy(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	assert_int_equal(fixture_wait(f, A, CORE_READ), CORE_READ);
	assert_int_equal(fixture_wait_result(f, A, CORE_READ), -EBUSY);
	core_event(f->core, tag, CORE_READ, false);
	assert_int_equal(fixture_wait_result(f, A, CORE_READ), -EBUSY);
	fixture_entry(f, A, R, 0);
	fixture_wait_waits(f, A, CORE_READ);
}

static void S_016_directions_are_independent(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	assert_int_equal(fixture_wait(f, A, CORE_BOTH), CORE_BOTH);
	core_event(f->core, tag, CORE_WRITE, false);
	fixture_entry(f, A, 0, R);
	assert_int_equal(fixture_slot(f, A, CORE_READ).state, CORE_SLOT_WAITING);
	core_event(f->core, tag, CORE_WRITE, false);
	fixture_nothing(f);
	core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, R, 0);
	fixture_wait_waits(f, A, CORE_READ);
	fixture_wait_gives(f, A, CORE_WRITE, R);
	/* One latch and one wait in a record: only the other one is to be armed. */
	core_event(f->core, tag, CORE_WRITE, false);
	assert_int_equal(fixture_wait(f, A, CORE_BOTH), CORE_READ);
	fixture_entry(f, A, 0, R);
}

static void S_017_one_entry_for_one_wait(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	fixture_wait(f, A, CORE_READ);
	for (unsigned i = 0; i < 50; i++)
		core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, R, 0);
	for (unsigned i = 0; i < 50; i++)
		core_event(f->core, tag, CORE_READ, false);
	fixture_nothing(f);
}

static void S_018_one_entry_with_both_bits(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	fixture_wait(f, A, CORE_BOTH);
	core_event(f->core, tag, CORE_BOTH, false);
	fixture_entry(f, A, R, R);
}

static void S_019_wait_known_at_once_has_one_entry(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	core_event(f->core, tag, CORE_BOTH, false);
	assert_int_equal(fixture_wait(f, A, CORE_BOTH), 0);
	fixture_entry(f, A, R, R);
}

static void S_020_unwait(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	assert_int_equal(fixture_unwait(f, A, CORE_READ), -ENOENT);
	fixture_wait(f, A, CORE_READ);
	assert_int_equal(fixture_unwait(f, A, CORE_WRITE), -ENOENT);
	assert_int_equal(fixture_unwait(f, A, CORE_READ), 0);
	core_event(f->core, tag, CORE_READ, false);
	fixture_nothing(f);
	fixture_wait_gives(f, A, CORE_READ, R);
	/* Done: too late, the entry comes; what still waits is taken back all the same. */
	fixture_wait(f, A, CORE_BOTH);
	core_event(f->core, tag, CORE_READ, false);
	assert_int_equal(fixture_unwait(f, A, CORE_BOTH), -EALREADY);
	assert_int_equal(fixture_slot(f, A, CORE_WRITE).state, CORE_SLOT_IDLE);
	core_event(f->core, tag, CORE_WRITE, false);
	fixture_entry(f, A, R, 0);
	/* Waiting and idle together: one was taken back. */
	fixture_wait(f, A, CORE_READ);
	assert_int_equal(fixture_unwait(f, A, CORE_BOTH), 0);
}

static void wait_refuses_bad_directions(void **state)
{
	struct fixture *f = *state;

	fixture_watch_as(f, A, FIXTURE_GEN, CORE_READ, CORE_MODE_WAIT);
	const unsigned bad[] = {0, CORE_WRITE, CORE_BOTH, 4, 5};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(fixture_wait_result(f, A, bad[i]), -EINVAL);
		assert_int_equal(fixture_reset(f, A, bad[i]), -EINVAL);
		assert_int_equal(fixture_unwait(f, A, bad[i]), -EINVAL);
		assert_int_equal(session_set_deadline(f->session, A, FIXTURE_GEN, bad[i], -1, false,
						      1, f->now),
				 -EINVAL);
	}
	assert_int_equal(core_stats(f->core)->waiting, 0);
	fixture_wait_waits(f, A, CORE_READ);
}

static void event_outside_the_interest_is_ignored(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch_as(f, A, FIXTURE_GEN, CORE_READ, CORE_MODE_WAIT);

	fixture_wait(f, A, CORE_READ);
	core_event(f->core, tag, CORE_WRITE, false);
	fixture_nothing(f);
	core_event(f->core, tag, CORE_BOTH, false);
	fixture_entry(f, A, R, 0);
}

/* ---- Latch ---- */

static void S_026_edge_before_the_wait_is_latched(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	core_event(f->core, tag, CORE_READ, false);
	fixture_nothing(f);
	fixture_wait_gives(f, A, CORE_READ, R);
}

static void S_027_latch_is_one_bit(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	for (unsigned i = 0; i < 10; i++)
		core_event(f->core, tag, CORE_READ, false);
	fixture_wait_gives(f, A, CORE_READ, R);
	fixture_wait_waits(f, A, CORE_READ);
}

static void S_028_no_second_entry_without_a_second_edge(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	for (unsigned i = 0; i < 5; i++) {
		core_event(f->core, tag, CORE_READ, false);
		fixture_wait_gives(f, A, CORE_READ, R);
		fixture_wait_waits(f, A, CORE_READ);
	}
}

/* A writer at random moments, and a client that reads to the end and waits. `reset`: it resets, and
 * has the answer, before each read. */
static void soak(struct fixture *f, bool reset, uint64_t seed)
{
	uint64_t tag = fixture_watch(f, A), written = 0, got = 0;
	bool waiting = false;

	print_message("S_029 seed %llu (READYD_SEED)\n", (unsigned long long)seed);
	for (unsigned round = 0; round < 100000; round++) {
		if (random_next(&seed) % 2) {
			written++;
			core_event(f->core, tag, CORE_READ, false);
		}
		if (waiting) {
			struct core_entry e;
			unsigned n = session_peek(f->session, &e, 1);

			/* Nobody sleeps over data. */
			assert_int_equal(n, written != got);
			if (n == 0 || random_next(&seed) % 3 == 0)
				continue;
			session_commit(f->session, 1);
			waiting = false;
		}
		if (reset)
			assert_int_equal(fixture_reset(f, A, CORE_READ), 0);
		if (random_next(&seed) % 2) {
			written++;
			core_event(f->core, tag, CORE_READ, false);
		}
		got = written;
		if (random_next(&seed) % 2) {
			written++;
			core_event(f->core, tag, CORE_READ, false);
		}
		bool latched = fixture_wait(f, A, CORE_READ) == 0;

		/* Without RESET a stale latch wakes for nothing, once. */
		waiting = true;
		if (latched && written == got) {
			fixture_entry(f, A, R, 0);
			waiting = false;
		}
	}
}

static uint64_t seed_from_environment(void)
{
	const char *text = getenv("READYD_SEED");

	return text ? strtoull(text, NULL, 0) : UINT64_C(20240229);
}

static void S_029_soak_without_reset(void **state)
{
	soak(*state, false, seed_from_environment());
}

static void S_029_soak_with_reset(void **state)
{
	soak(*state, true, seed_from_environment() + 1);
}

static void S_030_edge_around_the_wait_gives_one_entry(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	core_event(f->core, tag, CORE_READ, false);
	fixture_wait(f, A, CORE_READ);
	fixture_entry(f, A, R, 0);
	fixture_wait(f, A, CORE_READ);
	core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, R, 0);
	/* Both: the second merges into the unsent entry. */
	core_event(f->core, tag, CORE_READ, false);
	fixture_wait(f, A, CORE_READ);
	core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, R, 0);
	fixture_wait_waits(f, A, CORE_READ);
}

/* ---- Reset ---- */

static void S_031_reset_clears_one_direction(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	core_event(f->core, tag, CORE_BOTH, false);
	assert_int_equal(fixture_reset(f, A, CORE_READ), 0);
	assert_int_equal(fixture_wait(f, A, CORE_READ), CORE_READ);
	fixture_nothing(f);
	core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, R, 0);
	fixture_wait_gives(f, A, CORE_WRITE, R);
}

static void S_032_failed_reset_keeps_the_latch(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	core_event(f->core, tag, CORE_BOTH, false);
	fixture_deadline(f, A, CORE_READ, -1, 1);
	assert_int_equal(fixture_reset(f, A, CORE_READ), T);
	/* All directions or none. */
	assert_int_equal(fixture_reset(f, A, CORE_BOTH), T);
	fixture_deadline(f, A, CORE_READ, 0, 2);
	fixture_wait_gives(f, A, CORE_READ, R);
	fixture_wait_gives(f, A, CORE_WRITE, R);
}

static void S_033_reset_after_evict(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	assert_int_equal(fixture_evict(f, A), 0);
	assert_int_equal(fixture_reset(f, A, CORE_READ), C);
	assert_int_equal(fixture_reset(f, A, CORE_BOTH), C);
}

static void S_034_reset_while_waiting_is_busy(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	fixture_wait(f, A, CORE_READ);
	core_event(f->core, tag, CORE_WRITE, false);
	assert_int_equal(fixture_reset(f, A, CORE_READ), -EBUSY);
	assert_int_equal(fixture_reset(f, A, CORE_BOTH), -EBUSY);
	core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, R, 0);
	fixture_wait_gives(f, A, CORE_WRITE, R);
}

/* ---- Evict ---- */

static void S_059_evict_with_both_waiting(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_BOTH);
	assert_int_equal(fixture_evict(f, A), 0);
	assert_int_equal(core_stats(f->core)->waiting, 0);
	fixture_entry(f, A, C, C);
}

static void S_060_closing_beats_all(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	core_event(f->core, tag, CORE_BOTH, false);
	fixture_deadline(f, A, CORE_BOTH, -1, 1);
	assert_int_equal(fixture_evict(f, A), 0);
	assert_int_equal(fixture_wait(f, A, CORE_BOTH), 0);
	fixture_entry(f, A, C, C);
	core_event(f->core, tag, CORE_BOTH, false);
	fixture_nothing(f);
	fixture_wait_gives(f, A, CORE_READ, C);
}

static void S_061_evict_twice(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	assert_int_equal(fixture_evict(f, A), 0);
	assert_int_equal(fixture_evict(f, A), C);
	fixture_nothing(f);
}

static void S_062_unwatch_while_waiting(void **state)
{
	struct fixture *f = *state;
	struct core_entry owed = {0};
	uint64_t tag = fixture_watch(f, A);

	/* One direction done, the other one waiting: one entry. */
	fixture_wait(f, A, CORE_BOTH);
	core_event(f->core, tag, CORE_READ, false);
	assert_int_equal(session_unwatch(f->session, A, FIXTURE_GEN, &owed), 1);
	assert_int_equal(owed.read, R);
	assert_int_equal(owed.write, C);
	assert_int_equal(core_stats(f->core)->waiting, 0);
	core_event(f->core, tag, CORE_BOTH, false);
	fixture_nothing(f);
}

static void S_063_evict_with_an_unsent_ready(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	fixture_wait(f, A, CORE_BOTH);
	core_event(f->core, tag, CORE_READ, false);
	assert_int_equal(fixture_evict(f, A), 0);
	fixture_entry(f, A, C, C);
}

#define EDGE_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EDGE_TEST(S_005_live_id_is_refused),
		EDGE_TEST(S_006_unwatch_then_watch_again),
		EDGE_TEST(S_013_session_end_takes_everything),
		EDGE_TEST(watch_refuses_bad_fields),
		EDGE_TEST(forget_leaves_no_trace),
		EDGE_TEST(find_watch_gives_tag_and_word),
		EDGE_TEST(ids_come_and_go),
		EDGE_TEST(S_015_second_wait_is_busy),
		EDGE_TEST(S_016_directions_are_independent),
		EDGE_TEST(S_017_one_entry_for_one_wait),
		EDGE_TEST(S_018_one_entry_with_both_bits),
		EDGE_TEST(S_019_wait_known_at_once_has_one_entry),
		EDGE_TEST(S_020_unwait),
		EDGE_TEST(wait_refuses_bad_directions),
		EDGE_TEST(event_outside_the_interest_is_ignored),
		EDGE_TEST(S_026_edge_before_the_wait_is_latched),
		EDGE_TEST(S_027_latch_is_one_bit),
		EDGE_TEST(S_028_no_second_entry_without_a_second_edge),
		EDGE_TEST(S_029_soak_without_reset),
		EDGE_TEST(S_029_soak_with_reset),
		EDGE_TEST(S_030_edge_around_the_wait_gives_one_entry),
		EDGE_TEST(S_031_reset_clears_one_direction),
		EDGE_TEST(S_032_failed_reset_keeps_the_latch),
		EDGE_TEST(S_033_reset_after_evict),
		EDGE_TEST(S_034_reset_while_waiting_is_busy),
		EDGE_TEST(S_059_evict_with_both_waiting),
		EDGE_TEST(S_060_closing_beats_all),
		EDGE_TEST(S_061_evict_twice),
		EDGE_TEST(S_062_unwatch_while_waiting),
		EDGE_TEST(S_063_evict_with_an_unsent_ready),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
