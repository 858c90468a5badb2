/* SPDX-License-Identifier: Apache-2.0 */
/* mm on a CPU with few rows of a: out[m][n] = dot(a[m], b[n]) + bias[n] where each column of b is contiguous.
 *
 * What limits it is reading b from memory, which is fastest in one sequential stream per thread: the first
 * four rows of a meet one column of b at a time, in the order of addresses; further rows meet four columns at
 * a time, which the caches then hold. So do the first four if k is so long that they do not stay in the first
 * cache. Every sum is spread over the lanes of a vec along k, in an order that depends neither on m, n nor on
 * the parts. A part takes a range of columns, sixteen at a time.
 *
 *   T    f16, bf16
 *   OUT  f16, bf16, f32 */
#include <stdbool.h>

#include "dot.h"
#include "mm_args.h"

enum { STEP = DOT_STEP(T), MAX_ROWS = 4, LONG = 2048, AHEAD = 8192 / sizeof(T) };

/* Elements at .. k - 1, fewer than a step, in places that depend on k only. */
INLINE vec load_rest(const T *x, int64_t at, int64_t k)
{
    return at ? dot_load_last(T, x + k, k - at) : dot_load_n(T, x, k);
}

/* all[i * columns + j] = the lanes of dot(a[row + i], b[column + j]); what lies outside repeats the last row
 * or column. */
INLINE void dots(vec *all, const struct mm_args *p, int64_t row, const int rows, int64_t column, const int columns)
{
    lane_sums sum[LANES];
    const T *a[MAX_ROWS], *b[MAX_ROWS];
    for (int i = 0; i < rows; i++)
        a[i] = (const T *)p->a + (row + i < p->m ? row + i : p->m - 1) * p->a_stride;
    for (int j = 0; j < columns; j++)
        b[j] = (const T *)p->b + (column + j < p->n ? column + j : p->n - 1) * p->b_n_stride;
    for (int i = 0; i < rows * columns; i++)
        lane_sums_begin(&sum[i], (vec){0});

    int64_t at = 0;
    for (; at + STEP <= p->k; at += STEP) {
        vec x[MAX_ROWS];
        for (int i = 0; i < rows; i++)
            x[i] = dot_load(T, a[i] + at);
        for (int j = 0; j < columns; j++) {
            vec y = dot_load(T, b[j] + at);
            if (rows == MAX_ROWS && columns == 1) /* with fewer rows the machine keeps up by itself */
                __builtin_prefetch(b[j] + at + AHEAD, 0, 2);
            for (int i = 0; i < rows; i++)
                dot_add(T, &sum[i * columns + j], x[i], y);
        }
    }
    if (at < p->k) {
        vec x[MAX_ROWS];
        for (int i = 0; i < rows; i++)
            x[i] = load_rest(a[i], at, p->k);
        for (int j = 0; j < columns; j++) {
            vec y = load_rest(b[j], at, p->k);
            for (int i = 0; i < rows; i++)
                dot_add(T, &sum[i * columns + j], x[i], y);
        }
    }
    for (int i = 0; i < rows * columns; i++)
        all[i] = lane_sums_end(&sum[i]);
}

/* Writes the outputs of `rows` rows and LANES / rows columns, whose sums stand in that order. */
INLINE void store(const vec sum[LANES], const struct mm_args *p, int64_t row, const int rows, int64_t column)
{
    const int columns = LANES / rows;
    int64_t width = p->n - column < columns ? p->n - column : columns;
    vec y = vec_sums(sum);
    if (p->bias) {
        T bias[LANES] = {0};
        for (int i = 0; i < rows; i++)
            memcpy(bias + i * columns, (const T *)p->bias + column, (size_t)width * sizeof *bias);
        y += vec_load(bias);
    }
    OUT result[LANES];
    vec_store(result, y);
    OUT *out = (OUT *)p->out + row * p->out_stride + column;
    for (int i = 0; i < rows && row + i < p->m; i++, out += p->out_stride)
        if (width == columns)
            memcpy(out, result + i * columns, (size_t)columns * sizeof *out);
        else
            memcpy(out, result + i * columns, (size_t)width * sizeof *out);
}

/* `rows` rows of a from `row` on with LANES columns of b, column by column or all that are stored together. */
INLINE void sixteen_columns(const struct mm_args *p, int64_t row, const int rows, int64_t column, bool one_by_one)
{
    const int columns = LANES / rows;
    for (int64_t end = column + LANES; column < end && column < p->n; column += columns) {
        vec sum[LANES];
        if (rows == MAX_ROWS && !one_by_one) {
            dots(sum, p, row, rows, column, columns);
        } else {
            for (int j = 0; j < columns; j++) {
                vec one[MAX_ROWS];
                dots(one, p, row, rows, column + j, 1);
                for (int i = 0; i < rows; i++)
                    sum[i * columns + j] = one[i];
            }
        }
        store(sum, p, row, rows, column);
    }
}

void mm_small_m_cpu(const struct mm_args *p, int part, int parts)
{
    int64_t groups = (p->n + LANES - 1) / LANES;
    for (int64_t group = part_begin(groups, part, parts); group < part_begin(groups, part + 1, parts); group++) {
        int64_t column = group * LANES;
        if (p->m == 1)
            sixteen_columns(p, 0, 1, column, true);
        else if (p->m == 2)
            sixteen_columns(p, 0, 2, column, true);
        else
            for (int64_t row = 0; row < p->m; row += MAX_ROWS)
                sixteen_columns(p, row, MAX_ROWS, column, row == 0 && p->k <= LONG);
    }
}
