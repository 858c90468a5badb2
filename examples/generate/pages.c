/* SPDX-License-Identifier: Apache-2.0 */
/* The pages of a KV cache: a stack of free ones, a count of users for each. */
#include "pages.h"

#include <stdlib.h>

bool page_pool_create(struct page_pool *pool, int num_pages)
{
    *pool = (struct page_pool){.num_pages = num_pages, .num_free = num_pages};
    pool->free = malloc(sizeof *pool->free * (size_t)num_pages);
    pool->users = calloc((size_t)num_pages, sizeof *pool->users);
    if (!pool->free || !pool->users) {
        page_pool_destroy(pool);
        return false;
    }
    for (int i = 0; i < num_pages; i++)
        pool->free[i] = num_pages - 1 - i;
    return true;
}

void page_pool_destroy(struct page_pool *pool)
{
    free(pool->free);
    free(pool->users);
    *pool = (struct page_pool){0};
}

int32_t page_take(struct page_pool *pool)
{
    if (pool->num_free == 0)
        return -1;
    int32_t page = pool->free[--pool->num_free];
    pool->users[page] = 1;
    if (pool->num_pages - pool->num_free > pool->most_used)
        pool->most_used = pool->num_pages - pool->num_free;
    return page;
}

void page_share(struct page_pool *pool, int32_t page) { pool->users[page]++; }

void page_release(struct page_pool *pool, int32_t page)
{
    if (--pool->users[page] == 0)
        pool->free[pool->num_free++] = page;
}
