/* SPDX-License-Identifier: Apache-2.0 */
/* batch_prefill: the query tokens of each request over its pages, FlashAttention-2's order of things.
 *
 * A block has TILE_Q packed rows of one request and KV head, found from qo_indptr, and up to 256 columns of values; blocks beyond
 * the last one leave at once. Each of its warps holds 16 rows, or 32 of 128: what it loads of keys and values then serves both
 * bands of 16, and shared memory is read half as often. All warps share tiles of keys and values, of which the next is copied
 * meanwhile; where its tokens lie is looked up another tile ahead. Queries of more than 128 elements, of two bands, and those
 * that are converted lie in shared memory. Without a window, what a row sums up depends on no TILE_Q, but on KEYS.
 *
 *   T, HEAD_DIM, HEAD_DIM_VO, ALIGNED as in attention_tile.cuh; Q, KV, O, CONVERTS, MASK, POS as in attention_modes.cuh
 *   TILE_Q   16, 64, 128; at most 64 if HEAD_DIM or HEAD_DIM_VO is above 128, and with anything but the usual
 *   KEYS     16, 32, 64: of a tile
 *   SOFT_CAP 1: the plan has one
 *   PARTS    1; from sm_90 on 2, 4, 8: blocks of a cluster, each of which sees a part of a request's keys
 * Grid: num_kv_heads times at least ceil(total_q * group / TILE_Q) + batch blocks, by ceil(HEAD_DIM_VO / 256), by PARTS. Dynamic
 * shared memory: struct smem. */
#include "attention_write.cuh"
#include "pdl.cuh"
#include "scan.cuh"

enum { TILE = KEYS };
enum { SMALL = HEAD_DIM <= 64 && COLUMNS <= 64 };
/* Of a multiprocessor, as far as registers go. */
enum { BLOCKS = (SMALL && PARTS == 1 && __CUDA_ARCH__ < 1000 ? 384 : 256) / THREADS };
#define QUERIES_SHARED ATTENTION_QUERIES_SHARED(HEAD_DIM, TILE_Q, CONVERTS)
enum { STEPS_AT_ONCE = __CUDA_ARCH__ < 1000 ? 16 : 4 }; /* of products with queries in shared memory, to unroll loops by */
/* Of these the first, whose queries stay in registers: as many as there are for a band of 256 columns. */
enum { KEEPS_STEPS = QUERIES_SHARED && HEAD_DIM == 256 && BANDS == 1 && TILE_Q > 16 && !CHANGES_LOGITS };
enum { STEPS_KEPT = !KEEPS_STEPS || __CUDA_ARCH__ >= 1000 ? 0 : __CUDA_ARCH__ < 900 ? 9 : 10 };
enum { STAGES = ATTENTION_PREFILL_STAGES, KEYS_BYTES = TILE * ROW_BYTES, VALUES_BYTES = TILE * VALUE_ROW_BYTES };

struct smem {
    unsigned char tiles[STAGES][KEYS_BYTES + VALUES_BYTES]; /* keys, then values */
#if QUERIES_SHARED
    unsigned char queries[TILE_Q * ROW_BYTES];
#endif
#if POS == 1 /* RoPE */
    float2 turns[HEAD_DIM / 2];
#endif
    const KV *rows_at[2][2 * TILE]; /* rows of the caches, those of keys, then of values, of two tiles */
    int2 seen[WARPS];     /* by all rows of a warp: tokens from, and before */
    uint32_t scratch[32]; /* tiles of warps */
    struct task task;
};

static_assert(sizeof(struct smem) ==
                  ATTENTION_PREFILL_SMEM(HEAD_DIM, HEAD_DIM_VO, TILE_Q, KEYS, CONVERTS, POS == ATTENTION_POS_ROPE),
              "the host counts on it");

DEVICE int tiles_of(const struct attention_args &a, int request)
{
    uint32_t rows = (first_query(a, request + 1) - first_query(a, request)) * a.group;
    return (rows + TILE_Q - 1) / TILE_Q;
}

DEVICE struct task make_task(const struct attention_args &a, int request, int kv_head, int tile)
{
    struct attention_scheduled r = see_request(a, request);
    struct task t;
    t.request = request;
    t.kv_head = kv_head;
    t.first_page = r.first_page;
    t.column = blockIdx.y * COLUMNS;
    t.keys = (const KV *)a.k + kv_head * a.k_head;
    t.values = (const KV *)a.v + kv_head * a.v_head + t.column;
    t.first_q = r.first_q;
    t.qo_len = r.qo_len;
    t.kv_len = r.kv_len;
    t.first_row = tile * TILE_Q;
    int last_row = min((uint32_t)t.first_row + TILE_Q, (uint32_t)t.qo_len * a.group) - 1;
    t.begin = make_row(a, t, t.first_row).begin;
    t.end = make_row(a, t, last_row).end;
#if PARTS > 1
    if (t.begin < t.end) {
        int first = t.begin / TILE, tiles = (t.end - 1) / TILE + 1 - first, each = (tiles + PARTS - 1) / PARTS;
        first += each * blockIdx.z;
        t.begin = max(t.begin, first * TILE);
        t.end = min(t.end, (first + each) * TILE);
    }
#endif
    t.rule = make_logit_rule(a);
    if (!SOFT_CAP)
        t.rule.cap = 0.0f;
    return t;
}

/* Finds the rows of a tile of the whole batch. False if there are none. */
DEVICE bool find_task(const struct attention_args &a, int tile, int kv_head, struct smem *sm)
{
    int each = (a.batch + THREADS - 1) / THREADS, first = min((int)threadIdx.x * each, a.batch);
    int last = min(first + each, a.batch);
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
        for (int tiles; tile >= before + (tiles = tiles_of(a, first)); first++)
            before += tiles;
        sm->task = make_task(a, first, kv_head, tile - before);
    }
    return __syncthreads_or(found);
}

DEVICE const Q *query_row(const struct attention_args &a, const struct task &t, int row)
{
    struct row r = make_row(a, t, row);
    return r.token < t.qo_len ? (const Q *)a.q + (t.first_q + r.token) * a.q_token + r.head * a.q_head : NULL;
}

/* The number, in a tile, of the token that this thread finds, if it is one. Threads take turns. */
DEVICE uint32_t token_in(int thread, int tile) { return (uint32_t)(thread - tile * TILE) % THREADS; }

/* Behind the last token, that one; before the first that a row sees, that one too, since a weight of 0 times NaN is NaN. What
 * converts leaves such values out instead: hooks are told of each key. */
DEVICE int token_of(const struct task &t, int thread, int tile)
{
    return min(max(tile * TILE + (int)token_in(thread, tile), CONVERTS ? 0 : t.begin), t.end - 1);
}

DEVICE struct slot find_token(const struct attention_args &a, const struct task &t, int thread, int tile)
{
    return token_in(thread, tile) < TILE ? find_slot(a, t.first_page, token_of(t, thread, tile)) : slot{0, 0};
}

DEVICE void put_token(struct smem *sm, struct slot s, const struct attention_args &a, const struct task &t, int thread, int tile)
{
    uint32_t n = token_in(thread, tile), page = s.page, key = s.at, value = key;
    if (n >= TILE)
        return;
    if (CONVERTS && a.modes.v_indptr)
        value = a.modes.v_indptr[t.request] + token_of(t, thread, tile);
    sm->rows_at[tile % 2u][n] = t.keys + (page * a.k_page + key * a.k_slot);
    sm->rows_at[tile % 2u][TILE + n] = t.values + (page * a.v_page + value * a.v_slot);
}

/* Whether queries change their signs, so that what products are multiplied by is positive. */
DEVICE bool is_negated(struct logit_rule rule) { return !CHANGES_LOGITS && !SOFT_CAP && rule.factor < 0.0f; }

/* Queries to shared memory, zeros for rows that do not exist; where they are copied as they are, with the group of the first
 * keys. */
DEVICE void copy_queries(const struct prefill &p, const struct task &t, uint32_t queries, const float2 *turns, bool negated)
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
    if (negated) {
        cp_async_commit();
        cp_async_wait<0>();
#pragma unroll 1
        for (int i = threadIdx.x; i < TILE_Q * CHUNKS; i += THREADS) {
            uint4 *x = (uint4 *)__cvta_shared_to_generic(chunk_address(queries, i / CHUNKS, i % CHUNKS));
            *x = make_uint4(x->x ^ SIGNS, x->y ^ SIGNS, x->z ^ SIGNS, x->w ^ SIGNS);
        }
    }
}

/* Starts copying a tile, if it exists. */
DEVICE void copy_tiles(const struct prefill &p, const struct task &t, int thread, int tile, struct smem *sm, const float2 *turns)
{
    uint32_t keys = shared_address(sm->tiles[tile % (uint32_t)STAGES]), values = keys + KEYS_BYTES;
    const KV *const *rows = sm->rows_at[tile % 2u];
    int first = tile * TILE;
    if (first < t.end) {
#if CONVERTS
#pragma unroll 1
        for (int i = threadIdx.x; i < TILE * (CHUNKS / PIECES); i += THREADS) {
            int row = i / (CHUNKS / PIECES), chunk = i % (CHUNKS / PIECES);
            convert_row<false>(keys, row, chunk, first + row < t.end ? rows[row] : NULL, turns, first + row, p,
                               place_of(t, 0, first + row, t.kv_head * p.a.group, 0));
        }
#pragma unroll 1
        for (int i = threadIdx.x; i < TILE * (COLUMNS / 8); i += THREADS) {
            int row = i / (COLUMNS / 8), chunk = i % (COLUMNS / 8);
            float x[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
            if (first + row >= t.begin && first + row < t.end)
                load_chunk(x, rows[TILE + row] + 8 * chunk);
            put_chunk<COLUMNS>(values, row, chunk, x);
        }
#else
        copy_tile<HEAD_DIM, HEAD_DIM == COLUMNS ? 2 * TILE : TILE>(keys, rows, thread);
        if (HEAD_DIM != COLUMNS)
            copy_tile<COLUMNS, TILE>(values, rows + TILE, thread);
#endif
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

/* Hides what rows do not see of a tile, as it lies before or behind what they see. */
DEVICE void mask_tile(float (&s)[BANDS][TILE / 8][4], const struct attention_args &a, const struct task &t, int first,
                      bool behind)
{
#pragma unroll
    for (int b = 0; b < BANDS; b++) {
        struct row low = make_row(a, t, row_of(t, b)), high = make_row(a, t, row_of(t, b) + 8);
        const int limit[2] = {behind ? low.end : low.begin, behind ? high.end : high.begin};
        mask_logits(s[b], first, limit, behind);
    }
}

/* Products become logits, or only what is s * unit, and unit is returned. (With a negative one queries have the other sign.) */
DEVICE float make_logits(float (&s)[BANDS][TILE / 8][4], const struct prefill &p, const struct task &t,
                         const struct row (&rows)[BANDS][2], struct logit_rule rule, int first)
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
    }
    return unit;
}

/* This thread's rows, where logits depend on more than keys and queries. */
DEVICE void make_rows(struct row (&rows)[BANDS][2], const struct attention_args &a, const struct task &t)
{
#pragma unroll
    for (int b = 0; b < BANDS && CHANGES_LOGITS; b++) {
        rows[b][0] = make_row(a, t, row_of(t, b));
        rows[b][1] = make_row(a, t, row_of(t, b) + 8);
        complete_rows(rows[b], a, t.rule);
    }
}

/* Starts the copies of as many tiles as are under way at once, `copied` and on. A tile's tokens are found a step before. */
DEVICE void copy_first_tiles(const struct prefill &p, const struct task &t, bool exists, int thread, int &copied,
                             struct smem *sm, const float2 *turns)
{
    const struct attention_args &a = p.a;
    int tile = copied;
#pragma unroll 1
    for (copied--; exists && copied < tile + STAGES - 1; copied++) {
        if (copied >= tile) {
            __syncthreads();
            copy_tiles(p, t, thread, copied, sm, turns);
        }
        put_token(sm, find_token(a, t, thread, copied + 1), a, t, thread, copied + 1);
    }
}

DEVICE void attend(const struct prefill &p, const struct task &t, struct smem *sm, struct rows (&r)[BANDS])
{
    const struct attention_args &a = p.a;
    struct row rows[BANDS][2];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_row = t.first_row + warp * 16 * BANDS;
    if (lane == 0)
        sm->seen[warp] = make_int2(make_row(a, t, warp_row + 16 * BANDS - 1).begin, make_row(a, t, warp_row).end);
    const float2 *turns = NULL;
    int thread = threadIdx.x; /* which would be asked for behind each barrier */
    if (KEYS < 64) /* else there is no register to keep it in */
        forget(thread);
    int shared = shared_address(sm); /* which would be made anew at each use, from the block's place in a cluster */
    forget(shared);
    sm = (struct smem *)__cvta_shared_to_generic(shared);
#if POS == 1 /* RoPE */
    fill_rotation(sm->turns, a.modes, THREADS);
    turns = sm->turns;
    __syncthreads();
#endif
    make_rows(rows, a, t);

    bool exists = t.begin < t.end;
    int tile = t.begin / TILE, tiles = exists ? (t.end - 1) / TILE + 1 : 0, copied = tile;
#if QUERIES_SHARED
    uint32_t queries = shared_address(sm->queries);
    copy_queries(p, t, queries, turns, is_negated(t.rule));
#else
    uint32_t q[HEAD_DIM / 16][4];
    load_queries(q, query_row(a, t, row_of(t, 0)), query_row(a, t, row_of(t, 0) + 8), is_negated(t.rule) ? SIGNS : 0);
#endif
    copy_first_tiles(p, t, exists, thread, copied, sm, turns);
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
        copy_tiles(p, t, thread, copied, sm, turns);
        int2 seen = sm->seen[warp];
        struct slot slot = find_token(a, t, thread, copied + 1);
        uint32_t keys = shared_address(sm->tiles[tile % (uint32_t)STAGES]);
#if QUERIES_SHARED
        multiply_shared(s, kept, queries, keys);
#else
        multiply_queries(s[0], q, keys);
#endif
        put_token(sm, slot, a, t, thread, copied + 1);
        float unit = make_logits(s, p, t, rows, PARTS > 1 ? sm->task.rule : t.rule, tile * TILE);
#pragma unroll 1
        for (int side = tile * TILE >= seen.x; !CHANGES_LOGITS && side < 1 + (tile * TILE + TILE > seen.y); side++)
            mask_tile(s, a, t, tile * TILE, side);
        if (!WITHOUT_SOFTMAX)
            weigh(r, s, unit);
        accumulate(r, s, keys + KEYS_BYTES);
    }
    cp_async_wait<0>();
#pragma unroll
    for (int b = 0; b < BANDS; b++)
        complete_sums(r[b]);
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
    if (!find_task(p.a, p.a.causal ? slow : fast, p.a.causal ? fast : slow, sm))
        return;
    struct rows r[BANDS];
#pragma unroll
    for (int b = 0; b < BANDS; b++)
        clear(r[b]);
    struct task copy = sm->task; /* which stays in registers, if there are some */
    const struct task &t = SMALL && TILE_Q == 128 ? sm->task : copy;
    attend(p, t, sm, r);
#if PARTS > 1
    static_assert(sizeof(struct part) <= sizeof sm->tiles + sizeof sm->queries, "a part fits");
    write_parts(p, sm->task, (struct part *)sm, r);
#else
    write_rows(p, t, r);
#endif
}
