/* SPDX-License-Identifier: MIT */
#ifndef READYCTL_TEXT_H
#define READYCTL_TEXT_H

/*
 * Text in and out: escaping, spans of time, numbers and ids of the command line. Pure, except for
 * process names, which come from /proc of the machine where readyctl runs.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	TEXT_SPAN_MAX = 48,
	TEXT_NAME_MAX = 64,
};

/*
 * A copy in which every byte outside printable ASCII is written \xNN; `backslash` doubles
 * backslashes too, so that the form has one meaning. The caller frees it. NULL: no memory.
 */
char *text_escape(const char *text, bool backslash);

/* "410us", "12ms", "3s", "2min 5s", "3h 12min", "2d 4h": two units at most, never rounded up.
 * Negative spans are written as 0. */
void text_span(int64_t ns, char ret[TEXT_SPAN_MAX]);

/* "5", "0.5", "500ms", "2s", "1min" (also us, h) to ns. -EINVAL, -ERANGE. */
int text_parse_span(const char *text, int64_t *ret);

/* Decimal digits alone. -EINVAL, -ERANGE. */
int text_parse_number(const char *text, uint64_t max, uint64_t *ret);

/* SESSION/ID. -EINVAL. */
int text_parse_id(const char *text, uint64_t *ret_session, uint32_t *ret_id);

enum text_process {
	TEXT_PROCESS_ALIVE,
	TEXT_PROCESS_EXITED,
	TEXT_PROCESS_UNKNOWN, /* no pid (another pid namespace), or /proc cannot be read */
};

/* The last name that was looked up: rows of one process follow each other. Zeroed is empty. */
struct text_processes {
	uint32_t pid;
	enum text_process state;
	char name[TEXT_NAME_MAX];
};

/* The process's name from /proc/PID/comm. *ret_name points into `p`, unescaped, and is only set
 * for a process that is alive. */
enum text_process text_process_name(struct text_processes *p, uint32_t pid, const char **ret_name);

#endif
