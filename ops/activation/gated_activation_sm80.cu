/* SPDX-License-Identifier: Apache-2.0 */
/* out[i] = ACTIVATION(input[i]) * input[intermediate + i] / scale in each row.
 *
 * Block (x, y) does the y-th run of blockDim.x * VEC columns of row x; a thread does VEC columns.
 *
 *   T          f16, bf16
 *   O          f16, bf16, e4m3, e5m2
 *   ACTIVATION silu, gelu, gelu_tanh, as 0, 1, 2
 *   VEC        1, 2, 4, 8; divides intermediate and all row strides */
#include "pdl.cuh"
#include "vec.cuh"
#include "activation.cuh"
#include "gated_activation_args.h"

DEVICE float activation(float x) { return ACTIVATION == 0 ? silu(x) : ACTIVATION == 1 ? gelu(x) : gelu_tanh(x); }

extern "C" __global__ void __launch_bounds__(256) gated_activation_sm80(const __grid_constant__ struct gated_activation_args a)
{
    int64_t row = blockIdx.x, at = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * VEC;
    const T *input = (const T *)a.input + row * a.input_stride + at;
    O *out = (O *)a.out + row * a.out_stride + at;

    pdl_launch();
    pdl_wait();
    if (at >= a.intermediate)
        return;
    float gate[VEC], up[VEC], factor = 1.0f / (a.scale ? *a.scale : a.scale_value);
    load(gate, input);
    load(up, input + a.intermediate);
#pragma unroll
    for (int i = 0; i < VEC; i++)
        gate[i] = activation(gate[i]) * up[i] * factor;
    store(out, gate);
}
