/* SPDX-License-Identifier: MIT */
#ifndef READYD_RESUME_H
#define READYD_RESUME_H

/*
 * Coming back: what the handle knows while its connection is away (resume.c), and while the new one
 * learns from the table what the old one knew (rebuild.c). Included by internal.h.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/wire.h"
#include "waiter.h"

enum {
	RD_WINDOW = 2, /* WATCH messages whose answer is not read yet */
};

enum rd_link_state {
	RD_UP = 0,     /* connected, and the daemon knows the whole table (but for refusals) */
	RD_DOWN,       /* no connection; the next try is at `at` */
	RD_GREETING,   /* connected, HELLO is sent */
	RD_REBUILDING, /* greeted; the table is being told */
};

/* What a daemon knows of a place, on this connection: struct rd_watch's `made`. */
enum rd_made {
	RD_MADE = 0x1, /* all of it */
	RD_SENT =
		0x2, /* rebuild.c's WATCH is under way; its waits and deadlines follow the answer */
	RD_NEW = 0x4, /* readyd_watch()'s is under way: its caller repeats it */
};

/* What a stream watch was told, and must not be told again: shift by the slot's number. */
enum rd_told {
	RD_TOLD_TIMEOUT = 0x1,
	RD_TOLD_CLOSING = 0x4,
};

enum rd_batch_state {
	RD_BATCH_FREE = 0,
	RD_BATCH_ASKED,
	RD_BATCH_ANSWERED, /* its watches' waits and deadlines are still to be sent */
};

/* One message of rebuild.c's. */
struct rd_batch {
	struct rd_request request;
	enum rd_batch_state state;
	uint16_t type; /* enum wire_type: WATCH, TIMER_SET or CLAIM */
	unsigned n, next;
	uint32_t id[WIRE_FDS_MAX];
	uint32_t gen[WIRE_FDS_MAX]; /* as in the table */
};

struct rd_resume {
	enum rd_link_state link;
	bool sweeping;      /* the table is being gone through */
	bool again;         /* something was refused that may go well later */
	bool is_private;    /* the daemon was started by this handle */
	bool wants_private; /* it has gone for good: start another */
	bool starting;      /* a thread does */
	unsigned tries;     /* since it was up */
	unsigned sweeps;    /* that were refused something, in a row */
	uint32_t epoch;     /* connections that were lost */
	uint32_t watch_next, timer_next, park_next;
	uint64_t n; /* how often it came back */
	uint64_t random;
	int64_t give_up;    /* ns; 0: never */
	int64_t at;         /* what comes next by the clock: a try, or a sweep; 0: nothing */
	int64_t down_since; /* 0: it is up */
	int64_t hello_at;
	int64_t timer_at; /* what `timer` is set to */
	int timer;        /* timerfd in `epoll`: wakes a foreign loop for `at` */
	int grave;        /* a lost connection that the leader still polls, and closes */
	char *config;     /* of a private daemon */
	char **addresses; /* of earlier private daemons: a caller may still hold them */
	size_t n_addresses;
	struct rd_batch batches[RD_WINDOW];
};

/* ---- resume.c ---- */

/* The connection has ended, for the reason of the sentence: comes back, or ends the handle if that
 * is not wanted. Completes all requests that are under way as lost. Never blocks. */
void rd_lose(struct readyd *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Does what is due: tries, tells, tries again. Never blocks. */
void rd_resume_run(struct readyd *r);

/* WELCOME came. */
void rd_greeted(struct readyd *r, const struct wire_view *view);

/* When rd_resume_run() wants to be called by the clock; 0: never. */
int64_t rd_resume_due(const struct readyd *r);

/* Something is planned for `at`: the leader must not sleep beyond it. */
void rd_resume_plan(struct readyd *r, int64_t at);

/* A time between half of that and all of it. */
int64_t rd_jitter(struct readyd *r, int64_t ns);

/* Waits until the link is up. May block. 0, or the sticky error. */
int rd_link_await(struct readyd *r);

/* Waits until the table is not being told: the link is up, or there is none. May block. */
void rd_link_settle(struct readyd *r);

/* Starts the private daemon that is wanted. May block, for as long as that takes. */
void rd_private_again(struct readyd *r);

/* ---- rebuild.c ---- */

/* Begins to tell the daemon the whole table. */
void rd_rebuild_begin(struct readyd *r);

/* Goes on with it, as far as answers and room allow. Never blocks. */
void rd_rebuild(struct readyd *r);

/* Another sweep is needed, after that pause. */
void rd_rebuild_again(struct readyd *r, int64_t pause);

/* The daemon knows nothing any more. */
void rd_rebuild_forget(struct readyd *r);

/* Does for a watch that the daemon does not know what needs no daemon: ends waits that were
 * evicted, whose deadline has passed, or whose event was promised. */
void rd_carry_out(struct readyd *r, uint32_t id);

/* ---- reset.c ---- */

/* Ends a watch for good, but for readyd_unwatch(): waits get closing from now on. */
void rd_watch_close(struct readyd *r, uint32_t id);

/* ---- connect.c ---- */

/* HELLO, into the buffer of the datagram under construction. Its bytes. */
size_t rd_hello_make(struct readyd *r);

/* Notes what WELCOME says, sent and received at these times. 0, or a negative errno with a clause. */
int rd_welcome_take(struct readyd *r, const struct wire_view *view, int64_t before, int64_t after,
		    char *ret_text, size_t size);

/* ---- search.c ---- */

/* A connected socket, without waiting and without words: -EAGAIN when the daemon has too many to
 * accept. */
int rd_socket_try(const char *address, int *ret);

#endif
