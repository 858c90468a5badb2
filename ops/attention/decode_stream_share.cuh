/* SPDX-License-Identifier: Apache-2.0 */
/* How batch_decode_stream_ divides a batch among its blocks, which are called workers.
 *
 * A pair is a KV head and up to ROWS packed rows of one request that read it. Its tokens are cut into units, of TILE tokens or,
 * with a.stream.unit_tiles, of as many tiles as that says, counted from token 0. All units of all pairs, in order, are shared out
 * evenly; a worker takes those of one pair, as many as it has of it, as a task. Before its own each pair counts some more, as the
 * end of a task takes time: else who has many short pairs is long behind who has a part of a long one. Of few pairs that are not
 * long, units have as many tiles as make one for each worker, none of which then has parts of two pairs. If pairs are short, or
 * there is a worker for each, none is divided: teams of a block's streams, down to a single one, are workers then, which take the
 * pairs that begin among their units. Nothing here depends on anything but lengths, heads and the number of blocks; the lengths
 * are read here and nowhere else. */
#ifndef DECODE_STREAM_SHARE_CUH
#define DECODE_STREAM_SHARE_CUH

#include "decode_stream_tile.cuh"
#include "scan.cuh"

enum { THREADS = 32 * WARPS, STREAMS = WARPS / ROW_WARPS, ROWS = 8 * ROW_TILES * ROW_WARPS };
enum { STREAMS_LOG2 = STREAMS == 8 ? 3 : STREAMS == 4 ? 2 : STREAMS == 2 ? 1 : 0 };
static_assert(1 << STREAMS_LOG2 == STREAMS, "streams form teams by halves");
enum { MIN_TILES = 8 }; /* of a worker, for less is not worth another part */
enum { SPARED = 6 }; /* tiles that a stream reads in the time that adding up parts takes */
enum { END_STEPS = 3 }; /* in the time that the end of a task takes while memory is busy; a step: a tile of each stream */
enum { EVEN_UNITS = TILE == 16 }; /* larger tiles lose as much by them as they gain */
enum { MAX_UNIT = 8 * STREAMS }; /* tiles; of longer pairs it is worth more that all workers have as many */
enum { SPARED_PART = BOX_TOKENS ? 32 : 8 }; /* or that part of a long pair: heads read side by side pay most without boxes */

__shared__ __align__(16) struct attention_scheduled requests[THREADS]; /* of the batch, if it has not more */

/* What there is to do for a request. */
struct extent {
    int first_q, qo_len, kv_len, first_page;
    int begin;            /* the first token that a row sees */
    int first_unit, units; /* of each pair; counted from token 0 */
    int chunks, pairs;     /* chunks: of its rows, for each KV head */
};

/* Workers have `each` units, the first `longer` of them one more. */
struct division {
    int unit_tiles; /* 0: units of a tile, of which a task may have many; else it has one */
    struct attention_divisor by_unit; /* gives 0 if a pair is one unit */
    int extra; /* units that each pair counts before its own, for the end of a task */
    int workers, each, longer;
    int streams, stream, team; /* that share a task; which of them this warp belongs to; which ones they are */
    bool whole, alone;         /* tasks are whole pairs; and teams one stream */
    bool any_empty;            /* a request sees nothing */
};

/* Where a worker is among all units. */
struct walk {
    int unit, end;              /* the next one, and the end of its own */
    int request, request_begin; /* of `unit` or before it, and that one's first unit */
};

/* Tokens of a pair that are attended to in one go. */
struct task {
    int kv_head, kv_len, begin; /* begin: the first token that a row sees */
    int tile, tile_end;
    struct row_range range;     /* of the pair */
    int first_q, first_page;
    int pair_unit;              /* the pair's first unit of its own, among all */
    int unit, units, count;     /* which of the pair's units it starts with, how many there are, how many it has */
};

DEVICE int tiles_of(int tokens) { return (tokens + TILE - 1u) / TILE; }

DEVICE bool is_same(const struct attention_scheduled &x, const struct attention_scheduled &y)
{
    return x.first_q == y.first_q && x.qo_len == y.qo_len && x.first_page == y.first_page && x.kv_len == y.kv_len;
}

/* Each thread looks a request up, if there are not more of them. */
DEVICE bool has_request(const struct attention_args &a) { return a.batch <= THREADS && threadIdx.x < a.batch; }

/* By all threads of a block. True if what is found is what was found before; of a guess, if nothing is out of all range, so that
 * it is safe. */
DEVICE bool keep_requests(const struct attention_args &a, bool guess)
{
    struct attention_scheduled r, &own = requests[threadIdx.x];
    bool usual = a.batch <= THREADS;
    if (has_request(a)) {
        r = see_request(a, threadIdx.x, true);
        usual = guess ? r.kv_len >= 0 && r.kv_len <= 1 << 24 && r.qo_len >= 0 && r.qo_len <= 1 << 10 &&
                            (float)(r.kv_len / TILE + 1) * (r.qo_len * a.group / ROWS + 1) * a.num_kv_heads < 0x1p23f
                      : is_same(r, own);
    }
    usual = __syncthreads_and(usual);
    if (guess || !usual) { /* not before all have read what was there */
        if (has_request(a))
            *(int4 *)&own = make_int4(r.first_q, r.qo_len, r.kv_len, r.first_page);
        __syncthreads();
    }
    return usual;
}

DEVICE struct extent extent_of(const struct attention_args &a, struct attention_divisor by_unit, int i)
{
    struct extent e;
    struct attention_scheduled r;
    if (a.batch <= THREADS) {
        int4 x = *(const int4 *)&requests[i];
        r = {x.x, x.y, x.z, x.w};
    } else {
        r = see_request(a, i);
    }
    e.first_q = r.first_q;
    e.qo_len = r.qo_len;
    e.kv_len = r.kv_len;
    e.first_page = r.first_page;
    int own = e.kv_len - e.qo_len; /* what the first row sees last */
    e.begin = a.window_left >= 0 && own > a.window_left ? own - a.window_left : 0;
    e.first_unit = divide((unsigned)e.begin / TILE, by_unit);
    e.units = e.kv_len == 0 || e.qo_len == 0 ? 0 : divide((e.kv_len - 1u) / TILE, by_unit) + 1 - e.first_unit;
    e.chunks = (e.qo_len * a.group + ROWS - 1u) / ROWS;
    e.pairs = a.num_kv_heads * e.chunks;
    return e;
}

DEVICE int first_unit_of(const struct division &d, int worker) { return worker * d.each + min(worker, d.longer); }

DEVICE int worker_of(const struct division &d, int unit)
{
    int behind = unit - d.longer * (d.each + 1); /* those that have one more */
    bool more = behind < 0;
    return (more ? 0 : d.longer) + (int)((unsigned)(more ? unit : behind) / (unsigned)(d.each + more));
}

/* The least tiles, evenly shared or of the longest pair, of which there are not more units than blocks. 0: too many. */
DEVICE int choose_unit(int total, int pairs, int longest, int blocks)
{
    if (QUERIES_SHARED || pairs >= blocks)
        return 0;
    unsigned even = (total - 1u) / (unsigned)(blocks - pairs), of_pair = (unsigned)blocks / (unsigned)pairs;
    int unit = max(MIN_TILES, (int)min(even, (longest - 1u) / of_pair) + 1);
    return unit <= MAX_UNIT ? unit : 0;
}

/* Every warp finds it for itself: there is nothing to wait for but loads. */
DEVICE struct division divide_batch(const struct attention_args &a, struct walk &w)
{
    struct division d;
    d.unit_tiles = a.stream.unit_tiles;
    d.by_unit = a.stream.by_unit;
    int lane = threadIdx.x % 32;
    int first = (int64_t)a.batch * lane / 32, last = (int64_t)a.batch * (lane + 1) / 32;
    int units = 0, pairs = 0, longest = 0;
    bool is_empty = false;
    struct extent only = {}, any, &e = EVEN_UNITS ? only : any; /* only: wanted again, if there is one for each lane */
#pragma unroll 1
    for (int b = first; b < last; b++) {
        e = extent_of(a, d.by_unit, b);
        units += e.units * e.pairs;
        pairs += e.units > 0 ? e.pairs : 0;
        longest = max(longest, e.units);
        is_empty |= e.units == 0;
    }
    d.any_empty = __any_sync(0xffffffffu, is_empty);
    longest = __reduce_max_sync(0xffffffffu, longest);
    int total = __reduce_add_sync(0xffffffffu, units), all_pairs = __reduce_add_sync(0xffffffffu, pairs);
    int blocks = gridDim.x, own = threadIdx.x / 32 / ROW_WARPS, shift = STREAMS_LOG2;
    while (shift > 0 && !QUERIES_SHARED && all_pairs > blocks << STREAMS_LOG2 - shift)
        shift--; /* queries in shared memory are those of one pair */
    int steps = ((longest - 1) >> shift) + 1;
    int spread = all_pairs <= blocks << STREAMS_LOG2 - shift ? 1 : 4; /* else one may have a pair more than others */
    int spared = spread == 1 ? max(SPARED, steps / SPARED_PART) : SPARED;
    d.whole = !d.unit_tiles && (int64_t)(steps - spared) * (spread * STREAMS * blocks) <= total;
    if (EVEN_UNITS && !d.whole && !d.unit_tiles && a.batch <= 32) { /* lanes have a request each */
        int unit = choose_unit(total, all_pairs, longest, blocks);
        if (unit) {
            d.unit_tiles = unit;
            d.by_unit = {0xffffffffu / unit + 1, 32};
            if (units > 0) {
                int end = only.first_unit + only.units;
                units = (divide(end - 1, d.by_unit) - divide(only.first_unit, d.by_unit) + 1) * only.pairs;
            }
            total = __reduce_add_sync(0xffffffffu, units);
        }
    }
    shift = d.whole ? shift : STREAMS_LOG2;
    d.streams = 1 << shift;
    d.stream = own & d.streams - 1;
    d.team = own >> shift;
    d.alone = d.whole && shift == 0 && !QUERIES_SHARED;
    bool equal = (int64_t)longest * all_pairs == total; /* then shares are even anyway */
    d.workers = d.whole ? blocks << STREAMS_LOG2 - shift
                        : min(blocks, d.unit_tiles ? total : (int)((total + MIN_TILES - 1u) / MIN_TILES));
    /* As many for each pair, if that leaves few idle: then few have two tasks. */
    int of_pair = (unsigned)d.workers / (unsigned)max(1, all_pairs);
    if (!QUERIES_SHARED && !d.whole && !d.unit_tiles && 32 * of_pair * all_pairs >= 31 * d.workers)
        d.workers = of_pair * all_pairs;
    d.extra = d.unit_tiles || equal ? 0 : END_STEPS << shift;
    units += d.extra * pairs;
    total += d.extra * all_pairs;
    int worker = blockIdx.x + d.team * blocks, sms = blocks / BLOCKS;
    if (d.whole && 8 * all_pairs >= 7 * d.workers) /* a multiprocessor reads KV heads of the same tokens, which are neighbours */
        worker = (blockIdx.x % sms * BLOCKS + blockIdx.x / sms) * (STREAMS >> shift) + d.team;
    if (d.whole && all_pairs <= d.workers) { /* one each, however long they are */
        d.unit_tiles = tiles_of(0x7fffffff);
        d.by_unit.factor = 0;
        d.extra = 0;
        units = pairs;
        d.workers = all_pairs;
        d.each = 1;
        d.longer = 0;
    } else {
        d.each = (unsigned)total / (unsigned)max(1, d.workers);
        d.longer = total - d.each * d.workers;
    }
    w.unit = first_unit_of(d, worker);
    w.end = worker < d.workers ? first_unit_of(d, worker + 1) : w.unit;
    int units_end = warp_running_count(units), at = units_end - units;
    int owner = __ffs(__ballot_sync(0xffffffffu, at <= w.unit && w.unit < units_end)) - 1;
    w.request = __shfl_sync(0xffffffffu, first, owner & 31);
    w.request_begin = __shfl_sync(0xffffffffu, at, owner & 31);
    return d;
}

/* The next task of the worker, if it has one left. */
DEVICE bool next_task(const struct attention_args &a, const struct division &d, struct walk &w, struct task &t)
{
    struct extent e;
    int pair, pair_unit, unit;
#pragma unroll 1
    for (;;) {
        if (w.unit >= w.end)
            return false;
        e = extent_of(a, d.by_unit, w.request);
        int span = e.units > 0 ? d.extra + e.units : 0, end = w.request_begin + span * e.pairs;
        if (w.unit >= end) {
            w.request_begin = end;
            w.request++;
            continue;
        }
        pair = (unsigned)(w.unit - w.request_begin) / (unsigned)span;
        pair_unit = w.request_begin + pair * span + d.extra;
        unit = max(w.unit, pair_unit);
        if (d.whole ? w.unit == pair_unit - d.extra : unit < w.end)
            break;
        w.unit = pair_unit + e.units;
    }
    t.pair_unit = pair_unit;
    t.unit = unit - pair_unit;
    t.units = e.units;
    t.count = d.whole ? e.units : d.unit_tiles ? 1 : min(e.units - t.unit, w.end - unit);
    w.unit = unit + t.count;
    int first = e.first_unit + t.unit, unit_tiles = max(1, d.unit_tiles);
    t.tile = max((int)(e.begin / (unsigned)TILE), first * unit_tiles);
    t.tile_end = min(tiles_of(e.kv_len), (first + t.count) * unit_tiles);
    t.kv_head = e.chunks == 1 ? pair : (unsigned)pair / (unsigned)e.chunks;
    t.kv_len = e.kv_len;
    t.begin = e.begin;
    t.first_q = e.first_q;
    t.first_page = e.first_page;
    t.range = {(pair - t.kv_head * e.chunks) * ROWS, e.qo_len * a.group, e.qo_len, e.kv_len};
    return true;
}

#endif
