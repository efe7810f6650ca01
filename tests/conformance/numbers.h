/* SPDX-License-Identifier: MIT */
#ifndef READYD_TESTS_CONFORMANCE_NUMBERS_H
#define READYD_TESTS_CONFORMANCE_NUMBERS_H

/* Which numbers of the checklist were shown, and whether any is missing. */

#include "harness.h"

enum { NUMBERS = 104 };

/* Place 0 of each array counts items that are not of the checklist. */
struct tally {
	unsigned passed, failed, skipped;
	unsigned number_passed[NUMBERS + 1];
	unsigned number_failed[NUMBERS + 1];
	unsigned number_skipped[NUMBERS + 1];
	unsigned also_passed[NUMBERS + 1];
	unsigned also_failed[NUMBERS + 1];
};

/* The item's number; 0 for one that is not of the checklist. */
int number_of(const struct item *item);

/* Reads other tests' output: lines of cmocka, or bare names. 0 or -errno. */
int also_read(const char *path, struct tally *t);

/* Whether every number was shown; prints those that were not. */
bool numbers_complete(const struct env *e, const struct tally *t);

#endif
