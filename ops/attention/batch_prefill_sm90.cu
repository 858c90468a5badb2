/* SPDX-License-Identifier: Apache-2.0 */
/* batch_prefill on Hopper: bulk copies, wgmma, a warpgroup that loads and WARPGROUPS that compute 64 packed rows each.
 *
 * Blocks stay and take tiles (attention_schedule.cuh) until there are none. Keys and values run through two rings of STAGES tiles
 * of KEYS tokens, walked from the last one to the first. Queries times keys of a tile are issued together with weights times
 * values of the tile before it, and with two buffers of queries this goes on from one task to the next. The row's reference
 * logit moves only when a logit exceeds it by 2^HEADROOM, so that most tiles need neither shuffles nor rescaled results; or
 * (REPEATS) not at all after a task's first tiles, so that most need no maxima: a task in which weights became too large for
 * that is repeated.
 *
 *   T        f16, bf16
 *   HEAD_DIM, HEAD_DIM_VO  64, 64; 128, 128; 192, 128; 256, 256
 *   CAUSAL, WINDOW, SOFT_CAP 0, 1
 *   GATHER   0: keys and values come as boxes of box_tokens; 1: pages are too small for that, and each row is copied by itself
 *   PAGED    1: boxes have all of head_dim, so that a page is one or few; 0: 64 elements of it
 * Dynamic shared memory: struct smem. */
#include "attention_load_sm90.cuh"
#include "pdl.cuh"

/* ---- the warpgroups that compute */

DEVICE bool next_task(struct smem *sm, int n)
{
    mbarrier_wait(AT(queries_full[buffer_of(n)][threadIdx.x / 128 - 1]), buffer_phase(n));
    return sm->task[n % TASKS].kv_head >= 0;
}

DEVICE struct view see_task(const struct attention_sm90_args &p, const struct smem *sm, int n)
{
    const struct attention_args &a = p.a;
    struct task t = sm->task[n % TASKS];
    struct view v;
    int w = threadIdx.x / 128 - 1, thread = threadIdx.x % 128;
    int shift = t.kv_len - t.qo_len, first_token = t.token + w * p.q_tokens;
    v.tile = last_tile(a, t, WARPGROUPS * p.q_tokens);
    v.first = first_tile(a, t);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = thread / 32 * 16 + thread % 32 / 4 + 8 * h, token = divide(row, a.by_group);
        v.begin[h] = WINDOW ? shift + first_token + token - a.window_left : 0;
        v.end[h] = CAUSAL ? min(shift + first_token + token + 1, t.kv_len) : t.kv_len;
        if (HAS_HOOKS && (token >= p.q_tokens || first_token + token >= t.qo_len))
            v.end[h] = 0; /* a row that does not exist: nothing for hooks to see */
    }
    return v;
}

/* Steps of 16 tokens of the n-th task's first tile that lie before the first token that the task sees. */
DEVICE int unseen_steps(struct smem *sm, const struct attention_args &a, int n)
{
    return WINDOW && !GATHER ? first_seen(a, sm->task[n % TASKS]) % KEYS / 16 : 0;
}

/* Zeros for values that no row sees, of a tile of the n-th task: behind the request's last token, or before the first one that
 * the task sees, in that one's step. Whatever lies there, times a weight of 0, must not become NaN. Each warpgroup does so for
 * itself, and all write the same. */
template <bool BEFORE>
DEVICE void clear_unseen(struct smem *sm, const struct attention_args &a, const struct ring &ring, int n, int tile)
{
    int from = BEFORE ? unseen_steps(sm, a, n) * 16 : max(sm->task[n % TASKS].kv_len - tile * KEYS, 0);
    int end = BEFORE ? first_seen(a, sm->task[n % TASKS]) - tile * KEYS : KEYS, thread = threadIdx.x % 128;
    if (GATHER || from >= end)
        return;
    mbarrier_wait(AT(values_full[ring.stage]), ring.phase);
#pragma unroll 1
    for (int row = from + thread / 8; row < end; row += 16)
#pragma unroll
        for (int i = 0; i < VALUE_SLABS; i++)
            *(uint4 *)(sm->values[ring.stage] + i * SLAB_STEP + row / 8 * VALUES_STEP + row % 8 * 128 + thread % 8 * 16) =
                make_uint4(0, 0, 0, 0);
    shared_async_fence();
    named_barrier_sync(TAIL_BARRIER + threadIdx.x / 128 - 1, 128);
}

DEVICE void wait_tile(uint32_t full, int phase)
{
    mbarrier_wait(full, phase);
    if (GATHER)
        shared_async_fence();
}

/* The place of a warpgroup in its work. */
struct worker {
    struct rows r;
    struct view v;
    struct scale scale;
    struct ring ring;
    int warpgroup; /* from 0 */
};

DEVICE bool is_first_thread() { return threadIdx.x % 128 == 0; }

/* Of the n-th task. */
DEVICE void hide_or_change(struct worker &w, struct smem *sm, const struct attention_sm90_args &p, int n)
{
#if HAS_HOOKS
    struct task t = sm->task[n % TASKS];
    change_logits(w.r, w.v, p, t, t.token + w.warpgroup * p.q_tokens);
#else
    hide(w.r, w.v);
#endif
}

/* Values of the tile before, but for its first `unseen` steps, with nothing else to go on. */
DEVICE void add_values(struct worker &w, struct smem *sm, int unseen)
{
    wait_tile(AT(values_full[w.ring.stage]), w.ring.phase);
    issue_values(w.r, AT(values[w.ring.stage]), unseen);
    wgmma_wait<0>();
    wgmma_pin(w.r.o);
    if (is_first_thread())
        mbarrier_arrive(AT(values_empty[w.ring.stage]));
    advance<STAGES>(w.ring);
}

/* A tile with nothing else to go on: the first one of a task, or one at which references may move. */
DEVICE void take_tile(struct worker &w, struct smem *sm, const struct attention_sm90_args &p, int n, bool first)
{
    struct task t = sm->task[n % TASKS];
    float unit = fabsf(w.scale.unit);
    if (first) {
        w.v = see_task(p, sm, n);
        forget(w.r, p, t, t.token + w.warpgroup * p.q_tokens);
        clear(w.r);
    } else {
        add_values(w, sm, 0);
    }
    wait_tile(AT(keys_full[w.ring.stage]), w.ring.phase);
    keep_queries(w.r, AT(queries[buffer_of(n)][w.warpgroup]));
    issue_logits(w.r, AT(queries[buffer_of(n)][w.warpgroup]), AT(keys[w.ring.stage]));
    wgmma_wait<0>();
    wgmma_pin(w.r.s);
    if (is_first_thread())
        mbarrier_arrive(AT(keys_empty[w.ring.stage]));
    scale_logits(w.r, w.scale);
    hide_or_change(w, sm, p, n);
    move_references(w.r, unit, first);
    struct weighing weighing = weigh_by(w.r, unit);
    weigh(w.r, weighing, 0, KEYS / 2);
    pack(w.r);
    clear_unseen<false>(sm, p.a, w.ring, n, w.v.tile);
    if (!first && w.r.moved)
        rescale(w.r);
    w.v.tile--;
}

/* Writes the n-th task, whose state is top and sum, or has it repeated. */
DEVICE void end_task(struct worker &w, struct smem *sm, const struct attention_sm90_args &p, int n, const float (&top)[2],
                     const float (&sum)[2])
{
    struct task t = sm->task[n % TASKS];
    int first_token = t.token + w.warpgroup * p.q_tokens;
    if (REPEATS && t.careful > 0 && !__all_sync(0xffffffffu, is_right(p, w.r, sum, t, first_token)) &&
        threadIdx.x % 32 == 0)
        sm->repeat[n % REPEATED] = t.number;
    write_rows(p, w.r, top, sum, fabsf(w.scale.unit), t, first_token);
}

/* Logits of a tile, and values of the one before. `next`: it is the first of another task; the n-th ends. */
DEVICE void step(struct worker &w, struct smem *sm, const struct attention_sm90_args &p, int n, bool next)
{
    struct rows &r = w.r;
    struct ring before = w.ring;
    advance<STAGES>(w.ring);
    wait_tile(AT(keys_full[w.ring.stage]), w.ring.phase);
    if (next)
        keep_queries(r, AT(queries[buffer_of(n + 1)][w.warpgroup]));
    if (TURNS)
        named_barrier_sync(TURN_BARRIER + w.warpgroup, 256);
    issue_logits(r, AT(queries[buffer_of(next ? n + 1 : n)][w.warpgroup]), AT(keys[w.ring.stage]));
    wait_tile(AT(values_full[before.stage]), before.phase);
    issue_values(r, AT(values[before.stage]), next ? unseen_steps(sm, p.a, n) : 0);
    if (TURNS)
        named_barrier_arrive(TURN_BARRIER + (w.warpgroup + 1 == WARPGROUPS ? 0 : w.warpgroup + 1), 256);
    wgmma_wait<1>();
    wgmma_pin(r.s);
    if (is_first_thread())
        mbarrier_arrive(AT(keys_empty[w.ring.stage]));
    if (next)
        w.v = see_task(p, sm, n + 1);
    scale_logits(r, w.scale);
    if (next || (!REPEATS && (CAUSAL || WINDOW || HAS_HOOKS)))
        hide_or_change(w, sm, p, next ? n + 1 : n);
    float top[2] = {r.top[0], r.top[1]}, sum[2] = {r.sum[0], r.sum[1]};
    if (next) {
        struct task t = sm->task[(n + 1) % TASKS];
        forget(r, p, t, t.token + w.warpgroup * p.q_tokens);
    }
    r.moved = false;
    if (next || !REPEATS)
        move_references(r, fabsf(w.scale.unit), next);
    struct weighing weighing = weigh_by(r, fabsf(w.scale.unit));
    weigh(r, weighing, 0, REPEATS && !next ? AHEAD : 0);
    if (REPEATS && !next)
        wgmma_divide(p.a.batch < 0, weighing.base[0], weighing.base[1]);
    wgmma_wait<0>();
    wgmma_pin(r.o);
    weigh(r, weighing, REPEATS && !next ? AHEAD : 0, KEYS / 2);
    if (is_first_thread())
        mbarrier_arrive(AT(values_empty[before.stage]));
    if (next) {
        end_task(w, sm, p, n, top, sum);
        clear(r);
    }
    pack(r);
    if (next)
        clear_unseen<false>(sm, p.a, w.ring, n + 1, w.v.tile);
    if (!REPEATS && !next && r.moved)
        rescale(r);
    w.v.tile--;
}

DEVICE void compute_all(const struct attention_sm90_args &p, struct smem *sm)
{
    struct worker w;
    w.ring = {0, 0};
    w.warpgroup = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128 - 1, 0);
    w.scale = make_scale(p.a);
    if (TURNS && w.warpgroup == 0)
        named_barrier_arrive(TURN_BARRIER, 256);
    bool alone = true; /* no task before the n-th goes on */
    if (!next_task(sm, 0))
        return;
    for (int n = 0;; n++) {
#pragma unroll 1
        for (; alone || (REPEATS && w.v.tile >= sm->task[n % TASKS].careful && w.v.tile >= 0); alone = false)
            take_tile(w, sm, p, n, alone);
#pragma unroll 1
        while (w.v.tile >= (WINDOW ? w.v.first : 0))
            step(w, sm, p, n, false);
        if (WINDOW)
            clear_unseen<true>(sm, p.a, w.ring, n, w.v.first);
        if (is_first_thread())
            mbarrier_arrive(AT(queries_empty[buffer_of(n)][w.warpgroup]));
        if (BUFFERS == 2 && next_task(sm, n + 1)) {
            step(w, sm, p, n, true);
            continue;
        }
        alone = true;
        add_values(w, sm, unseen_steps(sm, p.a, n));
        end_task(w, sm, p, n, w.r.top, w.r.sum);
        if (BUFFERS == 1 && next_task(sm, n + 1))
            continue;
        if (!must_repeat(p, sm))
            return;
        n++; /* that there were no more tasks was passed on like one: with a number and a buffer of queries */
        if (is_first_thread())
            mbarrier_arrive(AT(queries_empty[buffer_of(n)][w.warpgroup]));
        next_task(sm, n + 1);
    }
}

DEVICE void init_barriers(const struct attention_sm90_args &p, struct smem *sm)
{
    int loaders = loaders_of_each(p);
    for (int i = 0; i < BUFFERS; i++)
        for (int w = 0; w < WARPGROUPS; w++) {
            mbarrier_init(AT(queries_full[i][w]), 1);
            mbarrier_init(AT(queries_empty[i][w]), 1);
        }
    for (int i = 0; i < STAGES; i++) {
        mbarrier_init(AT(keys_full[i]), GATHER ? 64 : loaders);
        mbarrier_init(AT(values_full[i]), GATHER ? 64 : loaders);
        mbarrier_init(AT(keys_empty[i]), WARPGROUPS);
        mbarrier_init(AT(values_empty[i]), WARPGROUPS);
    }
    for (int i = 0; i < REPEATED; i++)
        sm->repeat[i] = -1;
    mbarrier_init(AT(task_passed), 1);
    mbarrier_init(AT(task_taken), 2 * loaders);
    mbarrier_init_fence();
}

extern "C" __global__ void __launch_bounds__(128 * (WARPGROUPS + 1), 1)
    batch_prefill_sm90(const __grid_constant__ struct launch launch)
{
    const struct attention_sm90_args &p = launch.p;
    extern __shared__ __align__(1024) unsigned char shared[];
    struct smem *sm = (struct smem *)shared;
    if (threadIdx.x == 0) {
        init_barriers(p, sm);
        tensor_map_prefetch(&p.q);
        tensor_map_prefetch(&p.k);
        tensor_map_prefetch(&p.v);
    } else if (threadIdx.x / 32 == 1) {
        look_ahead(p);
    }
    __syncthreads();
    pdl_wait();
    pdl_launch();
    if (threadIdx.x < 128) {
        registers_release<LOADER_REGISTERS>();
        load_all(p, sm);
    } else {
        registers_take<COMPUTER_REGISTERS>();
        compute_all(p, sm);
    }
}
