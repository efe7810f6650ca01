/* SPDX-License-Identifier: MIT */
#ifndef READYD_READING_H
#define READYD_READING_H

/* Whose requests are read in a turn, and in which order. */

#include "server_internal.h"

void reading_init(struct server *s);

/* Something is to be read; it is once, however often this is said. */
void reading_add(struct connection *c);

/* The connection ends. */
void reading_remove(struct connection *c);

/* Reads one datagram of each, as far as the outbox's room and what a turn may do allow. */
void reading_run(struct server *s);

#endif
