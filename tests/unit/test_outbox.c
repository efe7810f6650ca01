/* SPDX-License-Identifier: MIT */

/*
 * The outbox: what the requests of one datagram can need fits into OUTBOX_ROOM, whatever their
 * type; a full area refuses and is not written beyond; what is saved is what was added.
 */

#include "daemon/edge/outbox.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int set_up(void **state)
{
	struct outbox *o = calloc(1, sizeof(*o));

	if (!o || outbox_init(o) < 0)
		return -1;
	*state = o;
	return 0;
}

static int tear_down(void **state)
{
	outbox_deinit(*state);
	free(*state);
	return 0;
}

/* Every record of the datagram fails, or every header gets an answer; and a reply of rows comes. */
static void worst_datagram_of_each_type_fits(void **state)
{
	struct outbox *o = *state;
	struct wire_failure failure = {.kind = WIRE_RECORD_FAILURE};
	static uint8_t rows[48 * 1024];
	unsigned types = 0;

	for (unsigned type = 1; type < 0x80; type++) {
		int size = wire_record_size(type);
		struct outbox_chain chain = {0};
		size_t header = sizeof(struct wire_header), results = 0, used = 0;

		if (size < 0)
			continue;
		types++;
		while (used + header <= WIRE_MESSAGE_MAX) { /* requests of as many records as fit */
			size_t room = WIRE_MESSAGE_MAX - used - header;
			size_t n = size == 0 ? 0 : room / (size_t)size;

			if (n > WIRE_RECORDS_MAX)
				n = WIRE_RECORDS_MAX;
			results += n + 1; /* failures and an answer */
			used += header + n * (size_t)size;
		}
		outbox_clear(o);
		assert_true(outbox_has_room(o));
		for (size_t i = 0; i < results; i++)
			assert_int_equal(outbox_add_record(o, &chain, &failure), 0);
		assert_int_equal(
			outbox_add_message(o, &chain, WIRE_QUOTAS, 0, 1, rows, 1024, NULL, 0), 0);
		assert_true(o->used <= 8 + OUTBOX_ROOM);
	}
	assert_true(types > 20);
}

/* What is added to two chains in turn: records of one message lie together. */
static void records_of_two_chains_in_turn(void **state)
{
	struct wire_failure failure = {.kind = WIRE_RECORD_FAILURE};
	struct outbox_chain chains[2] = {{0}};
	struct outbox *o = *state;

	outbox_clear(o);
	for (unsigned i = 0; i < 6; i++) {
		failure.serial = i;
		assert_int_equal(outbox_add_record(o, &chains[i / 2 % 2], &failure), 0);
	}
	for (unsigned k = 0; k < 2; k++) {
		struct backlog *b = NULL;
		const uint8_t *message;
		unsigned next = 2 * k;
		size_t size;

		assert_int_equal(outbox_save(o, &chains[k], &b), 0);
		for (; (message = backlog_next(b, &size)); backlog_drop_next(b), next += 4) {
			struct wire_view view;

			assert_int_equal(wire_decode(message, size, false, &view, NULL), WIRE_OK);
			assert_int_equal(view.header.count, 2);
			memcpy(&failure, view.records, sizeof(failure));
			assert_int_equal(failure.serial, next);
		}
		assert_int_equal(next, k ? 6 : 8);
		free(b);
	}
}

static void a_full_area_refuses(void **state)
{
	struct outbox *o = *state;
	struct outbox_chain chain = {0};
	struct wire_failure failure = {.kind = WIRE_RECORD_FAILURE};
	struct wire_error_record error = {.error = WIRE_E_PROTOCOL};
	size_t n = 0;

	outbox_clear(o);
	while (outbox_add_record(o, &chain, &failure) == 0)
		n++;
	assert_true(n > OUTBOX_ROOM / sizeof(failure));
	assert_true(o->used <= OUTBOX_SIZE);
	assert_false(outbox_has_room(o));
	while (outbox_add_message(o, &chain, WIRE_ERROR, 0, 0, &error, 1, "x", 1) == 0)
		;
	assert_int_equal(outbox_add_record(o, &chain, &failure), -ENOBUFS);
	assert_true(o->used <= OUTBOX_SIZE);
}

static void saved_is_what_was_added(void **state)
{
	struct outbox *o = *state;
	struct outbox_chain other = {0}, chain = {0};
	struct wire_failure failure = {.kind = WIRE_RECORD_FAILURE};
	struct wire_error_record error = {.error = WIRE_E_QUOTA};
	struct backlog *b = NULL;
	const struct wire_header *header;
	const void *bytes;
	unsigned records = 0, messages = 0;
	size_t size;

	outbox_clear(o);
	assert_int_equal(outbox_add_record(o, &other, &failure), 0);
	for (uint32_t i = 0; i < WIRE_RECORDS_MAX + 5; i++) {
		failure.id = i;
		assert_int_equal(outbox_add_record(o, &chain, &failure), 0);
	}
	assert_int_equal(outbox_add_message(o, &chain, WIRE_ERROR, 0, 7, &error, 1, "why", 3), 0);
	assert_int_equal(outbox_save(o, &chain, &b), 0);
	assert_null(outbox_first(o, &chain));
	assert_non_null(outbox_first(o, &other));
	outbox_clear(o);
	memset(o->area, 0xff, OUTBOX_SIZE); /* a copy does not mind */
	while ((bytes = backlog_next(b, &size))) {
		header = bytes;
		messages++;
		if (header->type == WIRE_READY) {
			const struct wire_failure *f = (const void *)(header + 1);

			assert_int_equal(size, sizeof(*header) + header->count * sizeof(*f));
			for (unsigned i = 0; i < header->count; i++)
				assert_int_equal(f[i].id, records++);
		} else {
			assert_int_equal(header->type, WIRE_ERROR);
			assert_int_equal(header->serial, 7);
		}
		backlog_drop_next(b);
	}
	assert_int_equal(messages, 3);
	assert_int_equal(records, WIRE_RECORDS_MAX + 5);
	free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(worst_datagram_of_each_type_fits),
		cmocka_unit_test(records_of_two_chains_in_turn),
		cmocka_unit_test(a_full_area_refuses),
		cmocka_unit_test(saved_is_what_was_added),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
