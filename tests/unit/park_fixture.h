/* SPDX-License-Identifier: MIT */
#ifndef READYD_TESTS_PARK_FIXTURE_H
#define READYD_TESTS_PARK_FIXTURE_H

/* Parks of two owners with some handles, and the words in which the tests of parks talk. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/core.h"
#include "daemon/core/park.h"

#define FIRST UINT64_C(1000)

enum { OWNERS = 2, HANDLES = 3, UID = 500 };

struct fixture {
	struct parks *ps;
	struct quota quota[OWNERS];
	struct park_owner *o[OWNERS];
	struct park_handle *h[HANDLES]; /* of o[0] */
	struct park_handle *stranger;   /* of o[1] */
	int64_t now;
	uint64_t serial; /* of the last one that was expected */
	uint8_t bytes[PARK_TEXT_MAX];
};

static inline const uint8_t *id_of(unsigned n)
{
	static uint8_t ids[16][PARK_TOKEN_SIZE];
	static unsigned turn;
	uint8_t *id = ids[turn++ % 16];

	memset(id, 0, PARK_TOKEN_SIZE);
	id[0] = (uint8_t)n;
	id[15] = (uint8_t)(n >> 8);
	return id;
}

static inline struct park_handle *handle_of(struct fixture *f, struct park_owner *o, unsigned n)
{
	struct park_handle *h = NULL;

	assert_int_equal(parks_get_handle(f->ps, o, id_of(n), &h), 1);
	parks_attach(f->ps, h, true);
	return h;
}

static inline void fixture_open(struct fixture *f)
{
	*f = (struct fixture){.now = 50};
	assert_int_equal(parks_new(FIRST, &(struct hash_key){{FIRST}}, &f->ps), 0);
	for (unsigned i = 0; i < OWNERS; i++) {
		for (unsigned k = 0; k < QUOTA_MAX; k++)
			f->quota[i].limit[k] = UINT64_MAX;
		assert_int_equal(parks_add_owner(f->ps, UID + i, &f->quota[i], &f->o[i]), 0);
	}
	for (unsigned i = 0; i < HANDLES; i++)
		f->h[i] = handle_of(f, f->o[0], 100 + i);
	f->stranger = handle_of(f, f->o[1], 200);
}

static inline int fixture_setup(void **state)
{
	static struct fixture f;

	fixture_open(&f);
	*state = &f;
	return 0;
}

static inline int fixture_teardown(void **state)
{
	struct fixture *f = *state;

	parks_check(f->ps);
	f->ps = parks_free(f->ps);
	assert_null(f->ps);
	return 0;
}

/* Whether exactly this park is on the list of changes; takes it. */
static inline void expect_changed(struct fixture *f, const struct park *p)
{
	assert_ptr_equal(parks_take_changed(f->ps), p);
	assert_null(parks_take_changed(f->ps));
	parks_check(f->ps);
}

/* As expect_changed(), and its record is another one. */
static inline void expect_recorded(struct fixture *f, const struct park *p)
{
	assert_true(p->serial != f->serial);
	f->serial = p->serial;
	expect_changed(f, p);
}

static inline void expect_unchanged(struct fixture *f)
{
	assert_null(parks_take_changed(f->ps));
	parks_check(f->ps);
}

static inline struct park_new new_park(unsigned token)
{
	struct park_new new = {
		.cookie = 7, .told_fd = 9, .interest = CORE_READ, .kind = 3, .text = {0}};

	memcpy(new.token, id_of(token), sizeof(new.token));
	return new;
}

/* Its texts: `name` and `group`, and so many bytes of note. */
static inline void set_texts(struct fixture *f, struct park_new *new, const char *name,
			     const char *group, size_t note)
{
	size_t n = strlen(name), g = strlen(group);

	memcpy(f->bytes, name, n);
	memcpy(f->bytes + n, group, g);
	memset(f->bytes + n + g, 'n', note);
	new->text = (struct park_text){.note_length = (uint16_t)note,
				       .name_length = (uint8_t)n,
				       .group_length = (uint8_t)g,
				       .bytes = f->bytes};
}

static inline int park_result(struct fixture *f, const struct park_new *new)
{
	struct park *p = NULL;
	int r = parks_park(f->ps, f->h[0], new, f->now, &p);

	assert_int_equal(p != NULL, r >= 0);
	return r;
}

/* Parked by the first handle, and its change taken. */
static inline struct park *park_as(struct fixture *f, const struct park_new *new)
{
	struct park *p = NULL;

	assert_int_equal(parks_park(f->ps, f->h[0], new, f->now, &p), 0);
	expect_recorded(f, p);
	return p;
}

static inline struct park *park_unanswered(struct fixture *f, unsigned token)
{
	struct park_new new = new_park(token);

	return park_as(f, &new);
}

static inline struct park *park_held(struct fixture *f, unsigned token)
{
	struct park *p = park_unanswered(f, token);

	parks_answered(f->ps, p);
	expect_recorded(f, p);
	return p;
}

/* Handed to the second handle. */
static inline struct park *park_handed(struct fixture *f, unsigned token)
{
	struct park *p = park_held(f, token);

	assert_int_equal(parks_hand(f->ps, p, f->h[1], f->now), 0);
	expect_recorded(f, p);
	return p;
}

/* It is gone so; frees it. */
static inline void expect_gone(struct fixture *f, struct park *p, enum park_end end)
{
	assert_int_equal(p->state, PARK_GONE);
	assert_int_equal(p->end, end);
	assert_null(p->worker);
	assert_null(p->maker);
	assert_null(parks_find_token(f->ps, f->o[0], p->token));
	assert_null(parks_find_number(f->ps, f->o[0], p->number));
	expect_recorded(f, p);
	parks_end(f->ps, p);
	parks_check(f->ps);
}

/* Held, ready for its whole interest, and nobody's worker has it. */
static inline void expect_back(struct fixture *f, const struct park *p)
{
	assert_int_equal(p->state, PARK_HELD);
	assert_true(p->answered);
	assert_null(p->worker);
	assert_int_equal(p->ready, p->interest);
	assert_true(p->since == f->now);
	assert_int_equal(f->quota[0].used[QUOTA_FDS_UNREAD], parks_stats(f->ps)->handed);
	expect_recorded(f, p);
}

/* ---- The ways by which a hand-out ends without an acknowledgement ---- */

typedef void (*ending)(struct fixture *f, struct park *p);

static inline void end_by_disconnect(struct fixture *f, struct park *p)
{
	parks_disconnected(f->ps, p->worker, f->now);
}

static inline void end_by_death(struct fixture *f, struct park *p)
{
	parks_died(f->ps, p->worker, f->now);
}

static inline void end_by_taking_back(struct fixture *f, struct park *p)
{
	parks_take_back(f->ps, p, f->now);
}

static inline void end_by_word(struct fixture *f, struct park *p)
{
	assert_int_equal(parks_state_held(f->ps, p->worker, p->token, false, f->now), 0);
}

static inline void end_by_no_word(struct fixture *f, struct park *p)
{
	parks_attach(f->ps, p->worker, true);
	parks_state_no_other(f->ps, p->worker, f->now);
}

static const ending endings[] = {end_by_disconnect, end_by_death, end_by_taking_back, end_by_word,
				 end_by_no_word};

enum { ENDINGS = sizeof(endings) / sizeof(endings[0]) };

#endif
