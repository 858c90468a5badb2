/* SPDX-License-Identifier: Apache-2.0 */
/* mm with at most 16 rows of a: out[m][n] = dot(a[m], b[n]) + bias[n], where each column of b is contiguous
 * (the weights of a decoder).
 *
 * What limits it is reading b, once, and a as seldom as can be. The BLOCKS blocks of a cluster divide k, and take tiles of
 * COLUMNS columns, one after the other, as far apart as there are clusters. The warps of a block share its part of k: in round r
 * warp w takes the CHUNK elements from (r * WARPS + w) * CHUNK on. What CHUNKS rounds need of a stays in registers while a block
 * goes through its tiles; where there are more rounds it goes through them again, and sums wait in shared memory meanwhile. Each
 * warp has a ring of STAGES chunks of b in shared memory, all but one on their way, and waits for others only at the end of a
 * tile, when the next one is on its way already. The first chunks of b are fetched before the kernels ahead have finished. Lane
 * 4g + t takes elements 8t .. 8t + 7 of half a chunk from column g of b and from rows g and g + 8 of a; two m16n8k16 take them
 * as they are, in an order of k that is the same for both operands. The warps' sums are added in their order, then the blocks'.
 *
 *   T       f16, bf16
 *   OUT     f16, bf16, f32
 *   WARPS   1..16
 *   ROUNDS  of a tile
 *   BLOCKS  1, 2; 2 from sm_90 on
 *   STAGES  3, 4
 * Alignment: a, b and their strides are multiples of 8 elements, and so is k, at most 2^30. Shared memory, dynamic: for each warp
 * its ring and its sums of two tiles, for each tile of a block its sums if they wait, for each tile of a cluster its blocks'. */
#include "cluster.cuh"
#include "mma.cuh"
#include "pdl.cuh"
#include "mm_args.h"

enum { COLUMNS = MM_SMALL_M_COLUMNS, GROUPS = COLUMNS / 8, OUTPUTS = MM_SMALL_M_OUTPUTS };
enum { CHUNK = MM_SMALL_M_CHUNK, STAGE = COLUMNS * CHUNK, ROUND = WARPS * CHUNK };
enum { PASSES = (ROUNDS + 3) / 4, CHUNKS = (ROUNDS + PASSES - 1) / PASSES };

/* What a block does: its part of k of its cluster's tiles. */
struct part {
    int begin, end;
    int tile, tiles, step;
};

/* What this lane fetches, 16 bytes of every fourth column: where they begin in b and in the ring, the element of k, the column of
 * the tile. Then what comes next: the tile, the round, the first round of the pass, and the stage. */
struct reader {
    const T *from;
    uint32_t to;
    int at, column;
    int tile, round, first, stage;
};

DEVICE struct part part_of_block(const struct mm_args &p)
{
    int length = MM_SMALL_M_PART((int)p.k, BLOCKS), begin = (int)(blockIdx.x % BLOCKS) * length;
    struct part s = {begin, min((int)p.k, begin + length), (int)(blockIdx.x / BLOCKS), (int)((p.n + COLUMNS - 1) / COLUMNS),
                     (int)(gridDim.x / BLOCKS)};
    return s;
}

/* Where 16 bytes of a column lie in a stage: those that lanes read or write at once, in different banks. */
DEVICE int place(int column, int piece) { return column * CHUNK + (piece ^ (column & 1) << 2) * 8; }

DEVICE struct reader reader_of_lane(T *ring, const struct part &s, const struct mm_args &p)
{
    int column = threadIdx.x % 32 / 8, piece = threadIdx.x % 8, at = s.begin + (int)threadIdx.x / 32 * CHUNK + 8 * piece;
    struct reader r = {(const T *)p.b + column * p.b_n_stride + at, shared_address(ring + place(column, piece)), at, column,
                       s.tile};
    return r;
}

/* Asks for the next chunk; what lies outside of b or of the part is zero. */
DEVICE void fetch(struct reader &r, const struct part &s, const struct mm_args &p)
{
    const T *from = r.from + (int64_t)r.tile * COLUMNS * p.b_n_stride + r.round * ROUND;
    uint32_t to = r.to + r.stage * STAGE * (int)sizeof(T);
    if (r.round < ROUNDS) {
#pragma unroll
        for (int i = 0; i < COLUMNS; i += 4) {
            bool inside = r.at + r.round * ROUND < s.end && (int64_t)r.tile * COLUMNS + r.column + i < p.n;
            cp_async_16(to + i * CHUNK * (int)sizeof(T), inside ? from + i * p.b_n_stride : (const T *)p.b, inside ? 16 : 0);
        }
    }
    cp_async_commit();
    r.stage = r.stage + 1 == STAGES ? 0 : r.stage + 1;
    if (++r.round == min(r.first + CHUNKS, ROUNDS)) {
        r.tile += s.step;
        if (r.tile >= s.tiles) {
            r.tile = s.tile;
            r.first += CHUNKS;
        }
        r.round = r.first;
    }
}

/* This lane's elements of the chunks of a pass of a row of a. */
DEVICE void load_a(uint4 (&x)[CHUNKS][2], int row, int first, const struct part &s, const struct mm_args &p)
{
    int from = s.begin + first * ROUND + (int)threadIdx.x / 32 * CHUNK + threadIdx.x % 4 * 8;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int at = from + c * ROUND + 32 * i;
            x[c][i] = make_uint4(0, 0, 0, 0);
            if (row < p.m && at < s.end)
                x[c][i] = *(const uint4 *)((const T *)p.a + row * p.a_stride + at);
        }
}

/* sum += a chunk of a times one of b, of which this lane's elements begin at b[0] and b[1]. */
DEVICE void multiply(float (&sum)[GROUPS][4], const uint4 (&low)[2], const uint4 (&high)[2], const T *const (&b)[2], int stage)
{
#pragma unroll
    for (int c = 0; c < 2; c++) {
        uint32_t a0[4] = {low[c].x, high[c].x, low[c].y, high[c].y}, a1[4] = {low[c].z, high[c].z, low[c].w, high[c].w};
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            uint4 w = *(const uint4 *)(b[c] + stage * STAGE + 8 * i * CHUNK);
            uint32_t b0[2] = {w.x, w.y}, b1[2] = {w.z, w.w};
            mma_m16n8k16(sum[i], a0, b0, T());
            mma_m16n8k16(sum[i], a1, b1, T());
        }
    }
}

/* Where the sum of output i of a tile lies among those of a warp, which are in the order in which its lanes have them. */
DEVICE int fragment(int i)
{
    int row = i / COLUMNS, column = i % COLUMNS;
    return column / 8 * 128 + row % 8 * 16 + column % 8 / 2 * 4 + row / 8 * 2 + column % 2;
}

DEVICE bool exists(const struct mm_args &p, int tile, int i)
{
    return i / COLUMNS < p.m && (int64_t)tile * COLUMNS + i % COLUMNS < p.n;
}

DEVICE void put(const struct mm_args &p, int tile, int i, float y)
{
    int64_t n = (int64_t)tile * COLUMNS + i % COLUMNS;
    if (p.bias)
        y += to_float(((const T *)p.bias)[n]);
    from_float((OUT *)p.out + i / COLUMNS * p.out_stride + n, y);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) mm_small_m_sm80(const __grid_constant__ struct mm_args p)
{
    extern __shared__ __align__(128) unsigned char dynamic[];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, parity = 0, stage = 0;
    T *ring = (T *)dynamic + warp * STAGES * STAGE;
    float(*partial)[WARPS][OUTPUTS] = (float(*)[WARPS][OUTPUTS])((T *)dynamic + WARPS * STAGES * STAGE);
    float(*waiting)[OUTPUTS] = partial[2];
    const struct part s = part_of_block(p);
    const int rank = blockIdx.x % BLOCKS, turns = (s.tiles + s.step - 1) / s.step;
    float(*joint)[BLOCKS][OUTPUTS] = (float(*)[BLOCKS][OUTPUTS])(waiting + (PASSES > 1 ? turns : 0));
    const T *const b[2] = {ring + place(lane / 4, lane % 4), ring + place(lane / 4, 4 + lane % 4)};
    struct reader reader = reader_of_lane(ring, s, p);

#pragma unroll 1
    for (int i = 0; i < STAGES - 1; i++)
        fetch(reader, s, p);
    pdl_launch();
#if BLOCKS > 1
    cluster_leave(); /* nobody writes to what has not begun */
#endif
    pdl_wait();
    for (int first = 0; first < ROUNDS; first += CHUNKS) {
        uint4 low[CHUNKS][2], high[CHUNKS][2];
        load_a(low, lane / 4, first, s, p);
        load_a(high, lane / 4 + 8, first, s, p);
        for (int tile = s.tile, turn = 0; tile < s.tiles; tile += s.step, turn++) {
            float sum[GROUPS][4] = {};
#pragma unroll
            for (int c = 0; c < CHUNKS; c++)
                if (first + c < ROUNDS) {
                    cp_async_wait<STAGES - 2>();
                    __syncwarp();
                    fetch(reader, s, p);
                    multiply(sum, low[c], high[c], b, stage);
                    stage = stage + 1 == STAGES ? 0 : stage + 1;
                }
#pragma unroll
            for (int i = 0; i < GROUPS; i++)
                *(float4 *)&partial[parity][warp][128 * i + 4 * lane] = make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
            __syncthreads();
            for (int i = threadIdx.x; i < OUTPUTS && exists(p, tile, i); i += 32 * WARPS) {
                float y = first ? waiting[turn][i] : 0.0f;
#pragma unroll
                for (int j = 0; j < WARPS; j++)
                    y += partial[parity][j][fragment(i)];
                if (first + CHUNKS < ROUNDS)
                    waiting[turn][i] = y;
                else if (BLOCKS > 1)
                    cluster_store(&joint[turn / BLOCKS][rank][i], turn % BLOCKS, y);
                else
                    put(p, tile, i, y);
            }
            parity ^= 1;
        }
    }
#if BLOCKS > 1
    cluster_sync();
    for (int i = threadIdx.x; i < (turns + BLOCKS - 1) / BLOCKS * OUTPUTS; i += 32 * WARPS) {
        int tile = s.tile + (i / OUTPUTS * BLOCKS + rank) * s.step;
        float y = 0.0f;
#pragma unroll
        for (int j = 0; j < BLOCKS; j++)
            y += joint[i / OUTPUTS][j][i % OUTPUTS];
        if (exists(p, tile, i % OUTPUTS))
            put(p, tile, i % OUTPUTS, y);
    }
#endif
}
