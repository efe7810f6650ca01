/* SPDX-License-Identifier: MIT */
#include "holder_table.h"

#include <assert.h>
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/edge/admission.h"
#include "daemon/util/cleanup.h"

/*
 * The table is libc's red-black tree, tsearch(3): tokens are drawn by clients, and what a client
 * chooses can make a hash table slow but no balanced tree; it says when there is no memory, where a
 * macro library ends the process; and it is there already. Beside it there is a list, in the order
 * of arrival, along which parks are given back while the table changes under it: `given` is moved
 * when its park goes.
 *
 * Invariants: each park is in the tree and in the list; fds[0] is open; fds[1] and fds[2] are, as
 * the record says.
 *
 * Serials: of two words about one park the greater serial counts. The same serial twice is the same
 * word, repeated, and counts, too.
 */

struct closing {
	TAILQ_ENTRY(closing) list;
	uint32_t number;
	unsigned n_fds;
	int fds[];
};

static_assert(offsetof(struct holding, record) == 0 && offsetof(struct record, token) == 0,
	      "a park's address is its key's");

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(((struct record *)NULL)->token));
}

/* The node's place for its park, or NULL. */
static struct holding **find(struct holder_table *t, const uint8_t *token)
{
	return tfind(token, &t->tree, compare);
}

static void close_all(const struct holder_table *t, int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (fds[i] < 0 || t->exiting)
			continue;
		if (t->closer)
			closer_close(t->closer, steal_fd(&fds[i]));
		else
			(void)close(steal_fd(&fds[i]));
	}
}

void holder_table_init(struct holder_table *t)
{
	*t = (struct holder_table){0};
	TAILQ_INIT(&t->parks);
	TAILQ_INIT(&t->closing);
	TAILQ_INIT(&t->orphans);
}

static void remove_park(struct holder_table *t, struct holding *h)
{
	if (t->given == h)
		t->given = TAILQ_NEXT(h, list);
	(void)tdelete(h, &t->tree, compare);
	TAILQ_REMOVE(&t->parks, h, list);
	t->n--;
}

static void free_park(struct holder_table *t, struct holding *h)
{
	if (t->leaves) {
		t->leaves(t->context, h);
		return;
	}
	close_all(t, h->fds, 3);
	free(h);
}

void holder_table_clear(struct holder_table *t)
{
	struct holding *h;

	while ((h = TAILQ_FIRST(&t->parks))) {
		remove_park(t, h);
		free_park(t, h);
	}
	holder_table_orphan(t);
	holder_table_close_orphans(t);
}

/* ---- Parks ---- */

/* The pidfds of a record, from the operation's, to their places. */
static void take_pidfds(const struct record *r, int *fds, int ret[3])
{
	ret[1] = r->maker_fd ? steal_fd(fds++) : -1;
	ret[2] = r->worker_fd ? steal_fd(fds) : -1;
}

static struct holding *holding_new(const struct record_op *op)
{
	size_t size = record_text_size(op->record);
	struct holding *h = malloc(sizeof(*h) + size);

	if (!h)
		return NULL;
	h->record = *op->record;
	h->stored = (struct holding_stored){0};
	memcpy(h->text, op->text, size);
	return h;
}

/* What the loop need not look at again: see holder_hear.c. */
static void vouch(struct holding *h)
{
	enum wire_kind kind;

	h->record.kind = WIRE_KIND_UNKNOWN;
	if (admission_is_plain(h->fds[0], &kind))
		h->record.kind = (uint8_t)kind;
}

/* Into the tree and to the end of the list, or to where the one stands that it replaces. */
static bool insert(struct holder_table *t, struct holding *h, struct holding **place)
{
	struct holding *old = place ? *place : NULL;

	if (!old) {
		if (!tsearch(h, &t->tree, compare))
			return false;
		TAILQ_INSERT_TAIL(&t->parks, h, list);
		t->n++;
		return true;
	}
	*place = h;
	TAILQ_INSERT_BEFORE(old, h, list);
	TAILQ_REMOVE(&t->parks, old, list);
	if (t->given == old)
		t->given = h;
	return true;
}

int holder_table_hold(struct holder_table *t, const struct record_op *op, int *fds)
{
	struct holding **place = find(t, op->record->token);
	struct holding *old = place ? *place : NULL, *h;

	if (old && old->record.serial > op->record->serial)
		return -ESTALE;
	h = holding_new(op);
	if (!h)
		return -ENOMEM;
	if (!insert(t, h, place)) {
		free(h);
		return -ENOMEM;
	}
	h->fds[0] = steal_fd(&fds[0]);
	vouch(h);
	take_pidfds(&h->record, fds + 1, h->fds);
	if (old)
		free_park(t, old);
	return 0;
}

/* Whether a CHANGE leaves the texts as they are: it does not bring them. */
static bool has_same_texts(const struct record *a, const struct record *b)
{
	return a->name_length == b->name_length && a->group_length == b->group_length &&
	       a->note_length == b->note_length && a->local_length == b->local_length &&
	       a->peer_length == b->peer_length;
}

int holder_table_change(struct holder_table *t, const struct record_op *op, int *fds)
{
	struct holding **place = find(t, op->record->token);
	uint8_t kind;
	int old[2];

	if (!place)
		return -ENOENT;
	if ((*place)->record.serial > op->record->serial)
		return -ESTALE;
	if (!has_same_texts(&(*place)->record, op->record))
		return -EINVAL;
	memcpy(old, (*place)->fds + 1, sizeof(old));
	kind = (*place)->record.kind;
	(*place)->record = *op->record;
	(*place)->record.kind = kind;
	take_pidfds(op->record, fds, (*place)->fds);
	close_all(t, old, 2);
	return 0;
}

int holder_table_drop(struct holder_table *t, const struct record_drop *drop)
{
	struct holding **place = find(t, drop->token), *h;

	if (!place)
		return -ENOENT;
	h = *place;
	if (h->record.serial > drop->serial)
		return -ESTALE;
	remove_park(t, h);
	if (drop->shut_down)
		(void)shutdown(h->fds[0], SHUT_RDWR); /* ENOTSOCK: of what is no socket */
	free_park(t, h);
	return 0;
}

struct holding *holder_table_find(struct holder_table *t, const uint8_t *token)
{
	struct holding **place = find(t, token);

	return place ? *place : NULL;
}

void holder_table_close_fds(const struct holder_table *t, struct holding *h)
{
	close_all(t, h->fds, 3);
}

unsigned holding_fds(const struct holding *h, int ret[3])
{
	unsigned n = 0;

	for (unsigned i = 0; i < 3; i++)
		if (h->fds[i] >= 0)
			ret[n++] = h->fds[i];
	return n;
}

/* ---- Fds to close ---- */

int holder_table_keep(struct holder_table *t, uint32_t number, int *fds, unsigned n_fds)
{
	struct closing *c = malloc(sizeof(*c) + n_fds * sizeof(*fds));

	if (!c)
		return -ENOMEM;
	c->number = number;
	c->n_fds = n_fds;
	for (unsigned i = 0; i < n_fds; i++)
		c->fds[i] = steal_fd(&fds[i]);
	TAILQ_INSERT_TAIL(&t->closing, c, list);
	return 0;
}

static void end_closing(struct holder_table *t, struct closing_list *list, struct closing *c)
{
	TAILQ_REMOVE(list, c, list);
	close_all(t, c->fds, c->n_fds);
	free(c);
}

void holder_table_close(struct holder_table *t, uint32_t number)
{
	struct closing *c, *next;

	for (c = TAILQ_FIRST(&t->closing); c; c = next) {
		next = TAILQ_NEXT(c, list);
		if (c->number == number)
			end_closing(t, &t->closing, c);
	}
}

void holder_table_orphan(struct holder_table *t)
{
	TAILQ_CONCAT(&t->orphans, &t->closing, list);
}

void holder_table_close_orphans(struct holder_table *t)
{
	struct closing *c;

	while ((c = TAILQ_FIRST(&t->orphans)))
		end_closing(t, &t->orphans, c);
}
