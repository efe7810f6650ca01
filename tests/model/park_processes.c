/* SPDX-License-Identifier: MIT */

/* Processes: what they read, how they come, connect, go and die. */

#include "park_world.h"

/* So many live at once; so many are never born but in the end. */
enum { LIVING = 7, SPARE = 2 * NAIVE_OWNERS };

/* ---- What a process reads ---- */

void process_read(struct world *w, unsigned slot, int who)
{
	struct thing *t = &w->things[slot];

	if (t->answer_flying && t->parker == who) {
		t->answer_flying = false;
		t->wish = WISH_CLAIM;
	}
	t->has |= t->flying & bit(who);
	t->flying &= ~bit(who);
	if (!(t->good & bit(who)))
		return;
	t->good &= ~bit(who);
	t->has &= ~bit(who);
	w->taken++;
	if (++t->takers > 1)
		differ(w, "the fd of park %u has two owners", slot);
	if (t->closed)
		differ(w, "the fd of park %u is used, and was closed before", slot);
}

void process_read_all(struct world *w, int who)
{
	for (unsigned slot = 0; slot < NAIVE_PARKS; slot++)
		process_read(w, slot, who);
}

/* All that it had not used is closed with it, or by it. */
static void forget_all(struct world *w, int who)
{
	for (unsigned slot = 0; slot < NAIVE_PARKS; slot++) {
		struct thing *t = &w->things[slot];

		t->flying &= ~bit(who);
		t->has &= ~bit(who);
		t->good &= ~bit(who);
		if (t->parker != who)
			continue;
		t->answer_due = t->answer_flying = false;
		t->wish = WISH_NOTHING;
	}
}

void do_read(struct world *w)
{
	int who = draw_living(w, chance(w, 90));

	if (who != NOBODY)
		process_read(w, draw_slot(w), who);
}

/* ---- Connections and processes ---- */

static bool state_all(struct world *w, int who)
{
	for (unsigned slot = 0; slot < NAIVE_PARKS; slot++) {
		const struct naive_park *n = &w->naive.parks[slot];

		if (w->things[slot].has & bit(who)) {
			if (!send_word(w, slot, who, true, false))
				return false;
		} else if (n->exists && n->worker == who && chance(w, 30)) {
			if (!send_word(w, slot, who, false, false))
				return false;
		}
	}
	return true;
}

void process_attach(struct world *w, int who, bool attached)
{
	naive_end_workers(&w->naive, who);
	w->naive.handles[who].attached = attached;
	w->naive.handles[who].connections += attached;
	parks_attach(w->ps, w->handles[who], attached);
}

void process_connect(struct world *w, int who)
{
	struct naive_handle *h = &w->naive.handles[who];
	uint8_t id[PARK_TOKEN_SIZE] = {0};
	int r;

	say(w, "process %d connects", who);
	process_read_all(w, who);
	id[3] = (uint8_t)(who + 1);
	r = parks_get_handle(w->ps, w->owners[h->owner], id, &w->handles[who]);
	expect_result(w, !h->known, r);
	h->known = true;
	process_attach(w, who, true);
	w->processes[who].connected = true;
	if (!state_all(w, who))
		return;
	if (chance(w, 20))
		do_hand(w);
	if (!w->processes[who].connected)
		return;
	say(w, "process %d has no other", who);
	parks_state_no_other(w->ps, w->handles[who], w->now);
	naive_state_no_other(&w->naive, who);
	if (!take(w))
		return;
	for (unsigned slot = 0; slot < NAIVE_PARKS && w->processes[who].connected; slot++) {
		const struct thing *t = &w->things[slot];

		if (!t->used || t->parker != who || t->ended)
			continue;
		if (t->wish == WISH_CLAIM)
			send_claim(w, slot, who);
		else if (t->wish == WISH_ANSWER)
			send_park(w, slot);
	}
}

void do_connect(struct world *w)
{
	int who = draw_living(w, false);

	if (who != NOBODY)
		process_connect(w, who);
}

void process_birth(struct world *w, unsigned owner, int last)
{
	for (int i = 0; i < last; i++) {
		if (w->processes[i].born)
			continue;
		say(w, "process %d is born", i);
		w->processes[i] = (struct process){.born = true, .alive = true};
		w->naive.handles[i].owner = owner;
		return;
	}
}

void do_birth(struct world *w)
{
	unsigned living = 0;

	for (unsigned i = 0; i < NAIVE_PROCESSES; i++)
		living += w->processes[i].alive;
	if (living < LIVING)
		process_birth(w, (unsigned)draw(w, NAIVE_OWNERS), NAIVE_PROCESSES - SPARE);
}

void do_end_connection(struct world *w)
{
	int who = draw_living(w, true);

	if (who == NOBODY || !chance(w, 25))
		return;
	w->processes[who].connected = false;
	if (chance(w, 50)) {
		say(w, "the daemon ends the connection of process %d", who);
		for (unsigned slot = 0; slot < NAIVE_PARKS; slot++)
			w->things[slot].answer_due &= w->things[slot].parker != who;
		process_attach(w, who, false);
		return;
	}
	say(w, "process %d ends its connection", who);
	forget_all(w, who);
	parks_disconnected(w->ps, w->handles[who], w->now);
	naive_disconnected(&w->naive, who);
	process_attach(w, who, false);
	take(w);
}

void process_kill(struct world *w, int who)
{
	say(w, "process %d dies", who);
	w->processes[who].alive = w->processes[who].connected = false;
	forget_all(w, who);
	for (unsigned slot = 0; slot < NAIVE_PARKS; slot++)
		w->things[slot].settled |= w->things[slot].parker == who;
}

void do_kill(struct world *w)
{
	int who = draw_living(w, chance(w, 70));

	if (who != NOBODY && chance(w, 10))
		process_kill(w, who);
}

void process_notice(struct world *w, int who)
{
	struct process *process = &w->processes[who];

	if (!process->born || process->alive || process->noticed || !w->handles[who])
		return;
	say(w, "the death of process %d is noticed", who);
	process->noticed = true;
	if (w->naive.handles[who].attached)
		process_attach(w, who, false);
	if (chance(w, 50)) {
		parks_disconnected(w->ps, w->handles[who], w->now);
		naive_disconnected(&w->naive, who);
		if (!take(w))
			return;
	}
	parks_died(w->ps, w->handles[who], w->now);
	naive_died(&w->naive, who);
	take(w);
}

void do_notice(struct world *w)
{
	process_notice(w, (int)draw(w, NAIVE_PROCESSES));
}

void do_idle(struct world *w)
{
	struct park_handle *h;

	say(w, "idle handles are freed");
	while ((h = parks_next_idle(w->ps))) {
		int who = h->id[3] - 1;

		if (naive_references(&w->naive, who) || w->naive.handles[who].attached)
			differ(w, "handle %d is not idle", who);
		w->handles[who] = NULL;
		w->naive.handles[who].known = false;
		parks_end_handle(w->ps, h);
	}
}
