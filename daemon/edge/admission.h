/* SPDX-License-Identifier: MIT */
#ifndef READYD_ADMISSION_H
#define READYD_ADMISSION_H

/*
 * What a received fd is, and whether it may be watched. Only lock-free calls are made on it
 * (getsockopt SO_DOMAIN and SO_TYPE, readlink of /proc/self/fd, statx with AT_STATX_DONT_SYNC;
 * getsockname and getpeername once the family is known to be AF_UNIX): its owner can hold the
 * file's lock for as long as it likes, and anything else could then stop the loop.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/poller/poller.h"
#include "protocol/wire.h"

struct admission {
	struct poller *poller;
	struct sockaddr_un address; /* of the listener: what its connections are known by */
	socklen_t address_length;
	int own_event;  /* eventfd that wakes the keeper; -1 */
	int own_socket; /* this end of the channel to the keeper; -1 */
	bool compared;  /* in this datagram an epoll was compared with those of all sessions */
};

/* How the owner of an fd is seen. */
struct admission_rights {
	bool ttys; /* may watch ttys, other sockets and other character devices */
};

/*
 * Looks at fd. Returns WIRE_OK and *ret_kind; or why it is refused: WIRE_E_KIND,
 * WIRE_E_NOT_POLLABLE (regular files and what epoll says EPERM to), WIRE_E_POLL_DESCRIPTOR (the
 * daemon's own, or a connection to it). *ret_kind is set in every case.
 */
enum wire_error admission_check(struct admission *a, const struct admission_rights *rights, int fd,
				enum wire_kind *ret_kind);

/*
 * Whether fd is a socket of which admission_check() says WIRE_OK to everybody: of a plain family,
 * and none that could be the daemon's own. For a holder, which has no poller to compare with.
 */
bool admission_is_plain(int fd, enum wire_kind *ret_kind);

/* A new datagram is looked at. */
void admission_begin(struct admission *a);

/*
 * 1 if fd is one of the daemon's own descriptions, or an end of a connection to it; else 0. -EBUSY:
 * an epoll, and there was one in this datagram already: comparing costs a system call a session.
 */
int admission_is_own(struct admission *a, int fd);

#endif
