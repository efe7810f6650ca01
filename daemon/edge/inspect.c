/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "config/config.h"
#include "parking.h"
#include "request.h"
#include "sending.h"

/*
 * Replies to GET_STATUS and LIST_*. The daemon keeps no state between the replies of a list: each
 * row carries a cursor, and the next request names the last one. Rows of another user are shown to
 * those who may inspect; to all others they do not exist.
 *
 * A reply looks at a bounded number of places. Where none of them had a row to show, a row of
 * session 0 carries nothing but the cursor.
 */

enum { SCAN_MAX = 16384 }; /* places of the table that one reply looks at */

/* A reply that is being filled. */
struct rows {
	struct connection *c;
	const struct wire_list *filter;
	uint8_t *bytes;
	size_t row_size;
	unsigned n;
	unsigned max;
	bool more;
};

static bool visible(const struct rows *rows, const struct connection *owner)
{
	const struct wire_list *f = rows->filter;

	return (rows->c->rights.inspect || owner->who.uid == rows->c->who.uid) &&
	       (f->session == 0 || f->session == owner->number) &&
	       (f->uid == UINT32_MAX || f->uid == owner->who.uid) &&
	       (f->pid == 0 || f->pid == (uint32_t)owner->who.pid);
}

/* A place for the next row, zeroed; NULL when the reply is full. */
static void *next_row(struct rows *rows)
{
	void *row;

	if (rows->n == rows->max) {
		rows->more = true;
		return NULL;
	}
	row = rows->bytes + rows->n++ * rows->row_size;
	memset(row, 0, rows->row_size);
	return row;
}

/* ---- Status ---- */

void inspect_show_counts(const struct server *s)
{
	const struct core_stats *core = core_stats(s->core);
	const struct progress_counts counts = {
		.connections = s->stats.connections,
		.watches = core->watches,
		.waiting = core->waiting,
		.timers = core->timers,
	};

	progress_count(&s->progress, &counts);
}

/* What the fd table holds: counted, since reading /proc would open something. */
static uint64_t count_fds(const struct server *s)
{
	const struct core_stats *core = core_stats(s->core);
	struct parking_counts parking;
	uint64_t n = s->base_fds + s->stats.connections;

	parking_count(s, &parking);
	n += parking.fds;
	return poller_caps(s->poller) & POLLER_WEAK ? n + core->sessions : n + core->watches;
}

static size_t add_text(char *text, size_t size, size_t used, const char *word)
{
	size_t length = strnlen(word, size - used - 1);

	memcpy(text + used, word, length);
	text[used + length] = '\0';
	return used + length + 1;
}

void inspect_status(struct connection *c, const struct wire_view *request)
{
	const struct server *s = c->server;
	const struct core_stats *core = core_stats(s->core);
	const struct parks_stats *parks = parks_stats(s->parks);
	struct parking_counts parking;
	struct wire_status row = {
		.now = s->now,
		.started = s->started,
		.pid = s->pid,
		.protocol = WIRE_PROTOCOL_HIGHEST,
		.connections = s->stats.connections,
		.watches = core->watches,
		.waiting = core->waiting,
		.timers = core->timers,
		.deadlines = core->deadlines,
		.overdue = core->overdue,
		.fds = count_fds(s),
		.fds_max = s->max_fds,
		.turns = s->stats.turns,
		.events = core->events,
		.entries = core->entries,
		.messages = s->stats.messages,
		.coalesced = core->coalesced,
		.stale = core->stale,
		.breaks = core->breaks,
		.accepted = s->stats.accepted,
		.refused = s->stats.refused,
		.failures = s->stats.failures,
		.turn_longest = (uint64_t)s->stats.turn_longest,
		.began = s->history.began,
		.restarts = s->history.restarts,
		.left_behind = s->history.left_behind,
		.parks = parks->parks,
		.parks_handed = parks->handed,
		.parks_ready = parks->ready,
		.holders_left = s->history.holders_left,
	};
	char text[512];
	size_t used = 0;

	parking_count(s, &parking);
	row.holders = parking.holders;
	used = add_text(text, sizeof(text), used, READYD_VERSION);
	used = add_text(text, sizeof(text), used, s->poller->backend->name);
	used = add_text(text, sizeof(text), used, s->listener.address);
	sending_add_message(c, WIRE_STATUS, 0, request->header.serial, &row, 1, text, used);
}

/* ---- Lists ---- */

static void fill_session(struct wire_session_row *row, const struct connection *c,
			 const struct connection *asker)
{
	const struct session_stats *stats = session_stats(c->session);

	row->session = c->number;
	row->since = c->since;
	row->pid = (uint32_t)c->who.pid;
	row->uid = c->who.uid;
	row->gid = c->who.gid;
	row->flags = (c->blocked ? (uint32_t)WIRE_SESSION_BLOCKED : 0) |
		     (c == asker ? (uint32_t)WIRE_SESSION_SELF : 0);
	row->watches = stats->watches;
	row->waiting = stats->waiting;
	row->timers = stats->timers;
	row->ready = stats->ready;
	row->requests = c->requests;
	row->events = stats->events;
	row->entries = stats->entries;
	row->messages = stats->messages;
	row->coalesced = stats->coalesced;
	row->stale = stats->stale;
}

static void list_sessions(struct rows *rows)
{
	uint32_t index = (uint32_t)rows->filter->cursor;
	struct connection *c;

	while ((c = server_next_connection(rows->c->server, &index))) {
		struct wire_session_row *row;

		if (!visible(rows, c))
			continue;
		row = next_row(rows);
		if (!row)
			return;
		fill_session(row, c, rows->c);
		row->cursor = index;
	}
}

static void fill_watch(struct wire_watch_row *row, const struct core_item_info *item)
{
	row->cookie = item->cookie;
	row->since = item->since;
	row->read_since = item->read.since;
	row->write_since = item->write.since;
	row->read_deadline = item->read.deadline;
	row->write_deadline = item->write.deadline;
	row->fired = item->fired;
	row->id = item->id;
	row->gen = item->gen;
	row->fd = item->fd;
	row->kind = item->kind;
	row->interest = item->interest;
	row->mode = item->mode;
	row->read_state = item->read.state;
	row->write_state = item->write.state;
	row->read_code = item->read.code;
	row->write_code = item->write.code;
	row->flags = (item->closing ? (uint32_t)WIRE_WATCH_CLOSING : 0) |
		     (item->error ? (uint32_t)WIRE_WATCH_ERROR : 0);
}

static void fill_timer(struct wire_timer_row *row, const struct core_item_info *item)
{
	row->cookie = item->cookie;
	row->when = item->when;
	row->period = item->period;
	row->id = item->id;
	row->gen = item->gen;
	row->count = item->count;
}

static bool wanted(const struct rows *rows, const struct core_item_info *item, bool timers)
{
	return item->timer == timers && visible(rows, session_owner(item->session)) &&
	       (rows->filter->id == 0 || rows->filter->id == item->id);
}

static void add_watch(struct rows *rows, struct wire_watch_row *row,
		      const struct core_item_info *item, uint64_t cursor)
{
	const struct connection *owner = session_owner(item->session);

	fill_watch(row, item);
	row->cursor = cursor;
	row->session = owner->number;
	row->pid = (uint32_t)owner->who.pid;
	row->uid = owner->who.uid;
	if (poller_caps(rows->c->server->poller) & POLLER_WEAK)
		row->lane = (uint8_t)item->word;
}

static void add_timer(struct wire_timer_row *row, const struct core_item_info *item,
		      uint64_t cursor)
{
	const struct connection *owner = session_owner(item->session);

	fill_timer(row, item);
	row->cursor = cursor;
	row->session = owner->number;
	row->pid = (uint32_t)owner->who.pid;
	row->uid = owner->who.uid;
}

static void list_items(struct rows *rows, bool timers)
{
	const struct core *core = rows->c->server->core;
	uint64_t cursor = rows->filter->cursor, last = core_last_item(core);
	struct core_item_info item;
	uint64_t *row;

	if (cursor < last && last - cursor > SCAN_MAX)
		last = cursor + SCAN_MAX;
	while (core_next_item_until(core, &cursor, last, &item)) {
		if (!wanted(rows, &item, timers))
			continue;
		row = next_row(rows);
		if (!row)
			return;
		if (timers)
			add_timer((void *)row, &item, cursor);
		else
			add_watch(rows, (void *)row, &item, cursor);
	}
	if (last >= core_last_item(core))
		return;
	rows->more = true;
	if (rows->n > 0)
		return; /* the last row's cursor does */
	row = next_row(rows);
	row[0] = last; /* cursor is every row's first field */
}

/* The cursor is (uid << 8 | kind) + 1: an account's rows may be split between replies. */
static void list_quotas(struct rows *rows)
{
	const struct wire_list *f = rows->filter;
	struct server *s = rows->c->server;
	struct account *account;
	int64_t after = f->cursor ? (int64_t)((f->cursor - 1) >> 8) - 1 : -1;

	for (; (account = accounts_next(&s->accounts, after)); after = account->uid) {
		if (!rows->c->rights.inspect && account->uid != rows->c->who.uid)
			continue;
		if (f->uid != UINT32_MAX && f->uid != account->uid)
			continue;
		for (unsigned kind = 0; kind < QUOTA_MAX; kind++) {
			uint64_t cursor = ((uint64_t)account->uid << 8 | kind) + 1;
			struct wire_quota_row *row;

			if (cursor <= f->cursor)
				continue;
			row = next_row(rows);
			if (!row)
				return;
			row->cursor = cursor;
			row->used = account->quota.used[kind];
			row->limit = account->quota.limit[kind];
			row->uid = account->uid;
			row->quota = kind;
		}
	}
}

static unsigned reply_type(unsigned request)
{
	switch (request) {
	case WIRE_LIST_SESSIONS:
		return WIRE_SESSIONS;
	case WIRE_LIST_WATCHES:
		return WIRE_WATCHES;
	case WIRE_LIST_TIMERS:
		return WIRE_TIMERS;
	default:
		return WIRE_QUOTAS;
	}
}

void inspect_list(struct connection *c, const struct wire_view *request)
{
	unsigned type = reply_type(request->header.type);
	struct rows rows = {
		.c = c,
		.filter = request->records,
		.bytes = c->server->buffers.rows,
		.row_size = (size_t)wire_record_size(type),
	};

	rows.max = (unsigned)(SERVER_ROWS_SIZE / rows.row_size);
	if (rows.max > WIRE_RECORDS_MAX)
		rows.max = WIRE_RECORDS_MAX;
	if (rows.filter->limit != 0 && rows.filter->limit < rows.max)
		rows.max = rows.filter->limit;
	switch (request->header.type) {
	case WIRE_LIST_SESSIONS:
		list_sessions(&rows);
		break;
	case WIRE_LIST_WATCHES:
		list_items(&rows, false);
		break;
	case WIRE_LIST_TIMERS:
		list_items(&rows, true);
		break;
	default:
		list_quotas(&rows);
		break;
	}
	sending_add_message(c, type, rows.more ? WIRE_FLAG_MORE : 0, request->header.serial,
			    rows.bytes, rows.n, NULL, 0);
}
