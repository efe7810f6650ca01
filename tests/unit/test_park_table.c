/* SPDX-License-Identifier: MIT */

/*
 * Owners and handles, many parks, restoring, and being without memory: each allocation fails in
 * turn, the call says -ENOMEM, and nothing has changed.
 *
 * Linked with --wrap for the functions below; tsearch(3) is one, since its malloc() is inside libc.
 */

#include <stdio.h>
#include <stdlib.h>

#include "park_fixture.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_tsearch(const void *key, void **root, int (*compare)(const void *, const void *));
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_tsearch(const void *key, void **root, int (*compare)(const void *, const void *));

/* Allocations that still succeed; < 0: all. Tests have no threads. */
static int left = -1;

static bool granted(void)
{
	if (left < 0)
		return true;
	if (left == 0)
		return false;
	left--;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return granted() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t n, size_t size)
{
	return granted() ? __real_calloc(n, size) : NULL;
}

void *__wrap_realloc(void *old, size_t size)
{
	return granted() ? __real_realloc(old, size) : NULL;
}

void *__wrap_tsearch(const void *key, void **root, int (*compare)(const void *, const void *))
{
	return granted() ? __real_tsearch(key, root, compare) : NULL;
}

static int teardown(void **state)
{
	left = -1;
	return fixture_teardown(state);
}

/* ---- Owners and handles ---- */

static void owners_come_and_go(void **state)
{
	struct fixture *f = *state;
	struct park_owner *o = NULL;
	struct quota q = {0};

	assert_null(parks_find_owner(f->ps, 1));
	assert_int_equal(parks_add_owner(f->ps, 1, &q, &o), 0);
	assert_ptr_equal(parks_find_owner(f->ps, 1), o);
	assert_ptr_equal(parks_find_owner(f->ps, UID), f->o[0]);
	assert_int_equal(parks_add_owner(f->ps, 1, &q, &o), -EEXIST);
	assert_int_equal(o->uid, 1);
	assert_ptr_equal(o->quota, &q);
	parks_check(f->ps);
	parks_end_owner(f->ps, o);
	assert_null(parks_find_owner(f->ps, 1));
}

static void handles_are_idle_or_named(void **state)
{
	struct fixture *f = *state;
	struct park_handle *h = NULL, *same = NULL, *other = NULL;
	struct park_new new = new_park(1);
	struct park *p = NULL;

	assert_int_equal(parks_get_handle(f->ps, f->o[0], id_of(0), &h), -EINVAL);
	assert_null(h);
	assert_null(parks_next_idle(f->ps));
	assert_int_equal(parks_get_handle(f->ps, f->o[0], id_of(1), &h), 1);
	assert_ptr_equal(parks_next_idle(f->ps), h);
	assert_int_equal(parks_get_handle(f->ps, f->o[0], id_of(1), &same), 0);
	assert_ptr_equal(same, h);
	/* The same id is another handle with another owner. */
	assert_int_equal(parks_get_handle(f->ps, f->o[1], id_of(1), &other), 1);
	assert_ptr_not_equal(other, h);
	parks_end_handle(f->ps, other);
	parks_attach(f->ps, h, true);
	assert_null(parks_next_idle(f->ps));
	assert_int_equal(parks_park(f->ps, h, &new, 0, &p), 0);
	parks_attach(f->ps, h, false);
	parks_attach(f->ps, h, false);
	assert_null(parks_next_idle(f->ps));
	parks_check(f->ps);
	assert_int_equal(parks_park(f->ps, f->h[0], &new, 0, &p), 1);
	assert_ptr_equal(parks_next_idle(f->ps), h);
	assert_int_equal(f->o[0]->n_handles, HANDLES + 1);
	parks_end_handle(f->ps, h);
	assert_int_equal(f->o[0]->n_handles, HANDLES);
	assert_null(parks_next_idle(f->ps));
	assert_int_equal(parks_get_handle(f->ps, f->o[0], id_of(1), &h), 1);
}

static void freeing_nothing_is_fine(void **state)
{
	(void)state;
	assert_null(parks_free(NULL));
}

/* ---- Many ---- */

static void many_parks_and_freed_places(void **state)
{
	enum { MANY = 3000 };
	struct fixture *f = *state;
	uint64_t cursor = 0, seen = 0;
	struct park *p;

	for (unsigned i = 1; i <= MANY; i++) {
		struct park_new new = new_park(i);

		assert_int_equal(parks_park(f->ps, f->h[i % HANDLES], &new, i, &p), 0);
		parks_answered(f->ps, p);
	}
	parks_check(f->ps);
	while (parks_take_changed(f->ps))
		;
	/* While one goes through them, every second one goes. */
	while ((p = parks_next(f->ps, f->o[0], &cursor))) {
		assert_true(p->number == FIRST + seen);
		if (seen++ % 2)
			continue;
		assert_int_equal(parks_drop(f->ps, p), 0);
		assert_ptr_equal(parks_take_changed(f->ps), p);
		parks_end(f->ps, p);
	}
	assert_int_equal(seen, MANY);
	assert_int_equal(f->quota[0].used[QUOTA_PARKS], MANY / 2);
	for (unsigned i = 1; i <= MANY / 2; i++) {
		struct park_new new = new_park(MANY + i);

		assert_int_equal(park_result(f, &new), 0);
	}
	for (cursor = seen = 0; parks_next(f->ps, NULL, &cursor); seen++)
		;
	assert_int_equal(seen, MANY);
	assert_int_equal(cursor, MANY);
}

/* ---- Restoring ---- */

static struct park_restore a_record(unsigned token)
{
	struct park_restore r = {
		.new = new_park(token),
		.number = 2000 + token,
		.serial = 3000 + token,
		.parked = 11,
		.answered = true,
	};

	memcpy(r.maker, id_of(300), sizeof(r.maker));
	return r;
}

static void make_handed(struct park_restore *r)
{
	r->handed = true;
	memcpy(r->worker, id_of(101), sizeof(r->worker));
}

static void a_restored_park_is_as_it_was(void **state)
{
	struct fixture *f = *state;
	struct park_restore r = a_record(1);
	struct park_new new = new_park(2);
	struct park *p = NULL, *next = NULL;

	f->quota[0].limit[QUOTA_PARKS] = 0;
	f->quota[0].limit[QUOTA_NOTE_BYTES] = 0;
	f->quota[0].limit[QUOTA_FDS_UNREAD] = 0;
	set_texts(f, &r.new, "a", "b", 3);
	make_handed(&r);
	r.new.deadline = 12;
	assert_int_equal(parks_restore(f->ps, f->o[0], &r, &p), 0);
	assert_int_equal(p->state, PARK_HANDED);
	assert_true(p->number == 2001 && p->serial == 3001 && p->parked == 11 && p->since == 11);
	assert_true(p->answered && !p->timed_out && p->deadline == 12);
	assert_ptr_equal(p->worker, f->h[1]);
	assert_memory_equal(p->maker->id, r.maker, sizeof(r.maker));
	assert_int_equal(f->quota[0].used[QUOTA_PARKS], 1);
	assert_int_equal(f->quota[0].used[QUOTA_NOTE_BYTES], 3);
	assert_int_equal(f->quota[0].used[QUOTA_FDS_UNREAD], 1);
	assert_ptr_equal(parks_find_name(f->ps, f->o[0], "a", 1, "b", 1), p);
	expect_recorded(f, p);
	/* It waits for its worker's word; what the handle says of all others is its word. */
	assert_false(parks_expire(f->ps, 100, 9));
	expect_unchanged(f);
	assert_int_equal(parks_hand(f->ps, p, f->h[2], 0), -ENOENT);
	parks_state_no_other(f->ps, f->h[1], f->now);
	expect_back(f, p);
	assert_true(p->serial == 3002);
	assert_int_equal(parks_hand(f->ps, p, f->h[1], 0), -EDQUOT);
	f->quota[0].limit[QUOTA_PARKS] = f->quota[0].limit[QUOTA_NOTE_BYTES] = 9;
	assert_int_equal(parks_park(f->ps, f->h[0], &new, 0, &next), 0);
	assert_true(next->number == 2002 && next->serial == 3003);
}

static void restored_ones_in_other_states(void **state)
{
	struct fixture *f = *state;
	struct park_restore r = a_record(1);
	struct park *p = NULL;

	r.answered = false;
	assert_int_equal(parks_restore(f->ps, f->o[0], &r, &p), 0);
	assert_int_equal(parks_hand(f->ps, p, f->h[1], 0), -EBUSY);
	expect_recorded(f, p);
	parks_died(f->ps, p->maker, 0);
	assert_true(p->answered);
	expect_recorded(f, p);
	r = a_record(5);
	memset(r.maker, 0, sizeof(r.maker));
	r.timed_out = true;
	r.new.flags = PARK_DEADLINE_HAND;
	assert_int_equal(parks_restore(f->ps, f->o[0], &r, &p), 0);
	assert_true(p->timed_out && !p->maker);
	assert_int_equal(parks_stats(f->ps)->ready, 1);
	expect_recorded(f, p);
}

static void expect_contradiction(struct fixture *f, const struct park_restore *r)
{
	struct park *p = NULL;

	assert_int_equal(parks_restore(f->ps, f->o[0], r, &p), -EINVAL);
	assert_null(p);
	assert_int_equal(f->o[0]->n_handles, HANDLES);
	expect_unchanged(f);
}

static void contradictions_are_refused(void **state)
{
	struct fixture *f = *state;
	struct park_restore r = a_record(0);

	expect_contradiction(f, &r);
	r = a_record(1);
	r.new.interest = 9;
	expect_contradiction(f, &r);
	r = a_record(1);
	r.number = 0;
	expect_contradiction(f, &r);
	r.number = UINT64_C(1) << 63;
	expect_contradiction(f, &r);
	r = a_record(1);
	r.serial = 0;
	expect_contradiction(f, &r);
	r.serial = UINT64_MAX;
	expect_contradiction(f, &r);
	r = a_record(1);
	r.handed = true; /* to nobody */
	expect_contradiction(f, &r);
	make_handed(&r);
	r.answered = false;
	expect_contradiction(f, &r);
	r.handed = false; /* but there is a worker */
	r.answered = true;
	expect_contradiction(f, &r);
	r = a_record(1);
	r.answered = false; /* and nobody could ever claim it */
	memset(r.maker, 0, sizeof(r.maker));
	expect_contradiction(f, &r);
	r = a_record(1);
	r.timed_out = true; /* without the flag */
	expect_contradiction(f, &r);
	r.new.flags = PARK_DEADLINE_HAND;
	r.answered = false;
	expect_contradiction(f, &r);
	r.answered = true;
	r.new.deadline = 5; /* is to come */
	expect_contradiction(f, &r);
}

static void expect_collision(struct fixture *f, struct park_owner *o, const struct park_restore *r,
			     const struct park *with)
{
	struct park *p = NULL;

	assert_int_equal(parks_restore(f->ps, o, r, &p), -EEXIST);
	assert_ptr_equal(p, with);
	expect_unchanged(f);
}

static void collisions_name_the_other(void **state)
{
	struct fixture *f = *state;
	struct park_restore r = a_record(1), other = a_record(2);
	struct park *p = NULL;

	set_texts(f, &r.new, "a", "b", 0);
	other.new.text = r.new.text;
	assert_int_equal(parks_restore(f->ps, f->o[0], &r, &p), 0);
	expect_recorded(f, p);
	expect_collision(f, f->o[0], &r, p);
	expect_collision(f, f->o[1], &r, p);     /* token */
	expect_collision(f, f->o[0], &other, p); /* name */
	other.new.text = (struct park_text){0};
	other.number = r.number;
	expect_collision(f, f->o[0], &other, p);
	expect_collision(f, f->o[1], &other, p);
	/* A newer record of the same: the caller ends the old one first. */
	assert_int_equal(parks_drop(f->ps, p), 0);
	assert_int_equal(parks_restore(f->ps, f->o[1], &r, &p), 0);
	assert_ptr_equal(p->owner, f->o[1]);
}

/* ---- Without memory ---- */

typedef int (*make_function)(struct fixture *f, unsigned n);

static int make_park(struct fixture *f, unsigned n)
{
	char name[16];
	struct park_new new = new_park(n);
	struct park *p = NULL;
	int r;

	set_texts(f, &new, "name", n % 2 ? "odd" : "even", 7);
	snprintf(name, sizeof(name), "%04u", n);
	memcpy(f->bytes, name, 4);
	new.deadline = 9;
	r = parks_park(f->ps, f->h[0], &new, 0, &p);
	assert_int_equal(p == NULL, r < 0);
	return r;
}

static int make_restored(struct fixture *f, unsigned n)
{
	struct park_restore r = a_record(n);
	struct park *p = NULL;
	int result;

	set_texts(f, &r.new, "", "group", 3);
	r.handed = true;
	memcpy(r.maker, id_of(1000 + n), sizeof(r.maker));
	memcpy(r.worker, id_of(2000 + n), sizeof(r.worker));
	result = parks_restore(f->ps, f->o[0], &r, &p);
	assert_int_equal(p == NULL, result < 0);
	return result;
}

static int make_handle(struct fixture *f, unsigned n)
{
	struct park_handle *h = NULL;
	int r = parks_get_handle(f->ps, f->o[0], id_of(n), &h);

	assert_int_equal(h == NULL, r < 0);
	return r < 0 ? r : 0;
}

static int make_owner(struct fixture *f, unsigned n)
{
	static struct quota q;
	struct park_owner *o = NULL;
	int r = parks_add_owner(f->ps, n, &q, &o);

	assert_int_equal(o == NULL, r < 0);
	return r;
}

/* Makes many; each first with no allocation granted, then with one, two, ... until it succeeds.
 * Returns how many tries failed. */
static unsigned starve(struct fixture *f, make_function make, unsigned many)
{
	unsigned failed = 0;

	for (unsigned n = 1; n <= many; n++) {
		for (int grant = 0;; grant++) {
			struct parks_stats before = *parks_stats(f->ps);
			struct park_owner owner = *f->o[0];
			struct quota quota = f->quota[0];
			int r;

			left = grant;
			r = make(f, n);
			left = -1;
			if (r == 0)
				break;
			assert_int_equal(r, -ENOMEM);
			assert_true(grant < 20);
			assert_memory_equal(&before, parks_stats(f->ps), sizeof(before));
			assert_memory_equal(&quota, &f->quota[0], sizeof(quota));
			assert_memory_equal(&owner, f->o[0], sizeof(owner));
			failed++;
		}
		if (n % 16 == 0)
			parks_check(f->ps);
	}
	parks_check(f->ps);
	return failed;
}

static void everything_without_memory(void **state)
{
	struct fixture *f = *state;

	assert_true(starve(f, make_park, 50) >= 50);
	assert_int_equal(f->quota[0].used[QUOTA_PARKS], 50);
	fixture_teardown(state);
	fixture_open(f);
	assert_true(starve(f, make_restored, 50) >= 50 * 5);
	assert_int_equal(f->o[0]->n_handles, HANDLES + 100);
	fixture_teardown(state);
	fixture_open(f);
	assert_true(starve(f, make_handle, 20) == 20 * 2);
	assert_true(starve(f, make_owner, 20) == 20 * 2);
}

/* Whatever happens to a park needs no memory. */
static void events_need_no_memory(void **state)
{
	struct fixture *f = *state;
	struct park *p, *q;

	assert_int_equal(make_park(f, 1), 0);
	assert_int_equal(make_park(f, 2), 0);
	p = parks_take_changed(f->ps);
	q = parks_take_changed(f->ps);
	left = 0;
	(void)parks_expire(f->ps, 5, 10);
	parks_ready(f->ps, p, CORE_READ, f->now);
	parks_answered(f->ps, p);
	parks_died(f->ps, f->h[0], 1);
	assert_int_equal(parks_hand(f->ps, p, f->h[1], 2), 0);
	(void)parks_expire(f->ps, 10, 10);
	parks_attach(f->ps, f->h[1], true);
	parks_state_no_other(f->ps, f->h[1], 3);
	assert_int_equal(parks_hand(f->ps, p, f->h[1], 2), 0);
	assert_int_equal(parks_acknowledge(f->ps, f->h[1], p->token), 0);
	while (parks_take_changed(f->ps))
		;
	parks_end(f->ps, p);
	parks_end(f->ps, q);
	left = -1;
	assert_int_equal(parks_stats(f->ps)->parks, 0);
}

static void parks_without_memory(void **state)
{
	struct parks *ps = NULL;

	(void)state;
	left = 0;
	assert_int_equal(parks_new(1, &(struct hash_key){{1}}, &ps), -ENOMEM);
	left = -1;
	assert_null(ps);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(owners_come_and_go),
		TEST(handles_are_idle_or_named),
		cmocka_unit_test(freeing_nothing_is_fine),
		TEST(many_parks_and_freed_places),
		TEST(a_restored_park_is_as_it_was),
		TEST(restored_ones_in_other_states),
		TEST(contradictions_are_refused),
		TEST(collisions_name_the_other),
		TEST(everything_without_memory),
		TEST(events_need_no_memory),
		cmocka_unit_test(parks_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
