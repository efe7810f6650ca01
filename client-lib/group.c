/* SPDX-License-Identifier: MIT */

/*
 * The groups that this handle works for: what is wanted, and the one request at a time that makes the
 * daemon know it.
 *
 * A group's capacity is what the program says. The daemon should have as much credit as there is
 * capacity left: capacity less the hand-outs that are here, received and not done, or withheld.
 * rd_group_push() looks at the difference and sends
 *   ATTACH with what is missing of the credit, or another capacity;
 *   DETACH, if the group is being left, or if there is more credit than there should be, since credit
 *   cannot be taken back otherwise: ATTACH follows the answer.
 * It is called whenever one of the numbers changes, and does nothing while a request is under way:
 * its answer calls it again. So what many readyd_done() say goes into one ATTACH, and a connection
 * that was lost needs no more than told = credit = 0, and another push after the HELD.
 *
 * `credit` is what the daemon has at most: it grows when ATTACH is sent, and shrinks with each
 * HANDOUT that comes. So it is never behind the daemon's own, and what is added never exceeds the
 * capacity there.
 *
 * A refusal goes to the thread that waits for it (`caller`). Without one, it is of a daemon that came
 * back: for want of room it is said again, in growing pauses; else readyd_receive() reports it, and
 * the group is left.
 *
 * Invariants: a request is queued exactly if `asked`; told = credit = 0 while no daemon knows of it;
 * a group is freed only if it is not asked and has no caller, and nothing points to it.
 */

#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define RETRY_FIRST_NS INT64_C(10000000)

enum { RETRY_DOUBLE = 6 }; /* 10, 20 ... 640 ms */

/* ---- The list ---- */

struct rd_group *rd_group_find(const struct readyd *r, const char *name, size_t length)
{
	struct rd_group *g = r->parking.groups;

	while (g && (g->length != length || memcmp(g->name, name, length) != 0))
		g = g->next;
	return g;
}

static int group_add(struct readyd *r, const char *name, struct rd_group **ret)
{
	struct rd_group **p = &r->parking.groups, *g;
	unsigned n = 0;

	for (; *p; p = &(*p)->next)
		n++;
	if (n >= WIRE_GROUPS_MAX)
		return rd_fail(r, -EAGAIN,
			       "this handle works for %d groups already: leave one, or use another "
			       "handle",
			       WIRE_GROUPS_MAX);
	g = calloc(1, sizeof(*g));
	if (!g)
		return rd_fail(r, -ENOMEM, "no memory for another group");
	g->length = (uint8_t)strlen(name);
	memcpy(g->name, name, g->length);
	*p = *ret = g;
	return 0;
}

static void group_remove(struct readyd *r, struct rd_group *g)
{
	struct rd_group **p = &r->parking.groups;

	while (*p != g)
		p = &(*p)->next;
	*p = g->next;
	for (struct rd_take *t = r->parking.takes; t; t = t->next)
		if (t->group == g)
			t->group = NULL;
	for (struct rd_take *t = r->parking.arrived; t; t = t->next)
		if (t->group == g)
			t->group = NULL;
	free(g);
}

void rd_groups_free(struct readyd *r)
{
	while (r->parking.groups)
		group_remove(r, r->parking.groups);
}

/* ---- What the daemon is told ---- */

/* The credit that the daemon should have. */
static unsigned credit_wanted(const struct rd_group *g)
{
	unsigned busy = g->here + g->working + g->withheld;

	return busy < g->capacity ? g->capacity - busy : 0;
}

/* What is to be sent; 0: the daemon knows all. */
static unsigned group_lacks(const struct rd_group *g)
{
	if (!g->told)
		return g->capacity && !g->refused && !g->stuck ? WIRE_ATTACH : 0;
	if (!g->capacity || (g->told != g->capacity && g->credit > credit_wanted(g)))
		return WIRE_DETACH;
	return g->told != g->capacity || g->credit < credit_wanted(g) ? WIRE_ATTACH : 0;
}

static void caller_done(struct readyd *r, struct rd_group *g)
{
	if (g->caller)
		rd_done(r, g->caller);
}

/* Nobody waits for it: said again later, or by readyd_receive(). */
static void refused_in_absence(struct readyd *r, struct rd_group *g)
{
	int64_t pause = RETRY_FIRST_NS << (g->tries < RETRY_DOUBLE ? g->tries : RETRY_DOUBLE);

	if (g->error == WIRE_E_NO_RESOURCES || g->error == WIRE_E_QUOTA ||
	    g->error == WIRE_E_TOO_MANY_FDS) {
		g->tries++;
		g->stuck = true;
		rd_rebuild_again(r, pause);
		return;
	}
	g->refused = true;
	r->parking.notice = true;
}

static void group_refused(struct readyd *r, struct rd_group *g, uint16_t error)
{
	g->error = error;
	g->credit -= g->asked_more < g->credit ? g->asked_more : g->credit;
	if (!g->caller) {
		/* As for one that it does not know; with DETACH that is so, whatever it says. */
		refused_in_absence(r, g);
		return;
	}
	g->capacity = g->previous;
	caller_done(r, g);
}

static void group_answered(struct readyd *r, struct rd_request *q)
{
	struct rd_group *g = q->context;
	uint16_t asked = g->asked;

	g->asked = 0;
	if (asked == WIRE_DETACH) {
		g->told = g->credit = 0;
	} else if (q->error) {
		group_refused(r, g, q->error);
		return;
	} else {
		g->told = g->asked_capacity;
		g->tries = 0;
	}
	rd_group_push(r, g);
	r->parking.hurry |= g->asked != 0;
	if (!g->asked && !group_lacks(g))
		caller_done(r, g);
}

static void group_gone(struct readyd *r, struct rd_request *q)
{
	struct rd_group *g = q->context;

	(void)r;
	g->asked = 0;
}

static void group_ask(struct readyd *r, struct rd_group *g, unsigned type)
{
	struct wire_attach record = {.group_length = g->length};

	g->asked_more = 0;
	if (type == WIRE_ATTACH) {
		unsigned wanted = credit_wanted(g);

		g->asked_more = wanted > g->credit ? wanted - g->credit : 0;
		g->asked_capacity = g->capacity;
		g->credit += g->asked_more;
		record.more = g->asked_more;
		record.capacity = g->capacity;
		r->parking.took = r->parking.worked = true;
	}
	g->asked = (uint16_t)type;
	g->request = (struct rd_request){
		.answered = group_answered,
		.gone = group_gone,
		.context = g,
		.tail = g->name,
		.tail_size = g->length,
	};
	rd_out_request(r, &g->request, type, &record, 1, NULL, 0);
}

void rd_group_push(struct readyd *r, struct rd_group *g)
{
	size_t most =
		sizeof(struct wire_header) + sizeof(struct wire_attach) + wire_align(g->length);
	unsigned type = group_lacks(g);

	if (!type || g->asked || r->error || !rd_linked(r))
		return;
	if (rd_out_has_room(r, most, 0))
		group_ask(r, g, type);
	else
		r->parking.unsaid = true;
}

void rd_groups_push(struct readyd *r)
{
	if (r->error || !rd_linked(r))
		return;
	r->parking.unsaid = false;
	for (struct rd_group *g = r->parking.groups; g; g = g->next)
		rd_group_push(r, g);
	if (!rd_handouts_say(r))
		r->parking.unsaid = true;
}

void rd_groups_retry(struct readyd *r)
{
	for (struct rd_group *g = r->parking.groups; g; g = g->next) {
		if (!g->stuck)
			continue;
		g->stuck = false;
		rd_group_push(r, g);
	}
}

void rd_groups_lose(struct readyd *r)
{
	for (struct rd_group *g = r->parking.groups; g; g = g->next) {
		g->told = g->credit = 0;
		g->stuck = false;
		if (!g->capacity)
			caller_done(r, g); /* it is left */
	}
}

/* ---- Words ---- */

static int refusal(struct readyd *r, const struct rd_group *g)
{
	static const char *const advice[WIRE_E_MAX] = {
		[WIRE_E_ACCESS] = "the group is shared between users, and this one may not take "
				  "from it: the daemon's configuration says who may",
		[WIRE_E_NOT_IMPLEMENTED] = "this daemon knows nothing of groups: install a newer "
					   "readyd",
		[WIRE_E_NOT_SUPPORTED] = "see readyd(8) for what the daemon needs for that",
		[WIRE_E_NO_RESOURCES] = "try again later",
	};
	const char *hint = g->error < WIRE_E_MAX ? advice[g->error] : NULL;
	char name[WIRE_NAME_MAX + 1];

	rd_printable(name, sizeof(name), g->name, g->length);
	return rd_fail(r, rd_errno_of(g->error), "no hand-outs of group '%s': %s%s%s", name,
		       wire_error_text(g->error), hint ? "; " : "", hint ? hint : "");
}

static int not_attached(struct readyd *r, const char *group)
{
	char name[128];

	rd_printable(name, sizeof(name), group, strlen(group));
	return rd_fail(r, -ENOENT, "this handle does not work for group '%s'", name);
}

int rd_group_report(struct readyd *r)
{
	struct rd_group *g = r->parking.groups;
	int error;

	if (!g)
		return rd_fail(r, -EINVAL,
			       "this handle works for no group: readyd_attach() comes first");
	while (g && !g->refused)
		g = g->next;
	if (!g)
		return 0;
	error = refusal(r, g);
	group_remove(r, g);
	return error;
}

/* ---- readyd_attach(), readyd_detach(), readyd_done() ---- */

/* Everybody looks again. */
static void wake_all(struct readyd *r)
{
	for (struct rd_waiter *w = r->sleepers; w; w = w->next)
		rd_wake(w);
	if (r->led)
		rd_kick(r);
}

/* The group, when no other thread changes it. NULL: there is none, or the handle has ended. */
static struct rd_group *group_mine(struct readyd *r, const char *name)
{
	size_t length = strlen(name);
	struct rd_waiter w = {0};
	struct rd_group *g;

	while ((g = rd_group_find(r, name, length)) && g->caller && !r->error) {
		(void)rd_flush(r);
		(void)rd_turn(r, &w);
	}
	return r->error ? NULL : g;
}

/* Sees to it that the daemon knows it. May block. 0, or the sticky error; g->error is the daemon's. */
static int group_tell(struct readyd *r, struct rd_group *g)
{
	struct rd_waiter w = {0};
	int error = 0;

	g->caller = &w;
	g->error = WIRE_OK;
	g->refused = g->stuck = false;
	rd_group_push(r, g);
	if (!g->capacity)
		rd_handouts_return(r, g);
	rd_groups_push(r);
	if (g->asked || group_lacks(g))
		error = rd_await(r, &w, false);
	g->caller = NULL;
	return error;
}

static int attach(struct readyd *r, const char *name, unsigned capacity)
{
	struct rd_group *g;
	int error = rd_park_name_check(r, "group", name);

	if (error)
		return error;
	if (!name || !*name)
		return rd_fail(r, -EINVAL, "a group without a name has no workers");
	if (capacity < 1 || capacity > WIRE_CAPACITY_MAX)
		return rd_fail(r, -EINVAL, "a worker works at 1 to %d at once, not %u",
			       WIRE_CAPACITY_MAX, capacity);
	g = group_mine(r, name);
	if (r->error)
		return rd_ended(r);
	error = g ? 0 : group_add(r, name, &g);
	if (error)
		return error;
	g->previous = g->capacity;
	g->capacity = capacity;
	error = group_tell(r, g);
	if (!error && g->error) {
		error = refusal(r, g);
		if (!g->capacity)
			group_remove(r, g);
		else
			rd_group_push(r, g);
	}
	wake_all(r);
	return error;
}

int readyd_attach(struct readyd *r, const char *group, unsigned capacity)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = attach(r, group, capacity);
	rd_leave(r);
	return error;
}

static int detach(struct readyd *r, const char *name)
{
	struct rd_group *g = group_mine(r, name);
	int error;

	if (r->error)
		return rd_ended(r);
	if (!g)
		return not_attached(r, name);
	g->capacity = 0;
	error = group_tell(r, g);
	if (error)
		return error;
	group_remove(r, g);
	wake_all(r);
	rd_groups_push(r);
	/* What is given back has to be on its way. */
	return r->out.size ? rd_out_reserve(r, r->message_max, 0) : 0;
}

int readyd_detach(struct readyd *r, const char *group)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = detach(r, group);
	rd_leave(r);
	return error;
}

static int done(struct readyd *r, const char *name)
{
	struct rd_group *g = rd_group_find(r, name, strlen(name));

	if (r->error)
		return rd_ended(r);
	if (!g || g->refused)
		return not_attached(r, name);
	if (!g->working)
		return rd_fail(r, -EINVAL, "all that was received from group '%s' is done already",
			       g->name);
	g->working--;
	rd_group_push(r, g);
	return rd_hurry(r);
}

int readyd_done(struct readyd *r, const char *group)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = done(r, group);
	rd_leave(r);
	return error;
}
