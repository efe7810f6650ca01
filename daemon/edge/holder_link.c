/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"
#include "holder_link.h"
#include "sending.h"

/*
 * The loop's end of a uid's holder. What a holder is to know is not queued as messages but marked in
 * the parks themselves: those whose record has changed are on `dirty`, each once, and a message is
 * made of as many as fit when it can be sent. So nothing grows, a holder that comes late or anew is
 * told by the same means, and what changed twice meanwhile is told once.
 *
 * States: spared -> absent, when something is parked; so who only takes from others has no holder.
 * Absent -> up, when the keeper sends the socket of a new one. Returning -> up: it was an
 * earlier loop's, and gives back what it has before a request about parks of its uid is applied. When
 * it dies, or does not take anything for a while, it is absent again, all its uid's parks are dirty,
 * and another one is asked for. Connections that changed something meanwhile are held. Up ->
 * spared: it had nothing to keep for some seconds. Loop and keeper close its socket, and it ends when
 * it has done what it was told. Spared -> absent: something is parked; the keeper, who hears all
 * in order, makes another one.
 *
 * holder_tell.c has what it is told, holder_hear.c what it says, holder_store.c what is stored.
 */

#define PATIENCE INT64_C(2000000000) /* ns that a holder may take nothing */
/* ns that it may say nothing while it gives back: nobody else has what it has */
#define PATIENCE_TO_RETURN INT64_C(60000000000)
#define LATE INT64_C(5000000) /* ns that a change which is not urgent may wait for another one */
/* the same while what it has is being stored: it has a shorter one with systemd, and shows life */
#define PATIENCE_TO_STORE INT64_C(20000000000)
#define IDLE INT64_C(10000000000) /* ns that it stays with nothing to keep */

struct parking *link_find(const struct server *s, uint32_t uid)
{
	struct park_owner *o = parks_find_owner(s->parks, uid);

	return o ? o->caller : NULL;
}

/* ---- Connections that wait ---- */

void link_hold(struct connection *c, struct parking *k)
{
	assert(!c->held && !c->blocked);
	c->held = k;
	c->ticket = k->link.tickets;
	TAILQ_INSERT_TAIL(&k->link.waiting, c, waiting);
	if (c->session)
		session_hold(c->session, true);
	/* a level that nobody looks at would keep the loop awake */
	(void)poller_remove(c->server->poller, c->fd);
	if (k->link.since == 0)
		k->link.since = c->server->now;
}

void link_forget(struct connection *c)
{
	if (!c->held)
		return;
	TAILQ_REMOVE(&c->held->link.waiting, c, waiting);
	c->held = NULL;
}

static void release(struct connection *c)
{
	concern_settle(c, c->held);
	link_forget(c);
	if (c->closing)
		return;
	if (c->session)
		session_hold(c->session, c->peer_gone);
	if (poller_add(c->server->poller, c->fd, c->tag, POLLER_READ) < 0)
		connection_close(c);
	else
		sending_queue(c);
}

static void note_idle(struct parking *k)
{
	bool idle = k->link.state == LINK_UP && k->owner->n_parks == 0 && !k->link.unsettled;

	if (!idle)
		k->link.idle = 0;
	else if (k->link.idle == 0)
		k->link.idle = k->server->now;
}

void link_settle(struct parking *k)
{
	struct connection *c;

	note_idle(k);

	if (k->link.state == LINK_RETURNING || k->link.unsettled || !TAILQ_EMPTY(&k->link.dirty))
		return;
	if (TAILQ_EMPTY(&k->link.storing))
		k->link.since = 0;
	else if (k->link.since == 0)
		k->link.since = k->server->now;
	while ((c = TAILQ_FIRST(&k->link.waiting)) && link_is_stored(k, c))
		release(c);
}

bool link_is_returning(const struct parking *k)
{
	return k && k->link.state == LINK_RETURNING;
}

bool link_any_is_returning(const struct server *s)
{
	const struct parking *k;

	TAILQ_FOREACH(k, &s->parkings, list)
	{
		if (k->link.state == LINK_RETURNING)
			return true;
	}
	return false;
}

bool link_is_behind(const struct parking *k)
{
	return k && (k->link.state == LINK_RETURNING || k->link.unsettled ||
		     !TAILQ_EMPTY(&k->link.dirty) || !TAILQ_EMPTY(&k->link.storing));
}

/* ---- Coming and going ---- */

static void want(struct parking *k, bool replace)
{
	k->link.state = LINK_ABSENT;
	k->link.idle = 0;
	/* asked once it is asked: the keeper answers, however late, and of two it would give up one */
	k->link.wanted = !k->link.asked;
	k->link.replace = replace;
	k->link.since = k->server->now;
}

static int add_socket(struct parking *k)
{
	return poller_add(k->server->poller, k->link.socket,
			  SERVER_TAG_HOLDER << 32 | k->account->uid, POLLER_READ);
}

/* Its queue is full, or has room again. */
void link_set_full(struct parking *k, bool full)
{
	k->link.full = full;
	(void)poller_modify(k->server->poller, k->link.socket,
			    SERVER_TAG_HOLDER << 32 | k->account->uid,
			    full ? POLLER_READ | POLLER_WRITE : POLLER_READ);
}

static void close_socket(struct parking *k)
{
	if (k->link.socket < 0)
		return;
	(void)poller_remove(k->server->poller, k->link.socket);
	(void)close(steal_fd(&k->link.socket));
	k->link.full = k->link.begun = k->link.asking = false;
}

void link_clear(struct parking *k, struct park *p)
{
	if (p->caller_flags & PARKING_LATE)
		TAILQ_REMOVE(&k->link.late, p, dirty);
	else if (p->caller_flags & PARKING_DIRTY)
		TAILQ_REMOVE(&k->link.dirty, p, dirty);
	p->caller_flags &= ~(uint32_t)(PARKING_DIRTY | PARKING_LATE);
	if (TAILQ_EMPTY(&k->link.late))
		k->link.late_until = 0;
}

static void mark_late(struct parking *k, struct park *p)
{
	if (TAILQ_EMPTY(&k->link.late))
		k->link.late_until = k->server->now + LATE;
	TAILQ_INSERT_TAIL(&k->link.late, p, dirty);
	p->caller_flags |= PARKING_DIRTY | PARKING_LATE;
}

void link_hurry(struct parking *k, struct park *p)
{
	if (p->caller_flags & PARKING_LATE)
		link_mark(k, p);
}

void link_hurry_all(struct parking *k)
{
	struct park *p;

	while ((p = TAILQ_FIRST(&k->link.late)))
		link_hurry(k, p);
}

void link_mark(struct parking *k, struct park *p)
{
	bool may_wait = p->caller_flags & PARKING_MAY_WAIT;

	p->caller_flags &= ~(uint32_t)PARKING_MAY_WAIT;
	if (may_wait && !(p->caller_flags & PARKING_DIRTY) && p->caller_flags & PARKING_HELD) {
		mark_late(k, p);
		return;
	}
	if (p->caller_flags & PARKING_LATE)
		link_clear(k, p);
	if (!(p->caller_flags & PARKING_DIRTY))
		TAILQ_INSERT_TAIL(&k->link.dirty, p, dirty);
	p->caller_flags |= PARKING_DIRTY;
	k->server->parks_changed = true;
	k->link.idle = 0;
	if (k->link.state == LINK_SPARED)
		want(k, false);
}

/* It has gone, and its copies with it: whatever the next one is to have is told from the start. */
void link_lose(struct parking *k, bool stuck)
{
	struct server *s = k->server;
	uint64_t cursor = 0;
	struct park *p;

	close_socket(k);
	want(k, stuck);
	k->link.unsettled = s->durable;
	k->link.settling = false;
	parking_step();
	while ((p = parks_next(s->parks, k->owner, &cursor))) {
		p->caller_flags &= ~(uint32_t)PARKING_HELD;
		p->recorded = 0;
		if (p->state != PARK_GONE) {
			link_mark(k, p);
			continue;
		}
		/* what the store has of it goes before anybody hears of anything */
		link_clear(k, p);
		link_clear_store(k, p);
		parks_end(s->parks, p);
	}
}

void link_init(struct parking *k)
{
	TAILQ_INIT(&k->link.dirty);
	TAILQ_INIT(&k->link.late);
	TAILQ_INIT(&k->link.storing);
	TAILQ_INIT(&k->link.waiting);
	k->link.socket = -1;
	k->link.state = k->server->has_holders ? LINK_SPARED : LINK_NONE;
}

void link_return(struct parking *k, int socket)
{
	struct holder_link *l = &k->link;

	l->socket = socket;
	l->wanted = false;
	l->state = LINK_RETURNING;
	l->epoch = (uint32_t)(k->server->started >> 10) | 1;
	l->asking = true;
	l->since = k->server->now;
	k->server->parks_changed = true;
	if (add_socket(k) < 0)
		link_lose(k, true);
}

void link_deinit(struct parking *k)
{
	close_socket(k);
}

bool server_wants_holder(struct server *s, uint32_t *ret_uid, bool *ret_replace)
{
	struct parking *k;

	TAILQ_FOREACH(k, &s->parkings, list)
	{
		if (!k->link.wanted)
			continue;
		k->link.wanted = false;
		k->link.asked = true;
		*ret_uid = k->account->uid;
		*ret_replace = k->link.replace;
		return true;
	}
	return false;
}

bool server_spares_holder(struct server *s, uint32_t *ret_uid)
{
	struct parking *k;

	TAILQ_FOREACH(k, &s->parkings, list)
	{
		if (!k->link.spare)
			continue;
		k->link.spare = false;
		*ret_uid = k->account->uid;
		parking_end_unused(k);
		return true;
	}
	return false;
}

/* They are told nothing of what has not been recorded. They can come back and repeat it. */
void link_refuse_waiting(struct parking *k, uint64_t ticket, const char *text)
{
	struct connection *c, *next;

	for (c = TAILQ_FIRST(&k->link.waiting); c; c = next) {
		next = TAILQ_NEXT(c, waiting);
		if (c->ticket < ticket)
			continue;
		link_forget(c);
		sending_end(c);
		connection_fail(c, WIRE_E_NO_RESOURCES, 0, text);
	}
}

void server_take_holder(struct server *s, uint32_t uid, int socket)
{
	struct parking *k = link_find(s, uid);

	if (k)
		k->link.asked = false;
	if (socket < 0) {
		log_limited_about(
			s->log, &s->sites.holder, s->now, CONFIG_LOG_ERROR, LOG_UID(uid),
			"no holder can be made for uid %u, which cannot park now; trying again",
			uid);
		if (k)
			link_refuse_waiting(
				k, 0,
				"no process can be made that keeps this user's parks; try again");
		return; /* link_expire() asks again */
	}
	if (k && k->link.state == LINK_UP)
		link_lose(k, false); /* asked for twice: the keeper has given up the one before */
	if (!k || k->link.state != LINK_ABSENT) {
		(void)close(socket);
		return;
	}
	k->link.wanted = false;
	k->link.socket = socket;
	if (add_socket(k) < 0) {
		link_lose(k, false);
		return;
	}
	k->link.state = LINK_UP;
	k->link.since = 0;
	k->link.unsettled = s->durable;
	s->parks_changed = true;
	parking_step();
	s->unfinished = true;
}

void server_note_left(struct server *s, uint64_t n)
{
	s->history.holders_left = n;
}

/* ---- Time ---- */

static int64_t patience(const struct parking *k)
{
	if (k->link.state == LINK_RETURNING)
		return PATIENCE_TO_RETURN;
	if (k->link.state == LINK_UP && !k->link.full && TAILQ_EMPTY(&k->link.dirty) &&
	    (k->link.unsettled || !TAILQ_EMPTY(&k->link.storing)))
		return PATIENCE_TO_STORE;
	return PATIENCE;
}

int64_t link_next_time(const struct server *s)
{
	const struct parking *k;
	int64_t next = INT64_MAX;

	TAILQ_FOREACH(k, &s->parkings, list)
	{
		if (k->link.since != 0 && k->link.since + patience(k) < next)
			next = k->link.since + patience(k);
		if (k->link.again != 0 && k->link.again < next)
			next = k->link.again;
		if (k->link.idle != 0 && k->link.idle + IDLE < next)
			next = k->link.idle + IDLE;
		if (k->link.late_until != 0 && k->link.late_until < next)
			next = k->link.late_until;
	}
	return next;
}

static void spare(struct parking *k)
{
	assert(k->link.state == LINK_UP && TAILQ_EMPTY(&k->link.dirty));
	close_socket(k);
	k->link.state = LINK_SPARED;
	k->link.idle = 0;
	k->link.spare = true;
}

void link_expire(struct server *s)
{
	struct parking *k;

	TAILQ_FOREACH(k, &s->parkings, list)
	{
		if (k->link.idle != 0 && k->link.idle + IDLE <= s->now)
			spare(k);
		if (k->link.again != 0 && k->link.again <= s->now)
			s->parks_changed = true;
		if (k->link.late_until != 0 && k->link.late_until <= s->now)
			link_hurry_all(k);
		if (k->link.since == 0 || k->link.since + patience(k) > s->now)
			continue;
		if (k->link.state == LINK_ABSENT) {
			want(k, false);
			continue;
		}
		log_about(s->log, CONFIG_LOG_ERROR, LOG_UID(k->account->uid),
			  "the holder of uid %u is stuck, maybe in closing an fd of this user: it "
			  "is left alone, and another one made%s",
			  k->account->uid,
			  k->link.state == LINK_RETURNING
				  ? "; the parks that it had not given back yet are lost with it"
				  : "");
		link_lose(k, true);
	}
}
