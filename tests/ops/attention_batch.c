/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of requests for tests of attention. */
#include "tests/ops/attention_batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/tensor.h"
#include "harness/device_memory.h"

#include <cmocka.h> /* last: it makes fail() a macro */

void attention_batch_must(flashinfer_status status, const char *file, int line)
{
    if (!status)
        return;
    print_error("%s: %s\n", flashinfer_status_name(status), flashinfer_last_error());
    _fail(file, line);
}

const struct device *attention_batch_device(DLDeviceType type)
{
    const struct device *device;
    flashinfer_status status = device_get((DLDevice){type, 0}, &device);
    if (status && type != kDLCPU)
        return NULL;
    MUST(status);
    MUST(device_enter(device));
    return device;
}

static uint32_t mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* A 16-bit float of either sign, 1/8 to 2 in size. */
static uint16_t number(enum dtype dtype, uint32_t random)
{
    return (uint16_t)(dtype == DTYPE_F16 ? (random & 0x8fff) | 0x3000 : (random & 0x81ff) | 0x3e00);
}

static int32_t max_tokens(const struct attention_batch *b)
{
    return b->shape.max_total_qo ? b->shape.max_total_qo : b->shape.max_batch_size;
}

/* A tensor that lies `offset` elements into memory; strides NULL: dense. */
static void lay(struct attention_batch *b, enum batch_tensor which, enum dtype dtype, void *memory, int64_t offset, int ndim,
                const int64_t *shape, const int64_t *strides)
{
    int64_t dense = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        b->shapes[which][i] = shape[i];
        b->strides[which][i] = strides ? strides[i] : dense;
        dense *= shape[i];
    }
    b->tensor[which] = (DLTensor){.data = (char *)memory + offset * dtype_bytes(dtype),
                                  .device = b->device->id,
                                  .ndim = ndim,
                                  .dtype = dtype_dlpack(dtype),
                                  .shape = b->shapes[which],
                                  .strides = b->strides[which]};
}

#define SIZES(...) ((const int64_t[]){__VA_ARGS__})

static void *allocate(struct attention_batch *b, enum batch_tensor which, int64_t elements, int bytes)
{
    MUST(device_alloc(b->device, (size_t)((elements + b->shape.offset) * bytes), &b->memory[which]));
    return b->memory[which];
}

/* A dense tensor with memory of its own. */
static void own(struct attention_batch *b, enum batch_tensor which, enum dtype dtype, int ndim, const int64_t *shape)
{
    int64_t elements = 1;
    for (int i = 0; i < ndim; i++)
        elements *= shape[i];
    lay(b, which, dtype, allocate(b, which, elements, dtype_bytes(dtype)), dtype == DTYPE_I32 ? 0 : b->shape.offset, ndim, shape,
        NULL);
}

static void lay_out_tokens(struct attention_batch *b)
{
    const struct attention_shape *s = &b->shape;
    int64_t qo = s->num_qo_heads, kv = s->num_kv_heads, dim = s->head_dim, tokens = max_tokens(b), row = (qo + 2 * kv) * dim;
    if (!s->fused) {
        own(b, BATCH_Q, s->dtype, 3, SIZES(tokens, qo, dim));
        own(b, BATCH_K, s->dtype, 3, SIZES(tokens, kv, dim));
        own(b, BATCH_V, s->dtype, 3, SIZES(tokens, kv, dim));
        return;
    }
    void *rows = allocate(b, BATCH_Q, tokens * row, 2);
    lay(b, BATCH_Q, s->dtype, rows, s->offset, 3, SIZES(tokens, qo, dim), SIZES(row, dim, 1));
    lay(b, BATCH_K, s->dtype, rows, s->offset + qo * dim, 3, SIZES(tokens, kv, dim), SIZES(row, dim, 1));
    lay(b, BATCH_V, s->dtype, rows, s->offset + (qo + kv) * dim, 3, SIZES(tokens, kv, dim), SIZES(row, dim, 1));
}

static void lay_out_caches(struct attention_batch *b)
{
    const struct attention_shape *s = &b->shape;
    bool hnd = s->kv_layout == FLASHINFER_HND;
    int64_t outer = hnd ? s->num_kv_heads : s->page_size, inner = hnd ? s->page_size : s->num_kv_heads, dim = s->head_dim,
            page = outer * inner * dim;
    const int64_t *shape = SIZES(s->num_pages, outer, inner, dim), *strides = SIZES(2 * page, inner * dim, dim, 1);
    if (!s->fused) {
        own(b, BATCH_K_CACHE, s->dtype, 4, shape);
        own(b, BATCH_V_CACHE, s->dtype, 4, shape);
        return;
    }
    void *cache = allocate(b, BATCH_K_CACHE, 2 * s->num_pages * page, 2);
    lay(b, BATCH_K_CACHE, s->dtype, cache, s->offset, 4, shape, strides);
    lay(b, BATCH_V_CACHE, s->dtype, cache, s->offset + page, 4, shape, strides);
}

static void make_plan(struct attention_batch *b)
{
    const struct attention_shape *s = &b->shape;
    flashinfer_exec exec = {.size = sizeof exec, .device = b->device->id};
    int32_t pages[] = {0, s->typical_pages};
    DLTensor kv_indptr = {.data = pages, .device = {kDLCPU, 0}, .ndim = 1, .dtype = {kDLInt, 32, 1}, .shape = (int64_t[]){2}};
    if (s->max_total_qo)
        MUST(FLASHINFER(batch_prefill_plan, &exec, .plan = &b->plan, .max_total_qo = s->max_total_qo,
                        .max_batch_size = s->max_batch_size, .kv_layout = s->kv_layout, .num_qo_heads = s->num_qo_heads,
                        .num_kv_heads = s->num_kv_heads, .head_dim_qk = s->head_dim, .page_size = s->page_size,
                        .causal = !s->full, .kv_indptr = s->typical_pages ? &kv_indptr : NULL,
                        .q_data_type = dtype_dlpack(s->dtype)));
    else
        MUST(FLASHINFER(batch_decode_plan, &exec, .plan = &b->plan, .max_batch_size = s->max_batch_size,
                        .kv_layout = s->kv_layout, .num_qo_heads = s->num_qo_heads, .num_kv_heads = s->num_kv_heads,
                        .head_dim = s->head_dim, .page_size = s->page_size, .q_data_type = dtype_dlpack(s->dtype)));
    b->exec = (flashinfer_exec){.size = sizeof b->exec};
    MUST(flashinfer_plan_workspace_size(&b->plan, &b->exec.workspace_size));
    if (b->exec.workspace_size)
        MUST(device_alloc(b->device, b->exec.workspace_size, &b->exec.workspace));
}

void attention_batch_create(struct attention_batch *b, const struct attention_shape *shape, const struct device *device,
                            uint32_t seed)
{
    *b = (struct attention_batch){.shape = *shape, .device = device};
    int64_t tokens = max_tokens(b), batch = shape->max_batch_size, pages = shape->num_pages;
    lay_out_tokens(b);
    lay_out_caches(b);
    own(b, BATCH_OUT, shape->dtype, 3, SIZES(tokens, shape->num_qo_heads, shape->head_dim));
    own(b, BATCH_LSE, DTYPE_F32, 2, SIZES(tokens, shape->num_qo_heads));
    own(b, BATCH_QO_INDPTR, DTYPE_I32, 1, SIZES(batch + 1));
    own(b, BATCH_KV_INDPTR, DTYPE_I32, 1, SIZES(batch + 1));
    own(b, BATCH_KV_INDICES, DTYPE_I32, 1, SIZES(pages));
    own(b, BATCH_KV_LAST_PAGE_LEN, DTYPE_I32, 1, SIZES(batch));
    own(b, BATCH_KV_LEN, DTYPE_I32, 1, SIZES(batch));
    own(b, BATCH_INDICES, DTYPE_I32, 1, SIZES(tokens));
    own(b, BATCH_POSITIONS, DTYPE_I32, 1, SIZES(tokens));
    make_plan(b);
    attention_batch_fill(b, seed);
}

void attention_batch_destroy(struct attention_batch *b)
{
    for (int i = 0; i < BATCH_TENSORS; i++)
        device_free(b->device, b->memory[i]);
    device_free(b->device, b->exec.workspace);
}

/* The bytes from a tensor's first to past its last element at the maximum, and their walk in row-major order. */
struct walk {
    int64_t shape[4], strides[4], span, elements;
};

static struct walk walk_of(const struct attention_batch *b, enum batch_tensor which)
{
    struct walk w = {{1, 1, 1, 1}, {0}, 1, 1};
    const DLTensor *t = &b->tensor[which];
    for (int i = 0; i < t->ndim; i++) {
        bool by_token = i == 0 && (which <= BATCH_V || which == BATCH_INDICES || which == BATCH_POSITIONS);
        w.shape[i] = by_token ? max_tokens(b) : b->shapes[which][i];
        w.strides[i] = b->strides[which][i];
        w.span += (w.shape[i] - 1) * w.strides[i];
        w.elements *= w.shape[i];
    }
    return w;
}

static int64_t place(const struct walk *w, int64_t element)
{
    int64_t at = 0;
    for (int i = 3; i >= 0; i--) {
        at += element % w->shape[i] * w->strides[i];
        element /= w->shape[i];
    }
    return at;
}

void attention_batch_fill(struct attention_batch *b, uint32_t seed)
{
    for (int which = BATCH_Q; which <= BATCH_V_CACHE; which++) {
        struct walk w = walk_of(b, (enum batch_tensor)which);
        uint32_t start = mix(seed + 77 * (uint32_t)which);
        uint16_t *image = malloc((size_t)w.span * sizeof *image);
        assert_non_null(image);
        MUST(device_download(b->device, image, b->tensor[which].data, (size_t)w.span * sizeof *image));
        for (int64_t i = 0; i < w.elements; i++)
            image[place(&w, i)] = number(b->shape.dtype, mix(start + (uint32_t)i));
        MUST(device_upload(b->device, b->tensor[which].data, image, (size_t)w.span * sizeof *image));
        free(image);
    }
}

static void upload(struct attention_batch *b, enum batch_tensor which, const int32_t *values, int32_t count)
{
    MUST(device_upload(b->device, b->tensor[which].data, values, (size_t)count * sizeof *values));
}

/* A random order of the pages. */
static int32_t *shuffled_pages(const struct attention_batch *b, uint32_t seed)
{
    int32_t *pages = malloc((size_t)b->shape.num_pages * sizeof *pages);
    assert_non_null(pages);
    for (int32_t i = 0; i < b->shape.num_pages; i++) {
        int32_t j = (int32_t)(mix(seed + (uint32_t)i) % (uint32_t)(i + 1));
        pages[i] = pages[j];
        pages[j] = i;
    }
    return pages;
}

enum { MOST_REQUESTS = 256 };

void attention_batch_requests(struct attention_batch *b, int32_t batch, const int32_t *qo_len, const int32_t *kv_len,
                              uint32_t seed)
{
    const struct attention_shape *s = &b->shape;
    int32_t qo_indptr[MOST_REQUESTS + 1] = {0}, kv_indptr[MOST_REQUESTS + 1] = {0}, last[MOST_REQUESTS] = {0},
                                      length[MOST_REQUESTS] = {0}, *pages = shuffled_pages(b, seed);
    int32_t qo_room = max_tokens(b) / batch, kv_room = s->num_pages / batch * s->page_size;
    assert_true(batch <= s->max_batch_size && s->max_batch_size <= MOST_REQUESTS);
    for (int32_t i = 0; i < s->max_batch_size; i++) {
        uint32_t random = mix(seed + 1000 + (uint32_t)i);
        int32_t qo = i >= batch ? 0 : qo_len ? qo_len[i] : s->max_total_qo ? (int32_t)(random % (uint32_t)(qo_room + 1)) : 1;
        int32_t kv = i >= batch ? 0 : kv_len ? kv_len[i] : qo + (int32_t)(mix(random) % (uint32_t)(kv_room - qo + 1));
        int32_t count = (kv + s->page_size - 1) / s->page_size;
        qo_indptr[i + 1] = qo_indptr[i] + qo;
        kv_indptr[i + 1] = kv_indptr[i] + count;
        last[i] = count ? kv - (count - 1) * s->page_size : 0;
        length[i] = kv;
    }
    b->batch = batch;
    b->tokens = s->max_total_qo ? qo_indptr[batch] : batch;
    assert_true(kv_indptr[batch] <= s->num_pages && b->tokens <= max_tokens(b));
    upload(b, BATCH_QO_INDPTR, qo_indptr, s->max_batch_size + 1);
    upload(b, BATCH_KV_INDPTR, kv_indptr, s->max_batch_size + 1);
    upload(b, BATCH_KV_INDICES, pages, s->num_pages);
    upload(b, BATCH_KV_LAST_PAGE_LEN, last, s->max_batch_size);
    upload(b, BATCH_KV_LEN, length, s->max_batch_size);
    free(pages);
}

void attention_batch_show(struct attention_batch *b, bool maximum)
{
    int64_t tokens = maximum ? max_tokens(b) : b->tokens, batch = maximum ? b->shape.max_batch_size : b->batch;
    for (int i = BATCH_OUT; i <= BATCH_V; i++)
        b->shapes[i][0] = tokens;
    b->shapes[BATCH_INDICES][0] = b->shapes[BATCH_POSITIONS][0] = tokens;
    b->shapes[BATCH_QO_INDPTR][0] = b->shapes[BATCH_KV_INDPTR][0] = batch + 1;
    b->shapes[BATCH_KV_LAST_PAGE_LEN][0] = b->shapes[BATCH_KV_LEN][0] = batch;
}

#define T(which) ((DLTensor *)(uintptr_t)&b->tensor[BATCH_##which])

flashinfer_status attention_batch_append(const struct attention_batch *b)
{
    flashinfer_status status =
        FLASHINFER(get_batch_indices_positions, &b->exec, .batch_indices = T(INDICES), .positions = T(POSITIONS),
                   .append_indptr = T(QO_INDPTR), .seq_lens = T(KV_LEN), .nnz = b->shapes[BATCH_INDICES][0]);
    if (!status)
        status = FLASHINFER(apply_rope_pos_ids_inplace, &b->exec, .q = T(Q), .k = T(K), .pos_ids = T(POSITIONS));
    if (!status)
        status = FLASHINFER(append_paged_kv_cache, &b->exec, .k_cache = T(K_CACHE), .v_cache = T(V_CACHE), .append_key = T(K),
                            .append_value = T(V), .batch_indices = T(INDICES), .positions = T(POSITIONS),
                            .kv_indices = T(KV_INDICES), .kv_indptr = T(KV_INDPTR), .kv_layout = b->shape.kv_layout);
    return status;
}

/* Calls, or prepares. */
static flashinfer_status run(const struct attention_batch *b,
                             flashinfer_status (*how)(const char *name, const void *args, const flashinfer_exec *exec))
{
    const struct flashinfer_batch_prefill prefill = {.size = sizeof prefill,
                                                     .out = T(OUT),
                                                     .lse = T(LSE),
                                                     .plan = &b->plan,
                                                     .q = T(Q),
                                                     .k_cache = T(K_CACHE),
                                                     .v_cache = T(V_CACHE),
                                                     .qo_indptr = T(QO_INDPTR),
                                                     .kv_indptr = T(KV_INDPTR),
                                                     .kv_indices = T(KV_INDICES),
                                                     .kv_last_page_len = T(KV_LAST_PAGE_LEN)};
    const struct flashinfer_batch_decode decode = {.size = sizeof decode,
                                                   .out = T(OUT),
                                                   .lse = T(LSE),
                                                   .plan = &b->plan,
                                                   .q = T(Q),
                                                   .k_cache = T(K_CACHE),
                                                   .v_cache = T(V_CACHE),
                                                   .kv_indptr = T(KV_INDPTR),
                                                   .kv_indices = T(KV_INDICES),
                                                   .kv_last_page_len = T(KV_LAST_PAGE_LEN)};
    flashinfer_exec exec = b->exec;
    exec.kernel = b->shape.kernel;
    return b->shape.max_total_qo ? how("batch_prefill", &prefill, &exec) : how("batch_decode", &decode, &exec);
}

flashinfer_status attention_batch_prepare(const struct attention_batch *b)
{
    return run(b, flashinfer_prepare);
}

flashinfer_status attention_batch_run(const struct attention_batch *b)
{
    return run(b, flashinfer_call);
}

size_t attention_batch_row(const struct attention_batch *b, enum batch_tensor which)
{
    size_t heads = (size_t)b->shape.num_qo_heads;
    return which == BATCH_OUT ? heads * (size_t)b->shape.head_dim * 2 : heads * 4;
}

void attention_batch_poison(struct attention_batch *b, int byte)
{
    for (int which = BATCH_OUT; which <= BATCH_LSE; which++) {
        size_t bytes = (size_t)max_tokens(b) * attention_batch_row(b, (enum batch_tensor)which);
        void *image = malloc(bytes);
        assert_non_null(image);
        memset(image, byte, bytes);
        MUST(device_upload(b->device, b->tensor[which].data, image, bytes));
        free(image);
    }
}

void *attention_batch_fetch(const struct attention_batch *b, enum batch_tensor which, size_t *bytes)
{
    struct walk w = walk_of(b, which);
    size_t size = (size_t)dtype_bytes(tensor_dtype(&b->tensor[which]));
    char *image = malloc((size_t)w.span * size), *dense = malloc((size_t)w.elements * size);
    assert_true(image && dense);
    MUST(device_wait(b->device));
    MUST(device_download(b->device, image, b->tensor[which].data, (size_t)w.span * size));
    for (int64_t i = 0; i < w.elements; i++)
        memcpy(dense + (size_t)i * size, image + (size_t)place(&w, i) * size, size);
    free(image);
    *bytes = (size_t)w.elements * size;
    return dense;
}
