/* SPDX-License-Identifier: MIT */
#ifndef READYD_RECORD_FIXTURE_H
#define READYD_RECORD_FIXTURE_H

/* Records of parks as tests make them, and a source of random numbers. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/edge/record.h"

/* A park that is held and answered, with all of its five texts; number and cookie tell which. */
static inline struct record record_of(uint64_t number)
{
	struct record r = {
		.number = number,
		.serial = 100,
		.cookie = ~number,
		.parked = 1000,
		.deadline = 2000,
		.uid = 1000,
		.flags = 1,
		.told_fd = 7,
		.name_length = 3,
		.group_length = 4,
		.note_length = 5,
		.local_length = 2,
		.peer_length = 1,
		.interest = 1,
		.kind = 5,
		.answered = 1,
	};

	/* it has room for nine digits */
	(void)snprintf((char *)r.token, sizeof(r.token), "token %u",
		       (unsigned)(number % 1000000000));
	return r;
}

#define RECORD_TEXT "namegrou\1\2\3\4\5\6\7"

/* The same, handed out, with pidfds of both. */
static inline struct record handed_record_of(uint64_t number)
{
	struct record r = record_of(number);

	memset(r.maker, 'm', sizeof(r.maker));
	memset(r.worker, 'w', sizeof(r.worker));
	r.maker_pid = 11;
	r.worker_pid = 12;
	r.maker_fd = r.worker_fd = 1;
	r.state = RECORD_HANDED;
	return r;
}

/* xorshift64*: the same numbers for the same seed. */
struct random {
	uint64_t state;
};

static inline struct random random_begin(void)
{
	const char *text = getenv("READYD_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);

	printf("seed %llu (READYD_SEED)\n", (unsigned long long)seed);
	return (struct random){seed * UINT64_C(0x9e3779b97f4a7c15) + 1};
}

static inline uint64_t random_below(struct random *r, uint64_t n)
{
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return (r->state * UINT64_C(0x2545f4914f6cdd1d) >> 16) % n;
}

#endif
