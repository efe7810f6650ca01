/* SPDX-License-Identifier: MIT */

/*
 * Faults of a file, for people: collected with line and column, put into the order of the file at
 * the end, and with the text of the file made harmless (it goes to terminals and logs). Also the
 * guess at what a misspelt word was meant to be.
 *
 * A report without memory loses its text but not its effect: `no_memory` makes the whole reading
 * fail with -ENOMEM.
 */

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_private.h"

/* The array grows when its length is a power of two, so no capacity is kept. */
static bool errors_grow(struct config_errors *errors)
{
	size_t n = errors->n;
	struct config_error *items;

	if (n & (n - 1))
		return true;
	items = reallocarray(errors->items, n ? 2 * n : 1, sizeof(*items));
	if (!items)
		return false;
	errors->items = items;
	return true;
}

void config_report(struct config_report *r, unsigned line, unsigned column, const char *format, ...)
{
	struct config_error e = {.line = line, .column = column};
	va_list ap;
	int length;

	va_start(ap, format);
	length = vasprintf(&e.text, format, ap);
	va_end(ap);
	if (length < 0) {
		r->no_memory = true;
		return;
	}
	if (!errors_grow(r->errors)) {
		free(e.text);
		r->no_memory = true;
		return;
	}
	r->errors->items[r->errors->n++] = e;
	r->n++;
}

static int compare_errors(const void *left, const void *right)
{
	const struct config_error *a = left, *b = right;

	if (a->line != b->line)
		return a->line < b->line ? -1 : 1;
	if (a->column != b->column)
		return a->column < b->column ? -1 : 1;
	return strcmp(a->text, b->text);
}

int config_report_end(struct config_report *r)
{
	if (r->errors->n > 1)
		qsort(r->errors->items, r->errors->n, sizeof(r->errors->items[0]), compare_errors);
	if (r->no_memory)
		return -ENOMEM;
	return r->n ? -EBADMSG : 0;
}

const char *config_quote(const char *text, struct config_quoted *buffer)
{
	static const char hex[] = "0123456789abcdef";
	const size_t last = sizeof(buffer->text) - sizeof("\\xff...\"");
	char *out = buffer->text;
	size_t n = 0;

	out[n++] = '"';
	for (; *text; text++) {
		unsigned char byte = (unsigned char)*text;

		if (n > last) {
			n += (size_t)sprintf(out + n, "...");
			break;
		}
		if (byte >= 0x20 && byte < 0x7f) {
			out[n++] = *text;
		} else {
			out[n++] = '\\';
			out[n++] = 'x';
			out[n++] = hex[byte >> 4];
			out[n++] = hex[byte & 15];
		}
	}
	out[n++] = '"';
	out[n] = '\0';
	return out;
}

enum { WORD_MAX = 32 };

/* Number of letters to change, add or leave out to make b of a; case and - or _ do not count. */
static unsigned word_distance(const char *a, const char *b)
{
	unsigned row[WORD_MAX + 1];
	size_t length = strlen(b);

	for (size_t j = 0; j <= length; j++)
		row[j] = (unsigned)j;
	for (size_t i = 0; a[i]; i++) {
		int x = a[i] == '_' ? '-' : tolower((unsigned char)a[i]);
		unsigned diagonal = row[0];

		row[0] = (unsigned)i + 1;
		for (size_t j = 0; j < length; j++) {
			unsigned best = diagonal + (x != (unsigned char)b[j]);

			diagonal = row[j + 1];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (diagonal + 1 < best)
				best = diagonal + 1;
			row[j + 1] = best;
		}
	}
	return row[length];
}

const char *config_nearest(const char *word, const char *const *names, size_t n)
{
	const char *nearest = NULL;
	unsigned least = 3; /* more than two letters off is another word */

	if (strlen(word) > WORD_MAX)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		if (strlen(word) > 2 && strncasecmp(word, names[i], strlen(word)) == 0)
			return names[i];
	}
	for (size_t i = 0; i < n; i++) {
		unsigned distance = word_distance(word, names[i]);

		if (distance < least && 2 * (size_t)distance < strlen(names[i])) {
			least = distance;
			nearest = names[i];
		}
	}
	return nearest;
}
