/* SPDX-License-Identifier: MIT */

/*
 * Programs that use libreadyd as any program would, while somebody else kills the daemon. None of
 * them may see an error.
 *
 *   resume many SOCKET N         N watches with a wait on each. Says "ready", awaits a line, writes to
 *                                every peer, and wants an event for every watch (S-111)
 *   resume soak SOCKET MODE      passes counters through pairs until its stdin ends; MODE is wait,
 *                                stream, or threads, each of which is in readyd_pollwait(); every
 *                                byte must come, in order (S-113). Says "ready" when it has begun
 *   resume times SOCKET          deadlines and timers for 3 s: none early, none lost, the periodic one in
 *                                phase (S-114). Says "ready" when they are set
 *   resume private               starts a private daemon, kills it, and goes on with the next one
 *   resume away SOCKET           says "ready", awaits a line, when the daemon is gone; polls with and
 *                                without a limit until it is back (S-120)
 *
 * Each prints a line of figures at its end. Exit status 1, with a sentence, if anything is wrong.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client-lib/readyd.h"

#define MS INT64_C(1000000)
#define PATIENCE (60000 * MS)

enum {
	PAIRS = 16,
	THREADS = 6,
	BATCH = 64,
	BURST = 7,
	DEADLINES = 20,
	TICK_MS = 50,
	TIMES_MS = 3000
};

struct pair {
	int a, b; /* a is watched */
	readyd_id id;
	uint64_t sent, got;
	bool ready;
};

static struct readyd *r;

static int64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 * MS + ts.tv_nsec;
}

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vfprintf(stderr, format, arguments);
	va_end(arguments);
	(void)fputc('\n', stderr);
	exit(1);
}

/* A negative result is the end. */
static int check(int result, const char *what)
{
	if (result < 0)
		die("%s: %s", what, readyd_last_error(r));
	return result;
}

static void say(const char *line)
{
	(void)puts(line);
	(void)fflush(stdout);
}

static void await_line(void)
{
	char line[64];

	if (!fgets(line, sizeof(line), stdin))
		die("no line came");
}

static void pair_open(struct pair *p, unsigned mode, uint64_t cookie)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
		die("socketpair: %s", strerror(errno));
	*p = (struct pair){.a = ends[0], .b = ends[1]};
	check(readyd_watch(r, p->a, READYD_READ, mode, cookie, &p->id), "watch");
}

/* Events until one comes; none within the limit is the end. */
static int take(struct readyd_event *e, int max, const char *what)
{
	int n = check(readyd_poll(r, e, max, PATIENCE), what);

	if (n == 0)
		die("%s: no event within a minute", what);
	return n;
}

/* ---- S-111 ---- */

static void drain(int fd)
{
	char buffer[64];

	while (read(fd, buffer, sizeof(buffer)) > 0)
		;
}

static void many(unsigned n)
{
	struct pair *pairs = calloc(n, sizeof(*pairs));
	struct readyd_event e[BATCH];
	unsigned spurious = 0, done = 0;

	for (unsigned i = 0; i < n; i++) {
		pair_open(&pairs[i], READYD_WAIT, i);
		check(readyd_wait(r, pairs[i].id, READYD_READ), "wait");
	}
	check(readyd_sync(r), "sync");
	say("ready");
	await_line();
	for (unsigned i = 0; i < n; i++)
		if (write(pairs[i].b, "x", 1) != 1)
			die("write: %s", strerror(errno));
	while (done < n) {
		int k = take(e, BATCH, "many");

		for (int i = 0; i < k; i++) {
			struct pair *p = &pairs[e[i].cookie];
			char byte;

			if (e[i].read != READYD_READY || e[i].id != p->id)
				die("watch %u: an event %#x", (unsigned)e[i].cookie, e[i].read);
			if (read(p->a, &byte, 1) == 1) {
				p->ready = true;
				done++;
				drain(p->a);
			} else {
				spurious++;
				check(readyd_wait(r, p->id, READYD_READ), "wait again");
			}
		}
	}
	printf("%u ready, %u spurious, %" PRIu64 " resumes\n", done, spurious, readyd_resumes(r));
	for (unsigned i = 0; i < n; i++)
		check(readyd_unwatch(r, pairs[i].id, pairs[i].a), "unwatch");
	free(pairs);
}

/* ---- S-113 ---- */

/* The next few numbers, by which the one who reads sees any that is missing, or doubled. */
static void feed(struct pair *p, int to)
{
	for (unsigned i = 0; i < BURST; i++) {
		uint64_t number = p->sent;

		if (write(to, &number, sizeof(number)) != (ssize_t)sizeof(number))
			die("write: %s", strerror(errno));
		p->sent++;
	}
}

/* true: something was there. */
static bool eat(struct pair *p)
{
	uint64_t number, before = p->got;

	while (read(p->a, &number, sizeof(number)) == (ssize_t)sizeof(number)) {
		if (number != p->got)
			die("%" PRIu64 " came where %" PRIu64 " should", number, p->got);
		p->got++;
	}
	return p->got != before;
}

static bool stdin_is_open(void)
{
	struct pollfd p = {.fd = 0, .events = POLLIN};

	return poll(&p, 1, 0) == 0;
}

/* Now and then a watch is ended and made anew, or reset, or the daemon asked something. */
static void vary(struct pair *p, unsigned mode, uint64_t cookie, uint64_t turn)
{
	if (turn % 97 == 0) {
		check(readyd_unwatch(r, p->id, p->a), "unwatch");
		check(readyd_watch(r, p->a, READYD_READ, mode, cookie, &p->id), "watch");
	} else if (turn % 31 == 0) {
		check(readyd_reset(r, p->id, READYD_READ), "reset");
	} else if (turn % 53 == 0) {
		check(readyd_sync(r), "sync");
	}
}

static void soak(unsigned mode)
{
	struct readyd_event e[BATCH];
	struct pair pairs[PAIRS];
	uint64_t turns = 0, spurious = 0, total = 0;

	for (unsigned i = 0; i < PAIRS; i++) {
		pair_open(&pairs[i], mode, i);
		feed(&pairs[i], pairs[i].b);
		if (mode == READYD_WAIT)
			check(readyd_wait(r, pairs[i].id, READYD_READ), "wait");
	}
	say("ready");
	while (stdin_is_open()) {
		int k = take(e, BATCH, "soak");

		for (int i = 0; i < k; i++) {
			struct pair *p = &pairs[e[i].cookie];

			if (e[i].id != p->id)
				continue; /* of the watch before, taken in the same batch */
			if (e[i].read != READYD_READY)
				die("an event %#x", e[i].read);
			vary(p, mode, e[i].cookie, ++turns);
			if (!eat(p))
				spurious++;
			if (p->got == p->sent)
				feed(p, p->b);
			if (mode == READYD_WAIT)
				check(readyd_wait(r, p->id, READYD_READ), "wait");
		}
	}
	for (unsigned i = 0; i < PAIRS; i++)
		total += pairs[i].got;
	printf("%" PRIu64 " numbers, %" PRIu64 " spurious, %" PRIu64 " resumes\n", total, spurious,
	       readyd_resumes(r));
}

static atomic_bool over, echo_over;

static void *soak_alone(void *context)
{
	struct pair *p = context;
	uint64_t turns = 0;

	while (!atomic_load(&over)) {
		feed(p, p->a); /* and it comes back */
		while (p->got < p->sent) {
			vary(p, READYD_WAIT, 0, ++turns);
			if (!eat(p))
				check(readyd_pollwait(r, p->id, READYD_READ), "pollwait");
		}
	}
	return NULL;
}

/* The byte comes by the other end a moment after the wait has begun. */
static void *echo_late(void *context)
{
	struct pair *pairs = context;
	struct readyd_event e;

	while (!atomic_load(&echo_over)) {
		check(readyd_poll(r, &e, 1, MS), "poll");
		for (unsigned i = 0; i < THREADS; i++) {
			char buffer[BURST * sizeof(uint64_t)];
			ssize_t n = read(pairs[i].b, buffer, sizeof(buffer));

			if (n > 0 && write(pairs[i].b, buffer, (size_t)n) != n)
				die("write: %s", strerror(errno));
		}
	}
	return NULL;
}

static void soak_threads(void)
{
	struct pair pairs[THREADS];
	pthread_t threads[THREADS + 1];
	uint64_t total = 0;

	for (unsigned i = 0; i < THREADS; i++)
		pair_open(&pairs[i], READYD_WAIT, i);
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, soak_alone, &pairs[i]))
			die("no thread");
	if (pthread_create(&threads[THREADS], NULL, echo_late, pairs))
		die("no thread");
	say("ready");
	while (fgetc(stdin) != EOF)
		;
	atomic_store(&over, true);
	for (unsigned i = 0; i < THREADS; i++) {
		(void)pthread_join(threads[i], NULL);
		total += pairs[i].got;
	}
	atomic_store(&echo_over, true);
	(void)pthread_join(threads[THREADS], NULL);
	printf("%" PRIu64 " numbers, 0 spurious, %" PRIu64 " resumes\n", total, readyd_resumes(r));
}

/* ---- S-114 ---- */

static void times(void)
{
	int64_t start = now(), deadline[DEADLINES], late, latest = 0, period = TICK_MS * MS;
	int64_t end = start + TIMES_MS * MS;
	struct pair pairs[DEADLINES];
	struct readyd_event e[BATCH];
	unsigned timeouts = 0, shots = 0;
	readyd_id timer;
	uint64_t ticks = 0;

	for (unsigned i = 0; i < DEADLINES; i++) {
		pair_open(&pairs[i], READYD_WAIT, i);
		deadline[i] = start + (int64_t)(i + 1) * TIMES_MS * MS / (DEADLINES + 1);
		check(readyd_set_deadline(r, pairs[i].id, READYD_READ, deadline[i]), "deadline");
		check(readyd_wait(r, pairs[i].id, READYD_READ), "wait");
		timer = 0;
		check(readyd_timer_set(r, &timer, deadline[i], 0, 1000 + i), "timer");
	}
	timer = 0;
	check(readyd_timer_set(r, &timer, start + period, period, 5000), "timer");
	say("ready");
	while (now() < end || timeouts < DEADLINES || shots < DEADLINES) {
		int n = take(e, BATCH, "times");
		int64_t seen = now();

		for (int i = 0; i < n; i++) {
			uint64_t c = e[i].cookie;

			if (c == 5000) {
				ticks += e[i].count;
				late = seen - start - (int64_t)ticks * period;
				if (late >= period + period / 2 + 1000 * MS)
					die("tick %" PRIu64 " is %" PRId64 " ms late", ticks,
					    late / MS);
			} else if (c >= 1000) {
				late = seen - deadline[c - 1000];
				shots++;
			} else {
				late = seen - deadline[c];
				if (e[i].read != READYD_TIMEOUT)
					die("an event %#x instead of a timeout", e[i].read);
				timeouts++;
			}
			if (late < 0)
				die("event of %" PRIu64 " %" PRId64 " us early", c, -late / 1000);
			if (c != 5000 && late > latest)
				latest = late;
		}
	}
	if (timeouts != DEADLINES || shots != DEADLINES)
		die("%u timeouts and %u shots of %d", timeouts, shots, DEADLINES);
	if ((int64_t)ticks * period + 2 * period + 1000 * MS < now() - start)
		die("only %" PRIu64 " ticks", ticks);
	printf("%u timeouts, %u shots, %" PRIu64 " ticks, latest %" PRId64 " ms, %" PRIu64
	       " resumes\n",
	       timeouts, shots, ticks, latest / MS, readyd_resumes(r));
}

/* ---- S-120 ---- */

static void *pollwait(void *context)
{
	struct pair *p = context;

	check(readyd_pollwait(r, p->id, READYD_READ), "pollwait");
	return NULL;
}

static void away(void)
{
	struct pair polled, waited;
	struct readyd_event e;
	pthread_t thread;
	int64_t start;

	pair_open(&polled, READYD_WAIT, 1);
	pair_open(&waited, READYD_WAIT, 2);
	check(readyd_wait(r, polled.id, READYD_READ), "wait");
	if (pthread_create(&thread, NULL, pollwait, &waited))
		die("no thread");
	say("ready");
	await_line();
	for (unsigned i = 0; i < 3; i++) {
		start = now();
		if (check(readyd_poll(r, &e, 1, 200 * MS), "poll") != 0)
			die("an event from nowhere");
		if (now() - start < 200 * MS || now() - start > 1200 * MS)
			die("a limit of 200 ms took %" PRId64 " ms", (now() - start) / MS);
		if (readyd_state(r) != READYD_STATE_RESUMING)
			die("state %d while the daemon is away", readyd_state(r));
	}
	say("resuming");
	if (write(polled.b, "x", 1) != 1 || write(waited.b, "x", 1) != 1)
		die("write: %s", strerror(errno));
	if (check(readyd_poll(r, &e, 1, -1), "poll") != 1 || e.cookie != 1 ||
	    e.read != READYD_READY)
		die("not the event that was waited for");
	(void)pthread_join(thread, NULL);
	check(readyd_sync(r), "sync");
	if (readyd_state(r) != READYD_STATE_CONNECTED || readyd_resumes(r) == 0)
		die("state %d after it came back", readyd_state(r));
	printf("back, %" PRIu64 " resumes\n", readyd_resumes(r));
}

/* ---- A private daemon ---- */

/* The daemon as a whole: the keeper of the loop that serves, which is its parent. */
static pid_t keeper_pid(void)
{
	char path[64], comm[64];
	int parent = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%u/stat", readyd_daemon_pid(r));
	f = fopen(path, "re");
	if (!f || fscanf(f, "%*d (%63[^)]) %*c %d", comm, &parent) != 2 || parent <= 1)
		die("no keeper of process %u", readyd_daemon_pid(r));
	(void)fclose(f);
	return parent;
}

/* Kills the daemon and comes back when its loop is gone: until then it might go on to serve. */
static void kill_daemon(void)
{
	struct pollfd end = {.fd = pidfd_open((pid_t)readyd_daemon_pid(r), 0), .events = POLLIN};

	if (end.fd < 0)
		die("no pidfd of process %u: %s", readyd_daemon_pid(r), strerror(errno));
	if (kill(keeper_pid(), SIGKILL) < 0)
		die("kill: %s", strerror(errno));
	if (poll(&end, 1, (int)(PATIENCE / MS)) != 1)
		die("the loop outlives its keeper");
	(void)close(end.fd);
}

static void private_daemon(void)
{
	char *first = strdup(readyd_socket(r));
	struct readyd_event e;
	struct pair p;

	pair_open(&p, READYD_WAIT, 1);
	check(readyd_wait(r, p.id, READYD_READ), "wait");
	check(readyd_sync(r), "sync");
	for (unsigned i = 0; i < 3; i++) {
		kill_daemon();
		if (write(p.b, "x", 1) != 1)
			die("write: %s", strerror(errno));
		if (take(&e, 1, "private") != 1 || e.read != READYD_READY)
			die("not the event that was waited for");
		drain(p.a);
		check(readyd_wait(r, p.id, READYD_READ), "wait");
		check(readyd_sync(r), "sync");
	}
	if (!getenv("READYD_SOCKET") || strcmp(getenv("READYD_SOCKET"), readyd_socket(r)) != 0)
		die("READYD_SOCKET is not the new address");
	printf("%s, %" PRIu64 " resumes\n",
	       strcmp(first, readyd_socket(r)) ? "another" : "the same", readyd_resumes(r));
	free(first);
	(void)kill(keeper_pid(), SIGTERM);
}

int main(int argc, char **argv)
{
	struct readyd_options o = {.size = sizeof(o)};
	struct rlimit limit;
	char *error = NULL;

	if (argc == 2 && strcmp(argv[1], "private") == 0)
		o.flags = READYD_PRIVATE_ALWAYS;
	else if (argc < 3)
		die("usage: resume many|soak|times|away SOCKET [N|MODE]");
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	o.socket = o.flags ? NULL : argv[2];
	if (readyd_connect(&o, &r, &error) < 0)
		die("%s", error ? error : "no memory");
	if (o.flags)
		private_daemon();
	else if (strcmp(argv[1], "many") == 0 && argc > 3)
		many((unsigned)atoi(argv[3]));
	else if (strcmp(argv[1], "soak") == 0 && argc > 3 && strcmp(argv[3], "threads") == 0)
		soak_threads();
	else if (strcmp(argv[1], "soak") == 0 && argc > 3)
		soak(strcmp(argv[3], "stream") == 0 ? READYD_STREAM : READYD_WAIT);
	else if (strcmp(argv[1], "times") == 0)
		times();
	else if (strcmp(argv[1], "away") == 0)
		away();
	else
		die("usage: resume many|soak|times|away SOCKET [N|MODE]");
	(void)fflush(stdout);
	readyd_close(r);
	return 0;
}
