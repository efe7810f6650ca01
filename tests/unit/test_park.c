/* SPDX-License-Identifier: MIT */

/* Parks: every transition by a request or a death, every refusal, and what is charged. */

#include "park_fixture.h"

/* ---- PARK ---- */

static void a_park_is_as_it_was_asked_for(void **state)
{
	struct fixture *f = *state;
	struct park_new new = new_park(1);
	uint64_t cursor = 0;
	struct park *p;

	new.deadline = 70;
	new.flags = PARK_DURABLE | PARK_DEADLINE_HAND;
	set_texts(f, &new, "conn", "web", 5);
	p = park_as(f, &new);
	assert_int_equal(p->state, PARK_HELD);
	assert_false(p->answered || p->timed_out || p->changed || p->ready);
	assert_memory_equal(p->token, new.token, sizeof(new.token));
	assert_true(p->number == FIRST && p->serial == FIRST);
	assert_true(p->cookie == 7 && p->told_fd == 9 && p->kind == 3 && p->interest == CORE_READ);
	assert_true(p->deadline == 70 && p->parked == 50 && p->since == 50);
	assert_int_equal(p->flags, new.flags);
	assert_int_equal(p->fd, -1);
	assert_ptr_equal(p->maker, f->h[0]);
	assert_ptr_equal(p->owner, f->o[0]);
	assert_null(p->worker);
	assert_ptr_not_equal(p->text.bytes, f->bytes);
	memset(f->bytes, 0, sizeof(f->bytes));
	assert_memory_equal(p->text.bytes, "connwebnnnnn", 12);
	assert_int_equal(f->quota[0].used[QUOTA_PARKS], 1);
	assert_int_equal(f->quota[0].used[QUOTA_NOTE_BYTES], 5);
	assert_int_equal(f->o[0]->n_parks, 1);
	assert_int_equal(parks_stats(f->ps)->parks, 1);
	assert_ptr_equal(parks_find_token(f->ps, f->o[0], new.token), p);
	assert_ptr_equal(parks_find_number(f->ps, f->o[0], FIRST), p);
	assert_ptr_equal(parks_find_name(f->ps, f->o[0], "conn", 4, "web", 3), p);
	assert_ptr_equal(parks_next(f->ps, NULL, &cursor), p);
	assert_null(parks_next(f->ps, NULL, &cursor));
}

static void another_owner_finds_nothing(void **state)
{
	struct fixture *f = *state;
	struct park_new new = new_park(1);
	struct park *p, *other = NULL;
	uint64_t cursor = 0;

	set_texts(f, &new, "a", "b", 0);
	p = park_as(f, &new);
	assert_null(parks_find_token(f->ps, f->o[1], new.token));
	assert_null(parks_find_number(f->ps, f->o[1], p->number));
	assert_null(parks_find_name(f->ps, f->o[1], "a", 1, "b", 1));
	assert_null(parks_next(f->ps, f->o[1], &cursor));
	assert_int_equal(parks_claim(f->ps, f->stranger, new.token, &other), -ENOENT);
	assert_int_equal(parks_park(f->ps, f->stranger, &new, 0, &other), -EEXIST);
	parks_answered(f->ps, p);
	expect_recorded(f, p);
	assert_int_equal(parks_hand(f->ps, p, f->h[1], f->now), 0);
	expect_recorded(f, p);
	assert_int_equal(parks_acknowledge(f->ps, f->stranger, new.token), -ENOENT);
	assert_int_equal(parks_state_held(f->ps, f->stranger, new.token, false, 0), -ENOENT);
	expect_unchanged(f);
	/* The same name is another owner's own. */
	memcpy(new.token, id_of(2), sizeof(new.token));
	assert_int_equal(parks_park(f->ps, f->stranger, &new, 0, &other), 0);
	assert_ptr_equal(parks_find_name(f->ps, f->o[1], "a", 1, "b", 1), other);
	expect_recorded(f, other);
}

static void bad_requests_are_refused(void **state)
{
	struct fixture *f = *state;
	struct park_new new = new_park(0);

	assert_int_equal(park_result(f, &new), -EINVAL);
	new = new_park(1);
	new.flags = 0x4;
	assert_int_equal(park_result(f, &new), -EINVAL);
	new = new_park(1);
	new.interest = 4;
	assert_int_equal(park_result(f, &new), -EINVAL);
	new.interest = 0;
	assert_int_equal(park_result(f, &new), -EINVAL);
	new = new_park(1);
	new.text = (struct park_text){.note_length = 2049, .bytes = f->bytes};
	assert_int_equal(park_result(f, &new), -EINVAL);
	new.text = (struct park_text){.local_length = 129, .bytes = f->bytes};
	assert_int_equal(park_result(f, &new), -EINVAL);
	new.text = (struct park_text){.peer_length = 129, .bytes = f->bytes};
	assert_int_equal(park_result(f, &new), -EINVAL);
	expect_unchanged(f);
	assert_int_equal(f->quota[0].used[QUOTA_PARKS], 0);
	new.text = (struct park_text){2048, 255, 255, 128, 128, f->bytes};
	new.interest = 0;
	new.flags = PARK_HOLD_ONLY;
	assert_int_equal(park_result(f, &new), 0);
}

static void a_repeat_changes_nothing_but_the_maker(void **state)
{
	struct fixture *f = *state;
	struct park_new new = new_park(1);
	struct park *p = park_as(f, &new), *again = NULL;
	uint64_t serial = p->serial;

	new.cookie = 99;
	new.deadline = 3;
	f->quota[0].limit[QUOTA_PARKS] = 0;
	assert_int_equal(parks_park(f->ps, f->h[0], &new, 99, &again), 1);
	assert_ptr_equal(again, p);
	expect_unchanged(f);
	assert_true(p->serial == serial && p->cookie == 7 && p->deadline == 0);
	assert_int_equal(parks_park(f->ps, f->h[2], &new, 99, &again), 1);
	assert_ptr_equal(p->maker, f->h[2]);
	assert_false(p->answered);
	assert_int_equal(f->h[0]->references, 0);
	assert_int_equal(f->h[2]->references, 1);
	expect_recorded(f, p);
	assert_int_equal(f->quota[0].used[QUOTA_PARKS], 1);
}

static void names_are_one_parks(void **state)
{
	struct fixture *f = *state;
	struct park_new new = new_park(1);
	struct park *p;

	set_texts(f, &new, "ab", "c", 0);
	p = park_as(f, &new);
	memcpy(new.token, id_of(2), sizeof(new.token));
	assert_int_equal(park_result(f, &new), -EEXIST);
	assert_null(parks_find_token(f->ps, f->o[0], id_of(2)));
	/* The same bytes, divided otherwise. */
	set_texts(f, &new, "a", "bc", 0);
	assert_int_equal(park_result(f, &new), 0);
	set_texts(f, &new, "", "abc", 0);
	memcpy(new.token, id_of(3), sizeof(new.token));
	assert_int_equal(park_result(f, &new), 0);
	memcpy(new.token, id_of(4), sizeof(new.token));
	assert_int_equal(park_result(f, &new), 0);
	while (parks_take_changed(f->ps))
		;
	assert_ptr_equal(parks_find_name(f->ps, f->o[0], "ab", 2, "c", 1), p);
	assert_ptr_not_equal(parks_find_name(f->ps, f->o[0], "a", 1, "bc", 2), NULL);
	assert_null(parks_find_name(f->ps, f->o[0], NULL, 0, "abc", 3));
	assert_null(parks_find_name(f->ps, f->o[0], "ab", 2, NULL, 0));
	assert_null(parks_find_name(f->ps, f->o[0], f->bytes, 256, NULL, 0));
	assert_null(parks_find_name(f->ps, f->o[0], "ab", 2, f->bytes, 256));
}

/* What is gone occupies nothing, also before it is freed. */
static void token_and_name_are_free_when_gone(void **state)
{
	struct fixture *f = *state;
	struct park_new new = new_park(1);
	struct park *p, *next = NULL;
	uint64_t cursor = 0;

	set_texts(f, &new, "ab", "c", 4);
	p = park_as(f, &new);
	parks_answered(f->ps, p);
	assert_int_equal(parks_drop(f->ps, p), 0);
	assert_null(parks_find_name(f->ps, f->o[0], "ab", 2, "c", 1));
	assert_int_equal(f->quota[0].used[QUOTA_PARKS], 0);
	assert_int_equal(f->quota[0].used[QUOTA_NOTE_BYTES], 0);
	assert_int_equal(parks_park(f->ps, f->h[0], &new, 0, &next), 0);
	assert_ptr_not_equal(next, p);
	assert_true(next->number > p->number && next->serial > p->serial);
	assert_ptr_equal(parks_find_token(f->ps, f->o[0], new.token), next);
	assert_int_equal(f->o[0]->n_parks, 2);
	assert_ptr_equal(parks_next(f->ps, f->o[0], &cursor), p);
	assert_ptr_equal(parks_next(f->ps, f->o[0], &cursor), next);
	/* Oldest change first. */
	assert_ptr_equal(parks_take_changed(f->ps), p);
	assert_ptr_equal(parks_take_changed(f->ps), next);
	parks_ready(f->ps, p, CORE_READ, f->now);
	parks_answered(f->ps, p);
	assert_int_equal(parks_drop(f->ps, p), -ENOENT);
	assert_int_equal(parks_hand(f->ps, p, f->h[1], 0), -ENOENT);
	expect_unchanged(f);
	parks_end(f->ps, p);
	assert_int_equal(f->o[0]->n_parks, 1);
	assert_ptr_equal(parks_find_name(f->ps, f->o[0], "ab", 2, "c", 1), next);
}

static void quotas_refuse_what_is_new(void **state)
{
	struct fixture *f = *state;
	struct park_new new = new_park(1);
	struct park *a, *b;

	f->quota[0].limit[QUOTA_PARKS] = 2;
	f->quota[0].limit[QUOTA_NOTE_BYTES] = 10;
	f->quota[0].limit[QUOTA_FDS_UNREAD] = 1;
	set_texts(f, &new, "", "", 6);
	a = park_as(f, &new);
	memcpy(new.token, id_of(2), sizeof(new.token));
	assert_int_equal(park_result(f, &new), -ENOSPC);
	set_texts(f, &new, "", "", 4);
	b = park_as(f, &new);
	memcpy(new.token, id_of(3), sizeof(new.token));
	assert_int_equal(park_result(f, &new), -EDQUOT);
	expect_unchanged(f);
	parks_answered(f->ps, a);
	parks_answered(f->ps, b);
	assert_int_equal(parks_hand(f->ps, a, f->h[1], 0), 0);
	assert_int_equal(parks_hand(f->ps, b, f->h[1], 0), -EDQUOT);
	assert_int_equal(b->state, PARK_HELD);
	parks_take_back(f->ps, a, 0);
	assert_int_equal(parks_hand(f->ps, b, f->h[1], 0), 0);
	assert_int_equal(parks_hand(f->ps, a, f->h[1], 0), -EDQUOT);
	assert_int_equal(parks_acknowledge(f->ps, f->h[1], b->token), 0);
	assert_int_equal(f->quota[0].used[QUOTA_PARKS], 1);
	assert_int_equal(f->quota[0].used[QUOTA_NOTE_BYTES], 6);
	assert_int_equal(f->quota[0].used[QUOTA_FDS_UNREAD], 0);
	assert_int_equal(f->quota[1].used[QUOTA_PARKS], 0);
}

/* ---- Unanswered ---- */

static void unanswered_nothing_happens_to_it(void **state)
{
	struct fixture *f = *state;
	struct park *p = park_unanswered(f, 1);

	assert_int_equal(parks_hand(f->ps, p, f->h[1], 0), -EBUSY);
	assert_int_equal(parks_drop(f->ps, p), -EBUSY);
	assert_int_equal(parks_acknowledge(f->ps, f->h[0], p->token), -ENOENT);
	assert_int_equal(parks_state_held(f->ps, f->h[0], p->token, false, 0), -ENOENT);
	parks_disconnected(f->ps, f->h[0], 0);
	parks_died(f->ps, f->h[1], 0);
	expect_unchanged(f);
	parks_answered(f->ps, p);
	assert_true(p->answered);
	expect_recorded(f, p);
	parks_answered(f->ps, p);
	expect_unchanged(f);
	assert_int_equal(parks_drop(f->ps, p), 0);
	assert_int_equal(parks_stats(f->ps)->dropped, 1);
	expect_gone(f, p, PARK_END_DROPPED);
}

static void a_claim_answers(void **state)
{
	struct fixture *f = *state;
	struct park *p = park_unanswered(f, 1), *claimed = NULL;

	assert_int_equal(parks_claim(f->ps, f->h[2], p->token, &claimed), 0);
	assert_ptr_equal(claimed, p);
	assert_true(p->answered);
	assert_ptr_equal(p->maker, f->h[2]);
	expect_recorded(f, p);
	assert_int_equal(parks_claim(f->ps, f->h[2], p->token, &claimed), 0);
	expect_unchanged(f);
	/* Of a handed one: only the maker. */
	assert_int_equal(parks_hand(f->ps, p, f->h[1], 0), 0);
	expect_recorded(f, p);
	assert_int_equal(parks_claim(f->ps, f->h[1], p->token, &claimed), 0);
	assert_ptr_equal(p->worker, f->h[1]);
	assert_ptr_equal(p->maker, f->h[1]);
	assert_int_equal(f->h[1]->references, 2);
	assert_int_equal(f->h[1]->n_handed, 1);
	expect_recorded(f, p);
	assert_int_equal(parks_acknowledge(f->ps, f->h[1], p->token), 0);
	assert_int_equal(parks_claim(f->ps, f->h[2], p->token, &claimed), -ENOENT);
	expect_gone(f, p, PARK_END_TAKEN);
}

static void a_makers_death_answers(void **state)
{
	struct fixture *f = *state;
	struct park *a = park_unanswered(f, 1), *b = park_held(f, 2);

	parks_died(f->ps, f->h[0], f->now);
	assert_true(a->answered);
	assert_null(a->maker);
	expect_recorded(f, a);
	assert_ptr_equal(b->maker, f->h[0]);
	assert_int_equal(f->h[0]->references, 1);
	assert_int_equal(parks_drop(f->ps, a), 0);
	expect_gone(f, a, PARK_END_DROPPED);
}

/* What is too old ends as by a deadline, and no sooner than a request could end it. */
static void age_ends_it(void **state)
{
	struct fixture *f = *state;
	struct park *p = park_unanswered(f, 1);

	assert_int_equal(parks_end_age(f->ps, p), -EBUSY);
	expect_unchanged(f);
	parks_answered(f->ps, p);
	assert_int_equal(parks_hand(f->ps, p, f->h[1], 0), 0);
	expect_recorded(f, p);
	assert_int_equal(parks_end_age(f->ps, p), -ENOENT);
	expect_unchanged(f);
	parks_take_back(f->ps, p, 0);
	assert_int_equal(parks_end_age(f->ps, p), 0);
	assert_int_equal(parks_end_age(f->ps, p), -ENOENT);
	assert_int_equal(parks_stats(f->ps)->expired, 1);
	expect_gone(f, p, PARK_END_EXPIRED);
}

/* ---- Handed ---- */

static void a_worker_takes_it(void **state)
{
	struct fixture *f = *state;
	struct park *p = park_held(f, 1);
	uint8_t token[PARK_TOKEN_SIZE];

	f->now = 60;
	assert_int_equal(parks_hand(f->ps, p, f->h[1], f->now), 0);
	assert_int_equal(p->state, PARK_HANDED);
	assert_ptr_equal(p->worker, f->h[1]);
	assert_true(p->since == 60 && p->parked == 50);
	assert_int_equal(f->h[1]->n_handed, 1);
	assert_int_equal(f->h[1]->references, 1);
	assert_int_equal(f->quota[0].used[QUOTA_FDS_UNREAD], 1);
	assert_int_equal(parks_stats(f->ps)->handed, 1);
	expect_recorded(f, p);
	assert_int_equal(parks_hand(f->ps, p, f->h[1], 0), -ENOENT);
	assert_int_equal(parks_hand(f->ps, p, f->h[2], 0), -ENOENT);
	assert_int_equal(parks_drop(f->ps, p), -ENOENT);
	assert_int_equal(parks_acknowledge(f->ps, f->h[2], p->token), -ENOENT);
	assert_int_equal(parks_state_held(f->ps, f->h[2], p->token, true, 0), -ENOENT);
	parks_disconnected(f->ps, f->h[0], 0);
	parks_died(f->ps, f->h[2], 0);
	expect_unchanged(f);
	memcpy(token, p->token, sizeof(token));
	assert_int_equal(parks_acknowledge(f->ps, f->h[1], token), 0);
	assert_int_equal(f->h[1]->n_handed, 0);
	assert_int_equal(f->h[1]->references, 0);
	assert_int_equal(parks_stats(f->ps)->taken, 1);
	assert_int_equal(parks_stats(f->ps)->handed, 0);
	expect_gone(f, p, PARK_END_TAKEN);
	/* The repeat, whose first answer was lost. */
	assert_int_equal(parks_acknowledge(f->ps, f->h[1], token), 0);
	assert_int_equal(parks_state_held(f->ps, f->h[1], token, true, 0), 0);
	assert_int_equal(parks_state_held(f->ps, f->h[1], token, false, 0), 0);
	parks_state_no_other(f->ps, f->h[1], 0);
	expect_unchanged(f);
}

static void it_comes_back_ready(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < ENDINGS; i++) {
		struct park *p = park_handed(f, i + 1);

		f->now++;
		endings[i](f, p);
		expect_back(f, p);
		assert_int_equal(parks_stats(f->ps)->returned, i + 1);
		assert_int_equal(parks_stats(f->ps)->ready, i + 1);
		assert_int_equal(f->h[1]->n_handed, 0);
		assert_int_equal(f->h[1]->references, 0);
	}
}

/* Only what was handed to it, all of that, and the others' stay theirs. */
static void an_end_concerns_its_own(void **state)
{
	struct fixture *f = *state;
	struct park *a = park_handed(f, 1), *b = park_handed(f, 2), *c = park_held(f, 3);

	assert_int_equal(parks_hand(f->ps, c, f->h[2], 0), 0);
	expect_recorded(f, c);
	parks_disconnected(f->ps, f->h[1], f->now);
	assert_ptr_equal(parks_take_changed(f->ps), a);
	assert_ptr_equal(parks_take_changed(f->ps), b);
	expect_unchanged(f);
	assert_int_equal(c->state, PARK_HANDED);
}

/* What is under way on the new connection is none of the statement's. */
static void a_statement_is_about_earlier_connections(void **state)
{
	struct fixture *f = *state;
	struct park *a = park_handed(f, 1), *b = park_handed(f, 2), *c = park_handed(f, 3);

	parks_state_no_other(f->ps, f->h[1], f->now);
	expect_unchanged(f);
	parks_attach(f->ps, f->h[1], false);
	parks_attach(f->ps, f->h[1], true);
	assert_int_equal(parks_state_held(f->ps, f->h[1], a->token, false, f->now), 0);
	expect_back(f, a);
	assert_int_equal(parks_hand(f->ps, a, f->h[1], f->now), 0);
	expect_recorded(f, a);
	assert_int_equal(parks_state_held(f->ps, f->h[1], b->token, true, f->now), 0);
	expect_gone(f, b, PARK_END_TAKEN);
	parks_state_no_other(f->ps, f->h[1], f->now);
	assert_ptr_equal(a->worker, f->h[1]);
	expect_back(f, c);
	parks_state_no_other(f->ps, f->h[1], f->now);
	expect_unchanged(f);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_park_is_as_it_was_asked_for),
		TEST(another_owner_finds_nothing),
		TEST(bad_requests_are_refused),
		TEST(a_repeat_changes_nothing_but_the_maker),
		TEST(names_are_one_parks),
		TEST(token_and_name_are_free_when_gone),
		TEST(quotas_refuse_what_is_new),
		TEST(unanswered_nothing_happens_to_it),
		TEST(a_claim_answers),
		TEST(a_makers_death_answers),
		TEST(age_ends_it),
		TEST(a_worker_takes_it),
		TEST(it_comes_back_ready),
		TEST(an_end_concerns_its_own),
		TEST(a_statement_is_about_earlier_connections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
