/* SPDX-License-Identifier: MIT */

/*
 * The handle: made by readyd_connect(), ended by readyd_close().
 *
 * Connecting is finding a socket (search.c, private.c), HELLO, and WELCOME or a refusal, all within
 * 5 s a socket. A socket on which something else answers, or nobody in time, counts as not found:
 * the next one is tried. Nothing is left behind when it fails.
 *
 * A handle has four fds, all close-on-exec: the connection, the bell (an eventfd), the timer for
 * coming back (resume.c; not with READYD_NO_RESUME) and the epoll that readyd_fd() shows. It knows its process by a page that the kernel empties in a forked child
 * (MADV_WIPEONFORK; where that is missing, by the pid): the child shares the connection's open
 * file, so all that it may do is to close its own fds. The parent's close shuts the connection
 * down, or the session would live on in such a child.
 */

#include "internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define FEATURES "weak edge stream ns park groups survive durable"
#define FLAGS (READYD_PRIVATE_IF_NEEDED | READYD_PRIVATE_ALWAYS | READYD_EINTR | READYD_NO_RESUME)
#define HELLO_NS INT64_C(5000000000)

enum { MESSAGE_MIN = 4096 }; /* a daemon that takes less is none */

/* ---- The hello ---- */

/* Waits for a message until `until`. Its size, 0 at the end, or a negative errno. */
static ssize_t receive_until(int fd, void *buffer, size_t size, int64_t until)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = until - rd_now();
		struct timespec limit = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
		ssize_t n;

		if (left <= 0)
			return -ETIMEDOUT;
		if (ppoll(&p, 1, &limit, NULL) < 0 && errno != EINTR)
			return -errno;
		n = recv(fd, buffer, size, MSG_DONTWAIT | MSG_TRUNC);
		if (n >= 0)
			return n;
		if (errno != EAGAIN && errno != EINTR && errno != ECONNRESET)
			return -errno;
		if (errno == ECONNRESET) {
			n = recv(fd, buffer, size,
				 MSG_DONTWAIT | MSG_TRUNC); /* what was said before */
			return n < 0 ? 0 : n;
		}
	}
}

static int refused(const struct wire_view *view, const char *address, char *ret_text, size_t size)
{
	const struct wire_error_record *e = view->records;
	char text[256];
	int error;

	rd_printable(text, sizeof(text), view->tail, view->header.tail);
	(void)snprintf(ret_text, size, "%s: readyd refused the connection: %s (%s)", address,
		       text[0] ? text : "no reason given", wire_error_text(e->error));
	error = rd_errno_of(e->error);
	return error == -ENOTCONN || error == 0 ? -ECONNREFUSED : error;
}

static int not_readyd(const char *address, const char *why, char *ret_text, size_t size)
{
	(void)snprintf(ret_text, size,
		       "%s: what listens there does not speak readyd's protocol (%s)", address,
		       why);
	return -EPROTO;
}

int rd_welcome_take(struct readyd *r, const struct wire_view *view, int64_t before, int64_t after,
		    char *ret_text, size_t size)
{
	const struct wire_welcome *w = view->records;
	char *features;
	unsigned fit;

	if (w->magic != WIRE_MAGIC)
		return not_readyd(r->address, "a wrong magic number", ret_text, size);
	if (w->protocol < WIRE_PROTOCOL_LOWEST || w->protocol > WIRE_PROTOCOL_HIGHEST)
		return not_readyd(r->address, "a version that was not offered", ret_text, size);
	if (w->message_max < MESSAGE_MIN || w->records_max == 0 || w->fds_max == 0)
		return not_readyd(r->address, "limits that allow nothing", ret_text, size);
	r->message_max = w->message_max < WIRE_MESSAGE_MAX ? w->message_max : WIRE_MESSAGE_MAX;
	r->records_max = w->records_max < WIRE_RECORDS_MAX ? w->records_max : WIRE_RECORDS_MAX;
	fit = (unsigned)((r->message_max - sizeof(struct wire_header)) / sizeof(struct wire_watch));
	r->fds_max = w->fds_max < WIRE_FDS_MAX ? w->fds_max : WIRE_FDS_MAX;
	if (r->fds_max > fit)
		r->fds_max = fit;
	if (r->fds_max > r->records_max)
		r->fds_max = r->records_max;
	r->daemon_pid = w->pid;
	r->session = w->session;
	r->offset = rd_time_offset(before, w->now, after);
	features = malloc(view->header.tail + 1);
	if (!features)
		return -ENOMEM;
	rd_printable(features, view->header.tail + 1, view->tail, view->header.tail);
	free(r->features);
	r->features = features;
	return 0;
}

size_t rd_hello_make(struct readyd *r)
{
	struct wire_hello record = {
		.magic = WIRE_MAGIC,
		.lowest = WIRE_PROTOCOL_LOWEST,
		.highest = WIRE_PROTOCOL_HIGHEST,
	};

	memcpy(record.handle, r->token, sizeof(record.handle));
	return wire_encode(r->out.buffer, WIRE_MESSAGE_MAX, WIRE_HELLO, 0, 0, &record, 1, FEATURES,
			   sizeof(FEATURES) - 1);
}

/* Says hello on r->socket. 0, or a negative errno with a clause. */
static int hello(struct readyd *r, char *ret_text, size_t size)
{
	int64_t before, until = rd_now() + HELLO_NS;
	const char *reason = "";
	struct wire_view view;
	ssize_t n;
	size_t out = rd_hello_make(r);

	before = rd_now();
	if (send(r->socket, r->out.buffer, out, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
	    errno != EPIPE && errno != ECONNRESET) /* then it has said why */
		return -errno;
	n = receive_until(r->socket, r->in, WIRE_MESSAGE_MAX, until);
	if (n == -ETIMEDOUT) {
		(void)snprintf(ret_text, size, "%s: no answer to the greeting within 5 s",
			       r->address);
		return -ETIMEDOUT;
	}
	if (n == 0) {
		(void)snprintf(ret_text, size,
			       "%s: the daemon closed the connection without a word", r->address);
		return -ECONNREFUSED;
	}
	if (n < 0)
		return (int)n;
	if (n > WIRE_MESSAGE_MAX ||
	    wire_decode(r->in, (size_t)n, false, &view, &reason) != WIRE_OK ||
	    view.size != (size_t)n)
		return not_readyd(r->address, reason, ret_text, size);
	if (view.header.type == WIRE_ERROR)
		return refused(&view, r->address, ret_text, size);
	if (view.header.type != WIRE_WELCOME)
		return not_readyd(r->address, "no greeting", ret_text, size);
	return rd_welcome_take(r, &view, before, rd_now(), ret_text, size);
}

/* ---- The handle ---- */

/* A byte that reads 0 in a forked child. NULL: this kernel cannot. */
static const volatile unsigned char *page_of_mine(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	unsigned char *page =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return NULL;
	if (madvise(page, size, MADV_WIPEONFORK) < 0) {
		(void)munmap(page, size);
		return NULL;
	}
	*page = 1;
	return page;
}

static void handle_free(struct readyd *r)
{
	rd_fd_close(&r->epoll);
	rd_fd_close(&r->resume.timer);
	rd_fd_close(&r->resume.grave);
	rd_fd_close(&r->bell);
	rd_fd_close(&r->socket);
	if (r->mine)
		(void)munmap((void *)(uintptr_t)r->mine, (size_t)sysconf(_SC_PAGESIZE));
	rd_table_free(r);
	rd_handouts_free(r);
	rd_groups_free(r);
	for (size_t i = 0; i < r->resume.n_addresses; i++)
		free(r->resume.addresses[i]);
	free(r->resume.addresses);
	free(r->resume.config);
	free(r->address);
	free(r->features);
	free(r->out.buffer);
	free(r->in);
	free(r);
}

static void handle_cleanup(struct readyd **r)
{
	if (*r)
		handle_free(*r);
}

static int random_fill(void *to, size_t size)
{
	ssize_t n;

	do
		n = getrandom(to, size, 0);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)size ? 0 : -EIO;
}

static int epoll_open(struct readyd *r)
{
	struct epoll_event e = {.events = EPOLLIN};

	r->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (r->epoll < 0 || epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->socket, &e) < 0 ||
	    epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->bell, &e) < 0)
		return -errno;
	if (r->flags & READYD_NO_RESUME)
		return 0;
	r->resume.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (r->resume.timer < 0 || epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->resume.timer, &e) < 0)
		return -errno;
	return 0;
}

/* Everything but the connection. */
static int handle_make(const struct readyd_options *options, struct readyd **ret)
{
	RD_CLEANUP(handle_cleanup) struct readyd *r = calloc(1, sizeof(*r));
	int error;

	if (!r)
		return -ENOMEM;
	r->socket = r->bell = r->epoll = r->resume.timer = r->resume.grave = -1;
	r->flags = options->flags;
	r->resume.give_up = options->give_up;
	r->pid = getpid();
	r->mine = page_of_mine();
	r->requests_end = &r->requests;
	r->parking.arrived_end = &r->parking.arrived;
	r->out.last = SIZE_MAX;
	(void)pthread_mutex_init(&r->mutex, NULL);
	r->out.buffer = aligned_alloc(64, WIRE_MESSAGE_MAX);
	r->in = aligned_alloc(64, WIRE_MESSAGE_MAX);
	if (!r->out.buffer || !r->in)
		return -ENOMEM;
	memset(r->in, 0, WIRE_MESSAGE_MAX); /* no page fault when the first message comes */
	error = random_fill(r->token, sizeof(r->token));
	if (!error)
		error = random_fill(&r->number, sizeof(r->number));
	if (error)
		return error;
	r->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->bell < 0)
		return -errno;
	*ret = r;
	r = NULL;
	return 0;
}

/* Connects a handle to one address. */
static int connect_to(const struct readyd_options *options, const char *address,
		      struct readyd **ret, char *ret_text, size_t size)
{
	RD_CLEANUP(handle_cleanup) struct readyd *r = NULL;
	int error;

	ret_text[0] = '\0';
	error = handle_make(options, &r);
	if (!error) {
		r->address = strdup(address);
		error = r->address ? rd_socket_open(address, &r->socket, ret_text, size) : -ENOMEM;
	}
	if (!error)
		error = hello(r, ret_text, size);
	if (!error)
		error = epoll_open(r);
	if (error) {
		if (!ret_text[0])
			(void)snprintf(ret_text, size, "%s: %s", address, strerror(-error));
		return error;
	}
	*ret = r;
	r = NULL;
	return 0;
}

/* ---- The search ---- */

/* Of two failures the one that a person can do something about. */
static int worse(int a, int b)
{
	bool a_absent = a == -ENOENT || a == -ECONNREFUSED || a == 0;

	return a_absent ? b : a;
}

static bool may_try_next(int error)
{
	return error != -EMFILE && error != -ENFILE && error != -ENOMEM;
}

static int connect_search(const struct readyd_options *options, struct readyd **ret, char *ret_text,
			  size_t size)
{
	char buffer[PATH_MAX], clause[RD_TEXT_MAX];
	size_t used = 0;
	int result = 0;
	bool only;

	for (unsigned i = 0;; i++) {
		const char *address = rd_search(i, buffer, sizeof(buffer), &only);
		int error, n;

		if (!address)
			break;
		error = connect_to(options, address, ret, clause, sizeof(clause));
		if (!error)
			return 0;
		result = worse(result, error);
		n = snprintf(ret_text + used, size - used, "%s%s%s", i ? "; " : "",
			     only ? "$READYD_SOCKET: " : "", clause);
		used = (size_t)n < size - used ? used + (size_t)n : size - 1;
		if (!may_try_next(error))
			return error;
	}
	return result;
}

static int connect_private(const struct readyd_options *options, struct readyd **ret,
			   char *ret_text, size_t size)
{
	RD_CLEANUP(handle_cleanup) struct readyd *r = NULL;
	char address[128];
	int error = rd_private_start(options->config, address, sizeof(address), ret_text, size);

	if (!error)
		error = connect_to(options, address, &r, ret_text, size);
	if (error)
		return error;
	r->resume.is_private = true;
	if (options->config)
		r->resume.config = strdup(options->config);
	if (options->config && !r->resume.config) {
		(void)snprintf(ret_text, size, "no memory for the name of a configuration file");
		return -ENOMEM;
	}
	*ret = r;
	r = NULL;
	return 0;
}

static int connect_any(const struct readyd_options *options, struct readyd **ret, char *ret_text,
		       size_t size)
{
	const char *only = secure_getenv("READYD_SOCKET");
	int error;

	if (options->flags & READYD_PRIVATE_ALWAYS)
		return connect_private(options, ret, ret_text, size);
	if (options->socket)
		return connect_to(options, options->socket, ret, ret_text, size);
	error = connect_search(options, ret, ret_text, size);
	if (!error || !(options->flags & READYD_PRIVATE_IF_NEEDED) || !may_try_next(error) ||
	    (only && *only))
		return error;
	return connect_private(options, ret, ret_text, size);
}

int readyd_connect(const struct readyd_options *options, struct readyd **ret, char **error)
{
	struct readyd_options o = {0};
	char text[4 * RD_TEXT_MAX] = "";
	RD_KEEP_ERRNO;
	int result;

	if (options)
		memcpy(&o, options, options->size < sizeof(o) ? options->size : sizeof(o));
	if ((options && options->size < sizeof(o.size)) || o.reserved || o.give_up < 0 ||
	    o.flags & ~FLAGS) {
		result = -EINVAL;
		(void)snprintf(text, sizeof(text),
			       "readyd_connect(): options of a wrong size, with unknown flags, or "
			       "with a negative time");
	} else {
		result = connect_any(&o, ret, text, sizeof(text));
	}
	if (result && error) {
		char *sentence = NULL;

		if (asprintf(&sentence, "no connection to readyd: %s", text) < 0)
			sentence = NULL;
		*error = sentence;
	}
	return result;
}

struct readyd *readyd_close(struct readyd *r)
{
	RD_KEEP_ERRNO;

	if (!r)
		return NULL;
	if (r->mine ? *r->mine != 0 : r->pid == getpid()) {
		(void)shutdown(r->socket, SHUT_RDWR);
		(void)pthread_mutex_destroy(&r->mutex);
	}
	handle_free(r);
	return NULL;
}

const char *readyd_version(void)
{
	return READYD_VERSION;
}
