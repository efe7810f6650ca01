/* SPDX-License-Identifier: MIT */
#ifndef READYD_LISTENER_H
#define READYD_LISTENER_H

/* The listening socket: its path, its mode, and a stale one that is in its way. */

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "log.h"

struct listener {
	int fd;                                                        /* -1: none */
	char address[sizeof(((struct sockaddr_un *)0)->sun_path) + 2]; /* path, or @name */
	struct sockaddr_un name;
	socklen_t name_length;
	bool bound;   /* the path is ours to remove */
	dev_t device; /* of the path, when it was bound */
	ino_t inode;
};

/*
 * Listens at `path`. A directory that is missing is made if its parent exists. A socket that
 * nobody answers on is replaced; one where somebody does is -EADDRINUSE, and the log names the
 * process. Mode 0660 and group readyd for root where that group exists, else 0600. Every failure
 * is logged. Negative errno.
 */
int listener_open_path(struct listener *l, const char *path, struct log *log);

/* Listens at an abstract address of the kernel's choice. */
int listener_open_private(struct listener *l, struct log *log);

/* Takes over a socket that listens on a path already, and whose path stays with whoever made it.
 * Negative errno, which was logged; fd is closed then. */
int listener_adopt(struct listener *l, int fd, struct log *log);

/* Closes it and removes its path, if that is still its own. */
void listener_close(struct listener *l);

#endif
