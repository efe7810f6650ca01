/* SPDX-License-Identifier: MIT */
#include "listing.h"
#include "watch_row.h"

/*
 * list: one row a watch. --pid, --uid and --session are the daemon's filters; --waiting and
 * --overdue are looked at here, and with both a row must be both. Rows are sorted by their id.
 */

static bool is_wanted(const struct ctl *ctl, const struct readyd_watch_info *w)
{
	int64_t left;

	if (ctl->given & CTL_WAITING && w->read.state != READYD_SLOT_WAITING &&
	    w->write.state != READYD_SLOT_WAITING)
		return false;
	return !(ctl->given & CTL_OVERDUE) ||
	       watch_deadline(w, ctl_now(), &left) == WATCH_DEADLINE_OVERDUE;
}

static int next(struct listing *l)
{
	struct readyd_watch_info row = {.size = sizeof(row)};
	int n = readyd_next_watch(l->rows, &row);

	if (n <= 0 || !is_wanted(l->ctl, &row))
		return n;
	output_row(l->o, row.session, (uint32_t)row.id);
	watch_row_print(l->o, &l->names, &row);
	return n;
}

int command_list(const struct ctl *ctl)
{
	const struct listing_kind kind = {
		.name = "watches",
		.fields = watch_row_fields,
		.n_fields = watch_row_n_fields,
		.ask = readyd_list_watches,
		.next = next,
	};

	return listing_print(ctl, &kind);
}
