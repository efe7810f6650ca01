/* SPDX-License-Identifier: MIT */
#ifndef READYD_SLOT_H
#define READYD_SLOT_H

/* One direction of a watch: a latch and a waiter. Pure functions; the table is in slot.c. */

#include <stdbool.h>
#include <stdint.h>

enum {
	SLOT_CODES = 0x0f, /* enum core_code, completed and not sent */
	SLOT_LATCH = 0x10,
	SLOT_WAITING = 0x20,
};

struct slot {
	uint8_t bits;
};

/* What an edge did. */
enum slot_edge {
	SLOT_EDGE_NOTHING, /* latched, dropped, or left to the level */
	SLOT_EDGE_COMPLETED,
	SLOT_EDGE_MERGED, /* into an entry that is not sent yet */
};

static inline uint8_t slot_codes(struct slot s)
{
	return s.bits & SLOT_CODES;
}

static inline bool slot_waits(struct slot s)
{
	return s.bits & SLOT_WAITING;
}

static inline bool slot_latched(struct slot s)
{
	return s.bits & SLOT_LATCH;
}

/* Has a waiter, or one that is done and not sent. */
static inline bool slot_busy(struct slot s)
{
	return s.bits & (SLOT_WAITING | SLOT_CODES);
}

/* The error check: enum core_code, 0 for clean. `not_pollable` is of the read side only. */
unsigned slot_error(bool closing, bool expired, bool not_pollable);

/* ---- Wait mode ---- */

/* Of a slot that is not busy; `error` is the error check's code. true: waits now; false: done. */
bool slot_wait(struct slot *s, unsigned error);

/* The kernel reported the direction. `level`: the backend will report it again when armed. */
enum slot_edge slot_edge(struct slot *s, bool level);

/* Its deadline passed. true: a waiter is done now. */
bool slot_expire(struct slot *s);

/* true: there was a waiter, or an unsent completion, and it is closing now. */
bool slot_evict(struct slot *s);

/* 0: idle now. -EALREADY: done, its entry comes. -ENOENT: nobody waits. */
int slot_unwait(struct slot *s);

/* ---- Stream mode ---- */

enum slot_edge slot_stream_edge(struct slot *s, bool not_pollable);
void slot_stream_expire(struct slot *s);
void slot_stream_evict(struct slot *s);

/* ---- Both ---- */

/* After a clean error check, of a slot without a waiter. */
void slot_reset(struct slot *s);

/* Its entry is with the client. */
void slot_sent(struct slot *s);

/* The watch ends: the codes that the client is still owed, 0 for none. */
uint8_t slot_owed(struct slot s);

#endif
