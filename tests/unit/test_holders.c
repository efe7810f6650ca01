/* SPDX-License-Identifier: MIT */

/*
 * The keeper's list of holders, with real ones, and the test as keeper and loop: a holder for each
 * uid, what becomes of those that die or are stuck, and the end of all.
 */

#include "daemon/keeper/holders.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

#include "holder_fixture.h"

enum { UID = 1000 };

struct fixture {
	struct holders holders;
	struct log log;
	struct returned returned;
};

static volatile sig_atomic_t stop; /* in the children */

static void handle_term(int number)
{
	(void)number;
	stop = 1;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	sigset_t signals;

	assert_non_null(f);
	(void)alarm(240);
	raise_fds();
	(void)sigemptyset(&signals); /* as the keeper does */
	(void)sigaddset(&signals, SIGCHLD);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	(void)signal(SIGTERM, handle_term);
	assert_int_equal(fd_zone_plug(), 0);
	log_init(&f->log, memfd_create("log", MFD_CLOEXEC), CONFIG_LOG_DEBUG);
	assert_true(f->log.fd >= FD_LASTING);
	holders_init(&f->holders, &f->log, &stop);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	returned_clear(&f->returned);
	holders_end(&f->holders);
	(void)alarm(0);
	(void)close(f->log.fd);
	fd_zone_unplug();
	free(f);
	return 0;
}

static const char *read_log(const struct fixture *f)
{
	static char text[65536];
	ssize_t n = pread(f->log.fd, text, sizeof(text) - 1, 0);

	assert_true(n >= 0);
	text[n] = '\0';
	return text;
}

/* The only one of this uid that is not left behind; pid 0: none. */
static struct holders_row find(const struct fixture *f, uint32_t uid)
{
	const struct holders_one *cursor = NULL;
	struct holders_row row, found = {.socket = -1};

	while (holders_next(&f->holders, &cursor, &row))
		if (row.uid == uid && row.socket >= 0) {
			assert_int_equal(found.pid, 0);
			found = row;
		}
	return found;
}

static struct holders_row make(struct fixture *f, uint32_t uid, bool replace)
{
	int socket = -1;
	struct holders_row row;

	assert_int_equal(holders_make(&f->holders, uid, replace, 1, &socket), 0);
	row = find(f, uid);
	assert_int_equal(row.socket, socket);
	assert_true(row.socket >= FD_LASTING);
	assert_true(row.pid > 0);
	return row;
}

/* The keeper's SIGCHLD: waits until this one has changed, and tells. */
static siginfo_t see_change(struct fixture *f, pid_t pid, int options)
{
	siginfo_t info = {0};

	assert_int_equal(waitid(P_PID, (id_t)pid, &info, options), 0);
	assert_true(holders_child_changed(&f->holders, &info, 1));
	return info;
}

/* It is there, and has so many parks. */
static void check_holder(struct fixture *f, int socket, uint32_t epoch, unsigned parks)
{
	give_back(socket, epoch, &f->returned);
	assert_int_equal(f->returned.n, parks);
	returned_clear(&f->returned);
}

static void hold_one(int socket, uint64_t number, uint32_t uid, int *ret_reader)
{
	struct record r = record_of(number);
	int fds[2];

	r.uid = uid;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	send_record(socket, RECORD_HOLD, &r, &fds[1]);
	(void)close(fds[1]);
	*ret_reader = fds[0];
}

/* ---- Tests ---- */

static void a_holder_is_a_process_of_its_own(void **state)
{
	struct fixture *f = *state;
	struct holders_row row = make(f, UID, false);
	char path[64], name[32] = "";
	struct record r = record_of(1);
	FILE *file;
	int pair[2];

	check_holder(f, row.socket, 1, 0);
	(void)snprintf(path, sizeof(path), "/proc/%d/comm", (int)row.pid);
	file = fopen(path, "re");
	assert_non_null(file);
	assert_non_null(fgets(name, sizeof(name), file));
	(void)fclose(file);
	assert_string_equal(name, "readyd-holder\n");
	/* it has none of its keeper's fds, nor of its brothers' */
	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	row = make(f, UID + 1, false);
	check_holder(f, row.socket, 2, 0);
	(void)close(pair[1]);
	wait_for_hangup(pair[0]);
	(void)close(pair[0]);
	/* two uids do not meet */
	hold_one(find(f, UID).socket, 1, UID, &pair[0]);
	send_record(row.socket, RECORD_HOLD, &r, &pair[0]);
	check_holder(f, row.socket, 3, 0);
	check_holder(f, find(f, UID).socket, 3, 1);
	(void)close(pair[0]);
}

/* What a loop sent before it died is done, and the next one finds it. */
static void parks_outlive_the_loop(void **state)
{
	struct fixture *f = *state;
	struct holders_row row = make(f, UID, false);
	struct server_holder *sockets;
	size_t n;
	int loop = dup(row.socket), reader;

	assert_int_equal(kill(row.pid, SIGSTOP), 0);
	(void)see_change(f, row.pid, WSTOPPED);
	hold_one(loop, 1, UID, &reader);
	(void)close(loop);
	assert_int_equal(kill(row.pid, SIGCONT), 0);
	(void)see_change(f, row.pid, WCONTINUED);
	assert_int_equal(holders_get_sockets(&f->holders, &sockets, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(sockets[0].uid, UID);
	check_holder(f, sockets[0].socket, 1, 1);
	assert_non_null(strstr(read_log(f), "was stopped by SIGSTOP"));
	free(sockets);
	(void)close(reader);
}

static void a_dead_one_is_forgotten_and_made_anew(void **state)
{
	struct fixture *f = *state;
	struct holders_row row = make(f, UID, false);
	siginfo_t other = {.si_pid = getpid(), .si_code = CLD_EXITED};
	int loop = dup(row.socket), reader;
	char expected[128];

	hold_one(row.socket, 1, UID, &reader);
	check_holder(f, row.socket, 1, 1);
	assert_int_equal(kill(row.pid, SIGKILL), 0);
	wait_for_hangup(loop); /* so the loop learns of it */
	wait_for_hangup(reader);
	(void)see_change(f, row.pid, WEXITED);
	(void)snprintf(expected, sizeof(expected), "a holder of uid 1000 (pid %d) died by SIGKILL",
		       (int)row.pid);
	assert_non_null(strstr(read_log(f), expected));
	assert_int_equal(find(f, UID).pid, 0);
	assert_int_equal(f->holders.n, 0);
	assert_false(holders_child_changed(&f->holders, &other, 1));
	row = make(f, UID, false);
	check_holder(f, row.socket, 1, 0);
	(void)close(loop);
	(void)close(reader);
}

static bool write_sunk(void *context, const struct log_record *record)
{
	const struct log *log = context;

	return dprintf(log->sink_fd, "sunk: %.*s\n", (int)record->length, record->text) > 0;
}

/* Else the first park that comes gets the number, and its peer would read the log. */
static void a_holder_keeps_the_fd_of_the_logs_sink(void **state)
{
	struct fixture *f = *state;
	struct holders_row row;
	int reader, other;
	char byte;

	f->log.sink = write_sunk;
	f->log.sink_context = &f->log;
	f->log.sink_fd = fcntl(f->log.fd, F_DUPFD_CLOEXEC, FD_LASTING);
	assert_true(f->log.sink_fd >= FD_LASTING);
	row = make(f, UID, false);
	hold_one(row.socket, 1, UID, &reader);
	hold_one(row.socket, 2, UID + 1, &other); /* which it complains of */
	check_holder(f, row.socket, 1, 1);
	assert_non_null(strstr(read_log(f), "\nsunk: the holder of uid 1000 was told"));
	assert_int_equal(fcntl(reader, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(read(reader, &byte, 1), -1);
	assert_int_equal(errno, EAGAIN);
	(void)close(reader);
	(void)close(other);
	(void)close(f->log.sink_fd);
	f->log.sink = NULL;
}

static bool write_uid(void *context, const struct log_record *record)
{
	const struct fixture *f = context;

	return dprintf(f->log.fd, "%s %u %d: %.*s\n", record->about->client ? "uid" : "nobody",
		       record->about->uid, record->about->pid, (int)record->length,
		       record->text) > 0;
}

/* The keeper's lines of it, and its own. */
static void all_lines_of_a_holder_name_its_uid(void **state)
{
	struct fixture *f = *state;
	struct holders_row row;
	int reader;

	f->log.sink = write_uid;
	f->log.sink_context = f;
	row = make(f, UID, false);
	hold_one(row.socket, 1, UID + 1, &reader);
	check_holder(f, row.socket, 1, 0);
	assert_int_equal(kill(row.pid, SIGKILL), 0);
	(void)see_change(f, row.pid, WEXITED);
	(void)close(reader);
	assert_non_null(strstr(read_log(f), "uid 1000 0: uid 1000 has a holder"));
	assert_non_null(strstr(read_log(f), "\nuid 1000 0: the holder of uid 1000 was told"));
	assert_non_null(strstr(read_log(f), "\nuid 1000 0: a holder of uid 1000 (pid"));
	assert_null(strstr(read_log(f), "nobody"));
}

/* Its queue has the last copy of a socket that lingers, and the keeper does not wait for it. */
static void what_a_dead_one_left_unread_is_closed_elsewhere(void **state)
{
	struct fixture *f = *state;
	struct holders_row row = make(f, UID, false);
	struct pollfd polled = {.fd = row.socket, .events = POLLIN};
	const struct holders_one *cursor = NULL;
	struct record r = record_of(1);
	int pair[2];

	(void)lingering_pair(pair);
	send_record(row.socket, RECORD_HOLD, &r, &pair[0]);
	(void)close(pair[0]);
	send_op(row.socket, RECORD_GIVE_BACK, 1, NULL, 0);
	assert_int_equal(poll(&polled, 1, PATIENCE_MS), 1);
	assert_int_equal(kill(row.pid, SIGKILL), 0);
	(void)see_change(f, row.pid, WEXITED);
	assert_true(holders_next(&f->holders, &cursor, &row));
	assert_int_equal(row.socket, -1);
	(void)see_change(f, row.pid, WEXITED);
	assert_int_equal(f->holders.n, 0);
	(void)close(pair[1]);
}

/* The loop asks for a new one before the keeper has heard of the death. */
static void the_loop_may_know_first(void **state)
{
	struct fixture *f = *state;
	struct holders_row dead = make(f, UID, false), row;

	assert_int_equal(kill(dead.pid, SIGKILL), 0);
	wait_for_hangup(dead.socket);
	row = make(f, UID, false);
	assert_int_equal(f->holders.n, 2);
	(void)see_change(f, dead.pid, WEXITED);
	assert_int_equal(f->holders.n, 1);
	check_holder(f, row.socket, 1, 0);
	assert_null(strstr(read_log(f), "stuck"));
}

static void stuck_ones_are_left_behind_up_to_a_number(void **state)
{
	struct fixture *f = *state;
	struct holders_row first = make(f, UID, false), row = first;
	struct server_holder *sockets;
	size_t n;
	int socket, linger[2], reader;

	/* the first is in a close that will end; the others are stopped */
	blocking_pair(linger);
	send_op(first.socket, RECORD_CLOSE, 1, &linger[0], 1);
	(void)close(linger[0]);
	send_op(first.socket, RECORD_GO, 1, NULL, 0);
	hold_one(first.socket, 1, UID, &reader);
	for (unsigned i = 0; i < HOLDERS_LEFT_MAX; i++) {
		row = make(f, UID, true);
		assert_int_equal(f->holders.n, i + 2);
		check_holder(f, row.socket, 1, 0);
		assert_int_equal(kill(row.pid, SIGSTOP), 0);
	}
	assert_non_null(strstr(read_log(f), "is stuck in what this user gave it"));
	assert_int_equal(holders_make(&f->holders, UID, true, 1, &socket), -EAGAIN);
	assert_non_null(strstr(read_log(f), "has 9 holders that are stuck"));
	assert_int_equal(find(f, UID).pid, 0);
	assert_int_equal(holders_get_sockets(&f->holders, &sockets, &n), 0);
	assert_int_equal(n, 0);
	free(sockets);
	/* others do not mind */
	row = make(f, UID + 1, false);
	check_holder(f, row.socket, 1, 0);
	/* the close ends, and so does that holder: there is room for one */
	(void)close(linger[1]);
	assert_int_equal(see_change(f, first.pid, WEXITED).si_code, CLD_EXITED);
	wait_for_hangup(reader);
	assert_non_null(strstr(read_log(f), "that was left behind"));
	row = make(f, UID, false);
	check_holder(f, row.socket, 1, 0);
	(void)close(reader);
}

/* It ends when nobody has its socket any more, and another one can be there before. */
static void one_that_is_released_ends(void **state)
{
	struct fixture *f = *state;
	struct holders_row row = make(f, UID, false), next;
	struct server_holder *sockets;
	int loop = dup(row.socket);
	size_t n;

	holders_release(&f->holders, UID + 1);
	holders_release(&f->holders, UID);
	assert_int_equal(holders_get_sockets(&f->holders, &sockets, &n), 0);
	assert_int_equal(n, 0);
	free(sockets);
	check_holder(f, loop, 1, 0);
	next = make(f, UID, false);
	(void)close(loop);
	assert_int_equal(see_change(f, row.pid, WEXITED).si_status, 0);
	assert_int_equal(f->holders.n, 1);
	check_holder(f, next.socket, 1, 0);
	assert_null(strstr(read_log(f), "ended with"));
}

/* As a keeper does that becomes another program. */
static void another_keeper_takes_them_over(void **state)
{
	struct fixture *f = *state;
	struct holders_row row = make(f, UID, false), stuck, wrong;
	const struct holders_one *cursor = NULL;
	struct holders second;
	int reader;

	stuck = row;
	assert_int_equal(kill(stuck.pid, SIGSTOP), 0);
	row = make(f, UID, true);
	hold_one(row.socket, 1, UID, &reader);
	holders_init(&second, &f->log, &stop);
	while (holders_next(&f->holders, &cursor, &row)) {
		if (row.socket >= 0)
			row.socket = dup(row.socket);
		assert_int_equal(holders_adopt(&second, &row), 0);
		assert_int_equal(holders_adopt(&second, &row), -EEXIST);
	}
	assert_int_equal(second.n, 2);
	row.pid++;
	assert_int_equal(holders_adopt(&second, &row), -EEXIST); /* a second one of this uid */
	wrong = row;
	wrong.kind = HOLDERS_CLOSES + 1;
	assert_int_equal(holders_adopt(&second, &wrong), -EINVAL);
	wrong.kind = HOLDERS_LEFT;
	assert_int_equal(holders_adopt(&second, &wrong), -EINVAL);
	wrong = (struct holders_row){.kind = HOLDERS_WORKS, .uid = UID + 1, .socket = -1};
	wrong.pid = row.pid;
	assert_int_equal(holders_adopt(&second, &wrong), -EINVAL);
	row.pid = 0;
	assert_int_equal(holders_adopt(&second, &row), -EINVAL);
	check_holder(f, row.socket, 1, 1);
	holders_end(&second);
	assert_int_equal(second.n, 0);
	wait_for_hangup(reader);
	(void)close(reader);
}

/* Those that are stopped, or stuck in a close, end as well, and soon: nobody waits to kill them. */
static void all_end(void **state)
{
	struct fixture *f = *state;
	int readers[3], linger[2];

	blocking_pair(linger);
	for (unsigned i = 0; i < 3; i++) {
		struct holders_row row = make(f, UID + i, false);

		hold_one(row.socket, i, UID + i, &readers[i]);
		check_holder(f, row.socket, 1, 1);
		if (i == 1)
			assert_int_equal(kill(row.pid, SIGSTOP), 0);
		if (i == 2) {
			send_op(row.socket, RECORD_CLOSE, 1, &linger[0], 1);
			(void)close(linger[0]);
			send_op(row.socket, RECORD_GO, 1, NULL, 0);
		}
	}
	holders_end(&f->holders);
	assert_int_equal(f->holders.n, 0);
	for (unsigned i = 0; i < 3; i++) {
		wait_for_hangup(readers[i]);
		(void)close(readers[i]);
	}
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	assert_null(strstr(read_log(f), "killing"));
	(void)close(linger[1]);
}

/* Nobody else will hear of it. */
static void a_death_that_is_seen_at_the_end_is_told(void **state)
{
	struct fixture *f = *state;
	struct holders_row row = make(f, UID, false);

	check_holder(f, row.socket, 1, 0);
	assert_int_equal(kill(row.pid, SIGKILL), 0);
	wait_for_hangup(row.socket);
	holders_end(&f->holders);
	assert_non_null(strstr(read_log(f), "died by SIGKILL"));
}

/* A service manager tells all processes at once to end: it may do so before the keeper. */
static void an_end_that_is_wanted_is_no_trouble(void **state)
{
	struct fixture *f = *state;
	struct holders_row first = make(f, UID, false), second = make(f, UID + 1, false);

	check_holder(f, first.socket, 1, 0);
	check_holder(f, second.socket, 1, 0);
	assert_int_equal(kill(first.pid, SIGTERM), 0);
	(void)see_change(f, first.pid, WEXITED);
	assert_non_null(strstr(read_log(f), "warning: a holder of uid 1000 (pid"));
	f->holders.ending = true;
	assert_int_equal(kill(second.pid, SIGTERM), 0);
	(void)see_change(f, second.pid, WEXITED);
	assert_non_null(strstr(read_log(f), "debug: a holder of uid 1001 (pid"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(a_holder_is_a_process_of_its_own),
		TEST(parks_outlive_the_loop),
		TEST(a_dead_one_is_forgotten_and_made_anew),
		TEST(a_holder_keeps_the_fd_of_the_logs_sink),
		TEST(all_lines_of_a_holder_name_its_uid),
		TEST(what_a_dead_one_left_unread_is_closed_elsewhere),
		TEST(the_loop_may_know_first),
		TEST(stuck_ones_are_left_behind_up_to_a_number),
		TEST(one_that_is_released_ends),
		TEST(another_keeper_takes_them_over),
		TEST(all_end),
		TEST(a_death_that_is_seen_at_the_end_is_told),
		TEST(an_end_that_is_wanted_is_no_trouble),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
