/* SPDX-License-Identifier: MIT */
#include "oom.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/util/cleanup.h"

/*
 * A point is a thousandth of the memory that there is, added to what a process uses. The loop holds
 * a few MiB, so to end it helps little; but where the daemon is to lose one, it shall be this one,
 * and where it is the loop that has grown, it shall go before what grew as much. Hence a modest
 * raise, and no more: a loop at the top of the list would be ended and made anew at each want of
 * memory, without a gain.
 *
 * Anybody may raise a score; lowering it below what the process was once given needs
 * CAP_SYS_RESOURCE. The loop's score depends on nothing but the keeper's, so it is the same after
 * the keeper was started by a service manager with a score of its own (OOMScoreAdjust=).
 */

#define FILE_NAME "/proc/self/oom_score_adj"
enum { SCORE_MAX = 1000 };

/* What this process has; 0 where nobody can tell. */
static int get_score(void)
{
	CLEANUP_FD int fd = open(FILE_NAME, O_RDONLY | O_CLOEXEC);
	char text[16] = "";

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return 0;
	return (int)strtol(text, NULL, 10);
}

static void set_score(int score)
{
	CLEANUP_FD int fd = open(FILE_NAME, O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		(void)dprintf(fd, "%d", score);
}

void oom_protect_keeper(void)
{
	if (get_score() > OOM_KEEPER)
		set_score(OOM_KEEPER);
}

void oom_expose_loop(void)
{
	int keeper = get_score(), score = (keeper > 0 ? keeper : 0) + OOM_LOOP;

	set_score(score < SCORE_MAX ? score : SCORE_MAX);
}
