/* SPDX-License-Identifier: MIT */

/*
 * systemd passes descriptors from 3 up, each with a name. There is one that readyd knows. Whatever
 * else comes is a mistake in the unit, and is said so instead of being ignored: a socket that nobody
 * serves would look as if somebody did.
 */

#include "activation.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"

#define REMEDY "use readyd.socket as it comes with readyd"

/* One of those that were passed; *socket: the one that was found before, or -1. */
static int check(int fd, const char *name, int socket, char *error, size_t size)
{
	if (strcmp(name, ACTIVATION_NAME) != 0) {
		(void)snprintf(error, size,
			       "systemd passed a descriptor named \"%.64s\", and readyd knows "
			       "only \"" ACTIVATION_NAME "\" (FileDescriptorName=): " REMEDY,
			       name);
		return -EINVAL;
	}
	if (socket >= 0) {
		(void)snprintf(error, size,
			       "systemd passed two sockets named \"" ACTIVATION_NAME
			       "\", and readyd listens on one: " REMEDY);
		return -EINVAL;
	}
	if (sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, NULL, 0) <= 0) {
		(void)snprintf(
			error, size,
			"what systemd passed as \"" ACTIVATION_NAME "\" is no listening "
			"Unix socket of type SOCK_SEQPACKET (ListenSequentialPacket=): " REMEDY);
		return -EPROTOTYPE;
	}
	return 0;
}

int activation_take(int *ret_fd, char *error, size_t error_size)
{
	char **names = NULL;
	CLEANUP_FD int socket = -1;
	int n = sd_listen_fds_with_names(1, &names), r = n < 0 ? n : 0;

	if (n < 0)
		(void)snprintf(error, error_size, "LISTEN_FDS is not what systemd sets: %s",
			       strerror(-n));
	for (int i = 0; i < n; i++) {
		int fd = SD_LISTEN_FDS_START + i;

		if (r == 0)
			r = check(fd, names[i], socket, error, error_size);
		if (r == 0) {
			socket = r = fd_move_up(fd);
			if (r < 0)
				(void)snprintf(error, error_size,
					       "no room for the socket that systemd passed: %s",
					       strerror(-r));
			r = r < 0 ? r : 0;
		} else {
			(void)close(fd);
		}
		free(names[i]);
	}
	free(names);
	if (r < 0 || n <= 0)
		return r;
	*ret_fd = steal_fd(&socket);
	return 1;
}
