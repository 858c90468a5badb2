/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary position embedding. Of each head's first rotary_dim elements, pair i is turned by the angle
 *
 *     position * rope_theta^(-2 i / rotary_dim) / rope_scale        (x, y) -> (x cos - y sin, y cos + x sin)
 *
 * where pair i is (i, i + rotary_dim / 2), or (2 i, 2 i + 1) if interleave is set; the other elements stay as they are. Angles
 * are computed in float64 and reduced before they are rounded, so that positions of any size keep float32's accuracy; the
 * rotation is in float32, with one rounding at the end. NaN and infinity reach only their own pair. */
#ifndef FLASHINFER_ROPE_H
#define FLASHINFER_ROPE_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* q and k may be views, such as slices of one row of q, k and v. */
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

#ifdef __cplusplus
}
#endif
#endif /* FLASHINFER_ROPE_H */
