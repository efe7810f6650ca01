/* SPDX-License-Identifier: MIT */

/*
 * Who receives, who waits: many threads on one connection.
 *
 * Receiving is done under the mutex and never blocks; what blocks is the wait before it, without
 * the mutex. One thread at most, the leader, waits on the socket and the bell; the others sleep on
 * their own futex. Whoever receives a message gives each record to the one that it concerns:
 * answers to their requests, results to pollwait's waiters, events to the poller's array or to the
 * table; and wakes these. A datagram that found the socket full is the leader's too: it looks for
 * room as well, and is kicked to do so (H14).
 *
 * Leaving: a thread that goes while others sleep wakes one that takes its place (rd_pass_on), and a
 * poller when there are events or a break for it. Since every thread does that on its way out and
 * after each message, there is no state in which all sleep and a message lies in the socket.
 *
 * The bell is an eventfd. It is rung by readyd_break(), after `broken` was set, and by rd_kick().
 * It carries nothing: the leader reads it empty and looks at the flags afterwards, and a ring
 * without a flag only costs a turn.
 *
 * A futex with a limit far away, not a condition variable: a signal handler ends it with EINTR,
 * which READYD_EINTR needs, and it needs no set-up. A waker changes the word and wakes under the
 * mutex, so the waiter is still there.
 */

#include "internal.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { NAP_NS = 1000000 };

static struct timespec timespec_of(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

static bool is_ours(const struct readyd *r)
{
	return r->mine ? *r->mine != 0 : r->pid == getpid();
}

int rd_enter(struct readyd *r)
{
	if (!is_ours(r))
		return rd_fail(r, -ENOTCONN,
			       "this handle is the parent process's: a child connects anew");
	(void)pthread_mutex_lock(&r->mutex);
	return 0;
}

bool rd_events_kept(const struct readyd *r)
{
	return r->kept_first || r->broken_kept || r->unread != r->unread_end ||
	       rd_handouts_untold(r);
}

/* Sets the timer in readyd_fd()'s epoll to the next step of coming back. */
static void update_timer(struct readyd *r)
{
	int64_t due = rd_resume_due(r);
	struct itimerspec t = {.it_value = timespec_of(due)};

	if (due != r->resume.timer_at &&
	    timerfd_settime(r->resume.timer, TFD_TIMER_ABSTIME, &t, NULL) == 0)
		r->resume.timer_at = due;
}

/* Makes what readyd_fd() shows agree with what is kept and unsent. */
static void update_shown(struct readyd *r)
{
	bool kept = rd_events_kept(r) || rd_handouts_kept(r) || r->error || atomic_load(&r->broken);
	bool out = r->out.size != 0;
	struct epoll_event e;

	if (kept != r->shown_kept) {
		/* An eventfd can always be written: looking for that makes it readable. */
		e = (struct epoll_event){.events = EPOLLIN | (kept ? EPOLLOUT : 0)};
		if (epoll_ctl(r->epoll, EPOLL_CTL_MOD, r->bell, &e) == 0)
			r->shown_kept = kept;
	}
	if (r->resume.timer >= 0)
		update_timer(r);
	if (out != r->shown_out && r->socket >= 0) {
		e = (struct epoll_event){.events = EPOLLIN | (out ? EPOLLOUT : 0)};
		if (epoll_ctl(r->epoll, EPOLL_CTL_MOD, r->socket, &e) == 0)
			r->shown_out = out;
	}
}

void rd_leave(struct readyd *r)
{
	if (r->parking.hurry && !r->error) {
		r->parking.hurry = false;
		(void)rd_out_flush(r);
	}
	if (r->sleepers || r->leader_wants)
		rd_pass_on(r);
	if (r->shown)
		update_shown(r);
	(void)pthread_mutex_unlock(&r->mutex);
}

static long futex(_Atomic uint32_t *word, int operation, uint32_t value, const struct timespec *t)
{
	return syscall(SYS_futex, word, operation, value, t, NULL, FUTEX_BITSET_MATCH_ANY);
}

void rd_wake(struct rd_waiter *w)
{
	if (atomic_exchange(&w->word, 1) == 0)
		(void)futex(&w->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
}

/* Wakes one sleeper that wants this, or anything (NOTHING), unless one of that kind is on its way.
 * Pollers first: they serve all. */
static bool wake_one(struct readyd *r, enum rd_wants wants)
{
	struct rd_waiter *found = NULL;

	for (struct rd_waiter *w = r->sleepers; w; w = w->next) {
		if (wants && w->wants != wants)
			continue;
		if (atomic_load(&w->word))
			return true;
		if (!found || (w->wants == RD_WANTS_EVENTS && found->wants != RD_WANTS_EVENTS))
			found = w;
	}
	if (found)
		rd_wake(found);
	return found != NULL;
}

void rd_kick(struct readyd *r)
{
	const uint64_t one = 1;

	if (r->kicked)
		return;
	r->kicked = true;
	(void)!write(r->bell, &one, sizeof(one));
}

/* To one who wants that. A break has rung the leader's bell already. */
static void pass(struct readyd *r, enum rd_wants wants, bool there)
{
	if (!there && !atomic_load(&r->broken))
		return;
	if (!wake_one(r, wants) && there && r->leader_wants == wants)
		rd_kick(r);
}

void rd_pass_handouts(struct readyd *r)
{
	if (r->parking.n_receivers)
		pass(r, RD_WANTS_HANDOUTS, rd_handouts_kept(r) || r->error);
}

void rd_pass_events(struct readyd *r)
{
	pass(r, RD_WANTS_EVENTS, rd_events_kept(r) || r->error);
}

static void pass_both(struct readyd *r)
{
	rd_pass_events(r);
	rd_pass_handouts(r);
}

void rd_done(struct readyd *r, struct rd_waiter *w)
{
	w->done = true;
	if (w->sleeps)
		rd_wake(w);
	else if (r->led)
		rd_kick(r); /* it may be the leader's: another thread has found it out */
}

void rd_pass_on(struct readyd *r)
{
	pass_both(r);
	if (!r->led)
		(void)wake_one(r, RD_WANTS_NOTHING);
}

void rd_bell_drain(struct readyd *r)
{
	uint64_t count;

	(void)!read(r->bell, &count, sizeof(count));
	r->kicked = false;
}

int rd_sleep(struct readyd *r, struct rd_waiter *w, int64_t until)
{
	/* Only a futex with a limit is ended by a handler that was installed with SA_RESTART. */
	struct timespec limit = timespec_of(until ? until : INT64_MAX / 4);
	int error;

	w->prev = NULL;
	w->next = r->sleepers;
	if (w->next)
		w->next->prev = w;
	r->sleepers = w;
	atomic_store(&w->word, 0);
	w->sleeps = true;
	(void)pthread_mutex_unlock(&r->mutex);

	error = futex(&w->word, FUTEX_WAIT_BITSET_PRIVATE, 0, &limit) < 0 ? errno : 0;

	(void)pthread_mutex_lock(&r->mutex);
	w->sleeps = false;
	if (w->prev)
		w->prev->next = w->next;
	else
		r->sleepers = w->next;
	if (w->next)
		w->next->prev = w->prev;
	if (atomic_load(&w->word))
		return 0;
	return error == ETIMEDOUT || error == EINTR ? -error : 0;
}

/* Less, if `until` (0: no limit) comes before. */
static int64_t time_left(int64_t left, int64_t until)
{
	int64_t now;

	if (!until)
		return left;
	now = rd_now();
	if (until <= now)
		return 0;
	return until - now < left ? until - now : left;
}

int rd_lead(struct readyd *r, enum rd_wants wants, int64_t until, bool *ret_readable)
{
	bool nap = r->out.nap;
	short wanted = POLLIN | (r->out.size && !nap ? POLLOUT : 0);
	struct pollfd fds[2] = {{.fd = r->socket, .events = wanted},
				{.fd = r->bell, .events = POLLIN}};
	struct timespec limit;
	int64_t left = nap ? NAP_NS : INT64_MAX;
	int n, error;

	left = time_left(left, until);
	if (rd_unsettled(r))
		left = time_left(left, rd_resume_due(r));
	limit = timespec_of(left);
	r->out.nap = false;
	r->led = true;
	r->leader_wants = (uint8_t)wants;
	(void)pthread_mutex_unlock(&r->mutex);

	n = ppoll(fds, 2, left == INT64_MAX ? NULL : &limit, NULL);
	error = n < 0 ? errno : 0;

	(void)pthread_mutex_lock(&r->mutex);
	r->led = false;
	r->leader_wants = RD_WANTS_NOTHING;
	if (r->resume.grave >= 0) {
		rd_fd_close(&r->resume.grave);
		r->resume.grave = -1;
	}
	*ret_readable = n > 0 && (fds[0].revents & ~POLLOUT);
	if (n > 0 && fds[1].revents)
		rd_bell_drain(r);
	if (error == EINTR)
		return -EINTR;
	return n == 0 && !nap ? -ETIMEDOUT : 0;
}

int rd_block(struct readyd *r, struct rd_waiter *w, int64_t until, bool *ret_readable)
{
	*ret_readable = false;
	if (!r->led)
		return rd_lead(r, w->wants, until, ret_readable);
	if (r->out.size)
		rd_kick(r); /* it has to look for room */
	return rd_sleep(r, w, until);
}

static int turn(struct readyd *r, struct rd_waiter *w, int64_t until)
{
	bool readable;
	int error;

	if (r->resume.wants_private)
		rd_private_again(r);
	if (r->error || w->done)
		return 0;
	error = rd_block(r, w, until, &readable);
	if (readable && !r->error)
		(void)rd_receive(r, NULL);
	if (!r->led)
		pass_both(r); /* its place is passed on when it leaves */
	return error;
}

int rd_turn(struct readyd *r, struct rd_waiter *w)
{
	return turn(r, w, 0);
}

void rd_pause(struct readyd *r, int64_t until)
{
	struct rd_waiter w = {0};
	bool readable;

	while (!r->error && rd_now() < until) {
		(void)rd_flush(r);
		if (r->error)
			return;
		if (r->led) {
			if (r->out.size)
				rd_kick(r);
			(void)rd_sleep(r, &w, until);
			continue;
		}
		(void)rd_lead(r, RD_WANTS_NOTHING, until, &readable);
		if (readable && !r->error)
			(void)rd_receive(r, NULL);
		pass_both(r);
	}
}

int rd_await(struct readyd *r, struct rd_waiter *w, bool interruptible)
{
	while (!w->done) {
		int error;

		if (r->error)
			return rd_ended(r);
		(void)rd_flush(r);
		if (r->error || w->done)
			continue;
		error = rd_turn(r, w);
		if (error == -EINTR && interruptible && !w->done)
			return -EINTR;
	}
	return 0;
}

int rd_await_until(struct readyd *r, struct rd_waiter *w, int64_t until)
{
	while (!w->done) {
		if (r->error)
			return rd_ended(r);
		(void)rd_flush(r);
		if (r->error || w->done)
			continue;
		if (until && rd_now() >= until)
			return -ETIMEDOUT;
		(void)turn(r, w, until);
	}
	return 0;
}

int rd_ask_once(struct readyd *r, struct rd_request *q, uint32_t epoch, unsigned type,
		const void *records, size_t count, const int *fds, unsigned n_fds)
{
	size_t size = sizeof(struct wire_header) + count * (size_t)wire_record_size(type) +
		      wire_align(q->tail_size);
	int error = rd_out_reserve(r, size, n_fds);

	if (error)
		return error;
	if (r->resume.epoch != epoch || !rd_linked(r)) {
		q->lost = true;
		if (q->gone)
			q->gone(r, q);
		return 0;
	}
	rd_out_request(r, q, type, records, count, fds, n_fds);
	return rd_await(r, &q->waiter, false);
}

/* As it was before it was asked. */
static void request_renew(struct rd_request *q)
{
	q->lost = q->waiter.done = false;
	q->error = q->detail = 0;
	q->limit = 0;
	q->value = 0;
}

int rd_ask(struct readyd *r, struct rd_request *q, unsigned type, const void *records, size_t count,
	   const int *fds, unsigned n_fds)
{
	int error;

	do {
		error = rd_link_await(r);
		if (error)
			return error;
		request_renew(q);
		error = rd_ask_once(r, q, r->resume.epoch, type, records, count, fds, n_fds);
	} while (!error && q->lost);
	return error;
}
