/* SPDX-License-Identifier: Apache-2.0 */
/* Packs of prebuilt CPU kernels: what they serve where there is no compiler, which files are refused, and when a compiler is
 * preferred. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cpu_features.h"
#include "core/file.h"
#include "jit/internal.h"
#include "support.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

static const struct jit_kernel lens_kernel = {"get_seq_lens_cpu", JIT_CPU, {NULL}};
static const struct jit_spec lens_spec = {.kernel = &lens_kernel};

static const struct jit_kernel other_kernel = {"extends", JIT_CPU, {NULL}};
static const struct jit_text other_text = {
    "/* __AVX512BF16__ __AVX512VNNI__ __AVX512FP16__ __AVXVNNI__ __AMX_BF16__ */\n"
    "void extends(const void *a, int part, int parts) { (void)a, (void)part, (void)parts; }\n",
    true};
static const struct jit_spec other_spec = {.kernel = &other_kernel, .user = &other_text};

static char packs[96], level[32];

static const char *pack_path(const char *of)
{
    static char path[192];
    snprintf(path, sizeof path, "%s/flashinfer-cpu-%s.pack", packs, of);
    return path;
}

/* Names the folder and the level; the compiler is hidden unless it is wanted. */
static void use_packs(bool compiler)
{
    setenv("FLASHINFER_PACK_DIR", packs, 1);
    if (!compiler) {
        setenv("FLASHINFER_CC", "/nonexistent", 1);
        setenv("PATH", "", 1);
    }
}

static uint64_t packed(void)
{
    struct flashinfer_jit_statistics s = {.size = sizeof s};
    flashinfer_jit_statistics(&s);
    return s.packed;
}

static flashinfer_status load(const struct jit_spec *spec)
{
    const struct jit_module *module;
    return jit_load(spec, cpu_device(), &module);
}

static void build_level(const char *of)
{
    const struct jit_kernel *twin = jit_keep_kernel(&lens_kernel);
    struct jit_spec specs[] = {lens_spec, other_spec, lens_spec};
    int count = 3;
    specs[2].kernel = twin;
    CHECK(jit_pack_build(specs, &count, of, 0, pack_path(of)) == FLASHINFER_OK && count == 2);
}

static void build(void)
{
    build_level(level);
}

static void build_v2(void)
{
    build_level("x86-64-v2");
}

static int setup_pack(void **state)
{
    setup_folder(state);
    snprintf(packs, sizeof packs, "%s/packs", folder);
    mkdir(packs, 0755);
    chmod(packs, 0755);
    return in_child(build);
}

static bool above_v2(void)
{
    return !strcmp(level, "x86-64-v3") || !strcmp(level, "x86-64-v4");
}

/* ---- what it serves ---- */

static void serves(void)
{
    use_packs(false);
    CHECK(load(&lens_spec) == FLASHINFER_OK && load(&other_spec) == FLASHINFER_OK);
    CHECK(packed() == 2 && compiled() == 0 && loaded() == 0);
}

static void runs(void)
{
    use_packs(false);
    struct jit_queue queue = {.device = cpu_device()};
    struct jit_launch launch = {.grid = {3}};
    CHECK(jit_launch(&other_spec, &queue, &launch) == FLASHINFER_OK && packed() == 1);
}

static void lacks(void)
{
    static const struct jit_kernel kernel = {"get_batch_indices_positions_cpu", JIT_CPU, {NULL}};
    use_packs(false);
    CHECK_FAILS(load(&(struct jit_spec){.kernel = &kernel}), FLASHINFER_NO_COMPILER,
                "FLASHINFER_CC is /nonexistent, which is no program; kernel get_batch_indices_positions_cpu is in no pack: "
                "/tmp/flashinfer-test-");
    CHECK(strstr(flashinfer_last_error(), ".pack, 2 kernels"));
}

static void none(void)
{
    unlink(pack_path(level));
    use_packs(false);
    CHECK_FAILS(load(&lens_spec), FLASHINFER_NO_COMPILER, "is in no pack: none for ");
}

static void test_serves(void **state)
{
    (void)state;
    assert_int_equal(in_child(serves), 0);
    assert_int_equal(in_child(runs), 0);
    assert_int_equal(in_child(lacks), 0);
    assert_int_equal(count_files("cpu-", NULL, 0), 0);
    assert_int_equal(in_child(none), 0);
}

/* ---- what is refused ---- */

static const char *expected;

static void refused(void)
{
    use_packs(false);
    CHECK_FAILS(load(&lens_spec), FLASHINFER_NO_COMPILER, expected);
    CHECK(packed() == 0);
}

static void expect_refused(const char *sentence)
{
    expected = sentence;
    assert_int_equal(in_child(refused), 0);
}

static void put_pack(const char *data, size_t size)
{
    unlink(pack_path(level));
    int file = open(pack_path(level), O_WRONLY | O_CREAT, 0644);
    assert_true(file >= 0 && file_write(file, data, size));
    close(file);
}

static void test_damage(void **state)
{
    (void)state;
    struct text file = {0};
    const char *sentence = "is not used: it is damaged, or another version's or level's";
    assert_true(file_read(pack_path(level), &file));
    for (size_t i = 0; i < 40; i++) {
        put_pack(file.data, file.size * i / 40);
        expect_refused(sentence);
    }
    put_pack(file.data, file.size - 1);
    expect_refused(sentence);
    for (size_t i = 0; i < 40; i++) {
        size_t at = (file.size - 1) * i / 39;
        file.data[at] ^= (char)(1 << i % 8);
        put_pack(file.data, file.size);
        expect_refused(sentence);
        file.data[at] ^= (char)(1 << i % 8);
    }
    put_pack(file.data, file.size);
    assert_int_equal(in_child(serves), 0);
    text_free(&file);
}

static void test_foreign(void **state)
{
    (void)state;
    char v2[192];
    assert_int_equal(chmod(pack_path(level), 0664), 0);
    expect_refused("is not used: others may write to it");
    assert_int_equal(chmod(pack_path(level), 0646), 0);
    expect_refused("is not used: others may write to it");
    assert_int_equal(chmod(pack_path(level), 0644) || chmod(packs, 0775), 0);
    expect_refused("is not used: others may write to its folder");
    assert_int_equal(chmod(packs, 01777), 0);
    expect_refused("is not used: others may write to its folder");
    assert_int_equal(chmod(packs, 0755), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(pack_path(level), 12345, 0), 0);
        expect_refused("is not used: it belongs to another user");
        assert_int_equal(chown(pack_path(level), 0, 0) || chown(packs, 12345, 0), 0);
        expect_refused("is not used: its folder belongs to another user");
        assert_int_equal(chown(packs, 0, 0), 0);
    }
    assert_int_equal(in_child(serves), 0);
    if (above_v2()) { /* a lower level's under this level's name */
        assert_int_equal(in_child(build_v2), 0);
        strcpy(v2, pack_path("x86-64-v2"));
        assert_int_equal(rename(v2, pack_path(level)), 0);
        expect_refused("is not used: it is damaged, or another version's or level's");
    }
}

/* The sources have changed since it was built. */
static void stale(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/tree/ops/page", folder);
    for (char *slash = strchr(path + strlen(folder) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
    mkdir(path, 0700);
    strcat(path, "/get_seq_lens_cpu.c");
    FILE *file = fopen(path, "w");
    CHECK(file && fputs("void get_seq_lens_cpu(const void *a, int part, int parts) { }\n", file) >= 0 && !fclose(file));
    snprintf(path, sizeof path, "%s/tree", folder);
    setenv("FLASHINFER_SOURCE_DIR", path, 1);
    refused();
}

static void debug_variant(void)
{
    setenv("FLASHINFER_JIT_DEBUG", "1", 1);
    refused();
}

static void test_stale(void **state)
{
    (void)state;
    expected = "kernel get_seq_lens_cpu is in no pack: /tmp/flashinfer-test-";
    assert_int_equal(in_child(stale), 0);
    assert_int_equal(in_child(debug_variant), 0);
}

/* ---- the order: pack, disk, compiler ---- */

static void before_compiler(void)
{
    use_packs(true);
    CHECK(load(&lens_spec) == FLASHINFER_OK && packed() == 1 && compiled() == 0);
}

/* Only a compiler on this machine makes use of what this CPU has beyond its level. */
static void after_compiler_if_better(void)
{
    use_packs(true);
    bool better = cpu_extends(other_text.text);
    CHECK(load(&other_spec) == FLASHINFER_OK && packed() == !better && compiled() == better);
}

static void never_compiles(void)
{
    use_packs(true);
    setenv("FLASHINFER_DISABLE_JIT", "1", 1);
    CHECK(load(&other_spec) == FLASHINFER_OK && packed() == 1 && compiled() == 0);
}

/* A lower level is the last resort. */
static void lower_level_with_compiler(void)
{
    use_packs(true);
    CHECK(load(&lens_spec) == FLASHINFER_OK && packed() == 0 && compiled() == 1);
}

static void test_order(void **state)
{
    (void)state;
    assert_int_equal(in_child(before_compiler), 0);
    assert_int_equal(in_child(never_compiles), 0);
    assert_int_equal(in_child(after_compiler_if_better), 0);
    if (above_v2()) {
        assert_int_equal(in_child(build_v2), 0);
        assert_int_equal(truncate(pack_path(level), 1000), 0);
        assert_int_equal(in_child(lower_level_with_compiler), 0);
        assert_int_equal(in_child(serves), 0);
    }
}

static int files_in(const char *path)
{
    int count = 0;
    DIR *dir = opendir(path);
    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    CHECK(dir && !closedir(dir));
    return count;
}

static void wrong_level(void)
{
    int count = 1;
    CHECK_FAILS(jit_pack_build(&lens_spec, &count, "x86-64-v9", 0, "/nonexistent/x"), FLASHINFER_INVALID,
                "no packs for \"x86-64-v9\"");
    CHECK_FAILS(jit_pack_build(&lens_spec, &count, level, 0, "/nonexistent/x"), FLASHINFER_IO,
                "/nonexistent/x cannot be written: No such file");
    CHECK_FAILS(jit_pack_build(&lens_spec, &count, level, 0, packs), FLASHINFER_IO, "Is a directory");
}

/* Beside the pack nothing of a build is left, and nothing that was there is touched. */
static void leaves_others_alone(void)
{
    char other[256], temporary[256];
    struct text text = {0};
    int count = 1;
    snprintf(other, sizeof other, "%s.new", pack_path(level));
    snprintf(temporary, sizeof temporary, "%s/tmp", folder);
    CHECK(!mkdir(temporary, 0700) && !setenv("TMPDIR", temporary, 1));
    int file = open(other, O_WRONLY | O_CREAT, 0644);
    CHECK(file >= 0 && file_write(file, "mine", 4) && !close(file));
    CHECK(jit_pack_build(&lens_spec, &count, level, 0, pack_path(level)) == FLASHINFER_OK);
    CHECK(file_read(other, &text) && text.size == 4 && !memcmp(text.data, "mine", 4));
    CHECK(files_in(packs) == 2 && files_in(temporary) == 0);
}

static void test_build_refuses(void **state)
{
    (void)state;
    assert_int_equal(in_child(wrong_level), 0);
    assert_int_equal(in_child(leaves_others_alone), 0);
}

int main(void)
{
    /* The level without asking the library, which would read the environment before the children set it. */
    char brand[96], isa[96];
    cpu_describe(brand, sizeof brand, isa, sizeof isa);
    snprintf(level, sizeof level, "%.*s", (int)strcspn(isa, " "), isa);
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup_pack, teardown_folder)
    const struct CMUnitTest tests[] = {CASE(test_serves), CASE(test_damage), CASE(test_foreign),
                                       CASE(test_stale),  CASE(test_order),  CASE(test_build_refuses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
