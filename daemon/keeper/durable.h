/* SPDX-License-Identifier: MIT */
#ifndef READYD_DURABLE_H
#define READYD_DURABLE_H

/*
 * A holder's durable parks: those that systemd's fd store has, too, from the moment on that their
 * PARK is answered until their end is. It writes them into depots (depot.h) as they are made and
 * change, without waiting for PID 1, and tells the loop what is stored (RECORD_STORED).
 *
 * It owns the depots that it has written or taken back. One thread. What closes may block, as in all
 * of a holder: durable_close() does, and durable_take() and durable_clear().
 */

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "daemon/edge/log.h"
#include "daemon/edge/record.h"
#include "holder_table.h"
#include "ledger.h"
#include "systemd/store.h"

TAILQ_HEAD(depot_list, depot);

/* One of them. */
struct depot {
	TAILQ_ENTRY(depot) list;
	struct holding_list members; /* parks whose newest record it has */
	struct holding_list dead;    /* that it has, and that are no more */
	unsigned n;                  /* members */
	uint32_t serial;             /* in its name */
	int fd;                      /* its last close is not to be PID 1's */
	bool full;
	bool stale; /* it has what is not its members' */
};

enum durable_state {
	DURABLE_IDLE,
	DURABLE_PUTTING,  /* new depots are being sent */
	DURABLE_STORING,  /* and are to be confirmed */
	DURABLE_REMOVING, /* old ones are being removed */
	DURABLE_CLEARING, /* and that is to be confirmed */
};

struct durable {
	struct ledger *ledger; /* NULL: there is no store */
	uint32_t uid;
	uint32_t term;
	struct log *log;
	struct holder_table *table;
	struct record_batch *batch;     /* for any message: nothing is kept in it */
	void (*waiting)(void *context); /* called twice a second while PID 1 is waited for */
	void *context;

	/* its own */
	enum durable_state state;
	struct store store;
	int barrier;                 /* -1: none is awaited */
	struct depot_list stored;    /* confirmed, or taken back */
	struct depot_list fresh;     /* this cycle's new ones */
	struct depot_list old;       /* that go in this cycle */
	struct depot_list spent;     /* to be closed */
	struct depot *next;          /* of these two: the next to be sent, or removed */
	struct holding_list pending; /* parks that have to be stored at once */
	struct holding_list lazy;    /* that can wait a little */
	struct holding_list answers; /* that the loop is to be told of */
	bool clearing;               /* this cycle removes what an earlier holder has left, too */
	size_t cursor;               /* in that */
	bool blocked;                /* PID 1's queue is full */
	bool nobody;                 /* there is no PID 1 to be told anything */
	bool overdue;                /* PID 1 is not heard of */
	bool out;                    /* another holder speaks for this uid */
	bool settle;                 /* what an earlier holder has stored is to go */
	bool settled;                /* the loop is to be told that this is done */
	uint32_t number;
	int64_t lazy_until, give_up, settle_until, again, trouble; /* ns; 0: none */
	struct log_site lost;
};

/* What comes before `its own` is set; the table's parks are seen from then on. */
void durable_init(struct durable *d);
/* Forgets all, at the end, before the table is cleared. */
void durable_clear(struct durable *d);

/* ---- What the loop says ---- */

/* A park of the table has just been held or changed; `place` as in the message. */
void durable_note(struct durable *d, struct holding *h, uint32_t place);

/* It is about to be dropped. h NULL: there is none of this token. -ENOMEM: the loop would wait for
 * ever. */
int durable_note_drop(struct durable *d, struct holding *h, const struct record_drop *drop,
		      uint32_t place);

/* SETTLE. */
void durable_settle(struct durable *d, uint32_t number);

/* A new loop is there: nobody waits for answers any more. */
void durable_orphan(struct durable *d);

/* PID 1 is waited for, so that a loop may wait for this holder for longer than usual. */
bool durable_is_under_way(const struct durable *d);

/* Nothing of what any loop has waited for is under way, or still to be begun. */
bool durable_is_quiet(const struct durable *d);

/* ---- What it does ---- */

/* As much as can be done without waiting. */
void durable_run(struct durable *d);

/* What it waits for: at most two, and a time, ns, INT64_MAX: none. */
unsigned durable_wait(const struct durable *d, struct pollfd ret[2], int64_t *ret_until);

/* Something is to be told to the loop. */
bool durable_has_answers(const struct durable *d);
/* Tells it. 0; as record_batch_send(). */
int durable_answer(struct durable *d, int socket);

/* Closes depots that are not needed. */
void durable_close(struct durable *d);

/* A depot that came back: the caller adds members by durable_join(). NULL: no memory. */
struct depot *durable_adopt(struct durable *d, uint32_t serial, int fd);
void durable_join(struct depot *depot, struct holding *h);

/* The end of a holder that does not speak for its uid: what is dead goes from the store, and what
 * lives is the next one's business. */
void durable_resign(struct durable *d, int64_t until);

/* Waits for PID 1 until all is as it should be, at most until `until`, ns. -ETIMEDOUT; -EINVAL: nobody
 * is there. */
int durable_finish(struct durable *d, int64_t until);

#endif
