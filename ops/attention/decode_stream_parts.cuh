/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a task of batch_decode_stream_: the streams of a team add up what they have (decode_stream_sums.cuh). Of a divided
 * pair, a worker that finds that all others have left their parts adds these, in order, to its own. Any other leaves its part in
 * the workspace and counts itself; the last one adds all. Of many parts, groups are added first, so that no one has many to add.
 * Counts start from NONE, a random number of 64 bits: whatever else the workspace held before is no count. */
#ifndef DECODE_STREAM_PARTS_CUH
#define DECODE_STREAM_PARTS_CUH

#include "barrier.cuh"
#include "decode_stream_sums.cuh"

#define NONE 0x6d1c8fb35e2a9047ull

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
    if (ROW_TILES < 4)
        p.shift = p.count <= 1 << GROUP ? GROUP : p.count <= 1 << 2 * GROUP - 2 ? GROUP - 1 : GROUP + 2;
    else /* each takes long to add: as many groups as there are parts in one */
        p.shift = p.count <= 16 ? 4 : max(3, (33 - __clz(p.count - 1)) / 2);
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
    return {false, 0, parts + part_at(p, first), parts + part_at(p, first + step), p.step * step * (int)sizeof(struct part),
            count, NULL};
}

/* Arrivals of those who have terms to add are counted from NONE at the mark of the first term. */
DEVICE bool counts(unsigned long long mark) { return mark - NONE < 1u << 30; }

/* How many parts of the pair were there, from NONE on. */
DEVICE unsigned long long ask_for_arrivals(const struct places &p, const struct part *parts)
{
    return *(const volatile unsigned long long *)&parts[p.head].mark;
}

/* By one thread, after a barrier behind which all have written what they add: true if it is the last of `count`. */
DEVICE bool arrive(unsigned long long *mark, int count)
{
    unsigned long long before = count_in(mark, 1), now = before + 1;
    if (!counts(before)) { /* but what the workspace held */
        __threadfence();
        do {
            before = now;
            now = atomicCAS(mark, before, counts(before) ? before + 1 : NONE + 1);
        } while (now != before);
        __threadfence();
        before = counts(before) ? before : NONE;
    }
    bool last = before == NONE + count - 1;
    if (last)
        *(volatile unsigned long long *)mark = NONE;
    return last;
}

/* What wants to see results waits for those who have them: all of a team, or a warp that is alone with its own. */
DEVICE void meet(const struct division &d)
{
    if (d.alone)
        __syncwarp();
    else
        named_barrier_sync(1 + d.team, 32 * ROW_WARPS * d.streams);
}

/* Ends a task: adds up the streams of the team, and of a divided pair whose other parts are there already, these too; else
 * leaves a part, and if it is the last one adds all. `stage` is free in each warp, `arrived` is what it saw of other parts. All
 * threads of the team call it. */
DEVICE void finish_task(const struct attention_args &a, const struct division &d, const struct task &t,
                        const struct places &places, struct rows &r, uint32_t stage, unsigned long long arrived,
                        struct exchange &e)
{
    struct part *parts = (struct part *)a.workspace, *sums = parts + a.stream.num_parts, *to = NULL;
    float4 *own = (float4 *)__cvta_shared_to_generic(stage);
    struct places p = places;
    struct target target = {t.kv_head, t.first_q, t.range.first, t.range.end};
    struct terms terms = {true};
    bool divided = t.count < t.units, last = divided && !has_groups(p) && __all_sync(0xffffffffu, arrived == NONE + p.count - 1);
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
        terms.own = parts + part_at(p, p.own);
        if (threadIdx.x == 0)
            *(volatile unsigned long long *)&terms.first->mark = NONE;
    } else if (divided) {
        to = parts + part_at(p, p.own);
    }
#pragma unroll 1
    for (bool groups = false;;) {
        if (terms.streams && ROUND < ROW_TILES) {
            leave_results(r, own, terms.group);
            meet(d);
        }
        add(a, d, target, e, terms, to);
#if BOX_TOKENS
        shared_async_fence();
#endif
        meet(d);
        if (terms.streams) {
            terms.group += ROUND;
            if (terms.group < ROW_TILES)
                continue;
        }
        if (!to)
            return;
        terms = terms_of(p, groups ? sums : parts, groups);
        if (threadIdx.x == 0)
            e.last = arrive(&terms.first->mark, terms.count);
        __syncthreads();
        if (!e.last)
            return;
        to = !groups && has_groups(p) ? sums + part_at(p, group_of(p)) : NULL;
        groups = true;
    }
}

#endif
