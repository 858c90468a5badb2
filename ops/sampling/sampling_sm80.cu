/* SPDX-License-Identifier: Apache-2.0 */
/* Draws one token per row of probabilities; with FILTER, from those that pass top-k and top-p.
 *
 * One block of 1024 threads per row, which passes over it a few times (the second time it is in L1 or L2):
 * for the largest key, for a list of the keys that the thresholds can be among, and to draw. Where the list
 * is too long, bisection of the keys narrows it, one more pass each. sampling_args.h says what keys and
 * weights are; their sums are integers, so the order of summation, and that of the list before it is sorted,
 * has no say in the result.
 *
 *   VEC     1, 2, 4; divides vocab and the row stride
 *   FILTER  0, 1
 * Shared memory: struct smem. */
#include "pdl.cuh"
#include "scan.cuh"
#include "vec.cuh"
#include "sampling_args.h"

enum { THREADS = 1024, WARPS = THREADS / 32, MAX_LISTED = 2 * THREADS };

struct smem {
    uint64_t scratch[WARPS];
    uint32_t narrow_scratch[WARPS];
    uint64_t segment[WARPS]; /* weights */
#if FILTER
    uint32_t list[MAX_LISTED];
    int listed;
    uint32_t threshold;
#endif
};

struct row {
    const float *probs;
    int vocab;
    uint32_t top; /* the largest key */
    struct weight_scale scale;
};

/* VEC probabilities, as bits. */
DEVICE void load_bits(uint32_t (&bits)[VEC], const float *probs)
{
    float x[VEC];
    load(x, probs);
#pragma unroll
    for (int i = 0; i < VEC; i++)
        bits[i] = __float_as_uint(x[i]);
}

/* This thread's share of a row, read one piece ahead of the one in use. */
struct pieces {
    const float *probs;
    int at, step, end; /* of the piece ahead: elements */
    uint32_t ahead[VEC];
};

DEVICE struct pieces open_pieces(const float *probs, int at, int step, int end)
{
    struct pieces p = {probs, at, step, end};
    if (at < end)
        load_bits(p.ahead, probs + at);
    return p;
}

DEVICE bool next_piece(struct pieces *p, uint32_t (&bits)[VEC])
{
    if (p->at >= p->end)
        return false;
#pragma unroll
    for (int i = 0; i < VEC; i++)
        bits[i] = p->ahead[i];
    p->at += p->step;
    if (p->at < p->end)
        load_bits(p->ahead, p->probs + p->at);
    return true;
}

/* Whether the key of these bits lies in [from, to), from >= 1; bits of what cannot be drawn never do, for to
 * is at most infinity. */
DEVICE bool is_in_range(uint32_t bits, uint32_t from, uint32_t to) { return bits - from < to - from; }

DEVICE uint64_t weigh(const struct row *r, uint32_t bits)
{
    return (uint64_t)(__uint_as_float(bits) * r->scale.factor[0] * r->scale.factor[1]);
}

/* The weight if the key is at least `from`. */
DEVICE uint64_t weigh_from(const struct row *r, uint32_t bits, uint32_t from)
{
    return is_in_range(bits, from, r->top + 1) ? weigh(r, bits) : 0;
}

/* How many of this thread's keys lie in [from, to), or what they weigh together. */
DEVICE uint64_t measure(const struct row *r, int at, int step, int end, uint32_t from, uint32_t to,
                        bool by_weight)
{
    uint64_t sum = 0;
    uint32_t bits[VEC];
    struct pieces pieces = open_pieces(r->probs, at, step, end);
#pragma unroll 1
    while (next_piece(&pieces, bits)) {
#pragma unroll
        for (int i = 0; i < VEC; i++)
            if (is_in_range(bits[i], from, to))
                sum += by_weight ? weigh(r, bits[i]) : 1;
    }
    return sum;
}

/* The largest key of the row; *own gets that of this thread's share of it. */
DEVICE uint32_t find_top(struct smem *s, const float *probs, int vocab, uint32_t *own)
{
    uint32_t top = 0;
#pragma unroll 4
    for (int at = threadIdx.x * VEC; at < vocab; at += THREADS * VEC) {
        uint32_t bits[VEC];
        load_bits(bits, probs + at);
#pragma unroll
        for (int i = 0; i < VEC; i++)
            top = max(top, probability_key(bits[i]));
    }
    *own = top;
    return block_max(top, s->narrow_scratch);
}

/* The first token whose running sum over keys >= threshold exceeds u / 2^64 of the whole, or -1: one thread's
 * answer is not -1. A warp weighs a segment of the row, then all threads that segment in which the token
 * lies. */
DEVICE int draw(struct smem *s, const struct row *r, uint32_t threshold, uint64_t u)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int size = (r->vocab + THREADS * VEC - 1) / (THREADS * VEC) * 32 * VEC;
    int end = min((warp + 1) * size, r->vocab);
    uint64_t weight =
        warp_sum(measure(r, warp * size + lane * VEC, 32 * VEC, end, threshold, r->top + 1, true));
    if (lane == 0)
        s->segment[warp] = weight;
    __syncthreads();

    uint64_t running = warp_running_sum(s->segment[lane]);
    uint64_t target = multiply_high(u, __shfl_sync(0xffffffffu, running, 31));
    int segment = __ffs(__ballot_sync(0xffffffffu, running > target)) - 1;
    target -= __shfl_sync(0xffffffffu, running - s->segment[lane], segment);

    int per_thread = (size + THREADS - 1) / THREADS;
    int at = segment * size + threadIdx.x * per_thread;
    end = min(min(at + per_thread, (segment + 1) * size), r->vocab);
    weight = 0;
#pragma unroll 1
    for (int i = at; i < end; i++)
        weight += weigh_from(r, __float_as_uint(r->probs[i]), threshold);
    uint64_t before = block_sum_before(weight, s->scratch);
    if (target < before || target >= before + weight)
        return -1;
#pragma unroll 1
    for (; at < end; at++) {
        before += weigh_from(r, __float_as_uint(r->probs[at]), threshold);
        if (target < before)
            break;
    }
    return at;
}

#if FILTER
DEVICE uint64_t measure_row(struct smem *s, const struct row *r, uint32_t from, uint32_t to, bool by_weight)
{
    return block_sum(measure(r, threadIdx.x * VEC, THREADS * VEC, r->vocab, from, to, by_weight), s->scratch);
}

/* The k-th largest of all keys is at least the k-th largest of the threads' largest. */
DEVICE uint32_t top_k_bound(uint32_t own_top, int64_t k)
{
    uint32_t bound = 0;
#pragma unroll 1
    for (uint32_t bit = 1u << 30; bit > 0; bit /= 2)
        if (__syncthreads_count(own_top >= (bound | bit)) >= k)
            bound |= bit;
    return bound ? bound : 1;
}

/* Lists the keys in [from, to), in any order. Returns how many there are; more than MAX_LISTED are not all
 * counted. */
DEVICE int list_range(struct smem *s, const struct row *r, uint32_t from, uint32_t to)
{
    __syncthreads();
    if (threadIdx.x == 0)
        s->listed = 0;
    __syncthreads();
    uint32_t bits[VEC];
    struct pieces pieces = open_pieces(r->probs, threadIdx.x * VEC, THREADS * VEC, r->vocab);
#pragma unroll 1
    while (next_piece(&pieces, bits)) {
        int found = 0;
#pragma unroll
        for (int i = 0; i < VEC; i++)
            found += is_in_range(bits[i], from, to);
        if (found == 0)
            continue;
        int slot = atomicAdd(&s->listed, found);
        if (slot + found > MAX_LISTED)
            break;
#pragma unroll
        for (int i = 0; i < VEC; i++)
            if (is_in_range(bits[i], from, to))
                s->list[slot++] = bits[i];
    }
    __syncthreads();
    return s->listed;
}

/* Sorts the list, largest first (Batcher's bitonic network), with zeros up to a power of two. */
DEVICE void sort_list(struct smem *s, int listed)
{
    int size = 2;
    while (size < listed)
        size *= 2;
    for (int i = listed + threadIdx.x; i < size; i += THREADS)
        s->list[i] = 0;
    __syncthreads();
#pragma unroll 1
    for (int run = 2; run <= size; run *= 2)
#pragma unroll 1
        for (int apart = run / 2; apart > 0; apart /= 2) {
            int i = threadIdx.x; /* of the pairs; there are at most THREADS */
            if (i < size / 2) {
                int low = (i & ~(apart - 1)) * 2 + (i & (apart - 1));
                uint32_t a = s->list[low], b = s->list[low + apart];
                if ((a < b) == ((low & run) == 0)) {
                    s->list[low] = b;
                    s->list[low + apart] = a;
                }
            }
            /* Up to 32 apart, a warp's pairs are all in one stretch of 64 keys. */
            if (apart > 32 || (apart == 1 && run > 32))
                __syncthreads();
            else
                __syncwarp();
        }
    __syncthreads();
}

/* What the two listed keys of this thread count, those below `from` excepted. */
DEVICE void listed_amounts(uint64_t (&amount)[2], struct smem *s, const struct row *r, int listed,
                           uint32_t from, bool by_weight)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int at = 2 * threadIdx.x + i;
        bool counts = at < listed && s->list[at] >= from;
        amount[i] = !counts ? 0 : by_weight ? weigh(r, s->list[at]) : 1;
    }
}

DEVICE uint64_t weigh_list(struct smem *s, const struct row *r, int listed, uint32_t from)
{
    uint64_t weight[2];
    listed_amounts(weight, s, r, listed, from, true);
    return block_sum(weight[0] + weight[1], s->scratch);
}

/* The first key of the sorted list at which `above` and the keys so far reach the limit, else `from`. */
DEVICE uint32_t find_in_list(struct smem *s, const struct row *r, int listed, uint64_t above, uint32_t from,
                             uint64_t limit, bool by_weight)
{
    uint64_t amount[2];
    listed_amounts(amount, s, r, listed, from, by_weight);
    if (threadIdx.x == 0)
        s->threshold = from;
    uint64_t before = above + block_sum_before(amount[0] + amount[1], s->scratch);
    if (before < limit && before + amount[0] >= limit)
        s->threshold = s->list[2 * threadIdx.x];
    else if (before < limit && before + amount[0] + amount[1] >= limit)
        s->threshold = s->list[2 * threadIdx.x + 1];
    __syncthreads();
    uint32_t threshold = s->threshold;
    __syncthreads();
    return threshold;
}

/* Looks for the largest key t >= *from such that the keys >= t are as many, or weigh as much, as `limit`.
 * Lists and sorts the keys that may be t, from *from on, and returns how many there are; *above gets what
 * larger ones amount to. -1: *from is t. */
DEVICE int list_candidates(struct smem *s, const struct row *r, uint32_t *from, uint64_t *above,
                           uint64_t limit, bool by_weight)
{
    uint32_t to = r->top + 1;
    while (to - *from > 1) {
        int listed = list_range(s, r, *from, to);
        if (listed <= MAX_LISTED) {
            sort_list(s, listed);
            return listed;
        }
        uint32_t middle = *from + (to - *from) / 2;
        uint64_t reached = *above + measure_row(s, r, middle, to, by_weight);
        if (reached >= limit) {
            *from = middle;
        } else {
            to = middle;
            *above = reached;
        }
    }
    return -1;
}

/* The smallest key that passes both filters. */
DEVICE uint32_t filter(struct smem *s, const struct row *r, uint32_t own_top, int64_t top_k, float top_p,
                       bool joint)
{
    uint32_t threshold = 1;
    int listed = -1; /* the length of the list if it has all keys from the threshold on, else -1 */
#pragma unroll 1
    for (int by_weight = 0; by_weight < 2; by_weight++) {
        uint64_t limit, above = 0;
        if (!by_weight) {
            if (top_k < 1 || top_k >= r->vocab)
                continue;
            limit = top_k;
            threshold = top_k_bound(own_top, top_k);
        } else {
            if (!(top_p < 1.0f))
                continue;
            uint64_t total = joint || listed < 0 ? measure_row(s, r, joint ? 1 : threshold, r->top + 1, true)
                                                 : weigh_list(s, r, listed, threshold);
            limit = share_of(total, fmaxf(top_p, 0.0f));
            if (listed < 0)
                threshold = max(threshold, share_bound(total - limit, r->vocab, r->scale.top_exponent));
        }
        if (listed < 0)
            listed = list_candidates(s, r, &threshold, &above, limit, by_weight);
        if (listed >= 0)
            threshold = find_in_list(s, r, listed, above, threshold, limit, by_weight);
        if (above > 0)
            listed = -1;
    }
    return threshold;
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    sampling_sm80(const __grid_constant__ struct sampling_args a)
{
    __shared__ struct smem s;
    int64_t index = blockIdx.x;
    pdl_wait();
    const float *probs = row_probs(&a, index);
    uint32_t own_top, top = probs ? find_top(&s, probs, (int)a.vocab, &own_top) : 0;
    pdl_launch();
    if (top == 0) {
        if (threadIdx.x == 0)
            set_sample(&a, index, -1);
        return;
    }
    struct row r = {probs, (int)a.vocab, top, weight_scale_of(top)};
    uint32_t threshold = 1;
#if FILTER
    threshold = filter(&s, &r, own_top, row_integer(&a.top_k, index), row_float(&a.top_p, index), a.joint);
#endif
    uint64_t stream = a.seed.step ? 0 : index;
    uint64_t u = philox_uniform(row_integer(&a.seed, index), row_integer(&a.offset, index), stream);
    int token = draw(&s, &r, threshold, u);
    if (token >= 0)
        set_sample(&a, index, token);
}
