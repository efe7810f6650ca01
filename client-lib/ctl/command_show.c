/* SPDX-License-Identifier: MIT */
#include "watch_row.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <string.h>

/*
 * show: one watch, in words for a person; as JSON the row of `list`. The daemon's filter finds it
 * by session and id; the generation is not asked for, since an id is one watch at a time.
 */

static const struct output_field fields[] = {
	{"Watch", "watch", OUTPUT_NO_JSON},       {"Process", "process", OUTPUT_NO_JSON},
	{"User", "user", OUTPUT_NO_JSON},         {"Fd", "fd", OUTPUT_NO_JSON},
	{"Kind", "kind", OUTPUT_NO_JSON},         {"Mode", "mode", OUTPUT_NO_JSON},
	{"Interest", "interest", OUTPUT_NO_JSON}, {"Read", "read", OUTPUT_NO_JSON},
	{"Write", "write", OUTPUT_NO_JSON},       {"Watched for", "age", OUTPUT_NO_JSON},
	{"Fired", "fired", OUTPUT_NO_JSON},       {"Cookie", "cookie", OUTPUT_NO_JSON},
	{"Lane", "lane", OUTPUT_NO_JSON},         {"State", "state", OUTPUT_NO_JSON},
};

static const char *kind_words(const char *kind)
{
	static const struct {
		const char *kind, *words;
	} table[] = {
		{"unix", "Unix socket"},
		{"inet", "IPv4 socket"},
		{"inet6", "IPv6 socket"},
		{"netlink", "netlink socket"},
		{"pipe", "pipe or FIFO"},
		{"tty", "terminal"},
		{"socket", "socket of another family"},
		{"character", "character device"},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (!strcmp(kind, table[i].kind))
			return table[i].words;
	return kind;
}

static void print_process(struct output *o, const struct readyd_watch_info *w)
{
	struct text_processes names = {0};
	const struct passwd *user = getpwuid(w->uid);
	const char *name = NULL;
	char text[256];

	switch (text_process_name(&names, w->pid, &name)) {
	case TEXT_PROCESS_ALIVE:
		snprintf(text, sizeof(text), "%" PRIu32 " (%s)", w->pid, name);
		break;
	case TEXT_PROCESS_EXITED:
		snprintf(text, sizeof(text), "%" PRIu32 ", exited", w->pid);
		break;
	case TEXT_PROCESS_UNKNOWN:
		snprintf(text, sizeof(text), "%" PRIu32, w->pid);
		break;
	}
	output_text(o, "process", text);
	if (user)
		snprintf(text, sizeof(text), "%" PRIu32 " (%s)", w->uid, user->pw_name);
	else
		snprintf(text, sizeof(text), "%" PRIu32, w->uid);
	output_text(o, "user", text);
}

static void print_slot(struct output *o, const char *key, const struct readyd_slot_info *slot,
		       bool wanted)
{
	char text[256], span[TEXT_SPAN_MAX], codes[64], deadline[TEXT_SPAN_MAX];
	enum watch_deadline state;
	int64_t left;

	if (!wanted) {
		output_text(o, key, "not watched");
		return;
	}
	text_span(ctl_age(slot->since), span);
	watch_codes(slot->code, codes);
	state = watch_slot_deadline(slot, ctl_now(), &left);
	watch_deadline_text(state, left, deadline);
	snprintf(text, sizeof(text), "%s%s%s%s%s%s%s%s", watch_slot_word(slot),
		 slot->since ? " for " : "", slot->since ? span : "",
		 *codes ? ", not sent yet: " : "", codes,
		 state == WATCH_DEADLINE_NONE ? "" : "; deadline ",
		 state == WATCH_DEADLINE_PENDING ? "in " : "",
		 state == WATCH_DEADLINE_NONE ? "" : deadline);
	output_text(o, key, text);
}

static void print_watch(struct output *o, const struct readyd_watch_info *w)
{
	char text[128];

	snprintf(text, sizeof(text), "%" PRIu64 "/%" PRIu32 " (generation %" PRIu32 ")", w->session,
		 (uint32_t)w->id, (uint32_t)(w->id >> 32));
	output_text(o, "watch", text);
	print_process(o, w);
	if (w->fd >= 0)
		output_number(o, "fd", (uint64_t)w->fd);
	else
		output_text(o, "fd", "not told");
	output_text(o, "kind", kind_words(w->kind));
	output_text(o, "mode",
		    w->mode == READYD_WAIT ? "wait: one entry for each wait"
					   : "stream: each edge, merged until sent");
	output_text(o, "interest",
		    w->interest == READYD_READ    ? "read"
		    : w->interest == READYD_WRITE ? "write"
						  : "read and write");
	print_slot(o, "read", &w->read, w->interest & READYD_READ);
	print_slot(o, "write", &w->write, w->interest & READYD_WRITE);
	output_age(o, "age", ctl_age(w->since));
	snprintf(text, sizeof(text), "%" PRIu64 " %s", w->fired,
		 w->fired == 1 ? "entry" : "entries");
	output_text(o, "fired", text);
	snprintf(text, sizeof(text), "0x%" PRIx64, w->cookie);
	output_text(o, "cookie", text);
	if (w->lane)
		output_number(o, "lane", w->lane);
	else
		output_text(o, "lane", "none");
	output_text(o, "state",
		    w->closing ? "evicted: only unwatch is left"
		    : w->error ? "live; the kernel's last word was a bare error"
			       : "live");
}

static int print_found(const struct ctl *ctl, const struct readyd_watch_info *w)
{
	struct text_processes names = {0};
	output_auto *o = NULL;

	if (ctl->given & CTL_JSON) {
		o = output_new_form(ctl, watch_row_fields, watch_row_n_fields);
		if (o)
			watch_row_print(o, &names, w);
	} else {
		o = output_new_form(ctl, fields, sizeof(fields) / sizeof(fields[0]));
		if (o)
			print_watch(o, w);
	}
	return output_finish(o);
}

int command_show(const struct ctl *ctl)
{
	struct readyd_filter filter = {.size = sizeof(filter), .uid = UINT32_MAX};
	struct readyd_watch_info row = {.size = sizeof(row)};
	ctl_handle *r = NULL;
	ctl_list_rows *rows = NULL;
	int status, n;

	if (text_parse_id(ctl->arguments[0], &filter.session, &filter.id) < 0) {
		ctl_complain(
			"'%s' is no id of a watch; write SESSION/ID as 'readyctl list' prints it",
			ctl->arguments[0]);
		return CTL_USAGE;
	}
	status = ctl_connect(ctl, &r);
	if (status)
		return status;
	n = readyd_list_watches(r, &filter, &rows);
	if (!n)
		n = readyd_next_watch(rows, &row);
	if (n < 0 && n != -ENOENT)
		return ctl_request_failed(r, n);
	if (n <= 0) {
		ctl_complain("no watch %s; 'readyctl list' has those that you may see",
			     ctl->arguments[0]);
		return CTL_REFUSED;
	}
	return print_found(ctl, &row);
}
