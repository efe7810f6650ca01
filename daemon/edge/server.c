/* SPDX-License-Identifier: MIT */
#include "server.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "connection.h"
#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"
#include "daemon/util/clock.h"
#include "grouping.h"
#include "parking.h"
#include "reading.h"
#include "sending.h"
#include "server_internal.h"
#include "sharing.h"

/*
 * The loop never leaves the poll unserved: nothing here waits but poller_poll(). Each step is
 * bounded: events a session by the poller, requests by one datagram a connection, the outbox's room
 * and the fds that come with them (reading.c), messages a connection by SENDS_PER_TURN. What is left
 * over is reported again, since the daemon's own descriptors are level-triggered, or makes the next
 * poll an asking one (`unfinished`).
 */

#define SECOND INT64_C(1000000000)

enum {
	ACCEPTS_PER_TURN = 32,
	EXPIRIES_PER_TURN = 16384,
	PRIVATE_LINGER = 10,   /* s that a private daemon stays when nobody is left */
	ACCEPT_PAUSE_MS = 100, /* without fds or memory */
};

/* ---- Making and ending ---- */

static int init_buffers(struct server_buffers *b)
{
	b->control_size = CMSG_SPACE(WIRE_FDS_MAX * sizeof(int));
	b->message = calloc(1, WIRE_MESSAGE_MAX + 8);
	b->control = calloc(1, b->control_size);
	b->events = calloc(SERVER_EVENTS, sizeof(*b->events));
	b->entries = calloc(WIRE_RECORDS_MAX, sizeof(*b->entries));
	b->ready = calloc(1, sizeof(struct wire_header) +
				     WIRE_RECORDS_MAX * sizeof(struct wire_entry));
	b->rows = calloc(1, SERVER_ROWS_SIZE);
	if (!b->message || !b->control || !b->events || !b->entries || !b->ready || !b->rows)
		return -ENOMEM;
	/* calloc's pages are not there before they are touched */
	memset(b->message, 1, WIRE_MESSAGE_MAX + 8);
	memset(b->control, 1, b->control_size);
	return 0;
}

static void deinit_buffers(struct server_buffers *b)
{
	free(b->message);
	free(b->control);
	free(b->events);
	free(b->entries);
	free(b->ready);
	free(b->rows);
}

/* What the kernel shows for uids without a mapping; 65534 where it cannot be read. */
static uid_t read_overflow_uid(void)
{
	FILE *f = fopen("/proc/sys/kernel/overflowuid", "re");
	unsigned uid = 65534;

	if (!f)
		return uid;
	if (fscanf(f, "%u", &uid) != 1)
		uid = 65534;
	(void)fclose(f);
	return uid;
}

/* A connection costs its socket and, with weak watches, its session's epoll instance. */
static uint32_t max_connections(const struct server *s)
{
	uint64_t taken = FD_LASTING + s->config.reserve_fds, n;

	if (s->max_fds <= taken + 2)
		return 1;
	n = (s->max_fds - taken) / 2;
	return n > INT32_MAX ? INT32_MAX : (uint32_t)n;
}

static int init_poller(struct server *s)
{
	const struct poller_backend *backend = poller_backend_by_name(s->config.backend);
	struct core_options options = {0};
	int r;

	if (!backend) {
		log_error(s->log, "there is no backend named %s", s->config.backend);
		return -EINVAL;
	}
	r = poller_new(backend, &s->poller);
	if (r == 0) {
		options.level = !(poller_caps(s->poller) & POLLER_EDGE);
		/* without entropy, which cannot be after boot, it is what the clock says */
		if (getrandom(&options.hash_key, sizeof(options.hash_key), 0) !=
		    sizeof(options.hash_key))
			options.hash_key = (uint64_t)clock_now();
		r = core_new(&options, &s->core);
	}
	if (r < 0)
		log_error(s->log, "cannot start the %s backend: %s", s->config.backend,
			  strerror(-r));
	return r;
}

static int init_sockets(struct server *s, const struct server_options *options)
{
	int r;

	s->admission.poller = s->poller;
	s->admission.own_event = options->progress.page ? options->progress.wake : -1;
	s->admission.own_socket = options->control;
	s->admission.address = options->listener.name;
	s->admission.address_length = options->listener.name_length;
	r = poller_add(s->poller, options->listener.fd, SERVER_TAG_LISTENER, POLLER_READ);
	if (r == 0 && options->starter >= 0)
		r = poller_add(s->poller, options->starter, SERVER_TAG_STARTER, POLLER_READ);
	if (r == 0 && options->control >= 0)
		r = poller_add(s->poller, options->control, SERVER_TAG_CONTROL, POLLER_READ);
	if (r < 0)
		log_error(s->log, "cannot watch the listening socket: %s", strerror(-r));
	return r;
}

static int init(struct server *s, const struct server_options *options)
{
	struct rlimit limit;
	int r;

	TAILQ_INIT(&s->ungreeted);
	reading_init(s);
	TAILQ_INIT(&s->answered);
	TAILQ_INIT(&s->ending);
	s->listener.fd = -1;
	s->starter = -1;
	s->free_place = UINT32_MAX;
	s->log = options->log;
	s->config = options->config;
	s->private_ = options->private_;
	s->keeper = options->control >= 0;
	s->progress = options->progress;
	s->kept_out = options->kept_out;
	s->history = options->history;
	s->unfinished =
		true; /* the first turn asks only: whoever watches sees that it came through */
	s->pid = (uint32_t)getpid();
	s->uid = geteuid();
	s->overflow_uid = read_overflow_uid();
	s->started = s->now = clock_now();
	s->idle_since = s->now;
	if (s->history.began == 0)
		s->history.began = s->now;
	s->max_fds = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 1024;
	s->max_connections = max_connections(s);
	r = init_buffers(&s->buffers);
	if (r == 0)
		r = outbox_init(&s->outbox);
	if (r < 0) {
		log_error(s->log, "out of memory at start");
		return r;
	}
	r = init_poller(s);
	if (r == 0)
		r = init_sockets(s, options);
	if (r == 0)
		r = parking_init(s, options);
	if (r < 0)
		return r;
	s->listener = options->listener;
	s->starter = options->starter;
	s->base_fds = fd_count_lasting(s->max_fds);
	return 0;
}

int server_new(struct server_options *options, struct server **ret)
{
	struct server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	r = init(s, options);
	if (r < 0) {
		s->config = (struct config){0}; /* still the caller's */
		server_free(s);
		return r;
	}
	options->config = (struct config){0};
	options->listener = (struct listener){.fd = -1};
	options->starter = -1;
	*ret = s;
	return 0;
}

static void end_connections(struct server *s)
{
	struct connection *c;

	while ((c = TAILQ_FIRST(&s->ending))) {
		TAILQ_REMOVE(&s->ending, c, ending);
		progress_enter(&s->progress, PROGRESS_END, c->who.uid, c->who.pid, c->number);
		connection_free(c);
	}
	progress_leave(&s->progress);
}

/* What was left out of the log is counted there. */
static void end_sites(struct server *s)
{
	log_site_end(s->log, &s->sites.refused, CONFIG_LOG_WARNING, "refused connections");
	log_site_end(s->log, &s->sites.protocol, CONFIG_LOG_WARNING, "malformed messages");
	log_site_end(s->log, &s->sites.watches, CONFIG_LOG_INFO, "refused watches");
	log_site_end(s->log, &s->sites.holder, CONFIG_LOG_ERROR, "faults of holders");
	log_site_end(s->log, &s->sites.accept, CONFIG_LOG_WARNING, "failed accepts");
	log_site_end(s->log, &s->sites.upgrade, CONFIG_LOG_NOTICE, "requests for an upgrade");
}

struct server *server_free(struct server *s)
{
	if (!s)
		return NULL;
	end_sites(s);
	listener_close(&s->listener);
	for (uint32_t i = 0; i < s->n_places; i++)
		if (s->places[i].connection) {
			sending_say_goodbye(s->places[i].connection);
			connection_free(s->places[i].connection);
		}
	parking_deinit(s);
	accounts_deinit(&s->accounts);
	core_free(s->core);
	poller_free(s->poller);
	if (s->starter >= 0)
		(void)close(s->starter);
	outbox_deinit(&s->outbox);
	deinit_buffers(&s->buffers);
	config_clear(&s->config);
	free(s->places);
	free(s);
	return NULL;
}

const char *server_address(const struct server *s)
{
	return s->listener.address;
}

bool server_is_called(const struct server *s)
{
	return s->called;
}

void server_break(struct server *s)
{
	(void)poller_break(s->poller);
}

/* ---- Accepting ---- */

static void pause_accepting(struct server *s, int error)
{
	log_limited(s->log, &s->sites.accept, s->now, CONFIG_LOG_WARNING,
		    "cannot accept connections: %s; trying again in %d ms", strerror(error),
		    ACCEPT_PAUSE_MS);
	s->accept_again = s->now + ACCEPT_PAUSE_MS * (SECOND / 1000);
	(void)poller_modify(s->poller, s->listener.fd, SERVER_TAG_LISTENER, 0);
}

static void accept_all(struct server *s)
{
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		int fd = accept4(s->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0 && errno == EAGAIN)
			return;
		if (fd >= 0)
			fd = fd_move_up(fd); /* the zone is for received fds */
		else
			fd = -errno;
		if (fd < 0) {
			pause_accepting(s, -fd);
			return;
		}
		connection_accept(s, fd);
	}
}

/* ---- One turn ---- */

/* Notes for whom something is done, until the next step. */
static void enter_step(const struct connection *c, enum progress_kind kind)
{
	progress_enter(&c->server->progress, kind, c->who.uid, c->who.pid, c->number);
}

/* Until when to block, as a delta; < 0: for ever. */
static int64_t next_delta(const struct server *s, int64_t now)
{
	const struct connection *oldest = TAILQ_FIRST(&s->ungreeted);
	int64_t next = core_next_expiry(s->core), parks;

	if (s->unfinished)
		return 0;
	parks = parking_next_time(s);
	if (parks < next)
		next = parks;
	if (s->accept_again != 0 && s->accept_again < next)
		next = s->accept_again;
	if (oldest && oldest->since + s->config.hello_timeout < next)
		next = oldest->since + s->config.hello_timeout;
	if (s->private_ && s->starter < 0 && s->idle_since != 0 &&
	    s->idle_since + PRIVATE_LINGER * SECOND < next)
		next = s->idle_since + PRIVATE_LINGER * SECOND;
	if (next == INT64_MAX)
		return -1;
	return next > now ? next - now : 0;
}

void server_apply_event(struct server *s, const struct poller_event *event)
{
	struct connection *c;

	if (event->watch) {
		if (!event->owner) {
			parking_event(s, event->tag, event->mask);
			return;
		}
		c = event->owner;
		enter_step(c, PROGRESS_EVENTS);
		if (!core_event(s->core, event->tag, event->mask & (POLLER_READ | POLLER_WRITE),
				event->mask & POLLER_ERROR))
			session_count_stale(c->session);
		return;
	}
	switch (event->tag) {
	case SERVER_TAG_LISTENER:
		accept_all(s);
		return;
	case SERVER_TAG_STARTER:
		(void)poller_remove(s->poller, s->starter);
		(void)close(s->starter);
		s->starter = -1;
		return;
	case SERVER_TAG_CONTROL:
		s->called = true;
		return;
	default:
		if (event->tag >> 32 == SERVER_TAG_HOLDER) {
			link_event(s, (uint32_t)event->tag, event->mask);
			return;
		}
		if (event->tag >> 32 == SERVER_TAG_PEER) {
			peer_event(s, (uint32_t)event->tag);
			return;
		}
		c = server_find_tag(s, event->tag);
		if (!c || c->closing)
			return;
		enter_step(c, PROGRESS_EVENTS);
		connection_event(c, event->mask);
		return;
	}
}

/* Connections that never said HELLO, and what else the daemon itself waits for. */
static void expire_own(struct server *s)
{
	struct connection *c;

	TAILQ_FOREACH(c, &s->ungreeted, ungreeted)
	{
		if (c->since + s->config.hello_timeout > s->now)
			break;
		if (!outbox_has_room(&s->outbox)) {
			s->unfinished = true;
			break;
		}
		if (!c->held) /* it may have come, and was not read */
			connection_fail(c, WIRE_E_PROTOCOL, 0, "no HELLO came in time");
	}
	if (s->accept_again != 0 && s->accept_again <= s->now) {
		s->accept_again = 0;
		(void)poller_modify(s->poller, s->listener.fd, SERVER_TAG_LISTENER, POLLER_READ);
	}
}

static void send_all(struct server *s)
{
	struct session *session, *next;
	struct connection *c;

	while ((c = TAILQ_FIRST(&s->answered))) {
		TAILQ_REMOVE(&s->answered, c, answered);
		c->in_answered = false;
		enter_step(c, PROGRESS_SEND);
		sending_flush(c);
	}
	for (session = core_next_ready(s->core, NULL); session; session = next) {
		next = core_next_ready(s->core, session);
		c = session_owner(session);
		enter_step(c, PROGRESS_SEND);
		sending_flush(c);
	}
	progress_leave(&s->progress);
}

int server_turn(struct server *s)
{
	int64_t delta = next_delta(s, clock_now()), end;
	int n;

	if (delta != 0)
		progress_idle(&s->progress);
	n = poller_poll(s->poller, delta, s->buffers.events, SERVER_EVENTS);
	s->now = clock_now();
	progress_busy(&s->progress, s->now);
	if (n < 0)
		return n;
	s->stats.turns++;
	s->unfinished = false;
	s->called = false;
	outbox_clear(&s->outbox);
	for (int i = 0; i < n; i++)
		server_apply_event(s, &s->buffers.events[i]);
	progress_leave(&s->progress);
	reading_run(s);
	if (core_expire_some(s->core, s->now, EXPIRIES_PER_TURN))
		s->unfinished = true;
	parking_expire(s);
	grouping_run(s);
	expire_own(s);
	link_flush_all(s);
	send_all(s);
	end_connections(s);
	link_flush_all(s);
	if (!TAILQ_EMPTY(&s->answered) || grouping_is_due(s))
		s->unfinished = true;
	end = clock_now();
	if (end - s->now > s->stats.turn_longest)
		s->stats.turn_longest = end - s->now;
	inspect_show_counts(s);
	progress_finish_turn(&s->progress);
	return s->private_ && s->starter < 0 && s->stats.connections == 0 &&
	       s->idle_since + PRIVATE_LINGER * SECOND <= end;
}

/* ---- Reload ---- */

static void warn_of_restart(struct server *s, const struct config *config)
{
	bool same_socket = (!config->socket && !s->config.socket) ||
			   (config->socket && s->config.socket &&
			    strcmp(config->socket, s->config.socket) == 0);

	if (!same_socket)
		log_warning(s->log,
			    "`socket` has changed in the configuration: restart readyd to use it");
	if (strcmp(config->backend, s->config.backend) != 0)
		log_warning(s->log,
			    "`backend` has changed in the configuration: restart readyd to use it");
}

void server_reload(struct server *s, struct config *config)
{
	warn_of_restart(s, config);
	outbox_clear(&s->outbox); /* of the last turn's, which was sent */
	config_clear(&s->config);
	s->config = *config;
	*config = (struct config){0};
	s->max_connections = max_connections(s);
	parking_reload(s);
	for (uint32_t i = 0; i < s->n_places; i++) {
		struct connection *c = s->places[i].connection;

		if (!c)
			continue;
		account_set_limits(c->account, &s->config, &c->who);
		rights_of(&s->config, &c->who, s->uid, s->private_, &c->rights);
		if (!c->rights.connect || !c->rights.trusted)
			connection_fail(
				c, WIRE_E_ACCESS, 0,
				"the configuration was read anew and does not let this user in");
	}
	sharing_reload(s);
	send_all(s);
	end_connections(s);
}
