/* SPDX-License-Identifier: MIT */

/* The table of parks: found by their hashes, also while it grows and shrinks. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/core/hash_map.h"

enum { THINGS = 5000, STEPS = 200000, HASHES = 3000 };

struct thing {
	uint32_t hash;
	int in;
};

/* From the paper's reference implementation. */
static void the_hash_is_siphash(void **state)
{
	static const struct {
		size_t n;
		uint64_t hash;
	} rows[] = {
		{0, UINT64_C(0x726fdb47dd0e0e31)},  {1, UINT64_C(0x74f839c593dc67fd)},
		{2, UINT64_C(0x0d6c8009d9a94f5a)},  {8, UINT64_C(0x93f5f5799a932462)},
		{15, UINT64_C(0xa129ca6149be45e5)},
	};
	struct hash_key key;
	uint8_t bytes[16];

	(void)state;
	if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
		skip();
	for (unsigned i = 0; i < sizeof(bytes); i++)
		((uint8_t *)&key)[i] = bytes[i] = (uint8_t)i;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(hash_bytes(&key, bytes, rows[i].n), rows[i].hash);
}

static void another_key_is_another_hash(void **state)
{
	const struct hash_key a = {{1, 2}}, b = {{1, 3}};

	(void)state;
	assert_true(hash_bytes(&a, "token", 5) != hash_bytes(&b, "token", 5));
}

/* High bits alone tell some of them apart: these share their bucket. */
static uint32_t spread(uint32_t hash)
{
	return hash % 2 ? hash << 20 | hash : hash << 20;
}

/* How many things have this hash; or, if `wanted`, how often that one is among them. */
static unsigned count_with(const struct hash_map *m, uint32_t hash, uint32_t wanted)
{
	uint32_t index = hash_map_find(m, spread(hash));
	unsigned n = 0;

	for (; index; index = hash_map_next(m, index)) {
		assert_int_equal(m->links[index].hash, spread(hash));
		n += !wanted || index == wanted;
	}
	return n;
}

static void an_empty_one_has_nothing(void **state)
{
	struct hash_map m = {0};

	(void)state;
	assert_int_equal(hash_map_find(&m, 7), 0);
	assert_int_equal(hash_map_bucket_count(&m), 0);
	hash_map_deinit(&m);
}

/* Things come and go at random, many with equal hashes; each is found once while it is in. */
static void things_come_and_go(void **state)
{
	static struct thing things[THINGS];
	static unsigned with[HASHES];
	const char *text = getenv("READYD_SEED");
	unsigned seed = text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)time(NULL);
	struct hash_map m = {0};
	uint32_t n = 0;

	(void)state;
	print_message("READYD_SEED=%u\n", seed);
	srandom(seed);
	for (unsigned step = 0; step < STEPS; step++) {
		uint32_t index = 1 + (uint32_t)random() % (THINGS - 1);
		struct thing *t = &things[index];
		/* most of them come, then most go */
		int in = random() % 10 < (step < STEPS / 2 ? 9 : 1);

		if (in && !t->in) {
			t->hash = (uint32_t)random() % HASHES;
			assert_int_equal(hash_map_reserve(&m, index + 1), 0);
			hash_map_put(&m, index, spread(t->hash));
			with[t->hash]++;
			n++;
		} else if (!in && t->in) {
			hash_map_remove(&m, index);
			with[t->hash]--;
			n--;
		}
		t->in = in;
		assert_int_equal(m.count, n);
		assert_int_equal(count_with(&m, t->hash, 0), with[t->hash]);
		assert_int_equal(count_with(&m, t->hash, index), in);
	}
	assert_true(hash_map_bucket_count(&m) < THINGS / 2);
	for (uint32_t index = 1; index < THINGS; index++) {
		assert_int_equal(count_with(&m, things[index].hash, index), things[index].in);
		if (things[index].in)
			hash_map_remove(&m, index);
	}
	assert_int_equal(m.count, 0);
	hash_map_deinit(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_hash_is_siphash),
		cmocka_unit_test(another_key_is_another_hash),
		cmocka_unit_test(an_empty_one_has_nothing),
		cmocka_unit_test(things_come_and_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
