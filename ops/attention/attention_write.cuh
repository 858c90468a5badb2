/* SPDX-License-Identifier: Apache-2.0 */
/* Which rows a thread of batch_prefill_sm80 has, how blocks that divide their keys join them, and how they are written. */
#ifndef ATTENTION_WRITE_CUH
#define ATTENTION_WRITE_CUH

#include "attention_modes.cuh"
#include "cluster.cuh"

/* The first packed row of this thread in a band; the other is 8 below. */
DEVICE int row_of(const struct task &t, int band)
{
    return t.first_row + (threadIdx.x / 32 * BANDS + band) * 16 + threadIdx.x % 32 / 4;
}

/* Where a row's values go, NULL if the row does not exist, and what they are multiplied by. */
struct finished {
    O *to;
    float factor;
};

/* Each lane of a quad, which shares its rows, completes one of them. */
DEVICE struct finished finish_rows(const struct prefill &p, const struct task &t, const struct rows (&r)[BANDS])
{
    const struct attention_args &a = p.a;
    int mine = threadIdx.x % 4 % (2 * BANDS);
    float top = 0.0f, sum = 1.0f, lse;
#pragma unroll
    for (int n = 0; n < 2 * BANDS && !WITHOUT_SOFTMAX; n++) {
        top = n == mine ? r[n / 2].top[n % 2] : top;
        sum = n == mine ? r[n / 2].sum[n % 2] : sum;
    }
    struct row row = make_row(a, t, row_of(t, mine / 2) + 8 * (mine % 2));
    int64_t token = (a.modes.o_indptr ? a.modes.o_indptr[t.request] : t.first_q) + row.token;
    struct finished f = {(O *)a.out + token * a.out_token + row.head * a.out_head + t.column,
                         finish_row(a, top, sum, row.head, &lse)};
    if (row.token >= t.qo_len)
        f.to = NULL;
    else if (a.lse && t.column == 0 && threadIdx.x % 4 == mine)
        a.lse[token * a.lse_token + row.head * a.lse_head] = lse;
    return f;
}

DEVICE void write_rows(const struct prefill &p, const struct task &t, const struct rows (&r)[BANDS])
{
    struct finished mine = finish_rows(p, t, r);
    int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < 2 * BANDS; n++) {
        float factor = __shfl_sync(0xffffffffu, mine.factor, n, 4);
        O *to = (O *)__shfl_sync(0xffffffffu, (uint64_t)mine.to, n, 4);
        if (!to)
            continue;
        to += column;
#pragma unroll
        for (int i = 0; i < COLUMNS / 8; i++) {
            float x[2] = {r[n / 2].o[i][n % 2 * 2] * factor, r[n / 2].o[i][n % 2 * 2 + 1] * factor};
#pragma unroll
            for (int j = 0; HAS_OUTPUT && j < 2; j++) {
                struct row row = make_row(p.a, t, row_of(t, n / 2) + 8 * (n % 2));
                x[j] = hook_output(variant_of(p), x[j], place_of(t, row.token, 0, row.head, t.column + column + 8 * i + j));
            }
#if ALIGNED
            store(to + 8 * i, x);
#else
            from_float(to + 8 * i, x[0]);
            from_float(to + 8 * i + 1, x[1]);
#endif
        }
    }
}

#if PARTS > 1
enum { PART_ROW = COLUMNS + 8, QUADS = COLUMNS / 4 };
enum { ROUND = PARTS * THREADS / QUADS, ROUNDS_AT_ONCE = 8 / PARTS }; /* rows that a cluster joins at once */

/* In the shared memory of each block of a cluster. */
struct part {
    float o[TILE_Q][PART_ROW];
    float2 state[TILE_Q]; /* top, sum */
    O *to[TILE_Q];        /* as in finished */
    float factor[TILE_Q][PARTS];
};

/* How much each part counts in the row that this thread completes. */
DEVICE void weigh_parts(const struct prefill &p, const struct task &t, struct part *part)
{
    const struct attention_args &a = p.a;
    float2 state[PARTS];
    float top = -INFINITY, sum = 0.0f, factor[PARTS], lse;
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        cluster_load(state[i], cluster_address(&part->state[threadIdx.x], i));
        top = fmaxf(top, state[i].x);
    }
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        factor[i] = state[i].x == -INFINITY ? 0.0f : exp2_approx(state[i].x - top);
        sum += state[i].y * factor[i];
    }
    struct row row = make_row(a, t, t.first_row + threadIdx.x);
    int64_t token = (a.modes.o_indptr ? a.modes.o_indptr[t.request] : t.first_q) + row.token;
    bool exists = row.token < t.qo_len;
    float all = exists ? finish_row(a, top, sum, row.head, &lse) : 0.0f;
    part->to[threadIdx.x] = exists ? (O *)a.out + token * a.out_token + row.head * a.out_head : NULL;
#pragma unroll
    for (int i = 0; i < PARTS; i++)
        part->factor[threadIdx.x][i] = factor[i] * all;
    if (exists && a.lse && blockIdx.z == 0)
        a.lse[token * a.lse_token + row.head * a.lse_head] = lse;
}

/* Joins what the blocks of a cluster have of the same rows and writes it, each its share. */
DEVICE void write_parts(const struct prefill &p, const struct task &t, struct part *part, const struct rows (&r)[BANDS])
{
    static_assert(ALIGNED && THREADS == TILE_Q && THREADS % QUADS == 0 && !HAS_OUTPUT && !WITHOUT_SOFTMAX, "the host knows it");
    cp_async_commit(); /* queries of a part that has no keys */
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int n = 0; n < 2 * BANDS; n++) {
        int row = threadIdx.x / 32 * 16 * BANDS + 8 * n + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
        if (column == 0)
            part->state[row] = make_float2(r[n / 2].top[n % 2], r[n / 2].sum[n % 2]);
#pragma unroll
        for (int i = 0; i < COLUMNS / 8; i++)
            *(float2 *)&part->o[row][8 * i + column] = make_float2(r[n / 2].o[i][n % 2 * 2], r[n / 2].o[i][n % 2 * 2 + 1]);
    }
    cluster_sync();
    weigh_parts(p, t, part);
    __syncthreads();
    enum { EVEN = TILE_Q % (ROUND * ROUNDS_AT_ONCE) == 0 };
    int row = (blockIdx.z * THREADS + threadIdx.x) / QUADS, column = threadIdx.x % QUADS * 4;
    uint32_t from[PARTS];
#pragma unroll
    for (int i = 0; i < PARTS; i++)
        from[i] = cluster_address(&part->o[row][column], i);
#pragma unroll 1
    for (int first = row; first < TILE_Q; first += ROUND * ROUNDS_AT_ONCE) {
        float4 value[ROUNDS_AT_ONCE][PARTS];
        O *to[ROUNDS_AT_ONCE];
#pragma unroll
        for (int j = 0; j < ROUNDS_AT_ONCE; j++) {
            to[j] = EVEN || first + j * ROUND < TILE_Q ? part->to[first + j * ROUND] : NULL;
#pragma unroll
            for (int i = 0; i < PARTS && to[j]; i++) /* a load that nothing waits for would outlive the block that it reads */
                cluster_load(value[j][i], from[i] + j * ROUND * 4 * PART_ROW);
        }
#pragma unroll
        for (int j = 0; j < ROUNDS_AT_ONCE; j++) {
            float x[4] = {};
            if (!to[j])
                continue;
#pragma unroll
            for (int i = 0; i < PARTS; i++) {
                float factor = part->factor[first + j * ROUND][i];
                x[0] += value[j][i].x * factor;
                x[1] += value[j][i].y * factor;
                x[2] += value[j][i].z * factor;
                x[3] += value[j][i].w * factor;
            }
            store(to[j] + column, x);
        }
#pragma unroll
        for (int i = 0; i < PARTS; i++)
            from[i] += ROUND * ROUNDS_AT_ONCE * 4 * PART_ROW;
    }
    cluster_leave();
}
#endif

#endif
