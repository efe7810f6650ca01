/* SPDX-License-Identifier: MIT */

/*
 * Parks in libreadyd against a small daemon that does what it should, and dies where the test says,
 * for all n. Watched throughout: no fd is lost, doubled, or left over.
 */

#include "fake_keeper.h"

#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* ---- Without a death ---- */

static void park_and_take(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");
	struct readyd_taken t = {.size = sizeof(t)};
	uint64_t park = 0;
	int other = park_end(s, "conn", 77, &park);

	assert_int_equal(park, 1);
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	assert_int_equal(t.park, 1);
	assert_int_equal(t.cookie, 77);
	assert_string_equal(t.name, "conn");
	assert_string_equal(t.group, "");
	assert_int_equal(t.note_length, NOTE);
	assert_memory_equal(t.note, "hello", NOTE + 1);
	expect_whole(s, &t, other);
	assert_int_equal(readyd_take(s->r, &key, &t), -ENOENT);
	assert_non_null(strstr(readyd_last_error(s->r), "'conn'"));
	assert_int_equal(s->k.taken, 1);
	assert_int_equal(s->k.helds, 0);
}

static void bad_arguments(void **state)
{
	struct scene *s = *state;
	struct readyd_park_options o = named("conn", 0);
	struct readyd_park_key key = key_of("");
	struct readyd_taken t = {.size = sizeof(t)};
	char longer[300];

	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(readyd_park(s->r, -1, NULL, NULL, NULL), -EBADF);
	o.flags = 0x4;
	assert_int_equal(readyd_park(s->r, 0, &o, NULL, NULL), -EINVAL);
	o = named("a\nb", 0);
	assert_int_equal(readyd_park(s->r, 0, &o, NULL, NULL), -EINVAL);
	o = named(longer, 0);
	assert_int_equal(readyd_park(s->r, 0, &o, NULL, NULL), -EINVAL);
	o = named(NULL, 0);
	o.deadline = -1;
	assert_int_equal(readyd_park(s->r, 0, &o, NULL, NULL), -EINVAL);
	o.deadline = 0;
	o.note = longer;
	o.note_length = 2049;
	assert_int_equal(readyd_park(s->r, 0, &o, NULL, NULL), -EINVAL);
	assert_int_equal(readyd_take(s->r, &key, &t), -EINVAL);
	key.by = 3;
	assert_int_equal(readyd_drop(s->r, &key), -EINVAL);
	key = key_of("conn");
	t.size = 8;
	assert_int_equal(readyd_take(s->r, &key, &t), -EINVAL);
	assert_int_equal(s->k.messages, 1); /* HELLO */
	t = (struct readyd_taken){.size = sizeof(t)};
	readyd_taken_clear(&t); /* fd 0 stays */
	assert_true(fcntl(0, F_GETFD) >= 0);
}

static void busy_is_asked_again(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = {.size = sizeof(key), .by = READYD_BY_ID};
	struct readyd_taken t = {.size = sizeof(t)};
	int other = park_end(s, "conn", 0, &key.park);

	s->k.busy = 3;
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	assert_int_equal(s->k.busy, 0);
	expect_whole(s, &t, other);
}

static void drop_closes_it(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");
	int other = park_end(s, "conn", 0, NULL);
	char byte;

	assert_int_equal(readyd_drop(s->r, &key), 0);
	assert_int_equal(read(other, &byte, 1), 0);
	assert_int_equal(readyd_drop(s->r, &key), -ENOENT);
	close(other);
}

static void refused_acknowledgement_is_taken_anew(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");
	struct readyd_taken t = {.size = sizeof(t)};
	int other = park_end(s, "conn", 0, NULL);

	s->k.refuse_acknowledge = true;
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	assert_int_equal(s->k.acknowledges, 2);
	expect_whole(s, &t, other);
}

static void without_a_free_fd_it_stays_parked(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");
	struct readyd_taken t = {.size = sizeof(t)};
	int other = park_end(s, "conn", 0, NULL), room = dup(other);
	struct rlimit before, tight;

	close(room);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	tight = before;
	tight.rlim_cur = (rlim_t)room; /* all numbers below are in use */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	assert_int_equal(readyd_take(s->r, &key, &t), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(s->k.helds, 1);
	assert_int_equal(s->k.acknowledges, 0);
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	expect_whole(s, &t, other);
}

/* ---- Events ---- */

static void expect_park(struct scene *s, uint64_t park, uint64_t cookie)
{
	struct readyd_event e;

	assert_int_equal(readyd_poll(s->r, &e, 1, 10 * (int64_t)FAKE_NS), 1);
	assert_int_equal(e.kind, READYD_EVENT_PARK);
	assert_int_equal(e.id, park);
	assert_int_equal(e.cookie, cookie);
	assert_int_equal(e.read, READYD_READY);
	assert_int_equal(e.write, 0);
}

static void expect_quiet(struct scene *s)
{
	struct readyd_event e;

	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(readyd_poll(s->r, &e, 1, 0), 0);
}

static void events_come_once_over_deaths(void **state)
{
	struct scene *s = *state;
	uint64_t first, second;
	int others[2];

	s->k.ready = true;
	others[0] = park_end(s, "a", 10, &first);
	expect_park(s, first, 10);
	s->k.ready = false;
	others[1] = park_end(s, "b", 20, &second);
	expect_quiet(s);
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(s->k.claims, 1); /* the one that was told needs none */
	expect_quiet(s);
	s->k.ready = true;
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	die_at(s, 1, BEFORE); /* and once more, before it was taken */
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(s->k.claims, 3);
	expect_park(s, second, 20);
	expect_quiet(s);
	close(others[0]);
	close(others[1]);
}

static void claimed_parks_are_told_of(void **state)
{
	struct scene *s = *state;
	struct readyd_park_options o = named("a", 30);
	uint8_t token[16], unknown[16] = "unknown";
	uint64_t park;
	int fd = eventfd(0, EFD_CLOEXEC);

	s->k.ready = true;
	assert_int_equal(readyd_park(s->r, fd, &o, &park, token), 0);
	close(fd);
	expect_park(s, park, 30);
	assert_int_equal(readyd_claim(s->r, token), 0);
	expect_park(s, park, 30);
	assert_int_equal(readyd_claim(s->r, unknown), -ENOENT);
	/* Its deadline may be told yet, so it is claimed anew; that it is ready is no news. */
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(s->k.claims, 3);
	expect_quiet(s);
	/* Gone behind its back: found out when it comes back. */
	close(s->k.parks[0].fd);
	s->k.parks[0].fd = -1;
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(s->k.claims, 4);
	expect_quiet(s);
}

static void what_is_taken_has_no_event(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("a");
	struct readyd_taken t = {.size = sizeof(t)};
	int other;

	s->k.ready = true;
	other = park_end(s, "a", 1, NULL);
	assert_int_equal(readyd_sync(s->r), 0); /* its event is here, and not taken */
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	expect_quiet(s);
	expect_whole(s, &t, other);
}

static void many_parks_are_found_by_number(void **state)
{
	enum { N = 300 };
	struct scene *s = *state;
	struct readyd_park_options o = named(NULL, 0);
	struct readyd_event e;
	uint64_t park;
	int fd = eventfd(0, EFD_CLOEXEC);

	for (unsigned i = 0; i < N; i++) {
		o.cookie = i;
		assert_int_equal(readyd_park(s->r, fd, &o, &park, NULL), 0);
		pthread_mutex_lock(&s->k.mutex);
		close(s->k.parks[0].fd);
		s->k.parks[0].fd = -1; /* its place is used again */
		pthread_mutex_unlock(&s->k.mutex);
	}
	close(fd);
	for (unsigned i = N; i > 0; i--) {
		struct wire_park_entry entry = {.kind = WIRE_RECORD_PARK,
						.write = WIRE_CODE_READY,
						.park = i,
						.cookie = i - 1};

		say_message(&s->k, WIRE_READY, 0, &entry, 1, NULL, 0, -1);
		say_message(&s->k, WIRE_READY, 0, &entry, 1, NULL, 0, -1); /* is not told again */
		assert_int_equal(readyd_poll(s->r, &e, 1, -1), 1);
		assert_int_equal(e.id, i);
		assert_int_equal(e.cookie, i - 1);
		assert_int_equal(e.write, READYD_READY);
	}
	expect_quiet(s);
}

/* ---- A death at every step ---- */

/* One park, one take, with a death at the n-th message. false: there are fewer. */
static bool live_through(struct scene *s, unsigned n, enum moment moment)
{
	struct readyd_park_key key = key_of("conn");
	struct readyd_taken t = {.size = sizeof(t)};
	unsigned before = s->k.taken, fds;
	uint64_t last = s->k.last;
	int other;

	assert_int_equal(readyd_sync(s->r), 0); /* no earlier connection is left */
	fds = count_fds();
	die_at(s, n, moment);
	other = park_end(s, "conn", n, NULL);
	if (readyd_take(s->r, &key, &t))
		fail_msg("step %u, moment %u: %s", n, moment, readyd_last_error(s->r));
	assert_int_equal(t.cookie, n);
	assert_int_equal(s->k.taken, before + 1);
	assert_int_equal(s->k.last, last + 1); /* parked once */
	expect_whole(s, &t, other);
	assert_int_equal(readyd_take(s->r, &key, &t), -ENOENT);
	pthread_mutex_lock(&s->k.mutex);
	s->k.die_at = 0;
	pthread_mutex_unlock(&s->k.mutex);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(count_fds(), fds);
	return s->k.deaths == 1;
}

static void death_at_every_step(void **state)
{
	struct scene *s = *state;

	for (enum moment m = BEFORE; m <= AFTER; m++) {
		unsigned n = 1;

		while (live_through(s, n, m))
			n++;
		/* PARK, TAKE, HANDOUT, ACKNOWLEDGE, and the TAKE that finds nothing, at least */
		assert_true(n > 5);
		assert_int_equal(s->k.deaths, 0);
	}
}

/* Two deaths: at each step, and at each step of what follows it. */
static void two_deaths(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");

	for (unsigned n = 1; n <= 4; n++)
		for (unsigned further = 1; further <= 6; further++)
			for (enum moment m = BEFORE; m <= AFTER; m++) {
				struct readyd_taken t = {.size = sizeof(t)};
				unsigned before = s->k.taken;
				struct readyd_event e;
				int other = park_end(s, "conn", n, NULL);

				die_at(s, further, m);
				if (n == 2)
					assert_int_equal(readyd_poll(s->r, &e, 1, 0), 0);
				if (n > 2)
					(void)shutdown(s->k.socket, SHUT_WR);
				assert_int_equal(readyd_take(s->r, &key, &t), 0);
				assert_int_equal(s->k.taken, before + 1);
				expect_whole(s, &t, other);
				die_at(s, 0, m);
			}
}

static void drop_at_every_step(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");

	for (enum moment m = BEFORE; m <= AFTER; m++) {
		unsigned before = s->k.dropped;
		int other = park_end(s, "conn", 0, NULL);
		char byte;

		die_at(s, 1, m);
		assert_int_equal(readyd_drop(s->r, &key), 0);
		assert_int_equal(s->k.dropped, before + 1);
		assert_int_equal(read(other, &byte, 1), 0);
		close(other);
	}
}

/* The first word on a new connection is what is held. */
static void held_comes_first(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");
	struct readyd_taken t = {.size = sizeof(t)};
	int other = park_end(s, "conn", 0, NULL);

	die_at(s, 3, BEFORE); /* the acknowledgement */
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	assert_int_equal(s->k.helds, 1);
	assert_int_equal(s->k.acknowledges, 0);
	assert_int_equal(s->k.first_type, WIRE_HELD);
	expect_whole(s, &t, other);
}

/* ---- Threads ---- */

struct taker {
	pthread_t thread;
	struct scene *s;
	unsigned number, got;
};

/* Asserts are for the test's own thread: this one only counts what went well. */
static bool round_trip(struct taker *w, const char *name, unsigned i)
{
	struct readyd_park_options o = named(name, i);
	struct readyd_park_key key = key_of(name);
	struct readyd_taken t = {.size = sizeof(t)};
	char byte = 'x';
	int ends[2];
	bool good;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return false;
	good = readyd_park(w->s->r, ends[0], &o, NULL, NULL) == 0;
	close(ends[0]);
	good = good && readyd_take(w->s->r, &key, &t) == 0 && t.cookie == i &&
	       strcmp(t.name, name) == 0 && write(ends[1], &byte, 1) == 1 &&
	       read(t.fd, &byte, 1) == 1;
	readyd_taken_clear(&t);
	if (good) {
		struct pollfd end = {.fd = ends[1], .events = POLLIN};

		good = poll(&end, 1, 10000) == 1 && read(ends[1], &byte, 1) == 0;
	}
	close(ends[1]);
	return good;
}

static void *taker_run(void *context)
{
	struct taker *w = context;
	char name[16];

	snprintf(name, sizeof(name), "t%u", w->number);
	while (w->got < 20 && round_trip(w, name, w->got))
		w->got++;
	return NULL;
}

static void threads_take_at_once(void **state)
{
	struct scene *s = *state;
	struct taker w[4];

	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct taker){.s = s, .number = i};
		assert_int_equal(pthread_create(&w[i].thread, NULL, taker_run, &w[i]), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		struct timespec pause = {.tv_nsec = 2000000};

		die_at(s, 3 + i % 7, (enum moment)(i % 3));
		nanosleep(&pause, NULL);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(w[i].thread, NULL);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(w[i].got, 20);
	assert_int_equal(s->k.taken, 80);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_open, scene_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(park_and_take),
		TEST(bad_arguments),
		TEST(busy_is_asked_again),
		TEST(drop_closes_it),
		TEST(refused_acknowledgement_is_taken_anew),
		TEST(without_a_free_fd_it_stays_parked),
		TEST(events_come_once_over_deaths),
		TEST(claimed_parks_are_told_of),
		TEST(what_is_taken_has_no_event),
		TEST(many_parks_are_found_by_number),
		TEST(death_at_every_step),
		TEST(two_deaths),
		TEST(drop_at_every_step),
		TEST(held_comes_first),
		TEST(threads_take_at_once),
	};

	return cmocka_run_group_tests_name("client_park", tests, NULL, NULL);
}
