/* SPDX-License-Identifier: Apache-2.0 */
/* The block scales of block_scale.h, of sixteen blocks at a time, bit for bit. */
#ifndef VEC_SCALE_H
#define VEC_SCALE_H

#include "block_scale.h"
#include "vec.h"

struct vec_scale {
    vecu code;
    vec multiplier;
};

/* As block_scale_e4m3. What rounds the scale to its code, see vec_narrow_low, leaves its value too. The low byte of each lane is
 * the code; the rest is not. tame: global_scale * amax is not NaN. */
INLINE struct vec_scale vec_scale_e4m3(vec amax, float global_scale, int tame)
{
    vec x = global_scale * (amax / 6.0f);
    vecu magnitude = vec_min_bits((vecu)x & 0x7fffffffu, (vecu)vec_set(448.0f));
    vecu binade = vec_max_bits(magnitude & 0x7f800000u, (vecu){0} + (121u << 23));
    vec unit = (vec)binade * 1048576.0f, rounded = (vec)magnitude + unit;
    vec value = rounded - unit;
    struct vec_scale s = {.code = (vecu)rounded + (binade >> 20) + (-(121u << 3) & 0xff)};
    if (!tame)
        s.code = vec_where_nan(x, (vecu){0} + 0x7f, s.code);
#ifdef __AVX512F__
    s.multiplier = (vec)_mm512_mask_mov_epi32((__m512i){0}, _mm512_test_epi32_mask((__m512i)value, (__m512i)value),
                                              (__m512i)(global_scale / value));
#else
    s.multiplier = (vec)((vecu)(global_scale / value) & ~vec_is_equal((vecu)value, (vecu){0}));
#endif
    return s;
}

/* As block_scale_e8m0. */
INLINE struct vec_scale vec_scale_e8m0(vec amax, float largest)
{
    uint32_t mantissa = float_bits(largest) & 0x7fffffu;
    veci code = (veci)(((vecu)amax + (0x7fffffu - mantissa)) >> 23) - (int32_t)((float_bits(largest) >> 23) - 127);
    struct vec_scale s = {.code = (vecu)(code & ~(code >> 31))};
    s.multiplier = (vec)((254 - s.code) << 23);
    return s;
}

/* As e8m0_scale_value. */
INLINE vec vec_e8m0_value(vecu code)
{
    return (vec)vec_select_bits((veci)vec_is_equal(code, (vecu){0}), (vecu){0} + 0x400000u, code << 23);
}

#endif
