/* SPDX-License-Identifier: MIT */
#ifndef READYD_KEPT_OUT_H
#define READYD_KEPT_OUT_H

/* Processes that may not connect for a while, since serving them ended the loop twice. Their start
 * time tells them from others that get the same pid later. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { KEPT_OUT_MAX = 16 };

struct kept_out {
	uid_t uid;
	pid_t pid;
	uint64_t start; /* process_start_time(); 0: unknown, then uid and pid are enough */
	int64_t until;  /* CLOCK_MONOTONIC, ns */
};

struct kept_out_list {
	struct kept_out items[KEPT_OUT_MAX];
	unsigned n;
};

/* The entry of this process that still holds at `now`, or NULL. */
const struct kept_out *kept_out_find(const struct kept_out_list *list, uid_t uid, pid_t pid,
				     int64_t now);

/* Of a running process, in ticks since boot; 0 when it cannot be known. */
uint64_t process_start_time(pid_t pid);

#endif
