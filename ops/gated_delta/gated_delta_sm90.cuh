/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels of the gated delta rule on sm_90a share: where chunks and states lie. */
#ifndef GATED_DELTA_SM90_CUH
#define GATED_DELTA_SM90_CUH

#include "gated_delta_chunk.cuh"
#include "hopper.cuh"
#include "math.cuh"
#include "mma.cuh"
#include "pdl.cuh"
#include "vec.cuh"
#include "wgmma.cuh"

enum { HEAD_DIM = 128 };

/* Of T and P, and of what meets them. The errors of f16 are an eighth of bf16's. */
#if F16_MATRICES
typedef f16 Matrix;
#elif defined T
typedef T Matrix;
#endif

DEVICE int chunks_of(const struct gated_delta_args &a, int sequence)
{
    return sequence < a.num_sequences
               ? (int)((sequence_begin(&a, sequence + 1) - sequence_begin(&a, sequence) + CHUNK - 1) / CHUNK)
               : 0;
}

/* By a whole warp: the first token of a chunk, counted over all sequences, and how many it has; 0: there is no such chunk. */
DEVICE int find_chunk(const struct gated_delta_args &a, int chunk, int &token)
{
    int before = 0;
    for (int first = 0; first < a.num_sequences; first += 32) {
        int sequence = min(first + lane_id(), (int)a.num_sequences - 1);
        int from = (int)sequence_begin(&a, sequence), to = (int)sequence_begin(&a, sequence + 1);
        int own = first + lane_id() < a.num_sequences ? (to - from + CHUNK - 1) / CHUNK : 0, end = own;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            int lower = __shfl_up_sync(0xffffffffu, end, step);
            end += lane_id() >= step ? lower : 0;
        }
        uint32_t beyond = __ballot_sync(0xffffffffu, chunk < before + end);
        if (beyond) {
            int lane = __ffs(beyond) - 1;
            token = __shfl_sync(0xffffffffu, from + (chunk - before - end + own) * CHUNK, lane);
            return min((int)CHUNK, __shfl_sync(0xffffffffu, to, lane) - token);
        }
        before += __shfl_sync(0xffffffffu, end, 31);
    }
    return 0;
}

/* Of a chunk and a row of tiles. */
DEVICE struct gated_delta_tile *tile_at(const struct gated_delta_sm90_args &p, int row, int chunk)
{
    return p.tiles + (int64_t)row * p.max_chunks + chunk;
}

/* Flags. row: of tiles. */
DEVICE int32_t *chunk_ready(const struct gated_delta_sm90_args &p, int row, int chunk)
{
    return p.ready + (int64_t)(row / p.heads) * p.max_chunks + chunk;
}
DEVICE int32_t *schedule_ready(const struct gated_delta_sm90_args &p)
{
    return chunk_ready(p, p.a.num_heads / p.sharers, 0);
}

/* [cuts, num_heads, 128, 128] at a cut and a head. */
DEVICE float *state_at(float *states, const struct gated_delta_sm90_args &p, int cut, int head)
{
    return states + ((int64_t)cut * p.a.num_heads + head) * GATED_DELTA_STATE;
}

/* The state that a piece of a sequence begins with: that at the cut before it; of the first one, a copy of the initial state,
 * which the last one may overwrite before the first one begins. */
DEVICE const float *joined_state(const struct gated_delta_sm90_args &p, const struct gated_delta_segment &s, int head)
{
    return s.first ? state_at(p.after, p, s.cut - 1, head) : state_at(p.through, p, s.cut, head);
}

/* 16-byte pieces of a tile's rows from `length` on, in slabs of 64 rows of 128 bytes, become 0: by `threads` threads. */
DEVICE void clear_rows(unsigned char *slabs, int num_slabs, int length, int thread, int threads)
{
    int pieces = (CHUNK - length) * 8;
    for (int i = thread; i < pieces * num_slabs; i += threads)
        *(uint4 *)(slabs + i / pieces * SLAB_BYTES + length * 128 + i % pieces * 16) = make_uint4(0, 0, 0, 0);
}

#endif
