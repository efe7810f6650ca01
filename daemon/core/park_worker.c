/* SPDX-License-Identifier: MIT */
/*
 * The workers of groups, in teams, and who of them is next; park_group.c has the whole picture. A
 * team's place among its group's teams is that of its first free worker, and is renewed with each change
 * of one. Nothing here allocates but an offer, and going over to another group.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "park_group.h"
#include "park_internal.h"

struct park_worker *parks_find_worker(const struct park_handle *h, const void *name, size_t length)
{
	struct park_worker *w;

	TAILQ_FOREACH(w, &h->workers, of_handle)
	{
		const struct park_group *g = w->team->group;

		if (g->name_length == length && memcmp(g->name, name, length) == 0)
			return w;
	}
	return NULL;
}

/* ---- Teams and workers ---- */

/* Its place among the group's teams, after its first free worker has changed. */
static void update_team(struct parks *ps, struct park_team *t)
{
	const struct pair_node *first = t->free.root;

	if (t->place.in)
		pair_heap_remove(&t->group->free, &t->place);
	if (first && !t->starved)
		pair_heap_add(&t->group->free, &t->place, first->major, first->minor);
	parks_update_group(ps, t->group);
}

static bool is_free(const struct park_worker *w)
{
	return w->credit > 0 && w->handle->n_handed < PARK_UNSETTLED_MAX;
}

static void update_worker(struct parks *ps, struct park_worker *w)
{
	if (w->place.in)
		pair_heap_remove(&w->team->free, &w->place);
	if (is_free(w))
		pair_heap_add(&w->team->free, &w->place, w->capacity - w->credit, w->turn);
	update_team(ps, w->team);
}

void parks_update_workers(struct parks *ps, struct park_handle *h)
{
	struct park_worker *w;

	if (h->n_handed != PARK_UNSETTLED_MAX && h->n_handed != PARK_UNSETTLED_MAX - 1)
		return;
	TAILQ_FOREACH(w, &h->workers, of_handle)
	update_worker(ps, w);
}

static void set_starved(struct parks *ps, struct park_team *t, bool starved)
{
	if (t->starved == starved)
		return;
	t->starved = starved;
	if (starved)
		TAILQ_INSERT_TAIL(&ps->groups.starved, t, of_starved);
	else
		TAILQ_REMOVE(&ps->groups.starved, t, of_starved);
	update_team(ps, t);
}

static int get_team(struct park_group *g, struct park_owner *o, struct park_team **ret)
{
	struct park_team *t;

	TAILQ_FOREACH(t, &g->teams, of_group)
	if (t->owner == o)
		break;
	if (!t) {
		t = calloc(1, sizeof(*t));
		if (!t)
			return -ENOMEM;
		t->group = g;
		t->owner = o;
		TAILQ_INIT(&t->workers);
		TAILQ_INSERT_TAIL(&g->teams, t, of_group);
	}
	*ret = t;
	return 0;
}

static void end_team_if_empty(struct parks *ps, struct park_team *t)
{
	struct park_group *g = t->group;

	if (!TAILQ_EMPTY(&t->workers))
		return;
	set_starved(ps, t, false);
	TAILQ_REMOVE(&g->teams, t, of_group);
	free(t);
	parks_end_group_if_empty(ps, g);
}

/* Its numbers go into the group's (1), or out of them (-1). */
static void count_worker(const struct park_worker *w, int sign)
{
	struct park_group *g = w->team->group;

	g->credit += (uint64_t)sign * w->credit;
	g->capacity += (uint64_t)sign * w->capacity;
	g->n_workers += (uint32_t)sign;
}

static void join(struct parks *ps, struct park_worker *w, struct park_team *t)
{
	w->team = t;
	TAILQ_INSERT_TAIL(&t->workers, w, of_team);
	count_worker(w, 1);
	update_worker(ps, w);
}

static void leave(struct parks *ps, struct park_worker *w)
{
	struct park_team *t = w->team;

	if (w->place.in)
		pair_heap_remove(&t->free, &w->place);
	update_team(ps, t);
	count_worker(w, -1);
	TAILQ_REMOVE(&t->workers, w, of_team);
	end_team_if_empty(ps, t);
}

static int get_team_by_name(struct parks *ps, const struct park_group_name *name,
			    struct park_owner *o, struct park_team **ret)
{
	struct park_group *g;
	int r = parks_get_group(ps, name, &g);

	if (r < 0)
		return r;
	r = get_team(g, o, ret);
	if (r < 0)
		parks_end_group_if_empty(ps, g);
	return r;
}

static int add_worker(struct parks *ps, struct park_handle *h, const struct park_group_name *name,
		      const struct park_worker *what)
{
	struct park_worker *w;
	struct park_team *t;
	unsigned n = 0;
	int r;

	TAILQ_FOREACH(w, &h->workers, of_handle)
	n++;
	if (n >= PARK_WORKERS_MAX)
		return -ENOSPC;
	w = malloc(sizeof(*w));
	if (!w)
		return -ENOMEM;
	*w = *what;
	r = get_team_by_name(ps, name, h->owner, &t);
	if (r < 0) {
		free(w);
		return r;
	}
	TAILQ_INSERT_TAIL(&h->workers, w, of_handle);
	join(ps, w, t);
	return 0;
}

int parks_offer(struct parks *ps, struct park_handle *h, const struct park_group_name *name,
		uint32_t more, uint32_t capacity)
{
	struct park_worker *w;
	uint32_t credit;

	assert(h->attached);
	if (name->length == 0 || capacity == 0 || capacity > PARK_CAPACITY_MAX)
		return -EINVAL;
	w = parks_find_worker(h, name->bytes, name->length);
	credit = w ? w->credit : 0;
	if (credit > capacity || more > capacity - credit)
		return -EINVAL;
	if (!w) {
		const struct park_worker what = {
			.handle = h,
			.credit = more,
			.capacity = capacity,
			.turn = ++ps->groups.last_turn,
		};

		return add_worker(ps, h, name, &what);
	}
	count_worker(w, -1);
	if (credit == 0 && more > 0)
		w->turn = ++ps->groups.last_turn;
	w->credit = credit + more;
	w->capacity = capacity;
	count_worker(w, 1);
	update_worker(ps, w);
	return 0;
}

void parks_end_worker(struct parks *ps, struct park_worker *w)
{
	TAILQ_REMOVE(&w->handle->workers, w, of_handle);
	leave(ps, w);
	free(w);
}

void parks_end_workers(struct parks *ps, struct park_handle *h)
{
	while (!TAILQ_EMPTY(&h->workers))
		parks_end_worker(ps, TAILQ_FIRST(&h->workers));
}

int parks_move_worker(struct parks *ps, struct park_worker *w, const struct park_group_name *name)
{
	struct park_team *t;
	int r = get_team_by_name(ps, name, w->handle->owner, &t);

	if (r < 0 || t == w->team)
		return r;
	leave(ps, w);
	join(ps, w, t);
	return 0;
}

/* ---- Matches ---- */

static bool has_room(const struct quota *q)
{
	return q->used[QUOTA_FDS_UNREAD] < q->limit[QUOTA_FDS_UNREAD];
}

/* Limits and what is used of them change without a word to here. */
static void feed_starved(struct parks *ps)
{
	struct park_team *t, *next;

	for (t = TAILQ_FIRST(&ps->groups.starved); t; t = next) {
		next = TAILQ_NEXT(t, of_starved);
		if (has_room(t->owner->quota))
			set_starved(ps, t, false);
	}
}

bool parks_next_match(struct parks *ps, struct park_match *ret)
{
	struct park_group *g;

	feed_starved(ps);
	while ((g = TAILQ_FIRST(&ps->groups.matching))) {
		struct park_team *t = PAIR_HEAP_OF(g->free.root, struct park_team, place);

		if (!has_room(t->owner->quota)) {
			set_starved(ps, t, true);
			continue;
		}
		ret->park = PAIR_HEAP_OF(g->due.root, struct park, due);
		ret->worker = PAIR_HEAP_OF(t->free.root, struct park_worker, place);
		return true;
	}
	return false;
}

void parks_hand_match(struct parks *ps, const struct park_match *m, int64_t now)
{
	struct park_worker *w = m->worker;
	struct park_group *g = w->team->group;
	int r = parks_hand(ps, m->park, w->handle, now);

	assert(r == 0);
	(void)r;
	w->credit--;
	g->credit--;
	w->turn = ++ps->groups.last_turn;
	update_worker(ps, w);
	if (!g->matching)
		return;
	TAILQ_REMOVE(&ps->groups.matching, g, match); /* the others' turn */
	TAILQ_INSERT_TAIL(&ps->groups.matching, g, match);
}
