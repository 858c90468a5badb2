/* SPDX-License-Identifier: Apache-2.0 */
/* Bad input to every op, through the public entries: each line spoils one right call and says the sentence that refuses it.
 * Nothing may have been written then. What the checker refuses whatever the op is tested in tests/op/test_check.c. */
#include "op/op.h"
#include "tests/ops/right_calls.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h> /* last: it makes fail() a macro */

static struct right_calls c;

static void refused(const char *op, const void *args, const flashinfer_exec *exec, flashinfer_status status, const char *sentence,
                    int line)
{
    flashinfer_status got = flashinfer_call(op, args, exec);
    bool untouched = right_calls_untouched();
    if (got == status && untouched && !strcmp(flashinfer_last_error(), sentence))
        return;
    print_error("got      %s \"%s\"\nexpected %s \"%s\"%s\n", flashinfer_status_name(got), got ? flashinfer_last_error() : "",
                flashinfer_status_name(status), sentence, untouched ? "" : "\nand memory was written");
    _fail(__FILE__, line);
}

/* `spoil` sees the right call as `t`, and `exec`. The sentence begins with the op's name. */
#define REFUSED_AS(status, op, spoil, sentence)                                         \
    do {                                                                                \
        __typeof__(c.op) *t = &c.op;                                                    \
        flashinfer_exec *exec = &c.exec;                                                \
        right_calls_reset(&c);                                                          \
        spoil;                                                                          \
        refused(#op, &t->args, exec, FLASHINFER_##status, #op ": " sentence, __LINE__); \
    } while (0)
#define REFUSED(op, spoil, sentence) REFUSED_AS(INVALID, op, spoil, sentence)
#define UNSUPPORTED(op, spoil, sentence) REFUSED_AS(UNSUPPORTED, op, spoil, sentence)

#define CUDA(ordinal) ((DLDevice){kDLCUDA, ordinal})
#define TYPE(type) dtype_dlpack(DTYPE_##type)
#define STRIDES(...) ((int64_t[]){__VA_ARGS__})
#define VALUE(kind, number) ((flashinfer_number)FLASHINFER_##kind(number))

static void after(DLTensor *tensor, const DLTensor *other, ptrdiff_t bytes)
{
    tensor->data = (char *)other->data + bytes;
}

static void test_right(void **state)
{
    (void)state;
    size_t bytes;
    right_calls_reset(&c);
#define RIGHT(op) assert_int_equal(flashinfer_workspace_size(#op, &c.op.args, &c.exec, &bytes), FLASHINFER_OK)
    RIGHT(rmsnorm);
    RIGHT(fused_add_rmsnorm);
    RIGHT(silu_and_mul);
    RIGHT(apply_rope_pos_ids);
    RIGHT(apply_rope_pos_ids_inplace);
    RIGHT(append_paged_kv_cache);
    RIGHT(get_batch_indices_positions);
    RIGHT(mm);
    RIGHT(batch_prefill_plan);
    RIGHT(batch_prefill);
    RIGHT(batch_decode_plan);
    RIGHT(batch_decode);
    RIGHT(softmax);
    RIGHT(sampling_from_probs);
    RIGHT(top_k_top_p_sampling_from_probs);
    assert_true(right_calls_untouched());
}

static void test_norm_and_activation(void **state)
{
    (void)state;
    REFUSED(rmsnorm, t->input.dtype = TYPE(I32), "input is i32, must be one of f16, bf16, f32");
    REFUSED(rmsnorm, t->args.eps = -1e-6, "eps is -1e-06, must be at least 1e-30 and finite");
    REFUSED(rmsnorm, t->args.eps = 1e-31, "eps is 1e-31, must be at least 1e-30 and finite");
    REFUSED(rmsnorm, t->input.shape[1] = t->out.shape[1] = t->weight.shape[0] = 0,
            "hidden > 0 does not hold: hidden = 0 (from input)");
    REFUSED(fused_add_rmsnorm, t->residual.dtype = TYPE(I32), "residual is i32, must be f16 as input, or f32");
    REFUSED(fused_add_rmsnorm, t->residual.dtype = TYPE(BF16), "residual is bf16, must be f16 as input, or f32");
    REFUSED(fused_add_rmsnorm, t->residual.shape[0]++,
            "residual has shape [4, 64], must be [..., hidden] with ... = [3] (from input), hidden = 64 (from input)");
    REFUSED(fused_add_rmsnorm, t->residual.strides = STRIDES(32, 1),
            "residual has shape [3, 64] and strides [32, 1]: elements of an output must not overlap");
    REFUSED(fused_add_rmsnorm, t->residual = t->input, "residual overlaps input, must share no memory with it");
    REFUSED(silu_and_mul, t->input.dtype = TYPE(I32), "input is i32, must be one of f16, bf16");
    REFUSED(silu_and_mul, t->out.dtype = TYPE(F16), "out is f16, must be bf16 as input, or one of e4m3, e5m2");
    REFUSED(silu_and_mul, t->input.shape[1] = 2 * HIDDEN - 1,
            "input has shape [3, 127], must be [..., 2*intermediate] with ... = [3] (from input)");
    REFUSED(silu_and_mul, t->out.shape[1] = HIDDEN / 2,
            "out has shape [3, 32], must be [..., intermediate] with ... = [3] (from input), intermediate = 64 (from input)");
    REFUSED(silu_and_mul, t->out.ndim = 1,
            "out has shape [3], must be [..., intermediate] with ... = [3] (from input), intermediate = 64 (from input)");
    REFUSED(silu_and_mul, t->input.strides = STRIDES(2 * HIDDEN, 2),
            "input has shape [3, 128] and strides [128, 2]: the last axis must have stride 1");
    REFUSED(silu_and_mul, t->out.data = t->input.data, "out overlaps input, must share no memory with it");
    REFUSED(silu_and_mul, t->out.data = NULL, "out.data is NULL, but it has elements");
    REFUSED(silu_and_mul, t->args.input = NULL, "input is NULL, must be given");
    REFUSED(silu_and_mul, t->out.device = CUDA(0), "out is on cuda:0, must be on cpu as input");
}

static void test_rope(void **state)
{
    (void)state;
    REFUSED(apply_rope_pos_ids, t->args.q = NULL, "q is NULL, must be given");
    REFUSED(apply_rope_pos_ids, t->k.dtype = TYPE(BF16), "k is bf16, must be f16 as q");
    REFUSED(apply_rope_pos_ids, t->pos_ids.dtype = TYPE(F32), "pos_ids is f32, must be one of i32, i64");
    REFUSED(apply_rope_pos_ids, t->pos_ids.shape[0] = 2, "pos_ids has shape [2], must be [nnz] with nnz = 3 (from q)");
    REFUSED(apply_rope_pos_ids, t->k_rope.shape[1] = QO_HEADS,
            "k_rope has shape [3, 4, 64], must be [nnz, num_kv_heads, head_dim] with nnz = 3 (from q), num_kv_heads = 2 (from "
            "k), head_dim = 64 (from q)");
    REFUSED(apply_rope_pos_ids, t->q.ndim = 2, "q has shape [3, 4], must be [nnz, num_qo_heads, head_dim]");
    REFUSED(apply_rope_pos_ids, t->pos_ids.strides = STRIDES(2),
            "pos_ids has shape [3] and strides [2]: the last axis must have stride 1");
    REFUSED(apply_rope_pos_ids, t->args.rotary_dim = 7, "rotary_dim % 2 == 0 does not hold: rotary_dim = 7");
    REFUSED(apply_rope_pos_ids, t->args.rotary_dim = HEAD_DIM + 2,
            "rotary_dim <= head_dim does not hold: head_dim = 64 (from q), rotary_dim = 66");
    REFUSED(apply_rope_pos_ids, t->args.rotary_dim = -2, "rotary_dim is -2, must be at least 0");
    REFUSED(apply_rope_pos_ids, t->args.interleave = 2, "interleave is 2, must be 0 to 1");
    REFUSED(apply_rope_pos_ids, t->args.rope_scale = -1, "rope_scale is -1, must be at least 1e-06 and finite");
    REFUSED(apply_rope_pos_ids, t->args.rope_theta = NAN, "rope_theta is nan, must be at least 1e-06 and finite");
    REFUSED(apply_rope_pos_ids, t->k_rope.data = t->q_rope.data, "k_rope overlaps q_rope, must share no memory with it");
    REFUSED(apply_rope_pos_ids, after(&t->q_rope, &t->q, 2),
            "q_rope overlaps q, must be the very same tensor or share no memory with it");
    REFUSED(apply_rope_pos_ids, t->k_rope.data = t->q.data, "k_rope overlaps q, must share no memory with it");
    REFUSED(apply_rope_pos_ids, t->pos_ids.device = CUDA(0), "pos_ids is on cuda:0, must be on cpu as q");
    REFUSED(apply_rope_pos_ids_inplace, t->k.data = t->q.data, "k overlaps q, must share no memory with it");
    REFUSED(apply_rope_pos_ids_inplace, t->k.data = t->pos_ids.data, "k overlaps pos_ids, must share no memory with it");
    REFUSED(apply_rope_pos_ids_inplace, t->q.shape[2] = t->k.shape[2] = 63,
            "head_dim % 2 == 0 does not hold: head_dim = 63 (from q)");
    REFUSED(apply_rope_pos_ids_inplace, t->k.strides = STRIDES(HEAD_DIM, HEAD_DIM, 1),
            "k has shape [3, 2, 64] and strides [64, 64, 1]: elements of an output must not overlap");
}

static void test_page(void **state)
{
    (void)state;
    REFUSED(append_paged_kv_cache, t->k_cache.dtype = TYPE(I32),
            "k_cache is i32, must be one of f16, bf16, f32, e4m3, e5m2, u8, i8");
    REFUSED(append_paged_kv_cache, t->append_value.dtype = TYPE(BF16), "append_value is bf16, must be f16 as k_cache");
    REFUSED(append_paged_kv_cache, t->k_cache.ndim = 3,
            "k_cache has shape [6, 4, 2], must be [pages, page_size, num_kv_heads, head_dim] with kv_layout = 0 (NHD)");
    REFUSED(append_paged_kv_cache, t->args.kv_layout = FLASHINFER_HND,
            "append_key has shape [3, 2, 64], must be [nnz, num_kv_heads, head_dim] with num_kv_heads = 4 (from k_cache), "
            "head_dim = 64 (from k_cache), nnz = 3 (from append_key)");
    REFUSED(append_paged_kv_cache, t->args.kv_layout = -1, "kv_layout is -1, must be one of 0 (NHD), 1 (HND)");
    REFUSED(append_paged_kv_cache, t->v_cache.shape[0] = PAGES - 1,
            "v_cache has shape [5, 4, 2, 64], must be [pages, page_size, num_kv_heads, head_dim] with pages = 6 (from k_cache), "
            "page_size = 4 (from k_cache), num_kv_heads = 2 (from k_cache), head_dim = 64 (from k_cache), kv_layout = 0 (NHD)");
    REFUSED(append_paged_kv_cache, t->append_key.shape[2] = 32,
            "append_key has shape [3, 2, 32], must be [nnz, num_kv_heads, head_dim] with num_kv_heads = 2 (from k_cache), "
            "head_dim = 64 (from k_cache), nnz = 3 (from append_key)");
    REFUSED(append_paged_kv_cache, t->batch_indices.dtype = TYPE(I64), "batch_indices is i64, must be i32");
    REFUSED(append_paged_kv_cache, t->positions.shape[0] = ROWS + 1,
            "positions has shape [4], must be [nnz] with nnz = 3 (from append_key)");
    REFUSED(append_paged_kv_cache, t->kv_indptr.shape[0] = 0, "kv_indptr has shape [0], must be [batch+1]");
    REFUSED(append_paged_kv_cache, t->kv_last_page_len.shape[0] = BATCH + 1,
            "kv_last_page_len has shape [3], must be [batch] with batch = 2 (from kv_indptr)");
    REFUSED(append_paged_kv_cache, t->args.kv_indices = NULL, "kv_indices is NULL, must be given");
    REFUSED(append_paged_kv_cache, t->positions.device = CUDA(0), "positions is on cuda:0, must be on cpu as k_cache");
    REFUSED(append_paged_kv_cache, t->v_cache.data = t->k_cache.data, "v_cache overlaps k_cache, must share no memory with it");
    REFUSED(append_paged_kv_cache, t->append_key.data = t->k_cache.data,
            "k_cache overlaps append_key, must share no memory with it");
    REFUSED(append_paged_kv_cache, t->v_cache.strides = STRIDES(512, 64, 64, 1),
            "v_cache has shape [6, 4, 2, 64] and strides [512, 64, 64, 1]: elements of an output must not overlap");
    REFUSED(get_batch_indices_positions, t->args.nnz = -1, "nnz is -1, must be at least 0");
    REFUSED(get_batch_indices_positions, t->args.nnz = ROWS + 1, "batch_indices has shape [3], must be [nnz] with nnz = 4");
    REFUSED(get_batch_indices_positions, t->seq_lens.shape[0] = BATCH - 1,
            "seq_lens has shape [1], must be [batch] with batch = 2 (from append_indptr)");
    REFUSED(get_batch_indices_positions, t->append_indptr.dtype = TYPE(I64), "append_indptr is i64, must be i32");
    REFUSED(get_batch_indices_positions, t->positions.data = t->batch_indices.data,
            "positions overlaps batch_indices, must share no memory with it");
    REFUSED(get_batch_indices_positions, t->seq_lens.data = NULL, "seq_lens.data is NULL, but it has elements");
}

static void test_mm(void **state)
{
    (void)state;
    REFUSED(mm, t->a.dtype = TYPE(F32), "a is f32, must be one of f16, bf16");
    REFUSED(mm, t->b.dtype = TYPE(BF16), "b is bf16, must be f16 as a");
    REFUSED(mm, t->out.dtype = TYPE(I8), "out is i8, must be one of f16, bf16, f32");
    REFUSED(mm, t->b.shape[0] = HIDDEN - 1, "b has shape [63, 32], must be [k, n] with k = 64 (from a)");
    REFUSED(mm, t->bias.shape[0] = 1, "bias has shape [1], must be [n] with n = 32 (from b)");
    REFUSED(mm, t->out.shape[0] = ROWS + 1, "out has shape [4, 32], must be [m, n] with m = 3 (from a), n = 32 (from b)");
    REFUSED(mm, t->a.ndim = 1, "a has shape [3], must be [m, k]");
    REFUSED(mm, t->a.strides = STRIDES(1, ROWS), "a has shape [3, 64] and strides [1, 3]: the last axis must have stride 1");
    REFUSED(mm, t->out.strides = STRIDES(VOCAB / 2, 1),
            "out has shape [3, 32] and strides [16, 1]: elements of an output must not overlap");
    REFUSED(mm, t->b.strides = STRIDES(1, -HIDDEN), "b has shape [64, 32] and strides [1, -64]: strides must not be negative");
    REFUSED(mm, t->out.data = t->a.data, "out overlaps a, must share no memory with it");
    REFUSED(mm, after(&t->out, &t->bias, 2), "out overlaps bias, must share no memory with it");
    REFUSED(mm, t->args.b = NULL, "b is NULL, must be given");
    REFUSED(mm, t->b.device = CUDA(1), "b is on cuda:1, must be on cpu as a");
    REFUSED(
        mm, exec->kernel = "mm_sm75",
        "exec.kernel is \"mm_sm75\", must be one of: mm_small_m_sm80, mm_cublaslt, mm_sm80, mm_small_m_cpu, mm_cpu, mm_onednn");
    UNSUPPORTED(mm, exec->kernel = "mm_sm80",
                "the kernel named by exec.kernel does not serve this call: mm_sm80: runs on CUDA devices");
    UNSUPPORTED(mm, exec->kernel = "mm_small_m_cpu",
                "the kernel named by exec.kernel does not serve this call: mm_small_m_cpu: the columns of b are not contiguous");
}

static void test_plans(void **state)
{
    (void)state;
    REFUSED(batch_prefill_plan, exec->device = (DLDevice){0},
            "exec.device is not given, must name the device, since no argument tells it");
    REFUSED(batch_prefill_plan, t->args.plan = NULL, "plan is NULL, must be given");
    REFUSED(batch_prefill_plan, t->args.max_total_qo = 0, "max_total_qo is 0, must be at least 1");
    REFUSED(batch_prefill_plan, t->args.max_batch_size = -1, "max_batch_size is -1, must be at least 1");
    REFUSED(batch_prefill_plan, t->args.num_kv_heads = 3,
            "num_qo_heads % num_kv_heads == 0 does not hold: num_qo_heads = 4, num_kv_heads = 3");
    REFUSED(batch_prefill_plan, t->args.page_size = 0, "page_size is 0, must be at least 1");
    REFUSED(batch_prefill_plan, t->args.causal = 2, "causal is 2, must be 0 to 1");
    REFUSED(batch_prefill_plan, t->args.kv_layout = 2, "kv_layout is 2, must be one of 0 (NHD), 1 (HND)");
    REFUSED(batch_prefill_plan, t->args.pos_encoding_mode = 3,
            "pos_encoding_mode is 3, must be one of 0 (NONE), 1 (ROPE_LLAMA), 2 (ALIBI)");
    REFUSED(batch_prefill_plan, t->args.sm_scale = -0.125, "sm_scale is -0.125, must be at least 0 and finite");
    REFUSED(batch_prefill_plan, t->args.logits_soft_cap = INFINITY, "logits_soft_cap is inf, must be at least 0 and finite");
    REFUSED(batch_prefill_plan, t->args.window_left = VALUE(INT, -2), "window_left is -2, must be at least -1");
    REFUSED(batch_prefill_plan, t->args.window_left = VALUE(FLOAT, 16), "window_left is the float 16, must be an integer");
    REFUSED(batch_prefill_plan, t->args.q_data_type = TYPE(I32), "q_data_type is i32, must be one of f16, bf16, e4m3, e5m2");
    REFUSED(batch_prefill_plan, (t->args.qo_indptr = &t->qo_indptr, t->qo_indptr.device = CUDA(0)),
            "qo_indptr is on cuda:0, must be on cpu");
    UNSUPPORTED(batch_prefill_plan, t->args.head_dim_qk = 72,
                "no kernel serves this call: head_dim must be a multiple of 16 up to 256, or 512 "
                "(head_dim_qk = 72, head_dim_vo = 72)");
    UNSUPPORTED(batch_prefill_plan, t->args.head_dim_vo = 272,
                "no kernel serves this call: head_dim must be a multiple of 16 up to 256, or 512 "
                "(head_dim_qk = 64, head_dim_vo = 272)");
    UNSUPPORTED(batch_prefill_plan, (t->args.q_data_type = TYPE(F16), t->args.kv_data_type = TYPE(BF16)),
                "no kernel serves this call: kv_data_type must be q_data_type, e4m3 or e5m2 "
                "(q_data_type = f16, kv_data_type = bf16)");
    UNSUPPORTED(batch_prefill_plan, t->args.kv_data_type = TYPE(U8),
                "no kernel serves this call: caches of e2m1 are not served");
    REFUSED(batch_decode_plan, t->args.max_batch_size = 0, "max_batch_size is 0, must be at least 1");
    REFUSED(batch_decode_plan, t->args.num_qo_heads = 5,
            "num_qo_heads % num_kv_heads == 0 does not hold: num_qo_heads = 5, num_kv_heads = 2");
    REFUSED(batch_decode_plan, t->args.head_dim = -64, "head_dim is -64, must be at least 1");
    REFUSED(batch_decode_plan, t->args.rope_theta = -1, "rope_theta is -1, must be at least 0 and finite");
    REFUSED(batch_decode_plan, t->args.window_right = -1, "window_right is -1, must be at least 0");
    REFUSED(batch_decode_plan, t->args.o_data_type = TYPE(I64), "o_data_type is i64, must be one of f16, bf16, f32, e4m3, e5m2");
    REFUSED(batch_decode_plan, t->args.disable_split_kv = 3, "disable_split_kv is 3, must be 0 to 1");
    REFUSED(batch_decode_plan, (t->args.kv_indptr = &t->kv_indptr, t->kv_indptr.shape[0] = 0),
            "kv_indptr has shape [0], must be [typical_batch+1]");
    REFUSED(batch_decode_plan, t->args.q_len_per_req = -1, "q_len_per_req is -1, must be at least 1");
    REFUSED(batch_decode_plan, exec->kernel = "batch_decode_cpu",
            "exec.kernel is \"batch_decode_cpu\", must be one of: batch_decode_plan");
}

static void test_prefill(void **state)
{
    (void)state;
    REFUSED(batch_prefill, t->args.plan = NULL, "plan is NULL, must be given");
    REFUSED(batch_prefill, t->args.kv_indptr = NULL, "kv_indptr is NULL, must be given");
    REFUSED(batch_prefill, t->q.dtype = TYPE(BF16), "q is bf16, must be f16 as q_data_type");
    REFUSED(batch_prefill, t->v_cache.dtype = TYPE(U8), "v_cache is u8, must be f16 as kv_data_type");
    REFUSED(batch_prefill, t->lse.dtype = TYPE(F16), "lse is f16, must be f32");
    REFUSED(batch_prefill, t->q.shape[1] = KV_HEADS,
            "q has shape [3, 2, 64], must be [total_q, num_qo_heads, head_dim_qk] with total_q = 3 (from q), num_qo_heads = 4 "
            "(from the plan), head_dim_qk = 64 (from the plan)");
    REFUSED(batch_prefill, t->out.shape[0] = 1,
            "out has shape [1, 4, 64], must be [total_q, num_qo_heads, head_dim_vo] with total_q = 3 (from q), num_qo_heads = 4 "
            "(from the plan), head_dim_vo = 64 (from the plan)");
    REFUSED(batch_prefill, t->q.shape[0] = t->out.shape[0] = t->lse.shape[0] = ROWS + 1,
            "total_q <= max_total_qo does not hold: total_q = 4 (from q), max_total_qo = 3 (from the plan)");
    REFUSED(batch_prefill, t->k_cache.shape[1] = PAGE_SIZE - 1,
            "k_cache has shape [6, 3, 2, 64], must be [num_pages, page_size, num_kv_heads, head_dim_qk] with head_dim_qk = 64 "
            "(from the plan), kv_layout = 0 (NHD, from the plan), num_pages = 6 (from k_cache), page_size = 4 (from the plan), "
            "num_kv_heads = 2 (from the plan)");
    REFUSED(batch_prefill, t->v_cache.ndim = 5,
            "v_cache has shape [6, 4, 2, 64, 0], must be [num_pages, page_size, num_kv_heads, head_dim_vo] with head_dim_vo = 64 "
            "(from the plan), kv_layout = 0 (NHD, from the plan), num_pages = 6 (from k_cache), page_size = 4 (from the plan), "
            "num_kv_heads = 2 (from the plan)");
    REFUSED(batch_prefill, t->qo_indptr.shape[0] = BATCH,
            "kv_indptr has shape [3], must be [batch+1] with batch = 1 (from qo_indptr)");
    REFUSED(batch_prefill, t->kv_indices.dtype = TYPE(I64), "kv_indices is i64, must be i32");
    REFUSED(batch_prefill, t->k_cache.strides = STRIDES(512, 128, 64, 2),
            "k_cache has shape [6, 4, 2, 64] and strides [512, 128, 64, 2]: the last axis must have stride 1");
    REFUSED(batch_prefill, t->out.strides = STRIDES(HEAD_DIM, HEAD_DIM, 1),
            "out has shape [3, 4, 64] and strides [64, 64, 1]: elements of an output must not overlap");
    REFUSED(batch_prefill, t->sinks.shape[0] = KV_HEADS,
            "sinks has shape [2], must be [num_qo_heads] with num_qo_heads = 4 (from the plan)");
    REFUSED(batch_prefill, t->out.data = t->q.data, "out overlaps q, must share no memory with it");
    REFUSED(batch_prefill, t->lse.data = t->sinks.data, "lse overlaps sinks, must share no memory with it");
    REFUSED(batch_prefill, t->out.data = t->v_cache.data, "out overlaps v_cache, must share no memory with it");
    REFUSED(batch_prefill, t->kv_indices.device = CUDA(0), "kv_indices is on cuda:0, must be on cpu as q");
    REFUSED(batch_prefill, t->args.q_scale = VALUE(FLOAT, -1), "q_scale is -1, must be at least 0 and finite");
    REFUSED(batch_prefill, (t->scale.dtype = TYPE(F16), t->args.k_scale = VALUE(TENSOR, &t->scale)),
            "k_scale is f16, must be f32");
    REFUSED(batch_prefill, t->args.window_left = VALUE(INT, -2), "window_left is -2, must be at least -1");
    REFUSED(batch_prefill, t->args.window_left = VALUE(TENSOR, &t->scale),
            "window_left is given as a tensor, must be given by value");
    REFUSED(batch_prefill, t->args.skip_softmax_threshold_scale_factor = -1,
            "skip_softmax_threshold_scale_factor is -1, must be at least 0 and finite");
    UNSUPPORTED(batch_prefill, exec->kernel = "batch_prefill_sm80",
                "the kernel named by exec.kernel does not serve this call: batch_prefill_sm80: runs on CUDA devices");
    REFUSED(batch_prefill, exec->kernel = "batch_decode_cpu",
            "exec.kernel is \"batch_decode_cpu\", must be one of: batch_prefill_sm90, batch_decode_stream_sm90, "
            "batch_decode_stream_sm80, batch_prefill_sm80, batch_prefill_cpu");
}

static void test_decode(void **state)
{
    (void)state;
    REFUSED(batch_decode, t->args.q = NULL, "q is NULL, must be given");
    REFUSED(batch_decode, t->q.data = NULL, "q.data is NULL, but it has elements");
    REFUSED(batch_decode, t->out.dtype = TYPE(F32), "out is f32, must be f16 as o_data_type");
    REFUSED(batch_decode, t->k_cache.shape[2] = QO_HEADS,
            "k_cache has shape [6, 4, 4, 64], must be [num_pages, page_size, num_kv_heads, head_dim] with head_dim = 64 (from "
            "the plan), kv_layout = 0 (NHD, from the plan), num_pages = 6 (from k_cache), page_size = 4 (from the plan), "
            "num_kv_heads = 2 (from the plan)");
    REFUSED(batch_decode, t->kv_last_page_len.shape[0] = BATCH + 1,
            "kv_last_page_len has shape [3], must be [batch] with batch = 2 (from kv_indptr)");
    REFUSED(batch_decode, t->kv_indptr.shape[0] = BATCH,
            "kv_last_page_len has shape [2], must be [batch] with batch = 1 (from kv_indptr)");
    REFUSED(batch_decode, t->q.shape[0] = BATCH + 1,
            "q has shape [3, 4, 64], must be [batch*q_len_per_req, num_qo_heads, head_dim] with batch = 2 (from kv_indptr), "
            "q_len_per_req = 1 (from the plan), num_qo_heads = 4 (from the plan), head_dim = 64 (from the plan)");
    REFUSED(batch_decode, t->q.strides = STRIDES(1, 64, 4),
            "q has shape [2, 4, 64] and strides [1, 64, 4]: the last axis must have stride 1");
    REFUSED(batch_decode, t->lse.data = t->out.data, "lse overlaps out, must share no memory with it");
    REFUSED(batch_decode, after(&t->out, &t->q, 64), "out overlaps q, must share no memory with it");
    REFUSED(batch_decode, t->v_cache.device = CUDA(0), "v_cache is on cuda:0, must be on cpu as k_cache");
    REFUSED(batch_decode, exec->device = CUDA(0), "exec.device is cuda:0, must be cpu as k_cache");
    REFUSED(batch_decode, exec->threads = -4, "exec.threads is -4, must not be negative");
    REFUSED(batch_decode, t->args.v_scale = VALUE(FLOAT, NAN), "v_scale is nan, must be at least 0 and finite");
    UNSUPPORTED(batch_decode, exec->kernel = "batch_prefill_sm80",
                "the kernel named by exec.kernel does not serve this call: batch_prefill_sm80: runs on CUDA devices");
    REFUSED(batch_decode, exec->kernel = "fa3",
            "exec.kernel is \"fa3\", must be one of: batch_decode_stream_sm90, "
            "batch_decode_stream_sm80, batch_prefill_sm80, batch_decode_cpu, batch_prefill_cpu");
    REFUSED(batch_decode,
            (t->q.shape[0]++, t->out.shape[0]++, t->lse.shape[0]++, t->kv_indptr.shape[0]++, t->kv_last_page_len.shape[0]++),
            "batch <= max_batch_size does not hold: batch = 3 (from kv_indptr), max_batch_size = 2 (from the plan)");
}

static void test_sampling(void **state)
{
    (void)state;
    REFUSED(softmax, t->out.dtype = TYPE(F16), "out is f16, must be f32");
    REFUSED(softmax, t->logits.dtype = TYPE(I8), "logits is i8, must be one of f16, bf16, f32");
    REFUSED(softmax, t->out.shape[1] = VOCAB - 1,
            "out has shape [3, 31], must be [batch, vocab] with batch = 3 (from logits), vocab = 32 (from logits)");
    REFUSED(softmax, t->logits.ndim = 1, "logits has shape [3], must be [batch, vocab]");
    REFUSED(softmax, t->args.temperature = VALUE(FLOAT, -0.5), "temperature is -0.5, must be 0 to 1e+36");
    REFUSED(softmax, t->args.temperature = VALUE(FLOAT, 1e37), "temperature is 1e+37, must be 0 to 1e+36");
    REFUSED(softmax, (t->temperature.shape[0] = 2, t->args.temperature = VALUE(TENSOR, &t->temperature)),
            "temperature has shape [2], must have one element or be [batch] with batch = 3 (from logits)");
    REFUSED(softmax, after(&t->out, &t->logits, 4),
            "out overlaps logits, must be the very same tensor or share no memory with it");
    REFUSED(softmax, t->logits.device = CUDA(0), "out is on cpu, must be on cuda:0 as logits");
    REFUSED(sampling_from_probs, (t->args.indices = NULL, t->samples.dtype = TYPE(F32)),
            "samples is f32, must be one of i32, i64");
    REFUSED(sampling_from_probs, t->indices.dtype = TYPE(I64), "indices is i64, must be i32 as samples");
    REFUSED(sampling_from_probs, t->samples.dtype = TYPE(F32), "samples is f32, must be one of i32, i64");
    REFUSED(sampling_from_probs, (t->args.samples = NULL, t->indices.dtype = TYPE(F32)),
            "indices is f32, must be one of i32, i64");
    REFUSED(sampling_from_probs, t->valid.dtype = TYPE(U8), "valid is u8, must be boolean");
    REFUSED(sampling_from_probs, t->probs.dtype = TYPE(F16), "probs is f16, must be f32");
    REFUSED(sampling_from_probs, t->probs.strides = STRIDES(1, ROWS),
            "probs has shape [3, 32] and strides [1, 3]: the last axis must have stride 1");
    REFUSED(sampling_from_probs, (t->args.indices = NULL, t->probs.shape[0] = 1),
            "indices is NULL, must be given where batch != num_rows: batch = 3 (from samples), num_rows = 1 (from probs)");
    REFUSED(sampling_from_probs, t->probs.shape[1] = 0, "vocab > 0 does not hold: vocab = 0 (from probs)");
    REFUSED(sampling_from_probs, t->args.deterministic = -1, "deterministic is -1, must be 0 to 1");
    REFUSED(sampling_from_probs, t->args.seed = VALUE(FLOAT, 1.5), "seed is the float 1.5, must be an integer");
    REFUSED(sampling_from_probs, t->valid.data = t->samples.data, "valid overlaps samples, must share no memory with it");
    UNSUPPORTED(sampling_from_probs, t->args.check_nan = 1,
                "no kernel serves this call: sampling_cpu: check_nan would have to wait for the device; rows of NaN "
                "are told by `valid` (check_nan = 1)");
    REFUSED(top_k_top_p_sampling_from_probs, t->args.top_k = VALUE(INT, 0), "top_k is 0, must be at least 1");
    REFUSED(top_k_top_p_sampling_from_probs, t->args.top_p = VALUE(FLOAT, 1.5), "top_p is 1.5, must be 0 to 1");
    REFUSED(top_k_top_p_sampling_from_probs, t->args.top_p = VALUE(FLOAT, -0.1), "top_p is -0.1, must be 0 to 1");
    REFUSED(top_k_top_p_sampling_from_probs, t->args.filter_apply_order = 2,
            "filter_apply_order is 2, must be one of 0 (TOP_K_FIRST), 1 (JOINT)");
    REFUSED(top_k_top_p_sampling_from_probs, t->args.samples = NULL, "samples is NULL, must be given");
    REFUSED(top_k_top_p_sampling_from_probs, t->samples.data = t->probs.data,
            "samples overlaps probs, must share no memory with it");
    REFUSED(top_k_top_p_sampling_from_probs, exec->kernel = "",
            "exec.kernel is \"\", must be one of: sampling_sm80, sampling_cpu");
}

/* A device that need not exist: the plan and the choice of a kernel touch none. */
static const struct device *imagined(void)
{
    static struct device device;
    assert_int_equal(device_imagine(90, &device), FLASHINFER_OK);
    return &device;
}

static void plan_for_cuda(void)
{
    struct call call;
    struct way way;
    const struct op_kernel *row;
    c.batch_decode_plan.args.plan = &c.decode_plan;
    assert_int_equal(call_check(&call, op_find("batch_decode_plan"), &c.batch_decode_plan.args, NULL, true, imagined()),
                     FLASHINFER_OK);
    assert_int_equal(call_pick(&call, &row, &way), FLASHINFER_OK);
    assert_int_equal(call_run(&call, row, &way), FLASHINFER_OK);
}

static void test_foreign_plans(void **state)
{
    (void)state;
#define FOREIGN(op, spoil, sentence) REFUSED_AS(FOREIGN_PLAN, op, spoil, sentence)
    FOREIGN(batch_decode, memset(&c.decode_plan, 0, sizeof c.decode_plan),
            "plan is no plan, must be written by batch_decode_plan");
    FOREIGN(batch_decode, memset(&c.decode_plan, 0xff, sizeof c.decode_plan),
            "plan is no plan, must be written by batch_decode_plan");
    FOREIGN(batch_decode, t->args.plan = &c.prefill_plan,
            "plan was written by batch_prefill_plan, must be written by batch_decode_plan");
    FOREIGN(batch_prefill, t->args.plan = &c.decode_plan,
            "plan was written by batch_decode_plan, must be written by batch_prefill_plan");
    FOREIGN(batch_decode, plan_for_cuda(), "plan was made for cuda:0, must be made for cpu");
    FOREIGN(batch_decode, c.decode_plan.word[0] ^= 1, "plan is no plan, must be written by batch_decode_plan");
    FOREIGN(
        batch_decode, c.decode_plan.word[1] ^= 1,
        "plan was written by another build of this library, must be written by batch_decode_plan of version " FLASHINFER_VERSION);
    for (int word = 2; word < 6; word++)
        FOREIGN(batch_decode, c.decode_plan.word[word] ^= 1u << 20, "plan was changed after batch_decode_plan wrote it");
    for (int word = 10; word < 14; word++)
        FOREIGN(batch_decode, c.decode_plan.word[word] ^= 1, "plan was changed after batch_decode_plan wrote it");
    for (int word = 48; word < 56; word++)
        FOREIGN(batch_decode, c.decode_plan.word[word] ^= 1, "plan was changed after batch_decode_plan wrote it");
    FOREIGN(batch_decode, memset(&c.decode_plan.word[32], 0, sizeof(uint64_t) * 96),
            "plan was changed after batch_decode_plan wrote it");
}

/* On the CPU no op of these needs a workspace; the refusal comes before anything is compiled or enqueued. */
static void test_workspace(void **state)
{
    (void)state;
    struct call call;
    struct way way;
    const struct op_kernel *row;
    char sentence[200];
    size_t most, needed; /* by any row that may serve the plan; by the one that serves this call */
    right_calls_reset(&c);
    plan_for_cuda();
    assert_int_equal(flashinfer_plan_workspace_size(&c.decode_plan, &most), FLASHINFER_OK);
    assert_int_equal(call_check(&call, op_find("batch_decode"), &c.batch_decode.args, NULL, false, imagined()), FLASHINFER_OK);
    assert_int_equal(call_pick(&call, &row, &way), FLASHINFER_OK);
    needed = way.workspace;
    assert_true(needed > 0);
    c.exec = (flashinfer_exec){.size = sizeof c.exec, .workspace = c.new_plan, .workspace_size = needed - 1};
    for (int round = 0; round < 3; round++) {
        assert_int_equal(call_check(&call, op_find("batch_decode"), &c.batch_decode.args, &c.exec, false, imagined()),
                         FLASHINFER_OK);
        assert_int_equal(call_pick(&call, &row, &way), FLASHINFER_OK);
        assert_true(way.workspace == needed && needed <= most);
        snprintf(sentence, sizeof sentence,
                 "batch_decode: kernel batch_decode_stream_sm80 needs %zu bytes of workspace, exec.workspace has %zu", needed,
                 c.exec.workspace ? c.exec.workspace_size : 0);
        assert_int_equal(call_run(&call, row, &way), FLASHINFER_WORKSPACE);
        assert_string_equal(flashinfer_last_error(), sentence);
        if (round == 0)
            c.exec.workspace_size = 0;
        else
            c.exec = (flashinfer_exec){.size = sizeof c.exec, .workspace_size = most};
    }
    assert_true(right_calls_untouched());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right),     cmocka_unit_test(test_norm_and_activation),
        cmocka_unit_test(test_rope),      cmocka_unit_test(test_page),
        cmocka_unit_test(test_mm),        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_prefill),   cmocka_unit_test(test_decode),
        cmocka_unit_test(test_sampling),  cmocka_unit_test(test_foreign_plans),
        cmocka_unit_test(test_workspace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
