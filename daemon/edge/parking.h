/* SPDX-License-Identifier: MIT */
#ifndef READYD_PARKING_H
#define READYD_PARKING_H

/*
 * Parks as the loop has them: what the core (park.h) says is carried out here. A *parking* is a uid's:
 * the epoll set that its parks are in, and the link to its holder. A *peer* is the process behind a
 * handle: its connection, if there is one, and a pidfd that tells of its death.
 *
 * The one rule that all files here keep: what a record says is in the holder's queue before anybody
 * outside can see that it happened. A connection whose request changed something is held, neither
 * read nor sent to, until the holder has been told; an fd is sent only when the hand-out is recorded.
 * Of a durable park the same is true of systemd's store (holder_store.c).
 *
 * One change is of something outside, and can only be recorded later: that a PARK's answer was sent.
 * It goes along with whatever its holder is told next, or after some ms, so that PARK costs one
 * message. Should the loop die before, its maker has to repeat or claim the park, or to die, before
 * anybody gets it; so nobody is told of the park meanwhile.
 */

#include "connection.h"
#include "record.h"
#include "result.h"
#include "step.h"

enum link_state {
	LINK_NONE,      /* no holders here: parks die with this process */
	LINK_ABSENT,    /* none, or the last one has gone: one is asked for */
	LINK_RETURNING, /* it gives back what an earlier loop had given it */
	LINK_UP,
	LINK_SPARED, /* none, and none is needed before something is parked */
};

struct holder_link {
	enum link_state state;
	int socket;     /* -1: absent */
	bool wanted;    /* to be asked for */
	bool asked;     /* for one, that has not come */
	bool replace;   /* the one that was there is stuck */
	bool full;      /* its queue; it is watched for room */
	bool begun;     /* it was told what comes before all else */
	bool asking;    /* of which GIVE_BACK is a part */
	bool unsettled; /* it has not stored all, or not removed what an earlier one has stored */
	bool settling;  /* it was told to */
	bool spare;     /* the keeper is to hear that the last one is not needed */
	uint32_t epoch;
	uint64_t returned;         /* parks that came back */
	int64_t trouble;           /* messages cannot be sent since; 0: they can */
	int64_t again;             /* until then none is tried; 0: now */
	int64_t since;             /* waits for it; 0: does not */
	int64_t idle;              /* it has had nothing to keep since then; 0: it has */
	int64_t late_until;        /* when `late` is told at the latest; 0: it is empty */
	int64_t no_store;          /* nothing durable until then; 0: may be */
	struct park_queue dirty;   /* parks whose record is to be changed */
	struct park_queue late;    /* of which only that they are answered is not recorded */
	struct park_queue storing; /* durable ones that wait for the store, by their tickets */
	uint64_t tickets;          /* the last one */
	uint32_t settlings;        /* the number of the last one */
	struct connection_queue waiting;
};

struct parking {
	struct server *server;
	struct account *account;
	struct park_owner *owner;
	struct poller_set *set;
	struct holder_link link;
	void *twins;      /* parks by their descriptions (twins.c) */
	bool twins_known; /* those are in it that came back from a holder, too */
	TAILQ_ENTRY(parking) list;
};

struct peer {
	struct parking *parking;
	struct park_handle *handle;
	struct connection *c; /* NULL: it has none now */
	pid_t pid;
	int pidfd; /* -1: nobody can tell when it dies, or it is dead */
	bool dead;
	uint32_t number;
};

/* In park.caller_flags. */
enum parking_flag {
	PARKING_REGISTERED = 0x1, /* in the set */
	PARKING_HELD = 0x2,       /* its holder has it */
	PARKING_TOLD = 0x4,       /* its entry went to its maker's connection */
	PARKING_DIRTY = 0x8,      /* its record is to be changed */
	PARKING_TOLD_TIMEOUT = 0x10,
	PARKING_SENDING = 0x20,  /* in a queue of hand-outs */
	PARKING_LATE = 0x40,     /* dirty, and not urgent */
	PARKING_MAY_WAIT = 0x80, /* its next change is not urgent */
	PARKING_STORING = 0x100, /* waits for the store */
	PARKING_IN_TWINS = 0x200,
};

/* ---- parking.c ---- */

int parking_init(struct server *s, const struct server_options *options);
void parking_deinit(struct server *s);

/* The account's parking, made if need be. Negative errno. */
int parking_get(struct server *s, struct account *account, struct parking **ret);

/* The same of a uid that need not be connected. */
int parking_get_uid(struct server *s, uid_t uid, struct parking **ret);

/* Ends it if nothing is left of it. NULL is accepted. */
void parking_end_unused(struct parking *k);

/* Carries out what the core changed: after each call of it. */
void parking_sync(struct server *s);

/* Its maker's connection, if there is one, is to know that it is ready, if it is and was not told,
 * and has no group. */
void parking_tell(struct park *p);

/* A parked fd is ready; `tag` is its number. */
void parking_event(struct server *s, uint64_t tag, unsigned directions);

/* Makes room for a park with this fd. -ENOMEM. */
int parking_reserve_fd(struct server *s, int fd);

/* Begins to watch a parked fd, which need not be a park's yet; and ends that. */
int parking_register(struct parking *k, int fd, unsigned interest, uint32_t *ret_word);
void parking_unregister(struct parking *k, int fd, uint32_t word);

/* A park is there that may get too old. */
void parking_note_age(struct server *s, const struct park *p);

/* Deadlines, ages, and what else is done when its time has come. */
void parking_expire(struct server *s);

/* The configuration has changed. */
void parking_reload(struct server *s);

/* The earliest time at which something here has to be looked at, ns; INT64_MAX: none. */
int64_t parking_next_time(const struct server *s);

/* What there is for the sake of parks. */
struct parking_counts {
	uint64_t holders;
	uint64_t fds; /* of this process: parks, sockets of holders, pidfds, epoll sets */
};
void parking_count(const struct server *s, struct parking_counts *ret);

/* Puts a park into a queue of a connection, out of the one that it was in. NULL: into none. */
void parking_queue(struct park *p, struct park_queue *queue);

/* Its connection ends. */
void parking_end_connection(struct connection *c);

/* ---- park_request.c ---- */

void park_request_apply(struct request *q, const void *record);

/* Whether a park or a group may be named so. */
bool park_request_is_name(const uint8_t *bytes, size_t size);

/* ---- handing.c ---- */

/* Adds entries of parks to what the connection is told. */
void handing_add_entries(struct connection *c);

/* All that was said so far has been sent. */
void handing_sent(struct connection *c);

/* The hand-out's record is written: it may be sent. */
void handing_recorded(struct park *p);

/* Sends hand-outs whose record is written. 0, -EAGAIN, -EPIPE. */
int handing_send(struct connection *c);

/* ---- peer.c ---- */

/* The peer of a connection, or of a handle in a record: `pidfd` is taken over, or -1; then, for a
 * connection, it is asked for. Negative errno. */
int peer_of_connection(struct connection *c, struct peer **ret);
int peer_of_record(struct parking *k, const uint8_t id[WIRE_TOKEN_SIZE], pid_t pid, int pidfd,
		   struct peer **ret);
/* HELLO was said: what is known of the handle is this connection's from now on. */
void peer_greet(struct connection *c);
/* Whether what an earlier loop had handed to this handle has come back, and its connection is not known
 * as the handle's yet. */
bool peer_is_missed(const struct connection *c);
void peer_event(struct server *s, uint32_t number);
/* The connection is the handle's no more. */
void peer_detach(struct connection *c);
/* Frees those that nobody needs. */
void peer_end_idle(struct server *s);
struct peer *peer_of_handle(const struct park_handle *h);

/* ---- holder_link.c, holder_tell.c, holder_hear.c, holder_store.c ---- */

void link_init(struct parking *k);
/* The holder of earlier loops, which has to give back what it has. */
void link_return(struct parking *k, int socket);
void link_deinit(struct parking *k);

/* A record has changed; or is to be deleted, the park being gone. */
void link_add(struct parking *k, struct park *p);

/* A late change of a record is urgent now. */
void link_hurry(struct parking *k, struct park *p);
void link_hurry_all(struct parking *k);
/* Whether its record is where it has to be before the fd may be sent. */
bool link_has(const struct park *p);

/* Whether nothing durable can be parked for a moment. */
bool link_refuses_durable(const struct account *account);

/* Tells all holders what they have to know, as far as they take it. */
void link_flush_all(struct server *s);

/* The parking of this uid, or NULL. */
struct parking *link_find(const struct server *s, uint32_t uid);

/* Whether its holder has not been told everything, or nothing can be told now. NULL: no. */
bool link_is_behind(const struct parking *k);

/* Whether what is parked there is still coming back: requests about it have to wait. NULL: no. */
bool link_is_returning(const struct parking *k);

/* Whether any user's parks are still coming back. */
bool link_any_is_returning(const struct server *s);

/* Holds a connection until that holder has been told. */
void link_hold(struct connection *c, struct parking *k);
void link_forget(struct connection *c);

/* The holder's socket. */
void link_event(struct server *s, uint32_t uid, unsigned mask);

/* A holder that does not answer is replaced; one that has nothing to keep is let go. */
void link_expire(struct server *s);
int64_t link_next_time(const struct server *s);

#endif
