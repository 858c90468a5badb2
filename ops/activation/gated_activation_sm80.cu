/* SPDX-License-Identifier: Apache-2.0 */
/* out[i] = ACTIVATION(input[i]) * input[intermediate + i] / scale in each row.
 *
 * Block (x, y) does the y-th stretch of PIECES * blockDim.x * VEC columns of row x; a thread does PIECES times VEC columns,
 * blockDim.x times VEC apart.
 *
 *   T          f16, bf16
 *   O          f16, bf16, e4m3, e5m2
 *   ACTIVATION silu, gelu, gelu_tanh, as 0, 1, 2
 *   VEC        1, 2, 4, 8; divides intermediate and all row strides
 *   PIECES     1, 2, 4 */
#include "pdl.cuh"
#include "vec.cuh"
#include "activation.cuh"
#include "gated_activation_args.h"

DEVICE float activation(float x)
{
    return ACTIVATION == 0 ? silu(x) : ACTIVATION == 1 ? gelu(x) : gelu_tanh(x);
}

/* With a number of blocks the compiler keeps all loads on their way, in more registers; silu's are few enough. */
#if ACTIVATION == 0
#define BOUNDS __launch_bounds__(PIECES > 2 ? 512 : 256, 1)
#else
#define BOUNDS __launch_bounds__(256)
#endif

extern "C" __global__ void BOUNDS gated_activation_sm80(const __grid_constant__ struct gated_activation_args a)
{
    uint32_t first = (blockIdx.y * PIECES * blockDim.x + threadIdx.x) * VEC, step = blockDim.x * VEC;
    const T *input = (const T *)a.input + blockIdx.x * a.input_stride;
    O *out = (O *)a.out + blockIdx.x * a.out_stride;
    vec<T, VEC> gates[PIECES], ups[PIECES];

    pdl_launch();
    pdl_wait();
    float factor = a.scale ? 1.0f / *a.scale : a.factor;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        uint32_t at = first + i * step;
        if (at < a.intermediate) {
            gates[i] = load_vec<VEC>(input + at);
            ups[i] = load_vec<VEC>(input + a.intermediate + at);
        }
    }
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        uint32_t at = first + i * step;
        if (at >= a.intermediate)
            return;
        float gate[VEC], up[VEC];
        widen(gate, gates[i]);
        widen(up, ups[i]);
#pragma unroll
        for (int j = 0; j < VEC; j++)
            gate[j] = activation(gate[j]) * up[j] * factor;
        store(out + at, gate);
    }
}
