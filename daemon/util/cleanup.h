/* SPDX-License-Identifier: MIT */
#ifndef READYD_CLEANUP_H
#define READYD_CLEANUP_H

/* Cleanup attributes: what must be released when a scope ends. Giving away is written `steal`. */

#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(function) __attribute__((cleanup(function)))

static inline void cleanup_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void cleanup_memory(void *pointer)
{
	free(*(void **)pointer);
}

static inline int steal_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define CLEANUP_FD CLEANUP(cleanup_fd)
#define CLEANUP_MEMORY CLEANUP(cleanup_memory)
#define STEAL(pointer)                                   \
	__extension__({                                  \
		__typeof__(pointer) stolen_ = (pointer); \
		(pointer) = NULL;                        \
		stolen_;                                 \
	})

#endif
