/* SPDX-License-Identifier: MIT */
/*
 * Timers: an item without an fd.
 *
 * A one-shot timer is pending (in the heap), then fired (on the ready-list with count 1), and gone
 * with the commit of its entry. A periodic one is in the heap for as long as it lives, and on the
 * ready-list too while it has expirations that were not sent; they add up in one entry.
 *
 * The next time of a periodic timer keeps its phase and skips what was missed: the first when +
 * k * period after now. The sums are made so that nothing overflows: (now - when) fits 64 bits
 * without sign, and what is left to the next time is at most one period. A time that would be past
 * INT64_MAX is INT64_MAX, which never comes.
 *
 * Setting a live timer is arming it anew: whatever the old arming left unsent is taken back, so no
 * entry of it follows the answer; the same holds for stopping.
 */
#include "core.h"

#include <assert.h>
#include <errno.h>

#include "state.h"

static int new_timer(struct session *s, uint32_t id, int64_t now, uint32_t *ret_index)
{
	struct core *c = s->core;
	struct item *it;
	int r;

	if (!quota_charge(s->quota, QUOTA_TIMERS, 1))
		return -EDQUOT;
	r = core_add_item(c, s, now, ret_index);
	if (r < 0) {
		quota_give_back(s->quota, QUOTA_TIMERS, 1);
		return r;
	}
	it = item_at(&c->items, *ret_index);
	it->flags = ITEM_TIMER;
	it->id = id;
	id_map_put(&s->timers, &c->items, *ret_index);
	s->stats.timers++;
	c->stats.timers++;
	return 0;
}

int session_set_timer(struct session *s, const struct core_timer *t, int64_t now, bool *ret_pending)
{
	struct core *c = s->core;
	uint32_t index;
	struct item *it;
	bool live;

	if (t->id == 0 || t->period < 0)
		return -EINVAL;
	index = id_map_find(&s->timers, &c->items, t->id);
	live = index != 0;
	if (!live) {
		int r = new_timer(s, t->id, now, &index);

		if (r < 0)
			return r;
	}
	it = item_at(&c->items, index);
	session_delist(s, index);
	it->count = 0;
	it->gen = t->gen;
	it->cookie = t->cookie;
	it->when = t->relative ? core_later(t->when, now) : t->when;
	it->period = t->period;
	core_arm(c, item_ref(index, 0), it->when);
	*ret_pending = live;
	return 0;
}

void timer_drop(struct session *s, uint32_t index)
{
	struct core *c = s->core;

	session_delist(s, index);
	core_disarm(c, item_ref(index, 0));
	quota_give_back(s->quota, QUOTA_TIMERS, 1);
	s->stats.timers--;
	c->stats.timers--;
	item_table_give_back(&c->items, index);
}

void timer_end(struct session *s, uint32_t index)
{
	id_map_remove(&s->timers, &s->core->items, index);
	timer_drop(s, index);
}

int session_stop_timer(struct session *s, uint32_t id, uint32_t gen)
{
	int64_t found = session_find(s, &s->timers, id, gen);

	if (found < 0)
		return (int)found;
	timer_end(s, (uint32_t)found);
	return 0;
}

void timer_fire(struct core *c, uint32_t index, int64_t now)
{
	struct item *it = item_at(&c->items, index);
	uint64_t expirations = 1;

	if (it->period == 0) {
		it->when = 0;
		core_disarm(c, item_ref(index, 0));
	} else {
		uint64_t late = (uint64_t)now - (uint64_t)it->when;
		uint64_t period = (uint64_t)it->period;

		expirations += late / period;
		it->when = core_later((int64_t)(period - late % period), now);
		core_arm(c, item_ref(index, 0), it->when);
	}
	if (expirations > UINT32_MAX - it->count)
		it->count = UINT32_MAX;
	else
		it->count += (uint32_t)expirations;
	session_enlist_overdue(item_session(c, it), index);
}
