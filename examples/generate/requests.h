/* SPDX-License-Identifier: Apache-2.0 */
/* The requests being served: their tokens, their pages, and which of them take part in the next step. */
#ifndef GENERATE_REQUESTS_H
#define GENERATE_REQUESTS_H

#include "model.h"
#include "pages.h"

struct request {
    int32_t *tokens; /* prompt, then what was generated */
    int num_prompt, num_tokens;
    int num_cached; /* tokens whose keys and values are in the cache */
    int max_tokens; /* prompt included */
    int32_t *pages; /* [ceil(max_tokens / PAGE_SIZE)] */
    int num_pages;
    int num_shared; /* pages that another request had computed */
    bool done;
    double first_token_at; /* seconds since serving began */
};

struct batch {
    struct request *waiting; /* all requests; those before `next` have joined */
    int num_requests, next;
    struct request **running; /* [limits.requests] */
    int num_running, most_running;
    struct limits limits;
    struct page_pool pool;
};

bool batch_create(struct batch *batch, struct request *requests, int num_requests, struct limits limits);
void batch_destroy(struct batch *batch);

/* Requests that are done leave and free their pages; waiting ones join while there is room; then the step is filled: one token
 * for each request that is generating, the next piece of the prompt for the others. False when every request is done. */
bool batch_fill(struct batch *batch, struct step *step, int64_t seed);

/* Takes in the step's outcome: next[i] is the token drawn for running[i], which counts once its whole prompt is in the cache. */
void batch_advance(struct batch *batch, const struct step *step, const int32_t *next);

#endif
