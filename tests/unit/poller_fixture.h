/* SPDX-License-Identifier: MIT */
#ifndef READYD_POLLER_FIXTURE_H
#define READYD_POLLER_FIXTURE_H

/*
 * What the contract test of the pollers stands on: one set of helpers that mean the same thing on
 * every backend. A watch is one end of a socket pair with epoll and poll(2), and a registration
 * without an fd with the fake, where the test says what the kernel would have said.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "daemon/poller/fake.h"
#include "daemon/poller/fd.h"
#include "daemon/poller/poller.h"

/* Which backends a test is run on. */
enum {
	ON_EPOLL = 0x1,
	ON_POLL = 0x2,
	ON_FAKE_EDGE = 0x4,
	ON_FAKE_LEVEL = 0x8,
	ON_REAL = ON_EPOLL | ON_POLL,
	ON_FAKE = ON_FAKE_EDGE | ON_FAKE_LEVEL,
	ON_ALL = ON_REAL | ON_FAKE,
};

enum { MAX_EVENTS = 2048, BOTH = POLLER_READ | POLLER_WRITE };

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)

struct fixture {
	unsigned on; /* one of ON_... */
	bool edge;
	struct poller *p;
	struct poller_set *set;
	unsigned n_fds; /* open before */
	struct poller_event events[MAX_EVENTS];
};

struct watch {
	struct fixture *t;
	struct poller_set *set;
	int near, far; /* real backends only, else -1 */
	uint64_t tag;
	uint32_t word;
};

static inline int64_t now_ns(void)
{
	struct timespec now;

	assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &now), 0);
	return now.tv_sec * SECOND + now.tv_nsec;
}

static inline unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static inline int fixture_setup(void **state)
{
	const unsigned *on = *state;
	struct fixture *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	t->on = *on;
	t->n_fds = count_fds();
	if (t->on == ON_EPOLL)
		assert_int_equal(poller_new(poller_backend_by_name("epoll"), &t->p), 0);
	else if (t->on == ON_POLL)
		assert_int_equal(poller_new(poller_backend_by_name("poll"), &t->p), 0);
	else
		assert_int_equal(
			fake_new(t->on == ON_FAKE_EDGE ? POLLER_EDGE | POLLER_WEAK : 0, &t->p), 0);
	t->edge = poller_caps(t->p) & POLLER_EDGE;
	assert_int_equal(poller_set_new(t->p, t, &t->set), 0);
	*state = t;
	return 0;
}

/* Every test leaves as many fds as it found. */
static inline int fixture_teardown(void **state)
{
	struct fixture *t = *state;

	poller_free(t->p);
	assert_int_equal(count_fds(), t->n_fds);
	free(t);
	return 0;
}

static inline struct poller_set *set_make(struct fixture *t)
{
	struct poller_set *set;

	assert_int_equal(poller_set_new(t->p, t, &set), 0);
	return set;
}

static inline void set_end(struct fixture *t, struct poller_set *set)
{
	int fd = poller_set_end(t->p, set);

	assert_int_equal(fd >= 0, t->on == ON_EPOLL);
	if (fd >= 0)
		assert_int_equal(close(fd), 0);
}

static inline void watch_register(struct watch *w, unsigned interest)
{
	assert_int_equal(poller_open(w->t->p, w->set, w->near, w->tag, interest, &w->word), 0);
}

static inline struct watch watch_make(struct fixture *t, struct poller_set *set, uint64_t tag)
{
	struct watch w = {.t = t, .set = set, .near = -1, .far = -1, .tag = tag};
	int ends[2];

	if (t->on & ON_REAL) {
		assert_int_equal(
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends),
			0);
		w.near = ends[0];
		w.far = ends[1];
	}
	return w;
}

static inline struct watch watch_open(struct fixture *t, struct poller_set *set, uint64_t tag,
				      unsigned interest)
{
	struct watch w = watch_make(t, set, tag);

	watch_register(&w, interest);
	return w;
}

/* Closes the fds, whatever the registration. */
static inline void watch_shut(struct watch *w)
{
	if (w->near >= 0)
		assert_int_equal(close(w->near), 0);
	if (w->far >= 0)
		assert_int_equal(close(w->far), 0);
	w->near = w->far = -1;
}

static inline void watch_write(const struct watch *w)
{
	if (w->t->on & ON_REAL)
		assert_int_equal(write(w->far, "x", 1), 1);
	else
		assert_int_equal(fake_edge(w->t->p, w->tag, EVENT_IN), 0);
}

static inline void watch_drain(const struct watch *w)
{
	char bytes[4096];

	if (w->t->on & ON_REAL)
		while (read(w->near, bytes, sizeof(bytes)) > 0)
			;
	else
		fake_calm(w->t->p, w->tag);
}

static inline void watch_arm(const struct watch *w, unsigned mask)
{
	assert_int_equal(poller_arm(w->t->p, w->set, w->tag, w->word, mask), 0);
}

static inline int watch_close(const struct watch *w)
{
	return poller_close(w->t->p, w->set, (w->t->on & ON_EPOLL) ? w->near : 0, w->tag, w->word);
}

/* What an own descriptor shows now; the real ones know it by themselves. */
static inline void own_level(const struct fixture *t, int fd, uint32_t events)
{
	if (t->on & ON_FAKE)
		fake_own(t->p, fd, events);
}

/* poll(0) into t->events. */
static inline int ask(struct fixture *t, unsigned max)
{
	return poller_poll(t->p, 0, t->events, max);
}

static inline void expect_nothing(struct fixture *t)
{
	assert_int_equal(ask(t, MAX_EVENTS), 0);
}

/* Exactly one event is there, and it is this. */
static inline void expect_one(struct fixture *t, uint64_t tag, uint32_t mask, bool watch)
{
	assert_int_equal(ask(t, MAX_EVENTS), 1);
	assert_int_equal(t->events[0].tag, tag);
	assert_int_equal(t->events[0].mask, mask);
	assert_int_equal(t->events[0].watch, watch);
}

#endif
