/* SPDX-License-Identifier: MIT */

/*
 * The configuration as a value: defaults, hard limits, what applies to a user, and release.
 *
 * Where defaults come from. A daemon without a file must start on any machine, so every default is
 * computed from two hard limits: N, the open files that the process may have, and
 * fs.epoll.max_user_watches. Of N, 256 numbers are the landing zone of received fds and
 * `reserve_fds` stay free, so that accepting, refusing and logging work when everything else is
 * used up. What is left is the *room*. A connection costs two of it, its socket and its epoll
 * instance; a parked fd costs one; a watch none (the daemon gives up its copy), but it counts
 * against max_user_watches, which the kernel charges to the daemon's own uid.
 *
 * A default is less than the room where one uid must not be able to take everything: 3/4 of the
 * connections, half of the watches, a quarter of the files as parks. On a machine that is too small
 * for all of this the defaults shrink, but never below what works at all (one connection).
 *
 * The same room decides whether a value that somebody wrote can be had; so each default, written
 * into a file, is accepted on the machine that it was computed on.
 */

#include "config/config.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

#include "config_private.h"

#define NS_PER_S INT64_C(1000000000)

enum {
	DEFAULT_WATCHES_MIN = 1024,
	DEFAULT_WATCHES_UNKNOWN = 1000000,
	DEFAULT_TIMERS = 1048576,
	DEFAULT_NOTE_BYTES = 2048, /* a park */
	DEFAULT_FDS_RECEIVED = 1012,
	DEFAULT_FDS_UNREAD = 253,
	DEFAULT_HELLO_S = 10,
	DEFAULT_STUCK_S = 10,
	DEFAULT_PARK_MAX_AGE_S = 24 * 3600,
	SMALLEST_NOFILE = 1024, /* what Linux gives where nobody said anything */
};

static const char *const limit_keys[] = {
	[CONFIG_CONNECTIONS] = "connections", [CONFIG_WATCHES] = "watches",
	[CONFIG_TIMERS] = "timers",           [CONFIG_PARKS] = "parks",
	[CONFIG_NOTE_BYTES] = "note-bytes",   [CONFIG_FDS_RECEIVED] = "fds-received",
	[CONFIG_FDS_UNREAD] = "fds-unread",
};

_Static_assert(sizeof(limit_keys) / sizeof(limit_keys[0]) == CONFIG_LIMITS, "a key for each limit");

static const char *const log_levels[] = {
	[CONFIG_LOG_ERROR] = "error",   [CONFIG_LOG_WARNING] = "warning",
	[CONFIG_LOG_NOTICE] = "notice", [CONFIG_LOG_INFO] = "info",
	[CONFIG_LOG_DEBUG] = "debug",
};

const char *config_limit_key(enum config_limit limit)
{
	return limit_keys[limit];
}

int config_log_level_from_name(const char *name, enum config_log_level *ret)
{
	for (size_t i = 0; i < sizeof(log_levels) / sizeof(log_levels[0]); i++) {
		if (strcmp(name, log_levels[i]) == 0) {
			*ret = (enum config_log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* ---- Hard limits and defaults ---- */

/* The number in a file of /proc; 0 if there is none. */
static uint64_t read_proc_number(const char *path)
{
	unsigned long long value = 0;
	FILE *file = fopen(path, "re");

	if (!file)
		return 0;
	if (fscanf(file, "%llu", &value) != 1)
		value = 0;
	(void)fclose(file);
	return value;
}

void config_hard_limits(struct config_hard *ret)
{
	struct rlimit limit;
	uint64_t nofile = SMALLEST_NOFILE, nr_open = read_proc_number("/proc/sys/fs/nr_open");

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		nofile = limit.rlim_max;
	/* The limit may be infinite, or stand above a ceiling that was lowered later. */
	if (nr_open > 0 && nofile > nr_open)
		nofile = nr_open;
	if (nofile > INT_MAX)
		nofile = INT_MAX;
	ret->nofile = nofile;
	ret->max_user_watches = read_proc_number("/proc/sys/fs/epoll/max_user_watches");
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

void config_room(const struct config_hard *hard, uint64_t reserve_fds, struct config_room *ret)
{
	uint64_t kept = CONFIG_LANDING_ZONE + reserve_fds;
	uint64_t room = hard->nofile > kept ? hard->nofile - kept : 0;

	ret->connections = larger(room / 2, 1);
	ret->watches = hard->max_user_watches ? hard->max_user_watches : UINT64_MAX;
	ret->parks = room;
	ret->reserve = larger(hard->nofile / 2, 1);
	ret->fds = hard->nofile;
}

void config_fill_limits(const struct config_hard *hard, struct config *c)
{
	struct config_limits *l = &c->limits;
	uint64_t value[CONFIG_LIMITS];
	struct config_room room;

	config_room(hard, c->reserve_fds, &room);
	value[CONFIG_CONNECTIONS] = larger(room.connections * 3 / 4, 1);
	if (hard->max_user_watches)
		value[CONFIG_WATCHES] =
			larger(hard->max_user_watches / 2,
			       smaller(hard->max_user_watches, DEFAULT_WATCHES_MIN));
	else
		value[CONFIG_WATCHES] = DEFAULT_WATCHES_UNKNOWN;
	value[CONFIG_TIMERS] = DEFAULT_TIMERS;
	value[CONFIG_PARKS] = smaller(hard->nofile / 4, room.parks);
	value[CONFIG_NOTE_BYTES] =
		(l->set[CONFIG_PARKS] ? l->value[CONFIG_PARKS] : value[CONFIG_PARKS]) *
		DEFAULT_NOTE_BYTES;
	value[CONFIG_FDS_RECEIVED] = smaller(DEFAULT_FDS_RECEIVED, room.fds);
	value[CONFIG_FDS_UNREAD] = smaller(DEFAULT_FDS_UNREAD, room.fds);

	for (unsigned i = 0; i < CONFIG_LIMITS; i++) {
		if (!l->set[i])
			l->value[i] = value[i];
	}
}

int config_defaults(const struct config_hard *hard, struct config *ret)
{
	struct config c = {
		.backend = strdup("epoll"),
		.log_level = CONFIG_LOG_NOTICE,
		.reserve_fds = larger(smaller(CONFIG_RESERVE_FDS, hard->nofile / 16), 1),
		.hello_timeout = DEFAULT_HELLO_S * NS_PER_S,
		.stuck_after = DEFAULT_STUCK_S * NS_PER_S,
		.park_max_age = DEFAULT_PARK_MAX_AGE_S * NS_PER_S,
	};

	if (!c.backend)
		return -ENOMEM;
	config_fill_limits(hard, &c);
	*ret = c;
	return 0;
}

/* ---- What applies to whom ---- */

static bool who_is(const struct config_who *who, uid_t uid, const gid_t *gids, size_t n_gids)
{
	if (!who->resolved)
		return false;
	if (!who->group)
		return who->uid == uid;
	for (size_t i = 0; i < n_gids; i++) {
		if (gids[i] == who->gid)
			return true;
	}
	return false;
}

bool config_list_has(const struct config_who_list *list, uid_t uid, const gid_t *gids,
		     size_t n_gids)
{
	for (size_t i = 0; i < list->n; i++) {
		if (who_is(&list->items[i], uid, gids, n_gids))
			return true;
	}
	return false;
}

void config_limits_for(const struct config *c, uid_t uid, const gid_t *gids, size_t n_gids,
		       uint64_t ret[CONFIG_LIMITS])
{
	struct config_limits of_user = {0}, of_groups = {0};

	for (size_t i = 0; i < c->n_overrides; i++) {
		const struct config_override *o = &c->overrides[i];
		struct config_limits *into = o->who.group ? &of_groups : &of_user;

		if (!who_is(&o->who, uid, gids, n_gids))
			continue;
		for (unsigned k = 0; k < CONFIG_LIMITS; k++) {
			if (!o->limits.set[k])
				continue;
			into->value[k] = larger(into->value[k], o->limits.value[k]);
			into->set[k] = true;
		}
	}
	for (unsigned k = 0; k < CONFIG_LIMITS; k++) {
		if (of_user.set[k])
			ret[k] = of_user.value[k];
		else if (of_groups.set[k])
			ret[k] = of_groups.value[k];
		else
			ret[k] = c->limits.value[k];
	}
}

/* ---- Release ---- */

void config_free_pointer(void *pointer)
{
	free(*(void **)pointer);
}

static void who_list_clear(struct config_who_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->items[i].name);
	free(list->items);
}

void config_clear(struct config *c)
{
	free(c->socket);
	free(c->backend);
	for (size_t i = 0; i < c->n_overrides; i++)
		free(c->overrides[i].who.name);
	free(c->overrides);
	who_list_clear(&c->connect);
	who_list_clear(&c->inspect);
	who_list_clear(&c->upgrade);
	who_list_clear(&c->trusted);
	who_list_clear(&c->ttys);
	for (size_t i = 0; i < c->n_shared_groups; i++) {
		free(c->shared_groups[i].name);
		who_list_clear(&c->shared_groups[i].park);
		who_list_clear(&c->shared_groups[i].take);
		who_list_clear(&c->shared_groups[i].list);
	}
	free(c->shared_groups);
	*c = (struct config){0};
}

void config_errors_clear(struct config_errors *errors)
{
	for (size_t i = 0; i < errors->n; i++)
		free(errors->items[i].text);
	free(errors->items);
	*errors = (struct config_errors){0};
}
