/* SPDX-License-Identifier: MIT */
#include "concern.h"

#include "parking.h"

/*
 * A connection waits for one holder after the other, for each once: for a user whose holder is slow
 * only those wait who have changed something of this user's. More than CONCERN_MAX other users in
 * one datagram are not told apart: then all holders are waited for that are behind.
 *
 * Who may take from a shared group may have been handed a park of any user by an earlier loop. What he
 * says of it can be understood only when all is back: unknown then means settled.
 */

void concern_add(struct connection *c, const struct parking *k)
{
	struct concern *n = &c->concern;

	if (k == c->account->parking) {
		c->parked = true;
		return;
	}
	for (unsigned i = 0; i < n->n; i++)
		if (n->uids[i] == k->account->uid)
			return;
	if (n->n < CONCERN_MAX)
		n->uids[n->n++] = k->account->uid;
	else
		n->all = true;
}

struct parking *concern_next(struct connection *c)
{
	struct parking *k = c->account->parking;

	if (c->parked && link_is_behind(k))
		return k;
	for (unsigned i = 0; i < c->concern.n; i++) {
		k = link_find(c->server, c->concern.uids[i]);
		if (link_is_behind(k))
			return k;
	}
	if (c->concern.all)
		TAILQ_FOREACH(k, &c->server->parkings, list)
	if (link_is_behind(k))
		return k;
	c->parked = false;
	c->concern = (struct concern){0};
	return NULL;
}

void concern_settle(struct connection *c, const struct parking *k)
{
	struct concern *n = &c->concern;

	if (k == c->account->parking)
		c->parked = false;
	for (unsigned i = 0; i < n->n; i++)
		if (n->uids[i] == k->account->uid)
			n->uids[i--] = n->uids[--n->n];
}

struct parking *concern_returning(const struct connection *c)
{
	struct parking *k = c->account->parking;

	if (link_is_returning(k))
		return k;
	if (!c->rights.takes)
		return NULL;
	TAILQ_FOREACH(k, &c->server->parkings, list)
	if (link_is_returning(k))
		return k;
	return NULL;
}
