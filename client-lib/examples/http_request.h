/* SPDX-License-Identifier: MIT */
#ifndef EXAMPLE_HTTP_REQUEST_H
#define EXAMPLE_HTTP_REQUEST_H

/*
 * The part of the HTTP server that knows HTTP, and nothing of who waits for what: it reads and writes
 * a connection without ever blocking, and says how the connection stands afterwards. All three
 * servers in http.c are made with it.
 */

#include <stddef.h>
#include <stdint.h>

enum { HTTP_HEAD_MAX = 8192, HTTP_OUT_MAX = 4096 };

/* A connection while something of it is in memory. `answered` is all that has to be remembered of one
 * that is idle. */
struct http {
	uint32_t answered;      /* requests so far */
	uint8_t closing;        /* an answer was the last one: nothing is read any more */
	uint8_t draining;       /* what comes is thrown away, until the end */
	size_t start, end;      /* of the bytes in `in` that were read and not answered */
	size_t sent, n_out;     /* of the answers in `out` */
	char in[HTTP_HEAD_MAX]; /* a request's line and headers fit, or are refused */
	char out[HTTP_OUT_MAX];
};

enum http_state {
	HTTP_IDLE, /* no byte of it is in memory: whoever has `answered` can go on with it */
	HTTP_HALF, /* a request was read in part: wait until it is readable, and serve it again */
	HTTP_FULL, /* the peer does not take its answers: wait until it is writable, and serve again */
	HTTP_END, /* close it */
};

/* A connection that is idle and had `answered` requests. The buffers are not touched. */
void http_begin(struct http *h, uint32_t answered);

/* Reads once, and answers all whole requests that are there. `fd` is non-blocking. */
enum http_state http_serve(struct http *h, int fd);

/* It was HTTP_HALF or HTTP_FULL for too long: says so to the peer, if it can. Then close it. */
void http_give_up(struct http *h, int fd);

#endif
