/* SPDX-License-Identifier: Apache-2.0 */
/* A LLaMA-type model on this library's ops: weights from a GGUF file, a paged KV cache, and one step of a mixed batch. */
#ifndef GENERATE_MODEL_H
#define GENERATE_MODEL_H

#include "gguf.h"
#include "machine.h"

enum { PAGE_SIZE = 16 };

/* Pages that so many tokens of a request take. */
static inline int pages_of(int tokens) { return (tokens + PAGE_SIZE - 1) / PAGE_SIZE; }

/* How large a step may be. Buffers, and the grids of recorded graphs, follow from these. */
struct limits {
    int requests;       /* in one step */
    int tokens;         /* in one step */
    int request_tokens; /* of one request, prompt and reply */
    int pages;          /* of the KV cache */
};

/* What one step computes: for each request a run of new tokens, whose keys and values are appended to its pages, which exist
 * already. Arrays are the model's own; the caller fills them before each step. */
struct step {
    int num_requests, num_tokens;
    int32_t *ids;              /* [num_tokens], request after request */
    int32_t *qo_indptr;        /* [num_requests + 1]: request i has the tokens [qo_indptr[i], qo_indptr[i + 1]) */
    int32_t *kv_len;           /* [num_requests]: tokens in the cache after this step */
    int32_t *kv_indptr;        /* [num_requests + 1] into kv_indices */
    int32_t *kv_last_page_len; /* [num_requests]: tokens on the last page, 1 to PAGE_SIZE */
    int32_t *kv_indices;       /* [kv_indptr[num_requests]] page ids */
    int32_t *last;             /* [num_requests]: the row whose logits pick the request's next token */
    int64_t *seed, *offset;    /* [num_requests]: what the draw of the next token depends on */
};

/* Entries of a step's page table. */
int64_t model_table_size(struct limits limits);

struct model;

struct model_options {
    struct limits limits;
    bool bf16;   /* else f16 */
    int threads; /* of a CPU */
    double temperature, top_p;
};

/* Loads the weights. NULL on failure, with one sentence. The file may be closed afterwards. */
struct model *model_create(const struct gguf *file, struct machine *machine, const struct model_options *options, char *error,
                           size_t error_size);

void model_destroy(struct model *model); /* NULL is fine */

int32_t model_context_length(const struct gguf *file); /* tokens the model was trained on */
struct step *model_input(struct model *model);

/* Runs the step in model_input and draws each request's next token. False on failure, with one sentence. On a GPU, steps of one
 * token a request are recorded once per number of requests and replayed. */
bool model_step(struct model *model, int32_t *next, char *error, size_t error_size);

/* Runs it and gives the logits of rows `last`, [num_requests, vocabulary] float32, instead. */
bool model_logits(struct model *model, float *logits, char *error, size_t error_size);
int32_t model_vocabulary(const struct model *model);

#endif
