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
	RD_PARK_FRESH = 0x10, /* has no event: is here to be claimed, for a while */
};

/* A park of this handle whose event is still to come. */
struct rd_park {
	uint8_t token[WIRE_TOKEN_SIZE];
	uint64_t number; /* the daemon's; 0: its request is not answered yet */
	uint64_t cookie;
	struct rd_link link; /* a fresh one's: in the list of these */
	uint32_t since;      /* fresh: s, when it was answered or claimed */
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

/*
 * A fd on its way to this handle: one readyd_take(), on its thread's stack and in `takes`; or a hand-out
 * of a group, in `arrived`, and in `takes` from the moment that a readyd_receive() claims it.
 */
struct rd_take {
	struct rd_take *next;
	struct rd_group *group; /* whose hand-out it is; NULL: none, or it was left meanwhile */
	bool told;              /* readyd_poll() has told of it */
	bool orphan; /* its readyd_receive() had to go before it was settled: another adopts it */
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

/*
 * A group that this handle works for. What the daemon knows (`told`, `credit`) follows what is wanted
 * by one request at a time.
 */
struct rd_group {
	struct rd_group *next;
	struct rd_request request;
	struct rd_waiter *caller; /* readyd_attach() or readyd_detach(), which wait for that */
	uint16_t asked;           /* WIRE_ATTACH or WIRE_DETACH is under way; 0: nothing is */
	uint16_t error;           /* enum wire_error: why the daemon refuses */
	bool refused;             /* for good: readyd_receive() says so, and it is gone */
	bool stuck;               /* for now: it is said again later */
	unsigned tries;
	unsigned capacity; /* hand-outs at once; 0: it is being left */
	unsigned previous; /* what `capacity` was, if the daemon refuses the new one */
	unsigned told;     /* capacity that the daemon knows, on this connection; 0: none */
	unsigned asked_capacity, asked_more;
	unsigned credit;   /* hand-outs that the daemon may still make, at most */
	unsigned here;     /* hand-outs that have arrived, and nobody has received */
	unsigned working;  /* that were received, and are not done */
	unsigned withheld; /* that found no free fd: credit again at the next readyd_receive() */
	uint8_t length;
	char name[WIRE_NAME_MAX + 1];
};

/* A hand-out to be given back. */
struct rd_return {
	struct rd_return *next;
	uint8_t token[WIRE_TOKEN_SIZE];
};

struct rd_parking {
	uint32_t *hash; /* index of a park, by its number */
	uint32_t n_hash;
	uint32_t fresh, fresh_last; /* parks with a number that are fresh; 0: none */
	struct rd_take *takes;
	unsigned n_takes;
	bool took;   /* this handle has sent TAKE or ATTACH at some time */
	bool worked; /* it has sent ATTACH */
	bool unsaid; /* something of groups is to be said when there is room */
	bool hurry;  /* something of them was said that nobody waits for */
	bool full;   /* a hand-out found no free fd, and readyd_receive() has not said so */
	bool notice; /* readyd_poll() has to tell that readyd_receive() has something to say */
	unsigned n_receivers; /* threads in a readyd_receive() that may block */
	struct rd_group *groups;
	struct rd_take *arrived, **arrived_end; /* oldest first */
	struct rd_return *returns;
	struct rd_request held; /* HELD of this connection */
};

#endif
