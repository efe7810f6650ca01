/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"
#include "parking.h"
#include "sharing.h"
#include "twins.h"

/*
 * PARK, CLAIM, TAKE, DROP, ACKNOWLEDGE, HELD. Each changes something that the holder has to know
 * before the answer may be sent: the connection is marked, and held back when the turn's messages
 * are sent if its holder is behind (holder_link.c).
 *
 * A parked fd is watched before the core hears of it, since a park that cannot be watched is
 * refused, and nothing has happened then.
 */

static void refuse(struct request *q, int r)
{
	struct refusal why = {.error = result_error_of(r)};

	result_refuse(q, &why);
}

static void refuse_quota(struct request *q, enum quota_kind kind)
{
	result_refuse_quota(q, 0, 0, -EDQUOT, kind);
}

/* ---- PARK ---- */

/* Control characters in names only serve to deceive who reads lists. */
bool park_request_is_name(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i] < 0x20 || bytes[i] == 0x7f)
			return false;
	return true;
}

/* One that is there already is repeated, and refused never. */
static enum wire_error check_durable(const struct connection *c, const struct wire_park *w)
{
	const struct parking *k = c->account->parking;

	if (!c->server->durable)
		return WIRE_E_NOT_SUPPORTED;
	if (link_refuses_durable(c->account) &&
	    !parks_find_token(c->server->parks, k->owner, w->token))
		return WIRE_E_NO_RESOURCES;
	return WIRE_OK;
}

static enum wire_error check_values(const struct connection *c, const struct wire_park *w,
				    const uint8_t *tail)
{
	if (park_is_zero(w->token) || w->interest == 0 ||
	    (w->interest & ~(WIRE_READ | WIRE_WRITE)) || w->deadline < 0 ||
	    !park_request_is_name(tail, (size_t)w->name_length + w->group_length))
		return WIRE_E_INVALID;
	return w->flags & WIRE_PARK_DURABLE ? check_durable(c, w) : WIRE_OK;
}

/* SO_ACCEPTCONN takes no lock. Connections to a parked listener would wait for nobody. */
static bool is_listener(int fd)
{
	int listens = 0;
	socklen_t length = sizeof(listens);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens;
}

static enum wire_error check_fd(struct connection *c, const struct wire_park *w, int fd,
				enum wire_kind *ret_kind)
{
	struct admission_rights rights = {.ttys = c->rights.ttys};
	enum wire_error error = admission_check(&c->server->admission, &rights, fd, ret_kind);

	/* what cannot be polled can be held where that is all that is asked */
	if (error == WIRE_E_NOT_POLLABLE && (w->flags & WIRE_PARK_HOLD_ONLY) && c->rights.trusted)
		error = WIRE_OK;
	if (error == WIRE_OK && is_listener(fd))
		error = WIRE_E_KIND;
	return error;
}

/* A lasting copy, but for the numbers that are kept free. */
static int keep(const struct server *s, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, FD_LASTING);

	if (copy < 0)
		return -errno;
	if ((uint64_t)copy + s->config.reserve_fds < s->max_fds)
		return copy;
	(void)close(copy);
	return -EMFILE;
}

static int64_t deadline_of(const struct server *s, const struct wire_park *w)
{
	int64_t when = w->deadline;

	if (when != 0 && (w->flags & WIRE_PARK_RELATIVE) &&
	    __builtin_add_overflow(when, s->now, &when))
		when = INT64_MAX;
	return when;
}

static void refuse_park(struct request *q, int r)
{
	if (r == -EDQUOT)
		refuse_quota(q, QUOTA_PARKS);
	else if (r == -ENOSPC)
		refuse_quota(q, QUOTA_NOTE_BYTES);
	else
		refuse(q, r);
}

/* The fd is watched already, unless it is only held; it is closed here if nothing comes of it. */
static void make_park(struct request *q, const struct wire_park *w, struct peer *peer,
		      enum wire_kind kind, bool shared, int copy, uint32_t word)
{
	struct server *s = q->c->server;
	bool watched = !(w->flags & WIRE_PARK_HOLD_ONLY);
	struct park_new new = {
		.cookie = w->cookie,
		.deadline = deadline_of(s, w),
		.flags = w->flags & ~(uint32_t)WIRE_PARK_RELATIVE,
		.told_fd = w->fd,
		.interest = w->interest,
		.kind = (uint8_t)kind,
		.shared = shared,
		.text =
			{
				.note_length = w->note_length,
				.name_length = w->name_length,
				.group_length = w->group_length,
				.local_length = w->local_length,
				.peer_length = w->peer_length,
				.bytes = (const uint8_t *)q->view->tail,
			},
	};
	struct park *p = NULL;
	int r;

	memcpy(new.token, w->token, sizeof(new.token));
	r = parks_park(s->parks, peer->handle, &new, s->now, &p);
	parking_step();
	if (r != 0) {
		if (watched)
			parking_unregister(peer->parking, copy, word);
		(void)close(copy);
	} else {
		p->fd = copy;
		p->word = word;
		p->caller_flags = watched ? PARKING_REGISTERED : 0;
		s->park_by_fd[copy] = p;
		twins_add(peer->parking, p);
		parking_note_age(s, p);
	}
	if (r < 0) {
		refuse_park(q, r);
		return;
	}
	q->value = p->number;
	if (peer->dead)
		parks_answered(s->parks, p); /* nobody is left to read the answer */
	if (!p->answered)
		parking_queue(p, &q->c->unanswered);
	p->caller_flags &= ~(uint32_t)(PARKING_TOLD | PARKING_TOLD_TIMEOUT);
}

/* What may not be parked, though it could be. A repeat may: its park is there. */
static int check_group_and_twin(struct connection *c, const struct wire_park *w, struct peer *peer,
				const uint8_t *tail, int fd, bool *ret_shared)
{
	int r = sharing_check(c, tail + w->name_length, w->group_length, SHARING_PARK, ret_shared);

	if (parks_find_token(c->server->parks, peer->parking->owner, w->token))
		return 0;
	return r == 0 && twins_find(peer->parking, fd) ? -EEXIST : r;
}

static void park(struct request *q, const struct wire_park *w)
{
	struct connection *c = q->c;
	struct server *s = c->server;
	struct refusal why = {.error = WIRE_OK};
	enum wire_kind kind = WIRE_KIND_UNKNOWN;
	int fd = landing_take(&s->landing), copy, r;
	bool shared = false;
	struct peer *peer;
	uint32_t word = 0;

	why.error = check_values(c, w, (const uint8_t *)q->view->tail);
	if (why.error == WIRE_OK && fd < 0)
		why.error = result_error_of(fd);
	if (why.error == WIRE_OK)
		why.error = check_fd(c, w, fd, &kind);
	if (why.error != WIRE_OK) {
		if (why.error == WIRE_E_KIND)
			why.detail = (uint16_t)kind;
		result_refuse(q, &why);
		return;
	}
	r = peer_of_connection(c, &peer);
	if (r == 0)
		r = check_group_and_twin(c, w, peer, (const uint8_t *)q->view->tail, fd, &shared);
	copy = r < 0 ? r : keep(s, fd);
	r = copy < 0 ? copy : parking_reserve_fd(s, copy);
	if (r < 0) {
		if (copy >= 0)
			(void)close(copy);
		refuse(q, r);
		return;
	}
	if (!(w->flags & WIRE_PARK_HOLD_ONLY))
		r = parking_register(peer->parking, copy, w->interest, &word);
	parking_step();
	if (r < 0) {
		(void)close(copy);
		why.error = result_error_of_registration(r);
		result_refuse(q, &why);
		return;
	}
	make_park(q, w, peer, kind, shared, copy, word);
}

/* ---- TAKE, DROP ---- */

/* The sender's own. */
static struct park *find_own(const struct request *q, const struct wire_take *w)
{
	const struct server *s = q->c->server;
	const struct parking *k = q->c->account->parking;

	if (!k)
		return NULL;
	switch (w->by) {
	case WIRE_TAKE_BY_NAME:
		return parks_find_name(s->parks, k->owner, q->view->tail, w->name_length,
				       q->view->tail + w->name_length, w->group_length);
	case WIRE_TAKE_BY_ID:
		return parks_find_number(s->parks, k->owner, w->park);
	default:
		return parks_find_token(s->parks, k->owner, w->token);
	}
}

/* One's own first; then that of another user, in a group that they share. */
static int find(const struct request *q, const struct wire_take *w, struct park **ret)
{
	struct park *other = NULL;
	int r;

	*ret = NULL;
	if (w->by > WIRE_TAKE_BY_TOKEN)
		return -EINVAL;
	*ret = find_own(q, w);
	if (*ret && (*ret)->state == PARK_HELD)
		return 0;
	r = sharing_find(q->c, w, (const uint8_t *)q->view->tail, &other);
	if (other)
		*ret = other;
	return *ret ? 0 : r;
}

static void take(struct request *q, const struct wire_take *w)
{
	struct connection *c = q->c;
	struct peer *peer;
	struct park *p;
	int r = find(q, w, &p);

	if (r == 0)
		r = peer_of_connection(c, &peer);
	if (r == 0 && peer->dead)
		r = -EOPNOTSUPP; /* nobody could tell that the one who has its connection dies */
	if (r == 0)
		r = parks_hand(c->server->parks, p, peer->handle, c->server->now);
	parking_step();
	if (r < 0) {
		if (r == -EDQUOT)
			refuse_quota(q, QUOTA_FDS_UNREAD);
		else
			refuse(q, r);
		return;
	}
	q->value = p->number;
	p->handout = q->view->header.serial;
	parking_queue(p, &c->handouts);
	p->caller_flags |= PARKING_SENDING;
}

/* The same, and for who may manage all, anybody's; names are of one user. */
static int find_to_drop(const struct request *q, const struct wire_take *w, struct park **ret)
{
	const struct connection *c = q->c;
	int r = find(q, w, ret);

	if (r != -ENOENT || !c->rights.manage || w->by == WIRE_TAKE_BY_NAME)
		return r;
	*ret = w->by == WIRE_TAKE_BY_ID ? parks_find_number(c->server->parks, NULL, w->park)
					: parks_find_token(c->server->parks, NULL, w->token);
	if (*ret)
		return 0;
	return link_any_is_returning(c->server) ? -EBUSY : -ENOENT;
}

static void drop(struct request *q, const struct wire_take *w)
{
	struct park *p = NULL;
	int r = find_to_drop(q, w, &p);
	uint64_t number = r == 0 ? p->number : 0;

	if (r == 0)
		r = parks_drop(q->c->server->parks, p);
	parking_step();
	if (r < 0)
		refuse(q, r);
	else
		q->value = number;
}

/* ---- CLAIM, ACKNOWLEDGE, HELD ---- */

static void claim(struct request *q, const struct wire_token *w)
{
	struct connection *c = q->c;
	struct park *p = NULL;
	struct peer *peer;
	int r = peer_of_connection(c, &peer);

	if (r == 0)
		r = parks_claim(c->server->parks, peer->handle, w->token, &p);
	parking_step();
	if (r < 0) {
		refuse(q, r);
		return;
	}
	q->value = p->number;
	p->caller_flags &= ~(uint32_t)(PARKING_TOLD | PARKING_TOLD_TIMEOUT);
	link_hurry(p->owner->caller, p); /* a park that was claimed is answered, whatever dies */
	parking_tell(p);
}

static void state_held(struct request *q, const struct wire_held *w)
{
	struct connection *c = q->c;
	struct parks *ps = c->server->parks;
	struct peer *peer;
	int r = w->held > 1 ? -EINVAL : peer_of_connection(c, &peer);

	if (r == 0 && park_is_zero(w->token)) {
		if (w->held)
			r = -EINVAL;
		else
			parks_state_no_other(ps, peer->handle, c->server->now);
	} else if (r == 0) {
		r = parks_state_held(ps, peer->handle, w->token, w->held, c->server->now);
	}
	parking_step();
	if (r < 0)
		refuse(q, r);
}

static void acknowledge(struct request *q, const struct wire_held *w)
{
	struct peer *peer;
	int r = w->held != 1 ? -EINVAL : peer_of_connection(q->c, &peer);

	if (r == 0)
		r = parks_acknowledge(q->c->server->parks, peer->handle, w->token);
	parking_step();
	if (r < 0)
		refuse(q, r);
}

void park_request_apply(struct request *q, const void *record)
{
	q->c->server->applying = q->c;
	switch (q->view->header.type) {
	case WIRE_PARK:
		park(q, record);
		break;
	case WIRE_TAKE:
		take(q, record);
		break;
	case WIRE_DROP:
		drop(q, record);
		break;
	case WIRE_CLAIM:
		claim(q, record);
		break;
	case WIRE_ACKNOWLEDGE:
		acknowledge(q, record);
		break;
	default:
		state_held(q, record);
		break;
	}
	q->c->parked = true;
	parking_sync(q->c->server);
	q->c->server->applying = NULL;
}
