/* SPDX-License-Identifier: Apache-2.0 */
/* The pages of a KV cache: which are free, and how many requests use each. A full page of a common prefix is stored once. */
#ifndef GENERATE_PAGES_H
#define GENERATE_PAGES_H

#include <stdbool.h>
#include <stdint.h>

struct page_pool {
    int num_pages, num_free;
    int most_used;    /* the most pages in use at any time */
    int32_t *free;    /* [num_free] ids, the last is taken next */
    int32_t *users;   /* [num_pages] */
};

bool page_pool_create(struct page_pool *pool, int num_pages);
void page_pool_destroy(struct page_pool *pool);

/* A page for one user; -1 if none is free. */
int32_t page_take(struct page_pool *pool);
void page_share(struct page_pool *pool, int32_t page);
void page_release(struct page_pool *pool, int32_t page);

#endif
