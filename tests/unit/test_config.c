/* SPDX-License-Identifier: MIT */

/*
 * The configuration: files as strings, hard limits as arguments. The shipped readyd.yaml is found
 * beside this source, or by $READYD_YAML. The random test prints its seed and takes it from
 * $READYD_SEED.
 */

#include "config/config.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/core/quota.h"
#include "protocol/wire.h"

#define MS INT64_C(1000000)

static const struct config_hard usual = {.nofile = 20000, .max_user_watches = 5000000};

/* Reads text; the caller clears both. */
static int read_bytes(const char *text, size_t size, const struct config_hard *hard,
		      struct config *ret, struct config_errors *errors)
{
	FILE *file = size ? fmemopen((void *)(uintptr_t)text, size, "r") : fopen("/dev/null", "r");
	int result;

	assert_non_null(file);
	result = config_read(file, hard, ret, errors);
	(void)fclose(file);
	return result;
}

static int read_string(const char *text, const struct config_hard *hard, struct config *ret,
		       struct config_errors *errors)
{
	return read_bytes(text, strlen(text), hard, ret, errors);
}

/* A valid file. */
static struct config read_valid(const char *text, const struct config_hard *hard)
{
	struct config_errors errors = {0};
	struct config c = {0};
	int result = read_string(text, hard, &c, &errors);

	if (errors.n)
		print_error("%u:%u: %s\n", errors.items[0].line, errors.items[0].column,
			    errors.items[0].text);
	assert_int_equal(result, 0);
	assert_int_equal(errors.n, 0);
	return c;
}

static void assert_harmless(const char *text)
{
	for (; *text; text++)
		assert_true((unsigned char)*text >= 0x20 && (unsigned char)*text < 0x7f);
}

/* ---- Defaults ---- */

static void limits_have_the_order_of_wire_and_quota(void **state)
{
	(void)state;
	assert_int_equal(CONFIG_CONNECTIONS, WIRE_QUOTA_CONNECTIONS);
	assert_int_equal(CONFIG_WATCHES, WIRE_QUOTA_WATCHES);
	assert_int_equal(CONFIG_TIMERS, WIRE_QUOTA_TIMERS);
	assert_int_equal(CONFIG_PARKS, WIRE_QUOTA_PARKS);
	assert_int_equal(CONFIG_NOTE_BYTES, WIRE_QUOTA_NOTE_BYTES);
	assert_int_equal(CONFIG_FDS_RECEIVED, WIRE_QUOTA_FDS_RECEIVED);
	assert_int_equal(CONFIG_FDS_UNREAD, WIRE_QUOTA_FDS_UNREAD);
	assert_int_equal(CONFIG_LIMITS, WIRE_QUOTA_MAX);
	assert_int_equal(CONFIG_CONNECTIONS, QUOTA_CONNECTIONS);
	assert_int_equal(CONFIG_FDS_RECEIVED, QUOTA_FDS_RECEIVED);
	assert_int_equal(CONFIG_LIMITS, QUOTA_MAX);
}

static void defaults_of_a_usual_machine(void **state)
{
	struct config c;

	(void)state;
	assert_int_equal(config_defaults(&usual, &c), 0);
	assert_null(c.socket);
	assert_string_equal(c.backend, "epoll");
	assert_int_equal(c.log_level, CONFIG_LOG_NOTICE);
	assert_int_equal(c.reserve_fds, 64);
	assert_int_equal(c.hello_timeout, 10000 * MS);
	assert_int_equal(c.park_max_age, INT64_C(24) * 3600 * 1000 * MS);
	assert_int_equal(c.stuck_after, 10000 * MS);
	assert_int_equal(c.limits.value[CONFIG_CONNECTIONS], 7380);
	assert_int_equal(c.limits.value[CONFIG_WATCHES], 2500000);
	assert_int_equal(c.limits.value[CONFIG_TIMERS], 1048576);
	assert_int_equal(c.limits.value[CONFIG_PARKS], 5000);
	assert_int_equal(c.limits.value[CONFIG_NOTE_BYTES], 5000 * 2048);
	assert_int_equal(c.limits.value[CONFIG_FDS_RECEIVED], 1012);
	assert_int_equal(c.limits.value[CONFIG_FDS_UNREAD], 253);
	for (unsigned i = 0; i < CONFIG_LIMITS; i++)
		assert_false(c.limits.set[i]);
	assert_false(c.connect.set || c.inspect.set || c.upgrade.set || c.trusted.set ||
		     c.ttys.set);
	config_clear(&c);
	config_clear(&c);
}

/* Every default, written into a file, is accepted where it was computed, and changes nothing. */
static void defaults_fit_on_any_machine(void **state)
{
	static const uint64_t files[] = {0,    1,    16,    64,     255,        256,
					 300,  319,  320,   321,    400,        1023,
					 1024, 4096, 20000, 524288, 1073741816, INT_MAX};
	static const uint64_t watches[] = {0,    1,    1023,    1024,
					   2047, 4096, 5491511, UINT64_C(5000000000)};

	(void)state;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		for (size_t j = 0; j < sizeof(watches) / sizeof(watches[0]); j++) {
			struct config_hard hard = {files[i], watches[j]};
			struct config defaults, c;
			char text[1024];
			int n;

			assert_int_equal(config_defaults(&hard, &defaults), 0);
			assert_true(defaults.limits.value[CONFIG_CONNECTIONS] >= 1);
			assert_true(defaults.limits.value[CONFIG_WATCHES] >= 1);
			n = sprintf(text, "reserve-fds: %" PRIu64 "\nlimits:\n",
				    defaults.reserve_fds);
			for (unsigned k = 0; k < CONFIG_LIMITS; k++)
				n += sprintf(text + n, "  %s: %" PRIu64 "\n", config_limit_key(k),
					     defaults.limits.value[k]);
			c = read_valid(text, &hard);
			assert_int_equal(c.reserve_fds, defaults.reserve_fds);
			assert_memory_equal(c.limits.value, defaults.limits.value,
					    sizeof(c.limits.value));
			config_clear(&c);
			config_clear(&defaults);
		}
	}
}

static void hard_limits_are_those_of_this_process(void **state)
{
	struct config_hard hard = {0};

	(void)state;
	config_hard_limits(&hard);
	assert_true(hard.nofile > 0 && hard.nofile <= INT_MAX);
	assert_true(hard.max_user_watches > 0);
}

/* ---- Valid files ---- */

static void nothing_means_the_defaults(void **state)
{
	static const char *const texts[] = {"",
					    "\n",
					    "# only a comment\n",
					    "---\n",
					    "--- {}\n",
					    "{}",
					    "---\n...\n",
					    "%YAML 1.1\n---\n",
					    "limits:\nusers:\ngroups:\n",
					    "\xef\xbb\xbf# mark\n"};
	struct config defaults;

	(void)state;
	assert_int_equal(config_defaults(&usual, &defaults), 0);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct config c = read_valid(texts[i], &usual);

		assert_memory_equal(&c.limits, &defaults.limits, sizeof(c.limits));
		assert_int_equal(c.n_overrides, 0);
		assert_false(c.connect.set);
		config_clear(&c);
	}
	config_clear(&defaults);
}

static void check_shared_groups(const struct config *c)
{
	const struct config_shared_group *web = config_find_shared_group(c, "webs", 3), *a;

	assert_int_equal(c->n_shared_groups, 3);
	assert_non_null(web);
	assert_string_equal(web->name, "web");
	assert_int_equal(web->park.items[0].uid, 3);
	assert_int_equal(web->take.n, 2);
	assert_true(web->take.items[0].group);
	assert_int_equal(web->take.items[1].uid, 4);
	assert_true(web->list.set);
	assert_int_equal(web->list.n, 0);
	a = config_find_shared_group(c, "a", 1);
	assert_non_null(a);
	assert_false(a->park.set);
	assert_string_equal(a->take.items[0].name, "staff");
	assert_non_null(config_find_shared_group(c, "app 2", 5));
	assert_null(config_find_shared_group(c, "we", 2));
	assert_null(config_find_shared_group(c, "web", 0));
}

static void every_key_is_read(void **state)
{
	static const char text[] = "socket: /tmp/a.socket\n"
				   "backend: poll\n"
				   "log-level: debug\n"
				   "reserve-fds: 100\n"
				   "hello-timeout: 1500ms\n"
				   "stuck-after: 3s\n"
				   "limits: {connections: 2k, watches: 1M, timers: 0, parks: 10,\n"
				   "         note-bytes: 1G, fds-received: 7, fds-unread: 8}\n"
				   "users:\n"
				   "  root: {watches: 5}\n"
				   "  '1000': {parks: 6}\n"
				   "  1001:\n"
				   "groups:\n"
				   "  50: {timers: 9}\n"
				   "connect: []\n"
				   "inspect: [root, 7, '@8']\n"
				   "upgrade: ['@9', 3]\n"
				   "trusted:\n"
				   "- \"@staff\"\n"
				   "ttys: ['@0']\n"
				   "shared-groups:\n"
				   "  web: {park: [3], take: ['@9', 4], list: []}\n"
				   "  'app 2':\n"
				   "  a: {take: ['@staff']}\n";
	struct config c = read_valid(text, &usual);

	(void)state;
	assert_string_equal(c.socket, "/tmp/a.socket");
	assert_string_equal(c.backend, "poll");
	assert_int_equal(c.log_level, CONFIG_LOG_DEBUG);
	assert_int_equal(c.reserve_fds, 100);
	assert_int_equal(c.hello_timeout, 1500 * MS);
	assert_int_equal(c.stuck_after, 3000 * MS);
	assert_int_equal(c.limits.value[CONFIG_CONNECTIONS], 2000);
	assert_int_equal(c.limits.value[CONFIG_WATCHES], 1000000);
	assert_int_equal(c.limits.value[CONFIG_TIMERS], 0);
	assert_int_equal(c.limits.value[CONFIG_PARKS], 10);
	assert_int_equal(c.limits.value[CONFIG_NOTE_BYTES], 1000000000);
	assert_int_equal(c.limits.value[CONFIG_FDS_RECEIVED], 7);
	assert_int_equal(c.limits.value[CONFIG_FDS_UNREAD], 8);
	for (unsigned i = 0; i < CONFIG_LIMITS; i++)
		assert_true(c.limits.set[i]);

	assert_int_equal(c.n_overrides, 4);
	assert_string_equal(c.overrides[0].who.name, "root");
	assert_false(c.overrides[0].who.resolved);
	assert_int_equal(c.overrides[0].who.line, 10);
	assert_int_equal(c.overrides[0].who.column, 3);
	assert_true(c.overrides[0].limits.set[CONFIG_WATCHES]);
	assert_false(c.overrides[0].limits.set[CONFIG_PARKS]);
	assert_true(c.overrides[1].who.resolved);
	assert_int_equal(c.overrides[1].who.uid, 1000);
	assert_int_equal(c.overrides[2].who.uid, 1001);
	assert_true(c.overrides[3].who.group);
	assert_int_equal(c.overrides[3].who.gid, 50);
	assert_int_equal(c.overrides[3].limits.value[CONFIG_TIMERS], 9);

	assert_true(c.connect.set);
	assert_int_equal(c.connect.n, 0);
	assert_int_equal(c.inspect.n, 3);
	assert_false(c.inspect.items[1].group);
	assert_int_equal(c.inspect.items[1].uid, 7);
	assert_true(c.inspect.items[2].group);
	assert_int_equal(c.inspect.items[2].gid, 8);
	assert_int_equal(c.upgrade.n, 2);
	assert_true(c.upgrade.items[0].group);
	assert_int_equal(c.upgrade.items[1].uid, 3);
	assert_string_equal(c.trusted.items[0].name, "staff");
	assert_true(c.trusted.items[0].group);
	assert_int_equal(c.ttys.items[0].gid, 0);
	check_shared_groups(&c);
	config_clear(&c);
}

/* What nobody wrote follows from what somebody wrote. */
static void written_values_move_the_other_defaults(void **state)
{
	struct config c = read_valid("limits: {parks: 3}\nreserve-fds: 8000\n", &usual);

	(void)state;
	assert_int_equal(c.limits.value[CONFIG_NOTE_BYTES], 3 * 2048);
	assert_int_equal(c.limits.value[CONFIG_CONNECTIONS], (20000 - 256 - 8000) / 2 * 3 / 4);
	assert_false(c.limits.set[CONFIG_CONNECTIONS]);
	config_clear(&c);
}

static void hello_timeout_has_units(void **state)
{
	static const struct {
		const char *text;
		int64_t ns;
	} cases[] = {{"hello-timeout: 10ms", 10 * MS},
		     {"hello-timeout: 2s", 2000 * MS},
		     {"hello-timeout: 60min", 3600 * 1000 * MS}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config c = read_valid(cases[i].text, &usual);

		assert_int_equal(c.hello_timeout, cases[i].ns);
		config_clear(&c);
	}
}

/* ---- Faults ---- */

struct fault {
	const char *text;
	unsigned line, column;
	const char *says;
};

static const struct fault faults[] = {
	/* keys */
	{"sockt: /a", 1, 1, "did you mean socket?"},
	{"Log_Level: info", 1, 1, "did you mean log-level?"},
	{"zebra: 1", 1, 1,
	 "there are: socket, backend, log-level, reserve-fds, hello-timeout, stuck-after, "
	 "park-max-age, limits, users, groups, connect, inspect, upgrade, trusted, ttys, "
	 "shared-groups"},
	{"limits:\n  watchs: 1", 2, 3, "did you mean watches?"},
	{"users: {root: {watchs: 1}}", 1, 16, "users.\"root\": the limit \"watchs\""},
	{"backend: epoll\nbackend: poll", 2, 1, "given in line 1 already"},
	{"limits:\n  parks: 1\n  parks: 1", 3, 3, "given in line 2 already"},
	{"users: {root: {}, root: {}}", 1, 19, "\"root\" was given in line 1"},
	{"connect: [1]\nconnect: [2]", 2, 1, "given in line 1 already"},
	{"? [a]\n: b", 1, 3, "must be one word"},
	{"<<: {}", 1, 1, "not known"},
	{"shared-groups: {web: {take: [1], tke: [2]}}", 1, 34,
	 "shared-groups.\"web\": the right \"tke\" is not known; did you mean take?"},
	{"shared-groups:\n  web: {}\n  web: {}", 3, 3, "\"web\" was given in line 2"},
	/* types */
	{"[]", 1, 1, "must be a mapping of keys and values, not a list"},
	{"word", 1, 1, "must be a mapping of keys and values, not a single value"},
	{"socket: [/a]", 1, 9, "socket must be an absolute path, not a list"},
	{"backend: {}", 1, 10, "not a mapping"},
	{"socket:", 1, 8, "socket has no value"},
	{"shared-groups: [web]", 1, 16, "shared-groups must be a mapping of names of groups"},
	{"shared-groups: {web: [root]}", 1, 22,
	 "shared-groups.\"web\" must be a mapping of park, take and list, not a list"},
	{"shared-groups: {web: {park: root}}", 1, 29,
	 "shared-groups.\"web\".park must be a list of users and groups"},
	{"shared-groups: {web: {list: [[1]]}}", 1, 30, "not a list"},
	{"shared-groups: {'': {}}", 1, 17, "has 1 to 255 bytes, this one 0"},
	{"shared-groups: {\"a\\tb\": {}}", 1, 17, "has a control character"},
	{"limits: 5", 1, 9, "limits must be a mapping of limits, not a single value"},
	{"limits: {parks: {}}", 1, 17, "limits.parks must be a number, not a mapping"},
	{"limits: {parks: }", 1, 17, "limits.parks has no value"},
	{"users: [root]", 1, 8, "users must be a mapping"},
	{"users: {root: 5}", 1, 15, "users.\"root\" must be a mapping"},
	{"connect: root", 1, 10, "connect must be a list"},
	{"connect:", 1, 9, "connect must be a list"},
	{"connect: [[root]]", 1, 11, "an entry of connect must be a name"},
	{"connect: [~, '']", 1, 14, "\"\" is not the name"},
	/* numbers */
	{"reserve-fds: '5'", 1, 14, "not a number"},
	{"reserve-fds: -5", 1, 14, "\"-5\" is not a number"},
	{"reserve-fds: +5", 1, 14, "not a number"},
	{"reserve-fds: 010", 1, 14, "not a number"},
	{"reserve-fds: 0x10", 1, 14, "not a number"},
	{"reserve-fds: 1_0", 1, 14, "not a number"},
	{"reserve-fds: 1.5", 1, 14, "not a number"},
	{"reserve-fds: 1K", 1, 14, "not a number"},
	{"reserve-fds: 1kk", 1, 14, "not a number"},
	{"reserve-fds: k", 1, 14, "not a number"},
	{"reserve-fds: 0", 1, 14, "out of range: write a number from 1 to"},
	{"limits: {timers: 1000000000001}", 1, 18, "out of range"},
	{"limits: {timers: 18446744073709551616}", 1, 18, "out of range"},
	{"limits: {timers: 18446744073709551615G}", 1, 18, "out of range"},
	/* times */
	{"hello-timeout: 10", 1, 16, "not a time with its unit"},
	{"hello-timeout: 1h", 1, 16, "not a time with its unit"},
	{"hello-timeout: '10s'", 1, 16, "not a time with its unit"},
	{"hello-timeout: 9ms", 1, 16, "out of range"},
	{"stuck-after: 99ms", 1, 14, "from 100ms to 60min"},
	{"stuck-after: 10", 1, 14, "not a time with its unit"},
	{"hello-timeout: 3601s", 1, 16, "out of range"},
	{"park-max-age: 525601min", 1, 15, "out of range"},
	{"hello-timeout: 999999999999999999999min", 1, 16, "out of range"},
	/* words and paths */
	{"backend: epol", 1, 10, "did you mean epoll?"},
	{"backend: kqueue", 1, 10, "there are: epoll, poll"},
	{"log-level: warn", 1, 12, "did you mean warning?"},
	{"socket: run/socket", 1, 9, "not an absolute path"},
	{"socket: \"/a\\nb\"", 1, 9, "\"/a\\x0ab\" is not an absolute path"},
	{"socket: \"/a\\0b\"", 1, 9, "NUL"},
	{"socket: /234567890123456789012345678901234567890123456789012345678901234567890123456789"
	 "01234567890123456789012345678",
	 1, 9, "the path has 108 bytes"},
	/* users and groups */
	{"users: {'@staff': {}}", 1, 9, "under groups:, without the @"},
	{"users: {4294967295: {}}", 1, 9, "no id of a user"},
	{"groups: {007: {}}", 1, 10, "no id of a group"},
	{"users: {\"a\\tb\": {}}", 1, 9, "\"a\\x09b\" is not the name of a user"},
	{"connect: ['@']", 1, 11, "is not the name of a group"},
	/* YAML that has no place here */
	{"socket: &a /x", 1, 9, "anchors"},
	{"limits: &a {}", 1, 9, "anchors"},
	{"socket: *a", 1, 9, "aliases"},
	{"socket: !!str /x", 1, 9, "tags"},
	{"connect: !x []", 1, 10, "tags"},
	{"--- {}\n--- {}\n", 2, 1, "second document"},
	{"a\n...\n---\nb", 1, 1, "single value"},
	/* syntax */
	{"connect: [@staff]", 1, 11, "in quotes, as '@name'"},
	{"limits:\n\tparks: 1", 2, 1, "a tab cannot indent"},
	{"backend: %x", 1, 10, "write it in quotes"},
	{"limits: {parks: 1", 2, 0, "this is not YAML"},
	{"backend: 'epoll", 2, 0, "this is not YAML"},
	{"backend: epoll\n# \xff\n", 2, 3, "UTF-8"},
	{"backend: epoll\n# \xc3\xa4 \x01\n", 2, 5, "UTF-8"},
	{"\xff\xfe{\0}\0", 1, 1, "UTF-8"},
};

static void each_fault_is_told_with_its_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		const struct fault *f = &faults[i];
		struct config_errors errors = {0};
		struct config c, before;
		size_t at = 0;

		memset(&c, 0x5a, sizeof(c));
		before = c;
		assert_int_equal(read_string(f->text, &usual, &c, &errors), -EBADMSG);
		assert_memory_equal(&c, &before, sizeof(c));
		assert_true(errors.n > 0);
		while (at < errors.n && !strstr(errors.items[at].text, f->says))
			at++;
		if (at == errors.n)
			fail_msg("\"%s\": expected \"%s\", got \"%s\"", f->text, f->says,
				 errors.items[0].text);
		if (f->column != 0 &&
		    (errors.items[at].line != f->line || errors.items[at].column != f->column))
			fail_msg("\"%s\": \"%s\" is told of %u:%u", f->text, errors.items[at].text,
				 errors.items[at].line, errors.items[at].column);
		assert_harmless(errors.items[at].text);
		config_errors_clear(&errors);
		config_errors_clear(&errors);
	}
}

static void all_faults_are_told_in_one_run(void **state)
{
	static const char text[] = "sockt: 1\n"
				   "reserve-fds: x\n"
				   "limits: {parks: -1, timer: 3}\n"
				   "backend: nothing\n"
				   "connect: [*a, '']\n"
				   "ttys: [\n";
	static const unsigned lines[] = {1, 2, 3, 3, 4, 5, 5, 7};
	struct config_errors errors = {0};
	struct config c;

	(void)state;
	assert_int_equal(read_string(text, &usual, &c, &errors), -EBADMSG);
	assert_int_equal(errors.n, sizeof(lines) / sizeof(lines[0]));
	for (size_t i = 0; i < errors.n; i++)
		assert_int_equal(errors.items[i].line, lines[i]);
	config_errors_clear(&errors);
}

/* A value that does not fit says what to raise; raised to that, it fits. */
static void values_that_need_more_say_how_much(void **state)
{
	static const char *const files[] = {
		"limits: {connections: 9841}",
		"reserve-fds: 5000\nlimits: {connections: 9000}",
		"limits: {parks: 19681}",
		"limits: {fds-received: 20001}",
		"limits: {fds-unread: 1M}",
		"reserve-fds: 10001",
		"users: {root: {connections: 100k}}",
		"groups: {root: {parks: 100k}}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		struct config_hard hard = usual;
		struct config_errors errors = {0};
		struct config c;
		const char *text, *number;

		assert_int_equal(read_string(files[i], &hard, &c, &errors), -EBADMSG);
		assert_int_equal(errors.n, 1);
		text = errors.items[0].text;
		assert_non_null(strstr(text, "LimitNOFILE="));
		number = strrchr(text, ' ') + 1;
		hard.nofile = strtoull(number, NULL, 10);
		assert_true(hard.nofile > 20000);
		c = read_valid(files[i], &hard);
		config_clear(&c);
		config_errors_clear(&errors);
	}
}

static void watches_are_bounded_by_the_kernel(void **state)
{
	struct config_hard unknown = {20000, 0};
	struct config_errors errors = {0};
	struct config c;

	(void)state;
	assert_int_equal(read_string("limits: {watches: 5000001}", &usual, &c, &errors), -EBADMSG);
	assert_non_null(strstr(errors.items[0].text, "sysctl fs.epoll.max_user_watches=5000001"));
	config_errors_clear(&errors);
	c = read_valid("limits: {watches: 5000000}", &usual);
	config_clear(&c);
	c = read_valid("limits: {watches: 100G}", &unknown);
	config_clear(&c);
}

static void large_deep_and_unreadable_files_are_refused(void **state)
{
	size_t size = 1024 * 1024;
	char *text = malloc(size + 1);
	struct config_errors errors = {0};
	struct config c;
	FILE *file;

	(void)state;
	assert_non_null(text);
	memset(text, '#', size + 1);
	assert_int_equal(read_bytes(text, size, &usual, &c, &errors), 0);
	config_clear(&c);
	assert_int_equal(read_bytes(text, size + 1, &usual, &c, &errors), -EBADMSG);
	assert_int_equal(errors.items[0].line, 0);
	assert_non_null(strstr(errors.items[0].text, "larger than 1048576"));
	config_errors_clear(&errors);

	memset(text, '[', size);
	assert_int_equal(read_bytes(text, size, &usual, &c, &errors), -EBADMSG);
	assert_non_null(strstr(errors.items[errors.n - 1].text, "nested too deeply"));
	config_errors_clear(&errors);
	for (size_t i = 0; i < size; i++)
		text[i] = "{a: "[i % 4];
	assert_int_equal(read_bytes(text, size, &usual, &c, &errors), -EBADMSG);
	assert_non_null(strstr(errors.items[errors.n - 1].text, "nested too deeply"));
	config_errors_clear(&errors);

	file = fopen("/", "r");
	assert_non_null(file);
	assert_int_equal(config_read(file, &usual, &c, &errors), -EIO);
	assert_int_equal(errors.n, 0);
	(void)fclose(file);
	free(text);
}

/* ---- Users and groups ---- */

static void names_are_resolved(void **state)
{
	const struct group *zero = getgrgid(0);
	struct config_errors errors = {0};
	char text[256];
	struct config c;

	(void)state;
	assert_non_null(zero);
	(void)snprintf(text, sizeof(text),
		       "users: {root: {parks: 1}, 77: {parks: 2}}\nconnect: [root, '@%s', '@88']\n",
		       zero->gr_name);
	c = read_valid(text, &usual);
	assert_false(config_list_has(&c.connect, 0, NULL, 0)); /* not yet */
	assert_int_equal(config_resolve(&c, &errors), 0);
	assert_int_equal(errors.n, 0);
	assert_true(c.overrides[0].who.resolved);
	assert_int_equal(c.overrides[0].who.uid, 0);
	assert_true(config_list_has(&c.connect, 0, NULL, 0));
	assert_false(config_list_has(&c.connect, 88, NULL, 0)); /* a gid is no uid */
	assert_true(config_list_has(&c.connect, 5, (const gid_t[]){4, 0}, 2));
	assert_true(config_list_has(&c.connect, 5, (const gid_t[]){4, 88}, 2));
	assert_false(config_list_has(&c.connect, 5, (const gid_t[]){4, 5}, 2));
	config_clear(&c);
}

static void unknown_and_double_names_are_faults(void **state)
{
	static const char text[] = "users:\n"
				   "  no-such-user: {}\n"
				   "  root: {}\n"
				   "  0: {}\n"
				   "groups: {0: {}}\n"
				   "ttys: [root, root, '@no-such-group']\n";
	struct config c = read_valid(text, &usual);
	struct config_errors errors = {0};

	(void)state;
	assert_int_equal(config_resolve(&c, &errors), -EBADMSG);
	assert_int_equal(errors.n, 3);
	assert_int_equal(errors.items[0].line, 2);
	assert_non_null(strstr(errors.items[0].text, "there is no user \"no-such-user\""));
	assert_int_equal(errors.items[1].line, 4);
	assert_non_null(
		strstr(errors.items[1].text, "\"0\" is the same user as \"root\" in line 3"));
	assert_int_equal(errors.items[2].line, 6);
	assert_int_equal(errors.items[2].column, 20);
	assert_non_null(strstr(errors.items[2].text, "there is no group \"no-such-group\""));
	assert_false(c.overrides[0].who.resolved);
	config_errors_clear(&errors);
	config_clear(&c);
}

static void limits_of_a_user_before_groups_before_the_file(void **state)
{
	static const char text[] = "limits: {watches: 10, timers: 11}\n"
				   "users: {5: {watches: 1, fds-unread: 0}}\n"
				   "groups:\n"
				   "  20: {watches: 300, timers: 5, connections: 40}\n"
				   "  21: {watches: 200, timers: 6}\n";
	struct config c = read_valid(text, &usual);
	static const gid_t gids[] = {21, 20};
	uint64_t limits[CONFIG_LIMITS];

	(void)state;
	config_limits_for(&c, 5, gids, 2, limits);
	assert_int_equal(limits[CONFIG_WATCHES], 1);
	assert_int_equal(limits[CONFIG_FDS_UNREAD], 0);
	assert_int_equal(limits[CONFIG_TIMERS],
			 6); /* the largest of the groups', below the file's */
	assert_int_equal(limits[CONFIG_CONNECTIONS], 40);
	assert_int_equal(limits[CONFIG_PARKS], 5000);
	config_limits_for(&c, 6, gids, 1, limits);
	assert_int_equal(limits[CONFIG_WATCHES], 200);
	assert_int_equal(limits[CONFIG_CONNECTIONS], 7380);
	assert_int_equal(limits[CONFIG_FDS_UNREAD], 253);
	config_limits_for(&c, 20, NULL, 0, limits);
	assert_int_equal(limits[CONFIG_WATCHES], 10);
	assert_int_equal(limits[CONFIG_TIMERS], 11);
	config_clear(&c);
}

/* ---- The shipped file ---- */

static FILE *open_shipped(void)
{
	const char *path = getenv("READYD_YAML"), *slash = strrchr(__FILE__, '/');
	char beside[PATH_MAX];
	FILE *file;

	(void)snprintf(beside, sizeof(beside), "%.*s/../../config/readyd.yaml",
		       slash ? (int)(slash - __FILE__) : 1, slash ? __FILE__ : ".");
	file = fopen(path ? path : beside, "r");
	if (!file)
		fail_msg("cannot open %s: %s; set READYD_YAML", path ? path : beside,
			 strerror(errno));
	return file;
}

/* Its keys, which are comments that begin with # and no blank or two, as a file. */
static char *shipped_keys(void)
{
	FILE *in = open_shipped();
	char *text = NULL, *line = NULL;
	size_t size = 0, room = 0;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	while (getline(&line, &room, in) > 0) {
		if (line[0] == '#' &&
		    (line[1] >= 'a' || (line[1] == ' ' && line[2] == ' ' && line[3] >= 'a')))
			(void)fputs(line + 1, out);
	}
	free(line);
	(void)fclose(in);
	assert_int_equal(fclose(out), 0);
	return text;
}

static void shipped_file_shows_the_defaults(void **state)
{
	static const struct config_hard hard = {524288, 2000000}; /* as its first lines say */
	struct config_errors errors = {0};
	struct config defaults, c;
	char *text = shipped_keys();
	FILE *file = open_shipped();

	(void)state;
	assert_int_equal(config_defaults(&hard, &defaults), 0);
	assert_int_equal(config_read(file, &hard, &c, &errors), 0);
	(void)fclose(file);
	assert_memory_equal(&c.limits, &defaults.limits, sizeof(c.limits));
	assert_null(c.socket);
	assert_false(c.connect.set || c.inspect.set || c.upgrade.set || c.trusted.set ||
		     c.ttys.set);
	config_clear(&c);

	c = read_valid(text, &hard);
	for (unsigned i = 0; i < CONFIG_LIMITS; i++) {
		assert_true(c.limits.set[i]);
		assert_int_equal(c.limits.value[i], defaults.limits.value[i]);
	}
	assert_string_equal(c.socket, "/run/readyd/socket");
	assert_string_equal(c.backend, defaults.backend);
	assert_int_equal(c.log_level, defaults.log_level);
	assert_int_equal(c.reserve_fds, defaults.reserve_fds);
	assert_int_equal(c.hello_timeout, defaults.hello_timeout);
	assert_true(c.connect.set && c.inspect.set && c.upgrade.set && c.trusted.set && c.ttys.set);
	assert_int_equal(c.inspect.n + c.upgrade.n + c.trusted.n + c.ttys.n + c.n_overrides +
				 c.n_shared_groups,
			 0);
	config_clear(&c);
	config_clear(&defaults);
	free(text);
}

/* ---- Random files ---- */

static unsigned long seed_of_test(void)
{
	const char *text = getenv("READYD_SEED");
	unsigned long seed = text ? strtoul(text, NULL, 10) : (unsigned long)time(NULL);

	print_message("READYD_SEED=%lu\n", seed);
	return seed;
}

/* Pieces put together at random, and bytes changed: it is read or refused with a reason. */
static void random_files_are_read_or_refused(void **state)
{
	static const char *const pieces[] = {
		"socket: ", "limits:\n", "  watches: ", "users:",    " {",       "}",    "[",
		"]",        "connect: ", "\n",          "- ",        "'@x'",     "root", ": ",
		", ",       "5k",        "10s",         "&a ",       "*a",       "!t ",  "---\n",
		"? ",       "\"",        "\\x",         "#",         "\xc3\xa4", "\xff", "\t",
		"groups: ", "|\n ",      "<<",          "4294967295"};
	const size_t n_pieces = sizeof(pieces) / sizeof(pieces[0]);
	unsigned short random[3];
	unsigned long seed = seed_of_test();
	unsigned valid = 0;

	(void)state;
	random[0] = (unsigned short)seed;
	random[1] = (unsigned short)(seed >> 16);
	random[2] = 0x330e;
	for (unsigned round = 0; round < 20000; round++) {
		struct config_errors errors = {0};
		struct config c;
		char text[512];
		size_t size = 0, n = (size_t)nrand48(random) % 12;
		int result;

		for (size_t i = 0; i < n; i++)
			size += (size_t)sprintf(text + size, "%s",
						pieces[(size_t)nrand48(random) % n_pieces]);
		if (size && nrand48(random) % 4 == 0)
			text[(size_t)nrand48(random) % size] = (char)nrand48(random);
		result = read_bytes(text, size, &usual, &c, &errors);
		if (result == 0) {
			valid++;
			assert_int_equal(errors.n, 0);
			config_clear(&c);
			continue;
		}
		assert_int_equal(result, -EBADMSG);
		assert_true(errors.n > 0);
		for (size_t i = 0; i < errors.n; i++) {
			assert_harmless(errors.items[i].text);
			assert_true(errors.items[i].line >= 1 && errors.items[i].column >= 1);
			assert_true(i == 0 || errors.items[i - 1].line <= errors.items[i].line);
		}
		config_errors_clear(&errors);
	}
	assert_true(valid > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits_have_the_order_of_wire_and_quota),
		cmocka_unit_test(defaults_of_a_usual_machine),
		cmocka_unit_test(defaults_fit_on_any_machine),
		cmocka_unit_test(hard_limits_are_those_of_this_process),
		cmocka_unit_test(nothing_means_the_defaults),
		cmocka_unit_test(every_key_is_read),
		cmocka_unit_test(written_values_move_the_other_defaults),
		cmocka_unit_test(hello_timeout_has_units),
		cmocka_unit_test(each_fault_is_told_with_its_place),
		cmocka_unit_test(all_faults_are_told_in_one_run),
		cmocka_unit_test(values_that_need_more_say_how_much),
		cmocka_unit_test(watches_are_bounded_by_the_kernel),
		cmocka_unit_test(large_deep_and_unreadable_files_are_refused),
		cmocka_unit_test(names_are_resolved),
		cmocka_unit_test(unknown_and_double_names_are_faults),
		cmocka_unit_test(limits_of_a_user_before_groups_before_the_file),
		cmocka_unit_test(shipped_file_shows_the_defaults),
		cmocka_unit_test(random_files_are_read_or_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
