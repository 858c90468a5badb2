/* SPDX-License-Identifier: Apache-2.0 */
/* What batch_decode_stream_ has of a pair's rows, and how it is added up: results of the streams of a team, in their stages, and
 * parts in the workspace. What comes of it is written as another part, or as the end of the rows. */
#ifndef DECODE_STREAM_SUMS_CUH
#define DECODE_STREAM_SUMS_CUH

#include "decode_stream_load.cuh"

enum { BATCH = ROW_TILES < 4 ? 8 : 2 }; /* of terms, added at a time */
enum { RESULTS = ROWS / 8 * DIM_STEPS }; /* of results: 8 rows by 16 dimensions, in order */
enum { SIDE = DIM_STEPS % 2 == 0 && ROW_TILES < 4 ? 2 : 1 }; /* of them a warp adds side by side */
enum { ROUND_BYTES = 32 * HEAD_DIM, AT_ONCE = STAGE_BYTES / ROUND_BYTES, ROUND = AT_ONCE < ROW_TILES ? AT_ONCE : ROW_TILES };

/* Rows after some of their tokens. Whole lines of 128 bytes, so that no cache holds old neighbours. */
struct __align__(128) part {
    unsigned long long mark, unused;
    float top[ROWS], sum[ROWS];
    float4 o[RESULTS][32];
};
static_assert(sizeof(struct part) == ATTENTION_STREAM_PART_BYTES(ROWS, HEAD_DIM), "the host counts on it");
static_assert(ROUND >= 1 && ROW_TILES % ROUND == 0, "a free stage holds the results of some rows");

/* What warps tell each other about their results. */
struct exchange {
    float top[WARPS][8 * ROW_TILES], sum[WARPS][8 * ROW_TILES];
    float4 *o[WARPS];
    bool last; /* all parts have been left */
};

/* What a lane has of SIDE blocks of the same rows while they are added up: rows 2t and 2t + 1. */
struct blend {
    float2 top, sum;
    float4 o[SIDE];
};

DEVICE float base_of(float top) { return top == -INFINITY ? 0.0f : top; }

/* Makes weights relative to `peak`, which no top is above; of -inf weights are 0 all the same. */
DEVICE float2 move_base(struct blend &b, float2 peak)
{
    float2 base = make_float2(base_of(peak.x), base_of(peak.y));
    float x = exp2_approx(b.top.x - base.x), y = exp2_approx(b.top.y - base.y);
    b.top = peak;
    b.sum = make_float2(b.sum.x * x, b.sum.y * y);
#pragma unroll
    for (int j = 0; j < SIDE; j++)
        b.o[j] = make_float4(b.o[j].x * x, b.o[j].y * y, b.o[j].z * x, b.o[j].w * y);
    return base;
}

DEVICE void add_term(struct blend &b, float2 base, float2 top, float2 sum, const float4 (&o)[SIDE])
{
    float x = exp2_approx(top.x - base.x), y = exp2_approx(top.y - base.y);
    b.sum = make_float2(b.sum.x + sum.x * x, b.sum.y + sum.y * y);
#pragma unroll
    for (int j = 0; j < SIDE; j++)
        b.o[j] = make_float4(b.o[j].x + o[j].x * x, b.o[j].y + o[j].y * y, b.o[j].z + o[j].z * x, b.o[j].w + o[j].w * y);
}

/* Rows of a pair, where a task's results belong. */
struct target {
    int kv_head, first_q;
    int first, end; /* as in row_range */
};

/* How rows 2t and 2t + 1 of eight end, and where they lie. */
struct ends {
    float factor[2];
    int64_t out[2];
    int side[2]; /* of the heads that lie side by side */
};

/* `row` is row 2t. Of lanes side by side, one finds what belongs to it, the other what belongs to the next one. */
DEVICE void find_ends(const struct attention_args &a, const struct target &t, int row, bool writes_lse, const struct blend &b,
                      struct ends &ends)
{
    int lane = threadIdx.x % 32, g = lane / 4, odd = g % 2;
    int own = row + odd, token = divide(own, a.by_group), head = t.kv_head * a.group + own - token * a.group;
    bool exists = own < t.end;
    float lse, factor = finish_row(a, odd ? b.top.y : b.top.x, odd ? b.sum.y : b.sum.x, exists ? head : 0, &lse);
    int side = side_of(a, own - token * a.group);
    int64_t out = (t.first_q + token) * a.out_token + head * a.out_head - side * (HEAD_DIM / 2);
    if (a.lse && writes_lse && g < 2 && exists)
        a.lse[(t.first_q + token) * a.lse_token + head * a.lse_head] = lse;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int from = lane % 4 + 4 * j;
        ends.factor[j] = __shfl_sync(0xffffffffu, factor, from);
        ends.out[j] = __shfl_sync(0xffffffffu, out, from);
        ends.side[j] = HEADS == 1 ? 0 : __shfl_sync(0xffffffffu, side, from);
    }
}

/* Of which `exist` are rows. */
DEVICE void write_rows(const struct attention_args &a, const struct ends &ends, int exist, int step, const struct blend &b)
{
    int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        T *to = (T *)a.out + ends.out[j] + 16 * step + (NARROW ? 2 * g : g);
#pragma unroll
        for (int i = 0; i < SIDE && j < exist && (HEADS == 1 || step / (DIM_STEPS / 2) == ends.side[j]); i++) {
            from_float(to + 16 * i, (j ? b.o[i].y : b.o[i].x) * ends.factor[j]);
            from_float(to + 16 * i + (NARROW ? 1 : 8), (j ? b.o[i].w : b.o[i].z) * ends.factor[j]);
        }
    }
}

/* What is added. If `streams`: what they have, of which each warp leaves some groups of rows in its free stage. Then parts, in
 * order: `first`, then count - 1 more from `rest` on, `step` bytes apart; the sum of the streams is left in one of them, `own`. */
struct terms {
    bool streams;
    int group; /* streams: the first group of rows of each warp */
    struct part *first, *rest;
    int step, count;
    struct part *own;
};

DEVICE struct part *term(const struct terms &terms, int i)
{
    return i == 0 ? terms.first : (struct part *)((char *)terms.rest + (int64_t)(i - 1) * terms.step);
}

DEVICE void clear(struct blend &b)
{
    b.top = make_float2(-INFINITY, -INFINITY);
    b.sum = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int j = 0; j < SIDE; j++)
        b.o[j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

/* The streams of a team. `row` is a row of the warps' results, `at` where its blocks are in their stages. */
DEVICE void add_streams(struct blend &b, const struct exchange &e, const struct division &d, int row_warp, int row, int at)
{
    int lane = threadIdx.x % 32, streams = QUERIES_SHARED ? STREAMS : d.streams, first = d.team * streams * ROW_WARPS + row_warp;
    float2 top[STREAMS], sum[STREAMS];
    float4 o[STREAMS][SIDE];
#pragma unroll
    for (int i = 0; i < STREAMS; i++) {
        int warp = first + min(i, streams - 1) * ROW_WARPS;
        top[i] = *(const float2 *)&e.top[warp][row];
        sum[i] = *(const float2 *)&e.sum[warp][row];
#pragma unroll
        for (int j = 0; j < SIDE; j++)
            o[i][j] = e.o[warp][(at + j) * 32 + lane];
        b.top = make_float2(fmaxf(b.top.x, top[i].x), fmaxf(b.top.y, top[i].y));
    }
    float2 base = make_float2(base_of(b.top.x), base_of(b.top.y));
#pragma unroll
    for (int i = 0; i < STREAMS; i++)
        if (i < streams)
            add_term(b, base, top[i], sum[i], o[i]);
}

DEVICE void leave_blend(const struct blend &b, struct part *to, int row, int at)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < SIDE; j++)
        to->o[at + j][lane] = b.o[j];
    if (lane < 4) {
        *(float2 *)&to->top[row] = b.top;
        *(float2 *)&to->sum[row] = b.sum;
    }
}

DEVICE void add_parts(struct blend &b, const struct terms &terms, int row, int at)
{
    int lane = threadIdx.x % 32;
    clear(b);
#pragma unroll 1
    for (int first = 0; first < terms.count; first += BATCH) {
        float2 top[BATCH], sum[BATCH], peak = b.top;
        float4 o[BATCH][SIDE];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            const struct part *part = term(terms, min(first + i, terms.count - 1));
            top[i] = *(const float2 *)&part->top[row];
            sum[i] = *(const float2 *)&part->sum[row];
#pragma unroll
            for (int j = 0; j < SIDE; j++)
                o[i][j] = part->o[at + j][lane];
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++)
            peak = make_float2(fmaxf(peak.x, top[i].x), fmaxf(peak.y, top[i].y));
        float2 base = move_base(b, peak);
#pragma unroll
        for (int i = 0; i < BATCH; i++)
            if (first + i < terms.count)
                add_term(b, base, top[i], sum[i], o[i]);
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
    struct ends ends;
    int ended = -1;
#pragma unroll 1
    for (int i = begin; i < end; i += stride) {
        int step = i % DIM_STEPS, eight = i / DIM_STEPS, row_warp = eight / ROUND, in_stage = eight % ROUND;
        if (terms.streams)
            eight = row_warp * ROW_TILES + terms.group + in_stage;
        if (t.first + 8 * eight >= t.end)
            continue;
        int row = 8 * eight + lane % 4 * 2, at = eight * DIM_STEPS + step;
        int row_of_warp = row - 8 * ROW_TILES * row_warp, at_of_warp = in_stage * DIM_STEPS + step;
        struct blend b;
        clear(b);
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
                find_ends(a, t, t.first + row, step == 0, b, ends);
            ended = eight;
            write_rows(a, ends, t.end - t.first - row, step, b);
            continue;
        }
        leave_blend(b, to, row, at);
    }
}

/* Leaves groups of rows from `first` on in the free stage, for the other warps to add. */
DEVICE void leave_results(const struct rows &r, float4 *stage, int first)
{
    int lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < ROW_TILES; n++) {
        if (n / ROUND != first / ROUND)
            continue;
#pragma unroll
        for (int k = 0; k < DIM_STEPS; k++)
            stage[(n % ROUND * DIM_STEPS + k) * 32 + lane] = make_float4(r.o[n][k][0], r.o[n][k][1], r.o[n][k][2], r.o[n][k][3]);
    }
}

DEVICE void leave_sums(struct rows &r, struct exchange &e, float4 *stage)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    complete_sums(r);
    e.o[warp] = stage;
    if (lane < 4) {
#pragma unroll
        for (int n = 0; n < ROW_TILES; n++) {
            *(float2 *)&e.top[warp][8 * n + 2 * lane] = make_float2(r.top[n][0], r.top[n][1]);
            *(float2 *)&e.sum[warp][8 * n + 2 * lane] = make_float2(r.sum[n][0], r.sum[n][1]);
        }
    }
}

#endif
