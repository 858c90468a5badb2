/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values of requests, gathered from pages of e2m1 codes with an e4m3 scale for each 16: out = code * scale * global
 * scale, the last product rounded to float32 first. Block (x, y, z) has POSITIONS positions of request y, keys or values; a
 * thread does 8 columns of a head of each at a time.
 *
 *   T         f16, bf16, f32
 *   POSITIONS 1, 4; divides page_size
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

DEVICE void store_values(T *to, uint32_t codes, uint8_t scale, float global_scale)
{
    float x[COLUMNS];
    e2m1_scaled(x, codes, scale);
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
        x[j] *= global_scale;
    vec<T, COLUMNS> v;
    narrow(v, x);
    store_global_by<VEC>(to, v);
}

extern "C" __global__ void __launch_bounds__(256, POSITIONS > 1 ? 6 : 1)
    nvfp4_kv_dequantize_paged_sm80(const __grid_constant__ struct nvfp4_kv_dequantize_paged_args a)
{
    uint32_t position = blockIdx.x * POSITIONS, request = blockIdx.y, page_size = (uint32_t)a.page_size;
    const struct paged_half &h = a.half[blockIdx.z];
    uint32_t pieces = (uint32_t)a.head_dim / COLUMNS, count = (uint32_t)a.num_kv_heads * pieces;
    pdl_launch();
    pdl_wait();
    float global_scale = h.scale ? *h.scale : h.scale_value;
    int64_t page = page_of(&a, request, position), slot = position % page_size;
    if (page < 0)
        return;
    int there = a.seq_lens[request] - (int)position;
    const uint8_t *codes_from = h.codes + page * h.codes_stride[0] + slot * h.codes_stride[1];
    const uint8_t *scales_from = h.scales + page * h.scales_stride[0] + slot * h.scales_stride[1];
    T *out = (T *)h.out + request * h.out_stride[0] + position * h.out_stride[1];
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        uint32_t head = i / pieces, column = i % pieces * COLUMNS, codes[POSITIONS];
        uint8_t scale[POSITIONS];
        const uint8_t *codes_at = codes_from + head * h.codes_stride[2] + column / 2;
        const uint8_t *scales_at = scales_from + head * h.scales_stride[2] + column / 16;
        T *to = out + head * h.out_stride[2] + column;
#pragma unroll
        for (int k = 0; k < POSITIONS; k++) {
            if (k < there) {
                codes[k] = load_codes(codes_at + k * h.codes_stride[1]);
                scale[k] = scales_at[k * h.scales_stride[1]];
            }
        }
#pragma unroll
        for (int k = 0; k < POSITIONS; k++) {
            if (k < there)
                store_values(to + k * h.out_stride[1], codes[k], scale[k], global_scale);
        }
    }
}
