/* SPDX-License-Identifier: Apache-2.0 */
/* batch_prefill on Hopper: bulk copies, wgmma, a warpgroup that loads and WARPGROUPS that compute 64 packed rows each.
 *
 * Blocks stay and take tiles (attention_schedule.cuh) until there are none. Keys and values run through two rings of STAGES tiles
 * of KEYS tokens, walked from the last one to the first. Queries times keys of a tile are issued together with weights times
 * values of the tile before it, and with two buffers of queries this goes on from one task to the next. The row's reference
 * logit moves only when a logit exceeds it by 2^HEADROOM, so that most tiles need neither shuffles nor rescaled results.
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

DEVICE bool next_task(const struct attention_sm90_args &p, struct smem *sm, int n, struct view &v)
{
    const struct attention_args &a = p.a;
    int w = threadIdx.x / 128 - 1, thread = threadIdx.x % 128, buffer = buffer_of(n);
    mbarrier_wait(AT(queries_full[buffer][w]), buffer_phase(n));
    struct task t = sm->task[n % TASKS];
    if (t.kv_head < 0)
        return false;
    int shift = t.kv_len - t.qo_len, first_token = t.token + w * p.q_tokens;
    v.tile = last_tile(a, t, WARPGROUPS * p.q_tokens);
    v.first = first_tile(a, t);
    v.tail = min(max(t.kv_len - v.tile * KEYS, 0), KEYS);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = thread / 32 * 16 + thread % 32 / 4 + 8 * h, token = divide(row, a.by_group);
        v.begin[h] = WINDOW ? shift + first_token + token - a.window_left : 0;
        v.end[h] = CAUSAL ? min(shift + first_token + token + 1, t.kv_len) : t.kv_len;
        if (HAS_HOOKS && (token >= p.q_tokens || first_token + token >= t.qo_len))
            v.end[h] = 0; /* a row that does not exist: nothing for hooks to see */
    }
    return true;
}

/* Zeros for the values of tokens that do not exist: whatever lies there, times a weight of 0, must not become NaN. Each
 * warpgroup does so for itself, and all write the same. */
DEVICE void clear_tail(struct smem *sm, const struct ring &ring, int tail)
{
    int thread = threadIdx.x % 128, rest = (KEYS - tail) * 8;
    mbarrier_wait(AT(values_full[ring.stage]), ring.phase);
#pragma unroll 1
    for (int i = thread; i < rest * VALUE_SLABS; i += 128) {
        int gaps = (tail + i % rest / 8) / 8 * (VALUES_STEP - 1024);
        *(uint4 *)(sm->values[ring.stage] + i / rest * SLAB_STEP + tail * 128 + i % rest * 16 + gaps) = make_uint4(0, 0, 0, 0);
    }
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
DEVICE void hide_or_change(struct worker &w, struct smem *sm, const struct attention_sm90_args &p, int n, const struct view &v)
{
#if HAS_HOOKS
    struct task t = sm->task[n % TASKS];
    change_logits(w.r, v, p, t, t.token + w.warpgroup * p.q_tokens);
#else
    hide(w.r, v);
#endif
}

/* The first tile of a task, with nothing to go on at the same time. */
DEVICE void start(struct worker &w, struct smem *sm, const struct attention_sm90_args &p, int n)
{
    struct task t = sm->task[n % TASKS];
    forget(w.r, p, t, t.token + w.warpgroup * p.q_tokens);
    clear(w.r);
    wait_tile(AT(keys_full[w.ring.stage]), w.ring.phase);
    keep_queries(w.r, AT(queries[buffer_of(n)][w.warpgroup]));
    issue_logits(w.r, AT(queries[buffer_of(n)][w.warpgroup]), AT(keys[w.ring.stage]));
    wgmma_wait<0>();
    wgmma_pin(w.r.s);
    if (is_first_thread())
        mbarrier_arrive(AT(keys_empty[w.ring.stage]));
    scale_logits(w.r, w.scale);
    hide_or_change(w, sm, p, n, w.v);
    weigh(w.r, fabsf(w.scale.unit), true);
    pack(w.r);
    if (!GATHER && w.v.tail < KEYS)
        clear_tail(sm, w.ring, w.v.tail);
    w.v.tile--;
}

/* Values of the tile before, without logits of a next one. */
DEVICE void finish(struct worker &w, struct smem *sm, const struct attention_sm90_args &p, int n)
{
    wait_tile(AT(values_full[w.ring.stage]), w.ring.phase);
    issue_values(w.r, AT(values[w.ring.stage]));
    wgmma_wait<0>();
    wgmma_pin(w.r.o);
    if (is_first_thread())
        mbarrier_arrive(AT(values_empty[w.ring.stage]));
    struct task t = sm->task[n % TASKS];
    write_rows(p, w.r, w.r.top, w.r.sum, fabsf(w.scale.unit), t, t.token + w.warpgroup * p.q_tokens);
}

/* Logits of a tile, and values of the one before. `next`: it is the first of another task, whose view this is; w.v is that of
 * the n-th task, which ends. */
DEVICE void step(struct worker &w, struct smem *sm, const struct attention_sm90_args &p, int n, const struct view *next)
{
    struct rows &r = w.r;
    struct ring before = w.ring;
    const struct view &v = next ? *next : w.v;
    advance(w.ring);
    wait_tile(AT(keys_full[w.ring.stage]), w.ring.phase);
    if (next)
        keep_queries(r, AT(queries[buffer_of(n + 1)][w.warpgroup]));
    if (TURNS)
        named_barrier_sync(TURN_BARRIER + w.warpgroup, 256);
    issue_logits(r, AT(queries[buffer_of(next ? n + 1 : n)][w.warpgroup]), AT(keys[w.ring.stage]));
    wait_tile(AT(values_full[before.stage]), before.phase);
    issue_values(r, AT(values[before.stage]));
    if (TURNS)
        named_barrier_arrive(TURN_BARRIER + (w.warpgroup + 1 == WARPGROUPS ? 0 : w.warpgroup + 1), 256);
    wgmma_wait<1>();
    wgmma_pin(r.s);
    if (is_first_thread())
        mbarrier_arrive(AT(keys_empty[w.ring.stage]));
    scale_logits(r, w.scale);
    if (next || CAUSAL || WINDOW || HAS_HOOKS)
        hide_or_change(w, sm, p, next ? n + 1 : n, v);
    float top[2] = {r.top[0], r.top[1]}, sum[2] = {r.sum[0], r.sum[1]};
    if (next) {
        struct task t = sm->task[(n + 1) % TASKS];
        forget(r, p, t, t.token + w.warpgroup * p.q_tokens);
    }
    weigh(r, fabsf(w.scale.unit), next != NULL);
    wgmma_wait<0>();
    wgmma_pin(r.o);
    if (is_first_thread())
        mbarrier_arrive(AT(values_empty[before.stage]));
    if (next) {
        struct task t = sm->task[n % TASKS];
        write_rows(p, r, top, sum, fabsf(w.scale.unit), t, t.token + w.warpgroup * p.q_tokens);
        clear(r);
        w.v = *next;
    }
    pack(r);
    if (!GATHER && next && next->tail < KEYS)
        clear_tail(sm, w.ring, next->tail);
    if (!next && r.moved) {
#pragma unroll
        for (int i = 0; i < HEAD_DIM_VO / 2; i++)
            r.o[i] *= r.shrink[i / 2 % 2];
    }
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
    bool more = next_task(p, sm, 0, w.v);
    if (BUFFERS == 2 && more)
        start(w, sm, p, 0);
    for (int n = 0; more; n++) {
        if (BUFFERS == 1)
            start(w, sm, p, n);
#pragma unroll 1
        while (w.v.tile >= (WINDOW ? w.v.first : 0))
            step(w, sm, p, n, NULL);
        if (is_first_thread())
            mbarrier_arrive(AT(queries_empty[buffer_of(n)][w.warpgroup]));
        if (BUFFERS == 1) {
            finish(w, sm, p, n);
            advance(w.ring);
            more = next_task(p, sm, n + 1, w.v);
        } else {
            struct view next;
            more = next_task(p, sm, n + 1, next);
            if (more)
                step(w, sm, p, n, &next);
            else
                finish(w, sm, p, n);
        }
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
