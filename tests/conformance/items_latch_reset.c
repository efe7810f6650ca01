/* SPDX-License-Identifier: MIT */

/*
 * S-026 to S-036: readiness without a waiter, and RESET. The soak of S-029 is the test of the two
 * hazards that two processes have and Go has not: an edge between the client's EAGAIN and its
 * WAIT, and RESET against an edge in flight. Its seed decides when the writer writes.
 */

#include "harness.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READY WIRE_CODE_READY

static void edge_without_waiter(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	put_bytes(p.b, 1);
	sync_with(c);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void latch_is_one_bit(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	for (int i = 0; i < 10; i++) {
		put_bytes(p.b, 1);
		sync_with(c);
	}
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_entry(c, &p.w, READY, 0);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_nothing(c);
	put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void stale_latch_once(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	put_bytes(p.b, 1);
	sync_with(c);
	CHECK_EQ(drain(p.a), 1);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_entry(c, &p.w, READY, 0); /* stale: one spurious wake an edge */
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_nothing(c);
	put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

/* ---- S-029 ---- */

struct writer {
	int fd;
	uint64_t seed;
	size_t rounds;
};

/* Writes a counter at random moments: often at once, often some us later, seldom after a sleep. */
static void *writer_run(void *argument)
{
	const struct writer *w = argument;
	uint64_t random = w->seed;

	for (size_t i = 0; i < w->rounds;) {
		uint64_t r = random_next(&random);
		int64_t until = now_ns() + (int64_t)(r % 60) * US;
		uint8_t byte = (uint8_t)i;

		if (r >> 56 == 0)
			nap_us(300);
		else
			while (now_ns() < until)
				;
		if (write(w->fd, &byte, 1) == 1)
			i++;
		else
			nap_us(100);
	}
	return NULL;
}

/* Reads to EAGAIN; each byte must be the next of the counter. */
static size_t drain_counted(int fd, size_t at)
{
	uint8_t bytes[512];
	ssize_t got;

	while ((got = read(fd, bytes, sizeof(bytes))) > 0)
		for (ssize_t i = 0; i < got; i++, at++)
			if (bytes[i] != (uint8_t)at)
				FAIL("byte %zu is %u", at, bytes[i]);
	return at;
}

static void soak(const struct env *e, bool reset)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);
	struct writer writer = {p.b, e->seed + reset, e->full ? 100000 : 5000};
	pthread_t thread;
	size_t at = 0, waits = 0;

	CHECK_EQ(pthread_create(&thread, NULL, writer_run, &writer), 0);
	while (at < writer.rounds) {
		struct received r;

		if (reset) /* answered before the read, or the edge would be lost */
			expect_ok(ask_reset(c, &p.w, WIRE_READ));
		at = drain_counted(p.a, at);
		if (at == writer.rounds)
			break;
		put_slots(c, WIRE_WAIT, 0, &p.w, WIRE_READ);
		flush(c);
		if (!take(c, WIRE_RECORD_ENTRY, p.w.id, now_ns() + 10 * soon_ms(e) * MS, &r))
			FAIL("hangs after %zu bytes of %zu, %zu waits", at, writer.rounds, waits);
		CHECK_EQ(r.entry.read, READY);
		waits++;
	}
	CHECK_EQ(pthread_join(thread, NULL), 0);
	expect_nothing(c);
	conn_close(c);
}

static void soak_plain(const struct env *e)
{
	soak(e, false);
}

static void soak_reset(const struct env *e)
{
	soak(e, true);
}

/* ---- S-030 ---- */

static void edge_meets_wait(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	struct writer writer = {p.b, e->seed, 1};
	uint64_t random = e->seed;

	for (int i = 0; i < 500; i++) {
		int64_t until = now_ns() + (int64_t)(random_next(&random) % 100) * US;
		pthread_t thread;

		writer.seed = random;
		CHECK_EQ(pthread_create(&thread, NULL, writer_run, &writer), 0);
		while (now_ns() < until)
			;
		put_slots(c, WIRE_WAIT, 0, &p.w, WIRE_READ);
		flush(c);
		expect_entry(c, &p.w, READY, 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
		sync_with(c);
		CHECK(c->first == c->n); /* not two */
		CHECK_EQ(drain(p.a), 1);
		expect_ok(ask_reset(c, &p.w, WIRE_READ));
	}
	expect_nothing(c);
	conn_close(c);
}

/* ---- RESET ---- */

static void reset_clears_one_direction(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	put_bytes(p.b, 1);
	sync_with(c);
	CHECK_EQ(drain(p.a), 1);
	expect_ok(ask_reset(c, &p.w, WIRE_READ));
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_nothing(c);
	put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	expect_ok(ask_wait(c, &p.w, WIRE_WRITE));
	expect_entry(c, &p.w, 0, READY);
	expect_nothing(c);
	conn_close(c);
}

static void reset_checks_first(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);

	put_bytes(p.b, 1);
	sync_with(c);
	expect_ok(ask_deadline(c, &p.w, WIRE_READ, -1));
	expect_error(ask_reset(c, &p.w, WIRE_READ), WIRE_E_TIMEOUT);
	expect_ok(ask_deadline(c, &p.w, WIRE_READ, 0));
	/* all or none: the write side's failure keeps the read latch */
	expect_ok(ask_deadline(c, &p.w, WIRE_WRITE, -1));
	expect_error(ask_reset(c, &p.w, BOTH), WIRE_E_TIMEOUT);
	CHECK_EQ(c->failure.direction, 0);
	expect_error(ask_reset(c, &p.w, WIRE_WRITE), WIRE_E_TIMEOUT);
	CHECK_EQ(c->failure.direction, WIRE_WRITE);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void reset_after_evict(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	expect_ok(ask_evict(c, &p.w));
	expect_error(ask_reset(c, &p.w, WIRE_READ), WIRE_E_CLOSING);
	expect_error(ask_reset(c, &p.w, BOTH), WIRE_E_CLOSING);
	expect_nothing(c);
	conn_close(c);
}

static void reset_while_waiting(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_error(ask_reset(c, &p.w, WIRE_READ), WIRE_E_BUSY);
	put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

/* The edge of WATCH itself is in the kernel, untaken, when RESET of the same datagram is applied. It
 * must not come afterwards. On a level-triggered backend the client reads, and all is quiet. */
static void reset_takes_edges_first(const struct env *e)
{
	struct conn *c = conn_dial(e);

	for (int i = 0; i < 20; i++) {
		struct watch w;
		int a, b;

		pair_make(&a, &b);
		put_bytes(b, 1);
		w = watch_name(c, a);
		put_watch(c, 0, &w, WIRE_READ, WIRE_MODE_WAIT);
		expect_ok(ask_reset(c, &w, WIRE_READ));
		if (!e->edge)
			CHECK_EQ(drain(a), 1);
		put_slots(c, WIRE_WAIT, 0, &w, WIRE_READ);
		if (i % 5 == 0)
			expect_nothing(c);
		else
			sync_with(c);
		CHECK(c->first == c->n);
		put_bytes(b, 1);
		expect_entry(c, &w, READY, 0);
		close(a);
		close(b);
	}
	expect_nothing(c);
	conn_close(c);
}

static void reset_must_ask(const struct env *e)
{
	struct conn *c = conn_dial(e), *other = conn_dial(e);
	struct pair p = pair_new(c);

	put_slots(c, WIRE_RESET, 0, &p.w, WIRE_READ);
	flush(c);
	CHECK_EQ(ended(c), WIRE_E_PROTOCOL);
	CHECK_EQ(c->error.serial, c->serial);
	sync_with(other);
	conn_close(c);
	conn_close(other);
}

#define LEVEL "this backend is level-triggered: a latch is the level (no feature edge)"

static const struct item items[] = {
	{"S-026", "an edge without a waiter is latched", edge_without_waiter, NULL, 0},
	{"S-027", "the latch is one bit", latch_is_one_bit, LEVEL, 0},
	{"S-028", "a stale latch wakes once", stale_latch_once, LEVEL, 0},
	{"S-029", "soak without RESET", soak_plain, NULL, 600},
	{"S-029", "soak with RESET", soak_reset, NULL, 600},
	{"S-030", "an edge while the WAIT is under way", edge_meets_wait, NULL, 0},
	{"S-031", "RESET clears one direction", reset_clears_one_direction, NULL, 0},
	{"S-032", "RESET looks at errors first and keeps the latch", reset_checks_first, NULL, 0},
	{"S-033", "RESET after EVICT", reset_after_evict, NULL, 0},
	{"S-034", "RESET of a waiting slot", reset_while_waiting, NULL, 0},
	{"S-035", "RESET without an answer ends the connection", reset_must_ask, NULL, 0},
	{"S-036", "RESET clears an edge that the kernel still has", reset_takes_edges_first, NULL,
	 0},
};

const struct item_list items_latch_reset = ITEMS(items);
