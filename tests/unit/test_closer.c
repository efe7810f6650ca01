/* SPDX-License-Identifier: MIT */

/* Closing elsewhere: what lingers, and only that, and what happens when there is no child for it. */

#include "daemon/keeper/closer.h"

#include <sys/mman.h>

#include "holder_fixture.h"

enum { ROUNDS = 50 };

struct fixture {
	struct closer closer;
	struct log log;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)alarm(240);
	log_init(&f->log, memfd_create("log", MFD_CLOEXEC), CONFIG_LOG_DEBUG);
	f->closer = (struct closer){.uid = 1000, .log = &f->log};
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)alarm(0);
	(void)close(f->log.fd);
	free(f);
	return 0;
}

static bool has_logged(const struct fixture *f, const char *text)
{
	char buffer[4096];
	ssize_t n = pread(f->log.fd, buffer, sizeof(buffer) - 1, 0);

	assert_true(n >= 0);
	buffer[n] = '\0';
	return strstr(buffer, text) != NULL;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* A connection, nothing of which is unsent, that lingers for so long; ret[1] is its peer. */
static void quiet_pair(int seconds, int ret[2])
{
	struct linger linger = {.l_onoff = 1, .l_linger = seconds};

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret), 0);
	assert_int_equal(setsockopt(ret[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
}

static void what_does_not_linger_is_closed_at_once(void **state)
{
	struct fixture *f = *state;
	int pipes[2], pair[2];

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	quiet_pair(0, pair); /* a reset */
	closer_close(&f->closer, pipes[1]);
	closer_close(&f->closer, pair[0]);
	assert_false(is_open(pipes[1]));
	assert_false(is_open(pair[0]));
	assert_int_equal(f->closer.n_fds, 0);
	closer_flush(&f->closer);
	assert_int_equal(f->closer.n_children, 0);
	(void)close(pipes[0]);
	(void)close(pair[1]);
}

/* The child has a copy of nothing else by then: a pipe's last end is closed here, at once. */
static void only_what_lingers_is_the_childs(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < ROUNDS; i++) {
		int pipes[2], pairs[3][2];

		assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
		for (unsigned j = 0; j < 3; j++) {
			quiet_pair(LINGER_S, pairs[j]);
			closer_close(&f->closer, pairs[j][0]);
			assert_true(is_open(pairs[j][0]));
		}
		closer_flush(&f->closer);
		(void)close(pipes[1]);
		assert_true(is_hung_up(pipes[0]));
		(void)close(pipes[0]);
		for (unsigned j = 0; j < 3; j++) {
			assert_false(is_open(pairs[j][0]));
			wait_for_hangup(pairs[j][1]);
			(void)close(pairs[j][1]);
		}
	}
	while (f->closer.n_children > 0)
		closer_reap(&f->closer);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	assert_false(has_logged(f, "by itself"));
}

/* More than go to one child. */
static void many_are_closed_in_turn(void **state)
{
	struct fixture *f = *state;
	int pairs[2 * CLOSER_FDS_MAX][2];

	raise_fds();
	for (unsigned i = 0; i < 2 * CLOSER_FDS_MAX; i++)
		quiet_pair(LINGER_S, pairs[i]);
	for (unsigned i = 0; i < 2 * CLOSER_FDS_MAX; i++)
		closer_close(&f->closer, pairs[i][0]);
	closer_flush(&f->closer);
	for (unsigned i = 0; i < 2 * CLOSER_FDS_MAX; i++) {
		assert_false(is_open(pairs[i][0]));
		wait_for_hangup(pairs[i][1]);
		(void)close(pairs[i][1]);
	}
	while (f->closer.n_children > 0)
		closer_reap(&f->closer);
	assert_false(has_logged(f, "by itself"));
}

static void no_more_than_a_number_of_children(void **state)
{
	struct fixture *f = *state;
	int pair[2];

	f->closer.n_children = CLOSER_CHILDREN_MAX; /* that do not end */
	quiet_pair(LINGER_S, pair);
	closer_close(&f->closer, pair[0]);
	closer_flush(&f->closer);
	assert_false(is_open(pair[0]));
	assert_true(is_hung_up(pair[1]));
	assert_int_equal(f->closer.n_children, CLOSER_CHILDREN_MAX);
	assert_true(has_logged(f, "uid 1000 closes sockets that linger by itself"));
	(void)close(pair[1]);
}

static void without_a_child_it_closes_by_itself(void **state)
{
	struct fixture *f = *state;
	struct rlimit before, none;
	int pair[2];

	quiet_pair(LINGER_S, pair);
	closer_close(&f->closer, pair[0]);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 3; /* which are open */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	closer_flush(&f->closer);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_false(is_open(pair[0]));
	assert_true(has_logged(f, strerror(EMFILE)));
	(void)close(pair[1]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(what_does_not_linger_is_closed_at_once),
		TEST(only_what_lingers_is_the_childs),
		TEST(many_are_closed_in_turn),
		TEST(no_more_than_a_number_of_children),
		TEST(without_a_child_it_closes_by_itself),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
