/* SPDX-License-Identifier: MIT */

/*
 * HTTP/1.1 (RFC 9112) for GET and HEAD of two small pages, with keep-alive and pipelining.
 *
 * http_serve() reads once and no more. So a peer that never stops sending has its turn like all
 * others, and whatever it has sent beyond stays in the socket, which is therefore readable still.
 *
 * Requests with content are refused, and so the next request begins where a head ends. After every
 * error but 404 the connection is closed, since nobody knows where the next request would begin. It
 * is closed for writing first and read to its end: a close() with bytes unread makes the kernel
 * reset the connection, and the peer would lose the answer that tells it why.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "http_request.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_MAX = 512 };

/* A piece of the head. */
struct text {
	const char *p;
	size_t n;
};

struct request {
	struct text method, path;
	bool old;                       /* HTTP/1.0 */
	bool close, keep_alive, length; /* said by headers */
	unsigned hosts;
};

static bool text_equals(struct text t, const char *word)
{
	return t.n == strlen(word) && memcmp(t.p, word, t.n) == 0;
}

/* The same for words that may be written in capitals. */
static bool text_is(struct text t, const char *word)
{
	return t.n == strlen(word) && strncasecmp(t.p, word, t.n) == 0;
}

/* Cuts off what comes before the first such byte, which is cut off, too; all, if there is none. */
static struct text text_cut(struct text *rest, char byte)
{
	const char *found = memchr(rest->p, byte, rest->n);
	size_t n = found ? (size_t)(found - rest->p) : rest->n;
	struct text first = {rest->p, n};

	rest->p += found ? n + 1 : n;
	rest->n -= found ? n + 1 : n;
	return first;
}

static struct text text_trim(struct text t)
{
	for (; t.n > 0 && (*t.p == ' ' || *t.p == '\t'); t.p++)
		t.n--;
	while (t.n > 0 && (t.p[t.n - 1] == ' ' || t.p[t.n - 1] == '\t'))
		t.n--;
	return t;
}

/* A name of a method or a header. */
static bool is_token(struct text t)
{
	static const char others[] = "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < t.n; i++)
		if (!isalnum((unsigned char)t.p[i]) && !memchr(others, t.p[i], strlen(others)))
			return false;
	return t.n > 0;
}

/* ---- The head of a request: functions return the status to answer with, 0 if all is well ---- */

static int parse_connection(struct request *q, struct text value)
{
	while (value.n > 0) {
		struct text word = text_trim(text_cut(&value, ','));

		q->close |= text_is(word, "close");
		q->keep_alive |= text_is(word, "keep-alive");
	}
	return 0;
}

static int parse_header(struct request *q, struct text line)
{
	struct text value = line, name = text_cut(&value, ':');

	/* also a line that goes on with the one before, and a blank before the colon */
	if (name.n == line.n || !is_token(name))
		return 400;
	value = text_trim(value);
	for (size_t i = 0; i < value.n; i++)
		if (((unsigned char)value.p[i] < ' ' && value.p[i] != '\t') || value.p[i] == 0x7f)
			return 400;
	if (text_is(name, "host"))
		q->hosts++;
	else if (text_is(name, "connection"))
		return parse_connection(q, value);
	else if (text_is(name, "transfer-encoding") ||
		 (text_is(name, "content-length") && !text_is(value, "0")))
		return 413;
	return 0;
}

/* "/path?query", or, as a proxy would say it, "http://host/path?query". */
static int parse_target(struct request *q, struct text target)
{
	static const char scheme[] = "http://";

	for (size_t i = 0; i < target.n; i++)
		if ((unsigned char)target.p[i] <= ' ' || target.p[i] == 0x7f)
			return 400;
	if (target.n >= sizeof(scheme) && strncasecmp(target.p, scheme, strlen(scheme)) == 0) {
		struct text rest = {target.p + strlen(scheme), target.n - strlen(scheme)};
		struct text host = text_cut(&rest, '/');

		target.p = host.p + host.n;
		target.n = rest.n + (target.p != rest.p);
		if (target.n == 0)
			target = (struct text){"/", 1};
	}
	q->path = text_cut(&target, '?');
	return q->path.n > 0 && q->path.p[0] == '/' ? 0 : 400;
}

static int parse_line(struct request *q, struct text line)
{
	struct text target;

	q->method = text_cut(&line, ' ');
	target = text_cut(&line, ' ');
	if (!is_token(q->method) || line.n != strlen("HTTP/1.1") ||
	    memcmp(line.p, "HTTP/", 5) != 0 || !isdigit((unsigned char)line.p[5]) ||
	    line.p[6] != '.' || !isdigit((unsigned char)line.p[7]))
		return 400;
	if (line.p[5] != '1')
		return 505;
	q->old = line.p[7] == '0';
	if (!text_equals(q->method, "GET") && !text_equals(q->method, "HEAD"))
		return 501;
	return parse_target(q, target);
}

static int parse_head(struct request *q, struct text head)
{
	for (bool first = true; head.n > 0; first = false) {
		struct text line = text_cut(&head, '\n');
		int status;

		if (line.n > 0 && line.p[line.n - 1] == '\r')
			line.n--;
		if (line.n == 0)
			break;
		status = first ? parse_line(q, line) : parse_header(q, line);
		if (status)
			return status;
	}
	return q->hosts == 1 || (q->old && q->hosts == 0) ? 0 : 400;
}

/* ---- Answers ---- */

static const char *reason(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 408:
		return "Request Timeout";
	case 413:
		return "Content Too Large";
	case 414:
		return "URI Too Long";
	case 431:
		return "Request Header Fields Too Large";
	case 501:
		return "Not Implemented";
	default:
		return "HTTP Version Not Supported";
	}
}

/* Appends an answer to `out`, where there is room for it. */
static void answer(struct http *h, int status, const struct request *q)
{
	const char *persistence = "";
	bool head = q->method.n > 0 && text_equals(q->method, "HEAD");
	char body[128], date[64];
	time_t seconds = time(NULL);
	struct tm tm;
	int n;

	h->answered++;
	if (status != 200)
		(void)snprintf(body, sizeof(body), "%d %s\n", status, reason(status));
	else if (text_equals(q->path, "/"))
		(void)snprintf(body, sizeof(body),
			       "request %u of this connection, answered by process %d\n",
			       h->answered, (int)getpid());
	else
		(void)strcpy(body, "hello\n");
	h->draining = status != 200 && status != 404;
	h->closing = h->draining || q->close || (q->old && !q->keep_alive);
	if (h->closing)
		persistence = "Connection: close\r\n";
	else if (q->old)
		persistence = "Connection: keep-alive\r\n";
	(void)strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&seconds, &tm));
	n = snprintf(h->out + h->n_out, sizeof(h->out) - h->n_out,
		     "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: text/plain\r\n"
		     "Content-Length: %zu\r\n%s\r\n%s",
		     status, reason(status), date, strlen(body), persistence, head ? "" : body);
	h->n_out += (size_t)n;
}

/* How long the head is, with the empty line at its end; 0: it is not all there. */
static size_t head_length(struct text t)
{
	size_t all = t.n;

	while (memchr(t.p, '\n', t.n)) {
		(void)text_cut(&t, '\n');
		if (t.n >= 1 && t.p[0] == '\n')
			return all - t.n + 1;
		if (t.n >= 2 && t.p[0] == '\r' && t.p[1] == '\n')
			return all - t.n + 2;
	}
	return 0;
}

/* Answers one request, if a whole one was read. */
static bool answer_next(struct http *h)
{
	struct request q = {0};
	struct text head;
	int status;

	/* some clients send an empty line after a request */
	while (h->start < h->end && (h->in[h->start] == '\r' || h->in[h->start] == '\n'))
		h->start++;
	head = (struct text){h->in + h->start, h->end - h->start};
	head.n = head_length(head);
	if (head.n > 0) {
		status = parse_head(&q, head);
		if (!status)
			status = text_equals(q.path, "/") || text_equals(q.path, "/hello") ? 200
											   : 404;
	} else if (h->start == 0 && h->end == sizeof(h->in)) {
		status = memchr(h->in, '\n', h->end) ? 431 : 414;
	} else {
		return false;
	}
	answer(h, status, &q);
	h->start += head.n;
	return true;
}

/* ---- Bytes ---- */

/* What is there, at once and once. False: the connection is at its end. */
static bool fill(struct http *h, int fd)
{
	ssize_t n;

	if (h->draining) {
		h->start = h->end = 0;
	} else if (h->start > 0) {
		memmove(h->in, h->in + h->start, h->end - h->start);
		h->end -= h->start;
		h->start = 0;
	}
	do
		n = recv(fd, h->in + h->end, sizeof(h->in) - h->end, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		h->end += (size_t)n;
	return n > 0 || (n < 0 && errno == EAGAIN);
}

/* False: not all of it went out, for now (EAGAIN) or for ever. */
static bool flush(struct http *h, int fd)
{
	while (h->sent < h->n_out) {
		ssize_t n = send(fd, h->out + h->sent, h->n_out - h->sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		h->sent += (size_t)n;
	}
	h->sent = h->n_out = 0;
	return true;
}

void http_begin(struct http *h, uint32_t answered)
{
	h->answered = answered;
	h->closing = h->draining = 0;
	h->start = h->end = h->sent = h->n_out = 0;
}

enum http_state http_serve(struct http *h, int fd)
{
	/* with answers in memory it was the peer's turn to read, not to write */
	if (h->n_out == 0 && !fill(h, fd))
		return HTTP_END;
	if (h->closing && h->n_out == 0)
		return HTTP_HALF;
	for (;;) {
		bool whole = true;

		while (!h->closing && h->n_out + ANSWER_MAX <= sizeof(h->out) && whole)
			whole = answer_next(h);
		if (!flush(h, fd))
			return errno == EAGAIN ? HTTP_FULL : HTTP_END;
		if (h->closing) {
			(void)shutdown(fd, SHUT_WR);
			return h->draining ? HTTP_HALF : HTTP_END;
		}
		if (!whole)
			return h->start < h->end ? HTTP_HALF : HTTP_IDLE;
	}
}

void http_give_up(struct http *h, int fd)
{
	const struct request none = {0};

	if (h->closing || h->n_out > 0)
		return;
	answer(h, 408, &none);
	(void)flush(h, fd);
	(void)shutdown(fd, SHUT_WR);
}
