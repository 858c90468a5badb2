/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a task of batch_decode_stream_: the streams of a team add up what they have (decode_stream_sums.cuh). Of a divided
 * pair, a worker that finds all other parts READY adds them, in order, to its own. Any other leaves its part in the workspace,
 * marks it READY and looks again; if now all are, it adds them when it has no more to read. Of many parts, groups are added
 * first, so that no one has many to add. READY is a random number of 64 bits: whatever else the workspace held before, there was
 * no mark in it. */
#ifndef DECODE_STREAM_PARTS_CUH
#define DECODE_STREAM_PARTS_CUH

#include "barrier.cuh"
#include "decode_stream_sums.cuh"

#define READY 0x6d1c8fb35e2a9047u

enum { GROUP = 6 }; /* 2^GROUP parts, or so, are added by one worker */

/* Where the parts of a pair lie: part i at `head` if i is 0, else at tail + i * step. Units have one each; workers two, the
 * second of which is for the start of a pair. */
struct places {
    int head, tail, step;
    int count, own; /* of the pair; this worker's */
    int shift;      /* groups have 2^shift */
};

DEVICE struct places find_parts(const struct division &d, const struct task &t)
{
    struct places p = {t.pair_unit, t.pair_unit, 1, t.units, t.unit};
    if (!d.unit_tiles) {
        int first = worker_of(d, t.pair_unit);
        p = {2 * first + 1, 2 * first, 2, worker_of(d, t.pair_unit + t.units - 1) - first + 1, (int)blockIdx.x - first};
    }
    p.shift = p.count <= 1 << GROUP ? GROUP : p.count <= 1 << 2 * GROUP - 2 ? GROUP - 1 : GROUP + 2;
    return p;
}

/* By a whole warp: the places of a divided pair's parts, which its lanes then read. */
DEVICE void keep_places(struct places &places, const struct division &d, const struct task &t)
{
    if (t.count < t.units) {
        struct places own = find_parts(d, t);
        if (threadIdx.x % 32 == 0)
            places = own;
        __syncwarp();
    }
}

DEVICE int part_at(const struct places &p, int i) { return i == 0 ? p.head : p.tail + i * p.step; }

DEVICE bool has_groups(const struct places &p) { return p.count > 1 << p.shift; }

DEVICE int group_of(const struct places &p) { return p.own & -1 << p.shift; }

/* The parts of this worker's group, or of all if there is one; or the sums of all groups. */
DEVICE struct terms terms_of(const struct places &p, struct part *parts, bool groups)
{
    int size = 1 << p.shift, first = groups ? 0 : group_of(p), step = groups ? size : 1;
    int count = groups ? (p.count + size - 1) >> p.shift : min(size, p.count - first);
    return {false, 0, parts + part_at(p, first), parts + part_at(p, first + step), p.step * step, count, -1};
}

DEVICE unsigned long long mark_of(const struct part *p) { return *(const volatile unsigned long long *)&p->mark; }

/* Lane i asks for the mark of part i. */
DEVICE unsigned long long ask_for_marks(const struct places &p, const struct part *parts)
{
    int lane = threadIdx.x % 32;
    return lane < p.count && lane != p.own ? mark_of(parts + part_at(p, lane)) : READY;
}

/* By a whole warp, after a barrier behind which all have written `own`: marks it. True if now all terms are marked and, if
 * `alone`, no one else takes them; then they can be read. Without `alone` two workers may add the same terms, and write the
 * same. */
DEVICE bool mark_part(struct part *own, const struct terms &terms, bool alone)
{
    int lane = threadIdx.x % 32;
    bool ready = true;
    if (lane == 0) {
        __threadfence();
        *(volatile unsigned long long *)&own->mark = READY;
    }
    __syncwarp();
    __threadfence(); /* of two workers, one at least sees the other's mark */
#pragma unroll 1
    for (int i = lane; i < terms.count; i += 32)
        ready &= mark_of(term(terms, i)) == READY;
    ready = __all_sync(0xffffffffu, ready);
    if (ready && alone)
        ready = __any_sync(0xffffffffu, lane == 0 && atomicExch(&terms.first->mark, 0ull) == READY);
    if (ready)
        __threadfence();
    return ready;
}

/* When they have been added. */
DEVICE void clear_marks(const struct terms &terms)
{
#pragma unroll 1
    for (int i = threadIdx.x; i < terms.count; i += THREADS)
        *(volatile unsigned long long *)&term(terms, i)->mark = 0;
}

/* Divided pairs of which this worker has left a part. */
enum { WAITS, ADDS_PARTS, ADDS_GROUPS }; /* what it is for this worker to add */
struct open_pairs {
    struct {
        struct target target;
        struct places places;
        int state;
    } pair[2];
    int count;
};

/* What wants to see results waits for those who have them: all of a team, or a warp that is alone with its own. */
DEVICE void meet(const struct division &d)
{
    if (d.alone)
        __syncwarp();
    else
        named_barrier_sync(1 + d.team, 32 * ROW_WARPS * d.streams);
}

/* Ends a task: adds up the streams of the team, and of a divided pair whose other parts are there already, these too; else
 * leaves a part. If `close`, adds what else is complete. `stage` is free in each warp, `marks` are those of other parts that
 * it saw. All threads of the team call it. */
DEVICE void finish_task(const struct attention_args &a, const struct division &d, const struct task &t, const struct places &places,
                        struct rows &r, uint32_t stage, unsigned long long marks, struct exchange &e, struct open_pairs &open,
                        bool close)
{
    struct part *parts = (struct part *)a.workspace, *sums = parts + a.stream.num_parts, *to = NULL;
    float4 *own = (float4 *)__cvta_shared_to_generic(stage);
    struct places p = places;
    struct target target = {t.kv_head, t.first_q, t.range.first, t.range.end};
    struct terms terms = {true};
    bool divided = t.count < t.units, last = divided && p.count <= 32 && __all_sync(0xffffffffu, marks == READY);
    if (last)
        __threadfence();
    leave_sums(r, e, own);
    if (ROUND == ROW_TILES)
        leave_results(r, own, 0);
    if (divided)
        last = __syncthreads_and(last);
    else
        meet(d);
    if (last) {
        terms = terms_of(p, parts, false);
        terms.streams = true;
        terms.own = p.own;
    } else if (divided) {
        to = parts + part_at(p, p.own);
    }
#pragma unroll 1
    for (int pair = -1;;) {
        if (pair < 0 && ROUND < ROW_TILES) {
            leave_results(r, own, terms.group);
            meet(d);
        }
        add(a, d, target, e, terms, to);
#if BOX_TOKENS
        shared_async_fence();
#endif
        meet(d);
        if (pair < 0) {
            terms.group += ROUND;
            if (terms.group < ROW_TILES)
                continue;
        }
        if (d.whole)
            return;
        clear_marks(terms);
        if (threadIdx.x < 32 && (to || pair >= 0)) {
            bool complete = to && mark_part(to, terms_of(p, pair < 0 ? parts : sums, pair >= 0), has_groups(p));
            if (threadIdx.x == 0)
                open.pair[pair < 0 ? open.count++ : pair] = {target, p, !complete ? WAITS : pair < 0 ? ADDS_PARTS : ADDS_GROUPS};
        }
        if (!close)
            return;
        __syncthreads();
        for (pair = 0; pair < open.count && open.pair[pair].state == WAITS; pair++)
            ;
        if (pair >= open.count)
            break;
        target = open.pair[pair].target;
        p = open.pair[pair].places;
        bool groups = open.pair[pair].state == ADDS_GROUPS;
        terms = terms_of(p, groups ? sums : parts, groups);
        to = !groups && has_groups(p) ? sums + part_at(p, group_of(p)) : NULL;
    }
    __syncthreads();
    if (threadIdx.x == 0)
        open.count = 0;
}

#endif
