/* SPDX-License-Identifier: MIT */
/*
 * The slot: Go's binary semaphore of one direction, with one more state, since the waiter is in
 * another process: completed, and its entry not sent yet.
 *
 * A slot has a latch, and a waiter: none, waiting, or done (with codes). Waiting implies that the
 * latch is clear. idle = none and no latch, ready = none and latch. In wait mode at most one code
 * is set at a time; in stream mode there is no waiter and no latch, and the codes are a set that
 * grows until it is sent.
 *
 *   event                 idle       ready       waiting        done(code)
 *   WAIT, check clean     waiting    done(ready) refused        refused
 *   WAIT, check fails     done(code) done(code)* refused        refused
 *   edge                  ready      ready       done(ready)    ready: merged; closing: dropped;
 *                                                               else: latched, code kept
 *   edge, level backend   idle       -           done(ready)    unchanged
 *   expiry, past deadline idle       ready       done(timeout)  unchanged
 *   EVICT                 idle       idle        done(closing)  done(closing)
 *   RESET, check clean    idle       idle        refused        refused
 *   RESET, check fails    idle       ready       refused        refused
 *   UNWAIT                -ENOENT    -ENOENT     idle           -EALREADY
 *   entry sent            -          -           -              idle, or ready if latched
 *                                                               (* the latch is kept)
 *
 * What is refused is refused by the caller, who also knows the flags of the watch (closing,
 * expired, error): slot_busy() and slot_error() are asked first. The error check never looks at
 * the latch: an expired deadline wins over data.
 *
 * An edge never turns an unsent timeout into ready (the latch keeps it), and only a RESET or an
 * EVICT takes a latch away without anybody having been told.
 */
#include "slot.h"

#include <assert.h>
#include <errno.h>

#include "core.h"

unsigned slot_error(bool closing, bool expired, bool not_pollable)
{
	if (closing)
		return CORE_CODE_CLOSING;
	if (expired)
		return CORE_CODE_TIMEOUT;
	if (not_pollable)
		return CORE_CODE_NOT_POLLABLE;
	return 0;
}

static void complete(struct slot *s, unsigned code)
{
	s->bits = (uint8_t)((s->bits & SLOT_LATCH) | code);
}

bool slot_wait(struct slot *s, unsigned error)
{
#ifndef READYD_MUTANT_BUSY_NOT_CHECKED
	assert(!slot_busy(*s));
#endif
	if (error) {
		complete(s, error);
		return false;
	}
	if (slot_latched(*s)) {
		s->bits = CORE_CODE_READY;
		return false;
	}
	s->bits = SLOT_WAITING;
	return true;
}

enum slot_edge slot_edge(struct slot *s, bool level)
{
	if (slot_waits(*s)) {
		complete(s, CORE_CODE_READY);
		return SLOT_EDGE_COMPLETED;
	}
	switch (slot_codes(*s)) {
	case CORE_CODE_READY:
		return SLOT_EDGE_MERGED;
	case CORE_CODE_CLOSING:
		return SLOT_EDGE_NOTHING;
	default:
		if (!level)
			s->bits |= SLOT_LATCH;
		return SLOT_EDGE_NOTHING;
	}
}

bool slot_expire(struct slot *s)
{
#ifdef READYD_MUTANT_LATCH_LOST_AT_EXPIRY
	s->bits &= (uint8_t)~SLOT_LATCH;
#endif
	if (!slot_waits(*s))
		return false;
	complete(s, CORE_CODE_TIMEOUT);
	return true;
}

bool slot_evict(struct slot *s)
{
	bool busy = slot_busy(*s);

#ifdef READYD_MUTANT_EVICT_LEAVES_WAITER
	if (slot_waits(*s))
		return false;
#endif
	s->bits = busy ? CORE_CODE_CLOSING : 0;
	return busy;
}

int slot_unwait(struct slot *s)
{
	if (slot_codes(*s))
		return -EALREADY;
	if (!slot_waits(*s))
		return -ENOENT;
	s->bits = 0;
	return 0;
}

enum slot_edge slot_stream_edge(struct slot *s, bool not_pollable)
{
	bool merged = s->bits & CORE_CODE_READY;

	s->bits |= CORE_CODE_READY;
	if (not_pollable)
		s->bits |= CORE_CODE_NOT_POLLABLE;
	return merged ? SLOT_EDGE_MERGED : SLOT_EDGE_COMPLETED;
}

void slot_stream_expire(struct slot *s)
{
	s->bits |= CORE_CODE_TIMEOUT;
}

void slot_stream_evict(struct slot *s)
{
	s->bits = CORE_CODE_CLOSING;
}

void slot_reset(struct slot *s)
{
	/* In wait mode there are no codes now: a done slot is busy. */
	s->bits &= (uint8_t) ~(SLOT_LATCH | CORE_CODE_READY | CORE_CODE_NOT_POLLABLE);
}

void slot_sent(struct slot *s)
{
#ifdef READYD_MUTANT_COMMIT_KEEPS_PENDING
	return;
#endif
	s->bits &= (uint8_t)~SLOT_CODES;
}

uint8_t slot_owed(struct slot s)
{
	return slot_waits(s) ? CORE_CODE_CLOSING : slot_codes(s);
}
