/* SPDX-License-Identifier: Apache-2.0 */
/* What batch_decode_stream_ has of a pair's rows, and how it is added up: results of the streams of a team, in their stages, and
 * parts in the workspace. What comes of it is written as another part, or as the end of the rows. */
#ifndef DECODE_STREAM_SUMS_CUH
#define DECODE_STREAM_SUMS_CUH

#include "decode_stream_load.cuh"

enum { BATCH = ROW_TILES < 4 ? 8 : 4 }; /* of terms, added at a time */
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

DEVICE float2 fold_max(float2 x)
{
#pragma unroll
    for (int lanes = 4; lanes < 32; lanes *= 2) {
        x.x = fmaxf(x.x, __shfl_xor_sync(0xffffffffu, x.x, lanes));
        x.y = fmaxf(x.y, __shfl_xor_sync(0xffffffffu, x.y, lanes));
    }
    return x;
}

DEVICE float2 fold_sum(float2 x)
{
#pragma unroll
    for (int lanes = 4; lanes < 32; lanes *= 2) {
        x.x += __shfl_xor_sync(0xffffffffu, x.x, lanes);
        x.y += __shfl_xor_sync(0xffffffffu, x.y, lanes);
    }
    return x;
}

DEVICE float base_of(float top) { return top == -INFINITY ? 0.0f : top; }

/* Adds `count` of BATCH terms. Lanes with g = i have top and sum of term i, and those of the terms that there are not have -inf
 * and 0; o has all. */
DEVICE void blend_in(struct blend &b, float2 top, float2 sum, const float4 (&o)[BATCH][SIDE], int count)
{
    float2 peak = fold_max(make_float2(fmaxf(top.x, b.top.x), fmaxf(top.y, b.top.y)));
    float2 base = make_float2(base_of(peak.x), base_of(peak.y));
    float2 own = make_float2(exp2_approx(b.top.x - base.x), exp2_approx(b.top.y - base.y));
    float2 weight = make_float2(exp2_approx(top.x - base.x), exp2_approx(top.y - base.y));
    sum = fold_sum(make_float2(sum.x * weight.x, sum.y * weight.y));
    b.top = peak;
    b.sum = make_float2(b.sum.x * own.x + sum.x, b.sum.y * own.y + sum.y);
#pragma unroll
    for (int j = 0; j < SIDE; j++)
        b.o[j] = make_float4(b.o[j].x * own.x, b.o[j].y * own.y, b.o[j].z * own.x, b.o[j].w * own.y);
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
        float x = __shfl_sync(0xffffffffu, weight.x, 4 * i + threadIdx.x % 4);
        float y = __shfl_sync(0xffffffffu, weight.y, 4 * i + threadIdx.x % 4);
#pragma unroll
        for (int j = 0; j < SIDE && i < count; j++) {
            b.o[j].x += o[i][j].x * x;
            b.o[j].y += o[i][j].y * y;
            b.o[j].z += o[i][j].z * x;
            b.o[j].w += o[i][j].w * y;
        }
    }
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
};

/* `row` is row 2t. Of lanes side by side, one finds what belongs to it, the other what belongs to the next one. */
DEVICE void find_ends(const struct attention_args &a, const struct target &t, int row, bool writes_lse, const struct blend &b,
                      struct ends &ends)
{
    int lane = threadIdx.x % 32, g = lane / 4, odd = g % 2;
    int own = row + odd, token = divide(own, a.by_group), head = t.kv_head * a.group + own - token * a.group;
    bool exists = own < t.end;
    float lse, factor = finish_row(a, odd ? b.top.y : b.top.x, odd ? b.sum.y : b.sum.x, exists ? head : 0, &lse);
    int64_t out = (t.first_q + token) * a.out_token + head * a.out_head;
    if (a.lse && writes_lse && g < 2 && exists)
        a.lse[(t.first_q + token) * a.lse_token + head * a.lse_head] = lse;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int from = lane % 4 + 4 * j;
        ends.factor[j] = __shfl_sync(0xffffffffu, factor, from);
        ends.out[j] = __shfl_sync(0xffffffffu, out, from);
    }
}

/* Of which `exist` are rows. */
DEVICE void write_rows(const struct attention_args &a, const struct ends &ends, int exist, int step, const struct blend &b)
{
    int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < 2 * SIDE; i++) {
        int j = i % 2;
        T *to = (T *)a.out + ends.out[j] + 16 * step + i / 2 * 16;
        if (j < exist) {
            from_float(to + (NARROW ? 2 * g : g), (j ? b.o[i / 2].y : b.o[i / 2].x) * ends.factor[j]);
            from_float(to + (NARROW ? 2 * g + 1 : g + 8), (j ? b.o[i / 2].w : b.o[i / 2].z) * ends.factor[j]);
        }
    }
}

/* What is added. If `streams`: what they have, of which each warp leaves some groups of rows in its free stage. Then parts, in
 * order: `first`, then count - 1 more from `rest` on, `step` apart; in place of part `own` the sum of the streams. */
struct terms {
    bool streams;
    int group; /* streams: the first group of rows of each warp */
    struct part *first, *rest;
    int step, count, own;
};

DEVICE struct part *term(const struct terms &terms, int i)
{
    return i == 0 ? terms.first : terms.rest + (int64_t)(i - 1) * terms.step;
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
    for (int i = 0; i < STREAMS; i++) {
        if (i >= streams)
            continue;
        float x = exp2_approx(top[i].x - base.x), y = exp2_approx(top[i].y - base.y);
        b.sum = make_float2(b.sum.x + sum[i].x * x, b.sum.y + sum[i].y * y);
#pragma unroll
        for (int j = 0; j < SIDE; j++)
            b.o[j] = make_float4(b.o[j].x + o[i][j].x * x, b.o[j].y + o[i][j].y * y, b.o[j].z + o[i][j].z * x,
                                 b.o[j].w + o[i][j].w * y);
    }
}

DEVICE void add_parts(struct blend &b, const struct terms &terms, int row, int at)
{
    int lane = threadIdx.x % 32;
    struct blend own = b;
    clear(b);
#pragma unroll 1
    for (int first = 0; first < terms.count; first += BATCH) {
        float2 top = make_float2(-INFINITY, -INFINITY), sum = make_float2(0.0f, 0.0f);
        float4 o[BATCH][SIDE];
        int which = first + lane / 4;
        if (which == terms.own) {
            top = own.top;
            sum = own.sum;
        } else if (lane / 4 < BATCH && which < terms.count) {
            top = *(const float2 *)&term(terms, which)->top[row];
            sum = *(const float2 *)&term(terms, which)->sum[row];
        }
#pragma unroll
        for (int k = 0; k < BATCH; k++)
#pragma unroll
            for (int j = 0; j < SIDE; j++) {
                o[k][j] = own.o[j];
                if (first + k < terms.count && first + k != terms.own)
                    o[k][j] = term(terms, first + k)->o[at + j][lane];
            }
        blend_in(b, top, sum, o, terms.count - first);
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
        if (terms.count)
            add_parts(b, terms, row, at);
        if (!to) {
            if (ended != eight)
                find_ends(a, t, t.first + row, step == 0, b, ends);
            ended = eight;
            write_rows(a, ends, t.end - t.first - row, step, b);
            continue;
        }
#pragma unroll
        for (int j = 0; j < SIDE; j++)
            to->o[at + j][lane] = b.o[j];
        if (step == 0 && lane < 4) {
            *(float2 *)&to->top[row] = b.top;
            *(float2 *)&to->sum[row] = b.sum;
        }
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
