/* SPDX-License-Identifier: MIT */
#ifndef READYD_STEP_H
#define READYD_STEP_H

/* Between two actions of which one may happen without the other: the tests' places to die at, of a
 * loop and of a holder. In other builds they are nothing. */
#ifdef READYD_MUTANT_DIE_AT_STEP
void parking_step(void);
void holder_step(void);
#else
static inline void parking_step(void)
{
}

static inline void holder_step(void)
{
}
#endif

#endif
