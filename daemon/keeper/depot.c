/* SPDX-License-Identifier: MIT */
#include "depot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"
#include "daemon/util/clock.h"
#include "daemon/util/plural.h"
#include "protocol/wire.h"

/*
 * Storing. PID 1 compares each new fd with all that it has, so entries are few and large: as many
 * parks as go into a message. Only the reading end is stored, and the other one is closed: nobody
 * can add anything.
 *
 * Taking. A depot is looked at (MSG_PEEK makes copies of its fds) and stays as it is until it is out
 * of the store: until then its parks would come back, should everything be killed. And its last
 * close is ours, never PID 1's, since what lies in it closes with it and may make its closer wait.
 * Depots with nothing but durable parks stay in the store. The others go, the durable ones in them
 * being stored anew, and only then does the holder serve: nothing is handed out of which a copy is
 * stored that should not be.
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

/* ---- Taking ---- */

struct taking {
	struct durable *d;
	struct record_message *message;
	struct depot *depot;
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
	struct holding *h;
	int r;

	if (op->type != RECORD_HOLD) {
		complain(t, "it is no park");
		return;
	}
	if (op->record->uid != t->d->uid) {
		complain(t, "it is another user's");
		return;
	}
	r = holder_table_hold(t->d->table, op, t->message->fds + op->first_fd);
	if (r < 0 && r != -ESTALE) /* the newer of two is there */
		complain(t, strerror(-r));
	h = r < 0 ? NULL : holder_table_find(t->d->table, op->record->token);
	if (h && (h->record.flags & WIRE_PARK_DURABLE))
		durable_join(t->depot, h);
	else
		t->depot->stale = true;
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

/* They can only go together, so that neither may stay. */
static bool shares_its_name(const struct durable *d, const struct depot *depot)
{
	bool shares = false;
	struct depot *other;

	TAILQ_FOREACH(other, &d->stored, list)
	{
		if (other == depot || other->serial != depot->serial)
			continue;
		other->stale = true;
		shares = true;
	}
	return shares;
}

static void take_entry(struct taking *t, struct store_entry *e)
{
	t->reason = NULL;
	t->n_refused = 0;
	t->depot = durable_adopt(t->d, e->serial, e->fd);
	if (!t->depot) {
		log_error(t->d->log, "uid %u: an entry of systemd's store is left there: %s",
			  t->d->uid, strerror(ENOMEM));
		(void)close(steal_fd(&e->fd));
		return;
	}
	take_depot(t, steal_fd(&e->fd));
	t->depot->full = t->depot->n > RECORD_FDS_MAX / 2;
	t->depot->stale |= t->n_refused > 0 || t->depot->n == 0;
	t->depot->stale |= shares_its_name(t->d, t->depot);
	tell_refused(t, e->serial);
}

void depots_take(struct durable *d, struct record_message *m, struct store_entry *entries, size_t n)
{
	struct taking taking = {.d = d, .message = m};
	int r;

	if (!d->ledger)
		return;
	for (size_t i = 0; i < n; i++)
		if (entries[i].uid == d->uid)
			take_entry(&taking, &entries[i]);
	if (d->table->n > 0)
		log_notice(d->log, "uid %u: %zu %s back from systemd's store", d->uid, d->table->n,
			   plural(d->table->n, "park comes", "parks come"));
	r = durable_finish(d, clock_now() + PATIENCE_AT_START);
	durable_close(d);
	if (r < 0)
		log_error(d->log,
			  "uid %u: its parks are here, and systemd may still have copies (%s), so "
			  "that their peers see no end, until it answers",
			  d->uid, strerror(-r));
}

/* ---- Storing ---- */

struct storing {
	struct durable *d;
	struct store store;
	uint32_t serials[STORE_MAX]; /* that were sent */
	size_t n_serials;
	size_t n_parks; /* stored */
	size_t n_full;  /* for which there was no entry left */
	size_t n_lost;  /* for another reason */
	int error;      /* this one */
	const struct holding *next;
};

int depot_add(struct record_batch *b, const struct holding *h)
{
	int fds[3];
	unsigned n = holding_fds(h, fds);

	return record_batch_add(b, RECORD_HOLD, 0, &h->record, sizeof(h->record), h->text,
				record_text_size(&h->record), fds, n);
}

int depot_make(const struct record_batch *b)
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

/* The next one that is not durable. */
static const struct holding *not_stored(const struct holding *h)
{
	while (h && (h->record.flags & WIRE_PARK_DURABLE))
		h = TAILQ_NEXT(h, list);
	return h;
}

static const struct holding *behind(const struct holding *h)
{
	return not_stored(TAILQ_NEXT(h, list));
}

static size_t count_from(const struct holding *h)
{
	size_t n = 0;

	for (; h; h = behind(h))
		n++;
	return n;
}

/* Fills the batch with at most max parks from ->next on. Returns how many; *ret: the one behind. */
static unsigned fill(struct storing *s, unsigned max, const struct holding **ret)
{
	const struct holding *p = s->next;
	unsigned n = 0;

	record_batch_clear(s->d->batch);
	for (; p && n < max; p = behind(p), n++)
		if (depot_add(s->d->batch, p) < 0)
			break;
	*ret = p;
	return n;
}

/* -ENOSPC: the store is full. -EPERM: this holder was replaced. */
static int put_depot(struct storing *s, int depot)
{
	struct durable *d = s->d;
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
	const struct holding *next;
	unsigned n = fill(s, max, &next);
	CLEANUP_FD int depot = n > 0 ? depot_make(s->d->batch) : -EINVAL;
	int r;

	if (depot < 0 && n > 1)
		return n / 2;
	r = depot < 0 ? depot : put_depot(s, depot);
	if (r == -EPERM)
		return 0;
	if (n == 0) { /* what the holder has fits into a message: it came in one */
		n = 1;
		next = behind(s->next);
	}
	if (r < 0)
		lose(s, n, r);
	else
		s->n_parks += n;
	s->next = next;
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
	const struct durable *d = s->d;

	if (s->n_full > 0)
		log_error(
			d->log,
			"uid %u: %zu of its parks %s lost, systemd's store being full (%u "
			"entries): raise FileDescriptorStoreMax= and READYD_STORE_MAX= of the unit",
			d->uid, s->n_full, plural(s->n_full, "is", "are"), ledger_max(d->ledger));
	if (s->n_lost > 0)
		log_error(d->log,
			  "uid %u: %zu of its parks %s lost, and cannot be given to systemd: %s",
			  d->uid, s->n_lost, plural(s->n_lost, "is", "are"), strerror(-s->error));
	if (s->n_parks > 0)
		log_notice(d->log, "uid %u: systemd keeps %zu %s, in %zu %s", d->uid, s->n_parks,
			   plural(s->n_parks, "park", "parks"), s->n_serials,
			   plural(s->n_serials, "entry", "entries"));
}

static void store_all(struct storing *s)
{
	unsigned max = RECORD_FDS_MAX;
	int r;

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

/* What is durable is there, or will be in a moment. */
static void store_durable(struct durable *d, int64_t until)
{
	size_t n = 0;
	const struct depot *depot;
	int r = durable_finish(d, until);

	TAILQ_FOREACH(depot, &d->stored, list)
	n += depot->n;
	if (r < 0)
		log_error(d->log,
			  "uid %u: systemd does not say that it has the durable parks (%s): some "
			  "may be lost, or come back as they were before",
			  d->uid, strerror(-r));
	else if (n > 0)
		log_notice(d->log, "uid %u: systemd keeps %zu durable %s", d->uid, n,
			   plural(n, "park", "parks"));
}

static void store_others(struct durable *d, int64_t until)
{
	const struct holding *first = not_stored(TAILQ_FIRST(&d->table->parks));
	struct storing *s;
	int r = -ENOMEM;

	if (!first)
		return;
	s = calloc(1, sizeof(*s));
	if (s) {
		s->d = d;
		s->next = first;
		s->store = (struct store){.waiting = d->waiting, .context = d->context};
		r = store_open(&s->store, until);
	}
	if (r == 0) {
		store_all(s);
		store_close(&s->store);
	} else {
		size_t n = count_from(first);

		log_error(d->log, "uid %u: its %zu %s lost, no socket to systemd: %s", d->uid, n,
			  plural(n, "park is", "parks are"), strerror(-r));
	}
	free(s);
}

void depots_store(struct durable *d)
{
	int64_t until = clock_now() + PATIENCE_AT_END;

	if (!d->ledger)
		return;
	if (!ledger_in_office(d->ledger, d->uid, d->term)) {
		durable_resign(d, until);
		return;
	}
	/* first, since what is under way for the durable ones may take time */
	store_others(d, until);
	store_durable(d, until);
}
