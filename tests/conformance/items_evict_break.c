/* SPDX-License-Identifier: MIT */

/*
 * S-059 to S-068, S-092: the ends of waits, and breaks. Breaks of one's own handle never leave the
 * library, so they are tried through it; those of another session go over the wire.
 */

#include "harness.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "client-lib/readyd.h"

#define READY WIRE_CODE_READY
#define CLOSING WIRE_CODE_CLOSING
#define TIMEOUT WIRE_CODE_TIMEOUT

static void evict_wakes_both(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_full(c);
	struct received r;

	expect_ok(ask_wait(c, &p.w, BOTH));
	expect_ok(ask_evict(c, &p.w));
	r = expect_entry(c, &p.w, CLOSING, CLOSING);
	CHECK(c->answer_sequence < r.sequence);
	expect_nothing(c);
	conn_close(c);
}

static void evicted_stays(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);

	expect_ok(ask_deadline(c, &p.w, WIRE_READ, -1));
	put_bytes(p.b, 1);
	sync_with(c);
	expect_ok(ask_evict(c, &p.w));
	for (int i = 0; i < 2; i++) {
		expect_ok(ask_wait(c, &p.w, WIRE_READ));
		expect_entry(c, &p.w, CLOSING, 0);
		expect_ok(ask_wait(c, &p.w, WIRE_WRITE));
		expect_entry(c, &p.w, 0, CLOSING);
	}
	expect_ok(ask_unwatch(c, &p.w, p.a));
	expect_nothing(c);
	conn_close(c);
}

static void evict_twice(const struct env *e)
{
	struct conn *c = conn_dial(e), *other = conn_dial(e);
	struct pair p = pair_new(c);

	expect_ok(ask_evict(c, &p.w));
	expect_error(ask_evict(c, &p.w), WIRE_E_CLOSING);
	expect_nothing(c);
	sync_with(other);
	conn_close(c);
	conn_close(other);
}

static void unwatch_wakes(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_full(c);
	struct received r;

	expect_ok(ask_wait(c, &p.w, BOTH));
	expect_ok(ask_unwatch(c, &p.w, p.a));
	r = expect_entry(c, &p.w, CLOSING, CLOSING);
	CHECK(r.sequence < c->answer_sequence);
	put_bytes(p.b, 1);
	expect_nothing(c);
	conn_close(c);
}

/* What is done in a datagram cannot be sent before its last request is applied. */
static void evict_before_sent(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);

	put_bytes(p.b, 1);
	sync_with(c);
	put_slots(c, WIRE_WAIT, 0, &p.w, WIRE_READ);
	expect_ok(answered(c, put_slots(c, WIRE_EVICT, WIRE_FLAG_ANSWER, &p.w, BOTH)));
	expect_entry(c, &p.w, CLOSING, 0);
	expect_nothing(c);
	conn_close(c);
}

static void precedence(const struct env *e)
{
	struct conn *c = conn_dial(e);
	int reader, writer = pipe_full(&reader);
	struct watch w = watch_new(c, writer, BOTH, WIRE_MODE_WAIT);

	expect_ok(ask_wait(c, &w, WIRE_READ));
	close(reader);
	expect_entry(c, &w, READY, 0);
	expect_ok(ask_deadline(c, &w, WIRE_READ, -1));
	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_entry(c, &w, TIMEOUT, 0);
	expect_ok(ask_deadline(c, &w, WIRE_READ, 0));
	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_entry(c, &w, WIRE_CODE_NOT_POLLABLE, 0);
	expect_error(ask_reset(c, &w, WIRE_READ), WIRE_E_NOT_POLLABLE);
	expect_ok(ask_deadline(c, &w, WIRE_READ, -1));
	expect_ok(ask_evict(c, &w));
	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_entry(c, &w, CLOSING, 0);
	expect_nothing(c);
	conn_close(c);
}

/* ---- Breaks ---- */

struct poll_thread {
	pthread_t thread;
	struct readyd *r;
	int64_t delta;
	int result;
	int64_t took;
	_Atomic bool done;
};

static void *poll_run(void *argument)
{
	struct poll_thread *t = argument;
	struct readyd_event event;
	int64_t start = now_ns();

	t->result = readyd_poll(t->r, &event, 1, t->delta);
	t->took = now_ns() - start;
	t->done = true;
	return NULL;
}

static void poll_start(struct poll_thread *t, struct readyd *r, int64_t delta)
{
	*t = (struct poll_thread){.r = r, .delta = delta};
	CHECK_EQ(pthread_create(&t->thread, NULL, poll_run, t), 0);
}

static void poll_join(struct poll_thread *t)
{
	CHECK_EQ(pthread_join(t->thread, NULL), 0);
}

static void break_wakes_poll(const struct env *e)
{
	struct readyd *r = library_connect(e, 0), *other = library_connect(e, 0);
	struct readyd_event event;
	struct poll_thread t;

	poll_start(&t, r, 10 * SECOND);
	nap_us(100000);
	CHECK(!t.done);
	readyd_break(r);
	poll_join(&t);
	CHECK_EQ(t.result, 0);
	CHECK(t.took < 5 * SECOND);

	/* by another session: told as an event */
	CHECK_EQ(readyd_break_session(other, readyd_session(r)), 0);
	CHECK_EQ(readyd_poll(r, &event, 1, 5 * SECOND), 1);
	CHECK_EQ(event.kind, READYD_EVENT_BREAK);
	CHECK_EQ(readyd_poll(r, &event, 1, 50 * MS), 0);
	readyd_close(r);
	readyd_close(other);
}

static void *break_run(void *argument)
{
	for (int i = 0; i < 1000; i++)
		readyd_break(argument);
	return NULL;
}

static void break_storm(const struct env *e)
{
	struct readyd *r = library_connect(e, 0);
	struct poll_thread t;
	struct readyd_event event;
	pthread_t threads[10];
	int64_t start;

	for (int i = 0; i < 10; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, break_run, r), 0);
	for (int i = 0; i < 10; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	start = now_ns();
	CHECK_EQ(readyd_poll(r, &event, 1, -1), 0);
	CHECK(now_ns() - start < soon_ms(e) * MS);
	poll_start(&t, r, -1);
	nap_us(200000);
	CHECK(!t.done);
	readyd_break(r);
	poll_join(&t);
	CHECK_EQ(t.result, 0);
	readyd_close(r);
}

static void asking_keeps_break(const struct env *e)
{
	struct readyd *r = library_connect(e, 0);
	struct readyd_event event;
	int64_t start;

	readyd_break(r);
	CHECK_EQ(readyd_poll(r, &event, 1, 0), 0);
	CHECK_EQ(readyd_poll(r, &event, 1, 0), 0);
	start = now_ns();
	CHECK_EQ(readyd_poll(r, &event, 1, SECOND), 0);
	CHECK(now_ns() - start < 900 * MS);
	start = now_ns();
	CHECK_EQ(readyd_poll(r, &event, 1, 100 * MS), 0); /* it is used up */
	CHECK(now_ns() - start >= 100 * MS);
	readyd_close(r);
}

static void break_with_entry(const struct env *e)
{
	struct conn *observer = conn_dial(e);
	struct readyd *r = library_connect(e, 0);
	struct readyd_event event;
	readyd_id watch;
	int a, b;

	pair_make(&a, &b);
	CHECK_EQ(readyd_watch(r, a, READYD_READ, READYD_WAIT, 1, &watch), 0);
	for (uint64_t i = 1; i <= 20; i++) {
		int64_t start = now_ns();

		CHECK_EQ(readyd_wait(r, watch, READYD_READ), 0);
		CHECK_EQ(readyd_sync(r), 0); /* it was sent, not gathered */
		put_bytes(b, 1);
		EVENTUALLY(e, session_row(observer, readyd_session(r)).entries == i);
		readyd_break(r);
		CHECK_EQ(readyd_poll(r, &event, 1, 10 * SECOND), 1);
		CHECK_EQ(event.read, READYD_READY);
		CHECK(now_ns() - start < 5 * SECOND);
		/* both came: nothing of the break is left */
		start = now_ns();
		CHECK_EQ(readyd_poll(r, &event, 1, 20 * MS), 0);
		CHECK(now_ns() - start >= 20 * MS);
		drain(a);
		CHECK_EQ(readyd_reset(r, watch, READYD_READ), 0);
	}
	readyd_close(r);
	conn_close(observer);
}

static void break_is_one_session(const struct env *e)
{
	struct conn *c = conn_dial(e), *other = conn_dial(e);
	struct readyd *r = library_connect(e, 0);
	struct wire_break one = {.session = other->welcome.session};
	struct wire_break nobody = {.session = UINT64_MAX};
	struct wire_break own = {0};
	struct poll_thread t;
	struct received got;

	poll_start(&t, r, -1);
	expect_ok(ask(c, WIRE_BREAK, &one, 1));
	CHECK(take(other, WIRE_RECORD_BREAK, 0, now_ns() + soon_ms(e) * MS, &got));
	expect_ok(ask(c, WIRE_BREAK, &own, 1));
	CHECK(take(c, WIRE_RECORD_BREAK, 0, now_ns() + soon_ms(e) * MS, &got));
	expect_error(ask(c, WIRE_BREAK, &nobody, 1), WIRE_E_NOT_FOUND);
	expect_nothing(c);
	expect_nothing(other);
	CHECK(!t.done);
	readyd_break(r);
	poll_join(&t);
	CHECK_EQ(t.result, 0);
	readyd_close(r);
	conn_close(c);
	conn_close(other);
}

static const struct item items[] = {
	{"S-059", "EVICT wakes both waiters", evict_wakes_both, NULL, 0},
	{"S-060", "after EVICT every wait is closing", evicted_stays, NULL, 0},
	{"S-061", "EVICT twice", evict_twice, NULL, 0},
	{"S-062", "UNWATCH wakes the waiters", unwatch_wakes, NULL, 0},
	{"S-063", "EVICT before the ready entry is sent", evict_before_sent, NULL, 0},
	{"S-064", "a break wakes a poll", break_wakes_poll, NULL, 0},
	{"S-065", "ten thousand breaks are one", break_storm, NULL, 0},
	{"S-066", "an asking poll keeps the break", asking_keeps_break, NULL, 0},
	{"S-067", "a break together with an entry", break_with_entry, NULL, 0},
	{"S-068", "a break wakes one session only", break_is_one_session, NULL, 0},
	{"S-092", "closing, then timeout, then not pollable", precedence, NULL, 0},
};

const struct item_list items_evict_break = ITEMS(items);
