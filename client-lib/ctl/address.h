/* SPDX-License-Identifier: MIT */
#ifndef READYCTL_ADDRESS_H
#define READYCTL_ADDRESS_H

#include <stddef.h>

enum {
	ADDRESS_TEXT_MAX = 160,
};

/*
 * A socket address as people write it: 192.0.2.1:80, [2001:db8::1]:80, a path, or @NAME for an
 * abstract one. "" for one without a name or of another family, and for bytes that are none. Not
 * escaped. Pure.
 */
void address_text(const void *address, size_t length, char ret[ADDRESS_TEXT_MAX]);

#endif
