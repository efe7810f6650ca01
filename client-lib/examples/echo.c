/* SPDX-License-Identifier: MIT */

/*
 * A TCP echo server on libreadyd: one process, any number of connections, none of them watched by
 * itself. It shows the whole life of a watch: watch, wait, ready, drain, wait again, unwatch; a
 * deadline that every read extends; and what to do when the peer reads slowly.
 *
 *   cc -o echo echo.c $(pkg-config --cflags --libs readyd)
 *   ./echo [--port N] [--idle SECONDS]
 *
 * Listens on 127.0.0.1, prints "port N", and serves until SIGTERM or SIGINT. Without a running
 * daemon it starts a private one.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4 */
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <readyd.h>

#define SECOND INT64_C(1000000000)

enum { BATCH = 256, CHUNK = 4096 };

/* One connection. `pending` bytes were read and not written yet: until they are, nothing is read. */
struct client {
	LIST_ENTRY(client) list;
	int fd;
	readyd_id watch;
	size_t start, pending;
	char buffer[CHUNK];
};

struct server {
	struct readyd *readyd;
	int listener;
	readyd_id listener_watch;
	int64_t idle; /* ns without a byte after which a connection is closed */
	uint64_t connections, bytes;
	LIST_HEAD(, client) clients;
};

static volatile sig_atomic_t stopping;
static struct readyd *volatile to_break;

static void stop(int number)
{
	(void)number;
	stopping = 1;
	if (to_break)
		readyd_break(to_break);
}

static int64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * SECOND + ts.tv_nsec;
}

static void die(struct readyd *r, const char *what, int error)
{
	(void)fprintf(stderr, "echo: %s: %s\n", what,
		      r && error < 0 ? readyd_last_error(r) : strerror(-error));
	exit(EXIT_FAILURE);
}

/* The daemon is told before the fd is closed: the watch ends even if a child holds a copy. */
static void client_close(struct server *s, struct client *c)
{
	(void)readyd_unwatch(s->readyd, c->watch, c->fd);
	LIST_REMOVE(c, list);
	(void)close(c->fd);
	free(c);
}

/* Writes what is pending. 1: all of it; 0: the socket is full, wait for it; -1: the peer is gone. */
static int client_flush(struct server *s, struct client *c)
{
	while (c->pending > 0) {
		ssize_t n = send(c->fd, c->buffer + c->start, c->pending, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		c->start += (size_t)n;
		c->pending -= (size_t)n;
		s->bytes += (uint64_t)n;
	}
	return 1;
}

/*
 * Reads and echoes until the kernel says EAGAIN: readiness is reported once for each change, so
 * stopping earlier would wait for bytes that are there already.
 */
static void client_serve(struct server *s, struct client *c)
{
	for (;;) {
		int r = client_flush(s, c);
		ssize_t n;

		if (r < 0)
			break;
		if (r == 0) {
			if (readyd_wait(s->readyd, c->watch, READYD_WRITE) < 0)
				break;
			return;
		}
		n = recv(c->fd, c->buffer, sizeof(c->buffer), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			(void)readyd_set_deadline(s->readyd, c->watch, READYD_READ,
						  now() + s->idle);
			if (readyd_wait(s->readyd, c->watch, READYD_READ) < 0)
				break;
			return;
		}
		if (n <= 0)
			break;
		c->start = 0;
		c->pending = (size_t)n;
	}
	client_close(s, c);
}

static void client_new(struct server *s, int fd)
{
	struct client *c = calloc(1, sizeof(*c));
	int one = 1, r;

	if (!c) {
		(void)close(fd);
		return;
	}
	c->fd = fd;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	r = readyd_watch(s->readyd, fd, READYD_READ | READYD_WRITE, READYD_WAIT, (uintptr_t)c,
			 &c->watch);
	if (r < 0) {
		(void)fprintf(stderr, "echo: a connection is refused: %s\n",
			      readyd_last_error(s->readyd));
		(void)close(fd);
		free(c);
		return;
	}
	LIST_INSERT_HEAD(&s->clients, c, list);
	s->connections++;
	client_serve(s, c);
}

static void accept_all(struct server *s)
{
	for (;;) {
		int fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0)
			break;
		client_new(s, fd);
	}
	if (readyd_wait(s->readyd, s->listener_watch, READYD_READ) < 0)
		die(s->readyd, "cannot wait for connections", -ENOTCONN);
}

static void handle(struct server *s, const struct readyd_event *e)
{
	struct client *c = (struct client *)(uintptr_t)e->cookie;

	if (e->kind != READYD_EVENT_WATCH)
		return;
	if (!c) /* the listener's cookie is 0 */
		accept_all(s);
	else if ((e->read | e->write) & (READYD_TIMEOUT | READYD_CLOSING))
		client_close(s, c);
	else
		client_serve(s, c);
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
	if (s->listener < 0 ||
	    setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(s->listener, (struct sockaddr *)&address, length) < 0 ||
	    listen(s->listener, 4096) < 0 ||
	    getsockname(s->listener, (struct sockaddr *)&address, &length) < 0)
		die(NULL, "cannot listen", -errno);
	printf("port %u\n", ntohs(address.sin_port));
	(void)fflush(stdout);
}

static void serve(struct server *s)
{
	struct readyd_event events[BATCH];

	accept_all(s);
	while (!stopping) {
		int n = readyd_poll(s->readyd, events, BATCH, -1);

		if (n < 0)
			die(s->readyd, "the daemon is gone", n);
		for (int i = 0; i < n; i++)
			handle(s, &events[i]);
	}
}

/* All watches end with the connection to the daemon. */
static void end(struct server *s)
{
	struct client *c;

	readyd_close(s->readyd);
	while ((c = LIST_FIRST(&s->clients))) {
		LIST_REMOVE(c, list);
		(void)close(c->fd);
		free(c);
	}
	(void)close(s->listener);
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

int main(int argc, char *argv[])
{
	static const struct option known[] = {
		{"port", required_argument, NULL, 'p'},
		{"idle", required_argument, NULL, 'i'},
		{0},
	};
	struct readyd_options options = {.size = sizeof(options),
					 .flags = READYD_PRIVATE_IF_NEEDED};
	struct server server = {.idle = 60 * SECOND};
	struct sigaction action = {.sa_handler = stop};
	char *error = NULL;
	uint16_t port = 0;
	int c, r;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (c == 'p')
			port = (uint16_t)strtoul(optarg, NULL, 10);
		else if (c == 'i')
			server.idle = strtol(optarg, NULL, 10) * SECOND;
		else
			return 2;
	}
	raise_nofile();
	r = readyd_connect(&options, &server.readyd, &error);
	if (r < 0) {
		(void)fprintf(stderr, "echo: %s\n", error ? error : strerror(-r));
		free(error);
		return EXIT_FAILURE;
	}
	to_break = server.readyd;
	(void)sigaction(SIGTERM, &action, NULL);
	(void)sigaction(SIGINT, &action, NULL);
	listen_on(&server, port);
	r = readyd_watch(server.readyd, server.listener, READYD_READ, READYD_WAIT, 0,
			 &server.listener_watch);
	if (r < 0)
		die(server.readyd, "cannot watch the listener", r);
	serve(&server);
	printf("%" PRIu64 " connections, %" PRIu64 " bytes\n", server.connections, server.bytes);
	to_break = NULL;
	end(&server);
	return EXIT_SUCCESS;
}
