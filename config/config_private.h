/* SPDX-License-Identifier: MIT */
#ifndef READYD_CONFIG_PRIVATE_H
#define READYD_CONFIG_PRIVATE_H

/* What the files of config/ share: the list of faults, the tree of a YAML file, name matching. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"

/* ---- Faults. Out of memory is remembered, so that callers need not look at each report. ---- */

struct config_report {
	struct config_errors *errors;
	size_t n; /* faults reported through this */
	bool no_memory;
};

__attribute__((format(printf, 4, 5))) void config_report(struct config_report *r, unsigned line,
							 unsigned column, const char *format, ...);

/* -ENOMEM, -EBADMSG or 0, by what was reported; sorts the faults by their place in the file. */
int config_report_end(struct config_report *r);

/* Text of the file for people: what is not printable ASCII becomes \xNN, what is long is cut. */
struct config_quoted {
	char text[96];
};
const char *config_quote(const char *text, struct config_quoted *buffer);

/* The member of `names` that `word` was probably meant to be, or NULL. */
const char *config_nearest(const char *word, const char *const *names, size_t n);

/* ---- The tree of a file (config_yaml.c) ---- */

enum config_node_kind {
	CONFIG_NODE_BAD, /* refused, and reported already */
	CONFIG_NODE_SCALAR,
	CONFIG_NODE_LIST,
	CONFIG_NODE_MAP,
};

struct config_node {
	enum config_node_kind kind;
	bool quoted;               /* of a scalar */
	char *text;                /* of a scalar; without NUL inside */
	struct config_node *items; /* of a list; of a map key, value, key, value, ... */
	size_t n;                  /* number of items */
	unsigned line, column;
};

/*
 * Reads text into *ret, which is always to be cleared. Faults go to the report; after a syntax
 * error the tree has what stood before it. An empty file is a map without keys.
 */
void config_tree_read(const char *text, size_t size, struct config_report *r,
		      struct config_node *ret);
void config_tree_clear(struct config_node *node);

/* ---- What the file may say (config_read.c), limits of limits (config.c) ---- */

/* How much the machine has, with that many fds in reserve. Each figure is the most allowed. */
struct config_room {
	uint64_t connections, watches, parks, reserve, fds;
};
void config_room(const struct config_hard *hard, uint64_t reserve_fds, struct config_room *ret);

/* Sets the limits that nobody wrote, from the hard limits, reserve_fds and the written ones. */
void config_fill_limits(const struct config_hard *hard, struct config *c);

/* ---- Values (config_value.c). The bool: there is one; if not, that was reported. ---- */

struct config_reader {
	struct config_report report;
	const struct config_hard *hard;
	struct config *config;
};

#define CONFIG_REPORT(r, node, ...) \
	config_report(&(r)->report, (node)->line, (node)->column, __VA_ARGS__)

/* `where` is the key, as "limits.watches"; `what` and `of` say what it should be or consist of. */
bool config_expect_text(struct config_reader *r, const struct config_node *node, const char *where,
			const char *what);
bool config_expect_map(struct config_reader *r, const struct config_node *node, const char *where,
		       const char *of);
bool config_read_count(struct config_reader *r, const struct config_node *node, const char *where,
		       uint64_t least, uint64_t most, uint64_t *ret);

/* Digits; *ret_end is what follows. Too many give UINT64_MAX. False: none, or a leading zero. */
bool config_parse_digits(const char *text, uint64_t *ret, const char **ret_end);

/* What a time may be: in ms, and in words. */
struct config_time_range {
	int64_t min_ms;
	int64_t max_ms;
	const char *words;
};

/* A time with its unit, in ns. */
bool config_read_time(struct config_reader *r, const struct config_node *node, const char *where,
		      const struct config_time_range *range, int64_t *ret);

/* A word that is none of the names. */
void config_report_unknown(struct config_reader *r, const struct config_node *node,
			   const char *what, const char *const *names, size_t n);

/* A list of users and groups. */
void config_read_list(struct config_reader *r, const struct config_node *node, const char *where,
		      struct config_who_list *list);

/* The value of `shared-groups` (config_shared.c). */
void config_read_shared_groups(struct config_reader *r, const struct config_node *node);

/* Puts a copy of the text in place of *s. */
void config_set_string(struct config_reader *r, char **s, const char *text);

/* Below this many fds nothing lasting of the daemon stands: they are the landing zone. */
#define CONFIG_LANDING_ZONE 256u
#define CONFIG_RESERVE_FDS 64u

#define CONFIG_FREE __attribute__((cleanup(config_free_pointer)))
void config_free_pointer(void *pointer);

#endif
