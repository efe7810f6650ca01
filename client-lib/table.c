/* SPDX-License-Identifier: MIT */

/*
 * The library's own table: all that the program asked for, so that the session could be made anew
 * from it, and what was received and not taken by readyd_poll() yet.
 *
 * A watch is 88 bytes in two halves: the hot one (32) is touched by every entry, the cold one only
 * by calls. A place is named by its index, which is the id on the wire too, and a generation that
 * grows at each use of the place; 0 is no generation and no index. Chunks never move: a pointer to
 * a watch stays good while the watch lives.
 *
 * Places: free (no flag) -> live (rd_watch_add) -> ending (UNWATCH sent) -> free; or -> gone, if an
 * event that a wait is owed was received and not taken; free once it is taken. A one-shot timer is
 * free when its event is taken.
 *
 * The kept list holds watches, timers and parks (park_table.c) with unseen codes or counts, in the order in which they
 * got their first one, each at most once: later codes merge. So nothing that is received needs a
 * queue, and memory is bounded by what the program watches.
 *
 * Invariants: listed exactly if kept codes (count) are not 0; no code is kept for a direction that
 * waits; a free place is not listed.
 */

#include "internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- Places ---- */

uint32_t rd_places_grow(struct rd_places *p, uint32_t a_chunk, size_t chunk_size)
{
	if (p->top == 0)
		p->top = 1;
	if (p->top >= RD_PARK - a_chunk)
		return 0;
	if (p->top / a_chunk >= p->n_chunks) {
		void **chunks = realloc(p->chunks, (p->n_chunks + 1) * sizeof(*chunks));

		if (!chunks)
			return 0;
		p->chunks = chunks;
		chunks[p->n_chunks] = calloc(1, chunk_size);
		if (!chunks[p->n_chunks])
			return 0;
		p->n_chunks++;
	}
	return p->top++;
}

static void places_free(struct rd_places *p)
{
	for (uint32_t i = 0; i < p->n_chunks; i++)
		free(p->chunks[i]);
	free(p->chunks);
}

void rd_table_free(struct readyd *r)
{
	places_free(&r->watches);
	places_free(&r->timers);
	places_free(&r->parks);
	free(r->parking.hash);
}

uint32_t rd_watch_add(struct readyd *r)
{
	uint32_t id = r->watches.free, gen;
	struct rd_watch *w;

	if (id) {
		r->watches.free = rd_watch_at(r, id)->link.next;
	} else {
		id = rd_places_grow(&r->watches, RD_WATCHES_A_CHUNK, sizeof(struct rd_watch_chunk));
		if (!id)
			return 0;
	}
	w = rd_watch_at(r, id);
	gen = w->gen + 1 ? w->gen + 1 : 1;
	*w = (struct rd_watch){.gen = gen, .flags = RD_LIVE};
	*rd_watch_cold_at(r, id) = (struct rd_watch_cold){.fd = -1};
	r->watches.n++;
	return id;
}

void rd_watch_remove(struct readyd *r, uint32_t id)
{
	struct rd_watch *w = rd_watch_at(r, id);

	assert(!(w->flags & RD_LISTED));
	w->flags = 0;
	w->link.next = r->watches.free;
	r->watches.free = id;
	r->watches.n--;
}

uint32_t rd_timer_add(struct readyd *r)
{
	uint32_t id = r->timers.free, gen, arming;
	struct rd_timer *t;

	if (id) {
		r->timers.free = rd_timer_at(r, id)->link.next;
	} else {
		id = rd_places_grow(&r->timers, RD_TIMERS_A_CHUNK, sizeof(struct rd_timer_chunk));
		if (!id)
			return 0;
	}
	t = rd_timer_at(r, id);
	gen = t->gen + 1 ? t->gen + 1 : 1;
	arming = t->arming;
	*t = (struct rd_timer){.gen = gen, .arming = arming, .flags = RD_TIMER_LIVE};
	r->timers.n++;
	return id;
}

void rd_timer_remove(struct readyd *r, uint32_t id)
{
	struct rd_timer *t = rd_timer_at(r, id);

	assert(!(t->flags & RD_TIMER_LISTED));
	t->flags = 0;
	t->link.next = r->timers.free;
	r->timers.free = id;
	r->timers.n--;
}

bool rd_fd_is_same(const struct rd_watch_cold *cold, int fd)
{
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == cold->dev && st.st_ino == cold->ino;
}

struct rd_watch *rd_watch_named(struct readyd *r, readyd_id watch)
{
	struct rd_watch *w = rd_watch_find(r, (uint32_t)watch, (uint32_t)(watch >> 32));

	if (w && !(w->flags & RD_ENDING))
		return w;
	(void)rd_fail(r, -ENOENT, "no watch %u.%u: it was ended by readyd_unwatch(), or never made",
		      (unsigned)(uint32_t)watch, (unsigned)(watch >> 32));
	return NULL;
}

struct rd_timer *rd_timer_named(const struct readyd *r, readyd_id timer)
{
	uint32_t id = (uint32_t)timer;
	struct rd_timer *t;

	if (id == 0 || id >= r->timers.top)
		return NULL;
	t = rd_timer_at(r, id);
	return (t->flags & RD_TIMER_LIVE) && t->gen == (uint32_t)(timer >> 32) ? t : NULL;
}

/* ---- The kept list ---- */

static struct rd_link *link_of(struct readyd *r, uint32_t reference)
{
	if (reference & RD_TIMER)
		return &rd_timer_at(r, reference & ~RD_TIMER)->link;
	if (reference & RD_PARK)
		return &rd_park_at(r, reference & ~RD_PARK)->link;
	return &rd_watch_at(r, reference)->link;
}

void rd_kept_append(struct readyd *r, uint32_t reference)
{
	struct rd_link *l = link_of(r, reference);

	*l = (struct rd_link){.prev = r->kept_last};
	if (r->kept_last)
		link_of(r, r->kept_last)->next = reference;
	else
		r->kept_first = reference;
	r->kept_last = reference;
}

void rd_kept_unlink(struct readyd *r, uint32_t reference)
{
	struct rd_link *l = link_of(r, reference);

	if (l->prev)
		link_of(r, l->prev)->next = l->next;
	else
		r->kept_first = l->next;
	if (l->next)
		link_of(r, l->next)->prev = l->prev;
	else
		r->kept_last = l->prev;
	*l = (struct rd_link){0};
}

void rd_watch_keep(struct readyd *r, uint32_t id, uint8_t read, uint8_t write)
{
	struct rd_watch *w = rd_watch_at(r, id);

	w->kept[0] |= read;
	w->kept[1] |= write;
	if (!(w->flags & RD_LISTED)) {
		w->flags |= RD_LISTED;
		rd_kept_append(r, id);
	}
}

void rd_timer_keep(struct readyd *r, uint32_t id, uint32_t count)
{
	struct rd_timer *t = rd_timer_at(r, id);

	if (__builtin_add_overflow(t->count, count, &t->count))
		t->count = UINT32_MAX;
	if (!(t->flags & RD_TIMER_LISTED)) {
		t->flags |= RD_TIMER_LISTED;
		rd_kept_append(r, id | RD_TIMER);
	}
}

void rd_watch_drop(struct readyd *r, uint32_t id)
{
	struct rd_watch *w = rd_watch_at(r, id);

	if (!(w->flags & RD_LISTED))
		return;
	rd_kept_unlink(r, id);
	w->flags &= (uint8_t)~RD_LISTED;
	w->kept[0] = w->kept[1] = 0;
}

void rd_timer_drop(struct readyd *r, uint32_t id)
{
	struct rd_timer *t = rd_timer_at(r, id);

	if (!(t->flags & RD_TIMER_LISTED))
		return;
	rd_kept_unlink(r, id | RD_TIMER);
	t->flags &= ~(uint32_t)RD_TIMER_LISTED;
	t->count = 0;
}

static void take_watch(struct readyd *r, uint32_t id, struct readyd_event *ret)
{
	struct rd_watch *w = rd_watch_at(r, id);

	*ret = (struct readyd_event){
		.cookie = w->cookie,
		.id = rd_id(id, w->gen),
		.kind = READYD_EVENT_WATCH,
		.read = w->kept[0],
		.write = w->kept[1],
	};
	rd_watch_drop(r, id);
	if (w->flags & RD_GONE)
		rd_watch_remove(r, id);
}

static void take_timer(struct readyd *r, uint32_t id, struct readyd_event *ret)
{
	struct rd_timer *t = rd_timer_at(r, id);

	*ret = (struct readyd_event){
		.cookie = t->cookie,
		.id = rd_id(id, t->gen),
		.kind = READYD_EVENT_TIMER,
		.count = t->count,
	};
	rd_timer_drop(r, id);
	if (t->period == 0)
		rd_timer_remove(r, id);
}

void rd_kept_take(struct readyd *r, struct rd_sink *sink)
{
	if (r->broken_kept && sink->n < sink->max) {
		r->broken_kept = false;
		sink->events[sink->n++] = (struct readyd_event){.kind = READYD_EVENT_BREAK};
	}
	while (r->kept_first && sink->n < sink->max) {
		struct readyd_event *e = &sink->events[sink->n++];

		if (r->kept_first & RD_TIMER)
			take_timer(r, r->kept_first & ~RD_TIMER, e);
		else if (r->kept_first & RD_PARK)
			rd_park_take_kept(r, r->kept_first & ~RD_PARK, e);
		else
			take_watch(r, r->kept_first, e);
	}
	if (r->parking.worked)
		rd_handouts_tell(r, sink);
}
