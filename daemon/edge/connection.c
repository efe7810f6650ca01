/* SPDX-License-Identifier: MIT */
#include "connection.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"
#include "parking.h"
#include "reading.h"
#include "request.h"
#include "sending.h"
#include "watching.h"

/*
 * The order of things on one connection. A datagram is received, checked as a whole and applied;
 * its fds are closed; its answers lie in the outbox. In the turn's last step they are sent, and
 * with the last of them, in one message, what is on the session's ready-list: answers come before
 * the entries that their requests caused. Bits of the ready-list are cleared only when the socket
 * has taken the message.
 *
 * A connection never ends in the middle of a turn: events and lists of that turn may still name
 * it. It is put on `ending` and freed when the turn is over.
 */

/* ---- Coming and going ---- */

static void queue_ending(struct connection *c)
{
	c->closing = true;
	TAILQ_INSERT_TAIL(&c->server->ending, c, ending);
}

void connection_close(struct connection *c)
{
	if (!c->closing)
		queue_ending(c);
}

void connection_fail(struct connection *c, enum wire_error error, uint32_t serial, const char *text)
{
	struct wire_error_record record = {.error = error, .serial = serial};
	struct log_about about = connection_about(c, LOG_EVENT_CLOSED);

	if (c->closing)
		return;
	log_limited_about(
		c->server->log, &c->server->sites.protocol, c->server->now, CONFIG_LOG_WARNING,
		&about, "uid %u pid %d session %llu: %s: %s; the connection is closed", c->who.uid,
		(int)c->who.pid, (unsigned long long)c->number, wire_error_text(error), text);
	sending_add_message(c, WIRE_ERROR, 0, serial, &record, 1, text, strlen(text));
	connection_close(c);
}

/* A refusal before there is a connection: one attempt to say why. */
static void refuse(struct server *s, int fd, const struct credentials *who, enum wire_error error,
		   uint64_t limit, const char *text)
{
	struct wire_error_record record = {.error = error};
	struct log_about about = {
		.event = LOG_EVENT_REFUSED,
		.client = true,
		.uid = who->uid,
		.pid = who->pid,
	};
	uint64_t buffer[64];
	size_t size;

	if (error == WIRE_E_QUOTA) {
		record.detail = WIRE_QUOTA_CONNECTIONS;
		record.value = limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit;
	}
	s->stats.refused++;
	log_limited_about(s->log, &s->sites.refused, s->now, CONFIG_LOG_WARNING, &about,
			  "uid %u pid %d is refused: %s", who->uid, (int)who->pid, text);
	size = wire_encode(buffer, sizeof(buffer), WIRE_ERROR, 0, 0, &record, 1, text,
			   strlen(text));
	(void)send(fd, buffer, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static enum wire_error admit(struct server *s, const struct credentials *who,
			     const struct rights *rights, const char **ret_text)
{
	const struct kept_out *kept = kept_out_find(&s->kept_out, who->uid, who->pid, s->now);

	if (kept) {
		*ret_text = "serving this process has ended the daemon twice; it is kept out for a "
			    "minute";
		return WIRE_E_ACCESS;
	}
	if (who->uid == s->overflow_uid) {
		*ret_text = "this uid is not mapped here (a user namespace?)";
		return WIRE_E_ACCESS;
	}
	if (!rights->connect) {
		*ret_text = s->private_ ? "this is another user's private daemon"
					: "the configuration's `connect` does not name this user";
		return WIRE_E_ACCESS;
	}
	if (!rights->trusted) {
		*ret_text = "this version serves only root, the daemon's own user and those that "
			    "the configuration names under `trusted`";
		return WIRE_E_ACCESS;
	}
	return WIRE_OK;
}

static enum wire_error charge(struct server *s, struct connection *c, uint64_t *ret_limit,
			      const char **ret_text)
{
	int r = accounts_get(&s->accounts, &s->config, &c->who, &c->account);

	if (r < 0) {
		*ret_text = "the daemon is out of memory; try again";
		return WIRE_E_NO_RESOURCES;
	}
	*ret_limit = c->account->quota.limit[QUOTA_CONNECTIONS];
	if (!quota_charge(&c->account->quota, QUOTA_CONNECTIONS, 1)) {
		accounts_put(&s->accounts, c->account);
		c->account = NULL;
		*ret_text = "too many connections of this user; close some, or raise `connections` "
			    "in the configuration";
		return WIRE_E_QUOTA;
	}
	return WIRE_OK;
}

static enum wire_error enter(struct server *s, struct connection *c, const char **ret_text)
{
	int r = server_add_place(s, c, &c->tag);

	if (r == 0) {
		r = poller_add(s->poller, c->fd, c->tag, POLLER_READ);
		if (r == 0)
			return WIRE_OK;
		server_remove_place(s, c->tag);
	}
	quota_give_back(&c->account->quota, QUOTA_CONNECTIONS, 1);
	accounts_put(&s->accounts, c->account);
	c->account = NULL;
	if (r == -EUSERS) {
		*ret_text = "the daemon has as many connections as its fds allow; raise its "
			    "LimitNOFILE=";
		return WIRE_E_TOO_MANY_FDS;
	}
	*ret_text = "the daemon is out of memory or kernel resources; try again";
	return WIRE_E_NO_RESOURCES;
}

void connection_accept(struct server *s, int accepted)
{
	CLEANUP_FD int fd = accepted;
	struct credentials who = {0};
	const char *text = NULL;
	struct connection *c;
	uint64_t limit = 0;
	enum wire_error error;
	struct log_about about;
	struct rights rights;
	struct timespec ts;

	if (credentials_of(fd, &who) < 0) {
		s->stats.refused++;
		return;
	}
	rights_of(&s->config, &who, s->uid, s->private_, &rights);
	progress_enter(&s->progress, PROGRESS_ACCEPT, who.uid, who.pid, 0);
	error = admit(s, &who, &rights, &text);
	c = error == WIRE_OK ? calloc(1, sizeof(*c)) : NULL;
	if (error == WIRE_OK && !c) {
		error = WIRE_E_NO_RESOURCES;
		text = "the daemon is out of memory; try again";
	}
	if (error == WIRE_OK) {
		c->server = s;
		c->fd = fd;
		c->who = who;
		c->rights = rights;
		c->since = s->now;
		(void)clock_gettime(CLOCK_BOOTTIME, &ts);
		c->since_boot = (int64_t)ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
		TAILQ_INIT(&c->unanswered);
		TAILQ_INIT(&c->entries);
		TAILQ_INIT(&c->handouts);
		error = charge(s, c, &limit, &text);
		if (error == WIRE_OK)
			error = enter(s, c, &text);
	}
	if (error != WIRE_OK) {
		refuse(s, fd, &who, error, limit, text);
		credentials_clear(&who);
		free(c);
		return;
	}
	(void)steal_fd(&fd);
	TAILQ_INSERT_TAIL(&s->ungreeted, c, ungreeted);
	s->stats.accepted++;
	s->stats.connections++;
	s->idle_since = 0;
	about = connection_about(c, LOG_EVENT_NONE);
	log_about(s->log, CONFIG_LOG_DEBUG, &about, "uid %u pid %d connected", c->who.uid,
		  (int)c->who.pid);
}

void connection_free(struct connection *c)
{
	struct log_about about = connection_about(c, LOG_EVENT_NONE);
	struct server *s = c->server;

	log_about(s->log, CONFIG_LOG_DEBUG, &about, "uid %u pid %d session %llu ended", c->who.uid,
		  (int)c->who.pid, (unsigned long long)c->number);
	if (!c->greeted)
		TAILQ_REMOVE(&s->ungreeted, c, ungreeted);
	reading_remove(c);
	if (c->in_answered)
		TAILQ_REMOVE(&s->answered, c, answered);
	/* out of the poller first: a copy elsewhere would keep a closed fd firing */
	(void)poller_remove(s->poller, c->fd);
	parking_end_connection(c);
	watching_end(c);
	if (c->session)
		session_end(c->session);
	if (c->set) {
		int fd = poller_set_end(s->poller, c->set);

		if (fd >= 0)
			(void)close(fd);
	}
	(void)shutdown(c->fd, SHUT_RDWR);
	(void)close(c->fd);
	sending_end(c);
	quota_give_back(&c->account->quota, QUOTA_CONNECTIONS, 1);
	accounts_put(&s->accounts, c->account);
	credentials_clear(&c->who);
	server_remove_place(s, c->tag);
	s->stats.connections--;
	if (s->stats.connections == 0)
		s->idle_since = s->now;
	free(c);
}

/* ---- Reading ---- */

void connection_event(struct connection *c, unsigned mask)
{
	struct server *s = c->server;

	if (mask & POLLER_HANGUP)
		sending_lose_peer(c);
	if ((mask & POLLER_WRITE) && !c->in_answered) {
		c->in_answered = true;
		TAILQ_INSERT_TAIL(&s->answered, c, answered);
	}
	if ((mask & (POLLER_READ | POLLER_HANGUP)) && !c->blocked)
		reading_add(c);
}

static ssize_t receive(struct connection *c, struct msghdr *message, struct iovec *iov)
{
	struct server_buffers *b = &c->server->buffers;
	ssize_t n;

	*iov = (struct iovec){.iov_base = b->message, .iov_len = WIRE_MESSAGE_MAX + 1};
	*message = (struct msghdr){
		.msg_iov = iov,
		.msg_iovlen = 1,
		.msg_control = b->control,
		.msg_controllen = b->control_size,
	};
	n = recvmsg(c->fd, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	return n < 0 ? -errno : n;
}

static void end_by_client(struct connection *c)
{
	c->client_ended = !c->closing;
	connection_close(c);
}

/* Checks and applies a datagram whose fds are in the landing. */
static void apply(struct connection *c, size_t size, bool truncated)
{
	struct server *s = c->server;
	struct wire_view fault;
	const char *reason = NULL;
	enum wire_error error;

	if (size == 0) {
		if (s->landing.n > 0)
			connection_fail(c, WIRE_E_PROTOCOL, 0, "an empty datagram with fds");
		else
			end_by_client(c);
		return;
	}
	if (truncated || size > WIRE_MESSAGE_MAX) {
		connection_fail(c, WIRE_E_PROTOCOL, 0, "a datagram longer than 65536 bytes");
		return;
	}
	error = wire_check_datagram(s->buffers.message, size, s->landing.n, c->greeted, &fault,
				    &reason);
	if (error != WIRE_OK) {
		connection_fail(c, error, fault.header.serial, reason);
		return;
	}
	request_apply(c, s->buffers.message, size);
}

unsigned connection_read(struct connection *c)
{
	struct server *s = c->server;
	struct msghdr message;
	struct iovec iov;
	unsigned n_fds;
	ssize_t n;

	n = receive(c, &message, &iov);
	if (n == -ECONNRESET) { /* said once; what the peer sent before its end comes next */
		sending_lose_peer(c);
		n = receive(c, &message, &iov);
	}
	if (n < 0) {
		if (n != -EAGAIN && n != -EINTR)
			connection_close(c);
		return 0;
	}
	landing_init(&s->landing, &message);
	n_fds = s->landing.n;
	if (quota_charge(&c->account->quota, QUOTA_FDS_RECEIVED, n_fds)) {
		apply(c, (size_t)n, message.msg_flags & MSG_TRUNC);
		quota_give_back(&c->account->quota, QUOTA_FDS_RECEIVED, n_fds);
	} else {
		connection_fail(c, WIRE_E_QUOTA, 0,
				"too many fds at once; raise `fds-received` in the configuration");
	}
	landing_clear(&s->landing);
	return n_fds;
}
