/* SPDX-License-Identifier: MIT */
#include "watch_row.h"

#include <inttypes.h>
#include <string.h>

/*
 * One watch, two slots, in one row. What is one value in the table is often two in the daemon (a
 * wait and a deadline for each direction): people see the more urgent one, JSON has both.
 *
 * Overdue or expired? The daemon tells an absolute time while the deadline is pending, and -1 once
 * it has expired. A time that has passed is overdue: the loop has not got to it. Expired with a
 * timeout that is completed and not sent is overdue as well: somebody waits and does not know yet.
 * Plain expired is a resting state, as in Go: it stays until a new deadline is set.
 */

const struct output_field watch_row_fields[] = {
	{"ID", "id", OUTPUT_RIGHT},
	{NULL, "session", 0},
	{NULL, "watch", 0},
	{NULL, "generation", 0},
	{"PID", "pid", OUTPUT_RIGHT},
	{"UID", "uid", OUTPUT_RIGHT},
	{"COMMAND", "command", 0},
	{"FD", "fd", OUTPUT_RIGHT},
	{"KIND", "kind", 0},
	{"MODE", "mode", 0},
	{"INTEREST", "interest", 0},
	{"READ", "read", 0},
	{"WRITE", "write", 0},
	{NULL, "read_code", 0},
	{NULL, "write_code", 0},
	{"SINCE", "since", OUTPUT_RIGHT},
	{NULL, "age", 0},
	{NULL, "read_since", 0},
	{NULL, "write_since", 0},
	{NULL, "waited", 0},
	{"DEADLINE", "deadline", OUTPUT_RIGHT},
	{NULL, "remaining", 0},
	{NULL, "read_deadline", 0},
	{NULL, "write_deadline", 0},
	{"FIRED", "fired", OUTPUT_RIGHT},
	{NULL, "cookie", 0},
	{NULL, "lane", 0},
	{NULL, "closing", 0},
	{NULL, "error", 0},
};

const size_t watch_row_n_fields = sizeof(watch_row_fields) / sizeof(watch_row_fields[0]);

const char *watch_slot_word(const struct readyd_slot_info *slot)
{
	switch (slot->state) {
	case READYD_SLOT_IDLE:
		return "idle";
	case READYD_SLOT_READY:
		return "ready";
	case READYD_SLOT_WAITING:
		return "waiting";
	case READYD_SLOT_DONE:
		return "done";
	default:
		return "unknown";
	}
}

const char *watch_interest_word(unsigned interest)
{
	switch (interest & (READYD_READ | READYD_WRITE)) {
	case READYD_READ:
		return "r";
	case READYD_WRITE:
		return "w";
	case READYD_READ | READYD_WRITE:
		return "rw";
	default:
		return "none";
	}
}

const char *watch_mode_word(unsigned mode)
{
	return mode == READYD_WAIT ? "wait" : mode == READYD_STREAM ? "stream" : "unknown";
}

void watch_codes(unsigned codes, char ret[64])
{
	snprintf(ret, 64, "%s%s%s%s", codes & READYD_READY ? ",ready" : "",
		 codes & READYD_CLOSING ? ",closing" : "", codes & READYD_TIMEOUT ? ",timeout" : "",
		 codes & READYD_NOT_POLLABLE ? ",not-pollable" : "");
	memmove(ret, ret + 1, strlen(ret));
}

enum watch_deadline watch_slot_deadline(const struct readyd_slot_info *slot, int64_t now,
					int64_t *ret_left)
{
	*ret_left = 0;
	if (slot->deadline == 0)
		return WATCH_DEADLINE_NONE;
	if (slot->deadline < 0)
		return slot->state == READYD_SLOT_DONE && slot->code & READYD_TIMEOUT
			       ? WATCH_DEADLINE_OVERDUE
			       : WATCH_DEADLINE_EXPIRED;
	*ret_left = slot->deadline - now;
	return *ret_left > 0 ? WATCH_DEADLINE_PENDING : WATCH_DEADLINE_OVERDUE;
}

/* Larger is more urgent. */
static int deadline_rank(enum watch_deadline deadline)
{
	static const int ranks[] = {
		[WATCH_DEADLINE_NONE] = 0,
		[WATCH_DEADLINE_EXPIRED] = 1,
		[WATCH_DEADLINE_PENDING] = 2,
		[WATCH_DEADLINE_OVERDUE] = 3,
	};

	return ranks[deadline];
}

enum watch_deadline watch_deadline(const struct readyd_watch_info *w, int64_t now,
				   int64_t *ret_left)
{
	int64_t read_left, write_left;
	enum watch_deadline read, write;

	read = watch_slot_deadline(&w->read, now, &read_left);
	write = watch_slot_deadline(&w->write, now, &write_left);
	if (deadline_rank(read) > deadline_rank(write) ||
	    (read == write && read_left <= write_left)) {
		*ret_left = read_left;
		return read;
	}
	*ret_left = write_left;
	return write;
}

void watch_deadline_text(enum watch_deadline deadline, int64_t left, char ret[TEXT_SPAN_MAX])
{
	char span[TEXT_SPAN_MAX];

	text_span(left < 0 ? -left : left, span);
	switch (deadline) {
	case WATCH_DEADLINE_NONE:
		snprintf(ret, TEXT_SPAN_MAX, "-");
		break;
	case WATCH_DEADLINE_PENDING:
		snprintf(ret, TEXT_SPAN_MAX, "%s", span);
		break;
	case WATCH_DEADLINE_OVERDUE:
		snprintf(ret, TEXT_SPAN_MAX, "overdue%s%.32s", left ? " " : "", left ? span : "");
		break;
	case WATCH_DEADLINE_EXPIRED:
		snprintf(ret, TEXT_SPAN_MAX, "expired");
		break;
	}
}

static void print_slot(struct output *o, const struct readyd_slot_info *slot, bool wanted,
		       const char *state, const char *code, const char *since, const char *deadline)
{
	char codes[64];

	if (wanted)
		output_text(o, state, watch_slot_word(slot));
	watch_codes(slot->code, codes);
	if (*codes)
		output_text(o, code, codes);
	if (slot->since)
		output_time(o, since, slot->since);
	if (slot->deadline)
		output_time(o, deadline, slot->deadline);
}

static void print_deadline(struct output *o, const struct readyd_watch_info *w)
{
	static const char *const words[] = {
		[WATCH_DEADLINE_PENDING] = "pending",
		[WATCH_DEADLINE_OVERDUE] = "overdue",
		[WATCH_DEADLINE_EXPIRED] = "expired",
	};
	char text[TEXT_SPAN_MAX];
	int64_t left;
	enum watch_deadline deadline;

	deadline = watch_deadline(w, ctl_now(), &left);
	if (deadline == WATCH_DEADLINE_NONE)
		return;
	output_text(o, "deadline", words[deadline]);
	if (left)
		output_age(o, "remaining", left);
	watch_deadline_text(deadline, left, text);
	output_cell(o, "deadline", text);
}

/* SINCE: the oldest wait, or the watch itself where nobody waits. */
static void print_since(struct output *o, const struct readyd_watch_info *w)
{
	int64_t oldest = w->read.since;
	char span[TEXT_SPAN_MAX];

	if (!oldest || (w->write.since && w->write.since < oldest))
		oldest = w->write.since;
	output_time(o, "since", w->since);
	output_age(o, "age", ctl_age(w->since));
	if (oldest)
		output_age(o, "waited", ctl_age(oldest));
	text_span(ctl_age(oldest ? oldest : w->since), span);
	output_cell(o, "since", span);
}

void watch_row_print(struct output *o, struct text_processes *names,
		     const struct readyd_watch_info *w)
{
	char text[64];

	snprintf(text, sizeof(text), "%" PRIu64 "/%" PRIu32, w->session, (uint32_t)w->id);
	output_text(o, "id", text);
	output_number(o, "session", w->session);
	output_number(o, "watch", (uint32_t)w->id);
	output_number(o, "generation", w->id >> 32);
	output_number(o, "pid", w->pid);
	output_number(o, "uid", w->uid);
	output_process(o, "command", names, w->pid);
	if (w->fd >= 0)
		output_number(o, "fd", (uint64_t)w->fd);
	output_text(o, "kind", w->kind);
	output_text(o, "mode", watch_mode_word(w->mode));
	output_text(o, "interest", watch_interest_word(w->interest));
	print_slot(o, &w->read, w->interest & READYD_READ, "read", "read_code", "read_since",
		   "read_deadline");
	print_slot(o, &w->write, w->interest & READYD_WRITE, "write", "write_code", "write_since",
		   "write_deadline");
	print_since(o, w);
	print_deadline(o, w);
	output_number(o, "fired", w->fired);
	snprintf(text, sizeof(text), "0x%" PRIx64, w->cookie);
	output_text(o, "cookie", text);
	if (w->lane)
		output_number(o, "lane", w->lane);
	output_bool(o, "closing", w->closing);
	output_bool(o, "error", w->error);
}
