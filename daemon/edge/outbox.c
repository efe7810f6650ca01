/* SPDX-License-Identifier: MIT */
#include "outbox.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Requests of one connection are applied together, so its messages lie one after the other and
 * only the area's last message can grow. The caller keeps OUTBOX_ROOM free before it applies a
 * datagram, which is as much as that can need.
 */

enum { RECORD = sizeof(struct wire_entry) };

int outbox_init(struct outbox *o)
{
	o->area = malloc(OUTBOX_SIZE);
	if (!o->area)
		return -ENOMEM;
	memset(o->area, 0, OUTBOX_SIZE); /* a page that is not there yet must not fail later */
	outbox_clear(o);
	return 0;
}

void outbox_deinit(struct outbox *o)
{
	free(o->area);
	o->area = NULL;
}

static struct outbox_message *at(struct outbox *o, size_t offset)
{
	return (struct outbox_message *)(void *)(o->area + offset);
}

struct outbox_message *outbox_first(struct outbox *o, const struct outbox_chain *chain)
{
	return chain->first ? at(o, chain->first) : NULL;
}

void outbox_drop_first(struct outbox *o, struct outbox_chain *chain)
{
	chain->first = at(o, chain->first)->next;
	if (!chain->first)
		chain->last = 0;
}

static void append(struct outbox *o, struct outbox_chain *chain, struct outbox_message *m)
{
	m->next = 0;
	if (chain->last)
		at(o, chain->last)->next = o->used;
	else
		chain->first = o->used;
	chain->last = o->used;
	o->used += sizeof(*m) + wire_align(m->size);
}

int outbox_add_message(struct outbox *o, struct outbox_chain *chain, unsigned type, unsigned flags,
		       uint32_t serial, const void *records, size_t count, const void *tail,
		       size_t tail_size)
{
	struct outbox_message *m = at(o, o->used);

	if (OUTBOX_SIZE - o->used < sizeof(*m))
		return -ENOBUFS;
	m->size = wire_encode(m->bytes, OUTBOX_SIZE - o->used - sizeof(*m), type, flags, serial,
			      records, count, tail, tail_size);
	if (m->size == 0)
		return -ENOBUFS;
	append(o, chain, m);
	return 0;
}

int outbox_add_record(struct outbox *o, struct outbox_chain *chain, const void *record)
{
	struct outbox_message *m = chain->last ? at(o, chain->last) : NULL;
	struct wire_header *header = m ? (struct wire_header *)(void *)m->bytes : NULL;

	/* Only the area's last message can grow: another chain may have had a word since. */
	if (!m || header->type != WIRE_READY || header->count == WIRE_RECORDS_MAX ||
	    (uint8_t *)m + sizeof(*m) + m->size != o->area + o->used)
		return outbox_add_message(o, chain, WIRE_READY, 0, 0, record, 1, NULL, 0);
	if (OUTBOX_SIZE - o->used < RECORD)
		return -ENOBUFS;
	memcpy(m->bytes + m->size, record, RECORD);
	m->size += RECORD;
	o->used += RECORD;
	header->count++;
	return 0;
}

int outbox_save(struct outbox *o, struct outbox_chain *chain, struct backlog **ret)
{
	struct backlog *b;
	size_t size = 0;
	uint8_t *p;

	for (size_t i = chain->first; i; i = at(o, i)->next)
		size += sizeof(size_t) + wire_align(at(o, i)->size);
	b = malloc(sizeof(*b) + size);
	if (!b)
		return -ENOMEM;
	b->size = size;
	b->sent = 0;
	p = b->bytes;
	for (size_t i = chain->first; i; i = at(o, i)->next) {
		const struct outbox_message *m = at(o, i);

		memcpy(p, &m->size, sizeof(m->size));
		memcpy(p + sizeof(m->size), m->bytes, m->size);
		p += sizeof(size_t) + wire_align(m->size);
	}
	chain->first = 0;
	chain->last = 0;
	*ret = b;
	return 0;
}

const void *backlog_next(const struct backlog *b, size_t *ret_size)
{
	if (b->sent == b->size)
		return NULL;
	memcpy(ret_size, b->bytes + b->sent, sizeof(*ret_size));
	return b->bytes + b->sent + sizeof(size_t);
}

void backlog_drop_next(struct backlog *b)
{
	size_t size;

	memcpy(&size, b->bytes + b->sent, sizeof(size));
	b->sent += sizeof(size) + wire_align(size);
}
