/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/mamba/mamba_tensors.h"

void mamba_weights(const DLTensor *t, struct head_weights *weights)
{
    if (!t)
        return;
    weights->data = tensor_data(t);
    weights->head = tensor_stride(t, 0);
    weights->dim = t->ndim > 1 ? tensor_stride(t, 1) : 0;
    weights->state = t->ndim == 3 ? tensor_stride(t, 2) : 0;
    weights->wide = tensor_is(t, DTYPE_F32);
}

struct state_rows mamba_states(const DLTensor *t)
{
    if (!t)
        return (struct state_rows){0};
    return (struct state_rows){tensor_data(t), tensor_stride(t, 0), t->ndim == 5 ? tensor_stride(t, 1) : 0, tensor_stride(t, -3),
                               tensor_stride(t, -2)};
}

/* Modulo 2^64, since the stride of an axis of one may be any number. */
bool mamba_walk(const struct mamba_tokens *all, int n, const DLTensor *cu_seqlens, int64_t batch, int64_t tokens)
{
    bool one = true;
    for (int i = 0; i < n; i++) {
        const DLTensor *t = all[i].tensor;
        struct token_rows *rows = all[i].rows;
        if (!t)
            continue;
        rows->data = tensor_data(t);
        rows->token = tensor_stride(t, 1);
        rows->head = tensor_stride(t, 2);
        rows->dim = t->ndim > 3 ? tensor_stride(t, 3) : 0;
        rows->wide = tensor_is(t, DTYPE_F32);
        int64_t beyond = wrapping_difference(tensor_stride(t, 0), wrapping_product(rows->token, tokens));
        if (!cu_seqlens) {
            rows->sequence = beyond;
            continue;
        }
        one &= !rows->data || batch <= 1 || tokens <= 1 || beyond == 0;
        if (tokens <= 1 && batch > 1)
            rows->token = tensor_stride(t, 0);
    }
    return one;
}

struct rounding_seed mamba_seed(const flashinfer_number *n)
{
    return (struct rounding_seed){n->kind == FLASHINFER_NUMBER_TENSOR ? tensor_data(n->value.tensor) : NULL,
                                  n->kind == FLASHINFER_NUMBER_INT ? n->value.i : 0};
}

int32_t mamba_random(const flashinfer_number *seed, const DLTensor *state, int32_t rounds)
{
    return seed->kind != FLASHINFER_NUMBER_ABSENT && !tensor_is(state, DTYPE_F32) ? rounds : 0;
}

const char *mamba_too_many(const struct call *call, int64_t sequences, int64_t heads)
{
    if (call->device->id.device_type == kDLCPU)
        return sequences > INT32_MAX / most(heads, 1) ? "there are more states than parts can be counted" : NULL;
    return most(sequences, heads) > MAMBA_MAX_GRID_YZ ? "there are more sequences or heads than a grid has blocks for" : NULL;
}

flashinfer_status mamba_launch(const struct call *call, const struct way *way, struct jit_launch *launch, int64_t sequences,
                               int64_t heads, int64_t head_dim, int64_t rows)
{
    if (!sequences || !heads || !head_dim)
        return FLASHINFER_OK;
    launch->grid[0] = (uint32_t)(sequences * heads);
    if (way->spec[0].kernel->target == JIT_CUDA) {
        launch->grid[0] = (uint32_t)ceil_div(head_dim, rows);
        launch->grid[1] = (uint32_t)heads;
        launch->grid[2] = (uint32_t)sequences;
        launch->block[0] = launch->block[0] ? launch->block[0] : MAMBA_THREADS;
    }
    return call_launch(call, way, 0, launch);
}
