/* SPDX-License-Identifier: MIT */
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

int command_list(const struct ctl *ctl)
{
	struct readyd_watch_info row = {.size = sizeof(row)};
	struct text_processes names = {0};
	ctl_handle *r = NULL;
	ctl_list_rows *rows = NULL;
	output_auto *o = NULL;
	int status, n;

	status = ctl_connect(ctl, &r);
	if (status)
		return status;
	o = output_new_table(ctl, "watches", watch_row_fields, watch_row_n_fields);
	if (!o)
		return CTL_FAILED;
	n = readyd_list_watches(r, &ctl->filter, &rows);
	if (n < 0)
		return ctl_request_failed(r, n);
	while ((n = readyd_next_watch(rows, &row)) > 0) {
		if (!is_wanted(ctl, &row))
			continue;
		output_row(o, row.session, (uint32_t)row.id);
		watch_row_print(o, &names, &row);
	}
	if (n < 0)
		return ctl_request_failed(r, n);
	return output_finish(o);
}
