/* SPDX-License-Identifier: MIT */
#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel.h"
#include "daemon/edge/record.h"
#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"
#include "keeper_internal.h"
#include "protocol/wire.h"

/*
 * The old program's side of an upgrade (adopt.c has the new one's).
 *
 * The trial: the binary is run with this daemon's own command line and --check-upgrade, and the
 * state that it would get. It passes if it ends with status 0 after the line "readyd-upgrade
 * VERSION PROGRAM-VERSION", which no other program says by accident, within 10 s. What it says on
 * stderr stands in the log. It leads a process group of its own: a script that hangs is killed
 * with what it started. The loop goes on serving meanwhile, and is replaced if it dies.
 *
 * Then the loop is told, answers whoever asked, and ends itself; one that does not is killed, like
 * any that is to end. Clients' connects wait in the backlog of the listening socket, which is
 * never closed. Without a loop this process, same pid, runs the new binary: so whoever supervises
 * it sees nothing, and its children stay its children: the holders, whose sockets go along, notice
 * nothing either, and what the last loop had told them stays in their queues. Should even that
 * fail, another loop is made.
 *
 * Kernel behaviour: the mask of blocked signals and those that are pending pass through execve(2),
 * handlers become the default: nothing is lost and nothing kills until the new keeper reads its
 * signalfd; but for SIGCHLD, so the new keeper looks once who has ended. A parent-death signal comes
 * when the parent ends, not when it runs another program.
 */

#define TRIAL_TIME INT64_C(10000000000)

/* ---- The state ---- */

/* What goes along of the holders; the caller frees it. NULL: no memory. */
static struct upgrade_fd *collect_holders(const struct holders *hs, size_t *ret_n)
{
	struct upgrade_fd *fds = calloc(hs->n + 2, sizeof(*fds));
	const struct holders_one *cursor = NULL;
	struct holders_row row;

	*ret_n = 0;
	while (fds && holders_next(hs, &cursor, &row))
		fds[(*ret_n)++] = (struct upgrade_fd){
			.kind = row.kind, .uid = row.uid, .pid = row.pid, .fd = row.socket};
	if (fds && hs->ledger)
		fds[(*ret_n)++] =
			(struct upgrade_fd){.kind = HOLDERS_LEDGER, .fd = ledger_fd(hs->ledger)};
	return fds;
}

/* All other memory and fds in it stay the keeper's. */
static struct upgrade_state collect(const struct keeper *k, struct upgrade_fd *fds, size_t n_fds)
{
	return (struct upgrade_state){
		.keeper = getpid(),
		.version = READYD_VERSION,
		.records = RECORD_VERSION,
		.left_behind = k->left_behind,
		.began = k->began,
		.loops = k->made,
		.died = k->died,
		.listener = k->listener,
		.starter = k->starter,
		.blame = k->blame,
		.fds = fds,
		.n_fds = n_fds,
		.text = k->settings.text,
		.text_size = k->settings.size,
	};
}

static int write_state(const struct upgrade_state *state)
{
	CLEANUP_MEMORY void *bytes = NULL;
	size_t size;
	int r = upgrade_state_encode(state, &bytes, &size);

	return r < 0 ? r : channel_text_to_fd(bytes, size);
}

static int keep_over_exec(int fd, bool keep)
{
	if (fd >= 0 && fcntl(fd, F_SETFD, keep ? 0 : FD_CLOEXEC) < 0)
		return -errno;
	return 0;
}

/* All that the state names, and itself. */
static int carry(const struct upgrade_state *state, int fd, bool keep)
{
	int r = keep_over_exec(fd, keep);

	if (r == 0)
		r = keep_over_exec(state->listener.fd, keep);
	if (r == 0)
		r = keep_over_exec(state->starter, keep);
	for (size_t i = 0; r == 0 && i < state->n_fds; i++)
		r = keep_over_exec(state->fds[i].fd, keep);
	return r;
}

static int name_state(int fd)
{
	char number[16];

	(void)snprintf(number, sizeof(number), "%d", fd);
	return setenv("READYD_UPGRADE_STATE", number, 1) < 0 ? -errno : 0;
}

/* ---- The trial ---- */

/* argv with one word more; the caller frees the array. */
static char **trial_words(const struct image *image)
{
	static char option[] = "--check-upgrade";
	size_t n = 0;
	char **words;

	while (image->argv[n])
		n++;
	words = calloc(n + 3, sizeof(*words));
	if (!words)
		return NULL;
	words[0] = image->program;
	words[1] = option;
	for (size_t i = 1; i < n; i++)
		words[i + 1] = image->argv[i];
	return words;
}

static _Noreturn void be_trial(const struct keeper *k, char **words, int state, int output)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sigset_t none;

	(void)setpgid(0, 0);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
	    keep_over_exec(state, true) < 0 || name_state(state) < 0)
		_exit(STATUS_FAILURE);
	(void)execv(k->image->program, words);
	log_error(k->log, "cannot run %s: %s", k->image->program, strerror(errno));
	_exit(127);
}

static int start_trial(struct keeper *k, int64_t now)
{
	CLEANUP_MEMORY char **words = trial_words(k->image);
	size_t n_fds;
	CLEANUP_MEMORY struct upgrade_fd *fds = collect_holders(&k->holders, &n_fds);
	struct upgrade_state collected = collect(k, fds, n_fds);
	CLEANUP_FD int state = -1;
	pid_t keeper = getpid(), pid;
	int ends[2], r;

	if (!words || !fds)
		return -ENOMEM;
	state = write_state(&collected);
	if (state < 0)
		return state;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0UL, 0UL, 0UL);
		if (getppid() != keeper)
			_exit(STATUS_FAILURE);
		(void)fcntl(ends[1], F_SETFL, 0); /* a program may expect that a write waits */
		be_trial(k, words, state, ends[1]);
	}
	r = pid < 0 ? -errno : 0;
	(void)close(ends[1]);
	if (r < 0) {
		(void)close(ends[0]);
		return r;
	}
	(void)setpgid(pid, pid); /* so that it is done, whoever comes first */
	k->upgrade.phase = UPGRADE_TRIAL;
	k->upgrade.trial = pid;
	k->upgrade.output = ends[0];
	k->upgrade.until = now + TRIAL_TIME;
	return 0;
}

static int tell_loop(struct keeper *k, enum wire_error result)
{
	if (k->loop.channel < 0)
		return -ENOTCONN;
	return channel_send(k->loop.channel, CHANNEL_TRIED, (int32_t)result, -1);
}

/* The old one stays. */
static void give_up(struct keeper *k, enum wire_error result)
{
	log_error(k->log, "no upgrade: readyd " READYD_VERSION " goes on");
	k->upgrade.phase = UPGRADE_NONE;
	k->upgrade.until = INT64_MAX;
	(void)tell_loop(k, result);
}

void upgrade_begin(struct keeper *k, const char *who, int64_t now)
{
	int r = -ENOENT;

	if (k->stopping)
		return;
	if (k->upgrade.phase != UPGRADE_NONE) {
		log_limited(k->log, &k->upgrade.again, now, CONFIG_LOG_NOTICE,
			    "an upgrade is under way already (%s)", who);
		return;
	}
	log_notice(k->log, "upgrading, %s: trying %s", who,
		   k->image->program ? k->image->program : "(no program)");
	if (k->upgrade.trial != 0)
		r = -EBUSY; /* the last one was killed, and even that takes time */
	else if (!k->served)
		r = -EAGAIN;
	else if (k->image->program)
		r = start_trial(k, now);
	if (r == 0)
		return;
	log_error(k->log, "the new program cannot be tried: %s", strerror(-r));
	give_up(k, WIRE_E_NO_RESOURCES);
}

/* Whether it said what a trial says; k->upgrade.said is the version. */
static bool heard_readyd(struct upgrade *u)
{
	char text[sizeof(u->said)], expected[64];
	size_t length;
	ssize_t n = read(u->output, text, sizeof(text) - 1);
	char *end;

	if (n <= 0)
		return false;
	text[n] = '\0';
	end = strchr(text, '\n');
	length = (size_t)snprintf(expected, sizeof(expected), "readyd-upgrade %u ",
				  UPGRADE_STATE_VERSION);
	if (!end || strncmp(text, expected, length) != 0)
		return false;
	(void)log_escape(text + length, (size_t)(end - text) - length, u->said, sizeof(u->said));
	return true;
}

/* It has ended. Whether it passed; else the log has the reason. */
static bool judge(struct keeper *k, const siginfo_t *info)
{
	const char *program = k->image->program;

	if (info->si_code != CLD_EXITED)
		log_error(k->log, "%s failed its trial: it died by SIG%s", program,
			  sigabbrev_np(info->si_status));
	else if (info->si_status != 0)
		log_error(k->log, "%s failed its trial: exit status %d; its own words stand above",
			  program, info->si_status);
	else if (!heard_readyd(&k->upgrade))
		log_error(k->log,
			  "%s failed its trial: it is no readyd that could take over from this one",
			  program);
	else
		return true;
	return false;
}

/* The loop has heard it when it has answered; if it does not, the watchdog ends it. */
static void end_loop(struct keeper *k, int64_t now)
{
	log_notice(k->log, "readyd %s passed its trial: it takes over", k->upgrade.said);
	k->upgrade.phase = UPGRADE_ENDING;
	k->upgrade.until = INT64_MAX;
	if (k->loop.pid == 0)
		return;
	if (tell_loop(k, WIRE_OK) < 0)
		(void)kill(k->loop.pid, SIGTERM);
	watchdog_ending(&k->loop.watchdog, now);
}

bool upgrade_child_changed(struct keeper *k, const siginfo_t *info, int64_t now)
{
	struct upgrade *u = &k->upgrade;
	bool passed;

	if (u->trial == 0 || info->si_pid != u->trial)
		return false;
	if (info->si_code == CLD_STOPPED || info->si_code == CLD_CONTINUED)
		return true;
	u->trial = 0;
	passed = u->phase == UPGRADE_TRIAL && judge(k, info);
	(void)close(steal_fd(&u->output));
	if (u->phase != UPGRADE_TRIAL)
		return true; /* it was late, and is given up */
	if (passed)
		end_loop(k, now);
	else
		give_up(k, WIRE_E_INVALID);
	return true;
}

static void kill_trial(const struct upgrade *u)
{
	if (u->trial == 0)
		return;
	(void)kill(-u->trial, SIGKILL);
	(void)kill(u->trial, SIGKILL); /* if it has not come to lead a group */
}

/* ---- The new program ---- */

static int run(struct keeper *k)
{
	size_t n_fds;
	CLEANUP_MEMORY struct upgrade_fd *fds = collect_holders(&k->holders, &n_fds);
	struct upgrade_state state = collect(k, fds, n_fds);
	CLEANUP_FD int fd = fds ? write_state(&state) : -ENOMEM;
	int r;

	if (fd < 0)
		return fd;
	r = name_state(fd);
	if (r == 0)
		r = carry(&state, fd, true);
	if (r == 0) {
		k->image->argv[0] = k->image->program;
		(void)execv(k->image->program, k->image->argv);
		r = -errno;
	}
	(void)carry(&state, fd, false);
	(void)unsetenv("READYD_UPGRADE_STATE");
	return r;
}

void upgrade_step(struct keeper *k, int64_t now)
{
	struct upgrade *u = &k->upgrade;
	int r;

	if (u->phase == UPGRADE_TRIAL && u->until <= now) {
		log_error(k->log, "%s failed its trial: it did not end within %d s",
			  k->image->program, (int)(TRIAL_TIME / INT64_C(1000000000)));
		kill_trial(u);
		give_up(k, WIRE_E_INVALID);
	}
	if (u->phase != UPGRADE_ENDING || k->loop.pid != 0 || k->stopping)
		return;
	r = run(k);
	log_error(k->log, "cannot run %s: %s", k->image->program, strerror(-r));
	give_up(k, WIRE_E_INTERNAL);
	k->restart_at = now;
}

void upgrade_end(struct keeper *k)
{
	log_site_end(k->log, &k->upgrade.again, CONFIG_LOG_NOTICE,
		     "upgrades while one was under way");
	kill_trial(&k->upgrade);
	upgrade_leave(k);
}

void upgrade_leave(struct keeper *k)
{
	if (k->upgrade.output >= 0)
		(void)close(steal_fd(&k->upgrade.output));
}
