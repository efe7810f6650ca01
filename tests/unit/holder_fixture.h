/* SPDX-License-Identifier: MIT */
#ifndef READYD_HOLDER_FIXTURE_H
#define READYD_HOLDER_FIXTURE_H

/* What tests of holders need: the loop's side of their messages, and a socket whose last close takes
 * as long as the test likes. */

#include <setjmp.h>
#include <stdarg.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/edge/record.h"
#include "daemon/poller/fd.h"
#include "record_fixture.h"

enum {
	PATIENCE_MS = 60000,
	LINGER_S = 120, /* longer than any test waits */
	PARKS_MAX = 1024,
};

#define TEXT_SIZE (sizeof(RECORD_TEXT) - 1)

static inline void raise_fds(void)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* ---- Sending ---- */

static inline void send_batch(int socket, const struct record_batch *b)
{
	struct pollfd polled = {.fd = socket, .events = POLLOUT};
	int r;

	while ((r = record_batch_send(b, socket)) == -EAGAIN)
		assert_int_equal(poll(&polled, 1, PATIENCE_MS), 1);
	assert_int_equal(r, 0);
}

static inline void send_op(int socket, enum record_op_type type, uint32_t value, const int *fds,
			   unsigned n_fds)
{
	static struct record_batch b;

	record_batch_clear(&b);
	assert_int_equal(record_batch_add(&b, type, value, NULL, 0, NULL, 0, fds, n_fds), 0);
	send_batch(socket, &b);
}

/* HOLD or CHANGE. */
static inline void send_record(int socket, enum record_op_type type, const struct record *r,
			       const int *fds)
{
	static struct record_batch b;
	size_t text_size = type == RECORD_HOLD ? record_text_size(r) : 0;
	unsigned n_fds = (type == RECORD_HOLD) + (unsigned)r->maker_fd + r->worker_fd;

	record_batch_clear(&b);
	assert_int_equal(
		record_batch_add(&b, type, 0, r, sizeof(*r), RECORD_TEXT, text_size, fds, n_fds),
		0);
	send_batch(socket, &b);
}

static inline void send_drop(int socket, const struct record *r, bool shut_down)
{
	static struct record_batch b;
	struct record_drop drop = {.serial = r->serial, .shut_down = shut_down};

	memcpy(drop.token, r->token, sizeof(drop.token));
	record_batch_clear(&b);
	assert_int_equal(
		record_batch_add(&b, RECORD_DROP, 0, &drop, sizeof(drop), NULL, 0, NULL, 0), 0);
	send_batch(socket, &b);
}

/* ---- Parks that came back ---- */

struct returned {
	unsigned n;
	struct record records[PARKS_MAX];
	int fds[PARKS_MAX][3];
	struct record_message message;
};

static inline void returned_clear(struct returned *ret)
{
	for (unsigned i = 0; i < ret->n; i++)
		for (unsigned j = 0; j < 3; j++)
			if (ret->fds[i][j] >= 0)
				(void)close(ret->fds[i][j]);
	ret->n = 0;
}

static inline void take_returned(struct returned *ret, const struct record_op *op)
{
	int *fds = ret->message.fds + op->first_fd;

	assert_true(ret->n < PARKS_MAX);
	ret->records[ret->n] = *op->record;
	memset(ret->fds[ret->n], 0xff, sizeof(ret->fds[0]));
	for (unsigned i = 0; i < op->n_fds; i++) {
		ret->fds[ret->n][i] = fds[i];
		fds[i] = -1;
	}
	ret->n++;
}

/* Reads one message; true: END of that epoch was in it. `n`: the parks of epochs that were broken
 * off are not kept. */
static inline bool read_returned(int socket, uint32_t epoch, struct returned *ret)
{
	struct pollfd polled = {.fd = socket, .events = POLLIN};
	struct record_op op;
	const char *reason;
	bool ended = false;
	int r;

	assert_int_equal(poll(&polled, 1, PATIENCE_MS), 1);
	assert_int_equal(record_message_receive(&ret->message, socket, MSG_DONTWAIT), 1);
	while ((r = record_message_next(&ret->message, &op, &reason)) != 0) {
		assert_int_equal(r, 1);
		assert_false(ended);
		if (op.type == RECORD_END) {
			ended = op.value == epoch;
			continue;
		}
		if (op.type >= RECORD_STORED) /* of what was said before */
			continue;
		assert_int_equal(op.type, RECORD_HOLD);
		take_returned(ret, &op);
	}
	record_message_clear(&ret->message);
	return ended;
}

/* Asks for all and waits for them. */
static inline void give_back(int socket, uint32_t epoch, struct returned *ret)
{
	ret->n = 0;
	send_op(socket, RECORD_GIVE_BACK, epoch, NULL, 0);
	while (!read_returned(socket, epoch, ret))
		;
}

/* Its place among those that came back; PARKS_MAX: it did not. */
static inline unsigned find_returned(const struct returned *ret, uint64_t number)
{
	for (unsigned i = 0; i < ret->n; i++)
		if (ret->records[i].number == number)
			return i;
	return PARKS_MAX;
}

/* ---- Closing ---- */

/* Waits until nobody has the other end any more. */
static inline void wait_for_hangup(int fd)
{
	struct pollfd polled = {.fd = fd};

	assert_int_equal(poll(&polled, 1, PATIENCE_MS), 1);
	assert_true(polled.revents & (POLLHUP | POLLERR));
}

static inline bool is_hung_up(int fd)
{
	struct pollfd polled = {.fd = fd};

	return poll(&polled, 1, 0) == 1;
}

/* A TCP connection to itself. ret[0] has sent more than ret[1] has room for, and lingers: its last
 * close waits until ret[1] has read it, or is closed. Returns how many bytes are under way. */
static inline size_t lingering_pair(int ret[2])
{
	struct linger linger = {.l_onoff = 1, .l_linger = LINGER_S};
	struct sockaddr_in address = {.sin_family = AF_INET};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof(address);
	static char bytes[65536];
	size_t sent = 0;
	ssize_t n;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(ret[0] >= 0);
	assert_int_equal(connect(ret[0], (struct sockaddr *)&address, sizeof(address)), 0);
	ret[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(ret[1] >= 0);
	(void)close(listener);
	while ((n = send(ret[0], bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		sent += (size_t)n;
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(setsockopt(ret[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	return sent;
}

/* The same, where the one that lingers is in the queue of ret[0], a Unix socket, which does not say
 * that its last close waits. */
static inline void blocking_pair(int ret[2])
{
	static struct record_batch b;
	int linger[2], outer[2];

	(void)lingering_pair(linger);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, outer), 0);
	record_batch_clear(&b);
	assert_int_equal(record_batch_add(&b, RECORD_CLOSE, 0, NULL, 0, NULL, 0, linger, 1), 0);
	send_batch(outer[1], &b);
	(void)close(outer[1]);
	(void)close(linger[0]);
	ret[0] = outer[0];
	ret[1] = linger[1];
}

/* Waits for the end of a child: waitid(2)'s word on it. */
static inline siginfo_t wait_for_child(pid_t pid)
{
	siginfo_t info = {0};

	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED), 0);
	return info;
}

#endif
