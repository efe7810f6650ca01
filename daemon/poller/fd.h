/* SPDX-License-Identifier: MIT */
#ifndef READYD_FD_H
#define READYD_FD_H

/*
 * The fd table's layout: 0 to 2 standard, 3 to 255 the *landing zone* for received fds and nothing
 * else, every lasting fd of the daemon from 256 up. A received fd then lands in the zone by itself
 * and is watched under the number where it landed: its lane.
 */

#include <stdbool.h>
#include <stdint.h>

enum {
	FD_ZONE_FIRST = 3,
	FD_ZONE_LAST = 255,
	FD_LASTING = 256,
};

/*
 * Moves a new fd to FD_LASTING or above, close-on-exec, and closes the old number; an fd that is
 * there already is returned as it is. Returns the number, or a negative errno (-EMFILE), the old
 * number being closed in either case.
 */
int fd_move_up(int fd);

/*
 * Fills every free number of the zone (and 0 to 2, where closed) with copies of /dev/null, so that
 * whatever a library opens meanwhile is a lasting fd; unplug frees the zone again. 0 or negative
 * errno. Used at start and while a configuration is read anew.
 */
int fd_zone_plug(void);
void fd_zone_unplug(void);

/* How many fds are open outside of the zone, among the first `max`, at most 4096. */
uint64_t fd_count_lasting(uint64_t max);

/* 1 if both numbers are copies of one open file description, 0 if not, or negative errno:
 * fcntl(F_DUPFD_QUERY), before Linux 6.10 kcmp(KCMP_FILE). Lock-free: safe on any client's fd. */
int fd_same_description(int a, int b);

/* -1, 0 or 1: an order of open file descriptions, in which 0 means one and the same; or
 * FD_CANNOT_COMPARE: this kernel does not tell, or may not. By kcmp(KCMP_FILE); lock-free. */
enum { FD_CANNOT_COMPARE = 2 };
int fd_compare_descriptions(int a, int b);

#endif
