/* SPDX-License-Identifier: MIT */
#ifndef READYD_ID_MAP_H
#define READYD_ID_MAP_H

/*
 * The client's ids to items, one map a session and kind. Chains run through the items themselves
 * (hash_next). Putting and removing never fail and never stall.
 */

#include <stdint.h>

#include "item.h"

enum {
	ID_MAP_SMALL = 8,
};

struct id_map {
	uint32_t *buckets; /* first items; `small`, or allocated */
	uint32_t mask;     /* 2^n - 1; buckets 0 to mask + split are in use */
	uint32_t split;    /* the next to be split, <= mask */
	uint32_t room;
	uint32_t count;
	uint64_t seed;
	uint32_t small[ID_MAP_SMALL];
};

/* The map may not be moved afterwards. */
void id_map_init(struct id_map *m, uint64_t seed);
void id_map_deinit(struct id_map *m);

/* 0: not there. */
uint32_t id_map_find(const struct id_map *m, const struct item_table *t, uint32_t id);

/* The item, whose id is set and not in the map. */
void id_map_put(struct id_map *m, const struct item_table *t, uint32_t index);

/* The item, which is in the map. */
void id_map_remove(struct id_map *m, const struct item_table *t, uint32_t index);

/* How many buckets are in use; each is the head of a chain. */
static inline uint32_t id_map_bucket_count(const struct id_map *m)
{
	return m->mask + 1 + m->split;
}

#endif
