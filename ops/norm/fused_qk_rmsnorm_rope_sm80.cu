/* SPDX-License-Identifier: Apache-2.0 */
/* fused_qk_rmsnorm_rope: q and k of a token are normalised over all their heads and rotated by the token's place in a video; v is
 * copied. Block x has q, k and v of token x, a thread a piece of VEC elements of each.
 *
 *   T          f16, bf16
 *   OUT        T, e4m3
 *   HEAD_DIM   64, 128, 256
 *   INTERLEAVE 0: pair i of a head is (i, HEAD_DIM / 2 + i); 1: (2 i, 2 i + 1)
 *   ACCESS     1, 2, 4, 8: elements that one access may load or store, as the tensors lie
 *   WIDE       1: blockDim.x > 512
 * Shared memory: 64 floats and HEAD_DIM / 2 pairs. blockDim.x >= HEAD_DIM / 2; times VEC >= the elements of q, of k and of v. */
#include "pdl.cuh"
#include "prefetch.cuh"
#include "reduce.cuh"
#include "vec.cuh"
#include "fused_qk_rmsnorm_rope_args.h"

enum { VEC = 8, PAIRS = HEAD_DIM / 2 };

/* Cosine and sine of a pair at the token's place. */
DEVICE float2 rotation_of(const struct fused_qk_rmsnorm_rope_args &a, int token, int pair)
{
    int in_frame = token % a.frame_len, axis = 0;
    int place = token / a.frame_len;
    if (2 * pair >= a.channels[0]) {
        pair -= a.channels[0] / 2;
        place = in_frame / a.width;
        axis = 1;
        if (2 * pair >= a.channels[1]) {
            pair -= a.channels[1] / 2;
            place = in_frame % a.width;
            axis = 2;
        }
    }
    double turns = 0.15915494309189535, ratio = a.ratio[axis]; /* 1 / (2 pi) */
    for (int n = pair; n; n >>= 1) {
        if (n & 1)
            turns *= ratio;
        ratio *= ratio;
    }
    double share = fmin(fmax((pair - a.ramp_low) * a.ramp_scale, 0.0), 1.0);
    double angle = place * (turns * (share * a.inverse_factor + (1.0 - share)));
    float sine, cosine;
    sincospif(2.0f * (float)(angle - rint(angle)), &sine, &cosine);
    return make_float2(cosine * a.attention_factor, sine * a.attention_factor);
}

DEVICE void rotate(float (&x)[VEC], const float2 (&rotation)[VEC], int in_head)
{
#if INTERLEAVE
#pragma unroll
    for (int j = 0; j < VEC; j += 2) {
        float2 r = rotation[j / 2];
        float first = x[j] * r.x - x[j + 1] * r.y;
        x[j + 1] = x[j + 1] * r.x + x[j] * r.y;
        x[j] = first;
    }
#else
#pragma unroll
    for (int j = 0; j < VEC; j++) {
        float other = __shfl_xor_sync(0xffffffffu, x[j], PAIRS / VEC);
        x[j] = x[j] * rotation[j].x + (in_head < PAIRS ? -other : other) * rotation[j].y;
    }
#endif
}

/* v is copied, or rounded to e4m3. */
DEVICE void store_scaled(T *to, const vec<T, VEC> &v, float) { store_global_by<ACCESS>(to, v); }
DEVICE void store_scaled(e4m3 *to, const vec<T, VEC> &v, float scale)
{
    float x[VEC];
    widen(x, v);
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] *= scale;
    vec<e4m3, VEC> narrowed;
    narrow(narrowed, x);
    store_global_by<ACCESS>(to, narrowed);
}

/* Those that a piece's elements need, two at a time. */
DEVICE void load_rotations(float2 (&rotation)[VEC], const float2 (&table)[PAIRS], int in_head)
{
    int first = INTERLEAVE ? in_head / 2 : in_head % PAIRS;
#pragma unroll
    for (int j = 0; j < (INTERLEAVE ? VEC / 2 : VEC); j += 2) {
        float4 two = *(const float4 *)&table[first + j];
        rotation[j] = make_float2(two.x, two.y);
        rotation[j + 1] = make_float2(two.z, two.w);
    }
}

/* Of q and of k, by a half of each warp. */
DEVICE void block_sums(float (&sum)[2], float (&scratch)[2][32])
{
    int i = threadIdx.x % 16, half = threadIdx.x % 32 / 16, warps = blockDim.x / 32;
    float own = warp_sums(sum);
    if (i == 0)
        scratch[half][threadIdx.x / 32] = own;
    __syncthreads();
    own = i < warps ? scratch[half][i] : 0.0f;
    if (WIDE)
        own += i + 16 < warps ? scratch[half][i + 16] : 0.0f;
    own = lanes_sum(own, 16);
    sum[0] = __shfl_sync(0xffffffffu, own, 0);
    sum[1] = __shfl_sync(0xffffffffu, own, 16);
}

extern "C" __global__ void __launch_bounds__(WIDE ? 1024 : 512, WIDE ? 1 : INTERLEAVE ? 3 : 2)
    fused_qk_rmsnorm_rope_sm80(const __grid_constant__ struct fused_qk_rmsnorm_rope_args a)
{
    __shared__ float scratch[2][32];
    __shared__ __align__(16) float2 table[PAIRS];
    int token = blockIdx.x, at = threadIdx.x * VEC, head = at / HEAD_DIM, in_head = at % HEAD_DIM, before = at;
    const T *from = (const T *)a.qkv + token * a.qkv_stride;
    OUT *to[3];
    bool inside[3];
    vec<T, VEC> loaded[3] = {};

    pdl_launch();
    pdl_wait();
#pragma unroll
    for (int i = 0; i < 3; i++) {
        inside[i] = head < a.heads[i];
        to[i] = (OUT *)a.out[i] + token * a.out_stride[i][0] + head * a.out_stride[i][1] + in_head;
        if (inside[i])
            loaded[i] = load_vec_by<VEC, ACCESS>(from + before);
        before += a.heads[i] * HEAD_DIM;
    }
    if (blockIdx.x < a.ahead.blocks && threadIdx.x == 0)
        bulk_prefetch(from + a.ahead.distance * a.qkv_stride, before * sizeof(T));
    if (threadIdx.x < PAIRS)
        table[threadIdx.x] = rotation_of(a, token % a.seq_len, threadIdx.x);
    float sum[2] = {}, x[VEC];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        widen(x, loaded[i]);
#pragma unroll
        for (int j = 0; j < VEC; j++)
            sum[i] += x[j] * x[j];
        forget(loaded[i]);
    }
    if (inside[2])
        store_scaled(to[2], loaded[2], a.scale[2]);
    block_sums(sum, scratch);
    float2 rotation[VEC];
    load_rotations(rotation, table, in_head);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float scale = rsqrtf(sum[i] * a.inverse_hidden[i] + a.eps);
        widen(x, loaded[i]);
        if (a.is_qk_norm && inside[i]) {
            float factor[VEC];
            widen(factor, load_vec_by<VEC, ACCESS>((const T *)a.weight[i] + at));
#pragma unroll
            for (int j = 0; j < VEC; j++)
                x[j] = x[j] * scale * factor[j];
            if (sizeof(OUT) > 1)
                round_to<T>(x);
        }
        rotate(x, rotation, in_head);
#pragma unroll
        for (int j = 0; j < VEC; j++)
            x[j] *= sizeof(OUT) == 1 ? a.scale[i] : 1.0f;
        vec<OUT, VEC> v;
        narrow(v, x);
        if (inside[i])
            store_global_by<ACCESS>(to[i], v);
    }
}
