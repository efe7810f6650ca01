/* SPDX-License-Identifier: MIT */
#include "listing.h"

/*
 * sessions: one row a connection, readyctl's own among them (STATE self), since it counts in
 * `status` too.
 */

static const struct output_field fields[] = {
	{"SESSION", "session", OUTPUT_RIGHT},
	{"PID", "pid", OUTPUT_RIGHT},
	{"UID", "uid", OUTPUT_RIGHT},
	{NULL, "gid", 0},
	{"COMMAND", "command", 0},
	{"AGE", "age", OUTPUT_RIGHT},
	{NULL, "since", 0},
	{"WATCHES", "watches", OUTPUT_RIGHT},
	{"WAITING", "waiting", OUTPUT_RIGHT},
	{"TIMERS", "timers", OUTPUT_RIGHT},
	{"READY", "ready", OUTPUT_RIGHT},
	{NULL, "requests", 0},
	{NULL, "events", 0},
	{"ENTRIES", "entries", OUTPUT_RIGHT},
	{NULL, "messages", 0},
	{"BATCH", "batch", OUTPUT_RIGHT},
	{"COALESCED", "coalesced", OUTPUT_RIGHT},
	{NULL, "stale", 0},
	{"STATE", "state", 0},
};

static void print_session(struct output *o, struct text_processes *names,
			  const struct readyd_session_info *s)
{
	output_row(o, s->session, 0);
	output_number(o, "session", s->session);
	output_number(o, "pid", s->pid);
	output_number(o, "uid", s->uid);
	output_number(o, "gid", s->gid);
	output_process(o, "command", names, s->pid);
	output_age(o, "age", ctl_age(s->since));
	output_time(o, "since", s->since);
	output_number(o, "watches", s->watches);
	output_number(o, "waiting", s->waiting);
	output_number(o, "timers", s->timers);
	output_number(o, "ready", s->ready);
	output_number(o, "requests", s->requests);
	output_number(o, "events", s->events);
	output_number(o, "entries", s->entries);
	output_number(o, "messages", s->messages);
	output_ratio(o, "batch", s->entries, s->messages);
	output_number(o, "coalesced", s->coalesced);
	output_number(o, "stale", s->stale);
	output_text(o, "state", s->self ? "self" : s->blocked ? "blocked" : "open");
}

static int next(struct listing *l)
{
	struct readyd_session_info row = {.size = sizeof(row)};
	int n = readyd_next_session(l->rows, &row);

	if (n > 0)
		print_session(l->o, &l->names, &row);
	return n;
}

int command_sessions(const struct ctl *ctl)
{
	static const struct listing_kind kind = {
		.name = "sessions",
		.fields = fields,
		.n_fields = sizeof(fields) / sizeof(fields[0]),
		.ask = readyd_list_sessions,
		.next = next,
	};

	return listing_print(ctl, &kind);
}
