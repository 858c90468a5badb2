/* SPDX-License-Identifier: Apache-2.0 */
/* Environment variables: what each row accepts, the sentence for what it does not, and what holds instead. The environment is
 * read once, so each case runs in a child. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/arch.h"
#include "core/environment.h"
#include "core/threads.h"

#include <cmocka.h> /* last: it makes fail() a macro */

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                                 \
        }                                                                             \
    } while (0)

static void in_child(void (*run)(void))
{
    int status = -1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        run();
        _exit(0);
    }
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

static int row_of(const char *name)
{
    struct environment_entry entry;
    int row = 0;
    while (environment_entry(row, &entry) && strcmp(entry.name, name))
        row++;
    CHECK(environment_entry(row, &entry));
    return row;
}

static struct environment_entry entry_of(const char *name)
{
    struct environment_entry entry;
    environment_entry(row_of(name), &entry);
    return entry;
}

/* Set before the environment is read; the sentence for it, NULL if it is accepted. */
static const char *wrong_with(const char *name, const char *value)
{
    setenv(name, value, 1);
    return entry_of(name).wrong;
}

#define CHECK_SENTENCE(name, text, sentence)                        \
    do {                                                            \
        const char *wrong_ = wrong_with(name, text);                \
        CHECK(wrong_ && !strcmp(wrong_, sentence));                 \
        CHECK(!entry_of(name).value[0] || !strcmp(name, "TMPDIR")); \
    } while (0)

static void malformed_count(void)
{
    CHECK_SENTENCE("FLASHINFER_NUM_THREADS", "four",
                   "FLASHINFER_NUM_THREADS is \"four\", must be an integer of at least 1; it is taken as unset");
    CHECK(environment()->num_threads == 0 && threads_count(0) == threads_processors());
}

static void malformed_counts(void)
{
    static const char *const values[] = {"0", "-1", "+1", " 1", "1 ", "1.5", "0x10", "2147483648", "99999999999999999999"};
    struct environment env = {0};
    char sentence[ENVIRONMENT_SENTENCE];
    const int row = row_of("FLASHINFER_NUM_THREADS");
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        CHECK(!environment_accept(row, values[i], &env, sentence) && env.num_threads == 0);
    CHECK(environment_accept(row, "2147483647", &env, sentence) && env.num_threads == INT32_MAX);
    CHECK(environment_accept(row, "007", &env, sentence) && env.num_threads == 7);
}

static void malformed_boolean(void)
{
    CHECK_SENTENCE("FLASHINFER_DISABLE_JIT", "please",
                   "FLASHINFER_DISABLE_JIT is \"please\", must be 0, 1, false, true, no, yes, off or on; it is taken as unset");
    CHECK(!environment()->disable_jit);
}

static void booleans(void)
{
    setenv("FLASHINFER_DISABLE_JIT", "True", 1);
    setenv("FLASHINFER_VALIDATE_INPUTS", "off", 1);
    CHECK(environment()->disable_jit && !environment()->validate_inputs);
    CHECK(!entry_of("FLASHINFER_DISABLE_JIT").wrong && !entry_of("FLASHINFER_VALIDATE_INPUTS").wrong);
}

static void malformed_archs(void)
{
    const char *wrong = wrong_with("FLASHINFER_CUDA_ARCH_LIST", "9.0a 7.5");
    CHECK(wrong && strstr(wrong, "FLASHINFER_CUDA_ARCH_LIST is \"9.0a 7.5\", must be one or more of ") == wrong);
    for (int i = 0; arch_numbers[i]; i++) {
        char name[16];
        snprintf(name, sizeof name, " %d", arch_numbers[i]);
        CHECK(strstr(wrong, name));
    }
    CHECK(environment_archs() == arch_numbers);
}

static void archs(void)
{
    CHECK(!wrong_with("FLASHINFER_CUDA_ARCH_LIST", "9.0a  8.0 12.0f 10.0 9.0"));
    const int32_t expected[] = {90, 80, 120, 100, 0};
    CHECK(!memcmp(environment_archs(), expected, sizeof expected));
    CHECK(!strcmp(entry_of("FLASHINFER_CUDA_ARCH_LIST").value, "9.0a  8.0 12.0f 10.0 9.0"));
}

static void malformed_temporary_dir(void)
{
    CHECK_SENTENCE("TMPDIR", "/no/such/folder",
                   "TMPDIR is \"/no/such/folder\", must be the absolute path of a folder that exists; it is taken as unset");
    CHECK(!strcmp(environment()->temporary_dir, "/tmp"));
}

/* Nobody would be told that lines are lost. */
static void lost_record(void)
{
    CHECK_SENTENCE("FLASHINFER_RECORD", "/no/such/folder/record",
                   "FLASHINFER_RECORD is \"/no/such/folder/record\", must be a file that can be written, in a folder that "
                   "exists; it is taken as unset");
}

static void record_that_is_a_folder(void) { CHECK(wrong_with("FLASHINFER_RECORD", "/tmp")); }

static void record_here(void)
{
    CHECK(!wrong_with("FLASHINFER_RECORD", "record"));
    CHECK(*environment()->record == '/');
}

/* 3001 bytes, and a line break that the sentence must not hold. */
static void long_folder(void)
{
    static char value[3002], path[64];
    memset(value, 'x', sizeof value - 1);
    memcpy(value, "/\n", 2);
    setenv("HOME", "/home/someone", 1);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("FLASHINFER_WORKSPACE_BASE");
    const char *wrong = wrong_with("FLASHINFER_CACHE_DIR", value);
    CHECK(wrong && strstr(wrong, "FLASHINFER_CACHE_DIR is \"/?xx") == wrong &&
          strstr(wrong, "x...\", must be a path of at most 3000 bytes"));
    snprintf(path, sizeof path, "/home/someone/.cache/flashinfer-c");
    CHECK(!strcmp(environment()->cache_dir, path));
}

static void workspace_base(void)
{
    unsetenv("FLASHINFER_CACHE_DIR");
    setenv("XDG_CACHE_HOME", "/xdg", 1);
    setenv("FLASHINFER_WORKSPACE_BASE", "/scratch/me", 1);
    CHECK(!strcmp(environment()->cache_dir, "/scratch/me/.cache/flashinfer-c"));
}

static void cache_dir_before_workspace_base(void)
{
    setenv("FLASHINFER_CACHE_DIR", "/cache", 1);
    setenv("FLASHINFER_WORKSPACE_BASE", "/scratch/me", 1);
    CHECK(!strcmp(environment()->cache_dir, "/cache"));
}

static void relative_folders(void)
{
    CHECK(!chdir("/usr"));
    unsetenv("FLASHINFER_CACHE_DIR");
    setenv("FLASHINFER_WORKSPACE_BASE", "lib", 1);
    CHECK(!strcmp(environment()->cache_dir, "/usr/lib/.cache/flashinfer-c"));
}

/* As in a shell, where a variable that was emptied counts as unset. */
static void empty_values(void)
{
    static const char *const names[] = {"FLASHINFER_NUM_THREADS", "FLASHINFER_DISABLE_JIT", "FLASHINFER_CUDA_ARCH_LIST", "TMPDIR",
                                        "FLASHINFER_WORKSPACE_BASE"};
    struct environment_entry entry;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        setenv(names[i], "", 1);
    for (int i = 0; environment_entry(i, &entry); i++)
        CHECK(!entry.wrong);
}

#define TEST(name)                        \
    static void test_##name(void **state) \
    {                                     \
        (void)state;                      \
        in_child(name);                   \
    }
TEST(malformed_count)
TEST(malformed_counts)
TEST(malformed_boolean)
TEST(booleans)
TEST(malformed_archs)
TEST(archs)
TEST(malformed_temporary_dir)
TEST(lost_record)
TEST(record_that_is_a_folder)
TEST(record_here)
TEST(long_folder)
TEST(workspace_base)
TEST(cache_dir_before_workspace_base)
TEST(relative_folders)
TEST(empty_values)

int main(void)
{
#define CASE(name) cmocka_unit_test(test_##name)
    const struct CMUnitTest tests[] = {CASE(malformed_count),         CASE(malformed_counts),
                                       CASE(malformed_boolean),       CASE(booleans),
                                       CASE(malformed_archs),         CASE(archs),
                                       CASE(malformed_temporary_dir), CASE(lost_record), CASE(record_that_is_a_folder),
                                       CASE(record_here), CASE(long_folder),
                                       CASE(workspace_base),          CASE(cache_dir_before_workspace_base),
                                       CASE(relative_folders),        CASE(empty_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
