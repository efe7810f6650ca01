/* SPDX-License-Identifier: MIT */
#include "bench.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * The folder of a daemon is left to whoever set TMPDIR (run.sh, which removes all of it), should
 * the program die before it gets there.
 */

static const char config_text[] = "limits:\n"
				  "  connections: 6000\n"
				  "  watches: 2M\n"
				  "  parks: 10001\n";

void bench_die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vfprintf(stderr, format, arguments);
	va_end(arguments);
	(void)fputc('\n', stderr);
	exit(1);
}

int bench_check(struct readyd *r, int result, const char *what)
{
	if (result < 0)
		bench_die("%s: %s", what, readyd_last_error(r));
	return result;
}

int64_t bench_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 * MS + ts.tv_nsec;
}

pid_t bench_fork(void)
{
	pid_t parent = getpid(), pid;

	(void)fflush(stdout);
	pid = fork();
	if (pid < 0)
		bench_die("fork: %s", strerror(errno));
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0UL, 0UL, 0UL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

void bench_join(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		bench_die("process %d of the benchmark did not end well", (int)child);
}

/* ---- A daemon ---- */

static void path_in(const struct bench_daemon *d, const char *name, char *path, size_t size)
{
	(void)snprintf(path, size, "%s/%s", d->folder, name);
}

static void make_folder(struct bench_daemon *d)
{
	const char *tmp = getenv("TMPDIR");
	char path[128];
	FILE *f;

	if (snprintf(d->folder, sizeof(d->folder), "%s/readyd-bench-XXXXXX", tmp ? tmp : "/tmp") >=
		    (int)sizeof(d->folder) ||
	    !mkdtemp(d->folder))
		bench_die("no folder in TMPDIR: %s", strerror(errno));
	path_in(d, "socket", d->socket, sizeof(d->socket));
	path_in(d, "readyd.yaml", path, sizeof(path));
	f = fopen(path, "we");
	if (!f || fputs(config_text, f) < 0 || fclose(f) != 0)
		bench_die("%s: %s", path, strerror(errno));
}

static void be_daemon(const struct bench_daemon *d, bool keeper, int ready)
{
	const char *readyd = getenv("READYD");
	char path[128], number[16];

	path_in(d, "readyd.yaml", path, sizeof(path));
	(void)snprintf(number, sizeof(number), "%d", ready);
	(void)execl(readyd ? readyd : "readyd", "readyd", "--config", path, "--socket", d->socket,
		    "--ready-fd", number, "--log-level", "error",
		    keeper ? (char *)NULL : "--no-keeper", (char *)NULL);
	bench_die("cannot run $READYD: %s", strerror(errno));
}

void bench_daemon_start(struct bench_daemon *d, bool keeper)
{
	char said[512] = "";
	int ends[2];
	size_t n = 0;
	ssize_t k;

	make_folder(d);
	if (pipe(ends) < 0)
		bench_die("pipe: %s", strerror(errno));
	d->pid = bench_fork();
	if (d->pid == 0) {
		(void)close(ends[0]);
		be_daemon(d, keeper, ends[1]);
	}
	(void)close(ends[1]);
	while (n < sizeof(said) - 1 && (k = read(ends[0], said + n, sizeof(said) - 1 - n)) > 0)
		n += (size_t)k;
	(void)close(ends[0]);
	if (strncmp(said, "READY=1", 7) != 0)
		bench_die("the daemon does not start: %s", said);
}

void bench_daemon_stop(struct bench_daemon *d)
{
	char path[128];

	(void)kill(d->pid, SIGTERM);
	bench_join(d->pid);
	path_in(d, "readyd.yaml", path, sizeof(path));
	(void)unlink(path);
	(void)rmdir(d->folder);
}

struct readyd *bench_connect(const struct bench_daemon *d)
{
	struct readyd_options o = {.size = sizeof(o), .socket = d->socket};
	struct readyd *r = NULL;
	char *error = NULL;

	if (readyd_connect(&o, &r, &error) < 0)
		bench_die("%s", error ? error : "no memory");
	return r;
}

/* ---- Figures ---- */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_rank(double *values, unsigned n, unsigned rank, unsigned of)
{
	if (n == 0)
		return NAN;
	qsort(values, n, sizeof(*values), compare);
	return values[(uint64_t)(n - 1) * rank / of];
}

double bench_median(double *values, unsigned n)
{
	return bench_rank(values, n, 1, 2);
}

void bench_say(const char *name, double value, const char *unit, double aim)
{
	printf("%s\t%.4g\t%s\t", name, value, unit);
	if (isnan(aim))
		printf("\t\n");
	else
		printf("%.4g\t%s\n", aim, value <= aim ? "met" : "MISSED");
	(void)fflush(stdout);
}

/* ---- Processes ---- */

void *bench_shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		bench_die("mmap: %s", strerror(errno));
	return p;
}

void bench_await(const atomic_llong *number, long long value, const char *what)
{
	int64_t end = bench_now() + PATIENCE;
	struct timespec pause = {.tv_nsec = 200000};

	while (atomic_load(number) < value) {
		if (bench_now() > end)
			bench_die("for a minute: %s is %lld, not %lld", what, atomic_load(number),
				  value);
		(void)nanosleep(&pause, NULL);
	}
}

void bench_raise_nofile(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

void bench_one_core(void)
{
	cpu_set_t cores;

	if (sched_getaffinity(0, sizeof(cores), &cores) < 0)
		return;
	for (int i = 0, n = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &cores) && n++ > 0)
			CPU_CLR(i, &cores);
	(void)sched_setaffinity(0, sizeof(cores), &cores);
}
