/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"
#include "depot.h"
#include "durable_internal.h"

/*
 * The beginning of a cycle (durable.c): which parks are written, and into which new depots. Nothing
 * is sent here, and when something is missing all is as before.
 */

#define TROUBLE_MAX INT64_C(1000000000) /* ns, of a park that cannot be sent */

enum { CYCLE_MAX = 4 * RECORD_FDS_MAX }; /* parks: what is under way counts (RLIMIT_NOFILE) */

/* Parks that are written together. */
struct plan {
	struct holding *parks[CYCLE_MAX + 2 * RECORD_FDS_MAX];
	size_t n;
};

static void plan_depot(struct durable *d, struct plan *plan, struct depot *depot)
{
	struct holding *h;

	TAILQ_REMOVE(&d->stored, depot, list);
	TAILQ_INSERT_TAIL(&d->old, depot, list);
	TAILQ_FOREACH(h, &depot->members, stored.member)
	plan->parks[plan->n++] = h;
}

static bool is_old(const struct durable *d, const struct depot *depot)
{
	const struct depot *each;

	TAILQ_FOREACH(each, &d->old, list)
	{
		if (each == depot)
			return true;
	}
	return false;
}

/* What has changed, and whatever else is in its depots. */
static void make_plan(struct durable *d, struct plan *plan)
{
	struct depot *depot, *next;
	struct holding *h;

	plan->n = 0;
	TAILQ_FOREACH(h, &d->pending, stored.queued)
	{
		depot = h->stored.depot;
		if (depot && is_old(d, depot))
			continue;
		if (plan->n + (depot ? depot->n : 1) > CYCLE_MAX)
			break;
		if (depot)
			plan_depot(d, plan, depot);
		else
			plan->parks[plan->n++] = h;
	}
	for (depot = TAILQ_FIRST(&d->stored); depot; depot = next) {
		next = TAILQ_NEXT(depot, list);
		if (depot->stale && plan->n + depot->n <= CYCLE_MAX)
			plan_depot(d, plan, depot);
	}
	if (plan->n == 0)
		return;
	TAILQ_FOREACH(depot, &d->stored, list)
	{
		if (depot->full || depot->stale)
			continue;
		plan_depot(d, plan, depot); /* there is one at most */
		return;
	}
}

/* Nothing was sent. */
static void give_up_plan(struct durable *d)
{
	struct depot *depot;

	while ((depot = TAILQ_FIRST(&d->fresh))) {
		TAILQ_REMOVE(&d->fresh, depot, list);
		ledger_release(d->ledger, d->uid, depot->serial);
		durable_free_depot(d, depot);
	}
	TAILQ_CONCAT(&d->stored, &d->old, list);
}

/* Fills the batch with at most max parks. */
static size_t fill(struct durable *d, struct holding *const *parks, size_t n, size_t max)
{
	size_t i;

	record_batch_clear(d->batch);
	for (i = 0; i < n && i < max; i++)
		if (depot_add(d->batch, parks[i]) < 0)
			break;
	return i;
}

/* A new depot of the first ones of these. Returns how many; negative errno: -E2BIG: fewer may do. */
static int write_depot(struct durable *d, struct holding *const *parks, size_t n, size_t max)
{
	size_t count = fill(d, parks, n, max);
	CLEANUP_FD int fd = count > 0 ? depot_make(d->batch) : -EINVAL;
	struct depot *depot;
	uint32_t serial;
	int r;

	if (fd < 0)
		return fd == -ETOOMANYREFS && count > 1 ? -E2BIG : fd;
	r = ledger_claim(d->ledger, d->uid, &serial);
	if (r < 0)
		return r;
	depot = durable_new_depot(&d->fresh, serial, fd);
	if (!depot) {
		ledger_release(d->ledger, d->uid, serial);
		return -ENOMEM;
	}
	(void)steal_fd(&fd);
	depot->full = count < n;
	return (int)count;
}

/* One that cannot be sent: for good, if it has been so for a while. */
static bool is_hopeless(struct durable *d, int r, int64_t now)
{
	if (r == -EINVAL)
		return true;
	return r == -ETOOMANYREFS && d->trouble != 0 && now - d->trouble > TROUBLE_MAX;
}

static void assign(struct plan *plan, size_t from, size_t n, struct depot *depot)
{
	for (size_t i = from; i < from + n; i++) {
		durable_move_to(depot, plan->parks[i]);
		durable_unqueue(plan->parks[i]);
	}
}

/* All depots of a plan. On failure nothing has changed. */
static int write_plan(struct durable *d, struct plan *plan, int64_t now)
{
	size_t sizes[CYCLE_MAX + 2 * RECORD_FDS_MAX], n_depots = 0, at = 0, max = RECORD_FDS_MAX;
	struct depot *depot;

	while (at < plan->n) {
		int r = write_depot(d, plan->parks + at, plan->n - at, max);

		if (r == -E2BIG) {
			max = (max < plan->n - at ? max : plan->n - at) / 2;
			continue;
		}
		if (r < 0 && is_hopeless(d, r, now)) {
			struct holding *h = plan->parks[at];

			give_up_plan(d);
			if (h->stored.depot)
				h->stored.depot->stale = true;
			durable_leave_depot(h);
			if (durable_lose(d, h, strerror(-r)))
				durable_unqueue(h); /* until it changes */
			return -EAGAIN;
		}
		if (r < 0) {
			give_up_plan(d);
			return r;
		}
		sizes[n_depots++] = (size_t)r;
		at += (size_t)r;
		max = RECORD_FDS_MAX;
	}
	at = n_depots = 0;
	TAILQ_FOREACH(depot, &d->fresh, list)
	{
		assign(plan, at, sizes[n_depots], depot);
		at += sizes[n_depots++];
	}
	return 0;
}

int durable_write(struct durable *d, int64_t now)
{
	struct plan plan;
	int r;

	make_plan(d, &plan);
	if (plan.n == 0 && TAILQ_EMPTY(&d->old))
		return 0;
	r = write_plan(d, &plan, now);
	return r < 0 ? r : 1;
}
