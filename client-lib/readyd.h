/* SPDX-License-Identifier: MIT */
#ifndef READYD_H
#define READYD_H

/*
 * libreadyd: Go's network poller as a service of the machine, for C programs.
 *
 * A program hands its file descriptors to readyd and asks one handle for what is ready, in batches.
 * The daemon holds no copy: closing a watched fd ends the connection and the watch, as ever.
 *
 * Rules for all functions
 *  - Errors are negative errno values; nothing is printed, errno is not touched;
 *    readyd_last_error() has a sentence.
 *  - A daemon that dies or is restarted is no error: the library connects again and registers all
 *    watches, waits, deadlines and timers anew, and nothing is lost; at most an event is spurious. Functions
 *    that ask the daemon wait for the next one; those with a limit keep it. -ENOTCONN, which is
 *    sticky, comes only with READYD_NO_RESUME or when `give_up` has passed (struct
 *    readyd_options).
 *  - Every function may be called from any thread at any time on one handle, except
 *    readyd_close(), which must be the last. Two threads may poll at once: each event goes to one.
 *  - Only readyd_break() may be called from a signal handler. After fork() the child may only
 *    readyd_close() the handle, which leaves the parent's connection alone.
 *  - Times are absolute CLOCK_MONOTONIC of the calling process in ns, waits (delta) relative ns.
 *  - Fds passed in stay the caller's; the library duplicates none. Those that readyd_take() and
 *    readyd_receive() give out are the caller's. Nothing blocks for longer than the daemon takes to
 *    answer, unless it says so.
 *  - Functions that say "asks the daemon" send a request and wait for its answer; meanwhile they
 *    receive and keep entries for the next readyd_poll().
 *
 * The rules of readiness are those of Go's runtime (netpoll.go): edges, one latch and one waiter a
 * direction. Ready is a hint: try the call, and on EAGAIN wait again. Read until EAGAIN (or 0, or
 * an error) before waiting again, since an edge is reported once.
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

struct readyd; /* a handle: one connection to a daemon */

/* A watch or a timer, which are numbered apart (the kind of an event tells which): id in the low 32
 * bits, generation in the high ones. 0 is never one. */
typedef uint64_t readyd_id;

/* Directions, as a mask. */
#define READYD_READ 0x1u
#define READYD_WRITE 0x2u

/* What an event says of a direction, as a mask. */
#define READYD_READY 0x01u
#define READYD_CLOSING 0x02u      /* readyd_evict() or readyd_unwatch() ended the wait */
#define READYD_TIMEOUT 0x04u      /* its deadline passed */
#define READYD_NOT_POLLABLE 0x08u /* read only: the kernel's last word was a bare error */

/* Kinds of event. */
#define READYD_EVENT_WATCH 1u
#define READYD_EVENT_TIMER 2u
#define READYD_EVENT_BREAK 3u
#define READYD_EVENT_PARK 4u
#define READYD_EVENT_HANDOUT 5u /* readyd_receive() has one */

struct readyd_event {
	uint64_t cookie; /* as given at readyd_watch(), readyd_timer_set() or readyd_park(),
			    by whatever process */
	readyd_id id;    /* park, hand-out: the daemon's number of the park */
	uint8_t kind;    /* READYD_EVENT_... */
	uint8_t read;    /* READYD_READY ...; 0: nothing about this direction */
	uint8_t write;
	uint8_t reserved;
	uint32_t count; /* timer: expirations since the last event */
};

/* How a watch reports. */
#define READYD_WAIT 0u   /* as Go: one event for each readyd_wait() */
#define READYD_STREAM 1u /* each edge, coalesced until it was sent; no request per event */

/* ---- Connecting ---- */

/* Options of readyd_connect(); zeroed ones are defaults. `size` is the size of the struct. */
struct readyd_options {
	size_t size;
	const char *socket; /* path, or @name of an abstract address; NULL: search */
	uint32_t flags;     /* READYD_PRIVATE_... */
	uint32_t reserved;
	const char *config; /* --config of a private daemon; NULL: none */
	int64_t give_up;    /* ns without a daemon until all calls return -ENOTCONN; 0: never */
};

#define READYD_PRIVATE_IF_NEEDED 0x1u /* no daemon answers: start a private one */
#define READYD_PRIVATE_ALWAYS 0x2u    /* do not search */
#define READYD_NO_RESUME 0x8u         /* the end of the connection is -ENOTCONN, at once */
#define READYD_EINTR 0x4u /* what waits for events or hand-outs returns -EINTR after a signal */

/*
 * Connects and says hello. The socket is options->socket; else $READYD_SOCKET, whose failure is
 * an error; else the first that answers of $XDG_RUNTIME_DIR/readyd/socket and /run/readyd/socket.
 * Set-uid programs ignore the environment. `options` may be NULL. Blocks until the daemon answers,
 * 5 s at most.
 *
 * With READYD_PRIVATE_IF_NEEDED a private daemon is started when none was found: for this uid
 * only, no child of the caller, ended when the caller has exited and 10 s passed without a
 * connection. Its address is put into the environment as READYD_SOCKET (setenv(3): not while other
 * threads read the environment), so that children and readyctl reach it. If it dies, the handle
 * that had started it starts another one, with another address, in the same way.
 *
 * -ENOENT, -ECONNREFUSED: no daemon; -EACCES: may not open the socket, or the daemon says no;
 * -EPROTO: not a readyd, or no common version; -EDQUOT: too many connections of this uid;
 * -ETIMEDOUT; -EMFILE, -ENFILE, -ENOMEM. *ret is untouched on failure, except that `error`, if not
 * NULL, gets a sentence that the caller frees with free(3).
 */
int readyd_connect(const struct readyd_options *options, struct readyd **ret, char **error);

/* Ends the connection and the session, frees the handle. NULL is accepted. Returns NULL. */
struct readyd *readyd_close(struct readyd *r);

/* How a handle is connected. */
#define READYD_STATE_CONNECTED 0
#define READYD_STATE_RESUMING 1 /* no daemon at the moment, or it does not know all watches yet */
#define READYD_STATE_LOST 2     /* for good: every call returns a sticky error */

/* One of these. Calls nobody and waits for nothing: what is done about it is done within the other
 * calls. */
int readyd_state(const struct readyd *r);

/* How often the handle has come back. */
uint64_t readyd_resumes(const struct readyd *r);

/* The socket that this handle is connected to, or comes back to: a path, or @name. Valid as long as
 * the handle. */
const char *readyd_socket(const struct readyd *r);

/* The daemon's pid, and this session's number there; others after the handle has come back. */
uint32_t readyd_daemon_pid(const struct readyd *r);
uint64_t readyd_session(const struct readyd *r);

/* 1 if the daemon granted that feature ("weak", "edge", "stream", "ns", "park", "groups",
 * "survive", "durable"), else 0. */
int readyd_has_feature(const struct readyd *r, const char *name);

/* A sentence about why the last call on this handle failed: what happened, to which thing, what
 * to do. Valid until the calling thread's next call on the handle. Never NULL. */
const char *readyd_last_error(struct readyd *r);

/* ---- Watching ---- */

/*
 * Watches fd, which must be non-blocking for readiness to be of use, in the directions of
 * `interest`, with `mode` READYD_WAIT or READYD_STREAM. What is ready now counts as an edge. Asks
 * the daemon. *ret names the watch until readyd_unwatch().
 * -EPERM: cannot be polled (a regular file); -EACCES: this kind is not admitted (signalfd, epoll,
 * ...); -EDQUOT: this uid's limit; -EAGAIN: the system has no resources left, try again; -EEXIST:
 * watched under every possible number already (too many dups); -EUSERS: watched by 500 sessions,
 * the kernel's limit; -EBADF; -EINVAL: also one of the daemon's own, or a connection to it;
 * -EOPNOTSUPP: stream mode on a level-triggered backend; -EMFILE: the daemon's fds; -ENOMEM.
 */
int readyd_watch(struct readyd *r, int fd, unsigned interest, unsigned mode, uint64_t cookie,
		 readyd_id *ret);

/* One of many for readyd_watch_many(). */
struct readyd_watch_request {
	int fd;
	uint8_t interest;
	uint8_t mode;
	uint16_t reserved;
	uint64_t cookie;
	readyd_id id; /* out: 0 where it failed */
	int error;    /* out: 0 or negative errno */
	int reserved2;
};

/* The same for n fds, 253 a message, answers awaited together. Returns how many failed, or a
 * negative errno when the connection did. */
int readyd_watch_many(struct readyd *r, struct readyd_watch_request *requests, size_t n);

/*
 * Ends a watch. Call it before close(fd): the fd is sent once more, so that the daemon can forget
 * it even where other copies live on. `fd` -1 is allowed when it is closed already; a number that
 * means another file by now is not sent. Every readyd_wait() still has its one event: if one was
 * outstanding, or its event not taken yet, readyd_poll() returns that event (closing, or what it
 * was) after this, and the cookie is in use until then. Else nothing of the watch comes any more
 * when this returns, and the cookie may be freed once the events in hand are done with; so it is
 * for stream watches. Asks the daemon. -ENOENT.
 */
int readyd_unwatch(struct readyd *r, readyd_id watch, int fd);

/*
 * Go's pollWait without blocking: exactly one event follows for each direction asked, at once if
 * it is ready. Does not wait for the daemon: a refusal (-EBUSY, the direction has a waiter, or its
 * event was not taken yet) is found here, from the library's own table. Requests that do not wait
 * (this and readyd_set_deadline()) are gathered and sent by the next readyd_poll() or asking call
 * at the latest; at once while another thread is blocked in readyd_poll() or readyd_pollwait(), and
 * always once readyd_fd() was called. -ENOENT; -EINVAL: stream watch, or no such direction.
 */
int readyd_wait(struct readyd *r, readyd_id watch, unsigned directions);

/* Takes waits back. Asks the daemon. 0: no event will follow; -EALREADY: its event is there or
 * under way; -ENOENT: nobody waits. */
int readyd_unwait(struct readyd *r, readyd_id watch, unsigned directions);

/*
 * Go's pollWait: waits for one direction (READYD_READ or READYD_WRITE) and blocks until its result,
 * which is not an event of readyd_poll(): 0 ready; -ECANCELED closing; -ETIMEDOUT its deadline;
 * -EIO not pollable; -EBUSY somebody else waits; -EINTR (see READYD_EINTR): the next wait of that
 * direction takes it up. Other threads may do the same for other watches.
 */
int readyd_pollwait(struct readyd *r, readyd_id watch, unsigned direction);

/* Clears latched readiness before a read that will drain the fd. Asks the daemon. Positive: the
 * READYD_CLOSING, READYD_TIMEOUT or READYD_NOT_POLLABLE that a wait would get; nothing cleared. */
int readyd_reset(struct readyd *r, readyd_id watch, unsigned directions);

/*
 * Go's SetDeadline: `when` > 0 absolute ns of CLOCK_MONOTONIC, 0 none, < 0 expired now. Sticky:
 * every wait of that direction times out until a new one is set. Does not wait for the daemon. A
 * timeout of a deadline that was replaced meanwhile is not shown. -ENOENT; -EINVAL; -ECANCELED: the
 * watch was evicted.
 */
int readyd_set_deadline(struct readyd *r, readyd_id watch, unsigned directions, int64_t when);

/* Waiters get closing, every later wait too; only readyd_unwatch() is left. Asks the daemon.
 * -ENOENT; -ECANCELED: it was evicted before. */
int readyd_evict(struct readyd *r, readyd_id watch);

/* ---- Timers ---- */

/*
 * Arms a timer: *timer 0, or one that is gone, makes a new one and names it there; else that one is
 * armed anew, keeps its name, and no event of its old arming follows. One-shot with period 0 (it is
 * gone after its event), else every `period` ns, missed ones counted. `when` <= now: at once. Asks
 * the daemon. 1: it was pending before, else 0. -EINVAL: period < 0; -EDQUOT.
 */
int readyd_timer_set(struct readyd *r, readyd_id *timer, int64_t when, int64_t period,
		     uint64_t cookie);

/* Stops it; no event follows. Asks the daemon. 1: it was pending; 0: it was not (fired, gone). */
int readyd_timer_stop(struct readyd *r, readyd_id timer);

/* ---- Parking ---- */

/*
 * A park is an fd that the daemon keeps, with a note, until a process of the same user takes it. It
 * belongs to the user: it outlives the handle and the process that made it. It has a number, which the
 * daemon gives; a token, 16 bytes drawn at random; and, if wanted, a name, unique among the user's
 * parks of one group.
 */

struct sockaddr;

#define READYD_PARK_DURABLE 0x1u   /* survives the death of the whole service */
#define READYD_PARK_HOLD_ONLY 0x2u /* need not be pollable: it is held, and never ready */
#define READYD_PARK_DEADLINE_HAND \
	0x8u /* at the deadline: an event; else it is shut down and closed */

/* Options of readyd_park(); zeroed ones are defaults. `size` is the size of the struct. */
struct readyd_park_options {
	size_t size;
	const char *name;  /* at most 255 bytes, none of them a control character; NULL: none */
	const char *group; /* the same */
	const void *note;  /* for who takes it; at most 2048 bytes */
	size_t note_length;
	int64_t deadline;  /* absolute, own CLOCK_MONOTONIC; 0: none */
	uint64_t cookie;   /* comes back in the event, and to who takes it */
	uint32_t flags;    /* READYD_PARK_... */
	uint32_t interest; /* READYD_READ, READYD_WRITE: what makes it ready; 0: READYD_READ */
};

/*
 * Parks fd. Asks the daemon; after success the caller closes its own copy. As soon as the park is
 * ready in a direction of the interest, or its deadline passes (DEADLINE_HAND), this handle's
 * readyd_poll() has one event READYD_EVENT_PARK, with the park's number as id; READYD_READY, and
 * READYD_TIMEOUT, once each. A park with a group has no event: it goes to the group's workers
 * (readyd_attach()). Anybody may take it before, or without that. *ret_park is its number,
 * and ret_token, which has room for 16 bytes, gets its token; both may be NULL.
 *
 * If the daemon dies meanwhile, the request is repeated by its token: the fd is parked once.
 *
 * -EEXIST: name and group are in use, or this description is parked already; -EDQUOT: this user's
 * limit of parks, or of the bytes of their notes; -EACCES: this kind is not admitted (also listening
 * sockets), or the group is shared between users and this one may not park into it; -EPERM: cannot be
 * polled; -EOPNOTSUPP: DURABLE, where nothing outlives the daemon; -EINVAL: also one of the daemon's
 * own; -EMFILE: the daemon's fds; -EAGAIN: no resources, also for DURABLE in systemd's store, try
 * again; -EBADF; -ENOMEM.
 */
int readyd_park(struct readyd *r, int fd, const struct readyd_park_options *options,
		uint64_t *ret_park, uint8_t *ret_token);

/* How to name a park: the fields that `by` says count. `size` is the size of the struct. */
struct readyd_park_key {
	size_t size;
	uint32_t by; /* READYD_BY_... */
	uint32_t reserved;
	const char *name, *group; /* READYD_BY_NAME; group NULL: the empty one */
	uint64_t park;            /* READYD_BY_ID: its number */
	const uint8_t *token;     /* READYD_BY_TOKEN: 16 bytes */
};

#define READYD_BY_NAME 0u
#define READYD_BY_ID 1u
#define READYD_BY_TOKEN 2u

/* What was taken: the fd, and what readyd_park() was told. The pointers are good until
 * readyd_taken_clear(). `size` is set by the caller. */
struct readyd_taken {
	size_t size;
	int fd;         /* close-on-exec; the caller's */
	uint32_t flags; /* READYD_PARK_... */
	uint64_t park, cookie;
	int64_t parked;      /* when; own CLOCK_MONOTONIC */
	uint8_t read, write; /* READYD_READY, READYD_TIMEOUT */
	uint16_t reserved;
	uint32_t note_length;
	const void *note;                    /* followed by a zero byte */
	const char *name, *group;            /* "": none */
	const struct sockaddr *local, *peer; /* as getsockname(2) and getpeername(2) said then */
	uint32_t local_length, peer_length;  /* 0: not a socket */
	void *memory;                        /* the library's */
};

/*
 * Takes a park, ready or not. Asks the daemon, and returns only when it is settled that the fd is this
 * process's and nobody else's, whatever dies meanwhile. A park whose readyd_park() has not returned
 * yet is waited for, 5 s at most. *ret is filled on success only, and is cleared by
 * readyd_taken_clear().
 *
 * -ENOENT: no such park, or somebody else is taking it; -EBUSY: see above; -EMFILE: this process has
 * no free fd, and the park stays where it is; -EDQUOT: too many are being taken at once;
 * -EOPNOTSUPP: the daemon's kernel cannot tell of this process's death; -EINVAL; -ENOMEM. -ENOTCONN:
 * the handle has ended; it is not known then whether the park is still there.
 */
int readyd_take(struct readyd *r, const struct readyd_park_key *key, struct readyd_taken *ret);

/* Frees what belongs to it, and closes the fd: set fd to -1 before to keep that. All but `size` is
 * as unset afterwards; a zeroed one, with fd 0 and no memory, is left alone. */
void readyd_taken_clear(struct readyd_taken *taken);

/* Says that a park is this handle's, whoever of this user made it: its events come here from now on.
 * Asks the daemon. -ENOENT; -ENOMEM. */
int readyd_claim(struct readyd *r, const uint8_t *token);

/* Closes a park. Asks the daemon. -ENOENT: no such park, or somebody is taking it; -EBUSY: as
 * readyd_take(). */
int readyd_drop(struct readyd *r, const struct readyd_park_key *key);

/* ---- Working for a group ---- */

/*
 * Workers of a group are handed its parks as these become ready, or as their deadlines pass
 * (DEADLINE_HAND): the one that has been ready longest goes to the worker that is at work on the
 * fewest, to one exactly. A worker says how many it works at, at once, and after each that it is
 * free again. It may be one process, or one thread, or thousands.
 *
 *   readyd_attach(r, "web", 1);
 *   while (readyd_receive(r, &taken, -1) == 1) {
 *           serve(taken.fd);                 (close it, or readyd_park() it again)
 *           readyd_taken_clear(&taken);
 *           readyd_done(r, "web");
 *   }
 */

/*
 * Makes this handle a worker of the group, or changes its capacity: how many it works at, at once, 1
 * to 1024. Less than it is at work on now holds from the next readyd_done() on; what has arrived and
 * was not received counts as such. Asks the daemon. If it refuses, all is as it was before.
 * -EINVAL: capacity, or no name; -EACCES: the group is shared between users, and this one may not
 * take from it; -EAGAIN: no resources, or 64 groups are attached to; -ENOSYS: an older daemon;
 * -EOPNOTSUPP as readyd_take().
 */
int readyd_attach(struct readyd *r, const char *group, unsigned capacity);

/*
 * Leaves the group. Asks the daemon. What was received stays the caller's; what has arrived and was
 * not received goes to another worker. -ENOENT: not attached.
 */
int readyd_detach(struct readyd *r, const char *group);

/*
 * The next park that was handed to this handle, of whatever group (see taken->group). `delta` as for
 * readyd_poll(). 1: *ret is filled, as by readyd_take(), and settled: the fd is this process's and
 * nobody else's. 0: time is over, or broken. Many threads may wait here: each gets another one.
 *
 * A hand-out is acknowledged when it is received, not when it arrives: what was not received goes to
 * another worker if this handle is closed, or this process dies. So a call that finds one asks the
 * daemon, whatever `delta` is; only if the connection is lost meanwhile does it return 0 when the
 * time is over, and a later call has the fd.
 *
 * readyd_poll() says READYD_EVENT_HANDOUT once for each that has arrived while no thread waits here,
 * and with id 0 if there is an error to be had here; whoever uses both calls here with 0 then.
 *
 * -EMFILE: this process has no free fd; a park that was for this handle went to another worker, or
 * stays ready. The next call says that there is room again. -EINVAL: not attached to any group, and
 * nothing is left to receive. -EACCES, -ENOSYS, -EOPNOTSUPP: as readyd_attach(), from a daemon that
 * came back; the group is left. -EINTR, -ENOTCONN as readyd_poll().
 */
int readyd_receive(struct readyd *r, struct readyd_taken *ret, int64_t delta);

/* One of that group is finished with: the worker is free for another. Does not wait for the daemon:
 * it is sent by the next readyd_receive(), readyd_poll() or asking call at the latest, as
 * readyd_wait() is. -ENOENT: not attached; -EINVAL: all that were received are done. */
int readyd_done(struct readyd *r, const char *group);

/* ---- Polling ---- */

/*
 * netpoll(delta), in epoll_wait's shape: < 0 blocks until there is an event or a break, 0 asks, > 0
 * waits at most that many ns. Returns the number of events, at most max; the rest stays for the
 * next call. 0: time is over, or broken. A break that ended a blocking call is not an event;
 * BREAK events are those that somebody else asked for by readyd_break_session(). A signal
 * does not end it (see READYD_EINTR). -ENOTCONN, -EINVAL (max < 1).
 */
int readyd_poll(struct readyd *r, struct readyd_event *events, int max, int64_t delta);

/*
 * netpollBreak: makes a blocked readyd_poll() or readyd_receive() of this handle return 0, or the
 * next blocking one; many calls before that are one. Safe from any thread and from a signal handler.
 */
void readyd_break(struct readyd *r);

/* Breaks another session's poll: one's own uid's, or any as root. Asks the daemon. -ENOENT, also when
 * the daemon that had numbered it is gone. */
int readyd_break_session(struct readyd *r, uint64_t session);

/*
 * An fd for another event loop: readable when readyd_poll(..., 0) would have something, as long as
 * readyd_receive() has, and from a break on until a poll that may block (delta not 0: 1 will do) has
 * taken it. It never changes during the handle's life; level-triggered; do not read it, do not close
 * it. It is readable now and then while the library comes back to a daemon: the poll lets it go on.
 */
int readyd_fd(const struct readyd *r);

/* Asks the daemon for an answer that does nothing: all requests before it have been applied. */
int readyd_sync(struct readyd *r);

/*
 * Has the daemon replaced by the program that is installed now, after a trial of up to 10 s. When
 * this returns 0, the trial was passed, and the connection ends a moment later, like all others: the
 * library comes back by itself. -EINVAL: the trial failed and the daemon goes on, its log says why;
 * -EACCES: not for this user; -EOPNOTSUPP: it runs without a keeper; -ECONNRESET: it ended before it
 * answered.
 */
int readyd_upgrade(struct readyd *r);

/* 1 if fd is this handle's own, its connection, or one of the daemon's own descriptions; else 0.
 * Asks the daemon. -EBADF. */
int readyd_is_poll_descriptor(struct readyd *r, int fd);

/* ---- Inspection: what readyctl shows ---- */

/*
 * A list is read row by row, in a fixed order; the daemon answers some rows at a time. Rows are
 * those that the caller's uid may see. `next` functions return 1 and fill *row, 0 at the end, or a
 * negative errno; they ask the daemon. A row's struct is zeroed beyond what the daemon knows;
 * `size` is set by the caller to sizeof. -ECONNRESET: the daemon was restarted in the midst of the
 * list; free it and begin anew.
 */
struct readyd_status {
	size_t size;
	int64_t now, started; /* ns of this process's CLOCK_MONOTONIC; of the loop, as `pid` */
	uint32_t pid, protocol;
	uint64_t connections, watches, waiting, timers, deadlines, overdue;
	uint64_t fds, fds_max;
	uint64_t turns, events, entries, messages, coalesced, stale, breaks;
	uint64_t accepted, refused, failures, turn_longest;
	char version[64], backend[16], socket[256];
	int64_t began;        /* the daemon as a whole; an upgrade goes on */
	uint64_t restarts;    /* loops that took the place of one that had ended */
	uint64_t left_behind; /* of those that had to end, how many could not, as of `started` */
	uint64_t parks, parks_handed,
		parks_ready; /* all users'; handed out; ready and not handed out */
	uint64_t holders,
		holders_left; /* processes that keep parks; stuck ones that were given up */
};

int readyd_get_status(struct readyd *r, struct readyd_status *ret);

/* Which rows; zeroed fields and uid UINT32_MAX mean all. */
struct readyd_filter {
	size_t size;
	uint64_t session;
	uint32_t uid;
	uint32_t pid;
	uint32_t id;
	uint32_t reserved;
};

struct readyd_session_info {
	size_t size;
	uint64_t session;
	int64_t since;
	uint32_t pid, uid, gid;
	uint32_t blocked, self; /* 0 or 1 */
	uint32_t reserved;
	uint64_t watches, waiting, timers, ready;
	uint64_t requests, events, entries, messages, coalesced, stale;
};

/* States of a slot. */
#define READYD_SLOT_IDLE 0u
#define READYD_SLOT_READY 1u
#define READYD_SLOT_WAITING 2u
#define READYD_SLOT_DONE 3u /* completed, not sent yet */

struct readyd_slot_info {
	uint8_t state;
	uint8_t code; /* READYD_READY ..., unsent */
	uint16_t reserved[3];
	int64_t since;    /* waiting since; 0: not waiting */
	int64_t deadline; /* 0 none, -1 expired */
};

struct readyd_watch_info {
	size_t size;
	uint64_t session, cookie;
	int64_t since;
	uint64_t fired;
	struct readyd_slot_info read, write;
	readyd_id id;
	uint32_t pid, uid;
	int32_t fd; /* the number in that process; -1: not told */
	uint8_t interest, mode, lane, closing;
	uint8_t error;
	uint8_t reserved[7];
	char kind[16]; /* "unix", "inet", "pipe", "eventfd", ... */
};

struct readyd_timer_info {
	size_t size;
	uint64_t session, cookie;
	int64_t when, period;
	readyd_id id;
	uint32_t pid, uid, count, reserved;
};

struct readyd_quota_info {
	size_t size;
	uint64_t used, limit;
	uint32_t uid, reserved;
	char name[24]; /* as in the configuration: "connections", "watches", ... */
};

/* A row of parks; its list's filter looks at uid, the maker's pid, and the park's number modulo 2^32
 * as id. */
struct readyd_park_info {
	size_t size;
	uint64_t park, cookie;
	int64_t parked, deadline; /* 0: none, or it has passed */
	uint32_t uid, flags;      /* READYD_PARK_... */
	uint32_t pid;             /* who parked or claimed it; 0: gone */
	uint32_t worker_pid;      /* who is taking it; 0: nobody */
	int32_t fd;               /* the number in the process that parked it; -1: not told */
	uint8_t handed, ready;    /* 0 or 1; READYD_READ, READYD_WRITE */
	uint8_t timed_out;        /* 0 or 1: its deadline has passed */
	uint8_t interest;
	uint32_t note_length, local_length, peer_length;
	uint32_t shared;               /* 0 or 1: its group is, between users */
	uint8_t local[128], peer[128]; /* socket addresses */
	char kind[16], name[256], group[256];
};

/* A row of groups; its list's filter looks at uid. */
struct readyd_group_info {
	size_t size;
	uint64_t parks, ready, handed; /* in it; of them ready and not handed out; handed out */
	int64_t oldest;                /* since when the next one is ready; 0: none is */
	uint64_t credit, capacity;     /* of all its workers: what may be handed out now; at most */
	uint32_t uid;                  /* whose it is; UINT32_MAX: shared between users */
	uint32_t workers;
	char group[256];
};

struct readyd_list; /* an iterator; belongs to its handle */

int readyd_list_sessions(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret);
int readyd_list_watches(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret);
int readyd_list_timers(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret);
int readyd_list_quotas(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret);
int readyd_list_parks(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret);
int readyd_list_groups(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret);
int readyd_next_session(struct readyd_list *l, struct readyd_session_info *row);
int readyd_next_watch(struct readyd_list *l, struct readyd_watch_info *row);
int readyd_next_timer(struct readyd_list *l, struct readyd_timer_info *row);
int readyd_next_quota(struct readyd_list *l, struct readyd_quota_info *row);
int readyd_next_park(struct readyd_list *l, struct readyd_park_info *row);
int readyd_next_group(struct readyd_list *l, struct readyd_group_info *row);
struct readyd_list *readyd_list_free(struct readyd_list *l); /* NULL accepted; returns NULL */

/* The library's version ("0.1.0"). Static. */
const char *readyd_version(void);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

#endif
