/* SPDX-License-Identifier: MIT */
#include "kept_out.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/util/cleanup.h"

/*
 * A list of few, mostly none: so a connection costs nothing more. /proc is asked only when a pid
 * is found on the list; the fd that this takes stands in the landing zone for that moment, between
 * two messages, when the zone is empty.
 */

enum { STAT_SIZE = 1024 };

uint64_t process_start_time(pid_t pid)
{
	char path[32], text[STAT_SIZE];
	CLEANUP_FD int fd = -1;
	const char *p;
	uint64_t start;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	/* the name, field 2, may contain anything; starttime is field 22 */
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1,
			 " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
			 "%*d %" SCNu64,
			 &start) != 1)
		return 0;
	return start;
}

const struct kept_out *kept_out_find(const struct kept_out_list *list, uid_t uid, pid_t pid,
				     int64_t now)
{
	for (unsigned i = 0; i < list->n; i++) {
		const struct kept_out *k = &list->items[i];

		if (k->uid != uid || k->pid != pid || k->until <= now)
			continue;
		if (k->start == 0 || k->start == process_start_time(pid))
			return k;
	}
	return NULL;
}
