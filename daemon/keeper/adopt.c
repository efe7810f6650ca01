/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channel.h"
#include "daemon/edge/record.h"
#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"
#include "keeper_internal.h"

/*
 * The new program's side of an upgrade (upgrade.c has the old one's). $READYD_UPGRADE_STATE names
 * an fd with the state: of this very process, which was another program until now, or, for a
 * trial, of the parent. The state names its keeper, so that a variable that strayed into some
 * other process is refused there. It is unset at once.
 *
 * The configuration is read from the file, as at a start: the trial has just shown that it can be.
 * If it cannot any more, what the former keeper had is taken, and should this program not
 * understand that, the defaults; the log says so. A daemon that clients rely on serves on.
 *
 * An upgrade runs the path by which this program was started, made absolute here: argv[0] where it
 * has a slash and is this program, else /proc/self/exe. Links in it are not followed now, but when
 * it is run: a link may be what an upgrade changes. /proc/self/exe would be the old file then,
 * even where that has been replaced, and " (deleted)" is part of its name.
 */

#define VARIABLE "READYD_UPGRADE_STATE"

/* ---- The program ---- */

static bool is_this_program(const char *path)
{
	struct stat own, other;

	return stat("/proc/self/exe", &own) == 0 && stat(path, &other) == 0 &&
	       own.st_dev == other.st_dev && own.st_ino == other.st_ino;
}

/* The caller frees it. NULL: cannot tell. */
static char *program_of(const char *name)
{
	CLEANUP_MEMORY char *path = NULL;
	char here[PATH_MAX];
	ssize_t n;

	if (name && name[0] == '/')
		path = strdup(name);
	else if (name && strchr(name, '/') && getcwd(here, sizeof(here)) &&
		 asprintf(&path, "%s/%s", here, strncmp(name, "./", 2) ? name : name + 2) < 0)
		path = NULL;
	if (path && is_this_program(path))
		return STEAL(path);
	n = readlink("/proc/self/exe", here, sizeof(here) - 1);
	if (n <= 0)
		return NULL;
	here[n] = '\0';
	return strdup(here);
}

/* ---- The state ---- */

/* -1: there is none. */
static int take_variable(void)
{
	const char *text = secure_getenv(VARIABLE);
	unsigned long value = 0;

	if (text && *text && strspn(text, "0123456789") == strlen(text) && strlen(text) < 10)
		value = strtoul(text, NULL, 10);
	(void)unsetenv(VARIABLE);
	return value >= FD_LASTING ? (int)value : -1;
}

/* Whatever becomes of the state, no other program is to get these. */
static int make_close_on_exec(int fd)
{
	return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

static bool is_listener(struct listener *l)
{
	int domain = 0, type = 0, accepts = 0;
	socklen_t size = sizeof(int), length = sizeof(l->name);

	if (getsockopt(l->fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 || domain != AF_UNIX ||
	    getsockopt(l->fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_SEQPACKET ||
	    getsockopt(l->fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) < 0 || !accepts ||
	    getsockname(l->fd, (struct sockaddr *)&l->name, &length) < 0)
		return false;
	l->name_length = length;
	return true;
}

/* The fds are this process's: are they there, and what they should be? */
static const char *check_fds(struct upgrade_state *s)
{
	bool all = make_close_on_exec(s->listener.fd) == 0;

	if (s->starter >= 0)
		all = make_close_on_exec(s->starter) == 0 && all;
	for (size_t i = 0; i < s->n_fds; i++)
		if (s->fds[i].fd >= 0)
			all = make_close_on_exec(s->fds[i].fd) == 0 && all;
	if (!all)
		return "an fd that it names is not open";
	return is_listener(&s->listener) ? NULL : "its listening socket is none";
}

static int read_state(int fd, struct upgrade_state *ret, const char **ret_reason)
{
	CLEANUP_MEMORY char *bytes = NULL;
	size_t size;
	int r;

	*ret_reason = "it cannot be read";
	r = channel_text_from_fd(fd, &bytes, &size);
	if (r < 0)
		return r;
	r = upgrade_state_decode(bytes, size, ret, ret_reason);
	if (r == -ENOMEM)
		*ret_reason = "out of memory";
	return r;
}

int image_init(struct image *image, char *argv[], const char **ret_reason)
{
	CLEANUP_FD int fd = take_variable();
	struct upgrade_state state;
	int r;

	*image = (struct image){.program = program_of(argv[0]), .argv = argv};
	*ret_reason = NULL;
	if (fd < 0)
		return 0;
	r = read_state(fd, &state, ret_reason);
	if (r < 0)
		return r;
	*ret_reason = NULL;
	if (state.keeper == getpid())
		*ret_reason = check_fds(&state);
	else if (state.keeper != getppid())
		*ret_reason = "it is another process's";
	if (*ret_reason) {
		upgrade_state_clear(&state);
		return -EBADMSG;
	}
	image->state = state;
	image->upgraded = true;
	return 0;
}

void image_clear(struct image *image)
{
	free(image->program);
	upgrade_state_clear(&image->state);
	*image = (struct image){0};
}

/* ---- A trial ---- */

enum exit_status image_check(const struct options *options, const struct image *image,
			     const char *reason, struct log *log)
{
	struct settings settings = {0};

	if (reason) {
		log_error(log, "the state of the running daemon cannot be taken over: %s", reason);
		return STATUS_FAILURE;
	}
	/* even if there are no holders now: there may be when it takes over */
	if (image->upgraded && image->state.records != RECORD_VERSION) {
		log_error(log,
			  "the running daemon keeps its parks in records of version %u, and this "
			  "program knows version %d only: stop the one and start the other",
			  image->state.records, RECORD_VERSION);
		return STATUS_FAILURE;
	}
	if (settings_load(options, log, &settings, NULL) < 0)
		return STATUS_CONFIG;
	settings_clear(&settings);
	printf("readyd-upgrade %u %s\n", UPGRADE_STATE_VERSION, READYD_VERSION);
	return fflush(stdout) == 0 ? STATUS_OK : STATUS_FAILURE;
}

/* ---- Taking over ---- */

static int load_settings(struct keeper *k, struct upgrade_state *s)
{
	size_t size = s->text_size;
	int r = settings_load(k->options, k->log, &k->settings, NULL);

	if (r == 0)
		return 0;
	log_error(k->log, "the configuration cannot be read any more: the former one stays");
	r = settings_parse(k->options, STEAL(s->text), size, k->log, &k->settings);
	if (r < 0) {
		log_error(k->log, "nor the former one: all settings are the defaults");
		r = settings_parse(k->options, NULL, 0, k->log, &k->settings);
	}
	return r;
}

static void warn_of_socket(const struct keeper *k)
{
	const char *path = k->settings.config.socket;

	if (path && !k->options->socket && !k->options->private_ &&
	    strcmp(path, k->listener.address) != 0)
		log_warning(k->log,
			    "`socket` has changed in the configuration: restart readyd to use it");
}

/* Nobody else would ever close what this program does not know. */
static void adopt_holders(struct keeper *k, const struct upgrade_state *s)
{
	bool known = s->records == RECORD_VERSION;

	if (!known)
		log_error(k->log,
			  "the parks are in records of version %u, which this program does not "
			  "know: they are given up",
			  s->records);
	for (size_t i = 0; i < s->n_fds; i++) {
		const struct upgrade_fd *f = &s->fds[i];
		const struct holders_row row = {.kind = (enum holders_kind)f->kind,
						.uid = f->uid,
						.pid = f->pid,
						.socket = f->fd};
		int r;

		if (f->kind == HOLDERS_LEDGER && !k->holders.ledger)
			r = ledger_open(f->fd, &k->holders.ledger);
		else
			r = holders_adopt(&k->holders, &row);
		if (r == 0 && !known && row.kind == HOLDERS_WORKS)
			holders_release(&k->holders, row.uid);
		if (r == 0)
			continue;
		log_about(k->log, CONFIG_LOG_ERROR, LOG_UID(row.uid),
			  "the holder of uid %u (pid %d, kind %u) cannot be taken over (%s): its "
			  "parks are given up",
			  row.uid, (int)row.pid, f->kind, strerror(-r));
		if (row.socket >= 0)
			(void)close(row.socket);
	}
}

enum exit_status upgrade_adopt(struct keeper *k)
{
	struct upgrade_state *s = &k->image->state;
	int r;

	k->listener = s->listener;
	k->starter = s->starter;
	k->blame = s->blame;
	k->left_behind = s->left_behind;
	k->began = s->began;
	k->made = s->loops;
	k->died = s->died;
	k->served = true;
	r = load_settings(k, s);
	if (r < 0) {
		log_error(k->log, "cannot go on after the upgrade: %s", strerror(-r));
		return STATUS_FAILURE;
	}
	settings_apply_level(k->options, &k->settings.config, k->log);
	warn_of_socket(k);
	adopt_holders(k, s);
	log_notice(k->log, "upgraded from readyd %s to readyd " READYD_VERSION "; keeper pid %d",
		   s->version, (int)getpid());
	upgrade_state_clear(s);
	k->image->upgraded = false;
	return STATUS_OK;
}
