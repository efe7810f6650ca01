/* SPDX-License-Identifier: MIT */
#ifndef READYCTL_WATCH_ROW_H
#define READYCTL_WATCH_ROW_H

/* A watch as `list` prints it, one row; `show --json` prints the same keys. */

#include "output.h"

extern const struct output_field watch_row_fields[];
extern const size_t watch_row_n_fields;

enum watch_deadline {
	WATCH_DEADLINE_NONE,
	WATCH_DEADLINE_PENDING,
	WATCH_DEADLINE_OVERDUE, /* its time came, and the timeout is not sent */
	WATCH_DEADLINE_EXPIRED, /* and nothing is owed; waits time out until a new one is set */
};

/* Static words: "idle" ..., "r", "none" ... */
const char *watch_slot_word(const struct readyd_slot_info *slot);
const char *watch_interest_word(unsigned interest);
const char *watch_mode_word(unsigned mode);

/* Codes as words with commas between. */
void watch_codes(unsigned codes, char ret[64]);

/* *ret_left: ns until then, negative afterwards; 0 where that is not known. */
enum watch_deadline watch_slot_deadline(const struct readyd_slot_info *slot, int64_t now,
					int64_t *ret_left);

/* The more urgent of both slots. */
enum watch_deadline watch_deadline(const struct readyd_watch_info *w, int64_t now,
				   int64_t *ret_left);

/* "2s", "overdue 3s", "expired", "-". */
void watch_deadline_text(enum watch_deadline deadline, int64_t left, char ret[TEXT_SPAN_MAX]);

void watch_row_print(struct output *o, struct text_processes *names,
		     const struct readyd_watch_info *w);

#endif
