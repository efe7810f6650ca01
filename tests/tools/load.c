/* SPDX-License-Identifier: MIT */

/*
 * A load program for echo servers, on plain epoll: N connections, of which each sends a message,
 * waits for its echo, compares it, and sends the next; all messages are numbered and the order of
 * connections is drawn at random, so that the server sees single ones and bursts.
 *
 *   load PORT CONNECTIONS MESSAGES [--hold]
 *
 * Prints "N connections, N messages, p50 N us, p99 N us". With --hold it prints "holding" when
 * half of the messages are through, and goes on when a line (or the end) comes on its stdin: the
 * time to look at the daemon from outside. Exit status 1 at the first wrong byte or lost echo.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, BURST = 64, PATIENCE_MS = 20000 };

struct peer {
	int fd;
	bool busy;
	size_t got;
	uint64_t sent_at; /* ns */
	unsigned char message[SIZE];
};

struct load {
	int epoll;
	struct peer *peers;
	unsigned n;
	uint64_t wanted, sent, done;
	unsigned under_way;
	uint32_t *latencies; /* ns */
	uint64_t random;
};

static uint64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void die(const char *what)
{
	(void)fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

/* xorshift64: enough to choose a connection by. */
static uint64_t draw(struct load *l)
{
	l->random ^= l->random << 13;
	l->random ^= l->random >> 7;
	l->random ^= l->random << 17;
	return l->random;
}

static void open_all(struct load *l, uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int one = 1;

	for (unsigned i = 0; i < l->n; i++) {
		struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
			die("cannot connect");
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		l->peers[i].fd = fd;
		if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
			die("cannot watch");
	}
}

static void send_one(struct load *l, struct peer *p)
{
	uint64_t number = l->sent++;

	for (size_t i = 0; i < SIZE; i++)
		p->message[i] = (unsigned char)((number >> 8 * (i % 8)) ^ i);
	p->busy = true;
	p->got = 0;
	p->sent_at = now();
	l->under_way++;
	if (send(p->fd, p->message, SIZE, MSG_NOSIGNAL) != SIZE)
		die("cannot send");
}

/* A burst of random size to idle connections, chosen at random. */
static void send_some(struct load *l, uint64_t until)
{
	unsigned burst = 1 + (unsigned)(draw(l) % BURST);

	for (unsigned i = 0; i < burst && l->sent < until; i++) {
		struct peer *p = &l->peers[draw(l) % l->n];

		if (!p->busy)
			send_one(l, p);
	}
}

static void receive_one(struct load *l, struct peer *p)
{
	unsigned char bytes[SIZE];
	ssize_t n = recv(p->fd, bytes, SIZE - p->got, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || memcmp(bytes, p->message + p->got, (size_t)n) != 0) {
		(void)fprintf(stderr, "load: a connection %s\n",
			      n <= 0 ? "was closed" : "got other bytes than it sent");
		exit(EXIT_FAILURE);
	}
	p->got += (size_t)n;
	if (p->got < SIZE)
		return;
	p->busy = false;
	l->under_way--;
	l->latencies[l->done++] = (uint32_t)(now() - p->sent_at);
}

static void run_until(struct load *l, uint64_t until)
{
	struct epoll_event events[256];

	while (l->done < until) {
		int n;

		if (l->under_way < BURST && l->sent < until)
			send_some(l, until);
		n = epoll_wait(l->epoll, events, 256, PATIENCE_MS);
		if (n == 0) {
			(void)fprintf(stderr, "load: %u echoes never came\n", l->under_way);
			exit(EXIT_FAILURE);
		}
		for (int i = 0; i < n; i++)
			receive_one(l, &l->peers[events[i].data.u32]);
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char *argv[])
{
	struct load l = {.random = UINT64_C(0x9e3779b97f4a7c15)};
	struct rlimit limit;

	if (argc < 4) {
		(void)fprintf(stderr, "usage: load PORT CONNECTIONS MESSAGES [--hold]\n");
		return 2;
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	l.n = (unsigned)strtoul(argv[2], NULL, 10);
	l.wanted = strtoull(argv[3], NULL, 10);
	l.peers = calloc(l.n, sizeof(*l.peers));
	l.latencies = calloc(l.wanted, sizeof(*l.latencies));
	l.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!l.peers || !l.latencies || l.epoll < 0 || l.n == 0 || l.wanted < 2)
		die("cannot start");
	open_all(&l, (uint16_t)strtoul(argv[1], NULL, 10));
	run_until(&l, l.wanted / 2);
	if (argc > 4 && strcmp(argv[4], "--hold") == 0) {
		printf("holding\n");
		(void)fflush(stdout);
		(void)getchar();
	}
	run_until(&l, l.wanted);
	qsort(l.latencies, l.done, sizeof(*l.latencies), compare);
	printf("%u connections, %llu messages, p50 %u us, p99 %u us\n", l.n,
	       (unsigned long long)l.done, l.latencies[l.done / 2] / 1000,
	       l.latencies[l.done - 1 - l.done / 100] / 1000);
	return EXIT_SUCCESS;
}
