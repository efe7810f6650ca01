/* SPDX-License-Identifier: MIT */

/* Lines as the journal gets them: a socket of the test's own stands for it. */

#include "systemd/journal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
	char folder[32];
	char path[64];
	int socket;  /* the journal's */
	int pipe[2]; /* stderr's */
	struct log log;
	struct journal journal;
	char text[4096];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	char stream[64];
	struct stat st;

	assert_non_null(f);
	strcpy(f->folder, "/tmp/readyd-journal-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	(void)snprintf(f->path, sizeof(f->path), "%s/socket", f->folder);
	strcpy(name.sun_path, f->path);
	f->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(f->socket, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(pipe2(f->pipe, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(fstat(f->pipe[1], &st), 0);
	(void)snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev,
		       (unsigned long long)st.st_ino);
	assert_int_equal(setenv("JOURNAL_STREAM", stream, 1), 0);
	log_init(&f->log, f->pipe[1], CONFIG_LOG_DEBUG);
	assert_true(f->log.journal);
	journal_attach(&f->journal, f->path, &f->log);
	(void)alarm(20); /* what waits for the journal never ends */
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)alarm(0);
	journal_detach(&f->journal, &f->log);
	log_deinit(&f->log);
	(void)close(f->socket);
	(void)close(f->pipe[0]);
	(void)close(f->pipe[1]);
	(void)unlink(f->path);
	(void)rmdir(f->folder);
	(void)unsetenv("JOURNAL_STREAM");
	free(f);
	return 0;
}

static const char *take(struct fixture *f, int fd)
{
	ssize_t n = read(fd, f->text, sizeof(f->text) - 1);

	f->text[n < 0 ? 0 : n] = '\0';
	return f->text;
}

static void fields_stand_beside_the_text(void **state)
{
	const struct log_about about = {
		.event = LOG_EVENT_REFUSED,
		.client = true,
		.uid = 4294967295u,
		.pid = 2147483647,
		.session = UINT64_MAX,
		.watch = 4294967295u,
	};
	struct fixture *f = *state;
	char expected[512];

	assert_true(f->journal.fd >= 256);
	log_about(&f->log, CONFIG_LOG_WARNING, &about, "a\nPRIORITY=0");
	(void)snprintf(expected, sizeof(expected),
		       "PRIORITY=4\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=readyd\nMESSAGE_ID=%s\n"
		       "READYD_UID=4294967295\nREADYD_PID=2147483647\n"
		       "READYD_SESSION=18446744073709551615\nREADYD_WATCH=4294967295\n"
		       "MESSAGE=a?PRIORITY=0\n",
		       journal_message_id(LOG_EVENT_REFUSED));
	assert_string_equal(take(f, f->socket), expected);
	log_debug(&f->log, "b");
	assert_string_equal(take(f, f->socket),
			    "PRIORITY=7\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=readyd\nMESSAGE=b\n");
	assert_string_equal(take(f, f->pipe[0]), "");
}

static void a_pid_that_is_not_known_is_no_field(void **state)
{
	struct fixture *f = *state;

	log_about(&f->log, CONFIG_LOG_DEBUG, LOG_UID(0), "c");
	assert_string_equal(take(f, f->socket), "PRIORITY=7\nSYSLOG_FACILITY=3\n"
						"SYSLOG_IDENTIFIER=readyd\nREADYD_UID=0\n"
						"MESSAGE=c\n");
}

static void long_lines_are_cut(void **state)
{
	struct fixture *f = *state;
	char large[3000];

	memset(large, 'x', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	log_error(&f->log, "%s", large);
	assert_true(strlen(take(f, f->socket)) < LOG_LINE_MAX + 128);
	assert_string_equal(f->text + strlen(f->text) - 5, "x...\n");
}

/* Nobody reads: the lines go to stderr, and nobody waits. */
static void a_stopped_journal_holds_up_nobody(void **state)
{
	struct fixture *f = *state;
	bool seen = false;

	for (int i = 0; i < 10000 && !seen; i++) {
		log_notice(&f->log, "%d", i);
		seen = strncmp(take(f, f->pipe[0]), "<5>", 3) == 0;
	}
	assert_true(seen);
}

static void without_a_journal_lines_go_to_stderr(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(unlink(f->path), 0);
	log_notice(&f->log, "alone");
	assert_string_equal(take(f, f->pipe[0]), "<5>alone\n");
}

static void only_the_journals_own_stream_counts(void **state)
{
	struct fixture *f = *state;
	struct journal other;
	struct log log;

	assert_int_equal(setenv("JOURNAL_STREAM", "1:1", 1), 0);
	log_init(&log, f->pipe[1], CONFIG_LOG_DEBUG);
	journal_attach(&other, f->path, &log);
	assert_int_equal(other.fd, -1);
	assert_null(log.sink);
	journal_detach(&other, &log);
	log_deinit(&log);
}

static void ids_are_ids_and_differ(void **state)
{
	(void)state;
	assert_null(journal_message_id(LOG_EVENT_NONE));
	assert_null(journal_message_id((enum log_event)(LOG_EVENT_CLOSED + 1)));
	for (enum log_event a = LOG_EVENT_SERVES; a <= LOG_EVENT_CLOSED; a++) {
		const char *id = journal_message_id(a);

		assert_non_null(id);
		assert_int_equal(strlen(id), 32);
		assert_int_equal(strspn(id, "0123456789abcdef"), 32);
		for (enum log_event b = LOG_EVENT_SERVES; b < a; b++)
			assert_string_not_equal(id, journal_message_id(b));
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(fields_stand_beside_the_text),
		TEST(a_pid_that_is_not_known_is_no_field),
		TEST(long_lines_are_cut),
		TEST(a_stopped_journal_holds_up_nobody),
		TEST(without_a_journal_lines_go_to_stderr),
		TEST(only_the_journals_own_stream_counts),
		cmocka_unit_test(ids_are_ids_and_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
