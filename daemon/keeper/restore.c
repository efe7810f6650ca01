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

static bool is_first_of_uid(const struct options *o, size_t i)
{
	for (size_t j = 0; j < i; j++)
		if (o->depots[j].uid == o->depots[i].uid)
			return false;
	return true;
}

static void adopt(struct keeper *k, const struct store_entry *e)
{
	int r = ledger_adopt(k->holders.ledger, e->uid, e->serial);

	if (r < 0)
		log_about(k->log, CONFIG_LOG_ERROR, LOG_UID(e->uid),
			  "an entry of systemd's store for uid %u is left there: %s", e->uid,
			  r == -EEXIST ? "another one has its name" : "there are too many");
}

void restore_parks(struct keeper *k, int64_t now)
{
	const struct options *o = k->options;
	unsigned max = o->private_ ? 0 : store_max();
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
		adopt(k, &o->depots[i]);
	k->holders.depots = o->depots;
	k->holders.n_depots = o->n_depots;
	for (size_t i = 0; i < o->n_depots; i++)
		if (is_first_of_uid(o, i))
			(void)holders_make(&k->holders, o->depots[i].uid, false, now, &socket);
	for (size_t i = 0; i < o->n_depots; i++)
		(void)close(steal_fd(&o->depots[i].fd));
	k->holders.depots = NULL;
	k->holders.n_depots = 0;
}
