/* SPDX-License-Identifier: MIT */
#ifndef READYD_LANDING_H
#define READYD_LANDING_H

/*
 * The fds that came with one datagram, in the landing zone (fd.h). They are taken in order by the
 * records that carry one, watched under the number where they landed or on another lane, brought
 * onto the lane of an old watch, and closed all together before anything is answered.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "daemon/poller/poller.h"
#include "protocol/wire.h"

enum { LANDING_TRIES = 512 }; /* of EPOLL_CTL_ADD on other lanes, a datagram */

struct landing {
	int fds[WIRE_FDS_MAX]; /* -1: given away or lost */
	unsigned n;
	unsigned next;  /* the first that no record took */
	unsigned tries; /* on other lanes */
	bool truncated; /* the kernel had to drop some (MSG_CTRUNC) */
};

/* Collects the fds of a received message; all SCM_RIGHTS blocks. */
void landing_init(struct landing *l, struct msghdr *message);

/* Closes all that is left; the zone is empty again. */
void landing_clear(struct landing *l);

/*
 * The next fd, for a record that takes one; it stays the landing's to close. -EMFILE or -EBADF
 * when there is none: lost by the kernel, or never sent.
 */
int landing_take(struct landing *l);

/*
 * Watches a taken fd with the poller. On -EEXIST, this description sitting on that number already,
 * takes the next free lane, starting at *hint, which is moved on; -EEXIST when the tries are used
 * up. Else as poller_open(). Weak pollers only need lanes; others never say EEXIST.
 */
int landing_watch(struct landing *l, int fd, struct poller *p, struct poller_set *set, uint64_t tag,
		  unsigned interest, uint8_t *hint, uint32_t *ret_word);

/* Ends the registration of a watch whose fd was sent again and taken, with a weak poller: brings it
 * onto the watch's lane first. -ENOENT: not the watched fd. -EMFILE. */
int landing_unwatch(struct landing *l, int fd, struct poller *p, struct poller_set *set,
		    uint64_t tag, uint32_t word);

#endif
