/* SPDX-License-Identifier: MIT */

/*
 * The codec against the vectors of the specification, against every way to cut them off, against
 * flipped bytes, and against itself. Each datagram is decoded from a heap block of exactly its
 * size, so that AddressSanitizer sees a read of one byte too many.
 *
 * READYD_VECTORS names the folder of the vectors (else the one compiled in), READYD_SEED the seed
 * of the random test.
 */

#include "protocol/wire.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static_assert(sizeof(struct wire_header) == 16, "header");
static_assert(sizeof(struct wire_hello) == 32, "hello");
static_assert(sizeof(struct wire_break) == 8, "break");
static_assert(sizeof(struct wire_is_poll_descriptor) == 8, "is_poll_descriptor");
static_assert(sizeof(struct wire_watch) == 24, "watch");
static_assert(sizeof(struct wire_unwatch) == 16, "unwatch");
static_assert(sizeof(struct wire_slots) == 16, "slots");
static_assert(sizeof(struct wire_deadline) == 24, "deadline");
static_assert(sizeof(struct wire_timer_set) == 40, "timer_set");
static_assert(sizeof(struct wire_timer_stop) == 8, "timer_stop");
static_assert(sizeof(struct wire_park) == 48, "park");
static_assert(sizeof(struct wire_token) == 16, "token");
static_assert(sizeof(struct wire_take) == 32, "take");
static_assert(sizeof(struct wire_held) == 24, "held");
static_assert(sizeof(struct wire_attach) == 16, "attach");
static_assert(sizeof(struct wire_list) == 32, "list");
static_assert(sizeof(struct wire_monitor) == 24, "monitor");
static_assert(sizeof(struct wire_welcome) == 40, "welcome");
static_assert(sizeof(struct wire_entry) == 24, "entry");
static_assert(sizeof(struct wire_timer_entry) == 24, "timer_entry");
static_assert(sizeof(struct wire_break_entry) == 24, "break_entry");
static_assert(sizeof(struct wire_answer) == 24, "answer");
static_assert(sizeof(struct wire_failure) == 24, "failure");
static_assert(sizeof(struct wire_error_record) == 16, "error_record");
static_assert(sizeof(struct wire_handout) == 56, "handout");
static_assert(sizeof(struct wire_status) == 240, "status");
static_assert(sizeof(struct wire_session_row) == 120, "session_row");
static_assert(sizeof(struct wire_watch_row) == 104, "watch_row");
static_assert(sizeof(struct wire_timer_row) == 64, "timer_row");
static_assert(sizeof(struct wire_quota_row) == 32, "quota_row");
static_assert(sizeof(struct wire_group_row) == 72, "group_row");

enum {
	VECTORS_MAX = 512,
	BAD_LEAST = 30,
	FLIPS = 100000,
};

struct vector {
	char name[64];
	bool from_client;
	bool greeted;
	unsigned n_fds;
	enum wire_error verdict;
	uint8_t *bytes;
	size_t size;
};

struct vectors {
	struct vector items[VECTORS_MAX];
	size_t n;
};

/* ---- Reading the vectors ---- */

static enum wire_error verdict_from_name(const char *name)
{
	static const struct {
		const char *name;
		enum wire_error error;
	} verdicts[] = {
		{"ok", WIRE_OK},
		{"PROTOCOL", WIRE_E_PROTOCOL},
		{"BYTE_ORDER", WIRE_E_BYTE_ORDER},
		{"SURPLUS_FDS", WIRE_E_SURPLUS_FDS},
	};

	for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++)
		if (strcmp(name, verdicts[i].name) == 0)
			return verdicts[i].error;
	fail_msg("a vector has the unknown verdict \"%s\"", name);
	return WIRE_E_MAX;
}

static void vector_read_key(struct vector *v, const char *line)
{
	char key[16], value[32];

	if (sscanf(line, "# %15[a-z]: %31s", key, value) != 2)
		return;
	if (strcmp(key, "from") == 0)
		v->from_client = strcmp(value, "client") == 0;
	else if (strcmp(key, "greeted") == 0)
		v->greeted = strcmp(value, "yes") == 0;
	else if (strcmp(key, "fds") == 0)
		v->n_fds = (unsigned)strtoul(value, NULL, 10);
	else if (strcmp(key, "verdict") == 0)
		v->verdict = verdict_from_name(value);
}

static void vector_read_hex(struct vector *v, const char *line)
{
	unsigned byte;
	int used;

	while (sscanf(line, "%2x%n", &byte, &used) == 1) {
		v->bytes = realloc(v->bytes, v->size + 1);
		assert_non_null(v->bytes);
		v->bytes[v->size++] = (uint8_t)byte;
		line += used;
	}
	while (isspace((unsigned char)*line))
		line++;
	if (*line)
		fail_msg("%s: what is \"%s\"?", v->name, line);
}

static void vector_read(struct vector *v, const char *folder, const char *file)
{
	char path[4096], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	snprintf(v->name, sizeof(v->name), "%.*s", (int)(strlen(file) - 4), file);
	v->verdict = WIRE_E_MAX;
	f = fopen(path, "re");
	if (!f)
		fail_msg("cannot open %s", path);
	while (fgets(line, sizeof(line), f)) {
		if (line[0] != '#')
			vector_read_hex(v, line);
		else if (v->size == 0)
			vector_read_key(v, line);
	}
	fclose(f);
	if (v->verdict == WIRE_E_MAX || v->size == 0)
		fail_msg("%s has no verdict or no bytes", path);
	if ((strncmp(file, "bad-", 4) == 0) != (v->verdict != WIRE_OK))
		fail_msg("%s: the file's name and its verdict differ", path);
}

static int vectors_setup(void **state)
{
	const char *folder = getenv("READYD_VECTORS");
	struct vectors *all = calloc(1, sizeof(*all));
	struct dirent *entry;
	DIR *dir;

#ifdef VECTORS_DIR
	if (!folder)
		folder = VECTORS_DIR;
#endif
	assert_non_null(all);
	if (!folder)
		fail_msg("say where the vectors are: READYD_VECTORS=protocol/vectors");
	dir = opendir(folder);
	if (!dir)
		fail_msg("cannot open the folder %s", folder);
	while ((entry = readdir(dir))) {
		size_t length = strlen(entry->d_name);

		if (length <= 4 || strcmp(entry->d_name + length - 4, ".hex") != 0)
			continue;
		assert_true(all->n < VECTORS_MAX);
		vector_read(&all->items[all->n++], folder, entry->d_name);
	}
	closedir(dir);
	*state = all;
	return 0;
}

static int vectors_teardown(void **state)
{
	struct vectors *all = *state;

	for (size_t i = 0; i < all->n; i++)
		free(all->items[i].bytes);
	free(all);
	return 0;
}

/* ---- Decoding ---- */

/* A block of exactly that size. */
static uint8_t *block_new(const void *bytes, size_t size)
{
	uint8_t *block = malloc(size ? size : 1);

	assert_non_null(block);
	if (size)
		memcpy(block, bytes, size);
	return block;
}

static enum wire_error datagram_check(const uint8_t *block, size_t size, bool from_client,
				      bool greeted, unsigned n_fds)
{
	struct wire_view view;
	const char *reason = NULL;
	enum wire_error error;

	if (from_client)
		error = wire_check_datagram(block, size, n_fds, greeted, &view, &reason);
	else
		error = wire_decode(block, size, false, &view, &reason);
	assert_int_equal(error != WIRE_OK, reason != NULL);
	return error;
}

/* Walks what was accepted: every view lies inside, and encodes to the very bytes it came from. */
static void datagram_walk(const uint8_t *block, size_t size, bool from_client)
{
	uint8_t *again = malloc(size);
	unsigned n_fds = 0;
	size_t at = 0;

	assert_non_null(again);
	while (at < size) {
		struct wire_view v;

		assert_int_equal(wire_decode(block + at, size - at, from_client, &v, NULL),
				 WIRE_OK);
		assert_in_range(v.size, sizeof(v.header), size - at);
		assert_int_equal(v.size % 8, 0);
		assert_in_range(v.n_fds, 0, v.header.count);
		assert_int_equal(wire_encode(again, v.size, v.header.type, v.header.flags,
					     v.header.serial, v.records, v.header.count, v.tail,
					     v.header.tail),
				 v.size);
		assert_memory_equal(again, block + at, v.size);
		n_fds += v.n_fds;
		at += v.size;
	}
	assert_int_equal(at, size);
	free(again);
	if (from_client) /* as many fds as the views say are no fault */
		assert_int_not_equal(datagram_check(block, size, true, true, n_fds),
				     WIRE_E_SURPLUS_FDS);
}

static void vectors_give_their_verdicts(void **state)
{
	const struct vectors *all = *state;
	size_t n_bad = 0;

	for (size_t i = 0; i < all->n; i++) {
		const struct vector *v = &all->items[i];
		uint8_t *block = block_new(v->bytes, v->size);
		enum wire_error error =
			datagram_check(block, v->size, v->from_client, v->greeted, v->n_fds);

		if (error != v->verdict)
			fail_msg("%s: verdict %d (%s), wanted %d (%s)", v->name, error,
				 wire_error_text(error), v->verdict, wire_error_text(v->verdict));
		if (!error)
			datagram_walk(block, v->size, v->from_client);
		n_bad += error != WIRE_OK;
		free(block);
	}
	assert_in_range(n_bad, BAD_LEAST, all->n);
}

static void vectors_cover_each_type(void **state)
{
	const struct vectors *all = *state;

	for (unsigned type = 0; type < 65536; type++) {
		bool found = false;

		if (!wire_type_name(type))
			continue;
		assert_int_equal(type & 0x80 ? type < 256 : type < 128, true);
		for (size_t i = 0; i < all->n; i++) {
			const struct vector *v = &all->items[i];
			uint16_t own;

			memcpy(&own, v->bytes, sizeof(own));
			found |= v->verdict == WIRE_OK && own == type &&
				 v->from_client == (type < 0x80);
		}
		if (!found)
			fail_msg("no good vector for %s", wire_type_name(type));
	}
}

/* The fd counts in good vectors are what the records take, no less. */
static void vectors_count_their_fds(void **state)
{
	const struct vectors *all = *state;

	for (size_t i = 0; i < all->n; i++) {
		const struct vector *v = &all->items[i];
		unsigned n_fds = 0;
		struct wire_view view;

		if (v->verdict != WIRE_OK)
			continue;
		for (size_t at = 0; at < v->size; at += view.size) {
			uint8_t *block = block_new(v->bytes + at, v->size - at);

			assert_int_equal(
				wire_decode(block, v->size - at, v->from_client, &view, NULL),
				WIRE_OK);
			n_fds += view.n_fds;
			free(block);
		}
		if (n_fds != v->n_fds)
			fail_msg("%s: its records take %u fds, it says %u", v->name, n_fds,
				 v->n_fds);
	}
}

static bool is_boundary(const struct vector *v, size_t size)
{
	struct wire_view view = {0};

	for (size_t at = 0; at < v->size; at += view.size) {
		if (at == size)
			return at > 0;
		assert_int_equal(wire_decode(v->bytes + at, v->size - at, true, &view, NULL),
				 WIRE_OK);
	}
	return false;
}

static void truncated_vectors_are_refused(void **state)
{
	const struct vectors *all = *state;

	for (size_t i = 0; i < all->n; i++) {
		const struct vector *v = &all->items[i];

		if (v->verdict != WIRE_OK)
			continue;
		for (size_t size = 0; size < v->size; size++) {
			uint8_t *block = block_new(v->bytes, size);
			enum wire_error error =
				datagram_check(block, size, v->from_client, v->greeted, 0);

			/* What ends between two requests is a shorter, good datagram. */
			if (v->from_client && is_boundary(v, size))
				assert_int_equal(error, WIRE_OK);
			else if (error != WIRE_E_PROTOCOL)
				fail_msg("%s cut at %zu: %s", v->name, size,
					 wire_error_text(error));
			free(block);
		}
	}
}

static uint64_t random_next(uint64_t *seed)
{
	/* splitmix64 */
	uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static void flipped_bytes_do_no_harm(void **state)
{
	const struct vectors *all = *state;
	const char *given = getenv("READYD_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	unsigned n_accepted = 0;

	printf("seed %llu: READYD_SEED=%llu repeats this run\n", (unsigned long long)seed,
	       (unsigned long long)seed);
	for (unsigned i = 0; i < FLIPS; i++) {
		const struct vector *v = &all->items[random_next(&seed) % all->n];
		uint8_t *block = block_new(v->bytes, v->size);
		unsigned n = 1 + (unsigned)(random_next(&seed) % 4);
		/* Mostly near the start, where the header and the first record are. */
		size_t span = random_next(&seed) % 2 && v->size > 40 ? 40 : v->size;

		while (n--)
			block[random_next(&seed) % span] ^= (uint8_t)(1 + random_next(&seed) % 255);
		if (datagram_check(block, v->size, v->from_client, v->greeted, 0) == WIRE_OK) {
			datagram_walk(block, v->size, v->from_client);
			n_accepted++;
		}
		free(block);
	}
	/* Cookies, ids and the like may be anything, so many are good; far from all. */
	assert_in_range(n_accepted, FLIPS / 100, FLIPS - FLIPS / 10);
}

/* ---- Encoding ---- */

/* A record of that type that decodes; `tail` is what its lengths say. */
static void record_fill(unsigned type, unsigned index, void *record, size_t tail)
{
	memset(record, 0, (size_t)wire_record_size(type));
	switch (type) {
	case WIRE_HELLO:
		((struct wire_hello *)record)->magic = WIRE_MAGIC;
		break;
	case WIRE_WATCH:
		((struct wire_watch *)record)->id = index + 1;
		((struct wire_watch *)record)->cookie = UINT64_MAX - index;
		break;
	case WIRE_UNWATCH:
		((struct wire_unwatch *)record)->id = index + 1;
		((struct wire_unwatch *)record)->flags = index % 2 ? WIRE_UNWATCH_FD : 0;
		break;
	case WIRE_PARK:
		((struct wire_park *)record)->note_length = (uint16_t)tail;
		break;
	case WIRE_TAKE:
	case WIRE_DROP:
		((struct wire_take *)record)->name_length = (uint8_t)tail;
		break;
	case WIRE_ATTACH:
	case WIRE_DETACH:
		((struct wire_attach *)record)->group_length = (uint32_t)tail;
		break;
	case WIRE_WELCOME:
		((struct wire_welcome *)record)->magic = WIRE_MAGIC;
		break;
	case WIRE_READY:
		((struct wire_entry *)record)->kind = (uint8_t)(1 + index % 5);
		if (index % 5 == 0)
			((struct wire_entry *)record)->read = WIRE_CODE_READY;
		break;
	case WIRE_HANDOUT:
		((struct wire_handout *)record)->note_length = (uint16_t)tail;
		break;
	default:
		break;
	}
}

static bool type_has_tail(unsigned type)
{
	switch (type) {
	case WIRE_HELLO:
	case WIRE_PARK:
	case WIRE_TAKE:
	case WIRE_DROP:
	case WIRE_ATTACH:
	case WIRE_DETACH:
	case WIRE_WELCOME:
	case WIRE_ERROR:
	case WIRE_HANDOUT:
	case WIRE_STATUS:
		return true;
	default:
		return false;
	}
}

static bool type_has_many(unsigned type)
{
	switch (type) {
	case WIRE_BREAK:
	case WIRE_IS_POLL_DESCRIPTOR:
	case WIRE_WATCH:
	case WIRE_UNWATCH:
	case WIRE_WAIT:
	case WIRE_UNWAIT:
	case WIRE_RESET:
	case WIRE_DEADLINE:
	case WIRE_EVICT:
	case WIRE_TIMER_SET:
	case WIRE_TIMER_STOP:
	case WIRE_CLAIM:
	case WIRE_ACKNOWLEDGE:
	case WIRE_HELD:
	case WIRE_READY:
	case WIRE_SESSIONS:
	case WIRE_WATCHES:
	case WIRE_TIMERS:
	case WIRE_QUOTAS:
		return true;
	default:
		return false;
	}
}

static void round_trip(unsigned type, size_t count, const char *tail, size_t tail_size)
{
	static _Alignas(8) uint8_t records[WIRE_MESSAGE_MAX], wire[WIRE_MESSAGE_MAX];
	unsigned flags = type < 0x80 ? WIRE_FLAG_ANSWER : 0;
	size_t record = (size_t)wire_record_size(type), size;
	struct wire_view view;
	const char *reason = NULL;
	uint8_t *block;

	for (size_t i = 0; i < count; i++)
		record_fill(type, (unsigned)i, records + i * record, tail_size);
	memset(wire, 0xa5, sizeof(wire)); /* so that padding that is not written shows */
	size = wire_encode(wire, sizeof(wire), type, flags, 77, records, count, tail, tail_size);
	assert_int_equal(size, 16 + count * record + wire_align(tail_size));

	block = block_new(wire, size);
	if (wire_decode(block, size, type < 0x80, &view, &reason) != WIRE_OK)
		fail_msg("%s, %zu records: %s", wire_type_name(type), count, reason);
	assert_int_equal(view.header.type, type);
	assert_int_equal(view.header.flags, flags);
	assert_int_equal(view.header.serial, 77);
	assert_int_equal(view.header.count, count);
	assert_int_equal(view.header.tail, tail_size);
	assert_int_equal(view.size, size);
	assert_ptr_equal(view.records, block + 16);
	assert_ptr_equal(view.tail, block + 16 + count * record);
	assert_memory_equal(view.records, records, count * record);
	assert_memory_equal(view.tail, tail, tail_size);
	free(block);

	/* A buffer that is one byte too small gets nothing. */
	block = block_new(wire, size - 1);
	assert_int_equal(
		wire_encode(block, size - 1, type, flags, 77, records, count, tail, tail_size), 0);
	assert_memory_equal(block, wire, size - 1);
	free(block);
}

static void each_type_round_trips(void **state)
{
	static const char text[] = "name\0more\0end";
	unsigned n_types = 0;

	(void)state;
	for (unsigned type = 0; type < 256; type++) {
		size_t record = (size_t)wire_record_size(type);
		size_t room, most;

		if (!wire_type_name(type)) {
			assert_int_equal(wire_record_size(type), -1);
			continue;
		}
		n_types++;
		if (type == WIRE_STATUS) {
			round_trip(type, 1, text, sizeof(text)); /* three zero bytes */
		} else if (type_has_many(type)) {
			room = (WIRE_MESSAGE_MAX - sizeof(struct wire_header)) / record;
			most = room < WIRE_RECORDS_MAX ? room : WIRE_RECORDS_MAX;
			if (type == WIRE_IS_POLL_DESCRIPTOR)
				most = 64;
			round_trip(type, 1, "", 0);
			round_trip(type, 7, "", 0);
			round_trip(type, most, "", 0);
		} else {
			round_trip(type, record != 0, "", 0);
			for (size_t n = 1; n <= 9 && type_has_tail(type); n++)
				round_trip(type, 1, "123456789", n);
		}
	}
	assert_int_equal(n_types, 41);
	round_trip(WIRE_SESSIONS, 0, "", 0);
	round_trip(WIRE_GROUPS, 0, "", 0);
}

static void encode_refuses_what_does_not_fit(void **state)
{
	static _Alignas(8) uint8_t wire[2 * WIRE_MESSAGE_MAX], in[2 * WIRE_MESSAGE_MAX];

	(void)state;
	memset(wire, 0xa5, sizeof(wire));
	assert_int_equal(wire_encode(wire, sizeof(wire), 0x7f, 0, 1, in, 1, NULL, 0), 0);
	assert_int_equal(wire_encode(wire, sizeof(wire), 0x110, 0, 1, in, 1, NULL, 0), 0);
	assert_int_equal(wire_encode(wire, sizeof(wire), WIRE_WAIT, 0, 1, in, 1025, NULL, 0), 0);
	assert_int_equal(
		wire_encode(wire, sizeof(wire), WIRE_WAIT, 0, 1, in, SIZE_MAX / 16 + 1, NULL, 0),
		0);
	assert_int_equal(wire_encode(wire, sizeof(wire), WIRE_HELLO, 0, 1, in, 1, in, SIZE_MAX), 0);
	assert_int_equal(wire_encode(wire, sizeof(wire), WIRE_HELLO, 0, 1, in, 1, in, 65489), 0);
	assert_int_equal(wire_encode(wire, sizeof(wire), WIRE_HELLO, 0, 1, in, 1, in, 65488),
			 WIRE_MESSAGE_MAX);
	/* 631 rows of 104 bytes are more than 65536 */
	memset(wire, 0xa5, sizeof(wire));
	assert_int_equal(wire_encode(wire, sizeof(wire), WIRE_WATCHES, 0, 1, in, 631, NULL, 0), 0);
	assert_int_equal(wire[0], 0xa5);
	assert_int_equal(wire_encode(wire, 15, WIRE_SYNC, 0, 1, NULL, 0, NULL, 0), 0);
	assert_int_equal(wire_encode(wire, 16, WIRE_SYNC, 0, 1, NULL, 0, NULL, 0), 16);
}

static void encode_takes_records_in_place(void **state)
{
	_Alignas(8) uint8_t wire[64];
	struct wire_timer_stop stops[2] = {{.id = 1, .gen = 2}, {.id = 3, .gen = 4}};
	struct wire_view view;

	(void)state;
	memcpy(wire + 16, stops, sizeof(stops));
	assert_int_equal(
		wire_encode(wire, sizeof(wire), WIRE_TIMER_STOP, 0, 9, wire + 16, 2, NULL, 0), 32);
	assert_int_equal(wire_decode(wire, 32, true, &view, NULL), WIRE_OK);
	assert_memory_equal(view.records, stops, sizeof(stops));
}

/* ---- Datagrams ---- */

static void datagram_limits(void **state)
{
	static _Alignas(8) uint8_t wire[WIRE_MESSAGE_MAX + 16];
	struct wire_view fault;
	const char *reason = NULL;

	(void)state;
	assert_int_equal(wire_check_datagram(wire, 0, 0, true, &fault, &reason), WIRE_E_PROTOCOL);
	assert_non_null(reason);

	for (size_t at = 0; at < sizeof(wire); at += 16)
		wire_encode(wire + at, 16, WIRE_SYNC, 0, (uint32_t)at, NULL, 0, NULL, 0);
	assert_int_equal(wire_check_datagram(wire, WIRE_MESSAGE_MAX, 0, true, &fault, &reason),
			 WIRE_OK);
	assert_int_equal(wire_check_datagram(wire, sizeof(wire), 0, true, &fault, &reason),
			 WIRE_E_PROTOCOL);
}

static void datagram_names_the_request_at_fault(void **state)
{
	_Alignas(8) uint8_t wire[64];
	struct wire_break ask = {0};
	struct wire_view fault;

	(void)state;
	wire_encode(wire, 24, WIRE_BREAK, 0, 71, &ask, 1, NULL, 0);
	wire_encode(wire + 24, 16, WIRE_SYNC, 0x8000, 72, NULL, 0, NULL, 0);
	assert_int_equal(wire_check_datagram(wire, 40, 0, true, &fault, NULL), WIRE_E_PROTOCOL);
	assert_int_equal(fault.header.type, WIRE_SYNC);
	assert_int_equal(fault.header.serial, 72);
	assert_null(fault.records);

	/* Of half a header the half is told, of none nothing. */
	assert_int_equal(wire_check_datagram(wire, 32, 0, true, &fault, NULL), WIRE_E_PROTOCOL);
	assert_int_equal(fault.header.serial, 72);
	assert_int_equal(fault.header.count, 0);
	assert_int_equal(wire_check_datagram(wire, 28, 0, true, &fault, NULL), WIRE_E_PROTOCOL);
	assert_int_equal(fault.header.type, WIRE_SYNC);
	assert_int_equal(fault.header.serial, 0);

	/* A fault of no request in particular. */
	assert_int_equal(wire_check_datagram(wire, 24, 1, true, &fault, NULL), WIRE_E_SURPLUS_FDS);
	assert_int_equal(fault.header.type, 0);
	assert_int_equal(fault.header.serial, 0);
}

static void datagram_too_few_fds_are_no_fault(void **state)
{
	_Alignas(8) uint8_t wire[256];
	struct wire_watch watches[3] = {{.id = 1}, {.id = 2}, {.id = 3}};
	struct wire_unwatch unwatches[3] = {{.flags = WIRE_UNWATCH_FD}, {0}, {.flags = 1}};
	size_t size = wire_encode(wire, sizeof(wire), WIRE_WATCH, 0, 1, watches, 3, NULL, 0);
	struct wire_view fault;

	(void)state;
	size += wire_encode(wire + size, sizeof(wire) - size, WIRE_UNWATCH, 0, 2, unwatches, 3,
			    NULL, 0);
	for (unsigned n = 0; n <= 5; n++)
		assert_int_equal(wire_check_datagram(wire, size, n, true, &fault, NULL), WIRE_OK);
	assert_int_equal(wire_check_datagram(wire, size, 6, true, &fault, NULL),
			 WIRE_E_SURPLUS_FDS);
}

/* ---- Names ---- */

static void names_are_total_and_distinct(void **state)
{
	(void)state;
	for (unsigned i = 0; i < WIRE_E_MAX; i++)
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(wire_error_text(i), wire_error_text(j));
	for (unsigned i = 0; i < WIRE_KIND_MAX; i++)
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(wire_kind_name(i), wire_kind_name(j));
	for (unsigned i = 0; i < WIRE_QUOTA_MAX; i++)
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(wire_quota_name(i), wire_quota_name(j));
	assert_string_equal(wire_error_text(77), wire_error_text(UINT32_MAX));
	assert_string_equal(wire_kind_name(77), "unknown");
	assert_string_equal(wire_quota_name(77), "unknown");
	assert_string_equal(wire_type_name(WIRE_WATCH), "WATCH");
	assert_null(wire_type_name(0));
	assert_null(wire_type_name(256 + WIRE_WATCH));
	assert_int_equal(wire_record_size(WIRE_SYNC), 0);
	assert_int_equal(wire_record_size(0), -1);
	assert_int_equal(wire_record_size(UINT32_MAX), -1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(vectors_give_their_verdicts),
		cmocka_unit_test(vectors_cover_each_type),
		cmocka_unit_test(vectors_count_their_fds),
		cmocka_unit_test(truncated_vectors_are_refused),
		cmocka_unit_test(flipped_bytes_do_no_harm),
		cmocka_unit_test(each_type_round_trips),
		cmocka_unit_test(encode_refuses_what_does_not_fit),
		cmocka_unit_test(encode_takes_records_in_place),
		cmocka_unit_test(datagram_limits),
		cmocka_unit_test(datagram_names_the_request_at_fault),
		cmocka_unit_test(datagram_too_few_fds_are_no_fault),
		cmocka_unit_test(names_are_total_and_distinct),
	};

	return cmocka_run_group_tests_name("wire", tests, vectors_setup, vectors_teardown);
}
