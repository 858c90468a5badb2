/* SPDX-License-Identifier: Apache-2.0 */
/* The first kernel of chunk_gated_delta_rule on sm_90a, parallel over chunks of 64 tokens: what a chunk needs beside the state.
 * With c the product of alpha from the chunk's beginning on:
 *
 *     A[t][s] = beta_t c_t/c_s k_t.k_s, s < t;   T = (I + A)^-1 - I;   P[t][s] = scale c_t/c_s q_t.k_s, s <= t
 *
 * K K^T and Q K^T are made once for `heads` heads that share q and k, which are then taken two at a time, so that no warp and no
 * lane is idle in the inverse. Ratios of c are powers of two of differences of logarithms, so that none of them overflows.
 *
 *   T            f16, bf16
 *   F16_MATRICES 1: T and P are f16, P in units; beta is 1
 *   DECAYS       0: alpha is 1
 *   GROUPS       1: a block makes the tiles of a chunk. 4: it has four times the threads, which take chunks in the order in which
 *                they are walked, and raises flags for the kernel that walks, on other multiprocessors
 * The last block lists the segments for the kernels that follow.
 * Grid: max_chunks, num_heads / sharers / heads, or any; 128 threads for each group. Dynamic shared memory: struct smem of each
 * group. */
#include "gated_delta_inverse_sm90.cuh"
#include "gated_delta_schedule_sm90.cuh"

/* 2^x, where x is a logarithm of alphas. */
DEVICE float decay_of(float x)
{
    return DECAYS ? exp2_approx(x) : 1.0f;
}

/* One warp per head: logarithms of alpha, summed; lane l has tokens l and l + 32. */
DEVICE void sum_logarithms(const struct gated_delta_args &a, struct smem *sm, int token, int length, int head, int h,
                           float (&c)[2])
{
    int lane = lane_id();
    const float *alpha = (const float *)a.alpha + head + (int64_t)(token + lane) * a.alpha_token;
    const float *beta = (const float *)a.beta + head + (int64_t)(token + lane) * a.beta_token;
    float x[2], y[2];
#pragma unroll
    for (int i = 0; i < 2; i++) { /* all loads before anything waits for one */
        bool real = lane + 32 * i < length;
        x[i] = 1.0f;
        y[i] = real ? 1.0f : 0.0f;
        if (DECAYS && real && a.alpha)
            x[i] = alpha[32 * i * a.alpha_token];
        if (real && a.beta)
            y[i] = beta[32 * i * a.beta_token];
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float log = log2f(x[i]);
        c[i] = log < MIN_LOG2 ? MIN_LOG2 : log;
        sm->beta[h][lane + 32 * i] = y[i];
    }
    if (DECAYS)
        sum_tokens(c, sm->log2[h]);
}

/* normed: the norms are in shared memory; else they are 1. */
DEVICE void write_gates(const struct gated_delta_sm90_args &p, const struct smem *sm, struct gated_delta_gates *gates, int h,
                        int length, const float (&c)[2], bool normed)
{
    float end = __shfl_sync(0xffffffffu, c[1], 31);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int t = lane_id() + 32 * i;
        float k_norm = normed ? sm->k_norm[t] : 1.0f, q_norm = normed ? sm->q_norm[t] : 1.0f;
        float beta = sm->beta[h][t];
        if (!F16_MATRICES)
            gates->beta[t] = beta;
        gates->known[t] = decay_of(c[i]) * k_norm * beta;
        gates->update[t] = t < length ? decay_of(end - c[i]) * k_norm : 0.0f;
        gates->output[t] = decay_of(c[i]) * p.a.scale * q_norm;
    }
    gates->end[lane_id() % 16] = decay_of(end);
}

/* Threads 0 to 63 of a group: a row of K, 64 to 127: of Q. */
DEVICE void find_norms(struct smem *sm)
{
    int row = threadIdx.x % 64, of_q = threadIdx.x / 64 % 2;
    (of_q ? sm->q_norm : sm->k_norm)[row] = inverse_norm(sm->tile[of_q], row, 16);
}

/* K K^T and scale Q K^T, normalised. */
DEVICE void multiply_keys(const struct smem *sm, float (&kk)[32], float (&qk)[32], const struct place &p,
                          const struct gated_delta_args &a)
{
    uint64_t keys = wgmma_describe(p.image, 0, 1024), queries = wgmma_describe(p.image + 2 * SLAB_BYTES, 0, 1024);
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
#pragma unroll
    for (int i = 0; i < 32; i++)
        qk[i] *= a.scale;
    if (!a.l2norm)
        return;
    int row = 16 * p.warp + p.row;
#pragma unroll
    for (int i = 0; i < 32; i++) {
        float column = sm->k_norm[8 * (i / 4) + 2 * p.pair + i % 2];
        kk[i] *= column * sm->k_norm[row + 8 * (i / 2 % 2)];
        qk[i] *= column * sm->q_norm[row + 8 * (i / 2 % 2)];
    }
}

DEVICE void put_unit(struct gated_delta_gates *gates, int token, float unit)
{
    gates->beta[token] = unit;
}

/* Of A and P the block of columns 16 j, left of the diagonal one. row_factor: decay from the diagonal block's edge on. */
DEVICE void decay_left(const float (&kk)[32], const float (&qk)[32], int j, const float *c, float edge,
                       const float (&row_factor)[2], const float (&beta)[2], uint32_t to_a, uint32_t to_p)
{
    uint32_t u[4], v[4];
#pragma unroll
    for (int k = 0; k < 2; k++) {
        int at = 8 * j + 4 * k;
        float2 cc = *(const float2 *)(c + 16 * j + 8 * k);
        float e0 = decay_of(edge - cc.x), e1 = decay_of(edge - cc.y);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float f0 = e0 * row_factor[r], f1 = e1 * row_factor[r];
            v[2 * k + r] = pack2(f16(), kk[at + 2 * r] * f0 * beta[r], kk[at + 2 * r + 1] * f1 * beta[r]);
            u[2 * k + r] = pack2(Matrix(), qk[at + 2 * r] * f0, qk[at + 2 * r + 1] * f1);
        }
    }
    stmatrix_x4(to_a, v[0], v[1], v[2], v[3]);
    stmatrix_x4(to_p, u[0], u[1], u[2], u[3]);
}

/* The diagonal block of columns 16 j. Of A, what is above the diagonal or on it is not read. */
DEVICE void decay_diagonal(const float (&kk)[32], const float (&qk)[32], int j, const float *c, const struct place &p,
                           const float (&c_row)[2], const float (&beta)[2], struct diagonal *d, uint32_t to_p)
{
    uint32_t u[4];
    float *to[4] = {&d->upper[p.row][2 * p.pair], &d->coupling[p.row][2 * p.pair], NULL, &d->lower[p.row][2 * p.pair]};
    u[2] = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int k = i / 2, r = i % 2, at = 8 * j + 4 * k + 2 * r;
        if (i == 2)
            continue;
        float2 cc = *(const float2 *)(c + 16 * j + 8 * k);
        float e0 = decay_of(c_row[r] - cc.x), e1 = decay_of(c_row[r] - cc.y);
        *(float2 *)to[i] = make_float2(kk[at] * e0 * beta[r], kk[at + 1] * e1 * beta[r]);
        bool left = i == 1 || 2 * p.pair <= p.row, right = i == 1 || 2 * p.pair < p.row;
        u[i] = pack2(Matrix(), left ? qk[at] * e0 : 0.0f, right ? qk[at + 1] * e1 : 0.0f);
    }
    stmatrix_x4(to_p, u[0], u[1], u[2], u[3]);
}

/* A to shared memory, its diagonal block in float32, and P to the image. Left of the diagonal block the decay is split at its
 * edge: 2^(c_t - m) 2^(m - c_s), both at most 1; inside the block it is taken directly. */
DEVICE void decay(struct smem *sm, const float (&kk)[32], const float (&qk)[32], const struct place &p, int h, int of,
                  uint32_t image)
{
    int row = 16 * p.warp + p.row;
    const float *c = sm->log2[h], *b = sm->beta[h], beta[2] = {b[row], b[row + 8]}, c_row[2] = {c[row], c[row + 8]};
    float edge = p.warp ? c[16 * p.warp - 1] : 0.0f;
    const float row_factor[2] = {decay_of(c_row[0] - edge), decay_of(c_row[1] - edge)};
    uint32_t to_a = at_block(p, of, p.warp, 0), to_p = at_image(p, image, 16 * p.warp, 0) + GATED_DELTA_MATRIX_BYTES;
    c += 2 * p.pair;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        uint32_t strip = to_p + 256 * j * (7 - j);
        if (j < p.warp)
            decay_left(kk, qk, j, c, edge, row_factor, beta, to_a + j * BLOCK_BYTES, strip);
        else if (j == p.warp)
            decay_diagonal(kk, qk, j, c, p, c_row, beta, &sm->diagonal[of].warp[p.warp], strip);
    }
}

/* T and P of `count` heads from h on, and their tiles, which are max_chunks apart. */
DEVICE void make_heads(struct smem *sm, const float (&kk)[32], float (&qk)[32], const struct place &p, int h, int count,
                       struct gated_delta_tile *tile, int max_chunks)
{
#pragma unroll 1
    for (int of = 0; of < count; of++) {
        if (h + of >= IMAGES) { /* the image has been another head's */
            bulk_wait_read<PAIR - 1>();
            sync_group();
        }
#pragma unroll
        for (int i = 0; !DECAYS && i < 32; i++) /* P is the same for all, but there is no room for it in registers */
            forget(qk[i]);
        decay(sm, kk, qk, p, h + of, of, p.image + (h + of) % IMAGES * IMAGE_BYTES);
    }
    __syncwarp();
    invert_8(sm, p);
    __syncwarp();
#pragma unroll 1
    for (int of = 0; of < count; of++)
        invert_16(sm, p, of, p.image + (h + of) % IMAGES * IMAGE_BYTES);
    sync_group();
    int half = p.warp / 2;
    if (half < count)
        invert_32(p, half, p.warp % 2, p.image + (h + half) % IMAGES * IMAGE_BYTES);
    sync_group();
#pragma unroll 1
    for (int of = 0; of < count; of++)
        invert_64(p, of, p.image + (h + of) % IMAGES * IMAGE_BYTES);
    shared_async_fence();
    sync_group();
    for (int of = 0; of < count && threadIdx.x % 128 == 0; of++) {
        bulk_store(tile[(int64_t)of * max_chunks].t, p.image + (h + of) % IMAGES * IMAGE_BYTES, IMAGE_BYTES);
        bulk_commit();
    }
}

/* The tiles of a chunk, args.heads rows of them from `row` on. phase: of the barrier. Returns whether there is such a chunk. */
DEVICE bool make_tiles(const struct gated_delta_sm90_args &args, struct smem *sm, struct place &p, int chunk, int row, int phase)
{
    const struct gated_delta_args &a = args.a;
    uint32_t full = shared_address(&sm->full);
    int head = row * args.sharers, token, length = find_chunk(a, chunk, token);
    if (!length)
        return false;
    if (threadIdx.x % 128 == 0) {
        mbarrier_arrive_expect(full, 4 * SLAB_BYTES);
        tensor_load_4d(p.image, &args.k, full, 0, token, 0, head / a.k_group);
        tensor_load_4d(p.image + 2 * SLAB_BYTES, &args.q, full, 0, token, 0, head / a.q_group);
    }
    float c[2], kk[32], qk[32];
    struct gated_delta_tile *tile = tile_at(args, row, chunk);
    struct gated_delta_gates *gates = &tile[(int64_t)p.warp * args.max_chunks].gates;
    if (p.warp < args.heads)
        sum_logarithms(a, sm, token, length, head + p.warp, p.warp, c);
    if (p.warp < args.heads && !a.l2norm)
        write_gates(args, sm, gates, p.warp, length, c, false);
    mbarrier_wait(full, phase);
    if (length < CHUNK) {
        clear_rows(sm->tile[0], 4, length, threadIdx.x % 128, 128);
        shared_async_fence();
        sync_group();
    }
    if (a.l2norm) {
        find_norms(sm);
        sync_group();
        if (p.warp < args.heads)
            write_gates(args, sm, gates, p.warp, length, c, true);
    }
    multiply_keys(sm, kk, qk, p, a);
    if (F16_MATRICES)
        lower_queries(qk, tile, args.max_chunks, args.heads, 16 * p.warp + p.row);
    sync_group();
#pragma unroll 1
    for (int h = 0; h < args.heads; h += PAIR) {
        /* Else the compiler keeps addresses in registers that are not there. */
        forget(p.pair);
        forget(p.row);
        forget(p.lane);
        forget(p.offset);
        make_heads(sm, kk, qk, p, h, min(args.heads - h, (int)PAIR), tile + (int64_t)h * args.max_chunks, args.max_chunks);
    }
    return true;
}

#if GROUPS > 1
/* All chunks, those of all heads before the next ones. Who raises a flag clears it first. */
DEVICE void make_all_tiles(const struct gated_delta_sm90_args &args, struct smem *sm, struct place &p, bool lists)
{
    int parts = args.a.num_heads / args.sharers / args.heads, end = args.max_chunks * parts, step = gridDim.x * GROUPS;
    int first = blockIdx.x * GROUPS + threadIdx.x / 128, phase = 0;
    for (int i = first + threadIdx.x % 128 * step; i < end; i += 128 * step)
        *chunk_ready(args, i % parts * args.heads, i / parts) = 0;
    if (lists && p.lane == 0)
        *schedule_ready(args) = 0;
    __threadfence();
    __syncthreads();
    pdl_launch();
    if (lists) {
        make_schedule(args);
        __threadfence();
        __syncwarp();
        if (p.lane == 0)
            raise_flag(schedule_ready(args));
    }
    for (int i = first; i < end && make_tiles(args, sm, p, i / parts, i % parts * args.heads, phase); i += step, phase ^= 1)
        if (threadIdx.x % 128 == 0) {
            bulk_wait<0>();
            raise_flag(chunk_ready(args, i % parts * args.heads, i / parts));
        }
}
#endif

extern "C" __global__ void __launch_bounds__(128 * GROUPS, 4 / GROUPS)
    gated_delta_tiles_sm90(const __grid_constant__ struct gated_delta_sm90_args args)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    int lane = lane_id(), warp = warp_id(), group = GROUPS == 1 ? 0 : warp / 4;
    struct smem *sm = (struct smem *)(shared + group * GATED_DELTA_TILES_SMEM);
    struct place p = {warp % 4,
                      lane,
                      lane / 4,
                      lane % 4,
                      lane % 16 * 32 + ((lane / 16 ^ lane / 4 % 2) << 4),
                      shared_address(sm->image)};
    bool lists = blockIdx.x == gridDim.x - 1 && blockIdx.y == 0 && warp == 4 * GROUPS - 4;
    if (threadIdx.x % 128 == 0) {
        mbarrier_init(shared_address(&sm->full), 1);
        mbarrier_init_fence();
        tensor_map_prefetch(&args.q);
        tensor_map_prefetch(&args.k);
    }
    __syncthreads();
    pdl_wait();
#if GROUPS > 1
    make_all_tiles(args, sm, p, lists);
#else
    pdl_launch();
    if (lists)
        make_schedule(args);
    make_tiles(args, sm, p, blockIdx.x, blockIdx.y * args.heads, 0);
    bulk_wait_read<0>();
#endif
}
