/* SPDX-License-Identifier: Apache-2.0 */
/* What the CPU kernels for Mamba-2's states share. T, STATE, STATE_DIM and RANDOM are the kernel's. */
#ifndef MAMBA_CPU_H
#define MAMBA_CPU_H

#include "vec.h"
#include "mamba_args.h"

#include <math.h>

static float at(const void *data, int64_t i, int wide)
{
    return wide ? ((const float *)data)[i] : to_float(((const T *)data)[i]);
}

static float delta_of(float dt, int softplus)
{
    return softplus && dt <= 20.0f ? log1pf(expf(dt)) : dt;
}

/* read: the element of the pool, as if it were dense, that the row was read from. */
static void put_state(STATE *to, const float *s, const struct rounding_seed *seed, int64_t read)
{
#if RANDOM
    uint64_t key = rounding_key(seed);
    for (int i = 0; i < STATE_DIM; i += 4) {
        struct philox random = rounding_bits(key, read + i, RANDOM);
        for (int j = 0; j < 4; j++)
            to[i + j].bits = _Generic(to[0], f16: f16_random_bits, bf16: bf16_random_bits)(s[i + j], random.word[j]);
    }
#else
    (void)seed, (void)read;
    for (int i = 0; i < STATE_DIM; i += LANES)
        vec_store(to + i, vec_load(s + i));
#endif
}

#endif
