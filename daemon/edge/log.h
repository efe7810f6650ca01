/* SPDX-License-Identifier: MIT */
#ifndef READYD_LOG_H
#define READYD_LOG_H

/*
 * The log: one line a fact on stderr, for people or for the journal. Nothing here waits, fails or
 * aborts: a line that cannot be written at once is dropped and counted. A line that would be
 * repeated is counted, not written (log_limited). Not thread-safe; one thread owns a log.
 *
 * A line says in words whom it is about; the functions that end in _about tell it also as numbers,
 * which a sink (the journal's fields) can keep apart. Lines of the others are about whom the whole
 * log is about: nobody, or in a holder its user.
 *
 * Texts carry no newline at the end. What comes from a client goes through log_escape() first, and
 * notes and payload never come here at all.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"

/* Longer lines are cut, with "..." at the end. Two are below PIPE_BUF, so writers never mix. */
#define LOG_LINE_MAX 1024

/* What a line tells, where that is a thing that somebody may want to be woken for. */
enum log_event {
	LOG_EVENT_NONE,
	LOG_EVENT_SERVES,   /* the daemon has started */
	LOG_EVENT_DIED,     /* the loop has */
	LOG_EVENT_STUCK,    /* the loop is */
	LOG_EVENT_REPLACED, /* a new loop serves */
	LOG_EVENT_KEPT_OUT, /* a client, for two deaths */
	LOG_EVENT_REFUSED,  /* a connection */
	LOG_EVENT_CLOSED,   /* a connection, for what its client did */
};

/* Whom and what a line is about. All zero: nobody. */
struct log_about {
	enum log_event event;
	bool client; /* uid and pid are somebody's */
	uint32_t uid;
	int32_t pid;      /* 0: not known */
	uint64_t session; /* 0: none */
	uint32_t watch;   /* its id; 0: none */
};

/* Somebody of whom only the uid matters. */
#define LOG_UID(who) (&(const struct log_about){.client = true, .uid = (who)})

/* A line for a sink: no newline, no control characters, at most LOG_LINE_MAX bytes, no NUL. */
struct log_record {
	enum config_log_level level;
	const char *text;
	size_t length;
	const struct log_about *about;
};

/* Takes a line without waiting, or returns false: then it goes where it would have gone without a
 * sink. */
typedef bool (*log_sink)(void *context, const struct log_record *record);

struct log {
	int fd;                      /* where lines go; a close of it is not ours unless `own` */
	bool own;                    /* fd was opened by log_init() */
	bool socket;                 /* fd is a socket: send(2) can be told not to wait */
	bool journal;                /* lines begin with <N>, not with "readyd: warning: " */
	bool torn;                   /* the last line was written in part */
	enum config_log_level level; /* what is less important is not written */
	uint64_t dropped;            /* lines lost since the last that was written */
	uint64_t dropped_ever;
	struct log_about about; /* whom lines are about that do not say it themselves */
	log_sink sink;          /* NULL: none */
	void *sink_context;
	int sink_fd; /* that it writes to; -1: none */
};

/* A place in the code, or a place and a user or connection, whose lines are limited. Zeroed at the
 * start; lives in the struct of whom it is about. */
struct log_site {
	int64_t since;  /* start of the interval, ns */
	unsigned lines; /* written in it */
	uint64_t more;  /* not written */
};

#define LOG_SITE_LINES 5u
#define LOG_SITE_INTERVAL INT64_C(10000000000)

/*
 * Writes to fd (2) from now on. If $JOURNAL_STREAM names that very fd, lines are the journal's.
 * An own, non-blocking description of a terminal or pipe is opened where that is possible; it
 * stands at 256 or above.
 */
void log_init(struct log *log, int fd, enum config_log_level level);
void log_deinit(struct log *log);

/* What a process keeps that closes what it has from its parent. Else the next fd that it gets would
 * have such a number, and the lines. Returns how many, at most LOG_FDS_MAX. */
#define LOG_FDS_MAX 2u
size_t log_get_fds(const struct log *log, int *ret);

static inline bool log_enabled(const struct log *log, enum config_log_level level)
{
	return level <= log->level;
}

__attribute__((format(printf, 3, 4))) void log_at(struct log *log, enum config_log_level level,
						  const char *format, ...);
__attribute__((format(printf, 2, 3))) void log_error(struct log *log, const char *format, ...);
__attribute__((format(printf, 2, 3))) void log_warning(struct log *log, const char *format, ...);
__attribute__((format(printf, 2, 3))) void log_notice(struct log *log, const char *format, ...);
__attribute__((format(printf, 2, 3))) void log_info(struct log *log, const char *format, ...);
__attribute__((format(printf, 2, 3))) void log_debug(struct log *log, const char *format, ...);

__attribute__((format(printf, 4, 5))) void log_about(struct log *log, enum config_log_level level,
						     const struct log_about *about,
						     const char *format, ...);

/*
 * Like log_at(), but of one site at most 5 lines in 10 s are written. The first line after that
 * time is preceded by one that says how many were left out. now: CLOCK_MONOTONIC, ns.
 */
__attribute__((format(printf, 5, 6))) void log_limited(struct log *log, struct log_site *site,
						       int64_t now, enum config_log_level level,
						       const char *format, ...);
__attribute__((format(printf, 6, 7))) void
log_limited_about(struct log *log, struct log_site *site, int64_t now, enum config_log_level level,
		  const struct log_about *about, const char *format, ...);

/* What a site left out is said now, if there is anything: when its owner ends. `what` is the
 * subject of the line: "session 7". */
void log_site_end(struct log *log, struct log_site *site, enum config_log_level level,
		  const char *what);

/*
 * Makes bytes harmless: what is not printable ASCII, and " and \, become \xNN. What has no room is
 * replaced by "...". Returns buffer, which always ends with NUL; size is at least 8.
 */
const char *log_escape(const void *bytes, size_t n, char *buffer, size_t size);

#endif
