/* SPDX-License-Identifier: Apache-2.0 */
/* Tables that forget: a value is made once while it is in use, what was taken lately stays, what goes is dropped, and a value is
 * one thread's at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdatomic.h>

#include <cmocka.h>

#include "core/table.h"

enum { ROOM = TABLE_SETS * TABLE_WAYS, MANY = 100 * ROOM, THREADS = 4, ROUNDS = 20000, FEW = 40 };

struct key {
    int64_t a, b;
    int32_t c, d;
};

struct value {
    struct key key;
    int64_t taken; /* not atomic: whoever has it has it alone */
};

static atomic_int made, dropped;

static void make(const void *key, void *value)
{
    struct value *v = value;
    assert_int_equal(v->taken, 0);
    v->key = *(const struct key *)key;
    made++;
}

static void drop(void *value)
{
    assert_true(((struct value *)value)->taken > 0);
    dropped++;
}

static struct table table = TABLE(struct key, struct value, make, drop);

static struct key key_of(int i) { return (struct key){i, -(int64_t)i * 3000000000, i % 7, i / 3}; }

static int64_t take(int i)
{
    const struct key key = key_of(i);
    struct value *value = table_take(&table, &key);
    assert_non_null(value);
    assert_memory_equal(&value->key, &key, sizeof key);
    const int64_t taken = ++value->taken;
    table_give(value);
    return taken;
}

static void bounded(void **state)
{
    (void)state;
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(take(i), 1);
        take(-1); /* is never the one that goes */
        assert_true(made - dropped <= ROOM);
    }
    assert_int_equal(take(-1), MANY + 1);
    assert_true(dropped >= MANY + 1 - ROOM);
    const int before = made;
    assert_int_equal(take(MANY - 1), 2);
    assert_int_equal(made, before);
    assert_int_equal(take(0), 1);
    assert_int_equal(made, before + 1);
}

static void *take_often(void *seed)
{
    uint64_t random = (uintptr_t)seed;
    for (int i = 0; i < ROUNDS; i++) {
        random = random * UINT64_C(6364136223846793005) + 1;
        take(MANY + (int)(random >> 40) % (i % 2 ? FEW : 4 * ROOM));
    }
    return NULL;
}

static void several_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_often, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_true(made - dropped <= ROOM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bounded), cmocka_unit_test(several_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
