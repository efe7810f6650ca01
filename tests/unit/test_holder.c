/* SPDX-License-Identifier: MIT */

/*
 * A holder, in a child of its own, with the test as its loop: it keeps what it is given through
 * everything, gives it back, closes what it is told to, and when a close takes for ever nobody else
 * notices. No test waits for a time: what is stuck is let go by the test.
 */

#include "daemon/keeper/holder.h"

#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "daemon/keeper/holder_table.h"
#include "holder_fixture.h"
#include "protocol/wire.h"

enum {
	UID = 1000,
	FLIPS = 10000,
	STEPS = 20000,
	LINGERING = CLOSER_CHILDREN_MAX + 4,
};

/* One holder as its loop sees it. */
struct holder_end {
	pid_t pid;
	int socket;
};

struct fixture {
	struct holder_end holder, other;
	struct log log; /* of both */
	struct returned returned;
};

static volatile sig_atomic_t stop; /* in the child */

static void handle_term(int number)
{
	(void)number;
	stop = 1;
}

static struct holder_end holder_start(struct fixture *f, uint32_t uid)
{
	struct holder_options options = {.uid = uid, .log = &f->log, .stop = &stop};
	struct holder_end h;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	h.socket = fd_move_up(pair[0]);
	options.socket = fd_move_up(pair[1]);
	assert_true(h.socket >= 0 && options.socket >= 0);
	h.pid = fork();
	assert_true(h.pid >= 0);
	if (h.pid == 0) {
		(void)signal(SIGTERM, handle_term);
		_exit(holder_run(&options));
	}
	(void)close(options.socket);
	return h;
}

/* What became of it. */
static siginfo_t holder_end(struct holder_end *h, int number)
{
	siginfo_t info;

	if (number)
		assert_int_equal(kill(h->pid, number), 0);
	info = wait_for_child(h->pid);
	h->pid = 0;
	return info;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)alarm(240);
	raise_fds();
	log_init(&f->log, fd_move_up(memfd_create("log", MFD_CLOEXEC)), CONFIG_LOG_DEBUG);
	assert_true(f->log.fd >= 0);
	f->holder = holder_start(f, UID);
	f->other = holder_start(f, UID); /* one that takes the place of the first */
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)alarm(0);
	returned_clear(&f->returned);
	(void)close(f->holder.socket);
	(void)close(f->other.socket);
	if (f->holder.pid)
		(void)holder_end(&f->holder, 0);
	if (f->other.pid)
		(void)holder_end(&f->other, 0);
	(void)close(f->log.fd);
	free(f);
	return 0;
}

/* All that was logged. */
static const char *read_log(const struct fixture *f)
{
	static char text[65536];
	ssize_t n = pread(f->log.fd, text, sizeof(text) - 1, 0);

	assert_true(n >= 0);
	text[n] = '\0';
	return text;
}

/* Parks the writing ends of pipes under the numbers first, first + 1, ...; ret: the reading ends. */
static void hold_pipes(int socket, uint64_t first, unsigned n, int ret[])
{
	for (unsigned i = 0; i < n; i++) {
		struct record r = record_of(first + i);
		int fds[2];

		assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
		send_record(socket, RECORD_HOLD, &r, &fds[1]);
		(void)close(fds[1]);
		ret[i] = fds[0];
	}
}

/* What has come back under this number writes into this pipe. */
static void check_returned(const struct returned *ret, uint64_t number, int reader)
{
	unsigned at = find_returned(ret, number);
	uint64_t value = 0;

	assert_true(at < PARKS_MAX);
	assert_int_equal(ret->records[at].cookie, ~number);
	assert_int_equal(write(ret->fds[at][0], &number, sizeof(number)), sizeof(number));
	assert_int_equal(read(reader, &value, sizeof(value)), sizeof(value));
	assert_int_equal(value, number);
}

/* It has done all that it was told before. */
static void sync_with(int socket, uint32_t epoch, struct returned *ret)
{
	give_back(socket, epoch, ret);
	returned_clear(ret);
}

/* ---- Tests ---- */

static void a_thousand_parks_come_back(void **state)
{
	struct fixture *f = *state;
	static int readers[1000];

	hold_pipes(f->holder.socket, 1, 1000, readers);
	for (uint32_t epoch = 1; epoch <= 2; epoch++) { /* they can be had again and again */
		returned_clear(&f->returned);
		give_back(f->holder.socket, epoch, &f->returned);
		assert_int_equal(f->returned.n, 1000);
		for (unsigned i = 0; i < 1000; i++)
			check_returned(&f->returned, i + 1, readers[i]);
	}
	returned_clear(&f->returned);
	for (unsigned i = 0; i < 1000; i++)
		assert_false(is_hung_up(readers[i]));
	assert_int_equal(holder_end(&f->holder, SIGKILL).si_status, SIGKILL);
	for (unsigned i = 0; i < 1000; i++) {
		wait_for_hangup(readers[i]);
		(void)close(readers[i]);
	}
	assert_string_equal(read_log(f), "");
}

static void the_newest_word_counts(void **state)
{
	struct fixture *f = *state;
	struct record r = record_of(1), handed = handed_record_of(1);
	struct returned *ret = &f->returned;
	int readers[2], event = eventfd(0, EFD_CLOEXEC);
	int fds[3];

	assert_true(event >= 0);
	hold_pipes(f->holder.socket, 1, 1, readers);
	r.serial--;
	r.cookie = 1;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	send_record(f->holder.socket, RECORD_HOLD, &r, &fds[1]); /* older */
	(void)close(fds[1]);
	wait_for_hangup(fds[0]);
	(void)close(fds[0]);
	/* handed out, with two more fds */
	handed.serial += 2;
	fds[0] = fds[1] = event;
	send_record(f->holder.socket, RECORD_CHANGE, &handed, fds);
	r.serial = handed.serial - 1;
	send_record(f->holder.socket, RECORD_CHANGE, &r, fds); /* older */
	send_drop(f->holder.socket, &r, false);
	give_back(f->holder.socket, 1, ret);
	assert_int_equal(ret->n, 1);
	check_returned(ret, 1, readers[0]);
	handed.kind = WIRE_KIND_UNKNOWN; /* a pipe: that is for the loop to see */
	assert_memory_equal(&ret->records[0], &handed, sizeof(handed));
	assert_int_equal(fd_same_description(ret->fds[0][1], event), 1);
	assert_int_equal(fd_same_description(ret->fds[0][2], event), 1);
	returned_clear(ret);
	/* all of it anew: another pipe */
	handed = record_of(1);
	handed.serial += 3;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	send_record(f->holder.socket, RECORD_HOLD, &handed, &fds[1]);
	(void)close(fds[1]);
	wait_for_hangup(readers[0]);
	give_back(f->holder.socket, 2, ret);
	assert_int_equal(ret->n, 1);
	check_returned(ret, 1, fds[0]);
	returned_clear(ret);
	send_drop(f->holder.socket, &handed, false);
	wait_for_hangup(fds[0]);
	give_back(f->holder.socket, 3, ret);
	assert_int_equal(ret->n, 0);
	send_drop(f->holder.socket, &handed, false); /* of none: nothing to say */
	(void)close(fds[0]);
	(void)close(readers[0]);
	(void)close(event);
}

static int new_socket(int family, int type)
{
	int fd = socket(family, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	return fd;
}

/* It vouches for plain sockets, whatever it was told that they are, and for nothing else. */
static void it_says_what_is_a_plain_socket(void **state)
{
	struct fixture *f = *state;
	struct returned *ret = &f->returned;
	struct {
		int fd;
		enum wire_kind told, kind;
	} rows[] = {
		{new_socket(AF_INET, SOCK_STREAM), WIRE_KIND_INET, WIRE_KIND_INET},
		{new_socket(AF_UNIX, SOCK_STREAM), WIRE_KIND_PIPE, WIRE_KIND_UNIX},
		{new_socket(AF_NETLINK, SOCK_RAW), WIRE_KIND_UNKNOWN, WIRE_KIND_NETLINK},
		/* it could be the daemon's own */
		{new_socket(AF_UNIX, SOCK_SEQPACKET), WIRE_KIND_UNIX, WIRE_KIND_UNKNOWN},
		{epoll_create1(EPOLL_CLOEXEC), WIRE_KIND_INET, WIRE_KIND_UNKNOWN},
		{eventfd(0, EFD_CLOEXEC), WIRE_KIND_UNIX, WIRE_KIND_UNKNOWN},
	};
	enum { N = sizeof(rows) / sizeof(rows[0]) };

	for (unsigned i = 0; i < N; i++) {
		struct record r = record_of(i + 1);

		r.kind = (uint8_t)rows[i].told;
		send_record(f->holder.socket, RECORD_HOLD, &r, &rows[i].fd);
		(void)close(rows[i].fd);
		r.serial++;
		r.kind = WIRE_KIND_INET;
		send_record(f->holder.socket, RECORD_CHANGE, &r, NULL);
	}
	give_back(f->holder.socket, 1, ret);
	assert_int_equal(ret->n, N);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(ret->records[find_returned(ret, i + 1)].kind, rows[i].kind);
	returned_clear(ret);
}

static void what_does_not_fit_is_ignored(void **state)
{
	struct fixture *f = *state;
	struct record r = record_of(1);
	int reader, fds[2];

	hold_pipes(f->holder.socket, 1, 1, &reader);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	r.uid++;
	send_record(f->holder.socket, RECORD_HOLD, &r, &fds[1]); /* another user's */
	r = record_of(2);
	send_record(f->holder.socket, RECORD_CHANGE, &r, NULL); /* of none */
	r = record_of(1);
	r.note_length--;
	send_record(f->holder.socket, RECORD_CHANGE, &r, NULL); /* with other texts */
	send_op(f->holder.socket, RECORD_END, 1, NULL, 0);      /* not for it */
	give_back(f->holder.socket, 1, &f->returned);
	assert_int_equal(f->returned.n, 1);
	check_returned(&f->returned, 1, reader);
	(void)close(fds[1]);
	wait_for_hangup(fds[0]);
	assert_non_null(strstr(read_log(f), "EPERM"));
	assert_non_null(strstr(read_log(f), "ENOENT"));
	assert_non_null(strstr(read_log(f), "EINVAL"));
	(void)close(fds[0]);
	(void)close(reader);
}

/* A copy that a forked child has keeps no peer waiting. */
static void a_drop_can_shut_down(void **state)
{
	struct fixture *f = *state;
	struct record r = record_of(1);
	int pair[2];
	char byte;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	send_record(f->holder.socket, RECORD_HOLD, &r, &pair[0]);
	send_drop(f->holder.socket, &r, true);
	assert_int_equal(read(pair[1], &byte, 1), 0);
	(void)close(pair[0]);
	(void)close(pair[1]);
}

/* Both queues are full, and both sides go on. */
static void giving_and_sending_at_once_is_no_deadlock(void **state)
{
	struct fixture *f = *state;
	static int readers[1000];
	struct record r;
	struct returned *ret = &f->returned;
	uint32_t epoch = 1;

	hold_pipes(f->holder.socket, 1, 1000, readers);
	/* more than its queue takes is to be given, and nobody reads */
	for (; epoch <= 100; epoch++)
		send_op(f->holder.socket, RECORD_GIVE_BACK, epoch, NULL, 0);
	for (unsigned i = 0; i < 1000; i++) {
		r = record_of(i + 1);
		r.serial++;
		r.told_fd = 99;
		send_record(f->holder.socket, RECORD_CHANGE, &r, NULL);
	}
	for (unsigned i = 500; i < 1000; i++) {
		r = record_of(i + 1);
		r.serial++;
		send_drop(f->holder.socket, &r, false);
	}
	send_op(f->holder.socket, RECORD_GIVE_BACK, 1000, NULL, 0);
	while (!read_returned(f->holder.socket, 1000, ret))
		if (ret->n >= PARKS_MAX - RECORD_FDS_MAX)
			returned_clear(ret);
	returned_clear(ret);
	give_back(f->holder.socket, 1001, ret);
	assert_int_equal(ret->n, 500);
	for (unsigned i = 0; i < 500; i++) {
		check_returned(ret, i + 1, readers[i]);
		assert_int_equal(ret->records[i].told_fd, 99);
	}
	for (unsigned i = 0; i < 1000; i++)
		(void)close(readers[i]);
}

/* The loop died in the middle: the next one gets all. */
static void a_new_loop_gets_all_of_them(void **state)
{
	struct fixture *f = *state;
	static int readers[300];
	struct returned *ret = &f->returned;

	hold_pipes(f->holder.socket, 1, 300, readers);
	for (uint32_t epoch = 1; epoch <= 20; epoch++) {
		send_op(f->holder.socket, RECORD_GIVE_BACK, epoch, NULL, 0);
		assert_false(read_returned(f->holder.socket, epoch + 1, ret));
		returned_clear(ret);
	}
	send_op(f->holder.socket, RECORD_GIVE_BACK, 99, NULL, 0);
	while (!read_returned(f->holder.socket, 99, ret))
		if (ret->n > 600)
			returned_clear(ret);
	returned_clear(ret);
	give_back(f->holder.socket, 100, ret);
	assert_int_equal(ret->n, 300);
	for (unsigned i = 0; i < 300; i++) {
		check_returned(ret, i + 1, readers[i]);
		(void)close(readers[i]);
	}
}

/* CLOSE, close, GO: the last close is the holder's, and nobody else waits for it. */
static void a_close_that_blocks_is_its_own(void **state)
{
	struct fixture *f = *state;
	struct pollfd polled = {.fd = f->holder.socket, .events = POLLIN};
	int pair[2], readers[2];

	hold_pipes(f->holder.socket, 1, 1, &readers[0]);
	hold_pipes(f->other.socket, 2, 1, &readers[1]);
	blocking_pair(pair);
	send_op(f->holder.socket, RECORD_CLOSE, 7, &pair[0], 1);
	(void)close(pair[0]); /* would take LINGER_S, and the alarm come first */
	send_op(f->holder.socket, RECORD_GO, 7, NULL, 0);
	send_op(f->holder.socket, RECORD_GIVE_BACK, 1, NULL, 0);
	/* the other one is there, again and again, as long as this one is stuck */
	for (uint32_t epoch = 1; epoch <= 20; epoch++) {
		returned_clear(&f->returned);
		give_back(f->other.socket, epoch, &f->returned);
		assert_int_equal(f->returned.n, 1);
	}
	assert_int_equal(poll(&polled, 1, 100), 0);
	(void)close(pair[1]); /* the peer gives up: so ends the close */
	f->returned.n = 0;
	while (!read_returned(f->holder.socket, 1, &f->returned))
		;
	check_returned(&f->returned, 1, readers[0]);
	(void)close(readers[0]);
	(void)close(readers[1]);
}

/* What lingers is a child's to close: the holder goes on, and no byte is lost. */
static void a_close_that_lingers_holds_up_nothing(void **state)
{
	struct fixture *f = *state;
	int pair[2], reader;

	hold_pipes(f->holder.socket, 1, 1, &reader);
	for (uint32_t i = 0; i < LINGERING; i++) {
		static char bytes[1 << 20];
		size_t left = lingering_pair(pair);
		ssize_t n;

		send_op(f->holder.socket, RECORD_CLOSE, i, &pair[0], 1);
		(void)close(pair[0]);
		send_op(f->holder.socket, RECORD_GO, i, NULL, 0);
		returned_clear(&f->returned);
		give_back(f->holder.socket, 2 * i, &f->returned); /* while it may be closing */
		returned_clear(&f->returned);
		give_back(f->holder.socket, 2 * i + 1, &f->returned);
		assert_int_equal(f->returned.n, 1);
		while ((n = read(pair[1], bytes, sizeof(bytes))) > 0)
			left -= (size_t)n;
		assert_int_equal(n, 0);
		assert_int_equal(left, 0);
		(void)close(pair[1]);
	}
	check_returned(&f->returned, 1, reader);
	assert_null(strstr(read_log(f), "by itself"));
	(void)close(reader);
}

/* What is to be closed stays open until GO, or until another loop is there. */
static void close_waits_for_go(void **state)
{
	struct fixture *f = *state;
	int pipes[3][2];

	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(pipe2(pipes[i], O_CLOEXEC), 0);
		send_op(f->holder.socket, RECORD_CLOSE, i, &pipes[i][1], 1);
		(void)close(pipes[i][1]);
	}
	send_op(f->holder.socket, RECORD_GO, 1, NULL, 0);
	wait_for_hangup(pipes[1][0]);
	assert_false(is_hung_up(pipes[0][0]));
	assert_false(is_hung_up(pipes[2][0]));
	sync_with(f->holder.socket, 1, &f->returned);
	wait_for_hangup(pipes[0][0]);
	wait_for_hangup(pipes[2][0]);
	for (unsigned i = 0; i < 3; i++)
		(void)close(pipes[i][0]);
}

static void sigterm_ends_it_even_in_a_close(void **state)
{
	struct fixture *f = *state;
	struct pollfd polled = {.fd = f->holder.socket, .events = POLLIN};
	int pair[2], reader;
	siginfo_t info;

	hold_pipes(f->holder.socket, 1, 1, &reader);
	blocking_pair(pair);
	send_op(f->holder.socket, RECORD_CLOSE, 7, &pair[0], 1);
	(void)close(pair[0]);
	send_op(f->holder.socket, RECORD_GO, 7, NULL, 0);
	send_op(f->holder.socket, RECORD_GIVE_BACK, 1, NULL, 0);
	assert_int_equal(poll(&polled, 1, 100), 0);
	info = holder_end(&f->holder, SIGTERM);
	assert_int_equal(info.si_code, CLD_EXITED);
	assert_int_equal(info.si_status, 0);
	(void)close(f->holder.socket); /* it may have given it back before */
	f->holder.socket = -1;
	wait_for_hangup(reader);
	(void)close(pair[1]);
	(void)close(reader);
}

/* The signal was there before the close: nothing would cut that short. */
static void after_sigterm_nothing_is_closed_that_lingers(void **state)
{
	struct fixture *f = *state;
	int pair[2], status;
	siginfo_t info;

	blocking_pair(pair);
	sync_with(f->holder.socket, 1, &f->returned); /* it has set its signals */
	assert_int_equal(kill(f->holder.pid, SIGSTOP), 0);
	assert_int_equal(waitpid(f->holder.pid, &status, WUNTRACED), f->holder.pid);
	send_op(f->holder.socket, RECORD_CLOSE, 7, &pair[0], 1);
	(void)close(pair[0]);
	send_op(f->holder.socket, RECORD_GO, 7, NULL, 0);
	assert_int_equal(kill(f->holder.pid, SIGTERM), 0);
	info = holder_end(&f->holder, SIGCONT);
	assert_int_equal(info.si_code, CLD_EXITED);
	assert_int_equal(info.si_status, 0);
	(void)close(pair[1]);
}

static void signals_of_a_terminal_do_not_end_it(void **state)
{
	struct fixture *f = *state;
	int reader;

	sync_with(f->holder.socket, 1, &f->returned); /* it has set its signals */
	hold_pipes(f->holder.socket, 1, 1, &reader);
	assert_int_equal(kill(f->holder.pid, SIGINT), 0);
	assert_int_equal(kill(f->holder.pid, SIGHUP), 0);
	give_back(f->holder.socket, 2, &f->returned);
	assert_int_equal(f->returned.n, 1);
	assert_int_equal(kill(f->holder.pid, SIGTERM), 0);
	assert_int_equal(holder_end(&f->holder, 0).si_code, CLD_EXITED);
	(void)close(reader);
}

static void the_end_of_all_others_is_its_own(void **state)
{
	struct fixture *f = *state;
	struct record r = record_of(1);
	siginfo_t info;
	int reader;

	hold_pipes(f->holder.socket, 1, 1, &reader);
	r.serial++;
	send_record(f->holder.socket, RECORD_CHANGE, &r, NULL);
	(void)close(f->holder.socket);
	f->holder.socket = -1;
	info = holder_end(&f->holder, 0);
	assert_int_equal(info.si_code, CLD_EXITED);
	assert_int_equal(info.si_status, 0);
	wait_for_hangup(reader);
	(void)close(reader);
}

/* From /proc: how often it went to sleep. */
static unsigned long count_sleeps(pid_t pid)
{
	unsigned long n = 0;
	char line[256];
	FILE *file;

	(void)snprintf(line, sizeof(line), "/proc/%d/status", (int)pid);
	file = fopen(line, "re");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, "voluntary_ctxt_switches:", 24) == 0)
			n = strtoul(line + 24, NULL, 10);
	(void)fclose(file);
	return n;
}

static void an_idle_one_does_nothing(void **state)
{
	struct fixture *f = *state;
	unsigned long before;
	int reader;

	hold_pipes(f->holder.socket, 1, 1, &reader);
	sync_with(f->holder.socket, 1, &f->returned);
	(void)poll(NULL, 0, 200); /* it falls asleep */
	before = count_sleeps(f->holder.pid);
	assert_true(before > 0);
	(void)poll(NULL, 0, 500);
	assert_int_equal(count_sleeps(f->holder.pid), before);
	(void)close(reader);
}

/* ---- Bad input ---- */

/* A message of several operations about parks 1 to 8, damaged. */
static void send_damaged(int socket, struct random *random, const int *fds)
{
	static struct record_batch b;
	struct record_drop drop = {.serial = 1000};
	struct record r;

	record_batch_clear(&b);
	for (unsigned i = 0; i < 6; i++) {
		uint64_t number = 1 + random_below(random, 8);

		r = random_below(random, 2) ? record_of(number) : handed_record_of(number);
		r.serial += random_below(random, 3);
		memcpy(drop.token, r.token, sizeof(drop.token));
		switch (random_below(random, 6)) {
		case 0:
		case 1:
			(void)record_batch_add(&b, RECORD_HOLD, 0, &r, sizeof(r), RECORD_TEXT,
					       TEXT_SIZE, fds,
					       1u + (unsigned)r.maker_fd + r.worker_fd);
			break;
		case 2:
			(void)record_batch_add(&b, RECORD_CHANGE, 0, &r, sizeof(r), NULL, 0, fds,
					       (unsigned)r.maker_fd + r.worker_fd);
			break;
		case 3:
			(void)record_batch_add(&b, RECORD_DROP, 0, &drop, sizeof(drop), NULL, 0,
					       NULL, 0);
			break;
		case 4:
			(void)record_batch_add(&b, RECORD_CLOSE, i, NULL, 0, NULL, 0, fds, 2);
			break;
		default:
			(void)record_batch_add(&b, RECORD_GO, i, NULL, 0, NULL, 0, NULL, 0);
			break;
		}
	}
	for (uint64_t flips = 1 + random_below(random, 3); flips > 0; flips--)
		((uint8_t *)b.bytes)[random_below(random, b.size)] ^=
			(uint8_t)(1 + random_below(random, 255));
	if (random_below(random, 8) == 0)
		b.size = (size_t)random_below(random, b.size) + 1; /* cut off */
	if (random_below(random, 8) == 0)
		b.n_fds = (unsigned)random_below(random, b.n_fds + 1); /* too few */
	else if (random_below(random, 8) == 0 && b.n_fds < RECORD_FDS_MAX)
		b.fds[b.n_fds++] = fds[0]; /* too many */
	send_batch(socket, &b);
}

/* Reads and closes what is there: flips can ask for all parks. */
static void skim(int socket, struct record_message *m)
{
	while (record_message_receive(m, socket, MSG_DONTWAIT) == 1)
		record_message_clear(m);
}

static void S_118_flipped_bytes_break_nothing(void **state)
{
	struct fixture *f = *state;
	struct random random = random_begin();
	struct returned *ret = &f->returned;
	static int readers[100];
	struct record last = record_of(7000);
	int fds[3] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC), -1};

	fds[2] = fds[0];
	hold_pipes(f->holder.socket, 5000, 100, readers);
	for (unsigned i = 0; i < FLIPS; i++) {
		send_damaged(f->holder.socket, &random, fds);
		if (i % 16 == 0)
			skim(f->holder.socket, &ret->message);
		if (i % 500 == 0) { /* few fds are left, where the limit is low */
			for (uint64_t n = 1; n <= 8; n++) {
				struct record r = record_of(n);

				r.serial = UINT64_MAX;
				send_drop(f->holder.socket, &r, false);
			}
		}
	}
	/* it is there, has what it had, and does what it is told */
	assert_int_equal(send(f->holder.socket, "", 0, 0), 0);
	send_record(f->holder.socket, RECORD_HOLD, &last, fds);
	send_op(f->holder.socket, RECORD_GIVE_BACK, 4242, NULL, 0);
	ret->n = 0;
	while (!read_returned(f->holder.socket, 4242, ret)) {
	}
	for (unsigned i = 0; i < 100; i++) {
		check_returned(ret, 5000 + i, readers[i]);
		(void)close(readers[i]);
	}
	assert_true(find_returned(ret, 7000) < PARKS_MAX);
	returned_clear(ret);
	assert_non_null(strstr(read_log(f), "skipped"));
	assert_int_equal(holder_end(&f->holder, SIGTERM).si_code, CLD_EXITED);
	assert_non_null(strstr(read_log(f), "damaged messages to a holder"));
	(void)close(fds[0]);
	(void)close(fds[1]);
}

/* ---- The table by itself ---- */

static bool is_listed(const struct holder_table *t, const struct holding *wanted)
{
	const struct holding *h;

	TAILQ_FOREACH(h, &t->parks, list)
	{
		if (h == wanted)
			return true;
	}
	return false;
}

/* Random words about few parks, against the simplest memory of them. */
static void the_table_keeps_what_it_is_told(void **state)
{
	struct random random = random_begin();
	struct {
		bool held;
		uint64_t serial;
	} parks[8] = {0};
	struct holder_table t;
	int sources[2];

	(void)state;
	assert_int_equal(pipe2(sources, O_CLOEXEC), 0);
	holder_table_init(&t);
	for (unsigned i = 0; i < STEPS; i++) {
		unsigned number = (unsigned)random_below(&random, 8);
		struct record r = record_of(number);
		struct record_op op = {.record = &r, .text = (const uint8_t *)RECORD_TEXT};
		struct record_drop drop = {0};
		int fds[1] = {-1}, result, expected = 0;

		r.serial = drop.serial = i + random_below(&random, 40);
		memcpy(drop.token, r.token, sizeof(drop.token));
		if (parks[number].held && r.serial < parks[number].serial)
			expected = -ESTALE;
		switch (random_below(&random, 4)) {
		case 0:
			fds[0] = dup(sources[1]);
			result = holder_table_hold(&t, &op, fds);
			assert_int_equal(fds[0] < 0, result == 0);
			if (fds[0] >= 0)
				(void)close(fds[0]);
			if (result == 0)
				parks[number].held = true;
			break;
		case 1:
			expected = parks[number].held ? expected : -ENOENT;
			result = holder_table_change(&t, &op, NULL);
			break;
		case 2:
			expected = parks[number].held ? expected : -ENOENT;
			result = holder_table_drop(&t, &drop);
			if (result == 0)
				parks[number].held = false;
			break;
		default: /* one that gives back goes on, whatever happened meanwhile */
			expected = result = 0;
			if (t.given)
				t.given = TAILQ_NEXT(t.given, list);
			else
				t.given = TAILQ_FIRST(&t.parks);
			continue;
		}
		assert_int_equal(result, expected);
		if (result == 0)
			parks[number].serial = r.serial;
		number = 0;
		for (unsigned j = 0; j < 8; j++)
			number += parks[j].held;
		assert_int_equal(t.n, number);
		assert_true(!t.given || is_listed(&t, t.given));
	}
	/* nothing of it is open afterwards */
	holder_table_clear(&t);
	(void)close(sources[1]);
	assert_true(is_hung_up(sources[0]));
	(void)close(sources[0]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(a_thousand_parks_come_back),
		TEST(the_newest_word_counts),
		TEST(it_says_what_is_a_plain_socket),
		TEST(what_does_not_fit_is_ignored),
		TEST(a_drop_can_shut_down),
		TEST(giving_and_sending_at_once_is_no_deadlock),
		TEST(a_new_loop_gets_all_of_them),
		TEST(a_close_that_blocks_is_its_own),
		TEST(a_close_that_lingers_holds_up_nothing),
		TEST(close_waits_for_go),
		TEST(sigterm_ends_it_even_in_a_close),
		TEST(after_sigterm_nothing_is_closed_that_lingers),
		TEST(signals_of_a_terminal_do_not_end_it),
		TEST(the_end_of_all_others_is_its_own),
		TEST(an_idle_one_does_nothing),
		TEST(S_118_flipped_bytes_break_nothing),
		cmocka_unit_test(the_table_keeps_what_it_is_told),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
