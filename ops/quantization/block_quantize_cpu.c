/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of a row are rounded to CODE under a scale each, on a CPU. Rows, padding included, are cut in chunks of CHUNK columns; a
 * part takes a range of chunks.
 *
 *   T       f16, bf16, f32, e4m3
 *   CODE    e2m1x2, e4m3, i8
 *   SCALE   0 to 3, see block_quantize_args.h
 *   BLOCK   16, 32, 64, 128, 256, 512
 *   LARGEST value of CODE
 *   GATED   1: a column is silu(gate) * up, rounded to T
 *   CHUNK   columns, a multiple of 16 blocks */
#include "activation.h"
#include "blocks.h"
#include "fp4.h"
#include "stream.h"
#include "vec_scale.h"
#include "block_quantize_args.h"

#if SCALE == SCALE_E4M3 && BLOCK == 16 && !GATED && defined __AVX512BW__
#include "e2m1_table_cpu.h"
enum { BY_TABLE = _Generic((T *)0, e4m3 * : 1, default : 0) };
#else
struct e2m1_table {
    float global_scale;
};
enum { BY_TABLE = 0 };
#endif

/* e4m3 elements are codes of a tensor whose scale is global_scale: they become f16 values up to 6 * 448 / global_scale. What is
 * worked out in bf16 stays floats, pairs in ORDER, where vectors are registers. */
#if GATED && defined __AVX512DQ__
typedef __typeof__(_Generic((T *)0, bf16 * : (f32){0}, default : (T){0})) element;
enum { NEAR = 1 }; /* tame elements are by gated_near, and of bf16 2^DOWN times a column, rounded by vec_near_bf16 */
#else
typedef __typeof__(_Generic((T *)0, e4m3 * : (f16){0}, default : (T){0})) element;
enum { NEAR = 0 };
#endif
enum {
    STAGES = GATED || sizeof(T) == 1,
    ORDER = PAIR_ORDER(T),
    STORED = PAIR_ORDER(element),
    DOWN = NEAR && IS_BF16(T) ? 24 : 0, /* so that only e^104 is infinite: there, silu is 0 */
    BY_INTEGERS = ELEMENTS(CODE) == 2 && SCALE == SCALE_E4M3, /* tame codes are; there, multipliers are by E2M1_TIMES larger */
    TIMES = BY_INTEGERS ? E2M1_TIMES : 1,
    RUN = LANES * BLOCK,
    LINE = 64 * ELEMENTS(CODE),
    FETCH = 4096 / sizeof(T),               /* columns ahead */
    FETCHES_EARLY = !STAGES && BLOCK <= 32, /* half of them during maxima, a few for each run */
};

/* What stays below rounds to no more than LARGEST. */
#define TAME_LIMIT _Generic((CODE *)0, e2m1x2 * : 6.9f, e4m3 * : 460.0f, default : 127.4f)
#if SCALE == SCALE_E8M0 && BLOCK == 32 && defined __AVX512DQ__ && defined __AVX512BW__
/* Codes of f16 and bf16 under powers of two are made of bits. LEAST_CODE: of the least scale of which a quarter is normal. */
enum {
    BY_EXPONENT = ELEMENTS(CODE) == 2 && sizeof(element) == 2,
    MANTISSA = _Generic((element *)0, bf16 * : 7, default : 10),
    LEAST_CODE = _Generic((element *)0, bf16 * : 3, default : 115),
};

/* In both halves of a lane, the bits of a quarter of its block's scale. */
INLINE vec quarters(vec multiplier)
{
    vecu bits = (254 - (LEAST_CODE - 1) - ((vecu)multiplier >> 23)) << MANTISSA;
    return (vec)(bits | bits << 16);
}

/* 0 for blocks that have one, of numbers; and of zeros. */
INLINE vecu lack_quarters(vec amax)
{
    const uint32_t least = (LEAST_CODE + 2) << 23, infinity = 255u << 23;
    return (vecu)((vecu)amax - least >= infinity - least) & (vecu)amax;
}

INLINE void line_by_exponent(void *to, const element *from, const float *quarter, int past_caches)
{
    vecu codes[LINE / BLOCK];
    for (int i = 0; i < LINE / BLOCK; i++) {
        words x;
        memcpy(&x, from + i * BLOCK, sizeof x);
        codes[i] = words_e2m1(x, (words)vec_set(quarter[i]), MANTISSA);
    }
    write_e2m1_words(to, codes, past_caches);
}
#else
enum { BY_EXPONENT = 0 };
INLINE vec quarters(vec multiplier) { return multiplier; }
INLINE vecu lack_quarters(vec amax) { return (vecu)amax; }
INLINE void line_by_exponent(void *to, const element *from, const float *quarter, int past_caches)
{
    (void)to, (void)from, (void)quarter, (void)past_caches;
}
#endif

#define NARROW_(code) line_narrow_##code
#define NARROW(code) NARROW_(code)

#define LOAD_(type) pair_load_n_##type
#define LOAD(type) LOAD_(type)

/* 2^DOWN silu(gate) up; may be NaN where the gate is beyond 90000. */
INLINE vec gated_near(vec gate, vec up)
{
#ifdef __AVX512DQ__
    return gate * up / one_and_exp(gate, 1, DOWN);
#else
    return silu(gate) * up;
#endif
}

/* Thirty-two columns as elements, 0 from `columns` on. up: what GATED columns scale. near: see vec_near_bf16. */
INLINE void stage(element *to, const T *from, const T *up, int64_t columns, float factor, const int near)
{
    struct pair x = {{{0}}};
    if (columns > 0)
        x = LOAD(T)(from, columns, ORDER);
#if GATED
    struct pair y = {{{0}}};
    if (columns > 0)
        y = LOAD(T)(up, columns, ORDER);
    for (int i = 0; i < 2; i++)
        x.v[i] = near ? gated_near(x.v[i], y.v[i]) : silu(x.v[i]) * y.v[i];
#endif
    for (int i = 0; i < 2; i++) {
        x.v[i] = _Generic(from, const e4m3 * : x.v[i] * factor, default : x.v[i]);
        if (NEAR && IS_BF16(T))
            x.v[i] = vec_rounded_bf16(x.v[i], NUMBERS, near);
    }
    (void)up, (void)near;
    pair_narrow(to, x, STORED, IS_BF16(T) ? NUMBERS : WILD);
}

struct line {
    const T *input;
    CODE *out;
    uint8_t *scales; /* or floats */
    uint32_t step;   /* from four scale bytes to the next four */
    bool past_caches;
    int64_t ahead; /* from these columns to those that are taken next, in elements of input */
    float global_scale, factor;
    const struct e2m1_table *table; /* may be NULL */
};

/* Scales of the sixteen blocks from `block` on, of which `count` are stored; returns the multipliers. */
INLINE vec store_scales(const struct block_quantize_args *a, const struct line *l, int64_t block, int count, vec amax, int tame)
{
#if SCALE == SCALE_E4M3 || SCALE == SCALE_E8M0
    struct vec_scale s = SCALE == SCALE_E4M3 ? vec_scale_e4m3(amax, l->global_scale, tame) : vec_scale_e8m0(amax, LARGEST);
    uint8_t codes[LANES];
    vec_store_bytes(codes, s.code);
    uint8_t *to = l->scales + (uint64_t)block / 4 * l->step;
    (void)a;
    if (count == LANES)
        for (int i = 0; i < LANES; i += 4) /* four neighbours are neighbours in all layouts */
            memcpy(to + (size_t)i / 4 * l->step, codes + i, 4);
    else
        for (int i = 0; i < count; i += 4)
            memcpy(to + (size_t)i / 4 * l->step, codes + i, count - i < 4 ? (size_t)(count - i) : 4);
    return s.multiplier;
#else
    amax = vec_max2(amax, vec_set(a->least_amax));
    vec value = SCALE == SCALE_POWER ? vec_e8m0_value(vec_scale_e8m0(amax, LARGEST).code) : amax / LARGEST;
    for (int i = 0; i < count; i++)
        ((float *)l->scales)[(block + i) * a->scale_stride[1]] = value[i];
    return 1.0f / value;
#endif
}

/* Blocks from `block` on, up to a chunk; x and out have room for whole runs. All scales come first: what one takes, from maxima
 * to quotient, hides behind the next ones. 0: the blocks are not tame, and are to be quantized again. */
INLINE int quantize_blocks(const struct block_quantize_args *a, const struct line *l, CODE *out, const element *x, int64_t block,
                           int count, const int tame, const int past_caches)
{
    _Alignas(64) float multiplier[CHUNK / BLOCK];
    const int tame_amax = tame && BY_INTEGERS && E2M1_FINDS_NAN ? BLOCKS_LOOSE : tame;
    const float unit = tame ? bits_float((127u - DOWN) << 23) : 1.0f; /* what an element of 1 stands for */
    vecu worst = {0}, least = {0};
    for (int i = 0; i < count; i += LANES) {
        for (int at = i * BLOCK; at < (i + LANES) * BLOCK && FETCHES_EARLY; at += 2 * PAIR)
            __builtin_prefetch(x + at + l->ahead, 0, 2);
        vec amax = blocks_amax(x + i * BLOCK, BLOCK, ORDER, tame_amax) * unit;
        vec m = store_scales(a, l, block + i, count - i < LANES ? count - i : LANES, amax, tame) * (tame ? TIMES : 1.0f);
        vec_store(multiplier + i, BY_EXPONENT && tame ? quarters(m) : m * unit);
        worst = BY_EXPONENT ? worst | lack_quarters(amax) : blocks_worst(worst, amax, m);
    }
    if (tame && !blocks_are_tame(worst, BY_EXPONENT ? 0 : TAME_LIMIT * TIMES))
        return 0;
    for (int at = 0; at < count * BLOCK; at += LINE) {
        struct pair y[LINE / PAIR];
        for (int i = 0; i < LINE / PAIR; i++) {
            int first = at + i * PAIR;
            if (!STAGES && (i % 2 || !FETCHES_EARLY))
                __builtin_prefetch(x + first + l->ahead, 0, 2);
            if (!(BY_EXPONENT && tame))
                y[i] = blocks_multiplied(pair_load(x + first, STORED), first, multiplier, BLOCK, ORDER);
        }
        if (BY_EXPONENT && tame)
            line_by_exponent(out + at / ELEMENTS(CODE), x + at, multiplier + at / BLOCK, past_caches);
        else if (BY_INTEGERS && tame)
            line_narrow_e2m1_tame(out + at / ELEMENTS(CODE), y, ORDER, past_caches, &least);
        else
            NARROW(CODE)(out + at / ELEMENTS(CODE), y, ORDER, tame, past_caches);
    }
    return !BY_INTEGERS || !e2m1_has_nan(least);
}

/* Columns from `begin` on. */
INLINE void stage_columns(const struct block_quantize_args *a, const struct line *l, element *staged, int64_t begin, int staging,
                          const int are_there, const int near)
{
    const T *from = l->input + begin;
    for (int at = 0; at < staging; at += PAIR) {
        __builtin_prefetch(from + at + l->ahead, 0, 2);
        if (GATED)
            __builtin_prefetch(from + a->columns + at + l->ahead, 0, 2);
        stage(staged + at, from + at, from + a->columns + at, are_there ? PAIR : a->columns - begin - at, l->factor, near);
    }
}

/* staged: where x is, if it was staged. */
static __attribute__((noinline)) void quantize_wild_blocks(const struct block_quantize_args *a, const struct line *l, CODE *out,
                                                           const element *x, element *staged, int64_t block, int count)
{
    if (NEAR)
        stage_columns(a, l, staged, block * BLOCK, (count + LANES - 1) / LANES * RUN, 0, 0);
    quantize_blocks(a, l, out, x, block, count, BLOCKS_WILD, 0);
}

#if SCALE == SCALE_E4M3 && BLOCK == 16 && !GATED && defined __AVX512BW__
/* As quantize_blocks. 0: there is a NaN. */
INLINE int quantize_by_table(const struct line *l, CODE *out, int64_t block, int count, const int past_caches)
{
    const struct e2m1_table *table = l->table;
    for (int i = 0; i < count; i += LANES) {
        const char *from = (const char *)l->input + (block + i) * BLOCK;
        vecu x[4], magnitude[4];
        uint8_t largest[LANES], scales[LANES];
        for (int k = 0; k < 4; k++) {
            memcpy(&x[k], from + k * 64, 64);
            __builtin_prefetch(from + k * 64 + l->ahead, 0, 2);
            magnitude[k] = x[k] & 0x7f7f7f7fu;
        }
        vecu y = e4m3_largest_of_blocks(magnitude);
        if (_mm512_test_epi32_mask((__m512i)(y + 1), (__m512i)((vecu){0} + MAGNITUDES)))
            return 0;
        vec_store_bytes(largest, y);
        vec_store_bytes(scales, e2m1_table_scales(y, table));
        for (int k = 0; k < LANES; k += 4)
            memcpy(l->scales + (uint64_t)(block + i + k) / 4 * l->step, scales + k, 4);
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++) {
            vecu line = e2m1_table_line(x, magnitude, largest, k, table);
            store_line((char *)out + (i + k * LANES / 2) * BLOCK / 2, &line, past_caches);
        }
    }
    return 1;
}

/* The table for a global scale, if no value is beyond f16 with it. */
static const struct e2m1_table *table_of(struct e2m1_table *t, float global_scale, float factor)
{
    if (!(global_scale >= 0.05f && global_scale <= 1e9f))
        return NULL;
    if (t->global_scale != global_scale) {
        float value[MAGNITUDES];
        for (int i = 0; i < MAGNITUDES; i += PAIR) {
            uint8_t codes[PAIR * sizeof(T)];
            element staged[PAIR];
            for (int k = 0; k < PAIR; k++)
                codes[k] = (uint8_t)(i + k);
            stage(staged, (const T *)codes, NULL, PAIR, factor, 0);
            pair_store(value + i, pair_load(staged, STORED), ORDER);
        }
        e2m1_table_fill(t, value, global_scale);
    }
    return t;
}
#else
INLINE int quantize_by_table(const struct line *l, CODE *out, int64_t block, int count, const int past_caches)
{
    return (void)past_caches, (void)l, (void)out, (void)block, (void)count, 0;
}

static const struct e2m1_table *table_of(struct e2m1_table *t, float global_scale, float factor)
{
    return (void)t, (void)global_scale, (void)factor, NULL;
}
#endif

/* Columns [begin, end) of a row, all of which input and out have or not. */
INLINE void quantize_columns(const struct block_quantize_args *a, const struct line *l, int64_t begin, int64_t end, int are_there)
{
    _Alignas(64) element staged[CHUNK];
    _Alignas(64) CODE codes[CHUNK / ELEMENTS(CODE)];
    int count = (int)((end - begin) / BLOCK);
    if (BY_TABLE && are_there && l->table) {
        CODE *to = l->out + begin / ELEMENTS(CODE);
        if (l->past_caches && (intptr_t)to % 64 == 0 ? quantize_by_table(l, to, begin / BLOCK, count, 1)
                                                     : quantize_by_table(l, to, begin / BLOCK, count, 0))
            return;
    }
    int64_t staging = (count + LANES - 1) / LANES * RUN, there = a->columns > begin ? a->columns - begin : 0;
    if (STAGES)
        stage_columns(a, l, staged, begin, (int)staging, are_there, 1);
    if (!STAGES && !are_there) {
        there = there < staging ? there : staging;
        memcpy(staged, l->input + begin, (size_t)there * sizeof *staged);
        memset(staged + there, 0, (size_t)(staging - there) * sizeof *staged);
    }
    CODE *to = l->out + begin / ELEMENTS(CODE), *out = to;
    bool past_caches = are_there && l->past_caches && (intptr_t)to % 64 == 0, whole_lines = !l->past_caches || past_caches;
    if (!are_there || !whole_lines)
        out = codes;
    const element *x = STAGES || !are_there ? staged : (const element *)(l->input + begin);
    bool tame = past_caches ? quantize_blocks(a, l, out, x, begin / BLOCK, count, BLOCKS_TAME, 1)
                            : quantize_blocks(a, l, out, x, begin / BLOCK, count, BLOCKS_TAME, 0);
    if (!tame || (NEAR && !(fabsf(l->global_scale) < 0x1p90f && fabsf(l->global_scale) > 0x1p-60f))) /* 2^-126 of that is 0 */
        quantize_wild_blocks(a, l, out, x, staged, begin / BLOCK, count);
    int64_t last = end < a->out_columns ? end : a->out_columns;
    if (out != to && begin < last)
        write_out(to, codes, (last - begin) / ELEMENTS(CODE), l->past_caches);
}

/* Columns [begin, end) of a row; those from out_columns on have a scale only. */
static void quantize(const struct block_quantize_args *a, int64_t group, int64_t row, int64_t begin, int64_t end,
                     int64_t ahead, bool past_caches, struct e2m1_table *table)
{
    float global_scale =
        a->global_scale ? a->global_scale[group * a->global_stride[0] + row * a->global_stride[1]] : a->global_value;
    if (a->inverse)
        global_scale = 1.0f / global_scale;
    const struct line line = {
        .input = (const T *)a->input + group * a->input_stride[0] + row * a->input_stride[1],
        .out = (CODE *)a->out + group * a->out_stride[0] + row * a->out_stride[1],
        .scales = SCALE == SCALE_E4M3 || SCALE == SCALE_E8M0
                      ? (uint8_t *)a->scales + group * a->scale_stride[0] + block_scale_row(a->layout, row, a->blocks)
                      : (uint8_t *)((float *)a->scales + row * a->scale_stride[0]),
        .step = block_scale_step(a->layout),
        .past_caches = past_caches,
        .ahead = ahead,
        .global_scale = global_scale,
        .factor = 6.0f / global_scale,
        .table = BY_TABLE && table ? table_of(table, global_scale, 6.0f / global_scale) : NULL};
    int64_t there = a->columns < a->out_columns ? a->columns : a->out_columns;
    int64_t runs = ((there < end ? there : end) - begin) / RUN, whole = begin + (runs > 0 ? runs * RUN : 0);
    if (begin < whole)
        quantize_columns(a, &line, begin, whole, 1);
    if (whole < end)
        quantize_columns(a, &line, whole, end, 0);
}

/* A row that only the layout of the scales has. */
static void clear_scales(const struct block_quantize_args *a, int64_t group, int64_t row)
{
    uint8_t *scales = (uint8_t *)a->scales + group * a->scale_stride[0];
    for (int64_t block = 0; block < a->blocks; block += 4)
        memset(scales + block_scale_offset(a->layout, row, block, a->blocks), 0, 4);
}

void block_quantize_cpu(const struct block_quantize_args *a, int part, int parts)
{
    int64_t rows = block_scale_rows(a->layout, a->rows), width = block_scale_blocks(a->layout, a->blocks) * BLOCK;
    int64_t chunks = (width + CHUNK - 1) / CHUNK, all = a->groups * rows * chunks;
    int64_t i = part_begin(all, part, parts), last = part_begin(all, part + 1, parts);
    if (i == last)
        return;
    bool past_caches = streams(a->groups * a->rows * a->out_columns / ELEMENTS(CODE));
    struct e2m1_table table = {0};
    bool by_table = a->global_stride[1] == 0 && part_begin(all, 1, parts) * CHUNK >= 1 << 13;
    int64_t chunk = i % chunks, nth = i / chunks % rows, group = i / chunks / rows;
    int64_t fetch = a->columns < FETCH ? a->columns : FETCH;
    for (; i < last; i++) {
        int64_t row = block_scale_nth_row(a->layout, nth), begin = chunk * CHUNK, this_group = group;
        int64_t next = block_scale_nth_row(a->layout, nth + 1 < rows ? nth + 1 : 0), ahead = fetch;
        if (begin + fetch >= a->columns)
            ahead += (next < a->rows ? next - row : 0) * a->input_stride[1] - a->columns;
        if (++chunk == chunks) {
            chunk = 0;
            if (++nth == rows) {
                nth = 0;
                group++;
            }
        }
        if (row < a->rows && (!a->mask || row < a->mask[this_group]))
            quantize(a, this_group, row, begin, begin + CHUNK < width ? begin + CHUNK : width, ahead, past_caches,
                     by_table ? &table : NULL);
        else if (row >= a->rows && !a->mask && begin == 0)
            clear_scales(a, this_group, row);
    }
    if (past_caches)
        stream_end();
}
