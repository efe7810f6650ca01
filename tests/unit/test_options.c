/* SPDX-License-Identifier: MIT */

/* The command line: words in, struct or sentence out. */

#include "daemon/keeper/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS_MAX = 8 };

/* Parses "readyd" and the words. */
static int parse(const char *const *words, struct options *ret, char error[256])
{
	char *argv[WORDS_MAX + 2] = {0};
	int argc = 0;

	argv[argc++] = (char *)(uintptr_t) "readyd";
	for (; *words; words++)
		argv[argc++] = (char *)(uintptr_t)*words;
	error[0] = '\0';
	return options_parse(argc, argv, ret, error, 256);
}

#define WORDS(...)                \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}

static struct options parse_valid(const char *const *words)
{
	struct options o;
	char error[256];
	int result;

	memset(&o, 0x5a, sizeof(o));
	result = parse(words, &o, error);
	assert_string_equal(error, "");
	assert_int_equal(result, 0);
	return o;
}

static void nothing_gives_the_defaults(void **state)
{
	struct options o = parse_valid((const char *const[]){NULL});

	(void)state;
	assert_null(o.config);
	assert_null(o.socket);
	assert_int_equal(o.ready_fd, -1);
	assert_false(o.check || o.check_upgrade || o.private_ || o.no_keeper || o.log_level_set ||
		     o.help || o.version);
}

static void every_option_is_taken(void **state)
{
	struct options o = parse_valid(WORDS("--config", "/c", "--socket", "/s", "--ready-fd", "7",
					     "--log-level", "error"));

	(void)state;
	assert_string_equal(o.config, "/c");
	assert_string_equal(o.socket, "/s");
	assert_int_equal(o.ready_fd, 7);
	assert_true(o.log_level_set);
	assert_int_equal(o.log_level, CONFIG_LOG_ERROR);

	o = parse_valid(
		WORDS("--private", "--no-keeper", "--ready-fd=2147483647", "--log-level=debug"));
	assert_true(o.no_keeper);
	assert_true(o.private_);
	assert_int_equal(o.ready_fd, 2147483647);
	assert_int_equal(o.log_level, CONFIG_LOG_DEBUG);
}

static void check_takes_a_file_in_each_form(void **state)
{
	struct options o = parse_valid(WORDS("--check"));

	(void)state;
	assert_true(o.check);
	assert_null(o.config);
	o = parse_valid(WORDS("--check", "a.yaml"));
	assert_true(o.check);
	assert_string_equal(o.config, "a.yaml");
	o = parse_valid(WORDS("--check=a.yaml"));
	assert_string_equal(o.config, "a.yaml");
	o = parse_valid(WORDS("--check", "--config", "a.yaml"));
	assert_true(o.check);
	assert_string_equal(o.config, "a.yaml");
	o = parse_valid(WORDS("--check-upgrade", "--socket", "/a", "--config=a.yaml"));
	assert_true(o.check_upgrade);
	assert_false(o.check);
	o = parse_valid(WORDS("--check", "--", "--odd"));
	assert_string_equal(o.config, "--odd");
	o = parse_valid(WORDS("--config", "a.yaml"));
	assert_false(o.check);
}

static void help_and_version_end_the_parsing(void **state)
{
	struct options o = parse_valid(WORDS("--help", "--nonsense"));

	(void)state;
	assert_true(o.help);
	assert_false(o.version);
	o = parse_valid(WORDS("--version", "x"));
	assert_true(o.version);
}

static void mistakes_are_one_sentence(void **state)
{
	static const struct {
		const char *words[WORDS_MAX];
		const char *says;
	} cases[] = {
		{{"--nonsense"}, "there is no option --nonsense"},
		{{"--private", "-x"}, "there is no option -x"},
		{{"-xy"}, "there is no option -x"},
		{{"--no-keeper=1"}, "--no-keeper takes no value"},
		{{"--config"}, "--config needs a value"},
		{{"--private", "--socket"}, "--socket needs a value"},
		{{"--private=yes"}, "--private takes no value"},
		{{"--config", ""}, "is empty"},
		{{"--check="}, "is empty"},
		{{"a.yaml"}, "\"a.yaml\" is too much"},
		{{"--check", "a", "b"}, "\"b\" is too much"},
		{{"--check", "a", "--config", "b"}, "two configuration files are named: b and a"},
		{{"--config", "a", "--config", "b"}, "two configuration files are named: a and b"},
		{{"--socket", "s"}, "\"s\" is not an absolute path"},
		{{"--socket", "@name"}, "not an absolute path"},
		{{"--socket", ""}, "not an absolute path"},
		{{"--socket", "/s", "--private"}, "leave out --socket, or --private"},
		{{"--ready-fd", "x"}, "\"x\" is not the number"},
		{{"--ready-fd", "-1"}, "\"-1\" is not the number"},
		{{"--ready-fd", "0"}, "\"0\" is not the number"},
		{{"--ready-fd", " 3"}, "is not the number"},
		{{"--ready-fd", "3x"}, "is not the number"},
		{{"--ready-fd", ""}, "is not the number"},
		{{"--ready-fd", "2147483648"}, "is not the number"},
		{{"--ready-fd", "99999999999999999999"}, "is not the number"},
		{{"--log-level", "loud"}, "\"loud\" is not one of error, warning"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct options o, before;
		char error[256];

		memset(&o, 0x5a, sizeof(o));
		before = o;
		assert_int_equal(parse(cases[i].words, &o, error), -EINVAL);
		if (!strstr(error, cases[i].says))
			fail_msg("expected \"%s\", got \"%s\"", cases[i].says, error);
		assert_null(strchr(error, '\n'));
		assert_memory_equal(&o, &before, sizeof(o));
	}
}

static void a_long_socket_path_is_refused(void **state)
{
	char path[109] = "/", error[256];
	struct options o;

	(void)state;
	memset(path + 1, 'a', 106);
	o = parse_valid(WORDS("--socket", path));
	assert_int_equal(strlen(o.socket), 107);
	path[107] = 'a';
	assert_int_equal(parse(WORDS("--socket", path), &o, error), -EINVAL);
	assert_non_null(strstr(error, "108 bytes"));
}

static char *printed(void (*print)(FILE *))
{
	char *text = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);

	assert_non_null(file);
	print(file);
	assert_int_equal(fclose(file), 0);
	return text;
}

static void help_and_versions_are_printed(void **state)
{
	char *help = printed(options_print_help), *version = printed(options_print_version);
	char *line, *rest = help;

	(void)state;
	assert_true(strncmp(version, "readyd ", 7) == 0);
	assert_non_null(strstr(version, "\nprotocol 1 to 1\n"));
	assert_true(strncmp(help, "Usage: readyd ", 14) == 0);
	while ((line = strsep(&rest, "\n")))
		assert_true(strlen(line) <= 80);
	free(help);
	free(version);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_gives_the_defaults),
		cmocka_unit_test(every_option_is_taken),
		cmocka_unit_test(check_takes_a_file_in_each_form),
		cmocka_unit_test(help_and_version_end_the_parsing),
		cmocka_unit_test(mistakes_are_one_sentence),
		cmocka_unit_test(a_long_socket_path_is_refused),
		cmocka_unit_test(help_and_versions_are_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
