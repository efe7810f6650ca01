/* SPDX-License-Identifier: MIT */

/*
 * The rules, written down once more and as plainly as possible: a watch is its id's place in an
 * array, an order is a number that grows, and whoever wants the first of something looks at all.
 *
 * Readings of the specification where it leaves a choice:
 *  - a deadline set to the value that it has keeps its place among equal times, but takes the new
 *    stamp; one that moves later is armed for its new time when the old one has come, and stands
 *    behind what was armed for that time before;
 *  - a periodic timer is armed anew by each tick;
 *  - a past deadline is an expiry each time that it is set, so a stream tells it each time;
 *  - a stream's unsent bits are owed at UNWATCH like a waiter's code; what is owed counts as sent;
 *  - a stream's RESET clears the ready and not-pollable bits, and keeps an unsent timeout;
 *  - a session that is held no longer comes last among those with unsent entries;
 *  - EVICT makes a stream's unsent entry closing and nothing else.
 */

#include "naive.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

/* ---- Small things ---- */

static void refuse(struct naive_allowed *a, int error)
{
	a->refusal[a->n++] = error;
}

static unsigned bit(unsigned direction)
{
	return direction == 0 ? CORE_READ : CORE_WRITE;
}

static bool stream(const struct naive_watch *w)
{
	return w->mode == CORE_MODE_STREAM;
}

static int64_t add_saturating(int64_t a, int64_t b)
{
	int64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return b > 0 ? INT64_MAX : INT64_MIN;
	return sum;
}

void naive_init(struct naive *n, bool level)
{
	memset(n, 0, sizeof(*n));
	n->level = level;
}

/* After each change: who has something unsent has an order, who has not has none. */
static void note_session(struct naive *n, struct naive_session *s)
{
	bool unsent = s->broken;

	for (unsigned i = 0; i < NAIVE_WATCHES; i++)
		unsent |= s->watches[i].live && s->watches[i].order;
	for (unsigned i = 0; i < NAIVE_TIMERS; i++)
		unsent |= s->timers[i].live && s->timers[i].order;
	if (!unsent || s->held)
		s->order = 0;
	else if (s->order == 0)
		s->order = ++n->order;
}

static void note_watch(struct naive *n, struct naive_session *s, struct naive_watch *w)
{
	if (!w->live || !(w->slot[0].code | w->slot[1].code))
		w->order = 0;
	else if (w->order == 0)
		w->order = ++n->order;
	note_session(n, s);
}

static void note_timer(struct naive *n, struct naive_session *s, struct naive_timer *t)
{
	if (!t->live || t->count == 0)
		t->order = 0;
	else if (t->order == 0)
		t->order = ++n->order;
	note_session(n, s);
}

static void coalesce(struct naive *n, struct naive_session *s, uint64_t low, uint64_t high)
{
	s->counters.coalesced.low += low;
	s->counters.coalesced.high += high;
	n->counters.coalesced.low += low;
	n->counters.coalesced.high += high;
}

void naive_add_session(struct naive *n, unsigned s, unsigned quota)
{
	memset(&n->sessions[s], 0, sizeof(n->sessions[s]));
	n->sessions[s].live = true;
	n->sessions[s].quota = quota;
}

void naive_end_session(struct naive *n, unsigned s)
{
	n->sessions[s].live = false;
}

uint64_t naive_used(const struct naive *n, unsigned quota, unsigned which)
{
	uint64_t used = 0;

	for (unsigned s = 0; s < NAIVE_SESSIONS; s++) {
		struct naive_numbers numbers = naive_numbers(n, s);

		if (n->sessions[s].live && n->sessions[s].quota == quota)
			used += which == 0 ? numbers.watches : numbers.timers;
	}
	return used;
}

static bool over_quota(const struct naive *n, unsigned s, unsigned which)
{
	unsigned quota = n->sessions[s].quota;

	return naive_used(n, quota, which) >= n->limit[quota][which];
}

struct naive_watch *naive_tag(struct naive *n, uint64_t tag, unsigned *ret_session)
{
	for (unsigned s = 0; s < NAIVE_SESSIONS; s++) {
		for (unsigned i = 0; i < NAIVE_WATCHES; i++) {
			struct naive_watch *w = &n->sessions[s].watches[i];

			if (n->sessions[s].live && w->live && w->tag == tag) {
				*ret_session = s;
				return w;
			}
		}
	}
	return NULL;
}

/* The live watch of (id, gen); NULL, and the refusal, if there is none. */
static struct naive_watch *find(const struct naive *n, unsigned s, uint32_t id, uint32_t gen,
				struct naive_allowed *a)
{
	const struct naive_watch *w = NULL;

	if (id >= 1 && id <= NAIVE_WATCHES)
		w = &n->sessions[s].watches[id - 1];
	if (!w || !w->live) {
		refuse(a, -ENOENT);
		return NULL;
	}
	if (w->gen != gen) {
		refuse(a, -ESTALE);
		return NULL;
	}
	return (struct naive_watch *)(uintptr_t)w;
}

/* ---- The slot ---- */

enum core_slot_state naive_state(const struct naive_slot *slot)
{
	if (slot->code)
		return CORE_SLOT_DONE;
	if (slot->waiting)
		return CORE_SLOT_WAITING;
	return slot->latch ? CORE_SLOT_READY : CORE_SLOT_IDLE;
}

/* netpollcheckerr: 0 is clean. */
static int check_error(const struct naive_watch *w, unsigned d)
{
	if (w->closing)
		return CORE_CODE_CLOSING;
	if (w->slot[d].deadline < 0)
		return CORE_CODE_TIMEOUT;
	if (d == 0 && w->error)
		return CORE_CODE_NOT_POLLABLE;
	return 0;
}

static void complete(struct naive_slot *slot, int code)
{
	slot->waiting = false;
	slot->since = 0;
	slot->code = (uint8_t)code;
	slot->sent_stamp = code == CORE_CODE_TIMEOUT ? slot->stamp : 0;
}

static void expire_slot(struct naive_watch *w, struct naive_slot *slot)
{
	slot->deadline = -1;
	if (stream(w)) {
		slot->code |= CORE_CODE_TIMEOUT;
		slot->sent_stamp = slot->stamp;
	} else if (slot->waiting) {
		complete(slot, CORE_CODE_TIMEOUT);
	}
}

/* Directions must be some of the interest; a stream has no waiters. */
static void check_directions(const struct naive_watch *w, unsigned directions, bool waiters,
			     struct naive_allowed *a)
{
	if (directions == 0 || (directions & ~(unsigned)w->interest) || (waiters && stream(w)))
		refuse(a, -EINVAL);
}

/* ---- Watches ---- */

struct naive_allowed naive_watch(struct naive *n, unsigned s, const struct core_watch *w,
				 int64_t now)
{
	struct naive_allowed a = {0};

	if (w->id == 0 || w->interest == 0 || w->interest > CORE_BOTH || w->mode > CORE_MODE_STREAM)
		refuse(&a, -EINVAL);
	if (w->id != 0 && n->sessions[s].watches[w->id - 1].live)
		refuse(&a, -EEXIST);
	if (n->level && w->mode == CORE_MODE_STREAM)
		refuse(&a, -EOPNOTSUPP);
	if (over_quota(n, s, 0))
		refuse(&a, -EDQUOT);
	if (a.n)
		return a;
	n->sessions[s].watches[w->id - 1] = (struct naive_watch){
		.live = true,
		.id = w->id,
		.gen = w->gen,
		.cookie = w->cookie,
		.interest = w->interest,
		.mode = w->mode,
		.kind = w->kind,
		.fd = w->fd,
		.since = now,
	};
	return a;
}

void naive_registered(struct naive *n, uint64_t tag, uint32_t word)
{
	unsigned s;
	struct naive_watch *w = naive_tag(n, tag, &s);

	w->registered = true;
	w->word = word;
}

void naive_forget(struct naive *n, uint64_t tag)
{
	unsigned s;
	struct naive_watch *w = naive_tag(n, tag, &s);

	w->live = false;
	note_watch(n, &n->sessions[s], w);
}

struct naive_allowed naive_find(const struct naive *n, unsigned s, uint32_t id, uint32_t gen)
{
	struct naive_allowed a = {0};

	find(n, s, id, gen, &a);
	return a;
}

static void fill_entry(const struct naive_watch *w, struct core_entry *ret)
{
	*ret = (struct core_entry){
		.kind = CORE_ENTRY_WATCH,
		.mode = w->mode,
		.read = w->slot[0].code,
		.write = w->slot[1].code,
		.id = w->id,
		.gen = w->gen,
		.cookie = w->cookie,
	};
	if (ret->read & CORE_CODE_TIMEOUT)
		ret->read_stamp = w->slot[0].sent_stamp;
	if (ret->write & CORE_CODE_TIMEOUT)
		ret->write_stamp = w->slot[1].sent_stamp;
}

struct naive_allowed naive_unwatch(struct naive *n, unsigned s, uint32_t id, uint32_t gen,
				   struct core_entry *ret_entry)
{
	struct naive_allowed a = {0};
	struct naive_watch *w = find(n, s, id, gen, &a);

	if (!w)
		return a;
	for (unsigned d = 0; d < 2; d++)
		if (w->slot[d].waiting)
			complete(&w->slot[d], CORE_CODE_CLOSING);
	if (w->slot[0].code | w->slot[1].code) {
		fill_entry(w, ret_entry);
		n->sessions[s].counters.entries++;
		n->counters.entries++;
		a.result = 1;
	}
	w->live = false;
	note_watch(n, &n->sessions[s], w);
	return a;
}

/* ---- Requests about slots ---- */

struct naive_allowed naive_wait(struct naive *n, unsigned s, uint32_t id, uint32_t gen,
				unsigned directions, int64_t now, unsigned *ret_arm)
{
	struct naive_allowed a = {0};
	struct naive_watch *w = find(n, s, id, gen, &a);

	if (!w) {
		if (directions == 0 || directions > CORE_BOTH)
			refuse(&a, -EINVAL);
		return a;
	}
	check_directions(w, directions, true, &a);
	for (unsigned d = 0; d < 2; d++)
		if ((directions & bit(d)) && (w->slot[d].waiting || w->slot[d].code))
			refuse(&a, -EBUSY);
	if (a.n)
		return a;
	*ret_arm = 0;
	for (unsigned d = 0; d < 2; d++) {
		struct naive_slot *slot = &w->slot[d];
		int code = check_error(w, d);

		if (!(directions & bit(d)))
			continue;
		if (code) {
			complete(slot, code);
		} else if (slot->latch) {
			slot->latch = false;
			complete(slot, CORE_CODE_READY);
		} else {
			slot->waiting = true;
			slot->since = now;
			*ret_arm |= bit(d);
		}
	}
	note_watch(n, &n->sessions[s], w);
	return a;
}

struct naive_allowed naive_unwait(struct naive *n, unsigned s, uint32_t id, uint32_t gen,
				  unsigned directions)
{
	struct naive_allowed a = {0};
	struct naive_watch *w = find(n, s, id, gen, &a);
	bool waiting = false, done = false;

	if (!w) {
		if (directions == 0 || directions > CORE_BOTH)
			refuse(&a, -EINVAL);
		return a;
	}
	check_directions(w, directions, true, &a);
	if (a.n) {
		if (stream(w))
			refuse(&a, -ENOENT);
		return a;
	}
	for (unsigned d = 0; d < 2; d++) {
		struct naive_slot *slot = &w->slot[d];

		if (!(directions & bit(d)))
			continue;
		waiting |= slot->waiting;
		done |= slot->code != 0;
		slot->waiting = false;
		slot->since = 0;
	}
	if (done)
		refuse(&a, -EALREADY);
	else if (!waiting)
		refuse(&a, -ENOENT);
	return a;
}

struct naive_allowed naive_reset(struct naive *n, unsigned s, uint32_t id, uint32_t gen,
				 unsigned directions)
{
	struct naive_allowed a = {0};
	struct naive_watch *w = find(n, s, id, gen, &a);

	if (!w) {
		if (directions == 0 || directions > CORE_BOTH)
			refuse(&a, -EINVAL);
		return a;
	}
	check_directions(w, directions, false, &a);
	for (unsigned d = 0; d < 2; d++)
		if ((directions & bit(d)) && !stream(w) && (w->slot[d].waiting || w->slot[d].code))
			refuse(&a, -EBUSY);
	if (a.n)
		return a;
	for (unsigned d = 0; d < 2 && a.result == 0; d++)
		if (directions & bit(d))
			a.result = check_error(w, d);
	if (a.result)
		return a;
	for (unsigned d = 0; d < 2; d++) {
		if (!(directions & bit(d)))
			continue;
		w->slot[d].latch = false;
		if (stream(w))
			w->slot[d].code &= CORE_CODE_TIMEOUT;
	}
	note_watch(n, &n->sessions[s], w);
	return a;
}

struct naive_allowed naive_set_deadline(struct naive *n, unsigned s, uint32_t id, uint32_t gen,
					unsigned directions, int64_t when, bool relative,
					uint16_t stamp, int64_t now)
{
	struct naive_allowed a = {0};
	struct naive_watch *w = find(n, s, id, gen, &a);

	if (!w) {
		if (directions == 0 || directions > CORE_BOTH)
			refuse(&a, -EINVAL);
		return a;
	}
	check_directions(w, directions, false, &a);
	if (a.n)
		return a;
	if (w->closing) {
		a.result = CORE_CODE_CLOSING;
		return a;
	}
	if (relative) {
		when = add_saturating(when, now);
		if (when <= now)
			when = -1;
	} else if (when != 0 && when <= now) {
		when = -1;
	}
	for (unsigned d = 0; d < 2; d++) {
		struct naive_slot *slot = &w->slot[d];

		if (!(directions & bit(d)))
			continue;
		slot->stamp = stamp;
		/* A pending one that moves later, or back but not before its node, is noted only. */
		if (when > 0 && (slot->deadline <= 0 || when < slot->node)) {
			slot->node = when;
			slot->armed = n->order + 1;
		}
		slot->deadline = when;
		if (when < 0)
			expire_slot(w, slot);
	}
	n->order++;
	note_watch(n, &n->sessions[s], w);
	return a;
}

struct naive_allowed naive_evict(struct naive *n, unsigned s, uint32_t id, uint32_t gen)
{
	struct naive_allowed a = {0};
	struct naive_watch *w = find(n, s, id, gen, &a);

	if (!w)
		return a;
	if (w->closing) {
		a.result = CORE_CODE_CLOSING;
		return a;
	}
	w->closing = true;
	for (unsigned d = 0; d < 2; d++) {
		struct naive_slot *slot = &w->slot[d];

		slot->latch = false;
		slot->deadline = 0;
		if (slot->waiting || slot->code || (stream(w) && (w->interest & bit(d))))
			complete(slot, CORE_CODE_CLOSING);
	}
	note_watch(n, &n->sessions[s], w);
	return a;
}

/* ---- Timers ---- */

struct naive_allowed naive_set_timer(struct naive *n, unsigned s, const struct core_timer *t,
				     int64_t now, bool *ret_pending)
{
	struct naive_allowed a = {0};
	struct naive_timer *mine = t->id ? &n->sessions[s].timers[t->id - 1] : NULL;

	if (t->id == 0 || t->period < 0)
		refuse(&a, -EINVAL);
	if ((!mine || !mine->live) && over_quota(n, s, 1))
		refuse(&a, -EDQUOT);
	if (a.n)
		return a;
	*ret_pending = mine->live;
	*mine = (struct naive_timer){
		.live = true,
		.pending = true,
		.id = t->id,
		.gen = t->gen,
		.cookie = t->cookie,
		.when = t->relative ? add_saturating(t->when, now) : t->when,
		.period = t->period,
		.armed = ++n->order,
		.fired_before = mine->live ? mine->fired_before + mine->fired : 0,
	};
	note_timer(n, &n->sessions[s], mine);
	return a;
}

struct naive_allowed naive_stop_timer(struct naive *n, unsigned s, uint32_t id, uint32_t gen)
{
	struct naive_allowed a = {0};
	struct naive_timer *t = NULL;

	if (id >= 1 && id <= NAIVE_TIMERS)
		t = &n->sessions[s].timers[id - 1];
	if (!t || !t->live) {
		refuse(&a, -ENOENT);
	} else if (t->gen != gen) {
		refuse(&a, -ESTALE);
	} else {
		t->live = false;
		note_timer(n, &n->sessions[s], t);
	}
	return a;
}

static void fire_timer(struct naive *n, struct naive_session *s, struct naive_timer *t, int64_t now)
{
	uint64_t times = 1;

	if (t->period > 0) {
		uint64_t late = (uint64_t)now - (uint64_t)t->when;
		uint64_t period = (uint64_t)t->period;

		times += late / period;
		/* The first tick after now. */
		t->when = add_saturating(now, (int64_t)(period - late % period));
		t->armed = ++n->order;
	} else {
		t->when = 0;
		t->pending = false;
	}
	if (t->count)
		coalesce(n, s, 0, 1);
	t->count = times > UINT32_MAX - t->count ? UINT32_MAX : t->count + (uint32_t)times;
	note_timer(n, s, t);
}

/* ---- What happens ---- */

void naive_break(struct naive *n, unsigned s)
{
	struct naive_session *session = &n->sessions[s];

	n->breaks.high++;
	n->breaks.low += !session->broken;
	session->broken = true;
	note_session(n, session);
}

void naive_hold(struct naive *n, unsigned s, bool held)
{
	n->sessions[s].held = held;
	note_session(n, &n->sessions[s]);
}

/* What an event did to unsent entries: bits that were there already, and all else. */
struct merged {
	unsigned sure, maybe, fresh;
};

static void edge(struct naive *n, const struct naive_watch *w, unsigned d, bool error,
		 struct naive_slot *slot, struct merged *merged)
{
	if (!w->closing && (slot->code & CORE_CODE_READY))
		merged->sure++;
	else if (slot->code)
		merged->maybe++;
	else
		merged->fresh++;
	if (w->closing)
		return;
	if (stream(w)) {
		slot->code |= CORE_CODE_READY;
		if (error && d == 0)
			slot->code |= CORE_CODE_NOT_POLLABLE;
	} else if (slot->waiting) {
		complete(slot, CORE_CODE_READY);
	} else if (slot->code != CORE_CODE_READY && !n->level) {
		slot->latch = true;
	}
}

void naive_event(struct naive *n, uint64_t tag, unsigned directions, bool error)
{
	struct merged merged = {0};
	unsigned s;
	struct naive_watch *w = naive_tag(n, tag, &s);

	if (!w) {
		n->stale++;
		return;
	}
	n->counters.events++;
	n->sessions[s].counters.events++;
	w->error = error;
	for (unsigned d = 0; d < 2; d++)
		if (directions & bit(d) & w->interest)
			edge(n, w, d, error, &w->slot[d], &merged);
	coalesce(n, &n->sessions[s], merged.sure && !merged.fresh && !merged.maybe,
		 merged.sure + merged.maybe);
	note_watch(n, &n->sessions[s], w);
}

/* One step of expiry: the earliest thing that is due. */
static bool expire_first(struct naive *n, int64_t now)
{
	struct naive_session *session = NULL;
	struct naive_watch *watch = NULL;
	struct naive_timer *timer = NULL;
	struct naive_slot *slot = NULL;
	int64_t when = now;
	uint64_t armed = UINT64_MAX;

	for (unsigned s = 0; s < NAIVE_SESSIONS; s++) {
		struct naive_session *ns = &n->sessions[s];

		if (!ns->live)
			continue;
		for (unsigned i = 0; i < NAIVE_WATCHES * 2; i++) {
			struct naive_watch *w = &ns->watches[i / 2];
			struct naive_slot *sl = &w->slot[i % 2];

			if (!w->live || sl->deadline <= 0 || sl->node > when ||
			    (sl->node == when && sl->armed >= armed))
				continue;
			session = ns, watch = w, slot = sl, timer = NULL;
			when = sl->node, armed = sl->armed;
		}
		for (unsigned i = 0; i < NAIVE_TIMERS; i++) {
			struct naive_timer *t = &ns->timers[i];

			if (!t->live || !t->pending || t->when > when ||
			    (t->when == when && t->armed >= armed))
				continue;
			session = ns, timer = t;
			when = t->when, armed = t->armed;
		}
	}
	if (timer) {
		fire_timer(n, session, timer, now);
	} else if (slot && slot->deadline > slot->node) {
		slot->node = slot->deadline;
		slot->armed = ++n->order;
	} else if (slot) {
		expire_slot(watch, slot);
		note_watch(n, session, watch);
	}
	return timer || slot;
}

void naive_expire(struct naive *n, int64_t now)
{
	while (expire_first(n, now))
		continue;
}

int64_t naive_earliest(const struct naive *n)
{
	int64_t first = INT64_MAX;

	for (unsigned s = 0; s < NAIVE_SESSIONS; s++) {
		const struct naive_session *ns = &n->sessions[s];

		if (!ns->live)
			continue;
		for (unsigned i = 0; i < NAIVE_WATCHES * 2; i++) {
			const struct naive_watch *w = &ns->watches[i / 2];
			int64_t deadline = w->slot[i % 2].deadline;

			if (w->live && deadline > 0 && deadline < first)
				first = deadline;
		}
		for (unsigned i = 0; i < NAIVE_TIMERS; i++)
			if (ns->timers[i].live && ns->timers[i].pending &&
			    ns->timers[i].when < first)
				first = ns->timers[i].when;
	}
	return first;
}

/* ---- Ready-lists ---- */

/* The unsent item with the lowest order above `after`: one of the two is not NULL if there is. */
static uint64_t next_unsent(const struct naive_session *s, uint64_t after,
			    const struct naive_watch **ret_watch,
			    const struct naive_timer **ret_timer)
{
	uint64_t first = UINT64_MAX;

	*ret_watch = NULL;
	*ret_timer = NULL;
	for (unsigned i = 0; i < NAIVE_WATCHES; i++) {
		const struct naive_watch *w = &s->watches[i];

		if (w->live && w->order > after && w->order < first) {
			first = w->order;
			*ret_watch = w;
		}
	}
	for (unsigned i = 0; i < NAIVE_TIMERS; i++) {
		const struct naive_timer *t = &s->timers[i];

		if (t->live && t->order > after && t->order < first) {
			first = t->order;
			*ret_watch = NULL;
			*ret_timer = t;
		}
	}
	return first;
}

unsigned naive_peek(const struct naive *n, unsigned s, struct core_entry *entries, unsigned max)
{
	const struct naive_session *ns = &n->sessions[s];
	const struct naive_watch *w;
	const struct naive_timer *t;
	uint64_t order = 0;
	unsigned count = 0;

	if (ns->broken && count < max)
		entries[count++] = (struct core_entry){.kind = CORE_ENTRY_BREAK};
	while (count < max) {
		order = next_unsent(ns, order, &w, &t);
		if (w)
			fill_entry(w, &entries[count]);
		else if (t)
			entries[count] = (struct core_entry){
				.kind = CORE_ENTRY_TIMER,
				.id = t->id,
				.gen = t->gen,
				.cookie = t->cookie,
				.count = t->count,
			};
		else
			break;
		count++;
	}
	return count;
}

static void sent_timer(struct naive_timer *t)
{
	t->fired++;
	t->count = 0;
	if (!t->pending)
		t->live = false;
}

static void sent_watch(struct naive_watch *w)
{
	w->fired++;
	w->slot[0].code = 0;
	w->slot[1].code = 0;
}

void naive_commit(struct naive *n, unsigned s, unsigned entries)
{
	struct naive_session *ns = &n->sessions[s];

	ns->messages += entries > 0;
	ns->counters.entries += entries;
	n->counters.entries += entries;
	if (entries && ns->broken) {
		ns->broken = false;
		entries--;
	}
	for (; entries; entries--) {
		const struct naive_watch *w;
		const struct naive_timer *t;

		(void)next_unsent(ns, 0, &w, &t);
		if (w) {
			sent_watch(&ns->watches[w->id - 1]);
			note_watch(n, ns, &ns->watches[w->id - 1]);
		} else {
			sent_timer(&ns->timers[t->id - 1]);
			note_timer(n, ns, &ns->timers[t->id - 1]);
		}
	}
	note_session(n, ns);
}

int naive_next_ready(const struct naive *n, uint64_t after)
{
	uint64_t first = UINT64_MAX;
	int next = -1;

	for (unsigned s = 0; s < NAIVE_SESSIONS; s++) {
		uint64_t order = n->sessions[s].order;

		if (n->sessions[s].live && order > after && order < first) {
			first = order;
			next = (int)s;
		}
	}
	return next;
}

/* ---- Numbers ---- */

struct naive_numbers naive_numbers(const struct naive *n, unsigned s)
{
	const struct naive_session *ns = &n->sessions[s];
	struct naive_numbers r = {0};

	if (!ns->live)
		return r;
	r.ready = ns->broken;
	for (unsigned i = 0; i < NAIVE_WATCHES; i++) {
		const struct naive_watch *w = &ns->watches[i];

		if (!w->live)
			continue;
		r.watches++;
		r.ready += w->order != 0;
		for (unsigned d = 0; d < 2; d++) {
			r.waiting += w->slot[d].waiting;
			r.deadlines += w->slot[d].deadline > 0;
		}
	}
	for (unsigned i = 0; i < NAIVE_TIMERS; i++) {
		const struct naive_timer *t = &ns->timers[i];

		r.timers += t->live;
		r.ready += t->live && t->order;
	}
	return r;
}
