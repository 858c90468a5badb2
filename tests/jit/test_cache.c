/* SPDX-License-Identifier: Apache-2.0 */
/* The disk cache: damaged, swapped and foreign files, folders that cannot be trusted or written, and races of
 * threads and processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/file.h"
#include "jit/internal.h"
#include "support.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

enum { PAYLOAD = 100 };

static void overwrite(const char *path, const void *data, size_t size)
{
    unlink(path);
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(file >= 0 && file_write(file, data, size));
    close(file);
}

static bool is_hit(const struct jit_job *job)
{
    struct text found = {0};
    bool hit = jit_cache_read(job, &found);
    CHECK(hit || (!found.data && !found.size));
    text_free(&found);
    return hit;
}

static struct jit_job make_job(int factor, struct jit_spec *spec)
{
    struct jit_job job;
    *spec = multiply_spec(factor);
    CHECK(jit_job_begin(spec, cpu_device(), &job) == FLASHINFER_OK);
    return job;
}

/* Every length and every flipped bit of a file that is read back right. */
static void damage(void)
{
    struct jit_spec spec;
    struct jit_job job = make_job(1, &spec);
    struct text payload = {0}, file = {0}, found = {0};
    char path[4096];
    for (int i = 0; i < PAYLOAD; i++)
        text_add(&payload, (char[]){(char)(i * 7)}, 1);
    CHECK(!is_hit(&job));
    CHECK(jit_cache_write(&job, &payload));
    CHECK(jit_cache_read(&job, &found) && found.size == PAYLOAD && !memcmp(found.data, payload.data, PAYLOAD));
    jit_cache_file(&job, path, sizeof path);
    CHECK(file_read(path, &file) && file.size > PAYLOAD);

    for (size_t size = 0; size < file.size; size++) {
        overwrite(path, file.data, size);
        CHECK(!is_hit(&job));
    }
    for (size_t bit = 0; bit < 8 * file.size; bit++) {
        file.data[bit / 8] ^= (char)(1 << bit % 8);
        overwrite(path, file.data, file.size);
        CHECK(!is_hit(&job));
        file.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    text_add(&file, "x", 1);
    overwrite(path, file.data, file.size);
    CHECK(!is_hit(&job));
    CHECK(jit_cache_write(&job, &payload)); /* a damaged file is replaced */
    CHECK(is_hit(&job));
}

static void test_damage(void **state)
{
    (void)state;
    assert_int_equal(in_child(damage), 0);
}

static void swap(void)
{
    struct jit_spec spec[2];
    struct jit_job job[2] = {make_job(1, &spec[0]), make_job(2, &spec[1])};
    struct text payload = {0};
    char path[2][4096], aside[4200];
    text_print(&payload, "code");
    for (int i = 0; i < 2; i++) {
        CHECK(jit_cache_write(&job[i], &payload) && is_hit(&job[i]));
        jit_cache_file(&job[i], path[i], sizeof path[i]);
    }
    CHECK(strcmp(path[0], path[1]));
    snprintf(aside, sizeof aside, "%s.aside", path[0]);
    CHECK(!rename(path[0], aside) && !rename(path[1], path[0]) && !rename(aside, path[1]));
    CHECK(!is_hit(&job[0]) && !is_hit(&job[1]));
}

static void test_swap(void **state)
{
    (void)state;
    assert_int_equal(in_child(swap), 0);
}

static void compiles_once(void)
{
    CHECK(multiply(multiply_spec(3)) && multiply(multiply_spec(3)));
    CHECK(compiled() == 1 && loaded() == 0);
    CHECK(multiply(multiply_spec(4)));
    CHECK(compiled() == 2);
}

static void only_loads(void)
{
    CHECK(multiply(multiply_spec(3)) && multiply(multiply_spec(4)));
    CHECK(compiled() == 0 && loaded() == 2);
}

static void never_compiles(void)
{
    setenv("FLASHINFER_DISABLE_JIT", "1", 1);
    only_loads();
}

static void compiles_one_again(void)
{
    CHECK(multiply(multiply_spec(3)) && multiply(multiply_spec(4)));
    CHECK(compiled() == 1 && loaded() == 1);
}

static void test_next_process(void **state)
{
    (void)state;
    char path[4096];
    assert_int_equal(in_child(compiles_once), 0);
    assert_int_equal(count_files("multiply-cpu-", path, sizeof path), 2);
    assert_int_equal(in_child(only_loads), 0);
    assert_int_equal(in_child(never_compiles), 0);
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(in_child(compiles_one_again), 0);
    assert_int_equal(in_child(only_loads), 0);
    assert_int_equal(count_files("", NULL, 0), 2);
}

static const char *why_no_cache(void)
{
    const char *why;
    CHECK(!*jit_cache_folder(&why));
    return why;
}

static void folder_of_a_group(void)
{
    chmod(folder, 0770);
    CHECK(strstr(why_no_cache(), "others may write to"));
    CHECK(multiply(multiply_spec(5)) && compiled() == 1);
    CHECK(count_files("", NULL, 0) == 0);
}

static void folder_of_all(void)
{
    chmod(folder, 01777);
    CHECK(strstr(why_no_cache(), "others may write to"));
}

static void folder_of_another(void)
{
    if (geteuid() == 0 && !chown(folder, 12345, (gid_t)-1))
        CHECK(strstr(why_no_cache(), "belongs to user 12345"));
}

static void folder_is_a_file(void)
{
    setenv("FLASHINFER_CACHE_DIR", "/dev/null", 1);
    CHECK(strstr(why_no_cache(), "is not a folder"));
    CHECK(multiply(multiply_spec(5)));
}

static void no_folder(void)
{
    unsetenv("FLASHINFER_CACHE_DIR");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    CHECK(strstr(why_no_cache(), "is set"));
    CHECK(multiply(multiply_spec(5)));
}

static void become_nobody(void)
{
    if (geteuid() == 0)
        CHECK(!chown(folder, 65534, 65534) && !setgid(65534) && !setuid(65534));
}

static void unwritable(void)
{
    const char *why;
    become_nobody();
    chmod(folder, 0500);
    CHECK(!strcmp(jit_cache_folder(&why), folder) && strstr(why, "cannot be written"));
    CHECK(multiply(multiply_spec(5)) && compiled() == 1);
    CHECK(count_files("", NULL, 0) == 0);
}

static void missing_parents(void)
{
    char path[128];
    struct stat status;
    snprintf(path, sizeof path, "%s/a/b/c", folder);
    setenv("FLASHINFER_CACHE_DIR", path, 1);
    CHECK(multiply(multiply_spec(5)));
    CHECK(!stat(path, &status) && (status.st_mode & 0777) == 0700);
}

static void default_folder(void)
{
    const char *why;
    char path[128];
    unsetenv("FLASHINFER_CACHE_DIR");
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", folder, 1);
    snprintf(path, sizeof path, "%s/.cache/flashinfer-c", folder);
    CHECK(!strcmp(jit_cache_folder(&why), path));
}

static void test_folders(void **state)
{
    void (*const cases[])(void) = {folder_of_a_group, folder_of_all,   folder_of_another, folder_is_a_file,
                                   no_folder,         missing_parents, default_folder,    unwritable};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(in_child(cases[i]), 0);
        assert_int_equal(teardown_folder(state) || setup_folder(state), 0);
    }
}

/* The file of a kernel that is in no cache: while the loader runs its constructor, another process must not take it for
 * abandoned. */
static void held_while_loading(void)
{
    static const struct jit_kernel kernel = {"probe", JIT_CPU, {NULL}};
    static const struct jit_text text = {
        "struct info { const char *file; void *base; const char *name; void *address; };\n"
        "int dladdr(const void *, struct info *);\n"
        "int open(const char *, int, ...);\n"
        "int flock(int, int);\n"
        "static int free_to_take = 1;\n"
        "__attribute__((constructor)) static void look(void)\n"
        "{\n"
        "    struct info info;\n"
        "    int file = dladdr(&free_to_take, &info) ? open(info.file, 0) : -1;\n"
        "    free_to_take = file < 0 || !flock(file, 2 | 4);\n" /* LOCK_EX | LOCK_NB */
        "}\n"
        "void probe(int *const *a, int part, int parts) { (void)part, (void)parts, **a = free_to_take; }\n",
        true};
    const struct jit_spec spec = {.kernel = &kernel, .user = &text};
    int taken = -1, *args[] = {&taken};
    struct jit_queue queue = {.device = cpu_device()};
    struct jit_launch launch = {.grid = {1}, .args = args, .args_size = sizeof args};
    setenv("FLASHINFER_CACHE_DIR", "/dev/null", 1);
    setenv("TMPDIR", folder, 1);
    CHECK(jit_launch(&spec, &queue, &launch) == FLASHINFER_OK && taken == 0);
    CHECK(count_files("", NULL, 0) == 0);
}

/* Damaged files are replaced by way of temporary ones, which another process that looks for abandoned ones leaves alone. */
static void replaced_beside_others(void)
{
    struct jit_spec spec;
    struct jit_job job = make_job(1, &spec);
    struct text payload = {0};
    char path[4096], other[4096];
    text_print(&payload, "code");
    jit_cache_file(&job, path, sizeof path);
    pid_t child = fork();
    while (child == 0) {
        int file = file_temporary(folder, other, sizeof other);
        if (getppid() == 1 || file < 0 || unlink(other))
            _exit(1);
        close(file);
    }
    bool written = child > 0;
    for (int i = 0; i < 3000 && written; i++) {
        overwrite(path, "damaged", 7);
        written = jit_cache_write(&job, &payload);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    const char *why;
    if (!written && *jit_cache_folder(&why))
        fprintf(stderr, "%s\n", why);
    CHECK(written);
}

static void test_temporaries(void **state)
{
    (void)state;
    assert_int_equal(in_child(held_while_loading), 0);
    assert_int_equal(in_child(replaced_beside_others), 0);
}

static void *multiply_by_6(void *right)
{
    for (int i = 0; i < 50; i++)
        atomic_fetch_add((atomic_int *)right, multiply(multiply_spec(6)));
    return NULL;
}

static void race_of_threads(void)
{
    pthread_t thread[6];
    atomic_int right = 0;
    for (int i = 0; i < 6; i++)
        CHECK(!pthread_create(&thread[i], NULL, multiply_by_6, &right));
    for (int i = 0; i < 6; i++)
        pthread_join(thread[i], NULL);
    CHECK(atomic_load(&right) == 300);
    CHECK(compiled() + loaded() == 1);
}

static void test_race(void **state)
{
    (void)state;
    int status, failures = 0;
    fflush(NULL);
    for (int i = 0; i < 3; i++)
        if (fork() == 0)
            _exit(in_child(race_of_threads) ? 1 : 0);
    for (int i = 0; i < 3; i++)
        failures += wait(&status) < 0 || status != 0;
    assert_int_equal(failures, 0);
    assert_int_equal(count_files("", NULL, 0), 1);
    assert_int_equal(count_files("multiply-cpu-", NULL, 0), 1);
}

/* The child of a fork starts with what the parent had loaded, and compiles on its own. */
static void forks(void)
{
    CHECK(multiply(multiply_spec(7)));
    pid_t child = fork();
    if (child == 0) {
        CHECK(multiply(multiply_spec(7)) && multiply(multiply_spec(8)));
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(multiply(multiply_spec(8)) && loaded() == 1);
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
    const struct CMUnitTest tests[] = {CASE(test_damage),  CASE(test_swap), CASE(test_next_process),
                                       CASE(test_folders), CASE(test_race), CASE(test_fork),
                                       CASE(test_temporaries)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
