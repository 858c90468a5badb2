/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on a CPU: up to ROWS rows of one request over its pages, 64 tokens at a time. What batch_prefill_cpu and
 * batch_decode_cpu share.
 *
 * Keys and values of a tile are packed for `multiply`, which has 64 results of each of ROWS_AT_ONCE rows in registers: keys
 * transposed, so that a lane is a token; values in pairs of tokens where dot.h multiplies pairs, so that a lane is a dimension.
 * All rows of the tile use them; where a kernel's FEW_ROWS or less do, they are multiplied as they lie. The order of a row's
 * sums depends on nothing but its own request, and on how many parts batch_decode_cpu divides its keys among.
 *
 *   T and the other constants as in attention_state_cpu.h */
#ifndef ATTENTION_CPU_H
#define ATTENTION_CPU_H

#include "attention_modes_cpu.h"

static inline void begin_rows(const struct attention_args *a, const struct task *t, struct state *s)
{
    float factor = a->logit_factor * (a->q_scale && !a->modes.q_scale_step ? *a->q_scale : 1.0f);
    factor *= a->k_scale && !a->modes.k_scale_step ? *a->k_scale : 1.0f;
    s->factor = a->soft_cap > 0 ? factor / a->soft_cap : factor * LOG2E;
    s->cap = a->soft_cap * LOG2E;
    for (int r = 0; r < t->rows * t->kv_heads; r++) {
        int64_t token = token_of(a, t, r), own = t->kv_len - t->qo_len + token;
        const Q *from = (const Q *)a->q + (t->first_q + token) * a->q_token + head_of(a, t, r) * a->q_head;
#if CONVERTS
        T q[HEAD_DIM];
        convert_query(a, t, s, q, from, token, head_of(a, t, r));
#else
        const T *q = from;
#endif
        for (int i = 0; i < HEAD_DIM; i += DOT_STEP(T))
            vec_store_f32((float *)s->q[r] + i / UNIT, load_units(q, i));
        s->end[r] = !a->causal ? t->kv_len : own + 1 > 0 ? own + 1 : 0;
        s->begin[r] = a->window_left >= 0 && own > a->window_left ? own - a->window_left : 0;
        s->top[r] = -INFINITY;
        memset(s->sum[r], 0, sizeof s->sum[r]);
        memset(s->o[r], 0, sizeof s->o[r]);
    }
}

/* Finds keys and values of the tokens [first, first + count), up to two tiles of them. */
static inline void find_tokens(const struct attention_args *a, const struct task *t, int64_t first, int count, struct state *s)
{
    static const int32_t only_page;
    bool is_ragged = !a->kv_last_page_len;
    const int32_t *page = is_ragged ? &only_page : a->kv_indices + first_page(a, t->request) + first / a->page_size;
    int64_t slot = is_ragged ? first_page(a, t->request) + first : first % a->page_size;
    const KV *keys = (const KV *)a->k + t->kv_head * a->k_head, *values = (const KV *)a->v + t->kv_head * a->v_head;
    int64_t ahead = a->modes.v_indptr ? a->modes.v_indptr[t->request] - first_page(a, t->request) : 0; /* ragged */
    for (int64_t i = 0; i < count; i++, slot++) {
        if (slot == a->page_size) {
            slot = 0;
            page++;
        }
        s->key[i] = keys + *page * a->k_page + slot * a->k_slot;
        s->value[i] = values + *page * a->v_page + (slot + ahead) * a->v_slot;
    }
    /* Values that no row sees: a weight of 0 times NaN is NaN. */
    int hidden = s->begin[0] > first ? (int)(s->begin[0] - first) : 0;
    for (int i = 0; i < hidden && hidden < count; i++)
        s->value[i] = s->value[hidden];
    for (int i = count; i < 2 * TILE; i++) {
        s->key[i] = s->key[0];
        s->value[i] = s->value[0];
    }
}

/* Packing also asks for the same place in the next tile, into the second cache: pages lie anywhere, so the machine cannot
 * guess. */
static inline void pack_keys(struct state *s, int64_t offset, int count)
{
    for (int token = 0; token < TILE; token += LANES)
        for (int unit = 0; unit < KEY_UNITS; unit += LANES) {
            vec x[LANES];
            for (int i = 0; i < LANES; i++) {
                __builtin_prefetch(s->key[TILE + token + i] + offset + unit * UNIT, 0, 2);
                x[i] = token + i < count ? load_units(key_of(s, token + i, offset), unit * UNIT) : (vec){0};
            }
            vec_transpose(x);
            for (int i = 0; i < LANES; i++)
                vec_store_f32((float *)s->keys[unit + i] + token, x[i]);
        }
}

/* Units of a row of weights that are multiplied. */
INLINE int units_of_tokens(int count)
{
    int units = (count + UNIT - 1) / UNIT;
    return IN_TILES ? (units + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS : units;
}

static inline void pack_values(struct state *s, int64_t offset, int count)
{
    static const T zeros[HEAD_DIM_VO];
    for (int token = 0; token < count; token += UNIT) {
        const T *value[2] = {value_of(s, token, offset), zeros};
        if (UNIT == 2 && token + 1 < count)
            value[1] = value_of(s, token + 1, offset);
        for (int i = 0; i < UNIT; i++)
            for (int at = 0; at < HEAD_DIM_VO; at += LINE)
                __builtin_prefetch(s->value[TILE + token + i] + offset + at, 0, 2);
        for (int i = 0; i < HEAD_DIM_VO; i += LANES)
            vec_store_f32((float *)s->values[token / UNIT] + i, dot_pack(T, value[0] + i, value[1] + i));
    }
    for (int unit = (count + UNIT - 1) / UNIT; unit < units_of_tokens(count); unit++)
        memset(s->values[unit], 0, sizeof s->values[unit]);
}

/* c[rows][64] (+)= a[rows][units] * b[units][64], with the given strides. */
INLINE void multiply_rows(const int rows, const bool add, float *c, int c_stride, const uint32_t *a, int a_stride,
                          const uint32_t *b, int b_stride, int units)
{
    lane_sums sum[ROWS_AT_ONCE][4];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 4; j++)
            lane_sums_begin(&sum[r][j], add ? vec_load_f32(c + r * c_stride + j * LANES) : (vec){0});
    for (int unit = 0; unit < units; unit++) {
        vec y[4];
        for (int j = 0; j < 4; j++)
            y[j] = vec_load_f32((const float *)b + (int64_t)unit * b_stride + j * LANES);
        for (int r = 0; r < rows; r++) {
            vec x = dot_broadcast(a + r * a_stride + unit);
            for (int j = 0; j < 4; j++)
                dot_add(T, &sum[r][j], x, y[j]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 4; j++)
            vec_store_f32(c + r * c_stride + j * LANES, lane_sums_end(&sum[r][j]));
}

INLINE void multiply(int64_t rows, const bool add, float *c, int c_stride, const uint32_t *a, int a_stride, const uint32_t *b,
                     int b_stride, int units)
{
    if (IN_TILES) {
        tiles_multiply(&((struct tile_product){c, a, b, c_stride, a_stride, b_stride, units}), rows, add);
        return;
    }
    for (; rows >= ROWS_AT_ONCE; rows -= ROWS_AT_ONCE) {
        multiply_rows(ROWS_AT_ONCE, add, c, c_stride, a, a_stride, b, b_stride, units);
        c += ROWS_AT_ONCE * c_stride;
        a += ROWS_AT_ONCE * a_stride;
    }
    switch (rows) {
    case 1: multiply_rows(1, add, c, c_stride, a, a_stride, b, b_stride, units); break;
    case 2: multiply_rows(2, add, c, c_stride, a, a_stride, b, b_stride, units); break;
    case 3: multiply_rows(3, add, c, c_stride, a, a_stride, b, b_stride, units); break;
    case 4: multiply_rows(4, add, c, c_stride, a, a_stride, b, b_stride, units); break;
    case 5: multiply_rows(5, add, c, c_stride, a, a_stride, b, b_stride, units); break;
    default: break;
    }
}

/* Relative to a larger top. What was added up for none is 0. */
INLINE void raise_top(struct state *s, int r, float top)
{
    if (s->top[r] > -INFINITY) {
        float shrink = exp2f(s->top[r] - top);
        vec_store_f32(s->sum[r], vec_load_f32(s->sum[r]) * shrink);
        for (int i = 0; i < HEAD_DIM_VO; i += LANES)
            vec_store_f32(s->o[r] + i, vec_load_f32(s->o[r] + i) * shrink);
    }
    s->top[r] = top;
}

/* Turns a row's products with the tile's keys into weights, relative to its top, which may grow. */
INLINE void weigh_row(const struct attention_args *a, const struct task *t, struct state *s, int r, int64_t first)
{
    const vec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vec x[4];
    if (CHANGES_LOGITS)
        change_logits(a, t, s, r, first);
    for (int j = 0; j < 4; j++) {
        x[j] = vec_load_f32(s->logits[r] + j * LANES);
        if (WITHOUT_SOFTMAX)
            dot_store(T, s->weights[r] + j * LANES / UNIT, x[j]);
        else if (!CHANGES_LOGITS)
            x[j] *= s->factor;
    }
    if (WITHOUT_SOFTMAX)
        return;
    if (!CHANGES_LOGITS && s->cap > 0)
        for (int j = 0; j < 4; j++)
            x[j] = s->cap * (1.0f - 2.0f / (1.0f + vec_exp2(2.0f * LOG2E * x[j])));
    if (!CHANGES_LOGITS && (s->begin[r] > first || s->end[r] < first + TILE))
        for (int j = 0; j < 4; j++) {
            vec token = lane + (float)(j * LANES);
            veci hidden = (token < (float)(s->begin[r] - first)) | (token >= (float)(s->end[r] - first));
            x[j] = vec_select(hidden, vec_set(-INFINITY), x[j]);
        }
    vec peak = vec_max2(vec_max2(x[0], x[1]), vec_max2(x[2], x[3]));
    if (vec_any_above(peak, s->top[r] + LAZY))
        raise_top(s, r, vec_max(peak));
    float base = s->top[r] == -INFINITY ? 0 : s->top[r]; /* nothing seen yet: all weights are 0, not NaN */
    for (int j = 0; j < 4; j++) {
        x[j] = vec_exp2_bounded(x[j] - base);
        dot_store(T, s->weights[r] + j * LANES / UNIT, x[j]);
    }
    vec_store_f32(s->sum[r], vec_load_f32(s->sum[r]) + ((x[0] + x[1]) + (x[2] + x[3])));
}

/* `at`: in elements. */
INLINE void store_output(const struct attention_args *a, int64_t at, vec x)
{
    if (sizeof(O) == sizeof(T)) {
        vec_store((O *)a->out + at, x);
        return;
    }
    switch (a->modes.out) {
    case ATTENTION_OUT_F16: vec_store((f16 *)a->out + at, x); break;
    case ATTENTION_OUT_BF16: vec_store((bf16 *)a->out + at, x); break;
    case ATTENTION_OUT_E4M3: vec_store((e4m3 *)a->out + at, x); break;
    case ATTENTION_OUT_E5M2: vec_store((e5m2 *)a->out + at, x); break;
    default: vec_store((f32 *)a->out + at, x); break;
    }
}

static inline void write_rows(const struct attention_args *a, const struct task *t, const struct state *s)
{
    for (int r = 0; r < t->rows * t->kv_heads; r++) {
        int64_t first_out = a->modes.o_indptr ? a->modes.o_indptr[t->request] : t->first_q;
        int64_t token = first_out + token_of(a, t, r), head = head_of(a, t, r);
        float top = WITHOUT_SOFTMAX ? 0 : s->top[r], sum = WITHOUT_SOFTMAX ? 1 : vec_sum(vec_load_f32(s->sum[r])), shrink = 1;
        if (a->sinks) {
            float sink = a->sinks[head] * LOG2E, peak = top > sink ? top : sink, base = peak == -INFINITY ? 0 : peak;
            shrink = exp2f(top - base);
            sum = sum * shrink + exp2f(sink - base);
            top = peak;
        }
        float v_scale = a->v_scale ? a->v_scale[a->modes.v_scale_step ? head / a->group : 0] : 1.0f;
        float factor = sum == 0 ? 0 : shrink * a->out_factor * v_scale / sum;
        int64_t out = token * a->out_token + head * a->out_head;
        for (int i = 0; i < HEAD_DIM_VO; i += LANES)
            store_output(a, out + i, finish_output(a, t, r, vec_load_f32(s->o[r] + i) * factor, i));
        if (a->lse)
            a->lse[token * a->lse_token + head * a->lse_head] =
                sum == 0 ? -INFINITY : (top + log2f(sum)) * a->modes.lse_factor;
    }
}

static __attribute__((noinline, unused)) void store_sums(float *to, const vec x[LANES]) { vec_store_f32(to, vec_sums(x)); }

/* The same of at most FEW_ROWS rows with keys and values as they lie in memory: packing them would take longer than it saves.
 * Each asks for what the other one reads next: values of the same tokens, keys of the next KV head or tile. */
INLINE void few_keys_of(const int rows, struct state *s, int begin, int64_t offset, int count, const KV *const *next,
                        int64_t next_offset)
{
    for (int first = 0; first < TILE; first += LANES) {
        vec sum[4][LANES];
        for (int i = 0; i < LANES; i++) {
            lane_sums own[4];
            for (int r = 0; r < rows; r++)
                lane_sums_begin(&own[r], (vec){0});
            const T *key = key_of(s, first + i < count ? first + i : 0, offset);
            for (int unit = 0; unit < KEY_UNITS; unit += LANES) {
                vec y = load_units(key, unit * UNIT);
                __builtin_prefetch(next[first + i] + next_offset + unit * UNIT, 0, 2);
                for (int r = 0; r < rows; r++)
                    dot_add(T, &own[r], vec_load_f32((const float *)s->q[begin + r] + unit), y);
            }
            for (int r = 0; r < rows; r++)
                sum[r][i] = lane_sums_end(&own[r]);
        }
        for (int r = 0; r < rows; r++)
            store_sums(s->logits[begin + r] + first, sum[r]);
    }
}

INLINE void few_values_of(const int rows, struct state *s, int begin, int64_t offset, int count, const KV *const *next,
                          int64_t next_offset)
{
    static const T zeros[HEAD_DIM_VO];
    for (int at = 0; at < HEAD_DIM_VO; at += TILE) {
        const int vecs = HEAD_DIM_VO - at < TILE ? (HEAD_DIM_VO - at) / LANES : TILE / LANES;
        lane_sums sum[4][TILE / LANES];
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < vecs; j++)
                lane_sums_begin(&sum[r][j], vec_load_f32(s->o[begin + r] + at + j * LANES));
        for (int token = 0; token < count; token += UNIT) {
            const T *value[2] = {value_of(s, token, offset), zeros};
            if (UNIT == 2 && token + 1 < count)
                value[1] = value_of(s, token + 1, offset);
            for (int i = 0; i < UNIT; i++)
                for (int j = 0; j < vecs * LANES; j += LINE)
                    __builtin_prefetch(next[token + i] + next_offset + at + j, 0, 2);
            vec y[TILE / LANES];
            for (int j = 0; j < vecs; j++)
                y[j] = dot_pack(T, value[0] + at + j * LANES, value[1] + at + j * LANES);
            for (int r = 0; r < rows; r++) {
                vec x = dot_broadcast(s->weights[begin + r] + token / UNIT);
                for (int j = 0; j < vecs; j++)
                    dot_add(T, &sum[r][j], x, y[j]);
            }
        }
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < vecs; j++)
                vec_store_f32(s->o[begin + r] + at + j * LANES, lane_sums_end(&sum[r][j]));
    }
}

#define FEW(name)                                                                                               \
    static inline void name(int rows, struct state *s, int begin, int64_t offset, int count,                    \
                            const KV *const *next, int64_t next_offset)                                         \
    {                                                                                                           \
        switch (FEW_ROWS ? rows : 0) {                                                                          \
        case 1: name##_of(1, s, begin, offset, count, next, next_offset); break;                                \
        case 2: name##_of(2, s, begin, offset, count, next, next_offset); break;                                \
        case 3: name##_of(3, s, begin, offset, count, next, next_offset); break;                                \
        case 4: name##_of(4, s, begin, offset, count, next, next_offset); break;                                \
        default: break;                                                                                         \
        }                                                                                                       \
    }
FEW(few_keys)
FEW(few_values)

/* The h-th KV head of a tile: rows [begin, end) of the state. */
static inline void attend_tile(const struct attention_args *a, const struct task *t, struct state *s, int h, int begin,
                               int64_t first, int count)
{
    int end = (int)((h + 1) * t->rows);
#if CONVERTS
    convert_keys(a, t, s, h, first, count, h * a->k_head);
#endif
    bool few = FEW_ROWS && end - begin <= FEW_ROWS;
    if (few) {
        few_keys(end - begin, s, begin, h * a->k_head, count, s->value, h * a->v_head);
    } else {
        pack_keys(s, h * a->k_head, count);
        multiply(end - begin, false, s->logits[begin], TILE, s->q[begin], KEY_UNITS, s->keys[0], TILE, KEY_UNITS);
    }
    for (int r = begin; r < end; r++)
        weigh_row(a, t, s, r, first);
#if CONVERTS
    convert_values(s, count, h * a->v_head);
#endif
    if (few) {
        bool is_last = h + 1 == t->kv_heads;
        few_values(end - begin, s, begin, h * a->v_head, count, s->key + (is_last ? TILE : 0), is_last ? 0 : (h + 1) * a->k_head);
        return;
    }
    pack_values(s, h * a->v_head, count);
    for (int i = 0; i < COLUMNS; i += TILE)
        multiply(end - begin, true, s->o[begin] + i, COLUMNS, s->weights[begin], TOKEN_UNITS, s->values[0] + i, COLUMNS,
                 units_of_tokens(count));
}

/* The tiles [begin, end) of the task's tokens, for rows that see no tokens behind those that others see. */
static void attend_tiles(const struct attention_args *a, const struct task *t, struct state *s, int64_t begin, int64_t end)
{
    int64_t last = s->end[t->rows - 1] < t->kv_len ? s->end[t->rows - 1] : t->kv_len;
    int rows_done = 0; /* of each KV head */
    for (int64_t first = begin * TILE; first < end * TILE; first += TILE) {
        int count = (int)(last - first < TILE ? last - first : TILE);
        while (s->end[rows_done] <= first)
            rows_done++;
        find_tokens(a, t, first, (int)(last - first < 2 * TILE ? last - first : 2 * TILE), s);
        for (int h = 0; h < t->kv_heads; h++)
            attend_tile(a, t, s, h, (int)(h * t->rows) + rows_done, first, count);
    }
    if (IN_TILES)
        tiles_end();
}

static void begin_task(const struct attention_args *a, const struct task *t, struct state *s)
{
    if (COLUMNS > HEAD_DIM_VO)
        memset(s->values, 0, sizeof s->values);
#if POS == 1
    fill_turns(s, &a->modes);
#endif
    begin_rows(a, t, s);
}

static __attribute__((noinline)) void attend(const struct attention_args *a, const struct task *t)
{
    _Alignas(64) struct state s;
    begin_task(a, t, &s);
    int64_t end = s.end[t->rows - 1] < t->kv_len ? s.end[t->rows - 1] : t->kv_len;
    attend_tiles(a, t, &s, s.begin[0] / TILE, (end + TILE - 1) / TILE);
    write_rows(a, t, &s);
}

#endif
