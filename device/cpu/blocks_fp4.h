/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that lie one after the other as e2m1 codes with a scale each. */
#ifndef BLOCKS_FP4_H
#define BLOCKS_FP4_H

#include "blocks.h"
#include "fp4.h"
#include "vec_scale.h"

enum { E2M1_BLOCKS = 4 * LANES }; /* at a time, at most */

/* Codes and scales of `count` blocks of elements times `factor`; there is room for whole runs of sixteen. Floats are pairs in
 * `order`. All scales come first: what one takes, from maxima to quotient, hides behind the next ones. ahead: from these elements
 * to those that are taken soon, or 0. Returns 0 if the blocks are not as tame, and both are to be made again. */
#define BLOCKS_TO_E2M1(T, stored)                                                                                              \
    INLINE int blocks_to_e2m1_##T(e2m1x2 *to, uint8_t *scales, const T *from, int count, const int block, const bool e8m0,     \
                                  float global_scale, float factor, enum pair_order order, const int tame,                     \
                                  const int past_caches, const int64_t ahead)                                                  \
    {                                                                                                                          \
        const int tame_amax = tame && E2M1_FINDS_NAN ? BLOCKS_LOOSE : tame != BLOCKS_WILD;                                     \
        const float times = tame ? E2M1_TIMES : 1.0f;                                                                          \
        _Alignas(64) float multiplier[E2M1_BLOCKS];                                                                            \
        vecu worst = {0}, least = {0};                                                                                         \
        for (int i = 0; i < count; i += LANES) {                                                                               \
            vec amax = blocks_amax_##T(from + i * block, block, order, tame_amax) * factor;                                    \
            struct vec_scale s = e8m0 ? vec_scale_e8m0(amax, 6.0f) : vec_scale_e4m3(amax, global_scale, tame);                 \
            vec_store(multiplier + i, s.multiplier * (times * factor));                                                        \
            vec_store_bytes(scales + i, s.code);                                                                               \
            worst = blocks_worst(worst, amax, s.multiplier * times);                                                           \
        }                                                                                                                      \
        if (tame && !blocks_are_tame(worst, 6.9f * times))                                                                     \
            return 0;                                                                                                          \
        for (unsigned at = 0; at < (unsigned)(count * block); at += E2M1_LINE) {                                               \
            struct pair x[E2M1_LINE / PAIR];                                                                                   \
            for (int i = 0; i < E2M1_LINE / PAIR; i++) {                                                                       \
                unsigned first = at + i * PAIR;                                                                                \
                if (ahead)                                                                                                     \
                    __builtin_prefetch(from + first + ahead, 0, 2);                                                            \
                x[i] = blocks_multiplied(pair_load_##T(from + first, stored), first, multiplier, block, order);                \
            }                                                                                                                  \
            if (tame == BLOCKS_LOOSE)                                                                                          \
                line_narrow_e2m1_loose(to + at / 2, x, order, past_caches, &least);                                            \
            else if (tame)                                                                                                     \
                line_narrow_e2m1_tame(to + at / 2, x, order, past_caches, &least);                                             \
            else                                                                                                               \
                line_narrow_e2m1x2(to + at / 2, x, order, 0, past_caches);                                                     \
        }                                                                                                                      \
        return !e2m1_has_nan(least);                                                                                           \
    }
BLOCKS_TO_E2M1(f16, order)
BLOCKS_TO_E2M1(bf16, order)
BLOCKS_TO_E2M1(f32, HALVES)
#define blocks_to_e2m1(to, scales, from, ...) PAIR_FLOATS(blocks_to_e2m1, from)(to, scales, from, __VA_ARGS__)

#endif
