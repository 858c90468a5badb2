/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel of chunk_gated_delta_rule on sm_90a that joins the segments of a sequence, in float32: `after` of each becomes the
 * state there, state through + after with the state at the cut before it. A block has 16 rows of a head's states.
 *
 * A warp takes 16 of the 128 keys that are summed over, a lane 4 columns; then the warps' sums are added.
 * Grid: 8, num_heads, cuts at most, of which those that are the first of their sequence work; 256 threads. */
#include "gated_delta_sm90.cuh"

enum { ROWS = GATED_DELTA_JOIN_ROWS, JOIN_WARPS = 8, OWN_KEYS = HEAD_DIM / JOIN_WARPS };

/* sums: rows of the state times the lane's columns of `through`. */
DEVICE void multiply(float (&sums)[ROWS][4], const float (&state)[HEAD_DIM][ROWS], const float *through, int warp)
{
    float4 m[OWN_KEYS];
#pragma unroll
    for (int k = 0; k < OWN_KEYS; k++)
        m[k] = *(const float4 *)(through + (warp * OWN_KEYS + k) * HEAD_DIM + lane_id() * 4);
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
    extern __shared__ __align__(16) unsigned char shared[];
    float(*partial)[ROWS][HEAD_DIM] = (float(*)[ROWS][HEAD_DIM])shared;
    int warp = warp_id(), head = blockIdx.y, cut = blockIdx.z, cuts;
    pdl_wait();
    pdl_launch();
    cuts = p.schedule->num_cuts;
    if (cut >= cuts || p.segments[cut].first)
        return;
    const float *begin = state_at(p.after, p, cut, head) + blockIdx.x * ROWS * HEAD_DIM;
    for (int i = threadIdx.x; i < ROWS * HEAD_DIM; i += blockDim.x)
        state[i % HEAD_DIM][i / HEAD_DIM] = begin[i];
    __syncthreads();
    for (cut++; cut < cuts && p.segments[cut].first; cut++) {
        float sums[ROWS][4] = {};
        multiply(sums, state, state_at(p.through, p, cut, head), warp);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            *(float4 *)&partial[warp][r][lane_id() * 4] = make_float4(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
        __syncthreads();
        float *after = state_at(p.after, p, cut, head) + blockIdx.x * ROWS * HEAD_DIM;
        for (int i = threadIdx.x; i < ROWS * HEAD_DIM; i += blockDim.x) {
            float x = after[i];
#pragma unroll
            for (int w = 0; w < JOIN_WARPS; w++)
                x += partial[w][i / HEAD_DIM][i % HEAD_DIM];
            after[i] = x;
            state[i % HEAD_DIM][i / HEAD_DIM] = x;
        }
        __syncthreads();
    }
}
