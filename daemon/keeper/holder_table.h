/* SPDX-License-Identifier: MIT */
#ifndef READYD_HOLDER_TABLE_H
#define READYD_HOLDER_TABLE_H

/*
 * What a holder has: parks by their tokens, each with its record, texts and fds, and fds that wait
 * for the word to close them. The table owns all of these fds. Closing one may block for as long as
 * the client who sent it likes: every call here that closes does so last, and leaves the table in
 * order before; what would linger is left to the closer (closer.h). One thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "closer.h"
#include "daemon/edge/record.h"

TAILQ_HEAD(holding_list, holding);
TAILQ_HEAD(closing_list, closing);

/* What durable.h has to know of a park. */
struct holding_stored {
	struct depot *depot;        /* that has it; NULL: none */
	struct holding_list *queue; /* waits to be stored; NULL: need not */
	TAILQ_ENTRY(holding) member, queued, answer;
	uint64_t written; /* the serial that is in the depot */
	uint64_t asked;   /* the serial that the loop waits for; 0: none */
	uint64_t told;    /* what it will be told to have been stored, or lost */
	uint32_t place;   /* its word for the park */
	bool safe;        /* systemd has a depot with it for sure */
	bool answering;   /* the loop is to be told */
	bool lost;        /* that it is lost */
	bool gone;        /* it is not in the table any more */
};

struct holding {
	struct record record; /* begins with the token, which is the key */
	int fds[3];           /* in a record's order; the last two may be -1: none */
	TAILQ_ENTRY(holding) list;
	struct holding_stored stored;
	uint8_t text[];
};

struct holder_table {
	void *tree; /* tsearch(3) */
	struct holding_list parks;
	struct holding *given; /* the next to give back; NULL: none */
	size_t n;
	struct closer *closer; /* the caller's, who flushes it; NULL: all is closed here */
	bool exiting;          /* closes nothing any more: the exit does, which never lingers */
	/* a park has left the table: its fds and its memory are the callee's; or NULL */
	void (*leaves)(void *context, struct holding *h);
	void *context;
	struct closing_list closing; /* until GO */
	struct closing_list orphans; /* of a loop that is dead */
};

void holder_table_init(struct holder_table *t);

/* Closes all fds, if it is not exiting, and frees all. */
void holder_table_clear(struct holder_table *t);

/*
 * HOLD: a new park, or all of one that is there. `fds` are those of the operation: the table takes
 * them (and sets them to -1) when it returns 0. -ESTALE: what is there is newer. -ENOMEM.
 */
int holder_table_hold(struct holder_table *t, const struct record_op *op, int *fds);

/* CHANGE: the same for a record without texts and the parked fd. -ENOENT: there is no such park.
 * -EINVAL: its texts were others. -ESTALE. */
int holder_table_change(struct holder_table *t, const struct record_op *op, int *fds);

/* DROP. -ENOENT, -ESTALE. */
int holder_table_drop(struct holder_table *t, const struct record_drop *drop);

/* CLOSE and GO. -ENOMEM: they are the caller's still. */
int holder_table_keep(struct holder_table *t, uint32_t number, int *fds, unsigned n_fds);
void holder_table_close(struct holder_table *t, uint32_t number);

/* Whoever would say GO is dead: all that waits for it now is closed by the second call. */
void holder_table_orphan(struct holder_table *t);
void holder_table_close_orphans(struct holder_table *t);

/* NULL: there is none. */
struct holding *holder_table_find(struct holder_table *t, const uint8_t *token);

/* Those of a park that has left the table. */
void holder_table_close_fds(const struct holder_table *t, struct holding *h);

/* The fds of a park, as HOLD sends them: how many. */
unsigned holding_fds(const struct holding *h, int ret[3]);

#endif
