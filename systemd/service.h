/* SPDX-License-Identifier: MIT */
#ifndef READYD_SERVICE_H
#define READYD_SERVICE_H

/*
 * What the service manager is told (sd_notify(3)): that the daemon serves, reloads, ends, is alive,
 * and how much it has to do. Without $NOTIFY_SOCKET all of it does nothing. A call opens a socket
 * and closes it again: the process's landing zone is plugged, or takes in nothing meanwhile.
 */

#include <stdbool.h>
#include <stdint.h>

#include "daemon/edge/log.h"
#include "daemon/edge/progress.h"

struct service {
	struct log *log;
	struct log_site failures;
	bool managed;     /* somebody listens */
	bool ready;       /* it was told so */
	int64_t interval; /* ns between signs of life; 0: nobody wants any */
	int64_t next;     /* when the next is due, CLOCK_MONOTONIC */
};

/* Reads the environment. A private daemon is none of its starter's manager's business. */
void service_init(struct service *s, bool private_, struct log *log);

/* A loop serves: the first, or a new one. `page` is the loop's, or NULL: then no counts are told. */
void service_serves(struct service *s, const struct progress_page *page, int64_t now);

/* Around the reading of the configuration. */
void service_reloading(struct service *s, int64_t now);
void service_reloaded(struct service *s, const struct progress_page *page, int64_t now);

void service_stopping(struct service *s, int64_t now);

/* A sign of life, if one is due and there is a loop that serves: `page` is its, or NULL. */
void service_feed(struct service *s, const struct progress_page *page, int64_t now);

/* When service_feed() has something to do; INT64_MAX: not by itself. */
int64_t service_next(const struct service *s, const struct progress_page *page);

#endif
