/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "daemon/core/park_group.h"
#include "grouping.h"
#include "sending.h"
#include "sharing.h"

/*
 * Replies to LIST_GROUPS. The cursor is the group's number: groups stand in the order in which they
 * were made, and a new one comes last.
 */

enum {
	TEXT_SIZE = sizeof(struct wire_header) + WIRE_RECORDS_MAX * sizeof(struct wire_entry),
	ROWS_MAX = (WIRE_MESSAGE_MAX - sizeof(struct wire_header) - TEXT_SIZE) /
		   sizeof(struct wire_group_row),
};

static uint32_t uid_of(const struct park_group *g)
{
	return g->owner ? g->owner->uid : UINT32_MAX;
}

static bool visible(const struct connection *asker, const struct wire_list *f,
		    const struct park_group *g)
{
	if (f->uid != UINT32_MAX && f->uid != uid_of(g))
		return false;
	if (asker->rights.inspect)
		return true;
	return g->owner ? g->owner->uid == asker->who.uid
			: sharing_may_list(asker, g->name, g->name_length);
}

static struct wire_group_row row_of(const struct park_group *g)
{
	return (struct wire_group_row){
		.cursor = g->number,
		.parks = g->n_parks,
		.ready = g->n_ready,
		.handed = g->n_handed,
		.oldest = park_group_oldest(g),
		.credit = g->credit,
		.capacity = g->capacity,
		.uid = uid_of(g),
		.workers = g->n_workers,
		.group_length = g->name_length,
	};
}

void inspect_groups(struct connection *c, const struct wire_view *request)
{
	const struct wire_list *f = request->records;
	struct server *s = c->server;
	struct wire_group_row *rows = (void *)s->buffers.rows;
	uint8_t *text = s->buffers.ready;
	unsigned n = 0, max = f->limit != 0 && f->limit < ROWS_MAX ? f->limit : (unsigned)ROWS_MAX;
	const struct park_group *g = NULL;
	bool more = false;
	size_t used = 0;

	_Static_assert(ROWS_MAX * sizeof(*rows) <= SERVER_ROWS_SIZE, "the rows have room");
	while ((g = parks_next_group(s->parks, g))) {
		if (g->number <= f->cursor || !visible(c, f, g))
			continue;
		more = n == max || TEXT_SIZE - used < g->name_length;
		if (more)
			break;
		rows[n++] = row_of(g);
		memcpy(text + used, g->name, g->name_length);
		used += g->name_length;
	}
	sending_add_message(c, WIRE_GROUPS, more ? WIRE_FLAG_MORE : 0, request->header.serial, rows,
			    n, text, used);
}
