/* SPDX-License-Identifier: Apache-2.0 */
/* batch_prefill: the query tokens of each request over its pages, FlashAttention-2's order of things.
 *
 * A block has TILE_Q packed rows of one request and KV head, found from qo_indptr; blocks beyond the last one leave at once.
 * Each of its warps holds 16 rows. All warps share one tile of 64 keys and one of 64 values: the next keys are copied while
 * weights and values are multiplied, the next values while queries and keys are. Where tokens lie is looked up one tile ahead.
 *
 *   T, HEAD_DIM, ALIGNED as in attention_tile.cuh
 *   TILE_Q   16, 64, 128
 * Grid: at least ceil(total_q * group / TILE_Q) + batch blocks by num_kv_heads. Dynamic shared memory: struct smem. */
#include "attention_tile.cuh"
#include "pdl.cuh"
#include "scan.cuh"

enum { WARPS = TILE_Q / 16, THREADS = 32 * WARPS, TILE = 64 };
enum { BLOCKS = (HEAD_DIM == 64 ? 384 : 256) / THREADS }; /* of a multiprocessor, as far as registers go */

struct smem {
    unsigned char keys[TILE * ROW_BYTES], values[TILE * ROW_BYTES];
    int64_t key_at[2][TILE], value_at[2][TILE]; /* elements from the start of the cache, of two tiles */
    uint64_t scratch[32];
    int request, tile;
    uint64_t unused;
};

static_assert(sizeof(struct smem) == ATTENTION_PREFILL_SMEM(HEAD_DIM), "the host counts on it");

/* The rows of a block. */
struct task {
    int request, kv_head;
    int first_q, qo_len, kv_len; /* first_q: the request's first query token */
    int begin, end;              /* tokens that any of the rows sees */
    int first_row;
};

/* The tokens that a row sees. */
struct range {
    int begin, end;
};

DEVICE int tiles_of(const struct attention_args &a, int request)
{
    int64_t rows = (int64_t)(first_query(a, request + 1) - first_query(a, request)) * a.group;
    return (rows + TILE_Q - 1) / TILE_Q;
}

/* Finds the request to which a tile of the whole batch belongs, and which of its tiles it is. False if there is none. */
DEVICE bool find_tile(const struct attention_args &a, int64_t tile, struct smem *sm)
{
    int first = (int64_t)a.batch * threadIdx.x / THREADS, last = (int64_t)a.batch * (threadIdx.x + 1) / THREADS;
    int64_t sum = 0;
#pragma unroll 1
    for (int b = first; b < last; b++)
        sum += tiles_of(a, b);
    int64_t before = block_sum_before(sum, sm->scratch);
    bool found = before <= tile && tile < before + sum;
    if (found) {
#pragma unroll 1
        for (; tile >= before + tiles_of(a, first); first++)
            before += tiles_of(a, first);
        sm->request = first;
        sm->tile = tile - before;
    }
    return __syncthreads_or(found);
}

DEVICE struct range seen_by(const struct attention_args &a, const struct task &t, int row)
{
    int token = divide(row, a.by_group);
    struct range seen = {0, t.kv_len};
    if (token >= t.qo_len)
        seen.end = 0;
    else if (a.causal)
        seen.end = max(0, t.kv_len - t.qo_len + token + 1);
    if (a.window_left >= 0)
        seen.begin = max((int64_t)0, (int64_t)t.kv_len - t.qo_len + token - a.window_left);
    return seen;
}

DEVICE struct task make_task(const struct attention_args &a, const struct smem *sm)
{
    struct task t;
    t.request = sm->request;
    t.kv_head = blockIdx.y;
    t.first_q = first_query(a, t.request);
    t.qo_len = first_query(a, t.request + 1) - t.first_q;
    t.kv_len = kv_length(a, t.request);
    t.first_row = sm->tile * TILE_Q;
    int last_row = min((int64_t)t.first_row + TILE_Q, (int64_t)t.qo_len * a.group) - 1;
    t.begin = seen_by(a, t, t.first_row).begin / TILE * TILE;
    t.end = seen_by(a, t, last_row).end;
    return t;
}

DEVICE const T *query_row(const struct attention_args &a, const struct task &t, int row)
{
    int token = divide(row, a.by_group);
    if (token >= t.qo_len)
        return NULL;
    return (const T *)a.q + (t.first_q + token) * a.q_token + (t.kv_head * a.group + (row - token * a.group)) * a.q_head;
}

/* Where the keys and values of a tile lie. */
DEVICE void find_tokens(const struct attention_args &a, const struct task &t, int first, struct smem *sm)
{
    for (int i = threadIdx.x; i < TILE; i += THREADS) {
        int64_t key = 0, value = 0;
        if (first + i < t.end) {
            struct slot s = find_slot(a, first_page(a, t.request), first + i);
            key = s.page * a.k_page + s.at * a.k_slot;
            value = s.page * a.v_page + s.at * a.v_slot;
        }
        sm->key_at[first / TILE % 2][i] = key;
        sm->value_at[first / TILE % 2][i] = value;
    }
}

/* Starts copying a tile of keys or values; `at` says where its tokens lie. */
DEVICE void copy_tile(uint32_t tile, const T *cache, const int64_t *at, int valid)
{
#pragma unroll COPIES_AT_ONCE
    for (int i = 0; i < TILE * CHUNKS / THREADS; i++) {
        int row = (THREADS * i + threadIdx.x) / CHUNKS, chunk = threadIdx.x % CHUNKS;
        copy_chunk(chunk_address(tile, row, chunk), cache + at[row] + chunk * 8, row < valid);
    }
    cp_async_commit();
}

DEVICE void attend(const struct attention_args &a, const struct task &t, struct smem *sm, struct rows &r)
{
    const T *key_cache = (const T *)a.k + t.kv_head * a.k_head, *value_cache = (const T *)a.v + t.kv_head * a.v_head;
    uint32_t keys = shared_address(sm->keys), values = shared_address(sm->values), q[HEAD_DIM / 16][4];
    int row = t.first_row + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    struct logit_rule rule = make_logit_rule(a);
    struct range low = seen_by(a, t, row), high = seen_by(a, t, row + 8);
    const int begin[2] = {low.begin, high.begin}, end[2] = {low.end, high.end};

    find_tokens(a, t, t.begin, sm);
    __syncthreads();
    copy_tile(keys, key_cache, sm->key_at[t.begin / TILE % 2], t.end - t.begin);
    copy_tile(values, value_cache, sm->value_at[t.begin / TILE % 2], t.end - t.begin);
    load_queries(q, query_row(a, t, row), query_row(a, t, row + 8));
    for (int first = t.begin; first < t.end; first += TILE) {
        float s[TILE / 8][4];
        int next = first + TILE;
        find_tokens(a, t, next, sm);
        cp_async_wait<1>();
        __syncthreads();
        compute_logits(s, q, keys, rule);
        __syncthreads();
        copy_tile(keys, key_cache, sm->key_at[next / TILE % 2], t.end - next);
        if (first < max(begin[0], begin[1]) || next > min(end[0], end[1]))
            mask_logits(s, first, begin, end);
        weigh(r, s);
        cp_async_wait<1>();
        __syncthreads();
        accumulate(r, s, values);
        __syncthreads();
        copy_tile(values, value_cache, sm->value_at[next / TILE % 2], t.end - next);
    }
    cp_async_wait<0>();
    complete_sums(r);
}

DEVICE void write_rows(const struct attention_args &a, const struct task &t, const struct rows &r)
{
    int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = t.first_row + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * h, token = divide(row, a.by_group);
        if (token >= t.qo_len)
            continue;
        int head = t.kv_head * a.group + (row - token * a.group);
        float lse, factor = finish_row(a, r.top[h], r.sum[h], head, &lse);
        T *to = (T *)a.out + (t.first_q + token) * a.out_token + head * a.out_head + column;
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 8; i++, to += 8) {
            float x[2] = {r.o[i][2 * h] * factor, r.o[i][2 * h + 1] * factor};
#if ALIGNED
            store(to, x);
#else
            from_float(to, x[0]);
            from_float(to + 1, x[1]);
#endif
        }
        if (a.lse && column == 0)
            a.lse[(t.first_q + token) * a.lse_token + head * a.lse_head] = lse;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) batch_prefill_sm80(const __grid_constant__ struct attention_args a)
{
    extern __shared__ __align__(128) unsigned char shared[];
    struct smem *sm = (struct smem *)shared;
    pdl_wait();
    pdl_launch();
    /* Later rows of causal attention see more: the longest blocks start first. */
    if (!find_tile(a, gridDim.x - 1 - blockIdx.x, sm))
        return;
    struct task t = make_task(a, sm);
    struct rows r;
    clear(r);
    if (t.begin < t.end)
        attend(a, t, sm, r);
    write_rows(a, t, r);
}
