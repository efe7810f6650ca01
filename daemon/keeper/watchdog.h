/* SPDX-License-Identifier: MIT */
#ifndef READYD_WATCHDOG_H
#define READYD_WATCHDOG_H

/*
 * When to look at a loop, and what to do about what is seen. No system call, no clock: the keeper
 * says what it saw and when, and does what it is told.
 *
 *   watching -- idle --> asleep -- it gets busy --> watching
 *   watching -- busy for too long --> aborted -- 1 s --> killed -- 1 s --> left behind
 *   any -- stopped by a signal --> stopped -- not continued at once --> killed
 *   any -- it is told to end --> ending -- 5 s --> killed
 */

#include <stdbool.h>
#include <stdint.h>

enum watchdog_state {
	WATCHDOG_WATCHING,
	WATCHDOG_ASLEEP,
	WATCHDOG_STOPPED,
	WATCHDOG_ENDING,
	WATCHDOG_ABORTED,
	WATCHDOG_KILLED,
};

enum watchdog_act {
	WATCHDOG_GO_ON,
	WATCHDOG_SLEEP, /* it is idle: the keeper may fall asleep, see watchdog_sleep() */
	WATCHDOG_ABORT, /* SIGABRT: it is stuck */
	WATCHDOG_KILL,  /* SIGKILL */
	WATCHDOG_LEAVE, /* it cannot even die */
};

#define WATCHDOG_GRACE INT64_C(100000000)     /* of a stopped one, to be continued */
#define WATCHDOG_PATIENCE INT64_C(1000000000) /* after a signal that ought to end it */
#define WATCHDOG_FAREWELL INT64_C(5000000000) /* to end by itself */

struct watchdog {
	enum watchdog_state state;
	int64_t limit; /* ns that a turn may take */
	int64_t next;  /* when to look; INT64_MAX: not by itself */
	int64_t since; /* what it did before is forgiven */
};

/* A loop was made: it counts as busy from now on. */
void watchdog_start(struct watchdog *w, int64_t limit, int64_t now);

/* A new limit, for the next look. */
void watchdog_set_limit(struct watchdog *w, int64_t limit, int64_t now);

/* The keeper looks, at w->next or later. busy_since: 0, if the loop is idle. */
enum watchdog_act watchdog_look(struct watchdog *w, int64_t busy_since, int64_t now);

/* The keeper fell asleep, or was woken by the loop. */
void watchdog_sleep(struct watchdog *w);
void watchdog_wake(struct watchdog *w, int64_t now);

void watchdog_stopped(struct watchdog *w, int64_t now);
void watchdog_continued(struct watchdog *w, int64_t now);
void watchdog_ending(struct watchdog *w, int64_t now);

#endif
