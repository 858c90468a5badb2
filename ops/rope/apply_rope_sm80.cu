/* SPDX-License-Identifier: Apache-2.0 */
/* apply_rope: rotates the pairs of each head of q and k by angles that depend on the token's position, and copies the rest.
 *
 * Block (x, y, z) has token x, blockDim.y heads (q's, then k's) and blockDim.x pieces of each head. A piece is VEC pairs, or VEC
 * elements to copy; threadIdx.x is the piece, threadIdx.y the head. The threads share the work of the block's sines and cosines.
 *
 *   T          f16, bf16
 *   POS        i32, i64
 *   VEC        1, 2, 4, 8; divides num_pairs, num_rest and all strides
 *   INTERLEAVE 0: pair i is (i, num_pairs + i); 1: (2 i, 2 i + 1)
 * Dynamic shared memory: blockDim.x * VEC pairs of floats. */
#include "pdl.cuh"
#include "vec.cuh"
#include "apply_rope_args.h"

DEVICE double power(double x, int n)
{
    double y = 1.0;
    for (; n; n >>= 1) {
        if (n & 1)
            y *= x;
        x *= x;
    }
    return y;
}

DEVICE void rotate(float &x, float &y, float2 r)
{
    float turned = x * r.x - y * r.y;
    y = y * r.x + x * r.y;
    x = turned;
}

extern "C" __global__ void __launch_bounds__(512) apply_rope_sm80(const __grid_constant__ struct apply_rope_args a)
{
    extern __shared__ float2 rotation[]; /* cosine and sine of the block's pairs */
    int64_t token = blockIdx.x;
    int piece = blockIdx.z * blockDim.x + threadIdx.x, head = blockIdx.y * blockDim.y + threadIdx.y;
    int first_pair = blockIdx.z * blockDim.x * VEC, pairs = min((int)blockDim.x * VEC, a.num_pairs - first_pair);
    int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;

    const T *from = (const T *)a.q + token * a.q_stride[0] + head * a.q_stride[1];
    T *to = (T *)a.q_rope + token * a.q_rope_stride[0] + head * a.q_rope_stride[1];
    if (head >= a.num_qo_heads) {
        int kv_head = head - a.num_qo_heads;
        from = (const T *)a.k + token * a.k_stride[0] + kv_head * a.k_stride[1];
        to = (T *)a.k_rope + token * a.k_rope_stride[0] + kv_head * a.k_rope_stride[1];
    }
    bool is_head = head < a.num_qo_heads + a.num_kv_heads, rotates = is_head && piece * VEC < a.num_pairs;
    bool copies = is_head && !rotates && piece * VEC < a.num_pairs + a.num_rest;
    /* Where the piece's one or two runs of VEC elements are. */
    int first = rotates && INTERLEAVE ? 2 * piece * VEC : copies ? piece * VEC + a.num_pairs : piece * VEC;
    int second = INTERLEAVE ? first + VEC : first + a.num_pairs;

    pdl_launch();
    double turns = a.first_turns * power(a.ratio, first_pair + thread);
    pdl_wait();
    double position = (double)((const POS *)a.pos_ids)[token];
    vec<T, VEC> loaded[2];
    if (rotates || copies)
        loaded[0] = load_vec<VEC>(from + first);
    if (rotates)
        loaded[1] = load_vec<VEC>(from + second);
    for (int i = thread; i < pairs; i += threads) {
        if (i != thread)
            turns = a.first_turns * power(a.ratio, first_pair + i);
        double angle = position * turns; /* in turns; only the fraction counts */
        float sine, cosine;
        sincospif(2.0f * (float)(angle - rint(angle)), &sine, &cosine);
        rotation[i] = make_float2(cosine, sine);
    }
    __syncthreads();
    if (rotates) {
        float x[2][VEC];
        widen(x[0], loaded[0]);
        widen(x[1], loaded[1]);
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            int one = INTERLEAVE ? 2 * i : i, other = INTERLEAVE ? 2 * i + 1 : VEC + i;
            rotate(x[one / VEC][one % VEC], x[other / VEC][other % VEC], rotation[threadIdx.x * VEC + i]);
        }
        store(to + first, x[0]);
        store(to + second, x[1]);
    } else if (copies) {
        store_vec(to + first, loaded[0]);
    }
}
