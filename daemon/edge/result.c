/* SPDX-License-Identifier: MIT */
#include "result.h"
#include "sending.h"

#include <errno.h>
#include <string.h>

/*
 * The core speaks in negative errnos and codes, the wire in numbers of its own: here is the only
 * place where one becomes the other.
 */

void result_refuse(struct request *q, const struct refusal *why)
{
	struct wire_failure record = {
		.kind = WIRE_RECORD_FAILURE,
		.direction = why->direction,
		.error = (uint16_t)why->error,
		.serial = q->view->header.serial,
		.id = why->id,
		.gen = why->gen,
		.index = (uint16_t)q->index,
		.detail = why->detail,
		.value = why->value > UINT32_MAX ? UINT32_MAX : (uint32_t)why->value,
	};

	if (q->failed++ == 0)
		q->first = why->error;
	q->c->server->stats.failures++;
	sending_add_record(q->c, &record);
}

void result_answer(struct request *q)
{
	struct wire_answer record = {
		.kind = WIRE_RECORD_ANSWER,
		.error = (uint16_t)q->first,
		.serial = q->view->header.serial,
		.failed = q->failed,
		.request = q->view->header.type,
		.value = q->value,
	};

	sending_add_record(q->c, &record);
}

enum wire_error result_error_of(int r)
{
	switch (r) {
	case 0:
		return WIRE_OK;
	case -ENOENT:
		return WIRE_E_NOT_FOUND;
	case -ESTALE:
		return WIRE_E_STALE;
	case -EINVAL:
		return WIRE_E_INVALID;
	case -EEXIST:
		return WIRE_E_EXISTS;
	case -EBUSY:
		return WIRE_E_BUSY;
	case -EALREADY:
		return WIRE_E_ALREADY;
	case -EDQUOT:
		return WIRE_E_QUOTA;
	case -EACCES:
		return WIRE_E_ACCESS;
	case -EOPNOTSUPP:
		return WIRE_E_NOT_SUPPORTED;
	case -EMFILE:
	case -ENFILE:
		return WIRE_E_TOO_MANY_FDS;
	case -EBADF:
		return WIRE_E_BAD_FD;
	case -EPERM:
		return WIRE_E_NOT_POLLABLE;
	case -ENOSPC:
	case -ENOMEM:
		return WIRE_E_NO_RESOURCES;
	default:
		return WIRE_E_INTERNAL;
	}
}

/* The kernel's word at registration means other things than the core's. */
enum wire_error result_error_of_registration(int r)
{
	switch (r) {
	case -EEXIST:
		return WIRE_E_NO_LANE;
	case -EINVAL:
	case -ELOOP:
		return WIRE_E_SHARED;
	case -EBADF:
		return WIRE_E_NOT_POLLABLE; /* O_PATH: open, but not for this */
	default:
		return result_error_of(r);
	}
}

static enum wire_error error_of_code(int code)
{
	switch (code) {
	case CORE_CODE_CLOSING:
		return WIRE_E_CLOSING;
	case CORE_CODE_TIMEOUT:
		return WIRE_E_TIMEOUT;
	case CORE_CODE_NOT_POLLABLE:
		return WIRE_E_NOT_POLLABLE;
	default:
		return WIRE_E_INTERNAL;
	}
}

void result_refuse_code(struct request *q, uint32_t id, uint32_t gen, unsigned directions, int r)
{
	struct refusal why = {.id = id, .gen = gen};

	if (r == 0)
		return;
	why.error = r < 0 ? result_error_of(r) : error_of_code(r);
	if (directions == WIRE_READ || directions == WIRE_WRITE)
		why.direction = (uint8_t)directions;
	result_refuse(q, &why);
}

void result_refuse_quota(struct request *q, uint32_t id, uint32_t gen, int r, enum quota_kind kind)
{
	struct refusal why = {.error = result_error_of(r), .id = id, .gen = gen};

	if (r == -EDQUOT) {
		why.detail = (uint16_t)kind;
		why.value = q->c->account->quota.limit[kind];
	}
	result_refuse(q, &why);
}

void result_encode_entry(const struct core_entry *e, struct wire_entry *ret)
{
	switch (e->kind) {
	case CORE_ENTRY_WATCH:
		*ret = (struct wire_entry){
			.kind = WIRE_RECORD_ENTRY,
			.mode = e->mode,
			.read = e->read,
			.write = e->write,
			.read_stamp = e->read_stamp,
			.write_stamp = e->write_stamp,
			.id = e->id,
			.gen = e->gen,
			.cookie = e->cookie,
		};
		return;
	case CORE_ENTRY_TIMER: {
		struct wire_timer_entry timer = {
			.kind = WIRE_RECORD_TIMER,
			.count = e->count,
			.id = e->id,
			.gen = e->gen,
			.cookie = e->cookie,
		};

		_Static_assert(sizeof(timer) == sizeof(*ret), "records of READY share their size");
		memcpy(ret, &timer, sizeof(timer));
		return;
	}
	default:
		*ret = (struct wire_entry){.kind = WIRE_RECORD_BREAK};
		return;
	}
}
