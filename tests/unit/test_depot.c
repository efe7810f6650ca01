/* SPDX-License-Identifier: MIT */

/*
 * Depots as a holder reads them, damaged in every way, and the ledger. There is no service manager
 * here: that each entry is left in the store then is told, and no fault (test_store.py has one).
 */

#include "daemon/keeper/depot.h"

#include <dirent.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "holder_fixture.h"
#include "protocol/wire.h"

enum { UID = 1000, PARKS = 8, FLIPS = 10000 };

struct fixture {
	struct durable depots;
	struct log log;
	struct holder_table table;
	struct record_batch batch;
	struct record_message message;
	int pipe[2];
};

static void begin(struct fixture *f)
{
	holder_table_init(&f->table);
	f->depots = (struct durable){
		.uid = UID,
		.log = &f->log,
		.table = &f->table,
		.batch = &f->batch,
	};
	durable_init(&f->depots);
	assert_int_equal(ledger_new(16, &f->depots.ledger), 0);
	f->depots.term = ledger_appoint(f->depots.ledger, UID);
}

static void end(struct fixture *f)
{
	durable_clear(&f->depots);
	holder_table_clear(&f->table);
	f->depots.ledger = ledger_free(f->depots.ledger);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)alarm(240);
	raise_fds();
	(void)unsetenv("NOTIFY_SOCKET");
	assert_int_equal(fd_zone_plug(), 0);
	log_init(&f->log, memfd_create("log", MFD_CLOEXEC), CONFIG_LOG_DEBUG);
	assert_int_equal(pipe2(f->pipe, O_CLOEXEC), 0);
	begin(f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)alarm(0);
	end(f);
	(void)close(f->log.fd);
	(void)close(f->pipe[0]);
	(void)close(f->pipe[1]);
	fd_zone_unplug();
	free(f);
	return 0;
}

static bool log_has(const struct fixture *f, const char *text)
{
	static char all[65536];
	ssize_t n = pread(f->log.fd, all, sizeof(all) - 1, 0);

	assert_true(n >= 0);
	all[n] = '\0';
	return strstr(all, text);
}

static unsigned count_fds(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(folder);
	while (readdir(folder))
		n++;
	(void)closedir(folder);
	return n;
}

/* Parks 0 to PARKS - 1. */
static void fill(struct fixture *f)
{
	record_batch_clear(&f->batch);
	for (uint64_t i = 0; i < PARKS; i++) {
		struct record r = record_of(i);

		assert_int_equal(record_batch_add(&f->batch, RECORD_HOLD, 0, &r, sizeof(r),
						  RECORD_TEXT, TEXT_SIZE, &f->pipe[1], 1),
				 0);
	}
}

/* A depot with what is in the batch, as `serial`. */
static struct store_entry store(struct fixture *f, uint32_t uid, uint32_t serial)
{
	struct store_entry e = {.uid = uid, .serial = serial};
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(record_batch_send(&f->batch, ends[1]), 0);
	(void)close(ends[1]);
	e.fd = ends[0];
	(void)ledger_adopt(f->depots.ledger, uid, serial); /* -EEXIST: it is there */
	return e;
}

static void take(struct fixture *f, struct store_entry *entries, size_t n)
{
	depots_take(&f->depots, &f->message, entries, n);
	for (size_t i = 0; i < n; i++)
		if (entries[i].uid == UID)
			assert_int_equal(entries[i].fd, -1);
}

/* ---- Tests ---- */

static void all_of_several_depots_come_back(void **state)
{
	struct fixture *f = *state;
	struct store_entry entries[3];
	unsigned before = count_fds();

	fill(f);
	entries[0] = store(f, UID, 1);
	entries[1] = store(f, UID + 1, 2);
	entries[2] = store(f, UID, 3); /* the same once more */
	take(f, entries, 3);
	assert_int_equal(f->table.n, PARKS);
	assert_true(entries[1].fd >= 0); /* another holder's */
	(void)close(entries[1].fd);
	/* the older ones stay until their depot is closed, so that none is closed with that */
	assert_int_equal(count_fds(), before + 2 * PARKS + 2);
	assert_true(log_has(f, "8 parks come back"));
	/* nobody was there to take them out of the store: they stay in the ledger */
	assert_true(log_has(f, "systemd may still have copies"));
}

/* Removed by name, they go together: what is durable in either is stored anew before. */
static void two_with_one_name_are_read_and_do_not_stay(void **state)
{
	struct fixture *f = *state;
	struct store_entry entries[3];
	const struct depot *depot;
	struct record r;

	for (uint32_t i = 0; i < 3; i++) {
		r = record_of(i);
		r.flags |= WIRE_PARK_DURABLE;
		record_batch_clear(&f->batch);
		assert_int_equal(record_batch_add(&f->batch, RECORD_HOLD, 0, &r, sizeof(r),
						  RECORD_TEXT, TEXT_SIZE, &f->pipe[1], 1),
				 0);
		entries[i] = store(f, UID, i < 2 ? 7 : 8);
	}
	take(f, entries, 3);
	assert_int_equal(f->table.n, 3);
	TAILQ_FOREACH(depot, &f->depots.stored, list)
	{
		assert_int_equal(depot->n, 1);
		assert_int_equal(depot->stale, depot->serial == 7);
	}
}

static void the_newer_of_two_counts(void **state)
{
	struct fixture *f = *state;
	struct store_entry entries[2];
	struct record r = record_of(1);

	for (uint64_t serial = 300; serial >= 200; serial -= 100) {
		r.serial = serial;
		r.cookie = serial;
		record_batch_clear(&f->batch);
		assert_int_equal(record_batch_add(&f->batch, RECORD_HOLD, 0, &r, sizeof(r),
						  RECORD_TEXT, TEXT_SIZE, &f->pipe[1], 1),
				 0);
		entries[serial == 200] = store(f, UID, (uint32_t)serial);
	}
	take(f, entries, 2);
	assert_int_equal(f->table.n, 1);
	assert_int_equal(TAILQ_FIRST(&f->table.parks)->record.cookie, 300);
	assert_true(log_has(f, "1 park comes back"));
	assert_false(log_has(f, "cannot be used"));
}

/* S-118. Of a depot with damage in one park the others come back; none crashes, none leaks. */
static void flipped_bytes_break_nothing(void **state)
{
	struct fixture *f = *state;
	struct random random = random_begin();
	size_t refused = 0, frame;
	unsigned before = count_fds();

	fill(f);
	frame = (f->batch.size - 16) / PARKS; /* all are of one size, behind the header */
	f->log.level = CONFIG_LOG_ERROR;
	for (unsigned i = 0; i < FLIPS; i++) {
		bool record_only = random_below(&random, 2);
		size_t first = 0, size;
		struct store_entry e;

		fill(f);
		size = f->batch.size;
		if (record_only) { /* behind the header of one frame */
			first = 16 + random_below(&random, PARKS) * frame + 16;
			size = frame - 16;
		}
		for (uint64_t flips = 1 + random_below(&random, 4); flips > 0; flips--)
			((uint8_t *)f->batch.bytes)[first + random_below(&random, size)] ^=
				(uint8_t)(1 + random_below(&random, 255));
		e = store(f, UID, 1);
		take(f, &e, 1);
		assert_true(f->table.n <= PARKS);
		if (record_only)
			assert_true(f->table.n >= PARKS - 1);
		refused += f->table.n < PARKS;
		end(f);
		begin(f);
		(void)ftruncate(f->log.fd, 0);
	}
	assert_int_equal(count_fds(), before);
	printf("%zu of %d damaged depots lost something\n", refused, FLIPS);
	assert_true(refused > FLIPS / 10);
}

static void without_a_store_nothing_is_tried(void **state)
{
	struct fixture *f = *state;
	struct ledger *l = f->depots.ledger;

	f->depots.ledger = NULL;
	depots_take(&f->depots, &f->message, NULL, 0);
	depots_store(&f->depots);
	f->depots.ledger = l;
	depots_take(&f->depots, &f->message, NULL, 0);
	depots_store(&f->depots);
	assert_true(lseek(f->log.fd, 0, SEEK_END) == 0);
}

/* Of durable ones and others, each is told once. */
static void what_cannot_be_stored_is_counted(void **state)
{
	struct fixture *f = *state;
	struct store_entry e;

	record_batch_clear(&f->batch);
	for (uint64_t i = 0; i < PARKS; i++) {
		struct record r = record_of(i);

		r.flags = i < 3 ? 0 : WIRE_PARK_DURABLE;
		assert_int_equal(record_batch_add(&f->batch, RECORD_HOLD, 0, &r, sizeof(r),
						  RECORD_TEXT, TEXT_SIZE, &f->pipe[1], 1),
				 0);
	}
	e = store(f, UID, 1);
	take(f, &e, 1);
	depots_store(&f->depots);
	assert_true(log_has(f, "its 3 parks are lost, no socket to systemd"));
	assert_true(log_has(f, "does not say that it has the durable parks"));
}

/* One that was replaced, or never in office, has what may have been taken since. */
static void who_is_not_in_office_stores_nothing(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	socklen_t length = sizeof(name);
	int manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct store_entry e;
	char address[64];

	/* an autobound address, so that no path is left behind */
	assert_int_equal(bind(manager, (struct sockaddr *)&name, sizeof(name.sun_family)), 0);
	assert_int_equal(getsockname(manager, (struct sockaddr *)&name, &length), 0);
	(void)snprintf(address, sizeof(address), "@%.*s",
		       (int)(length - offsetof(struct sockaddr_un, sun_path) - 1),
		       name.sun_path + 1);
	fill(f);
	e = store(f, UID, 1);
	take(f, &e, 1);
	(void)setenv("NOTIFY_SOCKET", address, 1);
	f->depots.term = 0;
	for (unsigned i = 0; i < 2; i++) {
		depots_store(&f->depots);
		f->depots.term = ledger_appoint(f->depots.ledger, UID);
		ledger_dismiss(f->depots.ledger, UID);
	}
	assert_int_equal(recv(manager, address, 1, MSG_DONTWAIT), -1);
	(void)unsetenv("NOTIFY_SOCKET");
	(void)close(manager);
}

static void names(void **state)
{
	static const char *const wrong[] = {
		"",
		"d",
		"d1000",
		"d1000.",
		"d.1",
		"d1000.0",
		"d1000.01",
		"e1000.1",
		"d01.1",
		"d1.1 ",
		" d1.1",
		"d-1.1",
		"d+1.1",
		"d1.1x",
		"d1.1.1",
		"stored",
		"socket",
		"d4294967296.1",
		"d1.4294967296",
		"d1000.-1",
		"d99999999999999999999.1",
	};
	char name[STORE_NAME_SIZE];
	uint32_t uid = 0, serial = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (store_parse_name(wrong[i], &uid, &serial))
			fail_msg("%s", wrong[i]);
	store_name(UINT32_MAX, UINT32_MAX, name);
	assert_string_equal(name, "d4294967295.4294967295");
	assert_true(store_parse_name(name, &uid, &serial));
	assert_true(uid == UINT32_MAX && serial == UINT32_MAX);
	/* K-007: so many names, with a colon each, have room in one string */
	assert_true(STORE_MAX * STORE_NAME_SIZE < 128 * 1024);
}

static void maximum(void **state)
{
	(void)state;
	(void)unsetenv("FDSTORE");
	(void)setenv("READYD_STORE_MAX", "512", 1);
	assert_int_equal(store_max(), 0); /* there is nobody */
	(void)setenv("NOTIFY_SOCKET", "/nowhere", 1);
	assert_int_equal(store_max(), 512);
	(void)setenv("FDSTORE", "7", 1); /* systemd's own word counts */
	assert_int_equal(store_max(), 7);
	(void)setenv("FDSTORE", "1000000", 1);
	assert_int_equal(store_max(), STORE_MAX);
	(void)setenv("FDSTORE", "-1", 1);
	assert_int_equal(store_max(), 0);
	(void)setenv("FDSTORE", "12x", 1);
	assert_int_equal(store_max(), 0);
	(void)unsetenv("FDSTORE");
	(void)unsetenv("READYD_STORE_MAX");
	assert_int_equal(store_max(), 0);
	(void)unsetenv("NOTIFY_SOCKET");
}

static void the_ledger_counts(void **state)
{
	struct fixture *f = *state;
	struct ledger *l = f->depots.ledger;
	uint32_t serial, last = 0;
	size_t cursor = 0;

	assert_int_equal(ledger_adopt(l, UID, 40), 0);
	assert_int_equal(ledger_adopt(l, UID, 40), -EEXIST);
	for (unsigned i = 1; i < 16; i++) {
		assert_int_equal(ledger_claim(l, UID + i % 2, &serial), 0);
		assert_true(serial > 40 && serial > last);
		last = serial;
	}
	assert_int_equal(ledger_claim(l, UID, &serial), -ENOSPC);
	ledger_release(l, UID, last); /* that is the other's */
	assert_int_equal(ledger_claim(l, UID, &serial), -ENOSPC);
	ledger_release(l, UID + 1, last);
	assert_int_equal(ledger_claim(l, UID, &serial), 0);
	for (last = 0; ledger_next(l, UID, &cursor, &serial); last++)
		assert_true(serial >= 40);
	assert_int_equal(last, 9);
	/* more than there should be is written down, too, and nothing new is */
	assert_int_equal(ledger_adopt(l, UID, 1000), 0);
	ledger_release(l, UID, 1000);
	/* a serial at its end begins anew, without those that are there */
	ledger_release(l, UID, 40);
	assert_int_equal(ledger_adopt(l, UID, 1), 0);
	ledger_release(l, UID + 1, 41);
	assert_int_equal(ledger_adopt(l, UID, UINT32_MAX), 0);
	ledger_release(l, UID, UINT32_MAX);
	assert_int_equal(ledger_claim(l, UID, &serial), 0);
	assert_int_equal(serial, 2);
}

static void one_holder_speaks_for_a_uid(void **state)
{
	struct fixture *f = *state;
	struct ledger *l = f->depots.ledger;
	uint32_t first = ledger_appoint(l, 0), second, other = ledger_appoint(l, UID);

	assert_true(ledger_in_office(l, 0, first) && ledger_in_office(l, UID, other));
	assert_false(ledger_in_office(l, 0, 0));
	second = ledger_appoint(l, 0);
	assert_true(ledger_in_office(l, 0, second) && ledger_in_office(l, UID, other));
	assert_false(ledger_in_office(l, 0, first));
	ledger_dismiss(l, 0);
	assert_false(ledger_in_office(l, 0, second));
	assert_true(ledger_in_office(l, UID, other));
	assert_true(ledger_appoint(l, 0) > second);
	for (uint32_t uid = 1; uid < 10000; uid++) { /* not many at a time */
		assert_int_not_equal(ledger_appoint(l, uid), 0);
		if (uid != UID)
			ledger_dismiss(l, uid);
	}
}

/* As in an upgrade; and what is no ledger is not taken for one. */
static void the_ledger_goes_along(void **state)
{
	struct fixture *f = *state;
	struct ledger *l = f->depots.ledger, *again = NULL;
	uint32_t term = ledger_appoint(l, UID), serial = 0;
	int fd = dup(ledger_fd(l)), other = memfd_create("none", MFD_CLOEXEC);
	size_t cursor = 0;
	struct stat st;

	assert_int_equal(ledger_claim(l, UID, &serial), 0);
	assert_int_equal(ledger_open(fd, &again), 0);
	assert_true(ledger_in_office(again, UID, term));
	ledger_dismiss(again, UID);
	assert_false(ledger_in_office(l, UID, term));
	assert_true(ledger_next(again, UID, &cursor, &serial));
	ledger_release(again, UID, serial);
	assert_false(ledger_next(l, UID, &(size_t){0}, &serial));
	assert_null(ledger_free(again));
	assert_int_equal(ledger_open(f->pipe[0], &again), -EINVAL);
	assert_int_equal(ledger_open(other, &again), -EINVAL);
	assert_int_equal(fstat(ledger_fd(l), &st), 0);
	assert_int_equal(ftruncate(other, st.st_size), 0);
	assert_int_equal(ledger_open(other, &again), -EINVAL);
	assert_int_equal(close(other), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(all_of_several_depots_come_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(two_with_one_name_are_read_and_do_not_stay, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(the_newer_of_two_counts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(flipped_bytes_break_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_a_store_nothing_is_tried, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(what_cannot_be_stored_is_counted, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(who_is_not_in_office_stores_nothing, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(names, set_up, tear_down),
		cmocka_unit_test_setup_teardown(maximum, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_ledger_counts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_holder_speaks_for_a_uid, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_ledger_goes_along, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
