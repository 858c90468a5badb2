/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for debuggers: the tables of lines in what the compilers make name our files, in the variants that ask for it
 * and in no other. Kernels read from a source tree: an edit there is another kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <elf.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/nvrtc.h"
#include "core/file.h"
#include "jit/internal.h"
#include "support.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

static const struct jit_kernel on_cpu = {"get_seq_lens_cpu", JIT_CPU, {NULL}};
static const struct jit_kernel on_cuda = {"get_seq_lens_sm80", JIT_CUDA, {NULL}};
static const struct jit_spec cpu_spec = {.kernel = &on_cpu};
static const struct jit_spec cuda_spec = {.kernel = &on_cuda};

/* Whether one of the tables of lines of an ELF file, a shared object or a cubin, holds a text. */
static bool lines_hold(const struct text *file, const char *text)
{
    Elf64_Ehdr header;
    Elf64_Shdr names, section;
    CHECK(file->size > sizeof header && !memcmp(file->data, ELFMAG, SELFMAG));
    memcpy(&header, file->data, sizeof header);
    memcpy(&names, file->data + header.e_shoff + (size_t)header.e_shstrndx * sizeof names, sizeof names);
    for (int i = 0; i < header.e_shnum; i++) {
        memcpy(&section, file->data + header.e_shoff + (size_t)i * sizeof section, sizeof section);
        const char *name = file->data + names.sh_offset + section.sh_name;
        if (section.sh_type != SHT_NOBITS && !strncmp(name, ".debug_line", 11) &&
            memmem(file->data + section.sh_offset, section.sh_size, text, strlen(text)))
            return true;
    }
    return false;
}

static struct text compile(const struct jit_spec *spec, const struct device *device)
{
    struct jit_job job;
    struct text binary = {0}, log = {0};
    CHECK(jit_job_begin(spec, device, &job) == FLASHINFER_OK);
    CHECK(jit_compile(&job, false, &binary, &log) == FLASHINFER_OK);
    jit_job_end(&job);
    text_free(&log);
    return binary;
}

static void expect_lines(const struct jit_spec *spec, const struct device *device, bool wanted, const char *folder_name,
                         const char *file_name)
{
    struct text binary = compile(spec, device);
    CHECK(lines_hold(&binary, folder_name) == wanted && lines_hold(&binary, file_name) == wanted);
    text_free(&binary);
}

static void expect_cpu_lines(bool wanted)
{
    expect_lines(&cpu_spec, cpu_device(), wanted, "ops/page", "get_seq_lens_cpu.c");
    expect_lines(&cpu_spec, cpu_device(), wanted, "device/cpu", "types.h");
}

static void expect_cuda_lines(bool wanted)
{
    struct device device;
    CHECK(device_imagine(90, &device) == FLASHINFER_OK);
    expect_lines(&cuda_spec, &device, wanted, "ops/page", "get_seq_lens_sm80.cu");
}

static void plain_cpu(void)
{
    expect_cpu_lines(false);
}

static void lineinfo_cpu(void)
{
    setenv("FLASHINFER_JIT_LINEINFO", "1", 1);
    expect_cpu_lines(true);
}

static void debug_cpu(void)
{
    setenv("FLASHINFER_JIT_DEBUG", "1", 1);
    expect_cpu_lines(true);
}

/* In a child, since looking for it reads the environment. */
static void needs_nvrtc(void)
{
    const struct nvrtc *nvrtc;
    _exit(nvrtc_get(&nvrtc) != FLASHINFER_OK);
}

static void plain_cuda(void)
{
    expect_cuda_lines(false);
}

static void lineinfo_cuda(void)
{
    setenv("FLASHINFER_JIT_LINEINFO", "1", 1);
    expect_cuda_lines(true);
}

static void debug_cuda(void)
{
    setenv("FLASHINFER_JIT_DEBUG", "1", 1);
    expect_cuda_lines(true);
}

static void test_cpu_lines(void **state)
{
    (void)state;
    assert_int_equal(in_child(plain_cpu), 0);
    assert_int_equal(in_child(lineinfo_cpu), 0);
    assert_int_equal(in_child(debug_cpu), 0);
}

static void test_cuda_lines(void **state)
{
    (void)state;
    if (in_child(needs_nvrtc))
        skip();
    assert_int_equal(in_child(plain_cuda), 0);
    assert_int_equal(in_child(lineinfo_cuda), 0);
    assert_int_equal(in_child(debug_cuda), 0);
}

/* ---- FLASHINFER_SOURCE_DIR ---- */

static const char *key_file = "kernel.key"; /* in the folder of the case: the path in the cache that the child before saw */

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (char *slash = strchr(path + strlen(folder) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    CHECK(file && fputs(text, file) >= 0 && !fclose(file));
}

static void write_key(void)
{
    char path[4096];
    CHECK(jit_cache_path(&cpu_spec, cpu_device(), path, sizeof path) == FLASHINFER_OK);
    put(key_file, path);
}

/* Whether the kernel's key is the one that write_key saw. */
static bool same_key(void)
{
    char path[4096], other[256];
    struct text before = {0};
    snprintf(other, sizeof other, "%s/%s", folder, key_file);
    CHECK(file_read(other, &before));
    CHECK(jit_cache_path(&cpu_spec, cpu_device(), path, sizeof path) == FLASHINFER_OK);
    bool same = before.size == strlen(path) && !memcmp(before.data, path, before.size);
    text_free(&before);
    return same;
}

/* A tree that was not edited gives the very text that is embedded, wherever it lies. The tests run in the tree. */
static void own_tree(void)
{
    char here[4096];
    CHECK(getcwd(here, sizeof here));
    setenv("FLASHINFER_SOURCE_DIR", here, 1);
    CHECK(same_key());
}

static void key_differs(void)
{
    CHECK(!same_key());
}

static void lineinfo_differs(void)
{
    setenv("FLASHINFER_JIT_LINEINFO", "1", 1);
    key_differs();
}

static void debug_differs(void)
{
    setenv("FLASHINFER_JIT_DEBUG", "1", 1);
    key_differs();
}

static const char edited_kernel[] = "#include \"no_such_before.h\"\n"
                                    "struct args;\n"
                                    "void get_seq_lens_cpu(const struct args *a, int part, int parts)\n"
                                    "{\n"
                                    "    *(int *)a = NEW_VALUE + part * parts;\n"
                                    "}\n";

static void edited_tree(void)
{
    setenv("FLASHINFER_SOURCE_DIR", folder, 1);
    put("ops/page/get_seq_lens_cpu.c", edited_kernel);
    put("device/cpu/no_such_before.h", "#define NEW_VALUE 41\n");
    CHECK(!same_key());
    int32_t value = 0;
    struct jit_queue queue = {.device = cpu_device()};
    struct jit_launch launch = {.args = &value, .args_size = sizeof value};
    CHECK(jit_launch(&cpu_spec, &queue, &launch) == FLASHINFER_OK && value == 41 && compiled() == 1);
    write_key();
}

static void edited_again(void)
{
    setenv("FLASHINFER_SOURCE_DIR", folder, 1);
    CHECK(same_key());
    put("device/cpu/no_such_before.h", "#define NEW_VALUE 42\n");
    CHECK(!same_key());
}

static void incomplete_tree(void)
{
    char path[4096];
    setenv("FLASHINFER_SOURCE_DIR", folder, 1);
    CHECK_FAILS(jit_cache_path(&cpu_spec, cpu_device(), path, sizeof path), FLASHINFER_IO,
                "kernel get_seq_lens_cpu has no source: get_seq_lens_cpu.c is not in /tmp/flashinfer-test-");
    put("ops/page/get_seq_lens_cpu.c", "#include \"types.h\"\n");
    CHECK_FAILS(
        jit_cache_path(&cpu_spec, cpu_device(), path, sizeof path), FLASHINFER_COMPILE,
        "line 1 of ops/page/get_seq_lens_cpu.c includes \"types.h\", which is not a source of /tmp/flashinfer-test-");
}

static void test_key_of_variants(void **state)
{
    (void)state;
    assert_int_equal(in_child(write_key), 0);
    assert_int_equal(in_child(lineinfo_differs), 0);
    assert_int_equal(in_child(debug_differs), 0);
}

static void test_source_dir(void **state)
{
    (void)state;
    assert_int_equal(in_child(write_key), 0);
    assert_int_equal(in_child(own_tree), 0);
    assert_int_equal(in_child(edited_tree), 0);
    assert_int_equal(in_child(edited_again), 0);
}

static void test_incomplete_source_dir(void **state)
{
    (void)state;
    assert_int_equal(in_child(incomplete_tree), 0);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup_folder, teardown_folder)
    const struct CMUnitTest tests[] = {CASE(test_cpu_lines), CASE(test_cuda_lines), CASE(test_key_of_variants),
                                       CASE(test_source_dir), CASE(test_incomplete_source_dir)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
