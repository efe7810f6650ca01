/* SPDX-License-Identifier: MIT */
#ifndef READYD_TESTS_CONFORMANCE_HARNESS_H
#define READYD_TESTS_CONFORMANCE_HARNESS_H

/*
 * What the conformance items stand on: a real daemon process (daemon.c), a client that speaks the
 * wire by hand (client.c) and the words of the checklist's "Terms" (verbs.c). An item is a function
 * that runs in a process of its own; whatever is wrong ends that process with a message.
 */

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "protocol/wire.h"

struct env {
	const char *socket;
	const char *backend;
	const char *vectors; /* folder of the protocol's example messages */
	pid_t pid;           /* the process that serves, as WELCOME says */
	unsigned scale;      /* slow machines: times are multiplied by this */
	uint64_t seed;
	bool full; /* the long tier */
	bool weak, edge, stream;
};

struct item {
	const char *number; /* "S-001"; several items may share one */
	const char *name;
	void (*run)(const struct env *e);
	const char *poll_skip; /* why the poll(2) backend cannot; NULL: it can */
	unsigned seconds;      /* limit; 0: 60 */
};

struct item_list {
	const struct item *items;
	size_t n;
};

extern const struct item_list items_open_close;
extern const struct item_list items_lanes;
extern const struct item_list items_wait;
extern const struct item_list items_latch_reset;
extern const struct item_list items_deadlines;
extern const struct item_list items_deadlines_many;
extern const struct item_list items_evict_break;
extern const struct item_list items_poll;
extern const struct item_list items_load;
extern const struct item_list items_stream;
extern const struct item_list items_timers;
extern const struct item_list items_errors;
extern const struct item_list items_kinds;
extern const struct item_list items_bad_input;

#define ITEMS(array)                                      \
	{                                                 \
		(array), sizeof(array) / sizeof(*(array)) \
	}

/* ---- Ending an item ---- */

#define FAIL(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition)                                \
	do {                                            \
		if (!(condition))                       \
			FAIL("not so: %s", #condition); \
	} while (0)
#define CHECK_EQ(is, want)                                                         \
	do {                                                                       \
		long long is_ = (long long)(is), want_ = (long long)(want);        \
		if (is_ != want_)                                                  \
			FAIL("%s is %lld, not %lld (%s)", #is, is_, want_, #want); \
	} while (0)
/* A system call that must not fail. */
#define SYS(call)                                               \
	__extension__({                                         \
		long long sys_ = (long long)(call);             \
		if (sys_ < 0)                                   \
			FAIL("%s: %s", #call, strerror(errno)); \
		(int)sys_;                                      \
	})
/* For what has no event to wait for: a count that comes back, a state seen from outside. */
#define EVENTUALLY(e, condition)                                                      \
	do {                                                                          \
		int64_t until_ = now_ns() + soon_ms(e) * MS;                          \
		while (!(condition)) {                                                \
			if (now_ns() > until_)                                        \
				FAIL("not within %d ms: %s", soon_ms(e), #condition); \
			nap_us(1000);                                                 \
		}                                                                     \
	} while (0)

_Noreturn void fail_at(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Ends the item as skipped. Only for what the machine lacks. */
_Noreturn void skip_item(const char *reason);
enum { EXIT_SKIP = 77 };

/* ---- Time ---- */

#define US INT64_C(1000)
#define MS INT64_C(1000000)
#define SECOND INT64_C(1000000000)
#define HOUR (3600 * SECOND)

int64_t now_ns(void);
void nap_us(int64_t us);
int soon_ms(const struct env *e); /* the checklist's "soon" */

/* Growing limits: a timed step is tried with `limit`, which doubles until `most`. Being early is
 * never excused; being late only on a machine that is late at everything. */
struct growing {
	int64_t limit; /* ns */
	int64_t most;
};
#define GROWING(g, first, last) \
	for (struct growing g = {(first), (last)}; g.limit <= g.most; g.limit *= 2)

uint64_t random_next(uint64_t *state); /* splitmix64 */

/* ---- The daemon process (daemon.c) ---- */

struct daemon {
	pid_t child;
	char folder[64];
	char socket[96];
	char config[96];
	char log[96];
};

int daemon_start(const char *program, const char *backend, struct daemon *ret);
/* SIGTERM; the exit status, or 128 + signal, or -1 if it had to be killed. */
int daemon_stop(struct daemon *d);
bool daemon_alive(const struct daemon *d);
/* Removes its files. */
void daemon_clean(struct daemon *d);

int count_fds(pid_t pid);
long memory_kib(pid_t pid); /* RssAnon; -1: means nothing here (sanitizers) */

/* ---- The wire by hand (client.c) ---- */

struct received {
	uint64_t sequence; /* order of arrival */
	union {
		uint8_t kind;
		struct wire_entry entry;
		struct wire_timer_entry timer;
		struct wire_break_entry wake;
		struct wire_answer answer;
		struct wire_failure failure;
		uint8_t bytes[24];
	};
};

struct conn {
	const struct env *env;
	int fd;
	uint32_t serial;
	uint32_t last_id;
	struct wire_welcome welcome;
	char features[256];

	/* the datagram under way */
	size_t out_size;
	unsigned n_fds;
	int fds[WIRE_FDS_MAX];

	/* received and not yet taken */
	struct received *queue;
	size_t first, n, capacity;
	uint64_t sequence;
	size_t messages;     /* READY messages so far */
	size_t most_records; /* in one of them */

	/* the last answer taken, and the failures before it */
	struct wire_answer answer;
	uint64_t answer_sequence;
	struct wire_failure failure; /* the last */
	struct wire_failure failures[16];
	unsigned n_failures;

	bool ended;
	struct wire_error_record error; /* of an ERROR message; else zeros */

	size_t reply_size;
	uint8_t out[WIRE_MESSAGE_MAX];
	uint8_t reply[WIRE_MESSAGE_MAX]; /* the last message that was neither READY nor ERROR */
};

/* A connected socket that has not said hello. */
struct conn *conn_open(const struct env *e);
/* connect, HELLO, WELCOME. */
struct conn *conn_dial(const struct env *e);
struct conn *conn_close(struct conn *c);
bool conn_has_feature(const struct conn *c, const char *name);

/* Adds a request to the datagram under way; returns its serial. A datagram that is full, or whose
 * fds are, is sent first. */
uint32_t put(struct conn *c, unsigned type, unsigned flags, const void *records, size_t count);
void put_fd(struct conn *c, int fd);
/* Sends what was put; receives meanwhile, so that neither side blocks the other. */
void flush(struct conn *c);
/* One datagram as it is. 0 or -errno. */
int send_raw(struct conn *c, const void *bytes, size_t size, const int *fds, unsigned n_fds);

/* Receives one message, until `until` (ns; 0: only what is there). false: none came. */
bool receive(struct conn *c, int64_t until);
/* Takes the first record of this kind (and id, if not 0) out of the queue. */
bool take(struct conn *c, uint8_t kind, uint32_t id, int64_t until, struct received *ret);
/* Waits for this request's answer, which must be the next one (O2). Its error. */
unsigned answered(struct conn *c, uint32_t serial);
/* Waits for a reply message; returns its header and records, in c->reply. */
const struct wire_header *replied(struct conn *c, uint32_t serial, unsigned type,
				  const void **ret_records);
/* The daemon ends the connection: the ERROR's number, or 0 if it said none. */
unsigned ended(struct conn *c);

/* ---- The words of the checklist (verbs.c) ---- */

struct watch {
	int fd;
	uint32_t id;
	uint32_t gen;
	uint64_t cookie;
};

struct pair {
	int a, b;
	struct watch w; /* a's */
};

enum { BOTH = WIRE_READ | WIRE_WRITE };

/* One request with one answer; the error. */
unsigned ask(struct conn *c, unsigned type, const void *records, size_t count);
unsigned ask_watch(struct conn *c, const struct watch *w, unsigned interest, unsigned mode);
unsigned ask_unwatch(struct conn *c, const struct watch *w, int fd);
unsigned ask_slots(struct conn *c, unsigned type, const struct watch *w, unsigned directions);
unsigned ask_deadline(struct conn *c, const struct watch *w, unsigned directions, int64_t when);
unsigned ask_timer(struct conn *c, uint32_t id, uint32_t gen, int64_t when, int64_t period);
unsigned ask_timer_stop(struct conn *c, uint32_t id, uint32_t gen);
#define ask_wait(c, w, d) ask_slots((c), WIRE_WAIT, (w), (d))
#define ask_unwait(c, w, d) ask_slots((c), WIRE_UNWAIT, (w), (d))
#define ask_reset(c, w, d) ask_slots((c), WIRE_RESET, (w), (d))
#define ask_evict(c, w) ask_slots((c), WIRE_EVICT, (w), BOTH)
void sync_with(struct conn *c);

/* Adds one record's request to the datagram under way. */
uint32_t put_watch(struct conn *c, unsigned flags, const struct watch *w, unsigned interest,
		   unsigned mode);
uint32_t put_unwatch(struct conn *c, unsigned flags, const struct watch *w, int fd);
uint32_t put_slots(struct conn *c, unsigned type, unsigned flags, const struct watch *w,
		   unsigned directions);
uint32_t put_deadline(struct conn *c, unsigned flags, const struct watch *w, unsigned directions,
		      int64_t when, unsigned time_flags, uint16_t stamp);

/* A name for a new watch of fd; not yet sent. */
struct watch watch_name(struct conn *c, int fd);
/* WATCH, which must succeed. */
struct watch watch_new(struct conn *c, int fd, unsigned interest, unsigned mode);
/* Many, some hundred a message; `ret` has room for n. */
void watch_many(struct conn *c, const int *fds, size_t n, unsigned interest, unsigned mode,
		struct watch *ret);
/* WAIT for many, without answers. */
void wait_many(struct conn *c, const struct watch *watches, size_t n, unsigned directions);
/* Takes exactly one entry of each (in this direction's code), no other and none twice. */
void collect_once(struct conn *c, const struct watch *watches, size_t n, uint8_t read);

#define expect_ok(call) expect_error((call), WIRE_OK)
#define expect_error(call, want) expect_error_at(__FILE__, __LINE__, #call, (call), (want))
void expect_error_at(const char *file, int line, const char *what, unsigned error, unsigned want);
/* The watch's next entry, soon, with exactly these codes. */
#define expect_entry(c, w, read, write) \
	expect_entry_at(__FILE__, __LINE__, (c), (w), (read), (write))
struct received expect_entry_at(const char *file, int line, struct conn *c, const struct watch *w,
				unsigned read, unsigned write);
/* SYNC, 100 ms, SYNC: no entry, timer, break or failure is there. */
#define expect_nothing(c) expect_nothing_at(__FILE__, __LINE__, (c))
void expect_nothing_at(const char *file, int line, struct conn *c);

void pair_make(int *ret_a, int *ret_b);
struct pair pair_new(struct conn *c);     /* watched in wait mode, both directions */
struct pair pair_drained(struct conn *c); /* and its first write readiness consumed */
struct pair pair_full(struct conn *c);    /* and its send buffer filled: nothing is ready */
void pair_close(struct pair *p);          /* closes the fds only */
void fill(int fd);                        /* writes until EAGAIN */
size_t drain(int fd);                     /* reads until EAGAIN or the end; bytes */
void put_bytes(int fd, size_t n);         /* writes n bytes, all of them */
int pipe_full(int *ret_reader);           /* the write end of a full pipe */
int event_new(void);                      /* an eventfd at 0 */
void event_add(int fd);
int *event_many(size_t n);

/* Numbers of the daemon's, asked on this connection. */
struct wire_status status_of(struct conn *c);
struct wire_session_row session_row(struct conn *c, uint64_t session);
bool watch_row(struct conn *c, uint64_t session, uint32_t id, struct wire_watch_row *ret);
bool session_blocked(struct conn *observer, const struct conn *c);

/* ---- Through the library (items_poll.c) ---- */

struct readyd;

struct readyd *library_connect(const struct env *e, uint32_t flags);

#endif
