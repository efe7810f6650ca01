/* SPDX-License-Identifier: MIT */
#include "address.h"
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * take: a parked fd becomes stdin and stdout of COMMAND, which takes readyctl's place: its status is
 * that of COMMAND, as with env(1). Nothing but that fd and stderr is inherited.
 *
 * COMMAND is looked for before the fd is taken: where it is not there, nothing has happened. After
 * that only a program that the kernel cannot run is left to fail, and then the fd is closed.
 */

/* In the folders of $PATH. 0, or the status. */
static int command_search(const char *command)
{
	const char *path = getenv("PATH"), *end;
	int status = CTL_NOT_A_COMMAND;
	char file[4096];

	for (path = path ? path : "/bin:/usr/bin";; path = end + 1) {
		end = strchrnul(path, ':');
		snprintf(file, sizeof(file), "%.*s%s%s", (int)(end - path), path,
			 end > path ? "/" : "", command);
		if (access(file, X_OK) == 0)
			return CTL_DONE;
		if (errno == EACCES)
			status = CTL_NOT_EXECUTABLE;
		if (!*end)
			return status;
	}
}

/* 0, or the status: whether execvp() would find it. */
static int command_check(const char *command)
{
	int status = CTL_DONE;

	if (!strchr(command, '/'))
		status = command_search(command);
	else if (access(command, X_OK) < 0)
		status = errno == ENOENT || errno == ENOTDIR ? CTL_NOT_A_COMMAND
							     : CTL_NOT_EXECUTABLE;
	if (status)
		ctl_complain("'%s' cannot be run: %s; nothing was taken", command,
			     strerror(status == CTL_NOT_A_COMMAND ? ENOENT : EACCES));
	return status;
}

static bool environment_set(const struct readyd_taken *t)
{
	char park[24], peer[ADDRESS_TEXT_MAX];

	snprintf(park, sizeof(park), "%llu", (unsigned long long)t->park);
	address_text(t->peer, t->peer_length, peer);
	return setenv("READYD_PARK", park, 1) == 0 && setenv("READYD_NAME", t->name, 1) == 0 &&
	       setenv("READYD_GROUP", t->group, 1) == 0 && setenv("READYD_NOTE", t->note, 1) == 0 &&
	       setenv("READYD_PEER", peer, 1) == 0;
}

/* Comes back only if it failed. */
static int run(const struct readyd_taken *t, char **command)
{
	int error;

	if (!environment_set(t)) {
		ctl_complain("out of memory");
		return CTL_NOT_RUN;
	}
	/* It may be 0 or 1 itself only if these were closed, which main() sees to. */
	if (dup2(t->fd, STDIN_FILENO) < 0 || dup2(t->fd, STDOUT_FILENO) < 0 ||
	    close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC) < 0) {
		ctl_complain("the fd cannot be passed on: %s", strerror(errno));
		return CTL_NOT_RUN;
	}
	(void)execvp(command[0], command);
	error = errno;
	ctl_complain("'%s' cannot be run: %s; the fd that was taken is closed", command[0],
		     strerror(error));
	return error == ENOENT ? CTL_NOT_A_COMMAND : CTL_NOT_EXECUTABLE;
}

int command_take(const struct ctl *ctl)
{
	struct readyd_taken taken = {.size = sizeof(taken)};
	struct readyd_park_key key;
	struct ctl here = *ctl;
	struct readyd *r = NULL;
	bool used;
	int status = ctl_park_key(ctl, &key, &used);

	if (status)
		return status;
	if (ctl->n_arguments == used) {
		ctl_complain("usage: readyctl take ID|--name NAME [--group GROUP] [--] COMMAND...");
		return CTL_USAGE;
	}
	status = command_check(ctl->arguments[used]);
	if (status)
		return status;
	here.resume = true;
	if (ctl_connect(&here, &r))
		return CTL_NOT_RUN;
	if (readyd_take(r, &key, &taken) < 0) {
		ctl_complain("%s", readyd_last_error(r));
		readyd_close(r);
		return CTL_NOT_RUN;
	}
	readyd_close(r);
	status = run(&taken, ctl->arguments + used);
	readyd_taken_clear(&taken);
	return status;
}
