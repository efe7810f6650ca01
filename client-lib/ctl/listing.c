/* SPDX-License-Identifier: MIT */
#include "listing.h"

/* Nothing is printed before all rows are there: who reads a table has all of it, or an error. */

int listing_print(const struct ctl *ctl, const struct listing_kind *kind)
{
	struct listing l = {.ctl = ctl};
	ctl_handle *r = NULL;
	ctl_list_rows *rows = NULL;
	output_auto *o = NULL;
	int status, n;

	status = ctl_connect(ctl, &r);
	if (status)
		return status;
	o = output_new_table(ctl, kind->name, kind->fields, kind->n_fields);
	if (!o)
		return CTL_FAILED;
	n = kind->ask(r, &ctl->filter, &rows);
	if (n < 0)
		return ctl_request_failed(r, n);
	l.o = o;
	l.rows = rows;
	do
		n = kind->next(&l);
	while (n > 0);
	return n < 0 ? ctl_request_failed(r, n) : output_finish(o);
}
