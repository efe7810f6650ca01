/* SPDX-License-Identifier: MIT */
/*
 * All that the files of parks promise each other, checked from scratch: everything is counted anew
 * and compared with what is kept. Used by the tests.
 */
#include <search.h>
#include <stdio.h>
#include <stdlib.h>

#include "core.h"
#include "park_internal.h"

static void check(bool good, const char *what, uint64_t which)
{
	if (good)
		return;
	fprintf(stderr, "parks: %s (%llu)\n", what, (unsigned long long)which);
	abort();
}

/* ---- Handles ---- */

/* What is gone through all handles for. */
struct walk {
	const struct parks *ps;
	uint64_t nodes, made, given, idle;
};

static void check_handle(const struct park_handle *h, struct walk *w)
{
	uint32_t made = 0, given = 0;
	const struct park *p;

	TAILQ_FOREACH(p, &h->made, of_maker)
	{
		check(p->maker == h && p->owner == h->owner, "maker of a park", p->number);
		made++;
	}
	TAILQ_FOREACH(p, &h->given, of_worker)
	{
		check(p->worker == h, "worker of a park", p->number);
		check(p->connection <= h->connections, "handed on a later connection", p->number);
		given++;
	}
	check(h->n_handed == given, "parks handed to a handle", h->n_handed);
	check(h->references == made + given, "references of a handle", h->references);
	w->made += made;
	w->given += given;
	w->idle += !h->attached && h->references == 0;
}

static bool is_first_visit(VISIT order)
{
	return order == preorder || order == leaf;
}

static void visit_handle(const void *node, VISIT order, void *data)
{
	struct walk *w = data;

	if (!is_first_visit(order))
		return;
	w->nodes++;
	check_handle(*(struct park_handle *const *)node, w);
}

static void check_handles(const struct parks *ps)
{
	struct walk w = {.ps = ps};
	const struct park_handle *h;
	uint64_t makers = 0, workers = 0, idle = 0;

	twalk_r(ps->handles, visit_handle, &w);
	for (uint32_t i = 1; i < ps->end; i++) {
		const struct park *p = ps->places[i].park;

		makers += p && p->maker;
		workers += p && p->worker;
	}
	TAILQ_FOREACH(h, &ps->idle, list)
	{
		check(!h->attached && h->references == 0, "a handle on the idle list", idle);
		idle++;
		check(idle <= ps->n_handles, "idle list goes in a circle", idle);
	}
	check(w.nodes == ps->n_handles, "handles", w.nodes);
	check(w.made == makers, "makers", w.made);
	check(w.given == workers, "workers", w.given);
	check(w.idle == idle, "idle handles that are not on the list", w.idle);
}

/* ---- Owners ---- */

/* Of one owner, counted. */
struct owned {
	const struct park_owner *owner;
	uint64_t parks, live, handed, note, handles;
};

static void visit_owned_handle(const void *node, VISIT order, void *data)
{
	struct owned *n = data;

	if (is_first_visit(order))
		n->handles += (*(struct park_handle *const *)node)->owner == n->owner;
}

static void visit_owner(const void *node, VISIT order, void *data)
{
	const struct park_owner *o = *(struct park_owner *const *)node;
	struct owned n = {.owner = o};
	struct walk *w = data;
	uint64_t cursor = 0;
	const struct park *p;

	if (!is_first_visit(order))
		return;
	w->nodes++;
	while ((p = parks_next(w->ps, NULL, &cursor)))
		n.handed += p->state == PARK_HANDED && p->worker->owner == o;
	cursor = 0;
	while ((p = parks_next(w->ps, o, &cursor))) {
		bool live = p->state != PARK_GONE;

		n.parks++;
		n.live += live;
		n.note += live ? p->text.note_length : 0;
	}
	twalk_r(w->ps->handles, visit_owned_handle, &n);
	check(o->n_parks == n.parks, "parks of an owner", o->uid);
	check(o->n_handles == n.handles, "handles of an owner", o->uid);
	check(o->quota->used[QUOTA_PARKS] == n.live, "parks charged to an owner", o->uid);
	check(o->quota->used[QUOTA_NOTE_BYTES] == n.note, "notes charged to an owner", o->uid);
	check(o->quota->used[QUOTA_FDS_UNREAD] == n.handed, "hand-outs charged to an owner",
	      o->uid);
}

static void check_owners(const struct parks *ps)
{
	struct walk w = {.ps = ps};

	twalk_r(ps->owners, visit_owner, &w);
	check(w.nodes == ps->n_owners, "owners", w.nodes);
}

/* ---- Parks ---- */

static void check_deadline(const struct parks *ps, const struct park *p)
{
	int64_t when = 0;
	bool armed = timer_heap_when(&ps->heap, p->index, &when);

	check(!armed || (p->deadline != 0 && when == p->deadline), "deadline and heap", p->number);
	check(!armed || p->state != PARK_GONE, "a park that is gone has a deadline", p->number);
	if (p->state == PARK_HELD && p->answered && p->deadline != 0)
		check(armed, "a deadline is not in the heap", p->number);
	if (p->timed_out)
		check(p->deadline == 0 && p->flags & PARK_DEADLINE_HAND, "timed out", p->number);
}

static void check_state(const struct park *p)
{
	check(p->state <= PARK_GONE, "state", p->number);
	check((p->state == PARK_HANDED) == (p->worker != NULL), "handed to nobody", p->number);
	check(p->answered || p->state == PARK_HELD, "unanswered and not held", p->number);
	check(p->answered || p->maker, "unanswered and nobody's", p->number);
	check(p->state != PARK_GONE || !p->maker, "a park that is gone has a maker", p->number);
	check((p->ready & ~p->interest) == 0, "ready outside the interest", p->number);
	check(!(p->flags & PARK_HOLD_ONLY) || !p->ready, "hold-only and ready", p->number);
}

static void check_park(const struct parks *ps, const struct park *p)
{
	bool gone = p->state == PARK_GONE;

	check(ps->places[p->index].park == p, "index of a park", p->number);
	check(p->serial <= ps->last_serial && p->number <= ps->last_number, "serial", p->number);
	check((parks_at_token(ps, p->token) == p) == !gone, "table of tokens", p->number);
	check((parks_at_number(ps, p->number) == p) == !gone, "table of numbers", p->number);
	check((parks_at_name(ps, p->owner, &p->text) == p) == (!gone && p->text.name_length),
	      "table of names", p->number);
	check_state(p);
	check_deadline(ps, p);
}

static void check_places(const struct parks *ps, uint64_t parks)
{
	uint64_t n_free = 0;

	for (uint32_t i = ps->free; i; i = ps->places[i].next_free) {
		check(!ps->places[i].park, "a park on the free list", i);
		check(++n_free < ps->end, "free list goes in a circle", i);
	}
	check(parks + n_free + 1 == ps->end, "a place is neither used nor free", n_free);
}

static void check_changes(const struct parks *ps, uint64_t changed)
{
	const struct park *p;
	uint64_t listed = 0;

	TAILQ_FOREACH(p, &ps->changes, change)
	{
		check(p->changed, "an unchanged park is on the list of changes", p->number);
		listed++;
		check(listed <= changed, "list of changes goes in a circle", listed);
	}
	check(listed == changed, "a changed park is not on the list", listed);
}

void parks_check(const struct parks *ps)
{
	uint64_t n = 0, live = 0, named = 0, handed = 0, ready = 0, changed = 0;

	timer_heap_check(&ps->heap);
	for (uint32_t i = 1; i < ps->end; i++) {
		const struct park *p = ps->places[i].park;

		if (!p)
			continue;
		check_park(ps, p);
		n++;
		live += p->state != PARK_GONE;
		named += p->state != PARK_GONE && p->text.name_length;
		handed += p->state == PARK_HANDED;
		ready += park_is_ready(p);
		changed += p->changed;
	}
	check(n == ps->stats.parks, "parks", n);
	check(handed == ps->stats.handed, "handed parks", handed);
	check(ready == ps->stats.ready, "ready parks", ready);
	check(ps->by_token.count == live, "parks by token", live);
	check(ps->by_number.count == live, "parks by number", live);
	check(ps->by_name.count == named, "parks by name", named);
	check_places(ps, n);
	check_changes(ps, changed);
	check_handles(ps);
	check_owners(ps);
	parks_check_groups(ps);
}
