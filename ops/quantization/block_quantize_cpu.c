/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of a row are rounded to CODE under a scale each, on a CPU. Rows, padding included, are cut in chunks of CHUNK columns; a
 * part takes a range of chunks.
 *
 *   T       f16, bf16, f32, e4m3
 *   CODE    e2m1x2, e4m3, i8
 *   SCALE   0 to 3, see block_quantize_args.h
 *   BLOCK   16, 32, 64, 128, 256, 512
 *   LARGEST value of CODE
 *   CHUNK   columns, a multiple of 16 blocks */
#include <stdbool.h>

#include "block_scale.h"
#include "fp4.h"
#include "block_quantize_args.h"

/* Blocks whose scales are computed together. */
enum { TOGETHER = 16 };

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
INLINE vec scale_input(vec x, float global_scale)
{
    f16 half[LANES];
    vec_store(half, x * (6.0f / global_scale));
    return vec_load((const f16 *)half);
}

/* Sixteen columns, 0 from `columns` on. */
INLINE vec load_run(const T *from, int64_t columns, float global_scale)
{
    vec x = columns > 0 ? vec_load_n(from, columns) : (vec){0};
    return _Generic(from, const e4m3 * : scale_input(x, global_scale), default : x);
}

INLINE float block_amax(const T *from, int64_t columns, float global_scale)
{
    vec amax = {0};
    for (int i = 0; i < BLOCK; i += LANES)
        amax = vec_max2((vec)((vecu)load_run(from + i, columns - i, global_scale) & 0x7fffffffu), amax);
    return vec_max(amax);
}

struct scale {
    float multiplier, value;
    uint8_t code;
};

INLINE struct scale scale_of(float amax, float global_scale, float least_amax)
{
#if SCALE == SCALE_E4M3 || SCALE == SCALE_E8M0
    (void)least_amax;
    struct block_scale s = SCALE == SCALE_E4M3 ? block_scale_e4m3(amax, global_scale) : block_scale_e8m0(amax, LARGEST);
    return (struct scale){s.multiplier, 0, (uint8_t)s.code};
#else
    (void)global_scale;
    amax = amax > least_amax ? amax : least_amax;
    float value = SCALE == SCALE_POWER ? e8m0_scale_value(block_scale_e8m0(amax, LARGEST).code) : amax / LARGEST;
    return (struct scale){1.0f / value, value, 0};
#endif
}

/* Columns [begin, end) of a row; rows and columns that only the layout of the scales has are 0. */
static void quantize(const struct block_quantize_args *a, int64_t group, int64_t row, int64_t begin, int64_t end)
{
    bool exists = row < a->rows;
    const T *input = (const T *)a->input + group * a->input_stride[0] + (exists ? row : 0) * a->input_stride[1];
    CODE *out = (CODE *)a->out + group * a->out_stride[0] + (exists ? row : 0) * a->out_stride[1];
    int64_t columns = exists ? a->columns : 0, out_columns = exists ? a->out_columns : 0;
    float global_scale =
        a->global_scale && exists ? a->global_scale[group * a->global_stride[0] + row * a->global_stride[1]] : a->global_value;
    if (a->inverse)
        global_scale = 1.0f / global_scale;
    for (int64_t at = begin; at < end; at += TOGETHER * BLOCK) {
        int count = (int)(end - at < TOGETHER * BLOCK ? (end - at) / BLOCK : TOGETHER);
        float amax[TOGETHER];
        for (int b = 0; b < count; b++)
            amax[b] = block_amax(input + at + b * BLOCK, columns - at - b * BLOCK, global_scale);
        for (int b = 0; b < count; b++) {
            int64_t column = at + b * BLOCK, block = column / BLOCK;
            struct scale s = scale_of(amax[b], global_scale, a->least_amax);
#if SCALE == SCALE_E4M3 || SCALE == SCALE_E8M0
            ((uint8_t *)a->scales)[group * a->scale_stride[0] + block_scale_offset(a->layout, row, block, a->blocks)] = s.code;
#else
            ((float *)a->scales)[row * a->scale_stride[0] + block * a->scale_stride[1]] = s.value;
#endif
            for (int i = 0; i < BLOCK && column < out_columns; i += LANES)
                STORE(CODE)
            (out + (column + i) / CODE_ELEMENTS, load_run(input + column + i, columns - column - i, global_scale),
             vec_set(s.multiplier));
        }
    }
}

void block_quantize_cpu(const struct block_quantize_args *a, int part, int parts)
{
    int64_t rows = block_scale_rows(a->layout, a->rows), width = block_scale_blocks(a->layout, a->blocks) * BLOCK;
    int64_t chunks = (width + CHUNK - 1) / CHUNK, last = part_begin(a->groups * rows * chunks, part + 1, parts);
    for (int64_t i = part_begin(a->groups * rows * chunks, part, parts); i < last; i++) {
        int64_t group = i / chunks / rows, row = i / chunks % rows, begin = i % chunks * CHUNK;
        if (!a->mask || (row < a->rows && row < a->mask[group]))
            quantize(a, group, row, begin, begin + CHUNK < width ? begin + CHUNK : width);
    }
}
