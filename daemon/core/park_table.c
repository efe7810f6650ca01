/* SPDX-License-Identifier: MIT */
/*
 * Where parks are found, and their memory.
 *
 * A park has an index, reused when it is freed, and stands in up to three hash tables: by token (of
 * all owners), by number, and by owner, group and name if it has a name. It leaves them when it is
 * gone, so its token and name are free at once, though its memory waits for the caller. Tokens and
 * names are the clients' choice: they are hashed with a secret key. So are numbers, of which a client
 * can choose those that stay; sixteen neighbours have neighbouring buckets. A new loop takes back
 * 10,000 parks while their users wait, and in trees most of its own time went into comparing.
 *
 * Whatever can fail for want of memory fails when a park is made: it comes with its place in the
 * tables, its place in the heap, and the links of all lists. What happens to it later allocates
 * nothing, or can do without.
 */
#include <assert.h>
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "park_internal.h"

enum { LINE_SHIFT = 4 }; /* buckets in a cache line, as a power of two */

/* ---- Keys ---- */

static uint32_t hash_token(const struct parks *ps, const uint8_t token[PARK_TOKEN_SIZE])
{
	return (uint32_t)hash_bytes(&ps->key, token, PARK_TOKEN_SIZE);
}

static uint32_t hash_number(const struct parks *ps, uint64_t number)
{
	uint64_t h = (ps->key.words[0] ^ number >> LINE_SHIFT) * UINT64_C(0x9e3779b97f4a7c15);

	h = (h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93);
	return (uint32_t)(h >> 32) ^ (number & ((1U << LINE_SHIFT) - 1));
}

/* The bytes of name and group are side by side: where one ends counts, too. */
static uint32_t hash_name(const struct parks *ps, const struct park_owner *o,
			  const struct park_text *t)
{
	uint64_t words[2] = {
		hash_bytes(&ps->key, t->bytes, (size_t)t->name_length + t->group_length),
		(uint64_t)o->uid << 32 | (uint64_t)t->name_length << 8 | t->group_length,
	};

	return (uint32_t)hash_bytes(&ps->key, words, sizeof(words));
}

static bool is_name(const struct park *p, const struct park_owner *o, const struct park_text *t)
{
	return p->owner == o && p->text.name_length == t->name_length &&
	       p->text.group_length == t->group_length &&
	       memcmp(p->text.bytes, t->bytes, (size_t)t->name_length + t->group_length) == 0;
}

/* ---- All of them ---- */

int parks_new(uint64_t first_number, const struct hash_key *key, struct parks **ret)
{
	struct parks *ps = calloc(1, sizeof(*ps));

	if (!ps)
		return -ENOMEM;
	ps->last_number = ps->last_serial = first_number ? first_number - 1 : 0;
	ps->end = 1;
	ps->key = *key;
	timer_heap_init(&ps->heap);
	TAILQ_INIT(&ps->changes);
	TAILQ_INIT(&ps->idle);
	parks_init_groups(ps);
	*ret = ps;
	return 0;
}

struct parks *parks_free(struct parks *ps)
{
	if (!ps)
		return NULL;
	hash_map_deinit(&ps->by_token);
	hash_map_deinit(&ps->by_number);
	hash_map_deinit(&ps->by_name);
	for (uint32_t index = 1; index < ps->end; index++)
		free(ps->places[index].park);
	free(ps->places);
	parks_free_groups(ps);
	tdestroy(ps->handles, free);
	tdestroy(ps->owners, free);
	timer_heap_deinit(&ps->heap);
	free(ps);
	return NULL;
}

const struct parks_stats *parks_stats(const struct parks *ps)
{
	return &ps->stats;
}

/* ---- Parks: finding ---- */

struct park *parks_at_token(const struct parks *ps, const uint8_t token[PARK_TOKEN_SIZE])
{
	uint32_t index = hash_map_find(&ps->by_token, hash_token(ps, token));

	for (; index; index = hash_map_next(&ps->by_token, index)) {
		struct park *p = ps->places[index].park;

		if (memcmp(p->token, token, sizeof(p->token)) == 0)
			return p;
	}
	return NULL;
}

struct park *parks_at_number(const struct parks *ps, uint64_t number)
{
	uint32_t index = hash_map_find(&ps->by_number, hash_number(ps, number));

	for (; index; index = hash_map_next(&ps->by_number, index)) {
		struct park *p = ps->places[index].park;

		if (p->number == number)
			return p;
	}
	return NULL;
}

struct park *parks_at_name(const struct parks *ps, const struct park_owner *o,
			   const struct park_text *t)
{
	uint32_t index;

	if (!t->name_length)
		return NULL;
	index = hash_map_find(&ps->by_name, hash_name(ps, o, t));
	for (; index; index = hash_map_next(&ps->by_name, index)) {
		struct park *p = ps->places[index].park;

		if (is_name(p, o, t))
			return p;
	}
	return NULL;
}

static struct park *of_owner(struct park *p, const struct park_owner *o)
{
	return p && (!o || p->owner == o) ? p : NULL;
}

struct park *parks_find_token(const struct parks *ps, const struct park_owner *o,
			      const uint8_t token[PARK_TOKEN_SIZE])
{
	return of_owner(parks_at_token(ps, token), o);
}

struct park *parks_find_number(const struct parks *ps, const struct park_owner *o, uint64_t number)
{
	return of_owner(parks_at_number(ps, number), o);
}

struct park *parks_find_name(const struct parks *ps, const struct park_owner *o, const void *name,
			     size_t name_length, const void *group, size_t group_length)
{
	uint8_t both[2 * UINT8_MAX];

	if (name_length > UINT8_MAX || group_length > UINT8_MAX)
		return NULL;
	if (name_length)
		memcpy(both, name, name_length);
	if (group_length)
		memcpy(both + name_length, group, group_length);
	return parks_at_name(ps, o,
			     &(struct park_text){.name_length = (uint8_t)name_length,
						 .group_length = (uint8_t)group_length,
						 .bytes = both});
}

struct park *parks_next(const struct parks *ps, const struct park_owner *owner, uint64_t *cursor)
{
	for (uint64_t index = *cursor + 1; index < ps->end; index++) {
		struct park *p = ps->places[index].park;

		if (!p || (owner && p->owner != owner))
			continue;
		*cursor = index;
		return p;
	}
	return NULL;
}

struct park *parks_at_index(const struct parks *ps, uint32_t index)
{
	return index > 0 && index < ps->end ? ps->places[index].park : NULL;
}

/* ---- Parks: their life ---- */

/* In the heap and in the tables, for what has an index below `end`. */
static int reserve_others(struct parks *ps, uint32_t end)
{
	int r = timer_heap_reserve(&ps->heap, end);

	if (r == 0)
		r = hash_map_reserve(&ps->by_token, end);
	if (r == 0)
		r = hash_map_reserve(&ps->by_number, end);
	return r == 0 ? hash_map_reserve(&ps->by_name, end) : r;
}

static int reserve_place(struct parks *ps)
{
	uint32_t room = ps->room ? 2 * ps->room : 16;
	struct park_place *places;

	if (ps->free)
		return 0;
	if (ps->end < ps->room)
		return reserve_others(ps, ps->end + 1);
	if (room <= ps->room)
		return -ENOMEM;
	places = realloc(ps->places, room * sizeof(*places));
	if (!places)
		return -ENOMEM;
	if (!ps->room)
		places[0] = (struct park_place){0};
	ps->places = places;
	ps->room = room;
	return reserve_others(ps, ps->end + 1);
}

static uint32_t take_place(struct parks *ps, struct park *p)
{
	uint32_t index = ps->free ? ps->free : ps->end++;

	if (index == ps->free)
		ps->free = ps->places[index].next_free;
	ps->places[index] = (struct park_place){.park = p};
	return index;
}

static void add_to_tables(struct parks *ps, struct park *p)
{
	hash_map_put(&ps->by_token, p->index, hash_token(ps, p->token));
	hash_map_put(&ps->by_number, p->index, hash_number(ps, p->number));
	if (p->text.name_length)
		hash_map_put(&ps->by_name, p->index, hash_name(ps, p->owner, &p->text));
}

int parks_make(struct parks *ps, struct park_owner *o, const struct park_new *new, uint64_t number,
	       struct park **ret)
{
	size_t size = park_text_size(&new->text);
	int r = reserve_place(ps);
	struct park *p;

	if (r < 0)
		return r;
	p = malloc(sizeof(*p) + size);
	if (!p)
		return -ENOMEM;
	*p = (struct park){
		.number = number,
		.cookie = new->cookie,
		.deadline = new->deadline,
		.owner = o,
		.flags = new->flags,
		.told_fd = new->told_fd,
		.interest = new->interest,
		.kind = new->kind,
		.shared = new->shared,
		.text = new->text,
		.fd = -1,
	};
	memcpy(p->token, new->token, sizeof(p->token));
	if (size)
		memcpy(p + 1, new->text.bytes, size);
	p->text.bytes = (const uint8_t *)(p + 1);
	r = parks_enter_group(ps, p);
	if (r < 0) {
		free(p);
		return r;
	}
	p->index = take_place(ps, p);
	add_to_tables(ps, p);
	o->n_parks++;
	*ret = p;
	return 0;
}

void parks_hide(struct parks *ps, struct park *p)
{
	hash_map_remove(&ps->by_token, p->index);
	hash_map_remove(&ps->by_number, p->index);
	if (p->text.name_length)
		hash_map_remove(&ps->by_name, p->index);
	(void)timer_heap_remove(&ps->heap, p->index);
}

void parks_end(struct parks *ps, struct park *p)
{
	assert(p->state == PARK_GONE && !p->changed);
	p->owner->n_parks--;
	ps->stats.parks--;
	ps->places[p->index] = (struct park_place){.next_free = ps->free};
	ps->free = p->index;
	free(p);
}

/* ---- The list of changes ---- */

void parks_list_change(struct parks *ps, struct park *p)
{
	if (p->changed)
		return;
	p->changed = true;
	TAILQ_INSERT_TAIL(&ps->changes, p, change);
}

struct park *parks_take_changed(struct parks *ps)
{
	struct park *p = TAILQ_FIRST(&ps->changes);

	if (!p)
		return NULL;
	TAILQ_REMOVE(&ps->changes, p, change);
	p->changed = false;
	return p;
}
