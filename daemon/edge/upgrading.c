/* SPDX-License-Identifier: MIT */
#include "upgrading.h"

#include "sending.h"

/*
 * UPGRADE is answered when the keeper's trial of the new binary is over, which can be seconds
 * later: the connection goes on meanwhile and notes the request's serial. All who ask during one
 * trial get the same answer. Whoever owes so much reading that the answer has no room is
 * disconnected, since nothing is queued behind a full socket.
 */

static void answer(struct connection *c, uint32_t serial, enum wire_error error)
{
	struct wire_answer record = {
		.kind = WIRE_RECORD_ANSWER,
		.error = (uint16_t)error,
		.serial = serial,
		.request = WIRE_UPGRADE,
	};

	sending_add_record(c, &record);
}

void upgrading_apply(struct request *q)
{
	struct connection *c = q->c;
	struct server *s = c->server;
	uint32_t serial = q->view->header.serial;

	if (!c->rights.upgrade) {
		answer(c, serial, WIRE_E_ACCESS);
	} else if (!s->keeper) {
		answer(c, serial, WIRE_E_NOT_SUPPORTED);
	} else if (c->upgrading) {
		answer(c, serial, WIRE_E_BUSY);
	} else {
		const struct log_about about = {
			.client = true,
			.uid = c->who.uid,
			.pid = c->who.pid,
			.session = c->number,
		};

		log_limited_about(s->log, &s->sites.upgrade, s->now, CONFIG_LOG_NOTICE, &about,
				  "uid %u pid %d session %llu asks for an upgrade", c->who.uid,
				  (int)c->who.pid, (unsigned long long)c->number);
		c->upgrading = true;
		c->upgrade_serial = serial;
		s->upgrader = c->who.pid;
		s->upgrade_asked = true;
	}
}

bool server_take_upgrade(struct server *s, pid_t *ret_pid)
{
	bool asked = s->upgrade_asked;

	*ret_pid = s->upgrader;
	s->upgrade_asked = false;
	return asked;
}

void server_answer_upgrade(struct server *s, enum wire_error result)
{
	outbox_clear(&s->outbox); /* of the last turn's, which was sent */
	for (uint32_t i = 0; i < s->n_places; i++) {
		struct connection *c = s->places[i].connection;

		if (!c || !c->upgrading)
			continue;
		c->upgrading = false;
		if (c->blocked) {
			connection_close(c);
			continue;
		}
		answer(c, c->upgrade_serial, result);
		sending_flush(c);
	}
	s->unfinished = true; /* the next turn ends what has to end */
}
