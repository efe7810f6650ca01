/* SPDX-License-Identifier: MIT */
#include "closer.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"
#include "daemon/util/clock.h"

/*
 * A child made by fork has copies of all that the holder has. It first gives up everything but what
 * it is for, and says so; only then does the holder close its own copies and end their connection,
 * upon which the child exits. So no other fd can have its last copy in the child, nobody's peer
 * waits for the child, and of what lingers the child has the last copy, not the holder.
 *
 * Kernel behaviour relied on: what an exiting process closes never lingers: the bytes that were not
 * sent yet are sent in the background, as they are without SO_LINGER. And SO_LINGER is read without
 * the socket's lock, which its owner could hold.
 *
 * What remains the holder's own to wait for, and hurts no one but its uid: a socket whose owner
 * switches SO_LINGER on between the look and the close; a Unix socket that has one that lingers in
 * its queue; a lock that the owner holds. The last may keep a child from ending, too, so their
 * number is bounded; beyond it the holder closes by itself.
 */

static bool lingers(int fd)
{
	struct linger linger = {0};
	socklen_t size = sizeof(linger);

	/* ENOTSOCK: no socket. A time of 0 is a reset, which waits for nothing */
	return getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &size) == 0 && linger.l_onoff &&
	       linger.l_linger > 0;
}

static int compare_fds(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

void closer_keep_only(unsigned first, int *kept, size_t n)
{
	qsort(kept, n, sizeof(*kept), compare_fds);
	for (size_t i = 0; i < n; i++) {
		unsigned fd = (unsigned)kept[i];

		if (fd > first)
			(void)close_range(first, fd - 1, 0);
		if (fd >= first)
			first = fd + 1;
	}
	(void)close_range(first, ~0U, 0);
}

/* ---- The child ---- */

static _Noreturn void be_child(struct closer *c, int holder)
{
	int kept[CLOSER_FDS_MAX + 1];
	char byte = 0;

	(void)prctl(PR_SET_NAME, "readyd-closer");
	memcpy(kept, c->fds, c->n_fds * sizeof(*kept));
	kept[c->n_fds] = holder;
	closer_keep_only(0, kept, c->n_fds + 1U);
	(void)send(holder, &byte, sizeof(byte), MSG_NOSIGNAL);
	while (recv(holder, &byte, sizeof(byte), 0) < 0 && errno == EINTR)
		; /* the end: the holder has closed its copies, or is dead */
	_exit(0);
}

/* ---- The holder ---- */

void closer_reap(struct closer *c)
{
	while (c->n_children > 0 && waitpid(-1, NULL, WNOHANG) > 0)
		c->n_children--;
}

static bool is_ready(int child)
{
	char byte;
	ssize_t n;

	while ((n = recv(child, &byte, sizeof(byte), 0)) < 0 && errno == EINTR)
		;
	return n == sizeof(byte);
}

static void close_all(struct closer *c)
{
	while (c->n_fds > 0)
		(void)close(c->fds[--c->n_fds]);
}

/* 0: a child has the fds, too, and nothing else, until *ret is closed. -EAGAIN: enough of them are
 * there; -ESRCH: it died; another negative errno. */
static int make_child(struct closer *c, int *ret)
{
	int ends[2], r;
	pid_t pid;

	closer_reap(c);
	if (c->n_children >= CLOSER_CHILDREN_MAX)
		return -EAGAIN;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		be_child(c, ends[1]);
	r = pid < 0 ? -errno : 0;
	(void)close(ends[1]);
	c->n_children += r == 0;
	if (r == 0 && !is_ready(ends[0]))
		r = -ESRCH;
	if (r == 0)
		*ret = ends[0];
	else
		(void)close(ends[0]);
	return r;
}

void closer_flush(struct closer *c)
{
	CLEANUP_FD int child = -1;
	int r;

	if (c->n_fds == 0)
		return;
	r = make_child(c, &child);
	if (r < 0)
		log_limited(c->log, &c->alone, clock_now(), CONFIG_LOG_WARNING,
			    "the holder of uid %u closes sockets that linger by itself, and may "
			    "have to wait for their peers: %s (%u processes that close for it "
			    "have not ended)",
			    c->uid, r == -EAGAIN ? "it has no more helpers" : strerror(-r),
			    c->n_children);
	close_all(c);
}

void closer_close(struct closer *c, int fd)
{
	if (!lingers(fd)) {
		(void)close(fd);
		return;
	}
	if (c->n_fds == CLOSER_FDS_MAX)
		closer_flush(c);
	c->fds[c->n_fds++] = fd;
}
