/* SPDX-License-Identifier: MIT */

/*
 * The codec: bytes of one datagram to checked views, and records to bytes.
 *
 * It owns nothing. A view points into the caller's buffer, which is aligned to 8 bytes; since the
 * header, every record and the padded tail are multiples of 8, all records of all requests in the
 * datagram are aligned too, and may be read as structs where they lie.
 *
 * What is refused here is what makes a message meaningless for whoever reads it, and so ends the
 * connection: sizes that do not fit, unknown types and flags, reserved bytes that are not zero. A
 * value that only spoils its own record (an id of 0, a direction that does not exist) passes: the
 * daemon answers it with a failure of that record.
 *
 * The invariants, for all input:
 *  - nothing outside buffer[0..size) is read;
 *  - count is at most WIRE_RECORDS_MAX and tail at most WIRE_MESSAGE_MAX before either is used in
 *    arithmetic, so that no sum or product can overflow 32 bits;
 *  - there is one encoding only of what is accepted: wire_encode() of a view gives its bytes back.
 *
 * One table holds all that is regular (record size, how many, tail, fds), one function a family
 * what the fields of a record must be.
 */

#include "wire.h"

#include <assert.h>
#include <string.h>

static_assert(sizeof(struct wire_header) == 16, "the header is 16 bytes");

enum layout_trait {
	FROM_CLIENT = 0x1,
	HAS_TAIL = 0x2,
	FD_PER_RECORD = 0x4,
	MAY_HAVE_MORE = 0x8, /* WIRE_FLAG_MORE is allowed */
};

struct layout {
	const char *name;
	uint16_t record; /* bytes of one */
	uint16_t lowest; /* records */
	uint16_t highest;
	uint16_t traits;
};

#define NONE(type, bits) [WIRE_##type] = {#type, 0, 0, 0, (bits)}
#define ONE(type, record, bits) [WIRE_##type] = {#type, sizeof(struct record), 1, 1, (bits)}
#define MANY(type, record, bits) \
	[WIRE_##type] = {#type, sizeof(struct record), 1, WIRE_RECORDS_MAX, (bits)}
#define ROWS(type, record, bits) \
	[WIRE_##type] = {#type, sizeof(struct record), 0, WIRE_RECORDS_MAX, MAY_HAVE_MORE | (bits)}

static const struct layout layouts[256] = {
	ONE(HELLO, wire_hello, FROM_CLIENT | HAS_TAIL),
	NONE(SYNC, FROM_CLIENT),
	MANY(BREAK, wire_break, FROM_CLIENT),
	MANY(IS_POLL_DESCRIPTOR, wire_is_poll_descriptor, FROM_CLIENT | FD_PER_RECORD),

	MANY(WATCH, wire_watch, FROM_CLIENT | FD_PER_RECORD),
	MANY(UNWATCH, wire_unwatch, FROM_CLIENT),
	MANY(WAIT, wire_slots, FROM_CLIENT),
	MANY(UNWAIT, wire_slots, FROM_CLIENT),
	MANY(RESET, wire_slots, FROM_CLIENT),
	MANY(DEADLINE, wire_deadline, FROM_CLIENT),
	MANY(EVICT, wire_slots, FROM_CLIENT),
	MANY(TIMER_SET, wire_timer_set, FROM_CLIENT),
	MANY(TIMER_STOP, wire_timer_stop, FROM_CLIENT),

	ONE(PARK, wire_park, FROM_CLIENT | HAS_TAIL | FD_PER_RECORD),
	MANY(CLAIM, wire_token, FROM_CLIENT),
	ONE(TAKE, wire_take, FROM_CLIENT | HAS_TAIL),
	ONE(DROP, wire_take, FROM_CLIENT | HAS_TAIL),
	MANY(ACKNOWLEDGE, wire_held, FROM_CLIENT),
	MANY(HELD, wire_held, FROM_CLIENT),
	ONE(ATTACH, wire_attach, FROM_CLIENT | HAS_TAIL),
	ONE(DETACH, wire_attach, FROM_CLIENT | HAS_TAIL),

	NONE(GET_STATUS, FROM_CLIENT),
	ONE(LIST_SESSIONS, wire_list, FROM_CLIENT),
	ONE(LIST_WATCHES, wire_list, FROM_CLIENT),
	ONE(LIST_TIMERS, wire_list, FROM_CLIENT),
	ONE(LIST_QUOTAS, wire_list, FROM_CLIENT),
	ONE(LIST_PARKS, wire_list, FROM_CLIENT),
	ONE(LIST_GROUPS, wire_list, FROM_CLIENT),
	ONE(MONITOR, wire_monitor, FROM_CLIENT),
	NONE(UPGRADE, FROM_CLIENT),

	ONE(WELCOME, wire_welcome, HAS_TAIL),
	MANY(READY, wire_entry, 0),
	ONE(ERROR, wire_error_record, HAS_TAIL),
	ONE(HANDOUT, wire_handout, HAS_TAIL | FD_PER_RECORD),
	ONE(STATUS, wire_status, HAS_TAIL),
	ROWS(SESSIONS, wire_session_row, 0),
	ROWS(WATCHES, wire_watch_row, 0),
	ROWS(TIMERS, wire_timer_row, 0),
	ROWS(QUOTAS, wire_quota_row, 0),
	ROWS(PARKS, wire_park_row, HAS_TAIL),
	ROWS(GROUPS, wire_group_row, HAS_TAIL),
};

static const char reserved_not_zero[] = "a reserved field of a record is not zero";
static const char unknown_flag[] = "a record has a flag that this version does not know";
static const char lengths_differ[] = "the lengths in the record do not add up to the tail";

static const struct layout *layout_of(unsigned type)
{
	return type < 256 && layouts[type].name ? &layouts[type] : NULL;
}

int wire_record_size(unsigned type)
{
	const struct layout *l = layout_of(type);

	return l ? l->record : -1;
}

const char *wire_type_name(unsigned type)
{
	const struct layout *l = layout_of(type);

	return l ? l->name : NULL;
}

const char *wire_error_text(unsigned error)
{
	static const char *const texts[] = {
		[WIRE_OK] = "no error",
		[WIRE_E_PROTOCOL] = "malformed message",
		[WIRE_E_VERSION] = "no common protocol version",
		[WIRE_E_BYTE_ORDER] = "the client speaks another byte order",
		[WIRE_E_NOT_FOUND] = "nothing of that name here",
		[WIRE_E_EXISTS] = "the id is in use",
		[WIRE_E_STALE] = "the id is in use with another generation",
		[WIRE_E_INVALID] = "a value makes no sense here",
		[WIRE_E_BUSY] = "the direction has a waiter already",
		[WIRE_E_ALREADY] = "too late, the entry comes",
		[WIRE_E_CLOSING] = "the watch was evicted",
		[WIRE_E_TIMEOUT] = "the deadline has passed",
		[WIRE_E_NOT_POLLABLE] = "this file cannot be polled",
		[WIRE_E_BAD_FD] = "the fd is missing or no open file",
		[WIRE_E_TOO_MANY_FDS] = "the daemon has no room for another fd",
		[WIRE_E_SURPLUS_FDS] = "more fds than the records take",
		[WIRE_E_NO_RESOURCES] = "memory or kernel watches ran out, try again",
		[WIRE_E_QUOTA] = "a limit of this user is reached",
		[WIRE_E_ACCESS] = "no right to do this",
		[WIRE_E_KIND] = "fds of this kind are not admitted",
		[WIRE_E_POLL_DESCRIPTOR] =
			"the fd is one of the daemon's own or a connection to it",
		[WIRE_E_NO_LANE] = "watched under all possible numbers already, too many dups",
		[WIRE_E_SHARED] = "watched by as many sessions as the kernel lets",
		[WIRE_E_NOT_SUPPORTED] = "the daemon's backend cannot do this",
		[WIRE_E_NOT_IMPLEMENTED] = "this version of the daemon does not know how",
		[WIRE_E_SHUTDOWN] = "the daemon is ending",
		[WIRE_E_INTERNAL] = "a fault of the daemon's own",
	};
	static_assert(sizeof(texts) / sizeof(texts[0]) == WIRE_E_MAX, "each error has a text");

	return error < WIRE_E_MAX ? texts[error] : "unknown error";
}

const char *wire_kind_name(unsigned kind)
{
	static const char *const names[] = {
		[WIRE_KIND_UNKNOWN] = "unknown",
		[WIRE_KIND_UNIX] = "unix",
		[WIRE_KIND_INET] = "inet",
		[WIRE_KIND_INET6] = "inet6",
		[WIRE_KIND_NETLINK] = "netlink",
		[WIRE_KIND_PIPE] = "pipe",
		[WIRE_KIND_EVENTFD] = "eventfd",
		[WIRE_KIND_TIMERFD] = "timerfd",
		[WIRE_KIND_PIDFD] = "pidfd",
		[WIRE_KIND_INOTIFY] = "inotify",
		[WIRE_KIND_TTY] = "tty",
		[WIRE_KIND_SOCKET] = "socket",
		[WIRE_KIND_CHARACTER] = "character",
		[WIRE_KIND_FILE] = "file",
		[WIRE_KIND_EPOLL] = "epoll",
		[WIRE_KIND_SIGNALFD] = "signalfd",
	};
	static_assert(sizeof(names) / sizeof(names[0]) == WIRE_KIND_MAX, "each kind has a name");

	return kind < WIRE_KIND_MAX ? names[kind] : names[WIRE_KIND_UNKNOWN];
}

const char *wire_quota_name(unsigned quota)
{
	static const char *const names[] = {
		[WIRE_QUOTA_CONNECTIONS] = "connections",
		[WIRE_QUOTA_WATCHES] = "watches",
		[WIRE_QUOTA_TIMERS] = "timers",
		[WIRE_QUOTA_PARKS] = "parks",
		[WIRE_QUOTA_NOTE_BYTES] = "note-bytes",
		[WIRE_QUOTA_FDS_RECEIVED] = "fds-received",
		[WIRE_QUOTA_FDS_UNREAD] = "fds-unread",
	};
	static_assert(sizeof(names) / sizeof(names[0]) == WIRE_QUOTA_MAX, "each quota has a name");

	return quota < WIRE_QUOTA_MAX ? names[quota] : "unknown";
}

static bool is_zero(const void *bytes, size_t size)
{
	const uint8_t *b = bytes;

	for (size_t i = 0; i < size; i++)
		if (b[i])
			return false;
	return true;
}

static const char *flags_fault(uint32_t reserved, uint32_t flags, uint32_t known)
{
	if (reserved)
		return reserved_not_zero;
	return flags & ~known ? unknown_flag : NULL;
}

/* HELLO's magic tells byte order; only there is a fault not WIRE_E_PROTOCOL. */
static enum wire_error hello_fault(const struct wire_hello *hello, const char **ret_reason)
{
	if (hello->magic == __builtin_bswap32(WIRE_MAGIC)) {
		*ret_reason = "HELLO's magic is in another byte order: speak the host's";
		return WIRE_E_BYTE_ORDER;
	}
	if (hello->magic != WIRE_MAGIC) {
		*ret_reason = "HELLO's magic is wrong: this is not readyd's protocol";
		return WIRE_E_PROTOCOL;
	}
	if (hello->reserved) {
		*ret_reason = reserved_not_zero;
		return WIRE_E_PROTOCOL;
	}
	return WIRE_OK;
}

static const char *take_fault(const struct wire_take *take, size_t tail)
{
	if (take->reserved)
		return reserved_not_zero;
	return (size_t)take->name_length + take->group_length != tail ? lengths_differ : NULL;
}

static const char *attach_fault(const struct wire_attach *attach, size_t tail)
{
	if (attach->reserved)
		return reserved_not_zero;
	if (attach->group_length != tail)
		return lengths_differ;
	return tail > WIRE_NAME_MAX ? "the group's name is too long" : NULL;
}

/* The five parts of a park's tail, in PARK and HANDOUT. */
static const char *parts_fault(size_t note, size_t name, size_t group, size_t local, size_t peer,
			       size_t tail)
{
	if (note > WIRE_NOTE_MAX)
		return "the note is too long";
	if (local > WIRE_ADDRESS_MAX || peer > WIRE_ADDRESS_MAX)
		return "an address is too long";
	return note + name + group + local + peer != tail ? lengths_differ : NULL;
}

static const char *park_fault(const struct wire_park *park, size_t tail)
{
	const uint32_t known = WIRE_PARK_DURABLE | WIRE_PARK_HOLD_ONLY | WIRE_PARK_RELATIVE |
			       WIRE_PARK_DEADLINE_HAND;
	const char *fault = flags_fault(park->reserved, park->flags, known);

	if (fault)
		return fault;
	return parts_fault(park->note_length, park->name_length, park->group_length,
			   park->local_length, park->peer_length, tail);
}

static const char *handout_fault(const struct wire_handout *handout, size_t tail)
{
	if (handout->reserved)
		return reserved_not_zero;
	return parts_fault(handout->note_length, handout->name_length, handout->group_length,
			   handout->local_length, handout->peer_length, tail);
}

static const char *entry_fault(const struct wire_entry *entry)
{
	const unsigned known =
		WIRE_CODE_READY | WIRE_CODE_CLOSING | WIRE_CODE_TIMEOUT | WIRE_CODE_NOT_POLLABLE;

	if ((entry->read | entry->write) & ~known)
		return "an entry has a code that this version does not know";
	if (!(entry->read | entry->write))
		return "an entry says nothing about either direction";
	return entry->mode > WIRE_MODE_STREAM ? "an entry's mode is unknown" : NULL;
}

static const char *park_entry_fault(const struct wire_park_entry *entry)
{
	if (entry->reserved1 || entry->reserved2)
		return reserved_not_zero;
	if ((entry->read | entry->write) & ~(WIRE_CODE_READY | WIRE_CODE_TIMEOUT))
		return "a park's entry has a code that this version does not know";
	return entry->read | entry->write ? NULL : "a park's entry says nothing";
}

/* The records of READY share their size; the first byte says what they are. */
static const char *ready_fault(const void *record)
{
	const struct wire_timer_entry *timer = record;
	const struct wire_break_entry *broken = record;
	const struct wire_park_entry *park = record;
	const struct wire_answer *answer = record;
	bool zero = true;

	switch (*(const uint8_t *)record) {
	case WIRE_RECORD_ENTRY:
		return entry_fault(record);
	case WIRE_RECORD_TIMER:
		zero = is_zero(timer->reserved, sizeof(timer->reserved));
		break;
	case WIRE_RECORD_BREAK:
		zero = is_zero(broken->reserved, sizeof(broken->reserved));
		break;
	case WIRE_RECORD_ANSWER:
		zero = answer->reserved == 0;
		break;
	case WIRE_RECORD_FAILURE:
		break;
	case WIRE_RECORD_PARK:
		return park_entry_fault(park);
	default:
		return "READY has a record of an unknown kind";
	}
	return zero ? NULL : reserved_not_zero;
}

/* What the fields of one record must be for its message to have a meaning; NULL: all well. */
static const char *record_fault(unsigned type, const void *record, size_t tail)
{
	switch (type) {
	case WIRE_IS_POLL_DESCRIPTOR:
		return ((const struct wire_is_poll_descriptor *)record)->reserved
			       ? reserved_not_zero
			       : NULL;
	case WIRE_WATCH:
		return ((const struct wire_watch *)record)->reserved ? reserved_not_zero : NULL;
	case WIRE_UNWATCH: {
		const struct wire_unwatch *r = record;

		return flags_fault(r->reserved, r->flags, WIRE_UNWATCH_FD);
	}
	case WIRE_WAIT:
	case WIRE_UNWAIT:
	case WIRE_RESET:
	case WIRE_EVICT:
		return ((const struct wire_slots *)record)->reserved ? reserved_not_zero : NULL;
	case WIRE_DEADLINE: {
		const struct wire_deadline *r = record;

		return flags_fault(r->reserved, r->flags, WIRE_TIME_RELATIVE);
	}
	case WIRE_TIMER_SET: {
		const struct wire_timer_set *r = record;

		return flags_fault(r->reserved, r->flags, WIRE_TIME_RELATIVE);
	}
	case WIRE_PARK:
		return park_fault(record, tail);
	case WIRE_TAKE:
	case WIRE_DROP:
		return take_fault(record, tail);
	case WIRE_ACKNOWLEDGE:
	case WIRE_HELD:
		return ((const struct wire_held *)record)->reserved ? reserved_not_zero : NULL;
	case WIRE_ATTACH:
	case WIRE_DETACH:
		return attach_fault(record, tail);
	case WIRE_WELCOME: {
		const struct wire_welcome *r = record;

		if (r->magic != WIRE_MAGIC)
			return "WELCOME's magic is wrong: this is not a readyd of this byte order";
		return r->reserved ? reserved_not_zero : NULL;
	}
	case WIRE_READY:
		return ready_fault(record);
	case WIRE_HANDOUT:
		return handout_fault(record, tail);
	case WIRE_PARKS:
		return ((const struct wire_park_row *)record)->shared > 1
			       ? "a row says neither that it is shared nor that it is not"
			       : NULL;
	case WIRE_GROUPS:
		return ((const struct wire_group_row *)record)->reserved ? reserved_not_zero : NULL;
	case WIRE_TIMERS:
		return ((const struct wire_timer_row *)record)->reserved ? reserved_not_zero : NULL;
	default:
		return NULL; /* BREAK, TIMER_STOP, LIST_*, ...: any value has its meaning */
	}
}

/* The texts of all rows lie one after the other in the tail. */
static const char *park_rows_fault(const struct wire_view *view)
{
	const struct wire_park_row *r = view->records;
	size_t sum = 0;

	for (uint32_t i = 0; i < view->header.count; i++) {
		if (r[i].local_length > WIRE_ADDRESS_MAX || r[i].peer_length > WIRE_ADDRESS_MAX)
			return "an address is too long";
		sum += (size_t)r[i].name_length + r[i].group_length + r[i].local_length +
		       r[i].peer_length;
	}
	return sum != view->header.tail ? lengths_differ : NULL;
}

static const char *group_rows_fault(const struct wire_view *view)
{
	const struct wire_group_row *r = view->records;
	size_t sum = 0;

	for (uint32_t i = 0; i < view->header.count; i++) {
		if (r[i].group_length > WIRE_NAME_MAX)
			return "a group's name is too long";
		sum += r[i].group_length;
	}
	return sum != view->header.tail ? lengths_differ : NULL;
}

/* Texts are short and have no zero byte; STATUS's are three, each ended by one. */
static const char *tail_fault(unsigned type, const char *tail, size_t size)
{
	size_t zeros = 0;

	if (type != WIRE_HELLO && type != WIRE_WELCOME && type != WIRE_ERROR && type != WIRE_STATUS)
		return NULL;
	if (size > WIRE_TEXT_MAX)
		return "the text is too long";
	for (size_t i = 0; i < size; i++)
		zeros += tail[i] == 0;
	if (type != WIRE_STATUS)
		return zeros ? "the text has a zero byte" : NULL;
	return zeros == 3 && tail[size - 1] == 0 ? NULL : "STATUS does not have its three texts";
}

/* Some requests are worth nothing to who does not await their answer. */
static const char *unanswered_fault(unsigned type)
{
	switch (type) {
	case WIRE_RESET:
		return "RESET must ask for its answer, and be awaited before reading";
	case WIRE_PARK:
		return "PARK must ask for its answer, and keep the fd until then";
	case WIRE_TAKE:
		return "TAKE must ask for its answer";
	case WIRE_ACKNOWLEDGE:
		return "ACKNOWLEDGE must ask for its answer, and await it before using the fd";
	default:
		return NULL;
	}
}

static const char *header_fault(const struct wire_header *h, const struct layout *l,
				bool from_client)
{
	unsigned known = from_client ? WIRE_FLAG_ANSWER : 0;

	if (l->traits & MAY_HAVE_MORE)
		known |= WIRE_FLAG_MORE;
	if (((l->traits & FROM_CLIENT) != 0) != from_client)
		return from_client ? "only the daemon sends this type"
				   : "only a client sends this type";
	if (h->flags & ~known)
		return "a flag in the header is unknown or has no meaning here";
	if (h->count < l->lowest)
		return "this type has at least one record";
	if (h->count > l->highest)
		return "more records than this type may have";
	if (h->tail && !(l->traits & HAS_TAIL))
		return "this type has no tail";
	if (h->tail > WIRE_MESSAGE_MAX)
		return "the tail is longer than a message may be";
	return h->flags & WIRE_FLAG_ANSWER ? NULL : unanswered_fault(h->type);
}

static unsigned count_fds(const struct layout *l, const struct wire_view *view)
{
	const struct wire_unwatch *r = view->records;
	unsigned n = 0;

	if (l->traits & FD_PER_RECORD)
		return view->header.count;
	if (view->header.type != WIRE_UNWATCH)
		return 0;
	for (unsigned i = 0; i < view->header.count; i++)
		n += (r[i].flags & WIRE_UNWATCH_FD) != 0;
	return n;
}

/* Everything about the message but its header; fills the view. */
static enum wire_error body_fault(const void *buffer, size_t size, bool from_client,
				  const struct layout *l, struct wire_view *view,
				  const char **ret_reason)
{
	const struct wire_header *h = &view->header;
	const uint8_t *records = (const uint8_t *)buffer + sizeof(*h);
	size_t in_records = (size_t)h->count * l->record;
	size_t whole = sizeof(*h) + in_records + wire_align(h->tail);

	if (whole > size)
		*ret_reason = "the datagram ends before the message does";
	else if (!from_client && whole < size)
		*ret_reason = "there are bytes after the message";
	if (*ret_reason)
		return WIRE_E_PROTOCOL;

	view->records = records;
	view->tail = (const char *)records + in_records;
	view->size = whole;
	if (!is_zero(view->tail + h->tail, wire_align(h->tail) - h->tail)) {
		*ret_reason = "the padding after the tail is not zero";
		return WIRE_E_PROTOCOL;
	}
	if (h->type == WIRE_HELLO) {
		enum wire_error error = hello_fault(view->records, ret_reason);

		if (error)
			return error;
	}
	*ret_reason = tail_fault(h->type, view->tail, h->tail);
	for (uint32_t i = 0; i < h->count && !*ret_reason; i++)
		*ret_reason = record_fault(h->type, records + (size_t)i * l->record, h->tail);
	if (h->type == WIRE_PARKS && !*ret_reason)
		*ret_reason = park_rows_fault(view);
	if (h->type == WIRE_GROUPS && !*ret_reason)
		*ret_reason = group_rows_fault(view);
	return *ret_reason ? WIRE_E_PROTOCOL : WIRE_OK;
}

enum wire_error wire_decode(const void *buffer, size_t size, bool from_client,
			    struct wire_view *ret, const char **ret_reason)
{
	struct wire_view view = {0};
	const struct layout *l;
	const char *reason = NULL;
	enum wire_error error = WIRE_E_PROTOCOL;

	assert(((uintptr_t)buffer & 7) == 0);

	if (size)
		memcpy(&view.header, buffer,
		       size < sizeof(view.header) ? size : sizeof(view.header));
	l = layout_of(view.header.type);
	if (size < sizeof(view.header))
		reason = "the datagram ends before the header does";
	else if (!l)
		reason = "the type is unknown";
	else
		reason = header_fault(&view.header, l, from_client);
	if (!reason)
		error = body_fault(buffer, size, from_client, l, &view, &reason);

	if (error) {
		*ret = (struct wire_view){.header = view.header};
		if (ret_reason)
			*ret_reason = reason;
		return error;
	}
	view.n_fds = count_fds(l, &view);
	*ret = view;
	return WIRE_OK;
}

/* HELLO is the first request of a connection and comes once. */
static enum wire_error order_fault(const struct wire_header *header, bool greeted,
				   const char **ret_reason)
{
	bool hello = header->type == WIRE_HELLO;

	if (hello != greeted)
		return WIRE_OK;
	if (!greeted && header->type == __builtin_bswap16(WIRE_HELLO)) {
		*ret_reason = "HELLO is in another byte order: speak the host's";
		return WIRE_E_BYTE_ORDER;
	}
	*ret_reason = hello ? "HELLO came a second time" : "the first request must be HELLO";
	return WIRE_E_PROTOCOL;
}

enum wire_error wire_check_datagram(const void *buffer, size_t size, unsigned n_fds, bool greeted,
				    struct wire_view *ret_fault, const char **ret_reason)
{
	const uint8_t *bytes = buffer;
	struct wire_view view = {0};
	const char *reason = NULL;
	enum wire_error error = WIRE_OK;
	unsigned wanted = 0;
	size_t at = 0;

	if (size == 0 || size > WIRE_MESSAGE_MAX) {
		reason = size ? "the datagram is too long" : "the datagram is empty";
		error = WIRE_E_PROTOCOL;
	}
	while (!error && at < size) {
		if (size - at >= sizeof(view.header)) {
			memcpy(&view.header, bytes + at, sizeof(view.header));
			error = order_fault(&view.header, greeted, &reason);
		}
		if (!error)
			error = wire_decode(bytes + at, size - at, true, &view, &reason);
		wanted += view.n_fds;
		at += view.size;
		greeted = true;
	}
	if (!error && n_fds > wanted) {
		memset(&view, 0, sizeof(view)); /* no request in particular is at fault */
		reason = "more fds came than the records take";
		error = WIRE_E_SURPLUS_FDS;
	}

	*ret_fault = (struct wire_view){0};
	if (error) {
		ret_fault->header = view.header;
		if (ret_reason)
			*ret_reason = reason;
	}
	return error;
}

size_t wire_encode(void *buffer, size_t size, unsigned type, unsigned flags, uint32_t serial,
		   const void *records, size_t count, const void *tail, size_t tail_size)
{
	const struct layout *l = layout_of(type);
	uint8_t *out = buffer;
	size_t in_records, padded, whole;

	assert(flags <= UINT16_MAX);
	if (!l || count > l->highest || tail_size > WIRE_MESSAGE_MAX)
		return 0;
	in_records = count * l->record;
	padded = wire_align(tail_size);
	whole = sizeof(struct wire_header) + in_records + padded;
	if (whole > size || whole > WIRE_MESSAGE_MAX)
		return 0;

	struct wire_header header = {
		.type = (uint16_t)type,
		.flags = (uint16_t)flags,
		.serial = serial,
		.count = (uint32_t)count,
		.tail = (uint32_t)tail_size,
	};
	/* The records may lie where they are going already; so they move before the header comes. */
	if (in_records)
		memmove(out + sizeof(header), records, in_records);
	memcpy(out, &header, sizeof(header));
	if (tail_size)
		memcpy(out + sizeof(header) + in_records, tail, tail_size);
	memset(out + sizeof(header) + in_records + tail_size, 0, padded - tail_size);
	return whole;
}
