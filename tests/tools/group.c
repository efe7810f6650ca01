/* SPDX-License-Identifier: MIT */

/*
 * Connections that the workers of a group pass round, while the daemon's processes are killed, and
 * workers too.
 *
 *   group SOCKET PAIRS WORKERS   says "ready" when it has begun, and goes on until its stdin ends
 *
 * The master has one end of each pair; the other is parked, on its way to a worker, or at one. The
 * master writes the next number; the worker that is handed the connection reads it, compares it with
 * the note, writes it back, and parks the connection again with the next number as its note.
 *
 * Every second worker has two threads that wait in readyd_receive(). The others live in a foreign
 * event loop, with room for four; now and then one of these kills itself, when it has served one and
 * others are on their way to it, and the master starts another. None of these may be lost.
 *
 * No call may fail. The master sees each number that is lost, doubled or out of order. In the end it
 * takes and closes all connections, and sees the end of each: no copy is left anywhere.
 *
 * Prints a line of figures at its end. Exit status 1, with a sentence, if anything is wrong.
 */

#include "pairs.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { BATCH = 16, LOOK_MS = 20, WORKERS_MAX = 64, ROOM = 4, THREADS = 2, LIVES = 256 };

static const char group[] = "soak";

/* What the processes share. */
struct shared {
	_Atomic bool over;
	_Atomic uint64_t served, resumes;
};

static struct shared *shared;

static void park(int fd, uint64_t i, uint64_t next)
{
	struct readyd_park_options o = {
		.size = sizeof(o),
		.group = group,
		.note = &next,
		.note_length = sizeof(next),
		.cookie = i,
	};
	char name[24];

	(void)snprintf(name, sizeof(name), "c%u", (unsigned)i);
	o.name = name;
	check(readyd_park(r, fd, &o, NULL, NULL), "park");
	(void)close(fd);
}

/* ---- Workers ---- */

/* Reads the number, which is there, and writes it back. */
static void serve(struct readyd_taken *t)
{
	uint64_t number, next;
	ssize_t n;

	if (t->note_length != sizeof(next) || t->read != READYD_READY)
		die("%s: a note of %u bytes, ready %#x", t->name, t->note_length, t->read);
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
	readyd_taken_clear(t);
	atomic_fetch_add(&shared->served, 1);
	check(readyd_done(r, group), "done");
}

static void *receive(void *context)
{
	struct readyd_taken t = {.size = sizeof(t)};

	(void)context;
	while (!atomic_load(&shared->over))
		if (check(readyd_receive(r, &t, LOOK_MS * MS), "receive") == 1)
			serve(&t);
	return NULL;
}

static void work_by_threads(void)
{
	pthread_t threads[THREADS];

	check(readyd_attach(r, group, THREADS), "attach");
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, receive, NULL))
			die("no thread");
	for (unsigned i = 0; i < THREADS; i++)
		(void)pthread_join(threads[i], NULL);
}

static void work_by_events(unsigned chance)
{
	struct readyd_taken t = {.size = sizeof(t)};
	struct readyd_event e[BATCH];

	check(readyd_attach(r, group, ROOM), "attach");
	while (!atomic_load(&shared->over)) {
		struct pollfd p = {.fd = readyd_fd(r), .events = POLLIN};

		(void)poll(&p, 1, LOOK_MS);
		(void)check(readyd_poll(r, e, BATCH, 0), "poll");
		while (check(readyd_receive(r, &t, 0), "receive") == 1) {
			serve(&t);
			chance = chance * 1103515245 + 12345;
			if ((chance >> 16) % LIVES == 0)
				(void)raise(SIGKILL);
		}
	}
}

static pid_t worker_start(unsigned i, unsigned chance)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid > 0)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	connect_handle();
	if (i % 2)
		work_by_events(chance);
	else
		work_by_threads();
	check(readyd_detach(r, group), "detach");
	atomic_fetch_add(&shared->resumes, readyd_resumes(r));
	readyd_close(r);
	_exit(0);
}

/* ---- The master ---- */

/* Starts others for those that have killed themselves. How many. */
static unsigned workers_look(pid_t *pids, unsigned n, unsigned deaths)
{
	unsigned found = 0;
	int status;

	for (unsigned i = 0; i < n; i++) {
		if (waitpid(pids[i], &status, WNOHANG) != pids[i])
			continue;
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			die("worker %u ended with status %#x", i, (unsigned)status);
		pids[i] = worker_start(i, i + 97 * (deaths + ++found));
	}
	return found;
}

static unsigned play(struct pair *pairs, unsigned n, pid_t *pids, unsigned n_workers)
{
	struct pollfd *polls = calloc(n + 1, sizeof(*polls));
	unsigned waiting = n, deaths = 0;
	bool open = true;

	for (unsigned i = 0; i < n; i++) {
		polls[i] = (struct pollfd){.fd = pairs[i].fd, .events = POLLIN};
		send_next(&pairs[i]);
	}
	polls[n] = (struct pollfd){.fd = 0, .events = POLLIN};
	while (waiting) {
		char byte;

		(void)poll(polls, n + open, LOOK_MS);
		if (open && polls[n].revents && read(0, &byte, 1) <= 0)
			open = false;
		deaths += workers_look(pids, n_workers, deaths);
		waiting = 0;
		for (unsigned i = 0; i < n; i++) {
			if (look(pairs, &pairs[i]) && open)
				send_next(&pairs[i]);
			waiting += pairs[i].back != pairs[i].sent;
		}
	}
	free(polls);
	return deaths;
}

/* Takes it from the daemon; the other end must see the end then. */
static void finish(const struct pair *p, unsigned i)
{
	char name[24];
	struct readyd_park_key key = {.size = sizeof(key), .name = name, .group = group};
	struct readyd_taken t = {.size = sizeof(t)};

	(void)snprintf(name, sizeof(name), "c%u", i);
	check(readyd_take(r, &key, &t), "take at the end");
	if (t.cookie != i || memcmp(t.note, &p->sent, sizeof(p->sent)) != 0)
		die("connection %u: cookie %" PRIu64 ", or not the last note", i, t.cookie);
	readyd_taken_clear(&t);
	await_end(p->fd, i);
}

static void soak(unsigned n, unsigned n_workers)
{
	struct pair *pairs = calloc(n, sizeof(*pairs));
	pid_t pids[WORKERS_MAX];
	uint64_t total = 0;
	unsigned deaths;

	for (unsigned i = 0; i < n_workers; i++)
		pids[i] = worker_start(i, i);
	connect_handle();
	for (unsigned i = 0; i < n; i++) {
		int ends[2];

		pair_open(ends);
		pairs[i] = (struct pair){.fd = ends[0]};
		park(ends[1], i, 0);
	}
	say("ready");
	deaths = play(pairs, n, pids, n_workers);
	atomic_store(&shared->over, true);
	for (unsigned i = 0; i < n_workers; i++) {
		int status;

		if (waitpid(pids[i], &status, 0) != pids[i] || status != 0)
			die("worker %u ended with status %#x", i, (unsigned)status);
	}
	for (unsigned i = 0; i < n; i++) {
		total += pairs[i].back;
		finish(&pairs[i], i);
	}
	printf("%" PRIu64 " numbers, %" PRIu64 " served, %u deaths, %" PRIu64 " resumes\n", total,
	       shared->served, deaths, shared->resumes + readyd_resumes(r));
	free(pairs);
	readyd_close(r);
	if (total != shared->served)
		die("as many were to be served as came back");
}

int main(int argc, char **argv)
{
	int pairs = argc == 4 ? atoi(argv[2]) : 0, workers = argc == 4 ? atoi(argv[3]) : 0;

	if (pairs < 1 || workers < 1 || workers > WORKERS_MAX)
		die("usage: group SOCKET PAIRS WORKERS");
	address = argv[1];
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	soak((unsigned)pairs, (unsigned)workers);
	return 0;
}
