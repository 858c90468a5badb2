/* SPDX-License-Identifier: Apache-2.0 */
/* The decode step. */
#include "tests/gpu/decode_step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/tensor.h"

#include <cmocka.h> /* last: it makes fail() a macro */

enum { BATCH = 8, HIDDEN = 256, QO_HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64, INTERMEDIATE = 512, VOCAB = 1024 };
enum { QKV = (QO_HEADS + 2 * KV_HEADS) * HEAD_DIM };

/* Results stand first; QKV_ROWS and ATTENTION lie in the attention batch. */
enum {
    TOKENS,
    FILTERED_TOKENS,
    VALID,
    PROBS,
    RESIDUAL,
    ATTENTION,
    QKV_ROWS,
    X,
    GATE_UP,
    ACTIVATED,
    FIRST_RESIDUAL,
    NORM,
    W_QKV,
    W_OUT,
    W_GATE_UP,
    W_DOWN,
    W_VOCAB,
    SEEDS
};

static const struct {
    enum dtype dtype;
    int64_t rows, columns;
} forms[STEP_TENSORS] = {
    [TOKENS] = {DTYPE_I32, BATCH, 0},
    [FILTERED_TOKENS] = {DTYPE_I32, BATCH, 0},
    [VALID] = {DTYPE_BOOL, BATCH, 0},
    [PROBS] = {DTYPE_F32, BATCH, VOCAB},
    [RESIDUAL] = {DTYPE_BF16, BATCH, HIDDEN},
    [ATTENTION] = {DTYPE_BF16, BATCH, QO_HEADS *HEAD_DIM},
    [QKV_ROWS] = {DTYPE_BF16, BATCH, QKV},
    [X] = {DTYPE_BF16, BATCH, HIDDEN},
    [GATE_UP] = {DTYPE_BF16, BATCH, 2 * INTERMEDIATE},
    [ACTIVATED] = {DTYPE_BF16, BATCH, INTERMEDIATE},
    [FIRST_RESIDUAL] = {DTYPE_BF16, BATCH, HIDDEN},
    [NORM] = {DTYPE_BF16, HIDDEN, 0},
    [W_QKV] = {DTYPE_BF16, HIDDEN, QKV},
    [W_OUT] = {DTYPE_BF16, QO_HEADS *HEAD_DIM, HIDDEN},
    [W_GATE_UP] = {DTYPE_BF16, HIDDEN, 2 * INTERMEDIATE},
    [W_DOWN] = {DTYPE_BF16, INTERMEDIATE, HIDDEN},
    [W_VOCAB] = {DTYPE_BF16, HIDDEN, VOCAB},
    [SEEDS] = {DTYPE_I64, BATCH, 0},
};

static size_t bytes_of(const DLTensor *t)
{
    return (size_t)tensor_elements(t) * (size_t)dtype_bytes(tensor_dtype(t));
}

/* Any bits will do: 16-bit floats of moderate size, and seeds. */
static void fill(const struct device *device, const DLTensor *t, uint32_t random)
{
    size_t bytes = bytes_of(t);
    uint16_t *values = malloc(bytes);
    assert_non_null(values);
    for (size_t i = 0; i < bytes / sizeof *values; i++) {
        random = random * 1664525u + 1013904223u;
        values[i] = (uint16_t)((random >> 16 & 0x81ff) | 0x3c00);
    }
    MUST(device_upload(device, t->data, values, bytes));
    free(values);
}

void decode_step_create(struct decode_step *s, const struct device *device, cuda_stream stream)
{
    static const int32_t one[BATCH] = {1, 1, 1, 1, 1, 1, 1, 1}, kv_len[BATCH] = {1, 700, 33, 2, 1500, 64, 8, 300};
    const struct attention_shape shape = {.dtype = DTYPE_BF16,
                                          .num_qo_heads = QO_HEADS,
                                          .num_kv_heads = KV_HEADS,
                                          .head_dim = HEAD_DIM,
                                          .page_size = 16,
                                          .num_pages = 200,
                                          .max_batch_size = BATCH,
                                          .fused = true};
    memset(s, 0, sizeof *s);
    attention_batch_create(&s->attention, &shape, device, 1);
    attention_batch_requests(&s->attention, BATCH, one, kv_len, 2);
    s->exec = (flashinfer_exec){.size = sizeof s->exec, .stream = stream};
    s->attention.exec.stream = stream;
    for (int i = 0; i < STEP_TENSORS; i++) {
        DLTensor *t = &s->tensor[i];
        s->shapes[i][0] = forms[i].rows;
        s->shapes[i][1] = forms[i].columns;
        *t = (DLTensor){
            .device = device->id, .ndim = forms[i].columns ? 2 : 1, .dtype = dtype_dlpack(forms[i].dtype), .shape = s->shapes[i]};
        if (i == QKV_ROWS || i == ATTENTION)
            t->data = s->attention.tensor[i == QKV_ROWS ? BATCH_Q : BATCH_OUT].data;
        else
            MUST(device_alloc(device, bytes_of(t), &t->data));
        if (i >= FIRST_RESIDUAL)
            fill(device, t, (uint32_t)i);
    }
}

void decode_step_destroy(struct decode_step *s)
{
    for (int i = 0; i < STEP_TENSORS; i++)
        if (i != QKV_ROWS && i != ATTENTION)
            device_free(s->attention.device, s->tensor[i].data);
    attention_batch_destroy(&s->attention);
}

void decode_step_set_flags(struct decode_step *s, uint32_t flags)
{
    s->exec.flags = s->attention.exec.flags = flags;
}

#define CALL(op, ...)                                                      \
    do {                                                                   \
        flashinfer_status status_ = FLASHINFER(op, &s->exec, __VA_ARGS__); \
        if (status_)                                                       \
            return status_;                                                \
    } while (0)

flashinfer_status decode_step_enqueue(void *step)
{
    struct decode_step *s = step;
    DLTensor *t = s->tensor;
    cuda_pointer residual = (cuda_pointer)(uintptr_t)t[RESIDUAL].data, first = (cuda_pointer)(uintptr_t)t[FIRST_RESIDUAL].data;
    CUDA_TRY(cuda()->copy_async(residual, first, bytes_of(&t[RESIDUAL]), s->exec.stream), "cuMemcpyAsync");
    CALL(rmsnorm, .out = &t[X], .input = &t[RESIDUAL], .weight = &t[NORM]);
    CALL(mm, .out = &t[QKV_ROWS], .a = &t[X], .b = &t[W_QKV]);
    flashinfer_status status = attention_batch_append(&s->attention);
    if (!status)
        status = attention_batch_run(&s->attention);
    if (status)
        return status;
    CALL(mm, .out = &t[X], .a = &t[ATTENTION], .b = &t[W_OUT]);
    CALL(fused_add_rmsnorm, .input = &t[X], .residual = &t[RESIDUAL], .weight = &t[NORM]);
    CALL(mm, .out = &t[GATE_UP], .a = &t[X], .b = &t[W_GATE_UP]);
    CALL(silu_and_mul, .out = &t[ACTIVATED], .input = &t[GATE_UP]);
    CALL(mm, .out = &t[X], .a = &t[ACTIVATED], .b = &t[W_DOWN]);
    CALL(fused_add_rmsnorm, .input = &t[X], .residual = &t[RESIDUAL], .weight = &t[NORM]);
    CALL(mm, .out = &t[PROBS], .a = &t[X], .b = &t[W_VOCAB]);
    CALL(softmax, .out = &t[PROBS], .logits = &t[PROBS], .temperature = FLASHINFER_FLOAT(0.01));
    CALL(sampling_from_probs, .samples = &t[TOKENS], .probs = &t[PROBS], .seed = FLASHINFER_TENSOR(&t[SEEDS]));
    CALL(top_k_top_p_sampling_from_probs, .samples = &t[FILTERED_TOKENS], .valid = &t[VALID], .probs = &t[PROBS],
         .top_k = FLASHINFER_INT(50), .top_p = FLASHINFER_FLOAT(0.9), .seed = FLASHINFER_INT(3));
    return FLASHINFER_OK;
}

void *decode_step_results(const struct decode_step *s, size_t *bytes)
{
    *bytes = 0;
    for (int i = 0; i < STEP_RESULTS; i++)
        *bytes += bytes_of(&s->tensor[i]);
    char *results = malloc(*bytes), *at = results;
    assert_non_null(results);
    DRIVER(cuda()->stream_synchronize(s->exec.stream));
    for (int i = 0; i < STEP_RESULTS; i++) {
        MUST(device_download(s->attention.device, at, s->tensor[i].data, bytes_of(&s->tensor[i])));
        at += bytes_of(&s->tensor[i]);
    }
    return results;
}

void decode_step_poison(struct decode_step *s)
{
    for (int i = 0; i < STEP_RESULTS; i++)
        DRIVER(cuda()->fill_bytes((cuda_pointer)(uintptr_t)s->tensor[i].data, 0x7f, bytes_of(&s->tensor[i])));
    MUST(device_wait(s->attention.device));
}
