/* SPDX-License-Identifier: Apache-2.0 */
/* What attention on a CPU does beyond the usual: conversions and rotations before packing, masks, ALiBi, hooks. With the
 * constants of the usual case nothing of it is left. */
#ifndef ATTENTION_MODES_CPU_H
#define ATTENTION_MODES_CPU_H

#include "attention_state_cpu.h"

/* Units of a row of HEAD_DIM elements from element i on; zeros beyond its end. */
INLINE vec load_units(const T *row, int i)
{
    return HEAD_DIM % DOT_STEP(T) == 0 ? dot_load(T, row + i) : dot_load_n(T, row + i, HEAD_DIM - i);
}

#if CONVERTS
/* The key or value of a tile's token, which was converted before. */
INLINE const T *key_of(const struct state *s, int token, int64_t offset) { return (void)offset, s->converted[token]; }
INLINE const T *value_of(const struct state *s, int token, int64_t offset) { return (void)offset, s->converted[token]; }

#if POS == 1 /* RoPE */
static inline void fill_turns(struct state *s, const struct attention_modes *m)
{
    double turns = m->rope_unit;
    for (int i = 0; i < HEAD_DIM / 2; i++, turns *= m->rope_ratio)
        s->turns[i] = turns;
}

/* Turns eight pairs, x[i] and x[i + 8], from pair `first` on. */
static inline vec rotate(const struct state *s, vec x, int first, int64_t position)
{
    float fraction[LANES];
    for (int i = 0; i < LANES; i++) {
        double angle = (double)position * s->turns[first + i % 8];
        fraction[i] = (float)(angle - rint(angle));
    }
    vec sine, cosine, other = VEC_PICK(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    const vec sign = {-1, -1, -1, -1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1, 1, 1};
    vec_sincos_turns(vec_load_f32(fraction), &sine, &cosine);
    return x * cosine + other * sine * sign;
}
#endif

/* A row of queries or keys, which hooks have changed, as it is multiplied. */
static inline void turn_row(const struct state *s, T *to, const float *x, int64_t position)
{
    for (int i = 0; i < HEAD_DIM; i += LANES) {
#if POS == 1
        float pairs[LANES];
        memcpy(pairs, x + i / 2, 8 * sizeof *x);
        memcpy(pairs + 8, x + i / 2 + HEAD_DIM / 2, 8 * sizeof *x);
        T turned[LANES];
        vec_store(turned, rotate(s, vec_load_f32(pairs), i / 2, position));
        memcpy(to + i / 2, turned, 8 * sizeof *to);
        memcpy(to + i / 2 + HEAD_DIM / 2, turned + 8, 8 * sizeof *to);
#else
        (void)s, (void)position;
        vec_store(to + i, vec_load_f32(x + i));
#endif
    }
}

static inline void convert_query(const struct attention_args *a, const struct task *t, const struct state *s, T *to,
                                 const Q *from, int64_t token, int64_t head)
{
    float x[HEAD_DIM];
    for (int i = 0; i < HEAD_DIM; i += LANES)
        vec_store_f32(x + i, vec_load(from + i));
    for (int i = 0; HAS_HOOKS && i < HEAD_DIM; i++)
        x[i] = hook_query(VARIANT_OF(a), x[i], place_of(a, t, token, 0, head, i));
    turn_row(s, to, x, t->kv_len - t->qo_len + token);
}

/* Of the KV head at that offset, the h-th of the task. */
static inline void convert_keys(const struct attention_args *a, const struct task *t, struct state *s, int h, int64_t first,
                                int count, int64_t offset)
{
    for (int token = 0; token < count; token++) {
        float x[HEAD_DIM];
        for (int i = 0; i < HEAD_DIM; i += LANES)
            vec_store_f32(x + i, vec_load(s->key[token] + offset + i));
        for (int i = 0; HAS_HOOKS && i < HEAD_DIM; i++)
            x[i] = hook_key(VARIANT_OF(a), x[i], place_of(a, t, 0, first + token, (int64_t)(t->kv_head + h) * a->group, i));
        turn_row(s, s->converted[token], x, first + token);
    }
}

static inline void convert_values(struct state *s, int count, int64_t offset)
{
    for (int token = 0; token < count; token++)
        for (int i = 0; i < HEAD_DIM_VO; i += LANES)
            vec_store(s->converted[token] + i, vec_load(s->value[token] + offset + i));
}
#else
INLINE const T *key_of(const struct state *s, int token, int64_t offset) { return s->key[token] + offset; }
INLINE const T *value_of(const struct state *s, int token, int64_t offset) { return s->value[token] + offset; }
#endif

/* The head's own share of the factor, where there are scales for each. */
static inline float head_factor(const struct attention_args *a, int64_t head)
{
    float q = a->modes.q_scale_step ? a->q_scale[head] : 1.0f;
    return q * (a->modes.k_scale_step ? a->k_scale[head / a->group] : 1.0f);
}

/* ALiBi's, of natural logits: 2^(-8 k / n) for the k-th of the first n = 2^floor(log2(heads)) heads, then those between. */
static inline float alibi_slope(int64_t head, int64_t heads)
{
    int64_t n = 1;
    while (2 * n <= heads)
        n *= 2;
    return exp2f(head < n ? -8.0f * (float)(head + 1) / (float)n : -4.0f * (float)(2 * (head - n) + 1) / (float)n);
}

/* Whether a mask lets a row see a token of its range. */
static inline bool is_seen(const struct attention_args *a, const struct task *t, int64_t token, int64_t key, int64_t head)
{
    const struct attention_modes *m = &a->modes;
    if (MASK == ATTENTION_MASK_CUSTOM && m->mask_row) {
        if (!m->mask[token * m->mask_row + key])
            return false;
    } else if (MASK == ATTENTION_MASK_CUSTOM) {
        int64_t bit = token * t->kv_len + key, start = m->mask_indptr ? m->mask_indptr[t->request] : 0;
        if (!(m->mask[start + (bit >> 3)] >> (bit & 7) & 1))
            return false;
    }
    if (MASK == ATTENTION_MASK_ITEMS) {
        int64_t own = t->kv_len - t->qo_len + token, prefix = m->prefix_len[t->request], item = own - prefix;
        int64_t back = item >= 0 && item < m->token_pos_len ? m->token_pos[t->request * m->token_pos_row + item] : 0;
        if (item >= 0 && key >= prefix && key <= own - back)
            return false;
    }
    (void)head;
    return hook_mask(VARIANT_OF(a), place_of(a, t, token, key, head, 0));
}

/* Products of a row and the tile's keys become logits in base 2, or without softmax weights. */
static void change_logits(const struct attention_args *a, const struct task *t, struct state *s, int r, int64_t first)
{
    int64_t token = token_of(a, t, r), head = head_of(a, t, r), heads = (int64_t)a->num_kv_heads * a->group;
    float factor = s->factor * head_factor(a, head);
    float slope = POS == ATTENTION_POS_ALIBI ? alibi_slope(head, heads) * (a->soft_cap > 0 ? 1.0f / a->soft_cap : LOG2E) : 0;
    for (int j = 0; j < TILE; j++) {
        int64_t key = first + j;
        float x = s->logits[r][j] * factor;
        if (POS == ATTENTION_POS_ALIBI)
            x += slope * (float)(key - token);
        if (s->cap > 0)
            x = s->cap * tanhf(x);
        bool exists = key >= s->begin[r] && key < s->end[r];
        if ((MASK != ATTENTION_MASK_NONE || HAS_MASK) && exists)
            exists = is_seen(a, t, token, key, head);
        if (HAS_LOGITS && exists)
            x = hook_logits(VARIANT_OF(a), x * (1.0f / LOG2E), place_of(a, t, token, key, head, 0)) *
                (WITHOUT_SOFTMAX ? 1.0f : LOG2E);
        s->logits[r][j] = exists ? x : WITHOUT_SOFTMAX ? 0 : -INFINITY;
    }
}

/* Elements i and on of a row of out, after the hook. */
INLINE vec finish_output(const struct attention_args *a, const struct task *t, int r, vec x, int i)
{
    for (int lane = 0; HAS_OUTPUT && lane < LANES; lane++)
        x[lane] = hook_output(VARIANT_OF(a), x[lane], place_of(a, t, token_of(a, t, r), 0, head_of(a, t, r), i + lane));
    return x;
}

#endif
