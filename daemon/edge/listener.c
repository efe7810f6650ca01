/* SPDX-License-Identifier: MIT */
#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"

/*
 * A socket file outlives its daemon. Whoever finds one in its way connects to it: if somebody
 * answers, that daemon is named and this one gives up; if the kernel refuses, nobody listens and
 * the file goes. Two daemons that start at once would both find it stale, so looking, removing and
 * binding are done under a lock on the directory.
 *
 * The socket gets its mode before listen(2): until then nobody can connect.
 */

enum {
	BACKLOG = 4096,
	DYING_TRIES = 200, /* to see a daemon gone of which only the loop is left */
	DYING_PAUSE_US = 10000,
};

static int new_socket(struct log *log)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0)
		fd = fd_move_up(fd);
	else
		fd = -errno;
	if (fd < 0)
		log_error(log, "cannot make a socket: %s", strerror(-fd));
	return fd;
}

static int start(struct listener *l, struct log *log)
{
	socklen_t length = sizeof(l->name);

	if (listen(l->fd, BACKLOG) < 0 ||
	    getsockname(l->fd, (struct sockaddr *)&l->name, &length) < 0) {
		int r = -errno;

		log_error(log, "cannot listen on %s: %s", l->address, strerror(-r));
		return r;
	}
	l->name_length = length;
	return 0;
}

/* The pid of whoever listens on the address; 0: nobody does; negative errno: cannot tell. */
static int who_listens(const struct sockaddr_un *name, socklen_t length)
{
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)name, length) < 0)
		return errno == ECONNREFUSED || errno == ENOENT ? 0 : -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return -errno;
	return peer.pid;
}

/* Removes a socket file that nobody answers on. */
static int clear_path(const struct sockaddr_un *name, socklen_t length, struct log *log)
{
	struct stat st;
	int pid = 0;

	if (lstat(name->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode)) {
		log_error(log,
			  "%s is in the way and is no socket; remove it, or choose another path "
			  "with --socket",
			  name->sun_path);
		return -EEXIST;
	}
	/* a keeper that was killed takes its loop along, which may need a moment */
	for (int tries = 0; tries < DYING_TRIES; tries++) {
		pid = who_listens(name, length);
		if (pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH)
			break;
		(void)usleep(DYING_PAUSE_US);
	}
	if (pid == 0)
		return unlink(name->sun_path) < 0 && errno != ENOENT ? -errno : 0;
	if (pid == -EAGAIN)
		pid = 0; /* its backlog is full: somebody is there */
	if (pid < 0) {
		log_error(log, "cannot tell whether anybody serves %s: %s", name->sun_path,
			  strerror(-pid));
		return pid;
	}
	log_error(log,
		  "process %d serves %s already; stop it, or choose another path with --socket",
		  pid, name->sun_path);
	return -EADDRINUSE;
}

/* Opens the socket's directory, making it if only itself is missing, and locks it. */
static int lock_directory(const char *path, struct log *log)
{
	CLEANUP_MEMORY char *copy = strdup(path);
	CLEANUP_FD int fd = -1;
	const char *directory;

	if (!copy)
		return -ENOMEM;
	directory = dirname(copy);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && mkdir(directory, geteuid() == 0 ? 0755 : 0700) == 0)
		fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX) < 0) {
		int r = -errno;

		log_error(log,
			  "cannot use the socket's directory %s: %s; make it, or choose another "
			  "path with --socket",
			  directory, strerror(-r));
		return r;
	}
	return steal_fd(&fd);
}

/* root:readyd 0660 where that group is; else the owner alone. */
static int set_mode(const char *path)
{
	struct group record, *group = NULL;
	char buffer[16384];

	if (geteuid() != 0 || getgrnam_r("readyd", &record, buffer, sizeof(buffer), &group) != 0 ||
	    !group)
		return chmod(path, 0600) < 0 ? -errno : 0;
	if (chown(path, (uid_t)-1, group->gr_gid) < 0 || chmod(path, 0660) < 0)
		return -errno;
	return 0;
}

static int bind_path(struct listener *l, const struct sockaddr_un *name, socklen_t length,
		     struct log *log)
{
	struct stat st;
	mode_t mask;
	int r;

	r = clear_path(name, length, log);
	if (r < 0)
		return r;
	mask = umask(0177);
	r = bind(l->fd, (const struct sockaddr *)name, length) < 0 ? -errno : 0;
	(void)umask(mask);
	if (r == 0 && lstat(name->sun_path, &st) < 0)
		r = -errno;
	if (r == 0) {
		l->bound = true;
		l->device = st.st_dev;
		l->inode = st.st_ino;
		r = set_mode(name->sun_path);
	}
	if (r < 0)
		log_error(log, "cannot bind %s: %s", name->sun_path, strerror(-r));
	return r;
}

int listener_open_path(struct listener *l, const char *path, struct log *log)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	CLEANUP_FD int lock = -1;
	int r;

	*l = (struct listener){.fd = -1};
	if (strlen(path) >= sizeof(name.sun_path)) {
		log_error(log,
			  "the socket's path is too long (%zu bytes, %zu fit): %s; choose a "
			  "shorter one",
			  strlen(path), sizeof(name.sun_path) - 1, path);
		return -ENAMETOOLONG;
	}
	strcpy(name.sun_path, path);
	strcpy(l->address, path);
	lock = lock_directory(path, log);
	if (lock < 0)
		return lock;
	l->fd = new_socket(log);
	r = l->fd < 0 ? l->fd : 0;
	if (r == 0)
		r = bind_path(
			l, &name,
			(socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1),
			log);
	if (r == 0)
		r = start(l, log);
	if (r < 0)
		listener_close(l);
	return r;
}

int listener_open_private(struct listener *l, struct log *log)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int r;

	*l = (struct listener){.fd = -1};
	(void)snprintf(l->address, sizeof(l->address), "a private address");
	l->fd = new_socket(log);
	if (l->fd < 0)
		return l->fd;
	/* a name of the family's size alone: the kernel chooses an abstract one (unix(7)) */
	if (bind(l->fd, (struct sockaddr *)&name, sizeof(sa_family_t)) < 0) {
		r = -errno;
		log_error(log, "cannot bind a private address: %s", strerror(-r));
	} else {
		r = start(l, log);
	}
	if (r < 0) {
		listener_close(l);
		return r;
	}
	(void)snprintf(l->address, sizeof(l->address), "@%.*s",
		       (int)(l->name_length - offsetof(struct sockaddr_un, sun_path) - 1),
		       l->name.sun_path + 1);
	return 0;
}

int listener_adopt(struct listener *l, int fd, struct log *log)
{
	socklen_t length = sizeof(l->name);
	size_t n;

	*l = (struct listener){.fd = fd};
	if (getsockname(fd, (struct sockaddr *)&l->name, &length) < 0 ||
	    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
		int r = -errno;

		log_error(log, "cannot use the listening socket that was passed: %s", strerror(-r));
		listener_close(l);
		return r;
	}
	l->name_length = length;
	n = length - offsetof(struct sockaddr_un, sun_path);
	if (n > 0 && l->name.sun_path[0] != '\0')
		(void)snprintf(l->address, sizeof(l->address), "%.*s", (int)n, l->name.sun_path);
	else if (n > 1)
		(void)snprintf(l->address, sizeof(l->address), "@%.*s", (int)n - 1,
			       l->name.sun_path + 1);
	return 0;
}

/* Another daemon may have put its own socket there since. The number of ours is not used again
 * before it is closed. */
static bool is_ours(const struct listener *l)
{
	struct stat st;

	return lstat(l->address, &st) == 0 && st.st_dev == l->device && st.st_ino == l->inode;
}

void listener_close(struct listener *l)
{
	if (l->bound && is_ours(l))
		(void)unlink(l->address);
	if (l->fd >= 0)
		(void)close(l->fd);
	l->fd = -1;
	l->bound = false;
}
