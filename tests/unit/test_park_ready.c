/* SPDX-License-Identifier: MIT */

/* Parks: what becomes ready, and when a deadline counts. */

#include "park_fixture.h"

/* ---- Readiness ---- */

static void readiness_is_noted(void **state)
{
	struct fixture *f = *state;
	struct park_new new = new_park(1);
	struct park *p;
	uint64_t serial;

	new.interest = CORE_BOTH;
	p = park_as(f, &new);
	serial = p->serial;
	parks_ready(f->ps, p, CORE_READ, f->now);
	assert_int_equal(p->ready, CORE_READ);
	assert_int_equal(parks_stats(f->ps)->ready, 1);
	expect_changed(f, p);
	parks_ready(f->ps, p, CORE_READ, f->now);
	expect_unchanged(f);
	parks_ready(f->ps, p, CORE_BOTH, f->now);
	assert_int_equal(p->ready, CORE_BOTH);
	expect_changed(f, p);
	assert_true(p->serial == serial);
	/* Once on the list, however often it changes. */
	parks_answered(f->ps, p);
	assert_int_equal(parks_hand(f->ps, p, f->h[1], 0), 0);
	expect_recorded(f, p);
	assert_int_equal(parks_stats(f->ps)->ready, 0);
	assert_int_equal(p->ready, CORE_BOTH);
}

static void readiness_outside_the_interest_is_nothing(void **state)
{
	struct fixture *f = *state;
	struct park_new new = new_park(2);
	struct park *p = park_held(f, 1);

	parks_ready(f->ps, p, CORE_WRITE, f->now);
	expect_unchanged(f);
	new.flags = PARK_HOLD_ONLY;
	p = park_as(f, &new);
	parks_ready(f->ps, p, CORE_READ, f->now);
	expect_unchanged(f);
	parks_answered(f->ps, p);
	assert_int_equal(parks_hand(f->ps, p, f->h[1], 0), 0);
	parks_take_back(f->ps, p, 0);
	assert_int_equal(p->ready, 0);
	expect_recorded(f, p);
}

/* ---- Deadlines ---- */

static struct park *park_until(struct fixture *f, unsigned token, int64_t deadline, uint32_t flags)
{
	struct park_new new = new_park(token);

	new.deadline = deadline;
	new.flags = flags;
	return park_as(f, &new);
}

static void a_deadline_ends_it(void **state)
{
	struct fixture *f = *state;
	struct park *p = park_until(f, 1, 100, 0);

	assert_true(parks_next_expiry(f->ps) == 100);
	parks_answered(f->ps, p);
	expect_recorded(f, p);
	assert_false(parks_expire(f->ps, 99, 10));
	expect_unchanged(f);
	assert_false(parks_expire(f->ps, 100, 1));
	assert_int_equal(parks_stats(f->ps)->expired, 1);
	assert_int_equal(f->quota[0].used[QUOTA_PARKS], 0);
	expect_gone(f, p, PARK_END_EXPIRED);
	assert_true(parks_next_expiry(f->ps) == INT64_MAX);
}

static void a_deadline_hands_it(void **state)
{
	struct fixture *f = *state;
	struct park *p = park_until(f, 1, 100, PARK_DEADLINE_HAND | PARK_HOLD_ONLY);

	parks_answered(f->ps, p);
	expect_recorded(f, p);
	assert_false(parks_expire(f->ps, 100, 1));
	assert_true(p->timed_out && p->deadline == 0 && p->state == PARK_HELD && p->ready == 0);
	assert_int_equal(parks_stats(f->ps)->ready, 1);
	assert_int_equal(parks_stats(f->ps)->expired, 0);
	expect_recorded(f, p);
	assert_true(parks_next_expiry(f->ps) == INT64_MAX);
	assert_int_equal(parks_hand(f->ps, p, f->h[1], 0), 0);
	assert_int_equal(parks_stats(f->ps)->ready, 0);
	expect_recorded(f, p);
}

/* Due while nothing may happen to it: it counts when that ends, at the next look. */
static void a_deadline_waits_for_the_answer(void **state)
{
	struct fixture *f = *state;
	struct park *p = park_until(f, 1, 100, 0);

	assert_false(parks_expire(f->ps, 200, 1));
	expect_unchanged(f);
	assert_true(parks_next_expiry(f->ps) == INT64_MAX);
	parks_answered(f->ps, p);
	assert_int_equal(p->state, PARK_HELD);
	expect_recorded(f, p);
	assert_true(parks_next_expiry(f->ps) == 100);
	assert_false(parks_expire(f->ps, 200, 1));
	expect_gone(f, p, PARK_END_EXPIRED);
}

static void a_deadline_waits_for_the_worker(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < ENDINGS; i++) {
		struct park *p = park_until(f, i + 1, 100, 0);

		parks_answered(f->ps, p);
		assert_int_equal(parks_hand(f->ps, p, f->h[1], 0), 0);
		expect_recorded(f, p);
		assert_false(parks_expire(f->ps, 200, 1));
		expect_unchanged(f);
		endings[i](f, p);
		expect_back(f, p);
		assert_false(parks_expire(f->ps, 200, 1));
		expect_gone(f, p, PARK_END_EXPIRED);
	}
}

static void deadlines_come_in_pieces(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 5; i++) {
		struct park *p = park_until(f, i + 1, 100 - i, 0);

		parks_answered(f->ps, p);
		expect_recorded(f, p);
	}
	assert_true(parks_expire(f->ps, 200, 0));
	assert_true(parks_expire(f->ps, 200, 2));
	assert_int_equal(parks_stats(f->ps)->expired, 2);
	assert_true(parks_next_expiry(f->ps) == 98);
	assert_false(parks_expire(f->ps, 200, 3));
	assert_int_equal(parks_stats(f->ps)->expired, 5);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(readiness_is_noted),
		TEST(readiness_outside_the_interest_is_nothing),
		TEST(a_deadline_ends_it),
		TEST(a_deadline_hands_it),
		TEST(a_deadline_waits_for_the_answer),
		TEST(a_deadline_waits_for_the_worker),
		TEST(deadlines_come_in_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
