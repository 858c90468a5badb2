/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the schedule of a batch for batch_prefill_sm90, see attention_schedule.cuh. One block, of as many threads as there are
 * requests; no constants. */
#include "attention_schedule.cuh"
#include "pdl.cuh"

enum { THREADS = 1024 };

/* How many of `count` lengths, a multiple of 4, exceed that one. */
DEVICE int count_above(const int *length, int count, int than)
{
    int above = 0;
#pragma unroll 4
    for (int i = 0; i < count; i += 4) {
        int4 four = *(const int4 *)(length + i);
        above += (four.x > than) + (four.y > than) + (four.z > than) + (four.w > than);
    }
    return above;
}

/* How many of the requests from `from` on come before this one: longer ones, and equals of lower numbers. Behind the last request
 * lengths are -1. */
DEVICE int count_before(const int *length, int from, int count, int request, int own)
{
    int warp = min(max(request - request % 32 - from, 0), count), rest = min(warp + 32, count), place = 0;
    place += count_above(length, warp, own - 1);
    for (int i = warp; i < rest; i++)
        place += length[i] > own || (length[i] == own && from + i < request);
    return place + count_above(length + rest, count - rest, own);
}

extern "C" __global__ void __launch_bounds__(THREADS) batch_prefill_schedule_sm90(const __grid_constant__ struct attention_schedule_args p)
{
    __shared__ __align__(16) int length[THREADS];
    __shared__ int held[THREADS]; /* query tokens of the entries, if there are no more than threads */
    __shared__ uint64_t scratch[32];
    const struct attention_args &a = p.a;
    pdl_launch();
    pdl_wait();
    int threads = blockDim.x;
    for (int mine = 0; mine < a.batch; mine += threads) {
        int request = mine + threadIdx.x, place = 0;
        struct attention_scheduled r = {0, 0, 0, 0};
        if (request < a.batch)
            r = see_request(a, request);
        for (int others = 0; others < a.batch; others += threads) {
            int other = others + threadIdx.x;
            __syncthreads();
            length[threadIdx.x] = other >= a.batch ? -1 : other == request ? r.kv_len : kv_length(a, other);
            __syncthreads();
            place += count_before(length, others, min(threads, (a.batch - others + 31) / 32 * 32), request, r.kv_len);
        }
        if (request < a.batch) {
            p.schedule.request[place] = r;
            if (a.batch <= threads)
                held[place] = r.qo_len;
        }
    }
    int64_t before = 0;
    __syncthreads();
    for (int entries = 0; entries < a.batch; entries += threads) {
        int entry = entries + threadIdx.x, tiles = 0;
        if (entry < a.batch)
            tiles = ((a.batch <= threads ? held[entry] : p.schedule.request[entry].qo_len) + p.tile_tokens - 1) / p.tile_tokens;
        int64_t first = before + block_sum_before(tiles, scratch);
        if (entry < a.batch)
            p.schedule.first[entry] = first;
        if (entry == a.batch - 1)
            p.schedule.first[a.batch] = first + tiles;
        if (entries + threads < a.batch)
            before += block_sum(tiles, scratch);
    }
    if (threadIdx.x == 0) {
        *p.schedule.next = p.blocks;
        if (a.batch == 0)
            p.schedule.first[0] = 0;
    }
}
