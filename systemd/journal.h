/* SPDX-License-Identifier: MIT */
#ifndef READYD_JOURNAL_H
#define READYD_JOURNAL_H

/*
 * The journal as a sink of the log: lines with fields (systemd.journal-fields(7)), so that
 * `journalctl READYD_UID=1000` finds what concerns a user.
 */

#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/edge/log.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

struct journal {
	int fd; /* -1: none */
	struct sockaddr_un name;
};

/*
 * If stderr is the journal's (log->journal), the log's lines go to the socket at `path` from now
 * on. The landing zone must be plugged; forked processes share the socket. Where it cannot be had,
 * lines stay on stderr. `j` must outlive the log's use.
 */
void journal_attach(struct journal *j, const char *path, struct log *log);
void journal_detach(struct journal *j, struct log *log);

/* The MESSAGE_ID= of an event, 32 hexadecimal digits; NULL for LOG_EVENT_NONE. */
const char *journal_message_id(enum log_event event);

#endif
