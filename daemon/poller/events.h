/* SPDX-License-Identifier: MIT */
#ifndef READYD_EVENTS_H
#define READYD_EVENTS_H

/*
 * What a platform's event on a watch means, in one place for all backends: the columns "read slot
 * ready", "write slot ready" and "everr" of Go's pollers. The bits are those of epoll and, but for
 * RDHUP on some machines, of poll(2).
 */

#include <stdint.h>

#include "daemon/poller/poller.h"

enum event_bits {
	EVENT_IN = 0x1,
	EVENT_OUT = 0x4,
	EVENT_ERR = 0x8,
	EVENT_HUP = 0x10,
	EVENT_RDHUP = 0x2000,
};

/* The directions that became ready; POLLER_ERROR iff the event was the bare error bit. */
static inline uint32_t events_to_mask(uint32_t events)
{
	uint32_t mask = 0;

	if (events & (EVENT_IN | EVENT_RDHUP | EVENT_HUP | EVENT_ERR))
		mask |= POLLER_READ;
	if (events & (EVENT_OUT | EVENT_HUP | EVENT_ERR))
		mask |= POLLER_WRITE;
	if (events == EVENT_ERR)
		mask |= POLLER_ERROR;
	return mask;
}

/* The same for one of the daemon's own descriptors. */
static inline uint32_t events_to_own_mask(uint32_t events)
{
	uint32_t mask = 0;

	if (events & EVENT_IN)
		mask |= POLLER_READ;
	if (events & EVENT_OUT)
		mask |= POLLER_WRITE;
	if (events & (EVENT_HUP | EVENT_ERR))
		mask |= POLLER_HANGUP;
	return mask;
}

#endif
