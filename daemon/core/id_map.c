/* SPDX-License-Identifier: MIT */
/*
 * Linear hashing: the table grows by one bucket whenever there are more items than buckets,
 * by splitting the next bucket in turn, and shrinks by one the same way. So no request
 * ever pays for a whole table, and the end of a session, which walks the buckets, costs no more
 * than its items.
 *
 * Buckets 0 to mask + split are in use. A hash belongs to bucket (hash & mask), or, if that one is
 * below `split` and so was split already, to (hash & (2 mask + 1)).
 *
 * The array has room for a power of two. When it cannot be made larger the map goes on with longer
 * chains and tries again at the next put: that is why putting cannot fail. Large arrays are grown
 * by realloc(), which moves pages, not bytes; what is not in use yet is never touched.
 *
 * Ids are the client's choice, and the loop that looks them up is everybody's. So the hash is mixed
 * with a seed that comes from the core's secret key: who does not know it cannot choose ids that
 * make a long chain. Most clients count their ids up: sixteen neighbours share a cache line of
 * buckets, one bucket each.
 */
#include "id_map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
	LINE_SHIFT = 4,
	LINE = 1 << LINE_SHIFT, /* buckets in a cache line */
};

static uint32_t hash_of(const struct id_map *m, uint32_t id)
{
	uint64_t h = (m->seed ^ id >> LINE_SHIFT) * UINT64_C(0x9e3779b97f4a7c15);

	h = (h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93);
	return (uint32_t)(h >> 32) ^ (id & (LINE - 1));
}

static uint32_t bucket_of(const struct id_map *m, uint32_t id)
{
	uint32_t hash = hash_of(m, id);
	uint32_t bucket = hash & m->mask;

	return bucket < m->split ? hash & (2 * m->mask + 1) : bucket;
}

void id_map_init(struct id_map *m, uint64_t seed)
{
	/* Neighbouring seeds must differ in all bits. */
	seed = (seed + UINT64_C(0x632be59bd9b4e019)) * UINT64_C(0xff51afd7ed558ccd);
	*m = (struct id_map){
		.buckets = m->small,
		.mask = ID_MAP_SMALL - 1,
		.room = ID_MAP_SMALL,
		.seed = seed ^ seed >> 29,
	};
}

void id_map_deinit(struct id_map *m)
{
	if (m->buckets != m->small)
		free(m->buckets);
	m->buckets = NULL;
}

uint32_t id_map_find(const struct id_map *m, const struct item_table *t, uint32_t id)
{
	uint32_t index = m->buckets[bucket_of(m, id)];

	while (index) {
		const struct item *it = item_at(t, index);

		if (it->id == id)
			break;
		index = it->hash_next;
	}
	return index;
}

static bool enlarge(struct id_map *m)
{
	bool small = m->buckets == m->small;
	uint32_t *buckets;

	if (m->room > UINT32_MAX / 2)
		return false;
	buckets = realloc(small ? NULL : m->buckets, 2 * (size_t)m->room * sizeof(*buckets));
	if (!buckets)
		return false;
	if (small)
		memcpy(buckets, m->small, sizeof(m->small));
	m->buckets = buckets;
	m->room *= 2;
	return true;
}

static void split_next(struct id_map *m, const struct item_table *t)
{
	uint32_t from = m->split, to = m->mask + 1 + from;
	uint32_t index;

	if (to >= m->room && !enlarge(m))
		return;
	index = m->buckets[from];
	m->buckets[from] = 0;
	m->buckets[to] = 0;
	while (index) {
		struct item *it = item_at(t, index);
		uint32_t next = it->hash_next;
		uint32_t bucket = hash_of(m, it->id) & (2 * m->mask + 1);

		it->hash_next = m->buckets[bucket];
		m->buckets[bucket] = index;
		index = next;
	}
	if (m->split++ == m->mask) {
		m->mask = 2 * m->mask + 1;
		m->split = 0;
	}
}

static void release_room(struct id_map *m)
{
	uint32_t room = m->room / 2;
	uint32_t *buckets = realloc(m->buckets, room * sizeof(*buckets));

	if (!buckets)
		return;
	m->buckets = buckets;
	m->room = room;
}

/* The last bucket goes back onto the one that it was split from. */
static void merge_last(struct id_map *m, const struct item_table *t)
{
	uint32_t *tail;
	uint32_t last;

	if (m->split == 0) {
		m->mask /= 2;
		m->split = m->mask + 1;
	}
	m->split--;
	last = m->mask + 1 + m->split;
	tail = &m->buckets[m->split];
	while (*tail)
		tail = &item_at(t, *tail)->hash_next;
	*tail = m->buckets[last];
	if (m->buckets != m->small && m->room > 4 * id_map_bucket_count(m))
		release_room(m);
}

void id_map_put(struct id_map *m, const struct item_table *t, uint32_t index)
{
	struct item *it = item_at(t, index);
	uint32_t *head;

	if (++m->count > id_map_bucket_count(m))
		split_next(m, t);
	head = &m->buckets[bucket_of(m, it->id)];
	it->hash_next = *head;
	*head = index;
}

void id_map_remove(struct id_map *m, const struct item_table *t, uint32_t index)
{
	struct item *it = item_at(t, index);
	uint32_t *link = &m->buckets[bucket_of(m, it->id)];

	while (*link != index) {
		assert(*link);
		link = &item_at(t, *link)->hash_next;
	}
	*link = it->hash_next;
	it->hash_next = 0;
	m->count--;
	if (id_map_bucket_count(m) > ID_MAP_SMALL &&
	    id_map_bucket_count(m) > 2 * (uint64_t)m->count)
		merge_last(m, t);
}
