/* SPDX-License-Identifier: MIT */

/* What the service manager is told, and when; a socket of the test's own stands for it. */

#include "systemd/service.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MS INT64_C(1000000)

struct fixture {
	char folder[32];
	char path[64];
	int socket; /* the manager's */
	struct log log;
	struct service service;
	struct progress_page *page; /* of a loop that serves */
	char text[1024];
};

/* In what time the manager wants a sign of life; NULL: it does not. */
static void start(struct fixture *f, const char *watchdog_usec)
{
	if (watchdog_usec)
		assert_int_equal(setenv("WATCHDOG_USEC", watchdog_usec, 1), 0);
	service_init(&f->service, false, &f->log);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct sockaddr_un name = {.sun_family = AF_UNIX};

	assert_non_null(f);
	strcpy(f->folder, "/tmp/readyd-service-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	(void)snprintf(f->path, sizeof(f->path), "%s/notify", f->folder);
	strcpy(name.sun_path, f->path);
	f->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(f->socket, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(setenv("NOTIFY_SOCKET", f->path, 1), 0);
	log_init(&f->log, STDERR_FILENO, CONFIG_LOG_ERROR);
	assert_int_equal(progress_page_new(1, &f->page), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)unsetenv("NOTIFY_SOCKET");
	(void)unsetenv("WATCHDOG_USEC");
	progress_page_free(f->page);
	log_deinit(&f->log);
	(void)close(f->socket);
	(void)unlink(f->path);
	(void)rmdir(f->folder);
	free(f);
	return 0;
}

/* The next message; "" if there is none. */
static const char *hear(struct fixture *f)
{
	ssize_t n = recv(f->socket, f->text, sizeof(f->text) - 1, 0);

	f->text[n < 0 ? 0 : n] = '\0';
	return f->text;
}

static void counts_are_told(void **state)
{
	struct fixture *f = *state;
	const struct progress p = {.page = f->page};

	start(f, NULL);
	progress_count(&p, &(const struct progress_counts){1, 2, UINT64_MAX, 4});
	service_serves(&f->service, f->page, 0);
	assert_string_equal(hear(f),
			    "READY=1\nSTATUS=1 connection, 2 watches, 18446744073709551615 "
			    "waiting, 4 timers");
	service_serves(&f->service, NULL, 0);
	assert_string_equal(hear(f), "READY=1\nSTATUS=serving");
	service_stopping(&f->service, 0);
	assert_string_equal(hear(f), "STOPPING=1\nSTATUS=ending");
}

static void a_reload_has_two_ends(void **state)
{
	struct fixture *f = *state;

	start(f, NULL);
	service_serves(&f->service, f->page, 0);
	(void)hear(f);
	service_reloading(&f->service, 5 * MS);
	assert_string_equal(hear(f),
			    "RELOADING=1\nMONOTONIC_USEC=5000\nSTATUS=reading the configuration");
	service_reloaded(&f->service, NULL, 5 * MS);
	assert_string_equal(hear(f), "READY=1\nSTATUS=serving");
}

/* A SIGHUP while it starts must not make it ready. */
static void a_reload_before_it_serves_tells_nothing(void **state)
{
	struct fixture *f = *state;

	start(f, NULL);
	service_reloading(&f->service, 0);
	service_reloaded(&f->service, f->page, 0);
	assert_string_equal(hear(f), "");
}

static void signs_of_life_come_twice_in_the_time(void **state)
{
	struct fixture *f = *state;

	start(f, "100000");
	service_feed(&f->service, f->page, 1000 * MS);
	assert_non_null(strstr(hear(f), "WATCHDOG=1"));
	assert_int_equal(service_next(&f->service, f->page), 1050 * MS);
	service_feed(&f->service, f->page, 1049 * MS);
	assert_string_equal(hear(f), "");
	service_feed(&f->service, f->page, 1050 * MS);
	assert_non_null(strstr(hear(f), "WATCHDOG=1"));
}

static void without_a_loop_there_is_no_sign_of_life(void **state)
{
	struct fixture *f = *state;

	start(f, "100000");
	service_feed(&f->service, NULL, 1000 * MS);
	assert_string_equal(hear(f), "");
	assert_int_equal(service_next(&f->service, NULL), INT64_MAX);
	service_feed(&f->service, f->page, 1001 * MS); /* it is made up for at once */
	assert_non_null(strstr(hear(f), "WATCHDOG=1"));
}

static void nobody_asks_nobody_wakes(void **state)
{
	struct fixture *f = *state;

	start(f, NULL);
	service_feed(&f->service, f->page, INT64_MAX - 1);
	assert_string_equal(hear(f), "");
	assert_int_equal(service_next(&f->service, f->page), INT64_MAX);
}

static void an_endless_time_does_not_overflow(void **state)
{
	struct fixture *f = *state;

	start(f, "18446744073709551614");
	service_feed(&f->service, f->page, 1);
	assert_int_equal(service_next(&f->service, f->page), 1 + INT64_C(1800) * 1000 * MS);
}

static void a_private_daemon_is_silent(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(setenv("WATCHDOG_USEC", "100000", 1), 0);
	service_init(&f->service, true, &f->log);
	service_serves(&f->service, f->page, 0);
	service_reloading(&f->service, 0);
	service_reloaded(&f->service, f->page, 0);
	service_feed(&f->service, f->page, 1);
	service_stopping(&f->service, 0);
	assert_string_equal(hear(f), "");
	assert_int_equal(service_next(&f->service, f->page), INT64_MAX);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(counts_are_told),
		TEST(a_reload_has_two_ends),
		TEST(a_reload_before_it_serves_tells_nothing),
		TEST(signs_of_life_come_twice_in_the_time),
		TEST(without_a_loop_there_is_no_sign_of_life),
		TEST(nobody_asks_nobody_wakes),
		TEST(an_endless_time_does_not_overflow),
		TEST(a_private_daemon_is_silent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
