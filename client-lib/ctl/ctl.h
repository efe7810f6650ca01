/* SPDX-License-Identifier: MIT */
#ifndef READYCTL_CTL_H
#define READYCTL_CTL_H

/*
 * What the verbs of readyctl share: the options as parsed, the exit statuses, the way to a daemon
 * and the way to complain. A verb is one function in one file; it gets its arguments in struct ctl
 * and returns the exit status, after it has said on stderr what went wrong.
 */

#include "client-lib/readyd.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum ctl_status {
	CTL_DONE = 0,
	CTL_REFUSED = 1, /* or not found; `wait`: the time is over */
	CTL_USAGE = 2,
	CTL_NO_DAEMON = 3,
	CTL_FAILED = 4,
	/* take: as env(1) */
	CTL_NOT_RUN = 125,
	CTL_NOT_EXECUTABLE = 126,
	CTL_NOT_A_COMMAND = 127,
};

/* Options, as bits: which were given, and which a verb takes. */
enum ctl_option_bit {
	CTL_SOCKET = 0x001,
	CTL_PRIVATE = 0x002,
	CTL_JSON = 0x004,
	CTL_NO_LEGEND = 0x008,
	CTL_PID = 0x010,
	CTL_UID = 0x020,
	CTL_SESSION = 0x040,
	CTL_WAITING = 0x080,
	CTL_OVERDUE = 0x100,
	CTL_TIMEOUT = 0x200,
	CTL_ALL = 0x400,
	CTL_HELP = 0x800,
	CTL_VERSION = 0x1000,
	CTL_FD = 0x2000,
	CTL_NAME = 0x4000,
	CTL_GROUP = 0x8000,
	CTL_NOTE = 0x10000,
	CTL_DEADLINE = 0x20000,
	CTL_DURABLE = 0x40000,
	CTL_HOLD_ONLY = 0x80000,
	CTL_EACH = 0x100000,
	CTL_JOBS = 0x200000,
	CTL_ON_DEADLINE = 0x400000,
	CTL_LISTEN = 0x800000, /* --fd of take, without an argument */
};

struct ctl {
	unsigned given;      /* enum ctl_option_bit */
	unsigned takes;      /* the same: which options the verb takes */
	unsigned closed_std; /* bit n: fd n (0 to 2) was closed when readyctl started */
	const char *socket;
	struct readyd_filter filter;
	int64_t timeout;  /* ns; -1: none */
	int64_t deadline; /* ns from now */
	const char *name, *group, *note;
	int fd;           /* to park */
	unsigned jobs;    /* COMMANDs at once */
	bool hand;        /* at its deadline the park is handed out, not closed */
	bool resume;      /* a daemon that is restarted is waited for, 30 s at most */
	bool patient;     /* ... for ever */
	char **arguments; /* of the verb, without it */
	int n_arguments;
};

struct ctl_verb {
	const char *name;
	const char *arguments; /* for the usage line; "" for none */
	const char *summary;
	unsigned options; /* that it takes besides --help and --version */
	int least, most;  /* arguments; most -1: any number */
	int (*run)(const struct ctl *ctl);
};

/* All verbs in the order of --help; the last has no name. */
extern const struct ctl_verb ctl_verbs[];

int command_status(const struct ctl *ctl);
int command_sessions(const struct ctl *ctl);
int command_list(const struct ctl *ctl);
int command_timers(const struct ctl *ctl);
int command_quotas(const struct ctl *ctl);
int command_show(const struct ctl *ctl);
int command_wait(const struct ctl *ctl);
int command_break(const struct ctl *ctl);
int command_park(const struct ctl *ctl);
int command_take(const struct ctl *ctl);
int command_parked(const struct ctl *ctl);
int command_groups(const struct ctl *ctl);
int command_drop(const struct ctl *ctl);
int command_upgrade(const struct ctl *ctl);
int command_version(const struct ctl *ctl);
int command_help(const struct ctl *ctl);

/* main.c: the general help, or that of one verb. Returns the exit status. */
int ctl_print_help(const struct ctl_verb *verb);

/* connect.c */

/* Connects. CTL_DONE, or the exit status after one line on stderr. */
int ctl_connect(const struct ctl *ctl, struct readyd **ret);

/* Connects without a word. 0 or negative errno. */
int ctl_try_connect(const struct ctl *ctl, struct readyd **ret);

/* What names a park for take and drop: --name and --group, or else the first argument, its number.
 * *ret_used: whether that was used. CTL_DONE or CTL_USAGE. */
int ctl_park_key(const struct ctl *ctl, struct readyd_park_key *ret, bool *ret_used);

/* Says why a request failed, in the library's words, and returns the exit status for `error`
 * (negative errno). */
int ctl_request_failed(struct readyd *r, int error);

/* One line on stderr: "readyctl: " and the text, escaped. */
__attribute__((format(printf, 1, 2))) void ctl_complain(const char *format, ...);

/* CLOCK_MONOTONIC in ns, on which all times of the library are. */
int64_t ctl_now(void);

/* ns from `since` until now, never negative. */
int64_t ctl_age(int64_t since);

static inline void ctl_close_handle(struct readyd **r)
{
	readyd_close(*r);
}

static inline void ctl_free_list(struct readyd_list **l)
{
	readyd_list_free(*l);
}

static inline void ctl_free_string(char **s)
{
	free(*s);
}

#define ctl_handle __attribute__((cleanup(ctl_close_handle))) struct readyd
#define ctl_list_rows __attribute__((cleanup(ctl_free_list))) struct readyd_list
#define ctl_string __attribute__((cleanup(ctl_free_string))) char

#endif
