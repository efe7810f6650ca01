/* SPDX-License-Identifier: MIT */
#ifndef READYD_BLAME_H
#define READYD_BLAME_H

/*
 * Whose fault is it? A client whose request, events or end make the loop crash would do so again
 * when it connects to the next one. Two deaths in a row in the same step for the same process keep
 * that process out for a while. No system call, no clock.
 */

#include <stdbool.h>
#include <stdint.h>

#include "daemon/edge/kept_out.h"
#include "daemon/edge/progress.h"

#define BLAME_TIME INT64_C(60000000000) /* ns that a client is kept out */

struct blame {
	bool suspects;             /* the last death that counts was in a client's step */
	struct progress_step step; /* ... in this one */
	uint64_t start;            /* ... and when that process was started; 0: not known */
	struct kept_out_list kept_out;
};

/*
 * A loop died of a fault or was stuck, in this step. Deaths by SIGKILL, for want of memory or of
 * its own will are nobody's fault and are not told here. start: process_start_time() of the
 * client. Whether the client is kept out from now on.
 */
bool blame_death(struct blame *b, const struct progress_step *step, uint64_t start, int64_t now);

/* Forgets those whose time is over. */
void blame_expire(struct blame *b, int64_t now);

/* Whether a death by this signal counts. */
bool blame_counts(int signal);

/* What a step is, for the log: "it applied a request of". NULL for PROGRESS_NONE. */
const char *blame_step_text(enum progress_kind kind);

#endif
