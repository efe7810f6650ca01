/* SPDX-License-Identifier: MIT */

/*
 * A private daemon: one that this program starts for itself, on an autobound abstract address.
 *
 * It must not be a child of the program: no SIGCHLD, nothing for wait() to find, whatever the
 * program does about children. So there are two steps. clone() makes an intermediate process with
 * exit signal 0, which only waitpid(__WALL) sees and which is reaped here; it forks the later
 * daemon and exits at once, so that the daemon is init's (or a subreaper's; a program that is
 * itself the nearest subreaper does become its parent).
 *
 * The intermediate shares memory with the program (CLONE_VM), on a stack of its own, while this
 * thread stands still (CLONE_VFORK): it takes no copy of a large program's page tables, and may
 * only make system calls. All signals are blocked meanwhile, so that no handler of the program's
 * runs in it. The later daemon has a copy of the memory of a program that may have threads: only
 * async-signal-safe calls there too. What both need is made before.
 *
 * The daemon says on a pipe how it went, in lines: READYD_SOCKET=@name and READY=1, or ERROR=text;
 * a failed exec says ERRNO=n there. 5 s are its limit.
 */

#include "internal.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef READYD_DAEMON_PATH
#define READYD_DAEMON_PATH "/usr/local/sbin/readyd"
#endif

#define READY_NS INT64_C(5000000000)

extern char **environ;

enum {
	READY_FD = 3, /* in the daemon */
	STACK_SIZE = 65536,
	REPORT_MAX = 1024,
	ENVIRONMENT_OWN = 2,
};

/* All that the later daemon needs, made before it is. */
struct launch {
	const char *path;
	char *const *argv;
	char **envp;
	int pipe;
	rlim_t fds_max;
};

/* ---- In the later daemon: what returns has failed, and ends ---- */

static void close_from(unsigned first, rlim_t end)
{
	if (syscall(SYS_close_range, first, ~0u, 0) == 0)
		return;
	for (rlim_t fd = first; fd < end; fd++)
		(void)close((int)fd);
}

static void signals_to_default(void)
{
	struct sigaction action;
	sigset_t none;

	memset(&action, 0, sizeof(action));
	action.sa_handler = SIG_DFL;
	for (int i = 1; i < _NSIG; i++)
		(void)sigaction(i, &action, NULL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void report_errno(int fd, int error)
{
	char line[32] = "ERRNO=", digits[12];
	size_t n = 6, d = 0;

	for (; error > 0 && d < sizeof(digits); error /= 10)
		digits[d++] = (char)('0' + error % 10);
	while (d > 0)
		line[n++] = digits[--d];
	line[n++] = '\n';
	(void)!write(fd, line, n);
}

static void daemon_exec(const struct launch *l)
{
	/* Out of the way of 0 to 3, in case the program runs without these. */
	int pipe = fcntl(l->pipe, F_DUPFD, READY_FD + 7);
	int null = open("/dev/null", O_RDWR);

	if (pipe < 0 || null < 0)
		return;
	for (int fd = 0; fd < 3; fd++)
		if (fd != null && dup2(null, fd) < 0)
			return;
	if (dup2(pipe, READY_FD) < 0)
		return;
	close_from(READY_FD + 1, l->fds_max);
	signals_to_default();
	(void)setsid();
	(void)!chdir("/");
	(void)execve(l->path, l->argv, l->envp);
	report_errno(READY_FD, errno);
}

/* ---- In the intermediate process, on borrowed memory ---- */

static int intermediate(void *context)
{
	const struct launch *l = context;
	/* As fork(), but without its handlers, which might take locks; init reaps it. */
	long pid = syscall(SYS_clone, 0, 0, 0, 0, 0);

	if (pid == 0)
		daemon_exec(l);
	if (pid < 0)
		report_errno(l->pipe, errno);
	return 0; /* which ends it by a plain system call */
}

/* ---- In the program ---- */

static int launch(const struct launch *l, char *ret_text, size_t size)
{
	sigset_t all, before;
	char *stack;
	int pid, error;

	stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED) {
		(void)snprintf(ret_text, size, "no memory to start a private readyd");
		return -ENOMEM;
	}
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = clone(intermediate, stack + STACK_SIZE, CLONE_VM | CLONE_VFORK, (void *)(uintptr_t)l);
	error = pid < 0 ? errno : 0;
	if (pid > 0)
		while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
			;
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	(void)munmap(stack, STACK_SIZE);
	if (error)
		(void)snprintf(ret_text, size, "cannot start a private readyd: %s",
			       strerror(error));
	return -error;
}

/* Names of variables that would be wrong in the daemon. */
static bool is_unwanted(const char *variable)
{
	static const char *const names[] = {
		"READYD_STARTER=", "READYD_SOCKET=", "NOTIFY_SOCKET=", "WATCHDOG_USEC=",
		"WATCHDOG_PID=",   "LISTEN_FDS=",    "LISTEN_PID=",    "LISTEN_FDNAMES="};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strncmp(variable, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

/* The program's environment for the daemon: an array of the caller's to free, pointing to strings
 * that are not. */
static char **environment_make(char *starter)
{
	size_t n = 0, used = 0;
	char **envp;

	while (environ && environ[n])
		n++;
	envp = calloc(n + ENVIRONMENT_OWN, sizeof(*envp));
	if (!envp)
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (!is_unwanted(environ[i]))
			envp[used++] = environ[i];
	envp[used] = starter;
	return envp;
}

/* The daemon's program; NULL with a clause when there is none. */
static const char *daemon_find(char *ret_text, size_t size)
{
	const char *named = secure_getenv("READYD_DAEMON");

	if (named && *named)
		return named;
	if (access(READYD_DAEMON_PATH, X_OK) == 0)
		return READYD_DAEMON_PATH;
#ifdef READYD_BUILD_DAEMON
	if (access(READYD_BUILD_DAEMON, X_OK) == 0)
		return READYD_BUILD_DAEMON;
#endif
	(void)snprintf(ret_text, size,
		       "cannot start a private readyd: there is no %s; install readyd, or name its "
		       "program in $READYD_DAEMON",
		       READYD_DAEMON_PATH);
	return NULL;
}

/* What the daemon reported, so far as it is whole lines. 1: ready; 0: not yet; negative: failed. */
static int report_read(char *report, const char *path, char *ret_address, size_t size,
		       char *ret_text, size_t text_size)
{
	bool ready = false;
	char *end;

	for (char *line = report; (end = strchr(line, '\n')); line = end + 1) {
		size_t n = (size_t)(end - line);

		if (n == 7 && strncmp(line, "READY=1", n) == 0) {
			ready = true;
		} else if (n > 15 && n - 14 < size && strncmp(line, "READYD_SOCKET=@", 15) == 0) {
			rd_printable(ret_address, n - 14 + 1, line + 14, n - 14);
		} else if (strncmp(line, "ERROR=", 6) == 0) {
			char reason[256];

			rd_printable(reason, sizeof(reason), line + 6, n - 6);
			(void)snprintf(ret_text, text_size, "the private readyd %s failed: %s",
				       path, reason);
			return -ECONNREFUSED;
		} else if (strncmp(line, "ERRNO=", 6) == 0) {
			int error = atoi(line + 6);

			(void)snprintf(ret_text, text_size, "cannot run %s as a private readyd: %s",
				       path, strerror(error));
			return error > 0 ? -error : -EIO;
		}
	}
	return ready && ret_address[0];
}

static int report_wait(int fd, const char *path, char *ret_address, size_t size, char *ret_text,
		       size_t text_size)
{
	int64_t until = rd_now() + READY_NS;
	char report[REPORT_MAX];
	size_t used = 0;

	ret_address[0] = '\0';
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = until - rd_now();
		struct timespec limit = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
		ssize_t n;
		int result;

		if (left <= 0) {
			(void)snprintf(ret_text, text_size,
				       "the private readyd %s was not ready within 5 s", path);
			return -ETIMEDOUT;
		}
		if (ppoll(&p, 1, &limit, NULL) <= 0)
			continue;
		n = read(fd, report + used, sizeof(report) - 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			(void)snprintf(ret_text, text_size,
				       "the private readyd %s ended before it was ready; run `%s "
				       "--private` to see why",
				       path, path);
			return -ECONNREFUSED;
		}
		used += (size_t)n;
		report[used] = '\0';
		result = report_read(report, path, ret_address, size, ret_text, text_size);
		if (result)
			return result < 0 ? result : 0;
	}
}

int rd_private_start(const char *config, char *ret_address, size_t size, char *ret_text,
		     size_t text_size)
{
	char option_private[] = "--private", option_ready[] = "--ready-fd", ready_fd[] = "3";
	char option_config[] = "--config", name[] = "readyd", starter[40];
	RD_CLEANUP_FD int reader = -1;
	RD_CLEANUP_FD int writer = -1;
	RD_CLEANUP_MEMORY char *file = NULL;
	RD_CLEANUP_MEMORY char **envp = NULL;
	char *argv[] = {name, option_private, option_ready, ready_fd, NULL, NULL, NULL};
	struct launch l = {.argv = argv};
	struct rlimit limit;
	int ends[2], error;

	l.path = daemon_find(ret_text, text_size);
	if (!l.path)
		return -ENOENT;
	(void)snprintf(starter, sizeof(starter), "READYD_STARTER=%d", (int)getpid());
	envp = environment_make(starter);
	if (config) {
		file = realpath(config, NULL); /* the daemon's working directory is / */
		if (!file)
			file = strdup(config);
		argv[4] = option_config;
		argv[5] = file;
	}
	if (!envp || (config && !file)) {
		(void)snprintf(ret_text, text_size, "no memory to start a private readyd");
		return -ENOMEM;
	}
	if (pipe2(ends, O_CLOEXEC) < 0) {
		error = errno;
		(void)snprintf(ret_text, text_size, "cannot start a private readyd: %s",
			       strerror(error));
		return -error;
	}
	reader = ends[0];
	writer = ends[1];
	l.envp = envp;
	l.pipe = writer;
	l.fds_max = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 1024;
	error = launch(&l, ret_text, text_size);
	if (error)
		return error;
	rd_fd_close(&writer);
	writer = -1;
	error = report_wait(reader, l.path, ret_address, size, ret_text, text_size);
	if (error)
		return error;
	if (setenv("READYD_SOCKET", ret_address, 1) < 0) {
		(void)snprintf(ret_text, text_size, "no memory for READYD_SOCKET");
		return -ENOMEM;
	}
	return 0;
}
