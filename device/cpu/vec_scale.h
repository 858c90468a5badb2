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

/* As block_scale_e4m3. */
INLINE struct vec_scale vec_scale_e4m3(vec amax, float global_scale)
{
    struct vec_scale s = {.code = vec_narrow_bits(global_scale * (amax / 6.0f), E4M3_FORMAT)};
    vec value = (vec)vec_select_bits(s.code < 8, (vecu)(__builtin_convertvector((veci)s.code, vec) * 0.001953125f),
                                     (s.code + (120 << 3)) << 20);
    s.multiplier = (vec)((vecu)(global_scale / value) & (vecu)(s.code != 0));
    return s;
}

/* As block_scale_e8m0. */
INLINE struct vec_scale vec_scale_e8m0(vec amax, float largest)
{
    uint32_t mantissa = float_bits(largest) & 0x7fffffu;
    veci code = (veci)(((vecu)amax + (0x7fffffu - mantissa)) >> 23) - (int32_t)((float_bits(largest) >> 23) - 127);
    struct vec_scale s = {.code = (vecu)(code & (code > 0))};
    s.multiplier = (vec)((254 - s.code) << 23);
    return s;
}

/* As e8m0_scale_value. */
INLINE vec vec_e8m0_value(vecu code) { return (vec)vec_select_bits(code == 0, (vecu){0} + 0x400000u, code << 23); }

#endif
