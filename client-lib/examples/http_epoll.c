/* SPDX-License-Identifier: MIT */

/*
 * The HTTP server in one process: one epoll, level-triggered, for all connections.
 *
 * A connection that is idle is a small struct and nothing more. Buffers exist for those of which a
 * part of a request, or of an answer, is in memory. Deadlines stand in two lists, of those that are
 * idle and those that are not: in each all have the same time to go, so the first is the next.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "http.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <unistd.h>

#include "http_request.h"

enum { BATCH = 64 };

TAILQ_HEAD(list, connection);

struct connection {
	int fd;
	bool full; /* registered for writing */
	uint32_t answered;
	int64_t deadline;
	struct list *list; /* the one it is on */
	struct http *http; /* NULL: idle */
	TAILQ_ENTRY(connection) link;
};

struct loop {
	int epoll;
	struct list idle, busy;
	struct http *spare; /* most requests come whole: one buffer does for all of them */
};

static void move_to(struct connection *c, struct list *list, int64_t deadline)
{
	if (c->list)
		TAILQ_REMOVE(c->list, c, link);
	c->list = list;
	c->deadline = deadline;
	TAILQ_INSERT_TAIL(list, c, link);
}

static void end(struct connection *c)
{
	TAILQ_REMOVE(c->list, c, link);
	(void)close(c->fd);
	free(c->http);
	free(c);
}

static void accept_new(struct loop *l, const struct server *s)
{
	int fd = http_accept(s);
	struct connection *c = fd < 0 ? NULL : calloc(1, sizeof(*c));
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};

	if (!c || epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &e) < 0) {
		if (fd >= 0)
			(void)close(fd);
		free(c);
		return;
	}
	c->fd = fd;
	move_to(c, &l->idle, http_now() + s->idle);
}

static void serve_ready(struct loop *l, const struct server *s, struct connection *c)
{
	struct http *h = c->http ? c->http : l->spare;
	enum http_state state;

	if (!c->http)
		http_begin(h, c->answered);
	state = http_serve(h, c->fd);
	if (state == HTTP_IDLE)
		move_to(c, &l->idle, http_now() + s->idle);
	else if (!c->http || c->answered != h->answered)
		move_to(c, &l->busy, http_now() + REQUEST_TIME);
	c->answered = h->answered;
	if ((state == HTTP_FULL) != c->full) {
		struct epoll_event e = {.data.ptr = c};

		c->full = !c->full;
		e.events = c->full ? EPOLLOUT : EPOLLIN;
		(void)epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd, &e);
	}
	if (state == HTTP_IDLE && c->http) {
		free(c->http);
		c->http = NULL;
	} else if ((state == HTTP_HALF || state == HTTP_FULL) && !c->http) {
		c->http = h;
		l->spare = malloc(sizeof(*h));
		if (!l->spare)
			http_die("cannot go on", strerror(errno));
	} else if (state == HTTP_END) {
		end(c);
	}
}

/* Ends those that are over, and says how many ms are left for the next one; -1: there is none. */
static int expire(struct loop *l)
{
	struct connection *c;
	int64_t t = http_now(), next = INT64_MAX;

	while ((c = TAILQ_FIRST(&l->idle)) && c->deadline <= t)
		end(c);
	next = c ? c->deadline : next;
	while ((c = TAILQ_FIRST(&l->busy)) && c->deadline <= t) {
		http_give_up(c->http, c->fd);
		end(c);
	}
	next = c && c->deadline < next ? c->deadline : next;
	return next == INT64_MAX ? -1 : (int)((next - t) / 1000000) + 1;
}

int http_work_epoll(struct server *s)
{
	struct loop l = {
		.epoll = epoll_create1(EPOLL_CLOEXEC),
		.idle = TAILQ_HEAD_INITIALIZER(l.idle),
		.busy = TAILQ_HEAD_INITIALIZER(l.busy),
		.spare = malloc(sizeof(*l.spare)),
	};
	struct epoll_event events[BATCH] = {{.events = EPOLLIN}}; /* the listener's is NULL */
	struct connection *c;

	if (l.epoll < 0 || !l.spare ||
	    epoll_ctl(l.epoll, EPOLL_CTL_ADD, s->listener, &events[0]) < 0)
		http_die("cannot serve", strerror(errno));
	while (!http_stopping) {
		int n = epoll_pwait(l.epoll, events, BATCH, expire(&l), &s->open);

		for (int i = 0; i < n; i++)
			if (events[i].data.ptr)
				serve_ready(&l, s, events[i].data.ptr);
			else
				accept_new(&l, s);
	}
	while ((c = TAILQ_FIRST(&l.idle)) || (c = TAILQ_FIRST(&l.busy)))
		end(c);
	free(l.spare);
	return EXIT_SUCCESS;
}
