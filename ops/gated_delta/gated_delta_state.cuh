/* SPDX-License-Identifier: Apache-2.0 */
/* Accumulators of a state, values by keys, as fragments, in memory, and what their columns are multiplied with. */
#ifndef GATED_DELTA_STATE_CUH
#define GATED_DELTA_STATE_CUH

#include "vec.cuh"

template <int N> DEVICE void pack(uint32_t *to, const float (&from)[N])
{
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        to[i] = pack2(T(), from[2 * i], from[2 * i + 1]);
}

DEVICE float2 pair_at(const float *factors, int block, int pair)
{
    return *(const float2 *)(factors + 8 * block + 2 * pair);
}

/* Two rows of accumulators, 8 apart: `line` elements lie between one and the next; `from`: the first two of this thread. */
template <int N, typename E> DEVICE void load_rows(float (&s)[N], const E *from, int64_t line)
{
#pragma unroll
    for (int j = 0; j < N / 2; j++) {
        float two[2];
        load(two, from + j % 2 * 8 * line + j / 2 * 8);
        s[2 * j] = two[0];
        s[2 * j + 1] = two[1];
    }
}

template <int N, typename E> DEVICE void store_rows(const float (&s)[N], E *to, int64_t line)
{
#pragma unroll
    for (int j = 0; j < N / 2; j++) {
        const float two[2] = {s[2 * j], s[2 * j + 1]};
        store(to + j % 2 * 8 * line + j / 2 * 8, two);
    }
}

#endif
