/* SPDX-License-Identifier: MIT */
#ifndef READYD_CONFIG_H
#define READYD_CONFIG_H

/*
 * The configuration file: strict YAML into a struct. Every error of a file is found in one run,
 * each with line and column. Reading is done here (libyaml on a FILE); users and groups are kept
 * as written and resolved by config_resolve(), which asks the system's databases and is therefore
 * called at start and reload only. Nothing here logs. Not thread-safe.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* What a uid may own. The order is the wire's (enum wire_quota). */
enum config_limit {
	CONFIG_CONNECTIONS,
	CONFIG_WATCHES,
	CONFIG_TIMERS,
	CONFIG_PARKS,
	CONFIG_NOTE_BYTES,
	CONFIG_FDS_RECEIVED,
	CONFIG_FDS_UNREAD,
	CONFIG_LIMITS,
};

enum config_log_level {
	CONFIG_LOG_ERROR,
	CONFIG_LOG_WARNING,
	CONFIG_LOG_NOTICE,
	CONFIG_LOG_INFO,
	CONFIG_LOG_DEBUG,
};

/* A set of limits; those that nobody wrote are not set. */
struct config_limits {
	uint64_t value[CONFIG_LIMITS];
	bool set[CONFIG_LIMITS];
};

/* A user or group as written (name or number), and as resolved. */
struct config_who {
	char *name;
	bool group;
	bool resolved;
	uid_t uid; /* of a user */
	gid_t gid; /* of a group */
	unsigned line, column;
};

struct config_who_list {
	struct config_who *items;
	size_t n;
	bool set; /* written, maybe empty */
};

struct config_override {
	struct config_who who;
	struct config_limits limits;
};

/* A group of parks that several users share. Root and the daemon's own user may all of it. */
struct config_shared_group {
	char *name;
	struct config_who_list park, take, list; /* who may do so */
};

/* The system's hard limits, from which defaults are computed. */
struct config_hard {
	uint64_t nofile;           /* RLIMIT_NOFILE, hard */
	uint64_t max_user_watches; /* /proc/sys/fs/epoll/max_user_watches; 0: unknown */
};

struct config {
	char *socket;  /* absolute path; NULL: the default of the caller */
	char *backend; /* "epoll" or "poll" */
	enum config_log_level log_level;
	uint64_t reserve_fds;  /* kept free in the daemon */
	int64_t hello_timeout; /* ns that a connection has for its HELLO */
	int64_t stuck_after;   /* ns that one turn of the loop may take before it is replaced */
	int64_t park_max_age;  /* ns that something may be parked; 0: for ever */
	struct config_limits limits;
	struct config_override *overrides;
	size_t n_overrides;
	struct config_who_list connect; /* who may connect; not set: who can open the socket */
	struct config_who_list inspect; /* who sees all users' rows; not set: root and own uid */
	struct config_who_list
		upgrade; /* who may have another binary take over; not set: the same */
	struct config_who_list trusted; /* whose fds the loop closes itself */
	struct config_who_list ttys;    /* who may watch ttys, other sockets and other devices */
	struct config_shared_group *shared_groups; /* by name */
	size_t n_shared_groups;
};

/* One fault of a file. */
struct config_error {
	unsigned line; /* from 1; 0: the file as a whole */
	unsigned column;
	char *text; /* what happened, to which key, what to do */
};

struct config_errors {
	struct config_error *items;
	size_t n;
};

/* The system's hard limits, by getrlimit(2) and /proc; never fails (unknown values are 0 or the
 * smallest that any Linux has). */
void config_hard_limits(struct config_hard *ret);

/* The defaults, computed from the hard limits, so that they fit anywhere. -ENOMEM. */
int config_defaults(const struct config_hard *hard, struct config *ret);

/*
 * Reads a file over the defaults. 0; -EBADMSG: *errors has what is wrong, all of it, and *ret is
 * untouched; -ENOMEM, -EIO. A value that somebody wrote and that needs more than `hard` is an error
 * that says what to change. `errors` is the caller's to clear.
 */
int config_read(FILE *file, const struct config_hard *hard, struct config *ret,
		struct config_errors *errors);

/* Looks up every name. An unknown one is an error with its line; -EBADMSG, -ENOMEM. */
int config_resolve(struct config *c, struct config_errors *errors);

/*
 * The limits of a user with these groups: an override of the user by itself; else for each limit
 * the largest among the overrides of its groups; else the file's; else the default.
 */
void config_limits_for(const struct config *c, uid_t uid, const gid_t *gids, size_t n_gids,
		       uint64_t ret[CONFIG_LIMITS]);

/* Whether a resolved list names this uid or one of these groups. */
bool config_list_has(const struct config_who_list *list, uid_t uid, const gid_t *gids,
		     size_t n_gids);

/* The shared group of this name (1 to 255 bytes, not ended), or NULL. */
const struct config_shared_group *config_find_shared_group(const struct config *c, const void *name,
							   size_t length);

/* The key of a limit in the file ("connections", ...). Static. */
const char *config_limit_key(enum config_limit limit);

/* -EINVAL for an unknown word. */
int config_log_level_from_name(const char *name, enum config_log_level *ret);

/* Frees what it holds and leaves it empty; both accept an empty one. */
void config_clear(struct config *c);
void config_errors_clear(struct config_errors *errors);

#endif
