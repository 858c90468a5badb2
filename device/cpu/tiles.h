/* SPDX-License-Identifier: Apache-2.0 */
/* Products of pairs of bf16 (dot.h) by AMX, whose tiles have sixteen rows of 64 bytes: sixteen units or sums. Subnormal numbers
 * are zero, as they are for VDPBF16PS. */
#ifndef TILES_H
#define TILES_H

#include <stdbool.h>

#include "dot.h"

enum { TILE_ROWS = 16, TILE_COLUMNS = 64 };

#if defined __AMX_BF16__ && defined __AVX512BF16__
enum { DOT_TILES_bf16 = 1, DOT_TILES_f16 = 0 };

/* Tiles 0 to 3 are sums, 4 and 5 are of a; they have `rows` rows from now on. Tiles 6 and 7 are of b. */
INLINE void tiles_begin(int rows)
{
    struct {
        uint8_t palette, start_row, unused[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shape.row_bytes[i] = 64;
        shape.rows[i] = (uint8_t)(i < 6 ? rows : TILE_ROWS);
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(shape));
}

/* The system need not save tiles from now on. */
INLINE void tiles_end(void) { __asm__ volatile("tilerelease"); }

/* stride: in units */
#define TILE_LOAD(tile, from, stride) \
    __asm__ volatile("tileloadd (%0,%1,4), %%tmm" #tile : : "r"(from), "r"((int64_t)(stride)) : "memory")
#define TILE_STORE(tile, to, stride) \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,4)" : : "r"(to), "r"((int64_t)(stride)) : "memory")
#define TILE_ZERO(tile) __asm__ volatile("tilezero %tmm" #tile)
#define TILE_MULTIPLY(sum, a, b) __asm__ volatile("tdpbf16ps %tmm" #b ", %tmm" #a ", %tmm" #sum)

struct tile_product {
    float *c;
    const uint32_t *a, *b;
    int c_stride, a_stride, b_stride, units;
};

/* Of a tile's rows from `low` on and from `high` on. */
INLINE void tiles_multiply_rows(const struct tile_product *t, int64_t low, int64_t high, const bool add)
{
    const uint32_t *a_low = t->a + low * t->a_stride, *a_high = t->a + high * t->a_stride;
    for (int j = 0; j < TILE_COLUMNS; j += 32) {
        float *c_low = t->c + low * t->c_stride + j, *c_high = t->c + high * t->c_stride + j;
        if (add) {
            TILE_LOAD(0, c_low, t->c_stride);
            TILE_LOAD(1, c_low + 16, t->c_stride);
            TILE_LOAD(2, c_high, t->c_stride);
            TILE_LOAD(3, c_high + 16, t->c_stride);
        } else {
            TILE_ZERO(0);
            TILE_ZERO(1);
            TILE_ZERO(2);
            TILE_ZERO(3);
        }
        for (int unit = 0; unit < t->units; unit += 16) {
            const uint32_t *b = t->b + (int64_t)unit * t->b_stride + j;
            TILE_LOAD(4, a_low + unit, t->a_stride);
            TILE_LOAD(6, b, t->b_stride);
            TILE_MULTIPLY(0, 4, 6);
            TILE_LOAD(7, b + 16, t->b_stride);
            TILE_MULTIPLY(1, 4, 7);
            TILE_LOAD(5, a_high + unit, t->a_stride);
            TILE_MULTIPLY(2, 5, 6);
            TILE_MULTIPLY(3, 5, 7);
        }
        TILE_STORE(0, c_low, t->c_stride);
        TILE_STORE(1, c_low + 16, t->c_stride);
        TILE_STORE(2, c_high, t->c_stride);
        TILE_STORE(3, c_high + 16, t->c_stride);
    }
}

/* c[rows][64] (+)= a[rows][units] * b[units][64]; units: a multiple of 16. */
INLINE void tiles_multiply(const struct tile_product *t, int64_t rows, const bool add)
{
    int64_t r = 0;
    if (rows >= TILE_ROWS)
        tiles_begin(TILE_ROWS);
    for (; rows - r >= TILE_ROWS; r += 2 * TILE_ROWS) /* of less than two tiles, the same comes twice */
        tiles_multiply_rows(t, r, rows - r >= 2 * TILE_ROWS ? r + TILE_ROWS : rows - TILE_ROWS, add);
    if (r < rows) {
        tiles_begin((int)(rows - r));
        tiles_multiply_rows(t, r, r, add);
    }
}
#else
enum { DOT_TILES_bf16 = 0, DOT_TILES_f16 = 0 };
#define tiles_end()
#define tiles_multiply(...)
#endif

/* Whether units of T are multiplied in tiles. */
#define DOT_TILES(T) DOT_CAT(DOT_TILES, T)

#endif
