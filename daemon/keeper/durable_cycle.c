/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "daemon/edge/step.h"
#include "daemon/util/cleanup.h"
#include "daemon/util/clock.h"
#include "durable_internal.h"

/* The cycle that durable.c tells of. */

#define MILLISECOND INT64_C(1000000)
#define GIVE_UP (8000 * MILLISECOND)
#define AGAIN (20 * MILLISECOND)

enum { RESERVE = 4 }; /* entries */

/* ---- The beginning of a cycle ---- */

static void rest(struct durable *d, int64_t now)
{
	if (d->trouble == 0)
		d->trouble = now;
	d->again = now + AGAIN;
}

static void hurry(struct durable *d)
{
	struct holding *h;

	while ((h = TAILQ_FIRST(&d->lazy)))
		durable_queue(h, &d->pending);
}

/* New parks are refused while there is room for what has to be written anew. */
static void refuse_new(struct durable *d)
{
	unsigned max = ledger_max(d->ledger), reserve = max / 4 < RESERVE ? max / 4 : RESERVE;
	struct holding *h, *next;

	if (ledger_room(d->ledger) > reserve)
		return;
	for (h = TAILQ_FIRST(&d->pending); h; h = next) {
		next = TAILQ_NEXT(h, stored.queued);
		if (!h->stored.depot && !h->record.answered)
			(void)durable_lose(
				d, h,
				"its fd store is full, raise FileDescriptorStoreMax= and "
				"READYD_STORE_MAX= of the unit");
	}
}

/* What an earlier holder has stored goes. */
static void begin_to_clear(struct durable *d, int64_t now)
{
	d->clearing = true;
	d->cursor = 0;
	d->next = NULL;
	d->give_up = now + GIVE_UP;
	d->state = DURABLE_REMOVING;
}

/* Whether there is something to send or to remove now. */
static bool begin(struct durable *d, int64_t now)
{
	int r;

	if (!TAILQ_EMPTY(&d->lazy) && d->lazy_until <= now)
		hurry(d);
	if (TAILQ_EMPTY(&d->pending) && !durable_has_stale(d))
		return false;
	refuse_new(d);
	r = durable_write(d, now);
	if (r == 0)
		return false;
	if (r < 0) {
		/* what the former holder has left may be what is in the way */
		d->clearing = r == -ENOSPC && d->settle;
		rest(d, now);
		if (now - d->trouble > GIVE_UP)
			durable_lose_all(d, strerror(-r));
		if (d->clearing)
			begin_to_clear(d, now);
		return d->clearing;
	}
	d->trouble = 0;
	d->give_up = now + GIVE_UP;
	d->next = TAILQ_FIRST(&d->fresh);
	d->state = d->next ? DURABLE_PUTTING : DURABLE_REMOVING;
	if (!d->next)
		d->next = TAILQ_FIRST(&d->old);
	return true;
}

/* ---- Its steps ---- */

/* What sending said: whether it was sent. */
static bool note_sent(struct durable *d, int r, int64_t now)
{
	d->blocked = r == -ETIMEDOUT;
	d->nobody = r == -EINVAL;
	if (r >= 0)
		return true;
	if (!d->blocked) { /* for want of memory, or of a PID 1 that listens */
		store_close(&d->store);
		d->again = now + AGAIN;
	}
	return false;
}

static bool is_connected(struct durable *d, int64_t now)
{
	return d->store.fd >= 0 || note_sent(d, store_open(&d->store, 0), now);
}

static bool begin_barrier(struct durable *d, int64_t now)
{
	int r;

	holder_step();
	r = store_begin_barrier(&d->store);
	if (!note_sent(d, r, now))
		return false;
	d->barrier = r;
	holder_step();
	return true;
}

static bool barrier_is_read(struct durable *d)
{
	struct pollfd polled = {.fd = d->barrier};

	if (poll(&polled, 1, 0) != 1)
		return false;
	(void)close(steal_fd(&d->barrier));
	d->overdue = false;
	return true;
}

static bool put(struct durable *d, int64_t now)
{
	char name[STORE_NAME_SIZE];

	if (!is_connected(d, now))
		return false;
	for (; d->next; d->next = TAILQ_NEXT(d->next, list)) {
		store_name(d->uid, d->next->serial, name);
		holder_step();
		if (!note_sent(d, store_put(&d->store, name, d->next->fd), now))
			return false;
	}
	if (!begin_barrier(d, now))
		return false;
	d->state = DURABLE_STORING;
	return true;
}

static void tell_stored(struct durable *d, struct depot *depot)
{
	struct holding *h;

	TAILQ_FOREACH(h, &depot->members, stored.member)
	{
		h->stored.safe = true;
		if (h->stored.asked != 0 && h->stored.asked <= h->stored.written)
			durable_tell(d, h, h->stored.written, false);
	}
}

/* Another holder speaks for this uid by now, and what was stored here is old. */
static void take_back(struct durable *d)
{
	struct depot *depot;

	d->out = true;
	while ((depot = TAILQ_FIRST(&d->old))) {
		TAILQ_REMOVE(&d->old, depot, list);
		TAILQ_INSERT_TAIL(&d->spent, depot, list);
	}
	TAILQ_CONCAT(&d->old, &d->fresh, list);
}

static bool confirm_stored(struct durable *d)
{
	struct depot *depot;

	if (!barrier_is_read(d))
		return false;
	holder_step();
	if (!durable_in_office(d))
		take_back(d);
	TAILQ_FOREACH(depot, &d->fresh, list)
	tell_stored(d, depot);
	TAILQ_CONCAT(&d->stored, &d->fresh, list);
	d->next = TAILQ_FIRST(&d->old);
	d->state = DURABLE_REMOVING;
	return true;
}

static bool is_own(const struct durable *d, uint32_t serial)
{
	const struct depot_list *lists[] = {&d->stored, &d->fresh, &d->old};
	const struct depot *depot;

	for (size_t i = 0; i < 3; i++)
		TAILQ_FOREACH(depot, lists[i], list)
		{
			if (depot->serial == serial)
				return true;
		}
	return false;
}

/* The next entry of an earlier holder. A later one is appointed before it writes anything down: so
 * who sees an entry of it is seen to be succeeded after that, and leaves all of them to it. */
static bool next_of_others(const struct durable *d, size_t *cursor, uint32_t *ret)
{
	while (ledger_next(d->ledger, d->uid, cursor, ret))
		if (!is_own(d, *ret))
			return !ledger_is_succeeded(d->ledger, d->uid, d->term);
	return false;
}

/* 0, or what sending said. */
static int remove_of_others(struct durable *d)
{
	size_t cursor = d->cursor;
	char name[STORE_NAME_SIZE];
	uint32_t serial;
	int r;

	while (next_of_others(d, &cursor, &serial)) {
		store_name(d->uid, serial, name);
		holder_step();
		r = store_remove(&d->store, name);
		if (r < 0)
			return r;
		d->cursor = cursor;
	}
	return 0;
}

static bool remove_old(struct durable *d, int64_t now)
{
	char name[STORE_NAME_SIZE];

	if (TAILQ_EMPTY(&d->old) && !d->clearing) {
		d->state = DURABLE_IDLE;
		return true;
	}
	if (!is_connected(d, now))
		return false;
	for (; d->next; d->next = TAILQ_NEXT(d->next, list)) {
		store_name(d->uid, d->next->serial, name);
		holder_step();
		if (!note_sent(d, store_remove(&d->store, name), now))
			return false;
	}
	if (d->clearing && !note_sent(d, remove_of_others(d), now))
		return false;
	if (!begin_barrier(d, now))
		return false;
	d->state = DURABLE_CLEARING;
	return true;
}

/* What it had is gone from the store: its end may be told. It is closed later. */
static void tell_removed(struct durable *d, struct depot *depot)
{
	struct holding *h;

	TAILQ_FOREACH(h, &depot->dead, stored.member)
	{
		if (h->stored.asked != 0)
			durable_tell(d, h, h->stored.asked, false);
	}
	ledger_release(d->ledger, d->uid, depot->serial);
	TAILQ_REMOVE(&d->old, depot, list);
	TAILQ_INSERT_TAIL(&d->spent, depot, list);
}

static bool confirm_removed(struct durable *d)
{
	struct depot *depot;
	uint32_t serial;
	size_t cursor = 0;

	if (!barrier_is_read(d))
		return false;
	holder_step();
	while ((depot = TAILQ_FIRST(&d->old)))
		tell_removed(d, depot);
	holder_step();
	while (d->clearing && next_of_others(d, &cursor, &serial))
		ledger_release(d->ledger, d->uid, serial);
	d->clearing = false;
	d->state = DURABLE_IDLE;
	return true;
}

/* ---- All of it ---- */

/* What an earlier holder has stored: it goes when all that is durable is stored anew. */
static bool settle(struct durable *d, int64_t now)
{
	uint32_t serial;
	size_t cursor = 0;

	if (!d->settle || !TAILQ_EMPTY(&d->pending))
		return false;
	if (!next_of_others(d, &cursor, &serial)) {
		d->settle = false;
		d->settled = true;
		return false;
	}
	begin_to_clear(d, now);
	return true;
}

static void watch_the_time(struct durable *d, int64_t now)
{
	if (d->state != DURABLE_IDLE && now >= d->give_up) {
		durable_lose_all(d, "it does not answer");
		d->overdue = true;
	}
	if (d->settle && now >= d->settle_until) {
		log_error(d->log,
			  "uid %u: its parks are here, and systemd may still have copies, so that "
			  "their peers see no end, until it answers",
			  d->uid);
		d->settle = false;
		d->settled = true;
	}
}

static bool step(struct durable *d, int64_t now)
{
	if (d->again > now)
		return false;
	d->again = 0;
	switch (d->state) {
	case DURABLE_PUTTING:
		return put(d, now);
	case DURABLE_STORING:
		return confirm_stored(d);
	case DURABLE_REMOVING:
		return remove_old(d, now);
	case DURABLE_CLEARING:
		return confirm_removed(d);
	default:
		d->out = d->out || !durable_in_office(d);
		if (!d->out)
			return begin(d, now) || settle(d, now);
		durable_lose_all(d, "another process keeps this user's parks by now");
		d->settled |= d->settle;
		d->settle = false;
		return false;
	}
}

void durable_run(struct durable *d)
{
	int64_t now = clock_now();

	if (!d->ledger) {
		d->settled |= d->settle;
		d->settle = false;
		return;
	}
	while (step(d, now))
		;
	watch_the_time(d, now);
}

static void sooner(int64_t *when, int64_t other)
{
	if (other != 0 && other < *when)
		*when = other;
}

unsigned durable_wait(const struct durable *d, struct pollfd ret[2], int64_t *ret_until)
{
	unsigned n = 0;

	*ret_until = INT64_MAX;
	if (!d->ledger)
		return 0;
	sooner(ret_until, d->again);
	if (d->settle)
		sooner(ret_until, d->settle_until);
	if (d->state == DURABLE_IDLE) {
		if (!TAILQ_EMPTY(&d->lazy) && !d->out)
			sooner(ret_until, d->lazy_until);
		return 0;
	}
	if (!d->overdue)
		sooner(ret_until, d->give_up);
	if (d->barrier >= 0)
		ret[n++] = (struct pollfd){.fd = d->barrier};
	else if (d->blocked)
		ret[n++] = (struct pollfd){.fd = d->store.fd, .events = POLLOUT};
	return n;
}

static bool has_work(const struct durable *d)
{
	return d->state != DURABLE_IDLE ||
	       (!d->out && (!TAILQ_EMPTY(&d->pending) || durable_has_stale(d) || d->settle));
}

int durable_finish(struct durable *d, int64_t until)
{
	struct pollfd polled[2];
	int64_t next, left;
	unsigned n;

	hurry(d);
	durable_run(d);
	while (has_work(d)) {
		left = until - clock_now();
		if (left <= 0 || d->nobody)
			return d->nobody ? -EINVAL : -ETIMEDOUT;
		n = durable_wait(d, polled, &next);
		next -= clock_now();
		left = next < left ? next : left;
		left = left < 0 ? 0 : left < 500 * MILLISECOND ? left / MILLISECOND + 1 : 500;
		if (poll(polled, n, (int)left) == 0 && left == 500 && d->waiting)
			d->waiting(d->context);
		durable_run(d);
	}
	return 0;
}

void durable_resign(struct durable *d, int64_t until)
{
	struct depot *depot, *next;

	d->out = true;
	(void)durable_finish(d, until);
	if (d->state != DURABLE_IDLE)
		return;
	for (depot = TAILQ_FIRST(&d->stored); depot; depot = next) {
		next = TAILQ_NEXT(depot, list);
		if (depot->n > 0)
			continue;
		TAILQ_REMOVE(&d->stored, depot, list);
		TAILQ_INSERT_TAIL(&d->old, depot, list);
	}
	d->next = TAILQ_FIRST(&d->old);
	d->state = DURABLE_REMOVING;
	(void)durable_finish(d, until);
}
