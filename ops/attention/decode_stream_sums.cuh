/* SPDX-License-Identifier: Apache-2.0 */
/* What batch_decode_stream_ has of a pair's rows, and how it is added up: results of the streams of a team, in their stages, and
 * parts in the workspace. What comes of it is written as another part, or as the end of the rows. */
#ifndef DECODE_STREAM_SUMS_CUH
#define DECODE_STREAM_SUMS_CUH

#include "decode_stream_load.cuh"

enum { BATCH = ROW_TILES < 4 ? 8 : 2 }; /* of terms, added at a time */
enum { RESULTS = ROWS / 8 * DIM_STEPS }; /* of results: 8 rows by 16 dimensions, in order; a lane has a quarter of a row */
enum { SIDE = DIM_STEPS % 2 == 0 ? 2 : 1 }; /* of them a warp adds side by side */
enum { ROUND_BYTES = 32 * HEAD_DIM, AT_ONCE = STAGE_BYTES / ROUND_BYTES, ROUND = AT_ONCE < ROW_TILES ? AT_ONCE : ROW_TILES };

/* Rows after some of their tokens. Whole lines of 128 bytes, so that no cache holds old neighbours. */
struct __align__(128) part {
    unsigned long long mark, unused;
    float2 state[ROWS]; /* top, sum */
    float4 o[RESULTS][32];
};
static_assert(sizeof(struct part) == ATTENTION_STREAM_PART_BYTES(ROWS, HEAD_DIM), "the host counts on it");
static_assert(ROUND >= 1 && ROW_TILES % ROUND == 0, "a free stage holds the results of some rows");

/* What warps tell each other about their results. */
struct __align__(16) exchange {
    float2 state[WARPS][8 * ROW_TILES]; /* top, sum */
    float4 *o[WARPS];
    bool last; /* all parts have been left */
};

/* What a lane has of SIDE blocks of the same row while they are added up. */
struct blend {
    float2 state; /* top, sum */
    float4 o[SIDE];
};

DEVICE float base_of(float top) { return top == -INFINITY ? 0.0f : top; }

/* Makes weights relative to `peak`, which the top is not above; of -inf weights are 0 all the same. */
DEVICE float move_base(struct blend &b, float peak)
{
    float base = base_of(peak), x = exp2_approx(b.state.x - base);
    b.state = make_float2(peak, b.state.y * x);
#pragma unroll
    for (int j = 0; j < SIDE; j++)
        b.o[j] = make_float4(b.o[j].x * x, b.o[j].y * x, b.o[j].z * x, b.o[j].w * x);
    return base;
}

/* Adds nothing if there is no such term. */
DEVICE void add_term(struct blend &b, float base, float2 state, const float4 (&o)[SIDE], bool exists)
{
    float x = exists ? exp2_approx(state.x - base) : 0.0f;
    b.state.y += state.y * x;
#pragma unroll
    for (int j = 0; j < SIDE; j++)
        b.o[j] = make_float4(b.o[j].x + o[j].x * x, b.o[j].y + o[j].y * x, b.o[j].z + o[j].z * x, b.o[j].w + o[j].w * x);
}

/* Rows of a pair, where a task's results belong. */
struct target {
    int kv_head, first_q;
    int first, end; /* as in row_range */
};

/* How a row ends, and where it lies; NULL: it does not exist. */
struct end {
    float factor;
    T *to;
    int side; /* of the heads that lie side by side */
};

DEVICE struct end find_end(const struct attention_args &a, const struct target &t, int row, bool writes_lse, float2 state)
{
    int token = divide(row, a.by_group), of_group = row - token * a.group, head = t.kv_head * a.group + of_group;
    if (row >= t.end)
        return {0.0f, NULL, 0};
    float lse, factor = finish_row(a, state.x, state.y, head, &lse);
    int side = side_of(a, of_group);
    token += t.first_q;
    if (a.lse && writes_lse && threadIdx.x % 4 == 0)
        a.lse[token * a.lse_token + head * a.lse_head] = lse;
    return {factor, (T *)a.out + (token * a.out_token + head * a.out_head - side * (HEAD_DIM / 2)), side};
}

DEVICE void write_row(const struct end &end, int step, const struct blend &b)
{
    T *to = end.to + 16 * step + threadIdx.x % 4 * 4;
    if (!end.to || (HEADS == 2 && step / (DIM_STEPS / 2) != end.side))
        return;
#pragma unroll
    for (int j = 0; j < SIDE; j++) {
        float x[4] = {b.o[j].x * end.factor, b.o[j].y * end.factor, b.o[j].z * end.factor, b.o[j].w * end.factor};
#if ALIGNED
        store(to + 16 * j, x);
#else
#pragma unroll
        for (int i = 0; i < 4; i++)
            from_float(to + 16 * j + i, x[i]);
#endif
    }
}

/* What is added. If `streams`: what they have, of which each warp leaves some groups of rows in its free stage. Then parts, in
 * order: `first`, then count - 1 more from `rest` on, `step` bytes apart; the sum of the streams is left in one of them,
 * `own`. */
struct terms {
    bool streams;
    int group; /* streams: the first group of rows of each warp */
    struct part *first, *rest;
    int step, count;
    struct part *own;
};

DEVICE void clear(struct blend &b, float top)
{
    b.state = make_float2(top, 0.0f);
#pragma unroll
    for (int j = 0; j < SIDE; j++)
        b.o[j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

/* In a stage, where a quarter of a row of a block lies, so that neither who leaves results nor who adds them has bank
 * conflicts. */
DEVICE int place_of(int row, int quarter) { return (row ^ row >> 2) * 4 + (quarter ^ (row & 2)); }

/* The streams of a team. `row` is a row of the warps' results, `at` where its blocks are in their stages. */
DEVICE void add_streams(struct blend &b, const struct exchange &e, const struct division &d, int row_warp, int row, int at)
{
    int lane = threadIdx.x % 32, streams = QUERIES_SHARED ? STREAMS : d.streams, first = d.team * streams * ROW_WARPS + row_warp;
    int place = place_of(lane / 4, lane % 4);
    float2 state[STREAMS];
    float4 o[STREAMS][SIDE];
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < STREAMS; i++) {
        int warp = first + min(i, streams - 1) * ROW_WARPS;
        state[i] = e.state[warp][row];
#pragma unroll
        for (int j = 0; j < SIDE; j++)
            o[i][j] = e.o[warp][(at + j) * 32 + place];
        top = fmaxf(top, state[i].x);
    }
    float base = base_of(top);
    clear(b, top);
#pragma unroll
    for (int i = 0; i < STREAMS; i++)
        add_term(b, base, state[i], o[i], i < streams);
}

DEVICE void leave_blend(const struct blend &b, struct part *to, int row, int at)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < SIDE; j++)
        to->o[at + j][lane] = b.o[j];
    if (lane % 4 == 0)
        to->state[row] = b.state;
}

/* All loads of some terms are on their way before one is waited for. */
DEVICE void add_parts(struct blend &b, const struct terms &terms, int row, int at)
{
    int lane = threadIdx.x % 32, last = terms.count - 2;
    const char *states = (const char *)&terms.rest->state[row], *results = (const char *)&terms.rest->o[at][lane];
    b.state = terms.first->state[row];
#pragma unroll
    for (int j = 0; j < SIDE; j++)
        b.o[j] = terms.first->o[at + j][lane];
#pragma unroll 1
    for (int first = 0; first <= last; first += BATCH) {
        float2 state[BATCH];
        float4 o[BATCH][SIDE];
        float peak = b.state.x;
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int64_t away = (int64_t)min(first + i, last) * terms.step;
            state[i] = *(const float2 *)(states + away);
#pragma unroll
            for (int j = 0; j < SIDE; j++)
                o[i][j] = ((const float4 *)(results + away))[32 * j];
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++)
            peak = fmaxf(peak, state[i].x);
        float base = move_base(b, peak);
#pragma unroll
        for (int i = 0; i < BATCH; i++)
            add_term(b, base, state[i], o[i], first + i <= last);
    }
}

/* Leaves sums in `to`, or finished rows if it is NULL. A single stream's warps have those of their own rows. */
DEVICE void add(const struct attention_args &a, const struct division &d, const struct target &t, const struct exchange &e,
                const struct terms &terms, struct part *to)
{
    enum { OF_WARP = ROUND * DIM_STEPS };
    int warp = threadIdx.x / 32 % (d.streams * ROW_WARPS), lane = threadIdx.x % 32;
    int begin = d.alone ? warp * OF_WARP : warp * SIDE, stride = d.alone ? SIDE : d.streams * ROW_WARPS * SIDE;
    int end = d.alone ? begin + OF_WARP : terms.streams ? ROW_WARPS * OF_WARP : RESULTS;
    struct end own;
    int ended = -1;
#pragma unroll 1
    for (int i = begin; i < end; i += stride) {
        int step = i % DIM_STEPS, eight = i / DIM_STEPS, row_warp = eight / ROUND, in_stage = eight % ROUND;
        if (terms.streams)
            eight = row_warp * ROW_TILES + terms.group + in_stage;
        if (t.first + 8 * eight >= t.end)
            continue;
        int row = 8 * eight + lane / 4, at = eight * DIM_STEPS + step;
        int row_of_warp = row - 8 * ROW_TILES * row_warp, at_of_warp = in_stage * DIM_STEPS + step;
        struct blend b;
        if (terms.streams)
            add_streams(b, e, d, row_warp, row_of_warp, at_of_warp);
        if (terms.count) {
            if (terms.streams)
                leave_blend(b, terms.own, row, at);
            __syncwarp();
            add_parts(b, terms, row, at);
        }
        if (!to) {
            if (ended != eight)
                own = find_end(a, t, t.first + row, step == 0, b.state);
            ended = eight;
            write_row(own, step, b);
            continue;
        }
        leave_blend(b, to, row, at);
    }
}

/* Leaves groups of rows from `first` on in the free stage, for the other warps to add. */
DEVICE void leave_results(const struct rows &r, float4 *stage, int first)
{
    enum { SECOND = NARROW ? 1 : 8 }; /* dimension of a lane, from its first one */
    int g = threadIdx.x % 32 / 4, first_dim = NARROW ? 2 * g : g;
    int place = place_of(threadIdx.x % 4 * 2, first_dim / 4) * 4 + first_dim % 4;
    float *to[4] = {(float *)stage + place, (float *)stage + (place ^ 16), (float *)stage + (place ^ SECOND),
                    (float *)stage + (place ^ 16 ^ SECOND)};
    __syncwarp();
#pragma unroll
    for (int n = 0; n < ROW_TILES; n++) {
        if (n / ROUND != first / ROUND)
            continue;
#pragma unroll
        for (int k = 0; k < DIM_STEPS; k++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                to[j][(n % ROUND * DIM_STEPS + k) * 128] = r.o[n][k][j];
    }
}

DEVICE void leave_sums(struct rows &r, struct exchange &e, float4 *stage)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    complete_sums(r);
    e.o[warp] = stage;
    if (lane < 4) {
#pragma unroll
        for (int n = 0; n < ROW_TILES; n++)
            *(float4 *)&e.state[warp][8 * n + 2 * lane] = make_float4(r.top[n][0], r.sum[n][0], r.top[n][1], r.sum[n][1]);
    }
}

#endif
