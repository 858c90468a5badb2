/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values of requests, gathered from pages of e2m1 codes with an e4m3 scale for each 16: out = code * scale * global scale,
 * the last product rounded to float32 first. Block (x, y, z) has position x of request y, keys or values; a thread does 8 columns of
 * a head at a time.
 *
 *   T       f16, bf16, f32
 *   ALIGNED 1: codes lie at multiples of 4 bytes, out at multiples of 16 */
#include "pdl.cuh"
#include "vec.cuh"
#include "fp4.cuh"
#include "nvfp4_kv_dequantize_paged_args.h"

enum { COLUMNS = 8, VEC = ALIGNED ? 16 / sizeof(T) < COLUMNS ? 16 / sizeof(T) : COLUMNS : 1 };

extern "C" __global__ void __launch_bounds__(256)
    nvfp4_kv_dequantize_paged_sm80(const __grid_constant__ struct nvfp4_kv_dequantize_paged_args a)
{
    int64_t position = blockIdx.x, request = blockIdx.y;
    const struct paged_half &h = a.half[blockIdx.z];
    int pieces = (int)(a.head_dim / COLUMNS), count = (int)a.num_kv_heads * pieces;
    pdl_launch();
    pdl_wait();
    int64_t page = page_of(&a, request, position), slot = position % a.page_size;
    if (page < 0)
        return;
    float global_scale = h.scale ? *h.scale : h.scale_value;
    const uint8_t *codes = h.codes + page * h.codes_stride[0] + slot * h.codes_stride[1];
    const uint8_t *scales = h.scales + page * h.scales_stride[0] + slot * h.scales_stride[1];
    T *out = (T *)h.out + request * h.out_stride[0] + position * h.out_stride[1];
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        int head = i / pieces, column = i % pieces * COLUMNS;
        const uint8_t *from = codes + head * h.codes_stride[2] + column / 2;
        T *to = out + head * h.out_stride[2] + column;
        float scale = to_float(e4m3{scales[head * h.scales_stride[2] + column / 16]});
#if ALIGNED
        uint32_t word = *(const uint32_t *)from;
#else
        uint32_t word = from[0] | from[1] << 8 | from[2] << 16 | (uint32_t)from[3] << 24;
#endif
#pragma unroll
        for (int k = 0; k < COLUMNS; k += VEC) {
            float x[VEC];
#pragma unroll
            for (int j = 0; j < VEC; j++)
                x[j] = e2m1_value(word >> (k + j) * 4) * scale * global_scale;
            store(to + k, x);
        }
    }
}
