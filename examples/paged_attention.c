/* SPDX-License-Identifier: Apache-2.0 */
/* A decode step over a paged cache, on the CPU: two requests append the key and value of their newest token, then attend to all
 * of theirs. Values are 1 in the first request and 2 in the second, so that each mean of them must be that. On a GPU the arrays
 * lie there, tensors and exec.device say kDLCUDA, exec.stream is the stream, and all else is the same. */
#include <flashinfer/flashinfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQUESTS = 2, QO_HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64, PAGE_SIZE = 16, PAGES = 3 };

static const DLDataType bf16 = {kDLBfloat, 16, 1}, i32 = {kDLInt, 32, 1};

static DLTensor on_cpu(void *data, DLDataType dtype, int ndim, int64_t *shape)
{
    return (DLTensor){.data = data, .device = {kDLCPU, 0}, .ndim = ndim, .dtype = dtype, .shape = shape};
}

static uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static float from_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, flashinfer_last_error());
    return 1;
}

int main(void)
{
    static uint16_t k_cache[PAGES][PAGE_SIZE][KV_HEADS][HEAD_DIM], v_cache[PAGES][PAGE_SIZE][KV_HEADS][HEAD_DIM];
    static uint16_t q[REQUESTS][QO_HEADS][HEAD_DIM], out[REQUESTS][QO_HEADS][HEAD_DIM];
    static uint16_t key[REQUESTS][KV_HEADS][HEAD_DIM], value[REQUESTS][KV_HEADS][HEAD_DIM];
    /* 20 tokens of request 0 on pages 2 and 0, 5 of request 1 on page 1, the newest included. */
    int32_t kv_indptr[] = {0, 2, 3}, kv_indices[] = {2, 0, 1}, kv_last_page_len[] = {4, 5};
    int32_t batch_indices[] = {0, 1}, positions[] = {19, 4};
    for (int request = 0; request < REQUESTS; request++) {
        uint16_t *v = &value[request][0][0], *k = &key[request][0][0], *query = &q[request][0][0];
        for (int i = 0; i < KV_HEADS * HEAD_DIM; i++) {
            k[i] = to_bf16((float)(i % 7) / 8);
            v[i] = to_bf16((float)(request + 1));
        }
        for (int i = 0; i < QO_HEADS * HEAD_DIM; i++)
            query[i] = to_bf16((float)(i % 5) / 4);
        for (int entry = kv_indptr[request]; entry < kv_indptr[request + 1]; entry++)
            for (int i = 0; i < PAGE_SIZE * KV_HEADS * HEAD_DIM; i++) {
                (&k_cache[kv_indices[entry]][0][0][0])[i] = to_bf16((float)(i % 11) / 8);
                (&v_cache[kv_indices[entry]][0][0][0])[i] = v[0];
            }
    }

    int64_t cache_shape[] = {PAGES, PAGE_SIZE, KV_HEADS, HEAD_DIM}, q_shape[] = {REQUESTS, QO_HEADS, HEAD_DIM};
    int64_t new_shape[] = {REQUESTS, KV_HEADS, HEAD_DIM}, batch_shape[] = {REQUESTS}, indptr_shape[] = {REQUESTS + 1};
    int64_t indices_shape[] = {sizeof kv_indices / sizeof *kv_indices};
    DLTensor caches[] = {on_cpu(k_cache, bf16, 4, cache_shape), on_cpu(v_cache, bf16, 4, cache_shape)};
    DLTensor new_tokens[] = {on_cpu(key, bf16, 3, new_shape), on_cpu(value, bf16, 3, new_shape)};
    DLTensor queries = on_cpu(q, bf16, 3, q_shape), results = on_cpu(out, bf16, 3, q_shape);
    DLTensor indptr = on_cpu(kv_indptr, i32, 1, indptr_shape), indices = on_cpu(kv_indices, i32, 1, indices_shape);
    DLTensor last = on_cpu(kv_last_page_len, i32, 1, batch_shape);
    DLTensor request_of = on_cpu(batch_indices, i32, 1, batch_shape), place = on_cpu(positions, i32, 1, batch_shape);

    /* Once: how large a step may be. Lengths and pages are read by each run. */
    flashinfer_exec exec = {.size = sizeof exec, .device = {kDLCPU, 0}};
    flashinfer_plan plan;
    if (FLASHINFER(batch_decode_plan, &exec, .plan = &plan, .max_batch_size = REQUESTS, .num_qo_heads = QO_HEADS,
                   .num_kv_heads = KV_HEADS, .head_dim = HEAD_DIM, .page_size = PAGE_SIZE, .q_data_type = bf16))
        return failed("batch_decode_plan");
    if (flashinfer_plan_workspace_size(&plan, &exec.workspace_size))
        return failed("flashinfer_plan_workspace_size");
    exec.workspace_size = (exec.workspace_size + 255) / 256 * 256;
    exec.workspace = exec.workspace_size ? aligned_alloc(256, exec.workspace_size) : NULL;

    /* In each step: append, attend. */
    if (FLASHINFER(append_paged_kv_cache, &exec, .k_cache = &caches[0], .v_cache = &caches[1], .append_key = &new_tokens[0],
                   .append_value = &new_tokens[1], .batch_indices = &request_of, .positions = &place, .kv_indices = &indices,
                   .kv_indptr = &indptr))
        return failed("append_paged_kv_cache");
    if (FLASHINFER(batch_decode, &exec, .out = &results, .plan = &plan, .q = &queries, .k_cache = &caches[0],
                   .v_cache = &caches[1], .kv_indptr = &indptr, .kv_indices = &indices, .kv_last_page_len = &last))
        return failed("batch_decode");
    free(exec.workspace);

    int wrong = 0;
    for (int request = 0; request < REQUESTS; request++) {
        printf("request %d: %g\n", request, (double)from_bf16(out[request][0][0]));
        for (int i = 0; i < QO_HEADS * HEAD_DIM; i++)
            wrong += (&out[request][0][0])[i] != to_bf16((float)(request + 1));
    }
    return wrong != 0;
}
