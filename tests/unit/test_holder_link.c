/* SPDX-License-Identifier: MIT */

/*
 * The loop's end of a holder's socket, with the test as the holder: what it gives back is cut short,
 * of another version, damaged or noise. The loop says what it cannot use, takes the rest, and goes
 * on; no fd of it stays open.
 */

#include "daemon/edge/server.h"

#include <dirent.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "holder_fixture.h"

enum { PARKS = 4, LOOPS = 60, MESSAGES = 30 };

struct fixture {
	struct server *server;
	struct log log;
	struct record_message message; /* from the loop */
	struct record_batch batch;
	int holder; /* the holder's end */
	int open;   /* fds before there was a loop */
	uint32_t epoch;
	struct random random;
};

/* That last: the landing zone is the loop's to empty. */
static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	const struct dirent *entry;
	int n = 0;

	assert_non_null(d);
	while ((entry = readdir(d)))
		n += atoi(entry->d_name) >= FD_LASTING;
	(void)closedir(d);
	return n;
}

static int up(int fd)
{
	fd = fd_move_up(fd);
	assert_true(fd >= 0);
	return fd;
}

/* Until the loop has read what it was sent, and once more. */
static void turn(struct fixture *f)
{
	int unread = 0;

	while (ioctl(f->holder, SIOCOUTQ, &unread) == 0 && unread > 0)
		assert_int_equal(server_turn(f->server), 0);
	server_break(f->server); /* it waits for nothing */
	assert_int_equal(server_turn(f->server), 0);
}

/* Reads what the loop says. Returns how many parks are to be dropped. */
static unsigned hear(struct fixture *f)
{
	const char *reason;
	struct record_op op;
	unsigned drops = 0;
	int r;

	while (record_message_receive(&f->message, f->holder, MSG_DONTWAIT) > 0) {
		while ((r = record_message_next(&f->message, &op, &reason)) != 0) {
			assert_int_equal(r, 1);
			if (op.type == RECORD_GIVE_BACK)
				f->epoch = op.value;
			drops += op.type == RECORD_DROP;
		}
		record_message_clear(&f->message);
	}
	return drops;
}

/* A loop to which the holder's socket of an earlier one is given. */
static void loop_start(struct fixture *f)
{
	struct server_options options = {
		.starter = -1, .control = -1, .has_holders = true, .log = &f->log};
	struct server_holder holder = {.uid = getuid()};
	struct config_hard hard;
	int pair[2];

	f->open = count_fds();
	assert_int_equal(ftruncate(f->log.fd, 0), 0);
	assert_int_equal(lseek(f->log.fd, 0, SEEK_SET), 0);
	assert_int_equal(fd_zone_plug(), 0);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	holder.socket = up(pair[0]);
	f->holder = up(pair[1]);
	config_hard_limits(&hard);
	assert_int_equal(config_defaults(&hard, &options.config), 0);
	assert_int_equal(listener_open_private(&options.listener, &f->log), 0);
	options.holders = &holder;
	options.n_holders = 1;
	assert_int_equal(server_new(&options, &f->server), 0);
	fd_zone_unplug();
	turn(f);
	f->epoch = 0;
	assert_int_equal(hear(f), 0);
	assert_int_not_equal(f->epoch, 0);
}

static void loop_end(struct fixture *f)
{
	f->server = server_free(f->server);
	(void)close(f->holder);
	assert_int_equal(count_fds(), f->open);
}

static bool has_logged(const struct fixture *f, const char *text)
{
	static char buffer[1 << 20];
	ssize_t n = pread(f->log.fd, buffer, sizeof(buffer) - 1, 0);

	assert_true(n >= 0);
	buffer[n] = '\0';
	return strstr(buffer, text) != NULL;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)alarm(240);
	raise_fds();
	log_init(&f->log, up(memfd_create("log", MFD_CLOEXEC)), CONFIG_LOG_DEBUG);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)alarm(0);
	log_deinit(&f->log);
	(void)close(f->log.fd);
	free(f);
	return 0;
}

/* ---- Messages ---- */

/* A HOLD with this fd, which is closed when it is sent. */
static void add_park(struct fixture *f, uint64_t number, int fd)
{
	struct record r = record_of(number);
	char text[] = RECORD_TEXT;

	text[0] = (char)('A' + number); /* names differ */
	fd = up(fd);
	r.uid = getuid();
	r.deadline = 0;
	r.flags = 0;
	assert_int_equal(record_batch_add(&f->batch, RECORD_HOLD, f->epoch, &r, sizeof(r), text,
					  record_text_size(&r), &fd, 1),
			 0);
}

static int reading_end(void)
{
	int pipes[2];

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	(void)close(pipes[1]);
	return pipes[0];
}

/* Sends what is in the batch, closes its fds, and has the loop hear it. */
static void send_it(struct fixture *f)
{
	assert_int_equal(record_batch_send(&f->batch, f->holder), 0);
	for (unsigned i = 0; i < f->batch.n_fds; i++)
		(void)close(f->batch.fds[i]);
	record_batch_clear(&f->batch);
	turn(f);
}

/* Good parks, of this number and the next ones, and the end: so many come back in all. */
static void give_the_rest(struct fixture *f, uint64_t first, unsigned in_all)
{
	char text[64];

	for (unsigned i = 0; i < PARKS; i++)
		add_park(f, first + i, reading_end());
	assert_int_equal(
		record_batch_add(&f->batch, RECORD_END, f->epoch, NULL, 0, NULL, 0, NULL, 0), 0);
	send_it(f);
	(void)snprintf(text, sizeof(text), "gave back %u parks", in_all);
	assert_true(has_logged(f, text));
}

/* ---- Tests ---- */

static void what_is_good_comes_back(void **state)
{
	struct fixture *f = *state;

	loop_start(f);
	give_the_rest(f, 1, PARKS);
	assert_int_equal(hear(f), 0);
	assert_false(has_logged(f, "cannot be used"));
	loop_end(f);
}

/* One message of these bytes, instead of the one in the batch. */
static void damaged(struct fixture *f, void (*damage)(struct record_batch *b), unsigned left,
		    const char *reason)
{
	loop_start(f);
	add_park(f, 1, reading_end());
	add_park(f, 2, reading_end());
	damage(&f->batch);
	send_it(f);
	assert_true(has_logged(f, "gave back what cannot be used"));
	assert_true(has_logged(f, reason));
	give_the_rest(f, 3, left + PARKS);
	loop_end(f);
}

static void cut_in_the_header(struct record_batch *b)
{
	b->size = 9;
}

static void cut_in_a_record(struct record_batch *b)
{
	b->size = (b->size - 16) / 2 + 16 + 40; /* the second one */
}

static void of_another_version(struct record_batch *b)
{
	((uint16_t *)b->bytes)[2]++;
}

static void of_noise(struct record_batch *b)
{
	memset(b->bytes, 0xa5, b->size);
}

static void without_fds(struct record_batch *b)
{
	while (b->n_fds > 0)
		(void)close(b->fds[--b->n_fds]);
}

static void with_another_uid(struct record_batch *b)
{
	struct record *r = (struct record *)((uint8_t *)b->bytes + 32);

	r->uid++;
}

static void what_is_damaged_is_told_and_the_rest_is_taken(void **state)
{
	struct fixture *f = *state;

	damaged(f, cut_in_the_header, 0, "this is no message between a loop and a holder");
	damaged(f, cut_in_a_record, 1, "an operation in it is damaged, or its end is missing");
	damaged(f, of_another_version, 0, "it is of another version of readyd");
	damaged(f, of_noise, 0, "this is no message between a loop and a holder");
	damaged(f, without_fds, 0, "its descriptors were lost on the way");
	damaged(f, with_another_uid, 1, "a record of another uid");
}

/* What nobody can have is not to stay in the holder either. */
static void what_is_refused_is_to_be_dropped(void **state)
{
	struct fixture *f = *state;

	loop_start(f);
	add_park(f, 1, epoll_create1(EPOLL_CLOEXEC));
	add_park(f, 2, reading_end());
	add_park(f, 2, reading_end()); /* twice */
	send_it(f);
	assert_true(hear(f) >= 1);
	give_the_rest(f, 3, 1 + PARKS);
	loop_end(f);
}

static void an_empty_message_is_no_end(void **state)
{
	struct fixture *f = *state;

	loop_start(f);
	add_park(f, 1, reading_end());
	send_it(f);
	assert_int_equal(send(f->holder, "", 0, 0), 0);
	give_the_rest(f, 2, 1 + PARKS);
	loop_end(f);
}

/* What it has given back so far stays, and goes to another one. */
static void one_that_ends_is_replaced(void **state)
{
	struct fixture *f = *state;
	uint32_t uid;
	bool replace;
	int pair[2];

	loop_start(f);
	for (unsigned i = 1; i <= PARKS; i++)
		add_park(f, i, reading_end());
	send_it(f);
	(void)close(f->holder);
	while (!has_logged(f, "has gone: another one gets its 4 parks"))
		assert_int_equal(server_turn(f->server), 0);
	assert_true(server_wants_holder(f->server, &uid, &replace));
	assert_int_equal(uid, getuid());
	assert_false(replace);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	f->holder = up(pair[1]);
	server_take_holder(f->server, uid, up(pair[0]));
	turn(f);
	/* the set, for safe keeping; then the parks */
	assert_int_equal(record_message_receive(&f->message, f->holder, MSG_DONTWAIT), 1);
	assert_int_equal(f->message.n_fds, 1);
	record_message_clear(&f->message);
	assert_int_equal(record_message_receive(&f->message, f->holder, MSG_DONTWAIT), 1);
	assert_int_equal(f->message.n_fds, PARKS);
	record_message_clear(&f->message);
	loop_end(f);
}

static void add_something(struct fixture *f)
{
	uint32_t value = random_below(&f->random, 2) ? f->epoch : 0;
	struct record r = handed_record_of(random_below(&f->random, 2 * PARKS));
	struct record_drop drop = {.serial = 1};
	int fds[3];

	r.uid = getuid();
	switch (random_below(&f->random, 5)) {
	case 0:
		for (unsigned i = 0; i < 3; i++)
			fds[i] = up(reading_end());
		assert_int_equal(record_batch_add(&f->batch, RECORD_HOLD, value, &r, sizeof(r),
						  RECORD_TEXT, record_text_size(&r), fds, 3),
				 0);
		break;
	case 1:
		for (unsigned i = 0; i < 2; i++)
			fds[i] = up(reading_end());
		assert_int_equal(record_batch_add(&f->batch, RECORD_CHANGE, value, &r, sizeof(r),
						  NULL, 0, fds, 2),
				 0);
		break;
	case 2:
		assert_int_equal(record_batch_add(&f->batch, RECORD_STORED, value, &drop,
						  sizeof(drop), NULL, 0, NULL, 0),
				 0);
		break;
	default:
		add_park(f, random_below(&f->random, 2 * PARKS), reading_end());
	}
}

/* Flips bits, or cuts off the end, or neither. */
static void damage_at_random(struct fixture *f)
{
	struct record_batch *b = &f->batch;
	uint8_t *bytes = (uint8_t *)b->bytes;

	switch (random_below(&f->random, 4)) {
	case 0:
		b->size = 1 + random_below(&f->random, b->size);
		break;
	case 1:
		bytes[random_below(&f->random, b->size)] ^=
			(uint8_t)(1U << random_below(&f->random, 8));
		break;
	case 2:
		for (size_t at = random_below(&f->random, b->size); at < b->size; at++)
			bytes[at] = (uint8_t)random_below(&f->random, 256);
		break;
	default:
		break;
	}
}

/* At the end of the service, when it has seen the signal before the loop. */
static void one_that_had_nothing_is_no_trouble(void **state)
{
	struct fixture *f = *state;

	loop_start(f);
	record_batch_clear(&f->batch);
	assert_int_equal(
		record_batch_add(&f->batch, RECORD_END, f->epoch, NULL, 0, NULL, 0, NULL, 0), 0);
	send_it(f);
	(void)close(f->holder);
	while (!has_logged(f, "has gone: it had no parks"))
		assert_int_equal(server_turn(f->server), 0);
	assert_false(has_logged(f, "warning"));
	f->holder = -1;
	loop_end(f);
}

static void S_118_a_mad_holder_breaks_no_loop(void **state)
{
	struct fixture *f = *state;

	f->random = random_begin();
	for (unsigned i = 0; i < LOOPS; i++) {
		loop_start(f);
		for (unsigned j = 0; j < MESSAGES; j++) {
			unsigned n = 1 + (unsigned)random_below(&f->random, 4);

			while (n-- > 0)
				add_something(f);
			damage_at_random(f);
			send_it(f);
			(void)hear(f);
		}
		assert_false(has_logged(f, "has gone"));
		record_batch_clear(&f->batch);
		assert_int_equal(record_batch_add(&f->batch, RECORD_END, f->epoch, NULL, 0, NULL, 0,
						  NULL, 0),
				 0);
		send_it(f);
		assert_true(has_logged(f, "gave back"));
		loop_end(f);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(what_is_good_comes_back),
		TEST(what_is_damaged_is_told_and_the_rest_is_taken),
		TEST(what_is_refused_is_to_be_dropped),
		TEST(an_empty_message_is_no_end),
		TEST(one_that_ends_is_replaced),
		TEST(one_that_had_nothing_is_no_trouble),
		TEST(S_118_a_mad_holder_breaks_no_loop),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
