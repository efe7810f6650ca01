/* SPDX-License-Identifier: MIT */

/*
 * What one keeper leaves to the next: it comes back as it was, and whatever else lies there is
 * refused. Prints its seed; READYD_SEED repeats a run.
 */

#include "daemon/keeper/upgrade_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

static struct upgrade_fd fds[] = {
	{.kind = 1, .uid = 1000, .pid = 4711, .fd = 300},
	{.kind = 2, .uid = 0, .pid = 0, .fd = 256},
	{.kind = 2, .uid = 1000, .pid = 4712, .fd = -1},
	{.kind = 2, .uid = 1000, .pid = 4713, .fd = -1},
};

static char text[] = "log-level: debug\n";

static struct upgrade_state full(void)
{
	struct upgrade_state s = {
		.keeper = 77,
		.version = "0.1.0+test",
		.records = 3,
		.left_behind = 2,
		.began = 1234567,
		.loops = 89,
		.died = 123456789,
		.listener = {.fd = 260,
			     .address = "/run/readyd/socket",
			     .bound = true,
			     .device = 8,
			     .inode = 99},
		.starter = 261,
		.blame = {.suspects = true,
			  .step = {.kind = PROGRESS_SEND, .uid = 5, .pid = 6, .object = 7},
			  .start = 8},
		.fds = fds,
		.n_fds = sizeof(fds) / sizeof(fds[0]),
		.text = text,
		.text_size = sizeof(text) - 1,
	};

	s.blame.kept_out.n = 2;
	s.blame.kept_out.items[0] = (struct kept_out){.uid = 1, .pid = 2, .start = 3, .until = 4};
	s.blame.kept_out.items[1] = (struct kept_out){.uid = 5, .pid = 6, .start = 0, .until = 8};
	return s;
}

static uint8_t *encode(const struct upgrade_state *s, size_t *ret_size)
{
	void *bytes = NULL;

	assert_int_equal(upgrade_state_encode(s, &bytes, ret_size), 0);
	return bytes;
}

static const char *refused(const void *bytes, size_t size)
{
	struct upgrade_state s;
	const char *reason = NULL;

	assert_int_equal(upgrade_state_decode(bytes, size, &s, &reason), -EBADMSG);
	assert_non_null(reason);
	return reason;
}

static void everything_comes_back(void **state)
{
	struct upgrade_state s = full(), t;
	const char *reason;
	size_t size;
	uint8_t *bytes = encode(&s, &size);

	(void)state;
	assert_int_equal(upgrade_state_decode(bytes, size, &t, &reason), 0);
	assert_int_equal(t.keeper, 77);
	assert_string_equal(t.version, "0.1.0+test");
	assert_int_equal(t.records, 3);
	assert_int_equal(t.left_behind, 2);
	assert_int_equal(t.began, 1234567);
	assert_int_equal(t.loops, 89);
	assert_int_equal(t.died, 123456789);
	assert_int_equal(t.listener.fd, 260);
	assert_string_equal(t.listener.address, "/run/readyd/socket");
	assert_true(t.listener.bound);
	assert_int_equal(t.listener.device, 8);
	assert_int_equal(t.listener.inode, 99);
	assert_int_equal(t.starter, 261);
	assert_true(t.blame.suspects);
	assert_int_equal(t.blame.step.kind, PROGRESS_SEND);
	assert_int_equal(t.blame.step.uid, 5);
	assert_int_equal(t.blame.step.pid, 6);
	assert_int_equal(t.blame.step.object, 7);
	assert_int_equal(t.blame.start, 8);
	assert_memory_equal(&t.blame.kept_out, &s.blame.kept_out, sizeof(t.blame.kept_out));
	assert_int_equal(t.n_fds, sizeof(fds) / sizeof(fds[0]));
	assert_memory_equal(t.fds, fds, sizeof(fds));
	assert_int_equal(t.text_size, sizeof(text) - 1);
	assert_memory_equal(t.text, text, t.text_size);
	upgrade_state_clear(&t);
	free(bytes);
}

static void the_least_comes_back(void **state)
{
	struct upgrade_state s = {
		.keeper = 1,
		.version = "1",
		.listener = {.fd = 256, .address = "@00001"},
		.starter = -1,
	};
	struct upgrade_state t;
	const char *reason;
	size_t size;
	uint8_t *bytes = encode(&s, &size);

	(void)state;
	assert_int_equal(upgrade_state_decode(bytes, size, &t, &reason), 0);
	assert_null(t.text);
	assert_int_equal(t.n_fds, 0);
	assert_int_equal(t.starter, -1);
	assert_false(t.listener.bound || t.blame.suspects);
	upgrade_state_clear(&t);
	free(bytes);
}

static void every_shorter_or_longer_one_is_refused(void **state)
{
	struct upgrade_state s = full();
	size_t size;
	uint8_t *bytes = encode(&s, &size), *more = calloc(1, size + 64);

	(void)state;
	for (size_t n = 0; n < size; n++) {
		/* of exactly that size, so that reading behind it is seen */
		uint8_t *cut = malloc(n + !n);

		memcpy(cut, bytes, n);
		(void)refused(cut, n);
		free(cut);
	}
	memcpy(more, bytes, size);
	for (size_t n = size + 1; n <= size + 64; n++)
		(void)refused(more, n);
	free(more);
	free(bytes);
}

static void another_version_is_named(void **state)
{
	struct upgrade_state s = full();
	size_t size;
	uint8_t *bytes = encode(&s, &size);
	uint32_t version = UPGRADE_STATE_VERSION + 1;

	(void)state;
	memcpy(bytes + 8, &version, sizeof(version));
	assert_string_equal(refused(bytes, size), "it is of another version");
	bytes[0] ^= 1;
	assert_string_equal(refused(bytes, size), "this is no state of readyd's");
	free(bytes);
}

/* A state that somebody made wrong on purpose, and the clause that refuses it. */
static void check_wrong(const struct upgrade_state *s, const char *reason)
{
	size_t size;
	uint8_t *bytes = encode(s, &size);

	assert_string_equal(refused(bytes, size), reason);
	free(bytes);
}

static void values_without_sense_are_refused(void **state)
{
	static const char number[] = "an fd's number makes no sense";
	struct upgrade_fd low = {.kind = 1, .fd = 255}, twice[] = {{.fd = 270}, {.fd = 270}};
	struct upgrade_fd taken = {.fd = 260}, nobody = {.fd = 270, .pid = -1};
	struct upgrade_fd nothing = {.kind = 2, .fd = -1};
	struct upgrade_state s = full();

	(void)state;
	s.keeper = 0;
	check_wrong(&s, "a value makes no sense");
	s = full();
	s.died = -1;
	check_wrong(&s, "a value makes no sense");
	s = full();
	s.began = -1;
	check_wrong(&s, "a value makes no sense");
	s = full();
	s.version[0] = '\0';
	check_wrong(&s, "the version of its writer is none");
	s = full();
	s.listener.fd = 255;
	check_wrong(&s, number);
	s = full();
	s.starter = s.listener.fd;
	check_wrong(&s, number);
	s = full();
	s.starter = 0;
	check_wrong(&s, number);
	s = full();
	s.listener.address[0] = '\0';
	check_wrong(&s, "the socket's address is none");
	s = full();
	s.listener.address[0] = 'x';
	check_wrong(&s, "the socket's address is none");
	s = full();
	s.listener.address[0] = '@'; /* an abstract one has no file */
	check_wrong(&s, "what it says of the socket's file makes no sense");
	s = full();
	s.blame.step.kind = PROGRESS_MAX;
	check_wrong(&s, "whom it blames makes no sense");
	s = full();
	s.blame.kept_out.items[1].pid = 0;
	check_wrong(&s, "whom it keeps out makes no sense");
	s = full();
	s.n_fds = 1;
	s.fds = &low;
	check_wrong(&s, number);
	s.fds = &taken;
	check_wrong(&s, number);
	s.fds = &nobody;
	check_wrong(&s, number);
	s.fds = &nothing;
	check_wrong(&s, number);
	s.fds = twice;
	s.n_fds = 2;
	check_wrong(&s, number);
}

static void too_much_is_not_written(void **state)
{
	struct upgrade_state s = full();
	size_t size;
	void *bytes;

	(void)state;
	s.text_size = UPGRADE_TEXT_MAX + 1;
	assert_int_equal(upgrade_state_encode(&s, &bytes, &size), -E2BIG);
	s = full();
	s.n_fds = UPGRADE_FDS_MAX + 1;
	assert_int_equal(upgrade_state_encode(&s, &bytes, &size), -E2BIG);
}

/* What is taken is a state in its only form: it is written as it was read. */
static void decode_and_compare(const uint8_t *bytes, size_t size, unsigned *taken)
{
	struct upgrade_state s;
	const char *reason;
	uint8_t *again;
	size_t n;
	int r = upgrade_state_decode(bytes, size, &s, &reason);

	if (r < 0) {
		assert_int_equal(r, -EBADMSG);
		return;
	}
	++*taken;
	again = encode(&s, &n);
	assert_int_equal(n, size);
	assert_memory_equal(again, bytes, size);
	free(again);
	upgrade_state_clear(&s);
}

static void random_bytes_are_refused_or_a_state(void **state)
{
	const char *wish = getenv("READYD_SEED");
	unsigned seed = wish ? (unsigned)strtoul(wish, NULL, 10) : (unsigned)time(NULL);
	struct upgrade_state s = full();
	unsigned taken = 0;
	size_t size;
	uint8_t *bytes = encode(&s, &size), *copy = malloc(size);

	(void)state;
	printf("READYD_SEED=%u\n", seed);
	srandom(seed);
	for (unsigned i = 0; i < 100000; i++) {
		memcpy(copy, bytes, size);
		for (long flips = 1 + random() % 4; flips > 0; flips--)
			copy[(size_t)random() % size] = (uint8_t)random();
		decode_and_compare(copy, size, &taken);
	}
	assert_true(taken > 0); /* the text, for one, can be anything */
	for (unsigned i = 0; i < 10000; i++) {
		memcpy(copy, bytes, 16); /* magic, version and size are right */
		for (size_t at = 16; at < size; at++)
			copy[at] = (uint8_t)random();
		(void)refused(copy, size);
	}
	free(copy);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_comes_back),
		cmocka_unit_test(the_least_comes_back),
		cmocka_unit_test(every_shorter_or_longer_one_is_refused),
		cmocka_unit_test(another_version_is_named),
		cmocka_unit_test(values_without_sense_are_refused),
		cmocka_unit_test(too_much_is_not_written),
		cmocka_unit_test(random_bytes_are_refused_or_a_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
