/* SPDX-License-Identifier: MIT */
#include "listing.h"

/* quotas: one row a user and limit; the names are the keys of the configuration file. */

static const struct output_field fields[] = {
	{"UID", "uid", OUTPUT_RIGHT},   {"QUOTA", "quota", 0},
	{"USED", "used", OUTPUT_RIGHT}, {"LIMIT", "limit", OUTPUT_RIGHT},
	{"FREE", "free", OUTPUT_RIGHT},
};

static void print_quota(struct output *o, const struct readyd_quota_info *q, uint64_t number)
{
	output_row(o, q->uid, number);
	output_number(o, "uid", q->uid);
	output_text(o, "quota", q->name);
	output_number(o, "used", q->used);
	output_number(o, "limit", q->limit);
	/* After a reload with a lower limit more may be used than is allowed. */
	output_number(o, "free", q->limit > q->used ? q->limit - q->used : 0);
}

static int next(struct listing *l)
{
	struct readyd_quota_info row = {.size = sizeof(row)};
	int n = readyd_next_quota(l->rows, &row);

	if (n > 0)
		print_quota(l->o, &row, l->n++);
	return n;
}

int command_quotas(const struct ctl *ctl)
{
	static const struct listing_kind kind = {
		.name = "quotas",
		.fields = fields,
		.n_fields = sizeof(fields) / sizeof(fields[0]),
		.ask = readyd_list_quotas,
		.next = next,
	};

	return listing_print(ctl, &kind);
}
