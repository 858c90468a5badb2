/* SPDX-License-Identifier: Apache-2.0 */
/* Philox4x32, the counter-based random numbers of Salmon et al. (SC 2011): 128 random bits from a key and
 * a counter, the same on CPUs and GPUs. */
#ifndef PHILOX_H
#define PHILOX_H

#include "integers.h"

struct philox {
    uint32_t word[4];
};

/* 10 rounds are the usual ones. */
ANYWHERE struct philox philox_rounds(uint64_t key, uint64_t counter_low, uint64_t counter_high, int rounds)
{
    uint32_t x = (uint32_t)counter_low, y = (uint32_t)(counter_low >> 32);
    uint32_t z = (uint32_t)counter_high, w = (uint32_t)(counter_high >> 32);
    uint32_t key0 = (uint32_t)key, key1 = (uint32_t)(key >> 32);
    for (int round = 0; round < rounds; round++) {
        uint64_t a = (uint64_t)0xd2511f53u * x, b = (uint64_t)0xcd9e8d57u * z;
        x = (uint32_t)(b >> 32) ^ y ^ key0;
        y = (uint32_t)b;
        z = (uint32_t)(a >> 32) ^ w ^ key1;
        w = (uint32_t)a;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    struct philox random = {{x, y, z, w}};
    return random;
}

/* The first 64 bits: a uniform number in [0, 1), times 2^64. */
ANYWHERE uint64_t philox_uniform(uint64_t key, uint64_t counter_low, uint64_t counter_high)
{
    struct philox random = philox_rounds(key, counter_low, counter_high, 10);
    return (uint64_t)random.word[0] << 32 | random.word[1];
}

#endif
