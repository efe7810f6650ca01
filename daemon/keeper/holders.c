/* SPDX-License-Identifier: MIT */
#include "holders.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "channel.h"
#include "daemon/util/cleanup.h"
#include "daemon/util/clock.h"
#include "holder.h"

/*
 * A holder is made by fork, without exec: it needs nothing but its socket and the log, and is there
 * in a fraction of a millisecond. It is not tied to the keeper's life by a signal: when the keeper
 * becomes another program (an upgrade) its holders stay, and when it dies they see the end of their
 * sockets as soon as the loop is dead, too.
 *
 * Of the socket pair the keeper has the loop's end: a loop that dies takes no message with it, and
 * the next one has all these sockets by inheritance. The holder's end is the holder's alone, so that
 * its death is the end of the socket for the loop.
 *
 * Invariants: of a uid there is at most one entry that works, and so has a socket. The others have
 * none: each is a process that has not ended.
 */

enum {
	QUEUE_SIZE =
		1024 * 1024,   /* for what waits while a holder closes; the kernel cuts it down */
	PATIENCE_S = 5,        /* for ends that were asked for */
	STORE_PATIENCE_S = 10, /* the same, where they give their parks to systemd first */
	KILL_PATIENCE_S = 2,
};

struct holders_one {
	TAILQ_ENTRY(holders_one) list;
	struct holders_row row;
};

void holders_init(struct holders *hs, struct log *log, const volatile sig_atomic_t *stop)
{
	*hs = (struct holders){.log = log, .stop = stop};
	TAILQ_INIT(&hs->list);
}

static struct holders_one *find_uid(const struct holders *hs, uint32_t uid)
{
	struct holders_one *one;

	TAILQ_FOREACH(one, &hs->list, list)
	{
		if (one->row.uid == uid && one->row.socket >= 0)
			return one;
	}
	return NULL;
}

static struct holders_one *find_pid(const struct holders *hs, pid_t pid)
{
	struct holders_one *one;

	TAILQ_FOREACH(one, &hs->list, list)
	{
		if (one->row.pid == pid)
			return one;
	}
	return NULL;
}

static unsigned count_left_behind(const struct holders *hs, uint32_t uid)
{
	struct holders_one *one;
	unsigned n = 0;

	TAILQ_FOREACH(one, &hs->list, list)
	{
		n += one->row.uid == uid && one->row.socket < 0;
	}
	return n;
}

static void add(struct holders *hs, struct holders_one *one, const struct holders_row *row)
{
	one->row = *row;
	TAILQ_INSERT_TAIL(&hs->list, one, list);
	hs->n++;
}

/* Forks a process that has the last copy of a socket. false: cannot be done now. */
static bool close_elsewhere(struct holders *hs, uint32_t uid, int socket)
{
	struct holders_one *one = calloc(1, sizeof(*one));
	int go[2];
	pid_t pid;

	if (!one)
		return false;
	if (pipe2(go, O_CLOEXEC) < 0) {
		free(one);
		return false;
	}
	pid = fork();
	if (pid == 0)
		_exit(holder_close(socket, go[0], hs->log));
	(void)close(go[0]);
	if (pid > 0)
		(void)close(socket);
	(void)close(go[1]);
	if (pid < 0) {
		free(one);
		return false;
	}
	add(hs, one,
	    &(struct holders_row){.kind = HOLDERS_CLOSES, .uid = uid, .pid = pid, .socket = -1});
	return true;
}

/*
 * The loop's end of a holder's socket. There may be messages that no loop has read, with fds in
 * them, and theirs could be the last copies: closing those is nothing for a keeper.
 */
static void close_socket(struct holders *hs, struct holders_one *one)
{
	int socket = steal_fd(&one->row.socket), unread = 0;

	if (socket < 0)
		return;
	if (ioctl(socket, SIOCINQ, &unread) == 0 && unread == 0)
		(void)close(socket);
	else if (!close_elsewhere(hs, one->row.uid, socket))
		log_about(hs->log, CONFIG_LOG_ERROR, LOG_UID(one->row.uid),
			  "no process can be made that closes what a holder of uid %u left unread: "
			  "it stays open",
			  one->row.uid);
}

static void forget(struct holders *hs, struct holders_one *one)
{
	TAILQ_REMOVE(&hs->list, one, list);
	hs->n--;
	close_socket(hs, one);
	free(one);
}

/* ---- Making ---- */

static void leave_behind(struct holders *hs, struct holders_one *one, bool stuck, int64_t now)
{
	if (hs->ledger)
		ledger_dismiss(hs->ledger, one->row.uid);
	close_socket(hs, one);
	one->row.kind = HOLDERS_LEFT;
	if (stuck)
		log_limited_about(
			hs->log, &hs->stuck, now, CONFIG_LOG_ERROR, LOG_UID(one->row.uid),
			"the holder of uid %u (pid %d) is stuck in what this user gave it: it "
			"is left alone, and another is made (left behind: %u)",
			one->row.uid, (int)one->row.pid, count_left_behind(hs, one->row.uid));
}

static bool may_make(struct holders *hs, uint32_t uid, int64_t now)
{
	unsigned left = count_left_behind(hs, uid);

	if (left > HOLDERS_LEFT_MAX)
		log_limited_about(
			hs->log, &hs->refused, now, CONFIG_LOG_ERROR, LOG_UID(uid),
			"uid %u has %u holders that are stuck: it gets no other and cannot "
			"park. End this user's programs, and they can finish",
			uid, left);
	else if (hs->n >= HOLDERS_MAX)
		log_limited_about(hs->log, &hs->refused, now, CONFIG_LOG_ERROR, LOG_UID(uid),
				  "there are %zu holders: uid %u gets none and cannot park", hs->n,
				  uid);
	else
		return true;
	return false;
}

static int make_pair(int ret[2])
{
	int size = QUEUE_SIZE;
	int r = channel_new(ret);

	if (r < 0)
		return r;
	for (int i = 0; i < 2; i++)
		(void)setsockopt(ret[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return 0;
}

static int fork_one(struct holders *hs, struct holders_row *row)
{
	int pair[2];
	pid_t pid;
	uint32_t term = 0;
	int r = make_pair(pair);

	if (r < 0)
		return r;
	if (hs->ledger)
		term = ledger_appoint(hs->ledger, row->uid);
	pid = fork();
	if (pid == 0) {
		struct holder_options options = {
			.uid = row->uid,
			.socket = pair[1],
			.log = hs->log,
			.stop = hs->stop,
			.ledger = hs->ledger,
			.term = term,
			.depots = hs->depots,
			.n_depots = hs->n_depots,
		};

		hs->log->about = *LOG_UID(row->uid); /* whatever this process says */
		_exit(holder_run(&options));         /* what is the keeper's stays as it is */
	}
	r = pid < 0 ? -errno : 0;
	(void)close(pair[1]);
	if (r < 0) {
		(void)close(pair[0]);
		return r;
	}
	row->pid = pid;
	row->socket = pair[0];
	return 0;
}

int holders_make(struct holders *hs, uint32_t uid, bool replace, int64_t now, int *ret_socket)
{
	struct holders_one *old = find_uid(hs, uid), *one;
	struct holders_row row;
	int r;

	if (old)
		leave_behind(hs, old, replace, now);
	if (!may_make(hs, uid, now))
		return -EAGAIN;
	one = calloc(1, sizeof(*one));
	if (!one)
		return -ENOMEM;
	row = (struct holders_row){.kind = HOLDERS_WORKS, .uid = uid};
	r = fork_one(hs, &row);
	if (r < 0) {
		log_limited_about(hs->log, &hs->refused, now, CONFIG_LOG_ERROR, LOG_UID(uid),
				  "cannot make a holder for uid %u, which cannot park: %s", uid,
				  strerror(-r));
		free(one);
		return r;
	}
	add(hs, one, &row);
	log_limited_about(hs->log, &hs->made, now, CONFIG_LOG_INFO, LOG_UID(uid),
			  "uid %u has a holder (pid %d)", uid, (int)row.pid);
	*ret_socket = row.socket;
	return 0;
}

void holders_release(struct holders *hs, uint32_t uid)
{
	struct holders_one *one = find_uid(hs, uid);

	if (!one)
		return;
	log_about(hs->log, CONFIG_LOG_DEBUG, LOG_UID(uid),
		  "uid %u needs its holder (pid %d) no more", uid, (int)one->row.pid);
	one->row.kind = HOLDERS_RELEASED;
	if (hs->ledger)
		ledger_dismiss(hs->ledger, uid);
	close_socket(hs, one);
}

/* ---- What becomes of them ---- */

static void log_end(struct holders *hs, const struct holders_one *one, const siginfo_t *info,
		    int64_t now)
{
	const char *what = one->row.kind == HOLDERS_LEFT ? " that was left behind" : "";
	enum config_log_level level =
		one->row.kind == HOLDERS_LEFT ? CONFIG_LOG_NOTICE : CONFIG_LOG_WARNING;
	const char *name;

	if (hs->ending && info->si_status == 0)
		level = CONFIG_LOG_DEBUG;
	if (info->si_code == CLD_EXITED &&
	    (one->row.kind == HOLDERS_CLOSES ||
	     (one->row.kind == HOLDERS_RELEASED && info->si_status == 0)))
		return;
	if (info->si_code == CLD_EXITED) {
		log_limited_about(hs->log, &hs->deaths, now, level, LOG_UID(one->row.uid),
				  "a holder of uid %u%s (pid %d) ended with status %d",
				  one->row.uid, what, (int)one->row.pid, info->si_status);
		return;
	}
	name = sigabbrev_np(info->si_status);
	log_limited_about(hs->log, &hs->deaths, now, CONFIG_LOG_WARNING, LOG_UID(one->row.uid),
			  "a holder of uid %u%s (pid %d) died by SIG%s", one->row.uid, what,
			  (int)one->row.pid, name ? name : "(unknown)");
}

bool holders_child_changed(struct holders *hs, const siginfo_t *info, int64_t now)
{
	struct holders_one *one = find_pid(hs, info->si_pid);

	if (!one)
		return false;
	if (info->si_code == CLD_CONTINUED)
		return true;
	if (info->si_code == CLD_STOPPED) {
		log_limited_about(hs->log, &hs->deaths, now, CONFIG_LOG_WARNING,
				  LOG_UID(one->row.uid),
				  "the holder of uid %u (pid %d) was stopped by SIG%s",
				  one->row.uid, (int)one->row.pid, sigabbrev_np(info->si_status));
		return true;
	}
	log_end(hs, one, info, now);
	forget(hs, one);
	return true;
}

unsigned holders_count_left(const struct holders *hs)
{
	struct holders_one *one;
	unsigned n = 0;

	TAILQ_FOREACH(one, &hs->list, list)
	{
		n += one->row.kind == HOLDERS_LEFT;
	}
	return n;
}

int holders_get_sockets(const struct holders *hs, struct server_holder **ret, size_t *ret_n)
{
	struct server_holder *sockets = calloc(hs->n + 1, sizeof(*sockets));
	struct holders_one *one;
	size_t n = 0;

	if (!sockets)
		return -ENOMEM;
	TAILQ_FOREACH(one, &hs->list, list)
	{
		if (one->row.socket >= 0)
			sockets[n++] = (struct server_holder){one->row.uid, one->row.socket};
	}
	*ret = sockets;
	*ret_n = n;
	return 0;
}

bool holders_next(const struct holders *hs, const struct holders_one **cursor,
		  struct holders_row *ret)
{
	const struct holders_one *next =
		*cursor ? TAILQ_NEXT(*cursor, list) : TAILQ_FIRST(&hs->list);

	if (!next)
		return false;
	*cursor = next;
	*ret = next->row;
	return true;
}

int holders_adopt(struct holders *hs, const struct holders_row *row)
{
	struct holders_one *one;

	if (row->pid <= 0 || row->kind < HOLDERS_WORKS || row->kind > HOLDERS_CLOSES ||
	    (row->kind == HOLDERS_WORKS) != (row->socket >= 0))
		return -EINVAL;
	if (find_pid(hs, row->pid) || (row->socket >= 0 && find_uid(hs, row->uid)))
		return -EEXIST;
	one = calloc(1, sizeof(*one));
	if (!one)
		return -ENOMEM;
	add(hs, one, row);
	return 0;
}

/* ---- The end ---- */

static void kill_all(const struct holders *hs, int number)
{
	struct holders_one *one;

	TAILQ_FOREACH(one, &hs->list, list)
	{
		(void)kill(one->row.pid, number);
	}
}

/* Those that have ended are no longer listed. */
static void reap(struct holders *hs)
{
	struct holders_one *one, *next;

	for (one = TAILQ_FIRST(&hs->list); one; one = next) {
		siginfo_t info = {0};

		next = TAILQ_NEXT(one, list);
		if (waitid(P_PID, (id_t)one->row.pid, &info, WEXITED | WNOHANG) == 0 &&
		    info.si_pid == 0)
			continue;
		if (info.si_pid != 0 && (info.si_code != CLD_EXITED || info.si_status != 0))
			log_end(hs, one, &info, clock_now()); /* and its parks may be lost */
		else
			log_about(hs->log, CONFIG_LOG_DEBUG, LOG_UID(one->row.uid),
				  "the holder of uid %u (pid %d) has ended", one->row.uid,
				  (int)one->row.pid);
		forget(hs, one);
	}
}

/* Sends them a signal, again and again: it may come just before a close that it is to cut short.
 * Whether all have ended within the time. */
static bool end_all(struct holders *hs, int number, int seconds)
{
	const struct timespec interval = {.tv_nsec = 200 * 1000 * 1000};
	int64_t end = clock_now() + seconds * INT64_C(1000000000);
	sigset_t child;

	(void)sigemptyset(&child);
	(void)sigaddset(&child, SIGCHLD);
	for (;;) {
		reap(hs);
		if (TAILQ_EMPTY(&hs->list) || clock_now() >= end)
			return TAILQ_EMPTY(&hs->list);
		kill_all(hs, number);
		(void)sigtimedwait(&child, NULL, &interval);
	}
}

void holders_end(struct holders *hs)
{
	int patience = hs->ledger ? STORE_PATIENCE_S : PATIENCE_S;
	struct holders_one *one;

	kill_all(hs, SIGCONT); /* of one that is stopped */
	if (!end_all(hs, SIGTERM, patience)) {
		TAILQ_FOREACH(one, &hs->list, list)
		{
			log_about(hs->log, CONFIG_LOG_WARNING, LOG_UID(one->row.uid),
				  "the holder of uid %u (pid %d) does not end in %d s: killing it",
				  one->row.uid, (int)one->row.pid, patience);
		}
		(void)end_all(hs, SIGKILL, KILL_PATIENCE_S);
	}
	while ((one = TAILQ_FIRST(&hs->list))) {
		log_about(hs->log, CONFIG_LOG_ERROR, LOG_UID(one->row.uid),
			  "the holder of uid %u (pid %d) does not even die by SIGKILL: it is left "
			  "behind",
			  one->row.uid, (int)one->row.pid);
		(void)steal_fd(&one->row.socket); /* open until the exit, which never lingers */
		forget(hs, one);
	}
	log_site_end(hs->log, &hs->made, CONFIG_LOG_INFO, "new holders");
	log_site_end(hs->log, &hs->stuck, CONFIG_LOG_ERROR, "stuck holders");
	log_site_end(hs->log, &hs->deaths, CONFIG_LOG_WARNING, "deaths of holders");
	log_site_end(hs->log, &hs->refused, CONFIG_LOG_WARNING, "refused holders");
}
