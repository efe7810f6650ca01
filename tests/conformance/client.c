/* SPDX-License-Identifier: MIT */

/*
 * A client of the wire made by hand from protocol/wire.h's layouts alone: it shares no code with
 * the daemon or the library. Requests are gathered into one datagram, which flush() sends with its
 * fds; what comes back is checked for its form and kept in one queue in order of arrival, from
 * which answers and entries are taken. Records that nobody takes stay and are found by
 * expect_nothing().
 */

#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct conn *conn_open(const struct env *e)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct conn *c = calloc(1, sizeof(*c));

	CHECK(c);
	c->env = e;
	c->fd = SYS(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
	CHECK(strlen(e->socket) < sizeof(address.sun_path));
	strcpy(address.sun_path, e->socket);
	SYS(connect(c->fd, (const struct sockaddr *)&address, sizeof(address)));
	return c;
}

struct conn *conn_dial(const struct env *e)
{
	static const char wanted[] = "weak edge stream ns";
	struct conn *c = conn_open(e);
	struct {
		struct wire_header header;
		struct wire_hello hello;
		char tail[24];
	} m = {
		.header = {WIRE_HELLO, 0, 1, 1, sizeof(wanted) - 1},
		.hello = {.magic = WIRE_MAGIC,
			  .lowest = WIRE_PROTOCOL_LOWEST,
			  .highest = WIRE_PROTOCOL_HIGHEST},
	};
	const struct wire_header *h;
	const void *records;
	uint64_t random = e->seed + (uint64_t)now_ns();
	size_t size = sizeof(m.header) + sizeof(m.hello) + wire_align(sizeof(wanted) - 1);

	for (size_t i = 0; i < sizeof(m.hello.handle); i++)
		m.hello.handle[i] = (uint8_t)random_next(&random);
	memcpy(m.tail, wanted, sizeof(wanted) - 1);
	c->serial = 1;
	CHECK_EQ(send_raw(c, &m, size, NULL, 0), 0);
	h = replied(c, 1, WIRE_WELCOME, &records);
	CHECK_EQ(h->count, 1);
	memcpy(&c->welcome, records, sizeof(c->welcome));
	CHECK_EQ(c->welcome.magic, WIRE_MAGIC);
	CHECK(h->tail < sizeof(c->features));
	memcpy(c->features, (const uint8_t *)records + sizeof(c->welcome), h->tail);
	return c;
}

struct conn *conn_close(struct conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->queue);
	free(c);
	return NULL;
}

bool conn_has_feature(const struct conn *c, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = c->features; (p = strstr(p, name)); p += n)
		if ((p == c->features || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
			return true;
	return false;
}

/* ---- Sending ---- */

int send_raw(struct conn *c, const void *bytes, size_t size, const int *fds, unsigned n_fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {.iov_len = size};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	memcpy(&iov.iov_base, &bytes, sizeof(bytes)); /* sendmsg only reads */
	if (n_fds) {
		struct cmsghdr *h = &control.align;

		memset(&control, 0, sizeof(control));
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	for (;;) {
		struct pollfd p = {.fd = c->fd, .events = POLLIN | POLLOUT};

		if (sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
			return 0;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (poll(&p, 1, soon_ms(c->env) * 10) == 0)
			FAIL("the daemon takes no request and sends nothing");
		if (p.revents & POLLIN)
			receive(c, 0);
	}
}

uint32_t put(struct conn *c, unsigned type, unsigned flags, const void *records, size_t count)
{
	/* the sizes stand in the layouts; a mistake here would be the client's own */
	static const uint8_t sizes[] = {
		[WIRE_HELLO] = sizeof(struct wire_hello),
		[WIRE_BREAK] = sizeof(struct wire_break),
		[WIRE_IS_POLL_DESCRIPTOR] = sizeof(struct wire_is_poll_descriptor),
		[WIRE_WATCH] = sizeof(struct wire_watch),
		[WIRE_UNWATCH] = sizeof(struct wire_unwatch),
		[WIRE_WAIT] = sizeof(struct wire_slots),
		[WIRE_UNWAIT] = sizeof(struct wire_slots),
		[WIRE_RESET] = sizeof(struct wire_slots),
		[WIRE_EVICT] = sizeof(struct wire_slots),
		[WIRE_DEADLINE] = sizeof(struct wire_deadline),
		[WIRE_TIMER_SET] = sizeof(struct wire_timer_set),
		[WIRE_TIMER_STOP] = sizeof(struct wire_timer_stop),
		[WIRE_LIST_SESSIONS] = sizeof(struct wire_list),
		[WIRE_LIST_WATCHES] = sizeof(struct wire_list),
		[WIRE_LIST_TIMERS] = sizeof(struct wire_list),
		[WIRE_LIST_QUOTAS] = sizeof(struct wire_list),
	};
	size_t bytes = type < sizeof(sizes) ? sizes[type] * count : 0;
	struct wire_header h = {
		.type = (uint16_t)type,
		.flags = (uint16_t)flags,
		.count = (uint32_t)count,
	};

	if (c->out_size + sizeof(h) + bytes > sizeof(c->out))
		flush(c);
	h.serial = ++c->serial;
	memcpy(c->out + c->out_size, &h, sizeof(h));
	if (bytes)
		memcpy(c->out + c->out_size + sizeof(h), records, bytes);
	c->out_size += sizeof(h) + bytes;
	return h.serial;
}

void put_fd(struct conn *c, int fd)
{
	CHECK(c->n_fds < WIRE_FDS_MAX);
	c->fds[c->n_fds++] = fd;
}

void flush(struct conn *c)
{
	int r;

	if (!c->out_size)
		return;
	r = send_raw(c, c->out, c->out_size, c->fds, c->n_fds);
	if (r)
		FAIL("cannot send a request: %s", strerror(-r));
	c->out_size = 0;
	c->n_fds = 0;
}

/* ---- Receiving ---- */

static void queue_add(struct conn *c, const uint8_t *record)
{
	if (c->first && c->first == c->n)
		c->first = c->n = 0;
	if (c->n == c->capacity) {
		c->capacity = c->capacity ? c->capacity * 2 : 256;
		c->queue = realloc(c->queue, c->capacity * sizeof(*c->queue));
		CHECK(c->queue);
	}
	c->queue[c->n].sequence = c->sequence++;
	memcpy(c->queue[c->n].bytes, record, sizeof(c->queue[c->n].bytes));
	c->n++;
}

static void message_got(struct conn *c, const uint8_t *bytes, size_t size)
{
	struct wire_header h;

	CHECK(size >= sizeof(h));
	memcpy(&h, bytes, sizeof(h));
	CHECK(h.type >= 0x80);
	switch (h.type) {
	case WIRE_READY:
		CHECK_EQ(size, sizeof(h) + (size_t)h.count * 24);
		CHECK(h.count > 0 && h.count <= WIRE_RECORDS_MAX);
		for (uint32_t i = 0; i < h.count; i++)
			queue_add(c, bytes + sizeof(h) + (size_t)i * 24);
		c->messages++;
		if (h.count > c->most_records)
			c->most_records = h.count;
		return;
	case WIRE_ERROR:
		CHECK(size >= sizeof(h) + sizeof(c->error));
		memcpy(&c->error, bytes + sizeof(h), sizeof(c->error));
		return;
	default:
		memcpy(c->reply, bytes, size);
		c->reply_size = size;
	}
}

bool receive(struct conn *c, int64_t until)
{
	uint8_t bytes[WIRE_MESSAGE_MAX];
	ssize_t got;

	if (c->ended)
		return false;
	for (;;) {
		struct pollfd p = {.fd = c->fd, .events = POLLIN};
		int64_t left = until - now_ns();
		struct timespec t = {0};

		got = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_TRUNC);
		if (got >= 0)
			break;
		/* a reset is told once, before what is still there to be read */
		if (errno == EINTR || errno == ECONNRESET)
			continue;
		if (errno != EAGAIN)
			FAIL("recv: %s", strerror(errno));
		if (left <= 0)
			return false;
		t.tv_sec = left / SECOND;
		t.tv_nsec = left % SECOND;
		(void)ppoll(&p, 1, &t, NULL);
	}
	if (got == 0) {
		c->ended = true;
		return false;
	}
	CHECK((size_t)got <= sizeof(bytes));
	message_got(c, bytes, (size_t)got);
	return true;
}

static void queue_remove(struct conn *c, size_t i)
{
	if (i == c->first) {
		c->first++;
		return;
	}
	memmove(c->queue + i, c->queue + i + 1, (c->n - i - 1) * sizeof(*c->queue));
	c->n--;
}

static bool record_fits(const struct received *r, uint8_t kind, uint32_t id)
{
	if (r->kind != kind || !id)
		return r->kind == kind;
	if (kind == WIRE_RECORD_ENTRY)
		return r->entry.id == id;
	if (kind == WIRE_RECORD_TIMER)
		return r->timer.id == id;
	return true;
}

bool take(struct conn *c, uint8_t kind, uint32_t id, int64_t until, struct received *ret)
{
	uint64_t seen = 0;

	for (;;) {
		for (size_t i = c->first; i < c->n; i++) {
			if (c->queue[i].sequence < seen || !record_fits(&c->queue[i], kind, id))
				continue;
			*ret = c->queue[i];
			queue_remove(c, i);
			return true;
		}
		seen = c->sequence;
		if (!receive(c, until))
			return false;
	}
}

unsigned answered(struct conn *c, uint32_t serial)
{
	int64_t until = now_ns() + 10 * soon_ms(c->env) * MS;
	struct received r;

	flush(c);
	c->n_failures = 0;
	if (!take(c, WIRE_RECORD_ANSWER, 0, until, &r))
		FAIL("no answer to request %u%s (error %u)", serial,
		     c->ended ? ": the connection ended" : "", c->error.error);
	if (r.answer.serial != serial)
		FAIL("the next answer is to %u, not %u", r.answer.serial, serial);
	c->answer = r.answer;
	c->answer_sequence = r.sequence;
	while (c->n_failures < r.answer.failed) {
		struct received f;

		if (!take(c, WIRE_RECORD_FAILURE, 0, 0, &f) || f.failure.serial != serial)
			FAIL("an answer tells of %u failures, %u came", r.answer.failed,
			     c->n_failures);
		if (f.sequence > r.sequence)
			FAIL("a failure came after its answer");
		c->failure = f.failure;
		if (c->n_failures < sizeof(c->failures) / sizeof(*c->failures))
			c->failures[c->n_failures] = f.failure;
		if (c->n_failures++ == 0)
			CHECK_EQ(f.failure.error, r.answer.error);
	}
	CHECK((r.answer.failed == 0) == (r.answer.error == WIRE_OK));
	return r.answer.error;
}

const struct wire_header *replied(struct conn *c, uint32_t serial, unsigned type,
				  const void **ret_records)
{
	int64_t until = now_ns() + 10 * soon_ms(c->env) * MS;
	struct wire_header h = {0};

	flush(c);
	for (;;) {
		if (c->reply_size >= sizeof(h)) {
			memcpy(&h, c->reply, sizeof(h));
			if (h.type != type || h.serial != serial)
				FAIL("a reply %#x to %u, not %#x to %u", h.type, h.serial, type,
				     serial);
			c->reply_size = 0;
			*ret_records = c->reply + sizeof(h);
			return (const struct wire_header *)(const void *)c->reply;
		}
		if (!receive(c, until))
			FAIL("no reply %#x to request %u%s (error %u)", type, serial,
			     c->ended ? ": the connection ended" : "", c->error.error);
	}
}

unsigned ended(struct conn *c)
{
	int64_t until = now_ns() + 10 * soon_ms(c->env) * MS;

	while (receive(c, until))
		;
	if (!c->ended)
		FAIL("the connection was not ended");
	return c->error.error;
}
