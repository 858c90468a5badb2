/* SPDX-License-Identifier: Apache-2.0 */
/* 64 threads on one GPU, each with a stream of its own, from a cold cache: each kernel is compiled once, and all get the same
 * bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/decode_step.h"
#include "tests/jit/support.h"

#include <cmocka.h> /* last: it makes fail() a macro */

enum { THREADS = 64, STEPS = 20 };

static struct decode_step step[THREADS];

static void *decode(void *step_of_thread)
{
    struct decode_step *s = step_of_thread;
    CHECK(device_enter(s->attention.device) == FLASHINFER_OK);
    for (int i = 0; i < STEPS; i++)
        CHECK(decode_step_enqueue(s) == FLASHINFER_OK);
    return NULL;
}

static void decode_all(void)
{
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(!pthread_create(&thread[i], NULL, decode, &step[i]));
    for (int i = 0; i < THREADS; i++)
        CHECK(!pthread_join(thread[i], NULL));
}

static void sixty_four_threads(void)
{
    const struct device *device = gpu_of_child();
    for (int i = 0; i < THREADS; i++)
        decode_step_create(&step[i], device, gpu_stream());
    decode_all();
    uint64_t kernels = compiled();
    CHECK(kernels > 5 && loaded() == 0 && (uint64_t)count_files("", NULL, 0) == kernels);
    size_t bytes, other;
    void *first = decode_step_results(&step[0], &bytes);
    for (int i = 1; i < THREADS; i++) {
        void *results = decode_step_results(&step[i], &other);
        CHECK(other == bytes && !memcmp(first, results, bytes));
        free(results);
        decode_step_poison(&step[i]);
    }
    decode_all();
    for (int i = 1; i < THREADS; i++) {
        void *results = decode_step_results(&step[i], &other);
        CHECK(other == bytes && !memcmp(first, results, bytes));
        free(results);
    }
    free(first);
    CHECK(compiled() == kernels);
    printf("%d threads, %d steps each, %d kernels compiled\n", THREADS, 2 * STEPS, (int)kernels);
}

static void test_threads(void **state)
{
    (void)state;
    gpu_child(sixty_four_threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_threads, setup_folder, teardown_folder)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
