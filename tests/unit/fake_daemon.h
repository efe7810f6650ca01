/* SPDX-License-Identifier: MIT */
#ifndef FAKE_DAEMON_H
#define FAKE_DAEMON_H

/*
 * A daemon that does what the test says: a thread that listens on a socket in a folder of its own,
 * greets, notes every request, and answers those that ask for it with "ok" unless told otherwise.
 * Messages are put on the wire by the test itself with fake_send() and its kin. After the end of a
 * connection it accepts the next one when fake_admit() says so; until then it can be connected to,
 * and says nothing.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "protocol/wire.h"

enum { FAKE_LOG_MAX = 16384, FAKE_NS = 1000000000 };

struct fake_request {
	struct wire_header header;
	unsigned connection; /* number of its connection, from 1 */
	unsigned datagram;   /* number of the datagram that it came in */
	unsigned n_fds;      /* of that datagram */
	uint8_t record[64];  /* the first */
	uint8_t last[64];    /* the last */
	uint8_t *all;        /* all of them */
};

struct fake {
	char folder[64], path[96];
	int listener, socket, stop[2], door[2];
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	/* Set by the test. */
	int64_t clock_shift;   /* what the daemon's clock is ahead */
	unsigned greeting;     /* 0: WELCOME; else the error to refuse with; UINT_MAX: silence */
	bool mute;             /* answer nothing */
	bool deaf;             /* read nothing */
	unsigned refuse_type;  /* answer requests of this type with */
	uint16_t refuse_error; /* this refusal, of record */
	uint16_t refuse_index; /* this one */
	/* What it saw. */
	unsigned connections, datagrams, n;
	bool greeted;
	struct fake_request log[FAKE_LOG_MAX];
	struct wire_hello hello;
	char features[128];
};

static inline int64_t fake_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * (int64_t)FAKE_NS + t.tv_nsec;
}

/* Writes a whole datagram; waits for room. A client that has ended the connection is left alone. */
static inline void fake_send(struct fake *f, const void *data, size_t n)
{
	ssize_t sent = send(f->socket, data, n, MSG_NOSIGNAL);

	if (sent != (ssize_t)n && errno != EPIPE && errno != ECONNRESET) {
		perror("fake daemon: send");
		abort();
	}
}

static inline void fake_message(struct fake *f, unsigned type, unsigned flags, uint32_t serial,
				const void *records, size_t n, const char *tail, size_t tail_size)
{
	_Alignas(8) uint8_t buffer[WIRE_MESSAGE_MAX];
	size_t size = wire_encode(buffer, sizeof(buffer), type, flags, serial, records, n, tail,
				  tail_size);

	assert(size > 0);
	fake_send(f, buffer, size);
}

static inline void fake_ready(struct fake *f, const void *records, size_t n)
{
	fake_message(f, WIRE_READY, 0, 0, records, n, NULL, 0);
}

static inline void fake_entry(struct fake *f, uint64_t id, uint8_t read, uint8_t write)
{
	struct wire_entry e = {.kind = WIRE_RECORD_ENTRY, .read = read, .write = write};

	e.id = (uint32_t)id;
	e.gen = (uint32_t)(id >> 32);
	fake_ready(f, &e, 1);
}

static inline void fake_answer(struct fake *f, const struct wire_header *h, uint16_t error,
			       uint64_t value)
{
	struct wire_answer a = {.kind = WIRE_RECORD_ANSWER,
				.error = error,
				.serial = h->serial,
				.failed = error != 0,
				.request = h->type,
				.value = value};

	fake_ready(f, &a, 1);
}

static inline void fake_greet(struct fake *f, uint32_t serial)
{
	static const char features[] = "weak edge stream";
	struct wire_welcome w = {.magic = WIRE_MAGIC,
				 .protocol = WIRE_PROTOCOL_HIGHEST,
				 .now = fake_now() + f->clock_shift,
				 .session = 77,
				 .message_max = WIRE_MESSAGE_MAX,
				 .records_max = WIRE_RECORDS_MAX,
				 .fds_max = WIRE_FDS_MAX,
				 .pid = 4711};
	struct wire_error_record e = {.error = f->greeting, .serial = serial};
	static const char text[] = "not today\033[2J";

	if (f->greeting == UINT32_MAX)
		(void)shutdown(f->socket, SHUT_RDWR);
	else if (f->greeting)
		fake_message(f, WIRE_ERROR, 0, serial, &e, 1, text, sizeof(text) - 1);
	else
		fake_message(f, WIRE_WELCOME, 0, serial, &w, 1, features, sizeof(features) - 1);
}

/* One request: noted, then answered. */
static inline void fake_request(struct fake *f, const struct wire_view *v, unsigned n_fds)
{
	int size = wire_record_size(v->header.type);
	struct fake_request *q = &f->log[f->n];
	struct wire_answer a[2];
	bool refuse;

	assert(f->n < FAKE_LOG_MAX && size >= 0 && size <= 64);
	*q = (struct fake_request){
		.header = v->header,
		.connection = f->connections,
		.datagram = f->datagrams,
		.n_fds = n_fds,
	};
	if (v->header.count && size) {
		q->all = malloc(v->header.count * (size_t)size);
		memcpy(q->all, v->records, v->header.count * (size_t)size);
		memcpy(q->record, v->records, (size_t)size);
		memcpy(q->last, (const uint8_t *)v->records + (v->header.count - 1) * (size_t)size,
		       (size_t)size);
	}
	f->n++;
	pthread_cond_broadcast(&f->changed);
	if (v->header.type == WIRE_HELLO) {
		f->greeted = true;
		memcpy(&f->hello, v->records, sizeof(f->hello));
		snprintf(f->features, sizeof(f->features), "%.*s", (int)v->header.tail, v->tail);
		fake_greet(f, v->header.serial);
		return;
	}
	refuse = f->refuse_error && f->refuse_type == v->header.type;
	if (f->mute || !(v->header.flags & WIRE_FLAG_ANSWER))
		return;
	if (refuse) {
		struct wire_failure failure = {.kind = WIRE_RECORD_FAILURE,
					       .error = f->refuse_error,
					       .serial = v->header.serial,
					       .index = f->refuse_index};

		memcpy(&a[0], &failure, sizeof(failure));
	}
	a[refuse] = (struct wire_answer){.kind = WIRE_RECORD_ANSWER,
					 .error = refuse ? f->refuse_error : 0,
					 .serial = v->header.serial,
					 .failed = refuse,
					 .request = v->header.type,
					 .value = 0};
	fake_ready(f, a, 1u + refuse);
}

static inline unsigned fake_close_fds(struct msghdr *m)
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		unsigned here = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		for (unsigned i = 0; i < here; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			close(fd);
		}
		n += here;
	}
	return n;
}

/* One datagram of the client's. false: the end. */
static inline bool fake_datagram(struct fake *f)
{
	static _Thread_local _Alignas(8) uint8_t buffer[WIRE_MESSAGE_MAX];
	char control[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))];
	struct iovec part = {buffer, sizeof(buffer)};
	struct msghdr m = {.msg_iov = &part,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(f->socket, &m, MSG_CMSG_CLOEXEC);
	struct wire_view view;
	unsigned fds;

	if (n <= 0)
		return false;
	fds = fake_close_fds(&m);
	pthread_mutex_lock(&f->mutex);
	if (wire_check_datagram(buffer, (size_t)n, fds, f->greeted, &view, NULL) != WIRE_OK)
		abort(); /* not by cmocka: this is another thread */
	for (size_t at = 0; at < (size_t)n; at += view.size) {
		(void)wire_decode(buffer + at, (size_t)n - at, true, &view, NULL);
		fake_request(f, &view, fds);
	}
	f->datagrams++;
	pthread_mutex_unlock(&f->mutex);
	return true;
}

/* The next connection, when it may. false: the test is over. */
static inline bool fake_accept(struct fake *f)
{
	struct pollfd p[2] = {{f->stop[0], POLLIN, 0}, {f->door[0], POLLIN, 0}};
	char byte;
	int socket;

	do
		(void)poll(p, 2, -1);
	while (!p[0].revents && !p[1].revents);
	if (p[0].revents || read(f->door[0], &byte, 1) != 1)
		return false;
	socket = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
	pthread_mutex_lock(&f->mutex);
	if (f->socket >= 0)
		close(f->socket);
	f->socket = socket;
	f->greeted = false;
	f->connections++;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->mutex);
	return socket >= 0;
}

static inline void *fake_run(void *context)
{
	struct fake *f = context;
	bool open = fake_accept(f);

	while (open) {
		int socket = f->socket;
		struct pollfd p[2] = {{f->stop[0], POLLIN, 0}, {socket, POLLIN, 0}};
		bool deaf;

		pthread_mutex_lock(&f->mutex);
		deaf = f->deaf;
		pthread_mutex_unlock(&f->mutex);
		if (poll(p, deaf ? 1 : 2, deaf ? 10 : -1) < 0)
			break;
		if (p[0].revents)
			break;
		if (!deaf && p[1].revents && !fake_datagram(f))
			open = fake_accept(f);
	}
	return NULL;
}

static inline struct fake *fake_new(void)
{
	struct fake *f = calloc(1, sizeof(*f));
	struct sockaddr_un name = {.sun_family = AF_UNIX};

	assert_non_null(f);
	strcpy(f->folder, "/tmp/readyd-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/socket", f->folder);
	strcpy(name.sun_path, f->path);
	f->socket = -1;
	f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(f->listener, 8), 0);
	assert_int_equal(pipe(f->stop), 0);
	assert_int_equal(pipe(f->door), 0);
	assert_int_equal(write(f->door[1], "", 1), 1);
	pthread_mutex_init(&f->mutex, NULL);
	pthread_cond_init(&f->changed, NULL);
	return f;
}

static inline void fake_start(struct fake *f)
{
	assert_int_equal(pthread_create(&f->thread, NULL, fake_run, f), 0);
}

/* Ends the connection: the client sees it. */
static inline void fake_hang_up(struct fake *f)
{
	shutdown(f->socket, SHUT_RDWR);
}

/* The next connection is served. */
static inline void fake_admit(struct fake *f)
{
	assert_int_equal(write(f->door[1], "", 1), 1);
}

static inline void fake_free(struct fake *f)
{
	(void)shutdown(f->listener, SHUT_RDWR);
	close(f->stop[1]);
	pthread_mutex_lock(&f->mutex);
	if (f->socket >= 0)
		(void)shutdown(f->socket, SHUT_RDWR);
	pthread_mutex_unlock(&f->mutex);
	if (f->thread)
		pthread_join(f->thread, NULL);
	close(f->stop[0]);
	close(f->door[0]);
	close(f->door[1]);
	close(f->listener);
	for (unsigned i = 0; i < f->n; i++)
		free(f->log[i].all);
	if (f->socket >= 0)
		close(f->socket);
	unlink(f->path);
	rmdir(f->folder);
	pthread_mutex_destroy(&f->mutex);
	pthread_cond_destroy(&f->changed);
	free(f);
}

/* Requests of this type that ask for an answer get a refusal of that record from now on. */
static inline void fake_refuse(struct fake *f, unsigned type, uint16_t error, uint16_t index)
{
	pthread_mutex_lock(&f->mutex);
	f->refuse_type = type;
	f->refuse_error = error;
	f->refuse_index = index;
	pthread_mutex_unlock(&f->mutex);
}

/* It reads nothing from now on, or again. */
static inline void fake_deafen(struct fake *f, bool deaf)
{
	pthread_mutex_lock(&f->mutex);
	f->deaf = deaf;
	pthread_mutex_unlock(&f->mutex);
}

/* Waits until it has seen n requests of that type; returns the n-th. */
static inline struct fake_request fake_seen(struct fake *f, unsigned type, unsigned n)
{
	struct timespec limit;
	struct fake_request result = {0};
	bool found = false;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 10;
	pthread_mutex_lock(&f->mutex);
	for (;;) {
		unsigned seen = 0;

		for (unsigned i = 0; i < f->n && !found; i++) {
			if (f->log[i].header.type == type && ++seen == n) {
				result = f->log[i];
				found = true;
			}
		}
		if (found || pthread_cond_timedwait(&f->changed, &f->mutex, &limit))
			break;
	}
	pthread_mutex_unlock(&f->mutex);
	if (!found)
		fail_msg("the daemon did not see %u requests of type %#x", n, type);
	return result;
}

static inline unsigned fake_count(struct fake *f, unsigned type)
{
	unsigned n = 0;

	pthread_mutex_lock(&f->mutex);
	for (unsigned i = 0; i < f->n; i++)
		n += f->log[i].header.type == type;
	pthread_mutex_unlock(&f->mutex);
	return n;
}

#endif
