/* SPDX-License-Identifier: MIT */

/*
 * B-001 and on: what a client must not send, against the live daemon. Each is answered by an ERROR
 * and the end of that connection, where the specification says so; a witness connection with a wait
 * of its own notices nothing; and no fd stays behind. The protocol's example messages are read from
 * its folder: hex, with keys in comments that tell what must happen.
 */

#include "harness.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- The witness ---- */

struct witness {
	struct conn *c;
	struct pair p;
	int fds; /* of the daemon's, with the witness there */
};

static struct witness witness_new(const struct env *e)
{
	struct witness w = {.c = conn_dial(e)};

	w.p = pair_drained(w.c);
	expect_ok(ask_wait(w.c, &w.p.w, WIRE_READ));
	sync_with(w.c);
	w.fds = count_fds(e->pid);
	return w;
}

static void witness_end(struct witness *w)
{
	const struct env *e = w->c->env;

	EVENTUALLY(e, count_fds(e->pid) == w->fds);
	expect_nothing(w->c);
	put_bytes(w->p.b, 1);
	expect_entry(w->c, &w->p.w, WIRE_CODE_READY, 0);
	expect_nothing(w->c);
	conn_close(w->c);
}

/* ---- The example messages ---- */

struct vector {
	char name[128];
	bool from_client;
	bool greeted;
	unsigned fds;
	char verdict[40];
	size_t size;
	uint8_t bytes[WIRE_MESSAGE_MAX];
};

/* The error's name in the specification. */
static int verdict_error(const char *word)
{
	static const struct {
		const char *word;
		int error;
	} table[] = {
		{"ok", WIRE_OK},
		{"PROTOCOL", WIRE_E_PROTOCOL},
		{"VERSION", WIRE_E_VERSION},
		{"BYTE_ORDER", WIRE_E_BYTE_ORDER},
		{"INVALID", WIRE_E_INVALID},
		{"SURPLUS_FDS", WIRE_E_SURPLUS_FDS},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
		if (!strcmp(word, table[i].word))
			return table[i].error;
	return -1;
}

static void vector_key(struct vector *v, const char *key, const char *value)
{
	if (!strcmp(key, "from"))
		v->from_client = !strcmp(value, "client");
	else if (!strcmp(key, "greeted"))
		v->greeted = !strcmp(value, "yes");
	else if (!strcmp(key, "fds"))
		v->fds = (unsigned)atoi(value);
	else if (!strcmp(key, "verdict"))
		(void)snprintf(v->verdict, sizeof(v->verdict), "%s", value);
}

static void vector_read(const char *folder, const char *name, struct vector *ret)
{
	char path[512], line[1024], key[16], value[40];
	FILE *f;

	memset(ret, 0, sizeof(*ret));
	(void)snprintf(ret->name, sizeof(ret->name), "%s", name);
	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "re");
	if (!f)
		FAIL("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		const char *p = line;
		unsigned byte;
		int used;

		if (line[0] == '#') {
			if (sscanf(line, "# %15[a-z]: %39[^\n]", key, value) == 2)
				vector_key(ret, key, value);
			continue;
		}
		while (sscanf(p, "%2x%n", &byte, &used) == 1) {
			CHECK(ret->size < sizeof(ret->bytes));
			ret->bytes[ret->size++] = (uint8_t)byte;
			p += used;
		}
	}
	(void)fclose(f);
	CHECK(ret->verdict[0]);
}

/* Calls for each message from a client, in the folder's order. */
static size_t vectors_each(const struct env *e, void (*each)(const struct env *, struct vector *))
{
	struct vector *v = malloc(sizeof(*v));
	struct dirent **names;
	size_t n = 0;
	int total = scandir(e->vectors, &names, NULL, alphasort);

	if (total < 0 || !v)
		FAIL("%s: %s (give --vectors FOLDER)", e->vectors, strerror(errno));
	for (int i = 0; i < total; i++) {
		size_t length = strlen(names[i]->d_name);

		if (length > 4 && !strcmp(names[i]->d_name + length - 4, ".hex")) {
			vector_read(e->vectors, names[i]->d_name, v);
			if (v->from_client) {
				each(e, v);
				n++;
			}
		}
		free(names[i]);
	}
	free(names);
	free(v);
	return n;
}

/* Sends bytes with n fds; each an eventfd, or all the same where there are many. */
static struct conn *send_bytes(const struct env *e, const struct vector *v, size_t size)
{
	struct conn *c = v->greeted ? conn_dial(e) : conn_open(e);
	int fds[WIRE_FDS_MAX], fd = event_new(), r;

	CHECK(v->fds <= WIRE_FDS_MAX);
	for (unsigned i = 0; i < v->fds; i++)
		fds[i] = fd;
	r = send_raw(c, v->bytes, size, fds, v->fds);
	if (r)
		FAIL("%s: cannot be sent: %s", v->name, strerror(-r));
	close(fd);
	return c;
}

static void send_vector(const struct env *e, struct vector *v)
{
	struct conn *c = send_bytes(e, v, v->size);
	int want = verdict_error(v->verdict);

	if (want < 0)
		FAIL("%s: unknown verdict %s", v->name, v->verdict);
	if (want == WIRE_OK) {
		c->serial = 1000000;
		put(c, WIRE_SYNC, WIRE_FLAG_ANSWER, NULL, 0);
		flush(c);
		for (;;) {
			struct received r;

			if (!take(c, WIRE_RECORD_ANSWER, 0, now_ns() + soon_ms(e) * MS, &r))
				FAIL("%s: no answer to SYNC afterwards, error %u", v->name,
				     c->error.error);
			if (r.answer.serial == c->serial)
				break;
		}
	} else {
		unsigned error = ended(c);

		if (error != (unsigned)want)
			FAIL("%s: error %u, not %d (%s)", v->name, error, want, v->verdict);
	}
	conn_close(c);
}

static void example_messages(const struct env *e)
{
	struct witness w = witness_new(e);

	CHECK(vectors_each(e, send_vector) >= 20);
	witness_end(&w);
}

/* A cut datagram is refused, unless it was cut between two requests. */
static void send_cut(const struct env *e, struct vector *v)
{
	size_t step = v->size < 200 ? 1 : v->size / 150 + 1;

	if (verdict_error(v->verdict) != WIRE_OK)
		return;
	for (size_t size = 1; size < v->size; size += step) {
		struct conn *c = send_bytes(e, v, size);
		struct received r;

		put(c, WIRE_SYNC, WIRE_FLAG_ANSWER, NULL, 0);
		(void)send_raw(c, c->out, c->out_size, NULL, 0);
		while (!c->ended) {
			if (take(c, WIRE_RECORD_ANSWER, 0, now_ns() + soon_ms(e) * MS, &r)) {
				if (r.answer.serial == c->serial)
					break;
			} else if (!c->ended) {
				FAIL("%s cut to %zu: neither ended nor served", v->name, size);
			}
		}
		if (c->ended && !c->error.error)
			FAIL("%s cut to %zu: ended without an ERROR", v->name, size);
		if (!c->ended && size % 8)
			FAIL("%s cut to %zu: accepted", v->name, size);
		conn_close(c);
	}
}

static void cut_messages(const struct env *e)
{
	struct witness w = witness_new(e);

	CHECK(vectors_each(e, send_cut) >= 20);
	witness_end(&w);
}

/* ---- Bytes at random ---- */

static void send_flipped(const struct env *e, struct vector *v)
{
	struct vector *copy = malloc(sizeof(*copy));
	uint64_t random = e->seed;

	CHECK(copy);
	for (size_t i = 0; v->name[i]; i++)
		random = random * 31 + (uint8_t)v->name[i];
	for (int i = 0; i < (e->full ? 200 : 10) && verdict_error(v->verdict) == WIRE_OK; i++) {
		struct conn *c;

		*copy = *v;
		for (uint64_t n = random_next(&random) % 4 + 1; n; n--) {
			uint64_t r = random_next(&random);

			copy->bytes[(r >> 8) % v->size] ^= (uint8_t)(1U << (r & 7));
		}
		c = send_bytes(e, copy, v->size);
		while (receive(c, now_ns() + (i % 5 ? 0 : 5 * MS)))
			;
		conn_close(c);
	}
	free(copy);
}

static void flipped_bits(const struct env *e)
{
	struct witness w = witness_new(e);

	fprintf(stderr, "seed %llu\n", (unsigned long long)e->seed);
	vectors_each(e, send_flipped);
	witness_end(&w);
}

static void random_bytes(const struct env *e)
{
	struct witness w = witness_new(e);
	uint64_t random = e->seed;
	static uint8_t bytes[WIRE_MESSAGE_MAX];

	fprintf(stderr, "seed %llu\n", (unsigned long long)e->seed);
	for (int i = 0; i < (e->full ? 20000 : 500); i++) {
		struct conn *c = i % 2 ? conn_dial(e) : conn_open(e);
		size_t size = random_next(&random) % (i % 10 ? 128 : sizeof(bytes)) + 1;
		unsigned n_fds = (unsigned)(random_next(&random) % (i % 7 ? 3 : WIRE_FDS_MAX));
		int fds[WIRE_FDS_MAX];

		for (unsigned k = 0; k < n_fds; k++)
			fds[k] = w.p.a;
		for (size_t k = 0; k < size; k++)
			bytes[k] = (uint8_t)random_next(&random);
		if (i % 3 == 0 && size >= 16) { /* a likely header */
			bytes[1] = bytes[3] = 0;
			bytes[0] &= 0x3f;
			bytes[2] &= 1;
			memset(bytes + 9, 0, 7);
		}
		CHECK_EQ(send_raw(c, bytes, size, fds, n_fds), 0);
		if (i % 4 == 0)
			CHECK(ended(c) != WIRE_OK);
		conn_close(c);
	}
	witness_end(&w);
}

/* ---- Fds ---- */

static void wrong_fd_counts(const struct env *e)
{
	struct witness w = witness_new(e);
	int fds[WIRE_FDS_MAX];
	struct {
		struct wire_header h;
		struct wire_watch watches[2];
	} m = {
		.h = {WIRE_WATCH, WIRE_FLAG_ANSWER, 9, 2, 0},
		.watches = {{.id = 1, .gen = 1, .interest = 1}, {.id = 2, .gen = 1, .interest = 1}},
	};
	struct wire_header sync = {WIRE_SYNC, WIRE_FLAG_ANSWER, 9, 0, 0};
	struct conn *c;

	for (unsigned i = 0; i < WIRE_FDS_MAX; i++)
		fds[i] = w.p.a;
	for (unsigned n = 3; n <= WIRE_FDS_MAX; n += 50) {
		c = conn_dial(e);
		CHECK_EQ(send_raw(c, &m, sizeof(m), fds, n), 0);
		CHECK_EQ(ended(c), WIRE_E_SURPLUS_FDS);
		conn_close(c);
	}
	c = conn_dial(e); /* many fds and no record */
	CHECK_EQ(send_raw(c, &sync, sizeof(sync), fds, WIRE_FDS_MAX), 0);
	CHECK_EQ(ended(c), WIRE_E_SURPLUS_FDS);
	conn_close(c);
	c = conn_open(e); /* and before HELLO */
	CHECK_EQ(send_raw(c, &sync, sizeof(sync), fds, WIRE_FDS_MAX), 0);
	CHECK(ended(c) != WIRE_OK);
	conn_close(c);
	c = conn_dial(e); /* no fd at all: each record fails, nothing else */
	CHECK_EQ(ask(c, WIRE_WATCH, m.watches, 2), WIRE_E_BAD_FD);
	CHECK_EQ(c->n_failures, 2);
	sync_with(c);
	conn_close(c);
	witness_end(&w);
}

/* An empty datagram is the end of the connection; its fds are no one's. */
static void empty_with_fds(const struct env *e)
{
	struct witness w = witness_new(e);
	int fds[WIRE_FDS_MAX];

	for (unsigned i = 0; i < WIRE_FDS_MAX; i++)
		fds[i] = w.p.a;
	for (int i = 0; i < 4; i++) {
		struct conn *c = i % 2 ? conn_dial(e) : conn_open(e);

		CHECK_EQ(send_raw(c, "", 0, fds, i < 2 ? WIRE_FDS_MAX : 0), 0);
		(void)ended(c);
		conn_close(c);
	}
	witness_end(&w);
}

/* Datagrams with fds that nobody will read. */
static void gone_with_fds_under_way(const struct env *e)
{
	struct witness w = witness_new(e);
	struct wire_watch records[WIRE_FDS_MAX];
	struct wire_header bad = {0x7f, 0, 1, 0, 0};

	for (int i = 0; i < 20; i++) {
		struct conn *c = conn_dial(e);

		for (int k = 0; k < 10; k++) {
			for (unsigned n = 0; n < WIRE_FDS_MAX; n++)
				records[n] = (struct wire_watch){.id = c->last_id + n + 1,
								 .interest = WIRE_READ};
			c->last_id += WIRE_FDS_MAX;
			put(c, WIRE_WATCH, 0, records, WIRE_FDS_MAX);
			for (unsigned n = 0; n < WIRE_FDS_MAX; n++)
				put_fd(c, w.p.a);
			if (i % 2 && k == 5) /* the others come after what ends the connection */
				CHECK_EQ(send_raw(c, &bad, sizeof(bad), NULL, 0), 0);
			if (send_raw(c, c->out, c->out_size, c->fds, c->n_fds))
				break;
			c->out_size = c->n_fds = 0;
		}
		conn_close(c);
	}
	witness_end(&w);
}

static const struct item items[] = {
	{"B-001", "the protocol's example messages, good and bad", example_messages, NULL, 300},
	{"B-002", "good messages cut at every length", cut_messages, NULL, 600},
	{"B-003", "good messages with flipped bits", flipped_bits, NULL, 600},
	{"B-004", "random bytes and fds", random_bytes, NULL, 600},
	{"B-005", "wrong numbers of fds", wrong_fd_counts, NULL, 0},
	{"B-006", "empty datagrams with fds", empty_with_fds, NULL, 0},
	{"B-007", "gone with fds under way", gone_with_fds_under_way, NULL, 120},
};

const struct item_list items_bad_input = ITEMS(items);
