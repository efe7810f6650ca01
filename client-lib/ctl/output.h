/* SPDX-License-Identifier: MIT */
#ifndef READYCTL_OUTPUT_H
#define READYCTL_OUTPUT_H

/*
 * One way out for all verbs: a verb names its fields once, fills them row by row, and the result is
 * an aligned table, a form of "Label: value" lines, or one JSON document. In JSON every key is in
 * every row, null where nothing was set; in a table such a cell is "-".
 *
 * Failures (memory) are kept and come out of output_finish(), so that filling needs no checks.
 */

#include "ctl.h"
#include "text.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum output_flag {
	OUTPUT_RIGHT = 0x1,   /* aligned to the right: numbers */
	OUTPUT_NO_JSON = 0x2, /* for people only */
};

struct output_field {
	const char *title; /* column head or label; NULL: in JSON only */
	const char *key;   /* names the field here and in JSON; unique in its verb */
	unsigned flags;    /* enum output_flag */
};

struct output;

/* `name` is that of the array in the JSON document. NULL: no memory, said on stderr. */
struct output *output_new_table(const struct ctl *ctl, const char *name,
				const struct output_field *fields, size_t n_fields);

/* One object; its row has been begun. */
struct output *output_new_form(const struct ctl *ctl, const struct output_field *fields,
			       size_t n_fields);

/* Begins a row, in which nothing is set. Rows are printed in the order of (major, minor), which
 * are unique. */
void output_row(struct output *o, uint64_t major, uint64_t minor);

/* Each sets one field of the current row. */
void output_text(struct output *o, const char *key, const char *text);
void output_number(struct output *o, const char *key, uint64_t number);
void output_bool(struct output *o, const char *key, bool yes);
void output_time(struct output *o, const char *key, int64_t ns); /* JSON: ns, an integer */
void output_age(struct output *o, const char *key, int64_t ns);  /* JSON: seconds */
void output_ratio(struct output *o, const char *key, uint64_t a, uint64_t b); /* none if b is 0 */

/* Replaces what people see of a field; JSON keeps what was set. */
void output_cell(struct output *o, const char *key, const char *text);

/* The name of a process, as `key`; "exited" and JSON's null for one that is gone. */
void output_process(struct output *o, const char *key, struct text_processes *names, uint32_t pid);

/* Prints all and returns the exit status. NULL is accepted: CTL_FAILED. */
int output_finish(struct output *o);

/* NULL is accepted. Returns NULL. */
struct output *output_free(struct output *o);

/* A page of text, written to stdout as a whole. */
struct output_page {
	FILE *file;
	char *text;
	size_t size;
};

/* What to print to. NULL: no memory, said on stderr. */
FILE *output_page_open(struct output_page *page);

/* Writes and frees it. CTL_DONE, or CTL_FAILED after a line on stderr. */
int output_page_finish(struct output_page *page);

static inline void output_free_pointer(struct output **o)
{
	output_free(*o);
}

#define output_auto __attribute__((cleanup(output_free_pointer))) struct output

#endif
