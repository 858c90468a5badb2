/* SPDX-License-Identifier: Apache-2.0 */
/* rope: rotates the pairs of heads by angles that depend on the token's position, copies other heads, and rounds to OUT.
 *
 * 2^chunk_bits blocks side by side have the same TOKENS tokens, and each of them for every token the same blockDim.x pieces of
 * heads, one a thread: two runs of VEC elements. All are on their way while the threads share the work of sines and cosines.
 *
 *   T             f16, bf16
 *   OUT           T, e4m3, e5m2
 *   POS           i32, i64
 *   INTERLEAVE    0: pair i is (i, num_pairs + i); 1: (2 i, 2 i + 1)
 *   INDPTR        1: positions follow from indptr and offsets
 *   CACHE         1: sines and cosines are read; 2: four at once, as rows lie at multiples of 16 bytes
 *   PAGED         1: segments may lie in a paged cache
 *   VEC           1, 2, 4, 8; divides half and width of all segments and all strides
 *   SEGMENTS      1 to 5
 *   ROTATING      0 to 2: segments that rotate
 *   EXACT         1: the heads of all segments are pieces of two runs
 *   POWERS_OF_TWO 1: the heads of all segments have so many pieces
 *   TOKENS        1, 2
 *   CHUNKED       0: chunk_bits is 0
 *   WIDE          1: a thread fills in more than one share of a table
 * Dynamic shared memory: for each token a table of num_pairs cosines and sines, see table_floats. */
#include "pdl.cuh"
#include "prefetch.cuh"
#include "vec.cuh"
#include "rope_args.h"

enum { QUAD = VEC < 4 ? VEC : 4, QUANTIZES = sizeof(OUT) < sizeof(T) };

/* What a thread does for each token: a piece of a head. Its places are in elements, those of the block's first token. */
struct piece {
    int64_t from, to, from_step, to_step; /* steps: from token to token */
    int segment, half;
    int number; /* in its head */
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
    p.from_step = g.from_stride[0];
    p.to_step = g.to_stride[0];
    p.from = head * g.from_stride[1] + token * p.from_step + first;
    p.to = head * g.to_stride[2] + (PAGED ? 0 : token * p.to_step) + first;
    forget(p.from); /* else they would be worked out anew for each use */
    forget(p.to);
    forget(p.half);
    forget(p.number);
    return p;
}

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

DEVICE int table_floats(const struct rope_args &a) { return (a.num_pairs + 7) / 4 * 4; }

/* share: the pair, or with CACHE 2 the four cosines or sines. turns: of that pair. */
DEVICE void fill(float *cosine, float *sine, const struct rope_args &a, POS position, int share, double turns)
{
#if CACHE == 2
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

/* What a thread fills in, of which token of the block. */
struct share {
    int token, number;
};

/* Whole warps work for the same token if they look for its request together. */
DEVICE struct share share_of(const struct rope_args &a)
{
    int token = WIDE ? 0 : TOKENS == 1 ? (int)threadIdx.x >= a.sharers : threadIdx.x * a.sharers_inverse >> 20;
    return share{token, (int)threadIdx.x - (TOKENS == 1 ? 0 : token * a.sharers)};
}

/* turns: of that pair. */
DEVICE void fill_table(float *cosine, float *sine, const struct rope_args &a, POS position, int share, double turns)
{
    if (!INDPTR || share < a.num_pairs)
        fill(cosine, sine, a, position, share, turns);
#if WIDE
    for (int i = share + blockDim.x; i < (CACHE == 2 ? a.sharers : a.num_pairs); i += blockDim.x)
        fill(cosine, sine, a, position, i, CACHE ? 0.0 : turns_of(a, i));
#endif
}

DEVICE void rotate_pair(float &x, float &y, float cosine, float sine)
{
    float turned = x * cosine - y * sine;
    y = y * cosine + x * sine;
    x = turned;
}

DEVICE void rotate(float (&x)[2][VEC], const struct piece &p, const float *cosine, const float *sine)
{
#if INTERLEAVE && VEC == 1
    rotate_pair(x[0][0], x[1][0], cosine[p.number], sine[p.number]);
#elif INTERLEAVE
#pragma unroll
    for (int run = 0; run < 2; run++) {
        float c[VEC / 2], s[VEC / 2];
        load(c, cosine + (run * p.half + p.number * VEC) / 2);
        load(s, sine + (run * p.half + p.number * VEC) / 2);
#pragma unroll
        for (int i = 0; i < VEC / 2; i++)
            rotate_pair(x[run][2 * i], x[run][2 * i + 1], c[i], s[i]);
    }
#else
#pragma unroll
    for (int quad = 0; quad < VEC / QUAD; quad++) {
        float c[QUAD], s[QUAD];
        load(c, cosine + (quad * (p.half / VEC) + p.number) * QUAD);
        load(s, sine + (quad * (p.half / VEC) + p.number) * QUAD);
#pragma unroll
        for (int i = 0; i < QUAD; i++)
            rotate_pair(x[0][quad * QUAD + i], x[1][quad * QUAD + i], c[i], s[i]);
    }
#endif
}

DEVICE void store_runs(OUT *to, const struct piece &p, const struct runs &r, const float *cosine, const float *sine)
{
    if (!QUANTIZES && !p.rotates) {
        store_vec((T *)to, r.run[0]);
        if (p.is_double)
            store_vec((T *)to + p.half, r.run[1]);
        return;
    }
    float x[2][VEC];
    widen(x[0], r.run[0]);
    widen(x[1], r.run[1]);
    if (SEGMENTS == ROTATING || p.rotates)
        rotate(x, p, cosine, sine);
#pragma unroll
    for (int i = 0; i < 2 * VEC; i++)
        x[i / VEC][i % VEC] *= QUANTIZES ? p.scale : 1.0f;
    store(to, x[0]);
    if (p.is_double)
        store(to + p.half, x[1]);
}

/* Newer ones would spill. */
#define FETCHES (__CUDA_ARCH__ < 1000)

/* By a warp for each segment, and one for the cache, of all that have a token. */
DEVICE bool fetches_ahead(const struct rope_args &a, uint32_t block, int number)
{
    return FETCHES && block < a.ahead.blocks && number / 32 < SEGMENTS + (CACHE == 2) && threadIdx.x % 32 < TOKENS;
}

DEVICE void fetch_tokens_ahead(const struct rope_args &a, uint32_t block, int number)
{
    int segment = number / 32;
    int64_t token = (int64_t)(block + a.ahead.distance) * TOKENS + threadIdx.x % 32;
    if (segment < SEGMENTS) {
        if (QUANTIZES) /* the cache's rows suffice */
            return;
        const struct rope_segment &g = a.segment[segment];
        bulk_prefetch((const T *)g.from + token * g.from_stride[0], g.heads * g.width * sizeof(T));
    } else if (CACHE == 2) {
        bulk_prefetch(a.cos_sin + position_of(a, token) * a.cos_sin_stride, a.num_pairs * 2 * sizeof(float));
    }
}

#if PAGED
/* Where head 0 of each segment of the block's tokens goes; NULL: nowhere. By the last warp, while others fill tables. */
DEVICE void find_places(OUT *(&places)[TOKENS][SEGMENTS], const struct rope_args &a, int first, int token, int count)
{
    int lane = (int)threadIdx.x - (int)(blockDim.x - 32), i = lane / SEGMENTS, s = lane % SEGMENTS;
    if (lane < 0 || i >= count)
        return;
    const struct rope_segment &g = a.segment[s];
    if (CHUNKED && (first + (int)blockDim.x <= g.first_piece || first >= g.first_piece + g.heads * g.pieces))
        return; /* the block has none of its pieces */
    OUT *to = (OUT *)g.to;
    bool exists;
    if (g.paged) {
        struct page_slot at = page_slot_of(&a.tokens, token + i);
        to += at.page * g.to_stride[0] + at.slot * g.to_stride[1];
        exists = at.page >= 0;
    } else {
        to += (token + i) * g.to_stride[0];
        exists = a.tokens.batch_indices[token + i] >= 0;
    }
    places[i][s] = exists ? to : 0;
}
#endif

extern "C" __global__ void __launch_bounds__(320, SEGMENTS > 2 ? 3 : WIDE || INDPTR ? 4 : 5)
    rope_sm80(const __grid_constant__ struct rope_args a)
{
    extern __shared__ float4 tables[];
    uint32_t block = CHUNKED ? blockIdx.x >> a.chunk_bits : blockIdx.x;
    int first = CHUNKED ? (blockIdx.x - (block << a.chunk_bits)) * blockDim.x : 0;
    int number = first + threadIdx.x, floats = table_floats(a);
    int token = block * TOKENS, count = TOKENS == 1 ? 1 : min(TOKENS, a.nnz - token);
    bool exists = number < a.pieces, rotates = first < a.rotating_pieces;
    struct piece p = piece_of(a, exists ? number : 0, token);
    struct share mine = share_of(a);
    bool fills = rotates && mine.token < count;
    double turns = rotates && !CACHE ? turns_of(a, mine.number) : 0.0;
    int fetches = fetches_ahead(a, block, number); /* known before the wait */
    forget(fetches);

    pdl_launch();
    pdl_wait();
    POS position = fills ? position_of(a, token + mine.token) : 0;
    struct runs r[TOKENS];
#pragma unroll
    for (int i = 0; i < TOKENS; i++)
        r[i] = load_runs(a, p, i < count ? i * p.from_step : 0);
    if (FETCHES && fetches)
        fetch_tokens_ahead(a, block, number);
    float *table = (float *)tables + mine.token * 2 * floats;
    if (fills)
        fill_table(table, table + floats, a, position, mine.number, turns);
#if PAGED
    __shared__ OUT *places[TOKENS][SEGMENTS];
    find_places(places, a, first, token, count);
#endif
    if (PAGED || rotates)
        __syncthreads();
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
        const float *cosine = (const float *)tables + i * 2 * floats;
        bool stores = exists && i < count;
#if PAGED
        OUT *to = places[i][p.segment];
        stores = stores && to;
#else
        OUT *to = (OUT *)a.segment[p.segment].to + i * p.to_step;
#endif
        if (stores)
            store_runs(to + p.to, p, r[i], cosine, cosine + floats);
    }
}
