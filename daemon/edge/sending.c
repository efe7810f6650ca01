/* SPDX-License-Identifier: MIT */
#include "sending.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/util/cleanup.h"
#include "parking.h"

/*
 * What a connection is told leaves in this order: the backlog of a socket that was full, the
 * turn's messages, and what is on the ready-list. The last message of answers takes entries along.
 * An ERROR is the last message of all.
 */

enum {
	SENDS_PER_TURN = 4,     /* of full ready-lists, so that one session cannot keep a turn */
	BACKLOG_MAX = 16 << 20, /* bytes of unread answers, a user */
};

void sending_end(struct connection *c)
{
	if (!c->backlog)
		return;
	c->account->backlog -= c->backlog->size;
	free(STEAL(c->backlog));
}

void sending_lose_peer(struct connection *c)
{
	if (c->peer_gone)
		return;
	c->peer_gone = true;
	sending_end(c);
	if (c->session)
		session_hold(c->session, true); /* for good */
	if (c->blocked) {
		c->blocked = false;
		(void)poller_modify(c->server->poller, c->fd, c->tag, POLLER_READ);
	}
}

void sending_queue(struct connection *c)
{
	if (c->in_answered)
		return;
	c->in_answered = true;
	TAILQ_INSERT_TAIL(&c->server->answered, c, answered);
}

void sending_add_record(struct connection *c, const void *record)
{
	if (c->closing)
		return;
	if (outbox_add_record(&c->server->outbox, &c->chain, record) < 0)
		connection_close(c);
	else
		sending_queue(c);
}

void sending_add_message(struct connection *c, unsigned type, unsigned flags, uint32_t serial,
			 const void *records, size_t count, const void *tail, size_t tail_size)
{
	if (c->closing)
		return;
	if (outbox_add_message(&c->server->outbox, &c->chain, type, flags, serial, records, count,
			       tail, tail_size) < 0)
		connection_close(c);
	else
		sending_queue(c);
}

/* 0, -EAGAIN, or -EPIPE: the peer is gone and nothing will be sent any more. */
static int send_vector(struct connection *c, struct iovec *iov, size_t n)
{
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = n};

	if (c->peer_gone)
		return -EPIPE;
	while (sendmsg(c->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN)
			return -EAGAIN;
		if (errno == EPIPE || errno == ECONNRESET)
			sending_lose_peer(c);
		else
			connection_close(c); /* for want of memory: it can come back later */
		return -EPIPE;
	}
	return 0;
}

static int send_bytes(struct connection *c, const void *bytes, size_t size)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};

	return send_vector(c, &iov, 1);
}

static int send_backlog(struct connection *c)
{
	const void *bytes;
	size_t size;
	int r;

	while (c->backlog && (bytes = backlog_next(c->backlog, &size))) {
		r = send_bytes(c, bytes, size);
		if (r < 0)
			return r;
		backlog_drop_next(c->backlog);
	}
	sending_end(c);
	return 0;
}

/* Writes up to `max` unsent entries as wire records; returns how many. */
static unsigned encode_entries(struct connection *c, struct wire_entry *records, unsigned max)
{
	struct core_entry *entries = c->server->buffers.entries;
	unsigned n = session_peek(c->session, entries, max);

	for (unsigned i = 0; i < n; i++)
		result_encode_entry(&entries[i], &records[i]);
	return n;
}

static void committed(struct connection *c, unsigned n)
{
	c->server->stats.messages++;
	session_commit(c->session, n);
}

/* Sends a READY message of the outbox with as many entries behind its records as fit. */
static int send_with_entries(struct connection *c, struct outbox_message *m)
{
	struct wire_header *header = (struct wire_header *)(void *)m->bytes;
	struct wire_entry *records = (void *)c->server->buffers.ready;
	struct iovec iov[2] = {{.iov_base = m->bytes, .iov_len = m->size}, {.iov_base = records}};
	unsigned n;
	int r;

	n = encode_entries(c, records, WIRE_RECORDS_MAX - header->count);
	iov[1].iov_len = n * sizeof(*records);
	header->count += n;
	r = send_vector(c, iov, n > 0 ? 2 : 1);
	if (r == 0 && n > 0)
		committed(c, n);
	if (r < 0)
		header->count -= n;
	return r;
}

static int send_chain(struct connection *c)
{
	struct outbox *o = &c->server->outbox;
	struct outbox_message *m;
	int r;

	while ((m = outbox_first(o, &c->chain))) {
		const struct wire_header *header = (const void *)m->bytes;
		bool last = m->next == 0;

		if (last && header->type == WIRE_READY && c->session && !c->closing)
			r = send_with_entries(c, m);
		else
			r = send_bytes(c, m->bytes, m->size);
		if (r < 0)
			return r;
		outbox_drop_first(o, &c->chain);
	}
	return 0;
}

/* Messages of entries only. */
static int send_entries(struct connection *c)
{
	struct wire_header *header = (void *)c->server->buffers.ready;
	struct wire_entry *records = (void *)(header + 1);
	unsigned n;
	int r;

	for (int i = 0; c->session && i < SENDS_PER_TURN; i++) {
		n = encode_entries(c, records, WIRE_RECORDS_MAX);
		if (n == 0)
			return 0;
		*header = (struct wire_header){.type = WIRE_READY, .count = n};
#ifdef READYD_MUTANT_CLEAR_BEFORE_SEND
		committed(c, n);
#endif
		r = send_bytes(c, header, sizeof(*header) + n * sizeof(*records));
		if (r < 0)
			return r;
#ifndef READYD_MUTANT_CLEAR_BEFORE_SEND
		committed(c, n);
#endif
		if (n < WIRE_RECORDS_MAX)
			return 0;
	}
	if (c->session && session_stats(c->session)->ready > 0)
		c->server->unfinished = true;
	return 0;
}

/* Answers that a client asked for and does not read are its own memory: bounded for its user. */
static bool save(struct connection *c)
{
	struct log_about about = connection_about(c, LOG_EVENT_CLOSED);

	assert(!c->backlog);
	if (outbox_save(&c->server->outbox, &c->chain, &c->backlog) < 0)
		return false;
	c->account->backlog += c->backlog->size;
	if (c->account->backlog <= BACKLOG_MAX)
		return true;
	log_limited_about(
		c->server->log, &c->server->sites.protocol, c->server->now, CONFIG_LOG_WARNING,
		&about,
		"uid %u pid %d session %llu asks and does not read the answers: more than %d MiB "
		"are kept for this user; the connection is closed",
		c->who.uid, (int)c->who.pid, (unsigned long long)c->number, BACKLOG_MAX >> 20);
	return false;
}

/* What cannot be sent now is said later. What comes on top of that only ends the connection. */
static void keep_chain(struct connection *c)
{
	if (c->peer_gone)
		return; /* nobody reads it, and what is kept has to be sent before the end is read */
	if (c->chain.first && (c->backlog || !save(c)))
		connection_close(c);
}

/* The socket is full: keep what was to be said, and stop reading requests until it is gone. */
static void block(struct connection *c)
{
	struct server *s = c->server;

	keep_chain(c);
	if (c->blocked)
		return;
	c->blocked = true;
	if (c->session)
		session_hold(c->session, true);
	if (poller_modify(s->poller, c->fd, c->tag, POLLER_WRITE) < 0)
		connection_close(c);
}

static void unblock(struct connection *c)
{
	c->blocked = false;
	if (c->session)
		session_hold(c->session, false);
	if (poller_modify(c->server->poller, c->fd, c->tag, POLLER_READ) < 0)
		connection_close(c);
}

/* Whether a holder has not been told what it said; from then on it waits. */
static bool must_wait(struct connection *c)
{
	struct parking *k;

	if (c->held)
		return true;
	if (c->closing || c->blocked)
		return false;
	k = concern_next(c);
	if (k)
		link_hold(c, k);
	return k;
}

void sending_flush(struct connection *c)
{
	int r;

#ifdef READYD_MUTANT_ENTRY_BEFORE_ANSWER
	if (!c->backlog)
		(void)send_entries(c);
#endif
	if (must_wait(c)) {
		keep_chain(c);
		c->chain = (struct outbox_chain){0};
		return;
	}
	r = send_backlog(c);
	if (r == 0)
		handing_add_entries(c);
	if (r == 0)
		r = send_chain(c);
	if (r == 0 && !c->closing)
		handing_sent(c);
	if (r == 0 && !c->closing)
		r = handing_send(c);
	if (r == 0 && !c->closing)
		r = send_entries(c); /* an ERROR is the last message */
	if (r == -EAGAIN)
		block(c);
	else if (r == 0 && c->blocked)
		unblock(c);
	c->chain = (struct outbox_chain){0};
}

void sending_say_goodbye(struct connection *c)
{
	static const char text[] = "the daemon is ending";
	struct wire_error_record record = {.error = WIRE_E_SHUTDOWN};
	uint64_t buffer[16];
	size_t size = wire_encode(buffer, sizeof(buffer), WIRE_ERROR, 0, 0, &record, 1, text,
				  strlen(text));

	/* not into the middle of what a full socket still owes */
	if (!c->backlog)
		(void)send_bytes(c, buffer, size);
}
