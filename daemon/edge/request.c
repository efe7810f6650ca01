/* SPDX-License-Identifier: MIT */
#include "request.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "grouping.h"
#include "hello.h"
#include "parking.h"
#include "upgrading.h"
#include "watching.h"

/*
 * One function a request. A record that is refused becomes a FAILURE and does not stop those after
 * it; then comes the ANSWER, if the request asked for one. Records that carry fds take them from
 * the landing in order, whatever becomes of them, so that the rest keeps its place.
 */

/* ---- Timers ---- */

static void timer_set_one(struct request *q, const struct wire_timer_set *t)
{
	struct core_timer timer = {
		.id = t->id,
		.gen = t->gen,
		.cookie = t->cookie,
		.when = t->when,
		.period = t->period,
		.relative = t->flags & WIRE_TIME_RELATIVE,
	};
	bool pending = false;
	int r = -EINVAL;

	if (!(t->flags & ~WIRE_TIME_RELATIVE))
		r = session_set_timer(q->c->session, &timer, q->c->server->now, &pending);
	if (r < 0)
		result_refuse_quota(q, t->id, t->gen, r, QUOTA_TIMERS);
	else if (pending)
		q->value++;
}

static void timer_stop_one(struct request *q, const struct wire_timer_stop *t)
{
	int r = session_stop_timer(q->c->session, t->id, t->gen);

	result_refuse_code(q, t->id, t->gen, 0, r);
	if (r == 0)
		q->value++;
}

/* ---- Breaks, poll descriptors ---- */

static void break_one(struct request *q, const struct wire_break *b)
{
	struct connection *c = q->c, *other = c;
	struct refusal why = {.error = WIRE_E_NOT_FOUND};

	if (b->session != 0)
		other = server_find_session(c->server, b->session);
	/* another user's session looks like none at all */
	if (!other || (other->who.uid != c->who.uid && !c->rights.manage)) {
		result_refuse(q, &why);
		return;
	}
	session_break(other->session);
}

static void is_poll_descriptor_one(struct request *q)
{
	struct server *s = q->c->server;
	struct refusal why = {.error = WIRE_E_INVALID};
	int fd = landing_take(&s->landing), own;

	own = fd < 0 ? fd : admission_is_own(&s->admission, fd);
	if (own < 0)
		why.error = result_error_of(own);
	if (own < 0 || q->index >= 64)
		result_refuse(q, &why);
	else if (own)
		q->value |= UINT64_C(1) << q->index;
}

/* ---- All requests ---- */

static void not_implemented_one(struct request *q)
{
	struct refusal why = {.error = WIRE_E_NOT_IMPLEMENTED};

	result_refuse(q, &why);
}

static void apply_record(struct request *q, const void *record)
{
	switch (q->view->header.type) {
	case WIRE_BREAK:
		break_one(q, record);
		return;
	case WIRE_IS_POLL_DESCRIPTOR:
		is_poll_descriptor_one(q);
		return;
	case WIRE_WATCH:
		watching_watch(q, record);
		return;
	case WIRE_UNWATCH:
		watching_unwatch(q, record);
		return;
	case WIRE_WAIT:
	case WIRE_UNWAIT:
	case WIRE_RESET:
	case WIRE_EVICT:
		watching_change_slots(q, record);
		return;
	case WIRE_DEADLINE:
		watching_set_deadline(q, record);
		return;
	case WIRE_TIMER_SET:
		timer_set_one(q, record);
		return;
	case WIRE_TIMER_STOP:
		timer_stop_one(q, record);
		return;
	case WIRE_PARK:
	case WIRE_CLAIM:
	case WIRE_TAKE:
	case WIRE_DROP:
	case WIRE_ACKNOWLEDGE:
	case WIRE_HELD:
		park_request_apply(q, record);
		return;
	case WIRE_ATTACH:
	case WIRE_DETACH:
		grouping_apply(q, record);
		return;
	default:
		not_implemented_one(q);
		return;
	}
}

static bool wants_answer(const struct wire_header *header)
{
	return (header->flags & WIRE_FLAG_ANSWER) || header->type == WIRE_IS_POLL_DESCRIPTOR;
}

#ifdef READYD_MUTANT_CRASH_ON_SYNC
/* For the tests of blame: 0xdeadNN00 dies by signal NN, 0xdeadff00 never ends. */
static void crash_on_sync(uint32_t serial)
{
	if (serial == UINT32_C(0xdeadff00))
		for (;;)
			;
	if (serial >> 16 == 0xdead)
		(void)raise((int)(serial >> 8 & 0xff));
}
#endif

static void apply_records(struct connection *c, const struct wire_view *view)
{
	struct request q = {.c = c, .view = view};
	const uint8_t *record = view->records;
	size_t size = (size_t)wire_record_size(view->header.type);

#ifdef READYD_MUTANT_CRASH_ON_SYNC
	if (view->header.type == WIRE_SYNC)
		crash_on_sync(view->header.serial);
#endif
	for (; q.index < view->header.count; q.index++)
		apply_record(&q, record + q.index * size);
	if (wants_answer(&view->header))
		result_answer(&q);
}

/* One reply of rows a datagram: what a turn says stays bounded. */
static void apply_inspection(struct connection *c, const struct wire_view *view, bool *inspected)
{
	struct request q = {.c = c, .view = view, .first = WIRE_E_BUSY};

	if (*inspected) {
		result_answer(&q);
		return;
	}
	*inspected = true;
	if (view->header.type == WIRE_GET_STATUS)
		inspect_status(c, view);
	else if (view->header.type == WIRE_LIST_PARKS)
		inspect_parks(c, view);
	else if (view->header.type == WIRE_LIST_GROUPS)
		inspect_groups(c, view);
	else
		inspect_list(c, view);
}

void request_apply(struct connection *c, const uint8_t *datagram, size_t size)
{
	struct wire_view view;
	bool inspected = false, taken = false;

	admission_begin(&c->server->admission);
	for (size_t at = 0; at < size && !c->closing; at += view.size) {
		enum wire_error error = wire_decode(datagram + at, size - at, true, &view, NULL);

		assert(error == WIRE_OK); /* wire_check_datagram() has seen all of it */
		(void)error;
		c->requests++;
		switch (view.header.type) {
		case WIRE_HELLO: {
			struct request q = {.c = c, .view = &view};

			hello_apply(&q);
			break;
		}
		case WIRE_GET_STATUS:
		case WIRE_LIST_SESSIONS:
		case WIRE_LIST_WATCHES:
		case WIRE_LIST_TIMERS:
		case WIRE_LIST_QUOTAS:
		case WIRE_LIST_PARKS:
		case WIRE_LIST_GROUPS:
			apply_inspection(c, &view, &inspected);
			break;
		case WIRE_UPGRADE: {
			struct request q = {.c = c, .view = &view};

			upgrading_apply(&q);
			break;
		}
		default:
			if (view.header.type == WIRE_RESET && !taken) {
				watching_take_events(c);
				taken = true;
			}
			apply_records(c, &view);
			break;
		}
	}
}
