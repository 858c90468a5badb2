/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the model: where everything lies. Every tensor has a fixed place, so that the same launches serve every step, eager or
 * recorded. */
#ifndef GENERATE_MODEL_STATE_H
#define GENERATE_MODEL_STATE_H

#include "model.h"
#include "weights.h"

enum { MAX_RECORDED = 1024 };

/* What a step reads from the caller, in one block: on the host, and mirrored where the model runs. */
struct input {
    char *host, *device;
    size_t bytes;
};

struct model {
    struct machine *machine;
    struct model_options options;
    struct weights weights;
    struct flashinfer_exec exec;
    flashinfer_kernel *gather;
    DLDataType dtype;

    struct step step;
    struct input input;
    /* [tokens, ...] in dtype; the residual stream in float32, since sixty roundings of it would cost most of the accuracy */
    void *hidden, *qkv, *attention, *gate_up, *activated;
    float *residual;
    int32_t *batch_indices, *positions; /* [tokens] */
    /* [requests, ...] */
    void *last_hidden; /* in dtype */
    float *logits, *probs;
    int32_t *next;
    void *k_cache[MAX_LAYERS], *v_cache[MAX_LAYERS]; /* [pages, PAGE_SIZE, kv_heads, head_dim] in dtype */

    flashinfer_plan prefill_plan, decode_plan;
    machine_graph *recorded[MAX_RECORDED + 1]; /* by number of requests */
    bool is_warm[MAX_RECORDED + 1];            /* an eager step of that size has compiled what it needs */
};

/* Where the model runs lies what the caller wrote to `host`, a pointer into the input block. */
static inline void *mirror(const struct model *m, const void *host)
{
    return m->input.device + ((const char *)host - m->input.host);
}

/* Enqueues embedding, layers and logits of the step. */
flashinfer_status forward(struct model *m);

/* Enqueues the draw of each request's next token from the logits. */
flashinfer_status draw(struct model *m);

#endif
