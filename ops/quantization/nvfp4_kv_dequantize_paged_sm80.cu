/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values of requests, gathered from pages of e2m1 codes with an e4m3 scale for each 16: out = code * scale * global
 * scale, the last product rounded to float32 first. Block (x, y, z) has POSITIONS positions of request y, keys or values; a
 * thread does 8 columns of a head of each at a time.
 *
 *   T         f16, bf16, f32
 *   POSITIONS 1, 4
 *   ALIGNED   1: codes lie at multiples of 4 bytes, out at multiples of 16 */
#include "pdl.cuh"
#include "vec.cuh"
#include "fp4.cuh"
#include "nvfp4_kv_dequantize_paged_args.h"

enum { COLUMNS = 8, VEC = ALIGNED ? 16 / sizeof(T) < COLUMNS ? 16 / sizeof(T) : COLUMNS : 1 };

DEVICE uint32_t load_codes(const uint8_t *from)
{
#if ALIGNED
    return *(const uint32_t *)from;
#else
    return from[0] | from[1] << 8 | from[2] << 16 | (uint32_t)from[3] << 24;
#endif
}

DEVICE void store_values(T *to, uint32_t codes, float scale, float global_scale)
{
    float x[COLUMNS];
    e2m1_values(x, codes);
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
        x[j] = x[j] * scale * global_scale;
    store_by<VEC>(to, x);
}

extern "C" __global__ void __launch_bounds__(256, POSITIONS > 1 ? 6 : 1)
    nvfp4_kv_dequantize_paged_sm80(const __grid_constant__ struct nvfp4_kv_dequantize_paged_args a)
{
    int64_t position = (int64_t)blockIdx.x * POSITIONS, request = blockIdx.y;
    const struct paged_half &h = a.half[blockIdx.z];
    int pieces = (int)(a.head_dim / COLUMNS), count = (int)a.num_kv_heads * pieces;
    pdl_launch();
    pdl_wait();
    float global_scale = h.scale ? *h.scale : h.scale_value;
    int64_t page[POSITIONS], slot[POSITIONS];
#pragma unroll
    for (int k = 0; k < POSITIONS; k++) {
        page[k] = page_of(&a, request, position + k);
        slot[k] = (uint32_t)(position + k) % (uint32_t)a.page_size;
    }
    T *out = (T *)h.out + request * h.out_stride[0] + position * h.out_stride[1];
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        int head = i / pieces, column = i % pieces * COLUMNS;
        uint32_t codes[POSITIONS];
        uint8_t scale[POSITIONS];
#pragma unroll
        for (int k = 0; k < POSITIONS; k++) {
            if (page[k] < 0)
                continue;
            codes[k] = load_codes(h.codes + page[k] * h.codes_stride[0] + slot[k] * h.codes_stride[1] +
                                  head * h.codes_stride[2] + column / 2);
            scale[k] = h.scales[page[k] * h.scales_stride[0] + slot[k] * h.scales_stride[1] + head * h.scales_stride[2] +
                                column / 16];
        }
#pragma unroll
        for (int k = 0; k < POSITIONS; k++) {
            if (page[k] >= 0)
                store_values(out + k * h.out_stride[1] + head * h.out_stride[2] + column, codes[k], to_float(e4m3{scale[k]}),
                             global_scale);
        }
    }
}
