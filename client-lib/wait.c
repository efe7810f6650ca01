/* SPDX-License-Identifier: MIT */

/*
 * Waits and deadlines: requests that nobody waits for, and UNWAIT, which is answered.
 *
 * The table knows what the daemon would say to a WAIT: a slot is busy while its WAIT has no entry
 * yet, and while its event was not taken. A slot with a latch (H19: an entry that no wait had
 * asked for) is not sent at all: its event is there; unless the watch was evicted or its
 * deadline has passed, which take precedence and which the daemon tells.
 *
 * Stamps. Each DEADLINE gets the watch's next stamp (16 bits, never 0), and a timeout entry names
 * the stamp of the deadline that expired: so an entry that was on its way when the deadline was
 * replaced is recognised (receive.c). A deadline that is what it was is not sent: the daemon would
 * do nothing and keep the old stamp.
 *
 * UNWAIT: one record a direction, since each may be refused by itself. A WAIT that is sent again
 * because of an old timeout can overtake it: then it is repeated.
 */

#include "internal.h"

bool rd_deadline_passed(const struct rd_watch_cold *cold, unsigned slot)
{
	int64_t when = cold->deadline[slot];

	return when < 0 || (when > 0 && when <= rd_now());
}

/* Whether the latch answers a wait of that slot. */
static bool latch_take(struct readyd *r, uint32_t id, unsigned slot)
{
	struct rd_watch *w = rd_watch_at(r, id);

	if (!(w->special & (RD_LATCH << slot)) || w->flags & RD_EVICTED ||
	    rd_deadline_passed(rd_watch_cold_at(r, id), slot))
		return false;
	w->special &= (uint8_t) ~(RD_LATCH << slot);
	return true;
}

bool rd_is_orphan(const struct readyd *r, uint32_t id, unsigned slot)
{
	return rd_watch_at(r, id)->special & (RD_POLLWAIT << slot) &&
	       !rd_watch_cold_at(r, id)->waiter[slot];
}

int rd_wait_check(struct readyd *r, uint32_t id, unsigned directions)
{
	const struct rd_watch *w = rd_watch_at(r, id);

	if (directions == 0 || directions & ~(w->flags & RD_INTEREST))
		return rd_fail(r, -EINVAL, "the watch has no such direction (%#x)", directions);
	if (w->flags & RD_STREAM)
		return rd_fail(r, -EINVAL,
			       "a stream watch reports by itself: there is nothing to wait for");
	for (unsigned slot = 0; slot < 2; slot++)
		if (directions & (1u << slot) &&
		    ((w->waiting & (1u << slot) && !rd_is_orphan(r, id, slot)) || w->kept[slot]))
			return rd_fail(
				r, -EBUSY,
				"the %s direction waits already, or its event was not taken by "
				"readyd_poll() yet",
				slot ? "write" : "read");
	return 0;
}

unsigned rd_wait_start(struct readyd *r, uint32_t id, unsigned directions)
{
	struct rd_watch *w = rd_watch_at(r, id);
	struct wire_slots record = {.id = id, .gen = rd_wire_gen(r, w->gen)};
	unsigned latched = 0, adopted = 0;

	for (unsigned slot = 0; slot < 2; slot++) {
		if (!(directions & (1u << slot)))
			continue;
		if (rd_is_orphan(r, id, slot)) {
			w->special &= (uint8_t) ~(RD_POLLWAIT << slot);
			adopted |= 1u << slot;
		} else if (latch_take(r, id, slot)) {
			latched |= 1u << slot;
		}
	}
	record.directions = directions & ~(latched | adopted);
	if (record.directions) {
		w->waiting |= (uint8_t)record.directions;
		if (w->made & RD_MADE)
			rd_out_record(r, WIRE_WAIT, RD_SERIAL_WAIT, &record, sizeof(record));
	}
	return latched;
}

static int wait_many(struct readyd *r, readyd_id watch, unsigned directions)
{
	struct rd_watch *w;
	unsigned latched;
	int error;

	error = rd_out_reserve(r, sizeof(struct wire_header) + sizeof(struct wire_slots), 0);
	if (error)
		return error;
	w = rd_watch_named(r, watch);
	if (!w)
		return -ENOENT;
	error = rd_wait_check(r, (uint32_t)watch, directions);
	if (error)
		return error;
	latched = rd_wait_start(r, (uint32_t)watch, directions);
	rd_wait_started(r, (uint32_t)watch);
	if (latched)
		rd_watch_keep(r, (uint32_t)watch, latched & READYD_READ ? WIRE_CODE_READY : 0,
			      latched & READYD_WRITE ? WIRE_CODE_READY : 0);
	return latched == directions ? 0 : rd_hurry(r);
}

int readyd_wait(struct readyd *r, readyd_id watch, unsigned directions)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = wait_many(r, watch, directions);
	rd_leave(r);
	return error;
}

/* ---- Taking waits back ---- */

/* An UNWAIT under way, and how it went, by record. */
struct unwait {
	uint32_t id, gen; /* as in the table */
	unsigned n, slots[2];
	uint16_t error[2];
	unsigned late; /* directions whose event comes all the same */
};

static void unwait_refused(struct readyd *r, struct rd_request *q, const struct wire_failure *f)
{
	struct unwait *u = q->context;

	(void)r;
	if (f->index < 2)
		u->error[f->index] = f->error;
}

/* In the turn of the answer: what comes after it, a lost connection too, finds it applied. */
static void unwait_apply(struct readyd *r, struct rd_request *q)
{
	struct unwait *u = q->context;
	struct rd_watch *w = rd_watch_find(r, u->id, u->gen);

	for (unsigned i = 0; w && i < u->n; i++) {
		uint8_t mask = (uint8_t)(1u << u->slots[i]);

		switch (u->error[i]) {
		case WIRE_OK:
			/* Not waiting: lost, and its entry had come before. */
			if (!(w->waiting & mask))
				u->late |= mask;
			w->waiting &= (uint8_t)~mask;
			break;
		case WIRE_E_ALREADY:
			if (w->waiting & mask)
				w->special |= (uint8_t)(RD_DUE << u->slots[i]);
			u->late |= mask;
			break;
		case WIRE_E_NOT_FOUND:
			/* Its entry came before the answer; or an old timeout did, and the WAIT
			 * that replaced it is still to be taken back. */
			if (!(w->waiting & mask))
				u->late |= mask;
			break;
		}
	}
}

/* Asks once for the directions that wait. *ret_late: those whose event comes all the same. */
static int unwait_ask(struct readyd *r, readyd_id watch, unsigned directions, unsigned *ret_late)
{
	struct unwait u = {.id = (uint32_t)watch, .gen = (uint32_t)(watch >> 32)};
	struct rd_request q = {
		.refused = unwait_refused,
		.answered = unwait_apply,
		.gone = unwait_apply,
		.context = &u,
	};
	struct wire_slots records[2];
	struct rd_watch *w;
	int error;

	for (unsigned slot = 0; slot < 2; slot++) {
		if (!(directions & (1u << slot)))
			continue;
		u.slots[u.n] = slot;
		records[u.n++] = (struct wire_slots){
			.id = u.id,
			.gen = rd_wire_gen(r, u.gen),
			.directions = 1u << slot,
		};
	}
	if (!(rd_watch_at(r, u.id)->made & RD_MADE)) {
		unwait_apply(r, &q);
		return 0;
	}
	error = rd_ask_once(r, &q, r->resume.epoch, WIRE_UNWAIT, records, u.n, NULL, 0);
	if (error)
		return error;
	w = rd_watch_find(r, u.id, u.gen);
	if (!w || w->flags & RD_ENDING)
		return rd_fail(r, -ENOENT, "the watch was ended meanwhile");
	*ret_late |= u.late;
	for (unsigned i = 0; i < u.n; i++)
		if (u.error[i] && u.error[i] != WIRE_E_ALREADY && u.error[i] != WIRE_E_NOT_FOUND)
			return rd_fail(r, rd_errno_of(u.error[i]), "unwait was refused: %s",
				       wire_error_text(u.error[i]));
	return 0;
}

int rd_unwait(struct readyd *r, readyd_id watch, unsigned directions)
{
	unsigned late = 0, waiting, asked = 0;
	struct rd_watch *w;
	int error;

	for (;;) {
		/* Room first: nothing may come between the look at the table and the request. */
		error = rd_out_reserve(
			r, sizeof(struct wire_header) + 2 * sizeof(struct wire_slots), 0);
		if (error)
			return error;
		w = rd_watch_named(r, watch);
		if (!w)
			return -ENOENT;
		if (directions == 0 || directions & ~(w->flags & RD_INTEREST))
			return rd_fail(r, -EINVAL, "the watch has no such direction (%#x)",
				       directions);
		/* RD_POLLWAIT of both slots lies where the directions do: not the caller's. */
		waiting = directions & w->waiting & ~w->special & ~late;
		if (!asked)
			late |= directions &
				((w->kept[0] ? READYD_READ : 0) | (w->kept[1] ? READYD_WRITE : 0));
		if (!waiting)
			break;
		asked |= waiting;
		error = unwait_ask(r, watch, waiting, &late);
		if (error)
			return error;
	}
	if (late)
		return rd_fail(r, -EALREADY, "too late: the event is there or under way");
	if (!asked)
		return rd_fail(r, -ENOENT, "nobody waits there");
	return 0;
}

int readyd_unwait(struct readyd *r, readyd_id watch, unsigned directions)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = rd_unwait(r, watch, directions);
	rd_leave(r);
	return error;
}

/* ---- Deadlines ---- */

/* The directions for which `when` is news; notes it in the table. */
static unsigned deadline_note(struct readyd *r, uint32_t id, unsigned directions, int64_t when)
{
	struct rd_watch_cold *cold = rd_watch_cold_at(r, id);
	struct rd_watch *w = rd_watch_at(r, id);
	unsigned changed = 0;

	for (unsigned slot = 0; slot < 2; slot++)
		if (directions & (1u << slot) && cold->deadline[slot] != when)
			changed |= 1u << slot;
	if (!changed)
		return 0;
	w->last_stamp = w->last_stamp == UINT16_MAX ? 1 : (uint16_t)(w->last_stamp + 1);
	for (unsigned slot = 0; slot < 2; slot++) {
		if (changed & (1u << slot)) {
			cold->deadline[slot] = when;
			cold->told &= (uint8_t) ~(RD_TOLD_TIMEOUT << slot);
			w->stamp[slot] = w->last_stamp;
		}
	}
	return changed;
}

static int set_deadline(struct readyd *r, readyd_id watch, unsigned directions, int64_t when)
{
	struct wire_deadline record = {.id = (uint32_t)watch};
	struct rd_watch *w;
	int error;

	error = rd_out_reserve(r, sizeof(struct wire_header) + sizeof(record), 0);
	if (error)
		return error;
	w = rd_watch_named(r, watch);
	if (!w)
		return -ENOENT;
	if (directions == 0 || directions & ~(w->flags & RD_INTEREST))
		return rd_fail(r, -EINVAL, "the watch has no such direction (%#x)", directions);
	if (w->flags & RD_EVICTED)
		return rd_fail(r, -ECANCELED, "the watch was evicted: a deadline has no effect");
	record.directions = (uint16_t)deadline_note(r, record.id, directions, when < 0 ? -1 : when);
	if (!record.directions)
		return 0;
	if (!(w->made & RD_MADE)) {
		rd_carry_out(r, record.id);
		return 0;
	}
	record.gen = rd_wire_gen(r, w->gen);
	record.stamp = w->last_stamp;
	record.when = rd_time_to_daemon(r, when < 0 ? -1 : when);
	rd_out_record(r, WIRE_DEADLINE, RD_SERIAL_DEADLINE, &record, sizeof(record));
	return rd_hurry(r);
}

int readyd_set_deadline(struct readyd *r, readyd_id watch, unsigned directions, int64_t when)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = set_deadline(r, watch, directions, when);
	rd_leave(r);
	return error;
}
