/* SPDX-License-Identifier: MIT */
#ifndef READYD_BENCH_H
#define READYD_BENCH_H

/*
 * What the benchmark programs share: a daemon of their own, times, medians, and the lines in which
 * they say what they measured (run.sh makes the table of them). Whatever goes wrong ends the
 * program with a sentence; daemons and children end with it. Times are ns of CLOCK_MONOTONIC.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client-lib/readyd.h"

#define MS INT64_C(1000000)
#define PATIENCE (60000 * MS)

struct bench_daemon {
	pid_t pid;
	char folder[64];
	char socket[128];
};

/* $READYD on a socket in a folder of its own, with limits that the benchmarks do not meet. */
void bench_daemon_start(struct bench_daemon *d, bool keeper);

/* Ends it, waits, and removes the folder. */
void bench_daemon_stop(struct bench_daemon *d);

/* A forked child that is killed when its parent ends. 0 in the child. */
pid_t bench_fork(void);

/* Waits for a child that ends by itself; anything but status 0 is the end. */
void bench_join(pid_t child);

/* A connected handle that has no more than this to do with a daemon. */
struct readyd *bench_connect(const struct bench_daemon *d);

/* A negative result is the end. */
int bench_check(struct readyd *r, int result, const char *what);

void bench_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

int64_t bench_now(void);

/* The number `n` of `of` when they are sorted, which this does: bench_rank(v, n, 50, 100) is the
 * median. */
double bench_rank(double *values, unsigned n, unsigned rank, unsigned of);
double bench_median(double *values, unsigned n);

/* Memory that forked children share. All zero. */
void *bench_shared(size_t size);

/* Waits until the number is at least that. Sleeps in between: the one that is measured runs. */
void bench_await(const atomic_llong *number, long long value, const char *what);

/* All descriptors that the hard limit allows. */
void bench_raise_nofile(void);

/* This process, and what it forks from now on, on one core: no wakes of idle cores in between. */
void bench_one_core(void);

/*
 * One line of the table: a name, a figure, its unit. With an aim (not NAN), the figure shall be at
 * most that. A name has no tab.
 */
void bench_say(const char *name, double value, const char *unit, double aim);

#endif
