/* SPDX-License-Identifier: MIT */

/*
 * The slot's whole table: each event in each state, once for the read and once for the write side.
 * A cell is reached by real calls; then come the event, its answer, the unsent entry, the state
 * that the inspection shows, and what the next WAIT gets once everything is sent.
 *
 * "Expired" and "closing" events first make the error check fail, then ask. On a level core the
 * cells are the same but for those that need a latch.
 */

#include <stdio.h>

#include "core_fixture.h"

enum { OLD_STAMP = 7, NEW_STAMP = 8, ID = 1, OTHER_ID = 2 };

enum state {
	IDLE,
	READY,
	WAITING,
	DONE_READY,
	DONE_TIMEOUT,
	DONE_CLOSING,
	DONE_NOT_POLLABLE, /* read only */
	STATES,
};

enum event {
	WAIT,
	WAIT_EXPIRED,
	WAIT_CLOSING,
	EDGE,
	EXPIRY,
	DEADLINE_PAST,
	DEADLINE_FUTURE, /* over an expired one where the state allows it */
	DEADLINE_NONE,
	EVICT,
	RESET,
	RESET_EXPIRED,
	RESET_CLOSING,
	UNWAIT,
	SEND_FAILED,
	EVENTS,
};

/* No such cell: the state cannot be had together with a failing check. */
enum { NONE = 99 };

#define R CORE_CODE_READY
#define C CORE_CODE_CLOSING
#define T CORE_CODE_TIMEOUT
#define N CORE_CODE_NOT_POLLABLE

#define S_IDLE CORE_SLOT_IDLE
#define S_READY CORE_SLOT_READY
#define S_WAIT CORE_SLOT_WAITING
#define S_DONE CORE_SLOT_DONE

struct cell {
	int answer;
	uint8_t code;  /* unsent afterwards */
	uint8_t state; /* enum core_slot_state afterwards */
	uint8_t next;  /* once sent: what WAIT gets; 0: it waits */
	uint8_t then;  /* if that was timeout: what WAIT gets after DEADLINE 0 */
};

#define NO_CELL                  \
	{                        \
		NONE, 0, 0, 0, 0 \
	}

/* clang-format off */
static const struct cell table[EVENTS][STATES] = {
	[WAIT] = {
		[IDLE] =              {0,      0, S_WAIT, 0, 0},
		[READY] =             {0,      R, S_DONE, 0, 0},
		[WAITING] =           {-EBUSY, 0, S_WAIT, 0, 0},
		[DONE_READY] =        {-EBUSY, R, S_DONE, 0, 0},
		[DONE_TIMEOUT] =      {-EBUSY, T, S_DONE, 0, 0},
		[DONE_CLOSING] =      {-EBUSY, C, S_DONE, C, 0},
		[DONE_NOT_POLLABLE] = {-EBUSY, N, S_DONE, N, 0},
	},
	[WAIT_EXPIRED] = {
		[IDLE] =              {0,      T, S_DONE, T, 0},
		[READY] =             {0,      T, S_DONE, T, R},
		[WAITING] =           NO_CELL,
		[DONE_READY] =        {-EBUSY, R, S_DONE, T, 0},
		[DONE_TIMEOUT] =      {-EBUSY, T, S_DONE, T, 0},
		[DONE_CLOSING] =      NO_CELL,
		[DONE_NOT_POLLABLE] = {-EBUSY, N, S_DONE, T, N},
	},
	[WAIT_CLOSING] = {
		[IDLE] =              {0,      C, S_DONE, C, 0},
		[READY] =             {0,      C, S_DONE, C, 0},
		[WAITING] =           NO_CELL,
		[DONE_READY] =        {-EBUSY, C, S_DONE, C, 0},
		[DONE_TIMEOUT] =      {-EBUSY, C, S_DONE, C, 0},
		[DONE_CLOSING] =      NO_CELL,
		[DONE_NOT_POLLABLE] = {-EBUSY, C, S_DONE, C, 0},
	},
	[EDGE] = {
		[IDLE] =              {0, 0, S_READY, R, 0},
		[READY] =             {0, 0, S_READY, R, 0},
		[WAITING] =           {0, R, S_DONE, 0, 0},
		[DONE_READY] =        {0, R, S_DONE, 0, 0},
		[DONE_TIMEOUT] =      {0, T, S_DONE, R, 0},
		[DONE_CLOSING] =      {0, C, S_DONE, C, 0},
		[DONE_NOT_POLLABLE] = {0, N, S_DONE, R, 0},
	},
	[EXPIRY] = {
		[IDLE] =              {0, 0, S_IDLE, T, 0},
		[READY] =             {0, 0, S_READY, T, R},
		[WAITING] =           {0, T, S_DONE, T, 0},
		[DONE_READY] =        {0, R, S_DONE, T, 0},
		[DONE_TIMEOUT] =      {0, T, S_DONE, T, 0},
		[DONE_CLOSING] =      NO_CELL,
		[DONE_NOT_POLLABLE] = {0, N, S_DONE, T, N},
	},
	[DEADLINE_PAST] = {
		[IDLE] =              {0, 0, S_IDLE, T, 0},
		[READY] =             {0, 0, S_READY, T, R},
		[WAITING] =           {0, T, S_DONE, T, 0},
		[DONE_READY] =        {0, R, S_DONE, T, 0},
		[DONE_TIMEOUT] =      {0, T, S_DONE, T, 0},
		[DONE_CLOSING] =      {C, C, S_DONE, C, 0},
		[DONE_NOT_POLLABLE] = {0, N, S_DONE, T, N},
	},
	[DEADLINE_FUTURE] = {
		[IDLE] =              {0, 0, S_IDLE, 0, 0},
		[READY] =             {0, 0, S_READY, R, 0},
		[WAITING] =           {0, 0, S_WAIT, 0, 0},
		[DONE_READY] =        {0, R, S_DONE, 0, 0},
		[DONE_TIMEOUT] =      {0, T, S_DONE, 0, 0},
		[DONE_CLOSING] =      {C, C, S_DONE, C, 0},
		[DONE_NOT_POLLABLE] = {0, N, S_DONE, N, 0},
	},
	[DEADLINE_NONE] = {
		[IDLE] =              {0, 0, S_IDLE, 0, 0},
		[READY] =             {0, 0, S_READY, R, 0},
		[WAITING] =           {0, 0, S_WAIT, 0, 0},
		[DONE_READY] =        {0, R, S_DONE, 0, 0},
		[DONE_TIMEOUT] =      {0, T, S_DONE, 0, 0},
		[DONE_CLOSING] =      {C, C, S_DONE, C, 0},
		[DONE_NOT_POLLABLE] = {0, N, S_DONE, N, 0},
	},
	[EVICT] = {
		[IDLE] =              {0, 0, S_IDLE, C, 0},
		[READY] =             {0, 0, S_IDLE, C, 0},
		[WAITING] =           {0, C, S_DONE, C, 0},
		[DONE_READY] =        {0, C, S_DONE, C, 0},
		[DONE_TIMEOUT] =      {0, C, S_DONE, C, 0},
		[DONE_CLOSING] =      {C, C, S_DONE, C, 0},
		[DONE_NOT_POLLABLE] = {0, C, S_DONE, C, 0},
	},
	[RESET] = {
		[IDLE] =              {0,      0, S_IDLE, 0, 0},
		[READY] =             {0,      0, S_IDLE, 0, 0},
		[WAITING] =           {-EBUSY, 0, S_WAIT, 0, 0},
		[DONE_READY] =        {-EBUSY, R, S_DONE, 0, 0},
		[DONE_TIMEOUT] =      {-EBUSY, T, S_DONE, 0, 0},
		[DONE_CLOSING] =      {-EBUSY, C, S_DONE, C, 0},
		[DONE_NOT_POLLABLE] = {-EBUSY, N, S_DONE, N, 0},
	},
	[RESET_EXPIRED] = {
		[IDLE] =              {T,      0, S_IDLE, T, 0},
		[READY] =             {T,      0, S_READY, T, R},
		[WAITING] =           NO_CELL,
		[DONE_READY] =        {-EBUSY, R, S_DONE, T, 0},
		[DONE_TIMEOUT] =      {-EBUSY, T, S_DONE, T, 0},
		[DONE_CLOSING] =      NO_CELL,
		[DONE_NOT_POLLABLE] = {-EBUSY, N, S_DONE, T, N},
	},
	[RESET_CLOSING] = {
		[IDLE] =              {C,      0, S_IDLE, C, 0},
		[READY] =             {C,      0, S_IDLE, C, 0},
		[WAITING] =           NO_CELL,
		[DONE_READY] =        {-EBUSY, C, S_DONE, C, 0},
		[DONE_TIMEOUT] =      {-EBUSY, C, S_DONE, C, 0},
		[DONE_CLOSING] =      NO_CELL,
		[DONE_NOT_POLLABLE] = {-EBUSY, C, S_DONE, C, 0},
	},
	[UNWAIT] = {
		[IDLE] =              {-ENOENT,   0, S_IDLE, 0, 0},
		[READY] =             {-ENOENT,   0, S_READY, R, 0},
		[WAITING] =           {0,         0, S_IDLE, 0, 0},
		[DONE_READY] =        {-EALREADY, R, S_DONE, 0, 0},
		[DONE_TIMEOUT] =      {-EALREADY, T, S_DONE, 0, 0},
		[DONE_CLOSING] =      {-EALREADY, C, S_DONE, C, 0},
		[DONE_NOT_POLLABLE] = {-EALREADY, N, S_DONE, N, 0},
	},
	[SEND_FAILED] = {
		[IDLE] =              {0, 0, S_IDLE, 0, 0},
		[READY] =             {0, 0, S_READY, R, 0},
		[WAITING] =           {0, 0, S_WAIT, 0, 0},
		[DONE_READY] =        {0, R, S_DONE, 0, 0},
		[DONE_TIMEOUT] =      {0, T, S_DONE, 0, 0},
		[DONE_CLOSING] =      {0, C, S_DONE, C, 0},
		[DONE_NOT_POLLABLE] = {0, N, S_DONE, N, 0},
	},
};
/* clang-format on */

static const uint8_t unsent_code[STATES] = {
	[DONE_READY] = R,
	[DONE_TIMEOUT] = T,
	[DONE_CLOSING] = C,
	[DONE_NOT_POLLABLE] = N,
};

/* Brings a fresh watch into a state; returns its tag. */
static uint64_t reach(struct fixture *f, enum core_direction d, enum state s)
{
	uint64_t tag = fixture_watch(f, ID);

	if (s == READY)
		core_event(f->core, tag, d, false);
	if (s == WAITING || s == DONE_READY || s == DONE_TIMEOUT || s == DONE_CLOSING)
		assert_int_equal(fixture_wait(f, ID, d), d);
	if (s == DONE_READY)
		core_event(f->core, tag, d, false);
	if (s == DONE_TIMEOUT) {
		fixture_deadline(f, ID, d, -1, OLD_STAMP);
		fixture_deadline(f, ID, d, 0, NEW_STAMP);
	}
	if (s == DONE_CLOSING)
		assert_int_equal(fixture_evict(f, ID), 0);
	if (s == DONE_NOT_POLLABLE) {
		/* The waiter of that moment gets ready; only the next one is told. */
		assert_int_equal(fixture_wait(f, ID, d), d);
		core_event(f->core, tag, CORE_BOTH, true);
		fixture_entry_of(f, ID, d, R);
		assert_int_equal(fixture_wait(f, ID, d), 0);
		assert_int_equal(fixture_peek_one(f).read, N);
	}
	return tag;
}

static int set_deadline(struct fixture *f, enum core_direction d, int64_t when)
{
	return session_set_deadline(f->session, ID, FIXTURE_GEN, d, when, false, NEW_STAMP, f->now);
}

static int expire_one(struct fixture *f, enum core_direction d)
{
	assert_int_equal(set_deadline(f, d, f->now + SECOND), 0);
	fixture_advance(f, SECOND - 1);
	assert_int_equal(core_stats(f->core)->deadlines, 1);
	fixture_advance(f, 1);
	assert_int_equal(core_stats(f->core)->deadlines, 0);
	return 0;
}

/* A failing check is made first where the event wants one. */
static void prepare(struct fixture *f, enum core_direction d, enum state s, enum event e)
{
	bool expired = e == WAIT_EXPIRED || e == RESET_EXPIRED;

	if (s <= READY && (e == DEADLINE_FUTURE || e == DEADLINE_NONE))
		expired = true;
	if (expired)
		assert_int_equal(set_deadline(f, d, -1), 0);
	if (e == WAIT_CLOSING || e == RESET_CLOSING)
		assert_int_equal(fixture_evict(f, ID), 0);
}

static int apply(struct fixture *f, enum core_direction d, uint64_t tag, enum event e)
{
	struct core_entry ignored[4];

	switch (e) {
	case WAIT:
	case WAIT_EXPIRED:
	case WAIT_CLOSING:
		return fixture_wait_result(f, ID, d);
	case EDGE:
		core_event(f->core, tag, d, false);
		return 0;
	case EXPIRY:
		return expire_one(f, d);
	case DEADLINE_PAST:
		return set_deadline(f, d, f->now - 1);
	case DEADLINE_FUTURE:
		return set_deadline(f, d, f->now + SECOND);
	case DEADLINE_NONE:
		return set_deadline(f, d, 0);
	case EVICT:
		return fixture_evict(f, ID);
	case RESET:
	case RESET_EXPIRED:
	case RESET_CLOSING:
		return fixture_reset(f, ID, d);
	case UNWAIT:
		return fixture_unwait(f, ID, d);
	case SEND_FAILED:
		(void)session_peek(f->session, ignored, 4);
		return 0;
	default:
		fail_msg("no such event %d", (int)e);
		return 0;
	}
}

/* The stamp of the unsent timeout: that of the deadline which expired, not of a later one. */
static void check_stamp(const struct core_entry *entry, enum core_direction d, enum state s)
{
	unsigned stamp = d == CORE_READ ? entry->read_stamp : entry->write_stamp;

	if (s == DONE_TIMEOUT)
		assert_int_equal(stamp, OLD_STAMP);
	else
		assert_int_equal(stamp, NEW_STAMP);
}

static void check_now(struct fixture *f, enum core_direction d, enum state s, const struct cell *c)
{
	struct core_slot_info slot = fixture_slot(f, ID, d);

	core_check(f->core);
	assert_int_equal(slot.code, c->code);
	assert_int_equal(slot.state, c->state);
	assert_int_equal(slot.since != 0, c->state == S_WAIT);
	assert_int_equal(core_stats(f->core)->waiting, c->state == S_WAIT);
	assert_int_equal(core_stats(f->core)->ready, c->code != 0);
	if (c->code == 0) {
		fixture_nothing(f);
		return;
	}
	/* Twice: looking changes nothing. */
	struct core_entry first = fixture_peek_one(f);
	struct core_entry entry = fixture_entry_of(f, ID, d, c->code);

	fixture_same_entries(&first, &entry, 1);
	if (c->code == T)
		check_stamp(&entry, d, s);
}

static void check_later(struct fixture *f, enum core_direction d, uint64_t tag,
			const struct cell *c)
{
	if (c->state == S_WAIT) {
		core_event(f->core, tag, d, false);
		fixture_entry_of(f, ID, d, R);
		return;
	}
	if (c->next == 0) {
		fixture_wait_waits(f, ID, d);
		return;
	}
	fixture_wait_gives(f, ID, d, c->next);
	if (c->next == R) /* the latch is one bit */
		fixture_wait_waits(f, ID, d);
	if (c->next != T)
		return;
	fixture_wait_gives(f, ID, d, T);
	fixture_deadline(f, ID, d, 0, 0);
	if (c->then)
		fixture_wait_gives(f, ID, d, c->then);
	else
		fixture_wait_waits(f, ID, d);
}

/* What differs without latches. */
static struct cell cell_for(bool level, enum state s, enum event e)
{
	struct cell c = table[e][s];

	if (!level || e != EDGE)
		return c;
	if (s == IDLE)
		c = (struct cell){.state = S_IDLE};
	if (s == DONE_TIMEOUT || s == DONE_NOT_POLLABLE)
		c.next = 0;
	return c;
}

static void walk_cell(bool level, enum core_direction d, enum state s, enum event e)
{
	struct cell c = cell_for(level, s, e);
	struct fixture f;

	fixture_open(&f, level);
	/* A neighbour with the same gen that must never notice anything. */
	uint64_t other = fixture_watch(&f, OTHER_ID);
	uint64_t tag = reach(&f, d, s);

	prepare(&f, d, s, e);
	assert_int_equal(apply(&f, d, tag, e), c.answer);
	check_now(&f, d, s, &c);
	check_later(&f, d, tag, &c);
	/* The other direction and the neighbour are as they were. */
	assert_int_equal(fixture_slot(&f, OTHER_ID, CORE_READ).state, S_IDLE);
	assert_int_equal(fixture_wait(&f, OTHER_ID, CORE_BOTH), CORE_BOTH);
	core_event(f.core, other, CORE_BOTH, false);
	fixture_entry(&f, OTHER_ID, R, R);
	fixture_close(&f);
}

static unsigned walk(bool level, enum core_direction d)
{
	unsigned cells = 0;

	for (enum event e = 0; e < EVENTS; e++) {
		for (enum state s = 0; s < STATES; s++) {
			if (table[e][s].answer == NONE || (level && s == READY) ||
			    (d == CORE_WRITE && s == DONE_NOT_POLLABLE))
				continue;
			print_message("direction %d event %d state %d\n", (int)d, (int)e, (int)s);
			walk_cell(level, d, s, e);
			cells++;
		}
	}
	return cells;
}

static void edge_core_read(void **unused)
{
	(void)unused;
	assert_int_equal(walk(false, CORE_READ), 89);
}

static void edge_core_write(void **unused)
{
	(void)unused;
	assert_int_equal(walk(false, CORE_WRITE), 75);
}

static void level_core_read(void **unused)
{
	(void)unused;
	assert_int_equal(walk(true, CORE_READ), 75);
}

static void level_core_write(void **unused)
{
	(void)unused;
	assert_int_equal(walk(true, CORE_WRITE), 61);
}

/* The row UNWATCH: what is owed comes with the answer, and the rest is silence. */
static void unwatch_in_each_state(void **unused)
{
	static const uint8_t owed[STATES] = {
		[WAITING] = C,      [DONE_READY] = R,        [DONE_TIMEOUT] = T,
		[DONE_CLOSING] = C, [DONE_NOT_POLLABLE] = N,
	};

	(void)unused;
	for (enum state s = 0; s < STATES; s++) {
		struct core_entry e = {0};
		struct fixture f;

		fixture_open(&f, false);
		uint64_t tag = reach(&f, CORE_READ, s);

		assert_int_equal(session_unwatch(f.session, ID, FIXTURE_GEN, &e), owed[s] != 0);
		if (owed[s]) {
			assert_int_equal(e.kind, CORE_ENTRY_WATCH);
			assert_int_equal(e.id, ID);
			assert_int_equal(e.gen, FIXTURE_GEN);
			assert_int_equal(e.cookie, FIXTURE_COOKIE + ID);
			assert_int_equal(e.read, owed[s]);
			assert_int_equal(e.write, 0);
			if (owed[s] == T)
				assert_int_equal(e.read_stamp, OLD_STAMP);
		}
		fixture_nothing(&f);
		core_check(f.core);
		core_event(f.core, tag, CORE_BOTH, false);
		fixture_nothing(&f);
		assert_int_equal(core_stats(f.core)->stale, 1);
		assert_int_equal(fixture_wait_result(&f, ID, CORE_READ), -ENOENT);
		fixture_close(&f);
	}
}

/* The row "entry sent whole" where an edge came between completion and sending. */
static void sent_with_a_latch_is_ready(void **unused)
{
	(void)unused;
	for (enum state s = DONE_READY; s < STATES; s++) {
		struct fixture f;

		fixture_open(&f, false);
		uint64_t tag = reach(&f, CORE_READ, s);
		bool latches = s == DONE_TIMEOUT || s == DONE_NOT_POLLABLE;

		core_event(f.core, tag, CORE_READ, false);
		core_event(f.core, tag, CORE_READ, false);
		fixture_entry(&f, ID, unsent_code[s], 0);
		assert_int_equal(fixture_slot(&f, ID, CORE_READ).state, latches ? S_READY : S_IDLE);
		fixture_close(&f);
	}
}

/* "Check fails" for not-pollable, where the latch is kept, too. */
static void not_pollable_keeps_the_latch(void **unused)
{
	struct fixture f;

	(void)unused;
	fixture_open(&f, false);
	uint64_t tag = fixture_watch(&f, ID);

	core_event(f.core, tag, CORE_BOTH, true);
	assert_int_equal(fixture_reset(&f, ID, CORE_READ), N);
	assert_int_equal(fixture_slot(&f, ID, CORE_READ).state, S_READY);
	fixture_wait_gives(&f, ID, CORE_READ, N);
	fixture_wait_gives(&f, ID, CORE_READ, N);
	/* An event of the other side ends the error and touches no latch. */
	core_event(f.core, tag, CORE_WRITE, false);
	fixture_wait_gives(&f, ID, CORE_READ, R);
	fixture_wait_waits(&f, ID, CORE_READ);
	fixture_close(&f);
}

/* EBUSY comes before the error codes, and refuses the whole record. */
static void busy_comes_before_the_check(void **unused)
{
	struct fixture f;

	(void)unused;
	fixture_open(&f, false);
	uint64_t tag = fixture_watch(&f, ID);

	fixture_wait(&f, ID, CORE_WRITE);
	fixture_deadline(&f, ID, CORE_READ, -1, NEW_STAMP);
	assert_int_equal(fixture_wait_result(&f, ID, CORE_BOTH), -EBUSY);
	assert_int_equal(fixture_reset(&f, ID, CORE_BOTH), -EBUSY);
	fixture_nothing(&f);
	core_event(f.core, tag, CORE_WRITE, false);
	assert_int_equal(fixture_wait_result(&f, ID, CORE_BOTH), -EBUSY);
	assert_int_equal(fixture_reset(&f, ID, CORE_BOTH), -EBUSY);
	fixture_entry(&f, ID, 0, R);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(edge_core_read),
		cmocka_unit_test(edge_core_write),
		cmocka_unit_test(level_core_read),
		cmocka_unit_test(level_core_write),
		cmocka_unit_test(unwatch_in_each_state),
		cmocka_unit_test(sent_with_a_latch_is_ready),
		cmocka_unit_test(not_pollable_keeps_the_latch),
		cmocka_unit_test(busy_comes_before_the_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
