/* SPDX-License-Identifier: Apache-2.0 */
/* Philox4x32, the counter-based random numbers of Salmon et al. (SC 2011): 128 random bits from a key and
 * a counter, the same on CPUs and GPUs. */
#ifndef PHILOX_H
#define PHILOX_H

#include "integers.h"

struct philox {
    uint32_t word[4], key[2];
};

ANYWHERE struct philox philox_begin(uint64_t key, uint64_t counter_low, uint64_t counter_high)
{
    uint32_t x = (uint32_t)counter_low, y = (uint32_t)(counter_low >> 32);
    uint32_t z = (uint32_t)counter_high, w = (uint32_t)(counter_high >> 32);
    struct philox p = {{x, y, z, w}, {(uint32_t)key, (uint32_t)(key >> 32)}};
    return p;
}

#ifdef __CUDACC_RTC__
/* One instruction; of a product in C the compiler makes two. */
ANYWHERE uint64_t philox_product(uint32_t a, uint32_t b)
{
    uint64_t y;
    asm("mul.wide.u32 %0, %1, %2;" : "=l"(y) : "r"(a), "r"(b));
    return y;
}
#else
ANYWHERE uint64_t philox_product(uint32_t a, uint32_t b) { return (uint64_t)a * b; }
#endif

/* 10 are usual. */
ANYWHERE void philox_round(struct philox *p)
{
    uint64_t a = philox_product(p->word[0], 0xd2511f53u), b = philox_product(p->word[2], 0xcd9e8d57u);
    p->word[0] = (uint32_t)(b >> 32) ^ p->word[1] ^ p->key[0];
    p->word[1] = (uint32_t)b;
    p->word[2] = (uint32_t)(a >> 32) ^ p->word[3] ^ p->key[1];
    p->word[3] = (uint32_t)a;
    p->key[0] += 0x9e3779b9u;
    p->key[1] += 0xbb67ae85u;
}

ANYWHERE struct philox philox_rounds(uint64_t key, uint64_t counter_low, uint64_t counter_high, int rounds)
{
    struct philox p = philox_begin(key, counter_low, counter_high);
    for (int i = 0; i < rounds; i++)
        philox_round(&p);
    return p;
}

/* The first 64 bits: a uniform number in [0, 1), times 2^64. */
ANYWHERE uint64_t philox_uniform(uint64_t key, uint64_t counter_low, uint64_t counter_high)
{
    struct philox p = philox_begin(key, counter_low, counter_high);
    ROLLED
    for (int i = 0; i < 10; i++)
        philox_round(&p);
    return (uint64_t)p.word[0] << 32 | p.word[1];
}

#endif
