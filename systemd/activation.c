/* SPDX-License-Identifier: MIT */

/*
 * systemd passes descriptors from 3 up, each with a name: that of the listening socket, and those
 * of depots (store.h). Whatever else comes is a mistake in the unit, and is said so instead of being
 * ignored: a socket that nobody serves would look as if somebody did.
 *
 * What comes out of the store comes in any order, and behind the sockets.
 */

#include "activation.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"

#define REMEDY "use readyd.socket as it comes with readyd"

/* One that is no depot; *socket: the one that was found before, or -1. */
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

/* Out of the zone. */
static int move_up(int fd, char *error, size_t size)
{
	fd = fd_move_up(fd);
	if (fd < 0)
		(void)snprintf(error, size, "no room for what systemd passed: %s", strerror(-fd));
	return fd;
}

static void drop_strange(struct activation *a, int fd, const char *name)
{
	struct store store = {0};

	if (a->n_strange++ == 0)
		(void)snprintf(a->strange, sizeof(a->strange), "%.64s", name);
	(void)close(fd);
	if (store_open(&store, 0) == 0) /* no time to wait: it comes again, and is said again */
		(void)store_remove(&store, name);
	store_close(&store);
}

/* Takes over or closes fd. */
static int take(struct activation *a, int fd, const char *name, bool strict, char *error,
		size_t size)
{
	struct store_entry entry = {0};
	bool known = strcmp(name, ACTIVATION_NAME) == 0;
	int r;

	if (store_parse_name(name, &entry.uid, &entry.serial)) {
		entry.fd = r = move_up(fd, error, size);
		if (r >= 0)
			a->depots[a->n_depots++] = entry;
		return r < 0 ? r : 0;
	}
	if (!known && !strict) {
		drop_strange(a, fd, name);
		return 0;
	}
	r = check(fd, name, a->socket, error, size);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	a->socket = r = move_up(fd, error, size);
	return r < 0 ? r : 0;
}

static bool has_depots(char **names, int n)
{
	uint32_t uid, serial;

	for (int i = 0; i < n; i++)
		if (store_parse_name(names[i], &uid, &serial))
			return true;
	return false;
}

static void give_up(struct activation *a)
{
	if (a->socket >= 0)
		(void)close(steal_fd(&a->socket));
	for (size_t i = 0; i < a->n_depots; i++)
		(void)close(a->depots[i].fd);
	free(a->depots);
	a->depots = NULL;
	a->n_depots = 0;
}

int activation_take(struct activation *ret, char *error, size_t error_size)
{
	struct activation a = {.socket = -1};
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names), r = n < 0 ? n : 0;
	bool strict = !has_depots(names, n);

	if (n < 0)
		(void)snprintf(error, error_size, "LISTEN_FDS is not what systemd sets: %s",
			       strerror(-n));
	if (n > 0) {
		a.depots = calloc((size_t)n, sizeof(*a.depots));
		r = a.depots ? 0 : -ENOMEM;
	}
	if (r == -ENOMEM)
		(void)snprintf(error, error_size, "no memory for what systemd passed");
	for (int i = 0; i < n; i++) {
		int fd = SD_LISTEN_FDS_START + i;

		if (r == 0)
			r = take(&a, fd, names[i], strict, error, error_size);
		else
			(void)close(fd);
		free(names[i]);
	}
	free(names);
	if (r < 0)
		give_up(&a);
	*ret = a;
	return r;
}
