/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels that merge states share: v_merged = sum of 2^s * v / sum of 2^s, s_merged = log2 of the sum of 2^s. LANES threads
 * of a warp have a row, a token and a head; a thread has STATES pieces of VEC elements of it on their way.
 *
 *   T     f16, bf16, f32
 *   VEC   1, 2, 4, 8: elements of an access, divides head_dim
 *   LANES 1, 2, 4, ... 32 */
#ifndef MERGE_STATES_CUH
#define MERGE_STATES_CUH

#include "math.cuh"
#include "merge_states_args.h"
#include "pdl.cuh"
#include "vec.cuh"

/* Some states' sum, relative to the largest s. */
struct merged {
    float top, sum, v[VEC];
};

DEVICE float largest_of(float top, const float (&s)[STATES])
{
#pragma unroll
    for (int i = 0; i < STATES; i++)
        top = fmaxf(top, s[i]);
    return top;
}

DEVICE void scale(struct merged &m, float factor)
{
#pragma unroll
    for (int j = 0; j < VEC; j++)
        m.v[j] *= factor;
}

DEVICE void add_state(struct merged &m, float weight, vec<T, VEC> v)
{
    float x[VEC];
    widen(x, v);
    m.sum += weight;
#pragma unroll
    for (int j = 0; j < VEC; j++)
        m.v[j] += weight * x[j];
}

DEVICE T *see_merged(const struct merge_states_args &a, uint32_t token, uint32_t head)
{
    return (T *)a.v_merged + (int64_t)token * a.v_merged_token + head * a.v_merged_head;
}

/* By one lane of a row, when all have read. */
DEVICE void write_s(const struct merge_states_args &a, uint32_t token, uint32_t head, const struct merged &m)
{
    a.s_merged[(int64_t)token * a.s_merged_token + head] = m.sum == 0.0f ? -INFINITY : m.top + log2f(m.sum);
}

#endif
