/* SPDX-License-Identifier: Apache-2.0 */
/* What a warpgroup of batch_prefill_sm90 does with its 64 packed rows: logits, weights, weighted values, and writing them. A
 * thread holds parts of rows g and g + 8 of its warp's 16, laid out as in wgmma.cuh.
 *
 *   T, HEAD_DIM, HEAD_DIM_VO, CAUSAL, WINDOW, SOFT_CAP, GATHER, PAGED as in batch_prefill_sm90.cu */
#ifndef ATTENTION_ROWS_SM90_CUH
#define ATTENTION_ROWS_SM90_CUH

#include "attention_schedule.cuh"
#include "mma.cuh"
#include "wgmma.cuh"

DEVICE constexpr bool is_bf16(f16) { return false; }
DEVICE constexpr bool is_bf16(bf16) { return true; }

enum {
    /* References stay as a task's first tiles leave them: bf16 and float32 hold a large weight as exactly as a small one. If one
     * is too large even so, the task is repeated with references that move. f16 would hold none from 2^16 on. */
    REPEATS = is_bf16(T()) && HEAD_DIM <= 128 && !HAS_HOOKS && !WINDOW && !SOFT_CAP,
    WARPGROUPS = ATTENTION_PREFILL_WARPGROUPS(HEAD_DIM, WINDOW || SOFT_CAP || HAS_HOOKS),
    KEYS = ATTENTION_PREFILL_KEYS(HEAD_DIM, GATHER, HAS_HOOKS), /* with hooks few, which leaves registers to them */
    STAGES = 2,
    BUFFERS = ATTENTION_PREFILL_BUFFERS(HEAD_DIM, HAS_HOOKS),
    TASKS = 4, /* that are remembered: the one that ends, the one at hand, and those whose queries are loaded */
    TURNS = HEAD_DIM == 64, /* warpgroups take turns at the tensor cores */
    LOADER_REGISTERS = WARPGROUPS == 3 ? GATHER ? 56 : 32 : GATHER ? 72 : 40,
    COMPUTER_REGISTERS = WARPGROUPS == 3 ? GATHER ? 152 : 160 : GATHER ? 216 : 232,
    /* Steps of 16 of head_dim whose queries stay in registers, so that products read less of shared memory: as many as fit. */
    KEPT = HAS_HOOKS || GATHER || WINDOW || SOFT_CAP ? 0 : HEAD_DIM == 128 ? 8 : HEAD_DIM == 192 ? 10 : 0,
    KEY_SLABS = HEAD_DIM / 64, /* of 128 bytes of each row, of queries too */
    VALUE_SLABS = HEAD_DIM_VO / 64,
    QUERY_BYTES = 64 * HEAD_DIM * 2,
    KEYS_BYTES = KEYS * HEAD_DIM * 2, /* of a tile */
    VALUES_BYTES = KEYS * HEAD_DIM_VO * 2,
    /* From a slab of a tile to the next, and from 8 tokens of a slab to the next 8. PAGED: all slabs of 8 tokens lie together. */
    SLAB_STEP = PAGED ? 1024 : KEYS * 128,
    KEYS_STEP = PAGED ? KEY_SLABS * 1024 : 1024,
    VALUES_STEP = PAGED ? VALUE_SLABS * 1024 : 1024,
    /* Of a lane's KEYS / 2 weights: those that are found while values are being multiplied. */
    AHEAD = KEYS / (HEAD_DIM == 128 ? 8 : 16) / 4 * 4,
    TURN_BARRIER = 1, /* and on, one for each warpgroup */
    TAIL_BARRIER = TURN_BARRIER + WARPGROUPS,
    END_BARRIER = TAIL_BARRIER + WARPGROUPS
};
#define HEADROOM 8.0f
#define MOST_WEIGHT 0x1p100f /* that a lane's weights may sum up to; with more, the task is repeated */
#define UNSEEN -1e30f /* reference of a row that has seen nothing */
#define HIDDEN -1e33f

/* Index 0 is row g of a warp's 16, 1 is row g + 8. */
struct rows {
    uint32_t q[KEPT ? 4 * KEPT : 1]; /* queries, of steps that are kept */
    float s[KEYS / 2];     /* logits, then weights */
    uint32_t p[KEYS / 4];  /* weights, packed */
    float o[HEAD_DIM_VO / 2]; /* values weighted alike */
    float top[2], sum[2];  /* the reference logit, in s's unit, and this lane's sum of 2^(unit * (s - top)) */
    float shrink[2];       /* what o and sum lose when top moves */
    bool moved;
};

/* The launch argument. */
struct launch {
    struct attention_sm90_args p;
#if HAS_HOOKS
    struct variant v;
#endif
};

DEVICE struct variant variant_of(const struct attention_sm90_args &p)
{
#if HAS_HOOKS
    return ((const struct launch &)p).v;
#else
    return {};
#endif
}

/* What a thread knows of its task. */
struct view {
    int begin[2], end[2];  /* tokens that a row sees */
    int tile, first;       /* the next tile of keys, and the last that is due */
};

DEVICE void keep_queries(struct rows &r, uint32_t queries)
{
    int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane % 16;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        int chunk = i % 4 * 2 + lane / 16;
        ldmatrix_x4(*(uint32_t(*)[4])(r.q + 4 * i), queries + i / 4 * 8192 + row * 128 + ((chunk ^ (row & 7)) << 4));
    }
}

DEVICE void issue_logits(struct rows &r, uint32_t queries, uint32_t keys)
{
    uint64_t q = wgmma_describe(queries, 16, 1024), k = wgmma_describe(keys, 16, KEYS_STEP);
    wgmma_pin(r.s);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 16; i += 4) {
        uint64_t from = q + i / 4 * 8192 / 16, step = k + i / 4 * SLAB_STEP / 16;
        if (i + 4 <= KEPT)
            wgmma_rows_4(r.s, r.q + 4 * i, step, i > 0, T());
        else if (i >= KEPT)
            wgmma_4(r.s, from, step, i > 0, T());
        else
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (i + j < KEPT)
                    wgmma_rows(r.s, r.q + 4 * (i + j), step + 2 * j, i + j > 0, T());
                else
                    wgmma(r.s, from + 2 * j, step + 2 * j, i + j > 0, T());
    }
    wgmma_commit();
}

/* Weights of the first `unseen` steps are 0: values that are seen stand in for theirs, which may be NaN. */
DEVICE void issue_values(struct rows &r, uint32_t values, int unseen)
{
    uint64_t v = wgmma_describe(values, SLAB_STEP, VALUES_STEP);
    wgmma_pin(r.o);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < KEYS / 64 && !WINDOW; i++)
        wgmma_columns_4<2 * VALUES_STEP / 16>(r.o, r.p + 16 * i, v + i * (8 * VALUES_STEP) / 16, T());
#pragma unroll
    for (int i = WINDOW ? 0 : KEYS / 64 * 4; i < KEYS / 16; i++)
        wgmma_columns(r.o, r.p + 4 * i, v + max(i, unseen) * (2 * VALUES_STEP) / 16, T());
    wgmma_commit();
}

DEVICE void hide(struct rows &r, const struct view &v)
{
    int column = v.tile * KEYS + threadIdx.x % 4 * 2;
    int end[2] = {v.end[0] - column, v.end[1] - column}, begin[2] = {v.begin[0] - column, v.begin[1] - column};
    if (end[0] >= KEYS && (!WINDOW || begin[1] <= 0)) /* the rows see all of the tile */
        return;
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        int at = i / 4 * 8 + i % 2, h = i / 2 % 2;
        if (at >= end[h] || (WINDOW && at < begin[h]))
            r.s[i] = HIDDEN;
    }
}

/* How products become weights: 2^(unit * (s - top)). */
struct scale {
    float unit; /* below 0: s is to be negated first */
    struct logit_rule rule;
};

DEVICE struct scale make_scale(const struct attention_args &a)
{
    struct scale c;
    c.rule = make_logit_rule(a);
    c.unit = SOFT_CAP || HAS_LOGITS ? 1.0f : c.rule.factor;
    if (fabsf(c.unit) < 1e-30f)
        c.unit = 1e-30f; /* with 0 what is hidden would not stay hidden */
    return c;
}

/* What hooks are told of element `element` of row g or g + 8 of a task, and of a token of keys. */
DEVICE struct at place_of(const struct attention_sm90_args &p, const struct task &t, int first_token, int h, int kv, int element)
{
    int row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + 8 * h, token = divide(row, p.a.by_group), request = 0;
    int head = t.kv_head * p.a.group + row - token * p.a.group;
#if HAS_HOOKS
    request = t.request;
#endif
    return {request, t.qo_len, t.kv_len, first_token + token, kv, head, t.kv_head, element, t.first_q + first_token + token};
}

/* Logits in base 2, or without softmax weights, by the hooks; hides what the row does not see. */
DEVICE void change_logits(struct rows &r, const struct view &v, const struct attention_sm90_args &p, const struct task &t,
                          int first_token)
{
    struct at at[2] = {place_of(p, t, first_token, 0, 0, 0), place_of(p, t, first_token, 1, 0, 0)};
    int column = v.tile * KEYS + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        int h = i / 2 % 2;
        at[h].kv = column + i / 4 * 8 + i % 2;
        bool seen = at[h].kv < v.end[h] && (!WINDOW || at[h].kv >= v.begin[h]) && hook_mask(variant_of(p), at[h]);
        if (HAS_LOGITS && seen)
            r.s[i] = hook_logits(variant_of(p), r.s[i] * (1.0f / LOG2E), at[h]) * (WITHOUT_SOFTMAX ? 1.0f : LOG2E);
        if (!seen)
            r.s[i] = WITHOUT_SOFTMAX ? 0.0f : HIDDEN;
    }
}

DEVICE void scale_logits(struct rows &r, const struct scale &c)
{
    if (SOFT_CAP) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++)
            r.s[i] = c.rule.cap * tanh_exp2(r.s[i] * c.rule.factor);
    } else if (HAS_LOGITS) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++)
            r.s[i] *= c.rule.factor;
    } else if (c.unit < 0.0f) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++)
            r.s[i] = -r.s[i];
    }
}

/* The largest of a lane's logits of row g + 8 * h. Floats compare as integers do unless all are negative; of integers three are
 * compared at a time. */
DEVICE float find_top(const struct rows &r, int h, bool negative)
{
    uint32_t least[2];
    int most[2];
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        int x = __float_as_int(r.s[4 * i + 2 * h]), y = __float_as_int(r.s[4 * i + 2 * h + 1]), &m = most[i % 2];
        uint32_t &l = least[i % 2];
        if (negative)
            l = i < 2 ? min((uint32_t)x, (uint32_t)y) : min(l, min((uint32_t)x, (uint32_t)y));
        else
            m = i < 2 ? max(x, y) : max(m, max(x, y));
    }
    return __int_as_float(negative ? (int)min(least[0], least[1]) : max(most[0], most[1]));
}

/* Moves references that logits exceed by 2^HEADROOM; first: those of rows that have seen nothing. */
DEVICE void move_references(struct rows &r, float unit, bool first)
{
    float top[2];
    bool moves = first;
    if (WITHOUT_SOFTMAX)
        return;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        top[h] = find_top(r, h, false);
        /* Below 0 it may be another one than the largest, which matters where the reference is far below 0, too. */
        moves |= top[h] * unit - r.top[h] * unit > HEADROOM || r.top[h] * unit < -HEADROOM;
    }
    r.moved = first || __any_sync(0xffffffffu, moves);
    if (r.moved) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            if (top[h] < 0.0f)
                top[h] = find_top(r, h, true);
            top[h] = fmaxf(top[h], __shfl_xor_sync(0xffffffffu, top[h], 1));
            top[h] = fmaxf(fmaxf(top[h], __shfl_xor_sync(0xffffffffu, top[h], 2)), r.top[h]);
            r.shrink[h] = first ? 0.0f : exp2_approx((r.top[h] - top[h]) * unit);
            r.sum[h] = first ? 0.0f : r.sum[h] * r.shrink[h];
            r.top[h] = top[h];
        }
    }
}

/* How a tile's logits become weights. */
struct weighing {
    float unit, base[2], sum[2][2]; /* sum: of weights of the two columns of a row, so far */
};

DEVICE struct weighing weigh_by(const struct rows &r, float unit)
{
    return {unit, {r.top[0] * unit, r.top[1] * unit}, {{0.0f, 0.0f}, {0.0f, 0.0f}}};
}

/* Some of them; the last ones end it. */
DEVICE void weigh(struct rows &r, struct weighing &w, int from, int to)
{
    if (WITHOUT_SOFTMAX)
        return;
#pragma unroll
    for (int i = from; i < to; i++) {
        r.s[i] = exp2_approx(r.s[i] * w.unit - w.base[i / 2 % 2]);
        w.sum[i / 2 % 2][i % 2] += r.s[i];
    }
    if (to < KEYS / 2)
        return;
    r.sum[0] += w.sum[0][0] + w.sum[0][1];
    r.sum[1] += w.sum[1][0] + w.sum[1][1];
}

DEVICE void pack(struct rows &r)
{
#pragma unroll
    for (int i = 0; i < KEYS / 4; i++)
        r.p[i] = pack2(T(), r.s[2 * i], r.s[2 * i + 1]);
}

DEVICE void clear(struct rows &r)
{
#pragma unroll
    for (int i = 0; i < HEAD_DIM_VO / 2; i++)
        r.o[i] = 0.0f;
}

DEVICE void rescale(struct rows &r)
{
#pragma unroll
    for (int i = 0; i < HEAD_DIM_VO / 2; i++)
        r.o[i] *= r.shrink[i / 2 % 2];
}

/* Whether row g or g + 8 of a task is one of its request's. */
DEVICE bool row_exists(const struct attention_sm90_args &p, const struct task &t, int first_token, int h)
{
    int row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + 8 * h, token = divide(row, p.a.by_group);
    return token < p.q_tokens && first_token + token < t.qo_len;
}

/* Rows that do not exist have a reference that nothing exceeds: they have no say in when a warp's references move, so that a
 * request's bits depend neither on its neighbours nor on what lay in shared memory. */
DEVICE void forget(struct rows &r, const struct attention_sm90_args &p, const struct task &t, int first_token)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        r.top[h] = row_exists(p, t, first_token, h) ? UNSEEN : INFINITY;
        r.sum[h] = 0.0f;
    }
}

/* 4 by 4 words over the lanes of a quad: lane q gets word b of lane b's u[q] in u[b]. */
DEVICE void transpose_quad(uint32_t (&u)[4])
{
    int q = threadIdx.x % 4;
#pragma unroll
    for (int step = 1; step <= 2; step *= 2)
#pragma unroll
        for (int b = 0; b < 4; b++)
            if (!(b & step)) {
                uint32_t got = __shfl_xor_sync(0xffffffffu, q & step ? u[b] : u[b | step], step);
                if (q & step)
                    u[b] = got;
                else
                    u[b | step] = got;
            }
}

/* Whether no weight of a lane's rows was too large: o times 0 is not 0 where it is not finite. */
DEVICE bool is_right(const struct attention_sm90_args &p, const struct rows &r, const float (&sum)[2], const struct task &t,
                     int first_token)
{
    bool right = true;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float zero = sum[h] < MOST_WEIGHT ? 0.0f : INFINITY;
#pragma unroll
        for (int i = 2 * h; i < HEAD_DIM_VO / 2; i += 4)
            zero = fmaf(r.o[i], 0.0f, fmaf(r.o[i + 1], 0.0f, zero));
        right &= zero == 0.0f || !row_exists(p, t, first_token, h);
    }
    return right;
}

/* Rows of a task whose state is top and sum; first_token is the warpgroup's. */
DEVICE void write_rows(const struct attention_sm90_args &p, struct rows &r, const float (&top)[2], const float (&sum)[2],
                       float unit, const struct task &t, int first_token)
{
    const struct attention_args &a = p.a;
    int thread = threadIdx.x % 128, q = thread % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = thread / 32 * 16 + thread % 32 / 4 + 8 * h, token = divide(row, a.by_group);
        int head = t.kv_head * a.group + row - token * a.group;
        bool exists = row_exists(p, t, first_token, h);
        int64_t at = t.first_q + first_token + token;
        float lse, total = sum[h] + __shfl_xor_sync(0xffffffffu, sum[h], 1);
        total += __shfl_xor_sync(0xffffffffu, total, 2);
        float peak = WITHOUT_SOFTMAX ? 0.0f : total == 0.0f ? -INFINITY : top[h] * unit;
        float factor = finish_row(a, peak, WITHOUT_SOFTMAX ? 1.0f : total, head, &lse);
        struct at place = place_of(p, t, first_token, h, 0, 0);
        T *to = (T *)a.out + at * a.out_token + head * a.out_head + q * 8;
        if (a.lse && exists && q == 0)
            a.lse[at * a.lse_token + head * a.lse_head] = lse;
#pragma unroll
        for (int i = 0; i < HEAD_DIM_VO / 32; i++) {
            uint32_t u[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float x[2] = {r.o[16 * i + 4 * k + 2 * h] * factor, r.o[16 * i + 4 * k + 2 * h + 1] * factor};
#pragma unroll
                for (int j = 0; HAS_OUTPUT && j < 2; j++) {
                    place.element = (4 * i + k) * 8 + q * 2 + j;
                    if (exists)
                        x[j] = hook_output(variant_of(p), x[j], place);
                }
                u[k] = pack2(T(), x[0], x[1]);
            }
            transpose_quad(u);
            if (exists)
                *(uint4 *)(to + 32 * i) = make_uint4(u[0], u[1], u[2], u[3]);
        }
    }
}

#endif
