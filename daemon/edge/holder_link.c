/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"
#include "parking.h"
#include "sending.h"

/*
 * The loop's end of a uid's holder. What a holder is to know is not queued as messages but marked in
 * the parks themselves: those whose record has changed are on `dirty`, each once, and a message is
 * made of as many as fit when it can be sent. So nothing grows, a holder that comes late or anew is
 * told by the same means, and what changed twice meanwhile is told once.
 *
 * States: absent -> up, when the keeper sends the socket of a new one. Returning -> up: it was an
 * earlier loop's, and gives back what it has before anything of its uid is served. When it dies, or
 * does not take anything for a while, it is absent again, all its uid's parks are dirty, and
 * another one is asked for. Meanwhile the uid's connections are held: others notice nothing. Up ->
 * spared: it had nothing to keep for some seconds. Loop and keeper close its socket, and it ends when
 * it has done what it was told. Spared -> absent: something is parked; the keeper, who hears all
 * in order, makes another one.
 *
 * What a holder says is not trusted: its records are checked as a client's requests are.
 */

#define PATIENCE INT64_C(2000000000) /* ns that a holder may take nothing */
/* ns that it may say nothing while it gives back: nobody else has what it has */
#define PATIENCE_TO_RETURN INT64_C(60000000000)
#define PAUSE INT64_C(20000000)     /* ns, when a message cannot be sent for want of something */
#define TROUBLE INT64_C(5000000000) /* ns of that, after which a park is not recorded */
#define IDLE INT64_C(10000000000)   /* ns that it stays with nothing to keep */

enum { MESSAGES_PER_TURN = 16 };

static struct parking *find(const struct server *s, uint32_t uid)
{
	struct park_owner *o = parks_find_owner(s->parks, uid);

	return o ? o->caller : NULL;
}

/* ---- Connections that wait ---- */

void link_hold(struct connection *c)
{
	struct parking *k = c->account->parking;

	assert(!c->held && !c->blocked);
	c->held = true;
	TAILQ_INSERT_TAIL(&k->link.waiting, c, waiting);
	if (c->session)
		session_hold(c->session, true);
	/* a level that nobody looks at would keep the loop awake */
	(void)poller_remove(c->server->poller, c->fd);
	if (k->link.since == 0)
		k->link.since = c->server->now;
}

void link_forget(struct connection *c)
{
	if (!c->held)
		return;
	c->held = false;
	TAILQ_REMOVE(&c->account->parking->link.waiting, c, waiting);
}

static void release(struct connection *c)
{
	link_forget(c);
	c->parked = false;
	if (c->closing)
		return;
	if (c->session)
		session_hold(c->session, c->peer_gone);
	if (poller_add(c->server->poller, c->fd, c->tag, POLLER_READ) < 0)
		connection_close(c);
	else
		sending_queue(c);
}

static void note_idle(struct parking *k)
{
	bool idle = k->link.state == LINK_UP && k->owner->n_parks == 0;

	if (!idle)
		k->link.idle = 0;
	else if (k->link.idle == 0)
		k->link.idle = k->server->now;
}

static void settle(struct parking *k)
{
	struct connection *c;

	note_idle(k);

	if (k->link.state == LINK_RETURNING || !TAILQ_EMPTY(&k->link.dirty))
		return;
	k->link.since = 0;
	while ((c = TAILQ_FIRST(&k->link.waiting)))
		release(c);
}

bool link_is_returning(const struct account *account)
{
	const struct parking *k = account->parking;

	return k && k->link.state == LINK_RETURNING;
}

bool link_is_behind(const struct account *account)
{
	const struct parking *k = account->parking;

	return k && (k->link.state == LINK_RETURNING || !TAILQ_EMPTY(&k->link.dirty));
}

/* ---- Coming and going ---- */

static void want(struct parking *k, bool replace)
{
	k->link.state = LINK_ABSENT;
	k->link.idle = 0;
	k->link.wanted = true;
	k->link.replace = replace;
	k->link.since = k->server->now;
}

static int add_socket(struct parking *k)
{
	return poller_add(k->server->poller, k->link.socket,
			  SERVER_TAG_HOLDER << 32 | k->account->uid, POLLER_READ);
}

/* Its queue is full, or has room again. */
static void set_full(struct parking *k, bool full)
{
	k->link.full = full;
	(void)poller_modify(k->server->poller, k->link.socket,
			    SERVER_TAG_HOLDER << 32 | k->account->uid,
			    full ? POLLER_READ | POLLER_WRITE : POLLER_READ);
}

static void close_socket(struct parking *k)
{
	if (k->link.socket < 0)
		return;
	(void)poller_remove(k->server->poller, k->link.socket);
	(void)close(steal_fd(&k->link.socket));
	k->link.full = false;
}

static void forget(struct parking *k, struct park *p)
{
	if (p->caller_flags & PARKING_DIRTY)
		TAILQ_REMOVE(&k->link.dirty, p, dirty);
	p->caller_flags &= ~(uint32_t)PARKING_DIRTY;
}

static void mark(struct parking *k, struct park *p)
{
	if (!(p->caller_flags & PARKING_DIRTY))
		TAILQ_INSERT_TAIL(&k->link.dirty, p, dirty);
	p->caller_flags |= PARKING_DIRTY;
	k->server->parks_changed = true;
	k->link.idle = 0;
	if (k->link.state == LINK_SPARED)
		want(k, false);
}

/* It has gone, and its copies with it: whatever the next one is to have is told from the start. */
static void lose(struct parking *k, bool stuck)
{
	struct server *s = k->server;
	uint64_t cursor = 0;
	struct park *p;

	close_socket(k);
	want(k, stuck);
	parking_step();
	while ((p = parks_next(s->parks, k->owner, &cursor))) {
		p->caller_flags &= ~(uint32_t)PARKING_HELD;
		p->recorded = 0;
		if (p->state != PARK_GONE) {
			mark(k, p);
			continue;
		}
		forget(k, p);
		parks_end(s->parks, p);
	}
}

static int ask_back(struct parking *k)
{
	struct record_batch *b = k->server->buffers.batch;
	int r;

	record_batch_clear(b);
	(void)record_batch_add(b, RECORD_GIVE_BACK, k->link.epoch, NULL, 0, NULL, 0, NULL, 0);
	parking_step();
	r = record_batch_send(b, k->link.socket);
	parking_step();
	return r;
}

void link_init(struct parking *k)
{
	TAILQ_INIT(&k->link.dirty);
	TAILQ_INIT(&k->link.waiting);
	k->link.socket = -1;
	k->link.state = LINK_NONE;
	if (k->server->has_holders)
		want(k, false);
}

void link_return(struct parking *k, int socket)
{
	struct holder_link *l = &k->link;

	l->socket = socket;
	l->wanted = false;
	l->state = LINK_RETURNING;
	l->epoch = (uint32_t)(k->server->started >> 10) | 1;
	l->asking = true;
	l->since = k->server->now;
	k->server->parks_changed = true;
	if (add_socket(k) < 0)
		lose(k, true);
}

void link_deinit(struct parking *k)
{
	close_socket(k);
}

bool server_wants_holder(struct server *s, uint32_t *ret_uid, bool *ret_replace)
{
	struct parking *k;

	TAILQ_FOREACH(k, &s->parkings, list)
	{
		if (!k->link.wanted)
			continue;
		k->link.wanted = false;
		*ret_uid = k->account->uid;
		*ret_replace = k->link.replace;
		return true;
	}
	return false;
}

bool server_spares_holder(struct server *s, uint32_t *ret_uid)
{
	struct parking *k;

	TAILQ_FOREACH(k, &s->parkings, list)
	{
		if (!k->link.spare)
			continue;
		k->link.spare = false;
		*ret_uid = k->account->uid;
		parking_end_unused(k);
		return true;
	}
	return false;
}

/* They are told nothing of what has not been recorded. They can come back and repeat it. */
static void refuse_waiting(struct parking *k)
{
	struct connection *c;

	while ((c = TAILQ_FIRST(&k->link.waiting))) {
		link_forget(c);
		sending_end(c);
		connection_fail(c, WIRE_E_NO_RESOURCES, 0,
				"no process can be made that keeps this user's parks; try again");
	}
}

void server_take_holder(struct server *s, uint32_t uid, int socket)
{
	struct parking *k = find(s, uid);

	if (socket < 0) {
		log_limited(s->log, &s->sites.holder, s->now, CONFIG_LOG_ERROR,
			    "no holder can be made for uid %u, which cannot park now; trying again",
			    uid);
		if (k)
			refuse_waiting(k);
		return; /* link_expire() asks again */
	}
	if (k && k->link.state == LINK_UP)
		lose(k, false); /* asked for twice: the keeper has given up the one before */
	if (!k || k->link.state != LINK_ABSENT) {
		(void)close(socket);
		return;
	}
	k->link.wanted = false;
	k->link.socket = socket;
	if (add_socket(k) < 0) {
		lose(k, false);
		return;
	}
	k->link.state = LINK_UP;
	k->link.since = 0;
	s->parks_changed = true;
	parking_step();
	s->unfinished = true;
}

void server_note_left(struct server *s, uint64_t n)
{
	s->history.holders_left = n;
}

/* ---- Telling ---- */

void link_add(struct parking *k, struct park *p)
{
	if (p->state == PARK_GONE && !(p->caller_flags & PARKING_HELD)) {
		forget(k, p);
		parks_end(k->server->parks, p);
	} else if (k->link.state == LINK_NONE) {
		p->recorded = p->serial;
	} else {
		mark(k, p);
	}
}

static void fill_record(const struct park *p, struct record *r, int fds[2], unsigned *n_fds)
{
	const struct peer *maker = p->maker ? peer_of_handle(p->maker) : NULL;
	const struct peer *worker = p->worker ? peer_of_handle(p->worker) : NULL;

	*r = (struct record){
		.number = p->number,
		.serial = p->serial,
		.cookie = p->cookie,
		.parked = p->parked,
		.deadline = p->deadline,
		.uid = p->owner->uid,
		.flags = p->flags,
		.told_fd = p->told_fd,
		.note_length = p->text.note_length,
		.name_length = p->text.name_length,
		.group_length = p->text.group_length,
		.local_length = p->text.local_length,
		.peer_length = p->text.peer_length,
		.interest = p->interest,
		.kind = p->kind,
		.state = p->state == PARK_HANDED ? RECORD_HANDED : RECORD_HELD,
		.answered = p->answered,
		.timed_out = p->timed_out,
	};
	memcpy(r->token, p->token, sizeof(r->token));
	if (p->maker)
		memcpy(r->maker, p->maker->id, sizeof(r->maker));
	if (p->worker)
		memcpy(r->worker, p->worker->id, sizeof(r->worker));
	/* whose death is waited for */
	if (maker && !p->answered && maker->pidfd >= 0) {
		r->maker_fd = 1;
		r->maker_pid = maker->pid;
		fds[(*n_fds)++] = maker->pidfd;
	}
	if (worker && worker->pidfd >= 0) {
		r->worker_fd = 1;
		r->worker_pid = worker->pid;
		fds[(*n_fds)++] = worker->pidfd;
	}
}

static int add_operation(struct record_batch *b, const struct park *p)
{
	struct record_drop drop = {
		.serial = p->serial,
		.shut_down = p->end == PARK_END_EXPIRED,
	};
	struct record r;
	unsigned n = 1;
	int fds[3] = {p->fd};

	if (p->state == PARK_GONE) {
		memcpy(drop.token, p->token, sizeof(drop.token));
		return record_batch_add(b, RECORD_DROP, 0, &drop, sizeof(drop), NULL, 0, NULL, 0);
	}
	fill_record(p, &r, fds, &n);
	if (p->caller_flags & PARKING_HELD)
		return record_batch_add(b, RECORD_CHANGE, 0, &r, sizeof(r), NULL, 0, fds + 1,
					n - 1);
	return record_batch_add(b, RECORD_HOLD, 0, &r, sizeof(r), p->text.bytes,
				record_text_size(&r), fds, n);
}

/* The first n dirty parks are as their holder has them. */
static void told(struct parking *k, unsigned n)
{
	while (n-- > 0) {
		struct park *p = TAILQ_FIRST(&k->link.dirty);

		forget(k, p);
		p->recorded = p->serial;
		p->caller_flags |= PARKING_HELD;
		if (p->state == PARK_GONE)
			parks_end(k->server->parks, p);
		else if (p->caller_flags & PARKING_SENDING)
			handing_recorded(p);
		else
			parking_tell(p);
	}
}

/* One message. 0, or what sending said. */
static int tell_some(struct parking *k)
{
	struct record_batch *b = k->server->buffers.batch;
	struct park *p;
	unsigned n = 0;
	int r;

	record_batch_clear(b);
	TAILQ_FOREACH(p, &k->link.dirty, dirty)
	{
		/* one by one, where it may be one of them that cannot be sent */
		if ((k->link.trouble != 0 && n == 1) || add_operation(b, p) < 0)
			break;
		n++;
	}
	if (n == 0)
		return -EINVAL;
	parking_step();
	r = record_batch_send(b, k->link.socket);
	parking_step();
	if (r == 0) {
		told(k, n);
		k->link.trouble = 0;
	}
	return r;
}

/* What is to be said cannot be said at the moment, or never: then it is about the first park. */
static void note_trouble(struct parking *k, int r)
{
	struct server *s = k->server;
	struct park *p = TAILQ_FIRST(&k->link.dirty);

	if (k->link.trouble == 0)
		k->link.trouble = s->now;
	k->link.again = s->now + PAUSE;
	if (!p || s->now - k->link.trouble < TROUBLE)
		return;
	log_limited(s->log, &s->sites.holder, s->now, CONFIG_LOG_ERROR,
		    "park %llu of uid %u cannot be given to its holder (%s): it ends with this "
		    "process",
		    (unsigned long long)p->number, k->account->uid, strerror(-r));
	forget(k, p);
	p->recorded = p->serial;
	k->link.trouble = s->now;
	if (p->state == PARK_GONE)
		parks_end(s->parks, p);
}

static void flush(struct parking *k)
{
	int r = 0;

	if (k->link.state == LINK_ABSENT || k->link.state == LINK_SPARED || k->link.full ||
	    k->link.again > k->server->now)
		return;
	k->link.again = 0;
	if (k->link.asking) {
		r = ask_back(k);
		k->link.asking = r < 0;
	}
	while (r == 0 && !TAILQ_EMPTY(&k->link.dirty))
		r = tell_some(k);
	if (r == -EAGAIN) {
		set_full(k, true);
		k->link.since = k->server->now;
	} else if (r == -EPIPE || r == -ECONNRESET || r == -ENOTCONN) {
		lose(k, false);
	} else if (r < 0) {
		note_trouble(k, r);
	}
	settle(k);
}

void link_flush_all(struct server *s)
{
	struct parking *k;

	if (!s->parks_changed)
		return;
	s->parks_changed = false;
	TAILQ_FOREACH(k, &s->parkings, list)
	flush(k);
}

/* ---- Hearing ---- */

static void complain(struct parking *k, const char *reason)
{
	log_limited(k->server->log, &k->server->sites.holder, k->server->now, CONFIG_LOG_ERROR,
		    "the holder of uid %u gave back what cannot be used: %s; its fd is closed",
		    k->account->uid, reason);
}

static const char *check_fd(struct parking *k, const struct record *r, int fd)
{
	struct admission_rights all = {.ttys = true};
	enum wire_kind kind;
	enum wire_error error;

	if (r->uid != k->account->uid)
		return "a record of another uid";
	admission_begin(&k->server->admission);
	error = admission_check(&k->server->admission, &all, fd, &kind);
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
static void restore_peers(struct parking *k, const struct record *r, struct record_message *m,
			  unsigned index)
{
	struct peer *peer;

	if (r->maker_fd && peer_of_record(k, r->maker, r->maker_pid, take_fd(m, &index), &peer) < 0)
		complain(k, "who parked it is unknown");
	if (r->worker_fd &&
	    peer_of_record(k, r->worker, r->worker_pid, take_fd(m, &index), &peer) < 0)
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
				.kind = r->kind,
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
	};
	unsigned index = op->first_fd;
	CLEANUP_FD int fd = take_fd(m, &index);
	const char *reason = check_fd(k, r, fd);
	struct park *p;
	int result;

	memcpy(restore.new.token, r->token, sizeof(r->token));
	memcpy(restore.maker, r->maker, sizeof(r->maker));
	memcpy(restore.worker, r->worker, sizeof(r->worker));
	if (!reason && parking_reserve_fd(s, fd) < 0)
		reason = "no memory";
	if (reason) {
		complain(k, reason);
		refuse_returned(k, r);
		return;
	}
	result = parks_restore(s->parks, k->owner, &restore, &p);
	if (result < 0) {
		complain(k, strerror(-result));
		if (result != -ENOMEM)
			refuse_returned(k, r);
		return;
	}
	p->fd = steal_fd(&fd);
	p->recorded = p->serial;
	p->caller_flags = PARKING_HELD;
	s->park_by_fd[p->fd] = p;
	parking_note_age(s, p);
	k->link.returned++;
	restore_peers(k, r, m, index);
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
	while ((c = server_next_connection(s, &index)))
		if (c->account == k->account && !c->closing)
			peer_greet(c);
	for (uint32_t i = 0; i < s->peers.n; i++) {
		struct peer *peer = s->peers.peers[i];

		if (peer && peer->parking == k && peer->pidfd < 0 && !peer->c)
			parks_died(s->parks, peer->handle, s->now);
	}
	log_info(k->server->log, "the holder of uid %u gave back %llu parks", k->account->uid,
		 (unsigned long long)k->link.returned);
	parking_step();
	settle(k);
}

static void hear_operation(struct parking *k, const struct record_op *op, struct record_message *m)
{
	bool current = k->link.state == LINK_RETURNING && op->value == k->link.epoch;

	if (op->type == RECORD_HOLD && current)
		restore(k, op, m);
	else if (op->type == RECORD_END && current)
		returned(k);
	/* all else was meant for an earlier loop */
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
}

static void hear(struct parking *k)
{
	struct record_message *m = k->server->buffers.from_holder;

	for (int i = 0; i < MESSAGES_PER_TURN && k->link.socket >= 0; i++) {
		int r = record_message_receive(m, k->link.socket, MSG_DONTWAIT);

		if (r == -EAGAIN || r == -ENOMEM || r == -ENOBUFS)
			return;
		if (r <= 0) {
			log_limited(k->server->log, &k->server->sites.holder, k->server->now,
				    CONFIG_LOG_WARNING,
				    "the holder of uid %u has gone: another one gets its %llu "
				    "parks",
				    k->account->uid, (unsigned long long)k->owner->n_parks);
			lose(k, false);
			return;
		}
		hear_message(k, m);
		record_message_clear(m);
		if (k->link.state == LINK_RETURNING)
			k->link.since = k->server->now;
	}
}

void link_event(struct server *s, uint32_t uid, unsigned mask)
{
	struct parking *k = find(s, uid);

	if (!k || k->link.socket < 0)
		return;
	progress_enter(&s->progress, PROGRESS_HOLDER, uid, 0, 0);
	if (mask & POLLER_WRITE) {
		set_full(k, false);
		k->link.since = s->now; /* it takes again */
		s->parks_changed = true;
	}
	if (mask & (POLLER_READ | POLLER_HANGUP))
		hear(k);
}

/* ---- Time ---- */

static int64_t patience(const struct parking *k)
{
	return k->link.state == LINK_RETURNING ? PATIENCE_TO_RETURN : PATIENCE;
}

int64_t link_next_time(const struct server *s)
{
	const struct parking *k;
	int64_t next = INT64_MAX;

	TAILQ_FOREACH(k, &s->parkings, list)
	{
		if (k->link.since != 0 && k->link.since + patience(k) < next)
			next = k->link.since + patience(k);
		if (k->link.again != 0 && k->link.again < next)
			next = k->link.again;
		if (k->link.idle != 0 && k->link.idle + IDLE < next)
			next = k->link.idle + IDLE;
	}
	return next;
}

static void spare(struct parking *k)
{
	assert(k->link.state == LINK_UP && TAILQ_EMPTY(&k->link.dirty));
	close_socket(k);
	k->link.state = LINK_SPARED;
	k->link.idle = 0;
	k->link.spare = true;
}

void link_expire(struct server *s)
{
	struct parking *k;

	TAILQ_FOREACH(k, &s->parkings, list)
	{
		if (k->link.idle != 0 && k->link.idle + IDLE <= s->now)
			spare(k);
		if (k->link.again != 0 && k->link.again <= s->now)
			s->parks_changed = true;
		if (k->link.since == 0 || k->link.since + patience(k) > s->now)
			continue;
		if (k->link.state == LINK_ABSENT) {
			want(k, false);
			continue;
		}
		log_error(s->log,
			  "the holder of uid %u is stuck, maybe in closing an fd of this user: it "
			  "is left alone, and another one made%s",
			  k->account->uid,
			  k->link.state == LINK_RETURNING
				  ? "; the parks that it had not given back yet are lost with it"
				  : "");
		lose(k, true);
	}
}
