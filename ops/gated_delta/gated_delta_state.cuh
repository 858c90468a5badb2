/* SPDX-License-Identifier: Apache-2.0 */
/* A warp's 16 values of a state, as accumulators and as fragments: values by keys, and what becomes of them in a chunk, values by
 * tokens. In order: those of 8 columns, two of a row and two of the row 8 further. */
#ifndef GATED_DELTA_STATE_CUH
#define GATED_DELTA_STATE_CUH

#include "vec.cuh"

template <int N, typename Type> DEVICE void pack(uint32_t *to, const float (&from)[N], Type type)
{
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        to[i] = pack2(type, from[2 * i], from[2 * i + 1]);
}

DEVICE float2 pair_at(const float *factors, int block, int pair)
{
    return *(const float2 *)(factors + 8 * block + 2 * pair);
}

/* Of the columns that a thread has. NULL: 1 */
DEVICE void fetch_factors(float2 (&to)[8], const float *factors, int pair)
{
#pragma unroll
    for (int j = 0; j < 8; j++)
        to[j] = factors ? pair_at(factors, j, pair) : make_float2(1.0f, 1.0f);
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

/* x, S K^T, becomes E = beta V^T - known S K^T; v: fragments of V^T. beta NULL: 1. */
DEVICE void subtract_known(float (&x)[32], const uint32_t (&v)[16], const float2 (&known)[8], const float *beta, int pair)
{
#pragma unroll
    for (int i = 0; i < 16; i++) {
        float2 two = unpack2(T(), v[i]), f = known[i / 2], b = beta ? pair_at(beta, i / 2, pair) : make_float2(1.0f, 1.0f);
        x[2 * i] = b.x * two.x - f.x * x[2 * i];
        x[2 * i + 1] = b.y * two.y - f.y * x[2 * i + 1];
    }
}

/* Fragments of U, whose rows lack `unit`, scaled for the state. */
DEVICE void scale_update(uint32_t (&f)[16], const float (&x)[32], const float2 (&update)[8], float2 unit)
{
#pragma unroll
    for (int i = 0; i < 16; i++) {
        float own = i % 2 ? unit.y : unit.x;
        f[i] = pack2(T(), x[2 * i] * own * update[i / 2].x, x[2 * i + 1] * own * update[i / 2].y);
    }
}

DEVICE void scale_columns(float (&y)[32], const float *factors, int pair)
{
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
        float2 f = pair_at(factors, i / 4, pair);
        y[i] *= f.x;
        y[i + 1] *= f.y;
    }
}

#endif
