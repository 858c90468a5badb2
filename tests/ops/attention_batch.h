/* SPDX-License-Identifier: Apache-2.0 */
/* A batch of requests over a paged KV cache, on a CPU or a GPU, with the calls of a serving step: rotate and append the new
 * tokens, then batch_prefill or batch_decode. Every step that fails ends the test, or the child, with the library's sentence. */
#ifndef TESTS_OPS_ATTENTION_BATCH_H
#define TESTS_OPS_ATTENTION_BATCH_H

#include "core/device.h"
#include "core/dtype.h"
#include "flashinfer/flashinfer.h"

struct attention_shape {
    enum dtype dtype; /* f16 or bf16 */
    int32_t kv_layout, num_qo_heads, num_kv_heads, head_dim, page_size, num_pages;
    int32_t max_batch_size, max_total_qo; /* max_total_qo 0: batch_decode */
    int32_t typical_pages;                /* of a request, that batch_prefill_plan is told; 0: nothing */
    bool full;                            /* batch_prefill that is not causal */
    bool fused;                           /* q, k and v are slices of one row, K and V of one cache [pages, 2, ...] */
    int32_t offset;                       /* elements by which q, k, v and the caches miss their alignment */
    const char *kernel;                   /* of the attention op; NULL: the one that a call takes */
};

enum batch_tensor {
    BATCH_OUT,
    BATCH_LSE,
    BATCH_Q,
    BATCH_K, /* of the new tokens, as BATCH_V */
    BATCH_V,
    BATCH_K_CACHE,
    BATCH_V_CACHE,
    BATCH_QO_INDPTR,
    BATCH_KV_INDPTR,
    BATCH_KV_INDICES,
    BATCH_KV_LAST_PAGE_LEN,
    BATCH_KV_LEN,
    BATCH_INDICES,
    BATCH_POSITIONS,
    BATCH_TENSORS
};

struct attention_batch {
    struct attention_shape shape;
    const struct device *device;
    flashinfer_plan plan;
    flashinfer_exec exec;  /* its workspace is the batch's own */
    int32_t batch, tokens; /* of the last attention_batch_requests */
    DLTensor tensor[BATCH_TENSORS];
    int64_t shapes[BATCH_TENSORS][4], strides[BATCH_TENSORS][4];
    void *memory[BATCH_TENSORS]; /* NULL where a tensor lies in another one's */
};

/* The first device of that type, ready for calls. NULL: there is no such GPU. */
const struct device *attention_batch_device(DLDeviceType type);

/* Allocates everything, fills q, k, v and the caches with numbers that depend on the seed alone, plans. */
void attention_batch_create(struct attention_batch *b, const struct attention_shape *shape, const struct device *device,
                            uint32_t seed);
void attention_batch_destroy(struct attention_batch *b);

/* The numbers again, as they were at first. */
void attention_batch_fill(struct attention_batch *b, uint32_t seed);

/* Gives the requests pages in a random order and writes the tables, padded to the maximum with requests without pages. Lengths
 * are NULL for random ones; those of keys and values hold the new tokens. */
void attention_batch_requests(struct attention_batch *b, int32_t batch, const int32_t *qo_len, const int32_t *kv_len,
                              uint32_t seed);

/* What the tensors show: the requests as they are, or the declared maximum. */
void attention_batch_show(struct attention_batch *b, bool maximum);

/* Rotates q and k in place, writes k and v to the cache. */
flashinfer_status attention_batch_append(const struct attention_batch *b);

flashinfer_status attention_batch_prepare(const struct attention_batch *b);
flashinfer_status attention_batch_run(const struct attention_batch *b);

/* Fills out and lse with one byte. */
void attention_batch_poison(struct attention_batch *b, int byte);

/* Elements of a tensor at its maximum, dense, whatever its strides; the caller frees them. */
void *attention_batch_fetch(const struct attention_batch *b, enum batch_tensor which, size_t *bytes);

/* Bytes of one token of out (which BATCH_OUT) or of lse. */
size_t attention_batch_row(const struct attention_batch *b, enum batch_tensor which);

/* Ends the test, or the child, if the status is not OK. */
#define MUST(call) attention_batch_must((call), __FILE__, __LINE__)
void attention_batch_must(flashinfer_status status, const char *file, int line);

#endif
