/* SPDX-License-Identifier: MIT */
/*
 * The poll(2) backend: POSIX, level-triggered, and so the place where arm is real. O(n) a call.
 *
 * Owned: a pipe for the break; for each watch its own copy of the fd, at FD_LASTING or above, until
 * close or set_end; an array of struct pollfd, packed, of which element 0 is the pipe's reading
 * end. Each other element belongs to an entry: an own descriptor or a watch. An entry knows its
 * place in the array (removing one moves the last into the gap) and stands in a table under an
 * index that never changes while it lives: the backend's word.
 *
 * Entries stand in the ring of their set, sets in the ring of the poller; the daemon's own
 * descriptors are a set like the others. What was served goes to the end of its ring, so the next
 * call begins with who waited longest, and each set gets at most POLLER_SET_BUDGET a call.
 *
 * Arming: a direction of a watch is idle or armed. arm sets the bit; reporting the direction
 * clears it and leaves the other. What was ready and not reported for want of room stays armed and
 * is found again by the next call, from the level. An entry with nothing armed must not be asked
 * about at all: poll(2) reports POLLHUP and POLLERR also for events 0, for ever. Its element has
 * ~fd then, which poll(2) skips (fd 0 too).
 *
 * Own descriptors are asked about always, by their mask: a hang-up is reported until removal.
 *
 * Break: as in epoll.c, with a byte in the pipe; at most one is in it, since only the reader stores
 * 0, after it has read.
 */
#include "poller.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "events.h"
#include "fd.h"

/* Linux, the BSDs, and POSIX since 2024. */
#if defined(_GNU_SOURCE) || (defined(_POSIX_VERSION) && _POSIX_VERSION >= 202405L)
#define HAVE_PPOLL 1
#else
#define HAVE_PPOLL 0
#endif

static_assert(ATOMIC_INT_LOCK_FREE == 2, "break is called from signal handlers");

#define NS_PER_SEC INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)
#define DELTA_MAX (NS_PER_SEC * NS_PER_SEC) /* 1e9 s */

enum { PIPE_PLACE = 0, NO_INDEX = -1 };

/* A ring, or a member of one. */
struct ring {
	struct ring *next;
	struct ring *prev;
};

struct poller_set {
	struct ring ring; /* in the poller's sets */
	struct ring entries;
	void *owner;
	bool own; /* the daemon's own descriptors: by mask, never disarmed */
};

struct entry {
	struct ring ring; /* in its set */
	struct poller_set *set;
	uint64_t tag;
	int fd; /* a watch's: our copy */
	uint32_t index;
	size_t place;
	unsigned interest;
	unsigned armed; /* POLLER_READ, POLLER_WRITE; own: the mask */
};

/* A row of the table; without an entry, a link of the free list. */
struct row {
	struct entry *entry;
	int64_t next_free;
};

struct poll_poller {
	struct poller base;
	int break_fds[2];
	atomic_uint broken;

	struct pollfd *fds;
	struct entry **owners; /* by place */
	size_t n_fds, room_fds;

	struct row *rows;
	size_t n_rows;
	int64_t free_row;

	struct ring sets;
	struct poller_set own;
};

static struct poll_poller *poll_poller(struct poller *p)
{
	return (struct poll_poller *)p;
}

static void ring_init(struct ring *ring)
{
	ring->next = ring->prev = ring;
}

static void ring_append(struct ring *ring, struct ring *member)
{
	member->next = ring;
	member->prev = ring->prev;
	ring->prev->next = member;
	ring->prev = member;
}

static void ring_remove(struct ring *member)
{
	member->prev->next = member->next;
	member->next->prev = member->prev;
}

/* Members stand first in their structs. */
static struct poller_set *set_of(struct ring *member)
{
	return (struct poller_set *)(void *)member;
}

static struct entry *entry_of(struct ring *member)
{
	return (struct entry *)(void *)member;
}

static void set_init(struct poll_poller *p, struct poller_set *set, bool own)
{
	set->own = own;
	ring_init(&set->entries);
	ring_append(&p->sets, &set->ring);
}

static int fds_reserve(struct poll_poller *p)
{
	size_t room = p->room_fds ? p->room_fds * 2 : 64;
	struct pollfd *fds;
	struct entry **entries;

	if (p->n_fds < p->room_fds)
		return 0;
	if (room > SIZE_MAX / sizeof(*fds))
		return -ENOMEM;
	fds = realloc(p->fds, room * sizeof(*fds));
	if (!fds)
		return -ENOMEM;
	p->fds = fds;
	entries = realloc(p->owners, room * sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	p->owners = entries;
	p->room_fds = room;
	return 0;
}

static int rows_reserve(struct poll_poller *p)
{
	size_t n = p->n_rows ? p->n_rows * 2 : 64;
	struct row *rows;

	if (p->free_row != NO_INDEX)
		return 0;
	if (n > UINT32_MAX || n > SIZE_MAX / sizeof(*rows))
		return -ENOMEM;
	rows = realloc(p->rows, n * sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	for (size_t i = n; i-- > p->n_rows;) {
		rows[i] = (struct row){.next_free = p->free_row};
		p->free_row = (int64_t)i;
	}
	p->rows = rows;
	p->n_rows = n;
	return 0;
}

/* Brings the element of the array up to date with what is armed. */
static void entry_show(struct poll_poller *p, const struct entry *e)
{
	bool asked = e->set->own || e->armed;

	p->fds[e->place] = (struct pollfd){
		.fd = asked ? e->fd : ~e->fd,
		.events = (short)((e->armed & POLLER_READ ? POLLIN : 0) |
				  (e->armed & POLLER_WRITE ? POLLOUT : 0)),
	};
}

static int entry_new(struct poll_poller *p, struct poller_set *set, int fd, uint64_t tag,
		     struct entry **ret)
{
	struct entry *e;
	int r = fds_reserve(p);

	if (r == 0)
		r = rows_reserve(p);
	if (r < 0)
		return r;
	e = malloc(sizeof(*e));
	if (!e)
		return -ENOMEM;
	*e = (struct entry){.set = set, .tag = tag, .fd = fd};
	e->index = (uint32_t)p->free_row;
	p->free_row = p->rows[e->index].next_free;
	p->rows[e->index].entry = e;
	e->place = p->n_fds++;
	p->owners[e->place] = e;
	ring_append(&set->entries, &e->ring);
	entry_show(p, e);
	*ret = e;
	return 0;
}

static void entry_free(struct poll_poller *p, struct entry *e)
{
	size_t last = --p->n_fds;

	if (e->place != last) {
		p->fds[e->place] = p->fds[last];
		p->owners[e->place] = p->owners[last];
		p->owners[e->place]->place = e->place;
	}
	p->rows[e->index] = (struct row){.next_free = p->free_row};
	p->free_row = e->index;
	ring_remove(&e->ring);
	if (!e->set->own)
		(void)close(e->fd);
	free(e);
}

static void set_clear(struct poll_poller *p, struct poller_set *set)
{
	while (set->entries.next != &set->entries)
		entry_free(p, entry_of(set->entries.next));
	ring_remove(&set->ring);
}

static struct poller *poll_free(struct poller *base)
{
	struct poll_poller *p = poll_poller(base);

	while (p->sets.next != &p->sets) {
		struct poller_set *set = set_of(p->sets.next);

		set_clear(p, set);
		if (!set->own)
			free(set);
	}
	for (int i = 0; i < 2; i++)
		if (p->break_fds[i] >= 0)
			(void)close(p->break_fds[i]);
	free(p->fds);
	free(p->owners);
	free(p->rows);
	free(p);
	return NULL;
}

/* The self-pipe, its ends lasting, non-blocking and close-on-exec. */
static int break_init(struct poll_poller *p)
{
	int r = 0;

	if (pipe(p->break_fds) < 0) {
		p->break_fds[0] = p->break_fds[1] = -1;
		return -errno;
	}
	for (int i = 0; i < 2; i++) {
		p->break_fds[i] = fd_move_up(p->break_fds[i]);
		if (p->break_fds[i] < 0)
			r = p->break_fds[i];
		else if (fcntl(p->break_fds[i], F_SETFL, O_NONBLOCK) < 0 ||
			 fcntl(p->break_fds[i], F_SETFD, FD_CLOEXEC) < 0)
			r = -errno;
	}
	return r;
}

static int poll_init(struct poller **ret)
{
	struct poll_poller *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	p->base.backend = &poller_backend_poll;
	p->break_fds[0] = p->break_fds[1] = -1;
	p->free_row = NO_INDEX;
	ring_init(&p->sets);
	set_init(p, &p->own, true);
	r = break_init(p);
	if (r == 0)
		r = fds_reserve(p);
	if (r < 0) {
		poll_free(&p->base);
		return r;
	}
	p->fds[PIPE_PLACE] = (struct pollfd){.fd = p->break_fds[0], .events = POLLIN};
	p->owners[PIPE_PLACE] = NULL;
	p->n_fds = 1;
	*ret = &p->base;
	return 0;
}

static struct entry *own_find(struct poll_poller *p, int fd)
{
	for (struct ring *m = p->own.entries.next; m != &p->own.entries; m = m->next)
		if (entry_of(m)->fd == fd)
			return entry_of(m);
	return NULL;
}

static int poll_add(struct poller *base, int fd, uint64_t tag, unsigned mask)
{
	struct poll_poller *p = poll_poller(base);
	struct entry *e;
	int r;

	if (fcntl(fd, F_GETFD) < 0)
		return -errno;
	if (own_find(p, fd))
		return -EEXIST;
	r = entry_new(p, &p->own, fd, tag, &e);
	if (r < 0)
		return r;
	e->armed = mask;
	entry_show(p, e);
	return 0;
}

static int poll_modify(struct poller *base, int fd, uint64_t tag, unsigned mask)
{
	struct poll_poller *p = poll_poller(base);
	struct entry *e = own_find(p, fd);

	if (!e)
		return -ENOENT;
	e->tag = tag;
	e->armed = mask;
	entry_show(p, e);
	return 0;
}

static int poll_remove(struct poller *base, int fd)
{
	struct poll_poller *p = poll_poller(base);
	struct entry *e = own_find(p, fd);

	if (!e)
		return -ENOENT;
	entry_free(p, e);
	return 0;
}

static int poll_set_new(struct poller *base, void *owner, struct poller_set **ret)
{
	struct poller_set *set = malloc(sizeof(*set));

	if (!set)
		return -ENOMEM;
	set_init(poll_poller(base), set, false);
	set->owner = owner;
	*ret = set;
	return 0;
}

static int poll_set_end(struct poller *base, struct poller_set *set)
{
	set_clear(poll_poller(base), set);
	free(set);
	return -1;
}

static int poll_open(struct poller *base, struct poller_set *set, int fd, uint64_t tag,
		     unsigned interest, uint32_t *ret_word)
{
	struct poll_poller *p = poll_poller(base);
	struct entry *e;
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, FD_LASTING);
	int r;

	if (copy < 0) /* EINVAL: the limit is not above FD_LASTING */
		return errno == EINVAL ? -EMFILE : -errno;
	r = entry_new(p, set, copy, tag, &e);
	if (r < 0) {
		(void)close(copy);
		return r;
	}
	e->interest = interest;
	*ret_word = e->index;
	return 0;
}

static struct entry *watch_find(const struct poll_poller *p, const struct poller_set *set,
				uint64_t tag, uint32_t word)
{
	struct entry *e = word < p->n_rows ? p->rows[word].entry : NULL;

	return e && e->set == set && e->tag == tag ? e : NULL;
}

static int poll_close(struct poller *base, struct poller_set *set, int fd, uint64_t tag,
		      uint32_t word)
{
	struct poll_poller *p = poll_poller(base);
	struct entry *e = watch_find(p, set, tag, word);

	(void)fd;
	if (!e)
		return -ENOENT;
	entry_free(p, e);
	return 0;
}

static int poll_arm(struct poller *base, struct poller_set *set, uint64_t tag, uint32_t word,
		    unsigned mask)
{
	struct poll_poller *p = poll_poller(base);
	struct entry *e = watch_find(p, set, tag, word);

	if (!e)
		return -ENOENT;
	e->armed |= mask & e->interest;
	entry_show(p, e);
	return 0;
}

static uint32_t event_bits(short revents)
{
	/* An fd that is gone is a hang-up of both directions. */
	return (revents & POLLIN ? EVENT_IN : 0u) | (revents & POLLOUT ? EVENT_OUT : 0u) |
	       (revents & POLLERR ? EVENT_ERR : 0u) |
	       (revents & (POLLHUP | POLLNVAL) ? EVENT_HUP : 0u);
}

/* What is to be reported of an entry now, or 0; disarms what is. */
static uint32_t entry_take(struct poll_poller *p, struct entry *e)
{
	const unsigned directions = POLLER_READ | POLLER_WRITE;
	uint32_t bits = event_bits(p->fds[e->place].revents);
	uint32_t mask;

	if (e->set->own)
		return events_to_own_mask(bits);
	mask = events_to_mask(bits) & (e->armed | POLLER_ERROR);
	if (!(mask & directions))
		return 0;
	e->armed &= ~(mask & directions);
	entry_show(p, e);
	return mask;
}

/*
 * Reports of one set, at most max. Served entries go to the end of the ring. *n_left is the number
 * of elements that have events and were not looked at yet, wherever they are: at 0 the walk ends.
 */
static unsigned set_report(struct poll_poller *p, struct poller_set *set, int *n_left,
			   struct poller_event *events, unsigned max)
{
	struct ring *last = set->entries.prev;
	struct ring *next = set->entries.next;
	unsigned n = 0;
	bool end = next == &set->entries;

	while (!end && *n_left > 0 && n < max) {
		struct entry *e = entry_of(next);
		uint32_t mask;

		end = next == last;
		next = next->next;
		if (!p->fds[e->place].revents)
			continue;
		--*n_left;
		mask = entry_take(p, e);
		if (!mask)
			continue;
		events[n++] = (struct poller_event){
			.tag = e->tag,
			.owner = set->owner,
			.mask = mask,
			.watch = !set->own,
		};
		ring_remove(&e->ring);
		ring_append(&set->entries, &e->ring);
	}
	return n;
}

/* poll(2); the number of elements with events, or a negative errno. */
static int fds_wait(struct poll_poller *p, int64_t delta_ns)
{
	int n;

	if (delta_ns > DELTA_MAX)
		delta_ns = DELTA_MAX;
#if HAVE_PPOLL
	struct timespec wait = {.tv_sec = (time_t)(delta_ns / NS_PER_SEC),
				.tv_nsec = (long)(delta_ns % NS_PER_SEC)};

	n = ppoll(p->fds, (nfds_t)p->n_fds, delta_ns < 0 ? NULL : &wait, NULL);
#else
	int64_t ms = delta_ns / NS_PER_MS + (delta_ns % NS_PER_MS != 0);

	ms = ms > INT_MAX ? INT_MAX : ms;
	n = poll(p->fds, (nfds_t)p->n_fds, delta_ns < 0 ? -1 : (int)ms);
#endif
	return n < 0 ? -errno : n;
}

static void break_consume(struct poll_poller *p)
{
	char bytes[16];

	while (read(p->break_fds[0], bytes, sizeof(bytes)) < 0 && errno == EINTR)
		;
	atomic_store(&p->broken, 0);
}

static int poll_poll(struct poller *base, int64_t delta_ns, struct poller_event *events,
		     unsigned max)
{
	struct poll_poller *p = poll_poller(base);
	bool consume = delta_ns != 0;
	struct ring *last;
	unsigned n_events = 0;
	int n_left;

#ifdef READYD_MUTANT_BREAK_LOST_BY_ASKING
	consume = true;
#endif
	assert(max > 0);
	n_left = fds_wait(p, delta_ns);
	if (n_left < 0)
		return n_left == -EINTR ? 0 : n_left;
	if (p->fds[PIPE_PLACE].revents) {
		n_left--;
		if (consume)
			break_consume(p);
	}
	last = p->sets.prev;
	while (n_left > 0 && n_events < max) {
		struct poller_set *set = set_of(p->sets.next);
		unsigned room = max - n_events;
		bool end = &set->ring == last;

		n_events += set_report(p, set, &n_left, events + n_events,
				       room < POLLER_SET_BUDGET ? room : POLLER_SET_BUDGET);
		ring_remove(&set->ring);
		ring_append(&p->sets, &set->ring);
		if (end)
			break;
	}
	return (int)n_events;
}

static int poll_take(struct poller *base, struct poller_set *set, struct poller_event *events,
		     unsigned max)
{
	struct poll_poller *p = poll_poller(base);
	int n_left = fds_wait(p, 0);

	if (n_left < 0)
		return n_left == -EINTR ? 0 : n_left;
	return (int)set_report(p, set, &n_left, events, max);
}

static int poll_wake(struct poller *base)
{
	struct poll_poller *p = poll_poller(base);
	int kept = errno;

	if (atomic_exchange(&p->broken, 1) == 0)
		while (write(p->break_fds[1], "", 1) < 0 && errno == EINTR)
			;
	errno = kept;
	return 0;
}

static int poll_is_poll_descriptor(struct poller *base, int fd, bool sets)
{
	struct poll_poller *p = poll_poller(base);

	(void)sets; /* hold nothing but copies of the clients' */
	return fd_same_description(fd, p->break_fds[0]) > 0 ||
	       fd_same_description(fd, p->break_fds[1]) > 0;
}

const struct poller_backend poller_backend_poll = {
	.name = "poll",
	.caps = POLLER_FILES | (HAVE_PPOLL ? POLLER_NS : 0),
	.init = poll_init,
	.free = poll_free,
	.add = poll_add,
	.modify = poll_modify,
	.remove = poll_remove,
	.set_new = poll_set_new,
	.set_end = poll_set_end,
	.open = poll_open,
	.close = poll_close,
	.arm = poll_arm,
	.poll = poll_poll,
	.take = poll_take,
	.wake = poll_wake,
	.is_poll_descriptor = poll_is_poll_descriptor,
};
