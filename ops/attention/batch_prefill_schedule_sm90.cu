/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the schedule of a batch for batch_prefill_sm90, see attention_schedule.cuh. One block; no constants. */
#include "attention_rules.cuh"
#include "pdl.cuh"
#include "scan.cuh"

enum { THREADS = 1024 };

extern "C" __global__ void __launch_bounds__(THREADS) batch_prefill_schedule_sm90(const __grid_constant__ struct attention_schedule_args p)
{
    __shared__ int length[THREADS];
    __shared__ uint64_t scratch[32];
    const struct attention_args &a = p.a;
    pdl_wait();
    pdl_launch();
    for (int mine = 0; mine < a.batch; mine += THREADS) {
        int request = mine + threadIdx.x, place = 0, kv_len = request < a.batch ? kv_length(a, request) : 0;
        for (int others = 0; others < a.batch; others += THREADS) {
            int other = others + threadIdx.x, n = min(THREADS, a.batch - others);
            __syncthreads();
            length[threadIdx.x] = other < a.batch ? kv_length(a, other) : 0;
            __syncthreads();
            for (int i = 0; i < n; i++)
                place += length[i] > kv_len || (length[i] == kv_len && others + i < request);
        }
        if (request < a.batch) {
            int first_q = first_query(a, request);
            p.schedule.request[place] = {first_q, first_query(a, request + 1) - first_q, kv_len, first_page(a, request)};
        }
    }
    __syncthreads();
    int64_t before = 0;
    for (int entries = 0; entries < a.batch; entries += THREADS) {
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
