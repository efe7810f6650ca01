/* SPDX-License-Identifier: MIT */
#include "watchdog.h"

/*
 * The interval between looks bounds how often a loop that is sometimes idle has to wake its keeper:
 * it is a quarter of the limit, at most a second. A turn that lasts is looked at exactly when the
 * limit is over.
 *
 * A keeper that itself did not run (^Z in the terminal, a machine that was paused) looks much later
 * than it meant to. Then it cannot tell who stood still, and begins to count anew.
 *
 * SIGSTOP may be a mistake or a ^Z that reaches the keeper a moment later: hence the grace. A
 * stopped process takes no SIGABRT, so it is killed.
 */

#define SECOND INT64_C(1000000000)

static int64_t interval(const struct watchdog *w)
{
	return w->limit / 4 < SECOND ? w->limit / 4 : SECOND;
}

void watchdog_start(struct watchdog *w, int64_t limit, int64_t now)
{
	*w = (struct watchdog){.state = WATCHDOG_WATCHING, .limit = limit, .since = now};
	w->next = now + interval(w);
}

void watchdog_set_limit(struct watchdog *w, int64_t limit, int64_t now)
{
	w->limit = limit;
	if (w->state == WATCHDOG_WATCHING)
		w->next = now + interval(w);
}

static enum watchdog_act look_at_work(struct watchdog *w, int64_t busy_since, int64_t now)
{
	int64_t due, planned = w->next;

	w->next = now + interval(w);
	if (busy_since <= 0)
		return WATCHDOG_SLEEP;
	if (now - planned > SECOND)
		w->since = now;
	/* a time in the future is a scribble and moves nothing */
	if (busy_since > w->since && busy_since <= now)
		w->since = busy_since;
	due = w->since + w->limit;
	if (due <= now) {
		w->state = WATCHDOG_ABORTED;
		w->next = now + WATCHDOG_PATIENCE;
		return WATCHDOG_ABORT;
	}
	if (due < w->next)
		w->next = due;
	return WATCHDOG_GO_ON;
}

enum watchdog_act watchdog_look(struct watchdog *w, int64_t busy_since, int64_t now)
{
	switch (w->state) {
	case WATCHDOG_WATCHING:
		return look_at_work(w, busy_since, now);
	case WATCHDOG_STOPPED:
	case WATCHDOG_ENDING:
	case WATCHDOG_ABORTED:
		w->state = WATCHDOG_KILLED;
		w->next = now + WATCHDOG_PATIENCE;
		return WATCHDOG_KILL;
	case WATCHDOG_KILLED:
		return WATCHDOG_LEAVE;
	default:
		return WATCHDOG_GO_ON;
	}
}

void watchdog_sleep(struct watchdog *w)
{
	w->state = WATCHDOG_ASLEEP;
	w->next = INT64_MAX;
}

void watchdog_wake(struct watchdog *w, int64_t now)
{
	if (w->state != WATCHDOG_ASLEEP)
		return;
	w->state = WATCHDOG_WATCHING;
	w->next = now + interval(w);
}

void watchdog_stopped(struct watchdog *w, int64_t now)
{
	if (w->state != WATCHDOG_WATCHING && w->state != WATCHDOG_ASLEEP)
		return;
	w->state = WATCHDOG_STOPPED;
	w->next = now + WATCHDOG_GRACE;
}

void watchdog_continued(struct watchdog *w, int64_t now)
{
	if (w->state == WATCHDOG_STOPPED)
		watchdog_start(w, w->limit, now);
}

void watchdog_ending(struct watchdog *w, int64_t now)
{
	if (w->state != WATCHDOG_WATCHING && w->state != WATCHDOG_ASLEEP)
		return; /* it will be killed */
	w->state = WATCHDOG_ENDING;
	w->next = now + WATCHDOG_FAREWELL;
}
