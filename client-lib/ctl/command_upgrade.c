/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/*
 * upgrade: asks, and waits until another loop serves, which is known by its pid. While there is
 * none, connecting waits in the socket's queue; what still reaches the old one ends with it.
 */

#define PATIENCE_NS INT64_C(30000000000)
#define PAUSE_NS 10000000L

static const struct output_field fields[] = {
	{"Old version", "old_version", 0},
	{"New version", "new_version", 0},
	{"PID", "pid", 0},
};

static int request_failed(struct readyd *r, int error)
{
	int status = ctl_request_failed(r, error);

	switch (error) {
	case -EINVAL:
	case -EBUSY:
	case -ENOSYS:
	case -EOPNOTSUPP:
		return CTL_REFUSED;
	default:
		return status;
	}
}

/* Whether a loop other than `old` answers at the address. */
static bool look(const struct ctl *ctl, const struct readyd_status *old, struct readyd_status *ret)
{
	ctl_handle *r = NULL;

	return ctl_try_connect(ctl, &r) == 0 && readyd_get_status(r, ret) == 0 &&
	       ret->pid != old->pid;
}

static int await_new(const char *address, const struct readyd_status *old,
		     struct readyd_status *ret)
{
	const struct timespec pause = {.tv_nsec = PAUSE_NS};
	const struct ctl there = {.socket = address};
	int64_t begin = ctl_now();

	while (!look(&there, old, ret)) {
		if (ctl_age(begin) > PATIENCE_NS) {
			ctl_complain("the new program passed its trial, but does not serve %s "
				     "after 30 s; the daemon's log says why",
				     address);
			return CTL_FAILED;
		}
		nanosleep(&pause, NULL);
	}
	return CTL_DONE;
}

int command_upgrade(const struct ctl *ctl)
{
	struct readyd_status old = {.size = sizeof(old)}, new = {.size = sizeof(new)};
	output_auto *o = NULL;
	ctl_handle *r = NULL;
	int status, error;

	status = ctl_connect(ctl, &r);
	if (status)
		return status;
	error = readyd_get_status(r, &old);
	if (error < 0)
		return ctl_request_failed(r, error);
	error = readyd_upgrade(r);
	if (error < 0)
		return request_failed(r, error);
	status = await_new(readyd_socket(r), &old, &new);
	if (status)
		return status;
	o = output_new_form(ctl, fields, sizeof(fields) / sizeof(fields[0]));
	if (!o)
		return CTL_FAILED;
	output_text(o, "old_version", old.version);
	output_text(o, "new_version", new.version);
	output_number(o, "pid", new.pid);
	return output_finish(o);
}
