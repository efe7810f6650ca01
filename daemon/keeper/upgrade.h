/* SPDX-License-Identifier: MIT */
#ifndef READYD_UPGRADE_H
#define READYD_UPGRADE_H

/*
 * Another binary takes over: same pid, same listening socket, another program. The old one tries
 * the new one first, so that it can stay where that does not work.
 */

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "config/config.h"
#include "daemon/edge/log.h"
#include "options.h"
#include "start.h"
#include "upgrade_state.h"

struct keeper;

/* ---- adopt.c: this program, and what it finds where it takes over from another one ---- */

struct image {
	char *program; /* absolute: what an upgrade runs. Symbolic links are followed then */
	char **argv;   /* main's: what an upgrade runs it with */
	bool upgraded; /* `state` is there */
	struct upgrade_state state;
};

/*
 * Notes what was started, and takes over the state that a former program left for this process, if
 * any: its fds are close-on-exec from now on. 0; -EBADMSG or another negative errno: there is a
 * state and it cannot be used; *ret_reason is a clause that says why (static).
 */
int image_init(struct image *image, char *argv[], const char **ret_reason);
void image_clear(struct image *image);

/* --check-upgrade: whether this program could take over from the parent, whose state was taken by
 * image_init() or could not be, for that reason (else NULL). */
enum exit_status image_check(const struct options *options, const struct image *image,
			     const char *reason, struct log *log);

/* In place of a start: settings, sockets and memories of the former keeper are this one's. */
enum exit_status upgrade_adopt(struct keeper *k);

/* ---- upgrade.c ---- */

enum upgrade_phase {
	UPGRADE_NONE,
	UPGRADE_TRIAL,  /* the new binary is tried */
	UPGRADE_ENDING, /* it passed: the loop is ending, then it is run */
};

struct upgrade {
	enum upgrade_phase phase;
	pid_t trial;   /* its process; 0: none. Also one that is late and was killed */
	int output;    /* what it says; -1 */
	int64_t until; /* when it is late; INT64_MAX: nothing to wait for */
	struct log_site again;
	char said[128]; /* the version that it named */
};

/* Somebody asks for it; `who` is a clause for the log. Not while another one is under way. */
void upgrade_begin(struct keeper *k, const char *who, int64_t now);

/* A child has changed. Whether it was the trial's, and nobody else's business. */
bool upgrade_child_changed(struct keeper *k, const siginfo_t *info, int64_t now);

/* Does what is due at `now`: ends a late trial, or runs the new binary and does not return. */
void upgrade_step(struct keeper *k, int64_t now);

/* The keeper ends. */
void upgrade_end(struct keeper *k);

/* In a loop's process: what is not its. */
void upgrade_leave(struct keeper *k);

#endif
