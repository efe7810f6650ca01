/* SPDX-License-Identifier: MIT */
/*
 * The epoll(7) backend.
 *
 * Owned: the main instance, the eventfd of the break, and one nested instance a set. Registered in
 * the main one, all level-triggered: the eventfd, each set's instance, and the daemon's own
 * descriptors. Registered in a set's instance, edge-triggered: its watches, weakly. The key there
 * is (description, fd number) and the caller closes its fd afterwards: nothing of a watch is kept
 * here, and what a client closes goes by itself.
 *
 * Data words. A watch's word is its tag, as it was given: it is never looked into. A word of the
 * main instance is kind, generation and index of a table here, never a pointer:
 *
 *	bits 62-63 kind (break, own, set) | bits 32-61 generation | bits 0-31 index
 *
 * where the index is the fd number of an own descriptor, or the place of a set. The generation is
 * drawn anew for each registration, so an event for what was removed or ended finds nothing.
 *
 * One call of poll: one epoll_pwait2 on the main instance, then one epoll_wait of each set that is
 * signalled, for at most POLLER_SET_BUDGET. Nothing else happens in between, so a set cannot end
 * in the middle of a batch. Of the room in events[], one place is kept back for each signalled set
 * that is still to be asked, so all of them get a turn; which one goes first, and so may take the
 * larger share, rotates. What a bounded take left stays signalled, since the set is level-triggered
 * in the main instance, and comes with the next call.
 *
 * Break: `broken` goes 0 to 1 by exchange, who finds 1 does nothing, a wake is under way. Only a
 * blocking poll reads the eventfd and then stores 0, in this order: a break in between is part of
 * the wake that is being delivered.
 *
 * Under valgrind epoll_pwait2 is missing: then epoll_pwait is used, in ms, rounded up.
 */
#include "poller.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"
#include "events.h"
#include "fd.h"

static_assert((int)EVENT_IN == (int)EPOLLIN && (int)EVENT_OUT == (int)EPOLLOUT, "same bits");
static_assert((int)EVENT_ERR == (int)EPOLLERR && (int)EVENT_HUP == (int)EPOLLHUP, "same bits");
static_assert((int)EVENT_RDHUP == (int)EPOLLRDHUP, "same bits");
static_assert(ATOMIC_INT_LOCK_FREE == 2, "break is called from signal handlers");

#define NS_PER_SEC INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)
#define DELTA_MAX (NS_PER_SEC * NS_PER_SEC) /* 1e9 s */

enum word_kind { WORD_BREAK = 1, WORD_OWN, WORD_SET };
enum { MAIN_BATCH = 256, NO_PLACE = -1 };

#define GENERATION_MASK 0x3fffffffu

struct poller_set {
	void *owner;
	int fd;
	uint32_t place;
};

/* One of the daemon's own descriptors, at the place of its number. */
struct own {
	uint64_t tag;
	uint32_t generation;
	bool used;
};

/* Where a set stands; without one, a link of the free list. */
struct place {
	struct poller_set *set;
	uint32_t generation;
	int64_t next_free;
};

struct epoll_poller {
	struct poller base;
	int main_fd;
	int break_fd;
	atomic_uint broken;
	bool no_pwait2;
	uint32_t generation; /* the last one drawn */
	unsigned turn;

	struct own *owns;
	size_t n_owns;
	struct place *places;
	size_t n_places;
	int64_t free_place;

	struct epoll_event batch[MAIN_BATCH];
	struct poller_set *ready[MAIN_BATCH];
	struct epoll_event taken[POLLER_SET_BUDGET];
};

static struct epoll_poller *epoll_poller(struct poller *p)
{
	return (struct epoll_poller *)p;
}

static uint64_t word_make(enum word_kind kind, uint32_t generation, uint32_t index)
{
	return (uint64_t)kind << 62 | (uint64_t)(generation & GENERATION_MASK) << 32 | index;
}

static enum word_kind word_kind(uint64_t word)
{
	return (enum word_kind)(word >> 62);
}

static uint32_t word_generation(uint64_t word)
{
	return (uint32_t)(word >> 32) & GENERATION_MASK;
}

static uint32_t word_index(uint64_t word)
{
	return (uint32_t)word;
}

static uint32_t generation_draw(struct epoll_poller *p)
{
	p->generation = (p->generation + 1) & GENERATION_MASK;
	return p->generation;
}

static int control(int epoll_fd, int op, int fd, uint32_t events, uint64_t word)
{
	struct epoll_event event = {.events = events, .data.u64 = word};

	return epoll_ctl(epoll_fd, op, fd, &event) < 0 ? -errno : 0;
}

static struct poller *epoll_free(struct poller *base)
{
	struct epoll_poller *p = epoll_poller(base);

	for (size_t i = 0; i < p->n_places; i++) {
		if (!p->places[i].set)
			continue;
		(void)close(p->places[i].set->fd);
		free(p->places[i].set);
	}
	if (p->main_fd >= 0)
		(void)close(p->main_fd);
	if (p->break_fd >= 0)
		(void)close(p->break_fd);
	free(p->places);
	free(p->owns);
	free(p);
	return NULL;
}

static void cleanup_epoll_poller(struct epoll_poller **p)
{
	if (*p)
		epoll_free(&(*p)->base);
}

/* Takes what a call that makes an fd returned. */
static int lasting(int made)
{
	return made < 0 ? -errno : fd_move_up(made);
}

static int epoll_init(struct poller **ret)
{
	CLEANUP(cleanup_epoll_poller) struct epoll_poller *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	p->base.backend = &poller_backend_epoll;
	p->free_place = NO_PLACE;
	p->break_fd = -1;
	p->main_fd = lasting(epoll_create1(EPOLL_CLOEXEC));
	if (p->main_fd < 0)
		return p->main_fd;
	p->break_fd = lasting(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (p->break_fd < 0)
		return p->break_fd;
	r = control(p->main_fd, EPOLL_CTL_ADD, p->break_fd, EPOLLIN, word_make(WORD_BREAK, 0, 0));
	if (r < 0)
		return r;
	*ret = &STEAL(p)->base;
	return 0;
}

static uint32_t own_events(unsigned mask)
{
	return (mask & POLLER_READ ? EPOLLIN : 0u) | (mask & POLLER_WRITE ? EPOLLOUT : 0u);
}

static int owns_reach(struct epoll_poller *p, size_t fd)
{
	size_t n = p->n_owns ? p->n_owns : FD_LASTING;
	struct own *owns;

	if (fd < p->n_owns)
		return 0;
	while (n <= fd)
		n *= 2;
	owns = reallocarray(p->owns, n, sizeof(*owns));
	if (!owns)
		return -ENOMEM;
	for (size_t i = p->n_owns; i < n; i++)
		owns[i] = (struct own){0};
	p->owns = owns;
	p->n_owns = n;
	return 0;
}

static struct own *own_at(struct epoll_poller *p, int fd)
{
	return fd >= 0 && (size_t)fd < p->n_owns && p->owns[fd].used ? &p->owns[fd] : NULL;
}

static int epoll_add(struct poller *base, int fd, uint64_t tag, unsigned mask)
{
	struct epoll_poller *p = epoll_poller(base);
	uint32_t generation;
	int r;

	if (fd < 0)
		return -EBADF;
	r = owns_reach(p, (size_t)fd);
	if (r < 0)
		return r;
	generation = generation_draw(p);
	r = control(p->main_fd, EPOLL_CTL_ADD, fd, own_events(mask),
		    word_make(WORD_OWN, generation, (uint32_t)fd));
	if (r < 0)
		return r;
	p->owns[fd] = (struct own){.tag = tag, .generation = generation, .used = true};
	return 0;
}

static int epoll_modify(struct poller *base, int fd, uint64_t tag, unsigned mask)
{
	struct epoll_poller *p = epoll_poller(base);
	struct own *own = own_at(p, fd);
	int r;

	if (!own)
		return -ENOENT;
	r = control(p->main_fd, EPOLL_CTL_MOD, fd, own_events(mask),
		    word_make(WORD_OWN, own->generation, (uint32_t)fd));
	if (r < 0)
		return r;
	own->tag = tag;
	return 0;
}

static int epoll_remove(struct poller *base, int fd)
{
	struct epoll_poller *p = epoll_poller(base);
	struct own *own = own_at(p, fd);

	if (!own)
		return -ENOENT;
	own->used = false;
	return control(p->main_fd, EPOLL_CTL_DEL, fd, 0, 0);
}

static int places_grow(struct epoll_poller *p)
{
	size_t n = p->n_places ? p->n_places * 2 : 16;
	struct place *places = reallocarray(p->places, n, sizeof(*places));

	if (!places)
		return -ENOMEM;
	for (size_t i = n; i-- > p->n_places;) {
		places[i] = (struct place){.next_free = p->free_place};
		p->free_place = (int64_t)i;
	}
	p->places = places;
	p->n_places = n;
	return 0;
}

static int epoll_set_new(struct poller *base, void *owner, struct poller_set **ret)
{
	struct epoll_poller *p = epoll_poller(base);
	CLEANUP_MEMORY struct poller_set *set = malloc(sizeof(*set));
	CLEANUP_FD int fd = -1;
	struct place *place;
	uint32_t generation;
	int r = 0;

	if (!set)
		return -ENOMEM;
	if (p->free_place == NO_PLACE)
		r = places_grow(p);
	if (r < 0)
		return r;
	fd = lasting(epoll_create1(EPOLL_CLOEXEC));
	if (fd < 0)
		return fd;
	set->place = (uint32_t)p->free_place;
	place = &p->places[set->place];
	generation = generation_draw(p);
	r = control(p->main_fd, EPOLL_CTL_ADD, fd, EPOLLIN,
		    word_make(WORD_SET, generation, set->place));
	if (r < 0)
		return r;
	set->owner = owner;
	set->fd = steal_fd(&fd);
	p->free_place = place->next_free;
	place->generation = generation;
	place->set = set;
	*ret = STEAL(set);
	return 0;
}

static int epoll_set_end(struct poller *base, struct poller_set *set)
{
	struct epoll_poller *p = epoll_poller(base);
	struct place *place = &p->places[set->place];
	int fd = set->fd;
	int r;

	assert(place->set == set);
	r = control(p->main_fd, EPOLL_CTL_DEL, fd, 0, 0);
	assert(r == 0);
	(void)r;
	place->set = NULL;
	place->next_free = p->free_place;
	p->free_place = set->place;
	free(set);
	return fd;
}

static int epoll_set_fd(struct poller *base, struct poller_set *set)
{
	(void)base;
	return set->fd;
}

static int epoll_open(struct poller *base, struct poller_set *set, int fd, uint64_t tag,
		      unsigned interest, uint32_t *ret_word)
{
	uint32_t events = EPOLLET;
	int r;

	(void)base;
	/* Without RDHUP a half close shows IN alone (K-054). */
	if (interest & POLLER_READ)
		events |= EPOLLIN | EPOLLRDHUP;
	if (interest & POLLER_WRITE)
		events |= EPOLLOUT;
	r = control(set->fd, EPOLL_CTL_ADD, fd, events, tag);
#ifdef READYD_MUTANT_MOD_ON_EEXIST
	if (r == -EEXIST)
		r = control(set->fd, EPOLL_CTL_MOD, fd, events, tag);
#endif
	if (r < 0)
		return r;
	*ret_word = (uint32_t)fd;
	return 0;
}

static int epoll_close(struct poller *base, struct poller_set *set, int fd, uint64_t tag,
		       uint32_t word)
{
	int r;

	(void)base;
	(void)tag;
	if (fd < 0)
		return 0;
	assert((uint32_t)fd == word);
	(void)word;
	r = control(set->fd, EPOLL_CTL_DEL, fd, 0, 0);
	/* What cannot be polled is not the watched one either. */
	return r == -EPERM ? -ENOENT : r;
}

static int epoll_arm(struct poller *base, struct poller_set *set, uint64_t tag, uint32_t word,
		     unsigned mask)
{
	(void)base;
	(void)set;
	(void)tag;
	(void)word;
	(void)mask;
	return 0;
}

static int to_ms(int64_t delta_ns)
{
	int64_t ms;

	if (delta_ns < 0)
		return -1;
	ms = delta_ns / NS_PER_MS + (delta_ns % NS_PER_MS != 0);
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

/* Fills the batch; the number of events or a negative errno. */
static int main_wait(struct epoll_poller *p, int64_t delta_ns, int max)
{
	int n;

	if (delta_ns > DELTA_MAX)
		delta_ns = DELTA_MAX;
	if (!p->no_pwait2) {
		struct timespec wait = {.tv_sec = delta_ns / NS_PER_SEC,
					.tv_nsec = delta_ns % NS_PER_SEC};

		n = epoll_pwait2(p->main_fd, p->batch, max, delta_ns < 0 ? NULL : &wait, NULL);
		if (n >= 0)
			return n;
		if (errno != ENOSYS)
			return -errno;
		p->no_pwait2 = true;
	}
	n = epoll_pwait(p->main_fd, p->batch, max, to_ms(delta_ns), NULL);
	return n < 0 ? -errno : n;
}

static void break_consume(struct epoll_poller *p)
{
	eventfd_t count;

	(void)eventfd_read(p->break_fd, &count);
	atomic_store(&p->broken, 0);
}

/* At most POLLER_SET_BUDGET of one set's events; the number that the kernel gave. */
static unsigned set_wait(struct epoll_poller *p, struct poller_set *set,
			 struct poller_event *events, unsigned max)
{
	int want = max < POLLER_SET_BUDGET ? (int)max : POLLER_SET_BUDGET;
	int n = epoll_wait(set->fd, p->taken, want, 0);

	/* A zero timeout is not interrupted; what else there is are faults of ours. */
	assert(n >= 0);
	if (n < 0)
		return 0;
	for (int i = 0; i < n; i++)
		events[i] = (struct poller_event){
			.tag = p->taken[i].data.u64,
			.owner = set->owner,
			.mask = events_to_mask(p->taken[i].events),
			.watch = true,
		};
	return (unsigned)n;
}

static bool own_event(const struct epoll_poller *p, const struct epoll_event *event,
		      struct poller_event *ret)
{
	const struct own *own = &p->owns[word_index(event->data.u64)];
	uint32_t mask = events_to_own_mask(event->events);

	if (!own->used || own->generation != word_generation(event->data.u64) || !mask)
		return false;
	*ret = (struct poller_event){.tag = own->tag, .mask = mask, .watch = false};
	return true;
}

static struct poller_set *set_of(const struct epoll_poller *p, uint64_t word)
{
	const struct place *place = &p->places[word_index(word)];

	return place->generation == word_generation(word) ? place->set : NULL;
}

static int epoll_poll(struct poller *base, int64_t delta_ns, struct poller_event *events,
		      unsigned max)
{
	struct epoll_poller *p = epoll_poller(base);
	unsigned n_events = 0, n_ready = 0, first;
	bool consume = delta_ns != 0;
	int n;

#ifdef READYD_MUTANT_BREAK_LOST_BY_ASKING
	consume = true;
#endif
	assert(max > 0);
	n = main_wait(p, delta_ns, max < MAIN_BATCH ? (int)max : MAIN_BATCH);
	if (n < 0)
		return n == -EINTR ? 0 : n;
	for (int i = 0; i < n; i++) {
		uint64_t word = p->batch[i].data.u64;
		struct poller_set *set;

		switch (word_kind(word)) {
		case WORD_BREAK:
			if (consume)
				break_consume(p);
			break;
		case WORD_OWN:
			n_events += own_event(p, &p->batch[i], &events[n_events]);
			break;
		case WORD_SET:
			set = set_of(p, word);
			if (set)
				p->ready[n_ready++] = set;
			break;
		}
	}
	first = p->turn++;
	for (unsigned i = 0; i < n_ready; i++) {
		unsigned kept_back = n_ready - 1 - i;

		n_events += set_wait(p, p->ready[(first + i) % n_ready], events + n_events,
				     max - n_events - kept_back);
	}
	return (int)n_events;
}

static int epoll_take(struct poller *base, struct poller_set *set, struct poller_event *events,
		      unsigned max)
{
	struct epoll_poller *p = epoll_poller(base);
	unsigned n = 0;

	while (n < max) {
		unsigned want = max - n < POLLER_SET_BUDGET ? max - n : POLLER_SET_BUDGET;
		unsigned got = set_wait(p, set, events + n, want);

		n += got;
		if (got < want)
			break;
	}
	return (int)n;
}

/* fdinfo of an epoll has one line that starts with "tfd:" for each registration. */
static int64_t epoll_registrations(struct poller *base, struct poller_set *set)
{
	char path[40], line[256];
	int64_t n = 0;
	FILE *f;

	(void)base;
	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", set->fd);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f))
		n += strncmp(line, "tfd:", 4) == 0;
	(void)fclose(f);
	return n;
}

static int epoll_wake(struct poller *base)
{
	struct epoll_poller *p = epoll_poller(base);
	const uint64_t one = 1;
	int kept = errno;

	if (atomic_exchange(&p->broken, 1) == 0)
		while (write(p->break_fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	errno = kept;
	return 0;
}

static int epoll_is_poll_descriptor(struct poller *base, int fd, bool sets)
{
	struct epoll_poller *p = epoll_poller(base);

	if (fd_same_description(fd, p->main_fd) > 0 || fd_same_description(fd, p->break_fd) > 0)
		return 1;
	for (size_t i = 0; sets && i < p->n_places; i++)
		if (p->places[i].set && fd_same_description(fd, p->places[i].set->fd) > 0)
			return 1;
	return 0;
}

const struct poller_backend poller_backend_epoll = {
	.name = "epoll",
	.caps = POLLER_WEAK | POLLER_EDGE | POLLER_NS,
	.init = epoll_init,
	.free = epoll_free,
	.add = epoll_add,
	.modify = epoll_modify,
	.remove = epoll_remove,
	.set_new = epoll_set_new,
	.set_end = epoll_set_end,
	.set_fd = epoll_set_fd,
	.open = epoll_open,
	.close = epoll_close,
	.arm = epoll_arm,
	.poll = epoll_poll,
	.take = epoll_take,
	.registrations = epoll_registrations,
	.wake = epoll_wake,
	.is_poll_descriptor = epoll_is_poll_descriptor,
};
