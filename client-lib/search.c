/* SPDX-License-Identifier: MIT */

/*
 * Where a daemon may listen, and what to tell a person when none can be reached.
 *
 * Order: $READYD_SOCKET, whose failure is an error; else $XDG_RUNTIME_DIR/readyd/socket and
 * /run/readyd/socket. Set-uid programs ignore the environment (secure_getenv). "@name" is an
 * address of the abstract name space.
 *
 * Kernel behaviour: connect() on AF_UNIX waits while the listener's backlog is full, for
 * SO_SNDTIMEO at most (then EAGAIN); interrupted by a signal it has done nothing and is repeated.
 */

#include "internal.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SYSTEM_SOCKET "/run/readyd/socket"

enum { CONNECT_SECONDS = 5 };

const char *rd_search(unsigned i, char *buffer, size_t size, bool *ret_only)
{
	const char *directory = secure_getenv("XDG_RUNTIME_DIR");
	const char *only = secure_getenv("READYD_SOCKET");

	*ret_only = only && *only;
	if (*ret_only)
		return i == 0 ? only : NULL;
	if (directory && directory[0] == '/') {
		int n = snprintf(buffer, size, "%s/readyd/socket", directory);

		if (n > 0 && (size_t)n < size) {
			if (i == 0)
				return buffer;
			i--;
		}
	}
	return i == 0 ? SYSTEM_SOCKET : NULL;
}

/* What to do about EACCES on a socket's path. */
static void explain_access(const char *path, char *ret_text, size_t size)
{
	struct group group_room, *group = NULL;
	struct passwd user_room, *user = NULL;
	char group_strings[4096], user_strings[4096], number[24];
	const char *group_name = number;
	struct stat st;

	if (stat(path, &st) < 0) {
		(void)snprintf(ret_text, size,
			       "%s: no permission to enter its directory; ask the administrator",
			       path);
		return;
	}
	(void)snprintf(number, sizeof(number), "%u", (unsigned)st.st_gid);
	if (getgrgid_r(st.st_gid, &group_room, group_strings, sizeof(group_strings), &group) == 0 &&
	    group)
		group_name = group->gr_name;
	(void)getpwuid_r(geteuid(), &user_room, user_strings, sizeof(user_strings), &user);
	if (!(st.st_mode & S_IWGRP)) {
		(void)snprintf(ret_text, size,
			       "%s: no permission; only its owner (uid %u) may use it", path,
			       (unsigned)st.st_uid);
		return;
	}
	(void)snprintf(ret_text, size,
		       "%s: no permission; it is for members of group %s: "
		       "`sudo usermod -aG %s %s`, then log in again",
		       path, group_name, group_name, user ? user->pw_name : "USER");
}

/* The socket address of a path or an abstract name. 0 or -ENAMETOOLONG. */
static int address_make(const char *address, struct sockaddr_un *ret, socklen_t *ret_length)
{
	size_t n = strlen(address);

	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	if (n == 0 || n >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	memcpy(ret->sun_path, address, n);
	*ret_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
	if (address[0] == '@') {
		ret->sun_path[0] = '\0';
		*ret_length -= 1; /* the zero at the end would be part of the name */
	}
	return 0;
}

int rd_socket_try(const char *address, int *ret)
{
	RD_CLEANUP_FD int fd = -1;
	struct sockaddr_un name;
	socklen_t length;
	int error = address_make(address, &name, &length);

	if (error)
		return error;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&name, length) < 0)
		return -errno;
	*ret = fd;
	fd = -1;
	return 0;
}

int rd_socket_open(const char *address, int *ret, char *ret_text, size_t size)
{
	const struct timeval limit = {.tv_sec = CONNECT_SECONDS};
	RD_CLEANUP_FD int fd = -1;
	struct sockaddr_un name;
	socklen_t length;
	int error;

	if (address_make(address, &name, &length) < 0) {
		(void)snprintf(ret_text, size, "%s: not a socket's path or @name of 1 to %zu bytes",
			       address, sizeof(name.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		error = errno;
		(void)snprintf(ret_text, size, "cannot make a socket: %s", strerror(error));
		return -error;
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	do
		error = connect(fd, (const struct sockaddr *)&name, length) < 0 ? errno : 0;
	while (error == EINTR);
	switch (error) {
	case 0:
		*ret = fd;
		fd = -1;
		return 0;
	case EACCES:
	case EPERM:
		if (address[0] == '@')
			(void)snprintf(ret_text, size, "%s: no permission", address);
		else
			explain_access(address, ret_text, size);
		return -EACCES;
	case EAGAIN:
		(void)snprintf(ret_text, size, "%s: the daemon accepts no connection", address);
		return -ETIMEDOUT;
	case EPROTOTYPE:
	case ENOTSOCK:
		(void)snprintf(ret_text, size, "%s: not a readyd: %s", address, strerror(error));
		return -EPROTO;
	}
	(void)snprintf(ret_text, size, "%s: %s", address, strerror(error));
	return -error;
}
