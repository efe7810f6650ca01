/* SPDX-License-Identifier: MIT */

/*
 * Making and ending watches.
 *
 * WATCH: the place is taken before the request is sent, so that entries find it; a refusal frees
 * it. Up to fds_max records go into one message; two messages are under way at a time, so that the
 * daemon works on one while the next is being made.
 *
 * UNWATCH: the watch is *ending* from the moment of the call: no other call finds it. The fd is
 * sent once more, unless its number means something else by now: the file is compared with what it
 * was at WATCH. After the answer nothing comes for it any more (O4). Events that waits are owed and
 * nobody took yet stay in the table (the place is *gone*) until they are; all else is forgotten, so
 * that the program may free what its cookie means.
 *
 * While there is no connection (resume.c) WATCH waits for the next one, and UNWATCH is done here at
 * once; an unanswered WATCH is repeated, an unanswered UNWATCH taken for done.
 */

#include "internal.h"

#include <string.h>
#include <sys/stat.h>

enum { WINDOW = 2 };

/* One WATCH message and whose it is. */
struct batch {
	struct rd_request request;
	struct readyd_watch_request *requests[WIRE_FDS_MAX];
	struct wire_watch records[WIRE_FDS_MAX];
	int fds[WIRE_FDS_MAX];
	unsigned n;
};

static int watch_failed(struct readyd *r, int fd, const struct wire_failure *f)
{
	static const char *const advice[WIRE_E_MAX] = {
		[WIRE_E_NOT_POLLABLE] =
			"regular files are always ready: read and write them directly",
		[WIRE_E_KIND] = "the daemon's configuration decides about ttys and other devices",
		[WIRE_E_NO_LANE] = "unwatch other duplicates of it first",
		[WIRE_E_SHARED] = "open it anew instead of sharing one open file",
		[WIRE_E_NO_RESOURCES] = "try again later",
		[WIRE_E_TOO_MANY_FDS] = "try again later, or raise the daemon's LimitNOFILE",
		[WIRE_E_NOT_SUPPORTED] = "use READYD_WAIT with this backend",
		[WIRE_E_BAD_FD] = "it was closed, or it is not an open file that can be polled",
	};
	const char *hint = f->error < WIRE_E_MAX ? advice[f->error] : NULL;
	int error = rd_errno_of(f->error);

	if (f->error == WIRE_E_KIND && f->detail == WIRE_KIND_FILE)
		error = -EPERM;
	if (f->error == WIRE_E_QUOTA)
		return rd_fail(
			r, error,
			"fd %d cannot be watched: this user's limit of %u %s is reached; end some, "
			"or raise it in the daemon's configuration",
			fd, f->value, wire_quota_name(f->detail));
	if (f->error == WIRE_E_KIND)
		return rd_fail(r, error, "fd %d cannot be watched: %s (%s); %s", fd,
			       wire_error_text(f->error), wire_kind_name(f->detail), hint);
	return rd_fail(r, error, "fd %d cannot be watched: %s%s%s", fd, wire_error_text(f->error),
		       hint ? "; " : "", hint ? hint : "");
}

static void watch_refused(struct readyd *r, struct rd_request *q, const struct wire_failure *f)
{
	struct batch *b = q->context;
	struct readyd_watch_request *w;

	if (f->index >= b->n)
		return;
	w = b->requests[f->index];
	if (w->error)
		return;
	w->error = watch_failed(r, w->fd, f);
}

/* The daemon knows those that it did not refuse: from now on rebuild.c makes them anew. */
static void watch_answered(struct readyd *r, struct rd_request *q)
{
	struct batch *b = q->context;

	for (unsigned i = 0; i < b->n; i++)
		if (!b->requests[i]->error)
			rd_watch_at(r, (uint32_t)b->requests[i]->id)->made = RD_MADE;
}

/* Takes a place for it. 0; negative: its error. */
static int watch_prepare(struct readyd *r, struct readyd_watch_request *w,
			 struct wire_watch *record)
{
	struct rd_watch_cold *cold;
	struct rd_watch *hot;
	struct stat st;
	uint32_t id;

	if (w->interest == 0 || w->interest & ~(READYD_READ | READYD_WRITE) ||
	    w->mode > READYD_STREAM || w->reserved)
		return rd_fail(r, -EINVAL, "watch of fd %d: interest %u or mode %u does not exist",
			       w->fd, w->interest, w->mode);
	if (fstat(w->fd, &st) < 0)
		return rd_fail(r, -errno, "fd %d cannot be watched: %s", w->fd, strerror(errno));
	id = rd_watch_add(r);
	if (!id)
		return rd_fail(r, -ENOMEM, "no memory for another watch");
	hot = rd_watch_at(r, id);
	hot->made = RD_NEW;
	hot->cookie = w->cookie;
	hot->flags |= (uint8_t)(w->interest | (w->mode == READYD_STREAM ? RD_STREAM : 0));
	cold = rd_watch_cold_at(r, id);
	cold->fd = w->fd;
	cold->dev = st.st_dev;
	cold->ino = st.st_ino;
	w->id = rd_id(id, hot->gen);
	*record = (struct wire_watch){
		.cookie = w->cookie,
		.id = id,
		.gen = rd_wire_gen(r, hot->gen),
		.fd = w->fd,
		.interest = w->interest,
		.mode = w->mode,
	};
	return 0;
}

/* Waits until the link is up and there is room for so many. */
static int batch_reserve(struct readyd *r, unsigned n)
{
	size_t size = sizeof(struct wire_header) + n * sizeof(struct wire_watch);
	int error;

	do {
		error = rd_link_await(r);
		if (!error)
			error = rd_out_reserve(r, size, n);
	} while (!error && r->resume.link != RD_UP);
	return error;
}

/* The connection was lost before the answer: all of it once more, on the next one. */
static int batch_repeat(struct readyd *r, struct batch *b)
{
	int error = batch_reserve(r, b->n);

	if (error)
		return error;
	b->request.lost = b->request.waiter.done = false;
	for (unsigned i = 0; i < b->n; i++) {
		b->requests[i]->error = 0;
		b->records[i].gen = rd_wire_gen(r, (uint32_t)(b->requests[i]->id >> 32));
	}
	rd_out_request(r, &b->request, WIRE_WATCH, b->records, b->n, b->fds, b->n);
	return 0;
}

/* Sends the next ones of the requests. Returns how many were looked at, or the sticky error. */
static long batch_send(struct readyd *r, struct batch *b, struct readyd_watch_request *requests,
		       size_t n)
{
	unsigned most = r->fds_max; /* WIRE_FDS_MAX at most */
	size_t wanted = n < most ? n : most, i = 0;
	int error;

	b->n = 0;
	b->request = (struct rd_request){
		.refused = watch_refused,
		.answered = watch_answered,
		.context = b,
	};
	error = batch_reserve(r, (unsigned)wanted);
	if (error)
		return error;
	for (; i < n && b->n < wanted; i++) {
		requests[i].id = 0;
		requests[i].error = watch_prepare(r, &requests[i], &b->records[b->n]);
		if (requests[i].error)
			continue;
		b->requests[b->n] = &requests[i];
		b->fds[b->n] = requests[i].fd;
		b->n++;
	}
	if (b->n == 0) {
		b->request.waiter.done = true;
		return (long)i;
	}
	rd_out_request(r, &b->request, WIRE_WATCH, b->records, b->n, b->fds, b->n);
	(void)rd_flush(r); /* not while the next one is being made */
	return (long)i;
}

/* Waits for the answer; frees the places of those that were refused. Returns their number. */
static int batch_finish(struct readyd *r, struct batch *b)
{
	int error = rd_await(r, &b->request.waiter, false), failed = 0;

	while (!error && b->request.lost) {
		error = batch_repeat(r, b);
		if (!error)
			error = rd_await(r, &b->request.waiter, false);
	}
	if (error)
		return error;
	for (unsigned i = 0; i < b->n; i++) {
		struct readyd_watch_request *w = b->requests[i];

		if (!w->error)
			continue;
		rd_watch_drop(r, (uint32_t)w->id);
		rd_watch_remove(r, (uint32_t)w->id);
		w->id = 0;
		failed++;
	}
	b->n = 0;
	return failed;
}

static int watch_many(struct readyd *r, struct readyd_watch_request *requests, size_t n)
{
	struct batch batches[WINDOW];
	unsigned sent = 0, finished = 0;
	size_t next = 0, failed = 0;

	while (next < n || finished < sent) {
		if (next < n && sent - finished < WINDOW) {
			long looked =
				batch_send(r, &batches[sent % WINDOW], requests + next, n - next);

			if (looked < 0)
				return (int)looked;
			next += (size_t)looked;
			sent++;
		} else {
			int error = batch_finish(r, &batches[finished++ % WINDOW]);

			if (error < 0)
				return error;
		}
	}
	for (size_t i = 0; i < n; i++)
		failed += requests[i].error != 0;
	return failed > INT32_MAX ? INT32_MAX : (int)failed;
}

int readyd_watch_many(struct readyd *r, struct readyd_watch_request *requests, size_t n)
{
	RD_KEEP_ERRNO;
	int result = rd_enter(r);

	if (result)
		return result;
	result = watch_many(r, requests, n);
	rd_leave(r);
	return result;
}

int readyd_watch(struct readyd *r, int fd, unsigned interest, unsigned mode, uint64_t cookie,
		 readyd_id *ret)
{
	struct readyd_watch_request w = {.fd = fd, .cookie = cookie};
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	w.interest = interest > UINT8_MAX ? UINT8_MAX : (uint8_t)interest;
	w.mode = mode > UINT8_MAX ? UINT8_MAX : (uint8_t)mode;
	error = watch_many(r, &w, 1);
	rd_leave(r);
	if (error < 0)
		return error;
	if (w.error)
		return w.error;
	*ret = w.id;
	return 0;
}

/* ---- Ending ---- */

static void watch_end(struct readyd *r, uint32_t id)
{
	struct rd_watch *w = rd_watch_at(r, id);
	uint8_t owed[2] = {0, 0};

	if (w->special / RD_REWAIT)
		r->n_rewaits--;
	/* The daemon has answered each wait; should it not have, nobody waits for ever. */
	for (unsigned slot = 0; slot < 2; slot++) {
		struct rd_waiter *waiter = rd_watch_cold_at(r, id)->waiter[slot];

		if (waiter) {
			r->n_pollwaits--;
			waiter->code = WIRE_CODE_CLOSING;
			rd_done(r, waiter);
		} else if (w->waiting & (1u << slot) && !rd_is_orphan(r, id, slot)) {
			owed[slot] = WIRE_CODE_CLOSING;
		}
	}
	if (w->flags & RD_STREAM)
		rd_watch_drop(r, id);
	else if (owed[0] | owed[1])
		rd_watch_keep(r, id, owed[0], owed[1]);
	w->waiting = w->special = 0;
	if (w->flags & RD_LISTED)
		w->flags = (uint8_t)((w->flags & ~RD_LIVE) | RD_GONE);
	else
		rd_watch_remove(r, id);
}

/* The connection is lost: the daemon has forgotten the watch, and will not be told of it again. */
static void unwatch_gone(struct readyd *r, struct rd_request *q)
{
	watch_end(r, *(const uint32_t *)q->context);
}

static int unwatch(struct readyd *r, readyd_id watch, int fd)
{
	struct wire_unwatch record = {.id = (uint32_t)watch};
	struct rd_request q = {.gone = unwatch_gone, .context = &record.id};
	struct rd_watch *w;
	int error;

	error = rd_out_reserve(r, sizeof(struct wire_header) + sizeof(record), 1);
	if (error)
		return error;
	w = rd_watch_named(r, watch);
	if (!w)
		return -ENOENT;
	if (!(w->made & (RD_MADE | RD_SENT))) {
		watch_end(r, record.id);
		return 0;
	}
	w->flags |= RD_ENDING;
	record.gen = rd_wire_gen(r, w->gen);
	if (rd_fd_is_same(rd_watch_cold_at(r, record.id), fd))
		record.flags = WIRE_UNWATCH_FD;
	error = rd_ask_once(r, &q, r->resume.epoch, WIRE_UNWATCH, &record, 1, &fd,
			    record.flags & WIRE_UNWATCH_FD ? 1 : 0);
	if (!error && !q.lost)
		watch_end(r, record.id);
	return error;
}

int readyd_unwatch(struct readyd *r, readyd_id watch, int fd)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = unwatch(r, watch, fd);
	rd_leave(r);
	return error;
}
