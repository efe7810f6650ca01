/* SPDX-License-Identifier: MIT */
#include "keeper.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "channel.h"
#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"
#include "daemon/util/clock.h"
#include "keeper_internal.h"
#include "oom.h"
#include "protocol/wire.h"

/*
 * The process that must not fail, and therefore does little: it talks to no client and reads
 * nothing but its children's fixed messages, its configuration and signals. It holds what outlives
 * a loop: the listening socket with its backlog (so that nobody is refused while there is no
 * loop), the last good configuration, and whom to blame.
 *
 * It waits in one ppoll(2): for signals (a signalfd; SIGCHLD tells of exits and stops), for the
 * loop's channel, for the loop's wake (progress.h) and for the time when to look at it. While the
 * loop is idle the keeper sleeps without a time, so that both make no system call.
 *
 * SIGHUP is the keeper's: it reads the file and sends a good one to the loop as a text. A bad one
 * changes nothing, so a new loop always has settings that were good. What needs a restart of the
 * daemon (socket, backend) stays as it was at the start for later loops, too. SIGUSR2 has another
 * binary take over (upgrade.c).
 */

/* Of a loop that does not stop talking. */
enum {
	MESSAGES_A_TURN = 64,
	LAST_MESSAGES = 4096, /* more than its queue has room for */
};

/* ---- Making and ending ---- */

/* From here on signals wait in the fd; the loop unblocks its own. */
static int open_signals(void)
{
	struct sigaction standard = {.sa_handler = SIG_DFL};
	sigset_t signals;
	int fd;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGHUP);
	(void)sigaddset(&signals, SIGUSR2);
	(void)sigaddset(&signals, SIGCHLD);
	/* if it was ignored when we were started, no exit would be told. One that is pending is
	 * discarded by this */
	(void)sigaction(SIGCHLD, &standard, NULL);
	(void)sigprocmask(SIG_SETMASK, &signals, NULL);
	fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd_move_up(fd);
}

/* What a start and an upgrade do differently. A failure was told. */
static enum exit_status get_ready(struct keeper *k)
{
	enum exit_status status;
	int r;

	if (k->image->upgraded)
		return upgrade_adopt(k);
	status = start_load(k->options, &k->ready_fd, k->log, &k->settings);
	if (status != STATUS_OK)
		return status;
	r = start_listen(k->options, &k->settings.config, k->log, &k->listener);
	if (r < 0) {
		start_tell(&k->ready_fd, "ERROR=cannot start: ", strerror(-r));
		return STATUS_FAILURE;
	}
	if (k->options->private_)
		k->starter = start_open_starter();
	return STATUS_OK;
}

static enum exit_status init(struct keeper *k)
{
	enum exit_status status = get_ready(k);
	int r;

	if (status != STATUS_OK)
		return status;
	k->signal_fd = r = open_signals();
	if (r >= 0) {
		k->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		k->wake_fd = r = k->wake_fd < 0 ? -errno : fd_move_up(k->wake_fd);
	}
	if (r < 0) {
		log_error(k->log, "the keeper cannot start: %s", strerror(-r));
		start_tell(&k->ready_fd, "ERROR=cannot start: ", strerror(-r));
		return STATUS_FAILURE;
	}
	return STATUS_OK;
}

static void deinit(struct keeper *k)
{
	log_site_end(k->log, &k->deaths, CONFIG_LOG_WARNING, "deaths of loops");
	log_site_end(k->log, &k->pauses, CONFIG_LOG_WARNING, "pauses before loops");
	log_site_end(k->log, &k->restarts, CONFIG_LOG_NOTICE, "new loops");
	log_site_end(k->log, &k->unknown, CONFIG_LOG_WARNING, "unknown words of loops");
	listener_close(&k->listener);
	child_drop(&k->loop);
	upgrade_end(k);
	settings_clear(&k->settings);
	for (size_t i = 0; i < 4; i++) {
		int fd = (int[]){k->starter, k->ready_fd, k->signal_fd, k->wake_fd}[i];

		if (fd >= 0)
			(void)close(fd);
	}
}

/* ---- What the loop says ---- */

/* The page of a loop that serves, for the service manager; NULL: there is none. */
static const struct progress_page *serving(const struct keeper *k)
{
	return k->loop.serves ? k->loop.page : NULL;
}

static void loop_serves(struct keeper *k, int64_t now)
{
	if (k->loop.serves)
		return;
	k->loop.serves = true;
	service_serves(&k->service, serving(k), now);
	if (k->died != 0)
		log_limited_about(k->log, &k->restarts, now, CONFIG_LOG_NOTICE,
				  &(const struct log_about){.event = LOG_EVENT_REPLACED},
				  "a new loop (pid %d) serves, %.2f ms after the end of the former",
				  (int)k->loop.pid, (double)(now - k->died) / 1e6);
	if (k->served)
		return;
	k->served = true;
	log_about(k->log, CONFIG_LOG_NOTICE, &(const struct log_about){.event = LOG_EVENT_SERVES},
		  "readyd " READYD_VERSION " serves %s, protocol %d to %d; keeper pid %d, "
		  "loop pid %d",
		  k->listener.address, WIRE_PROTOCOL_LOWEST, WIRE_PROTOCOL_HIGHEST, (int)getpid(),
		  (int)k->loop.pid);
	start_tell(&k->ready_fd, "READY=1\nREADYD_SOCKET=", k->listener.address);
}

static void send_settings(struct keeper *k)
{
	CLEANUP_FD int fd = -1;
	int r;

	if (k->settings.text) {
		fd = channel_text_to_fd(k->settings.text, k->settings.size);
		r = fd < 0 ? fd : channel_send(k->loop.channel, CHANNEL_SETTINGS, 0, fd);
	} else {
		r = channel_send(k->loop.channel, CHANNEL_DEFAULTS, 0, -1);
	}
	if (r < 0)
		log_warning(k->log,
			    "the loop could not be told of the new settings (%s): the next "
			    "one has them",
			    strerror(-r));
}

static void read_anew(struct keeper *k, int64_t now)
{
	struct settings fresh = {0};
	char *backend;

	if (settings_load(k->options, k->log, &fresh, NULL) < 0) {
		log_error(k->log, "reload failed: the former settings stay");
		return;
	}
	backend = k->settings.config.backend;
	k->settings.config.backend = fresh.config.backend;
	fresh.config.backend = backend;
	settings_clear(&k->settings);
	k->settings = fresh;
	settings_apply_level(k->options, &fresh.config, k->log);
	if (k->loop.channel < 0) {
		log_notice(k->log, "configuration read anew, for the next loop");
		return;
	}
	watchdog_set_limit(&k->loop.watchdog, fresh.config.stuck_after, now);
	send_settings(k);
}

static void reload(struct keeper *k, int64_t now)
{
	service_reloading(&k->service, now);
	read_anew(k, now);
	service_reloaded(&k->service, serving(k), now);
}

static void upgrade_for(struct keeper *k, int32_t pid, int64_t now)
{
	char who[64] = "on SIGUSR2 to the loop";

	if (pid >= 0)
		(void)snprintf(who, sizeof(who), "by request of process %d", (int)pid);
	upgrade_begin(k, who, now);
}

/* At most `max` messages: the rest waits, and ppoll(2) tells of it again. */
static void hear_loop(struct keeper *k, unsigned max, int64_t now)
{
	struct channel_message message;
	int r;

	for (; k->loop.channel >= 0 && max > 0; max--) {
		r = channel_receive(k->loop.channel, &message, NULL);
		if (r == -EAGAIN)
			return;
		if (r == 0 || (r < 0 && r != -EBADMSG)) {
			(void)close(steal_fd(&k->loop.channel)); /* SIGCHLD will tell more */
			return;
		}
		if (r == 1 && message.type == CHANNEL_SERVING)
			loop_serves(k, now);
		else if (r == 1 && message.type == CHANNEL_FAILED)
			k->failure = message.value;
		else if (r == 1 && message.type == CHANNEL_RELOAD)
			reload(k, now);
		else if (r == 1 && message.type == CHANNEL_UPGRADE)
			upgrade_for(k, message.value, now);
		else if (r == 1 &&
			 (message.type == CHANNEL_HOLDER || message.type == CHANNEL_REPLACE_HOLDER))
			child_make_holder(k, (uint32_t)message.value,
					  message.type == CHANNEL_REPLACE_HOLDER, now);
		else if (r == 1 && message.type == CHANNEL_RELEASE_HOLDER)
			holders_release(&k->holders, (uint32_t)message.value);
		else
			log_limited(k->log, &k->unknown, now, CONFIG_LOG_WARNING,
				    "the loop (pid %d) said what the keeper does not know",
				    (int)k->loop.pid);
	}
}

/* ---- What the keeper does ---- */

static void make_loop(struct keeper *k, int64_t now)
{
	int r = child_make(k, now);

	if (r == 0)
		return;
	log_error(k->log, "cannot make a loop: %s", strerror(-r));
	if (!k->served) {
		start_tell(&k->ready_fd, "ERROR=cannot start: ", strerror(-r));
		k->ended = true;
		k->status = STATUS_FAILURE;
		return;
	}
	death_schedule(k, true, now);
}

static void look(struct keeper *k, int64_t now)
{
	struct child *c = &k->loop;

	switch (watchdog_look(&c->watchdog, progress_busy_since(c->page), now)) {
	case WATCHDOG_SLEEP:
		if (progress_fall_asleep(c->page))
			watchdog_sleep(&c->watchdog);
		return;
	case WATCHDOG_ABORT:
		death_note_stuck(k);
		(void)kill(c->pid, SIGABRT);
		return;
	case WATCHDOG_KILL:
		log_warning(k->log, "killing the loop (pid %d)", (int)c->pid);
		(void)kill(c->pid, SIGKILL);
		return;
	case WATCHDOG_LEAVE:
		death_leave_behind(k, now);
		return;
	default:
		return;
	}
}

static void stop(struct keeper *k, const struct signalfd_siginfo *why, int64_t now)
{
	if (k->stopping)
		return;
	k->stopping = k->holders.ending = true;
	service_stopping(&k->service, now);
	log_notice(k->log, "ending on SIG%s from pid %u, uid %u", sigabbrev_np((int)why->ssi_signo),
		   why->ssi_pid, why->ssi_uid);
	if (k->loop.pid == 0) {
		k->ended = true;
		return;
	}
	(void)kill(k->loop.pid, SIGTERM);
	watchdog_ending(&k->loop.watchdog, now);
}

/* One change of one child. */
static void child_changed(struct keeper *k, const siginfo_t *info, int64_t now)
{
	if (upgrade_child_changed(k, info, now) || holders_child_changed(&k->holders, info, now))
		return;
	if (info->si_pid != k->loop.pid) {
		if (info->si_code == CLD_STOPPED || info->si_code == CLD_CONTINUED)
			return;
		if (k->left_behind == 0)
			return; /* an orphan, if this is the first process of a container */
		k->left_behind--;
		log_notice(k->log, "a loop that was left behind (pid %d) has ended",
			   (int)info->si_pid);
		return;
	}
	switch (info->si_code) {
	case CLD_STOPPED:
		log_warning(k->log, "the loop (pid %d) was stopped by SIG%s", (int)info->si_pid,
			    sigabbrev_np(info->si_status));
		watchdog_stopped(&k->loop.watchdog, now);
		return;
	case CLD_CONTINUED:
		watchdog_continued(&k->loop.watchdog, now);
		return;
	default:
		hear_loop(k, LAST_MESSAGES, now); /* its last words */
		death_of_loop(k, info, now);
		return;
	}
}

static void reap(struct keeper *k, int64_t now)
{
	for (;;) {
		siginfo_t info = {0};

		if (waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED | WNOHANG) < 0 ||
		    info.si_pid == 0)
			return;
		child_changed(k, &info, now);
	}
}

static void heed_signals(struct keeper *k, int64_t now)
{
	struct signalfd_siginfo info;
	char who[64];

	while (read(k->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGCHLD:
			reap(k, now);
			break;
		case SIGHUP:
			reload(k, now);
			break;
		case SIGUSR2:
			(void)snprintf(who, sizeof(who), "on SIGUSR2 from pid %u, uid %u",
				       info.ssi_pid, info.ssi_uid);
			upgrade_begin(k, who, now);
			break;
		default:
			stop(k, &info, now);
			break;
		}
	}
}

/* ---- Waiting ---- */

static int64_t next_time(const struct keeper *k)
{
	int64_t next = k->loop.pid != 0 ? k->loop.watchdog.next : k->restart_at;
	int64_t sign = service_next(&k->service, serving(k));

	next = k->upgrade.until < next ? k->upgrade.until : next;
	return sign < next ? sign : next;
}

/* Waits for whatever comes first and hears it. */
static void wait_and_hear(struct keeper *k)
{
	struct pollfd fds[] = {
		{.fd = k->signal_fd, .events = POLLIN},
		{.fd = k->wake_fd, .events = POLLIN},
		{.fd = k->loop.channel, .events = POLLIN},
	};
	int64_t next = next_time(k), now;
	struct timespec timeout = clock_span(next - clock_now());
	uint64_t count;

	if (ppoll(fds, 3, next == INT64_MAX ? NULL : &timeout, NULL) < 0)
		return; /* EINTR, or no memory for it: again */
	now = clock_now();
	if (fds[1].revents && read(k->wake_fd, &count, sizeof(count)) > 0)
		watchdog_wake(&k->loop.watchdog, now);
	if (fds[2].revents)
		hear_loop(k, MESSAGES_A_TURN, now);
	if (fds[0].revents)
		heed_signals(k, now);
}

enum exit_status keeper_run(const struct options *options, int ready_fd, struct log *log,
			    struct loop_signals *signals, struct image *image)
{
	struct keeper k = {
		.options = options,
		.log = log,
		.signals = signals,
		.listener = {.fd = -1},
		.starter = -1,
		.ready_fd = ready_fd,
		.signal_fd = -1,
		.wake_fd = -1,
		.loop = {.channel = -1},
		.image = image,
		.upgrade = {.output = -1, .until = INT64_MAX},
		.status = STATUS_OK,
	};
	bool upgraded = image->upgraded;
	int64_t now;

	service_init(&k.service, options->private_, log);
	k.began = clock_now();
	oom_protect_keeper();
	holders_init(&k.holders, log, &signals->stop);
	k.status = init(&k);
	k.ended = k.status != STATUS_OK;
	if (upgraded && !k.ended)
		reap(&k, clock_now()); /* of these no signal tells: see open_signals() */
	if (!k.ended)
		restore_parks(&k, k.began);
	while (!k.ended) {
		now = clock_now();
		upgrade_step(&k, now);
		if (k.loop.pid == 0 && k.restart_at <= now)
			make_loop(&k, now);
		else if (k.loop.pid != 0 && k.loop.watchdog.next <= now)
			look(&k, now);
		child_tell_left(&k);
		service_feed(&k.service, serving(&k), now);
		if (!k.ended)
			wait_and_hear(&k);
	}
	holders_end(&k.holders);
	k.holders.ledger = ledger_free(k.holders.ledger);
	deinit(&k);
	return k.status;
}
