/* SPDX-License-Identifier: Apache-2.0 */
/* The right calls: tensors one behind the other in one memory, each with room for as much again behind it. */
#include "tests/ops/right_calls.h"

#include <stdlib.h>
#include <string.h>

enum { MEMORY = 1 << 19, ALIGNMENT = 256, MAX_TENSORS = 100, MAX_AXES = 5, UNTOUCHED = 0xa5 };

static _Alignas(ALIGNMENT) unsigned char memory[MEMORY];
static int64_t shapes[MAX_TENSORS][MAX_AXES];
static size_t used;
static int num_tensors;

static void *take(size_t bytes)
{
    void *here = memory + used;
    used += (2 * bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    if (used > MEMORY || num_tensors == MAX_TENSORS)
        abort();
    return here;
}

static DLTensor tensor(enum dtype dtype, int ndim, const int64_t *sizes)
{
    size_t bytes = (size_t)dtype_bytes(dtype);
    int64_t *shape = shapes[num_tensors++];
    for (int i = 0; i < ndim; i++) {
        shape[i] = sizes[i];
        bytes *= (size_t)sizes[i];
    }
    return (DLTensor){.data = take(bytes), .device = {kDLCPU, 0}, .ndim = ndim, .dtype = dtype_dlpack(dtype), .shape = shape};
}

#define TENSOR(dtype, ...) \
    tensor(DTYPE_##dtype, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (const int64_t[]){__VA_ARGS__})

/* SET(op, field, F16, 3, 64) lays out a tensor and gives it to the call; ARGS(op, .eps = 1) begins the call. */
#define SET(op, field, ...) (c->op.field = TENSOR(__VA_ARGS__), c->op.args.field = &c->op.field)
#define ARGS(op, ...)                          \
    c->op.args = (struct flashinfer_##op)      \
    {                                          \
        .size = sizeof c->op.args, __VA_ARGS__ \
    }

static void set_norm(struct right_calls *c)
{
    ARGS(rmsnorm, .eps = 1e-5);
    SET(rmsnorm, out, F16, ROWS, HIDDEN);
    SET(rmsnorm, input, F16, ROWS, HIDDEN);
    SET(rmsnorm, weight, F16, HIDDEN);
    ARGS(fused_add_rmsnorm, .eps = 1e-5);
    SET(fused_add_rmsnorm, input, F16, ROWS, HIDDEN);
    SET(fused_add_rmsnorm, residual, F16, ROWS, HIDDEN);
    SET(fused_add_rmsnorm, weight, F16, HIDDEN);
    ARGS(silu_and_mul, );
    SET(silu_and_mul, out, BF16, ROWS, HIDDEN);
    SET(silu_and_mul, input, BF16, ROWS, 2 * HIDDEN);
    ARGS(mm, );
    SET(mm, out, F16, ROWS, VOCAB);
    SET(mm, a, F16, ROWS, HIDDEN);
    SET(mm, b, F16, HIDDEN, VOCAB);
    SET(mm, bias, F16, VOCAB);
}

static void set_rope(struct right_calls *c)
{
    ARGS(apply_rope_pos_ids, );
    SET(apply_rope_pos_ids, q_rope, F16, ROWS, QO_HEADS, HEAD_DIM);
    SET(apply_rope_pos_ids, k_rope, F16, ROWS, KV_HEADS, HEAD_DIM);
    SET(apply_rope_pos_ids, q, F16, ROWS, QO_HEADS, HEAD_DIM);
    SET(apply_rope_pos_ids, k, F16, ROWS, KV_HEADS, HEAD_DIM);
    SET(apply_rope_pos_ids, pos_ids, I32, ROWS);
    ARGS(apply_rope_pos_ids_inplace, );
    SET(apply_rope_pos_ids_inplace, q, F16, ROWS, QO_HEADS, HEAD_DIM);
    SET(apply_rope_pos_ids_inplace, k, F16, ROWS, KV_HEADS, HEAD_DIM);
    SET(apply_rope_pos_ids_inplace, pos_ids, I64, ROWS);
}

static void set_page(struct right_calls *c)
{
    ARGS(append_paged_kv_cache, );
    SET(append_paged_kv_cache, k_cache, F16, PAGES, PAGE_SIZE, KV_HEADS, HEAD_DIM);
    SET(append_paged_kv_cache, v_cache, F16, PAGES, PAGE_SIZE, KV_HEADS, HEAD_DIM);
    SET(append_paged_kv_cache, append_key, F16, ROWS, KV_HEADS, HEAD_DIM);
    SET(append_paged_kv_cache, append_value, F16, ROWS, KV_HEADS, HEAD_DIM);
    SET(append_paged_kv_cache, batch_indices, I32, ROWS);
    SET(append_paged_kv_cache, positions, I32, ROWS);
    SET(append_paged_kv_cache, kv_indices, I32, PAGES);
    SET(append_paged_kv_cache, kv_indptr, I32, BATCH + 1);
    SET(append_paged_kv_cache, kv_last_page_len, I32, BATCH);
    ARGS(get_batch_indices_positions, .nnz = ROWS);
    SET(get_batch_indices_positions, batch_indices, I32, ROWS);
    SET(get_batch_indices_positions, positions, I32, ROWS);
    SET(get_batch_indices_positions, append_indptr, I32, BATCH + 1);
    SET(get_batch_indices_positions, seq_lens, I32, BATCH);
}

static void set_prefill(struct right_calls *c)
{
    ARGS(batch_prefill_plan, .plan = &c->prefill_plan, .max_total_qo = ROWS, .max_batch_size = BATCH, .num_qo_heads = QO_HEADS,
         .num_kv_heads = KV_HEADS, .head_dim_qk = HEAD_DIM, .page_size = PAGE_SIZE, .causal = 1);
    flashinfer_batch_prefill_plan(&c->batch_prefill_plan.args, &c->exec);
    c->batch_prefill_plan.args.plan = c->new_plan;
    SET(batch_prefill_plan, qo_indptr, I32, BATCH + 1);
    c->batch_prefill_plan.args.qo_indptr = NULL;
    ARGS(batch_prefill, .plan = &c->prefill_plan);
    SET(batch_prefill, out, F16, ROWS, QO_HEADS, HEAD_DIM);
    SET(batch_prefill, lse, F32, ROWS, QO_HEADS);
    SET(batch_prefill, q, F16, ROWS, QO_HEADS, HEAD_DIM);
    SET(batch_prefill, k_cache, F16, PAGES, PAGE_SIZE, KV_HEADS, HEAD_DIM);
    SET(batch_prefill, v_cache, F16, PAGES, PAGE_SIZE, KV_HEADS, HEAD_DIM);
    SET(batch_prefill, qo_indptr, I32, BATCH + 1);
    SET(batch_prefill, kv_indptr, I32, BATCH + 1);
    SET(batch_prefill, kv_indices, I32, PAGES);
    SET(batch_prefill, kv_last_page_len, I32, BATCH);
    SET(batch_prefill, sinks, F32, QO_HEADS);
    c->batch_prefill.scale = TENSOR(F32, 1);
}

static void set_decode(struct right_calls *c)
{
    ARGS(batch_decode_plan, .plan = &c->decode_plan, .max_batch_size = BATCH, .num_qo_heads = QO_HEADS, .num_kv_heads = KV_HEADS,
         .head_dim = HEAD_DIM, .page_size = PAGE_SIZE);
    flashinfer_batch_decode_plan(&c->batch_decode_plan.args, &c->exec);
    c->batch_decode_plan.args.plan = c->new_plan;
    SET(batch_decode_plan, kv_indptr, I32, BATCH + 1);
    c->batch_decode_plan.args.kv_indptr = NULL;
    ARGS(batch_decode, .plan = &c->decode_plan);
    SET(batch_decode, out, F16, BATCH, QO_HEADS, HEAD_DIM);
    SET(batch_decode, lse, F32, BATCH, QO_HEADS);
    SET(batch_decode, q, F16, BATCH, QO_HEADS, HEAD_DIM);
    SET(batch_decode, k_cache, F16, PAGES, PAGE_SIZE, KV_HEADS, HEAD_DIM);
    SET(batch_decode, v_cache, F16, PAGES, PAGE_SIZE, KV_HEADS, HEAD_DIM);
    SET(batch_decode, kv_indptr, I32, BATCH + 1);
    SET(batch_decode, kv_indices, I32, PAGES);
    SET(batch_decode, kv_last_page_len, I32, BATCH);
    SET(batch_decode, sinks, F32, QO_HEADS);
    c->batch_decode.scale = TENSOR(F32, 1);
}

static void set_sampling(struct right_calls *c)
{
    ARGS(softmax, );
    SET(softmax, out, F32, ROWS, VOCAB);
    SET(softmax, logits, F32, ROWS, VOCAB);
    c->softmax.temperature = TENSOR(F32, ROWS);
    ARGS(sampling_from_probs, .seed = FLASHINFER_INT(7));
    SET(sampling_from_probs, samples, I32, ROWS);
    SET(sampling_from_probs, valid, BOOL, ROWS);
    SET(sampling_from_probs, probs, F32, ROWS, VOCAB);
    SET(sampling_from_probs, indices, I32, ROWS);
    c->sampling_from_probs.seed = TENSOR(I64, ROWS);
    ARGS(top_k_top_p_sampling_from_probs, .top_k = FLASHINFER_INT(5), .top_p = FLASHINFER_FLOAT(0.9));
    SET(top_k_top_p_sampling_from_probs, samples, I64, ROWS);
    SET(top_k_top_p_sampling_from_probs, valid, BOOL, ROWS);
    SET(top_k_top_p_sampling_from_probs, probs, F32, ROWS, VOCAB);
    c->top_k_top_p_sampling_from_probs.top_k = TENSOR(I32, ROWS);
    c->top_k_top_p_sampling_from_probs.top_p = TENSOR(F32, ROWS);
}

void right_calls_reset(struct right_calls *c)
{
    used = 0;
    num_tensors = 0;
    memset(memory, UNTOUCHED, sizeof memory);
    *c = (struct right_calls){.exec = {.size = sizeof c->exec, .device = {kDLCPU, 0}}, .new_plan = take(sizeof *c->new_plan)};
    set_norm(c);
    set_rope(c);
    set_page(c);
    set_prefill(c);
    set_decode(c);
    set_sampling(c);
}

bool right_calls_untouched(void)
{
    for (size_t i = 0; i < sizeof memory; i++)
        if (memory[i] != UNTOUCHED)
            return false;
    return true;
}
