/* SPDX-License-Identifier: Apache-2.0 */
/* The gated delta rule (Gated DeltaNet): a recurrence over the tokens of a sequence, for each head with a state S of head_dim
 * values by head_dim keys, here as it lies in memory:
 *
 *     S = alpha S;  u = beta (v - S k);  S = S + u k^T;  output = scale S q
 *
 * Heads: num_heads is the larger of num_q_heads and num_v_heads and a multiple of the smaller one, which num_k_heads equals. Head
 * h uses head h / (num_heads / n) of a tensor with n heads. States and gates are those of num_heads heads.
 *
 * head_dim is 64 or 128. A pool has at least as many states as there are sequences.
 *
 * Arithmetic is in float32, with operands of matrix products rounded to the dtype of q where a kernel takes tokens in chunks
 * of 64. NaN and infinities stay in their sequence and head (its state included); there they may reach back to the beginning of
 * their chunk. Rows of `output` and of pools of states that belong to no sequence stay as they are.
 *
 * Under FLASHINFER_BATCH_INVARIANT long sequences of few heads are not cut into pieces that are walked side by side, and the form
 * for few tokens is not taken. */
#ifndef FLASHINFER_GATED_DELTA_H
#define FLASHINFER_GATED_DELTA_H

#include "flashinfer/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The rule over whole sequences, alpha and beta given. A state is head_dim values by head_dim keys: the keys are contiguous.
 * Sequence i has the tokens cu_seqlens[i] <= t < cu_seqlens[i + 1]; none is legal, and leaves the state as it is. cu_seqlens is
 * read where it lies: a captured graph replays with other lengths. */
struct flashinfer_chunk_gated_delta_rule {
    size_t size;
    DLTensor *output;                     /* [tokens, num_heads, head_dim], dtype of q */
    DLTensor *output_state;               /* optional: [num_states, num_heads, head_dim (values), head_dim (keys)] f32, f16, bf16,
                                             e4m3 or e5m2; may be initial_state itself */
    DLTensor *state_checkpoints;          /* optional: [any, num_heads, head_dim, head_dim], dtype of output_state */
    const DLTensor *q;                    /* [tokens, num_q_heads, head_dim] f16 or bf16 */
    const DLTensor *k;                    /* [tokens, num_k_heads, head_dim], dtype of q */
    const DLTensor *v;                    /* [tokens, num_v_heads, head_dim], dtype of q */
    const DLTensor *g;                    /* optional: [tokens, num_heads] f32: alpha, 0 to 1, not its logarithm; less than 2^-64
                                          counts as that; NULL: 1 */
    const DLTensor *beta;                 /* optional: [tokens, num_heads] f32; NULL: 1 */
    double scale;                         /* >= 0; 0: 1 / sqrt(head_dim) */
    const DLTensor *initial_state;        /* optional: shaped as output_state, f32, f16, bf16, e4m3 or e5m2; NULL: zeros */
    const DLTensor *cu_seqlens;           /* [num_sequences + 1] i32 or i64, from 0 */
    int32_t use_qk_l2norm_in_kernel;      /* 1: q and k are divided by sqrt(sum of squares + 1e-6) first */
    const DLTensor *checkpoint_cu_starts; /* optional: [num_sequences + 1] i32 or i64 */
    int64_t checkpoint_every_n_tokens; /* a multiple of 64; 0: no checkpoints. After j + 1 times so many tokens of sequence i its
                                          state goes to row checkpoint_cu_starts[i] + j, if below checkpoint_cu_starts[i + 1] */
    const DLTensor *state_indices;     /* optional: [num_sequences] i32: the rows of a sequence in initial_state and output_state,
                                          distinct; below 0: it starts with zeros and its state is not kept. NULL: row i */
};
FLASHINFER_DECLARE_OP(chunk_gated_delta_rule);

/* One token of each sequence, with the gates of Gated DeltaNet: alpha = exp(-exp(A_log) softplus(a + dt_bias)), beta =
 * sigmoid(b). q and k are first divided by sqrt(sum of squares + 1e-6). The state is updated in place. */
struct flashinfer_gated_delta_rule_decode {
    size_t size;
    DLTensor *output;        /* [batch, 1, num_heads, head_dim], dtype of q */
    DLTensor *state;         /* [batch, num_heads, head_dim (keys), head_dim (values)] f32, f16 or bf16 */
    const DLTensor *q;       /* [batch, 1, num_q_heads, head_dim] f16 or bf16 */
    const DLTensor *k;       /* [batch, 1, num_k_heads, head_dim], dtype of q */
    const DLTensor *v;       /* [batch, 1, num_v_heads, head_dim], dtype of q */
    const DLTensor *A_log;   /* [num_heads] f32 */
    const DLTensor *a;       /* [batch, 1, num_heads], dtype of q */
    const DLTensor *dt_bias; /* [num_heads] f32, or dtype of q */
    const DLTensor *b;       /* [batch, 1, num_heads], dtype of q */
    double scale;            /* >= 0; 0: 1 / sqrt(head_dim) */
    int32_t skip_qk_l2norm;  /* 1: q and k as they are (FlashInfer's use_qk_l2norm=False) */
};
FLASHINFER_DECLARE_OP(gated_delta_rule_decode);

/* The same for states with keys last, which may be a pool (FlashInfer's initial_state), and for one or more tokens. */
struct flashinfer_gated_delta_rule_decode_pretranspose {
    size_t size;
    DLTensor *output;                      /* [batch, tokens, num_heads, head_dim], dtype of q */
    DLTensor *state;                       /* [num_states, num_heads, head_dim (values), head_dim (keys)] f32, f16 or bf16 */
    const DLTensor *q;                     /* [batch, tokens, num_q_heads, head_dim] f16 or bf16 */
    const DLTensor *k;                     /* [batch, tokens, num_k_heads, head_dim], dtype of q */
    const DLTensor *v;                     /* [batch, tokens, num_v_heads, head_dim], dtype of q */
    const DLTensor *A_log;                 /* [num_heads] f32 */
    const DLTensor *a;                     /* [batch, tokens, num_heads], dtype of q */
    const DLTensor *dt_bias;               /* [num_heads] f32, or dtype of q */
    const DLTensor *b;                     /* [batch, tokens, num_heads], dtype of q */
    double scale;                          /* >= 0; 0: 1 / sqrt(head_dim) */
    int32_t skip_qk_l2norm;                /* 1: q and k as they are (FlashInfer's use_qk_l2norm=False) */
    const DLTensor *initial_state_indices; /* optional: [batch] i32: the row that is read; below 0: padding, the output is 0 and
                                              no state is touched. NULL: row i */
    const DLTensor *output_state_indices;  /* optional: [batch] i32: the row that is written; below 0: none. Rows that are written
                                              are distinct and read by nobody else. NULL: the one that is read */
};
FLASHINFER_DECLARE_OP(gated_delta_rule_decode_pretranspose);

/* Speculative decoding: several draft tokens of each sequence, from a pool of states with keys last; the states after each token
 * can be kept, in a buffer or in rows of the pool. */
struct flashinfer_gated_delta_rule_mtp {
    size_t size;
    DLTensor *output;                      /* [batch, tokens, num_heads, head_dim], dtype of q */
    DLTensor *initial_state;               /* [num_states, num_heads, head_dim (values), head_dim (keys)] f32, f16 or bf16 */
    DLTensor *intermediate_states_buffer;  /* optional: [batch, tokens, num_heads, head_dim, head_dim], dtype of initial_state;
                                              dense */
    const DLTensor *q;                     /* [batch, tokens, num_q_heads, head_dim] f16 or bf16 */
    const DLTensor *k;                     /* [batch, tokens, num_k_heads, head_dim], dtype of q */
    const DLTensor *v;                     /* [batch, tokens, num_v_heads, head_dim], dtype of q */
    const DLTensor *initial_state_indices; /* [batch] i32: the row that is read; below 0: padding, the output is 0 and no state is
                                              touched */
    const DLTensor *A_log;                 /* [num_heads] f32 */
    const DLTensor *a;                     /* [batch, tokens, num_heads], dtype of q */
    const DLTensor *dt_bias;               /* [num_heads] f32, or dtype of q */
    const DLTensor *b;                     /* [batch, tokens, num_heads], dtype of q */
    double scale;                          /* >= 0; 0: 1 / sqrt(head_dim) */
    const DLTensor *ssm_state_indices; /* optional: [batch, tokens] i32, dense: the row of initial_state that the state after that
                                          token goes to, instead of to the buffer; below 0: none. Rows are distinct and
                                          read by nobody else */
    int32_t update_state;              /* 1: the last state is written (FlashInfer's disable_state_update=False) */
    int32_t skip_qk_l2norm;            /* 1: q and k as they are (FlashInfer's use_qk_l2norm=False) */
    const DLTensor *output_state_indices; /* optional: [batch] i32: the row that update_state writes, distinct and read by nobody
                                             else; below 0: none. NULL: the one that is read */
};
FLASHINFER_DECLARE_OP(gated_delta_rule_mtp);

/* Kimi Delta Attention: one or more tokens of each sequence by the delta rule with a decay of each key,
 *
 *     S[:, i] = alpha[i] S[:, i];  u = beta (v - S k);  S = S + u k^T;  output = scale S q
 *
 * alpha = exp(g). Draft tokens: with ssm_state_indices of several columns, the state after each token is kept. Sequences are the
 * batch, tokens each, or with cu_seqlens those tokens of all batch * tokens that it says; num_sequences is the number of
 * either. */
struct flashinfer_recurrent_kda {
    size_t size;
    DLTensor *output;         /* [batch, tokens, num_v_heads, head_dim], dtype of q */
    DLTensor *initial_state;  /* optional: [num_states, num_v_heads, head_dim (values), head_dim (keys)] f32, f16 or bf16, updated
                                 in place; NULL: zeros, and no state is kept */
    DLTensor *state_checkpoints; /* optional: [any, num_v_heads, head_dim, head_dim], dtype of initial_state */
    DLTensor *correction_cache; /* optional: [num_slots, num_v_heads, cache_tokens, head_dim] f32: u of the first cache_tokens
                                   tokens of a sequence, in the slot of the row that is read */
    DLTensor *kg_cache;       /* optional: [num_slots, num_v_heads, cache_tokens, 2 * head_dim], dtype of q: k and g as they are
                                 given, likewise */
    const DLTensor *q;        /* [batch, tokens, num_q_heads, head_dim] f16 or bf16 */
    const DLTensor *k;        /* [batch, tokens, num_q_heads, head_dim], dtype of q */
    const DLTensor *v;        /* [batch, tokens, num_v_heads, head_dim], dtype of q; num_v_heads is a multiple of num_q_heads */
    const DLTensor *g;        /* [batch, tokens, num_v_heads, head_dim], dtype of q: the logarithm of alpha */
    const DLTensor *beta;     /* [batch, tokens, num_v_heads], dtype of q */
    const DLTensor *A_log;    /* [num_q_heads] f32; required by use_gate_in_kernel, else not looked at */
    const DLTensor *dt_bias;  /* optional: [num_q_heads, head_dim] f32, dense, likewise */
    double scale;             /* >= 0; 0: 1 / sqrt(head_dim) */
    int32_t skip_qk_l2norm;   /* 1: q and k as they are (FlashInfer's use_qk_l2norm_in_kernel=False); else they are divided by
                                 sqrt(sum of squares + 1e-6) */
    int32_t use_gate_in_kernel; /* 1: the logarithm of alpha is -exp(A_log) softplus(g + dt_bias), or with lower_bound
                                   lower_bound sigmoid(exp(A_log) (g + dt_bias)) */
    double lower_bound;         /* -100 to 0; 0: none */
    const DLTensor *cu_seqlens; /* optional: [num_sequences + 1] i32 or i64, from 0: sequence i has the tokens cu_seqlens[i] <= t
                                   < cu_seqlens[i + 1] of batch * tokens; none is legal. Read where it lies: a captured graph
                                   replays with other lengths */
    const DLTensor *ssm_state_indices; /* optional: [num_sequences, columns] i32, dense. One column: the row that is read and
                                          written; below 0: padding, the output is 0 and no state is touched. Several: the rows
                                          that the states after each token go to, as far as they go, which without cu_seqlens is
                                          to the end; below 0: none; one of them is read. Rows that are written are distinct and
                                          read by no other sequence. NULL: row i */
    const DLTensor *num_accepted_tokens; /* optional: [num_sequences] i32, 1 to columns: the column of ssm_state_indices that is
                                            read, from 1; smaller and larger ones are taken as these. NULL: the first */
    const DLTensor *initial_state_source;  /* optional: a pool that is read instead of initial_state; shaped and typed as that */
    const DLTensor *initial_state_indices; /* optional: [num_sequences] i32: the rows that are read there, distinct. NULL: row
                                              i */
    int32_t beta_is_logit;                 /* 1: beta = sigmoid(beta) */
    const DLTensor *checkpoint_cu_starts;  /* optional: [num_sequences + 1] i32 or i64 */
    int64_t checkpoint_every_n_tokens;     /* n; 0: no checkpoints, and always with several columns. The state before token j n of
                                              sequence i, that before its first token too, goes to row checkpoint_cu_starts[i] + j
                                              of state_checkpoints, if below checkpoint_cu_starts[i + 1] */
    const DLTensor *checkpoint_state_indices; /* optional: [any] i32: instead, the state after token (j + 1) n - 1 goes to the row
                                                 that element checkpoint_cu_starts[i] + j names; below 0: none. Rows are
                                                 distinct */
    int32_t disable_state_update;          /* 1: no state is written */
};
FLASHINFER_DECLARE_OP(recurrent_kda);

#ifdef __cplusplus
}
#endif

#endif
