/* SPDX-License-Identifier: Apache-2.0 */
/* Normalisation over the last dimension. Arithmetic is in float32, with one rounding at the end unless an op says otherwise.
 *
 * Each row stands alone. A row that holds NaN becomes NaN. Where the sum of a row's squares exceeds float32's range (3.4e38), or
 * an element is infinite, the row becomes 0, and NaN at the infinite elements; layernorm makes all of a row with an infinite
 * element NaN, and of one whose sums exceed float32's range either NaN or beta. With FLASHINFER_PDL, kernels that are still
 * running must not write weights: they are read before those end. */
#ifndef FLASHINFER_NORM_H
#define FLASHINFER_NORM_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out = input / sqrt(mean(input^2) + eps) * weight. */
struct flashinfer_rmsnorm {
    size_t size;
    DLTensor *out;          /* [..., hidden], dtype of input; may be input itself */
    const DLTensor *input;  /* [..., hidden] f16, bf16 or f32; rows may be strided */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(rmsnorm);

/* out = input / sqrt(mean(input^2) + eps) * (weight + 1). */
struct flashinfer_gemma_rmsnorm {
    size_t size;
    DLTensor *out;          /* [..., hidden], dtype of input; may be input itself */
    const DLTensor *input;  /* [..., hidden] f16, bf16 or f32; rows may be strided */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(gemma_rmsnorm);

/* residual = input + residual, rounded to its dtype; then input = rmsnorm of that sum as it was before it was rounded. */
struct flashinfer_fused_add_rmsnorm {
    size_t size;
    DLTensor *input;        /* [..., hidden] f16, bf16 or f32; read, then overwritten with the normalised sum */
    DLTensor *residual;     /* [..., hidden], dtype of input, or f32; read, then overwritten with the sum */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(fused_add_rmsnorm);

/* The same with weight + 1. */
struct flashinfer_gemma_fused_add_rmsnorm {
    size_t size;
    DLTensor *input;        /* [..., hidden] f16, bf16 or f32; read, then overwritten with the normalised sum */
    DLTensor *residual;     /* [..., hidden], dtype of input, or f32; read, then overwritten with the sum */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(gemma_fused_add_rmsnorm);

/* out = rmsnorm(input) / scale: a product with the float32 reciprocal of scale, saturated to the largest number of out's
 * dtype. NaN stays NaN. */
struct flashinfer_rmsnorm_quant {
    size_t size;
    DLTensor *out;           /* [..., hidden] e4m3 or e5m2 */
    const DLTensor *input;   /* [..., hidden] f16 or bf16; rows may be strided */
    const DLTensor *weight;  /* [hidden], dtype of input */
    flashinfer_number scale; /* >= 1e-30, or one f32 on the call's device; absent: 1 */
    double eps;              /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(rmsnorm_quant);

/* residual = input + residual, rounded to its dtype; out = rmsnorm of that sum as it was before it was rounded, over scale as in
 * rmsnorm_quant. (The documentation of FlashInfer says that the result goes to input; there as here, input stays as it is.) */
struct flashinfer_fused_add_rmsnorm_quant {
    size_t size;
    DLTensor *out;           /* [..., hidden] e4m3 or e5m2 */
    DLTensor *residual;      /* [..., hidden], dtype of input, or f32; read, then overwritten with the sum */
    const DLTensor *input;   /* [..., hidden] f16 or bf16 */
    const DLTensor *weight;  /* [hidden], dtype of input */
    flashinfer_number scale; /* >= 1e-30, or one f32 on the call's device; absent: 1 */
    double eps;              /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(fused_add_rmsnorm_quant);

/* out = (input - mean(input)) / sqrt(mean((input - mean(input))^2) + eps) * gemma + beta. */
struct flashinfer_layernorm {
    size_t size;
    DLTensor *out;         /* [..., hidden], dtype of input; may be input itself */
    const DLTensor *input; /* [..., hidden] f16, bf16 or f32; rows may be strided */
    const DLTensor *gemma; /* [hidden] f32: the weight, under FlashInfer's name */
    const DLTensor *beta;  /* [hidden] f32 */
    double eps;            /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(layernorm);

/* out = layernorm(input), rounded to the dtype of input, over scale as in rmsnorm_quant. */
struct flashinfer_layernorm_quant {
    size_t size;
    DLTensor *out;           /* [..., hidden] e4m3 or e5m2 */
    const DLTensor *input;   /* [..., hidden] f16 or bf16; rows may be strided */
    const DLTensor *gemma;   /* [hidden] f32: the weight, under FlashInfer's name */
    const DLTensor *beta;    /* [hidden] f32 */
    flashinfer_number scale; /* >= 1e-30, or one f32 on the call's device; absent: 1 */
    double eps;              /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(layernorm_quant);

/* out = silu(rmsnorm(input)), silu(x) = x / (1 + e^-x). An e4m3 out saturates and has no scale. */
struct flashinfer_fused_rmsnorm_silu {
    size_t size;
    DLTensor *out;          /* [..., hidden], dtype of input, or e4m3 */
    const DLTensor *input;  /* [..., hidden] f16 or bf16; rows may be strided */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(fused_rmsnorm_silu);

/* The same with e2m1 elements, in blocks of 16 under e4m3 scales, global_scale 1: see flashinfer/quantization.h. */
struct flashinfer_fused_rmsnorm_silu_nvfp4 {
    size_t size;
    DLTensor *out;          /* [..., hidden/2] pairs of e2m1, or u8 */
    DLTensor *block_scale;  /* [..., hidden/16] e4m3, or u8 */
    const DLTensor *input;  /* [..., hidden] f16 or bf16; rows may be strided; hidden is a multiple of 16, >= 64 */
    const DLTensor *weight; /* [hidden], dtype of input */
    double eps;             /* >= 1e-30; 0: 1e-6 */
};
FLASHINFER_DECLARE_OP(fused_rmsnorm_silu_nvfp4);

enum {
    FLASHINFER_SCALE_FORMAT_AUTO = 0, /* e4m3 for blocks of 16, ue8m0 for blocks of 32 */
    FLASHINFER_SCALE_FORMAT_E4M3 = 1,
    FLASHINFER_SCALE_FORMAT_UE8M0 = 2
};

/* y = rmsnorm(input) in e2m1 with a scale for each block of a row; formats, formulas and layouts are those of
 * flashinfer/quantization.h. The product with the weight comes first and is rounded to the dtype of input: y = T(input *
 * weight) / sqrt(mean(input^2) + eps), so that in f16 it may overflow. y is off by some units in the last place of float32: where
 * it seems to lie between two values of e2m1, either may be taken. Both block sizes go with both scale formats.
 * (FlashInfer writes e4m3 codes where blocks of 16 under ue8m0 scales were asked for, leaves padding bytes of swizzled scales
 * as they are, and documents a size of theirs without padding.) */
struct flashinfer_rmsnorm_fp4quant {
    size_t size;
    DLTensor *y_fp4;       /* [..., hidden/2] pairs of e2m1, element 2i in the low half, or u8 */
    DLTensor *block_scale; /* linear: [..., hidden/block_size]; swizzled: [ceil(rows/128) * ceil(hidden/(4*block_size)) * 512],
                              rows: of all leading axes; padding is written as 0; u8, or e4m3 or e8m0 as scale_format says */
    const DLTensor *input;          /* [..., hidden] f16 or bf16; rows may be strided; hidden is a multiple of block_size,
                                       at least 64 */
    const DLTensor *weight;         /* [hidden], dtype of input */
    flashinfer_number global_scale; /* >= 1e-30, or one f32 on the call's device: 448 * 6 / (largest magnitude of y), say; not
                                       used with ue8m0; absent: 1 */
    double eps;                     /* >= 1e-30; 0: 1e-6 */
    int32_t block_size;             /* 16 or 32; 0: 16 */
    int32_t scale_format;           /* FLASHINFER_SCALE_FORMAT_* */
    int32_t is_sf_swizzled_layout;  /* 0: block_scale is linear; 1: in tiles of 128x4 */
};
FLASHINFER_DECLARE_OP(rmsnorm_fp4quant);

/* residual = input + residual, rounded to its dtype, h; then y_fp4 is h / sqrt(mean(s^2) + eps) * weight in e2m1, s the sum as
 * it was before it was rounded, all in float32, whatever the row's length. As in rmsnorm_fp4quant otherwise. */
struct flashinfer_add_rmsnorm_fp4quant {
    size_t size;
    DLTensor *y_fp4;                  /* [..., hidden/2] pairs of e2m1, element 2i in the low half, or u8 */
    DLTensor *block_scale;            /* as in rmsnorm_fp4quant */
    DLTensor *block_scale_unswizzled; /* [..., hidden/block_size], dtype of block_scale: the scales again, linear, beside
                                         swizzled ones; NULL: not wanted */
    DLTensor *y_out;                  /* [..., hidden], dtype of input: y before the scales, rounded; NULL: not wanted */
    DLTensor *residual;               /* [..., hidden], dtype of input, or f32; read, then overwritten with h */
    const DLTensor *input;            /* [..., hidden] f16 or bf16; rows may be strided; hidden is a multiple of block_size,
                                         at least 64 */
    const DLTensor *weight;           /* [hidden], dtype of input */
    flashinfer_number global_scale;   /* as in rmsnorm_fp4quant */
    double eps;                       /* >= 1e-30; 0: 1e-6 */
    int32_t block_size;               /* 16 or 32; 0: 16 */
    int32_t scale_format;             /* FLASHINFER_SCALE_FORMAT_* */
    int32_t is_sf_swizzled_layout;    /* 0: block_scale is linear; 1: in tiles of 128x4 */
    int32_t output_both_sf_layouts;   /* 1: block_scale_unswizzled must be given, and block_scale be swizzled */
};
FLASHINFER_DECLARE_OP(add_rmsnorm_fp4quant);

/* For the self-attention of video transformers: q and k of each token are normalised over all their heads together, rounded to
 * the dtype of qkv unless the output is e4m3, and rotated by the token's frame, line and column; v is copied. Not a norm of
 * each head, which is rmsnorm of [tokens, heads, head_dim].
 *
 * Token t of a sequence of ppf*pph*ppw stands in frame t / (pph*ppw), line t / ppw % pph, column t % ppw. The head_dim/2 pairs
 * of a head are divided among frame, height and width, a pair for two channels, in this order; pair i of an axis with n
 * channels turns by place * base^(-2i/n). With factor (YaRN) that frequency f becomes f * (1 - ramp) + f / factor * ramp, ramp
 * = clamp((i - low) / (high - low), 0, 1), high 0.001 larger if both are equal. NaN stays NaN. */
struct flashinfer_fused_qk_rmsnorm_rope {
    size_t size;
    DLTensor *q_out;          /* [..., num_heads_q, head_dim], dtype of qkv, or e4m3, which saturates */
    DLTensor *k_out;          /* [..., num_heads_k, head_dim], dtype of q_out */
    DLTensor *v_out;          /* [..., num_heads_v, head_dim], dtype of q_out */
    const DLTensor *qkv;      /* [..., (num_heads_q + num_heads_k + num_heads_v) * head_dim] f16 or bf16; the leading axes are
                                 tokens, a multiple of ppf*pph*ppw of them */
    const DLTensor *q_weight; /* [num_heads_q * head_dim], dtype of qkv */
    const DLTensor *k_weight; /* [num_heads_k * head_dim], dtype of qkv */
    int64_t ppf, pph, ppw;    /* frames, lines and columns of a sequence; >= 1 */
    int64_t num_frame_channels, num_height_channels, num_width_channels; /* even; together head_dim */
    int64_t num_heads_q, num_heads_k, num_heads_v;                       /* 1 to 32 */
    int64_t head_dim;             /* 64, 128 or 256 */
    double eps;                   /* >= 1e-30; 0: 1e-6 */
    double base;                  /* 1 to 1e12; 0: 10000 */
    flashinfer_number interleave; /* 1: pairs are (2i, 2i+1); 0: (i, head_dim/2 + i); absent: 1 */
    double factor;                /* 1e-6 to 1e6, of YaRN; 0: 1, which leaves frequencies as they are */
    double low, high;             /* 0 to 1e6, of YaRN */
    double attention_factor;      /* 1e-6 to 1e6, of q_out and k_out; 0: 1 */
    flashinfer_number is_qk_norm; /* 0: no norm; absent: 1 */
    double output_quant_scale;    /* 1e-30 to 1e30: q and k are multiplied by it if q_out is e4m3; 0: 1 */
    double v_quant_scale;         /* v likewise; 0: 1 */
};
FLASHINFER_DECLARE_OP(fused_qk_rmsnorm_rope);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_NORM_H */
