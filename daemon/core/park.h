/* SPDX-License-Identifier: MIT */
#ifndef READYD_PARK_H
#define READYD_PARK_H

/*
 * Parks: fds that the daemon keeps for a uid, each with a small note, until somebody takes them.
 * This is their state machine, without a system call: requests, deaths, events and the time are
 * arguments. It is the loop's side of the model park.pml: never two owners, and in the end a worker
 * has it.
 *
 * Who is who. An *owner* is a uid that has parks. A *handle* is one that parks and takes: a
 * library's 128-bit id of itself, drawn at random (HELLO), which outlives connections. `maker` is
 * the handle that parked it or claimed it last, `worker` the one that it is handed to.
 *
 *   (new) -> held, unanswered -> held -> handed -> gone
 *                                  ^       |
 *                                  +-------+
 *
 *  - unanswered: the answer to PARK has not been sent; only park_answered(), a claim or the maker's
 *    death ends that, and nobody gets, drops or expires it before.
 *  - handed: recorded for a worker, to which then the fd may be sent. Its word (acknowledged, held)
 *    makes it gone; its word (not held), the end of its connection by itself, or its death makes it
 *    held again, and ready.
 *  - gone: the caller closes the fd, has the record deleted, and frees the park.
 *
 * Changes. Whatever changes a record puts the park on one list, once; the caller takes it from there
 * (parks_take_changed) after each call and before it sends anything, and writes the record, closes,
 * registers.
 *
 * Returns: 0 or a negative errno that concerns the one request; nothing has changed then. One thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "hash_map.h"
#include "pair_heap.h"
#include "quota.h"

enum {
	PARK_TOKEN_SIZE = 16,
	PARK_TEXT_MAX = 255 + 255 + 2048 + 128 + 128,
};

struct parks;
struct park;
struct park_group;
struct park_worker;

TAILQ_HEAD(park_queue, park);

/* As in the wire's flags of PARK. */
enum park_flag {
	PARK_DURABLE = 0x1,
	PARK_HOLD_ONLY = 0x2,
	PARK_DEADLINE_HAND = 0x8, /* at the deadline it is ready, marked; else it is gone */
};

enum park_state {
	PARK_HELD,
	PARK_HANDED,
	PARK_GONE,
};

/* Why it is gone: what the caller has to do besides closing. */
enum park_end {
	PARK_END_TAKEN,   /* its worker has it */
	PARK_END_DROPPED, /* by a request */
	PARK_END_EXPIRED, /* its deadline: shut it down, a forked child may hold a copy */
};

/* A uid with parks. */
struct park_owner {
	uint32_t uid;
	uint32_t n_handles;
	uint64_t n_parks; /* all that are not freed */
	struct quota *quota;
	void *caller;
};

/* One that parks and takes. The caller may set `caller`. */
struct park_handle {
	uint8_t id[PARK_TOKEN_SIZE];
	struct park_owner *owner;
	void *caller;
	bool attached;                     /* has a connection */
	uint32_t references;               /* how often parks name it: as maker, as worker */
	uint32_t n_handed;                 /* parks handed to it */
	uint64_t connections;              /* how many it has had */
	struct park_queue made;            /* whose maker it is */
	struct park_queue given;           /* handed to it, oldest first */
	TAILQ_HEAD(, park_worker) workers; /* what it offers to groups (park_group.h) */
	TAILQ_ENTRY(park_handle) list;
};

/* The texts of a park, one directly after the other: name, group, note, local and peer address. */
struct park_text {
	uint16_t note_length;
	uint8_t name_length;
	uint8_t group_length;
	uint8_t local_length;
	uint8_t peer_length;
	const uint8_t *bytes;
};

/* Bytes of all texts together. */
static inline size_t park_text_size(const struct park_text *t)
{
	return (size_t)t->name_length + t->group_length + t->note_length + t->local_length +
	       t->peer_length;
}

/* What PARK says, and what a record brings back. */
struct park_new {
	uint8_t token[PARK_TOKEN_SIZE];
	uint64_t cookie;
	int64_t deadline; /* ns, absolute; 0: none */
	uint32_t flags;   /* enum park_flag */
	int32_t told_fd;
	uint8_t interest; /* enum core_direction */
	uint8_t kind;     /* opaque here */
	bool shared;      /* its group is; it has one */
	struct park_text text;
};

/* Read-only for the caller, but for the last part. */
struct park {
	uint8_t token[PARK_TOKEN_SIZE];
	uint64_t number; /* never used again */
	uint64_t cookie;
	int64_t parked;   /* when */
	int64_t since;    /* when it was handed or came back; else as parked */
	int64_t deadline; /* 0: none, or it has passed */
	uint64_t serial;  /* of its last change: grows over all parks, and over all loops */
	struct park_owner *owner;
	struct park_handle *maker;  /* NULL: it died unanswered, or the park is gone */
	struct park_handle *worker; /* while handed */
	uint32_t flags;
	int32_t told_fd;
	uint32_t index;
	uint8_t interest;
	uint8_t kind;
	uint8_t state; /* enum park_state */
	uint8_t end;   /* enum park_end, when gone */
	bool answered;
	bool timed_out; /* its deadline has passed, DEADLINE_HAND: ready, whatever `ready` says */
	uint8_t ready;  /* directions of the interest; stays until it is gone; HOLD_ONLY: none */
	bool changed;   /* on the list of changes */
	bool shared;    /* its group is not its owner's alone */
	struct park_group *group; /* NULL: none, or it is gone */
	struct pair_node due;     /* in its group's heap */
	uint64_t turn;            /* in which it became ready; 0: it never was */
	int64_t ready_since;      /* the same as a time */
	uint64_t connection;      /* of the worker, on which it was handed; 0: by an earlier loop */
	TAILQ_ENTRY(park) change, of_maker, of_worker;
	struct park_text text; /* bytes: the park's own */

	/* the caller's own */
	int fd;
	uint32_t word;
	uint64_t file;
	uint32_t caller_flags;
	uint32_t handout;          /* the serial of the request that it is handed out for */
	uint64_t recorded;         /* the serial that is in the record */
	uint64_t stored;           /* durable: the serial that is in the store; 0: none */
	uint64_t must_store;       /* durable: the serial that has to be */
	uint64_t ticket;           /* of those that wait for the store, in order */
	struct park_queue *queued; /* the queue that it is in; NULL: none */
	TAILQ_ENTRY(park) queue;
	TAILQ_ENTRY(park) dirty;
	TAILQ_ENTRY(park) storing;
};

/* `first_number`: of the first park, and of its serials; both only grow, so that a caller that
 * begins at the clock's ns repeats neither after a restart. `key`: secret, of the hash tables.
 * -ENOMEM. */
int parks_new(uint64_t first_number, const struct hash_key *key, struct parks **ret);

/* Frees all without another word; fds are the caller's. NULL is accepted. Returns NULL. */
struct parks *parks_free(struct parks *ps);

/* How many there are that are not freed, and how many of them are handed, ready (and held). */
struct parks_stats {
	uint64_t parks;
	uint64_t handed;
	uint64_t ready;
	uint64_t taken, dropped, expired, returned; /* counters; returned: handed, and held again */
};
const struct parks_stats *parks_stats(const struct parks *ps);

/* Of a token or a handle: none. */
static inline bool park_is_zero(const uint8_t id[PARK_TOKEN_SIZE])
{
	uint8_t any = 0;

	for (unsigned i = 0; i < PARK_TOKEN_SIZE; i++)
		any |= id[i];
	return !any;
}

/* ---- Owners and handles ---- */

/* The owner of this uid, or NULL. */
struct park_owner *parks_find_owner(const struct parks *ps, uint32_t uid);

/* Makes it; parks are charged to `quota`, the caller's. -EEXIST, -ENOMEM. */
int parks_add_owner(struct parks *ps, uint32_t uid, struct quota *quota, struct park_owner **ret);

/* Frees one without parks and handles. */
void parks_end_owner(struct parks *ps, struct park_owner *o);

/* The handle of that id and owner, found (0) or made (1). An all-zero id is nobody's: -EINVAL.
 * -ENOMEM. A made one is idle until it is attached or named by a park. */
int parks_get_handle(struct parks *ps, struct park_owner *o, const uint8_t id[PARK_TOKEN_SIZE],
		     struct park_handle **ret);

/* The handle of that id and owner, or NULL. */
struct park_handle *parks_find_handle(const struct parks *ps, const struct park_owner *o,
				      const uint8_t id[PARK_TOKEN_SIZE]);

/* Says whether it has a connection; true for each new one, before a request of that one. */
void parks_attach(struct parks *ps, struct park_handle *h, bool attached);

/* A handle that is not attached and that no park names, or NULL: to be freed by the caller's call
 * of parks_end_handle(). */
struct park_handle *parks_next_idle(const struct parks *ps);
void parks_end_handle(struct parks *ps, struct park_handle *h);

/* Its client ended the connection: what is handed to it is held again. */
void parks_disconnected(struct parks *ps, struct park_handle *h, int64_t now);

/* Its process is dead: the same, and what it made and is unanswered is nobody's, and answered. */
void parks_died(struct parks *ps, struct park_handle *h, int64_t now);

/* ---- Requests; the owner of what is made or claimed is the handle's ---- */

/*
 * PARK. 0: made, unanswered. 1: a park with this token is there, the repeat of a request, which
 * changes nothing but the maker. The fd is the caller's in both cases (the second one's to close).
 * -EEXIST: name and group in use, or the token is another owner's. -EINVAL: a token of zeros, an
 * unknown flag or direction, no direction without HOLD_ONLY, a text that is too long. -EDQUOT:
 * parks; -ENOSPC: bytes of notes. -ENOMEM.
 */
int parks_park(struct parks *ps, struct park_handle *maker, const struct park_new *new, int64_t now,
	       struct park **ret);

/* The answer to its PARK was sent. */
void parks_answered(struct parks *ps, struct park *p);

/* It could not be stored, and its PARK was not answered: gone, as if dropped; its maker has the fd. */
void parks_refuse(struct parks *ps, struct park *p);

/* CLAIM: it is this handle's, and answered. -ENOENT. */
int parks_claim(struct parks *ps, struct park_handle *maker, const uint8_t token[PARK_TOKEN_SIZE],
		struct park **ret);

/* How TAKE and DROP name one. NULL: none of this owner, which may be NULL: anybody's. */
struct park *parks_find_token(const struct parks *ps, const struct park_owner *o,
			      const uint8_t token[PARK_TOKEN_SIZE]);
struct park *parks_find_number(const struct parks *ps, const struct park_owner *o, uint64_t number);
/* By name and group of one owner; a park without a name cannot be found so. */
struct park *parks_find_name(const struct parks *ps, const struct park_owner *o, const void *name,
			     size_t name_length, const void *group, size_t group_length);

/* TAKE: handed to worker, whose owner may be another one: whether it may have it, the caller knows.
 * -ENOENT: it is handed to somebody, or gone; -EBUSY: unanswered; -EDQUOT: too many hand-outs of
 * worker's owner are not acknowledged (QUOTA_FDS_UNREAD). */
int parks_hand(struct parks *ps, struct park *p, struct park_handle *worker, int64_t now);

/* The hand-out cannot be sent: held again, as parks_disconnected() for this one. */
void parks_take_back(struct parks *ps, struct park *p, int64_t now);

/* DROP. -ENOENT: it is handed to somebody, or gone; -EBUSY: unanswered. */
int parks_drop(struct parks *ps, struct park *p);

/* It is older than the operator lets anything be: gone, as by a deadline. As parks_drop(). */
int parks_end_age(struct parks *ps, struct park *p);

/* ACKNOWLEDGE: worker has it. 0: gone now, or unknown, which means gone before. -ENOENT: it is not
 * handed to this worker. */
int parks_acknowledge(struct parks *ps, struct park_handle *worker,
		      const uint8_t token[PARK_TOKEN_SIZE]);

/* HELD: worker's word on one. As above if `held`; else it is held by the daemon again. -ENOENT as
 * above. */
int parks_state_held(struct parks *ps, struct park_handle *worker,
		     const uint8_t token[PARK_TOKEN_SIZE], bool held, int64_t now);

/* The last word of a HELD: nothing else that was handed to worker has reached it. It is about
 * earlier connections: what is handed on this one is under way, and may arrive yet. */
void parks_state_no_other(struct parks *ps, struct park_handle *worker, int64_t now);

/* ---- What happens ---- */

/* Directions became ready: noted, no record changes. The caller finds it on the list of changes. */
void parks_ready(struct parks *ps, struct park *p, unsigned directions, int64_t now);

/* Deadlines with when <= now, at most `max` of them; those of parks that are handed or unanswered
 * wait for that to end. true: there are more. */
bool parks_expire(struct parks *ps, int64_t now, unsigned max);

/* When it has something to do next, ns; INT64_MAX: never. May be early, never late. */
int64_t parks_next_expiry(const struct parks *ps);

/* ---- Records ---- */

/* What a holder gives back. */
struct park_restore {
	struct park_new new;
	uint64_t number;
	uint64_t serial;
	int64_t parked;
	uint8_t maker[PARK_TOKEN_SIZE];  /* zero: none */
	uint8_t worker[PARK_TOKEN_SIZE]; /* of one that is handed */
	struct park_owner *worker_owner; /* its owner; NULL: the park's */
	int64_t now; /* since when it counts as ready, if it was handed or timed out */
	bool handed;
	bool answered;
	bool timed_out;
};

/*
 * Makes a park as it was, its serial too, charged even beyond the quota: it is there. Later numbers
 * and serials are greater. It is on the list of changes. -EEXIST: token, number or name is in use;
 * then *ret is the one that has it. -EINVAL: the record contradicts itself. -ENOMEM.
 */
int parks_restore(struct parks *ps, struct park_owner *o, const struct park_restore *r,
		  struct park **ret);

/* The next park whose record or readiness changed, oldest change first; it leaves the list. NULL:
 * none. */
struct park *parks_take_changed(struct parks *ps);

/* Frees a park that is gone, and is on no list. */
void parks_end(struct parks *ps, struct park *p);

/* The park at the lowest index > *cursor, which moves there; NULL: no more. `owner` NULL: of all.
 * Those that are gone are seen until they are freed. */
struct park *parks_next(const struct parks *ps, const struct park_owner *owner, uint64_t *cursor);

/* The park at an index, gone or not; NULL: none. */
struct park *parks_at_index(const struct parks *ps, uint32_t index);

/* All invariants; aborts with a message when one is broken. O(everything). */
void parks_check(const struct parks *ps);

#endif
