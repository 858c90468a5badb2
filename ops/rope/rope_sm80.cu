/* SPDX-License-Identifier: Apache-2.0 */
/* rope: rotates the pairs of heads by angles that depend on the token's position, copies other heads, and rounds to OUT.
 *
 * Block (x, y) has TOKENS tokens and for each of them the same blockDim.x pieces of heads, one a thread: two runs of VEC
 * elements. All are on their way while the threads share the work of sines and cosines.
 *
 *   T             f16, bf16
 *   OUT           T, e4m3, e5m2
 *   POS           i32, i64
 *   INTERLEAVE    0: pair i is (i, num_pairs + i); 1: (2 i, 2 i + 1)
 *   INDPTR        1: positions follow from indptr and offsets
 *   CACHE         1: sines and cosines are read
 *   PAGED         1: segments may lie in a paged cache
 *   VEC           1, 2, 4, 8; divides half and width of all segments and all strides
 *   SEGMENTS      1 to 5
 *   ROTATING      0 to 2: segments that rotate
 *   POWERS_OF_TWO 1: the heads of all segments have so many pieces
 *   TOKENS        1, 2
 *   WIDE          1: there are more pairs than threads
 * Dynamic shared memory: for each token a table of num_pairs cosines and sines, see table_floats. */
#include "pdl.cuh"
#include "prefetch.cuh"
#include "vec.cuh"
#include "rope_args.h"

enum { QUAD = VEC < 4 ? VEC : 4, QUANTIZES = sizeof(OUT) < sizeof(T) };

/* What a thread does for each token: a piece of a head. */
struct piece {
    const T *from;
    OUT *to;
    int segment;
    int number; /* in its head */
    bool exists, rotates, is_double;
};

struct runs {
    vec<T, VEC> run[2];
};

DEVICE struct piece piece_of(const struct rope_args &a, int number)
{
    struct piece p = {};
#pragma unroll
    for (int s = 1; s < SEGMENTS; s++)
        p.segment += number >= a.segment[s].first_piece;
    const struct rope_segment &g = a.segment[p.segment];
    unsigned in_segment = number - g.first_piece, pieces = g.pieces;
    unsigned head = POWERS_OF_TWO ? in_segment >> (31 - __clz(pieces)) : in_segment / pieces;
    p.number = POWERS_OF_TWO ? in_segment & (pieces - 1) : in_segment % pieces;
    p.exists = number < a.pieces;
    p.rotates = SEGMENTS == ROTATING || p.segment < ROTATING;
    int first = INTERLEAVE && VEC == 1 && p.rotates ? 2 * p.number : p.number * VEC;
    p.is_double = p.exists && first + g.half < g.width;
    p.from = (const T *)g.from + head * g.from_stride[1] + first;
    p.to = (OUT *)g.to + head * g.to_stride[2] + first;
    return p;
}

DEVICE struct runs load_runs(const struct piece &p, const struct rope_args &a, int64_t token)
{
    const struct rope_segment &g = a.segment[p.segment];
    struct runs r = {};
    if (p.exists)
        r.run[0] = load_vec<VEC>(p.from + token * g.from_stride[0]);
    if (p.is_double)
        r.run[1] = load_vec<VEC>(p.from + token * g.from_stride[0] + g.half);
    return r;
}

/* By how many full turns a pair turns from one position to the next. */
DEVICE double turns_of(const struct rope_args &a, int pair)
{
    double factor[4] = {1.0, 1.0, 1.0, 1.0};
#pragma unroll
    for (int i = 0; i < ROPE_POWERS; i++)
        factor[i % 4] *= pair >> i & 1 ? a.power[i] : 1.0;
    double base = (factor[0] * factor[1]) * (factor[2] * factor[3]);
    double smooth = fmin(fmax(base * a.smooth[0] + a.smooth[1], 0.0), 1.0);
    return base * (a.low + smooth * (1.0 - a.low)) * 0.15915494309189533577;
}

/* By a whole warp: the last request that begins at or before the token, by halving in 32. */
DEVICE POS position_of(const struct rope_args &a, int64_t token)
{
#if INDPTR
    const POS *indptr = (const POS *)a.indptr;
    int64_t low = 0, size = a.batch;
    if (size == 0 || token < indptr[0] || token >= indptr[size])
        return 0;
    while (size > 1) {
        int64_t step = (size + 31) / 32, probe = threadIdx.x % 32 * step;
        bool begun = probe > 0 && probe < size && indptr[low + probe] <= token;
        int64_t skipped = __popc(__ballot_sync(0xffffffffu, begun)) * step;
        low += skipped;
        size = min(step, size - skipped);
    }
    return (POS)(((const POS *)a.offsets)[low] + token - indptr[low]);
#else
    return ((const POS *)a.pos_ids)[token];
#endif
}

/* Runs of halves need VEC pairs at once: quads of neighbouring pieces are neighbours, which has no bank conflicts. */
DEVICE int place_in_table(int pair, int num_pairs)
{
    return INTERLEAVE ? pair : (pair % VEC / QUAD * (num_pairs / VEC) + pair / VEC) * QUAD + pair % QUAD;
}

DEVICE int table_floats(const struct rope_args &a) { return (a.num_pairs + 7) / 4 * 4; }

/* turns: of that pair. */
DEVICE void fill_pair(float *cosine, float *sine, const struct rope_args &a, POS position, int pair, double turns)
{
    int place = place_in_table(pair, a.num_pairs);
#if CACHE
    const float *row = a.cos_sin + position * a.cos_sin_stride;
    cosine[place] = row[pair];
    sine[place] = row[a.num_pairs + pair];
#else
    double angle = (double)position * turns; /* in turns; only the fraction counts */
    sincospif(2.0f * (float)(angle - rint(angle)), &sine[place], &cosine[place]);
#endif
}

/* The pair that a thread fills in, of which tokens of a block: `first`, then `step` on. */
struct share {
    int first, step, pair;
};

/* Whole warps work for the same token if they look for its request together. */
DEVICE struct share share_of(const struct rope_args &a)
{
    int threads = INDPTR ? (a.num_pairs + 31) / 32 * 32 : a.num_pairs;
    if (WIDE)
        return share{0, 1, (int)threadIdx.x};
    if (TOKENS == 1)
        return share{(int)threadIdx.x >= threads, 1, (int)threadIdx.x};
    int step = blockDim.x / threads, first = threadIdx.x / threads;
    return share{first < step ? first : TOKENS, step, (int)threadIdx.x - first * threads};
}

/* turns: of that pair. */
DEVICE void fill_table(float *cosine, float *sine, const struct rope_args &a, POS position, int pair, double turns)
{
    if (!INDPTR || pair < a.num_pairs)
        fill_pair(cosine, sine, a, position, pair, turns);
#if WIDE
    for (int i = pair + blockDim.x; i < a.num_pairs; i += blockDim.x)
        fill_pair(cosine, sine, a, position, i, CACHE ? 0.0 : turns_of(a, i));
#endif
}

DEVICE void rotate_pair(float &x, float &y, float cosine, float sine)
{
    float turned = x * cosine - y * sine;
    y = y * cosine + x * sine;
    x = turned;
}

DEVICE void rotate(float (&x)[2][VEC], const struct piece &p, const struct rope_segment &g, const float *cosine,
                   const float *sine)
{
#if INTERLEAVE && VEC == 1
    rotate_pair(x[0][0], x[1][0], cosine[p.number], sine[p.number]);
#elif INTERLEAVE
#pragma unroll
    for (int run = 0; run < 2; run++) {
        float c[VEC / 2], s[VEC / 2];
        load(c, cosine + (run * g.half + p.number * VEC) / 2);
        load(s, sine + (run * g.half + p.number * VEC) / 2);
#pragma unroll
        for (int i = 0; i < VEC / 2; i++)
            rotate_pair(x[run][2 * i], x[run][2 * i + 1], c[i], s[i]);
    }
#else
#pragma unroll
    for (int quad = 0; quad < VEC / QUAD; quad++) {
        float c[QUAD], s[QUAD];
        load(c, cosine + (quad * g.pieces + p.number) * QUAD);
        load(s, sine + (quad * g.pieces + p.number) * QUAD);
#pragma unroll
        for (int i = 0; i < QUAD; i++)
            rotate_pair(x[0][quad * QUAD + i], x[1][quad * QUAD + i], c[i], s[i]);
    }
#endif
}

DEVICE void store_runs(OUT *to, const struct piece &p, const struct rope_segment &g, const struct runs &r, const float *cosine,
                       const float *sine)
{
    if (!QUANTIZES && !p.rotates) {
        store_vec((T *)to, r.run[0]);
        if (p.is_double)
            store_vec((T *)to + g.half, r.run[1]);
        return;
    }
    float x[2][VEC];
    widen(x[0], r.run[0]);
    widen(x[1], r.run[1]);
    if (SEGMENTS == ROTATING || p.rotates)
        rotate(x, p, g, cosine, sine);
#pragma unroll
    for (int i = 0; i < 2 * VEC; i++)
        x[i / VEC][i % VEC] *= QUANTIZES ? g.scale : 1.0f;
    store(to, x[0]);
    if (p.is_double)
        store(to + g.half, x[1]);
}

/* By a warp for each segment. */
DEVICE void fetch_token_ahead(const struct rope_args &a)
{
    int segment = threadIdx.x / 32;
    if (blockIdx.x < a.ahead.blocks && blockIdx.y == 0 && threadIdx.x % 32 == 0 && segment < SEGMENTS) {
        const struct rope_segment &g = a.segment[segment];
        bulk_prefetch((const T *)g.from + (blockIdx.x + a.ahead.distance) * g.from_stride[0], g.heads * g.width * sizeof(T));
    }
}

extern "C" __global__ void __launch_bounds__(320, SEGMENTS > 2 ? 3 : WIDE || INDPTR ? 4 : 5)
    rope_sm80(const __grid_constant__ struct rope_args a)
{
    extern __shared__ float4 tables[];
    int floats = table_floats(a), first = blockIdx.y * blockDim.x;
    bool rotates = first < a.rotating_pieces;
    int token = blockIdx.x * TOKENS, count = TOKENS == 1 ? 1 : min(TOKENS, a.nnz - token);
    struct piece p = piece_of(a, first + threadIdx.x);
    struct share mine = rotates ? share_of(a) : share{TOKENS, 1, 0};
    double turns = rotates && !CACHE ? turns_of(a, mine.pair) : 0.0;

    pdl_launch();
    pdl_wait();
    POS position[TOKENS] = {};
    struct runs r[TOKENS];
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
        if (mine.first + i * mine.step < count)
            position[i] = position_of(a, token + mine.first + i * mine.step);
    }
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
        if (i < count)
            r[i] = load_runs(p, a, token + i);
    }
    if (TOKENS == 1 && !QUANTIZES && __CUDA_ARCH__ < 1000) /* newer ones would spill */
        fetch_token_ahead(a);
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
        float *cosine = (float *)tables + (mine.first + i * mine.step) * 2 * floats;
        if (mine.first + i * mine.step < count)
            fill_table(cosine, cosine + floats, a, position[i], mine.pair, turns);
    }
    if (rotates)
        __syncthreads();
    const struct rope_segment &g = a.segment[p.segment];
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
        const float *cosine = (const float *)tables + i * 2 * floats;
        bool stores = p.exists && i < count;
#if PAGED
        struct page_slot at = page_slot_of(&a.tokens, i < count ? token + i : token);
        OUT *to = p.to + (g.paged ? at.page * g.to_stride[0] + at.slot * g.to_stride[1] : (token + i) * g.to_stride[0]);
        stores = stores && at.page >= 0;
#else
        OUT *to = p.to + (token + i) * g.to_stride[0];
#endif
        if (stores)
            store_runs(to, p, g, r[i], cosine, cosine + floats);
    }
}
