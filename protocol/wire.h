/* SPDX-License-Identifier: MIT */
#ifndef READYD_WIRE_H
#define READYD_WIRE_H

/*
 * The wire format of readyd, as C sees it. The specification is PROTOCOL.md beside this file; a
 * test compares every constant here with the tables there.
 *
 * A datagram (one SOCK_SEQPACKET message) of a client carries one or more requests, one after the
 * other; a datagram of the daemon carries exactly one message. Each is a struct wire_header,
 * `count` records of the fixed size that belongs to the type, and `tail` bytes of text or names,
 * padded with zeros to a multiple of 8. Host byte order; HELLO's magic shows a mismatch. Reserved
 * fields are zero, and refused otherwise.
 *
 * Pure: nothing here makes a system call, allocates or keeps state; all functions are safe to call
 * from any thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WIRE_PROTOCOL_LOWEST = 1,
	WIRE_PROTOCOL_HIGHEST = 1,
};

#define WIRE_MAGIC UINT32_C(0x52454459)

enum {
	WIRE_MESSAGE_MAX = 65536, /* bytes of one datagram, either direction */
	WIRE_RECORDS_MAX = 1024,  /* records of one request or message */
	WIRE_FDS_MAX = 253,       /* fds of one datagram: the kernel's SCM_MAX_FD */
	WIRE_NAME_MAX = 255,      /* bytes of a park's name or a group's */
	WIRE_NOTE_MAX = 2048,     /* bytes of a park's note */
	WIRE_ADDRESS_MAX = 128,   /* bytes of a socket address in PARK */
	WIRE_TEXT_MAX = 1024,     /* bytes of the texts in HELLO, WELCOME, STATUS and ERROR */
	WIRE_TOKEN_SIZE = 16,     /* a park's token, a handle's id */
	WIRE_CAPACITY_MAX = 1024, /* hand-outs that a worker works at, at once */
	WIRE_GROUPS_MAX = 64,     /* groups that one session is attached to */
	WIRE_UNSETTLED_MAX = 16,  /* hand-outs of groups that are unsettled at one worker */
};

/* Message types. 0x01 to 0x7f: client to daemon. 0x80 and above: daemon to client. */
enum wire_type {
	WIRE_HELLO = 0x01,
	WIRE_SYNC = 0x02,
	WIRE_BREAK = 0x03,
	WIRE_IS_POLL_DESCRIPTOR = 0x04,

	WIRE_WATCH = 0x10,
	WIRE_UNWATCH = 0x11,
	WIRE_WAIT = 0x12,
	WIRE_UNWAIT = 0x13,
	WIRE_RESET = 0x14,
	WIRE_DEADLINE = 0x15,
	WIRE_EVICT = 0x16,
	WIRE_TIMER_SET = 0x18,
	WIRE_TIMER_STOP = 0x19,

	WIRE_PARK = 0x20,
	WIRE_CLAIM = 0x21,
	WIRE_TAKE = 0x22,
	WIRE_DROP = 0x23,
	WIRE_ACKNOWLEDGE = 0x24,
	WIRE_HELD = 0x25,
	WIRE_ATTACH = 0x28,
	WIRE_DETACH = 0x29,

	WIRE_GET_STATUS = 0x30,
	WIRE_LIST_SESSIONS = 0x31,
	WIRE_LIST_WATCHES = 0x32,
	WIRE_LIST_TIMERS = 0x33,
	WIRE_LIST_QUOTAS = 0x34,
	WIRE_LIST_PARKS = 0x35,
	WIRE_LIST_GROUPS = 0x36,
	WIRE_MONITOR = 0x38,
	WIRE_UPGRADE = 0x39,

	WIRE_WELCOME = 0x81,
	WIRE_READY = 0x82,
	WIRE_ERROR = 0x83,
	WIRE_HANDOUT = 0x84,
	WIRE_STATUS = 0xb0,
	WIRE_SESSIONS = 0xb1,
	WIRE_WATCHES = 0xb2,
	WIRE_TIMERS = 0xb3,
	WIRE_QUOTAS = 0xb4,
	WIRE_PARKS = 0xb5,
	WIRE_GROUPS = 0xb6,
};

/* Header flags. */
enum wire_flag {
	WIRE_FLAG_ANSWER = 0x0001, /* request: answer also if all went well */
	WIRE_FLAG_MORE = 0x0002,   /* list reply: ask again with the last row's cursor */
};

struct wire_header {
	uint16_t type;   /* enum wire_type */
	uint16_t flags;  /* enum wire_flag */
	uint32_t serial; /* the client's choice; answers, failures and replies carry it */
	uint32_t count;  /* records that follow */
	uint32_t tail;   /* bytes after the records, without the padding */
};

/* Error numbers: the specification's own, each with what to change (PROTOCOL.md, Values). */
enum wire_error {
	WIRE_OK = 0,
	WIRE_E_PROTOCOL = 1,   /* malformed: unknown type, length, flag, reserved field */
	WIRE_E_VERSION = 2,    /* no common protocol version */
	WIRE_E_BYTE_ORDER = 3, /* HELLO's magic in another byte order */
	WIRE_E_NOT_FOUND = 4,  /* no watch, timer, session or park of that id */
	WIRE_E_EXISTS = 5,     /* the id, name or token is in use */
	WIRE_E_STALE = 6,      /* the id is live with another generation */
	WIRE_E_INVALID = 7,    /* a field's value makes no sense here */
	WIRE_E_BUSY = 8,       /* the slot has a waiter, or its completion is not sent yet */
	WIRE_E_ALREADY = 9,    /* UNWAIT came too late: the entry comes */
	WIRE_E_CLOSING = 10,   /* the watch was evicted */
	WIRE_E_TIMEOUT = 11,   /* the slot's deadline has passed */
	WIRE_E_NOT_POLLABLE =
		12, /* the kernel cannot poll this fd (EPERM), or its last event was a bare error */
	WIRE_E_BAD_FD = 13,       /* the record's fd is missing or no open file */
	WIRE_E_TOO_MANY_FDS = 14, /* the daemon had no fd slot for it */
	WIRE_E_SURPLUS_FDS = 15,  /* more fds than records that take one: fatal */
	WIRE_E_NO_RESOURCES = 16, /* memory or kernel watches ran out: try again */
	WIRE_E_QUOTA = 17,        /* a limit of this uid; `detail` is an enum wire_quota */
	WIRE_E_ACCESS = 18,       /* no right to do this */
	WIRE_E_KIND = 19,         /* fds of this kind are not admitted */
	WIRE_E_POLL_DESCRIPTOR =
		20,          /* one of the daemon's own descriptions, or a connection to it */
	WIRE_E_NO_LANE = 21, /* this description is watched under all lanes already */
	WIRE_E_SHARED = 22, /* this description is watched by as many sessions as the kernel lets */
	WIRE_E_NOT_SUPPORTED = 23,   /* the daemon's backend cannot: see WELCOME's features */
	WIRE_E_NOT_IMPLEMENTED = 24, /* this version of the daemon does not know how */
	WIRE_E_SHUTDOWN = 25,        /* the daemon is ending: fatal */
	WIRE_E_INTERNAL = 26,        /* a fault of the daemon's: fatal for this connection */
	WIRE_E_MAX,
};

/* What a quota bounds, per uid. Also the order of LIST_QUOTAS rows' `quota`. */
enum wire_quota {
	WIRE_QUOTA_CONNECTIONS = 0,
	WIRE_QUOTA_WATCHES = 1,
	WIRE_QUOTA_TIMERS = 2,
	WIRE_QUOTA_PARKS = 3,
	WIRE_QUOTA_NOTE_BYTES = 4,
	WIRE_QUOTA_FDS_RECEIVED = 5, /* received and not yet processed */
	WIRE_QUOTA_FDS_UNREAD = 6,   /* handed out and not yet read */
	WIRE_QUOTA_MAX,
};

/* Directions, in masks. */
enum wire_direction {
	WIRE_READ = 0x1,
	WIRE_WRITE = 0x2,
};

/* Kinds of fd, as found at admission. */
enum wire_kind {
	WIRE_KIND_UNKNOWN = 0,
	WIRE_KIND_UNIX = 1,
	WIRE_KIND_INET = 2,
	WIRE_KIND_INET6 = 3,
	WIRE_KIND_NETLINK = 4,
	WIRE_KIND_PIPE = 5, /* pipe or FIFO */
	WIRE_KIND_EVENTFD = 6,
	WIRE_KIND_TIMERFD = 7,
	WIRE_KIND_PIDFD = 8,
	WIRE_KIND_INOTIFY = 9,
	WIRE_KIND_TTY = 10,
	WIRE_KIND_SOCKET = 11,    /* of another family */
	WIRE_KIND_CHARACTER = 12, /* another one, but see the next */
	WIRE_KIND_FILE = 13,      /* or directory, block device, O_PATH, /dev/null */
	WIRE_KIND_EPOLL = 14,
	WIRE_KIND_SIGNALFD = 15,
	WIRE_KIND_MAX,
};

/* ---- Records of requests ---- */

struct wire_hello { /* HELLO: 1 record; tail: names of wanted features, separated by spaces */
	uint32_t magic;
	uint16_t lowest;
	uint16_t highest;
	uint8_t handle[WIRE_TOKEN_SIZE]; /* who speaks: random, anew after fork */
	uint64_t reserved;
};

struct wire_break {       /* BREAK: wakes the poll of a session */
	uint64_t session; /* 0: one's own */
};

struct wire_is_poll_descriptor { /* IS_POLL_DESCRIPTOR: one fd a record */
	uint64_t reserved;
};

enum wire_watch_mode {
	WIRE_MODE_WAIT = 0,   /* an entry only for a WAIT */
	WIRE_MODE_STREAM = 1, /* an entry for each edge, coalesced until sent */
};

struct wire_watch { /* WATCH: one fd a record */
	uint64_t cookie;
	uint32_t id; /* not 0 */
	uint32_t gen;
	int32_t fd;       /* the number in the client, for people to see; -1: not told */
	uint8_t interest; /* enum wire_direction, not 0 */
	uint8_t mode;     /* enum wire_watch_mode */
	uint16_t reserved;
};

enum wire_unwatch_flag {
	WIRE_UNWATCH_FD = 0x1, /* this record takes an fd: the watched one, sent again */
};

struct wire_unwatch { /* UNWATCH */
	uint32_t id;
	uint32_t gen;
	uint32_t flags; /* enum wire_unwatch_flag */
	uint32_t reserved;
};

struct wire_slots { /* WAIT, UNWAIT, RESET, EVICT (whose directions must be both) */
	uint32_t id;
	uint32_t gen;
	uint32_t directions; /* enum wire_direction, not 0 */
	uint32_t reserved;
};

enum wire_time_flag {
	WIRE_TIME_RELATIVE = 0x1, /* `when` is added to the daemon's clock at arrival */
};

struct wire_deadline { /* DEADLINE */
	int64_t when;  /* ns of the daemon's CLOCK_MONOTONIC. absolute: 0 none, < 0 expired */
	uint32_t id;
	uint32_t gen;
	uint16_t directions; /* enum wire_direction, not 0 */
	uint16_t flags;      /* enum wire_time_flag */
	uint16_t stamp;      /* the client's choice: names this deadline in a timeout entry */
	uint16_t reserved;
};

struct wire_timer_set { /* TIMER_SET: arms a new timer, or a live one anew */
	uint64_t cookie;
	int64_t when;   /* ns; <= 0 or past: fires at once */
	int64_t period; /* ns; 0: one-shot */
	uint32_t id;    /* not 0; an id space of its own */
	uint32_t gen;   /* of this arming */
	uint32_t flags; /* enum wire_time_flag */
	uint32_t reserved;
};

struct wire_timer_stop { /* TIMER_STOP */
	uint32_t id;
	uint32_t gen;
};

enum wire_park_flag {
	WIRE_PARK_DURABLE = 0x1,   /* survives the death of the whole service */
	WIRE_PARK_HOLD_ONLY = 0x2, /* the fd need not be pollable: it is held, and never ready */
	WIRE_PARK_RELATIVE = 0x4,  /* `deadline` is added to the daemon's clock at arrival */
	WIRE_PARK_DEADLINE_HAND =
		0x8, /* at the deadline hand it out, marked; else shut down and close */
};

struct wire_park { /* PARK: 1 record, 1 fd; tail: name, group, note, local address, peer address */
	uint8_t token[WIRE_TOKEN_SIZE]; /* drawn at random; repeating it repeats the answer */
	uint64_t cookie;
	int64_t deadline; /* as DEADLINE; 0 none */
	uint32_t flags;   /* enum wire_park_flag */
	int32_t fd;       /* as in WATCH */
	uint16_t note_length;
	uint8_t name_length;
	uint8_t group_length;
	uint8_t local_length; /* struct sockaddr bytes, as the client's getsockname() said */
	uint8_t peer_length;
	uint8_t interest; /* enum wire_direction: which readiness makes it ready */
	uint8_t reserved;
};

struct wire_token { /* CLAIM: parks that the sender made */
	uint8_t token[WIRE_TOKEN_SIZE];
};

enum wire_take_by {
	WIRE_TAKE_BY_NAME = 0, /* tail: name, group */
	WIRE_TAKE_BY_ID = 1,
	WIRE_TAKE_BY_TOKEN = 2,
};

struct wire_take { /* TAKE, DROP: 1 record; tail: name, group */
	uint8_t token[WIRE_TOKEN_SIZE];
	uint64_t park; /* the daemon's number */
	uint32_t by;   /* enum wire_take_by */
	uint8_t name_length;
	uint8_t group_length;
	uint16_t reserved;
};

struct wire_held { /* ACKNOWLEDGE, HELD. HELD: a zero token, held 0, means all others */
	uint8_t token[WIRE_TOKEN_SIZE];
	uint32_t held; /* HELD: 1 has it, 0 does not. ACKNOWLEDGE: 1 */
	uint32_t reserved;
};

struct wire_attach {   /* ATTACH, DETACH: 1 record; tail: group */
	uint32_t more; /* ATTACH: hand-outs that the daemon may make beyond those it may already */
	uint32_t capacity; /* ATTACH: hand-outs that this worker works at, at once */
	uint32_t group_length;
	uint32_t reserved;
};

struct wire_list {        /* LIST_*: 1 record. Rows come in the daemon's own order */
	uint64_t cursor;  /* 0: from the start; else the last row's cursor */
	uint64_t session; /* 0: all */
	uint32_t uid;     /* UINT32_MAX: all that the asker may see */
	uint32_t pid;     /* 0: all */
	uint32_t id;      /* 0: all */
	uint32_t limit;   /* rows in the reply at most; 0: as many as fit */
};

struct wire_monitor {    /* MONITOR: 1 record */
	uint64_t events; /* mask */
	uint64_t session;
	uint32_t uid;
	uint32_t pid;
};

/* ---- Records of the daemon ---- */

struct wire_welcome { /* 1 record; tail: granted features, separated by spaces */
	uint32_t magic;
	uint16_t protocol;
	uint16_t reserved;
	int64_t now;      /* the daemon's CLOCK_MONOTONIC, ns */
	uint64_t session; /* this session's number, never used again by this daemon */
	uint32_t message_max;
	uint32_t records_max;
	uint32_t fds_max;
	uint32_t pid;
};

/* READY: what happened, in order. Six kinds of record, of one size; the first byte tells. */
enum wire_record_kind {
	WIRE_RECORD_ENTRY = 1,   /* a watch's */
	WIRE_RECORD_TIMER = 2,   /* a timer's */
	WIRE_RECORD_BREAK = 3,   /* somebody asked this session's poll to return */
	WIRE_RECORD_ANSWER = 4,  /* to a request that asked for one */
	WIRE_RECORD_FAILURE = 5, /* one refused record of a request */
	WIRE_RECORD_PARK = 6,    /* a park is ready */
};

/* Codes of an entry, a mask for each direction. A wait-mode slot has exactly one bit. */
enum wire_code {
	WIRE_CODE_READY = 0x01,
	WIRE_CODE_CLOSING = 0x02,
	WIRE_CODE_TIMEOUT = 0x04,
	WIRE_CODE_NOT_POLLABLE = 0x08,
};

struct wire_entry {
	uint8_t kind; /* WIRE_RECORD_ENTRY */
	uint8_t mode; /* enum wire_watch_mode */
	uint8_t read; /* enum wire_code */
	uint8_t write;
	uint16_t read_stamp; /* of the deadline that expired, where the code is timeout; else 0 */
	uint16_t write_stamp;
	uint32_t id;
	uint32_t gen;
	uint64_t cookie;
};

struct wire_timer_entry {
	uint8_t kind; /* WIRE_RECORD_TIMER */
	uint8_t reserved[3];
	uint32_t count; /* expirations since the last entry; stops at UINT32_MAX */
	uint32_t id;
	uint32_t gen; /* of the arming */
	uint64_t cookie;
};

struct wire_break_entry {
	uint8_t kind; /* WIRE_RECORD_BREAK */
	uint8_t reserved[23];
};

struct wire_park_entry {
	uint8_t kind; /* WIRE_RECORD_PARK */
	uint8_t reserved1;
	uint8_t read; /* enum wire_code */
	uint8_t write;
	uint32_t reserved2;
	uint64_t park; /* the daemon's number */
	uint64_t cookie;
};

struct wire_answer {
	uint8_t kind; /* WIRE_RECORD_ANSWER */
	uint8_t reserved;
	uint16_t error;   /* WIRE_OK if no record was refused, else the first refusal's */
	uint32_t serial;  /* of the request */
	uint32_t failed;  /* refused records; each has a FAILURE before this answer */
	uint32_t request; /* the request's type */
	uint64_t value;   /* see the request */
};

struct wire_failure {
	uint8_t kind;      /* WIRE_RECORD_FAILURE */
	uint8_t direction; /* where the record asked for one alone, else 0 */
	uint16_t error;
	uint32_t serial; /* of the request */
	uint32_t id;     /* of the record, where it has one */
	uint32_t gen;
	uint16_t index;  /* of the record in its request */
	uint16_t detail; /* WIRE_E_QUOTA: enum wire_quota. WIRE_E_KIND: enum wire_kind. else 0 */
	uint32_t value;  /* WIRE_E_QUOTA: the limit, at most UINT32_MAX. else 0 */
};

struct wire_error_record { /* ERROR: 1 record; tail: a sentence for people. The connection ends */
	uint32_t error;    /* enum wire_error */
	uint32_t serial;   /* of the request at fault, or 0 */
	uint32_t detail;   /* as in FAILURE */
	uint32_t value;
};

struct wire_handout { /* HANDOUT: 1 record, 1 fd; tail: name, group, note, local and peer address */
	uint8_t token[WIRE_TOKEN_SIZE];
	uint64_t park;
	uint64_t cookie;
	int64_t parked; /* when, ns */
	uint32_t flags; /* enum wire_park_flag as parked */
	uint8_t read;   /* enum wire_code: ready, or timeout where the deadline passed */
	uint8_t write;
	uint16_t note_length;
	uint8_t name_length;
	uint8_t group_length;
	uint8_t local_length;
	uint8_t peer_length;
	uint32_t reserved;
};

struct wire_status { /* STATUS: 1 record; tail: version, backend, socket, each ended by a zero byte */
	int64_t now;     /* ns */
	int64_t started; /* ns */
	uint32_t pid;
	uint32_t protocol;
	uint64_t connections; /* counts */
	uint64_t watches;
	uint64_t waiting; /* slots with a waiter */
	uint64_t timers;
	uint64_t deadlines; /* slots with one pending */
	uint64_t overdue;   /* slots and timers whose time came and whose entry is not sent */
	uint64_t fds;       /* open in the daemon */
	uint64_t fds_max;
	uint64_t turns;     /* counters since the start */
	uint64_t events;    /* taken from the kernel */
	uint64_t entries;   /* sent */
	uint64_t messages;  /* READY messages that carried entries */
	uint64_t coalesced; /* edges merged into an unsent entry */
	uint64_t stale;     /* events of dead registrations, dropped */
	uint64_t breaks;
	uint64_t accepted;
	uint64_t refused;      /* connections */
	uint64_t failures;     /* refused records */
	uint64_t turn_longest; /* ns, without the wait */
	int64_t began;         /* ns: its keeper; without one, as started */
	uint64_t restarts;     /* loops that took the place of one that had ended, since then */
	uint64_t left_behind;  /* loops that could not be ended, when this one was made */
	uint64_t parks;
	uint64_t parks_handed;
	uint64_t parks_ready; /* and not handed */
	uint64_t holders;
	uint64_t holders_left; /* stuck ones that were given up */
};

enum wire_session_flag {
	WIRE_SESSION_BLOCKED = 0x1, /* its socket is full */
	WIRE_SESSION_SELF = 0x2,    /* the asker's own */
};

struct wire_session_row {
	uint64_t cursor;
	uint64_t session;
	int64_t since; /* ns: accepted */
	uint32_t pid;
	uint32_t uid;
	uint32_t gid;
	uint32_t flags; /* enum wire_session_flag */
	uint64_t watches;
	uint64_t waiting;
	uint64_t timers;
	uint64_t ready;    /* items with an unsent entry */
	uint64_t requests; /* counters */
	uint64_t events;
	uint64_t entries;
	uint64_t messages;
	uint64_t coalesced;
	uint64_t stale;
};

enum wire_slot_state {
	WIRE_SLOT_IDLE = 0,
	WIRE_SLOT_READY = 1,
	WIRE_SLOT_WAITING = 2,
	WIRE_SLOT_DONE = 3,
};

enum wire_watch_flag {
	WIRE_WATCH_CLOSING = 0x1,
	WIRE_WATCH_ERROR = 0x2, /* its last event was a bare error */
};

struct wire_watch_row {
	uint64_t cursor;
	uint64_t session;
	uint64_t cookie;
	int64_t since;      /* ns, to about 0.15 s: watched */
	int64_t read_since; /* waiting since; 0: not waiting */
	int64_t write_since;
	int64_t read_deadline; /* ns; 0 none, -1 expired */
	int64_t write_deadline;
	uint64_t fired; /* entries sent */
	uint32_t id;
	uint32_t gen;
	uint32_t pid;
	uint32_t uid;
	int32_t fd;   /* the client's number, if told */
	uint8_t kind; /* enum wire_kind */
	uint8_t interest;
	uint8_t mode;
	uint8_t lane;       /* 0 where the backend has none */
	uint8_t read_state; /* enum wire_slot_state */
	uint8_t write_state;
	uint8_t read_code; /* enum wire_code: unsent */
	uint8_t write_code;
	uint32_t flags; /* enum wire_watch_flag */
};

struct wire_timer_row {
	uint64_t cursor;
	uint64_t session;
	uint64_t cookie;
	int64_t when; /* ns; next expiry; 0: fired, entry not sent */
	int64_t period;
	uint32_t id;
	uint32_t gen;
	uint32_t pid;
	uint32_t uid;
	uint32_t count; /* unsent expirations */
	uint32_t reserved;
};

struct wire_quota_row {
	uint64_t cursor;
	uint64_t used;
	uint64_t limit;
	uint32_t uid;
	uint32_t quota; /* enum wire_quota */
};

enum wire_park_state {
	WIRE_PARK_HELD = 0,
	WIRE_PARK_HANDED = 1,
};

struct wire_park_row { /* tail of PARKS: of each row name, group, local and peer address */
	uint64_t cursor;
	uint64_t park;
	uint64_t cookie;
	int64_t parked;   /* ns */
	int64_t deadline; /* ns; 0: none, or passed */
	uint32_t uid;
	uint32_t flags;      /* enum wire_park_flag */
	uint32_t pid;        /* of the maker; 0: gone */
	uint32_t worker_pid; /* handed to; 0: nobody */
	uint8_t state;       /* enum wire_park_state */
	uint8_t ready;       /* enum wire_direction */
	uint8_t timed_out;
	uint8_t kind; /* enum wire_kind */
	uint16_t note_length;
	uint8_t name_length;
	uint8_t group_length;
	uint8_t local_length;
	uint8_t peer_length;
	uint8_t interest;
	uint8_t shared; /* 1: its group is shared between users */
	int32_t fd;     /* the client's number, if told */
};

struct wire_group_row { /* tail of GROUPS: of each row the group's name */
	uint64_t cursor;
	uint64_t parks;
	uint64_t ready;    /* of them, and not handed out */
	uint64_t handed;   /* of them, and not acknowledged */
	int64_t oldest;    /* ns: since when the next one is ready; 0: none is */
	uint64_t credit;   /* of all its workers: hand-outs that may be made */
	uint64_t capacity; /* of all its workers */
	uint32_t uid;      /* whose it is; UINT32_MAX: shared between users */
	uint32_t workers;
	uint32_t group_length;
	uint32_t reserved;
};

/* ---- Codec ---- */

/* One request or message inside a datagram; pointers into the caller's buffer. */
struct wire_view {
	struct wire_header header;
	const void *records;
	const char *tail;
	size_t size;    /* bytes of the whole, with padding */
	unsigned n_fds; /* fds that its records take */
};

/* Bytes of one record of this type; 0 for a type without records, -1 for an unknown type. */
int wire_record_size(unsigned type);

/* The type's name as in the specification ("WATCH"), or NULL for an unknown one. Static. */
const char *wire_type_name(unsigned type);

/* A short English phrase for an error; never NULL ("unknown error 77" has one text). Static. */
const char *wire_error_text(unsigned error);

/* Stable lower-case words for rows and messages ("eventfd", "watches"); never NULL. Static. */
const char *wire_kind_name(unsigned kind);
const char *wire_quota_name(unsigned quota);

/*
 * Checks the request or message at the start of a datagram's remaining bytes, whole: type known
 * and of the right direction (`from_client`), length, count, tail, flags, reserved fields, padding
 * zero, and whatever a record's fields must be for the message to have a meaning at all (RESET,
 * PARK, TAKE and ACKNOWLEDGE ask for their answer; PARK's lengths add up to the tail). Values that concern one record only
 * (an id, a direction, a mode) are not looked at here: they are that record's own failure.
 * Returns WIRE_OK and fills *ret, or the enum wire_error to send; then *ret_reason, if not NULL,
 * is a static sentence for people, and ret->header holds as much of the header as was there (else
 * zeros), so that an ERROR can name the serial.
 */
enum wire_error wire_decode(const void *buffer, size_t size, bool from_client,
			    struct wire_view *ret, const char **ret_reason);

/*
 * The same for a whole datagram of a client: all its requests, the number of fds that came with
 * it, and that HELLO comes first and only once (`greeted`: it came before). Returns the first
 * fault. Fewer fds than wanted is no fault (each record fails by itself); more is
 * WIRE_E_SURPLUS_FDS. An empty datagram is a fault.
 */
enum wire_error wire_check_datagram(const void *buffer, size_t size, unsigned n_fds, bool greeted,
				    struct wire_view *ret_fault, const char **ret_reason);

/*
 * Writes a message into `buffer`: header, count records copied from `records`, tail, padding.
 * Returns its bytes, or 0 when it does not fit into `size` or WIRE_MESSAGE_MAX. `serial` and
 * `flags` as in the header.
 */
size_t wire_encode(void *buffer, size_t size, unsigned type, unsigned flags, uint32_t serial,
		   const void *records, size_t count, const void *tail, size_t tail_size);

/* n rounded up to a multiple of 8. */
static inline size_t wire_align(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

#endif
