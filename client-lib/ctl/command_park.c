/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

/*
 * park: one fd of the shell's, by redirection. The daemon has it once the id is printed; readyctl's
 * own copy ends with it, and the shell's when that closes it.
 */

static const struct output_field fields[] = {
	{NULL, "id", 0},
};

static int print_id(const struct ctl *ctl, uint64_t park)
{
	output_auto *o = NULL;
	struct output_page page;

	if (ctl->given & CTL_JSON) {
		o = output_new_form(ctl, fields, sizeof(fields) / sizeof(fields[0]));
		if (o)
			output_number(o, "id", park);
		return output_finish(o);
	}
	if (!output_page_open(&page))
		return CTL_FAILED;
	fprintf(page.file, "%" PRIu64 "\n", park);
	return output_page_finish(&page);
}

static int refused(struct readyd *r, int error)
{
	int status = ctl_request_failed(r, error);

	return error == -EEXIST || error == -EOPNOTSUPP || error == -EINVAL ? CTL_REFUSED : status;
}

int command_park(const struct ctl *ctl)
{
	struct readyd_park_options o = {
		.size = sizeof(o),
		.name = ctl->name,
		.group = ctl->group,
		.note = ctl->note,
		.note_length = ctl->note ? strlen(ctl->note) : 0,
		.flags = (ctl->given & CTL_DURABLE ? READYD_PARK_DURABLE : 0u) |
			 (ctl->given & CTL_HOLD_ONLY ? READYD_PARK_HOLD_ONLY : 0u) |
			 (ctl->hand ? READYD_PARK_DEADLINE_HAND : 0u),
	};
	struct ctl here = *ctl;
	ctl_handle *r = NULL;
	uint64_t park = 0;
	int status, error;

	if (fcntl(ctl->fd, F_GETFD) < 0 || (ctl->fd < 3 && ctl->closed_std & 1u << ctl->fd)) {
		ctl_complain(
			"fd %d is not open; redirect it, as in 'readyctl park --fd %d %d<>FIFO'",
			ctl->fd, ctl->fd, ctl->fd);
		return CTL_USAGE;
	}
	if (ctl->given & CTL_ON_DEADLINE && !(ctl->given & CTL_DEADLINE)) {
		ctl_complain("--on-deadline says what happens at the --deadline: give that too");
		return CTL_USAGE;
	}
	if (ctl->given & CTL_DEADLINE &&
	    __builtin_add_overflow(ctl_now(), ctl->deadline, &o.deadline))
		o.deadline = INT64_MAX;
	here.resume = true;
	status = ctl_connect(&here, &r);
	if (status)
		return status;
	error = readyd_park(r, ctl->fd, &o, &park, NULL);
	return error < 0 ? refused(r, error) : print_id(ctl, park);
}
