/* SPDX-License-Identifier: MIT */
#include "channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"

/*
 * Both ends are non-blocking: a keeper must not wait for a loop that is stuck. A message that finds
 * the queue full (some hundred lie there then) is refused; the keeper says so, and the next loop
 * has what it said anyway.
 *
 * The keeper takes nothing from a loop but these eight bytes: it lets no descriptor in (the kernel
 * drops them where no room for control data is given), and a length or type that it does not know
 * is no message.
 */

enum { TEXT_MAX = 16 * 1024 * 1024 };

int channel_new(int ret[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret) < 0)
		return -errno;
	return 0;
}

int channel_send(int channel, enum channel_type type, int32_t value, int fd)
{
	struct channel_message message = {.type = type, .value = value};
	struct iovec iov = {.iov_base = &message, .iov_len = sizeof(message)};
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		header.msg_control = &control;
		header.msg_controllen = sizeof(control);
		control.header = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	while (sendmsg(channel, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int take_fd(struct msghdr *header)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(header);
	int fd;

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
	    c->cmsg_len != CMSG_LEN(sizeof(int)))
		return -1;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

int channel_receive(int channel, struct channel_message *ret, int *ret_fd)
{
	struct channel_message message;
	struct iovec iov = {.iov_base = &message, .iov_len = sizeof(message)};
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
	CLEANUP_FD int fd = -1;
	ssize_t n;

	if (ret_fd) {
		header.msg_control = &control;
		header.msg_controllen = sizeof(control);
		*ret_fd = -1;
	}
	do
		n = recvmsg(channel, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	if (ret_fd)
		fd = take_fd(&header);
	if (n == 0)
		return 0;
	if (n != sizeof(message) || (header.msg_flags & MSG_TRUNC))
		return -EBADMSG;
	*ret = message;
	if (ret_fd)
		*ret_fd = steal_fd(&fd);
	return 1;
}

int channel_text_to_fd(const char *text, size_t size)
{
	CLEANUP_FD int fd = memfd_create("readyd-configuration", MFD_CLOEXEC);
	size_t done = 0;

	if (fd >= 0)
		fd = fd_move_up(fd);
	else
		fd = -errno;
	if (fd < 0)
		return fd;
	while (done < size) {
		ssize_t n = pwrite(fd, text + done, size - done, (off_t)done);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	return steal_fd(&fd);
}

int channel_text_from_fd(int fd, char **ret, size_t *ret_size)
{
	CLEANUP_MEMORY char *text = NULL;
	size_t size, done = 0;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size <= 0 || st.st_size > TEXT_MAX)
		return -EBADMSG;
	size = (size_t)st.st_size;
	text = malloc(size);
	if (!text)
		return -ENOMEM;
	while (done < size) {
		ssize_t n = pread(fd, text + done, size - done, (off_t)done);

		if (n == 0)
			return -EBADMSG;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	*ret = STEAL(text);
	*ret_size = size;
	return 0;
}
