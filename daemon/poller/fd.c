/* SPDX-License-Identifier: MIT */
/*
 * The fd table's layout (fd.h). Nothing is owned here and nothing is remembered: the table itself
 * is the state.
 *
 * Kernel behaviour relied on: a new fd gets the lowest free number, so a plugged zone sends
 * whatever is opened to FD_LASTING or above, and an empty zone catches what recvmsg(2) installs.
 * F_DUPFD_QUERY (Linux 6.10) and kcmp(2) compare file pointers only: they take no lock of the
 * file, so the owner of a client's fd cannot make them wait.
 */
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"

#ifndef F_LINUX_SPECIFIC_BASE
#define F_LINUX_SPECIFIC_BASE 1024
#endif
#ifndef F_DUPFD_QUERY
#define F_DUPFD_QUERY (F_LINUX_SPECIFIC_BASE + 3)
#endif

enum { LOOKED_AT = 4096 };

int fd_move_up(int fd)
{
	int moved;

	if (fd >= FD_LASTING)
		return fd;
	moved = fcntl(fd, F_DUPFD_CLOEXEC, FD_LASTING);
	if (moved < 0) /* EINVAL: the limit is not above FD_LASTING */
		moved = errno == EINVAL ? -EMFILE : -errno;
	if (fd >= 0)
		(void)close(fd);
	return moved;
}

/* Undoes a plugging that failed: what stood in the zone before it stays. */
static void unplug(const bool plugged[FD_LASTING])
{
	for (int fd = 0; fd < FD_LASTING; fd++)
		if (plugged[fd])
			(void)close(fd);
}

int fd_zone_plug(void)
{
	CLEANUP_FD int null = -1;
	bool plugged[FD_LASTING] = {false};

	/* The standard numbers' plugs stay for good, and through exec. */
	do {
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null < 0) {
			int r = -errno;

			unplug(plugged);
			return r;
		}
		if (null < FD_ZONE_FIRST) {
			plugged[null] = true;
			(void)fcntl(null, F_SETFD, 0);
		}
	} while (null < FD_ZONE_FIRST);

	for (;;) {
		int fd = fcntl(null, F_DUPFD_CLOEXEC, 0);

		if (fd < 0) {
			int r = -errno;

			unplug(plugged);
			return r;
		}
		if (fd >= FD_LASTING) {
			(void)close(fd);
			break;
		}
		plugged[fd] = true;
	}
	/* The source is a plug itself, where it stands in the zone. */
	if (null < FD_LASTING)
		(void)steal_fd(&null);
	return 0;
}

void fd_zone_unplug(void)
{
	if (syscall(SYS_close_range, FD_ZONE_FIRST, FD_ZONE_LAST, 0) == 0)
		return;
	for (int fd = FD_ZONE_FIRST; fd <= FD_ZONE_LAST; fd++)
		(void)close(fd);
}

/* One call for all: a new loop is in a hurry. */
uint64_t fd_count_lasting(uint64_t max)
{
	struct pollfd polled[LOOKED_AT];
	nfds_t n = max < LOOKED_AT ? max : LOOKED_AT;
	uint64_t open = 0;

	for (nfds_t fd = 0; fd < n; fd++)
		polled[fd] = (struct pollfd){.fd = (int)fd};
	if (poll(polled, n, 0) < 0)
		return 0;
	for (nfds_t fd = 0; fd < n; fd++)
		if ((fd < FD_ZONE_FIRST || fd > FD_ZONE_LAST) && !(polled[fd].revents & POLLNVAL))
			open++;
	return open;
}

int fd_same_description(int a, int b)
{
	int r = fcntl(a, F_DUPFD_QUERY, b);
	pid_t self;

	if (r >= 0)
		return r;
	if (errno != EINVAL)
		return -errno;
	self = getpid();
	r = (int)syscall(SYS_kcmp, self, self, KCMP_FILE, a, b);
	return r < 0 ? -errno : r == 0;
}

int fd_compare_descriptions(int a, int b)
{
	pid_t self = getpid();

	switch (syscall(SYS_kcmp, self, self, KCMP_FILE, a, b)) {
	case 0:
		return 0;
	case 1:
		return -1;
	case 2:
		return 1;
	default:
		return FD_CANNOT_COMPARE;
	}
}
