/* SPDX-License-Identifier: Apache-2.0 */
/* chunk_gated_delta_rule_sm90: what lies in shared memory, and the two warps that bring it there and take output away. */
#ifndef GATED_DELTA_COPIES_SM90_CUH
#define GATED_DELTA_COPIES_SM90_CUH

#include "gated_delta_state_sm90.cuh"

enum { ITEMS = GATED_DELTA_ITEMS };

/* A head of a segment, or half of its values: first_half, or all of them from there to before end_half. */
struct item {
    struct gated_delta_segment segment;
    int head, chunks, first_half, end_half; /* end_half 0: there are no more items */
};

struct stage {
    unsigned char keys[2 * SLAB_BYTES], queries[2 * SLAB_BYTES], t[MATRIX_BYTES], p[MATRIX_BYTES],
        values[HALVES * SLAB_BYTES];
};

struct smem {
    struct stage stage[STAGES];
    unsigned char output[HALVES][SLAB_BYTES];
    struct gated_delta_gates gates[STAGES];
    /* tail: of a chunk whose rows past the end are cleared before it is full */
    uint64_t full[STAGES], empty[STAGES], tail, output_full[HALVES], output_empty[HALVES], item_full[ITEMS], item_empty[ITEMS];
    struct item item[ITEMS];
};
static_assert(sizeof(struct smem) == GATED_DELTA_CHUNK_SMEM(HALVES), "the host counts on it");

/* Every lane of a warp arrives: it costs no time, and racecheck, which knows no other order of threads, finds no race. */
DEVICE void init_barriers(struct smem *sm)
{
    for (int i = 0; i < STAGES; i++) {
        mbarrier_init(AT(full[i]), 32);
        mbarrier_init(AT(empty[i]), 32 * HALVES * WARPS);
    }
    mbarrier_init(AT(tail), 1);
    for (int h = 0; h < HALVES; h++) {
        mbarrier_init(AT(output_full[h]), 32 * WARPS);
        mbarrier_init(AT(output_empty[h]), 32);
    }
    for (int i = 0; i < ITEMS; i++) {
        mbarrier_init(AT(item_full[i]), 1);
        mbarrier_init(AT(item_empty[i]), 32 * (HALVES * WARPS + 2));
    }
    mbarrier_init_fence();
}

/* ---- items. Blocks take them as they come, so that none waits for a long one */

struct items {
    int slot, phase;
    int offered_slot, offered_phase, offered; /* of the warp that loads; offered: 0 at first, below 0 after the last one */
};

DEVICE struct item find_item(const struct gated_delta_sm90_args &p, int n)
{
    int heads = p.a.num_heads, halved = p.schedule->num_halved, single = HALVES == 1 || n < 2 * heads * halved;
    int at = single ? n / (2 * heads) : n / heads - halved;
    struct item i;
    i.first_half = single ? n % 2 : 0;
    i.end_half = at >= p.schedule->num_segments ? 0 : single ? i.first_half + 1 : HALVES;
    if (!i.end_half)
        return i;
    i.segment = p.segments[at];
    i.head = single ? n / 2 % heads : n % heads;
    i.chunks = (i.segment.length + CHUNK - 1) / CHUNK;
    return i;
}

/* Where a block has that half. */
DEVICE int place_of_half(int half)
{
    return HALVES == 1 ? 0 : half;
}

/* By the warp that loads: takes the next item and tells all. */
DEVICE void offer_item(const struct gated_delta_sm90_args &p, struct smem *sm, struct items &i)
{
    if (i.offered < 0)
        return;
    int slot = i.offered_slot;
    mbarrier_wait(AT(item_empty[slot]), i.offered_phase ^ 1);
    if (lane_id() == 0) {
        struct item item = find_item(p, i.offered ? gridDim.x + atomicAdd(&p.schedule->taken, 1) : blockIdx.x);
        sm->item[slot] = item;
        i.offered = item.end_half ? 1 : -1;
        mbarrier_arrive(AT(item_full[slot]));
    }
    i.offered = __shfl_sync(0xffffffffu, i.offered, 0);
    i.offered_slot = (slot + 1) % ITEMS;
    i.offered_phase ^= i.offered_slot == 0;
}

/* By a whole warp. NULL: there are no more. */
DEVICE const struct item *next_item(struct smem *sm, struct items &i)
{
    mbarrier_wait(AT(item_full[i.slot]), i.phase);
    return sm->item[i.slot].end_half ? &sm->item[i.slot] : NULL;
}

DEVICE void leave_item(struct smem *sm, struct items &i)
{
    mbarrier_arrive(AT(item_empty[i.slot]));
    i.slot = (i.slot + 1) % ITEMS;
    i.phase ^= i.slot == 0;
}

/* ---- the warp that loads */

/* What the loads of all chunks of an item have in common. */
struct source {
    const struct gated_delta_tile *tile;
    int token, k_head, q_head, v_head, first_half, end_half;
};

DEVICE struct source make_source(const struct gated_delta_sm90_args &p, const struct item &i)
{
    const struct gated_delta_args &a = p.a;
    return {tile_at(p, i.head / p.sharers, i.segment.tile), i.segment.begin, i.head / a.k_group, i.head / a.q_group,
            i.head / a.v_group, i.first_half, i.end_half};
}

DEVICE void load_chunk(const struct gated_delta_sm90_args &p, struct smem *sm, const struct source &from, int s, uint32_t full)
{
    struct stage *stage = &sm->stage[s];
    mbarrier_arrive_expect(full, (4 + from.end_half - from.first_half) * SLAB_BYTES + sizeof(struct gated_delta_tile));
    tensor_load_4d(shared_address(stage->keys), &p.k, full, 0, from.token, 0, from.k_head);
    for (int half = from.first_half; half < from.end_half; half++)
        tensor_load_4d(shared_address(stage->values) + place_of_half(half) * SLAB_BYTES, &p.v, full, 0, from.token, half,
                       from.v_head);
    bulk_load(AT(gates[s]), &from.tile->gates, sizeof(struct gated_delta_gates), full);
    load_matrix(stage->t, from.tile->t, full);
    tensor_load_4d(shared_address(stage->queries), &p.q, full, 0, from.token, 0, from.q_head);
    load_matrix(stage->p, from.tile->p, full);
}

/* Rows past the end of a sequence are another one's. They become 0 before anybody sees them: a factor of 0 would leave NaN. */
DEVICE void finish_tail(struct smem *sm, int s, int rest, int phase)
{
    mbarrier_wait(AT(tail), phase);
    clear_rows(sm->stage[s].keys, 2, rest, lane_id(), 32);
    clear_rows(sm->stage[s].values, HALVES, rest, lane_id(), 32);
    shared_async_fence();
    mbarrier_arrive(AT(full[s]));
}

/* By a whole warp: of the next 32 chunks, how many from the first on have tiles; waits for one. */
DEVICE int wait_for_tiles(const int32_t *ready, int chunks)
{
    uint32_t missing;
    do
        missing = __ballot_sync(0xffffffffu, lane_id() >= chunks || !is_raised(ready + lane_id()));
    while (missing & 1);
    global_async_fence();
    return missing ? __ffs(missing) - 1 : 32;
}

DEVICE void load_items(const struct gated_delta_sm90_args &p, struct smem *sm, struct items &items)
{
    struct ring ring = {0, 0};
    int tails = 0;
    while (p.ready && !is_raised(schedule_ready(p)))
        ;
    __syncwarp();
    offer_item(p, sm, items);
    while (const struct item *next = next_item(sm, items)) {
        struct source from = make_source(p, *next);
        int length = next->segment.length, there = 0;
        const int32_t *ready = p.ready ? chunk_ready(p, next->head / p.sharers, next->segment.tile) : NULL;
        leave_item(sm, items);
        if (length <= 0)
            offer_item(p, sm, items);
#pragma unroll 1
        for (int rest = length; rest > 0; rest -= CHUNK, from.tile++, from.token += CHUNK) {
            int s = ring.stage;
            if (ready && there == 0) {
                there = wait_for_tiles(ready, (rest + CHUNK - 1) / CHUNK);
                ready += there;
            }
            there--;
            mbarrier_wait(AT(empty[s]), ring.phase ^ 1);
            if (lane_id() == 0)
                load_chunk(p, sm, from, s, rest < CHUNK ? AT(tail) : AT(full[s]));
            else if (rest >= CHUNK)
                mbarrier_arrive(AT(full[s]));
            __syncwarp();
            if (rest == length)
                offer_item(p, sm, items);
            if (rest < CHUNK)
                finish_tail(sm, s, rest, tails++ & 1);
            advance<STAGES>(ring);
        }
    }
}

/* ---- the warp that stores output */

DEVICE void store_rows(T *to, int64_t stride, const unsigned char *from, int rows)
{
    for (int n = lane_id(); n < rows * 8; n += 32) {
        int row = n / 8, piece = n % 8;
        *(uint4 *)(to + row * stride + piece * 8) = *(const uint4 *)(from + row * 128 + ((piece ^ row % 8) << 4));
    }
}

DEVICE void store_items(const struct gated_delta_sm90_args &p, struct smem *sm, struct items &items)
{
    int phases = 0; /* a bit for each half */
    while (const struct item *next = next_item(sm, items)) {
        int token = next->segment.begin, length = next->segment.length, head = next->head;
        int first_half = next->first_half, end_half = next->end_half;
        leave_item(sm, items);
#pragma unroll 1
        for (int rest = length; rest > 0; rest -= CHUNK, token += CHUNK)
            for (int half = first_half; half < end_half; half++) {
                int h = place_of_half(half);
                mbarrier_wait(AT(output_full[h]), phases >> h & 1);
                phases ^= 1 << h;
                if (rest >= CHUNK) {
                    shared_async_fence();
                    if (lane_id() == 0) {
                        tensor_store_4d(&p.output, AT(output[h]), 0, token, half, head);
                        bulk_commit();
                        bulk_wait_read<0>();
                    }
                } else {
                    T *to = (T *)p.a.output.data + token * p.a.output.token + head * p.a.output.head + half * 64;
                    store_rows(to, p.a.output.token, sm->output[h], rest);
                }
                mbarrier_arrive(AT(output_empty[h]));
            }
    }
}

#endif
