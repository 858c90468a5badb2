/* SPDX-License-Identifier: Apache-2.0 */
/* FLASHINFER_RECORD: what is loaded is written, once, and read back as the same spec; whatever else a file holds is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>

#include "core/file.h"
#include "jit/internal.h"
#include "support.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

enum { KERNELS = 8 };

static const char *record_path(void)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/record", folder);
    setenv("FLASHINFER_RECORD", path, 1);
    return path;
}

static int lines(const struct text *record)
{
    int count = 0;
    for (size_t i = 0; i < record->size; i++)
        count += record->data[i] == '\n';
    return count;
}

/* The line names the same file of the cache as the spec that was loaded. */
static void round_trip(void)
{
    const char *path = record_path();
    struct jit_spec spec = multiply_spec(3), again;
    struct text record = {0};
    char wanted[4096], got[4096];
    int32_t arch = -1;
    CHECK(multiply(spec) && multiply(spec) && compiled() == 1);
    memset(&again, 0xff, sizeof again);
    CHECK(file_read(path, &record) && lines(&record) == 1);
    CHECK(jit_record_parse(record.data, &again, &arch) == FLASHINFER_OK && arch == 0);
    CHECK(again.user->is_kernel && !strcmp(again.user->text, spec.user->text) &&
          !memcmp(again.constant, spec.constant, sizeof spec.constant));
    CHECK(jit_cache_path(&spec, cpu_device(), wanted, sizeof wanted) == FLASHINFER_OK);
    CHECK(jit_cache_path(&again, cpu_device(), got, sizeof got) == FLASHINFER_OK);
    CHECK(*wanted && !strcmp(wanted, got));
    for (size_t length = 0; length + 2 < record.size; length++) { /* without its end, which is a quote and a newline */
        record.data[length] = 0;
        CHECK(strlen(record.data) == length);
        CHECK(jit_record_parse(record.data, &again, &arch) != FLASHINFER_OK || !strchr(record.data, '"'));
        text_free(&record);
        CHECK(file_read(path, &record));
    }
    text_free(&record);
}

static void test_round_trip(void **state)
{
    (void)state;
    assert_int_equal(in_child(round_trip), 0);
}

/* What was compiled from the line is what the program loads: a hit, with the compiler gone. */
static void use_warm(void)
{
    CHECK(multiply(multiply_spec(5)) && compiled() == 0 && loaded() == 1);
}

static void warm(void)
{
    const char *path = record_path();
    struct jit_spec spec = multiply_spec(5), recorded;
    struct jit_stored stored;
    struct text record = {0};
    char file[4096];
    int32_t arch;
    bool there = true;
    CHECK(multiply(spec) && file_read(path, &record));
    CHECK(jit_cache_path(&spec, cpu_device(), file, sizeof file) == FLASHINFER_OK && !unlink(file));
    CHECK(jit_record_parse(record.data, &recorded, &arch) == FLASHINFER_OK);
    CHECK(jit_is_cached(&recorded, cpu_device(), &there) == FLASHINFER_OK && !there);
    CHECK(jit_compile_to_cache(&recorded, cpu_device(), &stored) == FLASHINFER_OK && !stored.was_there && stored.bytes > 0);
    CHECK(jit_is_cached(&spec, cpu_device(), &there) == FLASHINFER_OK && there);
    CHECK(jit_compile_to_cache(&spec, cpu_device(), &stored) == FLASHINFER_OK && stored.was_there);
    text_free(&record);
}

static void test_warm(void **state)
{
    (void)state;
    assert_int_equal(in_child(warm), 0);
    setenv("FLASHINFER_DISABLE_JIT", "1", 1);
    int status = in_child(use_warm);
    unsetenv("FLASHINFER_DISABLE_JIT");
    assert_int_equal(status, 0);
}

static void *load_one(void *factor)
{
    CHECK(multiply(multiply_spec((int)(intptr_t)factor)));
    return NULL;
}

/* Two processes with threads write into one file: every line is whole. */
static void race(void)
{
    const char *path = record_path();
    struct text record = {0};
    pthread_t thread[KERNELS];
    pid_t child = fork();
    for (intptr_t i = 0; i < KERNELS; i++)
        CHECK(!pthread_create(&thread[i], NULL, load_one, (void *)(i + 1)));
    for (int i = 0; i < KERNELS; i++)
        CHECK(!pthread_join(thread[i], NULL));
    if (child == 0)
        _exit(0);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(file_read(path, &record) && lines(&record) == 2 * KERNELS);
    char *rest;
    for (char *line = strtok_r(record.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        struct jit_spec spec;
        int32_t arch;
        CHECK(jit_record_parse(line, &spec, &arch) == FLASHINFER_OK && spec.user && spec.constant[0] >= 1);
    }
    text_free(&record);
}

static void test_race(void **state)
{
    (void)state;
    assert_int_equal(in_child(race), 0);
}

static void test_lines(void **state)
{
    static const struct {
        const char *line, *says;
    } wrong[] = {
        {"", "no kernel's name"},
        {"\n", "no kernel's name"},
        {"norm_sm80", "no architecture"},
        {"../../etc/passwd cpu", "no kernel's name"},
        {"norm_sm80 sm_9", "neither cpu nor"},
        {"norm_sm80 sm_90,80", "neither cpu nor"},
        {"norm_sm80 90", "neither cpu nor"},
        {"k cpu A", "is not NAME=VALUE"},
        {"k cpu A=", "32-bit integer"},
        {"k cpu A=0x10", "32-bit integer"},
        {"k cpu A=2147483648", "32-bit integer"},
        {"k cpu A=99999999999999999999", "32-bit integer"},
        {"k cpu =3", "no name of a constant"},
        {"k cpu A:type=f16", "no name of a constant"},
        {"k cpu -I/x=3", "no name of a constant"},
        {"k cpu T:dtype=none", "is no dtype"},
        {"k cpu text=\"void k", "does not end with"},
        {"k cpu text=\"void k\" more", "does not end with"},
        {"k cpu text=\"a\\x\"", "stands before neither"},
        {"k cpu text=\"a\\", "stands before neither"},
    };
    char many[600] = "k cpu";
    struct jit_spec spec;
    int32_t arch;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(jit_record_parse(wrong[i].line, &spec, &arch), FLASHINFER_INVALID);
        if (!strstr(flashinfer_last_error(), wrong[i].says))
            fail_msg("\"%s\": says \"%s\", must say \"%s\"", wrong[i].line, flashinfer_last_error(), wrong[i].says);
    }
    for (int i = 0; i <= JIT_MAX_CONSTANTS; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), " A%d=%d", i, -i);
    assert_int_equal(jit_record_parse(many, &spec, &arch), FLASHINFER_INVALID);
    *strrchr(many, ' ') = 0;
    assert_int_equal(jit_record_parse(many, &spec, &arch), FLASHINFER_OK);
    assert_int_equal(spec.constant[JIT_MAX_CONSTANTS - 1], 1 - JIT_MAX_CONSTANTS);
    assert_int_equal(jit_record_parse("  k  sm_90a  T:dtype=bf16 variant=\"x\\n\\\\\\\"\" \r\n", &spec, &arch), FLASHINFER_OK);
    assert_int_equal(arch, 90);
    assert_string_equal(spec.user->text, "x\n\\\"");
    assert_false(spec.user->is_kernel);
    assert_string_equal(spec.kernel->constants[0], "T:dtype");
}

/* The program is not disturbed by a record that cannot be written. */
static void unwritable(void)
{
    setenv("FLASHINFER_RECORD", folder, 1);
    CHECK(multiply(multiply_spec(7)));
}

static void test_unwritable(void **state)
{
    (void)state;
    assert_int_equal(in_child(unwritable), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_warm, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_race, setup_folder, teardown_folder),
        cmocka_unit_test(test_lines),
        cmocka_unit_test_setup_teardown(test_unwritable, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
