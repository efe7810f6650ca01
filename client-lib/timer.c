/* SPDX-License-Identifier: MIT */

/*
 * Timers. The caller's id stays what it is when a timer is armed anew; on the wire every arming has
 * its own generation, so that an entry of the old arming is recognised and dropped: none follows
 * the answer. Whether a timer "was pending" is what the program has seen: an expiry that was
 * received and not taken, or that came while the request was under way, is taken back and counts as
 * pending.
 *
 * A one-shot timer's place is free when its event was taken. While a request waits for its answer
 * another thread may take that event: afterwards the timer is looked up again.
 */

#include "internal.h"

static int timer_failed(struct readyd *r, const struct rd_request *q, const char *what)
{
	if (q->error == WIRE_E_QUOTA)
		return rd_fail(r, -EDQUOT,
			       "%s: this user's limit of %u %s is reached; stop some, or raise it "
			       "in the daemon's configuration",
			       what, q->limit, wire_quota_name(q->detail));
	return rd_fail(r, rd_errno_of(q->error), "%s: %s", what, wire_error_text(q->error));
}

static int timer_set(struct readyd *r, readyd_id *timer, int64_t when, int64_t period,
		     uint64_t cookie)
{
	struct wire_timer_set record = {.cookie = cookie, .period = period};
	struct rd_request q = {0};
	struct rd_timer *t;
	bool pending = false, is_new;
	readyd_id name;
	int error;

	if (period < 0)
		return rd_fail(r, -EINVAL, "a negative period");
	error = rd_out_reserve(r, sizeof(struct wire_header) + sizeof(record), 0);
	if (error)
		return error;
	t = rd_timer_named(r, *timer);
	if (t && t->flags & RD_TIMER_STOPPING)
		t = NULL;
	is_new = !t;
	if (t) {
		record.id = (uint32_t)*timer;
		pending = t->flags & RD_TIMER_LISTED;
		rd_timer_drop(r, record.id);
	} else {
		record.id = rd_timer_add(r);
		if (!record.id)
			return rd_fail(r, -ENOMEM, "no memory for another timer");
		t = rd_timer_at(r, record.id);
	}
	t->arming = t->arming + 1 ? t->arming + 1 : 1;
	t->cookie = cookie;
	t->when = when;
	t->period = period;
	record.gen = t->arming;
	record.when = when > 0 ? rd_time_to_daemon(r, when) : 0;
	q.timer = t;
	name = rd_id(record.id, t->gen);
	error = rd_ask(r, &q, WIRE_TIMER_SET, &record, 1, NULL, 0);
	if (error)
		return error;
	if (q.error) {
		if (is_new)
			rd_timer_remove(r, record.id);
		return timer_failed(r, &q, "the timer cannot be armed");
	}
	*timer = name;
	return pending || q.swallowed || q.value;
}

int readyd_timer_set(struct readyd *r, readyd_id *timer, int64_t when, int64_t period,
		     uint64_t cookie)
{
	RD_KEEP_ERRNO;
	int result = rd_enter(r);

	if (result)
		return result;
	result = timer_set(r, timer, when, period, cookie);
	rd_leave(r);
	return result;
}

static int timer_stop(struct readyd *r, readyd_id timer)
{
	struct wire_timer_stop record = {.id = (uint32_t)timer};
	struct rd_timer *t = rd_timer_named(r, timer);
	struct rd_request q = {.timer = t};
	bool pending;
	int error;

	if (r->error)
		return rd_ended(r);
	if (!t || t->flags & RD_TIMER_STOPPING)
		return 0;
	pending = t->flags & RD_TIMER_LISTED;
	rd_timer_drop(r, record.id);
	t->flags |= RD_TIMER_STOPPING;
	record.gen = t->arming;
	error = rd_ask(r, &q, WIRE_TIMER_STOP, &record, 1, NULL, 0);
	if (error)
		return error;
	/* While it is stopping nobody else frees it. */
	rd_timer_remove(r, record.id);
	if (q.error && q.error != WIRE_E_NOT_FOUND && q.error != WIRE_E_STALE)
		return timer_failed(r, &q, "the timer cannot be stopped");
	return pending || q.swallowed || !q.error;
}

int readyd_timer_stop(struct readyd *r, readyd_id timer)
{
	RD_KEEP_ERRNO;
	int result = rd_enter(r);

	if (result)
		return result;
	result = timer_stop(r, timer);
	rd_leave(r);
	return result;
}
