/* SPDX-License-Identifier: MIT */
/*
 * The choice of a platform poller, and its life. Everything else of the interface is a call
 * through struct poller_backend, in poller.h. The backends are one file each: epoll.c, poll.c, and
 * fake.c, which tests alone use and which therefore has no name in a configuration.
 */
#include "poller.h"

#include <string.h>

const struct poller_backend *poller_backend_by_name(const char *name)
{
	const struct poller_backend *const backends[] = {
		&poller_backend_epoll,
		&poller_backend_poll,
	};

	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
		if (strcmp(backends[i]->name, name) == 0)
			return backends[i];
	return NULL;
}

int poller_new(const struct poller_backend *backend, struct poller **ret)
{
	return backend->init(ret);
}

struct poller *poller_free(struct poller *p)
{
	return p ? p->backend->free(p) : NULL;
}
