/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a task of batch_decode_stream_sm80: the streams of a block add up what they have. Of a divided pair, each worker
 * leaves its part in the workspace and marks it READY; when it has no more to read, it looks whether all parts are READY, and
 * if so adds them, in order. Of many parts, groups are added first, so that no one has many to add. READY is a random number of
 * 64 bits: whatever else the workspace held before, there was no mark in it. */
#ifndef DECODE_STREAM_PARTS_CUH
#define DECODE_STREAM_PARTS_CUH

#include "decode_stream_share.cuh"

#define READY 0x6d1c8fb35e2a9047u

enum { GROUP = 64, BATCH = 8 };         /* parts that are added by one worker; at a time */
enum { BLOCKS = ROWS / 8 * DIM_STEPS }; /* of results: 8 rows by 16 dimensions, in order */
enum { SIDE = DIM_STEPS % 2 == 0 && BLOCKS > WARPS ? 2 : 1 }; /* of them a warp adds side by side */
enum { ROUND_BYTES = 32 * HEAD_DIM, AT_ONCE = STAGE_BYTES / ROUND_BYTES, ROUND = AT_ONCE < ROW_TILES ? AT_ONCE : ROW_TILES };

/* Rows after some of their tokens. Whole lines of 128 bytes, so that no cache holds old neighbours. */
struct __align__(128) part {
    unsigned long long mark, unused;
    float top[ROWS], sum[ROWS];
    float4 o[BLOCKS][32];
};
static_assert(sizeof(struct part) == ATTENTION_STREAM_PART_BYTES(ROWS, HEAD_DIM), "the host counts on it");
static_assert(ROUND >= 1 && ROW_TILES % ROUND == 0, "a free stage holds the results of some rows");

/* What warps tell each other about their results. */
struct exchange {
    float top[WARPS][8 * ROW_TILES], sum[WARPS][8 * ROW_TILES];
    float4 *o[WARPS];
};

/* What a lane has of SIDE blocks of the same rows while they are added up. */
struct blend {
    float2 top, sum;
    float4 o[SIDE];
};

/* Factors of what there is and of what is added to it. */
DEVICE float2 blend_row(float &top, float &sum, float x_top, float x_sum)
{
    float peak = fmaxf(top, x_top), base = peak == -INFINITY ? 0.0f : peak;
    float own = exp2_approx(top - base), other = exp2_approx(x_top - base);
    top = peak;
    sum = sum * own + x_sum * other;
    return make_float2(own, other);
}

DEVICE void blend_in(struct blend &b, float2 top, float2 sum, const float4 (&o)[SIDE])
{
    float2 x = blend_row(b.top.x, b.sum.x, top.x, sum.x), y = blend_row(b.top.y, b.sum.y, top.y, sum.y);
#pragma unroll
    for (int i = 0; i < SIDE; i++) {
        b.o[i].x = b.o[i].x * x.x + o[i].x * x.y;
        b.o[i].y = b.o[i].y * y.x + o[i].y * y.y;
        b.o[i].z = b.o[i].z * x.x + o[i].z * x.y;
        b.o[i].w = b.o[i].w * y.x + o[i].w * y.y;
    }
}

/* Writes rows 2t and 2t + 1 of eight, of which the first is `row`. Of lanes side by side, one finds what belongs to the first,
 * the other to the second. */
DEVICE void write_rows(const struct attention_args &a, const struct task &t, int row, int step, const struct blend &b)
{
    int lane = threadIdx.x % 32, g = lane / 4, odd = g % 2;
    int own = row + odd, token = divide(own, a.by_group), head = t.kv_head * a.group + own - token * a.group;
    bool exists = own < t.range.end;
    float lse, factor = finish_row(a, odd ? b.top.y : b.top.x, odd ? b.sum.y : b.sum.x, exists ? head : 0, &lse);
    int64_t out = (t.first_q + token) * a.out_token + head * a.out_head + 16 * step;
    if (a.lse && step == 0 && g < 2 && exists)
        a.lse[(t.first_q + token) * a.lse_token + head * a.lse_head] = lse;
    float other_factor = __shfl_xor_sync(0xffffffffu, factor, 4);
    int64_t other_out = __shfl_xor_sync(0xffffffffu, out, 4);
#pragma unroll
    for (int i = 0; i < 2 * SIDE; i++) {
        int j = i % 2;
        T *to = (T *)a.out + (j == odd ? out : other_out) + i / 2 * 16;
        float by = j == odd ? factor : other_factor;
        if (row + j < t.range.end) {
            from_float(to + (NARROW ? 2 * g : g), (j ? b.o[i / 2].y : b.o[i / 2].x) * by);
            from_float(to + (NARROW ? 2 * g + 1 : g + 8), (j ? b.o[i / 2].w : b.o[i / 2].z) * by);
        }
    }
}

/* What is added, in order: the streams of this block, of which each warp leaves some groups of rows in its free stage; or parts,
 * `first`, then count - 1 more from `rest` on, `step` apart. */
struct terms {
    bool streams;
    int group; /* streams: the first group of rows of each warp */
    struct part *first, *rest;
    int step, count;
};

DEVICE struct part *term(const struct terms &terms, int i)
{
    return i == 0 ? terms.first : terms.rest + (int64_t)(i - 1) * terms.step;
}

/* Leaves sums in `to`, or finished rows if it is NULL. */
DEVICE void add(const struct attention_args &a, const struct task &t, const struct exchange &e, const struct terms &terms,
                struct part *to)
{
    int lane = threadIdx.x % 32, blocks = terms.streams ? ROW_WARPS * ROUND * DIM_STEPS : BLOCKS;
#pragma unroll 1
    for (int i = threadIdx.x / 32 * SIDE; i < blocks; i += WARPS * SIDE) {
        int step = i % DIM_STEPS, eight = i / DIM_STEPS, row_warp = eight / ROUND, in_stage = eight % ROUND;
        if (terms.streams)
            eight = row_warp * ROW_TILES + terms.group + in_stage;
        int row = terms.streams ? 8 * (terms.group + in_stage) + lane % 4 * 2 : 8 * eight + lane % 4 * 2;
        struct blend b = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
#pragma unroll
        for (int j = 0; j < SIDE; j++)
            b.o[j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (t.range.first + 8 * eight >= t.range.end)
            continue;
#pragma unroll 1
        for (int first = 0; first < terms.count; first += BATCH) {
            float2 top[BATCH], sum[BATCH];
            float4 o[BATCH][SIDE];
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                int which = min(first + k, terms.count - 1), from = which * ROW_WARPS + row_warp;
                const struct part *p = terms.streams ? NULL : term(terms, which);
                const float4 *blocks_of = terms.streams ? e.o[from] + (in_stage * DIM_STEPS + step) * 32 : p->o[i];
                top[k] = *(const float2 *)&(terms.streams ? e.top[from] : p->top)[row];
                sum[k] = *(const float2 *)&(terms.streams ? e.sum[from] : p->sum)[row];
#pragma unroll
                for (int j = 0; j < SIDE; j++)
                    o[k][j] = blocks_of[32 * j + lane];
            }
#pragma unroll
            for (int k = 0; k < BATCH; k++)
                if (first + k < terms.count)
                    blend_in(b, top[k], sum[k], o[k]);
        }
        if (!to) {
            write_rows(a, t, t.range.first + 8 * eight + lane % 4 * 2, step, b);
            continue;
        }
#pragma unroll
        for (int j = 0; j < SIDE; j++)
            to->o[eight * DIM_STEPS + step + j][lane] = b.o[j];
        if (step == 0 && lane < 4) {
            *(float2 *)&to->top[8 * eight + 2 * lane] = b.top;
            *(float2 *)&to->sum[8 * eight + 2 * lane] = b.sum;
        }
    }
}

/* Leaves groups of rows from `first` on in the free stage, for the other warps to add. */
DEVICE void leave_results(const struct rows &r, float4 *stage, int first)
{
    int lane = threadIdx.x % 32;
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

/* By one thread, after a barrier behind which all have written the part. */
DEVICE void mark_part(struct part *p)
{
    __threadfence();
    *(volatile unsigned long long *)&p->mark = READY;
}

/* True in all threads if all terms are marked and, if that matters, no one else takes them; then they can be read, and their
 * marks are gone. Without `alone` two workers may add the same terms, and write the same. */
DEVICE bool take_parts(const struct terms &terms, bool alone)
{
    __shared__ bool is_complete;
    if (threadIdx.x < 32) {
        bool ready = true;
        __threadfence(); /* of two workers, one at least sees the other's mark */
#pragma unroll 1
        for (int i = threadIdx.x; i < terms.count; i += 32)
            ready &= *(volatile unsigned long long *)&term(terms, i)->mark == READY;
        ready = __all_sync(0xffffffffu, ready);
        if (ready && alone)
            ready = __any_sync(0xffffffffu, threadIdx.x == 0 && atomicExch(&terms.first->mark, 0ull) == READY);
#pragma unroll 1
        for (int i = threadIdx.x; ready && i < terms.count; i += 32)
            *(volatile unsigned long long *)&term(terms, i)->mark = 0;
        __threadfence();
        if (threadIdx.x == 0)
            is_complete = ready;
    }
    __syncthreads();
    bool complete = is_complete;
    __syncthreads(); /* before it is written again */
    return complete;
}

/* Where the parts of a pair lie: part i at `head` if i is 0, else at tail + i * step. Units have one each; workers two, the
 * second of which is for the start of a pair. */
struct places {
    int head, tail, step;
    int count, own; /* of the pair; this worker's */
    int size;       /* of a group */
};

DEVICE struct places find_parts(const struct division &d, const struct task &t)
{
    struct places p = {t.pair_unit, t.pair_unit, 1, t.units, t.unit};
    if (!d.unit_tiles) {
        int first = worker_of(d, t.pair_unit);
        p = {2 * first + 1, 2 * first, 2, worker_of(d, t.pair_unit + t.units - 1) - first + 1, (int)blockIdx.x - first};
    }
    p.size = p.count <= GROUP ? GROUP : p.count <= GROUP * GROUP / 4 ? GROUP / 2 : GROUP * 4;
    return p;
}

DEVICE int part_at(const struct places &p, int i) { return i == 0 ? p.head : p.tail + i * p.step; }

/* Divided pairs of which this worker has left a part, and not yet looked whether it is the last one. */
struct open_pairs {
    struct {
        struct task task;
        struct places places;
    } pair[2];
    int count;
};

/* Ends a task: adds up the streams of the block. `stage` is free in each warp. All threads of the block call it. */
DEVICE void finish_task(const struct attention_args &a, const struct division &d, const struct task &t, struct rows &r,
                        uint32_t stage, struct exchange &e, struct open_pairs &open)
{
    float4 *own = (float4 *)__cvta_shared_to_generic(stage);
    struct part *to = NULL;
    struct places p;
    if (t.count < t.units) {
        p = find_parts(d, t);
        to = (struct part *)a.workspace + part_at(p, p.own);
    }
    leave_sums(r, e, own);
    struct terms terms = {true, 0, NULL, NULL, 0, STREAMS};
#pragma unroll 1
    for (; terms.group < ROW_TILES; terms.group += ROUND) {
        leave_results(r, own, terms.group);
        __syncthreads();
        add(a, t, e, terms, to);
        __syncthreads();
    }
    if (to && threadIdx.x == 0) {
        mark_part(to);
        open.pair[open.count++] = {t, p};
    }
}

/* Adds up what is complete of the open pairs. All threads of the block call it. */
DEVICE void close_pairs(const struct attention_args &a, const struct division &d, struct exchange &e, struct open_pairs &open)
{
    struct part *parts = (struct part *)a.workspace, *sums = parts + a.stream.num_parts;
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < open.count; i++) {
        struct task t = open.pair[i].task;
        struct places p = open.pair[i].places;
        int group = p.own / p.size * p.size;
        bool last = p.count <= p.size, grouped = !last;
        struct terms terms = {false, 0, parts + part_at(p, group), parts + part_at(p, group + 1), p.step,
                              min(p.size, p.count - group)};
#pragma unroll 1
        while (take_parts(terms, grouped)) {
            struct part *sum = sums + part_at(p, group);
            add(a, t, e, terms, last ? NULL : sum);
            __syncthreads();
            if (last)
                break;
            if (threadIdx.x == 0)
                mark_part(sum);
            terms = {false, 0, sums + part_at(p, 0), sums + part_at(p, p.size), p.size * p.step, (p.count + p.size - 1) / p.size};
            last = true;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0)
        open.count = 0;
}

#endif
