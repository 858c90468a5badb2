/* SPDX-License-Identifier: Apache-2.0 */
/* batch_decode: one query token per request over its pages, in one launch.
 *
 * A pair is a request and up to 16 query heads that read one KV head; it has one unit per 64 tokens that it sees. All units of
 * all pairs, in order, are shared out evenly among the blocks (workers), so a worker has the end of one pair, whole pairs, and
 * the start of another. If no pair is longer than 256 tokens and there are workers enough, or if `whole` is set, a pair is one
 * unit.
 * In a block, each of 4 warps takes every fourth tile of 16 tokens, through STAGES tiles of shared memory of its own; their
 * results are added in the end. Of a divided pair, each worker leaves its part in the workspace and marks it READY; whoever then
 * finds all parts READY adds them in order and clears the marks. READY is a random number of 64 bits: whatever else the
 * workspace held before, there was no mark in it.
 *
 *   T, HEAD_DIM, ALIGNED as in attention_tile.cuh
 * Workspace: struct part[2 * gridDim.x]; a worker's first is for the end of a pair, its second for the start of one.
 * Dynamic shared memory: ATTENTION_DECODE_SMEM. */
#include "attention_tile.cuh"
#include "pdl.cuh"
#include "scan.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS, TILE = 16, UNIT = WARPS * TILE, UNDIVIDED = 256, STAGES = 256 / HEAD_DIM };
enum { TILE_BYTES = TILE * ROW_BYTES, WARP_BYTES = STAGES * 2 * TILE_BYTES };

#define READY 0x6d1c8fb35e2a9047u

/* The state of 16 rows after some of their tokens. Padded against bank conflicts. */
struct part {
    float top[16], sum[16];
    uint64_t mark, unused;
    float o[16][HEAD_DIM + 8];
};

static_assert(sizeof(struct part) == ATTENTION_DECODE_PART_BYTES(HEAD_DIM), "the host counts on it");
static_assert(WARPS * WARP_BYTES == ATTENTION_DECODE_SMEM, "the host counts on it");
static_assert(WARPS * sizeof(struct part) <= ATTENTION_DECODE_SMEM, "parts take the place of tiles");

/* A pair, and the tokens of it that a worker takes. */
struct task {
    int request, kv_head, first_head, rows;
    int begin, end;
};

/* Where a token lies, in elements from the start of the caches. */
struct __align__(16) place {
    int64_t key, value;
};

/* The first token that the query sees. */
DEVICE int first_seen(const struct attention_args &a, int length)
{
    return a.window_left >= 0 && length - 1 > a.window_left ? length - 1 - a.window_left : 0;
}

DEVICE int seen(const struct attention_args &a, int request)
{
    int length = kv_length(a, request);
    return length - first_seen(a, length);
}

/* A request that sees nothing has none, so that requests without pages do not change the bits of the others. */
DEVICE int units_of(const struct attention_args &a, int request, bool whole)
{
    int tokens = seen(a, request);
    return whole ? tokens > 0 : (tokens + UNIT - 1) / UNIT;
}

DEVICE struct slot find_slot(const struct attention_args &a, const struct task &t, int token)
{
    struct slot none = {0, 0};
    return token < t.end ? find_slot(a, first_page(a, t.request), token) : none;
}

/* Starts copying a tile of keys and values; lanes i and i + 16 have the slot of token i. */
DEVICE void copy_tile(const struct attention_args &a, const struct task &t, int token, struct slot s, uint32_t stage)
{
    __shared__ struct place shared_places[WARPS][TILE];
    struct place *places = shared_places[threadIdx.x / 32];
    int lane = threadIdx.x % 32, chunk = lane % CHUNKS;
    const T *keys = (const T *)a.k + t.kv_head * a.k_head + chunk * 8;
    const T *values = (const T *)a.v + t.kv_head * a.v_head + chunk * 8;
    __syncwarp();
    if (lane < TILE) {
        places[lane].key = s.page * a.k_page + s.at * a.k_slot;
        places[lane].value = s.page * a.v_page + s.at * a.v_slot;
    }
    __syncwarp();
#pragma unroll COPIES_AT_ONCE
    for (int i = 0; i < TILE * CHUNKS / 32; i++) {
        int row = (32 * i + lane) / CHUNKS;
        struct place p = places[row];
        bool valid = token + row < t.end;
        copy_chunk(chunk_address(stage, row, chunk), keys + p.key, valid);
        copy_chunk(chunk_address(stage + TILE_BYTES, row, chunk), values + p.value, valid);
    }
    cp_async_commit();
}

/* A warp's tiles of the task. */
DEVICE void attend(const struct attention_args &a, const struct task &t, uint32_t stages, struct logit_rule rule, struct rows &r)
{
    int lane = threadIdx.x % 32, row = lane / 4, first = t.begin + threadIdx.x / 32 * TILE;
    const T *queries = (const T *)a.q + t.request * a.q_token + t.first_head * a.q_head;
    uint32_t q[HEAD_DIM / 16][4];
    struct slot ahead[STAGES];
#pragma unroll
    for (int i = 0; i < STAGES; i++)
        ahead[i] = find_slot(a, t, first + i * UNIT + lane % TILE);
#pragma unroll
    for (int i = 0; i < STAGES; i++)
        copy_tile(a, t, first + i * UNIT, ahead[i], stages + i * 2 * TILE_BYTES);
    struct slot next = find_slot(a, t, first + STAGES * UNIT + lane % TILE);
    load_queries(q, row < t.rows ? queries + row * a.q_head : NULL, row + 8 < t.rows ? queries + (row + 8) * a.q_head : NULL);
    clear(r);
    int stage = 0;
    for (int token = first; token < t.end; token += UNIT) {
        float s[TILE / 8][4];
        const int begin[2] = {0, 0}, end[2] = {t.end, t.end};
        uint32_t keys = stages + stage * 2 * TILE_BYTES;
        cp_async_wait<STAGES - 1>();
        __syncwarp();
        compute_logits(s, q, keys, rule);
        if (token + TILE > t.end)
            mask_logits(s, token, begin, end);
        weigh(r, s);
        accumulate(r, s, keys + TILE_BYTES);
        copy_tile(a, t, token + STAGES * UNIT, next, keys);
        next = find_slot(a, t, token + (STAGES + 1) * UNIT + lane % TILE);
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    cp_async_wait<0>();
    complete_sums(r);
}

DEVICE void write_part(struct part *p, const struct rows &r)
{
    int lane = threadIdx.x % 32, row = lane / 4, column = lane % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (lane % 4 == 0) {
            p->top[row + 8 * h] = r.top[h];
            p->sum[row + 8 * h] = r.sum[h];
        }
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 8; i++)
            *(float2 *)&p->o[row + 8 * h][8 * i + column] = make_float2(r.o[i][2 * h], r.o[i][2 * h + 1]);
    }
}

/* Parts to add, in order: `first`, then count - 1 more from `rest` on, `step` apart. */
struct terms {
    struct part *first, *rest;
    int step, count;
};

DEVICE struct part *term(const struct terms &terms, int i) { return i == 0 ? terms.first : terms.rest + (i - 1) * terms.step; }

/* Leaves the sum of parts in `out`, or finished rows if it is NULL. */
DEVICE void add_parts(const struct attention_args &a, const struct task &t, const struct terms &terms, struct part *out)
{
    for (int i = threadIdx.x; i < t.rows * (HEAD_DIM / 4); i += THREADS) {
        int row = i / (HEAD_DIM / 4), column = i % (HEAD_DIM / 4) * 4;
        float top = terms.first->top[row], sum = 0.0f, o[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 2
        for (int k = 1; k < terms.count; k++)
            top = fmaxf(top, term(terms, k)->top[row]);
#pragma unroll 2
        for (int k = 0; k < terms.count; k++) {
            const struct part *p = term(terms, k);
            float weight = p->top[row] == -INFINITY ? 0.0f : exp2_approx(p->top[row] - top);
            float4 x = *(const float4 *)&p->o[row][column];
            sum += p->sum[row] * weight;
            o[0] += x.x * weight;
            o[1] += x.y * weight;
            o[2] += x.z * weight;
            o[3] += x.w * weight;
        }
        if (out) {
            if (column == 0) {
                out->top[row] = top;
                out->sum[row] = sum;
            }
            *(float4 *)&out->o[row][column] = make_float4(o[0], o[1], o[2], o[3]);
            continue;
        }
        int head = t.first_head + row;
        float lse, factor = finish_row(a, top, sum, head, &lse);
        T *to = (T *)a.out + t.request * a.out_token + head * a.out_head + column;
#pragma unroll
        for (int j = 0; j < 4; j++)
            o[j] *= factor;
#if ALIGNED
        store(to, o);
#else
#pragma unroll
        for (int j = 0; j < 4; j++)
            from_float(to + j, o[j]);
#endif
        if (a.lse && column == 0)
            a.lse[t.request * a.lse_token + head * a.lse_head] = lse;
    }
}

/* Marks this worker's part. True in all threads if all terms are marked; then they can be read, and their marks are gone. Of
 * two workers that mark theirs at the same time both may see that: they write the same sum. */
DEVICE bool offer_part(struct part *own, const struct terms &terms)
{
    __shared__ int is_complete;
    __syncthreads();
    if (threadIdx.x < 32) {
        if (threadIdx.x == 0) {
            __threadfence();
            *(volatile uint64_t *)&own->mark = READY;
        }
        __syncwarp();
        __threadfence(); /* of two workers, one at least sees the other's mark */
        bool ready = true;
        for (int i = threadIdx.x; i < terms.count; i += 32)
            ready &= *(volatile uint64_t *)&term(terms, i)->mark == READY;
        __threadfence();
        ready = __all_sync(0xffffffffu, ready);
        for (int i = threadIdx.x; ready && i < terms.count; i += 32)
            *(volatile uint64_t *)&term(terms, i)->mark = 0;
        if (threadIdx.x == 0)
            is_complete = ready;
    }
    __syncthreads();
    return is_complete;
}

/* How units are shared out: the first `longer` workers have each + 1 of them, the others `each`. */
struct division {
    int workers, each, longer;
};

DEVICE struct division share_out(int units)
{
    struct division d;
    d.workers = min((int)gridDim.x, units);
    d.each = units / max(1, d.workers);
    d.longer = units - d.each * d.workers;
    return d;
}

DEVICE int first_unit(const struct division &d, int worker) { return worker * d.each + min(worker, d.longer); }

DEVICE int worker_of(const struct division &d, int unit)
{
    int in_longer = d.longer * (d.each + 1);
    return unit < in_longer ? unit / (d.each + 1) : d.longer + (unit - in_longer) / d.each;
}

/* This worker's units, and the request in which they start. */
struct share {
    struct division division;
    int begin, end, request, request_begin;
    bool whole;
};

/* The number of units of all requests is below 2^31. */
DEVICE struct share find_share(const struct attention_args &a, int pairs)
{
    __shared__ uint64_t scratch[32];
    __shared__ struct { int units, requests, request, request_begin; } found;
    int first = (int64_t)a.batch * threadIdx.x / THREADS, last = (int64_t)a.batch * (threadIdx.x + 1) / THREADS;
    int units = 0, requests = 0;
    bool is_long = false;
#pragma unroll 1
    for (int b = first; b < last; b++) {
        int tokens = seen(a, b);
        units += (tokens + UNIT - 1) / UNIT;
        requests += tokens > 0;
        is_long |= tokens > UNDIVIDED;
    }
    uint64_t own = (uint64_t)requests << 32 | units, sum_before = block_sum_before(own, scratch);
    if (threadIdx.x == THREADS - 1) {
        found.units = (int)(sum_before + own);
        found.requests = (int)((sum_before + own) >> 32);
    }
    struct share s;
    bool any_is_long = __syncthreads_or(is_long);
    s.whole = a.whole || (!any_is_long && (int64_t)found.requests * pairs <= gridDim.x);
    int before = (int)(s.whole ? sum_before >> 32 : sum_before), sum = s.whole ? requests : units;
    s.division = share_out((s.whole ? found.requests : found.units) * pairs);
    s.begin = first_unit(s.division, blockIdx.x);
    s.end = blockIdx.x < s.division.workers ? first_unit(s.division, blockIdx.x + 1) : s.begin;
    if (before * pairs <= s.begin && s.begin < (before + sum) * pairs) {
#pragma unroll 1
        for (; s.begin >= (before + units_of(a, first, s.whole)) * pairs; first++)
            before += units_of(a, first, s.whole);
        found.request = first;
        found.request_begin = before * pairs;
    }
    __syncthreads();
    s.request = found.request;
    s.request_begin = found.request_begin;
    return s;
}

/* Zeros for the requests that see nothing. */
DEVICE void write_nothing(const struct attention_args &a)
{
    int heads = a.num_kv_heads * a.group;
#pragma unroll 1
    for (int request = blockIdx.x; request < a.batch; request += gridDim.x) {
        if (seen(a, request) > 0)
            continue;
#pragma unroll 1
        for (int i = threadIdx.x; i < heads * HEAD_DIM; i += THREADS)
            from_float((T *)a.out + request * a.out_token + i / HEAD_DIM * a.out_head + i % HEAD_DIM, 0.0f);
#pragma unroll 1
        for (int head = threadIdx.x; a.lse && head < heads; head += THREADS)
            finish_row(a, -INFINITY, 0.0f, head, &a.lse[request * a.lse_token + head * a.lse_head]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) batch_decode_sm80(const __grid_constant__ struct attention_args a)
{
    extern __shared__ __align__(128) unsigned char shared[];
    struct part *warp_parts = (struct part *)shared, *parts = (struct part *)a.workspace;
    pdl_wait();
    pdl_launch();
    int head_groups = (a.group + 15) / 16, pairs = a.num_kv_heads * head_groups;
    struct share s = find_share(a, pairs);
    struct logit_rule rule = make_logit_rule(a);
    write_nothing(a);

    for (int unit = s.begin; unit < s.end;) {
        int units;
        while ((units = units_of(a, s.request, s.whole)) == 0)
            s.request++;
        int pair = (unit - s.request_begin) / units;
        int at = unit - s.request_begin - pair * units, count = min(units - at, s.end - unit);
        int length = kv_length(a, s.request), start = first_seen(a, length), group = pair % head_groups;
        struct task t;
        t.request = s.request;
        t.kv_head = pair / head_groups;
        t.first_head = t.kv_head * a.group + group * 16;
        t.rows = min(16, a.group - group * 16);
        t.begin = start + at * UNIT;
        t.end = at + count == units ? length : start + (at + count) * UNIT;

        struct rows r;
        attend(a, t, shared_address(shared) + threadIdx.x / 32 * WARP_BYTES, rule, r);
        __syncthreads();
        write_part(&warp_parts[threadIdx.x / 32], r);
        __syncthreads();
        int first = worker_of(s.division, unit - at), last = worker_of(s.division, unit - at + units - 1);
        struct part *own = &parts[2 * blockIdx.x + (at == 0)];
        struct terms terms = {warp_parts, warp_parts + 1, 1, WARPS};
        for (bool divided = count < units;; divided = false) {
            add_parts(a, t, terms, divided ? own : NULL);
            if (!divided)
                break;
            terms = {&parts[2 * first + 1], &parts[2 * first + 2], 2, last - first + 1};
            if (!offer_part(own, terms))
                break;
        }
        __syncthreads();

        unit += count;
        if (unit == s.request_begin + units * pairs) {
            s.request_begin = unit;
            s.request++;
        }
    }
}
