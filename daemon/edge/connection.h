/* SPDX-License-Identifier: MIT */
#ifndef READYD_CONNECTION_H
#define READYD_CONNECTION_H

/*
 * One accepted socket: its peer, its session once HELLO was said, and what is to be sent to it.
 *
 * States: ungreeted (no HELLO yet), working, closing (an ERROR was queued, or the peer is gone;
 * it ends with the turn). Blocked: its socket is full. Then its requests are not read and its
 * session is left out of the core's order, until the socket takes more.
 */

#include "concern.h"
#include "server_internal.h"

struct connection {
	struct server *server;
	int fd;
	uint64_t tag;
	struct credentials who;
	struct rights rights;
	struct account *account; /* NULL until admitted */
	struct session *session; /* NULL until HELLO */
	struct poller_set *set;  /* NULL until HELLO */
	int64_t since;
	int64_t since_boot; /* the same by CLOCK_BOOTTIME, which /proc counts in */
	uint64_t number;    /* the session's */
	uint64_t requests;
	struct outbox_chain chain;
	struct backlog *backlog;
	uint64_t dead;   /* registrations whose watch went without its fd; charged as watches */
	int64_t audited; /* when they were last counted, ns */
	uint32_t upgrade_serial; /* of an UPGRADE that was not answered yet */
	bool upgrading;          /* there is one */
	uint8_t lane_hint;       /* where a free lane is looked for */
	bool greeted;
	bool blocked;
	bool closing;
	bool peer_gone;      /* nothing can be sent any more; its last requests are still read */
	bool in_readable;    /* or in `registering` */
	bool in_registering; /* if in one of these: which */
	uint8_t registers;   /* registers much: for that many datagrams more */
	bool in_answered;
	bool client_ended;    /* by its own doing */
	struct parking *held; /* waits for this user's holder: neither read nor sent to; NULL: no */
	bool parked; /* this turn: said something that its user's holder has to know first */
	struct concern concern;          /* the same of other users' */
	uint8_t handle[WIRE_TOKEN_SIZE]; /* as HELLO said; zero: none */
	struct peer *peer;               /* whom the parks know; NULL until there is need */
	struct park_queue unanswered;    /* parks whose answer is on its way */
	struct park_queue entries;       /* parks to be told as ready */
	struct park_queue handouts;      /* parks to be sent */
	TAILQ_ENTRY(connection) waiting; /* for the holder */
	uint64_t ticket;                 /* and for all parks up to this one to be stored */
	TAILQ_ENTRY(connection) ungreeted;
	TAILQ_ENTRY(connection) readable;
	TAILQ_ENTRY(connection) answered;
	TAILQ_ENTRY(connection) ending;
};

/* Takes over an accepted socket that is a lasting fd. Refuses it (with an ERROR that says why) or
 * makes it a connection. */
void connection_accept(struct server *s, int fd);

/* The poller's event for it. */
void connection_event(struct connection *c, unsigned mask);

/* Reads and applies one datagram. Returns how many fds came with it. */
unsigned connection_read(struct connection *c);

/* Queues an ERROR and ends the connection with the turn. */
void connection_fail(struct connection *c, enum wire_error error, uint32_t serial,
		     const char *text);

/* Has it ended with the turn. */
void connection_close(struct connection *c);

/* Ends it now: session, watches, fds and charges are gone. */
void connection_free(struct connection *c);

/* For a line of the log about it. */
static inline struct log_about connection_about(const struct connection *c, enum log_event event)
{
	return (struct log_about){
		.event = event,
		.client = true,
		.uid = c->who.uid,
		.pid = c->who.pid,
		.session = c->number,
	};
}

#endif
