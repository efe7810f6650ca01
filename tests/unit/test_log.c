/* SPDX-License-Identifier: MIT */

/*
 * The log, written into pipes, sockets, files and a terminal, and read back. A reader that is stuck
 * must cost lines and never time: those tests would hang, so an alarm ends them.
 */

#include "daemon/edge/log.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#define S INT64_C(1000000000)

/* A log that writes into a pipe. */
struct fixture {
	int fds[2];
	struct log log;
	char text[1 << 17];
};

static void open_pipe(struct fixture *f)
{
	assert_int_equal(pipe2(f->fds, O_CLOEXEC), 0);
	log_init(&f->log, f->fds[1], CONFIG_LOG_DEBUG);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)unsetenv("JOURNAL_STREAM");
	open_pipe(f);
	(void)signal(SIGPIPE, SIG_IGN); /* as the daemon does */
	(void)alarm(20);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)alarm(0);
	log_deinit(&f->log);
	(void)close(f->fds[0]);
	(void)close(f->fds[1]);
	free(f);
	return 0;
}

/* All that is there now. */
static const char *read_log(struct fixture *f)
{
	size_t n = 0;
	ssize_t got;
	int ready;

	while (n < sizeof(f->text) - 1 && ioctl(f->fds[0], FIONREAD, &ready) == 0 && ready > 0) {
		got = read(f->fds[0], f->text + n, sizeof(f->text) - 1 - n);
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	f->text[n] = '\0';
	return f->text;
}

static unsigned count_lines(const char *text, const char *with)
{
	unsigned n = 0;

	for (const char *p = text; (p = strstr(p, with)); p++)
		n++;
	return n;
}

static void lines_name_program_and_level(void **state)
{
	struct fixture *f = *state;

	log_error(&f->log, "a %d", 1);
	log_warning(&f->log, "b");
	log_notice(&f->log, "c");
	log_info(&f->log, "d");
	log_debug(&f->log, "e");
	log_at(&f->log, CONFIG_LOG_INFO, "f%s", "g");
	assert_string_equal(read_log(f),
			    "readyd: error: a 1\nreadyd: warning: b\nreadyd: notice: c\n"
			    "readyd: info: d\nreadyd: debug: e\nreadyd: info: fg\n");
}

static void less_important_lines_are_left_out(void **state)
{
	struct fixture *f = *state;
	struct log_site site = {0};

	f->log.level = CONFIG_LOG_WARNING;
	errno = EXDEV;
	log_notice(&f->log, "no");
	log_limited(&f->log, &site, 0, CONFIG_LOG_NOTICE, "no");
	log_warning(&f->log, "yes");
	assert_int_equal(errno, EXDEV);
	assert_int_equal(site.lines, 0);
	assert_false(log_enabled(&f->log, CONFIG_LOG_NOTICE));
	assert_string_equal(read_log(f), "readyd: warning: yes\n");
}

static void journal_gets_priorities_if_it_is_that_fd(void **state)
{
	struct fixture *f = *state;
	char stream[64];
	struct stat st;

	assert_int_equal(fstat(f->fds[1], &st), 0);
	(void)snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev,
		       (unsigned long long)st.st_ino);
	assert_int_equal(setenv("JOURNAL_STREAM", stream, 1), 0);
	log_deinit(&f->log);
	log_init(&f->log, f->fds[1], CONFIG_LOG_DEBUG);
	log_error(&f->log, "a");
	log_warning(&f->log, "b");
	log_notice(&f->log, "c");
	log_info(&f->log, "d");
	log_debug(&f->log, "e");
	assert_string_equal(read_log(f), "<3>a\n<4>b\n<5>c\n<6>d\n<7>e\n");

	assert_int_equal(setenv("JOURNAL_STREAM", "1:1", 1), 0);
	log_deinit(&f->log);
	log_init(&f->log, f->fds[1], CONFIG_LOG_DEBUG);
	log_error(&f->log, "a");
	assert_string_equal(read_log(f), "readyd: error: a\n");
	assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
}

static void a_line_stays_one_line(void **state)
{
	struct fixture *f = *state;
	char large[3000];

	log_error(&f->log, "a\nb\x1b[31m\x7f");
	assert_string_equal(read_log(f), "readyd: error: a?b?[31m?\n");
	memset(large, 'x', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	log_error(&f->log, "%s", large);
	(void)read_log(f);
	assert_true(strlen(f->text) < LOG_LINE_MAX);
	assert_true(strlen(f->text) >= LOG_LINE_MAX - 2);
	assert_string_equal(f->text + strlen(f->text) - 5, "x...\n");
	assert_int_equal(count_lines(f->text, "\n"), 1);
}

/* A sink that keeps the last line, or refuses. */
struct kept {
	bool refuses;
	unsigned lines;
	char text[LOG_LINE_MAX + 1];
	enum config_log_level level;
	struct log_about about;
};

static bool keep(void *context, const struct log_record *record)
{
	struct kept *k = context;

	if (k->refuses)
		return false;
	k->lines++;
	assert_true(record->length <= LOG_LINE_MAX);
	memcpy(k->text, record->text, record->length);
	k->text[record->length] = '\0';
	k->level = record->level;
	k->about = *record->about;
	return true;
}

static void a_sink_has_numbers_beside_the_text(void **state)
{
	const struct log_about about = {
		.event = LOG_EVENT_REFUSED,
		.client = true,
		.uid = 7,
		.pid = 8,
		.session = 9,
		.watch = 10,
	};
	struct fixture *f = *state;
	struct log_site site = {0};
	struct kept kept = {0};

	f->log.sink = keep;
	f->log.sink_context = &kept;
	f->log.level = CONFIG_LOG_INFO;
	errno = EXDEV;
	log_about(&f->log, CONFIG_LOG_INFO, &about, "uid %d\n", 7);
	assert_int_equal(errno, EXDEV);
	assert_string_equal(kept.text, "uid 7?");
	assert_int_equal(kept.level, CONFIG_LOG_INFO);
	assert_memory_equal(&kept.about, &about, sizeof(about));
	log_about(&f->log, CONFIG_LOG_DEBUG, &about, "no");
	assert_int_equal(kept.lines, 1);
	for (unsigned i = 0; i < 2 * LOG_SITE_LINES; i++)
		log_limited_about(&f->log, &site, 0, CONFIG_LOG_ERROR, &about, "%u", i);
	assert_int_equal(kept.lines, 1 + LOG_SITE_LINES);
	assert_int_equal(kept.about.uid, 7);
	log_notice(&f->log, "nobody");
	assert_false(kept.about.client);
	assert_int_equal(kept.about.event, LOG_EVENT_NONE);
	f->log.about = *LOG_UID(11);
	log_notice(&f->log, "whom the log is about");
	assert_int_equal(kept.about.uid, 11);
	log_limited(&f->log, &site, LOG_SITE_INTERVAL, CONFIG_LOG_ERROR, "and this");
	assert_int_equal(kept.about.uid, 11);
	assert_true(kept.about.client);
	log_about(&f->log, CONFIG_LOG_INFO, &about, "but not this");
	assert_int_equal(kept.about.uid, 7);
	assert_string_equal(read_log(f), "");
}

static void what_a_sink_refuses_goes_to_the_stream(void **state)
{
	struct fixture *f = *state;
	struct kept kept = {.refuses = true};

	f->log.sink = keep;
	f->log.sink_context = &kept;
	log_error(&f->log, "%d", 1);
	assert_string_equal(read_log(f), "readyd: error: 1\n");
}

/* A gap of the stream is told through the sink, once. */
static void a_sink_is_told_of_a_gap(void **state)
{
	struct fixture *f = *state;
	struct kept kept = {0};

	f->log.dropped = 3;
	f->log.sink = keep;
	f->log.sink_context = &kept;
	log_error(&f->log, "after");
	assert_string_equal(kept.text, "after");
	assert_int_equal(kept.lines, 2);
	assert_int_equal(f->log.dropped, 0);
	log_error(&f->log, "after");
	assert_int_equal(kept.lines, 3);
}

static void own_description_stands_above_the_landing_zone(void **state)
{
	struct fixture *f = *state;

	assert_true(f->log.own);
	assert_true(f->log.fd >= 256);
	assert_true(fcntl(f->log.fd, F_GETFL) & O_NONBLOCK);
	assert_false(fcntl(f->fds[1], F_GETFL) & O_NONBLOCK); /* the shared one stays as it was */
	assert_true(fcntl(f->log.fd, F_GETFD) & FD_CLOEXEC);
}

/* Fills what fd leads to, with 4000 lines or more, until one is lost; returns how many were lost
 * since the last that got through: all, but for terminals, which make room by themselves. */
static unsigned long long fill(struct log *log)
{
	char line[200];

	memset(line, 'y', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	for (unsigned i = 0; i < 4000 || log->dropped == 0; i++)
		log_notice(log, "%s", line);
	return log->dropped;
}

static void expect_gap_is_told(struct fixture *f, unsigned long long lost)
{
	char gap[128];

	(void)snprintf(gap, sizeof(gap),
		       "readyd: warning: %llu lines were lost here: they could not be written at "
		       "once\nreadyd: notice: after\n",
		       lost);
	log_notice(&f->log, "after");
	assert_string_equal(read_log(f), gap);
	assert_int_equal(f->log.dropped, 0);
	assert_true(f->log.dropped_ever == lost);
}

static void a_stuck_pipe_costs_lines_only(void **state)
{
	struct fixture *f = *state;
	unsigned long long lost = fill(&f->log);

	(void)read_log(f);
	assert_int_equal(count_lines(f->text, "\n") + lost, 4000);
	expect_gap_is_told(f, lost);
}

/* As where /proc is missing: the shared, blocking description is asked before each write. */
static void a_stuck_pipe_without_own_description_costs_lines_only(void **state)
{
	struct fixture *f = *state;
	unsigned long long lost;

	log_deinit(&f->log);
	f->log = (struct log){.fd = f->fds[1], .level = CONFIG_LOG_DEBUG};
	lost = fill(&f->log);
	(void)read_log(f);
	assert_int_equal(count_lines(f->text, "\n") + lost, 4000);
	expect_gap_is_told(f, lost);
}

static void a_stuck_socket_costs_lines_only(void **state)
{
	struct fixture *f = *state;

	(void)close(f->fds[0]);
	(void)close(f->fds[1]);
	log_deinit(&f->log);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, f->fds), 0);
	log_init(&f->log, f->fds[1], CONFIG_LOG_DEBUG);
	assert_true(f->log.socket);
	(void)fill(&f->log);
	while (*read_log(f))
		; /* as much as a socket holds may be more than one buffer */
	log_notice(&f->log, "after");
	assert_non_null(strstr(read_log(f), " lines were lost here"));
	assert_non_null(strstr(f->text, "\nreadyd: notice: after\n"));
}

/* Waits for the text: what is written to a terminal arrives a moment later. */
static const char *read_until(struct fixture *f, const char *end)
{
	size_t n = 0;
	ssize_t got;

	do {
		got = read(f->fds[0], f->text + n, sizeof(f->text) - 1 - n);
		assert_true(got > 0);
		n += (size_t)got;
		f->text[n] = '\0';
	} while (!strstr(f->text, end));
	return f->text;
}

static void open_terminal(struct fixture *f)
{
	struct termios raw = {0};
	int fds[2];

	cfmakeraw(&raw);
	if (openpty(&fds[0], &fds[1], NULL, &raw, NULL) < 0) {
		print_message("skip terminals: no pty can be had here: %s\n", strerror(errno));
		skip();
	}
	(void)close(f->fds[0]);
	(void)close(f->fds[1]);
	log_deinit(&f->log);
	memcpy(f->fds, fds, sizeof(fds));
	log_init(&f->log, f->fds[1], CONFIG_LOG_DEBUG);
}

static void a_stopped_terminal_costs_lines_only(void **state)
{
	struct fixture *f = *state;

	open_terminal(f);
	assert_int_equal(tcflow(f->fds[1], TCOOFF), 0); /* ^S */
	log_notice(&f->log, "stopped");
	assert_int_equal(f->log.dropped, 1);
	assert_int_equal(tcflow(f->fds[1], TCOON), 0);
	log_notice(&f->log, "after");
	assert_string_equal(read_until(f, "after\n"),
			    "readyd: warning: 1 line was lost here: it could not be written at "
			    "once\nreadyd: notice: after\n");
}

static void a_stuck_terminal_costs_lines_only(void **state)
{
	struct fixture *f = *state;
	ssize_t got;

	open_terminal(f);
	(void)fill(&f->log);
	while (f->log.dropped) {
		got = read(f->fds[0], f->text, sizeof(f->text));
		assert_true(got > 0);
		log_notice(&f->log, "after");
	}
	assert_non_null(
		strstr(read_until(f, "\nreadyd: notice: after\n"), " lines were lost here"));
}

static void a_gone_reader_costs_lines_only(void **state)
{
	struct fixture *f = *state;
	struct log closed;

	/* log_init() holds no reading end */
	(void)close(f->fds[0]);
	log_error(&f->log, "nobody");
	assert_int_equal(f->log.dropped, 1);
	log_init(&closed, -1, CONFIG_LOG_DEBUG);
	log_error(&closed, "nowhere");
	assert_int_equal(closed.dropped, 1);
	log_deinit(&closed);
	f->fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void files_are_appended_to(void **state)
{
	struct fixture *f = *state;
	FILE *file = tmpfile();
	struct log log;
	char text[128] = "";

	(void)f;
	assert_non_null(file);
	assert_int_equal(fputs("before\n", file) < 0, 0);
	assert_int_equal(fflush(file), 0);
	log_init(&log, fileno(file), CONFIG_LOG_NOTICE);
	assert_false(log.own);
	log_notice(&log, "x");
	rewind(file);
	assert_true(fread(text, 1, sizeof(text) - 1, file) > 0);
	assert_string_equal(text, "before\nreadyd: notice: x\n");
	log_deinit(&log);
	(void)fclose(file);
}

/* ---- Repeats ---- */

static void repeats_are_counted(void **state)
{
	struct fixture *f = *state;
	struct log_site site = {0}, other = {0};
	int64_t start = 5 * S;

	for (int i = 0; i < 105; i++)
		log_limited(&f->log, &site, start + i, CONFIG_LOG_WARNING, "line %d", i);
	assert_int_equal(count_lines(read_log(f), "line"), 5);
	assert_non_null(strstr(f->text, "readyd: warning: line 4\n"));
	log_limited(&f->log, &other, start, CONFIG_LOG_WARNING, "other");
	assert_string_equal(read_log(f), "readyd: warning: other\n");

	log_limited(&f->log, &site, start + 10 * S - 1, CONFIG_LOG_WARNING, "line");
	assert_string_equal(read_log(f), "");
	log_limited(&f->log, &site, start + 10 * S, CONFIG_LOG_WARNING, "line");
	assert_string_equal(read_log(f), "readyd: warning: ... 101 more of these in the last 10 s\n"
					 "readyd: warning: line\n");
	for (int i = 0; i < 4; i++)
		log_limited(&f->log, &site, start + 10 * S, CONFIG_LOG_WARNING, "line");
	assert_int_equal(count_lines(read_log(f), "line"), 4);
	log_limited(&f->log, &site, start + 21 * S, CONFIG_LOG_WARNING, "line");
	assert_string_equal(read_log(f), "readyd: warning: line\n");
}

static void what_was_left_out_is_told_at_the_end(void **state)
{
	struct fixture *f = *state;
	struct log_site site = {0};

	for (int i = 0; i < 8; i++)
		log_limited(&f->log, &site, 0, CONFIG_LOG_INFO, "line");
	(void)read_log(f);
	log_site_end(&f->log, &site, CONFIG_LOG_INFO, "session 7");
	assert_string_equal(read_log(f), "readyd: info: session 7: ... 3 more of these\n");
	log_site_end(&f->log, &site, CONFIG_LOG_INFO, "session 7");
	assert_string_equal(read_log(f), "");
}

/* ---- Escaping ---- */

static void bytes_are_made_harmless(void **state)
{
	char buffer[64];

	(void)state;
	assert_string_equal(log_escape("abc XYZ~", 8, buffer, sizeof(buffer)), "abc XYZ~");
	assert_string_equal(log_escape("", 0, buffer, sizeof(buffer)), "");
	assert_string_equal(log_escape("a\0\n\"\\\x7f\xff", 7, buffer, sizeof(buffer)),
			    "a\\x00\\x0a\\x22\\x5c\\x7f\\xff");
}

/* Whatever the size, the text ends within it, and is cut between bytes. */
static void escaped_text_never_exceeds_its_buffer(void **state)
{
	unsigned char bytes[40];
	char whole[256];

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i % 3 ? 'a' + i % 26 : i);
	(void)log_escape(bytes, sizeof(bytes), whole, sizeof(whole));
	for (size_t size = 8; size < sizeof(whole); size++) {
		char *buffer = malloc(size);
		size_t n;

		assert_non_null(buffer);
		assert_ptr_equal(log_escape(bytes, sizeof(bytes), buffer, size), buffer);
		n = strlen(buffer);
		assert_true(n < size);
		if (size > strlen(whole)) {
			assert_string_equal(buffer, whole);
		} else {
			assert_string_equal(buffer + n - 3, "...");
			assert_true(n >= size - 4);
			assert_memory_equal(buffer, whole, n - 3);
			assert_true(n < 7 || buffer[n - 4] != '\\');
		}
		free(buffer);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(lines_name_program_and_level),
		TEST(less_important_lines_are_left_out),
		TEST(journal_gets_priorities_if_it_is_that_fd),
		TEST(a_line_stays_one_line),
		TEST(a_sink_has_numbers_beside_the_text),
		TEST(what_a_sink_refuses_goes_to_the_stream),
		TEST(a_sink_is_told_of_a_gap),
		TEST(own_description_stands_above_the_landing_zone),
		TEST(a_stuck_pipe_costs_lines_only),
		TEST(a_stuck_pipe_without_own_description_costs_lines_only),
		TEST(a_stuck_socket_costs_lines_only),
		TEST(a_stopped_terminal_costs_lines_only),
		TEST(a_stuck_terminal_costs_lines_only),
		TEST(a_gone_reader_costs_lines_only),
		TEST(files_are_appended_to),
		TEST(repeats_are_counted),
		TEST(what_was_left_out_is_told_at_the_end),
		cmocka_unit_test(bytes_are_made_harmless),
		cmocka_unit_test(escaped_text_never_exceeds_its_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
