/* SPDX-License-Identifier: MIT */
#include "depot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"

/*
 * Storing. PID 1 compares each new fd with all that it has, so entries are few and large: as many
 * parks as go into a message. Only the reading end is stored, and the other one is closed: nobody
 * can add anything.
 *
 * Taking. A depot is looked at first (MSG_PEEK makes copies of its fds) and emptied only when it is
 * out of the store: until then its parks would come back, should everything be killed. And its last
 * close is ours, never PID 1's, since what lies in it closes with it and may make its closer wait.
 * Only then does the holder serve: nothing is handed out of which a copy is still stored.
 *
 * Who may store. At the end of the service a holder may have been replaced a moment ago: then
 * what it has is old, and may have been taken since. So it looks at its office after each entry that
 * it has written down, and before it is content; if it has lost it, it takes back what it stored.
 *
 * Nothing that comes back is trusted: a depot may be of another version, or be damaged. A record is
 * checked here for being one, and of this uid; the loop checks the rest.
 *
 * Kernel behaviour relied on: a message in a socket's queue keeps its fds open while any copy of that
 * socket is, also when the sender has closed its end. What is in queues counts against the uid's
 * RLIMIT_NOFILE (ETOOMANYREFS), and so does a socket that has too many sockets in its own.
 */

#define SECOND INT64_C(1000000000)

/* That PID 1 may need, ns. At the end the keeper and systemd have more patience than that. */
#define PATIENCE_AT_START (30 * SECOND)
#define PATIENCE_AT_END (8 * SECOND)

static int64_t clock_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * SECOND + ts.tv_nsec;
}

static int open_store(const struct depots *d, struct store *ret, int64_t patience)
{
	ret->waiting = d->waiting;
	ret->context = d->context;
	return store_open(ret, clock_now() + patience);
}

/* ---- Taking ---- */

struct taking {
	struct depots *d;
	struct holder_table *table;
	struct record_message *message;
	const char *reason; /* of the first thing in a depot that cannot be used; NULL: none yet */
	size_t n_refused;
};

static void complain(struct taking *t, const char *reason)
{
	t->n_refused++;
	if (!t->reason)
		t->reason = reason;
}

/* What became of a depot, where not all of it came back. */
static void tell_refused(const struct taking *t, uint32_t serial)
{
	char name[STORE_NAME_SIZE];

	if (t->n_refused == 0)
		return;
	store_name(t->d->uid, serial, name);
	log_error(t->d->log,
		  "%s, which systemd kept for uid %u, has what cannot be used (%zu): %s; it is "
		  "closed, "
		  "the rest is taken back",
		  name, t->d->uid, t->n_refused, t->reason);
}

static void take_park(struct taking *t, const struct record_op *op)
{
	int r;

	if (op->type != RECORD_HOLD) {
		complain(t, "it is no park");
	} else if (op->record->uid != t->d->uid) {
		complain(t, "it is another user's");
	} else {
		r = holder_table_hold(t->table, op, t->message->fds + op->first_fd);
		if (r < 0 && r != -ESTALE) /* the newer of two is there */
			complain(t, strerror(-r));
	}
}

static void take_depot(struct taking *t, int fd)
{
	int r = record_message_receive(t->message, fd, MSG_PEEK | MSG_DONTWAIT);
	const char *reason = NULL;
	struct record_op op;

	if (r <= 0) {
		complain(t, r == 0 || r == -EAGAIN ? "it is empty" : strerror(-r));
		return;
	}
	while ((r = record_message_next(t->message, &op, &reason)) != 0)
		if (r > 0)
			take_park(t, &op);
		else
			complain(t, reason);
	record_message_clear(t->message);
}

/* All that the ledger has of this uid goes out of the store. */
static int clear_store(const struct depots *d)
{
	char name[STORE_NAME_SIZE];
	struct store s;
	uint32_t serial;
	size_t cursor = 0;
	int r = open_store(d, &s, PATIENCE_AT_START);

	while (r == 0 && ledger_next(d->ledger, d->uid, &cursor, &serial)) {
		store_name(d->uid, serial, name);
		r = store_remove(&s, name);
	}
	if (r == 0)
		r = store_barrier(&s);
	store_close(&s);
	cursor = 0;
	while (r == 0 && ledger_next(d->ledger, d->uid, &cursor, &serial))
		ledger_release(d->ledger, d->uid, serial);
	return r;
}

void depots_take(struct depots *d, struct holder_table *t, struct record_message *m,
		 struct store_entry *entries, size_t n)
{
	struct taking taking = {.d = d, .table = t, .message = m};
	uint32_t serial;
	size_t cursor = 0;
	int r;

	if (!d->ledger || !ledger_next(d->ledger, d->uid, &cursor, &serial))
		return;
	for (size_t i = 0; i < n; i++) {
		if (entries[i].uid != d->uid)
			continue;
		taking.reason = NULL;
		taking.n_refused = 0;
		take_depot(&taking, entries[i].fd);
		tell_refused(&taking, entries[i].serial);
	}
	if (t->n > 0)
		log_notice(d->log, "uid %u: %zu parks come back from systemd's store", d->uid,
			   t->n);
	r = clear_store(d);
	if (r < 0)
		log_error(d->log,
			  "uid %u: its parks are here, and systemd may still have copies (%s), so "
			  "that "
			  "their peers see no end: systemctl restart readyd when systemd answers",
			  d->uid, strerror(-r));
	for (size_t i = 0; i < n; i++)
		if (entries[i].uid == d->uid)
			(void)close(steal_fd(&entries[i].fd));
}

/* ---- Storing ---- */

struct storing {
	struct depots *d;
	struct record_batch *batch;
	struct store store;
	uint32_t serials[STORE_MAX]; /* that were sent */
	size_t n_serials;
	size_t n_parks; /* stored */
	size_t n_full;  /* for which there was no entry left */
	size_t n_lost;  /* for another reason */
	int error;      /* this one */
	const struct holding *next;
};

/* Fills the batch with at most max parks from ->next on. Returns how many; *ret: the one behind. */
static unsigned fill(struct storing *s, unsigned max, const struct holding **ret)
{
	const struct holding *p = s->next;
	unsigned n = 0;

	record_batch_clear(s->batch);
	for (; p && n < max; p = TAILQ_NEXT(p, list), n++) {
		int fds[3];
		unsigned n_fds = holding_fds(p, fds);

		if (record_batch_add(s->batch, RECORD_HOLD, 0, &p->record, sizeof(p->record),
				     p->text, record_text_size(&p->record), fds, n_fds) < 0)
			break;
	}
	*ret = p;
	return n;
}

/* A depot of what is in the batch: its reading end, or a negative errno. */
static int make_depot(const struct record_batch *b)
{
	int size = 4 * RECORD_MESSAGE_MAX, ends[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
		return -errno;
	(void)setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	r = record_batch_send(b, ends[1]);
	(void)close(ends[1]);
	if (r == 0)
		return ends[0];
	(void)close(ends[0]);
	return r;
}

/* -ENOSPC: the store is full. -EPERM: this holder was replaced. */
static int put_depot(struct storing *s, int depot)
{
	struct depots *d = s->d;
	char name[STORE_NAME_SIZE];
	uint32_t serial;
	int r = ledger_claim(d->ledger, d->uid, &serial);

	if (r < 0)
		return r;
	store_name(d->uid, serial, name);
	r = ledger_in_office(d->ledger, d->uid, d->term) ? store_put(&s->store, name, depot)
							 : -EPERM;
	if (r < 0)
		ledger_release(d->ledger, d->uid, serial);
	else
		s->serials[s->n_serials++] = serial;
	return r;
}

static void lose(struct storing *s, unsigned n, int r)
{
	if (r == -ENOSPC) {
		s->n_full += n;
	} else {
		s->n_lost += n;
		s->error = r;
	}
}

/* One depot more. What does not go into one together is tried in smaller numbers: of all that is
 * parked, one fd may be such that it cannot be sent. Returns how many to try next; 0: no more. */
static unsigned store_some(struct storing *s, unsigned max)
{
	const struct holding *behind;
	unsigned n = fill(s, max, &behind);
	CLEANUP_FD int depot = n > 0 ? make_depot(s->batch) : -EINVAL;
	int r;

	if (depot < 0 && n > 1)
		return n / 2;
	r = depot < 0 ? depot : put_depot(s, depot);
	if (r == -EPERM)
		return 0;
	if (n == 0) { /* what the holder has fits into a message: it came in one */
		n = 1;
		behind = TAILQ_NEXT(s->next, list);
	}
	if (r < 0)
		lose(s, n, r);
	else
		s->n_parks += n;
	s->next = behind;
	return max < RECORD_FDS_MAX / 2 ? 2 * max : RECORD_FDS_MAX;
}

/* Another holder speaks for the uid by now: what this one has stored is old. */
static void take_back(struct storing *s)
{
	char name[STORE_NAME_SIZE];

	for (size_t i = 0; i < s->n_serials; i++) {
		store_name(s->d->uid, s->serials[i], name);
		if (store_remove(&s->store, name) == 0)
			ledger_release(s->d->ledger, s->d->uid, s->serials[i]);
	}
	(void)store_barrier(&s->store);
}

static void tell(const struct storing *s)
{
	const struct depots *d = s->d;

	if (s->n_full > 0)
		log_error(
			d->log,
			"uid %u: %zu of its parks are lost, systemd's store being full (%u "
			"entries): raise FileDescriptorStoreMax= and READYD_STORE_MAX= of the unit",
			d->uid, s->n_full, ledger_max(d->ledger));
	if (s->n_lost > 0)
		log_error(d->log,
			  "uid %u: %zu of its parks are lost, they cannot be given to systemd: %s",
			  d->uid, s->n_lost, strerror(-s->error));
	if (s->n_parks > 0)
		log_notice(d->log, "uid %u: systemd keeps %zu parks, in %zu entries", d->uid,
			   s->n_parks, s->n_serials);
}

static void store_all(struct storing *s, const struct holder_table *t)
{
	unsigned max = RECORD_FDS_MAX;
	int r;

	s->next = TAILQ_FIRST(&t->parks);
	while (s->next && max > 0)
		max = store_some(s, max);
	/* PID 1 asks the kernel which unit the sender belongs to: it has to be there until then */
	r = store_barrier(&s->store);
	if (r < 0)
		log_error(
			s->d->log,
			"uid %u: systemd does not say that it has the parks (%s): some may be lost",
			s->d->uid, strerror(-r));
	if (ledger_in_office(s->d->ledger, s->d->uid, s->d->term))
		tell(s);
	else
		take_back(s);
}

void depots_store(struct depots *d, const struct holder_table *t, struct record_batch *b)
{
	struct storing *s;
	int r = -ENOMEM;

	if (!d->ledger || t->n == 0 || !ledger_in_office(d->ledger, d->uid, d->term))
		return;
	s = calloc(1, sizeof(*s));
	if (s) {
		s->d = d;
		s->batch = b;
		r = open_store(d, &s->store, PATIENCE_AT_END);
	}
	if (r == 0) {
		store_all(s, t);
		store_close(&s->store);
	} else {
		log_error(d->log, "uid %u: its %zu parks are lost, no socket to systemd: %s",
			  d->uid, t->n, strerror(-r));
	}
	free(s);
}
