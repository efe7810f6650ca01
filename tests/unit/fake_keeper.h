/* SPDX-License-Identifier: MIT */
#ifndef FAKE_KEEPER_H
#define FAKE_KEEPER_H

/*
 * A small daemon that keeps parks and hands them out, by TAKE and to the workers of groups, and dies
 * where the test says: before or after the n-th message, either way. It keeps parks and who they are
 * handed to over its own deaths, as holders do.
 */

#include "client_fixture.h"

enum { PARKS_MAX = 64, WORKS_MAX = 4, NOTE = 5 };

struct kept {
	uint8_t token[WIRE_TOKEN_SIZE];
	uint64_t number, cookie;
	int fd;        /* -1: gone */
	bool answered; /* the parker knows of it: it may be handed out */
	bool handed;
	uint8_t worker[WIRE_TOKEN_SIZE];
	unsigned connection; /* on which it was handed */
	char name[16], group[16];
};

/* A group that the connection is attached to. */
struct work {
	char group[16]; /* "": none */
	unsigned credit, capacity;
};

/* When it dies. */
enum moment { BEFORE, BETWEEN, AFTER };

struct keeper {
	char folder[64], path[96];
	int listener, socket, stop[2];
	pthread_t thread;
	pthread_mutex_t mutex;
	struct kept parks[PARKS_MAX];
	uint64_t last;
	uint8_t handle[WIRE_TOKEN_SIZE];
	unsigned connections, first_type; /* of the first request after HELLO */
	unsigned busy;                    /* answer so many TAKEs with BUSY */
	bool ready;                       /* parks are ready at once, and when claimed */
	unsigned messages, die_at;        /* dies at that one, if not 0 */
	enum moment moment;
	unsigned deaths, taken, dropped, claims, helds, acknowledges;
	bool refuse_acknowledge; /* once */
	struct work works[WORKS_MAX];
	unsigned attaches, detaches, handouts;
	unsigned more;            /* of the last ATTACH */
	unsigned most_here;       /* hand-outs that were unsettled at once */
	uint16_t refuse_attach;   /* with this error */
	unsigned refuse_attaches; /* so many; 0: all, if there is an error */
	bool shut;                /* accept no connection */
	bool lets_go; /* an end is the client's: what it has not acknowledged is parked */
};

static inline bool is_same(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, WIRE_TOKEN_SIZE) == 0;
}

static inline struct kept *find(struct keeper *k, const uint8_t *token)
{
	for (struct kept *p = k->parks; p < k->parks + PARKS_MAX; p++)
		if (p->number && p->fd >= 0 && is_same(p->token, token))
			return p;
	return NULL;
}

static inline void say(struct keeper *k, const void *data, size_t n, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec part = {(void *)(uintptr_t)data, n};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};

	if (fd >= 0) {
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
		CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof(fd));
	}
	(void)!sendmsg(k->socket, &m, MSG_NOSIGNAL);
}

static inline void say_message(struct keeper *k, unsigned type, uint32_t serial,
			       const void *records, size_t n, const char *tail, size_t tail_size,
			       int fd)
{
	_Alignas(8) uint8_t buffer[4096];
	size_t size =
		wire_encode(buffer, sizeof(buffer), type, 0, serial, records, n, tail, tail_size);

	assert(size > 0);
	say(k, buffer, size, fd);
}

static inline void answer(struct keeper *k, const struct wire_view *v, uint16_t error,
			  uint16_t index, uint64_t value)
{
	struct wire_failure f = {.kind = WIRE_RECORD_FAILURE,
				 .error = error,
				 .serial = v->header.serial,
				 .index = index};
	struct wire_answer a[2];
	bool refused = error != WIRE_OK;

	memcpy(&a[0], &f, sizeof(f));
	a[refused] = (struct wire_answer){.kind = WIRE_RECORD_ANSWER,
					  .error = error,
					  .serial = v->header.serial,
					  .failed = refused,
					  .request = v->header.type,
					  .value = value};
	say_message(k, WIRE_READY, 0, a, 1u + refused, NULL, 0, -1);
}

static inline void tell(struct keeper *k, const struct kept *p)
{
	struct wire_park_entry e = {.kind = WIRE_RECORD_PARK,
				    .read = WIRE_CODE_READY,
				    .park = p->number,
				    .cookie = p->cookie};

	if (k->ready)
		say_message(k, WIRE_READY, 0, &e, 1, NULL, 0, -1);
}

/* Applies a request; what is said of it is the caller's. */
static inline struct kept *do_park(struct keeper *k, const struct wire_view *v, int fd)
{
	const struct wire_park *w = v->records;
	struct kept *p = find(k, w->token);

	if (p) {
		close(fd);
		return p;
	}
	p = k->parks;
	while (p->number && p->fd >= 0)
		p++;
	assert(p < k->parks + PARKS_MAX && fd >= 0);
	*p = (struct kept){.number = ++k->last, .cookie = w->cookie, .fd = fd};
	memcpy(p->token, w->token, sizeof(p->token));
	snprintf(p->name, sizeof(p->name), "%.*s", w->name_length, v->tail);
	snprintf(p->group, sizeof(p->group), "%.*s", w->group_length, v->tail + w->name_length);
	return p;
}

static inline struct kept *by_key(struct keeper *k, const struct wire_view *v)
{
	const struct wire_take *w = v->records;

	for (struct kept *p = k->parks; p < k->parks + PARKS_MAX; p++)
		if (p->number && p->fd >= 0 &&
		    (w->by == WIRE_TAKE_BY_ID ? p->number == w->park
		     : w->by == WIRE_TAKE_BY_TOKEN
			     ? is_same(p->token, w->token)
			     : strlen(p->name) == w->name_length &&
				       !memcmp(p->name, v->tail, w->name_length)))
			return p;
	return NULL;
}

static inline void hand_out(struct keeper *k, uint32_t serial, const struct kept *p)
{
	struct wire_handout h = {.park = p->number,
				 .cookie = p->cookie,
				 .parked = 1,
				 .note_length = NOTE,
				 .read = serial ? 0 : WIRE_CODE_READY,
				 .name_length = (uint8_t)strlen(p->name),
				 .group_length = (uint8_t)strlen(p->group)};
	char tail[64];

	memcpy(h.token, p->token, sizeof(h.token));
	snprintf(tail, sizeof(tail), "%s%shello", p->name, p->group);
	say_message(k, WIRE_HANDOUT, serial, &h, 1, tail, strlen(tail), p->fd);
}

/* A statement about one. */
static inline uint16_t do_held(struct keeper *k, const struct wire_held *w)
{
	static const uint8_t zero[WIRE_TOKEN_SIZE];
	struct kept *p = find(k, w->token);

	if (is_same(w->token, zero)) {
		for (p = k->parks; p < k->parks + PARKS_MAX; p++)
			if (p->handed && is_same(p->worker, k->handle) &&
			    p->connection != k->connections)
				p->handed = false;
		return WIRE_OK;
	}
	if (!p)
		return WIRE_OK;
	if (!p->handed || !is_same(p->worker, k->handle) || k->refuse_acknowledge) {
		k->refuse_acknowledge = false;
		p->handed = false;
		return WIRE_E_NOT_FOUND;
	}
	p->handed = false;
	if (w->held) {
		close(p->fd);
		p->fd = -1;
		k->taken++;
	}
	return WIRE_OK;
}

/* Whether this is the message, and the moment, of its death. */
static inline bool dies(struct keeper *k, enum moment moment)
{
	return k->die_at && k->messages == k->die_at && k->moment == moment;
}

static inline struct work *work_find(struct keeper *k, const char *group, size_t n)
{
	for (struct work *w = k->works; w < k->works + WORKS_MAX; w++)
		if (strlen(w->group) == n && memcmp(w->group, group, n) == 0)
			return w;
	return NULL;
}

static inline uint16_t do_attach(struct keeper *k, const struct wire_view *v)
{
	const struct wire_attach *a = v->records;
	struct work *w = work_find(k, v->tail, a->group_length);
	uint16_t error = k->refuse_attach;

	k->attaches++;
	k->more = a->more;
	if (error) {
		if (k->refuse_attaches && --k->refuse_attaches == 0)
			k->refuse_attach = WIRE_OK;
		return error;
	}
	if (!w) {
		w = work_find(k, "", 0);
		assert(w);
		snprintf(w->group, sizeof(w->group), "%.*s", (int)a->group_length, v->tail);
	}
	if (a->capacity == 0 || w->credit + a->more > a->capacity)
		return WIRE_E_INVALID;
	w->credit += a->more;
	w->capacity = a->capacity;
	return WIRE_OK;
}

static inline uint16_t do_detach(struct keeper *k, const struct wire_view *v)
{
	struct work *w = work_find(k, v->tail, v->header.tail);

	k->detaches++;
	if (!w)
		return WIRE_E_NOT_FOUND;
	*w = (struct work){0};
	return WIRE_OK;
}

static inline unsigned n_unsettled(const struct keeper *k)
{
	unsigned n = 0;

	for (const struct kept *p = k->parks; p < k->parks + PARKS_MAX; p++)
		n += p->number && p->fd >= 0 && p->handed;
	return n;
}

/* What is ready and has a worker is handed out; oldest first. Each is a step. false: it dies here. */
static inline bool hand_on(struct keeper *k)
{
	for (;;) {
		struct kept *next = NULL;
		struct work *w = NULL;

		for (struct kept *p = k->parks; p < k->parks + PARKS_MAX; p++) {
			struct work *here =
				p->group[0] ? work_find(k, p->group, strlen(p->group)) : NULL;

			if (p->number && p->fd >= 0 && p->answered && !p->handed && here &&
			    here->credit && (!next || p->number < next->number)) {
				next = p;
				w = here;
			}
		}
		if (!next)
			return true;
		k->messages++;
		if (dies(k, BEFORE))
			return false;
		w->credit--;
		next->handed = true;
		next->connection = k->connections;
		memcpy(next->worker, k->handle, sizeof(next->worker));
		k->handouts++;
		if (n_unsettled(k) > k->most_here)
			k->most_here = n_unsettled(k);
		if (dies(k, BETWEEN))
			return false;
		hand_out(k, 0, next);
		if (dies(k, AFTER))
			return false;
	}
}

static inline void say_groups(struct keeper *k, uint32_t serial)
{
	struct wire_group_row rows[2] = {
		{.cursor = 1,
		 .parks = 3,
		 .ready = 2,
		 .handed = 1,
		 .oldest = 5,
		 .credit = 4,
		 .capacity = 6,
		 .uid = 1000,
		 .workers = 2,
		 .group_length = 3},
		{.cursor = 2, .parks = 7, .uid = UINT32_MAX, .group_length = 4},
	};

	say_message(k, WIRE_GROUPS, serial, rows, 2, "webmail", 7, -1);
}

/* false: it dies here. */
static inline bool request(struct keeper *k, const struct wire_view *v, int fd)
{
	struct wire_welcome w = {.magic = WIRE_MAGIC,
				 .protocol = WIRE_PROTOCOL_HIGHEST,
				 .now = fake_now(),
				 .session = 7,
				 .message_max = WIRE_MESSAGE_MAX,
				 .records_max = WIRE_RECORDS_MAX,
				 .fds_max = WIRE_FDS_MAX,
				 .pid = 1};
	const struct wire_held *held = v->records;
	uint16_t error = WIRE_OK, index = 0;
	struct kept *p = NULL;

	k->messages++;
	if (v->header.type != WIRE_HELLO && !k->first_type)
		k->first_type = v->header.type;
	if (dies(k, BEFORE)) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	switch (v->header.type) {
	case WIRE_HELLO:
		memcpy(k->handle, ((const struct wire_hello *)v->records)->handle,
		       sizeof(k->handle));
		if (!dies(k, BETWEEN))
			say_message(k, WIRE_WELCOME, v->header.serial, &w, 1, NULL, 0, -1);
		return !dies(k, BETWEEN) && !dies(k, AFTER);
	case WIRE_PARK:
		p = do_park(k, v, fd);
		break;
	case WIRE_CLAIM:
		k->claims++;
		p = find(k, ((const struct wire_token *)v->records)->token);
		error = p ? WIRE_OK : WIRE_E_NOT_FOUND;
		break;
	case WIRE_TAKE:
		p = by_key(k, v);
		error = p && !p->handed ? WIRE_OK : WIRE_E_NOT_FOUND;
		if (k->busy) {
			k->busy--;
			error = WIRE_E_BUSY;
		}
		if (!error) {
			p->handed = true;
			p->connection = k->connections;
			memcpy(p->worker, k->handle, sizeof(p->worker));
		}
		break;
	case WIRE_DROP:
		p = by_key(k, v);
		error = p && !p->handed ? WIRE_OK : WIRE_E_NOT_FOUND;
		if (!error) {
			close(p->fd);
			p->fd = -1;
			k->dropped++;
		}
		break;
	case WIRE_ATTACH:
		error = do_attach(k, v);
		break;
	case WIRE_DETACH:
		error = do_detach(k, v);
		break;
	case WIRE_LIST_GROUPS:
		say_groups(k, v->header.serial);
		return true;
	case WIRE_ACKNOWLEDGE:
		k->acknowledges++;
		error = do_held(k, held);
		break;
	case WIRE_HELD:
		k->helds++;
		for (uint16_t i = 0; i < v->header.count; i++) {
			uint16_t e = do_held(k, held + i);

			if (e && !error) {
				error = e;
				index = i;
			}
		}
		break;
	}
	if (dies(k, BETWEEN))
		return false;
	if (v->header.flags & WIRE_FLAG_ANSWER)
		answer(k, v, error, index, p ? p->number : 0);
	if (dies(k, AFTER))
		return false;
	if ((v->header.type == WIRE_PARK || v->header.type == WIRE_CLAIM) && p)
		p->answered = true;
	if (v->header.type == WIRE_TAKE && !error) {
		k->messages++; /* the hand-out is a step too */
		if (dies(k, BEFORE))
			return false;
		hand_out(k, v->header.serial, p);
		if (dies(k, BETWEEN) || dies(k, AFTER))
			return false;
	}
	if ((v->header.type == WIRE_PARK || v->header.type == WIRE_CLAIM) && p && !p->group[0])
		tell(k, p);
	return hand_on(k);
}

static inline void let_go(struct keeper *k)
{
	pthread_mutex_lock(&k->mutex);
	for (struct kept *p = k->parks; k->lets_go && p < k->parks + PARKS_MAX; p++)
		p->handed = false;
	pthread_mutex_unlock(&k->mutex);
}

/* false: the connection has ended, or it dies. */
static inline bool datagram(struct keeper *k)
{
	_Alignas(8) uint8_t buffer[WIRE_MESSAGE_MAX];
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec part = {buffer, sizeof(buffer)};
	struct msghdr m = {.msg_iov = &part,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(k->socket, &m, MSG_CMSG_CLOEXEC);
	struct wire_view v;
	bool lives = true;
	int fd = -1;

	if (n <= 0) {
		let_go(k);
		return false;
	}
	if (CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	pthread_mutex_lock(&k->mutex);
	for (size_t at = 0; lives && at < (size_t)n; at += v.size) {
		if (wire_decode(buffer + at, (size_t)n - at, true, &v, NULL) != WIRE_OK)
			abort();
		lives = request(k, &v, v.n_fds ? fd : -1);
	}
	if (!lives) {
		k->deaths++;
		k->die_at = 0;
	}
	pthread_mutex_unlock(&k->mutex);
	return lives;
}

static inline void *keeper_run(void *context)
{
	struct keeper *k = context;

	for (;;) {
		struct pollfd p[2] = {{k->stop[0], POLLIN, 0},
				      {k->socket >= 0 ? k->socket : k->listener, POLLIN, 0}};

		bool shut;

		pthread_mutex_lock(&k->mutex);
		shut = k->shut && k->socket < 0;
		pthread_mutex_unlock(&k->mutex);
		(void)poll(p, shut ? 1 : 2, shut ? 5 : -1);
		if (p[0].revents)
			return NULL;
		if (shut)
			continue;
		if (k->socket < 0) {
			pthread_mutex_lock(&k->mutex);
			k->socket = accept4(k->listener, NULL, NULL, SOCK_CLOEXEC);
			k->connections++;
			k->first_type = 0;
			memset(k->works, 0, sizeof(k->works));
			pthread_mutex_unlock(&k->mutex);
		} else if (!datagram(k)) {
			close(k->socket);
			k->socket = -1;
		}
	}
}

struct scene {
	struct keeper k;
	struct readyd *r;
	unsigned fds;
};

static inline int scene_open(void **state)
{
	struct scene *s = calloc(1, sizeof(*s));
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	struct readyd_options o = {.size = sizeof(o)};
	struct keeper *k = &s->k;
	char *error = NULL;

	s->fds = count_fds();
	strcpy(k->folder, "/tmp/readyd-test-XXXXXX");
	assert_non_null(mkdtemp(k->folder));
	snprintf(k->path, sizeof(k->path), "%s/socket", k->folder);
	strcpy(name.sun_path, k->path);
	k->socket = -1;
	k->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(k->listener, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(k->listener, 8), 0);
	assert_int_equal(pipe(k->stop), 0);
	pthread_mutex_init(&k->mutex, NULL);
	assert_int_equal(pthread_create(&k->thread, NULL, keeper_run, k), 0);
	o.socket = k->path;
	if (readyd_connect(&o, &s->r, &error))
		fail_msg("%s", error);
	*state = s;
	return 0;
}

static inline int scene_close(void **state)
{
	struct scene *s = *state;
	struct keeper *k = &s->k;
	unsigned before = s->fds;

	readyd_close(s->r);
	close(k->stop[1]);
	pthread_join(k->thread, NULL);
	for (struct kept *p = k->parks; p < k->parks + PARKS_MAX; p++)
		if (p->number && p->fd >= 0)
			close(p->fd);
	if (k->socket >= 0)
		close(k->socket);
	close(k->stop[0]);
	close(k->listener);
	unlink(k->path);
	rmdir(k->folder);
	pthread_mutex_destroy(&k->mutex);
	free(s);
	return count_fds() == before ? 0 : -1;
}

/* ---- What the tests say often ---- */

static inline void die_at(struct scene *s, unsigned n, enum moment moment)
{
	pthread_mutex_lock(&s->k.mutex);
	s->k.messages = 0;
	s->k.die_at = n;
	s->k.moment = moment;
	s->k.deaths = 0;
	pthread_mutex_unlock(&s->k.mutex);
}

static inline struct readyd_park_options named(const char *name, uint64_t cookie)
{
	return (struct readyd_park_options){
		.size = sizeof(struct readyd_park_options),
		.name = name,
		.cookie = cookie,
	};
}

static inline struct readyd_park_key key_of(const char *name)
{
	return (struct readyd_park_key){
		.size = sizeof(struct readyd_park_key), .by = READYD_BY_NAME, .name = name};
}

/* Parks one end of a pair, whose other end is returned. */
static inline int park_end(struct scene *s, const char *name, uint64_t cookie, uint64_t *ret_park)
{
	struct readyd_park_options o = named(name, cookie);
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	if (readyd_park(s->r, ends[0], &o, ret_park, NULL))
		fail_msg("%s", readyd_last_error(s->r));
	close(ends[0]);
	return ends[1];
}

/* What is taken is the other end of that, and its only holder is this process. */
static inline void expect_whole(struct scene *s, struct readyd_taken *t, int other)
{
	struct pollfd end = {.fd = other, .events = POLLIN};
	char byte = 'x';

	assert_int_equal(write(other, &byte, 1), 1);
	byte = 0;
	assert_int_equal(read(t->fd, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	assert_int_equal(fcntl(t->fd, F_GETFD), FD_CLOEXEC);
	readyd_taken_clear(t);
	assert_int_equal(t->fd, -1);
	assert_int_equal(poll(&end, 1, 10000), 1);
	assert_int_equal(read(other, &byte, 1), 0); /* the end: no other copy is left */
	close(other);
	(void)s;
}

#endif
