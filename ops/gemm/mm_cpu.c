/* SPDX-License-Identifier: Apache-2.0 */
/* mm on a CPU: out[m][n] = sum over k of a[m][k] * b[k][n], + bias[n], for any strides of b.
 *
 * A part takes a block of rows and a range of panels of COLUMNS columns. It goes through k in pieces of DEPTH
 * units (dot.h): packs that piece of b so that sixteen neighbouring columns make a vec for each unit, then
 * takes up to ROWS rows of a at a time, each unit of which meets all columns in registers, while the piece of b
 * that comes next is fetched. Pairs are read from a as they lie; where units are floats a is packed too. Where k
 * is longer than one piece the sums wait in `sums`. An output's bits depend on its row of a and its column of b
 * only.
 *
 *   T    f16, bf16
 *   OUT  f16, bf16, f32 */
#include <stdbool.h>

#include "dot.h"
#include "mm_args.h"

#ifdef __AVX512F__
enum { ROWS = 8, VECS = 3 };
#else
enum { ROWS = 4, VECS = 1 };
#endif
enum { COLUMNS = MM_CPU_COLUMNS, DEPTH = 384, UNIT = DOT_UNIT(T), PIECE = DEPTH * UNIT };

struct packed {
    uint32_t b[COLUMNS / LANES][DEPTH][LANES];
    uint32_t a[ROWS][DEPTH + LANES]; /* no power of two, which would put the rows in the same sets of the cache */
    float sums[MM_CPU_ROWS][COLUMNS];
} __attribute__((aligned(64)));

/* Sixteen columns of b from `b` on, of which `columns` exist, and `depth` elements of k: any strides. Missing
 * columns and the end of the last vec are zero. */
static void pack_columns(uint32_t (*packed)[LANES], const T *b, const struct mm_args *p, int64_t columns,
                         int64_t depth)
{
    for (int64_t at = 0; at < depth; at += DOT_STEP(T)) {
        vec x[LANES];
        for (int i = 0; i < LANES; i++) {
            const T *column = b + i * p->b_n_stride + at * p->b_k_stride;
            int64_t count = i < columns ? depth - at : 0;
            T gathered[DOT_STEP(T)];
            if (p->b_k_stride != 1) {
                for (int64_t l = 0; l < count && l < DOT_STEP(T); l++)
                    gathered[l] = column[l * p->b_k_stride];
                column = gathered;
            }
            x[i] = dot_load_n(T, column, count);
        }
        vec_transpose(x);
        memcpy(packed[at / UNIT], x, sizeof x);
    }
}

/* The same where b's rows are contiguous and all sixteen columns exist. */
static void pack_rows(uint32_t (*packed)[LANES], const T *b, const struct mm_args *p, int64_t depth)
{
    static const T zeros[LANES];
    for (int64_t at = 0; at < depth; at += UNIT, packed++) {
        vec x = dot_pack(T, b + at * p->b_k_stride, at + 1 < depth ? b + (at + 1) * p->b_k_stride : zeros);
        memcpy(packed, &x, sizeof x);
    }
}

/* Fetches slice `slice` of `slices` of the columns column .. column + 47 of b, k from `from`, if columns are
 * contiguous. Inlined, for GCC drops calls of a function that only prefetches. */
INLINE void prefetch_b(const struct mm_args *p, int64_t from, int64_t column, int slice, int slices)
{
    enum { LINE = 64 / sizeof(T) };
    int64_t depth = p->k - from < PIECE ? p->k - from : PIECE;
    for (int64_t i = part_begin(COLUMNS, slice, slices); i < part_begin(COLUMNS, slice + 1, slices); i++)
        for (int64_t at = 0; at < depth && column + i < p->n && p->b_k_stride == 1; at += LINE)
            __builtin_prefetch((const T *)p->b + (column + i) * p->b_n_stride + from + at, 0, 2);
}

/* Columns column .. column + 47 of b, k from `from`. `fetched`: they are in a cache; else they are fetched in the
 * order of their addresses before they are read in another. */
static void pack_b(struct packed *s, const struct mm_args *p, int64_t from, int64_t depth, int64_t column,
                   bool fetched)
{
    for (int j = 0; j < COLUMNS / LANES; j++) {
        const T *b = (const T *)p->b + from * p->b_k_stride + (column + j * LANES) * p->b_n_stride;
        int64_t columns = p->n - column - j * LANES;
        if (!fetched)
            prefetch_b(p, from, column, j, COLUMNS / LANES);
        if (p->b_k_stride != 1 && p->b_n_stride == 1 && columns >= LANES)
            pack_rows(s->b[j], b, p, depth);
        else
            pack_columns(s->b[j], b, p, columns, depth);
    }
}

/* ROWS or fewer rows of a in a piece of k, and where their sums go. */
struct tile {
    int rows;
    const char *a;          /* units */
    int64_t a_stride;       /* between rows, in bytes */
    int64_t units;
    int64_t row, column;    /* of out */
    float (*sums)[COLUMNS]; /* what earlier pieces left, for later ones */
    bool first, last;       /* piece */
};

/* Lets the tile read pairs where they lie, or packs the rows. */
static void take_a(struct tile *t, struct packed *s, const struct mm_args *p, int64_t from, int64_t depth)
{
    const T *a = (const T *)p->a + t->row * p->a_stride + from;
    bool in_place = UNIT == 2 && depth % 2 == 0;
    t->a = in_place ? (const char *)a : (const char *)s->a;
    t->a_stride = in_place ? p->a_stride * (int64_t)sizeof *a : (int64_t)sizeof s->a[0];
    for (int i = 0; i < t->rows && !in_place; i++, a += p->a_stride)
        for (int64_t at = 0; at < depth; at += DOT_STEP(T)) {
            vec x = dot_load_n(T, a + at, depth - at);
            memcpy(&s->a[i][at / UNIT], &x, sizeof x);
        }
}

/* Multiplies a tile by VECS vecs of columns from `j` on. */
INLINE void multiply(const struct packed *s, const struct mm_args *p, const struct tile *t, const int rows, int j)
{
    lane_sums sum[ROWS][VECS];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < VECS; v++)
            lane_sums_begin(&sum[i][v], t->first ? (vec){0} : vec_load(&t->sums[i][(j + v) * LANES]));
    for (int64_t unit = 0; unit < t->units; unit++) {
        vec y[VECS];
        for (int v = 0; v < VECS; v++)
            memcpy(&y[v], s->b[j + v][unit], sizeof y[v]);
        for (int i = 0; i < rows; i++) {
            vec x = dot_broadcast(t->a + i * t->a_stride + unit * (int64_t)sizeof(uint32_t));
            for (int v = 0; v < VECS; v++)
                dot_add(T, &sum[i][v], x, y[v]);
        }
    }
    for (int v = 0; v < VECS; v++) {
        int64_t at = t->column + (j + v) * LANES, left = p->n - at;
        vec bias = p->bias && left > 0 ? vec_load_n((const T *)p->bias + at, left) : (vec){0};
        for (int i = 0; i < rows; i++)
            if (!t->last)
                vec_store(&t->sums[i][(j + v) * LANES], lane_sums_end(&sum[i][v]));
            else if (left > 0)
                vec_store_n((OUT *)p->out + (t->row + i) * p->out_stride + at, lane_sums_end(&sum[i][v]) + bias, left);
    }
}

/* Few sizes keep the compiler quick. */
static int tile_rows(int64_t left) { return left >= ROWS ? ROWS : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

static void multiply_rows(const struct packed *s, const struct mm_args *p, const struct tile *t)
{
    for (int j = 0; j < COLUMNS / LANES; j += VECS)
        if (t->rows == ROWS)
            multiply(s, p, t, ROWS, j);
        else if (t->rows == 4)
            multiply(s, p, t, 4, j);
        else if (t->rows == 2)
            multiply(s, p, t, 2, j);
        else
            multiply(s, p, t, 1, j);
}

/* Rows row .. row + rows - 1 of the columns column .. column + 47, of a part with the columns begin .. end - 1. */
static void panel(struct packed *s, const struct mm_args *p, int64_t row, int64_t rows, int64_t column, int64_t begin,
                  int64_t end)
{
    int tiles = (int)(rows / ROWS) + __builtin_popcount((unsigned)(rows % ROWS));
    for (int64_t from = 0; from == 0 || from < p->k; from += PIECE) {
        int64_t depth = p->k - from < PIECE ? p->k - from : PIECE, units = (depth + UNIT - 1) / UNIT;
        bool last = from + PIECE >= p->k;
        int64_t next_from = last ? 0 : from + PIECE, next_column = last ? column + COLUMNS : column;
        pack_b(s, p, from, depth, column, column > begin || from > 0);
        struct tile tile = {.units = units, .row = row, .column = column, .sums = s->sums, .first = from == 0,
                            .last = last};
        for (int i = 0; i < tiles; i++, tile.row += tile.rows, tile.sums += tile.rows) {
            tile.rows = tile_rows(row + rows - tile.row);
            if (next_column < end)
                prefetch_b(p, next_from, next_column, i, tiles);
            take_a(&tile, s, p, from, depth);
            multiply_rows(s, p, &tile);
        }
    }
}

void mm_cpu(const struct mm_args *p, int part, int parts)
{
    int blocks = (int)((p->m + MM_CPU_ROWS - 1) / MM_CPU_ROWS), block = part % blocks;
    int64_t row = part_begin(p->m, block, blocks), rows = part_begin(p->m, block + 1, blocks) - row;
    int64_t panels = (p->n + COLUMNS - 1) / COLUMNS;
    int64_t begin = part_begin(panels, part / blocks, parts / blocks) * COLUMNS;
    int64_t end = part_begin(panels, part / blocks + 1, parts / blocks) * COLUMNS;
    struct packed s;
    for (int64_t column = begin; column < end; column += COLUMNS)
        panel(&s, p, row, rows, column, begin, end);
}
