/* SPDX-License-Identifier: MIT */
#include "take.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * take --each: a worker of a group whose work is a COMMAND. It has room for --jobs of them: as many
 * are handed out to it, and when one has ended that is said to the daemon.
 *
 * One poll() waits for the handle and for signals (a signalfd: SIGCHLD, SIGINT, SIGTERM). The first
 * of the latter two ends the connection, which gives back what was not received yet; then COMMANDs
 * that run are waited for, with signals as they were: a second one ends readyctl, and they go on
 * alone. A signal that was ignored when readyctl started stays so.
 *
 * COMMAND is looked for each time before something is received. Where no process can be made for it,
 * the fd is kept, and it is tried again.
 */

enum { AGAIN_MS = 200 };

struct job {
	pid_t pid; /* 0: none */
	uint64_t park;
};

struct each {
	const struct ctl *ctl;
	struct readyd *r; /* NULL: no more */
	char **command;
	struct job *jobs; /* ctl->jobs of them */
	unsigned n_running;
	uint64_t n_run, n_bad;
	int signals; /* a signalfd */
	sigset_t old;
	struct readyd_taken taken; /* that has no COMMAND yet */
	bool is_taken;
	bool stopped; /* by a signal */
	int status;   /* why it ends by itself */
};

/* ---- COMMANDs ---- */

static struct job *job_find(struct each *e, pid_t pid)
{
	for (struct job *j = e->jobs; j < e->jobs + e->ctl->jobs; j++)
		if (j->pid == pid)
			return j;
	return NULL;
}

/* false: no process can be made now. */
static bool job_start(struct each *e)
{
	pid_t pid = fork();
	struct job *j;

	if (pid < 0) {
		ctl_complain("no process for '%s': %s; trying again", e->command[0],
			     strerror(errno));
		return false;
	}
	if (pid == 0) {
		(void)sigprocmask(SIG_SETMASK, &e->old, NULL);
		_exit(take_exec(e->ctl, &e->taken, e->command));
	}
	j = job_find(e, 0);
	*j = (struct job){.pid = pid, .park = e->taken.park};
	e->n_running++;
	e->n_run++;
	readyd_taken_clear(&e->taken);
	e->is_taken = false;
	return true;
}

static void job_ended(struct each *e, struct job *j, int status)
{
	unsigned long long park = j->park;
	int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

	*j = (struct job){0};
	e->n_running--;
	if (e->r)
		(void)readyd_done(e->r, e->ctl->group);
	if (status == 0)
		return;
	e->n_bad++;
	if (signal)
		ctl_complain("park %llu: '%s' was ended by signal %d (%s)", park, e->command[0],
			     signal, strsignal(signal));
	else
		ctl_complain("park %llu: '%s' ended with status %d", park, e->command[0],
			     WEXITSTATUS(status));
}

/* Those that have ended; with `wait`, until all have. */
static void jobs_reap(struct each *e, bool wait)
{
	while (e->n_running) {
		int status;
		pid_t pid = waitpid(-1, &status, wait ? 0 : WNOHANG);
		struct job *j = pid > 0 ? job_find(e, pid) : NULL;

		if (j)
			job_ended(e, j, status);
		else if (pid == 0 || (pid < 0 && errno != EINTR))
			return;
	}
}

/* ---- The loop ---- */

/* How long to sleep, in ms; -1: until something comes. */
static int serve(struct each *e)
{
	int n = 0;

	if (e->is_taken && !job_start(e))
		return AGAIN_MS;
	while (e->n_running < e->ctl->jobs) {
		e->status = take_check(e->command[0]);
		if (e->status)
			return 0;
		n = readyd_receive(e->r, &e->taken, 0);
		if (n <= 0)
			break;
		e->is_taken = true;
		if (!job_start(e))
			return AGAIN_MS;
	}
	if (e->n_running == e->ctl->jobs)
		n = readyd_receive(e->r, &e->taken,
				   0); /* there is no room: it lets the handle go on */
	if (n >= 0)
		return -1;
	ctl_complain("%s", readyd_last_error(e->r));
	if (n == -EMFILE)
		return AGAIN_MS;
	e->status = CTL_NOT_RUN;
	return 0;
}

static void sleep_a_while(struct each *e, int ms)
{
	/* With a pause, what the handle has is left there. */
	struct pollfd p[2] = {{.fd = e->signals, .events = POLLIN},
			      {.fd = ms < 0 ? readyd_fd(e->r) : -1, .events = POLLIN}};
	struct signalfd_siginfo signal;

	(void)poll(p, 2, ms);
	while (read(e->signals, &signal, sizeof(signal)) == sizeof(signal))
		e->stopped |= signal.ssi_signo != SIGCHLD;
}

static int each_run(struct each *e)
{
	if (readyd_attach(e->r, e->ctl->group, e->ctl->jobs) < 0) {
		ctl_complain("%s", readyd_last_error(e->r));
		e->status = CTL_NOT_RUN;
	}
	while (!e->status && !e->stopped) {
		int ms = serve(e);

		if (!e->status)
			sleep_a_while(e, ms);
		jobs_reap(e, false);
	}
	e->r = readyd_close(e->r);
	if (e->is_taken) {
		ctl_complain("park %llu is closed: there was no process for '%s'",
			     (unsigned long long)e->taken.park, e->command[0]);
		readyd_taken_clear(&e->taken);
		e->n_run++;
		e->n_bad++;
	}
	(void)sigprocmask(SIG_SETMASK, &e->old, NULL);
	jobs_reap(e, true);
	if (e->n_bad)
		ctl_complain("%llu of %llu COMMANDs ended badly", (unsigned long long)e->n_bad,
			     (unsigned long long)e->n_run);
	return e->status;
}

int take_each(const struct ctl *ctl, struct readyd *r, char **command)
{
	struct each e = {
		.ctl = ctl,
		.r = r,
		.command = command,
		.jobs = calloc(ctl->jobs, sizeof(*e.jobs)),
		.taken = {.size = sizeof(e.taken)},
	};
	sigset_t wanted;
	int status;

	(void)signal(SIGCHLD, SIG_DFL); /* or the kernel would not tell how they ended */
	(void)sigemptyset(&wanted);
	(void)sigaddset(&wanted, SIGCHLD);
	(void)sigaddset(&wanted, SIGINT);
	(void)sigaddset(&wanted, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &wanted, &e.old);
	e.signals = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
	if (!e.jobs || e.signals < 0) {
		ctl_complain("no COMMANDs can be run: %s", e.jobs ? strerror(errno) : "no memory");
		readyd_close(r);
		status = CTL_NOT_RUN;
	} else {
		status = each_run(&e);
	}
	if (e.signals >= 0)
		(void)close(e.signals);
	free(e.jobs);
	return status;
}
