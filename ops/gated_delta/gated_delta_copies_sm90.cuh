/* SPDX-License-Identifier: Apache-2.0 */
/* chunk_gated_delta_rule_sm90: what lies in shared memory, and the two warps that bring it there and take output away. */
#ifndef GATED_DELTA_COPIES_SM90_CUH
#define GATED_DELTA_COPIES_SM90_CUH

#include "gated_delta_state_sm90.cuh"

struct stage {
    unsigned char keys[2 * SLAB_BYTES], queries[2 * SLAB_BYTES], t[2 * NARROW_BYTES], p[2 * NARROW_BYTES],
        values[HALVES * SLAB_BYTES];
};

struct smem {
    struct stage stage[STAGES];
    unsigned char output[HALVES][SLAB_BYTES];
    struct gated_delta_gates gates[STAGES];
    uint64_t full[STAGES], empty[STAGES], tail, output_full[HALVES], output_empty[HALVES];
};
static_assert(sizeof(struct smem) == GATED_DELTA_CHUNK_SMEM(HALVES), "the host counts on it");

/* A head of a sequence, or half of its values. */
struct item {
    int sequence, head, half, chunks, length;
    int64_t begin;
};

DEVICE struct item make_item(const struct gated_delta_args &a, int number)
{
    struct item i;
    i.half = HALVES == 1 ? number % 2 : 0;
    number = HALVES == 1 ? number / 2 : number;
    i.sequence = number / a.num_heads;
    i.head = number - i.sequence * a.num_heads;
    i.begin = sequence_begin(&a, i.sequence);
    i.length = (int)(sequence_begin(&a, i.sequence + 1) - i.begin);
    i.chunks = (i.length + CHUNK - 1) / CHUNK;
    return i;
}

/* ---- the warp that loads */

DEVICE void load_chunk(const struct gated_delta_sm90_args &p, struct smem *sm, const struct item &i,
                       const struct gated_delta_tile *tile, int c, int s, uint32_t full)
{
    const struct gated_delta_args &a = p.a;
    struct stage *stage = &sm->stage[s];
    int token = (int)i.begin + c * CHUNK;
    mbarrier_arrive_expect(full, 4 * SLAB_BYTES + HALVES * SLAB_BYTES + sizeof(struct gated_delta_tile));
    tensor_load_4d(shared_address(stage->keys), &p.k, full, 0, token, 0, i.head / a.k_group);
    tensor_load_4d(shared_address(stage->values), &p.v, full, 0, token, i.half, i.head / a.v_group);
    bulk_load(AT(gates[s]), &tile->gates, sizeof(struct gated_delta_gates), full);
    bulk_load(shared_address(stage->t), tile->t, NARROW_BYTES, full);
    bulk_load(shared_address(stage->t + NARROW_BYTES + 2048), tile->t + NARROW_BYTES, 2048, full);
    tensor_load_4d(shared_address(stage->queries), &p.q, full, 0, token, 0, i.head / a.q_group);
    bulk_load(shared_address(stage->p), tile->p, NARROW_BYTES, full);
    bulk_load(shared_address(stage->p + NARROW_BYTES + 2048), tile->p + NARROW_BYTES, 2048, full);
}

/* Rows past the end of a sequence are another one's. They become 0 before anybody sees them: a factor of 0 would leave NaN. */
DEVICE void load_item(const struct gated_delta_sm90_args &p, struct smem *sm, const struct item &i, struct ring &ring, int &tails)
{
    const struct gated_delta_tile *tile = p.tiles + (int64_t)i.head * p.max_chunks + chunks_before(p.a, i.sequence);
#pragma unroll 1
    for (int c = 0; c < i.chunks; c++) {
        int s = ring.stage, rest = i.length - c * CHUNK;
        uint32_t full = rest < CHUNK ? AT(tail) : AT(full[s]);
        mbarrier_wait(AT(empty[s]), ring.phase ^ 1);
        if (lane_id() == 0)
            load_chunk(p, sm, i, tile + c, c, s, full);
        __syncwarp();
        if (rest < CHUNK) {
            mbarrier_wait(full, tails++ & 1);
            clear_rows(sm->stage[s].keys, 2, rest, lane_id(), 32);
            clear_rows(sm->stage[s].values, HALVES, rest, lane_id(), 32);
            shared_async_fence();
            __syncwarp();
            if (lane_id() == 0)
                mbarrier_arrive(AT(full[s]));
        }
        advance(ring);
    }
}

/* ---- the warp that stores output */

DEVICE void store_rows(const struct gated_delta_args &a, const unsigned char *from, const struct item &i, int half, int token,
                       int rows)
{
    T *to = (T *)a.output.data + (i.begin + token) * a.output.token + i.head * a.output.head + half * 64;
    for (int n = lane_id(); n < rows * 8; n += 32) {
        int row = n / 8, piece = n % 8;
        *(uint4 *)(to + row * a.output.token + piece * 8) = *(const uint4 *)(from + row * 128 + ((piece ^ row % 8) << 4));
    }
}

DEVICE void store_item(const struct gated_delta_sm90_args &p, struct smem *sm, const struct item &i, int &phase)
{
#pragma unroll 1
    for (int c = 0; c < i.chunks; c++, phase ^= 1)
        for (int h = 0; h < HALVES; h++) {
            int rest = i.length - c * CHUNK, half = HALVES == 1 ? i.half : h;
            mbarrier_wait(AT(output_full[h]), phase);
            if (rest >= CHUNK) {
                shared_async_fence();
                if (lane_id() == 0) {
                    tensor_store_4d(&p.output, AT(output[h]), 0, (int)i.begin + c * CHUNK, half, i.head);
                    bulk_commit();
                    bulk_wait_read<0>();
                }
            } else {
                store_rows(p.a, sm->output[h], i, half, c * CHUNK, rest);
            }
            __syncwarp();
            mbarrier_arrive_if(AT(output_empty[h]), lane_id() == 0);
        }
}

#endif
