/* SPDX-License-Identifier: MIT */
#ifndef READYD_START_H
#define READYD_START_H

/* What surrounds the daemon when it starts: its user, its place, who started it. */

#include <stdbool.h>

#include "daemon/edge/listener.h"
#include "daemon/edge/log.h"
#include "options.h"
#include "settings.h"

enum exit_status {
	STATUS_OK = 0,
	STATUS_FAILURE = 1,
	STATUS_USAGE = 2,
	STATUS_CONFIG = 78, /* EX_CONFIG of sysexits.h: the unit does not restart it */
};

/* Whether uids mean here what they mean elsewhere: all are mapped, each to itself. */
bool start_has_identity_map(void);

/* A pidfd of the process that a private daemon outlives by some seconds only. -1: none, or gone
 * already. */
int start_open_starter(void);

/* The fd to tell it on: out of the landing zone; the standard fds stay where they are. -1: none was
 * named; -EBADF, -EMFILE. */
int start_take_ready_fd(int number);

/* Lines for whoever started us; *fd is closed, and -1 then. */
void start_tell(int *fd, const char *before, const char *text);

/* Listens where systemd, options or configuration say, in this order. Negative errno, which was logged. */
int start_listen(const struct options *options, const struct config *config, struct log *log,
		 struct listener *ret);

/* Loads the configuration for a start. STATUS_OK, or an exit status that log and starter were told
 * the reason of. Where the fd store gave something back, which would be lost, a bad file does not
 * keep the daemon from starting: with the defaults, and a line in the log. */
enum exit_status start_load(const struct options *options, int *ready_fd, struct log *log,
			    struct settings *ret);

#endif
