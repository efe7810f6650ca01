/* SPDX-License-Identifier: MIT */
#include "account.h"

#include <assert.h>
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <sys/socket.h>

static int compare(const void *a, const void *b)
{
	uid_t x = ((const struct account *)a)->uid, y = ((const struct account *)b)->uid;

	return (x > y) - (x < y);
}

void accounts_deinit(struct accounts *a)
{
	(void)a; /* where asserts are left out */
	assert(!a->tree);
}

void account_set_limits(struct account *account, const struct config *config,
			const struct credentials *who)
{
	uint64_t limits[CONFIG_LIMITS];

	config_limits_for(config, who->uid, who->gids, who->n_gids, limits);
	for (int i = 0; i < QUOTA_MAX; i++)
		account->quota.limit[i] = limits[i];
}

int accounts_get(struct accounts *a, const struct config *config, const struct credentials *who,
		 struct account **ret)
{
	struct account wanted = {.uid = who->uid}, *account, **node;

	node = tfind(&wanted, &a->tree, compare);
	account = node ? *node : NULL;
	if (!account) {
		account = calloc(1, sizeof(*account));
		if (!account)
			return -ENOMEM;
		account->uid = who->uid;
		if (!tsearch(account, &a->tree, compare)) {
			free(account);
			return -ENOMEM;
		}
	}
	account_set_limits(account, config, who);
	account->references++;
	*ret = account;
	return 0;
}

void accounts_put(struct accounts *a, struct account *account)
{
	assert(account->references > 0);
	if (--account->references > 0)
		return;
	for (int i = 0; i < QUOTA_MAX; i++)
		assert(account->quota.used[i] == 0);
	(void)tdelete(account, &a->tree, compare);
	free(account);
}

struct search {
	int64_t after;
	struct account *found;
};

static void visit(const void *node, VISIT which, void *closure)
{
	struct account *account = *(struct account *const *)node;
	struct search *search = closure;

	if ((which == postorder || which == leaf) && !search->found &&
	    (int64_t)account->uid > search->after)
		search->found = account;
}

struct account *accounts_next(const struct accounts *a, int64_t after)
{
	struct search search = {.after = after};

	twalk_r(a->tree, visit, &search);
	return search.found;
}

/* The primary group, then the supplementary ones. SO_PEERGROUPS says ERANGE, and how much it needs,
 * when the buffer is short. */
static int groups_of(int fd, struct credentials *who)
{
	socklen_t length = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &length) < 0 && errno != ERANGE &&
	    errno != ENODATA) /* none */
		return -errno;
	who->gids = malloc(sizeof(gid_t) + length);
	if (!who->gids)
		return -ENOMEM;
	who->gids[0] = who->gid;
	who->n_gids = 1;
	if (length == 0)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, who->gids + 1, &length) < 0)
		return -errno;
	who->n_gids += length / sizeof(gid_t);
	return 0;
}

int credentials_of(int fd, struct credentials *ret)
{
	struct credentials who = {0};
	struct ucred peer;
	socklen_t length = sizeof(peer);
	int r;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return -errno;
	who.pid = peer.pid;
	who.uid = peer.uid;
	who.gid = peer.gid;
	r = groups_of(fd, &who);
	if (r < 0) {
		credentials_clear(&who);
		return r;
	}
	*ret = who;
	return 0;
}

void credentials_clear(struct credentials *who)
{
	free(who->gids);
	who->gids = NULL;
	who->n_gids = 0;
}

static bool names(const struct config_who_list *list, const struct credentials *who)
{
	return config_list_has(list, who->uid, who->gids, who->n_gids);
}

void rights_of(const struct config *config, const struct credentials *who, uid_t own, bool private_,
	       struct rights *ret)
{
	bool master = who->uid == 0 || who->uid == own;

	ret->manage = master;
	ret->trusted = master || names(&config->trusted, who);
	ret->inspect = master || names(&config->inspect, who);
	ret->upgrade = master || names(&config->upgrade, who);
	ret->ttys = who->uid == 0 || private_ || names(&config->ttys, who);
	ret->takes = master && config->n_shared_groups > 0;
	for (size_t i = 0; i < config->n_shared_groups && !ret->takes; i++)
		ret->takes = names(&config->shared_groups[i].take, who);
	if (private_)
		ret->connect = who->uid == own;
	else
		ret->connect = master || !config->connect.set || names(&config->connect, who);
}
