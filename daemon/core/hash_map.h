/* SPDX-License-Identifier: MIT */
#ifndef READYD_HASH_MAP_H
#define READYD_HASH_MAP_H

/*
 * Things found by a hash of their key. A thing is an index, which the caller gives it, 0 being none;
 * the caller compares keys. Putting and removing never fail and never stall. One thread.
 */

#include <stddef.h>
#include <stdint.h>

struct hash_link {
	uint32_t next; /* in its bucket */
	uint32_t hash;
};

struct hash_map {
	uint32_t *buckets;       /* first things */
	struct hash_link *links; /* by index */
	uint32_t mask;           /* 2^n - 1; buckets 0 to mask + split are in use */
	uint32_t split;          /* the next to be split, <= mask */
	uint32_t room;           /* for buckets */
	uint32_t reserved;       /* for links */
	uint32_t count;
};

/* Who does not know the key cannot choose bytes that have one hash, or near ones. */
struct hash_key {
	uint64_t words[2];
};

/* SipHash-2-4. */
uint64_t hash_bytes(const struct hash_key *key, const void *bytes, size_t n);

/* A zeroed one is empty. */
void hash_map_deinit(struct hash_map *m);

/* Room for indexes < end. -ENOMEM. */
int hash_map_reserve(struct hash_map *m, uint32_t end);

/* The first thing with this hash, or the next one after `index`; 0: no more. */
uint32_t hash_map_find(const struct hash_map *m, uint32_t hash);
uint32_t hash_map_next(const struct hash_map *m, uint32_t index);

/* A thing that is not in the map, and for which there is room; and one that is in it. */
void hash_map_put(struct hash_map *m, uint32_t index, uint32_t hash);
void hash_map_remove(struct hash_map *m, uint32_t index);

/* How many buckets are in use. */
static inline uint32_t hash_map_bucket_count(const struct hash_map *m)
{
	return m->buckets ? m->mask + 1 + m->split : 0;
}

#endif
