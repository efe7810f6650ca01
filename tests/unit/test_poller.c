/* SPDX-License-Identifier: MIT */
/*
 * The contract of poller.h, one test for all backends: each row of the table at the end names the
 * backends that it is run on. Tests of items of the conformance checklist carry their number.
 */
#include "poller_fixture.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- choice, life, descriptors ---- */

static void backends_by_name(void **state)
{
	(void)state;
	assert_ptr_equal(poller_backend_by_name("epoll"), &poller_backend_epoll);
	assert_ptr_equal(poller_backend_by_name("poll"), &poller_backend_poll);
	assert_null(poller_backend_by_name("fake"));
	assert_null(poller_backend_by_name(""));
	assert_null(poller_free(NULL));
}

static void no_fd_in_the_zone(void **state)
{
	struct fixture *t = *state;
	struct watch w;
	int probe, again;

	probe = fcntl(0, F_DUPFD_CLOEXEC, 0);
	assert_in_range(probe, FD_ZONE_FIRST, FD_ZONE_LAST);
	close(probe);
	struct poller_set *set = set_make(t);
	w = watch_open(t, set, 1, POLLER_READ);
	watch_shut(&w);
	again = fcntl(0, F_DUPFD_CLOEXEC, 0);
	close(again);
	assert_int_equal(again, probe);
	set_end(t, set);
}

static void caps_are_honest_about_files(void **state)
{
	struct fixture *t = *state;
	FILE *file = tmpfile();
	uint32_t word;
	int r;

	assert_non_null(file);
	r = poller_open(t->p, t->set, fileno(file), 5, BOTH, &word);
	if (poller_caps(t->p) & POLLER_FILES) {
		assert_int_equal(r, 0);
		assert_int_equal(poller_arm(t->p, t->set, 5, word, BOTH), 0);
		expect_one(t, 5, BOTH, true);
	} else {
		assert_int_equal(r, -EPERM);
		assert_int_equal(poller_close(t->p, t->set, fileno(file), 5, fileno(file)),
				 -ENOENT);
		expect_nothing(t);
	}
	fclose(file);
}

static void open_refuses_a_bad_fd(void **state)
{
	struct fixture *t = *state;
	uint32_t word = 77;

	assert_int_equal(poller_open(t->p, t->set, -1, 1, BOTH, &word), -EBADF);
	assert_int_equal(poller_open(t->p, t->set, 999999, 1, BOTH, &word), -EBADF);
	assert_int_equal(poller_add(t->p, -1, 1, BOTH), -EBADF);
	assert_int_equal(poller_add(t->p, 999999, 1, BOTH), -EBADF);
	assert_int_equal(word, 77);
}

/* K-039, H8: the second registration is refused, and the first one keeps its events. */
static void open_twice_is_refused_and_the_first_lives(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, POLLER_READ);
	uint32_t word = 0;
	int other = fcntl(w.near, F_DUPFD_CLOEXEC, 0);

	assert_int_equal(poller_open(t->p, t->set, w.near, 2, POLLER_READ, &word), -EEXIST);
	watch_write(&w);
	expect_one(t, 1, POLLER_READ, true);
	/* The same description under another number is another registration. */
	assert_int_equal(poller_open(t->p, t->set, other, 3, POLLER_READ, &word), 0);
	assert_int_equal(word, other);
	expect_one(t, 3, POLLER_READ, true);
	close(other);
	watch_shut(&w);
}

static void fd_limits_are_passed_on(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_make(t, t->set, 1);
	struct rlimit before, low;
	struct poller_set *set = NULL;
	struct poller *p = NULL;
	uint32_t word;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	low = before;
	low.rlim_cur = FD_LASTING;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	int r_new = poller_new(t->p->backend, &p);
	int r = t->on == ON_EPOLL ? poller_set_new(t->p, t, &set)
				  : poller_open(t->p, t->set, w.near, 1, BOTH, &word);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(r, -EMFILE);
	assert_int_equal(r_new, -EMFILE);
	assert_null(set);
	assert_null(p);
	watch_shut(&w);
}

static unsigned fds_now(int fds[], unsigned max)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;
	struct dirent *d;

	assert_non_null(dir);
	while ((d = readdir(dir))) {
		int fd = atoi(d->d_name);

		if (d->d_name[0] == '.' || fd == dirfd(dir))
			continue;
		assert_true(n < max);
		fds[n++] = fd;
	}
	closedir(dir);
	return n;
}

static bool listed(const int fds[], unsigned n, int fd)
{
	for (unsigned i = 0; i < n; i++)
		if (fds[i] == fd)
			return true;
	return false;
}

static void knows_its_own_descriptors(void **state)
{
	struct fixture *t = *state;
	int before[512], after[512];
	unsigned n_before = fds_now(before, 512), n_after, n_own = 0;
	struct poller_set *sets[3];
	struct poller *p;
	int strangers[3] = {eventfd(0, 0), epoll_create1(0), dup(0)};

	assert_int_equal(poller_new(t->p->backend, &p), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(poller_set_new(p, NULL, &sets[i]), 0);
	n_after = fds_now(after, 512);
	for (unsigned i = 0; i < n_after; i++) {
		int copy;

		if (listed(before, n_before, after[i]) || listed(strangers, 3, after[i]))
			continue;
		n_own++;
		copy = dup(after[i]);
		assert_true(after[i] >= FD_LASTING);
		assert_int_equal(poller_is_poll_descriptor(p, after[i]), 1);
		assert_int_equal(poller_is_poll_descriptor(p, copy), 1);
		assert_int_equal(poller_is_poll_descriptor(t->p, copy), 0);
		close(copy);
		assert_int_equal(poller_is_poll_descriptor(p, copy), 0);
	}
	assert_int_equal(n_own, t->on == ON_EPOLL ? 2 + 3 : 2);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(poller_is_poll_descriptor(p, strangers[i]), 0);
		close(strangers[i]);
	}
	/* With sets left, free closes them. */
	poller_free(p);
	assert_int_equal(fds_now(after, 512), n_before);
}

/* ---- watches: level, edge, mapping ---- */

static void initial_level_is_reported(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_make(t, t->set, 42);

	if (t->on & ON_REAL)
		watch_write(&w);
	watch_register(&w, POLLER_READ);
	if (t->on & ON_FAKE)
		watch_write(&w);
	watch_arm(&w, POLLER_READ);
	expect_one(t, 42, POLLER_READ, true);
	expect_nothing(t);
	watch_shut(&w);
}

static void edges_are_reported_once_without_arm(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, POLLER_READ);

	for (int i = 0; i < 3; i++) {
		watch_write(&w);
		expect_one(t, 1, POLLER_READ, true);
		expect_nothing(t); /* undrained, and not again */
	}
	watch_shut(&w);
}

/* S-100: one report for each arm, from the level; the other direction stays armed. */
static void levels_are_reported_once_an_arm(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, BOTH);

	watch_write(&w);
	expect_nothing(t);
	watch_arm(&w, POLLER_READ);
	expect_one(t, 1, POLLER_READ, true);
	expect_nothing(t);
	watch_write(&w);
	expect_nothing(t); /* a new edge is no arm */
	watch_arm(&w, POLLER_READ);
	expect_one(t, 1, POLLER_READ, true);
	watch_drain(&w);
	watch_arm(&w, POLLER_READ);
	expect_nothing(t); /* armed, and nothing there */
	if (t->on & ON_FAKE)
		assert_int_equal(fake_edge(t->p, 1, EVENT_OUT), 0);
	watch_arm(&w, POLLER_WRITE);
	expect_one(t, 1, POLLER_WRITE, true);
	watch_write(&w);
	expect_one(t, 1, POLLER_READ, true); /* of the arm before */
	expect_nothing(t);
	if (t->on & ON_FAKE)
		assert_int_equal(fake_arms(t->p, 1), 4);
	watch_shut(&w);
}

static void directions_of_no_interest_stay_silent(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, POLLER_READ);

	if (t->on & ON_FAKE_LEVEL)
		assert_int_equal(fake_edge(t->p, 1, EVENT_OUT), 0);
	watch_arm(&w, BOTH);
	expect_nothing(t); /* writable */
	watch_write(&w);
	expect_one(t, 1, POLLER_READ, true);
	watch_shut(&w);
}

static void both_directions_come_in_one_event(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_make(t, t->set, 1);

	if (t->on & ON_REAL)
		watch_write(&w);
	watch_register(&w, BOTH);
	if (t->on & ON_FAKE)
		assert_int_equal(fake_edge(t->p, 1, EVENT_IN | EVENT_OUT), 0);
	watch_arm(&w, BOTH);
	expect_one(t, 1, BOTH, true);
	watch_shut(&w);
}

/* S-101: the table of Go's netpoll, written out once more. */
static void event_mapping_alone_and_in_pairs(void **state)
{
	static const struct {
		uint32_t bit;
		bool read, write;
	} table[] = {
		{0x1, true, false},    /* IN */
		{0x4, false, true},    /* OUT */
		{0x2000, true, false}, /* RDHUP */
		{0x10, true, true},    /* HUP */
		{0x8, true, true},     /* ERR */
	};
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 9, BOTH);

	for (int i = 0; i < 5; i++) {
		for (int j = 0; j < 5; j++) {
			uint32_t mask = 0;

			if (table[i].read || table[j].read)
				mask |= POLLER_READ;
			if (table[i].write || table[j].write)
				mask |= POLLER_WRITE;
			if (i == 4 && j == 4)
				mask |= POLLER_ERROR;
			assert_int_equal(fake_edge(t->p, 9, table[i].bit | table[j].bit), 0);
			watch_arm(&w, BOTH);
			expect_one(t, 9, mask, true);
			fake_calm(t->p, 9);
			/* What is armed still would show in the next round. */
			assert_int_equal(fake_edge(t->p, 9, EVENT_HUP), 0);
			ask(t, MAX_EVENTS);
			fake_calm(t->p, 9);
		}
	}
}

static void half_close_is_read(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, POLLER_READ);

	watch_arm(&w, POLLER_READ);
	expect_nothing(t);
	assert_int_equal(shutdown(w.far, SHUT_WR), 0);
	expect_one(t, 1, POLLER_READ, true);
	watch_shut(&w);
}

static void hang_up_is_both(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, BOTH);

	ask(t, MAX_EVENTS); /* writable */
	close(w.far);
	w.far = -1;
	watch_arm(&w, BOTH);
	expect_one(t, 1, BOTH, true);
	expect_nothing(t);
	watch_shut(&w);
}

static void fill(int fd)
{
	char bytes[4096] = {0};

	while (write(fd, bytes, sizeof(bytes)) > 0)
		;
	assert_int_equal(errno, EAGAIN);
}

static void bare_error_is_told(void **state)
{
	struct fixture *t = *state;
	int ends[2];
	uint32_t word;

	for (int full = 0; full < 2; full++) {
		assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
		if (full)
			fill(ends[1]);
		assert_int_equal(poller_open(t->p, t->set, ends[1], 3, BOTH, &word), 0);
		ask(t, MAX_EVENTS);
		close(ends[0]);
		assert_int_equal(poller_arm(t->p, t->set, 3, word, BOTH), 0);
		expect_one(t, 3, full ? BOTH | POLLER_ERROR : BOTH, true);
		assert_int_equal(poller_close(t->p, t->set, ends[1], 3, word), 0);
		close(ends[1]);
	}
}

static void unarmed_hang_up_does_not_wake(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, BOTH);
	int64_t start;

	close(w.far);
	w.far = -1;
	start = now_ns();
	assert_int_equal(poller_poll(t->p, 5 * MS, t->events, MAX_EVENTS), 0);
	assert_true(now_ns() - start >= 5 * MS);
	watch_arm(&w, POLLER_WRITE);
	expect_one(t, 1, POLLER_WRITE, true);
	start = now_ns();
	assert_int_equal(poller_poll(t->p, 5 * MS, t->events, MAX_EVENTS), 0);
	assert_true(now_ns() - start >= 5 * MS);
	watch_shut(&w);
}

/* ---- the end of registrations ---- */

static void close_while_ready_gives_no_event(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, POLLER_READ);
	struct watch other = watch_open(t, t->set, 2, POLLER_READ);

	watch_arm(&w, POLLER_READ);
	watch_write(&w);
	assert_int_equal(watch_close(&w), 0);
	expect_nothing(t);
	assert_int_equal(watch_close(&w), -ENOENT);
	watch_arm(&other, POLLER_READ);
	watch_write(&other);
	expect_one(t, 2, POLLER_READ, true);
	watch_shut(&w);
	watch_shut(&other);
}

static void close_with_another_fd_on_the_lane_is_enoent(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, POLLER_READ);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int kept = dup(w.near);
	int ends[2];

	/* Something else is on the number now: a socket, then what cannot be polled at all. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(dup2(ends[0], w.near), w.near);
	assert_int_equal(watch_close(&w), -ENOENT);
	assert_int_equal(dup2(null, w.near), w.near);
	assert_int_equal(watch_close(&w), -ENOENT);
	watch_write(&w);
	expect_one(t, 1, POLLER_READ, true);
	assert_int_equal(poller_close(t->p, t->set, -1, 1, w.word), 0);
	assert_int_equal(dup2(kept, w.near), w.near);
	assert_int_equal(watch_close(&w), 0);
	close(ends[0]);
	close(ends[1]);
	close(null);
	close(kept);
	watch_shut(&w);
}

/* H9: weak. The last close of the description ends the registration, without a word. */
static void closing_the_description_ends_a_weak_watch(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, POLLER_READ);
	char byte;
	int copy;

	if (t->on & ON_FAKE) {
		assert_int_equal(poller_close(t->p, t->set, -1, 1, w.word), 0);
		watch_write(&w);
		expect_one(t, 1, POLLER_READ, true); /* dead, and still firing */
		fake_gone(t->p, 1);
		assert_int_equal(fake_registered(t->p), 0);
		return;
	}
	copy = dup(w.near);
	close(w.near);
	w.near = -1;
	watch_write(&w);
	expect_one(t, 1, POLLER_READ, true);
	watch_write(&w);
	close(copy);
	expect_nothing(t);
	assert_int_equal(read(w.far, &byte, 1), -1);
	assert_int_equal(errno, ECONNRESET); /* unread data: the peer sees the end */
	watch_shut(&w);
}

/* Without WEAK the backend's copy keeps the description until close. */
static void a_held_watch_outlives_the_clients_fd(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, POLLER_READ);
	char byte;

	close(w.near);
	w.near = -1;
	watch_arm(&w, POLLER_READ);
	watch_write(&w);
	expect_one(t, 1, POLLER_READ, true);
	assert_int_equal(read(w.far, &byte, 1), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(watch_close(&w), 0);
	assert_int_equal(read(w.far, &byte, 1), -1);
	assert_int_equal(errno, ECONNRESET);
	watch_shut(&w);
}

static void words_outlive_the_removal_of_neighbours(void **state)
{
	struct fixture *t = *state;
	struct watch w[8];

	for (unsigned i = 0; i < 8; i++)
		w[i] = watch_open(t, t->set, 100 + i, POLLER_READ);
	for (unsigned i = 0; i < 8; i += 2)
		assert_int_equal(watch_close(&w[i]), 0);
	for (unsigned i = 0; i < 8; i++) {
		int r = poller_arm(t->p, t->set, w[i].tag, w[i].word, POLLER_READ);

		assert_int_equal(r, i % 2 ? 0 : -ENOENT);
		if (r < 0)
			continue;
		watch_write(&w[i]);
		expect_one(t, w[i].tag, POLLER_READ, true);
	}
	/* A word's next owner is not mistaken for the one before. */
	struct watch next = watch_open(t, t->set, 200, POLLER_READ);

	for (unsigned i = 0; i < 8; i += 2)
		assert_int_equal(poller_close(t->p, t->set, -1, w[i].tag, w[i].word), -ENOENT);
	watch_arm(&next, POLLER_READ);
	watch_write(&next);
	expect_one(t, 200, POLLER_READ, true);
	watch_shut(&next);
	for (unsigned i = 0; i < 8; i++)
		watch_shut(&w[i]);
}

static void no_event_follows_the_end_of_a_set(void **state)
{
	struct fixture *t = *state;
	struct poller_set *set = set_make(t);
	struct watch w[3];

	for (unsigned i = 0; i < 3; i++) {
		w[i] = watch_open(t, set, 10 + i, POLLER_READ);
		watch_arm(&w[i], POLLER_READ);
		watch_write(&w[i]);
	}
	assert_int_equal(ask(t, 1), 1); /* two are left in the kernel */
	int fd = poller_set_end(t->p, set);

	/* Before its fd is closed, too: a holder may take a while. */
	assert_int_equal(fd >= 0, t->on == ON_EPOLL);
	expect_nothing(t);
	if (fd >= 0)
		close(fd);
	/* The next set may stand in its place; old words mean nothing in it. */
	set = set_make(t);
	expect_nothing(t);
	struct watch next = watch_open(t, set, 10, POLLER_READ);

	expect_nothing(t);
	watch_arm(&next, POLLER_READ);
	watch_write(&next);
	expect_one(t, 10, POLLER_READ, true);
	set_end(t, set);
	watch_shut(&next);
	for (unsigned i = 0; i < 3; i++)
		watch_shut(&w[i]);
}

/* ---- batches and budgets ---- */

/* Takes t->events[0..n) into counts by tag, and how many are of tags below `limit`. */
static unsigned tally(struct fixture *t, int n, unsigned char *seen, uint64_t limit)
{
	unsigned below = 0;

	assert_true(n >= 0);
	for (int i = 0; i < n; i++) {
		seen[t->events[i].tag]++;
		below += t->events[i].tag < limit;
	}
	return below;
}

static void batch_limit_is_kept_and_nothing_lost(void **state)
{
	static const int expected[] = {4, 4, 2, 0};
	struct fixture *t = *state;
	unsigned char seen[10] = {0};
	struct watch w[10];

	for (unsigned i = 0; i < 10; i++) {
		w[i] = watch_open(t, t->set, i, POLLER_READ);
		watch_arm(&w[i], POLLER_READ);
		watch_write(&w[i]);
	}
	for (int i = 0; i < 4; i++) {
		int n = ask(t, 4);

		assert_int_equal(n, expected[i]);
		tally(t, n, seen, 0);
	}
	for (int i = 0; i < 10; i++) {
		assert_int_equal(seen[i], 1);
		watch_shut(&w[i]);
	}
}

/* One eventfd each: 5,000 pairs of sockets would be too many fds for some. */
static void many_open(struct fixture *t, struct poller_set *set, int *fds, unsigned n,
		      uint64_t first)
{
	uint32_t word;

	for (unsigned i = 0; i < n; i++) {
		fds[i] = (t->on & ON_REAL) ? eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
		if (t->on & ON_REAL)
			assert_true(fds[i] >= 0);
		assert_int_equal(poller_open(t->p, set, fds[i], first + i, POLLER_READ, &word), 0);
		if (t->on & ON_FAKE)
			assert_int_equal(fake_edge(t->p, first + i, EVENT_IN), 0);
		assert_int_equal(poller_arm(t->p, set, first + i, word, POLLER_READ), 0);
	}
}

static void many_close(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (fds[i] >= 0)
			assert_int_equal(close(fds[i]), 0);
}

/* S-072's half of the poller: each of 5,000 comes once, at most the budget a call. */
static void five_thousand_in_one_set(void **state)
{
	enum { N = 5000 };
	struct fixture *t = *state;
	unsigned char *seen = calloc(1, N);
	int *fds = calloc(N, sizeof(*fds));
	unsigned total = 0, calls = 0;
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if ((t->on & ON_REAL) && limit.rlim_cur < 2 * N + 100) {
		print_message("skipped: needs %d open files, the hard limit is lower\n", 2 * N);
		free(seen);
		free(fds);
		skip();
	}
	assert_non_null(seen);
	assert_non_null(fds);
	many_open(t, t->set, fds, N, 0);
	for (;;) {
		int n = ask(t, MAX_EVENTS);

		assert_in_range(n, 0, POLLER_SET_BUDGET);
		if (n == 0)
			break;
		total += tally(t, n, seen, N);
		calls++;
	}
	assert_int_equal(total, N);
	assert_int_equal(calls, (N + POLLER_SET_BUDGET - 1) / POLLER_SET_BUDGET);
	for (int i = 0; i < N; i++)
		assert_int_equal(seen[i], 1);
	many_close(fds, N);
	free(fds);
	free(seen);
}

/* S-075's half of the poller: a busy set keeps nobody waiting, also where room is short. */
static void busy_and_lone(struct fixture *t, struct poller_set *busy, struct poller_set *lone,
			  unsigned max, unsigned calls)
{
	enum { N = 900 };
	unsigned char seen[N + 1] = {0};
	int fds[N + 1];
	unsigned n_busy = 0;
	bool met = false;

	many_open(t, busy, fds, N, 0);
	many_open(t, lone, fds + N, 1, N);
	for (unsigned i = 0; n_busy < N; i++) {
		int n = ask(t, max);
		unsigned got = tally(t, n, seen, N);

		assert_in_range(got, 1, POLLER_SET_BUDGET);
		n_busy += got;
		met = met || seen[N];
		if (i + 1 == calls)
			assert_true(met);
	}
	for (int i = 0; i <= N; i++)
		assert_int_equal(seen[i], 1);
	expect_nothing(t);
	many_close(fds, N + 1);
}

static void a_busy_set_starves_no_other(void **state)
{
	struct fixture *t = *state;
	struct poller_set *first, *second;

	for (int order = 0; order < 2; order++) {
		first = set_make(t);
		second = set_make(t);
		busy_and_lone(t, order ? second : first, order ? first : second, 512, 1);
		set_end(t, first);
		set_end(t, second);
	}
}

/* epoll keeps a place for each set that is signalled; poll(2) begins with who waited longest. */
static void short_room_leaves_a_place_for_the_lone(void **state)
{
	struct fixture *t = *state;
	struct poller_set *first, *second;
	unsigned calls = t->on == ON_EPOLL ? 1 : 2;

	for (int order = 0; order < 2; order++) {
		first = set_make(t);
		second = set_make(t);
		busy_and_lone(t, order ? second : first, order ? first : second, 100, calls);
		set_end(t, first);
		set_end(t, second);
	}
}

static void short_room_is_shared_in_turn(void **state)
{
	enum { N = 500, ROOM = 50, CALLS = 10 };
	struct fixture *t = *state;
	struct poller_set *other = set_make(t);
	unsigned char seen[2 * N] = {0};
	unsigned of_first = 0;
	int fds[2 * N];

	many_open(t, t->set, fds, N, 0);
	many_open(t, other, fds + N, N, N);
	for (int i = 0; i < CALLS; i++) {
		int n = ask(t, ROOM);

		assert_int_equal(n, ROOM);
		of_first += tally(t, n, seen, N);
	}
	assert_int_equal(of_first, ROOM * CALLS / 2);
	set_end(t, other);
	many_close(fds, 2 * N);
}

static void take_is_of_one_set_and_whole(void **state)
{
	enum { N = 700 };
	struct fixture *t = *state;
	struct poller_set *other = set_make(t);
	unsigned char seen[N + 1] = {0};
	int fds[N + 1];

	many_open(t, t->set, fds, N, 0);
	many_open(t, other, fds + N, 1, N);
	int n = poller_take(t->p, t->set, t->events, 300);

	assert_int_equal(n, 300);
	assert_int_equal(tally(t, n, seen, N), 300);
	assert_true(t->events[0].watch);
	n = poller_take(t->p, t->set, t->events, MAX_EVENTS);
	assert_int_equal(tally(t, n, seen, N), N - 300);
	assert_int_equal(poller_take(t->p, t->set, t->events, MAX_EVENTS), 0);
	for (int i = 0; i < N; i++)
		assert_int_equal(seen[i], 1);
	expect_one(t, N, POLLER_READ, true);
	set_end(t, other);
	many_close(fds, N + 1);
}

/* ---- the daemon's own ---- */

static void own_is_level_triggered(void **state)
{
	struct fixture *t = *state;
	int ends[2];
	char byte;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(poller_modify(t->p, ends[0], 7, POLLER_READ), -ENOENT);
	assert_int_equal(poller_remove(t->p, ends[0]), -ENOENT);
	assert_int_equal(poller_add(t->p, ends[0], 7, POLLER_READ), 0);
	assert_int_equal(poller_add(t->p, ends[0], 8, POLLER_READ), -EEXIST);
	expect_nothing(t);
	assert_int_equal(write(ends[1], "x", 1), 1);
	own_level(t, ends[0], EVENT_IN | EVENT_OUT);
	for (int i = 0; i < 3; i++)
		expect_one(t, 7, POLLER_READ, false);
	assert_int_equal(poller_modify(t->p, ends[0], 9, POLLER_READ | POLLER_WRITE), 0);
	expect_one(t, 9, BOTH, false);
	assert_int_equal(poller_modify(t->p, ends[0], 9, 0), 0);
	expect_nothing(t);
	assert_int_equal(poller_modify(t->p, ends[0], 9, POLLER_READ), 0);
	assert_int_equal(read(ends[0], &byte, 1), 1);
	own_level(t, ends[0], 0);
	expect_nothing(t);
	close(ends[1]);
	own_level(t, ends[0], EVENT_IN | EVENT_HUP);
	for (int i = 0; i < 3; i++)
		expect_one(t, 9, POLLER_READ | POLLER_HANGUP, false);
	assert_int_equal(poller_modify(t->p, ends[0], 9, 0), 0);
	expect_one(t, 9, POLLER_HANGUP, false);
	assert_int_equal(poller_remove(t->p, ends[0]), 0);
	expect_nothing(t);
	close(ends[0]);
}

/* A number that is used again gets the new tag. */
static void own_number_is_reusable(void **state)
{
	struct fixture *t = *state;
	int fd = eventfd(1, EFD_CLOEXEC);

	for (uint64_t tag = 1; tag < 5; tag++) {
		assert_int_equal(poller_add(t->p, fd, tag << 60 | tag, POLLER_READ), 0);
		own_level(t, fd, EVENT_IN);
		expect_one(t, tag << 60 | tag, POLLER_READ, false);
		assert_int_equal(poller_remove(t->p, fd), 0);
		expect_nothing(t);
	}
	close(fd);
}

static void own_and_watches_come_together(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, UINT64_MAX, POLLER_READ);
	int fd = eventfd(1, EFD_CLOEXEC);
	bool own = false, watch = false;

	assert_int_equal(poller_add(t->p, fd, UINT64_MAX, POLLER_READ), 0);
	own_level(t, fd, EVENT_IN);
	watch_arm(&w, POLLER_READ);
	watch_write(&w);
	assert_int_equal(ask(t, MAX_EVENTS), 2);
	for (int i = 0; i < 2; i++) {
		assert_true(t->events[i].tag == UINT64_MAX);
		assert_int_equal(t->events[i].mask, POLLER_READ);
		own = own || !t->events[i].watch;
		watch = watch || t->events[i].watch;
	}
	assert_true(own && watch);
	assert_int_equal(poller_remove(t->p, fd), 0);
	close(fd);
	watch_shut(&w);
}

/* ---- time and breaks ---- */

static void positive_delta_is_not_early(void **state)
{
	static const int64_t deltas[] = {1, 300 * 1000, 2 * MS + 1, 20 * MS};
	struct fixture *t = *state;

	for (size_t i = 0; i < sizeof(deltas) / sizeof(deltas[0]); i++) {
		int64_t start = now_ns();

		assert_int_equal(poller_poll(t->p, deltas[i], t->events, MAX_EVENTS), 0);
		assert_true(now_ns() - start >= deltas[i]);
	}
}

static void huge_delta_is_capped(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, POLLER_READ);

	watch_arm(&w, POLLER_READ);
	watch_write(&w);
	assert_int_equal(poller_poll(t->p, INT64_MAX, t->events, MAX_EVENTS), 1);
	watch_shut(&w);
}

struct breaker {
	struct poller *p;
	pid_t sleeper; /* 0: does not wait for it */
	unsigned n;
};

static char thread_state(pid_t tid)
{
	char path[64], line[256] = "", *end;
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	file = fopen(path, "re");
	if (!file)
		return '?';
	(void)!fgets(line, sizeof(line), file);
	fclose(file);
	end = strrchr(line, ')');
	return end ? end[2] : '?';
}

static void *breaker_run(void *argument)
{
	struct breaker *b = argument;

	while (b->sleeper && thread_state(b->sleeper) != 'S')
		sched_yield();
	for (unsigned i = 0; i < b->n; i++)
		if (poller_break(b->p) < 0)
			abort();
	return NULL;
}

/* S-064 */
static void break_ends_a_blocked_poll(void **state)
{
	static const int64_t deltas[] = {-1, 10 * SECOND};
	struct fixture *t = *state;

	for (int i = 0; i < 2; i++) {
		struct breaker b = {.p = t->p, .sleeper = (pid_t)syscall(SYS_gettid), .n = 1};
		int64_t start = now_ns();
		pthread_t thread;

		assert_int_equal(pthread_create(&thread, NULL, breaker_run, &b), 0);
		assert_int_equal(poller_poll(t->p, deltas[i], t->events, MAX_EVENTS), 0);
		assert_true(now_ns() - start < 5 * SECOND);
		assert_int_equal(pthread_join(thread, NULL), 0);
	}
}

/* A poll that has no break to consume sleeps its time. */
static void expect_no_break(struct fixture *t)
{
	int64_t start = now_ns();

	assert_int_equal(poller_poll(t->p, 5 * MS, t->events, MAX_EVENTS), 0);
	assert_true(now_ns() - start >= 5 * MS);
}

static void expect_break(struct fixture *t)
{
	int64_t start = now_ns();

	assert_int_equal(poller_poll(t->p, 20 * SECOND, t->events, MAX_EVENTS), 0);
	assert_true(now_ns() - start < 10 * SECOND);
}

/* How often the break's eventfd was written since it was read. */
static unsigned break_writes(void)
{
	int fds[512];
	unsigned n = fds_now(fds, 512), count = 0;

	for (unsigned i = 0; i < n; i++) {
		char path[64], line[128];
		FILE *file;

		(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fds[i]);
		file = fopen(path, "re");
		assert_non_null(file);
		while (fgets(line, sizeof(line), file))
			if (strncmp(line, "eventfd-count:", 14) == 0)
				count += (unsigned)strtoul(line + 14, NULL, 16);
		fclose(file);
	}
	return count;
}

/* S-065 */
static void ten_thousand_breaks_are_one_wake(void **state)
{
	struct fixture *t = *state;
	struct breaker b = {.p = t->p, .n = 1000};
	pthread_t threads[10];

	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 10; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, breaker_run, &b), 0);
		for (int i = 0; i < 10; i++)
			assert_int_equal(pthread_join(threads[i], NULL), 0);
		if (t->on & ON_FAKE) {
			for (int i = 0; i < 3; i++)
				poller_poll(t->p, -1, t->events, MAX_EVENTS);
			assert_int_equal(fake_wakes(t->p), round + 1);
			continue;
		}
		if (t->on == ON_EPOLL)
			assert_int_equal(break_writes(), 1);
		assert_int_equal(poller_poll(t->p, -1, t->events, MAX_EVENTS), 0);
		expect_no_break(t);
	}
}

/* S-066 */
static void asking_leaves_the_break(void **state)
{
	struct fixture *t = *state;

	assert_int_equal(poller_break(t->p), 0);
	for (int i = 0; i < 3; i++)
		expect_nothing(t);
	if (t->on & ON_FAKE) {
		assert_int_equal(fake_wakes(t->p), 0);
		poller_poll(t->p, SECOND, t->events, MAX_EVENTS);
		assert_int_equal(fake_wakes(t->p), 1);
		return;
	}
	expect_break(t);
	expect_no_break(t);
}

/* S-067, the poller's half: one call has the events and consumes the break. */
static void break_and_event_come_together(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, POLLER_READ);

	watch_arm(&w, POLLER_READ);
	watch_write(&w);
	assert_int_equal(poller_break(t->p), 0);
	assert_int_equal(poller_poll(t->p, -1, t->events, MAX_EVENTS), 1);
	assert_int_equal(t->events[0].tag, 1);
	if (t->on & ON_FAKE)
		assert_int_equal(fake_wakes(t->p), 1);
	else
		expect_no_break(t);
	watch_shut(&w);
}

static void break_keeps_errno(void **state)
{
	struct fixture *t = *state;

	for (int i = 0; i < 3; i++) {
		errno = 77;
		assert_int_equal(poller_break(t->p), 0);
		assert_int_equal(errno, 77);
	}
	expect_break(t);
}

static void on_signal(int number)
{
	(void)number;
}

static void interrupted_poll_returns_nothing(void **state)
{
	struct fixture *t = *state;
	struct sigaction action = {.sa_handler = on_signal}, before;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	/* Again and again, as the first may come before the poll sleeps. */
	struct itimerspec every = {{0, 2 * MS}, {0, 2 * MS}};
	timer_t timer;

	assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
	assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	assert_int_equal(timer_settime(timer, 0, &every, NULL), 0);
	assert_int_equal(poller_poll(t->p, -1, t->events, MAX_EVENTS), 0);
	assert_int_equal(timer_delete(timer), 0);
	assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
}

/* Makes one system call fail with ENOSYS in this process, for good. */
static int forbid(int number)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Where epoll_pwait2 is missing (valgrind): ms, rounded up, and everything else as before. */
static int without_pwait2(struct fixture *t)
{
	const struct timespec zero = {0};
	struct epoll_event event;
	int64_t start;

	if (forbid(SYS_epoll_pwait2) < 0)
		return 1;
	if (epoll_pwait2(-1, &event, 1, &zero, NULL) != -1 || errno != ENOSYS)
		return 2;
	for (int i = 0; i < 2; i++) {
		start = now_ns();
		if (poller_poll(t->p, 2 * MS - 1, t->events, MAX_EVENTS) != 0)
			return 3;
		if (now_ns() - start < 2 * MS - 1)
			return 4;
	}
	start = now_ns();
	if (poller_break(t->p) < 0 || poller_poll(t->p, -1, t->events, MAX_EVENTS) != 0)
		return 5;
	if (poller_break(t->p) < 0 || poller_poll(t->p, INT64_MAX, t->events, MAX_EVENTS) != 0)
		return 6;
	return now_ns() - start < 5 * SECOND ? 0 : 7;
}

static void works_without_epoll_pwait2(void **state)
{
	struct fixture *t = *state;
	int status = -1;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0)
		_exit(without_pwait2(t));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- the fake itself ---- */

static void fake_fails_once_as_ordered(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, BOTH);
	struct poller_set *set = NULL;
	uint32_t word;

	for (int op = 0; op < FAKE_OPS; op++)
		fake_fail(t->p, (enum fake_op)op, ENOSPC);
	for (int round = 0; round < 2; round++) {
		int expected = round ? 0 : -ENOSPC;

		assert_int_equal(poller_add(t->p, 3, 1, 0), expected);
		assert_int_equal(poller_modify(t->p, 3, 1, 0), expected);
		assert_int_equal(poller_set_new(t->p, t, &set), expected);
		assert_int_equal(poller_open(t->p, t->set, -1, 2, BOTH, &word), expected);
		assert_int_equal(poller_arm(t->p, t->set, 1, w.word, BOTH), expected);
		assert_int_equal(poller_poll(t->p, 0, t->events, 1), expected);
		assert_int_equal(poller_take(t->p, t->set, t->events, 1), expected);
		assert_int_equal(poller_close(t->p, t->set, 0, 1, w.word), expected);
		assert_int_equal(poller_remove(t->p, 3), expected);
	}
	assert_int_equal(fake_registered(t->p), 1);
}

static void fake_records_what_it_was_asked(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, POLLER_READ);

	fake_time(t->p, 123);
	assert_int_equal(poller_poll(t->p, 456, t->events, 1), 0);
	assert_int_equal(fake_delta(t->p), 456);
	assert_int_equal(poller_poll(t->p, -1, t->events, 1), 0);
	assert_int_equal(fake_delta(t->p), -1);
	assert_int_equal(fake_polls(t->p), 2);
	assert_int_equal(fake_now(t->p), 123);
	assert_int_equal(fake_interest(t->p, 1), POLLER_READ);
	watch_arm(&w, POLLER_READ);
	assert_int_equal(fake_armed(t->p, 1), POLLER_READ);
	assert_int_equal(fake_arms(t->p, 1), 1);
	assert_int_equal(fake_arms(t->p, 2), 0);
}

/* S-102's half of the poller: an event under a tag that nobody has can be in a batch. */
static void fake_merges_edges_and_knows_dead_ones(void **state)
{
	struct fixture *t = *state;
	struct watch w = watch_open(t, t->set, 1, BOTH);

	(void)w;
	assert_int_equal(fake_edge(t->p, 1, EVENT_ERR), 0);
	assert_int_equal(fake_edge(t->p, 77, EVENT_ERR), 0);
	assert_int_equal(fake_edge(t->p, 1, EVENT_OUT), 0);
	assert_int_equal(ask(t, MAX_EVENTS), 2);
	assert_int_equal(t->events[0].tag, 1);
	assert_int_equal(t->events[0].mask, BOTH); /* no longer bare */
	assert_int_equal(t->events[1].tag, 77);
	assert_int_equal(t->events[1].mask, BOTH | POLLER_ERROR);
}

#define ROW(function, on)               \
	{                               \
#function, function, on \
	}

static const struct {
	const char *name;
	CMUnitTestFunction function;
	unsigned on;
} rows[] = {
	ROW(backends_by_name, ON_EPOLL),
	ROW(no_fd_in_the_zone, ON_REAL),
	ROW(caps_are_honest_about_files, ON_REAL),
	ROW(open_refuses_a_bad_fd, ON_REAL),
	ROW(open_twice_is_refused_and_the_first_lives, ON_EPOLL),
	ROW(fd_limits_are_passed_on, ON_REAL),
	ROW(knows_its_own_descriptors, ON_REAL),
	ROW(initial_level_is_reported, ON_ALL),
	ROW(edges_are_reported_once_without_arm, ON_EPOLL | ON_FAKE_EDGE),
	{"S-100 levels_are_reported_once_an_arm", levels_are_reported_once_an_arm,
	 ON_POLL | ON_FAKE_LEVEL},
	ROW(directions_of_no_interest_stay_silent, ON_REAL | ON_FAKE_LEVEL),
	ROW(both_directions_come_in_one_event, ON_ALL),
	{"S-101 event_mapping_alone_and_in_pairs", event_mapping_alone_and_in_pairs, ON_FAKE},
	ROW(half_close_is_read, ON_REAL),
	ROW(hang_up_is_both, ON_REAL),
	ROW(bare_error_is_told, ON_REAL),
	ROW(unarmed_hang_up_does_not_wake, ON_POLL),
	ROW(close_while_ready_gives_no_event, ON_ALL),
	ROW(close_with_another_fd_on_the_lane_is_enoent, ON_EPOLL),
	ROW(closing_the_description_ends_a_weak_watch, ON_EPOLL | ON_FAKE_EDGE),
	ROW(a_held_watch_outlives_the_clients_fd, ON_POLL),
	ROW(words_outlive_the_removal_of_neighbours, ON_POLL | ON_FAKE_LEVEL),
	ROW(no_event_follows_the_end_of_a_set, ON_ALL),
	ROW(batch_limit_is_kept_and_nothing_lost, ON_ALL),
	ROW(five_thousand_in_one_set, ON_ALL),
	ROW(a_busy_set_starves_no_other, ON_ALL),
	ROW(short_room_leaves_a_place_for_the_lone, ON_REAL),
	ROW(short_room_is_shared_in_turn, ON_REAL),
	ROW(take_is_of_one_set_and_whole, ON_ALL),
	ROW(own_is_level_triggered, ON_ALL),
	ROW(own_number_is_reusable, ON_ALL),
	ROW(own_and_watches_come_together, ON_ALL),
	ROW(positive_delta_is_not_early, ON_REAL),
	ROW(huge_delta_is_capped, ON_ALL),
	{"S-064 break_ends_a_blocked_poll", break_ends_a_blocked_poll, ON_REAL},
	{"S-065 ten_thousand_breaks_are_one_wake", ten_thousand_breaks_are_one_wake, ON_ALL},
	{"S-066 asking_leaves_the_break", asking_leaves_the_break, ON_ALL},
	ROW(break_and_event_come_together, ON_ALL),
	ROW(break_keeps_errno, ON_REAL),
	ROW(interrupted_poll_returns_nothing, ON_REAL),
	ROW(works_without_epoll_pwait2, ON_EPOLL),
	ROW(fake_fails_once_as_ordered, ON_FAKE),
	ROW(fake_records_what_it_was_asked, ON_FAKE_LEVEL),
	ROW(fake_merges_edges_and_knows_dead_ones, ON_FAKE_EDGE),
};

enum { N_ROWS = sizeof(rows) / sizeof(rows[0]), N_BACKENDS = 4 };

int main(void)
{
	static const char *const names[N_BACKENDS] = {"epoll", "poll", "fake edge", "fake level"};
	unsigned on[N_BACKENDS] = {ON_EPOLL, ON_POLL, ON_FAKE_EDGE, ON_FAKE_LEVEL};
	struct CMUnitTest tests[N_ROWS * N_BACKENDS];
	char labels[N_ROWS * N_BACKENDS][96];
	struct rlimit limit;
	size_t n = 0;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	for (size_t i = 0; i < N_ROWS; i++) {
		for (size_t j = 0; j < N_BACKENDS; j++) {
			if (!(rows[i].on & on[j]))
				continue;
			(void)snprintf(labels[n], sizeof(labels[n]), "%s [%s]", rows[i].name,
				       names[j]);
			tests[n] = (struct CMUnitTest){
				.name = labels[n],
				.test_func = rows[i].function,
				.setup_func = fixture_setup,
				.teardown_func = fixture_teardown,
				.initial_state = &on[j],
			};
			n++;
		}
	}
	return _cmocka_run_group_tests("poller", tests, n, NULL, NULL);
}
