/* SPDX-License-Identifier: MIT */

/*
 * readyd_upgrade(): asked once. The new daemon would take a repeated request for another one, so a
 * connection that ends without the answer is told to the caller, who can look at the version.
 */

#include "internal.h"

static int refused(struct readyd *r, const struct rd_request *q)
{
	const char *why;

	switch (q->error) {
	case WIRE_E_INVALID:
		why = "the new program failed its trial, and the old one goes on; the daemon's log "
		      "says why";
		break;
	case WIRE_E_ACCESS:
		why = "this user may not upgrade the daemon: ask for `upgrade` in its "
		      "configuration";
		break;
	case WIRE_E_NOT_SUPPORTED:
		why = "this daemon runs without a keeper (--no-keeper): restart it instead";
		break;
	case WIRE_E_NOT_IMPLEMENTED:
		why = "this daemon does not know how: restart it instead";
		break;
	case WIRE_E_BUSY:
		why = "this handle has asked already, and has no answer yet";
		break;
	case WIRE_E_NO_RESOURCES:
		why = "the new program could not be tried; the daemon's log says why";
		break;
	default:
		why = wire_error_text(q->error);
	}
	return rd_fail(r, rd_errno_of(q->error), "no upgrade: %s", why);
}

static int upgrade(struct readyd *r)
{
	struct rd_request q = {0};
	int error = rd_link_await(r);

	if (!error)
		error = rd_ask_once(r, &q, r->resume.epoch, WIRE_UPGRADE, NULL, 0, NULL, 0);
	if (error)
		return error;
	if (q.lost)
		return rd_fail(r, -ECONNRESET,
			       "the daemon ended before it answered: whether it was upgraded, its "
			       "version says");
	return q.error ? refused(r, &q) : 0;
}

int readyd_upgrade(struct readyd *r)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = upgrade(r);
	rd_leave(r);
	return error;
}
