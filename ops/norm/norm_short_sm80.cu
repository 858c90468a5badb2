/* SPDX-License-Identifier: Apache-2.0 */
/* A norm of short rows (heads): LANES threads of a warp hold PER_THREAD pieces of each of ROWS rows in registers, rows that are as
 * far apart as the grid has such groups of threads. A grid of a group for each row leaves all but the first of the ROWS out.
 *
 *   LANES      1, 2, ... 32
 *   PER_THREAD 1, 2, 3, 4; LANES * VEC * PER_THREAD >= hidden
 *   ROWS       1, 2, 4
 *   others     see norm.cuh
 * blockDim.x is 128. */
#include "norm.cuh"

enum { THREADS = 128 };

DEVICE float row_sum(const float (&sum)[PER_THREAD])
{
    float all = sum[0];
#pragma unroll
    for (int i = 1; i < PER_THREAD; i++)
        all += sum[i];
    return lanes_sum(all, LANES);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCK_SIZE ? 4 : 8) norm_short_sm80(const __grid_constant__ struct norm_args a)
{
    struct piece p[ROWS][PER_THREAD];
    struct weights w[PER_THREAD];
    int64_t rows = a.rows * a.groups, groups = (int64_t)gridDim.x * (THREADS / LANES);
    int64_t first_row = (int64_t)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    int hidden = (int)a.hidden, first = threadIdx.x % LANES * VEC, step = LANES * VEC;

    pdl_launch();
#pragma unroll
    for (int i = 0; WEIGHTS_FIRST && i < PER_THREAD; i++) {
        if (first + i * step < hidden)
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
            if (index < rows && first + i * step < hidden)
                load_piece(p[r][i], row, first + i * step);
        }
    }
    float multiplier = output_multiplier(a);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int64_t index = first_row + r * groups;
        float x[PER_THREAD][VEC], sum[PER_THREAD], mean = 0.0f;
        struct norm_row row = norm_row(a, index);
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) {
            sum[i] = 0.0f;
            if (index < rows && first + i * step < hidden) {
                widen_piece(x[i], p[r][i]);
                store_residual(x[i], row, first + i * step);
                sum[i] = LAYERNORM ? piece_sum(x[i]) : piece_squares(x[i], 0.0f);
            }
        }
#if LAYERNORM
        mean = row_sum(sum) * a.inverse_hidden;
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++)
            sum[i] = index < rows && first + i * step < hidden ? piece_squares(x[i], mean) : 0.0f;
#endif
        float deviation = rsqrtf(row_sum(sum) * a.inverse_hidden + a.eps);
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) {
            if (index < rows && first + i * step < hidden) {
                if (!WEIGHTS_FIRST)
                    load_weights(w[i], a, first + i * step);
                finish_piece(x[i], a, row, first + i * step, w[i], mean, deviation, multiplier);
            }
        }
    }
}
