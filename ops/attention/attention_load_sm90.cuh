/* SPDX-License-Identifier: Apache-2.0 */
/* The shared memory of a block of batch_prefill_sm90, its rings, and the warps that fill them.
 *
 *   T, HEAD_DIM, HEAD_DIM_VO, CAUSAL, WINDOW, SOFT_CAP, GATHER, PAGED as in batch_prefill_sm90.cu */
#ifndef ATTENTION_LOAD_SM90_CUH
#define ATTENTION_LOAD_SM90_CUH

#include "attention_rows_sm90.cuh"
#include "hopper.cuh"

enum { REPEATED = 8 }; /* more than the tasks that a block has at hand: no new one is taken while one waits here */

struct smem {
    unsigned char queries[BUFFERS][WARPGROUPS][QUERY_BYTES];
    unsigned char keys[STAGES][KEYS_BYTES], values[STAGES][VALUES_BYTES];
    uint64_t queries_full[BUFFERS][WARPGROUPS], queries_empty[BUFFERS][WARPGROUPS];
    uint64_t keys_full[STAGES], keys_empty[STAGES], values_full[STAGES], values_empty[STAGES];
    uint64_t task_passed, task_taken;
    struct task task[TASKS], loaders_task[2];
    volatile int repeat[REPEATED]; /* the number of a task that is to be repeated, of the n-th at n % REPEATED; or -1 */
};

static_assert(sizeof(struct smem) == ATTENTION_PREFILL_SM90_SMEM(HEAD_DIM, HEAD_DIM_VO, WARPGROUPS, GATHER, HAS_HOOKS),
              "the host counts on it");

#define AT(field) shared_address(&sm->field)

/* The first token that any row of a task sees. */
DEVICE int first_seen(const struct attention_args &a, const struct task &t)
{
    return WINDOW ? max(t.kv_len - t.qo_len + t.token - a.window_left, 0) : 0;
}

/* The tiles of keys that any row of a task sees: [first, last]; one, all hidden, if none does. */
DEVICE int first_tile(const struct attention_args &a, const struct task &t) { return first_seen(a, t) / KEYS; }

DEVICE int last_tile(const struct attention_args &a, const struct task &t, int tile_tokens)
{
    int end = CAUSAL ? min(t.kv_len, t.kv_len - t.qo_len + t.token + tile_tokens) : t.kv_len;
    return max((end - 1) / KEYS, first_tile(a, t));
}

/* Of the n-th task of a block. */
DEVICE int buffer_of(int n) { return BUFFERS == 2 ? n & 1 : 0; }
DEVICE int buffer_phase(int n) { return BUFFERS == 2 ? n >> 1 & 1 : n & 1; }

/* ---- the four warps that load: two keys, two values, each half of a tile, since with small pages the copies that a warp can
 * issue are what limits; where a tile is one box, only the first of either two stay, because what loaders execute costs those
 * that compute time and power. The first one also takes tasks and tells the others; the third one loads queries, too, as values
 * are wanted last. */

DEVICE int lane_id() { return threadIdx.x % 32; }

#if GATHER
enum { ROWS = KEYS / 2, ROUNDS = (ROWS + 31) / 32 };

/* Where a lane's rows of half a tile lie, and those of the next tile. */
struct places {
    int half;
    struct slot row[ROUNDS], next[ROUNDS];
};

DEVICE void init_places(const struct attention_sm90_args &, int half, int, struct places &places) { places.half = half; }

/* What the task does not see of its first and last tile repeats what it sees: a weight of 0 times NaN is NaN. */
DEVICE void find_places(const struct attention_args &a, const struct task &t, int tile, struct places &places)
{
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        int token = tile * KEYS + places.half * ROWS + i * 32 + lane_id();
        token = min(WINDOW ? max(token, first_seen(a, t)) : token, t.kv_len - 1);
        places.next[i] = {0, 0};
        if (token >= 0)
            places.next[i] = find_slot(a, t.first_page, token);
    }
}

DEVICE void begin_places(const struct attention_args &a, const struct task &t, int tile, struct places &places)
{
    find_places(a, t, tile, places);
}

/* Page numbers of the next tile are on their way while rows of this one are copied. */
DEVICE void take_places(const struct attention_args &a, const struct task &t, int tile, bool is_last, struct places &places)
{
#pragma unroll
    for (int i = 0; i < ROUNDS; i++)
        places.row[i] = places.next[i];
    if (!is_last)
        find_places(a, t, tile - 1, places);
}

/* Half of a tile of keys or values: eight lanes copy 128 bytes of a row at a time. */
DEVICE void load_tile(const struct attention_sm90_args &p, const struct task &t, int, bool values, uint32_t to, uint32_t full,
                      uint32_t empty, int phase, const struct places &places)
{
    const struct attention_args &a = p.a;
    int lane = lane_id(), chunk = lane % 8;
    const T *cache = (const T *)(values ? a.v : a.k) + t.kv_head * (values ? a.v_head : a.k_head) + chunk * 8;
    int64_t page_stride = values ? a.v_page : a.k_page, slot_stride = values ? a.v_slot : a.k_slot, at[ROUNDS];
    bool exists = t.kv_len > 0;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++)
        at[i] = places.row[i].page * page_stride + places.row[i].at * slot_stride;
    uint32_t there[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
        there[i] = to + (places.half * ROWS + lane / 8) * 128 + ((chunk ^ (lane / 8 + 4 * i)) << 4);
    mbarrier_wait(empty, phase ^ 1);
#pragma unroll
    for (int step = 0; step < ROWS / 4; step++) {
        const T *from = cache + __shfl_sync(0xffffffffu, at[step / 8], step % 8 * 4 + lane / 8);
#pragma unroll
        for (int k = 0; k < KEY_SLABS; k++)
            if (k < VALUE_SLABS || !values)
                cp_async_16_or_zero(there[step % 2] + step * 512 + k * (KEYS * 128), from + k * 64, exists);
    }
    cp_async_arrive(full);
}
#else
/* What a lane copies: 128 bytes of each row of a box, or with PAGED all of them; then the lanes of a warp have the boxes of
 * several tiles, so that pages are looked up once for all of these. */
struct places {
    int back, first, slab; /* the lane's tile counted backwards; its box's first token there; which 128 bytes */
    int count, left;       /* tiles that are looked up at once; those that are not copied yet */
    int tile;              /* the lane's, if there is something to copy; else -1 */
    struct slot slot;
};

DEVICE void init_places(const struct attention_sm90_args &p, int half, int slabs, struct places &places)
{
    int lanes = PAGED ? 1 : slabs, each = (KEYS / p.box_tokens + 1) / 2 * lanes, lane = lane_id();
    places.back = PAGED ? lane / each : lane < each ? 0 : 1;
    places.first = (lane % each / lanes * 2 + half) * p.box_tokens;
    places.slab = lane % lanes;
    places.count = PAGED ? 32 / each : 1;
}

DEVICE void begin_places(const struct attention_args &, const struct task &, int, struct places &places) { places.left = 0; }

DEVICE void take_places(const struct attention_args &a, const struct task &t, int tile, bool, struct places &places)
{
    if (PAGED && places.left-- > 0)
        return;
    int own = tile - places.back, token = own * KEYS + places.first;
    bool due = places.back < places.count && places.first < KEYS && own >= 0 && token < t.kv_len;
    places.left = places.count - 1;
    places.tile = due ? own : -1;
    if (due)
        places.slot = find_slot(a, t.first_page, token);
}

/* Half of a tile of keys or values. Other lanes may copy before the first one says how many bytes to expect, as the phase cannot
 * end without its arrival. */
DEVICE void load_tile(const struct attention_sm90_args &p, const struct task &t, int tile, bool values, uint32_t to,
                      uint32_t full, uint32_t empty, int phase, const struct places &places)
{
    int slabs = values ? VALUE_SLABS : KEY_SLABS;
    bool due = places.tile == tile;
    mbarrier_wait(empty, phase ^ 1);
    int boxes = __popc(__ballot_sync(0xffffffffu, due));
    if (lane_id() == 0)
        mbarrier_arrive_expect(full, boxes * p.box_tokens * 128 * (PAGED ? slabs : 1));
    const struct tensor_map *map = values ? &p.v : &p.k;
    int head_slabs = values ? p.v_head_slabs : p.k_head_slabs;
    if (due && PAGED)
        tensor_load_5d(to + places.first * slabs * 128, map, full, 0, 0, t.kv_head * head_slabs, places.slot.at >> 3,
                       places.slot.page);
    else if (due)
        tensor_load_4d(to + places.slab * (KEYS * 128) + places.first * 128, map, full, places.slab * 64, places.slot.at,
                       t.kv_head, places.slot.page);
}
#endif

/* Warps for keys, and for values. */
DEVICE int loaders_of_each(const struct attention_sm90_args &p) { return p.box_tokens == KEYS ? 1 : 2; }

DEVICE void load_queries(const struct attention_sm90_args &p, const struct task &t, struct smem *sm, int n)
{
    int lane = lane_id(), buffer = buffer_of(n);
    for (int w = 0; w < WARPGROUPS; w++)
        mbarrier_wait(AT(queries_empty[buffer][w]), buffer_phase(n) ^ 1);
    if (lane == 0) {
        sm->task[n % TASKS] = t;
        for (int w = 0; w < WARPGROUPS; w++)
            if (t.kv_head < 0)
                mbarrier_arrive(AT(queries_full[buffer][w]));
            else
                mbarrier_arrive_expect(AT(queries_full[buffer][w]), p.q_tokens * p.a.group * (128 * KEY_SLABS));
    }
    if (t.kv_head >= 0 && lane < WARPGROUPS)
#pragma unroll
        for (int i = 0; i < KEY_SLABS; i++)
            tensor_load_4d(AT(queries[buffer][lane]) + i * 8192, &p.q, AT(queries_full[buffer][lane]), i * 64, 0, t.kv_head,
                           t.first_q + t.token + lane * p.q_tokens);
}

/* By a whole warp: a place in `repeat` that has a task, or -1. */
DEVICE int find_repeated(const struct smem *sm)
{
    return __ffs(__ballot_sync(0xffffffffu, REPEATS && sm->repeat[lane_id() % REPEATED] >= 0)) - 1;
}

DEVICE int next_number(const struct attention_schedule &s)
{
    int number = 0x7fffffff; /* of no task */
    if (s.next && lane_id() == 0)
        number = atomicAdd(s.next, 1);
    return __shfl_sync(0xffffffffu, number, 0);
}

/* By the first warp: passes on the n-th task of this block, at once one that is to be repeated. */
DEVICE void take_task(const struct attention_sm90_args &p, struct smem *sm, int n)
{
    struct task t = {};
    int place = find_repeated(sm), number = place >= 0 ? sm->repeat[place] : n ? next_number(p.schedule) : blockIdx.x;
    find_task(p.a, p.schedule, number, WARPGROUPS * p.q_tokens, (HEAD_DIM + HEAD_DIM_VO) * 2, &t);
    /* Until all rows that see anything have a reference. */
    t.careful = (CAUSAL ? max(t.kv_len - t.qo_len + t.token, 0) : t.kv_len) / KEYS;
    if (place >= 0) {
        /* A warpgroup that ends the task later puts it here again, or its mark is erased: it repeats the task anyway. */
        t.careful = 0;
        __syncwarp();
        sm->repeat[place] = -1;
    }
    mbarrier_wait(AT(task_taken), (n & 1) ^ 1);
    if (threadIdx.x == 0) {
        sm->loaders_task[n & 1] = t;
        mbarrier_arrive(AT(task_passed));
    }
    __syncwarp();
}

/* By all warps, when there are no more tasks and all are done: whether some are to be repeated. */
DEVICE bool must_repeat(const struct attention_sm90_args &p, const struct smem *sm)
{
    int threads = 128 * WARPGROUPS + 64 * loaders_of_each(p);
    if (!REPEATS)
        return false;
    named_barrier_sync(END_BARRIER, threads);
    bool must = find_repeated(sm) >= 0;
    if (must) /* before the first one is taken */
        named_barrier_sync(END_BARRIER, threads);
    return must;
}

/* By all four: the n-th task. */
DEVICE struct task receive_task(struct smem *sm, int n)
{
    mbarrier_wait(AT(task_passed), n & 1);
    struct task t = sm->loaders_task[n & 1];
    __syncwarp();
    if (lane_id() == 0)
        mbarrier_arrive(AT(task_taken));
    return t;
}

/* By a whole warp, while the kernel before still runs: what the first task begins with comes to the L2 cache. Tables that it may
 * yet write are read past the L1 cache, for this alone; whatever they say, copies stay in their tensors. */
DEVICE void look_ahead(const struct attention_sm90_args &p)
{
    const struct attention_args &a = p.a;
    struct task t;
    if (!a.stream.ahead || p.schedule.next)
        return;
    find_task(a, p.schedule, blockIdx.x, WARPGROUPS * p.q_tokens, (HEAD_DIM + HEAD_DIM_VO) * 2, &t, true);
    if (t.kv_head < 0)
        return;
    int lane = lane_id();
    if (lane < WARPGROUPS)
#pragma unroll
        for (int i = 0; i < KEY_SLABS; i++)
            tensor_prefetch_4d(&p.q, i * 64, 0, t.kv_head, t.first_q + t.token + lane * p.q_tokens);
#if !GATHER
    bool values = lane >= 16;
    int first = lane % 16 * p.box_tokens, token = last_tile(a, t, WARPGROUPS * p.q_tokens) * KEYS + first;
    if (first >= KEYS || token >= t.kv_len)
        return;
    struct slot s = {0, t.first_page + token};
    if (a.kv_last_page_len) {
        int page = divide(token, a.by_page_size), at = t.first_page + page;
        if ((uint32_t)at >= (uint32_t)a.stream.num_indices)
            return;
        s = {entry(a.kv_indices, at, true), token - page * a.page_size};
    }
    const struct tensor_map *map = values ? &p.v : &p.k;
    if (PAGED)
        tensor_prefetch_5d(map, 0, 0, t.kv_head * (values ? p.v_head_slabs : p.k_head_slabs), s.at / 8, s.page);
    else
        for (int i = 0; i < (values ? VALUE_SLABS : KEY_SLABS); i++)
            tensor_prefetch_4d(map, i * 64, s.at, t.kv_head, s.page);
#endif
}

DEVICE void load_all(const struct attention_sm90_args &p, struct smem *sm)
{
    int warp = __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0), half = warp % 2, tile_tokens = WARPGROUPS * p.q_tokens;
    bool leads = warp == 0, values = warp >= 2;
    if (half >= loaders_of_each(p))
        return;
    uint32_t tiles = values ? AT(values[0]) : AT(keys[0]), full = values ? AT(values_full[0]) : AT(keys_full[0]);
    uint32_t empty = values ? AT(values_empty[0]) : AT(keys_empty[0]);
    struct ring ring = {0, 0};
    struct task t = {-1};
    struct places places;
    init_places(p, half, values ? VALUE_SLABS : KEY_SLABS, places);
    int n = -1, first = 0, last = 0; /* before the first task, as at its last tile */
    for (int tile = 0;; tile--) {
        if (t.kv_head >= 0) {
            int stage = ring.stage;
            take_places(p.a, t, tile, tile == first, places);
            load_tile(p, t, tile, values, tiles + stage * (values ? VALUES_BYTES : KEYS_BYTES), full + 8 * stage,
                      empty + 8 * stage, ring.phase, places);
            advance<STAGES>(ring);
        }
        /* Late, so that no block hoards long tasks, but a tile ahead, so that nobody waits for the next one. */
        if (leads && tile == min(first + 1, last))
            take_task(p, sm, n + 1);
        if (tile > first)
            continue;
        t = receive_task(sm, ++n);
        if (warp == 2)
            load_queries(p, t, sm, n);
        if (t.kv_head < 0) {
            if (n == 0 || !must_repeat(p, sm))
                return;
            first = last = 0; /* as before the first task: the next step takes one */
            tile = 1;
            continue;
        }
        first = first_tile(p.a, t);
        last = last_tile(p.a, t, tile_tokens);
        tile = last + 1;
        begin_places(p.a, t, last, places);
    }
}

#endif
