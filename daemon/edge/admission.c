/* SPDX-License-Identifier: MIT */
#include "admission.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/major.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "daemon/poller/fd.h"

/*
 * One getsockopt() tells sockets and their family; for the rest one readlink() of /proc/self/fd
 * names the file. A path cannot imitate the kernel's own names ("anon_inode:[eventfd]",
 * "pipe:[12]"), since a file that can be reached has a name that starts with "/". Files with a
 * path are told apart by statx() without asking their file system.
 *
 * An O_PATH fd answers EBADF to getsockopt(): it cannot be polled, and is no fault of ours.
 */

/* A name that the kernel gives to files without a path. */
struct anonymous {
	const char *name;
	bool prefix;
	enum wire_kind kind;
};

static const struct anonymous anonymous_files[] = {
	{"pipe:[", true, WIRE_KIND_PIPE},
	{"anon_inode:[eventfd]", false, WIRE_KIND_EVENTFD},
	{"anon_inode:[timerfd]", false, WIRE_KIND_TIMERFD},
	{"anon_inode:[pidfd]", false, WIRE_KIND_PIDFD},
	{"pidfd:[", true, WIRE_KIND_PIDFD},
	{"anon_inode:inotify", false, WIRE_KIND_INOTIFY},
	{"anon_inode:[eventpoll]", false, WIRE_KIND_EPOLL},
	{"anon_inode:[signalfd]", false, WIRE_KIND_SIGNALFD},
};

static enum wire_kind kind_of_anonymous(const char *name)
{
	for (size_t i = 0; i < sizeof(anonymous_files) / sizeof(anonymous_files[0]); i++) {
		const struct anonymous *a = &anonymous_files[i];
		bool same = a->prefix ? strncmp(name, a->name, strlen(a->name)) == 0
				      : strcmp(name, a->name) == 0;

		if (same)
			return a->kind;
	}
	return WIRE_KIND_UNKNOWN;
}

static enum wire_kind kind_of_character(unsigned major_number, unsigned minor_number)
{
	/* null, zero, full, urandom: as unpollable as a file (the other one, random, is not) */
	if (major_number == MEM_MAJOR && minor_number != 8)
		return WIRE_KIND_FILE;
	if (major_number == TTY_MAJOR || major_number == TTYAUX_MAJOR ||
	    (major_number >= UNIX98_PTY_MASTER_MAJOR &&
	     major_number < UNIX98_PTY_SLAVE_MAJOR + UNIX98_PTY_MAJOR_COUNT))
		return WIRE_KIND_TTY;
	return WIRE_KIND_CHARACTER;
}

static enum wire_kind kind_of_path(int fd)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st) < 0)
		return WIRE_KIND_UNKNOWN;
	switch (st.stx_mode & S_IFMT) {
	case S_IFIFO:
		return WIRE_KIND_PIPE;
	case S_IFCHR:
		return kind_of_character(st.stx_rdev_major, st.stx_rdev_minor);
	default:
		return WIRE_KIND_FILE;
	}
}

static enum wire_kind kind_of_file(int fd)
{
	char path[32], name[64];
	ssize_t length;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	length = readlink(path, name, sizeof(name) - 1);
	if (length <= 0)
		return WIRE_KIND_UNKNOWN;
	name[length] = '\0';
	return name[0] == '/' ? kind_of_path(fd) : kind_of_anonymous(name);
}

static enum wire_kind kind_of_family(int family)
{
	switch (family) {
	case AF_UNIX:
		return WIRE_KIND_UNIX;
	case AF_INET:
		return WIRE_KIND_INET;
	case AF_INET6:
		return WIRE_KIND_INET6;
	case AF_NETLINK:
		return WIRE_KIND_NETLINK;
	default:
		return WIRE_KIND_SOCKET;
	}
}

static enum wire_kind kind_of(int fd)
{
	int family;
	socklen_t length = sizeof(family);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) == 0)
		return kind_of_family(family);
	return errno == EBADF ? WIRE_KIND_FILE : kind_of_file(fd);
}

bool admission_is_plain(int fd, enum wire_kind *ret_kind)
{
	int family, type;
	socklen_t length = sizeof(family);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) < 0)
		return false;
	*ret_kind = kind_of_family(family);
	length = sizeof(type);
	if (*ret_kind == WIRE_KIND_UNIX)
		return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 &&
		       type != SOCK_SEQPACKET;
	return *ret_kind != WIRE_KIND_SOCKET;
}

static bool same_address(const struct admission *a, const struct sockaddr_un *address,
			 socklen_t length)
{
	return length == a->address_length && length > sizeof(sa_family_t) &&
	       memcmp(address, &a->address, length) == 0;
}

/* A listener of ours, or either end of a connection to one: known by the address. Or the channel to
 * the keeper, which has none. */
static bool is_own_socket(const struct admission *a, int fd)
{
	struct sockaddr_un address;
	socklen_t length;
	int type;

	length = sizeof(type);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_SEQPACKET)
		return false;
	if (a->own_socket >= 0 && fd_same_description(fd, a->own_socket) > 0)
		return true;
	length = sizeof(address);
	if (getsockname(fd, (struct sockaddr *)&address, &length) == 0 &&
	    same_address(a, &address, length))
		return true;
	length = sizeof(address);
	return getpeername(fd, (struct sockaddr *)&address, &length) == 0 &&
	       same_address(a, &address, length);
}

/* An epoll is compared with those of all sessions, so only one in a datagram is. */
static bool is_own_epoll(struct admission *a, int fd)
{
	if (a->compared)
		return poller_is_central(a->poller, fd) > 0;
	a->compared = true;
	return poller_is_poll_descriptor(a->poller, fd) > 0;
}

static bool is_own(struct admission *a, int fd, enum wire_kind kind)
{
	switch (kind) {
	case WIRE_KIND_UNIX:
		return is_own_socket(a, fd);
	case WIRE_KIND_EVENTFD:
		if (a->own_event >= 0 && fd_same_description(fd, a->own_event) > 0)
			return true;
		return poller_is_central(a->poller, fd) > 0; /* no session's epoll is one */
	case WIRE_KIND_PIPE:
		return poller_is_central(a->poller, fd) > 0;
	case WIRE_KIND_EPOLL:
		return is_own_epoll(a, fd);
	default:
		return false;
	}
}

void admission_begin(struct admission *a)
{
	a->compared = false;
}

int admission_is_own(struct admission *a, int fd)
{
	enum wire_kind kind = kind_of(fd);

	if (kind == WIRE_KIND_EPOLL && a->compared)
		return -EBUSY;
	return is_own(a, fd, kind);
}

enum wire_error admission_check(struct admission *a, const struct admission_rights *rights, int fd,
				enum wire_kind *ret_kind)
{
	enum wire_kind kind = kind_of(fd);

	*ret_kind = kind;
	if (is_own(a, fd, kind))
		return WIRE_E_POLL_DESCRIPTOR;
	switch (kind) {
	case WIRE_KIND_UNIX:
	case WIRE_KIND_INET:
	case WIRE_KIND_INET6:
	case WIRE_KIND_NETLINK:
	case WIRE_KIND_PIPE:
	case WIRE_KIND_EVENTFD:
	case WIRE_KIND_TIMERFD:
	case WIRE_KIND_PIDFD:
	case WIRE_KIND_INOTIFY:
		return WIRE_OK;
	case WIRE_KIND_TTY:
	case WIRE_KIND_SOCKET:
	case WIRE_KIND_CHARACTER:
		return rights->ttys ? WIRE_OK : WIRE_E_KIND;
	case WIRE_KIND_FILE:
		return WIRE_E_NOT_POLLABLE;
	default:
		return WIRE_E_KIND;
	}
}
