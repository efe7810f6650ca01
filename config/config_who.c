/* SPDX-License-Identifier: MIT */

/*
 * Names to ids. The databases of users and groups may be remote (LDAP, sssd) and slow, and may
 * open sockets; so they are asked when a configuration is taken into use, never by the loop.
 *
 * Numbers are ids and are not looked up: they need not exist. A user without an entry and a
 * database that does not answer are different faults, but both refuse the file: a limit or right
 * that is silently not applied is worse than a daemon that says why it keeps the old settings.
 */

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "config_private.h"

enum {
	BUFFER_FIRST = 16 * 1024,
	BUFFER_MAX = 64 * 1024 * 1024, /* a group of some million members */
};

/* Asks once. 0 and *ret_found, or an errno of the database. */
static int ask(struct config_who *who, char *buffer, size_t size, bool *ret_found)
{
	int result;

	if (who->group) {
		struct group entry, *found = NULL;

		result = getgrnam_r(who->name, &entry, buffer, size, &found);
		*ret_found = found;
		if (found)
			who->gid = entry.gr_gid;
	} else {
		struct passwd entry, *found = NULL;

		result = getpwnam_r(who->name, &entry, buffer, size, &found);
		*ret_found = found;
		if (found)
			who->uid = entry.pw_uid;
	}
	return result;
}

/* 0; -ENOENT: there is none; -ENOMEM; another errno, negative: no answer. */
static int look_up(struct config_who *who)
{
	for (size_t size = BUFFER_FIRST; size <= BUFFER_MAX; size *= 2) {
		CONFIG_FREE char *buffer = malloc(size);
		bool found = false;
		int result;

		if (!buffer)
			return -ENOMEM;
		do
			result = ask(who, buffer, size, &found);
		while (result == EINTR);
		if (found)
			return 0;
		switch (result) {
		case ERANGE:
			continue;
		case 0: /* and what else databases say for "there is none", getpwnam(3) */
		case ENOENT:
		case ESRCH:
		case EBADF:
		case EPERM:
			return -ENOENT;
		default:
			return -result;
		}
	}
	return -ERANGE;
}

static void resolve(struct config_who *who, struct config_report *report)
{
	const char *const kind = who->group ? "group" : "user";
	struct config_quoted quoted;
	int result;

	if (who->name[strspn(who->name, "0123456789")] == '\0')
		return; /* a number, resolved when it was read */
	result = look_up(who);
	who->resolved = result == 0;
	if (result == -ENOMEM)
		report->no_memory = true;
	else if (result == -ENOENT)
		config_report(report, who->line, who->column,
			      "there is no %s %s on this machine; correct or remove it, or write a "
			      "number",
			      kind, config_quote(who->name, &quoted));
	else if (result < 0)
		config_report(
			report, who->line, who->column,
			"the %s %s cannot be looked up: %s; try again later, or write a number",
			kind, config_quote(who->name, &quoted), strerror(-result));
}

static void resolve_list(struct config_who_list *list, struct config_report *report)
{
	for (size_t i = 0; i < list->n; i++)
		resolve(&list->items[i], report);
}

/* ---- One user or group under two names ---- */

static uint32_t who_id(const struct config_who *who)
{
	return who->group ? who->gid : who->uid;
}

static int compare_overrides(const void *left, const void *right)
{
	const struct config_who *a = *(const struct config_who *const *)left;
	const struct config_who *b = *(const struct config_who *const *)right;

	if (a->group != b->group)
		return a->group - b->group;
	if (who_id(a) != who_id(b))
		return who_id(a) < who_id(b) ? -1 : 1;
	return a->line < b->line ? -1 : a->line > b->line;
}

static void check_overrides(const struct config *c, struct config_report *report)
{
	CONFIG_FREE const struct config_who **all = NULL;
	size_t n = 0;

	if (c->n_overrides < 2)
		return;
	all = calloc(c->n_overrides, sizeof(*all));
	if (!all) {
		report->no_memory = true;
		return;
	}
	for (size_t i = 0; i < c->n_overrides; i++) {
		if (c->overrides[i].who.resolved)
			all[n++] = &c->overrides[i].who;
	}
	qsort(all, n, sizeof(all[0]), compare_overrides);
	for (size_t i = 1; i < n; i++) {
		struct config_quoted quoted, before;

		if (all[i]->group != all[i - 1]->group || who_id(all[i]) != who_id(all[i - 1]))
			continue;
		config_report(report, all[i]->line, all[i]->column,
			      "%s is the same %s as %s in line %u; leave one of the two",
			      config_quote(all[i]->name, &quoted), all[i]->group ? "group" : "user",
			      config_quote(all[i - 1]->name, &before), all[i - 1]->line);
	}
}

int config_resolve(struct config *c, struct config_errors *errors)
{
	struct config_report report = {.errors = errors};

	for (size_t i = 0; i < c->n_overrides; i++)
		resolve(&c->overrides[i].who, &report);
	resolve_list(&c->connect, &report);
	resolve_list(&c->inspect, &report);
	resolve_list(&c->upgrade, &report);
	resolve_list(&c->trusted, &report);
	resolve_list(&c->ttys, &report);
	for (size_t i = 0; i < c->n_shared_groups; i++) {
		resolve_list(&c->shared_groups[i].park, &report);
		resolve_list(&c->shared_groups[i].take, &report);
		resolve_list(&c->shared_groups[i].list, &report);
	}
	check_overrides(c, &report);
	return config_report_end(&report);
}
