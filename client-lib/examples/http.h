/* SPDX-License-Identifier: MIT */
#ifndef EXAMPLE_HTTP_H
#define EXAMPLE_HTTP_H

/* What the files of the HTTP server share. Times are ns of CLOCK_MONOTONIC. */

#include <signal.h>
#include <stdint.h>

#define SECOND INT64_C(1000000000)
#define REQUEST_TIME (10 * SECOND) /* for a request to come, and for its answer to be taken */

struct server {
	int listener; /* non-blocking */
	int64_t idle; /* time without a request after which a connection is closed */
	const char *group;
	sigset_t open; /* the signals that are blocked while a process waits: none of ours */
	int (*work)(struct server *s);
};

/* SIGTERM and SIGINT, which end the server, are blocked but while a process waits for something to do:
 * a request that is being answered is answered. */
extern volatile sig_atomic_t http_stopping;

int64_t http_now(void);
void http_die(const char *what, const char *why) __attribute__((noreturn));

/* A new connection, non-blocking; -1: there is none. */
int http_accept(const struct server *s);

/* http_epoll.c: serves all connections until it is stopped. Returns the exit status. */
int http_work_epoll(struct server *s);

#endif
