/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"
#include "daemon/util/plural.h"
#include "holder_link.h"
#include "sending.h"
#include "sharing.h"

/*
 * What a holder says: the parks that it had from an earlier loop. Nothing of it is trusted: a record
 * is checked as a client's request is, its fd is admitted like one that has just come, and what is
 * refused the holder is told to drop, so that nobody's connection stays open where nobody can take
 * it.
 *
 * One thing is believed, since asking again for 10,000 fds is a fifth of the time in which nobody is
 * served: that what it calls a plain socket is one. It asks the kernel that of every fd that it gets,
 * from a loop or from a depot, and so a record that has got another fd than its own does not pass.
 * Left is a holder that lies. No client can make one do that: all that a holder is told comes from
 * loops, which admitted each fd; and a process of the daemon that has gone over to somebody can
 * kill the loop without such a trick. All else it calls unknown, and that is looked at here.
 */

enum { MESSAGES_PER_TURN = 16 };

static void complain(struct parking *k, const char *reason)
{
	log_limited_about(
		k->server->log, &k->server->sites.holder, k->server->now, CONFIG_LOG_ERROR,
		LOG_UID(k->account->uid),
		"the holder of uid %u gave back what cannot be used: %s; its fd is closed",
		k->account->uid, reason);
}

static bool is_vouched_for(enum wire_kind kind)
{
	return kind == WIRE_KIND_UNIX || kind == WIRE_KIND_INET || kind == WIRE_KIND_INET6 ||
	       kind == WIRE_KIND_NETLINK;
}

static const char *check_fd(struct parking *k, const struct record *r, int fd,
			    enum wire_kind *ret_kind)
{
	struct admission_rights all = {.ttys = true};
	enum wire_error error;

	*ret_kind = r->kind;
	if (r->uid != k->account->uid)
		return "a record of another uid";
	if (is_vouched_for(r->kind))
		return NULL;
	admission_begin(&k->server->admission);
	error = admission_check(&k->server->admission, &all, fd, ret_kind);
	if (error == WIRE_E_NOT_POLLABLE && (r->flags & WIRE_PARK_HOLD_ONLY))
		error = WIRE_OK;
	return error == WIRE_OK ? NULL : wire_error_text(error);
}

/* Its holder is not to keep what nobody can have. */
static void refuse_returned(struct parking *k, const struct record *r)
{
	struct record_batch *b = k->server->buffers.batch;
	struct record_drop drop = {.serial = r->serial};

	memcpy(drop.token, r->token, sizeof(drop.token));
	record_batch_clear(b);
	if (record_batch_add(b, RECORD_DROP, 0, &drop, sizeof(drop), NULL, 0, NULL, 0) == 0)
		(void)record_batch_send(b, k->link.socket);
}

static int take_fd(struct record_message *m, unsigned *index)
{
	return steal_fd(&m->fds[(*index)++]);
}

/* The processes whose deaths matter. */
static void restore_peers(struct parking *k, struct parking *of_worker, const struct record *r,
			  struct record_message *m, unsigned index)
{
	struct peer *peer;

	if (r->maker_fd && peer_of_record(k, r->maker, r->maker_pid, take_fd(m, &index), &peer) < 0)
		complain(k, "who parked it is unknown");
	if (r->worker_fd &&
	    peer_of_record(of_worker, r->worker, r->worker_pid, take_fd(m, &index), &peer) < 0)
		complain(k, "whom it was handed to is unknown");
}

static void restore(struct parking *k, const struct record_op *op, struct record_message *m)
{
	const struct record *r = op->record;
	struct server *s = k->server;
	struct park_restore restore = {
		.new =
			{
				.cookie = r->cookie,
				.deadline = r->deadline,
				.flags = r->flags,
				.told_fd = r->told_fd,
				.interest = r->interest,
				.shared =
					r->shared && sharing_is_still(s, op->text + r->name_length,
								      r->group_length),
				.text =
					{
						.note_length = r->note_length,
						.name_length = r->name_length,
						.group_length = r->group_length,
						.local_length = r->local_length,
						.peer_length = r->peer_length,
						.bytes = op->text,
					},
			},
		.number = r->number,
		.serial = r->serial,
		.parked = r->parked,
		.handed = r->state == RECORD_HANDED,
		.answered = r->answered,
		.timed_out = r->timed_out,
		.now = s->now,
	};
	struct parking *of_worker = k; /* of another user, where groups are shared */
	unsigned index = op->first_fd;
	CLEANUP_FD int fd = take_fd(m, &index);
	enum wire_kind kind;
	const char *reason = check_fd(k, r, fd, &kind);
	struct park *p;
	int result;

	restore.new.kind = (uint8_t)kind;
	memcpy(restore.new.token, r->token, sizeof(r->token));
	memcpy(restore.maker, r->maker, sizeof(r->maker));
	memcpy(restore.worker, r->worker, sizeof(r->worker));
	if (!reason && (parking_reserve_fd(s, fd) < 0 ||
			(restore.handed && parking_get_uid(s, r->worker_uid, &of_worker) < 0)))
		reason = "no memory";
	if (reason) {
		complain(k, reason);
		refuse_returned(k, r);
		return;
	}
	restore.worker_owner = of_worker->owner;
	result = parks_restore(s->parks, k->owner, &restore, &p);
	if (result < 0) {
		complain(k, strerror(-result));
		if (result != -ENOMEM)
			refuse_returned(k, r);
		return;
	}
	p->fd = steal_fd(&fd);
	p->recorded = p->stored = p->serial; /* it was to be stored before it was given back */
	p->caller_flags = PARKING_HELD;
	s->park_by_fd[p->fd] = p;
	parking_note_age(s, p);
	k->link.returned++;
	restore_peers(k, of_worker, r, m, index);
	parking_step();
}

/*
 * Its holder has given back all. A peer whose death nobody can tell of counts as dead unless it has
 * come back itself: it has used nothing before its word is answered, so that nothing is doubled.
 * Connections that said their handle meanwhile are its from now on.
 */
static void returned(struct parking *k)
{
	struct server *s = k->server;
	struct connection *c;
	uint32_t index = 0;

	k->link.state = LINK_UP;
	k->link.unsettled = s->durable;
	s->parks_changed |= s->durable;
	while ((c = server_next_connection(s, &index)))
		if ((c->account == k->account || peer_is_missed(c)) && !c->closing)
			peer_greet(c);
	for (uint32_t i = 0; i < s->peers.n; i++) {
		struct peer *peer = s->peers.peers[i];

		if (peer && peer->parking->link.state != LINK_RETURNING && peer->pidfd < 0 &&
		    !peer->c)
			parks_died(s->parks, peer->handle, s->now);
	}
	log_about(k->server->log, CONFIG_LOG_INFO, LOG_UID(k->account->uid),
		  "the holder of uid %u gave back %llu %s", k->account->uid,
		  (unsigned long long)k->link.returned, plural(k->link.returned, "park", "parks"));
	parking_step();
	link_settle(k);
}

static void hear_operation(struct parking *k, const struct record_op *op, struct record_message *m)
{
	bool current = k->link.state == LINK_RETURNING && op->value == k->link.epoch;

	if (op->type == RECORD_HOLD && current)
		restore(k, op, m);
	else if (op->type == RECORD_END && current)
		returned(k);
	else if (k->link.state != LINK_UP)
		return; /* it was meant for an earlier loop */
	else if (op->type == RECORD_STORED)
		link_note_stored(k, op);
	else if (op->type == RECORD_LOST)
		link_note_lost(k, op);
	else if (op->type == RECORD_SETTLED && op->value == k->link.settlings)
		link_note_settled(k);
}

static void hear_message(struct parking *k, struct record_message *m)
{
	const char *reason = NULL;
	struct record_op op;
	int r;

	while ((r = record_message_next(m, &op, &reason)) != 0) {
		if (r == 1)
			hear_operation(k, &op, m);
		else
			complain(k, reason);
		if (r == -EBADMSG)
			break;
	}
	parking_sync(k->server);
	link_settle(k);
}

/* If it had nothing, nobody is hurt: at the end of the service all end, in any order. */
static void tell_gone(struct parking *k)
{
	struct server *s = k->server;

	if (k->owner->n_parks == 0)
		log_limited_about(
			s->log, &s->sites.holder, s->now, CONFIG_LOG_INFO, LOG_UID(k->account->uid),
			"the holder of uid %u has gone: it had no parks", k->account->uid);
	else
		log_limited_about(s->log, &s->sites.holder, s->now, CONFIG_LOG_WARNING,
				  LOG_UID(k->account->uid),
				  "the holder of uid %u has gone: another one gets its %llu %s",
				  k->account->uid, (unsigned long long)k->owner->n_parks,
				  plural(k->owner->n_parks, "park", "parks"));
}

static void hear_messages(struct parking *k)
{
	struct record_message *m = k->server->buffers.from_holder;

	for (int i = 0; i < MESSAGES_PER_TURN && k->link.socket >= 0; i++) {
		int r = record_message_receive(m, k->link.socket, MSG_DONTWAIT);

		if (r == -EAGAIN || r == -ENOMEM || r == -ENOBUFS)
			return;
		if (r <= 0) {
			tell_gone(k);
			link_lose(k, false);
			return;
		}
		hear_message(k, m);
		record_message_clear(m);
		if (k->link.since != 0)
			k->link.since = k->server->now;
	}
}

/* What comes back is to stay, so it need not land in the zone, from which each would have to be
 * moved. Without fds for that, each is. */
static void hear(struct parking *k)
{
	bool plugged = k->link.state == LINK_RETURNING && fd_zone_plug() == 0;

	hear_messages(k);
	if (plugged)
		fd_zone_unplug();
}

void link_event(struct server *s, uint32_t uid, unsigned mask)
{
	struct parking *k = link_find(s, uid);

	if (!k || k->link.socket < 0)
		return;
	progress_enter(&s->progress, PROGRESS_HOLDER, uid, 0, 0);
	if (mask & POLLER_WRITE) {
		link_set_full(k, false);
		k->link.since = s->now; /* it takes again */
		s->parks_changed = true;
	}
	if (mask & (POLLER_READ | POLLER_HANGUP))
		hear(k);
}
