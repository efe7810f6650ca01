/* SPDX-License-Identifier: MIT */

/*
 * What a file may say: the table of keys, the types of their values, and whether the machine can
 * give what was written.
 *
 * Strict: a key or value that is not understood is a fault, never skipped, and every fault of the
 * file is reported in one run. A mapping without content (`limits:` whose lines are all comments)
 * is an empty one; any other key needs a value (config_value.c has the types).
 *
 * `reserve-fds` is read first, wherever it stands: what the other limits may be depends on it.
 *
 * The tables `keys` and `config_limit_key()` are also read by tests/unit/test_config_doc.py, which
 * compares them with the manual and the shipped file.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config_private.h"

enum {
	FILE_SIZE_MAX = 1024 * 1024,
	SOCKET_PATH_MAX = 107, /* sun_path less its NUL */
	WHO_NAME_MAX = 256,
	WHERE_SIZE = 128,
};

/* Far above all use; so sums and products of limits stay far below 2^64. */
#define COUNT_MAX UINT64_C(1000000000000)
#define BYTES_MAX UINT64_C(1000000000000000)

static const struct config_time_range hello_timeout_range = {10, 3600 * 1000, "10ms to 60min"};
/* below, a daemon that a busy machine held up would be taken for a stuck one */
static const struct config_time_range park_max_age_range = {0, INT64_C(525600) * 60 * 1000,
							    "0s, which is none, to 525600min"};
static const struct config_time_range stuck_after_range = {100, 3600 * 1000, "100ms to 60min"};

/* ---- Simple keys ---- */

static bool has_control_characters(const char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	}
	return false;
}

static void read_socket(struct config_reader *r, const struct config_node *node)
{
	struct config_quoted quoted;

	if (!config_expect_text(r, node, "socket", "an absolute path"))
		return;
	if (node->text[0] != '/' || has_control_characters(node->text))
		CONFIG_REPORT(r, node,
			      "socket: %s is not an absolute path, like /run/readyd/socket",
			      config_quote(node->text, &quoted));
	else if (strlen(node->text) > SOCKET_PATH_MAX)
		CONFIG_REPORT(
			r, node,
			"socket: the path has %zu bytes, a socket's address has room for %d; use "
			"a shorter one",
			strlen(node->text), SOCKET_PATH_MAX);
	else
		config_set_string(r, &r->config->socket, node->text);
}

static void read_backend(struct config_reader *r, const struct config_node *node)
{
	static const char *const names[] = {"epoll", "poll"};

	if (!config_expect_text(r, node, "backend", "epoll or poll"))
		return;
	if (strcmp(node->text, names[0]) != 0 && strcmp(node->text, names[1]) != 0)
		config_report_unknown(r, node, "backend:", names, 2);
	else
		config_set_string(r, &r->config->backend, node->text);
}

static void read_log_level(struct config_reader *r, const struct config_node *node)
{
	static const char *const names[] = {"error", "warning", "notice", "info", "debug"};

	if (!config_expect_text(r, node, "log-level", "error, warning, notice, info or debug"))
		return;
	if (config_log_level_from_name(node->text, &r->config->log_level) < 0)
		config_report_unknown(r, node, "log-level:", names,
				      sizeof(names) / sizeof(names[0]));
}

static void read_reserve_fds(struct config_reader *r, const struct config_node *node)
{
	struct config_room room;
	uint64_t value;

	if (!config_read_count(r, node, "reserve-fds", 1, COUNT_MAX, &value))
		return;
	config_room(r->hard, value, &room);
	if (value > room.reserve) {
		CONFIG_REPORT(
			r, node,
			"reserve-fds: %llu is more than half of the %llu files that the daemon may "
			"open; write %llu at most, or raise LimitNOFILE= of the unit (ulimit -n in "
			"a "
			"shell) to %llu",
			(unsigned long long)value, (unsigned long long)r->hard->nofile,
			(unsigned long long)room.reserve, (unsigned long long)value * 2);
		return;
	}
	r->config->reserve_fds = value;
}

static void read_park_max_age(struct config_reader *r, const struct config_node *node)
{
	(void)config_read_time(r, node, "park-max-age", &park_max_age_range,
			       &r->config->park_max_age);
}

static void read_hello_timeout(struct config_reader *r, const struct config_node *node)
{
	(void)config_read_time(r, node, "hello-timeout", &hello_timeout_range,
			       &r->config->hello_timeout);
}

static void read_stuck_after(struct config_reader *r, const struct config_node *node)
{
	(void)config_read_time(r, node, "stuck-after", &stuck_after_range, &r->config->stuck_after);
}

/* ---- Limits ---- */

/* Whether the machine can give it; what it would need otherwise. */
static bool check_room(struct config_reader *r, const struct config_node *node, const char *where,
		       enum config_limit limit, uint64_t value)
{
	/* On a larger machine the default of reserve-fds would be larger, too. */
	uint64_t reserve = r->config->reserve_fds;
	uint64_t kept =
		CONFIG_LANDING_ZONE + (reserve > CONFIG_RESERVE_FDS ? reserve : CONFIG_RESERVE_FDS);
	uint64_t most, need;
	struct config_room room;

	config_room(r->hard, reserve, &room);
	switch (limit) {
	case CONFIG_CONNECTIONS:
		most = room.connections;
		need = 2 * value + kept;
		break;
	case CONFIG_PARKS:
		most = room.parks;
		need = value + kept;
		break;
	case CONFIG_FDS_RECEIVED:
	case CONFIG_FDS_UNREAD:
		most = room.fds;
		need = value;
		break;
	case CONFIG_WATCHES:
		if (value <= room.watches)
			return true;
		CONFIG_REPORT(
			r, node,
			"%s: %llu is more than the %llu watches that the kernel allows a user; "
			"write "
			"less, or raise it with: sysctl fs.epoll.max_user_watches=%llu",
			where, (unsigned long long)value, (unsigned long long)room.watches,
			(unsigned long long)value);
		return false;
	default:
		return true;
	}
	if (value <= most)
		return true;
	CONFIG_REPORT(
		r, node,
		"%s: %llu is more than the %llu that there is room for with %llu open files; write "
		"less, or raise LimitNOFILE= of the unit (ulimit -n in a shell) to %llu",
		where, (unsigned long long)value, (unsigned long long)most,
		(unsigned long long)r->hard->nofile, (unsigned long long)need);
	return false;
}

static void read_limit(struct config_reader *r, const char *where, const struct config_node *key,
		       const struct config_node *node, struct config_limits *limits)
{
	const char *names[CONFIG_LIMITS];
	char path[WHERE_SIZE + 32];
	enum config_limit limit;
	uint64_t value;

	for (limit = 0; limit < CONFIG_LIMITS; limit++) {
		names[limit] = config_limit_key(limit);
		if (strcmp(key->text, names[limit]) == 0)
			break;
	}
	if (limit == CONFIG_LIMITS) {
		(void)snprintf(path, sizeof(path), "%s: the limit", where);
		config_report_unknown(r, key, path, names, CONFIG_LIMITS);
		return;
	}
	(void)snprintf(path, sizeof(path), "%s.%s", where, names[limit]);
	if (!config_read_count(r, node, path, 0, limit == CONFIG_NOTE_BYTES ? BYTES_MAX : COUNT_MAX,
			       &value) ||
	    !check_room(r, node, path, limit, value))
		return;
	limits->value[limit] = value;
	limits->set[limit] = true;
}

static void read_limits_map(struct config_reader *r, const char *where,
			    const struct config_node *node, struct config_limits *limits)
{
	if (!config_expect_map(r, node, where, "limits"))
		return;
	for (size_t i = 0; i + 1 < node->n; i += 2) {
		if (node->items[i].kind == CONFIG_NODE_SCALAR)
			read_limit(r, where, &node->items[i], &node->items[i + 1], limits);
	}
}

static void read_limits(struct config_reader *r, const struct config_node *node)
{
	read_limits_map(r, "limits", node, &r->config->limits);
}

/* ---- Users and groups ---- */

static bool all_digits(const char *text)
{
	return *text && text[strspn(text, "0123456789")] == '\0';
}

/* An id: digits, below the (uid_t)-1 that means none. */
static bool read_id(struct config_reader *r, const struct config_node *node, const char *where,
		    const char *text, struct config_who *who)
{
	struct config_quoted quoted;
	const char *end;
	uint64_t id;

	if (!config_parse_digits(text, &id, &end) || id >= UINT32_MAX) {
		CONFIG_REPORT(r, node,
			      "%s: %s is no id of a %s: write a number from 0 to %u, or a name",
			      where, config_quote(text, &quoted), who->group ? "group" : "user",
			      UINT32_MAX - 1);
		return false;
	}
	if (who->group)
		who->gid = (gid_t)id;
	else
		who->uid = (uid_t)id;
	who->resolved = true;
	return true;
}

/* A name or number; its shape only, as databases are asked by config_resolve(). */
static bool read_who(struct config_reader *r, const struct config_node *node, const char *where,
		     const char *text, bool group, struct config_who *ret)
{
	struct config_who who = {.group = group, .line = node->line, .column = node->column};
	struct config_quoted quoted;

	if (!*text || strlen(text) > WHO_NAME_MAX || has_control_characters(text)) {
		CONFIG_REPORT(r, node, "%s: %s is not the name of a %s", where,
			      config_quote(text, &quoted), group ? "group" : "user");
		return false;
	}
	if (all_digits(text) && !read_id(r, node, where, text, &who))
		return false;
	config_set_string(r, &who.name, text);
	if (!who.name)
		return false;
	*ret = who;
	return true;
}

void config_read_list(struct config_reader *r, const struct config_node *node, const char *where,
		      struct config_who_list *list)
{
	char entry[WHERE_SIZE];

	if (node->kind == CONFIG_NODE_BAD)
		return;
	if (node->kind != CONFIG_NODE_LIST) {
		CONFIG_REPORT(r, node,
			      "%s must be a list of users and groups, like [root, '@staff']; [] is "
			      "nobody",
			      where);
		return;
	}
	if (list->set || node->n == 0) {
		list->set = true; /* set before: the key stands twice, which is reported already */
		return;
	}
	list->set = true;
	(void)snprintf(entry, sizeof(entry), "an entry of %s", where);
	list->items = calloc(node->n, sizeof(*list->items));
	if (!list->items) {
		r->report.no_memory = true;
		return;
	}
	for (size_t i = 0; i < node->n; i++) {
		const struct config_node *item = &node->items[i];
		bool group;

		if (!config_expect_text(r, item, entry, "a name, '@group' or number"))
			continue;
		group = item->text[0] == '@';
		if (read_who(r, item, where, item->text + group, group, &list->items[list->n]))
			list->n++;
	}
}

static void read_connect(struct config_reader *r, const struct config_node *node)
{
	config_read_list(r, node, "connect", &r->config->connect);
}

static void read_inspect(struct config_reader *r, const struct config_node *node)
{
	config_read_list(r, node, "inspect", &r->config->inspect);
}

static void read_upgrade(struct config_reader *r, const struct config_node *node)
{
	config_read_list(r, node, "upgrade", &r->config->upgrade);
}

static void read_trusted(struct config_reader *r, const struct config_node *node)
{
	config_read_list(r, node, "trusted", &r->config->trusted);
}

static void read_ttys(struct config_reader *r, const struct config_node *node)
{
	config_read_list(r, node, "ttys", &r->config->ttys);
}

static void read_shared_groups(struct config_reader *r, const struct config_node *node)
{
	config_read_shared_groups(r, node);
}

static void read_overrides(struct config_reader *r, const struct config_node *node, bool group)
{
	const char *const section = group ? "groups" : "users";
	struct config *c = r->config;
	struct config_override *items;

	if (!config_expect_map(r, node, section, "names and their limits") || node->n == 0)
		return;
	items = reallocarray(c->overrides, c->n_overrides + node->n / 2, sizeof(*items));
	if (!items) {
		r->report.no_memory = true;
		return;
	}
	c->overrides = items;
	for (size_t i = 0; i + 1 < node->n; i += 2) {
		const struct config_node *key = &node->items[i];
		struct config_override o = {0};
		struct config_quoted quoted;
		char where[WHERE_SIZE];

		if (key->kind != CONFIG_NODE_SCALAR)
			continue;
		if (key->text[0] == '@') {
			CONFIG_REPORT(r, key, "%s: %s: write a group under groups:, without the @",
				      section, config_quote(key->text, &quoted));
			continue;
		}
		if (!read_who(r, key, section, key->text, group, &o.who))
			continue;
		(void)snprintf(where, sizeof(where), "%s.%s", section,
			       config_quote(key->text, &quoted));
		read_limits_map(r, where, &node->items[i + 1], &o.limits);
		c->overrides[c->n_overrides++] = o;
	}
}

static void read_users(struct config_reader *r, const struct config_node *node)
{
	read_overrides(r, node, false);
}

static void read_groups(struct config_reader *r, const struct config_node *node)
{
	read_overrides(r, node, true);
}

/* ---- The file ---- */

static const struct key {
	const char *name;
	void (*read)(struct config_reader *r, const struct config_node *node);
} keys[] = {
	{"socket", read_socket},
	{"backend", read_backend},
	{"log-level", read_log_level},
	{"reserve-fds", read_reserve_fds},
	{"hello-timeout", read_hello_timeout},
	{"stuck-after", read_stuck_after},
	{"park-max-age", read_park_max_age},
	{"limits", read_limits},
	{"users", read_users},
	{"groups", read_groups},
	{"connect", read_connect},
	{"inspect", read_inspect},
	{"upgrade", read_upgrade},
	{"trusted", read_trusted},
	{"ttys", read_ttys},
	{"shared-groups", read_shared_groups},
};

enum { N_KEYS = sizeof(keys) / sizeof(keys[0]) };

static void read_key(struct config_reader *r, const struct config_node *key,
		     const struct config_node *value, bool first)
{
	const char *names[N_KEYS];

	if (key->kind != CONFIG_NODE_SCALAR)
		return;
	for (size_t i = 0; i < N_KEYS; i++) {
		names[i] = keys[i].name;
		if (strcmp(key->text, names[i]) == 0) {
			if (first == (keys[i].read == read_reserve_fds))
				keys[i].read(r, value);
			return;
		}
	}
	if (!first)
		config_report_unknown(r, key, "the key", names, N_KEYS);
}

static void read_root(struct config_reader *r, const struct config_node *root)
{
	if (!config_expect_map(r, root, "the file", "keys and values"))
		return;
	for (int first = 1; first >= 0; first--) {
		for (size_t i = 0; i + 1 < root->n; i += 2)
			read_key(r, &root->items[i], &root->items[i + 1], first);
	}
}

static int read_text(struct config_reader *r, const char *text, size_t size)
{
	struct config_node root;
	int result = config_defaults(r->hard, r->config);

	if (result < 0)
		return result;
	config_tree_read(text, size, &r->report, &root);
	read_root(r, &root);
	config_tree_clear(&root);
	config_fill_limits(r->hard, r->config);
	return config_report_end(&r->report);
}

int config_read(FILE *file, const struct config_hard *hard, struct config *ret,
		struct config_errors *errors)
{
	CONFIG_FREE char *text = malloc(FILE_SIZE_MAX + 1);
	struct config c = {0};
	struct config_reader r = {.report = {.errors = errors}, .hard = hard, .config = &c};
	size_t size;
	int result;

	if (!text)
		return -ENOMEM;
	size = fread(text, 1, FILE_SIZE_MAX + 1, file);
	if (ferror(file))
		return -EIO;
	if (size > FILE_SIZE_MAX) {
		config_report(&r.report, 0, 0,
			      "the file is larger than %d bytes; is it the right one?",
			      FILE_SIZE_MAX);
		return config_report_end(&r.report);
	}
	result = read_text(&r, text, size);
	if (result < 0) {
		config_clear(&c);
		return result;
	}
	*ret = c;
	return 0;
}
