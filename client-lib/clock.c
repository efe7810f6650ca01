/* SPDX-License-Identifier: MIT */

/*
 * Time. The caller's times are of its own CLOCK_MONOTONIC; the daemon's may be another clock, if
 * one of the two lives in a time namespace. WELCOME says the daemon's time, read between the
 * library's HELLO and its receipt: if that lies between two looks at one's own clock, the clocks
 * are one and the offset is exactly 0 (latency is no offset). Else the offset is the largest that
 * is possible, so that nothing fires early; it is too large by the latency of that exchange at
 * most.
 */

#include "internal.h"

#include <time.h>

int64_t rd_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t rd_time_offset(int64_t before, int64_t now, int64_t after)
{
	int64_t offset;

	if (now >= before && now <= after)
		return 0;
	return __builtin_sub_overflow(now, before, &offset) ? 0 : offset;
}

static int64_t add_saturated(int64_t a, int64_t b)
{
	int64_t sum;

	if (!__builtin_add_overflow(a, b, &sum))
		return sum;
	return b > 0 ? INT64_MAX : INT64_MIN;
}

int64_t rd_time_to_daemon(const struct readyd *r, int64_t when)
{
	if (when <= 0)
		return when;
	if (when == INT64_MAX)
		return when; /* never, in any clock */
	when = add_saturated(when, r->offset);
	return when > 0 ? when : -1;
}

int64_t rd_time_from_daemon(const struct readyd *r, int64_t when)
{
	if (when <= 0 || when == INT64_MAX)
		return when;
	if (r->offset == INT64_MIN)
		return when;
	when = add_saturated(when, -r->offset);
	return when > 0 ? when : 1;
}
