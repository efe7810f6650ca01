/* SPDX-License-Identifier: MIT */

/*
 * libreadyd against a scripted daemon: what the library does by itself, apart from any daemon's
 * behaviour: connecting, watches, waits, timers, inspection.
 */

#include "client_fixture.h"

#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- Connecting ---- */

static void hello_names_version_features_and_handle(void **state)
{
	struct fixture *x = *state;
	const uint8_t zero[WIRE_TOKEN_SIZE] = {0};

	assert_int_equal(x->fake->hello.magic, WIRE_MAGIC);
	assert_int_equal(x->fake->hello.highest, WIRE_PROTOCOL_HIGHEST);
	assert_true(memcmp(x->fake->hello.handle, zero, sizeof(zero)) != 0);
	assert_non_null(strstr(x->fake->features, "stream"));
	assert_int_equal(readyd_session(x->r), 77);
	assert_int_equal(readyd_daemon_pid(x->r), 4711);
	assert_string_equal(readyd_socket(x->r), x->fake->path);
	assert_int_equal(readyd_has_feature(x->r, "stream"), 1);
	assert_int_equal(readyd_has_feature(x->r, "str"), 0);
	assert_int_equal(readyd_has_feature(x->r, "ns"), 0);
	assert_string_equal(readyd_last_error(x->r), "no call has failed");
}

static int connect_refused(unsigned greeting, char **ret_error)
{
	struct fake *f = fake_new();
	struct readyd_options o = {.size = sizeof(o), .socket = f->path};
	struct readyd *r = NULL;
	int result;

	f->greeting = greeting;
	fake_start(f);
	errno = 4242;
	result = readyd_connect(&o, &r, ret_error);
	assert_int_equal(errno, 4242);
	assert_null(r);
	assert_non_null(*ret_error);
	fake_free(f);
	return result;
}

static void connect_refusals_have_their_errno_and_a_printable_sentence(void **state)
{
	char *error = NULL;

	(void)state;
	assert_int_equal(connect_refused(WIRE_E_ACCESS, &error), -EACCES);
	assert_non_null(strstr(error, "not today?[2J"));
	free(error);
	assert_int_equal(connect_refused(WIRE_E_QUOTA, &error), -EDQUOT);
	free(error);
	assert_int_equal(connect_refused(WIRE_E_VERSION, &error), -EPROTO);
	free(error);
	assert_int_equal(connect_refused(WIRE_E_SHUTDOWN, &error), -ECONNREFUSED);
	free(error);
	assert_int_equal(connect_refused(UINT32_MAX, &error), -ECONNREFUSED);
	assert_non_null(strstr(error, "without a word"));
	free(error);
}

static void connect_without_a_daemon_names_what_was_tried(void **state)
{
	struct fake *f = fake_new();
	struct readyd_options o = {.size = sizeof(o), .socket = "/nonexistent/socket"};
	char *error = NULL, before[64];
	struct readyd *r = NULL;
	int result;

	(void)state;
	assert_int_equal(readyd_connect(&o, &r, &error), -ENOENT);
	assert_non_null(strstr(error, "/nonexistent/socket"));
	free(error);

	o.socket = NULL;
	snprintf(before, sizeof(before), "%s", f->folder);
	setenv("XDG_RUNTIME_DIR", f->folder, 1);
	unsetenv("READYD_SOCKET");
	result = readyd_connect(&o, &r, &error);
	if (result == 0) {
		readyd_close(r); /* this machine runs one */
	} else {
		assert_non_null(strstr(error, before));
		assert_non_null(strstr(error, "/run/readyd/socket"));
		free(error);
	}
	setenv("READYD_SOCKET", "/nonexistent/named", 1);
	assert_int_equal(readyd_connect(&o, &r, &error), -ENOENT);
	assert_non_null(strstr(error, "$READYD_SOCKET: /nonexistent/named"));
	assert_null(strstr(error, "/run/readyd"));
	free(error);
	unsetenv("READYD_SOCKET");
	unsetenv("XDG_RUNTIME_DIR");
	fake_free(f);
}

/* In a process of its own, since it gives root's rights away for good. */
static int connect_without_rights(const char *path)
{
	struct readyd_options o = {.size = sizeof(o), .socket = path};
	char *error = NULL;
	struct readyd *r;

	if (geteuid() == 0 && (setgroups(0, NULL) || setgid(65534) || setuid(65534)))
		return 2;
	if (readyd_connect(&o, &r, &error) != -EACCES || !error)
		return 3;
	return strstr(error, "usermod -aG") && strstr(error, path) ? 0 : 4;
}

static void connect_without_permission_says_which_command_helps(void **state)
{
	struct fake *f = fake_new();
	int status = -1;
	pid_t pid;

	(void)state;
	chmod(f->folder, 0755);
	chmod(f->path, 0060); /* the group may, its owner may not */
	pid = fork();
	if (pid == 0)
		_exit(connect_without_rights(f->path));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	fake_free(f);
}

static void clock_of_another_namespace_is_translated(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);
	int64_t when = fake_now() + FAKE_NS;
	struct wire_deadline d;

	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, when), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	memcpy(&d, fake_seen(x->fake, WIRE_DEADLINE, 1).record, sizeof(d));
	/* Never early, and late by no more than the greeting took. */
	assert_true(d.when >= when + 1000 * (int64_t)FAKE_NS);
	assert_true(d.when <= when + 1005 * (int64_t)FAKE_NS);
}

static void clock_of_the_same_namespace_is_left_alone(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);
	int64_t when = fake_now() + FAKE_NS;
	struct wire_deadline d;

	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ | READYD_WRITE, when), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	memcpy(&d, fake_seen(x->fake, WIRE_DEADLINE, 1).record, sizeof(d));
	assert_int_equal(d.when, when);
	assert_int_equal(d.directions, 3);
	assert_int_equal(d.stamp, 1);
}

/* ---- Watches ---- */

static void watch_is_sent_with_its_fd_and_number(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_STREAM, 99);
	struct fake_request q = fake_seen(x->fake, WIRE_WATCH, 1);
	struct wire_watch w;

	memcpy(&w, q.record, sizeof(w));
	assert_int_equal(q.n_fds, 1);
	assert_int_equal(w.cookie, 99);
	assert_int_equal(w.fd, x->fd);
	assert_int_equal(w.interest, 3);
	assert_int_equal(w.mode, WIRE_MODE_STREAM);
	assert_int_equal(id, (uint64_t)w.gen << 32 | w.id);
}

static void watch_refusals_have_their_errno(void **state)
{
	static const struct {
		uint16_t wire;
		int error;
	} cases[] = {
		{WIRE_E_NOT_POLLABLE, -EPERM},     {WIRE_E_KIND, -EACCES},
		{WIRE_E_QUOTA, -EDQUOT},           {WIRE_E_NO_RESOURCES, -EAGAIN},
		{WIRE_E_NO_LANE, -EEXIST},         {WIRE_E_SHARED, -EUSERS},
		{WIRE_E_POLL_DESCRIPTOR, -EINVAL}, {WIRE_E_NOT_SUPPORTED, -EOPNOTSUPP},
		{WIRE_E_TOO_MANY_FDS, -EMFILE},    {WIRE_E_BAD_FD, -EBADF},
	};
	struct fixture *x = *state;
	readyd_id id = 5;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fake_refuse(x->fake, WIRE_WATCH, cases[i].wire, 0);
		assert_int_equal(readyd_watch(x->r, x->fd, READYD_READ, 0, 0, &id), cases[i].error);
		assert_int_equal(id, 5);
		assert_non_null(strstr(readyd_last_error(x->r), "cannot be watched: "));
	}
	/* These are found here. */
	assert_int_equal(readyd_watch(x->r, x->fd, 0, 0, 0, &id), -EINVAL);
	assert_int_equal(readyd_watch(x->r, x->fd, 4, 0, 0, &id), -EINVAL);
	assert_int_equal(readyd_watch(x->r, x->fd, READYD_READ, 2, 0, &id), -EINVAL);
	assert_int_equal(readyd_watch(x->r, -1, READYD_READ, 0, 0, &id), -EBADF);
	assert_int_equal(fake_count(x->fake, WIRE_WATCH), sizeof(cases) / sizeof(cases[0]));
}

static void watch_many_sends_253_a_message_and_reports_each(void **state)
{
	struct readyd_watch_request q[600];
	struct fixture *x = *state;

	for (int i = 0; i < 600; i++)
		q[i] = (struct readyd_watch_request){.fd = x->fd, .interest = READYD_READ};
	q[300].fd = 100000;                                 /* not open */
	fake_refuse(x->fake, WIRE_WATCH, WIRE_E_QUOTA, 92); /* the third message has 93 records */
	/* One refusal in each message. */
	assert_int_equal(readyd_watch_many(x->r, q, 600), 4);
	assert_int_equal(q[300].error, -EBADF);
	assert_int_equal(q[92].error, -EDQUOT);
	assert_int_equal(q[92].id, 0);
	assert_int_equal(q[599].error, -EDQUOT);
	assert_int_equal(q[598].error, 0);
	assert_true(q[598].id != 0);
	assert_int_equal(fake_count(x->fake, WIRE_WATCH), 3);
	assert_int_equal(fake_seen(x->fake, WIRE_WATCH, 1).n_fds, 253);
	assert_int_equal(fake_seen(x->fake, WIRE_WATCH, 3).n_fds, 93);
}

static void unwatch_sends_the_fd_and_its_id_is_used_again_with_another_generation(void **state)
{
	struct fixture *x = *state;
	readyd_id first = watch(x, READYD_STREAM, 1), second;
	struct wire_unwatch u;

	fake_entry(x->fake, first, WIRE_CODE_READY, 0); /* kept, then forgotten: nobody waits */
	assert_int_equal(readyd_unwatch(x->r, first, x->fd), 0);
	memcpy(&u, fake_seen(x->fake, WIRE_UNWATCH, 1).record, sizeof(u));
	assert_int_equal(fake_seen(x->fake, WIRE_UNWATCH, 1).n_fds, 1);
	assert_int_equal(u.flags, WIRE_UNWATCH_FD);
	expect_nothing(x);
	assert_int_equal(readyd_unwatch(x->r, first, x->fd), -ENOENT);
	assert_int_equal(readyd_wait(x->r, first, READYD_READ), -ENOENT);

	second = watch(x, READYD_STREAM, 2);
	assert_int_equal((uint32_t)second, (uint32_t)first);
	assert_true(second != first);
	fake_entry(x->fake, first, WIRE_CODE_READY, 0); /* of the old one: dropped */
	fake_entry(x->fake, second, 0, WIRE_CODE_READY);
	expect_watch(x, second, 0, READYD_READY);
}

static void unwatch_does_not_send_a_number_that_means_another_file(void **state)
{
	struct fixture *x = *state;
	int ends[2];
	readyd_id id;

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(readyd_watch(x->r, ends[0], READYD_READ, 0, 0, &id), 0);
	assert_true(dup2(x->fd, ends[0]) >= 0);
	assert_int_equal(readyd_unwatch(x->r, id, ends[0]), 0);
	assert_int_equal(fake_seen(x->fake, WIRE_UNWATCH, 1).n_fds, 0);
	assert_int_equal(readyd_watch(x->r, ends[1], READYD_WRITE, 0, 0, &id), 0);
	close(ends[1]);
	assert_int_equal(readyd_unwatch(x->r, id, ends[1]), 0);
	assert_int_equal(fake_seen(x->fake, WIRE_UNWATCH, 2).n_fds, 0);
	close(ends[0]);
}

/* A wait has its one event also when the watch ends before anybody took it. */
static void unwatch_leaves_the_event_that_a_wait_is_owed(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 42), other;
	struct readyd_event e;

	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	fake_entry(x->fake, id, WIRE_CODE_CLOSING, 0);
	assert_int_equal(readyd_unwatch(x->r, id, x->fd), 0);
	other = watch(x, READYD_WAIT, 43);
	assert_true((uint32_t)other != (uint32_t)id); /* that place is in use until then */
	e = expect_one(x);
	assert_int_equal(e.cookie, 42);
	assert_int_equal(e.read, READYD_CLOSING);
	expect_nothing(x);
	assert_int_equal((uint32_t)watch(x, READYD_WAIT, 44), (uint32_t)id);
}

static void reset_returns_the_code_and_clears_the_librarys_latch(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);

	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	assert_int_equal(readyd_sync(x->r), 0);
	assert_int_equal(readyd_reset(x->r, id, READYD_READ), 0);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	expect_nothing(x);
	assert_int_equal(fake_seen(x->fake, WIRE_WAIT, 1).header.count, 1);
	assert_int_equal(readyd_reset(x->r, id, READYD_READ), -EBUSY);
	fake_refuse(x->fake, WIRE_RESET, WIRE_E_TIMEOUT, 0);
	assert_int_equal(readyd_reset(x->r, id, READYD_WRITE), READYD_TIMEOUT);
	assert_int_equal(readyd_reset(x->r, id, 4), -EINVAL);
}

/* ---- Waits ---- */

static void waits_gather_until_the_next_poll(void **state)
{
	struct fixture *x = *state;
	readyd_id id[3];
	struct fake_request q;
	struct wire_slots s;

	for (int i = 0; i < 3; i++)
		id[i] = watch(x, READYD_WAIT, (uint64_t)i);
	for (int i = 0; i < 3; i++)
		assert_int_equal(readyd_wait(x->r, id[i], READYD_READ), 0);
	assert_int_equal(fake_count(x->fake, WIRE_WAIT), 0);
	expect_nothing(x);
	q = fake_seen(x->fake, WIRE_WAIT, 1);
	assert_int_equal(q.header.count, 3);
	assert_int_equal(q.header.flags, 0);
	memcpy(&s, q.last, sizeof(s));
	assert_int_equal(s.id, (uint32_t)id[2]);
	assert_int_equal(s.directions, READYD_READ);
}

static void wait_and_deadline_keep_their_order_in_one_datagram(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);

	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, -1), 0);
	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, -7), 0); /* no news */
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, 0), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	assert_int_equal(fake_count(x->fake, WIRE_DEADLINE), 2);
	assert_int_equal(fake_seen(x->fake, WIRE_DEADLINE, 2).datagram,
			 fake_seen(x->fake, WIRE_SYNC, 1).datagram);
	assert_int_equal(fake_seen(x->fake, WIRE_DEADLINE, 1).header.count, 1);
}

static void wait_is_busy_until_its_event_was_taken(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1), stream;

	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ | READYD_WRITE), -EBUSY);
	assert_int_equal(readyd_wait(x->r, id, READYD_WRITE), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	assert_int_equal(readyd_sync(x->r), 0); /* receives and keeps it */
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), -EBUSY);
	expect_watch(x, id, READYD_READY, 0);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	assert_int_equal(readyd_wait(x->r, id, 0), -EINVAL);
	stream = watch(x, READYD_STREAM, 2);
	assert_int_equal(readyd_wait(x->r, stream, READYD_READ), -EINVAL);
}

/* H19. */
static void entry_that_nobody_asked_for_is_latched(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);

	fake_entry(x->fake, id, WIRE_CODE_READY, WIRE_CODE_TIMEOUT);
	assert_int_equal(readyd_sync(x->r), 0);
	expect_nothing(x);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ | READYD_WRITE), 0);
	expect_watch(x, id, READYD_READY, 0);
	assert_int_equal(fake_count(x->fake, WIRE_WAIT), 0);
	expect_nothing(x); /* now the write side is asked for */
	assert_int_equal(fake_seen(x->fake, WIRE_WAIT, 1).record[8], READYD_WRITE);

	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	assert_int_equal(readyd_sync(x->r), 0);
	assert_int_equal(readyd_pollwait(x->r, id, READYD_READ), 0);
	/* A deadline that has passed comes before a latch: the daemon is asked. */
	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, 1), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	expect_nothing(x);
	fake_seen(x->fake, WIRE_WAIT, 2);
}

/* S-051. */
static void timeout_of_a_replaced_deadline_is_waited_for_again(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);
	struct wire_entry e = {.kind = WIRE_RECORD_ENTRY,
			       .read = WIRE_CODE_TIMEOUT,
			       .id = (uint32_t)id,
			       .gen = (uint32_t)(id >> 32)};
	struct wire_deadline d;

	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, fake_now() + 1), 0);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	assert_int_equal(readyd_sync(x->r), 0);
	memcpy(&d, fake_seen(x->fake, WIRE_DEADLINE, 1).record, sizeof(d));
	e.read_stamp = d.stamp;
	assert_int_equal(readyd_set_deadline(x->r, id, READYD_READ, fake_now() + FAKE_NS), 0);
	fake_ready(x->fake, &e, 1);
	assert_int_equal(readyd_sync(x->r), 0);
	expect_nothing(x);
	fake_seen(x->fake, WIRE_WAIT, 2);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), -EBUSY);

	memcpy(&d, fake_seen(x->fake, WIRE_DEADLINE, 2).record, sizeof(d));
	assert_true(d.stamp != e.read_stamp && d.stamp != 0);
	e.read_stamp = d.stamp;
	fake_ready(x->fake, &e, 1);
	expect_watch(x, id, READYD_TIMEOUT, 0);
	assert_int_equal(fake_count(x->fake, WIRE_WAIT), 2);
}

static void unwait_says_which_came_first(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);

	assert_int_equal(readyd_unwait(x->r, id, READYD_READ), -ENOENT);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	assert_int_equal(readyd_unwait(x->r, id, READYD_READ), 0);
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	fake_refuse(x->fake, WIRE_UNWAIT, WIRE_E_ALREADY, 0);
	assert_int_equal(readyd_unwait(x->r, id, READYD_READ), -EALREADY);
	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	expect_watch(x, id, READYD_READY, 0);
	assert_int_equal(readyd_unwait(x->r, id, READYD_READ), -ENOENT);
	/* Received meanwhile: the daemon knows of no wait, the event is here. */
	assert_int_equal(readyd_wait(x->r, id, READYD_READ), 0);
	fake_entry(x->fake, id, WIRE_CODE_READY, 0);
	fake_refuse(x->fake, WIRE_UNWAIT, WIRE_E_NOT_FOUND, 0);
	assert_int_equal(readyd_unwait(x->r, id, READYD_READ), -EALREADY);
	expect_watch(x, id, READYD_READY, 0);
}

static void refused_upgrade_has_its_errno_and_sentence(void **state)
{
	static const struct {
		uint16_t wire;
		int error;
		const char *words;
	} rows[] = {
		{WIRE_E_INVALID, -EINVAL, "failed its trial"},
		{WIRE_E_ACCESS, -EACCES, "`upgrade`"},
		{WIRE_E_NOT_SUPPORTED, -EOPNOTSUPP, "without a keeper"},
		{WIRE_E_NOT_IMPLEMENTED, -ENOSYS, "does not know how"},
		{WIRE_E_BUSY, -EBUSY, "asked already"},
		{WIRE_E_NO_RESOURCES, -EAGAIN, "could not be tried"},
		{WIRE_E_INTERNAL, -EIO, "fault"},
		{WIRE_E_MAX + 7, -EIO, "no upgrade"},
	};
	struct fixture *x = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		fake_refuse(x->fake, WIRE_UPGRADE, rows[i].wire, 0);
		assert_int_equal(readyd_upgrade(x->r), rows[i].error);
		assert_non_null(strstr(readyd_last_error(x->r), rows[i].words));
	}
	fake_refuse(x->fake, WIRE_UPGRADE, 0, 0);
	assert_int_equal(readyd_upgrade(x->r), 0);
}

static void wait_that_the_daemon_refuses_ends_with_closing(void **state)
{
	struct fixture *x = *state;
	readyd_id id = watch(x, READYD_WAIT, 1);
	struct wire_failure f = {.kind = WIRE_RECORD_FAILURE, .error = WIRE_E_BUSY};

	assert_int_equal(readyd_wait(x->r, id, READYD_WRITE), 0);
	expect_nothing(x);
	f.serial = fake_seen(x->fake, WIRE_WAIT, 1).header.serial;
	f.id = (uint32_t)id;
	f.gen = (uint32_t)(id >> 32);
	fake_ready(x->fake, &f, 1);
	expect_watch(x, id, 0, READYD_CLOSING);
}

/* ---- Timers ---- */

static void fake_timer(struct fixture *x, const struct wire_timer_set *t, uint32_t count)
{
	struct wire_timer_entry e = {
		.kind = WIRE_RECORD_TIMER, .count = count, .id = t->id, .gen = t->gen};

	fake_ready(x->fake, &e, 1);
}

static struct wire_timer_set timer_seen(struct fixture *x, unsigned n)
{
	struct wire_timer_set t;

	memcpy(&t, fake_seen(x->fake, WIRE_TIMER_SET, n).record, sizeof(t));
	return t;
}

static void timer_keeps_its_id_and_drops_events_of_an_old_arming(void **state)
{
	struct fixture *x = *state;
	struct wire_timer_set first, second;
	readyd_id id = 0, same;
	struct readyd_event e;

	assert_int_equal(readyd_timer_set(x->r, &id, fake_now() + FAKE_NS, 1000, 7), 0);
	first = timer_seen(x, 1);
	assert_int_equal(first.cookie, 7);
	assert_int_equal(first.period, 1000);
	fake_timer(x, &first, 3);
	assert_int_equal(readyd_sync(x->r), 0); /* kept */
	fake_timer(x, &first, 2);
	e = expect_one(x);
	assert_int_equal(e.kind, READYD_EVENT_TIMER);
	assert_int_equal(e.id, id);
	assert_int_equal(e.count, 3);
	assert_int_equal(expect_one(x).count, 2);

	/* An expiry that was not taken, and one under way: both are taken back. */
	fake_timer(x, &first, 1);
	assert_int_equal(readyd_sync(x->r), 0);
	same = id;
	assert_int_equal(readyd_timer_set(x->r, &same, fake_now() + FAKE_NS, 0, 8), 1);
	assert_int_equal(same, id);
	expect_nothing(x);
	fake_timer(x, &first, 1);
	second = timer_seen(x, 2);
	assert_int_equal(second.id, first.id);
	assert_true(second.gen != first.gen);
	assert_int_equal(readyd_timer_set(x->r, &same, fake_now() + FAKE_NS, 0, 8), 1);
	expect_nothing(x);
	assert_int_equal(readyd_timer_set(x->r, &id, 0, -1, 0), -EINVAL);
}

static void timer_that_fired_once_is_gone(void **state)
{
	struct fixture *x = *state;
	struct wire_timer_set t;
	readyd_id id = 0, old;

	assert_int_equal(readyd_timer_set(x->r, &id, fake_now(), 0, 1), 0);
	t = timer_seen(x, 1);
	fake_timer(x, &t, 1);
	assert_int_equal(expect_one(x).id, id);
	assert_int_equal(readyd_timer_stop(x->r, id), 0);
	assert_int_equal(fake_count(x->fake, WIRE_TIMER_STOP), 0);
	old = id;
	assert_int_equal(readyd_timer_set(x->r, &id, fake_now(), 0, 1), 0); /* a new one */
	assert_true(id != old);
	/* It fires while it is being stopped: nobody sees it, so it was pending. */
	t = timer_seen(x, 2);
	fake_timer(x, &t, 1);
	fake_refuse(x->fake, WIRE_TIMER_STOP, WIRE_E_NOT_FOUND, 0);
	assert_int_equal(readyd_timer_stop(x->r, id), 1);
	expect_nothing(x);
	assert_int_equal(readyd_timer_stop(x->r, id), 0);
}

/* ---- Inspection ---- */

/* Answers the n-th request of that type, which asks for no answer record. */
static void reply(struct fixture *x, unsigned asked, unsigned n, unsigned type, unsigned flags,
		  const void *rows, size_t n_rows, const char *tail, size_t tail_size)
{
	fake_message(x->fake, type, flags, fake_seen(x->fake, asked, n).header.serial, rows, n_rows,
		     tail, tail_size);
}

struct asker {
	struct fixture *x;
	struct readyd_status status;
	struct readyd_session_info rows[4];
	int result, n;
};

static void *ask_status(void *context)
{
	struct asker *a = context;

	a->result = readyd_get_status(a->x->r, &a->status);
	return NULL;
}

static void status_is_translated_and_its_texts_are_printable(void **state)
{
	static const char tail[] = "1.2\033[1m\0epoll\0/run/x";
	struct fixture *x = *state;
	struct asker a = {.x = x, .status = {.size = sizeof(a.status)}};
	struct wire_status s = {.pid = 5, .watches = 9, .turn_longest = 11};
	int64_t now = fake_now();
	pthread_t thread;

	s.now = now + 1000 * (int64_t)FAKE_NS;
	s.started = s.now - FAKE_NS;
	s.began = s.now - 2 * FAKE_NS;
	s.restarts = 12;
	s.left_behind = 13;
	s.parks = 14;
	s.parks_handed = 15;
	s.parks_ready = 16;
	s.holders = 17;
	s.holders_left = 18;
	assert_int_equal(pthread_create(&thread, NULL, ask_status, &a), 0);
	reply(x, WIRE_GET_STATUS, 1, WIRE_STATUS, 0, &s, 1, tail, sizeof(tail));
	pthread_join(thread, NULL);
	assert_int_equal(a.result, 0);
	assert_int_equal(a.status.watches, 9);
	assert_int_equal(a.status.turn_longest, 11);
	assert_string_equal(a.status.version, "1.2?[1m");
	assert_string_equal(a.status.backend, "epoll");
	assert_string_equal(a.status.socket, "/run/x");
	assert_true(a.status.now > now - 5 * (int64_t)FAKE_NS && a.status.now <= now);
	assert_int_equal(a.status.now - a.status.started, FAKE_NS);
	assert_int_equal(a.status.now - a.status.began, 2 * FAKE_NS);
	assert_int_equal(a.status.restarts, 12);
	assert_int_equal(a.status.left_behind, 13);
	assert_int_equal(a.status.parks, 14);
	assert_int_equal(a.status.parks_handed, 15);
	assert_int_equal(a.status.parks_ready, 16);
	assert_int_equal(a.status.holders, 17);
	assert_int_equal(a.status.holders_left, 18);
}

static void *ask_sessions(void *context)
{
	struct readyd_filter f = {.size = sizeof(f), .uid = UINT32_MAX, .pid = 33};
	struct readyd_list *l = NULL;
	struct asker *a = context;

	a->result = readyd_list_sessions(a->x->r, &f, &l);
	while (a->result >= 0 && a->n < 4) {
		a->rows[a->n].size = sizeof(a->rows[0]);
		a->result = readyd_next_session(l, &a->rows[a->n]);
		if (a->result <= 0)
			break;
		a->n++;
	}
	readyd_list_free(l);
	return NULL;
}

static void list_goes_on_from_the_last_rows_cursor(void **state)
{
	struct fixture *x = *state;
	struct asker a = {.x = x};
	struct wire_session_row rows[2] = {{.cursor = 10, .session = 1},
					   {.cursor = 20, .session = 2}};
	struct wire_session_row last = {.cursor = 30, .session = 3, .flags = WIRE_SESSION_SELF};
	struct wire_list ask;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, ask_sessions, &a), 0);
	reply(x, WIRE_LIST_SESSIONS, 1, WIRE_SESSIONS, WIRE_FLAG_MORE, rows, 2, NULL, 0);
	memcpy(&ask, fake_seen(x->fake, WIRE_LIST_SESSIONS, 2).record, sizeof(ask));
	assert_int_equal(ask.cursor, 20);
	assert_int_equal(ask.pid, 33);
	assert_int_equal(ask.uid, UINT32_MAX);
	reply(x, WIRE_LIST_SESSIONS, 2, WIRE_SESSIONS, 0, &last, 1, NULL, 0);
	pthread_join(thread, NULL);
	assert_int_equal(a.result, 0);
	assert_int_equal(a.n, 3);
	assert_int_equal(a.rows[1].session, 2);
	assert_int_equal(a.rows[1].self, 0);
	assert_int_equal(a.rows[2].self, 1);
}

static void list_that_is_refused_has_its_errno(void **state)
{
	struct wire_failure f = {.kind = WIRE_RECORD_FAILURE, .error = WIRE_E_ACCESS};
	struct fixture *x = *state;
	struct asker a = {.x = x};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, ask_sessions, &a), 0);
	f.serial = fake_seen(x->fake, WIRE_LIST_SESSIONS, 1).header.serial;
	fake_ready(x->fake, &f, 1);
	pthread_join(thread, NULL);
	assert_int_equal(a.result, -EACCES);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(hello_names_version_features_and_handle),
		cmocka_unit_test(connect_refusals_have_their_errno_and_a_printable_sentence),
		cmocka_unit_test(connect_without_a_daemon_names_what_was_tried),
		cmocka_unit_test(connect_without_permission_says_which_command_helps),
		cmocka_unit_test_setup_teardown(clock_of_another_namespace_is_translated,
						setup_shifted, teardown),
		TEST(clock_of_the_same_namespace_is_left_alone),
		TEST(watch_is_sent_with_its_fd_and_number),
		TEST(watch_refusals_have_their_errno),
		TEST(watch_many_sends_253_a_message_and_reports_each),
		TEST(unwatch_sends_the_fd_and_its_id_is_used_again_with_another_generation),
		TEST(unwatch_does_not_send_a_number_that_means_another_file),
		TEST(unwatch_leaves_the_event_that_a_wait_is_owed),
		TEST(reset_returns_the_code_and_clears_the_librarys_latch),
		TEST(waits_gather_until_the_next_poll),
		TEST(wait_and_deadline_keep_their_order_in_one_datagram),
		TEST(wait_is_busy_until_its_event_was_taken),
		TEST(entry_that_nobody_asked_for_is_latched),
		TEST(timeout_of_a_replaced_deadline_is_waited_for_again),
		TEST(unwait_says_which_came_first),
		TEST(refused_upgrade_has_its_errno_and_sentence),
		TEST(wait_that_the_daemon_refuses_ends_with_closing),
		TEST(timer_keeps_its_id_and_drops_events_of_an_old_arming),
		TEST(timer_that_fired_once_is_gone),
		cmocka_unit_test_setup_teardown(status_is_translated_and_its_texts_are_printable,
						setup_shifted, teardown),
		TEST(list_goes_on_from_the_last_rows_cursor),
		TEST(list_that_is_refused_has_its_errno),
	};

	return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
