/* SPDX-License-Identifier: Apache-2.0 */
/* out = code * scale of its block * global_scale on a CPU, the last product rounded to float32 first. Rows are cut in chunks of
 * CHUNK columns; a part takes a range of chunks.
 *
 *   T     f32, f16, bf16
 *   CODE  e2m1x2, e4m3
 *   E8M0  1: scales are e8m0, 0: e4m3
 *   BLOCK 16, 32
 *   CHUNK a multiple of BLOCK */
#include "block_scale.h"
#include "fp4.h"
#include "block_dequantize_args.h"

#define CODE_ELEMENTS _Generic((CODE *)0, e2m1x2 * : 2, default : 1)
INLINE vec load_e2m1x2(const e2m1x2 *codes)
{
    return vec_load_e2m1(&codes->bits);
}
INLINE vec load_e4m3(const e4m3 *codes)
{
    return vec_load(codes);
}
#define LOAD_(code) load_##code
#define LOAD(code) LOAD_(code)

INLINE float scale_value(uint8_t code)
{
#if E8M0
    return code == 255 ? NAN : e8m0_scale_value(code);
#else
    return to_float((e4m3){code});
#endif
}

void block_dequantize_cpu(const struct block_dequantize_args *a, int part, int parts)
{
    float global_scale = a->global_scale ? *a->global_scale : a->global_value;
    int64_t chunks = (a->columns + CHUNK - 1) / CHUNK, last = part_begin(a->rows * chunks, part + 1, parts);
    for (int64_t i = part_begin(a->rows * chunks, part, parts); i < last; i++) {
        int64_t row = i / chunks, begin = i % chunks * CHUNK, end = begin + CHUNK < a->columns ? begin + CHUNK : a->columns;
        const CODE *codes = (const CODE *)a->codes + row * a->code_stride;
        T *out = (T *)a->out + row * a->out_stride;
        for (int64_t column = begin; column < end; column += LANES) {
            float scale = scale_value(a->scales[block_scale_offset(a->layout, row, column / BLOCK, a->blocks)]);
            vec_store(out + column, LOAD(CODE)(codes + column / CODE_ELEMENTS) * scale * global_scale);
        }
    }
}
