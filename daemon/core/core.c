/* SPDX-License-Identifier: MIT */
/*
 * The core itself: its creation, its items, and the two things that happen to it from outside:
 * the kernel's events and the passing of time.
 *
 * Whatever can fail for want of memory fails when a session, a watch or a timer is made: an item
 * comes with its place in the heap and its links for the ready-list. So events, waits, deadlines,
 * expiry, peek and commit allocate nothing and cannot fail.
 *
 * A deadline that moves later (extended on every read) is only noted in its item; its node keeps
 * the old time. core_expire() meets the node at the old time and moves it to the noted one, where
 * it then stands behind all that were armed before. So the first node of the heap may be early,
 * never late, and expiring at `now` is taking nodes from the top while their time is not after
 * now: each either fires or moves on. A time of INT64_MAX never comes.
 */
#include "core.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "state.h"

int core_new(const struct core_options *options, struct core **ret)
{
	struct core *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->options = *options;
	timer_heap_init(&c->heap);
	*ret = c;
	return 0;
}

struct core *core_free(struct core *c)
{
	if (!c)
		return NULL;
	while (c->sessions)
		session_end(c->sessions);
	timer_heap_deinit(&c->heap);
	free(c->places);
	item_table_deinit(&c->items);
	free(c);
	return NULL;
}

const struct core_stats *core_stats(const struct core *c)
{
	return &c->stats;
}

int64_t core_next_expiry(const struct core *c)
{
	uint32_t ref;
	int64_t when;

	return timer_heap_first(&c->heap, &ref, &when) ? when : INT64_MAX;
}

int core_add_item(struct core *c, struct session *s, int64_t now, uint32_t *ret_index)
{
	uint32_t index;
	struct item *it;
	int r;

	r = timer_heap_reserve(&c->heap, 2 * item_table_room_for_next(&c->items));
	if (r == 0)
		r = item_table_take(&c->items, &index);
	if (r < 0)
		return r;
	it = item_at(&c->items, index);
	it->session = s->place;
	it->made = (uint32_t)(now >> ITEM_UNIT);
	*ret_index = index;
	return 0;
}

static void count_heap(struct core *c)
{
	c->stats.heap_nodes = c->heap.count;
	c->stats.heap_moves = c->heap.moves;
}

void core_arm(struct core *c, uint32_t ref, int64_t when)
{
	timer_heap_set(&c->heap, ref, when);
	count_heap(c);
}

void core_disarm(struct core *c, uint32_t ref)
{
	(void)timer_heap_remove(&c->heap, ref);
	count_heap(c);
}

int64_t core_later(int64_t when, int64_t now)
{
	int64_t sum;

	if (__builtin_add_overflow(when, now, &sum))
		sum = now > 0 ? INT64_MAX : INT64_MIN;
	return sum;
}

bool core_event(struct core *c, uint64_t tag, unsigned directions, bool error)
{
	uint32_t index = item_table_find_tag(&c->items, tag);

	if (index == 0 || item_is_timer(item_at(&c->items, index))) {
		c->stats.stale++;
		return false;
	}
	watch_event(c, index, directions, error);
	return true;
}

bool core_expire_some(struct core *c, int64_t now, unsigned max)
{
	uint32_t ref;
	int64_t when;

	while (timer_heap_first(&c->heap, &ref, &when) && when <= now && when != INT64_MAX) {
		unsigned side;
		uint32_t index = item_of_ref(ref, &side);

		if (max-- == 0)
			return true;

		if (item_is_timer(item_at(&c->items, index)))
			timer_fire(c, index, now);
		else
			watch_expire(c, index, side, when);
	}
	return false;
}

void core_expire(struct core *c, int64_t now)
{
	while (core_expire_some(c, now, UINT_MAX))
		;
}
