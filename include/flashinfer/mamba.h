/* SPDX-License-Identifier: Apache-2.0 */
/* State space models: the update of Mamba-2's states while tokens are generated. */
#ifndef FLASHINFER_MAMBA_H
#define FLASHINFER_MAMBA_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One or more tokens of each sequence. For each head and element of head_dim, with a state S of state_dim numbers:
 *
 *     delta = dt + dt_bias, or softplus of that;   S = exp(A delta) S + B x delta;   out = (C . S + D x) z sigmoid(z)
 *
 * B and C are those of group head / (num_heads / num_groups). Arithmetic is in float32. (FlashInfer's int16 states, stochastic
 * rounding and packed sequences of different lengths are not among the arguments. There is no kernel for GPUs yet.) */
struct flashinfer_selective_state_update {
    size_t size;
    DLTensor *out;   /* [batch, tokens, num_heads, head_dim], dtype of x */
    DLTensor *state; /* [num_states, num_heads, head_dim, state_dim] f32, f16 or bf16; state_dim is a multiple of 16, at most 256 */
    DLTensor *intermediate_states_buffer; /* optional: [num_buffers, cache_steps, num_heads, head_dim, state_dim], dtype of state: the
                                             state after each token; cache_steps is at least tokens */
    const DLTensor *x;                    /* [batch, tokens, num_heads, head_dim] f16 or bf16 */
    const DLTensor *dt;                   /* [batch, tokens, num_heads, head_dim] f32, or dtype of x; any strides, 0 among them */
    const DLTensor *A;                    /* [num_heads, head_dim, state_dim] f32; any strides, of state_dim 0 or 1 */
    const DLTensor *B;                    /* [batch, tokens, num_groups, state_dim], dtype of x */
    const DLTensor *C;                    /* [batch, tokens, num_groups, state_dim], dtype of x */
    const DLTensor *D;                    /* optional: [num_heads, head_dim] f32, or dtype of x; any strides. NULL: 0 */
    const DLTensor *z;                    /* optional: [batch, tokens, num_heads, head_dim], dtype of x. NULL: no gate */
    const DLTensor *dt_bias;              /* optional: [num_heads, head_dim] f32, or dtype of x; any strides. NULL: 0 */
    int32_t dt_softplus;                  /* 1: softplus, which is x itself above 20 */
    const DLTensor *state_batch_indices;  /* optional: [batch, 1 or tokens] i32: the row of state that is read; below 0, or
                                             pad_slot_id: padding, out is 0 and no state is touched. NULL: row i */
    int32_t pad_slot_id;                  /* 0: -1 */
    int32_t disable_state_update;         /* 1: state stays as it is */
    const DLTensor *intermediate_state_indices;  /* optional: [batch] i32: the row of intermediate_states_buffer; below 0: none.
                                                    NULL: row i */
    const DLTensor *dst_state_batch_indices;     /* optional: [batch, 1 or tokens] i32: the row of state that the last state is written
                                                    to; with several columns, the state after each token; below 0, or pad_slot_id:
                                                    none. NULL: the one that is read. Rows that are written are distinct and read
                                                    by no other sequence */
    const DLTensor *num_accepted_tokens;         /* optional: [batch] i32: the column of state_batch_indices that is read, from 1;
                                                    beyond either end, the one there. NULL: the first */
};
FLASHINFER_DECLARE_OP(selective_state_update);

#ifdef __cplusplus
}
#endif

#endif
