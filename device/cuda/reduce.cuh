/* SPDX-License-Identifier: Apache-2.0 */
/* Sums and maxima over a warp or a block, in a fixed order; every thread gets the result. */
#ifndef REDUCE_CUH
#define REDUCE_CUH

#include "types.cuh"

DEVICE float warp_sum(float x)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

DEVICE float warp_max(float x)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

/* Over the `lanes` threads that stand together in a warp, of which as many as fit are taken. */
DEVICE float lanes_sum(float x, int lanes)
{
    if (lanes & (lanes - 1)) {
        int lane = threadIdx.x % 32, first = lane / lanes * lanes;
#pragma unroll
        for (int step = 16; step > 0; step /= 2) {
            float other = step < lanes ? __shfl_down_sync(0xffffffffu, x, step) : 0.0f;
            if (lane - first + step < lanes)
                x += other;
        }
        return __shfl_sync(0xffffffffu, x, first);
    }
#pragma unroll
    for (int step = lanes / 2; step > 0; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

/* Likewise, and only these threads take part. NaN does not count. */
DEVICE float lanes_max(float x, int lanes)
{
    uint32_t mask = (lanes == 32 ? 0xffffffffu : (1u << lanes) - 1) << (threadIdx.x % 32 / lanes * lanes);
#pragma unroll
    for (int step = lanes / 2; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(mask, x, step));
    return x;
}

/* Sums of N values over a warp, N a power of two. The thread gets the one whose index is its lane over 32 / N, with half the
 * exchanges and the bits of N times warp_sum. */
template <int N> DEVICE float warp_sums(float (&x)[N])
{
#pragma unroll
    for (int half = N / 2, step = 16; half > 0; half /= 2, step /= 2) {
        bool upper = threadIdx.x & step;
#pragma unroll
        for (int i = 0; i < half; i++) {
            float mine = upper ? x[i + half] : x[i], other = upper ? x[i] : x[i + half];
            x[i] = mine + __shfl_xor_sync(0xffffffffu, other, step);
        }
    }
    return lanes_sum(x[0], 32 / N);
}

/* Of N values, a power of two, as warp_sum adds N lanes; those from `count` on are 0. A bound of the inner loop that moves would
 * leave loops of 16 values in the code, with registers chosen by comparisons. */
template <int N> DEVICE float tree_sum(float (&x)[N], int count = N)
{
#pragma unroll
    for (int half = N / 2; half > 0; half /= 2)
#pragma unroll
        for (int i = 0; i < N / 2; i++)
            if (i < half && i + half < count)
                x[i] += x[i + half];
    return x[0];
}

/* Of SUMS sums, at most 16: a thread that `has` one has number `which`. Each adds EACH by itself, 4 or more, before lanes
 * exchange what they have: more are sooner known, but take registers. scratch: 16 floats that nobody uses before, at a multiple
 * of 16 bytes, for threads whose `lane` goes from 0 to 15 or more in the first warp. */
template <int SUMS, int EACH> DEVICE float sum_of_sums(float sum, bool has, int which, int lane, float *scratch)
{
    enum { ALL = SUMS <= 4 ? 4 : SUMS <= 8 ? 8 : 16, MINE = EACH < ALL ? EACH : ALL, LANES = ALL / MINE };
    if (has)
        scratch[which % LANES * MINE + which / LANES] = sum;
    if (SUMS < ALL && LANES > 1 && threadIdx.x < 32 && lane >= SUMS && lane < ALL)
        scratch[lane % LANES * MINE + lane / LANES] = 0.0f;
    __syncthreads();
    float mine[MINE];
#pragma unroll
    for (int i = 0; i < MINE && (LANES > 1 || i < SUMS); i += 4) {
        float4 four = *(const float4 *)(scratch + lane % LANES * MINE + i);
        mine[i] = four.x;
        mine[i + 1] = four.y;
        mine[i + 2] = four.z;
        mine[i + 3] = four.w;
    }
    return lanes_sum(tree_sum(mine, LANES > 1 ? MINE : SUMS), LANES);
}

/* Sums over a row whose piece i * threads + t is x[i] of thread t; those from `pieces` on are 0. First warps of pieces, then
 * these: the order of the additions follows from the number of pieces alone, not from how many threads share them. KNOWN is
 * `pieces` if the compiler knows them, else 0; of at most 16 known warps a thread adds EACH by itself. scratch: 32 N floats
 * that nobody uses before, at a multiple of 16 bytes. */
template <int KNOWN, int EACH, int N> DEVICE float pieces_sum_first(float (&x)[N], int pieces, int threads, float *scratch)
{
    int lane = threadIdx.x % 32, warp = (lane / (32 / N) * threads + threadIdx.x) / 32;
    float sum = warp_sums(x);
    bool has = lane % (32 / N) == 0;
    if (KNOWN && KNOWN <= 16 * 32)
        return sum_of_sums<KNOWN / 32, EACH>(sum, has, warp, lane, scratch);
    if (has)
        scratch[warp] = sum;
    __syncthreads();
    if (N == 1)
        return warp_sum(lane < threads / 32 ? scratch[lane] : 0.0f);
    sum = 0.0f;
#pragma unroll 2 /* of 1,024 pieces there is one: more would only take longer to compile */
    for (int i = lane; i < (pieces + 31) / 32; i += 32)
        sum += scratch[i];
    return warp_sum(sum);
}

/* scratch: 32 floats of shared memory. The first sum of a kernel: nobody has used scratch since the last barrier. */
DEVICE float block_sum_first(float x, float *scratch)
{
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0)
        scratch[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : 0.0f);
}

/* These start with a barrier, so scratch may be reused at once. */
DEVICE float block_sum(float x, float *scratch)
{
    __syncthreads();
    return block_sum_first(x, scratch);
}

DEVICE float block_max(float x, float *scratch)
{
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        scratch[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : -INFINITY);
}

#endif
