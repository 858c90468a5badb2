/* SPDX-License-Identifier: Apache-2.0 */
/* The first kernel of chunk_gated_delta_rule on sm_80, parallel over chunks of 64 tokens: T, P and factors of each
 * (gated_delta_tile_sm80.cuh). K K^T and Q K^T are made once for `heads` heads that share q and k; a warp has 16 rows of them.
 *
 *   T         f16, bf16
 *   HEAD_DIM  64, 128
 * Grid: max_chunks, num_heads / sharers / heads; 128 threads. Dynamic shared memory: struct smem. */
#include "gated_delta_copies_sm80.cuh"
#include "gated_delta_tile_sm80.cuh"
#include "pdl.cuh"

/* By a whole warp: the last sequence whose tiles begin at that one or before. */
DEVICE int find_sequence(const struct gated_delta_args &a, int tile)
{
    int sequence = -1;
    for (int first = 0; first < a.num_sequences; first += 32) {
        int own = first + lane_id();
        uint32_t begun = __ballot_sync(0xffffffffu, own < a.num_sequences && first_tile(a, own) <= tile);
        sequence += __popc(begun);
        if (begun != 0xffffffffu)
            break;
    }
    return sequence;
}

/* K K^T and Q K^T, of a warp's 16 tokens and those up to them. */
DEVICE void multiply_keys(float (&kk)[32], float (&qk)[32], const struct place &p)
{
    uint32_t rows = at_rows(p.tile), own = at_slab(p.tile, 16 * p.warp + p.lane % 16, p.lane / 16);
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++) {
        uint32_t of_k[4], of_q[4];
        ldmatrix_x4(of_k, pieces_on(own, k));
        ldmatrix_x4(of_q, pieces_on(own, k) + 2 * SLAB_BYTES);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i > p.warp)
                continue;
            multiply_rows(kk + 8 * i, of_k, rows, i, k);
            multiply_rows(qk + 8 * i, of_q, rows, i, k);
        }
    }
}

DEVICE void put_unit(struct gated_delta_gates *gates, int token, float unit)
{
    gates->unit[token] = (int)(__float_as_uint(unit) >> 23) - 127;
}

extern "C" __global__ void __launch_bounds__(128, 3)
    gated_delta_tiles_sm80(const __grid_constant__ struct gated_delta_sm80_args args)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    struct smem *sm = (struct smem *)shared;
    const struct gated_delta_args &a = args.a;
    struct place p = make_place(sm);
    pdl_wait();
    pdl_launch();
    int slot = blockIdx.x, row = blockIdx.y * args.heads, head = row * args.sharers, sequence = find_sequence(a, slot);
    int64_t begin = sequence_begin(&a, sequence), token = begin + (slot - first_tile(a, sequence)) * CHUNK;
    int length = (int)min((int64_t)CHUNK, sequence_begin(&a, sequence + 1) - token);
    if (length <= 0)
        return;
    copy_rows<128>(p.tile, first_piece(a.k, token, head / a.k_group), a.k.token, length);
    copy_rows<128>(p.tile + 2 * SLAB_BYTES, first_piece(a.q, token, head / a.q_group), a.q.token, length);
    cp_async_commit();
    float c[2], kk[32] = {}, qk[32] = {};
    struct gated_delta_tile *tile = args.tiles + (int64_t)row * args.max_chunks + slot;
    if (p.warp < args.heads)
        sum_logarithms(a, sm, token, length, head + p.warp, p.warp, c);
    cp_async_wait<0>();
    __syncthreads();
    if (a.l2norm) {
        find_norms(sm);
        __syncthreads();
    }
    if (p.warp < args.heads)
        write_gates(a, sm, &tile[(int64_t)p.warp * args.max_chunks].gates, p.warp, length, c, a.l2norm);
    multiply_keys(kk, qk, p);
    normalise(sm, kk, qk, p, a);
    lower_queries(qk, tile, args.max_chunks, args.heads, 16 * p.warp + p.row);
    __syncthreads();
#pragma unroll 1
    for (int h = 0; h < args.heads; h++, tile += args.max_chunks) {
        /* Else the compiler keeps addresses in registers that are not there. */
        forget(p.pair);
        forget(p.row);
        forget(p.lane);
        const unsigned char *image = sm->tile[0] + (make_image(sm, kk, qk, p, h) - p.tile);
        __syncthreads();
        for (int i = threadIdx.x; i < 2 * GATED_DELTA_MATRIX_BYTES / 16; i += 128)
            ((uint4 *)tile->t)[i] = ((const uint4 *)image)[i];
    }
}
