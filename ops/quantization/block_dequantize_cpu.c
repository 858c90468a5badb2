/* SPDX-License-Identifier: Apache-2.0 */
/* out = code * scale of its block * global_scale on a CPU, the last product rounded to float32 first. Rows are cut in chunks of
 * CHUNK columns; a part takes a range of chunks.
 *
 *   T     f32, f16, bf16
 *   CODE  e2m1x2, e4m3
 *   E8M0  1: scales are e8m0, 0: e4m3
 *   BLOCK 16, 32
 *   CHUNK a multiple of 16 blocks */
#include "blocks.h"
#include "fp4.h"
#include "stream.h"
#include "vec_scale.h"
#include "block_dequantize_args.h"

enum { AHEAD = 4096 }; /* bytes of codes, which are fetched */
enum { ORDER = _Generic((CODE *)0, e4m3 * : HALVES, default : PAIR_ORDER(T)) };
#define LOAD_(code) pair_load_n_##code
#define LOAD(code) LOAD_(code)

INLINE vec scale_values(const uint8_t *codes)
{
#if E8M0
    vecu code = vec_load_bytes(codes);
    return (vec)vec_select_bits((veci)vec_is_equal(code, (vecu){0} + 255), (vecu){0} + 0x7fc00000u, (vecu)vec_e8m0_value(code));
#else
    return vec_load((const e4m3 *)codes);
#endif
}

/* n elements, which begin with element `at` of the sixteen blocks whose scales are in `scale`. */
INLINE void dequantize_pair(T *to, const CODE *codes, int at, const float *scale, int64_t n, float global_scale, int past_caches)
{
    struct pair x = blocks_values(LOAD(CODE)(codes, n, ORDER), (unsigned)at, scale, BLOCK, global_scale, ORDER);
    if (n >= PAIR)
        pair_write(to, x, ORDER, NUMBERS, past_caches);
    else
        pair_store_n(to, x, n, ORDER);
}

/* At most sixteen blocks, whose first scale is at `scales`; `step` is between four scales and the next four. */
static void dequantize(T *out, const CODE *codes, const uint8_t *scales, uint32_t step, int blocks, float global_scale,
                       bool past_caches)
{
    uint8_t code[LANES] = {0};
    float scale[LANES];
    for (int i = 0; i < LANES && blocks == LANES; i += 4)
        memcpy(code + i, scales + i / 4 * step, 4);
    for (int i = 0; i < blocks && blocks < LANES; i += 4)
        memcpy(code + i, scales + i / 4 * step, blocks - i < 4 ? (size_t)(blocks - i) : 4);
    vec_store(scale, scale_values(code));
    if (blocks == LANES && past_caches && (intptr_t)out % 64 == 0)
        for (int at = 0; at < LANES * BLOCK; at += PAIR) {
            if (at * (int)sizeof(CODE) / ELEMENTS(CODE) % 64 == 0)
                __builtin_prefetch(codes + at / ELEMENTS(CODE) + AHEAD, 0, 2);
            dequantize_pair(out + at, codes + at / ELEMENTS(CODE), at, scale, PAIR, global_scale, 1);
        }
    else if (blocks == LANES)
        for (int at = 0; at < LANES * BLOCK; at += PAIR)
            dequantize_pair(out + at, codes + at / ELEMENTS(CODE), at, scale, PAIR, global_scale, 0);
    else
        for (int at = 0; at < blocks * BLOCK; at += PAIR)
            dequantize_pair(out + at, codes + at / ELEMENTS(CODE), at, scale, blocks * BLOCK - at, global_scale, 0);
}

void block_dequantize_cpu(const struct block_dequantize_args *a, int part, int parts)
{
    float global_scale = a->global_scale ? *a->global_scale : a->global_value;
    global_scale = global_scale == global_scale ? global_scale : NAN; /* then no NaN has lower bits, which codes lack: NUMBERS */
    bool past_caches = streams(a->rows * a->columns * (int)sizeof(T));
    int64_t chunks = (a->columns + CHUNK - 1) / CHUNK, last = part_begin(a->rows * chunks, part + 1, parts);
    for (int64_t i = part_begin(a->rows * chunks, part, parts); i < last; i++) {
        int64_t row = i / chunks, begin = i % chunks * CHUNK, end = begin + CHUNK < a->columns ? begin + CHUNK : a->columns;
        const CODE *codes = (const CODE *)a->codes + row * a->code_stride;
        T *out = (T *)a->out + row * a->out_stride;
        for (int64_t at = begin; at < end; at += LANES * BLOCK)
            dequantize(out + at, codes + at / ELEMENTS(CODE),
                       a->scales + block_scale_offset(a->layout, row, at / BLOCK, a->blocks), block_scale_step(a->layout),
                       (int)(end - at < LANES * BLOCK ? (end - at) / BLOCK : LANES), global_scale, past_caches);
    }
    if (past_caches)
        stream_end();
}
