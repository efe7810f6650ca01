/* SPDX-License-Identifier: MIT */
#ifndef READYD_PAIR_HEAP_H
#define READYD_PAIR_HEAP_H

/*
 * A pairing heap of nodes that stand in their owners' structs: nothing is allocated, so nothing can
 * fail. The first node is the one with the smallest `major`, among equals the one with the smallest
 * `minor`. Adding costs a comparison, removing about log n of them in the mean.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pair_node {
	struct pair_node *child; /* the first one */
	struct pair_node *next;  /* sibling */
	struct pair_node *prev;  /* sibling, or the parent of a first child */
	uint64_t major, minor;
	bool in; /* a heap */
};

/* All zero is an empty heap. */
struct pair_heap {
	struct pair_node *root; /* the first node; NULL: empty */
};

/* The struct that a node stands in. */
#define PAIR_HEAP_OF(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

/* The node is in no heap. */
void pair_heap_add(struct pair_heap *h, struct pair_node *node, uint64_t major, uint64_t minor);

/* The node is in this heap. */
void pair_heap_remove(struct pair_heap *h, struct pair_node *node);

#endif
