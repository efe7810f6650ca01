/* SPDX-License-Identifier: MIT */
#include "holder.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "closer.h"
#include "daemon/edge/record.h"
#include "daemon/edge/step.h"
#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"
#include "daemon/util/clock.h"
#include "depot.h"
#include "holder_table.h"

/*
 * It owns the fds of its table, and one end of a socket pair. The keeper has the other end, too, so
 * what a loop sent stays in the queue when that loop dies, and the end of the socket is the end of
 * the whole daemon.
 *
 * It waits in one ppoll(2), and, where nothing is being stored, without a time: an idle holder makes
 * no system call. A close or shutdown may block for as long as a client likes, with everything that
 * comes later waiting behind it: that is what this process is for. The loop, whose queue gets full
 * then, leaves it alone and has another one made. Only a socket that lingers, which an honest client
 * may have, too, is closed by a child (closer.h): else a loop that dies meanwhile would take this
 * uid's parks with it.
 *
 * Giving back. The loop may be sending while parks are given back, so this process never waits for
 * room: when its queue is full it waits for that and for what comes in, and a park that is
 * changed or dropped meanwhile is given as it is then, or not. Nothing is prepared that could be
 * wrong a moment later: a batch is made again from the table if it could not be sent. A new request
 * to give back comes from a new loop: it begins anew, and what the former loop had said CLOSE of,
 * for which nobody will say GO, is closed when all is given.
 *
 * Some fds cannot be sent for a while, or ever (ETOOMANYREFS: a socket in whose queue there are
 * sockets; too many under way). So they are tried one by one, and what fails for seconds while the
 * loop has read everything else stays behind, with a line in the log.
 *
 * What is durable it gives to systemd as it comes (durable.h), without waiting; it does not give back
 * before what an earlier loop has waited for is stored. Whoever waits for PID 1 shows life meanwhile.
 *
 * SIGTERM ends it, after it has read what was sent before. The signal is let in while it works, so
 * that it cuts a lingering close short, and is blocked only between the look at the flag and the
 * ppoll, which lets it in again. From then on it closes nothing by itself: the kernel does when the
 * process exits, and lets no socket linger then. A signal that comes between that look and a close
 * would have to come again: the keeper repeats it.
 *
 * At its end it stores its parks (depot.h), whatever loop and keeper are doing: at SIGTERM, and when
 * both are dead. From then on the loop must not believe that it is heard: shutdown(2) refuses what
 * it sends later, so that it tells nobody outside of it, and what it sent before is in the queue.
 */

#define MILLISECOND INT64_C(1000000)
#define SIGN_OF_LIFE (500 * MILLISECOND)
#define PUT_OFF_MAX (9000 * MILLISECOND)

enum {
	MESSAGES_A_TURN = 64,
	LAST_MESSAGES = 4096, /* that are read at the end: a sender might not stop */
	AGAIN_MS = 20,        /* nothing tells when the kernel has room again */
	FAILURES_MAX = 5000 / AGAIN_MS,
};

struct holder {
	uint32_t uid;
	int socket;
	struct log *log;
	const volatile sig_atomic_t *stop;
	struct holder_table table;
	struct closer closer;
	bool ended;
	int status;
	/* giving back */
	bool giving;
	uint32_t epoch;
	bool asked; /* for it, by a loop; it is put off until that time, ns */
	int64_t put_off;
	unsigned failures; /* in a row, to send what is next */
	struct log_site damaged, stale, lost;
	struct durable durable;
	struct record_batch batch;
	struct record_message message;
};

/* ---- Being told ---- */

static void tell_result(struct holder *h, const struct record_op *op, int r)
{
	switch (r) {
	case 0:
		return;
	case -ENOMEM:
		log_limited(h->log, &h->lost, clock_now(), CONFIG_LOG_ERROR,
			    "the holder of uid %u is out of memory: a park of it does not "
			    "survive the loop",
			    h->uid);
		if (op->value != 0) { /* the loop would wait for ever: another one may do better */
			h->ended = true;
			h->status = 1;
		}
		return;
	case -ENOENT:
		if (op->type == RECORD_DROP) /* it may have been dropped before */
			return;
		__attribute__((fallthrough));
	default:
		log_limited(h->log, &h->stale, clock_now(), CONFIG_LOG_WARNING,
			    "the holder of uid %u was told something about a park that does not "
			    "fit what it has (%s): ignored",
			    h->uid, strerrorname_np(-r));
		return;
	}
}

/* A new loop. What is durable is to be in the store, or out of it, before anybody hears of it. */
static void note_request(struct holder *h, uint32_t epoch)
{
	durable_orphan(&h->durable);
	h->giving = false;
	h->asked = true;
	h->put_off = clock_now() + PUT_OFF_MAX;
	h->epoch = epoch;
	holder_table_orphan(&h->table);
}

static void begin_to_give(struct holder *h)
{
	h->asked = false;
	h->giving = true;
	h->failures = 0;
	h->table.given = TAILQ_FIRST(&h->table.parks);
}

/* HOLD and CHANGE. */
static int take_record(struct holder *h, const struct record_op *op, int *fds)
{
	int r;

	if (op->record->uid != h->uid)
		return -EPERM;
	r = op->type == RECORD_HOLD ? holder_table_hold(&h->table, op, fds)
				    : holder_table_change(&h->table, op, fds);
	if (r == 0)
		durable_note(&h->durable, holder_table_find(&h->table, op->record->token),
			     op->value);
	return r;
}

static int drop(struct holder *h, const struct record_op *op)
{
	struct holding *p = holder_table_find(&h->table, op->drop->token);
	int r = durable_note_drop(&h->durable, p, op->drop, op->value);

	return r < 0 ? r : holder_table_drop(&h->table, op->drop);
}

static int execute(struct holder *h, const struct record_op *op, int *fds)
{
	holder_step();
	switch (op->type) {
	case RECORD_HOLD:
	case RECORD_CHANGE:
		return take_record(h, op, fds);
	case RECORD_DROP:
		return drop(h, op);
	case RECORD_CLOSE:
		return holder_table_keep(&h->table, op->value, fds, op->n_fds);
	case RECORD_GO:
		holder_table_close(&h->table, op->value);
		return 0;
	case RECORD_GIVE_BACK:
		note_request(h, op->value);
		return 0;
	case RECORD_SETTLE:
		durable_settle(&h->durable, op->value);
		return 0;
	default:
		return -EINVAL; /* that is for a loop to hear */
	}
}

static void obey_message(struct holder *h)
{
	struct record_message *m = &h->message;
	const char *reason = NULL;
	struct record_op op;
	int r;

	while ((r = record_message_next(m, &op, &reason)) != 0)
		if (r > 0)
			tell_result(h, &op, execute(h, &op, m->fds + op.first_fd));
		else
			log_limited(h->log, &h->damaged, clock_now(), CONFIG_LOG_ERROR,
				    "the holder of uid %u cannot read what it was sent: %s: "
				    "skipped, its descriptors are closed",
				    h->uid, reason);
	record_message_clear(m);
}

/* Reads at most so many messages. */
static void hear(struct holder *h, unsigned max)
{
	for (unsigned i = 0; i < max && !h->ended; i++) {
		int r = record_message_receive(&h->message, h->socket, MSG_DONTWAIT);

		if (r == -EAGAIN)
			return;
		if (r > 0) {
			obey_message(h);
		} else if (r == -ENOMEM || r == -ENOBUFS) {
			(void)poll(NULL, 0, AGAIN_MS);
		} else {
			h->ended = true;
			h->status = r < 0;
			if (r < 0)
				log_error(h->log,
					  "the holder of uid %u ends: it cannot receive any more "
					  "(%s)",
					  h->uid, strerror(-r));
		}
	}
}

/* ---- Giving back ---- */

/* Fills the batch; returns the park that is the next one after it. */
static struct holding *fill(struct holder *h, bool *ret_last)
{
	unsigned max = h->failures > 0 ? 1 : RECORD_FDS_MAX, n = 0;
	struct holding *p = h->table.given;
	int r = 0;

	record_batch_clear(&h->batch);
	for (; p && n < max; p = TAILQ_NEXT(p, list), n++) {
		int fds[3];
		unsigned n_fds = holding_fds(p, fds);

		r = record_batch_add(&h->batch, RECORD_HOLD, h->epoch, &p->record,
				     sizeof(p->record), p->text, record_text_size(&p->record), fds,
				     n_fds);
		if (r < 0)
			break;
	}
	if (!p && r == 0)
		r = record_batch_add(&h->batch, RECORD_END, h->epoch, NULL, 0, NULL, 0, NULL, 0);
	*ret_last = !p && r == 0;
	return p;
}

/* What is next cannot be sent now. While the loop has not read the former ones, it is not to blame. */
static void note_failure(struct holder *h, int r)
{
	int unread = 0;

	(void)ioctl(h->socket, SIOCOUTQ, &unread);
	h->failures += h->failures == 0 || unread == 0;
	if (h->failures < FAILURES_MAX || !h->table.given)
		return;
	log_limited(h->log, &h->lost, clock_now(), CONFIG_LOG_ERROR,
		    "the holder of uid %u cannot give park %llu back to the loop (%s): it stays "
		    "here, and nobody can take it. If it is a Unix socket, too many others are "
		    "in its queue",
		    h->uid, (unsigned long long)h->table.given->record.number, strerror(-r));
	h->table.given = TAILQ_NEXT(h->table.given, list);
	h->failures = 0;
}

static void give(struct holder *h)
{
	bool last;
	struct holding *next = fill(h, &last);
	int r = record_batch_send(&h->batch, h->socket);

	if (r == -EAGAIN)
		return;
	if (r < 0) {
		note_failure(h, r);
		return;
	}
	h->failures = 0;
	h->table.given = next;
	/* the loop was woken on this core, and others may be idle: it, and not this one, has a hurry */
	(void)sched_yield();
	h->giving = !last;
	if (last)
		holder_table_close_orphans(&h->table);
}

/* ---- The process ---- */

/* Of its parent's fds it needs these, which are lasting ones, or standard error. */
static void close_others(int *needed, size_t n)
{
	closer_keep_only(FD_LASTING, needed, n);
	fd_zone_unplug(); /* what stood there before it was plugged goes, too */
	(void)fd_zone_plug();
}

/* A child of the closer has ended: what is waited in is left. */
static void wake(int number)
{
	(void)number;
}

static void set_signals(void)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	struct sigaction child = {.sa_handler = wake, .sa_flags = SA_NOCLDSTOP | SA_RESTART};
	sigset_t none;

	/* ^C goes to all of a terminal's processes, and SIGHUP and SIGUSR2 of a careless command to
	 * all of that name; what they mean is the keeper's to say */
	(void)sigaction(SIGINT, &ignore, NULL);
	(void)sigaction(SIGHUP, &ignore, NULL);
	(void)sigaction(SIGUSR2, &ignore, NULL);
	(void)sigaction(SIGCHLD, &child, NULL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* PID 1 is waited for: the loop is not to think that this process is stuck. Its own epochs are odd. */
static void show_life(void *context)
{
	struct holder *h = context;

	record_batch_clear(&h->batch);
	(void)record_batch_add(&h->batch, RECORD_END, 0, NULL, 0, NULL, 0, NULL, 0);
	(void)record_batch_send(&h->batch, h->socket);
}

/* The loop waits for it, while it waits for PID 1. */
static bool may_look_stuck(const struct holder *h)
{
	return h->asked || durable_is_under_way(&h->durable);
}

/* Until when to wait, ns; and for what besides the socket, at most two. */
static int64_t next_time(const struct holder *h, struct pollfd *polled, unsigned *ret_n)
{
	int64_t now = clock_now(), next;

	*ret_n = durable_wait(&h->durable, polled, &next);
	if (h->giving && h->failures > 0 && now + AGAIN_MS * MILLISECOND < next)
		next = now + AGAIN_MS * MILLISECOND;
	if (h->asked && h->put_off < next)
		next = h->put_off;
	if (may_look_stuck(h) && now + SIGN_OF_LIFE < next)
		next = now + SIGN_OF_LIFE;
	return next;
}

/* Until there is something to do. */
static void wait_for_work(struct holder *h)
{
	struct pollfd polled[3] = {{.fd = h->socket, .events = POLLIN}};
	struct timespec timeout;
	sigset_t heeded, before;
	unsigned n;
	int64_t next = next_time(h, polled + 1, &n);
	int r = 1;

	if ((h->giving && h->failures == 0) || durable_has_answers(&h->durable))
		polled[0].events |= POLLOUT;
	timeout = clock_span(next - clock_now());
	(void)sigemptyset(&heeded);
	(void)sigaddset(&heeded, SIGTERM);
	(void)sigaddset(&heeded, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &heeded, &before);
	closer_reap(&h->closer);
	if (!*h->stop)
		r = ppoll(polled, n + 1, next == INT64_MAX ? NULL : &timeout, &before);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	if (r == 0 && may_look_stuck(h))
		show_life(h);
}

static void end(struct holder *h)
{
	h->table.exiting = true;
	if (!h->ended) {
		if (h->durable.ledger)
			(void)shutdown(h->socket, SHUT_RD);
		hear(h, LAST_MESSAGES);
	}
	h->durable.waiting = NULL;
	if (h->status == 0)
		depots_store(&h->durable);
}

/* What was heard is in order; what blocks comes last. */
static void work(struct holder *h)
{
	durable_run(&h->durable);
	(void)durable_answer(&h->durable, h->socket);
	if (h->asked && (durable_is_quiet(&h->durable) || clock_now() >= h->put_off))
		begin_to_give(h);
	if (h->giving)
		give(h);
	durable_close(&h->durable);
}

static void serve(struct holder *h)
{
	while (!h->ended) {
		closer_flush(&h->closer);
		wait_for_work(h);
		if (*h->stop)
			break;
		hear(h, MESSAGES_A_TURN);
		if (!h->ended)
			work(h);
	}
	end(h);
}

int holder_close(int socket, int go, const struct log *log)
{
	struct pollfd polled = {.fd = go};

	set_signals();
	(void)prctl(PR_SET_NAME, "readyd-holder");
	close_others((int[]){go, socket, log->fd}, 3);
	while (poll(&polled, 1, -1) < 0)
		;
	return 0;
}

/* It keeps its socket, the log, and the depots of its uid. */
static int close_what_is_not_needed(const struct holder_options *options)
{
	CLEANUP_MEMORY int *needed = calloc(options->n_depots + 1 + LOG_FDS_MAX, sizeof(*needed));
	size_t n = 0;

	if (!needed)
		return -ENOMEM;
	needed[n++] = options->socket;
	n += log_get_fds(options->log, needed + n);
	for (size_t i = 0; i < options->n_depots; i++)
		if (options->depots[i].uid == options->uid)
			needed[n++] = options->depots[i].fd;
	close_others(needed, n);
	return 0;
}

int holder_run(const struct holder_options *options)
{
	struct holder *h;
	int status;

	assert(options->socket >= FD_LASTING);
	set_signals();
	(void)prctl(PR_SET_NAME, "readyd-holder");
	h = calloc(1, sizeof(*h));
	if (!h || close_what_is_not_needed(options) < 0) {
		log_error(options->log, "the holder of uid %u cannot start: %s", options->uid,
			  strerror(ENOMEM));
		free(h);
		return 1;
	}
	h->uid = options->uid;
	h->socket = options->socket;
	h->log = options->log;
	h->stop = options->stop;
	h->durable = (struct durable){
		.ledger = options->ledger,
		.uid = options->uid,
		.term = options->term,
		.log = options->log,
		.table = &h->table,
		.batch = &h->batch,
		.waiting = show_life,
		.context = h,
	};
	h->closer = (struct closer){.uid = options->uid, .log = options->log};
	holder_table_init(&h->table);
	h->table.closer = &h->closer;
	durable_init(&h->durable);
	depots_take(&h->durable, &h->message, options->depots, options->n_depots);
	serve(h);
	log_site_end(h->log, &h->damaged, CONFIG_LOG_ERROR, "damaged messages to a holder");
	log_site_end(h->log, &h->stale, CONFIG_LOG_WARNING, "messages that did not fit");
	log_site_end(h->log, &h->closer.alone, CONFIG_LOG_WARNING, "closes that may block");
	log_site_end(h->log, &h->lost, CONFIG_LOG_ERROR, "parks that a holder lost");
	durable_clear(&h->durable);
	holder_table_clear(&h->table);
	status = h->status;
	free(h);
	return status;
}
