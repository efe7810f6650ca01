/* SPDX-License-Identifier: MIT */

/*
 * A thousand clients come back at once, with 10 or 60 watches each, while ten others work: how long
 * the wakes of these take (a byte comes, the daemon tells) from when they are back themselves until
 * all are, beside what they take when nothing dies; and how long it takes until all are back.
 */

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

enum {
	PROCESSES = 4,
	HANDLES = 250, /* of one process */
	WORKERS = 10,
	ROUNDS = 9,
	SAMPLES = 1 << 17,
	CALM_MS = 100,
	TICK_NS = 100000 /* a worker's wake every ms */
};

struct sample {
	int64_t begin;
	int32_t ns;
	bool is_first; /* the handle came back meanwhile */
};

struct shared {
	atomic_llong ready; /* processes with all they need */
	atomic_llong back;  /* handles that have come back, of all rounds */
	atomic_llong back_at;
	atomic_llong loop;
	atomic_llong stop;
	atomic_llong n; /* samples of the workers, since the start */
	struct sample samples[SAMPLES];
};

static void watch_one(struct readyd *r, int fd, uint64_t cookie, readyd_id *ret)
{
	bench_check(r, readyd_watch(r, fd, READYD_READ, READYD_WAIT, cookie, ret), "watch");
	bench_check(r, readyd_wait(r, *ret, READYD_READ), "wait");
}

static int new_eventfd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		bench_die("eventfd: %s", strerror(errno));
	return fd;
}

/* ---- Those who have nothing to do but come back ---- */

static void open_handle(const struct bench_daemon *d, int epoll, struct readyd **ret, unsigned i,
			unsigned each)
{
	struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
	readyd_id id;

	*ret = bench_connect(d);
	for (unsigned n = 0; n < each; n++)
		watch_one(*ret, new_eventfd(), n, &id);
	bench_check(*ret, readyd_sync(*ret), "sync");
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, readyd_fd(*ret), &e) < 0)
		bench_die("epoll_ctl: %s", strerror(errno));
}

static _Noreturn void be_crowd(const struct bench_daemon *d, struct shared *s, unsigned each)
{
	static struct readyd *handles[HANDLES];
	static uint64_t resumes[HANDLES];
	struct epoll_event e[64];
	struct readyd_event event;
	int epoll;

	bench_raise_nofile();
	epoll = epoll_create1(EPOLL_CLOEXEC);
	for (unsigned i = 0; i < HANDLES; i++)
		open_handle(d, epoll, &handles[i], i, each);
	atomic_fetch_add(&s->ready, 1);
	while (!atomic_load(&s->stop)) {
		int n = epoll_wait(epoll, e, 64, 100);

		for (int i = 0; i < n; i++) {
			struct readyd *r = handles[e[i].data.u32];
			uint64_t *before = &resumes[e[i].data.u32];

			bench_check(r, readyd_poll(r, &event, 1, 0), "poll");
			if (readyd_resumes(r) == *before)
				continue;
			atomic_fetch_add(&s->back, (long long)(readyd_resumes(r) - *before));
			atomic_store(&s->back_at, bench_now());
			*before = readyd_resumes(r);
		}
	}
	_exit(0);
}

/* ---- Those who work ---- */

struct worker {
	struct readyd *r;
	int fd;
	readyd_id id;
	int64_t begin; /* of the wake under way; 0: none */
	uint64_t resumes;
};

static void wake_begin(struct worker *w)
{
	uint64_t one = 1;

	if (w->begin)
		return;
	w->resumes = readyd_resumes(w->r);
	w->begin = bench_now();
	if (write(w->fd, &one, sizeof(one)) != sizeof(one))
		bench_die("write: %s", strerror(errno));
}

static void wake_end(struct shared *s, struct worker *w)
{
	struct sample *sample = &s->samples[atomic_load(&s->n) % SAMPLES];
	struct readyd_event e;
	uint64_t count;

	if (bench_check(w->r, readyd_poll(w->r, &e, 1, 0), "poll") != 1)
		return;
	bench_check(w->r, readyd_wait(w->r, w->id, READYD_READ), "wait");
	if (read(w->fd, &count, sizeof(count)) != sizeof(count))
		return; /* told twice */
	*sample = (struct sample){
		.begin = w->begin,
		.ns = (int32_t)(bench_now() - w->begin),
		.is_first = readyd_resumes(w->r) != w->resumes,
	};
	w->begin = 0;
	atomic_fetch_add(&s->n, 1);
}

static void open_worker(const struct bench_daemon *d, int epoll, struct worker *w, unsigned i)
{
	struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};

	w->r = bench_connect(d);
	w->fd = new_eventfd();
	watch_one(w->r, w->fd, i, &w->id);
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, readyd_fd(w->r), &e) < 0)
		bench_die("epoll_ctl: %s", strerror(errno));
}

/* A tick of the timer is a wake of one of them; none waits for another. */
static _Noreturn void be_workers(const struct bench_daemon *d, struct shared *s)
{
	struct itimerspec tick = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};
	int epoll = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, 0);
	struct epoll_event e[WORKERS + 1] = {{.events = EPOLLIN, .data.u32 = WORKERS}};
	struct worker workers[WORKERS] = {0};
	uint64_t ticks, next = 0;

	for (unsigned i = 0; i < WORKERS; i++)
		open_worker(d, epoll, &workers[i], i);
	if (timerfd_settime(timer, 0, &tick, NULL) < 0 ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &e[0]) < 0)
		bench_die("timerfd: %s", strerror(errno));
	atomic_fetch_add(&s->ready, 1);
	while (!atomic_load(&s->stop)) {
		int n = epoll_wait(epoll, e, WORKERS + 1, 100);

		for (int i = 0; i < n; i++)
			if (e[i].data.u32 < WORKERS)
				wake_end(s, &workers[e[i].data.u32]);
			else if (read(timer, &ticks, sizeof(ticks)) == sizeof(ticks))
				wake_begin(&workers[next++ % WORKERS]);
		atomic_store(&s->loop, readyd_daemon_pid(workers[0].r));
	}
	_exit(0);
}

/* ---- Rounds ---- */

struct figures {
	double storm[SAMPLES], calm[SAMPLES], gap[ROUNDS * WORKERS], back[ROUNDS];
	unsigned n_storm, n_calm, n_gap;
};

/* Samples that begin in [from, to). */
static void collect(struct shared *s, long long first, int64_t from, int64_t to, bool calm,
		    struct figures *f)
{
	long long n = atomic_load(&s->n);

	if (n - first > SAMPLES)
		bench_die("more wakes than there is room for");
	for (long long i = first; i < n; i++) {
		const struct sample *sample = &s->samples[i % SAMPLES];

		if (sample->begin < from || sample->begin >= to)
			continue;
		if (sample->is_first && f->n_gap < ROUNDS * WORKERS)
			f->gap[f->n_gap++] = sample->ns / 1e6;
		else if (calm && f->n_calm < SAMPLES)
			f->calm[f->n_calm++] = sample->ns / 1e3;
		else if (!calm && f->n_storm < SAMPLES)
			f->storm[f->n_storm++] = sample->ns / 1e3;
	}
}

static void measure(struct shared *s, struct figures *f, unsigned round)
{
	struct timespec calm = {.tv_nsec = CALM_MS * MS};
	long long first = atomic_load(&s->n);
	int64_t begin = bench_now(), killed;

	(void)nanosleep(&calm, NULL);
	collect(s, first, begin, bench_now() - 5 * MS, true, f);
	first = atomic_load(&s->n);
	killed = bench_now();
	if (kill((pid_t)atomic_load(&s->loop), SIGKILL) < 0)
		bench_die("kill: %s", strerror(errno));
	bench_await(&s->back, (long long)(round + 1) * PROCESSES * HANDLES, "handles back");
	f->back[round] = (double)(atomic_load(&s->back_at) - killed) / 1e6;
	collect(s, first, killed - MS, atomic_load(&s->back_at), false, f);
	bench_await(&s->n, atomic_load(&s->n) + 2 * WORKERS, "wakes afterwards");
}

static void say(unsigned each, const char *what, double value, const char *unit)
{
	char name[128];

	(void)snprintf(name, sizeof(name), "%u watches each: %s", each, what);
	bench_say(name, value, unit, NAN);
}

static void say_all(unsigned each, struct figures *f)
{
	say(each, "kill until 1000 clients are back", bench_median(f->back, ROUNDS), "ms");
	say(each, "kill until one that works has its event, median",
	    bench_rank(f->gap, f->n_gap, 50, 100), "ms");
	say(each, "kill until one that works has its event, longest",
	    bench_rank(f->gap, f->n_gap, 100, 100), "ms");
	say(each, "a wake meanwhile, p50", bench_rank(f->storm, f->n_storm, 50, 100), "us");
	say(each, "a wake meanwhile, p99", bench_rank(f->storm, f->n_storm, 99, 100), "us");
	say(each, "a wake before, p50", bench_rank(f->calm, f->n_calm, 50, 100), "us");
	say(each, "a wake before, p99", bench_rank(f->calm, f->n_calm, 99, 100), "us");
}

static void run(unsigned each)
{
	struct figures *f = calloc(1, sizeof(*f));
	struct shared *s = bench_shared(sizeof(*s));
	pid_t pids[PROCESSES + 1];
	struct bench_daemon d;

	if (!f)
		bench_die("no memory");
	bench_daemon_start(&d, true);
	for (unsigned i = 0; i <= PROCESSES; i++) {
		pids[i] = bench_fork();
		if (pids[i] == 0 && i < PROCESSES)
			be_crowd(&d, s, each);
		if (pids[i] == 0)
			be_workers(&d, s);
	}
	bench_await(&s->ready, PROCESSES + 1, "processes");
	bench_await(&s->n, 100, "wakes");
	for (unsigned round = 0; round < ROUNDS; round++)
		measure(s, f, round);
	atomic_store(&s->stop, 1);
	for (unsigned i = 0; i <= PROCESSES; i++)
		bench_join(pids[i]);
	bench_daemon_stop(&d);
	say_all(each, f);
	free(f);
}

int main(void)
{
	run(10);
	run(60);
	return 0;
}
