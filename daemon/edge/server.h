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
#include <sys/types.h>

#include "config/config.h"
#include "daemon/edge/kept_out.h"
#include "daemon/edge/listener.h"
#include "daemon/edge/log.h"
#include "daemon/edge/progress.h"
#include "protocol/wire.h"

struct server;

/* Of the daemon as a whole, of which this process is one that serves. All zero: it is alone. */
struct server_history {
	int64_t began;         /* ns */
	uint64_t restarts;     /* processes that served before this one */
	uint64_t left_behind;  /* of these, those that could not be ended */
	uint64_t holders_left; /* stuck ones that were given up; see server_note_left() */
};

/* A holder's socket, of a uid: its messages are in record.h. */
struct server_holder {
	uint32_t uid;
	int socket;
};

struct server_options {
	struct config config;     /* resolved; the server takes it over */
	struct listener listener; /* listens; the server takes it over */
	bool private_;            /* this uid only, and ends with its starter */
	int starter; /* private: pidfd of the process to outlive by 10 s; or -1. Taken over */
	int control; /* watched for the caller, see server_is_called(); or -1 */
	struct progress progress; /* who watches over the loop; or nothing */
	struct kept_out_list kept_out;
	struct server_history history;
	const struct server_holder *holders; /* of earlier loops; their sockets are taken over */
	size_t n_holders;
	bool has_holders; /* somebody makes them; else parks die with this process */
	bool durable;     /* they have a store (systemd's), which outlives them all */
	struct log *log;
};

/*
 * Gets ready to serve. The landing zone must be plugged meanwhile (fd.h).
 * Negative errno, with one line in the log that says what to do; what it would have taken over
 * is then still the caller's.
 */
int server_new(struct server_options *options, struct server **ret);

/* Ends all connections, closes the listener. NULL is accepted. Returns NULL. */
struct server *server_free(struct server *s);

/* The address that clients use: the path, or @name. */
const char *server_address(const struct server *s);

/* One turn. 0; 1: a private daemon has nothing left to do; negative errno: the poller failed. */
int server_turn(struct server *s);

/* Whether the control fd was readable, or at its end, in the last turn. */
bool server_is_called(const struct server *s);

/*
 * The next uid for which a holder is needed, once each: false when there is no more. *ret_replace:
 * the one it has is stuck, and is to be left alone. To be asked after each turn.
 */
bool server_wants_holder(struct server *s, uint32_t *ret_uid, bool *ret_replace);

/* The next uid whose holder is not needed any more, once each: false when there is no more. To be
 * asked after each turn, before server_wants_holder(): it may be wanted again already. */
bool server_spares_holder(struct server *s, uint32_t *ret_uid);

/* Here is one; its socket is taken over. -1: none can be made; parks of this uid are refused. */
void server_take_holder(struct server *s, uint32_t uid, int socket);

/* So many holders that were stuck and given up have not ended. */
void server_note_left(struct server *s, uint64_t n);

/* Makes a blocked turn return. Safe from a signal handler. */
void server_break(struct server *s);

/* ---- upgrading.c ---- */

/* Whether a client has asked for an upgrade since the last call; *ret_pid is its process. */
bool server_take_upgrade(struct server *s, pid_t *ret_pid);

/* The answer to all who asked for an upgrade and have none yet: sent, where the socket takes it,
 * when this returns. Between two turns. */
void server_answer_upgrade(struct server *s, enum wire_error result);

/* ---- server.c ---- */

/*
 * Takes over a new, resolved configuration: limits, lists and log level. What needs a restart
 * (socket, backend) is said in the log and stays. *config is emptied.
 */
void server_reload(struct server *s, struct config *config);

#endif
