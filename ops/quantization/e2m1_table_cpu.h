/* SPDX-License-Identifier: Apache-2.0 */
/* e4m3 codes to e2m1, in blocks of 16: all that a block's scale and its codes depend on is its largest magnitude, and there are
 * 127 of these. A table has the scale that goes with each, and the code of each magnitude up to so many codes below it; what is
 * smaller yet is rounded to 0. */
#ifndef E2M1_TABLE_CPU_H
#define E2M1_TABLE_CPU_H

#include "blocks.h"
#include "fp4.h"
#include "vec_scale.h"

enum { MAGNITUDES = 128, BELOW = 48 };

struct e2m1_table {
    _Alignas(64) uint8_t code[MAGNITUDES][64]; /* BELOW of them */
    _Alignas(64) uint8_t scale[MAGNITUDES];
    float global_scale;
};

/* value: of each magnitude. */
static void e2m1_table_fill(struct e2m1_table *t, const float *value, float global_scale)
{
    float multiplier[MAGNITUDES], downwards[MAGNITUDES + BELOW] = {0};
    for (int i = 0; i < MAGNITUDES; i += LANES) {
        struct vec_scale s = vec_scale_e4m3(vec_load(value + i), global_scale, 0);
        vec_store_bytes(t->scale + i, s.code);
        vec_store(multiplier + i, s.multiplier);
    }
    for (int i = 0; i < MAGNITUDES; i++)
        downwards[i] = value[MAGNITUDES - 1 - i];
    for (int i = 0; i < MAGNITUDES; i++)
        for (int k = 0; k < BELOW; k += LANES) {
            vec x = vec_load(downwards + MAGNITUDES - 1 - i + k) * multiplier[i];
            vec_store_bytes(t->code[i] + k, vec_e2m1_high(x, 0) >> 28);
        }
    t->global_scale = global_scale;
}

/* Lane i: the largest byte of the sixteen from 16 i on. */
INLINE vecu e4m3_largest_of_blocks(const vecu *x)
{
    vecu y[2];
    for (int i = 0; i < 2; i++)
        y[i] = (vecu)_mm512_max_epu8(
            (__m512i)BLOCKS_PICK(x[2 * i], x[2 * i + 1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
            (__m512i)BLOCKS_PICK(x[2 * i], x[2 * i + 1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31));
    vecu z = (vecu)_mm512_max_epu8(
        (__m512i)BLOCKS_PICK(y[0], y[1], 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30),
        (__m512i)BLOCKS_PICK(y[0], y[1], 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31));
    z = (vecu)_mm512_max_epu8((__m512i)z, (__m512i)(z >> 16));
    z = (vecu)_mm512_max_epu8((__m512i)z, (__m512i)(z >> 8));
    return BLOCKS_PICK(z, z, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15) & 0xff;
}

/* The low byte of lane i: the scale that goes with largest[i], of sixteen. The rest is not. */
INLINE vecu e2m1_table_scales(vecu largest, const struct e2m1_table *t)
{
    vecu pairs[2];
    memcpy(pairs, t->scale, sizeof pairs);
    return (vecu)_mm512_permutex2var_epi16((__m512i)pairs[0], (__m512i)(largest >> 1), (__m512i)pairs[1]) >> (largest << 3 & 8);
}

/* Bytes: the codes of the i-th four of sixteen blocks. x: their elements; below: how many magnitudes these are below the largest
 * one of their block. */
#ifdef __AVX512VBMI__
INLINE vecu e2m1_table_codes(vecu x, vecu below, const uint8_t *largest, int i, const struct e2m1_table *t)
{
    __m512i codes, at = _mm512_min_epu8((__m512i)below, (__m512i)((vecu){0} + 0x3f3f3f3fu));
    codes = _mm512_permutexvar_epi8(at, (__m512i)vec_load((const f32 *)t->code[largest[4 * i]]));
    for (int j = 1; j < 4; j++)
        codes = _mm512_mask_permutexvar_epi8(codes, (__mmask64)0xffff << 16 * j, at,
                                             (__m512i)vec_load((const f32 *)t->code[largest[4 * i + j]]));
    return (vecu)codes | (x >> 4 & 0x08080808u);
}
#else
INLINE vecu e2m1_table_codes(vecu x, vecu below, const uint8_t *largest, int i, const struct e2m1_table *t)
{
    vecu table[3], codes = x >> 4 & 0x08080808u;
    for (int k = 0; k < 3; k++) {
        __m512i lanes = {0};
        for (int j = 0; j < 4; j++)
            lanes = _mm512_mask_broadcast_i32x4(lanes, (__mmask16)(15 << 4 * j),
                                                _mm_loadu_si128((const __m128i *)(t->code[largest[4 * i + j]] + LANES * k)));
        table[k] = (vecu)lanes;
    }
    for (int k = 0; k < 3; k++) { /* only what is in this table stays below 0x80, beyond which a shuffle gives 0 */
        __m512i at = _mm512_adds_epu8((__m512i)(below ^ 0x10101010u * (uint32_t)k), (__m512i)((vecu){0} + 0x70707070u));
        codes |= (vecu)_mm512_shuffle_epi8((__m512i)table[k], at);
    }
    return codes;
}
#endif

/* A line of 64 bytes: the codes of the i-th eight of sixteen blocks. x, magnitude: their elements. */
INLINE vecu e2m1_table_line(const vecu *x, const vecu *magnitude, const uint8_t *largest, int i, const struct e2m1_table *t)
{
    const vecu which = {0, 0, 0, 0, 0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u, 0x02020202u, 0x02020202u,
                        0x02020202u, 0x02020202u, 0x03030303u, 0x03030303u, 0x03030303u, 0x03030303u};
    __m512i all = _mm512_mask_broadcast_i32x4((__m512i){0}, (__mmask16)-1, _mm_loadu_si128((const __m128i *)largest));
    vecu codes[2];
    for (int k = 0; k < 2; k++) {
        __m512i each = _mm512_shuffle_epi8(all, (__m512i)(which + 0x04040404u * (uint32_t)(2 * i + k)));
        vecu below = (vecu)_mm512_subs_epu8(each, (__m512i)magnitude[2 * i + k]);
        codes[k] = e2m1_table_codes(x[2 * i + k], below, largest, 2 * i + k, t);
    }
    vecu line = joined_e2m1(codes[0], codes[1]);
    return BLOCKS_PICK(line, line, 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
}

#endif
