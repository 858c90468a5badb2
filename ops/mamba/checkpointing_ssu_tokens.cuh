/* SPDX-License-Identifier: Apache-2.0 */
/* checkpointing_ssu: what does not depend on the state: where a block's numbers are, delta, and what each token weighs in each
 * output. T, STATE_DIM, TILES and ACCESS are the kernel's. */
#ifndef CHECKPOINTING_SSU_TOKENS_CUH
#define CHECKPOINTING_SSU_TOKENS_CUH

#include "mamba_state.cuh"
#include "mma.cuh"
#include "checkpointing_ssu_args.h"

enum { THREADS = 128, ROWS = RING_ROWS, PIECES = STATE_DIM / 32, TOKENS = 2 * WINDOW, STEPS = 2 + TILES };
enum { STATE_ROW = RING_STATE_ROW(STATE_DIM, sizeof(STATE)), WEIGHT_ROW = RING_WEIGHT_ROW(TILES), B_ROW = RING_B_ROW(STATE_DIM) };
enum { X_ROW = RING_X_ROW, ROW_PIECE = ACCESS > 1 ? 8 : 1 };

/* Eight numbers of each 32 of a row. */
struct pieces {
    vec<T, 8> at[PIECES];
};

/* Live tokens are 0 to 15, new ones from 16 on. */
struct shared {
    STATE state[ROWS][STATE_ROW];
    T x[8 * STEPS][X_ROW], z[8 * TILES][X_ROW]; /* live tokens, then new ones */
    float reach[TOKENS], delta[TOKENS], kept[WINDOW]; /* kept: the factor of a live token in the state behind all of them */
    float weight[TOKENS][WEIGHT_ROW];                 /* for the output of each new token */
    T B[WINDOW][B_ROW];                               /* of live tokens; numbers in the order of the lanes' products */
};

static_assert(sizeof(struct shared) == RING_SHARED_BYTES(STATE_DIM, sizeof(STATE), TILES), "the host asks for as much");

/* What a warp does besides its rows differs from head to head, for the sake of the schedulers. */
struct lane {
    int warp, role, g, t;
};

DEVICE struct lane this_lane()
{
    int warp = threadIdx.x / 32;
    struct lane l = {warp, (int)(warp + blockIdx.y) % 4, (int)threadIdx.x % 32 / 4, (int)threadIdx.x % 4};
    return l;
}

DEVICE int head_row(const struct lane &l, int half) { return blockIdx.x * ROWS + 16 * l.warp + l.g + 8 * half; }

DEVICE int64_t token_place(const struct token_rows &rows, const struct ring_sequence &s, int i, int head)
{
    return blockIdx.z * rows.sequence + (s.begin + i) * rows.token + head * rows.head;
}

DEVICE T *ring_at(const struct state_rows &ring, const struct checkpointing_ssu_args &a, const struct ring_sequence &s, int head,
                  int i)
{
    return (T *)ring.data + s.row * ring.row + head * ring.head + ring_place(&a, &s, i) * ring.dim;
}

DEVICE void load_pieces(struct pieces &to, const T *from)
{
#pragma unroll
    for (int q = 0; q < PIECES; q++)
        to.at[q] = load_vec_by<8, ACCESS>(from + 32 * q);
}

DEVICE uint32_t fetch_weight(const struct head_weights &w)
{
    return w.data ? fetch(w.data, blockIdx.y * w.head, w.wide) : 0;
}

/* By one warp, a lane for each token: live ones, then new ones. All loads are on their way before one is waited for. */
DEVICE void find_deltas(struct shared &shared, const struct checkpointing_ssu_args &a, const struct ring_sequence &s)
{
    int lane = threadIdx.x % 32, i = lane < WINDOW ? lane : s.live + lane - WINDOW;
    bool exists = lane < WINDOW ? lane < s.live : lane - WINDOW < s.count;
    uint32_t slope = fetch_weight(a.A), bias = fetch_weight(a.dt_bias), bits = 0;
    float *kept = a.dt_cache + s.row * a.dt_cache_row + blockIdx.y * a.dt_cache_head + ring_place(&a, &s, i);
    if (exists)
        bits = lane < WINDOW ? __float_as_uint(*kept)
                             : fetch(a.dt.data, token_place(a.dt, s, lane - WINDOW, blockIdx.y), a.dt.wide);
    float delta = __uint_as_float(bits);
    if (exists && lane >= WINDOW) {
        delta = meant(bits, a.dt.wide) + meant(bias, a.dt_bias.wide);
        delta = a.softplus && delta <= 20.0f ? log1pf(expf(delta)) : delta;
        if (blockIdx.x == 0)
            *kept = delta;
    }
    float reach = exists ? meant(slope, a.A.wide) * delta : 0.0f;
#pragma unroll
    for (int step = 1; step < TOKENS; step *= 2) {
        float before = __shfl_up_sync(0xffffffffu, reach, step);
        reach += lane >= step ? before : 0.0f;
    }
    float live = __shfl_sync(0xffffffffu, reach, WINDOW - 1);
    shared.reach[lane] = reach;
    shared.delta[lane] = delta;
    if (lane < WINDOW)
        shared.kept[lane] = expf(live - reach) * delta;
}

/* A warp multiplies the live tokens, or the new ones, with eight outputs' C: an even role the live ones. */
DEVICE bool multiplies(const struct lane &l, const struct ring_sequence &s)
{
    return l.role / 2 < TILES && (l.role % 2 == 0 ? s.live > 0 : l.role / 2 * 8 < s.count);
}

/* B . C: of tokens g and g + 8 for outputs 2t and 2t + 1. Live B is left for the state if it is written, new B is appended. */
DEVICE void multiply_tokens(float (&product)[4], const struct pieces (&c)[TILES], struct shared &shared,
                            const struct checkpointing_ssu_args &a, const struct ring_sequence &s, int group, bool full)
{
    struct lane l = this_lane();
    bool old = l.role % 2 == 0, last = l.role / 2 == TILES - 1;
    struct pieces b[2] = {};
    float other[4] = {}; /* two sums, that neither product waits for the one before */
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int i = l.g + 8 * half;
        if (i < (old ? s.live : s.count))
            load_pieces(b[half], (old ? ring_at(a.B_cache, a, s, group, i)
                                      : (const T *)a.B.data + token_place(a.B, s, i, group)) + 8 * l.t);
    }
#pragma unroll
    for (int q = 0; q < PIECES; q++) {
        vec_elements<uint32_t, 4> up, down, right;
        up.all.bits = b[0].at[q].bits;
        down.all.bits = b[1].at[q].bits;
        right.all.bits = last ? c[TILES - 1].at[q].bits : c[0].at[q].bits;
#pragma unroll
        for (int k = 0; k < 4; k += 2) {
            uint32_t left[4] = {up.at[k], down.at[k], up.at[k + 1], down.at[k + 1]}, two[2] = {right.at[k], right.at[k + 1]};
            mma_m16n8k16(k ? other : product, left, two, T());
        }
        if (l.role == 0 && full)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                *(uint32_t *)&shared.B[l.g][32 * q + 8 * i + 2 * l.t] = up.at[i];
                *(uint32_t *)&shared.B[l.g + 8][32 * q + 8 * i + 2 * l.t] = down.at[i];
            }
    }
#pragma unroll
    for (int e = 0; e < 4; e++)
        product[e] += other[e];
    if (l.role == 1 && blockIdx.x == 0 && blockIdx.y == group * a.group_heads)
#pragma unroll
        for (int half = 0; half < 2; half++)
            if (l.g + 8 * half < s.count)
#pragma unroll
                for (int q = 0; q < PIECES; q++)
                    store_vec_by<ACCESS>(ring_at(a.B_cache, a, s, group, s.live + l.g + 8 * half) + 32 * q + 8 * l.t,
                                         b[half].at[q]);
}

/* What these tokens weigh in these outputs; in its own, with D. */
DEVICE void store_weights(struct shared &shared, const float (&product)[4], float D, const struct ring_sequence &s)
{
    struct lane l = this_lane();
    bool old = l.role % 2 == 0;
    float skip = old ? 0.0f : D;
#pragma unroll
    for (int e = 0; e < 4; e++) {
        int i = l.g + e / 2 * 8, output = 2 * l.t + e % 2, token = l.role / 2 * 8 + output, j = old ? i : WINDOW + i;
        float weight = expf(shared.reach[WINDOW + token] - shared.reach[j]) * shared.delta[j] * product[e];
        weight = (old ? i < s.live : i <= token && i < s.count) ? weight : 0.0f;
        shared.weight[j][token] = weight + (i == token ? skip : 0.0f);
    }
}

/* Rows of x or z for the warp's 16 of the block, of which there are `count`, on their way to shared memory; then zeros. */
template <class Row> DEVICE void begin_rows(T (*to)[X_ROW], int rows, int count, const struct checkpointing_ssu_args &a, Row row)
{
    struct lane l = this_lane();
    for (int i = threadIdx.x % 32; i < rows * 16 / ROW_PIECE; i += 32) {
        int token = i / (16 / ROW_PIECE), at = 16 * l.warp + i % (16 / ROW_PIECE) * ROW_PIECE, place = blockIdx.x * ROWS + at;
        bool exists = token < count && place < a.head_dim;
        const T *from = exists ? row(token) + place : (const T *)a.x.data;
        T none = {};
        if (ACCESS > 1)
            cp_async_16(shared_address(&to[token][at]), from, exists ? 16 : 0);
        else
            to[token][at] = exists ? *from : none;
    }
}

/* x of the lane's tokens t and t + 4 of eight, of its two rows, in the order of an operand. */
DEVICE void find_inputs(float (&x)[4], const struct shared &shared, int step)
{
    struct lane l = this_lane();
#pragma unroll
    for (int i = 0; i < 4; i++)
        x[i] = to_float(shared.x[8 * step + i / 2 * 4 + l.t][16 * l.warp + l.g + i % 2 * 8]);
}

/* By each warp for its rows, once their x is there. */
DEVICE void append_inputs(const struct shared &shared, const struct checkpointing_ssu_args &a, const struct ring_sequence &s)
{
    struct lane l = this_lane();
    for (int i = threadIdx.x % 32; i < 8 * TILES * 16 / ROW_PIECE; i += 32) {
        int token = i / (16 / ROW_PIECE), at = 16 * l.warp + i % (16 / ROW_PIECE) * ROW_PIECE, place = blockIdx.x * ROWS + at;
        if (token < s.count && place < a.head_dim)
            store_vec(ring_at(a.x_cache, a, s, blockIdx.y, s.live + token) + place,
                      load_vec<ROW_PIECE>(&shared.x[WINDOW + token][at]));
    }
}

#endif
