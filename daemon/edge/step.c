/* SPDX-License-Identifier: MIT */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "parking.h"

/*
 * For the tests of survival, in a build made for them: READYD_DIE_AT names a file with a number in
 * it, the steps that are left. Each step takes one off; the last one removes the file and kills the
 * process. The file is shared by all loops, so the next one lives.
 */

#ifdef READYD_MUTANT_DIE_AT_STEP
void parking_step(void)
{
	const char *path = getenv("READYD_DIE_AT");
	char text[16] = "";
	FILE *f;
	long left;

	f = path ? fopen(path, "r+e") : NULL;
	if (!f)
		return;
	left = fgets(text, sizeof(text), f) ? strtol(text, NULL, 10) - 1 : 0;
	if (left <= 0) {
		(void)unlink(path);
		(void)raise(SIGKILL);
	}
	rewind(f);
	(void)fprintf(f, "%ld\n", left);
	(void)fclose(f);
}
#endif
