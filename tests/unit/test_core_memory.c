/* SPDX-License-Identifier: MIT */

/*
 * The core without memory: each allocation fails in turn. The call says -ENOMEM, nothing has
 * changed, nothing stays charged, and the same call succeeds once there is memory again.
 *
 * Linked with --wrap for the three functions below.
 */

#include <stdlib.h>

#include "core_fixture.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

/* Allocations that still succeed; < 0: all. Tests have no threads. */
static int left = -1;

static bool granted(void)
{
	if (left < 0)
		return true;
	if (left == 0)
		return false;
	left--;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return granted() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t n, size_t size)
{
	return granted() ? __real_calloc(n, size) : NULL;
}

void *__wrap_realloc(void *old, size_t size)
{
	return granted() ? __real_realloc(old, size) : NULL;
}

/* One try to make number `id` with so much memory. */
typedef int (*make_function)(struct fixture *f, uint32_t id);

static int make_watch(struct fixture *f, uint32_t id)
{
	const struct core_watch w = {.id = id, .gen = FIXTURE_GEN, .interest = CORE_BOTH};
	uint64_t tag = 77;
	int r = session_watch(f->session, &w, f->now, &tag);

	if (r < 0)
		assert_int_equal(tag, 77);
	else
		watch_registered(f->core, tag, 0);
	return r;
}

static int make_timer(struct fixture *f, uint32_t id)
{
	const struct core_timer t = {.id = id, .gen = FIXTURE_GEN, .when = f->now + SECOND};
	bool pending = true;
	int r = session_set_timer(f->session, &t, f->now, &pending);

	assert_int_equal(pending, r < 0);
	return r;
}

static int make_session(struct fixture *f, uint32_t id)
{
	struct session *s = NULL;
	int r = core_add_session(f->core, id, NULL, &f->quota, &s);

	assert_int_equal(s == NULL, r < 0);
	return r;
}

static struct core_stats numbers(const struct fixture *f)
{
	return *core_stats(f->core);
}

/* Makes many; each first with no allocation granted, then with one, two, ... until it succeeds.
 * Returns how many tries failed. */
static unsigned starve(struct fixture *f, make_function make, uint32_t many)
{
	unsigned failed = 0;

	for (uint32_t id = 1; id <= many; id++) {
		for (int grant = 0;; grant++) {
			struct core_stats before = numbers(f);
			struct quota quota = f->quota;
			int r;

			left = grant;
			r = make(f, id);
			left = -1;
			if (r == 0)
				break;
			assert_int_equal(r, -ENOMEM);
			assert_true(grant < 20);
			assert_memory_equal(&before, core_stats(f->core), sizeof(before));
			assert_memory_equal(&quota, &f->quota, sizeof(quota));
			core_check(f->core);
			failed++;
		}
	}
	core_check(f->core);
	return failed;
}

static void watches_without_memory(void **state)
{
	struct fixture *f = *state;

	assert_true(starve(f, make_watch, 600) > 0);
	assert_int_equal(f->quota.used[QUOTA_WATCHES], 600);
	/* All that follows needs none: it cannot fail. */
	left = 0;
	for (uint32_t id = 1; id <= 600; id++) {
		fixture_wait(f, id, CORE_BOTH);
		fixture_deadline(f, id, CORE_BOTH, f->now + SECOND + id, 1);
	}
	session_break(f->session);
	fixture_advance(f, 2 * SECOND);
	struct core_entry e[FIXTURE_BATCH];

	assert_int_equal(session_peek(f->session, e, FIXTURE_BATCH), 601);
	session_commit(f->session, 601);
	for (uint32_t id = 1; id <= 600; id++)
		assert_int_equal(session_unwatch(f->session, id, FIXTURE_GEN, e), 0);
	left = -1;
	core_check(f->core);
}

static void timers_without_memory(void **state)
{
	struct fixture *f = *state;

	assert_true(starve(f, make_timer, 600) > 0);
	assert_int_equal(f->quota.used[QUOTA_TIMERS], 600);
	/* A live one armed anew needs none. */
	left = 0;
	for (uint32_t id = 1; id <= 600; id++)
		assert_true(fixture_timer_at(f, id, FIXTURE_GEN, f->now + 2 * SECOND, 0));
	fixture_advance(f, SECOND);
	fixture_nothing(f);
	fixture_advance(f, SECOND);
	struct core_entry e[FIXTURE_BATCH];

	assert_int_equal(session_peek(f->session, e, FIXTURE_BATCH), 600);
	session_commit(f->session, 600);
	left = -1;
	assert_int_equal(f->quota.used[QUOTA_TIMERS], 0);
}

static void sessions_without_memory(void **state)
{
	struct fixture *f = *state;

	assert_true(starve(f, make_session, 50) > 0);
	assert_int_equal(core_stats(f->core)->sessions, 51);
}

static void core_without_memory(void **unused)
{
	struct core_options options = {0};
	struct core *core = NULL;
	int r = -ENOMEM;

	(void)unused;
	for (int grant = 0; r == -ENOMEM; grant++) {
		left = grant;
		r = core_new(&options, &core);
		left = -1;
		if (r < 0)
			assert_null(core);
		assert_int_equal(r == 0, grant > 0);
	}
	core_free(core);
}

static int teardown(void **state)
{
	left = -1;
	return fixture_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(watches_without_memory, fixture_setup, teardown),
		cmocka_unit_test_setup_teardown(timers_without_memory, fixture_setup, teardown),
		cmocka_unit_test_setup_teardown(sessions_without_memory, fixture_setup, teardown),
		cmocka_unit_test(core_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
