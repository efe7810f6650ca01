/* SPDX-License-Identifier: MIT */
/*
 * What happens to a park, by state and event:
 *
 *   event                 unanswered       held             handed            gone
 *   PARK again, CLAIM     new maker        new maker        new maker         unknown
 *                         (CLAIM answers)
 *   answered, maker died  held             -                -                 -
 *   TAKE, a match         -EBUSY           handed           -ENOENT           -ENOENT
 *   DROP                  -EBUSY           gone             -ENOENT           -ENOENT
 *   its worker has it     -ENOENT          -ENOENT          gone              unknown: 0
 *   its worker has not    -ENOENT          -ENOENT          held, ready       unknown: 0
 *   directions ready      noted            noted            noted             -
 *   deadline              waits            gone, or ready   waits             -
 *
 * Why "unknown" is a good answer to its worker: what was handed to a worker is held again only by
 * this worker's word, the end of its connection by itself, or its death; so nobody else can have
 * made gone what it still may acknowledge. The answer to the first acknowledgement was lost.
 *
 * A change that a record must show gets the next serial and puts the park on the list of changes;
 * new readiness only does the latter. Nothing here allocates but PARK, so nothing else can fail for
 * want of memory.
 *
 * A deadline is in the heap from the start. One that comes while the park is handed or unanswered
 * leaves the heap and stays in the park; the end of that state puts it back, and the next expiry
 * finds it. So the heap never spins over deadlines that nothing can be done about, and
 *
 *   held and answered, deadline != 0  =>  in the heap, at that time.
 *
 * Charged to its owner: one of QUOTA_PARKS and the note's bytes of QUOTA_NOTE_BYTES until it is gone;
 * to its worker's owner: one of QUOTA_FDS_UNREAD while it is handed.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core.h"
#include "park_internal.h"

enum {
	KNOWN_FLAGS = PARK_DURABLE | PARK_HOLD_ONLY | PARK_DEADLINE_HAND,
	NOTE_MAX = 2048,
	ADDRESS_MAX = 128,
};

/* ---- The steps of all changes ---- */

bool park_is_ready(const struct park *p)
{
	return p->state == PARK_HELD && (p->ready || p->timed_out);
}

/* Directions that can be ready. */
static uint8_t wanted(const struct park *p)
{
	return p->flags & PARK_HOLD_ONLY ? 0 : p->interest;
}

static void record(struct parks *ps, struct park *p)
{
	p->serial = ++ps->last_serial;
	parks_list_change(ps, p);
}

/* Whatever it is in the numbers, by state and readiness, goes in (1) or out (-1). */
static void count(struct parks *ps, struct park *p, int sign)
{
	parks_count_in_group(ps, p, sign);
	ps->stats.handed += (uint64_t)(sign * (p->state == PARK_HANDED));
	ps->stats.ready += (uint64_t)(sign * park_is_ready(p));
}

static void look_at_deadline_again(struct parks *ps, struct park *p)
{
	if (p->deadline != 0 && !timer_heap_contains(&ps->heap, p->index))
		timer_heap_set(&ps->heap, p->index, p->deadline);
}

static void become_handed(struct parks *ps, struct park *p, struct park_handle *worker)
{
	count(ps, p, -1);
	p->state = PARK_HANDED;
	parks_set_worker(ps, p, worker);
	count(ps, p, 1);
}

void parks_give_back(struct parks *ps, struct park *p, int64_t now)
{
	assert(p->state == PARK_HANDED);
	count(ps, p, -1);
	p->state = PARK_HELD;
	p->ready = wanted(p);
	p->since = now;
	parks_note_ready(ps, p, now);
	quota_give_back(p->worker->owner->quota, QUOTA_FDS_UNREAD, 1);
	parks_set_worker(ps, p, NULL);
	count(ps, p, 1);
	ps->stats.returned++;
	look_at_deadline_again(ps, p);
	record(ps, p);
}

static void become_gone(struct parks *ps, struct park *p, enum park_end end)
{
	struct quota *q = p->owner->quota;

	count(ps, p, -1);
	if (p->state == PARK_HANDED)
		quota_give_back(p->worker->owner->quota, QUOTA_FDS_UNREAD, 1);
	quota_give_back(q, QUOTA_PARKS, 1);
	quota_give_back(q, QUOTA_NOTE_BYTES, p->text.note_length);
	parks_hide(ps, p);
	p->state = PARK_GONE;
	p->end = (uint8_t)end;
	parks_leave_group(ps, p);
	parks_set_maker(ps, p, NULL);
	parks_set_worker(ps, p, NULL);
	ps->stats.taken += end == PARK_END_TAKEN;
	ps->stats.dropped += end == PARK_END_DROPPED;
	ps->stats.expired += end == PARK_END_EXPIRED;
	record(ps, p);
}

static void change_maker(struct parks *ps, struct park *p, struct park_handle *maker)
{
	if (p->maker == maker)
		return;
	parks_set_maker(ps, p, maker);
	record(ps, p);
}

/* ---- PARK and its answer ---- */

bool park_new_is_bad(const struct park_new *new)
{
	const struct park_text *t = &new->text;

	if (park_is_zero(new->token) || (new->flags & ~(uint32_t)KNOWN_FLAGS))
		return true;
	if (new->interest & ~CORE_BOTH || (!new->interest && !(new->flags &PARK_HOLD_ONLY)))
		return true;
	return t->note_length > NOTE_MAX || t->local_length > ADDRESS_MAX ||
	       t->peer_length > ADDRESS_MAX;
}

void parks_begin(struct parks *ps, struct park *p, struct park_handle *maker,
		 struct park_handle *worker)
{
	parks_set_maker(ps, p, maker);
	ps->stats.parks++;
	count(ps, p, 1);
	if (worker)
		become_handed(ps, p, worker);
	look_at_deadline_again(ps, p);
	parks_list_change(ps, p);
}

static int charge(struct quota *q, uint64_t note)
{
	if (!quota_charge(q, QUOTA_PARKS, 1))
		return -EDQUOT;
	if (quota_charge(q, QUOTA_NOTE_BYTES, note))
		return 0;
	quota_give_back(q, QUOTA_PARKS, 1);
	return -ENOSPC;
}

int parks_park(struct parks *ps, struct park_handle *maker, const struct park_new *new, int64_t now,
	       struct park **ret)
{
	struct park_owner *o = maker->owner;
	struct park *p;
	int r;

	if (park_new_is_bad(new))
		return -EINVAL;
	p = parks_at_token(ps, new->token);
	if (p) {
		if (p->owner != o)
			return -EEXIST;
		change_maker(ps, p, maker);
		*ret = p;
		return 1;
	}
	if (parks_at_name(ps, o, &new->text))
		return -EEXIST;
	r = charge(o->quota, new->text.note_length);
	if (r < 0)
		return r;
	r = parks_make(ps, o, new, ps->last_number + 1, &p);
	if (r < 0) {
		quota_give_back(o->quota, QUOTA_PARKS, 1);
		quota_give_back(o->quota, QUOTA_NOTE_BYTES, new->text.note_length);
		return r;
	}
	ps->last_number = p->number;
	p->parked = p->since = now;
	p->serial = ++ps->last_serial;
	parks_begin(ps, p, maker, NULL);
	*ret = p;
	return 0;
}

void parks_answered(struct parks *ps, struct park *p)
{
	if (p->answered || p->state == PARK_GONE)
		return;
	count(ps, p, -1);
	p->answered = true;
	count(ps, p, 1);
	look_at_deadline_again(ps, p);
	record(ps, p);
}

void parks_refuse(struct parks *ps, struct park *p)
{
	assert(p->state == PARK_HELD && !p->answered);
	become_gone(ps, p, PARK_END_DROPPED);
}

int parks_claim(struct parks *ps, struct park_handle *maker, const uint8_t token[PARK_TOKEN_SIZE],
		struct park **ret)
{
	struct park *p = parks_find_token(ps, maker->owner, token);

	if (!p)
		return -ENOENT;
	parks_answered(ps, p);
	change_maker(ps, p, maker);
	*ret = p;
	return 0;
}

/* ---- TAKE and DROP ---- */

static int may_leave(const struct park *p)
{
	if (p->state != PARK_HELD)
		return -ENOENT;
#ifndef READYD_MUTANT_PARK_UNANSWERED
	if (!p->answered)
		return -EBUSY;
#endif
	return 0;
}

int parks_hand(struct parks *ps, struct park *p, struct park_handle *worker, int64_t now)
{
	int r = may_leave(p);

	if (r < 0)
		return r;
	if (!quota_charge(worker->owner->quota, QUOTA_FDS_UNREAD, 1))
		return -EDQUOT;
	become_handed(ps, p, worker);
	p->connection = worker->connections;
	p->since = now;
	record(ps, p);
	return 0;
}

void parks_take_back(struct parks *ps, struct park *p, int64_t now)
{
	parks_give_back(ps, p, now);
}

int parks_drop(struct parks *ps, struct park *p)
{
	int r = may_leave(p);

	if (r == 0)
		become_gone(ps, p, PARK_END_DROPPED);
	return r;
}

int parks_end_age(struct parks *ps, struct park *p)
{
	int r = may_leave(p);

	if (r == 0)
		become_gone(ps, p, PARK_END_EXPIRED);
	return r;
}

/* ---- Its worker's word ---- */

int parks_state_held(struct parks *ps, struct park_handle *worker,
		     const uint8_t token[PARK_TOKEN_SIZE], bool held, int64_t now)
{
	struct park *p = parks_at_token(ps, token);

	if (!p)
		return 0;
	if (p->worker != worker)
		return -ENOENT;
	if (held)
		become_gone(ps, p, PARK_END_TAKEN);
	else
		parks_give_back(ps, p, now);
	return 0;
}

int parks_acknowledge(struct parks *ps, struct park_handle *worker,
		      const uint8_t token[PARK_TOKEN_SIZE])
{
	return parks_state_held(ps, worker, token, true, 0);
}

void parks_state_no_other(struct parks *ps, struct park_handle *worker, int64_t now)
{
	struct park *p = TAILQ_FIRST(&worker->given), *next;

	for (; p; p = next) {
		next = TAILQ_NEXT(p, of_worker);
		if (p->connection != worker->connections)
			parks_give_back(ps, p, now);
	}
}

/* ---- Ends of connections and processes ---- */

void parks_disconnected(struct parks *ps, struct park_handle *h, int64_t now)
{
	while (!TAILQ_EMPTY(&h->given))
		parks_give_back(ps, TAILQ_FIRST(&h->given), now);
}

void parks_died(struct parks *ps, struct park_handle *h, int64_t now)
{
	struct park *p = TAILQ_FIRST(&h->made), *next;

	parks_end_workers(ps, h);
	parks_disconnected(ps, h, now);
	for (; p; p = next) {
		next = TAILQ_NEXT(p, of_maker);
		if (p->answered)
			continue;
		parks_answered(ps, p);
		parks_set_maker(ps, p, NULL);
	}
}

/* ---- Readiness and time ---- */

void parks_ready(struct parks *ps, struct park *p, unsigned directions, int64_t now)
{
	uint8_t ready = (uint8_t)(p->ready | (directions & wanted(p)));

	if (p->state == PARK_GONE || ready == p->ready)
		return;
	count(ps, p, -1);
	p->ready = ready;
	parks_note_ready(ps, p, now);
	count(ps, p, 1);
	parks_list_change(ps, p);
}

static void expire(struct parks *ps, struct park *p, int64_t now)
{
	(void)timer_heap_remove(&ps->heap, p->index);
	if (p->state == PARK_HANDED || !p->answered)
		return;
	p->deadline = 0;
	if (!(p->flags & PARK_DEADLINE_HAND)) {
		become_gone(ps, p, PARK_END_EXPIRED);
		return;
	}
	count(ps, p, -1);
	p->timed_out = true;
	parks_note_ready(ps, p, now);
	count(ps, p, 1);
	record(ps, p);
}

bool parks_expire(struct parks *ps, int64_t now, unsigned max)
{
	uint32_t index;
	int64_t when;

	while (timer_heap_first(&ps->heap, &index, &when) && when <= now) {
		if (max-- == 0)
			return true;
		expire(ps, ps->places[index].park, now);
	}
	return false;
}

int64_t parks_next_expiry(const struct parks *ps)
{
	uint32_t index;
	int64_t when;

	return timer_heap_first(&ps->heap, &index, &when) ? when : INT64_MAX;
}
