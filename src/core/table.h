/* SPDX-License-Identifier: Apache-2.0 */
/* Values found by keys, which are bytes without padding. There is room for 256; where a set of 16 is full, the one whose last use
 * lies back longest makes place. Who takes a value has it alone until giving it back: another who wants one of that set waits.
 *
 *     static struct table table = TABLE(struct key, struct value, make, drop);
 *     struct value *value = table_take(&table, &key);
 *     ...
 *     table_give(value); */
#ifndef CORE_TABLE_H
#define CORE_TABLE_H

#include <pthread.h>
#include <stddef.h>

enum { TABLE_SETS = 16, TABLE_WAYS = 16 };

struct table_entry;

struct table_set {
    pthread_mutex_t mutex;
    struct table_entry *entry[TABLE_WAYS]; /* taken last first */
};

struct table {
    size_t key_bytes, value_bytes;
    void (*make)(const void *key, void *value); /* from zeros */
    void (*drop)(void *value);
    struct table_set set[TABLE_SETS];
};

#define TABLE_SET {.mutex = PTHREAD_MUTEX_INITIALIZER}
#define TABLE_4_SETS TABLE_SET, TABLE_SET, TABLE_SET, TABLE_SET
#define TABLE(key, value, make, drop) \
    {sizeof(key), sizeof(value), make, drop, {TABLE_4_SETS, TABLE_4_SETS, TABLE_4_SETS, TABLE_4_SETS}}

/* NULL if there is no memory; then there is nothing to give back. */
void *table_take(struct table *table, const void *key);
void table_give(void *value);

#endif
