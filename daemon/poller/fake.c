/* SPDX-License-Identifier: MIT */
/*
 * The poller of the tests (fake.h).
 *
 * Owned: the registrations of watches (an array; the word is the index there, which is free again
 * after the end), the own descriptors with their level, and the queue of events that were not
 * taken. Look-ups by tag are linear: tests have few watches.
 *
 * The queue holds raw events, mapped when they are taken: two events of one registration that meet
 * in it become one, as in an epoll instance, and only then is it decided whether the bare error
 * bit is left. Each element knows its set, or none where the tag is unknown. Ending a set or a
 * registration takes its elements out: no event of it follows.
 *
 * Level mode has no queue. poll walks the registrations and reports level & armed, from where the
 * last call ended.
 */
#include "fake.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct poller_set {
	void *owner;
	unsigned taken; /* in this call of poll */
	struct poller_set *next;
};

struct registration {
	struct poller_set *set; /* NULL: free */
	uint64_t tag;
	uint64_t n_arms;
	unsigned interest;
	unsigned armed;
	uint32_t level;
};

struct own {
	int fd;
	uint64_t tag;
	unsigned mask;
	uint32_t level;
};

struct queued {
	uint64_t tag;
	struct poller_set *set;
	uint32_t events;
};

struct fake {
	struct poller base;
	struct poller_backend backend;
	struct poller_set *sets;
	struct registration *registrations;
	size_t n_registrations;
	struct own *owns;
	size_t n_owns;
	struct queued *queue;
	size_t n_queue, room_queue;
	size_t cursor;
	atomic_uint broken;
	int fail[FAKE_OPS];
	int64_t now, delta;
	uint64_t n_polls, n_wakes;
};

static struct fake *fake_of(struct poller *p)
{
	return (struct fake *)p;
}

static const struct fake *fake_of_const(const struct poller *p)
{
	return (const struct fake *)p;
}

static bool edge_mode(const struct fake *f)
{
	return f->backend.caps & POLLER_EDGE;
}

/* The failure that the test ordered, once. */
static int ordered(struct fake *f, enum fake_op op)
{
	int err = f->fail[op];

	f->fail[op] = 0;
	return -err;
}

static struct registration *registration_find(const struct fake *f, uint64_t tag)
{
	for (size_t i = 0; i < f->n_registrations; i++)
		if (f->registrations[i].set && f->registrations[i].tag == tag)
			return &f->registrations[i];
	return NULL;
}

static struct own *own_find(const struct fake *f, int fd)
{
	for (size_t i = 0; i < f->n_owns; i++)
		if (f->owns[i].fd == fd)
			return &f->owns[i];
	return NULL;
}

/* Takes the elements that were marked (events 0) out; the others keep their order. */
static void queue_pack(struct fake *f)
{
	size_t kept = 0;

	for (size_t i = 0; i < f->n_queue; i++)
		if (f->queue[i].events)
			f->queue[kept++] = f->queue[i];
	f->n_queue = kept;
}

static void registration_end(struct fake *f, struct registration *r)
{
	for (size_t i = 0; i < f->n_queue; i++)
		if (f->queue[i].set == r->set && f->queue[i].tag == r->tag)
			f->queue[i].events = 0;
	queue_pack(f);
	*r = (struct registration){0};
}

static int fake_add(struct poller *base, int fd, uint64_t tag, unsigned mask)
{
	struct fake *f = fake_of(base);
	struct own *owns;
	int r = ordered(f, FAKE_ADD);

	if (r < 0)
		return r;
	if (own_find(f, fd))
		return -EEXIST;
	owns = reallocarray(f->owns, f->n_owns + 1, sizeof(*owns));
	if (!owns)
		return -ENOMEM;
	f->owns = owns;
	f->owns[f->n_owns++] = (struct own){.fd = fd, .tag = tag, .mask = mask};
	return 0;
}

static int fake_modify(struct poller *base, int fd, uint64_t tag, unsigned mask)
{
	struct fake *f = fake_of(base);
	struct own *own = own_find(f, fd);
	int r = ordered(f, FAKE_MODIFY);

	if (r < 0)
		return r;
	if (!own)
		return -ENOENT;
	own->tag = tag;
	own->mask = mask;
	return 0;
}

static int fake_remove(struct poller *base, int fd)
{
	struct fake *f = fake_of(base);
	struct own *own = own_find(f, fd);
	int r = ordered(f, FAKE_REMOVE);

	if (r < 0)
		return r;
	if (!own)
		return -ENOENT;
	*own = f->owns[--f->n_owns];
	return 0;
}

static int fake_set_new(struct poller *base, void *owner, struct poller_set **ret)
{
	struct fake *f = fake_of(base);
	struct poller_set *set;
	int r = ordered(f, FAKE_SET_NEW);

	if (r < 0)
		return r;
	set = calloc(1, sizeof(*set));
	if (!set)
		return -ENOMEM;
	set->owner = owner;
	set->next = f->sets;
	f->sets = set;
	*ret = set;
	return 0;
}

static int fake_set_end(struct poller *base, struct poller_set *set)
{
	struct fake *f = fake_of(base);
	struct poller_set **link = &f->sets;

	for (size_t i = 0; i < f->n_registrations; i++)
		if (f->registrations[i].set == set)
			registration_end(f, &f->registrations[i]);
	while (*link != set)
		link = &(*link)->next;
	*link = set->next;
	free(set);
	return -1;
}

static int fake_open(struct poller *base, struct poller_set *set, int fd, uint64_t tag,
		     unsigned interest, uint32_t *ret_word)
{
	struct fake *f = fake_of(base);
	size_t i = 0;
	int r = ordered(f, FAKE_OPEN);

	(void)fd;
	if (r < 0)
		return r;
	while (i < f->n_registrations && f->registrations[i].set)
		i++;
	if (i == f->n_registrations) {
		size_t n = i ? i * 2 : 16;
		struct registration *grown = reallocarray(f->registrations, n, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		memset(grown + i, 0, (n - i) * sizeof(*grown));
		f->registrations = grown;
		f->n_registrations = n;
	}
	f->registrations[i] = (struct registration){.set = set, .tag = tag, .interest = interest};
	*ret_word = (uint32_t)i;
	return 0;
}

static struct registration *registration_at(struct fake *f, const struct poller_set *set,
					    uint64_t tag, uint32_t word)
{
	struct registration *r = word < f->n_registrations ? &f->registrations[word] : NULL;

	return r && r->set == set && r->tag == tag ? r : NULL;
}

static int fake_close(struct poller *base, struct poller_set *set, int fd, uint64_t tag,
		      uint32_t word)
{
	struct fake *f = fake_of(base);
	struct registration *found = registration_at(f, set, tag, word);
	int r = ordered(f, FAKE_CLOSE);

	if (r < 0)
		return r;
	if (fd < 0 && (f->backend.caps & POLLER_WEAK))
		return 0;
	if (!found)
		return -ENOENT;
	registration_end(f, found);
	return 0;
}

static int fake_arm(struct poller *base, struct poller_set *set, uint64_t tag, uint32_t word,
		    unsigned mask)
{
	struct fake *f = fake_of(base);
	struct registration *found = registration_at(f, set, tag, word);
	int r = ordered(f, FAKE_ARM);

	if (r < 0)
		return r;
	if (!found)
		return -ENOENT;
	found->n_arms++;
	found->armed |= mask & found->interest;
	return 0;
}

static unsigned report_owns(struct fake *f, struct poller_event *events, unsigned max)
{
	unsigned n = 0;

	for (size_t i = 0; i < f->n_owns && n < max; i++) {
		const struct own *own = &f->owns[i];
		uint32_t mask = events_to_own_mask(own->level) & (own->mask | POLLER_HANGUP);

		if (mask)
			events[n++] = (struct poller_event){.tag = own->tag, .mask = mask};
	}
	return n;
}

/* From the queue: of one set, or (NULL) of all with each set's budget. */
static unsigned report_queue(struct fake *f, const struct poller_set *only,
			     struct poller_event *events, unsigned max)
{
	unsigned n = 0;

	for (size_t i = 0; i < f->n_queue && n < max; i++) {
		struct queued *q = &f->queue[i];

		if (only && q->set != only)
			continue;
		if (!only && q->set && q->set->taken++ >= POLLER_SET_BUDGET)
			continue;
		events[n++] = (struct poller_event){
			.tag = q->tag,
			.owner = q->set ? q->set->owner : NULL,
			.mask = events_to_mask(q->events),
			.watch = true,
		};
		q->events = 0;
	}
	queue_pack(f);
	return n;
}

/* From the levels, what is armed: the same choice. */
static unsigned report_levels(struct fake *f, const struct poller_set *only,
			      struct poller_event *events, unsigned max)
{
	unsigned n = 0;
	size_t first = f->cursor;

	for (size_t i = 0; i < f->n_registrations && n < max; i++) {
		size_t at = (first + i) % f->n_registrations;
		struct registration *r = &f->registrations[at];
		uint32_t mask = events_to_mask(r->level) & (r->armed | POLLER_ERROR);

		if (!r->set || !(mask & r->armed) || (only && r->set != only))
			continue;
		if (!only && r->set->taken++ >= POLLER_SET_BUDGET)
			continue;
		r->armed &= ~mask;
		events[n++] = (struct poller_event){
			.tag = r->tag,
			.owner = r->set->owner,
			.mask = mask,
			.watch = true,
		};
		f->cursor = at + 1;
	}
	return n;
}

static int fake_poll(struct poller *base, int64_t delta_ns, struct poller_event *events,
		     unsigned max)
{
	struct fake *f = fake_of(base);
	bool consume = delta_ns != 0;
	unsigned n;
	int r = ordered(f, FAKE_POLL);

	f->delta = delta_ns;
	f->n_polls++;
	if (r < 0)
		return r;
#ifdef READYD_MUTANT_BREAK_LOST_BY_ASKING
	consume = true;
#endif
	if (consume && atomic_exchange(&f->broken, 0))
		f->n_wakes++;
	for (struct poller_set *set = f->sets; set; set = set->next)
		set->taken = 0;
	n = report_owns(f, events, max);
	if (edge_mode(f))
		n += report_queue(f, NULL, events + n, max - n);
	else
		n += report_levels(f, NULL, events + n, max - n);
	return (int)n;
}

static int fake_take(struct poller *base, struct poller_set *set, struct poller_event *events,
		     unsigned max)
{
	struct fake *f = fake_of(base);
	int r = ordered(f, FAKE_TAKE);

	if (r < 0)
		return r;
	return (int)(edge_mode(f) ? report_queue(f, set, events, max)
				  : report_levels(f, set, events, max));
}

static int fake_wake(struct poller *base)
{
	atomic_store(&fake_of(base)->broken, 1);
	return 0;
}

static int fake_is_poll_descriptor(struct poller *base, int fd, bool sets)
{
	(void)sets;
	(void)base;
	(void)fd;
	return 0;
}

static struct poller *fake_free(struct poller *base)
{
	struct fake *f = fake_of(base);

	while (f->sets) {
		struct poller_set *next = f->sets->next;

		free(f->sets);
		f->sets = next;
	}
	free(f->registrations);
	free(f->owns);
	free(f->queue);
	free(f);
	return NULL;
}

int fake_new(uint32_t caps, struct poller **ret)
{
	struct fake *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->backend = (struct poller_backend){
		.name = "fake",
		.caps = caps,
		.free = fake_free,
		.add = fake_add,
		.modify = fake_modify,
		.remove = fake_remove,
		.set_new = fake_set_new,
		.set_end = fake_set_end,
		.open = fake_open,
		.close = fake_close,
		.arm = fake_arm,
		.poll = fake_poll,
		.take = fake_take,
		.wake = fake_wake,
		.is_poll_descriptor = fake_is_poll_descriptor,
	};
	f->base.backend = &f->backend;
	*ret = &f->base;
	return 0;
}

static int queue_add(struct fake *f, uint64_t tag, struct poller_set *set, uint32_t events)
{
	for (size_t i = 0; i < f->n_queue; i++) {
		if (f->queue[i].tag != tag || f->queue[i].set != set)
			continue;
		f->queue[i].events |= events;
		return 0;
	}
	if (f->n_queue == f->room_queue) {
		size_t room = f->room_queue ? f->room_queue * 2 : 16;
		struct queued *queue = reallocarray(f->queue, room, sizeof(*queue));

		if (!queue)
			return -ENOMEM;
		f->queue = queue;
		f->room_queue = room;
	}
	f->queue[f->n_queue++] = (struct queued){.tag = tag, .set = set, .events = events};
	return 0;
}

int fake_edge(struct poller *p, uint64_t tag, uint32_t events)
{
	struct fake *f = fake_of(p);
	struct registration *r = registration_find(f, tag);

	assert(events != 0);
	if (edge_mode(f))
		return queue_add(f, tag, r ? r->set : NULL, events);
	if (r)
		r->level |= events;
	return 0;
}

void fake_calm(struct poller *p, uint64_t tag)
{
	struct registration *r = registration_find(fake_of(p), tag);

	if (r)
		r->level = 0;
}

void fake_gone(struct poller *p, uint64_t tag)
{
	struct registration *r = registration_find(fake_of(p), tag);

	if (r)
		registration_end(fake_of(p), r);
}

void fake_own(struct poller *p, int fd, uint32_t events)
{
	struct own *own = own_find(fake_of(p), fd);

	if (own)
		own->level = events;
}

void fake_fail(struct poller *p, enum fake_op op, int err)
{
	fake_of(p)->fail[op] = err;
}

void fake_time(struct poller *p, int64_t now_ns)
{
	fake_of(p)->now = now_ns;
}

int64_t fake_now(const struct poller *p)
{
	return fake_of_const(p)->now;
}

int64_t fake_delta(const struct poller *p)
{
	return fake_of_const(p)->delta;
}

uint64_t fake_polls(const struct poller *p)
{
	return fake_of_const(p)->n_polls;
}

uint64_t fake_wakes(const struct poller *p)
{
	return fake_of_const(p)->n_wakes;
}

uint64_t fake_arms(const struct poller *p, uint64_t tag)
{
	const struct registration *r = registration_find(fake_of_const(p), tag);

	return r ? r->n_arms : 0;
}

unsigned fake_armed(const struct poller *p, uint64_t tag)
{
	const struct registration *r = registration_find(fake_of_const(p), tag);

	return r ? r->armed : 0;
}

unsigned fake_interest(const struct poller *p, uint64_t tag)
{
	const struct registration *r = registration_find(fake_of_const(p), tag);

	return r ? r->interest : 0;
}

size_t fake_registered(const struct poller *p)
{
	const struct fake *f = fake_of_const(p);
	size_t n = 0;

	for (size_t i = 0; i < f->n_registrations; i++)
		n += f->registrations[i].set != NULL;
	return n;
}
