/* SPDX-License-Identifier: MIT */
#include "parking.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"

/*
 * The processes behind handles. A hand-out that nobody acknowledged is settled when its worker is
 * dead, whoever else has copies of its connection: a pidfd tells. It is asked of the connection
 * (SO_PEERPIDFD, Linux 6.5), and so can be nobody else's. Before that it is opened by its pid, and the
 * start time in /proc shows that this is still the process that connected: a process that got
 * the pid later would have started after the connection was accepted. Both times are read on
 * CLOCK_BOOTTIME, when they happen: CLOCK_MONOTONIC stands still while the machine sleeps, and the
 * turn's time may be older than a process that connects in that turn. What is left is a pid that
 * comes round between connect(2) and accept(2), within some milliseconds: then the death that is
 * waited for is another process's, and a park that was handed to the dead one, which never read it,
 * stays handed until then. No such kernel tells when a connection was made.
 *
 * A peer is kept while it has a connection, or a park names its handle. The same pidfd goes into
 * the records, so that a later loop has it again.
 */

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

enum { TICKS_PER_SECOND = 100 }; /* USER_HZ, what /proc counts in */

struct peer *peer_of_handle(const struct park_handle *h)
{
	return h->caller;
}

/* ---- pidfds ---- */

/* When a process started, in ticks since boot; -1: there is none, or its text is strange. */
static int64_t start_of(pid_t pid)
{
	char path[32], text[1024];
	unsigned long long start;
	const char *after;
	FILE *f;
	size_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	n = fread(text, 1, sizeof(text) - 1, f);
	(void)fclose(f);
	text[n] = '\0';
	after = strrchr(text, ')'); /* a name may have anything in it */
	if (!after ||
	    sscanf(after + 1,
		   " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
		   "%llu",
		   &start) != 1)
		return -1;
	return (int64_t)start;
}

static int open_by_pid(const struct connection *c)
{
	int64_t start;
	int fd = (int)syscall(SYS_pidfd_open, c->who.pid, 0);

	if (fd < 0)
		return -errno;
	fd = fd_move_up(fd);
	if (fd < 0)
		return fd;
	start = start_of(c->who.pid); /* of another one, if this one has died meanwhile: too late */
	/* the same tick will do: a pid does not come round in 10 ms */
	if (start >= 0 && start <= c->since_boot / (INT64_C(1000000000) / TICKS_PER_SECOND))
		return fd;
	(void)close(fd);
	return -ESRCH;
}

static int open_peer(const struct connection *c)
{
	int fd = -1;
	socklen_t length = sizeof(fd);

	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERPIDFD, &fd, &length) == 0)
		return fd_move_up(fd);
	if (errno != ENOPROTOOPT)
		return -errno; /* the process was reaped already */
	return open_by_pid(c);
}

static bool is_dead(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

/* ---- The table ---- */

static int add(struct server *s, struct peer *peer)
{
	struct peer_table *t = &s->peers;
	struct peer **peers;
	uint32_t n;

	for (uint32_t i = 0; i < t->n; i++)
		if (!t->peers[i]) {
			peer->number = i;
			t->peers[i] = peer;
			return 0;
		}
	n = t->n ? 2 * t->n : 16;
	peers = reallocarray(t->peers, n, sizeof(struct peer *));
	if (!peers)
		return -ENOMEM;
	for (uint32_t i = t->n; i < n; i++)
		peers[i] = NULL;
	peer->number = t->n;
	peers[t->n] = peer;
	t->peers = peers;
	t->n = n;
	return 0;
}

static void forget_pidfd(struct peer *peer)
{
	if (peer->pidfd < 0)
		return;
	(void)poller_remove(peer->parking->server->poller, peer->pidfd);
	(void)close(steal_fd(&peer->pidfd));
}

/* Takes over pidfd, also on failure. */
static int set_pidfd(struct peer *peer, pid_t pid, int given)
{
	struct poller *p = peer->parking->server->poller;
	CLEANUP_FD int pidfd = given;
	int r = poller_add(p, pidfd, SERVER_TAG_PEER << 32 | peer->number, POLLER_READ);

	if (r < 0)
		return r;
	forget_pidfd(peer); /* of a process that had this handle before */
	peer->pid = pid;
	peer->dead = false;
	peer->pidfd = steal_fd(&pidfd);
	return 0;
}

static int make(struct parking *k, struct park_handle *h, struct peer **ret)
{
	CLEANUP_MEMORY struct peer *peer = calloc(1, sizeof(*peer));
	int r;

	if (!peer)
		return -ENOMEM;
	*peer = (struct peer){.parking = k, .handle = h, .pidfd = -1};
	r = add(k->server, peer);
	if (r < 0)
		return r;
	h->caller = peer;
	*ret = STEAL(peer);
	return 0;
}

void peer_end_idle(struct server *s)
{
	struct park_handle *h;

	while ((h = parks_next_idle(s->parks))) {
		struct peer *peer = h->caller;

		if (peer) {
			assert(!peer->c);
			forget_pidfd(peer);
			s->peers.peers[peer->number] = NULL;
			free(peer);
		}
		parks_end_handle(s->parks, h);
	}
}

/* ---- Finding ---- */

int peer_of_connection(struct connection *c, struct peer **ret)
{
	struct server *s = c->server;
	struct park_handle *h;
	struct parking *k;
	struct peer *peer;
	int r;

	*ret = c->peer;
	if (c->peer)
		return 0;
	if (park_is_zero(c->handle))
		return -EINVAL;
	r = parking_get(s, c->account, &k);
	if (r == 0)
		r = parks_get_handle(s->parks, k->owner, c->handle, &h);
	if (r < 0)
		return r;
	peer = h->caller;
	r = peer ? 0 : make(k, h, &peer);
	if (r == 0 && (peer->pidfd < 0 || peer->pid != c->who.pid)) {
		int pidfd = open_peer(c);

		r = pidfd < 0 ? -EOPNOTSUPP : set_pidfd(peer, c->who.pid, pidfd);
	}
	if (r < 0) {
		peer_end_idle(s);
		return r;
	}
	c->peer = peer;
	if (peer->c)
		peer->c->peer =
			NULL; /* an older connection: it has ended, or is not the handle's */
	peer->c = c;
	parks_attach(s->parks, h, true);
	*ret = peer;
	return 0;
}

void peer_greet(struct connection *c)
{
	struct parking *k = c->account->parking;
	struct park_handle *h;
	struct peer *peer;

	if (!k || park_is_zero(c->handle))
		return;
	/* one that is not known yet is asked for when there is need */
	if (parks_get_handle(c->server->parks, k->owner, c->handle, &h) == 0)
		(void)peer_of_connection(c, &peer);
	peer_end_idle(c->server);
}

bool peer_is_missed(const struct connection *c)
{
	const struct parking *k = c->account->parking;
	struct park_handle *h;

	if (!k || c->peer)
		return false;
	h = parks_find_handle(c->server->parks, k->owner, c->handle);
	return h && peer_of_handle(h) && !peer_of_handle(h)->c;
}

int peer_of_record(struct parking *k, const uint8_t id[WIRE_TOKEN_SIZE], pid_t pid, int given,
		   struct peer **ret)
{
	CLEANUP_FD int pidfd = given;
	struct park_handle *h;
	int r;

	r = parks_get_handle(k->server->parks, k->owner, id, &h);
	if (r < 0)
		return r;
	*ret = h->caller;
	if (!*ret)
		r = make(k, h, ret);
	if (r >= 0 && pidfd >= 0 && (*ret)->pidfd < 0)
		r = set_pidfd(*ret, pid, steal_fd(&pidfd));
	if (r < 0)
		peer_end_idle(k->server);
	return r < 0 ? r : 0;
}

void peer_detach(struct connection *c)
{
	struct peer *peer = c->peer;

	c->peer = NULL;
	if (!peer || peer->c != c)
		return;
	peer->c = NULL;
	parks_attach(c->server->parks, peer->handle, false);
}

void peer_event(struct server *s, uint32_t number)
{
	struct peer *peer = number < s->peers.n ? s->peers.peers[number] : NULL;
	struct parking *k;

	/* the event may be of one that had this number before */
	if (!peer || peer->pidfd < 0 || !is_dead(peer->pidfd))
		return;
	progress_enter(&s->progress, PROGRESS_PARK, peer->parking->account->uid, peer->pid, 0);
	forget_pidfd(peer);
	peer->dead = true;
	k = peer->parking;
	parks_died(s->parks, peer->handle, s->now);
	parking_step();
	parking_sync(s);
	parking_end_unused(k); /* who only took from others, and came from an earlier loop */
}
