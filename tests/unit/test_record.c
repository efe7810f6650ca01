/* SPDX-License-Identifier: MIT */

/*
 * The codec of loop, holders and depots: what is written is read; whatever is cut off, flipped,
 * missing or too much is refused, and costs no more than it must. What lies behind a message in the
 * buffer is filled with two different patterns in turn: a result that depended on it would differ.
 */

#include "daemon/edge/record.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "record_fixture.h"

enum {
	FLIPS = 10000,
	OPS = 9,
	TEXT_SIZE = sizeof(RECORD_TEXT) - 1,
};

struct fixture {
	int pair[2];
	int pipe[2];
	struct record_batch batch;
	struct record_message message; /* with fds of its own */
	struct record_message loaded;  /* without a socket: its fds are numbers only */
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f->pair), 0);
	assert_int_equal(pipe2(f->pipe, O_CLOEXEC), 0);
	(void)alarm(120);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)alarm(0);
	record_message_clear(&f->message);
	for (int i = 0; i < 2; i++) {
		(void)close(f->pair[i]);
		(void)close(f->pipe[i]);
	}
	free(f);
	return 0;
}

/* An operation of each kind, in one message. */
static void add_all(struct fixture *f)
{
	struct record held = record_of(1), handed = handed_record_of(2);
	struct record_drop drop = {.token = "token 3", .serial = 5, .shut_down = 1};
	struct record_batch *b = &f->batch;
	int fds[3] = {f->pipe[0], f->pipe[1], f->pipe[0]};

	record_batch_clear(b);
	assert_int_equal(record_batch_add(b, RECORD_HOLD, 0, &held, sizeof(held), RECORD_TEXT,
					  TEXT_SIZE, fds, 1),
			 0);
	assert_int_equal(record_batch_add(b, RECORD_HOLD, 0, &handed, sizeof(handed), RECORD_TEXT,
					  TEXT_SIZE, fds, 3),
			 0);
	assert_int_equal(
		record_batch_add(b, RECORD_CHANGE, 0, &handed, sizeof(handed), NULL, 0, fds, 2), 0);
	assert_int_equal(record_batch_add(b, RECORD_DROP, 0, &drop, sizeof(drop), NULL, 0, NULL, 0),
			 0);
	assert_int_equal(record_batch_add(b, RECORD_CLOSE, 9, NULL, 0, NULL, 0, fds, 2), 0);
	assert_int_equal(record_batch_add(b, RECORD_GO, 9, NULL, 0, NULL, 0, NULL, 0), 0);
	assert_int_equal(record_batch_add(b, RECORD_GIVE_BACK, 4, NULL, 0, NULL, 0, NULL, 0), 0);
	assert_int_equal(record_batch_add(b, RECORD_END, 4, NULL, 0, NULL, 0, NULL, 0), 0);
	assert_int_equal(
		record_batch_add(b, RECORD_LOST, EIO, &drop, sizeof(drop), NULL, 0, NULL, 0), 0);
	assert_int_equal(b->n_fds, 8);
}

/* Of a message of that many bytes of the batch and that many fds, without a socket; behind it
 * `filler`. */
static void load(struct fixture *f, size_t size, unsigned n_fds, int filler)
{
	struct record_message *m = &f->loaded;

	memset(m->bytes, filler, sizeof(m->bytes));
	memcpy(m->bytes, f->batch.bytes, size);
	m->size = size;
	m->at = 0;
	m->next_fd = 0;
	m->n_fds = n_fds;
	for (unsigned i = 0; i < n_fds; i++)
		m->fds[i] = 1000 + (int)i; /* not looked at */
}

/* What reading a message came to. */
struct outcome {
	unsigned good, bad, fds;
	bool ended_badly;
	enum record_op_type types[OPS];
};

static struct outcome read_all(struct record_message *m)
{
	struct outcome o = {0};
	struct record_op op;
	const char *reason;
	unsigned calls = 0;
	int r;

	for (;;) {
		reason = NULL;
		r = record_message_next(m, &op, &reason);
		assert_true(++calls < RECORD_MESSAGE_MAX);
		if (r == 0)
			return o;
		if (r < 0) {
			assert_non_null(reason);
			assert_true(r == -EINVAL || r == -EBADMSG);
			assert_false(o.ended_badly);
			o.bad += r == -EINVAL;
			o.ended_badly = r == -EBADMSG;
			continue;
		}
		assert_int_equal(r, 1);
		/* what it points to is in the message, and is what it must be */
		if (op.text)
			assert_true(op.text + record_text_size(op.record) <=
				    (uint8_t *)m->bytes + m->size);
		if (op.record)
			assert_true((const uint8_t *)(op.record + 1) <=
				    (uint8_t *)m->bytes + m->size);
		/* no fd is told twice */
		assert_true(op.first_fd + op.n_fds <= m->n_fds);
		assert_true(op.first_fd >= o.fds);
		o.fds = op.first_fd + op.n_fds;
		if (o.good < OPS)
			o.types[o.good] = op.type;
		o.good++;
	}
}

/* ---- Tests ---- */

static void what_is_sent_is_received(void **state)
{
	struct fixture *f = *state;
	struct record_message *m = &f->message;
	struct record handed = handed_record_of(2);
	struct record_op op;
	const char *reason;
	static const struct {
		enum record_op_type type;
		uint32_t value;
		unsigned first_fd, n_fds;
	} expected[OPS] = {
		{RECORD_HOLD, 0, 0, 1},      {RECORD_HOLD, 0, 1, 3},  {RECORD_CHANGE, 0, 4, 2},
		{RECORD_DROP, 0, 6, 0},      {RECORD_CLOSE, 9, 6, 2}, {RECORD_GO, 9, 8, 0},
		{RECORD_GIVE_BACK, 4, 8, 0}, {RECORD_END, 4, 8, 0},   {RECORD_LOST, EIO, 8, 0},
	};

	add_all(f);
	assert_int_equal(record_batch_send(&f->batch, f->pair[0]), 0);
	assert_int_equal(record_message_receive(m, f->pair[1], 0), 1);
	assert_int_equal(m->n_fds, 8);
	assert_false(m->truncated);
	for (unsigned i = 0; i < m->n_fds; i++) {
		assert_true(m->fds[i] >= FD_LASTING);
		assert_int_equal(fcntl(m->fds[i], F_GETFD), FD_CLOEXEC);
	}
	for (unsigned i = 0; i < OPS; i++) {
		assert_int_equal(record_message_next(m, &op, &reason), 1);
		assert_int_equal(op.type, expected[i].type);
		assert_int_equal(op.value, expected[i].value);
		assert_int_equal(op.first_fd, expected[i].first_fd);
		assert_int_equal(op.n_fds, expected[i].n_fds);
		if (i == 1) {
			assert_memory_equal(op.record, &handed, sizeof(handed));
			assert_memory_equal(op.text, RECORD_TEXT, TEXT_SIZE);
		}
		if (i == 3) {
			assert_string_equal(op.drop->token, "token 3");
			assert_int_equal(op.drop->serial, 5);
			assert_int_equal(op.drop->shut_down, 1);
		}
	}
	assert_int_equal(record_message_next(m, &op, &reason), 0);
	assert_int_equal(record_message_next(m, &op, &reason), 0);
	/* each fd is the one that was sent there */
	assert_int_equal(fd_same_description(m->fds[0], f->pipe[0]), 1);
	assert_int_equal(fd_same_description(m->fds[2], f->pipe[1]), 1);
	assert_int_equal(fd_same_description(m->fds[7], f->pipe[1]), 1);
}

static void peeking_gives_copies(void **state)
{
	struct fixture *f = *state;
	struct outcome first, second;

	add_all(f);
	assert_int_equal(record_batch_send(&f->batch, f->pair[0]), 0);
	assert_int_equal(record_message_receive(&f->message, f->pair[1], MSG_PEEK), 1);
	first = read_all(&f->message);
	record_message_clear(&f->message);
	assert_int_equal(record_message_receive(&f->message, f->pair[1], MSG_DONTWAIT), 1);
	second = read_all(&f->message);
	assert_int_equal(first.good, OPS);
	assert_int_equal(second.good, OPS);
	record_message_clear(&f->message);
	assert_int_equal(record_message_receive(&f->message, f->pair[1], MSG_DONTWAIT), -EAGAIN);
}

static void a_message_of_nothing_is_no_end(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	assert_int_equal(send(f->pair[0], "", 0, 0), 0);
	assert_int_equal(record_message_receive(&f->message, f->pair[1], MSG_DONTWAIT), 1);
	o = read_all(&f->message);
	assert_true(o.ended_badly);
	assert_int_equal(o.good, 0);
	assert_int_equal(record_message_receive(&f->message, f->pair[1], MSG_DONTWAIT), -EAGAIN);
}

static void what_a_dead_sender_sent_is_received(void **state)
{
	struct fixture *f = *state;

	add_all(f);
	assert_int_equal(record_batch_send(&f->batch, f->pair[0]), 0);
	assert_int_equal(send(f->pair[1], "unread", 6, 0), 6); /* so ECONNRESET comes before it */
	(void)close(f->pair[0]);
	f->pair[0] = -1;
	assert_int_equal(record_message_receive(&f->message, f->pair[1], 0), 1);
	assert_int_equal(read_all(&f->message).good, OPS);
	record_message_clear(&f->message);
	assert_int_equal(record_message_receive(&f->message, f->pair[1], 0), 0);
	assert_int_equal(record_batch_send(&f->batch, f->pair[1]), -EPIPE);
}

static void a_full_queue_is_told(void **state)
{
	struct fixture *f = *state;
	unsigned sent = 0;
	int r;

	add_all(f);
	while ((r = record_batch_send(&f->batch, f->pair[0])) == 0)
		sent++;
	assert_int_equal(r, -EAGAIN);
	assert_true(sent > 10);
}

static void each_cut_leaves_what_came_before(void **state)
{
	struct fixture *f = *state;
	unsigned most = 0;

	add_all(f);
	for (size_t size = 0; size < f->batch.size; size++) {
		struct outcome a, b;

		load(f, size, f->batch.n_fds, 0x00);
		a = read_all(&f->loaded);
		load(f, size, f->batch.n_fds, 0xff);
		b = read_all(&f->loaded);
		assert_memory_equal(&a, &b, sizeof(a));
		assert_true(a.ended_badly);
		assert_int_equal(a.bad, 0);
		assert_true(a.good >= most && a.good <= most + 1);
		most = a.good;
		assert_true(size >= 16 || a.good == 0);
	}
	assert_int_equal(most, OPS - 1);
	load(f, f->batch.size, f->batch.n_fds, 0xff);
	assert_int_equal(read_all(&f->loaded).good, OPS);
}

static void bytes_behind_the_end_are_refused(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	add_all(f);
	for (size_t more = 1; more < 64; more++) {
		load(f, f->batch.size + more, f->batch.n_fds, 0);
		o = read_all(&f->loaded);
		assert_true(o.ended_badly);
		assert_int_equal(o.good, 0);
	}
}

static void another_version_is_refused_whole(void **state)
{
	struct fixture *f = *state;
	struct record_op op;
	const char *reason = NULL;

	add_all(f);
	((uint16_t *)f->batch.bytes)[2] = RECORD_VERSION + 1;
	load(f, f->batch.size, f->batch.n_fds, 0);
	assert_int_equal(record_message_next(&f->loaded, &op, &reason), -EBADMSG);
	assert_non_null(strstr(reason, "version"));
	assert_int_equal(record_message_next(&f->loaded, &op, &reason), 0);
}

/* Those whose fds have come are good; the others say so. */
static void missing_fds_concern_those_that_miss_them(void **state)
{
	struct fixture *f = *state;
	static const struct {
		unsigned good, bad;
	} expected[] = {{5, 4}, {6, 3}, {6, 3}, {6, 3}, {7, 2}, {7, 2}, {8, 1}, {8, 1}, {9, 0}};

	add_all(f);
	for (unsigned n = 0; n <= f->batch.n_fds; n++) {
		struct outcome o;

		load(f, f->batch.size, n, 0);
		o = read_all(&f->loaded);
		assert_int_equal(o.good, expected[n].good);
		assert_int_equal(o.bad, expected[n].bad);
		assert_false(o.ended_badly);
	}
	/* one in the middle that could not be moved up */
	load(f, f->batch.size, f->batch.n_fds, 0);
	f->loaded.fds[2] = -1;
	assert_int_equal(read_all(&f->loaded).bad, 1);
}

static void fds_that_the_receiver_has_no_room_for_are_lost(void **state)
{
	struct fixture *f = *state;
	struct rlimit before, limit;
	struct outcome o;
	int r;

	add_all(f);
	assert_int_equal(record_batch_send(&f->batch, f->pair[0]), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	limit = before;
	limit.rlim_cur = FD_LASTING + 2; /* for two of eight */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	r = record_message_receive(&f->message, f->pair[1], 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(r, 1);
	assert_true(f->message.truncated);
	o = read_all(&f->message);
	assert_int_equal(o.good, OPS - 3); /* the first HOLD, and those without any */
	assert_int_equal(o.bad, 3);
}

static void more_fds_than_it_says_are_refused(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	add_all(f);
	load(f, f->batch.size, f->batch.n_fds + 1, 0);
	o = read_all(&f->loaded);
	assert_true(o.ended_badly);
	assert_int_equal(o.good, 0);
}

/* No operation may get another's fds: where the frames disagree, nobody gets any. */
static void a_wrong_number_of_fds_is_refused(void **state)
{
	struct fixture *f = *state;
	uint16_t *n_fds = (uint16_t *)f->batch.bytes + 8 + 1; /* of the first frame */

	add_all(f);
	assert_int_equal(*n_fds, 1);
	*n_fds = 2;
	load(f, f->batch.size, f->batch.n_fds, 0);
	assert_true(read_all(&f->loaded).ended_badly);
	assert_int_equal(f->loaded.next_fd, 0);
}

static void contradicting_records_are_not_written(void **state)
{
	struct fixture *f = *state;
	struct record good = handed_record_of(1), r;
	int fds[3] = {0};

#define REFUSED(change)                                                                     \
	do {                                                                                \
		r = good;                                                                   \
		change;                                                                     \
		assert_int_equal(record_batch_add(&f->batch, RECORD_HOLD, 0, &r, sizeof(r), \
						  RECORD_TEXT, TEXT_SIZE, fds, 3),          \
				 -EINVAL);                                                  \
	} while (0)

	record_batch_clear(&f->batch);
	REFUSED(r.note_length = 2049);
	REFUSED(r.name_length++);
	REFUSED(r.local_length = 129);
	REFUSED(r.peer_length = 129);
	REFUSED(r.state = 2);
	REFUSED(r.state = RECORD_HELD);
	REFUSED(r.answered = 2);
	REFUSED(r.answered = 0);
	REFUSED(r.timed_out = 2);
	REFUSED(r.maker_fd = 0);
	REFUSED(r.maker_fd = 2);
	REFUSED(r.worker_fd = 0);
	REFUSED(r.interest = 4);
	REFUSED(r.kind = 200);
	REFUSED(r.flags = 0x10);
	REFUSED(r.parked = -1);
	REFUSED(r.deadline = -1);
	REFUSED(r.maker_pid = -1);
	REFUSED(r.worker_pid = -1);
	REFUSED(memset(r.maker, 0, sizeof(r.maker)));
	REFUSED(memset(r.worker, 0, sizeof(r.worker)));
	REFUSED(r.worker_uid = UINT32_MAX);
	REFUSED(r.shared = 2);
	REFUSED((r.shared = 1, r.note_length = (uint16_t)(r.note_length + r.group_length),
		 r.group_length = 0));
	REFUSED(r.reserved[1] = 1);
#undef REFUSED
	assert_int_equal(f->batch.size, 0);
	assert_int_equal(record_batch_add(&f->batch, RECORD_HOLD, 0, &good, sizeof(good),
					  RECORD_TEXT, TEXT_SIZE, fds, 3),
			 0);
}

static void operations_of_another_form_are_not_written(void **state)
{
	struct fixture *f = *state;
	struct record r = record_of(1);
	struct record_drop drop = {.shut_down = 2};
	static int fds[RECORD_FDS_MAX + 1];
	struct record_batch *b = &f->batch;

	record_batch_clear(b);
	assert_int_equal(record_batch_add(b, 0, 0, NULL, 0, NULL, 0, NULL, 0), -EINVAL);
	assert_int_equal(record_batch_add(b, RECORD_SETTLED + 1, 0, NULL, 0, NULL, 0, NULL, 0),
			 -EINVAL);
	assert_int_equal(record_batch_add(b, RECORD_CLOSE, 0, NULL, 0, NULL, 0, NULL, 0), -EINVAL);
	assert_int_equal(
		record_batch_add(b, RECORD_CLOSE, 0, NULL, 0, NULL, 0, fds, RECORD_FDS_MAX + 1),
		-EINVAL);
	assert_int_equal(record_batch_add(b, RECORD_GO, 0, NULL, 0, NULL, 0, fds, 1), -EINVAL);
	assert_int_equal(record_batch_add(b, RECORD_DROP, 0, &drop, sizeof(drop), NULL, 0, NULL, 0),
			 -EINVAL);
	assert_int_equal(record_batch_add(b, RECORD_CHANGE, 0, &r, sizeof(r), NULL, 0, fds, 1),
			 -EINVAL);
	assert_int_equal(record_batch_add(b, RECORD_HOLD, 0, &r, sizeof(r), NULL, 0, fds, 1),
			 -EINVAL);
	assert_int_equal(b->size, 0);
}

static void a_batch_is_full_at_its_fds_or_bytes(void **state)
{
	struct fixture *f = *state;
	static uint8_t text[RECORD_TEXT_MAX];
	struct record r = record_of(1);
	static int fds[RECORD_FDS_MAX];
	unsigned n;

	record_batch_clear(&f->batch);
	for (n = 0; record_batch_add(&f->batch, RECORD_HOLD, 0, &r, sizeof(r), RECORD_TEXT,
				     TEXT_SIZE, fds, 1) == 0;
	     n++)
		;
	assert_int_equal(n, RECORD_FDS_MAX);
	r.name_length = r.group_length = 255;
	r.note_length = 2048;
	r.local_length = r.peer_length = 128;
	record_batch_clear(&f->batch);
	for (n = 0; record_batch_add(&f->batch, RECORD_HOLD, 0, &r, sizeof(r), text, sizeof(text),
				     fds, 1) == 0;
	     n++)
		assert_true(f->batch.size <= RECORD_MESSAGE_MAX);
	assert_int_equal(n, (RECORD_MESSAGE_MAX - 16) / (16 + 128 + 2816));
	record_batch_clear(&f->batch);
	for (n = 0; record_batch_add(&f->batch, RECORD_GO, 0, NULL, 0, NULL, 0, NULL, 0) == 0; n++)
		assert_true(f->batch.size <= RECORD_MESSAGE_MAX);
	assert_int_equal(n, RECORD_MESSAGE_MAX / 16 - 1);
	record_batch_clear(&f->batch);
	assert_int_equal(
		record_batch_add(&f->batch, RECORD_CLOSE, 0, NULL, 0, NULL, 0, fds, RECORD_FDS_MAX),
		0);
}

static void flipped_bytes_break_nothing(void **state)
{
	struct fixture *f = *state;
	struct random random = random_begin();
	struct record_batch *b = &f->batch;
	unsigned refused = 0;

	for (unsigned i = 0; i < FLIPS; i++) {
		unsigned n_fds;
		struct outcome first, second;

		add_all(f);
		for (uint64_t flips = 1 + random_below(&random, 4); flips > 0; flips--)
			((uint8_t *)b->bytes)[random_below(&random, b->size)] ^=
				(uint8_t)(1 + random_below(&random, 255));
		n_fds = (unsigned)random_below(&random, b->n_fds + 2);
		if (random_below(&random, 2))
			n_fds = b->n_fds;
		load(f, b->size, n_fds, 0x00);
		first = read_all(&f->loaded);
		load(f, b->size, n_fds, 0xff);
		second = read_all(&f->loaded);
		assert_memory_equal(&first, &second, sizeof(first));
		refused += first.bad > 0 || first.ended_badly;
	}
	assert_true(refused > FLIPS / 2);
}

static void random_bytes_break_nothing(void **state)
{
	struct fixture *f = *state;
	struct random random = random_begin();

	for (unsigned i = 0; i < FLIPS; i++) {
		size_t size = (size_t)random_below(&random, 512);

		add_all(f);
		for (size_t n = 16; n < size; n++)
			((uint8_t *)f->batch.bytes)[n] = (uint8_t)random_below(&random, 256);
		((uint32_t *)f->batch.bytes)[2] = (uint32_t)size; /* the header is a good one */
		load(f, size, (unsigned)random_below(&random, 9), 0xff);
		(void)read_all(&f->loaded);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(what_is_sent_is_received),
		TEST(peeking_gives_copies),
		TEST(a_message_of_nothing_is_no_end),
		TEST(what_a_dead_sender_sent_is_received),
		TEST(a_full_queue_is_told),
		TEST(each_cut_leaves_what_came_before),
		TEST(bytes_behind_the_end_are_refused),
		TEST(another_version_is_refused_whole),
		TEST(missing_fds_concern_those_that_miss_them),
		TEST(fds_that_the_receiver_has_no_room_for_are_lost),
		TEST(more_fds_than_it_says_are_refused),
		TEST(a_wrong_number_of_fds_is_refused),
		TEST(contradicting_records_are_not_written),
		TEST(operations_of_another_form_are_not_written),
		TEST(a_batch_is_full_at_its_fds_or_bytes),
		TEST(flipped_bytes_break_nothing),
		TEST(random_bytes_break_nothing),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
