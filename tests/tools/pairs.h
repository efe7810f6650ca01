/* SPDX-License-Identifier: MIT */
#ifndef PAIRS_H
#define PAIRS_H

/*
 * What programs share that send numbers through parked connections: one handle a process, and the
 * master's ends of socket pairs, in which each number has to come back once and in order.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client-lib/readyd.h"

#define MS INT64_C(1000000)
#define PATIENCE (60000 * MS)

struct pair {
	int fd; /* the master's end */
	uint64_t sent, back;
	int64_t since; /* when the last number was written */
};

static struct readyd *r;
static const char *address; /* of the daemon's socket */

static inline int64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 * MS + ts.tv_nsec;
}

static inline void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)fprintf(stderr, "%d: ", getpid());
	(void)vfprintf(stderr, format, arguments);
	va_end(arguments);
	(void)fputc('\n', stderr);
	_exit(1);
}

static inline int check(int result, const char *what)
{
	if (result < 0)
		die("%s: %s", what, readyd_last_error(r));
	return result;
}

static inline void say(const char *line)
{
	(void)puts(line);
	(void)fflush(stdout);
}

static inline void connect_handle(void)
{
	struct readyd_options o = {.size = sizeof(o), .socket = address};
	char *error = NULL;

	/* The first connect is not repeated by the library: the daemon may be away just then. */
	for (int64_t end = now() + PATIENCE; readyd_connect(&o, &r, &error) < 0; free(error)) {
		if (now() > end)
			die("%s", error ? error : "no memory");
		(void)poll(NULL, 0, 10);
	}
}

static inline void pair_open(int ends[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
		die("socketpair: %s", strerror(errno));
}

static inline void send_next(struct pair *p)
{
	if (write(p->fd, &p->sent, sizeof(p->sent)) != (ssize_t)sizeof(p->sent))
		die("write: %s", strerror(errno));
	p->sent++;
	p->since = now();
}

/* Whether a number came back. */
static inline bool look(const struct pair *pairs, struct pair *p)
{
	unsigned i = (unsigned)(p - pairs);
	uint64_t number;
	ssize_t n = read(p->fd, &number, sizeof(number));

	if (n < 0 && errno == EAGAIN) {
		if (p->back != p->sent && now() - p->since > PATIENCE)
			die("connection %u: number %" PRIu64 " is lost", i, p->back);
		return false;
	}
	if (n != (ssize_t)sizeof(number))
		die("connection %u is lost: read %zd, waiting for %" PRIu64, i, n, p->back);
	if (number != p->back || p->back == p->sent)
		die("connection %u: %" PRIu64 " came where %" PRIu64 " should", i, number, p->back);
	p->back++;
	return true;
}

/* The other end was closed here: no other copy of it may be left. The holder closes its own a moment
 * after the answer. */
static inline void await_end(int fd, unsigned i)
{
	struct pollfd end = {.fd = fd, .events = POLLIN};
	char byte;

	if (poll(&end, 1, (int)(PATIENCE / MS)) != 1 || read(fd, &byte, 1) != 0)
		die("connection %u does not end: a copy is left", i);
	(void)close(fd);
}

#endif
