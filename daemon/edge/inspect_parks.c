/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "parking.h"
#include "request.h"
#include "sending.h"
#include "sharing.h"

/*
 * Replies to LIST_PARKS. As with the other lists nothing is kept between two of them: the cursor is
 * the place in the core's table. The texts of the rows are gathered where, later in the turn, ready
 * lists are made.
 */

enum {
	TEXT_SIZE = sizeof(struct wire_header) + WIRE_RECORDS_MAX * sizeof(struct wire_entry),
	ROWS_MAX = (WIRE_MESSAGE_MAX - sizeof(struct wire_header) - TEXT_SIZE) /
		   sizeof(struct wire_park_row),
};

static bool visible(const struct connection *asker, const struct wire_list *f, const struct park *p,
		    uint32_t pid)
{
	const uint8_t *group = p->text.bytes + p->text.name_length;

	return (asker->rights.inspect || p->owner->uid == asker->who.uid ||
		(p->shared && sharing_may_list(asker, group, p->text.group_length))) &&
	       (f->uid == UINT32_MAX || f->uid == p->owner->uid) &&
	       (f->pid == 0 || f->pid == pid) && (f->id == 0 || f->id == (uint32_t)p->number);
}

static uint32_t pid_of(const struct park_handle *h)
{
	const struct peer *peer = h ? peer_of_handle(h) : NULL;

	return peer && peer->pidfd >= 0 ? (uint32_t)peer->pid : 0;
}

/* Name, group and addresses; the note in their midst is nobody's to see. */
static size_t copy_texts(uint8_t *to, const struct park_text *t)
{
	size_t names = (size_t)t->name_length + t->group_length;
	size_t addresses = (size_t)t->local_length + t->peer_length;

	memcpy(to, t->bytes, names);
	memcpy(to + names, t->bytes + names + t->note_length, addresses);
	return names + addresses;
}

static struct wire_park_row row_of(const struct park *p, uint64_t cursor)
{
	return (struct wire_park_row){
		.cursor = cursor,
		.park = p->number,
		.cookie = p->cookie,
		.parked = p->parked,
		.deadline = p->deadline,
		.uid = p->owner->uid,
		.flags = p->flags,
		.pid = pid_of(p->maker),
		.worker_pid = pid_of(p->worker),
		.state = p->state == PARK_HANDED ? WIRE_PARK_HANDED : WIRE_PARK_HELD,
		.ready = p->ready,
		.timed_out = p->timed_out,
		.kind = p->kind,
		.note_length = p->text.note_length,
		.name_length = p->text.name_length,
		.group_length = p->text.group_length,
		.local_length = p->text.local_length,
		.peer_length = p->text.peer_length,
		.interest = p->interest,
		.shared = p->shared,
		.fd = p->told_fd,
	};
}

void inspect_parks(struct connection *c, const struct wire_view *request)
{
	const struct wire_list *f = request->records;
	struct server *s = c->server;
	struct wire_park_row *rows = (void *)s->buffers.rows;
	uint8_t *text = s->buffers.ready;
	unsigned n = 0, max = f->limit != 0 && f->limit < ROWS_MAX ? f->limit : (unsigned)ROWS_MAX;
	uint64_t cursor = f->cursor;
	const struct park *p;
	bool more = false;
	size_t used = 0;

	_Static_assert(ROWS_MAX * sizeof(*rows) <= SERVER_ROWS_SIZE, "the rows have room");
	while ((p = parks_next(s->parks, NULL, &cursor))) {
		if (p->state == PARK_GONE || !visible(c, f, p, pid_of(p->maker)))
			continue;
		more = n == max || TEXT_SIZE - used < PARK_TEXT_MAX;
		if (more)
			break;
		rows[n++] = row_of(p, cursor);
		used += copy_texts(text + used, &p->text);
	}
	sending_add_message(c, WIRE_PARKS, more ? WIRE_FLAG_MORE : 0, request->header.serial, rows,
			    n, text, used);
}
