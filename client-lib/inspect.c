/* SPDX-License-Identifier: MIT */

/*
 * Inspection: the daemon's status, and lists of sessions, watches, timers, quotas, parks and groups.
 *
 * A list is an iterator: it holds one reply message and its place in it, and asks for the next when
 * that is read (the daemon says MORE, and the last row's cursor continues there). Rows are copied
 * into the caller's struct, as much of it as both sides know. Times are told in the caller's
 * clock. Texts from the daemon are bounded and printable.
 */

#include "internal.h"

#include <stdlib.h>
#include <string.h>

struct readyd_list {
	struct readyd *r;
	struct wire_list ask;
	unsigned request; /* WIRE_LIST_... */
	unsigned reply;   /* the type of its answer */
	bool more;        /* the daemon has rows after these */
	uint32_t epoch;   /* of the connection that the rows came on */
	uint64_t session; /* the handle's own there */
	unsigned n, next; /* rows in the message at hand, and which comes next */
	size_t text;      /* of parks and groups: where the next row's texts begin */
	_Alignas(8) uint8_t message[WIRE_MESSAGE_MAX];
};

_Static_assert(READYD_SLOT_IDLE == (int)WIRE_SLOT_IDLE && READYD_SLOT_DONE == (int)WIRE_SLOT_DONE &&
		       READYD_SLOT_READY == (int)WIRE_SLOT_READY &&
		       READYD_SLOT_WAITING == (int)WIRE_SLOT_WAITING,
	       "states go through as they are");

/* Copies a full struct into one of the caller's, whose first word is its size, and stays it. */
static void copy_sized(void *to, const void *from, size_t full)
{
	size_t size;

	memcpy(&size, to, sizeof(size));
	if (size <= sizeof(size))
		return;
	memset((uint8_t *)to + sizeof(size), 0, size - sizeof(size));
	memcpy((uint8_t *)to + sizeof(size), (const uint8_t *)from + sizeof(size),
	       (size < full ? size : full) - sizeof(size));
}

/* ---- Status ---- */

/* The next of the zero-terminated texts in a tail. */
static void text_take(const char **p, const char *end, char *ret, size_t size)
{
	size_t n = strnlen(*p, (size_t)(end - *p));

	rd_printable(ret, size, *p, n);
	*p += n;
	if (*p < end)
		(*p)++;
}

static void status_fill(const struct readyd *r, const struct wire_status *w, const char *tail,
			size_t n, struct readyd_status *s)
{
	const char *end = tail + n;

	*s = (struct readyd_status){
		.now = rd_time_from_daemon(r, w->now),
		.started = rd_time_from_daemon(r, w->started),
		.pid = w->pid,
		.protocol = w->protocol,
		.connections = w->connections,
		.watches = w->watches,
		.waiting = w->waiting,
		.timers = w->timers,
		.deadlines = w->deadlines,
		.overdue = w->overdue,
		.fds = w->fds,
		.fds_max = w->fds_max,
		.turns = w->turns,
		.events = w->events,
		.entries = w->entries,
		.messages = w->messages,
		.coalesced = w->coalesced,
		.stale = w->stale,
		.breaks = w->breaks,
		.accepted = w->accepted,
		.refused = w->refused,
		.failures = w->failures,
		.turn_longest = w->turn_longest,
		.began = rd_time_from_daemon(r, w->began),
		.restarts = w->restarts,
		.left_behind = w->left_behind,
		.parks = w->parks,
		.parks_handed = w->parks_handed,
		.parks_ready = w->parks_ready,
		.holders = w->holders,
		.holders_left = w->holders_left,
	};
	text_take(&tail, end, s->version, sizeof(s->version));
	text_take(&tail, end, s->backend, sizeof(s->backend));
	text_take(&tail, end, s->socket, sizeof(s->socket));
}

static int ask_reply(struct readyd *r, struct rd_request *q, unsigned type, const void *record,
		     size_t n)
{
	int error = rd_ask(r, q, type, record, n, NULL, 0);

	if (error)
		return error;
	if (q->error)
		return rd_fail(r, rd_errno_of(q->error), "%s was refused: %s", wire_type_name(type),
			       wire_error_text(q->error));
	return 0;
}

static int get_status(struct readyd *r, struct readyd_status *ret)
{
	RD_CLEANUP_MEMORY uint8_t *message = malloc(WIRE_MESSAGE_MAX);
	struct rd_request q = {.reply_type = WIRE_STATUS, .reply = message};
	struct readyd_status full;
	struct wire_view view;
	int error;

	if (!message)
		return rd_fail(r, -ENOMEM, "no memory for the daemon's reply");
	error = ask_reply(r, &q, WIRE_GET_STATUS, NULL, 0);
	if (error)
		return error;
	/* It was checked when it was received. */
	if (wire_decode(message, q.reply_size, false, &view, NULL) != WIRE_OK)
		return -EPROTO;
	status_fill(r, view.records, view.tail, view.header.tail, &full);
	copy_sized(ret, &full, sizeof(full));
	return 0;
}

int readyd_get_status(struct readyd *r, struct readyd_status *ret)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = get_status(r, ret);
	rd_leave(r);
	return error;
}

/* ---- Lists ---- */

static int list_make(struct readyd *r, const struct readyd_filter *f, unsigned request,
		     unsigned reply, struct readyd_list **ret)
{
	struct readyd_filter filter = {.size = sizeof(filter), .uid = UINT32_MAX};
	struct readyd_list *l;
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	rd_leave(r);
	if (f)
		memcpy(&filter, f, f->size < sizeof(filter) ? f->size : sizeof(filter));
	l = malloc(sizeof(*l));
	if (!l)
		return rd_fail(r, -ENOMEM, "no memory for a list");
	l->r = r;
	l->request = request;
	l->reply = reply;
	l->more = true;
	l->n = l->next = 0;
	l->text = 0;
	l->ask = (struct wire_list){
		.session = filter.session,
		.uid = filter.uid,
		.pid = filter.pid,
		.id = filter.id,
	};
	*ret = l;
	return 0;
}

int readyd_list_sessions(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret)
{
	return list_make(r, f, WIRE_LIST_SESSIONS, WIRE_SESSIONS, ret);
}

int readyd_list_watches(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret)
{
	return list_make(r, f, WIRE_LIST_WATCHES, WIRE_WATCHES, ret);
}

int readyd_list_timers(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret)
{
	return list_make(r, f, WIRE_LIST_TIMERS, WIRE_TIMERS, ret);
}

int readyd_list_quotas(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret)
{
	return list_make(r, f, WIRE_LIST_QUOTAS, WIRE_QUOTAS, ret);
}

int readyd_list_parks(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret)
{
	return list_make(r, f, WIRE_LIST_PARKS, WIRE_PARKS, ret);
}

int readyd_list_groups(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret)
{
	return list_make(r, f, WIRE_LIST_GROUPS, WIRE_GROUPS, ret);
}

struct readyd_list *readyd_list_free(struct readyd_list *l)
{
	RD_KEEP_ERRNO;

	free(l);
	return NULL;
}

/* The i-th row of the message at hand. Every row begins with its cursor. */
static const void *row_at(const struct readyd_list *l, unsigned i)
{
	return l->message + sizeof(struct wire_header) +
	       (size_t)i * (size_t)wire_record_size(l->reply);
}

/* The first rows from whatever daemon answers; the rest from that one, or not at all: another one's
 * cursors are others. */
static int list_ask_once(struct readyd_list *l, struct rd_request *q)
{
	struct readyd *r = l->r;
	int error;

	if (!l->ask.cursor)
		return ask_reply(r, q, l->request, &l->ask, 1);
	error = rd_ask_once(r, q, l->epoch, l->request, &l->ask, 1, NULL, 0);
	if (!error && q->lost)
		return rd_fail(r, -ECONNRESET,
			       "the list was cut: the daemon was restarted; begin "
			       "it anew");
	if (!error && q->error)
		return rd_fail(r, rd_errno_of(q->error), "%s was refused: %s",
			       wire_type_name(l->request), wire_error_text(q->error));
	return error;
}

static int list_ask(struct readyd_list *l)
{
	struct rd_request q = {.reply_type = (uint16_t)l->reply, .reply = l->message};
	struct wire_header header;
	int error;

	if (l->n)
		memcpy(&l->ask.cursor, row_at(l, l->n - 1), sizeof(l->ask.cursor));
	l->n = l->next = 0;
	error = list_ask_once(l, &q);
	if (error)
		return error;
	l->epoch = l->r->resume.epoch;
	l->session = l->r->session;
	memcpy(&header, l->message, sizeof(header));
	l->n = header.count;
	l->text = sizeof(header) + header.count * (size_t)wire_record_size(l->reply);
	l->more =
		header.flags & WIRE_FLAG_MORE && header.count; /* no row, no cursor to go on from */
	return 0;
}

/* The next row: 1 and *ret_row; 0 at the end; or a negative errno. */
static int list_next(struct readyd_list *l, unsigned reply, const void **ret_row)
{
	int error;

	if (l->reply != reply)
		return rd_fail(l->r, -EINVAL, "this is a list of other rows");
	error = rd_enter(l->r);
	if (error)
		return error;
	while (!error && l->next == l->n && l->more)
		error = list_ask(l);
	rd_leave(l->r);
	if (error)
		return error;
	if (l->next == l->n)
		return 0;
	*ret_row = row_at(l, l->next++);
	return 1;
}

int readyd_next_session(struct readyd_list *l, struct readyd_session_info *row)
{
	const struct wire_session_row *w;
	struct readyd_session_info full;
	const void *p = NULL;
	RD_KEEP_ERRNO;
	int result = list_next(l, WIRE_SESSIONS, &p);

	if (result <= 0)
		return result;
	w = p;
	full = (struct readyd_session_info){
		.session = w->session,
		.since = rd_time_from_daemon(l->r, w->since),
		.pid = w->pid,
		.uid = w->uid,
		.gid = w->gid,
		.blocked = (w->flags & WIRE_SESSION_BLOCKED) != 0,
		.self = (w->flags & WIRE_SESSION_SELF) != 0,
		.watches = w->watches,
		.waiting = w->waiting,
		.timers = w->timers,
		.ready = w->ready,
		.requests = w->requests,
		.events = w->events,
		.entries = w->entries,
		.messages = w->messages,
		.coalesced = w->coalesced,
		.stale = w->stale,
	};
	copy_sized(row, &full, sizeof(full));
	return 1;
}

static struct readyd_slot_info slot_of(const struct readyd *r, uint8_t state, uint8_t code,
				       int64_t since, int64_t deadline)
{
	return (struct readyd_slot_info){
		.state = state,
		.code = code,
		.since = rd_time_from_daemon(r, since),
		.deadline = rd_time_from_daemon(r, deadline),
	};
}

int readyd_next_watch(struct readyd_list *l, struct readyd_watch_info *row)
{
	const struct wire_watch_row *w;
	struct readyd_watch_info full;
	const void *p = NULL;
	const char *kind;
	RD_KEEP_ERRNO;
	int result = list_next(l, WIRE_WATCHES, &p);

	if (result <= 0)
		return result;
	w = p;
	full = (struct readyd_watch_info){
		.session = w->session,
		.cookie = w->cookie,
		.since = rd_time_from_daemon(l->r, w->since),
		.fired = w->fired,
		.read = slot_of(l->r, w->read_state, w->read_code, w->read_since, w->read_deadline),
		.write = slot_of(l->r, w->write_state, w->write_code, w->write_since,
				 w->write_deadline),
		/* One's own by the name that the program knows. */
		.id = rd_id(w->id, w->session == l->session ? w->gen - l->epoch : w->gen),
		.pid = w->pid,
		.uid = w->uid,
		.fd = w->fd,
		.interest = w->interest,
		.mode = w->mode,
		.lane = w->lane,
		.closing = (w->flags & WIRE_WATCH_CLOSING) != 0,
		.error = (w->flags & WIRE_WATCH_ERROR) != 0,
	};
	kind = wire_kind_name(w->kind);
	rd_printable(full.kind, sizeof(full.kind), kind, strlen(kind));
	copy_sized(row, &full, sizeof(full));
	return 1;
}

int readyd_next_timer(struct readyd_list *l, struct readyd_timer_info *row)
{
	const struct wire_timer_row *w;
	struct readyd_timer_info full;
	const void *p = NULL;
	RD_KEEP_ERRNO;
	int result = list_next(l, WIRE_TIMERS, &p);

	if (result <= 0)
		return result;
	w = p;
	full = (struct readyd_timer_info){
		.session = w->session,
		.cookie = w->cookie,
		.when = rd_time_from_daemon(l->r, w->when),
		.period = w->period,
		.id = rd_id(w->id, w->gen),
		.pid = w->pid,
		.uid = w->uid,
		.count = w->count,
	};
	copy_sized(row, &full, sizeof(full));
	return 1;
}

int readyd_next_quota(struct readyd_list *l, struct readyd_quota_info *row)
{
	const struct wire_quota_row *w;
	struct readyd_quota_info full;
	const void *p = NULL;
	const char *name;
	RD_KEEP_ERRNO;
	int result = list_next(l, WIRE_QUOTAS, &p);

	if (result <= 0)
		return result;
	w = p;
	full = (struct readyd_quota_info){.used = w->used, .limit = w->limit, .uid = w->uid};
	name = wire_quota_name(w->quota);
	rd_printable(full.name, sizeof(full.name), name, strlen(name));
	copy_sized(row, &full, sizeof(full));
	return 1;
}

/* The next of a row's texts. They were checked when the message was received. */
static const void *row_text(struct readyd_list *l, size_t n)
{
	const void *text = l->message + l->text;

	l->text += n;
	return text;
}

int readyd_next_park(struct readyd_list *l, struct readyd_park_info *row)
{
	const struct wire_park_row *w;
	struct readyd_park_info full;
	const void *p = NULL;
	const char *kind;
	RD_KEEP_ERRNO;
	int result = list_next(l, WIRE_PARKS, &p);

	if (result <= 0)
		return result;
	w = p;
	full = (struct readyd_park_info){
		.park = w->park,
		.cookie = w->cookie,
		.parked = rd_time_from_daemon(l->r, w->parked),
		.deadline = rd_time_from_daemon(l->r, w->deadline),
		.uid = w->uid,
		.flags = w->flags,
		.pid = w->pid,
		.worker_pid = w->worker_pid,
		.fd = w->fd,
		.handed = w->state == WIRE_PARK_HANDED,
		.ready = w->ready,
		.timed_out = w->timed_out,
		.interest = w->interest,
		.shared = w->shared,
		.note_length = w->note_length,
		.local_length = w->local_length,
		.peer_length = w->peer_length,
	};
	memcpy(full.name, row_text(l, w->name_length), w->name_length);
	memcpy(full.group, row_text(l, w->group_length), w->group_length);
	memcpy(full.local, row_text(l, w->local_length), w->local_length);
	memcpy(full.peer, row_text(l, w->peer_length), w->peer_length);
	kind = wire_kind_name(w->kind);
	rd_printable(full.kind, sizeof(full.kind), kind, strlen(kind));
	copy_sized(row, &full, sizeof(full));
	return 1;
}

int readyd_next_group(struct readyd_list *l, struct readyd_group_info *row)
{
	const struct wire_group_row *w;
	struct readyd_group_info full;
	const void *p = NULL;
	RD_KEEP_ERRNO;
	int result = list_next(l, WIRE_GROUPS, &p);

	if (result <= 0)
		return result;
	w = p;
	full = (struct readyd_group_info){
		.parks = w->parks,
		.ready = w->ready,
		.handed = w->handed,
		.oldest = rd_time_from_daemon(l->r, w->oldest),
		.credit = w->credit,
		.capacity = w->capacity,
		.uid = w->uid,
		.workers = w->workers,
	};
	memcpy(full.group, row_text(l, w->group_length), w->group_length);
	copy_sized(row, &full, sizeof(full));
	return 1;
}
