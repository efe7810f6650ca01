/* SPDX-License-Identifier: MIT */
#ifndef READYD_CORE_H
#define READYD_CORE_H

/*
 * The core: watches, slots, deadlines, timers and ready-lists of all sessions. Go's pollDesc and
 * the timers of its runtime, for many processes.
 *
 * It makes no system call and reads no clock: requests, what the kernel reported and the time
 * (`now`, ns of CLOCK_MONOTONIC) are arguments, and what is to be sent is asked for. One thread
 * owns a core; two cores share nothing.
 *
 * Names. A watch or timer is named by its session and (id, gen), the client's choice; by its
 * *tag*, table index and a generation of the core's own, towards the kernel. The tag of a freed
 * item never names another one.
 *
 * Returns. 0; a negative errno, which concerns the one record: -ENOENT no such id, -ESTALE live
 * with another gen, -EINVAL, -EEXIST, -EBUSY, -EALREADY, -ENOMEM, -EDQUOT (a quota; which one
 * follows from the call); or, where the comment says so, a positive enum core_code, the result of
 * Go's netpollcheckerr. After a negative result nothing has changed.
 *
 * Rules: netpoll-semantics of Go's runtime, sections 1 and 2, told in PROTOCOL.md.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quota.h"

struct core;
struct session;

enum core_direction {
	CORE_READ = 0x1,
	CORE_WRITE = 0x2,
	CORE_BOTH = 0x3,
};

/* What an entry says of a direction, as a mask; alone, the result of the error check. */
enum core_code {
	CORE_CODE_READY = 0x1,
	CORE_CODE_CLOSING = 0x2,
	CORE_CODE_TIMEOUT = 0x4,
	CORE_CODE_NOT_POLLABLE = 0x8,
};

enum core_mode {
	CORE_MODE_WAIT = 0,
	CORE_MODE_STREAM = 1,
};

enum core_entry_kind {
	CORE_ENTRY_WATCH = 1,
	CORE_ENTRY_TIMER = 2,
	CORE_ENTRY_BREAK = 3,
};

/* One thing to tell a client. */
struct core_entry {
	uint8_t kind;
	uint8_t mode;
	uint8_t read; /* enum core_code; 0: nothing about this direction */
	uint8_t write;
	uint16_t read_stamp; /* of the expired deadline, where the code is timeout */
	uint16_t write_stamp;
	uint32_t id;
	uint32_t gen;
	uint64_t cookie;
	uint32_t count; /* timer: expirations */
};

struct core_options {
	/* Level-triggered backend: readiness that nobody waits for is not latched (arm reports the
	 * level), and stream mode is refused with -EOPNOTSUPP. */
	bool level;
	/* A secret of the caller's: ids are the clients' choice, and who knew how they are hashed could
	 * make look-ups slow for all. */
	uint64_t hash_key;
};

/* Numbers of the whole core. Counters only grow. */
struct core_stats {
	uint64_t sessions, watches, timers; /* live */
	uint64_t waiting;                   /* slots with a waiter */
	uint64_t deadlines;                 /* slots with a pending deadline */
	uint64_t ready;                     /* items and breaks with an unsent entry */
	uint64_t overdue;                   /* items whose time came and whose entry is unsent */
	uint64_t heap_nodes;
	uint64_t heap_moves; /* counter: nodes put, moved or removed */
	uint64_t events, entries, coalesced, stale, breaks; /* counters */
};

/* What one session did. Counters only grow. */
struct session_stats {
	uint64_t watches, timers, waiting, ready; /* live */
	uint64_t events, entries, messages, coalesced, stale;
};

/* -ENOMEM. */
int core_new(const struct core_options *options, struct core **ret);

/* Ends all sessions. NULL is accepted. Returns NULL. */
struct core *core_free(struct core *c);

const struct core_stats *core_stats(const struct core *c);

/* When core_expire() has something to do next, ns; INT64_MAX for never. May be early (a deadline
 * that moved later is noted only), never late. */
int64_t core_next_expiry(const struct core *c);

/* ---- Sessions ---- */

/*
 * Makes a session whose watches and timers are charged to `quota`, which the caller keeps alive.
 * `owner` is the caller's own. -ENOMEM.
 */
int core_add_session(struct core *c, uint64_t number, void *owner, struct quota *quota,
		     struct session **ret);

/* Ends it: all its watches, timers and unsent entries are gone, their charges given back. */
void session_end(struct session *s);

uint64_t session_number(const struct session *s);
void *session_owner(const struct session *s);
const struct session_stats *session_stats(const struct session *s);

/*
 * The session after `previous` (NULL: the first) among those with unsent entries, in the order in
 * which they got their first one. A session leaves this order when all is committed.
 */
struct session *core_next_ready(const struct core *c, const struct session *previous);

/*
 * While it is held, a session is left out of core_next_ready()'s order: its socket is full. It goes
 * on coalescing. Released, it goes to the end of the order.
 */
void session_hold(struct session *s, bool held);

/*
 * Copies the oldest unsent entries, in order of completion, one per item; returns how many, at
 * most max. Changes nothing: bits are cleared only by commit, after the send succeeded (H6).
 */
unsigned session_peek(const struct session *s, struct core_entry *entries, unsigned max);

/*
 * The first n peeked entries were sent: their slots go idle, or ready where the latch is set; a
 * one-shot timer is gone. Nothing else may have been called on this session since that peek.
 */
void session_commit(struct session *s, unsigned n);

/* A dead registration of this session fired: its watch is gone, its description is not. */
void session_count_stale(struct session *s);

/* netpollBreak for this session's poll: one unsent break at most. */
void session_break(struct session *s);

/* ---- Watches ---- */

struct core_watch {
	uint32_t id;
	uint32_t gen;
	uint64_t cookie;
	uint8_t interest; /* enum core_direction */
	uint8_t mode;     /* enum core_mode */
	uint8_t kind;     /* kept for the inspection, opaque here */
	int32_t fd;       /* the same */
};

/*
 * netpollopen, the core's half: the watch is live and gets events under *ret_tag. The caller then
 * registers it with the poller and says watch_registered(), or takes it back with watch_forget(),
 * which leaves no trace and sends nothing. -EEXIST, -EINVAL (id 0, interest, mode), -EOPNOTSUPP
 * (stream on a level backend), -EDQUOT (watches), -ENOMEM.
 */
int session_watch(struct session *s, const struct core_watch *w, int64_t now, uint64_t *ret_tag);
void watch_registered(struct core *c, uint64_t tag, uint32_t word);
void watch_forget(struct core *c, uint64_t tag);

/* The tag and the backend's word of a live watch. -ENOENT, -ESTALE. */
int session_find_watch(const struct session *s, uint32_t id, uint32_t gen, uint64_t *ret_tag,
		       uint32_t *ret_word);

/*
 * netpollclose: the watch is gone. What its waiters are still owed (a wait outstanding: closing;
 * unsent: as it was) is in *ret_entry, to be sent before the answer (O4), if 1 is returned; 0:
 * nothing owed. -ENOENT, -ESTALE.
 */
int session_unwatch(struct session *s, uint32_t id, uint32_t gen, struct core_entry *ret_entry);

/*
 * poll_runtime_pollWait for each of `directions`, all or none: exactly one entry follows for each.
 * *ret_arm are the directions that went from idle to waiting: the poller's arm. -EBUSY: one has a
 * waiter or an unsent completion. -EINVAL: no such direction in its interest, or a stream watch.
 */
int session_wait(struct session *s, uint32_t id, uint32_t gen, unsigned directions, int64_t now,
		 unsigned *ret_arm);

/*
 * Takes waits back. 0: all that were waiting are idle and no entry follows. -EALREADY: one of them
 * is done but unsent, its entry comes; those that were waiting are taken back all the same.
 * -ENOENT: nobody waits. -EINVAL.
 */
int session_unwait(struct session *s, uint32_t id, uint32_t gen, unsigned directions);

/*
 * poll_runtime_pollReset: clears latches (stream: unsent ready bits), all directions or none, after
 * the error check. The caller has taken the kernel's events first (H2). Positive: the error check's
 * enum core_code of the first direction that failed (read first), nothing cleared. -EBUSY, -EINVAL.
 */
int session_reset(struct session *s, uint32_t id, uint32_t gen, unsigned directions);

/*
 * poll_runtime_pollSetDeadline: `when` in ns, absolute: 0 none, < 0 expired. Relative (`relative`):
 * added to now, saturating; a sum of at most now is expired. `stamp` names it in a timeout entry.
 * CORE_CODE_CLOSING after evict: nothing changed. -EINVAL: no such direction in the interest.
 */
int session_set_deadline(struct session *s, uint32_t id, uint32_t gen, unsigned directions,
			 int64_t when, bool relative, uint16_t stamp, int64_t now);

/* poll_runtime_pollUnblock: waiters get closing, deadlines are cancelled. CORE_CODE_CLOSING when it
 * was evicted before. */
int session_evict(struct session *s, uint32_t id, uint32_t gen);

/* ---- Timers ---- */

struct core_timer {
	uint32_t id;
	uint32_t gen;
	uint64_t cookie;
	int64_t when;
	int64_t period;
	bool relative; /* `when` is added to now */
};

/*
 * Arms a timer, a live id anew: no entry of the old arming follows. Fires at or after `when`, in
 * the next core_expire() if that is not later than now. *ret_pending: an old arming was pending or
 * unsent. -EINVAL: id 0 or period < 0. -EDQUOT (timers), -ENOMEM: only for a new one.
 */
int session_set_timer(struct session *s, const struct core_timer *t, int64_t now,
		      bool *ret_pending);

/* Stops it; no entry follows. 0: it was pending or its entry unsent. -ENOENT, -ESTALE. */
int session_stop_timer(struct session *s, uint32_t id, uint32_t gen);

/* ---- What happens ---- */

/*
 * netpollready: the kernel's event for a tag. `directions` became ready; `error`: the event was the
 * bare error bit (both directions are ready then, and read is not pollable until the next event).
 * A stale tag is dropped and counted, and false is returned: the caller
 * may know whose registration it was, and says session_count_stale(). Directions outside the interest are ignored.
 */
bool core_event(struct core *c, uint64_t tag, unsigned directions, bool error);

/* Deadlines and timers with when <= now fire, in order of when, ties in order of arming; a deadline
 * that moved later counts as armed when its old time came. A time of INT64_MAX never fires. */
void core_expire(struct core *c, int64_t now);

/* The same, at most `max` of them, so that one turn stays bounded. true: there are more. */
bool core_expire_some(struct core *c, int64_t now, unsigned max);

/* ---- Inspection ---- */

enum core_slot_state {
	CORE_SLOT_IDLE = 0,
	CORE_SLOT_READY = 1,
	CORE_SLOT_WAITING = 2,
	CORE_SLOT_DONE = 3,
};

struct core_slot_info {
	uint8_t state;    /* enum core_slot_state */
	uint8_t code;     /* unsent enum core_code bits */
	int64_t since;    /* waiting since, ns, to 2^27 ns; 0: not waiting */
	int64_t deadline; /* 0 none, -1 expired */
};

struct core_item_info {
	struct session *session;
	bool timer;
	uint32_t id;
	uint32_t gen;
	uint64_t cookie;
	uint64_t fired; /* entries sent */
	/* watches */
	int64_t since; /* ns, to 2^27 ns */
	struct core_slot_info read;
	struct core_slot_info write;
	uint32_t word;
	int32_t fd;
	uint8_t kind;
	uint8_t interest;
	uint8_t mode;
	bool closing;
	bool error;
	/* timers */
	int64_t when; /* 0: fired, unsent one-shot */
	int64_t period;
	uint32_t count; /* unsent */
};

/* The live item with the lowest position > *cursor; sets *cursor to its position. false: no more.
 * Any cursor is allowed. */
bool core_next_item(const struct core *c, uint64_t *cursor, struct core_item_info *ret);

/* The same, but no position above `last` is looked at; *cursor is then where the search ended: the
 * table may have many free places. The highest position ever used. */
bool core_next_item_until(const struct core *c, uint64_t *cursor, uint64_t last,
			  struct core_item_info *ret);
uint64_t core_last_item(const struct core *c);

/* All invariants (heap order and positions, lists, counts, quotas' sums); aborts with a message
 * when one is broken. For tests and debug builds: O(everything). */
void core_check(const struct core *c);

#endif
