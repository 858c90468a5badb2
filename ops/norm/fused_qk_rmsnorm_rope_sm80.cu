/* SPDX-License-Identifier: Apache-2.0 */
/* fused_qk_rmsnorm_rope: q and k of a token are normalised over all their heads and rotated by the token's place in a video; v is
 * copied. Block (x, y) has q, k or v (y) of ROWS tokens, a thread a piece of VEC elements of each.
 *
 *   T          f16, bf16
 *   OUT        T, e4m3
 *   HEAD_DIM   64, 128, 256
 *   INTERLEAVE 0: pair i of a head is (i, HEAD_DIM / 2 + i); 1: (2 i, 2 i + 1)
 *   ACCESS     1, 2, 4, 8: elements that one access may load or store, as the tensors lie
 *   ROWS       1, 2
 * Shared memory: 32 floats and HEAD_DIM / 2 pairs for each row. blockDim.x * VEC >= the heads' elements, blockDim.x >= HEAD_DIM / 2,
 * and at most 512 if ROWS > 1. */
#include "pdl.cuh"
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

/* Of the rows before `last`. */
DEVICE void fill_rotations(float2 (&rotation)[ROWS][PAIRS], const struct fused_qk_rmsnorm_rope_args &a, int64_t row, int64_t last)
{
    for (int i = threadIdx.x; i < ROWS * PAIRS; i += blockDim.x) {
        if (row + i / PAIRS < last)
            rotation[i / PAIRS][i % PAIRS] = rotation_of(a, (int)((row + i / PAIRS) % a.seq_len), i % PAIRS);
    }
}

DEVICE void rotate(float (&x)[VEC], const float2 (&rotation)[PAIRS], int in_head)
{
#if INTERLEAVE
#pragma unroll
    for (int j = 0; j < VEC; j += 2) {
        float2 r = rotation[(in_head + j) / 2];
        float first = x[j] * r.x - x[j + 1] * r.y;
        x[j + 1] = x[j + 1] * r.x + x[j] * r.y;
        x[j] = first;
    }
#else
#pragma unroll
    for (int j = 0; j < VEC; j++) {
        float2 r = rotation[(in_head + j) % PAIRS];
        float other = __shfl_xor_sync(0xffffffffu, x[j], PAIRS / VEC);
        x[j] = x[j] * r.x + (in_head < PAIRS ? -other : other) * r.y;
    }
#endif
}

extern "C" __global__ void __launch_bounds__(ROWS > 1 ? 512 : 1024, ROWS > 1 ? 3 : 1)
    fused_qk_rmsnorm_rope_sm80(const __grid_constant__ struct fused_qk_rmsnorm_rope_args a)
{
    __shared__ float scratch[ROWS][32];
    __shared__ float2 rotation[ROWS][PAIRS];
    int64_t row = (int64_t)blockIdx.x * ROWS;
    int part = blockIdx.y, at = threadIdx.x * VEC, head = at / HEAD_DIM, in_head = at % HEAD_DIM;
    int before = part > 1 ? a.heads[0] + a.heads[1] : part > 0 ? a.heads[0] : 0;
    bool inside = head < a.heads[part];
    const T *from = (const T *)a.qkv + row * a.qkv_stride + (int64_t)before * HEAD_DIM + at;
    OUT *to = (OUT *)a.out[part] + row * a.out_stride[part][0] + head * a.out_stride[part][1] + in_head;
    vec<T, VEC> loaded[ROWS] = {}, w = {};

    pdl_launch();
    if (part < 2) {
        if (inside)
            w = load_vec_by<VEC, ACCESS>((const T *)a.weight[part] + at);
        if (ROWS == 1)
            fill_rotations(rotation, a, row, a.rows);
    }
    pdl_wait();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (inside && row + r < a.rows)
            loaded[r] = load_vec_by<VEC, ACCESS>(from + r * a.qkv_stride);
    }
    if (part < 2) {
        if (ROWS > 1)
            fill_rotations(rotation, a, row, a.rows);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float x[VEC], sum = 0.0f;
            widen(x, loaded[r]);
#pragma unroll
            for (int j = 0; j < VEC; j++)
                sum += x[j] * x[j];
            sum = warp_sum(sum);
            if (threadIdx.x % 32 == 0)
                scratch[r][threadIdx.x / 32] = sum;
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float x[VEC];
        widen(x, loaded[r]);
        if (part < 2) {
            float sum = warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? scratch[r][threadIdx.x % 32] : 0.0f);
            float scale = rsqrtf(sum * a.inverse_hidden[part] + a.eps);
            if (a.is_qk_norm && inside) {
                float factor[VEC];
                widen(factor, w);
#pragma unroll
                for (int j = 0; j < VEC; j++)
                    x[j] = x[j] * scale * factor[j];
                if (sizeof(OUT) > 1)
                    round_to<T>(x);
            }
            rotate(x, rotation[r], in_head);
        }
        if (inside && row + r < a.rows) {
#pragma unroll
            for (int j = 0; j < VEC; j++)
                x[j] *= a.scale[part];
            store_by<ACCESS>(to + r * a.out_stride[part][0], x);
        }
    }
}
