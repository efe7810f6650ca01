/* SPDX-License-Identifier: MIT */

/* S-051 by the library, S-053 to S-058: many deadlines, races, and the ends of their watches. */

#include "harness.h"

#include <stdlib.h>
#include <unistd.h>

#include "client-lib/readyd.h"

#define READY WIRE_CODE_READY
#define TIMEOUT WIRE_CODE_TIMEOUT

static void library_hides_old_timeout(const struct env *e)
{
	struct conn *observer = conn_dial(e);
	struct readyd *r = library_connect(e, 0);
	struct readyd_event event;
	readyd_id watch;
	int a, b;

	pair_make(&a, &b);
	CHECK_EQ(readyd_watch(r, a, READYD_READ, READYD_WAIT, 5, &watch), 0);
	CHECK_EQ(readyd_set_deadline(r, watch, READYD_READ, now_ns() + 200 * MS), 0);
	CHECK_EQ(readyd_wait(r, watch, READYD_READ), 0);
	CHECK_EQ(readyd_sync(r), 0); /* it was sent; the timeout will be in the socket, unread */
	EVENTUALLY(e, session_row(observer, readyd_session(r)).entries == 1);
	CHECK_EQ(readyd_set_deadline(r, watch, READYD_READ, now_ns() + HOUR), 0);
	CHECK_EQ(readyd_poll(r, &event, 1, 150 * MS), 0);
	put_bytes(b, 1);
	CHECK_EQ(readyd_poll(r, &event, 1, soon_ms(e) * MS), 1);
	CHECK_EQ(event.id, watch);
	CHECK_EQ(event.cookie, 5);
	CHECK_EQ(event.read, READYD_READY);
	/* but the timeout of the current one is shown */
	drain(a);
	CHECK_EQ(readyd_set_deadline(r, watch, READYD_READ, now_ns() + 20 * MS), 0);
	CHECK_EQ(readyd_wait(r, watch, READYD_READ), 0);
	CHECK_EQ(readyd_poll(r, &event, 1, soon_ms(e) * MS), 1);
	if (event.read == READYD_READY) { /* one stale latch is allowed */
		CHECK_EQ(readyd_wait(r, watch, READYD_READ), 0);
		CHECK_EQ(readyd_poll(r, &event, 1, soon_ms(e) * MS), 1);
	}
	CHECK_EQ(event.read, READYD_TIMEOUT);
	readyd_close(r);
	conn_close(observer);
}

static void various(const struct env *e)
{
	static const int64_t steps[] = {1,        3,        10,       31,        100,
					316,      1 * US,   3 * US,   10 * US,   31 * US,
					100 * US, 316 * US, 1 * MS,   3 * MS,    10 * MS,
					31 * MS,  100 * MS, 316 * MS, 1 * SECOND};
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);

	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++)
		for (int k = 0; k < (steps[i] < 50 * MS ? 5 : 1); k++) {
			int64_t when = now_ns() + steps[i];
			struct received r;

			put_deadline(c, 0, &p.w, WIRE_READ, when, 0, (uint16_t)i);
			put_slots(c, WIRE_WAIT, 0, &p.w, WIRE_READ);
			flush(c);
			if (!take(c, WIRE_RECORD_ENTRY, p.w.id, when + soon_ms(e) * MS, &r))
				FAIL("no timeout after %lld ns", (long long)steps[i]);
			CHECK(now_ns() >= when);
			CHECK_EQ(r.entry.read, TIMEOUT);
			CHECK_EQ(r.entry.read_stamp, i);
		}
	expect_nothing(c);
	conn_close(c);
}

static void extended_exchanges(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);

	for (int i = 0; i < 1000; i++) {
		struct received r;

		put_deadline(c, 0, &p.w, WIRE_WRITE, now_ns() + HOUR, 0, 0);
		put_bytes(p.a, 1);
		CHECK_EQ(drain(p.b), 1);
		put_deadline(c, 0, &p.w, WIRE_READ, now_ns() + HOUR, 0, 0);
		put_slots(c, WIRE_WAIT, 0, &p.w, WIRE_READ);
		flush(c);
		put_bytes(p.b, 1);
		do { /* a stale latch may wake once */
			if (!take(c, WIRE_RECORD_ENTRY, p.w.id, now_ns() + soon_ms(e) * MS, &r))
				FAIL("no entry in exchange %d", i);
			CHECK_EQ(r.entry.read, READY);
		} while (drain(p.a) == 0 &&
			 (put_slots(c, WIRE_WAIT, 0, &p.w, WIRE_READ), flush(c), true));
	}
	expect_nothing(c);
	conn_close(c);
}

static void racing_deadlines(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	size_t entries = 0;

	for (int i = 0; i < 1000; i++) {
		struct received r;

		put_slots(c, WIRE_WAIT, 0, &p.w, WIRE_READ);
		if (i % 2)
			flush(c);
		put_deadline(c, 0, &p.w, WIRE_READ, now_ns() + 2 * US, 0, 0);
		flush(c);
		if (!take(c, WIRE_RECORD_ENTRY, p.w.id, now_ns() + soon_ms(e) * MS, &r))
			FAIL("no entry in round %d", i);
		CHECK_EQ(r.entry.read, TIMEOUT);
		entries++;
		if (i % 3 == 0)
			put_deadline(c, 0, &p.w, WIRE_READ, 0, 0, 0);
	}
	expect_nothing(c);
	CHECK_EQ(session_row(c, c->welcome.session).entries, entries + 1); /* drained took one */
	conn_close(c);
}

enum { CONNECTIONS = 8, WATCHES = 10, TRIES = 100 };

static void ever_earlier(const struct env *e)
{
	struct conn *observer = conn_dial(e);
	uint64_t before = status_of(observer).deadlines;
	int64_t base = now_ns() + HOUR;
	struct conn *c[CONNECTIONS];
	struct pair p[CONNECTIONS][WATCHES];
	struct wire_watch_row row;

	for (int i = 0; i < CONNECTIONS; i++) {
		c[i] = conn_dial(e);
		for (int k = 0; k < WATCHES; k++) {
			p[i][k] = pair_new(c[i]);
			put_slots(c[i], WIRE_WAIT, 0, &p[i][k].w, WIRE_READ);
		}
	}
	for (int t = 0; t < TRIES; t++)
		for (int i = 0; i < CONNECTIONS; i++) {
			for (int k = 0; k < WATCHES; k++)
				for (int twice = 0; twice < 2; twice++)
					put_deadline(c[i], 0, &p[i][k].w, WIRE_READ,
						     base - t * SECOND + k, 0, 0);
			flush(c[i]);
		}
	for (int i = 0; i < CONNECTIONS; i++)
		expect_nothing(c[i]);
	CHECK_EQ(status_of(observer).deadlines, before + CONNECTIONS * WATCHES);
	for (int i = 0; i < CONNECTIONS; i++)
		for (int k = 0; k < WATCHES; k++) {
			CHECK(watch_row(c[i], c[i]->welcome.session, p[i][k].w.id, &row));
			CHECK_EQ(row.read_deadline, base - (TRIES - 1) * SECOND + k);
		}
	for (int i = 0; i < CONNECTIONS; i++)
		conn_close(c[i]);
	EVENTUALLY(e, status_of(observer).deadlines == before);
	conn_close(observer);
}

static void evict_cancels(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_full(c);
	uint64_t before = status_of(c).deadlines;

	expect_ok(ask_deadline(c, &p.w, WIRE_READ, now_ns() + 30 * MS));
	expect_ok(ask_deadline(c, &p.w, WIRE_WRITE, now_ns() + 40 * MS));
	CHECK_EQ(status_of(c).deadlines, before + 2);
	expect_ok(ask_evict(c, &p.w));
	CHECK_EQ(status_of(c).deadlines, before);
	expect_error(ask_deadline(c, &p.w, WIRE_READ, now_ns() + 10 * MS), WIRE_E_CLOSING);
	CHECK_EQ(status_of(c).deadlines, before);
	expect_nothing(c);
	conn_close(c);
}

static void unwatch_cancels(const struct env *e)
{
	struct conn *c = conn_dial(e);
	uint64_t before = status_of(c).deadlines;
	struct pair p = pair_drained(c), next;

	expect_ok(ask_deadline(c, &p.w, BOTH, now_ns() + 40 * MS));
	expect_ok(ask_unwatch(c, &p.w, p.a));
	CHECK_EQ(status_of(c).deadlines, before);
	next = pair_drained(c); /* the freed place is the next to be used */
	expect_ok(ask_wait(c, &next.w, WIRE_READ));
	expect_nothing(c);
	put_bytes(next.b, 1);
	expect_entry(c, &next.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void fires_though_closed(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);

	expect_ok(ask_deadline(c, &p.w, WIRE_READ, now_ns() + 200 * MS));
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	close(p.a);
	expect_entry(c, &p.w, TIMEOUT, 0);
	expect_nothing(c);
	conn_close(c);
}

static const struct item items[] = {
	{"S-051", "the library hides an old deadline's timeout", library_hides_old_timeout, NULL,
	 0},
	{"S-053", "deadlines of 1 ns to 1 s", various, NULL, 0},
	{"S-054", "a deadline extended a thousand times", extended_exchanges, NULL, 0},
	{"S-054", "deadlines racing with waits", racing_deadlines, NULL, 0},
	{"S-055", "ever earlier deadlines", ever_earlier, NULL, 0},
	{"S-056", "EVICT cancels deadlines", evict_cancels, NULL, 0},
	{"S-057", "UNWATCH cancels deadlines", unwatch_cancels, NULL, 0},
	{"S-058", "a deadline fires though the fd was closed", fires_though_closed, NULL, 0},
};

const struct item_list items_deadlines_many = ITEMS(items);
