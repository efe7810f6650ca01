/* SPDX-License-Identifier: MIT */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "output.h"
#include "text.h"

/*
 * readyctl: the table of verbs, the table of options, and what turns argv into struct ctl. Both
 * tables are the one source of --help, of the checks here, and of the test that compares them with
 * the manual page.
 *
 * Options may stand before and after the verb. All are parsed first; then each is checked against
 * what the verb takes, so that a filter that would be ignored is an error instead. One option is two:
 * --fd has an argument with park, and none with take; so the verb is looked for first.
 *
 * The first three fds: if one of them is closed, the connection to the daemon would get its number,
 * and the table would go into the socket. So a closed one is filled with /dev/null, opened the
 * wrong way round: use of it fails as it would have. `wait` is told which they were.
 */

#define LISTS (CTL_SOCKET | CTL_PRIVATE | CTL_JSON | CTL_NO_LEGEND)
#define JOBS_MAX 1024 /* what a worker may work at, at once */
#define WHOSE (CTL_PID | CTL_UID | CTL_SESSION)

const struct ctl_verb ctl_verbs[] = {
	{"status", "", "the daemon: version, counts, counters", LISTS, 0, 0, command_status},
	{"sessions", "", "who is connected, and what each has", LISTS | WHOSE, 0, 0,
	 command_sessions},
	{"list", "", "the watches: who waits on what, since when",
	 LISTS | WHOSE | CTL_WAITING | CTL_OVERDUE, 0, 0, command_list},
	{"timers", "", "the timers: which is next", LISTS | WHOSE, 0, 0, command_timers},
	{"quotas", "", "what each user may have, and has", LISTS | CTL_UID, 0, 0, command_quotas},
	{"show", "SESSION/ID", "all about one watch", LISTS, 1, 1, command_show},
	{"wait", "FD[:r|w|rw]...", "wait until fds are ready; needs no daemon",
	 CTL_SOCKET | CTL_JSON | CTL_NO_LEGEND | CTL_TIMEOUT | CTL_ALL, 1, -1, command_wait},
	{"park", "", "hand an fd to the daemon to keep, and print its id",
	 LISTS | CTL_FD | CTL_NAME | CTL_GROUP | CTL_NOTE | CTL_DEADLINE | CTL_ON_DEADLINE |
		 CTL_DURABLE | CTL_HOLD_ONLY,
	 0, 0, command_park},
	{"take", "[ID] COMMAND...", "take a parked fd, and run COMMAND on it",
	 CTL_SOCKET | CTL_NAME | CTL_GROUP | CTL_EACH | CTL_JOBS | CTL_LISTEN, 1, -1, command_take},
	{"parked", "", "the parked fds: whose, since when, ready or not",
	 LISTS | CTL_PID | CTL_UID | CTL_GROUP, 0, 0, command_parked},
	{"groups", "", "the groups of parks: what is ready, who works", LISTS | CTL_UID, 0, 0,
	 command_groups},
	{"drop", "[ID]", "close a parked fd",
	 CTL_SOCKET | CTL_JSON | CTL_NO_LEGEND | CTL_NAME | CTL_GROUP, 0, 1, command_drop},
	{"break", "SESSION", "wake the poll of a session", LISTS, 1, 1, command_break},
	{"upgrade", "", "have the program that is installed now take over",
	 CTL_SOCKET | CTL_JSON | CTL_NO_LEGEND, 0, 0, command_upgrade},
	{"version", "", "versions of readyctl, library and daemon", LISTS, 0, 0, command_version},
	{"help", "[VERB]", "this text, or that of one verb", 0, 0, 1, command_help},
	{NULL, NULL, NULL, 0, 0, 0, NULL},
};

struct ctl_option {
	const char *name;
	char letter;          /* 0: none */
	const char *argument; /* NULL: none */
	const char *help;
	unsigned bit;
};

static const struct ctl_option ctl_options[] = {
	{"socket", 0, "PATH", "use this daemon and no other (@NAME: abstract)", CTL_SOCKET},
	{"private", 0, NULL, "start a private daemon if none answers", CTL_PRIVATE},
	{"json", 0, NULL, "print one JSON document", CTL_JSON},
	{"no-legend", 0, NULL, "print tables without their header", CTL_NO_LEGEND},
	{"pid", 0, "PID", "only what belongs to this process", CTL_PID},
	{"uid", 0, "USER", "only what belongs to this user (name or number)", CTL_UID},
	{"session", 0, "SESSION", "only what belongs to this session", CTL_SESSION},
	{"waiting", 0, NULL, "only watches on which somebody waits", CTL_WAITING},
	{"overdue", 0, NULL, "only watches with an overdue deadline", CTL_OVERDUE},
	{"timeout", 't', "SECONDS", "wait no longer (also 500ms, 2s, 1min)", CTL_TIMEOUT},
	{"all", 0, NULL, "wait until all fds are ready at once", CTL_ALL},
	{"fd", 0, "FD", "park this fd (default: 0)", CTL_FD},
	{"name", 0, "NAME", "of the park: one fd a name, user and group", CTL_NAME},
	{"group", 0, "GROUP", "of parks: its workers get what is ready", CTL_GROUP},
	{"each", 0, NULL, "run COMMAND on one after another, until a signal", CTL_EACH},
	{"jobs", 0, "N", "run so many COMMANDs at once (default: 1)", CTL_JOBS},
	{"fd", 0, NULL, "take: COMMAND gets it at 3, as LISTEN_FDS", CTL_LISTEN},
	{"note", 0, "TEXT", "for who takes it, 2048 bytes at most", CTL_NOTE},
	{"deadline", 0, "SECONDS", "then it is closed (also 500ms, 2s, 1min)", CTL_DEADLINE},
	{"on-deadline", 0, "WHAT", "'close', or 'hand' it to a worker then", CTL_ON_DEADLINE},
	{"durable", 0, NULL, "it survives the death of the whole service", CTL_DURABLE},
	{"hold-only", 0, NULL, "keep it without looking whether it is ready", CTL_HOLD_ONLY},
	{"help", 'h', NULL, "print this text, or with a verb that verb's", CTL_HELP},
	{"version", 0, NULL, "print the versions of readyctl and its library", CTL_VERSION},
};

#define N_OPTIONS (sizeof(ctl_options) / sizeof(ctl_options[0]))

static const struct ctl_verb *find_verb(const char *name)
{
	for (const struct ctl_verb *v = ctl_verbs; v->name; v++)
		if (!strcmp(v->name, name))
			return v;
	ctl_complain("unknown verb '%s'; 'readyctl --help' lists all", name);
	return NULL;
}

static void print_option(FILE *to, const struct ctl_option *o)
{
	char left[40];

	snprintf(left, sizeof(left), "%c%c%s --%s%s%s", o->letter ? '-' : ' ',
		 o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name,
		 o->argument ? " " : "", o->argument ? o->argument : "");
	fprintf(to, "  %-24s%s\n", left, o->help);
}

int ctl_print_help(const struct ctl_verb *verb)
{
	struct output_page page;
	unsigned shown = ~0u;

	if (!output_page_open(&page))
		return CTL_FAILED;
	if (verb) {
		shown = verb->options | CTL_HELP;
		fprintf(page.file, "Usage: readyctl %s%s%s%s\n\n%s: %s\n", verb->name,
			verb->options ? " [OPTION]..." : "", *verb->arguments ? " " : "",
			verb->arguments, verb->name, verb->summary);
	} else {
		fprintf(page.file,
			"Usage: readyctl [OPTION]... VERB [ARGUMENT]...\n\n"
			"Shows who waits on what in readyd, waits for shells, parks fds.\n\n"
			"Verbs:\n");
		for (const struct ctl_verb *v = ctl_verbs; v->name; v++)
			fprintf(page.file, "  %-9s%-17s%s\n", v->name, v->arguments, v->summary);
	}
	fprintf(page.file, "\nOptions:\n");
	for (size_t i = 0; i < N_OPTIONS; i++)
		if (shown & ctl_options[i].bit)
			print_option(page.file, &ctl_options[i]);
	fprintf(page.file,
		"\nExit status: 0 done, 1 refused or not found (wait: time over), 2 usage,\n"
		"3 no daemon, 4 any other failure; take: COMMAND's, or 125 to 127 as env(1).\n"
		"More in readyctl(1).\n");
	return output_page_finish(&page);
}

int command_help(const struct ctl *ctl)
{
	const struct ctl_verb *verb = NULL;

	if (ctl->n_arguments) {
		verb = find_verb(ctl->arguments[0]);
		if (!verb)
			return CTL_USAGE;
	}
	return ctl_print_help(verb);
}

static int print_version(void)
{
	struct output_page page;

	if (!output_page_open(&page))
		return CTL_FAILED;
	fprintf(page.file, "readyctl %s\nlibreadyd %s\n", READYCTL_VERSION, readyd_version());
	return output_page_finish(&page);
}

static int parse_uid(const char *text, uint32_t *ret)
{
	uint64_t number;
	struct passwd *user;

	/* The largest is nobody's uid, and "all" in a filter. */
	if (text_parse_number(text, UINT32_MAX - 1, &number) == 0) {
		*ret = (uint32_t)number;
		return CTL_DONE;
	}
	user = getpwnam(text);
	if (!user) {
		ctl_complain("--uid: there is no user '%s'; give a name or a number", text);
		return CTL_USAGE;
	}
	*ret = user->pw_uid;
	return CTL_DONE;
}

static int parse_value(struct ctl *ctl, const struct ctl_option *o, const char *text)
{
	uint64_t number;
	bool good = true;

	switch (o->bit) {
	case CTL_SOCKET:
		ctl->socket = text;
		good = *text != 0;
		break;
	case CTL_UID:
		return parse_uid(text, &ctl->filter.uid);
	case CTL_PID:
		good = !text_parse_number(text, INT32_MAX, &number) && number;
		if (good)
			ctl->filter.pid = (uint32_t)number;
		break;
	case CTL_SESSION:
		good = !text_parse_number(text, UINT64_MAX, &number) && number;
		if (good)
			ctl->filter.session = number;
		break;
	case CTL_TIMEOUT:
		good = !text_parse_span(text, &ctl->timeout);
		break;
	case CTL_DEADLINE:
		good = !text_parse_span(text, &ctl->deadline);
		break;
	case CTL_FD:
		good = !text_parse_number(text, INT32_MAX, &number);
		if (good)
			ctl->fd = (int)number;
		break;
	case CTL_NAME:
		ctl->name = text;
		good = *text != 0;
		break;
	case CTL_GROUP:
		ctl->group = text;
		good = *text != 0;
		break;
	case CTL_JOBS:
		good = !text_parse_number(text, JOBS_MAX, &number) && number;
		if (good)
			ctl->jobs = (unsigned)number;
		break;
	case CTL_ON_DEADLINE:
		ctl->hand = strcmp(text, "hand") == 0;
		good = ctl->hand || strcmp(text, "close") == 0;
		break;
	case CTL_NOTE:
		ctl->note = text;
		break;
	default:
		break;
	}
	if (good)
		return CTL_DONE;
	ctl_complain("--%s: '%s' is no %s", o->name, text,
		     o->bit & (CTL_TIMEOUT | CTL_DEADLINE)
			     ? "span of time; write 5, 0.5, 500ms, 2s or 1min"
		     : o->bit == CTL_SOCKET      ? "path"
		     : o->bit == CTL_NAME        ? "name"
		     : o->bit == CTL_GROUP       ? "group"
		     : o->bit == CTL_FD          ? "fd; write its number"
		     : o->bit == CTL_JOBS        ? "number from 1 to 1024"
		     : o->bit == CTL_ON_DEADLINE ? "answer; write 'close' or 'hand'"
						 : "number from 1 up");
	return CTL_USAGE;
}

/* Says which option getopt did not like; `found` is what it returned. */
static int complain_option(int found, char **argv)
{
	if (optopt && found == ':')
		ctl_complain("%s needs a value; 'readyctl --help' lists all options",
			     argv[optind - 1]);
	else if (optopt && optopt < 0x100)
		ctl_complain("unknown option '-%c'; 'readyctl --help' lists all options", optopt);
	else
		ctl_complain(
			"unknown option '%s', or a value where none belongs; 'readyctl --help' "
			"lists all options",
			argv[optind - 1]);
	return CTL_USAGE;
}

/* For getopt, without the options of that bit: values above 0x100, so that they differ from letters. */
static void make_longs(unsigned without, struct option *ret)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		if (ctl_options[i].bit != without)
			*ret++ = (struct option){
				.name = ctl_options[i].name,
				.has_arg =
					ctl_options[i].argument ? required_argument : no_argument,
				.val = 0x100 + (int)i,
			};
	*ret = (struct option){0};
}

/* Whether the first word that is no option is "take", whose --fd has no argument. */
static bool is_take(int argc, char **argv)
{
	struct option longs[N_OPTIONS + 1];
	bool take = false;
	int found;

	make_longs(CTL_LISTEN, longs);
	opterr = 0;
	do
		found = getopt_long(argc, argv, "+:ht:", longs, NULL);
	while (found >= 0 && found != '?' && found != ':');
	if (found < 0 && optind < argc)
		take = strcmp(argv[optind], "take") == 0;
	optind = 0; /* from the start */
	return take;
}

static int parse_options(struct ctl *ctl, int argc, char **argv)
{
	struct option longs[N_OPTIONS + 1];
	int found, status;

	make_longs(is_take(argc, argv) ? CTL_FD : CTL_LISTEN, longs);
	while ((found = getopt_long(argc, argv, ":ht:", longs, NULL)) >= 0) {
		size_t i = 0;

		if (found == '?' || found == ':')
			return complain_option(found, argv);
		if (found >= 0x100)
			i = (size_t)found - 0x100;
		else
			while (ctl_options[i].letter != found)
				i++;
		ctl->given |= ctl_options[i].bit;
		if (ctl_options[i].argument) {
			status = parse_value(ctl, &ctl_options[i], optarg);
			if (status)
				return status;
		}
	}
	ctl->arguments = argv + optind;
	ctl->n_arguments = argc - optind;
	return CTL_DONE;
}

static int check_usage(const struct ctl *ctl, const struct ctl_verb *verb)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		if (ctl->given & ctl_options[i].bit & ~verb->options) {
			ctl_complain("'%s' takes no --%s; 'readyctl help %s' lists its options",
				     verb->name, ctl_options[i].name, verb->name);
			return CTL_USAGE;
		}
	if ((ctl->given & CTL_SOCKET) && (ctl->given & CTL_PRIVATE)) {
		ctl_complain(
			"--socket and --private exclude each other: the one names a daemon, the "
			"other starts one");
		return CTL_USAGE;
	}
	if (ctl->n_arguments < verb->least || (verb->most >= 0 && ctl->n_arguments > verb->most)) {
		ctl_complain("usage: readyctl %s%s%s", verb->name, *verb->arguments ? " " : "",
			     verb->arguments);
		return CTL_USAGE;
	}
	return CTL_DONE;
}

static unsigned fill_closed_std(void)
{
	unsigned closed = 0;

	for (int fd = 0; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		/* The lowest free number is fd itself. */
		if (open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
			_exit(CTL_FAILED);
		closed |= 1u << fd;
	}
	return closed;
}

int main(int argc, char **argv)
{
	struct ctl ctl = {
		.filter = {.size = sizeof(ctl.filter), .uid = UINT32_MAX},
		.timeout = -1,
		.jobs = 1,
	};
	const struct ctl_verb *verb;
	int status;

	ctl.closed_std = fill_closed_std();
	status = parse_options(&ctl, argc, argv);
	if (status)
		return status;
	if (ctl.given & CTL_VERSION)
		return print_version();
	if (!ctl.n_arguments) {
		if (ctl.given & CTL_HELP)
			return ctl_print_help(NULL);
		ctl_complain("no verb; 'readyctl --help' lists all");
		return CTL_USAGE;
	}
	verb = find_verb(ctl.arguments[0]);
	if (!verb)
		return CTL_USAGE;
	if (ctl.given & CTL_HELP)
		return ctl_print_help(verb);
	ctl.arguments++;
	ctl.n_arguments--;
	ctl.takes = verb->options;
	status = check_usage(&ctl, verb);
	return status ? status : verb->run(&ctl);
}
