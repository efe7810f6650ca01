/* SPDX-License-Identifier: MIT */
#include "ledger.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "holders.h"
#include "systemd/store.h"

/*
 * Two tables of 64-bit words, each word changed by one atomic operation: a process that is killed
 * leaves no half of anything, and no lock. A word is a uid and a number that is never zero; a word
 * of zero is free. Offices are the keeper's to change, entries everybody's.
 *
 * Serials are drawn from one counter that goes on behind what came back; so a name is never used
 * again while its entry is there.
 */

struct ledger {
	unsigned max;
	_Atomic uint32_t serial;
	_Atomic uint64_t entries[STORE_MAX];
	_Atomic uint64_t offices[HOLDERS_MAX];
};

static uint64_t word_of(uint32_t uid, uint32_t number)
{
	return (uint64_t)uid << 32 | number;
}

int ledger_new(unsigned max, struct ledger **ret)
{
	void *page = mmap(NULL, sizeof(struct ledger), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -ENOMEM;
	*ret = page;
	(*ret)->max = max < STORE_MAX ? max : STORE_MAX;
	return 0;
}

struct ledger *ledger_free(struct ledger *l)
{
	if (l)
		(void)munmap(l, sizeof(*l));
	return NULL;
}

unsigned ledger_max(const struct ledger *l)
{
	return l->max;
}

/* ---- Offices ---- */

uint32_t ledger_appoint(struct ledger *l, uint32_t uid)
{
	for (size_t i = 0; i < HOLDERS_MAX; i++) {
		uint64_t word = atomic_load(&l->offices[i]);
		uint32_t term = (uint32_t)word + 1;

		if (word != 0 && word >> 32 != uid)
			continue;
		term += term == 0;
		atomic_store(&l->offices[i], word_of(uid, term));
		return term;
	}
	return 0;
}

bool ledger_in_office(const struct ledger *l, uint32_t uid, uint32_t term)
{
	for (size_t i = 0; i < HOLDERS_MAX && term != 0; i++)
		if (atomic_load(&l->offices[i]) == word_of(uid, term))
			return true;
	return false;
}

/* ---- Entries ---- */

static bool has(const struct ledger *l, uint64_t word)
{
	for (size_t i = 0; i < STORE_MAX; i++)
		if (atomic_load(&l->entries[i]) == word)
			return true;
	return false;
}

static int enter(struct ledger *l, size_t n, uint64_t word)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t empty = 0;

		if (atomic_compare_exchange_strong(&l->entries[i], &empty, word))
			return 0;
	}
	return -ENOSPC;
}

int ledger_adopt(struct ledger *l, uint32_t uid, uint32_t serial)
{
	if (has(l, word_of(uid, serial)))
		return -EEXIST;
	if (serial > atomic_load(&l->serial))
		atomic_store(&l->serial, serial);
	return enter(l, STORE_MAX, word_of(uid, serial));
}

int ledger_claim(struct ledger *l, uint32_t uid, uint32_t *ret_serial)
{
	uint32_t serial;
	int r;

	do
		serial = atomic_fetch_add(&l->serial, 1) + 1;
	while (serial == 0 || has(l, word_of(uid, serial)));
	r = enter(l, l->max, word_of(uid, serial));
	if (r == 0)
		*ret_serial = serial;
	return r;
}

void ledger_release(struct ledger *l, uint32_t uid, uint32_t serial)
{
	for (size_t i = 0; i < STORE_MAX; i++) {
		uint64_t word = word_of(uid, serial);

		if (atomic_compare_exchange_strong(&l->entries[i], &word, 0))
			return;
	}
}

bool ledger_next(const struct ledger *l, uint32_t uid, size_t *cursor, uint32_t *ret_serial)
{
	while (*cursor < STORE_MAX) {
		uint64_t word = atomic_load(&l->entries[(*cursor)++]);

		if (word != 0 && word >> 32 == uid) {
			*ret_serial = (uint32_t)word;
			return true;
		}
	}
	return false;
}
