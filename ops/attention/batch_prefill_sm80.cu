/* SPDX-License-Identifier: Apache-2.0 */
/* batch_prefill: the query tokens of each request over its pages, FlashAttention-2's order of things.
 *
 * A block has TILE_Q packed rows of one request and KV head, found from qo_indptr, and up to 256 columns of values; blocks beyond
 * the last one leave at once. Each of its warps holds 16 rows, or 32 of 128: what it loads of keys and values then serves both bands
 * of 16, and shared memory is read half as often. All warps share tiles of keys and values, of which the next is copied meanwhile;
 * where its tokens lie is looked up another tile ahead. Queries of more than 128 elements, of two bands, and those that are
 * converted lie in shared memory. Without a window, what a row sums up depends on no TILE_Q, but on KEYS.
 *
 *   T, HEAD_DIM, HEAD_DIM_VO, ALIGNED as in attention_tile.cuh; Q, KV, O, CONVERTS, MASK, POS as in attention_modes.cuh
 *   TILE_Q   16, 64, 128; at most 64 if HEAD_DIM or HEAD_DIM_VO is above 128, and with anything but the usual
 *   KEYS     16, 32, 64: of a tile
 *   SOFT_CAP 1: the plan has one
 * Grid: num_kv_heads times at least ceil(total_q * group / TILE_Q) + batch blocks, by ceil(HEAD_DIM_VO / 256). Dynamic shared memory:
 * struct smem. */
#include "attention_modes.cuh"
#include "pdl.cuh"
#include "scan.cuh"

enum { TILE = KEYS };
enum { SMALL = HEAD_DIM <= 64 && COLUMNS <= 64 };
enum { BLOCKS = (SMALL && __CUDA_ARCH__ < 1000 ? 384 : 256) / THREADS }; /* of a multiprocessor, as far as registers go */
#define QUERIES_SHARED ATTENTION_QUERIES_SHARED(HEAD_DIM, TILE_Q, CONVERTS)
enum { STEPS_AT_ONCE = __CUDA_ARCH__ < 1000 ? 16 : 4 }; /* of products with queries in shared memory, to unroll loops by */
/* Of these the first, whose queries stay in registers: as many as there are for a band of 256 columns. */
enum { KEEPS_STEPS = QUERIES_SHARED && HEAD_DIM == 256 && BANDS == 1 && TILE_Q > 16 && !CHANGES_LOGITS };
enum { STEPS_KEPT = !KEEPS_STEPS || __CUDA_ARCH__ >= 1000 ? 0 : __CUDA_ARCH__ < 900 ? 9 : 10 };
enum { STAGES = ATTENTION_PREFILL_STAGES, KEYS_BYTES = TILE * ROW_BYTES, VALUES_BYTES = TILE * VALUE_ROW_BYTES };

struct smem {
    unsigned char keys[STAGES][KEYS_BYTES], values[STAGES][VALUES_BYTES];
#if QUERIES_SHARED
    unsigned char queries[TILE_Q * ROW_BYTES];
#endif
#if POS == 1 /* RoPE */
    float2 turns[HEAD_DIM / 2];
#endif
    const KV *keys_at[2][TILE], *values_at[2][TILE]; /* rows of the caches, of two tiles */
    uint32_t scratch[32]; /* tiles of warps */
    int request, tile;
};

static_assert(sizeof(struct smem) == ATTENTION_PREFILL_SMEM(HEAD_DIM, HEAD_DIM_VO, TILE_Q, KEYS, CONVERTS, POS == ATTENTION_POS_ROPE),
              "the host counts on it");

DEVICE int tiles_of(const struct attention_args &a, int request)
{
    int64_t rows = (int64_t)(first_query(a, request + 1) - first_query(a, request)) * a.group;
    return (rows + TILE_Q - 1) / TILE_Q;
}

/* Finds the request to which a tile of the whole batch belongs, and which of its tiles it is. False if there is none. */
DEVICE bool find_tile(const struct attention_args &a, int tile, struct smem *sm)
{
    int first = (int64_t)a.batch * threadIdx.x / THREADS, last = (int64_t)a.batch * (threadIdx.x + 1) / THREADS;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, sum = 0;
#pragma unroll 1
    for (int b = first; b < last; b++)
        sum += tiles_of(a, b);
    int before = warp_running_count(sum);
    if (lane == 31)
        sm->scratch[warp] = before;
    __syncthreads();
    before += (int)__reduce_add_sync(0xffffffffu, lane < warp ? sm->scratch[lane] : 0) - sum;
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

DEVICE struct task make_task(const struct attention_args &a, int kv_head, const struct smem *sm)
{
    struct task t;
    t.request = sm->request;
    t.kv_head = kv_head;
    t.column = blockIdx.y * COLUMNS;
    t.first_q = first_query(a, t.request);
    t.qo_len = first_query(a, t.request + 1) - t.first_q;
    t.kv_len = kv_length(a, t.request);
    t.first_row = sm->tile * TILE_Q;
    t.thread = threadIdx.x;
    if (KEYS < 64) /* else there is no register to keep it in */
        forget(t.thread);
    int last_row = min((int64_t)t.first_row + TILE_Q, (int64_t)t.qo_len * a.group) - 1;
    t.begin = make_row(a, t, t.first_row).begin;
    t.end = make_row(a, t, last_row).end;
    return t;
}

DEVICE const Q *query_row(const struct attention_args &a, const struct task &t, int row)
{
    struct row r = make_row(a, t, row);
    return r.token < t.qo_len ? (const Q *)a.q + (t.first_q + r.token) * a.q_token + r.head * a.q_head : NULL;
}

/* The number, in a tile, of the token that this thread finds, if it is one. Threads take turns. */
DEVICE uint32_t token_in(const struct task &t, int tile) { return (uint32_t)(t.thread - tile * TILE) % THREADS; }

/* Behind the last token, that one. */
DEVICE int token_of(const struct task &t, int tile) { return min(tile * TILE + (int)token_in(t, tile), t.end - 1); }

DEVICE struct slot find_token(const struct attention_args &a, const struct task &t, int tile)
{
    return token_in(t, tile) < TILE ? find_slot(a, first_page(a, t.request), token_of(t, tile)) : slot{0, 0};
}

DEVICE void put_token(struct smem *sm, struct slot s, const struct attention_args &a, const struct task &t, int tile)
{
    int n = token_in(t, tile), value = s.at;
    if (n >= TILE)
        return;
    if (CONVERTS && a.modes.v_indptr)
        value = a.modes.v_indptr[t.request] + token_of(t, tile);
    sm->keys_at[tile % 2u][n] = (const KV *)a.k + t.kv_head * a.k_head + s.page * a.k_page + s.at * a.k_slot;
    sm->values_at[tile % 2u][n] = (const KV *)a.v + t.kv_head * a.v_head + t.column + s.page * a.v_page + value * a.v_slot;
}

/* Queries to shared memory, zeros for rows that do not exist; where they are copied as they are, with the group of the first keys. */
DEVICE void copy_queries(const struct prefill &p, const struct task &t, uint32_t queries, const float2 *turns)
{
#pragma unroll 1
    for (int i = threadIdx.x; i < TILE_Q * (CHUNKS / PIECES); i += THREADS) {
        int row = i / (CHUNKS / PIECES), chunk = i % (CHUNKS / PIECES);
        const Q *from = query_row(p.a, t, t.first_row + row);
#if CONVERTS
        struct row r = make_row(p.a, t, t.first_row + row);
        convert_row<true>(queries, row, chunk, from, turns, t.kv_len - t.qo_len + r.token, p,
                          place_of(t, r.token, 0, r.head, 0));
#else
        if (from)
            copy_chunk(chunk_address(queries, row, chunk), from + 8 * chunk);
        else
            *(uint4 *)__cvta_shared_to_generic(chunk_address(queries, row, chunk)) = make_uint4(0, 0, 0, 0);
#endif
    }
}

/* Starts copying a tile of keys. */
DEVICE void copy_keys(const struct prefill &p, const struct task &t, int tile, struct smem *sm, const float2 *turns)
{
    uint32_t to = shared_address(sm->keys[tile % (uint32_t)STAGES]);
#if CONVERTS
    int first = tile * TILE;
#pragma unroll 1
    for (int i = threadIdx.x; i < TILE * (CHUNKS / PIECES); i += THREADS) {
        int row = i / (CHUNKS / PIECES), chunk = i % (CHUNKS / PIECES);
        convert_row<false>(to, row, chunk, first + row < t.end ? sm->keys_at[tile % 2u][row] : NULL, turns, first + row, p,
                           place_of(t, 0, first + row, t.kv_head * p.a.group, 0));
    }
#else
    copy_tile<HEAD_DIM>(to, sm->keys_at[tile % 2u], t.thread);
#endif
}

DEVICE void copy_values(const struct prefill &p, const struct task &t, int tile, struct smem *sm)
{
    uint32_t to = shared_address(sm->values[tile % (uint32_t)STAGES]);
#if CONVERTS
    int first = tile * TILE;
#pragma unroll 1
    for (int i = threadIdx.x; i < TILE * (COLUMNS / 8); i += THREADS) {
        int row = i / (COLUMNS / 8), chunk = i % (COLUMNS / 8);
        float x[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        if (first + row < t.end)
            load_chunk(x, sm->values_at[tile % 2u][row] + 8 * chunk);
        put_chunk<COLUMNS>(to, row, chunk, x);
    }
#else
    copy_tile<COLUMNS>(to, sm->values_at[tile % 2u], t.thread);
#endif
}

/* Of tiles that exist. */
DEVICE void copy_tiles(const struct prefill &p, const struct task &t, int tile, struct smem *sm, const float2 *turns)
{
    if (tile * TILE < t.end) {
        copy_keys(p, t, tile, sm, turns);
        copy_values(p, t, tile, sm);
    }
    cp_async_commit();
}

/* Products of the warp's queries, of which some steps are in `kept`, the others in shared memory, and a tile of keys. */
DEVICE void multiply_shared(float (&s)[BANDS][TILE / 8][4], const uint32_t (&kept)[STEPS_KEPT + 1][BANDS][4], uint32_t queries,
                            uint32_t keys)
{
#pragma unroll
    for (int b = 0; b < BANDS; b++)
        clear_logits(s[b]);
#pragma unroll
    for (int k = 0; k < STEPS_KEPT; k++)
        multiply_keys(s, kept[k], keys, k);
#pragma unroll STEPS_AT_ONCE
    for (int k = STEPS_KEPT; k < HEAD_DIM / 16; k++) {
        uint32_t q[BANDS][4];
        load_step(q, queries, k);
        multiply_keys(s, q, keys, k);
    }
}

/* The first packed row of this thread in a band; the other is 8 below. */
DEVICE int row_of(const struct task &t, int band) { return t.first_row + (threadIdx.x / 32 * BANDS + band) * 16 + threadIdx.x % 32 / 4; }

/* Hides what rows do not see of a tile, if there is a row that does not see it all. */
DEVICE void mask_tile(float (&s)[BANDS][TILE / 8][4], const struct attention_args &a, const struct task &t, int first)
{
#pragma unroll
    for (int b = 0; b < BANDS; b++) {
        struct row low = make_row(a, t, row_of(t, b)), high = make_row(a, t, row_of(t, b) + 8);
        const int begin[2] = {low.begin, high.begin}, end[2] = {low.end, high.end};
        mask_logits(s[b], first, begin, end);
    }
}

/* Products become logits, or only what is s * unit, and unit is returned. */
DEVICE float make_logits(float (&s)[BANDS][TILE / 8][4], const struct prefill &p, const struct task &t, const struct row (&rows)[BANDS][2],
                         struct logit_rule rule, int first)
{
    float unit = CHANGES_LOGITS || SOFT_CAP ? 1.0f : fabsf(rule.factor);
    if (unit < 1e-30f)
        unit = 1e-30f; /* with 0 what is hidden would not stay hidden */
#pragma unroll
    for (int b = 0; b < BANDS; b++) {
        if (CHANGES_LOGITS)
            change_logits(s[b], p, t, rows[b], rule, first);
        else if (SOFT_CAP)
            scale_logits(s[b], rule);
        else if (rule.factor < 0.0f)
            negate_logits(s[b]);
    }
    return unit;
}

DEVICE void attend(const struct prefill &p, const struct task &t, struct smem *sm, struct rows (&r)[BANDS])
{
    const struct attention_args &a = p.a;
    int warp_row = t.first_row + threadIdx.x / 32 * 16 * BANDS;
    const int seen_from = make_row(a, t, warp_row + 16 * BANDS - 1).begin, seen_to = make_row(a, t, warp_row).end; /* by all rows */
    struct row rows[BANDS][2];
    struct logit_rule rule = make_logit_rule(a);
    const float2 *turns = NULL;
    int shared = shared_address(sm); /* which would be made anew at each use, from the block's place in a cluster */
    forget(shared);
    sm = (struct smem *)__cvta_shared_to_generic(shared);
#if POS == 1 /* RoPE */
    fill_rotation(sm->turns, a.modes, THREADS);
    turns = sm->turns;
    __syncthreads();
#endif
    if (!SOFT_CAP)
        rule.cap = 0.0f;
#pragma unroll
    for (int b = 0; b < BANDS && CHANGES_LOGITS; b++) {
        rows[b][0] = make_row(a, t, row_of(t, b));
        rows[b][1] = make_row(a, t, row_of(t, b) + 8);
        complete_rows(rows[b], a, rule);
    }

    int tile = t.begin / TILE, tiles = t.end / TILE + (t.end % TILE > 0), copied = tile;
#if QUERIES_SHARED
    uint32_t queries = shared_address(sm->queries);
    copy_queries(p, t, queries, turns);
#else
    uint32_t q[HEAD_DIM / 16][4];
    load_queries(q, query_row(a, t, row_of(t, 0)), query_row(a, t, row_of(t, 0) + 8));
#endif
#pragma unroll 1
    for (copied--; copied < tile + STAGES - 1; copied++) {
        if (copied >= tile) {
            __syncthreads();
            copy_tiles(p, t, copied, sm, turns);
        }
        put_token(sm, find_token(a, t, copied + 1), a, t, copied + 1);
    }
#if QUERIES_SHARED
    uint32_t kept[STEPS_KEPT + 1][BANDS][4];
    if (STEPS_KEPT) {
        cp_async_wait<0>();
        __syncthreads();
    }
#pragma unroll
    for (int k = 0; k < STEPS_KEPT; k++)
        load_step(kept[k], queries, k);
#endif
#pragma unroll 1
    for (; tile < tiles; tile++, copied++) {
        float s[BANDS][TILE / 8][4];
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        copy_tiles(p, t, copied, sm, turns);
        struct slot slot = find_token(a, t, copied + 1);
        uint32_t keys = shared_address(sm->keys[tile % (uint32_t)STAGES]);
        uint32_t values = shared_address(sm->values[tile % (uint32_t)STAGES]);
#if QUERIES_SHARED
        multiply_shared(s, kept, queries, keys);
#else
        multiply_queries(s[0], q, keys);
#endif
        put_token(sm, slot, a, t, copied + 1);
        float unit = make_logits(s, p, t, rows, rule, tile * TILE);
        if (!CHANGES_LOGITS && (tile * TILE < seen_from || tile * TILE + TILE > seen_to))
            mask_tile(s, a, t, tile * TILE);
        if (!WITHOUT_SOFTMAX)
            weigh(r, s, unit);
        accumulate(r, s, values);
    }
    cp_async_wait<0>();
#pragma unroll
    for (int b = 0; b < BANDS; b++)
        complete_sums(r[b]);
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
    struct finished f = {(O *)a.out + token * a.out_token + row.head * a.out_head + t.column, finish_row(a, top, sum, row.head, &lse)};
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

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) batch_prefill_sm80(const __grid_constant__ struct prefill p)
{
    extern __shared__ __align__(128) unsigned char shared[];
    struct smem *sm = (struct smem *)shared;
    pdl_wait();
    pdl_launch();
    /* Later rows of causal attention see more: the longest blocks start first, those of all heads. Others go head by head. */
    int number = gridDim.x - 1 - blockIdx.x, inner = p.a.causal ? p.a.num_kv_heads : gridDim.x / p.a.num_kv_heads;
    int slow = number / inner, fast = number % inner;
    if (!find_tile(p.a, p.a.causal ? slow : fast, sm))
        return;
    struct task t = make_task(p.a, p.a.causal ? fast : slow, sm);
    struct rows r[BANDS];
#pragma unroll
    for (int b = 0; b < BANDS; b++)
        clear(r[b]);
    if (t.begin < t.end)
        attend(p, t, sm, r);
    write_rows(p, t, r);
}
