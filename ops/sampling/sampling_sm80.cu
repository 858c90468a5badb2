/* SPDX-License-Identifier: Apache-2.0 */
/* Draws one token per row of probabilities; with FILTER, from those that pass top-k and top-p.
 *
 * One block of 1024 threads per row, which walks over it a few times (the second time it is in L1 or L2): for the largest key,
 * for a list of the keys that the thresholds can be among, and to draw. Histograms of the list find the thresholds; where it
 * would be too long, one of the row shortens it first. sampling_args.h says what keys and weights are; their sums are integers,
 * so the order of summation, and that of the list, has no say in the result. All walks are one function that is called, not
 * inlined, which nearly halves the time to compile.
 *
 *   VEC     1, 2, 4; divides vocab and the row stride
 *   FILTER  0, 1
 * Shared memory: struct smem. */
#include "pdl.cuh"
#include "scan.cuh"
#include "sampling_args.h"

enum { LOG2_THREADS = 10, THREADS = 1 << LOG2_THREADS, WARPS = THREADS / 32 };
enum { MAX_LISTED = 2 * THREADS, LIST_PIECES = MAX_LISTED / VEC };

struct __align__(VEC * 4) piece {
    uint32_t bits[VEC];
};

static __shared__ struct smem {
    uint64_t scratch[WARPS];
    uint64_t segment[WARPS]; /* weights */
    int64_t number[SAMPLING_NUMBERS];
    uint64_t random; /* uniform in [0, 2^64) */
    uint32_t narrow_scratch[WARPS];
#if FILTER
    struct piece list[LIST_PIECES]; /* zeros where there is no key */
    int listed;
    uint32_t bin_low[THREADS], bin_high[THREADS]; /* shared memory adds no 64 bits at once */
    uint32_t from, to;                            /* what `narrow` found */
    uint64_t above;
#endif
} s;

/* Listed keys, whose weights sum to less, count in the high bits of bins. */
#define ONE_LISTED (1ull << 52)

struct row {
    const float *probs;
    int vocab;
    uint32_t top; /* the largest key */
    struct weight_scale scale;
};

DEVICE uint64_t weigh(const struct row *r, uint32_t bits)
{
    return (uint64_t)(__uint_as_float(bits) * r->scale.factor[0] * r->scale.factor[1]);
}

/* Whether the key of these bits lies in [from, to), from >= 1; bits of what cannot be drawn never do, for to is at most
 * infinity. */
DEVICE bool is_in_range(uint32_t bits, uint32_t from, uint32_t to) { return bits - from < to - from; }

#if FILTER
DEVICE void add_to_bin(int bin, uint64_t amount)
{
    uint32_t low = (uint32_t)amount, before = atomicAdd(&s.bin_low[bin], low);
    uint32_t high = (uint32_t)(amount >> 32) + (before + low < low);
    if (high > 0)
        atomicAdd(&s.bin_high[bin], high);
}

DEVICE void list(uint32_t key)
{
    int slot = atomicAdd(&s.listed, 1);
    if (slot < MAX_LISTED)
        s.list[slot % LIST_PIECES].bits[slot / LIST_PIECES] = key;
}
#endif

/* What a walk makes of the keys in its range. */
enum take { LARGEST, WEIGHT, LISTED, COUNT_BINS, WEIGHT_BINS };

/* This thread's pieces of `keys`, the row's or the list: `step` apart, from `at` to `end`. Of those in [from, to): returns the
 * largest or their weight, or lists them or adds them to bins of 2^shift possible keys. */
DEVICE_CALL uint64_t walk(struct row r, const float *keys, int at, int step, int end, uint32_t from, uint32_t to, enum take take,
                          int shift)
{
    uint64_t sum = 0, counted = keys == r.probs ? 0 : ONE_LISTED;
    struct piece next;
    if (at < end)
        next = *(const struct piece *)(keys + at);
#pragma unroll 1
    for (; at < end; at += step) {
        struct piece piece = next;
        if (at + step < end)
            next = *(const struct piece *)(keys + at + step);
        uint32_t any = 0;
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            piece.bits[i] = is_in_range(piece.bits[i], from, to) ? piece.bits[i] : 0;
            any |= piece.bits[i];
        }
        if (any == 0)
            continue;
        if (take == LARGEST) {
#pragma unroll
            for (int i = 0; i < VEC; i++)
                sum = max((uint32_t)sum, piece.bits[i]);
        } else if (take == WEIGHT) {
#pragma unroll
            for (int i = 0; i < VEC; i++)
                sum += weigh(&r, piece.bits[i]);
        }
#if FILTER
        else {
#pragma unroll 1
            for (int i = 0; i < VEC; i++) {
                uint32_t key = __float_as_uint(keys[at + i]);
                if (!is_in_range(key, from, to))
                    continue;
                if (take == LISTED)
                    list(key);
                else
                    add_to_bin((key - from) >> shift, (take == WEIGHT_BINS ? weigh(&r, key) : 1) + counted);
            }
            if (take == LISTED && *(volatile int *)&s.listed > MAX_LISTED)
                break;
        }
#endif
    }
    return sum;
}

/* The first token whose running sum over keys >= threshold exceeds s.random / 2^64 of the whole, or -1: one thread's answer
 * is not -1. A warp weighs a segment of the row, then all threads that segment in which the token lies. */
DEVICE int draw(const struct row *r, uint32_t threshold)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int size = (r->vocab + THREADS * VEC - 1) / (THREADS * VEC) * 32 * VEC;
    int per_thread = (size + THREADS * VEC - 1) / (THREADS * VEC) * VEC;
    int at = warp * size + lane * VEC, step = 32 * VEC, end = warp * size + size;
    uint64_t target = 0, weight;
#pragma unroll 1
    for (bool in_segment = false;; in_segment = true) {
        end = min(end, r->vocab);
        weight = walk(*r, r->probs, at, step, end, threshold, r->top + 1, WEIGHT, 0);
        if (in_segment)
            break;
        weight = warp_sum(weight);
        if (lane == 0)
            s.segment[warp] = weight;
        __syncthreads();
        uint64_t running = warp_running_sum(s.segment[lane]);
        target = multiply_high(s.random, __shfl_sync(0xffffffffu, running, 31));
        int segment = __ffs(__ballot_sync(0xffffffffu, running > target)) - 1;
        target -= __shfl_sync(0xffffffffu, running - s.segment[lane], segment);
        at = segment * size + threadIdx.x * per_thread;
        end = min(at + per_thread, segment * size + size);
        step = VEC;
    }
    uint64_t before = block_sum_before(weight, s.scratch);
    if (target < before || target >= before + weight)
        return -1;
#pragma unroll 1
    for (; at < end; at++) {
        uint32_t bits = __float_as_uint(r->probs[at]);
        if (is_in_range(bits, threshold, r->top + 1))
            before += weigh(r, bits);
        if (target < before)
            break;
    }
    return at;
}

#if FILTER
/* Walks over the whole row, or over all that is listed if that is at least 0. */
DEVICE uint64_t walk_all(const struct row *r, int listed, uint32_t from, uint32_t to, enum take take, int shift)
{
    const float *keys = listed >= 0 ? (const float *)s.list : r->probs;
    int end = listed >= 0 ? min(listed, (int)LIST_PIECES) * VEC : r->vocab;
    return walk(*r, keys, threadIdx.x * VEC, THREADS * VEC, end, from, to, take, shift);
}

/* Lists the keys in [from, to), in any order. Returns how many there are, or -1 if that is more than fit. */
DEVICE int list_range(const struct row *r, uint32_t from, uint32_t to)
{
    __syncthreads();
    s.listed = 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < MAX_LISTED; i += THREADS)
        s.list->bits[i] = 0;
    __syncthreads();
    walk_all(r, -1, from, to, LISTED, 0);
    __syncthreads();
    return s.listed <= MAX_LISTED ? s.listed : -1;
}

/* Of the keys t in [*from, *to), the largest for which the keys >= t are as many, or weigh as much, as `limit`: narrows the
 * range to the bin of a histogram in which it lies, or to *from alone if there is none. *above is what keys >= *to amount to. */
DEVICE void narrow(const struct row *r, int listed, uint32_t *from, uint32_t *to, uint64_t *above, uint64_t limit, bool by_weight)
{
    int shift = max(0, 32 - __clz(*to - *from - 1) - LOG2_THREADS);
    int bin = THREADS - 1 - threadIdx.x;
    s.bin_low[bin] = s.bin_high[bin] = 0;
    s.from = *from;
    s.to = *from + 1;
    s.above = *above;
    __syncthreads();
    walk_all(r, listed, *from, *to, by_weight ? WEIGHT_BINS : COUNT_BINS, shift);
    __syncthreads();
    uint64_t amount = (uint64_t)s.bin_high[bin] << 32 | s.bin_low[bin];
    bool alone = false; /* the only key of its bin */
    if (listed >= 0) {
        alone = amount < 2 * ONE_LISTED;
        amount %= ONE_LISTED;
    }
    uint64_t before = *above + block_sum_before(amount, s.scratch);
    if (before < limit && before + amount >= limit) {
        s.from = *from + (bin << shift);
        s.to = alone ? s.from + 1 : min(*to, s.from + (1 << shift));
        s.above = before;
    }
    __syncthreads();
    *from = s.from;
    *to = s.to;
    *above = s.above;
    __syncthreads();
}

/* The keys from this one on pass both filters; smaller ones do not. */
DEVICE uint32_t filter(const struct row *r, uint32_t own_top, int64_t top_k, float top_p, bool joint)
{
    uint32_t threshold = 1;
    int listed = -1; /* the length of the list if it has all keys from the threshold on, else -1 */
#pragma unroll 1
    for (int by_weight = 0; by_weight < 2; by_weight++) {
        uint64_t limit = top_k, above = 0;
        uint32_t to = r->top + 1;
        if (by_weight ? !(top_p < 1.0f) : top_k < 1 || top_k >= r->vocab)
            continue;
        if (by_weight) {
            uint64_t own = walk_all(r, joint ? -1 : listed, joint ? 1 : threshold, to, WEIGHT, 0);
            uint64_t total = block_sum(own, s.scratch);
            limit = share_of(total, fmaxf(top_p, 0.0f));
            if (listed < 0)
                threshold = max(threshold, share_bound(total - limit, r->vocab, r->scale.top_exponent));
        }
        /* The k-th largest of all keys is at least the k-th largest of the threads' largest, which one round narrows down to. */
        bool of_tops = !by_weight, is_whole = listed >= 0;
#pragma unroll 1
        while (to - threshold > 1) {
            if (of_tops) {
                s.list->bits[threadIdx.x] = own_top;
                s.list->bits[threadIdx.x + THREADS] = 0;
                listed = THREADS;
            } else if (listed < 0) {
                listed = list_range(r, threshold, to);
                is_whole = above == 0;
            }
            narrow(r, listed, &threshold, &to, &above, limit, by_weight);
            if (of_tops) {
                of_tops = false;
                listed = -1;
                to = r->top + 1;
                above = 0;
            }
        }
        if (!is_whole)
            listed = -1;
    }
    return threshold;
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS, 1) sampling_sm80(const __grid_constant__ struct sampling_args a)
{
    int64_t index = blockIdx.x;
    int token = -1;
    pdl_wait();
    if (threadIdx.x < SAMPLING_NUMBERS)
        s.number[threadIdx.x] = row_integer(&a.number[threadIdx.x], index);
    struct row r = {row_probs(&a, index), (int)a.vocab};
    uint32_t own_top = walk(r, r.probs, threadIdx.x * VEC, THREADS * VEC, r.probs ? r.vocab : 0, 1, 0x7f800000, LARGEST, 0);
    r.top = block_max(own_top, s.narrow_scratch);
    pdl_launch();
    if (r.top != 0) {
        r.scale = weight_scale_of(r.top);
        uint32_t threshold = 1;
#if FILTER
        threshold = filter(&r, own_top, s.number[SAMPLING_TOP_K], row_float(&a.top_p, index), a.joint);
#endif
        if (threadIdx.x == 0)
            s.random = philox_uniform(s.number[SAMPLING_SEED], s.number[SAMPLING_OFFSET],
                                      a.number[SAMPLING_SEED].step ? 0 : index);
        token = draw(&r, threshold);
        if (token < 0)
            return;
    } else if (threadIdx.x > 0) {
        return;
    }
    set_sample(&a, index, token);
}
