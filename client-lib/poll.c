/* SPDX-License-Identifier: MIT */

/*
 * readyd_poll(): Go's netpoll(delta), and what belongs to it: break, sync, the fd for other loops.
 *
 * One call, one thread, nothing kept: ppoll() on socket and bell, then one recv() straight into the
 * caller's array. When the last message was long, or nothing may be waited for, recv() is tried
 * first: under load that alone is the whole call.
 *
 * Break (Go's netpollWakeSig): who changes `broken` from 0 to 1 rings the bell; who finds it 1 does
 * nothing, since a wake is under way. Only a poll that may block takes it back, when it returns;
 * a poll that asks leaves it. So ten thousand breaks with nobody polling end one poll.
 *
 * readyd_fd() shows an epoll of the library's own that holds the socket and the bell for the whole
 * life of the handle. It must be readable too while events lie in the table: the bell, an eventfd
 * and therefore always writable, is then looked at for writing as well (connection.c). This costs
 * nothing before the first call of readyd_fd().
 */

#include "internal.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

bool rd_break_take(struct readyd *r)
{
	if (!atomic_load_explicit(&r->broken, memory_order_relaxed))
		return false;
	if (!r->led)
		rd_bell_drain(r); /* else the leader does: it might be a kick of its own */
	return atomic_exchange(&r->broken, 0);
}

static bool may_take_break(int64_t delta)
{
#ifdef READYD_MUTANT_BREAK_LOST_BY_ASKING
	(void)delta;
	return true;
#else
	return delta != 0;
#endif
}

static int poll_events(struct readyd *r, struct rd_sink *sink, int64_t delta)
{
	struct rd_waiter w = {.wants = RD_WANTS_EVENTS};
	bool readable = delta == 0 || r->hot, first = true;
	int64_t until = 0;
	int error;

	for (;;) {
		if (r->unread != r->unread_end && !r->kept_first && !r->broken_kept)
			rd_unread_take(r, sink);
		if (!sink->n && rd_events_kept(r))
			rd_kept_take(r, sink);
		if (sink->n)
			break;
		if (r->error)
			return rd_ended(r);
		(void)rd_flush(r);
		if (r->resume.wants_private)
			rd_private_again(r);
		if (r->error)
			continue;
		if (first && atomic_load_explicit(&r->broken, memory_order_relaxed))
			readable = true; /* a break and an event: both in one call */
		first = false;
		if (readable && rd_receive(r, sink)) {
			readable = delta == 0 || r->hot;
			rd_pass_handouts(r);
			continue;
		}
		if (may_take_break(delta) && rd_break_take(r))
			return 0;
		if (delta == 0)
			return 0;
		if (delta > 0) {
			int64_t now = rd_now();

			if (!until && __builtin_add_overflow(now, delta, &until))
				until = INT64_MAX;
			if (now >= until)
				return 0;
		}
		error = rd_block(r, &w, until, &readable);
		if (error == -EINTR && r->flags & READYD_EINTR)
			return rd_fail(r, -EINTR, "interrupted by a signal");
	}
	if (may_take_break(delta))
		(void)rd_break_take(r);
	return sink->n;
}

int readyd_poll(struct readyd *r, struct readyd_event *events, int max, int64_t delta)
{
	struct rd_sink sink = {.events = events, .max = max};
	RD_KEEP_ERRNO;
	int result = rd_enter(r);

	if (result)
		return result;
	if (max < 1)
		result = rd_fail(r, -EINVAL, "room for %d events: at least 1 is needed", max);
	else
		result = poll_events(r, &sink, delta);
	rd_leave(r);
	return result;
}

void readyd_break(struct readyd *r)
{
	const uint64_t one = 1;
	RD_KEEP_ERRNO;

	if (r->mine ? *r->mine == 0 : r->pid != getpid())
		return;
	/* EAGAIN would mean that it rings already. */
	if (atomic_exchange(&r->broken, 1) == 0)
		(void)!write(r->bell, &one, sizeof(one));
}

static int ask_simply(struct readyd *r, unsigned type, const void *record, size_t n, int fd,
		      const char *what, uint64_t *ret_value)
{
	struct rd_request q = {0};
	int error = rd_ask(r, &q, type, record, n, &fd, fd >= 0 ? 1 : 0);

	if (error)
		return error;
	if (q.error)
		return rd_fail(r, rd_errno_of(q.error), "%s: %s", what, wire_error_text(q.error));
	if (ret_value)
		*ret_value = q.value;
	return 0;
}

/* Another session's number means another one, or none, to a daemon that was restarted. */
static int break_another(struct readyd *r, uint64_t session)
{
	struct wire_break record = {.session = session};
	struct rd_request q = {0};
	int error = rd_ask_once(r, &q, r->resume.epoch, WIRE_BREAK, &record, 1, NULL, 0);

	if (!error && q.lost)
		return rd_fail(r, -ENOENT, "session %llu ended with its daemon",
			       (unsigned long long)session);
	if (error || !q.error)
		return error;
	return rd_fail(r, rd_errno_of(q.error), "the session cannot be broken: %s",
		       wire_error_text(q.error));
}

int readyd_break_session(struct readyd *r, uint64_t session)
{
	const struct wire_break own = {.session = 0};
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	if (session && session != r->session)
		error = break_another(r, session);
	else
		error = ask_simply(r, WIRE_BREAK, &own, 1, -1, "the session cannot be broken",
				   NULL);
	rd_leave(r);
	return error;
}

int readyd_sync(struct readyd *r)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = ask_simply(r, WIRE_SYNC, NULL, 0, -1, "sync", NULL);
	rd_leave(r);
	return error;
}

int readyd_fd(const struct readyd *r)
{
	struct readyd *handle = (struct readyd *)(uintptr_t)r;
	RD_KEEP_ERRNO;

	/* What changes is how the fd is kept up to date, nothing that the caller sees. */
	if (rd_enter(handle) == 0) {
		handle->shown = true;
		(void)rd_flush(handle);
		rd_leave(handle);
	}
	return r->epoll;
}

/* Whether both fds of this process are one open file. */
static bool is_same_file(int a, int b)
{
	return a == b || syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, (long)a, (long)b) == 0;
}

static int is_poll_descriptor(struct readyd *r, int fd)
{
	const int own[] = {r->socket, r->bell, r->epoll, r->resume.timer};
	struct wire_is_poll_descriptor record = {0};
	uint64_t value = 0;
	int error;

	if (r->error)
		return rd_ended(r);
	if (fcntl(fd, F_GETFD) < 0)
		return rd_fail(r, -EBADF, "fd %d is not open", fd);
	for (unsigned i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (own[i] >= 0 && is_same_file(fd, own[i]))
			return 1;
	error = ask_simply(r, WIRE_IS_POLL_DESCRIPTOR, &record, 1, fd, "the daemon cannot say",
			   &value);
	return error ? error : value != 0;
}

int readyd_is_poll_descriptor(struct readyd *r, int fd)
{
	RD_KEEP_ERRNO;
	int result = rd_enter(r);

	if (result)
		return result;
	result = is_poll_descriptor(r, fd);
	rd_leave(r);
	return result;
}
