/* SPDX-License-Identifier: MIT */
#ifndef READYD_STORE_H
#define READYD_STORE_H

/*
 * systemd's fd store (FDSTORE=1 of sd_notify(3)): what a service gives PID 1 to keep, and gets back
 * when it is started again. An entry is an fd with a name; here all are depots (depot.h), and the
 * name says whose and which.
 *
 * Whatever goes wrong in PID 1 is silent here: a full store closes what is too much. So the caller
 * counts its entries, and a barrier tells only that everything before it has been read.
 */

#include <stdbool.h>
#include <stdint.h>

enum {
	STORE_MAX = 4096, /* entries: all names come back in one string of at most 128 KiB */
	STORE_NAME_SIZE = 24,
};

/* An entry: which one, and its fd where it came back. */
struct store_entry {
	uint32_t uid;
	uint32_t serial; /* greater than zero */
	int fd;
};

/* A connection to PID 1's socket, for one row of messages. */
struct store {
	int fd;
	int64_t until;                  /* ns, CLOCK_MONOTONIC: no call here waits longer. 0: none
					   waits, and what would is -ETIMEDOUT */
	void (*waiting)(void *context); /* called twice a second while one waits; or NULL */
	void *context;
};

/*
 * How many entries there can be: $FDSTORE (since systemd 254), else $READYD_STORE_MAX, which the
 * unit sets to its FileDescriptorStoreMax=; at most STORE_MAX. 0: nobody keeps fds for this process.
 */
unsigned store_max(void);

/* "d1000.17" */
void store_name(uint32_t uid, uint32_t serial, char ret[STORE_NAME_SIZE]);
bool store_parse_name(const char *name, uint32_t *ret_uid, uint32_t *ret_serial);

/* Connects; other calls wait at most until `until`. Negative errno. */
int store_open(struct store *s, int64_t until);
void store_close(struct store *s);

/* Each is one message. -ETIMEDOUT: PID 1 took nothing until `until`. Another negative errno. */
int store_put(struct store *s, const char *name, int fd);
int store_remove(struct store *s, const char *name);

/* Sends what tells when all that was sent before has been read: an fd that is at its end then. */
int store_begin_barrier(struct store *s);

/* Waits until all that was sent before has been read. As above. */
int store_barrier(struct store *s);

#endif
