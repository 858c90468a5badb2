/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary position embedding. Of each head's first rotary_dim elements, pair i is turned by an angle
 *
 *     position * f(i)        (x, y) -> (x cos - y sin, y cos + x sin)
 *
 * where pair i is (i, i + rotary_dim / 2), or (2 i, 2 i + 1) if interleave is set; the other elements stay as they are. With
 * base(i) = rope_theta^(-2 i / rotary_dim),
 *
 *     apply_rope*            f(i) = base(i) / rope_scale
 *     apply_llama31_rope*    f(i) = base(i) * ((1 - s) / rope_scale + s),  s = (old_context_len * base(i) / (2 pi) -
 *                            low_freq_factor) / (high_freq_factor - low_freq_factor), at least 0 and at most 1
 *
 * Angles are computed in float64 and reduced before they are rounded, so that positions up to 2^30 keep float32's accuracy; the
 * rotation is in float32, with one rounding at the end. Other ops read cosines and sines. NaN and infinity reach only their own
 * pair. Outputs of e4m3 and e5m2 are what float32 holds, times a scale, rounded to nearest, ties to even; they saturate, and NaN
 * becomes NaN.
 *
 * q and k may be views, such as slices of one row of q, k and v. */
#ifndef FLASHINFER_ROPE_H
#define FLASHINFER_ROPE_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Token t of request b, indptr[b] <= t < indptr[b + 1], has position offsets[b] + t - indptr[b]; tokens of no request have
 * position 0. */
struct flashinfer_apply_rope {
    size_t size;
    DLTensor *q_rope;        /* [nnz, num_qo_heads, head_dim], dtype of q; may be q itself */
    DLTensor *k_rope;        /* [nnz, num_kv_heads, head_dim], dtype of q; may be k itself */
    const DLTensor *q;       /* [nnz, num_qo_heads, head_dim] f16 or bf16; head_dim is even */
    const DLTensor *k;       /* [nnz, num_kv_heads, head_dim], dtype of q */
    const DLTensor *indptr;  /* [batch + 1] i32 or i64, ascending: where the tokens of each request begin, and end */
    const DLTensor *offsets; /* [batch], dtype of indptr: the position of the first token of each request */
    int32_t rotary_dim;      /* even, at most head_dim; 0: head_dim */
    int32_t interleave;      /* 0: halves (NeoX); 1: neighbours (GPT-J) */
    double rope_scale;       /* >= 1e-6: positions are divided by it; 0: 1 */
    double rope_theta;       /* >= 1e-6: base of the frequencies; 0: 1e4 */
};
FLASHINFER_DECLARE_OP(apply_rope);

/* The same, in place. */
struct flashinfer_apply_rope_inplace {
    size_t size;
    DLTensor *q;             /* [nnz, num_qo_heads, head_dim] f16 or bf16; head_dim is even */
    DLTensor *k;             /* [nnz, num_kv_heads, head_dim], dtype of q */
    const DLTensor *indptr;  /* [batch + 1] i32 or i64, ascending: where the tokens of each request begin, and end */
    const DLTensor *offsets; /* [batch], dtype of indptr: the position of the first token of each request */
    int32_t rotary_dim;      /* even, at most head_dim; 0: head_dim */
    int32_t interleave;      /* 0: halves (NeoX); 1: neighbours (GPT-J) */
    double rope_scale;       /* >= 1e-6: positions are divided by it; 0: 1 */
    double rope_theta;       /* >= 1e-6: base of the frequencies; 0: 1e4 */
};
FLASHINFER_DECLARE_OP(apply_rope_inplace);

/* The same for tokens at given positions. */
struct flashinfer_apply_rope_pos_ids {
    size_t size;
    DLTensor *q_rope;        /* [nnz, num_qo_heads, head_dim], dtype of q; may be q itself */
    DLTensor *k_rope;        /* [nnz, num_kv_heads, head_dim], dtype of q; may be k itself */
    const DLTensor *q;       /* [nnz, num_qo_heads, head_dim] f16 or bf16; head_dim is even */
    const DLTensor *k;       /* [nnz, num_kv_heads, head_dim], dtype of q */
    const DLTensor *pos_ids; /* [nnz] i32 or i64: the position of each token */
    int32_t rotary_dim;      /* even, at most head_dim; 0: head_dim */
    int32_t interleave;      /* 0: halves (NeoX); 1: neighbours (GPT-J) */
    double rope_scale;       /* >= 1e-6: positions are divided by it; 0: 1 */
    double rope_theta;       /* >= 1e-6: base of the frequencies; 0: 1e4 */
};
FLASHINFER_DECLARE_OP(apply_rope_pos_ids);

/* The same, in place. */
struct flashinfer_apply_rope_pos_ids_inplace {
    size_t size;
    DLTensor *q;             /* [nnz, num_qo_heads, head_dim] f16 or bf16; head_dim is even */
    DLTensor *k;             /* [nnz, num_kv_heads, head_dim], dtype of q */
    const DLTensor *pos_ids; /* [nnz] i32 or i64: the position of each token */
    int32_t rotary_dim;      /* even, at most head_dim; 0: head_dim */
    int32_t interleave;      /* 0: halves (NeoX); 1: neighbours (GPT-J) */
    double rope_scale;       /* >= 1e-6: positions are divided by it; 0: 1 */
    double rope_theta;       /* >= 1e-6: base of the frequencies; 0: 1e4 */
};
FLASHINFER_DECLARE_OP(apply_rope_pos_ids_inplace);

/* apply_rope with the frequencies of Llama 3.1. */
struct flashinfer_apply_llama31_rope {
    size_t size;
    DLTensor *q_rope;        /* [nnz, num_qo_heads, head_dim], dtype of q; may be q itself */
    DLTensor *k_rope;        /* [nnz, num_kv_heads, head_dim], dtype of q; may be k itself */
    const DLTensor *q;       /* [nnz, num_qo_heads, head_dim] f16 or bf16; head_dim is even */
    const DLTensor *k;       /* [nnz, num_kv_heads, head_dim], dtype of q */
    const DLTensor *indptr;  /* [batch + 1] i32 or i64, ascending: where the tokens of each request begin, and end */
    const DLTensor *offsets; /* [batch], dtype of indptr: the position of the first token of each request */
    int32_t rotary_dim;      /* even, at most head_dim; 0: head_dim */
    int32_t interleave;      /* 0: halves (NeoX); 1: neighbours (GPT-J) */
    double rope_scale;       /* >= 1e-6: positions are divided by it; 0: 8 */
    double rope_theta;       /* >= 1e-6: base of the frequencies; 0: 5e5 */
    double low_freq_factor;  /* >= 1e-6; 0: 1 */
    double high_freq_factor; /* above low_freq_factor; 0: 4 */
    double old_context_len;  /* >= 1; 0: 8192 */
};
FLASHINFER_DECLARE_OP(apply_llama31_rope);

/* The same, in place. */
struct flashinfer_apply_llama31_rope_inplace {
    size_t size;
    DLTensor *q;             /* [nnz, num_qo_heads, head_dim] f16 or bf16; head_dim is even */
    DLTensor *k;             /* [nnz, num_kv_heads, head_dim], dtype of q */
    const DLTensor *indptr;  /* [batch + 1] i32 or i64, ascending: where the tokens of each request begin, and end */
    const DLTensor *offsets; /* [batch], dtype of indptr: the position of the first token of each request */
    int32_t rotary_dim;      /* even, at most head_dim; 0: head_dim */
    int32_t interleave;      /* 0: halves (NeoX); 1: neighbours (GPT-J) */
    double rope_scale;       /* >= 1e-6: positions are divided by it; 0: 8 */
    double rope_theta;       /* >= 1e-6: base of the frequencies; 0: 5e5 */
    double low_freq_factor;  /* >= 1e-6; 0: 1 */
    double high_freq_factor; /* above low_freq_factor; 0: 4 */
    double old_context_len;  /* >= 1; 0: 8192 */
};
FLASHINFER_DECLARE_OP(apply_llama31_rope_inplace);

/* The same for tokens at given positions. */
struct flashinfer_apply_llama31_rope_pos_ids {
    size_t size;
    DLTensor *q_rope;        /* [nnz, num_qo_heads, head_dim], dtype of q; may be q itself */
    DLTensor *k_rope;        /* [nnz, num_kv_heads, head_dim], dtype of q; may be k itself */
    const DLTensor *q;       /* [nnz, num_qo_heads, head_dim] f16 or bf16; head_dim is even */
    const DLTensor *k;       /* [nnz, num_kv_heads, head_dim], dtype of q */
    const DLTensor *pos_ids; /* [nnz] i32 or i64: the position of each token */
    int32_t rotary_dim;      /* even, at most head_dim; 0: head_dim */
    int32_t interleave;      /* 0: halves (NeoX); 1: neighbours (GPT-J) */
    double rope_scale;       /* >= 1e-6: positions are divided by it; 0: 8 */
    double rope_theta;       /* >= 1e-6: base of the frequencies; 0: 5e5 */
    double low_freq_factor;  /* >= 1e-6; 0: 1 */
    double high_freq_factor; /* above low_freq_factor; 0: 4 */
    double old_context_len;  /* >= 1; 0: 8192 */
};
FLASHINFER_DECLARE_OP(apply_llama31_rope_pos_ids);

/* The same, in place. */
struct flashinfer_apply_llama31_rope_pos_ids_inplace {
    size_t size;
    DLTensor *q;             /* [nnz, num_qo_heads, head_dim] f16 or bf16; head_dim is even */
    DLTensor *k;             /* [nnz, num_kv_heads, head_dim], dtype of q */
    const DLTensor *pos_ids; /* [nnz] i32 or i64: the position of each token */
    int32_t rotary_dim;      /* even, at most head_dim; 0: head_dim */
    int32_t interleave;      /* 0: halves (NeoX); 1: neighbours (GPT-J) */
    double rope_scale;       /* >= 1e-6: positions are divided by it; 0: 8 */
    double rope_theta;       /* >= 1e-6: base of the frequencies; 0: 5e5 */
    double low_freq_factor;  /* >= 1e-6; 0: 1 */
    double high_freq_factor; /* above low_freq_factor; 0: 4 */
    double old_context_len;  /* >= 1; 0: 8192 */
};
FLASHINFER_DECLARE_OP(apply_llama31_rope_pos_ids_inplace);

/* Cosines and sines are read from a table. rotary_dim is even and at most head_size. */
struct flashinfer_apply_rope_with_cos_sin_cache {
    size_t size;
    DLTensor *query_out;           /* [nnz, num_qo_heads * head_size], dtype of query; may be query itself */
    DLTensor *key_out;             /* [nnz, num_kv_heads * head_size], dtype of query; may be key itself */
    const DLTensor *positions;     /* [nnz] i32 or i64: the position of each token, a row of cos_sin_cache */
    const DLTensor *query;         /* [nnz, num_qo_heads * head_size] f16 or bf16 */
    const DLTensor *key;           /* [nnz, num_kv_heads * head_size], dtype of query */
    int32_t head_size;             /* >= 1: elements of a head */
    const DLTensor *cos_sin_cache; /* [max_positions, rotary_dim] f32: rotary_dim / 2 cosines, then as many sines */
    int32_t interleave;            /* 0: halves (NeoX); 1: neighbours (GPT-J); upstream's is_neox, negated */
};
FLASHINFER_DECLARE_OP(apply_rope_with_cos_sin_cache);

/* The same, in place. */
struct flashinfer_apply_rope_with_cos_sin_cache_inplace {
    size_t size;
    DLTensor *query;               /* [nnz, num_qo_heads * head_size] f16 or bf16 */
    DLTensor *key;                 /* [nnz, num_kv_heads * head_size], dtype of query */
    const DLTensor *positions;     /* [nnz] i32 or i64: the position of each token, a row of cos_sin_cache */
    int32_t head_size;             /* >= 1: elements of a head */
    const DLTensor *cos_sin_cache; /* [max_positions, rotary_dim] f32: rotary_dim / 2 cosines, then as many sines */
    int32_t interleave;            /* 0: halves (NeoX); 1: neighbours (GPT-J); upstream's is_neox, negated */
};
FLASHINFER_DECLARE_OP(apply_rope_with_cos_sin_cache_inplace);

/* The heads of attention in two parts, each a tensor of its own: rotary_dim elements that are rotated, others that are not. All
 * are multiplied with quant_scale_q or quant_scale_kv and rounded. Parts that do not turn may be absent, and their outputs. */
struct flashinfer_rope_quantize_fp8 {
    size_t size;
    DLTensor *q_rope_out;          /* [nnz, num_qo_heads, rotary_dim] e4m3 or e5m2 */
    DLTensor *k_rope_out;          /* [nnz, num_kv_heads, rotary_dim], dtype of q_rope_out, as all outputs */
    DLTensor *q_nope_out;          /* optional: [nnz, num_qo_heads, q_nope_dim] */
    DLTensor *k_nope_out;          /* optional: [nnz, num_kv_heads, k_nope_dim] */
    const DLTensor *q_rope;        /* [nnz, num_qo_heads, rotary_dim] f16 or bf16; rotary_dim is even */
    const DLTensor *k_rope;        /* [nnz, num_kv_heads, rotary_dim], dtype of q_rope, as all inputs */
    const DLTensor *q_nope;        /* optional: [nnz, num_qo_heads, q_nope_dim] */
    const DLTensor *k_nope;        /* optional: [nnz, num_kv_heads, k_nope_dim] */
    const DLTensor *cos_sin_cache; /* [max_positions, rotary_dim] f32: rotary_dim / 2 cosines, then as many sines */
    const DLTensor *pos_ids;       /* [nnz] i32 or i64: the position of each token, a row of cos_sin_cache */
    int32_t interleave;            /* 0: halves (NeoX); 1: neighbours (GPT-J); upstream's is_neox, negated */
    double quant_scale_q;          /* >= 1e-30; 0: 1 */
    double quant_scale_kv;         /* >= 1e-30; 0: 1 */
};
FLASHINFER_DECLARE_OP(rope_quantize_fp8);

/* The same for multi-head latent attention, whose keys are one head: without an axis for it. */
struct flashinfer_mla_rope_quantize_fp8 {
    size_t size;
    DLTensor *q_rope_out;          /* [nnz, num_qo_heads, rotary_dim] e4m3 or e5m2 */
    DLTensor *k_rope_out;          /* [nnz, rotary_dim], dtype of q_rope_out, as all outputs */
    DLTensor *q_nope_out;          /* optional: [nnz, num_qo_heads, q_nope_dim] */
    DLTensor *k_nope_out;          /* optional: [nnz, k_nope_dim] */
    const DLTensor *q_rope;        /* [nnz, num_qo_heads, rotary_dim] f16 or bf16; rotary_dim is even */
    const DLTensor *k_rope;        /* [nnz, rotary_dim], dtype of q_rope, as all inputs */
    const DLTensor *q_nope;        /* optional: [nnz, num_qo_heads, q_nope_dim] */
    const DLTensor *k_nope;        /* optional: [nnz, k_nope_dim] */
    const DLTensor *cos_sin_cache; /* [max_positions, rotary_dim] f32: rotary_dim / 2 cosines, then as many sines */
    const DLTensor *pos_ids;       /* [nnz] i32 or i64: the position of each token, a row of cos_sin_cache */
    int32_t interleave;            /* 0: halves (NeoX); 1: neighbours (GPT-J); upstream's is_neox, negated */
    double quant_scale_q;          /* >= 1e-30; 0: 1 */
    double quant_scale_kv;         /* >= 1e-30; 0: 1 */
};
FLASHINFER_DECLARE_OP(mla_rope_quantize_fp8);

/* rope_quantize_fp8 that writes keys, and values, which are scaled and rounded, to their slots in a paged cache
 * (flashinfer/page.h says which these are); elements of a key are those that were rotated, then the others. Tokens whose batch
 * index is below 0 are skipped: nothing of them is written, not even q. */
struct flashinfer_rope_quantize_fp8_append_paged_kv_cache {
    size_t size;
    DLTensor *q_rope_out;          /* [nnz, num_qo_heads, rotary_dim] e4m3 or e5m2; written in part */
    DLTensor *q_nope_out;          /* optional: [nnz, num_qo_heads, nope_dim], dtype of q_rope_out, as all outputs; in part */
    DLTensor *k_cache;             /* NHD: [pages, page_size, num_kv_heads, rotary_dim + nope_dim]; HND: heads before slots */
    DLTensor *v_cache;             /* NHD: [pages, page_size, num_kv_heads, v_dim]; HND: heads before slots */
    const DLTensor *q_rope;        /* [nnz, num_qo_heads, rotary_dim] f16 or bf16; rotary_dim is even */
    const DLTensor *k_rope;        /* [nnz, num_kv_heads, rotary_dim], dtype of q_rope, as all inputs */
    const DLTensor *q_nope;        /* optional: [nnz, num_qo_heads, nope_dim] */
    const DLTensor *k_nope;        /* optional, absent where nope_dim is 0: [nnz, num_kv_heads, nope_dim] */
    const DLTensor *v;             /* [nnz, num_kv_heads, v_dim] */
    const DLTensor *cos_sin_cache; /* [max_positions, rotary_dim] f32: rotary_dim / 2 cosines, then as many sines */
    const DLTensor *pos_ids;       /* [nnz] i32 or i64: the position of each token, a row of cos_sin_cache */
    const DLTensor *kv_indices;    /* [any] i32: ids of pages */
    const DLTensor *kv_indptr;     /* [batch + 1] i32, into kv_indices */
    const DLTensor *batch_indices; /* [nnz] i32: each token's request, below batch; below 0: the token is skipped */
    const DLTensor *positions;     /* [nnz] i32: its place in the request, >= 0 */
    int32_t interleave;            /* 0: halves (NeoX); 1: neighbours (GPT-J); upstream's is_neox, negated */
    double quant_scale_q;          /* >= 1e-30; 0: 1 */
    double quant_scale_kv;         /* >= 1e-30; 0: 1 */
    int32_t kv_layout;             /* FLASHINFER_NHD, FLASHINFER_HND; page_size is that of the caches */
};
FLASHINFER_DECLARE_OP(rope_quantize_fp8_append_paged_kv_cache);

/* The same for multi-head latent attention; in upstream a form of the op above. */
struct flashinfer_rope_quantize_fp8_append_paged_mla_kv_cache {
    size_t size;
    DLTensor *q_rope_out;          /* [nnz, num_qo_heads, rotary_dim] e4m3 or e5m2; written in part */
    DLTensor *q_nope_out;          /* [nnz, num_qo_heads, nope_dim], dtype of q_rope_out, as all outputs; written in part */
    DLTensor *ckv_cache;           /* [pages, page_size, nope_dim] */
    DLTensor *kpe_cache;           /* [pages, page_size, rotary_dim] */
    const DLTensor *q_rope;        /* [nnz, num_qo_heads, rotary_dim] f16 or bf16; rotary_dim is even */
    const DLTensor *k_rope;        /* [nnz, rotary_dim], dtype of q_rope, as all inputs */
    const DLTensor *q_nope;        /* [nnz, num_qo_heads, nope_dim] */
    const DLTensor *k_nope;        /* [nnz, nope_dim] */
    const DLTensor *cos_sin_cache; /* [max_positions, rotary_dim] f32: rotary_dim / 2 cosines, then as many sines */
    const DLTensor *pos_ids;       /* [nnz] i32 or i64: the position of each token, a row of cos_sin_cache */
    const DLTensor *kv_indices;    /* [any] i32: ids of pages */
    const DLTensor *kv_indptr;     /* [batch + 1] i32, into kv_indices */
    const DLTensor *batch_indices; /* [nnz] i32: each token's request, below batch; below 0: the token is skipped */
    const DLTensor *positions;     /* [nnz] i32: its place in the request, >= 0 */
    int32_t interleave;            /* 0: halves (NeoX); 1: neighbours (GPT-J); upstream's is_neox, negated */
    double quant_scale_q;          /* >= 1e-30; 0: 1 */
    double quant_scale_kv;         /* >= 1e-30; 0: 1 */
};
FLASHINFER_DECLARE_OP(rope_quantize_fp8_append_paged_mla_kv_cache);

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_ROPE_H */
