/* SPDX-License-Identifier: MIT */

/*
 * Sending. Requests gather in one datagram under construction (struct rd_out): those that nobody
 * waits for (WAIT, DEADLINE) stay there until the next readyd_poll(), the next request that is
 * waited for, or until 1,024 of them are there; so a loop that handles 100 events sends their 100
 * waits with one system call. Requests keep the order in which they were made (O1).
 *
 * The library never blocks in send (H14): a daemon whose own output is blocked stops reading, so
 * the thread that waits for room polls for both directions and receives meanwhile. A full datagram
 * that the socket does not take stays where it is; nothing is made longer than one datagram.
 *
 * Nobody may be left waiting for what still lies here: where another thread is blocked in a poll or
 * in readyd_pollwait(), or a foreign event loop sleeps on readyd_fd(), rd_hurry() sends at once.
 *
 * Kernel behaviour: one fd that is closed makes sendmsg() fail as a whole with EBADF; ETOOMANYREFS
 * (more fds in flight than RLIMIT_NOFILE) and ENOBUFS pass as the daemon reads, but no event says
 * when; EPIPE comes while messages of the peer are still unread, and these are read first.
 *
 * While there is no connection the datagram is empty: what the program asks for meanwhile is noted
 * in the table alone, and told from there (rebuild.c).
 */

#include "internal.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

bool rd_out_has_room(const struct readyd *r, size_t bytes, unsigned fds)
{
	return r->out.size + bytes <= r->message_max && r->out.n_fds + fds <= r->fds_max &&
	       r->out.records < WIRE_RECORDS_MAX;
}

/* Sends all there is; receives, or lets others do it, while it must wait for that. */
static int push(struct readyd *r)
{
	struct rd_waiter w = {.wants_room = true};

	while (rd_flush(r) == -EAGAIN)
		(void)rd_turn(r, &w);
	return r->error ? rd_ended(r) : 0;
}

int rd_out_reserve(struct readyd *r, size_t bytes, unsigned fds)
{
	if (r->error)
		return rd_ended(r);
	/* Another thread may fill it again while push() has released the lock. */
	while (!rd_out_has_room(r, bytes, fds)) {
		int error = push(r);

		if (error)
			return error;
	}
	return 0;
}

void rd_out_record(struct readyd *r, unsigned type, enum rd_serial class, const void *record,
		   size_t size)
{
	struct rd_out *out = &r->out;
	struct wire_header header;

	if (out->last != SIZE_MAX) {
		memcpy(&header, out->buffer + out->last, sizeof(header));
		if (header.type != type || header.count >= r->records_max)
			out->last = SIZE_MAX;
	}
	if (out->last == SIZE_MAX) {
		r->serial += RD_SERIAL_MASK + 1;
		header = (struct wire_header){.type = (uint16_t)type, .serial = r->serial | class};
		out->last = out->size;
		out->size += sizeof(header);
	}
	header.count++;
	memcpy(out->buffer + out->last, &header, sizeof(header));
	assert(out->size + size <= WIRE_MESSAGE_MAX);
	memcpy(out->buffer + out->size, record, size);
	out->size += size;
	out->records++;
}

void rd_out_request(struct readyd *r, struct rd_request *q, unsigned type, const void *records,
		    size_t count, const int *fds, unsigned n_fds)
{
	struct rd_out *out = &r->out;
	unsigned flags = q->reply_type ? 0 : WIRE_FLAG_ANSWER;
	size_t size;

	r->serial += RD_SERIAL_MASK + 1;
	if (r->serial == 0)
		r->serial += RD_SERIAL_MASK + 1; /* hand-outs of groups have that one */
	q->serial = r->serial | RD_SERIAL_ASKED;
	size = wire_encode(out->buffer + out->size, WIRE_MESSAGE_MAX - out->size, type, flags,
			   q->serial, records, count, q->tail, q->tail_size);
	assert(size > 0);
	out->size += size;
	out->last = SIZE_MAX;
	if (n_fds)
		memcpy(out->fds + out->n_fds, fds, n_fds * sizeof(*fds));
	out->n_fds += n_fds;
	q->next = NULL;
	*r->requests_end = q;
	r->requests_end = &q->next;
}

/* An fd that was closed while it waited here makes the whole datagram fail: put the connection's
 * own in its place, which the daemon refuses as that record's fault. */
static bool replace_closed_fds(struct readyd *r)
{
	bool any = false;

	for (unsigned i = 0; i < r->out.n_fds; i++) {
		if (fcntl(r->out.fds[i], F_GETFD) < 0) {
			r->out.fds[i] = r->socket;
			any = true;
		}
	}
	return any;
}

static ssize_t send_out(struct readyd *r)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))];
	} control;
	struct iovec part = {.iov_base = r->out.buffer, .iov_len = r->out.size};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
	ssize_t n;

	if (r->out.n_fds) {
		size_t bytes = r->out.n_fds * sizeof(int);

		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(bytes);
		memset(&control, 0, m.msg_controllen);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(bytes);
		memcpy(CMSG_DATA(&control.header), r->out.fds, bytes);
	}
	do
		n = sendmsg(r->socket, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n;
}

/* The slots whose WAIT found no room. Rare: the whole table is looked through. */
static void send_rewaits(struct readyd *r)
{
	for (uint32_t id = 1; id < r->watches.top && r->n_rewaits; id++) {
		struct rd_watch *w = rd_watch_at(r, id);
		unsigned mask = w->special / RD_REWAIT;

		if (!mask)
			continue;
		if (!rd_out_has_room(r, sizeof(struct wire_header) + sizeof(struct wire_slots), 0))
			return; /* after the next flush */
		w->special &= (uint8_t)(RD_REWAIT - 1);
		r->n_rewaits--;
		if ((w->flags & (RD_LIVE | RD_ENDING)) == RD_LIVE)
			rd_rewait(r, id, mask & w->waiting);
	}
}

/* The peer has closed. What it said before is read first: it may have said why. */
static void read_to_the_end(struct readyd *r, int error)
{
	uint32_t epoch = r->resume.epoch;

	while (!r->error && r->resume.epoch == epoch && rd_receive(r, NULL) > 0)
		;
	if (!r->error && r->resume.epoch == epoch)
		rd_lose(r, "the connection to readyd at %s ended: %s", r->address, strerror(error));
}

int rd_out_flush(struct readyd *r)
{
	while (!r->error && r->out.size) {
		int error;

		if (send_out(r) >= 0) {
			r->out.size = r->out.records = r->out.n_fds = 0;
			r->out.last = SIZE_MAX;
			for (struct rd_waiter *w = r->sleepers; w; w = w->next)
				if (w->wants_room)
					rd_wake(w);
			if (r->n_rewaits)
				send_rewaits(r);
			if (r->parking.unsaid)
				rd_groups_push(r);
			continue;
		}
		error = errno;
		switch (error) {
		case EAGAIN:
			return -EAGAIN;
		case ETOOMANYREFS:
		case ENOBUFS:
		case ENOMEM:
			r->out.nap = true;
			return -EAGAIN;
		case EBADF:
			if (r->out.n_fds && replace_closed_fds(r))
				continue;
			break;
		case EPIPE:
		case ECONNRESET:
			read_to_the_end(r, error);
			continue;
		}
		(void)rd_end(r, -ENOTCONN, "the connection to readyd at %s ended: %s", r->address,
			     strerror(error));
	}
	return r->error;
}

int rd_flush(struct readyd *r)
{
	if (rd_unsettled(r))
		rd_resume_run(r);
	return rd_out_flush(r);
}

int rd_hurry(struct readyd *r)
{
	int error;

	if (!r->led && !r->n_pollwaits && !r->shown)
		return 0;
	error = rd_flush(r);
	if (error == -EAGAIN && r->led)
		rd_kick(r); /* it looks for room from now on */
	/* Not led: who will lead sends first; readyd_fd() is readable when there is room. */
	return r->error ? rd_ended(r) : 0;
}

void rd_rewait(struct readyd *r, uint32_t id, unsigned mask)
{
	struct rd_watch *w = rd_watch_at(r, id);
	struct wire_slots slots = {
		.id = id,
		.gen = rd_wire_gen(r, w->gen),
		.directions = mask,
	};

	if (!mask)
		return;
	if (rd_out_has_room(r, sizeof(struct wire_header) + sizeof(slots), 0)) {
		rd_out_record(r, WIRE_WAIT, RD_SERIAL_WAIT, &slots, sizeof(slots));
		return;
	}
	if (!(w->special / RD_REWAIT))
		r->n_rewaits++;
	w->special |= (uint8_t)(mask * RD_REWAIT);
}
