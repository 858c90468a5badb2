/* SPDX-License-Identifier: Apache-2.0 */
/* nvfp4_append: rounds keys and values to blocks of e2m1 with e4m3 scales, in the slots of a paged cache. A thread has a block
 * of a token's keys or values, by blockIdx.z; threadIdx.x and blockIdx.y say which block, threadIdx.y and blockIdx.x which
 * token.
 *
 *   T       f16, bf16
 *   MAPPED  0: slots follow from the page table; 1: they are in slot_mapping
 *   SLOT    i32, i64: of slot_mapping
 *   ALIGNED 1: 16-byte loads and 8-byte stores; 0: element by element */
#include "pdl.cuh"
#include "vec.cuh"
#include "block_scale.h"
#include "fp4.cuh"
#include "nvfp4_append_args.h"

enum { VEC = ALIGNED ? 8 : 1 };

DEVICE struct page_slot slot_of(const struct nvfp4_append_args &a, int64_t token)
{
#if MAPPED
    int64_t slot = ((const SLOT *)a.slot_mapping)[token];
    return page_slot{slot < 0 || slot >= a.num_slots ? -1 : slot / a.tokens.page_size, slot % a.tokens.page_size};
#else
    return page_slot_of(&a.tokens, token);
#endif
}

DEVICE void load_block(float (&x)[NVFP4_BLOCK], const T *from)
{
#pragma unroll
    for (int i = 0; i < NVFP4_BLOCK; i += VEC) {
        float part[VEC];
        load(part, from + i);
#pragma unroll
        for (int j = 0; j < VEC; j++)
            x[i + j] = part[j];
    }
}

DEVICE void store_block(u8 *to, float (&x)[NVFP4_BLOCK], float multiplier)
{
    float part = e2m1_part(x, multiplier);
    uint32_t word[2] = {e2m1_pack(x, part), e2m1_pack(x + 8, part)};
#if ALIGNED
    *(uint2 *)to = make_uint2(word[0], word[1]);
#else
    for (int i = 0; i < 8; i++)
        to[i] = (u8)(word[i / 4] >> i % 4 * 8);
#endif
}

extern "C" __global__ void __launch_bounds__(256) nvfp4_append_sm80(const __grid_constant__ struct nvfp4_append_args a)
{
    int64_t token = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    uint32_t number = blockIdx.y * blockDim.x + threadIdx.x, head = number / a.blocks, block = number % a.blocks;
    const struct nvfp4_half &h = a.half[blockIdx.z];

    pdl_launch();
    pdl_wait();
    float x[NVFP4_BLOCK] = {}, amax = 0.0f, scale = h.scale ? *h.scale : h.scale_value;
    struct page_slot at = {-1, 0};
    if (token < a.nnz && head < a.num_heads) {
        load_block(x, (const T *)h.from + token * h.from_stride[0] + head * h.from_stride[1] + block * NVFP4_BLOCK);
        at = slot_of(a, token);
    }
    if (at.page < 0)
        return;
#pragma unroll
    for (int i = 0; i < NVFP4_BLOCK; i++)
        amax = fmaxf(amax, fabsf(x[i]));
    struct block_scale s = block_scale_e4m3(amax, 1.0f / scale);
    h.scales[at.page * h.scales_stride[0] + at.slot * h.scales_stride[1] + head * h.scales_stride[2] + block] = (u8)s.code;
    store_block(h.codes + at.page * h.codes_stride[0] + at.slot * h.codes_stride[1] + head * h.codes_stride[2] +
                    block * (NVFP4_BLOCK / 2), x, s.multiplier);
}
