/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of the ops on Mamba-2's states as their kernels see them. An absent tensor (NULL) gives zeros. What is
 * filled in through a pointer is zero before, padding too: a call has the same bytes each time. */
#ifndef MAMBA_TENSORS_H
#define MAMBA_TENSORS_H

#include <stdbool.h>

#include "core/tensor.h"
#include "flashinfer/core.h"
#include "op/op.h"
#include "ops/mamba/mamba_args.h"

void mamba_weights(const DLTensor *t, struct head_weights *weights);
struct state_rows mamba_states(const DLTensor *t); /* [rows, steps, heads, dim, state], or without steps */
struct rounding_seed mamba_seed(const flashinfer_number *n);

/* [batch, tokens, heads, dim], or without dim, and where the kernels find it. */
struct mamba_tokens {
    const DLTensor *tensor;
    struct token_rows *rows;
};

/* Strides of tokens are as kernels count them; false if cu_seqlens counts them over the batch and no one stride walks them. */
bool mamba_walk(const struct mamba_tokens *all, int n, const DLTensor *cu_seqlens, int64_t batch, int64_t tokens);
#define MAMBA_NO_STRIDE "batch and tokens cannot be walked with one stride"

/* Heads of a group. Of no heads 1, since a call that does nothing can be prepared, too. */
static inline int64_t mamba_group(int64_t num_heads, int64_t num_groups) { return most(1, num_heads / num_groups); }

/* RANDOM of a kernel: rounds, or 0 where states are rounded to nearest. */
int32_t mamba_random(const flashinfer_number *seed, const DLTensor *state, int32_t rounds);

/* Why a CPU kernel cannot have a part for each head of a sequence, or a CUDA kernel a block, or NULL. */
const char *mamba_too_many(const struct call *call, int64_t sequences, int64_t heads);

/* Fills in the grid: on a CPU that many parts, on a GPU blocks for `rows` of head_dim each, of MAMBA_THREADS unless they have a
 * number. */
enum { MAMBA_THREADS = 128, MAMBA_MAX_GRID_YZ = 65535 };
flashinfer_status mamba_launch(const struct call *call, const struct way *way, struct jit_launch *launch, int64_t sequences,
                               int64_t heads, int64_t head_dim, int64_t rows);

#endif
