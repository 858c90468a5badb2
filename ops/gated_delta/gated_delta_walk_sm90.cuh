/* SPDX-License-Identifier: Apache-2.0 */
/* A warpgroup's walk over chunks with 64 values of a state in registers. With the tiles of gated_delta_tiles_sm90.cu, all of it
 * transposed, values by tokens or keys:
 *
 *     E = beta V - known S K^T;   U = E + E T^T;   output = out S Q^T + U P^T;   S = end S + (update U) K
 *
 * The operands a of all products come from registers: S, E and U go from accumulators to fragments in place. E also stays where
 * it is, in float32, and the product is added to it. With F16_MATRICES E and U are f16, each value divided by a unit. Unless it
 * DECAYS `known` is beta, `update` and `end` 1. What the next chunk needs beside operands in shared memory is fetched while the
 * state is updated.
 *
 * Two rules of ptxas: once a round trip all wgmmas are waited for, or it orders every one; and where an accumulator is read that
 * is done, while others are under way, a wait that costs nothing tells so.
 *
 * Included where struct smem is known. */
#ifndef GATED_DELTA_WALK_SM90_CUH
#define GATED_DELTA_WALK_SM90_CUH

#include "gated_delta_state_sm90.cuh"

enum { EARLY = 6 }; /* of the 8 steps of S Q^T, those before U */
enum { LOADER_REGISTERS = 72, WORKER_REGISTERS = 216 };

struct worker {
    struct ring ring;
    struct place place;
    int slot, output_phase, last_stage; /* slot: its half of what the block has */
    uint32_t v[16];  /* V^T of a chunk, as fragments */
    float2 known[8]; /* factors of the columns that the thread has */
    float end;
};

DEVICE struct worker make_worker(int slot)
{
    struct worker w;
    w.ring = {0, 0};
    w.place = make_place();
    w.slot = slot;
    w.output_phase = 1;
    w.last_stage = 0;
    return w;
}

/* What the chunk in the ring's stage needs besides operands in shared memory. */
DEVICE void fetch(struct worker &w, struct smem *sm)
{
    int s = w.ring.stage;
    mbarrier_wait(AT(full[s]), w.ring.phase);
    load_values(w.v, AT(stage[s].values[0]) + w.slot * SLAB_BYTES, w.place);
    if (!F16_MATRICES) /* whose units leave no registers for it */
        fetch_known(w.known, &sm->gates[s], w.place);
    if (DECAYS)
        w.end = sm->gates[s].end[0];
}

/* Hands the output of a chunk to the warp that stores it; not `real`: goes through the motions, without a branch. */
DEVICE void put_output(struct worker &w, struct smem *sm, const float (&y)[32], bool real)
{
    uint32_t to = AT(output[w.slot]) + w.place.offset;
    mbarrier_wait(AT(output_empty[w.slot]), w.output_phase);
    w.output_phase ^= real;
#pragma unroll
    for (int j = 0; j < 4; j++)
        stmatrix_x4_trans(to + j * 2048, pack2(T(), y[8 * j], y[8 * j + 1]), pack2(T(), y[8 * j + 2], y[8 * j + 3]),
                          pack2(T(), y[8 * j + 4], y[8 * j + 5]), pack2(T(), y[8 * j + 6], y[8 * j + 7]));
    __syncwarp();
    mbarrier_arrive_if(AT(output_full[w.slot]), real);
}

/* y += x, whose rows and columns lack these units. */
DEVICE void add_columns(float (&y)[32], const float (&x)[32], float2 rows, const float2 (&columns)[8])
{
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
        float row = i / 2 % 2 ? rows.y : rows.x;
        y[i] += x[i] * row * columns[i / 4].x;
        y[i + 1] += x[i + 1] * row * columns[i / 4].y;
    }
}

/* One chunk: s, the fragments a of it, and y, the output of the chunk before, which it hands on, become those of this chunk. */
DEVICE void take_chunk(struct worker &w, struct smem *sm, float (&s)[64], uint32_t (&a)[32], float (&y)[32], bool first,
                       bool last)
{
    const struct gated_delta_gates *gates = &sm->gates[w.ring.stage];
    uint32_t stage = AT(stage[w.ring.stage]);
    uint64_t keys = wgmma_describe(stage, 0, 1024), key_columns = wgmma_describe(stage, SLAB_BYTES, 1024);
    uint64_t queries = wgmma_describe(stage + 2 * SLAB_BYTES, 0, 1024);
    uint64_t t = wgmma_describe_narrow(stage + 4 * SLAB_BYTES, 256), p = t + MATRIX_BYTES / 16;
    float x[32];
    uint32_t e[16], f[16];
    multiply_keys(x, a, keys);
    wgmma_wait<1>();
    mbarrier_arrive_if(AT(empty[w.last_stage]), !first);
    put_output(w, sm, y, !first);
    wgmma_pin(y);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < EARLY; k++)
        wgmma_rows(y, a + 4 * k, queries + step_128(k), k != 0, T());
    wgmma_commit();
    wgmma_wait<1>();
    wgmma_pin(x);
    if (F16_MATRICES)
        fetch_known(w.known, gates, w.place);
    float2 unit = make_e(x, e, w.v, w.known, gates->beta, w.place);
    multiply_matrix(x, e, t, true);
#pragma unroll
    for (int k = EARLY; k < 8; k++)
        wgmma_rows(y, a + 4 * k, queries + step_128(k), true, T());
    wgmma_commit();
    wgmma_wait<2>();
    float2 update[8];
    fetch_update(update, gates, w.place);
#pragma unroll
    for (int i = 0; DECAYS && i < 64; i++)
        s[i] *= w.end;
    wgmma_wait<1>();
    wgmma_pin(x);
    scale_update(f, x, update, unit);
    add_update(s, f, key_columns);
    pack(e, x, Matrix());
    float2 column[8];
    if (F16_MATRICES) { /* apart from y, which has other units */
        multiply_matrix(x, e, p, false);
        fetch_factors(column, gates->beta, w.place.pair);
    }
    wgmma_wait<F16_MATRICES ? 2 : 1>();
    wgmma_pin(y);
    scale_columns(y, gates->output, w.place.pair);
    if (!F16_MATRICES)
        multiply_matrix(y, e, p, true);
    w.last_stage = w.ring.stage;
    advance<STAGES>(w.ring);
    if (!last)
        fetch(w, sm);
    __syncwarp(); /* all lanes have read of the stage what they do before one tells that it is free */
    wgmma_wait<0>();
    wgmma_pin(s);
    if (F16_MATRICES) {
        wgmma_pin(x);
        add_columns(y, x, unit, column);
    } else {
        wgmma_pin(y);
    }
    pack(a, s, T());
}

#endif
