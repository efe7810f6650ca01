/* SPDX-License-Identifier: MIT */
#include "text.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Nothing that readyctl prints is to be trusted: a process may name itself with escape sequences
 * that move the cursor or retitle the window, and a path may hold a line feed. So all text passes
 * text_escape() on its way out, and what comes out is one line of printable ASCII.
 *
 * Numbers are parsed by hand: strtoul() takes signs, blanks and prefixes, and strtod() depends on
 * the locale.
 *
 * /proc/PID/comm: at most 15 bytes and a line feed (kernel threads: more, up to 63); any byte but
 * NUL may occur. A pid whose file is gone has exited. The pid may have been used again since by
 * another process; the daemon's session would then be held by a child that inherited it.
 */

#define NSEC_PER_SEC INT64_C(1000000000)

char *text_escape(const char *text, bool backslash)
{
	static const char digits[] = "0123456789abcdef";
	char *to, *result;

	result = malloc(strlen(text) * 4 + 1);
	if (!result)
		return NULL;
	to = result;
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (*p == '\\' && backslash) {
			*to++ = '\\';
			*to++ = '\\';
		} else if (*p >= 0x20 && *p < 0x7f) {
			*to++ = (char)*p;
		} else {
			*to++ = '\\';
			*to++ = 'x';
			*to++ = digits[*p >> 4];
			*to++ = digits[*p & 15];
		}
	}
	*to = 0;
	return result;
}

void text_span(int64_t ns, char ret[TEXT_SPAN_MAX])
{
	long long n = ns < 0 ? 0 : ns, s = n / NSEC_PER_SEC;

	if (n < 1000)
		snprintf(ret, TEXT_SPAN_MAX, "%lldns", n);
	else if (n < 1000000)
		snprintf(ret, TEXT_SPAN_MAX, "%lldus", n / 1000);
	else if (s < 1)
		snprintf(ret, TEXT_SPAN_MAX, "%lldms", n / 1000000);
	else if (s < 60)
		snprintf(ret, TEXT_SPAN_MAX, "%llds", s);
	else if (s < 3600)
		snprintf(ret, TEXT_SPAN_MAX, "%lldmin %llds", s / 60, s % 60);
	else if (s < 86400)
		snprintf(ret, TEXT_SPAN_MAX, "%lldh %lldmin", s / 3600, s % 3600 / 60);
	else
		snprintf(ret, TEXT_SPAN_MAX, "%lldd %lldh", s / 86400, s % 86400 / 3600);
}

/* Reads digits; the value stops growing at `max` and then counts as out of range. */
static const char *read_digits(const char *text, uint64_t max, uint64_t *ret, bool *ret_over)
{
	uint64_t value = 0;

	*ret_over = false;
	for (; isdigit((unsigned char)*text); text++) {
		unsigned digit = (unsigned)(*text - '0');

		if (value > (max - digit) / 10)
			*ret_over = true;
		else
			value = value * 10 + digit;
	}
	*ret = value;
	return text;
}

int text_parse_number(const char *text, uint64_t max, uint64_t *ret)
{
	uint64_t value;
	bool over;
	const char *end;

	assert(max >= 10);
	end = read_digits(text, max, &value, &over);
	if (end == text || *end)
		return -EINVAL;
	if (over)
		return -ERANGE;
	*ret = value;
	return 0;
}

int text_parse_span(const char *text, int64_t *ret)
{
	static const struct {
		const char *name;
		int64_t ns;
	} units[] = {
		{"", NSEC_PER_SEC},
		{"us", 1000},
		{"ms", 1000000},
		{"s", NSEC_PER_SEC},
		{"min", 60 * NSEC_PER_SEC},
		{"h", 3600 * NSEC_PER_SEC},
	};
	int64_t unit = 0, total, scale;
	const char *p, *fraction = NULL;
	uint64_t whole;
	bool over;

	p = read_digits(text, INT64_MAX, &whole, &over);
	if (*p == '.') {
		fraction = p + 1;
		for (p++; isdigit((unsigned char)*p); p++)
			;
		if (p == fraction)
			return -EINVAL;
	} else if (p == text) {
		return -EINVAL;
	}
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcmp(p, units[i].name))
			unit = units[i].ns;
	if (!unit)
		return -EINVAL;
	if (over || __builtin_mul_overflow((int64_t)whole, unit, &total))
		return -ERANGE;
	scale = unit;
	for (; fraction && fraction < p && scale >= 10; fraction++) {
		scale /= 10;
		if (__builtin_add_overflow(total, (*fraction - '0') * scale, &total))
			return -ERANGE;
	}
	*ret = total;
	return 0;
}

int text_parse_id(const char *text, uint64_t *ret_session, uint32_t *ret_id)
{
	uint64_t session, id;
	bool over;
	const char *end;

	end = read_digits(text, UINT64_MAX, &session, &over);
	if (end == text || *end != '/' || over || !session)
		return -EINVAL;
	if (text_parse_number(end + 1, UINT32_MAX, &id) < 0 || !id)
		return -EINVAL;
	*ret_session = session;
	*ret_id = (uint32_t)id;
	return 0;
}

static enum text_process read_name(uint32_t pid, char name[TEXT_NAME_MAX])
{
	char path[32];
	ssize_t n;
	int fd, error;

	if (!pid)
		return TEXT_PROCESS_UNKNOWN;
	snprintf(path, sizeof(path), "/proc/%u/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT && !access("/proc/self/comm", R_OK) ? TEXT_PROCESS_EXITED
									   : TEXT_PROCESS_UNKNOWN;
	n = read(fd, name, TEXT_NAME_MAX - 1);
	error = errno;
	close(fd);
	if (n < 0)
		return error == ESRCH ? TEXT_PROCESS_EXITED : TEXT_PROCESS_UNKNOWN;
	if (n > 0 && name[n - 1] == '\n')
		n--;
	name[n] = 0;
	return TEXT_PROCESS_ALIVE;
}

enum text_process text_process_name(struct text_processes *p, uint32_t pid, const char **ret_name)
{
	if (!p->pid || p->pid != pid) {
		p->state = read_name(pid, p->name);
		p->pid = pid;
	}
	if (p->state == TEXT_PROCESS_ALIVE)
		*ret_name = p->name;
	return p->state;
}
