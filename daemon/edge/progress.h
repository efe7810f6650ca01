/* SPDX-License-Identifier: MIT */
#ifndef READYD_PROGRESS_H
#define READYD_PROGRESS_H

/*
 * The page in which a loop shows whoever watches over it that it gets on, and with what: since
 * when it is busy, how many turns it has finished, the step that it is in (for whom it does what),
 * and how much it has to look after. The watcher sees it while the loop runs, and as the loop left it when it died.
 *
 * A watcher may sleep while the loop does: progress_fall_asleep() says whether it may, and the loop
 * wakes it by an eventfd when it gets busy. So two processes that have nothing to do make no system
 * call, and a loop under load makes one more each time that its watcher had fallen asleep.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum progress_kind {
	PROGRESS_NONE,
	PROGRESS_ACCEPT,  /* a new connection */
	PROGRESS_REQUEST, /* a datagram of a connection */
	PROGRESS_EVENTS,  /* the kernel's events of a session */
	PROGRESS_SEND,    /* answers and ready-list of a connection */
	PROGRESS_END,     /* a connection is ended */
	PROGRESS_PARK,    /* a park is ready, or its time has come */
	PROGRESS_HOLDER,  /* what a holder says */
	PROGRESS_MAX,
};

/* What is done, and for whom. */
struct progress_step {
	enum progress_kind kind;
	uint32_t uid;
	int32_t pid;
	uint64_t object; /* the session's number; 0: none yet */
};

/* Shared memory. The loop writes; of `asleep`, both. */
struct progress_page {
	_Atomic int64_t busy_since; /* CLOCK_MONOTONIC, ns; 0: idle */
	_Atomic uint32_t asleep;    /* the watcher waits for the eventfd */
	_Atomic uint32_t kind;
	_Atomic uint32_t uid;
	_Atomic int32_t pid;
	_Atomic uint64_t object;
	_Atomic uint64_t turns; /* finished */
	_Atomic uint64_t connections;
	_Atomic uint64_t watches;
	_Atomic uint64_t waiting;
	_Atomic uint64_t timers;
};

/* What the loop has, as of the end of its last turn. */
struct progress_counts {
	uint64_t connections;
	uint64_t watches;
	uint64_t waiting; /* slots with a waiter */
	uint64_t timers;
};

/* The loop's end of it. Without a page, nobody watches and nothing is done. */
struct progress {
	struct progress_page *page;
	int wake; /* eventfd */
};

/* ---- The loop ---- */

/* A turn begins (now > 0), or goes on. */
void progress_busy(const struct progress *p, int64_t now);

/* It may block from here on. */
static inline void progress_idle(const struct progress *p)
{
	if (p->page)
		atomic_store_explicit(&p->page->busy_since, 0, memory_order_release);
}

static inline void progress_finish_turn(const struct progress *p)
{
	if (p->page)
		atomic_fetch_add_explicit(&p->page->turns, 1, memory_order_relaxed);
}

/* At a turn's end: for people, so the numbers need not fit each other. */
static inline void progress_count(const struct progress *p, const struct progress_counts *counts)
{
	if (!p->page)
		return;
	atomic_store_explicit(&p->page->connections, counts->connections, memory_order_relaxed);
	atomic_store_explicit(&p->page->watches, counts->watches, memory_order_relaxed);
	atomic_store_explicit(&p->page->waiting, counts->waiting, memory_order_relaxed);
	atomic_store_explicit(&p->page->timers, counts->timers, memory_order_relaxed);
}

/* Cheap: it stands around everything that is done for a client. */
static inline void progress_enter(const struct progress *p, enum progress_kind kind, uint32_t uid,
				  int32_t pid, uint64_t object)
{
	if (!p->page)
		return;
	atomic_store_explicit(&p->page->uid, uid, memory_order_relaxed);
	atomic_store_explicit(&p->page->pid, pid, memory_order_relaxed);
	atomic_store_explicit(&p->page->object, object, memory_order_relaxed);
	atomic_store_explicit(&p->page->kind, kind, memory_order_release);
}

static inline void progress_leave(const struct progress *p)
{
	if (p->page)
		atomic_store_explicit(&p->page->kind, PROGRESS_NONE, memory_order_release);
}

/* ---- The watcher ---- */

/* A page of its own for a loop that is to be made; it counts as busy until it says otherwise.
 * -ENOMEM. */
int progress_page_new(int64_t now, struct progress_page **ret);

/* NULL is accepted. Returns NULL. */
struct progress_page *progress_page_free(struct progress_page *page);

/* Whether the watcher may sleep on the eventfd: the loop is idle, and will write there. */
bool progress_fall_asleep(struct progress_page *page);

/* 0: idle. */
int64_t progress_busy_since(const struct progress_page *page);
uint64_t progress_turns(const struct progress_page *page);
void progress_get_step(const struct progress_page *page, struct progress_step *ret);
void progress_get_counts(const struct progress_page *page, struct progress_counts *ret);

#endif
