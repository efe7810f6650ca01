/* SPDX-License-Identifier: MIT */

/*
 * Receiving: one message, and each of its records to the one that it concerns.
 *
 * READY is the hot one. It is read into a buffer that is always the same, and its entries go
 * straight into the caller's array; an entry costs one look into the table's hot half. When the
 * array is full the rest stays in the buffer for the next call; only if a request or a pollwait is
 * under way, whose record may be among them, is the rest moved to the table at once.
 *
 * What becomes of an entry, for each direction:
 *   wait mode, a WAIT outstanding    its event, or the result of the thread in pollwait
 *   ... a timeout whose stamp is not the slot's current one: that deadline was replaced before it
 *       expired, as far as the program knows: WAIT is sent again and nothing is shown (S-051)
 *   wait mode, none outstanding, or its thread was interrupted
 *                                    latched: the next wait returns at once (H19)
 *   stream mode                      its event; a timeout with an old stamp is left out
 *   no such watch, other generation  dropped and counted (H12)
 *
 * Nothing that arrives is trusted: what makes no sense ends the connection with -EPROTO. READY's
 * records are checked here, as they are looked at, all other messages by wire_decode().
 *
 * Kernel behaviour: recv() on SOCK_SEQPACKET with MSG_TRUNC returns the true length; 0 is the end,
 * since no message is empty. A peer that closed with unread requests gives ECONNRESET once, before
 * the messages that are still to be read. Fds that come along uninvited are closed by the kernel,
 * since no room for them is given; for whoever takes, or works for a group, there is room for one.
 */

#include "internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
	CODES = WIRE_CODE_READY | WIRE_CODE_CLOSING | WIRE_CODE_TIMEOUT | WIRE_CODE_NOT_POLLABLE,
	HOT_RECORDS = 8, /* a message of so many records is likely to have a successor */
};

_Static_assert(READYD_READY == (int)WIRE_CODE_READY && READYD_CLOSING == (int)WIRE_CODE_CLOSING &&
		       READYD_TIMEOUT == (int)WIRE_CODE_TIMEOUT &&
		       READYD_NOT_POLLABLE == (int)WIRE_CODE_NOT_POLLABLE,
	       "codes go through as they are");
_Static_assert(sizeof(struct wire_entry) == 24 && sizeof(struct wire_timer_entry) == 24 &&
		       sizeof(struct wire_break_entry) == 24 && sizeof(struct wire_answer) == 24 &&
		       sizeof(struct wire_failure) == 24,
	       "READY's records share their size");

/* ---- Entries of watches ---- */

static inline void watch_show(struct readyd *r, struct rd_sink *sink, uint32_t id,
			      const struct rd_watch *w, uint8_t read, uint8_t write)
{
	struct readyd_event *e;

	if (!sink || sink->n == sink->max) {
		rd_watch_keep(r, id, read, write);
		return;
	}
	e = &sink->events[sink->n++];
	e->cookie = w->cookie;
	e->id = rd_id(id, w->gen);
	e->kind = READYD_EVENT_WATCH;
	e->read = read;
	e->write = write;
	e->reserved = 0;
	e->count = 0;
}

/* One direction of an entry that is not plain. Returns what the program is to see of it. */
static uint8_t slot_result(struct readyd *r, uint32_t id, unsigned slot, uint8_t code,
			   uint16_t stamp)
{
	struct rd_watch *w = rd_watch_at(r, id);
	struct rd_watch_cold *cold = rd_watch_cold_at(r, id);
	uint8_t mask = (uint8_t)(1u << slot);
	bool stale = (code & WIRE_CODE_TIMEOUT) && stamp != w->stamp[slot];

	if ((code & WIRE_CODE_TIMEOUT) && !stale)
		cold->deadline[slot] = -1;
	if (w->flags & RD_STREAM) {
		if (stale)
			code &= (uint8_t)~WIRE_CODE_TIMEOUT;
		cold->told |= (uint8_t)((code & WIRE_CODE_TIMEOUT ? RD_TOLD_TIMEOUT << slot : 0) |
					(code & WIRE_CODE_CLOSING ? RD_TOLD_CLOSING << slot : 0));
		return code;
	}
	if (!(w->waiting & mask)) {
		if (code & WIRE_CODE_READY)
			w->special |= (uint8_t)(RD_LATCH << slot);
		return 0; /* the other codes are states of the daemon's: it says them again */
	}
	if (stale && !(w->special & (RD_DUE << slot))) {
		if (!(w->flags & RD_ENDING)) {
			rd_rewait(r, id, mask);
			return 0;
		}
		code = WIRE_CODE_CLOSING;
	}
	w->waiting &= (uint8_t)~mask;
	w->special &= (uint8_t) ~(RD_DUE << slot);
	if (w->special & (RD_POLLWAIT << slot)) {
		struct rd_waiter *waiter = cold->waiter[slot];

		w->special &= (uint8_t) ~(RD_POLLWAIT << slot);
		cold->waiter[slot] = NULL;
		if (!waiter) {
			if (code & WIRE_CODE_READY)
				w->special |= (uint8_t)(RD_LATCH << slot);
			return 0;
		}
		r->n_pollwaits--;
		waiter->code = code;
		rd_done(r, waiter);
		return 0;
	}
	return code;
}

static __attribute__((noinline)) void entry_not_plain(struct readyd *r, const struct wire_entry *e,
						      struct rd_sink *sink)
{
	uint8_t read = 0, write = 0;

	if (e->read)
		read = slot_result(r, e->id, 0, e->read, e->read_stamp);
	if (e->write)
		write = slot_result(r, e->id, 1, e->write, e->write_stamp);
	if (read | write)
		watch_show(r, sink, e->id, rd_watch_at(r, e->id), read, write);
}

/* Inline: a few ns an entry are all that a batch may cost. */
static inline bool dispatch_entry(struct readyd *r, const struct wire_entry *e,
				  struct rd_sink *sink)
{
	unsigned codes = e->read | e->write;
	unsigned directions = (e->read != 0) | (unsigned)(e->write != 0) << 1;
	struct rd_watch *w = rd_watch_find(r, e->id, e->gen - r->resume.epoch);

	if (codes == 0 || codes & ~(unsigned)CODES)
		return false;
	if (!w) {
		r->stale++;
		return true;
	}
	if (codes & (WIRE_CODE_TIMEOUT | WIRE_CODE_CLOSING) ||
	    (!(w->flags & RD_STREAM) && (directions & ~w->waiting) | w->special)) {
		entry_not_plain(r, e, sink);
		return true;
	}
	w->waiting &= (uint8_t)~directions;
	watch_show(r, sink, e->id, w, e->read, e->write);
	return true;
}

void rd_slot_complete(struct readyd *r, uint32_t id, unsigned slot, uint8_t code)
{
	code = slot_result(r, id, slot, code, rd_watch_at(r, id)->stamp[slot]);
	if (code)
		rd_watch_keep(r, id, slot ? 0 : code, slot ? code : 0);
}

/* A WAIT was refused, which the table should have foreseen: nobody may wait for ever. */
static void wait_refused(struct readyd *r, const struct wire_failure *f)
{
	struct rd_watch *w = rd_watch_find(r, f->id, f->gen - r->resume.epoch);
	unsigned directions = f->direction ? f->direction : READYD_READ | READYD_WRITE;
	uint8_t code[2] = {0, 0};

	if (!w)
		return;
	for (unsigned slot = 0; slot < 2; slot++)
		if (directions & w->waiting & (1u << slot))
			code[slot] = slot_result(r, f->id, slot, WIRE_CODE_CLOSING, 0);
	if (code[0] | code[1])
		rd_watch_keep(r, f->id, code[0], code[1]);
}

/* ---- Entries of timers ---- */

static bool dispatch_timer(struct readyd *r, const struct wire_timer_entry *e, struct rd_sink *sink)
{
	struct rd_timer *t = NULL;
	struct readyd_event *shown;
	int64_t passed;

	if (e->count == 0)
		return false;
	if (e->id != 0 && e->id < r->timers.top)
		t = rd_timer_at(r, e->id);
	if (!t || !(t->flags & RD_TIMER_LIVE)) {
		r->stale++;
		return true;
	}
	if (t->arming != e->gen || t->flags & RD_TIMER_STOPPING) {
		/* It fired before it was armed anew or stopped; the program never sees it. */
		for (struct rd_request *q = r->requests; q; q = q->next)
			if (q->timer == t)
				q->swallowed = true;
		return true;
	}
	if (t->period && (__builtin_mul_overflow(t->period, (int64_t)e->count, &passed) ||
			  __builtin_add_overflow(t->when, passed, &t->when)))
		t->when = INT64_MAX;
	if (!sink || sink->n == sink->max) {
		rd_timer_keep(r, e->id, e->count);
		return true;
	}
	shown = &sink->events[sink->n++];
	*shown = (struct readyd_event){
		.cookie = t->cookie,
		.id = rd_id(e->id, t->gen),
		.kind = READYD_EVENT_TIMER,
		.count = e->count,
	};
	if (t->period == 0)
		rd_timer_remove(r, e->id);
	return true;
}

/* ---- Answers ---- */

static struct rd_request *request_find(const struct readyd *r, uint32_t serial)
{
	struct rd_request *q = r->requests;

	while (q && q->serial != serial)
		q = q->next; /* answers come in order: it is the first */
	return q;
}

static void request_complete(struct readyd *r, struct rd_request *q)
{
	struct rd_request **p = &r->requests;

	while (*p != q)
		p = &(*p)->next;
	*p = q->next;
	if (!q->next)
		r->requests_end = p;
	if (r->parking.fresh)
		rd_parks_forget(r);
	if (q->answered)
		q->answered(r, q);
	rd_done(r, &q->waiter);
}

static bool dispatch_answer(struct readyd *r, const struct wire_answer *a)
{
	struct rd_request *q = request_find(r, a->serial);

	if (!q || q->reply_type)
		return false;
	q->error = a->error;
	q->value = a->value;
	request_complete(r, q);
	return true;
}

static bool dispatch_failure(struct readyd *r, const struct wire_failure *f)
{
	struct rd_request *q;

	switch (f->serial & RD_SERIAL_MASK) {
	case RD_SERIAL_WAIT:
		wait_refused(r, f);
		return true;
	case RD_SERIAL_DEADLINE:
		return true; /* evicted or unwatched meanwhile */
	case RD_SERIAL_RETURN:
		return true; /* settled otherwise */
	}
	q = request_find(r, f->serial);
	if (!q || f->error == WIRE_OK)
		return false;
	if (!q->error) {
		q->error = f->error;
		q->detail = f->detail;
		q->limit = f->value;
	}
	if (q->refused)
		q->refused(r, q, f);
	if (q->reply_type)
		request_complete(r, q);
	return true;
}

static bool dispatch_reply(struct readyd *r, const struct wire_header *h, size_t size)
{
	struct rd_request *q = request_find(r, h->serial);

	if (!q || q->reply_type != h->type)
		return false;
	memcpy(q->reply, r->in, size);
	q->reply_size = size;
	request_complete(r, q);
	return true;
}

/* ---- Messages ---- */

static bool dispatch_park(struct readyd *r, const struct wire_park_entry *e, struct rd_sink *sink)
{
	unsigned codes = e->read | e->write;

	if (codes == 0 || codes & ~(unsigned)(WIRE_CODE_READY | WIRE_CODE_TIMEOUT))
		return false;
	rd_park_entry(r, e, sink);
	return true;
}

static bool dispatch_other_record(struct readyd *r, const void *record, struct rd_sink *sink)
{
	switch (*(const uint8_t *)record) {
	case WIRE_RECORD_TIMER:
		return dispatch_timer(r, record, sink);
	case WIRE_RECORD_BREAK:
		if (sink && sink->n < sink->max)
			sink->events[sink->n++] = (struct readyd_event){.kind = READYD_EVENT_BREAK};
		else
			r->broken_kept = true;
		return true;
	case WIRE_RECORD_ANSWER:
		return dispatch_answer(r, record);
	case WIRE_RECORD_FAILURE:
		return dispatch_failure(r, record);
	case WIRE_RECORD_PARK:
		return dispatch_park(r, record, sink);
	}
	return false;
}

static int garbled(struct readyd *r, const char *what)
{
	return rd_end(r, -EPROTO,
		      "what listens at %s does not speak readyd's protocol (%s): "
		      "check that readyd and libreadyd are of matching versions",
		      r->address, what);
}

void rd_unread_take(struct readyd *r, struct rd_sink *sink)
{
	const struct wire_entry *e = r->unread, *end = r->unread_end;

	for (; e < end; e++) {
		if (sink && sink->n == sink->max) {
			if (!r->requests && !r->n_pollwaits)
				break;
			sink = NULL;
		}
		if (!(e->kind == WIRE_RECORD_ENTRY ? dispatch_entry(r, e, sink)
						   : dispatch_other_record(r, e, sink))) {
			(void)garbled(r, "a bad record in READY");
			return;
		}
	}
	r->unread = e;
}

/* Errors that would come again on the next connection. */
static bool is_fault(uint32_t error)
{
	return error == WIRE_E_PROTOCOL || error == WIRE_E_VERSION || error == WIRE_E_BYTE_ORDER ||
	       error == WIRE_E_SURPLUS_FDS;
}

/* `fd`, if the message is a hand-out, is taken over, and -1 afterwards. */
static int dispatch_other(struct readyd *r, size_t size, int *fd)
{
	static const char ended_format[] = "readyd at %s ended the connection: %s (%s)";
	const struct wire_error_record *record;
	const char *reason = "";
	struct wire_view view;
	char text[256];

	if (wire_decode(r->in, size, false, &view, &reason) != WIRE_OK)
		return garbled(r, reason);
	if (view.size != size)
		return garbled(r, "more than one message in a datagram");
	switch (view.header.type) {
	case WIRE_ERROR:
		record = view.records;
		rd_printable(text, sizeof(text), view.tail, view.header.tail);
		if (is_fault(record->error))
			return rd_end(r, -EPROTO, ended_format, r->address, text,
				      wire_error_text(record->error));
		rd_lose(r, ended_format, r->address, text, wire_error_text(record->error));
		return r->error ? r->error : 1;
	case WIRE_WELCOME:
		if (r->resume.link != RD_GREETING)
			return garbled(r, "a second greeting");
		rd_greeted(r, &view);
		return r->error ? r->error : 1;
	case WIRE_STATUS:
	case WIRE_SESSIONS:
	case WIRE_WATCHES:
	case WIRE_TIMERS:
	case WIRE_QUOTAS:
	case WIRE_PARKS:
	case WIRE_GROUPS:
		if (dispatch_reply(r, &view.header, size))
			return 1;
		return garbled(r, "a reply that nobody asked for");
	case WIRE_HANDOUT: {
		int handed = *fd;

		*fd = -1;
		if (rd_handout(r, &view, handed))
			return 1;
		return garbled(r, "a hand-out that nobody asked for");
	}
	}
	return garbled(r, "an unexpected message");
}

static int dispatch_message(struct readyd *r, size_t size, int *fd, struct rd_sink *sink)
{
	struct wire_header header;

	if (size < sizeof(header))
		return garbled(r, "a message without a header");
	memcpy(&header, r->in, sizeof(header));
	if (header.type != WIRE_READY)
		return dispatch_other(r, size, fd);
	if (header.count == 0 || header.count > WIRE_RECORDS_MAX || header.tail || header.flags ||
	    size != sizeof(header) + header.count * sizeof(struct wire_entry))
		return garbled(r, "READY of a wrong length");
	r->hot = header.count >= HOT_RECORDS;
	r->unread = (const void *)(r->in + sizeof(header));
	r->unread_end = r->unread + header.count;
	rd_unread_take(r, sink);
	return r->error ? r->error : 1;
}

/* With room for one fd. *ret_fd: that one, close-on-exec; -1: none came. */
static ssize_t receive_with_fd(struct readyd *r, int *ret_fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = {.iov_base = r->in, .iov_len = WIRE_MESSAGE_MAX};
	struct msghdr m = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_LEN(sizeof(int)), /* the space would do for two */
	};
	ssize_t n = recvmsg(r->socket, &m, MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&m);

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(c), sizeof(*ret_fd));
	return n;
}

static ssize_t receive_message(struct readyd *r, int *ret_fd)
{
	if (r->parking.takes || r->parking.worked)
		return receive_with_fd(r, ret_fd);
	return recv(r->socket, r->in, WIRE_MESSAGE_MAX, MSG_DONTWAIT | MSG_TRUNC);
}

int rd_receive(struct readyd *r, struct rd_sink *sink)
{
	if (r->unread != r->unread_end)
		rd_unread_take(r, NULL);
	while (!r->error && r->socket >= 0) {
		RD_CLEANUP_FD int fd = -1;
		ssize_t n = receive_message(r, &fd);

		if (n > WIRE_MESSAGE_MAX)
			return garbled(r, "a message that is too long");
		if (n > 0)
			return dispatch_message(r, (size_t)n, &fd, sink);
		if (n < 0 && errno == EAGAIN) {
			r->hot = false;
			return 0;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == ECONNRESET && !r->reset) {
			r->reset = true; /* messages may still follow */
			continue;
		}
		rd_lose(r, "the connection to readyd at %s has ended: it was stopped or restarted",
			r->address);
		return r->error ? r->error : 1;
	}
	return r->error;
}
