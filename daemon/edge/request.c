/* SPDX-License-Identifier: MIT */
#include "request.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "daemon/poller/fd.h"

/*
 * One function a request. A record that is refused becomes a FAILURE and does not stop those after
 * it; then comes the ANSWER, if the request asked for one. Records that carry fds take them from
 * the landing in order, whatever becomes of them, so that the rest keeps its place.
 */

/* A request while it is applied. */
struct request {
	struct connection *c;
	const struct wire_view *view;
	unsigned index;        /* of the record */
	uint32_t failed;       /* refused so far */
	enum wire_error first; /* refusal */
	uint64_t value;        /* of the answer */
};

/* What makes a record fail. */
struct refusal {
	enum wire_error error;
	uint32_t id;
	uint32_t gen;
	uint8_t direction;
	uint16_t detail;
	uint64_t value;
};

/* ---- Results ---- */

static void refuse(struct request *q, const struct refusal *why)
{
	struct wire_failure record = {
		.kind = WIRE_RECORD_FAILURE,
		.direction = why->direction,
		.error = (uint16_t)why->error,
		.serial = q->view->header.serial,
		.id = why->id,
		.gen = why->gen,
		.index = (uint16_t)q->index,
		.detail = why->detail,
		.value = why->value > UINT32_MAX ? UINT32_MAX : (uint32_t)why->value,
	};

	if (q->failed++ == 0)
		q->first = why->error;
	q->c->server->stats.failures++;
	connection_add_record(q->c, &record);
}

static void answer(struct request *q)
{
	struct wire_answer record = {
		.kind = WIRE_RECORD_ANSWER,
		.error = (uint16_t)q->first,
		.serial = q->view->header.serial,
		.failed = q->failed,
		.request = q->view->header.type,
		.value = q->value,
	};

	connection_add_record(q->c, &record);
}

enum wire_error request_error_of(int r)
{
	switch (r) {
	case 0:
		return WIRE_OK;
	case -ENOENT:
		return WIRE_E_NOT_FOUND;
	case -ESTALE:
		return WIRE_E_STALE;
	case -EINVAL:
		return WIRE_E_INVALID;
	case -EEXIST:
		return WIRE_E_EXISTS;
	case -EBUSY:
		return WIRE_E_BUSY;
	case -EALREADY:
		return WIRE_E_ALREADY;
	case -EDQUOT:
		return WIRE_E_QUOTA;
	case -EOPNOTSUPP:
		return WIRE_E_NOT_SUPPORTED;
	case -EMFILE:
	case -ENFILE:
		return WIRE_E_TOO_MANY_FDS;
	case -EBADF:
		return WIRE_E_BAD_FD;
	case -EPERM:
		return WIRE_E_NOT_POLLABLE;
	case -ENOSPC:
	case -ENOMEM:
		return WIRE_E_NO_RESOURCES;
	default:
		return WIRE_E_INTERNAL;
	}
}

/* The kernel's word at registration means other things than the core's. */
static enum wire_error error_of_registration(int r)
{
	switch (r) {
	case -EEXIST:
		return WIRE_E_NO_LANE;
	case -EINVAL:
	case -ELOOP:
		return WIRE_E_SHARED;
	case -EBADF:
		return WIRE_E_NOT_POLLABLE; /* O_PATH: open, but not for this */
	default:
		return request_error_of(r);
	}
}

static enum wire_error error_of_code(int code)
{
	switch (code) {
	case CORE_CODE_CLOSING:
		return WIRE_E_CLOSING;
	case CORE_CODE_TIMEOUT:
		return WIRE_E_TIMEOUT;
	case CORE_CODE_NOT_POLLABLE:
		return WIRE_E_NOT_POLLABLE;
	default:
		return WIRE_E_INTERNAL;
	}
}

/* The result of a call on the core: an errno, or the error check's code. */
static void refuse_result(struct request *q, uint32_t id, uint32_t gen, unsigned directions, int r)
{
	struct refusal why = {.id = id, .gen = gen};

	if (r == 0)
		return;
	why.error = r < 0 ? request_error_of(r) : error_of_code(r);
	if (directions == WIRE_READ || directions == WIRE_WRITE)
		why.direction = (uint8_t)directions;
	refuse(q, &why);
}

static void refuse_slots(struct request *q, const struct wire_slots *w, int r)
{
	refuse_result(q, w->id, w->gen, w->directions, r);
}

static void refuse_quota(struct request *q, uint32_t id, uint32_t gen, int r, enum quota_kind kind)
{
	struct refusal why = {.error = request_error_of(r), .id = id, .gen = gen};

	if (r == -EDQUOT) {
		why.detail = (uint16_t)kind;
		why.value = q->c->account->quota.limit[kind];
	}
	refuse(q, &why);
}

void request_encode_entry(const struct core_entry *e, struct wire_entry *ret)
{
	switch (e->kind) {
	case CORE_ENTRY_WATCH:
		*ret = (struct wire_entry){
			.kind = WIRE_RECORD_ENTRY,
			.mode = e->mode,
			.read = e->read,
			.write = e->write,
			.read_stamp = e->read_stamp,
			.write_stamp = e->write_stamp,
			.id = e->id,
			.gen = e->gen,
			.cookie = e->cookie,
		};
		return;
	case CORE_ENTRY_TIMER: {
		struct wire_timer_entry timer = {
			.kind = WIRE_RECORD_TIMER,
			.count = e->count,
			.id = e->id,
			.gen = e->gen,
			.cookie = e->cookie,
		};

		_Static_assert(sizeof(timer) == sizeof(*ret), "records of READY share their size");
		memcpy(ret, &timer, sizeof(timer));
		return;
	}
	default:
		*ret = (struct wire_entry){.kind = WIRE_RECORD_BREAK};
		return;
	}
}

/* ---- HELLO ---- */

struct feature {
	const char *name;
	uint32_t cap;
};

static const struct feature features[] = {
	{"weak", POLLER_WEAK},
	{"edge", POLLER_EDGE},
	{"stream", POLLER_EDGE},
	{"ns", POLLER_NS},
};

static bool has_word(const char *text, size_t size, const char *word)
{
	size_t length = strlen(word);

	for (size_t i = 0; i < size;) {
		size_t n = 0;

		while (i + n < size && text[i + n] != ' ')
			n++;
		if (n == length && memcmp(text + i, word, n) == 0)
			return true;
		i += n + 1;
	}
	return false;
}

/* The features that were asked for and that the backend has. */
static size_t grant(const struct connection *c, const struct wire_view *view, char *ret,
		    size_t size)
{
	size_t used = 0;

	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		const struct feature *f = &features[i];

		if (!(poller_caps(c->server->poller) & f->cap) ||
		    !has_word(view->tail, view->header.tail, f->name))
			continue;
		used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? " " : "", f->name);
	}
	return used;
}

static int make_session(struct connection *c)
{
	struct server *s = c->server;
	int r = poller_set_new(s->poller, c, &c->set);

	if (r < 0)
		return r;
	c->number = ++s->next_session;
	return core_add_session(s->core, c->number, c, &c->account->quota, &c->session);
}

static void apply_hello(struct request *q)
{
	const struct wire_hello *hello = q->view->records;
	struct connection *c = q->c;
	struct wire_welcome welcome = {
		.magic = WIRE_MAGIC,
		.now = c->server->now,
		.message_max = WIRE_MESSAGE_MAX,
		.records_max = WIRE_RECORDS_MAX,
		.fds_max = WIRE_FDS_MAX,
		.pid = c->server->pid,
	};
	char text[128];
	size_t size;
	int r;

	if (hello->lowest > WIRE_PROTOCOL_HIGHEST || hello->highest < WIRE_PROTOCOL_LOWEST) {
		(void)snprintf(text, sizeof(text),
			       "the client speaks protocol %u to %u, this daemon %d to %d; "
			       "update the older one",
			       hello->lowest, hello->highest, WIRE_PROTOCOL_LOWEST,
			       WIRE_PROTOCOL_HIGHEST);
		connection_fail(c, WIRE_E_VERSION, q->view->header.serial, text);
		return;
	}
	r = make_session(c);
	if (r < 0) {
		connection_fail(c, request_error_of(r), q->view->header.serial,
				"the daemon has no fd or memory left for a session; try again, or "
				"raise its LimitNOFILE=");
		return;
	}
	c->greeted = true;
	TAILQ_REMOVE(&c->server->ungreeted, c, ungreeted);
	welcome.protocol =
		hello->highest < WIRE_PROTOCOL_HIGHEST ? hello->highest : WIRE_PROTOCOL_HIGHEST;
	welcome.session = c->number;
	size = grant(c, q->view, text, sizeof(text));
	connection_add_message(c, WIRE_WELCOME, 0, q->view->header.serial, &welcome, 1, text, size);
}

/* ---- Watches ---- */

static void watch_one(struct request *q, const struct wire_watch *w)
{
	struct connection *c = q->c;
	struct server *s = c->server;
	struct admission_rights rights = {.ttys = c->rights.ttys};
	struct refusal why = {.id = w->id, .gen = w->gen};
	enum wire_kind kind = WIRE_KIND_UNKNOWN;
	struct core_watch watch;
	uint32_t word = 0;
	uint64_t tag;
	int fd, r;

	fd = landing_take(&s->landing);
	if (fd < 0) {
		why.error = request_error_of(fd);
		refuse(q, &why);
		return;
	}
	why.error = admission_check(&s->admission, &rights, fd, &kind);
	if (why.error != WIRE_OK) {
		if (why.error == WIRE_E_KIND)
			why.detail = (uint16_t)kind;
		refuse(q, &why);
		return;
	}
	watch = (struct core_watch){
		.id = w->id,
		.gen = w->gen,
		.cookie = w->cookie,
		.interest = w->interest,
		.mode = w->mode,
		.kind = (uint8_t)kind,
		.fd = w->fd,
	};
	r = session_watch(c->session, &watch, s->now, &tag);
	if (r < 0) {
		refuse_quota(q, w->id, w->gen, r, QUOTA_WATCHES);
		return;
	}
	r = landing_watch(&s->landing, fd, s->poller, c->set, tag, w->interest, &c->lane_hint,
			  &word);
	if (r < 0) {
		watch_forget(s->core, tag);
		why.error = error_of_registration(r);
		refuse(q, &why);
		return;
	}
	watch_registered(s->core, tag, word);
}

/* What a watch that goes is still owed is told before the answer (O4). */
static void unwatch_one(struct request *q, const struct wire_unwatch *u)
{
	struct connection *c = q->c;
	struct server *s = c->server;
	bool weak = poller_caps(s->poller) & POLLER_WEAK;
	struct core_entry entry;
	struct wire_entry record;
	int fd = -1, r;
	uint64_t tag;
	uint32_t word;

	if (u->flags & WIRE_UNWATCH_FD)
		fd = landing_take(&s->landing);
	r = session_find_watch(c->session, u->id, u->gen, &tag, &word);
	if (r == 0) {
		/* an fd that is another one, or was lost, leaves a registration that is dead */
		if (fd >= 0 && weak)
			(void)landing_unwatch(&s->landing, fd, s->poller, c->set, tag, word);
		else if (!weak)
			(void)poller_close(s->poller, c->set, -1, tag, word);
		r = session_unwatch(c->session, u->id, u->gen, &entry);
	}
	if (r < 0) {
		refuse_result(q, u->id, u->gen, 0, r);
		return;
	}
	if (r == 1) {
		request_encode_entry(&entry, &record);
		connection_add_record(c, &record);
	}
}

static void wait_one(struct request *q, const struct wire_slots *w)
{
	struct connection *c = q->c;
	struct server *s = c->server;
	unsigned arm = 0;
	uint64_t tag;
	uint32_t word;
	int r;

	r = session_wait(c->session, w->id, w->gen, w->directions, s->now, &arm);
	if (r == 0 && arm && !(poller_caps(s->poller) & POLLER_EDGE) &&
	    session_find_watch(c->session, w->id, w->gen, &tag, &word) == 0)
		(void)poller_arm(s->poller, c->set, tag, word, arm);
	refuse_slots(q, w, r);
}

/*
 * RESET must clear what the kernel has already seen: all of it is taken first (H2). Once a datagram
 * is enough, since the client reads only after the answer; and no more than each watch once, since
 * what fires without end would never be all.
 */
static void take_events(struct connection *c)
{
	struct poller_event *events = c->server->buffers.events;
	uint64_t left = session_stats(c->session)->watches;
	int n;

#ifdef READYD_MUTANT_RESET_WITHOUT_TAKE
	return;
#endif
	do {
		n = poller_take(c->server->poller, c->set, events, SERVER_EVENTS);
		for (int i = 0; i < n; i++)
			server_apply_event(c->server, &events[i]);
		left = left > (uint64_t)n ? left - (uint64_t)n : 0;
	} while (n == SERVER_EVENTS && left > 0);
}

static void deadline_one(struct request *q, const struct wire_deadline *d)
{
	int r = -EINVAL;

	if (!(d->flags & ~WIRE_TIME_RELATIVE))
		r = session_set_deadline(q->c->session, d->id, d->gen, d->directions, d->when,
					 d->flags & WIRE_TIME_RELATIVE, d->stamp,
					 q->c->server->now);
	refuse_result(q, d->id, d->gen, d->directions, r);
}

static void evict_one(struct request *q, const struct wire_slots *w)
{
	int r = -EINVAL;

	if (w->directions == (WIRE_READ | WIRE_WRITE))
		r = session_evict(q->c->session, w->id, w->gen);
	refuse_slots(q, w, r);
}

static void slots_one(struct request *q, const struct wire_slots *w)
{
	struct session *session = q->c->session;

	switch (q->view->header.type) {
	case WIRE_WAIT:
		wait_one(q, w);
		return;
	case WIRE_UNWAIT:
		refuse_slots(q, w, session_unwait(session, w->id, w->gen, w->directions));
		return;
	case WIRE_RESET:
		refuse_slots(q, w, session_reset(session, w->id, w->gen, w->directions));
		return;
	default:
		evict_one(q, w);
		return;
	}
}

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
		refuse_quota(q, t->id, t->gen, r, QUOTA_TIMERS);
	else if (pending)
		q->value++;
}

static void timer_stop_one(struct request *q, const struct wire_timer_stop *t)
{
	int r = session_stop_timer(q->c->session, t->id, t->gen);

	refuse_result(q, t->id, t->gen, 0, r);
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
		refuse(q, &why);
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
		why.error = request_error_of(own);
	if (own < 0 || q->index >= 64)
		refuse(q, &why);
	else if (own)
		q->value |= UINT64_C(1) << q->index;
}

/* ---- All requests ---- */

static void not_implemented_one(struct request *q)
{
	struct refusal why = {.error = WIRE_E_NOT_IMPLEMENTED};

	if (q->view->header.type == WIRE_PARK)
		(void)landing_take(&q->c->server->landing);
	refuse(q, &why);
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
		watch_one(q, record);
		return;
	case WIRE_UNWATCH:
		unwatch_one(q, record);
		return;
	case WIRE_WAIT:
	case WIRE_UNWAIT:
	case WIRE_RESET:
	case WIRE_EVICT:
		slots_one(q, record);
		return;
	case WIRE_DEADLINE:
		deadline_one(q, record);
		return;
	case WIRE_TIMER_SET:
		timer_set_one(q, record);
		return;
	case WIRE_TIMER_STOP:
		timer_stop_one(q, record);
		return;
	default:
		not_implemented_one(q);
		return;
	}
}

static bool wants_answer(const struct wire_header *header)
{
	return (header->flags & WIRE_FLAG_ANSWER) || header->type == WIRE_IS_POLL_DESCRIPTOR ||
	       header->type == WIRE_LIST_PARKS || header->type == WIRE_LIST_GROUPS;
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
	if (view->header.type == WIRE_UPGRADE)
		q.first = WIRE_E_NOT_IMPLEMENTED; /* it has no record that could fail */
	if (wants_answer(&view->header) || view->header.type == WIRE_UPGRADE)
		answer(&q);
}

/* One reply of rows a datagram: what a turn says stays bounded. */
static void apply_inspection(struct connection *c, const struct wire_view *view, bool *inspected)
{
	struct request q = {.c = c, .view = view, .first = WIRE_E_BUSY};

	if (*inspected) {
		answer(&q);
		return;
	}
	*inspected = true;
	if (view->header.type == WIRE_GET_STATUS)
		inspect_status(c, view);
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

			apply_hello(&q);
			break;
		}
		case WIRE_GET_STATUS:
		case WIRE_LIST_SESSIONS:
		case WIRE_LIST_WATCHES:
		case WIRE_LIST_TIMERS:
		case WIRE_LIST_QUOTAS:
			apply_inspection(c, &view, &inspected);
			break;
		default:
			if (view.header.type == WIRE_RESET && !taken) {
				take_events(c);
				taken = true;
			}
			apply_records(c, &view);
			break;
		}
	}
}
