/* SPDX-License-Identifier: MIT */
#ifndef READYD_CLOSER_H
#define READYD_CLOSER_H

/*
 * How a holder closes: what would linger, elsewhere. A socket's last close sleeps, where its owner
 * has asked for that (SO_LINGER), until its peer has read all or the time is over; a loop that comes
 * meanwhile would wait for all that this holder has. So a child has such a socket last, and closes
 * it by its exit, which waits for nothing and loses no byte. One thread; the process must have no
 * other children, and have SIGCHLD not ignored.
 */

#include <stddef.h>
#include <stdint.h>

#include "daemon/edge/log.h"

enum {
	CLOSER_CHILDREN_MAX = 32, /* more that have not ended, and it closes by itself */
	CLOSER_FDS_MAX = 253,
};

/* Zeroed, but for uid and log, it is empty. */
struct closer {
	uint32_t uid;
	struct log *log;
	unsigned n_children;
	unsigned n_fds;
	int fds[CLOSER_FDS_MAX]; /* that linger, for one child together */
	struct log_site alone;
};

/* Closes an fd at once, or, if it lingers, with the next closer_flush(); it is the closer's. */
void closer_close(struct closer *c, int fd);

/* Has what lingers closed. To be called before the caller waits for anything. */
void closer_flush(struct closer *c);

/* Takes note of children that have ended. Does not wait. */
void closer_reap(struct closer *c);

/* Closes all fds but these, which are sorted by this, from `first` on. */
void closer_keep_only(unsigned first, int *kept, size_t n);

#endif
