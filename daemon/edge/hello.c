/* SPDX-License-Identifier: MIT */
#include "hello.h"
#include "parking.h"
#include "sending.h"

#include <stdio.h>
#include <string.h>

/*
 * A session costs an epoll instance, so it is made when HELLO was said and not before. Features are
 * what the backend can do; what was not asked for by name is not granted.
 */

struct feature {
	const char *name;
	uint32_t cap;
};

static const struct feature features[] = {
	{"weak", POLLER_WEAK},
	{"edge", POLLER_EDGE},
	{"stream", POLLER_EDGE},
	{"ns", POLLER_NS},
};

/* Granted by what the daemon is, not by its backend. */
static bool has_feature(const struct server *s, const char *name)
{
	return strcmp(name, "park") == 0 || strcmp(name, "groups") == 0 ||
	       (strcmp(name, "survive") == 0 && s->has_holders) ||
	       (strcmp(name, "durable") == 0 && s->durable);
}

static bool has_word(const char *text, size_t size, const char *word)
{
	size_t length = strlen(word);

	for (size_t i = 0; i < size;) {
		size_t n = 0;

		while (i + n < size && text[i + n] != ' ')
			n++;
		if (n == length && memcmp(text + i, word, n) == 0)
			return true;
		i += n + 1;
	}
	return false;
}

/* The features that were asked for and that the backend has. */
static size_t grant(const struct connection *c, const struct wire_view *view, char *ret,
		    size_t size)
{
	static const char *const others[] = {"park", "groups", "survive", "durable"};
	size_t used = 0;

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (has_feature(c->server, others[i]) &&
		    has_word(view->tail, view->header.tail, others[i]))
			used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? " " : "",
						 others[i]);
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		const struct feature *f = &features[i];

		if (!(poller_caps(c->server->poller) & f->cap) ||
		    !has_word(view->tail, view->header.tail, f->name))
			continue;
		used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? " " : "", f->name);
	}
	return used;
}

static int make_session(struct connection *c)
{
	struct server *s = c->server;
	int r = poller_set_new(s->poller, c, &c->set);

	if (r < 0)
		return r;
	c->number = ++s->next_session;
	return core_add_session(s->core, c->number, c, &c->account->quota, &c->session);
}

void hello_apply(struct request *q)
{
	const struct wire_hello *hello = q->view->records;
	struct connection *c = q->c;
	struct wire_welcome welcome = {
		.magic = WIRE_MAGIC,
		.now = c->server->now,
		.message_max = WIRE_MESSAGE_MAX,
		.records_max = WIRE_RECORDS_MAX,
		.fds_max = WIRE_FDS_MAX,
		.pid = c->server->pid,
	};
	char text[128];
	size_t size;
	int r;

	if (hello->lowest > WIRE_PROTOCOL_HIGHEST || hello->highest < WIRE_PROTOCOL_LOWEST) {
		(void)snprintf(text, sizeof(text),
			       "the client speaks protocol %u to %u, this daemon %d to %d; "
			       "update the older one",
			       hello->lowest, hello->highest, WIRE_PROTOCOL_LOWEST,
			       WIRE_PROTOCOL_HIGHEST);
		connection_fail(c, WIRE_E_VERSION, q->view->header.serial, text);
		return;
	}
	r = make_session(c);
	if (r < 0) {
		connection_fail(c, result_error_of(r), q->view->header.serial,
				"the daemon has no fd or memory left for a session; try again, or "
				"raise its LimitNOFILE=");
		return;
	}
	c->greeted = true;
	memcpy(c->handle, hello->handle, sizeof(c->handle));
	peer_greet(c);
	TAILQ_REMOVE(&c->server->ungreeted, c, ungreeted);
	welcome.protocol =
		hello->highest < WIRE_PROTOCOL_HIGHEST ? hello->highest : WIRE_PROTOCOL_HIGHEST;
	welcome.session = c->number;
	size = grant(c, q->view, text, sizeof(text));
	sending_add_message(c, WIRE_WELCOME, 0, q->view->header.serial, &welcome, 1, text, size);
}
