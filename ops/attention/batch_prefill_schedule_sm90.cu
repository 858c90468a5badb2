/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the schedule of a batch for batch_prefill_sm90, see attention_schedule.cuh. One block, of as many threads as there are
 * requests; no constants. */
#include "attention_schedule.cuh"
#include "pdl.cuh"

enum { THREADS = 1024 };

extern "C" __global__ void __launch_bounds__(THREADS) batch_prefill_schedule_sm90(const __grid_constant__ struct attention_schedule_args p)
{
    __shared__ int length[THREADS];
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
            int other = others + threadIdx.x, n = min(threads, a.batch - others);
            __syncthreads();
            length[threadIdx.x] = other == request ? r.kv_len : other < a.batch ? kv_length(a, other) : 0;
            __syncthreads();
            for (int i = 0; i < n; i++)
                place += length[i] > r.kv_len || (length[i] == r.kv_len && others + i < request);
        }
        if (request < a.batch)
            p.schedule.request[place] = r;
    }
    __syncthreads();
    int64_t before = 0;
    for (int entries = 0; entries < a.batch; entries += threads) {
        int entry = entries + threadIdx.x;
        int tiles = entry < a.batch ? (p.schedule.request[entry].qo_len + p.tile_tokens - 1) / p.tile_tokens : 0;
        int64_t mine = before + block_sum_before(tiles, scratch);
        if (entry < a.batch)
            p.schedule.first[entry] = mine;
        before += block_sum(tiles, scratch);
    }
    if (threadIdx.x == 0) {
        p.schedule.first[a.batch] = before;
        *p.schedule.next = p.blocks;
    }
}
