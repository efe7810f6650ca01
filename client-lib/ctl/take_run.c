/* SPDX-License-Identifier: MIT */
#include "address.h"
#include "take.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * COMMAND of take: what was taken becomes its stdin and stdout, or, with --fd, the fd 3 that systemd's
 * sd_listen_fds(3) looks for. Nothing but that fd and the first three is inherited.
 *
 * COMMAND is looked for before anything is taken: where it is not there, nothing has happened. After
 * that only a program that the kernel cannot run is left to fail, and then the fd is closed.
 */

enum { LISTEN_FD = 3 };

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

int take_check(const char *command)
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

static bool variable_set(const char *name, const char *value)
{
	return (value ? setenv(name, value, 1) : unsetenv(name)) == 0;
}

/* LISTEN_... as systemd has it, or nothing of the kind, if readyctl was started with it. */
static bool environment_set(const struct ctl *ctl, const struct readyd_taken *t)
{
	bool listens = ctl->given & CTL_LISTEN, late = (t->read | t->write) & READYD_TIMEOUT;
	char park[24], pid[24], peer[ADDRESS_TEXT_MAX];

	snprintf(park, sizeof(park), "%llu", (unsigned long long)t->park);
	snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	address_text(t->peer, t->peer_length, peer);
	return variable_set("READYD_PARK", park) && variable_set("READYD_NAME", t->name) &&
	       variable_set("READYD_GROUP", t->group) && variable_set("READYD_NOTE", t->note) &&
	       variable_set("READYD_PEER", peer) &&
	       variable_set("READYD_TIMEOUT", late ? "1" : "") &&
	       variable_set("LISTEN_FDS", listens ? "1" : NULL) &&
	       variable_set("LISTEN_PID", listens ? pid : NULL) &&
	       variable_set("LISTEN_FDNAMES", NULL);
}

/* The fd to its place, and all others but the first three away. false: errno says why. */
static bool fds_set(const struct ctl *ctl, int fd)
{
	if (!(ctl->given & CTL_LISTEN))
		/* It may be 0 or 1 itself only if these were closed, which main() sees to. */
		return dup2(fd, STDIN_FILENO) >= 0 && dup2(fd, STDOUT_FILENO) >= 0 &&
		       close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC) == 0;
	if (fd == LISTEN_FD ? fcntl(fd, F_SETFD, 0) < 0 : dup2(fd, LISTEN_FD) < 0)
		return false;
	return close_range(LISTEN_FD + 1, ~0u, CLOSE_RANGE_CLOEXEC) == 0;
}

int take_exec(const struct ctl *ctl, const struct readyd_taken *t, char **command)
{
	int error;

	if (!environment_set(ctl, t)) {
		ctl_complain("out of memory");
		return CTL_NOT_RUN;
	}
	if (!fds_set(ctl, t->fd)) {
		ctl_complain("the fd cannot be passed on: %s", strerror(errno));
		return CTL_NOT_RUN;
	}
	(void)execvp(command[0], command);
	error = errno;
	ctl_complain("'%s' cannot be run: %s; the fd that was taken is closed", command[0],
		     strerror(error));
	return error == ENOENT ? CTL_NOT_A_COMMAND : CTL_NOT_EXECUTABLE;
}
