/* SPDX-License-Identifier: MIT */

/* The rules of park_group.h in the plainest form: who is next is looked for among all. */

#include <errno.h>

#include "park_naive.h"

static bool is_in(const struct naive_park *p, const struct naive_group *g)
{
	return p->exists && !p->gone && p->group != 0 && p->group == g->group &&
	       (g->owner == NOBODY ? p->shared : !p->shared && (int)p->owner == g->owner);
}

static bool is_due(const struct naive_park *p, const struct naive_group *g)
{
	return is_in(p, g) && p->answered && naive_is_ready(p);
}

static const struct naive_worker *worker_in(const struct naive *n, int handle,
					    const struct naive_group *g)
{
	const struct naive_worker *w = &n->workers[handle][g->group];
	bool in = g->owner == NOBODY ? w->shared
				     : !w->shared && (int)n->handles[handle].owner == g->owner;

	return w->exists && in ? w : NULL;
}

static uint64_t handed_to(const struct naive *n, int handle)
{
	uint64_t handed = 0;

	for (unsigned i = 0; i < NAIVE_PARKS; i++)
		handed += n->parks[i].exists && n->parks[i].handed && n->parks[i].worker == handle;
	return handed;
}

static bool is_free(const struct naive *n, int handle, const struct naive_group *g)
{
	const struct naive_worker *w = worker_in(n, handle, g);
	unsigned owner = n->handles[handle].owner;

	return w && w->credit > 0 && handed_to(n, handle) < PARK_UNSETTLED_MAX &&
	       naive_used(n, owner, QUOTA_FDS_UNREAD) < n->limit[owner][QUOTA_FDS_UNREAD];
}

int naive_offer(struct naive *n, int handle, const struct naive_group *g, uint32_t more,
		uint32_t capacity)
{
	struct naive_worker *w = &n->workers[handle][g->group];

	if (capacity == 0 || capacity > PARK_CAPACITY_MAX || (uint64_t)w->credit + more > capacity)
		return -EINVAL;
	if (!w->exists)
		*w = (struct naive_worker){.exists = true, .shared = g->owner == NOBODY};
	if (w->turn == 0 || (w->credit == 0 && more > 0))
		w->turn = ++n->call;
	w->credit += more;
	w->capacity = capacity;
	return 0;
}

void naive_end_workers(struct naive *n, int handle)
{
	for (unsigned i = 0; i < NAIVE_GROUPS; i++)
		n->workers[handle][i] = (struct naive_worker){0};
}

void naive_set_shared(struct naive *n, unsigned slot, bool shared)
{
	struct naive_park *p = &n->parks[slot];

	n->call++;
	if (p->shared == shared)
		return;
	p->shared = shared;
	p->version++;
	if (!p->changed)
		p->changed = n->call;
}

/* ---- Matches ---- */

static bool is_first_park(const struct naive *n, const struct naive_group *g, unsigned slot)
{
	const struct naive_park *p = &n->parks[slot];

	for (unsigned i = 0; i < NAIVE_PARKS; i++)
		if (is_due(&n->parks[i], g) && n->parks[i].ready_since < p->ready_since)
			return false;
	return is_due(p, g);
}

static bool is_first_worker(const struct naive *n, const struct naive_group *g, int handle)
{
	const struct naive_worker *w = &n->workers[handle][g->group];
	uint32_t load = w->capacity - w->credit;

	for (int i = 0; i < NAIVE_PROCESSES; i++) {
		const struct naive_worker *other = &n->workers[i][g->group];
		uint32_t others = other->capacity - other->credit;

		if (is_free(n, i, g) &&
		    (others < load || (others == load && other->turn < w->turn)))
			return false;
	}
	return is_free(n, handle, g);
}

bool naive_has_match(const struct naive *n, const struct naive_group *g)
{
	bool due = false, free = false;

	for (unsigned i = 0; i < NAIVE_PARKS; i++)
		due = due || is_due(&n->parks[i], g);
	for (int i = 0; i < NAIVE_PROCESSES; i++)
		free = free || is_free(n, i, g);
	return due && free;
}

bool naive_is_match(const struct naive *n, const struct naive_group *g, unsigned slot, int handle)
{
	return is_first_park(n, g, slot) && is_first_worker(n, g, handle);
}

void naive_hand_match(struct naive *n, const struct naive_group *g, unsigned slot, int handle)
{
	struct naive_worker *w = &n->workers[handle][g->group];

	(void)naive_hand(n, slot, handle);
	w->credit--;
	w->turn = n->call;
}

struct naive_numbers naive_count_group(const struct naive *n, const struct naive_group *g)
{
	struct naive_numbers c = {0};

	for (unsigned i = 0; i < NAIVE_PARKS; i++) {
		const struct naive_park *p = &n->parks[i];

		if (!is_in(p, g))
			continue;
		c.parks++;
		c.ready += naive_is_ready(p);
		c.handed += p->handed;
		if (is_due(p, g) && (c.oldest == 0 || p->ready_since < c.oldest))
			c.oldest = p->ready_since;
	}
	for (int i = 0; i < NAIVE_PROCESSES; i++) {
		const struct naive_worker *w = worker_in(n, i, g);

		if (!w)
			continue;
		c.workers++;
		c.credit += w->credit;
		c.capacity += w->capacity;
	}
	c.all = c.parks + c.workers;
	return c;
}
