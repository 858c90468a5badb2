/* SPDX-License-Identifier: Apache-2.0 */
/* A norm of rows that a block holds in registers, so that each is read once: block x has row x, or ROWS. A thread holds up to
 * PER_THREAD pieces of VEC elements; piece i starts at element (i * threads + threadIdx.x) * VEC. Many threads with one piece
 * each answer soonest and have code of their own beside that of PER_THREAD pieces (to e2m1, whose code is long, in a kernel of
 * their own); few with PER_THREAD pieces keep most bytes in flight. The bits are the same.
 *
 *   PER_THREAD 1, 2, 4; blockDim.x * VEC * PER_THREAD >= hidden
 *   PIECES     0; or those of a row, which blockDim.x threads have one of each, or PER_THREAD of each: addresses are constants
 *              then
 *   ROWS       1; or 2 with PIECES, two PER_THREAD, no residual and scales in tiles: of two rows whose scales are neighbours each
 *              half of a warp has one, so that these are written at once. To the L2 cache four bytes are as much as 32.
 *   EARLY      1: few rows to e2m1 with PDL, one piece a thread, which is asked for as soon as pdl_wait returns
 *   others     see norm.cuh
 * Shared memory: 32 * PER_THREAD floats, twice for LAYERNORM. */
#define FOR_32_BITS (VEC == 8 && (sizeof(W) == 4 || sizeof(R) == 4))
#define SPLIT (PIECES && ACCESS == VEC && sizeof(T) == 2 && (FOR_32_BITS || (BLOCK_SIZE && ADD_RESIDUAL)))
#define HIDDEN (ROWS > 1 ? PIECES * VEC : 0)
#if EARLY && !SILU /* which gains nothing by it */
#define SELDOM DEVICE_CALL
#endif
#define PREPARED (EARLY && ADD_RESIDUAL && PIECES >= 384) /* shorter rows lose by it */
#include "norm.cuh"
#include "prefetch.cuh"

/* How many sums of warps a thread adds by itself. Other kernels than these are slower if it adds any, or more. */
enum { SUMS = PIECES / 32, EACH = BLOCK_SIZE && PER_THREAD == 1 ? 16 : 4 };
enum { FEW = SUMS == 4 || SUMS == 8 || SUMS == 16 || EARLY };
enum { ADDS = (BLOCK_SIZE ? !ADD_RESIDUAL || EARLY : ADD_RESIDUAL || LAYERNORM) && (FEW || (BLOCK_SIZE && PER_THREAD > 1)) };
enum { KNOWN_PIECES = ADDS ? PIECES : 0 };

/* Threads of a multiprocessor, if rows are many: e2m1 waits for its arithmetic, and for warps that load meanwhile. 56, 40 or 48
 * registers are enough for each, in at most 32 blocks; 40 are on sm_90 alone. */
enum { BOUNDS = BLOCK_SIZE && PIECES && (SILU || PER_THREAD > 1) };
enum { RESIDENT = SILU ? 1152 : ROWS > 1 && __CUDA_ARCH__ == 900 ? 1536 : 1280 };
enum { THREADS = BOUNDS ? ROWS * PIECES / PER_THREAD : MAX_THREADS };
enum { BLOCKS = !BOUNDS ? 1 : THREADS > RESIDENT / 32 ? RESIDENT / THREADS : 32 };

/* Lanes of a warp that have the same row. */
enum { LANES_OF_ROW = 32 / ROWS };

/* Rows are taken such that four, whose scales in a tile are neighbours, follow each other. */
DEVICE uint32_t nth_row(uint32_t i) { return (i & ~127u) + i % 4 * 32 + i % 128 / 4; }

/* Others have few bytes to read for what they execute, or few rows. */
#define FETCHES (BLOCK_SIZE ? ADD_RESIDUAL && !EARLY : (LAYERNORM || sizeof(OUT) == sizeof(T)) && N > 1)

DEVICE void fetch_row_ahead(const struct norm_args &a, const struct norm_row &row)
{
    if (blockIdx.x < a.ahead.blocks && threadIdx.x == 0) {
        bulk_prefetch(row.input + a.ahead.distance * a.input_stride[0], (uint32_t)a.hidden * sizeof(T));
        if (ADD_RESIDUAL)
            bulk_prefetch(row.residual + a.ahead.distance * a.residual_stride[0], (uint32_t)a.hidden * sizeof(R));
    }
}

/* What blocks ask for late lies in the L2 cache by then. */
DEVICE void fetch_weights(const struct norm_args &a)
{
    if (ACCESS * sizeof(W) >= 16 && blockIdx.x == 0 && threadIdx.x == 0) {
        bulk_prefetch(a.weight, (uint32_t)a.hidden * sizeof(W));
        if (LAYERNORM)
            bulk_prefetch(a.beta, (uint32_t)a.hidden * sizeof(W));
    }
}

/* Over a row, of sums over the pieces of its threads. */
template <int N> DEVICE float row_sum(float (&sum)[N], int pieces, int threads, float (&scratch)[32 * PER_THREAD])
{
#if ROWS > 1
    int lane = threadIdx.x % LANES_OF_ROW;
    float *of_row = scratch + threadIdx.x % 32 / LANES_OF_ROW * 16;
    return sum_of_sums<SUMS, EACH>(lanes_sum(tree_sum(sum), LANES_OF_ROW), lane == 0, threadIdx.x / 32, lane, of_row);
#else
    return pieces_sum_first<KNOWN_PIECES, EACH>(sum, pieces, threads, scratch);
#endif
}

/* The row from the thread's first element on, before pdl_wait if it is to be prepared, else after. */
DEVICE void place_row(struct norm_row &row, const struct norm_args &a, uint32_t index, const struct norm_row &all, uint32_t first,
                      bool before)
{
    if (before == (bool)PREPARED)
        row = PREPARED ? norm_row(a, index, first) : row_from(all, first);
}

/* With N pieces a thread. */
template <int N>
DEVICE void norm_block(const struct norm_args &a, uint32_t index, const struct norm_row &all,
                       float (&scratch)[1 + LAYERNORM][32 * PER_THREAD])
{
    struct piece p[N];
    struct weights w[N];
    uint32_t most[N];
    float x[LAYERNORM ? N : 1][VEC], sum[N]; /* layernorm converts a piece three times, so it keeps that */
    int threads = PIECES ? PIECES / N : blockDim.x, pieces = PIECES ? PIECES : (int)a.hidden / VEC;
    int warp = threadIdx.x / 32, lane = threadIdx.x % LANES_OF_ROW, step = (ROWS > 1 ? LANES_OF_ROW : threads) * VEC;
    int first = SPLIT || ROWS > 1 ? warp * (32 * VEC) + lane * PART : threadIdx.x * VEC, at_first = BLOCK_SIZE ? 0 : first;
    bool inside[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        inside[i] = PIECES || (int)threadIdx.x + i * threads < pieces;

    if (!EARLY)
        pdl_launch();
    if (!WEIGHTS_FIRST(N))
        fetch_weights(a);
#pragma unroll
    for (int i = 0; WEIGHTS_FIRST(N) && i < N; i++) {
        if (inside[i])
            load_weights(w[i], a, first + i * step);
    }
    struct norm_row row;
    place_row(row, a, index, all, first, true);
    pdl_wait();
#if BLOCK_SIZE && PER_THREAD > 1
    float multiplier = output_multiplier(a);
#endif
    if (!EARLY && ROWS == 1 && !pad_row_of_block(a, all))
        return;
    bool exists = !EARLY || !(SCALES & 2) || index < rows_of(a);
    place_row(row, a, index, all, first, false);
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (inside[i] && exists)
            load_piece(p[i], row, at_first + i * step);
    }
    if (EARLY && !pad_row_of_block(a, all))
        return;
    if (FETCHES)
        fetch_row_ahead(a, all);
#if !BLOCK_SIZE || PER_THREAD == 1
    float multiplier = output_multiplier(a);
#endif
#pragma unroll
    for (int i = 0; i < N; i++) {
        float(&at)[VEC] = x[LAYERNORM ? i : 0];
        sum[i] = 0.0f;
        if (inside[i]) {
            widen_piece(at, p[i]);
            store_residual(at, row, at_first + i * step);
            sum[i] = LAYERNORM ? piece_sum(at) : piece_squares(at);
            keep_or_weigh(at, p[i], w[i], most[i], PER_THREAD > 1);
        }
    }
#if LAYERNORM
    float mean = row_sum(sum, pieces, threads, scratch[1]) * a.inverse_hidden;
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = inside[i] ? center_piece(x[i], mean) : 0.0f;
#endif
    float deviation = rsqrt_approx(row_sum(sum, pieces, threads, scratch[0]) * a.inverse_hidden + a.eps);
#if ROWS > 1
    if (index >= rows_of(a)) {
        pad_scales(a, norm_row(a, index), false, warp * LANES_OF_ROW + lane, THREADS / ROWS);
        return;
    }
#endif
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (inside[i]) {
            if (!WEIGHTS_FIRST(N))
                load_weights<true>(w[i], a, first + i * step);
#if WEIGHED && PER_THREAD == 1
            most[i] = weigh_piece(p[i], w[i], false);
#endif
            finish_kept(x[LAYERNORM ? i : 0], p[i], a, row, at_first + i * step, w[i], most[i], deviation, multiplier);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) norm_sm80(const __grid_constant__ struct norm_args a)
{
    __shared__ __align__(16) float scratch[1 + LAYERNORM][32 * PER_THREAD];
    if (EARLY)
        pdl_launch();
    uint32_t index = ROWS > 1 ? nth_row(blockIdx.x * ROWS + threadIdx.x % 32 / LANES_OF_ROW) : blockIdx.x;
    struct norm_row row = norm_row(a, ROWS > 1 && index >= rows_of(a) ? 0 : index);
    if (PER_THREAD == 1 || (!BLOCK_SIZE && a.hidden <= (int64_t)blockDim.x * VEC))
        norm_block<1>(a, index, row, scratch);
    else
        norm_block<PER_THREAD>(a, index, row, scratch);
}
