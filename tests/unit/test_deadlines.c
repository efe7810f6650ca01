/* SPDX-License-Identifier: MIT */

/* Deadlines of the core under a fake clock, told by the numbers of the conformance checklist. */

#include "core_fixture.h"

#define R CORE_CODE_READY
#define C CORE_CODE_CLOSING
#define T CORE_CODE_TIMEOUT

enum { A = 1 };

/* Heap nodes that may be left over whatever lives. */
enum { HEAP_SLACK = 64 };

static void S_037_past_deadline_beats_data(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	core_event(f->core, tag, CORE_READ, false);
	fixture_deadline(f, A, CORE_READ, f->now - 5 * SECOND, 3);
	fixture_wait_gives(f, A, CORE_READ, T);
	fixture_wait_gives(f, A, CORE_READ, T);
}

static void S_038_past_deadline_ends_a_wait(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_BOTH);
	fixture_deadline(f, A, CORE_READ, f->now - 1, 3);
	assert_int_equal(fixture_entry(f, A, T, 0).read_stamp, 3);
	assert_int_equal(fixture_slot(f, A, CORE_WRITE).state, CORE_SLOT_WAITING);
	fixture_deadline(f, A, CORE_WRITE, -1, 4);
	assert_int_equal(fixture_entry(f, A, 0, T).write_stamp, 4);
}

static void S_039_not_before_its_time(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_deadline(f, A, CORE_READ, f->now + 50 * MS, 3);
	fixture_wait(f, A, CORE_READ);
	assert_true(core_next_expiry(f->core) <= f->now + 50 * MS);
	fixture_advance(f, 50 * MS - 1);
	fixture_nothing(f);
	fixture_advance(f, 1);
	fixture_entry(f, A, T, 0);
	assert_true(core_next_expiry(f->core) == INT64_MAX);
}

static void S_040_expired_is_sticky(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	fixture_deadline(f, A, CORE_READ, f->now + 50 * MS, 3);
	fixture_advance(f, 50 * MS);
	fixture_nothing(f);
	for (unsigned i = 0; i < 3; i++) {
		fixture_advance(f, SECOND);
		fixture_wait_gives(f, A, CORE_READ, T);
		assert_int_equal(fixture_reset(f, A, CORE_READ), T);
		core_event(f->core, tag, CORE_READ, false);
	}
	assert_true(fixture_slot(f, A, CORE_READ).deadline == -1);
	fixture_deadline(f, A, CORE_READ, 0, 4);
	assert_true(fixture_slot(f, A, CORE_READ).deadline == 0);
	fixture_wait_gives(f, A, CORE_READ, R);
}

static void S_041_cleared_before_the_wait(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_deadline(f, A, CORE_READ, -1, 1);
	fixture_deadline(f, A, CORE_READ, 0, 2);
	fixture_wait_waits(f, A, CORE_READ);
	/* The idiom: one message ends the waiter and clears the mark. */
	fixture_wait(f, A, CORE_READ);
	fixture_deadline(f, A, CORE_READ, 1, 3);
	fixture_deadline(f, A, CORE_READ, 0, 4);
	assert_int_equal(fixture_entry(f, A, T, 0).read_stamp, 3);
	fixture_wait_waits(f, A, CORE_READ);
}

static void S_042_none_then_future(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_deadline(f, A, CORE_READ, 0, 1);
	fixture_deadline(f, A, CORE_READ, f->now + 10 * MS, 2);
	fixture_wait(f, A, CORE_READ);
	fixture_advance(f, 10 * MS);
	assert_int_equal(fixture_entry(f, A, T, 0).read_stamp, 2);
}

static void S_043_both_past_then_one_cleared(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_deadline(f, A, CORE_BOTH, -1, 1);
	fixture_deadline(f, A, CORE_READ, 0, 2);
	fixture_wait_waits(f, A, CORE_READ);
	fixture_wait_gives(f, A, CORE_WRITE, T);
	fixture_deadline(f, A, CORE_BOTH, -1, 3);
	fixture_deadline(f, A, CORE_WRITE, 0, 4);
	fixture_wait_waits(f, A, CORE_WRITE);
	fixture_wait_gives(f, A, CORE_READ, T);
}

static void S_044_combined_is_one_entry(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_BOTH);
	fixture_deadline(f, A, CORE_BOTH, f->now + SECOND, 9);
	assert_int_equal(core_stats(f->core)->deadlines, 2);
	fixture_advance(f, SECOND);
	struct core_entry e = fixture_entry(f, A, T, T);

	assert_int_equal(e.read_stamp, 9);
	assert_int_equal(e.write_stamp, 9);
}

static void S_045_combined_then_split(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_BOTH);
	fixture_deadline(f, A, CORE_BOTH, f->now + SECOND, 1);
	fixture_deadline(f, A, CORE_READ, f->now + 3 * SECOND, 2);
	fixture_advance(f, SECOND);
	assert_int_equal(fixture_entry(f, A, 0, T).write_stamp, 1);
	fixture_advance(f, 2 * SECOND - 1);
	fixture_nothing(f);
	fixture_advance(f, 1);
	assert_int_equal(fixture_entry(f, A, T, 0).read_stamp, 2);
	fixture_deadline(f, A, CORE_BOTH, 0, 3);
	fixture_wait(f, A, CORE_BOTH);
	fixture_deadline(f, A, CORE_BOTH, f->now + SECOND, 4);
	fixture_deadline(f, A, CORE_WRITE, 0, 5);
	fixture_advance(f, 10 * SECOND);
	fixture_entry(f, A, T, 0);
	assert_int_equal(fixture_slot(f, A, CORE_WRITE).state, CORE_SLOT_WAITING);
}

static void S_046_moved_later(void **state)
{
	struct fixture *f = *state;
	int64_t start = f->now;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_READ);
	fixture_deadline(f, A, CORE_READ, start + 50 * MS, 1);
	fixture_advance(f, 20 * MS);
	fixture_deadline(f, A, CORE_READ, start + 500 * MS, 2);
	fixture_advance(f, 80 * MS);
	fixture_nothing(f);
	assert_true(core_next_expiry(f->core) <= start + 500 * MS);
	fixture_advance(f, 400 * MS - 1);
	fixture_nothing(f);
	fixture_advance(f, 1);
	assert_int_equal(fixture_entry(f, A, T, 0).read_stamp, 2);
}

/* The same time is reached by the old and the new deadline in one turn, or by the old one alone. */
static void S_046_later_and_cleared(void **state)
{
	struct fixture *f = *state;
	int64_t start = f->now;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_READ);
	fixture_deadline(f, A, CORE_READ, start + 50, 1);
	fixture_deadline(f, A, CORE_READ, start + 500, 2);
	fixture_deadline(f, A, CORE_READ, 0, 3);
	fixture_advance(f, 1000);
	fixture_nothing(f);
	assert_int_equal(core_stats(f->core)->heap_nodes, 0);
	start = f->now;
	fixture_deadline(f, A, CORE_READ, start + 50, 4);
	fixture_deadline(f, A, CORE_READ, start + 500, 5);
	fixture_deadline(f, A, CORE_READ, start + 20, 6);
	fixture_advance(f, 19);
	fixture_nothing(f);
	fixture_advance(f, 1);
	assert_int_equal(fixture_entry(f, A, T, 0).read_stamp, 6);
	fixture_deadline(f, A, CORE_READ, 0, 7);
	fixture_wait(f, A, CORE_READ);
	fixture_advance(f, 1000);
	fixture_nothing(f);
}

static void S_047_moved_earlier(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_READ);
	fixture_deadline(f, A, CORE_READ, f->now + 10 * SECOND, 1);
	fixture_deadline(f, A, CORE_READ, f->now + 20 * MS, 2);
	assert_true(core_next_expiry(f->core) <= f->now + 20 * MS);
	fixture_advance(f, 20 * MS);
	assert_int_equal(fixture_entry(f, A, T, 0).read_stamp, 2);
	fixture_advance(f, 20 * SECOND);
	fixture_nothing(f);
}

static void S_048_expiry_keeps_the_latch(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	core_event(f->core, tag, CORE_READ, false);
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 1);
	fixture_advance(f, SECOND);
	fixture_wait_gives(f, A, CORE_READ, T);
	fixture_deadline(f, A, CORE_READ, 0, 2);
	fixture_wait_gives(f, A, CORE_READ, R);
	fixture_wait_waits(f, A, CORE_READ);
}

static void S_049_edge_beats_expiry_in_one_turn(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	fixture_wait(f, A, CORE_READ);
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 1);
	f->now += SECOND;
	core_event(f->core, tag, CORE_READ, false);
	core_expire(f->core, f->now);
	fixture_entry(f, A, R, 0);
	fixture_wait_gives(f, A, CORE_READ, T);
}

static void S_049_new_deadline_beats_expiry_in_one_turn(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_READ);
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 1);
	f->now += SECOND;
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 2);
	core_expire(f->core, f->now);
	fixture_nothing(f);
	fixture_advance(f, SECOND);
	assert_int_equal(fixture_entry(f, A, T, 0).read_stamp, 2);
}

static void S_050_expiry_then_edge(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	fixture_wait(f, A, CORE_READ);
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 1);
	fixture_advance(f, SECOND);
	core_event(f->core, tag, CORE_READ, false);
	fixture_entry(f, A, T, 0);
	fixture_deadline(f, A, CORE_READ, 0, 2);
	fixture_wait_gives(f, A, CORE_READ, R);
}

static void S_051_entry_names_the_deadline_that_expired(void **state)
{
	struct fixture *f = *state;
	struct core_entry e;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_BOTH);
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 1);
	fixture_deadline(f, A, CORE_WRITE, f->now + SECOND, 2);
	fixture_advance(f, SECOND);
	/* Later ones, of every kind, do not rename an unsent timeout. */
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 3);
	fixture_deadline(f, A, CORE_WRITE, 0, 4);
	e = fixture_peek_one(f);
	assert_int_equal(e.read_stamp, 1);
	assert_int_equal(e.write_stamp, 2);
	fixture_deadline(f, A, CORE_BOTH, -1, 5);
	fixture_deadline(f, A, CORE_BOTH, f->now - 1, 6);
	e = fixture_entry(f, A, T, T);
	assert_int_equal(e.read_stamp, 1);
	assert_int_equal(e.write_stamp, 2);
	fixture_wait(f, A, CORE_READ);
	assert_int_equal(fixture_entry(f, A, T, 0).read_stamp, 6);
}

/* The same time under a new name: the entry must carry the name that the client holds as current,
 * or its library would wait again for ever. */
static void S_051_same_time_new_stamp(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_READ);
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 1);
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 2);
	fixture_advance(f, SECOND);
	assert_int_equal(fixture_entry(f, A, T, 0).read_stamp, 2);
}

static void stamps_are_zero_elsewhere(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);
	struct core_entry e;

	fixture_deadline(f, A, CORE_BOTH, f->now + SECOND, 5);
	fixture_wait(f, A, CORE_BOTH);
	core_event(f->core, tag, CORE_READ, false);
	fixture_advance(f, SECOND);
	e = fixture_entry(f, A, R, T);
	assert_int_equal(e.read_stamp, 0);
	assert_int_equal(e.write_stamp, 5);
}

static void S_052_greatest_deadline(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_BOTH);
	fixture_deadline(f, A, CORE_READ, INT64_MAX, 1);
	assert_int_equal(session_set_deadline(f->session, A, FIXTURE_GEN, CORE_WRITE, INT64_MAX - 5,
					      true, 2, f->now),
			 0);
	assert_true(fixture_slot(f, A, CORE_READ).deadline == INT64_MAX);
	assert_true(fixture_slot(f, A, CORE_WRITE).deadline == INT64_MAX);
	core_expire(f->core, INT64_MAX - 1);
	core_check(f->core);
	fixture_nothing(f);
}

static void relative_deadlines(void **state)
{
	struct fixture *f = *state;
	const int64_t past[] = {0, -1, -SECOND, INT64_MIN};

	fixture_watch(f, A);
	for (unsigned i = 0; i < 4; i++) {
		fixture_wait(f, A, CORE_READ);
		assert_int_equal(session_set_deadline(f->session, A, FIXTURE_GEN, CORE_READ,
						      past[i], true, 1, f->now),
				 0);
		fixture_entry(f, A, T, 0);
		fixture_deadline(f, A, CORE_READ, 0, 2);
	}
	fixture_wait(f, A, CORE_READ);
	assert_int_equal(session_set_deadline(f->session, A, FIXTURE_GEN, CORE_READ, SECOND, true,
					      3, f->now),
			 0);
	assert_true(fixture_slot(f, A, CORE_READ).deadline == f->now + SECOND);
	fixture_advance(f, SECOND);
	fixture_entry(f, A, T, 0);
	/* Absolute, exactly now, and the smallest ones. */
	const int64_t absolute[] = {f->now, 1, INT64_MIN};

	for (unsigned i = 0; i < 3; i++) {
		fixture_deadline(f, A, CORE_READ, 0, 2);
		fixture_wait(f, A, CORE_READ);
		fixture_deadline(f, A, CORE_READ, absolute[i], 4);
		fixture_entry(f, A, T, 0);
	}
}

static void S_053_various_deadlines(void **state)
{
	struct fixture *f = *state;
	int64_t ns = 1;

	fixture_watch(f, A);
	for (unsigned i = 0; i < 19; i++) {
		fixture_deadline(f, A, CORE_READ, 0, 0);
		fixture_wait(f, A, CORE_READ);
		fixture_deadline(f, A, CORE_READ, f->now + ns, (uint16_t)i);
		fixture_advance(f, ns - 1);
		fixture_nothing(f);
		fixture_advance(f, 1);
		fixture_entry(f, A, T, 0);
		ns = i % 2 ? ns * 5 : ns * 2;
	}
}

static void S_054_extended_deadlines_never_fire(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = fixture_watch(f, A);

	for (unsigned i = 0; i < 1000; i++) {
		fixture_deadline(f, A, CORE_BOTH, f->now + 3600 * SECOND, (uint16_t)i);
		fixture_wait(f, A, CORE_BOTH);
		fixture_advance(f, 1000 * SECOND);
		core_event(f->core, tag, CORE_BOTH, false);
		fixture_entry(f, A, R, R);
	}
}

static void S_055_ever_earlier_deadlines(void **state)
{
	struct fixture *f = *state;
	const struct core_stats *st = core_stats(f->core);

	for (uint32_t id = 1; id <= 80; id++)
		fixture_watch(f, id);
	for (unsigned i = 0; i < 100; i++) {
		for (uint32_t id = 1; id <= 80; id++)
			fixture_deadline(f, id, CORE_BOTH,
					 f->now + (2000 - 2 * (int64_t)i) * SECOND - id, 1);
		core_check(f->core);
		fixture_advance(f, SECOND);
		fixture_nothing(f);
	}
	assert_int_equal(st->deadlines, 160);
	assert_true(st->heap_nodes <= 2 * 160 + HEAP_SLACK);
	uint64_t moves = st->heap_moves;

	for (uint32_t id = 1; id <= 80; id++)
		for (unsigned i = 0; i < 3; i++)
			fixture_deadline(f, id, CORE_BOTH, f->now + 1801 * SECOND - id, 1);
	assert_int_equal(st->heap_moves, moves);
	assert_true(fixture_slot(f, 80, CORE_READ).deadline == f->now + 1801 * SECOND - 80);
}

/* The common case: moved later on every read. The heap is not touched. */
static void later_costs_no_heap_work(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 1);
	uint64_t moves = core_stats(f->core)->heap_moves;

	for (unsigned i = 0; i < 1000; i++)
		fixture_deadline(f, A, CORE_READ, f->now + SECOND + i, 1);
	assert_int_equal(core_stats(f->core)->heap_moves, moves);
}

static void S_056_evict_cancels_deadlines(void **state)
{
	struct fixture *f = *state;
	const struct core_stats *st = core_stats(f->core);

	fixture_watch(f, A);
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 1);
	fixture_deadline(f, A, CORE_WRITE, f->now + 2 * SECOND, 1);
	assert_int_equal(fixture_evict(f, A), 0);
	assert_int_equal(st->deadlines, 0);
	assert_int_equal(st->heap_nodes, 0);
	assert_int_equal(
		session_set_deadline(f->session, A, FIXTURE_GEN, CORE_READ, -1, false, 2, f->now),
		C);
	assert_int_equal(session_set_deadline(f->session, A, FIXTURE_GEN, CORE_BOTH,
					      f->now + SECOND, false, 2, f->now),
			 C);
	assert_int_equal(st->deadlines, 0);
	assert_int_equal(st->heap_nodes, 0);
	assert_true(core_next_expiry(f->core) == INT64_MAX);
	fixture_advance(f, 5 * SECOND);
	fixture_nothing(f);
}

static void S_057_unwatched_deadline_hits_nobody(void **state)
{
	struct fixture *f = *state;
	struct core_entry owed;

	fixture_watch(f, A);
	fixture_deadline(f, A, CORE_BOTH, f->now + SECOND, 1);
	assert_int_equal(session_unwatch(f->session, A, FIXTURE_GEN, &owed), 0);
	assert_int_equal(core_stats(f->core)->deadlines, 0);
	assert_int_equal(core_stats(f->core)->heap_nodes, 0);
	fixture_watch(f, A);
	fixture_wait(f, A, CORE_BOTH);
	fixture_advance(f, 2 * SECOND);
	fixture_nothing(f);
	assert_true(fixture_slot(f, A, CORE_READ).deadline == 0);
}

static void S_058_deadline_without_any_event(void **state)
{
	struct fixture *f = *state;

	fixture_watch(f, A);
	fixture_wait(f, A, CORE_READ);
	fixture_deadline(f, A, CORE_READ, f->now + SECOND, 1);
	fixture_advance(f, 3600 * SECOND);
	fixture_entry(f, A, T, 0);
}

#define EDGE_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EDGE_TEST(S_037_past_deadline_beats_data),
		EDGE_TEST(S_038_past_deadline_ends_a_wait),
		EDGE_TEST(S_039_not_before_its_time),
		EDGE_TEST(S_040_expired_is_sticky),
		EDGE_TEST(S_041_cleared_before_the_wait),
		EDGE_TEST(S_042_none_then_future),
		EDGE_TEST(S_043_both_past_then_one_cleared),
		EDGE_TEST(S_044_combined_is_one_entry),
		EDGE_TEST(S_045_combined_then_split),
		EDGE_TEST(S_046_moved_later),
		EDGE_TEST(S_046_later_and_cleared),
		EDGE_TEST(S_047_moved_earlier),
		EDGE_TEST(S_048_expiry_keeps_the_latch),
		EDGE_TEST(S_049_edge_beats_expiry_in_one_turn),
		EDGE_TEST(S_049_new_deadline_beats_expiry_in_one_turn),
		EDGE_TEST(S_050_expiry_then_edge),
		EDGE_TEST(S_051_entry_names_the_deadline_that_expired),
		EDGE_TEST(S_051_same_time_new_stamp),
		EDGE_TEST(stamps_are_zero_elsewhere),
		EDGE_TEST(S_052_greatest_deadline),
		EDGE_TEST(relative_deadlines),
		EDGE_TEST(S_053_various_deadlines),
		EDGE_TEST(S_054_extended_deadlines_never_fire),
		EDGE_TEST(S_055_ever_earlier_deadlines),
		EDGE_TEST(later_costs_no_heap_work),
		EDGE_TEST(S_056_evict_cancels_deadlines),
		EDGE_TEST(S_057_unwatched_deadline_hits_nobody),
		EDGE_TEST(S_058_deadline_without_any_event),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
