/* SPDX-License-Identifier: Apache-2.0 */
/* batch_prefill: the query tokens of each request over its pages, FlashAttention-2's order of things.
 *
 * A block has TILE_Q packed rows of one request and KV head, found from qo_indptr, and up to 256 columns of values; blocks beyond
 * the last one leave at once. Each of its warps holds 16 rows. All warps share one tile of keys and one of values: the next keys
 * are copied while weights and values are multiplied, the next values while queries and keys are. Where tokens lie is looked up
 * one tile ahead. Queries of more than 128 elements, and those that are converted, lie in shared memory.
 *
 *   T, HEAD_DIM, HEAD_DIM_VO, ALIGNED as in attention_tile.cuh; Q, KV, O, CONVERTS, MASK, POS as in attention_modes.cuh
 *   TILE_Q   16, 64, 128; at most 64 if HEAD_DIM or HEAD_DIM_VO is above 128
 * Grid: at least ceil(total_q * group / TILE_Q) + batch blocks by num_kv_heads by ceil(HEAD_DIM_VO / 256). Dynamic shared memory:
 * struct smem. */
#include "attention_modes.cuh"
#include "pdl.cuh"
#include "scan.cuh"

enum { WARPS = TILE_Q / 16, THREADS = 32 * WARPS, TILE = ATTENTION_PREFILL_TILE(HEAD_DIM) };
enum { SMALL = HEAD_DIM <= 64 && COLUMNS <= 64 };
enum { BLOCKS = (SMALL ? 384 : 256) / THREADS }; /* of a multiprocessor, as far as registers go */
enum { QUERIES_SHARED = ATTENTION_QUERIES_SHARED(HEAD_DIM, CONVERTS) };

struct smem {
    unsigned char keys[TILE * ROW_BYTES], values[TILE * VALUE_ROW_BYTES];
#if ATTENTION_QUERIES_SHARED(HEAD_DIM, CONVERTS)
    unsigned char queries[TILE_Q * ROW_BYTES];
#endif
#if POS == 1 /* RoPE */
    float2 turns[HEAD_DIM / 2];
#endif
    int64_t key_at[2][TILE], value_at[2][TILE]; /* elements from the start of the cache, of two tiles */
    uint64_t scratch[32];
    int request, tile;
    uint64_t unused;
};

static_assert(sizeof(struct smem) == ATTENTION_PREFILL_SMEM(HEAD_DIM, HEAD_DIM_VO, TILE_Q, CONVERTS, POS == ATTENTION_POS_ROPE),
              "the host counts on it");

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

DEVICE struct row make_row(const struct attention_args &a, const struct task &t, int row)
{
    struct row r;
    r.token = divide(row, a.by_group);
    r.head = t.kv_head * a.group + (row - r.token * a.group);
    r.begin = 0;
    r.end = t.kv_len;
    if (r.token >= t.qo_len)
        r.end = 0;
    else if (a.causal)
        r.end = max(0, t.kv_len - t.qo_len + r.token + 1);
    if (a.window_left >= 0)
        r.begin = max((int64_t)0, (int64_t)t.kv_len - t.qo_len + r.token - a.window_left);
    return r;
}

DEVICE struct task make_task(const struct attention_args &a, const struct smem *sm)
{
    struct task t;
    t.request = sm->request;
    t.kv_head = blockIdx.y;
    t.column = blockIdx.z * COLUMNS;
    t.first_q = first_query(a, t.request);
    t.qo_len = first_query(a, t.request + 1) - t.first_q;
    t.kv_len = kv_length(a, t.request);
    t.first_row = sm->tile * TILE_Q;
    int last_row = min((int64_t)t.first_row + TILE_Q, (int64_t)t.qo_len * a.group) - 1;
    t.begin = make_row(a, t, t.first_row).begin / TILE * TILE;
    t.end = make_row(a, t, last_row).end;
    return t;
}

DEVICE const Q *query_row(const struct attention_args &a, const struct task &t, int row)
{
    struct row r = make_row(a, t, row);
    return r.token < t.qo_len ? (const Q *)a.q + (t.first_q + r.token) * a.q_token + r.head * a.q_head : NULL;
}

/* Where the keys and values of a tile lie. */
DEVICE void find_tokens(const struct attention_args &a, const struct task &t, int first, struct smem *sm)
{
    for (int i = threadIdx.x; i < TILE; i += THREADS) {
        int64_t key = 0, value = 0;
        if (first + i < t.end) {
            struct slot s = find_slot(a, first_page(a, t.request), first + i);
            key = s.page * a.k_page + s.at * a.k_slot;
            if (a.modes.v_indptr)
                s.at = a.modes.v_indptr[t.request] + first + i;
            value = s.page * a.v_page + s.at * a.v_slot;
        }
        sm->key_at[first / TILE % 2][i] = key;
        sm->value_at[first / TILE % 2][i] = value;
    }
}

/* Queries to shared memory. */
DEVICE void copy_queries(const struct prefill &p, const struct task &t, uint32_t queries, const float2 *turns)
{
#pragma unroll 1
    for (int i = threadIdx.x; i < TILE_Q * (CHUNKS / PIECES); i += THREADS) {
        int row = i / (CHUNKS / PIECES), chunk = i % (CHUNKS / PIECES);
        const Q *from = query_row(p.a, t, t.first_row + row);
        struct row r = make_row(p.a, t, t.first_row + row);
        convert_row<true>(queries, row, chunk, from, turns, t.kv_len - t.qo_len + r.token, p,
                          place_of(t, r.token, 0, r.head, 0));
    }
}

/* Starts copying a tile of keys; `first` is the number of its first token. */
DEVICE void copy_keys(const struct prefill &p, const struct task &t, int first, struct smem *sm, const float2 *turns)
{
    const KV *cache = (const KV *)p.a.k + t.kv_head * p.a.k_head;
    const int64_t *at = sm->key_at[first / TILE % 2];
    uint32_t tile = shared_address(sm->keys);
#if CONVERTS
#pragma unroll 1
    for (int i = threadIdx.x; i < TILE * (CHUNKS / PIECES); i += THREADS) {
        int row = i / (CHUNKS / PIECES), chunk = i % (CHUNKS / PIECES);
        convert_row<false>(tile, row, chunk, first + row < t.end ? cache + at[row] : NULL, turns, first + row, p,
                           place_of(t, 0, first + row, t.kv_head * p.a.group, 0));
    }
#else
    copy_tile<HEAD_DIM>(tile, cache, at, t.end - first);
#endif
    cp_async_commit();
}

DEVICE void copy_values(const struct prefill &p, const struct task &t, int first, struct smem *sm)
{
    const KV *cache = (const KV *)p.a.v + t.kv_head * p.a.v_head + t.column;
    const int64_t *at = sm->value_at[first / TILE % 2];
    uint32_t tile = shared_address(sm->values);
#if CONVERTS
#pragma unroll 1
    for (int i = threadIdx.x; i < TILE * (COLUMNS / 8); i += THREADS) {
        int row = i / (COLUMNS / 8), chunk = i % (COLUMNS / 8);
        float x[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        if (first + row < t.end)
            load_chunk(x, cache + at[row] + 8 * chunk);
        put_chunk<COLUMNS>(tile, row, chunk, x);
    }
#else
    copy_tile<COLUMNS>(tile, cache, at, t.end - first);
#endif
    cp_async_commit();
}

/* Products of the block's queries in shared memory and a tile of keys. */
DEVICE void multiply_shared(float (&s)[TILE / 8][4], uint32_t queries, uint32_t keys)
{
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane % 16;
    clear_logits(s);
#pragma unroll 4
    for (int k = 0; k < HEAD_DIM / 16; k++) {
        uint32_t q[4];
        ldmatrix_x4(q, chunk_address<HEAD_DIM>(queries, row, 2 * k + lane / 16));
        multiply_keys(s, q, keys, k);
    }
}

DEVICE void attend(const struct prefill &p, const struct task &t, struct smem *sm, struct rows &r)
{
    const struct attention_args &a = p.a;
    uint32_t keys = shared_address(sm->keys), values = shared_address(sm->values);
    int row = t.first_row + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    struct row rows[2] = {make_row(a, t, row), make_row(a, t, row + 8)};
    struct logit_rule rule = make_logit_rule(a);
    const int begin[2] = {rows[0].begin, rows[1].begin}, end[2] = {rows[0].end, rows[1].end};
    const float2 *turns = NULL;
#if POS == 1 /* RoPE */
    fill_rotation(sm->turns, a.modes, THREADS);
    turns = sm->turns;
#endif
    if (CHANGES_LOGITS)
        complete_rows(rows, a, rule);

    find_tokens(a, t, t.begin, sm);
    __syncthreads();
    copy_keys(p, t, t.begin, sm, turns);
    copy_values(p, t, t.begin, sm);
#if ATTENTION_QUERIES_SHARED(HEAD_DIM, CONVERTS)
    uint32_t queries = shared_address(sm->queries);
    copy_queries(p, t, queries, turns);
#else
    uint32_t q[HEAD_DIM / 16][4];
    load_queries(q, query_row(a, t, row), query_row(a, t, row + 8));
#endif
    for (int first = t.begin; first < t.end; first += TILE) {
        float s[TILE / 8][4];
        int next = first + TILE;
        find_tokens(a, t, next, sm);
        cp_async_wait<1>();
        __syncthreads();
#if ATTENTION_QUERIES_SHARED(HEAD_DIM, CONVERTS)
        multiply_shared(s, queries, keys);
#else
        multiply_queries(s, q, keys);
#endif
        if (CHANGES_LOGITS)
            change_logits(s, p, t, rows, rule, first);
        else
            scale_logits(s, rule);
        __syncthreads();
        copy_keys(p, t, next, sm, turns);
        if (!CHANGES_LOGITS && (first < max(begin[0], begin[1]) || next > min(end[0], end[1])))
            mask_logits(s, first, begin, end);
        if (!WITHOUT_SOFTMAX)
            weigh(r, s);
        cp_async_wait<1>();
        __syncthreads();
        accumulate(r, s, values);
        __syncthreads();
        copy_values(p, t, next, sm);
    }
    cp_async_wait<0>();
    complete_sums(r);
}

DEVICE void write_rows(const struct prefill &p, const struct task &t, const struct rows &r)
{
    const struct attention_args &a = p.a;
    int column = t.column + threadIdx.x % 4 * 2;
    int first_out = a.modes.o_indptr ? a.modes.o_indptr[t.request] : t.first_q;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        struct row row = make_row(a, t, t.first_row + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * h);
        if (row.token >= t.qo_len)
            continue;
        float lse, factor = finish_row(a, WITHOUT_SOFTMAX ? 0.0f : r.top[h], WITHOUT_SOFTMAX ? 1.0f : r.sum[h], row.head, &lse);
        O *to = (O *)a.out + (first_out + row.token) * a.out_token + row.head * a.out_head + column;
#pragma unroll
        for (int i = 0; i < COLUMNS / 8; i++, to += 8) {
            float x[2] = {r.o[i][2 * h] * factor, r.o[i][2 * h + 1] * factor};
#pragma unroll
            for (int j = 0; HAS_OUTPUT && j < 2; j++)
                x[j] = hook_output(variant_of(p), x[j], place_of(t, row.token, 0, row.head, column + 8 * i + j));
#if ALIGNED
            store(to, x);
#else
            from_float(to, x[0]);
            from_float(to + 1, x[1]);
#endif
        }
        if (a.lse && column == 0)
            a.lse[(first_out + row.token) * a.lse_token + row.head * a.lse_head] = lse;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) batch_prefill_sm80(const __grid_constant__ struct prefill p)
{
    extern __shared__ __align__(128) unsigned char shared[];
    struct smem *sm = (struct smem *)shared;
    pdl_wait();
    pdl_launch();
    /* Later rows of causal attention see more: the longest blocks start first. */
    if (!find_tile(p.a, gridDim.x - 1 - blockIdx.x, sm))
        return;
    struct task t = make_task(p.a, sm);
    struct rows r;
    clear(r);
    if (t.begin < t.end)
        attend(p, t, sm, r);
    write_rows(p, t, r);
}
