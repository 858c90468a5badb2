/* SPDX-License-Identifier: Apache-2.0 */
/* Values found by keys, which are bytes without padding. A value is made once and stays where it is for the
 * rest of the process, so that looking one up takes no lock:
 *
 *     static struct table table = TABLE(struct key, struct value);
 *     struct value *value = table_get(&table, &key, make); */
#ifndef CORE_TABLE_H
#define CORE_TABLE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

struct table_entry;

struct table {
    size_t key_bytes, value_bytes;
    pthread_mutex_t mutex; /* held by whoever adds */
    _Atomic(struct table_entry *) bucket[256];
};

#define TABLE(key, value) {.key_bytes = sizeof(key), .value_bytes = sizeof(value), .mutex = PTHREAD_MUTEX_INITIALIZER}

/* The value for this key, made from zeros by `make` if it is new; NULL if there is no memory. `make` runs
 * once for each key and one at a time. */
void *table_get(struct table *table, const void *key, void (*make)(const void *key, void *value));

#endif
