/* SPDX-License-Identifier: Apache-2.0 */
/* One step as a sequence of this library's ops: embedding, layers, logits, draw. */
#include <string.h>

#include "gather.h"
#include "model_state.h"

#define TRY(call)                           \
    do {                                    \
        flashinfer_status status_ = (call); \
        if (status_ != FLASHINFER_OK)       \
            return status_;                 \
    } while (0)

/* A tensor over memory that this file knows the shape of. */
struct view {
    DLTensor t;
    int64_t shape[4], strides[4];
};

#define I32 ((DLDataType){kDLInt, 32, 1})
#define I64 ((DLDataType){kDLInt, 64, 1})
#define F32 ((DLDataType){kDLFloat, 32, 1})

static DLTensor *view(struct view *v, const struct model *m, const void *data, DLDataType dtype, int ndim, const int64_t *shape,
                      const int64_t *strides)
{
    v->t = (DLTensor){.data = (void *)(size_t)data,
                      .device = m->machine->device,
                      .ndim = ndim,
                      .dtype = dtype,
                      .shape = v->shape,
                      .strides = v->strides};
    int64_t dense = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        v->shape[i] = shape[i];
        v->strides[i] = strides ? strides[i] : dense;
        dense *= shape[i];
    }
    return &v->t;
}

/* Views as temporaries of the enclosing block. HEADS: [rows, heads, head_dim] inside rows of `stride` elements. */
#define AXES(...) (const int64_t[]){__VA_ARGS__}
#define DENSE(data, dtype, ...) \
    view(&(struct view){0}, m, data, dtype, (int)(sizeof AXES(__VA_ARGS__) / sizeof(int64_t)), AXES(__VA_ARGS__), NULL)
#define HEADS(data, rows, heads, stride) \
    view(&(struct view){0}, m, data, m->dtype, 3, AXES(rows, heads, s->head_dim), AXES(stride, s->head_dim, 1))

/* out [rows, n] = in [rows, k] times the transpose of weight [n, k]. */
static flashinfer_status product(struct model *m, DLTensor *out, const void *in, const void *weight, int64_t rows, int64_t k,
                                 int64_t n)
{
    return FLASHINFER(mm, &m->exec, .out = out, .a = DENSE(in, m->dtype, rows, k),
                      .b = view(&(struct view){0}, m, weight, m->dtype, 2, AXES(k, n), AXES(1, k)));
}

/* residual += hidden; hidden = the normalised sum. */
static flashinfer_status add_norm(struct model *m, const void *weight)
{
    int64_t rows = m->step.num_tokens, width = m->weights.shape.hidden;
    return FLASHINFER(fused_add_rmsnorm, &m->exec, .input = DENSE(m->hidden, m->dtype, rows, width),
                      .residual = DENSE(m->residual, F32, rows, width), .weight = DENSE(weight, m->dtype, width),
                      .eps = m->weights.shape.eps);
}

/* Attention over the pages of each request; steps of one token a request take the decode kernels. */
static flashinfer_status attend(struct model *m, int layer)
{
    const struct shape *s = &m->weights.shape;
    const struct step *step = &m->step;
    int64_t n = step->num_tokens, requests = step->num_requests, stride = (int64_t)(s->heads + 2 * s->kv_heads) * s->head_dim;
    DLTensor *out = DENSE(m->attention, m->dtype, n, s->heads, s->head_dim);
    DLTensor *q = HEADS(m->qkv, n, s->heads, stride);
    DLTensor *k_cache = DENSE(m->k_cache[layer], m->dtype, m->options.limits.pages, PAGE_SIZE, s->kv_heads, s->head_dim);
    DLTensor *v_cache = DENSE(m->v_cache[layer], m->dtype, m->options.limits.pages, PAGE_SIZE, s->kv_heads, s->head_dim);
    DLTensor *kv_indptr = DENSE(mirror(m, step->kv_indptr), I32, requests + 1);
    DLTensor *kv_indices = DENSE(mirror(m, step->kv_indices), I32, model_table_size(m->options.limits));
    DLTensor *kv_last_page_len = DENSE(mirror(m, step->kv_last_page_len), I32, requests);
    if (n == requests)
        return FLASHINFER(batch_decode, &m->exec, .out = out, .plan = &m->decode_plan, .q = q, .k_cache = k_cache,
                          .v_cache = v_cache, .kv_indptr = kv_indptr, .kv_indices = kv_indices,
                          .kv_last_page_len = kv_last_page_len);
    return FLASHINFER(batch_prefill, &m->exec, .out = out, .plan = &m->prefill_plan, .q = q, .k_cache = k_cache,
                      .v_cache = v_cache, .qo_indptr = DENSE(mirror(m, step->qo_indptr), I32, requests + 1),
                      .kv_indptr = kv_indptr, .kv_indices = kv_indices, .kv_last_page_len = kv_last_page_len);
}

/* hidden = attention of hidden: qkv, rope, append to the cache, attention, output. */
static flashinfer_status attention_block(struct model *m, int layer)
{
    const struct shape *s = &m->weights.shape;
    const struct layer *w = &m->weights.layer[layer];
    const struct step *step = &m->step;
    int64_t n = step->num_tokens, requests = step->num_requests;
    int64_t q_width = (int64_t)s->heads * s->head_dim, kv_width = (int64_t)s->kv_heads * s->head_dim,
            stride = q_width + 2 * kv_width;
    uint16_t *qkv = m->qkv;
    DLTensor *k = HEADS(qkv + q_width, n, s->kv_heads, stride);

    TRY(product(m, DENSE(qkv, m->dtype, n, stride), m->hidden, w->qkv, n, s->hidden, stride));
    TRY(FLASHINFER(apply_rope_pos_ids_inplace, &m->exec, .q = HEADS(qkv, n, s->heads, stride), .k = k,
                   .pos_ids = DENSE(m->positions, I32, n), .interleave = 1, .rope_theta = s->rope_theta));
    TRY(FLASHINFER(append_paged_kv_cache, &m->exec,
                   .k_cache = DENSE(m->k_cache[layer], m->dtype, m->options.limits.pages, PAGE_SIZE, s->kv_heads, s->head_dim),
                   .v_cache = DENSE(m->v_cache[layer], m->dtype, m->options.limits.pages, PAGE_SIZE, s->kv_heads, s->head_dim),
                   .append_key = k, .append_value = HEADS(qkv + q_width + kv_width, n, s->kv_heads, stride),
                   .batch_indices = DENSE(m->batch_indices, I32, n), .positions = DENSE(m->positions, I32, n),
                   .kv_indices = DENSE(mirror(m, step->kv_indices), I32, model_table_size(m->options.limits)),
                   .kv_indptr = DENSE(mirror(m, step->kv_indptr), I32, requests + 1),
                   .kv_last_page_len = DENSE(mirror(m, step->kv_last_page_len), I32, requests)));
    TRY(attend(m, layer));
    return product(m, DENSE(m->hidden, m->dtype, n, s->hidden), m->attention, w->attention_out, n, q_width, s->hidden);
}

/* hidden = down(silu(gate(hidden)) * up(hidden)) */
static flashinfer_status feed_forward_block(struct model *m, int layer)
{
    const struct shape *s = &m->weights.shape;
    const struct layer *w = &m->weights.layer[layer];
    int64_t n = m->step.num_tokens, f = s->intermediate;
    DLTensor *gate_up = DENSE(m->gate_up, m->dtype, n, 2 * f);
    TRY(product(m, gate_up, m->hidden, w->gate_up, n, s->hidden, 2 * f));
    TRY(FLASHINFER(silu_and_mul, &m->exec, .out = DENSE(m->activated, m->dtype, n, f), .input = gate_up));
    return product(m, DENSE(m->hidden, m->dtype, n, s->hidden), m->activated, w->down, n, f, s->hidden);
}

/* The embeddings in hidden, and a residual of zero for the first layer to add them to. */
static flashinfer_status embed(struct model *m)
{
    const struct shape *s = &m->weights.shape;
    const struct step *step = &m->step;
    int64_t n = step->num_tokens, requests = step->num_requests;
    TRY(FLASHINFER(get_batch_indices_positions, &m->exec, .batch_indices = DENSE(m->batch_indices, I32, n),
                   .positions = DENSE(m->positions, I32, n), .nnz = n,
                   .append_indptr = DENSE(mirror(m, step->qo_indptr), I32, requests + 1),
                   .seq_lens = DENSE(mirror(m, step->kv_len), I32, requests)));
    return gather_rows(m->gather, DENSE(m->hidden, m->dtype, n, s->hidden), DENSE(m->residual, F32, n, s->hidden),
                       DENSE(m->weights.embedding, m->dtype, s->vocabulary, s->hidden), DENSE(mirror(m, step->ids), I32, n),
                       &m->exec);
}

flashinfer_status forward(struct model *m)
{
    const struct shape *s = &m->weights.shape;
    const struct weights *w = &m->weights;
    int64_t n = m->step.num_tokens, requests = m->step.num_requests;
    TRY(embed(m));
    for (int i = 0; i < s->layers; i++) {
        TRY(add_norm(m, w->layer[i].attention_norm));
        TRY(attention_block(m, i));
        TRY(add_norm(m, w->layer[i].feed_forward_norm));
        TRY(feed_forward_block(m, i));
    }
    TRY(add_norm(m, w->output_norm));
    DLTensor *last = DENSE(m->last_hidden, m->dtype, requests, s->hidden);
    TRY(gather_rows(m->gather, last, NULL, DENSE(m->hidden, m->dtype, n, s->hidden),
                    DENSE(mirror(m, m->step.last), I32, requests), &m->exec));
    return product(m, DENSE(m->logits, F32, requests, s->vocabulary), m->last_hidden, w->output, requests, s->hidden,
                   s->vocabulary);
}

flashinfer_status draw(struct model *m)
{
    const struct step *step = &m->step;
    int64_t requests = step->num_requests, vocabulary = m->weights.shape.vocabulary;
    DLTensor *probs = DENSE(m->probs, F32, requests, vocabulary);
    TRY(FLASHINFER(softmax, &m->exec, .out = probs, .logits = DENSE(m->logits, F32, requests, vocabulary),
                   .temperature = FLASHINFER_FLOAT(m->options.temperature)));
    return FLASHINFER(top_k_top_p_sampling_from_probs, &m->exec, .samples = DENSE(m->next, I32, requests), .probs = probs,
                      .top_p = FLASHINFER_FLOAT(m->options.top_p),
                      .seed = FLASHINFER_TENSOR(DENSE(mirror(m, step->seed), I64, requests)),
                      .offset = FLASHINFER_TENSOR(DENSE(mirror(m, step->offset), I64, requests)));
}
