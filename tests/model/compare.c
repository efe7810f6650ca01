/* SPDX-License-Identifier: MIT */

/*
 * What can be seen of a core against what the naive one says: numbers, charges, the next expiry,
 * the order of sessions, entries, rows. Dear ones not after each step, unless the run is paranoid.
 */

#include "run.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Telling ---- */

void print_where(const struct run *r)
{
	fprintf(stderr,
		"model: seed %" PRIu64 ", step %" PRIu64 " (this core began at %" PRIu64 "): %s\n"
		"replay: model --seed %" PRIu64 " --steps %" PRIu64 " --paranoid --trace %" PRIu64
		"\n",
		r->seed, r->step, r->round, r->text, r->seed, r->step + 1, r->round);
}

void differ(const struct run *r, const char *format, ...)
{
	va_list arguments;

	fflush(stdout);
	va_start(arguments, format);
	fputs("model: difference: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	print_where(r);
	exit(1);
}

void say(struct run *r, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(r->text, sizeof(r->text), format, arguments);
	va_end(arguments);
	if (r->step >= r->trace)
		printf("%" PRIu64 " now+%" PRId64 " %s\n", r->step, r->now - 1000 * SECOND,
		       r->text);
}

void expect(const struct run *r, const char *what, uint64_t want, uint64_t got)
{
	if (want != got)
		differ(r, "%s: expected %" PRId64 ", got %" PRId64, what, (int64_t)want,
		       (int64_t)got);
}

static void expect_range(const struct run *r, const char *what, struct naive_range want,
			 uint64_t got)
{
	if (got < want.low || got > want.high)
		differ(r, "%s: expected %" PRIu64 " to %" PRIu64 ", got %" PRIu64, what, want.low,
		       want.high, got);
}

/* True if the call succeeded, as both say. */
bool expect_result(const struct run *r, const struct naive_allowed *a, int got)
{
	char wanted[128] = "";
	size_t used = 0;

	if (a->n == 0) {
		expect(r, "result", (uint64_t)a->result, (uint64_t)got);
		return true;
	}
	for (unsigned i = 0; i < a->n; i++) {
		if (a->refusal[i] == got)
			return false;
		used += (size_t)snprintf(wanted + used, sizeof(wanted) - used, " %s",
					 strerrorname_np(-a->refusal[i]));
	}
	differ(r, "result: expected%s, got %d", wanted, got);
}

/* ---- Comparing ---- */

void compare_entry(const struct run *r, const struct core_entry *want, const struct core_entry *got)
{
	expect(r, "entry kind", want->kind, got->kind);
	if (want->kind == CORE_ENTRY_BREAK)
		return;
	expect(r, "entry id", want->id, got->id);
	expect(r, "entry gen", want->gen, got->gen);
	expect(r, "entry cookie", want->cookie, got->cookie);
	if (want->kind == CORE_ENTRY_TIMER) {
		expect(r, "entry count", want->count, got->count);
		return;
	}
	expect(r, "entry mode", want->mode, got->mode);
	expect(r, "entry read", want->read, got->read);
	expect(r, "entry write", want->write, got->write);
	expect(r, "entry read stamp", want->read_stamp, got->read_stamp);
	expect(r, "entry write stamp", want->write_stamp, got->write_stamp);
}

unsigned compare_peek(const struct run *r, unsigned s, unsigned max)
{
	struct core_entry want[ENTRIES], got[ENTRIES];
	unsigned n = naive_peek(&r->naive, s, want, max);

	expect(r, "entries peeked", n, session_peek(r->sessions[s], got, max));
	for (unsigned i = 0; i < n; i++)
		compare_entry(r, &want[i], &got[i]);
	return n;
}

static void compare_session(const struct run *r, unsigned s)
{
	const struct session_stats *st = session_stats(r->sessions[s]);
	const struct naive_session *ns = &r->naive.sessions[s];
	struct naive_numbers want = naive_numbers(&r->naive, s);

	expect(r, "session number", r->numbers[s], session_number(r->sessions[s]));
	if (session_owner(r->sessions[s]) != &r->numbers[s])
		differ(r, "session owner changed");
	expect(r, "session watches", want.watches, st->watches);
	expect(r, "session timers", want.timers, st->timers);
	expect(r, "session waiting", want.waiting, st->waiting);
	expect(r, "session ready", want.ready, st->ready);
	expect(r, "session events", ns->counters.events, st->events);
	expect(r, "session entries", ns->counters.entries, st->entries);
	expect(r, "session messages", ns->messages, st->messages);
	expect_range(r, "session coalesced", ns->counters.coalesced, st->coalesced);
	compare_peek(r, s, ENTRIES);
}

void compare_quotas(const struct run *r)
{
	for (unsigned q = 0; q < NAIVE_QUOTAS; q++) {
		for (enum quota_kind k = 0; k < QUOTA_MAX; k++) {
			uint64_t want = k == QUOTA_WATCHES  ? naive_used(&r->naive, q, 0)
					: k == QUOTA_TIMERS ? naive_used(&r->naive, q, 1)
							    : 0;

			expect(r, "quota used", want, r->quotas[q].used[k]);
		}
	}
}

static void compare_numbers(const struct run *r)
{
	const struct core_stats *st = core_stats(r->core);
	struct naive_numbers sum = {0};
	uint64_t sessions = 0;

	for (unsigned s = 0; s < NAIVE_SESSIONS; s++) {
		struct naive_numbers one = naive_numbers(&r->naive, s);

		sessions += r->naive.sessions[s].live;
		sum.watches += one.watches;
		sum.timers += one.timers;
		sum.waiting += one.waiting;
		sum.ready += one.ready;
		sum.deadlines += one.deadlines;
	}
	expect(r, "sessions", sessions, st->sessions);
	expect(r, "watches", sum.watches, st->watches);
	expect(r, "timers", sum.timers, st->timers);
	expect(r, "waiting", sum.waiting, st->waiting);
	expect(r, "deadlines", sum.deadlines, st->deadlines);
	expect(r, "ready", sum.ready, st->ready);
	expect(r, "entries", r->naive.counters.entries, st->entries);
	expect(r, "stale", r->naive.stale, st->stale);
	expect_range(r, "events",
		     (struct naive_range){r->naive.counters.events,
					  r->naive.counters.events + r->naive.stale},
		     st->events);
	expect_range(r, "coalesced", r->naive.counters.coalesced, st->coalesced);
	expect_range(r, "breaks", r->naive.breaks, st->breaks);
	if (st->heap_nodes > 2 * (sum.timers + sum.deadlines) + HEAP_SLACK)
		differ(r, "heap has %" PRIu64 " nodes for %" PRIu64 " pending", st->heap_nodes,
		       sum.timers + sum.deadlines);
}

/* May be early, never late, never "never" while something is pending. */
static void compare_next_expiry(const struct run *r)
{
	int64_t earliest = naive_earliest(&r->naive), got = core_next_expiry(r->core);

	if (got > earliest)
		differ(r, "next expiry: expected at most %" PRId64 ", got %" PRId64, earliest, got);
}

static void compare_ready_order(const struct run *r)
{
	struct session *previous = NULL;
	uint64_t order = 0;

	for (;;) {
		int want = naive_next_ready(&r->naive, order);
		struct session *got = core_next_ready(r->core, previous);

		if (got != (want < 0 ? NULL : r->sessions[want]))
			differ(r, "ready sessions: expected session %d next", want);
		if (want < 0)
			return;
		previous = got;
		order = r->naive.sessions[want].order;
	}
}

static void compare_since(const struct run *r, const char *what, int64_t want, int64_t got)
{
	if (got > want || want - got >= SINCE_STEP)
		differ(r, "%s: expected %" PRId64 " to 2^27 ns, got %" PRId64, what, want, got);
}

static void compare_slot(const struct run *r, const struct naive_watch *w, unsigned d,
			 const struct core_slot_info *got)
{
	const struct naive_slot *want = &w->slot[d];

	expect(r, "row code", want->code, got->code);
	expect(r, "row deadline", (uint64_t)want->deadline, (uint64_t)got->deadline);
	/* After EVICT nobody can tell whether an edge is latched: all requests say closing. */
	if (w->mode == CORE_MODE_WAIT &&
	    !(w->closing && naive_state(want) == CORE_SLOT_IDLE && got->state == CORE_SLOT_READY))
		expect(r, "row state", naive_state(want), got->state);
	if (want->waiting)
		compare_since(r, "row waiting since", want->since, got->since);
	else
		expect(r, "row waiting since", 0, (uint64_t)got->since);
}

static void compare_watch(const struct run *r, const struct naive_watch *w,
			  const struct core_item_info *got)
{
	expect(r, "row gen", w->gen, got->gen);
	expect(r, "row cookie", w->cookie, got->cookie);
	expect(r, "row fired", w->fired, got->fired);
	expect(r, "row word", w->word, got->word);
	expect(r, "row fd", (uint64_t)w->fd, (uint64_t)got->fd);
	expect(r, "row kind", w->kind, got->kind);
	expect(r, "row interest", w->interest, got->interest);
	expect(r, "row mode", w->mode, got->mode);
	expect(r, "row closing", w->closing, got->closing);
	if (!w->closing)
		expect(r, "row error", w->error, got->error);
	compare_since(r, "row since", w->since, got->since);
	compare_slot(r, w, 0, &got->read);
	compare_slot(r, w, 1, &got->write);
}

static void compare_timer(const struct run *r, const struct naive_timer *t,
			  const struct core_item_info *got)
{
	expect(r, "row gen", t->gen, got->gen);
	expect(r, "row cookie", t->cookie, got->cookie);
	expect(r, "row when", (uint64_t)t->when, (uint64_t)got->when);
	expect(r, "row period", (uint64_t)t->period, (uint64_t)got->period);
	expect(r, "row count", t->count, got->count);
	expect_range(r, "row fired", (struct naive_range){t->fired, t->fired + t->fired_before},
		     got->fired);
}

static unsigned session_index(const struct run *r, const struct session *session)
{
	for (unsigned s = 0; s < NAIVE_SESSIONS; s++)
		if (r->naive.sessions[s].live && r->sessions[s] == session)
			return s;
	differ(r, "row of an unknown session");
}

/* Each live item has one row: as many rows as items, each with its item, in rising positions. */
static void compare_rows(const struct run *r)
{
	uint64_t cursor = 0, last = 0, rows = 0;
	struct core_item_info info;
	struct naive_numbers all = {0};

	while (core_next_item(r->core, &cursor, &info)) {
		const struct naive_session *ns = &r->naive.sessions[session_index(r, info.session)];
		uint32_t most = info.timer ? NAIVE_TIMERS : NAIVE_WATCHES;

		if (cursor <= last)
			differ(r, "row positions do not rise");
		last = cursor;
		rows++;
		if (info.id == 0 || info.id > most)
			differ(r, "row of unknown id %u", info.id);
		if (info.timer ? !ns->timers[info.id - 1].live : !ns->watches[info.id - 1].live)
			differ(r, "row of id %u, which is not live", info.id);
		if (info.timer)
			compare_timer(r, &ns->timers[info.id - 1], &info);
		else
			compare_watch(r, &ns->watches[info.id - 1], &info);
	}
	for (unsigned s = 0; s < NAIVE_SESSIONS; s++) {
		struct naive_numbers one = naive_numbers(&r->naive, s);

		all.watches += one.watches;
		all.timers += one.timers;
	}
	expect(r, "rows", all.watches + all.timers, rows);
}

void compare(struct run *r)
{
	bool all = r->paranoid || r->step % PEEK_EVERY == 0;

	compare_numbers(r);
	compare_quotas(r);
	compare_next_expiry(r);
	compare_ready_order(r);
	for (unsigned s = 0; s < NAIVE_SESSIONS; s++)
		if (r->naive.sessions[s].live && (all || (r->touched & 1u << s)))
			compare_session(r, s);
	if (r->paranoid || r->step % ROWS_EVERY == 0)
		compare_rows(r);
	if (r->paranoid || r->step % CHECK_EVERY == 0)
		core_check(r->core);
}
