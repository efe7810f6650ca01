/* SPDX-License-Identifier: MIT */

/* What processes ask of the loop, and what the loop sends them. */

#include "park_world.h"

#include <string.h>

/* ---- Whom and what ---- */

int draw_attached(struct world *w)
{
	for (unsigned i = 0; i < 200; i++) {
		int who = (int)draw(w, NAIVE_PROCESSES);

		if (w->naive.handles[who].attached)
			return who;
	}
	return NOBODY;
}

int draw_living(struct world *w, bool connected)
{
	for (unsigned i = 0; i < 200; i++) {
		int who = (int)draw(w, NAIVE_PROCESSES);

		if (w->processes[who].alive && w->processes[who].connected == connected)
			return who;
	}
	return NOBODY;
}

unsigned draw_slot(struct world *w)
{
	unsigned slot = (unsigned)draw(w, NAIVE_PARKS);

	for (unsigned i = 0; i < 4 && !w->parks[slot]; i++)
		slot = (unsigned)draw(w, NAIVE_PARKS);
	return slot;
}

/* ---- PARK, CLAIM ---- */

static void token_of(const struct world *w, unsigned slot, uint8_t token[PARK_TOKEN_SIZE])
{
	memset(token, 0, PARK_TOKEN_SIZE);
	token[0] = (uint8_t)(slot + 1);
	memcpy(token + 4, &w->things[slot].generation, sizeof(w->things[slot].generation));
}

void expect_result(const struct world *w, int want, int got)
{
	expect(w, "result", (uint64_t)want, (uint64_t)got);
}

void send_park(struct world *w, unsigned slot)
{
	struct thing *t = &w->things[slot];
	const struct naive_park *plan = &t->plan;
	char bytes[16 + 64] = "name-0g0";
	struct park_new new = {
		.cookie = slot,
		.deadline = plan->deadline,
		.flags = plan->flags,
		.told_fd = -1,
		.interest = plan->interest,
		.text = {.note_length = plan->note, .bytes = (const uint8_t *)bytes},
	};
	struct park *p = NULL;
	int r;

	bytes[5] = (char)('0' + plan->name);
	bytes[7] = (char)('0' + plan->group);
	new.shared = plan->shared;
	new.text.group_length = plan->group ? 2 : 0;
	if (plan->name)
		new.text.name_length = 6;
	else
		new.text.bytes += 6;
	token_of(w, slot, new.token);
	say(w, "process %d parks %u", t->parker, slot);
	r = parks_park(w->ps, w->handles[t->parker], &new, w->now, &p);
	expect_result(w, naive_park(&w->naive, t->parker, slot, plan), r);
	if (r < 0) {
		t->wish = WISH_NOTHING;
		return;
	}
	if (r == 0) {
		w->parked++;
		w->parks[slot] = p;
		t->version = w->naive.parks[slot].version;
		t->serial = p->serial;
	}
	if (p != w->parks[slot])
		differ(w, "another park answers");
	t->answer_due = take(w);
}

void do_park(struct world *w)
{
	int who = draw_living(w, true);
	unsigned slot = (unsigned)draw(w, NAIVE_PARKS);
	struct thing *t = &w->things[slot];

	bury(w);
	if (who == NOBODY || w->parks[slot])
		return;
	if (t->used && (t->wish == WISH_ANSWER || t->flying || t->has || t->good))
		return;
	*t = (struct thing){.used = true, .parker = who, .generation = t->generation + 1};
	t->plan = (struct naive_park){
		.interest = (uint8_t)(1 + draw(w, 3)),
		.flags = (chance(w, 20) ? PARK_HOLD_ONLY : 0u) |
			 (chance(w, 50) ? PARK_DEADLINE_HAND : 0u),
		.name = chance(w, 40) ? (unsigned)draw(w, NAIVE_NAMES) : 0,
		.group = (unsigned)draw(w, NAIVE_GROUPS),
		.note = (uint16_t)draw(w, 60),
		.deadline = chance(w, 40) ? w->now + (int64_t)draw(w, 600) - 50 : 0,
	};
	t->plan.shared = t->plan.group && chance(w, 50);
	send_park(w, slot);
}

void send_answer(struct world *w, unsigned slot)
{
	struct thing *t = &w->things[slot];
	int who = t->parker;

	t->answer_due = false;
	say(w, "the answer to the PARK of %u", slot);
	t->answer_flying = w->processes[who].alive;
	t->settled = true;
	if (dies(w))
		return;
	parks_answered(w->ps, w->parks[slot]);
	naive_answered(&w->naive, slot);
	take(w);
}

void do_answer(struct world *w)
{
	unsigned slot = draw_slot(w);

	if (w->things[slot].answer_due)
		send_answer(w, slot);
}

void send_claim(struct world *w, unsigned slot, int who)
{
	struct thing *t = &w->things[slot];
	uint8_t token[PARK_TOKEN_SIZE];
	struct park *p = NULL;
	int r;

	say(w, "process %d claims %u", who, slot);
	token_of(w, slot, token);
	r = parks_claim(w->ps, w->handles[who], token, &p);
	expect_result(w, naive_claim(&w->naive, who, slot), r);
	if (r == 0)
		t->settled = true;
	else if (!t->ended && t->wish == WISH_CLAIM && t->parker == who)
		differ(w, "park %u was answered, and is lost", slot);
	take(w);
}

/* Also of what it has not parked; but while a PARK is repeated, nobody else knows of it. */
void do_claim(struct world *w)
{
	int who = draw_living(w, true);
	unsigned slot = draw_slot(w);
	const struct thing *t = &w->things[slot];

	if (who != NOBODY && t->used && t->wish != WISH_ANSWER)
		send_claim(w, slot, who);
}

/* ---- TAKE, DROP, ACKNOWLEDGE, HELD ---- */

void hand(struct world *w, unsigned slot, int who)
{
	struct process *process = &w->processes[who];
	int r;

	say(w, "%u is handed to process %d", slot, who);
	r = parks_hand(w->ps, w->parks[slot], w->handles[who], w->now);
	expect_result(w, naive_hand(&w->naive, slot, who), r);
	if (r < 0 || !take(w))
		return;
	if (chance(w, 10)) {
		say(w, "%u cannot be sent", slot);
		parks_take_back(w->ps, w->parks[slot], w->now);
		naive_take_back(&w->naive, slot);
		take(w);
		return;
	}
	if (process->alive && process->connected)
		w->things[slot].flying |= bit(who);
	(void)dies(w);
}

void do_hand(struct world *w)
{
	unsigned slot = draw_slot(w);
	int who = draw_attached(w);

	if (w->parks[slot] && who != NOBODY)
		hand(w, slot, who);
}

void do_drop(struct world *w)
{
	unsigned slot = draw_slot(w);

	if (!w->parks[slot] || !chance(w, 15))
		return;
	if (chance(w, 70)) {
		say(w, "%u is dropped", slot);
		expect_result(w, naive_drop(&w->naive, slot, PARK_END_DROPPED),
			      parks_drop(w->ps, w->parks[slot]));
	} else {
		say(w, "%u is too old", slot);
		expect_result(w, naive_drop(&w->naive, slot, PARK_END_EXPIRED),
			      parks_end_age(w->ps, w->parks[slot]));
	}
	take(w);
}

bool send_word(struct world *w, unsigned slot, int who, bool held, bool first)
{
	uint8_t token[PARK_TOKEN_SIZE];
	int r;

	say(w, "process %d says of %u: %d", who, slot, held);
	token_of(w, slot, token);
	if (first)
		r = parks_acknowledge(w->ps, w->handles[who], token);
	else
		r = parks_state_held(w->ps, w->handles[who], token, held, w->now);
	expect_result(w, naive_state_held(&w->naive, who, slot, held), r);
	if (held && r < 0)
		differ(w, "process %d has the fd of park %u, and cannot have it", who, slot);
	if (!take(w))
		return false;
	if (held)
		w->things[slot].good |= bit(who);
	return !dies(w);
}

void do_acknowledge(struct world *w)
{
	int who = draw_living(w, true);

	for (unsigned slot = 0; slot < NAIVE_PARKS && who != NOBODY; slot++) {
		const struct thing *t = &w->things[slot];

		if (t->has & ~t->good & bit(who)) {
			send_word(w, slot, who, true, true);
			return;
		}
	}
}
