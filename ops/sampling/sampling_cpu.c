/* SPDX-License-Identifier: Apache-2.0 */
/* Draws one token per row of probabilities on a CPU; with FILTER, from those that pass top-k and top-p. A
 * part takes a range of rows.
 *
 * A threshold is found by bisection of the keys, each step one pass that counts or weighs, over the row until
 * few are left in question, then over a list of those. sampling_args.h says what keys and weights are.
 *
 *   FILTER 0, 1 */
#include <stdbool.h>

#include "compress.h"
#include "sampling_args.h"

enum { GROUPS = 64 * LANES, SEGMENTS = 128, MAX_LISTED = 8192 };

typedef float half_vec __attribute__((vector_size(2 * LANES)));
typedef int64_t half_vecq __attribute__((vector_size(4 * LANES))); /* as many lanes as half_vec */

struct row {
    const float *probs;
    int64_t vocab;
    uint32_t top; /* the largest key */
    struct weight_scale scale;
};

INLINE uint32_t key_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return probability_key(bits);
}

INLINE uint64_t weight_in_row(const struct row *r, float x)
{
    return (uint64_t)(x * r->scale.factor[0] * r->scale.factor[1]);
}

INLINE vec keep_where(veci mask, vec x) { return (vec)(mask & (veci)x); }

/* Whether keys of probabilities lie in [from, to), from >= 1; bits of what cannot be drawn never do, for to
 * is at most infinity. */
INLINE veci is_in_range(vec probs, uint32_t from, uint32_t to)
{
    return (veci)vec_is_below((vecu)probs - from, vec_set_bits(to - from));
}

/* Adds what the lanes of x that are in the range weigh. */
INLINE half_vecq add_weights(half_vecq sum, const struct row *r, vec x, uint32_t from, uint32_t to)
{
    vec weights = keep_where(is_in_range(x, from, to), x) * r->scale.factor[0] * r->scale.factor[1];
    half_vec half[2];
    memcpy(half, &weights, sizeof half);
    return sum + __builtin_convertvector(half[0], half_vecq) + __builtin_convertvector(half[1], half_vecq);
}

/* How many of n probabilities have keys in [from, to), or what they weigh together. */
INLINE uint64_t measure(const struct row *r, const float *probs, int64_t n, uint32_t from, uint32_t to,
                        bool by_weight)
{
    half_vecq weight = {0};
    vecu number = {0};
    for (int64_t at = 0; at < n; at += LANES) {
        vec x = vec_load_n(probs + at, n - at);
        if (by_weight)
            weight = add_weights(weight, r, x, from, to);
        else
            number -= (vecu)is_in_range(x, from, to);
    }
    uint64_t sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += by_weight ? i % 2 ? 0 : (uint64_t)weight[i / 2] : number[i];
    return sum;
}

static uint64_t weigh(const struct row *r, const float *probs, int64_t n, uint32_t from, uint32_t to)
{
    return measure(r, probs, n, from, to, true);
}

/* Finds the largest probability, and that of each of GROUPS groups of equal size. Positive floats are ordered
 * as their keys are. */
static void open_row(struct row *r, float group_top[GROUPS], const float *probs, int64_t vocab)
{
    vec top[GROUPS / LANES] = {{0}};
    for (int64_t at = 0; at < vocab; at += GROUPS)
        for (int g = 0; g < GROUPS / LANES && at + g * LANES < vocab; g++) {
            vec x = vec_load_n(probs + at + g * LANES, vocab - at - g * LANES);
            top[g] = vec_max2(top[g], keep_where(is_in_range(x, 1, 0x7f800000u), x));
        }
    vec all = top[0];
    for (int g = 1; g < GROUPS / LANES; g++)
        all = vec_max2(all, top[g]);
    memcpy(group_top, top, sizeof top);
    r->probs = probs;
    r->vocab = vocab;
    r->top = key_of(vec_max(all));
    r->scale = weight_scale_of(r->top);
}

/* The first token whose running sum over keys >= threshold exceeds u / 2^64 of the whole; -1 if there is
 * none. */
static int64_t draw(const struct row *r, uint32_t threshold, uint64_t u)
{
    uint64_t weight[SEGMENTS], total = 0;
    int64_t size = (r->vocab + SEGMENTS * LANES - 1) / (SEGMENTS * LANES) * LANES, at = 0;
    for (int s = 0; at < r->vocab; s++, at += size) {
        int64_t n = r->vocab - at < size ? r->vocab - at : size;
        weight[s] = weigh(r, r->probs + at, n, threshold, r->top + 1);
        total += weight[s];
    }
    uint64_t target = multiply_high(u, total);
    at = 0;
    for (int s = 0; target >= weight[s]; s++, at += size)
        target -= weight[s];
    for (;; at++) {
        uint64_t own = key_of(r->probs[at]) >= threshold ? weight_in_row(r, r->probs[at]) : 0;
        if (target < own)
            return at;
        target -= own;
    }
}

#if FILTER
static uint64_t count(const struct row *r, const float *probs, int64_t n, uint32_t from, uint32_t to)
{
    return measure(r, probs, n, from, to, false);
}

/* Lists the probabilities with keys in [from, to), which may be done in place; -1 if they are too many. */
static int list_range(float *list, const float *probs, int64_t n, uint32_t from, uint32_t to)
{
    int listed = 0;
    for (int64_t at = 0; at < n; at += LANES) {
        vec x = vec_load_n(probs + at, n - at);
        listed += vec_store_where(list + listed, x, is_in_range(x, from, to));
        if (listed > MAX_LISTED)
            return -1;
    }
    return listed;
}

/* The largest key t, at least `from`, such that the keys >= t are as many, or weigh as much, as `limit`;
 * `from` if there is none. */
static uint32_t find_threshold(const struct row *r, uint32_t from, uint64_t limit, bool by_weight)
{
    float list[MAX_LISTED + LANES];
    uint32_t to = r->top + 1;
    const float *probs = r->probs; /* where keys in [from, to) are */
    int64_t n = r->vocab;
    uint64_t above = 0;
    while (to - from > 1) {
        if (probs == r->probs || n > 4 * LANES) {
            int listed = list_range(list, probs, n, from, to);
            if (listed >= 0) {
                probs = list;
                n = listed;
            }
        }
        uint32_t middle = from + (to - from) / 2;
        uint64_t reached = above + (by_weight ? weigh : count)(r, probs, n, middle, to);
        if (reached >= limit) {
            from = middle;
        } else {
            to = middle;
            above = reached;
        }
    }
    return from;
}

/* The k-th largest of all keys is at least the k-th largest of the groups' largest. */
static uint32_t top_k_bound(const struct row *r, const float group_top[GROUPS], int64_t k)
{
    uint32_t bound = 0;
    if (k <= GROUPS)
        for (uint32_t bit = 1u << 30; bit > 0; bit /= 2)
            if ((bound | bit) <= r->top &&
                count(r, group_top, GROUPS, bound | bit, r->top + 1) >= (uint64_t)k)
                bound |= bit;
    return bound ? bound : 1;
}

static uint32_t filter(const struct row *r, const float group_top[GROUPS], int64_t top_k, float top_p,
                       bool joint)
{
    uint32_t threshold = 1;
    if (top_k > 0 && top_k < r->vocab)
        threshold = find_threshold(r, top_k_bound(r, group_top, top_k), (uint64_t)top_k, false);
    if (top_p < 1.0f) {
        uint64_t total = weigh(r, r->probs, r->vocab, joint ? 1 : threshold, r->top + 1);
        uint64_t limit = share_of(total, top_p > 0.0f ? top_p : 0.0f);
        uint32_t bound = share_bound(total - limit, r->vocab, r->scale.top_exponent);
        threshold = find_threshold(r, bound > threshold ? bound : threshold, limit, true);
    }
    return threshold;
}
#endif

static int64_t sample(const struct sampling_args *a, int64_t row)
{
    const float *probs = row_probs(a, row);
    if (!probs)
        return -1;
    struct row r;
    float group_top[GROUPS];
    open_row(&r, group_top, probs, a->vocab);
    if (r.top == 0)
        return -1;
    uint32_t threshold = 1;
#if FILTER
    threshold = filter(&r, group_top, row_integer(&a->number[SAMPLING_TOP_K], row), row_float(&a->top_p, row), a->joint);
#endif
    uint64_t stream = a->number[SAMPLING_SEED].step ? 0 : (uint64_t)row;
    uint64_t seed = (uint64_t)row_integer(&a->number[SAMPLING_SEED], row),
             offset = (uint64_t)row_integer(&a->number[SAMPLING_OFFSET], row);
    return draw(&r, threshold, philox_uniform(seed, offset, stream));
}

void sampling_cpu(const struct sampling_args *a, int part, int parts)
{
    int64_t end = part_begin(a->batch, part + 1, parts);
    for (int64_t row = part_begin(a->batch, part, parts); row < end; row++)
        set_sample(a, row, sample(a, row));
}
