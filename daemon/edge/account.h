/* SPDX-License-Identifier: MIT */
#ifndef READYD_ACCOUNT_H
#define READYD_ACCOUNT_H

/*
 * Accounts: one a uid that has something here. It holds what the uid owns and may own (the quota)
 * and lives as long as a connection of that uid does. Rights depend on groups too, and are a
 * connection's.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "config/config.h"
#include "daemon/core/quota.h"

struct parking;

struct account {
	struct quota quota;
	struct parking *parking; /* what it has parked; NULL: never anything */
	uid_t uid;
	unsigned references;
	uint64_t backlog; /* bytes of answers that its connections did not read */
};

/* Who connected, as the kernel said at accept. */
struct credentials {
	pid_t pid;
	uid_t uid;
	gid_t gid;
	size_t n_gids;
	gid_t *gids; /* all of them, the primary one first */
};

struct rights {
	bool connect; /* may have a connection at all */
	bool inspect; /* sees all users' rows */
	bool upgrade; /* may have another binary take over */
	bool trusted; /* the loop closes its fds itself */
	bool ttys;    /* may watch ttys, other sockets and other character devices */
	bool takes;   /* may take from some group that users share */
	bool manage;  /* may break any session: root and the daemon's own uid */
};

struct accounts {
	void *tree; /* tsearch(3), by uid */
};

void accounts_deinit(struct accounts *a);

/*
 * The account of these credentials, made if need be, with limits as the configuration says now.
 * The caller has one reference. -ENOMEM.
 */
int accounts_get(struct accounts *a, const struct config *config, const struct credentials *who,
		 struct account **ret);

/* Limits as the configuration says for this uid in these groups: at each of its connections, since
 * groups may differ between them, and after a reload. */
void account_set_limits(struct account *account, const struct config *config,
			const struct credentials *who);

/* Gives a reference back; the account ends with the last. Nothing may be charged to it then. */
void accounts_put(struct accounts *a, struct account *account);

/* The account with the smallest uid greater than `after` (-1: the first), or NULL. */
struct account *accounts_next(const struct accounts *a, int64_t after);

/* Peer credentials and groups of a connected AF_UNIX socket; credentials_clear() frees the groups.
 * Negative errno. */
int credentials_of(int fd, struct credentials *ret);
void credentials_clear(struct credentials *who);

/* What these credentials may do. `own` is the daemon's uid; `private_` admits nobody else. */
void rights_of(const struct config *config, const struct credentials *who, uid_t own, bool private_,
	       struct rights *ret);

#endif
