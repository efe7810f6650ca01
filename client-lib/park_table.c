/* SPDX-License-Identifier: MIT */

/*
 * The parks of this handle whose event is still to come.
 *
 * A park is in the table from its PARK or CLAIM on, with its number from the answer on, so that an
 * entry that follows the answer in the same message finds it. It leaves when all was told that can
 * be, or when it was taken or dropped by this handle, or is unknown to the daemon when it is claimed
 * again. So memory is bounded by the parks that nobody heard of yet; those that others take in the
 * meantime are found out at the next resume.
 *
 * An entry comes once on each connection, and so once more after each resume; the program sees what
 * it says once (`told`). Entries of numbers that are not here were told before, or are of no
 * concern.
 *
 * A park that has no event (of a group, or held only) is fresh: it is here to be claimed, if the
 * daemon dies before it has recorded that PARK was answered; without that record nobody could have
 * the park while this process lives. No message says when it is recorded, a moment after the answer:
 * so it is forgotten after ten seconds, or when this handle has it back.
 *
 * Numbers are found by a hash of chains. Invariants: a live place with a number is in its chain,
 * one without is in none; listed exactly if codes are kept.
 */

#include "internal.h"

#include <stdlib.h>
#include <string.h>

enum { HASH_FIRST = 64, FRESH_SECONDS = 10 };

static uint32_t *chain_of(const struct readyd *r, uint64_t number)
{
	uint64_t mixed = number * UINT64_C(0x9e3779b97f4a7c15);

	return &r->parking.hash[(mixed >> 32) & (r->parking.n_hash - 1)];
}

static void chain_link(struct readyd *r, uint32_t index)
{
	struct rd_park *p = rd_park_at(r, index);
	uint32_t *chain = chain_of(r, p->number);

	p->next = *chain;
	*chain = index;
}

/* Room in the hash for one more. false: no memory. */
static bool hash_grow(struct readyd *r)
{
	uint32_t n = r->parking.n_hash ? 2 * r->parking.n_hash : HASH_FIRST;
	uint32_t *hash;

	if (r->parks.n < r->parking.n_hash)
		return true;
	hash = calloc(n, sizeof(*hash));
	if (!hash)
		return false;
	free(r->parking.hash);
	r->parking.hash = hash;
	r->parking.n_hash = n;
	for (uint32_t i = 1; i < r->parks.top; i++)
		if (rd_park_at(r, i)->flags & RD_PARK_LIVE && rd_park_at(r, i)->number)
			chain_link(r, i);
	return true;
}

uint32_t rd_park_add(struct readyd *r)
{
	uint32_t index = r->parks.free, gen;
	struct rd_park *p;

	if (!hash_grow(r))
		return 0;
	if (index)
		r->parks.free = rd_park_at(r, index)->link.next;
	else
		index = rd_places_grow(&r->parks, RD_PARKS_A_CHUNK, sizeof(struct rd_park_chunk));
	if (!index)
		return 0;
	p = rd_park_at(r, index);
	gen = p->gen + 1;
	*p = (struct rd_park){.gen = gen, .flags = RD_PARK_LIVE};
	r->parks.n++;
	return index;
}

/* ---- Fresh ones ---- */

/* Seconds, from some time on. */
static uint32_t seconds(void)
{
	return (uint32_t)(rd_now() / 1000000000);
}

/* Oldest first. */
static void fresh_link(struct readyd *r, uint32_t index)
{
	struct rd_park *p = rd_park_at(r, index);

	p->since = seconds();
	p->link = (struct rd_link){.prev = r->parking.fresh_last};
	if (p->link.prev)
		rd_park_at(r, p->link.prev)->link.next = index;
	else
		r->parking.fresh = index;
	r->parking.fresh_last = index;
}

static void fresh_unlink(struct readyd *r, uint32_t index)
{
	struct rd_link l = rd_park_at(r, index)->link;

	if (l.prev)
		rd_park_at(r, l.prev)->link.next = l.next;
	else
		r->parking.fresh = l.next;
	if (l.next)
		rd_park_at(r, l.next)->link.prev = l.prev;
	else
		r->parking.fresh_last = l.prev;
}

void rd_park_claimed(struct readyd *r, uint32_t index)
{
	if (!(rd_park_at(r, index)->flags & RD_PARK_FRESH))
		return;
	fresh_unlink(r, index);
	fresh_link(r, index);
}

void rd_parks_forget(struct readyd *r)
{
	uint32_t now = seconds(), index;

	while ((index = r->parking.fresh)) {
		const struct rd_park *p = rd_park_at(r, index);

		if (!(p->flags & RD_PARK_MADE) || now - p->since <= FRESH_SECONDS)
			return;
		rd_park_remove(r, index);
	}
}

static void park_drop(struct readyd *r, uint32_t index)
{
	struct rd_park *p = rd_park_at(r, index);

	if (!(p->flags & RD_PARK_LISTED))
		return;
	rd_kept_unlink(r, index | RD_PARK);
	p->flags &= (uint8_t)~RD_PARK_LISTED;
	p->read = p->write = 0;
}

void rd_park_remove(struct readyd *r, uint32_t index)
{
	struct rd_park *p = rd_park_at(r, index);

	park_drop(r, index);
	if (p->number) {
		uint32_t *at = chain_of(r, p->number);

		while (*at != index)
			at = &rd_park_at(r, *at)->next;
		*at = p->next;
		if (p->flags & RD_PARK_FRESH)
			fresh_unlink(r, index);
	}
	p->flags = 0;
	p->number = 0;
	p->link.next = r->parks.free;
	r->parks.free = index;
	r->parks.n--;
}

uint32_t rd_park_find(const struct readyd *r, uint64_t number)
{
	uint32_t index;

	if (!r->parking.n_hash || !number)
		return 0;
	index = *chain_of(r, number);
	while (index && rd_park_at(r, index)->number != number)
		index = rd_park_at(r, index)->next;
	return index;
}

void rd_park_number(struct readyd *r, uint32_t index, uint64_t number)
{
	struct rd_park *p = rd_park_at(r, index);

	if (!number || rd_park_find(r, number)) {
		rd_park_remove(r, index);
		return;
	}
	p->number = number;
	p->flags |= RD_PARK_MADE;
	chain_link(r, index);
	if (p->flags & RD_PARK_FRESH)
		fresh_link(r, index);
}

/* The program has seen what was kept: whether anything can follow? */
static void park_shown(struct readyd *r, uint32_t index)
{
	const struct rd_park *p = rd_park_at(r, index);

	if (p->told & WIRE_CODE_TIMEOUT || !(p->flags & RD_PARK_HAND))
		rd_park_remove(r, index);
}

static struct readyd_event event_of(const struct rd_park *p, uint8_t read, uint8_t write)
{
	return (struct readyd_event){
		.cookie = p->cookie,
		.id = p->number,
		.kind = READYD_EVENT_PARK,
		.read = read,
		.write = write,
	};
}

void rd_park_take_kept(struct readyd *r, uint32_t index, struct readyd_event *ret)
{
	struct rd_park *p = rd_park_at(r, index);

	*ret = event_of(p, p->read, p->write);
	park_drop(r, index);
	park_shown(r, index);
}

void rd_park_entry(struct readyd *r, const struct wire_park_entry *e, struct rd_sink *sink)
{
	uint32_t index = rd_park_find(r, e->park);
	uint8_t read, write;
	struct rd_park *p;

	if (!index) {
		r->stale++;
		return;
	}
	p = rd_park_at(r, index);
	if (p->flags & RD_PARK_FRESH)
		return;
	p->cookie = e->cookie; /* of one that another process made it is news */
#ifdef READYD_MUTANT_PARK_TOLD_TWICE
	p->told = 0;
#endif
	read = e->read & (uint8_t)~p->told;
	write = e->write & (uint8_t)~p->told;
	p->told |= e->read | e->write;
	if (!(read | write))
		return;
	if (sink && sink->n < sink->max && !(p->flags & RD_PARK_LISTED)) {
		sink->events[sink->n++] = event_of(p, read, write);
		park_shown(r, index);
		return;
	}
	p->read |= read;
	p->write |= write;
	if (!(p->flags & RD_PARK_LISTED)) {
		p->flags |= RD_PARK_LISTED;
		rd_kept_append(r, index | RD_PARK);
	}
}
