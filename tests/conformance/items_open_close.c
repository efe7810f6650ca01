/* SPDX-License-Identifier: MIT */

/*
 * S-001 to S-010 and S-013: a watch is made, reports, ends, and leaves nothing behind. Weak
 * watching in particular: the client's close() is seen by the peer at once.
 */

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define READY WIRE_CODE_READY

static void data_before_watch(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct watch w;
	int a, b;

	pair_make(&a, &b);
	put_bytes(b, 1);
	w = watch_new(c, a, BOTH, WIRE_MODE_WAIT);
	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_entry(c, &w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void empty_then_written(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_nothing(c);
	put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void fresh_is_writable(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	expect_ok(ask_wait(c, &p.w, WIRE_WRITE));
	expect_entry(c, &p.w, 0, READY);
	expect_nothing(c);
	conn_close(c);
}

static void regular_file_refused(const struct env *e)
{
	struct conn *c = conn_dial(e);
	int file = SYS(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
	struct watch w = watch_name(c, file);
	int a, b;

	expect_error(ask_watch(c, &w, BOTH, WIRE_MODE_WAIT), WIRE_E_NOT_POLLABLE);
	CHECK_EQ(c->failure.id, w.id);
	CHECK_EQ(c->failure.gen, w.gen);
	pair_make(&a, &b);
	w.fd = a;
	expect_ok(ask_watch(c, &w, BOTH, WIRE_MODE_WAIT));
	put_bytes(b, 1);
	expect_ok(ask_wait(c, &w, WIRE_READ));
	expect_entry(c, &w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void live_id_refused(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);
	struct watch second = p.w;
	int a, b;

	pair_make(&a, &b);
	second.fd = a;
	expect_error(ask_watch(c, &second, BOTH, WIRE_MODE_WAIT), WIRE_E_EXISTS);
	second.gen++; /* the id is what is live, whatever the generation */
	expect_error(ask_watch(c, &second, BOTH, WIRE_MODE_WAIT), WIRE_E_EXISTS);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	put_bytes(b, 1);
	expect_nothing(c);
	put_bytes(p.b, 1);
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void unwatch_then_again(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	expect_ok(ask_unwatch(c, &p.w, p.a));
	put_bytes(p.b, 1);
	expect_nothing(c);
	expect_error(ask_wait(c, &p.w, WIRE_READ), WIRE_E_NOT_FOUND);
	p.w = watch_new(c, p.a, BOTH, WIRE_MODE_WAIT);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void unwatch_without_fd(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);

	expect_ok(ask_unwatch(c, &p.w, -1));
	put_bytes(p.b, 1);
	expect_nothing(c);
	p.w = watch_new(c, p.a, BOTH, WIRE_MODE_WAIT);
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	drain(p.a);
	put_bytes(p.b, 1); /* the dead registration fires too, and nobody hears of it */
	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	expect_entry(c, &p.w, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void close_is_seen_by_peer(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);
	struct pollfd end = {.fd = p.b, .events = POLLIN};
	char byte;

	close(p.a);
	CHECK_EQ(poll(&end, 1, soon_ms(e)), 1);
	CHECK_EQ(read(p.b, &byte, 1), 0);
	expect_nothing(c);
	conn_close(c);
}

static void close_ends_silently(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);
	struct received entry;
	uint32_t serial;

	expect_ok(ask_wait(c, &p.w, WIRE_READ));
	close(p.a);
	expect_nothing(c);
	serial = put_unwatch(c, WIRE_FLAG_ANSWER, &p.w, -1);
	expect_ok(answered(c, serial));
	entry = expect_entry(c, &p.w, WIRE_CODE_CLOSING, 0);
	CHECK(entry.sequence < c->answer_sequence);
	expect_nothing(c);
	conn_close(c);
}

static void thousand_forgotten(const struct env *e)
{
	struct conn *c = conn_dial(e);
	int before = count_fds(e->pid);

	for (int i = 0; i < 10; i++) {
		struct watch watches[100];
		int *fds = event_many(100);

		watch_many(c, fds, 100, WIRE_READ, WIRE_MODE_WAIT, watches);
		for (int k = 0; k < 100; k++)
			close(fds[k]);
		free(fds);
	}
	sync_with(c);
	CHECK_EQ(count_fds(e->pid), before);
	expect_nothing(c);
	conn_close(c);
}

static void connection_ends_session(const struct env *e)
{
	struct conn *observer = conn_dial(e);
	struct wire_status before = status_of(observer);
	int fds = count_fds(e->pid);
	struct conn *c = conn_dial(e);
	struct pair p[10];

	for (int i = 0; i < 10; i++) {
		p[i] = pair_new(c);
		expect_ok(ask_wait(c, &p[i].w, WIRE_READ));
		expect_ok(ask_deadline(c, &p[i].w, WIRE_READ, now_ns() + HOUR));
	}
	CHECK_EQ(status_of(observer).watches, before.watches + 10);
	CHECK_EQ(status_of(observer).waiting, before.waiting + 10);
	conn_close(c);
	EVENTUALLY(e, status_of(observer).watches == before.watches);
	EVENTUALLY(e, status_of(observer).connections == before.connections);
	EVENTUALLY(e, count_fds(e->pid) == fds);
	CHECK_EQ(status_of(observer).waiting, before.waiting);
	CHECK_EQ(status_of(observer).deadlines, before.deadlines);
	for (int i = 0; i < 10; i++)
		put_bytes(p[i].b, 1); /* into nothing */
	expect_nothing(observer);
	conn_close(observer);
}

#define HOLDS "this backend holds the fd (no feature weak)"

static const struct item items[] = {
	{"S-001", "data before WATCH is reported", data_before_watch, NULL, 0},
	{"S-002", "an empty pair waits until it is written", empty_then_written, NULL, 0},
	{"S-003", "a fresh pair is writable", fresh_is_writable, NULL, 0},
	{"S-004", "a regular file is refused and its id is free", regular_file_refused, NULL, 0},
	{"S-005", "a live id is refused", live_id_refused, NULL, 0},
	{"S-006", "UNWATCH with the fd, then WATCH again", unwatch_then_again, NULL, 0},
	{"S-007", "UNWATCH without the fd, then WATCH again", unwatch_without_fd, NULL, 0},
	{"S-008", "the peer sees the client's close", close_is_seen_by_peer, HOLDS, 0},
	{"S-009", "close alone ends a watch silently", close_ends_silently, HOLDS, 0},
	{"S-010", "a thousand forgotten watches cost no fd", thousand_forgotten, HOLDS, 0},
	{"S-013", "the connection's end is the session's", connection_ends_session, NULL, 0},
};

const struct item_list items_open_close = ITEMS(items);
