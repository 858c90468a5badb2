/* SPDX-License-Identifier: Apache-2.0 */
/* Elements of a matrix are moved to tiles of 128 rows by 4 columns, on a CPU; padding is 0. Four neighbours of each of ROWS rows
 * make a line; a part takes a range of such groups of rows.
 *
 *   T u8, or bf16 for any two bytes */
#include "stream.h"
#include "block_scale.h"
#include "block_scale_interleave_args.h"

enum { LINE = 64, COLUMNS = LINE / (int)sizeof(T), ROWS = COLUMNS / 4 };

#ifdef __AVX512F__
/* Fours of a and b in turn. */
INLINE struct pair zip(vec a, vec b)
{
    if (sizeof(T) == 1)
        return pair_halves(a, b);
    return (struct pair){{VEC_PICK(a, b, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23),
                          VEC_PICK(a, b, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31)}};
}

/* Lines of elements of ROWS rows become lines of columns: the number of a line and of a four in it turn by a bit in each step. */
INLINE void transpose(vec *x)
{
    for (int step = 1; step < ROWS; step *= 2) {
        vec y[ROWS];
        for (int i = 0; i < ROWS / 2; i++) {
            struct pair p = zip(x[i], x[i + ROWS / 2]);
            y[2 * i] = p.v[0];
            y[2 * i + 1] = p.v[1];
        }
        memcpy(x, y, sizeof y);
    }
}
#else
INLINE void transpose(vec *x)
{
    T from[ROWS][ROWS][4], to[ROWS][ROWS][4];
    memcpy(from, x, sizeof from);
    for (int i = 0; i < ROWS; i++)
        for (int k = 0; k < ROWS; k++)
            memcpy(to[i][k], from[k][i], sizeof to[i][k]);
    memcpy(x, to, sizeof to);
}
#endif

INLINE vec load_line(const T *from, int64_t n)
{
    vec x = {0};
    if (n >= COLUMNS)
        memcpy(&x, from, sizeof x);
    else
        memcpy(&x, from, (size_t)n * sizeof *from);
    return x;
}

/* Four neighbours a time: places row + 32 i of a tile follow one another. */
static void interleave(const struct block_scale_interleave_args *a, T *out, const T *input, int64_t row, bool past_caches)
{
    int64_t fours = (a->blocks + 3) / 4;
    for (int64_t at = 0; at < a->blocks; at += COLUMNS) {
        vec x[ROWS];
        for (int i = 0; i < ROWS; i++) {
            int64_t r = row + i / 4 + i % 4 * 32;
            x[i] = r < a->rows ? load_line(input + r * a->row_stride + at, a->blocks - at) : (vec){0};
        }
        transpose(x);
        for (int i = 0; i < ROWS && at / 4 + i < fours; i++) {
            T *to = out + (at / 4 + i) * 512;
            if (past_caches)
                stream_bytes(to, &x[i], LINE);
            else
                memcpy(to, &x[i], LINE);
        }
    }
}

void block_scale_interleave_cpu(const struct block_scale_interleave_args *a, int part, int parts)
{
    int64_t rows = block_scale_rows(SCALES_128X4, a->rows), groups = rows / ROWS;
    int64_t size = block_scale_bytes(SCALES_128X4, a->rows, a->blocks), last = part_begin(a->matrices * groups, part + 1, parts);
    bool past_caches = (intptr_t)a->out % LINE == 0 && streams(a->matrices * size * (int)sizeof(T));
    for (int64_t i = part_begin(a->matrices * groups, part, parts); i < last; i++) {
        int64_t matrix = i / groups, row = i % groups / (128 / ROWS) * 128 + i % (128 / ROWS) * (ROWS / 4);
        interleave(a, (T *)a->out + matrix * size + block_scale_offset(SCALES_128X4, row, 0, a->blocks),
                   (const T *)a->input + matrix * a->matrix_stride, row, past_caches);
    }
    if (past_caches)
        stream_end();
}
