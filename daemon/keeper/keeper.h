/* SPDX-License-Identifier: MIT */
#ifndef READYD_KEEPER_H
#define READYD_KEEPER_H

/* The main process: it listens, makes the loop that serves, and another one when that dies. */

#include "daemon/edge/log.h"
#include "loop.h"
#include "options.h"
#include "start.h"
#include "upgrade.h"

/*
 * Runs until a signal ends it, or a private daemon has nothing left to do. The landing zone must be
 * plugged, and stays so here; ready_fd is taken over. In the children, the loops, it does not
 * return, nor where another program takes over from this one (upgrade.h).
 */
enum exit_status keeper_run(const struct options *options, int ready_fd, struct log *log,
			    struct loop_signals *signals, struct image *image);

#endif
