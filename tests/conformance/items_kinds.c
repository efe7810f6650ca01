/* SPDX-License-Identifier: MIT */

/*
 * S-095 to S-098: the daemon's own descriptions are told from all others and refused, as are the
 * kinds that would harm it; and what it receives is closed on exec. The daemon's descriptions are
 * had by pidfd_getfd(2), which root may use, and its parent. TAKE's part of S-098 comes with TAKE.
 */

#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client-lib/readyd.h"

#define READY WIRE_CODE_READY

static void own_connection(const struct env *e)
{
	bool before[1024] = {false};
	struct readyd *r;
	int a, b, connections = 0;

	for (int fd = 0; fd < 1024; fd++)
		before[fd] = fcntl(fd, F_GETFD) >= 0;
	r = library_connect(e, 0);
	for (int fd = 0; fd < 1024; fd++) {
		int type;
		socklen_t size = sizeof(type);

		if (before[fd] || fcntl(fd, F_GETFD) < 0)
			continue;
		CHECK_EQ(readyd_is_poll_descriptor(r, fd), 1); /* the handle's own */
		if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
		    type == SOCK_SEQPACKET) {
			int twin = SYS(dup(fd));

			CHECK_EQ(readyd_is_poll_descriptor(r, twin), 1);
			close(twin);
			connections++;
		}
	}
	CHECK_EQ(connections, 1);
	CHECK_EQ(readyd_is_poll_descriptor(r, readyd_fd(r)), 1);
	pair_make(&a, &b);
	CHECK_EQ(readyd_is_poll_descriptor(r, a), 0);
	CHECK_EQ(readyd_is_poll_descriptor(r, event_new()), 0);
	CHECK_EQ(readyd_is_poll_descriptor(r, SYS(epoll_create1(EPOLL_CLOEXEC))), 0);
	CHECK_EQ(readyd_is_poll_descriptor(r, SYS(open("/dev/null", O_RDONLY | O_CLOEXEC))), 0);
	CHECK_EQ(readyd_is_poll_descriptor(r, -1), -EBADF);
	readyd_close(r);
}

/* IS_POLL_DESCRIPTOR on the wire, for one fd. */
static bool is_own(struct conn *c, int fd)
{
	struct wire_is_poll_descriptor record = {0};
	uint32_t serial = put(c, WIRE_IS_POLL_DESCRIPTOR, WIRE_FLAG_ANSWER, &record, 1);

	put_fd(c, fd);
	expect_ok(answered(c, serial));
	CHECK(c->answer.value <= 1);
	return c->answer.value;
}

static void must_be_refused(struct conn *c, int fd)
{
	struct watch w = watch_name(c, fd);

	expect_error(ask_watch(c, &w, BOTH, WIRE_MODE_WAIT), WIRE_E_POLL_DESCRIPTOR);
}

static void own_connection_by_wire(const struct env *e)
{
	struct conn *c = conn_dial(e), *other = conn_dial(e);
	struct wire_is_poll_descriptor records[3] = {0};
	uint32_t serial;
	int a, b;

	CHECK(is_own(c, c->fd));
	CHECK(is_own(c, other->fd));
	must_be_refused(c, c->fd);
	must_be_refused(c, other->fd);
	must_be_refused(c, SYS(dup(c->fd)));
	pair_make(&a, &b);
	CHECK(!is_own(c, a));
	serial = put(c, WIRE_IS_POLL_DESCRIPTOR, WIRE_FLAG_ANSWER, records, 3);
	put_fd(c, a);
	put_fd(c, c->fd);
	put_fd(c, b);
	expect_ok(answered(c, serial));
	CHECK_EQ(c->answer.value, 2);
	expect_nothing(c);
	conn_close(c);
	conn_close(other);
}

/* What an fd of the daemon's is, by its name in /proc. */
enum own { OWN_NONE, OWN_EPOLL, OWN_EVENT, OWN_SOCKET };

static enum own own_kind(pid_t pid, const char *number)
{
	char path[320], name[64];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, number);
	n = readlink(path, name, sizeof(name) - 1);
	if (n <= 0)
		return OWN_NONE;
	name[n] = '\0';
	if (!strcmp(name, "anon_inode:[eventpoll]"))
		return OWN_EPOLL;
	if (!strcmp(name, "anon_inode:[eventfd]"))
		return OWN_EVENT;
	return strncmp(name, "socket:", 7) ? OWN_NONE : OWN_SOCKET;
}

/* The daemon's sockets that serve clients; another (a log's) is no poll descriptor. */
static bool serves(int fd)
{
	int type;
	socklen_t size = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

static unsigned try_own(const struct env *e, enum own wanted)
{
	struct conn *c = conn_dial(e);
	int pidfd = SYS(syscall(SYS_pidfd_open, e->pid, 0));
	struct dirent *entry;
	unsigned n = 0;
	char path[64];
	DIR *dir;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)e->pid);
	dir = opendir(path);
	CHECK(dir);
	while ((entry = readdir(dir))) {
		int fd;

		if (entry->d_name[0] == '.' || own_kind(e->pid, entry->d_name) != wanted)
			continue;
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(entry->d_name), 0);
		if (fd < 0)
			FAIL("pidfd_getfd: %s (it needs root, or to be the daemon's parent)",
			     strerror(errno));
		if (wanted == OWN_SOCKET && !serves(fd)) {
			close(fd);
			continue;
		}
		for (int twice = 0; twice < 2; twice++) {
			if (!is_own(c, fd))
				FAIL("the daemon's fd %s is not told as its own", entry->d_name);
			must_be_refused(c, fd);
			fd = SYS(dup(fd));
		}
		n++;
	}
	closedir(dir);
	expect_nothing(c);
	conn_close(c);
	return n;
}

static void own_epolls(const struct env *e)
{
	CHECK(try_own(e, OWN_EPOLL) >= 2); /* the main one and a session's */
}

static void own_break_and_listener(const struct env *e)
{
	unsigned events = try_own(e, OWN_EVENT), sockets = try_own(e, OWN_SOCKET);

	if (e->weak)
		CHECK(events >= 1); /* the break; a portable backend may use a pipe */
	CHECK(sockets >= 2);        /* the listener and a connection's end */
}

static void harmful_kinds(const struct env *e)
{
	struct conn *c = conn_dial(e);
	sigset_t set;
	struct watch w;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	w = watch_name(c, SYS(signalfd(-1, &set, SFD_CLOEXEC)));
	expect_error(ask_watch(c, &w, BOTH, WIRE_MODE_WAIT), WIRE_E_KIND);
	CHECK_EQ(c->failure.detail, WIRE_KIND_SIGNALFD);
	w = watch_name(c, SYS(epoll_create1(EPOLL_CLOEXEC)));
	expect_error(ask_watch(c, &w, BOTH, WIRE_MODE_WAIT), WIRE_E_KIND);
	CHECK_EQ(c->failure.detail, WIRE_KIND_EPOLL);
	expect_nothing(c);
	conn_close(c);
}

/* ---- S-098 ---- */

struct sender {
	struct conn *c;
	_Atomic bool stop;
};

/* UNWATCH of nobody with 253 fds each: the daemon does nothing but receive and close them. */
static void *send_run(void *argument)
{
	struct sender *s = argument;
	struct wire_unwatch records[WIRE_FDS_MAX];
	int fd = event_new();

	for (unsigned i = 0; i < WIRE_FDS_MAX; i++)
		records[i] = (struct wire_unwatch){4711, 1, WIRE_UNWATCH_FD, 0};
	while (!s->stop) {
		uint32_t serial = put(s->c, WIRE_UNWATCH, WIRE_FLAG_ANSWER, records, WIRE_FDS_MAX);

		for (unsigned i = 0; i < WIRE_FDS_MAX; i++)
			put_fd(s->c, fd);
		expect_error(answered(s->c, serial), WIRE_E_NOT_FOUND);
	}
	return NULL;
}

/* Looks at one fd of the daemon's. 1: closed on exec; 0: not; -1: there is none. */
static int closed_on_exec(pid_t pid, int fd)
{
	unsigned flags = 0;
	int result = -1;
	char path[64], line[128];
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, fd);
	f = fopen(path, "re");
	if (!f)
		return -1;
	while (result < 0 && fgets(line, sizeof(line), f))
		if (sscanf(line, "flags: %o", &flags) == 1)
			result = (flags & O_CLOEXEC) != 0;
	(void)fclose(f);
	return result;
}

/* The daemon holds a received fd for some us only: it is sent many until one is seen. Whatever is
 * above standard input, output and error is looked at, so the copies that a backend holds as well. */
static void received_are_closed_on_exec(const struct env *e)
{
	struct sender sender = {.c = conn_dial(e)};
	struct conn *holder = conn_dial(e);
	struct pair p = pair_new(holder);
	int64_t until = now_ns() + 20 * soon_ms(e) * MS;
	unsigned landed = 0, lasting = 0;
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, send_run, &sender), 0);
	while (landed < 20 || lasting < 3) {
		if (now_ns() > until)
			FAIL("%u received and %u lasting fds were seen", landed, lasting);
		for (int fd = 3; fd < 280; fd++) {
			int flag = closed_on_exec(e->pid, fd);

			if (flag == 0)
				FAIL("fd %d of the daemon is not closed on exec", fd);
			if (flag == 1)
				*(fd < 256 ? &landed : &lasting) += 1;
		}
	}
	sender.stop = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	pair_close(&p);
	conn_close(sender.c);
	conn_close(holder);
}

static const struct item items[] = {
	{"S-095", "the library's own connection", own_connection, NULL, 0},
	{"S-095", "a connection, by the wire", own_connection_by_wire, NULL, 0},
	{"S-096", "the daemon's epolls", own_epolls, "this backend has no epoll (no feature weak)",
	 0},
	{"S-096", "the daemon's break and sockets", own_break_and_listener, NULL, 0},
	{"S-097", "a signalfd and an epoll fd", harmful_kinds, NULL, 0},
	{"S-098", "received fds are closed on exec", received_are_closed_on_exec, NULL, 120},
};

const struct item_list items_kinds = ITEMS(items);
