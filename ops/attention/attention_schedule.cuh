/* SPDX-License-Identifier: Apache-2.0 */
/* The order in which persistent blocks take the tiles of a batch: requests by falling kv_len; of a request as many KV heads at a
 * time as the L2 cache holds; of these the tiles from the last queries, which see most, to the first. Tiles are numbered in that
 * order; a block takes the next number when it is about to finish.
 *
 * Where every tile has a block of its own, there is no schedule, and the order is that of the requests. */
#ifndef ATTENTION_SCHEDULE_CUH
#define ATTENTION_SCHEDULE_CUH

#include "attention_rules.cuh"
#include "scan.cuh"

#define HOOK DEVICE
#include "attention_hooks.h"

enum { L2_BYTES = 16 << 20 }; /* of keys and values that tiles share at a time */

/* A tile of queries of one request and KV head. */
struct task {
    int kv_head;      /* -1: there are no more */
    int first_q;      /* the request's first query token */
    int token;        /* the tile's first one, counted from there */
    int qo_len, kv_len;
    int first_page;   /* in kv_indices; ragged: the first slot */
    int number;       /* in the order of tiles */
    int careful;      /* from this tile of keys on references may move */
#if HAS_HOOKS
    int request;
#endif
};

/* By a whole warp. `first` has batch + 1 ascending numbers, first[0] <= wanted < first[batch]: the last one not above it. */
DEVICE int find_last(const int32_t *first, int batch, int wanted)
{
    int at = 0, lane = threadIdx.x % 32;
    for (int n = batch; n > 1;) {
        int step = (n + 31) / 32, i = lane * step;
        int passed = __popc(__ballot_sync(0xffffffffu, i < n && first[at + min(i, n - 1)] <= wanted)) - 1;
        at += passed * step;
        n = min(step, n - passed * step);
    }
    return at;
}

/* By a whole warp: the request of that tile of one KV head, its tiles, and those of the requests before it; false if there is
 * none. Requests are at most 32, and stand in their own order. */
DEVICE bool find_unscheduled(const struct attention_args &a, int tile, int tile_tokens, struct attention_scheduled *r,
                             int *before, int *tiles, bool fresh)
{
    struct attention_scheduled own = {0, 0, 0, 0};
    if (threadIdx.x % 32 < a.batch)
        own = see_request(a, threadIdx.x % 32, fresh);
    int own_tiles = (own.qo_len + tile_tokens - 1) / tile_tokens, end = warp_running_sum(own_tiles);
    int request = __popc(__ballot_sync(0xffffffffu, end <= tile));
    if (request >= a.batch)
        return false;
    *before = __shfl_sync(0xffffffffu, end - own_tiles, request);
    *tiles = __shfl_sync(0xffffffffu, own_tiles, request);
    r->first_q = __shfl_sync(0xffffffffu, own.first_q, request);
    r->qo_len = __shfl_sync(0xffffffffu, own.qo_len, request);
    r->kv_len = __shfl_sync(0xffffffffu, own.kv_len, request);
    r->first_page = __shfl_sync(0xffffffffu, own.first_page, request);
    return true;
}

/* By a whole warp: the same of a schedule. */
DEVICE bool find_scheduled(const struct attention_args &a, const struct attention_schedule &s, int tile,
                           struct attention_scheduled *r, int *before, int *tiles)
{
    if (tile >= s.first[a.batch])
        return false;
    int entry = find_last(s.first, a.batch, tile);
    *before = s.first[entry];
    *tiles = s.first[entry + 1] - *before;
    *r = s.request[entry];
    return true;
}

/* By a whole warp. kv_head is -1 if there is no tile of that number. `fresh`: where there is no schedule, past the L1 cache. */
DEVICE void find_task(const struct attention_args &a, const struct attention_schedule &s, int number, int tile_tokens,
                      int token_bytes, struct task *t, bool fresh = false)
{
    struct attention_scheduled r;
    int before, tiles, tile = number / a.num_kv_heads;
    t->kv_head = -1;
    if (s.next ? !find_scheduled(a, s, tile, &r, &before, &tiles)
               : !find_unscheduled(a, tile, tile_tokens, &r, &before, &tiles, fresh))
        return;
    int most = min(max(L2_BYTES / token_bytes / max(r.kv_len, 1), 1), a.num_kv_heads);
    int at = number - before * a.num_kv_heads, section = at / (tiles * most), heads = min(most, a.num_kv_heads - section * most);
    at -= section * tiles * most;
    t->kv_head = section * most + at % heads;
    t->token = (tiles - 1 - at / heads) * tile_tokens;
    t->first_q = r.first_q;
    t->qo_len = r.qo_len;
    t->kv_len = r.kv_len;
    t->first_page = r.first_page;
    t->number = number;
#if HAS_HOOKS
    t->request = a.qo_indptr ? find_last(a.qo_indptr, a.batch, r.first_q) : 0;
#endif
}

#endif
