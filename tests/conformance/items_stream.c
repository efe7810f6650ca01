/* SPDX-License-Identifier: MIT */

/* S-077 to S-081: stream watches, each edge reported without a request, merged until sent. */

#include "harness.h"

#include <stdlib.h>
#include <unistd.h>

#define READY WIRE_CODE_READY
#define TIMEOUT WIRE_CODE_TIMEOUT

/* A pair whose a is a stream watch of reading only. */
static struct pair pair_stream(struct conn *c)
{
	struct pair p;

	pair_make(&p.a, &p.b);
	p.w = watch_new(c, p.a, WIRE_READ, WIRE_MODE_STREAM);
	return p;
}

static void entries_without_request(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_stream(c);

	for (int i = 0; i < 3; i++) {
		struct received r;

		put_bytes(p.b, 1);
		r = expect_entry(c, &p.w, READY, 0);
		CHECK_EQ(r.entry.mode, WIRE_MODE_STREAM);
	}
	expect_nothing(c);
	/* what is there at WATCH counts as an edge */
	put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	p.w = watch_new(c, dup(p.a), WIRE_READ, WIRE_MODE_STREAM);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

enum { OTHERS = 200 };

static void edges_merge_until_sent(const struct env *e)
{
	struct conn *observer = conn_dial(e), *c = conn_dial(e);
	struct pair p = pair_stream(c);
	struct watch w[OTHERS];
	struct received r;
	int *fds = event_many(OTHERS);

	watch_many(c, fds, OTHERS, WIRE_READ, WIRE_MODE_STREAM, w);
	for (int round = 0; !session_blocked(observer, c); round++) {
		CHECK(round < 2000);
		for (int i = 0; i < OTHERS; i++)
			event_add(fds[i]);
	}
	for (int i = 0; i < 10; i++) {
		put_bytes(p.b, 1);
		sync_with(observer);
	}
	CHECK(session_blocked(observer, c));
	if (!take(c, WIRE_RECORD_ENTRY, p.w.id, now_ns() + 10 * soon_ms(e) * MS, &r))
		FAIL("no entry");
	CHECK_EQ(r.entry.read, READY);
	sync_with(c);
	CHECK(!take(c, WIRE_RECORD_ENTRY, p.w.id, now_ns() + 100 * MS, &r));
	sync_with(c);
	CHECK(!take(c, WIRE_RECORD_ENTRY, p.w.id, 0, &r));
	free(fds);
	conn_close(c);
	conn_close(observer);
}

static void sent_is_not_merged(const struct env *e)
{
	struct conn *observer = conn_dial(e), *c = conn_dial(e);
	struct pair p = pair_stream(c);

	put_bytes(p.b, 1);
	EVENTUALLY(e, session_row(observer, c->welcome.session).entries == 1);
	put_bytes(p.b, 1);
	EVENTUALLY(e, session_row(observer, c->welcome.session).entries == 2);
	expect_entry(c, &p.w, READY, 0);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
	conn_close(observer);
}

static void unwanted_direction(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_stream(c);

	for (int i = 0; i < 20; i++) {
		put_bytes(p.b, 1);
		expect_entry(c, &p.w, READY, 0);
	}
	fill(p.a); /* a writable edge, too, once b reads */
	CHECK(drain(p.b) > 0);
	expect_nothing(c);
	conn_close(c);
}

static void deadline_of_a_stream(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_stream(c);
	int64_t when = now_ns() + 30 * MS;
	struct received r;

	expect_error(ask_wait(c, &p.w, WIRE_READ), WIRE_E_INVALID);
	expect_ok(answered(c, put_deadline(c, WIRE_FLAG_ANSWER, &p.w, WIRE_READ, when, 0, 3)));
	r = expect_entry(c, &p.w, TIMEOUT, 0);
	CHECK(now_ns() >= when);
	CHECK_EQ(r.entry.read_stamp, 3);
	expect_nothing(c);
	for (int i = 0; i < 3; i++) {
		put_bytes(p.b, 1);
		expect_entry(c, &p.w, READY, 0);
	}
	expect_ok(ask_evict(c, &p.w));
	expect_entry(c, &p.w, WIRE_CODE_CLOSING, 0); /* once */
	expect_nothing(c);
	conn_close(c);
}

#define NO_STREAM "this backend is level-triggered (no feature stream)"

static const struct item items[] = {
	{"S-077", "an entry for each edge", entries_without_request, NO_STREAM, 0},
	{"S-078", "edges merge until the entry is sent", edges_merge_until_sent, NO_STREAM, 0},
	{"S-079", "an entry sent but unread swallows nothing", sent_is_not_merged, NO_STREAM, 0},
	{"S-080", "a direction outside the interest", unwanted_direction, NO_STREAM, 0},
	{"S-081", "WAIT and deadline of a stream watch", deadline_of_a_stream, NO_STREAM, 0},
};

const struct item_list items_stream = ITEMS(items);
