/* SPDX-License-Identifier: MIT */
#include "output.h"

/* quotas: one row a user and limit; the names are the keys of the configuration file. */

static const struct output_field fields[] = {
	{"UID", "uid", OUTPUT_RIGHT},   {"QUOTA", "quota", 0},
	{"USED", "used", OUTPUT_RIGHT}, {"LIMIT", "limit", OUTPUT_RIGHT},
	{"FREE", "free", OUTPUT_RIGHT},
};

int command_quotas(const struct ctl *ctl)
{
	struct readyd_quota_info row = {.size = sizeof(row)};
	ctl_handle *r = NULL;
	ctl_list_rows *rows = NULL;
	output_auto *o = NULL;
	uint64_t n_rows = 0;
	int status, n;

	status = ctl_connect(ctl, &r);
	if (status)
		return status;
	o = output_new_table(ctl, "quotas", fields, sizeof(fields) / sizeof(fields[0]));
	if (!o)
		return CTL_FAILED;
	n = readyd_list_quotas(r, &ctl->filter, &rows);
	if (n < 0)
		return ctl_request_failed(r, n);
	while ((n = readyd_next_quota(rows, &row)) > 0) {
		output_row(o, row.uid, n_rows++);
		output_number(o, "uid", row.uid);
		output_text(o, "quota", row.name);
		output_number(o, "used", row.used);
		output_number(o, "limit", row.limit);
		/* After a reload with a lower limit more may be used than is allowed. */
		output_number(o, "free", row.limit > row.used ? row.limit - row.used : 0);
	}
	if (n < 0)
		return ctl_request_failed(r, n);
	return output_finish(o);
}
