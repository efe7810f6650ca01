/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "keeper_internal.h"

/*
 * What follows from the end of a loop: a line in the log, blame, and the next loop or the end of
 * the daemon.
 *
 * The next loop is made at once, however often that happens: whoever kills loops all day long hurts
 * nobody's sessions by it. Only a loop that did not finish one turn would do nothing but die again,
 * so the next try waits: 10 ms, then twice as long each time, up to 1 s.
 */

#define MILLISECOND INT64_C(1000000)
#define PAUSE_FIRST (10 * MILLISECOND)
#define PAUSE_LONGEST (1000 * MILLISECOND)

enum { TEXT_SIZE = 160 };

/* " while it applied a request of uid 0 pid 7 session 3", or nothing. */
static void describe_step(const struct progress_step *step, char text[TEXT_SIZE])
{
	const char *what = blame_step_text(step->kind);

	text[0] = '\0';
	if (what)
		(void)snprintf(text, TEXT_SIZE, " while %s uid %u pid %d session %llu", what,
			       step->uid, step->pid, (unsigned long long)step->object);
}

static struct log_about about_step(const struct progress_step *step, enum log_event event)
{
	return (struct log_about){
		.event = event,
		.client = step->kind != PROGRESS_NONE,
		.uid = step->uid,
		.pid = step->pid,
		.session = step->kind != PROGRESS_NONE ? step->object : 0,
	};
}

void death_note_stuck(struct keeper *k)
{
	struct log_about about;
	char text[TEXT_SIZE];

	progress_get_step(k->loop.page, &k->loop.step);
	k->loop.stuck = true;
	describe_step(&k->loop.step, text);
	about = about_step(&k->loop.step, LOG_EVENT_STUCK);
	log_about(k->log, CONFIG_LOG_ERROR, &about,
		  "the loop (pid %d) is stuck for more than %lld ms%s: ending it", (int)k->loop.pid,
		  (long long)(k->loop.watchdog.limit / MILLISECOND), text);
}

static void blame(struct keeper *k, const struct progress_step *step, int64_t now)
{
	uint64_t start = step->pid > 0 ? process_start_time(step->pid) : 0;
	struct log_about about = about_step(step, LOG_EVENT_KEPT_OUT);

	if (blame_death(&k->blame, step, start, now))
		log_about(k->log, CONFIG_LOG_ERROR, &about,
			  "two loops in a row ended while %s uid %u pid %d: this process is kept "
			  "out for %lld s",
			  blame_step_text(step->kind), step->uid, step->pid,
			  (long long)(BLAME_TIME / (1000 * MILLISECOND)));
}

static void log_death(struct keeper *k, const siginfo_t *info, const struct progress_step *step,
		      int64_t now)
{
	bool killed = info->si_code != CLD_EXITED;
	enum config_log_level level = CONFIG_LOG_WARNING;
	const char *name = killed ? sigabbrev_np(info->si_status) : NULL;
	struct log_about about = about_step(step, LOG_EVENT_DIED);
	char text[TEXT_SIZE];

	describe_step(step, text);
	if (k->stopping || k->upgrade.phase == UPGRADE_ENDING ||
	    (!killed && info->si_status == LOOP_DONE))
		level = killed ? CONFIG_LOG_WARNING : CONFIG_LOG_DEBUG;
	else if (killed && blame_counts(info->si_status))
		level = CONFIG_LOG_ERROR;
	if (killed)
		log_limited_about(k->log, &k->deaths, now, level, &about,
				  "the loop (pid %d) died by SIG%s%s", (int)info->si_pid,
				  name ? name : "(unknown)", text);
	else
		log_limited_about(k->log, &k->deaths, now, level, &about,
				  "the loop (pid %d) ended with status %d", (int)info->si_pid,
				  info->si_status);
}

void death_schedule(struct keeper *k, bool early, int64_t now)
{
	k->restart_at = now;
	if (!early) {
		k->pause = 0;
		return;
	}
	k->pause = k->pause == 0 ? PAUSE_FIRST : 2 * k->pause;
	if (k->pause > PAUSE_LONGEST)
		k->pause = PAUSE_LONGEST;
	k->restart_at += k->pause;
	log_limited(k->log, &k->pauses, now, CONFIG_LOG_WARNING,
		    "no turn was finished: the next try is in %lld ms",
		    (long long)(k->pause / MILLISECOND));
}

/* The end of the daemon, or the next loop. */
static void go_on(struct keeper *k, const siginfo_t *info, bool early, int64_t now)
{
	bool by_itself = info->si_code == CLD_EXITED;

	if (k->stopping || (by_itself && info->si_status == LOOP_DONE)) {
		k->ended = true;
	} else if (by_itself && !k->served && info->si_status != LOOP_ENDED) {
		/* it never could serve: that is for whoever started us to know */
		k->ended = true;
		k->status = STATUS_FAILURE;
		start_tell(&k->ready_fd, "ERROR=cannot start: ",
			   k->failure ? strerror(k->failure) : "the log has the reason");
	} else {
		death_schedule(k, early, now);
	}
}

void death_of_loop(struct keeper *k, const siginfo_t *info, int64_t now)
{
	bool killed = info->si_code != CLD_EXITED;
	bool early = progress_turns(k->loop.page) == 0;
	struct progress_step step = k->loop.step;
	bool counts = k->loop.stuck || (killed && blame_counts(info->si_status));

	if (!k->loop.stuck)
		progress_get_step(k->loop.page, &step);
	log_death(k, info, &step, now);
	if (counts && !k->stopping)
		blame(k, &step, now);
	child_drop(&k->loop);
	k->died = now;
	go_on(k, info, early, now);
}

void death_leave_behind(struct keeper *k, int64_t now)
{
	struct progress_step step = k->loop.step;
	bool stuck = k->loop.stuck;

	k->left_behind++;
	log_error(k->log,
		  "the loop (pid %d) does not even die by SIGKILL: it is left behind (%u are now)",
		  (int)k->loop.pid, k->left_behind);
	child_drop(&k->loop);
	k->died = now;
	if (k->stopping) {
		k->ended = true;
		k->status = STATUS_FAILURE;
		return;
	}
	if (stuck)
		blame(k, &step, now);
	death_schedule(k, false, now);
}
