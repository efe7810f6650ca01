/* SPDX-License-Identifier: MIT */
#ifndef READYD_SETTINGS_H
#define READYD_SETTINGS_H

/* The configuration as a text and as what it means, and where what is wrong with it is told. */

#include <stddef.h>

#include "config/config.h"
#include "daemon/edge/log.h"
#include "options.h"

struct settings {
	struct config config; /* resolved */
	char *text;           /* of the file; NULL: there is none, all is default */
	size_t size;
};

/*
 * Reads the file that the options name, or the default one, which may be missing. Faults go to the
 * log, or, where `log` is NULL, to stderr, of which nothing may be lost; the first comes back in
 * *ret_first (if not NULL), for whoever started us; the caller frees it. Negative errno, and *ret
 * is untouched. The landing zone must be plugged: libraries that look up users may open what stays
 * open.
 */
int settings_load(const struct options *options, struct log *log, struct settings *ret,
		  char **ret_first);

/* The same with a text that was read before; `text` is taken over, also on failure. */
int settings_parse(const struct options *options, char *text, size_t size, struct log *log,
		   struct settings *ret);

void settings_clear(struct settings *s);

/* The command line beats the file. */
void settings_apply_level(const struct options *options, const struct config *config,
			  struct log *log);

#endif
