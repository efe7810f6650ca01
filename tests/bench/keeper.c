/* SPDX-License-Identifier: MIT */

/*
 * What the keeper costs while nothing dies: a wake (a byte comes, the daemon tells, the client
 * asks for the next) and a registration (253 a message), by a daemon with a keeper and one without
 * it, in turns, all on one core. The order of the two changes from round to round.
 */

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bench.h"

enum { ROUNDS = 41, WAKES = 1000, WATCHES = 40 * 253 };

struct side {
	struct bench_daemon daemon;
	struct readyd *r;
	int fd;
	readyd_id id;
	double wake[ROUNDS], registration[ROUNDS]; /* ns each */
};

static void open_side(struct side *s, bool keeper)
{
	bench_daemon_start(&s->daemon, keeper);
	s->r = bench_connect(&s->daemon);
	s->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->fd < 0)
		bench_die("eventfd: %s", strerror(errno));
	bench_check(s->r, readyd_watch(s->r, s->fd, READYD_READ, READYD_WAIT, 0, &s->id), "watch");
	bench_check(s->r, readyd_wait(s->r, s->id, READYD_READ), "wait");
	bench_check(s->r, readyd_sync(s->r), "sync");
}

static void close_side(struct side *s)
{
	(void)readyd_close(s->r);
	(void)close(s->fd);
	bench_daemon_stop(&s->daemon);
}

static double wake(struct side *s)
{
	int64_t begin = bench_now();
	struct readyd_event e;
	uint64_t one = 1;

	for (unsigned i = 0; i < WAKES; i++) {
		if (write(s->fd, &one, sizeof(one)) != sizeof(one))
			bench_die("write: %s", strerror(errno));
		if (bench_check(s->r, readyd_poll(s->r, &e, 1, PATIENCE), "poll") != 1)
			bench_die("no event within a minute");
		if (read(s->fd, &one, sizeof(one)) != sizeof(one))
			bench_die("read: %s", strerror(errno));
		bench_check(s->r, readyd_wait(s->r, s->id, READYD_READ), "wait");
	}
	return (double)(bench_now() - begin) / WAKES;
}

/* A handle of its own, whose end takes the watches with it. */
static double registration(struct side *s, const int *fds)
{
	static struct readyd_watch_request requests[WATCHES];
	struct readyd *r = bench_connect(&s->daemon);
	int64_t begin;

	for (unsigned i = 0; i < WATCHES; i++)
		requests[i] = (struct readyd_watch_request){
			.fd = fds[i],
			.interest = READYD_READ,
			.mode = READYD_WAIT,
			.cookie = i,
		};
	begin = bench_now();
	if (bench_check(r, readyd_watch_many(r, requests, WATCHES), "watch many") != 0)
		bench_die("watches were refused");
	begin = bench_now() - begin;
	(void)readyd_close(r);
	bench_check(s->r, readyd_sync(s->r), "sync"); /* the end is over, too */
	return (double)begin / WATCHES;
}

static void compare(const char *name, double *with, double *without)
{
	double ratios[ROUNDS];

	for (unsigned i = 0; i < ROUNDS; i++)
		ratios[i] = with[i] / without[i];
	bench_say(name, bench_median(ratios, ROUNDS), "x", 1.1);
}

int main(void)
{
	static struct side with, without;
	static int fds[WATCHES];

	bench_raise_nofile();
	bench_one_core();
	for (unsigned i = 0; i < WATCHES; i++) {
		fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (fds[i] < 0)
			bench_die("eventfd: %s", strerror(errno));
	}
	open_side(&with, true);
	open_side(&without, false);
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct side *first = i % 2 ? &with : &without, *second = i % 2 ? &without : &with;

		first->wake[i] = wake(first);
		second->wake[i] = wake(second);
		first->registration[i] = registration(first, fds);
		second->registration[i] = registration(second, fds);
	}
	compare("a wake: with a keeper / without", with.wake, without.wake);
	bench_say("a wake, with a keeper", bench_median(with.wake, ROUNDS) / 1e3, "us", NAN);
	bench_say("a wake, without", bench_median(without.wake, ROUNDS) / 1e3, "us", NAN);
	compare("a registration: with a keeper / without", with.registration, without.registration);
	bench_say("a registration, with a keeper", bench_median(with.registration, ROUNDS) / 1e3,
		  "us", NAN);
	bench_say("a registration, without", bench_median(without.registration, ROUNDS) / 1e3, "us",
		  NAN);
	close_side(&with);
	close_side(&without);
	return 0;
}
