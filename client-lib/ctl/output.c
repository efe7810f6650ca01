/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * Rows are collected, sorted and printed at the end: the width of a column is known only then, the
 * daemon's own order says nothing to people, and a JSON document that breaks off because the daemon
 * went away would be worse than none.
 *
 * Only one of the two forms is kept, cells or JSON. Texts are escaped here and nowhere else. The format does not depend on whether stdout is a terminal:
 * what a person sees is what a script gets, and nothing is cut.
 *
 * The whole is put together in memory and then written by write(2), so that the reason of a failed
 * write is known. A reader that has gone (head) has what it wanted: no word, no failure.
 *
 * JSON integers are signed 64-bit in jansson; larger counters stop at INT64_MAX. Cookies, which
 * use all bits, are therefore text.
 */

struct row {
	uint64_t major, minor; /* what it is sorted by */
	char **cells;          /* n_fields; NULL in JSON */
	json_t *json;
};

struct output {
	const struct ctl *ctl;
	const char *name; /* NULL: a form */
	const struct output_field *fields;
	size_t n_fields;
	struct row *rows;
	size_t n_rows, room;
	bool failed;
};

static bool output_is_json(const struct output *o)
{
	return o->ctl->given & CTL_JSON;
}

struct output *output_new_table(const struct ctl *ctl, const char *name,
				const struct output_field *fields, size_t n_fields)
{
	struct output *o = calloc(1, sizeof(*o));

	if (!o) {
		ctl_complain("out of memory");
		return NULL;
	}
	o->ctl = ctl;
	o->name = name;
	o->fields = fields;
	o->n_fields = n_fields;
	return o;
}

struct output *output_new_form(const struct ctl *ctl, const struct output_field *fields,
			       size_t n_fields)
{
	struct output *o = output_new_table(ctl, NULL, fields, n_fields);

	if (o)
		output_row(o, 0, 0);
	return o;
}

struct output *output_free(struct output *o)
{
	if (!o)
		return NULL;
	for (size_t i = 0; i < o->n_rows; i++) {
		for (size_t k = 0; o->rows[i].cells && k < o->n_fields; k++)
			free(o->rows[i].cells[k]);
		free(o->rows[i].cells);
		json_decref(o->rows[i].json);
	}
	free(o->rows);
	free(o);
	return NULL;
}

static json_t *new_json_row(const struct output *o)
{
	json_t *json = json_object();

	for (size_t i = 0; i < o->n_fields; i++)
		if (!(o->fields[i].flags & OUTPUT_NO_JSON) &&
		    json_object_set_new(json, o->fields[i].key, json_null()) < 0) {
			json_decref(json);
			return NULL;
		}
	return json;
}

void output_row(struct output *o, uint64_t major, uint64_t minor)
{
	struct row *row;

	if (o->failed)
		return;
	if (o->n_rows == o->room) {
		size_t room = o->room ? o->room * 2 : 16;
		struct row *rows = reallocarray(o->rows, room, sizeof(*rows));

		if (!rows) {
			o->failed = true;
			return;
		}
		o->rows = rows;
		o->room = room;
	}
	row = &o->rows[o->n_rows++];
	*row = (struct row){.major = major, .minor = minor};
	if (output_is_json(o))
		row->json = new_json_row(o);
	else
		row->cells = calloc(o->n_fields, sizeof(*row->cells));
	o->failed = !row->json && !row->cells;
}

static int compare_rows(const void *a, const void *b)
{
	const struct row *left = a, *right = b;

	if (left->major != right->major)
		return left->major < right->major ? -1 : 1;
	return (left->minor > right->minor) - (left->minor < right->minor);
}

static size_t field_index(const struct output *o, const char *key)
{
	size_t i = 0;

	while (i < o->n_fields && strcmp(o->fields[i].key, key))
		i++;
	assert(i < o->n_fields);
	return i;
}

/* Takes `value` over; NULL means that there was no memory for it. */
static void set_json(struct output *o, const char *key, json_t *value)
{
	size_t i = field_index(o, key);

	if (o->fields[i].flags & OUTPUT_NO_JSON)
		json_decref(value);
	else if (json_object_set_new(o->rows[o->n_rows - 1].json, key, value) < 0)
		o->failed = true;
}

__attribute__((format(printf, 3, 4))) static void set_cell(struct output *o, const char *key,
							   const char *format, ...)
{
	char **cell = &o->rows[o->n_rows - 1].cells[field_index(o, key)];
	va_list arguments;

	free(*cell);
	va_start(arguments, format);
	if (vasprintf(cell, format, arguments) < 0) {
		*cell = NULL;
		o->failed = true;
	}
	va_end(arguments);
}

void output_text(struct output *o, const char *key, const char *text)
{
	ctl_string *escaped = NULL;

	if (o->failed)
		return;
	escaped = text_escape(text, true);
	if (!escaped)
		o->failed = true;
	else if (output_is_json(o))
		set_json(o, key, json_string(escaped));
	else
		set_cell(o, key, "%s", escaped);
}

void output_number(struct output *o, const char *key, uint64_t number)
{
	if (o->failed)
		return;
	if (output_is_json(o))
		set_json(o, key, json_integer(number > INT64_MAX ? INT64_MAX : (int64_t)number));
	else
		set_cell(o, key, "%llu", (unsigned long long)number);
}

void output_bool(struct output *o, const char *key, bool yes)
{
	if (o->failed)
		return;
	if (output_is_json(o))
		set_json(o, key, json_boolean(yes));
	else
		set_cell(o, key, "%s", yes ? "yes" : "no");
}

void output_time(struct output *o, const char *key, int64_t ns)
{
	char span[TEXT_SPAN_MAX];

	if (o->failed)
		return;
	if (output_is_json(o)) {
		set_json(o, key, json_integer(ns));
		return;
	}
	text_span(ns, span);
	set_cell(o, key, "%s", span);
}

void output_age(struct output *o, const char *key, int64_t ns)
{
	if (o->failed)
		return;
	if (output_is_json(o))
		set_json(o, key, json_real((double)ns / 1e9));
	else
		output_time(o, key, ns);
}

void output_ratio(struct output *o, const char *key, uint64_t a, uint64_t b)
{
	if (o->failed || !b)
		return;
	if (output_is_json(o))
		set_json(o, key, json_real((double)a / (double)b));
	else
		set_cell(o, key, "%.1f", (double)a / (double)b);
}

void output_cell(struct output *o, const char *key, const char *text)
{
	ctl_string *escaped = NULL;

	if (o->failed || output_is_json(o))
		return;
	escaped = text_escape(text, true);
	if (escaped)
		set_cell(o, key, "%s", escaped);
	else
		o->failed = true;
}

void output_process(struct output *o, const char *key, struct text_processes *names, uint32_t pid)
{
	const char *name = NULL;

	switch (text_process_name(names, pid, &name)) {
	case TEXT_PROCESS_ALIVE:
		output_text(o, key, name);
		break;
	case TEXT_PROCESS_EXITED:
		output_cell(o, key, "exited");
		break;
	case TEXT_PROCESS_UNKNOWN:
		break;
	}
}

static const char *cell_text(const struct output *o, size_t row, size_t field)
{
	const char *text = o->rows[row].cells[field];

	return text && *text ? text : "-";
}

/* Blanks go before a cell, never after the last one of a line. */
static void print_cell(FILE *to, const char *text, size_t width, bool right, size_t *pending)
{
	size_t fill = width - strlen(text);

	fprintf(to, "%*s%s", (int)(*pending + (right ? fill : 0)), "", text);
	*pending = 2 + (right ? 0 : fill);
}

static void measure(const struct output *o, bool legend, size_t *widths)
{
	for (size_t i = 0; i < o->n_fields; i++) {
		if (!o->fields[i].title)
			continue;
		widths[i] = legend ? strlen(o->fields[i].title) : 0;
		for (size_t row = 0; row < o->n_rows; row++) {
			size_t length = strlen(cell_text(o, row, i));

			if (widths[i] < length)
				widths[i] = length;
		}
	}
}

static void print_table(struct output *o, FILE *to)
{
	bool legend = !(o->ctl->given & CTL_NO_LEGEND);
	size_t *widths = calloc(o->n_fields, sizeof(*widths));

	if (!widths) {
		o->failed = true;
		return;
	}
	measure(o, legend, widths);
	/* Row -1 is the header. */
	for (ptrdiff_t row = legend ? -1 : 0; row < (ptrdiff_t)o->n_rows; row++) {
		size_t pending = 0;

		for (size_t i = 0; i < o->n_fields; i++) {
			const struct output_field *f = &o->fields[i];

			if (f->title)
				print_cell(to, row < 0 ? f->title : cell_text(o, (size_t)row, i),
					   widths[i], f->flags & OUTPUT_RIGHT, &pending);
		}
		fputc('\n', to);
	}
	free(widths);
}

static void print_form(const struct output *o, FILE *to)
{
	size_t width = 0;

	for (size_t i = 0; i < o->n_fields; i++)
		if (o->fields[i].title && width < strlen(o->fields[i].title))
			width = strlen(o->fields[i].title);
	for (size_t i = 0; i < o->n_fields; i++) {
		const char *title = o->fields[i].title;

		if (title)
			fprintf(to, "%s:%*s%s\n", title, (int)(width - strlen(title) + 1), "",
				cell_text(o, 0, i));
	}
}

static void print_json(struct output *o, FILE *to)
{
	const size_t flags = JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(15);
	json_t *document = NULL, *array = NULL;

	if (o->name) {
		array = json_array();
		for (size_t i = 0; i < o->n_rows; i++)
			if (json_array_append(array, o->rows[i].json) < 0)
				o->failed = true;
		document = json_pack("{s:o}", o->name, array);
	} else {
		document = json_incref(o->rows[0].json);
	}
	if (!document || json_dumpf(document, to, flags) < 0)
		o->failed = true;
	json_decref(document);
	fputc('\n', to);
}

FILE *output_page_open(struct output_page *page)
{
	page->text = NULL;
	page->size = 0;
	page->file = open_memstream(&page->text, &page->size);
	if (!page->file)
		ctl_complain("out of memory");
	return page->file;
}

int output_page_finish(struct output_page *page)
{
	bool failed = ferror(page->file) != 0;
	int error = 0;

	if (fclose(page->file) || failed) {
		free(page->text);
		ctl_complain("out of memory");
		return CTL_FAILED;
	}
	for (size_t done = 0; done < page->size && !error;) {
		ssize_t n = write(STDOUT_FILENO, page->text + done, page->size - done);

		if (n >= 0)
			done += (size_t)n;
		else if (errno != EINTR)
			error = errno;
	}
	free(page->text);
	if (!error || error == EPIPE)
		return CTL_DONE;
	ctl_complain("could not write the output: %s", strerror(error));
	return CTL_FAILED;
}

int output_finish(struct output *o)
{
	struct output_page page;

	if (!o || !output_page_open(&page))
		return CTL_FAILED;
	if (!o->failed) {
		if (o->n_rows)
			qsort(o->rows, o->n_rows, sizeof(*o->rows), compare_rows);
		if (output_is_json(o))
			print_json(o, page.file);
		else if (o->name)
			print_table(o, page.file);
		else
			print_form(o, page.file);
	}
	if (o->failed) {
		fclose(page.file);
		free(page.text);
		ctl_complain("out of memory");
		return CTL_FAILED;
	}
	return output_page_finish(&page);
}
