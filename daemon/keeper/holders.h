/* SPDX-License-Identifier: MIT */
#ifndef READYD_HOLDERS_H
#define READYD_HOLDERS_H

/*
 * The keeper's holders: one process for each uid that needs one (holder.h), and those that are
 * stuck and left behind. They outlive the loop. All functions but the first are the keeper's own;
 * one thread.
 */

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "daemon/edge/log.h"
#include "daemon/edge/server.h"
#include "ledger.h"
#include "systemd/store.h"

enum {
	HOLDERS_LEFT_MAX = 8, /* a uid: so many stuck ones, and no other is made */
	HOLDERS_MAX = 4096,   /* in all */
};

/* The numbers go into the state of an upgrade. */
enum holders_kind {
	HOLDERS_WORKS = 1,    /* has a socket; all others have none and are to end */
	HOLDERS_LEFT = 2,     /* left behind */
	HOLDERS_RELEASED = 3, /* not needed any more */
	HOLDERS_CLOSES = 4,   /* closes what another one has left unread */
	HOLDERS_LEDGER = 5,   /* no process: the ledger's fd, in such a state only */
};

/* One of them, as it is listed, handed over and taken back. */
struct holders_row {
	enum holders_kind kind;
	uint32_t uid;
	pid_t pid;
	int socket; /* the loop's end; -1 */
};

TAILQ_HEAD(holders_list, holders_one);

struct holders {
	struct log *log;
	const volatile sig_atomic_t *stop; /* what the handler of SIGTERM sets, in a child, too */
	struct holders_list list;
	size_t n;
	bool ending;                /* the daemon is: who ends by himself is no trouble */
	struct ledger *ledger;      /* the caller's: of systemd's fd store; NULL: there is none */
	struct store_entry *depots; /* the caller's: what new holders find there; mostly none */
	size_t n_depots;
	struct log_site made, stuck, deaths, refused;
};

void holders_init(struct holders *hs, struct log *log, const volatile sig_atomic_t *stop);

/*
 * Makes one for this uid, by fork. `replace`: the one that it has is stuck, and is left behind. One
 * that it has though nobody said so has ended or is about to: it is left behind, too, until its end
 * is known. *ret_socket: the loop's end, which stays the keeper's: what is sent outlives the loop.
 * -EAGAIN: too many are left behind; another negative errno. Either was logged.
 */
int holders_make(struct holders *hs, uint32_t uid, bool replace, int64_t now, int *ret_socket);

/* The one of this uid, if there is one, has nothing left to keep: it ends by itself when the loop has
 * closed its socket, too. Another one can be made at once. */
void holders_release(struct holders *hs, uint32_t uid);

/* A child of this pid has stopped, or ended (waitid(2)). false: it is no holder. */
bool holders_child_changed(struct holders *hs, const siginfo_t *info, int64_t now);

/* How many are stuck and left behind, of all uids. */
unsigned holders_count_left(const struct holders *hs);

/* The sockets, for a new loop, which has them by inheritance. The caller frees the list. -ENOMEM. */
int holders_get_sockets(const struct holders *hs, struct server_holder **ret, size_t *ret_n);

/* ---- For a keeper that becomes another program: its children stay its children ---- */

/* The next one after *cursor, which begins at NULL; false: no more. */
bool holders_next(const struct holders *hs, const struct holders_one **cursor,
		  struct holders_row *ret);

/* Takes over one, and its socket. -EEXIST: this uid has one, or it is known; -EINVAL: no kind,
 * process, or socket; -ENOMEM. */
int holders_adopt(struct holders *hs, const struct holders_row *row);

/* ---- The end ---- */

/*
 * Ends all: SIGTERM, some seconds to do it, SIGKILL. SIGCHLD is blocked, and no other child is left.
 * The list is empty then.
 */
void holders_end(struct holders *hs);

#endif
