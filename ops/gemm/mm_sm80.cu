/* SPDX-License-Identifier: Apache-2.0 */
/* mm on the tensor cores of sm_80 and later: out[m][n] = sum over k of a[m][k] * b[k][n], + bias[n].
 *
 * A block takes a tile of BLOCK_M rows and BLOCK_N columns, its warps WARPS_M x WARPS_N pieces of that. It
 * goes through k in steps of 64 elements with STAGES buffers in shared memory, of which all but one are on
 * their way while one is multiplied. Rows of a buffer are divided in 16-byte chunks, whose places are
 * exchanged so that neither copies nor ldmatrix meet bank conflicts. Eight columns of tiles run side by side,
 * for the L2 cache. Sums run along k in the same order in every variant, so an output's bits depend on its
 * row of a and its column of b only.
 *
 *   T        f16, bf16
 *   OUT      f16, bf16, f32
 *   BLOCK_M, BLOCK_N, WARPS_M, WARPS_N: a warp's piece is a multiple of 16 x 16
 *   STAGES   2..8
 *   LOADER   MM_ANY_STRIDES:        element by element, whatever the strides of b and the alignment
 *            MM_COLUMNS_CONTIGUOUS: a's rows and b's columns, 16 bytes at a time; bases and strides are
 *                                   multiples of that
 *            MM_ROWS_CONTIGUOUS:    the same with b's rows
 * Shared memory: STAGES * (BLOCK_M + BLOCK_N) * 128 bytes, dynamic. */
#include "mma.cuh"
#include "pdl.cuh"
#include "vec.cuh"
#include "mm_args.h"

enum {
    THREADS = 32 * WARPS_M * WARPS_N,
    DEPTH = 64,
    CHUNK = 8, /* elements */
    TILE_A = BLOCK_M * DEPTH,
    TILE_B = BLOCK_N * DEPTH,
    WARP_M = BLOCK_M / WARPS_M,
    WARP_N = BLOCK_N / WARPS_N
};

struct smem {
    T a[STAGES][TILE_A]; /* [BLOCK_M][DEPTH] */
    T b[STAGES][TILE_B]; /* [BLOCK_N][DEPTH], or [DEPTH][BLOCK_N] if MM_ROWS_CONTIGUOUS */
};

/* Where chunk `chunk` of row `row` lies in a tile whose rows have `chunks` of them, in elements. */
DEVICE int place(int row, int chunk, int chunks)
{
    int exchanged = chunks >= 8 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & (chunks - 1));
    return (row * chunks + exchanged) * CHUNK;
}

/* How this thread copies its chunks of one operand's tiles: chunk `x` of rows y, y + ROWS, ... */
struct source {
    const T *from;                         /* its first element in the tile at hand */
    const T *base;                         /* an address that may be read */
    int64_t row_stride, column_stride;     /* of the matrix, in elements */
    int rows_left, columns_left;           /* from there to the matrix' end */
    int to;                                /* its first place in a tile */
};

DEVICE struct source source_of(const void *matrix, int chunks, int64_t row, int64_t column, int64_t row_end,
                               int64_t column_end, int64_t row_stride, int64_t column_stride)
{
    int y = threadIdx.x / chunks, x = threadIdx.x % chunks;
    struct source s;
    row += y;
    column += x * CHUNK;
    s.from = (const T *)matrix + row * row_stride + column * column_stride;
    s.base = (const T *)matrix;
    s.row_stride = row_stride;
    s.column_stride = column_stride;
    s.rows_left = (int)(row_end - row);
    s.columns_left = (int)(column_end - column);
    s.to = place(y, x, chunks);
    return s;
}

/* Copies this thread's part of a tile of `rows` rows with `chunks` chunks each; what lies outside of the
 * matrix is zero. */
DEVICE void load_tile(T *tile, const struct source &s, int rows, int chunks)
{
    int rows_at_once = THREADS / chunks;
    int columns = s.columns_left < CHUNK ? max(s.columns_left, 0) : CHUNK;
#pragma unroll
    for (int i = 0; i < rows / rows_at_once; i++) {
        int count = i * rows_at_once < s.rows_left ? columns : 0;
        const T *from = s.from + i * rows_at_once * s.row_stride;
        T *to = tile + s.to + i * rows_at_once * chunks * CHUNK;
#if LOADER == MM_ANY_STRIDES
        vec_elements<T, CHUNK> v;
#pragma unroll
        for (int j = 0; j < CHUNK; j++)
            v.at[j].bits = j < count ? from[j * s.column_stride].bits : 0;
        store_vec(to, v.all);
#else
        cp_async_16(shared_address(to), count ? from : s.base, count * (int)sizeof(T));
#endif
    }
}

/* Each call takes the next DEPTH elements of k. */
DEVICE void load_a(struct smem *s, int stage, struct source &a)
{
    load_tile(s->a[stage], a, BLOCK_M, DEPTH / CHUNK);
    a.from += DEPTH;
    a.columns_left -= DEPTH;
}

DEVICE void load_b(struct smem *s, int stage, struct source &b)
{
#if LOADER == MM_ROWS_CONTIGUOUS
    load_tile(s->b[stage], b, DEPTH, BLOCK_N / CHUNK);
    b.from += DEPTH * b.row_stride;
    b.rows_left -= DEPTH;
#else
    load_tile(s->b[stage], b, BLOCK_N, DEPTH / CHUNK);
    b.from += DEPTH * b.column_stride;
    b.columns_left -= DEPTH;
#endif
}

/* sum += this warp's piece of a and b, one stage. */
DEVICE void multiply(float (&sum)[WARP_M / 16][WARP_N / 8][4], const T *a, const T *b, int warp_row, int warp_column)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < DEPTH / CHUNK; k += 2) {
        uint32_t x[WARP_M / 16][4], y[WARP_N / 16][4];
#pragma unroll
        for (int i = 0; i < WARP_M / 16; i++)
            ldmatrix_x4(x[i], shared_address(a + place(warp_row + 16 * i + lane % 16, k + lane / 16, DEPTH / CHUNK)));
#pragma unroll
        for (int j = 0; j < WARP_N / 16; j++)
#if LOADER == MM_ROWS_CONTIGUOUS
            ldmatrix_x4_trans(y[j], shared_address(b + place(CHUNK * k + lane % 16,
                                                             (warp_column + 16 * j) / CHUNK + lane / 16,
                                                             BLOCK_N / CHUNK)));
#else
            ldmatrix_x4(y[j], shared_address(b + place(warp_column + 16 * j + lane % 8 + lane / 16 * 8,
                                                       k + lane / 8 % 2, DEPTH / CHUNK)));
#endif
#pragma unroll
        for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
            for (int j = 0; j < WARP_N / 8; j++) {
                uint32_t b_fragment[2] = {y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]};
                mma_m16n8k16(sum[i][j], x[i], b_fragment, T());
            }
    }
}

/* Two neighbouring outputs of row `row`. */
DEVICE void store_pair(const struct mm_args &p, int64_t row, int64_t column, float first, float second)
{
    if (row >= p.m || column >= p.n)
        return;
    const T *bias = (const T *)p.bias;
    OUT *out = (OUT *)p.out + row * p.out_stride + column;
    bool both = column + 1 < p.n;
    float y[2] = {first, second};
    if (bias) {
        y[0] += to_float(bias[column]);
        y[1] += both ? to_float(bias[column + 1]) : 0.0f;
    }
    if (both && (uint64_t)out % (2 * sizeof(OUT)) == 0) {
        store(out, y);
    } else {
        from_float(out, y[0]);
        if (both)
            from_float(out + 1, y[1]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) mm_sm80(const __grid_constant__ struct mm_args p)
{
    extern __shared__ __align__(128) unsigned char dynamic[];
    struct smem *s = (struct smem *)dynamic;
    int64_t tiles_m = (p.m + BLOCK_M - 1) / BLOCK_M, tiles_n = (p.n + BLOCK_N - 1) / BLOCK_N;
    int64_t band = blockIdx.x / (tiles_m * 8), in_band = blockIdx.x % (tiles_m * 8);
    int64_t width = tiles_n - band * 8 < 8 ? tiles_n - band * 8 : 8;
    int64_t row = in_band / width * BLOCK_M, column = (band * 8 + in_band % width) * BLOCK_N;
    int steps = (int)((p.k + DEPTH - 1) / DEPTH);
    int warp = threadIdx.x / 32;
    int warp_row = warp / WARPS_N * WARP_M, warp_column = warp % WARPS_N * WARP_N;
    float sum[WARP_M / 16][WARP_N / 8][4] = {};

    struct source a = source_of(p.a, DEPTH / CHUNK, row, 0, p.m, p.k, p.a_stride, 1);
#if LOADER == MM_ROWS_CONTIGUOUS
    struct source b = source_of(p.b, BLOCK_N / CHUNK, 0, column, p.k, p.n, p.b_k_stride, 1);
#else
    struct source b = source_of(p.b, DEPTH / CHUNK, column, 0, p.n, p.k, p.b_n_stride, p.b_k_stride);
#endif

    /* b is constant: it can be fetched while the previous kernel still writes a. */
#pragma unroll 1
    for (int stage = 0; stage < STAGES - 1 && stage < steps; stage++)
        load_b(s, stage, b);
    pdl_wait();
#pragma unroll 1
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < steps)
            load_a(s, stage, a);
        cp_async_commit();
    }
    pdl_launch();

    int now = 0, free = STAGES - 1;
    for (int step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < steps) {
            load_a(s, free, a);
            load_b(s, free, b);
        }
        cp_async_commit();
        multiply(sum, s->a[now], s->b[now], warp_row, warp_column);
        now = now + 1 == STAGES ? 0 : now + 1;
        free = free + 1 == STAGES ? 0 : free + 1;
    }

    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j++) {
            int64_t y = row + warp_row + 16 * i + g, x = column + warp_column + 8 * j + 2 * t;
            store_pair(p, y, x, sum[i][j][0], sum[i][j][1]);
            store_pair(p, y + 8, x, sum[i][j][2], sum[i][j][3]);
        }
}
