/* SPDX-License-Identifier: MIT */
/*
 * What an operator may see: the live items by table position, one at a time, so that a listing of
 * a million can be taken in pieces while the core works on between them. An item that stays is
 * seen exactly once; one that comes or goes meanwhile may be seen or not.
 */
#include "core.h"

#include "state.h"

static int64_t time_of(uint32_t units)
{
	return (int64_t)units << ITEM_UNIT;
}

static struct core_slot_info slot_info(const struct item *it, unsigned side)
{
	struct slot s = it->slot[side];
	struct core_slot_info info = {.code = slot_codes(s), .deadline = it->deadline[side]};

	if (slot_codes(s)) {
		info.state = CORE_SLOT_DONE;
	} else if (slot_waits(s)) {
		info.state = CORE_SLOT_WAITING;
		/* 0 would say that it does not wait. */
		info.since = it->since_or_stamp[side] ? time_of(it->since_or_stamp[side]) : 1;
	} else if (slot_latched(s)) {
		info.state = CORE_SLOT_READY;
	}
	return info;
}

static void fill(const struct core *c, const struct item *it, struct core_item_info *ret)
{
	*ret = (struct core_item_info){
		.session = item_session(c, it),
		.timer = item_is_timer(it),
		.id = it->id,
		.gen = it->gen,
		.cookie = it->cookie,
		.fired = it->fired,
		.since = time_of(it->made),
	};
	if (ret->timer) {
		ret->when = it->when;
		ret->period = it->period;
		ret->count = it->count;
		return;
	}
	ret->read = slot_info(it, 0);
	ret->write = slot_info(it, 1);
	ret->word = it->word;
	ret->fd = it->fd;
	ret->kind = it->kind;
	ret->interest = it->flags & ITEM_INTEREST;
	ret->mode = item_is_stream(it) ? CORE_MODE_STREAM : CORE_MODE_WAIT;
	ret->closing = it->flags & ITEM_CLOSING;
	ret->error = it->flags & ITEM_ERROR;
}

uint64_t core_last_item(const struct core *c)
{
	return c->items.end > 0 ? c->items.end - 1 : 0;
}

bool core_next_item_until(const struct core *c, uint64_t *cursor, uint64_t last,
			  struct core_item_info *ret)
{
	if (last > core_last_item(c))
		last = core_last_item(c);
	while (*cursor < last) {
		const struct item *it = item_at(&c->items, (uint32_t)++ * cursor);

		if (!it->session)
			continue;
		fill(c, it, ret);
		return true;
	}
	return false;
}

bool core_next_item(const struct core *c, uint64_t *cursor, struct core_item_info *ret)
{
	uint64_t at = *cursor;

	if (!core_next_item_until(c, &at, UINT64_MAX, ret))
		return false;
	*cursor = at;
	return true;
}
