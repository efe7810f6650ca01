/* SPDX-License-Identifier: MIT */
#ifndef READYD_DEPOT_H
#define READYD_DEPOT_H

/*
 * Depots: how a holder's parks outlive the whole service. A depot is a socket in whose queue lies
 * one message (record.h) with parks, as a holder gives them back; it is what systemd's fd store keeps.
 *
 * These are a holder's, and may wait: for PID 1, but no longer than a time that the caller knows
 * of; and in a close of what the uid's clients sent.
 */

#include "daemon/edge/log.h"
#include "daemon/edge/record.h"
#include "holder_table.h"
#include "ledger.h"
#include "systemd/store.h"

struct depots {
	struct ledger *ledger; /* NULL: there is no store */
	uint32_t uid;
	uint32_t term;
	struct log *log;
	void (*waiting)(void *context); /* called twice a second while PID 1 is waited for */
	void *context;
};

/*
 * At the start of a holder: puts what the depots among `entries` that are this uid's have into the
 * table, and takes them out of the store, and with them whatever an earlier holder of this uid has
 * left there. What cannot be used was logged. The fds are closed.
 */
void depots_take(struct depots *d, struct holder_table *t, struct record_message *m,
		 struct store_entry *entries, size_t n);

/* At its end: stores all parks, if this is the holder that speaks for its uid. What cannot be
 * stored was logged. */
void depots_store(struct depots *d, const struct holder_table *t, struct record_batch *b);

#endif
