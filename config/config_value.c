/* SPDX-License-Identifier: MIT */

/*
 * The types of values: text, mappings, numbers, times, and words out of a set. Each function either gives
 * the value or reports one fault that says what stands there, what should, and under which key.
 *
 * Numbers are decimal, with k, M or G for 1000, 1000^2 and 1000^3 (they are counts, not sizes of
 * memory), without signs, and without leading zeros, so that nobody takes one for octal. A quoted
 * number is text, and therefore refused.
 */

#include <stdlib.h>
#include <string.h>

#include "config_private.h"

static bool is_empty(const struct config_node *node)
{
	return node->kind == CONFIG_NODE_SCALAR && !node->quoted && node->text[0] == '\0';
}

/* Whether there is a text; else reports what is there instead. */
bool config_expect_text(struct config_reader *r, const struct config_node *node, const char *where,
			const char *what)
{
	switch (node->kind) {
	case CONFIG_NODE_BAD:
		return false;
	case CONFIG_NODE_LIST:
		CONFIG_REPORT(r, node, "%s must be %s, not a list", where, what);
		return false;
	case CONFIG_NODE_MAP:
		CONFIG_REPORT(r, node, "%s must be %s, not a mapping", where, what);
		return false;
	case CONFIG_NODE_SCALAR:
		break;
	}
	if (is_empty(node)) {
		CONFIG_REPORT(r, node, "%s has no value: write %s, or leave out the line", where,
			      what);
		return false;
	}
	return true;
}

/* The same for a mapping; an empty one need not be written as {}. */
bool config_expect_map(struct config_reader *r, const struct config_node *node, const char *where,
		       const char *of)
{
	if (node->kind == CONFIG_NODE_MAP)
		return true;
	if (node->kind != CONFIG_NODE_BAD && !is_empty(node))
		CONFIG_REPORT(r, node, "%s must be a mapping of %s, not a %s", where, of,
			      node->kind == CONFIG_NODE_LIST ? "list" : "single value");
	return false;
}

bool config_parse_digits(const char *text, uint64_t *ret, const char **ret_end)
{
	const char *p = text;
	uint64_t value = 0;

	while (*p >= '0' && *p <= '9') {
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			value = UINT64_MAX;
		p++;
	}
	if (p == text || (*text == '0' && p - text > 1))
		return false;
	*ret = value;
	*ret_end = p;
	return true;
}

static bool parse_count(const char *text, uint64_t *ret)
{
	static const struct {
		const char *suffix;
		uint64_t factor;
	} suffixes[] = {{"", 1}, {"k", 1000}, {"M", 1000000}, {"G", 1000000000}};
	const char *end;
	uint64_t value;

	if (!config_parse_digits(text, &value, &end))
		return false;
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		if (strcmp(end, suffixes[i].suffix) != 0)
			continue;
		if (__builtin_mul_overflow(value, suffixes[i].factor, ret))
			*ret = UINT64_MAX;
		return true;
	}
	return false;
}

bool config_read_count(struct config_reader *r, const struct config_node *node, const char *where,
		       uint64_t least, uint64_t most, uint64_t *ret)
{
	struct config_quoted quoted;
	uint64_t value;

	if (!config_expect_text(r, node, where, "a number"))
		return false;
	if (node->quoted || !parse_count(node->text, &value)) {
		CONFIG_REPORT(r, node,
			      "%s: %s is not a number: write digits without quotes, sign or "
			      "leading zero, "
			      "with k, M or G for 1000, 1000k or 1000M",
			      where, config_quote(node->text, &quoted));
		return false;
	}
	if (value < least || value > most) {
		CONFIG_REPORT(r, node, "%s: %s is out of range: write a number from %llu to %llu",
			      where, config_quote(node->text, &quoted), (unsigned long long)least,
			      (unsigned long long)most);
		return false;
	}
	*ret = value;
	return true;
}

void config_report_unknown(struct config_reader *r, const struct config_node *key, const char *what,
			   const char *const *names, size_t n)
{
	const char *nearest = config_nearest(key->text, names, n);
	struct config_quoted quoted;
	char list[256] = "";

	if (nearest) {
		CONFIG_REPORT(r, key, "%s %s is not known; did you mean %s?", what,
			      config_quote(key->text, &quoted), nearest);
		return;
	}
	for (size_t i = 0, used = 0; i < n && used < sizeof(list); i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "",
					 names[i]);
	CONFIG_REPORT(r, key, "%s %s is not known; there are: %s", what,
		      config_quote(key->text, &quoted), list);
}

void config_set_string(struct config_reader *r, char **s, const char *text)
{
	char *copy = strdup(text);

	if (!copy) {
		r->report.no_memory = true;
		return;
	}
	free(*s);
	*s = copy;
}

bool config_read_time(struct config_reader *r, const struct config_node *node, const char *where,
		      const struct config_time_range *range, int64_t *ret)
{
	static const struct {
		const char *unit;
		int64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"min", 60 * 1000}};
	const char *const what = "a time with its unit, like 500ms, 10s or 1min";
	struct config_quoted quoted;
	const char *end;
	uint64_t value;
	int64_t ms;

	if (!config_expect_text(r, node, where, what))
		return false;
	for (size_t i = 0; !node->quoted && i < sizeof(units) / sizeof(units[0]); i++) {
		if (!config_parse_digits(node->text, &value, &end) ||
		    strcmp(end, units[i].unit) != 0)
			continue;
		if (__builtin_mul_overflow(value, units[i].ms, &ms) || ms < range->min_ms ||
		    ms > range->max_ms) {
			CONFIG_REPORT(r, node, "%s: %s is out of range: write a time from %s",
				      where, config_quote(node->text, &quoted), range->words);
			return false;
		}
		*ret = ms * INT64_C(1000000);
		return true;
	}
	CONFIG_REPORT(r, node, "%s: %s is not %s", where, config_quote(node->text, &quoted), what);
	return false;
}
