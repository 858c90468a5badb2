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
 * B and C are those of group head / (num_heads / num_groups). Arithmetic is in float32. Sequences are the batch, tokens each, or
 * with cu_seqlens those tokens of all batch * tokens that it says; num_sequences is the number of either. */
struct flashinfer_selective_state_update {
    size_t size;
    DLTensor *out;   /* [batch, tokens, num_heads, head_dim], dtype of x */
    DLTensor *state; /* [num_states, num_heads, head_dim, state_dim] f32, f16 or bf16; state_dim is a multiple of 16, at most
                        256 */
    DLTensor *intermediate_states_buffer; /* optional: [num_buffers, cache_steps, num_heads, head_dim, state_dim], dtype of state:
                                             the states after the first cache_steps tokens, which without cu_seqlens are all */
    const DLTensor *x;                    /* [batch, tokens, num_heads, head_dim] f16, bf16 or f32 */
    const DLTensor *dt;                   /* [batch, tokens, num_heads, head_dim] f32, or dtype of x; any strides, 0 among them */
    const DLTensor *A;                    /* [num_heads, head_dim, state_dim] f32, or dtype of x; any strides, of state_dim 0 or
                                             1 */
    const DLTensor *B;                    /* [batch, tokens, num_groups, state_dim], dtype of x */
    const DLTensor *C;                    /* [batch, tokens, num_groups, state_dim], dtype of x */
    const DLTensor *D;                    /* optional: [num_heads, head_dim] f32, or dtype of x; any strides. NULL: 0 */
    const DLTensor *z;                    /* optional: [batch, tokens, num_heads, head_dim], dtype of x. NULL: no gate */
    const DLTensor *dt_bias;              /* optional: [num_heads, head_dim] f32, or dtype of x; any strides. NULL: 0 */
    int32_t dt_softplus;                  /* 1: softplus, which is x itself above 20 */
    const DLTensor *state_batch_indices;  /* optional: [num_sequences, columns] i32, dense: the row of state that is read, of the
                                             first column or see num_accepted_tokens; below 0, or pad_slot_id: padding, out is 0
                                             and no state is touched. NULL: row i */
    flashinfer_number pad_slot_id;        /* by value, >= -1; absent: -1 */
    int32_t disable_state_update;         /* 1: state stays as it is */
    const DLTensor *intermediate_state_indices; /* optional: [num_sequences] i32: the row of intermediate_states_buffer; below 0:
                                                   none. NULL: row i */
    flashinfer_number rand_seed; /* integer, or i64 or u64 [1]: states of 16 bits are rounded at random, up with the probability
                                    of what is cut off. absent: to nearest. Element i of the pool, counted in row-major order,
                                    that a state was read from takes the low bits, 13 for f16 and 16 for bf16, of word i % 4 of
                                    Philox4x32 with this key and the counter i - i % 4 */
    int32_t philox_rounds;       /* 1 to 10; 0: 10 */
    const DLTensor *dst_state_batch_indices; /* optional: [num_sequences, columns] i32, dense: the row of state that the last
                                                state is written to; with several columns, the state after each token, as far as
                                                they go, which without cu_seqlens is to the end; below 0, or pad_slot_id: none.
                                                NULL: the one that is read. Rows that are written are distinct and read by no
                                                other sequence */
    const DLTensor *cu_seqlens; /* optional: [num_sequences + 1] i32 or i64, from 0: sequence i has the tokens cu_seqlens[i] <= t
                                   < cu_seqlens[i + 1] of batch * tokens; none is legal. Tokens of no sequence are not written.
                                   Read where it lies: a captured graph replays with other lengths */
    const DLTensor *num_accepted_tokens; /* optional: [num_sequences] i32: the column of state_batch_indices that is read, from 1;
                                            beyond either end, the one there. NULL: the first */
};
FLASHINFER_DECLARE_OP(selective_state_update);

/* The same for states that are written now and then: the latest tokens of a sequence stand in a ring beside its state, and each
 * call goes over them again before its own. A sequence has `live` = prev_num_accepted_tokens[row] tokens in the ring, the oldest
 * at ring_start[row], both of its row of state and both the caller's to keep. Its new tokens are appended behind them. If then
 * more than window = ring_len - max_seqlen stand there, the state after the `live` ones is written, and the caller moves
 * ring_start past them; else the state stays as it is. Either way the caller counts the new tokens that it accepts. Outputs are
 * those of the new tokens, of states as they are before they are rounded.
 *
 * The decay of a head is one number: A, dt, D and dt_bias have no head_dim. max_seqlen is at most window, and window at most 16.
 * On GPUs exponents are summed before they are taken, so that results may be off by 2^-20 times the sum of |A delta|, relative
 * to the sum of the terms' magnitudes. */
struct flashinfer_checkpointing_ssu {
    size_t size;
    DLTensor *out;      /* [batch, tokens, num_heads, head_dim], dtype of x */
    DLTensor *state;    /* [num_states, num_heads, head_dim, state_dim] f32, f16 or bf16; state_dim is a multiple of 32, at most
                           256 */
    DLTensor *x_cache;  /* [num_states, num_heads, ring_len, head_dim], dtype of x */
    DLTensor *B_cache;  /* [num_states, num_groups, ring_len, state_dim], dtype of x */
    DLTensor *dt_cache; /* [num_states, num_heads, ring_len] f32: delta */
    const DLTensor *ring_start;               /* [num_states] i32, 0 to ring_len - 1; beyond either end, the one there */
    const DLTensor *prev_num_accepted_tokens; /* [num_states] i32, 0 to window, likewise */
    const DLTensor *x;                        /* [batch, tokens, num_heads, head_dim] f16 or bf16 */
    const DLTensor *dt;                       /* [batch, tokens, num_heads] f32, or dtype of x; any strides */
    const DLTensor *A;                        /* [num_heads] f32, or dtype of x; any stride */
    const DLTensor *B;                        /* [batch, tokens, num_groups, state_dim], dtype of x */
    const DLTensor *C;                        /* [batch, tokens, num_groups, state_dim], dtype of x */
    const DLTensor *D;                        /* optional: [num_heads] f32, or dtype of x; any stride. NULL: 0 */
    const DLTensor *z;                        /* optional: [batch, tokens, num_heads, head_dim], dtype of x. NULL: no gate */
    const DLTensor *dt_bias;                  /* optional: [num_heads] f32, or dtype of x; any stride. NULL: 0 */
    int32_t dt_softplus;                      /* 1: softplus, which is x itself above 20 */
    const DLTensor *state_batch_indices;      /* optional: [num_sequences] i32: the row of state and rings, distinct; below 0, or
                                                 pad_slot_id: padding, out is 0 and nothing else is touched. NULL: row i */
    flashinfer_number pad_slot_id;            /* by value, >= -1; absent: -1 */
    flashinfer_number rand_seed; /* integer, or i64 or u64 [1]: states of 16 bits are rounded at random, as selective_state_update
                                    does it. absent: to nearest */
    int32_t philox_rounds;       /* 1 to 10; 0: 10 */
    const DLTensor *cu_seqlens;  /* optional: [num_sequences + 1] i32 or i64, from 0: sequence i has the tokens cu_seqlens[i] <= t
                                    < cu_seqlens[i + 1] of batch * tokens; none is legal, and then nothing is touched. Outputs of
                                    tokens beyond the first max_seqlen of a sequence are 0, those of no sequence are not written.
                                    Read where it lies: a captured graph replays with other lengths */
    int64_t max_seqlen;          /* the most tokens of a sequence; 0: tokens */
};
FLASHINFER_DECLARE_OP(checkpointing_ssu);

#ifdef __cplusplus
}
#endif

#endif
