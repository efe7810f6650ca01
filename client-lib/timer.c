/* SPDX-License-Identifier: MIT */

/*
 * Timers. The caller's id stays what it is when a timer is armed anew; on the wire every arming has
 * its own generation, so that an entry of the old arming is recognised and dropped: none follows
 * the answer. Whether a timer "was pending" is what the program has seen: an expiry that was
 * received and not taken, or that came while the request was under way, is taken back and counts as
 * pending.
 *
 * While there is no connection (resume.c) the table is all: it is told to the next daemon. A timer
 * that is in the table counts as pending then, since the program has not seen it expire.
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

/* Waits until the table is not being told, and makes room for a request. May block. */
static int room_for_timer(struct readyd *r)
{
	int error;

	do {
		rd_link_settle(r);
		error = rd_out_reserve(
			r, sizeof(struct wire_header) + sizeof(struct wire_timer_set), 0);
	} while (!error && r->resume.link == RD_REBUILDING);
	return error;
}

/* Notes the arming in the table. `id` 0: in a new place. NULL: no memory. */
static struct rd_timer *timer_arm(struct readyd *r, uint32_t *id, int64_t when, int64_t period,
				  uint64_t cookie)
{
	struct rd_timer *t;

	if (*id)
		rd_timer_drop(r, *id);
	else
		*id = rd_timer_add(r);
	if (!*id)
		return NULL;
	t = rd_timer_at(r, *id);
	t->arming = t->arming + 1 ? t->arming + 1 : 1;
	t->cookie = cookie;
	t->when = when > 0 ? when : 0;
	t->period = period;
	return t;
}

/* Sends it. What is lost is told from the table. May block. */
static int timer_tell(struct readyd *r, struct rd_request *q, uint32_t id)
{
	struct rd_timer *t = rd_timer_at(r, id);
	struct wire_timer_set record = {
		.cookie = t->cookie,
		.when = rd_time_to_daemon(r, t->when),
		.period = t->period,
		.id = id,
		.gen = t->arming,
	};

	q->timer = t;
	t->flags |= RD_TIMER_MADE;
	return rd_ask_once(r, q, r->resume.epoch, WIRE_TIMER_SET, &record, 1, NULL, 0);
}

static int timer_set(struct readyd *r, readyd_id *timer, int64_t when, int64_t period,
		     uint64_t cookie)
{
	struct rd_request q = {0};
	bool pending = false, is_new;
	struct rd_timer *t;
	uint32_t id = 0;
	readyd_id name;
	int error;

	if (period < 0)
		return rd_fail(r, -EINVAL, "a negative period");
	error = room_for_timer(r);
	if (error)
		return error;
	t = rd_timer_named(r, *timer);
	if (t && !(t->flags & RD_TIMER_STOPPING)) {
		id = (uint32_t)*timer;
		pending = t->flags & RD_TIMER_LISTED;
	}
	is_new = !id;
	t = timer_arm(r, &id, when, period, cookie);
	if (!t)
		return rd_fail(r, -ENOMEM, "no memory for another timer");
	name = rd_id(id, t->gen);
	if (rd_linked(r))
		error = timer_tell(r, &q, id);
	else
		q.lost = true;
	if (error)
		return error;
	if (q.error) {
		if (is_new)
			rd_timer_remove(r, id);
		return timer_failed(r, &q, "the timer cannot be armed");
	}
	*timer = name;
	return pending || q.swallowed || (q.lost ? !is_new : q.value != 0);
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

static void timer_forget(struct readyd *r, uint32_t id)
{
	rd_timer_drop(r, id);
	rd_timer_remove(r, id);
}

static int timer_stop(struct readyd *r, readyd_id timer)
{
	struct wire_timer_stop record = {.id = (uint32_t)timer};
	struct rd_request q = {0};
	struct rd_timer *t;
	bool pending;
	int error;

	error = room_for_timer(r);
	if (error)
		return error;
	t = rd_timer_named(r, timer);
	if (!t || t->flags & RD_TIMER_STOPPING)
		return 0;
	if (!(t->flags & RD_TIMER_MADE)) {
		timer_forget(r, record.id);
		return 1;
	}
	pending = t->flags & RD_TIMER_LISTED;
	rd_timer_drop(r, record.id);
	t->flags |= RD_TIMER_STOPPING;
	q.timer = t;
	record.gen = t->arming;
	error = rd_ask_once(r, &q, r->resume.epoch, WIRE_TIMER_STOP, &record, 1, NULL, 0);
	if (error)
		return error;
	/* While it is stopping nobody else frees it. */
	rd_timer_remove(r, record.id);
	if (q.lost)
		return 1;
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
