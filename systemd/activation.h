/* SPDX-License-Identifier: MIT */
#ifndef READYD_ACTIVATION_H
#define READYD_ACTIVATION_H

/* Socket activation: the listening socket that systemd made, and holds while there is no daemon. */

#include <stddef.h>

#define ACTIVATION_NAME "socket" /* FileDescriptorName= of readyd.socket */

/*
 * Takes what was passed (sd_listen_fds(3)) and cleans the environment. To be called before the
 * landing zone is plugged, in which it comes. 1: *ret_fd is a listening AF_UNIX SOCK_SEQPACKET
 * socket, moved to a lasting number; the caller owns it. 0: nothing was passed. Negative errno:
 * something else was passed; `error` has a line that says what, and nothing is left open.
 */
int activation_take(int *ret_fd, char *error, size_t error_size);

#endif
