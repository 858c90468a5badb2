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
#include "fp4.h"
#include "stream.h"
#include "vec_scale.h"
#include "norm_args.h"

/* SUMS run side by side, to keep the adders busy. Where there is much to do besides loading, the next row is fetched while one is
 * written; plain norms lose by that. */
enum { SUMS = 4, FETCHES = ADD_RESIDUAL || sizeof(OUT) < sizeof(T) };

struct row {
    const T *input, *next_input; /* of the row after it */
    R *residual;
    const R *next_residual;
    OUT *out;
    int64_t row, group, index;
    float mean, deviation;
};

INLINE vec load_x(const struct row *row, int64_t at, int64_t n)
{
    vec x = vec_load_n(row->input + at, n);
#if ADD_RESIDUAL
    x += vec_load_n(row->residual + at, n);
#endif
    return x;
}

#define ROUND_TO(type)                        \
    INLINE vec round_to_##type(vec x)         \
    {                                         \
        type rounded[LANES];                  \
        vec_store(rounded, x);                \
        return vec_load(rounded);             \
    }
ROUND_TO(f16)
ROUND_TO(bf16)
ROUND_TO(f32)
#define ROUND(type, x) ROUND_IN(type, x) /* when type is itself a constant */
#define ROUND_IN(type, x) round_to_##type(x)

/* Of x, or of (x - mean)^2; lanes beyond the row are no elements of it. */
INLINE vec term(vec x, int squares, float mean, int64_t n)
{
    if (!squares)
        return x;
    return LAYERNORM && n < LANES ? vec_first((x - mean) * (x - mean), n) : (x - mean) * (x - mean);
}

INLINE float row_sum(const struct row *row, int64_t hidden, int squares, float mean)
{
    vec sums[SUMS] = {{0}};
    int64_t at = 0;
    for (; at + SUMS * LANES <= hidden; at += SUMS * LANES)
        for (int i = 0; i < SUMS; i++)
            sums[i] += term(load_x(row, at + i * LANES, LANES), squares, mean, LANES);
    for (; at < hidden; at += LANES)
        sums[0] += term(load_x(row, at, hidden - at), squares, mean, hidden - at);
    return vec_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/* What the n elements from `at` on become, before they are quantised. Stores the sum with the residual. */
INLINE vec finish(const struct norm_args *a, const struct row *row, int64_t at, int64_t n)
{
    float mean = row->mean, deviation = row->deviation;
    vec x = load_x(row, at, n), factor = vec_load_n((const W *)a->weight + at, n) + a->weight_bias;
    if (FETCHES && at % (64 / (int)sizeof(T)) == 0)
        __builtin_prefetch(row->next_input + at);
#if ADD_RESIDUAL
    if (at % (64 / (int)sizeof(R)) == 0)
        __builtin_prefetch(row->next_residual + at);
    vec_store_n(row->residual + at, x, n);
#endif
#if BLOCK_SIZE && ADD_RESIDUAL
    vec y = ROUND(R, x) * deviation * factor;
#elif BLOCK_SIZE && !SILU
    vec y = ROUND(T, x * factor) * deviation;
#else
    vec y = (x - mean) * deviation * factor;
#endif
#if LAYERNORM
    y += vec_load_n((const W *)a->beta + at, n);
#endif
#if SILU
    y = silu(y);
#endif
    (void)mean;
    return y;
}

#if BLOCK_SIZE
enum { VECS = BLOCK_SIZE / LANES }; /* of a block */

/* Sixteen blocks at a time: their values, then their scales, then their codes. */
static void normalise(const struct norm_args *a, const struct row *row, bool past_caches)
{
    (void)past_caches;
    float global_scale = a->scale ? *a->scale : a->scale_value;
    int64_t blocks = a->hidden / BLOCK_SIZE;
    uint8_t *linear = a->linear_scales + row->row * a->scale_stride[0] + row->group * a->scale_stride[1];
    T *to = (T *)a->y + row->row * a->y_stride[0] + row->group * a->y_stride[1];
    for (int64_t block = 0; block < blocks; block += LANES) {
        vec y[LANES * VECS], largest[LANES] = {{0}};
        float multiplier[LANES];
        uint8_t codes[LANES];
        int64_t at = block * BLOCK_SIZE;
        int count = (int)(blocks - block < LANES ? blocks - block : LANES);
        for (int i = 0; i < count * VECS; i++) {
            y[i] = finish(a, row, at + i * LANES, LANES);
            largest[i / VECS] = vec_max2((vec)((vecu)y[i] & 0x7fffffffu), largest[i / VECS]);
            if (a->y)
                vec_store(to + at + i * LANES, y[i]);
        }
        vec amax = vec_max_each(largest);
        struct vec_scale s = E8M0 ? vec_scale_e8m0(amax, 6.0f) : vec_scale_e4m3(amax, global_scale);
        vec_store(multiplier, s.multiplier);
        vec_store_bytes(codes, s.code);
        for (int i = 0; i < count * VECS; i++)
            vec_store_e2m1((uint8_t *)row->out + at / 2 + i * LANES / 2, vec_e2m1_codes(y[i], vec_set(multiplier[i / VECS])));
        if (a->linear_scales)
            memcpy(linear + block, codes, (size_t)count);
        for (int i = 0; a->swizzled_scales && i < count; i += 4) /* four neighbours are neighbours there too */
            memcpy(a->swizzled_scales + block_scale_offset(SCALES_128X4, row->index, block + i, blocks), codes + i,
                   count - i < 4 ? (size_t)(count - i) : 4);
    }
}

/* The zeros behind a row's scales, or of a row behind the last. */
static void pad_scales(const struct norm_args *a, int64_t index, int64_t first)
{
    int64_t blocks = a->hidden / BLOCK_SIZE;
    for (int64_t i = first; a->swizzled_scales && i < block_scale_blocks(SCALES_128X4, blocks); i++)
        a->swizzled_scales[block_scale_offset(SCALES_128X4, index, i, blocks)] = 0;
}
#else
INLINE void normalise_vec(const struct norm_args *a, const struct row *row, OUT *to, int64_t at, int64_t n, float multiplier)
{
    vec y = finish(a, row, at, n);
    if (sizeof(OUT) == 1)
        y = (LAYERNORM ? ROUND(T, y) : y) * multiplier;
    vec_store_n(to, y, n);
}

static void normalise(const struct norm_args *all, const struct row *this, bool past_caches)
{
    OUT piece[STREAM_PIECE];
    const struct norm_args a = *all; /* so that no store can change it */
    const struct row row = *this;
    float multiplier = 1.0f / (a.scale ? *a.scale : a.scale_value);
    for (int64_t begin = 0, end; begin < a.hidden; begin = end) {
        end = a.hidden - begin < STREAM_PIECE ? a.hidden : begin + STREAM_PIECE;
        OUT *to = past_caches ? piece : row.out + begin;
        int64_t at = begin;
        for (; at + LANES <= end; at += LANES)
            normalise_vec(&a, &row, to + (at - begin), at, LANES, multiplier);
        if (at < end)
            normalise_vec(&a, &row, to + (at - begin), at, end - at, multiplier);
        if (past_caches)
            stream(row.out + begin, piece, (end - begin) * (int64_t)sizeof *piece);
    }
}
#endif

static struct row row_at(const struct norm_args *a, int64_t index)
{
    int64_t row = a->groups == 1 ? index : index / a->groups, group = index - row * a->groups;
    return (struct row){.input = (const T *)a->input + row * a->input_stride[0] + group * a->input_stride[1],
                        .residual = (R *)a->residual + row * a->residual_stride[0] + group * a->residual_stride[1],
                        .out = (OUT *)a->out + row * a->out_stride[0] + group * a->out_stride[1],
                        .row = row,
                        .group = group,
                        .index = index};
}

void norm_cpu(const struct norm_args *a, int part, int parts)
{
    int64_t rows = a->rows * a->groups, all = rows;
#if BLOCK_SIZE
    if (a->swizzled_scales)
        all = block_scale_rows(SCALES_128X4, rows);
#endif
    int64_t begin = part_begin(all, part, parts), end = part_begin(all, part + 1, parts);
    struct row next = row_at(a, begin);
    bool past_caches = sizeof(OUT) == 4 && a->out != a->input && streams(rows * a->hidden * 4);
    for (int64_t i = begin; i < end; i++) {
#if BLOCK_SIZE
        pad_scales(a, i, i < rows ? a->hidden / BLOCK_SIZE : 0);
        if (i >= rows)
            continue;
#endif
        struct row r = next;
        if (i + 1 < rows)
            next = row_at(a, i + 1);
        r.next_input = next.input;
        r.next_residual = next.residual;
        r.mean = LAYERNORM ? row_sum(&r, a->hidden, 0, 0) * a->inverse_hidden : 0;
        r.deviation = 1.0f / sqrtf(row_sum(&r, a->hidden, 1, r.mean) * a->inverse_hidden + a->eps);
        normalise(a, &r, past_caches);
    }
    if (past_caches)
        stream_end();
}
