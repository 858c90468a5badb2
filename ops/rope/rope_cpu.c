/* SPDX-License-Identifier: Apache-2.0 */
/* rope on a CPU: rotates the pairs of heads by angles that depend on the token's position, copies other heads, and rounds to
 * OUT. A part takes a range of tokens. For each token sines and cosines are computed once, for CHUNK pairs at a time, and serve
 * all heads.
 *
 *   T          f16, bf16
 *   OUT        T, e4m3, e5m2
 *   POS        i32, i64
 *   INTERLEAVE 0: pair i is (i, num_pairs + i); 1: (2 i, 2 i + 1)
 *   INDPTR     1: positions follow from indptr and offsets
 *   CACHE      1: sines and cosines are read
 *   PAGED      1: segments may lie in a paged cache */
#include "stream.h"
#include "rope_args.h"

enum {
    CHUNK = 256,
    QUANTIZES = sizeof(OUT) < sizeof(T),
    KNOWN = !CACHE && IS_BF16(T) && IS_BF16(OUT) ? NUMBERS : WILD,
};

/* Of each pair in the chunk. Interleaved: of each element, sines with the sign of their partner's share. In EVEN_ODD thirty-two
 * neighbours each have that order. */
struct rotation {
    float cosine[(1 + INTERLEAVE) * CHUNK], sine[(1 + INTERLEAVE) * CHUNK];
};

static void put(struct rotation *r, int at, vec cosine, vec sine)
{
#if INTERLEAVE
    for (int i = 0; i < LANES; i++) {
        r->cosine[2 * (at + i)] = r->cosine[2 * (at + i) + 1] = cosine[i];
        r->sine[2 * (at + i)] = -sine[i];
        r->sine[2 * (at + i) + 1] = sine[i];
    }
#else
    vec_store_f32(r->cosine + at, cosine);
    vec_store_f32(r->sine + at, sine);
#endif
}

/* The order in which n pairs are rotated. */
INLINE enum pair_order order_of(int n)
{
    return PAIR_ORDER(T) == EVEN_ODD && (1 + INTERLEAVE) * n % PAIR == 0 ? EVEN_ODD : HALVES;
}

static void reorder(float *x, int n)
{
    for (int at = 0; at < (1 + INTERLEAVE) * n; at += PAIR) {
#ifdef __AVX512F__
        pair_store(x + at, pair_load(x + at, EVEN_ODD), HALVES);
#else /* where compilers take such shuffles apart */
        float part[PAIR];
        memcpy(part, x + at, sizeof part);
        for (int i = 0; i < PAIR; i++)
            x[at + i % 2 * LANES + i / 2] = part[i];
#endif
    }
}

#if CACHE
static void fill_rotation(struct rotation *r, const struct rope_args *a, int64_t position, const double *turns, int first, int n)
{
    (void)turns;
    const float *cosine = a->cos_sin + position * a->cos_sin_stride + first, *sine = cosine + a->num_pairs;
    for (int at = 0; at < n; at += LANES)
        put(r, at, vec_load_n(cosine + at, n - at), vec_load_n(sine + at, n - at));
}
#else
/* Only the fraction of a turn counts, so it is split off in float64. */
static void fill_rotation(struct rotation *r, const struct rope_args *a, int64_t position, const double *turns, int first, int n)
{
    (void)a;
    (void)first;
    for (int at = 0; at < n; at += LANES) {
        float fraction[LANES];
        vec sine, cosine;
        for (int i = 0; i < LANES; i++) {
            double angle = (double)position * turns[at + i];
            fraction[i] = (float)(angle - rint(angle));
        }
        vec_sincos_turns(vec_load_f32(fraction), &sine, &cosine);
        put(r, at, cosine, sine);
    }
}
#endif

/* By how many full turns each of n pairs turns from one position to the next. *base: of the first one; then of the next one. */
static void fill_turns(double *turns, double *base, const struct rope_args *a, int n)
{
    for (int i = 0; i < n; i++, *base *= a->power[0]) {
        double smooth = *base * a->smooth[0] + a->smooth[1];
        smooth = smooth < 0 ? 0 : smooth > 1 ? 1 : smooth;
        turns[i] = *base * (a->low + smooth * (1 - a->low)) * 0.15915494309189533577;
    }
}

static int64_t position_of(const struct rope_args *a, int64_t token)
{
#if INDPTR
    const POS *indptr = (const POS *)a->indptr;
    int64_t low = 0, high = a->batch;
    if (high == 0 || token < indptr[0] || token >= indptr[high])
        return 0;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (indptr[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    return ((const POS *)a->offsets)[low] + token - indptr[low];
#else
    return ((const POS *)a->pos_ids)[token];
#endif
}

#define SCALED(x) (QUANTIZES ? (x) * scale : (x))

/* n elements, or n pairs, from `at` on. */
INLINE void rotate_vec(OUT *to, const T *from, int32_t num_pairs, const struct rotation *r, int32_t at, int32_t n, float scale)
{
    vec cosine = vec_load_f32(r->cosine + at), sine = vec_load_f32(r->sine + at), a = vec_load_n(from + at, n);
    (void)scale, (void)num_pairs;
#if INTERLEAVE
    vec_store_n(to + at, SCALED(a * cosine + vec_swap_neighbours(a) * sine), n);
#else
    vec b = vec_load_n(from + num_pairs + at, n);
    vec_store_n(to + at, SCALED(a * cosine - b * sine), n);
    vec_store_n(to + num_pairs + at, SCALED(b * cosine + a * sine), n);
#endif
}

/* The same, thirty-two. */
INLINE void rotate_pair(OUT *to, const T *from, int32_t num_pairs, const struct rotation *r, int32_t at, float scale,
                        enum pair_order order, bool past_caches)
{
    struct pair cosine = pair_load(r->cosine + at, HALVES), sine = pair_load(r->sine + at, HALVES), a, b, x, y;
    (void)scale, (void)num_pairs, (void)y;
    a = pair_load(from + at, order);
#if INTERLEAVE
    b = pair_swap_neighbours(a, order);
    for (int i = 0; i < 2; i++)
        x.v[i] = SCALED(a.v[i] * cosine.v[i] + b.v[i] * sine.v[i]);
    pair_write(to + at, x, order, KNOWN, past_caches);
#else
    b = pair_load(from + num_pairs + at, order);
    for (int i = 0; i < 2; i++) {
        x.v[i] = SCALED(a.v[i] * cosine.v[i] - b.v[i] * sine.v[i]);
        y.v[i] = SCALED(b.v[i] * cosine.v[i] + a.v[i] * sine.v[i]);
    }
    pair_write(to + at, x, order, KNOWN, past_caches);
    pair_write(to + num_pairs + at, y, order, KNOWN, past_caches);
#endif
}

/* Pairs [first, first + n) of one head. ahead: from a token's elements to the next one's. */
static void rotate(OUT *to, const T *from, const struct rotation *r, int32_t first, int32_t n, int32_t num_pairs, float scale,
                   bool past_caches, int64_t ahead)
{
    int32_t at = 0, end = (1 + INTERLEAVE) * n;
    bool even_odd = order_of(n) == EVEN_ODD;
    to += (1 + INTERLEAVE) * first;
    from += (1 + INTERLEAVE) * first;
    if (past_caches && (intptr_t)to % 64 == 0 && (INTERLEAVE || num_pairs * (int)sizeof *to % 64 == 0))
        for (; at + PAIR <= end && even_odd == (PAIR_ORDER(T) == EVEN_ODD); at += PAIR) {
            __builtin_prefetch(from + at + ahead, 0, 2);
            if (!INTERLEAVE)
                __builtin_prefetch(from + num_pairs + at + ahead, 0, 2);
            rotate_pair(to, from, num_pairs, r, at, scale, PAIR_ORDER(T), true);
        }
    for (; at + PAIR <= end && even_odd; at += PAIR)
        rotate_pair(to, from, num_pairs, r, at, scale, EVEN_ODD, false);
    for (; at + LANES <= end; at += LANES)
        rotate_vec(to, from, num_pairs, r, at, LANES, scale);
    if (at < end)
        rotate_vec(to, from, num_pairs, r, at, end - at, scale);
}

static void copy(OUT *to, const T *from, int32_t n, float scale, bool past_caches, int64_t ahead)
{
    if (!QUANTIZES) {
        if ((const void *)to != from)
            write_out(to, from, n * (int64_t)sizeof *to, past_caches);
        return;
    }
    int32_t at = 0;
    if (past_caches && (intptr_t)to % 64 == 0)
        for (; at + PAIR <= n; at += PAIR) {
            struct pair x = pair_load(from + at, PAIR_ORDER(T));
            __builtin_prefetch(from + at + ahead, 0, 2);
            pair_stream(to + at, ((struct pair){{x.v[0] * scale, x.v[1] * scale}}), PAIR_ORDER(T), WILD);
        }
    for (; at + LANES <= n; at += LANES)
        vec_store(to + at, vec_load(from + at) * scale);
    if (at < n)
        vec_store_n(to + at, vec_load_n(from + at, n - at) * scale, n - at);
}

/* The chunk of a token's pairs; with the first one, what is copied too. */
static void do_token(const struct rope_args *a, int64_t token, const struct rotation *r, int32_t first, int32_t n,
                     bool past_caches)
{
#if PAGED
    struct page_slot at = page_slot_of(&a->tokens, token);
    if (at.page < 0)
        return;
#endif
    for (int s = 0; s < a->num_segments; s++) {
        const struct rope_segment *g = &a->segment[s];
        const T *from = (const T *)g->from + token * g->from_stride[0];
        OUT *to = (OUT *)g->to + token * g->to_stride[0];
#if PAGED
        if (g->paged)
            to = (OUT *)g->to + at.page * g->to_stride[0] + at.slot * g->to_stride[1];
#endif
        for (int32_t head = 0; head < g->heads; head++, from += g->from_stride[1], to += g->to_stride[2])
            if (s < a->num_rotating)
                rotate(to, from, r, first, n, a->num_pairs, g->scale, past_caches && g->to != g->from, g->from_stride[0]);
            else if (first == 0)
                copy(to, from, g->width, g->scale, past_caches, g->from_stride[0]);
    }
}

void rope_cpu(const struct rope_args *a, int part, int parts)
{
    int64_t end = part_begin(a->nnz, part + 1, parts), bytes = 0;
    for (int s = 0; s < a->num_segments; s++)
        bytes += (int64_t)a->nnz * a->segment[s].heads * a->segment[s].width * (int)sizeof(OUT);
    bool past_caches = streams(bytes);
    double base = 1;
    int32_t first = 0;
    do {
        int32_t n = a->num_pairs - first < CHUNK ? a->num_pairs - first : CHUNK;
        double turns[CHUNK] = {0};
        fill_turns(turns, &base, a, n);
        for (int64_t token = part_begin(a->nnz, part, parts); token < end; token++) {
            struct rotation r;
            fill_rotation(&r, a, position_of(a, token), turns, first, n);
            if (order_of(n) == EVEN_ODD) {
                reorder(r.cosine, n);
                reorder(r.sine, n);
            }
            do_token(a, token, &r, first, n, past_caches);
        }
        first += CHUNK;
    } while (first < a->num_pairs);
    if (past_caches)
        stream_end();
}
