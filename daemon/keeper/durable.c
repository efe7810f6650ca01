/* SPDX-License-Identifier: MIT */
#include "durable_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/edge/step.h"
#include "daemon/util/cleanup.h"
#include "daemon/util/clock.h"
#include "protocol/wire.h"

/*
 * A cycle: what has changed is written into new depots, together with what else is in the depots
 * that it is in now, and in the one that is not full; these go to PID 1, and a barrier; when that is
 * read, the changes are stored. Then the former depots are removed, and a second barrier tells that
 * what was dropped is gone from the store. What comes meanwhile is the next cycle's: so a busy
 * holder stores many parks at once, and an idle one a single park at once. In between, a park is in
 * two depots, and the newer record counts (depot.c).
 *
 * What has to be stored before somebody may know of it the loop asks for: new parks, hand-outs and
 * ends. Other changes wait a little for the next cycle (`lazy`): without them a park comes back as it
 * was a moment before, unanswered or still handed out, and whoever that concerns repeats its word.
 *
 * Invariants: a park is a member of one depot at most, the one with its newest record; each depot is
 * in one list; the record of each depot is in the ledger from before it is sent until after it was
 * removed. What has left the table stays as a memory of its token in the depot that has it (`dead`)
 * until that is removed.
 *
 * PID 1 may be slow, and then nothing is given up: its queue is in order, so what was sent is done
 * some time. But after GIVE_UP the loop is told that it is lost what is not confirmed; new parks are
 * dropped then, and a park that was handed out is taken back. Ends of parks wait for as long as it
 * takes: a copy that is still stored could come back.
 *
 * Entries are few: so many are left free (RESERVE) that depots can be written anew. What cannot be
 * sent for a while (too many fds under way) is tried again; a park that cannot be sent at all by
 * itself is lost for the store, and told.
 *
 * What a holder before this one has stored stays until all parks are told to this one and stored
 * again (SETTLE). A holder that is not in office any more stores nothing, and takes back what it has
 * just stored.
 */

#define MILLISECOND INT64_C(1000000)
#define LAZY (100 * MILLISECOND)
#define LATER (8000 * MILLISECOND) /* that is tried again which could not be stored */
#define SETTLE_GIVE_UP (30000 * MILLISECOND)

bool durable_in_office(const struct durable *d)
{
	return ledger_in_office(d->ledger, d->uid, d->term);
}

/* ---- Lists of parks ---- */

void durable_unqueue(struct holding *h)
{
	if (h->stored.queue)
		TAILQ_REMOVE(h->stored.queue, h, stored.queued);
	h->stored.queue = NULL;
}

void durable_queue(struct holding *h, struct holding_list *list)
{
	durable_unqueue(h);
	h->stored.queue = list;
	TAILQ_INSERT_TAIL(list, h, stored.queued);
}

static void forget_answer(struct durable *d, struct holding *h)
{
	if (h->stored.answering)
		TAILQ_REMOVE(&d->answers, h, stored.answer);
	h->stored.answering = false;
}

/* It has left the table and nothing else has it. */
void durable_free_if_unused(struct holding *h)
{
	if (h->stored.gone && !h->stored.depot && !h->stored.answering)
		free(h);
}

/* The loop is told of what it waits for, or that this is lost. */
void durable_tell(struct durable *d, struct holding *h, uint64_t serial, bool lost)
{
	forget_answer(d, h);
	h->stored.asked = 0;
	h->stored.told = serial;
	h->stored.lost = lost;
	h->stored.answering = true;
	TAILQ_INSERT_TAIL(&d->answers, h, stored.answer);
}

void durable_leave_depot(struct holding *h)
{
	struct depot *depot = h->stored.depot;

	if (!depot)
		return;
	TAILQ_REMOVE(h->stored.gone ? &depot->dead : &depot->members, h, stored.member);
	depot->n -= !h->stored.gone;
	h->stored.depot = NULL;
}

/* The table's hook. */
static void leaves(void *context, struct holding *h)
{
	struct durable *d = context;
	struct depot *depot = h->stored.depot;

	durable_unqueue(h);
	if (!h->stored.lost)
		forget_answer(d, h);
	durable_leave_depot(h);
	h->stored.gone = true;
	if (depot) {
		depot->stale = true;
		h->stored.depot = depot;
		TAILQ_INSERT_TAIL(&depot->dead, h, stored.member);
	} else {
		if (h->stored.asked != 0)
			durable_tell(d, h, h->stored.asked, false);
		holder_table_close_fds(d->table, h);
	}
	durable_free_if_unused(h);
}

/* ---- Making and ending ---- */

void durable_init(struct durable *d)
{
	d->store.fd = -1;
	d->barrier = -1;
	TAILQ_INIT(&d->stored);
	TAILQ_INIT(&d->fresh);
	TAILQ_INIT(&d->old);
	TAILQ_INIT(&d->spent);
	TAILQ_INIT(&d->pending);
	TAILQ_INIT(&d->lazy);
	TAILQ_INIT(&d->answers);
	d->table->leaves = leaves;
	d->table->context = d;
}

/* What it remembers of the dead goes; what it has alive is some new depot's, or none's. */
void durable_free_depot(struct durable *d, struct depot *depot)
{
	struct holding *h;

	/* not its queue has the last copies of what lingers, but they, and the closer takes care */
	(void)close(depot->fd);
	while ((h = TAILQ_FIRST(&depot->dead))) {
		durable_leave_depot(h);
		holder_table_close_fds(d->table, h);
		durable_free_if_unused(h);
	}
	while ((h = TAILQ_FIRST(&depot->members)))
		durable_leave_depot(h);
	free(depot);
}

static void free_depots(struct durable *d, struct depot_list *list)
{
	struct depot *depot;

	while ((depot = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, depot, list);
		durable_free_depot(d, depot);
	}
}

void durable_close(struct durable *d)
{
	free_depots(d, &d->spent);
}

void durable_clear(struct durable *d)
{
	durable_orphan(d);
	free_depots(d, &d->stored);
	free_depots(d, &d->fresh);
	free_depots(d, &d->old);
	free_depots(d, &d->spent);
	store_close(&d->store);
	if (d->barrier >= 0)
		(void)close(steal_fd(&d->barrier));
	log_site_end(d->log, &d->lost, CONFIG_LOG_ERROR, "parks that could not be stored");
	d->table->leaves = NULL;
}

struct depot *durable_new_depot(struct depot_list *list, uint32_t serial, int fd)
{
	struct depot *depot = calloc(1, sizeof(*depot));

	if (!depot)
		return NULL;
	depot->serial = serial;
	depot->fd = fd;
	TAILQ_INIT(&depot->members);
	TAILQ_INIT(&depot->dead);
	TAILQ_INSERT_TAIL(list, depot, list);
	return depot;
}

struct depot *durable_adopt(struct durable *d, uint32_t serial, int fd)
{
	return durable_new_depot(&d->stored, serial, fd);
}

void durable_move_to(struct depot *depot, struct holding *h)
{
	durable_leave_depot(h);
	h->stored.depot = depot;
	h->stored.written = h->record.serial;
	TAILQ_INSERT_TAIL(&depot->members, h, stored.member);
	depot->n++;
}

void durable_join(struct depot *depot, struct holding *h)
{
	durable_move_to(depot, h);
	h->stored.safe = true;
}

/* ---- What is lost ---- */

bool durable_lose(struct durable *d, struct holding *h, const char *reason)
{
	bool new = !h->stored.safe && !h->record.answered;
	struct record_drop drop = {.serial = h->record.serial};

	if (h->stored.asked != 0 || !h->stored.depot)
		log_limited(d->log, &d->lost, clock_now(), CONFIG_LOG_ERROR,
			    "park %llu of uid %u cannot be kept by systemd%s: %s",
			    (unsigned long long)h->record.number, d->uid,
			    new ? ", and is refused"
				: ", and does not survive the service as it is now",
			    reason);
	if (h->stored.asked != 0)
		durable_tell(d, h, h->stored.asked, true);
	if (!new) {
		durable_queue(h, &d->lazy);
		d->lazy_until = clock_now() + LATER;
		return true;
	}
	/* its maker has it still, and hears of it */
	memcpy(drop.token, h->record.token, sizeof(drop.token));
	(void)holder_table_drop(d->table, &drop);
	return false;
}

/* All that the loop waits for, but for the ends of parks. */
void durable_lose_all(struct durable *d, const char *reason)
{
	struct holding *h, *next;
	struct depot *depot;

	for (h = TAILQ_FIRST(&d->pending); h; h = next) {
		next = TAILQ_NEXT(h, stored.queued);
		(void)durable_lose(d, h, reason);
	}
	TAILQ_FOREACH(depot, &d->fresh, list)
	{
		for (h = TAILQ_FIRST(&depot->members); h; h = next) {
			next = TAILQ_NEXT(h, stored.member);
			if (h->stored.asked != 0)
				(void)durable_lose(d, h, reason);
		}
	}
}

/* ---- What the loop says ---- */

void durable_note(struct durable *d, struct holding *h, uint32_t place)
{
	if (!(h->record.flags & WIRE_PARK_DURABLE))
		return;
	if (place != 0) {
		h->stored.asked = h->record.serial;
		h->stored.place = place;
	}
	if (!d->ledger) {
		if (place != 0)
			(void)durable_lose(d, h, "there is no store");
		return;
	}
	if (place != 0 || !h->stored.depot) {
		durable_queue(h, &d->pending);
	} else if (h->stored.queue != &d->pending) {
		if (TAILQ_EMPTY(&d->lazy))
			d->lazy_until = clock_now() + LAZY;
		durable_queue(h, &d->lazy);
	}
}

/* What is to go from the store of a park that has been lost, or NULL. */
static struct holding *find_dead(struct durable *d, const uint8_t *token)
{
	const struct depot_list *lists[] = {&d->stored, &d->fresh, &d->old};
	struct depot *depot;
	struct holding *h;

	for (size_t i = 0; i < 3; i++)
		TAILQ_FOREACH(depot, lists[i], list)
		{
			TAILQ_FOREACH(h, &depot->dead, stored.member)
			{
				if (memcmp(h->record.token, token, sizeof(h->record.token)) == 0)
					return h;
			}
		}
	return NULL;
}

int durable_note_drop(struct durable *d, struct holding *h, const struct record_drop *drop,
		      uint32_t place)
{
	if (place == 0)
		return 0;
	if (!h)
		h = find_dead(d, drop->token);
	if (h) {
		h->stored.asked = drop->serial;
		h->stored.place = place;
		return 0;
	}
	h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	memcpy(h->record.token, drop->token, sizeof(h->record.token));
	h->stored.place = place;
	h->stored.gone = true;
	durable_tell(d, h, drop->serial, false);
	return 0;
}

void durable_settle(struct durable *d, uint32_t number)
{
	d->settle = true;
	d->settled = false;
	d->number = number;
	d->settle_until = clock_now() + SETTLE_GIVE_UP;
}

static void unask(struct depot_list *depots)
{
	struct depot *depot;
	struct holding *h;

	TAILQ_FOREACH(depot, depots, list)
	{
		TAILQ_FOREACH(h, &depot->members, stored.member)
		h->stored.asked = 0;
		TAILQ_FOREACH(h, &depot->dead, stored.member)
		h->stored.asked = 0;
	}
}

void durable_orphan(struct durable *d)
{
	struct holding *h;

	while ((h = TAILQ_FIRST(&d->answers))) {
		forget_answer(d, h);
		durable_free_if_unused(h);
	}
	TAILQ_FOREACH(h, &d->pending, stored.queued)
	h->stored.asked = 0;
	unask(&d->stored);
	unask(&d->fresh);
	unask(&d->old);
	d->settle = d->settled = false;
}

bool durable_has_stale(const struct durable *d)
{
	const struct depot *depot;

	TAILQ_FOREACH(depot, &d->stored, list)
	{
		if (depot->stale)
			return true;
	}
	return false;
}

bool durable_is_under_way(const struct durable *d)
{
	return d->state != DURABLE_IDLE;
}

bool durable_is_quiet(const struct durable *d)
{
	return d->state == DURABLE_IDLE && TAILQ_EMPTY(&d->pending) && !durable_has_stale(d);
}

/* ---- Answers ---- */

bool durable_has_answers(const struct durable *d)
{
	return d->settled || !TAILQ_EMPTY(&d->answers);
}

/* How many of the answers are in the batch. */
static size_t fill_answers(struct durable *d)
{
	const struct holding *h;
	size_t n = 0;

	record_batch_clear(d->batch);
	TAILQ_FOREACH(h, &d->answers, stored.answer)
	{
		struct record_drop drop = {.serial = h->stored.told};

		memcpy(drop.token, h->record.token, sizeof(drop.token));
		if (record_batch_add(d->batch, h->stored.lost ? RECORD_LOST : RECORD_STORED,
				     h->stored.place, &drop, sizeof(drop), NULL, 0, NULL, 0) < 0)
			break;
		n++;
	}
	return n;
}

int durable_answer(struct durable *d, int socket)
{
	struct holding *h;
	int r = 0;

	while (r == 0 && !TAILQ_EMPTY(&d->answers)) {
		size_t n = fill_answers(d);

		holder_step();
		r = record_batch_send(d->batch, socket);
		holder_step();
		while (r == 0 && n-- > 0) {
			h = TAILQ_FIRST(&d->answers);
			forget_answer(d, h);
			durable_free_if_unused(h);
		}
	}
	if (r < 0 || !d->settled)
		return r;
	record_batch_clear(d->batch);
	(void)record_batch_add(d->batch, RECORD_SETTLED, d->number, NULL, 0, NULL, 0, NULL, 0);
	r = record_batch_send(d->batch, socket);
	d->settled = r < 0;
	return r;
}
