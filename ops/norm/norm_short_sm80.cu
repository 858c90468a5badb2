/* SPDX-License-Identifier: Apache-2.0 */
/* A norm of short rows (heads): LANES threads of a warp hold PER_THREAD pieces of each of ROWS rows in registers, rows that
 * are as far apart as the grid has such groups of threads. A grid of a group for each row leaves all but the first of the ROWS
 * out.
 *
 *   LANES      1, 2, ... 32
 *   PER_THREAD 1, 2, 3, 4; LANES * VEC * PER_THREAD >= hidden
 *   ROWS       1, 2, 4
 *   EXACT      1: LANES * VEC * PER_THREAD == hidden
 *   others     see norm.cuh
 * blockDim.x is 128. */
#include "norm.cuh"

enum { THREADS = 128 };

extern "C" __global__ void __launch_bounds__(THREADS, BLOCK_SIZE ? 4 : 8) norm_short_sm80(const __grid_constant__ struct norm_args a)
{
    struct piece p[ROWS][PER_THREAD];
    struct weights w[PER_THREAD];
    float x[VEC], sum[ROWS], mean[ROWS] = {};
    int64_t rows = a.rows * a.groups, groups = (int64_t)gridDim.x * (THREADS / LANES);
    int64_t first_row = (int64_t)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    int hidden = (int)a.hidden, first = threadIdx.x % LANES * VEC, step = LANES * VEC;
    bool inside[ROWS][PER_THREAD];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++)
            inside[r][i] = first_row + r * groups < rows && (EXACT || first + i * step < hidden);
    }

    pdl_launch();
#pragma unroll
    for (int i = 0; WEIGHTS_FIRST(2) && i < PER_THREAD; i++) {
        if (EXACT || first + i * step < hidden)
            load_weights(w[i], a, first + i * step);
    }
    pdl_wait();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int64_t index = first_row + r * groups;
        struct norm_row row = norm_row(a, index);
#if BLOCK_SIZE
        pad_scales(a, index, threadIdx.x % LANES, LANES);
#endif
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) {
            if (inside[r][i])
                load_piece(p[r][i], row, first + i * step);
        }
    }
    float multiplier = output_multiplier(a);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        struct norm_row row = norm_row(a, first_row + r * groups);
        sum[r] = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) {
            if (inside[r][i]) {
                widen_piece(x, p[r][i]);
                store_residual(x, row, first + i * step);
                sum[r] += LAYERNORM ? piece_sum(x) : piece_squares(x, 0.0f);
                keep_piece(p[r][i]);
            }
        }
        sum[r] = lanes_sum(sum[r], LANES);
    }
#if LAYERNORM
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        mean[r] = sum[r] * a.inverse_hidden;
        sum[r] = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) {
            if (inside[r][i]) {
                widen_piece(x, p[r][i]);
                sum[r] += piece_squares(x, mean[r]);
                keep_piece(p[r][i]);
            }
        }
        sum[r] = lanes_sum(sum[r], LANES);
    }
#endif
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        struct norm_row row = norm_row(a, first_row + r * groups);
        float deviation = rsqrtf(sum[r] * a.inverse_hidden + a.eps);
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) {
            if (inside[r][i]) {
                if (!WEIGHTS_FIRST(2))
                    load_weights(w[i], a, first + i * step);
                widen_piece(x, p[r][i]);
                finish_piece(x, a, row, first + i * step, w[i], mean[r], deviation, multiplier);
            }
        }
    }
}
