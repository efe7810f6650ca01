/* SPDX-License-Identifier: MIT */
#ifndef READYD_STATE_H
#define READYD_STATE_H

/* What a core and a session are made of, and what the files of the core share. */

#include "core.h"
#include "id_map.h"
#include "item.h"
#include "timer_heap.h"

/* Of the table of sessions: items name theirs by its place. */
struct session_place {
	struct session *session; /* NULL: free */
	uint32_t next_free;
};

struct core {
	struct core_options options;
	struct item_table items;
	struct timer_heap heap;
	struct session_place *places; /* place 0 is none */
	uint32_t place_room;
	uint32_t place_end;  /* places from here on were never used */
	uint32_t free_place; /* first of the free ones */
	struct session *sessions;
	struct session *ready_first; /* sessions with unsent entries, oldest first */
	struct session *ready_last;
	struct core_stats stats;
};

struct session {
	struct core *core;
	uint32_t place;
	uint64_t number;
	void *owner;
	struct quota *quota;
	struct session *prev, *next;
	struct session *ready_prev, *ready_next;
	struct id_map watches;
	struct id_map timers;
	uint32_t ready_head; /* items with unsent entries, oldest first */
	uint32_t ready_tail;
	bool broken; /* an unsent break */
	bool held;   /* left out of the core's ready sessions */
	struct session_stats stats;
};

static inline uint64_t add_signed(uint64_t count, int n)
{
	return count + (uint64_t)(int64_t)n;
}

static inline struct session *item_session(const struct core *c, const struct item *it)
{
	return c->places[it->session].session;
}

static inline bool item_is_timer(const struct item *it)
{
	return it->flags & ITEM_TIMER;
}

static inline bool item_is_stream(const struct item *it)
{
	return it->flags & ITEM_STREAM;
}

/* core.c */

/* A new item of the session with a place for its deadlines; the caller puts it into a map. */
int core_add_item(struct core *c, struct session *s, int64_t now, uint32_t *ret_index);

/* The heap, with its numbers in the statistics. */
void core_arm(struct core *c, uint32_t ref, int64_t when);
void core_disarm(struct core *c, uint32_t ref);

/* when + now, kept within 64 bits. */
int64_t core_later(int64_t when, int64_t now);

/* session.c */

/* The item of (id, gen) in a map: its index, -ENOENT, or -ESTALE. */
int64_t session_find(const struct session *s, const struct id_map *m, uint32_t id, uint32_t gen);

/* Puts the item at the end of the ready-list, unless it has a place there already; takes it off. */
void session_enlist(struct session *s, uint32_t index);
void session_delist(struct session *s, uint32_t index);

/* The same as enlist, because its time came. */
void session_enlist_overdue(struct session *s, uint32_t index);

/* What would be sent for an item now. */
void session_fill_entry(const struct item *it, struct core_entry *ret);

/* watch.c: everything but the id map, which is the caller's. */
void watch_drop(struct session *s, uint32_t index);
void watch_event(struct core *c, uint32_t index, unsigned directions, bool error);
void watch_expire(struct core *c, uint32_t index, unsigned side, int64_t when);

/* timer.c: the same. */
void timer_drop(struct session *s, uint32_t index);
void timer_end(struct session *s, uint32_t index); /* and out of the map */
void timer_fire(struct core *c, uint32_t index, int64_t now);

#endif
