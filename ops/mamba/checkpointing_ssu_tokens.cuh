/* SPDX-License-Identifier: Apache-2.0 */
/* checkpointing_ssu: what does not depend on the state: where a block's numbers are, delta, and what each token weighs in each
 * output. T, STATE, STATE_DIM, TILES, ACCESS, HEADS and STAGES are the kernel's. */
#ifndef CHECKPOINTING_SSU_TOKENS_CUH
#define CHECKPOINTING_SSU_TOKENS_CUH

#include "mamba_state.cuh"
#include "mma.cuh"
#include "checkpointing_ssu_args.h"

enum { THREADS = RING_THREADS(TILES, HEADS), ROW_WARPS = 4, ROWS = RING_ROWS };
enum { PIECES = STATE_DIM / 32, TOKENS = 2 * WINDOW, STEPS = 2 + TILES };
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

/* role: what a warp does with tokens. An even one has the live ones and an odd one the new ones, with eight outputs from
 * 8 * (role / 2) on. Of several heads a warp does so besides its rows, and differently from block to block, for the sake of the
 * schedulers; of a single one other warps do. */
struct lane {
    int warp, role, g, t, at;
};

/* Of several heads worked out anew wherever it is asked for, and with it addresses: what stays the same would fill registers. */
DEVICE struct lane this_lane()
{
    uint32_t thread = threadIdx.x;
    if (HEADS > 1)
        forget(thread);
    int at = thread % 32, warp = thread / 32;
    struct lane l = {warp, HEADS > 1 ? (int)(warp + blockIdx.y) % ROW_WARPS : warp - ROW_WARPS, at / 4, at % 4, at};
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

/* A lane's token of a head, on its way: of live ones, then new ones. */
struct token_delta {
    uint32_t slope, bias, skip, bits;
};

/* What does not depend on where the ring begins. */
DEVICE struct token_delta fetch_delta(const struct checkpointing_ssu_args &a, const struct ring_sequence &s, int head,
                                      const struct lane &l)
{
    struct token_delta d = {fetch_weight(a.A, head), fetch_weight(a.dt_bias, head), fetch_weight(a.D, head), 0};
    if (l.at >= WINDOW && l.at - WINDOW < s.count)
        d.bits = fetch(a.dt.data, token_place(a.dt, s, l.at - WINDOW, head), a.dt.wide);
    return d;
}

DEVICE float *delta_at(const struct checkpointing_ssu_args &a, const struct ring_sequence &s, int head, int i)
{
    return a.dt_cache + s.row * a.dt_cache_row + head * a.dt_cache_head + ring_place(&a, &s, i);
}

DEVICE void fetch_live_delta(struct token_delta &d, const struct checkpointing_ssu_args &a, const struct ring_sequence &s,
                             int head, const struct lane &l)
{
    if (l.at < s.live)
        d.bits = __float_as_uint(*delta_at(a, s, head, l.at));
}

/* Of the lane's token. */
struct token_reach {
    float reach, delta;
};

/* By a warp. One that `keeps` it leaves what is known of the head's tokens to the others. */
DEVICE struct token_reach find_reach(struct head_tokens &to, const struct token_delta &d, const struct checkpointing_ssu_args &a,
                                     const struct ring_sequence &s, bool keeps, const struct lane &l)
{
    bool fresh = l.at >= WINDOW;
    float delta = __uint_as_float(d.bits);
    if (fresh && l.at - WINDOW < s.count) {
        delta = meant(d.bits, a.dt.wide) + meant(d.bias, a.dt_bias.wide);
        delta = a.softplus && delta <= 20.0f ? log1pf(expf(delta)) : delta;
    }
    float reach = (fresh ? l.at - WINDOW < s.count : l.at < s.live) ? meant(d.slope, a.A.wide) * delta : 0.0f;
#pragma unroll
    for (int step = 1; step < TOKENS; step *= 2) {
        float before = __shfl_up_sync(0xffffffffu, reach, step);
        reach += l.at >= step ? before : 0.0f;
    }
    float live = __shfl_sync(0xffffffffu, reach, WINDOW - 1);
    struct token_reach own = {reach, delta};
    if (!keeps)
        return own;
    if (HEADS > 1) {
        to.reach[l.at] = reach;
        to.delta[l.at] = delta;
    }
    if (fresh)
        to.decay[l.at - WINDOW] = __expf(reach);
    else
        to.kept[l.at] = __expf(live - reach) * delta;
    if (l.at == 0) {
        to.whole = __expf(live);
        to.skip = meant(d.skip, a.D.wide);
    }
    return own;
}

/* A warp multiplies the live tokens, or the new ones, with eight outputs' C: an even role the live ones. */
DEVICE bool multiplies(const struct lane &l, const struct ring_sequence &s)
{
    return l.role / 2 < TILES && (l.role % 2 == 0 ? s.live > 0 : l.role / 2 * 8 < s.count);
}

/* What a warp has of the block's tokens, on its way. */
struct warp_tokens {
    struct token_delta delta;
    struct pieces b[2];
};

/* Whose tokens' deltas a warp finds: of several heads its own one, of a single one each warp that multiplies. */
DEVICE int own_head(const struct lane &l) { return HEADS > 1 ? ROW_WARPS - 1 - l.role : 0; }

DEVICE bool has_head(const struct lane &l, int count) { return HEADS > 1 ? own_head(l) < count : l.role / 2 < TILES; }

/* Where the lane's numbers of B begin: of a ring, or of the first new token. */
DEVICE const T *first_token(const struct checkpointing_ssu_args &a, const struct ring_sequence &s, int group,
                            const struct lane &l)
{
    const T *from = l.role % 2 == 0 ? (const T *)a.B_cache.data + s.row * a.B_cache.row + group * a.B_cache.head
                                    : (const T *)a.B.data + token_place(a.B, s, 0, group);
    return from + 8 * l.t;
}

/* Of tokens g and g + 8. */
DEVICE void fetch_tokens(struct pieces (&b)[2], const T *first, const struct checkpointing_ssu_args &a,
                         const struct ring_sequence &s, const struct lane &l)
{
    bool old = l.role % 2 == 0;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int i = l.g + 8 * half;
        b[half] = {};
        if (i < (old ? s.live : s.count))
            load_pieces(b[half], first + (old ? ring_place(&a, &s, i) * a.B_cache.dim : i * a.B.token));
    }
}

/* B . C: of tokens g and g + 8 for the role's outputs 2t and 2t + 1. */
DEVICE void multiply_tokens(float (&product)[4], const struct pieces (&b)[2], const struct pieces (&c)[TILES],
                            const struct lane &l)
{
    bool last = l.role / 2 == TILES - 1;
    float other[4] = {}; /* two sums, that neither product waits for the one before */
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
    }
#pragma unroll
    for (int e = 0; e < 4; e++)
        product[e] += other[e];
}

/* For the states. */
DEVICE void keep_tokens(struct shared &shared, const struct pieces (&b)[2], const struct lane &l)
{
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int q = 0; q < PIECES; q++) {
            vec_elements<uint32_t, 4> words;
            words.all.bits = b[half].at[q].bits;
#pragma unroll
            for (int i = 0; i < 4; i++)
                *(uint32_t *)&shared.B[l.g + 8 * half][32 * q + 8 * i + 2 * l.t] = words.at[i];
        }
}

/* What the warp's tokens weigh in its outputs, whose products the lanes have, and in their own, with D. */
DEVICE void find_warp_weights(struct head_tokens &to, const float (&product)[4], const struct token_reach &own, float skip,
                              const struct ring_sequence &s, const struct lane &l)
{
    bool old = l.role % 2 == 0;
    int first = l.role / 2 * 8 + 2 * l.t;
    float reach[2];
#pragma unroll
    for (int e = 0; e < 2; e++)
        reach[e] = __shfl_sync(0xffffffffu, own.reach, WINDOW + first + e);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int i = l.g + 8 * half, j = old ? i : WINDOW + i;
        float before = __shfl_sync(0xffffffffu, own.reach, j), delta = __shfl_sync(0xffffffffu, own.delta, j), weight[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            weight[e] = __expf(reach[e] - before) * delta * product[2 * half + e];
            weight[e] = i < (old ? s.live : s.count) && (old || i <= first + e) ? weight[e] : 0.0f;
            weight[e] += !old && i == first + e ? skip : 0.0f;
        }
        *(float2 *)&to.weight[j][first] = make_float2(weight[0], weight[1]);
    }
}

/* The same by a warp that has not the products. Of live tokens, or of new ones, only eights that exist are asked for. */
DEVICE void find_weights(struct head_tokens &head, const struct shared &shared, const struct ring_sequence &s,
                         const struct lane &l)
{
    enum { OUTPUTS = 8 * TILES };
    int output = l.at % OUTPUTS;
    float reach = head.reach[WINDOW + output];
#pragma unroll
    for (int old = 0; old < 2; old++)
        for (int i = l.at / OUTPUTS; i < ((old ? s.live : s.count) + 7) / 8 * 8; i += 32 / OUTPUTS) {
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

DEVICE int lane_column(const struct lane &l) { return blockIdx.x * ROWS + 16 * l.warp + l.at % ROW_LANES * 8; }

DEVICE int lane_columns(const struct checkpointing_ssu_args &a, const struct lane &l)
{
    return max(0, min(8, (int)a.head_dim - lane_column(l)));
}

/* Those that do not depend on where the ring begins. */
DEVICE void find_new_rows(struct lane_rows &rows, const struct checkpointing_ssu_args &a, const struct ring_sequence &s, int head,
                          const struct lane &l)
{
    int row = l.at / ROW_LANES, place = lane_column(l), n = lane_columns(a, l);
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
    rows.out = (T *)a.out.data + token_place(a.out, s, 2 * l.t, head) + head_row(l, 0);
}

DEVICE void find_ring_rows(struct lane_rows &rows, const struct checkpointing_ssu_args &a, const struct ring_sequence &s,
                           int head, const struct lane &l)
{
    int row = l.at / ROW_LANES;
    rows.old_n = row < s.live ? lane_columns(a, l) : 0;
    rows.old = rows.old_n ? ring_at(a.x_cache, a, s, head, row) + lane_column(l) : (const T *)a.x.data;
    rows.appended = ring_at(a.x_cache, a, s, head, s.live + row) + lane_column(l);
}

/* Place of the lane's numbers in `stage.x`, in bytes. */
DEVICE int lane_place(int row, const struct lane &l)
{
    return ((row + l.at / ROW_LANES) * X_ROW + 16 * l.warp + l.at % ROW_LANES * 8) * sizeof(T);
}

DEVICE void begin_new_inputs(uint32_t stage, struct lane_rows &rows, const struct lane &l)
{
    stage += ROWS * STATE_DIM * sizeof(STATE);
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        begin_piece(stage + lane_place(NEW + 16 * i, l), rows.fresh[i], rows.fresh_n[i]);
        rows.fresh[i] += rows.fresh_step[i];
    }
}

DEVICE void begin_live_inputs(uint32_t stage, struct lane_rows &rows, const struct checkpointing_ssu_args &a,
                              const struct lane &l)
{
    begin_piece(stage + ROWS * STATE_DIM * sizeof(STATE) + lane_place(0, l), rows.old, rows.old_n);
    rows.old += rows.old_n ? a.x_cache.head : 0;
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
