/* SPDX-License-Identifier: MIT */
#ifndef READYD_SHARING_H
#define READYD_SHARING_H

/* Who may do what in groups that users share (`shared-groups` in the configuration). */

#include "connection.h"

enum sharing_right {
	SHARING_PARK = 0x1,
	SHARING_TAKE = 0x2,
	SHARING_LIST = 0x4,
};

/* Whether the group of this name is, for this connection, the shared one; then *ret_rights is what
 * it may do there, which is something. Else the name is its user's own group. */
bool sharing_is_shared(const struct connection *c, const void *name, size_t length,
		       unsigned *ret_rights);

/* The group that a PARK or ATTACH with this name means. 0, or -EACCES: without this right. */
int sharing_check(const struct connection *c, const void *name, size_t length,
		  enum sharing_right right, bool *ret_shared);

/* Whether a park that was shared is so still, its group being shared. */
bool sharing_is_still(const struct server *s, const void *name, size_t length);

/* Another user's park that TAKE or DROP names, with the texts of `tail`. -ENOENT, -EACCES. */
int sharing_find(const struct connection *c, const struct wire_take *w, const uint8_t *tail,
		 struct park **ret);

/* Whether it sees this group, and what is in it, for being shared. */
bool sharing_may_list(const struct connection *c, const void *name, size_t length);

/* The configuration has changed, and with it connections' rights: parks and workers change sides. */
void sharing_reload(struct server *s);

#endif
