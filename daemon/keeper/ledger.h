/* SPDX-License-Identifier: MIT */
#ifndef READYD_LEDGER_H
#define READYD_LEDGER_H

/*
 * What keeper and holders know together of systemd's fd store: which entries are in it, and which
 * holder speaks for a uid. It is a page that they share, so that it outlives each of them: whoever
 * comes after a holder that was killed finds here what that one had stored.
 *
 * An entry is written down before it is sent and crossed out after it was removed: what is in the
 * store is always in the ledger. All functions may be called by several processes at once, except
 * where it says the keeper's.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ledger;

/* `max`: entries that the store takes, at most STORE_MAX. Negative errno. The keeper's. */
int ledger_new(unsigned max, struct ledger **ret);
/* That of a former program of this process: fd is taken over. -EINVAL: it is none; negative errno.
 * On failure fd is the caller's still. */
int ledger_open(int fd, struct ledger **ret);
/* A lasting fd, the ledger's, for ledger_open(). */
int ledger_fd(const struct ledger *l);
/* NULL is accepted. Returns NULL. Other processes keep theirs. */
struct ledger *ledger_free(struct ledger *l);

unsigned ledger_max(const struct ledger *l);

/* ---- Who speaks for a uid; the keeper's ---- */

/* A new holder is about to be made for this uid: whoever was in office is not any more. Returns the
 * new one's term; 0: there is no room, and nobody is. */
uint32_t ledger_appoint(struct ledger *l, uint32_t uid);

/* The holder of this uid is given up. */
void ledger_dismiss(struct ledger *l, uint32_t uid);

/* Anybody's. */
bool ledger_in_office(const struct ledger *l, uint32_t uid, uint32_t term);
/* Another one is: not so of one that was only dismissed. */
bool ledger_is_succeeded(const struct ledger *l, uint32_t uid, uint32_t term);

/* ---- Entries ---- */

/* Came back from the store. -ENOSPC; -EEXIST. The keeper's. */
int ledger_adopt(struct ledger *l, uint32_t uid, uint32_t serial);

/* How many more there can be. */
unsigned ledger_room(const struct ledger *l);

/* A new one is about to be stored. -ENOSPC: the store is full. */
int ledger_claim(struct ledger *l, uint32_t uid, uint32_t *ret_serial);

/* It is not in the store (any more). */
void ledger_release(struct ledger *l, uint32_t uid, uint32_t serial);

/* The next of this uid's, from *cursor, which begins at 0 and moves on. false: no more. */
bool ledger_next(const struct ledger *l, uint32_t uid, size_t *cursor, uint32_t *ret_serial);

#endif
