/* SPDX-License-Identifier: MIT */

/*
 * Parks in a world where everything dies. Processes park, take, acknowledge, end their connections
 * and are killed; the loop dies between any two of its steps, and the next one begins with what was
 * recorded: with what had been taken from the list of changes. All is compared with a naive twin, and
 * what the world knows must hold whatever the twin says:
 *
 *  - an fd is used by one process at most, and by none after it was dropped or has expired;
 *  - what is recorded as gone never comes back;
 *  - nothing is handed, dropped or expired before its PARK was truly answered or claimed, or its
 *    parker is dead; nothing that was answered is lost;
 *  - a worker that received an fd can acknowledge it;
 *  - in the end, when nothing dies any more, everything is served;
 *  - what a group has ready goes to the worker that the rules name, and only if one is free.
 *
 *	park_model [--seed N] [--steps N] [--trace FROM]
 *
 * One generator, started from the seed, decides all. Every 3,000 steps a new world begins;
 * `--trace FROM` tells its story.
 */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "park_world.h"

enum { ROUND = 3000, CHECK_EVERY = 32 };

static struct world *aborting;

static void on_abort(int signal_number)
{
	(void)signal_number;
	fflush(stdout);
	print_where(aborting);
	_exit(1);
}

/* ---- Time, readiness, limits ---- */

static void do_time(struct world *w)
{
	w->now += (int64_t)draw(w, 60);
	w->naive.now = w->now;
	say(w, "time passes");
	while (parks_expire(w->ps, w->now, 1 + (unsigned)draw(w, 3)))
		;
	naive_expire(&w->naive, w->now);
	take(w);
}

static void do_ready(struct world *w)
{
	unsigned slot = draw_slot(w), directions = (unsigned)draw(w, 4);

	if (!w->parks[slot])
		return;
	say(w, "%u is ready: %u", slot, directions);
	parks_ready(w->ps, w->parks[slot], directions, w->now);
	naive_ready(&w->naive, slot, directions);
	take(w);
}

static void limit(struct world *w, unsigned owner, enum quota_kind kind, uint64_t value)
{
	w->quotas[owner].limit[kind] = w->naive.limit[owner][kind] = value;
}

static void set_limits(struct world *w, bool wide)
{
	for (unsigned i = 0; i < NAIVE_OWNERS; i++) {
		limit(w, i, QUOTA_PARKS, wide ? 1000 : 3 + draw(w, 12));
		limit(w, i, QUOTA_NOTE_BYTES, wide ? 100000 : 100 + draw(w, 400));
		limit(w, i, QUOTA_FDS_UNREAD, wide ? 1000 : 1 + draw(w, 6));
	}
}

static void do_limits(struct world *w)
{
	if (chance(w, 10))
		set_limits(w, chance(w, 50));
}

static void do_bury(struct world *w)
{
	bury(w);
}

/* ---- A world, from its beginning to its end ---- */

typedef void (*action)(struct world *w);

static const struct {
	unsigned weight;
	action act;
} actions[] = {
	{12, do_park},          {14, do_answer}, {2, do_claim},        {20, do_hand},
	{3, do_drop},           {12, do_read},   {14, do_acknowledge}, {12, do_connect},
	{4, do_end_connection}, {4, do_kill},    {4, do_birth},        {8, do_notice},
	{2, do_idle},           {5, do_time},    {4, do_ready},        {1, do_limits},
	{4, do_bury},           {8, do_offer},   {2, do_withdraw},     {1, do_share},
	{14, do_match},
};

static void act(struct world *w)
{
	unsigned n = sizeof(actions) / sizeof(actions[0]), total = 0, drawn;

	w->naive.now = ++w->now;

	for (unsigned i = 0; i < n; i++)
		total += actions[i].weight;
	drawn = (unsigned)draw(w, total);
	for (unsigned i = 0; i < n; i++) {
		if (drawn < actions[i].weight) {
			actions[i].act(w);
			return;
		}
		drawn -= actions[i].weight;
	}
}

static int living_of(const struct world *w, unsigned owner)
{
	for (int i = 0; i < NAIVE_PROCESSES; i++) {
		if (w->processes[i].alive && w->naive.handles[i].owner == owner)
			return i;
	}
	return NOBODY;
}

/* What a park still needs, while nothing dies. */
static void serve(struct world *w, unsigned slot)
{
	struct thing *t = &w->things[slot];
	const struct naive_park *n = &w->naive.parks[slot];
	int who;

	if (t->answer_due)
		send_answer(w, slot);
	for (int i = 0; i < NAIVE_PROCESSES; i++) {
		if (!w->processes[i].alive)
			continue;
		process_read(w, slot, i);
		if (t->has & ~t->good & bit(i))
			send_word(w, slot, i, true, true);
		process_read(w, slot, i);
	}
	if (!n->exists || n->gone || n->handed)
		return;
	who = living_of(w, n->owner);
	if (n->answered && who != NOBODY)
		hand(w, slot, who);
	else if (!n->answered && t->wish == WISH_NOTHING && w->processes[t->parker].alive)
		process_kill(w, t->parker);
}

static bool all_is_served(struct world *w)
{
	bool served = true;

	for (unsigned slot = 0; slot < NAIVE_PARKS; slot++) {
		const struct thing *t = &w->things[slot];

		served = served && !w->parks[slot] && !t->flying && !t->has && !t->good &&
			 !(t->used && t->wish == WISH_ANSWER);
	}
	return served;
}

static void finish(struct world *w)
{
	w->mortal = false;
	set_limits(w, true);
	for (unsigned turn = 0; !all_is_served(w); turn++) {
		if (turn == 100)
			differ(w, "not everything is served in the end");
		for (unsigned i = 0; i < NAIVE_OWNERS; i++) {
			if (living_of(w, i) == NOBODY)
				process_birth(w, i, NAIVE_PROCESSES);
		}
		for (int i = 0; i < NAIVE_PROCESSES; i++) {
			if (w->processes[i].alive && !w->processes[i].connected)
				process_connect(w, i);
			process_notice(w, i);
		}
		for (unsigned slot = 0; slot < NAIVE_PARKS; slot++)
			serve(w, slot);
		bury(w);
		compare(w, true);
	}
	for (int i = 0; i < NAIVE_PROCESSES; i++) {
		if (w->handles[i])
			process_attach(w, i, false);
	}
	do_idle(w);
	if (parks_next_group(w->ps, NULL))
		differ(w, "a group is left in the end");
	for (unsigned i = 0; i < NAIVE_OWNERS; i++)
		parks_end_owner(w->ps, w->owners[i]);
	w->ps = parks_free(w->ps);
}

static void start(struct world *w)
{
	uint64_t seed = w->seed, state_now = w->state, step = w->step, steps = w->steps;
	uint64_t trace = w->trace, parked = w->parked, taken = w->taken, deaths = w->deaths;

	*w = (struct world){.seed = seed,
			    .state = state_now,
			    .step = step,
			    .steps = steps,
			    .trace = trace,
			    .round = step,
			    .parked = parked,
			    .taken = taken,
			    .deaths = deaths,
			    .now = 1000,
			    .mortal = true};
	w->naive.last_number = 10;
	set_limits(w, true);
	begin_loop(w);
}

static void read_arguments(struct world *w, int argc, char **argv)
{
	const char *seed = getenv("READYD_SEED");

	w->seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	w->steps = 1000000;
	w->trace = UINT64_MAX;
	for (int i = 1; i < argc; i += 2) {
		uint64_t value = i + 1 < argc ? strtoull(argv[i + 1], NULL, 0) : 0;

		if (i + 1 < argc && strcmp(argv[i], "--seed") == 0) {
			w->seed = value;
		} else if (i + 1 < argc && strcmp(argv[i], "--steps") == 0) {
			w->steps = value;
		} else if (i + 1 < argc && strcmp(argv[i], "--trace") == 0) {
			w->trace = value;
		} else {
			fprintf(stderr,
				"usage: park_model [--seed N] [--steps N] [--trace FROM]\n");
			exit(2);
		}
	}
	w->state = w->seed;
}

int main(int argc, char **argv)
{
	static struct world w;

	read_arguments(&w, argc, argv);
	printf("park_model: seed %" PRIu64 ", %" PRIu64 " steps\n", w.seed, w.steps);
	fflush(stdout);
	aborting = &w;
	signal(SIGABRT, on_abort);
	for (; w.step < w.steps; w.step++) {
		if (w.step % ROUND == 0) {
			if (w.ps)
				finish(&w);
			start(&w);
		}
		act(&w);
		compare(&w, w.step % CHECK_EVERY == 0);
	}
	if (w.ps)
		finish(&w);
	printf("park_model: %" PRIu64 " steps, %" PRIu64 " parked, %" PRIu64 " taken, %" PRIu64
	       " deaths of the loop, no difference\n",
	       w.steps, w.parked, w.taken, w.deaths);
	return 0;
}
