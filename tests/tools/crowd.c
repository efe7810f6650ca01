/* SPDX-License-Identifier: MIT */

/*
 * A thousand programs in one: many handles with a few watches each, that come back at once when the
 * daemon dies, and a thread that works meanwhile.
 *
 *   crowd SOCKET HANDLES WATCHES
 *
 * Says "ready". For each line on its stdin, the loop having been killed: waits
 * until all handles are back, writes to every watch, wants one event for each, and says
 * "N back, N events, N wakes, longest N ms", where the wakes are the working thread's since the line
 * before and the longest is its longest one. Ends with its stdin.
 * Exit status 1, with a sentence, if anything is wrong.
 */

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "client-lib/readyd.h"

#define MS INT64_C(1000000)
#define PATIENCE (60000 * MS)

struct handle {
	struct readyd *r;
	uint64_t resumes;
};

struct watch {
	int fd;
	readyd_id id;
	bool due; /* written to, and its event has not come */
};

struct crowd {
	struct handle *handles;
	struct watch *watches; /* `each` of the first handle, then those of the second, ... */
	unsigned n, each;
	int epoll;
	struct readyd *worker;
	atomic_ullong wakes;
	atomic_llong longest;
	atomic_bool over;
};

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vfprintf(stderr, format, arguments);
	va_end(arguments);
	(void)fputc('\n', stderr);
	exit(1);
}

static int check(struct readyd *r, int result, const char *what)
{
	if (result < 0)
		die("%s: %s", what, readyd_last_error(r));
	return result;
}

static int64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 * MS + ts.tv_nsec;
}

static struct readyd *open_handle(const char *socket)
{
	struct readyd_options o = {.size = sizeof(o), .socket = socket};
	struct readyd *r = NULL;
	char *error = NULL;

	if (readyd_connect(&o, &r, &error) < 0)
		die("%s", error ? error : "no memory");
	return r;
}

static void open_watch(struct readyd *r, struct watch *w, uint64_t cookie)
{
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->fd < 0)
		die("eventfd: %s", strerror(errno));
	check(r, readyd_watch(r, w->fd, READYD_READ, READYD_WAIT, cookie, &w->id), "watch");
	check(r, readyd_wait(r, w->id, READYD_READ), "wait");
}

static void write_one(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		die("write: %s", strerror(errno));
}

/* ---- The one that works ---- */

static void *work(void *context)
{
	struct crowd *c = context;
	struct watch w = {0};
	struct readyd_event e;
	uint64_t count;

	open_watch(c->worker, &w, 0);
	while (!atomic_load(&c->over)) {
		int64_t begin = now(), took;

		write_one(w.fd);
		do {
			if (check(c->worker, readyd_poll(c->worker, &e, 1, PATIENCE), "poll") != 1)
				die("the one that works has had no event for a minute");
			check(c->worker, readyd_wait(c->worker, w.id, READYD_READ), "wait");
		} while (read(w.fd, &count, sizeof(count)) != sizeof(count));
		took = now() - begin;
		if (took > atomic_load(&c->longest))
			atomic_store(&c->longest, took);
		atomic_fetch_add(&c->wakes, 1);
	}
	return NULL;
}

/* ---- The crowd ---- */

/* Takes what has come for one handle. Returns how many watches had their event. */
static unsigned take(struct crowd *c, struct handle *h)
{
	struct readyd_event e[16];
	unsigned done = 0;
	uint64_t count;
	int n = check(h->r, readyd_poll(h->r, e, 16, 0), "poll");

	for (int i = 0; i < n; i++) {
		struct watch *w = &c->watches[e[i].cookie];

		if (e[i].id != w->id || e[i].read != READYD_READY)
			die("watch %u: an event %#x", (unsigned)e[i].cookie, e[i].read);
		if (read(w->fd, &count, sizeof(count)) == sizeof(count)) {
			if (!w->due)
				die("watch %u: ready once too often", (unsigned)e[i].cookie);
			w->due = false;
			done++;
		}
		check(h->r, readyd_wait(h->r, w->id, READYD_READ), "wait");
	}
	return done;
}

/* Lets all handles do what they have to, once. Returns how many watches had their event. */
static unsigned turn(struct crowd *c, int64_t end)
{
	struct epoll_event e[64];
	unsigned done = 0;
	int n = epoll_wait(c->epoll, e, 64, 100);

	if (now() > end)
		die("a minute has passed, and not all are back");
	for (int i = 0; i < n; i++)
		done += take(c, &c->handles[e[i].data.u32]);
	return done;
}

static void come_back(struct crowd *c)
{
	int64_t end = now() + PATIENCE;
	unsigned events = 0, back = 0;

	while (back < c->n) {
		(void)turn(c, end);
		back = 0;
		for (unsigned i = 0; i < c->n; i++)
			back += readyd_resumes(c->handles[i].r) > c->handles[i].resumes;
	}
	for (unsigned i = 0; i < c->n; i++)
		c->handles[i].resumes = readyd_resumes(c->handles[i].r);
	for (unsigned i = 0; i < c->n * c->each; i++) {
		c->watches[i].due = true;
		write_one(c->watches[i].fd);
	}
	while (events < c->n * c->each)
		events += turn(c, end);
	printf("%u back, %u events, %llu wakes, longest %lld ms\n", back, events,
	       atomic_exchange(&c->wakes, 0), atomic_exchange(&c->longest, 0) / MS);
}

static void raise_nofile(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	struct crowd c = {0};
	pthread_t thread;
	char line[64];

	if (argc != 4)
		die("usage: crowd SOCKET HANDLES WATCHES");
	raise_nofile();
	c.n = (unsigned)atoi(argv[2]);
	c.each = (unsigned)atoi(argv[3]);
	c.handles = calloc(c.n, sizeof(*c.handles));
	c.watches = calloc((size_t)c.n * c.each, sizeof(*c.watches));
	c.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!c.handles || !c.watches || c.epoll < 0)
		die("no room for %u handles", c.n);
	for (unsigned i = 0; i < c.n; i++) {
		struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};

		c.handles[i].r = open_handle(argv[1]);
		for (unsigned k = 0; k < c.each; k++)
			open_watch(c.handles[i].r, &c.watches[i * c.each + k], i * c.each + k);
		if (epoll_ctl(c.epoll, EPOLL_CTL_ADD, readyd_fd(c.handles[i].r), &e) < 0)
			die("epoll_ctl: %s", strerror(errno));
	}
	c.worker = open_handle(argv[1]);
	if (pthread_create(&thread, NULL, work, &c))
		die("no thread");
	(void)puts("ready");
	(void)fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		come_back(&c);
		(void)fflush(stdout);
	}
	atomic_store(&c.over, true);
	(void)pthread_join(thread, NULL);
	for (unsigned i = 0; i < c.n; i++)
		(void)readyd_close(c.handles[i].r);
	(void)readyd_close(c.worker);
	free(c.handles);
	free(c.watches);
	return 0;
}
