/* SPDX-License-Identifier: MIT */
/*
 * A session: what one connection owns in the core, and its ready-list. Its items name it by its
 * place in a table of the core, which is half of a pointer; a place is reused when it ended.
 *
 * The ready-list runs through the items (ready_prev, ready_next, by index). An item is on it at
 * most once: exactly while it has something unsent (a code in a slot, an expiration), from its
 * first completion to the commit. What completes meanwhile is merged into its entry and changes
 * nothing about its place. So a client that does not read costs no memory, and nothing is dropped.
 *
 * A break is a flag beside the list. It comes first, since it ends a poll.
 *
 * session_peek() only reads. The bits are cleared by session_commit(), after the send succeeded: a
 * full socket then loses nothing. What arrives between commit and the client's reading makes a new
 * entry: merging into one that was sent could be missed by a client that has just seen EAGAIN.
 *
 * Sessions with something unsent are on a list of the core, in the order in which they got there,
 * and leave it with their last entry. stats.ready counts items and the break; it is the rule for
 * both lists.
 */
#include "core.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "daemon/util/cleanup.h"
#include "state.h"

/* ---- Its life ---- */

static int enlarge_places(struct core *c)
{
	uint32_t room = c->place_room ? 2 * c->place_room : 16;
	struct session_place *places;

	if (room <= c->place_room)
		return -ENOMEM;
	places = realloc(c->places, room * sizeof(*places));
	if (!places)
		return -ENOMEM;
	c->places = places;
	c->place_room = room;
	if (c->place_end == 0)
		places[c->place_end++] = (struct session_place){0};
	return 0;
}

static int take_place(struct core *c, struct session *s)
{
	if (c->free_place) {
		s->place = c->free_place;
		c->free_place = c->places[s->place].next_free;
	} else {
		if (c->place_end == c->place_room && enlarge_places(c) < 0)
			return -ENOMEM;
		s->place = c->place_end++;
	}
	c->places[s->place] = (struct session_place){.session = s};
	return 0;
}

static void give_back_place(struct core *c, uint32_t place)
{
	c->places[place] = (struct session_place){.next_free = c->free_place};
	c->free_place = place;
}

int core_add_session(struct core *c, uint64_t number, void *owner, struct quota *quota,
		     struct session **ret)
{
	CLEANUP_MEMORY struct session *s = calloc(1, sizeof(*s));

	if (!s || take_place(c, s) < 0)
		return -ENOMEM;
	s->core = c;
	s->number = number;
	s->owner = owner;
	s->quota = quota;
	id_map_init(&s->watches, c->options.hash_key ^ 2 * number);
	id_map_init(&s->timers, c->options.hash_key ^ (2 * number + 1));
	s->next = c->sessions;
	if (s->next)
		s->next->prev = s;
	c->sessions = s;
	c->stats.sessions++;
	*ret = STEAL(s);
	return 0;
}

static void drop_all(struct session *s, struct id_map *m,
		     void (*drop)(struct session *s, uint32_t index))
{
	for (uint32_t bucket = 0; bucket < id_map_bucket_count(m); bucket++) {
		uint32_t index = m->buckets[bucket];

		while (index) {
			uint32_t next = item_at(&s->core->items, index)->hash_next;

			drop(s, index);
			index = next;
		}
	}
	id_map_deinit(m);
}

/* ---- The list of sessions with unsent entries ---- */

static void join_ready(struct session *s)
{
	struct core *c = s->core;

	s->ready_prev = c->ready_last;
	s->ready_next = NULL;
	if (c->ready_last)
		c->ready_last->ready_next = s;
	else
		c->ready_first = s;
	c->ready_last = s;
}

static void leave_ready(struct session *s)
{
	struct core *c = s->core;

	if (s->ready_prev)
		s->ready_prev->ready_next = s->ready_next;
	else
		c->ready_first = s->ready_next;
	if (s->ready_next)
		s->ready_next->ready_prev = s->ready_prev;
	else
		c->ready_last = s->ready_prev;
	s->ready_prev = s->ready_next = NULL;
}

static void count_ready(struct session *s)
{
	s->core->stats.ready++;
	if (s->stats.ready++ == 0 && !s->held)
		join_ready(s);
}

static void uncount_ready(struct session *s)
{
	assert(s->stats.ready > 0 && s->core->stats.ready > 0);
	s->core->stats.ready--;
	if (--s->stats.ready == 0 && !s->held)
		leave_ready(s);
}

void session_hold(struct session *s, bool held)
{
	if (s->held == held)
		return;
	s->held = held;
	if (s->stats.ready == 0)
		return;
	if (held)
		leave_ready(s);
	else
		join_ready(s);
}

struct session *core_next_ready(const struct core *c, const struct session *previous)
{
	return previous ? previous->ready_next : c->ready_first;
}

void session_end(struct session *s)
{
	struct core *c = s->core;

	drop_all(s, &s->watches, watch_drop);
	drop_all(s, &s->timers, timer_drop);
	if (s->broken)
		uncount_ready(s);
	if (s->prev)
		s->prev->next = s->next;
	else
		c->sessions = s->next;
	if (s->next)
		s->next->prev = s->prev;
	c->stats.sessions--;
	give_back_place(c, s->place);
	free(s);
}

uint64_t session_number(const struct session *s)
{
	return s->number;
}

void *session_owner(const struct session *s)
{
	return s->owner;
}

const struct session_stats *session_stats(const struct session *s)
{
	return &s->stats;
}

int64_t session_find(const struct session *s, const struct id_map *m, uint32_t id, uint32_t gen)
{
	uint32_t index = id_map_find(m, &s->core->items, id);

	if (index == 0)
		return -ENOENT;
	if (item_at(&s->core->items, index)->gen != gen)
		return -ESTALE;
	return index;
}

/* ---- The ready-list ---- */

void session_enlist(struct session *s, uint32_t index)
{
	const struct item_table *t = &s->core->items;
	struct item *it = item_at(t, index);

	if (it->flags & ITEM_LISTED)
		return;
	it->flags |= ITEM_LISTED;
	it->ready_prev = s->ready_tail;
	it->ready_next = 0;
	if (s->ready_tail)
		item_at(t, s->ready_tail)->ready_next = index;
	else
		s->ready_head = index;
	s->ready_tail = index;
	count_ready(s);
}

void session_delist(struct session *s, uint32_t index)
{
	const struct item_table *t = &s->core->items;
	struct item *it = item_at(t, index);

	if (!(it->flags & ITEM_LISTED))
		return;
	if (it->flags & ITEM_OVERDUE)
		s->core->stats.overdue--;
	it->flags &= (uint8_t) ~(ITEM_LISTED | ITEM_OVERDUE);
	if (it->ready_prev)
		item_at(t, it->ready_prev)->ready_next = it->ready_next;
	else
		s->ready_head = it->ready_next;
	if (it->ready_next)
		item_at(t, it->ready_next)->ready_prev = it->ready_prev;
	else
		s->ready_tail = it->ready_prev;
	it->ready_prev = it->ready_next = 0;
	uncount_ready(s);
}

void session_enlist_overdue(struct session *s, uint32_t index)
{
	struct item *it = item_at(&s->core->items, index);

	session_enlist(s, index);
	if (it->flags & ITEM_OVERDUE)
		return;
	it->flags |= ITEM_OVERDUE;
	s->core->stats.overdue++;
}

void session_count_stale(struct session *s)
{
	s->stats.stale++;
}

void session_break(struct session *s)
{
	s->core->stats.breaks++;
	if (s->broken)
		return;
	s->broken = true;
	count_ready(s);
}

static uint16_t entry_stamp(const struct item *it, unsigned side)
{
	bool timeout = slot_codes(it->slot[side]) & CORE_CODE_TIMEOUT;

	return timeout ? (uint16_t)it->since_or_stamp[side] : 0;
}

void session_fill_entry(const struct item *it, struct core_entry *ret)
{
	*ret = (struct core_entry){.id = it->id, .gen = it->gen, .cookie = it->cookie};
	if (item_is_timer(it)) {
		ret->kind = CORE_ENTRY_TIMER;
		ret->count = it->count;
		return;
	}
	ret->kind = CORE_ENTRY_WATCH;
	ret->mode = item_is_stream(it) ? CORE_MODE_STREAM : CORE_MODE_WAIT;
	ret->read = slot_codes(it->slot[0]);
	ret->write = slot_codes(it->slot[1]);
	ret->read_stamp = entry_stamp(it, 0);
	ret->write_stamp = entry_stamp(it, 1);
}

unsigned session_peek(const struct session *s, struct core_entry *entries, unsigned max)
{
	uint32_t index = s->ready_head;
	unsigned n = 0;

	if (s->broken && n < max)
		entries[n++] = (struct core_entry){.kind = CORE_ENTRY_BREAK};
	while (index && n < max) {
		const struct item *it = item_at(&s->core->items, index);

		session_fill_entry(it, &entries[n++]);
		index = it->ready_next;
	}
	return n;
}

static void commit_first(struct session *s)
{
	uint32_t index = s->ready_head;
	struct item *it;

	assert(index);
	it = item_at(&s->core->items, index);
	session_delist(s, index);
	it->fired++;
	if (!item_is_timer(it)) {
		slot_sent(&it->slot[0]);
		slot_sent(&it->slot[1]);
	} else if (it->period > 0) {
		it->count = 0;
	} else {
		timer_end(s, index);
	}
}

void session_commit(struct session *s, unsigned n)
{
	if (n == 0)
		return;
	s->stats.messages++;
	s->stats.entries += n;
	s->core->stats.entries += n;
	if (s->broken) {
		s->broken = false;
		uncount_ready(s);
		n--;
	}
	while (n-- > 0)
		commit_first(s);
}
