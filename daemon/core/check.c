/* SPDX-License-Identifier: MIT */
/*
 * All that the other files promise each other, checked from scratch: everything is counted anew
 * and compared with what is kept. Used by the tests after every step.
 */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>

#include "state.h"

/* Counted by walking. */
struct counts {
	uint64_t sessions, watches, timers, waiting, ready, deadlines, nodes;
};

static void check(bool good, const char *what, const struct session *s, uint64_t index)
{
	if (good)
		return;
	fprintf(stderr, "core: %s (session %llu, item %llu)\n", what,
		s ? (unsigned long long)s->number : 0, (unsigned long long)index);
	abort();
}

static bool is_one_bit_or_none(unsigned bits)
{
	return (bits & (bits - 1)) == 0;
}

static void check_slot(const struct core *c, const struct item *it, uint32_t index, unsigned side,
		       struct counts *n)
{
	const struct session *s = item_session(c, it);
	struct slot slot = it->slot[side];
	int64_t deadline = it->deadline[side], node = 0;
	bool armed = timer_heap_when(&c->heap, item_ref(index, side), &node);

	if (!(it->flags & ITEM_READ << side))
		check(slot.bits == 0 && deadline == 0, "slot outside the interest", s, index);
	if (item_is_stream(it)) {
		check(!slot_waits(slot) && !slot_latched(slot), "stream slot waits", s, index);
	} else {
		check(is_one_bit_or_none(slot_codes(slot)), "two codes at once", s, index);
		check(!slot_waits(slot) || slot.bits == SLOT_WAITING,
		      "waiting and latched, or waiting and done", s, index);
	}
	check(!c->options.level || !slot_latched(slot), "latch on a level backend", s, index);
	check(deadline >= -1, "bad deadline", s, index);
	if (it->flags & ITEM_CLOSING)
		check(!slot_waits(slot) && deadline == 0, "evicted but waiting or armed", s, index);
	if (slot_waits(slot))
		check(deadline >= 0, "waiting though its deadline expired", s, index);
	check(armed == (deadline > 0), "heap and deadline differ", s, index);
	check(!armed || node <= deadline, "node after its deadline", s, index);
	n->waiting += slot_waits(slot);
	n->deadlines += deadline > 0;
	n->nodes += armed;
}

static void check_watch(const struct core *c, const struct item *it, uint32_t index,
			struct counts *n)
{
	bool unsent = slot_codes(it->slot[0]) || slot_codes(it->slot[1]);

	check(it->flags & ITEM_INTEREST, "watch without interest", item_session(c, it), index);
	check(unsent == !!(it->flags & ITEM_LISTED), "unsent and ready-list differ",
	      item_session(c, it), index);
	check_slot(c, it, index, 0, n);
	check_slot(c, it, index, 1, n);
	n->watches++;
	n->ready += unsent;
}

static void check_timer(const struct core *c, const struct item *it, uint32_t index,
			struct counts *n)
{
	int64_t node = 0;
	bool armed = timer_heap_when(&c->heap, item_ref(index, 0), &node);
	bool unsent = it->count > 0;

	check(it->period >= 0, "negative period", item_session(c, it), index);
	check(armed || (it->period == 0 && unsent), "timer neither pending nor fired",
	      item_session(c, it), index);
	check(!armed || node == it->when, "timer and heap differ", item_session(c, it), index);
	check(!armed || it->period > 0 || !unsent, "one-shot pending and fired",
	      item_session(c, it), index);
	check(unsent == !!(it->flags & ITEM_LISTED), "unsent and ready-list differ",
	      item_session(c, it), index);
	check(!timer_heap_contains(&c->heap, item_ref(index, 1)), "timer's other side is armed",
	      item_session(c, it), index);
	n->timers++;
	n->ready += unsent;
	n->nodes += armed;
}

static void check_map(const struct session *s, const struct id_map *m, bool timers,
		      struct counts *n)
{
	const struct core *c = s->core;
	uint32_t count = 0;

	for (uint32_t bucket = 0; bucket < id_map_bucket_count(m); bucket++) {
		for (uint32_t index = m->buckets[bucket]; index; count++) {
			const struct item *it = item_at(&c->items, index);

			check(item_session(c, it) == s, "another session's item in the map", s,
			      index);
			check(it->id != 0 && id_map_find(m, &c->items, it->id) == index,
			      "item is not found by its id", s, index);
			check(item_is_timer(it) == timers, "item in the wrong map", s, index);
			check(it->tag_gen != 0, "tag without a generation", s, index);
			if (timers)
				check_timer(c, it, index, n);
			else
				check_watch(c, it, index, n);
			index = it->hash_next;
		}
	}
	check(count == m->count, "map's count", s, count);
}

static void check_ready_list(const struct session *s)
{
	uint32_t previous = 0;
	uint64_t count = s->broken;

	for (uint32_t index = s->ready_head; index;) {
		const struct item *it = item_at(&s->core->items, index);

		check(item_session(s->core, it) == s && it->flags & ITEM_LISTED,
		      "stranger on the ready-list", s, index);
		check(it->ready_prev == previous, "ready-list's links", s, index);
		check(++count <= s->stats.ready, "ready-list is longer than its count", s, index);
		previous = index;
		index = it->ready_next;
	}
	check(s->ready_tail == previous, "ready-list's tail", s, previous);
	check(count == s->stats.ready, "ready-list is shorter than its count", s, count);
}

static void check_session(const struct session *s, struct counts *all)
{
	struct counts n = {0};

	check(s->core->places[s->place].session == s, "session is not at its place", s, s->place);
	check_map(s, &s->watches, false, &n);
	check_map(s, &s->timers, true, &n);
	n.ready += s->broken;
	check(n.watches == s->stats.watches, "session's watches", s, n.watches);
	check(n.timers == s->stats.timers, "session's timers", s, n.timers);
	check(n.waiting == s->stats.waiting, "session's waiting slots", s, n.waiting);
	check(n.ready == s->stats.ready, "session's unsent entries", s, n.ready);
	check_ready_list(s);
	all->sessions++;
	all->watches += n.watches;
	all->timers += n.timers;
	all->waiting += n.waiting;
	all->ready += n.ready;
	all->deadlines += n.deadlines;
	all->nodes += n.nodes;
}

static void check_quota(const struct core *c, const struct session *s)
{
	uint64_t watches = 0, timers = 0;

	for (const struct session *other = c->sessions; other; other = other->next) {
		if (other->quota != s->quota)
			continue;
		watches += other->stats.watches;
		timers += other->stats.timers;
	}
	check(s->quota->used[QUOTA_WATCHES] == watches, "quota of watches", s, watches);
	check(s->quota->used[QUOTA_TIMERS] == timers, "quota of timers", s, timers);
}

static void check_ready_sessions(const struct core *c)
{
	const struct session *previous = NULL;
	uint64_t listed = 0, ready = 0;

	for (const struct session *s = c->ready_first; s; s = s->ready_next) {
		check(s->stats.ready > 0, "session without unsent entries is listed", s, 0);
		check(s->ready_prev == previous, "links of the ready sessions", s, 0);
		check(++listed <= c->stats.sessions, "ready sessions go in a circle", s, 0);
		previous = s;
	}
	check(c->ready_last == previous, "last of the ready sessions", previous, 0);
	for (const struct session *s = c->sessions; s; s = s->next)
		ready += s->stats.ready > 0 && !s->held;
	check(listed == ready, "a session with unsent entries is not listed", NULL, listed);
}

static void check_table(const struct item_table *t)
{
	uint64_t live = 0, free_count = 0;

	for (uint32_t index = 1; index < t->end; index++)
		live += item_at(t, index)->session != 0;
	check(live == t->live, "table's count of live items", NULL, live);
	for (uint32_t index = t->free; index; index = item_at(t, index)->hash_next) {
		check(!item_at(t, index)->session, "live item on the free list", NULL, index);
		check(++free_count < t->end, "free list goes in a circle", NULL, index);
	}
	check(live + free_count < (t->end ? t->end : 1), "more items than indexes", NULL, live);
}

void core_check(const struct core *c)
{
	const struct core_stats *stats = &c->stats;
	struct counts n = {0};

	timer_heap_check(&c->heap);
	check_table(&c->items);
	for (const struct session *s = c->sessions; s; s = s->next) {
		check_session(s, &n);
		check_quota(c, s);
	}
	check_ready_sessions(c);
	check(n.sessions == stats->sessions, "sessions", NULL, n.sessions);
	check(n.watches == stats->watches, "watches", NULL, n.watches);
	check(n.timers == stats->timers, "timers", NULL, n.timers);
	check(n.watches + n.timers == c->items.live, "an item is in no map", NULL, c->items.live);
	check(n.waiting == stats->waiting, "waiting slots", NULL, n.waiting);
	check(n.ready == stats->ready, "unsent entries", NULL, n.ready);
	check(n.deadlines == stats->deadlines, "pending deadlines", NULL, n.deadlines);
	check(n.nodes == c->heap.count && n.nodes == stats->heap_nodes, "heap nodes", NULL,
	      n.nodes);
	check(stats->heap_moves == c->heap.moves, "heap moves", NULL, stats->heap_moves);
}
