/* SPDX-License-Identifier: MIT */
/*
 * Linear hashing, as in id_map.c: the table grows by one bucket whenever there are more things than
 * buckets, by splitting the next bucket in turn, and shrinks by one the same way. So no request
 * ever pays for a whole table, which uthash (the library for this) asks of the one that comes at the
 * wrong time. The array has room for a power of two; when it cannot be made larger the map goes on
 * with longer chains and tries again at the next put: that is why putting cannot fail.
 *
 * A hash belongs to bucket (hash & mask), or, if that one is below `split` and so was split
 * already, to (hash & (2 mask + 1)).
 *
 * The links, with the whole hash in each, are in an array of their own, 8 bytes a thing: a chain is
 * walked and a bucket split without a look at the things, which are somewhere in memory and large.
 * That is what makes the difference when 10,000 of them come in a row.
 */
#include "hash_map.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- The hash ---- */

static uint64_t rotate(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	sip_round(v);
	sip_round(v);
	v[0] ^= word;
}

/* Words are little-endian in the published test vectors; here they are the machine's, which is the
 * same hash on little-endian ones and as good a one on others. */
uint64_t hash_bytes(const struct hash_key *key, const void *bytes, size_t n)
{
	uint64_t v[4] = {
		key->words[0] ^ UINT64_C(0x736f6d6570736575),
		key->words[1] ^ UINT64_C(0x646f72616e646f6d),
		key->words[0] ^ UINT64_C(0x6c7967656e657261),
		key->words[1] ^ UINT64_C(0x7465646279746573),
	};
	const uint8_t *p = bytes;
	uint64_t word, last = (uint64_t)n << 56;

	for (; n >= sizeof(word); n -= sizeof(word), p += sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		sip_word(v, word);
	}
	for (size_t i = 0; i < n; i++)
		last |= (uint64_t)p[i] << (8 * i);
	sip_word(v, last);
	v[2] ^= 0xff;
	for (unsigned i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- The map ---- */

enum { SMALL = 8 };

static uint32_t bucket_of(const struct hash_map *m, uint32_t hash)
{
	uint32_t bucket = hash & m->mask;

	return bucket < m->split ? hash & (2 * m->mask + 1) : bucket;
}

void hash_map_deinit(struct hash_map *m)
{
	free(m->buckets);
	free(m->links);
	*m = (struct hash_map){0};
}

int hash_map_reserve(struct hash_map *m, uint32_t end)
{
	uint32_t n = m->reserved ? m->reserved : SMALL;
	struct hash_link *links;

	if (!m->buckets) {
		m->buckets = calloc(SMALL, sizeof(*m->buckets));
		if (!m->buckets)
			return -ENOMEM;
		m->mask = SMALL - 1;
		m->room = SMALL;
	}
	if (end <= m->reserved)
		return 0;
	while (n < end)
		n = n > UINT32_MAX / 2 ? UINT32_MAX : 2 * n;
	links = realloc(m->links, n * sizeof(*links));
	if (!links)
		return -ENOMEM;
	m->links = links;
	m->reserved = n;
	return 0;
}

static uint32_t with_hash(const struct hash_map *m, uint32_t index, uint32_t hash)
{
	while (index && m->links[index].hash != hash)
		index = m->links[index].next;
	return index;
}

uint32_t hash_map_find(const struct hash_map *m, uint32_t hash)
{
	return m->buckets ? with_hash(m, m->buckets[bucket_of(m, hash)], hash) : 0;
}

uint32_t hash_map_next(const struct hash_map *m, uint32_t index)
{
	return with_hash(m, m->links[index].next, m->links[index].hash);
}

static bool enlarge(struct hash_map *m)
{
	uint32_t *buckets;

	if (m->room > UINT32_MAX / 2)
		return false;
	buckets = realloc(m->buckets, 2 * (size_t)m->room * sizeof(*buckets));
	if (!buckets)
		return false;
	m->buckets = buckets;
	m->room *= 2;
	return true;
}

static void split_next(struct hash_map *m)
{
	uint32_t from = m->split, to = m->mask + 1 + from;
	uint32_t index, next;

	if (to >= m->room && !enlarge(m))
		return;
	index = m->buckets[from];
	m->buckets[from] = 0;
	m->buckets[to] = 0;
	for (; index; index = next) {
		uint32_t *head = &m->buckets[m->links[index].hash & (2 * m->mask + 1)];

		next = m->links[index].next;
		m->links[index].next = *head;
		*head = index;
	}
	if (m->split++ == m->mask) {
		m->mask = 2 * m->mask + 1;
		m->split = 0;
	}
}

static void release_room(struct hash_map *m)
{
	uint32_t *buckets = realloc(m->buckets, m->room / 2 * sizeof(*buckets));

	if (!buckets)
		return;
	m->buckets = buckets;
	m->room /= 2;
}

/* The last bucket goes back onto the one that it was split from. */
static void merge_last(struct hash_map *m)
{
	uint32_t *tail;

	if (m->split == 0) {
		m->mask /= 2;
		m->split = m->mask + 1;
	}
	m->split--;
	tail = &m->buckets[m->split];
	while (*tail)
		tail = &m->links[*tail].next;
	*tail = m->buckets[m->mask + 1 + m->split];
	if (m->room > 4 * (uint64_t)hash_map_bucket_count(m))
		release_room(m);
}

void hash_map_put(struct hash_map *m, uint32_t index, uint32_t hash)
{
	uint32_t *head;

	assert(index && index < m->reserved);
	if (++m->count > hash_map_bucket_count(m))
		split_next(m);
	head = &m->buckets[bucket_of(m, hash)];
	m->links[index] = (struct hash_link){.next = *head, .hash = hash};
	*head = index;
}

void hash_map_remove(struct hash_map *m, uint32_t index)
{
	uint32_t *at = &m->buckets[bucket_of(m, m->links[index].hash)];

	while (*at != index) {
		assert(*at);
		at = &m->links[*at].next;
	}
	*at = m->links[index].next;
	m->count--;
	if (hash_map_bucket_count(m) > SMALL && hash_map_bucket_count(m) > 2 * (uint64_t)m->count)
		merge_last(m);
}
