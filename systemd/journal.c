/* SPDX-License-Identifier: MIT */

/*
 * One datagram a line, in the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): lines
 * FIELD=value, for values without newlines, which the log has none of.
 *
 * sd_journal_sendv(3) would do the same, but its socket blocks: a journal that is stopped, or busy
 * with its disk, would stop the loop and with it all clients. So the socket is our own and a datagram
 * that finds no room there is refused; then the log has its stream, and if that is full too, it counts
 * the line. Nothing is connected: the journal may be restarted at any time.
 *
 * Who we are (_PID, _UID, _SYSTEMD_UNIT) the journal learns from the kernel, with each datagram. So
 * keeper and loop can use one socket.
 */

#include "journal.h"

#include <assert.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"

enum { FIELDS_MAX = 512 }; /* bytes of all fields but the text */

/* Each drawn once (systemd-id128 new), documented in readyd(8), never changed. */
static const char *const message_ids[] = {
	[LOG_EVENT_SERVES] = "853e5b0134cd46daa1b4a6ac621592a7",
	[LOG_EVENT_DIED] = "ae13c04c0ba544dda910c7c7d703dfe8",
	[LOG_EVENT_STUCK] = "3e111749606b484095bcc5797e89d05f",
	[LOG_EVENT_REPLACED] = "62ff5efe0ea14e1ab724fe595a4411df",
	[LOG_EVENT_KEPT_OUT] = "a33c01058c8b4f07bd852287a6ac5564",
	[LOG_EVENT_REFUSED] = "9afbf7dda38e43eab6689c850efd524e",
	[LOG_EVENT_CLOSED] = "ffc966ed667d4c1698ef64941dd2be22",
};

static const char priorities[] = {
	[CONFIG_LOG_ERROR] = '3', [CONFIG_LOG_WARNING] = '4', [CONFIG_LOG_NOTICE] = '5',
	[CONFIG_LOG_INFO] = '6',  [CONFIG_LOG_DEBUG] = '7',
};

const char *journal_message_id(enum log_event event)
{
	return (size_t)event < sizeof(message_ids) / sizeof(message_ids[0]) ? message_ids[event]
									    : NULL;
}

/* A field more. There is room: FIELDS_MAX is more than all of them take. */
__attribute__((format(printf, 3, 4))) static void add(char *fields, size_t *used,
						      const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(fields + *used, FIELDS_MAX - *used, format, ap);
	va_end(ap);
	assert(n >= 0 && (size_t)n < FIELDS_MAX - *used);
	*used += (size_t)n;
}

static size_t add_fields(char *fields, const struct log_record *record)
{
	const struct log_about *about = record->about;
	const char *id = journal_message_id(about->event);
	size_t used = 0;

	add(fields, &used, "PRIORITY=%c\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=readyd\n",
	    priorities[record->level]);
	if (id)
		add(fields, &used, "MESSAGE_ID=%s\n", id);
	if (about->client)
		add(fields, &used, "READYD_UID=%u\n", about->uid);
	if (about->client && about->pid > 0)
		add(fields, &used, "READYD_PID=%d\n", about->pid);
	if (about->session != 0)
		add(fields, &used, "READYD_SESSION=%llu\n", (unsigned long long)about->session);
	if (about->watch != 0)
		add(fields, &used, "READYD_WATCH=%u\n", about->watch);
	add(fields, &used, "MESSAGE=");
	return used;
}

static bool send_record(void *context, const struct log_record *record)
{
	struct journal *j = context;
	char fields[FIELDS_MAX];
	struct iovec iov[] = {
		{.iov_base = fields, .iov_len = add_fields(fields, record)},
		{.iov_base = (void *)(uintptr_t)record->text, .iov_len = record->length},
		{.iov_base = (char[]){'\n'}, .iov_len = 1},
	};
	struct msghdr header = {
		.msg_name = &j->name,
		.msg_namelen = sizeof(j->name),
		.msg_iov = iov,
		.msg_iovlen = 3,
	};

	return sendmsg(j->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

void journal_attach(struct journal *j, const char *path, struct log *log)
{
	CLEANUP_FD int fd = -1;

	*j = (struct journal){.fd = -1, .name = {.sun_family = AF_UNIX}};
	if (!log->journal || strlen(path) >= sizeof(j->name.sun_path))
		return;
	strcpy(j->name.sun_path, path);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		fd = fd_move_up(fd);
	if (fd < 0)
		return;
	j->fd = steal_fd(&fd);
	log->sink = send_record;
	log->sink_context = j;
	log->sink_fd = j->fd;
}

void journal_detach(struct journal *j, struct log *log)
{
	if (j->fd < 0)
		return;
	log->sink = NULL;
	log->sink_context = NULL;
	log->sink_fd = -1;
	(void)close(steal_fd(&j->fd));
}
