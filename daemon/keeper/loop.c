/* SPDX-License-Identifier: MIT */
#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"
#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"
#include "daemon/util/clock.h"
#include "protocol/wire.h"

/*
 * Turn after turn, and between two turns what signals and the keeper ask for. With a keeper, the
 * configuration comes from there as a text; a SIGHUP that reaches the loop is passed on to the
 * keeper, which has the file read and hands it to this loop as to all that come later. So is what
 * asks for an upgrade, a SIGUSR2 or a client; the keeper's word on it comes back. Without one,
 * the loop reads the file itself.
 *
 * The keeper's end ends the loop: the kernel kills it (PR_SET_PDEATHSIG), and should that not
 * happen, the channel is at its end.
 */

enum {
	POLL_FAILURES = 3, /* in a row, after which the loop gives up */
	ASKED_MAX = 64,    /* holders at once: so neither end of the channel gets full */
};

int loop_start(struct loop *l, struct server_options *options)
{
	int r;

	options->control = l->channel;
	options->log = l->log;
	r = server_new(options, &l->server);
	if (r < 0)
		return r;
	l->signals->running = l->server;
	fd_zone_unplug();
	return 0;
}

static void adopt(struct loop *l, struct settings *settings)
{
	settings_apply_level(l->options, &settings->config, l->log);
	server_reload(l->server, &settings->config);
	settings_clear(settings);
	log_notice(l->log, "configuration read anew");
}

/* Without a keeper. Libraries that look up users may open what stays open: not in the zone. */
static void reload(struct loop *l)
{
	struct settings settings = {0};

	service_reloading(l->service, clock_now());
	if (fd_zone_plug() == 0 && settings_load(l->options, l->log, &settings, NULL) == 0)
		adopt(l, &settings);
	else
		log_error(l->log, "reload failed: the former settings stay");
	fd_zone_unplug();
	service_reloaded(l->service, NULL, clock_now());
}

/* What the keeper sent: a text that it could read, so that failing is a matter of memory. */
static void take_settings(struct loop *l, int fd)
{
	struct settings settings = {0};
	char *text = NULL;
	size_t size = 0;
	int r = 0;

	if (fd >= 0)
		r = channel_text_from_fd(fd, &text, &size);
	if (r == 0)
		r = settings_parse(l->options, text, size, l->log, &settings);
	if (r == 0)
		adopt(l, &settings);
	else
		log_error(l->log,
			  "the new configuration could not be taken over (%s): this loop "
			  "keeps the former settings, the next one has the new",
			  strerror(-r));
}

/* A trial is over: who asked is told, and where it was passed, this loop's time is, too. */
static void take_trial(struct loop *l, int32_t result)
{
	server_answer_upgrade(l->server, (enum wire_error)result);
	if (result == WIRE_OK)
		l->signals->stop = 1;
}

/* An answer to ask_for_holders(). */
static void take_holder(struct loop *l, uint32_t uid, int socket)
{
	l->asked -= l->asked > 0;
	server_take_holder(l->server, uid, socket);
}

/* A message that the keeper has no room for does no harm: that holder stays until its user needs
 * another one, or until the next loop finds it idle. */
static void release_holders(struct loop *l)
{
	uint32_t uid;

	while (server_spares_holder(l->server, &uid))
		(void)channel_send(l->channel, CHANNEL_RELEASE_HOLDER, (int32_t)uid, -1);
}

/* What the server wants, and as much as the keeper may be asked for now; the answers make another
 * turn, and room for the rest. */
static void ask_for_holders(struct loop *l)
{
	enum channel_type type;
	uint32_t uid;
	bool replace;

	while (l->asked < ASKED_MAX && server_wants_holder(l->server, &uid, &replace)) {
		type = replace ? CHANNEL_REPLACE_HOLDER : CHANNEL_HOLDER;
		l->asked++;
		if (channel_send(l->channel, type, (int32_t)uid, -1) < 0)
			take_holder(l, uid, -1);
	}
}

/* false: the keeper is gone. */
static bool hear_keeper(struct loop *l)
{
	struct channel_message message;
	int r;

	if (fd_zone_plug() < 0) /* no fds at all: asked again in the next turn */
		return true;
	for (;;) {
		CLEANUP_FD int fd = -1;

		r = channel_receive(l->channel, &message, &fd);
		if (r <= 0)
			break;
		if (message.type == CHANNEL_TRIED)
			take_trial(l, message.value);
		if (message.type == CHANNEL_HOLDERS_LEFT)
			server_note_left(l->server, (uint64_t)message.value);
		if (message.type == CHANNEL_DEFAULTS ||
		    (message.type == CHANNEL_SETTINGS && fd >= 0))
			take_settings(l, fd);
		else if (message.type == CHANNEL_HOLDER_MADE || message.type == CHANNEL_NO_HOLDER)
			take_holder(l, (uint32_t)message.value, steal_fd(&fd));
	}
	fd_zone_unplug();
	if (r == -EAGAIN)
		return true;
	log_error(l->log, "the keeper is gone (%s): ending", r == 0 ? "end" : strerror(-r));
	return false;
}

static void heed_reload(struct loop *l)
{
	l->signals->reload = 0;
	if (l->channel < 0)
		reload(l);
	else
		(void)channel_send(l->channel, CHANNEL_RELOAD, 0, -1);
}

/* Without a keeper there is nobody who could run another program and keep the socket. */
static void heed_upgrade(struct loop *l)
{
	pid_t pid = 0;

	if (l->signals->upgrade) {
		l->signals->upgrade = 0;
		if (l->channel < 0)
			log_error(l->log, "no upgrade without a keeper: restart readyd");
		else
			(void)channel_send(l->channel, CHANNEL_UPGRADE, -1, -1);
	}
	if (server_take_upgrade(l->server, &pid) &&
	    channel_send(l->channel, CHANNEL_UPGRADE, pid, -1) < 0)
		server_answer_upgrade(l->server, WIRE_E_NO_RESOURCES);
}

/* One turn and what it brings. Returns whether there is to be another; else *ret_end is set. */
static bool turn(struct loop *l, int *failures, enum loop_end *ret_end)
{
	int r = server_turn(l->server);

	if (r > 0) {
		log_notice(l->log,
			   "ending: the starter has exited, and for 10 s nobody was connected");
		*ret_end = LOOP_DONE;
		return false;
	}
	if (r == 0) {
		*failures = 0;
		*ret_end = LOOP_ENDED;
		return !server_is_called(l->server) || hear_keeper(l);
	}
	log_error(l->log, "the poller failed: %s", strerror(-r));
	*ret_end = LOOP_FAILED;
	return ++*failures < POLL_FAILURES;
}

enum loop_end loop_run(struct loop *l)
{
	enum loop_end end = LOOP_ENDED;
	bool said = false;
	int failures = 0;

	while (!l->signals->stop) {
		if (l->signals->reload)
			heed_reload(l);
		heed_upgrade(l);
		if (!turn(l, &failures, &end))
			break;
		if (!said && l->channel >= 0 && failures == 0)
			(void)channel_send(l->channel, CHANNEL_SERVING, 0, -1);
		said = true;
		if (l->channel >= 0) {
			release_holders(l);
			ask_for_holders(l);
		}
	}
	if (l->signals->stop)
		log_at(l->log, l->channel < 0 ? CONFIG_LOG_NOTICE : CONFIG_LOG_INFO, "ending");
	if (l->service)
		service_stopping(l->service, clock_now());
	l->signals->running = NULL;
	l->server = server_free(l->server);
	return l->signals->stop ? LOOP_ENDED : end;
}
