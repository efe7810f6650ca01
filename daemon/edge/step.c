/* SPDX-License-Identifier: MIT */
#include "step.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * For the tests of survival, in a build made for them: READYD_DIE_AT names a file that says after how
 * many steps something is to happen. It is shared by all loops: what the first one leaves is the
 * next one's. A line is a letter and a number: K, to be killed at the step of that number; W, to
 * wait there until the file of that name with ".wait" behind it is gone. The first line counts; when
 * its time has come it goes, and the file with the last one. Without the file nothing happens.
 *
 * Holders have a file of their own, with ".holder" behind the name.
 */

#ifdef READYD_MUTANT_DIE_AT_STEP
enum {
	LINES_MAX = 8,
	NAME_SIZE = 512,
};

struct line {
	char letter;
	long steps;
};

/* Into the file that was read, which another one may have replaced meanwhile. */
static void write_lines(const char *path, FILE *f, const struct line *lines, unsigned n)
{
	if (n == 0)
		(void)unlink(path);
	rewind(f);
	if (ftruncate(fileno(f), 0) == 0)
		for (unsigned i = 0; i < n; i++)
			(void)fprintf(f, "%c%ld\n", lines[i].letter, lines[i].steps);
}

static void wait_while(const char *path)
{
	char name[NAME_SIZE];

	(void)snprintf(name, sizeof(name), "%s.wait", path);
	while (access(name, F_OK) == 0)
		(void)usleep(1000);
}

static void step(const char *path)
{
	struct line lines[LINES_MAX];
	unsigned n = 0;
	bool due;
	FILE *f;

	f = fopen(path, "r+e");
	if (!f)
		return;
	while (n < LINES_MAX && fscanf(f, " %c%ld", &lines[n].letter, &lines[n].steps) == 2)
		n++;
	due = n > 0 && --lines[0].steps <= 0;
	write_lines(path, f, lines + due, n - due);
	(void)fclose(f);
	if (!due)
		return;
	if (lines[0].letter == 'W')
		wait_while(path);
	else
		(void)raise(SIGKILL);
}

void parking_step(void)
{
	const char *path = getenv("READYD_DIE_AT");

	if (path)
		step(path);
}

void holder_step(void)
{
	const char *path = getenv("READYD_DIE_AT");
	char name[NAME_SIZE];

	(void)snprintf(name, sizeof(name), "%s.holder", path ? path : "");
	if (path)
		step(name);
}
#endif
