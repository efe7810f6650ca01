/* SPDX-License-Identifier: MIT */
#ifndef READYD_SERVER_H
#define READYD_SERVER_H

/*
 * The loop: it owns the poller, the core and all connections, and does one turn after the other
 * in a fixed order:
 *   1. poll the kernel until the heap's top, a signal or something else to do; read the clock once
 *   2. apply kernel events, bounded a session
 *   3. read and apply requests, one datagram a connection
 *   4. expire deadlines and timers that are due
 *   5. send: answers and ready-lists of every connection whose socket takes them
 * So in one turn an edge beats an expiry, and a DEADLINE that has arrived beats the expiry of the
 * one that it replaces.
 */

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "daemon/edge/log.h"

struct server;

struct server_options {
	struct config config; /* resolved; the server takes it over */
	const char *socket;   /* path; NULL with private_ */
	bool private_;        /* an autobound abstract address, this uid only */
	int starter; /* private: pidfd of the process to outlive by 10 s; or -1. Taken over */
	struct log *log;
};

/*
 * Binds, listens and gets ready to serve. The landing zone must be plugged meanwhile (fd.h).
 * Negative errno, with one line in the log that says what to do; options->config is then still
 * the caller's.
 */
int server_new(struct server_options *options, struct server **ret);

/* Ends all connections, removes the socket. NULL is accepted. Returns NULL. */
struct server *server_free(struct server *s);

/* The address that clients use: the path, or @name. */
const char *server_address(const struct server *s);

/* One turn. 0; 1: a private daemon has nothing left to do; negative errno: the poller failed. */
int server_turn(struct server *s);

/* Makes a blocked turn return. Safe from a signal handler. */
void server_break(struct server *s);

/*
 * Takes over a new, resolved configuration: limits, lists and log level. What needs a restart
 * (socket, backend) is said in the log and stays. *config is emptied.
 */
void server_reload(struct server *s, struct config *config);

#endif
