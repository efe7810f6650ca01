/* SPDX-License-Identifier: MIT */
#ifndef READYD_DEPOT_H
#define READYD_DEPOT_H

/*
 * Depots: how a holder's parks outlive the whole service. A depot is a socket in whose queue lies
 * one message (record.h) with parks, as a holder gives them back; it is what systemd's fd store keeps.
 *
 * Here are their making, and a holder's start and end. These two may wait: for PID 1, but no longer
 * than a time that the caller knows of; and in a close of what the uid's clients sent. What goes into
 * the store meanwhile is durable.h's.
 */

#include "durable.h"

/* A park as it is in a depot. As record_batch_add(). */
int depot_add(struct record_batch *b, const struct holding *h);

/* A depot of what is in the batch: its reading end, or a negative errno. */
int depot_make(const struct record_batch *b);

/*
 * At the start of a holder: puts what the depots among `entries` that are this uid's have into the
 * table. What is not durable is out of the store then, and what is is there once. What cannot be
 * used was logged. The fds are taken over.
 */
void depots_take(struct durable *d, struct record_message *m, struct store_entry *entries,
		 size_t n);

/* At its end: stores all parks, if this is the holder that speaks for its uid. What cannot be
 * stored was logged. */
void depots_store(struct durable *d);

#endif
