/* SPDX-License-Identifier: MIT */

/*
 * A YAML file as a tree, and everything that is refused whatever the keys mean: anchors, aliases,
 * tags, keys that are no plain words, keys that stand twice, a second document, deep nesting, NUL
 * characters, broken syntax and broken UTF-8.
 *
 * Why a tree of our own, from libyaml's events, and not libyaml's document: the latter resolves
 * aliases before we could refuse them (a file of 1 KiB can then be huge), keeps no mark of a
 * duplicate, and ends with nothing at the first syntax error. Here what stood before a syntax error
 * is still examined, so that one run shows as much as can be known.
 *
 * Recursion ends at DEPTH_MAX, which is more than any valid file has. Memory is bounded by the size
 * of the text, which the caller bounds. Lines and columns count from 1, columns in characters;
 * libyaml counts both from 0. For bytes that are no UTF-8 it has only an offset.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "config_private.h"

enum { DEPTH_MAX = 8 };

struct reading {
	yaml_parser_t parser;
	struct config_report *report;
	const char *text;
	size_t size;
};

static unsigned at(size_t mark)
{
	return mark < UINT32_MAX ? (unsigned)mark + 1 : UINT32_MAX;
}

/* ---- Syntax errors ---- */

static void place_of_offset(const struct reading *rd, size_t offset, unsigned *ret_line,
			    unsigned *ret_column)
{
	size_t line = 0, column = 0;

	for (size_t i = 0; i < offset && i < rd->size; i++) {
		if (rd->text[i] == '\n') {
			line++;
			column = 0;
		} else if (((unsigned char)rd->text[i] & 0xc0) != 0x80) {
			column++;
		}
	}
	*ret_line = at(line);
	*ret_column = at(column);
}

/* The character at a mark; 0 at the end. */
static char char_at(const struct reading *rd, const yaml_mark_t *mark)
{
	const char *p = rd->text, *end = rd->text + rd->size;
	size_t column = mark->column;

	for (size_t line = 0; line < mark->line && p; line++) {
		p = memchr(p, '\n', (size_t)(end - p));
		if (p)
			p++;
	}
	if (!p)
		return 0;
	for (; p < end; p++) {
		if (((unsigned char)*p & 0xc0) == 0x80)
			continue;
		if (column-- == 0)
			return *p;
	}
	return 0;
}

/* What people stumble over, in words that libyaml does not have. */
static const char *syntax_hint(const struct reading *rd)
{
	switch (char_at(rd, &rd->parser.problem_mark)) {
	case '@':
		return "; a group is written in quotes, as '@name'";
	case '\t':
		return "; a tab cannot indent, use spaces";
	case '%':
	case '`':
		return "; write it in quotes";
	default:
		return "";
	}
}

static void report_syntax(struct reading *rd)
{
	const yaml_parser_t *p = &rd->parser;
	unsigned line, column;

	switch (p->error) {
	case YAML_MEMORY_ERROR:
		rd->report->no_memory = true;
		break;
	case YAML_READER_ERROR:
		place_of_offset(rd, p->problem_offset, &line, &column);
		config_report(rd->report, line, column,
			      "%s: the file must be text in UTF-8; save it again as such",
			      p->problem);
		break;
	default:
		line = at(p->problem_mark.line);
		column = at(p->problem_mark.column);
		if (p->context)
			config_report(rd->report, line, column,
				      "this is not YAML: %s %s that began in line %u%s", p->problem,
				      p->context, at(p->context_mark.line), syntax_hint(rd));
		else
			config_report(rd->report, line, column, "this is not YAML: %s%s",
				      p->problem, syntax_hint(rd));
	}
}

/* ---- Events ---- */

#define EVENT __attribute__((cleanup(yaml_event_delete))) yaml_event_t

static bool next_event(struct reading *rd, yaml_event_t *ret)
{
	if (yaml_parser_parse(&rd->parser, ret))
		return true;
	memset(ret, 0, sizeof(*ret));
	report_syntax(rd);
	return false;
}

static void report_event(struct reading *rd, const yaml_event_t *event, const char *text)
{
	config_report(rd->report, at(event->start_mark.line), at(event->start_mark.column), "%s",
		      text);
}

static void check_decoration(struct reading *rd, const yaml_event_t *event,
			     const yaml_char_t *anchor, const yaml_char_t *tag)
{
	if (anchor)
		report_event(rd, event, "anchors (&name) are not used here; write the value only");
	if (tag)
		report_event(rd, event, "tags (!name) are not used here; write the value only");
}

/* ---- The tree ---- */

void config_tree_clear(struct config_node *node)
{
	for (size_t i = 0; i < node->n; i++)
		config_tree_clear(&node->items[i]);
	free(node->items);
	free(node->text);
	*node = (struct config_node){0};
}

/* Room for one more, zeroed: a BAD node until it has been read. The array doubles. */
static struct config_node *node_add_item(struct reading *rd, struct config_node *node)
{
	struct config_node *items = node->items, *item;

	if ((node->n & (node->n - 1)) == 0) {
		items = reallocarray(items, node->n ? 2 * node->n : 1, sizeof(*items));
		if (!items) {
			rd->report->no_memory = true;
			return NULL;
		}
		node->items = items;
	}
	item = &items[node->n++];
	*item = (struct config_node){0};
	return item;
}

static void read_scalar(struct reading *rd, yaml_event_t *event, struct config_node *ret)
{
	check_decoration(rd, event, event->data.scalar.anchor, event->data.scalar.tag);
	if (memchr(event->data.scalar.value, 0, event->data.scalar.length)) {
		report_event(rd, event, "the character NUL has no place in a value");
		return;
	}
	ret->kind = CONFIG_NODE_SCALAR;
	ret->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	ret->text = (char *)event->data.scalar.value;
	event->data.scalar.value = NULL; /* taken; the event frees what is left */
}

static bool read_node(struct reading *rd, yaml_event_t *event, unsigned depth,
		      struct config_node *ret);

static bool read_list(struct reading *rd, unsigned depth, struct config_node *ret)
{
	ret->kind = CONFIG_NODE_LIST;
	for (;;) {
		EVENT event = {0};
		struct config_node *item;

		if (!next_event(rd, &event))
			return false;
		if (event.type == YAML_SEQUENCE_END_EVENT)
			return true;
		item = node_add_item(rd, ret);
		if (!item || !read_node(rd, &event, depth, item))
			return false;
	}
}

static bool read_map(struct reading *rd, unsigned depth, struct config_node *ret)
{
	ret->kind = CONFIG_NODE_MAP;
	for (;;) {
		EVENT event = {0};
		struct config_node *item;
		bool read;

		if (!next_event(rd, &event))
			break;
		if (event.type == YAML_MAPPING_END_EVENT)
			return true;
		item = node_add_item(rd, ret);
		if (!item)
			break;
		read = read_node(rd, &event, depth, item);
		if ((ret->n & 1) &&
		    (item->kind == CONFIG_NODE_LIST || item->kind == CONFIG_NODE_MAP)) {
			report_event(rd, &event, "a key must be one word, not a list or a mapping");
			config_tree_clear(item);
		}
		if (!read)
			break;
	}
	/* Cut short: a key without its value gets one that nobody looks at. */
	if (ret->n & 1)
		(void)node_add_item(rd, ret);
	return false;
}

/* False: reading cannot go on. */
static bool read_node(struct reading *rd, yaml_event_t *event, unsigned depth,
		      struct config_node *ret)
{
	ret->line = at(event->start_mark.line);
	ret->column = at(event->start_mark.column);
	if (event->type == YAML_ALIAS_EVENT) {
		report_event(rd, event, "aliases (*name) are not used here; write the value again");
		return true;
	}
	if (event->type == YAML_SCALAR_EVENT) {
		read_scalar(rd, event, ret);
		return true;
	}
	if (depth == DEPTH_MAX) {
		report_event(rd, event, "nested too deeply; nothing in this file needs that");
		return false;
	}
	if (event->type == YAML_SEQUENCE_START_EVENT) {
		check_decoration(rd, event, event->data.sequence_start.anchor,
				 event->data.sequence_start.tag);
		return read_list(rd, depth + 1, ret);
	}
	check_decoration(rd, event, event->data.mapping_start.anchor,
			 event->data.mapping_start.tag);
	return read_map(rd, depth + 1, ret);
}

/* ---- Duplicate keys ---- */

static int compare_keys(const void *left, const void *right)
{
	const struct config_node *a = *(const struct config_node *const *)left;
	const struct config_node *b = *(const struct config_node *const *)right;
	int order = strcmp(a->text, b->text);

	if (order != 0)
		return order;
	return a < b ? -1 : a > b; /* neighbours in one array: the order of the file */
}

static void check_duplicates(struct reading *rd, const struct config_node *node)
{
	CONFIG_FREE const struct config_node **keys = NULL;
	size_t n = 0;

	for (size_t i = 0; i < node->n; i++)
		check_duplicates(rd, &node->items[i]);
	if (node->kind != CONFIG_NODE_MAP || node->n < 4)
		return;
	keys = calloc(node->n / 2 + 1, sizeof(*keys));
	if (!keys) {
		rd->report->no_memory = true;
		return;
	}
	for (size_t i = 0; i < node->n; i += 2) {
		if (node->items[i].kind == CONFIG_NODE_SCALAR)
			keys[n++] = &node->items[i];
	}
	if (n < 2)
		return;
	qsort(keys, n, sizeof(keys[0]), compare_keys);
	for (size_t first = 0, i = 1; i < n; i++) {
		struct config_quoted quoted;

		if (strcmp(keys[first]->text, keys[i]->text) != 0)
			first = i;
		else
			config_report(
				rd->report, keys[i]->line, keys[i]->column,
				"the key %s was given in line %u already; leave one of the two",
				config_quote(keys[i]->text, &quoted), keys[first]->line);
	}
}

/* ---- The file ---- */

/* One document, or none. */
static void read_stream(struct reading *rd, struct config_node *ret)
{
	for (unsigned documents = 0;;) {
		EVENT event = {0};

		if (!next_event(rd, &event))
			return;
		switch (event.type) {
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_END_EVENT:
			break;
		case YAML_STREAM_END_EVENT:
			return;
		case YAML_DOCUMENT_START_EVENT:
			if (documents++ == 0)
				break;
			report_event(rd, &event,
				     "a second document (---) begins here; a file has one only");
			return;
		default:
			if (!read_node(rd, &event, 0, ret))
				return;
		}
	}
}

void config_tree_read(const char *text, size_t size, struct config_report *r,
		      struct config_node *ret)
{
	struct reading rd = {.report = r, .text = text, .size = size};

	*ret = (struct config_node){.kind = CONFIG_NODE_MAP};
	if (!yaml_parser_initialize(&rd.parser)) {
		r->no_memory = true;
		return;
	}
	/* Said, not guessed: otherwise two odd bytes at the start would make it UTF-16. */
	yaml_parser_set_encoding(&rd.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&rd.parser, (const unsigned char *)text, size);
	read_stream(&rd, ret);
	check_duplicates(&rd, ret);
	yaml_parser_delete(&rd.parser);
}
