/* SPDX-License-Identifier: MIT */
#ifndef READYD_QUOTA_H
#define READYD_QUOTA_H

/*
 * What one uid may own, by kind: charged when a thing is made, given back when it ends, on every
 * path. At a limit the new thing is refused; nothing is ever evicted. Pure.
 */

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

/* The order is the wire's (enum wire_quota): a test compares. */
enum quota_kind {
	QUOTA_CONNECTIONS,
	QUOTA_WATCHES,
	QUOTA_TIMERS,
	QUOTA_PARKS,
	QUOTA_NOTE_BYTES,
	QUOTA_FDS_RECEIVED,
	QUOTA_FDS_UNREAD,
	QUOTA_MAX,
};

struct quota {
	uint64_t used[QUOTA_MAX];
	uint64_t limit[QUOTA_MAX];
};

/* Charges n, or returns false and changes nothing. A lowered limit refuses only what is new. */
static inline bool quota_charge(struct quota *q, enum quota_kind kind, uint64_t n)
{
	if (q->used[kind] > q->limit[kind] || n > q->limit[kind] - q->used[kind])
		return false;
	q->used[kind] += n;
	return true;
}

static inline void quota_give_back(struct quota *q, enum quota_kind kind, uint64_t n)
{
	assert(q->used[kind] >= n);
	q->used[kind] -= n;
}

#endif
