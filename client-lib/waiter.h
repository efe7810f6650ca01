/* SPDX-License-Identifier: MIT */
#ifndef READYD_WAITER_H
#define READYD_WAITER_H

/* Threads that wait, and the requests whose answers they wait for. Included by internal.h. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/wire.h"
#include "readyd.h"

struct rd_timer;

/* What a waiting thread takes besides what it has asked for. */
enum rd_wants {
	RD_WANTS_NOTHING = 0,
	RD_WANTS_EVENTS,   /* it is in readyd_poll() */
	RD_WANTS_HANDOUTS, /* it is in readyd_receive() */
};

/* A thread inside a call; the word is a futex. On its stack. */
struct rd_waiter {
	struct rd_waiter *next, *prev; /* in `sleepers`, while it sleeps */
	_Atomic uint32_t word;         /* 1: woken */
	bool sleeps;                   /* in rd_sleep() */
	bool done;                     /* what it waits for has come */
	uint8_t wants;                 /* enum rd_wants */
	bool wants_room;               /* for its request in `out` */
	uint8_t code;                  /* pollwait: the result */
};

/* One request whose answer a thread waits for. On its stack. */
struct rd_request {
	struct rd_waiter waiter;
	struct rd_request *next; /* in `requests`, in order of sending */
	uint32_t serial;
	uint16_t reply_type; /* a message of this type is the answer; 0: a record */
	uint16_t error;      /* enum wire_error: the first refusal */
	uint16_t detail;
	uint32_t limit;
	uint64_t value;
	const void *tail; /* goes with the request */
	size_t tail_size;
	/* Told of each refused record; NULL: the first one is noted above. */
	void (*refused)(struct readyd *r, struct rd_request *q, const struct wire_failure *f);
	/* Told, in the turn when it happens, that the answer came, or that the connection was lost before
	 * it; either may be NULL. */
	void (*answered)(struct readyd *r, struct rd_request *q);
	void (*gone)(struct readyd *r, struct rd_request *q);
	void *context;
	bool lost;                    /* the connection ended before the answer came */
	const struct rd_timer *timer; /* the timer that it arms or stops */
	bool swallowed;               /* an old event of that timer came meanwhile */
	uint8_t *reply;               /* WIRE_MESSAGE_MAX bytes of the asker's */
	size_t reply_size;
};

#endif
