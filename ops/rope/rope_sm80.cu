/* SPDX-License-Identifier: Apache-2.0 */
/* rope: rotates the pairs of heads by angles that depend on the token's position, copies other heads, and rounds to OUT.
 *
 * 2^chunk_bits blocks side by side have the same token, each blockDim.x of its pieces. A thread has the same piece, two runs of
 * VEC elements, of up to HEADS heads of a segment, which turn by the same angles. Sines and cosines it reads for itself, or the
 * block shares the work of them while the pieces are on their way.
 *
 *   T             f16, bf16
 *   OUT           T, e4m3, e5m2
 *   POS           i32, i64
 *   INTERLEAVE    0: pair i is (i, num_pairs + i); 1: (2 i, 2 i + 1)
 *   INDPTR        1: positions follow from indptr and offsets
 *   CACHE         how cosines and sines are found, see rope_args.h
 *   PAGED         1: segments may lie in a paged cache
 *   VEC           1, 2, 4, 8; divides half and width of all segments and all strides
 *   SEGMENTS      1 to 5
 *   ROTATING      0 to 2: segments that rotate
 *   EXACT         1: the heads of all segments are pieces of two runs
 *   POWERS_OF_TWO 1: the heads of all segments have so many pieces
 *   HEADS         1, 2
 *   CHUNKED       0: chunk_bits is 0
 *   WIDE          1: a thread fills in more than one share of a table
 * Dynamic shared memory: unless each thread reads them, ROPE_TABLE_FLOATS cosines and as many sines. */
#include "pdl.cuh"
#include "prefetch.cuh"
#include "vec.cuh"
#include "rope_args.h"

enum { QUAD = VEC < 4 ? VEC : 4, QUANTIZES = sizeof(OUT) < sizeof(T), TABLE = CACHE != ROPE_CACHED_BY_EACH };
enum { ROWS_ALIGNED = CACHE >= ROPE_CACHED_BY_FOUR }; /* of a.cos_sin, as bulk_prefetch wants it */

/* What a thread does: a piece of heads that are `apart` heads apart. Its places are in elements, those of the first head. */
struct piece {
    int64_t from, to, from_step, to_step; /* steps: from head to head */
    int segment, half;
    int number;      /* in its head */
    int apart, left; /* left: heads from the first one on */
    float scale;
    bool rotates, is_double;
};

struct runs {
    vec<T, VEC> run[2];
};

DEVICE struct piece piece_of(const struct rope_args &a, int number, int64_t token)
{
    struct piece p = {};
#pragma unroll
    for (int s = 1; s < SEGMENTS; s++)
        p.segment += number >= a.segment[s].first_piece;
    const struct rope_segment &g = a.segment[p.segment];
    unsigned in_segment = number - g.first_piece, pieces = g.pieces;
    unsigned head = POWERS_OF_TWO ? in_segment >> (31 - __clz(pieces)) : in_segment / pieces;
    p.number = POWERS_OF_TWO ? in_segment & (pieces - 1) : in_segment % pieces;
    p.rotates = SEGMENTS == ROTATING || p.segment < ROTATING;
    int first = INTERLEAVE && VEC == 1 && p.rotates ? 2 * p.number : p.number * VEC;
    p.half = g.half;
    p.is_double = EXACT || first + p.half < g.width;
    p.scale = g.scale;
    p.apart = g.apart;
    p.left = g.heads - (int)head;
    p.from_step = g.apart * g.from_stride[1];
    p.to_step = g.apart * g.to_stride[2];
    p.from = head * g.from_stride[1] + token * g.from_stride[0] + first;
    p.to = head * g.to_stride[2] + first;
    forget(p.from); /* else they would be worked out anew for each use */
    forget(p.to);
    forget(p.half);
    forget(p.number);
    return p;
}

/* Whether a thread has an i-th head. */
DEVICE bool has_head(const struct piece &p, int i) { return i == 0 || i * p.apart < p.left; }

DEVICE struct runs load_runs(const struct rope_args &a, const struct piece &p, int64_t at)
{
    const T *from = (const T *)a.segment[p.segment].from + p.from + at;
    struct runs r = {};
    r.run[0] = load_vec<VEC>(from);
    if (p.is_double)
        r.run[1] = load_vec<VEC>(from + p.half);
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

/* share: the pair, or the four cosines or sines that are read at once. turns: of that pair. */
DEVICE void fill(float *cosine, float *sine, const struct rope_args &a, POS position, int share, double turns)
{
#if CACHE == ROPE_CACHED_BY_FOUR
    int quads = a.num_pairs / 4, quad = share < quads ? share : share - quads;
    const float4 *row = (const float4 *)(a.cos_sin + position * a.cos_sin_stride);
    *(float4 *)((share < quads ? cosine : sine) + place_in_table(4 * quad, a.num_pairs)) = row[share];
#else
    int place = place_in_table(share, a.num_pairs);
#if CACHE
    const float *row = a.cos_sin + position * a.cos_sin_stride;
    cosine[place] = row[share];
    sine[place] = row[a.num_pairs + share];
#else
    double angle = (double)position * turns; /* in turns; only the fraction counts */
    sincospif(2.0f * (float)(angle - rint(angle)), &sine[place], &cosine[place]);
#endif
#endif
}

/* turns: of the thread's own pair. */
DEVICE void fill_table(float *cosine, float *sine, const struct rope_args &a, POS position, double turns)
{
    int share = threadIdx.x;
    if (!INDPTR || share < a.num_pairs)
        fill(cosine, sine, a, position, share, turns);
#if WIDE
    for (int i = share + blockDim.x; i < (CACHE == ROPE_CACHED_BY_FOUR ? a.sharers : a.num_pairs); i += blockDim.x)
        fill(cosine, sine, a, position, i, CACHE ? 0.0 : turns_of(a, i));
#endif
}

/* What a thread's pairs turn by: the cosines, or sines, among those of the table or of a row of the cache. */
DEVICE void load_turns(float (&turn)[VEC], const float *from, const struct piece &p)
{
#if INTERLEAVE && VEC == 1
    turn[0] = from[p.number];
#elif INTERLEAVE
#pragma unroll
    for (int run = 0; run < 2; run++)
        if (run == 0 || p.is_double)
            load(*(float(*)[VEC / 2])(turn + run * VEC / 2), from + (run * p.half + p.number * VEC) / 2);
#else
    from += p.number * (TABLE ? QUAD : VEC);
#pragma unroll
    for (int quad = 0; quad < VEC / QUAD; quad++)
        load(*(float(*)[QUAD])(turn + quad * QUAD), from + quad * (TABLE ? p.half / VEC * QUAD : QUAD));
#endif
}

DEVICE void rotate_pair(float &x, float &y, float cosine, float sine)
{
    float turned = x * cosine - y * sine;
    y = y * cosine + x * sine;
    x = turned;
}

/* cosine, sine: scaled, if the output is. */
DEVICE void rotate(float (&x)[2 * VEC], const float (&cosine)[VEC], const float (&sine)[VEC])
{
#pragma unroll
    for (int i = 0; i < VEC; i++)
        if (INTERLEAVE)
            rotate_pair(x[2 * i], x[2 * i + 1], cosine[i], sine[i]);
        else
            rotate_pair(x[i], x[VEC + i], cosine[i], sine[i]);
}

template <bool ROTATES>
DEVICE void store_runs(OUT *to, const struct piece &p, const struct runs &r, const float (&cosine)[VEC], const float (&sine)[VEC])
{
    if (!QUANTIZES && !ROTATES) {
        store_vec((T *)to, r.run[0]);
        if (p.is_double)
            store_vec((T *)to + p.half, r.run[1]);
        return;
    }
    float x[2 * VEC];
    float(&run)[2][VEC] = *(float(*)[2][VEC])x;
    widen(run[0], r.run[0]);
    widen(run[1], r.run[1]);
    if (ROTATES)
        rotate(x, cosine, sine);
#pragma unroll
    for (int i = 0; i < 2 * VEC; i++)
        x[i] *= QUANTIZES && !ROTATES ? p.scale : 1.0f;
    store(to, run[0]);
    if (p.is_double)
        store(to + p.half, run[1]);
}

template <bool ROTATES>
DEVICE void store_heads(OUT *to, const struct piece &p, const struct runs (&r)[HEADS], const float (&cosine)[VEC],
                        const float (&sine)[VEC])
{
#pragma unroll
    for (int i = 0; i < HEADS; i++)
        if (has_head(p, i))
            store_runs<ROTATES>(to + i * p.to_step, p, r[i], cosine, sine);
}

/* On newer architectures it would spill. */
#define FETCHES (__CUDA_ARCH__ < 1000)

/* What the thread brings to the L2 cache for a later token: i, the heads of segment i; SEGMENTS, its row of cosines and sines,
 * which is all that pays with outputs of 8 bits; -1, nothing. */
DEVICE int fetches_ahead(const struct rope_args &a, uint32_t token, int number)
{
    if (!FETCHES || token >= a.ahead.blocks)
        return -1;
    if (QUANTIZES)
        return ROWS_ALIGNED && number == 0 ? SEGMENTS : -1;
    return number % 32 == 0 && number / 32 < SEGMENTS + ROWS_ALIGNED ? number / 32 : -1;
}

/* later: that token's position. */
DEVICE void fetch_token_ahead(const struct rope_args &a, int segment, int64_t token, POS later)
{
    if (!QUANTIZES && segment < SEGMENTS) {
        const struct rope_segment &g = a.segment[segment];
        bulk_prefetch((const T *)g.from + token * g.from_stride[0], g.heads * g.width * sizeof(T));
    } else if (ROWS_ALIGNED) {
        bulk_prefetch(a.cos_sin + later * a.cos_sin_stride, a.num_pairs * 2 * sizeof(float));
    }
}

#if PAGED
/* Where head 0 of the thread's segment goes: a page and a slot, or the token. */
DEVICE OUT *place_of(const struct rope_args &a, const struct rope_segment &g, int64_t token, int32_t request, int32_t at)
{
    if (!g.paged)
        return (OUT *)g.to + token * g.to_stride[0];
    struct page_slot s = page_slot_at(&a.tokens, request, at);
    return (OUT *)g.to + s.page * g.to_stride[0] + s.slot * g.to_stride[1];
}
#endif

/* BLOCKS: of a multiprocessor, by the registers that they take. */
enum { MAX_THREADS = QUANTIZES ? ROPE_MAX_QUANTIZING_THREADS : ROPE_MAX_THREADS };
enum { BLOCKS = QUANTIZES ? HEADS > 1 ? 6 : 8 : SEGMENTS > 2 ? 3 : WIDE || INDPTR || !TABLE ? 4 : 5 };

extern "C" __global__ void __launch_bounds__(MAX_THREADS, BLOCKS) rope_sm80(const __grid_constant__ struct rope_args a)
{
    extern __shared__ float4 tables[];
    uint32_t block = CHUNKED ? blockIdx.x >> a.chunk_bits : blockIdx.x;
    int first = CHUNKED ? (blockIdx.x - (block << a.chunk_bits)) * blockDim.x : 0;
    int number = first + threadIdx.x;
    int64_t token = block;
    bool exists = number < a.pieces;
    struct piece p = piece_of(a, exists ? number : 0, token);
    bool block_rotates = first < a.rotating_pieces, rotates = SEGMENTS == ROTATING || p.rotates;
    bool positioned = TABLE ? block_rotates && threadIdx.x < a.sharers : rotates;
    double turns = TABLE && !CACHE && block_rotates ? turns_of(a, threadIdx.x) : 0.0;
    int fetches = fetches_ahead(a, block, number); /* known before the wait */
    forget(fetches);

    pdl_launch();
    pdl_wait();
    POS position = positioned ? position_of(a, token) : 0;
    POS later = ROWS_ALIGNED && fetches == SEGMENTS ? position_of(a, token + a.ahead.distance) : 0;
#if PAGED
    int32_t request = a.tokens.batch_indices[token], at = a.tokens.positions[token]; /* at once: they come from afar */
#endif
    struct runs r[HEADS];
#pragma unroll
    for (int i = 0; i < HEADS; i++)
        r[i] = load_runs(a, p, has_head(p, i) ? i * p.from_step : 0);
    float cosine[VEC] = {}, sine[VEC] = {};
    if (!TABLE && rotates) {
        const float *row = a.cos_sin + position * a.cos_sin_stride;
        load_turns(cosine, row, p);
        load_turns(sine, row + a.num_pairs, p);
    }
    const struct rope_segment &g = a.segment[p.segment];
#if PAGED
    OUT *to = place_of(a, g, token, request, at);
#else
    OUT *to = (OUT *)g.to + token * g.to_stride[0];
#endif
    to += p.to;
    if (FETCHES && fetches >= 0)
        fetch_token_ahead(a, fetches, token + a.ahead.distance, later);
#if CACHE != ROPE_CACHED_BY_EACH
    float *table = (float *)tables;
    int floats = ROPE_TABLE_FLOATS(a.num_pairs);
    if (positioned)
        fill_table(table, table + floats, a, position, turns);
    if (block_rotates)
        __syncthreads();
    if (rotates) {
        load_turns(cosine, table, p);
        load_turns(sine, table + floats, p);
    }
#endif
#if PAGED
    exists = exists && request >= 0;
#endif
    if (!exists)
        return;
    if (rotates) {
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            cosine[i] *= QUANTIZES ? p.scale : 1.0f;
            sine[i] *= QUANTIZES ? p.scale : 1.0f;
        }
        store_heads<true>(to, p, r, cosine, sine);
    } else {
        store_heads<false>(to, p, r, cosine, sine);
    }
}
