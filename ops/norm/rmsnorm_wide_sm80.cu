/* SPDX-License-Identifier: Apache-2.0 */
/* rmsnorm of rows too wide for a block's registers: out = x / sqrt(mean(x^2) + eps) * weight, x = input, or input + residual
 * (which is stored, rounded) if ADD_RESIDUAL. Block (x, y) has group y of row x and reads it twice, the second time mostly from
 * the cache.
 *
 *   T            f16, bf16
 *   VEC          1, 2, 4, 8; divides hidden and all row strides
 *   ADD_RESIDUAL 0, 1
 *   R            dtype of the residual: T or f32
 * Shared memory: 32 floats. */
#include "pdl.cuh"
#include "reduce.cuh"
#include "vec.cuh"
#include "rmsnorm_args.h"

/* VEC elements of x. */
DEVICE void load_x(float (&x)[VEC], const T *input, const R *residual)
{
    load(x, input);
#if ADD_RESIDUAL
    float r[VEC];
    load(r, residual);
#pragma unroll
    for (int j = 0; j < VEC; j++)
        x[j] += r[j];
#endif
}

extern "C" __global__ void __launch_bounds__(1024) rmsnorm_wide_sm80(const __grid_constant__ struct rmsnorm_args a)
{
    __shared__ float scratch[32];
    int64_t row = blockIdx.x, step = blockDim.x * VEC;
    const T *input = (const T *)a.input + row * a.input_stride[0] + blockIdx.y * a.input_stride[1];
    const T *weight = (const T *)a.weight;
    T *out = (T *)a.out + row * a.out_stride[0] + blockIdx.y * a.out_stride[1];
    R *residual = (R *)a.residual + row * a.residual_stride[0] + blockIdx.y * a.residual_stride[1];
    float sum = 0.0f;

    pdl_launch();
    pdl_wait();
#pragma unroll 2
    for (int64_t at = threadIdx.x * VEC; at < a.hidden; at += step) {
        float x[VEC];
        load_x(x, input + at, residual + at);
#pragma unroll
        for (int j = 0; j < VEC; j++)
            sum += x[j] * x[j];
    }
    float scale = rsqrtf(block_sum_first(sum, scratch) * a.inverse_hidden + a.eps);
#pragma unroll 2
    for (int64_t at = threadIdx.x * VEC; at < a.hidden; at += step) {
        float x[VEC], factor[VEC];
        load_x(x, input + at, residual + at);
        load(factor, weight + at);
#if ADD_RESIDUAL
        store(residual + at, x);
#endif
#pragma unroll
        for (int j = 0; j < VEC; j++)
            x[j] = x[j] * scale * factor[j];
        store(out + at, x);
    }
}
