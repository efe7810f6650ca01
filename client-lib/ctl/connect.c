/* SPDX-License-Identifier: MIT */
#include "ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "text.h"

/*
 * The way to a daemon, and what to say when there is none.
 *
 * The library searches: --socket, else $READYD_SOCKET, else the user's own and the system's socket.
 * When nobody answers, the sentence here names all that were tried, since the usual fault is that
 * one of them was not what the person had in mind. A socket that may not be opened is another
 * matter: the library's sentence names the group and the command.
 */

#define GIVE_UP_NS INT64_C(30000000000)

int64_t ctl_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t ctl_age(int64_t since)
{
	int64_t age = ctl_now() - since;

	return age < 0 ? 0 : age;
}

void ctl_complain(const char *format, ...)
{
	ctl_string *text = NULL, *escaped = NULL;
	va_list arguments;

	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	if (text)
		escaped = text_escape(text, false);
	fprintf(stderr, "readyctl: %s\n", escaped ? escaped : "out of memory");
}

static int connect_daemon(const struct ctl *ctl, struct readyd **ret, char **ret_sentence)
{
	struct readyd_options options = {
		.size = sizeof(options),
		.socket = ctl->socket,
		/* A person is waiting: an end is to be told, not to be sat out. */
		.flags = (ctl->resume ? 0 : READYD_NO_RESUME) |
			 (ctl->given & CTL_PRIVATE ? READYD_PRIVATE_IF_NEEDED : 0u),
		.give_up = ctl->resume && !ctl->patient ? GIVE_UP_NS : 0,
	};

	return readyd_connect(&options, ret, ret_sentence);
}

int ctl_try_connect(const struct ctl *ctl, struct readyd **ret)
{
	return connect_daemon(ctl, ret, NULL);
}

/*
 * The advice must work when it is followed: a daemon on the default path does not help who named
 * another one, --private not who set $READYD_SOCKET, nor a verb that does not take it, nor who parks:
 * nobody else finds that daemon, and it ends in 10 s.
 */
static void complain_no_daemon(const struct ctl *ctl)
{
	const char *alone =
		ctl->takes & CTL_PRIVATE && !(ctl->takes & CTL_FD)
			? ", or let readyctl do it for this user alone: 'readyctl --private'"
			: "";
	const char *named = secure_getenv("READYD_SOCKET");
	const char *runtime = secure_getenv("XDG_RUNTIME_DIR");

	if (ctl->socket && ctl->socket[0] == '@')
		ctl_complain("no daemon answers on %s; a private daemon that had this address has "
			     "ended: leave out --socket to look for others",
			     ctl->socket);
	else if (ctl->socket)
		ctl_complain(
			"no daemon answers on %s; start one there with 'readyd --socket %s', or "
			"leave out --socket to look for others",
			ctl->socket, ctl->socket);
	else if (named && named[0] == '@')
		ctl_complain(
			"no daemon answers on %s, which $READYD_SOCKET names; a private daemon "
			"that had this address has ended: unset it",
			named);
	else if (named && *named)
		ctl_complain(
			"no daemon answers on %s, which $READYD_SOCKET names; unset it, or start "
			"one there with 'readyd --socket %s'",
			named, named);
	else if (runtime && *runtime)
		ctl_complain("no daemon answers (tried %s/readyd/socket and /run/readyd/socket); "
			     "start one with 'readyd'%s",
			     runtime, alone);
	else
		ctl_complain("no daemon answers (tried /run/readyd/socket; $XDG_RUNTIME_DIR is not "
			     "set); start one with 'readyd'%s",
			     alone);
}

int ctl_connect(const struct ctl *ctl, struct readyd **ret)
{
	ctl_string *sentence = NULL;
	int error;

	error = connect_daemon(ctl, ret, &sentence);
	switch (error) {
	case 0:
		return CTL_DONE;
	case -ENOENT:
	case -ECONNREFUSED:
		/* With --private it is the start of a daemon that failed, and the library knows why. */
		if (ctl->given & CTL_PRIVATE && sentence)
			ctl_complain("%s", sentence);
		else
			complain_no_daemon(ctl);
		return CTL_NO_DAEMON;
	case -EACCES:
	case -EPERM:
	case -EDQUOT:
		ctl_complain("%s", sentence ? sentence : "the daemon refuses the connection");
		return CTL_REFUSED;
	default:
		ctl_complain("%s", sentence ? sentence : strerror(-error));
		return CTL_FAILED;
	}
}

int ctl_request_failed(struct readyd *r, int error)
{
	ctl_complain("%s", readyd_last_error(r));
	switch (error) {
	case -ENOENT:
	case -EACCES:
	case -EPERM:
	case -EDQUOT:
		return CTL_REFUSED;
	default:
		return CTL_FAILED;
	}
}
