/* SPDX-License-Identifier: MIT */
#ifndef CLIENT_FIXTURE_H
#define CLIENT_FIXTURE_H

/* A handle connected to a scripted daemon, and what the tests of libreadyd say often. A test fails
 * if it ends with more or fewer open fds than it began with. */

#include "fake_daemon.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/eventfd.h>

#include "client-lib/readyd.h"

#define MS INT64_C(1000000)

struct fixture {
	struct fake *fake;
	struct readyd *r;
	int fd; /* something to watch */
	unsigned fds;
};

static inline unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static inline int setup_flags(void **state, uint32_t flags, int64_t shift)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct readyd_options o = {.size = sizeof(o), .flags = flags};
	char *error = NULL;

	x->fds = count_fds();
	x->fake = fake_new();
	x->fake->clock_shift = shift;
	x->fd = eventfd(0, EFD_CLOEXEC);
	fake_start(x->fake);
	o.socket = x->fake->path;
	if (readyd_connect(&o, &x->r, &error))
		fail_msg("%s", error);
	*state = x;
	return 0;
}

static inline int setup(void **state)
{
	return setup_flags(state, 0, 0);
}

static inline int setup_shifted(void **state)
{
	return setup_flags(state, 0, 1000 * (int64_t)FAKE_NS);
}

/* The end of the connection is the end. */
static inline int setup_final(void **state)
{
	return setup_flags(state, READYD_NO_RESUME, 0);
}

static inline int setup_eintr(void **state)
{
	return setup_flags(state, READYD_EINTR, 0);
}

static inline int teardown(void **state)
{
	struct fixture *x = *state;
	unsigned before = x->fds;

	readyd_close(x->r);
	fake_free(x->fake);
	close(x->fd);
	free(x);
	return count_fds() == before ? 0 : -1;
}

static inline readyd_id watch(struct fixture *x, unsigned mode, uint64_t cookie)
{
	readyd_id id = 0;

	assert_int_equal(readyd_watch(x->r, x->fd, READYD_READ | READYD_WRITE, mode, cookie, &id),
			 0);
	assert_true(id != 0);
	return id;
}

static inline void expect_nothing(struct fixture *x)
{
	struct readyd_event e;

	assert_int_equal(readyd_poll(x->r, &e, 1, 0), 0);
}

static inline struct readyd_event expect_one(struct fixture *x)
{
	struct readyd_event e[4];

	assert_int_equal(readyd_poll(x->r, e, 4, 10 * (int64_t)FAKE_NS), 1);
	return e[0];
}

static inline void expect_watch(struct fixture *x, readyd_id id, unsigned read, unsigned write)
{
	struct readyd_event e = expect_one(x);

	assert_int_equal(e.kind, READYD_EVENT_WATCH);
	assert_int_equal(e.id, id);
	assert_int_equal(e.read, read);
	assert_int_equal(e.write, write);
}

#endif
