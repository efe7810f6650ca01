/* SPDX-License-Identifier: MIT */

/*
 * Workers of groups in libreadyd, against a small daemon that hands out what there is credit for, and
 * dies where the test says, for all n. Watched throughout: each park goes to one, the daemon's credit
 * is never more than the worker has room for, and no fd is lost, doubled, or left over.
 */

#include "fake_keeper.h"

#include <poll.h>
#include <sys/resource.h>

#define LONG (10 * (int64_t)FAKE_NS)

static struct readyd_taken nothing(void)
{
	return (struct readyd_taken){.size = sizeof(struct readyd_taken), .fd = -1};
}

/* Parks one end of a pair in a group; the other end. */
static int park_in(struct scene *s, const char *group, const char *name, uint64_t cookie)
{
	struct readyd_park_options o = named(name, cookie);
	int ends[2];

	o.group = group;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	if (readyd_park(s->r, ends[0], &o, NULL, NULL))
		fail_msg("%s", readyd_last_error(s->r));
	close(ends[0]);
	return ends[1];
}

static void attach(struct scene *s, const char *group, unsigned capacity)
{
	if (readyd_attach(s->r, group, capacity))
		fail_msg("%s", readyd_last_error(s->r));
}

static struct readyd_taken receive(struct scene *s)
{
	struct readyd_taken t = nothing();
	int n = readyd_receive(s->r, &t, LONG);

	if (n != 1)
		fail_msg("received %d: %s", n, readyd_last_error(s->r));
	return t;
}

/* As the daemon sees it. What is done while an ATTACH is under way goes with the next. */
static unsigned credit(struct scene *s)
{
	unsigned sum = 0;

	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(readyd_sync(s->r), 0);
	pthread_mutex_lock(&s->k.mutex);
	for (unsigned i = 0; i < WORKS_MAX; i++)
		sum += s->k.works[i].credit;
	pthread_mutex_unlock(&s->k.mutex);
	return sum;
}

static unsigned unsettled(struct scene *s)
{
	unsigned n;

	pthread_mutex_lock(&s->k.mutex);
	n = n_unsettled(&s->k);
	pthread_mutex_unlock(&s->k.mutex);
	return n;
}

static bool is_readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

/* ---- Without a death ---- */

static void hand_outs_come_as_there_is_room(void **state)
{
	struct scene *s = *state;
	int first = park_in(s, "web", "a", 10), second = park_in(s, "web", "b", 20);
	struct readyd_taken t = nothing();

	attach(s, "web", 1);
	assert_int_equal(s->k.more, 1);
	t = receive(s);
	assert_int_equal(t.cookie, 10);
	assert_string_equal(t.group, "web");
	assert_string_equal(t.name, "a");
	assert_memory_equal(t.note, "hello", NOTE + 1);
	assert_int_equal(t.read, READYD_READY);
	expect_whole(s, &t, first);
	assert_int_equal(readyd_receive(s->r, &t, 20 * MS), 0); /* not done with the first */
	assert_int_equal(s->k.attaches, 1);
	assert_int_equal(readyd_done(s->r, "web"), 0);
	t = receive(s);
	assert_int_equal(t.cookie, 20);
	expect_whole(s, &t, second);
	assert_int_equal(s->k.taken, 2);
	assert_int_equal(s->k.most_here, 1);
	assert_int_equal(readyd_done(s->r, "web"), 0);
	assert_int_equal(credit(s), 1);
	assert_int_equal(readyd_done(s->r, "web"), -EINVAL);
}

static void nothing_is_acknowledged_before_it_is_received(void **state)
{
	struct scene *s = *state;
	int fd = readyd_fd(s->r), other;
	struct readyd_taken t = nothing();
	struct readyd_event e[4];

	attach(s, "web", 4);
	assert_false(is_readable(fd, 0));
	other = park_in(s, "web", "a", 7);
	assert_true(is_readable(fd, 10000));
	assert_int_equal(readyd_poll(s->r, e, 4, LONG), 1);
	assert_int_equal(e[0].kind, READYD_EVENT_HANDOUT);
	assert_int_equal(e[0].cookie, 7);
	assert_int_equal(e[0].id, 1);
	assert_int_equal(e[0].read, READYD_READY);
	assert_int_equal(readyd_poll(s->r, e, 4, 0), 0); /* told once */
	assert_true(is_readable(fd, 0));
	assert_int_equal(s->k.acknowledges, 0);
	assert_int_equal(readyd_receive(s->r, &t, 0), 1);
	assert_int_equal(s->k.acknowledges, 1);
	assert_false(is_readable(fd, 0));
	assert_int_equal(readyd_receive(s->r, &t, 0), 0);
	expect_whole(s, &t, other);
}

static void leaving_gives_back(void **state)
{
	struct scene *s = *state;
	int others[3];
	struct readyd_taken t;

	for (unsigned i = 0; i < 3; i++)
		others[i] = park_in(s, "web", NULL, i);
	attach(s, "web", 3);
	t = receive(s);
	assert_int_equal(t.cookie, 0);
	assert_int_equal(unsettled(s), 2);
	assert_int_equal(readyd_detach(s->r, "web"), 0);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(unsettled(s), 0);
	assert_int_equal(s->k.taken, 1);
	assert_false(is_readable(others[1], 0)); /* nobody has closed it */
	expect_whole(s, &t, others[0]);
	assert_int_equal(readyd_done(s->r, "web"), -ENOENT);
	assert_int_equal(readyd_detach(s->r, "web"), -ENOENT);
	assert_int_equal(readyd_receive(s->r, &t, LONG), -EINVAL);
	attach(s, "web", 1);
	for (unsigned i = 1; i < 3; i++) {
		t = receive(s);
		assert_int_equal(t.cookie, i);
		expect_whole(s, &t, others[i]);
		assert_int_equal(readyd_done(s->r, "web"), 0);
	}
}

static void the_end_gives_back(void **state)
{
	struct scene *s = *state;
	struct readyd_options o = {.size = sizeof(o), .socket = s->k.path};
	int others[2] = {park_in(s, "web", NULL, 1), park_in(s, "web", NULL, 2)};
	struct readyd_taken t;

	attach(s, "web", 2);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(unsettled(s), 2);
	s->k.lets_go = true;
	readyd_close(s->r);
	assert_int_equal(readyd_connect(&o, &s->r, NULL), 0);
	assert_int_equal(unsettled(s), 0);
	s->k.lets_go = false;
	attach(s, "web", 2);
	for (unsigned i = 0; i < 2; i++) {
		t = receive(s);
		assert_int_equal(t.cookie, i + 1);
		expect_whole(s, &t, others[i]);
	}
}

static void without_a_free_fd_another_gets_it(void **state)
{
	struct scene *s = *state;
	int other = park_in(s, "web", "a", 0), room = dup(other);
	struct rlimit before, tight;
	struct readyd_taken t = nothing();
	struct readyd_event e;

	close(room);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	tight = before;
	tight.rlim_cur = (rlim_t)room; /* all numbers below are in use */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	attach(s, "web", 1);
	assert_int_equal(readyd_poll(s->r, &e, 1, LONG), 1);
	assert_int_equal(e.kind, READYD_EVENT_HANDOUT);
	assert_int_equal(readyd_receive(s->r, &t, LONG), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(credit(s), 0);
	assert_int_equal(unsettled(s), 0);
	assert_int_equal(s->k.acknowledges, 0);
	assert_int_equal(s->k.handouts, 1);
	assert_false(is_readable(other, 0));
	t = receive(s);
	assert_int_equal(s->k.handouts, 2);
	expect_whole(s, &t, other);
}

static void capacity_is_changed(void **state)
{
	struct scene *s = *state;
	struct readyd_taken t;
	int other;

	attach(s, "web", 4);
	assert_int_equal(credit(s), 4);
	attach(s, "web", 6);
	assert_int_equal(credit(s), 6);
	assert_int_equal(s->k.more, 2);
	attach(s, "web", 6);
	assert_int_equal(s->k.attaches, 2);
	attach(s, "web", 2);
	assert_int_equal(credit(s), 2);
	assert_int_equal(s->k.detaches, 1);
	other = park_in(s, "web", NULL, 0);
	t = receive(s);
	attach(s, "web", 1); /* which is at work already */
	assert_int_equal(credit(s), 0);
	expect_whole(s, &t, other);
	assert_int_equal(readyd_done(s->r, "web"), 0);
	assert_int_equal(credit(s), 1);
	attach(s, "mail", 3);
	assert_int_equal(credit(s), 4);
}

static void bad_arguments_of_groups(void **state)
{
	struct scene *s = *state;
	struct readyd_taken t = nothing();
	char longer[300];

	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(readyd_attach(s->r, NULL, 1), -EINVAL);
	assert_int_equal(readyd_attach(s->r, "", 1), -EINVAL);
	assert_int_equal(readyd_attach(s->r, "a\tb", 1), -EINVAL);
	assert_int_equal(readyd_attach(s->r, longer, 1), -EINVAL);
	assert_int_equal(readyd_attach(s->r, "web", 0), -EINVAL);
	assert_int_equal(readyd_attach(s->r, "web", 1025), -EINVAL);
	assert_int_equal(readyd_receive(s->r, &t, -1), -EINVAL);
	assert_int_equal(readyd_detach(s->r, "web"), -ENOENT);
	assert_int_equal(readyd_done(s->r, "web"), -ENOENT);
	t.size = 8;
	assert_int_equal(readyd_receive(s->r, &t, -1), -EINVAL);
	assert_int_equal(s->k.attaches, 0);
	for (unsigned i = 0; i < 3; i++) {
		static const uint16_t errors[] = {WIRE_E_ACCESS, WIRE_E_NOT_IMPLEMENTED,
						  WIRE_E_NO_RESOURCES};
		static const int results[] = {-EACCES, -ENOSYS, -EAGAIN};

		s->k.refuse_attach = errors[i];
		assert_int_equal(readyd_attach(s->r, "web", 1), results[i]);
		assert_non_null(strstr(readyd_last_error(s->r), "'web'"));
		assert_int_equal(readyd_done(s->r, "web"), -ENOENT);
	}
}

static void many_groups_are_too_many(void **state)
{
	struct scene *s = *state;
	char name[8];

	s->k.refuse_attach = WIRE_E_INVALID; /* leaves nothing behind */
	for (unsigned i = 0; i < 70; i++) {
		snprintf(name, sizeof(name), "g%u", i);
		assert_int_equal(readyd_attach(s->r, name, 1), -EINVAL);
	}
	s->k.refuse_attach = WIRE_OK;
	for (unsigned i = 0; i < WORKS_MAX; i++) {
		snprintf(name, sizeof(name), "g%u", i);
		attach(s, name, 1);
	}
}

static void a_change_that_is_refused_changes_nothing(void **state)
{
	struct scene *s = *state;

	attach(s, "web", 2);
	s->k.refuse_attach = WIRE_E_NO_RESOURCES;
	s->k.refuse_attaches = 1;
	assert_int_equal(readyd_attach(s->r, "web", 3), -EAGAIN);
	assert_int_equal(credit(s), 2);
	/* Less goes by DETACH, and what was there is asked for again. */
	s->k.refuse_attach = WIRE_E_NO_RESOURCES;
	s->k.refuse_attaches = 1;
	assert_int_equal(readyd_attach(s->r, "web", 1), -EAGAIN);
	assert_int_equal(credit(s), 2);
}

static void refused_acknowledgement_is_another_s(void **state)
{
	struct scene *s = *state;
	int other = park_in(s, "web", "a", 5);
	struct readyd_taken t;

	s->k.refuse_acknowledge = true;
	attach(s, "web", 1);
	t = receive(s); /* it comes again, since this is the only worker */
	assert_int_equal(t.cookie, 5);
	assert_int_equal(s->k.acknowledges, 2);
	assert_int_equal(s->k.handouts, 2);
	expect_whole(s, &t, other);
}

static void breaks_end_it(void **state)
{
	struct scene *s = *state;
	struct readyd_taken t = nothing();

	attach(s, "web", 1);
	readyd_break(s->r);
	assert_int_equal(readyd_receive(s->r, &t, 0), 0);
	assert_int_equal(readyd_receive(s->r, &t, -1), 0);
	assert_int_equal(readyd_receive(s->r, &t, MS), 0);
}

static void groups_are_listed(void **state)
{
	struct scene *s = *state;
	struct readyd_group_info row = {.size = sizeof(row)};
	struct readyd_list *l = NULL;

	assert_int_equal(readyd_list_groups(s->r, NULL, &l), 0);
	assert_int_equal(readyd_next_group(l, &row), 1);
	assert_string_equal(row.group, "web");
	assert_int_equal(row.parks, 3);
	assert_int_equal(row.ready, 2);
	assert_int_equal(row.handed, 1);
	assert_true(row.oldest != 0);
	assert_int_equal(row.credit, 4);
	assert_int_equal(row.capacity, 6);
	assert_int_equal(row.uid, 1000);
	assert_int_equal(row.workers, 2);
	assert_int_equal(readyd_next_group(l, &row), 1);
	assert_string_equal(row.group, "mail");
	assert_int_equal(row.uid, UINT32_MAX);
	assert_int_equal(row.oldest, 0);
	assert_int_equal(readyd_next_group(l, &row), 0);
	readyd_list_free(l);
}

/* ---- Deaths ---- */

/* One park through a group, with a death at the n-th message. false: there are fewer. */
static bool live_through(struct scene *s, unsigned n, enum moment moment)
{
	unsigned before = s->k.taken, fds, deaths;
	uint64_t last = s->k.last;
	struct readyd_taken t;
	int other;

	assert_int_equal(readyd_sync(s->r), 0);
	fds = count_fds();
	die_at(s, n, moment);
	attach(s, "web", 2);
	other = park_in(s, "web", "conn", n);
	t = receive(s);
	assert_int_equal(t.cookie, n);
	assert_int_equal(s->k.taken, before + 1);
	assert_int_equal(s->k.last, last + 1);
	assert_int_equal(credit(s), 1);
	expect_whole(s, &t, other);
	assert_int_equal(readyd_done(s->r, "web"), 0);
	assert_int_equal(credit(s), 2);
	assert_int_equal(readyd_detach(s->r, "web"), 0);
	assert_int_equal(credit(s), 0);
	deaths = s->k.deaths;
	die_at(s, 0, moment);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(unsettled(s), 0);
	return deaths == 1;
}

static void death_at_every_step_of_a_group(void **state)
{
	struct scene *s = *state;

	for (enum moment m = BEFORE; m <= AFTER; m++) {
		unsigned n = 1;

		while (live_through(s, n, m))
			n++;
		/* ATTACH, PARK, HANDOUT, ACKNOWLEDGE, SYNC, ATTACH, SYNC, DETACH, at least */
		assert_true(n > 8);
	}
}

/* What has arrived and was not received is given back over a death, and comes again. */
static void arrived_ones_come_again(void **state)
{
	struct scene *s = *state;
	int others[3];
	struct readyd_taken t;

	attach(s, "web", 3);
	for (unsigned i = 0; i < 3; i++)
		others[i] = park_in(s, "web", NULL, i);
	t = receive(s);
	assert_int_equal(unsettled(s), 2);
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(s->k.first_type, WIRE_HELD);
	assert_int_equal(s->k.more, 2); /* one is received, and not done */
	assert_int_equal(unsettled(s), 2);
	expect_whole(s, &t, others[0]);
	for (unsigned i = 1; i < 3; i++) {
		t = receive(s);
		assert_int_equal(t.cookie, i);
		expect_whole(s, &t, others[i]);
	}
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(readyd_done(s->r, "web"), 0);
	assert_int_equal(credit(s), 3);
	assert_int_equal(s->k.taken, 3);
}

static void shut(struct scene *s, bool yes)
{
	pthread_mutex_lock(&s->k.mutex);
	s->k.shut = yes;
	pthread_mutex_unlock(&s->k.mutex);
}

/* A limit is kept without a daemon, and what was under way then is there for the next call. */
static void a_limit_is_kept_without_a_daemon(void **state)
{
	struct scene *s = *state;
	int fd = readyd_fd(s->r);

	for (enum moment m = BEFORE; m <= BETWEEN; m++) {
		struct readyd_taken t = nothing();
		struct readyd_event e;
		int other;

		attach(s, "web", 1);
		other = park_in(s, "web", NULL, 3);
		assert_int_equal(readyd_poll(s->r, &e, 1, LONG), 1);
		shut(s, true);
		die_at(s, 1, m); /* the acknowledgement */
		assert_int_equal(readyd_receive(s->r, &t, m == BEFORE ? 0 : 20 * MS), 0);
		assert_int_equal(readyd_receive(s->r, &t, MS), 0);
		assert_int_equal(readyd_poll(s->r, &e, 1, 0), 0);
		shut(s, false);
		assert_true(is_readable(fd, 10000));
		assert_int_equal(readyd_poll(s->r, &e, 1, LONG), 1);
		assert_int_equal(e.kind, READYD_EVENT_HANDOUT);
		assert_int_equal(e.cookie, 3);
		assert_int_equal(readyd_receive(s->r, &t, 0), 1);
		assert_int_equal(t.cookie, 3);
		expect_whole(s, &t, other);
		assert_int_equal(readyd_detach(s->r, "web"), 0);
	}
	assert_int_equal(s->k.taken, 2);
}

/* The handle may end in between. */
static void it_ends_without_a_daemon(void **state)
{
	struct scene *s = *state;
	struct readyd_taken t = nothing();
	int other = park_in(s, "web", NULL, 3);
	struct readyd_options o = {.size = sizeof(o), .socket = s->k.path};

	attach(s, "web", 1);
	shut(s, true);
	die_at(s, 3, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(readyd_receive(s->r, &t, MS), 1);
	readyd_taken_clear(&t);
	close(other);
	assert_int_equal(readyd_done(s->r, "web"), 0);
	assert_int_equal(readyd_detach(s->r, "web"), 0);
	readyd_close(s->r);
	shut(s, false);
	assert_int_equal(readyd_connect(&o, &s->r, NULL), 0);
}

static void a_daemon_that_comes_back_may_refuse(void **state)
{
	struct scene *s = *state;
	struct readyd_taken t = nothing();
	struct readyd_event e;
	int other;

	attach(s, "web", 1);
	s->k.refuse_attach = WIRE_E_NO_RESOURCES;
	s->k.refuse_attaches = 3;
	die_at(s, 1, BEFORE);
	other = park_in(s, "web", NULL, 4);
	t = receive(s); /* it is asked again until there is room */
	assert_int_equal(s->k.attaches, 5);
	expect_whole(s, &t, other);
	s->k.refuse_attach = WIRE_E_ACCESS;
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(readyd_poll(s->r, &e, 1, LONG), 1);
	assert_int_equal(e.kind, READYD_EVENT_HANDOUT);
	assert_int_equal(readyd_receive(s->r, &t, -1), -EACCES);
	assert_non_null(strstr(readyd_last_error(s->r), "'web'"));
	assert_int_equal(readyd_receive(s->r, &t, -1), -EINVAL);
	s->k.refuse_attach = WIRE_OK;
	attach(s, "web", 1);
	assert_int_equal(credit(s), 1);
}

/* Parks of a group have no event; they are claimed anew after a death, until they are back here. */
static void parks_of_a_group_are_claimed(void **state)
{
	struct scene *s = *state;
	int others[40];
	struct readyd_event e;

	s->k.ready = true;
	for (unsigned i = 0; i < 40; i++)
		others[i] = park_in(s, "web", NULL, i);
	for (unsigned i = 1; i <= 2; i++) {
		die_at(s, 1, BEFORE);
		assert_int_equal(readyd_sync(s->r), 0);
		assert_int_equal(s->k.claims, i); /* one message */
		assert_int_equal(readyd_poll(s->r, &e, 1, 0), 0);
	}
	attach(s, "web", 40);
	for (unsigned i = 0; i < 40; i++) {
		struct readyd_taken t = receive(s);

		assert_int_equal(t.cookie, i);
		expect_whole(s, &t, others[i]);
	}
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(s->k.claims, 2);
}

/* ---- Threads ---- */

enum { N_THREADS = 4, N_PARKS = 48 };

struct worker {
	pthread_t thread;
	struct scene *s;
	unsigned *seen; /* by cookie; under `lock` */
	pthread_mutex_t *lock;
	bool good;
};

/* Asserts are for the test's own thread. */
static void *worker_run(void *context)
{
	struct worker *w = context;
	char byte;

	w->good = true;
	for (;;) {
		struct readyd_taken t = nothing();
		int n = readyd_receive(w->s->r, &t, -1);

		if (n == -EINVAL)
			return NULL; /* the group was left */
		if (n != 1 || t.cookie >= N_PARKS || read(t.fd, &byte, 1) != 1 ||
		    write(t.fd, &byte, 1) != 1) {
			w->good = false;
			return NULL;
		}
		(void)pthread_mutex_lock(w->lock);
		w->seen[t.cookie]++;
		(void)pthread_mutex_unlock(w->lock);
		readyd_taken_clear(&t);
		n = readyd_done(w->s->r, "web");
		if (n && n != -ENOENT) /* left, as soon as the last one was served */
			w->good = false;
	}
}

static void threads_receive_at_once(void **state)
{
	struct scene *s = *state;
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	unsigned seen[N_PARKS] = {0};
	struct worker w[N_THREADS];
	int others[N_PARKS];
	char byte = 'x';

	attach(s, "web", N_THREADS);
	for (unsigned i = 0; i < N_THREADS; i++) {
		w[i] = (struct worker){.s = s, .seen = seen, .lock = &lock};
		assert_int_equal(pthread_create(&w[i].thread, NULL, worker_run, &w[i]), 0);
	}
	for (unsigned i = 0; i < N_PARKS; i++) {
		if (i % 4 == 3)
			die_at(s, 1 + i % 7, (enum moment)(i % 3));
		others[i] = park_in(s, "web", NULL, i);
		assert_int_equal(write(others[i], &byte, 1), 1);
	}
	for (unsigned i = 0; i < N_PARKS; i++) {
		assert_int_equal(read(others[i], &byte, 1), 1);
		assert_int_equal(read(others[i], &byte, 1), 0); /* no other copy is left */
		close(others[i]);
	}
	die_at(s, 0, BEFORE);
	assert_int_equal(readyd_detach(s->r, "web"), 0);
	for (unsigned i = 0; i < N_THREADS; i++) {
		pthread_join(w[i].thread, NULL);
		assert_true(w[i].good);
	}
	for (unsigned i = 0; i < N_PARKS; i++)
		assert_int_equal(seen[i], 1);
	assert_int_equal(s->k.taken, N_PARKS);
	assert_true(s->k.most_here <= N_THREADS);
}

static void *poller_run(void *context)
{
	struct scene *s = context;
	struct readyd_event e;
	int n;

	do
		n = readyd_poll(s->r, &e, 1, -1);
	while (n == 1 && e.kind == READYD_EVENT_HANDOUT);
	return n == 1 && e.kind == READYD_EVENT_TIMER ? s : NULL;
}

/* A thread that polls and one that receives do not take each other's. */
static void pollers_and_receivers(void **state)
{
	struct scene *s = *state;
	struct wire_timer_entry entry = {.kind = WIRE_RECORD_TIMER, .count = 1};
	struct readyd_taken t = nothing();
	readyd_id timer = 0;
	pthread_t thread;
	void *result;

	attach(s, "web", 1);
	assert_int_equal(readyd_timer_set(s->r, &timer, INT64_MAX, 0, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, poller_run, s), 0);
	for (unsigned i = 0; i < 20; i++) {
		int other = park_in(s, "web", NULL, i);

		t = receive(s);
		assert_int_equal(t.cookie, i);
		expect_whole(s, &t, other);
		assert_int_equal(readyd_done(s->r, "web"), 0);
	}
	entry.id = (uint32_t)timer;
	entry.gen = 1;
	say_message(&s->k, WIRE_READY, 0, &entry, 1, NULL, 0, -1);
	assert_int_equal(readyd_receive(s->r, &t, 50 * MS), 0);
	pthread_join(thread, &result);
	assert_ptr_equal(result, s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_open, scene_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(hand_outs_come_as_there_is_room),
		TEST(nothing_is_acknowledged_before_it_is_received),
		TEST(leaving_gives_back),
		TEST(the_end_gives_back),
		TEST(without_a_free_fd_another_gets_it),
		TEST(capacity_is_changed),
		TEST(bad_arguments_of_groups),
		TEST(many_groups_are_too_many),
		TEST(a_change_that_is_refused_changes_nothing),
		TEST(refused_acknowledgement_is_another_s),
		TEST(breaks_end_it),
		TEST(groups_are_listed),
		TEST(death_at_every_step_of_a_group),
		TEST(arrived_ones_come_again),
		TEST(a_limit_is_kept_without_a_daemon),
		TEST(it_ends_without_a_daemon),
		TEST(a_daemon_that_comes_back_may_refuse),
		TEST(parks_of_a_group_are_claimed),
		TEST(threads_receive_at_once),
		TEST(pollers_and_receivers),
	};

	return cmocka_run_group_tests_name("client_group", tests, NULL, NULL);
}
