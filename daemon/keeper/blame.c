/* SPDX-License-Identifier: MIT */
#include "blame.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>

/*
 * The step is what the dead loop had written into its page, which whatever made it crash may have
 * damaged too: so one death is chance, and two deaths that say the same are not. The object does
 * not count: a client that connects again has a new session.
 *
 * A process that is gone when its start time is asked for has none (0), which then equals any.
 */

bool blame_counts(int signal)
{
	switch (signal) {
	case SIGSEGV:
	case SIGBUS:
	case SIGILL:
	case SIGFPE:
	case SIGABRT:
		return true;
	default:
		return false;
	}
}

const char *blame_step_text(enum progress_kind kind)
{
	static const char *const texts[] = {
		[PROGRESS_ACCEPT] = "it let in",
		[PROGRESS_REQUEST] = "it applied a request of",
		[PROGRESS_EVENTS] = "it applied events of",
		[PROGRESS_SEND] = "it sent to",
		[PROGRESS_END] = "it ended the connection of",
		[PROGRESS_PARK] = "it looked at a park of",
		[PROGRESS_HOLDER] = "it listened to the holder of",
	};

	return (size_t)kind < sizeof(texts) / sizeof(texts[0]) ? texts[kind] : NULL;
}

static bool is_same(const struct blame *b, const struct progress_step *step, uint64_t start)
{
	return b->suspects && b->step.kind == step->kind && b->step.uid == step->uid &&
	       b->step.pid == step->pid && (b->start == start || b->start == 0 || start == 0);
}

static void keep_out(struct blame *b, const struct progress_step *step, uint64_t start, int64_t now)
{
	struct kept_out_list *list = &b->kept_out;

	if (list->n == KEPT_OUT_MAX) {
		list->n--;
		memmove(&list->items[0], &list->items[1], list->n * sizeof(list->items[0]));
	}
	list->items[list->n++] = (struct kept_out){
		.uid = step->uid,
		.pid = step->pid,
		.start = start,
		.until = now + BLAME_TIME,
	};
}

bool blame_death(struct blame *b, const struct progress_step *step, uint64_t start, int64_t now)
{
	bool again = is_same(b, step, start);

	/* pid 0 is somebody in another pid namespace, or nobody */
	b->suspects = !again && step->kind != PROGRESS_NONE && step->pid > 0;
	b->step = *step;
	b->start = start;
	if (again)
		keep_out(b, step, start, now);
	return again;
}

void blame_expire(struct blame *b, int64_t now)
{
	struct kept_out_list *list = &b->kept_out;
	unsigned n = 0;

	for (unsigned i = 0; i < list->n; i++)
		if (list->items[i].until > now)
			list->items[n++] = list->items[i];
	list->n = n;
}
