/* SPDX-License-Identifier: MIT */
#ifndef READYD_HOLDER_H
#define READYD_HOLDER_H

/*
 * A holder: a process that keeps the parked fds of one uid, and closes fds of that uid whose close
 * may block. It does as the loop tells it (record.h), and has all by heart when the loop is dead:
 * the next loop asks for it. What a client's fd can do to whoever closes it, it does here.
 */

#include <signal.h>
#include <stdint.h>

#include "daemon/edge/log.h"
#include "ledger.h"
#include "systemd/store.h"

struct holder_options {
	uint32_t uid;
	int socket; /* to the loop */
	struct log *log;
	const volatile sig_atomic_t *stop; /* set by the handler of SIGTERM, which is there */
	struct ledger *ledger;             /* of systemd's fd store; NULL: there is none */
	uint32_t term;                     /* in the ledger */
	struct store_entry *depots;        /* that came back: those of this uid are taken */
	size_t n_depots;
};

/*
 * In a new process: gives up all other fds (those of the landing zone are plugged), and holds until
 * the other end of its socket is closed by everybody, or SIGTERM. Where there is a store, what it
 * has goes there then. Returns the exit status.
 */
int holder_run(const struct holder_options *options);

/* In a new process, too: has the last copy of a socket that others close meanwhile, whatever lies in
 * its queue, until the other end of `go`, a pipe, is closed. To be followed by _exit(2). */
int holder_close(int socket, int go, const struct log *log);

#endif
