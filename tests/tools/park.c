/* SPDX-License-Identifier: MIT */

/*
 * Connections that are parked and taken by many, while somebody else kills the daemon's processes.
 *
 *   park soak SOCKET PAIRS WORKERS   says "ready" when it has begun, and goes on until its stdin ends
 *   park many SOCKET N               parks N connections; says "parked", awaits a line, writes to every
 *                                    other end, wants an event for each, takes all, by number
 *
 * soak: the master has one end of each pair; the other is always parked, or in the hands of one worker.
 * The master writes the next number; whoever hears of the ready park (its last parker) takes it, or
 * tells somebody else to, or both; the taker reads the number, compares it with the note, writes it
 * back, and parks the connection again, under the same name, with the next number as its note. Each
 * worker is a process with one handle, in which two threads take.
 *
 * No call may fail, but a take of what another was quicker to take. The master sees each number
 * that is lost (none comes back within a minute), doubled or out of order. In the end it takes and closes
 * all of them, and sees the end of each: no copy is left anywhere.
 *
 * Prints a line of figures at its end. Exit status 1, with a sentence, if anything is wrong.
 */

#include "pairs.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { BATCH = 16, LOOK_MS = 50, WORKERS_MAX = 64 };

/* What the processes share. */
struct shared {
	_Atomic bool over;
	_Atomic uint64_t takes, late, resumes;
};

static struct shared *shared;
static int tasks[2]; /* numbers of parks that anybody may take */

static void connection_name(char name[16], uint64_t i)
{
	(void)snprintf(name, 16, "c%u", (unsigned)i);
}

/* The note is the number that comes next. */
static void park(int fd, uint64_t i, uint64_t next)
{
	char name[16];
	struct readyd_park_options o = {
		.size = sizeof(o),
		.name = name,
		.note = &next,
		.note_length = sizeof(next),
		.cookie = i,
	};

	connection_name(name, i);
	check(readyd_park(r, fd, &o, NULL, NULL), "park");
	(void)close(fd);
}

/* ---- Workers ---- */

/* Reads the number, which is there, and writes it back. */
static void serve(struct readyd_taken *t)
{
	uint64_t number, next;
	ssize_t n;

	if (t->note_length != sizeof(next))
		die("%s: a note of %u bytes", t->name, t->note_length);
	memcpy(&next, t->note, sizeof(next));
	n = read(t->fd, &number, sizeof(number));
	if (n != (ssize_t)sizeof(number))
		die("%s: read %zd: %s", t->name, n, n < 0 ? strerror(errno) : "too few");
	if (number != next)
		die("%s: %" PRIu64 " came where %" PRIu64 " should", t->name, number, next);
	if (write(t->fd, &number, sizeof(number)) != (ssize_t)sizeof(number))
		die("%s: write: %s", t->name, strerror(errno));
	park(t->fd, t->cookie, next + 1);
	t->fd = -1;
}

static void take(uint64_t number)
{
	struct readyd_park_key key = {.size = sizeof(key), .by = READYD_BY_ID, .park = number};
	struct readyd_taken t = {.size = sizeof(t)};
	int error = readyd_take(r, &key, &t);

	if (error == -ENOENT) {
		atomic_fetch_add(&shared->late, 1);
		return;
	}
	check(error, "take");
	if (t.park != number)
		die("park %" PRIu64 " instead of %" PRIu64, t.park, number);
	serve(&t);
	readyd_taken_clear(&t);
	atomic_fetch_add(&shared->takes, 1);
}

static void task_put(uint64_t number)
{
	if (write(tasks[1], &number, sizeof(number)) != (ssize_t)sizeof(number))
		die("tasks: %s", strerror(errno));
}

static void tasks_take(void)
{
	uint64_t number;

	if (read(tasks[0], &number, sizeof(number)) == (ssize_t)sizeof(number))
		take(number);
}

/* Takes it, leaves it to others, or lets the quicker one have it. */
static void hear(const struct readyd_event *e, unsigned *chance)
{
	if (e->kind != READYD_EVENT_PARK || e->read != READYD_READY)
		die("an event of kind %u, %#x", e->kind, e->read);
	*chance = *chance * 1103515245 + 12345;
	switch (*chance >> 16 & 3) {
	case 0:
		take(e->id);
		break;
	case 1:
		task_put(e->id);
		take(e->id);
		break;
	default:
		task_put(e->id);
	}
}

static void *help(void *context)
{
	struct pollfd p = {.fd = tasks[0], .events = POLLIN};

	(void)context;
	while (!atomic_load(&shared->over))
		if (poll(&p, 1, LOOK_MS) > 0)
			tasks_take();
	return NULL;
}

static void __attribute__((noreturn)) work(unsigned chance)
{
	struct readyd_event e[BATCH];
	pthread_t helper;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	connect_handle();
	if (pthread_create(&helper, NULL, help, NULL))
		die("no thread");
	while (!atomic_load(&shared->over)) {
		struct pollfd p[2] = {{.fd = readyd_fd(r), .events = POLLIN},
				      {.fd = tasks[0], .events = POLLIN}};
		int n;

		if (poll(p, 2, LOOK_MS) > 0 && p[1].revents)
			tasks_take();
		n = check(readyd_poll(r, e, BATCH, 0), "poll");
		for (int i = 0; i < n; i++)
			hear(&e[i], &chance);
	}
	(void)pthread_join(helper, NULL);
	atomic_fetch_add(&shared->resumes, readyd_resumes(r));
	readyd_close(r);
	_exit(0);
}

/* ---- The master ---- */

/* The master's own parks, which it tells others of. */
static void pass_on(void)
{
	struct readyd_event e[BATCH];
	int n = check(readyd_poll(r, e, BATCH, 0), "poll");

	for (int i = 0; i < n; i++)
		task_put(e[i].id);
}

static void play(struct pair *pairs, unsigned n)
{
	struct pollfd *polls = calloc(n + 2, sizeof(*polls));
	unsigned waiting = n;
	bool open = true;

	for (unsigned i = 0; i < n; i++) {
		polls[i] = (struct pollfd){.fd = pairs[i].fd, .events = POLLIN};
		send_next(&pairs[i]);
	}
	polls[n] = (struct pollfd){.fd = readyd_fd(r), .events = POLLIN};
	polls[n + 1] = (struct pollfd){.fd = 0, .events = POLLIN};
	while (waiting) {
		char byte;

		(void)poll(polls, n + 1 + open, LOOK_MS);
		if (open && polls[n + 1].revents && read(0, &byte, 1) <= 0)
			open = false;
		pass_on();
		waiting = 0;
		for (unsigned i = 0; i < n; i++) {
			if (look(pairs, &pairs[i]) && open)
				send_next(&pairs[i]);
			waiting += pairs[i].back != pairs[i].sent;
		}
	}
	free(polls);
}

/* Takes it from the daemon; the other end must see the end then. */
static void finish(const struct pair *p, unsigned i)
{
	char name[16];
	struct readyd_park_key key = {.size = sizeof(key), .name = name};
	struct readyd_taken t = {.size = sizeof(t)};

	connection_name(name, i);
	check(readyd_take(r, &key, &t), "take at the end");
	if (t.cookie != i || memcmp(t.note, &p->sent, sizeof(p->sent)) != 0)
		die("connection %u: cookie %" PRIu64 ", or not the last note", i, t.cookie);
	readyd_taken_clear(&t);
	await_end(p->fd, i);
}

static void workers_end(const pid_t *pids, unsigned n)
{
	int status;

	atomic_store(&shared->over, true);
	for (unsigned i = 0; i < n; i++)
		if (waitpid(pids[i], &status, 0) != pids[i] || status != 0)
			die("worker %u ended with status %#x", i, status);
}

static void soak(unsigned n, unsigned n_workers)
{
	struct pair *pairs = calloc(n, sizeof(*pairs));
	pid_t pids[WORKERS_MAX];
	uint64_t total = 0;

	if (pipe2(tasks, O_NONBLOCK | O_CLOEXEC) < 0)
		die("pipe: %s", strerror(errno));
	for (unsigned i = 0; i < n_workers; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			die("fork: %s", strerror(errno));
		if (pids[i] == 0)
			work(i + 1);
	}
	connect_handle();
	for (unsigned i = 0; i < n; i++) {
		int ends[2];

		pair_open(ends);
		pairs[i] = (struct pair){.fd = ends[0]};
		park(ends[1], i, 0);
	}
	say("ready");
	play(pairs, n);
	workers_end(pids, n_workers);
	for (unsigned i = 0; i < n; i++) {
		total += pairs[i].back;
		finish(&pairs[i], i);
	}
	printf("%" PRIu64 " numbers, %" PRIu64 " takes, %" PRIu64 " late, %" PRIu64 " resumes\n",
	       total, shared->takes, shared->late, shared->resumes + readyd_resumes(r));
	free(pairs);
	if (total != shared->takes)
		die("as many takes as numbers are wanted");
}

/* ---- Many ---- */

static void many(unsigned n)
{
	int *others = calloc(n, sizeof(*others));
	bool *seen = calloc(n, sizeof(*seen));
	struct readyd_event e[BATCH];
	unsigned done = 0;
	char line[64];

	for (unsigned i = 0; i < n; i++) {
		int ends[2];

		pair_open(ends);
		others[i] = ends[0];
		park(ends[1], i, i);
	}
	say("parked");
	if (!fgets(line, sizeof(line), stdin))
		die("no line came");
	for (unsigned i = 0; i < n; i++)
		if (write(others[i], "x", 1) != 1)
			die("write: %s", strerror(errno));
	while (done < n) {
		int k = check(readyd_poll(r, e, BATCH, PATIENCE), "poll");

		if (k == 0)
			die("%u of %u events came", done, n);
		for (int i = 0; i < k; i++) {
			struct readyd_park_key key = {
				.size = sizeof(key), .by = READYD_BY_ID, .park = e[i].id};
			struct readyd_taken t = {.size = sizeof(t)};
			char byte = 0;

			if (e[i].cookie >= n || seen[e[i].cookie])
				die("an event of %" PRIu64 " that nobody expects", e[i].cookie);
			seen[e[i].cookie] = true;
			check(readyd_take(r, &key, &t), "take");
			if (read(t.fd, &byte, 1) != 1 || byte != 'x')
				die("park %" PRIu64 " has not what was written", t.park);
			readyd_taken_clear(&t);
			await_end(others[e[i].cookie], (unsigned)e[i].cookie);
			done++;
		}
	}
	printf("%u taken, %" PRIu64 " resumes\n", done, readyd_resumes(r));
	free(others);
	free(seen);
}

int main(int argc, char **argv)
{
	static const char usage[] = "usage: park soak SOCKET PAIRS WORKERS | park many SOCKET N";
	struct rlimit limit;
	int a = argc > 3 ? atoi(argv[3]) : 0, b = argc > 4 ? atoi(argv[4]) : 0;

	if (a < 1)
		die("%s", usage);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	address = argv[2];
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	if (strcmp(argv[1], "soak") == 0 && b >= 1 && b <= WORKERS_MAX) {
		soak((unsigned)a, (unsigned)b);
	} else if (strcmp(argv[1], "many") == 0) {
		connect_handle();
		many((unsigned)a);
	} else {
		die("%s", usage);
	}
	(void)fflush(stdout);
	readyd_close(r);
	return 0;
}
