/* SPDX-License-Identifier: MIT */
/*
 * What park_group.c promises, checked from scratch: who is due, free and starved is asked of the parks
 * and workers themselves, and compared with the heaps and lists; of a heap, that no node comes before
 * its parent, and that the nodes that say they are in it are as many as can be reached.
 */
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "park_group.h"
#include "park_internal.h"

static void check(bool good, const char *what, uint64_t which)
{
	if (good)
		return;
	fprintf(stderr, "parks: %s (%llu)\n", what, (unsigned long long)which);
	abort();
}

/* ---- Heaps ---- */

/* Goes through all nodes without recursion, by child, sibling and parent. */
static uint64_t heap_size(const struct pair_heap *h)
{
	const struct pair_node *node = h->root, *up;
	uint64_t n = 0;

	check(!node || (!node->prev && !node->next), "a heap's root has relatives", 0);
	while (node) {
		check(node->in, "a node of a heap does not know that it is in one", n);
		n++;
		if (node->child) {
			check(node->child->prev == node, "a first child of another parent", n);
			node = node->child;
			continue;
		}
		while (node && !node->next) { /* up to the parent */
			while (node->prev && node->prev->child != node)
				node = node->prev;
			node = node->prev;
		}
		if (!node)
			break;
		up = node;
		node = node->next;
		check(node->prev == up, "a sibling of another one", n);
	}
	return n;
}

static bool is_in_order(const struct pair_node *node)
{
	const struct pair_node *parent = node;

	while (parent->prev && parent->prev->child != parent)
		parent = parent->prev;
	parent = parent->prev;
	return !parent || parent->major < node->major ||
	       (parent->major == node->major && parent->minor <= node->minor);
}

/* ---- One group ---- */

static uint64_t check_worker(const struct park_worker *w, const struct park_team *t)
{
	bool free = w->credit > 0 && w->handle->n_handed < PARK_UNSETTLED_MAX;

	check(w->team == t && w->handle->owner == t->owner, "a worker of another team", w->turn);
	check(w->handle->attached, "a worker without a connection", w->turn);
	check(parks_find_worker(w->handle, t->group->name, t->group->name_length) == w,
	      "a worker that its handle does not know, or knows twice", w->turn);
	check(w->credit <= w->capacity && w->capacity > 0 && w->capacity <= PARK_CAPACITY_MAX,
	      "a worker's credit", w->credit);
	check(w->place.in == free, "a worker is free and not in the heap, or the reverse", w->turn);
	if (free)
		check(w->place.major == w->capacity - w->credit && w->place.minor == w->turn &&
			      is_in_order(&w->place),
		      "a worker's place", w->turn);
	return free;
}

struct sums {
	uint64_t workers, credit, capacity, teams, starved;
};

static void check_team(const struct park_team *t, const struct park_group *g, struct sums *sums)
{
	const struct park_worker *w;
	uint64_t free = 0;

	check(t->group == g, "a team of another group", g->number);
	check(!g->owner || g->owner == t->owner, "another owner's team", g->number);
	check(!TAILQ_EMPTY(&t->workers), "a team without workers", g->number);
	TAILQ_FOREACH(w, &t->workers, of_team)
	{
		free += check_worker(w, t);
		sums->workers++;
		sums->credit += w->credit;
		sums->capacity += w->capacity;
	}
	check(heap_size(&t->free) == free, "free workers of a team", free);
	check(t->place.in == (free > 0 && !t->starved), "a team's place in its group", g->number);
	if (t->place.in)
		check(t->place.major == t->free.root->major &&
			      t->place.minor == t->free.root->minor && is_in_order(&t->place),
		      "a team's place is not its first worker's", g->number);
	sums->teams += t->place.in;
	sums->starved += t->starved;
}

static void check_parks_of(const struct parks *ps, const struct park_group *g)
{
	uint64_t parks = 0, ready = 0, handed = 0, due = 0;

	for (uint32_t i = 1; i < ps->end; i++) {
		const struct park *p = ps->places[i].park;

		if (!p || p->group != g)
			continue;
		check(g->owner == (p->shared ? NULL : p->owner), "a park in another's group",
		      p->number);
		check(p->text.group_length == g->name_length &&
			      memcmp(p->text.bytes + p->text.name_length, g->name,
				     g->name_length) == 0,
		      "a park in a group of another name", p->number);
		parks++;
		ready += park_is_ready(p);
		handed += p->state == PARK_HANDED;
		due += p->due.in;
		check(!p->due.in || is_in_order(&p->due), "a due park's place", p->number);
	}
	check(g->n_parks == parks, "parks of a group", parks);
	check(g->n_ready == ready, "ready parks of a group", ready);
	check(g->n_handed == handed, "handed parks of a group", handed);
	check(heap_size(&g->due) == due, "due parks of a group", due);
}

static uint64_t check_group(const struct parks *ps, const struct park_group *g)
{
	const struct park_group_name name = {
		.owner = g->owner, .bytes = g->name, .length = g->name_length};
	struct sums sums = {0};
	const struct park_team *t;

	check(parks_find_group(ps, &name) == g, "tree of groups", g->number);
	check(g->n_parks > 0 || g->n_workers > 0, "a group of nobody", g->number);
	TAILQ_FOREACH(t, &g->teams, of_group)
	check_team(t, g, &sums);
	check(g->n_workers == sums.workers, "workers of a group", sums.workers);
	check(g->credit == sums.credit, "credit of a group", sums.credit);
	check(g->capacity == sums.capacity, "capacity of a group", sums.capacity);
	check(heap_size(&g->free) == sums.teams, "free teams of a group", sums.teams);
	check_parks_of(ps, g);
	check(g->matching == (g->due.root && g->free.root), "a group that matches", g->number);
	return sums.starved;
}

/* ---- All ---- */

static void check_park(const struct park *p)
{
	bool due = park_is_ready(p) && p->answered && p->group;

	check((p->group != NULL) == (p->state != PARK_GONE && p->text.group_length > 0),
	      "a park and its group", p->number);
	check(p->due.in == due, "a park is due and not in the heap, or the reverse", p->number);
	check(!due || p->due.major == p->turn, "a park's turn", p->number);
	check(!park_is_ready(p) || p->turn != 0, "a park is ready and has no turn", p->number);
}

static void count_node(const void *node, VISIT order, void *data)
{
	(void)node;
	*(uint64_t *)data += order == preorder || order == leaf;
}

void parks_check_groups(const struct parks *ps)
{
	uint64_t groups = 0, nodes = 0, matching = 0, listed = 0, starved = 0, last = 0;
	const struct park_group *g;
	const struct park_team *t;

	for (uint32_t i = 1; i < ps->end; i++)
		if (ps->places[i].park)
			check_park(ps->places[i].park);
	TAILQ_FOREACH(g, &ps->groups.all, all)
	{
		check(g->number > last, "order of groups", g->number);
		last = g->number;
		starved += check_group(ps, g);
		groups++;
		matching += g->matching;
	}
	twalk_r(ps->groups.tree, count_node, &nodes);
	check(nodes == groups, "groups", nodes);
	TAILQ_FOREACH(g, &ps->groups.matching, match)
	{
		check(g->matching, "a group that does not match is on the list", g->number);
		listed++;
	}
	check(listed == matching, "groups that match", listed);
	listed = 0;
	TAILQ_FOREACH(t, &ps->groups.starved, of_starved)
	{
		check(t->starved, "a team that is not starved is on the list", listed);
		listed++;
	}
	check(listed == starved, "starved teams", listed);
}
