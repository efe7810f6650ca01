/* SPDX-License-Identifier: MIT */
#ifndef READYD_OUTBOX_H
#define READYD_OUTBOX_H

/*
 * What one turn of the loop has to say, before it is sent: answers, failures and replies of the
 * requests that were applied, as whole messages, in one area for all connections. It is emptied at
 * the start of each turn; what a full socket did not take is copied out to its connection (struct
 * backlog), whose requests are not read until that is gone. So no queue grows.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/wire.h"

enum {
	/* What the requests of one datagram can need at most: a record for each of theirs, of which
	 * the smallest has 8 bytes, or an answer for each header; one reply of rows; headers and an
	 * ERROR. tests/unit/test_outbox.c tries all types. */
	OUTBOX_ROOM = WIRE_MESSAGE_MAX / 8 * 24 + WIRE_MESSAGE_MAX + 8192,
	OUTBOX_SIZE = 2 * OUTBOX_ROOM,
};

struct outbox {
	uint8_t *area; /* OUTBOX_SIZE bytes, 8-aligned, touched */
	size_t used;
};

/* The messages of one connection in this turn: a chain inside the area. Zeroed: none. */
struct outbox_chain {
	size_t first; /* offsets; 0: none */
	size_t last;
};

/* One message in the area. */
struct outbox_message {
	size_t next; /* offset; 0: the last */
	size_t size;
	uint8_t bytes[];
};

/* Messages that a full socket did not take: one after the other, each a size_t and its bytes,
 * padded to 8. */
struct backlog {
	size_t size;
	size_t sent;
	uint8_t bytes[];
};

/* -ENOMEM. */
int outbox_init(struct outbox *o);
void outbox_deinit(struct outbox *o);

static inline void outbox_clear(struct outbox *o)
{
	o->used = 8; /* offset 0 means none */
}

/* Room for whatever one more datagram may need. */
static inline bool outbox_has_room(const struct outbox *o)
{
	return OUTBOX_SIZE - o->used >= OUTBOX_ROOM;
}

/* Adds a record to the chain's last message if that is a READY with room, and the last of the area,
 * else to a new one.
 * -ENOBUFS: the area is full (not within OUTBOX_ROOM of a datagram). */
int outbox_add_record(struct outbox *o, struct outbox_chain *chain, const void *record);

/* Adds a whole message. -ENOBUFS. */
int outbox_add_message(struct outbox *o, struct outbox_chain *chain, unsigned type, unsigned flags,
		       uint32_t serial, const void *records, size_t count, const void *tail,
		       size_t tail_size);

/* The first message of a chain, or NULL; and its removal. */
struct outbox_message *outbox_first(struct outbox *o, const struct outbox_chain *chain);
void outbox_drop_first(struct outbox *o, struct outbox_chain *chain);

/* Copies what is left of a chain out of the area and empties the chain. -ENOMEM. */
int outbox_save(struct outbox *o, struct outbox_chain *chain, struct backlog **ret);

/* The next unsent message of a backlog, its size in *ret_size; NULL at the end. */
const void *backlog_next(const struct backlog *b, size_t *ret_size);
void backlog_drop_next(struct backlog *b);

#endif
