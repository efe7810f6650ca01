/* SPDX-License-Identifier: MIT */
#ifndef READYD_SENDING_H
#define READYD_SENDING_H

/* What a connection is told, and what happens when its socket is full or its peer gone. */

#include "connection.h"

/* Adds to this turn's messages. A connection that is closing is told nothing more. */
void sending_add_record(struct connection *c, const void *record);
void sending_add_message(struct connection *c, unsigned type, unsigned flags, uint32_t serial,
			 const void *records, size_t count, const void *tail, size_t tail_size);

/* There is something to send to it that is in no message yet. */
void sending_queue(struct connection *c);

/* Sends its answers and its ready-list, as far as the socket takes them; the rest is kept. */
void sending_flush(struct connection *c);

/* Its peer cannot read any more: what is to be sent is dropped, what it sent is still read. */
void sending_lose_peer(struct connection *c);

/* The daemon ends: an ERROR that says so, if the socket takes it. */
void sending_say_goodbye(struct connection *c);

/* Drops what is kept for a socket that was full: the connection ends, or its peer is gone. */
void sending_end(struct connection *c);

#endif
