/* SPDX-License-Identifier: MIT */

/*
 * S-011, S-012, S-014: one description, many numbers. The kernel's key of a registration is
 * (description, number): lanes keep dups apart, and the wrong fd must not touch another session.
 */

#include "harness.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define READY WIRE_CODE_READY

enum { LANES = 253, SESSIONS_MOST = 500 };

static void dup_is_another_watch(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct pair p = pair_new(c);
	struct watch twin = watch_new(c, SYS(dup(p.a)), BOTH, WIRE_MODE_WAIT);

	for (int i = 0; i < 2; i++) {
		expect_ok(ask_wait(c, &p.w, WIRE_READ));
		expect_ok(ask_wait(c, &twin, WIRE_READ));
		expect_nothing(c);
		put_bytes(p.b, 1);
		expect_entry(c, &p.w, READY, 0);
		expect_entry(c, &twin, READY, 0);
		expect_nothing(c);
		drain(p.a);
	}
	/* one ends, by its fd: the other goes on */
	expect_ok(ask_wait(c, &twin, WIRE_READ));
	expect_ok(ask_unwatch(c, &p.w, p.a));
	put_bytes(p.b, 1);
	expect_entry(c, &twin, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

/* Drops n watches in one message, in the reverse of the order in which they were made. */
static void unwatch_reversed(struct conn *c, const struct watch *w, size_t n)
{
	struct wire_unwatch records[WIRE_FDS_MAX];
	uint32_t serial;

	for (size_t i = 0; i < n; i++) {
		const struct watch *one = &w[n - 1 - i];

		records[i] = (struct wire_unwatch){one->id, one->gen, WIRE_UNWATCH_FD, 0};
	}
	serial = put(c, WIRE_UNWATCH, WIRE_FLAG_ANSWER, records, n);
	for (size_t i = 0; i < n; i++)
		put_fd(c, w[n - 1 - i].fd);
	expect_ok(answered(c, serial));
}

static void all_fire(struct conn *c, const struct watch *w, int a, int b)
{
	wait_many(c, w, LANES, WIRE_READ);
	sync_with(c);
	put_bytes(b, 1);
	collect_once(c, w, LANES, READY);
	expect_nothing(c);
	CHECK_EQ(drain(a), 1);
}

static void all_lanes(const struct env *e)
{
	struct conn *c = conn_dial(e);
	struct watch w[LANES], more;
	int fds[LANES], a, b;

	pair_make(&a, &b);
	for (int i = 0; i < LANES; i++)
		fds[i] = SYS(dup(a));
	watch_many(c, fds, 100, WIRE_READ, WIRE_MODE_WAIT, w);
	for (int i = 100; i < 120; i++)
		w[i] = watch_new(c, fds[i], WIRE_READ, WIRE_MODE_WAIT);
	watch_many(c, fds + 120, LANES - 120, WIRE_READ, WIRE_MODE_WAIT, w + 120);
	more = watch_name(c, a);
	expect_error(ask_watch(c, &more, WIRE_READ, WIRE_MODE_WAIT), WIRE_E_NO_LANE);
	all_fire(c, w, a, b);
	unwatch_reversed(c, w, LANES);
	put_bytes(b, 1);
	expect_nothing(c);
	drain(a);
	/* every lane is free again */
	watch_many(c, fds, LANES, WIRE_READ, WIRE_MODE_WAIT, w);
	expect_error(ask_watch(c, &more, WIRE_READ, WIRE_MODE_WAIT), WIRE_E_NO_LANE);
	all_fire(c, w, a, b);
	/* one goes, one fits; and another description has lanes of its own */
	expect_ok(ask_unwatch(c, &w[77], w[77].fd));
	w[77].id = more.id;
	w[77].cookie = more.cookie;
	expect_ok(ask_watch(c, &w[77], WIRE_READ, WIRE_MODE_WAIT));
	all_fire(c, w, a, b);
	watch_new(c, b, WIRE_READ, WIRE_MODE_WAIT);
	conn_close(c);
}

static void wrong_fd_at_unwatch(const struct env *e)
{
	struct conn *hostile = conn_dial(e);
	struct conn *c = conn_dial(e);
	struct pair one = pair_new(hostile), two = pair_new(hostile);
	struct watch first = watch_new(c, one.a, BOTH, WIRE_MODE_WAIT);
	struct watch second = watch_new(c, two.a, BOTH, WIRE_MODE_WAIT);

	expect_ok(ask_wait(c, &first, WIRE_READ));
	expect_ok(ask_wait(c, &second, WIRE_READ));
	(void)ask_unwatch(hostile, &one.w, two.a); /* whatever it is answered */
	put_bytes(one.b, 1);
	put_bytes(two.b, 1);
	expect_entry(c, &first, READY, 0);
	expect_entry(c, &second, READY, 0);
	expect_nothing(c);
	sync_with(hostile);
	conn_close(hostile);
	drain(one.a);
	drain(two.a);
	expect_ok(ask_wait(c, &first, WIRE_READ));
	expect_ok(ask_wait(c, &second, WIRE_READ));
	put_bytes(one.b, 1);
	put_bytes(two.b, 1);
	expect_entry(c, &first, READY, 0);
	expect_entry(c, &second, READY, 0);
	expect_nothing(c);
	conn_close(c);
}

static void kernel_limit_of_sessions(const struct env *e)
{
	struct conn **c = calloc(SESSIONS_MOST + 1, sizeof(struct conn *));
	struct watch *w = calloc(SESSIONS_MOST + 1, sizeof(struct watch));
	int a, b;

	CHECK(c && w);
	pair_make(&a, &b);
	for (int i = 0; i <= SESSIONS_MOST; i++)
		c[i] = conn_dial(e);
	for (int i = 0; i < SESSIONS_MOST; i++) {
		w[i] = watch_new(c[i], a, WIRE_READ, WIRE_MODE_WAIT);
		put_slots(c[i], WIRE_WAIT, 0, &w[i], WIRE_READ);
		sync_with(c[i]);
	}
	w[SESSIONS_MOST] = watch_name(c[SESSIONS_MOST], a);
	expect_error(ask_watch(c[SESSIONS_MOST], &w[SESSIONS_MOST], WIRE_READ, WIRE_MODE_WAIT),
		     WIRE_E_SHARED);
	sync_with(c[SESSIONS_MOST]);
	put_bytes(b, 1);
	for (int i = 0; i < SESSIONS_MOST; i++)
		expect_entry(c[i], &w[i], READY, 0);
	expect_nothing(c[0]);
	/* room again when one leaves */
	expect_ok(ask_unwatch(c[0], &w[0], a));
	expect_ok(ask_watch(c[SESSIONS_MOST], &w[SESSIONS_MOST], WIRE_READ, WIRE_MODE_WAIT));
	for (int i = 0; i <= SESSIONS_MOST; i++)
		conn_close(c[i]);
	free(c);
	free(w);
}

static const struct item items[] = {
	{"S-011", "an fd and its dup are two watches", dup_is_another_watch, NULL, 0},
	{"S-012", "all lanes in use, one more is refused", all_lanes,
	 "this backend has no lanes: it holds copies (no feature weak)", 0},
	{"S-014", "UNWATCH with the wrong fd harms nobody else", wrong_fd_at_unwatch, NULL, 0},
	{"S-014", "501 sessions watch one description", kernel_limit_of_sessions,
	 "the limit is one of nested epolls (no feature weak)", 120},
};

const struct item_list items_lanes = ITEMS(items);
