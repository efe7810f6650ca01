/* SPDX-License-Identifier: MIT */
#ifndef READYD_CLOCK_H
#define READYD_CLOCK_H

#include <stdint.h>
#include <time.h>

/* The time that all else here is measured in: CLOCK_MONOTONIC, ns. */
static inline int64_t clock_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* A span of time, as system calls want it; what is negative is over. */
static inline struct timespec clock_span(int64_t ns)
{
	if (ns < 0)
		ns = 0;
	return (struct timespec){(time_t)(ns / INT64_C(1000000000)),
				 (long)(ns % INT64_C(1000000000))};
}

#endif
