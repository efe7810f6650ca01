/* SPDX-License-Identifier: MIT */
#include "output.h"

/*
 * status: the daemon as a whole, one form. The socket shown is the one that this readyctl reached
 * it by: what a script can put into READYD_SOCKET.
 */

static const struct output_field fields[] = {
	{"Version", "version", 0},
	{"PID", "pid", 0},
	{"Socket", "socket", 0},
	{"Backend", "backend", 0},
	{"Protocol", "protocol", 0},
	{"Uptime", "uptime", 0},
	{"Loop uptime", "loop_uptime", 0},
	{"Restarts", "restarts", 0},
	{"Left behind", "left_behind", 0},
	{NULL, "now", 0},
	{NULL, "began", 0},
	{NULL, "started", 0},
	{"Connections", "connections", 0},
	{"Watches", "watches", 0},
	{"Waiting", "waiting", 0},
	{"Timers", "timers", 0},
	{"Deadlines", "deadlines", 0},
	{"Overdue", "overdue", 0},
	{"Parks", "parks", 0},
	{"Parks handed", "parks_handed", 0},
	{"Parks ready", "parks_ready", 0},
	{"Holders", "holders", 0},
	{"Holders left", "holders_left", 0},
	{"Fds", "fds", 0},
	{NULL, "fds_max", 0},
	{"Turns", "turns", 0},
	{"Longest turn", "turn_longest", 0},
	{"Events", "events", 0},
	{"Entries", "entries", 0},
	{"Messages", "messages", 0},
	{"Entries a message", "batch", 0},
	{"Coalesced", "coalesced", 0},
	{"Stale", "stale", 0},
	{"Breaks", "breaks", 0},
	{"Accepted", "accepted", 0},
	{"Refused", "refused", 0},
	{"Failures", "failures", 0},
};

static void print_counts(struct output *o, const struct readyd_status *s)
{
	char fds[64];

	output_number(o, "connections", s->connections);
	output_number(o, "watches", s->watches);
	output_number(o, "waiting", s->waiting);
	output_number(o, "timers", s->timers);
	output_number(o, "deadlines", s->deadlines);
	output_number(o, "overdue", s->overdue);
	output_number(o, "parks", s->parks);
	output_number(o, "parks_handed", s->parks_handed);
	output_number(o, "parks_ready", s->parks_ready);
	output_number(o, "holders", s->holders);
	output_number(o, "holders_left", s->holders_left);
	output_number(o, "fds", s->fds);
	output_number(o, "fds_max", s->fds_max);
	snprintf(fds, sizeof(fds), "%llu of %llu", (unsigned long long)s->fds,
		 (unsigned long long)s->fds_max);
	output_cell(o, "fds", fds);
}

static void print_counters(struct output *o, const struct readyd_status *s)
{
	output_number(o, "turns", s->turns);
	output_time(o, "turn_longest", (int64_t)s->turn_longest);
	output_number(o, "events", s->events);
	output_number(o, "entries", s->entries);
	output_number(o, "messages", s->messages);
	output_ratio(o, "batch", s->entries, s->messages);
	output_number(o, "coalesced", s->coalesced);
	output_number(o, "stale", s->stale);
	output_number(o, "breaks", s->breaks);
	output_number(o, "accepted", s->accepted);
	output_number(o, "refused", s->refused);
	output_number(o, "failures", s->failures);
}

int command_status(const struct ctl *ctl)
{
	struct readyd_status s = {.size = sizeof(s)};
	ctl_handle *r = NULL;
	output_auto *o = NULL;
	int status, error;

	status = ctl_connect(ctl, &r);
	if (status)
		return status;
	error = readyd_get_status(r, &s);
	if (error < 0)
		return ctl_request_failed(r, error);
	o = output_new_form(ctl, fields, sizeof(fields) / sizeof(fields[0]));
	if (!o)
		return CTL_FAILED;
	output_text(o, "version", s.version);
	output_number(o, "pid", s.pid);
	output_text(o, "socket", readyd_socket(r));
	output_text(o, "backend", s.backend);
	output_number(o, "protocol", s.protocol);
	output_age(o, "uptime", s.now - s.began);
	output_age(o, "loop_uptime", s.now - s.started);
	output_number(o, "restarts", s.restarts);
	output_number(o, "left_behind", s.left_behind);
	output_time(o, "now", s.now);
	output_time(o, "began", s.began);
	output_time(o, "started", s.started);
	print_counts(o, &s);
	print_counters(o, &s);
	return output_finish(o);
}
