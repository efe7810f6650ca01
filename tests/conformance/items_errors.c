/* SPDX-License-Identifier: MIT */

/* S-089 to S-091, S-093, S-094, S-103: bare errors, refused records, generations. */

#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define READY WIRE_CODE_READY

static void bare_error_without_waiter(const struct env *e)
{
	struct conn *c = conn_dial(e);
	int reader, writer = pipe_full(&reader);
	struct watch w = watch_new(c, writer, BOTH, WIRE_MODE_WAIT);

	close(reader);
	sync_with(c);
	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_entry(c, &w, WIRE_CODE_NOT_POLLABLE, 0);
	expect_ok(ask_wait(c, &w, WIRE_WRITE));
	expect_entry(c, &w, 0, READY);
	expect_error(ask_reset(c, &w, WIRE_READ), WIRE_E_NOT_POLLABLE);
	expect_nothing(c);
	conn_close(c);
}

static void bare_error_with_waiter(const struct env *e)
{
	struct conn *c = conn_dial(e);
	int reader, writer = pipe_full(&reader);
	struct watch w = watch_new(c, writer, BOTH, WIRE_MODE_WAIT);

	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_nothing(c);
	close(reader);
	expect_entry(c, &w, READY, 0);
	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_entry(c, &w, WIRE_CODE_NOT_POLLABLE, 0);
	expect_nothing(c);
	conn_close(c);
}

/* A new reader of the pipe, and room in it: the next event is no bare error. */
static void bare_error_goes_away(const struct env *e)
{
	struct conn *c = conn_dial(e);
	int reader, writer = pipe_full(&reader);
	struct watch w = watch_new(c, writer, BOTH, WIRE_MODE_WAIT);
	char path[32];

	expect_ok(ask_wait(c, &w, WIRE_READ));
	close(reader);
	expect_entry(c, &w, READY, 0);
	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_entry(c, &w, WIRE_CODE_NOT_POLLABLE, 0);
	expect_ok(ask_wait(c, &w, WIRE_WRITE));
	expect_entry(c, &w, 0, READY);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", writer);
	reader = SYS(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
	expect_ok(ask_wait(c, &w, WIRE_WRITE));
	expect_nothing(c);
	CHECK(drain(reader) > 0);
	expect_entry(c, &w, 0, READY);
	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_nothing(c);
	conn_close(c);
}

static void refused_among_good(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair first = pair_drained(c), last = pair_drained(c);
	struct wire_slots records[] = {
		{first.w.id, first.w.gen, WIRE_READ, 0},
		{4711, 1, WIRE_READ, 0},
		{first.w.id, first.w.gen + 1, WIRE_WRITE, 0},
		{first.w.id, first.w.gen, 4, 0},
		{first.w.id, first.w.gen, 0, 0},
		{first.w.id, first.w.gen, WIRE_WRITE | 8, 0},
		{0, 0, WIRE_READ, 0},
		{last.w.id, last.w.gen, WIRE_READ, 0},
	};
	static const uint16_t errors[] = {WIRE_E_NOT_FOUND, WIRE_E_STALE,   WIRE_E_INVALID,
					  WIRE_E_INVALID,   WIRE_E_INVALID, WIRE_E_NOT_FOUND};

	expect_error(ask(c, WIRE_WAIT, records, 8), WIRE_E_NOT_FOUND);
	CHECK_EQ(c->n_failures, 6);
	for (unsigned i = 0; i < 6; i++) {
		CHECK_EQ(c->failures[i].index, i + 1);
		CHECK_EQ(c->failures[i].error, errors[i]);
		CHECK_EQ(c->failures[i].id, records[i + 1].id);
		CHECK_EQ(c->failures[i].gen, records[i + 1].gen);
	}
	put_bytes(first.b, 1);
	put_bytes(last.b, 1);
	expect_entry(c, &first.w, READY, 0);
	expect_entry(c, &last.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

/* The same without an answer: the failures come all the same, in their place. */
static void failures_unasked(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	struct received f;
	uint32_t bad, serial;

	bad = put_slots(c, WIRE_WAIT, 0, &p.w, 4);
	serial = put(c, WIRE_SYNC, WIRE_FLAG_ANSWER, NULL, 0);
	flush(c);
	CHECK(take(c, WIRE_RECORD_FAILURE, 0, now_ns() + soon_ms(e) * MS, &f));
	CHECK_EQ(f.failure.serial, bad);
	CHECK_EQ(f.failure.error, WIRE_E_INVALID);
	expect_ok(answered(c, serial));
	CHECK(f.sequence < c->answer_sequence);
	expect_nothing(c);
	conn_close(c);
}

static void too_few_fds(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct wire_watch records[3];
	struct watch w[3];
	int a[3], b[3];
	uint32_t serial;

	for (int i = 0; i < 3; i++) {
		pair_make(&a[i], &b[i]);
		w[i] = watch_name(c, a[i]);
		records[i] = (struct wire_watch){.cookie = w[i].cookie,
						 .id = w[i].id,
						 .gen = w[i].gen,
						 .fd = -1,
						 .interest = BOTH};
	}
	serial = put(c, WIRE_WATCH, WIRE_FLAG_ANSWER, records, 3);
	put_fd(c, a[0]);
	put_fd(c, a[1]);
	expect_error(answered(c, serial), WIRE_E_BAD_FD);
	CHECK_EQ(c->n_failures, 1);
	CHECK_EQ(c->failure.index, 2);
	CHECK_EQ(c->failure.id, w[2].id);
	for (int i = 0; i < 2; i++) {
		expect_ok(ask_wait(c, &w[i], WIRE_READ));
		put_bytes(b[i], 1);
		expect_entry(c, &w[i], READY, 0);
	}
	expect_ok(ask_watch(c, &w[2], BOTH, WIRE_MODE_WAIT)); /* its id is free */
	expect_nothing(c);
	conn_close(c);
}

static void generations_tell_apart(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct watch old, new;
	uint32_t answer_old;
	struct received r;
	int a, b;

	pair_make(&a, &b);
	put_bytes(b, 1);
	for (int i = 0; i < 50; i++) {
		old = watch_name(c, a);
		new = old;
		new.gen++;
		new.cookie ^= 1;
		put_watch(c, 0, &old, BOTH, WIRE_MODE_WAIT);
		put_slots(c, WIRE_WAIT, 0, &old, WIRE_READ);
		answer_old = put_unwatch(c, WIRE_FLAG_ANSWER, &old, a);
		put_watch(c, 0, &new, BOTH, WIRE_MODE_WAIT);
		put_slots(c, WIRE_WAIT, 0, &new, WIRE_READ);
		expect_ok(answered(c, answer_old));
		/* whether the kernel's event or UNWATCH came first: one entry of the old one */
		if (!take(c, WIRE_RECORD_ENTRY, old.id, now_ns() + soon_ms(e) * MS, &r))
			FAIL("no entry of the old generation");
		CHECK_EQ(r.entry.gen, old.gen);
		CHECK_EQ(r.entry.cookie, old.cookie);
		CHECK(r.entry.read == READY || r.entry.read == WIRE_CODE_CLOSING);
		CHECK(r.sequence < c->answer_sequence);
		expect_entry(c, &new, READY, 0);
		expect_error(ask_wait(c, &old, WIRE_READ), WIRE_E_STALE);
		expect_ok(ask_unwatch(c, &new, a));
	}
	expect_nothing(c);
	conn_close(c);
}

static const struct item items[] = {
	{"S-089", "a bare error without a waiter", bare_error_without_waiter,
	 "this backend is level-triggered: nobody asks, nothing is seen (no feature edge)", 0},
	{"S-090", "a bare error with a waiter", bare_error_with_waiter, NULL, 0},
	{"S-091", "a bare error ends with the next event", bare_error_goes_away, NULL, 0},
	{"S-093", "refused records among good ones", refused_among_good, NULL, 0},
	{"S-093", "failures of a request without an answer", failures_unasked, NULL, 0},
	{"S-094", "three WATCH records, two fds", too_few_fds, NULL, 0},
	{"S-103", "generations in one message", generations_tell_apart, NULL, 0},
};

const struct item_list items_errors = ITEMS(items);
