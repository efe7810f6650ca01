/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "holder_link.h"
#include "sending.h"

/*
 * Durable parks, which systemd's fd store has, too. The holder stores them, without being asked, as it
 * is told of them; what it is asked for is to say when. It is asked where somebody outside could see
 * that it happened, and what the store has says otherwise:
 *
 *  - a new park, before PARK is answered: else it would be lost with the service;
 *  - a hand-out, before the fd is sent: else there could be two owners;
 *  - the end of a park, before it is told: else it would come back, and its peer would see no end.
 *
 * All else the store may have a little later. A park as it was a moment before is unanswered, or
 * handed out, and waits for a word that is repeated, or a death.
 *
 * Parks that wait are in `storing`, by their tickets; each waits for the serial that it had when it
 * was asked for last. A connection that is held takes the ticket of the last one with it and goes on
 * when none is left before that, so that parks of others that come later do not hold it up. A park
 * that is gone is freed when it is out of the store.
 *
 * What cannot be stored: a new park is dropped, and a hand-out is taken back. Their connections wait
 * for answers that would be wrong now, so they are ended; when they come back and say again what
 * they wanted, a durable park is refused for a while.
 *
 * A holder that is made has to store everything again, and to remove what an earlier one has stored:
 * it is unsettled until it says that this is done.
 */

#define NO_STORE INT64_C(1000000000) /* ns */

void link_store(struct parking *k, struct park *p)
{
	if (!(p->flags & PARK_DURABLE) || !k->server->durable)
		return;
	if (p->state == PARK_HELD && p->stored != 0)
		return;
	p->must_store = p->serial;
	if (p->caller_flags & PARKING_STORING)
		return;
	p->caller_flags |= PARKING_STORING;
	p->ticket = ++k->link.tickets;
	TAILQ_INSERT_TAIL(&k->link.storing, p, storing);
}

void link_clear_store(struct parking *k, struct park *p)
{
	if (p->caller_flags & PARKING_STORING)
		TAILQ_REMOVE(&k->link.storing, p, storing);
	p->caller_flags &= ~(uint32_t)PARKING_STORING;
}

bool link_is_stored(const struct parking *k, const struct connection *c)
{
	const struct park *first = TAILQ_FIRST(&k->link.storing);

	return !first || c->ticket < first->ticket;
}

bool link_has(const struct park *p)
{
	const struct parking *k = p->owner->caller;

	return p->recorded == p->serial && !k->link.unsettled &&
	       !(p->caller_flags & PARKING_STORING);
}

bool link_refuses_durable(const struct account *account)
{
	const struct parking *k = account->parking;

	return k && k->link.no_store > k->server->now;
}

/* The park that an answer is about, if it waits for one. */
static struct park *find(const struct parking *k, const struct record_op *op)
{
	struct park *p = parks_at_index(k->server->parks, op->value);

	if (!p || p->owner != k->owner || !(p->caller_flags & PARKING_STORING) ||
	    memcmp(p->token, op->drop->token, sizeof(p->token)) != 0)
		return NULL;
	return p;
}

void link_note_stored(struct parking *k, const struct record_op *op)
{
	struct park *p = find(k, op);

	if (!p || op->drop->serial > p->serial)
		return;
	p->stored = op->drop->serial;
	if (p->stored < p->must_store)
		return;
	link_clear_store(k, p);
	if (p->state == PARK_GONE)
		parks_end(k->server->parks, p);
	else if (p->caller_flags & PARKING_SENDING)
		handing_recorded(p);
}

void link_note_lost(struct parking *k, const struct record_op *op)
{
	struct park *p = find(k, op);
	struct server *s = k->server;

	if (!p || p->state == PARK_GONE || op->drop->serial < p->must_store)
		return;
	k->link.no_store = s->now + NO_STORE;
	link_refuse_waiting(k, p->ticket,
			    "systemd does not take a durable park: its store is full, or it does "
			    "not answer; try again later, or without `durable`");
	link_clear_store(k, p);
	if (p->state == PARK_HANDED) {
		parking_queue(p, NULL);
		parks_take_back(s->parks, p, s->now);
	} else if (!p->answered) {
		parks_refuse(s->parks, p);
	} else {
		p->stored = op->drop->serial; /* it is not; but nobody waits for it any more */
	}
}

void link_note_settled(struct parking *k)
{
	struct server *s = k->server;
	uint32_t index = 0;
	struct connection *c;

	k->link.unsettled = false;
	k->link.settling = false;
	while ((c = server_next_connection(s, &index)))
		if (c->account == k->account && !c->held && !TAILQ_EMPTY(&c->handouts))
			sending_queue(c);
}
