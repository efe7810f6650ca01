/* SPDX-License-Identifier: MIT */
#include "landing.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "daemon/poller/fd.h"

/*
 * The kernel's key of an epoll registration is (description, fd number). The zone is empty when a
 * message is received, so its k-th fd lands on number 3 + k, is added under that number, and one
 * close_range() empties the zone: one system call a watch besides the look at its kind.
 *
 * Two cases need more. A description that sits on its number already (a dup, or a dead
 * registration) goes to another lane: its copy is brought there with dup3(), which closes whatever
 * sits there. And a re-sent fd must be brought onto the lane of its watch. In both, an fd that no
 * record has taken yet must not be overwritten: it is moved above the zone first. Fds that were
 * taken and dealt with may be.
 */

static void collect(struct landing *l, const struct cmsghdr *c)
{
	size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
		if (l->n < WIRE_FDS_MAX)
			l->fds[l->n++] = fd;
		else
			(void)close(fd); /* cannot be: the control buffer holds no more */
	}
}

void landing_init(struct landing *l, struct msghdr *message)
{
	l->n = 0;
	l->next = 0;
	l->tries = 0;
	l->truncated = message->msg_flags & MSG_CTRUNC;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			collect(l, c);
}

void landing_clear(struct landing *l)
{
	if (l->n == 0)
		return;
#ifdef READYD_MUTANT_FD_KEPT
	(void)fcntl(l->fds[0], F_DUPFD_CLOEXEC, FD_LASTING);
#endif
	for (unsigned i = 0; i < l->n; i++)
		if (l->fds[i] > FD_ZONE_LAST)
			(void)close(l->fds[i]);
	fd_zone_unplug();
	l->n = 0;
}

int landing_take(struct landing *l)
{
	int fd;

	if (l->next == l->n)
		return l->truncated ? -EMFILE : -EBADF;
	fd = l->fds[l->next++];
	return fd < 0 ? -EMFILE : fd;
}

/* Moves an untaken fd that sits on `number` above the zone. */
static int clear_number(struct landing *l, int number)
{
	for (unsigned i = l->next; i < l->n; i++) {
		int fd;

		if (l->fds[i] != number)
			continue;
		fd = fcntl(number, F_DUPFD_CLOEXEC, FD_LASTING);
		if (fd < 0)
			return -errno;
		l->fds[i] = fd;
		return 0;
	}
	return 0;
}

/* Puts a copy of fd on `number`, in the zone. */
static int bring(struct landing *l, int fd, int number)
{
	int r;

	assert(number >= FD_ZONE_FIRST && number <= FD_ZONE_LAST);
	if (fd == number)
		return 0;
	r = clear_number(l, number);
	if (r < 0)
		return r;
	return dup3(fd, number, O_CLOEXEC) < 0 ? -errno : 0;
}

static int next_lane(int lane)
{
	return lane < FD_ZONE_FIRST || lane >= FD_ZONE_LAST ? FD_ZONE_FIRST : lane + 1;
}

/* Walks the lanes from the hint on, with a copy that is out of their way. */
static int watch_on_other_lane(struct landing *l, int fd, struct poller *p, struct poller_set *set,
			       uint64_t tag, unsigned interest, uint8_t *hint, uint32_t *ret_word)
{
	int lane = *hint < FD_ZONE_FIRST ? FD_ZONE_FIRST : *hint, first = lane, r = -EEXIST;

	do {
		if (l->tries == LANDING_TRIES)
			return -EEXIST;
		l->tries++;
		r = bring(l, fd, lane);
		if (r == 0)
			r = poller_open(p, set, lane, tag, interest, ret_word);
		lane = next_lane(lane);
	} while (r == -EEXIST && lane != first);
	if (r == 0)
		*hint = (uint8_t)lane;
	return r;
}

int landing_watch(struct landing *l, int fd, struct poller *p, struct poller_set *set, uint64_t tag,
		  unsigned interest, uint8_t *hint, uint32_t *ret_word)
{
	bool in_zone = fd >= FD_ZONE_FIRST && fd <= FD_ZONE_LAST;
	int copy, r = -EEXIST;

	/* Above the zone there is no lane: an fd that was moved out of the way goes back into it. */
	if (in_zone || !(poller_caps(p) & POLLER_WEAK))
		r = poller_open(p, set, fd, tag, interest, ret_word);
	if (r != -EEXIST)
		return r;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, FD_LASTING);
	if (copy < 0)
		return -errno;
	r = watch_on_other_lane(l, copy, p, set, tag, interest, hint, ret_word);
	(void)close(copy);
	return r;
}

int landing_unwatch(struct landing *l, int fd, struct poller *p, struct poller_set *set,
		    uint64_t tag, uint32_t word)
{
	int r;

#ifdef READYD_MUTANT_LANE_NOT_KEPT
	word = (uint32_t)fd;
#endif
	r = bring(l, fd, (int)word);
	return r < 0 ? r : poller_close(p, set, (int)word, tag, word);
}
