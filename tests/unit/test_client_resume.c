/* SPDX-License-Identifier: MIT */

/*
 * libreadyd when its connection ends: what it tells the next daemon, what it carries out by itself,
 * and what its caller sees meanwhile. The daemon is scripted: between fake_hang_up() and
 * fake_admit() it can be connected to, and says nothing, as one that is being replaced.
 */

#include "client_fixture.h"

#include <stdatomic.h>
#include <sys/epoll.h>

enum { LONG_S = 10 };

static uint32_t id_of(readyd_id id)
{
	return (uint32_t)id;
}

/* The name of a watch on the n-th connection. */
static readyd_id on_connection(readyd_id id, unsigned n)
{
	return id + ((uint64_t)(n - 1) << 32);
}

static int setup_giving_up(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct readyd_options o = {.size = sizeof(o), .give_up = 100 * MS};
	char *error = NULL;

	x->fds = count_fds();
	x->fake = fake_new();
	x->fd = eventfd(0, EFD_CLOEXEC);
	fake_start(x->fake);
	o.socket = x->fake->path;
	if (readyd_connect(&o, &x->r, &error))
		fail_msg("%s", error);
	*state = x;
	return 0;
}

/* ---- Calls in another thread ---- */

enum call {
	SYNC,
	UNWATCH,
	UNWAIT,
	EVICT,
	RESET,
	WATCH,
	POLLWAIT,
	POLL,
	TIMER_SET,
	TIMER_STOP,
	IS_POLL,
	UPGRADE
};

struct job {
	pthread_t thread;
	struct fixture *x;
	enum call call;
	readyd_id id;
	unsigned direction;
	int result;
	struct readyd_event event;
};

static void *job_run(void *context)
{
	struct job *j = context;
	struct readyd *r = j->x->r;

	switch (j->call) {
	case SYNC:
		j->result = readyd_sync(r);
		break;
	case UNWATCH:
		j->result = readyd_unwatch(r, j->id, j->x->fd);
		break;
	case UNWAIT:
		j->result = readyd_unwait(r, j->id, READYD_READ);
		break;
	case EVICT:
		j->result = readyd_evict(r, j->id);
		break;
	case RESET:
		j->result = readyd_reset(r, j->id, READYD_READ);
		break;
	case WATCH:
		j->result = readyd_watch(r, j->x->fd, READYD_READ, READYD_WAIT, 99, &j->id);
		break;
	case POLLWAIT:
		j->result = readyd_pollwait(r, j->id, j->direction);
		break;
	case POLL:
		j->result = readyd_poll(r, &j->event, 1, -1);
		break;
	case TIMER_SET:
		j->result =
			readyd_timer_set(r, &j->id, fake_now() + LONG_S * (int64_t)FAKE_NS, 0, 5);
		break;
	case TIMER_STOP:
		j->result = readyd_timer_stop(r, j->id);
		break;
	case IS_POLL:
		j->result = readyd_is_poll_descriptor(r, j->x->fd);
		break;
	case UPGRADE:
		j->result = readyd_upgrade(r);
		break;
	}
	return NULL;
}

static void job_start(struct job *j, struct fixture *x, enum call call, readyd_id id)
{
	*j = (struct job){
		.x = x, .call = call, .id = id, .direction = READYD_READ, .result = 12345};
	assert_int_equal(pthread_create(&j->thread, NULL, job_run, j), 0);
}

static int job_end(struct job *j)
{
	pthread_join(j->thread, NULL);
	return j->result;
}

static void mute(struct fixture *x, bool on)
{
	pthread_mutex_lock(&x->fake->mutex);
	x->fake->mute = on;
	pthread_mutex_unlock(&x->fake->mutex);
}

/* Asks until it is connected again. */
static void come_back(struct fixture *x)
{
	fake_admit(x->fake);
	assert_int_equal(readyd_sync(x->r), 0);
	assert_int_equal(readyd_state(x->r), READYD_STATE_CONNECTED);
}

static void restart(struct fixture *x)
{
	fake_hang_up(x->fake);
	come_back(x);
}

static struct fake_request last_seen(struct fixture *x, unsigned type)
{
	return fake_seen(x->fake, type, fake_count(x->fake, type));
}

/* ---- The table ---- */

static void watches_and_waits_are_told_anew(void **state)
{
	enum { N = 600 };
	struct fixture *x = *state;
	struct fake_request q;
	readyd_id id[N];
	unsigned seen = 0, before;

	for (unsigned i = 0; i < N; i++) {
		id[i] = watch(x, i % 3 ? READYD_WAIT : READYD_STREAM, i);
		if (i % 3 == 1)
			assert_int_equal(readyd_wait(x->r, id[i], READYD_READ), 0);
		if (i % 3 == 2)
			assert_int_equal(readyd_wait(x->r, id[i], READYD_READ | READYD_WRITE), 0);
	}
	assert_int_equal(readyd_sync(x->r), 0);
	before = fake_count(x->fake, WIRE_WATCH);
	restart(x);
	assert_int_equal(readyd_resumes(x->r), 1);
	for (unsigned m = 0; seen < N; m++) {
		q = fake_seen(x->fake, WIRE_WATCH, before + 1 + m);
		assert_int_equal(q.connection, 2);
		assert_int_equal(q.n_fds, q.header.count);
		assert_true(q.header.flags & WIRE_FLAG_ANSWER);
		assert_true(q.header.count == WIRE_FDS_MAX || seen + q.header.count == N);
		for (unsigned i = 0; i < q.header.count; i++, seen++) {
			const struct wire_watch *w = (const struct wire_watch *)q.all + i;

			assert_int_equal(w->id, id_of(id[seen]));
			assert_int_equal(w->gen, (id[seen] >> 32) + 1);
			assert_int_equal(w->cookie, seen);
			assert_int_equal(w->interest, READYD_READ | READYD_WRITE);
			assert_int_equal(w->mode, seen % 3 ? WIRE_MODE_WAIT : WIRE_MODE_STREAM);
		}
	}
	seen = 0;
	pthread_mutex_lock(&x->fake->mutex);
	for (unsigned i = 0; i < x->fake->n; i++) {
		const struct fake_request *w = &x->fake->log[i];

		if (w->connection != 2 || w->header.type != WIRE_WAIT)
			continue;
		for (unsigned k = 0; k < w->header.count; k++, seen++) {
			const struct wire_slots *s = (const struct wire_slots *)w->all + k;
			unsigned which = seen / 2 * 3 + 1 + seen % 2;

			assert_int_equal(s->id, id_of(id[which]));
			assert_int_equal(s->gen, (id[which] >> 32) + 1);
			assert_int_equal(s->directions, which % 3 == 1 ? 1 : 3);
		}
	}
	pthread_mutex_unlock(&x->fake->mutex);
	assert_int_equal(seen, N / 3 * 2);
	/* The old name is nobody's there; the new one is the caller's old one. */
	fake_entry(x->fake, id[1], WIRE_CODE_READY, 0);
	fake_entry(x->fake, on_connection(id[4], 2), WIRE_CODE_READY, 0);
	expect_watch(x, id[4], READYD_READY, 0);
	assert_int_equal(readyd_sync(x->r), 0);
	expect_nothing(x);
	assert_int_equal(readyd_unwatch(x->r, id[1], x->fd), 0);
	expect_watch(x, id[1], READYD_CLOSING, 0);
}

static void not_more_than_two_messages_are_unanswered(void **state)
{
	struct fixture *x = *state;
	struct readyd_event e;
	unsigned before;

	for (unsigned i = 0; i < 1000; i++)
		(void)watch(x, READYD_STREAM, i);
	before = fake_count(x->fake, WIRE_WATCH);
	mute(x, true);
	fake_hang_up(x->fake);
	fake_admit(x->fake);
	assert_int_equal(readyd_poll(x->r, &e, 1, 100 * MS), 0);
	fake_seen(x->fake, WIRE_WATCH, before + 2);
	assert_int_equal(readyd_poll(x->r, &e, 1, 50 * MS), 0);
	assert_int_equal(fake_count(x->fake, WIRE_WATCH), before + 2);
	assert_int_equal(readyd_state(x->r), READYD_STATE_RESUMING);
	/* And once more, from the start. */
	mute(x, false);
	restart(x);
	assert_int_equal(fake_count(x->fake, WIRE_WATCH), before + 2 + 4);
}

static void deadlines_are_told_before_waits(void **state)
{
	int64_t when = fake_now() + LONG_S * (int64_t)FAKE_NS;
	struct fixture *x = *state;
	readyd_id both = watch(x, READYD_WAIT, 1), one = watch(x, READYD_WAIT, 2);
	const struct wire_deadline *d;
	struct fake_request q;

	assert_int_equal(readyd_set_deadline(x->r, both, 3, when), 0);
	assert_int_equal(readyd_set_deadline(x->r, one, READYD_READ, when + 1), 0);
	assert_int_equal(readyd_set_deadline(x->r, one, READYD_WRITE, -1), 0);
	assert_int_equal(readyd_wait(x->r, both, READYD_READ), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	restart(x);
	q = last_seen(x, WIRE_DEADLINE);
	assert_int_equal(q.connection, 2);
	q = fake_seen(x->fake, WIRE_DEADLINE, fake_count(x->fake, WIRE_DEADLINE) - 1);
	assert_int_equal(q.header.count, 1);
	d = (const struct wire_deadline *)q.all;
	assert_int_equal(d->id, id_of(both));
	assert_int_equal(d->when, when);
	assert_int_equal(d->directions, 3);
	assert_int_equal(last_seen(x, WIRE_WAIT).connection, 2);
	q = last_seen(x, WIRE_DEADLINE);
	assert_int_equal(q.header.count, 2);
	d = (const struct wire_deadline *)q.all;
	assert_int_equal(d[0].when, when + 1);
	assert_int_equal(d[0].directions, READYD_READ);
	assert_int_equal(d[1].when, -1);
	assert_int_equal(d[1].directions, READYD_WRITE);
	/* Stamps are kept: a timeout of the current deadline is known. */
	{
		struct wire_entry t = {.kind = WIRE_RECORD_ENTRY, .read = WIRE_CODE_TIMEOUT};

		t.id = id_of(both);
		t.gen = (uint32_t)(on_connection(both, 2) >> 32);
		t.read_stamp = 1;
		fake_ready(x->fake, &t, 1);
		expect_watch(x, both, READYD_TIMEOUT, 0);
	}
}

static void timers_keep_phase_and_what_fired_is_not_armed_again(void **state)
{
	int64_t when = fake_now() + LONG_S * (int64_t)FAKE_NS;
	struct wire_timer_entry t = {.kind = WIRE_RECORD_TIMER, .count = 3, .gen = 1};
	struct fixture *x = *state;
	const struct wire_timer_set *set;
	readyd_id periodic = 0, shot = 0, fired = 0;
	struct fake_request q;
	struct readyd_event e;

	assert_int_equal(readyd_timer_set(x->r, &periodic, when, 1000, 1), 0);
	assert_int_equal(readyd_timer_set(x->r, &shot, when + 5, 0, 2), 0);
	assert_int_equal(readyd_timer_set(x->r, &fired, when + 6, 0, 3), 0);
	t.id = id_of(periodic);
	fake_ready(x->fake, &t, 1);
	t.id = id_of(fired);
	t.count = 1;
	fake_ready(x->fake, &t, 1);
	assert_int_equal(readyd_sync(x->r), 0); /* kept, not taken */
	restart(x);
	q = last_seen(x, WIRE_TIMER_SET);
	assert_int_equal(q.connection, 2);
	assert_int_equal(q.header.count, 2);
	set = (const struct wire_timer_set *)q.all;
	assert_int_equal(set[0].id, id_of(periodic));
	assert_int_equal(set[0].when, when + 3000);
	assert_int_equal(set[0].period, 1000);
	assert_int_equal(set[0].gen, 2);
	assert_int_equal(set[1].id, id_of(shot));
	assert_int_equal(set[1].when, when + 5);
	assert_int_equal(readyd_poll(x->r, &e, 1, -1), 1);
	assert_int_equal(e.id, periodic);
	assert_int_equal(e.count, 3);
	assert_int_equal(expect_one(x).id, fired);
	/* The new arming is heard, under the old name. */
	t.id = id_of(periodic);
	t.gen = 2;
	fake_ready(x->fake, &t, 1);
	assert_int_equal(expect_one(x).id, periodic);
	assert_int_equal(readyd_timer_stop(x->r, periodic), 1);
	assert_int_equal(readyd_timer_stop(x->r, fired), 0);
}

static void entries_that_came_before_the_end_are_seen(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);

	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	fake_hang_up(x->fake);
	expect_watch(x, id, READYD_READY, 0);
	come_back(x);
	assert_int_equal(fake_count(x->fake, WIRE_WAIT), 1);
	expect_nothing(x);
}

/* ---- What was unanswered (H10) ---- */

static void unanswered_unwatch_is_done(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);
	struct job job;

	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	mute(x, true);
	job_start(&job, x, UNWATCH, id);
	fake_seen(x->fake, WIRE_UNWATCH, 1);
	fake_hang_up(x->fake);
	assert_int_equal(job_end(&job), 0);
	expect_watch(x, id, READYD_CLOSING, 0); /* no daemon is needed for that */
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), -ENOENT);
	mute(x, false);
	come_back(x);
	assert_int_equal(fake_count(x->fake, WIRE_WATCH), 1);
}

static void unanswered_unwait_is_done(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);
	struct job job;

	assert_int_equal(readyd_wait(x->r, id, READYD_READ | READYD_WRITE), 0);
	mute(x, true);
	job_start(&job, x, UNWAIT, id);
	fake_seen(x->fake, WIRE_UNWAIT, 1);
	fake_hang_up(x->fake);
	assert_int_equal(job_end(&job), 0);
	mute(x, false);
	come_back(x);
	{
		struct fake_request q = last_seen(x, WIRE_WAIT);
		const struct wire_slots *s = (const struct wire_slots *)q.all;

		assert_int_equal(q.connection, 2);
		assert_int_equal(s->directions, READYD_WRITE);
	}
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
}

/* "Too late: its event comes": it comes, though the daemon that said so is gone. */
static void promised_event_comes(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);

	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	fake_refuse(x->fake, WIRE_UNWAIT, WIRE_E_ALREADY, 0);
	assert_int_equal(readyd_unwait(x->r, id, READYD_READ), -EALREADY);
	expect_nothing(x);
	fake_hang_up(x->fake);
	expect_watch(x, id, READYD_READY, 0);
}

static void past_deadline_is_carried_out(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1), stream = watch(x, READYD_STREAM, 2);
	struct readyd_event e[2];
	struct fake_request q;

	assert_int_equal(readyd_wait(x->r, id, READYD_READ | READYD_WRITE), 0);
	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, -1), 0);
	assert_int_equal(readyd_set_deadline(x->r, stream, READYD_WRITE, fake_now()), 0);
	assert_int_equal(readyd_sync(x->r), 0); /* it knows, and has not said so */
	fake_hang_up(x->fake);
	assert_int_equal(readyd_poll(x->r, e, 2, LONG_S * (int64_t)FAKE_NS), 2);
	assert_int_equal(e[0].id, id);
	assert_int_equal(e[0].read, READYD_TIMEOUT);
	assert_int_equal(e[0].write, 0);
	assert_int_equal(e[1].id, stream);
	assert_int_equal(e[1].write, READYD_TIMEOUT);
	come_back(x);
	/* Sticky for waits; a stream's that was reported is not set again. */
	q = last_seen(x, WIRE_DEADLINE);
	assert_int_equal(q.connection, 2);
	assert_int_equal(q.header.count, 1);
	assert_int_equal(((const struct wire_deadline *)q.all)->id, id_of(id));
	expect_nothing(x);
}

static void reported_stream_deadline_is_not_set_again(void **state)
{
	struct wire_entry t = {.kind = WIRE_RECORD_ENTRY, .read = WIRE_CODE_TIMEOUT};
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_STREAM, 2);

	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, fake_now() + MS), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	t.id = id_of(id);
	t.gen = (uint32_t)(id >> 32);
	t.read_stamp = 1;
	fake_ready(x->fake, &t, 1);
	expect_watch(x, id, READYD_TIMEOUT, 0);
	restart(x);
	assert_int_equal(last_seen(x, WIRE_DEADLINE).connection, 1);
	expect_nothing(x);
	/* Another one is news. */
	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, fake_now() + FAKE_NS), 0);
	restart(x);
	assert_int_equal(last_seen(x, WIRE_DEADLINE).connection, 3);
}

static void evict_is_done_and_stays(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1), stream = watch(x, READYD_STREAM, 2);
	struct job job;

	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	mute(x, true);
	job_start(&job, x, EVICT, id);
	fake_seen(x->fake, WIRE_EVICT, 1);
	fake_hang_up(x->fake);
	assert_int_equal(job_end(&job), 0);
	expect_watch(x, id, READYD_CLOSING, 0);
	assert_int_equal(readyd_evict(x->r, stream), 0); /* while nobody is there */
	expect_watch(x, stream, READYD_CLOSING, READYD_CLOSING);
	mute(x, false);
	come_back(x);
	assert_int_equal(fake_count(x->fake, WIRE_WATCH), 2); /* none was made anew */
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	expect_watch(x, id, READYD_CLOSING, 0);
	assert_int_equal(readyd_pollwait(x->r, id, READYD_WRITE), -ECANCELED);
	assert_int_equal(readyd_reset(x->r, id, READYD_READ), READYD_CLOSING);
	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, -1), -ECANCELED);
	assert_int_equal(readyd_evict(x->r, id), -ECANCELED);
	assert_int_equal(readyd_unwatch(x->r, id, x->fd), 0);
	assert_int_equal(readyd_unwatch(x->r, stream, x->fd), 0);
	expect_nothing(x);
}

static void timers_unanswered(void **state)
{
	struct fixture *x = *state;
	struct job set, stop;
	readyd_id old = 0;

	assert_int_equal(readyd_timer_set(x->r, &old, fake_now() + 60 * (int64_t)FAKE_NS, 0, 1), 0);
	mute(x, true);
	job_start(&set, x, TIMER_SET, 0);
	fake_seen(x->fake, WIRE_TIMER_SET, 2);
	job_start(&stop, x, TIMER_STOP, old);
	fake_seen(x->fake, WIRE_TIMER_STOP, 1);
	fake_hang_up(x->fake);
	assert_int_equal(job_end(&set), 0);
	assert_int_equal(job_end(&stop), 1);
	mute(x, false);
	come_back(x);
	assert_int_equal(last_seen(x, WIRE_TIMER_SET).connection, 2);
	assert_int_equal(last_seen(x, WIRE_TIMER_SET).header.count, 1);
	assert_int_equal(readyd_timer_stop(x->r, set.id), 1);
	assert_int_equal(fake_count(x->fake, WIRE_TIMER_STOP), 2);
}

static void what_asks_is_repeated(void **state)
{
	static const enum call calls[] = {SYNC, RESET, WATCH, IS_POLL};
	static const unsigned types[] = {WIRE_SYNC, WIRE_RESET, WIRE_WATCH,
					 WIRE_IS_POLL_DESCRIPTOR};
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);

	for (unsigned i = 0; i < 4; i++) {
		unsigned before = fake_count(x->fake, types[i]);
		struct fake_request q;
		struct job job;

		mute(x, true);
		job_start(&job, x, calls[i], id);
		fake_seen(x->fake, types[i], before + 1);
		mute(x, false);
		fake_hang_up(x->fake);
		fake_admit(x->fake);
		assert_int_equal(job_end(&job), 0);
		q = last_seen(x, types[i]);
		assert_int_equal(q.connection, i + 2);
		if (calls[i] == RESET)
			assert_int_equal(((const struct wire_slots *)q.all)->gen,
					 on_connection(id, i + 2) >> 32);
		if (calls[i] == WATCH)
			assert_int_equal(((const struct wire_watch *)q.all)->cookie, 99);
	}
}

static void list_that_was_begun_is_cut(void **state)
{
	struct wire_session_row row = {.cursor = 7, .session = 1};
	struct readyd_session_info info = {.size = sizeof(info)};
	struct fixture *x = *state;
	struct readyd_list *l;
	struct fake_request q;

	assert_int_equal(readyd_list_sessions(x->r, NULL, &l), 0);
	/* The answer's serial is the next one of its kind. */
	q = (struct fake_request){{0}};
	assert_int_equal(readyd_sync(x->r), 0);
	q.header.serial = last_seen(x, WIRE_SYNC).header.serial + 4;
	fake_message(x->fake, WIRE_SESSIONS, WIRE_FLAG_MORE, q.header.serial, &row, 1, NULL, 0);
	assert_int_equal(readyd_next_session(l, &info), 1);
	restart(x);
	assert_int_equal(readyd_next_session(l, &info), -ECONNRESET);
	readyd_list_free(l);
}

static void another_session_cannot_be_broken_on_another_daemon(void **state)
{
	struct fixture *x = *state;

	fake_hang_up(x->fake);
	assert_int_equal(readyd_poll(x->r, &(struct readyd_event){0}, 1, MS), 0);
	assert_int_equal(readyd_break_session(x->r, 4), -ENOENT);
	come_back(x);
	assert_int_equal(readyd_break_session(x->r, 77), 0);
}

/* The daemon that comes would be replaced once more. */
static void upgrade_is_asked_once(void **state)
{
	struct fixture *x = *state;
	struct job job;

	mute(x, true);
	job_start(&job, x, UPGRADE, 0);
	(void)fake_seen(x->fake, WIRE_UPGRADE, 1);
	fake_hang_up(x->fake);
	assert_int_equal(job_end(&job), -ECONNRESET);
	mute(x, false);
	come_back(x);
	assert_int_equal(readyd_sync(x->r), 0);
	assert_int_equal(fake_count(x->fake, WIRE_UPGRADE), 1);
	assert_int_equal(readyd_upgrade(x->r), 0);
}

/* ---- What is refused, closed, another file ---- */

static void refused_for_want_of_room_is_tried_again(void **state)
{
	static const uint16_t errors[] = {WIRE_E_NO_RESOURCES, WIRE_E_QUOTA, WIRE_E_TOO_MANY_FDS};
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);

	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	for (unsigned i = 0; i < 3; i++) {
		unsigned before = fake_count(x->fake, WIRE_WATCH);
		int64_t end = fake_now() + LONG_S * (int64_t)FAKE_NS;
		struct readyd_event e;

		fake_refuse(x->fake, WIRE_WATCH, errors[i], 0);
		fake_hang_up(x->fake);
		fake_admit(x->fake);
		while (fake_count(x->fake, WIRE_WATCH) < before + 2 && fake_now() < end)
			assert_int_equal(readyd_poll(x->r, &e, 1, 20 * MS), 0);
		fake_refuse(x->fake, WIRE_WATCH, 0, 0);
		while (last_seen(x, WIRE_WAIT).connection != i + 2 && fake_now() < end)
			assert_int_equal(readyd_poll(x->r, &e, 1, 20 * MS), 0);
		assert_int_equal(last_seen(x, WIRE_WAIT).connection, i + 2);
	}
	fake_entry(x->fake, on_connection(id, 4), WIRE_CODE_READY, 0);
	expect_watch(x, id, READYD_READY, 0);
}

static void refused_for_good_ends_with_closing(void **state)
{
	struct fixture *x = *state;
	readyd_id good = watch(x, READYD_WAIT, 1), bad = watch(x, READYD_WAIT, 2);

	assert_int_equal(readyd_wait(x->r, good, READYD_READ), 0);
	assert_int_equal(readyd_wait(x->r, bad, READYD_READ), 0);
	fake_refuse(x->fake, WIRE_WATCH, WIRE_E_NOT_SUPPORTED, 1);
	fake_hang_up(x->fake);
	fake_admit(x->fake);
	expect_watch(x, bad, READYD_CLOSING, 0);
	fake_refuse(x->fake, WIRE_WATCH, 0, 0);
	assert_int_equal(readyd_sync(x->r), 0);
	assert_int_equal(((const struct wire_slots *)last_seen(x, WIRE_WAIT).all)->id, id_of(good));
	assert_int_equal(readyd_unwatch(x->r, bad, -1), 0);
	expect_nothing(x);
}

static void closed_fd_and_another_file_end_with_closing(void **state)
{
	struct fixture *x = *state;
	readyd_id id[2], kept;
	struct readyd_event e[2];
	int ends[2], other[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(pipe2(other, O_CLOEXEC | O_NONBLOCK), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(readyd_watch(x->r, ends[i], 1u << i, READYD_STREAM, i, &id[i]), 0);
	}
	assert_int_equal(readyd_watch(x->r, other[0], READYD_READ, READYD_STREAM, 9, &kept), 0);
	close(ends[0]);
	assert_int_equal(dup2(other[1], ends[1]), ends[1]);
	fake_hang_up(x->fake);
	fake_admit(x->fake);
	assert_int_equal(readyd_sync(x->r), 0);
	assert_int_equal(readyd_poll(x->r, e, 2, -1), 2);
	assert_int_equal(e[0].id, id[0]);
	assert_int_equal(e[0].read, READYD_CLOSING);
	assert_int_equal(e[1].id, id[1]);
	assert_int_equal(e[1].write, READYD_CLOSING);
	assert_int_equal(last_seen(x, WIRE_WATCH).header.count, 1);
	assert_int_equal(((const struct wire_watch *)last_seen(x, WIRE_WATCH).all)->id,
			 id_of(kept));
	assert_int_equal(readyd_unwatch(x->r, id[0], -1), 0);
	assert_int_equal(readyd_unwatch(x->r, id[1], ends[1]), 0);
	close(ends[1]);
	close(other[0]);
	close(other[1]);
}

/* ---- Meanwhile ---- */

static void what_is_asked_meanwhile_is_told_then(void **state)
{
	int64_t when = fake_now() + LONG_S * (int64_t)FAKE_NS;
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1), other = watch(x, READYD_WAIT, 2), timer = 0,
		  gone = 0;

	assert_int_equal(readyd_timer_set(x->r, &gone, when, 0, 3), 0);
	fake_hang_up(x->fake);
	expect_nothing(x);
	assert_int_equal(readyd_state(x->r), READYD_STATE_RESUMING);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ | READYD_WRITE), 0);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), -EBUSY);
	assert_int_equal(readyd_unwait(x->r, id, READYD_WRITE), 0);
	assert_int_equal(readyd_unwait(x->r, id, READYD_WRITE), -ENOENT);
	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, when), 0);
	assert_int_equal(readyd_wait(x->r, other, READYD_READ), 0);
	assert_int_equal(readyd_set_deadline(x->r, other, READYD_READ, -1), 0);
	expect_watch(x, other, READYD_TIMEOUT, 0);
	assert_int_equal(readyd_wait(x->r, other, READYD_READ), 0); /* sticky */
	expect_watch(x, other, READYD_TIMEOUT, 0);
	assert_int_equal(readyd_pollwait(x->r, other, READYD_READ), -ETIMEDOUT);
	assert_int_equal(readyd_unwatch(x->r, other, x->fd), 0);
	assert_int_equal(readyd_timer_set(x->r, &timer, when, 7, 4), 0);
	assert_int_equal(readyd_timer_set(x->r, &timer, when + 1, 7, 4), 1);
	assert_int_equal(readyd_timer_stop(x->r, gone), 1);
	assert_int_equal(readyd_timer_stop(x->r, gone), 0);
	come_back(x);
	assert_int_equal(last_seen(x, WIRE_WATCH).header.count, 1);
	assert_int_equal(last_seen(x, WIRE_WAIT).header.count, 1);
	assert_int_equal(((const struct wire_slots *)last_seen(x, WIRE_WAIT).all)->directions, 1);
	assert_int_equal(((const struct wire_deadline *)last_seen(x, WIRE_DEADLINE).all)->when,
			 when);
	assert_int_equal(last_seen(x, WIRE_TIMER_SET).header.count, 1);
	assert_int_equal(((const struct wire_timer_set *)last_seen(x, WIRE_TIMER_SET).all)->when,
			 when + 1);
	assert_int_equal(fake_count(x->fake, WIRE_UNWATCH) + fake_count(x->fake, WIRE_TIMER_STOP),
			 0);
}

static void poll_keeps_its_limit_and_breaks(void **state)
{
	struct fixture *x = *state;
	int64_t start;
	struct readyd_event e;
	struct job job;

	fake_hang_up(x->fake);
	start = fake_now();
	assert_int_equal(readyd_poll(x->r, &e, 1, 50 * MS), 0);
	assert_in_range(fake_now() - start, 50 * MS, 5 * (int64_t)FAKE_NS);
	readyd_break(x->r);
	assert_int_equal(readyd_poll(x->r, &e, 1, -1), 0);
	job_start(&job, x, POLL, 0);
	readyd_break(x->r);
	assert_int_equal(job_end(&job), 0);
	come_back(x);
}

static void break_that_was_not_seen_is_kept(void **state)
{
	struct wire_break_entry b = {.kind = WIRE_RECORD_BREAK};
	struct fixture *x = *state;
	struct readyd_event e;

	fake_ready(x->fake, &b, 1);
	assert_int_equal(readyd_sync(x->r), 0);
	readyd_break(x->r);
	restart(x);
	assert_int_equal(readyd_poll(x->r, &e, 1, -1), 1);
	assert_int_equal(e.kind, READYD_EVENT_BREAK);
	readyd_break(x->r);
	restart(x);
	assert_int_equal(readyd_poll(x->r, &e, 1, -1), 0);
}

static void two_threads_in_pollwait_do_not_notice(void **state)
{
	struct fixture *x = *state;
	readyd_id a = watch(x, READYD_WAIT, 1), b = watch(x, READYD_WAIT, 2);
	struct job ja, jb, poller;

	job_start(&ja, x, POLLWAIT, a);
	job_start(&jb, x, POLLWAIT, b);
	job_start(&poller, x, POLL, 0);
	while (fake_count(x->fake, WIRE_WAIT) < 2)
		fake_seen(x->fake, WIRE_WAIT, 2);
	for (unsigned i = 0; i < 20; i++)
		restart(x);
	fake_entry(x->fake, on_connection(a, 21), WIRE_CODE_READY, 0);
	assert_int_equal(job_end(&ja), 0);
	fake_hang_up(x->fake);
	assert_int_equal(readyd_set_deadline(x->r, b, READYD_READ, -1), 0);
	assert_int_equal(job_end(&jb), -ETIMEDOUT);
	readyd_break(x->r);
	assert_int_equal(job_end(&poller), 0);
	come_back(x);
	expect_nothing(x);
}

/* What another thread finds out ends the wait of the one that is blocked on the socket. */
static void leader_hears_what_others_have_found(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);

	for (unsigned i = 0; i < 100; i++) {
		struct job waiter, asker;

		job_start(&waiter, x, POLLWAIT, id);
		fake_seen(x->fake, WIRE_WAIT, i + 1);
		fake_hang_up(x->fake);
		expect_nothing(x);
		assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, -1), 0);
		assert_int_equal(job_end(&waiter), -ETIMEDOUT);
		assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, 0), 0);
		job_start(&asker, x, SYNC, 0);
		fake_admit(x->fake);
		for (int64_t end = fake_now() + LONG_S * (int64_t)FAKE_NS;
		     readyd_resumes(x->r) <= i && fake_now() < end;)
			expect_nothing(x);
		assert_int_equal(job_end(&asker), 0);
	}
}

/* Another loop sleeps on the fd alone: it is woken for each step. */
static void fd_for_another_loop_leads_back(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);
	int fd = readyd_fd(x->r);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct readyd_event e;
	unsigned turns = 0;

	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	fake_seen(x->fake, WIRE_WAIT, 1);
	pthread_mutex_lock(&x->fake->mutex);
	x->fake->greeting = WIRE_E_QUOTA; /* a few times: the pauses are timed */
	pthread_mutex_unlock(&x->fake->mutex);
	fake_hang_up(x->fake);
	for (unsigned i = 0; i < 3; i++)
		fake_admit(x->fake);
	while (fake_count(x->fake, WIRE_HELLO) < 4) {
		assert_int_equal(poll(&p, 1, LONG_S * 1000), 1);
		assert_int_equal(readyd_poll(x->r, &e, 1, 0), 0);
		assert_true(++turns < 1000);
	}
	pthread_mutex_lock(&x->fake->mutex);
	x->fake->greeting = 0;
	pthread_mutex_unlock(&x->fake->mutex);
	fake_admit(x->fake);
	while (readyd_resumes(x->r) == 0) {
		assert_int_equal(poll(&p, 1, LONG_S * 1000), 1);
		assert_int_equal(readyd_poll(x->r, &e, 1, 0), 0);
		assert_true(++turns < 1000);
	}
	fake_seen(x->fake, WIRE_WAIT, 2);
	assert_int_equal(readyd_fd(x->r), fd);
	assert_int_equal(poll(&p, 1, 0), 0); /* nothing left to do */
	fake_entry(x->fake, on_connection(id, x->fake->connections), WIRE_CODE_READY, 0);
	assert_int_equal(poll(&p, 1, LONG_S * 1000), 1);
	expect_watch(x, id, READYD_READY, 0);
}

static void giving_up_is_sticky(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);
	int64_t start = fake_now();
	struct readyd_event e;
	struct job job;

	job_start(&job, x, POLLWAIT, id);
	fake_seen(x->fake, WIRE_WAIT, 1);
	fake_hang_up(x->fake);
	assert_int_equal(readyd_poll(x->r, &e, 1, -1), -ENOTCONN);
	assert_true(fake_now() - start >= 100 * MS);
	assert_int_equal(job_end(&job), -ENOTCONN);
	assert_int_equal(readyd_state(x->r), READYD_STATE_LOST);
	assert_int_equal(readyd_sync(x->r), -ENOTCONN);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), -ENOTCONN);
	assert_non_null(strstr(readyd_last_error(x->r), "100 ms"));
}

static void state_is_known_before_anybody_polls(void **state)
{
	struct fixture *x = *state;
	struct pollfd p = {.fd = readyd_fd(x->r), .events = POLLIN};

	assert_int_equal(readyd_state(x->r), READYD_STATE_CONNECTED);
	fake_hang_up(x->fake);
	assert_int_equal(poll(&p, 1, LONG_S * 1000), 1);
	assert_int_equal(readyd_state(x->r), READYD_STATE_RESUMING);
	assert_int_equal(readyd_resumes(x->r), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(watches_and_waits_are_told_anew),
		TEST(not_more_than_two_messages_are_unanswered),
		TEST(deadlines_are_told_before_waits),
		TEST(timers_keep_phase_and_what_fired_is_not_armed_again),
		TEST(entries_that_came_before_the_end_are_seen),
		TEST(unanswered_unwatch_is_done),
		TEST(unanswered_unwait_is_done),
		TEST(promised_event_comes),
		TEST(past_deadline_is_carried_out),
		TEST(reported_stream_deadline_is_not_set_again),
		TEST(evict_is_done_and_stays),
		TEST(timers_unanswered),
		TEST(what_asks_is_repeated),
		TEST(list_that_was_begun_is_cut),
		TEST(another_session_cannot_be_broken_on_another_daemon),
		TEST(upgrade_is_asked_once),
		TEST(refused_for_want_of_room_is_tried_again),
		TEST(refused_for_good_ends_with_closing),
		TEST(closed_fd_and_another_file_end_with_closing),
		TEST(what_is_asked_meanwhile_is_told_then),
		TEST(poll_keeps_its_limit_and_breaks),
		TEST(break_that_was_not_seen_is_kept),
		TEST(two_threads_in_pollwait_do_not_notice),
		TEST(leader_hears_what_others_have_found),
		TEST(fd_for_another_loop_leads_back),
		cmocka_unit_test_setup_teardown(giving_up_is_sticky, setup_giving_up, teardown),
		TEST(state_is_known_before_anybody_polls),
	};

	return cmocka_run_group_tests_name("client_resume", tests, NULL, NULL);
}
