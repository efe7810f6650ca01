/* SPDX-License-Identifier: MIT */

/*
 * PARK, CLAIM and DROP: one question each, asked again on the next connection if the answer was lost.
 *
 * PARK is known by its token: twice is once. Its fd is sent each time, and stays the caller's until
 * the answer; the daemon keeps one copy. What getsockname() and getpeername() say goes along, since
 * the daemon never asks somebody else's socket.
 *
 * A DROP whose answer was lost may have been done: that the park is unknown then is no error.
 *
 * BUSY means that the answer to the park's PARK was not sent yet, which takes a moment, or its
 * maker is about to say it again after a death: it is asked again for a while.
 */

#include "internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#define BUSY_FIRST_NS INT64_C(1000000)

enum { BUSY_DOUBLE = 7, BUSY_TRIES = 45 }; /* 1, 2, 4 ... 128 ms: 5 s in all */

_Static_assert(READYD_PARK_DURABLE == (int)WIRE_PARK_DURABLE &&
		       READYD_PARK_HOLD_ONLY == (int)WIRE_PARK_HOLD_ONLY &&
		       READYD_PARK_DEADLINE_HAND == (int)WIRE_PARK_DEADLINE_HAND &&
		       READYD_BY_NAME == (int)WIRE_TAKE_BY_NAME &&
		       READYD_BY_ID == (int)WIRE_TAKE_BY_ID &&
		       READYD_BY_TOKEN == (int)WIRE_TAKE_BY_TOKEN,
	       "flags go through as they are");

/* ---- What is the same in all of them ---- */

int rd_park_refused(struct readyd *r, const struct rd_request *q, const char *what)
{
	static const char *const advice[WIRE_E_MAX] = {
		[WIRE_E_NOT_FOUND] = "it was taken, dropped or never made, or somebody is taking "
				     "it; `readyctl parked` lists what is there",
		[WIRE_E_EXISTS] = "take or drop the park that has it first",
		[WIRE_E_BUSY] = "whoever parks it has not finished: try again later",
		[WIRE_E_NOT_POLLABLE] = "it can be kept without that: `readyctl park --hold-only`, "
					"READYD_PARK_HOLD_ONLY",
		[WIRE_E_NO_RESOURCES] = "try again later",
		[WIRE_E_TOO_MANY_FDS] = "try again later, or raise the daemon's LimitNOFILE",
		[WIRE_E_BAD_FD] = "it was closed",
		[WIRE_E_NOT_IMPLEMENTED] = "install a newer readyd",
		[WIRE_E_NOT_SUPPORTED] = "see readyd(8) for what the daemon needs for that",
	};
	const char *hint = q->error < WIRE_E_MAX ? advice[q->error] : NULL;
	const char *text = q->error == WIRE_E_EXISTS ? "the name is in use, or this file is parked"
			   : q->error == WIRE_E_NOT_FOUND ? "no such park for this user"
							  : wire_error_text(q->error);
	int error = rd_errno_of(q->error);

	if (q->error == WIRE_E_KIND && q->detail == WIRE_KIND_FILE)
		error = -EPERM;
	if (q->error == WIRE_E_QUOTA)
		return rd_fail(r, error,
			       "%s: this user's limit of %u %s is reached; take or drop some, or "
			       "raise it in the daemon's configuration",
			       what, q->limit, wire_quota_name(q->detail));
	if (q->error == WIRE_E_KIND)
		return rd_fail(r, error, "%s: %s (%s); listening sockets are not parked", what,
			       wire_error_text(q->error), wire_kind_name(q->detail));
	return rd_fail(r, error, "%s: %s%s%s", what, text, hint ? "; " : "", hint ? hint : "");
}

bool rd_park_is_busy(struct readyd *r, const struct rd_request *q, unsigned *tries)
{
	unsigned n = *tries < BUSY_DOUBLE ? *tries : BUSY_DOUBLE;

	if (q->error != WIRE_E_BUSY || *tries >= BUSY_TRIES)
		return false;
	(*tries)++;
	rd_pause(r, rd_now() + rd_jitter(r, BUSY_FIRST_NS << n));
	return true;
}

int rd_park_name_check(struct readyd *r, const char *what, const char *name)
{
	size_t n = name ? strlen(name) : 0;

	if (n > WIRE_NAME_MAX)
		return rd_fail(r, -EINVAL, "the %s of a park has %d bytes at most, not %zu", what,
			       WIRE_NAME_MAX, n);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			return rd_fail(r, -EINVAL, "a %s of a park with a control character in it",
				       what);
	return 0;
}

/* Appends a text that was checked; returns its bytes. */
static uint8_t name_add(char *tail, size_t *size, const char *name)
{
	size_t n = name ? strlen(name) : 0;

	if (n)
		memcpy(tail + *size, name, n);
	*size += n;
	return (uint8_t)n;
}

int rd_park_key(struct readyd *r, const struct readyd_park_key *key, struct wire_take *ret,
		char *tail, size_t *ret_size, char *ret_text)
{
	char name[128], group[128];
	int error;

	*ret = (struct wire_take){.by = key->by};
	*ret_size = 0;
	if (key->size < sizeof(*key) || key->by > READYD_BY_TOKEN || key->reserved)
		return rd_fail(r, -EINVAL, "a key of a park of a wrong size or kind");
	switch (key->by) {
	case READYD_BY_ID:
		ret->park = key->park;
		(void)snprintf(ret_text, RD_TEXT_MAX, "park %llu", (unsigned long long)key->park);
		return 0;
	case READYD_BY_TOKEN:
		if (!key->token)
			return rd_fail(r, -EINVAL, "a key of a park without its token");
		memcpy(ret->token, key->token, sizeof(ret->token));
		(void)snprintf(ret_text, RD_TEXT_MAX, "the park of that token");
		return 0;
	}
	if (!key->name || !*key->name)
		return rd_fail(r, -EINVAL, "a key of a park without its name");
	error = rd_park_name_check(r, "name", key->name);
	if (!error)
		error = rd_park_name_check(r, "group", key->group);
	if (error)
		return error;
	ret->name_length = name_add(tail, ret_size, key->name);
	ret->group_length = name_add(tail, ret_size, key->group);
	rd_printable(name, sizeof(name), key->name, ret->name_length);
	rd_printable(group, sizeof(group), key->group ? key->group : "", ret->group_length);
	(void)snprintf(ret_text, RD_TEXT_MAX, "park '%s'%s%s%s", name,
		       group[0] ? " of group '" : "", group, group[0] ? "'" : "");
	return 0;
}

/* ---- PARK ---- */

/* One PARK, until it is answered. */
struct parking {
	const struct readyd_park_options *o;
	struct wire_park record;
	char tail[2 * WIRE_NAME_MAX + WIRE_NOTE_MAX + 2 * WIRE_ADDRESS_MAX];
	size_t size;
	uint32_t index; /* its place in the table; 0: it has its number, or there is none */
};

static void park_answered(struct readyd *r, struct rd_request *q)
{
	struct parking *k = q->context;

	if (!q->error && k->index) {
		rd_park_number(r, k->index, q->value);
		k->index = 0;
	}
}

static int options_check(struct readyd *r, const struct readyd_park_options *o)
{
	const uint32_t known =
		READYD_PARK_DURABLE | READYD_PARK_HOLD_ONLY | READYD_PARK_DEADLINE_HAND;
	int error;

	if (o->flags & ~known || o->interest & ~(READYD_READ | READYD_WRITE))
		return rd_fail(r, -EINVAL, "a park with unknown flags (%#x) or interest (%#x)",
			       o->flags, o->interest);
	if (o->deadline < 0)
		return rd_fail(r, -EINVAL, "a park with a negative deadline");
	if (o->note_length > WIRE_NOTE_MAX || (o->note_length && !o->note))
		return rd_fail(r, -EINVAL, "the note of a park has %d bytes at most, not %zu",
			       WIRE_NOTE_MAX, o->note_length);
	error = rd_park_name_check(r, "name", o->name);
	return error ? error : rd_park_name_check(r, "group", o->group);
}

/* Appends one of the socket's addresses; a file that is no socket has none. */
static uint8_t address_add(struct parking *k, int fd,
			   int (*get)(int fd, struct sockaddr *ret, socklen_t *length))
{
	union {
		struct sockaddr header;
		struct sockaddr_storage any;
	} address;
	socklen_t n = sizeof(address);

	if (get(fd, &address.header, &n) < 0 || n > sizeof(address) || n > WIRE_ADDRESS_MAX)
		return 0;
	memcpy(k->tail + k->size, &address, n);
	k->size += n;
	return (uint8_t)n;
}

static int socket_name(int fd, struct sockaddr *ret, socklen_t *length)
{
	return getsockname(fd, ret, length);
}

static int peer_name(int fd, struct sockaddr *ret, socklen_t *length)
{
	return getpeername(fd, ret, length);
}

static void record_make(struct parking *k, int fd)
{
	const struct readyd_park_options *o = k->o;

	k->record.cookie = o->cookie;
	k->record.flags = o->flags;
	k->record.fd = fd;
	k->record.interest = o->interest ? (uint8_t)o->interest : READYD_READ;
	k->record.name_length = name_add(k->tail, &k->size, o->name);
	k->record.group_length = name_add(k->tail, &k->size, o->group);
	k->record.note_length = (uint16_t)o->note_length;
	if (o->note_length)
		memcpy(k->tail + k->size, o->note, o->note_length);
	k->size += o->note_length;
	k->record.local_length = address_add(k, fd, socket_name);
	k->record.peer_length = address_add(k, fd, peer_name);
}

static int random_token(uint8_t *ret)
{
	ssize_t n;

	do
		n = getrandom(ret, WIRE_TOKEN_SIZE, 0);
	while (n < 0 && errno == EINTR);
	return n == WIRE_TOKEN_SIZE ? 0 : -EIO;
}

/* A place in the table, for what the daemon will tell of it. */
static int place_take(struct readyd *r, struct parking *k, const uint8_t *token, uint8_t flags)
{
	struct rd_park *p;

	k->index = rd_park_add(r);
	if (!k->index)
		return rd_fail(r, -ENOMEM, "no memory for another park");
	p = rd_park_at(r, k->index);
	memcpy(p->token, token, sizeof(p->token));
	p->flags |= flags;
	return 0;
}

/* Asks until it is answered. May block. */
static int park_ask(struct readyd *r, struct parking *k, int fd, struct rd_request *q)
{
	int error;

	do {
		error = rd_link_await(r);
		if (error)
			return error;
		*q = (struct rd_request){
			.answered = park_answered,
			.context = k,
			.tail = k->tail,
			.tail_size = k->size,
		};
		if (k->o->deadline) {
			k->record.deadline = rd_time_to_daemon(r, k->o->deadline);
			if (k->record.deadline <= 0)
				k->record.deadline = 1; /* past */
		}
		error = rd_ask_once(r, q, r->resume.epoch, WIRE_PARK, &k->record, 1, &fd, 1);
	} while (!error && q->lost);
	return error;
}

/* What events it may have. Those of a group have none: they go to its workers. */
static uint8_t place_flags(const struct readyd_park_options *o)
{
	bool hand = o->flags & READYD_PARK_DEADLINE_HAND && o->deadline;

	if ((o->group && *o->group) || (o->flags & READYD_PARK_HOLD_ONLY && !hand))
		return RD_PARK_FRESH;
	return hand ? RD_PARK_HAND : 0;
}

static int park(struct readyd *r, int fd, const struct readyd_park_options *o, uint64_t *ret_park,
		uint8_t *ret_token)
{
	struct parking k = {.o = o};
	struct rd_request q = {0};
	char what[64];
	int error = options_check(r, o);

	if (error)
		return error;
	if (fd < 0)
		return rd_fail(r, -EBADF, "fd %d is not open", fd);
	error = random_token(k.record.token);
	if (error)
		return rd_fail(r, error, "no random numbers for the token of a park");
	record_make(&k, fd);
	error = place_take(r, &k, k.record.token, place_flags(o));
	if (!error)
		error = park_ask(r, &k, fd, &q);
	if (k.index)
		rd_park_remove(r, k.index);
	if (error)
		return error;
	if (q.error) {
		(void)snprintf(what, sizeof(what), "fd %d cannot be parked", fd);
		if (q.error == WIRE_E_NOT_SUPPORTED && o->flags & READYD_PARK_DURABLE)
			return rd_fail(r, rd_errno_of(q.error),
				       "%s: a durable park needs a daemon that runs as a service "
				       "of systemd, with its keeper; leave out `--durable` "
				       "(READYD_PARK_DURABLE), or see readyd(8)",
				       what);
		return rd_park_refused(r, &q, what);
	}
	if (ret_park)
		*ret_park = q.value;
	if (ret_token)
		memcpy(ret_token, k.record.token, sizeof(k.record.token));
	return 0;
}

int readyd_park(struct readyd *r, int fd, const struct readyd_park_options *options,
		uint64_t *ret_park, uint8_t *ret_token)
{
	struct readyd_park_options o = {0};
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	if (options && options->size < sizeof(o.size))
		error = rd_fail(r, -EINVAL, "options of a park of a wrong size");
	else if (options)
		memcpy(&o, options, options->size < sizeof(o) ? options->size : sizeof(o));
	if (!error)
		error = park(r, fd, &o, ret_park, ret_token);
	rd_leave(r);
	return error;
}

/* ---- CLAIM ---- */

static int claim(struct readyd *r, const uint8_t *token)
{
	struct parking k = {0};
	struct rd_request q = {.answered = park_answered, .context = &k};
	struct wire_token record;
	int error;

	memcpy(record.token, token, sizeof(record.token));
	error = place_take(r, &k, token, RD_PARK_HAND);
	if (!error)
		error = rd_ask(r, &q, WIRE_CLAIM, &record, 1, NULL, 0);
	if (k.index)
		rd_park_remove(r, k.index);
	if (error)
		return error;
	return q.error ? rd_park_refused(r, &q, "the park of that token cannot be claimed") : 0;
}

int readyd_claim(struct readyd *r, const uint8_t *token)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = claim(r, token);
	rd_leave(r);
	return error;
}

/* ---- DROP ---- */

static int drop(struct readyd *r, const struct readyd_park_key *key)
{
	char tail[2 * WIRE_NAME_MAX], name[RD_TEXT_MAX], what[RD_TEXT_MAX];
	struct wire_take record;
	struct rd_request q;
	unsigned tries = 0;
	bool lost = false;
	uint32_t index;
	size_t size;
	int error = rd_park_key(r, key, &record, tail, &size, name);

	if (error)
		return error;
	do {
		error = rd_link_await(r);
		if (error)
			return error;
		q = (struct rd_request){.tail = tail, .tail_size = size};
		error = rd_ask_once(r, &q, r->resume.epoch, WIRE_DROP, &record, 1, NULL, 0);
		if (error)
			return error;
		lost |= q.lost;
	} while (q.lost || rd_park_is_busy(r, &q, &tries));
	if (q.error == WIRE_E_NOT_FOUND && lost)
		return 0;
	if (q.error) {
		(void)snprintf(what, sizeof(what), "%.500s cannot be dropped", name);
		return rd_park_refused(r, &q, what);
	}
	index = rd_park_find(r, q.value);
	if (index)
		rd_park_remove(r, index);
	return 0;
}

int readyd_drop(struct readyd *r, const struct readyd_park_key *key)
{
	RD_KEEP_ERRNO;
	int error = rd_enter(r);

	if (error)
		return error;
	error = drop(r, key);
	rd_leave(r);
	return error;
}
