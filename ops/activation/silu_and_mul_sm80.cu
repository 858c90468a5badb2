/* SPDX-License-Identifier: Apache-2.0 */
/* silu_and_mul: out[i] = silu(input[i]) * input[intermediate + i] in each row.
 *
 * Block (x, y) does the y-th run of blockDim.x * VEC columns of row x; a thread does VEC columns.
 *
 *   T   f16, bf16
 *   VEC 1, 2, 4, 8; divides intermediate and all row strides */
#include "pdl.cuh"
#include "vec.cuh"
#include "silu_and_mul_args.h"

/* With e^-|x| nothing overflows, and small results keep their digits. */
DEVICE float silu(float x)
{
    float t = expf(-fabsf(x));
    return __fdividef(x < 0.0f ? x * t : x, 1.0f + t);
}

extern "C" __global__ void __launch_bounds__(256) silu_and_mul_sm80(const __grid_constant__ struct silu_and_mul_args a)
{
    int64_t row = blockIdx.x, at = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * VEC;
    const T *input = (const T *)a.input + row * a.input_stride + at;
    T *out = (T *)a.out + row * a.out_stride + at;

    pdl_launch();
    pdl_wait();
    if (at >= a.intermediate)
        return;
    float gate[VEC], up[VEC];
    load(gate, input);
    load(up, input + a.intermediate);
#pragma unroll
    for (int i = 0; i < VEC; i++)
        gate[i] = silu(gate[i]) * up[i];
    store(out, gate);
}
