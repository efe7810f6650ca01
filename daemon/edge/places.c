/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "connection.h"

/*
 * The table of connections. A tag is (generation, index): an event that the kernel reported before
 * a connection ended, and that is looked at after its place went to another, names nobody.
 */

int server_add_place(struct server *s, struct connection *c, uint64_t *ret_tag)
{
	uint32_t index = s->free_place;

	if (s->stats.connections >= s->max_connections)
		return -EUSERS;
	if (index == UINT32_MAX) {
		uint32_t n = s->n_places ? 2 * s->n_places : 64;
		struct connection_place *places = realloc(s->places, n * sizeof(*places));

		if (!places)
			return -ENOMEM;
		for (uint32_t i = s->n_places; i < n; i++)
			places[i] = (struct connection_place){
				.generation = 1,
				.next_free = i + 1 < n ? i + 1 : UINT32_MAX,
			};
		index = s->n_places;
		s->places = places;
		s->n_places = n;
	}
	s->free_place = s->places[index].next_free;
	s->places[index].connection = c;
	*ret_tag = (uint64_t)s->places[index].generation << 32 | index;
	return 0;
}

void server_remove_place(struct server *s, uint64_t tag)
{
	uint32_t index = (uint32_t)tag;
	struct connection_place *place = &s->places[index];

	place->connection = NULL;
	if (++place->generation >= SERVER_TAG_HOLDER)
		place->generation = 1; /* 0 and the highest mark the daemon's other descriptors */
	place->next_free = s->free_place;
	s->free_place = index;
}

struct connection *server_find_tag(const struct server *s, uint64_t tag)
{
	uint32_t index = (uint32_t)tag;

	if (index >= s->n_places || s->places[index].generation != tag >> 32)
		return NULL;
	return s->places[index].connection;
}

struct connection *server_next_connection(const struct server *s, uint32_t *index)
{
	while (*index < s->n_places) {
		struct connection *c = s->places[(*index)++].connection;

		if (c && c->session)
			return c;
	}
	return NULL;
}

struct connection *server_find_session(const struct server *s, uint64_t session)
{
	uint32_t index = 0;
	struct connection *c;

	while ((c = server_next_connection(s, &index)))
		if (c->number == session && !c->closing)
			return c;
	return NULL;
}
