/* SPDX-License-Identifier: MIT */
#include "take.h"

#include <string.h>

/*
 * take: a parked fd goes to COMMAND, which takes readyctl's place: its status is that of COMMAND, as
 * with env(1). The park is named, or is the next one that is handed out of a group; with --each
 * readyctl stays, and runs one COMMAND after another (take_each.c).
 */

static int usage(void)
{
	ctl_complain("usage: readyctl take ID | --name NAME [--group GROUP] | --group GROUP "
		     "[--each [--jobs N]] [--fd] [--] COMMAND...");
	return CTL_USAGE;
}

static int failed(struct readyd *r)
{
	ctl_complain("%s", readyd_last_error(r));
	readyd_close(r);
	return CTL_NOT_RUN;
}

/* What was taken, to COMMAND. The connection ends before. */
static int become(const struct ctl *ctl, struct readyd *r, struct readyd_taken *taken,
		  char **command)
{
	int status;

	readyd_close(r);
	status = take_exec(ctl, taken, command);
	readyd_taken_clear(taken);
	return status;
}

static int take_next(const struct ctl *ctl, char **command)
{
	struct readyd_taken taken = {.size = sizeof(taken)};
	struct readyd *r = NULL;
	int n;

	if (ctl_connect(ctl, &r))
		return CTL_NOT_RUN;
	if (ctl->given & CTL_EACH)
		return take_each(ctl, r, command);
	if (readyd_attach(r, ctl->group, 1) < 0)
		return failed(r);
	do
		n = readyd_receive(r, &taken, -1);
	while (n == 0);
	return n < 0 ? failed(r) : become(ctl, r, &taken, command);
}

static int take_named(const struct ctl *ctl, const struct readyd_park_key *key, char **command)
{
	struct readyd_taken taken = {.size = sizeof(taken)};
	struct readyd *r = NULL;

	if (ctl_connect(ctl, &r))
		return CTL_NOT_RUN;
	if (readyd_take(r, key, &taken) < 0)
		return failed(r);
	return become(ctl, r, &taken, command);
}

int command_take(const struct ctl *ctl)
{
	bool from_group = ctl->group && !ctl->name, used = false;
	struct readyd_park_key key;
	struct ctl here = *ctl;
	int status = from_group ? CTL_DONE : ctl_park_key(ctl, &key, &used);

	if (status)
		return status;
	if (ctl->given & CTL_JOBS && !(ctl->given & CTL_EACH)) {
		ctl_complain("--jobs goes with --each: without it there is one COMMAND");
		return CTL_USAGE;
	}
	if (ctl->given & CTL_EACH && !from_group) {
		ctl_complain("--each goes with --group, and no --name: a name is one park's");
		return CTL_USAGE;
	}
	if (ctl->n_arguments == used)
		return usage();
	status = take_check(ctl->arguments[used]);
	if (status)
		return status;
	here.resume = true;
	here.patient = from_group;
	if (from_group)
		return take_next(&here, ctl->arguments);
	return take_named(&here, &key, ctl->arguments + used);
}
