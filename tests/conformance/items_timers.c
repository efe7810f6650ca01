/* SPDX-License-Identifier: MIT */

/* S-082 to S-088, but for what needs a fake clock: timers, one-shot and periodic. */

#include "harness.h"

#include <stdlib.h>

/* The timer's next entry, soon after `when` and not before it. */
static struct received timer_entry(struct conn *c, uint32_t id, uint32_t gen, int64_t when)
{
	int64_t now = now_ns(), until = (when > now ? when : now) + soon_ms(c->env) * MS;
	struct received r;

	if (!take(c, WIRE_RECORD_TIMER, id, until, &r))
		FAIL("timer %u did not fire", id);
	if (now_ns() < when)
		FAIL("timer %u fired %lld ns early", id, (long long)(when - now_ns()));
	CHECK_EQ(r.timer.gen, gen);
	CHECK_EQ(r.timer.cookie, UINT64_C(0x71000000000000) | id);
	return r;
}

/* Arms; whether an old arming was pending. */
static bool timer_arm(struct conn *c, uint32_t id, uint32_t gen, int64_t when, int64_t period)
{
	expect_ok(ask_timer(c, id, gen, when, period));
	CHECK(c->answer.value <= 1);
	return c->answer.value;
}

static void one_shot(const struct env *e)
{
	struct conn *c = conn_dial(e);
	int64_t when = now_ns() + 30 * MS;

	CHECK(!timer_arm(c, 1, 1, when, 0));
	CHECK_EQ(timer_entry(c, 1, 1, when).timer.count, 1);
	expect_nothing(c);
	expect_error(ask_timer_stop(c, 1, 1), WIRE_E_NOT_FOUND); /* not pending */
	CHECK_EQ(c->answer.value, 0);

	CHECK(!timer_arm(c, 1, 2, now_ns() + 50 * MS, 0));
	expect_ok(ask_timer_stop(c, 1, 2)); /* pending */
	CHECK_EQ(c->answer.value, 1);
	expect_nothing(c);

	/* armed anew: pending, and nothing of the old arming */
	CHECK(!timer_arm(c, 1, 3, now_ns() + 50 * MS, 0));
	when = now_ns() + 200 * MS;
	CHECK(timer_arm(c, 1, 4, when, 0));
	timer_entry(c, 1, 4, when);
	expect_nothing(c);
	CHECK(!timer_arm(c, 1, 5, now_ns() + HOUR, 0));
	expect_error(ask_timer_stop(c, 1, 4), WIRE_E_STALE);
	conn_close(c);
}

static void periodic(const struct env *e)
{
	struct conn *c = conn_dial(e);
	int64_t start = now_ns() + 20 * MS, period = 20 * MS;
	uint64_t ticks = 0;

	CHECK(!timer_arm(c, 1, 1, start, period));
	for (int i = 0; i < 10; i++) {
		/* the n-th tick is never before its own time: phase is kept */
		ticks += timer_entry(c, 1, 1, start + (int64_t)ticks * period).timer.count;
		CHECK(now_ns() >= start + (int64_t)(ticks - 1) * period);
	}
	/* unsent, unread or late: none is forgotten */
	nap_us(110000);
	while (start + (int64_t)ticks * period <= now_ns() - 50 * MS)
		ticks += timer_entry(c, 1, 1, 0).timer.count;
	CHECK((int64_t)ticks <= (now_ns() - start) / period + 1);
	expect_ok(ask_timer_stop(c, 1, 1));
	while (c->first < c->n) /* those that were sent before */
		timer_entry(c, 1, 1, 0);
	expect_nothing(c);
	conn_close(c);
}

static void in_order_of_time(const struct env *e)
{
	static const uint8_t order[] = {7, 2, 9, 1, 10, 4, 6, 3, 8, 5};
	struct conn *c = conn_dial(e);
	int64_t base = now_ns() + 50 * MS;

	for (size_t i = 0; i < sizeof(order); i++) /* two of each time: ties by arming */
		for (uint32_t twin = 0; twin < 2; twin++) {
			uint32_t id = order[i] + twin * 100;

			expect_ok(ask_timer(c, id, 1, base + order[i] * 2 * MS, 0));
		}
	for (uint32_t i = 1; i <= sizeof(order); i++)
		for (uint32_t twin = 0; twin < 2; twin++) {
			struct received r;

			if (!take(c, WIRE_RECORD_TIMER, 0, now_ns() + soon_ms(e) * MS, &r))
				FAIL("timer %u did not fire", i);
			CHECK(now_ns() >= base + i * 2 * MS);
			CHECK_EQ(r.timer.id, i + twin * 100);
		}
	expect_nothing(c);
	conn_close(c);
}

static void hour_moved_to_past(const struct env *e)
{
	struct conn *c = conn_dial(e);
	uint32_t gen = 0;

	for (int i = 0; i < 10; i++) {
		timer_arm(c, 1, ++gen, now_ns() + HOUR, 0);
		sync_with(c);
		CHECK(timer_arm(c, 1, ++gen, i % 2 ? now_ns() - SECOND : 0, 0));
		if (i % 3 == 2) { /* it has fired, or it is stopped: never both */
			unsigned error = ask_timer_stop(c, 1, gen);

			if (error == WIRE_OK) {
				expect_nothing(c);
				continue;
			}
			CHECK_EQ(error, WIRE_E_NOT_FOUND);
		}
		timer_entry(c, 1, gen, 0);
	}
	timer_arm(c, 1, ++gen, now_ns() + HOUR, 0);
	expect_ok(ask_timer_stop(c, 1, gen));
	expect_nothing(c);
	conn_close(c);
}

enum { MOVED = 100 };

static void moved_at_random(const struct env *e)
{
	struct conn *c = conn_dial(e);
	uint64_t random = e->seed;
	int64_t when[MOVED], base = now_ns() + 300 * MS;
	uint32_t gen[MOVED] = {0};

	for (int round = 0; round < 10; round++)
		for (uint32_t i = 0; i < MOVED; i++) {
			struct wire_timer_set record = {
				.cookie = UINT64_C(0x71000000000000) | (i + 1),
				.id = i + 1,
				.gen = ++gen[i],
			};

			when[i] = base + (int64_t)(random_next(&random) % 300) * MS;
			record.when = when[i];
			put(c, WIRE_TIMER_SET, 0, &record, 1);
		}
	flush(c);
	sync_with(c);
	if (now_ns() >= base)
		FAIL("too slow: 1,000 TIMER_SET took 300 ms");
	for (uint32_t n = 0; n < MOVED; n++) {
		struct received r;

		if (!take(c, WIRE_RECORD_TIMER, 0, base + 300 * MS + soon_ms(e) * MS, &r))
			FAIL("%u of %d timers fired", n, MOVED);
		CHECK(r.timer.id >= 1 && r.timer.id <= MOVED);
		CHECK_EQ(r.timer.gen, gen[r.timer.id - 1]);
		CHECK(now_ns() >= when[r.timer.id - 1]);
		gen[r.timer.id - 1] = 0; /* a second one would not fit */
	}
	expect_nothing(c);
	conn_close(c);
}

static void strange_periods(const struct env *e)
{
	struct conn *c = conn_dial(e);

	timer_arm(c, 1, 1, now_ns() + 10 * MS, INT64_MAX - 1);
	CHECK_EQ(timer_entry(c, 1, 1, 0).timer.count, 1);
	expect_nothing(c);
	expect_ok(ask_timer_stop(c, 1, 1));
	expect_error(ask_timer(c, 2, 1, now_ns(), -1), WIRE_E_INVALID);
	expect_error(ask_timer(c, 0, 1, now_ns(), 0), WIRE_E_INVALID);
	timer_arm(c, 3, 1, 0, 0);
	timer_entry(c, 3, 1, 0);
	timer_arm(c, 3, 2, -5, 0);
	timer_entry(c, 3, 2, 0);
	timer_arm(c, 3, 3, now_ns() - HOUR, 0);
	timer_entry(c, 3, 3, 0);
	timer_arm(c, 4, 1, INT64_MAX, 0);
	expect_nothing(c);
	conn_close(c);
}

enum { MADE = 100000, BATCH = 500 };

static void made_and_stopped(const struct env *e)
{
	struct conn *c = conn_dial(e);
	uint64_t before = status_of(c).timers;
	struct wire_timer_set set[BATCH] = {0};
	struct wire_timer_stop stop[BATCH];
	int64_t hour = now_ns() + HOUR;
	long before_kib = -1, after_kib;

	timer_arm(c, 1, 1, hour, 0);
	for (uint32_t i = 0; i < MADE / BATCH; i++) {
		for (uint32_t k = 0; k < BATCH; k++) {
			set[k].id = stop[k].id = 2 + i * BATCH + k;
			set[k].gen = stop[k].gen = 1;
			set[k].when = hour + (int64_t)(k * 7919 % 1000) * MS;
		}
		put(c, WIRE_TIMER_SET, 0, set, BATCH);
		flush(c);
		expect_ok(ask(c, WIRE_TIMER_STOP, stop, BATCH));
		CHECK_EQ(c->answer.value, BATCH);
		if (i == 10)
			before_kib = memory_kib(e->pid);
	}
	after_kib = memory_kib(e->pid);
	if (before_kib >= 0 && after_kib - before_kib >= 1024)
		FAIL("the daemon grew by %ld KiB", after_kib - before_kib);
	CHECK_EQ(status_of(c).timers, before + 1);
	expect_nothing(c);
	conn_close(c);
}

static const struct item items[] = {
	{"S-082", "a one-shot fires once, or is stopped", one_shot, NULL, 0},
	{"S-083", "a periodic timer keeps phase and count", periodic, NULL, 0},
	{"S-084", "ten timers fire in order", in_order_of_time, NULL, 0},
	{"S-085", "an hour moved to the past", hour_moved_to_past, NULL, 0},
	{"S-086", "100 timers moved at random", moved_at_random, NULL, 0},
	{"S-087", "periods and times at the edges", strange_periods, NULL, 0},
	{"S-088", "100,000 timers made and stopped", made_and_stopped, NULL, 120},
};

const struct item_list items_timers = ITEMS(items);
