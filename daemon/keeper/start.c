/* SPDX-License-Identifier: MIT */
#include "start.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"

/*
 * With and without a keeper the daemon starts the same way: the configuration is read, then the
 * socket listens, then somebody serves it, then the starter is told. Whatever fails is said to both
 * the log and the starter. All of it runs while the landing zone is plugged, so what is opened here
 * is a lasting fd.
 */

bool start_has_identity_map(void)
{
	unsigned long inside, outside, count;
	FILE *f = fopen("/proc/self/uid_map", "re");
	bool identity;

	if (!f)
		return true; /* a kernel without user namespaces */
	identity = fscanf(f, "%lu %lu %lu", &inside, &outside, &count) == 3 && inside == 0 &&
		   outside == 0 && count == UINT32_MAX;
	(void)fclose(f);
	return identity;
}

int start_open_starter(void)
{
	const char *text = secure_getenv("READYD_STARTER");
	pid_t pid = text ? (pid_t)strtol(text, NULL, 10) : getppid();
	int fd;

	if (pid <= 1)
		return -1;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0 || (!text && getppid() != pid)) { /* gone: another adopted us */
		if (fd >= 0)
			(void)close(fd);
		return -1;
	}
	return fd_move_up(fd);
}

int start_take_ready_fd(int number)
{
	int fd;

	if (number < 0)
		return -1;
	fd = fcntl(number, F_DUPFD_CLOEXEC, FD_LASTING);
	if (fd < 0)
		return errno == EBADF ? -EBADF : -EMFILE;
	if (number > STDERR_FILENO)
		(void)close(number);
	return fd;
}

void start_tell(int *fd, const char *before, const char *text)
{
	if (*fd < 0)
		return;
	(void)dprintf(*fd, "%s%s\n", before, text);
	(void)close(steal_fd(fd));
}

/* Where clients look for the daemon of this user. NULL: nowhere. The caller frees it. */
static char *default_socket(void)
{
	const char *runtime = geteuid() == 0 ? "/run" : secure_getenv("XDG_RUNTIME_DIR");
	char *path;

	if (!runtime || runtime[0] != '/' || asprintf(&path, "%s/readyd/socket", runtime) < 0)
		return NULL;
	return path;
}

/* Who is let in by the configuration may still not be able to open the socket. */
static void warn_of_mode(const char *path, const struct config *config, struct log *log)
{
	struct stat st;

	if ((config->trusted.n == 0 && config->connect.n == 0) || stat(path, &st) < 0 ||
	    (st.st_mode & 077) != 0)
		return;
	log_warning(log,
		    "`trusted` and `connect` name users, but only uid %u can open %s: make a group "
		    "readyd (groupadd --system readyd), add the users to it (usermod -aG readyd "
		    "USER), and start readyd again as root",
		    (unsigned)st.st_uid, path);
}

/* systemd has the say where it listens. */
static int adopt(const struct options *options, const struct config *config, struct log *log,
		 struct listener *ret)
{
	const char *other = options->socket ? options->socket : config->socket;
	int r = listener_adopt(ret, options->passed_socket, log);

	if (r == 0 && other && strcmp(other, ret->address) != 0)
		log_warning(log,
			    "systemd passed the listening socket %s, so %s is not used: change "
			    "ListenSequentialPacket= of readyd.socket",
			    ret->address, other);
	return r;
}

int start_listen(const struct options *options, const struct config *config, struct log *log,
		 struct listener *ret)
{
	CLEANUP_MEMORY char *standard = default_socket();
	const char *path = standard;

	if (options->private_)
		return listener_open_private(ret, log);
	if (options->passed_socket >= 0)
		return adopt(options, config, log, ret);
	if (options->socket)
		path = options->socket;
	else if (config->socket)
		path = config->socket;
	if (path) {
		int r = listener_open_path(ret, path, log);

		if (r == 0)
			warn_of_mode(path, config, log);
		return r;
	}
	log_error(log, "where to listen? XDG_RUNTIME_DIR is not set: use --socket PATH or "
		       "--private");
	return -EINVAL;
}

enum exit_status start_load(const struct options *options, int *ready_fd, struct log *log,
			    struct settings *ret)
{
	CLEANUP_MEMORY char *first = NULL;
	int r = settings_load(options, log, ret, &first);

	if (r < 0 && options->n_depots > 0) {
		log_error(log,
			  "systemd keeps parked connections for this daemon: it starts with the "
			  "default settings. Correct the file, then reload");
		r = settings_parse(options, NULL, 0, log, ret);
	}
	if (r < 0) {
		start_tell(ready_fd, "ERROR=", first ? first : strerror(-r));
		return STATUS_CONFIG;
	}
	settings_apply_level(options, &ret->config, log);
	return STATUS_OK;
}
