/* SPDX-License-Identifier: MIT */

/*
 * The keeper speaks for the daemon: it is the main process, and it is there when the loop is not.
 *
 * A sign of life (WATCHDOG=1) is due twice in the time that the manager allows, and only while a
 * loop serves: when the keeper cannot bring one to serve for as long as that, it is the keeper that
 * somebody should replace. Without a watchdog the keeper is never awake for the manager's sake, so
 * an idle daemon makes no system call; STATUS= is told when the keeper is awake anyway.
 */

#include "service.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "daemon/util/plural.h"

void service_init(struct service *s, bool private_, struct log *log)
{
	uint64_t usec = 0;

	*s = (struct service){.log = log, .next = INT64_MAX};
	if (private_ || !getenv("NOTIFY_SOCKET"))
		return;
	s->managed = true;
	/* an hour, should somebody write more: the arithmetic stays within 64 bits */
	if (sd_watchdog_enabled(0, &usec) <= 0)
		return;
	if (usec > UINT64_C(3600000000))
		usec = UINT64_C(3600000000);
	s->interval = (int64_t)usec * 1000 / 2;
	s->next = 0;
}

static void tell(struct service *s, const char *state, int64_t now)
{
	int r;

	if (!s->managed)
		return;
	r = sd_notify(0, state);
	if (r < 0)
		log_limited(s->log, &s->failures, now, CONFIG_LOG_WARNING,
			    "the service manager could not be told: %s", strerror(-r));
}

/* "3 connections, 12 watches, 4 waiting, 0 timers" behind what is told. */
static void tell_with_counts(struct service *s, const char *state, const struct progress_page *page,
			     int64_t now)
{
	struct progress_counts c;
	char text[256];

	if (!s->managed)
		return;
	if (page) {
		progress_get_counts(page, &c);
		(void)snprintf(text, sizeof(text),
			       "%s\nSTATUS=%" PRIu64 " %s, %" PRIu64 " %s, %" PRIu64
			       " waiting, %" PRIu64 " %s",
			       state, c.connections,
			       plural(c.connections, "connection", "connections"), c.watches,
			       plural(c.watches, "watch", "watches"), c.waiting, c.timers,
			       plural(c.timers, "timer", "timers"));
	} else {
		(void)snprintf(text, sizeof(text), "%s\nSTATUS=serving", state);
	}
	tell(s, text, now);
}

void service_serves(struct service *s, const struct progress_page *page, int64_t now)
{
	s->ready = true;
	tell_with_counts(s, "READY=1", page, now);
}

/* While it starts, it is not ready after a reload either. */
void service_reloading(struct service *s, int64_t now)
{
	char text[128];

	(void)snprintf(text, sizeof(text),
		       "RELOADING=1\nMONOTONIC_USEC=%" PRId64 "\nSTATUS=reading the configuration",
		       now / 1000);
	if (s->ready)
		tell(s, text, now);
}

void service_reloaded(struct service *s, const struct progress_page *page, int64_t now)
{
	if (s->ready)
		tell_with_counts(s, "READY=1", page, now);
}

void service_stopping(struct service *s, int64_t now)
{
	tell(s, "STOPPING=1\nSTATUS=ending", now);
}

void service_feed(struct service *s, const struct progress_page *page, int64_t now)
{
	if (!page || now < s->next)
		return;
	s->next = now + s->interval;
	tell_with_counts(s, "WATCHDOG=1", page, now);
}

int64_t service_next(const struct service *s, const struct progress_page *page)
{
	return page ? s->next : INT64_MAX;
}
