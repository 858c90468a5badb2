/* SPDX-License-Identifier: Apache-2.0 */
/* Host side that the ops of attention and their plans share. */
#ifndef ATTENTION_HOST_H
#define ATTENTION_HOST_H

#include "attention_hooks.h"
#include "op/op.h"
#include "ops/attention/attention_args.h"

extern const struct op op_batch_prefill_plan, op_batch_decode_plan;

/* What a plan holds. */
struct attention_plan {
    int32_t num_qo_heads, num_kv_heads, group, head_dim, page_size; /* group: query heads that read one KV head; head_dim: qk */
    int32_t head_dim_vo;
    struct attention_divisor by_page_size, by_group;
    int32_t kv_layout, causal, window_left, whole; /* whole: keys and values are never divided */
    int32_t dtype;                                 /* that kernels multiply: f16 or bf16 */
    int32_t q_dtype, kv_dtype, o_dtype;
    int32_t mask, pos;                             /* ATTENTION_MASK_, ATTENTION_POS_ */
    int32_t q_len_per_req;                         /* decode: query tokens of a request */
    int32_t tile_q;                                /* packed rows of a block of batch_prefill_sm80 */
    int32_t parts;                                 /* its blocks that divide the keys of a tile of 128 rows; 0, 1: none */
    int32_t stream_split, stream_rows;             /* batch_decode_stream_: as in attention_stream; packed rows of a request */
    int32_t stream_rows_known;                     /* 1: no request has more rows than that */
    int32_t is_small;                              /* 1: see attention_typical_is_small */
    int32_t max_batch_size;
    double sm_scale, logits_soft_cap;
    double rope_ratio, rope_unit; /* as in attention_modes */
};

/* The rows batch_decode_stream_sm80 and _sm90 of the ops of decode, and those of the ops of prefill for few query tokens; the
 * bytes of workspace that they need at most. */
size_t attention_stream_workspace(const struct attention_plan *plan, const struct device *device);
const char *attention_fit_stream(const struct call *call, struct way *way);
const char *attention_fit_stream_sm90(const struct call *call, struct way *way);
const char *attention_fit_stream_prefill(const struct call *call, struct way *way);
const char *attention_fit_stream_prefill_sm90(const struct call *call, struct way *way);
flashinfer_status attention_run_stream(const struct call *call, const struct way *way);
flashinfer_status attention_run_stream_sm90(const struct call *call, const struct way *way);

/* The tokens of all requests, at most, as far as they are counted. */
int64_t attention_most_tokens(const struct call *call);

/* Tokens to the left that a kernel is told; -1: all. */
int32_t attention_window(int64_t window_left);

/* What the plan ops are seen as, and what the ops without a plan take; what an op does not have is 0. */
struct attention_options {
    flashinfer_plan *plan;
    bool is_decode;
    int64_t max_total_qo, max_batch_size;
    const DLTensor *qo_indptr, *kv_indptr;
    int64_t num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo;
    int32_t kv_layout, page_size;
    int32_t custom_mask, causal, pos_encoding_mode, multi_item_scoring, fixed_split_size, disable_split_kv, q_len_per_req;
    double sm_scale, logits_soft_cap, rope_scale, rope_theta;
    flashinfer_number window_left;
    DLDataType q_data_type, kv_data_type, o_data_type;
};

const char *attention_fit_plan(const struct call *call, struct way *way);
flashinfer_status attention_run_plan(const struct call *call, const struct way *way);

/* Of ops without a plan: what it would hold, with tile_q 0, and why no kernel serves the call. */
struct attention_plan attention_single_plan(const struct attention_options *options);
const char *attention_single_fit(const struct attention_options *options, int64_t kv_len);

/* What the run ops are seen as. */
struct attention_view {
    const DLTensor *out, *lse, *q; /* a single decode's have no axis of tokens */
    const DLTensor *k_cache, *v_cache; /* of three axes if ragged, and then there are no pages */
    const DLTensor *qo_indptr, *kv_indptr, *kv_indices, *kv_last_page_len, *sinks; /* a single request: no indptr */
    const DLTensor *packed_custom_mask, *mask_indptr, *prefix_len, *token_pos_in_items; /* of a single request: no indptr */
    const DLTensor *custom_mask;                                                      /* bool, of a single request */
    const DLTensor *v_indptr, *o_indptr;
    const flashinfer_number *q_scale, *k_scale, *v_scale, *window_left; /* window_left NULL: the plan's */
    flashinfer_number scale[3]; /* of ops without a plan, where q_scale, k_scale and v_scale point: scales of heads */
    double o_scale;             /* out is divided by it; 0: 1 */
    int32_t lse_in_base_e;
    const char *unserved;       /* why no kernel serves the call, or NULL */
    struct attention_plan plan; /* of ops without a plan */
};

static inline const struct attention_plan *attention_plan_of(const struct call *call)
{
    const struct attention_view *t = call_view(call);
    return call->plan ? call->plan : &t->plan;
}

/* A cache with its strides in elements. Ragged keys and values are one page. */
struct attention_cache {
    int64_t pages, slots;
    int64_t page, slot, head;
};
struct attention_cache attention_see_cache(const struct attention_plan *plan, const DLTensor *cache);

static inline int64_t attention_batch(const struct attention_view *t)
{
    return t->kv_indptr ? tensor_shape(t->kv_indptr, 0) - 1 : 1;
}

static inline int64_t attention_total_q(const struct attention_view *t) { return t->q->ndim == 3 ? tensor_shape(t->q, 0) : 1; }

/* The window of the view, or of the plan. */
int32_t attention_window_of(const struct call *call);

/* Why no kernel serves a call, whatever it can; or NULL. */
const char *attention_unserved(const struct call *call);

/* Whether queries, keys or values are to be converted, turned or scaled before they are multiplied, or lie apart. */
bool attention_converts(const struct call *call);

/* Whether a call is one that only the generic kernels serve, batch_prefill_sm80 and those of CPUs: why, or NULL. For a kernel
 * that itself widens keys and values of 8 bits, or not. */
const char *attention_needs_generic(const struct call *call, bool widens);

/* Launch argument of the kernels. */
struct attention_args attention_args(const struct call *call);
struct attention_divisor attention_divisor(uint32_t by); /* 1 to 2^31 */

/* attention_tiles.c. A typical batch; tokens: keys of a request, longest: of the one that has most; 0 if unknown. */
struct attention_typical {
    int64_t total_q, batch, tokens, longest;
};

/* The largest tile that a typical request fills and that leaves no multiprocessor idle, or where tiles of 128 would, half of
 * them. */
int32_t attention_typical_tile_q(const struct device *device, const struct attention_plan *plan,
                                 struct attention_typical typical);

/* Blocks that divide the keys of a tile of 128 rows, where such tiles leave room for them, two a multiprocessor: a power of two,
 * so that clusters fill what there is; those of eight not quite. */
int32_t attention_typical_parts(const struct device *device, const struct attention_plan *plan, struct attention_typical typical);

/* Requests of one tile of keys, of which there are not many: batch_prefill_sm90 takes longer to begin than for all else. */
bool attention_typical_is_small(const struct device *device, const struct attention_plan *plan, struct attention_typical typical);

/* Of a call that has no more keys than such a batch. */
bool attention_is_small(const struct call *call);

/* Packed rows of a block of batch_prefill_sm80, as far as the rows go. */
int32_t attention_tile_q(const struct call *call);

/* Its blocks that divide the keys of a tile of 128 rows, where smaller tiles would be chosen; 0, 1: none. */
int32_t attention_parts(const struct call *call);

/* The row batch_prefill_sm90, and the bytes of its schedule. */
const char *attention_fit_sm90(const struct call *call, struct way *way);
flashinfer_status attention_run_sm90(const struct call *call, const struct way *way);
size_t attention_schedule_bytes(int64_t batch);

/* Of variants: batch_prefill_sm90 takes in those that leave queries and keys as they are. */
enum {
    ATTENTION_HOOKS_SM90 = HOOK_LOGITS | HOOK_MASK | HOOK_OUTPUT | HOOK_NO_SOFTMAX,
    ATTENTION_HOOKS = ATTENTION_HOOKS_SM90 | HOOK_QUERY | HOOK_KEY
};

extern const struct op_kernel batch_prefill_kernels[], batch_decode_kernels[];

/* Refuses indptr that do not start at 0 or that decrease or lead too far, pages that do not exist, and lengths that no page
 * has. */
flashinfer_status attention_validate(const struct call *call);

/* In float64. The tensors are the reference's; for decode, qo_indptr is NULL. */
void attention_reference(const struct reference *r);

/* Of a variant: its hooks in float64, NULL for those it lacks. *error is by how much a kernel's argument may differ, and
 * becomes by how much its result may. */
struct attention_reference_hooks {
    double (*query)(const struct reference *r, double x, struct at at, double *error);
    double (*key)(const struct reference *r, double x, struct at at, double *error);
    double (*logits)(const struct reference *r, double s, struct at at, double *error);
    bool (*mask)(const struct reference *r, struct at at);
    double (*output)(const struct reference *r, double x, struct at at, double *error);
};
void attention_reference_with(const struct reference *r, const struct attention_reference_hooks *hooks);

/* Puts NaN and other rubbish into the slots of the cache that no request has; places masks, and what lies apart in v and
 * out. */
void attention_make(struct problem *problem);

/* The keys, values, queries and results that a call touches, and its products; lengths as if tokens were shared out evenly. */
void attention_cost(const struct call *call, double *bytes, double *operations);

#endif
