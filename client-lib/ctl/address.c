/* SPDX-License-Identifier: MIT */
#include "address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Addresses are what the parking client said of its socket: any bytes, of any length. */

static void inet_text(const void *address, size_t length, char *ret)
{
	struct sockaddr_in in = {0};
	char host[INET_ADDRSTRLEN];

	memcpy(&in, address, length < sizeof(in) ? length : sizeof(in));
	if (length >= sizeof(in) && inet_ntop(AF_INET, &in.sin_addr, host, sizeof(host)))
		snprintf(ret, ADDRESS_TEXT_MAX, "%s:%u", host, ntohs(in.sin_port));
}

static void inet6_text(const void *address, size_t length, char *ret)
{
	struct sockaddr_in6 in = {0};
	char host[INET6_ADDRSTRLEN];

	memcpy(&in, address, length < sizeof(in) ? length : sizeof(in));
	if (length >= sizeof(in) && inet_ntop(AF_INET6, &in.sin6_addr, host, sizeof(host)))
		snprintf(ret, ADDRESS_TEXT_MAX, "[%s]:%u", host, ntohs(in.sin6_port));
}

static void unix_text(const char *path, size_t n, char *ret)
{
	if (n && path[0] == 0)
		snprintf(ret, ADDRESS_TEXT_MAX, "@%.*s", (int)(n - 1), path + 1);
	else
		snprintf(ret, ADDRESS_TEXT_MAX, "%.*s", (int)n, path);
}

void address_text(const void *address, size_t length, char ret[ADDRESS_TEXT_MAX])
{
	const size_t head = offsetof(struct sockaddr_un, sun_path);
	sa_family_t family;

	ret[0] = 0;
	if (length < sizeof(family) || length > sizeof(struct sockaddr_storage))
		return;
	memcpy(&family, address, sizeof(family));
	switch (family) {
	case AF_INET:
		inet_text(address, length, ret);
		break;
	case AF_INET6:
		inet6_text(address, length, ret);
		break;
	case AF_UNIX:
		unix_text((const char *)address + head, length - head, ret);
		break;
	}
}
