/* SPDX-License-Identifier: MIT */
#ifndef READYD_KEEPER_INTERNAL_H
#define READYD_KEEPER_INTERNAL_H

/* The keeper's state, shared by its files. */

#include <stdbool.h>
#include <sys/types.h>

#include "blame.h"
#include "daemon/edge/listener.h"
#include "daemon/edge/progress.h"
#include "holders.h"
#include "keeper.h"
#include "settings.h"
#include "systemd/service.h"
#include "upgrade.h"
#include "watchdog.h"

/* A loop as its keeper has it. */
struct child {
	pid_t pid;   /* 0: there is none */
	int channel; /* -1: it has closed its end */
	struct progress_page *page;
	struct watchdog watchdog;
	unsigned left; /* holders that are left behind, as it was told */
	bool serves;   /* it said so */
	bool stuck;    /* it was found so, in this step */
	struct progress_step step;
};

struct keeper {
	const struct options *options;
	struct log *log;
	struct loop_signals *signals;
	struct service service;
	struct settings settings; /* the last good ones */
	struct listener listener;
	int starter;  /* pidfd; -1 */
	int ready_fd; /* -1: told */
	int signal_fd;
	int wake_fd; /* a loop gets busy while the keeper sleeps */
	struct child loop;
	struct holders holders;
	struct blame blame;
	struct log_site deaths, pauses, restarts; /* a loop that dies all the time fills no log */
	struct log_site unknown;                  /* nor one that has gone mad */
	int64_t began;
	uint64_t made;        /* loops */
	unsigned left_behind; /* loops that could not even die */
	int64_t died;         /* when the last one did; 0: none yet */
	int64_t restart_at;
	int64_t pause; /* before the next try; 0: none */
	struct image *image;
	struct upgrade upgrade;
	int failure; /* errno that the loop said when it could not start */
	bool served; /* a loop has */
	bool stopping;
	bool ended;
	enum exit_status status;
};

/* ---- child.c ---- */

/* Forks a loop; in the child it does not return. Negative errno. */
int child_make(struct keeper *k, int64_t now);

/* The loop wants a holder for this uid: makes it, and answers. */
void child_make_holder(struct keeper *k, uint32_t uid, bool replace, int64_t now);

/* Tells it how many holders are left behind, if that has changed. */
void child_tell_left(struct keeper *k);

/* Gives up what belongs to it: its process has ended, or is left behind. */
void child_drop(struct child *c);

/* ---- restore.c ---- */

/* Once, before the first loop: where there is a store, holders will use it, and what it gave back is
 * given to new ones. */
void restore_parks(struct keeper *k, int64_t now);

/* ---- death.c ---- */

/* The loop's process has ended; info is waitid(2)'s. */
void death_of_loop(struct keeper *k, const siginfo_t *info, int64_t now);

/* It does not end although it was killed. */
void death_leave_behind(struct keeper *k, int64_t now);

/* Notes in what step it is stuck. */
void death_note_stuck(struct keeper *k);

/* There is no loop: when to make the next one. `early`: the last one did not finish one turn. */
void death_schedule(struct keeper *k, bool early, int64_t now);

#endif
