/* SPDX-License-Identifier: MIT */
#include "output.h"

/* groups: one row a group of parks, while it has parks or workers. */

static const struct output_field fields[] = {
	{"GROUP", "group", 0},
	{"UID", "uid", OUTPUT_RIGHT},
	{NULL, "shared", 0},
	{"PARKS", "parks", OUTPUT_RIGHT},
	{"READY", "ready", OUTPUT_RIGHT},
	{"HANDED", "handed", OUTPUT_RIGHT},
	{"WORKERS", "workers", OUTPUT_RIGHT},
	{"CREDIT", "credit", OUTPUT_RIGHT},
	{"CAPACITY", "capacity", OUTPUT_RIGHT},
	{"OLDEST", "oldest", OUTPUT_RIGHT},
	{NULL, "ready_since", 0},
};

static void print_group(struct output *o, const struct readyd_group_info *g, uint64_t n)
{
	output_row(o, n, 0);
	output_text(o, "group", g->group);
	if (g->uid == UINT32_MAX)
		output_cell(o, "uid", "shared");
	else
		output_number(o, "uid", g->uid);
	output_bool(o, "shared", g->uid == UINT32_MAX);
	output_number(o, "parks", g->parks);
	output_number(o, "ready", g->ready);
	output_number(o, "handed", g->handed);
	output_number(o, "workers", g->workers);
	output_number(o, "credit", g->credit);
	output_number(o, "capacity", g->capacity);
	if (!g->oldest)
		return;
	output_age(o, "oldest", ctl_age(g->oldest));
	output_time(o, "ready_since", g->oldest);
}

int command_groups(const struct ctl *ctl)
{
	struct readyd_group_info row = {.size = sizeof(row)};
	ctl_handle *r = NULL;
	ctl_list_rows *rows = NULL;
	output_auto *o = NULL;
	uint64_t n_rows = 0;
	int status, n;

	status = ctl_connect(ctl, &r);
	if (status)
		return status;
	o = output_new_table(ctl, "groups", fields, sizeof(fields) / sizeof(fields[0]));
	if (!o)
		return CTL_FAILED;
	n = readyd_list_groups(r, &ctl->filter, &rows);
	if (n < 0)
		return ctl_request_failed(r, n);
	while ((n = readyd_next_group(rows, &row)) > 0)
		print_group(o, &row, n_rows++);
	if (n < 0)
		return ctl_request_failed(r, n);
	return output_finish(o);
}
