/* SPDX-License-Identifier: Apache-2.0 */
/* Chains that only grow. */
#include "core/table.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = sizeof(((struct table *)0)->bucket) / sizeof(((struct table *)0)->bucket[0]) };

struct table_entry {
    struct table_entry *next;
    _Alignas(max_align_t) unsigned char bytes[]; /* value, then key */
};

static size_t bucket_of(const unsigned char *key, size_t bytes)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ key[i]) * UINT64_C(0x100000001b3);
    return (size_t)(hash >> 32) % BUCKETS;
}

static struct table_entry *find(const struct table *table, size_t bucket, const void *key)
{
    struct table_entry *entry = atomic_load_explicit(&table->bucket[bucket], memory_order_acquire);
    while (entry && memcmp(entry->bytes + table->value_bytes, key, table->key_bytes))
        entry = entry->next;
    return entry;
}

void *table_get(struct table *table, const void *key, void (*make)(const void *key, void *value))
{
    size_t bucket = bucket_of(key, table->key_bytes);
    struct table_entry *entry = find(table, bucket, key);
    if (entry)
        return entry->bytes;
    pthread_mutex_lock(&table->mutex);
    entry = find(table, bucket, key);
    if (!entry && (entry = calloc(1, sizeof *entry + table->value_bytes + table->key_bytes))) {
        memcpy(entry->bytes + table->value_bytes, key, table->key_bytes);
        make(key, entry->bytes);
        entry->next = atomic_load_explicit(&table->bucket[bucket], memory_order_relaxed);
        atomic_store_explicit(&table->bucket[bucket], entry, memory_order_release);
    }
    pthread_mutex_unlock(&table->mutex);
    return entry ? entry->bytes : NULL;
}
