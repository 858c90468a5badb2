/* SPDX-License-Identifier: Apache-2.0 */
/* rmsnorm: out = x / sqrt(mean(x^2) + eps) * weight, x = input, or input + residual (which is stored, rounded) if ADD_RESIDUAL.
 *
 * blockDim.x threads per row, blockDim.y rows per block, more than one only if a warp has the row; blockIdx.y is the group. A
 * thread holds PER_THREAD pieces of VEC elements in registers, so each row is read once; piece i starts at element
 * (i * blockDim.x + threadIdx.x) * VEC.
 *
 *   T            f16, bf16
 *   VEC          1, 2, 4, 8; divides hidden and all row strides
 *   PER_THREAD   1, 2; blockDim.x * VEC * PER_THREAD >= hidden
 *   ADD_RESIDUAL 0, 1
 *   R            dtype of the residual: T or f32
 * Shared memory: 32 floats. */
#include "pdl.cuh"
#include "reduce.cuh"
#include "vec.cuh"
#include "rmsnorm_args.h"

/* With one piece of 16-bit elements per thread the registers suffice to fill a multiprocessor. */
extern "C" __global__ void __launch_bounds__(1024, PER_THREAD == 1 && sizeof(R) == 2 ? SM_THREADS / 1024 : 1)
    rmsnorm_sm80(const __grid_constant__ struct rmsnorm_args a)
{
    __shared__ float scratch[32];
    int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= a.rows)
        return;
    const T *input = (const T *)a.input + row * a.input_stride[0] + blockIdx.y * a.input_stride[1];
    const T *weight = (const T *)a.weight;
    T *out = (T *)a.out + row * a.out_stride[0] + blockIdx.y * a.out_stride[1];
#if ADD_RESIDUAL
    R *residual = (R *)a.residual + row * a.residual_stride[0] + blockIdx.y * a.residual_stride[1];
    vec<R, VEC> added[PER_THREAD];
#endif
    vec<T, VEC> w[PER_THREAD], loaded[PER_THREAD];
    float x[PER_THREAD][VEC], sum = 0.0f;

    /* Weights are constant: they can be fetched while the previous kernel still writes the input. */
    pdl_launch();
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int at = (i * blockDim.x + threadIdx.x) * VEC;
        if (at < a.hidden)
            w[i] = load_vec<VEC>(weight + at);
    }
    pdl_wait();
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int at = (i * blockDim.x + threadIdx.x) * VEC;
        if (at < a.hidden) {
            loaded[i] = load_vec<VEC>(input + at);
#if ADD_RESIDUAL
            added[i] = load_vec<VEC>(residual + at);
#endif
        }
    }
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int at = (i * blockDim.x + threadIdx.x) * VEC;
        if (at < a.hidden) {
            widen(x[i], loaded[i]);
#if ADD_RESIDUAL
            float r[VEC];
            widen(r, added[i]);
#pragma unroll
            for (int j = 0; j < VEC; j++)
                x[i][j] += r[j];
#endif
#pragma unroll
            for (int j = 0; j < VEC; j++)
                sum += x[i][j] * x[i][j];
        }
    }
    sum = blockDim.x == 32 ? warp_sum(sum) : block_sum_first(sum, scratch);
    float scale = rsqrtf(sum * a.inverse_hidden + a.eps);
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int at = (i * blockDim.x + threadIdx.x) * VEC;
        if (at < a.hidden) {
#if ADD_RESIDUAL
            store(residual + at, x[i]);
#endif
            float factor[VEC];
            widen(factor, w[i]);
#pragma unroll
            for (int j = 0; j < VEC; j++)
                x[i][j] = x[i][j] * scale * factor[j];
            store(out + at, x[i]);
        }
    }
}
