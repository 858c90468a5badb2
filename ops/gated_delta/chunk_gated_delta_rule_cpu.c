/* SPDX-License-Identifier: Apache-2.0 */
/* chunk_gated_delta_rule on a CPU, 64 tokens at a time. A part has some columns of values of one state.
 *
 * With c the product of alpha from the chunk's beginning on, and S keys by values:
 *     A[t][s] = beta_t c_t/c_s k_t.k_s, s < t;   U solves (I + A) U = beta (V - c K S);
 *     output = scale (c Q S + (c_t/c_s q_t.k_s, s <= t) U);   S = c_end S + (c_end/c K)^T U
 *
 *   T        f16, bf16
 *   HEAD_DIM 64, 128 */
#include "gated_delta_cpu.h"

enum { CHUNK = GATED_DELTA_CHUNK, D = HEAD_DIM, TILE_ROWS = 4 };
#ifdef __AVX512F__
enum { MAX_VECS = 4 };
#else
enum { MAX_VECS = 1 };
#endif

#define MIN_LOG2 -64.0f /* a smaller alpha counts as 2^-64 */

struct chunk {
    float k[CHUNK][D], q[CHUNK][D];
    float k_columns[D][CHUNK]; /* k, transposed */
    float a[CHUNK][CHUNK], p[CHUNK][CHUNK];
    float u[CHUNK][D], o[CHUNK][D];
    float s[D][D]; /* keys by values, only the part's columns, side by side */
    float log2[CHUNK], beta[CHUNK], from_start[CHUNK], to_end[CHUNK];
};

/* c[i][.] += a[i][j] b[j][.] for TILE_ROWS rows and `vecs` times 16 columns; a's strides are given, rows of b and c are ldb and
 * ldc long. */
INLINE void tile(float *c, int64_t ldc, const float *a, int64_t row, int64_t column, const float *b, int64_t ldb, int inner,
                 const int vecs)
{
    lane_sums sum[TILE_ROWS][MAX_VECS];
    for (int i = 0; i < TILE_ROWS; i++)
        for (int v = 0; v < vecs; v++)
            lane_sums_begin(&sum[i][v], vec_load(c + i * ldc + v * LANES));
    for (int j = 0; j < inner; j++) {
        vec x[MAX_VECS];
        for (int v = 0; v < vecs; v++)
            x[v] = vec_load(b + j * ldb + v * LANES);
        for (int i = 0; i < TILE_ROWS; i++)
            for (int v = 0; v < vecs; v++)
                lane_sums_add(&sum[i][v], vec_set(a[i * row + j * column]), x[v]);
    }
    for (int i = 0; i < TILE_ROWS; i++)
        for (int v = 0; v < vecs; v++)
            vec_store(c + i * ldc + v * LANES, lane_sums_end(&sum[i][v]));
}

/* c += a b; rows is a multiple of 4, columns of 16. */
static void multiply(float *c, int64_t ldc, const float *a, int64_t row, int64_t column, const float *b, int64_t ldb, int rows,
                     int inner, int columns)
{
    for (int n = 0; n < columns; n += MAX_VECS * LANES)
        for (int i = 0; i < rows; i += TILE_ROWS) {
            float *to = c + i * ldc + n;
            const float *from = a + i * row;
            switch (MAX_VECS == 1 ? 1 : (columns - n) / LANES) {
            case 1:
                tile(to, ldc, from, row, column, b + n, ldb, inner, 1);
                break;
            case 2:
                tile(to, ldc, from, row, column, b + n, ldb, inner, 2);
                break;
            case 3:
                tile(to, ldc, from, row, column, b + n, ldb, inner, 3);
                break;
            default:
                tile(to, ldc, from, row, column, b + n, ldb, inner, 4);
                break;
            }
        }
}

/* Rows of q or k; those that the chunk has not are 0. */
static void load_rows(float (*to)[D], const struct head_rows *from, int64_t token, int64_t head, int length, int l2norm)
{
    const T *row = (const T *)from->data + token * from->token + head * from->head;
    memset(to, 0, sizeof(float) * CHUNK * D);
    for (int t = 0; t < length; t++, row += from->token) {
        vec sum = {0};
        for (int i = 0; i < D; i += LANES) {
            vec x = vec_load(row + i);
            sum += x * x;
            vec_store(&to[t][i], x);
        }
        float factor = l2norm ? 1.0f / sqrtf(vec_sum(sum) + 1e-6f) : 1.0f;
        for (int i = 0; l2norm && i < D; i += LANES)
            vec_store(&to[t][i], vec_load(&to[t][i]) * factor);
    }
}

/* Logarithms of alpha, summed from the chunk's beginning on, and what follows from them. */
static void load_gates(struct chunk *c, const struct gated_delta_args *a, int64_t token, int64_t head, int length)
{
    const float *alpha = a->alpha, *beta = a->beta;
    float sum = 0;
    for (int t = 0; t < CHUNK; t++) {
        float x = t < length && alpha ? log2f(alpha[(token + t) * a->alpha_token + head]) : 0.0f;
        sum += x < MIN_LOG2 ? MIN_LOG2 : x;
        c->log2[t] = sum;
        c->beta[t] = t >= length ? 0.0f : beta ? beta[(token + t) * a->beta_token + head] : 1.0f;
    }
    for (int t = 0; t < CHUNK; t += LANES) {
        vec_store(c->from_start + t, vec_exp2(vec_load(c->log2 + t)));
        vec_store(c->to_end + t, vec_exp2(sum - vec_load(c->log2 + t)));
    }
}

/* A and P, lower triangles; the rest is 0, also where k.k is NaN. */
static void decay(struct chunk *c, float scale)
{
    for (int t = 0; t < CHUNK; t++)
        for (int s = 0; s < CHUNK; s += LANES) {
            vec factor = vec_exp2(c->log2[t] - vec_load(c->log2 + s));
            vec_store(&c->a[t][s], vec_first(factor * c->beta[t] * vec_load(&c->a[t][s]), t - s));
            vec_store(&c->p[t][s], vec_first(factor * scale * vec_load(&c->p[t][s]), t + 1 - s));
        }
}

/* Transposes 16 keys of `columns` values between a state in memory and the part's columns. */
static void load_state(float (*s)[D], const struct state_pool *pool, int64_t row, int64_t head, int first, int columns)
{
    int64_t from = row * pool->row + head * pool->head;
    for (int v = 0; v < columns; v++)
        for (int k = 0; k < D; k += LANES) {
            vec x = state_load(pool, from + (first + v) * pool->line + k);
            for (int i = 0; i < LANES; i++)
                s[k + i][v] = x[i];
        }
}

static void store_state(float (*s)[D], const struct state_pool *pool, int64_t row, int64_t head, int first, int columns)
{
    int64_t to = row * pool->row + head * pool->head;
    for (int v = 0; v < columns; v++)
        for (int k = 0; k < D; k += LANES) {
            vec x;
            for (int i = 0; i < LANES; i++)
                x[i] = s[k + i][v];
            state_store(pool, to + (first + v) * pool->line + k, x);
        }
}

/* u = beta (V - c K S), then (I + A)^-1 of that, 16 rows after 16 rows. */
static void solve(struct chunk *c, const struct gated_delta_args *a, int64_t token, int64_t head, int length, int first,
                  int columns)
{
    const T *v = (const T *)a->v.data + token * a->v.token + head / a->v_group * a->v.head + first;
    memset(c->u, 0, sizeof c->u);
    multiply(c->u[0], D, c->k[0], D, 1, c->s[0], D, CHUNK, D, columns);
    for (int t = 0; t < CHUNK; t++)
        for (int i = 0; i < columns; i += LANES) {
            vec known = vec_load(&c->u[t][i]);
            vec_store(&c->u[t][i],
                      t < length ? c->beta[t] * (vec_load(v + t * a->v.token + i) - c->from_start[t] * known) : (vec){0});
        }
    for (int t = 0; t < CHUNK; t++)
        for (int s = 0; s < CHUNK; s++)
            c->a[t][s] = -c->a[t][s];
    for (int block = 0; block < length; block += LANES) {
        multiply(c->u[block], D, c->a[block], CHUNK, 1, c->u[0], D, LANES, block, columns);
        for (int t = block + 1; t < block + LANES; t++)
            for (int i = 0; i < columns; i += LANES) {
                vec x = vec_load(&c->u[t][i]);
                for (int s = block; s < t; s++)
                    x += c->a[t][s] * vec_load(&c->u[s][i]);
                vec_store(&c->u[t][i], x);
            }
    }
}

/* scale (c Q S + P U) */
static void write_output(struct chunk *c, const struct gated_delta_args *a, int64_t token, int64_t head, int length, int first,
                         int columns)
{
    T *to = (T *)a->output.data + token * a->output.token + head * a->output.head + first;
    memset(c->o, 0, sizeof c->o);
    multiply(c->o[0], D, c->q[0], D, 1, c->s[0], D, CHUNK, D, columns);
    for (int t = 0; t < CHUNK; t++)
        for (int i = 0; i < columns; i += LANES)
            vec_store(&c->o[t][i], vec_load(&c->o[t][i]) * (a->scale * c->from_start[t]));
    multiply(c->o[0], D, c->p[0], CHUNK, 1, c->u[0], D, CHUNK, CHUNK, columns);
    for (int t = 0; t < length; t++)
        for (int i = 0; i < columns; i += LANES)
            vec_store(to + t * a->output.token + i, vec_load(&c->o[t][i]));
}

static void update_state(struct chunk *c, int columns)
{
    float end = c->from_start[CHUNK - 1];
    for (int k = 0; k < D; k++) {
        for (int i = 0; i < columns; i += LANES)
            vec_store(&c->s[k][i], vec_load(&c->s[k][i]) * end);
        for (int t = 0; t < CHUNK; t += LANES)
            vec_store(&c->k_columns[k][t], vec_load(&c->k_columns[k][t]) * vec_load(c->to_end + t));
    }
    multiply(c->s[0], D, c->k_columns[0], CHUNK, 1, c->u[0], D, D, CHUNK, columns);
}

static void take_chunk(struct chunk *c, const struct gated_delta_args *a, int64_t token, int64_t head, int length, int first,
                       int columns)
{
    load_rows(c->k, &a->k, token, head / a->k_group, length, a->l2norm);
    load_rows(c->q, &a->q, token, head / a->q_group, length, a->l2norm);
    load_gates(c, a, token, head, length);
    for (int t = 0; t < CHUNK; t++)
        for (int k = 0; k < D; k++)
            c->k_columns[k][t] = c->k[t][k];
    memset(c->a, 0, sizeof c->a);
    memset(c->p, 0, sizeof c->p);
    multiply(c->a[0], CHUNK, c->k[0], D, 1, c->k_columns[0], CHUNK, CHUNK, D, CHUNK);
    multiply(c->p[0], CHUNK, c->q[0], D, 1, c->k_columns[0], CHUNK, CHUNK, D, CHUNK);
    decay(c, a->scale);
    solve(c, a, token, head, length, first, columns);
    write_output(c, a, token, head, length, first, columns);
    update_state(c, columns);
}

void chunk_gated_delta_rule_cpu(const struct gated_delta_args *a, int part, int parts)
{
    int slices = (int)(parts / (a->num_sequences * a->num_heads)), columns = D / slices, first = part % slices * columns;
    int64_t head = part / slices % a->num_heads, sequence = part / slices / a->num_heads;
    int64_t begin = sequence_begin(a, sequence), end = sequence_begin(a, sequence + 1),
            row = state_row(a->initial_rows, sequence);
    struct chunk c;
    memset(c.s, 0, sizeof c.s);
    if (a->initial.data && row >= 0)
        load_state(c.s, &a->initial, row, head, first, columns);
    for (int64_t token = begin; token < end; token += CHUNK) {
        take_chunk(&c, a, token, head, end - token < CHUNK ? (int)(end - token) : CHUNK, first, columns);
        int64_t done = token + CHUNK - begin;
        if (a->kept.data && done <= end - begin && done % a->kept_every == 0) {
            int64_t kept = index_at(&a->kept_starts, sequence) + done / a->kept_every - 1;
            if (kept < index_at(&a->kept_starts, sequence + 1))
                store_state(c.s, &a->kept, kept, head, first, columns);
        }
    }
    row = state_row(a->final_rows, sequence);
    if (a->final.data && row >= 0)
        store_state(c.s, &a->final, row, head, first, columns);
}
