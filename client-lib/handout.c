/* SPDX-License-Identifier: MIT */

/*
 * Hand-outs of groups, from the message to readyd_receive().
 *
 *   arrived --claimed by a readyd_receive(): ACKNOWLEDGE--> acknowledged --ANSWER--> the caller's
 *      |                                                        |
 *      +-- the group is left, the connection or the handle      +-- refused: closed, and the next
 *          ends, no free fd: the daemon has it back
 *
 * A hand-out that nobody has received yet is not acknowledged: so the daemon hands it to another
 * worker if this one leaves, ends or dies, however many lie here. From the claim on it is a take
 * like that of readyd_take() (take.c), with the same states and the same statement in HELD after a
 * lost connection. What was not claimed is closed when the connection is lost, and the zero token of
 * HELD gives it back; it comes again, to whoever is free.
 *
 * A readyd_receive() whose time is over waits for the answer all the same, as all calls that ask do,
 * but not for another daemon: if the connection is lost too, its take stays in `takes` as an orphan,
 * whom HELD settles, and the next readyd_receive() adopts it.
 *
 * readyd_poll() tells of each hand-out once, and not while threads wait in readyd_receive(), who
 * will have it.
 *
 * Invariants: a group's `here` is the number of those of it that are in `arrived` or claimed; an fd
 * that is given back is closed before that is said.
 *
 * Kernel behaviour: a receiver without a free fd gets the message without the fd.
 */

#include "internal.h"

#include <stdlib.h>
#include <string.h>

static struct rd_take *handout_free(struct rd_take *t)
{
	rd_fd_close(&t->taken.fd);
	free(t->memory);
	free(t);
	return NULL;
}

/* It is not one of its group's any more. */
static void handout_leave(struct rd_take *t)
{
	if (t->group)
		t->group->here--;
	t->group = NULL;
}

/* ---- Giving back ---- */

/* Its fd is closed. */
static void give_back(struct readyd *r, const uint8_t *token)
{
	struct rd_return *back = malloc(sizeof(*back));

	if (!back) {
		/* The next connection says that this handle has nothing. */
		rd_lose(r, "no memory to give back a park that was handed out");
		return;
	}
	memcpy(back->token, token, sizeof(back->token));
	back->next = r->parking.returns;
	r->parking.returns = back;
	r->parking.unsaid = r->parking.hurry = true;
}

bool rd_handouts_say(struct readyd *r)
{
	struct rd_return *back;

	while ((back = r->parking.returns)) {
		struct wire_held record = {.held = 0};

		if (!rd_out_has_room(r, sizeof(struct wire_header) + sizeof(record), 0))
			return false;
		memcpy(record.token, back->token, sizeof(record.token));
		rd_out_record(r, WIRE_HELD, RD_SERIAL_RETURN, &record, sizeof(record));
		r->parking.returns = back->next;
		free(back);
	}
	return true;
}

void rd_handouts_return(struct readyd *r, const struct rd_group *g)
{
	struct rd_take **p = &r->parking.arrived, *t;
	uint8_t token[WIRE_TOKEN_SIZE];
	uint32_t epoch = r->resume.epoch;

	while ((t = *p)) {
		if (t->group != g) {
			p = &t->next;
			continue;
		}
		*p = t->next;
		memcpy(token, t->token, sizeof(token));
		handout_leave(t);
		handout_free(t);
		give_back(r, token);
		if (r->resume.epoch != epoch)
			return; /* all are gone */
	}
	r->parking.arrived_end = p;
}

void rd_handouts_lose(struct readyd *r)
{
	struct rd_take *t;
	struct rd_return *back;

	while ((t = r->parking.arrived)) {
		r->parking.arrived = t->next;
		handout_leave(t);
		handout_free(t);
	}
	r->parking.arrived_end = &r->parking.arrived;
	while ((back = r->parking.returns)) {
		r->parking.returns = back->next;
		free(back);
	}
}

void rd_handouts_free(struct readyd *r)
{
	struct rd_take *t;

	rd_handouts_lose(r);
	while ((t = r->parking.takes)) { /* orphans: the others' threads have ended */
		r->parking.takes = t->next;
		handout_free(t);
	}
}

/* ---- What arrives ---- */

static struct rd_take *handout_new(struct readyd *r, const struct wire_view *view, int fd)
{
	struct rd_take *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->held = -1;
	t->taken.fd = -1;
	t->memory = rd_take_memory();
	if (!t->memory)
		return handout_free(t);
	rd_take_fill(r, t, view, fd);
	return t;
}

bool rd_handout_arrives(struct readyd *r, const struct wire_view *view, int fd)
{
	const struct wire_handout *h = view->records;
	struct rd_group *g = rd_group_find(r, view->tail + h->name_length, h->group_length);
	bool wanted = g && g->capacity && g->credit;
	struct rd_take *t = NULL;

	if (!r->parking.worked) {
		rd_fd_close(&fd);
		return false;
	}
	if (g && g->credit)
		g->credit--;
	if (wanted && fd < 0) {
		g->withheld++;
		r->parking.full = r->parking.notice = true;
	}
	if (!wanted || fd < 0) {
		rd_fd_close(&fd);
		give_back(r, h->token);
		return true;
	}
	t = handout_new(r, view, fd);
	if (!t) {
		rd_fd_close(&fd);
		rd_lose(r, "no memory for a park that was handed out");
		return true;
	}
	t->group = g;
	g->here++;
	*r->parking.arrived_end = t;
	r->parking.arrived_end = &t->next;
	return true;
}

/* ---- What readyd_poll() tells ---- */

static bool is_settled(const struct rd_take *t)
{
	return t->orphan && t->state != RD_TAKE_ARRIVED;
}

bool rd_handouts_kept(const struct readyd *r)
{
	if (!r->parking.worked)
		return false;
	if (r->parking.notice || r->parking.full)
		return true;
	for (const struct rd_take *t = r->parking.takes; t; t = t->next)
		if (is_settled(t))
			return true;
	return r->parking.arrived && r->parking.n_takes < RD_TAKES_MAX;
}

/* One that was not told of; NULL: all were. */
static struct rd_take *untold(const struct readyd *r)
{
	for (struct rd_take *t = r->parking.takes; t; t = t->next)
		if (is_settled(t) && t->state == RD_TAKE_OWNED && !t->told)
			return t;
	for (struct rd_take *t = r->parking.arrived; t; t = t->next)
		if (!t->told)
			return t;
	return NULL;
}

bool rd_handouts_untold(const struct readyd *r)
{
	return r->parking.worked && !r->parking.n_receivers && (r->parking.notice || untold(r));
}

void rd_handouts_tell(struct readyd *r, struct rd_sink *sink)
{
	struct rd_take *t;

	if (r->parking.n_receivers)
		return;
	if (r->parking.notice && sink->n < sink->max) {
		r->parking.notice = false;
		sink->events[sink->n++] = (struct readyd_event){.kind = READYD_EVENT_HANDOUT};
	}
	while (sink->n < sink->max && (t = untold(r))) {
		t->told = true;
		sink->events[sink->n++] = (struct readyd_event){
			.cookie = t->taken.cookie,
			.id = t->taken.park,
			.kind = READYD_EVENT_HANDOUT,
			.read = t->taken.read,
			.write = t->taken.write,
		};
	}
}

/* ---- readyd_receive() ---- */

/* One for this thread, which is in `takes` from now on. NULL: there is none. */
static struct rd_take *claim(struct readyd *r)
{
	struct rd_take *t = r->parking.takes;

	while (t && !t->orphan)
		t = t->next;
	if (t) {
		t->orphan = false;
		return t;
	}
	t = r->parking.arrived;
	if (!t || r->parking.n_takes >= RD_TAKES_MAX)
		return NULL;
	r->parking.arrived = t->next;
	if (!t->next)
		r->parking.arrived_end = &r->parking.arrived;
	rd_take_link(r, t);
	return t;
}

/* It is settled. true: it is the caller's; false: the daemon has it. */
static bool settled(struct readyd *r, struct rd_take *t, struct readyd_taken *ret)
{
	struct rd_group *g = t->group;
	uint32_t index;

	rd_take_unlink(r, t);
	handout_leave(t);
	if (t->state != RD_TAKE_OWNED) {
		handout_free(t);
		if (g)
			rd_group_push(r, g);
		return false;
	}
	if (g)
		g->working++;
	index = rd_park_find(r, t->taken.park);
	if (index)
		rd_park_remove(r, index);
	*ret = t->taken;
	free(t);
	return true;
}

/* 1: *ret is filled; 0: there is none; -ETIMEDOUT: the connection was lost, and the time is over;
 * else the sticky error. May block. */
static int receive_one(struct readyd *r, struct readyd_taken *ret, int64_t until)
{
	struct rd_take *t;

	while ((t = claim(r))) {
		int error;

		rd_pass_handouts(r); /* there may be more */
		error = rd_take_acknowledge(r, t, until);
		if (error == -ETIMEDOUT) {
			t->orphan = true;
			t->told = false;
			return error;
		}
		if (error) {
			rd_take_unlink(r, t);
			handout_leave(t);
			handout_free(t);
			return error;
		}
		if (settled(r, t, ret))
			return 1;
	}
	return 0;
}

/* There are no hand-outs: what there is to say of that. 0: nothing. */
static int report(struct readyd *r)
{
	if (r->parking.full) {
		r->parking.full = r->parking.notice = false;
		return rd_fail(r, -EMFILE,
			       "a park was handed out, and this process has no free fd for it; "
			       "another worker gets it, or it waits");
	}
	r->parking.notice = false;
	return rd_group_report(r);
}

/* What a daemon would hand out if it knew that there is room again. */
static void credit_renew(struct readyd *r)
{
	for (struct rd_group *g = r->parking.groups; g && !r->parking.full; g = g->next) {
		if (!g->withheld)
			continue;
		g->withheld = 0;
		rd_group_push(r, g);
	}
}

/* In rd_await_until(), 0 is no limit. */
static int64_t end_of(int64_t delta)
{
	int64_t until;

	if (delta < 0)
		return 0;
	return __builtin_add_overflow(rd_now(), delta, &until) ? INT64_MAX : until;
}

static int receive(struct readyd *r, struct readyd_taken *ret, int64_t delta)
{
	struct rd_waiter w = {.wants = RD_WANTS_HANDOUTS};
	bool readable = true; /* what is there already comes before the clock */
	int64_t until = end_of(delta);

	for (;;) {
		int result = receive_one(r, ret, until);

		if (result)
			return result == -ETIMEDOUT ? 0 : result;
		if (r->error)
			return rd_ended(r);
		result = report(r);
		if (result)
			return result;
		(void)rd_flush(r);
		if (r->resume.wants_private)
			rd_private_again(r);
		if (r->error)
			continue;
		if (readable && rd_receive(r, NULL)) {
			rd_pass_events(r);
			continue;
		}
		if (delta != 0 && rd_break_take(r))
			return 0;
		if (delta >= 0 && rd_now() >= until)
			return 0;
		result = rd_block(r, &w, until, &readable);
		if (result == -EINTR && r->flags & READYD_EINTR)
			return rd_fail(r, -EINTR, "interrupted by a signal");
	}
}

int readyd_receive(struct readyd *r, struct readyd_taken *ret, int64_t delta)
{
	RD_KEEP_ERRNO;
	int result = rd_enter(r);

	if (result)
		return result;
	if (ret->size != sizeof(*ret)) { /* until there is a second size */
		result = rd_fail(r, -EINVAL, "struct readyd_taken of a wrong size");
	} else {
		r->parking.n_receivers += delta != 0;
		credit_renew(r);
		result = receive(r, ret, delta);
		r->parking.n_receivers -= delta != 0;
	}
	rd_leave(r);
	return result;
}
