/* SPDX-License-Identifier: MIT */

/* Timers of the core under a fake clock, told by the numbers of the conformance checklist. */

#include <stdio.h>
#include <stdlib.h>

#include "core_fixture.h"

enum { A = 1, B = 2 };

/* Heap nodes that may be left over whatever lives: the constant of S-088. */
enum { HEAP_SLACK = 64 };

static uint64_t seed_from_environment(void)
{
	const char *text = getenv("READYD_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : UINT64_C(19700101);

	print_message("seed %llu (READYD_SEED)\n", (unsigned long long)seed);
	return seed;
}

static void S_082_one_shot(void **state)
{
	struct fixture *f = *state;

	assert_false(fixture_timer_at(f, A, 1, f->now + SECOND, 0));
	fixture_advance(f, SECOND - 1);
	fixture_nothing(f);
	fixture_advance(f, 1);
	fixture_timer_entry(f, A, 1, 1);
	fixture_advance(f, 10 * SECOND);
	fixture_nothing(f);
	assert_int_equal(session_stop_timer(f->session, A, 1), -ENOENT);
	assert_int_equal(core_stats(f->core)->timers, 0);
	/* Stopped before. */
	assert_false(fixture_timer_at(f, A, 2, f->now + SECOND, 0));
	assert_int_equal(session_stop_timer(f->session, A, 2), 0);
	assert_int_equal(session_stop_timer(f->session, A, 2), -ENOENT);
	fixture_advance(f, 2 * SECOND);
	fixture_nothing(f);
	/* Fired and unsent counts as pending, and no entry follows the stop or a new arming. */
	assert_false(fixture_timer_at(f, A, 3, f->now, 0));
	fixture_advance(f, 0);
	assert_int_equal(session_stop_timer(f->session, A, 3), 0);
	fixture_nothing(f);
	assert_false(fixture_timer_at(f, A, 4, f->now, 0));
	fixture_advance(f, 0);
	assert_true(fixture_timer_at(f, A, 5, f->now + SECOND, 0));
	fixture_nothing(f);
	assert_true(fixture_timer_at(f, A, 6, f->now + 2 * SECOND, 0));
	fixture_advance(f, SECOND);
	fixture_nothing(f);
	fixture_advance(f, SECOND);
	fixture_timer_entry(f, A, 6, 1);
}

static void S_083_periodic(void **state)
{
	struct fixture *f = *state;
	int64_t start = f->now;

	assert_false(fixture_timer_at(f, A, 1, start + 20 * MS, 20 * MS));
	fixture_advance(f, 110 * MS);
	fixture_timer_entry(f, A, 1, 5);
	assert_true(core_next_expiry(f->core) <= start + 120 * MS);
	fixture_advance(f, 10 * MS - 1);
	fixture_nothing(f);
	fixture_advance(f, 1);
	assert_int_equal(fixture_peek_one(f).count, 1);
	fixture_advance(f, 20 * MS);
	fixture_advance(f, 45 * MS);
	fixture_timer_entry(f, A, 1, 4);
	assert_int_equal(session_stop_timer(f->session, A, 1), 0);
}

static void S_083_count_saturates(void **state)
{
	struct fixture *f = *state;

	assert_false(fixture_timer_at(f, A, 1, 1, 1));
	fixture_advance(f, INT64_C(5000000000));
	assert_true(fixture_peek_one(f).count == UINT32_MAX);
	fixture_advance(f, 10);
	assert_true(fixture_peek_one(f).count == UINT32_MAX);
	session_commit(f->session, 1);
	fixture_advance(f, 3);
	fixture_timer_entry(f, A, 1, 3);
}

static void S_084_fire_in_order_of_time(void **state)
{
	struct fixture *f = *state;
	const unsigned order[] = {5, 9, 0, 3, 7, 1, 8, 2, 6, 4};
	struct core_entry e[16];

	for (unsigned i = 0; i < 10; i++)
		fixture_timer_at(f, order[i] + 1, 1, f->now + order[i] + 1, 0);
	fixture_advance(f, SECOND);
	assert_int_equal(session_peek(f->session, e, 16), 10);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(e[i].id, i + 1);
	session_commit(f->session, 10);
}

static void ties_fire_in_order_of_arming(void **state)
{
	struct fixture *f = *state;
	int64_t when = f->now + SECOND;
	struct core_entry e[16];

	for (uint32_t id = 1; id <= 4; id++) {
		fixture_watch(f, id);
		fixture_wait(f, id, CORE_READ);
	}
	fixture_deadline(f, 3, CORE_READ, when, 1);
	fixture_timer_at(f, 10, 1, when, 0);
	fixture_deadline(f, 1, CORE_READ, when - 5, 1);
	fixture_deadline(f, 4, CORE_READ, when + 5, 1);
	fixture_timer_at(f, 11, 1, when, 0);
	fixture_deadline(f, 1, CORE_READ, when, 2); /* later: armed when the old time comes */
	fixture_deadline(f, 2, CORE_READ, when, 1);
	fixture_deadline(f, 4, CORE_READ, when, 2); /* earlier */
	fixture_timer_at(f, 10, 2, when, 0);        /* armed anew: last now */
	fixture_advance(f, SECOND);
	const uint32_t want[] = {3, 11, 2, 4, 10, 1};

	assert_int_equal(session_peek(f->session, e, 16), 6);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(e[i].id, want[i]);
	session_commit(f->session, 6);
}

static void S_085_moved_to_the_past_and_stopped(void **state)
{
	struct fixture *f = *state;

	fixture_timer_at(f, A, 0, f->now + 3600 * SECOND, 0);
	for (uint32_t gen = 1; gen <= 10; gen++) {
		assert_true(fixture_timer_at(f, A, gen, f->now - SECOND, 0));
		assert_int_equal(session_stop_timer(f->session, A, gen), 0);
		assert_false(fixture_timer_at(f, A, gen, f->now - SECOND, 0));
		assert_true(core_next_expiry(f->core) <= f->now);
		fixture_advance(f, 0);
		fixture_timer_entry(f, A, gen, 1);
		assert_false(fixture_timer_at(f, A, gen, f->now + 3600 * SECOND, 0));
	}
	assert_int_equal(session_stop_timer(f->session, A, 10), 0);
	fixture_nothing(f);
}

static void S_086_timers_moved_at_random(void **state)
{
	struct fixture *f = *state;
	uint64_t seed = seed_from_environment();
	int64_t when[101];
	unsigned fired = 0, moved = 0;

	for (uint32_t id = 1; id <= 100; id++) {
		when[id] = f->now + 1 + (int64_t)(random_next(&seed) % 1000);
		fixture_timer_at(f, id, 1, when[id], 0);
	}
	while (fired < 100) {
		uint32_t id = 1 + (uint32_t)(random_next(&seed) % 100);
		struct core_entry e[100];
		unsigned n;

		if (when[id] && moved++ < 2000) {
			when[id] = f->now + 1 + (int64_t)(random_next(&seed) % 1000);
			assert_true(fixture_timer_at(f, id, 1, when[id], 0));
		}
		fixture_advance(f, (int64_t)(random_next(&seed) % 10));
		n = session_peek(f->session, e, 100);
		for (unsigned i = 0; i < n; i++) {
			assert_true(when[e[i].id] != 0);
			assert_true(when[e[i].id] <= f->now);
			when[e[i].id] = 0;
		}
		session_commit(f->session, n);
		fired += n;
		for (uint32_t i = 1; i <= 100; i++)
			assert_true(when[i] == 0 || when[i] > f->now);
	}
	assert_int_equal(core_stats(f->core)->timers, 0);
}

static void S_087_extreme_times(void **state)
{
	struct fixture *f = *state;
	const int64_t at_once[] = {0, -1, INT64_MIN, 1};
	struct core_timer bad = {.id = A, .gen = 1, .when = f->now, .period = -1};
	bool pending = true;

	assert_int_equal(session_set_timer(f->session, &bad, f->now, &pending), -EINVAL);
	bad.period = 0;
	bad.id = 0;
	assert_int_equal(session_set_timer(f->session, &bad, f->now, &pending), -EINVAL);
	assert_int_equal(core_stats(f->core)->timers, 0);
	/* A period near the greatest number: fires once, then never. */
	fixture_timer_at(f, A, 1, f->now + SECOND, INT64_MAX - 1);
	fixture_advance(f, SECOND);
	fixture_timer_entry(f, A, 1, 1);
	core_expire(f->core, INT64_MAX - 1);
	fixture_nothing(f);
	assert_int_equal(session_stop_timer(f->session, A, 1), 0);
	/* A negative period for a live one changes nothing. */
	fixture_timer_at(f, A, 2, f->now + SECOND, 0);
	bad = (struct core_timer){.id = A, .gen = 3, .when = 0, .period = -1};
	assert_int_equal(session_set_timer(f->session, &bad, f->now, &pending), -EINVAL);
	fixture_advance(f, SECOND - 1);
	fixture_nothing(f);
	fixture_advance(f, 1);
	fixture_timer_entry(f, A, 2, 1);
	for (unsigned i = 0; i < 4; i++) {
		fixture_timer_at(f, B, i, at_once[i], 0);
		fixture_nothing(f);
		fixture_advance(f, 0);
		fixture_timer_entry(f, B, i, 1);
		fixture_timer_at(f, B, i, at_once[i], INT64_MAX / 2);
		fixture_advance(f, 0);
		assert_true(fixture_peek_one(f).count >= 1);
		session_commit(f->session, 1);
		core_check(f->core);
		assert_int_equal(session_stop_timer(f->session, B, i), 0);
	}
}

static void relative_timers(void **state)
{
	struct fixture *f = *state;
	struct core_timer t = {.id = A, .gen = 1, .when = SECOND, .relative = true};
	bool pending = true;

	t.cookie = FIXTURE_COOKIE + A;
	assert_int_equal(session_set_timer(f->session, &t, f->now, &pending), 0);
	assert_false(pending);
	fixture_advance(f, SECOND - 1);
	fixture_nothing(f);
	fixture_advance(f, 1);
	fixture_timer_entry(f, A, 1, 1);
	t.when = INT64_MAX - 1;
	assert_int_equal(session_set_timer(f->session, &t, f->now, &pending), 0);
	core_expire(f->core, INT64_MAX - 1);
	fixture_nothing(f);
	t.when = 0;
	assert_int_equal(session_set_timer(f->session, &t, f->now, &pending), 0);
	assert_true(pending);
	fixture_advance(f, 0);
	fixture_timer_entry(f, A, 1, 1);
}

static void S_088_made_and_stopped(void **state)
{
	struct fixture *f = *state;
	const struct core_stats *st = core_stats(f->core);

	for (uint32_t id = 1; id <= 10; id++)
		fixture_timer_at(f, id, 1, f->now + 1000 * SECOND, 0);
	/* Thirty of them live at any moment. */
	for (uint32_t i = 0; i < 100000; i++) {
		assert_false(fixture_timer_at(f, 100 + i % 50, 1, f->now + SECOND + i, 0));
		if (i >= 30)
			assert_int_equal(session_stop_timer(f->session, 100 + (i - 30) % 50, 1), 0);
		assert_int_equal(st->timers, 10 + (i < 30 ? i + 1 : 30));
		assert_true(st->heap_nodes <= 2 * st->timers + HEAP_SLACK);
	}
	core_check(f->core);
	fixture_advance(f, 10 * SECOND);
	struct core_entry e[64];

	assert_int_equal(session_peek(f->session, e, 64), 30);
	session_commit(f->session, 30);
}

static void next_expiry_is_never_late(void **state)
{
	struct fixture *f = *state;

	assert_true(core_next_expiry(f->core) == INT64_MAX);
	fixture_timer_at(f, A, 1, f->now + 5 * SECOND, 0);
	fixture_watch(f, A);
	fixture_deadline(f, A, CORE_WRITE, f->now + 7 * SECOND, 1);
	assert_true(core_next_expiry(f->core) <= f->now + 5 * SECOND);
	assert_int_equal(session_stop_timer(f->session, A, 1), 0);
	assert_true(core_next_expiry(f->core) <= f->now + 7 * SECOND);
	fixture_deadline(f, A, CORE_WRITE, f->now + 9 * SECOND, 1);
	/* What is early for nothing is gone once it was looked at. */
	fixture_advance(f, 7 * SECOND);
	fixture_nothing(f);
	assert_true(core_next_expiry(f->core) > f->now);
	assert_true(core_next_expiry(f->core) <= f->now + 2 * SECOND);
	fixture_deadline(f, A, CORE_WRITE, 0, 1);
	assert_true(core_next_expiry(f->core) == INT64_MAX);
}

#define EDGE_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EDGE_TEST(S_082_one_shot),
		EDGE_TEST(S_083_periodic),
		EDGE_TEST(S_083_count_saturates),
		EDGE_TEST(S_084_fire_in_order_of_time),
		EDGE_TEST(ties_fire_in_order_of_arming),
		EDGE_TEST(S_085_moved_to_the_past_and_stopped),
		EDGE_TEST(S_086_timers_moved_at_random),
		EDGE_TEST(S_087_extreme_times),
		EDGE_TEST(relative_timers),
		EDGE_TEST(S_088_made_and_stopped),
		EDGE_TEST(next_expiry_is_never_late),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
