/* SPDX-License-Identifier: MIT */

/*
 * Making the session anew: a new connection learns from the table what the old one knew.
 *
 * A sweep goes through the table once: timers first, then watches, then parks that are claimed, up to
 * 253 a message. (Groups are told by group.c.) Two messages
 * at most are unanswered at a time, so that a daemon that a thousand clients come back to serves
 * others in between. When the answer to a WATCH is there, the deadlines and waits of its watches
 * follow, in that order (a wait whose deadline passed meanwhile gets timeout). WATCH reports what
 * is ready now, so no edge is lost; what the program saw before may come once more.
 *
 * Each place knows how far it is (enum rd_made): a call that comes in between sends its request if
 * the daemon knows the watch already, and else only notes it in the table, from where it is told.
 *
 * Not made anew: a watch that was evicted (all that it can say is closing, which the library says
 * itself), one whose fd was closed or whose number means another file by now, and one that is
 * refused for good. These end with closing. What is refused for want of room (quota, resources) is
 * tried again, by another sweep, as long as it takes.
 *
 * Invariants: a place is made or sent only while the link is up or rebuilding; nothing is made or
 * sent after rd_rebuild_forget(); a batch's request is queued exactly if it is asked.
 */

#include "internal.h"

#include <string.h>

#define SWEEP_FIRST_NS INT64_C(10000000)
#define SWEEP_MOST_NS INT64_C(1000000000)

/* ---- Without a daemon ---- */

static void carry_out_stream(struct readyd *r, uint32_t id, unsigned slot, bool passed)
{
	struct rd_watch_cold *cold = rd_watch_cold_at(r, id);
	struct rd_watch *w = rd_watch_at(r, id);
	unsigned told = w->flags & RD_EVICTED ? RD_TOLD_CLOSING << slot : RD_TOLD_TIMEOUT << slot;

#ifdef READYD_MUTANT_RESUME_TELLS_TWICE
	told = 0;
#endif
	if (cold->told & told || (!passed && !(w->flags & RD_EVICTED)))
		return;
	cold->told |= (uint8_t)told;
	rd_slot_complete(r, id, slot,
			 w->flags & RD_EVICTED ? WIRE_CODE_CLOSING : WIRE_CODE_TIMEOUT);
}

void rd_carry_out(struct readyd *r, uint32_t id)
{
	struct rd_watch *w = rd_watch_at(r, id);

	for (unsigned slot = 0; slot < 2; slot++) {
		bool passed = rd_deadline_passed(rd_watch_cold_at(r, id), slot);

		if (!(w->flags & RD_INTEREST & (1u << slot)))
			continue;
		if (w->flags & RD_STREAM)
			carry_out_stream(r, id, slot, passed);
		else if (!(w->waiting & (1u << slot)))
			continue;
		else if (w->flags & RD_EVICTED)
			rd_slot_complete(r, id, slot, WIRE_CODE_CLOSING);
		else if (passed)
			rd_slot_complete(r, id, slot, WIRE_CODE_TIMEOUT);
		else if (w->special & (RD_DUE << slot))
			rd_slot_complete(r, id, slot, WIRE_CODE_READY);
	}
}

void rd_rebuild_forget(struct readyd *r)
{
	struct rd_resume *s = &r->resume;

	for (uint32_t id = 1; id < r->watches.top; id++) {
		struct rd_watch *w = rd_watch_at(r, id);

		if (!(w->flags & RD_LIVE))
			continue;
		w->made &= RD_NEW;
		w->special &= (uint8_t)(RD_REWAIT - 1);
		if (!(w->flags & RD_ENDING) && !w->made)
			rd_carry_out(r, id);
	}
	r->n_rewaits = 0;
	for (uint32_t id = 1; id < r->timers.top; id++)
		rd_timer_at(r, id)->flags &= ~(uint32_t)RD_TIMER_MADE;
	for (uint32_t id = 1; id < r->parks.top; id++)
		rd_park_at(r, id)->flags &= (uint8_t)~RD_PARK_MADE;
	for (unsigned i = 0; i < RD_WINDOW; i++)
		s->batches[i].state = RD_BATCH_FREE;
	s->sweeping = false;
}

/* ---- What is said of a watch after its WATCH ---- */

static void send_deadline(struct readyd *r, uint32_t id, unsigned slots)
{
	const struct rd_watch_cold *cold = rd_watch_cold_at(r, id);
	const struct rd_watch *w = rd_watch_at(r, id);
	unsigned slot = slots & READYD_READ ? 0 : 1;
	struct wire_deadline record = {
		.when = rd_time_to_daemon(r, cold->deadline[slot]),
		.id = id,
		.gen = rd_wire_gen(r, w->gen),
		.directions = (uint16_t)slots,
		.stamp = w->stamp[slot],
	};

	if (slots)
		rd_out_record(r, WIRE_DEADLINE, RD_SERIAL_DEADLINE, &record, sizeof(record));
}

/* Both directions in one record if they were set by one call, so that they pass in one entry. */
static void send_deadlines(struct readyd *r, uint32_t id)
{
	const struct rd_watch_cold *cold = rd_watch_cold_at(r, id);
	const struct rd_watch *w = rd_watch_at(r, id);
	unsigned slots = 0;

	for (unsigned slot = 0; slot < 2; slot++)
		if (cold->deadline[slot] && !(cold->told & (RD_TOLD_TIMEOUT << slot)))
			slots |= 1u << slot;
	if (slots == (READYD_READ | READYD_WRITE) &&
	    (w->stamp[0] != w->stamp[1] || cold->deadline[0] != cold->deadline[1])) {
		send_deadline(r, id, READYD_READ);
		slots = READYD_WRITE;
	}
	send_deadline(r, id, slots);
}

/* The daemon knows the watch; now the rest. false: no room at the moment. */
static bool watch_follow(struct readyd *r, uint32_t id, struct rd_watch *w)
{
	struct wire_slots waits = {.id = id, .gen = rd_wire_gen(r, w->gen)};
	size_t most = 3 * sizeof(struct wire_header) + 2 * sizeof(struct wire_deadline) +
		      sizeof(struct wire_slots);

	if (!(w->flags & (RD_ENDING | RD_EVICTED))) {
		if (!rd_out_has_room(r, most, 0))
			return false;
		send_deadlines(r, id);
#ifndef READYD_MUTANT_RESUME_WITHOUT_WAITS
		waits.directions = w->waiting;
#endif
		if (waits.directions)
			rd_out_record(r, WIRE_WAIT, RD_SERIAL_WAIT, &waits, sizeof(waits));
	}
	w->made = RD_MADE;
	if ((w->flags & (RD_ENDING | RD_EVICTED)) == RD_EVICTED)
		rd_carry_out(r, id);
	return true;
}

/* false: not all could be said yet. */
static bool batch_follow(struct readyd *r, struct rd_batch *b)
{
	for (; b->next < b->n; b->next++) {
		struct rd_watch *w = rd_watch_find(r, b->id[b->next], b->gen[b->next]);

		if (w && w->made & RD_SENT && !watch_follow(r, b->id[b->next], w))
			return false;
	}
	b->state = RD_BATCH_FREE;
	return true;
}

/* ---- Batches ---- */

static void batch_answered(struct readyd *r, struct rd_request *q)
{
	struct rd_batch *b = q->context;

	(void)r;
	b->next = 0;
	b->state = b->type == WIRE_WATCH ? RD_BATCH_ANSWERED : RD_BATCH_FREE;
}

static void timer_refused(struct readyd *r, uint32_t id, uint32_t arming)
{
	struct rd_timer *t = rd_timer_at(r, id);

	if (t->arming == arming)
		t->flags &= ~(uint32_t)RD_TIMER_MADE;
	r->resume.again = true;
}

/* It was taken by another, or dropped, or its deadline ended it. */
static void park_refused(struct readyd *r, uint32_t id, uint32_t gen)
{
	const struct rd_park *p = rd_park_at(r, id);

	if (p->flags & RD_PARK_LIVE && p->gen == gen)
		rd_park_remove(r, id);
}

static void batch_refused(struct readyd *r, struct rd_request *q, const struct wire_failure *f)
{
	struct rd_batch *b = q->context;
	struct rd_watch *w;

	if (f->index >= b->n)
		return;
	if (b->type != WIRE_WATCH) {
		(b->type == WIRE_CLAIM ? park_refused : timer_refused)(r, b->id[f->index],
								       b->gen[f->index]);
		return;
	}
	w = rd_watch_find(r, b->id[f->index], b->gen[f->index]);
	if (!w || !(w->made & RD_SENT))
		return;
	w->made = 0;
	if (w->flags & RD_ENDING)
		return;
	if (!(w->flags & RD_EVICTED) &&
	    (f->error == WIRE_E_NO_RESOURCES || f->error == WIRE_E_QUOTA ||
	     f->error == WIRE_E_TOO_MANY_FDS))
		r->resume.again = true;
	else
		rd_watch_close(r, b->id[f->index]);
}

static struct rd_batch *batch_begin(struct readyd *r)
{
	struct rd_batch *b = r->resume.batches;

	while (b->state != RD_BATCH_FREE)
		if (++b == r->resume.batches + RD_WINDOW)
			return NULL;
	b->n = b->next = 0;
	b->request = (struct rd_request){
		.refused = batch_refused,
		.answered = batch_answered,
		.context = b,
	};
	return b;
}

/* false: there is nothing to send. */
static bool batch_send(struct readyd *r, struct rd_batch *b, uint16_t type, const void *records,
		       const int *fds)
{
	if (!b->n)
		return false;
	rd_out_request(r, &b->request, type, records, b->n, fds, fds ? b->n : 0);
	b->type = type;
	b->state = RD_BATCH_ASKED;
	return true;
}

/* Timers that were not told yet. false: none are left. */
static bool timers_send(struct readyd *r, struct rd_batch *b)
{
	struct wire_timer_set records[WIRE_FDS_MAX];
	size_t most = (r->message_max - sizeof(struct wire_header)) / sizeof(records[0]);
	struct rd_resume *s = &r->resume;

	most = most < WIRE_FDS_MAX ? most : WIRE_FDS_MAX;
	most = most < r->records_max ? most : r->records_max;
	for (; s->timer_next < r->timers.top && b->n < most; s->timer_next++) {
		struct rd_timer *t = rd_timer_at(r, s->timer_next);

		if ((t->flags & (RD_TIMER_LIVE | RD_TIMER_STOPPING | RD_TIMER_MADE)) !=
			    RD_TIMER_LIVE ||
		    (t->period == 0 && t->flags & RD_TIMER_LISTED))
			continue;
		t->flags |= RD_TIMER_MADE;
		t->arming = t->arming + 1 ? t->arming + 1 : 1;
		b->id[b->n] = s->timer_next;
		b->gen[b->n] = t->arming;
		records[b->n++] = (struct wire_timer_set){
			.cookie = t->cookie,
			.when = t->when > 0 ? rd_time_to_daemon(r, t->when) : 0,
			.period = t->period,
			.id = s->timer_next,
			.gen = t->arming,
		};
	}
	return batch_send(r, b, WIRE_TIMER_SET, records, NULL);
}

/* Whether the place is a watch to be told. Ends it if its fd is not what it was. */
static bool watch_is_wanted(struct readyd *r, uint32_t id)
{
	struct rd_watch_cold *cold = rd_watch_cold_at(r, id);
	struct rd_watch *w = rd_watch_at(r, id);

	if ((w->flags & (RD_LIVE | RD_ENDING | RD_EVICTED)) != RD_LIVE || w->made)
		return false;
	if (rd_fd_is_same(cold, cold->fd))
		return true;
	rd_watch_close(r, id);
	return false;
}

/* The same for watches. */
static bool watches_send(struct readyd *r, struct rd_batch *b)
{
	struct wire_watch records[WIRE_FDS_MAX];
	struct rd_resume *s = &r->resume;
	int fds[WIRE_FDS_MAX];

	for (; s->watch_next < r->watches.top && b->n < r->fds_max; s->watch_next++) {
		uint32_t id = s->watch_next;
		struct rd_watch *w = rd_watch_at(r, id);

		if (!watch_is_wanted(r, id))
			continue;
		w->made = RD_SENT;
		b->id[b->n] = id;
		b->gen[b->n] = w->gen;
		fds[b->n] = rd_watch_cold_at(r, id)->fd;
		records[b->n++] = (struct wire_watch){
			.cookie = w->cookie,
			.id = id,
			.gen = rd_wire_gen(r, w->gen),
			.fd = rd_watch_cold_at(r, id)->fd,
			.interest = w->flags & RD_INTEREST,
			.mode = w->flags & RD_STREAM ? WIRE_MODE_STREAM : WIRE_MODE_WAIT,
		};
	}
	return batch_send(r, b, WIRE_WATCH, records, fds);
}

/* The same for parks. */
static bool parks_send(struct readyd *r, struct rd_batch *b)
{
	struct wire_token records[WIRE_FDS_MAX];
	size_t most = (r->message_max - sizeof(struct wire_header)) / sizeof(records[0]);
	struct rd_resume *s = &r->resume;

	most = most < WIRE_FDS_MAX ? most : WIRE_FDS_MAX;
	most = most < r->records_max ? most : r->records_max;
	for (; s->park_next < r->parks.top && b->n < most; s->park_next++) {
		struct rd_park *p = rd_park_at(r, s->park_next);

		if ((p->flags & (RD_PARK_LIVE | RD_PARK_MADE)) != RD_PARK_LIVE || !p->number)
			continue;
		p->flags |= RD_PARK_MADE;
		rd_park_claimed(r, s->park_next);
		b->id[b->n] = s->park_next;
		b->gen[b->n] = p->gen;
		memcpy(records[b->n++].token, p->token, sizeof(p->token));
	}
	return batch_send(r, b, WIRE_CLAIM, records, NULL);
}

/* ---- The sweep ---- */

void rd_rebuild_begin(struct readyd *r)
{
	struct rd_resume *s = &r->resume;

	s->watch_next = s->timer_next = s->park_next = 1;
	s->sweeping = true;
	s->again = false;
	s->at = 0;
	rd_groups_retry(r);
}

void rd_rebuild_again(struct readyd *r, int64_t pause)
{
	struct rd_resume *s = &r->resume;
	int64_t at = rd_now() + rd_jitter(r, pause);

	s->again = true;
	if (!s->sweeping && s->link == RD_UP && (!s->at || at < s->at))
		rd_resume_plan(r, at);
}

static void rebuilt(struct readyd *r)
{
	struct rd_resume *s = &r->resume;
	int64_t pause = SWEEP_MOST_NS;

	s->sweeping = false;
	if (s->link == RD_REBUILDING) {
		s->link = RD_UP;
		s->down_since = 0;
		s->tries = s->sweeps = 0;
		s->n++;
		for (struct rd_waiter *w = r->sleepers; w; w = w->next)
			rd_wake(w);
		if (r->led)
			rd_kick(r); /* it may be waiting for just that */
	}
	if (!s->again) {
		s->sweeps = 0;
		return;
	}
	if (s->sweeps < 7)
		pause = SWEEP_FIRST_NS << s->sweeps++;
	rd_resume_plan(r, rd_now() + rd_jitter(r, pause));
}

/* Sends one message more, if there is a place for it. false: not now, or nothing is left. */
static bool sweep_on(struct readyd *r)
{
	bool (*send)(struct readyd *, struct rd_batch *) = NULL;
	struct rd_batch *b = batch_begin(r);

	if (r->resume.timer_next < r->timers.top)
		send = timers_send;
	else if (r->resume.watch_next < r->watches.top)
		send = watches_send;
	else if (r->resume.park_next < r->parks.top)
		send = parks_send;
	if (!b || !send)
		return false;
	/* Its fds and records want a datagram of their own. */
	if (rd_out_flush(r) || !rd_linked(r))
		return false;
	return send(r, b) || sweep_on(r);
}

static bool sweep_is_done(const struct readyd *r)
{
	const struct rd_resume *s = &r->resume;

	for (unsigned i = 0; i < RD_WINDOW; i++)
		if (s->batches[i].state != RD_BATCH_FREE)
			return false;
	return s->timer_next >= r->timers.top && s->watch_next >= r->watches.top &&
	       s->park_next >= r->parks.top;
}

void rd_rebuild(struct readyd *r)
{
	struct rd_resume *s = &r->resume;
	uint32_t epoch = s->epoch;

	if (!s->sweeping)
		rd_rebuild_begin(r);
	for (unsigned i = 0; i < RD_WINDOW; i++) {
		struct rd_batch *b = &s->batches[i];

		while (b->state == RD_BATCH_ANSWERED && !batch_follow(r, b))
			if (rd_out_flush(r) || s->epoch != epoch)
				return;
	}
	while (s->epoch == epoch && !r->error && sweep_on(r))
		;
	if (s->epoch == epoch && !r->error && sweep_is_done(r))
		rebuilt(r);
}
