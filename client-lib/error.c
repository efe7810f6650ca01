/* SPDX-License-Identifier: MIT */

/*
 * Errors: the errno of a wire error, and the sentence that goes with it.
 *
 * A sentence belongs to the thread whose call failed, so that two threads do not overwrite each
 * other's: it is thread-local, one for all handles, with the number of the handle that it is about.
 * Numbers are random, not addresses: a handle that was closed and another one made in its place are
 * not mixed up. The sentence of an ended connection is kept in the handle besides, and is what
 * every thread gets that has none of its own.
 *
 * Texts that came from the daemon are not trusted: rd_printable() bounds them and removes what a
 * terminal might obey.
 */

#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct sentence {
	uint64_t handle;
	char text[RD_TEXT_MAX];
};

static _Thread_local struct sentence sentence;

void rd_fd_close(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

void rd_memory_free(void *pointer)
{
	free(*(void **)pointer);
}

int rd_fail(struct readyd *r, int error, const char *format, ...)
{
	va_list arguments;

	sentence.handle = r->number;
	va_start(arguments, format);
	(void)vsnprintf(sentence.text, sizeof(sentence.text), format, arguments);
	va_end(arguments);
	return error;
}

int rd_end(struct readyd *r, int error, const char *format, ...)
{
	va_list arguments;

	if (r->error)
		return r->error; /* the first reason is the true one */
	va_start(arguments, format);
	(void)vsnprintf(r->sentence, sizeof(r->sentence), format, arguments);
	va_end(arguments);
	r->error = error;
	r->out.size = r->out.records = r->out.n_fds = 0;
	r->out.last = SIZE_MAX;
	r->requests = NULL; /* their threads see the error */
	r->requests_end = &r->requests;
	r->unread = r->unread_end = NULL;
	r->resume.sweeping = false;
	r->resume.at = 0;
	if (r->socket >= 0)
		(void)shutdown(r->socket, SHUT_RDWR); /* wakes the leader; ends the session there */
	for (struct rd_waiter *w = r->sleepers; w; w = w->next)
		rd_wake(w);
	return error;
}

int rd_ended(struct readyd *r)
{
	return rd_fail(r, r->error, "%s", r->sentence);
}

const char *readyd_last_error(struct readyd *r)
{
	RD_KEEP_ERRNO;

	if (sentence.handle == r->number)
		return sentence.text;
	/* The buffer is this thread's: what stands there is about a handle that it has left. */
	if (rd_enter(r) == 0) {
		(void)rd_fail(r, 0, "%s", r->error ? r->sentence : "no call has failed");
		rd_leave(r);
	}
	return sentence.text;
}

void rd_printable(char *to, size_t max, const char *from, size_t n)
{
	size_t i;

	if (max == 0)
		return;
	for (i = 0; i < n && i < max - 1 && from[i] != '\0'; i++)
		to[i] = from[i];
	to[i] = '\0';
	for (i = 0; to[i] != '\0'; i++)
		if (to[i] < 0x20 || to[i] > 0x7e)
			to[i] = '?';
}

int rd_errno_of(unsigned wire_error)
{
	static const int table[WIRE_E_MAX] = {
		[WIRE_OK] = 0,
		[WIRE_E_PROTOCOL] = -EPROTO,
		[WIRE_E_VERSION] = -EPROTO,
		[WIRE_E_BYTE_ORDER] = -EPROTO,
		[WIRE_E_NOT_FOUND] = -ENOENT,
		[WIRE_E_EXISTS] = -EEXIST,
		[WIRE_E_STALE] = -ENOENT,
		[WIRE_E_INVALID] = -EINVAL,
		[WIRE_E_BUSY] = -EBUSY,
		[WIRE_E_ALREADY] = -EALREADY,
		[WIRE_E_CLOSING] = -ECANCELED,
		[WIRE_E_TIMEOUT] = -ETIMEDOUT,
		[WIRE_E_NOT_POLLABLE] = -EPERM,
		[WIRE_E_BAD_FD] = -EBADF,
		[WIRE_E_TOO_MANY_FDS] = -EMFILE,
		[WIRE_E_SURPLUS_FDS] = -EPROTO,
		[WIRE_E_NO_RESOURCES] = -EAGAIN,
		[WIRE_E_QUOTA] = -EDQUOT,
		[WIRE_E_ACCESS] = -EACCES,
		[WIRE_E_KIND] = -EACCES,
		[WIRE_E_POLL_DESCRIPTOR] = -EINVAL,
		[WIRE_E_NO_LANE] = -EEXIST,
		[WIRE_E_SHARED] = -EUSERS,
		[WIRE_E_NOT_SUPPORTED] = -EOPNOTSUPP,
		[WIRE_E_NOT_IMPLEMENTED] = -ENOSYS,
		[WIRE_E_SHUTDOWN] = -ENOTCONN,
		[WIRE_E_INTERNAL] = -EIO,
	};

	/* A number of a later daemon's: the generic one. */
	return wire_error < WIRE_E_MAX ? table[wire_error] : -EIO;
}
