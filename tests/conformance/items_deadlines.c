/* SPDX-License-Identifier: MIT */

/*
 * S-037 to S-052, but for those of the library and of the core alone: deadlines expire, stay
 * expired, move and are cleared. Timed steps are never excused for being early; "soon after" grows
 * with the machine.
 */

#include "harness.h"

#include <unistd.h>

#define READY WIRE_CODE_READY
#define TIMEOUT WIRE_CODE_TIMEOUT

/* WAIT, then its timeout, not before `when`. How late it came, ns. */
static int64_t timeout_at(struct conn *c, const struct watch *w, int64_t when)
{
	struct received r;
	int64_t at;

	expect_ok(ask_wait(c, w, WIRE_READ));
	if (!take(c, WIRE_RECORD_ENTRY, w->id, when + 10 * soon_ms(c->env) * MS, &r))
		FAIL("no timeout");
	at = now_ns();
	CHECK_EQ(r.entry.read, TIMEOUT);
	CHECK_EQ(r.entry.write, 0);
	if (at < when)
		FAIL("%lld ns early", (long long)(when - at));
	return at - when;
}

static void past_wins_over_data(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);

	put_bytes(p.b, 1);
	sync_with(c);
	expect_ok(ask_deadline(c, &p.w, WIRE_READ, now_ns() - 5 * SECOND));
	for (int i = 0; i < 2; i++) {
		expect_ok(ask_wait(c, &p.w, WIRE_READ));
		expect_entry(c, &p.w, TIMEOUT, 0);
	}
	expect_nothing(c);
	conn_close(c);
}

static void past_wakes_waiter(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	struct received r;

	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_nothing(c);
	expect_ok(answered(c, put_deadline(c, WIRE_FLAG_ANSWER, &p.w, WIRE_READ, -1, 0, 4711)));
	r = expect_entry(c, &p.w, TIMEOUT, 0);
	CHECK(c->answer_sequence < r.sequence);
	CHECK_EQ(r.entry.read_stamp, 4711);
	expect_nothing(c);
	conn_close(c);
}

static void fires_in_time(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	bool in_time = false;

	GROWING(g, 20 * MS, 1500 * MS)
	{
		int64_t when = now_ns() + 50 * MS;

		expect_ok(ask_deadline(c, &p.w, WIRE_READ, when));
		in_time = timeout_at(c, &p.w, when) <= g.limit;
		if (in_time)
			break;
	}
	CHECK(in_time);
	/* relative to the daemon's clock */
	for (int i = 0; i < 3; i++) {
		int64_t when = now_ns() + 10 * MS;

		put_deadline(c, 0, &p.w, WIRE_READ, 10 * MS, WIRE_TIME_RELATIVE, 0);
		(void)timeout_at(c, &p.w, when);
	}
	expect_nothing(c);
	conn_close(c);
}

static void expiry_is_sticky(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	int64_t when = now_ns() + 50 * MS;

	expect_ok(ask_deadline(c, &p.w, WIRE_READ, when));
	(void)timeout_at(c, &p.w, when);
	for (int i = 0; i < 3; i++) {
		expect_error(ask_reset(c, &p.w, WIRE_READ), WIRE_E_TIMEOUT);
		expect_ok(ask_wait(c, &p.w, WIRE_READ));
		expect_entry(c, &p.w, TIMEOUT, 0);
	}
	expect_ok(ask_reset(c, &p.w, WIRE_WRITE)); /* the other side is untouched */
	expect_ok(ask_deadline(c, &p.w, WIRE_READ, 0));
	expect_ok(ask_reset(c, &p.w, WIRE_READ));
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_nothing(c);
	put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void cleared_past_is_forgotten(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);

	put_deadline(c, 0, &p.w, WIRE_READ, -1, 0, 0);
	put_deadline(c, 0, &p.w, WIRE_READ, 0, 0, 0);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_nothing(c);
	conn_close(c);
}

static void none_then_future(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	int64_t when;

	expect_ok(ask_deadline(c, &p.w, WIRE_READ, 0));
	when = now_ns() + 10 * MS;
	expect_ok(ask_deadline(c, &p.w, WIRE_READ, when));
	(void)timeout_at(c, &p.w, when);
	expect_nothing(c);
	conn_close(c);
}

static void one_side_cleared(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_full(c);

	expect_ok(ask_deadline(c, &p.w, BOTH, -1));
	expect_ok(ask_deadline(c, &p.w, WIRE_READ, 0));
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_nothing(c);
	expect_ok(ask_wait(c, &p.w, WIRE_WRITE));
	expect_entry(c, &p.w, 0, TIMEOUT);
	expect_ok(ask_unwait(c, &p.w, WIRE_READ));

	expect_ok(ask_deadline(c, &p.w, BOTH, -1));
	expect_ok(ask_deadline(c, &p.w, WIRE_WRITE, 0));
	expect_ok(ask_wait(c, &p.w, WIRE_WRITE));
	expect_nothing(c);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_entry(c, &p.w, TIMEOUT, 0);
	expect_nothing(c);
	conn_close(c);
}

static void both_in_one_entry(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_full(c);
	int64_t when = now_ns() + 50 * MS;
	struct received r;

	expect_ok(answered(c, put_deadline(c, WIRE_FLAG_ANSWER, &p.w, BOTH, when, 0, 99)));
	expect_ok(ask_wait(c, &p.w, BOTH));
	r = expect_entry(c, &p.w, TIMEOUT, TIMEOUT);
	CHECK(now_ns() >= when);
	CHECK_EQ(r.entry.read_stamp, 99);
	CHECK_EQ(r.entry.write_stamp, 99);
	/* the past is one time as well */
	expect_ok(ask_deadline(c, &p.w, BOTH, 0));
	expect_ok(ask_wait(c, &p.w, BOTH));
	expect_ok(ask_deadline(c, &p.w, BOTH, -1));
	expect_entry(c, &p.w, TIMEOUT, TIMEOUT);
	expect_nothing(c);
	conn_close(c);
}

static void combined_then_split(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_full(c);
	int64_t early = now_ns() + 150 * MS, late = early + 300 * MS;

	expect_ok(ask_deadline(c, &p.w, BOTH, early));
	expect_ok(ask_wait(c, &p.w, BOTH));
	expect_ok(ask_deadline(c, &p.w, WIRE_READ, late));
	expect_entry(c, &p.w, 0, TIMEOUT);
	CHECK(now_ns() >= early);
	expect_entry(c, &p.w, TIMEOUT, 0);
	CHECK(now_ns() >= late);

	expect_ok(ask_deadline(c, &p.w, BOTH, 0));
	early = now_ns() + 50 * MS;
	expect_ok(ask_deadline(c, &p.w, BOTH, early));
	expect_ok(ask_wait(c, &p.w, BOTH));
	expect_ok(ask_deadline(c, &p.w, WIRE_WRITE, 0));
	expect_entry(c, &p.w, TIMEOUT, 0);
	CHECK(now_ns() >= early);
	expect_nothing(c);
	expect_error(ask_wait(c, &p.w, WIRE_WRITE), WIRE_E_BUSY); /* still waiting */
	conn_close(c);
}

/* Steps at 1, 2.5, 5 and 25 units; the unit grows until the move comes before the old time. */
static void moved_later(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	bool moved = false;

	GROWING(g, 20 * MS, 700 * MS)
	{
		int64_t start = now_ns(), late = start + 25 * g.limit;
		struct received r;

		expect_ok(ask_deadline(c, &p.w, WIRE_READ, start + g.limit * 5 / 2));
		expect_ok(ask_wait(c, &p.w, WIRE_READ));
		nap_us((start + g.limit - now_ns()) / US);
		expect_ok(ask_deadline(c, &p.w, WIRE_READ, late));
		moved = now_ns() < start + g.limit * 5 / 2;
		if (moved)
			CHECK(!take(c, WIRE_RECORD_ENTRY, p.w.id, start + 5 * g.limit, &r));
		if (!take(c, WIRE_RECORD_ENTRY, p.w.id, late + soon_ms(e) * MS, &r))
			FAIL("no timeout");
		CHECK_EQ(r.entry.read, TIMEOUT);
		CHECK(!moved || now_ns() >= late);
		if (moved)
			break;
	}
	CHECK(moved);
	expect_nothing(c);
	conn_close(c);
}

static void moved_earlier(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	int64_t when;

	expect_ok(ask_deadline(c, &p.w, WIRE_READ, now_ns() + 10 * SECOND));
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	sync_with(c); /* the loop has gone to sleep for 10 s, or is about to */
	when = now_ns() + 20 * MS;
	expect_ok(ask_deadline(c, &p.w, WIRE_READ, when));
	expect_entry(c, &p.w, TIMEOUT, 0);
	CHECK(now_ns() >= when);
	expect_nothing(c);
	conn_close(c);
}

static void expiry_keeps_latch(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	struct wire_watch_row row;

	put_bytes(p.b, 1);
	sync_with(c);
	expect_ok(ask_deadline(c, &p.w, WIRE_READ, now_ns() + 20 * MS));
	EVENTUALLY(e, watch_row(c, c->welcome.session, p.w.id, &row) && row.read_deadline == -1);
	expect_ok(ask_deadline(c, &p.w, WIRE_READ, 0));
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void stamp_names_the_deadline(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_full(c);
	struct received r;

	put_deadline(c, 0, &p.w, WIRE_READ, now_ns() + 30 * MS, 0, 17);
	put_deadline(c, 0, &p.w, WIRE_WRITE, now_ns() + 60 * MS, 0, 65535);
	expect_ok(ask_wait(c, &p.w, BOTH));
	r = expect_entry(c, &p.w, TIMEOUT, 0);
	CHECK_EQ(r.entry.read_stamp, 17);
	CHECK_EQ(r.entry.write_stamp, 0);
	r = expect_entry(c, &p.w, 0, TIMEOUT);
	CHECK_EQ(r.entry.read_stamp, 0);
	CHECK_EQ(r.entry.write_stamp, 65535);
	/* an expired one keeps its stamp; a new one brings its own */
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	r = expect_entry(c, &p.w, TIMEOUT, 0);
	CHECK_EQ(r.entry.read_stamp, 17);
	put_deadline(c, 0, &p.w, WIRE_READ, -1, 0, 18);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	r = expect_entry(c, &p.w, TIMEOUT, 0);
	CHECK_EQ(r.entry.read_stamp, 18);
	expect_nothing(c);
	conn_close(c);
}

static void never_and_overflow(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	struct wire_watch_row row;

	expect_ok(ask_deadline(c, &p.w, WIRE_READ, INT64_MAX));
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_nothing(c);
	expect_ok(answered(c, put_deadline(c, WIRE_FLAG_ANSWER, &p.w, WIRE_READ, INT64_MAX - 5,
					   WIRE_TIME_RELATIVE, 0)));
	CHECK(watch_row(c, c->welcome.session, p.w.id, &row));
	CHECK_EQ(row.read_deadline, INT64_MAX);
	expect_nothing(c);
	put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static const struct item items[] = {
	{"S-037", "a past deadline wins over data", past_wins_over_data, NULL, 0},
	{"S-038", "a past deadline wakes the waiter", past_wakes_waiter, NULL, 0},
	{"S-039", "a deadline fires not early and soon after", fires_in_time, NULL, 0},
	{"S-040", "an expired deadline stays", expiry_is_sticky, NULL, 0},
	{"S-041", "past, then none", cleared_past_is_forgotten, NULL, 0},
	{"S-042", "none, then future", none_then_future, NULL, 0},
	{"S-043", "one side cleared", one_side_cleared, NULL, 0},
	{"S-044", "both sides in one entry", both_in_one_entry, NULL, 0},
	{"S-045", "one time for both, then split", combined_then_split, NULL, 0},
	{"S-046", "moved later", moved_later, NULL, 0},
	{"S-047", "moved earlier", moved_earlier, NULL, 0},
	{"S-048", "an expiry keeps the latch", expiry_keeps_latch, NULL, 0},
	{"S-051", "a timeout entry names its deadline", stamp_names_the_deadline, NULL, 0},
	{"S-052", "the largest time, and overflow", never_and_overflow, NULL, 0},
};

const struct item_list items_deadlines = ITEMS(items);
