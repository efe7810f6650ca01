/* SPDX-License-Identifier: MIT */
#include "record.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"
#include "protocol/wire.h"

/*
 * The layout. A message is a header and frames; a frame is its own header, a payload and texts, and
 * zeros up to the next multiple of 8, so that all structs are aligned in a buffer of 64-bit words.
 * Both processes are of one machine: integers are in the machine's order.
 *
 * What is wrong with one operation concerns that one: the frame says how long it is and how many
 * fds are its own, so what comes behind is still understood. That is only so while the frames are
 * right: a number of fds that is wrong in one would give all later parks the fds of others. So
 * before the first operation is told, all frames are counted together, and if they take another
 * number of fds than the header says, none is told. A message whose end is missing is read as far as
 * it goes.
 *
 * One check is made of what is written and of what is read: nothing is sent that the other end
 * would refuse.
 *
 * Kernel behaviour relied on: a SOCK_SEQPACKET datagram is whole or not there. When the receiver has
 * no room for fds (RLIMIT_NOFILE), it gets the first ones and MSG_CTRUNC. The end of a peer that
 * had not read everything is told as ECONNRESET, once, and before what it sent. A message of no bytes
 * looks like the end; poll(2) tells them apart.
 */

struct header {
	uint32_t magic;
	uint16_t version;
	uint16_t n_fds; /* of all frames */
	uint32_t size;  /* of the message */
	uint32_t reserved;
};

struct frame {
	uint16_t type;
	uint16_t n_fds;
	uint32_t value;
	uint32_t size; /* of payload and texts */
	uint32_t reserved;
};

static_assert(sizeof(struct header) == 16 && sizeof(struct frame) == 16, "aligned by themselves");
static_assert(sizeof(struct record) == 128 && sizeof(struct record_drop) == 32, "no holes");

enum {
	DIRECTIONS = WIRE_READ | WIRE_WRITE,
	FLAGS = WIRE_PARK_DURABLE | WIRE_PARK_HOLD_ONLY | WIRE_PARK_RELATIVE |
		WIRE_PARK_DEADLINE_HAND,
	NOTE_MAX = 2048,
	ADDRESS_MAX = 128,
};

static size_t padded(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

size_t record_text_size(const struct record *r)
{
	return (size_t)r->name_length + r->group_length + r->note_length + r->local_length +
	       r->peer_length;
}

/* ---- What an operation must be ---- */

static bool is_zero(const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (bytes[i])
			return false;
	return true;
}

/* NULL, or what contradicts itself. */
static const char *check_record(const struct record *r)
{
	bool maker = !is_zero(r->maker, sizeof(r->maker));
	bool worker = !is_zero(r->worker, sizeof(r->worker));

	if (r->note_length > NOTE_MAX || r->local_length > ADDRESS_MAX ||
	    r->peer_length > ADDRESS_MAX)
		return "a text of the record is longer than it can be";
	if (r->state > RECORD_HANDED || r->answered > 1 || r->timed_out > 1 || r->maker_fd > 1 ||
	    r->worker_fd > 1)
		return "the record has a state that does not exist";
	if (r->interest & ~DIRECTIONS || r->kind >= WIRE_KIND_MAX || r->flags & ~(uint32_t)FLAGS)
		return "the record has an interest, kind or flag that does not exist";
	if (r->parked < 0 || r->deadline < 0 || r->maker_pid < 0 || r->worker_pid < 0)
		return "the record has a negative time or pid";
	if (worker != (r->state == RECORD_HANDED) ||
	    (!worker && (r->worker_fd || r->worker_pid != 0)))
		return "the record is handed out to nobody, or has a worker and is not handed out";
	if (!worker && r->worker_uid != 0)
		return "the record has a user of a worker, and no worker";
	if (r->worker_uid == UINT32_MAX)
		return "the record's worker is nobody's";
	if (r->shared > (r->group_length > 0))
		return "the record is shared and has no group";
	if (!maker && (r->maker_fd || r->maker_pid != 0))
		return "the record has a process of a maker, and no maker";
	if (!r->answered && (!maker || worker))
		return "the record is unanswered without a maker, or handed out unanswered";
	if (!is_zero(r->reserved, sizeof(r->reserved)))
		return "a reserved byte of the record is not zero";
	return NULL;
}

static size_t payload_size_of(enum record_op_type type)
{
	switch (type) {
	case RECORD_HOLD:
	case RECORD_CHANGE:
		return sizeof(struct record);
	case RECORD_DROP:
	case RECORD_STORED:
	case RECORD_LOST:
		return sizeof(struct record_drop);
	default:
		return 0;
	}
}

static const char *check_fds(enum record_op_type type, const struct record *r, unsigned n_fds)
{
	unsigned wanted = 0;

	if (type == RECORD_CLOSE)
		return n_fds > 0 ? NULL : "it has no descriptor to close";
	if (type == RECORD_HOLD || type == RECORD_CHANGE)
		wanted = (type == RECORD_HOLD) + (unsigned)r->maker_fd + r->worker_fd;
	return n_fds == wanted ? NULL : "it has more or fewer descriptors than its kind";
}

/* NULL, or what is wrong. `payload` is aligned. */
static const char *check_op(enum record_op_type type, const void *payload, size_t payload_size,
			    size_t text_size, unsigned n_fds)
{
	const struct record_drop *drop = payload;
	const struct record *r = payload;
	const char *reason = NULL;

	if (type < RECORD_HOLD || type > RECORD_SETTLED)
		return "its kind is not known";
	if (payload_size != payload_size_of(type))
		return "it is cut short";
	if (payload_size == sizeof(struct record))
		reason = check_record(r);
	else if (payload_size > 0 && (drop->shut_down > 1 || drop->reserved != 0))
		reason = "a field of it is neither 0 nor 1";
	if (!reason && text_size != (type == RECORD_HOLD ? record_text_size(r) : 0))
		reason = "its texts are longer or shorter than it says";
	return reason ? reason : check_fds(type, r, n_fds);
}

/* ---- Writing ---- */

void record_batch_clear(struct record_batch *b)
{
	b->size = 0;
	b->n_fds = 0;
}

static void append(struct record_batch *b, const void *bytes, size_t n)
{
	if (n > 0)
		memcpy((uint8_t *)b->bytes + b->size, bytes, n);
	b->size += n;
}

int record_batch_add(struct record_batch *b, enum record_op_type type, uint32_t value,
		     const void *payload, size_t payload_size, const void *text, size_t text_size,
		     const int *fds, unsigned n_fds)
{
	size_t begin = b->size > 0 ? b->size : sizeof(struct header);
	struct frame frame = {
		.type = (uint16_t)type,
		.n_fds = (uint16_t)n_fds,
		.value = value,
		.size = (uint32_t)(payload_size + text_size),
	};
	struct header header = {.magic = RECORD_MAGIC, .version = RECORD_VERSION};
	static const uint8_t zeros[8];

	if (n_fds > RECORD_FDS_MAX || check_op(type, payload, payload_size, text_size, n_fds))
		return -EINVAL;
	if (RECORD_MESSAGE_MAX - begin < sizeof(frame) + padded(payload_size + text_size) ||
	    n_fds > RECORD_FDS_MAX - b->n_fds)
		return -ENOBUFS;
	b->size = begin;
	append(b, &frame, sizeof(frame));
	append(b, payload, payload_size);
	append(b, text, text_size);
	append(b, zeros, padded(b->size) - b->size);
	for (unsigned i = 0; i < n_fds; i++)
		b->fds[b->n_fds++] = fds[i];
	header.n_fds = (uint16_t)b->n_fds;
	header.size = (uint32_t)b->size;
	memcpy(b->bytes, &header, sizeof(header));
	return 0;
}

union control {
	struct cmsghdr header;
	uint8_t bytes[CMSG_SPACE(RECORD_FDS_MAX * sizeof(int))];
};

int record_batch_send(const struct record_batch *b, int socket)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)b->bytes, .iov_len = b->size};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control;

	assert(b->size > 0);
	if (b->n_fds > 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(b->n_fds * sizeof(int));
		memset(&control, 0, message.msg_controllen);
		control.header = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(b->n_fds * sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(&control.header), b->fds, b->n_fds * sizeof(int));
	}
	while (sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* ---- Receiving ---- */

static void collect(struct record_message *m, struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n && m->n_fds < RECORD_FDS_MAX; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			fd = fd_move_up(fd);
			m->fds[m->n_fds++] = fd < 0 ? -1 : fd;
			m->truncated |= fd < 0;
		}
	}
}

/* No bytes came: is it the end, or a message without any? */
static bool is_at_end(int socket)
{
	struct pollfd polled = {.fd = socket, .events = POLLRDHUP};

	return poll(&polled, 1, 0) < 0 || (polled.revents & (POLLHUP | POLLRDHUP | POLLNVAL));
}

int record_message_receive(struct record_message *m, int socket, int flags)
{
	struct iovec iov = {.iov_base = m->bytes, .iov_len = sizeof(m->bytes)};
	union control control;
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n;

	m->size = m->at = 0;
	m->n_fds = m->next_fd = 0;
	m->truncated = false;
	do
		n = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0)
		return -errno;
	m->truncated = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
	collect(m, &message);
	m->size = (size_t)n;
	return n > 0 || m->n_fds > 0 || !is_at_end(socket);
}

void record_message_clear(struct record_message *m)
{
	for (unsigned i = 0; i < m->n_fds; i++)
		cleanup_fd(&m->fds[i]);
	m->n_fds = m->next_fd = 0;
	m->size = m->at = 0;
}

/* ---- Reading ---- */

/* The frame at `at`, with room for what it says of itself; or NULL: damaged, or cut off. */
static const struct frame *frame_at(const struct record_message *m, size_t at)
{
	const struct frame *f = (const void *)((const uint8_t *)m->bytes + at);

	if (at > m->size || m->size - at < sizeof(*f) || f->reserved != 0 ||
	    f->size > m->size - at - sizeof(*f) || padded(f->size) > m->size - at - sizeof(*f))
		return NULL;
	return f;
}

static size_t frame_end(const struct frame *f, size_t at)
{
	return at + sizeof(*f) + padded(f->size);
}

/* Whether the frames take the fds that the message was sent with. Of frames that end too early the
 * last one will be told as damaged; the former ones have their fds. */
static bool fds_agree(const struct record_message *m)
{
	const struct header *h = (const void *)m->bytes;
	const struct frame *f;
	size_t at = sizeof(*h), n_fds = 0;

	for (; (f = frame_at(m, at)); at = frame_end(f, at))
		n_fds += f->n_fds;
	return at != h->size || n_fds == h->n_fds;
}

/* NULL, or why none of it can be read. */
static const char *check_header(const struct record_message *m)
{
	const struct header *h = (const void *)m->bytes;

	if (m->size < sizeof(*h) || h->magic != RECORD_MAGIC)
		return "this is no message between a loop and a holder";
	if (h->version != RECORD_VERSION)
		return "it is of another version of readyd";
	if (h->size < m->size || h->reserved != 0)
		return "it is longer than it says";
	if (m->n_fds > h->n_fds)
		return "it brings more descriptors than it says";
	if (!fds_agree(m))
		return "its operations have more or fewer descriptors than it says";
	return NULL;
}

static int give_up(struct record_message *m, const char *reason, const char **ret_reason)
{
	m->at = SIZE_MAX;
	*ret_reason = reason;
	return -EBADMSG;
}

/* The fds of the next operation: whether all of them have come. */
static bool take_fds(struct record_message *m, unsigned n)
{
	unsigned first = m->next_fd;

	m->next_fd += n;
	if (n > 0 && m->next_fd > m->n_fds)
		return false;
	for (unsigned i = first; i < m->next_fd; i++)
		if (m->fds[i] < 0)
			return false;
	return true;
}

/* The operation of a whole frame: 1 or -EINVAL. */
static int read_op(struct record_message *m, const struct frame *f, struct record_op *ret,
		   const char **ret_reason)
{
	const void *payload = f + 1;
	size_t payload_size = payload_size_of(f->type);

	if (payload_size > f->size)
		payload_size = f->size;
	*ret = (struct record_op){
		.type = f->type,
		.value = f->value,
		.first_fd = m->next_fd < m->n_fds ? m->next_fd : m->n_fds,
		.n_fds = f->n_fds,
	};
	*ret_reason = check_op(f->type, payload, payload_size, f->size - payload_size, f->n_fds);
	if (!take_fds(m, f->n_fds) && !*ret_reason)
		*ret_reason = "its descriptors were lost on the way: there are too few left to "
			      "this process (RLIMIT_NOFILE)";
	if (*ret_reason)
		return -EINVAL;
	if (payload_size == sizeof(struct record))
		ret->record = payload;
	else if (payload_size > 0)
		ret->drop = payload;
	if (f->type == RECORD_HOLD)
		ret->text = (const uint8_t *)payload + payload_size;
	return 1;
}

int record_message_next(struct record_message *m, struct record_op *ret, const char **ret_reason)
{
	const struct header *h = (const void *)m->bytes;
	const struct frame *f;
	const char *reason;

	*ret = (struct record_op){0};
	if (m->at == SIZE_MAX)
		return 0;
	if (m->at == 0) {
		reason = check_header(m);
		if (reason)
			return give_up(m, reason, ret_reason);
		m->at = sizeof(*h);
	}
	if (m->at == h->size) {
		m->at = SIZE_MAX;
		return 0;
	}
	f = frame_at(m, m->at);
	if (!f)
		return give_up(m, "an operation in it is damaged, or its end is missing",
			       ret_reason);
	m->at = frame_end(f, m->at);
	return read_op(m, f, ret, ret_reason);
}
