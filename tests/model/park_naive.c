/* SPDX-License-Identifier: MIT */

#include "park_naive.h"

#include <errno.h>

#define EACH_PARK(n, p) for (struct naive_park *p = (n)->parks; p < (n)->parks + NAIVE_PARKS; p++)

static bool is_live(const struct naive_park *p)
{
	return p->exists && !p->gone;
}

static bool is_held(const struct naive_park *p)
{
	return is_live(p) && !p->handed;
}

uint64_t naive_used(const struct naive *n, unsigned owner, enum quota_kind kind)
{
	uint64_t used = 0;

	for (unsigned i = 0; i < NAIVE_PARKS; i++) {
		const struct naive_park *p = &n->parks[i];

		if (!is_live(p))
			continue;
		if (kind == QUOTA_FDS_UNREAD)
			used += p->handed && n->handles[p->worker].owner == owner;
		else if (p->owner == owner)
			used += kind == QUOTA_PARKS ? 1 : kind == QUOTA_NOTE_BYTES ? p->note : 0;
	}
	return used;
}

bool naive_is_ready(const struct naive_park *p)
{
	return is_held(p) && (p->ready || p->timed_out);
}

uint32_t naive_references(const struct naive *n, int handle)
{
	uint32_t references = 0;

	for (unsigned i = 0; i < NAIVE_PARKS; i++) {
		references += is_live(&n->parks[i]) && n->parks[i].maker == handle;
		references += is_live(&n->parks[i]) && n->parks[i].worker == handle;
	}
	return references;
}

static bool has_room(const struct naive *n, unsigned owner, enum quota_kind kind, uint64_t more)
{
	return naive_used(n, owner, kind) + more <= n->limit[owner][kind];
}

static void list(struct naive *n, struct naive_park *p)
{
	if (!p->changed)
		p->changed = n->call;
}

static void record(struct naive *n, struct naive_park *p)
{
	p->version++;
	list(n, p);
}

static uint8_t wanted(const struct naive_park *p)
{
	return p->flags & PARK_HOLD_ONLY ? 0 : p->interest;
}

static void note_ready(struct naive *n, struct naive_park *p)
{
	if (p->ready_since == 0 && (p->ready || p->timed_out))
		p->ready_since = n->now;
}

static void give_back(struct naive *n, struct naive_park *p)
{
	p->handed = false;
	p->worker = NOBODY;
	p->ready = wanted(p);
	note_ready(n, p);
	n->returned++;
	record(n, p);
}

static void go(struct naive *n, struct naive_park *p, enum park_end end)
{
	p->gone = true;
	p->handed = false;
	p->end = (uint8_t)end;
	p->maker = p->worker = NOBODY;
	n->taken += end == PARK_END_TAKEN;
	n->dropped += end == PARK_END_DROPPED;
	n->expired += end == PARK_END_EXPIRED;
	record(n, p);
}

static void change_maker(struct naive *n, struct naive_park *p, int maker)
{
	if (p->maker == maker)
		return;
	p->maker = maker;
	record(n, p);
}

int naive_park(struct naive *n, int maker, unsigned slot, const struct naive_park *new)
{
	struct naive_park *p = &n->parks[slot];
	unsigned owner = n->handles[maker].owner;

	n->call++;
	if (is_live(p)) {
		change_maker(n, p, maker);
		return 1;
	}
	EACH_PARK(n, other)
	{
		if (is_live(other) && other->owner == owner && new->name &&
		    other->name == new->name && other->group == new->group)
			return -EEXIST;
	}
	if (!has_room(n, owner, QUOTA_PARKS, 1))
		return -EDQUOT;
	if (!has_room(n, owner, QUOTA_NOTE_BYTES, new->note))
		return -ENOSPC;
	*p = *new;
	p->exists = true;
	p->owner = owner;
	p->maker = maker;
	p->worker = NOBODY;
	p->number = ++n->last_number;
	record(n, p);
	return 0;
}

static void answer(struct naive *n, struct naive_park *p)
{
	if (p->answered)
		return;
	p->answered = true;
	record(n, p);
}

void naive_answered(struct naive *n, unsigned slot)
{
	n->call++;
	if (is_live(&n->parks[slot]))
		answer(n, &n->parks[slot]);
}

int naive_claim(struct naive *n, int maker, unsigned slot)
{
	struct naive_park *p = &n->parks[slot];

	n->call++;
	if (!is_live(p) || p->owner != n->handles[maker].owner)
		return -ENOENT;
	answer(n, p);
	change_maker(n, p, maker);
	return 0;
}

int naive_hand(struct naive *n, unsigned slot, int worker)
{
	struct naive_park *p = &n->parks[slot];

	n->call++;
	if (!is_held(p))
		return -ENOENT;
	if (!p->answered)
		return -EBUSY;
	if (!has_room(n, n->handles[worker].owner, QUOTA_FDS_UNREAD, 1))
		return -EDQUOT;
	p->handed = true;
	p->worker = worker;
	p->connection = n->handles[worker].connections;
	record(n, p);
	return 0;
}

void naive_take_back(struct naive *n, unsigned slot)
{
	n->call++;
	give_back(n, &n->parks[slot]);
}

int naive_drop(struct naive *n, unsigned slot, enum park_end end)
{
	struct naive_park *p = &n->parks[slot];

	n->call++;
	if (!is_held(p))
		return -ENOENT;
	if (!p->answered)
		return -EBUSY;
	go(n, p, end);
	return 0;
}

int naive_state_held(struct naive *n, int worker, unsigned slot, bool held)
{
	struct naive_park *p = &n->parks[slot];

	n->call++;
	if (!is_live(p))
		return 0;
	if (p->worker != worker)
		return -ENOENT;
	if (held)
		go(n, p, PARK_END_TAKEN);
	else
		give_back(n, p);
	return 0;
}

void naive_state_no_other(struct naive *n, int worker)
{
	n->call++;
	EACH_PARK(n, p)
	{
		if (is_live(p) && p->worker == worker &&
		    p->connection != n->handles[worker].connections)
			give_back(n, p);
	}
}

static void return_all(struct naive *n, int handle)
{
	EACH_PARK(n, p)
	{
		if (is_live(p) && p->worker == handle)
			give_back(n, p);
	}
}

void naive_disconnected(struct naive *n, int handle)
{
	n->call++;
	return_all(n, handle);
}

void naive_died(struct naive *n, int handle)
{
	naive_end_workers(n, handle);
	n->call++;
	return_all(n, handle);
	EACH_PARK(n, p)
	{
		if (is_live(p) && p->maker == handle && !p->answered) {
			answer(n, p);
			p->maker = NOBODY;
		}
	}
}

void naive_ready(struct naive *n, unsigned slot, unsigned directions)
{
	struct naive_park *p = &n->parks[slot];
	uint8_t ready = (uint8_t)(p->ready | (directions & wanted(p)));

	n->call++;
	if (!is_live(p) || ready == p->ready)
		return;
	p->ready = ready;
	note_ready(n, p);
	list(n, p);
}

void naive_expire(struct naive *n, int64_t now)
{
	n->call++;
	EACH_PARK(n, p)
	{
		if (!is_held(p) || !p->answered || p->deadline == 0 || p->deadline > now)
			continue;
		p->deadline = 0;
		if (p->flags & PARK_DEADLINE_HAND) {
			p->timed_out = true;
			note_ready(n, p);
			record(n, p);
		} else {
			go(n, p, PARK_END_EXPIRED);
		}
	}
}

void naive_restore(struct naive *n, unsigned slot, const struct naive_park *recorded)
{
	struct naive_park *p = &n->parks[slot];

	n->call++;
	*p = *recorded;
	p->ready = 0;
	p->ready_since = p->handed || p->timed_out ? n->now : 0;
	p->connection = 0;
	p->changed = n->call;
	if (p->maker != NOBODY)
		n->handles[p->maker].known = true;
	if (p->worker != NOBODY)
		n->handles[p->worker].known = true;
	if (p->number > n->last_number)
		n->last_number = p->number;
}
