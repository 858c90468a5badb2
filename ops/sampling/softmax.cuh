/* SPDX-License-Identifier: Apache-2.0 */
/* softmax: out = exp((logits - max) / temperature) / sum, row by row.
 *
 * A block of 1024 threads reads its part of a row twice: for the maximum and the sum, which each thread keeps for its own
 * elements and rescales when its maximum grows, and for the output. Piece i of a tile starts at element
 * (i * 1024 + threadIdx.x) * VEC of it.
 *
 *   T    f16, bf16, f32
 *   VEC  1, 2, 4; divides vocab and the row strides
 *
 * The kernel says before the include what a maximum, a sum and a minimum over the row are, of a value of each thread: row_max,
 * row_sum and row_min. */
#ifndef SOFTMAX_CUH
#define SOFTMAX_CUH

#include "pdl.cuh"
#include "scan.cuh"
#include "vec.cuh"
#include "softmax_args.h"

enum { THREADS = 1024, PIECES = 2, TILE = PIECES * THREADS * VEC };

/* The elements of this thread in the tile that starts at `begin`; NaN and what lies from `end` on read as -inf. */
DEVICE void load_tile(float (&x)[PIECES][VEC], const T *logits, int64_t begin, int64_t end)
{
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        int64_t at = begin + (i * THREADS + threadIdx.x) * VEC;
        if (at < end)
            load(x[i], logits + at);
#pragma unroll
        for (int j = 0; j < VEC; j++)
            x[i][j] = at < end && x[i][j] == x[i][j] ? x[i][j] : -INFINITY;
    }
}

/* exp((x - max) / temperature); where x is max the difference is 0, infinities included. */
DEVICE float power(float x, float max, float scale) { return x == max ? 1.0f : exp2f((x - max) * scale); }

struct statistics {
    float max, sum;
};

DEVICE struct statistics read_part(const T *logits, int64_t begin, int64_t end, float scale)
{
    struct statistics s = {-INFINITY, 0.0f};
#pragma unroll 1
    for (; begin < end; begin += TILE) {
        float x[PIECES][VEC], max = s.max, sum = 0.0f;
        load_tile(x, logits, begin, end);
#pragma unroll
        for (int i = 0; i < PIECES; i++)
#pragma unroll
            for (int j = 0; j < VEC; j++)
                max = fmaxf(max, x[i][j]);
        if (max == -INFINITY)
            continue;
#pragma unroll
        for (int i = 0; i < PIECES; i++)
#pragma unroll
            for (int j = 0; j < VEC; j++)
                sum += power(x[i][j], max, scale);
        s.sum = s.sum * power(s.max, max, scale) + sum;
        s.max = max;
    }
    return s;
}

/* The first element of the row that is max. */
DEVICE int64_t find_first(const T *logits, int64_t begin, int64_t end, float max, float *scratch)
{
    uint32_t first = 0xffffffffu;
#pragma unroll 1
    for (; begin < end; begin += TILE) {
        float x[PIECES][VEC];
        load_tile(x, logits, begin, end);
#pragma unroll
        for (int i = 0; i < PIECES; i++)
#pragma unroll
            for (int j = 0; j < VEC; j++)
                if (x[i][j] == max)
                    first = min(first, (uint32_t)(begin + (i * THREADS + threadIdx.x) * VEC + j));
    }
    return row_min(first, scratch);
}

/* This block's part of a row, from `begin` to `end`. scratch: 32 floats. */
DEVICE void softmax_part(const struct softmax_args &a, int64_t row, int64_t begin, int64_t end, float *scratch)
{
    const T *logits = (const T *)a.logits + row * a.logits_stride;
    float *out = a.out + row * a.out_stride;
    float temperature = a.temperatures ? a.temperatures[row * a.temperatures_step] : a.temperature;
    /* Bounded away from 0 and infinity, which would make NaN of infinite and zero differences. */
    float scale = fminf(fmaxf(LOG2E / temperature, 1.2e-38f), 3.4e38f);
    struct statistics own = read_part(logits, begin, end, scale);
    float max = row_max(own.max, scratch);
    float sum = row_sum(own.sum * power(own.max, max, scale), scratch);
    bool greedy = temperature == 0.0f && max > -INFINITY;
    int64_t first = greedy ? find_first(logits, begin, end, max, scratch) : 0;
    float share = max > -INFINITY && temperature > 0.0f ? 1.0f / sum : 0.0f;
    pdl_launch();

#pragma unroll 1
    for (; begin < end; begin += TILE) {
        float x[PIECES][VEC];
        load_tile(x, logits, begin, end);
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            int64_t at = begin + (i * THREADS + threadIdx.x) * VEC;
            if (at >= end)
                continue;
#pragma unroll
            for (int j = 0; j < VEC; j++)
                x[i][j] = greedy ? (at + j == first ? 1.0f : 0.0f) : power(x[i][j], max, scale) * share;
            store(out + at, x[i]);
        }
    }
}

#endif
