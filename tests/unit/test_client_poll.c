/* SPDX-License-Identifier: MIT */

/*
 * libreadyd against a scripted daemon: polling, breaks, signals, threads, a socket that is full,
 * the end of the connection, and a daemon that talks nonsense.
 */

#include "client_fixture.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/wait.h>

/* ---- Polling ---- */

static void poll_leaves_what_has_no_room(void **state)
{
	struct wire_entry e[10] = {{0}};
	struct fixture *x = *state;
	struct readyd_event event;
	readyd_id id[10];
	bool seen[10] = {false};

	for (unsigned i = 0; i < 10; i++) {
		id[i] = watch(x, READYD_STREAM, i);
		e[i] = (struct wire_entry){.kind = WIRE_RECORD_ENTRY,
					   .mode = WIRE_MODE_STREAM,
					   .read = WIRE_CODE_READY,
					   .id = (uint32_t)id[i],
					   .gen = (uint32_t)(id[i] >> 32)};
	}
	fake_ready(x->fake, e, 10);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(readyd_poll(x->r, &event, 1, -1), 1);
		assert_false(seen[event.cookie]);
		seen[event.cookie] = true;
		if (i == 4) /* moves the rest to the table */
			assert_int_equal(readyd_sync(x->r), 0);
		if (i == 5)
			fake_entry(x->fake, id[9], 0, WIRE_CODE_READY);
	}
	expect_watch(x, id[9], 0, READYD_READY);
	expect_nothing(x);
	assert_int_equal(readyd_poll(x->r, &event, 0, 0), -EINVAL);
}

static void poll_with_a_limit_keeps_it_and_errno(void **state)
{
	struct fixture *x = *state;
	struct readyd_event e;
	int64_t start = fake_now();

	errno = 4242;
	assert_int_equal(readyd_poll(x->r, &e, 1, 30 * MS), 0);
	assert_true(fake_now() - start >= 30 * MS);
	assert_int_equal(readyd_poll(x->r, &e, 0, 0), -EINVAL);
	assert_int_equal(errno, 4242);
}

static void break_is_one_and_is_kept_from_an_asking_poll(void **state)
{
	struct fixture *x = *state;
	struct readyd_event e;
	int64_t start;

	for (int i = 0; i < 1000; i++)
		readyd_break(x->r);
	expect_nothing(x);
	expect_nothing(x);
	start = fake_now();
	assert_int_equal(readyd_poll(x->r, &e, 1, 5 * (int64_t)FAKE_NS), 0);
	assert_true(fake_now() - start < 2 * (int64_t)FAKE_NS);
	start = fake_now();
	assert_int_equal(readyd_poll(x->r, &e, 1, 50 * MS), 0);
	assert_true(fake_now() - start >= 50 * MS);
}

static void break_and_an_event_come_in_one_poll(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_STREAM, 1);
	struct readyd_event e;
	int64_t start;

	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	readyd_break(x->r);
	expect_watch(x, id, READYD_READY, 0);
	start = fake_now();
	assert_int_equal(readyd_poll(x->r, &e, 1, 50 * MS), 0);
	assert_true(fake_now() - start >= 50 * MS);
}

static void break_record_of_another_session_is_an_event(void **state)
{
	struct wire_break_entry b = {.kind = WIRE_RECORD_BREAK};
	struct fixture *x = *state;

	fake_ready(x->fake, &b, 1);
	fake_ready(x->fake, &b, 1);
	assert_int_equal(readyd_sync(x->r), 0);
	assert_int_equal(expect_one(x).kind, READYD_EVENT_BREAK);
	expect_nothing(x);
}

struct poller {
	struct readyd *r;
	int64_t delta;
	int result;
	struct readyd_event event;
};

static void *poll_once(void *context)
{
	struct poller *p = context;

	p->result = readyd_poll(p->r, &p->event, 1, p->delta);
	return NULL;
}

static void break_ends_a_blocked_poll_also_behind_another_leader(void **state)
{
	struct fixture *x = *state;
	struct poller p = {.r = x->r, .delta = -1}, q = {.r = x->r, .delta = -1};
	pthread_t a, b;

	/* Two pollers: one break, one end; the other one is not lost. */
	assert_int_equal(pthread_create(&a, NULL, poll_once, &p), 0);
	assert_int_equal(pthread_create(&b, NULL, poll_once, &q), 0);
	readyd_break(x->r);
	/* Either may have taken it. A second one ends the other: the first is over by then, or
	 * this one is merged into it, and rung again. */
	for (int ended = 0; ended < 2;) {
		struct timespec limit;

		clock_gettime(CLOCK_REALTIME, &limit);
		limit.tv_nsec += 20 * MS;
		if (limit.tv_nsec >= FAKE_NS) {
			limit.tv_sec++;
			limit.tv_nsec -= FAKE_NS;
		}
		if (a && pthread_timedjoin_np(a, NULL, &limit) == 0) {
			a = 0;
			ended++;
		}
		if (b && pthread_timedjoin_np(b, NULL, &limit) == 0) {
			b = 0;
			ended++;
		}
		if (ended < 2)
			readyd_break(x->r);
	}
	assert_int_equal(p.result, 0);
	assert_int_equal(q.result, 0);
}

static void on_signal(int number)
{
	(void)number;
}

/* Sends the thread SIGUSR1 every few ms until it is told to stop. */
struct pest {
	pthread_t victim;
	atomic_bool stop;
};

static void *pest_run(void *context)
{
	struct pest *p = context;

	while (!atomic_load(&p->stop)) {
		struct timespec t = {.tv_nsec = 3 * MS};

		pthread_kill(p->victim, SIGUSR1);
		nanosleep(&t, NULL);
	}
	return NULL;
}

static void pest_start(struct pest *p, pthread_t *ret)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	sigaction(SIGUSR1, &action, NULL);
	p->victim = pthread_self();
	assert_int_equal(pthread_create(ret, NULL, pest_run, p), 0);
}

static void pest_end(struct pest *p, pthread_t thread)
{
	atomic_store(&p->stop, true);
	pthread_join(thread, NULL);
}

static void signal_does_not_shorten_a_poll(void **state)
{
	struct fixture *x = *state;
	int64_t start = fake_now();
	struct pest pest = {0};
	struct readyd_event e;
	pthread_t thread;

	pest_start(&pest, &thread);
	assert_int_equal(readyd_poll(x->r, &e, 1, 100 * MS), 0);
	assert_true(fake_now() - start >= 100 * MS);
	pest_end(&pest, thread);
}

static void signal_ends_poll_and_pollwait_if_asked_for(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);
	struct poller behind = {.r = x->r, .delta = -1};
	struct readyd_event e;
	struct pest pest = {0};
	pthread_t thread, other;
	sigset_t set;

	pest_start(&pest, &thread);
	assert_int_equal(readyd_poll(x->r, &e, 1, 10 * (int64_t)FAKE_NS), -EINTR);
	assert_int_equal(readyd_pollwait(x->r, id, READYD_READ), -EINTR);
	/* The wait is still there: the next one has it. */
	assert_int_equal(readyd_pollwait(x->r, id, READYD_READ), -EINTR);
	assert_int_equal(fake_count(x->fake, WIRE_WAIT), 1);
	/* Also for a thread that another one leads. */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	assert_int_equal(pthread_create(&other, NULL, poll_once, &behind), 0);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	assert_int_equal(readyd_pollwait(x->r, id, READYD_READ), -EINTR);
	pest_end(&pest, thread);
	/* Nobody waits: it is latched. */
	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	assert_int_equal(readyd_sync(x->r), 0);
	assert_int_equal(readyd_pollwait(x->r, id, READYD_READ), 0);
	assert_int_equal(fake_count(x->fake, WIRE_WAIT), 1);
	readyd_break(x->r);
	pthread_join(other, NULL);
	assert_int_equal(behind.result, 0);
}

/* ---- A full socket ---- */

enum { FLOOD_WATCHES = 400 };

/* H14: the daemon does not read until its own output, far more than the sockets hold, is read. */
static void *flood(void *context)
{
	static struct wire_entry e[FLOOD_WATCHES];
	struct fixture *x = context;

	for (unsigned i = 0; i < FLOOD_WATCHES; i++)
		e[i] = (struct wire_entry){.kind = WIRE_RECORD_ENTRY,
					   .mode = WIRE_MODE_STREAM,
					   .read = WIRE_CODE_READY,
					   .id = i + 1,
					   .gen = 1};
	for (int i = 0; i < 300; i++)
		fake_ready(x->fake, e, FLOOD_WATCHES);
	fake_deafen(x->fake, false);
	return NULL;
}

static void request_to_a_daemon_that_writes_first_does_not_hang(void **state)
{
	struct fixture *x = *state;
	readyd_id id[FLOOD_WATCHES], waiter;
	struct readyd_event e[FLOOD_WATCHES];
	pthread_t thread;
	int n = 0, got;

	for (unsigned i = 0; i < FLOOD_WATCHES; i++) {
		id[i] = watch(x, READYD_STREAM, i);
		assert_int_equal(id[i], (uint64_t)1 << 32 | (i + 1));
	}
	waiter = watch(x, READYD_WAIT, 1000);
	fake_deafen(x->fake, true);
	assert_int_equal(pthread_create(&thread, NULL, flood, x), 0);
	/* Until the socket takes no more, and beyond. */
	for (int i = 0; i < 40000; i++)
		assert_int_equal(readyd_set_deadline(x->r, waiter, READYD_READ, 1000 + i), 0);
	assert_int_equal(readyd_wait(x->r, waiter, READYD_WRITE), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	pthread_join(thread, NULL);
	/* Coalesced, none lost. */
	while ((got = readyd_poll(x->r, e, FLOOD_WATCHES, 0)) > 0)
		n += got;
	assert_int_equal(got, 0);
	assert_true(n >= FLOOD_WATCHES);
	assert_int_equal(fake_count(x->fake, WIRE_WAIT), 1);
}

/* The same by a poll, which never waits for room: it gets the events. */
static void poll_with_unsent_requests_goes_on_receiving(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_STREAM, 1);
	struct readyd_event e;

	fake_deafen(x->fake, true);
	/* The queue of a socket holds a number of datagrams, of any size. */
	for (int i = 0; i < 100; i++) {
		assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, 1000 + i), 0);
		assert_int_equal(readyd_poll(x->r, &e, 1, 0), 0);
	}
	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	expect_watch(x, id, READYD_READY, 0);
	fake_deafen(x->fake, false);
	assert_int_equal(readyd_sync(x->r), 0);
}

/* ---- The end ---- */

static void end_of_the_connection_is_sticky(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_STREAM, 1), timer = 0;
	struct readyd_status s = {.size = sizeof(s)};
	struct readyd_event e;

	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	fake_hang_up(x->fake);
	expect_watch(x, id, READYD_READY, 0); /* what came before */
	assert_int_equal(readyd_poll(x->r, &e, 1, -1), -ENOTCONN);
	assert_non_null(strstr(readyd_last_error(x->r), x->fake->path));
	assert_int_equal(readyd_poll(x->r, &e, 1, 0), -ENOTCONN);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), -ENOTCONN);
	assert_int_equal(readyd_unwait(x->r, id, READYD_READ), -ENOTCONN);
	assert_int_equal(readyd_pollwait(x->r, id, READYD_READ), -ENOTCONN);
	assert_int_equal(readyd_reset(x->r, id, READYD_READ), -ENOTCONN);
	assert_int_equal(readyd_evict(x->r, id), -ENOTCONN);
	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, 1), -ENOTCONN);
	assert_int_equal(readyd_unwatch(x->r, id, x->fd), -ENOTCONN);
	assert_int_equal(readyd_watch(x->r, x->fd, READYD_READ, 0, 0, &id), -ENOTCONN);
	assert_int_equal(readyd_timer_set(x->r, &timer, 1, 0, 0), -ENOTCONN);
	assert_int_equal(readyd_timer_stop(x->r, 1), -ENOTCONN);
	assert_int_equal(readyd_sync(x->r), -ENOTCONN);
	assert_int_equal(readyd_break_session(x->r, 0), -ENOTCONN);
	assert_int_equal(readyd_is_poll_descriptor(x->r, x->fd), -ENOTCONN);
	assert_int_equal(readyd_get_status(x->r, &s), -ENOTCONN);
	readyd_break(x->r);
}

static void error_of_the_daemon_is_the_sentence(void **state)
{
	struct wire_error_record record = {.error = WIRE_E_SHUTDOWN};
	static const char text[] = "closing\ttime";
	struct fixture *x = *state;

	fake_message(x->fake, WIRE_ERROR, 0, 0, &record, 1, text, sizeof(text) - 1);
	assert_int_equal(readyd_sync(x->r), -ENOTCONN);
	assert_non_null(strstr(readyd_last_error(x->r), "closing?time"));
}

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* One connection, one message that is garbage or READY with some bytes changed. */
static void nonsense(uint64_t seed)
{
	struct {
		struct wire_header header;
		struct wire_entry entries[20];
		uint8_t room[512];
	} m = {.header = {.type = WIRE_READY, .count = 20}};
	size_t size = sizeof(m.header) + sizeof(m.entries);
	struct readyd_event e[8];
	struct fixture *x;
	readyd_id id;
	int result;

	assert_int_equal(setup((void **)&x), 0);
	id = watch(x, READYD_STREAM, 1);
	for (unsigned i = 0; i < 20; i++)
		m.entries[i] = (struct wire_entry){.kind = (uint8_t)(1 + random_next(&seed) % 5),
						   .read = WIRE_CODE_READY,
						   .id = (uint32_t)id,
						   .gen = (uint32_t)(id >> 32)};
	switch (random_next(&seed) % 3) {
	case 0:
		for (size_t i = 0; i < sizeof(m); i++)
			((uint8_t *)&m)[i] = (uint8_t)random_next(&seed);
		size = 1 + random_next(&seed) % sizeof(m);
		break;
	case 1:
		m.header.type = (uint16_t)(0x80 + random_next(&seed) % 0x40);
		m.header.count = (uint32_t)(random_next(&seed) % 30);
		break;
	default:
		for (unsigned i = 0; i < 4; i++)
			((uint8_t *)&m)[random_next(&seed) % size] = (uint8_t)random_next(&seed);
	}
	(void)send(x->fake->socket, &m, size, MSG_NOSIGNAL);
	/* Whatever it was: an end with -EPROTO, or no harm. */
	result = readyd_sync(x->r);
	if (result)
		assert_int_equal(result, -EPROTO);
	while (readyd_poll(x->r, e, 8, 0) > 0)
		;
	assert_int_equal(readyd_poll(x->r, e, 8, 0), result);
	assert_int_equal(teardown((void **)&x), 0);
}

static void nonsense_of_the_daemon_is_eproto_and_no_crash(void **state)
{
	const char *given = getenv("READYD_TEST_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)fake_now();

	(void)state;
	print_message("READYD_TEST_SEED=%llu\n", (unsigned long long)seed);
	for (int i = 0; i < 400; i++)
		nonsense(random_next(&seed));
}

static void plain_garbage_is_eproto(void **state)
{
	struct fixture *x = *state;
	struct readyd_event e;

	fake_send(x->fake, "certainly not a header", 22);
	assert_int_equal(readyd_poll(x->r, &e, 1, -1), -EPROTO);
	assert_int_equal(readyd_sync(x->r), -EPROTO);
	assert_non_null(strstr(readyd_last_error(x->r), "protocol"));
}

/* ---- Threads ---- */

struct worker {
	struct fixture *x;
	readyd_id id;
	int result;
	unsigned direction;
};

static void *sync_often(void *context)
{
	struct worker *w = context;

	for (int i = 0; i < 500 && w->result == 0; i++)
		w->result = readyd_sync(w->x->r);
	return NULL;
}

static void one_thread_polls_while_others_ask(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_STREAM, 1);
	struct worker w[2] = {{.x = x}, {.x = x}};
	struct readyd_event e;
	pthread_t thread[2];
	unsigned n = 0;

	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, sync_often, &w[i]), 0);
	for (int i = 0; i < 500; i++) {
		fake_entry(x->fake, id, WIRE_CODE_READY, 0);
		/* Two may have been kept as one. */
		assert_int_equal(readyd_poll(x->r, &e, 1, 10 * (int64_t)FAKE_NS), 1);
		n++;
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(w[i].result, 0);
	}
	assert_int_equal(n, 500);
	expect_nothing(x);
}

static void *pollwait_once(void *context)
{
	struct worker *w = context;

	w->result = readyd_pollwait(w->x->r, w->id, w->direction);
	return NULL;
}

static void two_threads_in_pollwait_each_get_their_own(void **state)
{
	struct fixture *x = *state;
	struct worker a = {.x = x, .direction = READYD_READ}, b = a, c = a;
	struct readyd_event e;
	pthread_t ta, tb, tc;

	a.id = watch(x, READYD_WAIT, 1);
	b.id = watch(x, READYD_WAIT, 2);
	c.id = b.id;
	c.direction = READYD_WRITE;
	assert_int_equal(pthread_create(&ta, NULL, pollwait_once, &a), 0);
	fake_seen(x->fake, WIRE_WAIT, 1);
	assert_int_equal(pthread_create(&tb, NULL, pollwait_once, &b), 0);
	fake_seen(x->fake, WIRE_WAIT, 2);
	assert_int_equal(pthread_create(&tc, NULL, pollwait_once, &c), 0);
	fake_seen(x->fake, WIRE_WAIT, 3);
	assert_int_equal(readyd_wait(x->r, a.id, READYD_READ), -EBUSY);
	assert_int_equal(readyd_pollwait(x->r, a.id, READYD_READ), -EBUSY);
	assert_int_equal(readyd_unwait(x->r, a.id, READYD_READ), -ENOENT);

	/* A deadline reaches the daemon though nobody polls. */
	assert_int_equal(readyd_set_deadline(x->r, a.id, READYD_READ, -1), 0);
	{
		struct wire_entry t = {.kind = WIRE_RECORD_ENTRY,
				       .read = WIRE_CODE_TIMEOUT,
				       .id = (uint32_t)a.id,
				       .gen = (uint32_t)(a.id >> 32)};
		struct wire_deadline d;

		memcpy(&d, fake_seen(x->fake, WIRE_DEADLINE, 1).record, sizeof(d));
		t.read_stamp = d.stamp;
		fake_ready(x->fake, &t, 1);
	}
	pthread_join(ta, NULL);
	assert_int_equal(a.result, -ETIMEDOUT);

	fake_entry(x->fake, b.id, WIRE_CODE_READY, WIRE_CODE_CLOSING);
	pthread_join(tb, NULL);
	pthread_join(tc, NULL);
	assert_int_equal(b.result, 0);
	assert_int_equal(c.result, -ECANCELED);
	assert_int_equal(readyd_poll(x->r, &e, 1, 0), 0); /* none of it was an event */
}

static void pollwait_ends_with_the_connection(void **state)
{
	struct fixture *x = *state;
	struct worker a = {.x = x, .direction = READYD_READ}, b = a;
	pthread_t ta, tb;

	a.id = watch(x, READYD_WAIT, 1);
	b.id = watch(x, READYD_WAIT, 2);
	assert_int_equal(pthread_create(&ta, NULL, pollwait_once, &a), 0);
	assert_int_equal(pthread_create(&tb, NULL, pollwait_once, &b), 0);
	fake_seen(x->fake, WIRE_WAIT, 2);
	fake_hang_up(x->fake);
	pthread_join(ta, NULL);
	pthread_join(tb, NULL);
	assert_int_equal(a.result, -ENOTCONN);
	assert_int_equal(b.result, -ENOTCONN);
}

/* A poll is blocked: a wait of another thread is not left lying. */
static void wait_is_sent_at_once_while_another_thread_polls(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);
	struct poller p = {.r = x->r, .delta = -1};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, poll_once, &p), 0);
	/* Before or while it blocks. */
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	fake_seen(x->fake, WIRE_WAIT, 1);
	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	pthread_join(thread, NULL);
	assert_int_equal(p.result, 1);
	assert_int_equal(p.event.id, id);
}

/* Both leave together only if none is lost on the way from leader to follower. */
static void two_threads_poll_and_each_event_goes_to_one(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_STREAM, 1);

	for (int i = 0; i < 200; i++) {
		struct poller p = {.r = x->r, .delta = -1}, q = {.r = x->r, .delta = -1};
		pthread_t a, b;

		assert_int_equal(pthread_create(&a, NULL, poll_once, &p), 0);
		assert_int_equal(pthread_create(&b, NULL, poll_once, &q), 0);
		fake_entry(x->fake, id, WIRE_CODE_READY, 0);
		fake_entry(x->fake, id, 0, WIRE_CODE_READY);
		pthread_join(a, NULL);
		pthread_join(b, NULL);
		assert_int_equal(p.result, 1);
		assert_int_equal(q.result, 1);
		assert_int_equal(p.event.read + q.event.read, 1);
		assert_int_equal(p.event.write + q.event.write, 1);
	}
	expect_nothing(x);
}

/* ---- Other loops, other processes ---- */

static bool is_readable(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, 0) == 1;
}

static void fd_is_readable_exactly_when_poll_has_something(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_STREAM, 1), waiter = watch(x, READYD_WAIT, 2);
	struct pollfd p = {.events = POLLIN};
	struct readyd_event e;
	int fd;

	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	assert_int_equal(readyd_sync(x->r), 0); /* kept */
	fd = readyd_fd(x->r);
	assert_true(fd >= 0);
	assert_true(is_readable(fd));
	expect_watch(x, id, READYD_READY, 0);
	assert_false(is_readable(fd));
	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	p.fd = fd;
	assert_int_equal(poll(&p, 1, 10000), 1);
	expect_watch(x, id, READYD_READY, 0);
	assert_false(is_readable(fd));
	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	assert_int_equal(readyd_sync(x->r), 0);
	assert_true(is_readable(fd));
	expect_watch(x, id, READYD_READY, 0);
	assert_false(is_readable(fd));
	/* A foreign loop sleeps elsewhere: what it asks for is sent at once. */
	assert_int_equal(readyd_wait(x->r, waiter, READYD_READ), 0);
	fake_seen(x->fake, WIRE_WAIT, 1);
	readyd_break(x->r);
	assert_true(is_readable(fd));
	expect_nothing(x);
	assert_true(is_readable(fd));
	assert_int_equal(readyd_poll(x->r, &e, 1, 1), 0);
	assert_false(is_readable(fd));
	assert_int_equal(readyd_fd(x->r), fd);
	fake_hang_up(x->fake);
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(readyd_poll(x->r, &e, 1, 0), -ENOTCONN);
	assert_true(is_readable(fd));
}

static void poll_descriptors_are_known_without_asking(void **state)
{
	struct fixture *x = *state;
	int copy = dup(readyd_fd(x->r));

	assert_int_equal(readyd_is_poll_descriptor(x->r, readyd_fd(x->r)), 1);
	assert_int_equal(readyd_is_poll_descriptor(x->r, copy), 1);
	close(copy);
	assert_int_equal(readyd_is_poll_descriptor(x->r, copy), -EBADF);
	assert_int_equal(fake_count(x->fake, WIRE_IS_POLL_DESCRIPTOR), 0);
	assert_int_equal(readyd_is_poll_descriptor(x->r, x->fd), 0);
	assert_int_equal(fake_count(x->fake, WIRE_IS_POLL_DESCRIPTOR), 1);
}

static int in_child(struct fixture *x, readyd_id id)
{
	struct readyd_event e;

	if (readyd_poll(x->r, &e, 1, 0) != -ENOTCONN || readyd_sync(x->r) != -ENOTCONN ||
	    readyd_wait(x->r, id, READYD_READ) != -ENOTCONN)
		return 1;
	if (!strstr(readyd_last_error(x->r), "parent"))
		return 2;
	readyd_break(x->r); /* must not wake the parent */
	readyd_close(x->r);
	return 0;
}

static void forked_child_may_only_close(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);
	struct readyd_event e;
	int64_t start;
	int status = -1;
	pid_t pid = fork();

	if (pid == 0)
		_exit(in_child(x, id));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(readyd_sync(x->r), 0);
	start = fake_now();
	assert_int_equal(readyd_poll(x->r, &e, 1, 20 * MS), 0);
	assert_true(fake_now() - start >= 20 * MS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define FINAL(name) cmocka_unit_test_setup_teardown(name, setup_final, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(poll_leaves_what_has_no_room),
		TEST(poll_with_a_limit_keeps_it_and_errno),
		TEST(break_is_one_and_is_kept_from_an_asking_poll),
		TEST(break_and_an_event_come_in_one_poll),
		TEST(break_record_of_another_session_is_an_event),
		TEST(break_ends_a_blocked_poll_also_behind_another_leader),
		TEST(signal_does_not_shorten_a_poll),
		cmocka_unit_test_setup_teardown(signal_ends_poll_and_pollwait_if_asked_for,
						setup_eintr, teardown),
		TEST(request_to_a_daemon_that_writes_first_does_not_hang),
		TEST(poll_with_unsent_requests_goes_on_receiving),
		FINAL(end_of_the_connection_is_sticky),
		FINAL(error_of_the_daemon_is_the_sentence),
		cmocka_unit_test(nonsense_of_the_daemon_is_eproto_and_no_crash),
		TEST(plain_garbage_is_eproto),
		TEST(one_thread_polls_while_others_ask),
		TEST(two_threads_in_pollwait_each_get_their_own),
		FINAL(pollwait_ends_with_the_connection),
		TEST(wait_is_sent_at_once_while_another_thread_polls),
		TEST(two_threads_poll_and_each_event_goes_to_one),
		FINAL(fd_is_readable_exactly_when_poll_has_something),
		TEST(poll_descriptors_are_known_without_asking),
		TEST(forked_child_may_only_close),
	};

	return cmocka_run_group_tests_name("client_poll", tests, NULL, NULL);
}
