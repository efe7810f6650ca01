/* SPDX-License-Identifier: MIT */

/*
 * Go's pollWait: a thread blocks for the result of one slot. The slot points at the thread's waiter
 * (struct rd_waiter, on its stack) until the result comes; an entry for it goes there and is
 * never an event. A thread that a signal ends (READYD_EINTR) leaves its WAIT behind: the next wait
 * of that slot adopts it; an entry that comes before is latched (H19).
 */

#include "internal.h"

static int result_of(struct readyd *r, uint8_t code)
{
	if (code & WIRE_CODE_CLOSING)
		return rd_fail(r, -ECANCELED, "the watch was evicted or ended");
	if (code & WIRE_CODE_TIMEOUT)
		return rd_fail(r, -ETIMEDOUT, "its deadline has passed");
	if (code & WIRE_CODE_NOT_POLLABLE)
		return rd_fail(r, -EIO,
			       "not pollable: the kernel reported a bare error; the next write "
			       "says which");
	return 0;
}

static int pollwait(struct readyd *r, readyd_id watch, unsigned direction)
{
	unsigned slot = direction == READYD_WRITE;
	uint32_t id = (uint32_t)watch;
	struct rd_waiter waiter = {0};
	struct rd_watch *w;
	int error;

	error = rd_out_reserve(r, sizeof(struct wire_header) + sizeof(struct wire_slots), 0);
	if (error)
		return error;
	w = rd_watch_named(r, watch);
	if (!w)
		return -ENOENT;
	if (direction != READYD_READ && direction != READYD_WRITE)
		return rd_fail(r, -EINVAL, "one direction, not %#x", direction);
	error = rd_wait_check(r, id, direction);
	if (error)
		return error;
	if (rd_wait_start(r, id, direction))
		return 0; /* latched */
	w->special |= (uint8_t)(RD_POLLWAIT << slot);
	rd_watch_cold_at(r, id)->waiter[slot] = &waiter;
	r->n_pollwaits++;
	rd_wait_started(r, id);
	error = rd_await(r, &waiter, r->flags & READYD_EINTR);
	if (error == -EINTR) {
		/* Not done, so the waiter is still there. The WAIT stays for the next one. */
		rd_watch_cold_at(r, id)->waiter[slot] = NULL;
		r->n_pollwaits--;
		return rd_fail(r, -EINTR, "interrupted by a signal");
	}
	return error ? error : result_of(r, waiter.code);
}

int readyd_pollwait(struct readyd *r, readyd_id watch, unsigned direction)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = pollwait(r, watch, direction);
	rd_leave(r);
	return error;
}
