/* SPDX-License-Identifier: MIT */
#ifndef READYD_SERVER_INTERNAL_H
#define READYD_SERVER_INTERNAL_H

/* The loop's own state, shared by the files of the edge. */

#include <sys/queue.h>
#include <sys/socket.h>

#include "account.h"
#include "admission.h"
#include "daemon/core/core.h"
#include "daemon/core/park.h"
#include "daemon/poller/poller.h"
#include "landing.h"
#include "listener.h"
#include "log.h"
#include "outbox.h"
#include "server.h"

struct connection;

struct parking;
struct peer;
struct record_batch;
struct record_message;

TAILQ_HEAD(connection_queue, connection);
TAILQ_HEAD(parking_list, parking);

/* Numbers of the whole daemon that the core does not know. Counters only grow. */
struct server_stats {
	uint64_t connections; /* live */
	uint64_t turns;
	uint64_t messages; /* READY messages with entries */
	uint64_t accepted;
	uint64_t refused;
	uint64_t failures; /* refused records */
	int64_t turn_longest;
};

/* Lines that a client can cause: limited, each by its own site. */
struct server_sites {
	struct log_site refused;
	struct log_site protocol;
	struct log_site watches;
	struct log_site accept;
	struct log_site upgrade;
	struct log_site holder;
};

/* Where a datagram is received: allocated and touched before, since a page that is missing at that
 * moment would lose the message. */
struct server_buffers {
	uint8_t *message; /* WIRE_MESSAGE_MAX + 1 bytes: a longer one is noticed */
	uint8_t *control;
	size_t control_size;
	struct poller_event *events;
	struct core_entry *entries; /* peeked */
	uint8_t *ready;             /* the READY message that is being made of them */
	uint8_t *rows;              /* of a list reply */
	struct record_batch *batch; /* to a holder */
	struct record_message *from_holder;
};

/* Places of connections: the index and generation make the poller's tag. */
struct connection_place {
	struct connection *connection; /* NULL: free */
	uint32_t generation;
	uint32_t next_free;
};

/* Whom parks are made by and handed to, by number (parking.h). */
struct peer_table {
	struct peer **peers;
	uint32_t n;
};

struct server {
	struct config config;
	struct log *log;
	struct poller *poller;
	struct core *core;
	struct accounts accounts;
	struct admission admission;
	struct listener listener;
	struct landing landing;
	struct outbox outbox;
	struct server_buffers buffers;
	struct server_stats stats;
	struct server_sites sites;

	struct parks *parks;
	struct parking_list parkings; /* one a uid that ever parked */
	struct park **park_by_fd;     /* n_park_by_fd of them */
	uint64_t n_park_by_fd;
	struct peer_table peers;
	int64_t oldest_ends;   /* when the oldest park may be too old, ns; INT64_MAX: never */
	int64_t handout_again; /* hand-outs wait until then, the kernel had too many; 0: none does */
	bool has_holders;
	bool durable;       /* something outlives this process, where parks can be stored */
	bool parks_changed; /* something may have to be told to a holder */
	struct connection *applying; /* whose request about parks is being carried out */

	struct connection_place *places;
	uint32_t n_places;
	uint32_t free_place; /* UINT32_MAX: none */
	uint32_t max_connections;
	uint64_t next_session;

	struct connection_queue ungreeted;   /* oldest first */
	struct connection_queue readable;    /* this turn: requests to read */
	struct connection_queue registering; /* the same of those that register much */
	struct connection_queue answered;    /* this turn: has messages in the outbox */
	struct connection_queue ending;      /* to be ended when the turn is over */

	int64_t now; /* of this turn */
	int64_t started;
	int64_t accept_again; /* paused for want of fds until then; 0: not paused */
	int64_t idle_since;   /* private: since when nobody is connected */
	uint64_t base_fds;    /* open at the start */
	uint64_t max_fds;
	uint32_t pid;
	uid_t uid;
	uid_t overflow_uid; /* what the kernel says of uids that are not mapped here */
	bool private_;
	bool called;        /* this turn: the control fd */
	bool unfinished;    /* something is left to send at once: do not block */
	int starter;        /* pidfd, or -1 */
	bool keeper;        /* there is one, who can have another program take over */
	bool upgrade_asked; /* by a client, since the last look */
	pid_t upgrader;     /* ... of this process */
	struct progress progress;
	struct kept_out_list kept_out;
	struct server_history history;
};

/* Tags of the daemon's own descriptors that are no connection. */
#define SERVER_TAG_LISTENER UINT64_C(0xffffffff)
#define SERVER_TAG_STARTER UINT64_C(0xfffffffe)
#define SERVER_TAG_CONTROL UINT64_C(0xfffffffd)

/* Above those of connections: with a uid, or a peer's number, in the lower half. */
#define SERVER_TAG_HOLDER UINT64_C(0xfffffffe)
#define SERVER_TAG_PEER UINT64_C(0xffffffff)

enum {
	SERVER_EVENTS = 1024,         /* of the kernel, a turn */
	SERVER_ROWS_SIZE = 48 * 1024, /* bytes of rows in one reply */
};

/* Applies one event of the kernel (step 2). */
void server_apply_event(struct server *s, const struct poller_event *event);

/* Shows how much there is to whoever watches over the loop (inspect.c). */
void inspect_show_counts(const struct server *s);

/* ---- places.c: finding connections ---- */

/* -ENOMEM, or -EUSERS at max_connections. */
int server_add_place(struct server *s, struct connection *c, uint64_t *ret_tag);
void server_remove_place(struct server *s, uint64_t tag);
struct connection *server_find_tag(const struct server *s, uint64_t tag);
struct connection *server_find_session(const struct server *s, uint64_t session);
/* The connection at the first place >= *index that has a session; *index moves behind it. */
struct connection *server_next_connection(const struct server *s, uint32_t *index);

#endif
