/* SPDX-License-Identifier: MIT */

/* When the keeper looks at a loop and what it does: time is a number here. */

#include "daemon/keeper/watchdog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MS INT64_C(1000000)
#define START (INT64_C(1000000) * MS)
#define LIMIT (10000 * MS)

static struct watchdog started(int64_t limit)
{
	struct watchdog w;

	watchdog_start(&w, limit, START);
	return w;
}

static void idle_loop_lets_the_keeper_sleep(void **state)
{
	struct watchdog w = started(LIMIT);

	(void)state;
	assert_int_equal(w.next, START + 1000 * MS);
	assert_int_equal(watchdog_look(&w, 0, w.next), WATCHDOG_SLEEP);
	watchdog_sleep(&w);
	assert_int_equal(w.next, INT64_MAX);
	watchdog_wake(&w, START + 50000 * MS);
	assert_int_equal(w.state, WATCHDOG_WATCHING);
	assert_int_equal(w.next, START + 51000 * MS);
}

static void keeper_that_could_not_fall_asleep_looks_again_later(void **state)
{
	struct watchdog w = started(LIMIT);
	int64_t first = w.next;

	(void)state;
	assert_int_equal(watchdog_look(&w, 0, first), WATCHDOG_SLEEP);
	assert_int_equal(w.next, first + 1000 * MS);
}

static void many_short_turns_are_no_stuck_loop(void **state)
{
	struct watchdog w = started(LIMIT);

	(void)state;
	for (int i = 0; i < 100; i++)
		assert_int_equal(watchdog_look(&w, w.next - MS, w.next), WATCHDOG_GO_ON);
}

/* Looks whenever it is time, until something is to be done; returns when. */
static int64_t look_on(struct watchdog *w, int64_t busy_since, enum watchdog_act *ret)
{
	int64_t now;

	do {
		now = w->next;
		*ret = watchdog_look(w, busy_since, now);
	} while (*ret == WATCHDOG_GO_ON);
	return now;
}

static void long_turn_is_found_exactly_at_the_limit(void **state)
{
	static const int64_t limits[] = {100 * MS, 300 * MS, LIMIT, 3600 * 1000 * MS};

	(void)state;
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		struct watchdog w = started(limits[i]);
		int64_t busy_since = START + 7 * MS;
		enum watchdog_act act;

		assert_int_equal(look_on(&w, busy_since, &act), busy_since + limits[i]);
		assert_int_equal(act, WATCHDOG_ABORT);
	}
}

static void stuck_loop_is_aborted_killed_left(void **state)
{
	struct watchdog w = started(LIMIT);
	enum watchdog_act act;
	int64_t at = look_on(&w, START, &act);

	(void)state;
	assert_int_equal(act, WATCHDOG_ABORT);
	assert_int_equal(w.next, at + 1000 * MS);
	assert_int_equal(watchdog_look(&w, START, w.next), WATCHDOG_KILL);
	assert_int_equal(w.next, at + 2000 * MS);
	/* being told to end, or stopped, changes nothing any more */
	watchdog_ending(&w, at + 1500 * MS);
	watchdog_stopped(&w, at + 1500 * MS);
	watchdog_continued(&w, at + 1500 * MS);
	assert_int_equal(w.next, at + 2000 * MS);
	assert_int_equal(watchdog_look(&w, START, w.next), WATCHDOG_LEAVE);
}

static void keeper_that_did_not_run_counts_anew(void **state)
{
	struct watchdog w = started(LIMIT);
	int64_t late = START + 100000 * MS;
	enum watchdog_act act;

	(void)state;
	assert_int_equal(watchdog_look(&w, START, late), WATCHDOG_GO_ON);
	assert_int_equal(look_on(&w, START, &act), late + LIMIT);
	assert_int_equal(act, WATCHDOG_ABORT);
}

static void time_in_the_future_saves_nobody(void **state)
{
	struct watchdog w = started(LIMIT);
	enum watchdog_act act;

	(void)state;
	assert_int_equal(look_on(&w, INT64_MAX, &act), START + LIMIT);
	assert_int_equal(act, WATCHDOG_ABORT);
}

static void stopped_loop_is_killed_unless_it_is_continued(void **state)
{
	struct watchdog w = started(LIMIT);
	int64_t now = START + 20 * MS;

	(void)state;
	watchdog_sleep(&w);
	watchdog_stopped(&w, now);
	assert_int_equal(w.next, now + 100 * MS);
	watchdog_wake(&w, now + MS); /* it got busy just before */
	watchdog_ending(&w, now + MS);
	assert_int_equal(w.next, now + 100 * MS);
	watchdog_continued(&w, now + 2 * MS);
	assert_int_equal(w.state, WATCHDOG_WATCHING);
	assert_int_equal(watchdog_look(&w, START, now + 3 * MS), WATCHDOG_GO_ON);

	watchdog_stopped(&w, now + 4 * MS);
	assert_int_equal(watchdog_look(&w, 0, w.next), WATCHDOG_KILL);
}

static void loop_that_is_told_to_end_has_five_seconds(void **state)
{
	struct watchdog w = started(100 * MS);

	(void)state;
	watchdog_ending(&w, START);
	assert_int_equal(w.next, START + 5000 * MS);
	assert_int_equal(watchdog_look(&w, START, w.next), WATCHDOG_KILL);
}

static void new_limit_counts_at_once(void **state)
{
	struct watchdog w = started(3600 * 1000 * MS);
	enum watchdog_act act;

	(void)state;
	watchdog_set_limit(&w, 200 * MS, START + 100 * MS);
	assert_int_equal(look_on(&w, START, &act), START + 200 * MS);
	assert_int_equal(act, WATCHDOG_ABORT);
	watchdog_start(&w, LIMIT, START);
	watchdog_sleep(&w);
	watchdog_set_limit(&w, 200 * MS, START);
	assert_int_equal(w.next, INT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(idle_loop_lets_the_keeper_sleep),
		cmocka_unit_test(keeper_that_could_not_fall_asleep_looks_again_later),
		cmocka_unit_test(many_short_turns_are_no_stuck_loop),
		cmocka_unit_test(long_turn_is_found_exactly_at_the_limit),
		cmocka_unit_test(stuck_loop_is_aborted_killed_left),
		cmocka_unit_test(keeper_that_did_not_run_counts_anew),
		cmocka_unit_test(time_in_the_future_saves_nobody),
		cmocka_unit_test(stopped_loop_is_killed_unless_it_is_continued),
		cmocka_unit_test(loop_that_is_told_to_end_has_five_seconds),
		cmocka_unit_test(new_limit_counts_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
