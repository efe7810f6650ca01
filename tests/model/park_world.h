/* SPDX-License-Identifier: MIT */
#ifndef READYD_TESTS_PARK_WORLD_H
#define READYD_TESTS_PARK_WORLD_H

/*
 * The world around the parks: processes that park and take, what is under way to them, the loop
 * that dies, and the records that survive it. Here is known what really happened to each fd, which
 * no loop knows.
 */

#include <stdbool.h>
#include <stdint.h>

#include "park_naive.h"

enum wish {
	WISH_ANSWER,  /* its parker repeats PARK until an answer comes */
	WISH_CLAIM,   /* it has the answer: claims on later connections */
	WISH_NOTHING, /* the parker is dead, or ended the connection before an answer came */
};

/* One fd and all that was ever done about it, in any loop. Masks are of processes. */
struct thing {
	bool used;
	int parker;
	enum wish wish;
	bool answer_due;    /* the loop has a PARK to answer */
	bool answer_flying; /* sent to the parker, and not read */
	bool settled;       /* truly: an answer was sent, it was claimed, or its parker is dead */
	bool ended;         /* recorded as taken, dropped or expired */
	bool closed;        /* recorded as dropped or expired */
	uint64_t flying;    /* the fd was sent there, and not read */
	uint64_t has;       /* has read it, and must not use it yet */
	uint64_t good;      /* the acknowledgement's answer was sent there */
	unsigned takers;    /* processes that were allowed to use it */
	unsigned generation;
	struct naive_park plan;
	uint64_t version, serial; /* as seen last */
};

struct process {
	bool born, alive, connected;
	bool noticed; /* this loop was told of its death */
};

struct world {
	uint64_t seed, state, step, steps, trace, round;
	int64_t now;
	bool mortal; /* the loop may die */
	struct parks *ps;
	struct naive naive;
	struct naive_park recorded[NAIVE_PARKS];
	struct park_restore records[NAIVE_PARKS];
	uint8_t texts[NAIVE_PARKS][PARK_TEXT_MAX];
	struct thing things[NAIVE_PARKS];
	struct park *parks[NAIVE_PARKS];
	struct process processes[NAIVE_PROCESSES];
	struct park_handle *handles[NAIVE_PROCESSES];
	struct park_owner *owners[NAIVE_OWNERS];
	struct quota quotas[NAIVE_OWNERS];
	uint64_t parked, taken, deaths; /* in all, to be told at the end */
	char text[160];
};

/* ---- park_world.c ---- */

uint64_t draw(struct world *w, uint64_t below);
bool chance(struct world *w, unsigned percent);

/* What is done now; with --trace on stdout. */
__attribute__((format(printf, 2, 3))) void say(struct world *w, const char *format, ...);
void print_where(const struct world *w);
__attribute__((noreturn, format(printf, 2, 3))) void differ(const struct world *w,
							    const char *format, ...);
void expect(const struct world *w, const char *what, uint64_t want, uint64_t got);

/* A new loop with what was recorded. */
void begin_loop(struct world *w);
void end_loop(struct world *w);

/* If it may: the loop dies here. */
bool dies(struct world *w);

/* All changes are recorded; false: the loop died before or meanwhile. */
bool take(struct world *w);

/* Gone parks are freed. */
void bury(struct world *w);

/* Everything that can be seen is as the naive one has it. */
void compare(struct world *w, bool all);

/* ---- park_requests.c ---- */

static inline uint64_t bit(int process)
{
	return UINT64_C(1) << process;
}

/* A process that the loop takes for connected: dead ones too, until it knows. NOBODY: none. */
int draw_attached(struct world *w);
int draw_living(struct world *w, bool connected);

/* Often of a park that exists. */
unsigned draw_slot(struct world *w);

void expect_result(const struct world *w, int want, int got);
void send_park(struct world *w, unsigned slot);
void send_answer(struct world *w, unsigned slot);
void send_claim(struct world *w, unsigned slot, int who);

/* The loop hands it and sends it. */
void hand(struct world *w, unsigned slot, int who);

/* Says whether the process has it: by ACKNOWLEDGE (`first`), or by HELD. false: the loop died. */
bool send_word(struct world *w, unsigned slot, int who, bool held, bool first);

/* ---- park_processes.c ---- */

/* What is under way to the process about one park, and about all. */
void process_read(struct world *w, unsigned slot, int who);
void process_read_all(struct world *w, int who);

void process_attach(struct world *w, int who, bool attached);

/* It reads what the ended connection still has, says what it holds, and asks again for what it
 * wishes; each step may be the loop's last. */
void process_connect(struct world *w, int who);

/* The first one that was never born, before `last`. */
void process_birth(struct world *w, unsigned owner, int last);
void process_kill(struct world *w, int who);

/* The loop learns of its death, if it is dead. */
void process_notice(struct world *w, int who);

/* ---- park_groups.c ---- */

/* The loop hands the next park that some worker is free for. false: there is none, or it died. */
bool match(struct world *w);
void compare_groups(struct world *w);

/* ---- Steps: each does something at random, or nothing ---- */

void do_park(struct world *w);
void do_answer(struct world *w);
void do_claim(struct world *w);
void do_hand(struct world *w);
void do_drop(struct world *w);
void do_read(struct world *w);
void do_acknowledge(struct world *w);
void do_connect(struct world *w);
void do_end_connection(struct world *w);
void do_kill(struct world *w);
void do_birth(struct world *w);
void do_notice(struct world *w);
void do_idle(struct world *w);
void do_offer(struct world *w);
void do_withdraw(struct world *w);
void do_share(struct world *w);
void do_match(struct world *w);

#endif
