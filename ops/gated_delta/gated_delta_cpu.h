/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen elements of a state of any dtype. */
#ifndef GATED_DELTA_CPU_H
#define GATED_DELTA_CPU_H

#include "vec.h"
#include "gated_delta_args.h"

static inline vec state_load(const struct state_pool *pool, int64_t at)
{
    switch (pool->dtype) {
    case STATE_F16:
        return vec_load((const f16 *)pool->data + at);
    case STATE_BF16:
        return vec_load((const bf16 *)pool->data + at);
    case STATE_E4M3:
        return vec_load((const e4m3 *)pool->data + at);
    case STATE_E5M2:
        return vec_load((const e5m2 *)pool->data + at);
    default:
        return vec_load((const f32 *)pool->data + at);
    }
}

static inline void state_store(const struct state_pool *pool, int64_t at, vec x)
{
    switch (pool->dtype) {
    case STATE_F16:
        vec_store((f16 *)pool->data + at, x);
        break;
    case STATE_BF16:
        vec_store((bf16 *)pool->data + at, x);
        break;
    case STATE_E4M3:
        vec_store((e4m3 *)pool->data + at, x);
        break;
    case STATE_E5M2:
        vec_store((e5m2 *)pool->data + at, x);
        break;
    default:
        vec_store((f32 *)pool->data + at, x);
        break;
    }
}

#endif
