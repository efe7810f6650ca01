/* SPDX-License-Identifier: MIT */

/*
 * Lines on stderr that never hold up the loop.
 *
 * stderr is a terminal, a pipe, a file or the journal's socket, and whoever reads it may stop doing
 * so: ^S on a terminal, a hung ssh, a stopped `| less`. A blocking write would then stop all
 * clients. O_NONBLOCK cannot be set on it, because the flag belongs to the open file description
 * and that is shared with the shell and others. So:
 *
 *  - a socket: send() with MSG_DONTWAIT, and MSG_NOSIGNAL;
 *  - a terminal or pipe: opened again by its name in /proc/self/fd, which makes a description of
 *    our own, with O_NONBLOCK. Where that fails (another user's terminal, no /proc): poll(2)
 *    with timeout 0 before each write. A pipe that is writable takes PIPE_BUF bytes, and a line is
 *    shorter, so only another writer that is faster could still make us wait;
 *  - a file: always writable; it is as slow as its disk.
 *
 * What cannot be written is dropped and counted; the next line that gets through is preceded by one
 * with the count, both in one write of less than PIPE_BUF bytes, which a pipe takes whole or not. A
 * line of which a part was written (terminals do that) is ended by a newline before the next.
 * SIGPIPE is the daemon's to ignore.
 *
 * The journal: systemd sets $JOURNAL_STREAM to device:inode of the stderr that it made. Only if fd
 * is still that one do lines get "<N>", the priority, as in sd-daemon(3); elsewhere they say it in
 * words. A sink (systemd/journal.c) is asked before: where it takes no line, the stream may. A newline
 * or other control character within a line is written as '?', so that a line is a
 * line whatever somebody forgot to escape.
 */

#include "log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "daemon/util/plural.h"

static const struct {
	char priority;
	const char *word;
} levels[] = {
	[CONFIG_LOG_ERROR] = {'3', "error"},   [CONFIG_LOG_WARNING] = {'4', "warning"},
	[CONFIG_LOG_NOTICE] = {'5', "notice"}, [CONFIG_LOG_INFO] = {'6', "info"},
	[CONFIG_LOG_DEBUG] = {'7', "debug"},
};

/* ---- Where to ---- */

static bool is_journal(const struct stat *st)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;

	if (!stream || sscanf(stream, "%llu:%llu", &device, &inode) != 2)
		return false;
	return device == st->st_dev && inode == st->st_ino;
}

/* A non-blocking description of our own, above the landing zone; -1 if there is none to be had. */
static int open_again(int fd)
{
	char path[32];
	int opened;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	opened = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (opened < 0)
		return -1;
	opened = fd_move_up(opened);
	return opened < 0 ? -1 : opened;
}

void log_init(struct log *log, int fd, enum config_log_level level)
{
	struct stat st;
	int own = -1;

	*log = (struct log){.fd = fd, .level = level, .sink_fd = -1};
	if (fstat(fd, &st) < 0)
		return;
	log->socket = S_ISSOCK(st.st_mode);
	log->journal = is_journal(&st);
	if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))
		own = open_again(fd);
	if (own >= 0) {
		log->fd = own;
		log->own = true;
	}
}

void log_deinit(struct log *log)
{
	if (log->own)
		(void)close(log->fd);
	*log = (struct log){.fd = -1, .sink_fd = -1};
}

size_t log_get_fds(const struct log *log, int *ret)
{
	size_t n = 0;

	ret[n++] = log->fd;
	if (log->sink_fd >= 0)
		ret[n++] = log->sink_fd;
	return n;
}

/* ---- Writing ---- */

#define GAP_TEXT "%llu %s could not be written at once"

static const char *gap_words(uint64_t n)
{
	return plural(n, "line was lost here: it", "lines were lost here: they");
}

/* Bytes written, possibly not all; negative: none. Never waits. */
static ssize_t write_now(const struct log *log, const char *text, size_t n)
{
	struct pollfd pollfd = {.fd = log->fd, .events = POLLOUT};

	if (log->socket)
		return send(log->fd, text, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (!log->own && (poll(&pollfd, 1, 0) != 1 || !(pollfd.revents & POLLOUT)))
		return -1;
	return write(log->fd, text, n);
}

/* Whether all of it got through. */
static bool write_line(struct log *log, const char *line, size_t n)
{
	ssize_t written;

	if (log->torn && write_now(log, "\n", 1) != 1)
		return false;
	log->torn = false;
	do
		written = write_now(log, line, n);
	while (written < 0 && errno == EINTR);
	if (written < 0)
		return false;
	log->torn = (size_t)written < n;
	return !log->torn;
}

/* The text without control characters, cut where it is longer than `room` - 1. Its length. */
__attribute__((format(printf, 3, 0))) static size_t format_text(char *text, size_t room,
								const char *format, va_list ap)
{
	int n = vsnprintf(text, room, format, ap);
	size_t length;

	if (n < 0)
		n = snprintf(text, room, "(a line that could not be formatted)");
	length = (size_t)n;
	if (length >= room) {
		length = room - 1;
		memcpy(text + length - 3, "...", 3);
	}
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			text[i] = '?';
	return length;
}

/* Makes one line of it: what stands in front, the text, newline. Returns its length, at most
 * LOG_LINE_MAX; there is no NUL. */
__attribute__((format(printf, 4, 0))) static size_t format_line(const struct log *log,
								enum config_log_level level,
								char *line, const char *format,
								va_list ap)
{
	size_t start, end;
	int n;

	if (log->journal)
		n = snprintf(line, LOG_LINE_MAX, "<%c>", levels[level].priority);
	else
		n = snprintf(line, LOG_LINE_MAX, "readyd: %s: ", levels[level].word);
	start = (size_t)n;
	/* a newline takes the place of the NUL */
	end = start + format_text(line + start, LOG_LINE_MAX - start - 1, format, ap);
	line[end] = '\n';
	return end + 1;
}

__attribute__((format(printf, 4, 5))) static size_t
format_gap(const struct log *log, enum config_log_level level, char *line, const char *format, ...)
{
	va_list ap;
	size_t n;

	va_start(ap, format);
	n = format_line(log, level, line, format, ap);
	va_end(ap);
	return n;
}

/* A gap is told in one write with the line behind it: both get through or none. */
__attribute__((format(printf, 3, 0))) static void
write_stream(struct log *log, enum config_log_level level, const char *format, va_list ap)
{
	char lines[2 * LOG_LINE_MAX];
	size_t n = 0;

	if (log->dropped)
		n = format_gap(log, CONFIG_LOG_WARNING, lines, GAP_TEXT,
			       (unsigned long long)log->dropped, gap_words(log->dropped));
	n += format_line(log, level, lines + n, format, ap);
	if (write_line(log, lines, n)) {
		log->dropped = 0;
	} else {
		log->dropped++;
		log->dropped_ever++;
	}
}

/* Whether the sink took it. The gap goes first, as a line of its own. */
__attribute__((format(printf, 4, 0))) static bool give_sink(struct log *log,
							    enum config_log_level level,
							    const struct log_about *about,
							    const char *format, va_list ap)
{
	char text[LOG_LINE_MAX];
	struct log_record record = {
		.level = CONFIG_LOG_WARNING, .text = text, .about = &log->about};

	if (!log->sink)
		return false;
	if (log->dropped) {
		record.length =
			(size_t)snprintf(text, sizeof(text), GAP_TEXT,
					 (unsigned long long)log->dropped, gap_words(log->dropped));
		if (!log->sink(log->sink_context, &record))
			return false;
		log->dropped = 0;
	}
	record.level = level;
	record.about = about;
	record.length = format_text(text, sizeof(text), format, ap);
	return log->sink(log->sink_context, &record);
}

/* errno is kept, so that a caller can log before it looks. */
__attribute__((format(printf, 4, 0))) static void log_va(struct log *log,
							 enum config_log_level level,
							 const struct log_about *about,
							 const char *format, va_list ap)
{
	int saved = errno;
	va_list again;

	if (!log_enabled(log, level))
		return;
	va_copy(again, ap);
	if (!give_sink(log, level, about, format, ap))
		write_stream(log, level, format, again);
	va_end(again);
	errno = saved;
}

void log_at(struct log *log, enum config_log_level level, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	log_va(log, level, &log->about, format, ap);
	va_end(ap);
}

void log_about(struct log *log, enum config_log_level level, const struct log_about *about,
	       const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	log_va(log, level, about, format, ap);
	va_end(ap);
}

#define LOG_FUNCTION(name, level)                            \
	void name(struct log *log, const char *format, ...)  \
	{                                                    \
		va_list ap;                                  \
                                                             \
		va_start(ap, format);                        \
		log_va(log, level, &log->about, format, ap); \
		va_end(ap);                                  \
	}

LOG_FUNCTION(log_error, CONFIG_LOG_ERROR)
LOG_FUNCTION(log_warning, CONFIG_LOG_WARNING)
LOG_FUNCTION(log_notice, CONFIG_LOG_NOTICE)
LOG_FUNCTION(log_info, CONFIG_LOG_INFO)
LOG_FUNCTION(log_debug, CONFIG_LOG_DEBUG)

/* ---- Repeats ---- */

/* Whether one more may be written; says what was not, when that is over. */
static bool site_may_write(struct log *log, struct log_site *site, int64_t now,
			   enum config_log_level level)
{
	if (!log_enabled(log, level))
		return false;
	if (site->lines == 0 || now - site->since >= LOG_SITE_INTERVAL) {
		if (site->more)
			log_at(log, level, "... %llu more of these in the last %lld s",
			       (unsigned long long)site->more,
			       (long long)((now - site->since) / 1000000000));
		*site = (struct log_site){.since = now};
	}
	if (site->lines == LOG_SITE_LINES) {
		site->more++;
		return false;
	}
	site->lines++;
	return true;
}

void log_limited(struct log *log, struct log_site *site, int64_t now, enum config_log_level level,
		 const char *format, ...)
{
	va_list ap;

	if (!site_may_write(log, site, now, level))
		return;
	va_start(ap, format);
	log_va(log, level, &log->about, format, ap);
	va_end(ap);
}

void log_limited_about(struct log *log, struct log_site *site, int64_t now,
		       enum config_log_level level, const struct log_about *about,
		       const char *format, ...)
{
	va_list ap;

	if (!site_may_write(log, site, now, level))
		return;
	va_start(ap, format);
	log_va(log, level, about, format, ap);
	va_end(ap);
}

void log_site_end(struct log *log, struct log_site *site, enum config_log_level level,
		  const char *what)
{
	if (site->more)
		log_at(log, level, "%s: ... %llu more of these", what,
		       (unsigned long long)site->more);
	*site = (struct log_site){0};
}

/* ---- Names and bytes of clients ---- */

const char *log_escape(const void *bytes, size_t n, char *buffer, size_t size)
{
	static const char hex[] = "0123456789abcdef";
	const unsigned char *p = bytes;
	size_t used = 0, cut = 0; /* cut: the last place where "..." still fits */

	assert(size >= 8);
	for (size_t i = 0; i < n; i++) {
		bool plain = p[i] >= 0x20 && p[i] < 0x7f && p[i] != '"' && p[i] != '\\';
		size_t width = plain ? 1 : 4;

		if (used + 4 <= size)
			cut = used;
		if (used + width + 1 > size) {
			memcpy(buffer + cut, "...", 4);
			return buffer;
		}
		if (plain) {
			buffer[used++] = (char)p[i];
		} else {
			memcpy(buffer + used,
			       (const char[]){'\\', 'x', hex[p[i] >> 4], hex[p[i] & 15]}, 4);
			used += 4;
		}
	}
	buffer[used] = '\0';
	return buffer;
}
