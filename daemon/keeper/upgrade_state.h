/* SPDX-License-Identifier: MIT */
#ifndef READYD_UPGRADE_STATE_H
#define READYD_UPGRADE_STATE_H

/*
 * What a keeper leaves to the binary that takes its place, as bytes: of fixed layout, in this
 * machine's byte order, for this boot only. No system call is made here. What is read is checked
 * as if a stranger had written it; whether an fd is open and what it is, is for the reader to find
 * out.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "blame.h"
#include "daemon/edge/listener.h"

/* Another layout gets another version; a binary reads its own only. */
#define UPGRADE_STATE_VERSION 2u

enum {
	UPGRADE_FDS_MAX = 65536,
	UPGRADE_TEXT_MAX = 16 * 1024 * 1024,
	UPGRADE_VERSION_SIZE = 32,
};

/* What goes along besides the fds with a place of their own: an fd, a child, or both. */
struct upgrade_fd {
	uint32_t kind; /* enum holders_kind; of one that the reader does not know it is closed */
	uid_t uid;     /* whom it serves */
	pid_t pid;     /* the child at its other end; 0: none */
	int fd;        /* -1: none, there is a child only */
};

struct upgrade_state {
	pid_t keeper;                       /* whose state this is: pid of writer and reader */
	char version[UPGRADE_VERSION_SIZE]; /* of the program that wrote it */
	uint32_t records;                   /* version of the records that its holders speak */
	unsigned left_behind;               /* loops that could not be killed */
	int64_t began;                      /* when the daemon did, CLOCK_MONOTONIC */
	uint64_t loops;                     /* that it has made */
	int64_t died;             /* when the last loop ended, CLOCK_MONOTONIC; 0: not yet */
	struct listener listener; /* without its name, which the fd tells */
	int starter;              /* pidfd; -1: none */
	struct blame blame;
	struct upgrade_fd *fds;
	size_t n_fds;
	char *text; /* the last good configuration; NULL: there was no file */
	size_t text_size;
};

/* The caller frees *ret. -ENOMEM; -E2BIG: more fds or text than a state may have. */
int upgrade_state_encode(const struct upgrade_state *state, void **ret, size_t *ret_size);

/*
 * 0; -ENOMEM; or -EBADMSG, and *ret_reason is a clause that says what is wrong (static). The caller
 * clears *ret, which on failure is untouched.
 */
int upgrade_state_decode(const void *bytes, size_t size, struct upgrade_state *ret,
			 const char **ret_reason);

/* Frees what it holds; closes nothing. */
void upgrade_state_clear(struct upgrade_state *state);

#endif
