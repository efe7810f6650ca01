/* SPDX-License-Identifier: MIT */
#include "parking.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "sending.h"
#include "twins.h"

/*
 * Parks, between the core, the poller and the holders. The core knows what a park is and what may
 * happen to it; each of its calls is followed by parking_sync(), which carries out what has changed:
 * the record goes to the link, the fd into the set or out of it, an entry to the maker's connection.
 *
 * A parked fd is a lasting one, held for as long as the park is, and registered only until it is
 * ready once: then it is taken out of epoll. So a park that fires without end costs one event, and
 * nothing of it is left in epoll when it is handed out. Its tag is its number: an event that comes
 * late, for a number that another park has by now, is one *ready* too many.
 *
 * A parking lives while it has parks, handles or a holder, and a holder for some seconds more than
 * the last park.
 */

/* ---- Making and ending ---- */

int parking_init(struct server *s, const struct server_options *options)
{
	struct hash_key key = {{0}};
	struct timespec ts;
	int r;

	TAILQ_INIT(&s->parkings);
	s->has_holders = options->has_holders;
	s->durable = options->has_holders && options->durable;
	s->oldest_ends = INT64_MAX;
	s->buffers.batch = calloc(1, sizeof(*s->buffers.batch));
	s->buffers.from_holder = calloc(1, sizeof(*s->buffers.from_holder));
	if (!s->buffers.batch || !s->buffers.from_holder)
		return -ENOMEM;
	/* not this boot's clock: numbers are to be unique over reboots, too, for who notes them */
	(void)clock_gettime(CLOCK_REALTIME, &ts);
	/* without entropy, which cannot be after boot, it is what the clock says */
	if (getrandom(&key, sizeof(key), 0) != sizeof(key))
		key.words[0] = (uint64_t)ts.tv_nsec;
	r = parks_new((uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000, &key, &s->parks);
	for (size_t i = 0; i < options->n_holders && r == 0; i++) {
		struct parking *k = NULL;

		r = parking_get_uid(s, options->holders[i].uid, &k);
		if (r == 0)
			link_return(k, options->holders[i].socket);
	}
	return r;
}

static void end(struct parking *k)
{
	struct server *s = k->server;
	int fd = poller_set_end(s->poller, k->set);

	if (fd >= 0)
		(void)close(fd);
	link_deinit(k);
	twins_deinit(k);
	TAILQ_REMOVE(&s->parkings, k, list);
	k->account->parking = NULL;
	/* the parks go with the process, not back to their user */
	k->account->quota.used[QUOTA_PARKS] = 0;
	k->account->quota.used[QUOTA_NOTE_BYTES] = 0;
	k->account->quota.used[QUOTA_FDS_UNREAD] = 0;
	accounts_put(&s->accounts, k->account);
	free(k);
}

void parking_deinit(struct server *s)
{
	struct parking *k;

	/* the last word to their holders, which go on without this loop */
	TAILQ_FOREACH(k, &s->parkings, list)
	link_hurry_all(k);
	if (s->parks)
		link_flush_all(s);
	for (uint64_t i = 0; i < s->n_park_by_fd; i++)
		if (s->park_by_fd[i])
			(void)close((int)i);
	if (s->parks)
		s->parks = parks_free(s->parks);
	while ((k = TAILQ_FIRST(&s->parkings)))
		end(k);
	for (uint32_t i = 0; i < s->peers.n; i++) {
		if (!s->peers.peers[i])
			continue;
		if (s->peers.peers[i]->pidfd >= 0)
			(void)close(s->peers.peers[i]->pidfd);
		free(s->peers.peers[i]);
	}
	free(s->peers.peers);
	free(s->park_by_fd);
	free(s->buffers.batch);
	free(s->buffers.from_holder);
}

int parking_get(struct server *s, struct account *account, struct parking **ret)
{
	struct parking *k;
	int r;

	*ret = account->parking;
	if (*ret)
		return 0;
	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	r = poller_set_new(s->poller, NULL, &k->set);
	if (r < 0) {
		free(k);
		return r;
	}
	r = parks_add_owner(s->parks, account->uid, &account->quota, &k->owner);
	if (r < 0) {
		int fd = poller_set_end(s->poller, k->set);

		if (fd >= 0)
			(void)close(fd);
		free(k);
		return r;
	}
	k->server = s;
	k->account = account;
	k->owner->caller = k;
	account->references++;
	account->parking = k;
	TAILQ_INSERT_TAIL(&s->parkings, k, list);
	link_init(k);
	*ret = k;
	return 0;
}

/* An account that is there keeps its limits: its user's groups count, and are not known here. */
int parking_get_uid(struct server *s, uid_t uid, struct parking **ret)
{
	struct account *account = accounts_next(&s->accounts, (int64_t)uid - 1);
	struct credentials who = {.uid = uid};
	int r;

	if (account && account->uid == uid)
		return parking_get(s, account, ret);
	r = accounts_get(&s->accounts, &s->config, &who, &account);
	if (r < 0)
		return r;
	r = parking_get(s, account, ret);
	accounts_put(&s->accounts, account); /* the parking has its own reference */
	return r;
}

int parking_reserve_fd(struct server *s, int fd)
{
	uint64_t n = s->n_park_by_fd ? s->n_park_by_fd : 1024;
	struct park **by_fd;

	if ((uint64_t)fd < s->n_park_by_fd)
		return 0;
	while (n <= (uint64_t)fd)
		n *= 2;
	by_fd = reallocarray(s->park_by_fd, n, sizeof(struct park *));
	if (!by_fd)
		return -ENOMEM;
	for (uint64_t i = s->n_park_by_fd; i < n; i++)
		by_fd[i] = NULL;
	s->park_by_fd = by_fd;
	s->n_park_by_fd = n;
	return 0;
}

/* ---- The set ---- */

int parking_register(struct parking *k, int fd, unsigned interest, uint32_t *ret_word)
{
	struct poller *p = k->server->poller;
	int r = poller_open(p, k->set, fd, (uint64_t)fd, interest, ret_word);

	if (r == 0 && !(poller_caps(p) & POLLER_EDGE))
		r = poller_arm(p, k->set, (uint64_t)fd, *ret_word, interest);
	return r;
}

void parking_unregister(struct parking *k, int fd, uint32_t word)
{
	(void)poller_close(k->server->poller, k->set, fd, (uint64_t)fd, word);
}

static void watch(struct parking *k, struct park *p)
{
	bool wanted = p->state == PARK_HELD && !p->ready && !(p->flags & PARK_HOLD_ONLY);
	bool is = p->caller_flags & PARKING_REGISTERED;

	if (wanted == is)
		return;
	p->caller_flags ^= PARKING_REGISTERED;
	if (!wanted)
		parking_unregister(k, p->fd, p->word);
	else if (parking_register(k, p->fd, p->interest, &p->word) < 0) {
		/* what cannot be watched is ready: whoever takes it will see */
		p->caller_flags ^= PARKING_REGISTERED;
		parks_ready(k->server->parks, p, p->interest, k->server->now);
	}
}

/* ---- What changed ---- */

void parking_queue(struct park *p, struct park_queue *queue)
{
	if (p->queued)
		TAILQ_REMOVE(p->queued, p, queue);
	p->queued = queue;
	p->caller_flags &= ~(uint32_t)PARKING_SENDING;
	if (queue)
		TAILQ_INSERT_TAIL(queue, p, queue);
}

void parking_tell(struct park *p)
{
	struct peer *peer = p->maker ? peer_of_handle(p->maker) : NULL;
	struct connection *c = peer ? peer->c : NULL;
	uint32_t news = (p->ready ? (uint32_t)PARKING_TOLD : 0) |
			(p->timed_out ? (uint32_t)PARKING_TOLD_TIMEOUT : 0);

	if (p->state != PARK_HELD || !p->answered || !(news & ~p->caller_flags) || p->group || !c ||
	    c->closing)
		return;
	/* not before it is recorded that its PARK was answered: who is told may not know that it has
	 * to claim it if this loop dies now */
	if (p->recorded != p->serial) {
		link_hurry(p->owner->caller, p);
		return;
	}
	p->caller_flags |= news;
	parking_queue(p, &c->entries);
	sending_queue(c);
}

static void end_park(struct parking *k, struct park *p)
{
	bool held = p->caller_flags & PARKING_HELD;

	parking_queue(p, NULL);
	watch(k, p);
	twins_remove(k, p);
	if (p->fd >= 0) {
		k->server->park_by_fd[p->fd] = NULL;
		/* a holder that has it shuts it down, and has the last copy to close */
		if (p->end == PARK_END_EXPIRED && !held)
			(void)shutdown(p->fd, SHUT_RDWR);
		parking_step();
		(void)close(p->fd);
		p->fd = -1;
	}
	parking_step();
	link_add(k, p);
}

void parking_sync(struct server *s)
{
	struct park *p;

	while ((p = parks_take_changed(s->parks))) {
		struct parking *k = p->owner->caller;

		if (s->applying)
			concern_add(s->applying, k);
		if (p->state == PARK_GONE) {
			end_park(k, p);
			continue;
		}
		if (p->state == PARK_HELD && (p->caller_flags & PARKING_SENDING))
			parking_queue(p, NULL);
		if (p->state == PARK_HANDED) /* should it come back, that is news again */
			p->caller_flags &= ~(uint32_t)(PARKING_TOLD | PARKING_TOLD_TIMEOUT);
		if (p->serial != p->recorded)
			link_add(k, p);
		watch(k, p);
		parking_tell(p);
	}
	peer_end_idle(s);
}

void parking_event(struct server *s, uint64_t tag, unsigned directions)
{
	struct park *p = tag < s->n_park_by_fd ? s->park_by_fd[tag] : NULL;

	if (!p || !(p->caller_flags & PARKING_REGISTERED))
		return;
	progress_enter(&s->progress, PROGRESS_PARK, p->owner->uid, 0, p->number);
	parks_ready(s->parks, p, directions, s->now);
	parking_sync(s);
	parking_step();
}

/* ---- Time ---- */

#define AGE_AGAIN INT64_C(1000000000) /* ns */

enum { EXPIRIES_PER_TURN = 256 };

/* When it is too old. */
static int64_t end_of_age(const struct server *s, const struct park *p)
{
	int64_t when;

	if (s->config.park_max_age == 0 ||
	    __builtin_add_overflow(p->parked, s->config.park_max_age, &when))
		return INT64_MAX;
	return when;
}

void parking_note_age(struct server *s, const struct park *p)
{
	int64_t when = end_of_age(s, p);

	if (when < s->oldest_ends)
		s->oldest_ends = when;
}

/* All of them, since they come in no order of age; but only when one is due. */
static void end_old(struct server *s)
{
	uint64_t cursor = 0;
	struct park *p;

	s->oldest_ends = INT64_MAX;
	while ((p = parks_next(s->parks, NULL, &cursor))) {
		if (p->state == PARK_GONE)
			continue;
		if (end_of_age(s, p) > s->now)
			parking_note_age(s, p);
		else if (parks_end_age(s->parks, p) < 0 && s->now + AGE_AGAIN < s->oldest_ends)
			s->oldest_ends = s->now + AGE_AGAIN; /* handed out, or unanswered */
	}
	parking_sync(s);
}

void parking_reload(struct server *s)
{
	s->oldest_ends = s->now;
}

void parking_expire(struct server *s)
{
	if (s->oldest_ends <= s->now)
		end_old(s);
	if (parks_next_expiry(s->parks) <= s->now) {
		if (parks_expire(s->parks, s->now, EXPIRIES_PER_TURN))
			s->unfinished = true;
		parking_step();
		parking_sync(s);
	}
	link_expire(s);
	if (s->handout_again != 0 && s->handout_again <= s->now) {
		uint32_t index = 0;
		struct connection *c;

		s->handout_again = 0;
		while ((c = server_next_connection(s, &index)))
			if (!TAILQ_EMPTY(&c->handouts))
				sending_queue(c);
	}
}

int64_t parking_next_time(const struct server *s)
{
	int64_t next = parks_next_expiry(s->parks), link = link_next_time(s);

	if (link < next)
		next = link;
	if (s->oldest_ends < next)
		next = s->oldest_ends;
	if (s->handout_again != 0 && s->handout_again < next)
		next = s->handout_again;
	return next;
}

/* ---- Counts ---- */

void parking_count(const struct server *s, struct parking_counts *ret)
{
	const bool sets = poller_caps(s->poller) & POLLER_WEAK;
	struct parking_counts n = {.fds = parks_stats(s->parks)->parks};
	const struct parking *k;
	const struct park *p;
	uint64_t cursor = 0;

	/* a poller that is not weak has copies of what it watches, and takes a while for all it does */
	while (!sets && (p = parks_next(s->parks, NULL, &cursor)))
		n.fds += (p->caller_flags & PARKING_REGISTERED) != 0;
	TAILQ_FOREACH(k, &s->parkings, list)
	{
		n.holders += k->link.socket >= 0;
		n.fds += (k->link.socket >= 0) + sets;
	}
	for (uint32_t i = 0; i < s->peers.n; i++)
		n.fds += s->peers.peers[i] && s->peers.peers[i]->pidfd >= 0;
	*ret = n;
}

/* ---- The end of a connection ---- */

void parking_end_unused(struct parking *k)
{
	if (!k || (k->link.state != LINK_NONE && k->link.state != LINK_SPARED) || k->link.spare ||
	    k->owner->n_parks > 0 || k->owner->n_handles > 0)
		return;
	parks_end_owner(k->server->parks, k->owner);
	end(k);
}

void parking_end_connection(struct connection *c)
{
	struct server *s = c->server;
	struct park *p;

	link_forget(c);
	/* who has its answers and goes may not come back to claim anything */
	if (c->account && c->account->parking)
		link_hurry_all(c->account->parking);
	while ((p = TAILQ_FIRST(&c->unanswered))) {
		parking_queue(p, NULL);
		/* who ends the connection without waiting for the answer does not ask again */
		if (c->client_ended)
			parks_answered(s->parks, p);
	}
	while ((p = TAILQ_FIRST(&c->entries)))
		parking_queue(p, NULL);
	while ((p = TAILQ_FIRST(&c->handouts))) {
		parking_queue(p, NULL);
		/* it was never sent, and no request waits for it: another worker may have it */
		if (p->handout == 0 && p->group)
			parks_take_back(s->parks, p, s->now);
	}
	parking_sync(s);
	if (!c->peer) {
		parking_end_unused(c->account->parking);
		return;
	}
	/* who ended the connection by itself has nothing more to say; else its word is awaited */
	if (c->client_ended && c->peer->c == c)
		parks_disconnected(s->parks, c->peer->handle, s->now);
	parking_step();
	peer_detach(c);
	parking_sync(s);
	parking_end_unused(c->account->parking);
}
