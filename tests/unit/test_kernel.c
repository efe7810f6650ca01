/* SPDX-License-Identifier: MIT */
/*
 * The kernel behaviour that readyd is built on, each in one small test under the number of the
 * fact, so that a kernel that changes its mind is a failing test and not a lost event.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FDS = 253 };

#define ET_BOTH ((uint32_t)EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

/* ---- tools ---- */

static int epoll_make(void)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int event_make(unsigned value)
{
	int fd = eventfd(value, EFD_CLOEXEC | EFD_NONBLOCK);

	assert_true(fd >= 0);
	return fd;
}

static void pair_make(int type, int ends[2])
{
	assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
}

static void pair_close(const int ends[2])
{
	close(ends[0]);
	close(ends[1]);
}

/* 0 or the errno. */
static int control(int ep, int op, int fd, uint32_t events, uint64_t word)
{
	struct epoll_event event = {.events = events, .data.u64 = word};

	return epoll_ctl(ep, op, fd, &event) < 0 ? errno : 0;
}

/* The one event that is there: its bits, or 0 where none is. */
static uint32_t ask(int ep, uint64_t *ret_word)
{
	struct epoll_event event[2];
	int n = epoll_wait(ep, event, 2, 0);

	assert_in_range(n, 0, 1);
	if (n == 1 && ret_word)
		*ret_word = event[0].data.u64;
	return n == 1 ? event[0].events : 0;
}

union control_space {
	struct cmsghdr header;
	char space[CMSG_SPACE(2 * MAX_FDS * sizeof(int))];
};

/* Sends n_data bytes with n copies of fd, in one block or two. 0 or the errno. */
static int send_fds(int via, size_t n_data, int fd, unsigned n, unsigned n_second)
{
	union control_space control = {0};
	char data[64] = "data";
	struct iovec part = {data, n_data};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control};
	const unsigned blocks[2] = {n, n_second};
	struct cmsghdr *c = &control.header;

	for (unsigned b = 0; b < 2 && blocks[b]; b++) {
		c = (struct cmsghdr *)(void *)(control.space + message.msg_controllen);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(blocks[b] * sizeof(int));
		for (unsigned i = 0; i < blocks[b]; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(fd));
		message.msg_controllen += CMSG_SPACE(blocks[b] * sizeof(int));
	}
	return sendmsg(via, &message, MSG_NOSIGNAL) < 0 ? errno : 0;
}

struct received {
	ssize_t n_data; /* or -errno */
	int flags;
	unsigned n_fds, n_blocks;
	int fds[MAX_FDS + 1];
};

/* Receives with room for so many bytes and fds. */
static struct received receive(int via, size_t room, unsigned fd_room)
{
	struct received r = {0};
	union control_space control = {0};
	char data[64];
	struct iovec part = {data, room};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = fd_room ? &control : NULL,
		.msg_controllen = fd_room ? CMSG_LEN(fd_room * sizeof(int)) : 0,
	};

	r.n_data = recvmsg(via, &message, MSG_CMSG_CLOEXEC);
	if (r.n_data < 0) {
		r.n_data = -errno;
		return r;
	}
	r.flags = message.msg_flags;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		unsigned n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		assert_int_equal(c->cmsg_type, SCM_RIGHTS);
		assert_true(r.n_fds + n <= MAX_FDS + 1);
		memcpy(r.fds + r.n_fds, CMSG_DATA(c), n * sizeof(int));
		r.n_fds += n;
		r.n_blocks++;
	}
	return r;
}

static void received_close(const struct received *r)
{
	for (unsigned i = 0; i < r->n_fds; i++)
		close(r->fds[i]);
}

/* ---- registrations ---- */

static void k014_files_cannot_be_polled(void **state)
{
	int ep = epoll_make();
	FILE *file = tmpfile();
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)state;
	assert_non_null(file);
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fileno(file), EPOLLIN, 0), EPERM);
	assert_int_equal(control(ep, EPOLL_CTL_ADD, null, EPOLLIN, 0), EPERM);
	assert_int_equal(control(ep, EPOLL_CTL_DEL, null, 0, 0), EPERM);
	fclose(file);
	close(null);
	close(ep);
}

static void k015_path_descriptors_are_bad(void **state)
{
	int ep = epoll_make();
	int path = open("/", O_PATH | O_CLOEXEC);

	(void)state;
	assert_int_equal(control(ep, EPOLL_CTL_ADD, path, EPOLLIN, 0), EBADF);
	close(path);
	close(ep);
}

/* The key is (description, number): and MOD on EEXIST takes the events away from the first. */
static void k039_second_add_is_eexist(void **state)
{
	int ep = epoll_make(), fd = event_make(0);
	uint64_t word = 0;

	(void)state;
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fd, ET_BOTH & ~EPOLLOUT, 1), 0);
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fd, ET_BOTH & ~EPOLLOUT, 2), EEXIST);
	assert_int_equal(eventfd_write(fd, 1), 0);
	assert_int_equal(ask(ep, &word), EPOLLIN);
	assert_int_equal(word, 1);
	assert_int_equal(control(ep, EPOLL_CTL_MOD, fd, ET_BOTH & ~EPOLLOUT, 2), 0);
	assert_int_equal(eventfd_write(fd, 1), 0);
	assert_int_equal(ask(ep, &word), EPOLLIN);
	assert_int_equal(word, 2);
	close(fd);
	close(ep);
}

static void k039_another_number_is_another_registration(void **state)
{
	int ep = epoll_make(), fd = event_make(0), copy = dup(fd);
	struct epoll_event events[3];

	(void)state;
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 1), 0);
	assert_int_equal(control(ep, EPOLL_CTL_ADD, copy, EPOLLIN | EPOLLET, 2), 0);
	assert_int_equal(eventfd_write(fd, 1), 0);
	assert_int_equal(epoll_wait(ep, events, 3, 0), 2);
	close(copy);
	close(fd);
	close(ep);
}

/* A registration left behind keeps its lane; the same description on the number ends it. */
static void k040_the_lane_is_taken_until_the_description_goes(void **state)
{
	int ep = epoll_make(), fd = event_make(0), kept = dup(fd), other = event_make(0);

	(void)state;
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 1), 0);
	close(fd);
	assert_int_equal(control(ep, EPOLL_CTL_DEL, fd, 0, 0), EBADF);
	assert_int_equal(dup2(other, fd), fd);
	assert_int_equal(control(ep, EPOLL_CTL_DEL, fd, 0, 0), ENOENT);
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 2), 0);
	assert_int_equal(dup2(kept, fd), fd);
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 3), EEXIST);
	assert_int_equal(control(ep, EPOLL_CTL_DEL, fd, 0, 0), 0);
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 3), 0);
	close(fd);
	close(kept);
	close(other);
	close(ep);
}

static void k041_mod_reports_the_level_again(void **state)
{
	int ep = epoll_make(), fd = event_make(1);

	(void)state;
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 1), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ask(ep, NULL), EPOLLIN);
		assert_int_equal(ask(ep, NULL), 0);
		assert_int_equal(control(ep, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLET, 1), 0);
	}
	close(fd);
	close(ep);
}

static void k042_fires_while_any_copy_is_open(void **state)
{
	int ep = epoll_make(), fd = event_make(0), copy = dup(fd);

	(void)state;
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 1), 0);
	close(fd);
	assert_int_equal(eventfd_write(copy, 1), 0);
	assert_int_equal(ask(ep, NULL), EPOLLIN);
	assert_int_equal(eventfd_write(copy, 1), 0);
	close(copy);
	assert_int_equal(ask(ep, NULL), 0);
	close(ep);
}

/* The weak watch: the receiver of a passed fd adds it and closes it; the sender's close ends all,
 * and the peer sees the end. */
static void weak_watch_dies_with_the_senders_close(void **state)
{
	int ep = epoll_make(), via[2], ends[2];
	struct received r;
	char byte;

	(void)state;
	pair_make(SOCK_SEQPACKET, via);
	pair_make(SOCK_STREAM, ends);
	assert_int_equal(send_fds(via[0], 1, ends[0], 1, 0), 0);
	r = receive(via[1], 64, 1);
	assert_int_equal(r.n_fds, 1);
	assert_int_equal(control(ep, EPOLL_CTL_ADD, r.fds[0], ET_BOTH & ~EPOLLOUT, 5), 0);
	received_close(&r);
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_int_equal(ask(ep, NULL), EPOLLIN);
	assert_int_equal(read(ends[0], &byte, 1), 1);
	close(ends[0]);
	assert_int_equal(ask(ep, NULL), 0); /* silent */
	assert_int_equal(read(ends[1], &byte, 1), 0);
	close(ends[1]);
	pair_close(via);
	close(ep);
}

static void k038_lives_on_in_an_unread_message(void **state)
{
	int ep = epoll_make(), fd = event_make(0), writer = dup(fd), via[2];
	struct received r;

	(void)state;
	pair_make(SOCK_SEQPACKET, via);
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 1), 0);
	assert_int_equal(send_fds(via[0], 1, fd, 1, 0), 0);
	assert_int_equal(eventfd_write(writer, 1), 0);
	close(fd);
	close(writer);
	assert_int_equal(ask(ep, NULL), EPOLLIN);
	r = receive(via[1], 64, 1);
	assert_int_equal(r.n_fds, 1);
	assert_int_equal(eventfd_write(r.fds[0], 1), 0);
	assert_int_equal(ask(ep, NULL), EPOLLIN);
	assert_int_equal(eventfd_write(r.fds[0], 1), 0);
	received_close(&r);
	assert_int_equal(ask(ep, NULL), 0);
	pair_close(via);
	close(ep);
}

static void k045_501_nested_epolls_are_einval(void **state)
{
	enum { N = 501 };
	int main_ep = epoll_make(), fd = event_make(1), *eps = calloc(N, sizeof(*eps));

	(void)state;
	assert_non_null(eps);
	for (int i = 0; i < N; i++) {
		eps[i] = epoll_make();
		assert_int_equal(control(main_ep, EPOLL_CTL_ADD, eps[i], EPOLLIN, 0), 0);
		assert_int_equal(control(eps[i], EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 0),
				 i < 500 ? 0 : EINVAL);
	}
	for (int i = 0; i < 500; i++)
		assert_int_equal(ask(eps[i], NULL), EPOLLIN);
	for (int i = 0; i < N; i++)
		close(eps[i]);
	free(eps);
	close(fd);
	close(main_ep);
}

/* Level-triggered in the main one, a bounded take loses nothing; edge-triggered it would. */
static void nested_epoll_keeps_what_a_bounded_take_left(void **state)
{
	int main_ep = epoll_make(), nested = epoll_make(), fds[5];
	struct epoll_event events[2];
	int expected[] = {2, 2, 1};

	(void)state;
	assert_int_equal(control(main_ep, EPOLL_CTL_ADD, nested, EPOLLIN, 0), 0);
	for (int i = 0; i < 5; i++) {
		fds[i] = event_make(1);
		assert_int_equal(control(nested, EPOLL_CTL_ADD, fds[i], EPOLLIN | EPOLLET, i), 0);
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ask(main_ep, NULL), EPOLLIN);
		assert_int_equal(epoll_wait(nested, events, 2, 0), expected[i]);
	}
	assert_int_equal(ask(main_ep, NULL), 0);
	for (int i = 0; i < 5; i++)
		close(fds[i]);
	close(nested);
	close(main_ep);
}

static void k050_a_muted_set_keeps_its_edges(void **state)
{
	int main_ep = epoll_make(), nested = epoll_make(), fd = event_make(0);

	(void)state;
	assert_int_equal(control(main_ep, EPOLL_CTL_ADD, nested, EPOLLIN, 0), 0);
	assert_int_equal(control(nested, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 0), 0);
	assert_int_equal(control(main_ep, EPOLL_CTL_MOD, nested, 0, 0), 0);
	assert_int_equal(eventfd_write(fd, 1), 0);
	assert_int_equal(ask(main_ep, NULL), 0);
	assert_int_equal(control(main_ep, EPOLL_CTL_MOD, nested, EPOLLIN, 0), 0);
	assert_int_equal(ask(main_ep, NULL), EPOLLIN);
	assert_int_equal(ask(nested, NULL), EPOLLIN);
	close(fd);
	close(nested);
	close(main_ep);
}

static void a_set_out_of_the_main_epoll_is_silent(void **state)
{
	int main_ep = epoll_make(), nested = epoll_make(), fd = event_make(1);

	(void)state;
	assert_int_equal(control(main_ep, EPOLL_CTL_ADD, nested, EPOLLIN, 0), 0);
	assert_int_equal(control(nested, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 0), 0);
	assert_int_equal(control(main_ep, EPOLL_CTL_DEL, nested, 0, 0), 0);
	assert_int_equal(ask(main_ep, NULL), 0);
	assert_int_equal(eventfd_write(fd, 1), 0);
	assert_int_equal(ask(main_ep, NULL), 0);
	close(fd);
	close(nested);
	close(main_ep);
}

/* ---- events ---- */

static void k054_half_close_needs_rdhup(void **state)
{
	const uint32_t asked[] = {EPOLLIN | EPOLLET, EPOLLIN | EPOLLRDHUP | EPOLLET};
	const uint32_t seen[] = {EPOLLIN, EPOLLIN | EPOLLRDHUP};

	(void)state;
	for (int i = 0; i < 2; i++) {
		int ep = epoll_make(), ends[2];

		pair_make(SOCK_STREAM, ends);
		assert_int_equal(control(ep, EPOLL_CTL_ADD, ends[0], asked[i], 0), 0);
		assert_int_equal(ask(ep, NULL), 0);
		assert_int_equal(shutdown(ends[1], SHUT_WR), 0);
		assert_int_equal(ask(ep, NULL), seen[i]);
		pair_close(ends);
		close(ep);
	}
}

/* An edge reports the whole level: a read edge on a writable socket has OUT too. */
static void an_edge_reports_the_whole_level(void **state)
{
	int ep = epoll_make(), ends[2];

	(void)state;
	pair_make(SOCK_STREAM, ends);
	assert_int_equal(control(ep, EPOLL_CTL_ADD, ends[0], ET_BOTH, 0), 0);
	assert_int_equal(ask(ep, NULL), EPOLLOUT);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(write(ends[1], "x", 1), 1);
		assert_int_equal(ask(ep, NULL), EPOLLIN | EPOLLOUT);
		assert_int_equal(ask(ep, NULL), 0);
	}
	pair_close(ends);
	close(ep);
}

static void bare_error_is_a_full_pipe_without_reader(void **state)
{
	char page[4096] = {0};

	(void)state;
	for (int full = 0; full < 2; full++) {
		int ep = epoll_make(), ends[2];

		assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
		while (full && write(ends[1], page, sizeof(page)) > 0)
			;
		assert_int_equal(control(ep, EPOLL_CTL_ADD, ends[1], ET_BOTH, 0), 0);
		(void)ask(ep, NULL);
		close(ends[0]);
		assert_int_equal(ask(ep, NULL), full ? EPOLLERR : EPOLLERR | EPOLLOUT);
		close(ends[1]);
		close(ep);
	}
}

static void k016_fresh_stream_socket_is_out_and_hup(void **state)
{
	int ep = epoll_make(), fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_int_equal(control(ep, EPOLL_CTL_ADD, fd, ET_BOTH, 0), 0);
	assert_int_equal(ask(ep, NULL), EPOLLOUT | EPOLLHUP);
	close(fd);
	close(ep);
}

/* ---- passing fds ---- */

static void k062_253_fds_a_message(void **state)
{
	int via[2], fd = event_make(0);
	struct received r;

	(void)state;
	pair_make(SOCK_SEQPACKET, via);
	assert_int_equal(send_fds(via[0], 4, fd, MAX_FDS + 1, 0), EINVAL);
	assert_int_equal(send_fds(via[0], 4, fd, MAX_FDS, 1), EINVAL);
	assert_int_equal(send_fds(via[0], 4, fd, MAX_FDS, 0), 0);
	r = receive(via[1], 64, MAX_FDS);
	assert_int_equal(r.n_data, 4);
	assert_int_equal(r.n_fds, MAX_FDS);
	assert_int_equal(r.flags & (MSG_CTRUNC | MSG_TRUNC), 0);
	received_close(&r);
	assert_int_equal(send_fds(via[0], 4, fd, 2, 3), 0);
	r = receive(via[1], 64, MAX_FDS);
	assert_int_equal(r.n_fds, 5);
	assert_int_equal(r.n_blocks, 1);
	received_close(&r);
	close(fd);
	pair_close(via);
}

/* New fds get the lowest free numbers, in order: the landing zone. */
static void received_fds_land_on_the_lowest_numbers(void **state)
{
	int via[2], fd = event_make(0), first, second;
	struct received r;

	(void)state;
	pair_make(SOCK_SEQPACKET, via);
	first = dup(fd);
	second = dup(fd);
	assert_int_equal(send_fds(via[0], 1, fd, 2, 0), 0);
	close(first);
	close(second);
	r = receive(via[1], 64, 2);
	assert_int_equal(r.n_fds, 2);
	assert_int_equal(r.fds[0], first);
	assert_int_equal(r.fds[1], second);
	received_close(&r);
	close(fd);
	pair_close(via);
}

static void k063_short_control_buffer_truncates(void **state)
{
	int via[2], ends[2];
	struct received r;
	char byte;

	(void)state;
	pair_make(SOCK_SEQPACKET, via);
	pair_make(SOCK_STREAM, ends);
	assert_int_equal(send_fds(via[0], 4, ends[0], 3, 0), 0);
	close(ends[0]);
	r = receive(via[1], 64, 1);
	assert_int_equal(r.n_data, 4);
	assert_true(r.flags & MSG_CTRUNC);
	/* One for sure; where the length is rounded up there is room for a second. */
	assert_in_range(r.n_fds, 1, 2);
	received_close(&r);
	assert_int_equal(read(ends[1], &byte, 1), 0); /* the rest was closed */
	close(ends[1]);
	pair_close(via);
}

static void k063_no_slots_left_truncates(void **state)
{
	int via[2], fd = event_make(0), probe;
	struct rlimit before, low;
	struct received r;

	(void)state;
	pair_make(SOCK_SEQPACKET, via);
	assert_int_equal(send_fds(via[0], 4, fd, 20, 0), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	probe = dup(fd);
	close(probe);
	low = before;
	low.rlim_cur = (rlim_t)probe + 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	r = receive(via[1], 64, MAX_FDS);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(r.n_data, 4); /* the call itself succeeds */
	assert_true(r.flags & MSG_CTRUNC);
	assert_in_range(r.n_fds, 1, 3);
	received_close(&r);
	close(fd);
	pair_close(via);
}

static void k064_empty_message_looks_like_the_end(void **state)
{
	int via[2], fd = event_make(0);
	struct received r;

	(void)state;
	pair_make(SOCK_SEQPACKET, via);
	assert_int_equal(send_fds(via[0], 0, fd, 1, 0), 0);
	r = receive(via[1], 64, 1);
	assert_int_equal(r.n_data, 0);
	assert_int_equal(r.n_fds, 1); /* and an fd rode on it */
	received_close(&r);
	assert_int_equal(receive(via[1], 64, 1).n_data, -EAGAIN);
	close(via[0]);
	r = receive(via[1], 64, 1);
	assert_int_equal(r.n_data, 0);
	assert_int_equal(r.n_fds, 0);
	close(via[1]);
	close(fd);
}

static void k065_short_data_buffer_still_gives_fds(void **state)
{
	int via[2], fd = event_make(0);
	struct received r;

	(void)state;
	pair_make(SOCK_SEQPACKET, via);
	assert_int_equal(send_fds(via[0], 64, fd, 2, 0), 0);
	r = receive(via[1], 8, 2);
	assert_int_equal(r.n_data, 8);
	assert_true(r.flags & MSG_TRUNC);
	assert_int_equal(r.n_fds, 2);
	received_close(&r);
	assert_int_equal(receive(via[1], 64, 1).n_data, -EAGAIN); /* the rest is lost */
	close(fd);
	pair_close(via);
}

static void k066_reset_comes_before_what_is_queued(void **state)
{
	int via[2], fd = event_make(0);
	struct received r;

	(void)state;
	pair_make(SOCK_SEQPACKET, via);
	assert_int_equal(send_fds(via[0], 4, fd, 1, 0), 0);
	assert_int_equal(send(via[1], "unread", 6, 0), 6);
	close(via[0]); /* with our message unread */
	assert_int_equal(receive(via[1], 64, 1).n_data, -ECONNRESET);
	r = receive(via[1], 64, 1);
	assert_int_equal(r.n_data, 4);
	assert_int_equal(r.n_fds, 1);
	received_close(&r);
	assert_int_equal(receive(via[1], 64, 1).n_data, 0);
	close(via[1]);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(k014_files_cannot_be_polled),
		cmocka_unit_test(k015_path_descriptors_are_bad),
		cmocka_unit_test(k039_second_add_is_eexist),
		cmocka_unit_test(k039_another_number_is_another_registration),
		cmocka_unit_test(k040_the_lane_is_taken_until_the_description_goes),
		cmocka_unit_test(k041_mod_reports_the_level_again),
		cmocka_unit_test(k042_fires_while_any_copy_is_open),
		cmocka_unit_test(weak_watch_dies_with_the_senders_close),
		cmocka_unit_test(k038_lives_on_in_an_unread_message),
		cmocka_unit_test(k045_501_nested_epolls_are_einval),
		cmocka_unit_test(nested_epoll_keeps_what_a_bounded_take_left),
		cmocka_unit_test(k050_a_muted_set_keeps_its_edges),
		cmocka_unit_test(a_set_out_of_the_main_epoll_is_silent),
		cmocka_unit_test(k054_half_close_needs_rdhup),
		cmocka_unit_test(an_edge_reports_the_whole_level),
		cmocka_unit_test(bare_error_is_a_full_pipe_without_reader),
		cmocka_unit_test(k016_fresh_stream_socket_is_out_and_hup),
		cmocka_unit_test(k062_253_fds_a_message),
		cmocka_unit_test(received_fds_land_on_the_lowest_numbers),
		cmocka_unit_test(k063_short_control_buffer_truncates),
		cmocka_unit_test(k063_no_slots_left_truncates),
		cmocka_unit_test(k064_empty_message_looks_like_the_end),
		cmocka_unit_test(k065_short_data_buffer_still_gives_fds),
		cmocka_unit_test(k066_reset_comes_before_what_is_queued),
	};

	return cmocka_run_group_tests_name("kernel", tests, NULL, NULL);
}
