/* SPDX-License-Identifier: MIT */

/*
 * The few messages of the store, by hand: sd_notify(3) waits without a limit when PID 1 does not
 * read, and a holder may not, since its loop takes it for stuck then.
 *
 * Kernel behaviour relied on: a datagram socket that is connected to a full queue is not writable,
 * and poll(2) tells when it is. The receiver of an fd that closes it hangs up the other end of the
 * pipe: so a barrier is a pipe.
 *
 * FDPOLL=0 always: PID 1 would drop an entry whose other end is closed, and a depot's is.
 */

#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"
#include "daemon/util/clock.h"

#define MILLISECOND INT64_C(1000000)

enum { WAITING_MS = 500 };

/* ---- What there is ---- */

/* 0: it is no number. */
static unsigned number_of(const char *text)
{
	unsigned long value;
	char *end;

	if (!text || text[0] < '0' || text[0] > '9')
		return 0;
	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end)
		return 0;
	return value > STORE_MAX ? STORE_MAX : (unsigned)value;
}

unsigned store_max(void)
{
	const char *text = getenv("FDSTORE");

	if (!getenv("NOTIFY_SOCKET"))
		return 0;
	return number_of(text ? text : getenv("READYD_STORE_MAX"));
}

void store_name(uint32_t uid, uint32_t serial, char ret[STORE_NAME_SIZE])
{
	(void)snprintf(ret, STORE_NAME_SIZE, "d%" PRIu32 ".%" PRIu32, uid, serial);
}

bool store_parse_name(const char *name, uint32_t *ret_uid, uint32_t *ret_serial)
{
	char again[STORE_NAME_SIZE];
	uint32_t uid, serial;

	if (sscanf(name, "d%10" SCNu32 ".%10" SCNu32, &uid, &serial) != 2 || serial == 0)
		return false;
	store_name(uid, serial, again); /* one form for one name */
	if (strcmp(again, name) != 0)
		return false;
	*ret_uid = uid;
	*ret_serial = serial;
	return true;
}

/* ---- Messages ---- */

int store_open(struct store *s, int64_t until)
{
	const char *address = getenv("NOTIFY_SOCKET");
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	size_t length = address ? strlen(address) : 0;
	CLEANUP_FD int fd = -1;

	s->fd = -1;
	s->until = until;
	if (length < 2 || length >= sizeof(name.sun_path) || !strchr("/@", address[0]))
		return -EINVAL;
	memcpy(name.sun_path, address, length);
	if (address[0] == '@')
		name.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&name,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
		return -errno;
	s->fd = steal_fd(&fd);
	return 0;
}

void store_close(struct store *s)
{
	if (s->fd >= 0)
		(void)close(steal_fd(&s->fd));
}

/* Until something happens to fd, or for want of patience: -ETIMEDOUT. */
static int wait_for(struct store *s, int fd, short events)
{
	struct pollfd polled = {.fd = fd, .events = events};

	for (;;) {
		int64_t left = (s->until - clock_now()) / MILLISECOND;
		int n;

		if (left <= 0)
			return -ETIMEDOUT;
		n = poll(&polled, 1, left < WAITING_MS ? (int)left + 1 : WAITING_MS);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (s->waiting)
			s->waiting(s->context);
	}
}

static int send_message(struct store *s, const char *text, int fd)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	int r;

	if (fd >= 0) {
		control.header = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	while (sendmsg(s->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		r = wait_for(s, s->fd, POLLOUT);
		if (r < 0)
			return r;
	}
	return 0;
}

int store_put(struct store *s, const char *name, int fd)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
	return send_message(s, text, fd);
}

int store_remove(struct store *s, const char *name)
{
	char text[320]; /* what PID 1 calls a name has at most 255 bytes */

	(void)snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	return send_message(s, text, -1);
}

int store_begin_barrier(struct store *s)
{
	CLEANUP_FD int mine = -1;
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	mine = ends[0];
	r = send_message(s, "BARRIER=1", ends[1]);
	(void)close(ends[1]);
	return r < 0 ? r : steal_fd(&mine);
}

int store_barrier(struct store *s)
{
	CLEANUP_FD int end = store_begin_barrier(s);

	return end < 0 ? end : wait_for(s, end, 0);
}
