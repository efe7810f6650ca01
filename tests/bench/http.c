/* SPDX-License-Identifier: MIT */

/*
 * 10,000 HTTP connections that are idle, and a stream of requests, each on one of them that is chosen
 * by chance. The server is client-lib/examples/http.c, run in its three ways, all at the same time, each
 * with connections of its own: one process with epoll is the floor; four workers with readyd, and so
 * each request is a wake, a hand-out, a request, and a park; and four workers without.
 *
 * The load is open: requests come at random times, at one same rate, answered or not. One is timed
 * from when it is sent until its whole answer is there; who has no answer after a second has not
 * been answered in time. Floor and readyd are measured in turns.
 *
 * Then, in the middle of such a stream, all workers and the loop are killed, and after it all
 * connections are asked once more. Those which a worker had in its hands as it was killed have
 * ended; no other may have.
 */

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

enum { CONNECTIONS = 10000, WORKERS = 4, ROUNDS = 9, BATCH = 256, ANSWER_MAX = 512, PIDS_MAX = 64 };
enum { RATE = 1000, AT_ONCE = 32, CROWD = 1000 };

#define SECOND (1000 * MS)
#define ROUND_TIME (1500 * MS)
#define IN_TIME SECOND

/* ---- The load: a process for each server ---- */

struct connection {
	int fd; /* -1: it has ended */
	bool busy;
	int64_t sent;
	size_t got;
	char answer[ANSWER_MAX];
};

/* What to do: a stream for that long, or, with 0, each connection once. */
struct order {
	int64_t duration;
};

struct result {
	unsigned asked, answered; /* answered in time */
	unsigned ended_busy, ended_idle;
	double p50, p99; /* ns */
};

struct load {
	int epoll;
	unsigned outstanding;
	uint64_t random;
	struct result result;
	struct connection connections[CONNECTIONS];
	double times[CONNECTIONS + (int)(RATE * 10)];
};

/* xorshift64*: as good as needed, and the same in every run. */
static uint64_t draw(struct load *l)
{
	l->random ^= l->random >> 12;
	l->random ^= l->random << 25;
	l->random ^= l->random >> 27;
	return l->random * UINT64_C(2685821657736338717);
}

/* Until the next request: exponentially distributed, as of many users who know nothing of each other. */
static int64_t draw_pause(struct load *l)
{
	double u = ((double)(draw(l) >> 11) + 1) / 9007199254740993.0;

	return (int64_t)(-log(u) * (double)SECOND / RATE);
}

static void connect_one(struct load *l, struct connection *c, uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};

	struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0 ||
	    (connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0 &&
	     errno != EINPROGRESS) ||
	    epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &e) < 0)
		bench_die("a connection: %s", strerror(errno));
}

static void ask(struct load *l, struct connection *c)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

	c->busy = true;
	c->got = 0;
	c->sent = bench_now();
	l->result.asked++;
	l->outstanding++;
	/* one that nobody could accept yet is not answered, as simply as that */
	(void)!send(c->fd, request, sizeof(request) - 1, MSG_NOSIGNAL);
}

static void ended(struct load *l, struct connection *c)
{
	if (c->busy) {
		l->result.ended_busy++;
		l->outstanding--;
	} else {
		l->result.ended_idle++;
	}
	(void)close(c->fd);
	c->fd = -1;
	c->busy = false;
}

/* Whether all of it is there. */
static bool is_whole(const struct connection *c)
{
	static const char length[] = "Content-Length: ", end[] = "\r\n\r\n";
	const char *head = memmem(c->answer, c->got, end, strlen(end));
	const char *n = memmem(c->answer, c->got, length, strlen(length));

	return head && n && n < head &&
	       c->got == (size_t)(head - c->answer) + strlen(end) +
				 strtoul(n + strlen(length), NULL, 10);
}

static void receive(struct load *l, struct connection *c)
{
	ssize_t n = recv(c->fd, c->answer + c->got, sizeof(c->answer) - c->got, 0);
	int64_t time = bench_now() - c->sent;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		ended(l, c);
		return;
	}
	c->got += (size_t)n;
	if (!is_whole(c))
		return;
	if (!c->busy || strncmp(c->answer, "HTTP/1.1 200 ", 13) != 0)
		bench_die("not an answer: %.*s", (int)c->got, c->answer);
	c->busy = false;
	l->outstanding--;
	if (time <= IN_TIME)
		l->times[l->result.answered++] = (double)time;
}

static void await(struct load *l, int64_t until)
{
	struct epoll_event events[BATCH];
	int64_t left = until - bench_now();
	struct timespec ts = {.tv_sec = left / SECOND, .tv_nsec = left % SECOND};
	int n = left < 0 ? 0 : epoll_pwait2(l->epoll, events, BATCH, &ts, NULL);

	for (int i = 0; i < n; i++)
		receive(l, events[i].data.ptr);
}

static void stream(struct load *l, int64_t duration)
{
	int64_t next = bench_now(), end = next + duration;

	while (next < end) {
		struct connection *c = &l->connections[draw(l) % CONNECTIONS];

		while (bench_now() < next)
			await(l, next);
		if (c->busy || c->fd < 0)
			continue;
		ask(l, c);
		next += draw_pause(l);
	}
	end = bench_now() + IN_TIME;
	while (l->outstanding > 0 && bench_now() < end)
		await(l, end);
}

/* Those from the first on. The patience is a minute: this is about whether, not when. */
static void ask_each(struct load *l, unsigned first, unsigned n)
{
	int64_t end = bench_now() + PATIENCE;

	for (unsigned i = first; i < first + n; i++) {
		if (l->connections[i].fd >= 0 && !l->connections[i].busy)
			ask(l, &l->connections[i]);
		while (l->outstanding >= AT_ONCE && bench_now() < end)
			await(l, end);
	}
	while (l->outstanding > 0 && bench_now() < end)
		await(l, end);
}

/* Not more at once than wait to be accepted, and all are: but where nobody accepts them. */
static void connect_all(struct load *l, uint16_t port, bool served)
{
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		connect_one(l, &l->connections[i], port);
		if (served && (i + 1) % CROWD == 0)
			ask_each(l, i + 1 - CROWD, CROWD);
	}
}

static _Noreturn void be_load(uint16_t port, bool served, int control)
{
	struct load *l = calloc(1, sizeof(*l));
	struct order order;

	if (!l)
		bench_die("no memory");
	(void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
	l->random = 4711;
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	connect_all(l, port, served);
	for (;;) {
		if (write(control, &l->result, sizeof(l->result)) < 0 ||
		    read(control, &order, sizeof(order)) != sizeof(order))
			exit(0);
		l->result = (struct result){0};
		if (order.duration > 0)
			stream(l, order.duration);
		else
			ask_each(l, 0, CONNECTIONS);
		l->result.p50 = bench_rank(l->times, l->result.answered, 50, 100);
		l->result.p99 = bench_rank(l->times, l->result.answered, 99, 100);
	}
}

/* ---- Servers ---- */

struct side {
	const char *flag;
	bool served; /* all of its connections */
	pid_t pid;   /* of the server's master */
	int control;
	double p50[ROUNDS], p99[ROUNDS];
	unsigned asked, late;
};

static uint16_t start_server(struct side *s)
{
	const char *http = getenv("READYD_HTTP");
	char said[64] = "", workers[16];
	int ends[2];
	unsigned port;

	(void)snprintf(workers, sizeof(workers), "%d", WORKERS);
	if (pipe(ends) < 0)
		bench_die("pipe: %s", strerror(errno));
	s->pid = bench_fork();
	if (s->pid == 0) {
		(void)dup2(ends[1], STDOUT_FILENO);
		(void)close(ends[0]);
		(void)close(ends[1]);
		/* it says that its workers are killed, which is known here */
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		(void)execl(http ? http : "http", "http", s->flag, "--workers", workers, "--idle",
			    "3600", (char *)NULL);
		_exit(1);
	}
	(void)close(ends[1]);
	if (read(ends[0], said, sizeof(said) - 1) <= 0 || sscanf(said, "port %u", &port) != 1)
		bench_die("the server $READYD_HTTP does not start");
	(void)close(ends[0]);
	return (uint16_t)port;
}

static struct result wait_for(const struct side *s)
{
	struct result result;

	if (read(s->control, &result, sizeof(result)) != sizeof(result))
		bench_die("the load of %s has ended", s->flag);
	return result;
}

static void order(const struct side *s, int64_t duration)
{
	struct order o = {.duration = duration};

	if (write(s->control, &o, sizeof(o)) < 0)
		bench_die("the load of %s has ended", s->flag);
}

static void start_side(struct side *s)
{
	uint16_t port = start_server(s);
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		bench_die("socketpair: %s", strerror(errno));
	if (bench_fork() == 0) {
		(void)close(ends[0]);
		be_load(port, s->served, ends[1]);
	}
	(void)close(ends[1]);
	s->control = ends[0];
	(void)wait_for(s);
}

/* ---- Processes ---- */

static unsigned children_of(pid_t pid, pid_t *ret_pids)
{
	char path[64];
	unsigned n = 0;
	int child;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	f = fopen(path, "re");
	while (f && n < PIDS_MAX && fscanf(f, "%d", &child) == 1)
		ret_pids[n++] = child;
	if (f)
		(void)fclose(f);
	return n;
}

/* kB of memory, where each has its share of what it shares. */
static double memory_of_one(pid_t pid)
{
	char path[64], line[256];
	unsigned long kb = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f) && sscanf(line, "Pss: %lu", &kb) != 1)
		;
	if (f)
		(void)fclose(f);
	return (double)kb;
}

static double memory_of(pid_t pid)
{
	pid_t pids[PIDS_MAX];
	unsigned n = children_of(pid, pids);
	double kb = memory_of_one(pid);

	for (unsigned i = 0; i < n; i++)
		kb += memory_of_one(pids[i]);
	return kb;
}

static void kill_one(pid_t pid)
{
	if (kill(pid, SIGKILL) < 0)
		bench_die("kill: %s", strerror(errno));
}

/* ---- Measuring ---- */

static void measure_round(struct side *s, unsigned round)
{
	struct result result;

	order(s, ROUND_TIME);
	result = wait_for(s);
	s->p50[round] = result.p50;
	s->p99[round] = result.p99;
	s->asked += result.asked;
	s->late += result.asked - result.answered;
}

static void say_times(const char *what, double *times)
{
	char name[128];

	(void)snprintf(name, sizeof(name), "%s, epoll process", what);
	bench_say(name, bench_median(times, ROUNDS) / 1e3, "us", NAN);
}

static void compare(const char *what, double *with, double *floor, double aim)
{
	double ratios[ROUNDS];
	char name[128];

	for (unsigned i = 0; i < ROUNDS; i++)
		ratios[i] = with[i] / floor[i];
	(void)snprintf(name, sizeof(name), "%s: workers with readyd / one epoll process", what);
	bench_say(name, bench_median(ratios, ROUNDS), "x", aim);
	(void)snprintf(name, sizeof(name), "%s, workers with readyd", what);
	bench_say(name, bench_median(with, ROUNDS) / 1e3, "us", NAN);
	say_times(what, floor);
}

static void measure_death(const struct side *s, const struct bench_daemon *d)
{
	struct timespec half = {.tv_sec = 1};
	struct readyd *r = bench_connect(d);
	pid_t loop = (pid_t)readyd_daemon_pid(r), workers[PIDS_MAX];
	unsigned n = children_of(s->pid, workers);
	struct result during, after;

	readyd_close(r);
	order(s, 2 * SECOND);
	(void)nanosleep(&half, NULL);
	for (unsigned i = 0; i < n; i++)
		kill_one(workers[i]);
	kill_one(loop);
	during = wait_for(s);
	order(s, 0);
	after = wait_for(s);
	bench_say("all workers and the loop killed: parked connections that ended",
		  during.ended_idle + after.ended_idle + after.ended_busy, "", 0);
	bench_say("all workers and the loop killed: ended in a worker's hands", during.ended_busy,
		  "", WORKERS);
	bench_say("all workers and the loop killed: asked once more, not answered",
		  after.asked - after.answered, "", 0);
	bench_say("all workers and the loop killed: asked once more", after.asked, "", NAN);
}

int main(void)
{
	static struct side floor = {.flag = "--epoll", .served = true},
			   with = {.flag = "--readyd", .served = true},
			   without = {.flag = "--plain"};
	struct side *sides[] = {&floor, &with, &without};
	struct bench_daemon d;

	bench_raise_nofile();
	bench_daemon_start(&d, true);
	(void)setenv("READYD_SOCKET", d.socket, 1);
	for (unsigned i = 0; i < 3; i++)
		start_side(sides[i]);
	for (unsigned i = 0; i < ROUNDS; i++) {
		measure_round(i % 2 ? &floor : &with, i);
		measure_round(i % 2 ? &with : &floor, i);
	}
	measure_round(&without, 0);
	compare("p50 of a request", with.p50, floor.p50, 3);
	compare("p99 of a request", with.p99, floor.p99, 5);
	bench_say("requests not answered in time, workers with readyd", with.late, "", 0);
	bench_say("requests not answered in time, epoll process", floor.late, "", 0);
	bench_say("requests not answered in time, workers without readyd",
		  100.0 * without.late / without.asked, "%", NAN);
	bench_say("memory, workers with readyd, and the daemon",
		  (memory_of(with.pid) + memory_of(d.pid)) / 1024, "MB", NAN);
	bench_say("memory, epoll process", memory_of(floor.pid) / 1024, "MB", NAN);
	bench_say("memory, workers without readyd", memory_of(without.pid) / 1024, "MB", NAN);
	measure_death(&with, &d);
	for (unsigned i = 0; i < 3; i++) {
		(void)kill(sides[i]->pid, SIGTERM);
		bench_join(sides[i]->pid);
	}
	bench_daemon_stop(&d);
	return 0;
}
