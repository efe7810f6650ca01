/* SPDX-License-Identifier: MIT */
#include "address.h"
#include "listing.h"

#include <inttypes.h>
#include <string.h>

/* parked: one row a park. Notes are not shown, only how long they are: they are for who takes it. */

static const struct output_field fields[] = {
	{"ID", "id", OUTPUT_RIGHT},
	{"UID", "uid", OUTPUT_RIGHT},
	{"PID", "pid", OUTPUT_RIGHT},
	{"NAME", "name", 0},
	{"GROUP", "group", 0},
	{"SHARED", "shared", 0},
	{"AGE", "age", OUTPUT_RIGHT},
	{NULL, "parked", 0},
	{"DEADLINE", "deadline", OUTPUT_RIGHT},
	{NULL, "remaining", 0},
	{NULL, "on_deadline", 0},
	{"PEER", "peer", 0},
	{NULL, "local", 0},
	{"KIND", "kind", 0},
	{NULL, "fd", 0},
	{NULL, "interest", 0},
	{"READY", "ready", 0},
	{NULL, "timed_out", 0},
	{"STATE", "state", 0},
	{NULL, "worker_pid", 0},
	{"NOTE", "note", OUTPUT_RIGHT},
	{NULL, "durable", 0},
	{NULL, "hold_only", 0},
	{NULL, "cookie", 0},
};

static const char *directions(unsigned mask)
{
	static const char *const words[] = {"", "r", "w", "rw"};

	return words[mask & (READYD_READ | READYD_WRITE)];
}

static void print_deadline(struct output *o, const struct readyd_park_info *p)
{
	char span[TEXT_SPAN_MAX];
	int64_t left = p->deadline - ctl_now();

	if (p->timed_out)
		output_cell(o, "deadline", "passed");
	if (!p->deadline)
		return;
	output_text(o, "on_deadline", p->flags & READYD_PARK_DEADLINE_HAND ? "hand" : "close");
	text_span(left, span);
	output_time(o, "deadline", p->deadline);
	output_cell(o, "deadline", span);
	output_age(o, "remaining", left);
}

static void print_address(struct output *o, const char *key, const void *address, size_t length)
{
	char text[ADDRESS_TEXT_MAX];

	address_text(address, length, text);
	if (text[0])
		output_text(o, key, text);
}

static void print_park(struct output *o, const struct readyd_park_info *p)
{
	char text[32];

	output_row(o, p->park, 0);
	output_number(o, "id", p->park);
	output_number(o, "uid", p->uid);
	if (p->pid)
		output_number(o, "pid", p->pid);
	if (p->name[0])
		output_text(o, "name", p->name);
	if (p->group[0])
		output_text(o, "group", p->group);
	output_bool(o, "shared", p->shared);
	output_age(o, "age", ctl_age(p->parked));
	output_time(o, "parked", p->parked);
	print_deadline(o, p);
	print_address(o, "peer", p->peer, p->peer_length);
	print_address(o, "local", p->local, p->local_length);
	output_text(o, "kind", p->kind);
	if (p->fd >= 0)
		output_number(o, "fd", (uint64_t)p->fd);
	output_text(o, "interest", directions(p->interest));
	if (p->ready)
		output_text(o, "ready", directions(p->ready));
	output_bool(o, "timed_out", p->timed_out);
	output_text(o, "state", p->handed ? "handed" : "held");
	if (p->flags & READYD_PARK_DURABLE)
		output_cell(o, "state", p->handed ? "handed, durable" : "held, durable");
	if (p->worker_pid)
		output_number(o, "worker_pid", p->worker_pid);
	output_number(o, "note", p->note_length);
	output_bool(o, "durable", p->flags & READYD_PARK_DURABLE);
	output_bool(o, "hold_only", p->flags & READYD_PARK_HOLD_ONLY);
	snprintf(text, sizeof(text), "0x%" PRIx64, p->cookie);
	output_text(o, "cookie", text);
}

static int next(struct listing *l)
{
	struct readyd_park_info row = {.size = sizeof(row)};
	int n = readyd_next_park(l->rows, &row);

	if (n > 0 && (!l->ctl->group || strcmp(l->ctl->group, row.group) == 0))
		print_park(l->o, &row);
	return n;
}

int command_parked(const struct ctl *ctl)
{
	static const struct listing_kind kind = {
		.name = "parks",
		.fields = fields,
		.n_fields = sizeof(fields) / sizeof(fields[0]),
		.ask = readyd_list_parks,
		.next = next,
	};

	return listing_print(ctl, &kind);
}
