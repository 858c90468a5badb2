/* SPDX-License-Identifier: Apache-2.0 */
/* One right call of every op on small CPU tensors, to be spoiled one argument at a time. All memory that a call may touch lies in
 * one place, filled with one byte: a refused call must leave it so. */
#ifndef TESTS_OPS_RIGHT_CALLS_H
#define TESTS_OPS_RIGHT_CALLS_H

#include "core/dtype.h"
#include "flashinfer/flashinfer.h"

enum { ROWS = 3, HIDDEN = 64, QO_HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64, PAGES = 6, PAGE_SIZE = 4, BATCH = 2, VOCAB = 32 };

struct right_calls {
    flashinfer_exec exec;                                 /* of all of them */
    flashinfer_plan prefill_plan, decode_plan, *new_plan; /* new_plan lies in the memory: the plan ops would write it */
    struct {
        struct flashinfer_rmsnorm args;
        DLTensor out, input, weight;
    } rmsnorm;
    struct {
        struct flashinfer_fused_add_rmsnorm args;
        DLTensor input, residual, weight;
    } fused_add_rmsnorm;
    struct {
        struct flashinfer_silu_and_mul args;
        DLTensor out, input;
    } silu_and_mul;
    struct {
        struct flashinfer_apply_rope_pos_ids args;
        DLTensor q_rope, k_rope, q, k, pos_ids;
    } apply_rope_pos_ids;
    struct {
        struct flashinfer_apply_rope_pos_ids_inplace args;
        DLTensor q, k, pos_ids;
    } apply_rope_pos_ids_inplace;
    struct {
        struct flashinfer_append_paged_kv_cache args;
        DLTensor k_cache, v_cache, append_key, append_value, batch_indices, positions, kv_indices, kv_indptr, kv_last_page_len;
    } append_paged_kv_cache;
    struct {
        struct flashinfer_get_batch_indices_positions args;
        DLTensor batch_indices, positions, append_indptr, seq_lens;
    } get_batch_indices_positions;
    struct {
        struct flashinfer_mm args;
        DLTensor out, a, b, bias;
    } mm;
    struct {
        struct flashinfer_batch_prefill_plan args;
        DLTensor qo_indptr;
    } batch_prefill_plan;
    struct {
        struct flashinfer_batch_prefill args;
        DLTensor out, lse, q, k_cache, v_cache, qo_indptr, kv_indptr, kv_indices, kv_last_page_len, sinks, scale;
    } batch_prefill;
    struct {
        struct flashinfer_batch_decode_plan args;
        DLTensor kv_indptr;
    } batch_decode_plan;
    struct {
        struct flashinfer_batch_decode args;
        DLTensor out, lse, q, k_cache, v_cache, kv_indptr, kv_indices, kv_last_page_len, sinks, scale;
    } batch_decode;
    struct {
        struct flashinfer_softmax args;
        DLTensor out, logits, temperature;
    } softmax;
    struct {
        struct flashinfer_sampling_from_probs args;
        DLTensor samples, valid, probs, indices, seed;
    } sampling_from_probs;
    struct {
        struct flashinfer_top_k_top_p_sampling_from_probs args;
        DLTensor samples, valid, probs, top_k, top_p;
    } top_k_top_p_sampling_from_probs;
};

/* Makes all calls right again, and their memory untouched. */
void right_calls_reset(struct right_calls *c);

/* False if a byte was written since. */
bool right_calls_untouched(void);

#endif
