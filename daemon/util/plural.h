/* SPDX-License-Identifier: MIT */
#ifndef READYD_PLURAL_H
#define READYD_PLURAL_H

/* The words that go with a number: "1 park", "2 parks". Returns one of the two, as it was given. */

#include <stdint.h>

static inline const char *plural(uint64_t n, const char *one, const char *many)
{
	return n == 1 ? one : many;
}

#endif
