/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "parking.h"
#include "sending.h"

/*
 * What a connection is told of parks: that one is ready, and the fds that are handed out to it. Both
 * wait in lists of the parks themselves until the socket takes them.
 *
 * A hand-out is a message of its own, with the fd, and leaves only when its record is written. What
 * is unread by the receiver counts against the daemon's user in the kernel (ETOOMANYREFS): then all
 * hand-outs wait for a moment.
 */

#define PAUSE INT64_C(10000000) /* ns */

/* What is told of one direction. A deadline is the park's, and so of both. */
static uint8_t code_of(const struct park *p, unsigned direction)
{
	return (uint8_t)((p->ready & direction ? WIRE_CODE_READY : 0) |
			 (p->timed_out ? WIRE_CODE_TIMEOUT : 0));
}

void handing_add_entries(struct connection *c)
{
	struct park *p;

	while ((p = TAILQ_FIRST(&c->entries)) && !c->closing) {
		struct wire_park_entry entry = {
			.kind = WIRE_RECORD_PARK,
			.read = code_of(p, CORE_READ),
			.write = code_of(p, CORE_WRITE),
			.park = p->number,
			.cookie = p->cookie,
		};

		if (!outbox_has_room(&c->server->outbox)) {
			c->server->unfinished = true;
			return;
		}
		sending_add_record(c, &entry);
		parking_queue(p, NULL);
	}
	parking_step();
}

void handing_sent(struct connection *c)
{
	struct park *p;

	parking_step();
	if (TAILQ_EMPTY(&c->unanswered))
		return;
	while ((p = TAILQ_FIRST(&c->unanswered))) {
		parking_queue(p, NULL);
		if (!p->answered) /* else a claim has said so */
			p->caller_flags |= PARKING_MAY_WAIT;
		parks_answered(c->server->parks, p);
	}
	parking_sync(c->server);
}

void handing_recorded(struct park *p)
{
	struct connection *c = peer_of_handle(p->worker)->c;

	if (c && !c->held)
		sending_queue(c);
}

static size_t encode(const struct park *p, uint8_t *buffer, size_t size)
{
	struct wire_handout record = {
		.park = p->number,
		.cookie = p->cookie,
		.parked = p->parked,
		.flags = p->flags,
		.read = code_of(p, CORE_READ),
		.write = code_of(p, CORE_WRITE),
		.note_length = p->text.note_length,
		.name_length = p->text.name_length,
		.group_length = p->text.group_length,
		.local_length = p->text.local_length,
		.peer_length = p->text.peer_length,
	};

	memcpy(record.token, p->token, sizeof(record.token));
	return wire_encode(buffer, size, WIRE_HANDOUT, 0, p->handout, &record, 1, p->text.bytes,
			   park_text_size(&p->text));
}

static int send_one(struct connection *c, const struct park *p)
{
	uint64_t buffer[(sizeof(struct wire_header) + sizeof(struct wire_handout) + PARK_TEXT_MAX) /
				8 +
			2];
	struct iovec iov = {.iov_base = buffer};
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	iov.iov_len = encode(p, (uint8_t *)buffer, sizeof(buffer));
	control.header = (struct cmsghdr){
		.cmsg_len = CMSG_LEN(sizeof(int)),
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
	};
	memcpy(CMSG_DATA(&control.header), &p->fd, sizeof(int));
	while (sendmsg(c->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

int handing_send(struct connection *c)
{
	struct park *p, *next;
	int r;

	for (p = TAILQ_FIRST(&c->handouts); p; p = next) {
		next = TAILQ_NEXT(p, queue);
		if (!link_has(p))
			continue; /* handing_recorded() comes; others may be of other holders */
		parking_step();
		r = c->peer_gone ? -EPIPE : send_one(c, p);
		parking_step();
		switch (r) {
		case 0:
			parking_queue(p, NULL);
			continue;
		case -EAGAIN:
			return r;
		case -ETOOMANYREFS:
			c->server->handout_again = c->server->now + PAUSE;
			return 0;
		case -EPIPE:
		case -ECONNRESET:
			sending_lose_peer(c); /* the end of its connection will settle it */
			return -EPIPE;
		default:
			connection_close(c);
			return -EPIPE;
		}
	}
	return 0;
}
