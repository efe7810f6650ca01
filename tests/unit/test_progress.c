/* SPDX-License-Identifier: MIT */

/* The page between a loop and its watcher: what is seen, and that no wake is lost. */

#include "daemon/edge/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 20000, TURNS_A_ROUND = 3, TIMEOUT_MS = 20000 };

static uint64_t read_count(int fd)
{
	uint64_t count = 0;

	return read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count) ? count : 0;
}

static struct progress make(int64_t now)
{
	struct progress p = {.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};

	assert_true(p.wake >= 0);
	assert_int_equal(progress_page_new(now, &p.page), 0);
	return p;
}

static void end(struct progress *p)
{
	p->page = progress_page_free(p->page);
	assert_null(p->page);
	(void)close(p->wake);
}

static void without_a_page_nothing_is_done(void **state)
{
	const struct progress p = {.wake = -1};

	(void)state;
	progress_busy(&p, 1);
	progress_enter(&p, PROGRESS_SEND, 1, 2, 3);
	progress_leave(&p);
	progress_finish_turn(&p);
	progress_count(&p, &(const struct progress_counts){0});
	progress_idle(&p);
	assert_null(progress_page_free(NULL));
}

static void counts_are_seen_as_they_were_left(void **state)
{
	const struct progress_counts said = {
		.connections = 1, .watches = 2, .waiting = UINT64_MAX, .timers = 4};
	struct progress p = make(1);
	struct progress_counts seen = {.connections = 9};

	(void)state;
	progress_get_counts(p.page, &seen);
	assert_int_equal(seen.connections, 0);
	progress_count(&p, &said);
	progress_get_counts(p.page, &seen);
	assert_memory_equal(&seen, &said, sizeof(seen));
	end(&p);
}

static void new_loop_counts_as_busy(void **state)
{
	struct progress p = make(42);

	(void)state;
	assert_int_equal(progress_busy_since(p.page), 42);
	assert_false(progress_fall_asleep(p.page));
	progress_busy(&p, 43);
	assert_int_equal(read_count(p.wake), 0); /* nobody sleeps */
	end(&p);
}

static void sleeper_is_woken_once(void **state)
{
	struct progress p = make(1);

	(void)state;
	progress_idle(&p);
	assert_true(progress_fall_asleep(p.page));
	for (int i = 2; i < 10; i++) {
		progress_busy(&p, i);
		progress_idle(&p);
	}
	assert_int_equal(read_count(p.wake), 1);
	assert_true(progress_fall_asleep(p.page));
	progress_busy(&p, 10);
	assert_int_equal(read_count(p.wake), 1);
	end(&p);
}

static void step_and_turns_outlive_the_loop(void **state)
{
	struct progress p = make(1);
	struct progress_step step;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		progress_busy(&p, 7);
		progress_finish_turn(&p);
		progress_finish_turn(&p);
		progress_enter(&p, PROGRESS_EVENTS, 1000, 4711, UINT64_C(1) << 40);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	progress_get_step(p.page, &step);
	assert_int_equal(step.kind, PROGRESS_EVENTS);
	assert_int_equal(step.uid, 1000);
	assert_int_equal(step.pid, 4711);
	assert_int_equal(step.object, UINT64_C(1) << 40);
	assert_int_equal(progress_turns(p.page), 2);
	assert_int_equal(progress_busy_since(p.page), 7);
	progress_leave(&p);
	progress_get_step(p.page, &step);
	assert_int_equal(step.kind, PROGRESS_NONE);
	end(&p);
}

static void kind_that_is_none_is_no_step(void **state)
{
	struct progress p = make(1);
	struct progress_step step;

	(void)state;
	atomic_store(&p.page->kind, 12345);
	progress_get_step(p.page, &step);
	assert_int_equal(step.kind, PROGRESS_NONE);
	end(&p);
}

/* A loop that gets busy for a while, again and again, each time after its watcher looked. */
static void *run_loop(void *context)
{
	const struct progress *p = context;

	for (int i = 1; i <= ROUNDS * TURNS_A_ROUND; i++) {
		progress_busy(p, i);
		progress_idle(p);
		if (i % 7 == 0)
			(void)sched_yield();
	}
	progress_busy(p, INT64_MAX); /* it stays busy: a sleeper must learn of it */
	return NULL;
}

static void no_wake_is_lost(void **state)
{
	struct progress p = make(1);
	uint64_t sleeps = 0, woken = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, run_loop, &p), 0);
	while (progress_busy_since(p.page) != INT64_MAX) {
		struct pollfd pollfd = {.fd = p.wake, .events = POLLIN};

		if (!progress_fall_asleep(p.page))
			continue;
		sleeps++;
		assert_int_equal(poll(&pollfd, 1, TIMEOUT_MS), 1);
		woken += read_count(p.wake);
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	woken += read_count(p.wake);
	assert_true(sleeps > 0);
	/* at most once for each time that it fell asleep or wanted to */
	assert_true(woken >= sleeps);
	end(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_page_nothing_is_done),
		cmocka_unit_test(counts_are_seen_as_they_were_left),
		cmocka_unit_test(new_loop_counts_as_busy),
		cmocka_unit_test(sleeper_is_woken_once),
		cmocka_unit_test(step_and_turns_outlive_the_loop),
		cmocka_unit_test(kind_that_is_none_is_no_step),
		cmocka_unit_test(no_wake_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
