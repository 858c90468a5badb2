/* SPDX-License-Identifier: Apache-2.0 */
#include "core/table.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/slot.h"

struct table_entry {
    struct table_set *set;
    uint64_t hash;
    _Alignas(max_align_t) unsigned char bytes[]; /* value, then key */
};

static uint64_t hash_of(const unsigned char *key, size_t bytes)
{
    uint64_t hash = 0, word = 0;
    for (size_t i = 0; i < bytes; i += sizeof word) {
        memcpy(&word, key + i, bytes - i < sizeof word ? bytes - i : sizeof word);
        hash = slot_mix(hash ^ word);
    }
    return hash;
}

static bool is_of(const struct table *table, const struct table_entry *entry, uint64_t hash, const void *key)
{
    return entry->hash == hash && !memcmp(entry->bytes + table->value_bytes, key, table->key_bytes);
}

void *table_take(struct table *table, const void *key)
{
    const uint64_t hash = hash_of(key, table->key_bytes);
    struct table_set *set = &table->set[hash >> 32 & (TABLE_SETS - 1)];
    pthread_mutex_lock(&set->mutex);
    int way = 0;
    while (way < TABLE_WAYS - 1 && set->entry[way] && !is_of(table, set->entry[way], hash, key))
        way++;
    struct table_entry *entry = set->entry[way];
    const bool is_known = entry && is_of(table, entry, hash, key);
    if (!entry && !(entry = calloc(1, sizeof *entry + table->value_bytes + table->key_bytes))) {
        pthread_mutex_unlock(&set->mutex);
        return NULL;
    }
    memmove(set->entry + 1, set->entry, (size_t)way * sizeof *set->entry);
    set->entry[0] = entry;
    if (is_known)
        return entry->bytes;
    if (entry->set) {
        table->drop(entry->bytes);
        memset(entry->bytes, 0, table->value_bytes);
    }
    entry->set = set;
    entry->hash = hash;
    memcpy(entry->bytes + table->value_bytes, key, table->key_bytes);
    table->make(key, entry->bytes);
    return entry->bytes;
}

void table_give(void *value)
{
    struct table_entry *entry = (struct table_entry *)(void *)((char *)value - offsetof(struct table_entry, bytes));
    pthread_mutex_unlock(&entry->set->mutex);
}
