/* SPDX-License-Identifier: MIT */

/* Groups of parks: who is next, what bounds it, and what ends with whom. */

#include "park_fixture.h"

#include <stdlib.h>

#include "daemon/core/pair_heap.h"
#include "daemon/core/park_group.h"

static struct park_group_name own(const struct fixture *f)
{
	return (struct park_group_name){.owner = f->o[0], .bytes = "web", .length = 3};
}

static const struct park_group_name shared = {.bytes = "web", .length = 3};

/* In the group, held and answered; its changes are taken. */
static struct park *parked(struct fixture *f, unsigned token, bool is_shared)
{
	struct park_new new = new_park(token);
	struct park *p;

	set_texts(f, &new, "", "web", 0);
	new.shared = is_shared;
	p = park_as(f, &new);
	parks_answered(f->ps, p);
	expect_recorded(f, p);
	return p;
}

static struct park *ready(struct fixture *f, unsigned token, bool is_shared)
{
	struct park *p = parked(f, token, is_shared);

	parks_ready(f->ps, p, CORE_READ, f->now++);
	expect_changed(f, p);
	return p;
}

static void offer(struct fixture *f, struct park_handle *h, uint32_t more, uint32_t capacity)
{
	const struct park_group_name name = own(f);

	assert_int_equal(parks_offer(f->ps, h, &name, more, capacity), 0);
}

static void offer_shared(struct fixture *f, struct park_handle *h, uint32_t more, uint32_t capacity)
{
	assert_int_equal(parks_offer(f->ps, h, &shared, more, capacity), 0);
}

static void expect_match(struct fixture *f, struct park *p, const struct park_handle *h)
{
	struct park_match m = {0};

	assert_true(parks_next_match(f->ps, &m));
	assert_ptr_equal(m.park, p);
	assert_ptr_equal(m.worker->handle, h);
	parks_hand_match(f->ps, &m, f->now);
	assert_int_equal(p->state, PARK_HANDED);
	assert_ptr_equal(p->worker, h);
	expect_recorded(f, p);
}

static void expect_no_match(struct fixture *f)
{
	struct park_match m;

	assert_false(parks_next_match(f->ps, &m));
	parks_check(f->ps);
}

static void oldest_first_to_the_least_loaded(void **state)
{
	struct fixture *f = *state;
	struct park *a = ready(f, 1, false), *b = ready(f, 2, false), *c = ready(f, 3, false);
	const struct park_group_name name = own(f);
	struct park_group *g = parks_find_group(f->ps, &name);

	assert_int_equal(park_group_oldest(g), a->ready_since);
	expect_no_match(f);
	offer(f, f->h[0], 2, 3); /* load 1 */
	offer(f, f->h[1], 1, 1);
	offer(f, f->h[2], 1, 1);
	assert_int_equal(g->credit, 4);
	assert_int_equal(g->capacity, 5);
	expect_match(f, a, f->h[1]);
	expect_match(f, b, f->h[2]);
	expect_match(f, c, f->h[0]);
	assert_int_equal(park_group_oldest(g), 0);
	assert_int_equal(g->credit, 1);
	assert_int_equal(g->n_handed, 3);
	expect_no_match(f);
}

static void what_comes_back_keeps_its_place(void **state)
{
	struct fixture *f = *state;
	struct park *a = ready(f, 1, false), *b = ready(f, 2, false);

	offer(f, f->h[1], 1, 1);
	expect_match(f, a, f->h[1]);
	f->now = 1000;
	parks_died(f->ps, f->h[1], f->now);
	expect_back(f, a);
	assert_null(parks_find_worker(f->h[1], "web", 3));
	offer(f, f->h[2], 2, 2);
	expect_match(f, a, f->h[2]);
	expect_match(f, b, f->h[2]);
}

/* Only its own word raises its credit. */
static void credit_is_used_up(void **state)
{
	struct fixture *f = *state;
	struct park *a = ready(f, 1, false);

	offer(f, f->h[1], 1, 2);
	expect_match(f, a, f->h[1]);
	end_by_word(f, a);
	expect_back(f, a);
	expect_no_match(f);
	offer(f, f->h[1], 0, 1);
	expect_no_match(f);
	offer(f, f->h[1], 1, 1);
	expect_match(f, a, f->h[1]);
}

/* The one that has waited longest: since it was free again, or handed something. */
static void equals_take_turns(void **state)
{
	struct fixture *f = *state;

	offer(f, f->h[0], 1, 1);
	offer(f, f->h[1], 1, 1);
	offer(f, f->h[2], 1, 1);
	expect_match(f, ready(f, 1, false), f->h[0]);
	expect_match(f, ready(f, 2, false), f->h[1]);
	offer(f, f->h[1], 1, 1);
	offer(f, f->h[0], 1, 1);
	expect_match(f, ready(f, 3, false), f->h[2]);
	expect_match(f, ready(f, 4, false), f->h[1]);
	expect_match(f, ready(f, 5, false), f->h[0]);
}

/* However often it is asked who is next. */
static void groups_take_turns(void **state)
{
	struct fixture *f = *state;
	struct park *ours = ready(f, 1, false), *all = ready(f, 2, true);
	struct park_match m;

	offer(f, f->h[0], 2, 2);
	offer_shared(f, f->h[1], 2, 2);
	assert_true(parks_next_match(f->ps, &m));
	assert_ptr_equal(m.park, ours);
	expect_match(f, ours, f->h[0]);
	ours = ready(f, 3, false);
	assert_true(parks_next_match(f->ps, &m));
	assert_true(parks_next_match(f->ps, &m));
	expect_match(f, all, f->h[1]);
	expect_match(f, ours, f->h[0]);
	expect_no_match(f);
}

static void more_than_one_of_a_group_take_turns(void **state)
{
	struct fixture *f = *state;
	struct park *ours[] = {ready(f, 1, false), ready(f, 2, false)};
	struct park *all[] = {ready(f, 3, true), ready(f, 4, true)};

	offer(f, f->h[0], 2, 2);
	offer_shared(f, f->h[1], 2, 2);
	for (unsigned i = 0; i < 2; i++) {
		expect_match(f, ours[i], f->h[0]);
		expect_match(f, all[i], f->h[1]);
	}
}

static void so_many_are_unsettled_at_most(void **state)
{
	struct fixture *f = *state;
	struct park *parks[PARK_UNSETTLED_MAX + 2];

	offer(f, f->h[1], 100, 100);
	for (unsigned i = 0; i < PARK_UNSETTLED_MAX + 2; i++)
		parks[i] = ready(f, 1 + i, false);
	for (unsigned i = 0; i < PARK_UNSETTLED_MAX; i++)
		expect_match(f, parks[i], f->h[1]);
	expect_no_match(f);
	assert_int_equal(parks_acknowledge(f->ps, f->h[1], parks[3]->token), 0);
	expect_gone(f, parks[3], PARK_END_TAKEN);
	expect_match(f, parks[PARK_UNSETTLED_MAX], f->h[1]);
	expect_no_match(f);
	offer(f, f->h[2], 1, 1);
	expect_match(f, parks[PARK_UNSETTLED_MAX + 1], f->h[2]);
}

/* The quota is the worker's user's; another user's workers go on. */
static void a_user_without_quota_waits(void **state)
{
	struct fixture *f = *state;
	struct park *a = ready(f, 1, true), *b = ready(f, 2, true), *c = ready(f, 3, true);

	f->quota[1].limit[QUOTA_FDS_UNREAD] = 1;
	offer_shared(f, f->stranger, 5, 5);
	expect_match(f, a, f->stranger);
	assert_int_equal(f->quota[0].used[QUOTA_FDS_UNREAD], 0);
	assert_int_equal(f->quota[1].used[QUOTA_FDS_UNREAD], 1);
	expect_no_match(f);
	offer_shared(f, f->h[1], 1, 5);
	expect_match(f, b, f->h[1]);
	expect_no_match(f);
	f->quota[1].limit[QUOTA_FDS_UNREAD] = 2;
	expect_match(f, c, f->stranger);
	assert_int_equal(parks_acknowledge(f->ps, f->h[1], a->token), -ENOENT);
	assert_int_equal(parks_acknowledge(f->ps, f->stranger, a->token), 0);
	expect_gone(f, a, PARK_END_TAKEN);
	assert_int_equal(f->quota[1].used[QUOTA_FDS_UNREAD], 1);
}

static void an_offer_that_is_refused(void **state)
{
	struct fixture *f = *state;
	const struct park_group_name name = own(f), none = {.owner = f->o[0], .bytes = ""};
	char text[2] = "a";

	assert_int_equal(parks_offer(f->ps, f->h[0], &none, 1, 1), -EINVAL);
	assert_int_equal(parks_offer(f->ps, f->h[0], &name, 1, 0), -EINVAL);
	assert_int_equal(parks_offer(f->ps, f->h[0], &name, 1, PARK_CAPACITY_MAX + 1), -EINVAL);
	assert_int_equal(parks_offer(f->ps, f->h[0], &name, 3, 2), -EINVAL);
	assert_null(parks_next_group(f->ps, NULL));
	offer(f, f->h[0], 2, 2);
	assert_int_equal(parks_offer(f->ps, f->h[0], &name, 1, 2), -EINVAL);
	assert_int_equal(parks_offer(f->ps, f->h[0], &name, 0, 1), -EINVAL);
	assert_int_equal(parks_offer(f->ps, f->h[0], &name, UINT32_MAX, 5), -EINVAL);
	offer(f, f->h[0], 3, 5);
	for (unsigned i = 1; i < PARK_WORKERS_MAX; i++) {
		const struct park_group_name other = {.owner = f->o[0], .bytes = text, .length = 1};

		text[0] = (char)('0' + i);
		assert_int_equal(parks_offer(f->ps, f->h[0], &other, 1, 1), 0);
	}
	text[0] = '0';
	assert_int_equal(
		parks_offer(f->ps, f->h[0],
			    &(struct park_group_name){.owner = f->o[0], .bytes = text, .length = 1},
			    1, 1),
		-ENOSPC);
	parks_check(f->ps);
	parks_attach(f->ps, f->h[0], true); /* a newer connection begins with none */
	assert_null(parks_next_group(f->ps, NULL));
}

static void two_worlds_of_one_name(void **state)
{
	struct fixture *f = *state;
	struct park *a = ready(f, 1, true), *b = ready(f, 2, false);
	const struct park_group_name name = own(f);
	struct park_worker *w;

	offer_shared(f, f->stranger, 3, 3);
	expect_match(f, a, f->stranger);
	expect_no_match(f);
	assert_int_equal(parks_set_shared(f->ps, b, true), 0);
	expect_recorded(f, b);
	assert_null(parks_find_group(f->ps, &name));
	expect_match(f, b, f->stranger);
	offer(f, f->h[1], 1, 1);
	w = parks_find_worker(f->h[1], "web", 3);
	assert_int_equal(parks_move_worker(f->ps, w, &shared), 0);
	assert_null(parks_find_group(f->ps, &name));
	parks_check(f->ps);
	parks_end_worker(f->ps, w);
	end_by_word(f, a);
	assert_int_equal(a->state, PARK_HELD);
	expect_recorded(f, a);
	expect_match(f, a, f->stranger);
}

static void unready_and_unanswered_are_not_due(void **state)
{
	struct fixture *f = *state;
	struct park_new new = new_park(1);
	struct park *p;

	offer(f, f->h[1], 5, 5);
	set_texts(f, &new, "", "web", 0);
	new.deadline = 500;
	new.flags = PARK_DEADLINE_HAND;
	p = park_as(f, &new);
	parks_ready(f->ps, p, CORE_READ, f->now);
	expect_changed(f, p);
	expect_no_match(f);
	parks_answered(f->ps, p);
	expect_recorded(f, p);
	expect_match(f, p, f->h[1]);
	p = parked(f, 2, false);
	expect_no_match(f);
	memcpy(new.token, id_of(3), sizeof(new.token));
	p = park_as(f, &new);
	parks_answered(f->ps, p);
	expect_recorded(f, p);
	assert_false(parks_expire(f->ps, 500, 10));
	assert_true(p->timed_out);
	expect_recorded(f, p);
	expect_match(f, p, f->h[1]);
}

/* Another user's hand-out is his in the next loop, too. */
static void restored(void **state)
{
	struct fixture *f = *state;
	struct park_restore r = {.new = new_park(1),
				 .number = 1,
				 .serial = 1,
				 .handed = true,
				 .answered = true,
				 .now = 77,
				 .worker_owner = f->o[1]};
	struct park *p, *q;

	set_texts(f, &r.new, "", "web", 0);
	r.new.shared = true;
	memcpy(r.maker, f->h[0]->id, sizeof(r.maker));
	memcpy(r.worker, f->stranger->id, sizeof(r.worker));
	assert_int_equal(parks_restore(f->ps, f->o[0], &r, &p), 0);
	expect_changed(f, p);
	assert_ptr_equal(p->worker, f->stranger);
	assert_int_equal(f->quota[1].used[QUOTA_FDS_UNREAD], 1);
	q = ready(f, 2, true);
	parks_disconnected(f->ps, f->stranger, f->now);
	expect_recorded(f, p);
	offer_shared(f, f->h[1], 2, 2);
	expect_match(f, p, f->h[1]); /* it was handed when the other became ready */
	expect_match(f, q, f->h[1]);
}

/* ---- The heap ---- */

enum { NODES = 300 };

static void heap_keeps_its_order(void **state)
{
	const char *text = getenv("READYD_SEED");
	unsigned seed = text ? (unsigned)strtoul(text, NULL, 0) : 1;
	struct pair_node nodes[NODES] = {0};
	struct pair_heap h = {0};
	uint64_t key = seed;

	(void)state;
	print_message("READYD_SEED=%u\n", seed);
	for (unsigned i = 0; i < 100000; i++) {
		struct pair_node *n, *first = NULL;

		key = key * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		n = &nodes[(key >> 33) % NODES];
		if (n->in)
			pair_heap_remove(&h, n);
		else
			pair_heap_add(&h, n, (key >> 40) % 7, i);
		if (i % 50)
			continue;
		for (unsigned k = 0; k < NODES; k++)
			if (nodes[k].in &&
			    (!first || nodes[k].major < first->major ||
			     (nodes[k].major == first->major && nodes[k].minor < first->minor)))
				first = &nodes[k];
		assert_ptr_equal(h.root, first);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(oldest_first_to_the_least_loaded),
		TEST(what_comes_back_keeps_its_place),
		TEST(credit_is_used_up),
		TEST(equals_take_turns),
		TEST(groups_take_turns),
		TEST(more_than_one_of_a_group_take_turns),
		TEST(so_many_are_unsettled_at_most),
		TEST(a_user_without_quota_waits),
		TEST(an_offer_that_is_refused),
		TEST(two_worlds_of_one_name),
		TEST(unready_and_unanswered_are_not_due),
		TEST(restored),
		cmocka_unit_test(heap_keeps_its_order),
	};

	return cmocka_run_group_tests_name("park_group", tests, NULL, NULL);
}
