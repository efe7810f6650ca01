/* SPDX-License-Identifier: MIT */
/*
 * Owners of parks, and the handles that make and take them. They are few, and in balanced trees.
 *
 * A handle knows the parks that name it, so that its end costs no look at those of others. One that
 * has no connection, and that no park names, is idle: on one list until the caller frees it.
 */
#include <assert.h>
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/util/cleanup.h"
#include "park_internal.h"

/* ---- Orders of the trees ---- */

static int compare_numbers(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int compare_owners(const void *left, const void *right)
{
	const struct park_owner *a = left, *b = right;

	return compare_numbers(a->uid, b->uid);
}

static int compare_handles(const void *left, const void *right)
{
	const struct park_handle *a = left, *b = right;
	int r = compare_numbers(a->owner->uid, b->owner->uid);

	return r ? r : memcmp(a->id, b->id, sizeof(a->id));
}

/* ---- Owners ---- */

struct park_owner *parks_find_owner(const struct parks *ps, uint32_t uid)
{
	const struct park_owner key = {.uid = uid};
	void *node = tfind(&key, &ps->owners, compare_owners);

	return node ? *(struct park_owner **)node : NULL;
}

int parks_add_owner(struct parks *ps, uint32_t uid, struct quota *quota, struct park_owner **ret)
{
	CLEANUP_MEMORY struct park_owner *o = NULL;

	if (parks_find_owner(ps, uid))
		return -EEXIST;
	o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	o->uid = uid;
	o->quota = quota;
	if (!tsearch(o, &ps->owners, compare_owners))
		return -ENOMEM;
	ps->n_owners++;
	*ret = STEAL(o);
	return 0;
}

void parks_end_owner(struct parks *ps, struct park_owner *o)
{
	assert(o->n_parks == 0 && o->n_handles == 0);
	(void)tdelete(o, &ps->owners, compare_owners);
	ps->n_owners--;
	free(o);
}

/* ---- Handles ---- */

struct park_handle *parks_find_handle(const struct parks *ps, const struct park_owner *o,
				      const uint8_t id[PARK_TOKEN_SIZE])
{
	struct park_handle key = {.owner = (struct park_owner *)(uintptr_t)o};
	void *node;

	memcpy(key.id, id, sizeof(key.id));
	node = tfind(&key, &ps->handles, compare_handles);
	return node ? *(struct park_handle **)node : NULL;
}

int parks_get_handle(struct parks *ps, struct park_owner *o, const uint8_t id[PARK_TOKEN_SIZE],
		     struct park_handle **ret)
{
	CLEANUP_MEMORY struct park_handle *h = NULL;

	if (park_is_zero(id))
		return -EINVAL;
	*ret = parks_find_handle(ps, o, id);
	if (*ret)
		return 0;
	h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	memcpy(h->id, id, sizeof(h->id));
	h->owner = o;
	TAILQ_INIT(&h->made);
	TAILQ_INIT(&h->given);
	TAILQ_INIT(&h->workers);
	if (!tsearch(h, &ps->handles, compare_handles))
		return -ENOMEM;
	ps->n_handles++;
	o->n_handles++;
	TAILQ_INSERT_TAIL(&ps->idle, h, list);
	*ret = STEAL(h);
	return 1;
}

static bool is_idle(const struct park_handle *h)
{
	return !h->attached && h->references == 0;
}

static void note_idle(struct parks *ps, struct park_handle *h, bool was_idle)
{
	if (was_idle == is_idle(h))
		return;
	if (was_idle)
		TAILQ_REMOVE(&ps->idle, h, list);
	else
		TAILQ_INSERT_TAIL(&ps->idle, h, list);
}

void parks_attach(struct parks *ps, struct park_handle *h, bool attached)
{
	bool was_idle = is_idle(h);

	parks_end_workers(ps, h); /* they were the connection's before */
	h->attached = attached;
	h->connections += attached;
	note_idle(ps, h, was_idle);
}

struct park_handle *parks_next_idle(const struct parks *ps)
{
	return TAILQ_FIRST(&ps->idle);
}

void parks_end_handle(struct parks *ps, struct park_handle *h)
{
	assert(is_idle(h));
	TAILQ_REMOVE(&ps->idle, h, list);
	(void)tdelete(h, &ps->handles, compare_handles);
	ps->n_handles--;
	h->owner->n_handles--;
	free(h);
}

static void refer(struct parks *ps, struct park_handle *h)
{
	bool was_idle = is_idle(h);

	h->references++;
	note_idle(ps, h, was_idle);
}

static void unrefer(struct parks *ps, struct park_handle *h)
{
	assert(h->references > 0);
	h->references--;
	note_idle(ps, h, false);
}

void parks_set_maker(struct parks *ps, struct park *p, struct park_handle *maker)
{
	if (p->maker == maker)
		return;
	if (p->maker) {
		TAILQ_REMOVE(&p->maker->made, p, of_maker);
		unrefer(ps, p->maker);
	}
	p->maker = maker;
	if (maker) {
		TAILQ_INSERT_TAIL(&maker->made, p, of_maker);
		refer(ps, maker);
	}
}

void parks_set_worker(struct parks *ps, struct park *p, struct park_handle *worker)
{
	if (p->worker) {
		TAILQ_REMOVE(&p->worker->given, p, of_worker);
		p->worker->n_handed--;
		parks_update_workers(ps, p->worker);
		unrefer(ps, p->worker);
	}
	p->worker = worker;
	if (worker) {
		TAILQ_INSERT_TAIL(&worker->given, p, of_worker);
		worker->n_handed++;
		parks_update_workers(ps, worker);
		refer(ps, worker);
	}
}
