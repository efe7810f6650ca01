/* SPDX-License-Identifier: MIT */
#ifndef READYCTL_LISTING_H
#define READYCTL_LISTING_H

/* What the verbs share that ask the daemon for a list, and print one table. */

#include "output.h"

/* While it is printed. */
struct listing {
	const struct ctl *ctl;
	struct output *o;
	struct readyd_list *rows;
	struct text_processes names;
	uint64_t n; /* rows so far; the verb counts, if it needs to */
};

struct listing_kind {
	const char *name; /* of the array in the JSON document */
	const struct output_field *fields;
	size_t n_fields;
	int (*ask)(struct readyd *r, const struct readyd_filter *f, struct readyd_list **ret);
	/* Takes the next row and prints it, if it is wanted. As readyd_next_...() */
	int (*next)(struct listing *l);
};

/* All of it: connects, asks, prints. Returns the exit status. */
int listing_print(const struct ctl *ctl, const struct listing_kind *kind);

#endif
