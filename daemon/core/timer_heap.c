/* SPDX-License-Identifier: MIT */
/*
 * The heap is an array. Its root is nodes[2], the children of nodes[k] are the four from
 * 4 (k - 2) + 3: so position 0 is free to mean "not in the heap", and the four children of a node
 * are one cache line where the allocator hands out large blocks 16 bytes behind a page's start, as
 * glibc does. Nothing but speed depends on that.
 *
 * positions[] tells for each ref where its node is. It is a table of blocks, since it must be
 * zero from the start but must not cost memory before it is used: a large calloc() is untouched
 * pages. For the same reason nodes[] has room for every ref, grown by realloc(), which moves pages
 * and not bytes when the array is large.
 *
 * Invariants, checked by timer_heap_check(): no node is before its parent; the position of each
 * node's ref is that node; as many refs have a position as there are nodes.
 *
 * seq wraps around: the order among equal times holds while fewer than 2^32 sets lie between them.
 */
#include "timer_heap.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	ROOT = 2,
	ARITY = 4,
	BLOCK_SHIFT = 15,
	BLOCK = 1 << BLOCK_SHIFT, /* refs in a block: 128 KiB */
};

static inline uint32_t parent_of(uint32_t k)
{
	return (k - 3) / ARITY + ROOT;
}

static inline uint32_t first_child_of(uint32_t k)
{
	return (k - ROOT) * ARITY + 3;
}

/* Time, then age. The seq counts from that of the next set, which makes the order one that holds
 * however often seq wraps around. */
static inline bool before(const struct timer_heap *h, const struct timer_node *a,
			  const struct timer_node *b)
{
	if (a->when != b->when)
		return a->when < b->when;
	return a->seq - (h->seq + 1) < b->seq - (h->seq + 1);
}

static inline uint32_t *position_of(const struct timer_heap *h, uint32_t ref)
{
	return &h->positions[ref >> BLOCK_SHIFT][ref & (BLOCK - 1)];
}

static inline void place(const struct timer_heap *h, uint32_t k, const struct timer_node *node)
{
	h->nodes[k] = *node;
	*position_of(h, node->ref) = k;
}

/* Puts the node where it belongs, k being a hole that is at its place or below. */
static inline void sift_up(const struct timer_heap *h, uint32_t k, const struct timer_node *node)
{
	while (k > ROOT) {
		uint32_t parent = parent_of(k);

		if (!before(h, node, &h->nodes[parent]))
			break;
		place(h, k, &h->nodes[parent]);
		k = parent;
	}
	place(h, k, node);
}

static uint32_t first_of_few(const struct timer_heap *h, uint32_t child, uint32_t end)
{
	uint32_t best = child;

	for (uint32_t i = child + 1; i < end && i < child + ARITY; i++) {
		if (before(h, &h->nodes[i], &h->nodes[best]))
			best = i;
	}
	return best;
}

/* Of four children, by time alone: which of them is first is chance, and a branch on it would be
 * mispredicted half of the time. Equal times are rare and go the long way. */
static inline uint32_t first_of_four(const struct timer_heap *h, uint32_t child, uint32_t end)
{
	const struct timer_node *n = &h->nodes[child];
	int64_t w0 = n[0].when, w1 = n[1].when, w2 = n[2].when, w3 = n[3].when;
	int64_t left = w1 < w0 ? w1 : w0, right = w3 < w2 ? w3 : w2;
	int64_t first = right < left ? right : left;
	uint32_t i = w1 < w0, j = 2 + (w3 < w2);

	if ((w0 == first) + (w1 == first) + (w2 == first) + (w3 == first) > 1)
		return first_of_few(h, child, end);
	return child + (right < left ? j : i);
}

/*
 * The same for a node that may belong below the hole k: the hole goes down to a leaf without a
 * look at the node, and the node up from there. What is put in the place of the first node comes
 * from the end of the array, or is a deadline that moved on: nearly always it belongs to the end.
 */
static void sift(const struct timer_heap *h, uint32_t k, const struct timer_node *node)
{
	uint32_t end = ROOT + h->count, child;

	while ((child = first_child_of(k)) < end) {
		uint32_t best = child + ARITY <= end ? first_of_four(h, child, end)
						     : first_of_few(h, child, end);

		place(h, k, &h->nodes[best]);
		k = best;
	}
	sift_up(h, k, node);
}

void timer_heap_init(struct timer_heap *h)
{
	*h = (struct timer_heap){0};
}

void timer_heap_deinit(struct timer_heap *h)
{
	for (uint32_t i = 0; i < h->blocks; i++)
		free(h->positions[i]);
	free(h->positions);
	free(h->nodes);
	*h = (struct timer_heap){0};
}

static int reserve_nodes(struct timer_heap *h, uint32_t refs)
{
	uint64_t room = h->room ? h->room : 256;
	struct timer_node *nodes;

	if (refs <= h->room)
		return 0;
	while (room < refs)
		room *= 2;
	nodes = realloc(h->nodes, (size_t)(room + ROOT) * sizeof(*nodes));
	if (!nodes)
		return -ENOMEM;
	h->nodes = nodes;
	h->room = room;
	return 0;
}

static int reserve_positions(struct timer_heap *h, uint32_t refs)
{
	uint32_t blocks = (uint32_t)(((uint64_t)refs + BLOCK - 1) >> BLOCK_SHIFT);
	uint32_t **positions;

	if (blocks <= h->blocks)
		return 0;
	positions = realloc(h->positions, blocks * sizeof(*positions));
	if (!positions)
		return -ENOMEM;
	h->positions = positions;
	while (h->blocks < blocks) {
		positions[h->blocks] = calloc(BLOCK, sizeof(**positions));
		if (!positions[h->blocks])
			return -ENOMEM;
		h->blocks++;
	}
	return 0;
}

int timer_heap_reserve(struct timer_heap *h, uint32_t refs)
{
	int r;

	if (refs <= h->refs)
		return 0;
	r = reserve_nodes(h, refs);
	if (r == 0)
		r = reserve_positions(h, refs);
	if (r == 0)
		h->refs = refs;
	return r;
}

void timer_heap_set(struct timer_heap *h, uint32_t ref, int64_t when)
{
	struct timer_node node = {.when = when, .seq = ++h->seq, .ref = ref};
	uint32_t k;

	assert(ref < h->refs);
	k = *position_of(h, ref);
	h->moves++;
	if (k == 0)
		sift_up(h, ROOT + h->count++, &node);
	else
		sift(h, k, &node);
}

bool timer_heap_remove(struct timer_heap *h, uint32_t ref)
{
	uint32_t k, last;

	assert(ref < h->refs);
	k = *position_of(h, ref);
	if (k == 0)
		return false;
	h->moves++;
	*position_of(h, ref) = 0;
	last = ROOT + --h->count;
	if (k != last) {
		struct timer_node node = h->nodes[last];

		sift(h, k, &node);
	}
	return true;
}

bool timer_heap_contains(const struct timer_heap *h, uint32_t ref)
{
	assert(ref < h->refs);
	return *position_of(h, ref) != 0;
}

bool timer_heap_when(const struct timer_heap *h, uint32_t ref, int64_t *ret_when)
{
	uint32_t k;

	assert(ref < h->refs);
	k = *position_of(h, ref);
	if (k == 0)
		return false;
	*ret_when = h->nodes[k].when;
	return true;
}

bool timer_heap_first(const struct timer_heap *h, uint32_t *ret_ref, int64_t *ret_when)
{
	if (h->count == 0)
		return false;
	*ret_ref = h->nodes[ROOT].ref;
	*ret_when = h->nodes[ROOT].when;
	return true;
}

static void check(bool good, const char *what, uint32_t at)
{
	if (good)
		return;
	fprintf(stderr, "timer heap: %s (at %u)\n", what, at);
	abort();
}

void timer_heap_check(const struct timer_heap *h)
{
	uint32_t positions = 0;

	check(h->count <= h->refs && h->refs <= h->room, "more nodes than room", h->count);
	for (uint32_t k = ROOT; k < ROOT + h->count; k++) {
		const struct timer_node *node = &h->nodes[k];

		check(node->ref < h->refs, "a node's ref was never reserved", k);
		check(*position_of(h, node->ref) == k, "a ref's position is not its node", k);
		check(k == ROOT || !before(h, node, &h->nodes[parent_of(k)]),
		      "a node is before its parent", k);
	}
	for (uint32_t ref = 0; ref < h->refs; ref++)
		positions += *position_of(h, ref) != 0;
	check(positions == h->count, "a ref that is not in the heap has a position", positions);
}
