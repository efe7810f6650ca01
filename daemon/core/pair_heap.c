/* SPDX-License-Identifier: MIT */
/*
 * A pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986): a tree in which no node comes before its
 * parent. Two trees are merged by making the later root the first child of the other. What is left
 * when a root goes, a row of subtrees, is merged in pairs, and the pairs then from the last to the
 * first: that is what makes the next removals cheap.
 *
 * Invariants: a node's `prev` is its left sibling, or its parent if it is the first child; the root
 * has neither siblings nor `prev`. Nothing here recurses: a tree may be as deep as it has nodes.
 */
#include "pair_heap.h"

#include <assert.h>

static bool is_before(const struct pair_node *a, const struct pair_node *b)
{
	return a->major != b->major ? a->major < b->major : a->minor < b->minor;
}

/* Two roots without siblings. */
static struct pair_node *merge(struct pair_node *a, struct pair_node *b)
{
	if (is_before(b, a)) {
		struct pair_node *t = a;

		a = b;
		b = t;
	}
	b->prev = a;
	b->next = a->child;
	if (a->child)
		a->child->prev = b;
	a->child = b;
	return a;
}

static struct pair_node *alone(struct pair_node *node)
{
	node->next = node->prev = NULL;
	return node;
}

/* A row of siblings becomes one tree; NULL: there is none. */
static struct pair_node *merge_row(struct pair_node *row)
{
	struct pair_node *pairs = NULL, *all = NULL;

	while (row) {
		struct pair_node *a = row, *b = a->next;

		row = b ? b->next : NULL;
		a = alone(a);
		if (b)
			a = merge(a, alone(b));
		a->next = pairs;
		pairs = a;
	}
	while (pairs) {
		struct pair_node *a = pairs;

		pairs = a->next;
		a = alone(a);
		all = all ? merge(all, a) : a;
	}
	return all;
}

void pair_heap_add(struct pair_heap *h, struct pair_node *node, uint64_t major, uint64_t minor)
{
	assert(!node->in);
	*node = (struct pair_node){.major = major, .minor = minor, .in = true};
	h->root = h->root ? merge(h->root, node) : node;
}

void pair_heap_remove(struct pair_heap *h, struct pair_node *node)
{
	struct pair_node *rest = merge_row(node->child);

	assert(node->in);
	if (node == h->root) {
		h->root = rest;
	} else {
		if (node->prev->child == node)
			node->prev->child = node->next;
		else
			node->prev->next = node->next;
		if (node->next)
			node->next->prev = node->prev;
		if (rest)
			h->root = merge(h->root, rest);
	}
	*node = (struct pair_node){0};
}
