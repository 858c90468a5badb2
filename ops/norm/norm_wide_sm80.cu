/* SPDX-License-Identifier: Apache-2.0 */
/* A norm of rows too wide for a block's registers: block x reads row x twice, or three times for LAYERNORM, after the first time
 * mostly from the cache.
 *
 *   others see norm.cuh
 * Shared memory: 32 floats. blockDim.x is MAX_THREADS. */
#include "norm.cuh"

DEVICE void load_x(float (&x)[VEC], const struct norm_row &row, int64_t at)
{
    struct piece p;
    load_piece(p, row, at);
    widen_piece(x, p);
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, 1) norm_wide_sm80(const __grid_constant__ struct norm_args a)
{
    __shared__ float scratch[32];
    struct norm_row row = norm_row(a, blockIdx.x);
    int64_t first = threadIdx.x * VEC, step = blockDim.x * VEC;
    float x[VEC], sum = 0.0f, mean = 0.0f;

    pdl_launch();
    pdl_wait();
#if BLOCK_SIZE
    if (!pad_row_of_block(a, row))
        return;
#endif
#if LAYERNORM
#pragma unroll 2
    for (int64_t at = first; at < a.hidden; at += step) {
        load_x(x, row, at);
        sum += piece_sum(x);
    }
    mean = block_sum_first(sum, scratch) * a.inverse_hidden;
    sum = 0.0f;
#endif
#pragma unroll 2
    for (int64_t at = first; at < a.hidden; at += step) {
        load_x(x, row, at);
        sum += LAYERNORM ? center_piece(x, mean) : piece_squares(x);
    }
    float deviation = rsqrt_approx(block_sum(sum, scratch) * a.inverse_hidden + a.eps);
    float multiplier = output_multiplier(a);
#pragma unroll(BLOCK_SIZE ? 1 : 2)
    for (int64_t at = first; at < a.hidden; at += step) {
        struct weights w;
        struct piece p;
        load_piece(p, row, at);
        load_weights(w, a, at);
        widen_piece(x, p);
        store_residual(x, row, at);
#if SUMS_ROUNDED
        round_to<R>(x);
#endif
#if WEIGHED
        finish_weighed(p, row, (int)at, weigh_piece(p, w), deviation, multiplier);
#else
        if (LAYERNORM)
            center_piece(x, mean);
        finish_piece(x, a, row, at, w, deviation, multiplier);
#endif
    }
}
