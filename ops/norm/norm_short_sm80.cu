/* SPDX-License-Identifier: Apache-2.0 */
/* A norm of short rows (heads): LANES threads of a warp hold PER_THREAD pieces of each of ROWS rows in registers, rows that
 * are as far apart as the grid has such groups of threads. A grid of a group for each row leaves all but the first of the ROWS
 * out.
 *
 *   LANES      1 to 32; of 32 threads, those that are left over when each row has its own idle
 *   PER_THREAD 1, 2, 3, 4; LANES * VEC * PER_THREAD >= hidden
 *   ROWS       1, 2, 4
 *   EXACT      1: LANES * VEC * PER_THREAD == hidden
 *   others     see norm.cuh
 * blockDim.x is 128. */
#define STEP (PER_THREAD > 1 ? LANES * VEC : 0)
#include "norm.cuh"

/* Blocks of a multiprocessor, as registers allow. What is no row is summed, too: else the loads of a row would wait for the sums
 * of the row before. */
enum { THREADS = 128, WARP_ROWS = 32 / LANES, BLOCK_ROWS = THREADS / 32 * WARP_ROWS };
enum { BLOCKS = BLOCK_SIZE ? (SILU ? 9 : 4) : LAYERNORM && ROWS * PER_THREAD > 2 ? 6 : 8 };

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) norm_short_sm80(const __grid_constant__ struct norm_args a)
{
    struct norm_row row[ROWS];
    struct piece p[ROWS][PER_THREAD];
    struct weights w[PER_THREAD];
    uint32_t most[ROWS][PER_THREAD];
    float x[LAYERNORM ? ROWS : 1][LAYERNORM ? PER_THREAD : 1][VEC], sum[ROWS];
    int group = threadIdx.x / 32 * WARP_ROWS + threadIdx.x % 32 / LANES;
    bool idle = 32 % LANES && threadIdx.x % 32 / LANES == WARP_ROWS;
    int64_t rows = rows_of(a), groups = (int64_t)gridDim.x * BLOCK_ROWS, first_row = (int64_t)blockIdx.x * BLOCK_ROWS + group;
    int lane = threadIdx.x % 32 % LANES, first = lane * VEC, step = LANES * VEC, at_first = BLOCK_SIZE ? 0 : first;
    bool exists[ROWS], inside[PER_THREAD];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        exists[r] = !idle && (uint32_t)(first_row + r * groups) < rows;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++)
        inside[i] = EXACT || first + i * step < (int)a.hidden;
    pdl_launch();
#pragma unroll
    for (int i = 0; WEIGHTS_FIRST(PER_THREAD) && i < PER_THREAD; i++)
        if (inside[i])
            load_weights(w[i], a, first + i * step);
    pdl_wait();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        row[r] = norm_row(a, (uint32_t)(first_row + r * groups));
#if SCALES & 2
        if (a.pads && !idle && first_row + r * groups < block_scale_rows(SCALES_128X4, rows))
            pad_scales(a, row[r], exists[r], lane, LANES);
#endif
        row[r] = row_from(row[r], first);
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) {
            p[r][i] = piece();
            if (exists[r] && inside[i])
                load_piece(p[r][i], row[r], at_first + i * step);
        }
    }
    float multiplier = output_multiplier(a);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sum[r] = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) {
            float(&at)[VEC] = x[LAYERNORM ? r : 0][LAYERNORM ? i : 0];
            if (inside[i]) {
                widen_piece(at, p[r][i]);
                if (exists[r])
                    store_residual(at, row[r], at_first + i * step);
                sum[r] += LAYERNORM ? piece_sum(at) : piece_squares(at);
                keep_or_weigh(at, p[r][i], w[i], most[r][i]);
            }
        }
        sum[r] = lanes_sum(sum[r], LANES);
    }
#if LAYERNORM
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float mean = sum[r] * a.inverse_hidden;
        sum[r] = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++)
            sum[r] += inside[i] ? center_piece(x[r][i], mean) : 0.0f;
        sum[r] = lanes_sum(sum[r], LANES);
    }
#endif
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float deviation = rsqrt_approx(sum[r] * a.inverse_hidden + a.eps);
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) {
            float(&at)[VEC] = x[LAYERNORM ? r : 0][LAYERNORM ? i : 0];
            if (exists[r] && inside[i]) {
                if (!WEIGHTS_FIRST(PER_THREAD) && r == 0)
                    load_weights(w[i], a, first + i * step);
                finish_kept(at, p[r][i], a, row[r], at_first + i * step, w[i], most[r][i], deviation, multiplier);
            }
        }
    }
}
