/* SPDX-License-Identifier: Apache-2.0 */
/* Host side of the gated delta rule: what its ops are seen as, and the kernels they share. */
#ifndef GATED_DELTA_KERNELS_H
#define GATED_DELTA_KERNELS_H

#include "harness/reference.h"
#include "op/op.h"
#include "ops/gated_delta/gated_delta_args.h"

struct problem;

/* What the ops are seen as. NULL: the op has no such tensor, or the call none. */
struct gated_delta_view {
    const DLTensor *output, *q, *k, *v;
    const DLTensor *alpha, *beta, *A_log, *dt_bias; /* with A_log, alpha and beta are a and b */
    const DLTensor *initial, *final, *kept;
    const DLTensor *initial_rows, *final_rows, *kept_rows, *cu_seqlens, *kept_starts;
    const DLTensor *added, *given; /* see gated_delta_args.h */
    const DLTensor *accepted; /* which of the rows of a sequence in initial_rows, from 1 */
    double scale;
    int64_t kept_every; /* tokens */
    int32_t kept_first; /* the initial state is kept too, and then those before every so many tokens */
    int32_t l2norm;
    int32_t values_last; /* states are keys by values */
    int32_t per_key;     /* alpha has an axis of keys, and is its logarithm unless A_log is there */
    int32_t beta_is_logit;
    double lower_bound;
    int32_t pads;        /* sequences without a row have outputs of 0, instead of a state that starts with 0 */
};

/* Of the ops with a gate for each head: their states have as many heads as q or v, whichever has more. */
#define STATE_HEADS "max(num_q_heads, num_v_heads)"
#define HEAD_RULES                                                                                      \
    "num_k_heads == min(num_q_heads, num_v_heads)", "max(num_q_heads, num_v_heads) % num_k_heads == 0", \
    "head_dim == 64 or head_dim == 128"

/* Everything but what depends on a kernel. */
struct gated_delta_args gated_delta_args(const struct call *call);

/* Constants of the sequential kernels, which serve all ops. */
const char *gated_delta_fit_recurrent_cpu(const struct call *call, struct way *way);
const char *gated_delta_fit_recurrent_sm80(const struct call *call, struct way *way);
flashinfer_status gated_delta_run_recurrent(const struct call *call, const struct way *way);

/* The kernels that take 64 tokens at a time. */
const char *gated_delta_fit_sm90(const struct call *call, struct way *way);
flashinfer_status gated_delta_run_sm90(const struct call *call, const struct way *way);
const char *gated_delta_fit_sm80(const struct call *call, struct way *way);
flashinfer_status gated_delta_run_sm80(const struct call *call, const struct way *way);

/* gated_delta_fit_recurrent_sm80 where tokens are few, or the kernels of sm_80 do not serve. */
const char *gated_delta_fit_few_sm80(const struct call *call, struct way *way);

/* Heads that share tiles: those with the same q and k, where neither alpha nor beta tells them apart. */
int64_t gated_delta_tile_sharers(const struct gated_delta_args *a);

/* Heads that a block of their first kernel takes, which share q and k: more share its products, fewer fill the machine. */
int64_t gated_delta_tile_heads(const struct call *call, const struct gated_delta_args *a, int64_t max_chunks);

/* The tables of ops that take a few tokens, and of those that take one. */
extern const struct op_kernel gated_delta_token_kernels[];
#define gated_delta_decode_kernels (gated_delta_token_kernels + 1)

/* For cu_seqlens, checkpoint_cu_starts and the rows of states. */
flashinfer_status gated_delta_validate(const struct call *call);

/* Each head of each sequence, states included, within 5e-3 of the recurrence in float64: by the Frobenius norm, relative. */
const char *gated_delta_verify(const struct reference *r);

/* Keys and queries of norm 1 where the kernel does not see to it, gates near and far from 1, now and then correlated keys,
 * keys of other norms, and NaN in every second sequence. */
void gated_delta_make(struct problem *problem);

void gated_delta_cost(const struct call *call, double *bytes, double *operations);

#endif
