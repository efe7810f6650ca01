/* SPDX-License-Identifier: MIT */
#ifndef READYD_HOLDER_LINK_H
#define READYD_HOLDER_LINK_H

/* The link between a uid's parks and its holder, among its own files; parking.h has what others call. */

#include "parking.h"

/* Connections that waited go on, if all has been told and all is back. */
void link_settle(struct parking *k);

/* Its queue is full, or has room again. */
void link_set_full(struct parking *k, bool full);

/* A park's record is to be written; or need not be, any more. */
void link_mark(struct parking *k, struct park *p);
void link_clear(struct parking *k, struct park *p);

/* Its park has changed, or is gone: has it stored before anybody knows, where that is due. */
void link_store(struct parking *k, struct park *p);

/* It need not be stored any more. */
void link_clear_store(struct parking *k, struct park *p);

/* The holder's word on a park: it is in the store as of this serial; or cannot be. */
void link_note_stored(struct parking *k, const struct record_op *op);
void link_note_lost(struct parking *k, const struct record_op *op);

/* Its holder has all, and the store nothing else. */
void link_note_settled(struct parking *k);

/* Whether all that a connection waits for is stored. */
bool link_is_stored(const struct parking *k, const struct connection *c);

/* Connections that wait for what does not come are ended: those with this ticket and later ones. */
void link_refuse_waiting(struct parking *k, uint64_t ticket, const char *text);

/* The holder has gone, or is stuck, and its copies with it: the next one is told all from the start. */
void link_lose(struct parking *k, bool stuck);

#endif
