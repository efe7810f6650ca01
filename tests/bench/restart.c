/* SPDX-License-Identifier: MIT */

/*
 * How long nobody is told anything when the loop dies: from SIGKILL of the loop until the last of
 * the clients has its first event, of a descriptor that got ready meanwhile and that is the last
 * one to be registered anew.
 *
 * Beside it, in turns: the same watches registered by new clients (until the last one has such an
 * event), and the bare work: a fork, then as many fds sent to the new process, 253 a message, added
 * to an epoll and closed. All watches have a wait outstanding.
 *
 * 100,000 descriptors do not go into one process; so there are several clients, which hold 16,667
 * each. They do what they are told by a letter: c to connect anew, r to register, p to poll, b for
 * the bare work, q to quit.
 */

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

enum { CLIENTS_MAX = 8, BATCH = 253, ROUNDS_MAX = 32 };

struct shared {
	atomic_llong done; /* letters carried out, by all clients */
	atomic_llong begun;
	atomic_llong at[CLIENTS_MAX]; /* when its event came */
	atomic_llong bare_at, bare_ready;
	atomic_llong loop; /* the loop's pid */
};

struct bench {
	struct bench_daemon daemon;
	struct shared *shared;
	unsigned clients, each; /* watches of one client */
	pid_t pids[CLIENTS_MAX];
	int control[CLIENTS_MAX];
	int bells[CLIENTS_MAX]; /* the last watch of each */
	long long asked;
};

struct client {
	struct bench *b;
	unsigned number;
	int control;
	int *fds;
	struct readyd *r;
	struct readyd_watch_request *requests;
};

/* ---- A client ---- */

static void client_register(struct client *c)
{
	unsigned n = c->b->each;

	for (unsigned i = 0; i < n; i++)
		c->requests[i] = (struct readyd_watch_request){
			.fd = c->fds[i],
			.interest = READYD_READ,
			.mode = READYD_WAIT,
			.cookie = i,
		};
	if (bench_check(c->r, readyd_watch_many(c->r, c->requests, n), "watch") != 0)
		bench_die("watches were refused: %s", strerror(-c->requests[n - 1].error));
	for (unsigned i = 0; i < n; i++)
		bench_check(c->r, readyd_wait(c->r, c->requests[i].id, READYD_READ), "wait");
}

/* Until the event of the bell; then all is ready for the next time. */
static void client_poll(struct client *c)
{
	unsigned last = c->b->each - 1;
	struct readyd_event e;
	uint64_t count;

	for (;;) {
		if (bench_check(c->r, readyd_poll(c->r, &e, 1, PATIENCE), "poll") != 1)
			bench_die("no event within a minute");
		if (e.cookie == last && read(c->fds[last], &count, sizeof(count)) > 0)
			break;
		bench_check(c->r, readyd_wait(c->r, e.id, READYD_READ), "wait");
	}
	atomic_store(&c->b->shared->at[c->number], bench_now());
	bench_check(c->r, readyd_wait(c->r, e.id, READYD_READ), "wait");
	bench_check(c->r, readyd_sync(c->r), "sync");
	atomic_store(&c->b->shared->loop, readyd_daemon_pid(c->r));
}

static void send_fds(int to, const int *fds, unsigned n)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(BATCH * sizeof(int))];
	} control = {0};
	uint32_t count = n;
	struct iovec iov = {.iov_base = &count, .iov_len = sizeof(count)};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)),
	};
	struct timespec pause = {.tv_nsec = 100000};

	control.header = (struct cmsghdr){
		.cmsg_len = CMSG_LEN(n * sizeof(int)),
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
	};
	memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
	while (sendmsg(to, &message, MSG_NOSIGNAL) < 0) {
		if (errno != ETOOMANYREFS)
			bench_die("sendmsg: %s", strerror(errno));
		(void)nanosleep(&pause, NULL);
	}
}

static void client_bare(struct client *c, int to)
{
	unsigned n = c->b->each;

	for (unsigned i = 0; i < n; i += BATCH)
		send_fds(to, c->fds + i, n - i < BATCH ? n - i : BATCH);
}

static _Noreturn void be_client(struct client *c, int bare)
{
	char letter;

	bench_raise_nofile();
	c->fds = calloc(c->b->each, sizeof(*c->fds));
	c->requests = calloc(c->b->each, sizeof(*c->requests));
	if (!c->fds || !c->requests)
		bench_die("no memory");
	for (unsigned i = 0; i < c->b->each - 1; i++) {
		c->fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (c->fds[i] < 0)
			bench_die("eventfd: %s", strerror(errno));
	}
	c->fds[c->b->each - 1] = c->b->bells[c->number];
	while (read(c->control, &letter, 1) == 1 && letter != 'q') {
		atomic_fetch_add(&c->b->shared->begun, 1);
		if (letter == 'c') {
			c->r = readyd_close(c->r);
			c->r = bench_connect(&c->b->daemon);
			bench_check(c->r, readyd_sync(c->r), "sync");
		} else if (letter == 'r') {
			client_register(c);
			client_poll(c);
		} else if (letter == 'p') {
			client_poll(c);
		} else {
			client_bare(c, bare);
		}
		atomic_fetch_add(&c->b->shared->done, 1);
	}
	(void)readyd_close(c->r);
	exit(0);
}

/* ---- The bare work ---- */

static unsigned receive_fds(int from, int epoll)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(BATCH * sizeof(int))];
	} control;
	uint32_t count;
	struct iovec iov = {.iov_base = &count, .iov_len = sizeof(count)};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	int fds[BATCH];

	if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) != sizeof(count) || !count || count > BATCH ||
	    control.header.cmsg_len != CMSG_LEN(count * sizeof(int)))
		bench_die("recvmsg: %s", strerror(errno));
	memcpy(fds, CMSG_DATA(&control.header), count * sizeof(int));
	for (unsigned i = 0; i < count; i++) {
		struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.u32 = i};

		if (epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &e) < 0)
			bench_die("epoll_ctl: %s", strerror(errno));
		(void)close(fds[i]);
	}
	return count;
}

static _Noreturn void be_bare(struct bench *b, const int *from)
{
	int all = epoll_create1(EPOLL_CLOEXEC), watched = epoll_create1(EPOLL_CLOEXEC);
	unsigned got = 0, n = b->clients * b->each;
	struct epoll_event e[CLIENTS_MAX];

	for (unsigned i = 0; i < b->clients; i++) {
		e[0] = (struct epoll_event){.events = EPOLLIN, .data.fd = from[i]};
		if (epoll_ctl(all, EPOLL_CTL_ADD, from[i], &e[0]) < 0)
			bench_die("epoll_ctl: %s", strerror(errno));
	}
	while (got < n) {
		int k = epoll_wait(all, e, CLIENTS_MAX, -1);

		for (int i = 0; i < k; i++)
			got += receive_fds(e[i].data.fd, watched);
	}
	atomic_store(&b->shared->bare_at, bench_now());
	atomic_store(&b->shared->bare_ready, 1);
	_exit(0);
}

/* ---- What is measured ---- */

static void tell(struct bench *b, char letter)
{
	for (unsigned i = 0; i < b->clients; i++)
		if (write(b->control[i], &letter, 1) != 1)
			bench_die("a client is gone");
	b->asked += b->clients;
}

static void await(struct bench *b)
{
	bench_await(&b->shared->done, b->asked, "what the clients have done");
}

static void ring(struct bench *b)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < b->clients; i++)
		if (write(b->bells[i], &one, sizeof(one)) != sizeof(one))
			bench_die("write: %s", strerror(errno));
}

static double last_event(struct bench *b, int64_t begin)
{
	int64_t last = 0;

	await(b);
	for (unsigned i = 0; i < b->clients; i++)
		if (atomic_load(&b->shared->at[i]) > last)
			last = atomic_load(&b->shared->at[i]);
	return (double)(last - begin) / 1e6;
}

static double measure_registration(struct bench *b)
{
	int64_t begin;

	tell(b, 'c'); /* the ends of the sessions before are over when all of these are done */
	await(b);
	tell(b, 'c');
	await(b);
	ring(b);
	begin = bench_now();
	tell(b, 'r');
	return last_event(b, begin);
}

static double measure_restart(struct bench *b)
{
	struct timespec pause = {.tv_nsec = 20000000};
	int64_t begin;

	tell(b, 'p');
	bench_await(&b->shared->begun, b->asked, "clients that poll");
	(void)nanosleep(&pause, NULL); /* and are asleep, as the loop is */
	begin = bench_now();
	if (kill((pid_t)atomic_load(&b->shared->loop), SIGKILL) < 0)
		bench_die("kill: %s", strerror(errno));
	ring(b);
	return last_event(b, begin);
}

static double measure_bare(struct bench *b, const int *from)
{
	int64_t begin = bench_now();
	pid_t pid;

	atomic_store(&b->shared->bare_ready, 0);
	pid = bench_fork();
	if (pid == 0)
		be_bare(b, from);
	tell(b, 'b');
	await(b);
	bench_await(&b->shared->bare_ready, 1, "the bare process");
	bench_join(pid);
	return (double)(atomic_load(&b->shared->bare_at) - begin) / 1e6;
}

static void say(const char *what, unsigned n, double value, const char *unit, double aim)
{
	char name[128];

	(void)snprintf(name, sizeof(name), "%u watches: %s", n, what);
	bench_say(name, value, unit, aim);
}

static void say_ratio(const char *what, unsigned n, const double *a, const double *b,
		      unsigned rounds, double aim)
{
	double ratios[ROUNDS_MAX];

	for (unsigned i = 0; i < rounds; i++)
		ratios[i] = a[i] / b[i];
	say(what, n, bench_median(ratios, rounds), "x", aim);
}

static void open_clients(struct bench *b, int *from)
{
	for (unsigned i = 0; i < b->clients; i++) {
		b->bells[i] = eventfd(0, EFD_NONBLOCK);
		if (b->bells[i] < 0)
			bench_die("eventfd: %s", strerror(errno));
	}
	for (unsigned i = 0; i < b->clients; i++) {
		struct client c = {.b = b, .number = i};
		int control[2], bare[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, control) < 0 ||
		    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, bare) < 0)
			bench_die("socketpair: %s", strerror(errno));
		c.control = control[1];
		b->pids[i] = bench_fork();
		if (b->pids[i] == 0) {
			(void)close(control[0]);
			be_client(&c, bare[1]);
		}
		(void)close(control[1]);
		(void)close(bare[1]);
		b->control[i] = control[0];
		from[i] = bare[0];
	}
}

static void measure(unsigned clients, unsigned each, unsigned rounds, bool many)
{
	struct bench b = {.clients = clients, .each = each};
	double bare[ROUNDS_MAX], registration[ROUNDS_MAX], restart[ROUNDS_MAX];
	int from[CLIENTS_MAX];
	unsigned n = clients * each;

	b.shared = bench_shared(sizeof(*b.shared));
	bench_daemon_start(&b.daemon, true);
	open_clients(&b, from);
	(void)measure_registration(&b); /* warm */
	for (unsigned i = 0; i < rounds; i++) {
		bare[i] = measure_bare(&b, from);
		registration[i] = measure_registration(&b);
		restart[i] = measure_restart(&b);
	}
	tell(&b, 'q');
	for (unsigned i = 0; i < clients; i++) {
		bench_join(b.pids[i]);
		(void)close(b.control[i]);
		(void)close(from[i]);
		(void)close(b.bells[i]);
	}
	bench_daemon_stop(&b.daemon);
	say_ratio("kill to first event / registering", n, restart, registration, rounds,
		  many ? 1.5 : (double)NAN);
	say_ratio("kill to first event / bare fork and work", n, restart, bare, rounds, NAN);
	say_ratio("registering / bare fork and work", n, registration, bare, rounds, NAN);
	say("kill to first event", n, bench_median(restart, rounds), "ms", many ? (double)NAN : 20);
	say("registering", n, bench_median(registration, rounds), "ms", NAN);
	say("bare fork and work", n, bench_median(bare, rounds), "ms", NAN);
}

int main(void)
{
	measure(1, 1000, 21, false);
	measure(6, 16667, 7, true);
	return 0;
}
