/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "holder_link.h"
#include "sending.h"

/*
 * What a holder is told: messages made of the parks whose records have changed, as many as fit, when
 * its socket takes them. What cannot be sent for want of memory, or of room for fds under way, is
 * tried again, in the end park by park; what can never be sent is left to this process alone.
 *
 * It has a copy of the parks' epoll set, too. The last close of one ends its registrations, 0.5 us
 * each, and a loop that is killed would do that before its keeper can see that it is dead. So the
 * holder has the last copy: CLOSE, and no GO. The next loop's GIVE_BACK has it closed, when all is
 * given back; and nobody looks at it any more.
 */

#define PAUSE INT64_C(20000000)     /* ns, when a message cannot be sent for want of something */
#define TROUBLE INT64_C(5000000000) /* ns of that, after which a park is not recorded */

enum { SET = 0 }; /* the number of a CLOSE without GO */

/* What it is told before all else. */
static int begin(struct parking *k)
{
	struct record_batch *b = k->server->buffers.batch;
	int set = poller_set_fd(k->server->poller, k->set), r;

	record_batch_clear(b);
	if (k->link.asking)
		(void)record_batch_add(b, RECORD_GIVE_BACK, k->link.epoch, NULL, 0, NULL, 0, NULL,
				       0);
	if (set >= 0)
		(void)record_batch_add(b, RECORD_CLOSE, SET, NULL, 0, NULL, 0, &set, 1);
	if (b->size == 0)
		return 0;
	parking_step();
	r = record_batch_send(b, k->link.socket);
	parking_step();
	return r;
}

/* All parks have been told. */
static int ask_to_settle(struct parking *k)
{
	struct record_batch *b = k->server->buffers.batch;
	int r;

	record_batch_clear(b);
	(void)record_batch_add(b, RECORD_SETTLE, ++k->link.settlings, NULL, 0, NULL, 0, NULL, 0);
	parking_step();
	r = record_batch_send(b, k->link.socket);
	parking_step();
	k->link.settling = r == 0;
	if (r == 0)
		k->link.since = k->server->now;
	return r;
}

void link_add(struct parking *k, struct park *p)
{
	if (p->state == PARK_GONE && !(p->caller_flags & PARKING_HELD)) {
		link_clear(k, p);
		link_clear_store(k, p);
		parks_end(k->server->parks, p);
	} else if (k->link.state == LINK_NONE) {
		p->recorded = p->serial;
	} else {
		link_store(k, p);
		link_mark(k, p);
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
		.worker_uid = p->worker ? p->worker->owner->uid : 0,
		.shared = p->shared,
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
	const uint32_t place = p->caller_flags & PARKING_STORING ? p->index : 0;
	struct record r;
	unsigned n = 1;
	int fds[3] = {p->fd};

	if (p->state == PARK_GONE) {
		memcpy(drop.token, p->token, sizeof(drop.token));
		return record_batch_add(b, RECORD_DROP, place, &drop, sizeof(drop), NULL, 0, NULL,
					0);
	}
	fill_record(p, &r, fds, &n);
	if (p->caller_flags & PARKING_HELD)
		return record_batch_add(b, RECORD_CHANGE, place, &r, sizeof(r), NULL, 0, fds + 1,
					n - 1);
	return record_batch_add(b, RECORD_HOLD, place, &r, sizeof(r), p->text.bytes,
				record_text_size(&r), fds, n);
}

/* The first n dirty parks are as their holder has them. */
static void told(struct parking *k, unsigned n)
{
	while (n-- > 0) {
		struct park *p = TAILQ_FIRST(&k->link.dirty);

		link_clear(k, p);
		p->recorded = p->serial;
		p->caller_flags |= PARKING_HELD;
		if (p->state == PARK_GONE && !(p->caller_flags & PARKING_STORING))
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
	log_limited_about(
		s->log, &s->sites.holder, s->now, CONFIG_LOG_ERROR, LOG_UID(k->account->uid),
		"park %llu of uid %u cannot be given to its holder (%s): it ends with this "
		"process",
		(unsigned long long)p->number, k->account->uid, strerror(-r));
	link_clear(k, p);
	link_clear_store(k, p);
	p->recorded = p->serial;
	k->link.trouble = s->now;
	if (p->state == PARK_GONE)
		parks_end(s->parks, p);
}

static void flush(struct parking *k)
{
	int r = 0;

	if (k->link.socket < 0 || k->link.full || k->link.again > k->server->now)
		return;
	k->link.again = 0;
	if (!k->link.begun) {
		r = begin(k);
		k->link.begun = r == 0;
		k->link.asking &= r < 0;
	}
	if (!TAILQ_EMPTY(&k->link.dirty))
		link_hurry_all(k);
	while (r == 0 && !TAILQ_EMPTY(&k->link.dirty))
		r = tell_some(k);
	if (r == 0 && k->link.state == LINK_UP && k->link.unsettled && !k->link.settling)
		r = ask_to_settle(k);
	if (r == -EAGAIN) {
		link_set_full(k, true);
		k->link.since = k->server->now;
	} else if (r == -EPIPE || r == -ECONNRESET || r == -ENOTCONN) {
		link_lose(k, false);
	} else if (r < 0) {
		note_trouble(k, r);
	}
	link_settle(k);
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
