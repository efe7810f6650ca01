/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <errno.h>

/* drop: closes a park. Prints nothing; the daemon's answer is the proof. */

static const struct output_field fields[] = {
	{NULL, "id", 0},
	{NULL, "name", 0},
	{NULL, "group", 0},
};

static int print_dropped(const struct ctl *ctl, const struct readyd_park_key *key)
{
	output_auto *o = output_new_form(ctl, fields, sizeof(fields) / sizeof(fields[0]));

	if (o && key->by == READYD_BY_ID)
		output_number(o, "id", key->park);
	if (o && key->name)
		output_text(o, "name", key->name);
	if (o && key->group)
		output_text(o, "group", key->group);
	return output_finish(o);
}

int command_drop(const struct ctl *ctl)
{
	struct readyd_park_key key;
	struct ctl here = *ctl;
	ctl_handle *r = NULL;
	bool used;
	int status = ctl_park_key(ctl, &key, &used), error;

	if (!status && ctl->n_arguments > used) {
		ctl_complain("an id and --name exclude each other");
		status = CTL_USAGE;
	}
	if (status)
		return status;
	here.resume = true;
	status = ctl_connect(&here, &r);
	if (status)
		return status;
	error = readyd_drop(r, &key);
	if (error < 0) {
		status = ctl_request_failed(r, error);
		return error == -EBUSY || error == -EINVAL ? CTL_REFUSED : status;
	}
	return print_dropped(ctl, &key);
}
