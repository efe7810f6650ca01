/* SPDX-License-Identifier: MIT */
#ifndef READYD_LOOP_H
#define READYD_LOOP_H

/* The process that serves: a child of the keeper, or, without one, all there is. */

#include <signal.h>

#include "daemon/edge/log.h"
#include "daemon/edge/server.h"
#include "options.h"
#include "settings.h"
#include "systemd/service.h"

/* What signal handlers can reach. */
struct loop_signals {
	volatile sig_atomic_t stop;
	volatile sig_atomic_t reload;
	volatile sig_atomic_t upgrade;
	struct server *volatile running;
};

/* How it ended; the exit status of a loop with a keeper. */
enum loop_end {
	LOOP_DONE = 0, /* a private daemon that nobody needs any more: the keeper ends, too */
	LOOP_FAILED = 1,
	LOOP_ENDED = 3, /* it was told to end, or its keeper has ended */
};

struct loop {
	const struct options *options;
	struct log *log;
	struct service *service; /* whom to tell of a reload and the end; NULL: the keeper does */
	struct loop_signals *signals;
	struct server *server;
	int channel;    /* to the keeper; -1: there is none */
	unsigned asked; /* for holders, without an answer so far */
};

/*
 * Makes the server while the landing zone is plugged, and unplugs it. Negative errno, which was
 * logged. The options' control fd is the channel.
 */
int loop_start(struct loop *l, struct server_options *options);

/* Serves until a signal, the keeper or the end of what it is there for. Frees the server. */
enum loop_end loop_run(struct loop *l);

#endif
