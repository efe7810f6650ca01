/* SPDX-License-Identifier: MIT */
#include "watching.h"
#include "sending.h"

#include <errno.h>

/*
 * Registering is two halves: the core's, which checks id and quota and gives a tag, and the
 * poller's, under the number where the fd landed. UNWATCH undoes both.
 *
 * The fd that comes with UNWATCH may be missing, lost, or another one. Then the kernel's
 * registration is dead: its events carry a tag of nobody, but it takes the kernel's memory until the
 * client has closed the description. So it stays charged to the user. When a quota is reached the
 * kernel is asked how many are left: most clients have closed their fds meanwhile.
 */

#define AUDIT_INTERVAL INT64_C(1000000000) /* ns: an audit walks all registrations of a session */

static void bury(struct connection *c)
{
	if (quota_charge(&c->account->quota, QUOTA_WATCHES, 1))
		c->dead++;
}

/* Gives back what is dead no more. Returns whether that was anything. */
static bool audit(struct connection *c)
{
	uint64_t live = session_stats(c->session)->watches, dead;
	int64_t now = c->server->now, n;

	if (c->dead == 0 || (c->audited != 0 && now - c->audited < AUDIT_INTERVAL))
		return false;
	c->audited = now;
	n = poller_registrations(c->server->poller, c->set);
	if (n < 0)
		return false;
	dead = (uint64_t)n > live ? (uint64_t)n - live : 0;
	if (dead >= c->dead)
		return false;
	quota_give_back(&c->account->quota, QUOTA_WATCHES, c->dead - dead);
	c->dead = dead;
	return true;
}

void watching_end(struct connection *c)
{
	quota_give_back(&c->account->quota, QUOTA_WATCHES, c->dead);
	c->dead = 0;
}

static void refuse_slots(struct request *q, const struct wire_slots *w, int r)
{
	result_refuse_code(q, w->id, w->gen, w->directions, r);
}

/* One line: whose, which, and why. */
static void note_refusal(const struct connection *c, uint32_t id, enum wire_error error)
{
	struct log_about about = connection_about(c, LOG_EVENT_NONE);
	struct server *s = c->server;

	about.watch = id;
	log_limited_about(s->log, &s->sites.watches, s->now, CONFIG_LOG_INFO, &about,
			  "uid %u pid %d session %llu: watch %u is refused: %s", c->who.uid,
			  (int)c->who.pid, (unsigned long long)c->number, id,
			  wire_error_text(error));
}

static void refuse_watch(struct request *q, const struct refusal *why)
{
	note_refusal(q->c, why->id, why->error);
	result_refuse(q, why);
}

void watching_watch(struct request *q, const struct wire_watch *w)
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
		why.error = result_error_of(fd);
		refuse_watch(q, &why);
		return;
	}
	why.error = admission_check(&s->admission, &rights, fd, &kind);
	if (why.error != WIRE_OK) {
		if (why.error == WIRE_E_KIND)
			why.detail = (uint16_t)kind;
		refuse_watch(q, &why);
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
	if (r == -EDQUOT && audit(c))
		r = session_watch(c->session, &watch, s->now, &tag);
	if (r < 0) {
		note_refusal(c, w->id, result_error_of(r));
		result_refuse_quota(q, w->id, w->gen, r, QUOTA_WATCHES);
		return;
	}
	r = landing_watch(&s->landing, fd, s->poller, c->set, tag, w->interest, &c->lane_hint,
			  &word);
	if (r < 0) {
		watch_forget(s->core, tag);
		why.error = result_error_of_registration(r);
		refuse_watch(q, &why);
		return;
	}
	watch_registered(s->core, tag, word);
}

void watching_unwatch(struct request *q, const struct wire_unwatch *u)
{
	struct connection *c = q->c;
	struct server *s = c->server;
	bool weak = poller_caps(s->poller) & POLLER_WEAK, closed = false;
	struct core_entry entry;
	struct wire_entry record;
	int fd = -1, r;
	uint64_t tag;
	uint32_t word;

	if (u->flags & WIRE_UNWATCH_FD)
		fd = landing_take(&s->landing);
	r = session_find_watch(c->session, u->id, u->gen, &tag, &word);
	if (r == 0) {
		if (weak && fd >= 0)
			closed =
				landing_unwatch(&s->landing, fd, s->poller, c->set, tag, word) == 0;
		else if (!weak)
			closed = poller_close(s->poller, c->set, -1, tag, word) == 0;
		r = session_unwatch(c->session, u->id, u->gen, &entry);
		if (!closed)
			bury(c);
	}
	if (r < 0) {
		result_refuse_code(q, u->id, u->gen, 0, r);
		return;
	}
	if (r == 1) {
		result_encode_entry(&entry, &record);
		sending_add_record(c, &record);
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

void watching_take_events(struct connection *c)
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

void watching_set_deadline(struct request *q, const struct wire_deadline *d)
{
	int r = -EINVAL;

	if (!(d->flags & ~WIRE_TIME_RELATIVE))
		r = session_set_deadline(q->c->session, d->id, d->gen, d->directions, d->when,
					 d->flags & WIRE_TIME_RELATIVE, d->stamp,
					 q->c->server->now);
	result_refuse_code(q, d->id, d->gen, d->directions, r);
}

static void evict_one(struct request *q, const struct wire_slots *w)
{
	int r = -EINVAL;

	if (w->directions == (WIRE_READ | WIRE_WRITE))
		r = session_evict(q->c->session, w->id, w->gen);
	refuse_slots(q, w, r);
}

void watching_change_slots(struct request *q, const struct wire_slots *w)
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
