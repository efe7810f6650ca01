/* SPDX-License-Identifier: MIT */
#include "sharing.h"

#include <errno.h>
#include <string.h>

#include "daemon/core/park_group.h"
#include "grouping.h"
#include "parking.h"

/*
 * A group's name means one of two groups: the shared one to those whom the configuration names for
 * it, in any of its three lists, and to root and the daemon's own user; to everybody else, a group of
 * his own. Which one a park is in was decided when it was parked: a later loop knows the uid of who
 * parked it, and not his Unix groups. So it stands in the record, and only a reload asks again.
 */

struct asker {
	uid_t uid;
	const gid_t *gids;
	size_t n_gids;
	bool master;
};

static struct asker asker_of(const struct connection *c)
{
	return (struct asker){
		.uid = c->who.uid,
		.gids = c->who.gids,
		.n_gids = c->who.n_gids,
		.master = c->rights.manage,
	};
}

static unsigned rights_in(const struct config_shared_group *g, const struct asker *a)
{
	unsigned rights = 0;

	if (a->master)
		return SHARING_PARK | SHARING_TAKE | SHARING_LIST;
	if (config_list_has(&g->park, a->uid, a->gids, a->n_gids))
		rights |= SHARING_PARK;
	if (config_list_has(&g->take, a->uid, a->gids, a->n_gids))
		rights |= SHARING_TAKE;
	if (config_list_has(&g->list, a->uid, a->gids, a->n_gids))
		rights |= SHARING_LIST;
	return rights;
}

bool sharing_is_shared(const struct connection *c, const void *name, size_t length,
		       unsigned *ret_rights)
{
	const struct config_shared_group *g =
		config_find_shared_group(&c->server->config, name, length);
	const struct asker a = asker_of(c);

	*ret_rights = g ? rights_in(g, &a) : 0;
	return *ret_rights != 0;
}

int sharing_check(const struct connection *c, const void *name, size_t length,
		  enum sharing_right right, bool *ret_shared)
{
	unsigned rights;

	*ret_shared = sharing_is_shared(c, name, length, &rights);
	return *ret_shared && !(rights & right) ? -EACCES : 0;
}

bool sharing_is_still(const struct server *s, const void *name, size_t length)
{
	return config_find_shared_group(&s->config, name, length);
}

bool sharing_may_list(const struct connection *c, const void *name, size_t length)
{
	unsigned rights;

	return sharing_is_shared(c, name, length, &rights) && (rights & SHARING_LIST);
}

/* ---- Parks of others ---- */

static const uint8_t *group_of(const struct park *p)
{
	return p->text.bytes + p->text.name_length;
}

/* The oldest that can be had; numbers only grow. */
static struct park *find_by_name(const struct connection *c, const struct wire_take *w,
				 const uint8_t *tail)
{
	const struct server *s = c->server;
	const struct parking *k;
	struct park *found = NULL;

	TAILQ_FOREACH(k, &s->parkings, list)
	{
		struct park *p = parks_find_name(s->parks, k->owner, tail, w->name_length,
						 tail + w->name_length, w->group_length);

		if (p && k->account != c->account && p->shared && p->state == PARK_HELD &&
		    (!found || p->number < found->number))
			found = p;
	}
	return found;
}

static struct park *find_by_id(const struct connection *c, const struct wire_take *w)
{
	const struct server *s = c->server;
	struct park *p = w->by == WIRE_TAKE_BY_ID ? parks_find_number(s->parks, NULL, w->park)
						  : parks_find_token(s->parks, NULL, w->token);

	return p && p->shared && p->owner->uid != c->who.uid ? p : NULL;
}

int sharing_find(const struct connection *c, const struct wire_take *w, const uint8_t *tail,
		 struct park **ret)
{
	bool by_name = w->by == WIRE_TAKE_BY_NAME;
	struct park *p = by_name ? NULL : find_by_id(c, w);
	unsigned rights;

	if (!by_name && !p)
		return -ENOENT;
	/* what another world has is not there, and its owner is not told */
	if (!sharing_is_shared(c, p ? group_of(p) : tail + w->name_length,
			       p ? p->text.group_length : w->group_length, &rights))
		return -ENOENT;
	if (!(rights & SHARING_TAKE))
		return -EACCES;
	if (by_name)
		p = find_by_name(c, w, tail);
	*ret = p;
	return p ? 0 : -ENOENT;
}

/* ---- Reload ---- */

static bool park_is_shared_now(const struct server *s, const struct park *p)
{
	const struct config_shared_group *g =
		config_find_shared_group(&s->config, group_of(p), p->text.group_length);
	const struct peer *maker = p->maker ? peer_of_handle(p->maker) : NULL;
	struct asker a = {
		.uid = p->owner->uid,
		.master = p->owner->uid == 0 || p->owner->uid == s->uid,
	};

	if (!g || p->shared)
		return g && p->shared;
	if (maker && maker->c)
		a = asker_of(maker->c);
	return rights_in(g, &a) & SHARING_PARK;
}

static void reload_parks(struct server *s)
{
	uint64_t cursor = 0;
	struct park *p;

	while ((p = parks_next(s->parks, NULL, &cursor)))
		if (p->group && parks_set_shared(s->parks, p, park_is_shared_now(s, p)) < 0)
			log_about(s->log, CONFIG_LOG_ERROR, LOG_UID(p->owner->uid),
				  "out of memory: park %llu of uid %u stays in the group that it "
				  "was in before the configuration was read anew",
				  (unsigned long long)p->number, p->owner->uid);
	parking_sync(s);
}

static void reload_worker(struct connection *c, struct park_worker *w)
{
	const struct park_group *g = w->team->group;
	struct park_group_name name = {.bytes = g->name, .length = g->name_length};
	bool shared;

	if (sharing_check(c, g->name, g->name_length, SHARING_TAKE, &shared) == 0) {
		name.owner = shared ? NULL : w->handle->owner;
		if (grouping_move_worker(c, w, &name) == 0)
			return;
	}
	grouping_end_worker(c, w);
}

void sharing_reload(struct server *s)
{
	struct connection *c;
	uint32_t index = 0;

	reload_parks(s);
	while ((c = server_next_connection(s, &index))) {
		struct park_worker *w, *next;

		if (!c->peer || c->peer->c != c)
			continue;
		for (w = TAILQ_FIRST(&c->peer->handle->workers); w; w = next) {
			next = TAILQ_NEXT(w, of_handle);
			reload_worker(c, w);
		}
	}
	s->unfinished = true; /* there may be matches */
}
