/* SPDX-License-Identifier: Apache-2.0 */
/* Quantization: bits packed into bytes, and elements of 4 or 8 bits that share a scale in blocks of a row, and back.
 *
 * Formats are those of the OCP specifications (8-bit floating point 1.0, microscaling 1.0): e4m3 (to 448, no infinity), e5m2,
 * e2m1 (0, 0.5, 1, 1.5, 2, 3, 4, 6; two to a byte, element 2i in the low half) and the scale e8m0, 2^(code - 127). Values are
 * rounded to nearest, ties to even, and saturate. NaN becomes NaN (0x7f), and 6 in e2m1, which has no NaN; it does not count for
 * its block's scale.
 *
 * The scale of a block whose largest magnitude is amax, in float32 with each operation rounded:
 *
 *     e4m3   scale = e4m3(global_scale * (amax / 6))       element = e2m1(x * (global_scale / scale)), 0 where scale is 0
 *     e8m0   the least 2^e >= amax / largest, e >= -127    element = e2m1 or e4m3(x / 2^e); largest is 6 or 448
 *
 * global_scale is the encoding scale, 448 * 6 / (largest magnitude of the tensor): a value is code * scale / global_scale. These
 * are the formulas of FlashInfer (of its exact mode: it approximates the divisions otherwise) and of TransformerEngine. An
 * infinite amax gives the largest scale. All of it is exact or correctly rounded, so CPUs and GPUs write the same bits.
 *
 * Scale bytes lie row-major (linear) or in tiles of 128 or 8 rows by 4 blocks, rows and blocks padded to whole tiles; with
 * tiles = ceil(blocks / 4) a row, the scale of (row, block) is at byte
 *
 *     linear  row * blocks + block
 *     128x4   (row / 128 * tiles + block / 4) * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4
 *     8x4     (row / 8 * tiles + block / 4) * 32 + row % 8 * 4 + block % 4
 *
 * and bytes of the padding are written as 0. */
#ifndef FLASHINFER_QUANTIZATION_H
#define FLASHINFER_QUANTIZATION_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Layout of scale bytes. */
enum { FLASHINFER_SCALES_128X4 = 0, FLASHINFER_SCALES_8X4 = 1, FLASHINFER_SCALES_LINEAR = 2 };

/* Which bit of a byte the first of its eight elements has. */
enum {
    FLASHINFER_BITORDER_BIG = 0,   /* the highest, as numpy.packbits */
    FLASHINFER_BITORDER_LITTLE = 1 /* the lowest, as the custom masks of attention */
};

/* y = eight elements of x in each byte: a bit is set where an element is not 0. Bits past the last are 0. */
struct flashinfer_packbits {
    size_t size;
    DLTensor *y;       /* [ceil(elements / 8)] u8, dense */
    const DLTensor *x; /* [elements] bool or u8 */
    int32_t bitorder;  /* FLASHINFER_BITORDER_* */
};
FLASHINFER_DECLARE_OP(packbits);

/* The same of each segment of x, which begins at a whole byte. Sizes are not asked back from the device: y has as many bytes as
 * the caller gives it, those past the last segment become 0, and what does not fit is left out. elements / 8 + batch are enough.
 */
struct flashinfer_segment_packbits {
    size_t size;
    DLTensor *y;            /* [bytes] u8, dense */
    DLTensor *new_indptr;   /* [batch + 1] i32: where each segment begins in y, and the end of the last */
    const DLTensor *x;      /* [elements] bool or u8 */
    const DLTensor *indptr; /* [batch + 1] i32, ascending from 0: where each segment begins in x */
    int32_t bitorder;       /* FLASHINFER_BITORDER_* */
};
FLASHINFER_DECLARE_OP(segment_packbits);

/* Of the ops below: rows is the product of the leading axes. Scales are dense. In the layouts of tiles they are [padded rows,
 * padded blocks]: rows padded to 128 or 8, blocks to 4; in the linear one [..., blocks]. */

/* out, out_scale = e2m1 blocks of input. */
struct flashinfer_fp4_quantize {
    size_t size;
    DLTensor *out;         /* [..., columns / 2] e2m1x2 or u8; rows may be strided */
    DLTensor *out_scale;   /* columns / sf_vec_size blocks a row, in sf_layout; u8, or e4m3 if that is what scales are */
    const DLTensor *input; /* [..., columns] f16, bf16, or e4m3: codes of a tensor with this global_scale, which are first
                              widened to f16(code * (6 / global_scale)); rows may be strided */
    flashinfer_number global_scale;   /* >= 1e-10, or f32 [1] or [rows]; absent: 1; no part of e8m0 scales */
    int32_t sf_vec_size;              /* columns of a block: 16 or 32, which divides columns; 0: 16 */
    int32_t sf_use_ue8m0;             /* 0: e4m3 scales, 1: e8m0 */
    int32_t sf_layout;                /* FLASHINFER_SCALES_*; upstream's is_sf_swizzled_layout and is_sf_8x4_layout */
    int32_t is_global_scale_inversed; /* 1: 1 / global_scale is meant, that is, it is the decoding scale */
};
FLASHINFER_DECLARE_OP(fp4_quantize);

/* fp4_quantize with e4m3 scales. Rows are not shuffled for the GEMMs that want that. */
struct flashinfer_nvfp4_quantize {
    size_t size;
    DLTensor *out;                 /* [..., columns / 2] e2m1x2 or u8 */
    DLTensor *out_scale;           /* as for fp4_quantize */
    const DLTensor *a;             /* [..., columns] f16, bf16 or e4m3; rows may be strided */
    flashinfer_number a_global_sf; /* >= 1e-10, or f32 [1] or [rows]; absent: 1 */
    int32_t sf_layout;             /* FLASHINFER_SCALES_* */
    int32_t sf_vec_size;           /* 16 or 32; 0: 16 */
};
FLASHINFER_DECLARE_OP(nvfp4_quantize);

/* fp4_quantize with e8m0 scales of blocks of 32. */
struct flashinfer_mxfp4_quantize {
    size_t size;
    DLTensor *out;       /* [..., columns / 2] e2m1x2 or u8 */
    DLTensor *out_scale; /* columns / 32 blocks a row, in sf_layout; u8 */
    const DLTensor *a;   /* [..., columns] f16 or bf16; rows may be strided */
    int32_t sf_layout;   /* FLASHINFER_SCALES_* */
};
FLASHINFER_DECLARE_OP(mxfp4_quantize);

/* nvfp4_quantize of each matrix of a batch; scales in tiles of 128 rows, those of each matrix for itself. */
struct flashinfer_nvfp4_batched_quantize {
    size_t size;
    DLTensor *out;                 /* [batch, rows, columns / 2] e2m1x2 or u8 */
    DLTensor *out_scale;           /* [batch, padded rows, padded columns / sf_vec_size] u8 or e4m3 */
    const DLTensor *a;             /* [batch, rows, columns] f16 or bf16 */
    flashinfer_number a_global_sf; /* >= 1e-10, or f32 [1]; absent: 1 */
    int32_t sf_vec_size;           /* 16 or 32; 0: 16 */
};
FLASHINFER_DECLARE_OP(nvfp4_batched_quantize);

/* The same, of the first mask[i] rows of matrix i alone, which has a global scale of its own. The other rows and their scales are
 * not touched. (Upstream returns a view of these tensors with permuted axes.) */
struct flashinfer_scaled_fp4_grouped_quantize {
    size_t size;
    DLTensor *out;                 /* [batch, rows, columns / 2] e2m1x2 or u8; written in part */
    DLTensor *out_scale;           /* [batch, padded rows, padded columns / 16] u8 or e4m3; written in part */
    const DLTensor *a;             /* [batch, rows, columns] f16 or bf16 */
    const DLTensor *mask;          /* [batch] i32: rows that count; below 0 is 0, above rows is rows */
    flashinfer_number a_global_sf; /* >= 1e-10, or f32 [1] or [batch]; absent: 1 */
};
FLASHINFER_DECLARE_OP(scaled_fp4_grouped_quantize);

/* e2m1 blocks of 16 with e4m3 scales for a cache of keys or values: linear scales, and the decoding scale, which the values of
 * the tensor are divided by. */
struct flashinfer_nvfp4_kv_quantize {
    size_t size;
    DLTensor *out;                  /* [..., columns / 2] e2m1x2 or u8 */
    DLTensor *out_scale;            /* [..., columns / 16] u8 or e4m3 */
    const DLTensor *input;          /* [..., columns] f16 or bf16; rows may be strided */
    flashinfer_number global_scale; /* >= 1e-10, or f32 [1]; absent: 1 */
};
FLASHINFER_DECLARE_OP(nvfp4_kv_quantize);

/* nvfp4_quantize of silu(first half of input) * second half, rounded to the dtype of input in between. */
struct flashinfer_silu_and_mul_nvfp4_quantize {
    size_t size;
    DLTensor *out;                  /* [..., columns / 2] e2m1x2 or u8 */
    DLTensor *out_scale;            /* columns / 16 blocks a row, in sf_layout; u8 or e4m3 */
    const DLTensor *input;          /* [..., 2 * columns] f16 or bf16; rows may be strided */
    flashinfer_number global_scale; /* >= 1e-10, or f32 [1] or [rows]; absent: 1 */
    int32_t sf_layout;              /* FLASHINFER_SCALES_* */
    int32_t sf_vec_size;            /* 16 or 32; 0: 16 */
};
FLASHINFER_DECLARE_OP(silu_and_mul_nvfp4_quantize);

/* scaled_fp4_grouped_quantize of the same. */
struct flashinfer_silu_and_mul_scaled_nvfp4_experts_quantize {
    size_t size;
    DLTensor *out;                 /* [batch, rows, columns / 2] e2m1x2 or u8; written in part */
    DLTensor *out_scale;           /* [batch, padded rows, padded columns / 16] u8 or e4m3; written in part */
    const DLTensor *a;             /* [batch, rows, 2 * columns] f16 or bf16 */
    const DLTensor *mask;          /* [batch] i32: rows that count; below 0 is 0, above rows is rows */
    flashinfer_number a_global_sf; /* >= 1e-10, or f32 [1] or [batch]; absent: 1 */
};
FLASHINFER_DECLARE_OP(silu_and_mul_scaled_nvfp4_experts_quantize);

/* out, out_scale = e4m3 blocks of 32 of input, with e8m0 scales. Columns beyond the input's are 0. */
struct flashinfer_mxfp8_quantize {
    size_t size;
    DLTensor *out;         /* [..., columns rounded up to a multiple of alignment] e4m3 */
    DLTensor *out_scale;   /* blocks of 32 columns of out, in sf_layout; u8 */
    const DLTensor *input; /* [..., columns] f16 or bf16; rows may be strided */
    int32_t sf_layout;     /* FLASHINFER_SCALES_*; upstream's is_sf_swizzled_layout and sf_swizzle_layout */
    int32_t alignment;     /* a multiple of 32; 0: 32 */
};
FLASHINFER_DECLARE_OP(mxfp8_quantize);

/* x_q = x / x_s in groups of columns, x_s = max(amax, eps) / largest; largest is 448 or 127. x is multiplied with 1 / x_s as
 * float32 rounds it; i8 is rounded to nearest, ties to even (upstream: up), and 0 for NaN. A group with infinite elements has an
 * infinite scale; with scale_ue8m0 that of elements of 2^128. The strides of x_s say what upstream's column_major_scales and
 * scale_tma_aligned do. */
struct flashinfer_per_token_group_quant_8bit {
    size_t size;
    DLTensor *x_q;       /* [..., columns] e4m3 or i8; upstream's dst_dtype */
    DLTensor *x_s;       /* [..., columns / group_size] f32; any strides: [rows, groups] may be column-major, and padded */
    const DLTensor *x;   /* [..., columns] f16, bf16 or f32; rows may be strided */
    int32_t group_size;  /* 16, 32, 64, 128, 256 or 512, which divides columns; 0: 128 */
    double eps;          /* >= 1e-30; 0: 1e-10 */
    int32_t scale_ue8m0; /* 1: x_s is rounded up to a power of two */
};
FLASHINFER_DECLARE_OP(per_token_group_quant_8bit);

/* Back to numbers: out = code * scale * global_scale, where global_scale is the decoding scale; code * scale is exact, the second
 * product rounded to float32, then to the dtype of out. A scale that is NaN makes its block NaN. Padding of scales is not read.
 * They run on CPU tensors too, where upstream has ops named *_host. */

/* Blocks of e2m1, to float32. */
struct flashinfer_e2m1_and_ufp8sf_scale_to_float {
    size_t size;
    DLTensor *out;                  /* [..., columns] f32 */
    const DLTensor *e2m1;           /* [..., columns / 2] e2m1x2 or u8; rows may be strided */
    const DLTensor *sf;             /* blocks of sf_vec_size columns, in sf_layout; u8 */
    flashinfer_number global_scale; /* >= 1e-10, or f32 [1]; absent: 1 */
    int32_t sf_vec_size;            /* 16 or 32, which divides columns; 0: 16 */
    flashinfer_number ufp8_type;    /* 0: e8m0, 1: e4m3; absent: 1 */
    int32_t sf_layout;              /* FLASHINFER_SCALES_* */
};
FLASHINFER_DECLARE_OP(e2m1_and_ufp8sf_scale_to_float);

/* What mxfp4_quantize wrote; there is no global scale. */
struct flashinfer_mxfp4_dequantize {
    size_t size;
    DLTensor *out;         /* [..., columns] f32, f16 or bf16 */
    const DLTensor *a_fp4; /* [..., columns / 2] e2m1x2 or u8; rows may be strided */
    const DLTensor *a_sf;  /* blocks of 32 columns, in sf_layout; u8, e8m0 */
    int32_t sf_layout;     /* FLASHINFER_SCALES_*; mxfp4_dequantize_host of upstream: linear */
};
FLASHINFER_DECLARE_OP(mxfp4_dequantize);

/* What mxfp8_quantize wrote; there is no global scale. */
struct flashinfer_mxfp8_dequantize {
    size_t size;
    DLTensor *out;         /* [..., columns] f32, f16 or bf16 */
    const DLTensor *input; /* [..., columns] e4m3; rows may be strided */
    const DLTensor *scale; /* blocks of 32 columns, in sf_layout; u8, e8m0 */
    int32_t sf_layout;     /* FLASHINFER_SCALES_* */
};
FLASHINFER_DECLARE_OP(mxfp8_dequantize);

/* What nvfp4_kv_quantize wrote. */
struct flashinfer_nvfp4_kv_dequantize {
    size_t size;
    DLTensor *out;                  /* [..., columns] bf16, f16 or f32 */
    const DLTensor *fp4;            /* [..., columns / 2] e2m1x2 or u8; rows may be strided */
    const DLTensor *sf;             /* [..., columns / 16] e4m3 or u8; dense */
    flashinfer_number global_scale; /* >= 1e-10, or f32 [1]; absent: 1 */
};
FLASHINFER_DECLARE_OP(nvfp4_kv_dequantize);

/* Keys and values of requests from a paged cache of e2m1 blocks of 16 with e4m3 scales, as nvfp4_kv_quantize writes them.
 * Position p of request b lies in page block_tables[b][p / page_size], slot p % page_size. Positions from seq_lens[b] on are not
 * touched, nor those of pages that do not exist (negative ids, and from num_pages on). */
struct flashinfer_nvfp4_kv_dequantize_paged {
    size_t size;
    DLTensor *output_k;      /* [batch, max_seq_len, num_kv_heads, head_dim] f16, bf16 or f32; written in part */
    DLTensor *output_v;      /* as output_k */
    const DLTensor *k_cache; /* NHD: [num_pages, page_size, num_kv_heads, head_dim / 2], HND: heads before slots; e2m1x2 or u8 */
    const DLTensor *v_cache; /* as k_cache */
    const DLTensor *k_cache_sf;   /* the same with head_dim / 16; e4m3 or u8 */
    const DLTensor *v_cache_sf;   /* as k_cache_sf */
    const DLTensor *block_tables; /* [batch, max_pages] i32; max_pages * page_size >= max_seq_len */
    const DLTensor *seq_lens;     /* [batch] i32, at most max_seq_len */
    flashinfer_number k_scale;    /* decoding scale: >= 1e-10, or f32 [1]; absent: 1 */
    flashinfer_number v_scale;    /* likewise */
    int32_t kv_layout;            /* FLASHINFER_NHD, FLASHINFER_HND */
};
FLASHINFER_DECLARE_OP(nvfp4_kv_dequantize_paged);

/* Linear scales (or anything of one or two bytes), of each matrix, in tiles of 128 rows by 4 columns; padding is 0. */
struct flashinfer_block_scale_interleave {
    size_t size;
    DLTensor *out;         /* [..., rows padded to 128, columns padded to 4], dtype of input; dense */
    const DLTensor *input; /* [..., rows, columns] u8, e4m3 or bf16; upstream's unswizzled scales */
};
FLASHINFER_DECLARE_OP(block_scale_interleave);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_QUANTIZATION_H */
