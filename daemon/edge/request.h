/* SPDX-License-Identifier: MIT */
#ifndef READYD_REQUEST_H
#define READYD_REQUEST_H

#include "connection.h"

/*
 * Applies one datagram that wire_check_datagram() passed: each request in order, each record in
 * order, each with its own result. The fds are in the server's landing and are all closed when
 * this returns, before anything is sent (H11).
 */
void request_apply(struct connection *c, const uint8_t *datagram, size_t size);

/* inspect.c: replies to GET_STATUS and LIST_*. */
void inspect_status(struct connection *c, const struct wire_view *request);
void inspect_parks(struct connection *c, const struct wire_view *request);
void inspect_list(struct connection *c, const struct wire_view *request);

#endif
