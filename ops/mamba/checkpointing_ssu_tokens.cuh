/* SPDX-License-Identifier: Apache-2.0 */
/* checkpointing_ssu: what does not depend on the state: where a block's numbers are, delta, and what each token weighs in each
 * output. T, STATE_DIM, TILES and ACCESS are the kernel's. */
#ifndef CHECKPOINTING_SSU_TOKENS_CUH
#define CHECKPOINTING_SSU_TOKENS_CUH

#include "mamba_state.cuh"
#include "mma.cuh"
#include "checkpointing_ssu_args.h"

enum { THREADS = 128, ROWS = RING_ROWS, PIECES = STATE_DIM / 32, TOKENS = 2 * WINDOW, STEPS = 2 + TILES };
enum { WEIGHT_ROW = RING_WEIGHT_ROW(TILES), B_ROW = RING_B_ROW(STATE_DIM) };
enum { X_ROW = RING_X_ROW, NEW = WINDOW, GATES = 8 * STEPS, ROW_LANES = 2 };

/* Eight numbers of each 32 of a row. */
struct pieces {
    vec<T, 8> at[PIECES];
};

/* What comes from memory of a head. */
struct stage {
    STATE state[ROWS * STATE_DIM];
    T x[GATES + 8 * TILES][X_ROW]; /* of live tokens, of new ones from NEW on, and z of these */
};

/* What is known of a head's tokens before its state is there. */
struct head_tokens {
    float reach[TOKENS], delta[TOKENS];
    float kept[WINDOW], decay[WINDOW]; /* factors of a live token in the state behind all of them, of the state in new outputs */
    float whole, skip, none[2];        /* factor of the state in the one behind the live tokens; D */
    float weight[TOKENS][WEIGHT_ROW];  /* of each token in the output of each new one */
};

struct shared {
    struct stage stage[STAGES];
    T B[WINDOW][B_ROW]; /* of live tokens; numbers in the order of the lanes' products */
    float product[TOKENS][WEIGHT_ROW]; /* B . C, for the output of each new token */
    struct head_tokens head[HEADS];
};

static_assert(sizeof(struct shared) == RING_SHARED_BYTES(STATE_DIM, sizeof(STATE), TILES, HEADS, STAGES),
              "the host asks for as much");

/* What a warp does besides its rows differs from block to block, for the sake of the schedulers. */
struct lane {
    int warp, role, g, t, at;
};

/* Worked out anew wherever it is asked for, and with it addresses: what stays the same from head to head would fill registers. */
DEVICE struct lane this_lane()
{
    uint32_t thread = threadIdx.x;
    forget(thread);
    int at = thread % 32, warp = thread / 32;
    struct lane l = {warp, (int)(warp + blockIdx.y) % 4, at / 4, at % 4, at};
    return l;
}

/* A lane has pairs of rows, that results of both are stored at once. */
DEVICE int head_row(const struct lane &l, int half) { return blockIdx.x * ROWS + 16 * l.warp + 2 * l.g + half; }

DEVICE int64_t token_place(const struct token_rows &rows, const struct ring_sequence &s, int i, int head)
{
    return s.index * rows.sequence + (s.begin + i) * rows.token + head * rows.head;
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

DEVICE uint32_t fetch_weight(const struct head_weights &w, int head)
{
    return w.data ? fetch(w.data, head * w.head, w.wide) : 0;
}

/* By one warp, a lane for each token: live ones, then new ones. All loads are on their way before one is waited for. */
DEVICE void find_deltas(struct head_tokens &to, const struct checkpointing_ssu_args &a, const struct ring_sequence &s, int head)
{
    int lane = threadIdx.x % 32, i = lane < WINDOW ? lane : s.live + lane - WINDOW;
    bool exists = lane < WINDOW ? lane < s.live : lane - WINDOW < s.count;
    uint32_t slope = fetch_weight(a.A, head), bias = fetch_weight(a.dt_bias, head), skip = fetch_weight(a.D, head), bits = 0;
    float *kept = a.dt_cache + s.row * a.dt_cache_row + head * a.dt_cache_head + ring_place(&a, &s, i);
    if (exists)
        bits = lane < WINDOW ? __float_as_uint(*kept)
                             : fetch(a.dt.data, token_place(a.dt, s, lane - WINDOW, head), a.dt.wide);
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
    to.reach[lane] = reach;
    to.delta[lane] = delta;
    if (lane < WINDOW)
        to.kept[lane] = __expf(live - reach) * delta;
    else
        to.decay[lane - WINDOW] = __expf(reach);
    if (lane == 0) {
        to.whole = __expf(live);
        to.skip = meant(skip, a.D.wide);
    }
}

/* A warp multiplies the live tokens, or the new ones, with eight outputs' C: an even role the live ones. */
DEVICE bool multiplies(const struct lane &l, const struct ring_sequence &s)
{
    return l.role / 2 < TILES && (l.role % 2 == 0 ? s.live > 0 : l.role / 2 * 8 < s.count);
}

/* B . C: of tokens g and g + 8 for outputs 2t and 2t + 1. Live B is left for the states if they are written, new B is appended
 * by `first` blocks. */
DEVICE void multiply_tokens(struct shared &shared, const struct pieces (&c)[TILES], const struct checkpointing_ssu_args &a,
                            const struct ring_sequence &s, int group, bool full, bool first)
{
    struct lane l = this_lane();
    bool old = l.role % 2 == 0, last = l.role / 2 == TILES - 1;
    struct pieces b[2] = {};
    float product[4] = {}, other[4] = {}; /* two sums, that neither product waits for the one before */
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
        shared.product[(old ? 0 : WINDOW) + l.g + e / 2 * 8][l.role / 2 * 8 + 2 * l.t + e % 2] = product[e] + other[e];
    if (l.role == 1 && first)
#pragma unroll
        for (int half = 0; half < 2; half++)
            if (l.g + 8 * half < s.count)
#pragma unroll
                for (int q = 0; q < PIECES; q++)
                    store_vec_by<ACCESS>(ring_at(a.B_cache, a, s, group, s.live + l.g + 8 * half) + 32 * q + 8 * l.t,
                                         b[half].at[q]);
}

/* What tokens weigh in outputs; in its own, with D. By threads of which this is the n-th. Of live tokens, or of new ones, only
 * eights that exist are asked for. */
DEVICE void find_weights(struct head_tokens &head, const struct shared &shared, const struct ring_sequence &s, int n, int threads)
{
    enum { OUTPUTS = 8 * TILES };
    int output = n % OUTPUTS;
    float reach = head.reach[WINDOW + output];
#pragma unroll
    for (int old = 0; old < 2; old++)
        for (int i = n / OUTPUTS; i < ((old ? s.live : s.count) + 7) / 8 * 8; i += threads / OUTPUTS) {
            int j = old ? i : WINDOW + i;
            float weight = __expf(reach - head.reach[j]) * head.delta[j] * shared.product[j][output];
            weight = i < (old ? s.live : s.count) && (old || i <= output) ? weight : 0.0f;
            head.weight[j][output] = weight + (!old && i == output ? head.skip : 0.0f);
        }
}

/* Up to 16 bytes, on their way to shared memory; of a piece of T none or all, or each number where addresses are odd. */
template <class Element> DEVICE void begin_piece(uint32_t to, const Element *from, int n)
{
    Element none = {}, *at = (Element *)__cvta_shared_to_generic(to);
    if (ACCESS > 1)
        cp_async_16(to, from, n ? 16 : 0);
    else
#pragma unroll
        for (int i = 0; i < 16 / (int)sizeof(Element); i++)
            at[i] = i < n ? from[i] : none;
}

/* The lane's eight numbers of each 16 rows of `stage.x`, of which n exist; they move on from head to head. Two lanes have the
 * warp's columns of a row. */
struct lane_rows {
    const T *old, *fresh[TILES];
    T *appended, *out; /* out: of the lane's first row and token 2t */
    int64_t fresh_step[TILES];
    int old_n, fresh_n[TILES], appended_n;
};

DEVICE struct lane_rows find_rows(const struct checkpointing_ssu_args &a, const struct ring_sequence &s, int head)
{
    struct lane l = this_lane();
    struct lane_rows rows;
    int row = l.at / ROW_LANES, place = blockIdx.x * ROWS + 16 * l.warp + l.at % ROW_LANES * 8;
    int n = max(0, min(8, (int)a.head_dim - place));
    rows.old_n = row < s.live ? n : 0;
    rows.old = rows.old_n ? ring_at(a.x_cache, a, s, head, row) + place : (const T *)a.x.data;
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        bool gate = row + 16 * i >= 8 * TILES;
        int token = (row + 16 * i) % (8 * TILES);
        const struct token_rows &from = gate ? a.z : a.x;
        rows.fresh_n[i] = token < s.count && from.data ? n : 0;
        rows.fresh[i] = rows.fresh_n[i] ? (const T *)from.data + token_place(from, s, token, head) + place : (const T *)a.x.data;
        rows.fresh_step[i] = rows.fresh_n[i] ? from.head : 0;
    }
    rows.appended_n = row < 8 * TILES && row < s.count ? n : 0;
    rows.appended = ring_at(a.x_cache, a, s, head, s.live + row) + place;
    rows.out = (T *)a.out.data + token_place(a.out, s, 2 * l.t, head) + head_row(l, 0);
    return rows;
}

/* Place of the lane's numbers in `stage.x`, in bytes. */
DEVICE int lane_place(int row, const struct lane &l)
{
    return ((row + l.at / ROW_LANES) * X_ROW + 16 * l.warp + l.at % ROW_LANES * 8) * sizeof(T);
}

DEVICE void begin_inputs(uint32_t stage, struct lane_rows &rows, const struct checkpointing_ssu_args &a, const struct lane &l)
{
    stage += ROWS * STATE_DIM * sizeof(STATE);
    begin_piece(stage + lane_place(0, l), rows.old, rows.old_n);
    rows.old += rows.old_n ? a.x_cache.head : 0;
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        begin_piece(stage + lane_place(NEW + 16 * i, l), rows.fresh[i], rows.fresh_n[i]);
        rows.fresh[i] += rows.fresh_step[i];
    }
}

/* By each warp for its rows, once their x is there. */
DEVICE void append_inputs(struct stage &stage, struct lane_rows &rows, const struct checkpointing_ssu_args &a,
                          const struct lane &l)
{
    const T *from = (const T *)((const char *)stage.x + lane_place(NEW, l));
    if (ACCESS > 1 && rows.appended_n)
        store_vec(rows.appended, load_vec<8>(from));
    else if (ACCESS == 1)
        for (int i = 0; i < rows.appended_n; i++)
            rows.appended[i] = from[i];
    rows.appended += a.x_cache.head;
}

/* Of each eight rows of `stage.x` those of tokens 2t and 2t + 1: the lane's two rows of the head. */
DEVICE void find_inputs(uint32_t (&x)[STEPS + TILES][2], const struct stage &stage, const struct lane &l)
{
#pragma unroll
    for (int i = 0; i < STEPS + TILES; i++)
#pragma unroll
        for (int token = 0; token < 2; token++)
            x[i][token] = *(const uint32_t *)&stage.x[8 * i + 2 * l.t + token][16 * l.warp + 2 * l.g];
}

/* An operand of a product over tokens 2t and 2t + 1 of eight. */
DEVICE void widen_inputs(float (&left)[4], const uint32_t (&x)[2])
{
#pragma unroll
    for (int token = 0; token < 2; token++) {
        float2 rows = unpack2(T(), x[token]);
        left[2 * token] = rows.x;
        left[2 * token + 1] = rows.y;
    }
}

#endif
