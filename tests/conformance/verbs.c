/* SPDX-License-Identifier: MIT */

/*
 * The words in which the checklist speaks: pair, drained, soon, nothing, entry(x), and one verb
 * for each request. "ask" sends one request and waits for its answer; "put" adds one to the
 * datagram under way, for what must go together.
 */

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

_Noreturn void fail_at(const char *file, int line, const char *format, ...)
{
	const char *base = strrchr(file, '/');
	va_list args;

	fprintf(stderr, "%s:%d: ", base ? base + 1 : file, line);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	(void)fflush(NULL);
	_exit(1);
}

_Noreturn void skip_item(const char *reason)
{
	fprintf(stderr, "%s\n", reason);
	(void)fflush(NULL);
	_exit(EXIT_SKIP);
}

int64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

void nap_us(int64_t us)
{
	struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

int soon_ms(const struct env *e)
{
	return (int)(1000 * e->scale);
}

uint64_t random_next(uint64_t *state)
{
	uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* ---- Requests ---- */

unsigned ask(struct conn *c, unsigned type, const void *records, size_t count)
{
	return answered(c, put(c, type, WIRE_FLAG_ANSWER, records, count));
}

void sync_with(struct conn *c)
{
	expect_ok(ask(c, WIRE_SYNC, NULL, 0));
}

struct watch watch_name(struct conn *c, int fd)
{
	uint32_t id = ++c->last_id;

	return (struct watch){
		.fd = fd, .id = id, .gen = 7, .cookie = UINT64_C(0xc001e00000000000) | id};
}

static struct wire_watch watch_record(const struct watch *w, unsigned interest, unsigned mode)
{
	return (struct wire_watch){
		.cookie = w->cookie,
		.id = w->id,
		.gen = w->gen,
		.fd = w->fd,
		.interest = (uint8_t)interest,
		.mode = (uint8_t)mode,
	};
}

uint32_t put_watch(struct conn *c, unsigned flags, const struct watch *w, unsigned interest,
		   unsigned mode)
{
	struct wire_watch record = watch_record(w, interest, mode);
	uint32_t serial = put(c, WIRE_WATCH, flags, &record, 1);

	put_fd(c, w->fd);
	return serial;
}

uint32_t put_unwatch(struct conn *c, unsigned flags, const struct watch *w, int fd)
{
	struct wire_unwatch record = {
		.id = w->id,
		.gen = w->gen,
		.flags = fd >= 0 ? WIRE_UNWATCH_FD : 0,
	};
	uint32_t serial = put(c, WIRE_UNWATCH, flags, &record, 1);

	if (fd >= 0)
		put_fd(c, fd);
	return serial;
}

uint32_t put_slots(struct conn *c, unsigned type, unsigned flags, const struct watch *w,
		   unsigned directions)
{
	struct wire_slots record = {.id = w->id, .gen = w->gen, .directions = directions};

	return put(c, type, flags, &record, 1);
}

uint32_t put_deadline(struct conn *c, unsigned flags, const struct watch *w, unsigned directions,
		      int64_t when, unsigned time_flags, uint16_t stamp)
{
	struct wire_deadline record = {
		.when = when,
		.id = w->id,
		.gen = w->gen,
		.directions = (uint16_t)directions,
		.flags = (uint16_t)time_flags,
		.stamp = stamp,
	};

	return put(c, WIRE_DEADLINE, flags, &record, 1);
}

unsigned ask_watch(struct conn *c, const struct watch *w, unsigned interest, unsigned mode)
{
	return answered(c, put_watch(c, WIRE_FLAG_ANSWER, w, interest, mode));
}

unsigned ask_unwatch(struct conn *c, const struct watch *w, int fd)
{
	return answered(c, put_unwatch(c, WIRE_FLAG_ANSWER, w, fd));
}

unsigned ask_slots(struct conn *c, unsigned type, const struct watch *w, unsigned directions)
{
	return answered(c, put_slots(c, type, WIRE_FLAG_ANSWER, w, directions));
}

unsigned ask_deadline(struct conn *c, const struct watch *w, unsigned directions, int64_t when)
{
	return answered(c, put_deadline(c, WIRE_FLAG_ANSWER, w, directions, when, 0, 0));
}

unsigned ask_timer(struct conn *c, uint32_t id, uint32_t gen, int64_t when, int64_t period)
{
	struct wire_timer_set record = {
		.cookie = UINT64_C(0x71000000000000) | id,
		.when = when,
		.period = period,
		.id = id,
		.gen = gen,
	};

	return ask(c, WIRE_TIMER_SET, &record, 1);
}

unsigned ask_timer_stop(struct conn *c, uint32_t id, uint32_t gen)
{
	struct wire_timer_stop record = {.id = id, .gen = gen};

	return ask(c, WIRE_TIMER_STOP, &record, 1);
}

struct watch watch_new(struct conn *c, int fd, unsigned interest, unsigned mode)
{
	struct watch w = watch_name(c, fd);

	expect_ok(ask_watch(c, &w, interest, mode));
	return w;
}

void watch_many(struct conn *c, const int *fds, size_t n, unsigned interest, unsigned mode,
		struct watch *ret)
{
	struct wire_watch records[WIRE_FDS_MAX];

	for (size_t done = 0; done < n;) {
		size_t batch = n - done < WIRE_FDS_MAX ? n - done : WIRE_FDS_MAX;
		uint32_t serial;

		flush(c);
		for (size_t i = 0; i < batch; i++) {
			ret[done + i] = watch_name(c, fds[done + i]);
			records[i] = watch_record(&ret[done + i], interest, mode);
		}
		serial = put(c, WIRE_WATCH, WIRE_FLAG_ANSWER, records, batch);
		for (size_t i = 0; i < batch; i++)
			put_fd(c, fds[done + i]);
		expect_ok(answered(c, serial));
		done += batch;
	}
}

void wait_many(struct conn *c, const struct watch *watches, size_t n, unsigned directions)
{
	struct wire_slots records[WIRE_RECORDS_MAX];

	for (size_t done = 0; done < n;) {
		size_t batch = n - done < WIRE_RECORDS_MAX ? n - done : WIRE_RECORDS_MAX;

		for (size_t i = 0; i < batch; i++)
			records[i] = (struct wire_slots){
				.id = watches[done + i].id,
				.gen = watches[done + i].gen,
				.directions = directions,
			};
		put(c, WIRE_WAIT, 0, records, batch);
		flush(c);
		done += batch;
	}
}

/* ---- What comes back ---- */

void expect_error_at(const char *file, int line, const char *what, unsigned error, unsigned want)
{
	if (error != want)
		fail_at(file, line, "%s: error %u, not %u", what, error, want);
}

struct received expect_entry_at(const char *file, int line, struct conn *c, const struct watch *w,
				unsigned read, unsigned write)
{
	int64_t until = now_ns() + soon_ms(c->env) * MS;
	const struct wire_entry *entry;
	struct received r;

	flush(c);
	if (!take(c, WIRE_RECORD_ENTRY, w->id, until, &r)) {
		struct received f = {0};
		bool failed = take(c, WIRE_RECORD_FAILURE, 0, 0, &f);

		fail_at(file, line, "no entry of watch %u%s; a failure: %u; ERROR: %u", w->id,
			c->ended ? " (the connection ended)" : "", failed ? f.failure.error : 0,
			c->error.error);
	}
	entry = &r.entry;
	if (entry->gen != w->gen || entry->cookie != w->cookie)
		fail_at(file, line, "entry of watch %u with gen %u, cookie %#llx", w->id,
			entry->gen, (unsigned long long)entry->cookie);
	if (entry->read != read || entry->write != write)
		fail_at(file, line, "entry of watch %u says read %#x write %#x, not %#x %#x", w->id,
			entry->read, entry->write, read, write);
	return r;
}

void expect_nothing_at(const char *file, int line, struct conn *c)
{
	int64_t until;

	sync_with(c);
	until = now_ns() + 100 * MS;
	while (receive(c, until))
		;
	sync_with(c);
	if (c->first < c->n) {
		const struct received *r = &c->queue[c->first];

		if (r->kind == WIRE_RECORD_ENTRY)
			fail_at(file, line, "an entry of watch %u, gen %u: read %#x write %#x",
				r->entry.id, r->entry.gen, r->entry.read, r->entry.write);
		if (r->kind == WIRE_RECORD_FAILURE)
			fail_at(file, line, "a failure: error %u of request %u, id %u",
				r->failure.error, r->failure.serial, r->failure.id);
		fail_at(file, line, "a record of kind %u", r->kind);
	}
}

void collect_once(struct conn *c, const struct watch *watches, size_t n, uint8_t read)
{
	int64_t until = now_ns() + 30 * soon_ms(c->env) * MS;
	uint32_t lowest = UINT32_MAX, highest = 0;
	bool *seen;

	for (size_t i = 0; i < n; i++) {
		lowest = watches[i].id < lowest ? watches[i].id : lowest;
		highest = watches[i].id > highest ? watches[i].id : highest;
	}
	seen = calloc(highest - lowest + 1, sizeof(*seen));
	CHECK(seen);
	for (size_t i = 0; i < n; i++) {
		struct received r;

		if (!take(c, WIRE_RECORD_ENTRY, 0, until, &r))
			FAIL("%zu entries of %zu", i, n);
		if (r.entry.id < lowest || r.entry.id > highest || seen[r.entry.id - lowest])
			FAIL("entry %zu is a second one, or nobody's: id %u", i, r.entry.id);
		seen[r.entry.id - lowest] = true;
		CHECK_EQ(r.entry.read, read);
	}
	free(seen);
}

/* ---- Fds ---- */

void pair_make(int *ret_a, int *ret_b)
{
	int s[2];

	SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s));
	*ret_a = s[0];
	*ret_b = s[1];
}

struct pair pair_new(struct conn *c)
{
	struct pair p;

	pair_make(&p.a, &p.b);
	p.w = watch_new(c, p.a, BOTH, WIRE_MODE_WAIT);
	return p;
}

struct pair pair_drained(struct conn *c)
{
	struct pair p = pair_new(c);

	expect_ok(ask_wait(c, &p.w, WIRE_WRITE));
	expect_entry(c, &p.w, 0, WIRE_CODE_READY);
	return p;
}

/* SO_SNDBUF comes first: setting it is a writable edge by itself. */
struct pair pair_full(struct conn *c)
{
	struct pair p;
	int size = 4096;

	pair_make(&p.a, &p.b);
	SYS(setsockopt(p.a, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
	p.w = watch_new(c, p.a, BOTH, WIRE_MODE_WAIT);
	expect_ok(ask_wait(c, &p.w, WIRE_WRITE));
	expect_entry(c, &p.w, 0, WIRE_CODE_READY);
	fill(p.a);
	return p;
}

void pair_close(struct pair *p)
{
	if (p->a >= 0)
		close(p->a);
	if (p->b >= 0)
		close(p->b);
	p->a = p->b = -1;
}

void fill(int fd)
{
	static const char zeros[4096];

	while (write(fd, zeros, sizeof(zeros)) > 0)
		;
	CHECK(errno == EAGAIN);
	while (write(fd, zeros, 1) > 0)
		;
	CHECK(errno == EAGAIN);
}

size_t drain(int fd)
{
	char bytes[4096];
	size_t n = 0;
	ssize_t got;

	while ((got = read(fd, bytes, sizeof(bytes))) > 0)
		n += (size_t)got;
	if (got < 0)
		CHECK(errno == EAGAIN);
	return n;
}

void put_bytes(int fd, size_t n)
{
	static const char x[256];

	while (n) {
		ssize_t done = write(fd, x, n < sizeof(x) ? n : sizeof(x));

		if (done <= 0)
			FAIL("write: %s", strerror(errno));
		n -= (size_t)done;
	}
}

int pipe_full(int *ret_reader)
{
	int p[2];

	SYS(pipe2(p, O_NONBLOCK | O_CLOEXEC));
	(void)fcntl(p[1], F_SETPIPE_SZ, 4096);
	fill(p[1]);
	*ret_reader = p[0];
	return p[1];
}

int event_new(void)
{
	return SYS(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

void event_add(int fd)
{
	uint64_t one = 1;

	CHECK(write(fd, &one, sizeof(one)) == sizeof(one));
}

int *event_many(size_t n)
{
	int *fds = calloc(n, sizeof(*fds));

	CHECK(fds);
	for (size_t i = 0; i < n; i++)
		fds[i] = event_new();
	return fds;
}

/* ---- The daemon's numbers ---- */

struct wire_status status_of(struct conn *c)
{
	struct wire_status status;
	const void *records;

	CHECK_EQ(replied(c, put(c, WIRE_GET_STATUS, 0, NULL, 0), WIRE_STATUS, &records)->count, 1);
	memcpy(&status, records, sizeof(status));
	return status;
}

struct wire_session_row session_row(struct conn *c, uint64_t session)
{
	struct wire_list list = {.session = session, .uid = UINT32_MAX};
	struct wire_session_row row;
	const struct wire_header *h;
	const void *records;

	h = replied(c, put(c, WIRE_LIST_SESSIONS, 0, &list, 1), WIRE_SESSIONS, &records);
	CHECK_EQ(h->count, 1);
	memcpy(&row, records, sizeof(row));
	CHECK_EQ(row.session, session);
	return row;
}

bool watch_row(struct conn *c, uint64_t session, uint32_t id, struct wire_watch_row *ret)
{
	struct wire_list list = {.session = session, .uid = UINT32_MAX, .id = id};
	const struct wire_header *h;
	const void *records;

	h = replied(c, put(c, WIRE_LIST_WATCHES, 0, &list, 1), WIRE_WATCHES, &records);
	if (h->count == 0)
		return false;
	CHECK_EQ(h->count, 1);
	memcpy(ret, records, sizeof(*ret));
	return true;
}

bool session_blocked(struct conn *observer, const struct conn *c)
{
	return session_row(observer, c->welcome.session).flags & WIRE_SESSION_BLOCKED;
}
