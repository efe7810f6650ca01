/* SPDX-License-Identifier: MIT */

/*
 * The two requests that change a whole watch's state and are answered: RESET and EVICT.
 *
 * RESET is always awaited: a caller that read before the answer could sleep for ever (H2). It
 * clears the library's own latch too, and what a stream watch has unseen. Without a connection it
 * waits for the next one, and is repeated there if its answer was lost.
 *
 * EVICT is state: it is noted in the table before it is asked. A watch that was evicted is not made
 * anew on another connection (rebuild.c), since the library can say closing by itself.
 */

#include "internal.h"

#include <string.h>

/* Whether somebody waits there. The wait that an interrupted pollwait left is taken back: nobody
 * does. May block. */
static bool slot_is_busy(struct readyd *r, readyd_id watch, unsigned slot)
{
	uint32_t id = (uint32_t)watch;
	struct rd_watch *w = rd_watch_find(r, id, (uint32_t)(watch >> 32));

	if (!w)
		return false;
	if (rd_is_orphan(r, id, slot)) {
		w->special &= (uint8_t) ~(RD_POLLWAIT << slot);
		if (rd_unwait(r, watch, 1u << slot) == -EALREADY) {
			if (w->waiting & (1u << slot))
				w->special |= (uint8_t)(RD_POLLWAIT << slot);
			w->special &= (uint8_t) ~(RD_DUE << slot);
			w->kept[slot] = 0; /* RESET clears it anyway */
			if (!(w->kept[0] | w->kept[1]))
				rd_watch_drop(r, id);
		}
	}
	return w->waiting & (1u << slot) || w->kept[slot];
}

/* What the daemon says to RESET of a watch that it does not know: that a wait would end with this,
 * or nothing. */
static int reset_alone(const struct readyd *r, uint32_t id, unsigned directions)
{
	const struct rd_watch_cold *cold = rd_watch_cold_at(r, id);

	if (rd_watch_at(r, id)->flags & RD_EVICTED)
		return READYD_CLOSING;
	for (unsigned slot = 0; slot < 2; slot++)
		if (directions & (1u << slot) && rd_deadline_passed(cold, slot))
			return READYD_TIMEOUT;
	return 0;
}

/* The library's own latch, and what a stream watch has unseen. */
static void reset_own(struct readyd *r, uint32_t id, unsigned directions)
{
	struct rd_watch *w = rd_watch_at(r, id);

	for (unsigned slot = 0; slot < 2; slot++) {
		if (!(directions & (1u << slot)))
			continue;
		w->special &= (uint8_t) ~(RD_LATCH << slot);
		if (w->flags & RD_STREAM)
			w->kept[slot] &= (uint8_t)~WIRE_CODE_READY;
	}
	if (!(w->kept[0] | w->kept[1]))
		rd_watch_drop(r, id);
}

/* Whether RESET makes sense. Negative: an error. May block. */
static int reset_check(struct readyd *r, readyd_id watch, unsigned directions)
{
	struct rd_watch *w = rd_watch_named(r, watch);

	if (!w)
		return r->error ? rd_ended(r) : -ENOENT;
	if (directions == 0 || directions & ~(w->flags & RD_INTEREST))
		return rd_fail(r, -EINVAL, "the watch has no such direction (%#x)", directions);
	if (w->flags & RD_STREAM)
		return 0;
	for (unsigned slot = 0; slot < 2; slot++)
		if (directions & (1u << slot) && slot_is_busy(r, watch, slot))
			return rd_fail(r, -EBUSY,
				       "the slot has a waiter, or an event that was not taken yet: "
				       "readyd_unwait() or readyd_poll() first");
	return 0;
}

/* The daemon's answer to RESET; it is asked again if it was lost. May block. */
static int reset_ask(struct readyd *r, readyd_id watch, unsigned directions)
{
	struct wire_slots record = {.id = (uint32_t)watch, .directions = directions};
	struct rd_request q;
	struct rd_watch *w;
	int error;

	do {
		error = rd_link_await(r);
		if (!error)
			error = rd_out_reserve(r, sizeof(struct wire_header) + sizeof(record), 0);
		if (error)
			return error;
		w = rd_watch_named(r, watch);
		if (!w)
			return -ENOENT;
		if (r->resume.link == RD_UP && !(w->made & RD_MADE))
			return reset_alone(r, record.id, directions);
		record.gen = rd_wire_gen(r, w->gen);
		q = (struct rd_request){0};
		error = rd_ask_once(r, &q, r->resume.epoch, WIRE_RESET, &record, 1, NULL, 0);
	} while (!error && q.lost);
	if (error)
		return error;
	switch (q.error) {
	case WIRE_OK:
		return 0;
	case WIRE_E_CLOSING:
		return READYD_CLOSING;
	case WIRE_E_TIMEOUT:
		return READYD_TIMEOUT;
	case WIRE_E_NOT_POLLABLE:
		return READYD_NOT_POLLABLE;
	}
	return rd_fail(r, rd_errno_of(q.error), "reset was refused: %s", wire_error_text(q.error));
}

static int reset(struct readyd *r, readyd_id watch, unsigned directions)
{
	int result = reset_check(r, watch, directions);

	if (!result)
		result = reset_ask(r, watch, directions);
	if (!result && rd_watch_find(r, (uint32_t)watch, (uint32_t)(watch >> 32)))
		reset_own(r, (uint32_t)watch, directions);
	return result;
}

int readyd_reset(struct readyd *r, readyd_id watch, unsigned directions)
{
	RD_KEEP_ERRNO;
	int result = rd_enter(r);

	if (result)
		return result;
	result = reset(r, watch, directions);
	rd_leave(r);
	return result;
}

void rd_watch_close(struct readyd *r, uint32_t id)
{
	rd_watch_at(r, id)->flags |= RD_EVICTED;
	memset(rd_watch_cold_at(r, id)->deadline, 0, 2 * sizeof(int64_t));
	rd_carry_out(r, id);
}

static int evict(struct readyd *r, readyd_id watch)
{
	struct wire_slots record = {
		.id = (uint32_t)watch,
		.directions = READYD_READ | READYD_WRITE,
	};
	struct rd_request q = {0};
	struct rd_watch *w;
	int error;

	error = rd_out_reserve(r, sizeof(struct wire_header) + sizeof(record), 0);
	if (error)
		return error;
	w = rd_watch_named(r, watch);
	if (!w)
		return -ENOENT;
	if (!(w->made & (RD_MADE | RD_SENT))) {
		if (w->flags & RD_EVICTED)
			return rd_fail(r, -ECANCELED, "the watch was evicted before");
		rd_watch_close(r, record.id);
		return 0;
	}
	w->flags |= RD_EVICTED;
	memset(rd_watch_cold_at(r, record.id)->deadline, 0, 2 * sizeof(int64_t));
	record.gen = rd_wire_gen(r, w->gen);
	/* If it is lost, rebuild.c has ended the waits, and does not make the watch anew. */
	error = rd_ask_once(r, &q, r->resume.epoch, WIRE_EVICT, &record, 1, NULL, 0);
	if (error || q.lost)
		return error;
	if (q.error)
		return rd_fail(r, rd_errno_of(q.error), "evict was refused: %s",
			       wire_error_text(q.error));
	return 0;
}

int readyd_evict(struct readyd *r, readyd_id watch)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = evict(r, watch);
	rd_leave(r);
	return error;
}
