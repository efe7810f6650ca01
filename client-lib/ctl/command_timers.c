/* SPDX-License-Identifier: MIT */
#include "listing.h"

#include <inttypes.h>

/* timers: one row a timer. A timer that has fired and whose entry is not sent has no next time. */

static const struct output_field fields[] = {
	{"ID", "id", OUTPUT_RIGHT},
	{NULL, "session", 0},
	{NULL, "timer", 0},
	{NULL, "generation", 0},
	{"PID", "pid", OUTPUT_RIGHT},
	{"UID", "uid", OUTPUT_RIGHT},
	{"COMMAND", "command", 0},
	{"NEXT", "when", OUTPUT_RIGHT},
	{NULL, "remaining", 0},
	{"PERIOD", "period", OUTPUT_RIGHT},
	{"UNSENT", "unsent", OUTPUT_RIGHT},
	{NULL, "cookie", 0},
};

static void print_next(struct output *o, int64_t when)
{
	int64_t left = when - ctl_now();
	char text[TEXT_SPAN_MAX + 16], span[TEXT_SPAN_MAX];

	if (!when) {
		output_cell(o, "when", "fired");
		return;
	}
	text_span(left < 0 ? -left : left, span);
	snprintf(text, sizeof(text), "%s%s", left < 0 ? "overdue " : "", span);
	output_time(o, "when", when);
	output_cell(o, "when", text);
	output_age(o, "remaining", left);
}

static void print_timer(struct output *o, struct text_processes *names,
			const struct readyd_timer_info *t)
{
	char text[64];

	output_row(o, t->session, (uint32_t)t->id);
	snprintf(text, sizeof(text), "%" PRIu64 "/%" PRIu32, t->session, (uint32_t)t->id);
	output_text(o, "id", text);
	output_number(o, "session", t->session);
	output_number(o, "timer", (uint32_t)t->id);
	output_number(o, "generation", t->id >> 32);
	output_number(o, "pid", t->pid);
	output_number(o, "uid", t->uid);
	output_process(o, "command", names, t->pid);
	print_next(o, t->when);
	if (t->period)
		output_time(o, "period", t->period);
	output_number(o, "unsent", t->count);
	snprintf(text, sizeof(text), "0x%" PRIx64, t->cookie);
	output_text(o, "cookie", text);
}

static int next(struct listing *l)
{
	struct readyd_timer_info row = {.size = sizeof(row)};
	int n = readyd_next_timer(l->rows, &row);

	if (n > 0)
		print_timer(l->o, &l->names, &row);
	return n;
}

int command_timers(const struct ctl *ctl)
{
	static const struct listing_kind kind = {
		.name = "timers",
		.fields = fields,
		.n_fields = sizeof(fields) / sizeof(fields[0]),
		.ask = readyd_list_timers,
		.next = next,
	};

	return listing_print(ctl, &kind);
}
