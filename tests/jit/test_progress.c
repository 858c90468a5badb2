/* SPDX-License-Identifier: Apache-2.0 */
/* A program is told of compilations that last longer than a second, and of no others. The compiler is a script that
 * sleeps first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "flashinfer/jit.h"
#include "support.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

enum { MAX_CALLS = 16 };

static struct {
    struct flashinfer_compile_progress call[MAX_CALLS];
    char kernel[MAX_CALLS][256];
    atomic_int count, at_once;
    int context;
} told;

static void listen(const struct flashinfer_compile_progress *progress, void *context)
{
    CHECK(atomic_fetch_add(&told.at_once, 1) == 0);
    CHECK(context == &told.context && progress->size == sizeof *progress);
    int i = atomic_load(&told.count);
    CHECK(i < MAX_CALLS);
    told.call[i] = *progress;
    snprintf(told.kernel[i], sizeof told.kernel[i], "%s", progress->kernel);
    atomic_fetch_sub(&told.at_once, 1);
    atomic_store(&told.count, i + 1);
}

static void take_compiler(const char *sleep)
{
    char path[128];
    snprintf(path, sizeof path, "%s/slow-cc", folder);
    FILE *script = fopen(path, "w");
    CHECK(script && fprintf(script, "#!/bin/sh\nsleep %s\nexec cc \"$@\"\n", sleep) > 0 && !fclose(script));
    CHECK(!chmod(path, 0700));
    setenv("FLASHINFER_CC", path, 1);
}

static void slow(void)
{
    take_compiler("2.5");
    flashinfer_set_compile_callback(listen, &told.context);
    CHECK(multiply(multiply_spec(3)) && compiled() == 1);
    CHECK(atomic_load(&told.count) == 3);
    for (int i = 0; i < 3; i++) {
        CHECK(told.call[i].finished == (i == 2));
        CHECK(told.call[i].position == 1 && told.call[i].length == 1);
        CHECK(strstr(told.kernel[i], "multiply (FACTOR=3, T=i32, ") == told.kernel[i]);
    }
    CHECK(told.call[0].seconds >= 1 && told.call[0].seconds < 2 && told.call[1].seconds >= 2);
    CHECK(told.call[2].seconds > 2.5);
    CHECK(multiply(multiply_spec(3)) && atomic_load(&told.count) == 3);
}

static void fails_slowly(void)
{
    take_compiler("1.2; exit 1");
    flashinfer_set_compile_callback(listen, &told.context);
    CHECK(!multiply(multiply_spec(3)) && strstr(flashinfer_last_error(), "does not compile"));
    CHECK(atomic_load(&told.count) == 2 && told.call[1].finished);
}

static void fast(void)
{
    take_compiler("0");
    flashinfer_set_compile_callback(listen, &told.context);
    CHECK(multiply(multiply_spec(3)) && compiled() == 1);
    CHECK(atomic_load(&told.count) == 0);
}

static void *compile_one(void *factor)
{
    CHECK(multiply(multiply_spec(*(int *)factor)));
    return NULL;
}

static void unset(void)
{
    int factor = 3;
    pthread_t thread;
    take_compiler("2.5");
    flashinfer_set_compile_callback(listen, &told.context);
    CHECK(!pthread_create(&thread, NULL, compile_one, &factor));
    while (atomic_load(&told.count) == 0)
        usleep(10000);
    flashinfer_set_compile_callback(NULL, NULL);
    pthread_join(thread, NULL);
    CHECK(compiled() == 1 && atomic_load(&told.count) == 1);
}

/* Two that began half a second apart, told one at a time. */
static void queue(void)
{
    int factor[2] = {3, 4};
    pthread_t thread[2];
    take_compiler("1.65");
    flashinfer_set_compile_callback(listen, &told.context);
    for (int i = 0; i < 2; i++) {
        CHECK(!pthread_create(&thread[i], NULL, compile_one, &factor[i]));
        usleep(500000);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    CHECK(atomic_load(&told.count) == 4);
    const char *const name[] = {"multiply (FACTOR=3", "multiply (FACTOR=4"};
    const int compilation[] = {0, 1, 0, 1}, position[] = {1, 2, 1, 1}, length[] = {2, 2, 2, 1};
    for (int i = 0; i < 4; i++) {
        CHECK(strstr(told.kernel[i], name[compilation[i]]));
        CHECK(told.call[i].position == position[i] && told.call[i].length == length[i]);
    }
}

/* The child of a fork that happens while another thread compiles has nothing under way. */
static void forks(void)
{
    int factor = 3, status = -1;
    pthread_t thread;
    take_compiler("1.3");
    flashinfer_set_compile_callback(listen, &told.context);
    CHECK(!pthread_create(&thread, NULL, compile_one, &factor));
    usleep(200000);
    pid_t child = fork();
    if (child == 0) {
        CHECK(multiply(multiply_spec(4)));
        CHECK(atomic_load(&told.count) == 2 && told.call[0].length == 1);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    pthread_join(thread, NULL);
}

static void test_slow(void **state)
{
    (void)state;
    assert_int_equal(in_child(slow), 0);
}

static void test_fails_slowly(void **state)
{
    (void)state;
    assert_int_equal(in_child(fails_slowly), 0);
}

static void test_fast(void **state)
{
    (void)state;
    assert_int_equal(in_child(fast), 0);
}

static void test_unset(void **state)
{
    (void)state;
    assert_int_equal(in_child(unset), 0);
}

static void test_queue(void **state)
{
    (void)state;
    assert_int_equal(in_child(queue), 0);
}

static void test_fork(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* the sanitizer refuses threads in the child of a threaded process */
#endif
    assert_int_equal(in_child(forks), 0);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup_folder, teardown_folder)
    const struct CMUnitTest tests[] = {CASE(test_slow),  CASE(test_fails_slowly), CASE(test_fast),
                                       CASE(test_unset), CASE(test_queue),        CASE(test_fork)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
