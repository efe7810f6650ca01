/* SPDX-License-Identifier: MIT */
#ifndef READYCTL_TAKE_H
#define READYCTL_TAKE_H

/* What take has in several files: COMMAND (take_run.c), and one COMMAND after another (take_each.c). */

#include "ctl.h"

/* Whether COMMAND can be found and run. CTL_DONE, or the status after a line on stderr. */
int take_check(const char *command);

/* This process becomes COMMAND, on what was taken. The status, after a line on stderr, if it cannot. */
int take_exec(const struct ctl *ctl, const struct readyd_taken *t, char **command);

/* Attaches, and runs COMMAND on each hand-out, until a signal. The exit status. */
int take_each(const struct ctl *ctl, struct readyd *r, char **command);

#endif
