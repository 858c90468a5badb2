/* SPDX-License-Identifier: Apache-2.0 */
/* The model's memory, plans and workspace, and how a step runs: uploaded, then eager, or recorded once and replayed. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gather.h"
#include "model_state.h"

enum { CUBLASLT_BYTES = 32 << 20 }; /* what cuBLASLt makes use of in large products */

/* Lays the arrays of a step one after the other; a NULL block only counts. */
static size_t lay_out_input(struct step *step, struct limits limits, char *block)
{
    size_t at = 0;
#define PLACE(field, count)                          \
    do {                                             \
        at = (at + 255) / 256 * 256;                 \
        step->field = (void *)(block + at);          \
        at += sizeof *step->field * (size_t)(count); \
    } while (0)
    PLACE(ids, limits.tokens);
    PLACE(qo_indptr, limits.requests + 1);
    PLACE(kv_len, limits.requests);
    PLACE(kv_indptr, limits.requests + 1);
    PLACE(kv_last_page_len, limits.requests);
    PLACE(last, limits.requests);
    PLACE(seed, limits.requests);
    PLACE(offset, limits.requests);
    PLACE(kv_indices, model_table_size(limits));
#undef PLACE
    return at;
}

static bool allocate(struct model *m)
{
    const struct shape *s = &m->weights.shape;
    struct limits limits = m->options.limits;
    size_t tokens = (size_t)limits.tokens, requests = (size_t)limits.requests, hidden = (size_t)s->hidden;
    size_t q = (size_t)(s->heads * s->head_dim), kv = (size_t)(s->kv_heads * s->head_dim), element = sizeof(uint16_t);
    size_t page = PAGE_SIZE * kv * element, vocabulary = (size_t)s->vocabulary;
    struct {
        void **to;
        size_t bytes;
    } pieces[] = {
        {&m->hidden, tokens * hidden * element},
        {(void **)&m->residual, tokens * hidden * sizeof(float)},
        {&m->qkv, tokens * (q + 2 * kv) * element},
        {&m->attention, tokens * q * element},
        {&m->gate_up, tokens * 2 * (size_t)s->intermediate * element},
        {&m->activated, tokens * (size_t)s->intermediate * element},
        {(void **)&m->batch_indices, tokens * sizeof(int32_t)},
        {(void **)&m->positions, tokens * sizeof(int32_t)},
        {&m->last_hidden, requests * hidden * element},
        {(void **)&m->logits, requests * vocabulary * sizeof(float)},
        {(void **)&m->probs, requests * vocabulary * sizeof(float)},
        {(void **)&m->next, requests * sizeof(int32_t)},
    };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        if (!(*pieces[i].to = machine_alloc(m->machine, pieces[i].bytes)))
            return false;
    for (int i = 0; i < s->layers; i++)
        if (!(m->k_cache[i] = machine_alloc(m->machine, (size_t)limits.pages * page)) ||
            !(m->v_cache[i] = machine_alloc(m->machine, (size_t)limits.pages * page)))
            return false;
    m->input.bytes = lay_out_input(&m->step, limits, NULL);
    m->input.host = calloc(1, m->input.bytes);
    m->input.device = machine_alloc(m->machine, m->input.bytes);
    if (!m->input.host || !m->input.device)
        return false;
    lay_out_input(&m->step, limits, m->input.host);
    return true;
}

/* Plans attention, and allocates the largest workspace that any call of a step needs. */
static flashinfer_status plan(struct model *m)
{
    const struct shape *s = &m->weights.shape;
    struct limits limits = m->options.limits;
    struct flashinfer_exec exec = {.size = sizeof exec, .device = m->machine->device};
    flashinfer_status status =
        FLASHINFER(batch_prefill_plan, &exec, .plan = &m->prefill_plan, .max_total_qo = limits.tokens,
                   .max_batch_size = limits.requests, .num_qo_heads = s->heads, .num_kv_heads = s->kv_heads,
                   .head_dim_qk = s->head_dim, .page_size = PAGE_SIZE, .causal = 1, .q_data_type = m->dtype);
    if (status == FLASHINFER_OK)
        status = FLASHINFER(batch_decode_plan, &exec, .plan = &m->decode_plan, .max_batch_size = limits.requests,
                            .num_qo_heads = s->heads, .num_kv_heads = s->kv_heads, .head_dim = s->head_dim,
                            .page_size = PAGE_SIZE, .q_data_type = m->dtype);
    return status;
}

static flashinfer_status allocate_workspace(struct model *m)
{
    size_t prefill = 0, decode = 0, bytes = machine_is_gpu(m->machine) ? CUBLASLT_BYTES : 256;
    flashinfer_status status = flashinfer_plan_workspace_size(&m->prefill_plan, &prefill);
    if (status == FLASHINFER_OK)
        status = flashinfer_plan_workspace_size(&m->decode_plan, &decode);
    bytes = prefill > bytes ? prefill : bytes;
    bytes = decode > bytes ? decode : bytes;
    m->exec.workspace_size = bytes;
    m->exec.workspace = machine_alloc(m->machine, bytes);
    return status;
}

struct model *model_create(const struct gguf *file, struct machine *machine, const struct model_options *options, char *error,
                           size_t error_size)
{
    struct model *m = calloc(1, sizeof *m);
    if (!m) {
        snprintf(error, error_size, "no memory");
        return NULL;
    }
    m->machine = machine;
    m->options = *options;
    m->dtype = options->bf16 ? (DLDataType){kDLBfloat, 16, 1} : (DLDataType){kDLFloat, 16, 1};
    m->exec = (struct flashinfer_exec){
        .size = sizeof m->exec, .stream = machine->stream, .threads = options->threads, .flags = FLASHINFER_PDL};
    bool ok = weights_load(&m->weights, file, machine, options->bf16, error, error_size);
    if (ok && !allocate(m)) {
        snprintf(error, error_size, "%s", machine_error());
        ok = false;
    }
    if (ok && (plan(m) || allocate_workspace(m) || gather_create(&m->gather))) {
        snprintf(error, error_size, "%s", flashinfer_last_error());
        ok = false;
    }
    if (ok && !m->exec.workspace) {
        snprintf(error, error_size, "%s", machine_error());
        ok = false;
    }
    if (!ok) {
        model_destroy(m);
        return NULL;
    }
    return m;
}

void model_destroy(struct model *m)
{
    if (!m)
        return;
    flashinfer_kernel_destroy(m->gather);
    free(m->input.host);
    free(m);
}

int32_t model_context_length(const struct gguf *file)
{
    int32_t length = INT32_MAX;
    gguf_get_i32(file, "llama.context_length", &length);
    return length;
}

int64_t model_table_size(struct limits limits)
{
    return (int64_t)limits.requests * pages_of(limits.request_tokens);
}

struct step *model_input(struct model *m)
{
    return &m->step;
}
int32_t model_vocabulary(const struct model *m)
{
    return m->weights.shape.vocabulary;
}

static bool upload(struct model *m)
{
    /* The page table is the last array: what no request of this step uses of it stays behind. */
    const int32_t *end = m->step.kv_indices + m->step.kv_indptr[m->step.num_requests];
    return machine_upload(m->machine, m->input.device, m->input.host, (size_t)((const char *)end - m->input.host));
}

static flashinfer_status step_eager(struct model *m)
{
    flashinfer_status status = forward(m);
    return status == FLASHINFER_OK ? draw(m) : status;
}

/* Records the step once its kernels are compiled, which the first eager step of that many requests did. */
static bool replay(struct model *m, char *error, size_t error_size)
{
    machine_graph **graph = &m->recorded[m->step.num_requests];
    if (!*graph) {
        flashinfer_status status = FLASHINFER_OK;
        if (machine_record(m->machine)) {
            status = step_eager(m);
            *graph = machine_record_end(m->machine);
        }
        if (status != FLASHINFER_OK || !*graph) {
            snprintf(error, error_size, "%s", status ? flashinfer_last_error() : machine_error());
            return false;
        }
    }
    if (machine_replay(m->machine, *graph))
        return true;
    snprintf(error, error_size, "%s", machine_error());
    return false;
}

static bool run(struct model *m, flashinfer_status (*enqueue)(struct model *), char *error, size_t error_size)
{
    if (enqueue(m) == FLASHINFER_OK)
        return true;
    snprintf(error, error_size, "%s", flashinfer_last_error());
    return false;
}

static bool download(struct model *m, void *to, const void *from, size_t bytes, char *error, size_t error_size)
{
    if (machine_download(m->machine, to, from, bytes))
        return true;
    snprintf(error, error_size, "%s", machine_error());
    return false;
}

bool model_step(struct model *m, int32_t *next, char *error, size_t error_size)
{
    int requests = m->step.num_requests;
    bool is_decode = m->step.num_tokens == requests && requests <= MAX_RECORDED;
    bool is_recordable = machine_is_gpu(m->machine) && is_decode && m->is_warm[requests];
    if (!upload(m)) {
        snprintf(error, error_size, "%s", machine_error());
        return false;
    }
    if (!(is_recordable ? replay(m, error, error_size) : run(m, step_eager, error, error_size)))
        return false;
    if (is_decode)
        m->is_warm[requests] = true;
    return download(m, next, m->next, sizeof *next * (size_t)requests, error, error_size);
}

bool model_logits(struct model *m, float *logits, char *error, size_t error_size)
{
    if (!upload(m)) {
        snprintf(error, error_size, "%s", machine_error());
        return false;
    }
    size_t bytes = sizeof *logits * (size_t)m->step.num_requests * (size_t)m->weights.shape.vocabulary;
    return run(m, forward, error, error_size) && download(m, logits, m->logits, bytes, error, error_size);
}
