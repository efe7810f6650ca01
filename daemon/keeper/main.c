/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "config/config.h"
#include "daemon/core/cleanup.h"
#include "daemon/edge/log.h"
#include "daemon/edge/server.h"
#include "daemon/poller/fd.h"
#include "options.h"
#include "protocol/wire.h"

/*
 * Start-up, signals and the end. What may open a file that lasts (the log, users' and groups'
 * databases, the sockets) runs while the landing zone is plugged; then the zone is freed and
 * belongs to received fds.
 */

enum exit_status {
	STATUS_OK = 0,
	STATUS_FAILURE = 1,
	STATUS_USAGE = 2,
	STATUS_CONFIG = 78, /* EX_CONFIG of sysexits.h: the unit does not restart it */
};

enum { POLL_FAILURES = 3 }; /* in a row, after which the loop gives up */

/* What signal handlers can reach: the only state outside main(). */
static volatile sig_atomic_t stop_wanted, reload_wanted;
static struct server *volatile running;

static void handle_signal(int number)
{
	if (number == SIGHUP)
		reload_wanted = 1;
	else
		stop_wanted = 1;
	if (running)
		server_break(running);
}

static void set_signals(void)
{
	struct sigaction handle = {.sa_handler = handle_signal};
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	(void)sigaction(SIGTERM, &handle, NULL);
	(void)sigaction(SIGINT, &handle, NULL);
	(void)sigaction(SIGHUP, &handle, NULL);
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

/* ---- Configuration ---- */

/* Where what is wrong with a file is told. */
struct complaints {
	struct log *log; /* NULL: stderr, of which nothing may be lost */
	char *first;     /* the first of them, for whoever started us; or NULL */
};

static void complain(struct complaints *to, const char *path, unsigned line, unsigned column,
		     const char *text)
{
	char place[32] = "";

	if (line)
		(void)snprintf(place, sizeof(place), ":%u:%u", line, column);
	if (to->log)
		log_error(to->log, "%s%s: %s", path, place, text);
	else
		(void)fprintf(stderr, "readyd: %s%s: %s\n", path, place, text);
	if (!to->first && asprintf(&to->first, "%s%s: %s", path, place, text) < 0)
		to->first = NULL;
}

/* 0, or a negative errno that was told; -ENOENT was not. */
static int read_config(const char *path, const struct config_hard *hard, struct config *ret,
		       struct complaints *to)
{
	struct config_errors errors = {0};
	FILE *file = fopen(path, "re");
	int r;

	if (!file && errno == ENOENT)
		return -ENOENT;
	if (!file) {
		r = -errno;
		complain(to, path, 0, 0, strerror(-r));
		return r;
	}
	r = config_read(file, hard, ret, &errors);
	(void)fclose(file);
	if (r == 0) {
		r = config_resolve(ret, &errors);
		if (r < 0)
			config_clear(ret);
	}
	for (size_t i = 0; i < errors.n; i++)
		complain(to, path, errors.items[i].line, errors.items[i].column,
			 errors.items[i].text);
	if (r < 0 && errors.n == 0)
		complain(to, path, 0, 0, strerror(-r));
	config_errors_clear(&errors);
	return r;
}

/* The default file may be missing; one that was named may not. */
static int load_config(const struct options *options, struct config *ret, struct complaints *to)
{
	const char *path = options->config ? options->config : OPTIONS_CONFIG_DEFAULT;
	struct config_hard hard;
	int r;

	config_hard_limits(&hard);
	if (options->private_ && !options->config)
		return config_defaults(&hard, ret);
	r = read_config(path, &hard, ret, to);
	if (r == -ENOENT && !options->config)
		return config_defaults(&hard, ret);
	if (r == -ENOENT)
		complain(to, path, 0, 0, "there is no such file");
	return r;
}

static void apply_options(const struct options *options, const struct config *config,
			  struct log *log)
{
	log->level = options->log_level_set ? options->log_level : config->log_level;
}

static void reload(struct server *server, const struct options *options, struct log *log)
{
	struct complaints to = {.log = log};
	struct config config = {0};

	/* libraries that look up users may open what stays open: not in the landing zone */
	if (fd_zone_plug() == 0 && load_config(options, &config, &to) == 0) {
		apply_options(options, &config, log);
		server_reload(server, &config);
		log_notice(log, "configuration read anew");
	} else {
		log_error(log, "reload failed: the former settings stay");
	}
	free(to.first);
	fd_zone_unplug();
}

/* ---- Start ---- */

/* With some uids unmapped every stranger is the same overflow uid: nobody could be told apart. */
static bool has_identity_map(void)
{
	unsigned long inside, outside, count;
	FILE *f = fopen("/proc/self/uid_map", "re");
	bool identity;

	if (!f)
		return true; /* a kernel without user namespaces */
	identity = fscanf(f, "%lu %lu %lu", &inside, &outside, &count) == 3 && inside == 0 &&
		   outside == 0 && count == UINT32_MAX;
	(void)fclose(f);
	return identity;
}

/* Where clients look for the daemon of this user. NULL: nowhere. The caller frees it. */
static char *default_socket(void)
{
	const char *runtime = geteuid() == 0 ? "/run" : secure_getenv("XDG_RUNTIME_DIR");
	char *path;

	if (!runtime || runtime[0] != '/' || asprintf(&path, "%s/readyd/socket", runtime) < 0)
		return NULL;
	return path;
}

/* The process that a private daemon outlives by some seconds only. -1: none, or gone already. */
static int open_starter(void)
{
	const char *text = secure_getenv("READYD_STARTER");
	pid_t pid = text ? (pid_t)strtol(text, NULL, 10) : getppid();
	int fd;

	if (pid <= 1)
		return -1;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0 || (!text && getppid() != pid)) { /* gone: another adopted us */
		if (fd >= 0)
			(void)close(fd);
		return -1;
	}
	return fd_move_up(fd);
}

/* Out of the landing zone; the standard fds stay where they are. -1: none; -EBADF, -EMFILE. */
static int take_ready_fd(int number)
{
	int fd;

	if (number < 0)
		return -1;
	fd = fcntl(number, F_DUPFD_CLOEXEC, FD_LASTING);
	if (fd < 0)
		return errno == EBADF ? -EBADF : -EMFILE;
	if (number > STDERR_FILENO)
		(void)close(number);
	return fd;
}

/* Lines for whoever started us; the fd is closed. */
static void tell_starter(int fd, const char *before, const char *text)
{
	if (fd < 0)
		return;
	(void)dprintf(fd, "%s%s\n", before, text);
	(void)close(fd);
}

/* ---- Running ---- */

static int run(struct server *server, const struct options *options, struct log *log)
{
	int failures = 0, r = 0;

	while (!stop_wanted) {
		if (reload_wanted) {
			reload_wanted = 0;
			reload(server, options, log);
		}
		r = server_turn(server);
		if (r > 0)
			return STATUS_OK; /* a private daemon that nobody needs any more */
		if (r == 0) {
			failures = 0;
			continue;
		}
		log_error(log, "the poller failed: %s", strerror(-r));
		if (++failures == POLL_FAILURES)
			return STATUS_FAILURE;
	}
	log_notice(log, "ending");
	return STATUS_OK;
}

static int serve(const struct options *options, int ready_fd, struct log *log)
{
	struct server_options server_options = {
		.private_ = options->private_,
		.starter = options->private_ ? open_starter() : -1,
		.log = log,
	};
	CLEANUP_MEMORY char *standard = default_socket();
	struct complaints to = {.log = log};
	struct server *server = NULL;
	int r, status;

	r = load_config(options, &server_options.config, &to);
	if (r < 0) {
		tell_starter(ready_fd, "ERROR=", to.first ? to.first : strerror(-r));
		free(to.first);
		return STATUS_CONFIG;
	}
	apply_options(options, &server_options.config, log);
	server_options.socket = options->socket ? options->socket : server_options.config.socket;
	if (!server_options.socket)
		server_options.socket = standard;
	if (!server_options.socket && !options->private_) {
		log_error(log, "where to listen? XDG_RUNTIME_DIR is not set: use --socket PATH or "
			       "--private");
		r = -EINVAL;
	} else {
		r = server_new(&server_options, &server);
	}
	if (r < 0) {
		config_clear(&server_options.config);
		tell_starter(ready_fd, "ERROR=cannot start: ", strerror(-r));
		return STATUS_FAILURE;
	}
	running = server;
	fd_zone_unplug();
	log_notice(log, "readyd " READYD_VERSION " serves %s, protocol %d to %d",
		   server_address(server), WIRE_PROTOCOL_LOWEST, WIRE_PROTOCOL_HIGHEST);
	tell_starter(ready_fd, "READY=1\nREADYD_SOCKET=", server_address(server));
	status = run(server, options, log);
	running = NULL;
	server_free(server);
	return status;
}

static int check(const struct options *options)
{
	struct complaints to = {0};
	struct config config = {0};
	int r = load_config(options, &config, &to);

	free(to.first);
	if (r < 0)
		return STATUS_CONFIG;
	config_clear(&config);
	printf("%s: no errors\n", options->config ? options->config : OPTIONS_CONFIG_DEFAULT);
	return fflush(stdout) == 0 ? STATUS_OK : STATUS_FAILURE;
}

int main(int argc, char *argv[])
{
	struct options options;
	struct log log;
	char error[256];
	int ready_fd, status;

	if (options_parse(argc, argv, &options, error, sizeof(error)) < 0) {
		(void)fprintf(stderr, "readyd: %s\n", error);
		return STATUS_USAGE;
	}
	if (options.help || options.version) {
		(options.help ? options_print_help : options_print_version)(stdout);
		return fflush(stdout) == 0 ? STATUS_OK : STATUS_FAILURE;
	}
	raise_nofile();
	ready_fd = take_ready_fd(options.ready_fd);
	if (ready_fd == -EBADF) {
		(void)fprintf(stderr, "readyd: --ready-fd %d: this fd is not open\n",
			      options.ready_fd);
		return STATUS_USAGE;
	}
	if (ready_fd == -EMFILE || fd_zone_plug() < 0) {
		(void)fprintf(stderr,
			      "readyd: cannot fill fds 3 to 255 with /dev/null: give it more "
			      "fds (LimitNOFILE=, ulimit -n)\n");
		return STATUS_FAILURE;
	}
	log_init(&log, STDERR_FILENO,
		 options.log_level_set ? options.log_level : CONFIG_LOG_NOTICE);
	if (options.check) {
		status = check(&options);
	} else if (!options.private_ && !has_identity_map()) {
		log_error(&log,
			  "this user namespace maps some users only: peers could not be told "
			  "apart; start readyd outside of it (no PrivateUsers=), or --private");
		tell_starter(ready_fd, "ERROR=", "this user namespace maps some users only");
		status = STATUS_FAILURE;
	} else {
		set_signals();
		(void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL,
			    0UL); /* else ns are rounded by 50 us */
		status = serve(&options, ready_fd, &log);
	}
	log_deinit(&log);
	return status;
}
