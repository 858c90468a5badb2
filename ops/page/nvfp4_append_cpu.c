/* SPDX-License-Identifier: Apache-2.0 */
/* nvfp4_append on a CPU: rounds keys and values to blocks of e2m1 with e4m3 scales, in the slots of a paged cache. A part takes a
 * range of tokens.
 *
 *   T      f16, bf16
 *   MAPPED 0: slots follow from the page table; 1: they are in slot_mapping
 *   SLOT   i32, i64: of slot_mapping */
#include "blocks_fp4.h"
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

enum { ORDER = PAIR_ORDER(T), RUN = LANES * NVFP4_BLOCK };

/* As blocks_to_e2m1. */
INLINE int quantize_blocks(e2m1x2 *codes, uint8_t *scales, const T *from, int count, float global_scale, int tame,
                           int past_caches, int64_t ahead)
{
    return blocks_to_e2m1(codes, scales, from, count, NVFP4_BLOCK, false, global_scale, 1.0f, ORDER, tame, past_caches, ahead);
}

static __attribute__((noinline)) void quantize_wild_blocks(e2m1x2 *codes, uint8_t *scales, const T *from, int count,
                                                           float global_scale)
{
    quantize_blocks(codes, scales, from, count, global_scale, BLOCKS_WILD, 0, 0);
}

/* `count` blocks, at most those of a piece, by way of memory with room for whole runs where they are not whole. */
static void quantize(uint8_t *codes, uint8_t *scales, const T *from, int count, float global_scale, bool past_caches,
                     int64_t ahead)
{
    T part[RUN] = {0};
    e2m1x2 code[RUN / 2];
    uint8_t scale[LANES];
    int whole = count / LANES * LANES, rest = count - whole;
    if (whole && !(past_caches && (intptr_t)codes % 64 == 0
                       ? quantize_blocks((e2m1x2 *)codes, scales, from, whole, global_scale, BLOCKS_TAME, 1, ahead)
                       : quantize_blocks((e2m1x2 *)codes, scales, from, whole, global_scale, BLOCKS_TAME, 0, ahead)))
        quantize_wild_blocks((e2m1x2 *)codes, scales, from, whole, global_scale);
    if (!rest)
        return;
    memcpy(part, from + whole * NVFP4_BLOCK, (size_t)rest * NVFP4_BLOCK * sizeof *part);
    quantize_wild_blocks(code, scale, part, rest, global_scale);
    memcpy(codes + whole * NVFP4_BLOCK / 2, code, (size_t)rest * NVFP4_BLOCK / 2);
    memcpy(scales + whole, scale, (size_t)rest);
}

void nvfp4_append_cpu(const struct nvfp4_append_args *a, int part, int parts)
{
    int64_t end = part_begin(a->nnz, part + 1, parts);
    bool past_caches = streams(a->nnz * a->num_heads * a->blocks * NVFP4_BLOCK);
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
                for (int64_t b = 0; b < blocks; b += E2M1_BLOCKS)
                    quantize(codes + b * (NVFP4_BLOCK / 2), scales + b, from + b * NVFP4_BLOCK,
                             (int)(blocks - b < E2M1_BLOCKS ? blocks - b : E2M1_BLOCKS), global_scale, past_caches,
                             h->from_stride[0]);
            }
        }
    }
    if (past_caches)
        stream_end();
}
