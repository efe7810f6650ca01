/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"
#include "keeper_internal.h"

/*
 * The keeper's part in systemd's fd store: it makes the ledger, and a holder for each uid that
 * something came back for, which has the depots by inheritance and reads them itself: what lies in
 * them is none of the keeper's business. The first loop finds these holders as any loop does.
 *
 * What cannot be given to a holder now stays in the store, and in the ledger, for the next start.
 */

static bool is_first_of_uid(const struct store_entry *entries, size_t i)
{
	for (size_t j = 0; j < i; j++)
		if (entries[j].uid == entries[i].uid)
			return false;
	return true;
}

/* Whether its holder is to have it. One that nobody has written down nobody may remove; one with the
 * name of another would go with that, so it is read, too. */
static bool adopt(struct keeper *k, struct store_entry *e)
{
	int r = ledger_adopt(k->holders.ledger, e->uid, e->serial);

	if (r == 0 || r == -EEXIST)
		return true;
	log_about(k->log, CONFIG_LOG_ERROR, LOG_UID(e->uid),
		  "an entry of systemd's store for uid %u is left there: there are too many",
		  e->uid);
	(void)close(steal_fd(&e->fd));
	return false;
}

void restore_parks(struct keeper *k, int64_t now)
{
	const struct options *o = k->options;
	unsigned max = o->private_ ? 0 : store_max();
	struct store_entry *entries = o->depots;
	size_t n = 0;
	int socket, r;

	if (max == 0 && o->n_depots > 0)
		max = (unsigned)(o->n_depots < STORE_MAX ? o->n_depots : STORE_MAX);
	if (max == 0 || k->holders.ledger) /* taken over in an upgrade */
		return;
	r = ledger_new(max, &k->holders.ledger);
	if (r < 0) {
		log_error(k->log, "systemd's fd store cannot be used, a restart loses parks: %s",
			  strerror(-r));
		return;
	}
	for (size_t i = 0; i < o->n_depots; i++)
		if (adopt(k, &entries[i]))
			entries[n++] = entries[i];
	k->holders.depots = entries;
	k->holders.n_depots = n;
	for (size_t i = 0; i < n; i++)
		if (is_first_of_uid(entries, i))
			(void)holders_make(&k->holders, entries[i].uid, false, now, &socket);
	for (size_t i = 0; i < n; i++)
		(void)close(steal_fd(&entries[i].fd));
	k->holders.depots = NULL;
	k->holders.n_depots = 0;
}
