/* SPDX-License-Identifier: MIT */

/* Two deaths in a row in the same step for the same process: S-116 without processes. */

#include "daemon/keeper/blame.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000000)

static struct progress_step step(enum progress_kind kind, uint32_t uid, int32_t pid)
{
	return (struct progress_step){.kind = kind, .uid = uid, .pid = pid};
}

static bool dies(struct blame *b, enum progress_kind kind, uint32_t uid, int32_t pid,
		 uint64_t start)
{
	struct progress_step s = step(kind, uid, pid);

	return blame_death(b, &s, start, SECOND);
}

static void second_death_in_a_row_keeps_out(void **state)
{
	struct blame b = {0};
	const struct kept_out *k;

	(void)state;
	assert_false(dies(&b, PROGRESS_REQUEST, 5, 77, 1234));
	assert_int_equal(b.kept_out.n, 0);
	assert_true(dies(&b, PROGRESS_REQUEST, 5, 77, 1234));
	assert_int_equal(b.kept_out.n, 1);
	k = &b.kept_out.items[0];
	assert_int_equal(k->uid, 5);
	assert_int_equal(k->pid, 77);
	assert_int_equal(k->start, 1234);
	assert_int_equal(k->until, 61 * SECOND);
	/* the count begins anew */
	assert_false(dies(&b, PROGRESS_REQUEST, 5, 77, 1234));
}

static void the_session_does_not_matter(void **state)
{
	struct progress_step first = step(PROGRESS_END, 1, 2), second = first;
	struct blame b = {0};

	(void)state;
	first.object = 10;
	second.object = 11;
	assert_false(blame_death(&b, &first, 3, 0));
	assert_true(blame_death(&b, &second, 3, 0));
}

static void what_differs_is_chance(void **state)
{
	struct blame b = {0};

	(void)state;
	assert_false(dies(&b, PROGRESS_REQUEST, 5, 77, 1));
	assert_false(dies(&b, PROGRESS_EVENTS, 5, 77, 1));
	assert_false(dies(&b, PROGRESS_EVENTS, 6, 77, 1));
	assert_false(dies(&b, PROGRESS_EVENTS, 6, 78, 1));
	assert_false(dies(&b, PROGRESS_EVENTS, 6, 78, 2)); /* the pid was used again */
	assert_int_equal(b.kept_out.n, 0);
	assert_true(dies(&b, PROGRESS_EVENTS, 6, 78, 0)); /* gone: nobody knows */
}

static void deaths_without_a_client_blame_nobody(void **state)
{
	struct blame b = {0};

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_false(dies(&b, PROGRESS_NONE, 0, 0, 0));
	for (int i = 0; i < 5; i++)
		assert_false(dies(&b, PROGRESS_REQUEST, 0, 0, 0)); /* of another pid namespace */
	assert_false(dies(&b, PROGRESS_REQUEST, 1, 2, 0));
	assert_false(dies(&b, PROGRESS_NONE, 1, 2, 0)); /* not in a row any more */
	assert_false(dies(&b, PROGRESS_REQUEST, 1, 2, 0));
	assert_int_equal(b.kept_out.n, 0);
}

static void list_is_bounded_and_keeps_the_newest(void **state)
{
	struct blame b = {0};

	(void)state;
	for (int pid = 1; pid <= KEPT_OUT_MAX + 3; pid++) {
		(void)dies(&b, PROGRESS_REQUEST, 0, pid, 1);
		assert_true(dies(&b, PROGRESS_REQUEST, 0, pid, 1));
	}
	assert_int_equal(b.kept_out.n, KEPT_OUT_MAX);
	assert_int_equal(b.kept_out.items[0].pid, 4);
	assert_int_equal(b.kept_out.items[KEPT_OUT_MAX - 1].pid, KEPT_OUT_MAX + 3);
	blame_expire(&b, 61 * SECOND - 1);
	assert_int_equal(b.kept_out.n, KEPT_OUT_MAX);
	blame_expire(&b, 61 * SECOND);
	assert_int_equal(b.kept_out.n, 0);
}

static void only_faults_count(void **state)
{
	(void)state;
	assert_true(blame_counts(SIGSEGV) && blame_counts(SIGBUS) && blame_counts(SIGILL) &&
		    blame_counts(SIGFPE) && blame_counts(SIGABRT));
	assert_false(blame_counts(SIGKILL) || blame_counts(SIGTERM) || blame_counts(0));
}

static void kept_out_is_one_process_for_a_time(void **state)
{
	pid_t own = getpid();
	uint64_t start = process_start_time(own);
	struct kept_out_list list = {
		.items = {{.uid = 3, .pid = own, .start = start, .until = SECOND}}, .n = 1};

	(void)state;
	assert_true(start > 0);
	assert_non_null(kept_out_find(&list, 3, own, SECOND - 1));
	assert_null(kept_out_find(&list, 3, own, SECOND));
	assert_null(kept_out_find(&list, 4, own, 0));
	assert_null(kept_out_find(&list, 3, own + 1, 0));
	list.items[0].start++; /* another process had this pid */
	assert_null(kept_out_find(&list, 3, own, 0));
	list.items[0].start = 0;
	assert_non_null(kept_out_find(&list, 3, own, 0));
}

static void start_time_of_a_process_that_is_gone(void **state)
{
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(process_start_time(pid), 0);
	assert_int_equal(process_start_time(-1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(second_death_in_a_row_keeps_out),
		cmocka_unit_test(the_session_does_not_matter),
		cmocka_unit_test(what_differs_is_chance),
		cmocka_unit_test(deaths_without_a_client_blame_nobody),
		cmocka_unit_test(list_is_bounded_and_keeps_the_newest),
		cmocka_unit_test(only_faults_count),
		cmocka_unit_test(kept_out_is_one_process_for_a_time),
		cmocka_unit_test(start_time_of_a_process_that_is_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
