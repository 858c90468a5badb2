/* SPDX-License-Identifier: Apache-2.0 */
/* What batch_prefill_sm80 does beyond the usual: conversions and rotations on the way to shared memory, masks, ALiBi, hooks. With
 * the constants of the usual case nothing of it is left.
 *
 *   Q, KV, O dtypes of queries, of keys and values, and of out
 *   CONVERTS 1: Q or KV is not T, or elements change on their way; 0: they are copied
 *   MASK     ATTENTION_MASK_: what hides logits beside the rows' ranges
 *   POS      ATTENTION_POS_ */
#ifndef ATTENTION_MODES_CUH
#define ATTENTION_MODES_CUH

#include "attention_tile.cuh"

#define HOOK DEVICE
#include "attention_hooks.h"

enum { BANDS = ATTENTION_PREFILL_BANDS(TILE_Q), WARPS = TILE_Q / 16 / BANDS, THREADS = 32 * WARPS };
enum { PIECES = POS == ATTENTION_POS_ROPE ? 2 : 1 }; /* chunks of a row that change together */
enum { CHANGES_LOGITS = MASK != ATTENTION_MASK_NONE || POS == ATTENTION_POS_ALIBI || CONVERTS || HAS_HOOKS };

/* The launch argument. */
struct prefill {
    struct attention_args a;
#if HAS_HOOKS
    struct variant v;
#endif
};

DEVICE struct variant variant_of(const struct prefill &p)
{
#if HAS_HOOKS
    return p.v;
#else
    return {};
#endif
}

/* The rows of a block. */
struct task {
    int request, kv_head, first_page;
    int first_q, qo_len, kv_len; /* first_q: the request's first query token */
    int begin, end;              /* tokens that any of the rows sees */
    int first_row;
    int column;                  /* of values and out, the first of this block */
    const KV *keys, *values;     /* of the head's first slot, from that column on */
    struct logit_rule rule;
};

/* The tokens that a row sees, its query token and head, and what its products are multiplied by. */
struct row {
    int begin, end, token, head;
    float factor;
    float slope; /* of ALiBi, in the unit of scaled logits */
};

DEVICE struct row make_row(const struct attention_args &a, const struct task &t, int row)
{
    struct row r;
    r.token = divide(row, a.by_group);
    r.head = t.kv_head * a.group + (row - r.token * a.group);
    int own = t.kv_len - t.qo_len + r.token;
    r.begin = a.window_left >= 0 && own > a.window_left ? own - a.window_left : 0;
    r.end = a.causal ? max(0, own + 1) : t.kv_len;
    if (r.token >= t.qo_len)
        r.end = 0;
    return r;
}

/* What hooks are told. */
DEVICE struct at place_of(const struct task &t, int token, int key, int head, int element)
{
    return {t.request, t.qo_len, t.kv_len, token, key, head, t.kv_head, element, t.first_q + token};
}

/* How far a pair of elements turns from one token to the next, in full turns: a float, and what is missing. */
DEVICE void fill_rotation(float2 *turns, const struct attention_modes &m, int threads)
{
    for (int i = threadIdx.x; i < HEAD_DIM / 2; i += threads) {
        double exact = m.rope_unit, power = m.rope_ratio;
        for (int n = i; n; n >>= 1, power *= power)
            if (n & 1)
                exact *= power;
        turns[i] = make_float2((float)exact, (float)(exact - (float)exact));
    }
}

DEVICE void rotate(float &x, float &y, float2 turns, float position)
{
    float whole = __fmul_rn(position, turns.x), sine, cosine;
    float fraction = whole - rintf(whole) + (__fmaf_rn(position, turns.x, -whole) + position * turns.y);
    sincos_approx(fraction, &sine, &cosine);
    float turned = x * cosine - y * sine;
    y = y * cosine + x * sine;
    x = turned;
}

template <class From> DEVICE void load_chunk(float (&x)[8], const From *from)
{
#if ALIGNED
    load(x, from);
#else
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i] = to_float(from[i]);
#endif
}

/* Starts copying a tile of rows of DIM elements, which lie at `rows`. Their addresses are loaded ahead of the copies, which no
 * load from shared memory passes. */
template <int DIM, int TOKENS> DEVICE void copy_tile(uint32_t tile, const KV *const *rows, uint32_t thread)
{
    enum { ROW = DIM / 8, COPIES = (TOKENS * ROW + THREADS - 1) / THREADS };
    enum { AT_ONCE = COPIES < COPIES_AT_ONCE ? COPIES : COPIES_AT_ONCE };
    enum { EVEN = TOKENS * ROW % (THREADS * AT_ONCE) == 0, WHOLE = THREADS % ROW == 0 };
#pragma unroll 1
    for (int first = 0; first < COPIES; first += AT_ONCE) {
        const KV *from[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int n = THREADS * (first + i) + thread, row = WHOLE ? THREADS / ROW * (first + i) + thread / ROW : n / ROW;
            from[i] = EVEN || row < TOKENS ? rows[row] : NULL;
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int n = THREADS * (first + i) + thread, row = WHOLE ? THREADS / ROW * (first + i) + thread / ROW : n / ROW;
            int chunk = (WHOLE ? thread : n) % ROW; /* known before the loop */
            if (EVEN || row < TOKENS)
                copy_chunk(chunk_address<DIM>(tile, row, chunk), from[i] + chunk * 8);
        }
    }
}

/* A chunk of float32 to a tile of T. */
template <int DIM> DEVICE void put_chunk(uint32_t tile, int row, int chunk, const float (&x)[8])
{
    store((T *)__cvta_shared_to_generic(chunk_address<DIM>(tile, row, chunk)), x);
}

/* Chunk `chunk` of a row of queries or keys, `from`, and with RoPE the one half a row later; zeros if from is NULL. */
template <bool IS_QUERY, class From>
DEVICE void convert_row(uint32_t tile, int row, int chunk, const From *from, const float2 *turns, int position,
                        const struct prefill &p, const struct at &at)
{
    float x[PIECES][8];
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++)
            x[i][j] = 0.0f;
        int first = 8 * (chunk + i * (CHUNKS / 2));
        if (from) {
            load_chunk(x[i], from + first);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                struct at here = at;
                here.element = first + j;
                x[i][j] = IS_QUERY ? hook_query(variant_of(p), x[i][j], here) : hook_key(variant_of(p), x[i][j], here);
            }
        }
    }
    if (POS == ATTENTION_POS_ROPE) {
#pragma unroll
        for (int j = 0; j < 8; j++)
            rotate(x[0][j], x[PIECES - 1][j], turns[8 * chunk + j], (float)position);
    }
#pragma unroll
    for (int i = 0; i < PIECES; i++)
        put_chunk<HEAD_DIM>(tile, row, chunk + i * (CHUNKS / 2), x[i]);
}

DEVICE void complete_rows(struct row (&rows)[2], const struct attention_args &a, struct logit_rule rule)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        rows[h].factor = rule.factor * head_factor(a, rows[h].head);
        rows[h].slope = alibi_slope(rows[h].head, a.num_kv_heads * a.group) * (a.soft_cap > 0.0f ? 1.0f / a.soft_cap : LOG2E);
    }
}

/* Whether a mask lets a row see a token of its range. */
DEVICE bool is_seen(const struct prefill &p, const struct task &t, const struct row &r, int key)
{
    const struct attention_modes &m = p.a.modes;
    if (MASK == ATTENTION_MASK_CUSTOM && m.mask_row) {
        if (!m.mask[r.token * m.mask_row + key])
            return false;
    } else if (MASK == ATTENTION_MASK_CUSTOM) {
        int64_t bit = (int64_t)r.token * t.kv_len + key;
        int64_t start = m.mask_indptr ? m.mask_indptr[t.request] : 0;
        if (!(m.mask[start + (bit >> 3)] >> (bit & 7) & 1))
            return false;
    }
    if (MASK == ATTENTION_MASK_ITEMS) {
        int own = t.kv_len - t.qo_len + r.token, prefix = m.prefix_len[t.request], item = own - prefix;
        int back = item >= 0 && item < m.token_pos_len ? m.token_pos[t.request * m.token_pos_row + item] : 0;
        if (item >= 0 && key >= prefix && key <= own - back)
            return false;
    }
    return hook_mask(variant_of(p), place_of(t, r.token, key, r.head, 0));
}

/* Products of queries and keys become logits in base 2, or without softmax weights. */
template <int N>
DEVICE void change_logits(float (&s)[N][4], const struct prefill &p, const struct task &t, const struct row (&rows)[2],
                          struct logit_rule rule, int first)
{
    int column = first + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const struct row &r = rows[j / 2];
            s[i][j] *= r.factor;
            if (POS == ATTENTION_POS_ALIBI)
                s[i][j] += r.slope * (float)(column + 8 * i + j % 2 - r.token);
        }
    cap_logits(s, rule);
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const struct row &r = rows[j / 2];
            int key = column + 8 * i + j % 2;
            bool exists = key >= r.begin && key < r.end;
            if ((MASK != ATTENTION_MASK_NONE || HAS_MASK) && exists)
                exists = is_seen(p, t, r, key);
            if (HAS_LOGITS && exists)
                s[i][j] = hook_logits(variant_of(p), s[i][j] * (1.0f / LOG2E), place_of(t, r.token, key, r.head, 0)) *
                          (WITHOUT_SOFTMAX ? 1.0f : LOG2E);
            if (!exists)
                s[i][j] = WITHOUT_SOFTMAX ? 0.0f : -INFINITY;
        }
}

#endif
