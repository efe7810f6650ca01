/* SPDX-License-Identifier: MIT */
#ifndef READYD_POLLER_H
#define READYD_POLLER_H

/*
 * The platform poller behind one interface, after Go's runtime/netpoll.go: init, open, close, arm,
 * poll, break, is-poll-descriptor. One file a platform implements it; each fills a struct
 * poller_backend. The loop owns a poller alone: no function but poller_break() may be called from
 * another thread or from a signal handler.
 *
 * Two kinds of descriptor are registered:
 *  - the daemon's *own* (listener, connections): always level-triggered, reported as `mask`;
 *  - *watches*, which clients handed over, each in a *set* (one a session), reported as Go's
 *    netpollready would see them: which directions became ready, and whether the event was the
 *    bare error bit (netpoll-semantics, 1.3 and 4.1).
 *
 * All functions that can fail return 0 or a negative errno.
 */

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum poller_cap {
	/* The registration belongs to the open file description: the daemon may close its fd. */
	POLLER_WEAK = 0x1,
	/* Edges: each change is reported once, also without a waiter; arm is a no-op. Without it a
	 * direction is reported once for each arm, from the level (netpollarm). */
	POLLER_EDGE = 0x2,
	/* Regular files are accepted. */
	POLLER_FILES = 0x4,
	/* Timeouts have ns resolution (else ms, rounded up). */
	POLLER_NS = 0x8,
};

/* Directions and events, as masks. */
enum poller_mask {
	POLLER_READ = 0x1,
	POLLER_WRITE = 0x2,
	POLLER_ERROR = 0x4,  /* watches: the event was the bare error bit and nothing else */
	POLLER_HANGUP = 0x8, /* own: the peer is gone (EPOLLHUP or EPOLLERR) */
};

struct poller_event {
	uint64_t tag;
	void *owner;   /* of the watch's set; NULL for the daemon's own */
	uint32_t mask; /* enum poller_mask, never 0 */
	bool watch;    /* a watch's, not one of the daemon's own */
};

struct poller;
struct poller_set;

/* What poller_poll() may take from one set in one call. */
enum { POLLER_SET_BUDGET = 256 };

struct poller_backend {
	const char *name; /* as in the configuration: "epoll", "poll" */
	uint32_t caps;    /* enum poller_cap */

	int (*init)(struct poller **ret);
	struct poller *(*free)(struct poller *p);
	int (*add)(struct poller *p, int fd, uint64_t tag, unsigned mask);
	int (*modify)(struct poller *p, int fd, uint64_t tag, unsigned mask);
	int (*remove)(struct poller *p, int fd);
	int (*set_new)(struct poller *p, void *owner, struct poller_set **ret);
	int (*set_end)(struct poller *p, struct poller_set *set);
	int (*set_fd)(struct poller *p, struct poller_set *set); /* may be NULL */
	int (*open)(struct poller *p, struct poller_set *set, int fd, uint64_t tag,
		    unsigned interest, uint32_t *ret_word);
	int (*close)(struct poller *p, struct poller_set *set, int fd, uint64_t tag, uint32_t word);
	int (*arm)(struct poller *p, struct poller_set *set, uint64_t tag, uint32_t word,
		   unsigned mask);
	int (*poll)(struct poller *p, int64_t delta_ns, struct poller_event *events, unsigned max);
	int (*take)(struct poller *p, struct poller_set *set, struct poller_event *events,
		    unsigned max);
	int64_t (*registrations)(struct poller *p, struct poller_set *set);
	int (*wake)(struct poller *p);
	int (*is_poll_descriptor)(struct poller *p, int fd, bool sets);
};

/* A poller in use: the backend's own struct starts with this. */
struct poller {
	const struct poller_backend *backend;
};

extern const struct poller_backend poller_backend_epoll;
extern const struct poller_backend poller_backend_poll;

/* The backend of that name, or NULL. */
const struct poller_backend *poller_backend_by_name(const char *name);

/*
 * Makes a poller. Its lasting fds (epoll: the main instance, the break's eventfd, each set's
 * instance) are moved to FD_LASTING and above (fd.h): the landing zone stays free.
 */
int poller_new(const struct poller_backend *backend, struct poller **ret);

/* Ends it and closes its own fds; NULL is accepted. Returns NULL. */
struct poller *poller_free(struct poller *p);

static inline uint32_t poller_caps(const struct poller *p)
{
	return p->backend->caps;
}

/*
 * The daemon's own descriptors. Level-triggered; `mask` is POLLER_READ and POLLER_WRITE wanted, 0
 * for none (hang-up may be reported all the same). The poller does not own the fd. Remove before
 * closing: an fd that lives on elsewhere would go on firing.
 */
static inline int poller_add(struct poller *p, int fd, uint64_t tag, unsigned mask)
{
	return p->backend->add(p, fd, tag, mask);
}
static inline int poller_modify(struct poller *p, int fd, uint64_t tag, unsigned mask)
{
	return p->backend->modify(p, fd, tag, mask);
}
static inline int poller_remove(struct poller *p, int fd)
{
	return p->backend->remove(p, fd);
}

/* A set of watches; `owner` comes back in its events. -EMFILE, -ENFILE, -ENOMEM, -ENOSPC concern
 * that owner only. */
static inline int poller_set_new(struct poller *p, void *owner, struct poller_set **ret)
{
	return p->backend->set_new(p, owner, ret);
}

/*
 * Ends a set with all its watches: out of the poller at once, no event of it follows. Returns an
 * fd whose last close ends the registrations, which is the caller's to close (epoll: costs up to
 * 1 us a live registration), or -1 where nothing is left to close. The set is freed.
 */
static inline int poller_set_end(struct poller *p, struct poller_set *set)
{
	return p->backend->set_end(p, set);
}

/* The fd whose last close ends the registrations; it stays the poller's. -1: there is none. */
static inline int poller_set_fd(struct poller *p, struct poller_set *set)
{
	return p->backend->set_fd ? p->backend->set_fd(p, set) : -1;
}

/*
 * netpollopen: registers fd for the directions of `interest`, edge-triggered where the backend
 * has EDGE, and reports what is ready now as a first event. With WEAK the registration's key is
 * (description, fd number) and the caller closes the fd afterwards; without, the backend makes its
 * own copy and keeps it until close. *ret_word is the backend's word for this watch, to be given
 * back to close and arm (epoll: the fd number, the lane).
 * -EEXIST: this description is registered in this set under this number already.
 * -EPERM: cannot be polled. -EINVAL (epoll): watched by as many sets as the kernel lets.
 * -ENOSPC, -ENOMEM: no resources, try again. -EBADF, -ELOOP as epoll_ctl(2).
 */
static inline int poller_open(struct poller *p, struct poller_set *set, int fd, uint64_t tag,
			      unsigned interest, uint32_t *ret_word)
{
	return p->backend->open(p, set, fd, tag, interest, ret_word);
}

/*
 * netpollclose: ends a registration. With WEAK, `fd` must be the watched description on the number
 * that `word` names; fd -1 leaves the registration to die with the description, and -ENOENT means
 * that this fd is not the watched one. Without WEAK fd is not looked at.
 */
static inline int poller_close(struct poller *p, struct poller_set *set, int fd, uint64_t tag,
			       uint32_t word)
{
	return p->backend->close(p, set, fd, tag, word);
}

/*
 * netpollarm: the next readiness of these directions is to be reported, from the level. Called
 * exactly when a slot goes from idle to waiting; a no-op with EDGE.
 */
static inline int poller_arm(struct poller *p, struct poller_set *set, uint64_t tag, uint32_t word,
			     unsigned mask)
{
	return p->backend->arm(p, set, tag, word, mask);
}

/*
 * netpoll(delta): < 0 blocks, 0 asks, > 0 waits at most that many ns (capped at 1e9 s). Returns
 * the number of events, at most `max` and at most POLLER_SET_BUDGET a set; what is left is
 * reported by the next call without a new edge. 0 after the time, or after a break. A *blocking*
 * call (delta != 0) consumes the break; an asking one leaves it. -EINTR is returned as 0 events.
 */
static inline int poller_poll(struct poller *p, int64_t delta_ns, struct poller_event *events,
			      unsigned max)
{
	return p->backend->poll(p, delta_ns, events, max);
}

/*
 * Takes, without blocking, up to max events of one set that the kernel has now: RESET must see
 * old edges before it clears a latch (H2). Returning fewer than max means that none is left.
 */
static inline int poller_take(struct poller *p, struct poller_set *set, struct poller_event *events,
			      unsigned max)
{
	return p->backend->take(p, set, events, max);
}

/*
 * How many registrations of this set are live, dead ones included: with WEAK those whose watch was
 * closed without its fd live until their description is closed everywhere. Asks the kernel, about
 * 0.3 us each: not for every turn. -ENOTSUP: as many as are open.
 */
static inline int64_t poller_registrations(struct poller *p, struct poller_set *set)
{
	return p->backend->registrations ? p->backend->registrations(p, set) : -ENOTSUP;
}

/*
 * netpollBreak: makes a blocked poll return, or the next blocking one. Many breaks before that are
 * one wake. Safe from any thread and from a signal handler; errno is kept.
 */
static inline int poller_break(struct poller *p)
{
	return p->backend->wake(p);
}

/* 1 if fd is a copy of one of the poller's own descriptions, however numbered; else 0. Compares it
 * with those of all sets: one system call each. */
static inline int poller_is_poll_descriptor(struct poller *p, int fd)
{
	return p->backend->is_poll_descriptor(p, fd, true);
}

/* The same, without the sets'. */
static inline int poller_is_central(struct poller *p, int fd)
{
	return p->backend->is_poll_descriptor(p, fd, false);
}

#endif
