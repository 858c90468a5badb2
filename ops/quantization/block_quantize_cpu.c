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
#include <stdbool.h>

#include "activation.h"
#include "fp4.h"
#include "vec_scale.h"
#include "block_quantize_args.h"

INLINE void store_e2m1x2(e2m1x2 *to, vec x, vec multiplier)
{
    vec_store_e2m1(&to->bits, vec_e2m1_codes(x, multiplier));
}
INLINE void store_e4m3(e4m3 *to, vec x, vec multiplier)
{
    vec_store(to, x * multiplier);
}
INLINE void store_i8(i8 *to, vec x, vec multiplier)
{
    vec_store(to, x * multiplier);
}
#define CODE_ELEMENTS _Generic((CODE *)0, e2m1x2 * : 2, default : 1)
#define STORE_(code) store_##code
#define STORE(code) STORE_(code)

/* e4m3 elements are codes of a tensor whose scale global_scale is: they become f16 values up to 6 * 448 / global_scale. */
INLINE vec scale_input(vec x, float factor)
{
    f16 half[LANES];
    vec_store(half, x * factor);
    return vec_load((const f16 *)half);
}

/* Sixteen columns, 0 from `columns` on. up: what GATED columns scale. */
INLINE vec load_run(const T *from, const T *up, int64_t columns, float factor)
{
    vec x = columns > 0 ? vec_load_n(from, columns) : (vec){0};
#if GATED
    T rounded[LANES];
    vec_store(rounded, silu(x) * (columns > 0 ? vec_load_n(up, columns) : (vec){0}));
    x = vec_load((const T *)rounded);
#endif
    (void)up;
    return _Generic(from, const e4m3 * : scale_input(x, factor), default : x);
}

/* Scales of the sixteen blocks from `block` on, of which `count` are stored; returns the multipliers. */
INLINE vec store_scales(const struct block_quantize_args *a, int64_t group, int64_t row, int64_t block, int count, vec amax,
                        float global_scale)
{
#if SCALE == SCALE_E4M3 || SCALE == SCALE_E8M0
    struct vec_scale s = SCALE == SCALE_E4M3 ? vec_scale_e4m3(amax, global_scale) : vec_scale_e8m0(amax, LARGEST);
    uint8_t codes[LANES], *scales = (uint8_t *)a->scales + group * a->scale_stride[0];
    vec_store_bytes(codes, s.code);
    for (int i = 0; i < count; i += 4) /* four neighbours are neighbours in all layouts */
        memcpy(scales + block_scale_offset(a->layout, row, block + i, a->blocks), codes + i,
               count - i < 4 ? (size_t)(count - i) : 4);
    return s.multiplier;
#else
    (void)group;
    (void)global_scale;
    amax = vec_max2(amax, vec_set(a->least_amax));
    vec value = SCALE == SCALE_POWER ? vec_e8m0_value(vec_scale_e8m0(amax, LARGEST).code) : amax / LARGEST;
    for (int i = 0; i < count; i++)
        ((float *)a->scales)[row * a->scale_stride[0] + (block + i) * a->scale_stride[1]] = value[i];
    return 1.0f / value;
#endif
}

struct line {
    const T *input;
    CODE *out;
    int64_t group, row;
    float global_scale, factor;
};

/* `count` blocks from column `at` on, up to sixteen, widened, scaled, stored. is_whole: input and out have all their columns. */
INLINE void quantize_blocks(const struct block_quantize_args *a, const struct line *l, int64_t at, const int count,
                            const bool is_whole)
{
    vec x[BLOCK], amax[LANES] = {{0}};
    float multiplier[LANES];
    for (int i = 0; i < count * BLOCK / LANES; i++) {
        const T *from = l->input + at + i * LANES;
        x[i] = load_run(from, from + a->columns, is_whole ? LANES : a->columns - at - i * LANES, l->factor);
        amax[i * LANES / BLOCK] = vec_max2((vec)((vecu)x[i] & 0x7fffffffu), amax[i * LANES / BLOCK]);
    }
    vec_store(multiplier, store_scales(a, l->group, l->row, at / BLOCK, count, vec_max_each(amax), l->global_scale));
    for (int i = 0; i < count * BLOCK / LANES && (is_whole || at + i * LANES < a->out_columns); i++)
        STORE(CODE)(l->out + (at + i * LANES) / CODE_ELEMENTS, x[i], vec_set(multiplier[i * LANES / BLOCK]));
}

/* Columns [begin, end) of a row; those from out_columns on have a scale only. */
static void quantize(const struct block_quantize_args *a, int64_t group, int64_t row, int64_t begin, int64_t end)
{
    float global_scale =
        a->global_scale ? a->global_scale[group * a->global_stride[0] + row * a->global_stride[1]] : a->global_value;
    if (a->inverse)
        global_scale = 1.0f / global_scale;
    const struct line line = {.input = (const T *)a->input + group * a->input_stride[0] + row * a->input_stride[1],
                              .out = (CODE *)a->out + group * a->out_stride[0] + row * a->out_stride[1],
                              .group = group,
                              .row = row,
                              .global_scale = global_scale,
                              .factor = 6.0f / global_scale};
    int64_t whole = a->columns < a->out_columns ? a->columns : a->out_columns, at = begin;
    for (whole = whole < end ? whole : end; at + LANES * BLOCK <= whole; at += LANES * BLOCK)
        quantize_blocks(a, &line, at, LANES, true);
    for (; at < end; at += LANES * BLOCK)
        quantize_blocks(a, &line, at, (int)(end - at < LANES * BLOCK ? (end - at) / BLOCK : LANES), false);
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
    int64_t padded = block_scale_rows(a->layout, a->rows), width = block_scale_blocks(a->layout, a->blocks) * BLOCK;
    int64_t chunks = (width + CHUNK - 1) / CHUNK, last = part_begin(a->groups * a->rows * chunks, part + 1, parts);
    for (int64_t i = part_begin(a->groups * a->rows * chunks, part, parts); i < last; i++) {
        int64_t group = i / chunks / a->rows, row = i / chunks % a->rows, begin = i % chunks * CHUNK;
        if (!a->mask || row < a->mask[group])
            quantize(a, group, row, begin, begin + CHUNK < width ? begin + CHUNK : width);
        for (int64_t r = a->rows; r < padded && !a->mask && row == a->rows - 1 && begin == 0; r++)
            clear_scales(a, group, r);
    }
}
