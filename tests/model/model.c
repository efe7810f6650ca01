/* SPDX-License-Identifier: MIT */

/*
 * Drives a core and the naive one with the same random calls and compares everything that can be
 * seen: results, entries, numbers, rows, the next expiry, what is charged.
 *
 *	model [--seed N] [--steps N] [--paranoid] [--trace FROM]
 *
 * One generator, started from the seed, decides all; the same seed gives the same calls. Every
 * 20,000 steps both start anew with another kind of core, clock step and number of ids, so that a
 * fault's story is at most that long; `--trace FROM` tells it. Few ids and generations, so that
 * they collide; a coarse clock, so that times do. --paranoid looks at everything after each step.
 */

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "run.h"

/* For the handler of SIGABRT: a broken invariant must still say how to get there. */
static struct run *aborting;

static void on_abort(int signal_number)
{
	(void)signal_number;
	fflush(stdout);
	print_where(aborting);
	_exit(1);
}

/* ---- Drawing ---- */

static uint64_t draw(struct run *r, uint64_t below)
{
	uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % below;
}

static bool chance(struct run *r, unsigned percent)
{
	return draw(r, 100) < percent;
}

static unsigned draw_session(struct run *r)
{
	for (;;) {
		unsigned s = (unsigned)draw(r, NAIVE_SESSIONS);

		if (r->naive.sessions[s].live) {
			r->touched |= 1u << s;
			return s;
		}
	}
}

/* A name to ask for: mostly one that lives, with its generation. */
static void draw_name(struct run *r, unsigned s, uint32_t *ret_id, uint32_t *ret_gen)
{
	uint32_t id = 1 + (uint32_t)draw(r, r->ids);
	const struct naive_watch *w = &r->naive.sessions[s].watches[id - 1];

	for (unsigned i = 0; i < 3 && !w->live; i++) {
		id = 1 + (uint32_t)draw(r, r->ids);
		w = &r->naive.sessions[s].watches[id - 1];
	}
	*ret_id = chance(r, 1) ? NAIVE_WATCHES + 1 : id;
	*ret_gen = w->live && chance(r, 95) ? w->gen : (uint32_t)draw(r, 3);
}

static unsigned draw_directions(struct run *r)
{
	unsigned n = (unsigned)draw(r, 100);

	if (n < 40)
		return CORE_BOTH;
	if (n < 68)
		return CORE_READ;
	return n < 96 ? CORE_WRITE : (unsigned)draw(r, 8);
}

static int64_t draw_time(struct run *r, bool relative)
{
	int64_t near = (int64_t)(draw(r, 140)) - 20;

	switch (draw(r, 24)) {
	case 0:
		return INT64_MAX;
	case 1:
		return INT64_MIN;
	case 2:
		return -1;
	case 3:
	case 4:
	case 5:
	case 6:
		return 0;
	default:
		near *= INT64_C(1) << r->shift;
		return relative ? near : r->now + near;
	}
}

/* ---- Calls: sessions ---- */

static void add_session(struct run *r, unsigned s)
{
	unsigned quota = (unsigned)draw(r, NAIVE_QUOTAS);

	r->numbers[s] = ++r->next_number;
	say(r, "core_add_session: s%u, quota %u", s, quota);
	naive_add_session(&r->naive, s, quota);
	expect(r, "result", 0,
	       (uint64_t)core_add_session(r->core, r->numbers[s], &r->numbers[s], &r->quotas[quota],
					  &r->sessions[s]));
	r->touched |= 1u << s;
}

static void remember_stale(struct run *r, uint64_t tag)
{
	r->stale[r->n_stale++ % STALE_TAGS] = tag;
}

static void end_session(struct run *r, unsigned s)
{
	say(r, "session_end(s%u)", s);
	for (unsigned i = 0; i < NAIVE_WATCHES; i++)
		if (r->naive.sessions[s].watches[i].live)
			remember_stale(r, r->naive.sessions[s].watches[i].tag);
	naive_end_session(&r->naive, s);
	session_end(r->sessions[s]);
}

static void do_sessions(struct run *r)
{
	unsigned s = (unsigned)draw(r, NAIVE_SESSIONS);

	if (!r->naive.sessions[s].live) {
		add_session(r, s);
		return;
	}
	if (!chance(r, 5))
		return;
	end_session(r, s);
	if (s == 0) /* one at least lives */
		add_session(r, s);
}

static void do_limits(struct run *r)
{
	unsigned q = (unsigned)draw(r, NAIVE_QUOTAS);
	uint64_t watches = chance(r, 70) ? 200 : draw(r, 80);
	uint64_t timers = chance(r, 70) ? 100 : draw(r, 12);

	say(r, "limits of quota %u: watches %" PRIu64 ", timers %" PRIu64, q, watches, timers);
	r->naive.limit[q][0] = r->quotas[q].limit[QUOTA_WATCHES] = watches;
	r->naive.limit[q][1] = r->quotas[q].limit[QUOTA_TIMERS] = timers;
}

static void do_commit(struct run *r)
{
	unsigned s = draw_session(r);
	unsigned max = chance(r, 60) ? ENTRIES : (unsigned)draw(r, 6);
	unsigned n = compare_peek(r, s, max);

	if (n && chance(r, 30))
		n = (unsigned)draw(r, n + 1);
	say(r, "session_commit(s%u, %u)", s, n);
	naive_commit(&r->naive, s, n);
	session_commit(r->sessions[s], n);
}

static void do_break(struct run *r)
{
	unsigned s = draw_session(r);

	say(r, "session_break(s%u)", s);
	naive_break(&r->naive, s);
	session_break(r->sessions[s]);
}

static void do_hold(struct run *r)
{
	unsigned s = draw_session(r);
	bool held = !r->naive.sessions[s].held || chance(r, 10);

	say(r, "session_hold(s%u, %d)", s, held);
	naive_hold(&r->naive, s, held);
	session_hold(r->sessions[s], held);
}

/* ---- Calls: watches ---- */

static void send_event(struct run *r, uint64_t tag, const char *whose)
{
	bool error = chance(r, 12);
	unsigned directions = error ? CORE_BOTH : 1 + (unsigned)draw(r, 3), s;

	if (naive_tag(&r->naive, tag, &s))
		r->touched |= 1u << s;
	say(r, "core_event: %s, tag %#" PRIx64 ", directions %u, error %d", whose, tag, directions,
	    error);
	naive_event(&r->naive, tag, directions, error);
	core_event(r->core, tag, directions, error);
}

static void do_event(struct run *r)
{
	unsigned s = draw_session(r), kind = (unsigned)draw(r, 100);
	uint32_t id, gen;

	if (kind < 2) {
		send_event(r, kind ? UINT64_MAX : 0, "no watch");
	} else if (kind < 10 && r->n_stale) {
		send_event(r, r->stale[draw(r, r->n_stale < STALE_TAGS ? r->n_stale : STALE_TAGS)],
			   "stale");
	} else {
		draw_name(r, s, &id, &gen);
		if (id > NAIVE_WATCHES || !r->naive.sessions[s].watches[id - 1].live)
			return;
		char whose[32];

		snprintf(whose, sizeof(whose), "s%u id %u", s, id);
		send_event(r, r->naive.sessions[s].watches[id - 1].tag, whose);
	}
}

static struct core_watch draw_watch(struct run *r)
{
	struct core_watch w = {
		.id = chance(r, 1) ? 0 : 1 + (uint32_t)draw(r, r->ids),
		.gen = (uint32_t)draw(r, 3),
		.cookie = draw(r, UINT64_MAX),
		.interest = chance(r, 60) ? CORE_BOTH : 1 + (uint8_t)draw(r, 2),
		.mode = chance(r, r->naive.level ? 5 : 35) ? CORE_MODE_STREAM : CORE_MODE_WAIT,
		.kind = (uint8_t)draw(r, 16),
		.fd = (int32_t)draw(r, 1000) - 1,
	};

	if (chance(r, 2))
		w.interest = (uint8_t)(draw(r, 4) * 4);
	if (chance(r, 1))
		w.mode = 2 + (uint8_t)draw(r, 254);
	return w;
}

static void check_new_tag(struct run *r, uint64_t tag)
{
	unsigned s;

	if (tag == 0 || naive_tag(&r->naive, tag, &s))
		differ(r, "tag %#" PRIx64 " names something else", tag);
	for (unsigned i = 0; i < r->n_stale && i < STALE_TAGS; i++)
		if (r->stale[i] == tag)
			differ(r, "tag %#" PRIx64 " was used before", tag);
}

static void do_watch(struct run *r)
{
	unsigned s = draw_session(r);
	struct core_watch w = draw_watch(r);
	uint64_t tag = 0;

	say(r, "session_watch(s%u, id %u, gen %u, interest %u, mode %u)", s, w.id, w.gen,
	    w.interest, w.mode);
	struct naive_allowed a = naive_watch(&r->naive, s, &w, r->now);

	if (!expect_result(r, &a, session_watch(r->sessions[s], &w, r->now, &tag))) {
		expect(r, "tag of a refused watch", 0, tag);
		return;
	}
	check_new_tag(r, tag);
	r->naive.sessions[s].watches[w.id - 1].tag = tag;
	if (chance(r, 10))
		send_event(r, tag, "not registered yet");
	if (chance(r, 8)) {
		say(r, "watch_forget(s%u id %u)", s, w.id);
		naive_forget(&r->naive, tag);
		watch_forget(r->core, tag);
		remember_stale(r, tag);
	} else {
		uint32_t word = (uint32_t)draw(r, 256);

		say(r, "watch_registered(s%u id %u, %u)", s, w.id, word);
		naive_registered(&r->naive, tag, word);
		watch_registered(r->core, tag, word);
	}
}

static void do_find(struct run *r)
{
	unsigned s = draw_session(r);
	uint32_t id, gen, word = 0;
	uint64_t tag = 0;

	draw_name(r, s, &id, &gen);
	say(r, "session_find_watch(s%u, id %u, gen %u)", s, id, gen);
	struct naive_allowed a = naive_find(&r->naive, s, id, gen);

	if (!expect_result(r, &a, session_find_watch(r->sessions[s], id, gen, &tag, &word)))
		return;
	expect(r, "tag", r->naive.sessions[s].watches[id - 1].tag, tag);
	expect(r, "word", r->naive.sessions[s].watches[id - 1].word, word);
}

static void do_unwatch(struct run *r)
{
	unsigned s = draw_session(r);
	uint32_t id, gen;
	struct core_entry want, got;

	draw_name(r, s, &id, &gen);
	say(r, "session_unwatch(s%u, id %u, gen %u)", s, id, gen);
	struct naive_allowed a = naive_unwatch(&r->naive, s, id, gen, &want);

	if (!expect_result(r, &a, session_unwatch(r->sessions[s], id, gen, &got)))
		return;
	if (a.result)
		compare_entry(r, &want, &got);
	remember_stale(r, r->naive.sessions[s].watches[id - 1].tag);
}

static void do_wait(struct run *r)
{
	unsigned s = draw_session(r), directions = draw_directions(r), want = 99, got = 99;
	uint32_t id, gen;

	draw_name(r, s, &id, &gen);
	say(r, "session_wait(s%u, id %u, gen %u, directions %u)", s, id, gen, directions);
	struct naive_allowed a = naive_wait(&r->naive, s, id, gen, directions, r->now, &want);

	expect_result(r, &a, session_wait(r->sessions[s], id, gen, directions, r->now, &got));
	expect(r, "arm", want, got);
}

static void do_unwait(struct run *r)
{
	unsigned s = draw_session(r), directions = draw_directions(r);
	uint32_t id, gen;

	draw_name(r, s, &id, &gen);
	say(r, "session_unwait(s%u, id %u, gen %u, directions %u)", s, id, gen, directions);
	struct naive_allowed a = naive_unwait(&r->naive, s, id, gen, directions);

	expect_result(r, &a, session_unwait(r->sessions[s], id, gen, directions));
}

static void do_reset(struct run *r)
{
	unsigned s = draw_session(r), directions = draw_directions(r);
	uint32_t id, gen;

	draw_name(r, s, &id, &gen);
	say(r, "session_reset(s%u, id %u, gen %u, directions %u)", s, id, gen, directions);
	struct naive_allowed a = naive_reset(&r->naive, s, id, gen, directions);

	expect_result(r, &a, session_reset(r->sessions[s], id, gen, directions));
}

static void do_deadline(struct run *r)
{
	unsigned s = draw_session(r), directions = draw_directions(r);
	bool relative = chance(r, 30);
	int64_t when = draw_time(r, relative);
	uint16_t stamp = (uint16_t)draw(r, 1000);
	uint32_t id, gen;

	draw_name(r, s, &id, &gen);
	say(r,
	    "session_set_deadline(s%u, id %u, gen %u, directions %u, when %" PRId64 "%s, stamp %u)",
	    s, id, gen, directions, relative || when <= 0 ? when : when - 1000 * SECOND,
	    relative ? " relative" : "", stamp);
	struct naive_allowed a = naive_set_deadline(&r->naive, s, id, gen, directions, when,
						    relative, stamp, r->now);

	expect_result(r, &a,
		      session_set_deadline(r->sessions[s], id, gen, directions, when, relative,
					   stamp, r->now));
}

static void do_evict(struct run *r)
{
	unsigned s = draw_session(r);
	uint32_t id, gen;

	draw_name(r, s, &id, &gen);
	say(r, "session_evict(s%u, id %u, gen %u)", s, id, gen);
	struct naive_allowed a = naive_evict(&r->naive, s, id, gen);

	expect_result(r, &a, session_evict(r->sessions[s], id, gen));
}

/* ---- Calls: timers and time ---- */

static void do_set_timer(struct run *r)
{
	unsigned s = draw_session(r);
	bool want = false, got = false;
	struct core_timer t = {
		.id = chance(r, 2) ? 0 : 1 + (uint32_t)draw(r, NAIVE_TIMERS),
		.gen = (uint32_t)draw(r, 3),
		.cookie = draw(r, UINT64_MAX),
		.relative = chance(r, 30),
	};

	t.when = draw_time(r, t.relative);
	if (chance(r, 40))
		t.period = (int64_t)(1 + draw(r, 60)) << r->shift;
	if (chance(r, 3))
		t.period = chance(r, 50) ? -1 : INT64_MAX - (int64_t)draw(r, 3);
	say(r, "session_set_timer(s%u, id %u, gen %u, when %" PRId64 "%s, period %" PRId64 ")", s,
	    t.id, t.gen, t.relative || t.when <= 0 ? t.when : t.when - 1000 * SECOND,
	    t.relative ? " relative" : "", t.period);
	struct naive_allowed a = naive_set_timer(&r->naive, s, &t, r->now, &want);

	expect_result(r, &a, session_set_timer(r->sessions[s], &t, r->now, &got));
	expect(r, "was pending", want, got);
}

static void do_stop_timer(struct run *r)
{
	unsigned s = draw_session(r);
	uint32_t id = 1 + (uint32_t)draw(r, NAIVE_TIMERS + 1), gen = (uint32_t)draw(r, 3);

	if (id <= NAIVE_TIMERS && chance(r, 80))
		gen = r->naive.sessions[s].timers[id - 1].gen;
	say(r, "session_stop_timer(s%u, id %u, gen %u)", s, id, gen);
	struct naive_allowed a = naive_stop_timer(&r->naive, s, id, gen);

	expect_result(r, &a, session_stop_timer(r->sessions[s], id, gen));
}

static void do_clock(struct run *r)
{
	r->now += (int64_t)draw(r, chance(r, 90) ? 30 : 300) << r->shift;
	say(r, "the clock moves");
}

static void do_expire(struct run *r)
{
	say(r, "core_expire");
	naive_expire(&r->naive, r->now);
	core_expire(r->core, r->now);
	r->touched = ~0u;
}

/* ---- The run ---- */

static const struct {
	void (*call)(struct run *r);
	unsigned weight;
} calls[] = {
	{do_event, 200}, {do_wait, 150},     {do_deadline, 110}, {do_watch, 90},
	{do_commit, 90}, {do_clock, 80},     {do_expire, 70},    {do_reset, 45},
	{do_unwait, 45}, {do_set_timer, 45}, {do_unwatch, 25},   {do_stop_timer, 15},
	{do_break, 15},  {do_evict, 12},     {do_find, 10},      {do_sessions, 4},
	{do_limits, 2},  {do_hold, 10},
};

static void do_one(struct run *r)
{
	unsigned sum = 0, drawn;

	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		sum += calls[i].weight;
	drawn = (unsigned)draw(r, sum);
	for (unsigned i = 0;; i++) {
		if (drawn < calls[i].weight) {
			if (calls[i].call != do_commit || draw(r, r->lazy) == 0)
				calls[i].call(r);
			return;
		}
		drawn -= calls[i].weight;
	}
}

static void start(struct run *r)
{
	static const uint32_t ids[] = {2, 8, NAIVE_WATCHES};
	static const unsigned shifts[] = {0, 4, 22};
	struct core_options options = {.level = chance(r, 35)};

	r->round = r->step;
	r->ids = ids[draw(r, 3)];
	r->shift = shifts[draw(r, 3)];
	r->lazy = chance(r, 30) ? 8 : 1;
	r->now = 1000 * SECOND;
	r->n_stale = 0;
	naive_init(&r->naive, options.level);
	say(r, "core_new: level %d, ids %u, clock step 2^%u", options.level, r->ids, r->shift);
	expect(r, "result", 0, (uint64_t)core_new(&options, &r->core));
	for (unsigned q = 0; q < NAIVE_QUOTAS; q++) {
		r->quotas[q] = (struct quota){0};
		r->quotas[q].limit[QUOTA_WATCHES] = r->naive.limit[q][0] = 200;
		r->quotas[q].limit[QUOTA_TIMERS] = r->naive.limit[q][1] = 100;
	}
	for (unsigned s = 0; s < NAIVE_SESSIONS; s++)
		add_session(r, s);
}

/* Ends it, some of the sessions one by one, and looks at what must be nothing then. */
static void finish(struct run *r)
{
	bool by_one = chance(r, 50);

	for (unsigned s = 0; s < NAIVE_SESSIONS && by_one; s++)
		if (r->naive.sessions[s].live)
			end_session(r, s);
	if (by_one) {
		compare(r);
		core_check(r->core);
		expect(r, "heap nodes of an empty core", 0, core_stats(r->core)->heap_nodes);
		expect(r, "next expiry of an empty core", (uint64_t)INT64_MAX,
		       (uint64_t)core_next_expiry(r->core));
	}
	say(r, "core_free");
	r->core = core_free(r->core);
	for (unsigned s = 0; s < NAIVE_SESSIONS; s++)
		naive_end_session(&r->naive, s);
	compare_quotas(r);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (*text == '\0' || *end != '\0') {
		fprintf(stderr, "model: %s is not a number\n", text);
		exit(2);
	}
	return n;
}

static void read_arguments(struct run *r, int argc, char **argv)
{
	const char *seed = getenv("READYD_SEED");
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	r->seed = seed ? number(seed) : (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 20;
	r->steps = 1000000;
	r->trace = UINT64_MAX;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--paranoid") == 0)
			r->paranoid = true;
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			r->seed = number(argv[++i]);
		else if (strcmp(argv[i], "--steps") == 0 && i + 1 < argc)
			r->steps = number(argv[++i]);
		else if (strcmp(argv[i], "--trace") == 0 && i + 1 < argc)
			r->trace = number(argv[++i]);
		else {
			fprintf(stderr, "usage: model [--seed N] [--steps N] [--paranoid] "
					"[--trace FROM]\n");
			exit(2);
		}
	}
	r->state = r->seed;
}

int main(int argc, char **argv)
{
	static struct run r;

	read_arguments(&r, argc, argv);
	printf("model: seed %" PRIu64 ", %" PRIu64 " steps\n", r.seed, r.steps);
	fflush(stdout);
	aborting = &r;
	signal(SIGABRT, on_abort);
	for (; r.step < r.steps; r.step++) {
		if (r.step % ROUND == 0) {
			if (r.core)
				finish(&r);
			start(&r);
		}
		r.touched = 0;
		do_one(&r);
		compare(&r);
	}
	if (r.core)
		finish(&r);
	printf("model: %" PRIu64 " steps, no difference\n", r.steps);
	return 0;
}
