/* SPDX-License-Identifier: Apache-2.0 */
/* What the rope ops share: the host side of their kernels, their reference, and pieces of their declarations. */
#ifndef ROPE_KERNELS_H
#define ROPE_KERNELS_H

#include "flashinfer/rope.h"
#include "harness/reference.h"
#include "op/op.h"

/* What the ops are seen as. Tensors that an op lacks are NULL. A token's heads are [heads, head_dim], or [heads * head_dim] with
 * head_size for head_dim; if head_size is 0, that is one head. */
struct rope_view {
    const DLTensor *q_out, *k_out, *q_nope_out, *k_nope_out, *v_out; /* in place: q_out is q, k_out is k. Paged: k_out, k_nope_out
                                                                        and v_out are caches, the former two may be one */
    const DLTensor *q, *k, *q_nope, *k_nope, *v;
    const DLTensor *pos_ids, *indptr, *offsets; /* pos_ids, or the others */
    const DLTensor *cos_sin_cache;
    struct paged_tensors paged;
    int32_t head_size, rotary_dim, interleave;
    int32_t kv_layout; /* of caches with 4 axes */
    double rope_scale, rope_theta;
    double low_freq_factor, high_freq_factor, old_context_len; /* Llama 3.1; high_freq_factor 0: not */
    double q_scale, kv_scale;
};

extern const struct op_kernel rope_kernels[];

void rope_reference(const struct reference *r);

/* For apply_rope: in random problems the last tokens may have no request. */
void rope_make(struct problem *problem);

/* Outputs that equal inputs are read and written once; elements that are not rotated in place not at all. */
void rope_cost(const struct call *call, double *bytes, double *operations);

/* Under FLASHINFER_VALIDATE_INPUTS: positions have a row of cos_sin_cache. */
flashinfer_status rope_validate(const struct call *call);

/* For apply_rope_*: rules and ranges, those named _cache_ for ops with a table of cosines and sines; shapes of ops with requests,
 * with positions, and with such a table. */
extern const char *const rope_rules[], *const rope_cache_rules[];
extern const struct op_range rope_ranges[], rope_cache_ranges[];
extern const struct op_shape rope_request_shapes[], rope_position_shapes[], rope_cache_shapes[];

/* The last arguments of apply_rope_*. */
#define ROPE_OPTIONS                                \
    INT(rotary_dim), FLAG(interleave),              \
    NUMBER(rope_scale, .value = 1, .min = 1e-6),    \
    NUMBER(rope_theta, .value = 1e4, .min = 1e-6)
#define ROPE_LLAMA31_OPTIONS                            \
    INT(rotary_dim), FLAG(interleave),                  \
    NUMBER(rope_scale, .value = 8, .min = 1e-6),        \
    NUMBER(rope_theta, .value = 5e5, .min = 1e-6),      \
    NUMBER(low_freq_factor, .value = 1, .min = 1e-6),   \
    NUMBER(high_freq_factor, .value = 4, .min = 1e-6),  \
    NUMBER(old_context_len, .value = 8192, .min = 1)

/* The same from an op's struct, for its view. */
#define ROPE_OPTIONS_OF(a)                                              \
    .rotary_dim = (a)->rotary_dim, .interleave = (a)->interleave,       \
    .rope_scale = (a)->rope_scale, .rope_theta = (a)->rope_theta
#define ROPE_LLAMA31_OPTIONS_OF(a)                                      \
    ROPE_OPTIONS_OF(a), .low_freq_factor = (a)->low_freq_factor,        \
    .high_freq_factor = (a)->high_freq_factor, .old_context_len = (a)->old_context_len

#endif
