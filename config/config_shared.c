/* SPDX-License-Identifier: MIT */

/*
 * Groups of parks that are shared between users: a mapping from the group's name to who may park into
 * it, who may take from it, and who may list it. Kept in the order of their names, since the daemon
 * looks for one at each request about a group.
 */

#include <stdlib.h>
#include <string.h>

#include "config_private.h"

enum {
	GROUP_NAME_MAX = 255,
	WHERE_SIZE = 160,
};

static int compare(const void *left, const void *right)
{
	const struct config_shared_group *a = left, *b = right;

	return strcmp(a->name, b->name);
}

const struct config_shared_group *config_find_shared_group(const struct config *c, const void *name,
							   size_t length)
{
	char text[GROUP_NAME_MAX + 1];
	const struct config_shared_group key = {.name = text};

	if (c->n_shared_groups == 0 || length == 0 || length > GROUP_NAME_MAX)
		return NULL;
	memcpy(text, name, length);
	text[length] = '\0';
	return bsearch(&key, c->shared_groups, c->n_shared_groups, sizeof(key), compare);
}

/* What a park's group may be named. */
static bool check_name(struct config_reader *r, const struct config_node *key)
{
	size_t length = strlen(key->text);
	struct config_quoted quoted;

	if (length == 0 || length > GROUP_NAME_MAX) {
		CONFIG_REPORT(r, key,
			      "shared-groups: the name of a group has 1 to %d bytes, this one %zu",
			      GROUP_NAME_MAX, length);
		return false;
	}
	for (const unsigned char *p = (const unsigned char *)key->text; *p; p++) {
		if (*p >= 0x20 && *p != 0x7f)
			continue;
		CONFIG_REPORT(r, key,
			      "shared-groups: %s has a control character; no group is named so",
			      config_quote(key->text, &quoted));
		return false;
	}
	return true;
}

static void read_rights(struct config_reader *r, const struct config_node *node, const char *where,
			struct config_shared_group *group)
{
	static const char *const names[] = {"park", "take", "list"};
	struct config_who_list *lists[] = {&group->park, &group->take, &group->list};
	char what[WHERE_SIZE + 16];

	if (!config_expect_map(r, node, where, "park, take and list"))
		return;
	for (size_t i = 0; i + 1 < node->n; i += 2) {
		const struct config_node *key = &node->items[i];
		size_t k = 0;

		if (key->kind != CONFIG_NODE_SCALAR)
			continue;
		while (k < 3 && strcmp(key->text, names[k]) != 0)
			k++;
		if (k < 3) {
			(void)snprintf(what, sizeof(what), "%s.%s", where, names[k]);
			config_read_list(r, &node->items[i + 1], what, lists[k]);
		} else {
			(void)snprintf(what, sizeof(what), "%s: the right", where);
			config_report_unknown(r, key, what, names, 3);
		}
	}
}

void config_read_shared_groups(struct config_reader *r, const struct config_node *node)
{
	struct config *c = r->config;

	if (!config_expect_map(r, node, "shared-groups", "names of groups and rights") ||
	    node->n == 0 || c->shared_groups)
		return;
	c->shared_groups = calloc(node->n / 2, sizeof(*c->shared_groups));
	if (!c->shared_groups) {
		r->report.no_memory = true;
		return;
	}
	for (size_t i = 0; i + 1 < node->n; i += 2) {
		const struct config_node *key = &node->items[i];
		struct config_shared_group *group = &c->shared_groups[c->n_shared_groups];
		struct config_quoted quoted;
		char where[WHERE_SIZE];

		if (key->kind != CONFIG_NODE_SCALAR || !check_name(r, key))
			continue;
		config_set_string(r, &group->name, key->text);
		if (!group->name)
			return;
		c->n_shared_groups++;
		(void)snprintf(where, sizeof(where), "shared-groups.%s",
			       config_quote(key->text, &quoted));
		read_rights(r, &node->items[i + 1], where, group);
	}
	qsort(c->shared_groups, c->n_shared_groups, sizeof(*c->shared_groups), compare);
}
