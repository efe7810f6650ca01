/* SPDX-License-Identifier: MIT */
/*
 * Where parks, owners and handles are found, and their memory.
 *
 * A park has an index, reused when it is freed, and stands in up to three trees: by token (of all
 * owners), by number, and by owner, group and name if it has a name. It leaves the trees when it is
 * gone, so its token and name are free at once, though its memory waits for the caller. The trees
 * are balanced, and a client that chooses its tokens and names cannot unbalance them.
 *
 * Whatever can fail for want of memory fails when a park or a handle is made: a park comes with its
 * nodes in the trees, its place in the heap, and the links of all lists. What happens to it later
 * allocates nothing.
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

static int compare_tokens(const void *left, const void *right)
{
	const struct park *a = left, *b = right;

	return memcmp(a->token, b->token, sizeof(a->token));
}

static int compare_park_numbers(const void *left, const void *right)
{
	const struct park *a = left, *b = right;

	return compare_numbers(a->number, b->number);
}

/* The bytes of name and group are side by side. */
static int compare_names(const void *left, const void *right)
{
	const struct park *a = left, *b = right;
	int r = compare_numbers(a->owner->uid, b->owner->uid);

	if (r == 0)
		r = compare_numbers(a->text.name_length, b->text.name_length);
	if (r == 0)
		r = compare_numbers(a->text.group_length, b->text.group_length);
	if (r == 0)
		r = memcmp(a->text.bytes, b->text.bytes,
			   (size_t)a->text.name_length + a->text.group_length);
	return r;
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

/* ---- All of them ---- */

int parks_new(uint64_t first_number, struct parks **ret)
{
	struct parks *ps = calloc(1, sizeof(*ps));

	if (!ps)
		return -ENOMEM;
	ps->last_number = ps->last_serial = first_number ? first_number - 1 : 0;
	ps->end = 1;
	timer_heap_init(&ps->heap);
	TAILQ_INIT(&ps->changes);
	TAILQ_INIT(&ps->idle);
	*ret = ps;
	return 0;
}

static void keep(void *unused)
{
	(void)unused;
}

struct parks *parks_free(struct parks *ps)
{
	if (!ps)
		return NULL;
	tdestroy(ps->by_token, keep);
	tdestroy(ps->by_number, keep);
	tdestroy(ps->by_name, keep);
	for (uint32_t index = 1; index < ps->end; index++)
		free(ps->places[index].park);
	free(ps->places);
	tdestroy(ps->handles, free);
	tdestroy(ps->owners, free);
	timer_heap_deinit(&ps->heap);
	free(ps);
	return NULL;
}

const struct parks_stats *parks_stats(const struct parks *ps)
{
	return &ps->stats;
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

int parks_get_handle(struct parks *ps, struct park_owner *o, const uint8_t id[PARK_TOKEN_SIZE],
		     struct park_handle **ret)
{
	CLEANUP_MEMORY struct park_handle *h = NULL;
	struct park_handle key = {.owner = o};
	void *node;

	if (park_is_zero(id))
		return -EINVAL;
	memcpy(key.id, id, sizeof(key.id));
	node = tfind(&key, &ps->handles, compare_handles);
	if (node) {
		*ret = *(struct park_handle **)node;
		return 0;
	}
	h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	memcpy(h->id, id, sizeof(h->id));
	h->owner = o;
	TAILQ_INIT(&h->made);
	TAILQ_INIT(&h->given);
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
		unrefer(ps, p->worker);
	}
	p->worker = worker;
	if (worker) {
		TAILQ_INSERT_TAIL(&worker->given, p, of_worker);
		worker->n_handed++;
		refer(ps, worker);
	}
}

/* ---- Parks: finding ---- */

struct park *parks_at_token(const struct parks *ps, const uint8_t token[PARK_TOKEN_SIZE])
{
	struct park key = {0};
	void *node;

	memcpy(key.token, token, sizeof(key.token));
	node = tfind(&key, &ps->by_token, compare_tokens);
	return node ? *(struct park **)node : NULL;
}

struct park *parks_at_number(const struct parks *ps, uint64_t number)
{
	const struct park key = {.number = number};
	void *node = tfind(&key, &ps->by_number, compare_park_numbers);

	return node ? *(struct park **)node : NULL;
}

struct park *parks_at_name(const struct parks *ps, const struct park_owner *o,
			   const struct park_text *t)
{
	struct park_owner owner = {.uid = o->uid};
	struct park key = {.owner = &owner, .text = *t};
	void *node = t->name_length ? tfind(&key, &ps->by_name, compare_names) : NULL;

	return node ? *(struct park **)node : NULL;
}

static struct park *of_owner(struct park *p, const struct park_owner *o)
{
	return p && (!o || p->owner == o) ? p : NULL;
}

struct park *parks_find_token(const struct parks *ps, const struct park_owner *o,
			      const uint8_t token[PARK_TOKEN_SIZE])
{
	return of_owner(parks_at_token(ps, token), o);
}

struct park *parks_find_number(const struct parks *ps, const struct park_owner *o, uint64_t number)
{
	return of_owner(parks_at_number(ps, number), o);
}

struct park *parks_find_name(const struct parks *ps, const struct park_owner *o, const void *name,
			     size_t name_length, const void *group, size_t group_length)
{
	uint8_t both[2 * UINT8_MAX];

	if (name_length > UINT8_MAX || group_length > UINT8_MAX)
		return NULL;
	if (name_length)
		memcpy(both, name, name_length);
	if (group_length)
		memcpy(both + name_length, group, group_length);
	return parks_at_name(ps, o,
			     &(struct park_text){.name_length = (uint8_t)name_length,
						 .group_length = (uint8_t)group_length,
						 .bytes = both});
}

struct park *parks_next(const struct parks *ps, const struct park_owner *owner, uint64_t *cursor)
{
	for (uint64_t index = *cursor + 1; index < ps->end; index++) {
		struct park *p = ps->places[index].park;

		if (!p || (owner && p->owner != owner))
			continue;
		*cursor = index;
		return p;
	}
	return NULL;
}

/* ---- Parks: their life ---- */

static int reserve_place(struct parks *ps)
{
	uint32_t room = ps->room ? 2 * ps->room : 16;
	struct park_place *places;

	if (ps->free)
		return 0;
	if (ps->end < ps->room)
		return timer_heap_reserve(&ps->heap, ps->end + 1);
	if (room <= ps->room)
		return -ENOMEM;
	places = realloc(ps->places, room * sizeof(*places));
	if (!places)
		return -ENOMEM;
	if (!ps->room)
		places[0] = (struct park_place){0};
	ps->places = places;
	ps->room = room;
	return timer_heap_reserve(&ps->heap, ps->end + 1);
}

static uint32_t take_place(struct parks *ps, struct park *p)
{
	uint32_t index = ps->free ? ps->free : ps->end++;

	if (index == ps->free)
		ps->free = ps->places[index].next_free;
	ps->places[index] = (struct park_place){.park = p};
	return index;
}

static int add_to_trees(struct parks *ps, struct park *p)
{
	if (!tsearch(p, &ps->by_token, compare_tokens))
		return -ENOMEM;
	if (!tsearch(p, &ps->by_number, compare_park_numbers))
		goto no_number;
	if (p->text.name_length && !tsearch(p, &ps->by_name, compare_names))
		goto no_name;
	return 0;
no_name:
	(void)tdelete(p, &ps->by_number, compare_park_numbers);
no_number:
	(void)tdelete(p, &ps->by_token, compare_tokens);
	return -ENOMEM;
}

int parks_make(struct parks *ps, struct park_owner *o, const struct park_new *new, uint64_t number,
	       struct park **ret)
{
	CLEANUP_MEMORY struct park *p = NULL;
	size_t size = park_text_size(&new->text);
	int r = reserve_place(ps);

	if (r < 0)
		return r;
	p = malloc(sizeof(*p) + size);
	if (!p)
		return -ENOMEM;
	*p = (struct park){
		.number = number,
		.cookie = new->cookie,
		.deadline = new->deadline,
		.owner = o,
		.flags = new->flags,
		.told_fd = new->told_fd,
		.interest = new->interest,
		.kind = new->kind,
		.text = new->text,
		.fd = -1,
	};
	memcpy(p->token, new->token, sizeof(p->token));
	if (size)
		memcpy(p + 1, new->text.bytes, size);
	p->text.bytes = (const uint8_t *)(p + 1);
	r = add_to_trees(ps, p);
	if (r < 0)
		return r;
	p->index = take_place(ps, p);
	o->n_parks++;
	*ret = STEAL(p);
	return 0;
}

void parks_hide(struct parks *ps, struct park *p)
{
	(void)tdelete(p, &ps->by_token, compare_tokens);
	(void)tdelete(p, &ps->by_number, compare_park_numbers);
	if (p->text.name_length)
		(void)tdelete(p, &ps->by_name, compare_names);
	(void)timer_heap_remove(&ps->heap, p->index);
}

void parks_end(struct parks *ps, struct park *p)
{
	assert(p->state == PARK_GONE && !p->changed);
	p->owner->n_parks--;
	ps->stats.parks--;
	ps->places[p->index] = (struct park_place){.next_free = ps->free};
	ps->free = p->index;
	free(p);
}

/* ---- The list of changes ---- */

void parks_list_change(struct parks *ps, struct park *p)
{
	if (p->changed)
		return;
	p->changed = true;
	TAILQ_INSERT_TAIL(&ps->changes, p, change);
}

struct park *parks_take_changed(struct parks *ps)
{
	struct park *p = TAILQ_FIRST(&ps->changes);

	if (!p)
		return NULL;
	TAILQ_REMOVE(&ps->changes, p, change);
	p->changed = false;
	return p;
}
