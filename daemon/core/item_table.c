/* SPDX-License-Identifier: MIT */
/*
 * Items live in chunks that are never moved and never freed before the table is, so an index that
 * the kernel still holds can always be looked at. Freed items are reused, the last freed first.
 *
 * A tag is the index and tag_gen, which grows at each free and starts at 1. An index whose tag_gen
 * is used up is never given out again: 84 bytes lost for four thousand million watches, and no tag
 * ever comes back. So the kernel may report an event for a watch that ended long ago (a weak
 * registration outlives its UNWATCH when the client sends no fd): it names nothing.
 *
 * Items of a chunk are handed out in order before they are ever touched: an unused part of a chunk
 * costs address space only.
 */
#include "item.h"

#include <errno.h>
#include <stdlib.h>

enum {
	CHUNKS_MAX = 1 << (30 - ITEM_CHUNK_SHIFT), /* two refs an item must fit 32 bits */
};

void item_table_deinit(struct item_table *t)
{
	assert(t->live == 0);
	for (uint32_t i = 0; i < t->chunk_count; i++)
		free(t->chunks[i]);
	free(t->chunks);
	*t = (struct item_table){0};
}

static bool is_full(const struct item_table *t)
{
	return t->free == 0 && t->end == (uint64_t)t->chunk_count * ITEM_CHUNK;
}

uint32_t item_table_room_for_next(const struct item_table *t)
{
	return (t->chunk_count + (is_full(t) ? 1u : 0u)) * ITEM_CHUNK;
}

static int add_chunk(struct item_table *t)
{
	struct item **chunks;

	if (t->chunk_count == CHUNKS_MAX)
		return -ENOMEM;
	chunks = realloc(t->chunks, (t->chunk_count + 1) * sizeof(*chunks));
	if (!chunks)
		return -ENOMEM;
	t->chunks = chunks;
	chunks[t->chunk_count] = malloc(ITEM_CHUNK * sizeof(**chunks));
	if (!chunks[t->chunk_count])
		return -ENOMEM;
	t->chunk_count++;
	if (t->end == 0)
		t->end = 1;
	return 0;
}

int item_table_take(struct item_table *t, uint32_t *ret_index)
{
	uint32_t index = t->free;
	struct item *it;

	if (is_full(t)) {
		int r = add_chunk(t);

		if (r < 0)
			return r;
	}
	if (index) {
		it = item_at(t, index);
		t->free = it->hash_next;
		*it = (struct item){.tag_gen = it->tag_gen};
	} else {
		index = t->end++;
		it = item_at(t, index);
		*it = (struct item){.tag_gen = 1};
	}
	t->live++;
	*ret_index = index;
	return 0;
}

void item_table_give_back(struct item_table *t, uint32_t index)
{
	struct item *it = item_at(t, index);

	assert(t->live > 0);
	t->live--;
	it->session = 0;
	if (++it->tag_gen == 0)
		return; /* retired */
	it->hash_next = t->free;
	t->free = index;
}

uint32_t item_table_find_tag(const struct item_table *t, uint64_t tag)
{
	uint32_t index = (uint32_t)tag;
	const struct item *it;

	if (index == 0 || index >= t->end)
		return 0;
	it = item_at(t, index);
	if (!it->session)
		return 0;
#ifndef READYD_MUTANT_GENERATION_NOT_CHECKED
	if (it->tag_gen != tag >> 32)
		return 0;
#endif
	return index;
}
