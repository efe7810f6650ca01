/* SPDX-License-Identifier: MIT */

/*
 * Quotas: the arithmetic, and that the core charges what is made and gives it back on every path
 * on which it ends.
 */

#include "core_fixture.h"

enum { A = 1, B = 2, D = 3 };

static void charge_up_to_the_limit(void **unused)
{
	struct quota q = {0};

	(void)unused;
	q.limit[QUOTA_PARKS] = 10;
	assert_true(quota_charge(&q, QUOTA_PARKS, 4));
	assert_false(quota_charge(&q, QUOTA_PARKS, 7));
	assert_int_equal(q.used[QUOTA_PARKS], 4);
	assert_true(quota_charge(&q, QUOTA_PARKS, 6));
	assert_false(quota_charge(&q, QUOTA_PARKS, 1));
	assert_true(quota_charge(&q, QUOTA_PARKS, 0));
	quota_give_back(&q, QUOTA_PARKS, 10);
	assert_int_equal(q.used[QUOTA_PARKS], 0);
	assert_false(quota_charge(&q, QUOTA_WATCHES, 1));
	assert_int_equal(q.used[QUOTA_WATCHES], 0);
}

static void charge_does_not_overflow(void **unused)
{
	struct quota q = {0};

	(void)unused;
	q.limit[QUOTA_NOTE_BYTES] = UINT64_MAX;
	assert_true(quota_charge(&q, QUOTA_NOTE_BYTES, UINT64_MAX - 1));
	assert_false(quota_charge(&q, QUOTA_NOTE_BYTES, 2));
	assert_false(quota_charge(&q, QUOTA_NOTE_BYTES, UINT64_MAX));
	assert_true(quota_charge(&q, QUOTA_NOTE_BYTES, 1));
	assert_false(quota_charge(&q, QUOTA_NOTE_BYTES, 1));
	assert_true(q.used[QUOTA_NOTE_BYTES] == UINT64_MAX);
	quota_give_back(&q, QUOTA_NOTE_BYTES, UINT64_MAX);
	assert_true(quota_charge(&q, QUOTA_NOTE_BYTES, UINT64_MAX));
}

static void lowered_limit_refuses_only_what_is_new(void **unused)
{
	struct quota q = {0};

	(void)unused;
	q.limit[QUOTA_TIMERS] = 10;
	assert_true(quota_charge(&q, QUOTA_TIMERS, 8));
	q.limit[QUOTA_TIMERS] = 3;
	assert_int_equal(q.used[QUOTA_TIMERS], 8);
	assert_false(quota_charge(&q, QUOTA_TIMERS, 1));
	assert_false(quota_charge(&q, QUOTA_TIMERS, UINT64_MAX));
	assert_false(quota_charge(&q, QUOTA_TIMERS, 0));
	quota_give_back(&q, QUOTA_TIMERS, 6);
	assert_true(quota_charge(&q, QUOTA_TIMERS, 1));
	assert_false(quota_charge(&q, QUOTA_TIMERS, 1));
}

static int watch(struct fixture *f, struct session *s, uint32_t id, uint64_t *ret_tag)
{
	const struct core_watch w = {
		.id = id,
		.gen = FIXTURE_GEN,
		.cookie = FIXTURE_COOKIE + id,
		.interest = CORE_BOTH,
	};
	int r = session_watch(s, &w, f->now, ret_tag);

	if (r == 0)
		watch_registered(f->core, *ret_tag, 0);
	return r;
}

static int timer(struct fixture *f, uint32_t id, int64_t when, int64_t period)
{
	const struct core_timer t = {.id = id, .gen = FIXTURE_GEN, .when = when, .period = period};
	bool pending;

	return session_set_timer(f->session, &t, f->now, &pending);
}

/* The limit is two; `used` says what is charged. */
static void assert_used(const struct fixture *f, uint64_t watches, uint64_t timers)
{
	for (enum quota_kind kind = 0; kind < QUOTA_MAX; kind++) {
		uint64_t want = kind == QUOTA_WATCHES ? watches : kind == QUOTA_TIMERS ? timers : 0;

		assert_int_equal(f->quota.used[kind], want);
	}
}

static void watches_are_charged_and_given_back(void **state)
{
	struct fixture *f = *state;
	struct core_entry owed;
	uint64_t tag = 0, tag_b = 0;

	f->quota.limit[QUOTA_WATCHES] = 2;
	for (unsigned round = 0; round < 10; round++) {
		assert_int_equal(watch(f, f->session, A, &tag), 0);
		assert_used(f, 1, 0);
		assert_int_equal(watch(f, f->session, A, &tag_b), -EEXIST);
		assert_used(f, 1, 0);
		assert_int_equal(watch(f, f->session, B, &tag_b), 0);
		uint64_t refused = 7;

		assert_int_equal(watch(f, f->session, D, &refused), -EDQUOT);
		assert_int_equal(refused, 7);
		assert_used(f, 2, 0);
		assert_int_equal(core_stats(f->core)->watches, 2);
		/* Nothing but the end of a watch gives back. */
		fixture_wait(f, A, CORE_BOTH);
		fixture_deadline(f, A, CORE_READ, -1, 0);
		assert_int_equal(fixture_evict(f, A), 0);
		assert_int_equal(watch(f, f->session, D, &refused), -EDQUOT);
		assert_int_equal(session_unwatch(f->session, A, FIXTURE_GEN + 1, &owed), -ESTALE);
		assert_int_equal(session_unwatch(f->session, D, FIXTURE_GEN, &owed), -ENOENT);
		assert_used(f, 2, 0);
		assert_int_equal(session_unwatch(f->session, A, FIXTURE_GEN, &owed), 1);
		assert_used(f, 1, 0);
		assert_int_equal(session_unwatch(f->session, A, FIXTURE_GEN, &owed), -ENOENT);
		assert_used(f, 1, 0);
		assert_int_equal(session_unwatch(f->session, B, FIXTURE_GEN, &owed), 0);
		assert_used(f, 0, 0);
		core_check(f->core);
	}
}

static void forget_gives_back(void **state)
{
	struct fixture *f = *state;
	const struct core_watch w = {.id = A, .interest = CORE_BOTH};
	uint64_t tag;

	f->quota.limit[QUOTA_WATCHES] = 1;
	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(session_watch(f->session, &w, f->now, &tag), 0);
		assert_used(f, 1, 0);
		watch_forget(f->core, tag);
		assert_used(f, 0, 0);
	}
}

static void timers_are_charged_and_given_back(void **state)
{
	struct fixture *f = *state;

	f->quota.limit[QUOTA_TIMERS] = 2;
	f->quota.limit[QUOTA_WATCHES] = 0;
	for (unsigned round = 0; round < 10; round++) {
		assert_int_equal(timer(f, A, f->now + SECOND, 0), 0);
		assert_used(f, 0, 1);
		assert_int_equal(timer(f, A, f->now + SECOND, -1), -EINVAL);
		assert_int_equal(timer(f, B, f->now + SECOND, SECOND), 0);
		assert_used(f, 0, 2);
		assert_int_equal(timer(f, D, f->now + SECOND, 0), -EDQUOT);
		assert_int_equal(core_stats(f->core)->timers, 2);
		/* A live one armed anew is no new one. */
		assert_int_equal(timer(f, A, f->now + 2 * SECOND, 0), 0);
		assert_used(f, 0, 2);
		fixture_advance(f, 2 * SECOND);
		/* Fired, but unsent. */
		assert_used(f, 0, 2);
		assert_int_equal(timer(f, D, f->now + SECOND, 0), -EDQUOT);
		assert_int_equal(timer(f, A, f->now, 0), 0);
		fixture_advance(f, 0);
		session_commit(f->session, session_peek(f->session, (struct core_entry[4]){0}, 4));
		/* The one-shot is gone, the periodic one is not. */
		assert_used(f, 0, 1);
		assert_int_equal(timer(f, A, f->now, 0), 0);
		fixture_advance(f, 0);
		/* Stopped while unsent. */
		assert_int_equal(session_stop_timer(f->session, A, FIXTURE_GEN), 0);
		assert_used(f, 0, 1);
		assert_int_equal(session_stop_timer(f->session, B, FIXTURE_GEN), 0);
		assert_used(f, 0, 0);
		assert_int_equal(session_stop_timer(f->session, B, FIXTURE_GEN), -ENOENT);
		assert_used(f, 0, 0);
		core_check(f->core);
	}
}

static void sessions_of_one_user_share(void **state)
{
	struct fixture *f = *state;
	struct session *second;
	uint64_t tag;

	f->quota.limit[QUOTA_WATCHES] = 3;
	f->quota.limit[QUOTA_TIMERS] = 1;
	assert_int_equal(core_add_session(f->core, 2, NULL, &f->quota, &second), 0);
	assert_int_equal(watch(f, f->session, A, &tag), 0);
	assert_int_equal(watch(f, second, A, &tag), 0);
	assert_int_equal(watch(f, second, B, &tag), 0);
	assert_int_equal(watch(f, f->session, B, &tag), -EDQUOT);
	assert_int_equal(timer(f, A, f->now + SECOND, 0), 0);
	assert_used(f, 3, 1);
	session_end(second);
	assert_used(f, 1, 1);
	assert_int_equal(watch(f, f->session, B, &tag), 0);
	/* A lowered limit touches nothing that lives. */
	f->quota.limit[QUOTA_WATCHES] = 1;
	core_event(f->core, tag, CORE_BOTH, false);
	fixture_wait_gives(f, B, CORE_READ, CORE_CODE_READY);
	assert_int_equal(watch(f, f->session, D, &tag), -EDQUOT);
}

/* Other users' sessions are charged elsewhere; the end of all gives back all. */
static void core_free_gives_back(void **unused)
{
	struct core_options options = {0};
	struct quota mine, theirs;
	struct session *a, *b;
	struct core *core;
	struct fixture f = {.now = SECOND};
	uint64_t tag;

	(void)unused;
	quota_open(&mine);
	quota_open(&theirs);
	assert_int_equal(core_new(&options, &core), 0);
	f.core = core;
	assert_int_equal(core_add_session(core, 1, NULL, &mine, &a), 0);
	assert_int_equal(core_add_session(core, 2, NULL, &theirs, &b), 0);
	assert_int_equal(watch(&f, a, A, &tag), 0);
	assert_int_equal(watch(&f, b, A, &tag), 0);
	assert_int_equal(watch(&f, b, B, &tag), 0);
	f.session = b;
	assert_int_equal(timer(&f, A, SECOND, 0), 0);
	core_expire(core, SECOND);
	assert_int_equal(mine.used[QUOTA_WATCHES], 1);
	assert_int_equal(theirs.used[QUOTA_WATCHES], 2);
	assert_int_equal(theirs.used[QUOTA_TIMERS], 1);
	core_check(core);
	assert_null(core_free(core));
	assert_int_equal(mine.used[QUOTA_WATCHES], 0);
	assert_int_equal(theirs.used[QUOTA_WATCHES], 0);
	assert_int_equal(theirs.used[QUOTA_TIMERS], 0);
	assert_null(core_free(NULL));
}

#define CORE_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(charge_up_to_the_limit),
		cmocka_unit_test(charge_does_not_overflow),
		cmocka_unit_test(lowered_limit_refuses_only_what_is_new),
		CORE_TEST(watches_are_charged_and_given_back),
		CORE_TEST(forget_gives_back),
		CORE_TEST(timers_are_charged_and_given_back),
		CORE_TEST(sessions_of_one_user_share),
		cmocka_unit_test(core_free_gives_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
