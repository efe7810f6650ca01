/* SPDX-License-Identifier: MIT */
#include "twins.h"

#include <fcntl.h>
#include <search.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/poller/fd.h"

/*
 * A tree of a user's parks (tsearch(3)), by the file's device and inode number, and among equal ones
 * by the order that the kernel gives descriptions (kcmp(2)). Sockets and pipes have numbers of their
 * own, so of 10,000 the kernel is asked about one at most. Eventfds, timerfds and the like share one
 * number: then it is asked about fourteen.
 *
 * What an earlier loop had is put in at the first question, all of it: a restart is not the time for
 * that. A park that does not fit, for want of memory, is only not found.
 *
 * Kernel behaviour relied on: statx(2) with AT_STATX_DONT_SYNC and kcmp(2) take no lock of the file.
 */

static uint64_t file_of(int fd)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) < 0)
		return 0;
	return st.stx_ino ^ (uint64_t)st.stx_dev_major << 52 ^ (uint64_t)st.stx_dev_minor << 32;
}

static int compare(const void *left, const void *right)
{
	const struct park *a = left, *b = right;
	int r;

	if (a == b)
		return 0;
	if (a->file != b->file)
		return a->file < b->file ? -1 : 1;
	r = fd_compare_descriptions(a->fd, b->fd);
	if (r == FD_CANNOT_COMPARE)
		r = a->fd < b->fd ? -1 : 1;
	return r;
}

static void add_all(struct parking *k)
{
	uint64_t cursor = 0;
	struct park *p;

	while ((p = parks_next(k->server->parks, k->owner, &cursor)))
		if (p->fd >= 0)
			twins_add(k, p);
	k->twins_known = true;
}

bool twins_find(struct parking *k, int fd)
{
	struct park wanted = {.fd = fd, .file = file_of(fd)};

	if (!k->twins_known)
		add_all(k);
	return tfind(&wanted, &k->twins, compare);
}

void twins_add(struct parking *k, struct park *p)
{
	struct park **node;

	if (p->caller_flags & PARKING_IN_TWINS)
		return;
	p->file = file_of(p->fd);
	node = tsearch(p, &k->twins, compare);
	if (node && *node == p)
		p->caller_flags |= PARKING_IN_TWINS;
}

void twins_remove(struct parking *k, struct park *p)
{
	if (!(p->caller_flags & PARKING_IN_TWINS))
		return;
	(void)tdelete(p, &k->twins, compare);
	p->caller_flags &= ~(uint32_t)PARKING_IN_TWINS;
}

static void keep(void *unused)
{
	(void)unused;
}

void twins_deinit(struct parking *k)
{
	tdestroy(k->twins, keep);
	k->twins = NULL;
}
