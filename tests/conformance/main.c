/* SPDX-License-Identifier: MIT */

/*
 * The runner: one daemon, then each item in a process of its own. After each item the daemon must
 * be what it was: the same count of fds, watches, waits, timers, deadlines and connections. Each
 * item prints one line. At the end no number of the checklist may be missing (numbers.c).
 */

#include "numbers.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef VECTORS_DIR
#define VECTORS_DIR "protocol/vectors" /* seen from the top of the checkout */
#endif

enum { ITEM_SECONDS = 60, NEEDED_FDS = 12000 };

static const struct item_list *const lists[] = {
	&items_open_close, &items_lanes,          &items_wait,        &items_latch_reset,
	&items_deadlines,  &items_deadlines_many, &items_evict_break, &items_poll,
	&items_load,       &items_stream,         &items_timers,      &items_errors,
	&items_kinds,      &items_bad_input,
};

/* ---- What the daemon has ---- */

struct holdings {
	int fds;
	uint64_t connections, watches, waiting, timers, deadlines;
	uint64_t session;
	pid_t pid;
	bool weak, edge, stream;
};

/* Asked by a process of its own, since a daemon that does not answer ends the asker. */
static bool holdings_get(const struct env *e, struct holdings *ret)
{
	int p[2], status;
	ssize_t got;
	pid_t child;

	if (pipe2(p, O_CLOEXEC))
		return false;
	child = fork();
	if (child == 0) {
		struct conn *c = conn_dial(e);
		struct wire_status s = status_of(c);
		struct holdings h = {
			.fds = count_fds((pid_t)c->welcome.pid),
			.connections = s.connections,
			.watches = s.watches,
			.waiting = s.waiting,
			.timers = s.timers,
			.deadlines = s.deadlines,
			.pid = (pid_t)c->welcome.pid,
			.weak = conn_has_feature(c, "weak"),
			.edge = conn_has_feature(c, "edge"),
			.stream = conn_has_feature(c, "stream"),
		};

		_exit(write(p[1], &h, sizeof(h)) == sizeof(h) ? 0 : 1);
	}
	close(p[1]);
	got = read(p[0], ret, sizeof(*ret));
	close(p[0]);
	return child > 0 && waitpid(child, &status, 0) == child && status == 0 &&
	       got == sizeof(*ret);
}

static bool holdings_same(const struct holdings *a, const struct holdings *b)
{
	return a->fds == b->fds && a->connections == b->connections && a->watches == b->watches &&
	       a->waiting == b->waiting && a->timers == b->timers && a->deadlines == b->deadlines;
}

/* Whether the daemon has again what it had; says what it has not. */
static bool holdings_return(const struct env *e, const struct holdings *before, FILE *out)
{
	int64_t until = now_ns() + 3 * soon_ms(e) * MS;
	struct holdings h;

	do {
		if (!holdings_get(e, &h)) {
			fprintf(out, "the daemon does not answer any more\n");
			return false;
		}
		if (holdings_same(before, &h))
			return true;
		nap_us(5000);
	} while (now_ns() < until);
	fprintf(out,
		"left behind: fds %d -> %d, connections %llu -> %llu, watches %llu -> %llu, "
		"waiting %llu -> %llu, timers %llu -> %llu, deadlines %llu -> %llu\n",
		before->fds, h.fds, (unsigned long long)before->connections,
		(unsigned long long)h.connections, (unsigned long long)before->watches,
		(unsigned long long)h.watches, (unsigned long long)before->waiting,
		(unsigned long long)h.waiting, (unsigned long long)before->timers,
		(unsigned long long)h.timers, (unsigned long long)before->deadlines,
		(unsigned long long)h.deadlines);
	return false;
}

/* ---- One item ---- */

static void show_lines(FILE *f, long from, unsigned most)
{
	char line[512];

	if (fseek(f, from, SEEK_SET))
		return;
	while (most-- && fgets(line, sizeof(line), f))
		printf("#   %.*s\n", (int)strcspn(line, "\n"), line);
}

/* The last lines of the daemon's log since `from`. */
static void show_log(const struct daemon *d, long from)
{
	FILE *f = fopen(d->log, "re");
	long end;

	if (!f)
		return;
	(void)fseek(f, 0, SEEK_END);
	end = ftell(f);
	if (end - from > 3000)
		from = end - 3000;
	printf("# the daemon's log:\n");
	show_lines(f, from, 40);
	(void)fclose(f);
}

static _Noreturn void item_exec(const struct env *e, const struct item *item, int out)
{
	(void)setpgid(0, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)dup2(out, 1);
	(void)dup2(out, 2);
	item->run(e);
	(void)fflush(NULL);
	_exit(0);
}

/* 0 passed, EXIT_SKIP, else failed; what it said is in `out`. */
static int item_run(const struct env *e, const struct item *item, FILE *out)
{
	unsigned seconds = (item->seconds ? item->seconds : ITEM_SECONDS) * e->scale;
	struct pollfd p = {.events = POLLIN};
	int status = 0, ready;
	pid_t child;

	(void)fflush(NULL);
	child = fork();
	if (child < 0)
		return 1;
	if (child == 0)
		item_exec(e, item, fileno(out));
	(void)setpgid(child, child);
	p.fd = (int)syscall(SYS_pidfd_open, child, 0);
	do
		ready = poll(&p, 1, (int)seconds * 1000);
	while (ready < 0 && errno == EINTR);
	close(p.fd);
	(void)kill(-child, SIGKILL); /* it, if it hangs, and what it started */
	(void)waitpid(child, &status, 0);
	(void)fseek(out, 0, SEEK_END);
	if (ready == 0) {
		fprintf(out, "not done after %u s\n", seconds);
		return 1;
	}
	if (WIFSIGNALED(status)) {
		fprintf(out, "killed by signal %d\n", WTERMSIG(status));
		return 1;
	}
	return WEXITSTATUS(status);
}

static void item_report(const struct env *e, const struct item *item, int result, FILE *out,
			struct tally *t)
{
	int number = number_of(item);

	if (result == 0) {
		t->passed++;
		t->number_passed[number]++;
		printf("ok %s %s %s\n", item->number, e->backend, item->name);
	} else if (result == EXIT_SKIP) {
		t->skipped++;
		t->number_skipped[number]++;
		printf("skip %s %s %s:", item->number, e->backend, item->name);
	} else {
		t->failed++;
		t->number_failed[number]++;
		printf("not ok %s %s %s\n", item->number, e->backend, item->name);
	}
	(void)fflush(out);
	show_lines(out, 0, 20);
	(void)fflush(stdout);
}

static void item_do(const struct env *e, const struct daemon *d, const struct item *item,
		    struct tally *t)
{
	struct holdings before;
	struct stat log = {0};
	FILE *out;
	int result;

	if (!e->weak && item->poll_skip) {
		t->skipped++;
		t->number_skipped[number_of(item)]++;
		printf("skip %s %s %s: %s\n", item->number, e->backend, item->name,
		       item->poll_skip);
		return;
	}
	out = tmpfile();
	if (!out)
		return;
	(void)stat(d->log, &log);
	result = 1;
	if (holdings_get(e, &before)) {
		result = item_run(e, item, out);
		if (!holdings_return(e, &before, out))
			result = 1;
	} else {
		fprintf(out, "the daemon does not answer\n");
	}
	item_report(e, item, result, out, t);
	if (result != 0 && result != EXIT_SKIP)
		show_log(d, log.st_size);
	(void)fclose(out);
}

/* ---- The run ---- */

static bool chosen(const struct item *item, char *const *names, int n)
{
	if (n == 0)
		return true;
	for (int i = 0; i < n; i++)
		if (!strcmp(item->number, names[i]))
			return true;
	return false;
}

static void run_items(const struct env *e, const struct daemon *d, char *const *names, int n,
		      struct tally *t)
{
	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
		for (size_t k = 0; k < lists[i]->n; k++) {
			const struct item *item = &lists[i]->items[k];

			if (!chosen(item, names, n))
				continue;
			if (!daemon_alive(d)) {
				printf("not ok %s %s the daemon has died\n", item->number,
				       e->backend);
				t->failed++;
				return;
			}
			item_do(e, d, item, t);
		}
}

/* Starts, runs and stops. false: the daemon could not be run. */
static bool run_daemon(struct env *e, const char *program, char *const *names, int n,
		       struct tally *t)
{
	struct daemon d;
	struct holdings h;
	int r, status;

	r = daemon_start(program, e->backend, &d);
	e->socket = d.socket;
	if (r || !holdings_get(e, &h)) {
		printf("not ok start %s %s: %s\n", e->backend, program, strerror(-r));
		show_log(&d, 0);
		(void)daemon_stop(&d);
		daemon_clean(&d);
		return false;
	}
	e->pid = h.pid;
	e->weak = h.weak;
	e->edge = h.edge;
	e->stream = h.stream;
	run_items(e, &d, names, n, t);
	status = daemon_stop(&d);
	printf("%s stop %s exit status %d after SIGTERM\n", status ? "not ok" : "ok", e->backend,
	       status);
	if (status) {
		t->failed++;
		show_log(&d, 0);
	} else {
		t->passed++;
	}
	daemon_clean(&d);
	return true;
}

static _Noreturn void usage(int status)
{
	fprintf(status ? stderr : stdout,
		"usage: conformance [--backend epoll|poll] [--also FILE]... [--seed N] [--full]\n"
		"                   [--scale N] [--readyd PROGRAM] [--vectors FOLDER] [S-xxx ...]\n"
		"  --also     names of tests that ran and passed elsewhere (cmocka's output)\n"
		"  --scale    multiplies all times, for slow machines; else $READYD_TEST_SCALE\n"
		"  --readyd   the daemon; else $READYD\n"
		"  --vectors  the protocol's example messages; else $READYD_VECTORS\n");
	exit(status);
}

static const struct option options[] = {
	{"backend", required_argument, NULL, 'b'},
	{"also", required_argument, NULL, 'a'},
	{"seed", required_argument, NULL, 's'},
	{"full", no_argument, NULL, 'f'},
	{"scale", required_argument, NULL, 'x'},
	{"readyd", required_argument, NULL, 'r'},
	{"vectors", required_argument, NULL, 'v'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

int main(int argc, char **argv)
{
	struct env e = {.backend = "epoll", .scale = 1, .vectors = getenv("READYD_VECTORS")};
	const char *program = getenv("READYD"), *seed = getenv("READYD_SEED");
	const char *scale = getenv("READYD_TEST_SCALE");
	struct tally t = {0};
	struct rlimit limit;
	bool complete = true;
	int c;

	if (scale && atoi(scale) > 0)
		e.scale = (unsigned)atoi(scale);
	e.seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'b' && (!strcmp(optarg, "epoll") || !strcmp(optarg, "poll"))) {
			e.backend = optarg;
		} else if (c == 'a') {
			if (also_read(optarg, &t)) {
				fprintf(stderr, "cannot read %s\n", optarg);
				return 2;
			}
		} else if (c == 's') {
			e.seed = strtoull(optarg, NULL, 0);
		} else if (c == 'f') {
			e.full = true;
		} else if (c == 'x' && atoi(optarg) > 0) {
			e.scale = (unsigned)atoi(optarg);
		} else if (c == 'r') {
			program = optarg;
		} else if (c == 'v') {
			e.vectors = optarg;
		} else {
			usage(c == 'h' ? 0 : 2);
		}
	}
	if (!program) {
		fprintf(stderr, "say which daemon: --readyd PROGRAM, or $READYD\n");
		return 2;
	}
	if (!e.vectors)
		e.vectors = VECTORS_DIR;
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		if (limit.rlim_max < NEEDED_FDS) {
			fprintf(stderr,
				"the hard limit of open files is %llu, and %d are needed: "
				"raise it (ulimit -Hn)\n",
				(unsigned long long)limit.rlim_max, NEEDED_FDS);
			return 2;
		}
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	printf("# conformance of %s, backend %s, seed %llu\n", program, e.backend,
	       (unsigned long long)e.seed);
	if (!run_daemon(&e, program, argv + optind, argc - optind, &t))
		t.failed++;
	else if (optind == argc)
		complete = numbers_complete(&e, &t);
	printf("%u passed, %u failed, %u skipped\n", t.passed, t.failed, t.skipped);
	return t.failed || !complete ? 1 : 0;
}
