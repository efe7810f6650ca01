/* SPDX-License-Identifier: MIT */

/*
 * The account of the checklist. A number counts when an item of that number ran against the daemon
 * and passed, and none failed. Those that need a fake poller or a fake clock are shown by the tests
 * of core and poller, alone or besides: their output is read, and a number that must be there and
 * is not makes the run incomplete. A skip counts only where the table allows it.
 */

#include "numbers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the poll(2) backend may skip: S-099 of the checklist. */
static const int poll_skips[] = {8, 9, 10, 12, 14, 27, 28, 77, 78, 79, 80, 81, 89, 96};

/* Shown by the tests of core and poller, with a fake poller or clock: alone, or besides here. */
static const int core_numbers[] = {49, 50, 55, 63, 83, 88, 91, 92, 100, 101, 102};

/* The poll(2) run is itself the item. */
enum { ITEM_OF_THE_POLL_RUN = 99 };

static bool listed(const int *numbers, size_t n, int number)
{
	for (size_t i = 0; i < n; i++)
		if (numbers[i] == number)
			return true;
	return false;
}
#define LISTED(array, number) listed((array), sizeof(array) / sizeof(*(array)), (number))

int number_of(const struct item *item)
{
	int number = item->number[0] == 'S' ? atoi(item->number + 2) : 0;

	return number <= NUMBERS ? number : 0;
}

/* The number in a line such as "[       OK ] S_049_edge_beats_expiry" or "S-049 ...". 0: none. */
static int also_number(const char *line, const char **ret_name)
{
	for (const char *p = line; (p = strchr(p, 'S')); p++) {
		int number;

		if ((p == line || p[-1] == ' ') && (p[1] == '_' || p[1] == '-') &&
		    strspn(p + 2, "0123456789") == 3) {
			number = atoi(p + 2);
			*ret_name = p;
			return number <= NUMBERS ? number : 0;
		}
	}
	return 0;
}

int also_read(const char *path, struct tally *t)
{
	FILE *f = fopen(path, "re");
	char line[1024];

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		const char *name;
		int number = also_number(line, &name);

		if (number && strstr(line, "FAILED"))
			t->also_failed[number]++;
		else if (number && (strstr(line, "OK") || name == line))
			t->also_passed[number]++;
	}
	(void)fclose(f);
	return 0;
}

/* What is wrong with this number; NULL: nothing. */
static const char *number_fault(const struct env *e, const struct tally *t, int number)
{
	bool poll_run = !e->weak;

	if (t->number_failed[number] || t->also_failed[number])
		return "failed";
	if (LISTED(core_numbers, number) && !t->also_passed[number])
		return "its part against the core did not run (--also)";
	if (t->number_skipped[number] && !(poll_run && LISTED(poll_skips, number)))
		return "was skipped, which is not allowed";
	if (number == ITEM_OF_THE_POLL_RUN)
		return NULL; /* the poll(2) run itself: all numbers of that run */
	if (!t->number_passed[number] && !t->also_passed[number] && !t->number_skipped[number])
		return "did not run";
	if (!t->number_passed[number] && !t->number_skipped[number] &&
	    !LISTED(core_numbers, number))
		return "did not run against the daemon";
	return NULL;
}

bool numbers_complete(const struct env *e, const struct tally *t)
{
	bool complete = true;

	for (int number = 1; number <= NUMBERS; number++) {
		const char *fault = number_fault(e, t, number);

		if (fault) {
			printf("not complete: S-%03d %s: %s\n", number, e->backend, fault);
			complete = false;
		}
	}
	return complete;
}
