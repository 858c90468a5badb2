/* SPDX-License-Identifier: Apache-2.0 */
/* A norm of rows that a block holds in registers, so that each is read once: block x has row x. A thread holds up to PER_THREAD
 * pieces of VEC elements; piece i starts at element (i * threads + threadIdx.x) * VEC. Many threads with one piece each answer soonest
 * and have code of their own (but for e2m1, whose code is long); few with PER_THREAD pieces keep most bytes in flight. The bits are the
 * same.
 *
 *   PER_THREAD 1, 2, 4; blockDim.x * VEC * PER_THREAD >= hidden
 *   PIECES     0; or those of a row, which blockDim.x threads have one of each, or PER_THREAD of each: addresses are constants then
 *   others     see norm.cuh
 * Shared memory: 32 * PER_THREAD floats, twice for LAYERNORM. */
#include "norm.cuh"

/* With N pieces a thread. */
template <int N> DEVICE void norm_block(const struct norm_args &a, float (&scratch)[1 + LAYERNORM][32 * PER_THREAD])
{
    struct norm_row row = norm_row(a, blockIdx.x);
    struct piece p[N];
    struct weights w[N];
    float x[VEC], sum[N], mean = 0.0f;
    int threads = PIECES ? PIECES / N : blockDim.x, pieces = PIECES ? PIECES : (int)a.hidden / VEC;
    int first = threadIdx.x * VEC, step = threads * VEC;
    bool inside[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        inside[i] = PIECES || (int)threadIdx.x + i * threads < pieces;

    pdl_launch();
#pragma unroll
    for (int i = 0; WEIGHTS_FIRST(N) && i < N; i++) {
        if (inside[i])
            load_weights(w[i], a, first + i * step);
    }
    pdl_wait();
#if BLOCK_SIZE
    pad_scales(a, blockIdx.x, threadIdx.x, blockDim.x);
    if (blockIdx.x >= a.rows * a.groups)
        return;
#endif
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (inside[i])
            load_piece(p[i], row, first + i * step);
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        sum[i] = 0.0f;
        if (inside[i]) {
            widen_piece(x, p[i]);
            store_residual(x, row, first + i * step);
            sum[i] = LAYERNORM ? piece_sum(x) : piece_squares(x, 0.0f);
            keep_piece(p[i]);
        }
    }
#if LAYERNORM
    mean = pieces_sum_first(sum, pieces, threads, scratch[1]) * a.inverse_hidden;
#pragma unroll
    for (int i = 0; i < N; i++) {
        sum[i] = 0.0f;
        if (inside[i]) {
            widen_piece(x, p[i]);
            sum[i] = piece_squares(x, mean);
            keep_piece(p[i]);
        }
    }
#endif
    float deviation = rsqrtf(pieces_sum_first(sum, pieces, threads, scratch[0]) * a.inverse_hidden + a.eps);
    float multiplier = output_multiplier(a);
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (inside[i]) {
            if (!WEIGHTS_FIRST(N))
                load_weights(w[i], a, first + i * step);
            widen_piece(x, p[i]);
            finish_piece(x, a, row, first + i * step, w[i], mean, deviation, multiplier);
        }
    }
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, 1) norm_sm80(const __grid_constant__ struct norm_args a)
{
    __shared__ float scratch[1 + LAYERNORM][32 * PER_THREAD];
    if (PER_THREAD == 1 || (!BLOCK_SIZE && a.hidden <= (int64_t)blockDim.x * VEC))
        norm_block<1>(a, scratch);
    else
        norm_block<PER_THREAD>(a, scratch);
}
