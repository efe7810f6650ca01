/* SPDX-License-Identifier: MIT */
/*
 * A park from its record, as a holder gives it back to a new loop. Nothing in a record is trusted:
 * it may come from another version, or from a depot that is older than another one.
 *
 * A restored park is what its record says and no more. One that was handed waits for its worker's
 * word or death: the worker may have it. One that is unanswered waits for its maker's repeat or claim
 * or death: the answer may never have been sent. What is ready is seen when the fd is registered.
 *
 * Numbers and serials begin at the time in us, and a record's are below 2^60: from a damaged one that
 * passes, later numbers go on for longer than any machine lives, and are still taken back.
 */
#include <errno.h>

#include "park_internal.h"

#define HIGHEST (UINT64_C(1) << 60)

static bool is_bad(const struct park_restore *r)
{
	if (park_new_is_bad(&r->new))
		return true;
	if (r->number == 0 || r->number > HIGHEST || r->serial == 0 || r->serial > HIGHEST)
		return true;
	if (r->handed == park_is_zero(r->worker))
		return true;
	if (!r->answered && (r->handed || r->timed_out || park_is_zero(r->maker)))
		return true;
	return r->timed_out && (r->new.deadline != 0 || !(r->new.flags &PARK_DEADLINE_HAND));
}

static struct park *in_the_way(const struct parks *ps, const struct park_owner *o,
			       const struct park_restore *r)
{
	struct park *p = parks_at_token(ps, r->new.token);

	if (!p)
		p = parks_at_number(ps, r->number);
	return p ? p : parks_at_name(ps, o, &r->new.text);
}

/* A handle that the record names, or NULL; and whether it was made for it. */
struct named {
	struct park_handle *handle;
	bool made;
};

static int name(struct parks *ps, struct park_owner *o, const uint8_t id[PARK_TOKEN_SIZE],
		struct named *ret)
{
	int r = park_is_zero(id) ? 0 : parks_get_handle(ps, o, id, &ret->handle);

	ret->made = r == 1;
	return r < 0 ? r : 0;
}

static void unname(struct parks *ps, const struct named *n)
{
	if (n->made)
		parks_end_handle(ps, n->handle);
}

/* The hand-out is its worker's owner's. */
static void charge(struct quota *q, struct quota *of_worker, const struct park_restore *r)
{
	q->used[QUOTA_PARKS]++;
	q->used[QUOTA_NOTE_BYTES] += r->new.text.note_length;
	of_worker->used[QUOTA_FDS_UNREAD] += r->handed;
}

static void note_greatest(uint64_t *greatest, uint64_t value)
{
	if (value > *greatest)
		*greatest = value;
}

int parks_restore(struct parks *ps, struct park_owner *o, const struct park_restore *r,
		  struct park **ret)
{
	struct park_owner *of_worker = r->worker_owner ? r->worker_owner : o;
	struct named maker = {0}, worker = {0};
	struct park *p;
	int result;

	if (is_bad(r))
		return -EINVAL;
	p = in_the_way(ps, o, r);
	if (p) {
		*ret = p;
		return -EEXIST;
	}
	result = name(ps, o, r->maker, &maker);
	if (result == 0)
		result = name(ps, of_worker, r->worker, &worker);
	if (result == 0)
		result = parks_make(ps, o, &r->new, r->number, &p);
	if (result < 0) {
		unname(ps, &worker);
		unname(ps, &maker);
		return result;
	}
	p->parked = p->since = r->parked;
	p->serial = r->serial;
	p->answered = r->answered;
	p->timed_out = r->timed_out;
	note_greatest(&ps->last_number, r->number);
	note_greatest(&ps->last_serial, r->serial);
	charge(o->quota, of_worker->quota, r);
	if (r->handed || r->timed_out) { /* before those that become ready now */
		p->turn = ++ps->groups.last_turn;
		p->ready_since = r->now;
	}
	parks_begin(ps, p, maker.handle, worker.handle);
#ifdef READYD_MUTANT_PARK_EAGER
	if (r->handed)
		parks_give_back(ps, p, r->parked);
#endif
	*ret = p;
	return 0;
}
