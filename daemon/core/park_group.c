/* SPDX-License-Identifier: MIT */
/*
 * Who is next, in each group: the parks that are due stand in one heap by the turn in which they
 * became ready; the free workers of each owner (a team) in one by load and turn; and the teams of a
 * group in one by their first worker. So a match is the first of the first, and a change costs a few
 * comparisons, however many parks and workers there are. Turns are one counter's.
 *
 * Here are groups and parks; park_worker.c has teams and workers.
 *
 * Teams are there for the quota: an owner whose hand-outs are used up sets its teams aside
 * (`starved`), not each of its workers, and they are looked at again before each match.
 *
 * Groups with both a due park and a team that is not starved are on one list, in whose order they
 * have their turns:
 *
 *   park is due             <=>  in its group's heap
 *   worker is free          <=>  in its team's heap
 *   team has a free worker and is not starved  <=>  in its group's heap, under its first one's key
 *   group has both          <=>  on the list of matching groups
 *
 * Memory: a group is made for the first park or worker, and goes with the last; offers can fail for
 * want of it, and nothing that makes something else gone.
 */
#include "park_group.h"

#include <assert.h>
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/util/cleanup.h"
#include "park_internal.h"

/* ---- Finding ---- */

static int compare_numbers(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int compare_names(const struct park_group_name *a, const struct park_group_name *b)
{
	int r = compare_numbers(a->owner ? a->owner->uid : UINT64_MAX,
				b->owner ? b->owner->uid : UINT64_MAX);

	if (r == 0)
		r = compare_numbers(a->length, b->length);
	return r ? r : memcmp(a->bytes, b->bytes, a->length);
}

static struct park_group_name name_of(const struct park_group *g)
{
	return (struct park_group_name){
		.owner = g->owner,
		.bytes = g->name,
		.length = g->name_length,
	};
}

static int compare_groups(const void *left, const void *right)
{
	struct park_group_name a = name_of(left), b = name_of(right);

	return compare_names(&a, &b);
}

static int compare_with_name(const void *key, const void *group)
{
	struct park_group_name b = name_of(group);

	return compare_names(key, &b);
}

struct park_group *parks_find_group(const struct parks *ps, const struct park_group_name *name)
{
	void *node = name->length > 0 ? tfind(name, &ps->groups.tree, compare_with_name) : NULL;

	return node ? *(struct park_group **)node : NULL;
}

struct park_group *parks_next_group(const struct parks *ps, const struct park_group *after)
{
	return after ? TAILQ_NEXT(after, all) : TAILQ_FIRST(&ps->groups.all);
}

static struct park *first_due(const struct park_group *g)
{
	return g->due.root ? PAIR_HEAP_OF(g->due.root, struct park, due) : NULL;
}

int64_t park_group_oldest(const struct park_group *g)
{
	const struct park *p = first_due(g);

	return p ? p->ready_since : 0;
}

/* ---- Groups ---- */

void parks_init_groups(struct parks *ps)
{
	TAILQ_INIT(&ps->groups.all);
	TAILQ_INIT(&ps->groups.matching);
	TAILQ_INIT(&ps->groups.starved);
}

static void keep(void *unused)
{
	(void)unused;
}

void parks_free_groups(struct parks *ps)
{
	struct park_group *g;
	struct park_team *t;
	struct park_worker *w;

	tdestroy(ps->groups.tree, keep);
	while ((g = TAILQ_FIRST(&ps->groups.all))) {
		while ((t = TAILQ_FIRST(&g->teams))) {
			while ((w = TAILQ_FIRST(&t->workers))) {
				TAILQ_REMOVE(&t->workers, w, of_team);
				free(w);
			}
			TAILQ_REMOVE(&g->teams, t, of_group);
			free(t);
		}
		TAILQ_REMOVE(&ps->groups.all, g, all);
		free(g);
	}
}

int parks_get_group(struct parks *ps, const struct park_group_name *name, struct park_group **ret)
{
	CLEANUP_MEMORY struct park_group *g = NULL;

	*ret = parks_find_group(ps, name);
	if (*ret)
		return 0;
	g = calloc(1, sizeof(*g) + name->length);
	if (!g)
		return -ENOMEM;
	g->owner = (struct park_owner *)(uintptr_t)name->owner;
	g->name_length = name->length;
	memcpy(g->name, name->bytes, name->length);
	TAILQ_INIT(&g->teams);
	if (!tsearch(g, &ps->groups.tree, compare_groups))
		return -ENOMEM;
	g->number = ++ps->groups.last_number;
	TAILQ_INSERT_TAIL(&ps->groups.all, g, all);
	*ret = STEAL(g);
	return 0;
}

void parks_end_group_if_empty(struct parks *ps, struct park_group *g)
{
	if (g->n_parks > 0 || !TAILQ_EMPTY(&g->teams))
		return;
	assert(!g->matching && !g->due.root && !g->free.root);
	(void)tdelete(g, &ps->groups.tree, compare_groups);
	TAILQ_REMOVE(&ps->groups.all, g, all);
	free(g);
}

void parks_update_group(struct parks *ps, struct park_group *g)
{
	bool matching = g->due.root && g->free.root;

	if (matching == g->matching)
		return;
	g->matching = matching;
	if (matching)
		TAILQ_INSERT_TAIL(&ps->groups.matching, g, match);
	else
		TAILQ_REMOVE(&ps->groups.matching, g, match);
}

/* ---- Parks ---- */

static bool is_due(const struct park *p)
{
	return park_is_ready(p) && p->answered;
}

static struct park_group_name name_of_park(const struct park *p, bool shared)
{
	return (struct park_group_name){
		.owner = shared ? NULL : p->owner,
		.bytes = p->text.bytes + p->text.name_length,
		.length = p->text.group_length,
	};
}

int parks_enter_group(struct parks *ps, struct park *p)
{
	const struct park_group_name name = name_of_park(p, p->shared);
	int r;

	if (name.length == 0)
		return 0;
	r = parks_get_group(ps, &name, &p->group);
	if (r == 0)
		p->group->n_parks++;
	return r;
}

void parks_leave_group(struct parks *ps, struct park *p)
{
	struct park_group *g = p->group;

	if (!g)
		return;
	assert(!p->due.in);
	p->group = NULL;
	g->n_parks--;
	parks_end_group_if_empty(ps, g);
}

void parks_count_in_group(struct parks *ps, struct park *p, int sign)
{
	struct park_group *g = p->group;

	if (!g)
		return;
	g->n_ready += (uint64_t)(sign * park_is_ready(p));
	g->n_handed += (uint64_t)(sign * (p->state == PARK_HANDED));
	if (sign < 0 && p->due.in)
		pair_heap_remove(&g->due, &p->due);
	if (sign > 0 && is_due(p))
		pair_heap_add(&g->due, &p->due, p->turn, 0);
	parks_update_group(ps, g);
}

void parks_note_ready(struct parks *ps, struct park *p, int64_t now)
{
	if (p->turn != 0 || (!p->ready && !p->timed_out))
		return;
	p->turn = ++ps->groups.last_turn;
	p->ready_since = now;
}

int parks_set_shared(struct parks *ps, struct park *p, bool shared)
{
	const struct park_group_name name = name_of_park(p, shared);
	struct park_group *before = p->group, *g;
	int r;

	if (p->shared == shared)
		return 0;
	r = parks_get_group(ps, &name, &g);
	if (r < 0)
		return r;
	parks_count_in_group(ps, p, -1);
	before->n_parks--;
	g->n_parks++;
	p->group = g;
	p->shared = shared;
	parks_count_in_group(ps, p, 1);
	parks_end_group_if_empty(ps, before);
	p->serial = ++ps->last_serial;
	parks_list_change(ps, p);
	return 0;
}
