/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "config/config.h"
#include "daemon/edge/log.h"
#include "daemon/edge/server.h"
#include "daemon/poller/fd.h"
#include "daemon/util/plural.h"
#include "keeper.h"
#include "loop.h"
#include "options.h"
#include "protocol/wire.h"
#include "settings.h"
#include "start.h"
#include "systemd/activation.h"
#include "systemd/journal.h"
#include "systemd/service.h"
#include "upgrade.h"

/*
 * The program: what it was asked for, limits, signals; then the keeper, or, for debuggers and
 * comparison, the loop alone. What may open a file that lasts (the log, users' and groups'
 * databases, the sockets) runs while the landing zone is plugged; a loop then frees its zone, which
 * belongs to received fds.
 */

/* What signal handlers can reach: the only state outside main(). */
static struct loop_signals signals;

static void handle_signal(int number)
{
	if (number == SIGHUP)
		signals.reload = 1;
	else if (number == SIGUSR2)
		signals.upgrade = 1;
	else
		signals.stop = 1;
	if (signals.running)
		server_break(signals.running);
}

static void set_signals(void)
{
	struct sigaction handle = {.sa_handler = handle_signal};
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	(void)sigaction(SIGTERM, &handle, NULL);
	(void)sigaction(SIGINT, &handle, NULL);
	(void)sigaction(SIGHUP, &handle, NULL);
	(void)sigaction(SIGUSR2, &handle, NULL);
	(void)sigaction(SIGPIPE, &ignore, NULL);
	/* a client can aim these at us through an fd of its own (F_SETOWN, F_SETSIG) */
	(void)sigaction(SIGIO, &ignore, NULL);
	(void)sigaction(SIGURG, &ignore, NULL);
	for (int n = SIGRTMIN; n <= SIGRTMAX; n++)
		(void)sigaction(n, &ignore, NULL);
}

static void raise_nofile(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Serves without a keeper. */
static enum exit_status run_alone(const struct options *options, int ready_fd, struct log *log)
{
	struct server_options server_options = {
		.listener = {.fd = -1},
		.private_ = options->private_,
		.starter = -1,
	};
	struct service service;
	struct loop loop = {
		.options = options,
		.log = log,
		.service = &service,
		.signals = &signals,
		.channel = -1,
	};
	struct settings settings = {0};
	enum exit_status status = start_load(options, &ready_fd, log, &settings);
	int r;

	if (status != STATUS_OK)
		return status;
	service_init(&service, options->private_, log);
	if (service.interval > 0)
		log_warning(log, "WatchdogSec= is set, and only the keeper gives signs of life: "
				 "start readyd without --no-keeper");
	r = start_listen(options, &settings.config, log, &server_options.listener);
	if (r == 0) {
		if (options->private_)
			server_options.starter = start_open_starter();
		server_options.config = settings.config;
		settings.config = (struct config){0};
		r = loop_start(&loop, &server_options);
	}
	if (r < 0) {
		config_clear(&server_options.config);
		settings_clear(&settings);
		listener_close(&server_options.listener);
		start_tell(&ready_fd, "ERROR=cannot start: ", strerror(-r));
		return STATUS_FAILURE;
	}
	settings_clear(&settings);
	log_about(log, CONFIG_LOG_NOTICE, &(const struct log_about){.event = LOG_EVENT_SERVES},
		  "readyd " READYD_VERSION " serves %s, protocol %d to %d; no keeper",
		  server_address(loop.server), WIRE_PROTOCOL_LOWEST, WIRE_PROTOCOL_HIGHEST);
	service_serves(&service, NULL, 0);
	start_tell(&ready_fd, "READY=1\nREADYD_SOCKET=", server_address(loop.server));
	return loop_run(&loop) == LOOP_FAILED ? STATUS_FAILURE : STATUS_OK;
}

static int take_passed(struct options *options, struct activation *a, char *error, size_t size)
{
	int r = activation_take(a, error, size);

	options->passed_socket = a->socket;
	options->depots = a->depots;
	options->n_depots = a->n_depots;
	return r;
}

static void tell_passed(const struct activation *a, const struct options *options, struct log *log)
{
	char text[4 * sizeof(a->strange) + 1];

	if (a->n_strange > 0)
		log_error(log,
			  "%zu %s that readyd does not give, "
			  "as "
			  "\"%s\": closed, and removed there",
			  a->n_strange,
			  plural(a->n_strange, "entry of systemd's fd store has a name",
				 "entries of systemd's fd store have names"),
			  log_escape(a->strange, strlen(a->strange), text, sizeof(text)));
	if (a->n_depots > 0 && options->no_keeper)
		log_error(
			log,
			"parks in %zu %s of systemd's store need a keeper: they stay there. Start "
			"readyd without --no-keeper to have them back",
			a->n_depots, plural(a->n_depots, "entry", "entries"));
}

static enum exit_status check(const struct options *options)
{
	struct settings settings = {0};

	if (settings_load(options, NULL, &settings, NULL) < 0)
		return STATUS_CONFIG;
	settings_clear(&settings);
	printf("%s: no errors\n", options->config ? options->config : OPTIONS_CONFIG_DEFAULT);
	return fflush(stdout) == 0 ? STATUS_OK : STATUS_FAILURE;
}

int main(int argc, char *argv[])
{
	struct options options;
	struct activation activation = {.socket = -1};
	struct image image;
	struct journal journal;
	struct log log;
	const char *reason;
	char error[256];
	enum exit_status status;
	int ready_fd = -1, passed = 0;

	if (options_parse(argc, argv, &options, error, sizeof(error)) < 0) {
		(void)fprintf(stderr, "readyd: %s\n", error);
		return STATUS_USAGE;
	}
	if (options.help || options.version) {
		(options.help ? options_print_help : options_print_version)(stdout);
		return fflush(stdout) == 0 ? STATUS_OK : STATUS_FAILURE;
	}
	raise_nofile();
	(void)image_init(&image, argv, &reason);
	/* who takes over was started long ago, and what has that number now is not the starter's */
	if (!image.upgraded && !options.check_upgrade)
		ready_fd = start_take_ready_fd(options.ready_fd);
	if (ready_fd == -EBADF) {
		(void)fprintf(stderr, "readyd: --ready-fd %d: this fd is not open\n",
			      options.ready_fd);
		return STATUS_USAGE;
	}
	/* before the zone is plugged: that is where systemd puts it */
	if (!options.private_ && !options.check)
		passed = take_passed(&options, &activation, error, sizeof(error));
	if (ready_fd == -EMFILE || fd_zone_plug() < 0) {
		(void)fprintf(
			stderr,
			"readyd: error: cannot fill fds 3 to 255 with /dev/null; readyd needs "
			"at least 320 fds, and has %ld: raise LimitNOFILE= or ulimit -n\n",
			sysconf(_SC_OPEN_MAX));
		return STATUS_FAILURE;
	}
	log_init(&log, STDERR_FILENO,
		 options.log_level_set ? options.log_level : CONFIG_LOG_NOTICE);
	journal_attach(&journal, JOURNAL_SOCKET, &log);
	tell_passed(&activation, &options, &log);
	if (options.check) {
		status = check(&options);
	} else if (options.check_upgrade) {
		status = image_check(&options, &image, reason, &log);
	} else if (reason) {
		log_error(&log, "cannot take over from the former readyd: %s", reason);
		status = STATUS_FAILURE;
	} else if (passed < 0) {
		log_error(&log, "%s", error);
		start_tell(&ready_fd, "ERROR=", error);
		status = STATUS_CONFIG;
	} else if (!options.private_ && !start_has_identity_map()) {
		log_error(&log,
			  "this user namespace maps some users only: peers could not be told "
			  "apart; start readyd outside of it (no PrivateUsers=), or --private");
		start_tell(&ready_fd, "ERROR=", "this user namespace maps some users only");
		status = STATUS_CONFIG;
	} else {
		set_signals();
		(void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL,
			    0UL); /* else ns are rounded by 50 us */
		status = options.no_keeper ? run_alone(&options, ready_fd, &log)
					   : keeper_run(&options, ready_fd, &log, &signals, &image);
	}
	image_clear(&image);
	free(activation.depots);
	journal_detach(&journal, &log);
	log_deinit(&log);
	return (int)status;
}
