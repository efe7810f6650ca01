/* SPDX-License-Identifier: MIT */

/*
 * Coming back when the connection has ended: nothing of it is seen by the program (H10).
 *
 * The link is up -> down -> greeting -> rebuilding -> up. rd_lose() is where a connection ends: what
 * it still had to say was read and heeded before; requests under way are completed as lost, and
 * their threads repeat them where that means the same; what was not sent is forgotten, since the
 * table has it. rd_resume_run() does the rest in small steps that never block, in whatever thread
 * calls the library next: each loop that waits calls it by rd_flush(), and the wait itself ends when
 * the next step is due (rd_resume_due()). For a foreign event loop a timerfd is in the epoll that it
 * looks at. Nothing happens while nobody calls: there is no thread of the library's own.
 *
 * Tries: the first at once, then after 1, 2, 4 ... 250 ms, each shortened by chance by up to a half,
 * so that many clients of one daemon do not come in step. Without `give_up` they go on for ever:
 * the caller's own timeouts are kept meanwhile. What ends the handle is a daemon that speaks
 * another protocol, and a fault of the library's own, which would come again.
 *
 * A thread may be blocked on the lost socket (the leader): it is woken by shutdown(), and closes
 * that fd itself (`grave`), so that its number is not used again under its feet.
 *
 * A private daemon of this handle whose abstract address refuses has gone for good: another one is
 * started, and the handle goes on there.
 *
 * Kernel behaviour: connect() on a non-blocking AF_UNIX socket is done at once or fails, with
 * EAGAIN if the listener's backlog is full. An fd that is closed while another process has a copy
 * stays in an epoll: it is taken out first.
 */

#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAUSE_FIRST_NS INT64_C(1000000)
#define PAUSE_MOST_NS INT64_C(250000000)

int64_t rd_jitter(struct readyd *r, int64_t ns)
{
	uint64_t x = r->resume.random ? r->resume.random : r->number | 1;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	r->resume.random = x;
	return ns - (int64_t)(x % (uint64_t)(ns / 2 + 1));
}

void rd_resume_plan(struct readyd *r, int64_t at)
{
	r->resume.at = at;
	if (r->led)
		rd_kick(r);
}

/* Plans the next try; the first one is at once. */
static void plan_try(struct readyd *r)
{
	unsigned n = r->resume.tries++;
	int64_t pause = 0;

	if (n > 0)
		pause = n > 8 ? PAUSE_MOST_NS : PAUSE_FIRST_NS << (n - 1);
	rd_resume_plan(r, rd_now() + (pause ? rd_jitter(r, pause) : 0));
}

static int64_t give_up_at(const struct readyd *r)
{
	const struct rd_resume *s = &r->resume;
	int64_t at;

	if (!s->give_up || (s->link != RD_DOWN && s->link != RD_GREETING))
		return 0;
	return __builtin_add_overflow(s->down_since, s->give_up, &at) ? 0 : at;
}

int64_t rd_resume_due(const struct readyd *r)
{
	int64_t end = give_up_at(r), at = r->resume.at;

	if (r->error)
		return 0;
	return !at || (end && end < at) ? end : at;
}

/* ---- The end of a connection ---- */

static void link_close(struct readyd *r)
{
	if (r->socket < 0)
		return;
	(void)epoll_ctl(r->epoll, EPOLL_CTL_DEL, r->socket, NULL);
	(void)shutdown(r->socket, SHUT_RDWR); /* wakes the leader; a forked child has a copy */
	if (r->led && r->resume.grave < 0)
		r->resume.grave = r->socket;
	else
		rd_fd_close(&r->socket);
	r->socket = -1;
	r->shown_out = false;
}

static void requests_lose(struct readyd *r)
{
	struct rd_request *q;

	while ((q = r->requests)) {
		r->requests = q->next;
		q->lost = true;
		if (q->gone)
			q->gone(r, q);
		rd_done(r, &q->waiter);
	}
	r->requests_end = &r->requests;
}

void rd_lose(struct readyd *r, const char *format, ...)
{
	struct rd_resume *s = &r->resume;
	char text[RD_TEXT_MAX];
	va_list arguments;

	if (r->error)
		return;
	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (r->flags & READYD_NO_RESUME) {
		(void)rd_end(r, -ENOTCONN, "%s; connect again", text);
		return;
	}
	(void)snprintf(r->sentence, sizeof(r->sentence), "%s", text);
	if (s->link == RD_UP) {
		s->tries = 0;
		s->down_since = rd_now();
	}
	link_close(r);
	s->link = RD_DOWN;
	r->out.size = r->out.records = r->out.n_fds = 0;
	r->out.last = SIZE_MAX;
	r->out.nap = r->hot = r->reset = false;
	requests_lose(r);
	rd_takes_lose(r);
	rd_handouts_lose(r);
	rd_groups_lose(r);
	rd_rebuild_forget(r);
	s->epoch++;
	plan_try(r);
	for (struct rd_waiter *w = r->sleepers; w; w = w->next)
		rd_wake(w);
}

/* ---- Tries ---- */

/* Connects and says hello. 0 or a negative errno. */
static int link_open(struct readyd *r)
{
	struct epoll_event e = {.events = EPOLLIN};
	RD_CLEANUP_FD int fd = -1;
	int error = rd_socket_try(r->address, &fd);
	size_t n;

	if (error)
		return error;
	if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e) < 0)
		return -errno;
	n = rd_hello_make(r);
	r->resume.hello_at = rd_now();
	/* If it has ended already, it has said why: that is read like all else. */
	if (send(fd, r->out.buffer, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EPIPE &&
	    errno != ECONNRESET) {
		error = -errno;
		(void)epoll_ctl(r->epoll, EPOLL_CTL_DEL, fd, NULL);
		return error;
	}
	r->socket = fd;
	fd = -1;
	return 0;
}

static void link_try(struct readyd *r)
{
	struct rd_resume *s = &r->resume;
	int error = link_open(r);

	if (!error) {
		s->link = RD_GREETING;
		rd_resume_plan(r, 0);
		return;
	}
	(void)snprintf(r->sentence, sizeof(r->sentence), "no readyd answers at %s: %s", r->address,
		       strerror(-error));
	if (error == -ECONNREFUSED && s->is_private) {
		s->wants_private = true;
		rd_resume_plan(r, rd_now());
		return;
	}
	plan_try(r);
}

void rd_greeted(struct readyd *r, const struct wire_view *view)
{
	char text[RD_TEXT_MAX] = "";
	int error;

	error = rd_welcome_take(r, view, r->resume.hello_at, rd_now(), text, sizeof(text));
	if (error == -ENOMEM) {
		rd_lose(r, "no memory for a new connection to readyd");
	} else if (error) {
		(void)rd_end(r, error, "%s", text);
	} else {
		r->resume.link = RD_REBUILDING;
		rd_takes_say(r);
		rd_groups_push(r);
		rd_rebuild_begin(r);
	}
}

void rd_resume_run(struct readyd *r)
{
	struct rd_resume *s = &r->resume;
	int64_t end = give_up_at(r), now = rd_now();
	char why[RD_TEXT_MAX / 2];

	if (r->error)
		return;
	if (end && now >= end) {
		(void)snprintf(why, sizeof(why), "%.*s", (int)sizeof(why) - 1, r->sentence);
		(void)rd_end(r, -ENOTCONN, "given up after %lld ms without a daemon: %s",
			     (long long)(s->give_up / 1000000), why);
		return;
	}
	if (s->link == RD_DOWN && s->grave < 0 && !s->wants_private && now >= s->at)
		link_try(r);
	if (s->sweeping || (s->link == RD_UP && s->at && now >= s->at))
		rd_rebuild(r);
}

int rd_link_await(struct readyd *r)
{
	struct rd_waiter w = {0};

	for (;;) {
		if (rd_unsettled(r))
			(void)rd_flush(r);
		if (r->error)
			return rd_ended(r);
		if (r->resume.link == RD_UP)
			return 0;
		(void)rd_turn(r, &w);
	}
}

void rd_link_settle(struct readyd *r)
{
	struct rd_waiter w = {0};

	while (!r->error && r->resume.link == RD_REBUILDING) {
		(void)rd_flush(r);
		if (!r->error && r->resume.link == RD_REBUILDING)
			(void)rd_turn(r, &w);
	}
}

/* ---- A private daemon ---- */

/* The handle goes on there. The old address stays for those who hold it. */
static int address_replace(struct readyd *r, const char *address)
{
	struct rd_resume *s = &r->resume;
	char **old = realloc(s->addresses, (s->n_addresses + 1) * sizeof(*old));
	char *copy;

	if (!old)
		return -ENOMEM;
	s->addresses = old;
	copy = strdup(address);
	if (!copy)
		return -ENOMEM;
	s->addresses[s->n_addresses++] = r->address;
	r->address = copy;
	return 0;
}

void rd_private_again(struct readyd *r)
{
	struct rd_resume *s = &r->resume;
	char address[128], text[RD_TEXT_MAX] = "";
	int error;

	if (s->starting || !s->wants_private || rd_now() < s->at)
		return;
	s->starting = true;
	s->at = 0;
	(void)pthread_mutex_unlock(&r->mutex);

	error = rd_private_start(s->config, address, sizeof(address), text, sizeof(text));

	(void)pthread_mutex_lock(&r->mutex);
	s->starting = false;
	if (!error)
		error = address_replace(r, address);
	if (error) {
		(void)snprintf(r->sentence, sizeof(r->sentence), "%s", text);
		plan_try(r);
		return;
	}
	s->wants_private = false;
	rd_resume_plan(r, rd_now());
}

/* ---- What the program can ask ---- */

/* What changes when the handle comes back is read under the lock; in a forked child nothing does. */
static bool look(const struct readyd *r, struct readyd **ret)
{
	*ret = (struct readyd *)(uintptr_t)r;
	return rd_enter(*ret) == 0;
}

/* Whether the daemon has ended the connection, though nobody has looked yet. */
static bool is_hung_up(const struct readyd *r)
{
	struct pollfd p = {.fd = r->socket};

	return poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR);
}

int readyd_state(const struct readyd *r)
{
	RD_KEEP_ERRNO;
	int state = READYD_STATE_LOST;
	struct readyd *handle;

	if (!look(r, &handle))
		return state;
	if (r->resume.link == RD_UP && !r->error && !is_hung_up(r))
		state = READYD_STATE_CONNECTED;
	else if (!r->error && !(r->flags & READYD_NO_RESUME))
		state = READYD_STATE_RESUMING;
	rd_leave(handle);
	return state;
}

uint64_t readyd_resumes(const struct readyd *r)
{
	RD_KEEP_ERRNO;
	struct readyd *handle;
	bool locked = look(r, &handle);
	uint64_t n = r->resume.n;

	if (locked)
		rd_leave(handle);
	return n;
}

const char *readyd_socket(const struct readyd *r)
{
	RD_KEEP_ERRNO;
	struct readyd *handle;
	bool locked = look(r, &handle);
	const char *address = r->address;

	if (locked)
		rd_leave(handle);
	return address;
}

uint32_t readyd_daemon_pid(const struct readyd *r)
{
	RD_KEEP_ERRNO;
	struct readyd *handle;
	bool locked = look(r, &handle);
	uint32_t pid = r->daemon_pid;

	if (locked)
		rd_leave(handle);
	return pid;
}

uint64_t readyd_session(const struct readyd *r)
{
	RD_KEEP_ERRNO;
	struct readyd *handle;
	bool locked = look(r, &handle);
	uint64_t session = r->session;

	if (locked)
		rd_leave(handle);
	return session;
}

int readyd_has_feature(const struct readyd *r, const char *name)
{
	RD_KEEP_ERRNO;
	struct readyd *handle;
	bool locked = look(r, &handle);
	size_t n = strlen(name);
	const char *p = r->features;
	int found = 0;

	while (n && !found && (p = strstr(p, name))) {
		found = (p == r->features || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0');
		p += n;
	}
	if (locked)
		rd_leave(handle);
	return found;
}
