/* SPDX-License-Identifier: MIT */

/*
 * Taking a parked fd, so that it has one owner whatever dies meanwhile (park.pml has the model).
 *
 *   asking --ANSWER--> promised --HANDOUT--> arrived --ANSWER of ACKNOWLEDGE or HELD--> owned
 *      ^                  |                     |
 *      +--- connection ---+                     +--- refused --> asking
 *             lost
 *
 * Nobody but this file has the fd before it is owned. If the connection ends before the HANDOUT
 * came, TAKE is repeated on the next one. If it ends after, the first that the next connection says
 * is HELD: which hand-outs are here and not settled, and that there are no others; so what was
 * under way and did not arrive is parked again, before TAKE asks for it. A refusal there means that
 * the daemon has settled it otherwise: the fd is closed, and TAKE repeated.
 *
 * When the handle itself ends (readyd_close(), no resume, given up) before the answer, the fd is
 * closed: the daemon still has its copy, or has just given it up.
 *
 * Kernel behaviour: a receiver without a free fd gets the message without the fd, and MSG_CTRUNC.
 * Then HELD says that it has not come, and it stays parked.
 */

#include "internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Addresses first, which are aligned; then the texts, each with a zero behind it. */
enum { MEMORY = 2 * WIRE_ADDRESS_MAX + 2 * (WIRE_NAME_MAX + 1) + WIRE_NOTE_MAX + 1 };

/* ---- What arrives ---- */

static struct rd_take *take_promised(const struct readyd *r, uint32_t serial)
{
	struct rd_take *t = r->parking.takes;

	while (t && (t->state != RD_TAKE_PROMISED || t->serial != serial))
		t = t->next;
	return t;
}

static const char *text_copy(uint8_t **to, const char **from, size_t n)
{
	uint8_t *p = *to;

	memcpy(p, *from, n);
	p[n] = 0;
	*to += n + 1;
	*from += n;
	return (const char *)p;
}

uint8_t *rd_take_memory(void)
{
	return aligned_alloc(16, (MEMORY + 15) / 16 * 16);
}

void rd_take_fill(const struct readyd *r, struct rd_take *t, const struct wire_view *view, int fd)
{
	const struct wire_handout *h = view->records;
	const char *tail = view->tail;
	uint8_t *to = t->memory + 2 * WIRE_ADDRESS_MAX;
	struct readyd_taken *taken = &t->taken;

	*taken = (struct readyd_taken){
		.size = sizeof(*taken),
		.fd = fd,
		.flags = h->flags,
		.park = h->park,
		.cookie = h->cookie,
		.parked = rd_time_from_daemon(r, h->parked),
		.read = h->read,
		.write = h->write,
		.note_length = h->note_length,
		.local_length = h->local_length,
		.peer_length = h->peer_length,
		.memory = t->memory,
	};
	taken->name = text_copy(&to, &tail, h->name_length);
	taken->group = text_copy(&to, &tail, h->group_length);
	taken->note = text_copy(&to, &tail, h->note_length);
	memcpy(t->memory, tail, h->local_length);
	memcpy(t->memory + WIRE_ADDRESS_MAX, tail + h->local_length, h->peer_length);
	taken->local = (const struct sockaddr *)(const void *)t->memory;
	taken->peer = (const struct sockaddr *)(const void *)(t->memory + WIRE_ADDRESS_MAX);
	memcpy(t->token, h->token, sizeof(t->token));
	t->epoch = r->resume.epoch;
	t->state = RD_TAKE_ARRIVED;
}

bool rd_handout(struct readyd *r, const struct wire_view *view, int fd)
{
	struct rd_take *t;

	if (!view->header.serial)
		return rd_handout_arrives(r, view, fd);
	t = take_promised(r, view->header.serial);
	if (!t) {
		rd_fd_close(&fd);
		return false;
	}
	rd_take_fill(r, t, view, fd);
	rd_done(r, &t->waiter);
	return true;
}

/* ---- What is settled ---- */

static void take_settle(struct readyd *r, struct rd_take *t, uint16_t error)
{
	t->state = error ? RD_TAKE_REFUSED : RD_TAKE_OWNED;
	t->error = error;
	rd_done(r, &t->waiter);
}

static void acknowledged(struct readyd *r, struct rd_request *q)
{
	take_settle(r, q->context, q->error);
}

void rd_takes_lose(struct readyd *r)
{
	for (struct rd_take *t = r->parking.takes; t; t = t->next) {
		t->held = -1;
		if (t->state != RD_TAKE_PROMISED)
			continue;
		t->state = RD_TAKE_ASKING;
		rd_done(r, &t->waiter);
	}
}

static void held_refused(struct readyd *r, struct rd_request *q, const struct wire_failure *f)
{
	(void)q;
	for (struct rd_take *t = r->parking.takes; t; t = t->next) {
		if (t->held != f->index)
			continue;
		t->held = -1;
		take_settle(r, t, f->error);
	}
}

static void held_answered(struct readyd *r, struct rd_request *q)
{
	(void)q;
	for (struct rd_take *t = r->parking.takes; t; t = t->next) {
		if (t->held < 0)
			continue;
		t->held = -1;
		take_settle(r, t, WIRE_OK);
	}
}

void rd_takes_say(struct readyd *r)
{
	struct wire_held records[RD_TAKES_MAX + 1];
	unsigned n = 0;

	if (!r->parking.took)
		return;
	assert(r->out.size == 0);
	for (struct rd_take *t = r->parking.takes; t; t = t->next) {
		if (t->state != RD_TAKE_ARRIVED || t->taken.fd < 0)
			continue;
		records[n].held = 1;
		records[n].reserved = 0;
		memcpy(records[n].token, t->token, sizeof(t->token));
		t->held = (int)n++;
	}
	records[n++] = (struct wire_held){.held = 0}; /* no others */
	r->parking.held = (struct rd_request){.refused = held_refused, .answered = held_answered};
	rd_out_request(r, &r->parking.held, WIRE_HELD, records, n, NULL, 0);
}

/* ---- TAKE ---- */

/* What TAKE asks for. */
struct wanted {
	struct wire_take record;
	char tail[2 * WIRE_NAME_MAX];
	size_t size;
	char text[RD_TEXT_MAX];
};

static void take_answered(struct readyd *r, struct rd_request *q)
{
	struct rd_take *t = q->context;

	(void)r;
	t->serial = q->serial;
	t->waiter.done = false;
	t->state = q->error ? RD_TAKE_ASKING : RD_TAKE_PROMISED;
}

static int take_refused(struct readyd *r, const struct rd_request *q, const struct wanted *k)
{
	char what[RD_TEXT_MAX];

	(void)snprintf(what, sizeof(what), "%.500s cannot be taken", k->text);
	return rd_park_refused(r, q, what);
}

/* Asks, until something has arrived. By the time that the thread sees it, HELD on another connection
 * may have settled it already. May block. */
static int take_ask(struct readyd *r, struct rd_take *t, const struct wanted *k)
{
	struct rd_request q;
	unsigned tries = 0;
	int error;

	t->state = RD_TAKE_ASKING;
	do {
		error = rd_link_await(r);
		if (error)
			return error;
		q = (struct rd_request){
			.answered = take_answered,
			.context = t,
			.tail = k->tail,
			.tail_size = k->size,
		};
		r->parking.took = true;
		error = rd_ask_once(r, &q, r->resume.epoch, WIRE_TAKE, &k->record, 1, NULL, 0);
		if (error || q.lost)
			continue;
		if (!q.error)
			error = rd_await(r, &t->waiter, false);
		else if (!rd_park_is_busy(r, &q, &tries))
			error = take_refused(r, &q, k);
	} while (!error && t->state == RD_TAKE_ASKING);
	return error;
}

/* There was no room for the fd: the daemon has it back. */
static int take_return(struct readyd *r, struct rd_take *t, const struct wanted *k)
{
	struct wire_held record = {.held = 0};
	struct rd_request q = {0};
	int error;

	memcpy(record.token, t->token, sizeof(record.token));
	error = rd_ask_once(r, &q, t->epoch, WIRE_HELD, &record, 1, NULL, 0);
	if (error)
		return error;
	return rd_fail(
		r, -EMFILE,
		"%.500s cannot be taken: this process has no free fd for it; it stays parked",
		k->text);
}

int rd_take_acknowledge(struct readyd *r, struct rd_take *t, int64_t until)
{
	struct wire_held record = {.held = 1};
	struct rd_request q = {.answered = acknowledged, .context = t};
	int error;

	memcpy(record.token, t->token, sizeof(record.token));
#ifdef READYD_MUTANT_TAKE_UNSETTLED
	t->state = RD_TAKE_OWNED;
#endif
	if (t->state != RD_TAKE_ARRIVED)
		return 0;
	/* On another connection HELD has said so already, or is about to. */
	error = rd_ask_once(r, &q, t->epoch, WIRE_ACKNOWLEDGE, &record, 1, NULL, 0);
	while (!error && t->state == RD_TAKE_ARRIVED) {
		t->waiter.done = false;
		error = rd_await_until(r, &t->waiter, until);
	}
	return error;
}

static int take_run(struct readyd *r, struct rd_take *t, const struct wanted *k)
{
	for (;;) {
		int error = take_ask(r, t, k);

		if (error)
			return error;
		if (t->taken.fd < 0)
			return take_return(r, t, k);
		error = rd_take_acknowledge(r, t, 0);
		if (error || t->state == RD_TAKE_OWNED)
			return error;
		if (t->error != WIRE_E_NOT_FOUND)
			return rd_fail(r, rd_errno_of(t->error),
				       "%.500s could not be acknowledged: %s", k->text,
				       wire_error_text(t->error));
		rd_fd_close(&t->taken.fd);
		t->taken.fd = -1;
	}
}

void rd_take_link(struct readyd *r, struct rd_take *t)
{
	t->next = r->parking.takes;
	r->parking.takes = t;
	r->parking.n_takes++;
}

void rd_take_unlink(struct readyd *r, const struct rd_take *t)
{
	struct rd_take **p = &r->parking.takes;

	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	r->parking.n_takes--;
}

static int take(struct readyd *r, const struct readyd_park_key *key, struct readyd_taken *ret)
{
	RD_CLEANUP_MEMORY uint8_t *memory = NULL;
	struct rd_take t = {.held = -1, .taken.fd = -1};
	struct wanted k;
	uint32_t index;
	int error = rd_park_key(r, key, &k.record, k.tail, &k.size, k.text);

	if (error)
		return error;
	if (r->parking.n_takes >= RD_TAKES_MAX)
		return rd_fail(r, -EDQUOT, "%d threads take by this handle at the same time",
			       RD_TAKES_MAX);
	t.memory = memory = rd_take_memory();
	if (!memory)
		return rd_fail(r, -ENOMEM, "no memory for the note of a park");
	rd_take_link(r, &t);
	error = take_run(r, &t, &k);
	rd_take_unlink(r, &t);
	if (error) {
		rd_fd_close(&t.taken.fd);
		return error;
	}
	index = rd_park_find(r, t.taken.park);
	if (index)
		rd_park_remove(r, index);
	memory = NULL;
	*ret = t.taken;
	return 0;
}

int readyd_take(struct readyd *r, const struct readyd_park_key *key, struct readyd_taken *ret)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	if (ret->size != sizeof(*ret)) /* until there is a second size */
		error = rd_fail(r, -EINVAL, "struct readyd_taken of a wrong size");
	else
		error = take(r, key, ret);
	rd_leave(r);
	return error;
}

void readyd_taken_clear(struct readyd_taken *taken)
{
	RD_KEEP_ERRNO;

	if (!taken->memory)
		return;
	rd_fd_close(&taken->fd);
	free(taken->memory);
	*taken = (struct readyd_taken){.size = taken->size, .fd = -1};
}
