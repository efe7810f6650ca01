/* SPDX-License-Identifier: MIT */
#ifndef READYD_TIMER_HEAP_H
#define READYD_TIMER_HEAP_H

/*
 * A 4-ary heap of times. What it orders are small numbers, *refs*, 0 <= ref < the reserved number;
 * each is in the heap once or not at all. Order: by time, and among equal times by the order of
 * timer_heap_set(). Room is made by timer_heap_reserve() alone, so nothing else can fail.
 */

#include <stdbool.h>
#include <stdint.h>

struct timer_node {
	int64_t when;
	uint32_t seq; /* of the set; wraps around */
	uint32_t ref;
};

/* All zero is an empty heap with nothing reserved. */
struct timer_heap {
	struct timer_node *nodes;
	uint32_t **positions; /* by ref, in blocks; 0: not in the heap */
	uint32_t blocks;
	uint32_t count; /* nodes in the heap */
	uint32_t refs;  /* reserved */
	uint32_t seq;   /* of the last set */
	uint64_t room;  /* for so many nodes */
	uint64_t moves; /* nodes put, moved or removed: one for each set and remove that did so */
};

void timer_heap_init(struct timer_heap *h);

/* Frees all; the heap is as after timer_heap_init(). */
void timer_heap_deinit(struct timer_heap *h);

/* Refs 0 to refs - 1 may be used from now on. Never shrinks. -ENOMEM: nothing changed. */
int timer_heap_reserve(struct timer_heap *h, uint32_t refs);

/* Puts ref at `when`, or moves it there, earlier or later; behind all others of the same `when`,
 * also if it was at that very time before. */
void timer_heap_set(struct timer_heap *h, uint32_t ref, int64_t when);

/* Takes ref out. false: it was not in. */
bool timer_heap_remove(struct timer_heap *h, uint32_t ref);

bool timer_heap_contains(const struct timer_heap *h, uint32_t ref);

/* The time of ref. false: not in the heap. */
bool timer_heap_when(const struct timer_heap *h, uint32_t ref, int64_t *ret_when);

/* The first one; it stays. false: the heap is empty. */
bool timer_heap_first(const struct timer_heap *h, uint32_t *ret_ref, int64_t *ret_when);

/* Aborts with a message if the order or a position is wrong. O(reserved). */
void timer_heap_check(const struct timer_heap *h);

#endif
