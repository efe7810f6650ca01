/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/*
 * wait: poll(2) for shells, with the daemon as the one who watches.
 *
 * Two questions are kept apart: when to look, and what is ready. The second is always answered by
 * poll(2) with no time at the fds themselves, so the result is the same with and without a daemon
 * and a spurious wake is never printed. The first is the daemon's, where one answers: each fd is a
 * watch with a wait for each direction asked. Fds that it cannot take, and all of them when there
 * is no daemon or it goes away, are polled here, in the same ppoll() as the library's fd.
 *
 * An item goes round: not ready -> armed (a wait is outstanding, or it is in the poll set) -> an
 * event or poll's word -> looked at. One that was found ready while others are not (--all) is
 * neither armed nor polled, else the loop would spin; the final look tells if it still is.
 *
 * Edges: the wait is set before the fds are looked at again, so what comes between is latched
 * there and wakes at once.
 *
 * A regular file is always ready, as poll(2) says. Hang-up and error count for whatever was asked,
 * as in Go. Nothing is asked of a daemon when the first look is enough.
 */

#define NSEC_PER_SEC INT64_C(1000000000)

struct item {
	int fd;
	unsigned interest, ready; /* READYD_READ, READYD_WRITE */
	readyd_id watch;          /* 0: polled here */
	unsigned armed;
};

struct waiter {
	const struct ctl *ctl;
	struct item *items;
	size_t n;
	struct pollfd *polls; /* n + 1 */
	struct readyd *r;     /* NULL: no daemon */
	int64_t end;          /* ns; -1 never */
};

static int parse_item(const struct ctl *ctl, const char *text, struct item *ret)
{
	static const struct {
		const char *word;
		unsigned interest;
	} words[] = {
		{"", READYD_READ},
		{":r", READYD_READ},
		{":w", READYD_WRITE},
		{":rw", READYD_READ | READYD_WRITE},
	};
	const char *colon = strchrnul(text, ':');
	char number[16];
	uint64_t fd;

	snprintf(number, sizeof(number), "%.*s", (int)(colon - text), text);
	if (colon - text >= (ptrdiff_t)sizeof(number) ||
	    text_parse_number(number, INT32_MAX, &fd) < 0) {
		ctl_complain("'%s' is no fd; write FD, FD:r, FD:w or FD:rw", text);
		return CTL_USAGE;
	}
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(colon, words[i].word))
			ret->interest = words[i].interest;
	if (!ret->interest) {
		ctl_complain("'%s': directions are r, w and rw", text);
		return CTL_USAGE;
	}
	ret->fd = (int)fd;
	if (fcntl(ret->fd, F_GETFD) < 0 || (fd < 3 && ctl->closed_std & 1u << fd)) {
		ctl_complain("fd %d is not open; redirect it, as in 'readyctl wait %d:r %d<FILE'",
			     ret->fd, ret->fd, ret->fd);
		return CTL_USAGE;
	}
	return CTL_DONE;
}

/* An fd that is named twice is one item. */
static int parse_items(struct waiter *w)
{
	for (int i = 0; i < w->ctl->n_arguments; i++) {
		struct item item = {0};
		size_t k = 0;
		int status;

		status = parse_item(w->ctl, w->ctl->arguments[i], &item);
		if (status)
			return status;
		while (k < w->n && w->items[k].fd != item.fd)
			k++;
		if (k == w->n)
			w->items[w->n++] = item;
		else
			w->items[k].interest |= item.interest;
	}
	return CTL_DONE;
}

static short poll_events(unsigned interest)
{
	return (short)((interest & READYD_READ ? POLLIN | POLLRDHUP : 0) |
		       (interest & READYD_WRITE ? POLLOUT : 0));
}

static bool is_satisfied(const struct waiter *w)
{
	size_t ready = 0;

	for (size_t i = 0; i < w->n; i++)
		ready += w->items[i].ready != 0;
	return w->ctl->given & CTL_ALL ? ready == w->n : ready > 0;
}

/* What is ready now, by poll(2). */
static int look(struct waiter *w)
{
	for (size_t i = 0; i < w->n; i++)
		w->polls[i] = (struct pollfd){
			.fd = w->items[i].fd,
			.events = poll_events(w->items[i].interest),
		};
	while (poll(w->polls, w->n, 0) < 0) {
		if (errno == EINTR)
			continue;
		ctl_complain("could not poll: %s", strerror(errno));
		return CTL_FAILED;
	}
	for (size_t i = 0; i < w->n; i++) {
		short events = w->polls[i].revents;
		unsigned ready = 0;

		if (events & (POLLIN | POLLRDHUP | POLLHUP | POLLERR))
			ready |= READYD_READ;
		if (events & (POLLOUT | POLLHUP | POLLERR))
			ready |= READYD_WRITE;
		w->items[i].ready = ready & w->items[i].interest;
	}
	return CTL_DONE;
}

/* The daemon has gone, or never was: everything is polled here. */
static void go_alone(struct waiter *w)
{
	w->r = readyd_close(w->r);
	for (size_t i = 0; i < w->n; i++)
		w->items[i].watch = 0;
}

static void enlist(struct waiter *w)
{
	if (ctl_try_connect(w->ctl, &w->r) < 0) {
		w->r = NULL;
		return;
	}
	for (size_t i = 0; i < w->n; i++) {
		struct item *item = &w->items[i];
		int error;

		error = readyd_watch(w->r, item->fd, item->interest, READYD_WAIT, i, &item->watch);
		if (error == -ENOTCONN) {
			go_alone(w);
			return;
		}
		if (error < 0)
			item->watch = 0;
	}
}

/* Sets the waits that are missing. True: something changed, so the fds must be looked at again. */
static bool arm(struct waiter *w)
{
	bool changed = false;

	for (size_t i = 0; w->r && i < w->n; i++) {
		struct item *item = &w->items[i];
		unsigned missing = item->interest & ~item->armed;
		int error;

		if (!item->watch || item->ready || !missing)
			continue;
		changed = true;
		error = readyd_wait(w->r, item->watch, missing);
		if (error == -ENOTCONN)
			go_alone(w);
		else if (error < 0)
			item->watch = 0;
		else
			item->armed |= missing;
	}
	return changed;
}

/* Takes the daemon's events: each ends the waits that it names. False: the daemon has gone. */
static bool take_events(struct waiter *w)
{
	struct readyd_event events[64];
	int n;

	while ((n = readyd_poll(w->r, events, 64, 0)) > 0)
		for (int i = 0; i < n; i++) {
			struct item *item;

			if (events[i].kind != READYD_EVENT_WATCH || events[i].cookie >= w->n)
				continue;
			item = &w->items[events[i].cookie];
			if (events[i].read)
				item->armed &= ~READYD_READ;
			if (events[i].write)
				item->armed &= ~READYD_WRITE;
			/* Anything but ready is no wait that will end: poll it here. */
			if ((events[i].read | events[i].write) & ~READYD_READY)
				item->watch = 0;
		}
	return n == 0;
}

/* Sleeps until something may have changed. *ret_over: the time is. */
static int sleep_once(struct waiter *w, bool *ret_over)
{
	struct timespec left;
	size_t n = 0;
	int found;

	if (w->r)
		w->polls[n++] = (struct pollfd){.fd = readyd_fd(w->r), .events = POLLIN};
	for (size_t i = 0; i < w->n; i++)
		if (!w->items[i].watch && !w->items[i].ready)
			w->polls[n++] = (struct pollfd){
				.fd = w->items[i].fd,
				.events = poll_events(w->items[i].interest),
			};
	if (w->end >= 0) {
		int64_t ns = w->end - ctl_now();

		if (ns <= 0) {
			*ret_over = true;
			return CTL_DONE;
		}
		left.tv_sec = ns / NSEC_PER_SEC;
		left.tv_nsec = ns % NSEC_PER_SEC;
	}
	found = ppoll(w->polls, n, w->end >= 0 ? &left : NULL, NULL);
	if (found < 0 && errno != EINTR) {
		ctl_complain("could not poll: %s", strerror(errno));
		return CTL_FAILED;
	}
	if (w->r && found > 0 && w->polls[0].revents && !take_events(w))
		go_alone(w);
	return CTL_DONE;
}

static int wait_until_ready(struct waiter *w)
{
	bool over = w->ctl->timeout == 0;
	int status;

	status = look(w);
	if (status || is_satisfied(w) || over)
		return status;
	enlist(w);
	while (!over) {
		if (!arm(w)) {
			status = sleep_once(w, &over);
			if (status)
				return status;
		}
		status = look(w);
		if (status || is_satisfied(w))
			return status;
	}
	return CTL_DONE;
}

static int print_ready(const struct waiter *w)
{
	static const struct output_field fields[] = {
		{NULL, "fd", 0},
		{NULL, "read", 0},
		{NULL, "write", 0},
	};
	bool json = w->ctl->given & CTL_JSON;
	output_auto *o = NULL;
	struct output_page page;

	if (json) {
		o = output_new_table(w->ctl, "ready", fields, sizeof(fields) / sizeof(fields[0]));
		if (!o)
			return CTL_FAILED;
	} else if (!output_page_open(&page)) {
		return CTL_FAILED;
	}
	for (size_t i = 0; i < w->n; i++) {
		const struct item *item = &w->items[i];

		if (!item->ready)
			continue;
		if (json) {
			output_row(o, i, 0);
			output_number(o, "fd", (uint64_t)item->fd);
			output_bool(o, "read", item->ready & READYD_READ);
			output_bool(o, "write", item->ready & READYD_WRITE);
		} else {
			fprintf(page.file, "%d%s%s\n", item->fd,
				item->ready & READYD_READ ? " read" : "",
				item->ready & READYD_WRITE ? " write" : "");
		}
	}
	return json ? output_finish(o) : output_page_finish(&page);
}

static int run(struct waiter *w)
{
	int status, printed;

	status = parse_items(w);
	if (!status)
		status = wait_until_ready(w);
	if (status)
		return status;
	status = is_satisfied(w) ? CTL_DONE : CTL_REFUSED;
	/* --all and time over: some may be ready, but not what was asked for. */
	if (status == CTL_REFUSED)
		for (size_t i = 0; i < w->n; i++)
			w->items[i].ready = 0;
	if (status == CTL_REFUSED && !(w->ctl->given & CTL_JSON))
		return status;
	printed = print_ready(w);
	return printed ? printed : status;
}

int command_wait(const struct ctl *ctl)
{
	struct waiter w = {.ctl = ctl, .end = -1};
	size_t n = (size_t)ctl->n_arguments;
	int64_t end;
	int status = CTL_FAILED;

	if (ctl->timeout >= 0 && !__builtin_add_overflow(ctl_now(), ctl->timeout, &end))
		w.end = end;
	w.items = calloc(n, sizeof(*w.items));
	w.polls = calloc(n + 1, sizeof(*w.polls));
	if (w.items && w.polls)
		status = run(&w);
	else
		ctl_complain("out of memory");
	readyd_close(w.r);
	free(w.items);
	free(w.polls);
	return status;
}
