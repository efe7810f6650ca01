/* SPDX-License-Identifier: MIT */
#ifndef READYD_OPTIONS_H
#define READYD_OPTIONS_H

/* The command line of readyd. Strings point into argv. Nothing is opened or looked up here. */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "config/config.h"
#include "systemd/store.h"

#define OPTIONS_CONFIG_DEFAULT "/etc/readyd/readyd.yaml"

struct options {
	const char *config; /* the file to read; NULL: the default one, which may be missing */
	bool check_upgrade; /* say whether this program can take over from the running one, and end */
	bool check;         /* say what is wrong with the file, and end */
	const char *socket; /* absolute path; NULL: not given */
	bool private_;      /* an abstract address, for this uid, until the starter has ended */
	int ready_fd;       /* -1: not given */
	bool no_keeper;     /* the loop alone */
	bool log_level_set;
	enum config_log_level log_level;
	int passed_socket; /* not of the command line: a listening fd of systemd's; -1: none */
	struct store_entry *depots; /* nor these: what its fd store gave back */
	size_t n_depots;
	bool help, version; /* print and end; whatever followed was not looked at */
};

/*
 * 0, or -EINVAL: `error` has one line that says what is wrong, *ret is untouched. getopt_long(3)
 * may put the words of argv into another order. Not thread-safe, as getopt's state is global.
 */
int options_parse(int argc, char *argv[], struct options *ret, char *error, size_t error_size);

void options_print_help(FILE *file);
void options_print_version(FILE *file);

#endif
