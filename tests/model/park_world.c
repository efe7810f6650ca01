/* SPDX-License-Identifier: MIT */

/* The loop's life, its records, and what must be true of every one of them. */

#include "park_world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Drawing and telling ---- */

uint64_t draw(struct world *w, uint64_t below)
{
	uint64_t z = (w->state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % below;
}

bool chance(struct world *w, unsigned percent)
{
	return draw(w, 100) < percent;
}

void say(struct world *w, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(w->text, sizeof(w->text), format, arguments);
	va_end(arguments);
	if (w->step >= w->trace)
		printf("%" PRIu64 " now %" PRId64 " %s\n", w->step, w->now, w->text);
}

void print_where(const struct world *w)
{
	fprintf(stderr,
		"model: seed %" PRIu64 ", step %" PRIu64 " (this world began at %" PRIu64 "): %s\n"
		"replay: park_model --seed %" PRIu64 " --steps %" PRIu64 " --trace %" PRIu64 "\n",
		w->seed, w->step, w->round, w->text, w->seed, w->step + 1, w->round);
}

void differ(const struct world *w, const char *format, ...)
{
	va_list arguments;

	fflush(stdout);
	va_start(arguments, format);
	fputs("model: difference: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	print_where(w);
	exit(1);
}

void expect(const struct world *w, const char *what, uint64_t want, uint64_t got)
{
	if (want != got)
		differ(w, "%s: expected %" PRId64 ", got %" PRId64, what, (int64_t)want,
		       (int64_t)got);
}

/* ---- The loop's life ---- */

static void put_id(uint8_t id[PARK_TOKEN_SIZE], int process)
{
	memset(id, 0, PARK_TOKEN_SIZE);
	if (process != NOBODY)
		id[3] = (uint8_t)(process + 1);
}

/* The process of a handle. */
static int process_of(const struct park_handle *h)
{
	return h ? h->id[3] - 1 : NOBODY;
}

static void compare_park(struct world *w, unsigned slot, const struct park *p)
{
	const struct naive_park *n = &w->naive.parks[slot];
	struct thing *t = &w->things[slot];

	expect(w, "park's state",
	       n->gone     ? PARK_GONE
	       : n->handed ? PARK_HANDED
			   : PARK_HELD,
	       p->state);
	expect(w, "park's end", n->gone ? n->end : 0, p->end);
	expect(w, "park's number", n->number, p->number);
	expect(w, "park answered", n->answered, p->answered);
	expect(w, "park timed out", n->timed_out, p->timed_out);
	expect(w, "park's deadline", (uint64_t)n->deadline, (uint64_t)p->deadline);
	expect(w, "park ready", n->ready, p->ready);
	expect(w, "park's maker", (uint64_t)n->maker, (uint64_t)process_of(p->maker));
	expect(w, "park's worker", (uint64_t)n->worker, (uint64_t)process_of(p->worker));
	expect(w, "park on the list of changes", n->changed != 0, p->changed);
	expect(w, "park's note", n->note, p->text.note_length);
	expect(w, "park is shared", n->shared, p->shared);
	if ((n->version != t->version) != (p->serial > t->serial) || p->serial < t->serial)
		differ(w, "park %u: serial was %" PRIu64 ", is %" PRIu64, slot, t->serial,
		       p->serial);
	t->version = n->version;
	t->serial = p->serial;
}

static void restore(struct world *w, unsigned slot)
{
	const struct naive_park *recorded = &w->recorded[slot];
	struct park_owner *o = w->owners[recorded->owner];
	int maker = recorded->maker, worker = recorded->worker, r;

	naive_restore(&w->naive, slot, recorded);
	w->records[slot].now = w->now;
	w->records[slot].worker_owner =
		worker == NOBODY ? NULL : w->owners[w->naive.handles[worker].owner];
	r = parks_restore(w->ps, o, &w->records[slot], &w->parks[slot]);
	expect(w, "result of parks_restore", 0, (uint64_t)r);
	w->things[slot].version = recorded->version;
	w->things[slot].serial = w->records[slot].serial;
	if (maker != NOBODY)
		w->handles[maker] = w->parks[slot]->maker;
	if (worker != NOBODY)
		w->handles[worker] = w->parks[slot]->worker;
	compare_park(w, slot, w->parks[slot]);
}

void begin_loop(struct world *w)
{
	uint64_t first = w->naive.last_number + 1 + draw(w, 3);

	w->naive.last_number = first - 1;
	if (parks_new(first, &(struct hash_key){{first}}, &w->ps) < 0)
		differ(w, "no memory");
	for (unsigned i = 0; i < NAIVE_OWNERS; i++) {
		memset(w->quotas[i].used, 0, sizeof(w->quotas[i].used));
		if (parks_add_owner(w->ps, i, &w->quotas[i], &w->owners[i]) < 0)
			differ(w, "no memory");
	}
	for (unsigned i = 0; i < NAIVE_PARKS; i++) {
		if (w->recorded[i].exists)
			restore(w, i);
	}
}

void end_loop(struct world *w)
{
	w->ps = parks_free(w->ps);
	memset(w->parks, 0, sizeof(w->parks));
	memset(w->handles, 0, sizeof(w->handles));
	memset(w->naive.parks, 0, sizeof(w->naive.parks));
	memset(w->naive.workers, 0, sizeof(w->naive.workers));
	w->naive.taken = w->naive.dropped = w->naive.expired = w->naive.returned = 0;
	for (unsigned i = 0; i < NAIVE_PROCESSES; i++) {
		unsigned owner = w->naive.handles[i].owner;

		w->naive.handles[i] = (struct naive_handle){.owner = owner};
		w->processes[i].connected = w->processes[i].noticed = false;
	}
	for (unsigned i = 0; i < NAIVE_PARKS; i++)
		w->things[i].answer_due = false;
}

bool dies(struct world *w)
{
	if (!w->mortal || !chance(w, 2))
		return false;
	w->deaths++;
	if (w->step >= w->trace)
		printf("%" PRIu64 " the loop dies\n", w->step);
	end_loop(w);
	begin_loop(w);
	return true;
}

/* ---- Records ---- */

static unsigned slot_of(const struct world *w, const struct park *p)
{
	unsigned slot = p->token[0] - 1u;

	if (slot >= NAIVE_PARKS || w->parks[slot] != p)
		differ(w, "a change of an unknown park");
	return slot;
}

/* What the loop says in a record must be true in the world. */
static void judge(const struct world *w, unsigned slot, const struct park *p)
{
	const struct thing *t = &w->things[slot];

	if (t->ended)
		differ(w, "park %u came back after its end", slot);
	if (!t->settled && (p->answered || p->state != PARK_HELD || p->timed_out))
		differ(w, "park %u went on before it was answered", slot);
}

static void write_record(struct world *w, unsigned slot, const struct park *p)
{
	struct park_restore *r = &w->records[slot];
	const struct park_text *t = &p->text;

	*r = (struct park_restore){
		.new = {.cookie = p->cookie,
			.deadline = p->deadline,
			.flags = p->flags,
			.told_fd = p->told_fd,
			.interest = p->interest,
			.kind = p->kind,
			.shared = p->shared,
			.text = *t},
		.number = p->number,
		.serial = p->serial,
		.parked = p->parked,
		.handed = p->state == PARK_HANDED,
		.answered = p->answered,
		.timed_out = p->timed_out,
	};
	memcpy(r->new.token, p->token, sizeof(p->token));
	put_id(r->maker, process_of(p->maker));
	put_id(r->worker, process_of(p->worker));
	memcpy(w->texts[slot], t->bytes, (size_t)t->name_length + t->group_length + t->note_length);
	r->new.text.bytes = w->texts[slot];
}

static void record(struct world *w, struct park *p)
{
	unsigned slot = slot_of(w, p);
	struct naive_park *n = &w->naive.parks[slot];

	for (unsigned i = 0; i < NAIVE_PARKS; i++) {
		const struct naive_park *other = &w->naive.parks[i];

		if (other->changed && other->changed < n->changed)
			differ(w, "park %u changed before park %u", i, slot);
	}
	expect(w, "changed", true, n->changed != 0);
	n->changed = 0;
	compare_park(w, slot, p);
	judge(w, slot, p);
	if (n->gone) {
		w->recorded[slot] = (struct naive_park){0};
		w->things[slot].ended = true;
		w->things[slot].closed = n->end != PARK_END_TAKEN;
		return;
	}
	w->recorded[slot] = *n;
	write_record(w, slot, p);
}

bool take(struct world *w)
{
	struct park *p;

	if (dies(w))
		return false;
	while ((p = parks_take_changed(w->ps))) {
		record(w, p);
		if (dies(w))
			return false;
	}
	return true;
}

void bury(struct world *w)
{
	for (unsigned i = 0; i < NAIVE_PARKS; i++) {
		struct park *p = w->parks[i];

		if (!p || p->state != PARK_GONE || p->changed)
			continue;
		parks_end(w->ps, p);
		w->parks[i] = NULL;
		w->naive.parks[i] = (struct naive_park){0};
	}
}

/* ---- Comparing ---- */

static void compare_numbers(const struct world *w)
{
	const struct parks_stats *st = parks_stats(w->ps);
	uint64_t parks = 0, handed = 0, ready = 0;

	for (unsigned i = 0; i < NAIVE_PARKS; i++) {
		parks += w->naive.parks[i].exists;
		handed += w->naive.parks[i].handed;
		ready += naive_is_ready(&w->naive.parks[i]);
	}
	expect(w, "parks", parks, st->parks);
	expect(w, "handed", handed, st->handed);
	expect(w, "ready", ready, st->ready);
	expect(w, "taken", w->naive.taken, st->taken);
	expect(w, "dropped", w->naive.dropped, st->dropped);
	expect(w, "expired", w->naive.expired, st->expired);
	expect(w, "returned", w->naive.returned, st->returned);
}

static void compare_owners(const struct world *w)
{
	static const enum quota_kind kinds[] = {QUOTA_PARKS, QUOTA_NOTE_BYTES, QUOTA_FDS_UNREAD};

	for (unsigned i = 0; i < NAIVE_OWNERS; i++) {
		for (unsigned k = 0; k < 3; k++)
			expect(w, "quota used", naive_used(&w->naive, i, kinds[k]),
			       w->quotas[i].used[kinds[k]]);
	}
}

static void compare_handles(const struct world *w)
{
	for (int i = 0; i < NAIVE_PROCESSES; i++) {
		const struct park_handle *h = w->handles[i];

		if (!h)
			continue;
		expect(w, "references", naive_references(&w->naive, i), h->references);
		expect(w, "attached", w->naive.handles[i].attached, h->attached);
	}
}

/* Each park is found by what names it, and by its owner alone; one that is gone by nothing. */
static void compare_finding(const struct world *w, unsigned slot)
{
	const struct naive_park *n = &w->naive.parks[slot];
	struct park *p = w->parks[slot], *want = n->gone ? NULL : p;
	const struct park_owner *o = w->owners[n->owner], *other = w->owners[!n->owner];

	if (parks_find_token(w->ps, o, p->token) != want ||
	    parks_find_number(w->ps, o, p->number) != want)
		differ(w, "finding park %u", slot);
	if (parks_find_token(w->ps, other, p->token) || parks_find_number(w->ps, other, p->number))
		differ(w, "another owner finds park %u", slot);
	if (n->name && !n->gone &&
	    parks_find_name(w->ps, o, p->text.bytes, p->text.name_length,
			    p->text.bytes + p->text.name_length, p->text.group_length) != p)
		differ(w, "finding park %u by its name", slot);
}

/* What was answered exists until its end, and not longer. */
static void compare_thing(const struct world *w, unsigned slot)
{
	const struct thing *t = &w->things[slot];
	const struct park *p = w->parks[slot];

	if (t->used && t->wish == WISH_CLAIM && !t->ended && !p)
		differ(w, "park %u was answered, and is lost", slot);
	if (t->ended && p && p->state != PARK_GONE)
		differ(w, "park %u came back after its end", slot);
}

void compare(struct world *w, bool all)
{
	int64_t earliest = INT64_MAX;

	compare_numbers(w);
	compare_owners(w);
	for (unsigned i = 0; i < NAIVE_PARKS; i++) {
		const struct naive_park *n = &w->naive.parks[i];

		compare_thing(w, i);
		expect(w, "park exists", n->exists, w->parks[i] != NULL);
		if (!n->exists)
			continue;
		compare_park(w, i, w->parks[i]);
		if (n->deadline && !n->gone && !n->handed && n->answered && n->deadline < earliest)
			earliest = n->deadline;
		if (all)
			compare_finding(w, i);
	}
	if (parks_next_expiry(w->ps) > earliest)
		differ(w, "the next expiry is late");
	if (!all)
		return;
	compare_handles(w);
	compare_groups(w);
	parks_check(w->ps);
}
