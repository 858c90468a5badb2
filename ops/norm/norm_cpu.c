/* SPDX-License-Identifier: Apache-2.0 */
/* A norm on a CPU. A part takes a range of rows; a row is read twice, three times for LAYERNORM, after the first time from the
 * cache.
 *
 *   T            dtype of input: f16, bf16, f32
 *   W            dtype of weight and beta: T or f32
 *   R            dtype of the residual: T or f32
 *   OUT          dtype of the output: T, e4m3, e5m2; u8 with BLOCK_SIZE
 *   ADD_RESIDUAL 0, 1: x = input, or input + residual, which is stored, rounded
 *   LAYERNORM    0: x / rms(x) * (weight + weight_bias); 1: (x - mean(x)) / deviation(x) * (weight + weight_bias) + beta
 *   SILU         0, 1: then silu of that
 *   BLOCK_SIZE   0; 16, 32: the output is e2m1 with a scale for so many elements
 *   E8M0         the scales are 0: e4m3, 1: e8m0 */
#include "activation.h"
#include "blocks_fp4.h"
#include "norm_args.h"

enum {
    ORDER = PAIR_ORDER(T),
    KNOWN = IS_BF16(T) && IS_BF16(W) && (!ADD_RESIDUAL || IS_BF16(R)) && IS_BF16(OUT) ? NUMBERS : WILD,
    FOLDED = BLOCK_SIZE && !ADD_RESIDUAL, /* tame values lack their row's deviation as a factor */
    BIASED = !LAYERNORM && !SILU && sizeof(OUT) > 1, /* others have no weight_bias */
};

struct row {
    const T *input, *next_input; /* of a row soon after it */
    R *residual;
    const R *next_residual;
    OUT *out;
    int64_t row, group, index;
    float mean, deviation;
    bool near; /* |mean| is at most the standard deviation */
};

INLINE struct pair load_residual(const struct row *row, int64_t at, int64_t n)
{
    return pair_load_n(row->residual + at, n, ORDER);
}

INLINE struct pair load_x(const struct row *row, int64_t at, int64_t n)
{
    struct pair x = pair_load_n(row->input + at, n, ORDER);
#if ADD_RESIDUAL
    struct pair r = load_residual(row, at, n);
    for (int i = 0; i < 2; i++)
        x.v[i] += r.v[i];
#endif
    return x;
}

/* near: see vec_near_bf16. */
INLINE vec round_to_bf16(vec x, int near)
{
    enum tame tame = IS_BF16(T) && IS_BF16(W) && (!ADD_RESIDUAL || IS_BF16(R)) ? NUMBERS : WILD;
    return vec_rounded_bf16(x, tame, near);
}
INLINE vec round_to_f32(vec x, int near) { return (void)near, x; }
INLINE vec round_to_f16(vec x, int near)
{
    f16 rounded[LANES];
    (void)near;
    vec_store(rounded, x);
    return vec_load(rounded);
}
#define ROUND(type, ...) ROUND_IN(type, __VA_ARGS__) /* when type is itself a constant */
#define ROUND_IN(type, ...) round_to_##type(__VA_ARGS__)

/* Adds x, or (x - mean)^2; lanes beyond the row are no elements of it. */
INLINE void add_terms(struct pair *sum, struct pair x, int squares, float mean, int64_t n)
{
    for (int i = 0; i < 2; i++) {
        vec d = LAYERNORM ? x.v[i] - mean : x.v[i], term = squares ? d * d : x.v[i];
        sum->v[i] += LAYERNORM && squares && n < PAIR ? vec_first(term, pair_count(n, i, ORDER)) : term;
    }
}

enum { SUMS = 4 }; /* side by side, to keep the adders busy */

INLINE float sum_of(const struct pair *sum)
{
    vec all[2];
    for (int i = 0; i < 2; i++)
        all[i] = (sum[0].v[i] + sum[1].v[i]) + (sum[2].v[i] + sum[3].v[i]);
    return vec_sum(all[0] + all[1]);
}

INLINE float row_sum(const struct row *row, int64_t hidden, int squares, float mean)
{
    struct pair sum[SUMS] = {{{{0}}}};
    int64_t at = 0;
    for (; at + SUMS * PAIR <= hidden; at += SUMS * PAIR)
        for (int i = 0; i < SUMS; i++)
            add_terms(&sum[i], load_x(row, at + i * PAIR, PAIR), squares, mean, PAIR);
    for (; at < hidden; at += PAIR)
        add_terms(&sum[0], load_x(row, at, hidden - at), squares, mean, hidden - at);
    return sum_of(sum);
}

/* tame: blocks' values, of which NaN or infinity makes known that they are to be worked out again; or of a row that is near. */
INLINE vec finish_vec(vec x, vec factor, vec beta, float mean, float deviation, int tame)
{
#if BLOCK_SIZE && SILU
    if (tame)
        return silu_near(x * factor, deviation);
#endif
#if BLOCK_SIZE && ADD_RESIDUAL
    vec y = ROUND(R, x, 0) * deviation * factor; /* as the residual is stored */
#elif BLOCK_SIZE && !SILU
    vec y = ROUND(T, x * factor, tame) * (FOLDED && tame ? 1.0f : deviation);
#else
    vec y = (!LAYERNORM ? x * deviation : tame ? x * deviation - mean * deviation : (x - mean) * deviation) * factor;
#endif
    (void)mean;
    y = LAYERNORM ? y + beta : y;
    return SILU ? silu(y) : y;
}

INLINE struct pair load_factors(const struct norm_args *a, int64_t at, int64_t n)
{
    struct pair factor = pair_load_n((const W *)a->weight + at, n, ORDER);
    for (int i = 0; i < 2 && BIASED; i++)
        factor.v[i] += a->weight_bias;
    return factor;
}

/* factors: weight + weight_bias, in the order of pairs; NULL: to be worked out.
 * What the n elements from `at` on become, before they are quantised. Stores the sum with the residual, which is there if this is
 * done again. */
INLINE struct pair finish(const struct norm_args *a, const struct row *row, int64_t at, int64_t n, const float *factors,
                          const int tame, const int again)
{
    struct pair x = ADD_RESIDUAL && again ? load_residual(row, at, n) : load_x(row, at, n), beta = {{{0}}};
    struct pair factor = factors ? pair_load_f32(factors + at, HALVES) : load_factors(a, at, n);
    for (int i = 0; i < PAIR; i += 64 / (int)sizeof(T))
        __builtin_prefetch(row->next_input + at + i, 0, 2); /* to the second cache: the first one's misses are few at a time */
#if ADD_RESIDUAL
    for (int i = 0; i < PAIR; i += 64 / (int)sizeof(R))
        __builtin_prefetch(row->next_residual + at + i, 0, 2);
    if (!again)
        pair_store_n(row->residual + at, x, n, ORDER);
#endif
#if LAYERNORM
    beta = pair_load_n((const W *)a->beta + at, n, ORDER);
#endif
    for (int i = 0; i < 2; i++)
        x.v[i] = finish_vec(x.v[i], factor.v[i], beta.v[i], row->mean, row->deviation, tame);
    return x;
}

#if BLOCK_SIZE
enum { PIECE = E2M1_BLOCKS * BLOCK_SIZE };

/* Values of the n elements from `at` on, at most a piece, with zeros behind them in the last run of sixteen blocks. */
INLINE void fill_piece(struct pair *y, const struct norm_args *a, const struct row *row, int64_t at, int n, const int tame)
{
    enum { RUN = LANES * BLOCK_SIZE };
    int whole = n / PAIR, end = (n + RUN - 1) / RUN * (RUN / PAIR);
    for (int i = whole; i < end; i++)
        y[i] = (struct pair){{{0}}};
    for (int i = 0; i < whole; i++)
        y[i] = finish(a, row, at + i * PAIR, PAIR, NULL, tame, !tame);
    if (n % PAIR)
        y[whole] = finish(a, row, at + whole * PAIR, n % PAIR, NULL, tame, !tame);
}

/* As blocks_to_e2m1. */
INLINE int quantise(e2m1x2 *to, uint8_t *scales, const struct pair *y, int count, float global_scale, float factor, int tame,
                    int past_caches)
{
    return blocks_to_e2m1(to, scales, (const f32 *)y, count, BLOCK_SIZE, E8M0, global_scale, factor, ORDER, tame, past_caches, 0);
}

static __attribute__((noinline)) void quantise_wild(e2m1x2 *to, uint8_t *scales, struct pair *y, const struct norm_args *a,
                                                    const struct row *row, int64_t at, int n, float global_scale)
{
    fill_piece(y, a, row, at, n, 0);
    quantise(to, scales, y, n / BLOCK_SIZE, global_scale, 1, BLOCKS_WILD, 0);
}

/* The values of a piece of a row, then their scales and codes. */
static void normalise(const struct norm_args *all, const struct row *this, const float *factors, bool past_caches)
{
    const struct norm_args a = *all; /* so that no store can change it */
    const struct row row = *this;
    float global_scale = a.scale ? *a.scale : a.scale_value, tame_factor = FOLDED ? row.deviation : 1;
    bool is_tame = row.deviation > 0x1p-60f && row.deviation < 0x1p60f && global_scale < 0x1p90f; /* silu_near suffices then */
    int64_t blocks = a.hidden / BLOCK_SIZE;
    uint8_t *linear = a.linear_scales + row.row * a.scale_stride[0] + row.group * a.scale_stride[1];
    T *to = (T *)a.y + row.row * a.y_stride[0] + row.group * a.y_stride[1];
    for (int64_t at = 0, block = 0; at < a.hidden; at += PIECE, block = at / BLOCK_SIZE) {
        struct pair y[PIECE / PAIR];
        uint8_t scales[PIECE / BLOCK_SIZE];
        _Alignas(64) e2m1x2 part[PIECE / 2];
        e2m1x2 *out = (e2m1x2 *)row.out + at / 2;
        int n = (int)(a.hidden - at < PIECE ? a.hidden - at : PIECE), count = n / BLOCK_SIZE;
        if (n < PIECE)
            fill_piece(y, &a, &row, at, n, 1);
        else
            fill_piece(y, &a, &row, at, PIECE, 1);
        bool tame = past_caches && n == PIECE && (intptr_t)out % 64 == 0
                        ? quantise(out, scales, y, PIECE / BLOCK_SIZE, global_scale, tame_factor, BLOCKS_LOOSE, 1)
                        : quantise(n == PIECE ? out : part, scales, y, count, global_scale, tame_factor, BLOCKS_LOOSE, 0);
        if (!tame || !is_tame)
            quantise_wild(n == PIECE ? out : part, scales, y, &a, &row, at, n, global_scale);
        float factor = FOLDED && tame && is_tame ? tame_factor : 1;
        for (int i = 0; i < n && a.y; i += PAIR) {
            const vec *value = y[i / PAIR].v;
            struct pair whole = {{value[0] * factor, value[1] * factor}};
            pair_store_n(to + at + i, whole, n - i, ORDER);
        }
        if (n < PIECE)
            memcpy(out, part, (size_t)n / 2);
        if (a.linear_scales)
            memcpy(linear + block, scales, (size_t)count);
        for (int i = 0; a.swizzled_scales && i < count; i += 4) { /* four neighbours are neighbours there too */
            uint8_t *four = a.swizzled_scales + block_scale_offset(SCALES_128X4, row.index, block + i, blocks);
            if (count - i < 4)
                memcpy(four, scales + i, (size_t)(count - i));
            else
                memcpy(four, scales + i, 4);
        }
    }
}

/* The row that is taken as the i-th one; if it is none, its scales are padding. */
INLINE int64_t nth_row(const struct norm_args *a, int64_t i)
{
    return a->swizzled_scales ? block_scale_nth_row(SCALES_128X4, i) : i;
}

/* The zeros behind a row's scales, or of a row behind the last. */
static void pad_scales(const struct norm_args *a, int64_t index, int64_t first)
{
    int64_t blocks = a->hidden / BLOCK_SIZE;
    for (int64_t i = first; a->swizzled_scales && i < block_scale_blocks(SCALES_128X4, blocks); i++)
        a->swizzled_scales[block_scale_offset(SCALES_128X4, index, i, blocks)] = 0;
}
#else
INLINE struct pair rounded(struct pair x, int near) { return (struct pair){{ROUND(T, x.v[0], near), ROUND(T, x.v[1], near)}}; }

INLINE struct pair quantised(struct pair y, float multiplier)
{
#if LAYERNORM && defined __AVX512DQ__
    struct pair near = rounded(y, IS_BF16(T));
    int usual = vec_are_finite(near.v[0], near.v[1]) & (fabsf(multiplier) < 0x1p90f); /* 2^-126 of that is 0 */
    y = sizeof(OUT) > 1 ? y : !IS_BF16(T) || __builtin_expect(usual, 1) ? near : rounded(y, 0);
#elif LAYERNORM
    y = sizeof(OUT) > 1 ? y : rounded(y, 0);
#endif
    for (int i = 0; i < 2 && sizeof(OUT) == 1; i++)
        y.v[i] *= multiplier;
    return y;
}

/* near: as the row is, however it is stored, so that a row has the same bits in any batch. */
INLINE void normalise_row(const struct norm_args *a, const struct row *row, const float *factors, bool past_caches,
                          const int near)
{
    float multiplier = 1.0f / (a->scale ? *a->scale : a->scale_value);
    int64_t at = 0;
    if (past_caches && (intptr_t)row->out % 64 == 0) {
        if (factors)
            for (; at + PAIR <= a->hidden; at += PAIR)
                pair_stream(row->out + at, quantised(finish(a, row, at, PAIR, factors, near, 0), multiplier), ORDER, KNOWN);
        for (; at + PAIR <= a->hidden; at += PAIR)
            pair_stream(row->out + at, quantised(finish(a, row, at, PAIR, NULL, near, 0), multiplier), ORDER, KNOWN);
    }
    for (; at + PAIR <= a->hidden; at += PAIR)
        pair_narrow(row->out + at, quantised(finish(a, row, at, PAIR, NULL, near, 0), multiplier), ORDER, KNOWN);
    if (at < a->hidden)
        pair_store_n(row->out + at, quantised(finish(a, row, at, a->hidden - at, NULL, near, 0), multiplier), a->hidden - at,
                     ORDER);
}

static void normalise(const struct norm_args *all, const struct row *this, const float *factors, bool past_caches)
{
    const struct norm_args a = *all; /* so that no store can change it */
    const struct row row = *this;
    if (LAYERNORM && row.near)
        normalise_row(&a, &row, NULL, past_caches, 1);
    else
        normalise_row(&a, &row, factors, past_caches, 0);
}
#endif

/* Sums of the row's elements and of their squares. */
INLINE void row_sums(const struct row *row, int64_t hidden, float *elements, float *squares)
{
    struct pair sum[SUMS] = {{{{0}}}}, square[SUMS] = {{{{0}}}};
    int64_t at = 0;
    for (; at + SUMS * PAIR <= hidden; at += SUMS * PAIR)
        for (int i = 0; i < SUMS; i++) {
            struct pair x = load_x(row, at + i * PAIR, PAIR);
            add_terms(&sum[i], x, 0, 0, PAIR);
            add_terms(&square[i], x, 1, 0, PAIR);
        }
    for (; at < hidden; at += PAIR) {
        struct pair x = load_x(row, at, hidden - at);
        add_terms(&sum[0], x, 0, 0, PAIR);
        add_terms(&square[0], x, 1, 0, PAIR);
    }
    *elements = sum_of(sum);
    *squares = sum_of(square);
}

/* The row's mean and deviation; of rows that are near in one pass. */
static void measure(struct row *row, const struct norm_args *a)
{
    float sum = 0, squares = 0, variance;
    if (LAYERNORM)
        row_sums(row, a->hidden, &sum, &squares);
    row->mean = sum * a->inverse_hidden;
    variance = squares * a->inverse_hidden - row->mean * row->mean;
    row->near = LAYERNORM && squares > 0x1p-90f && squares < 0x1p127f && row->mean * row->mean <= variance;
    if (!row->near) {
        row->mean = LAYERNORM ? row_sum(row, a->hidden, 0, 0) * a->inverse_hidden : 0;
        variance = row_sum(row, a->hidden, 1, row->mean) * a->inverse_hidden;
    }
    row->deviation = 1.0f / sqrtf(variance + a->eps);
}

static struct row row_at(const struct norm_args *a, int64_t row, int64_t group, int64_t index)
{
    struct row r = {.input = (const T *)a->input + row * a->input_stride[0] + group * a->input_stride[1],
                    .residual = (R *)a->residual + row * a->residual_stride[0] + group * a->residual_stride[1],
                    .out = (OUT *)a->out + row * a->out_stride[0] + group * a->out_stride[1],
                    .row = row,
                    .group = group,
                    .index = index};
    measure(&r, a);
    return r;
}

/* Of rows of up to so many elements, which leave room in the first cache, factors are worked out once for a part that has several
 * rows. */
enum { FACTORS = LAYERNORM || BLOCK_SIZE ? PAIR : 4096, ROWS_FOR_FACTORS = 4 };

static void fill_factors(float *factors, const struct norm_args *a)
{
    for (int64_t at = 0; at + PAIR <= a->hidden; at += PAIR)
        pair_store(factors + at, load_factors(a, at, PAIR), HALVES);
}

/* Of short rows, a few are summed before they are written, so that their roots and quotients overlap. */
enum { SHORT = 512, TOGETHER = 8 };

void norm_cpu(const struct norm_args *a, int part, int parts)
{
    int64_t rows = a->rows * a->groups, all = rows;
#if BLOCK_SIZE
    if (a->swizzled_scales)
        all = block_scale_rows(SCALES_128X4, rows);
#endif
    int64_t begin = part_begin(all, part, parts), end = part_begin(all, part + 1, parts);
#if BLOCK_SIZE
    for (int64_t i = begin; i < end; i++)
        pad_scales(a, nth_row(a, i), nth_row(a, i) < rows ? a->hidden / BLOCK_SIZE : 0);
#endif
    bool past_caches = a->out != a->input && streams(rows * a->hidden * (int)sizeof(OUT) / (BLOCK_SIZE ? 2 : 1));
    int64_t row = begin / a->groups, group = begin % a->groups, step = a->hidden <= SHORT ? TOGETHER : 1;
    _Alignas(64) float factors[FACTORS];
    bool has_factors = (int)FACTORS > PAIR && past_caches && a->hidden <= FACTORS && end - begin >= ROWS_FOR_FACTORS;
    if (has_factors)
        fill_factors(factors, a);
    int axis = a->groups > 1; /* along which the next row lies, but for the last one of a group */
    for (int64_t first = begin; first < end; first += step) {
        struct row r[TOGETHER];
        int count = 0;
        for (int64_t i = first; i < end && i < first + step; i++) {
            int64_t index = i, ahead = step;
#if BLOCK_SIZE
            index = nth_row(a, i);
            if (index >= rows)
                continue;
            if (a->swizzled_scales) {
                row = index / a->groups;
                group = index % a->groups;
                ahead = nth_row(a, i + step) < rows && !axis ? nth_row(a, i + step) - index : 0;
            }
#endif
            r[count] = row_at(a, row, group, index);
            r[count].next_input = r[count].input + ahead * a->input_stride[axis];
            r[count].next_residual = r[count].residual + ahead * a->residual_stride[axis];
            count++;
            if (++group == a->groups) {
                group = 0;
                row++;
            }
        }
        for (int i = 0; i < count; i++)
            normalise(a, &r[i], has_factors ? factors : NULL, past_caches);
    }
    if (past_caches)
        stream_end();
}
