/* SPDX-License-Identifier: MIT */

/*
 * The command line, parsed into a struct and checked as far as that is possible without asking the
 * system: whether a file exists or an fd is open is found out by whoever uses it.
 *
 * The file can be named as --check FILE, --check=FILE or --config FILE, but only once: two
 * different names in one command are a mistake. Any other word that is no option is one, too.
 *
 * `names` is the one table of options; its texts are the help, and the tests compare it with the
 * manual.
 */

#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/wire.h"

#ifndef READYD_VERSION
#define READYD_VERSION "0.1.0"
#endif

enum {
	SOCKET_PATH_MAX = 107 /* sun_path less its NUL */
};

enum option_id {
	OPTION_CONFIG = 256,
	OPTION_CHECK,
	OPTION_CHECK_UPGRADE,
	OPTION_SOCKET,
	OPTION_PRIVATE,
	OPTION_READY_FD,
	OPTION_NO_KEEPER,
	OPTION_LOG_LEVEL,
	OPTION_HELP,
	OPTION_VERSION,
};

static const struct option names[] = {
	{"config", required_argument, NULL, OPTION_CONFIG},
	{"check", optional_argument, NULL, OPTION_CHECK},
	{"check-upgrade", no_argument, NULL, OPTION_CHECK_UPGRADE},
	{"socket", required_argument, NULL, OPTION_SOCKET},
	{"private", no_argument, NULL, OPTION_PRIVATE},
	{"ready-fd", required_argument, NULL, OPTION_READY_FD},
	{"no-keeper", no_argument, NULL, OPTION_NO_KEEPER},
	{"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
	{"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},
	{0},
};

static const char help[] =
	"Usage: readyd [OPTION]...\n"
	"       readyd --check [FILE]\n"
	"Watches file descriptors for other programs and tells them which are ready.\n"
	"\n"
	"  --config FILE      read FILE instead of " OPTIONS_CONFIG_DEFAULT "\n"
	"  --check [FILE]     say what is wrong with the configuration, and end\n"
	"  --check-upgrade    say whether this program could take over from a running\n"
	"                     one, and end: an upgrade does that by itself\n"
	"  --socket PATH      listen there, whatever the configuration says\n"
	"  --private          serve this user only, at an address of its own, and end\n"
	"                     with the process that started it\n"
	"  --ready-fd N       write READY=1 and the address to file descriptor N\n"
	"  --no-keeper        serve in this process, which nothing replaces when it dies\n"
	"  --log-level LEVEL  error, warning, notice, info or debug\n"
	"  --help             print this, and end\n"
	"  --version          print the versions of program and protocol, and end\n"
	"\n"
	"See readyd(8) and readyd.yaml(5).\n";

void options_print_help(FILE *file)
{
	(void)fputs(help, file);
}

void options_print_version(FILE *file)
{
	(void)fprintf(file, "readyd %s\nprotocol %d to %d\n", READYD_VERSION, WIRE_PROTOCOL_LOWEST,
		      WIRE_PROTOCOL_HIGHEST);
}

struct parsing {
	struct options options;
	char *error;
	size_t error_size;
};

__attribute__((format(printf, 2, 3))) static int fail(struct parsing *p, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(p->error, p->error_size, format, ap);
	va_end(ap);
	return -EINVAL;
}

static int set_config(struct parsing *p, const char *file)
{
	if (!*file)
		return fail(p, "the name of the configuration file is empty");
	if (p->options.config)
		return fail(p, "two configuration files are named: %s and %s; name one",
			    p->options.config, file);
	p->options.config = file;
	return 0;
}

static int set_socket(struct parsing *p, const char *path)
{
	if (path[0] != '/')
		return fail(p, "--socket: \"%s\" is not an absolute path, like /run/readyd/socket",
			    path);
	if (strlen(path) > SOCKET_PATH_MAX)
		return fail(p,
			    "--socket: the path has %zu bytes, a socket's address has room for %d",
			    strlen(path), SOCKET_PATH_MAX);
	p->options.socket = path;
	return 0;
}

static int set_ready_fd(struct parsing *p, const char *text)
{
	unsigned long value;

	/* 0 is stdin; digits only, as strtoul() takes signs and blanks, too. */
	errno = 0;
	value = strtoul(text, NULL, 10);
	if (!*text || text[strspn(text, "0123456789")] || errno || value < 1 || value > INT_MAX)
		return fail(p,
			    "--ready-fd: \"%s\" is not the number of a file descriptor, 1 or more",
			    text);
	p->options.ready_fd = (int)value;
	return 0;
}

static int set_log_level(struct parsing *p, const char *name)
{
	if (config_log_level_from_name(name, &p->options.log_level) < 0)
		return fail(p,
			    "--log-level: \"%s\" is not one of error, warning, notice, info, debug",
			    name);
	p->options.log_level_set = true;
	return 0;
}

/* What getopt did not understand: `word` is the argument where it stands. */
static int fail_unknown(struct parsing *p, const char *word)
{
	if (optopt >= OPTION_CONFIG)
		return fail(p, "%.*s takes no value", (int)strcspn(word, "="), word);
	if (optopt) /* a letter, maybe in the middle of a word */
		return fail(p, "there is no option -%c; see readyd --help", optopt);
	return fail(p, "there is no option %s, or more than one begins so; see readyd --help",
		    word);
}

static int take_option(struct parsing *p, int id, const char *value, const char *word)
{
	switch (id) {
	case OPTION_CONFIG:
		return set_config(p, value);
	case OPTION_CHECK:
		p->options.check = true;
		return value ? set_config(p, value) : 0;
	case OPTION_CHECK_UPGRADE:
		p->options.check_upgrade = true;
		return 0;
	case OPTION_SOCKET:
		return set_socket(p, value);
	case OPTION_PRIVATE:
		p->options.private_ = true;
		return 0;
	case OPTION_READY_FD:
		return set_ready_fd(p, value);
	case OPTION_NO_KEEPER:
		p->options.no_keeper = true;
		return 0;
	case OPTION_LOG_LEVEL:
		return set_log_level(p, value);
	case OPTION_HELP:
		p->options.help = true;
		return 0;
	case OPTION_VERSION:
		p->options.version = true;
		return 0;
	case ':':
		return fail(p, "%s needs a value; see readyd --help", word);
	default:
		return fail_unknown(p, word);
	}
}

/* The words that are no options: after --check the file, else nothing. */
static int take_operands(struct parsing *p, char *const words[], int n)
{
	if (n == 0)
		return 0;
	if (!p->options.check || n > 1)
		return fail(p, "\"%s\" is too much; see readyd --help",
			    words[p->options.check ? 1 : 0]);
	return set_config(p, words[0]);
}

int options_parse(int argc, char *argv[], struct options *ret, char *error, size_t error_size)
{
	struct parsing p = {
		.options = {.ready_fd = -1, .passed_socket = -1},
		.error = error,
		.error_size = error_size,
	};
	int id, result;

	optind = 0; /* glibc: begin anew */
	opterr = 0;
	while ((id = getopt_long(argc, argv, ":", names, NULL)) != -1) {
		result = take_option(&p, id, optarg, argv[optind > 0 ? optind - 1 : 0]);
		if (result < 0)
			return result;
		if (p.options.help || p.options.version) {
			*ret = p.options;
			return 0;
		}
	}
	result = take_operands(&p, argv + optind, argc - optind);
	if (result < 0)
		return result;
	if (p.options.private_ && p.options.socket)
		return fail(
			&p,
			"--private has an address of its own: leave out --socket, or --private");
	*ret = p.options;
	return 0;
}
