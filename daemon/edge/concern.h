/* SPDX-License-Identifier: MIT */
#ifndef READYD_CONCERN_H
#define READYD_CONCERN_H

/*
 * Whose holders a connection has to wait for: its own user's, and, where groups are shared, those of
 * the users whose parks its requests have changed.
 */

#include <stdbool.h>
#include <stdint.h>

struct connection;
struct parking;

enum { CONCERN_MAX = 4 };

/* Of one connection. */
struct concern {
	uint32_t uids[CONCERN_MAX]; /* of other users */
	uint8_t n;
	bool all; /* there were more than that */
};

/* A request of c has changed a park of k. */
void concern_add(struct connection *c, const struct parking *k);

/* One that has to be told something before c may hear its answers, or NULL: none, and c's concerns
 * are forgotten. */
struct parking *concern_next(struct connection *c);

/* It has been told what c said. */
void concern_settle(struct connection *c, const struct parking *k);

/* One that is still coming back, and has to be back before c's requests about parks are read; NULL:
 * none. */
struct parking *concern_returning(const struct connection *c);

#endif
