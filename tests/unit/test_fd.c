/* SPDX-License-Identifier: MIT */
/* The layout of the fd table (fd.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/poller/fd.h"

/* What the table looks like is tested in a child: it may be left in any state. */
static void in_child(int (*body)(void))
{
	int status = -1;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0)
		_exit(body());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) != 0)
		fail_msg("the child's check in line %d (modulo 256) failed", WEXITSTATUS(status));
}

/* A failed check of a child ends it with its line, which is not 0 modulo 256 here. */
#define CHECK(condition)                                            \
	do {                                                        \
		if (!(condition))                                   \
			return __LINE__ % 256 ? __LINE__ % 256 : 1; \
	} while (0)

static int is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static int is_null(int fd)
{
	struct stat s;

	return fstat(fd, &s) == 0 && S_ISCHR(s.st_mode) && s.st_rdev == makedev(1, 3);
}

static void close_all_above(int fd)
{
	(void)syscall(SYS_close_range, fd + 1, ~0u, 0);
}

static void move_up_moves_and_closes_the_old(void **state)
{
	int fd = eventfd(7, 0);
	int moved = fd_move_up(fd);
	eventfd_t value;

	(void)state;
	assert_true(moved >= FD_LASTING);
	assert_false(is_open(fd));
	assert_int_equal(fcntl(moved, F_GETFD), FD_CLOEXEC);
	assert_int_equal(eventfd_read(moved, &value), 0);
	assert_int_equal(value, 7);
	assert_int_equal(fd_move_up(moved), moved);
	assert_true(is_open(moved));
	close(moved);
}

static void move_up_of_nothing_is_ebadf(void **state)
{
	(void)state;
	assert_int_equal(fd_move_up(-1), -EBADF);
	assert_int_equal(fd_move_up(200), -EBADF);
}

static int move_up_without_room_body(void)
{
	struct rlimit limit = {FD_LASTING + 1, FD_LASTING + 1};
	int first, second;

	close_all_above(2);
	CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	first = fd_move_up(eventfd(0, 0));
	CHECK(first == FD_LASTING);
	second = eventfd(0, 0);
	CHECK(second == FD_ZONE_FIRST);
	CHECK(fd_move_up(second) == -EMFILE);
	CHECK(!is_open(second)); /* closed in either case */
	limit.rlim_cur = FD_LASTING;
	CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	second = eventfd(0, 0);
	CHECK(fd_move_up(second) == -EMFILE);
	CHECK(!is_open(second));
	return 0;
}

static void move_up_without_room_is_emfile(void **state)
{
	(void)state;
	in_child(move_up_without_room_body);
}

static int plug_body(void)
{
	int event;

	close_all_above(2);
	CHECK(eventfd(0, 0) == 3);
	CHECK(dup2(3, 100) == 100); /* what stands there stays */
	CHECK(fd_zone_plug() == 0);
	for (int fd = FD_ZONE_FIRST; fd <= FD_ZONE_LAST; fd++) {
		CHECK(is_open(fd));
		CHECK(is_null(fd) == (fd != 3 && fd != 100));
		CHECK(!is_null(fd) || fcntl(fd, F_GETFD) == FD_CLOEXEC);
	}
	CHECK(!is_open(FD_LASTING)); /* nothing is left over */
	event = eventfd(0, 0);
	CHECK(event == FD_LASTING); /* what a library opens now is lasting */
	CHECK(fd_zone_plug() == 0); /* twice does no harm */
	fd_zone_unplug();
	for (int fd = FD_ZONE_FIRST; fd <= FD_ZONE_LAST; fd++)
		CHECK(!is_open(fd));
	CHECK(is_open(event));
	CHECK(is_open(0) && is_open(1) && is_open(2));
	CHECK(eventfd(0, 0) == FD_ZONE_FIRST);
	return 0;
}

static void plug_fills_the_zone_and_unplug_empties_it(void **state)
{
	(void)state;
	in_child(plug_body);
}

static int plug_standard_body(void)
{
	close_all_above(2);
	close(0);
	close(2);
	CHECK(fd_zone_plug() == 0);
	CHECK(is_null(0) && is_null(2));
	CHECK(fcntl(0, F_GETFD) == 0 && fcntl(2, F_GETFD) == 0); /* through exec */
	CHECK(is_null(3) && is_null(FD_ZONE_LAST) && !is_open(FD_LASTING));
	fd_zone_unplug();
	CHECK(is_null(0) && is_null(2) && !is_open(3));
	return 0;
}

static void plug_fills_closed_standard_numbers(void **state)
{
	(void)state;
	in_child(plug_standard_body);
}

static int plug_fails_body(void)
{
	struct rlimit limit = {FD_LASTING, FD_LASTING};

	close_all_above(2);
	CHECK(eventfd(0, 0) == 3);
	CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	/* The zone cannot be seen to be full: no number above it may be opened. */
	CHECK(fd_zone_plug() == -EMFILE);
	CHECK(is_open(3) && !is_null(3));
	for (int fd = 4; fd <= FD_ZONE_LAST; fd++)
		CHECK(!is_open(fd));
	return 0;
}

static void plug_that_fails_leaves_the_zone_as_it_was(void **state)
{
	(void)state;
	in_child(plug_fails_body);
}

static int same_body(void)
{
	int a = epoll_create1(0), b = epoll_create1(0), copy = dup(a);
	int event = eventfd(0, 0), null = open("/dev/null", O_RDONLY);
	int again = open("/dev/null", O_RDONLY);

	CHECK(fd_same_description(a, a) == 1);
	CHECK(fd_same_description(a, copy) == 1);
	CHECK(fd_same_description(copy, a) == 1);
	CHECK(fd_same_description(a, b) == 0);
	CHECK(fd_same_description(a, event) == 0);
	CHECK(fd_same_description(null, again) == 0); /* one file, two descriptions */
	CHECK(fd_same_description(-1, a) == -EBADF);
	close(copy);
	CHECK(fd_same_description(copy, a) == -EBADF);
	CHECK(fd_same_description(a, copy) <= 0);
	return 0;
}

static void same_description_tells_copies(void **state)
{
	(void)state;
	in_child(same_body);
}

/* A kernel before 6.10: fcntl says EINVAL to F_DUPFD_QUERY. */
static int same_old_kernel_body(void)
{
	const uint32_t query = 1024 + 3;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, query, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 6, .filter = code};

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
	CHECK(fcntl(0, (int)query, 0) == -1 && errno == EINVAL);
	return same_body();
}

static void same_description_works_before_6_10(void **state)
{
	(void)state;
	in_child(same_old_kernel_body);
}

static int compare_body(void)
{
	int a = epoll_create1(0), b = epoll_create1(0), copy = dup(a);
	int order = fd_compare_descriptions(a, b);

	CHECK(fd_compare_descriptions(a, a) == 0);
	CHECK(fd_compare_descriptions(a, copy) == 0);
	CHECK(order == 1 || order == -1);
	CHECK(fd_compare_descriptions(b, a) == -order);
	CHECK(fd_compare_descriptions(copy, b) == order);
	CHECK(fd_compare_descriptions(a, -1) == FD_CANNOT_COMPARE);
	return 0;
}

static void descriptions_have_an_order(void **state)
{
	(void)state;
	in_child(compare_body);
}

/* A kernel without kcmp(2), or a sandbox. */
static int compare_refused_body(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_kcmp, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = code};

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
	CHECK(fd_compare_descriptions(0, 0) == FD_CANNOT_COMPARE);
	return 0;
}

static void an_order_may_be_refused(void **state)
{
	(void)state;
	in_child(compare_refused_body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(move_up_moves_and_closes_the_old),
		cmocka_unit_test(move_up_of_nothing_is_ebadf),
		cmocka_unit_test(move_up_without_room_is_emfile),
		cmocka_unit_test(plug_fills_the_zone_and_unplug_empties_it),
		cmocka_unit_test(plug_fills_closed_standard_numbers),
		cmocka_unit_test(plug_that_fails_leaves_the_zone_as_it_was),
		cmocka_unit_test(same_description_tells_copies),
		cmocka_unit_test(same_description_works_before_6_10),
		cmocka_unit_test(descriptions_have_an_order),
		cmocka_unit_test(an_order_may_be_refused),
	};

	return cmocka_run_group_tests_name("fd", tests, NULL, NULL);
}
