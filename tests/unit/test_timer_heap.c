/* SPDX-License-Identifier: MIT */

/*
 * The heap against a plain array: random operations, the same answers, its own check after each;
 * and equal times, which leave in the order of their arming, also where the sequence wraps.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/core/timer_heap.h"

enum { REFS = 200, STEPS = 60000, TIMES = 40 };

struct plain {
	bool in;
	int64_t when;
	uint64_t order;
};

static uint64_t random_next(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint64_t seed_from_environment(void)
{
	const char *text = getenv("READYD_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : UINT64_C(4);

	print_message("seed %llu (READYD_SEED)\n", (unsigned long long)seed);
	return seed;
}

/* The ref that comes first, or -1. */
static int plain_first(const struct plain *plain)
{
	int first = -1;

	for (int i = 0; i < REFS; i++) {
		if (!plain[i].in)
			continue;
		if (first < 0 || plain[i].when < plain[first].when ||
		    (plain[i].when == plain[first].when && plain[i].order < plain[first].order))
			first = i;
	}
	return first;
}

static void compare_first(const struct timer_heap *h, const struct plain *plain)
{
	uint32_t ref = 0;
	int64_t when = 0;
	int first = plain_first(plain);

	assert_int_equal(timer_heap_first(h, &ref, &when), first >= 0);
	if (first < 0)
		return;
	assert_int_equal(ref, first);
	assert_true(when == plain[first].when);
}

static void compare_ref(const struct timer_heap *h, const struct plain *plain, uint32_t ref)
{
	int64_t when = 0;

	assert_int_equal(timer_heap_contains(h, ref), plain[ref].in);
	assert_int_equal(timer_heap_when(h, ref, &when), plain[ref].in);
	if (plain[ref].in)
		assert_true(when == plain[ref].when);
}

static int64_t random_time(uint64_t *seed)
{
	switch (random_next(seed) % 16) {
	case 0:
		return INT64_MAX;
	case 1:
		return INT64_MIN;
	default:
		return (int64_t)(random_next(seed) % TIMES) - TIMES / 2;
	}
}

static void run(uint64_t seed, uint32_t first_seq)
{
	static struct plain plain[REFS];
	struct timer_heap h;
	uint64_t order = 0, count = 0, moves;

	for (unsigned i = 0; i < REFS; i++)
		plain[i] = (struct plain){0};
	timer_heap_init(&h);
	compare_first(&h, plain);
	assert_int_equal(timer_heap_reserve(&h, REFS / 2), 0);
	h.seq = first_seq;
	for (unsigned step = 0; step < STEPS; step++) {
		uint32_t refs = step < STEPS / 4 ? REFS / 2 : REFS;
		uint32_t ref = (uint32_t)(random_next(&seed) % refs);
		/* Fill and drain in turns. */
		unsigned set = step / 2000 % 2 ? 70 : 30;

		if (step == STEPS / 4)
			assert_int_equal(timer_heap_reserve(&h, REFS), 0);
		moves = h.moves;
		if (random_next(&seed) % 100 < set) {
			int64_t when = random_time(&seed);

			timer_heap_set(&h, ref, when);
			count += !plain[ref].in;
			plain[ref] = (struct plain){true, when, ++order};
			assert_int_equal(h.moves, moves + 1);
		} else {
			if (random_next(&seed) % 2 && plain_first(plain) >= 0)
				ref = (uint32_t)plain_first(plain);
			assert_int_equal(timer_heap_remove(&h, ref), plain[ref].in);
			assert_int_equal(h.moves, moves + plain[ref].in);
			count -= plain[ref].in;
			plain[ref].in = false;
		}
		timer_heap_check(&h);
		assert_int_equal(h.count, count);
		compare_first(&h, plain);
		compare_ref(&h, plain, ref);
		compare_ref(&h, plain, (uint32_t)(random_next(&seed) % refs));
	}
	while (plain_first(plain) >= 0) {
		uint32_t ref = (uint32_t)plain_first(plain);

		compare_first(&h, plain);
		assert_true(timer_heap_remove(&h, ref));
		plain[ref].in = false;
	}
	assert_int_equal(h.count, 0);
	timer_heap_deinit(&h);
	timer_heap_check(&h);
}

static void random_operations(void **unused)
{
	(void)unused;
	run(seed_from_environment(), 0);
}

/* The same with a sequence that wraps in the midst of it. */
static void random_operations_across_the_wrap(void **unused)
{
	(void)unused;
	run(seed_from_environment() + 1, UINT32_MAX - 5000);
}

static void ties(uint32_t first_seq)
{
	struct timer_heap h;
	uint32_t ref;
	int64_t when;

	timer_heap_init(&h);
	assert_int_equal(timer_heap_reserve(&h, REFS), 0);
	h.seq = first_seq;
	for (uint32_t i = 0; i < REFS; i++)
		timer_heap_set(&h, (i * 7) % REFS, 50);
	/* Set anew at the same time: goes to the end. */
	timer_heap_set(&h, 7, 50);
	timer_heap_set(&h, 14, 40);
	timer_heap_set(&h, 14, 50);
	for (uint32_t i = 0; i < REFS; i++) {
		assert_true(timer_heap_first(&h, &ref, &when));
		timer_heap_check(&h);
		assert_int_equal(when, 50);
		if (i == 0)
			assert_int_equal(ref, 0);
		else if (i < REFS - 2)
			assert_int_equal(ref, ((i + 2) * 7) % REFS);
		else
			assert_int_equal(ref, i == REFS - 2 ? 7 : 14);
		assert_true(timer_heap_remove(&h, ref));
	}
	assert_false(timer_heap_first(&h, &ref, &when));
	timer_heap_deinit(&h);
}

static void ties_leave_in_order_of_arming(void **unused)
{
	(void)unused;
	ties(0);
}

static void ties_across_the_wrap(void **unused)
{
	(void)unused;
	ties(UINT32_MAX - REFS / 2);
	ties(UINT32_MAX - 1);
	ties(UINT32_MAX);
	ties(INT32_MAX - REFS / 2);
}

static void reserve_keeps_what_is_in(void **unused)
{
	struct timer_heap h;
	uint32_t ref, refs = 0;
	int64_t when;

	(void)unused;
	timer_heap_init(&h);
	for (uint32_t i = 0; i < 20000; i++) {
		if (i == refs) {
			refs = refs * 2 + 1;
			assert_int_equal(timer_heap_reserve(&h, refs), 0);
		}
		timer_heap_set(&h, i, -(int64_t)i);
		assert_true(timer_heap_first(&h, &ref, &when));
		assert_int_equal(ref, i);
	}
	/* Never shrinks. */
	assert_int_equal(timer_heap_reserve(&h, 1), 0);
	timer_heap_check(&h);
	for (uint32_t i = 20000; i-- > 0;) {
		assert_true(timer_heap_first(&h, &ref, &when));
		assert_int_equal(ref, i);
		assert_true(timer_heap_remove(&h, ref));
	}
	timer_heap_check(&h);
	timer_heap_deinit(&h);
	assert_int_equal(h.count, 0);
	/* Usable again. */
	assert_int_equal(timer_heap_reserve(&h, 1), 0);
	timer_heap_set(&h, 0, 1);
	assert_true(timer_heap_contains(&h, 0));
	timer_heap_deinit(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_operations),
		cmocka_unit_test(random_operations_across_the_wrap),
		cmocka_unit_test(ties_leave_in_order_of_arming),
		cmocka_unit_test(ties_across_the_wrap),
		cmocka_unit_test(reserve_keeps_what_is_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
