/* SPDX-License-Identifier: MIT */
#ifndef READYD_FAKE_H
#define READYD_FAKE_H

/*
 * A poller for tests, driven by the test: it makes no system call, has no clock of its own and
 * never sleeps. What the test queues is what poll and take return, in that order; one seed gives
 * one run.
 *
 * caps choose how it behaves. With POLLER_EDGE each event is reported once, also without a waiter.
 * Without it fake_edge() sets the watch's level, which lasts until fake_calm(), and only armed
 * directions are reported, each once an arm. With POLLER_WEAK a close with fd -1 leaves the
 * registration, which then reports under its old tag until fake_gone(). POLLER_FILES and POLLER_NS
 * are shown and nothing more.
 */

#include "daemon/poller/events.h"
#include "daemon/poller/poller.h"

/* The calls that can be made to fail. */
enum fake_op {
	FAKE_ADD,
	FAKE_MODIFY,
	FAKE_REMOVE,
	FAKE_SET_NEW,
	FAKE_OPEN,
	FAKE_CLOSE,
	FAKE_ARM,
	FAKE_POLL,
	FAKE_TAKE,
	FAKE_OPS,
};

/* 0 or -ENOMEM. The poller is ended by poller_free(). */
int fake_new(uint32_t caps, struct poller **ret);

/*
 * An event on a watch, as enum event_bits. With EDGE it is queued, and merged into one of that
 * registration that was not taken yet; an unknown tag is queued too, as a dead registration's
 * event would be. Without EDGE it adds to the watch's level; an unknown tag has none. 0 or -ENOMEM.
 */
int fake_edge(struct poller *p, uint64_t tag, uint32_t events);

/* Without EDGE: the watch has no level now (the client drained it). */
void fake_calm(struct poller *p, uint64_t tag);

/* The watched description was closed: its registration goes without a word. */
void fake_gone(struct poller *p, uint64_t tag);

/* An own descriptor has this level now (0: none); what of it is wanted is reported each poll. */
void fake_own(struct poller *p, int fd, uint32_t events);

/* The next call of op returns -err, once, and does nothing else. */
void fake_fail(struct poller *p, enum fake_op op, int err);

/* The test's clock. The poller keeps it and never moves it. */
void fake_time(struct poller *p, int64_t now_ns);
int64_t fake_now(const struct poller *p);

/* What was asked of it. */
int64_t fake_delta(const struct poller *p);                /* of the last poll */
uint64_t fake_polls(const struct poller *p);               /* calls of poll */
uint64_t fake_wakes(const struct poller *p);               /* polls that consumed a break */
uint64_t fake_arms(const struct poller *p, uint64_t tag);  /* calls of arm; 0: unknown tag */
unsigned fake_armed(const struct poller *p, uint64_t tag); /* directions armed now */
unsigned fake_interest(const struct poller *p, uint64_t tag);
size_t fake_registered(const struct poller *p); /* watches, dead ones included */

#endif
