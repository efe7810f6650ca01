/* SPDX-License-Identifier: MIT */
#ifndef READYD_ACTIVATION_H
#define READYD_ACTIVATION_H

/* What systemd passes to a service that it starts: the listening socket that it made and holds
 * while there is no daemon, and what the last daemon left in its fd store. */

#include <stddef.h>

#include "store.h"

#define ACTIVATION_NAME "socket" /* FileDescriptorName= of readyd.socket */

struct activation {
	int socket; /* listens: AF_UNIX, SOCK_SEQPACKET; -1: none was passed */
	struct store_entry *depots;
	size_t n_depots;
	size_t n_strange; /* entries of the store with other names: closed, and removed there */
	char strange[72]; /* the first one's */
};

/*
 * Takes what was passed (sd_listen_fds(3)) and cleans the environment. To be called before the
 * landing zone is plugged, in which it comes. 0: all fds of *ret are moved to lasting numbers, and
 * are the caller's, as is the list, to free. Negative errno: the unit passes what it should not, or
 * there is no room; `error` has a line that says what, and nothing is left open. Strange names are
 * that, too, unless there are depots: then they are not worth losing these.
 */
int activation_take(struct activation *ret, char *error, size_t error_size);

#endif
