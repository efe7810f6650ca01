/* SPDX-License-Identifier: MIT */
/*
 * Watches: what a client asks of one, what the kernel reports, and the passing of its deadlines.
 *
 * The states of the two slots are in slot.c; here is what they have in common: the interest, the
 * flags closing (evicted) and error (the last event was the bare error bit), the deadlines, the
 * counts, and the place on the ready-list. A slot outside the interest never leaves idle, since
 * requests about it are refused and events for it are dropped.
 *
 * A deadline is 0 (none), > 0 (pending), or -1: expired, which is sticky until the client sets
 * another. Invariant: a pending one, and only that, has a node in the heap, whose time is not
 * after it. Moving later touches nothing but the item (core.c says why); setting the same time
 * again does no heap work; its new stamp counts. Eviction cancels both deadlines.
 *
 * Stamps. An entry that says timeout names the deadline that expired by the stamp which the client
 * gave it, so that the client can tell an unsent timeout from one of its present deadline. While
 * such an entry is unsent its stamp is kept apart from the present one, in the place where a
 * waiting slot keeps since when it waits.
 */
#include "core.h"

#include <assert.h>
#include <errno.h>

#include "state.h"

static inline bool asks(unsigned directions, unsigned side)
{
	return directions & (CORE_READ << side);
}

/* The watch's index, if `directions` are some of its interest, and wait mode where that is asked for;
 * negative errno. */
static int64_t find_sides(const struct session *s, uint32_t id, uint32_t gen, unsigned directions,
			  bool wait_only)
{
	int64_t found = session_find(s, &s->watches, id, gen);
	const struct item *it;

	if (found < 0)
		return found;
	it = item_at(&s->core->items, (uint32_t)found);
	if (directions == 0 || directions & ~(unsigned)(it->flags & ITEM_INTEREST))
		return -EINVAL;
	if (wait_only && item_is_stream(it))
		return -EINVAL;
	return found;
}

static void count_waiting(struct session *s, int n)
{
	s->stats.waiting = add_signed(s->stats.waiting, n);
	s->core->stats.waiting = add_signed(s->core->stats.waiting, n);
}

/* ---- Deadlines ---- */

static void put_deadline(struct core *c, uint32_t index, unsigned side, int64_t deadline)
{
	struct item *it = item_at(&c->items, index);
	int64_t old = it->deadline[side], node;
	uint32_t ref = item_ref(index, side);

	if (deadline == old)
		return;
	it->deadline[side] = deadline;
	c->stats.deadlines = add_signed(c->stats.deadlines, (deadline > 0) - (old > 0));
	if (deadline <= 0) {
		if (old > 0)
			core_disarm(c, ref);
	} else if (old <= 0) {
		core_arm(c, ref, deadline);
	} else if (deadline < old) {
		/* Earlier than what was noted; also than what the heap knows? */
		if (timer_heap_when(&c->heap, ref, &node) && deadline < node)
			core_arm(c, ref, deadline);
	}
}

static void note_stamp(struct item *it, unsigned side)
{
	it->since_or_stamp[side] = it->stamp[side];
}

/* The deadline of this side is in the past now. */
static void expire_side(struct core *c, uint32_t index, unsigned side)
{
	struct item *it = item_at(&c->items, index);

	put_deadline(c, index, side, -1);
	if (item_is_stream(it)) {
		slot_stream_expire(&it->slot[side]);
	} else {
		if (!slot_expire(&it->slot[side]))
			return;
		count_waiting(item_session(c, it), -1);
	}
	note_stamp(it, side);
	session_enlist_overdue(item_session(c, it), index);
}

void watch_expire(struct core *c, uint32_t index, unsigned side, int64_t when)
{
	int64_t deadline = item_at(&c->items, index)->deadline[side];

	assert(deadline >= when);
#ifdef READYD_MUTANT_STALE_EXPIRY
	deadline = when;
#endif
	if (deadline > when)
		core_arm(c, item_ref(index, side), deadline);
	else
		expire_side(c, index, side);
}

int session_set_deadline(struct session *s, uint32_t id, uint32_t gen, unsigned directions,
			 int64_t when, bool relative, uint16_t stamp, int64_t now)
{
	int64_t found = find_sides(s, id, gen, directions, false);
	struct item *it;

	if (found < 0)
		return (int)found;
	it = item_at(&s->core->items, (uint32_t)found);
	if (it->flags & ITEM_CLOSING)
		return CORE_CODE_CLOSING;
	if (relative)
		when = core_later(when, now);
	/* 0 is none only if it was asked for: "exactly now" is expired. */
	if ((relative || when != 0) && when <= now)
		when = -1;
	for (unsigned side = 0; side < 2; side++) {
		if (!asks(directions, side))
			continue;
		it->stamp[side] = stamp;
		if (when < 0)
			expire_side(s->core, (uint32_t)found, side);
		else
			put_deadline(s->core, (uint32_t)found, side, when);
	}
	return 0;
}

/* ---- Its life ---- */

int session_watch(struct session *s, const struct core_watch *w, int64_t now, uint64_t *ret_tag)
{
	struct core *c = s->core;
	uint32_t index;
	struct item *it;
	int r;

	if (w->id == 0 || w->interest == 0 || w->interest > CORE_BOTH || w->mode > CORE_MODE_STREAM)
		return -EINVAL;
	if (w->mode == CORE_MODE_STREAM && c->options.level)
		return -EOPNOTSUPP;
	if (id_map_find(&s->watches, &c->items, w->id))
		return -EEXIST;
	if (!quota_charge(s->quota, QUOTA_WATCHES, 1))
		return -EDQUOT;
	r = core_add_item(c, s, now, &index);
	if (r < 0) {
		quota_give_back(s->quota, QUOTA_WATCHES, 1);
		return r;
	}
	it = item_at(&c->items, index);
	it->id = w->id;
	it->gen = w->gen;
	it->cookie = w->cookie;
	it->flags = (uint8_t)(w->interest | (w->mode == CORE_MODE_STREAM ? ITEM_STREAM : 0));
	it->kind = w->kind;
	it->fd = w->fd;
	id_map_put(&s->watches, &c->items, index);
	s->stats.watches++;
	c->stats.watches++;
	*ret_tag = item_tag(&c->items, index);
	return 0;
}

void watch_drop(struct session *s, uint32_t index)
{
	struct core *c = s->core;
	struct item *it = item_at(&c->items, index);

	session_delist(s, index);
	for (unsigned side = 0; side < 2; side++) {
		put_deadline(c, index, side, 0);
		if (slot_waits(it->slot[side]))
			count_waiting(s, -1);
	}
#ifndef READYD_MUTANT_QUOTA_NOT_GIVEN_BACK
	quota_give_back(s->quota, QUOTA_WATCHES, 1);
#endif
	s->stats.watches--;
	c->stats.watches--;
	item_table_give_back(&c->items, index);
}

static void end_watch(struct session *s, uint32_t index)
{
	id_map_remove(&s->watches, &s->core->items, index);
	watch_drop(s, index);
}

void watch_registered(struct core *c, uint64_t tag, uint32_t word)
{
	uint32_t index = item_table_find_tag(&c->items, tag);

	item_at(&c->items, index)->word = word;
}

void watch_forget(struct core *c, uint64_t tag)
{
	uint32_t index = item_table_find_tag(&c->items, tag);

	end_watch(item_session(c, item_at(&c->items, index)), index);
}

int session_find_watch(const struct session *s, uint32_t id, uint32_t gen, uint64_t *ret_tag,
		       uint32_t *ret_word)
{
	int64_t found = session_find(s, &s->watches, id, gen);

	if (found < 0)
		return (int)found;
	*ret_tag = item_tag(&s->core->items, (uint32_t)found);
	*ret_word = item_at(&s->core->items, (uint32_t)found)->word;
	return 0;
}

int session_unwatch(struct session *s, uint32_t id, uint32_t gen, struct core_entry *ret_entry)
{
	int64_t found = session_find(s, &s->watches, id, gen);
	struct core_entry entry;
	struct item *it;

	if (found < 0)
		return (int)found;
	it = item_at(&s->core->items, (uint32_t)found);
	session_fill_entry(it, &entry);
	entry.read = slot_owed(it->slot[0]);
	entry.write = slot_owed(it->slot[1]);
	end_watch(s, (uint32_t)found);
	if (!entry.read && !entry.write)
		return 0;
	s->stats.entries++;
	s->core->stats.entries++;
	*ret_entry = entry;
	return 1;
}

/* ---- Requests ---- */

static bool any_busy(const struct item *it, unsigned directions)
{
	return (asks(directions, 0) && slot_busy(it->slot[0])) ||
	       (asks(directions, 1) && slot_busy(it->slot[1]));
}

static unsigned error_check(const struct item *it, unsigned side)
{
	bool expired = it->deadline[side] < 0;

#ifdef READYD_MUTANT_TIMEOUT_FAILS_OTHER_SIDE
	expired = expired || it->deadline[1] < 0;
#endif
	return slot_error(it->flags & ITEM_CLOSING, expired, side == 0 && it->flags & ITEM_ERROR);
}

int session_wait(struct session *s, uint32_t id, uint32_t gen, unsigned directions, int64_t now,
		 unsigned *ret_arm)
{
	uint32_t since = (uint32_t)(now >> ITEM_UNIT);
	unsigned arm = 0;
	int64_t found = find_sides(s, id, gen, directions, true);
	struct item *it;

	if (found < 0)
		return (int)found;
	it = item_at(&s->core->items, (uint32_t)found);
#ifndef READYD_MUTANT_BUSY_NOT_CHECKED
	if (any_busy(it, directions))
		return -EBUSY;
#endif
	for (unsigned side = 0; side < 2; side++) {
		if (!asks(directions, side))
			continue;
		if (slot_wait(&it->slot[side], error_check(it, side))) {
			it->since_or_stamp[side] = since;
			count_waiting(s, 1);
			arm |= CORE_READ << side;
		} else {
			note_stamp(it, side);
			session_enlist(s, (uint32_t)found);
		}
	}
	*ret_arm = arm;
	return 0;
}

int session_unwait(struct session *s, uint32_t id, uint32_t gen, unsigned directions)
{
	bool done = false, taken_back = false;
	int64_t found = find_sides(s, id, gen, directions, true);
	struct item *it;
	int r;

	if (found < 0)
		return (int)found;
	it = item_at(&s->core->items, (uint32_t)found);
	for (unsigned side = 0; side < 2; side++) {
		if (!asks(directions, side))
			continue;
		r = slot_unwait(&it->slot[side]);
		if (r == 0) {
			count_waiting(s, -1);
			taken_back = true;
		} else if (r == -EALREADY) {
			done = true;
		}
	}
	if (done)
		return -EALREADY;
	return taken_back ? 0 : -ENOENT;
}

static void reset_sides(struct item *it, unsigned directions)
{
	for (unsigned side = 0; side < 2; side++) {
		if (asks(directions, side))
			slot_reset(&it->slot[side]);
	}
}

int session_reset(struct session *s, uint32_t id, uint32_t gen, unsigned directions)
{
	int64_t found = find_sides(s, id, gen, directions, false);
	struct item *it;

	if (found < 0)
		return (int)found;
	it = item_at(&s->core->items, (uint32_t)found);
	if (!item_is_stream(it) && any_busy(it, directions))
		return -EBUSY;
#ifdef READYD_MUTANT_RESET_BEFORE_CHECK
	reset_sides(it, directions);
#endif
	for (unsigned side = 0; side < 2; side++) {
		unsigned error = asks(directions, side) ? error_check(it, side) : 0;

		if (error)
			return (int)error;
	}
	reset_sides(it, directions);
	if (!slot_codes(it->slot[0]) && !slot_codes(it->slot[1]))
		session_delist(s, (uint32_t)found);
	return 0;
}

int session_evict(struct session *s, uint32_t id, uint32_t gen)
{
	int64_t found = session_find(s, &s->watches, id, gen);
	struct core *c = s->core;
	struct item *it;

	if (found < 0)
		return (int)found;
	it = item_at(&c->items, (uint32_t)found);
	if (it->flags & ITEM_CLOSING)
		return CORE_CODE_CLOSING;
	it->flags |= ITEM_CLOSING;
	for (unsigned side = 0; side < 2; side++) {
		struct slot *slot = &it->slot[side];
		bool waited = slot_waits(*slot);

		put_deadline(c, (uint32_t)found, side, 0);
		if (!asks(it->flags & ITEM_INTEREST, side))
			continue;
		if (item_is_stream(it))
			slot_stream_evict(slot);
		else if (!slot_evict(slot))
			continue;
		count_waiting(s, waited ? -1 : 0);
		session_enlist(s, (uint32_t)found);
	}
	return 0;
}

/* ---- Events ---- */

static enum slot_edge edge(struct core *c, struct item *it, unsigned side, bool error)
{
	struct slot *slot = &it->slot[side];
	bool waited = slot_waits(*slot);
	enum slot_edge result;

	if (item_is_stream(it)) {
		if (it->flags & ITEM_CLOSING)
			return SLOT_EDGE_NOTHING;
		return slot_stream_edge(slot, error && side == 0);
	}
	result = slot_edge(slot, c->options.level);
	if (waited)
		count_waiting(item_session(c, it), -1);
	return result;
}

void watch_event(struct core *c, uint32_t index, unsigned directions, bool error)
{
	struct item *it = item_at(&c->items, index);
	struct session *s = item_session(c, it);
	bool merged = false;

	c->stats.events++;
	s->stats.events++;
	if (error) {
		directions = CORE_BOTH;
		it->flags |= ITEM_ERROR;
	} else {
#ifndef READYD_MUTANT_ERROR_STICKS
		it->flags &= (uint8_t)~ITEM_ERROR;
#endif
	}
	directions &= it->flags & ITEM_INTEREST;
	for (unsigned side = 0; side < 2; side++) {
		enum slot_edge result;

		if (!asks(directions, side))
			continue;
		result = edge(c, it, side, error);
		if (result == SLOT_EDGE_COMPLETED)
			session_enlist(s, index);
		else if (result == SLOT_EDGE_MERGED)
			merged = true;
	}
	if (merged) {
		c->stats.coalesced++;
		s->stats.coalesced++;
	}
}
