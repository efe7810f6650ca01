/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "channel.h"
#include "daemon/util/cleanup.h"
#include "keeper_internal.h"
#include "oom.h"

/*
 * A loop is made by fork, from a process that holds almost nothing: so it serves some hundred
 * microseconds later. It has by inheritance what the keeper has read and resolved: nobody is asked
 * for the names of users while clients wait. Poller, core and buffers it makes itself.
 *
 * What a new loop must not have of its keeper's is closed here: the keeper's signals, its end of
 * the channel, and the starter's pipe, which is at its end only when all copies are closed. All of
 * the keeper's fds are lasting ones, since its landing zone is always plugged; the loop unplugs its
 * own.
 *
 * Each loop has a page of its own: one that is left behind writes to nobody else's.
 */

static void set_child_signals(void)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigset_t none;

	/* ^C goes to all of a terminal's processes; that the daemon ends is the keeper's word */
	(void)sigaction(SIGINT, &ignore, NULL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void be_loop(struct keeper *k, int channel, struct progress_page *page)
{
	struct server_options options = {
		.config = k->settings.config,
		.listener = k->listener,
		.private_ = k->options->private_,
		.starter = k->starter,
		.progress = {.page = page, .wake = k->wake_fd},
		.kept_out = k->blame.kept_out,
		.history = {k->began, k->made, k->left_behind, holders_count_left(&k->holders)},
	};
	struct loop loop = {
		.options = k->options,
		.log = k->log,
		.signals = k->signals,
		.channel = channel,
	};
	struct server_holder *holders = NULL;
	enum loop_end end;
	int r;

	options.has_holders = true;
	options.durable = k->holders.ledger != NULL;
	options.listener.bound = false; /* the path stays the keeper's */
	k->settings.config = (struct config){0};
	(void)close(k->signal_fd);
	k->holders.ledger = ledger_free(k->holders.ledger); /* no business of a loop's */
	upgrade_leave(k);
	if (k->ready_fd >= 0)
		(void)close(k->ready_fd);
	set_child_signals();
	oom_expose_loop();
	r = holders_get_sockets(&k->holders, &holders, &options.n_holders);
	options.holders = holders;
	if (r == 0)
		r = loop_start(&loop, &options);
	free(holders);
	if (r < 0) {
		config_clear(&options.config);
		(void)channel_send(channel, CHANNEL_FAILED, -r, -1);
		exit(LOOP_FAILED);
	}
	end = loop_run(&loop);
	settings_clear(&k->settings);
	exit((int)end);
}

/* In the child: what is to happen when the keeper ends, even if it ends right now. */
static void tie_to_keeper(pid_t keeper)
{
	(void)prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0UL, 0UL, 0UL);
	if (getppid() != keeper)
		_exit(LOOP_ENDED);
}

int child_make(struct keeper *k, int64_t now)
{
	struct progress_page *page = NULL;
	pid_t keeper = getpid(), pid;
	int pair[2], r;

	r = progress_page_new(now, &page);
	if (r < 0)
		return r;
	r = channel_new(pair);
	if (r < 0) {
		progress_page_free(page);
		return r;
	}
	blame_expire(&k->blame, now);
	pid = fork();
	if (pid == 0) {
		tie_to_keeper(keeper);
		(void)close(pair[0]);
		be_loop(k, pair[1], page);
	}
	r = pid < 0 ? -errno : 0;
	(void)close(pair[1]);
	if (r < 0) {
		(void)close(pair[0]);
		progress_page_free(page);
		return r;
	}
	k->made++;
	k->loop = (struct child){
		.pid = pid,
		.channel = pair[0],
		.page = page,
		.left = holders_count_left(&k->holders),
	};
	watchdog_start(&k->loop.watchdog, k->settings.config.stuck_after, now);
	return 0;
}

void child_make_holder(struct keeper *k, uint32_t uid, bool replace, int64_t now)
{
	int socket, r;

	if (k->stopping)
		return; /* what the uid had is being stored: another one would have it, too */
	r = holders_make(&k->holders, uid, replace, now, &socket);
	if (r == 0)
		r = channel_send(k->loop.channel, CHANNEL_HOLDER_MADE, (int32_t)uid, socket);
	if (r < 0)
		r = channel_send(k->loop.channel, CHANNEL_NO_HOLDER, (int32_t)uid, -1);
	if (r < 0 && r != -EPIPE)
		log_warning(k->log, "the loop (pid %d) could not be told of a holder (%s)",
			    (int)k->loop.pid, strerror(-r));
}

void child_tell_left(struct keeper *k)
{
	unsigned left = holders_count_left(&k->holders);

	if (k->loop.channel >= 0 && left != k->loop.left &&
	    channel_send(k->loop.channel, CHANNEL_HOLDERS_LEFT, (int32_t)left, -1) == 0)
		k->loop.left = left;
}

void child_drop(struct child *c)
{
	if (c->channel >= 0)
		(void)close(c->channel);
	progress_page_free(c->page);
	*c = (struct child){.channel = -1};
}
