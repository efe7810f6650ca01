/* SPDX-License-Identifier: MIT */
#ifndef READYD_RESULT_H
#define READYD_RESULT_H

/* What becomes of a request: failures of its records, and its answer. */

#include "connection.h"

/* A request while it is applied. */
struct request {
	struct connection *c;
	const struct wire_view *view;
	unsigned index;        /* of the record */
	uint32_t failed;       /* refused so far */
	enum wire_error first; /* refusal */
	uint64_t value;        /* of the answer */
};

/* What makes a record fail. */
struct refusal {
	enum wire_error error;
	uint32_t id;
	uint32_t gen;
	uint8_t direction;
	uint16_t detail;
	uint64_t value;
};

/* Adds a FAILURE for the current record. */
void result_refuse(struct request *q, const struct refusal *why);

/* The same for what a call on the core returned: a negative errno, or the error check's code; 0 is
 * no refusal. `directions`: what the record asked for. */
void result_refuse_code(struct request *q, uint32_t id, uint32_t gen, unsigned directions, int r);

/* The same for a call that charges this quota. */
void result_refuse_quota(struct request *q, uint32_t id, uint32_t gen, int r, enum quota_kind kind);

/* Adds the ANSWER. */
void result_answer(struct request *q);

/* The wire's error number for a negative errno of the core. */
enum wire_error result_error_of(int r);

/* The same for what the poller said when it was to watch something. */
enum wire_error result_error_of_registration(int r);

/* A core entry as a record of READY. */
void result_encode_entry(const struct core_entry *entry, struct wire_entry *ret);

#endif
