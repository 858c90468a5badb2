/* SPDX-License-Identifier: Apache-2.0 */
/* Continuous batching: who joins, what each request contributes to a step, who leaves. Pages for a whole request are reserved
 * when it joins, taken as it grows, and shared where its prompt begins like that of a running request. */
#include "requests.h"

#include <stdlib.h>
#include <string.h>

bool batch_create(struct batch *batch, struct request *requests, int num_requests, struct limits limits)
{
    *batch = (struct batch){.waiting = requests, .num_requests = num_requests, .limits = limits};
    batch->running = malloc(sizeof *batch->running * (size_t)limits.requests);
    return batch->running && page_pool_create(&batch->pool, limits.pages);
}

void batch_destroy(struct batch *batch)
{
    free(batch->running);
    page_pool_destroy(&batch->pool);
}

/* Full pages at the start of r's prompt that hold the same tokens as `other`'s; the last token is left to compute. */
static int common_pages(const struct request *r, const struct request *other)
{
    int longest = r->num_prompt - 1 < other->num_prompt ? r->num_prompt - 1 : other->num_prompt;
    int same = 0;
    while (same < longest && r->tokens[same] == other->tokens[same])
        same++;
    return same / PAGE_SIZE;
}

static void share_pages(struct batch *batch, struct request *r, const struct request *other, int num_pages)
{
    for (int i = 0; i < num_pages; i++) {
        page_share(&batch->pool, other->pages[i]);
        r->pages[i] = other->pages[i];
    }
    r->num_pages = r->num_shared = num_pages;
    r->num_cached = num_pages * PAGE_SIZE;
}

/* Pages that running requests may still take. */
static int reserved_pages(const struct batch *batch)
{
    int pages = 0;
    for (int i = 0; i < batch->num_running; i++)
        pages += pages_of(batch->running[i]->max_tokens) - batch->running[i]->num_pages;
    return pages;
}

/* False if it must wait: for room, or one step for a prefix that is being computed. */
static bool try_join(struct batch *batch, struct request *r)
{
    if (batch->num_running == batch->limits.requests || pages_of(r->max_tokens) > batch->pool.num_free - reserved_pages(batch))
        return false;
    const struct request *best = NULL;
    int most = 0;
    for (int i = 0; i < batch->num_running; i++) {
        int pages = common_pages(r, batch->running[i]);
        if (pages > most) {
            most = pages;
            best = batch->running[i];
        }
    }
    if (most > 0 && best->num_cached < most * PAGE_SIZE)
        return false;
    if (most > 0)
        share_pages(batch, r, best, most);
    batch->running[batch->num_running++] = r;
    if (batch->num_running > batch->most_running)
        batch->most_running = batch->num_running;
    return true;
}

static void leave(struct batch *batch)
{
    int kept = 0;
    for (int i = 0; i < batch->num_running; i++) {
        struct request *r = batch->running[i];
        if (!r->done) {
            batch->running[kept++] = r;
            continue;
        }
        for (int j = 0; j < r->num_pages; j++)
            page_release(&batch->pool, r->pages[j]);
        r->num_pages = 0;
    }
    batch->num_running = kept;
}

/* Appends request r's share of the step: tokens, at least one, and its page table. */
static void fill_request(struct batch *batch, struct step *step, struct request *r, int tokens, int64_t seed)
{
    int i = step->num_requests++;
    int kv_len = r->num_cached + tokens;
    memcpy(step->ids + step->num_tokens, r->tokens + r->num_cached, sizeof *r->tokens * (size_t)tokens);
    step->num_tokens += tokens;
    while (r->num_pages < pages_of(kv_len))
        r->pages[r->num_pages++] = page_take(&batch->pool);
    step->qo_indptr[i + 1] = step->num_tokens;
    step->kv_len[i] = kv_len;
    step->kv_indptr[i + 1] = step->kv_indptr[i] + pages_of(kv_len);
    step->kv_last_page_len[i] = kv_len - (pages_of(kv_len) - 1) * PAGE_SIZE;
    memcpy(step->kv_indices + step->kv_indptr[i], r->pages, sizeof *r->pages * (size_t)pages_of(kv_len));
    step->last[i] = step->num_tokens - 1;
    step->seed[i] = seed + (r - batch->waiting);
    step->offset[i] = kv_len;
}

bool batch_fill(struct batch *batch, struct step *step, int64_t seed)
{
    leave(batch);
    while (batch->next < batch->num_requests && try_join(batch, &batch->waiting[batch->next]))
        batch->next++;

    step->num_requests = step->num_tokens = 0;
    step->qo_indptr[0] = step->kv_indptr[0] = 0;
    /* Everyone gets one token, so that a long prompt cannot crowd out those that generate; prompts share what is left. */
    int room = batch->limits.tokens - batch->num_running;
    for (int i = 0; i < batch->num_running; i++) {
        struct request *r = batch->running[i];
        int wanted = r->num_tokens - r->num_cached;
        int tokens = wanted - 1 < room ? wanted : room + 1;
        room -= tokens - 1;
        fill_request(batch, step, r, tokens, seed);
    }
    return batch->num_running > 0;
}

void batch_advance(struct batch *batch, const struct step *step, const int32_t *next)
{
    for (int i = 0; i < batch->num_running; i++) {
        struct request *r = batch->running[i];
        r->num_cached = step->kv_len[i];
        if (r->num_cached == r->num_tokens) {
            r->tokens[r->num_tokens++] = next[i];
            r->done = r->num_tokens == r->max_tokens;
        }
    }
}
