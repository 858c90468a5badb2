/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the schedule of a batch for batch_prefill_sm90, see attention_schedule.cuh. One block, of as many threads as there are
 * requests; no constants. Each warp sorts a list of 32 requests; then every thread looks for its own request's place in each. */
#include "attention_schedule.cuh"
#include "pdl.cuh"

enum { THREADS = 1024, LISTS = THREADS / 32, AT_ONCE = 8 };

/* Requests by falling key: length, then the lower lane. Lengths above 2^26 - 1 count as that. */
struct lists {
    int key[LISTS][32];
    int tiles[LISTS][32]; /* of it and those before it, of one KV head */
};

/* What comes before a request. */
struct before {
    int requests, tiles;
};

DEVICE int make_key(int length, int low) { return min(length, (1 << 26) - 1) << 5 | low; }

/* Makes the warp's list. Keys are below 2^31, so that signs of differences compare them. */
DEVICE void sort_list(struct lists *lists, int length, int tiles)
{
    int list = threadIdx.x / 32, lane = threadIdx.x % 32, key = make_key(length, 31 - lane);
    uint32_t place[4] = {0, 0, 0, 0};
    lists->key[list][lane] = key;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 32; i += 4) {
        int4 four = *(const int4 *)&lists->key[list][i];
        place[0] += (uint32_t)(key - four.x) >> 31;
        place[1] += (uint32_t)(key - four.y) >> 31;
        place[2] += (uint32_t)(key - four.z) >> 31;
        place[3] += (uint32_t)(key - four.w) >> 31;
    }
    uint32_t at = place[0] + place[1] + place[2] + place[3];
    __syncwarp();
    lists->key[list][at] = key;
    lists->tiles[list][at] = tiles;
    __syncwarp();
    lists->tiles[list][lane] = warp_running_count(lists->tiles[list][lane]);
}

/* Adds what comes before a request in `count` lists, of which the own-th is its own, by halving them. */
DEVICE void look_in_lists(const struct lists *lists, int count, int own, int length, struct before *b)
{
#pragma unroll 1
    for (int list = 0; list < count; list += AT_ONCE) {
        int than[AT_ONCE], before[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int low = list + i < own ? -1 : list + i > own ? 31 : 31 - threadIdx.x % 32;
            than[i] = list + i < count ? make_key(length, 0) + low : 0x7fffffff;
            before[i] = 0;
        }
#pragma unroll 1
        for (int step = 16; step; step /= 2)
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                before[i] += lists->key[list + i][before[i] + step - 1] > than[i] ? step : 0;
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            before[i] += lists->key[list + i][before[i]] > than[i];
            b->requests += before[i];
            b->tiles += before[i] ? lists->tiles[list + i][before[i] - 1] : 0;
        }
    }
}

DEVICE int count_tiles(const struct attention_schedule_args &p, const struct attention_scheduled &r)
{
    return (r.qo_len + p.tile_tokens - 1u) / p.tile_tokens;
}

/* A request, or what stands for none. */
DEVICE struct attention_scheduled see(const struct attention_args &a, int request)
{
    return request < a.batch ? see_request(a, request) : attention_scheduled{0, 0, 0, 0};
}

extern "C" __global__ void __launch_bounds__(THREADS)
batch_prefill_schedule_sm90(const __grid_constant__ struct attention_schedule_args p)
{
    __shared__ __align__(16) struct lists lists;
    const struct attention_args &a = p.a;
    const int threads = blockDim.x;
    pdl_launch();
    pdl_wait();
    for (int mine = 0; mine < a.batch; mine += threads) {
        int request = mine + threadIdx.x, others = mine;
        struct attention_scheduled own = see(a, request), r = own;
        struct before b = {0, 0};
        do { /* its own list comes first */
            if (mine + others > 0)
                __syncthreads();
            sort_list(&lists, r.kv_len, count_tiles(p, r));
            __syncthreads();
            look_in_lists(&lists, (min(threads, a.batch - others) + 31) / 32, (request - others) >> 5, own.kv_len, &b);
            others = others + threads < a.batch ? others + threads : 0;
            if (others != mine)
                r = see(a, others + threadIdx.x);
        } while (others != mine);
        if (request < a.batch) {
            *(int4 *)&p.schedule.request[b.requests] = make_int4(own.first_q, own.qo_len, own.kv_len, own.first_page);
            p.schedule.first[b.requests] = b.tiles;
            if (b.requests == a.batch - 1)
                p.schedule.first[a.batch] = b.tiles + count_tiles(p, own);
        }
    }
    if (threadIdx.x == 0)
        *p.schedule.next = p.blocks;
}
