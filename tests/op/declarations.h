/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that exist as declarations only, to see that the grammar of declarations holds what hard ops need: optional outputs,
 * layouts that change shapes, packed elements, plans, a user's variant, workspaces, groups of ranks. Some have a real relative
 * by now (batch_prefill, add_rmsnorm_fp4quant); these stay as they are when that one changes. */
#ifndef DECLARATIONS_H
#define DECLARATIONS_H

#include "op/op.h"

typedef struct flashinfer_comm flashinfer_comm;

struct flashinfer_norm_fp4_sample {
    size_t size;
    DLTensor *y_fp4, *block_scale, *block_scale_unswizzled, *y_out;
    const DLTensor *input, *weight;
    flashinfer_number global_scale;
    double eps;
    int32_t block_size, scale_format, sf_layout, output_both_sf_layouts;
};

struct flashinfer_grouped_gemm_nt_masked {
    size_t size;
    DLTensor *out, *dst_signals;
    const DLTensor *lhs, *lhs_scale, *rhs, *rhs_scale, *masked_m, *alpha;
    int32_t ab_kind, sf_vec_size, sm_count, max_m_tiles;
};

struct flashinfer_paged_prefill_plan {
    size_t size;
    flashinfer_plan *plan;
    const DLTensor *qo_indptr, *paged_kv_indptr;
    int64_t max_batch_size, max_total_tokens, max_kv_len;
    int32_t num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo, page_size, causal, pos_encoding_mode, kv_layout;
    double sm_scale, logits_soft_cap, rope_scale, rope_theta;
    flashinfer_number window_left;
    DLDataType q_data_type, kv_data_type, o_data_type;
    int32_t fixed_split_size, disable_split_kv;
};

struct flashinfer_paged_prefill {
    size_t size;
    DLTensor *out, *lse;
    const DLTensor *q, *k_cache, *v_cache, *qo_indptr, *paged_kv_indptr, *paged_kv_indices, *paged_kv_last_page_len;
    const DLTensor *custom_mask, *mask_indptr, *sinks;
    flashinfer_number q_scale, k_scale, v_scale;
    const flashinfer_plan *plan;
};

struct flashinfer_top_k {
    size_t size;
    DLTensor *values, *indices;
    const DLTensor *input;
    int64_t k;
    int32_t sorted, deterministic, tie_break;
};

struct flashinfer_allreduce_fusion {
    size_t size;
    DLTensor *output, *residual_out, *norm_out, *quant_out, *scale_out;
    const DLTensor *input, *residual_in, *rms_gamma;
    double rms_eps, weight_bias;
    flashinfer_number scale_factor;
    int32_t pattern, layout_code, use_oneshot, fp32_acc;
    flashinfer_comm *comm;
};

struct flashinfer_sample {
    size_t size;
    DLTensor *out, *cache;
    const DLTensor *packed, *x, *dense, *indptr, *twice, *needs_pairs;
    flashinfer_number scale;
    double eps, offset, probability;
    flashinfer_number seed;
    int64_t count;
    flashinfer_number window;
    int32_t other_count, fast, layout;
    DLDataType out_dtype;
    const char *note;
};

extern const struct op op_norm_fp4_sample, op_grouped_gemm_nt_masked, op_paged_prefill_plan, op_paged_prefill, op_top_k,
    op_allreduce_fusion, op_sample;

#endif
