/* SPDX-License-Identifier: MIT */

/*
 * One HTTP/1.1 server with keep-alive, run in three ways, to be compared:
 *
 *   --plain    N workers; each accepts a connection and waits on it until it ends. A connection
 *              costs a worker, idle or not: N+1 browsers that keep theirs open are one too many.
 *   --readyd   N workers, and one that accepts; a connection that has nothing to say is parked with
 *              readyd, in a group, and costs no worker. The daemon hands it to one that is free as
 *              soon as there is something to read.
 *   --epoll    One process that waits for all its connections at once: how it is done by a program
 *              that is written for it.
 *
 *   cc -o http http.c http_epoll.c http_request.c $(pkg-config --cflags --libs readyd)
 *   ./http [--plain | --readyd | --epoll] [--port N] [--workers N] [--idle SECONDS] [--group NAME]
 *
 * Listens on 127.0.0.1, prints "port N", and serves until SIGTERM or SIGINT. What is the same for all
 * is in http_request.c: it never blocks, and says whether the connection is idle, that is, whether
 * all bytes that were read are answered. Only then may it be parked: readyd keeps the connection,
 * not what a program knows of it. What else has to be known goes along as the park's note: here, how
 * many requests it has had.
 *
 * With readyd no connection is lost while it is parked, whatever dies: a worker, which is replaced;
 * all of the server, whose next instance is handed them; the daemon's loop. --idle becomes the park's
 * deadline: readyd closes the connection, and no worker has to wake up for it. Without a running daemon
 * the master starts a private one, which ends after the server.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4, ppoll */
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <readyd.h>

#include "http.h"
#include "http_request.h"

enum { WORKERS_MAX = 256 };

volatile sig_atomic_t http_stopping;

static struct readyd *volatile to_break;

static void stop(int number)
{
	(void)number;
	http_stopping = 1;
	if (to_break)
		readyd_break(to_break);
}

int64_t http_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * SECOND + ts.tv_nsec;
}

void http_die(const char *what, const char *why)
{
	(void)fprintf(stderr, "http: %s: %s\n", what, why);
	exit(EXIT_FAILURE);
}

/* Until one of them is ready, or that time, or, with a mask, a signal. */
static bool wait_for(struct pollfd *fds, nfds_t n, int64_t until, const sigset_t *mask)
{
	for (;;) {
		int64_t left = until - http_now();
		struct timespec ts = {.tv_sec = left / SECOND, .tv_nsec = left % SECOND};
		int ready;

		if (left < 0 || (mask && http_stopping))
			return false;
		ready = ppoll(fds, n, until == INT64_MAX ? NULL : &ts, mask);
		if (ready > 0)
			return true;
		if (ready < 0 && errno != EINTR)
			http_die("poll", strerror(errno));
	}
}

int http_accept(const struct server *s)
{
	return accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* Serves a connection until it is idle, which is true, or has ended. Waits for the rest of a request. */
static bool serve(struct http *h, int fd)
{
	uint32_t answered = h->answered;
	int64_t until = http_now() + REQUEST_TIME;

	for (;;) {
		enum http_state state = http_serve(h, fd);
		struct pollfd p = {.fd = fd, .events = state == HTTP_FULL ? POLLOUT : POLLIN};

		if (state == HTTP_IDLE || state == HTTP_END)
			return state == HTTP_IDLE;
		if (h->answered != answered)
			until = http_now() + REQUEST_TIME;
		answered = h->answered;
		if (!wait_for(&p, 1, until, NULL)) {
			http_give_up(h, fd);
			return false;
		}
	}
}

/* ---- --plain: a worker for each connection ---- */

static int work_plain(struct server *s)
{
	static struct http h;

	while (!http_stopping) {
		struct pollfd p = {.fd = s->listener, .events = POLLIN};

		if (!wait_for(&p, 1, INT64_MAX, &s->open))
			break;
		p.fd = http_accept(s);
		if (p.fd < 0)
			continue;
		http_begin(&h, 0);
		while (wait_for(&p, 1, http_now() + s->idle, &s->open) && serve(&h, p.fd))
			;
		(void)close(p.fd);
	}
	return EXIT_SUCCESS;
}

/* ---- --readyd: a worker for each request ---- */

/* Without a daemon for that long the process ends, and the master tries another. */
static struct readyd *find_readyd(void)
{
	struct readyd_options o = {.size = sizeof(o), .give_up = 30 * SECOND};
	struct readyd *r = NULL;
	char *error = NULL;

	if (readyd_connect(&o, &r, &error) < 0)
		http_die("no readyd", error ? error : "no memory");
	return r;
}

/* After this the caller closes its copy: parked, the connection stays; refused, it ends. */
static void park(struct readyd *r, const struct server *s, int fd, uint32_t answered)
{
	struct readyd_park_options o = {
		.size = sizeof(o),
		.group = s->group,
		.note = &answered,
		.note_length = sizeof(answered),
		.deadline = http_now() + s->idle,
	};

	if (readyd_park(r, fd, &o, NULL, NULL) < 0)
		(void)fprintf(stderr, "http: a connection is not kept: %s\n", readyd_last_error(r));
}

/* The front: a new connection has said nothing yet, and is parked at once. It needs no worker. */
static int work_front(struct server *s)
{
	struct readyd *r = find_readyd();

	while (!http_stopping && readyd_state(r) != READYD_STATE_LOST) {
		struct pollfd p = {.fd = s->listener, .events = POLLIN};

		if (!wait_for(&p, 1, INT64_MAX, &s->open))
			break;
		p.fd = http_accept(s);
		if (p.fd < 0)
			continue;
		park(r, s, p.fd, 0);
		(void)close(p.fd);
	}
	readyd_close(r);
	return http_stopping ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* The worker says that it is done before it parks: so both go in one message. The next one comes when
 * the daemon has this one, and not before. */
static void serve_taken(struct readyd *r, const struct server *s, struct readyd_taken *taken)
{
	static struct http h;
	uint32_t answered = 0;
	bool idle;

	if (taken->note_length == sizeof(answered))
		memcpy(&answered, taken->note, sizeof(answered));
	http_begin(&h, answered);
	idle = serve(&h, taken->fd);
	(void)readyd_done(r, s->group);
	if (idle)
		park(r, s, taken->fd, h.answered);
	readyd_taken_clear(taken); /* closes it */
}

static int work_readyd(struct server *s)
{
	struct readyd_taken taken = {.size = sizeof(taken)};
	struct readyd *r = find_readyd();
	int result;

	to_break = r;
	(void)sigprocmask(SIG_SETMASK, &s->open, NULL); /* stop() ends readyd_receive() */
	result = readyd_attach(r, s->group, 1);
	while (result >= 0 && !http_stopping) {
		result = readyd_receive(r, &taken, -1);
		if (result > 0)
			serve_taken(r, s, &taken);
	}
	if (result < 0)
		(void)fprintf(stderr, "http: %s\n", readyd_last_error(r));
	to_break = NULL;
	readyd_close(r); /* what was on its way to this worker goes to another */
	return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Starts a private daemon, if there is none: it lives as long as this process, and its address is in
 * the environment of the workers, who connect by themselves. */
static void find_daemon(void)
{
	struct readyd_options o = {.size = sizeof(o), .flags = READYD_PRIVATE_IF_NEEDED};
	struct readyd *r = NULL;
	char *error = NULL;

	if (readyd_connect(&o, &r, &error) < 0)
		http_die("no readyd", error ? error : "no memory");
	if (!readyd_has_feature(r, "groups"))
		http_die(readyd_socket(r), "this daemon is too old: it knows nothing of groups");
	readyd_close(r);
}

/* ---- The master ---- */

struct worker {
	pid_t pid; /* 0: none */
	int64_t born;
};

static void start_worker(struct server *s, struct worker *w, bool front)
{
	pid_t master = getpid();

	w->born = http_now();
	w->pid = fork();
	if (w->pid != 0)
		return;
	/* without a master no worker */
	(void)prctl(PR_SET_PDEATHSIG, (unsigned long)SIGTERM, 0UL, 0UL, 0UL);
	if (getppid() != master)
		_exit(EXIT_FAILURE);
	exit(front ? work_front(s) : s->work(s));
}

/* Starts those that are missing, each at most five times a second. When to look again. */
static int64_t start_missing(struct server *s, struct worker *workers, int n)
{
	int64_t next = INT64_MAX;

	for (int i = 0; i < n; i++) {
		int64_t when = workers[i].born + SECOND / 5;

		if (workers[i].pid > 0)
			continue;
		if (workers[i].born == 0 || when <= http_now())
			start_worker(s, &workers[i], s->work == work_readyd && i == 0);
		if (workers[i].pid <= 0 && workers[i].born + SECOND / 5 < next)
			next = workers[i].born + SECOND / 5;
	}
	return next;
}

static void reap(struct worker *workers, int n)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < n; i++) {
			if (workers[i].pid != pid)
				continue;
			workers[i].pid = 0;
			(void)fprintf(stderr, "http: worker %d has ended (%s %d)\n", (int)pid,
				      WIFSIGNALED(status) ? "signal" : "status",
				      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		}
}

static int be_master(struct server *s, const sigset_t *awaited, int n)
{
	struct worker workers[WORKERS_MAX + 1] = {0};
	int number = SIGCHLD;

	n += s->work == work_readyd; /* the front is the first one */

	while (number != SIGTERM && number != SIGINT) {
		int64_t next = start_missing(s, workers, n), left = next - http_now();
		struct timespec ts = {.tv_sec = left / SECOND, .tv_nsec = left % SECOND};

		number = left < 0 ? SIGCHLD
				  : sigtimedwait(awaited, NULL, next == INT64_MAX ? NULL : &ts);
		reap(workers, n);
	}
	for (int i = 0; i < n; i++)
		if (workers[i].pid > 0)
			(void)kill(workers[i].pid, SIGTERM);
	for (int i = 0; i < n; i++)
		if (workers[i].pid > 0)
			(void)waitpid(workers[i].pid, NULL, 0);
	return EXIT_SUCCESS;
}

static void listen_on(struct server *s, uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t length = sizeof(address);
	int one = 1;

	s->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* its connections inherit TCP_NODELAY */
	if (s->listener < 0 ||
	    setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    setsockopt(s->listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0 ||
	    bind(s->listener, (struct sockaddr *)&address, length) < 0 ||
	    listen(s->listener, 4096) < 0 ||
	    getsockname(s->listener, (struct sockaddr *)&address, &length) < 0)
		http_die("cannot listen", strerror(errno));
	printf("port %u\n", ntohs(address.sin_port));
	(void)fflush(stdout);
}

/* As many connections as the system lets one process have. */
static void raise_nofile(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int usage(void)
{
	(void)fprintf(stderr, "usage: http [--plain | --readyd | --epoll] [--port N] [--workers N] "
			      "[--idle SECONDS] [--group NAME]\n");
	return 2;
}

int main(int argc, char *argv[])
{
	static const struct option known[] = {
		{"plain", no_argument, NULL, 'P'},         {"readyd", no_argument, NULL, 'R'},
		{"epoll", no_argument, NULL, 'E'},         {"port", required_argument, NULL, 'p'},
		{"workers", required_argument, NULL, 'w'}, {"idle", required_argument, NULL, 'i'},
		{"group", required_argument, NULL, 'g'},   {0},
	};
	struct server server = {.idle = 60 * SECOND, .group = "http", .work = work_readyd};
	struct sigaction action = {.sa_handler = stop};
	sigset_t awaited;
	uint16_t port = 0;
	int c, workers = 4;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (c == 'P')
			server.work = work_plain;
		else if (c == 'R')
			server.work = work_readyd;
		else if (c == 'E')
			server.work = http_work_epoll;
		else if (c == 'p')
			port = (uint16_t)strtoul(optarg, NULL, 10);
		else if (c == 'w')
			workers = (int)strtol(optarg, NULL, 10);
		else if (c == 'i')
			server.idle = (int64_t)(strtod(optarg, NULL) * (double)SECOND);
		else if (c == 'g')
			server.group = optarg;
		else
			return usage();
	}
	if (optind < argc || workers < 1 || workers > WORKERS_MAX)
		return usage();
	(void)sigaction(SIGTERM, &action, NULL);
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigemptyset(&awaited);
	(void)sigaddset(&awaited, SIGTERM);
	(void)sigaddset(&awaited, SIGINT);
	(void)sigaddset(&awaited, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &awaited, &server.open);
	raise_nofile();
	if (server.work == work_readyd)
		find_daemon();
	listen_on(&server, port);
	return server.work == http_work_epoll ? http_work_epoll(&server)
					      : be_master(&server, &awaited, workers);
}
