/* SPDX-License-Identifier: MIT */
#ifndef READYD_ITEM_H
#define READYD_ITEM_H

/*
 * The table of all watches and timers of a core. An item is named by its index; its address never
 * changes. Index 0 is no item, so that 0 ends every chain.
 */

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "slot.h"

enum item_flags {
	ITEM_READ = 0x01, /* the interest: enum core_direction */
	ITEM_WRITE = 0x02,
	ITEM_INTEREST = 0x03,
	ITEM_STREAM = 0x04,
	ITEM_CLOSING = 0x08,
	ITEM_ERROR = 0x10, /* the last event was the bare error */
	ITEM_TIMER = 0x20,
	ITEM_LISTED = 0x40,  /* on its session's ready-list */
	ITEM_OVERDUE = 0x80, /* listed since its time came */
};

enum {
	ITEM_UNIT = 27, /* made and since count 2^27 ns (0.134 s): 18 years in 32 bits */
};

/*
 * 84 bytes each, a million of them: so the unions, words that one state alone uses, and the
 * alignment. (The deadlines stand first, so that they are aligned in every second item.)
 */
struct item {
	union {
		int64_t deadline[2]; /* watch: 0 none, > 0 when, -1 expired */
		struct {
			int64_t when; /* timer: as asked for */
			int64_t period;
		};
	};
	uint64_t cookie;
	uint32_t id;
	uint32_t gen;
	uint32_t tag_gen;
	uint32_t hash_next; /* in a chain of the id map, or of the free list */
	uint32_t session;   /* its number in the core's table; 0: free */
	uint32_t ready_prev;
	uint32_t ready_next;
	/* A slot that waits: since when. A slot with an unsent timeout: the stamp of the deadline
	 * that expired. It never is both; a stream slot never waits. */
	uint32_t since_or_stamp[2];
	uint16_t stamp[2]; /* of the current deadline */
	struct slot slot[2];
	uint8_t flags;
	uint8_t kind;
	union {
		uint32_t word;  /* watch: the poller's */
		uint32_t count; /* timer: expirations not sent */
	};
	int32_t fd;
	uint32_t fired; /* entries sent */
	uint32_t made;
} __attribute__((packed, aligned(4)));

static_assert(sizeof(struct item) == 84, "96 bytes a watch in all are promised");

enum {
	ITEM_CHUNK_SHIFT = 14,
	ITEM_CHUNK = 1 << ITEM_CHUNK_SHIFT,
};

/* All zero is an empty table. */
struct item_table {
	struct item **chunks;
	uint32_t chunk_count;
	uint32_t end;  /* indexes from here on were never used */
	uint32_t free; /* first of the free list */
	uint64_t live;
};

static inline struct item *item_at(const struct item_table *t, uint32_t index)
{
	assert(index != 0 && index < t->end);
	return &t->chunks[index >> ITEM_CHUNK_SHIFT][index & (ITEM_CHUNK - 1)];
}

void item_table_deinit(struct item_table *t);

/* How many indexes there will be room for when one more item is taken. */
uint32_t item_table_room_for_next(const struct item_table *t);

/* A free item, all zero but for its tag_gen. -ENOMEM. */
int item_table_take(struct item_table *t, uint32_t *ret_index);

/* Its tag is void for ever. */
void item_table_give_back(struct item_table *t, uint32_t index);

/* What the kernel keeps of an item. Never 0. */
static inline uint64_t item_tag(const struct item_table *t, uint32_t index)
{
	return (uint64_t)item_at(t, index)->tag_gen << 32 | index;
}

/* The live item of a tag; 0 for a stale one. */
uint32_t item_table_find_tag(const struct item_table *t, uint64_t tag);

/*
 * The refs of an item in the heap: one for each direction, timers use the first. Read and write
 * lie in different pages of the positions, so that who only uses one pays for one.
 */
static inline uint32_t item_ref(uint32_t index, unsigned direction)
{
	return (index >> 12) << 13 | direction << 12 | (index & 0xfff);
}

static inline uint32_t item_of_ref(uint32_t ref, unsigned *ret_direction)
{
	*ret_direction = ref >> 12 & 1;
	return (ref >> 13) << 12 | (ref & 0xfff);
}

#endif
