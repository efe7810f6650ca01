/* SPDX-License-Identifier: MIT */
#ifndef READYD_INTERNAL_H
#define READYD_INTERNAL_H

/*
 * What the files of libreadyd share. Names begin with rd_, since a static library keeps them in the
 * program's name space.
 *
 * Locks. One mutex a handle guards all that is below `mutex` in struct readyd; the rest is constant
 * after readyd_connect(), but `broken`, which is atomic. The mutex is never held while a thread
 * blocks. Public functions enter by rd_enter() and leave by rd_leave(); functions that may release
 * the mutex meanwhile say so ("may block"): a watch has to be looked up again after them.
 */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "park.h"
#include "protocol/wire.h"
#include "readyd.h"
#include "resume.h"
#include "waiter.h"

#define RD_TEXT_MAX 640 /* bytes of a sentence, with its zero */

#define RD_CLEANUP(function) __attribute__((cleanup(function)))

/* errno as it was, when the function ends. */
static inline void rd_errno_restore(const int *kept)
{
	errno = *kept;
}
#define RD_KEEP_ERRNO \
	RD_CLEANUP(rd_errno_restore) const int kept_errno_ __attribute__((unused)) = errno

void rd_fd_close(int *fd);
void rd_memory_free(void *pointer);
#define RD_CLEANUP_FD RD_CLEANUP(rd_fd_close)
#define RD_CLEANUP_MEMORY RD_CLEANUP(rd_memory_free)

/* ---- error.c ---- */

/* Notes a sentence for readyd_last_error() of this thread; returns `error`. */
int rd_fail(struct readyd *r, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The negative errno of a wire error. */
int rd_errno_of(unsigned wire_error);

/* Copies at most max - 1 bytes up to a zero; what is not printable ASCII becomes '?'. */
void rd_printable(char *to, size_t max, const char *from, size_t n);

/* ---- table.c: what the program asked for, and what was not taken yet ---- */

enum {
	RD_WATCHES_A_CHUNK = 512,
	RD_TIMERS_A_CHUNK = 256,
};

/* In a reference of the kept list: a timer's index, or a park's, not a watch's. */
#define RD_TIMER UINT32_C(0x80000000)
#define RD_PARK UINT32_C(0x40000000)

enum rd_watch_flag {
	RD_INTEREST = 0x03, /* READYD_READ, READYD_WRITE */
	RD_LIVE = 0x04,     /* the place is a watch */
	RD_STREAM = 0x08,
	RD_EVICTED = 0x10,
	RD_ENDING = 0x20, /* UNWATCH is under way */
	RD_GONE = 0x40,   /* UNWATCH is answered; an event that was owed is still kept */
	RD_LISTED = 0x80, /* in the kept list */
};

/* Two bits each, for read and write: shift by the slot's number. */
enum rd_special {
	RD_POLLWAIT = 0x01, /* a thread in readyd_pollwait() wants the result */
	RD_LATCH = 0x04,    /* an entry came that nobody had asked for (H19) */
	RD_DUE = 0x10,      /* readyd_unwait() said -EALREADY: an event must come */
	RD_REWAIT = 0x40,   /* WAIT must be sent again, as soon as there is room */
};

/* The half of a watch that every entry touches: two in a cache line. */
struct rd_watch {
	uint64_t cookie;
	uint32_t gen;
	struct rd_link link;
	uint16_t stamp[2];   /* of the slots' current deadlines */
	uint16_t last_stamp; /* last one given out; never 0 */
	uint8_t kept[2];     /* enum wire_code: received, not taken by readyd_poll() */
	uint8_t waiting;     /* directions with a WAIT whose entry did not come yet */
	uint8_t special;     /* enum rd_special */
	uint8_t flags;       /* enum rd_watch_flag */
	uint8_t made;        /* enum rd_made */
};

/* The other half: what it takes to make the watch anew. */
struct rd_watch_cold {
	int64_t deadline[2]; /* own clock; 0 none, -1 expired */
	uint64_t dev, ino;   /* what `fd` was at readyd_watch() */
	struct rd_waiter *waiter[2];
	int32_t fd;
	uint8_t told; /* enum rd_told */
};

_Static_assert(sizeof(struct rd_watch) == 32, "two watches in a cache line");
_Static_assert(sizeof(struct rd_watch) + sizeof(struct rd_watch_cold) <= 96, "96 B a watch");

struct rd_watch_chunk {
	struct rd_watch hot[RD_WATCHES_A_CHUNK];
	struct rd_watch_cold cold[RD_WATCHES_A_CHUNK];
};

enum rd_timer_flag {
	RD_TIMER_LIVE = 0x1,
	RD_TIMER_LISTED = 0x2,
	RD_TIMER_STOPPING = 0x4, /* TIMER_STOP is under way: entries are swallowed */
	RD_TIMER_MADE = 0x8,     /* the daemon knows it, on this connection */
};

struct rd_timer {
	uint64_t cookie;
	int64_t when; /* own clock: next expiry that was not reported */
	int64_t period;
	struct rd_link link;
	uint32_t gen;    /* in the caller's id */
	uint32_t arming; /* on the wire: another one at each readyd_timer_set() */
	uint32_t count;  /* expirations kept for readyd_poll() */
	uint32_t flags;  /* enum rd_timer_flag */
};

struct rd_timer_chunk {
	struct rd_timer timer[RD_TIMERS_A_CHUNK];
};

/* Places of one kind, in chunks that never move. Index 0 is never used. */
struct rd_places {
	void **chunks;
	uint32_t n_chunks;
	uint32_t top;  /* indexes below were used once */
	uint32_t free; /* first free one below top; 0: none */
	uint32_t n;    /* live ones, and gone ones with an event kept */
};

/* Where received events go: the caller's array while it has room, else the table. */
struct rd_sink {
	struct readyd_event *events;
	int n, max;
};

/* A datagram under construction. */
struct rd_out {
	uint8_t *buffer;
	size_t size;
	size_t last;      /* offset of the header that may take more records; SIZE_MAX: none */
	unsigned records; /* of requests that nobody waits for */
	unsigned n_fds;
	bool nap; /* the kernel had no room for fds or memory: there is no event to wait for */
	int fds[WIRE_FDS_MAX];
};

struct readyd {
	const volatile unsigned char *mine; /* a page that is zero in a forked child; or NULL */
	pid_t pid;
	int socket;     /* -1: none at the moment */
	int bell;       /* eventfd: break, and kicks of the leader */
	int epoll;      /* what readyd_fd() shows */
	uint32_t flags; /* of struct readyd_options */
	uint32_t daemon_pid;
	uint64_t session;
	uint64_t number;        /* random: tells this handle from one that had its address before */
	_Atomic int64_t offset; /* the daemon's clock less one's own */
	unsigned records_max, fds_max;
	size_t message_max;
	char *address;
	char *features;
	uint8_t token[WIRE_TOKEN_SIZE];

	_Atomic int broken; /* the truth about a break; `bell` only wakes */

	pthread_mutex_t mutex;
	int error; /* sticky; 0: connected, or coming back */
	char sentence[RD_TEXT_MAX];
	uint32_t serial;
	bool reset;           /* ECONNRESET was seen */
	bool hot;             /* the last message was long: the next may be there already */
	bool kicked;          /* `bell` was rung for the leader */
	bool led;             /* a thread, the leader, blocks on socket and bell */
	uint8_t leader_wants; /* enum rd_wants: what it takes */
	bool broken_kept;     /* a BREAK record, not taken yet */
	bool shown;           /* readyd_fd() was called */
	bool shown_kept;      /* `epoll` is readable for what is kept */
	bool shown_out;       /* `epoll` looks for room to send */
	unsigned n_pollwaits;
	unsigned n_rewaits;
	struct rd_waiter *sleepers;
	struct rd_request *requests; /* oldest first */
	struct rd_request **requests_end;
	struct rd_out out;
	uint8_t *in;                     /* WIRE_MESSAGE_MAX bytes */
	const struct wire_entry *unread; /* records of a READY that were not looked at */
	const struct wire_entry *unread_end;
	struct rd_places watches, timers, parks;
	uint32_t kept_first, kept_last; /* references */
	uint64_t stale;                 /* entries of what is gone, dropped */
	struct rd_resume resume;
	struct rd_parking parking;
};

/* Whether requests can be sent. */
static inline bool rd_linked(const struct readyd *r)
{
	return r->resume.link == RD_UP || r->resume.link == RD_REBUILDING;
}

/* Whether rd_resume_run() may have something to do. */
static inline bool rd_unsettled(const struct readyd *r)
{
	return r->resume.link != RD_UP || r->resume.sweeping || r->resume.at;
}

/* A watch's generation on this connection. It is another one on each, and at each use of a place. */
static inline uint32_t rd_wire_gen(const struct readyd *r, uint32_t gen)
{
	return gen + r->resume.epoch;
}

static inline struct rd_watch *rd_watch_at(const struct readyd *r, uint32_t id)
{
	struct rd_watch_chunk *c = r->watches.chunks[id / RD_WATCHES_A_CHUNK];

	return &c->hot[id % RD_WATCHES_A_CHUNK];
}

static inline struct rd_watch_cold *rd_watch_cold_at(const struct readyd *r, uint32_t id)
{
	struct rd_watch_chunk *c = r->watches.chunks[id / RD_WATCHES_A_CHUNK];

	return &c->cold[id % RD_WATCHES_A_CHUNK];
}

/* The live watch of that name, or NULL. */
static inline struct rd_watch *rd_watch_find(const struct readyd *r, uint32_t id, uint32_t gen)
{
	struct rd_watch *w;

	if (id >= r->watches.top)
		return NULL;
	w = rd_watch_at(r, id);
	return w->gen == gen && (w->flags & RD_LIVE) ? w : NULL;
}

static inline struct rd_timer *rd_timer_at(const struct readyd *r, uint32_t id)
{
	struct rd_timer_chunk *c = r->timers.chunks[id / RD_TIMERS_A_CHUNK];

	return &c->timer[id % RD_TIMERS_A_CHUNK];
}

static inline readyd_id rd_id(uint32_t id, uint32_t gen)
{
	return (uint64_t)gen << 32 | id;
}

/* A watch that calls may name: live, and not being ended. NULL with a sentence noted. */
struct rd_watch *rd_watch_named(struct readyd *r, readyd_id watch);

/* A live timer; NULL: none. */
struct rd_timer *rd_timer_named(const struct readyd *r, readyd_id timer);

/* Whether the number still means the file that was watched. */
bool rd_fd_is_same(const struct rd_watch_cold *cold, int fd);

/* A zeroed live place with a new generation; 0: no memory. */
uint32_t rd_watch_add(struct readyd *r);
uint32_t rd_timer_add(struct readyd *r);
void rd_watch_remove(struct readyd *r, uint32_t id);
void rd_timer_remove(struct readyd *r, uint32_t id);

/* Keeps codes of a watch, or expirations of a timer, for the next readyd_poll(). */
void rd_watch_keep(struct readyd *r, uint32_t id, uint8_t read, uint8_t write);
void rd_timer_keep(struct readyd *r, uint32_t id, uint32_t count);

/* Forgets what is kept of it. */
void rd_watch_drop(struct readyd *r, uint32_t id);
void rd_timer_drop(struct readyd *r, uint32_t id);

/* A never used index of places with so many, and so many bytes, in a chunk; 0: no memory. */
uint32_t rd_places_grow(struct rd_places *p, uint32_t a_chunk, size_t chunk_size);

/* The kept list, by references. */
void rd_kept_append(struct readyd *r, uint32_t reference);
void rd_kept_unlink(struct readyd *r, uint32_t reference);

/* Moves kept events to the sink, oldest first. */
void rd_kept_take(struct readyd *r, struct rd_sink *sink);

void rd_table_free(struct readyd *r);

/* ---- park_table.c ---- */

static inline struct rd_park *rd_park_at(const struct readyd *r, uint32_t index)
{
	struct rd_park_chunk *c = r->parks.chunks[index / RD_PARKS_A_CHUNK];

	return &c->park[index % RD_PARKS_A_CHUNK];
}

/* A live place without a number; 0: no memory. */
uint32_t rd_park_add(struct readyd *r);

/* A fresh park is being claimed. */
void rd_park_claimed(struct readyd *r, uint32_t index);

/* Fresh parks that have been so for long are forgotten. */
void rd_parks_forget(struct readyd *r);

/* Forgets it, with what is kept of it. */
void rd_park_remove(struct readyd *r, uint32_t index);

/* Its number is known from now on; if another place has that, the new one goes. */
void rd_park_number(struct readyd *r, uint32_t index, uint64_t number);

/* The place with that number, or 0. */
uint32_t rd_park_find(const struct readyd *r, uint64_t number);

/* An entry: shown, or kept, if it says something new. */
void rd_park_entry(struct readyd *r, const struct wire_park_entry *e, struct rd_sink *sink);

/* Moves the event of a park in the kept list. */
void rd_park_take_kept(struct readyd *r, uint32_t index, struct readyd_event *ret);

/* ---- park.c ---- */

/* -EINVAL, with better words than the daemon's, for a name or group (`what`) that it would refuse. */
int rd_park_name_check(struct readyd *r, const char *what, const char *name);

/* What a refused request of parks returns; `what` is the begin of its sentence. */
int rd_park_refused(struct readyd *r, const struct rd_request *q, const char *what);

/* Fills the record of TAKE and DROP; the tail of at most 2 * WIRE_NAME_MAX bytes goes into `tail`.
 * *ret_text has room for RD_TEXT_MAX bytes: how to call it in a sentence. 0 or -EINVAL. */
int rd_park_key(struct readyd *r, const struct readyd_park_key *key, struct wire_take *ret,
		char *tail, size_t *ret_size, char *ret_text);

/* Whether to ask again after BUSY: waits a little if so. *tries counts. May block. */
bool rd_park_is_busy(struct readyd *r, const struct rd_request *q, unsigned *tries);

/* ---- poll.c ---- */

/* Takes a break, if there is one. */
bool rd_break_take(struct readyd *r);

/* ---- take.c ---- */

/* HANDOUT came, with its fd, which is taken over, or -1. false: nobody asked for it. */
bool rd_handout(struct readyd *r, const struct wire_view *view, int fd);

/* The take has arrived, with its fd; what it tells goes into t->memory. */
void rd_take_fill(const struct readyd *r, struct rd_take *t, const struct wire_view *view, int fd);

/* What t->memory has to hold; NULL: no memory. */
uint8_t *rd_take_memory(void);

/* In and out of the list of those that HELD speaks of. */
void rd_take_link(struct readyd *r, struct rd_take *t);
void rd_take_unlink(struct readyd *r, const struct rd_take *t);

/* Says that it has arrived, and waits until that is settled, on whatever connection; not beyond
 * `until` (0: no limit) while there is none. May block. 0, -ETIMEDOUT, or the sticky error. */
int rd_take_acknowledge(struct readyd *r, struct rd_take *t, int64_t until);

/* The connection is lost: hand-outs that were promised on it do not come. */
void rd_takes_lose(struct readyd *r);

/* A new connection: says first of all what this handle holds. Never blocks. */
void rd_takes_say(struct readyd *r);

/* ---- handout.c ---- */

/* A HANDOUT of a group came; as rd_handout(). */
bool rd_handout_arrives(struct readyd *r, const struct wire_view *view, int fd);

/* Whether readyd_receive() has something to return, or to settle. */
bool rd_handouts_kept(const struct readyd *r);

/* Whether readyd_poll() has something to tell of. */
bool rd_handouts_untold(const struct readyd *r);

/* Tells of what was not told of. */
void rd_handouts_tell(struct readyd *r, struct rd_sink *sink);

/* Gives back what has arrived of that group and was not claimed: closed here, and then said. */
void rd_handouts_return(struct readyd *r, const struct rd_group *g);

/* Says what is given back, as far as there is room. false: not all of it. Never blocks. */
bool rd_handouts_say(struct readyd *r);

/* The connection is lost: what has arrived on it, and was not acknowledged, is the daemon's. */
void rd_handouts_lose(struct readyd *r);
void rd_handouts_free(struct readyd *r);

/* ---- group.c ---- */

/* The group of that name, if this handle works for it; else NULL. */
struct rd_group *rd_group_find(const struct readyd *r, const char *name, size_t length);

/* Says to the daemon what it does not know of the group, if that can be said now. Never blocks. */
void rd_group_push(struct readyd *r, struct rd_group *g);

/* The same for all of them, and for what is given back. Never blocks. */
void rd_groups_push(struct readyd *r);

/* What readyd_receive() returns of groups if there is nothing to receive. 0: nothing. */
int rd_group_report(struct readyd *r);

/* What was refused for want of room is said again. */
void rd_groups_retry(struct readyd *r);

/* The connection is lost: no daemon knows of them. */
void rd_groups_lose(struct readyd *r);
void rd_groups_free(struct readyd *r);

/* ---- clock.c ---- */

int64_t rd_now(void);

/* A time of one's own clock in the daemon's, saturating; > 0 stays > 0 or becomes -1 (past). */
int64_t rd_time_to_daemon(const struct readyd *r, int64_t when);

/* The daemon's time in one's own clock; values <= 0 are as they were. */
int64_t rd_time_from_daemon(const struct readyd *r, int64_t when);

/* The offset to note for a daemon's `now` read between two looks at one's own clock. */
int64_t rd_time_offset(int64_t before, int64_t now, int64_t after);

/* ---- send.c ---- */

/* What a request's serial says of it, in the lowest bits. */
enum rd_serial {
	RD_SERIAL_ASKED = 0,
	RD_SERIAL_WAIT = 1,
	RD_SERIAL_DEADLINE = 2,
	RD_SERIAL_RETURN = 3, /* HELD, for what is given back */
	RD_SERIAL_MASK = 3,
};

/* Makes room for a request of that size. May block. 0 or the sticky error. */
int rd_out_reserve(struct readyd *r, size_t bytes, unsigned fds);

/* Adds a record to the datagram under construction; there must be room. */
void rd_out_record(struct readyd *r, unsigned type, enum rd_serial class, const void *record,
		   size_t size);

/* Adds a whole request; there must be room. Queues q for its answer. */
void rd_out_request(struct readyd *r, struct rd_request *q, unsigned type, const void *records,
		    size_t count, const int *fds, unsigned n_fds);

/* Whether a request of that size fits behind those that are there. */
bool rd_out_has_room(const struct readyd *r, size_t bytes, unsigned fds);

/* Sends what there is. 0; -EAGAIN: not now; else the handle has ended. Never blocks. */
int rd_out_flush(struct readyd *r);

/* The same; before that does what coming back needs done. Never blocks. */
int rd_flush(struct readyd *r);

/* The same for requests whose caller does not wait: at once if another thread is blocked and could
 * be concerned, else it is left for the next occasion. Never blocks. */
int rd_hurry(struct readyd *r);

/* WAIT once more for the directions in `mask` (S-051); later, if there is no room. */
void rd_rewait(struct readyd *r, uint32_t id, unsigned mask);

/* ---- receive.c ---- */

/* One message, or the end, if there is one: 1; 0: none; negative: the sticky error. Never blocks.
 * What does not fit into the sink (NULL: no sink) is kept. */
int rd_receive(struct readyd *r, struct rd_sink *sink);

/* The rest of the last message: to the sink while there is room, then, if anybody waits for what
 * may be in it, to the table. */
void rd_unread_take(struct readyd *r, struct rd_sink *sink);

/* Ends a wait of a slot with that code: its event is kept, or its thread in pollwait has it. */
void rd_slot_complete(struct readyd *r, uint32_t id, unsigned slot, uint8_t code);

/* ---- connection.c ---- */

/* Locks. 0 or -ENOTCONN in a forked child, then without the lock. */
int rd_enter(struct readyd *r);
/* Sees to it that others go on, and unlocks. */
void rd_leave(struct readyd *r);

/* Whether events are there that no thread has taken. */
bool rd_events_kept(const struct readyd *r);

/* Wakes who can use what has changed: events, or the place of the thread that receives. */
void rd_pass_on(struct readyd *r);

/* Of these, a thread that polls, if there are events; one that receives, if there are hand-outs. */
void rd_pass_events(struct readyd *r);
void rd_pass_handouts(struct readyd *r);
void rd_wake(struct rd_waiter *w);

/* What it waits for has come: wakes it, be it asleep or the leader. */
void rd_done(struct readyd *r, struct rd_waiter *w);

/* Makes the leader look again. */
void rd_kick(struct readyd *r);

/* Sleeps until woken or `until` (0: no limit). May block. 0, -ETIMEDOUT, -EINTR. */
int rd_sleep(struct readyd *r, struct rd_waiter *w, int64_t until);

/* Blocks as the leader, on socket and bell, until there is something to do there. *ret_readable: a
 * message is there. May block. 0, -ETIMEDOUT, -EINTR. */
int rd_lead(struct readyd *r, enum rd_wants wants, int64_t until, bool *ret_readable);

/* One step of waiting for what a thread takes (w->wants): leads, or sleeps while another thread does
 * that. May block. 0, -ETIMEDOUT, -EINTR. */
int rd_block(struct readyd *r, struct rd_waiter *w, int64_t until, bool *ret_readable);

/* One step of waiting for what is not an event: receives as the leader, or sleeps while another
 * thread does that. May block. 0 or -EINTR. */
int rd_turn(struct readyd *r, struct rd_waiter *w);

/* Receives, or sleeps, until that time. May block. */
void rd_pause(struct readyd *r, int64_t until);

/* Receives until w->done. May block. 0, the sticky error, or -EINTR if `interruptible`. */
int rd_await(struct readyd *r, struct rd_waiter *w, bool interruptible);

/* The same, until that time (0: no limit). -ETIMEDOUT, or the sticky error. */
int rd_await_until(struct readyd *r, struct rd_waiter *w, int64_t until);

/* Sends a request and waits for its answer. If the connection is lost meanwhile, or its `epoch` is
 * another one by then, q->lost is set. May block. 0, or the sticky error. */
int rd_ask_once(struct readyd *r, struct rd_request *q, uint32_t epoch, unsigned type,
		const void *records, size_t count, const int *fds, unsigned n_fds);

/* Waits until it is connected, and repeats the request on the next connection if it was lost. For
 * what means the same there. May block. 0, or the sticky error. */
int rd_ask(struct readyd *r, struct rd_request *q, unsigned type, const void *records, size_t count,
	   const int *fds, unsigned n_fds);

/* Ends the handle: every call gets `error` and this sentence from now on. Returns `error`. */
int rd_end(struct readyd *r, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Notes the sticky sentence for this thread; returns the sticky error. */
int rd_ended(struct readyd *r);

/* Reads the bell empty. */
void rd_bell_drain(struct readyd *r);

/* ---- wait.c ---- */

/* What readyd_wait() and readyd_pollwait() refuse. */
int rd_wait_check(struct readyd *r, uint32_t id, unsigned directions);

/* Whether a deadline of that slot is in the past. */
bool rd_deadline_passed(const struct rd_watch_cold *cold, unsigned slot);

/* A WAIT is outstanding whose thread in readyd_pollwait() was interrupted: the next wait has it. */
bool rd_is_orphan(const struct readyd *r, uint32_t id, unsigned slot);

/* Notes the wait, and sends WAIT (there must be room) if the daemon knows the watch; but for
 * directions with a latch: these are returned. Then rd_wait_started(). */
unsigned rd_wait_start(struct readyd *r, uint32_t id, unsigned directions);

/* After rd_wait_start(), when the waiter is in its place. */
static inline void rd_wait_started(struct readyd *r, uint32_t id)
{
	if (!(rd_watch_at(r, id)->made & RD_MADE))
		rd_carry_out(r, id);
}

/* readyd_unwait(), within a call. May block. */
int rd_unwait(struct readyd *r, readyd_id watch, unsigned directions);

/* ---- search.c ---- */

/* A connected socket. *ret_text, if it failed, has a clause: "PATH: reason". */
int rd_socket_open(const char *address, int *ret, char *ret_text, size_t size);

/* The i-th address to try; NULL: no more. The buffer has to hold PATH_MAX bytes. *ret_only: it is
 * the only one, and its failure an error. */
const char *rd_search(unsigned i, char *buffer, size_t size, bool *ret_only);

/* ---- private.c ---- */

/* Starts a daemon for this program and puts its address into the environment. */
int rd_private_start(const char *config, char *ret_address, size_t size, char *ret_text,
		     size_t text_size);

#endif
