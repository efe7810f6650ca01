/* SPDX-License-Identifier: MIT */
#ifndef READYD_OOM_H
#define READYD_OOM_H

/*
 * Whom the kernel ends first when memory runs out (oom_score_adj, proc(5)): rather the loop, whose
 * death nobody notices, than the keeper, which nobody replaces. What is not permitted is left as it
 * is.
 */

enum {
	OOM_KEEPER = -900, /* before it come all but what is exempt */
	OOM_LOOP = 100,    /* above ordinary processes, or above a keeper that is above them */
};

/* The keeper lowers its own. */
void oom_protect_keeper(void);

/* A loop, which has its keeper's by fork, raises its own. */
void oom_expose_loop(void);

#endif
