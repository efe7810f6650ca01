/* SPDX-License-Identifier: MIT */

/*
 * S-072 to S-076, S-104: batches, a client that does not read, a flood beside a lone edge, and an
 * idle daemon that does nothing at all. What is said of stream watches is done with waits on a
 * backend that has none.
 */

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY WIRE_CODE_READY

static unsigned reporting_mode(const struct env *e)
{
	return e->stream ? WIRE_MODE_STREAM : WIRE_MODE_WAIT;
}

/* n eventfds whose next edge will be reported without a further request. */
static struct watch *report_many(struct conn *c, int **ret_fds, size_t n)
{
	struct watch *w = calloc(n, sizeof(*w));

	CHECK(w);
	*ret_fds = event_many(n);
	watch_many(c, *ret_fds, n, WIRE_READ, reporting_mode(c->env), w);
	if (!c->env->stream)
		wait_many(c, w, n, WIRE_READ);
	sync_with(c);
	return w;
}

enum { MANY = 5000 };

static void many_at_once(const struct env *e)
{
	struct conn *c = conn_dial(e);
	int *fds = event_many(MANY);
	struct watch *w = calloc(MANY, sizeof(*w));

	CHECK(w);
	watch_many(c, fds, MANY, WIRE_READ, WIRE_MODE_WAIT, w);
	wait_many(c, w, MANY, WIRE_READ);
	sync_with(c);
	for (int i = 0; i < MANY; i++)
		event_add(fds[i]);
	collect_once(c, w, MANY, READY);
	expect_nothing(c);

	/* ready before they are waited for */
	if (e->edge)
		for (int i = 0; i < MANY; i++)
			event_add(fds[i]);
	sync_with(c);
	wait_many(c, w, MANY, WIRE_READ);
	collect_once(c, w, MANY, READY);
	expect_nothing(c);
	CHECK(c->most_records > 1);
	CHECK(c->most_records <= c->welcome.records_max);
	free(w);
	free(fds);
	conn_close(c);
}

enum { QUIET = 1000, EDGES = 100 };

static void silent_reader_costs_nothing(const struct env *e)
{
	struct conn *observer = conn_dial(e), *c = conn_dial(e);
	struct watch *w;
	long before, after;
	int *fds;

	w = report_many(c, &fds, QUIET);
	before = memory_kib(e->pid);
	for (int k = 0; k < EDGES; k++)
		for (int i = 0; i < QUIET; i++)
			event_add(fds[i]);
	sync_with(observer);
	after = memory_kib(e->pid);
	if (before >= 0 && after - before >= 1024)
		FAIL("the daemon grew by %ld KiB", after - before);
	if (e->stream) {
		bool *seen = calloc(QUIET, sizeof(*seen));
		struct received r;
		size_t n = 0;

		CHECK(seen);
		while (n < QUIET && take(c, WIRE_RECORD_ENTRY, 0, now_ns() + soon_ms(e) * MS, &r)) {
			uint32_t i = r.entry.id - w[0].id;

			CHECK(i < QUIET);
			n += !seen[i];
			seen[i] = true;
		}
		CHECK_EQ(n, QUIET);
		free(seen);
	} else {
		collect_once(c, w, QUIET, READY);
	}
	sync_with(c);
	free(w);
	free(fds);
	conn_close(c);
	conn_close(observer);
}

enum { FLOOD = 10000 };

static void full_in_the_middle(const struct env *e)
{
	struct conn *observer = conn_dial(e), *c = conn_dial(e);
	struct watch *w = calloc(FLOOD, sizeof(*w));
	int *fds = event_many(FLOOD);

	CHECK(w);
	watch_many(c, fds, FLOOD, WIRE_READ, WIRE_MODE_WAIT, w);
	wait_many(c, w, FLOOD, WIRE_READ);
	sync_with(c);
	for (int i = 0; i < FLOOD; i++)
		event_add(fds[i]);
	EVENTUALLY(e, session_blocked(observer, c));
	collect_once(c, w, FLOOD, READY);
	expect_nothing(c);
	CHECK(!session_blocked(observer, c));
	free(w);
	free(fds);
	conn_close(c);
	conn_close(observer);
}

struct flooder {
	const int *fds;
	_Atomic bool stop;
};

static void *flood_run(void *argument)
{
	struct flooder *f = argument;

	while (!f->stop)
		for (int i = 0; i < FLOOD && !f->stop; i++)
			event_add(f->fds[i]);
	return NULL;
}

static void flood_beside_lone_edge(const struct env *e)
{
	struct conn *x = conn_dial(e), *y = conn_dial(e);
	struct pair p = pair_drained(y);
	struct flooder flooder = {0};
	pthread_t thread;
	struct watch *w;
	int *fds;

	w = report_many(x, &fds, FLOOD);
	flooder.fds = fds;
	CHECK_EQ(pthread_create(&thread, NULL, flood_run, &flooder), 0);
	for (int i = 0; i < 20; i++) {
		bool in_time = false;

		GROWING(g, 100 * MS, 1600 * MS)
		{
			struct received r;
			int64_t start;

			expect_ok(ask_wait(y, &p.w, WIRE_READ));
			start = now_ns();
			put_bytes(p.b, 1);
			expect_entry(y, &p.w, READY, 0);
			in_time = now_ns() - start <= g.limit;
			drain(p.a);
			expect_ok(ask_reset(y, &p.w, WIRE_READ));
			/* the flooded one is a client that reads, slowly */
			while (take(x, WIRE_RECORD_ENTRY, 0, 0, &r))
				;
			if (in_time)
				break;
		}
		CHECK(in_time);
	}
	flooder.stop = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	free(w);
	free(fds);
	conn_close(x);
	conn_close(y);
}

/* All edges are there before the first entry is read, and none comes after. */
static void bounded_take_leaves_the_rest(const struct env *e)
{
	struct conn *x = conn_dial(e), *y = conn_dial(e);
	struct pair p = pair_drained(y);
	struct watch *w = calloc(FLOOD, sizeof(*w));
	int *fds = event_many(FLOOD);

	CHECK(w);
	watch_many(x, fds, FLOOD, WIRE_READ, WIRE_MODE_WAIT, w);
	wait_many(x, w, FLOOD, WIRE_READ);
	expect_ok(ask_wait(y, &p.w, WIRE_READ));
	sync_with(x);
	for (int i = 0; i < FLOOD; i++)
		event_add(fds[i]);
	put_bytes(p.b, 1);
	expect_entry(y, &p.w, READY, 0);
	collect_once(x, w, FLOOD, READY);
	expect_nothing(x);
	expect_nothing(y);
	free(w);
	free(fds);
	conn_close(x);
	conn_close(y);
}

/* ---- S-076 ---- */

/* Nanoseconds on a processor, of the process's main thread. */
static long long run_time(pid_t pid)
{
	long long ns = -1;
	char path[64];
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)pid);
	f = fopen(path, "re");
	CHECK(f);
	CHECK_EQ(fscanf(f, "%lld", &ns), 1);
	(void)fclose(f);
	return ns;
}

static long long file_size(const char *path)
{
	struct stat st;

	return stat(path, &st) ? -1 : (long long)st.st_size;
}

/* Runs strace for 5 s and counts what it wrote after it had settled; then a SYNC shows that it does
 * see the daemon. -1: it cannot attach here. */
static long long traced_bytes(struct conn *c)
{
	char file[] = "/tmp/readyd-strace.XXXXXX", pid[16];
	const struct env *e = c->env;
	long long settled, after;
	int fd = SYS(mkostemp(file, O_CLOEXEC)), status;
	pid_t child;

	(void)snprintf(pid, sizeof(pid), "%d", (int)e->pid);
	child = SYS(fork());
	if (child == 0) {
		int null = open("/dev/null", O_RDWR);

		(void)dup2(null, 2);
		execlp("strace", "strace", "-f", "-q", "-p", pid, "-o", file, (char *)NULL);
		_exit(127);
	}
	close(fd);
	nap_us(1000000); /* it attaches, which interrupts the one call that the daemon sleeps in */
	if (waitpid(child, &status, WNOHANG) == child) {
		(void)unlink(file);
		return -1;
	}
	settled = file_size(file);
	nap_us(5000000);
	after = file_size(file);
	sync_with(c);
	EVENTUALLY(e, file_size(file) > after);
	kill(child, SIGINT);
	(void)waitpid(child, &status, 0);
	(void)unlink(file);
	return after - settled;
}

static void idle_does_nothing(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct watch *w;
	long long before, bytes;
	int *fds;

	w = report_many(c, &fds, 1000);
	for (int i = 0; i < 1000; i++)
		event_add(fds[i]);
	for (int i = 0; i < 1000; i++) {
		struct received r;

		CHECK(take(c, WIRE_RECORD_ENTRY, w[i].id, now_ns() + soon_ms(e) * MS, &r));
	}
	expect_nothing(c);
	nap_us(200000);
	before = run_time(e->pid);
	nap_us(5000000);
	CHECK_EQ(run_time(e->pid), before);
	bytes = traced_bytes(c);
	if (bytes < 0)
		fprintf(stderr, "note: strace cannot attach here; that the daemon had no processor "
				"time in 5 s was shown by its schedstat\n");
	else
		CHECK_EQ(bytes, 0);
	sync_with(c);
	free(w);
	free(fds);
	conn_close(c);
}

/* ---- S-104 ---- */

static void pipelined_serials(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	uint32_t serials[1000];

	for (int i = 0; i < 1000; i++) {
		switch (i % 4) {
		case 0:
			serials[i] = put(c, WIRE_SYNC, WIRE_FLAG_ANSWER, NULL, 0);
			break;
		case 1:
			serials[i] = put_slots(c, WIRE_RESET, WIRE_FLAG_ANSWER, &p.w, WIRE_READ);
			break;
		case 2:
			serials[i] = put_deadline(c, WIRE_FLAG_ANSWER, &p.w, WIRE_READ,
						  now_ns() + HOUR, 0, 0);
			break;
		default: /* refused: answers of both kinds keep the order */
			serials[i] = put_slots(c, WIRE_UNWAIT, WIRE_FLAG_ANSWER, &p.w, WIRE_READ);
			break;
		}
		if (i % 7 == 0)
			flush(c);
	}
	flush(c);
	for (int i = 0; i < 1000; i++)
		expect_error(answered(c, serials[i]), i % 4 == 3 ? WIRE_E_NOT_FOUND : WIRE_OK);
	expect_nothing(c);
	conn_close(c);
}

static const struct item items[] = {
	{"S-072", "5,000 watches ready at once", many_at_once, NULL, 120},
	{"S-073", "a client that does not read costs no memory", silent_reader_costs_nothing, NULL,
	 120},
	{"S-074", "the socket is full in the middle", full_in_the_middle, NULL, 120},
	{"S-075", "a lone edge beside a flood", flood_beside_lone_edge, NULL, 120},
	{"S-075", "a bounded take leaves the rest for later", bounded_take_leaves_the_rest, NULL,
	 120},
	{"S-076", "an idle daemon makes no system call", idle_does_nothing, NULL, 120},
	{"S-104", "1,000 pipelined requests", pipelined_serials, NULL, 0},
};

const struct item_list items_load = ITEMS(items);
