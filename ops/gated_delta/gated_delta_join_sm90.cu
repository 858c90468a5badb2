/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel of chunk_gated_delta_rule on sm_90a that joins the segments of a sequence, in float32: `after` of each becomes the
 * state there, state through + after with the state at the cut before it. A block has 8 rows of a head's states.
 *
 * A warp takes 16 of the 128 keys that are summed over, a lane 4 columns; then the warps' sums are added. What the next segment
 * needs is on its way meanwhile.
 * Grid: 16, num_heads, cuts at most, of which those that are the first of their sequence work; 256 threads. */
#include "gated_delta_sm90.cuh"

enum { ROWS = GATED_DELTA_JOIN_ROWS, JOIN_WARPS = 8, OWN_KEYS = HEAD_DIM / JOIN_WARPS, OWN_SUMS = ROWS * HEAD_DIM / 256 };

/* The warp's keys and the lane's columns of `through`. */
DEVICE void load_through(float4 (&m)[OWN_KEYS], const float *through, int warp)
{
#pragma unroll
    for (int k = 0; k < OWN_KEYS; k++)
        m[k] = *(const float4 *)(through + (warp * OWN_KEYS + k) * HEAD_DIM + lane_id() * 4);
}

/* sums: rows of the state times these. */
DEVICE void multiply(float (&sums)[ROWS][4], const float (&state)[HEAD_DIM][ROWS], const float4 (&m)[OWN_KEYS], int warp)
{
#pragma unroll
    for (int k = 0; k < OWN_KEYS; k++) {
        const float *row = state[warp * OWN_KEYS + k];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            sums[r][0] += row[r] * m[k].x;
            sums[r][1] += row[r] * m[k].y;
            sums[r][2] += row[r] * m[k].z;
            sums[r][3] += row[r] * m[k].w;
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
    gated_delta_join_sm90(const __grid_constant__ struct gated_delta_sm90_args p)
{
    __shared__ __align__(16) float state[HEAD_DIM][ROWS];
    __shared__ __align__(16) float partial[JOIN_WARPS][ROWS][HEAD_DIM];
    int warp = warp_id(), head = blockIdx.y, cut = blockIdx.z, cuts;
    float4 m[OWN_KEYS];
    pdl_wait();
    pdl_launch();
    cuts = p.schedule->num_cuts;
    if (cut >= cuts || p.segments[cut].first)
        return;
    const float *begin = state_at(p.after, p, cut, head) + blockIdx.x * ROWS * HEAD_DIM;
    bool more = cut + 1 < cuts && p.segments[cut + 1].first;
    if (more)
        load_through(m, state_at(p.through, p, cut + 1, head), warp);
    for (int i = threadIdx.x; i < ROWS * HEAD_DIM; i += 256)
        state[i % HEAD_DIM][i / HEAD_DIM] = begin[i];
    __syncthreads();
    for (cut++; more; cut++) {
        float sums[ROWS][4] = {}, x[OWN_SUMS];
        float *after = state_at(p.after, p, cut, head) + blockIdx.x * ROWS * HEAD_DIM;
#pragma unroll
        for (int i = 0; i < OWN_SUMS; i++)
            x[i] = after[i * 256 + threadIdx.x];
        multiply(sums, state, m, warp);
        more = cut + 1 < cuts && p.segments[cut + 1].first;
        if (more)
            load_through(m, state_at(p.through, p, cut + 1, head), warp);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            *(float4 *)&partial[warp][r][lane_id() * 4] = make_float4(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWN_SUMS; i++) {
            int at = i * 256 + threadIdx.x;
#pragma unroll
            for (int w = 0; w < JOIN_WARPS; w++)
                x[i] += partial[w][at / HEAD_DIM][at % HEAD_DIM];
            after[at] = x[i];
            state[at % HEAD_DIM][at / HEAD_DIM] = x[i];
        }
        __syncthreads();
    }
}
