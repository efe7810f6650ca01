/* SPDX-License-Identifier: MIT */

/*
 * What parks cost. First: from SIGKILL of the loop until 10,000 parks are served again, which is
 * when one of them is handed out; beside it, in turns, the bare work: a fork, then as many fds sent
 * to the new process, 253 a message, and added to an epoll.
 *
 * Then, by a daemon with a keeper and holders and one without, in turns, all on one core: PARK, and
 * TAKE with its ACKNOWLEDGE, one at a time and eight at a time.
 */

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "protocol/wire.h"

enum { PARKS = 10000, BATCH = 253, RESTARTS = 15, ROUNDS = 31, TURNS = 400, AT_ONCE = 8 };

/* ---- A client ---- */

struct client {
	int fd;
	uint32_t serial;
	size_t size;
	_Alignas(8) uint8_t message[WIRE_MESSAGE_MAX];
	unsigned n_fds;
	int fds[AT_ONCE];
	uint32_t loop; /* its pid */
};

static void add(struct client *c, unsigned type, const void *records, size_t n)
{
	unsigned flags = type == WIRE_HELLO ? 0 : WIRE_FLAG_ANSWER;

	c->size += wire_encode(c->message + c->size, sizeof(c->message) - c->size, type, flags,
			       ++c->serial, records, n, NULL, 0);
}

static void add_park(struct client *c, const uint8_t *token, int fd)
{
	struct wire_park park = {.fd = fd, .interest = WIRE_READ};

	memcpy(park.token, token, sizeof(park.token));
	add(c, WIRE_PARK, &park, 1);
	c->fds[c->n_fds++] = fd;
}

static void add_take(struct client *c, const uint8_t *token)
{
	struct wire_take take = {.by = WIRE_TAKE_BY_TOKEN};

	memcpy(take.token, token, sizeof(take.token));
	add(c, WIRE_TAKE, &take, 1);
}

static void send_fds(int to, const void *bytes, size_t size, const int *fds, unsigned n)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(BATCH * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n > 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n * sizeof(int));
		control.header = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(n * sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
	}
	if (sendmsg(to, &message, MSG_NOSIGNAL) < 0)
		bench_die("sendmsg: %s", strerror(errno));
}

/* Returns bytes; *ret_n: in, room for fds. */
static size_t receive_fds(int from, void *bytes, size_t size, int *ret_fds, unsigned *ret_n)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(BATCH * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = bytes, .iov_len = size};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(*ret_n * sizeof(int)),
	};
	ssize_t n = recvmsg(from, &message, MSG_CMSG_CLOEXEC);

	if (n <= 0)
		bench_die("a connection has ended: %s", strerror(errno));
	*ret_n = 0;
	if (message.msg_controllen >= CMSG_LEN(sizeof(int))) {
		*ret_n = (unsigned)((control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(ret_fds, CMSG_DATA(&control.header), *ret_n * sizeof(int));
	}
	return (size_t)n;
}

static void send_all(struct client *c)
{
	send_fds(c->fd, c->message, c->size, c->fds, c->n_fds);
	c->size = 0;
	c->n_fds = 0;
}

/* Of one message: answers with OK are counted. */
static unsigned count_answers(struct client *c)
{
	const struct wire_header *header = (const void *)c->message;
	const struct wire_answer *records = (const void *)(header + 1);
	unsigned n = 0;

	if (header->type == WIRE_ERROR)
		bench_die("the daemon says error %u", *(const uint32_t *)(const void *)records);
	if (header->type == WIRE_WELCOME)
		c->loop = ((const struct wire_welcome *)(const void *)records)->pid;
	for (uint32_t i = 0; header->type == WIRE_READY && i < header->count; i++) {
		if (records[i].kind != WIRE_RECORD_ANSWER)
			continue;
		if (records[i].error != WIRE_OK)
			bench_die("a request was refused: %u", records[i].error);
		n++;
	}
	return n;
}

/* Until so many answers, and handed out fds, are there. */
static void await(struct client *c, unsigned answers, unsigned fds)
{
	unsigned got = 0;

	while (got < answers || c->n_fds < fds) {
		unsigned n = 1;

		(void)receive_fds(c->fd, c->message, sizeof(c->message), c->fds + c->n_fds, &n);
		c->n_fds += n;
		got += count_answers(c);
	}
}

static void open_client(struct client *c, const struct bench_daemon *d)
{
	struct wire_hello hello = {
		.magic = WIRE_MAGIC,
		.lowest = WIRE_PROTOCOL_LOWEST,
		.highest = WIRE_PROTOCOL_HIGHEST,
	};
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	(void)strcpy(address.sun_path, d->socket);
	c->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		bench_die("connect: %s", strerror(errno));
	(void)getrandom(hello.handle, sizeof(hello.handle), 0);
	c->size = 0;
	c->n_fds = 0;
	add(c, WIRE_HELLO, &hello, 1);
}

static void park_one(struct client *c, const uint8_t *token, int fd)
{
	add_park(c, token, fd);
	send_all(c);
	await(c, 1, 0);
}

static void acknowledge(struct client *c, uint8_t (*tokens)[WIRE_TOKEN_SIZE], unsigned n)
{
	struct wire_held held[AT_ONCE] = {0};

	for (unsigned i = 0; i < n; i++) {
		memcpy(held[i].token, tokens[i], WIRE_TOKEN_SIZE);
		held[i].held = 1;
	}
	add(c, WIRE_ACKNOWLEDGE, held, n);
	send_fds(c->fd, c->message, c->size, NULL, 0);
	c->size = 0;
	await(c, 1, 0);
}

/* ---- 10,000 parks and a death ---- */

/* What is parked is sockets; of this kind one is enough, and nothing happens to it. */
static int new_fd(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		bench_die("socket: %s", strerror(errno));
	return fd;
}

/* The one who has the fds, and sends them when it is told to. */
static _Noreturn void be_sender(int control, int to)
{
	static int fds[PARKS];
	char letter;

	for (unsigned i = 0; i < PARKS; i++)
		fds[i] = new_fd();
	while (read(control, &letter, 1) == 1)
		for (unsigned i = 0; i < PARKS; i += BATCH) {
			uint32_t n = PARKS - i < BATCH ? PARKS - i : BATCH;

			send_fds(to, &n, sizeof(n), fds + i, n);
		}
	exit(0);
}

static _Noreturn void be_receiver(int from, atomic_llong *at)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	unsigned got = 0;

	while (got < PARKS) {
		unsigned n = BATCH;
		int fds[BATCH];
		uint32_t count;

		(void)receive_fds(from, &count, sizeof(count), fds, &n);
		for (unsigned i = 0; i < n; i++) {
			struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};

			if (epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &e) < 0)
				bench_die("epoll_ctl: %s", strerror(errno));
		}
		got += n;
	}
	atomic_store(at, bench_now());
	_exit(0);
}

static double measure_bare(int control, int from, atomic_llong *at)
{
	int64_t begin = bench_now();
	pid_t pid = bench_fork();

	if (pid == 0)
		be_receiver(from, at);
	if (write(control, "b", 1) != 1)
		bench_die("the sender is gone");
	bench_join(pid);
	return (double)(atomic_load(at) - begin) / 1e6;
}

static double measure_death(struct client *c, const struct bench_daemon *d, uint8_t *token)
{
	struct timespec pause = {.tv_nsec = 20000000};
	int64_t begin, end;

	(void)nanosleep(&pause, NULL); /* all are asleep */
	begin = bench_now();
	if (kill((pid_t)c->loop, SIGKILL) < 0)
		bench_die("kill: %s", strerror(errno));
	(void)close(c->fd);
	open_client(c, d);
	add_take(c, token);
	send_all(c);
	await(c, 1, 1);
	end = bench_now();
	acknowledge(c, (uint8_t(*)[WIRE_TOKEN_SIZE])token, 1);
	c->n_fds = 0;
	park_one(c, token, c->fds[0]);
	(void)close(c->fds[0]);
	return (double)(end - begin) / 1e6;
}

static void measure_deaths(void)
{
	static struct client c;
	atomic_llong *at = bench_shared(sizeof(*at));
	double bare[RESTARTS], death[RESTARTS], ratios[RESTARTS];
	uint8_t token[WIRE_TOKEN_SIZE];
	struct bench_daemon d;
	int control[2], way[2];
	pid_t sender;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, way) < 0)
		bench_die("socketpair: %s", strerror(errno));
	sender = bench_fork();
	if (sender == 0) {
		(void)close(control[0]);
		be_sender(control[1], way[1]);
	}
	(void)close(control[1]);
	bench_daemon_start(&d, true);
	open_client(&c, &d);
	for (unsigned i = 0; i < PARKS; i++) {
		int fd = new_fd();

		(void)getrandom(token, sizeof(token), 0);
		park_one(&c, token, fd);
		(void)close(fd);
	}
	for (unsigned i = 0; i < RESTARTS; i++) {
		bare[i] = measure_bare(control[0], way[0], at);
		death[i] = measure_death(&c, &d, token);
		ratios[i] = death[i] / bare[i];
	}
	(void)close(control[0]);
	bench_join(sender);
	(void)close(c.fd);
	bench_daemon_stop(&d);
	bench_say("10000 parks: kill to a hand-out / bare fork and work",
		  bench_median(ratios, RESTARTS), "x", 1.5);
	bench_say("10000 parks: kill to a hand-out", bench_median(death, RESTARTS), "ms", NAN);
	bench_say("10000 parks: bare fork and work", bench_median(bare, RESTARTS), "ms", NAN);
}

/* ---- What one costs ---- */

struct side {
	struct bench_daemon daemon;
	struct client c;
	double park[2][ROUNDS], take[2][ROUNDS]; /* one at a time, eight; ns each */
};

static void measure_side(struct side *s, unsigned which, unsigned round, const int *fds)
{
	unsigned n = which ? AT_ONCE : 1;
	uint8_t tokens[AT_ONCE][WIRE_TOKEN_SIZE];
	int64_t park = 0, take = 0, begin;

	for (unsigned turn = 0; turn < TURNS; turn++) {
		(void)getrandom(tokens, sizeof(tokens), 0);
		begin = bench_now();
		for (unsigned i = 0; i < n; i++)
			add_park(&s->c, tokens[i], fds[i]);
		send_all(&s->c);
		await(&s->c, n, 0);
		park += bench_now() - begin;
		begin = bench_now();
		for (unsigned i = 0; i < n; i++)
			add_take(&s->c, tokens[i]);
		send_all(&s->c);
		await(&s->c, n, n);
		acknowledge(&s->c, tokens, n);
		take += bench_now() - begin;
		while (s->c.n_fds > 0)
			(void)close(s->c.fds[--s->c.n_fds]);
	}
	s->park[which][round] = (double)park / TURNS / n;
	s->take[which][round] = (double)take / TURNS / n;
}

static void compare(const char *what, double *with, double *without)
{
	double ratios[ROUNDS];
	char name[128];

	for (unsigned i = 0; i < ROUNDS; i++)
		ratios[i] = with[i] / without[i];
	(void)snprintf(name, sizeof(name), "%s: with a holder / without", what);
	bench_say(name, bench_median(ratios, ROUNDS), "x", NAN);
	(void)snprintf(name, sizeof(name), "%s, with a holder", what);
	bench_say(name, bench_median(with, ROUNDS) / 1e3, "us", NAN);
	(void)snprintf(name, sizeof(name), "%s, without", what);
	bench_say(name, bench_median(without, ROUNDS) / 1e3, "us", NAN);
}

static void measure_costs(void)
{
	static struct side sides[2]; /* with, without */
	int fds[AT_ONCE];

	for (unsigned i = 0; i < AT_ONCE; i++)
		fds[i] = new_fd();
	for (unsigned i = 0; i < 2; i++) {
		bench_daemon_start(&sides[i].daemon, i == 0);
		open_client(&sides[i].c, &sides[i].daemon);
	}
	for (unsigned round = 0; round < ROUNDS; round++)
		for (unsigned i = 0; i < 4; i++)
			measure_side(&sides[(i ^ round) & 1], i >> 1, round, fds);
	compare("PARK", sides[0].park[0], sides[1].park[0]);
	compare("PARK, 8 at once", sides[0].park[1], sides[1].park[1]);
	compare("TAKE and ACKNOWLEDGE", sides[0].take[0], sides[1].take[0]);
	compare("TAKE and ACKNOWLEDGE, 8 at once", sides[0].take[1], sides[1].take[1]);
	for (unsigned i = 0; i < 2; i++) {
		(void)close(sides[i].c.fd);
		bench_daemon_stop(&sides[i].daemon);
	}
	for (unsigned i = 0; i < AT_ONCE; i++)
		(void)close(fds[i]);
}

int main(void)
{
	bench_raise_nofile();
	measure_deaths();
	bench_one_core();
	measure_costs();
	return 0;
}
