/* SPDX-License-Identifier: Apache-2.0 */
/* A norm of rows that a block holds in registers, so that each is read once: block x has row x. A thread holds up to PER_THREAD
 * pieces of VEC elements; piece i starts at element (i * threads + threadIdx.x) * VEC. Many threads with one piece each answer
 * soonest and have code of their own beside that of PER_THREAD pieces (to e2m1, whose code is long, in a kernel of their own);
 * few with PER_THREAD pieces keep most bytes in flight. The bits are the same.
 *
 *   PER_THREAD 1, 2, 4; blockDim.x * VEC * PER_THREAD >= hidden
 *   PIECES     0; or those of a row, which blockDim.x threads have one of each, or PER_THREAD of each: addresses are constants
 *              then
 *   others     see norm.cuh
 * Shared memory: 32 * PER_THREAD floats, twice for LAYERNORM. */
#define FOR_32_BITS (VEC == 8 && (sizeof(W) == 4 || sizeof(R) == 4))
#define SPLIT (PIECES && ACCESS == VEC && sizeof(T) == 2 && (FOR_32_BITS || (BLOCK_SIZE && ADD_RESIDUAL)))
#include "norm.cuh"
#include "prefetch.cuh"

/* How many sums of warps a thread adds by itself. Other kernels than these are slower if it adds any. */
enum { EACH = BLOCK_SIZE ? 16 : 4, KNOWN_PIECES = (BLOCK_SIZE ? !ADD_RESIDUAL : ADD_RESIDUAL || LAYERNORM) ? PIECES : 0 };

/* Of a multiprocessor: silu to e2m1 waits for its arithmetic, and for warps that load meanwhile. 56 registers suffice for so
 * many threads, in at most 32 blocks. */
enum { RESIDENT = 1152, THREADS = BLOCK_SIZE && SILU && PIECES ? PIECES / PER_THREAD : MAX_THREADS };
enum { BLOCKS = !BLOCK_SIZE || !SILU ? 1 : THREADS > RESIDENT / 32 ? RESIDENT / THREADS : 32 };

/* Others have few bytes to read for what they execute, or few rows. */
#define FETCHES (BLOCK_SIZE ? ADD_RESIDUAL : (LAYERNORM || sizeof(OUT) == sizeof(T)) && N > 1)

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

/* With N pieces a thread. */
template <int N>
DEVICE void norm_block(const struct norm_args &a, const struct norm_row &all, float (&scratch)[1 + LAYERNORM][32 * PER_THREAD])
{
    struct piece p[N];
    struct weights w[N];
    float x[LAYERNORM ? N : 1][VEC], sum[N]; /* layernorm converts a piece three times, so it keeps that */
    int threads = PIECES ? PIECES / N : blockDim.x, pieces = PIECES ? PIECES : (int)a.hidden / VEC;
    int first = SPLIT ? threadIdx.x / 32 * (32 * VEC) + threadIdx.x % 32 * PART : threadIdx.x * VEC, step = threads * VEC;
    bool inside[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        inside[i] = PIECES || (int)threadIdx.x + i * threads < pieces;

    pdl_launch();
    if (!WEIGHTS_FIRST(N))
        fetch_weights(a);
#pragma unroll
    for (int i = 0; WEIGHTS_FIRST(N) && i < N; i++) {
        if (inside[i])
            load_weights(w[i], a, first + i * step);
    }
    pdl_wait();
#if BLOCK_SIZE
    if (!pad_row_of_block(a, all))
        return;
    struct norm_row row = row_from(all, first);
    enum { at_first = 0 };
#else
    const struct norm_row &row = all;
    int at_first = first;
#endif
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (inside[i])
            load_piece(p[i], row, at_first + i * step);
    }
    if (FETCHES)
        fetch_row_ahead(a, all);
    float multiplier = output_multiplier(a);
#pragma unroll
    for (int i = 0; i < N; i++) {
        float(&at)[VEC] = x[LAYERNORM ? i : 0];
        sum[i] = 0.0f;
        if (inside[i]) {
            widen_piece(at, p[i]);
            store_residual(at, row, at_first + i * step);
            sum[i] = LAYERNORM ? piece_sum(at) : piece_squares(at);
#if !LAYERNORM
            keep_piece(p[i]);
#endif
        }
    }
#if LAYERNORM
    float mean = pieces_sum_first<KNOWN_PIECES, EACH>(sum, pieces, threads, scratch[1]) * a.inverse_hidden;
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = inside[i] ? center_piece(x[i], mean) : 0.0f;
#endif
    float square = pieces_sum_first<KNOWN_PIECES, EACH>(sum, pieces, threads, scratch[0]) * a.inverse_hidden;
    float deviation = rsqrt_approx(square + a.eps);
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (inside[i]) {
            if (!WEIGHTS_FIRST(N))
                load_weights(w[i], a, first + i * step);
#if WEIGHED
            finish_weighed(p[i], row, at_first + i * step, w[i], deviation, multiplier);
#else
            if (!LAYERNORM)
                widen_piece(x[0], p[i]);
            finish_piece(x[LAYERNORM ? i : 0], a, row, at_first + i * step, w[i], deviation, multiplier);
#endif
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) norm_sm80(const __grid_constant__ struct norm_args a)
{
    __shared__ __align__(16) float scratch[1 + LAYERNORM][32 * PER_THREAD];
    struct norm_row row = norm_row(a, blockIdx.x);
    if (PER_THREAD == 1 || (!BLOCK_SIZE && a.hidden <= (int64_t)blockDim.x * VEC))
        norm_block<1>(a, row, scratch);
    else
        norm_block<PER_THREAD>(a, row, scratch);
}
