/* SPDX-License-Identifier: Apache-2.0 */
/* The first kernel of chunk_gated_delta_rule on sm_90a, parallel over chunks of 64 tokens: T, P and factors of each
 * (gated_delta_tile.cuh). K K^T and Q K^T are made once for `heads` heads that share q and k.
 *
 *   T  f16, bf16
 * The last block, which seldom has a chunk, lists the segments for the kernels that follow.
 * Grid: max_chunks, num_heads / heads; 128 threads. Dynamic shared memory: struct smem. */
#include "gated_delta_schedule_sm90.cuh"
#include "gated_delta_tile.cuh"

/* K K^T and Q K^T */
DEVICE void multiply_keys(float (&kk)[32], float (&qk)[32], const struct place &p)
{
    uint64_t keys = wgmma_describe(p.tile, 0, 1024), queries = wgmma_describe(p.tile + 2 * SLAB_BYTES, 0, 1024);
    wgmma_pin(kk);
    wgmma_pin(qk);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 8; k++)
        wgmma(kk, keys + (k / 4 * SLAB_BYTES + k % 4 * 32) / 16, keys + (k / 4 * SLAB_BYTES + k % 4 * 32) / 16, k != 0, T());
#pragma unroll
    for (int k = 0; k < 8; k++)
        wgmma(qk, queries + (k / 4 * SLAB_BYTES + k % 4 * 32) / 16, keys + (k / 4 * SLAB_BYTES + k % 4 * 32) / 16, k != 0, T());
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_pin(kk);
    wgmma_pin(qk);
}

/* T and P of a head, its tile. */
DEVICE void make_head(const struct gated_delta_sm90_args &args, struct smem *sm, const float (&kk)[32], const float (&qk)[32],
                      const struct place &p, int h, struct gated_delta_tile *tile)
{
    uint32_t image = make_image(sm, kk, qk, p, h, args.a.scale);
    shared_async_fence();
    bulk_wait_read<0>();
    __syncthreads();
    if (threadIdx.x == 0) {
        bulk_store(tile->t, image, 2 * GATED_DELTA_MATRIX_BYTES);
        bulk_commit();
    }
}

extern "C" __global__ void __launch_bounds__(128, 4)
    gated_delta_tiles_sm90(const __grid_constant__ struct gated_delta_sm90_args args)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    struct smem *sm = (struct smem *)shared;
    const struct gated_delta_args &a = args.a;
    struct place p = make_place(sm);
    uint32_t full = shared_address(&sm->full);
    if (threadIdx.x == 0) {
        mbarrier_init(full, 1);
        mbarrier_init_fence();
        tensor_map_prefetch(&args.q);
        tensor_map_prefetch(&args.k);
    }
    __syncthreads();
    pdl_wait();
    pdl_launch();
    if (blockIdx.x == gridDim.x - 1 && blockIdx.y == 0 && p.warp == 0)
        make_schedule(args);
    int index, chunk = blockIdx.x, head = blockIdx.y * args.heads, sequence = find_chunk(a, chunk, index);
    if (sequence == a.num_sequences)
        return;
    int64_t token = sequence_begin(&a, sequence) + (int64_t)index * CHUNK;
    int length = (int)min((int64_t)CHUNK, sequence_begin(&a, sequence + 1) - token);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect(full, 4 * SLAB_BYTES);
        tensor_load_4d(p.tile, &args.k, full, 0, (int)token, 0, head / a.k_group);
        tensor_load_4d(p.tile + 2 * SLAB_BYTES, &args.q, full, 0, (int)token, 0, head / a.q_group);
    }
    float c[2], kk[32], qk[32];
    struct gated_delta_tile *tile = args.tiles + (int64_t)head * args.max_chunks + chunk;
    struct gated_delta_gates *gates = &tile[(int64_t)p.warp * args.max_chunks].gates;
    if (p.warp < args.heads)
        sum_logarithms(a, sm, token, length, head + p.warp, p.warp, c);
    if (p.warp < args.heads && !a.l2norm)
        write_gates(a, sm, gates, length, c, false);
    mbarrier_wait(full, 0);
    if (length < CHUNK) {
        clear_rows(sm->tile[0], 4, length, threadIdx.x, 128);
        shared_async_fence();
        __syncthreads();
    }
    if (a.l2norm) {
        find_norms(sm);
        __syncthreads();
        if (p.warp < args.heads)
            write_gates(a, sm, gates, length, c, true);
    }
    multiply_keys(kk, qk, p);
    if (a.l2norm)
        normalise(sm, kk, qk, p);
    __syncthreads();
#pragma unroll 1
    for (int h = 0; h < args.heads; h++) {
        /* Else the compiler keeps addresses in registers that are not there. */
        forget(p.pair);
        forget(p.row);
        forget(p.lane);
        make_head(args, sm, kk, qk, p, h, tile + (int64_t)h * args.max_chunks);
    }
    bulk_wait_read<0>();
}
