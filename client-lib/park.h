/* SPDX-License-Identifier: MIT */
#ifndef READYD_PARK_H
#define READYD_PARK_H

/*
 * Parks, as the library remembers them (park_table.c), and hand-outs that are not settled (take.c).
 * Included by internal.h.
 */

#include <stdbool.h>
#include <stdint.h>

#include "protocol/wire.h"
#include "readyd.h"
#include "waiter.h"

enum {
	RD_PARKS_A_CHUNK = 128,
	RD_TAKES_MAX =
		128, /* at once: what all of them say in HELD fits into the smallest message */
};

/* Neighbours in the kept list; in a free place `next` is the next free one. 0: none. */
struct rd_link {
	uint32_t next, prev;
};

enum rd_park_flag {
	RD_PARK_LIVE = 0x1,
	RD_PARK_LISTED = 0x2, /* in the kept list */
	RD_PARK_HAND = 0x4,   /* its deadline may be told after its readiness */
	RD_PARK_MADE = 0x8,   /* claimed, or parked, on this connection */
};

/* A park of this handle whose event is still to come. */
struct rd_park {
	uint8_t token[WIRE_TOKEN_SIZE];
	uint64_t number; /* the daemon's; 0: its request is not answered yet */
	uint64_t cookie;
	struct rd_link link;
	uint32_t gen;
	uint32_t next;       /* with the same hash; 0: none */
	uint8_t read, write; /* kept for readyd_poll() */
	uint8_t told;        /* enum wire_code: received, on whatever connection */
	uint8_t flags;       /* enum rd_park_flag */
};

struct rd_park_chunk {
	struct rd_park park[RD_PARKS_A_CHUNK];
};

enum rd_take_state {
	RD_TAKE_ASKING = 0, /* TAKE is to be sent, or not answered */
	RD_TAKE_PROMISED,   /* answered: the hand-out comes on this connection */
	RD_TAKE_ARRIVED,    /* the hand-out is here (without its fd, if there was no room) */
	RD_TAKE_OWNED,      /* settled: the fd is the caller's */
	RD_TAKE_REFUSED,    /* settled: it is not */
};

/* One readyd_take(). On its thread's stack, and in `takes`. */
struct rd_take {
	struct rd_take *next;
	struct rd_waiter waiter; /* for the hand-out, and for what becomes of it */
	enum rd_take_state state;
	uint32_t serial; /* of TAKE */
	uint32_t epoch;  /* connection on which the hand-out came */
	uint16_t error;  /* enum wire_error: why it was refused */
	int held;        /* its record in the HELD that is not answered yet; -1: none */
	uint8_t token[WIRE_TOKEN_SIZE];
	uint8_t *memory; /* what `taken` points into */
	struct readyd_taken taken;
};

struct rd_parking {
	uint32_t *hash; /* index of a park, by its number */
	uint32_t n_hash;
	struct rd_take *takes;
	unsigned n_takes;
	bool took;              /* this handle has sent TAKE at some time */
	struct rd_request held; /* HELD of this connection */
};

#endif
