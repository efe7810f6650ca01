/* SPDX-License-Identifier: MIT */
#include "ledger.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"
#include "holders.h"
#include "systemd/store.h"

/*
 * Two tables of 64-bit words, each word changed by one atomic operation: a process that is killed
 * leaves no half of anything, and no lock. A word is a uid and a number that is never zero; a word
 * of zero is free. Offices are the keeper's to change, entries everybody's.
 *
 * Serials are drawn from one counter that goes on behind what came back; so a name is never used
 * again while its entry is there. Terms are of one counter, too: nobody comes into office again.
 *
 * The page is a file without a name, so that it can go along in an upgrade, whose other memory does
 * not; holders have it by fork.
 */

#define MAGIC UINT32_C(0x52594c31) /* of this layout */

struct page {
	uint32_t magic;
	uint32_t max;
	_Atomic uint32_t serial; /* the last one */
	_Atomic uint32_t term;   /* the same */
	_Atomic uint64_t entries[STORE_MAX];
	_Atomic uint64_t offices[HOLDERS_MAX];
};

struct ledger {
	struct page *page;
	int fd;
};

static uint64_t word_of(uint32_t uid, uint32_t number)
{
	return (uint64_t)uid << 32 | number;
}

int ledger_open(int fd, struct ledger **ret)
{
	struct ledger *l;
	struct stat st;
	void *page;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size != sizeof(struct page))
		return -EINVAL;
	page = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	l = malloc(sizeof(*l));
	if (!l || ((struct page *)page)->magic != MAGIC) {
		(void)munmap(page, sizeof(struct page));
		free(l);
		return l ? -EINVAL : -ENOMEM;
	}
	*l = (struct ledger){page, fd};
	*ret = l;
	return 0;
}

int ledger_new(unsigned max, struct ledger **ret)
{
	const uint32_t begin[] = {MAGIC, max < STORE_MAX ? max : STORE_MAX};
	CLEANUP_FD int fd = memfd_create("readyd-ledger", MFD_CLOEXEC);
	int r;

	fd = fd < 0 ? -errno : fd_move_up(fd);
	if (fd < 0)
		return fd;
	if (ftruncate(fd, sizeof(struct page)) < 0)
		return -errno;
	if (pwrite(fd, begin, sizeof(begin), 0) != (ssize_t)sizeof(begin))
		return -EIO;
	r = ledger_open(fd, ret);
	if (r == 0)
		(void)steal_fd(&fd);
	return r;
}

int ledger_fd(const struct ledger *l)
{
	return l->fd;
}

struct ledger *ledger_free(struct ledger *l)
{
	if (!l)
		return NULL;
	(void)munmap(l->page, sizeof(*l->page));
	(void)close(l->fd);
	free(l);
	return NULL;
}

unsigned ledger_max(const struct ledger *l)
{
	return l->page->max < STORE_MAX ? l->page->max : STORE_MAX;
}

/* ---- Offices ---- */

/* Where it stands, or where there is room; NULL: there is none. */
static _Atomic uint64_t *find_office(struct ledger *l, uint32_t uid)
{
	_Atomic uint64_t *room = NULL;

	for (size_t i = 0; i < HOLDERS_MAX; i++) {
		uint64_t word = atomic_load(&l->page->offices[i]);

		if (word != 0 && word >> 32 == uid)
			return &l->page->offices[i];
		if (word == 0 && !room)
			room = &l->page->offices[i];
	}
	return room;
}

uint32_t ledger_appoint(struct ledger *l, uint32_t uid)
{
	_Atomic uint64_t *office = find_office(l, uid);
	uint32_t term = atomic_fetch_add(&l->page->term, 1) + 1;

	if (!office)
		return 0;
	if (term == 0)
		term = atomic_fetch_add(&l->page->term, 1) + 1;
	atomic_store(office, word_of(uid, term));
	return term;
}

void ledger_dismiss(struct ledger *l, uint32_t uid)
{
	_Atomic uint64_t *office = find_office(l, uid);

	if (office)
		atomic_store(office, 0);
}

bool ledger_in_office(const struct ledger *l, uint32_t uid, uint32_t term)
{
	for (size_t i = 0; i < HOLDERS_MAX && term != 0; i++)
		if (atomic_load(&l->page->offices[i]) == word_of(uid, term))
			return true;
	return false;
}

bool ledger_is_succeeded(const struct ledger *l, uint32_t uid, uint32_t term)
{
	for (size_t i = 0; i < HOLDERS_MAX; i++) {
		uint64_t word = atomic_load(&l->page->offices[i]);

		if (word != 0 && word >> 32 == uid && word != word_of(uid, term))
			return true;
	}
	return false;
}

/* ---- Entries ---- */

static bool has(const struct ledger *l, uint64_t word)
{
	for (size_t i = 0; i < STORE_MAX; i++)
		if (atomic_load(&l->page->entries[i]) == word)
			return true;
	return false;
}

static int enter(struct ledger *l, size_t n, uint64_t word)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t empty = 0;

		if (atomic_compare_exchange_strong(&l->page->entries[i], &empty, word))
			return 0;
	}
	return -ENOSPC;
}

int ledger_adopt(struct ledger *l, uint32_t uid, uint32_t serial)
{
	if (has(l, word_of(uid, serial)))
		return -EEXIST;
	if (serial > atomic_load(&l->page->serial))
		atomic_store(&l->page->serial, serial);
	return enter(l, STORE_MAX, word_of(uid, serial));
}

unsigned ledger_room(const struct ledger *l)
{
	unsigned max = ledger_max(l), used = 0;

	for (size_t i = 0; i < STORE_MAX; i++)
		used += atomic_load(&l->page->entries[i]) != 0;
	return used < max ? max - used : 0;
}

int ledger_claim(struct ledger *l, uint32_t uid, uint32_t *ret_serial)
{
	uint32_t serial;
	int r;

	do
		serial = atomic_fetch_add(&l->page->serial, 1) + 1;
	while (serial == 0 || has(l, word_of(uid, serial)));
	r = enter(l, ledger_max(l), word_of(uid, serial));
	if (r == 0)
		*ret_serial = serial;
	return r;
}

void ledger_release(struct ledger *l, uint32_t uid, uint32_t serial)
{
	for (size_t i = 0; i < STORE_MAX; i++) {
		uint64_t word = word_of(uid, serial);

		if (atomic_compare_exchange_strong(&l->page->entries[i], &word, 0))
			return;
	}
}

bool ledger_next(const struct ledger *l, uint32_t uid, size_t *cursor, uint32_t *ret_serial)
{
	while (*cursor < STORE_MAX) {
		uint64_t word = atomic_load(&l->page->entries[(*cursor)++]);

		if (word != 0 && word >> 32 == uid) {
			*ret_serial = (uint32_t)word;
			return true;
		}
	}
	return false;
}
