/* SPDX-License-Identifier: MIT */
#include "reading.h"

#include "connection.h"
#include "parking.h"

/*
 * Two queues. A datagram of wakes and waits costs microseconds; one that brings 253 fds, a
 * millisecond; and when a thousand clients come back at once, each has some of these. So those who
 * register much, or have just connected and are likely to, are read after the others, and in a turn
 * only as many as amount to BUDGET fds. The rest stays, and the next turn follows at once: each turn
 * reads one of them at least, and who works meanwhile waits for one such turn, not for all.
 *
 * A client counts as one that registers much for a few datagrams longer: its waits come in between.
 */

enum {
	BUDGET = 512,  /* fds, a turn */
	BASE = 16,     /* what a datagram costs in any case, in fds: a HELLO makes an epoll */
	MUCH = 16,     /* fds of one datagram */
	STAYS_FOR = 2, /* datagrams */
};

void reading_init(struct server *s)
{
	TAILQ_INIT(&s->readable);
	TAILQ_INIT(&s->registering);
}

static struct connection_queue *queue_of(struct connection *c)
{
	return c->in_registering ? &c->server->registering : &c->server->readable;
}

void reading_add(struct connection *c)
{
	if (c->in_readable)
		return;
	c->in_readable = true;
	c->in_registering = !c->greeted || c->registers > 0;
	TAILQ_INSERT_TAIL(queue_of(c), c, readable);
}

void reading_remove(struct connection *c)
{
	if (!c->in_readable)
		return;
	c->in_readable = false;
	TAILQ_REMOVE(queue_of(c), c, readable);
}

/* Whether the next datagram has a request about parks; it stays where it is, and so do its fds. */
static bool is_about_parks(struct connection *c)
{
	uint8_t *message = c->server->buffers.message;
	ssize_t n = recv(c->fd, message, WIRE_MESSAGE_MAX, MSG_PEEK | MSG_DONTWAIT);
	struct wire_view view;

	for (size_t at = 0; n > 0 && at < (size_t)n; at += view.size) {
		if (wire_decode(message + at, (size_t)n - at, true, &view, NULL) != WIRE_OK)
			return false;
		if ((view.header.type >= WIRE_PARK && view.header.type <= WIRE_DETACH) ||
		    view.header.type == WIRE_LIST_PARKS || view.header.type == WIRE_LIST_GROUPS)
			return true;
	}
	return false;
}

/* Returns how many fds came with it. */
static unsigned read_one(struct connection *c)
{
	bool greeted = c->greeted;
	struct parking *k;
	unsigned n;

	reading_remove(c);
	/* one that was held back, and has not said yet what was kept, comes again */
	if (c->closing || c->blocked || c->held || c->backlog)
		return 0;
	k = concern_returning(c);
	if (k && is_about_parks(c)) {
		link_hold(c, k);
		return 0;
	}
	progress_enter(&c->server->progress, PROGRESS_REQUEST, c->who.uid, c->who.pid, c->number);
	n = connection_read(c);
	if (!greeted)
		c->registers = 1; /* what it begins with will tell */
	else if (n >= MUCH)
		c->registers = STAYS_FOR;
	else if (c->registers > 0)
		c->registers--;
	return n;
}

/* The next one of a queue; NULL: none, or there is no room for its answers in this turn. */
static struct connection *next_of(struct server *s, const struct connection_queue *queue)
{
	struct connection *c = TAILQ_FIRST(queue);

	if (!c || outbox_has_room(&s->outbox))
		return c;
	s->unfinished = true; /* the rest stays, and comes first in the next turn */
	return NULL;
}

void reading_run(struct server *s)
{
	struct connection *c;
	unsigned spent = 0;

	while ((c = next_of(s, &s->readable)))
		(void)read_one(c);
	while (spent < BUDGET && (c = next_of(s, &s->registering)))
		spent += BASE + read_one(c);
	if (!TAILQ_EMPTY(&s->registering))
		s->unfinished = true;
	progress_leave(&s->progress);
}
