/* SPDX-License-Identifier: MIT */
#include "output.h"

/*
 * version: what is installed here and what runs there. That no daemon answers is a fact to print
 * and no failure; --version does not ask at all.
 */

static const struct output_field fields[] = {
	{"readyctl", "readyctl", 0},
	{"libreadyd", "libreadyd", 0},
	{"readyd", "readyd", 0},
	{"Protocol", "protocol", 0},
};

int command_version(const struct ctl *ctl)
{
	struct readyd_status s = {.size = sizeof(s)};
	output_auto *o = NULL;
	ctl_handle *r = NULL;
	int error;

	o = output_new_form(ctl, fields, sizeof(fields) / sizeof(fields[0]));
	if (!o)
		return CTL_FAILED;
	output_text(o, "readyctl", READYCTL_VERSION);
	output_text(o, "libreadyd", readyd_version());
	if (ctl_try_connect(ctl, &r) < 0) {
		output_cell(o, "readyd", "none answers");
		return output_finish(o);
	}
	error = readyd_get_status(r, &s);
	if (error < 0)
		return ctl_request_failed(r, error);
	output_text(o, "readyd", s.version);
	output_number(o, "protocol", s.protocol);
	return output_finish(o);
}
