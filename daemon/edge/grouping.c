/* SPDX-License-Identifier: MIT */
#include "grouping.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "daemon/core/park_group.h"
#include "sending.h"
#include "sharing.h"

/*
 * A group's hand-out is TAKE's without the request: what the core says belongs together is handed, its
 * record goes to the holder of its owner, and handing.c sends it when it is recorded, with serial 0.
 * It is done once a turn, before the holders are told, so that a park that fires reaches its worker
 * within the turn. What becomes ready or free later in the turn makes another one follow.
 *
 * A worker is its connection's. One whose connection is about to end is not given anything more: it
 * could only come back.
 */

enum { MATCHES_PER_TURN = 256 };

_Static_assert((int)PARK_CAPACITY_MAX == (int)WIRE_CAPACITY_MAX &&
		       (int)PARK_WORKERS_MAX == (int)WIRE_GROUPS_MAX &&
		       (int)PARK_UNSETTLED_MAX == (int)WIRE_UNSETTLED_MAX,
	       "the core's bounds are the wire's");

static void refuse(struct request *q, int r)
{
	struct refusal why = {.error = result_error_of(r)};

	result_refuse(q, &why);
}

static int attach(struct connection *c, const struct wire_attach *w, const uint8_t *tail)
{
	struct park_group_name name = {.bytes = tail, .length = (uint8_t)w->group_length};
	struct peer *peer;
	bool shared;
	int r;

	if (!park_request_is_name(tail, w->group_length))
		return -EINVAL;
	r = peer_of_connection(c, &peer);
	if (r == 0 && peer->dead)
		r = -EOPNOTSUPP; /* nobody could tell that the one who has its connection dies */
	if (r == 0)
		r = sharing_check(c, tail, w->group_length, SHARING_TAKE, &shared);
	if (r < 0)
		return r;
	name.owner = shared ? NULL : peer->parking->owner;
	return parks_offer(c->server->parks, peer->handle, &name, w->more, w->capacity);
}

static int detach(struct connection *c, const struct wire_attach *w, const uint8_t *tail)
{
	struct park_worker *worker = NULL;

	if (w->more != 0 || w->capacity != 0)
		return -EINVAL;
	if (c->peer && c->peer->c == c)
		worker = parks_find_worker(c->peer->handle, tail, w->group_length);
	if (!worker)
		return -ENOENT;
	grouping_end_worker(c, worker);
	return 0;
}

/* By its name: a reload may have moved the park to another group of that name since it was handed. */
static bool is_for(const struct park *p, const struct park_worker *w)
{
	const struct park_group *g = w->team->group;

	return p->handout == 0 && p->group && p->group->name_length == g->name_length &&
	       memcmp(p->group->name, g->name, g->name_length) == 0;
}

/* What was handed to the worker and is not sent yet is parked again. How many that were. */
static unsigned take_back_unsent(struct connection *c, const struct park_worker *w)
{
	struct server *s = c->server;
	struct park *p;
	unsigned n = 0;

	TAILQ_FOREACH(p, &c->handouts, queue)
	{
		if (!is_for(p, w))
			continue;
		parks_take_back(s->parks, p, s->now);
		n++;
	}
	parking_step();
	parking_sync(s); /* takes them out of the queue */
	return n;
}

void grouping_end_worker(struct connection *c, struct park_worker *w)
{
	(void)take_back_unsent(c, w);
	parks_end_worker(c->server->parks, w);
}

int grouping_move_worker(struct connection *c, struct park_worker *w,
			 const struct park_group_name *name)
{
	struct parks *ps = c->server->parks;
	unsigned n;
	int r;

	if (parks_find_group(ps, name) == w->team->group)
		return 0;
	n = take_back_unsent(c, w);
	r = parks_move_worker(ps, w, name);
	/* it cannot know that it was given anything; more than it can have had does not fit */
	return r < 0 ? r : parks_offer(ps, w->handle, name, n, w->capacity);
}

void grouping_apply(struct request *q, const void *record)
{
	const uint8_t *tail = (const uint8_t *)q->view->tail;
	struct server *s = q->c->server;
	int r;

	s->applying = q->c;
	if (q->view->header.type == WIRE_ATTACH)
		r = attach(q->c, record, tail);
	else
		r = detach(q->c, record, tail);
	parking_sync(s);
	s->applying = NULL;
	if (r < 0)
		refuse(q, r);
}

static void hand(struct server *s, const struct park_match *m, struct connection *c)
{
	struct park *p = m->park;

	progress_enter(&s->progress, PROGRESS_PARK, c->who.uid, c->who.pid, p->number);
	parks_hand_match(s->parks, m, s->now);
	parking_step();
	p->handout = 0;
	parking_queue(p, &c->handouts);
	p->caller_flags |= PARKING_SENDING;
	parking_sync(s);
	sending_queue(c);
}

void grouping_run(struct server *s)
{
	struct park_match m;

	for (unsigned n = 0; parks_next_match(s->parks, &m); n++) {
		struct connection *c = peer_of_handle(m.worker->handle)->c;

		if (n == MATCHES_PER_TURN) {
			s->unfinished = true;
			break;
		}
		assert(c);
		if (c->closing || c->peer_gone)
			parks_end_worker(s->parks, m.worker);
		else
			hand(s, &m, c);
	}
	progress_leave(&s->progress);
}

bool grouping_is_due(struct server *s)
{
	struct park_match m;

	return parks_next_match(s->parks, &m);
}
