/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers for problems: splitmix64, so that a seed alone tells the whole sequence on every machine. */
#ifndef HARNESS_RANDOM_H
#define HARNESS_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_bits(struct random *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* In [0, n); 0 if n is 0. */
static inline uint64_t random_below(struct random *r, uint64_t n)
{
    return n ? random_bits(r) % n : 0;
}

/* In [lo, hi]. */
static inline int64_t random_between(struct random *r, int64_t lo, int64_t hi)
{
    return hi > lo ? lo + (int64_t)random_below(r, (uint64_t)(hi - lo) + 1) : lo;
}

/* In [0, 1). */
static inline double random_unit(struct random *r)
{
    return (double)(random_bits(r) >> 11) * 0x1p-53;
}

static inline bool random_chance(struct random *r, double probability)
{
    return random_unit(r) < probability;
}

/* Close to standard normal: the sum of four uniform numbers, with mean 0 and variance 1. */
static inline double random_normal(struct random *r)
{
    uint64_t bits = random_bits(r);
    double sum = (double)(bits & 0xffff) + (double)(bits >> 16 & 0xffff) + (double)(bits >> 32 & 0xffff) +
                 (double)(bits >> 48);
    return (sum - 2.0 * 65535) * (1.7320508075688772 / 65536);
}

#endif
