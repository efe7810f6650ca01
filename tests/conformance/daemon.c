/* SPDX-License-Identifier: MIT */

/*
 * The daemon under test: started in a temporary folder with a configuration of its own, waited for
 * by --ready-fd, ended by SIGTERM. Its log is kept in the folder until the run is over. Nothing
 * else is done to it: no signal but SIGTERM, so that every item sees the same process.
 */

#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_SECONDS = 20, STOP_SECONDS = 20 };
#define SHADOW_KIB (INT64_C(1) << 32)

static int config_write(const struct daemon *d, const char *backend)
{
	FILE *f = fopen(d->config, "we");

	if (!f)
		return -errno;
	fprintf(f, "backend: %s\n", backend);
	return fclose(f) ? -errno : 0;
}

static _Noreturn void daemon_exec(const struct daemon *d, const char *program, int ready)
{
	int log = open(d->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	int null = open("/dev/null", O_RDWR);
	char number[16];

	if (log < 0 || null < 0)
		_exit(127);
	(void)dup2(null, 0);
	(void)dup2(log, 1);
	(void)dup2(log, 2);
	(void)dup2(ready, 3);
	(void)fcntl(3, F_SETFD, 0);
	close_range(4, ~0U, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	(void)snprintf(number, sizeof(number), "%d", 3);
	/* alone: the messages that are tried here include UPGRADE, well-formed and otherwise */
	execl(program, program, "--no-keeper", "--socket", d->socket, "--config", d->config,
	      "--ready-fd", number, "--log-level", "debug", (char *)NULL);
	(void)dprintf(2, "cannot run %s: %s\n", program, strerror(errno));
	_exit(127);
}

/* Reads lines until READY=1. */
static int ready_wait(int fd)
{
	int64_t until = now_ns() + START_SECONDS * SECOND;
	char text[1024];
	size_t n = 0;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = until - now_ns();
		ssize_t got;

		if (left <= 0 || poll(&p, 1, (int)(left / MS) + 1) == 0)
			return -ETIMEDOUT;
		got = read(fd, text + n, sizeof(text) - 1 - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return -EPIPE;
		n += (size_t)got;
		text[n] = '\0';
		if (strstr(text, "READY=1\n"))
			return 0;
		if (n == sizeof(text) - 1)
			return -EMSGSIZE;
	}
}

int daemon_start(const char *program, const char *backend, struct daemon *ret)
{
	struct daemon d = {.child = -1};
	int ready[2], r;

	(void)snprintf(d.folder, sizeof(d.folder), "/tmp/readyd-conformance.XXXXXX");
	if (!mkdtemp(d.folder))
		return -errno;
	(void)snprintf(d.socket, sizeof(d.socket), "%s/socket", d.folder);
	(void)snprintf(d.config, sizeof(d.config), "%s/config", d.folder);
	(void)snprintf(d.log, sizeof(d.log), "%s/log", d.folder);
	*ret = d;
	r = config_write(&d, backend);
	if (r)
		return r;
	if (pipe2(ready, O_CLOEXEC))
		return -errno;
	d.child = fork();
	if (d.child < 0)
		return -errno;
	if (d.child == 0)
		daemon_exec(&d, program, ready[1]);
	close(ready[1]);
	r = ready_wait(ready[0]);
	close(ready[0]);
	*ret = d;
	return r;
}

bool daemon_alive(const struct daemon *d)
{
	siginfo_t info = {0};

	return d->child > 0 && !waitid(P_PID, (id_t)d->child, &info, WEXITED | WNOHANG | WNOWAIT) &&
	       info.si_pid == 0;
}

int daemon_stop(struct daemon *d)
{
	int64_t until = now_ns() + STOP_SECONDS * SECOND;
	int status = 0;
	bool killed = false;

	if (d->child <= 0)
		return -1;
	kill(d->child, SIGTERM);
	while (waitpid(d->child, &status, WNOHANG) == 0) {
		if (now_ns() > until && !killed) {
			kill(d->child, SIGKILL);
			killed = true;
		}
		nap_us(2000);
	}
	d->child = -1;
	if (killed)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void daemon_clean(struct daemon *d)
{
	(void)unlink(d->socket);
	(void)unlink(d->config);
	(void)unlink(d->log);
	if (rmdir(d->folder))
		fprintf(stderr, "# something was left in %s\n", d->folder);
}

int count_fds(pid_t pid)
{
	char path[64];
	struct dirent *entry;
	int n = 0;
	DIR *dir;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return -1;
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

long memory_kib(pid_t pid)
{
	char path[64], line[256];
	long kib = -1;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	while (kib < 0 && fgets(line, sizeof(line), f)) {
		/* a sanitizer's shadow: freed memory is kept on purpose */
		if (!strncmp(line, "VmSize:", 7) && strtoll(line + 7, NULL, 10) > SHADOW_KIB)
			break;
		if (!strncmp(line, "RssAnon:", 8))
			kib = strtol(line + 8, NULL, 10);
	}
	(void)fclose(f);
	return kib;
}
