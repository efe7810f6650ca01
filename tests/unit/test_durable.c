/* SPDX-License-Identifier: MIT */

/*
 * What a holder stores as it is told of it, step by step. The test is PID 1, which reads its messages
 * when the test likes, and the loop; and it kills the holder at random, and starts it with what PID 1
 * has.
 */

#include "daemon/keeper/depot.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/un.h>

#include "holder_fixture.h"

enum { UID = 1000, TOKENS = 400, ENTRIES = 64, STEPS = 6000 };

struct entry {
	char name[STORE_NAME_SIZE];
	int fd; /* -1: free */
};

/* What the test knows of a park. */
struct known {
	bool there;
	uint64_t serial;
	uint64_t stored; /* what STORED said; 0: nothing */
	bool out;        /* its end was said to be stored */
};

struct fixture {
	struct durable durable;
	struct log log;
	struct holder_table table;
	struct record_batch batch;
	struct record_message message;
	struct entry entries[ENTRIES];
	int barriers[16]; /* read, and not closed yet */
	unsigned n_barriers;
	int manager;
	int loop[2];
	uint64_t serial;
	struct known known[TOKENS];
	unsigned lost;
	unsigned settled;
	bool deaf; /* the manager */
};

/* ---- The manager ---- */

static void obey(struct fixture *f, const char *text, int fd)
{
	const char *name = strstr(text, "FDNAME=");

	for (unsigned i = 0; i < ENTRIES; i++) {
		struct entry *e = &f->entries[i];

		if (strncmp(text, "FDSTORE=1", 9) == 0 && e->fd < 0) {
			(void)snprintf(e->name, sizeof(e->name), "%s", name + 7);
			e->fd = fd;
			return;
		}
		if (strncmp(text, "FDSTOREREMOVE=1", 15) == 0 && e->fd >= 0 &&
		    strcmp(e->name, name + 7) == 0) {
			(void)close(e->fd);
			e->fd = -1;
			return;
		}
	}
	if (strcmp(text, "BARRIER=1") == 0) {
		f->barriers[f->n_barriers++] = fd;
		return;
	}
	assert_int_equal(strncmp(text, "FDSTOREREMOVE=1", 15), 0);
}

/* Reads one message. false: there is none. */
static bool read_one(struct fixture *f)
{
	char text[256];
	struct iovec iov = {text, sizeof(text) - 1};
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(f->manager, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fd = -1;

	if (n < 0)
		return false;
	text[n] = '\0';
	if (CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	if (!f->deaf)
		obey(f, text, fd);
	else if (fd >= 0)
		(void)close(fd);
	return true;
}

static void answer_barriers(struct fixture *f)
{
	while (f->n_barriers > 0)
		(void)close(f->barriers[--f->n_barriers]);
}

static unsigned count_entries(const struct fixture *f)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ENTRIES; i++)
		n += f->entries[i].fd >= 0;
	return n;
}

/* ---- The loop ---- */

static void hear(struct fixture *f)
{
	const char *reason;
	struct record_op op;

	while (durable_has_answers(&f->durable))
		assert_int_equal(durable_answer(&f->durable, f->loop[1]), 0);
	while (record_message_receive(&f->message, f->loop[0], MSG_DONTWAIT) > 0)
		while (record_message_next(&f->message, &op, &reason) > 0) {
			struct known *k;

			if (op.type == RECORD_SETTLED) {
				f->settled = op.value;
				continue;
			}
			k = &f->known[op.value - 1];
			f->lost += op.type == RECORD_LOST;
			if (op.type == RECORD_LOST)
				continue;
			assert_int_equal(op.type, RECORD_STORED);
			assert_true(op.drop->serial > k->stored && op.drop->serial <= k->serial);
			k->stored = op.drop->serial;
			k->out = !k->there && op.drop->serial == k->serial;
		}
}

static void turn(struct fixture *f)
{
	durable_run(&f->durable);
	hear(f);
	durable_close(&f->durable);
}

/* Until all is stored. */
static void settle(struct fixture *f)
{
	for (unsigned i = 0; i < 10000; i++) {
		turn(f);
		if (durable_is_quiet(&f->durable) && !f->durable.settle)
			return;
		while (read_one(f))
			;
		answer_barriers(f);
		(void)usleep(f->durable.again != 0 ? 1000 : 0);
	}
	fail_msg("never settled");
}

/* A new park, or a change of one; `asks`: the loop waits. */
static void tell(struct fixture *f, unsigned i, bool asks, bool answered)
{
	struct known *k = &f->known[i];
	struct record r = record_of(i);
	struct record_op op = {
		.type = k->there ? RECORD_CHANGE : RECORD_HOLD,
		.record = &r,
		.text = (const uint8_t *)RECORD_TEXT,
		.value = asks ? i + 1 : 0,
	};
	int fds[3] = {k->there ? -1 : eventfd(0, EFD_CLOEXEC), -1, -1};

	r.serial = ++f->serial;
	r.answered = answered;
	if (!answered)
		memset(r.maker, 'm', sizeof(r.maker));
	if (k->there)
		assert_int_equal(holder_table_change(&f->table, &op, fds), 0);
	else
		assert_int_equal(holder_table_hold(&f->table, &op, fds), 0);
	if (!k->there)
		*k = (struct known){.there = true};
	k->serial = r.serial;
	durable_note(&f->durable, holder_table_find(&f->table, r.token), op.value);
}

static void drop(struct fixture *f, unsigned i)
{
	struct record r = record_of(i);
	struct record_drop d = {.serial = ++f->serial};

	memcpy(d.token, r.token, sizeof(d.token));
	assert_int_equal(
		durable_note_drop(&f->durable, holder_table_find(&f->table, r.token), &d, i + 1),
		0);
	assert_int_equal(holder_table_drop(&f->table, &d), 0);
	f->known[i].there = false;
	f->known[i].serial = d.serial;
}

/* ---- The holder ---- */

static void begin(struct fixture *f, unsigned max)
{
	holder_table_init(&f->table);
	f->durable = (struct durable){
		.uid = UID,
		.log = &f->log,
		.table = &f->table,
		.batch = &f->batch,
	};
	durable_init(&f->durable);
	assert_int_equal(ledger_new(max, &f->durable.ledger), 0);
	f->durable.term = ledger_appoint(f->durable.ledger, UID);
}

static void end(struct fixture *f)
{
	durable_clear(&f->durable);
	holder_table_clear(&f->table);
	f->durable.ledger = ledger_free(f->durable.ledger);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	socklen_t length = sizeof(name);
	char address[64];

	assert_non_null(f);
	(void)alarm(240);
	raise_fds();
	assert_int_equal(fd_zone_plug(), 0);
	for (unsigned i = 0; i < ENTRIES; i++)
		f->entries[i].fd = -1;
	log_init(&f->log, memfd_create("log", MFD_CLOEXEC), CONFIG_LOG_DEBUG);
	f->manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->manager, (struct sockaddr *)&name, sizeof(name.sun_family)), 0);
	assert_int_equal(getsockname(f->manager, (struct sockaddr *)&name, &length), 0);
	(void)snprintf(address, sizeof(address), "@%.*s",
		       (int)(length - offsetof(struct sockaddr_un, sun_path) - 1),
		       name.sun_path + 1);
	(void)setenv("NOTIFY_SOCKET", address, 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f->loop), 0);
	begin(f, 16);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)alarm(0);
	end(f);
	(void)unsetenv("NOTIFY_SOCKET");
	answer_barriers(f);
	for (unsigned i = 0; i < ENTRIES; i++)
		if (f->entries[i].fd >= 0)
			(void)close(f->entries[i].fd);
	(void)close(f->manager);
	(void)close(f->loop[0]);
	(void)close(f->loop[1]);
	(void)close(f->log.fd);
	fd_zone_unplug();
	free(f);
	return 0;
}

/* ---- Tests ---- */

static void stored_when_the_barrier_is_read(void **state)
{
	struct fixture *f = *state;
	struct pollfd polled[2];
	int64_t until;

	tell(f, 0, true, false);
	turn(f);
	assert_true(read_one(f) && count_entries(f) == 1);
	assert_true(read_one(f) && f->n_barriers == 1);
	turn(f);
	assert_int_equal(f->known[0].stored, 0);
	assert_int_equal(durable_wait(&f->durable, polled, &until), 1);
	assert_int_equal(polled[0].fd, f->durable.barrier);
	answer_barriers(f);
	turn(f);
	assert_int_equal(f->known[0].stored, f->known[0].serial);
	assert_false(read_one(f)); /* nothing was there to be removed */
}

static void an_end_is_told_when_all_copies_are_gone(void **state)
{
	struct fixture *f = *state;

	tell(f, 0, true, true);
	tell(f, 1, true, true);
	settle(f);
	drop(f, 0);
	turn(f);
	while (read_one(f)) /* the other one anew */
		;
	assert_int_equal(count_entries(f), 2);
	answer_barriers(f);
	turn(f);
	while (read_one(f))
		;
	assert_int_equal(count_entries(f), 1);
	assert_false(f->known[0].out);
	answer_barriers(f);
	turn(f);
	assert_true(f->known[0].out);
	/* one that comes while a cycle is under way, about what is in it */
	tell(f, 2, true, true);
	turn(f);
	drop(f, 2);
	settle(f);
	assert_true(f->known[2].out);
	/* and one of which nothing is known */
	f->known[3].serial = 1;
	assert_int_equal(durable_note_drop(&f->durable, NULL,
					   &(struct record_drop){.token = "?", .serial = 1}, 4),
			 0);
	turn(f);
	assert_true(f->known[3].out);
}

static void what_nobody_waits_for_can_wait(void **state)
{
	struct fixture *f = *state;
	struct pollfd polled[2];
	int64_t until;

	tell(f, 0, true, false);
	settle(f);
	tell(f, 0, false, true);
	turn(f);
	assert_false(read_one(f));
	assert_int_equal(durable_wait(&f->durable, polled, &until), 0);
	assert_true(until != INT64_MAX);
	tell(f, 1, true, true); /* goes along */
	settle(f);
	assert_int_equal(holder_table_find(&f->table, record_of(0).token)->stored.written,
			 f->known[0].serial);
	assert_int_equal(durable_wait(&f->durable, polled, &until), 0);
	assert_true(until == INT64_MAX);
}

/* PID 1's queue holds few messages. */
static void fill_queue(const struct fixture *f)
{
	int other = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un name;
	socklen_t length = sizeof(name);

	assert_int_equal(getsockname(f->manager, (struct sockaddr *)&name, &length), 0);
	assert_int_equal(connect(other, (struct sockaddr *)&name, length), 0);
	while (send(other, "FDSTOREREMOVE=1\nFDNAME=none", 27, 0) > 0)
		;
	(void)close(other);
}

static void a_full_queue_is_waited_for(void **state)
{
	struct fixture *f = *state;
	struct pollfd polled[2];
	int64_t until;

	fill_queue(f);
	tell(f, 0, true, true);
	turn(f);
	assert_int_equal(durable_wait(&f->durable, polled, &until), 1);
	assert_int_equal(polled[0].events, POLLOUT);
	settle(f);
	assert_int_equal(f->known[0].stored, f->known[0].serial);
}

static void a_full_store_refuses_new_parks_only(void **state)
{
	struct fixture *f = *state;
	uint32_t serial;

	tell(f, 0, true, true);
	tell(f, 1, true, true);
	settle(f);
	while (ledger_room(f->durable.ledger) > 1) /* another user's */
		assert_int_equal(ledger_claim(f->durable.ledger, UID + 1, &serial), 0);
	tell(f, 2, true, false);
	settle(f);
	assert_int_equal(f->lost, 1);
	assert_int_equal(f->table.n, 2); /* it is not kept, either */
	drop(f, 0);
	tell(f, 1, true, true);
	settle(f);
	assert_true(f->known[0].out);
	assert_int_equal(f->known[1].stored, f->known[1].serial);
	assert_int_equal(count_entries(f), 1);
}

/* What an earlier holder has stored goes when all is stored again, and not before. */
static void an_earlier_holder_is_succeeded(void **state)
{
	struct fixture *f = *state;
	struct ledger *ledger = f->durable.ledger;

	tell(f, 0, true, true);
	tell(f, 1, true, true);
	settle(f);
	durable_clear(&f->durable);
	holder_table_clear(&f->table);
	begin(f, 16);
	f->durable.ledger = (ledger_free(f->durable.ledger), ledger);
	f->durable.term = ledger_appoint(ledger, UID);
	memset(f->known, 0, sizeof(f->known));
	tell(f, 0, false, true);
	settle(f);
	assert_int_equal(count_entries(f), 2);
	tell(f, 1, false, true);
	durable_settle(&f->durable, 7);
	turn(f);
	while (read_one(f))
		;
	assert_int_equal(count_entries(f), 3);
	assert_int_equal(f->settled, 0);
	settle(f);
	assert_int_equal(f->settled, 7);
	assert_int_equal(count_entries(f), 1);
}

static void who_is_replaced_takes_back_what_it_stored(void **state)
{
	struct fixture *f = *state;

	tell(f, 0, true, true);
	turn(f);
	(void)ledger_appoint(f->durable.ledger, UID);
	settle(f);
	assert_int_equal(count_entries(f), 0);
	assert_int_equal(f->known[0].stored, 0);
	assert_int_equal(ledger_room(f->durable.ledger), 16);
}

/* The next holder of this user has stored something. Returns its serial. */
static uint32_t succeed(struct fixture *f)
{
	struct entry *e = &f->entries[ENTRIES - 1];
	uint32_t serial;

	(void)ledger_appoint(f->durable.ledger, UID);
	assert_int_equal(ledger_claim(f->durable.ledger, UID, &serial), 0);
	store_name(UID, serial, e->name);
	e->fd = eventfd(0, EFD_CLOEXEC);
	return serial;
}

static bool ledger_has(const struct ledger *l, uint32_t serial)
{
	uint32_t each;
	size_t cursor = 0;

	while (ledger_next(l, UID, &cursor, &each))
		if (each == serial)
			return true;
	return false;
}

/* It is just removing what an earlier one had stored: before that is sent, or before it is read. */
static void who_is_replaced_removes_nothing_of_the_next_one(void **state)
{
	struct fixture *f = *state;
	uint32_t serial;

	for (unsigned sent = 0; sent < 2; sent++) {
		assert_int_equal(ledger_claim(f->durable.ledger, UID, &serial), 0);
		if (!sent)
			fill_queue(f);
		durable_settle(&f->durable, 7);
		turn(f);
		assert_int_equal(f->durable.state, sent ? DURABLE_CLEARING : DURABLE_REMOVING);
		serial = succeed(f);
		settle(f);
		assert_int_equal(count_entries(f), 1);
		assert_true(ledger_has(f->durable.ledger, serial));
		end(f);
		begin(f, 16);
		(void)close(f->entries[ENTRIES - 1].fd);
		f->entries[ENTRIES - 1].fd = -1;
	}
}

/* One that is given up and not replaced goes on: nobody else would remove it. */
static void who_is_released_removes_what_it_has_begun(void **state)
{
	struct fixture *f = *state;
	uint32_t serial;

	assert_int_equal(ledger_claim(f->durable.ledger, UID, &serial), 0);
	fill_queue(f);
	durable_settle(&f->durable, 7);
	turn(f);
	assert_int_equal(f->durable.state, DURABLE_REMOVING);
	ledger_dismiss(f->durable.ledger, UID);
	settle(f);
	assert_false(ledger_has(f->durable.ledger, serial));
}

/* ---- At random ---- */

/* The holder is dead, and PID 1 hears what it had sent so far, or not all of it. */
static void start_again(struct fixture *f, struct random *random)
{
	struct store_entry entries[ENTRIES];
	char *address = strdup(getenv("NOTIFY_SOCKET"));
	size_t n = 0;

	end(f);
	while (random_below(random, 4) > 0 && read_one(f))
		;
	for (unsigned i = 0; i < ENTRIES; i++) {
		struct store_entry *e = &entries[n];

		if (f->entries[i].fd < 0)
			continue;
		assert_true(store_parse_name(f->entries[i].name, &e->uid, &e->serial));
		e->fd = fcntl(f->entries[i].fd, F_DUPFD_CLOEXEC, FD_LASTING);
		n++;
	}
	answer_barriers(f);
	f->deaf = true; /* what is heard of the dead is not heeded */
	while (read_one(f))
		;
	f->deaf = false;
	begin(f, ENTRIES);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(ledger_adopt(f->durable.ledger, UID, entries[i].serial), 0);
	(void)unsetenv("NOTIFY_SOCKET"); /* so that it does not wait there */
	depots_take(&f->durable, &f->message, entries, n);
	(void)setenv("NOTIFY_SOCKET", address, 1);
	free(address);
}

/* What was said to be stored is there, and nothing that was said to be gone. */
static void compare(struct fixture *f)
{
	for (unsigned i = 0; i < TOKENS; i++) {
		struct known *k = &f->known[i];
		const struct holding *h = holder_table_find(&f->table, record_of(i).token);

		if (k->out && h)
			fail_msg("%u was out of the store, and has come back", i);
		if (k->there && k->stored != 0 && (!h || h->record.serial < k->stored))
			fail_msg("%u was stored as %llu, and is %llu", i,
				 (unsigned long long)k->stored,
				 (unsigned long long)(h ? h->record.serial : 0));
		*k = (struct known){.there = h, .serial = h ? h->record.serial : 0};
		k->stored = k->serial;
	}
}

static void at_random(void **state)
{
	struct fixture *f = *state;
	struct random random = random_begin();
	unsigned kills = 0;

	end(f);
	begin(f, ENTRIES);
	f->log.level = CONFIG_LOG_ERROR;
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned i = (unsigned)random_below(&random, TOKENS);

		switch (random_below(&random, 16)) {
		case 0:
		case 1:
		case 2:
		case 3:
			if (f->known[i].there || f->known[i].serial == 0 || f->known[i].out)
				tell(f, i, !f->known[i].there || random_below(&random, 2), true);
			break;
		case 4:
		case 5:
		case 6:
			if (f->known[i].there)
				drop(f, i);
			break;
		case 7:
		case 8:
		case 9:
			(void)read_one(f);
			break;
		case 10:
			answer_barriers(f);
			break;
		case 11:
			if (random_below(&random, 20) == 0)
				settle(f);
			break;
		case 12:
			if (random_below(&random, 20) > 0)
				break;
			kills++;
			start_again(f, &random);
			compare(f);
			break;
		default:
			turn(f);
		}
	}
	settle(f);
	for (unsigned i = 0; i < TOKENS; i++) {
		assert_true(!f->known[i].there || f->known[i].stored != 0);
		assert_true(f->known[i].there || f->known[i].serial == 0 || f->known[i].out);
	}
	assert_true(count_entries(f) <= f->table.n / RECORD_FDS_MAX + 2);
	assert_int_equal(f->lost, 0);
	printf("%u kills\n", kills);
	assert_true(kills > 3);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(stored_when_the_barrier_is_read),
		TEST(an_end_is_told_when_all_copies_are_gone),
		TEST(what_nobody_waits_for_can_wait),
		TEST(a_full_queue_is_waited_for),
		TEST(a_full_store_refuses_new_parks_only),
		TEST(an_earlier_holder_is_succeeded),
		TEST(who_is_replaced_takes_back_what_it_stored),
		TEST(who_is_replaced_removes_nothing_of_the_next_one),
		TEST(who_is_released_removes_what_it_has_begun),
		TEST(at_random),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
