/* SPDX-License-Identifier: Apache-2.0 */
/* nvfp4_append on a CPU: rounds keys and values to blocks of e2m1 with e4m3 scales, in the slots of a paged cache. A part takes a
 * range of tokens.
 *
 *   T      f16, bf16
 *   MAPPED 0: slots follow from the page table; 1: they are in slot_mapping
 *   SLOT   i32, i64: of slot_mapping */
#include "fp4.h"
#include "vec_scale.h"
#include "nvfp4_append_args.h"

static struct page_slot slot_of(const struct nvfp4_append_args *a, int64_t token)
{
#if MAPPED
    int64_t slot = ((const SLOT *)a->slot_mapping)[token];
    return (struct page_slot){slot < 0 || slot >= a->num_slots ? -1 : slot / a->tokens.page_size, slot % a->tokens.page_size};
#else
    return page_slot_of(&a->tokens, token);
#endif
}

/* At most sixteen blocks, whose scales are computed together. */
static void quantize(uint8_t *codes, uint8_t *scales, const T *from, int blocks, float global_scale)
{
    vec x[LANES], amax[LANES] = {{0}};
    float multiplier[LANES];
    uint8_t code[LANES];
    for (int b = 0; b < blocks; b++) {
        x[b] = vec_load(from + b * NVFP4_BLOCK);
        amax[b] = vec_max2((vec)((vecu)x[b] & 0x7fffffffu), amax[b]);
    }
    struct vec_scale s = vec_scale_e4m3(vec_max_each(amax), global_scale);
    vec_store(multiplier, s.multiplier);
    vec_store_bytes(code, s.code);
    memcpy(scales, code, (size_t)blocks);
    for (int b = 0; b < blocks; b++)
        vec_store_e2m1(codes + b * (NVFP4_BLOCK / 2), vec_e2m1_codes(x[b], vec_set(multiplier[b])));
}

void nvfp4_append_cpu(const struct nvfp4_append_args *a, int part, int parts)
{
    int64_t end = part_begin(a->nnz, part + 1, parts);
    for (int64_t token = part_begin(a->nnz, part, parts); token < end; token++) {
        struct page_slot at = slot_of(a, token);
        for (int half = 0; half < 2 && at.page >= 0; half++) {
            const struct nvfp4_half *h = &a->half[half];
            float global_scale = 1.0f / (h->scale ? *h->scale : h->scale_value);
            int64_t heads = a->num_heads, blocks = a->blocks;
            if (h->from_stride[1] == blocks * NVFP4_BLOCK && h->codes_stride[2] == blocks * (NVFP4_BLOCK / 2) &&
                h->scales_stride[2] == blocks) { /* heads that lie one after the other are one */
                blocks *= heads;
                heads = 1;
            }
            for (int64_t head = 0; head < heads; head++) {
                const T *from = (const T *)h->from + token * h->from_stride[0] + head * h->from_stride[1];
                uint8_t *codes =
                    h->codes + at.page * h->codes_stride[0] + at.slot * h->codes_stride[1] + head * h->codes_stride[2];
                uint8_t *scales =
                    h->scales + at.page * h->scales_stride[0] + at.slot * h->scales_stride[1] + head * h->scales_stride[2];
                for (int64_t b = 0; b < blocks; b += LANES)
                    quantize(codes + b * (NVFP4_BLOCK / 2), scales + b, from + b * NVFP4_BLOCK,
                             (int)(blocks - b < LANES ? blocks - b : LANES), global_scale);
            }
        }
    }
}
