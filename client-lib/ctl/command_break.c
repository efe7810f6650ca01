/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <errno.h>

/* break: wakes the poll of another session. Prints nothing; the daemon's answer is the proof. */

static const struct output_field fields[] = {
	{NULL, "session", 0},
};

int command_break(const struct ctl *ctl)
{
	output_auto *o = NULL;
	ctl_handle *r = NULL;
	uint64_t session;
	int status, error;

	if (text_parse_number(ctl->arguments[0], UINT64_MAX, &session) < 0 || !session) {
		ctl_complain(
			"'%s' is no session; write its number as 'readyctl sessions' prints it",
			ctl->arguments[0]);
		return CTL_USAGE;
	}
	status = ctl_connect(ctl, &r);
	if (status)
		return status;
	error = readyd_break_session(r, session);
	if (error == -ENOENT) {
		ctl_complain("no session %s; 'readyctl sessions' has those that you may see",
			     ctl->arguments[0]);
		return CTL_REFUSED;
	}
	if (error < 0)
		return ctl_request_failed(r, error);
	o = output_new_form(ctl, fields, sizeof(fields) / sizeof(fields[0]));
	if (o)
		output_number(o, "session", session);
	return output_finish(o);
}
