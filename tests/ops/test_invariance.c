/* SPDX-License-Identifier: Apache-2.0 */
/* Batch invariance: with fixed_split_size, disable_split_kv or FLASHINFER_BATCH_INVARIANT a request's bits are the same alone and
 * in any batch, whatever the plan's maxima. On the CPU, and on a GPU if there is one. Other ops: test_equal_rows.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "harness/device_memory.h"
#include "tests/ops/attention_batch.h"

#include <cmocka.h> /* last: it makes fail() a macro */

enum { QO_HEADS = 8, KV_HEADS = 2, DIM = 64, PAGE = 16, PAGES = 256, OWN_PAGES = 13, OWN_TOKENS = 5, ROW = QO_HEADS * DIM };
enum { MAX_ARRAYS = 32 };

/* Which promise is asked for, and by which op. */
struct promise {
    bool decode;
    int32_t fixed_split_size, disable_split_kv, pos_encoding_mode;
    flashinfer_number window_left;
    uint32_t flags;
    const char *kernel; /* on a GPU */
    int32_t arch;       /* from which on there is that kernel */
};

static struct {
    const struct device *device;
    void *memory[MAX_ARRAYS];
    int64_t shape[MAX_ARRAYS][4];
    int count;
} arrays;

/* A dense tensor on the device that holds `values`. */
static DLTensor array(enum dtype dtype, const void *values, int ndim, const int64_t *shape)
{
    int64_t elements = 1;
    int i = arrays.count++;
    assert_true(i < MAX_ARRAYS);
    for (int axis = 0; axis < ndim; axis++)
        elements *= arrays.shape[i][axis] = shape[axis];
    size_t bytes = (size_t)(elements * dtype_bytes(dtype));
    MUST(device_alloc(arrays.device, bytes, &arrays.memory[i]));
    MUST(device_upload(arrays.device, arrays.memory[i], values, bytes));
    return (DLTensor){.data = arrays.memory[i],
                      .device = arrays.device->id,
                      .ndim = ndim,
                      .dtype = dtype_dlpack(dtype),
                      .shape = arrays.shape[i]};
}

#define ARRAY(dtype, values, ...) \
    array(dtype, values, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

/* bf16 numbers of either sign, 1/8 to 2 in size. */
static uint16_t *numbers(int64_t count, uint32_t seed)
{
    uint16_t *x = malloc((size_t)count * sizeof *x);
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (uint16_t)((seed >> 16 & 0x81ff) | 0x3e00);
    }
    return x;
}

/* Runs a batch in which the request of interest has `before` others before it and `after` behind it, each with `other_tokens`
 * query tokens; writes its rows of out to `rows`. */
static void run_batch(const struct promise *p, int before, int after, int other_tokens, uint16_t *rows)
{
    int batch = before + 1 + after, own = p->decode ? 1 : OWN_TOKENS, other = p->decode ? 1 : other_tokens;
    int total = own + (before + after) * other, pages = OWN_PAGES + (before + after) * 20, at = 0;
    int32_t qo_indptr[32] = {0}, kv_indptr[32] = {0}, last[32], kv_indices[PAGES * 4];
    for (int b = 0; b < batch; b++) {
        bool is_own = b == before;
        qo_indptr[b + 1] = qo_indptr[b] + (is_own ? own : other);
        kv_indptr[b + 1] = kv_indptr[b] + (is_own ? OWN_PAGES : 20);
        last[b] = is_own ? 7 : 1 + b;
        for (int i = 0; at < kv_indptr[b + 1]; i++, at++)
            kv_indices[at] = is_own ? 17 * i % PAGES : (5 * at + b) % PAGES;
    }
    uint16_t *q_values = numbers((int64_t)total * ROW, 3), *own_q = numbers((int64_t)own * ROW, 1);
    uint16_t *cache = numbers(PAGES * PAGE * KV_HEADS * DIM, 2);
    memcpy(q_values + (int64_t)qo_indptr[before] * ROW, own_q, (size_t)own * ROW * sizeof *own_q);
    arrays.count = 0;
    DLTensor q = ARRAY(DTYPE_BF16, q_values, total, QO_HEADS, DIM), out = ARRAY(DTYPE_BF16, q_values, total, QO_HEADS, DIM);
    DLTensor k = ARRAY(DTYPE_BF16, cache, PAGES, PAGE, KV_HEADS, DIM), v = ARRAY(DTYPE_BF16, cache, PAGES, PAGE, KV_HEADS, DIM);
    DLTensor qo = ARRAY(DTYPE_I32, qo_indptr, batch + 1), kv = ARRAY(DTYPE_I32, kv_indptr, batch + 1);
    DLTensor indices = ARRAY(DTYPE_I32, kv_indices, pages), last_len = ARRAY(DTYPE_I32, last, batch);
    flashinfer_plan plan;
    flashinfer_exec exec = {.size = sizeof exec, .device = arrays.device->id, .flags = p->flags};
    int32_t long_requests[] = {0, 1000}; /* for which keys would be divided */
    DLTensor typical = {.data = long_requests, .device = {kDLCPU, 0}, .ndim = 1, .dtype = {kDLInt, 32, 1},
                        .shape = (int64_t[]){2}};
    if (p->decode)
        MUST(FLASHINFER(batch_decode_plan, &exec, .plan = &plan, .max_batch_size = batch, .num_qo_heads = QO_HEADS,
                        .num_kv_heads = KV_HEADS, .head_dim = DIM, .page_size = PAGE, .q_data_type = q.dtype,
                        .pos_encoding_mode = p->pos_encoding_mode, .fixed_split_size = p->fixed_split_size,
                        .disable_split_kv = p->disable_split_kv));
    else
        MUST(FLASHINFER(batch_prefill_plan, &exec, .plan = &plan, .max_total_qo = total, .max_batch_size = batch,
                        .num_qo_heads = QO_HEADS, .num_kv_heads = KV_HEADS, .head_dim_qk = DIM, .page_size = PAGE, .causal = 1,
                        .kv_indptr = &typical, .q_data_type = q.dtype, .pos_encoding_mode = p->pos_encoding_mode,
                        .fixed_split_size = p->fixed_split_size,
                        .disable_split_kv = p->disable_split_kv, .window_left = p->window_left));
    const struct flashinfer_batch_decode decode = {.size = sizeof decode, .out = &out, .plan = &plan, .q = &q, .k_cache = &k,
                                                   .v_cache = &v, .kv_indptr = &kv, .kv_indices = &indices,
                                                   .kv_last_page_len = &last_len};
    exec.kernel = device_is_cuda(arrays.device) ? p->kernel : NULL;
    MUST(flashinfer_plan_workspace_size(&plan, &exec.workspace_size));
    if (p->decode && exec.kernel)
        MUST(flashinfer_workspace_size("batch_decode", &decode, &exec, &exec.workspace_size));
    MUST(device_alloc(arrays.device, exec.workspace_size + 1, &exec.workspace));
    if (p->decode)
        MUST(flashinfer_batch_decode(&decode, &exec));
    else
        MUST(FLASHINFER(batch_prefill, &exec, .out = &out, .plan = &plan, .q = &q, .k_cache = &k, .v_cache = &v, .qo_indptr = &qo,
                        .kv_indptr = &kv, .kv_indices = &indices, .kv_last_page_len = &last_len));
    MUST(device_wait(arrays.device));
    MUST(device_download(arrays.device, rows, (uint16_t *)out.data + (int64_t)qo_indptr[before] * ROW, (size_t)own * ROW * 2));
    for (int i = 0; i < arrays.count; i++)
        device_free(arrays.device, arrays.memory[i]);
    device_free(arrays.device, exec.workspace);
    free(q_values);
    free(own_q);
    free(cache);
}

static void compare(const struct device *device)
{
    static const struct promise promises[] = {
        {.fixed_split_size = 4},
        {.disable_split_kv = 1},
        {.flags = FLASHINFER_BATCH_INVARIANT},
        {.fixed_split_size = 1, .pos_encoding_mode = FLASHINFER_POS_ENCODING_ALIBI},
        {.fixed_split_size = 4, .kernel = "batch_prefill_sm80"},
        {.fixed_split_size = 4, .kernel = "batch_prefill_sm80", .window_left = {.kind = FLASHINFER_NUMBER_INT, .value.i = 20}},
        {.decode = true, .fixed_split_size = 4},
        {.decode = true, .disable_split_kv = 1},
        {.decode = true, .flags = FLASHINFER_BATCH_INVARIANT},
        {.decode = true, .fixed_split_size = 2, .pos_encoding_mode = FLASHINFER_POS_ENCODING_ROPE_LLAMA},
        {.decode = true, .fixed_split_size = 2, .kernel = "batch_decode_stream_sm80", .arch = 80},
        {.decode = true, .fixed_split_size = 4, .kernel = "batch_decode_stream_sm90", .arch = 90},
    };
    arrays.device = device;
    for (size_t i = 0; i < sizeof promises / sizeof *promises; i++) {
        uint16_t alone[OWN_TOKENS * ROW], among[OWN_TOKENS * ROW];
        if (device->arch < promises[i].arch)
            continue;
        size_t bytes = (size_t)(promises[i].decode ? 1 : OWN_TOKENS) * ROW * 2;
        run_batch(&promises[i], 0, 0, 0, alone);
        run_batch(&promises[i], 2, 1, 1, among);
        assert_memory_equal(alone, among, bytes);
        run_batch(&promises[i], 3, 4, 400, among); /* in tiles of 128 rows */
        assert_memory_equal(alone, among, bytes);
    }
}

static void test_cpu(void **state)
{
    (void)state;
    compare(attention_batch_device(kDLCPU));
}

static void test_gpu(void **state)
{
    (void)state;
    const struct device *device = attention_batch_device(kDLCUDA);
    if (!device)
        skip();
    compare(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cpu), cmocka_unit_test(test_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
