/* SPDX-License-Identifier: MIT */

/* S-015 to S-025: the waiter of a slot, its exactly one entry, and what the kinds of fd report. */

#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#define READY WIRE_CODE_READY

static void second_wait_refused(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_error(ask_wait(c, &p.w, WIRE_READ), WIRE_E_BUSY);
	expect_error(ask_wait(c, &p.w, BOTH), WIRE_E_BUSY); /* all or none */
	put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void directions_are_independent(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);

	fill(p.a);
	sync_with(c);
	expect_ok(ask_wait(c, &p.w, BOTH));
	expect_nothing(c);
	CHECK(drain(p.b) > 0);
	expect_entry(c, &p.w, 0, READY);
	expect_nothing(c);
	expect_error(ask_wait(c, &p.w, WIRE_READ), WIRE_E_BUSY); /* it still waits */
	put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void one_entry_for_one_wait(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	for (int i = 0; i < 100; i++)
		put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void both_directions_one_entry(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_full(c);

	expect_ok(ask_wait(c, &p.w, BOTH));
	expect_nothing(c);
	close(p.b);
	expect_entry(c, &p.w, READY, READY);
	expect_nothing(c);
	conn_close(c);
}

static void answer_before_entry(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	struct received entry;

	for (int i = 0; i < 20; i++) {
		put_bytes(p.b, 1);
		sync_with(c);
		expect_ok(ask_wait(c, &p.w, WIRE_READ));
		entry = expect_entry(c, &p.w, READY, 0);
		CHECK(c->answer_sequence < entry.sequence);
		drain(p.a);
	}
	expect_nothing(c);
	conn_close(c);
}

static void wait_taken_back(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	expect_error(ask_unwait(c, &p.w, WIRE_READ), WIRE_E_NOT_FOUND);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_ok(ask_unwait(c, &p.w, WIRE_READ));
	put_bytes(p.b, 1);
	expect_nothing(c);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_entry(c, &p.w, READY, 0);
	expect_error(ask_unwait(c, &p.w, WIRE_READ), WIRE_E_NOT_FOUND);
	expect_nothing(c);
	conn_close(c);
}

/* The slot is done and its entry cannot be sent before the datagram's last request is applied. */
static void unwait_too_late(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	uint32_t serial;

	expect_ok(ask_deadline(c, &p.w, WIRE_READ, -1));
	put_slots(c, WIRE_WAIT, 0, &p.w, WIRE_READ);
	serial = put_slots(c, WIRE_UNWAIT, WIRE_FLAG_ANSWER, &p.w, WIRE_READ);
	expect_error(answered(c, serial), WIRE_E_ALREADY);
	expect_entry(c, &p.w, WIRE_CODE_TIMEOUT, 0);
	expect_nothing(c);
	conn_close(c);
}

static void half_close_is_readable(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_drained(c);
	char byte;

	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	SYS(shutdown(p.b, SHUT_WR));
	expect_entry(c, &p.w, READY, 0);
	CHECK_EQ(read(p.a, &byte, 1), 0);
	expect_nothing(c);
	conn_close(c);
}

static void pipe_ends(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct watch w;
	int p[2], reader, writer;
	char byte;

	SYS(pipe2(p, O_NONBLOCK | O_CLOEXEC));
	w = watch_new(c, p[0], WIRE_READ, WIRE_MODE_WAIT);
	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_nothing(c);
	close(p[1]);
	expect_entry(c, &w, READY, 0);
	CHECK_EQ(read(p[0], &byte, 1), 0);

	writer = pipe_full(&reader);
	w = watch_new(c, writer, WIRE_WRITE, WIRE_MODE_WAIT);
	expect_ok(ask_wait(c, &w, WIRE_WRITE));
	expect_nothing(c);
	close(reader);
	expect_entry(c, &w, 0, READY);
	expect_nothing(c);
	conn_close(c);
}

/* A listener on a free port of the loopback; its address. */
static int tcp_listen(int backlog, struct sockaddr_in *ret)
{
	int fd = SYS(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	socklen_t size = sizeof(*ret);

	*ret = (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	SYS(bind(fd, (const struct sockaddr *)ret, sizeof(*ret)));
	SYS(listen(fd, backlog));
	SYS(getsockname(fd, (struct sockaddr *)ret, &size));
	return fd;
}

static int tcp_connect(const struct sockaddr_in *address)
{
	int fd = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

	SYS(connect(fd, (const struct sockaddr *)address, sizeof(*address)));
	return fd;
}

static void tcp_reset(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	struct sockaddr_in address;
	int listener = tcp_listen(1, &address);
	int peer = tcp_connect(&address);
	int a = SYS(accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
	struct watch w = watch_new(c, a, BOTH, WIRE_MODE_WAIT);
	struct received r;
	char byte;

	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_nothing(c);
	SYS(setsockopt(peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)));
	close(peer);
	expect_entry(c, &w, READY, 0);
	/* the kernel may tell of a reset twice: then it is ready again, and still not unpollable */
	expect_ok(ask_wait(c, &w, WIRE_READ));
	if (take(c, WIRE_RECORD_ENTRY, w.id, now_ns() + 100 * MS, &r))
		CHECK_EQ(r.entry.read, READY);
	CHECK(read(a, &byte, 1) < 0 && errno == ECONNRESET);
	sync_with(c);
	conn_close(c);
}

static void listener_accepts(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct sockaddr_in address;
	int listener = tcp_listen(1, &address);
	struct watch w = watch_new(c, listener, WIRE_READ, WIRE_MODE_WAIT);
	int peer;

	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_nothing(c);
	peer = tcp_connect(&address);
	expect_entry(c, &w, READY, 0);
	SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
	close(peer);
	expect_nothing(c);
	conn_close(c);
}

/* The listener's queue is full, so that the connection is made only after an accept, when the
 * kernel sends its SYN again (1, 3, 7 s). */
static void tcp_connecting(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct sockaddr_in address;
	int listener = tcp_listen(0, &address);
	int first = tcp_connect(&address);
	int a = SYS(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	struct watch w = watch_new(c, a, BOTH, WIRE_MODE_WAIT);
	socklen_t size = sizeof(int);
	struct received r;
	int error;

	expect_ok(ask_wait(c, &w, WIRE_WRITE));
	expect_entry(c, &w, 0, READY); /* spurious: OUT and HUP of a fresh socket */
	CHECK(connect(a, (const struct sockaddr *)&address, sizeof(address)) < 0);
	CHECK_EQ(errno, EINPROGRESS);
	expect_ok(ask_wait(c, &w, WIRE_WRITE));
	if (take(c, WIRE_RECORD_ENTRY, w.id, now_ns() + 100 * MS, &r))
		expect_ok(ask_wait(c, &w, WIRE_WRITE)); /* one stale latch is allowed */
	expect_nothing(c);
	SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
	if (!take(c, WIRE_RECORD_ENTRY, w.id, now_ns() + 15 * SECOND, &r))
		FAIL("no entry when connected");
	CHECK_EQ(r.entry.write, READY);
	SYS(getsockopt(a, SOL_SOCKET, SO_ERROR, &error, &size));
	CHECK_EQ(error, 0);
	put_bytes(a, 1);
	expect_nothing(c);
	close(first);
	conn_close(c);
}

static const struct item items[] = {
	{"S-015", "a second WAIT is refused", second_wait_refused, NULL, 0},
	{"S-016", "the directions are independent", directions_are_independent, NULL, 0},
	{"S-017", "one entry for one WAIT", one_entry_for_one_wait, NULL, 0},
	{"S-018", "both directions ready, one entry", both_directions_one_entry, NULL, 0},
	{"S-019", "the answer comes before the entry", answer_before_entry, NULL, 0},
	{"S-020", "UNWAIT takes a wait back", wait_taken_back, NULL, 0},
	{"S-020", "UNWAIT of a slot that is done", unwait_too_late, NULL, 0},
	{"S-021", "half close is readable", half_close_is_readable, NULL, 0},
	{"S-022", "a pipe whose other end closes", pipe_ends, NULL, 0},
	{"S-023", "a reset TCP connection is ready, not unpollable", tcp_reset, NULL, 0},
	{"S-024", "a listening socket", listener_accepts, NULL, 0},
	{"S-025", "a TCP connection under way", tcp_connecting, NULL, 0},
};

const struct item_list items_wait = ITEMS(items);
