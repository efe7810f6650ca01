/* SPDX-License-Identifier: MIT */
#include "progress.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * Falling asleep is the old game of two flags: the watcher writes `asleep` and then reads
 * `busy_since`, the loop writes `busy_since` and then reads `asleep`. Both in sequentially
 * consistent order, so at least one of them sees the other: the watcher stays awake, or the loop
 * writes to the eventfd. If both do, the watcher is woken once for nothing. Who takes the flag back
 * does so by an exchange, so that the loop writes at most once for each time that the watcher fell
 * asleep.
 *
 * All of it lies in memory that the loop can scribble on when it goes wrong. So the watcher takes
 * nothing from here but numbers that it compares and shows.
 */

void progress_busy(const struct progress *p, int64_t now)
{
	const uint64_t one = 1;

	if (!p->page)
		return;
	atomic_store(&p->page->busy_since, now);
	if (atomic_load(&p->page->asleep) && atomic_exchange(&p->page->asleep, 0))
		(void)!write(p->wake, &one, sizeof(one));
}

int progress_page_new(int64_t now, struct progress_page **ret)
{
	struct progress_page *page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE,
					  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -ENOMEM;
	atomic_store(&page->busy_since, now);
	*ret = page;
	return 0;
}

struct progress_page *progress_page_free(struct progress_page *page)
{
	if (page)
		(void)munmap(page, sizeof(*page));
	return NULL;
}

bool progress_fall_asleep(struct progress_page *page)
{
	atomic_store(&page->asleep, 1);
	if (atomic_load(&page->busy_since) == 0)
		return true;
	(void)atomic_exchange(&page->asleep, 0);
	return false;
}

int64_t progress_busy_since(const struct progress_page *page)
{
	return atomic_load_explicit(&page->busy_since, memory_order_acquire);
}

uint64_t progress_turns(const struct progress_page *page)
{
	return atomic_load_explicit(&page->turns, memory_order_relaxed);
}

void progress_get_step(const struct progress_page *page, struct progress_step *ret)
{
	uint32_t kind = atomic_load_explicit(&page->kind, memory_order_acquire);

	*ret = (struct progress_step){
		.kind = kind < PROGRESS_MAX ? (enum progress_kind)kind : PROGRESS_NONE,
		.uid = atomic_load_explicit(&page->uid, memory_order_relaxed),
		.pid = atomic_load_explicit(&page->pid, memory_order_relaxed),
		.object = atomic_load_explicit(&page->object, memory_order_relaxed),
	};
}

void progress_get_counts(const struct progress_page *page, struct progress_counts *ret)
{
	*ret = (struct progress_counts){
		.connections = atomic_load_explicit(&page->connections, memory_order_relaxed),
		.watches = atomic_load_explicit(&page->watches, memory_order_relaxed),
		.waiting = atomic_load_explicit(&page->waiting, memory_order_relaxed),
		.timers = atomic_load_explicit(&page->timers, memory_order_relaxed),
	};
}
