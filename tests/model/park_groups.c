/* SPDX-License-Identifier: MIT */

/* Groups in the world: offers, matches, and what changes sides. */

#include "park_world.h"

#include <string.h>

static struct park_group_name real_name(const struct world *w, const struct naive_group *g)
{
	static const char *const names[NAIVE_GROUPS] = {"", "g1", "g2"};

	return (struct park_group_name){
		.owner = g->owner == NOBODY ? NULL : w->owners[g->owner],
		.bytes = names[g->group],
		.length = 2,
	};
}

static struct naive_group draw_group(struct world *w, int who)
{
	return naive_group_of(w->naive.handles[who].owner, 1 + (unsigned)draw(w, NAIVE_GROUPS - 1),
			      chance(w, 50));
}

void do_offer(struct world *w)
{
	int who = draw_attached(w);
	uint32_t more = (uint32_t)draw(w, 4), capacity = (uint32_t)draw(w, 30);
	struct park_group_name name;
	struct naive_group g;

	if (who == NOBODY)
		return;
	if (chance(w, 20)) /* for the bound of what is unsettled */
		more = 16 + (uint32_t)draw(w, 8);
	if (chance(w, 2))
		capacity = PARK_CAPACITY_MAX + (uint32_t)draw(w, 2);
	g = draw_group(w, who);
	name = real_name(w, &g);
	say(w, "process %d offers %u of %u to group %d/%u", who, more, capacity, g.owner, g.group);
	expect_result(w, naive_offer(&w->naive, who, &g, more, capacity),
		      parks_offer(w->ps, w->handles[who], &name, more, capacity));
}

void do_withdraw(struct world *w)
{
	int who = draw_attached(w);
	struct park_worker *worker;
	struct park_group_name name;
	struct naive_worker *naive;
	struct naive_group g;

	if (who == NOBODY)
		return;
	g = draw_group(w, who);
	naive = &w->naive.workers[who][g.group];
	name = real_name(w, &g);
	worker = parks_find_worker(w->handles[who], name.bytes, name.length);
	expect(w, "worker exists", naive->exists, worker != NULL);
	if (!worker)
		return;
	if (chance(w, 50)) {
		say(w, "process %d leaves group %u", who, g.group);
		parks_end_worker(w->ps, worker);
		*naive = (struct naive_worker){0};
	} else {
		say(w, "process %d goes over to group %d/%u", who, g.owner, g.group);
		expect_result(w, 0, parks_move_worker(w->ps, worker, &name));
		naive->shared = g.owner == NOBODY;
	}
}

void do_share(struct world *w)
{
	unsigned slot = draw_slot(w);
	const struct naive_park *n = &w->naive.parks[slot];
	bool shared = chance(w, 50);

	if (!w->parks[slot] || n->gone || n->group == 0)
		return;
	say(w, "park %u is shared: %d", slot, shared);
	expect_result(w, 0, parks_set_shared(w->ps, w->parks[slot], shared));
	naive_set_shared(&w->naive, slot, shared);
	take(w);
}

/* ---- Matches ---- */

typedef void (*visit_group)(struct world *w, const struct naive_group *g);

static void each_group(struct world *w, visit_group visit)
{
	for (int owner = NOBODY; owner < NAIVE_OWNERS; owner++)
		for (unsigned group = 1; group < NAIVE_GROUPS; group++)
			visit(w, &(struct naive_group){.owner = owner, .group = group});
}

static void expect_no_match(struct world *w, const struct naive_group *g)
{
	if (naive_has_match(&w->naive, g))
		differ(w, "a match in group %d/%u is not seen", g->owner, g->group);
}

/* The loop hands what matches, and sends it. */
bool match(struct world *w)
{
	struct park_match m;
	struct naive_group g;
	unsigned slot;
	int who;

	if (!parks_next_match(w->ps, &m)) {
		each_group(w, expect_no_match);
		return false;
	}
	slot = m.park->token[0] - 1u;
	who = m.worker->handle->id[3] - 1;
	g = naive_group_of(w->naive.parks[slot].owner, w->naive.parks[slot].group,
			   w->naive.parks[slot].shared);
	say(w, "%u goes to process %d by its group", slot, who);
	if (!naive_is_match(&w->naive, &g, slot, who))
		differ(w, "park %u and process %d do not belong together", slot, who);
	parks_hand_match(w->ps, &m, w->now);
	naive_hand_match(&w->naive, &g, slot, who);
	if (!take(w))
		return false;
	if (w->processes[who].alive && w->processes[who].connected)
		w->things[slot].flying |= bit(who);
	return !dies(w);
}

void do_match(struct world *w)
{
	for (uint64_t n = draw(w, 20); n > 0 && match(w); n--)
		;
}

/* ---- Comparing ---- */

static void compare_group(struct world *w, const struct naive_group *g)
{
	struct naive_numbers n = naive_count_group(&w->naive, g);
	struct park_group_name name = real_name(w, g);
	const struct park_group *real = parks_find_group(w->ps, &name);

	expect(w, "group exists", n.all > 0, real != NULL);
	if (!real)
		return;
	expect(w, "parks of a group", n.parks, real->n_parks);
	expect(w, "ready parks of a group", n.ready, real->n_ready);
	expect(w, "handed parks of a group", n.handed, real->n_handed);
	expect(w, "workers of a group", n.workers, real->n_workers);
	expect(w, "credit of a group", n.credit, real->credit);
	expect(w, "capacity of a group", n.capacity, real->capacity);
	expect(w, "oldest of a group", (uint64_t)n.oldest, (uint64_t)park_group_oldest(real));
}

void compare_groups(struct world *w)
{
	each_group(w, compare_group);
}
