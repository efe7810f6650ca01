/* SPDX-License-Identifier: MIT */

/*
 * Parks in libreadyd against a small daemon that does what it should, and dies where the test says:
 * before or after the n-th message, either way, for all n. It keeps parks and who they are handed to
 * over its own deaths, as holders do. Watched throughout: no fd is lost, doubled, or left over.
 */

#include "client_fixture.h"

#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { PARKS_MAX = 8, NOTE = 5 };

struct kept {
	uint8_t token[WIRE_TOKEN_SIZE];
	uint64_t number, cookie;
	int fd; /* -1: gone */
	bool handed;
	uint8_t worker[WIRE_TOKEN_SIZE];
	unsigned connection; /* on which it was handed */
	char name[16];
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
};

static bool is_same(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, WIRE_TOKEN_SIZE) == 0;
}

static struct kept *find(struct keeper *k, const uint8_t *token)
{
	for (struct kept *p = k->parks; p < k->parks + PARKS_MAX; p++)
		if (p->number && p->fd >= 0 && is_same(p->token, token))
			return p;
	return NULL;
}

static void say(struct keeper *k, const void *data, size_t n, int fd)
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

static void say_message(struct keeper *k, unsigned type, uint32_t serial, const void *records,
			size_t n, const char *tail, size_t tail_size, int fd)
{
	_Alignas(8) uint8_t buffer[4096];
	size_t size =
		wire_encode(buffer, sizeof(buffer), type, 0, serial, records, n, tail, tail_size);

	assert(size > 0);
	say(k, buffer, size, fd);
}

static void answer(struct keeper *k, const struct wire_view *v, uint16_t error, uint16_t index,
		   uint64_t value)
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

static void tell(struct keeper *k, const struct kept *p)
{
	struct wire_park_entry e = {.kind = WIRE_RECORD_PARK,
				    .read = WIRE_CODE_READY,
				    .park = p->number,
				    .cookie = p->cookie};

	if (k->ready)
		say_message(k, WIRE_READY, 0, &e, 1, NULL, 0, -1);
}

/* Applies a request; what is said of it is the caller's. */
static struct kept *do_park(struct keeper *k, const struct wire_view *v, int fd)
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
	return p;
}

static struct kept *by_key(struct keeper *k, const struct wire_view *v)
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

static void hand_out(struct keeper *k, const struct wire_view *v, const struct kept *p)
{
	struct wire_handout h = {.park = p->number,
				 .cookie = p->cookie,
				 .parked = 1,
				 .note_length = NOTE,
				 .name_length = (uint8_t)strlen(p->name)};
	char tail[64];

	memcpy(h.token, p->token, sizeof(h.token));
	snprintf(tail, sizeof(tail), "%shello", p->name);
	say_message(k, WIRE_HANDOUT, v->header.serial, &h, 1, tail, strlen(tail), p->fd);
}

/* A statement about one. */
static uint16_t do_held(struct keeper *k, const struct wire_held *w)
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
static bool dies(struct keeper *k, enum moment moment)
{
	return k->die_at && k->messages == k->die_at && k->moment == moment;
}

/* false: it dies here. */
static bool request(struct keeper *k, const struct wire_view *v, int fd)
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
	if (v->header.type == WIRE_TAKE && !error) {
		k->messages++; /* the hand-out is a step too */
		if (dies(k, BEFORE))
			return false;
		hand_out(k, v, p);
		if (dies(k, BETWEEN) || dies(k, AFTER))
			return false;
	}
	if ((v->header.type == WIRE_PARK || v->header.type == WIRE_CLAIM) && p)
		tell(k, p);
	return true;
}

/* false: the connection has ended, or it dies. */
static bool datagram(struct keeper *k)
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

	if (n <= 0)
		return false;
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

/* The client ended the connection by itself: what it had not acknowledged is parked again. */
static void *keeper_run(void *context)
{
	struct keeper *k = context;

	for (;;) {
		struct pollfd p[2] = {{k->stop[0], POLLIN, 0},
				      {k->socket >= 0 ? k->socket : k->listener, POLLIN, 0}};

		(void)poll(p, 2, -1);
		if (p[0].revents)
			return NULL;
		if (k->socket < 0) {
			pthread_mutex_lock(&k->mutex);
			k->socket = accept4(k->listener, NULL, NULL, SOCK_CLOEXEC);
			k->connections++;
			k->first_type = 0;
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

static int scene_open(void **state)
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

static int scene_close(void **state)
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

static void die_at(struct scene *s, unsigned n, enum moment moment)
{
	pthread_mutex_lock(&s->k.mutex);
	s->k.messages = 0;
	s->k.die_at = n;
	s->k.moment = moment;
	s->k.deaths = 0;
	pthread_mutex_unlock(&s->k.mutex);
}

static struct readyd_park_options named(const char *name, uint64_t cookie)
{
	return (struct readyd_park_options){
		.size = sizeof(struct readyd_park_options),
		.name = name,
		.cookie = cookie,
	};
}

static struct readyd_park_key key_of(const char *name)
{
	return (struct readyd_park_key){
		.size = sizeof(struct readyd_park_key), .by = READYD_BY_NAME, .name = name};
}

/* Parks one end of a pair, whose other end is returned. */
static int park_end(struct scene *s, const char *name, uint64_t cookie, uint64_t *ret_park)
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
static void expect_whole(struct scene *s, struct readyd_taken *t, int other)
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

/* ---- Without a death ---- */

static void park_and_take(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");
	struct readyd_taken t = {.size = sizeof(t)};
	uint64_t park = 0;
	int other = park_end(s, "conn", 77, &park);

	assert_int_equal(park, 1);
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	assert_int_equal(t.park, 1);
	assert_int_equal(t.cookie, 77);
	assert_string_equal(t.name, "conn");
	assert_string_equal(t.group, "");
	assert_int_equal(t.note_length, NOTE);
	assert_memory_equal(t.note, "hello", NOTE + 1);
	expect_whole(s, &t, other);
	assert_int_equal(readyd_take(s->r, &key, &t), -ENOENT);
	assert_non_null(strstr(readyd_last_error(s->r), "'conn'"));
	assert_int_equal(s->k.taken, 1);
	assert_int_equal(s->k.helds, 0);
}

static void bad_arguments(void **state)
{
	struct scene *s = *state;
	struct readyd_park_options o = named("conn", 0);
	struct readyd_park_key key = key_of("");
	struct readyd_taken t = {.size = sizeof(t)};
	char longer[300];

	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(readyd_park(s->r, -1, NULL, NULL, NULL), -EBADF);
	o.flags = 0x4;
	assert_int_equal(readyd_park(s->r, 0, &o, NULL, NULL), -EINVAL);
	o = named("a\nb", 0);
	assert_int_equal(readyd_park(s->r, 0, &o, NULL, NULL), -EINVAL);
	o = named(longer, 0);
	assert_int_equal(readyd_park(s->r, 0, &o, NULL, NULL), -EINVAL);
	o = named(NULL, 0);
	o.deadline = -1;
	assert_int_equal(readyd_park(s->r, 0, &o, NULL, NULL), -EINVAL);
	o.deadline = 0;
	o.note = longer;
	o.note_length = 2049;
	assert_int_equal(readyd_park(s->r, 0, &o, NULL, NULL), -EINVAL);
	assert_int_equal(readyd_take(s->r, &key, &t), -EINVAL);
	key.by = 3;
	assert_int_equal(readyd_drop(s->r, &key), -EINVAL);
	key = key_of("conn");
	t.size = 8;
	assert_int_equal(readyd_take(s->r, &key, &t), -EINVAL);
	assert_int_equal(s->k.messages, 1); /* HELLO */
	t = (struct readyd_taken){.size = sizeof(t)};
	readyd_taken_clear(&t); /* fd 0 stays */
	assert_true(fcntl(0, F_GETFD) >= 0);
}

static void busy_is_asked_again(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = {.size = sizeof(key), .by = READYD_BY_ID};
	struct readyd_taken t = {.size = sizeof(t)};
	int other = park_end(s, "conn", 0, &key.park);

	s->k.busy = 3;
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	assert_int_equal(s->k.busy, 0);
	expect_whole(s, &t, other);
}

static void drop_closes_it(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");
	int other = park_end(s, "conn", 0, NULL);
	char byte;

	assert_int_equal(readyd_drop(s->r, &key), 0);
	assert_int_equal(read(other, &byte, 1), 0);
	assert_int_equal(readyd_drop(s->r, &key), -ENOENT);
	close(other);
}

static void refused_acknowledgement_is_taken_anew(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");
	struct readyd_taken t = {.size = sizeof(t)};
	int other = park_end(s, "conn", 0, NULL);

	s->k.refuse_acknowledge = true;
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	assert_int_equal(s->k.acknowledges, 2);
	expect_whole(s, &t, other);
}

static void without_a_free_fd_it_stays_parked(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");
	struct readyd_taken t = {.size = sizeof(t)};
	int other = park_end(s, "conn", 0, NULL), room = dup(other);
	struct rlimit before, tight;

	close(room);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	tight = before;
	tight.rlim_cur = (rlim_t)room; /* all numbers below are in use */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	assert_int_equal(readyd_take(s->r, &key, &t), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(s->k.helds, 1);
	assert_int_equal(s->k.acknowledges, 0);
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	expect_whole(s, &t, other);
}

/* ---- Events ---- */

static void expect_park(struct scene *s, uint64_t park, uint64_t cookie)
{
	struct readyd_event e;

	assert_int_equal(readyd_poll(s->r, &e, 1, 10 * (int64_t)FAKE_NS), 1);
	assert_int_equal(e.kind, READYD_EVENT_PARK);
	assert_int_equal(e.id, park);
	assert_int_equal(e.cookie, cookie);
	assert_int_equal(e.read, READYD_READY);
	assert_int_equal(e.write, 0);
}

static void expect_quiet(struct scene *s)
{
	struct readyd_event e;

	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(readyd_poll(s->r, &e, 1, 0), 0);
}

static void events_come_once_over_deaths(void **state)
{
	struct scene *s = *state;
	uint64_t first, second;
	int others[2];

	s->k.ready = true;
	others[0] = park_end(s, "a", 10, &first);
	expect_park(s, first, 10);
	s->k.ready = false;
	others[1] = park_end(s, "b", 20, &second);
	expect_quiet(s);
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(s->k.claims, 1); /* the one that was told needs none */
	expect_quiet(s);
	s->k.ready = true;
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	die_at(s, 1, BEFORE); /* and once more, before it was taken */
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(s->k.claims, 3);
	expect_park(s, second, 20);
	expect_quiet(s);
	close(others[0]);
	close(others[1]);
}

static void claimed_parks_are_told_of(void **state)
{
	struct scene *s = *state;
	struct readyd_park_options o = named("a", 30);
	uint8_t token[16], unknown[16] = "unknown";
	uint64_t park;
	int fd = eventfd(0, EFD_CLOEXEC);

	s->k.ready = true;
	assert_int_equal(readyd_park(s->r, fd, &o, &park, token), 0);
	close(fd);
	expect_park(s, park, 30);
	assert_int_equal(readyd_claim(s->r, token), 0);
	expect_park(s, park, 30);
	assert_int_equal(readyd_claim(s->r, unknown), -ENOENT);
	/* Its deadline may be told yet, so it is claimed anew; that it is ready is no news. */
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(s->k.claims, 3);
	expect_quiet(s);
	/* Gone behind its back: found out when it comes back. */
	close(s->k.parks[0].fd);
	s->k.parks[0].fd = -1;
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	die_at(s, 1, BEFORE);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(s->k.claims, 4);
	expect_quiet(s);
}

static void what_is_taken_has_no_event(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("a");
	struct readyd_taken t = {.size = sizeof(t)};
	int other;

	s->k.ready = true;
	other = park_end(s, "a", 1, NULL);
	assert_int_equal(readyd_sync(s->r), 0); /* its event is here, and not taken */
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	expect_quiet(s);
	expect_whole(s, &t, other);
}

static void many_parks_are_found_by_number(void **state)
{
	enum { N = 300 };
	struct scene *s = *state;
	struct readyd_park_options o = named(NULL, 0);
	struct readyd_event e;
	uint64_t park;
	int fd = eventfd(0, EFD_CLOEXEC);

	for (unsigned i = 0; i < N; i++) {
		o.cookie = i;
		assert_int_equal(readyd_park(s->r, fd, &o, &park, NULL), 0);
		pthread_mutex_lock(&s->k.mutex);
		close(s->k.parks[0].fd);
		s->k.parks[0].fd = -1; /* its place is used again */
		pthread_mutex_unlock(&s->k.mutex);
	}
	close(fd);
	for (unsigned i = N; i > 0; i--) {
		struct wire_park_entry entry = {.kind = WIRE_RECORD_PARK,
						.write = WIRE_CODE_READY,
						.park = i,
						.cookie = i - 1};

		say_message(&s->k, WIRE_READY, 0, &entry, 1, NULL, 0, -1);
		say_message(&s->k, WIRE_READY, 0, &entry, 1, NULL, 0, -1); /* is not told again */
		assert_int_equal(readyd_poll(s->r, &e, 1, -1), 1);
		assert_int_equal(e.id, i);
		assert_int_equal(e.cookie, i - 1);
		assert_int_equal(e.write, READYD_READY);
	}
	expect_quiet(s);
}

/* ---- A death at every step ---- */

/* One park, one take, with a death at the n-th message. false: there are fewer. */
static bool live_through(struct scene *s, unsigned n, enum moment moment)
{
	struct readyd_park_key key = key_of("conn");
	struct readyd_taken t = {.size = sizeof(t)};
	unsigned before = s->k.taken, fds;
	uint64_t last = s->k.last;
	int other;

	assert_int_equal(readyd_sync(s->r), 0); /* no earlier connection is left */
	fds = count_fds();
	die_at(s, n, moment);
	other = park_end(s, "conn", n, NULL);
	if (readyd_take(s->r, &key, &t))
		fail_msg("step %u, moment %u: %s", n, moment, readyd_last_error(s->r));
	assert_int_equal(t.cookie, n);
	assert_int_equal(s->k.taken, before + 1);
	assert_int_equal(s->k.last, last + 1); /* parked once */
	expect_whole(s, &t, other);
	assert_int_equal(readyd_take(s->r, &key, &t), -ENOENT);
	pthread_mutex_lock(&s->k.mutex);
	s->k.die_at = 0;
	pthread_mutex_unlock(&s->k.mutex);
	assert_int_equal(readyd_sync(s->r), 0);
	assert_int_equal(count_fds(), fds);
	return s->k.deaths == 1;
}

static void death_at_every_step(void **state)
{
	struct scene *s = *state;

	for (enum moment m = BEFORE; m <= AFTER; m++) {
		unsigned n = 1;

		while (live_through(s, n, m))
			n++;
		/* PARK, TAKE, HANDOUT, ACKNOWLEDGE, and the TAKE that finds nothing, at least */
		assert_true(n > 5);
		assert_int_equal(s->k.deaths, 0);
	}
}

/* Two deaths: at each step, and at each step of what follows it. */
static void two_deaths(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");

	for (unsigned n = 1; n <= 4; n++)
		for (unsigned further = 1; further <= 6; further++)
			for (enum moment m = BEFORE; m <= AFTER; m++) {
				struct readyd_taken t = {.size = sizeof(t)};
				unsigned before = s->k.taken;
				struct readyd_event e;
				int other = park_end(s, "conn", n, NULL);

				die_at(s, further, m);
				if (n == 2)
					assert_int_equal(readyd_poll(s->r, &e, 1, 0), 0);
				if (n > 2)
					(void)shutdown(s->k.socket, SHUT_WR);
				assert_int_equal(readyd_take(s->r, &key, &t), 0);
				assert_int_equal(s->k.taken, before + 1);
				expect_whole(s, &t, other);
				die_at(s, 0, m);
			}
}

static void drop_at_every_step(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");

	for (enum moment m = BEFORE; m <= AFTER; m++) {
		unsigned before = s->k.dropped;
		int other = park_end(s, "conn", 0, NULL);
		char byte;

		die_at(s, 1, m);
		assert_int_equal(readyd_drop(s->r, &key), 0);
		assert_int_equal(s->k.dropped, before + 1);
		assert_int_equal(read(other, &byte, 1), 0);
		close(other);
	}
}

/* The first word on a new connection is what is held. */
static void held_comes_first(void **state)
{
	struct scene *s = *state;
	struct readyd_park_key key = key_of("conn");
	struct readyd_taken t = {.size = sizeof(t)};
	int other = park_end(s, "conn", 0, NULL);

	die_at(s, 3, BEFORE); /* the acknowledgement */
	assert_int_equal(readyd_take(s->r, &key, &t), 0);
	assert_int_equal(s->k.helds, 1);
	assert_int_equal(s->k.acknowledges, 0);
	assert_int_equal(s->k.first_type, WIRE_HELD);
	expect_whole(s, &t, other);
}

/* ---- Threads ---- */

struct taker {
	pthread_t thread;
	struct scene *s;
	unsigned number, got;
};

/* Asserts are for the test's own thread: this one only counts what went well. */
static bool round_trip(struct taker *w, const char *name, unsigned i)
{
	struct readyd_park_options o = named(name, i);
	struct readyd_park_key key = key_of(name);
	struct readyd_taken t = {.size = sizeof(t)};
	char byte = 'x';
	int ends[2];
	bool good;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return false;
	good = readyd_park(w->s->r, ends[0], &o, NULL, NULL) == 0;
	close(ends[0]);
	good = good && readyd_take(w->s->r, &key, &t) == 0 && t.cookie == i &&
	       strcmp(t.name, name) == 0 && write(ends[1], &byte, 1) == 1 &&
	       read(t.fd, &byte, 1) == 1;
	readyd_taken_clear(&t);
	if (good) {
		struct pollfd end = {.fd = ends[1], .events = POLLIN};

		good = poll(&end, 1, 10000) == 1 && read(ends[1], &byte, 1) == 0;
	}
	close(ends[1]);
	return good;
}

static void *taker_run(void *context)
{
	struct taker *w = context;
	char name[16];

	snprintf(name, sizeof(name), "t%u", w->number);
	while (w->got < 20 && round_trip(w, name, w->got))
		w->got++;
	return NULL;
}

static void threads_take_at_once(void **state)
{
	struct scene *s = *state;
	struct taker w[4];

	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct taker){.s = s, .number = i};
		assert_int_equal(pthread_create(&w[i].thread, NULL, taker_run, &w[i]), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		struct timespec pause = {.tv_nsec = 2000000};

		die_at(s, 3 + i % 7, (enum moment)(i % 3));
		nanosleep(&pause, NULL);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(w[i].thread, NULL);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(w[i].got, 20);
	assert_int_equal(s->k.taken, 80);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_open, scene_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(park_and_take),
		TEST(bad_arguments),
		TEST(busy_is_asked_again),
		TEST(drop_closes_it),
		TEST(refused_acknowledgement_is_taken_anew),
		TEST(without_a_free_fd_it_stays_parked),
		TEST(events_come_once_over_deaths),
		TEST(claimed_parks_are_told_of),
		TEST(what_is_taken_has_no_event),
		TEST(many_parks_are_found_by_number),
		TEST(death_at_every_step),
		TEST(two_deaths),
		TEST(drop_at_every_step),
		TEST(held_comes_first),
		TEST(threads_take_at_once),
	};

	return cmocka_run_group_tests_name("client_park", tests, NULL, NULL);
}
