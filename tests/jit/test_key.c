/* SPDX-License-Identifier: Apache-2.0 */
/* What a compiled kernel depends on changes its key, and nothing else does: a letter of any source that it reaches, a constant,
 * an option, the instruction set, the compiler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <utime.h>

#include "core/arch.h"
#include "core/file.h"
#include "jit/internal.h"
#include "support.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

static const struct device *cuda_device(void)
{
    static struct device device;
    if (!device.arch)
        CHECK(device_imagine(90, &device) == FLASHINFER_OK);
    return &device;
}

static void key_of(const struct jit_spec *spec, const struct device *device, uint8_t key[SHA256_BYTES])
{
    struct jit_job job;
    CHECK(jit_job_begin(spec, device, &job) == FLASHINFER_OK);
    memcpy(key, job.key, SHA256_BYTES);
    jit_job_end(&job);
}

static int differs(const struct jit_spec *spec, const struct device *device, const uint8_t *key)
{
    uint8_t other[SHA256_BYTES];
    key_of(spec, device, other);
    return memcmp(key, other, SHA256_BYTES) != 0;
}

/* The files whose text stands in a kernel's. */
static int reaches(const struct text *flattened, const char *path)
{
    char directive[128];
    snprintf(directive, sizeof directive, "#line 1 \"%s\"\n", path);
    return strstr(flattened->data, directive) != NULL;
}

static int is_kernel(const char *name, enum jit_target target)
{
    size_t length = strlen(name);
    return target == JIT_CUDA ? length > 3 && !strcmp(name + length - 3, ".cu")
                              : length > 6 && !strcmp(name + length - 6, "_cpu.c");
}

/* One letter of each embedded file is changed in turn. */
static int edit_all(const struct jit_spec *spec, const struct device *device)
{
    uint8_t key[SHA256_BYTES];
    struct text flattened = {0};
    int edits = 0;
    key_of(spec, device, key);
    CHECK(jit_flatten(spec, &flattened) == FLASHINFER_OK);
    for (uint64_t i = 0; i < embedded_source_count; i++) {
        char *letter = strstr((char *)(uintptr_t)embedded_sources[i].text, "SPDX");
        CHECK(letter);
        *letter = 'T';
        int reached = reaches(&flattened, embedded_sources[i].path);
        CHECK(differs(spec, device, key) == reached);
        *letter = 'S';
        edits += reached;
    }
    CHECK(!differs(spec, device, key));
    text_free(&flattened);
    return edits;
}

static void edits_of_sources(void)
{
    int kernels = 0, edits = 0;
    const struct device *const devices[] = {[JIT_CPU] = cpu_device(), [JIT_CUDA] = cuda_device()};
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (uint64_t i = 0; i < embedded_source_count; i++) {
        uintptr_t begin = (uintptr_t)embedded_sources[i].text / page * page;
        uintptr_t end = (uintptr_t)embedded_sources[i].text + embedded_sources[i].size;
        CHECK(!mprotect((void *)begin, end - begin, PROT_READ | PROT_WRITE));
    }
    for (uint64_t i = 0; i < embedded_source_count; i++)
        for (enum jit_target target = JIT_CPU; target <= JIT_CUDA; target++) {
            char name[64] = "";
            if (!is_kernel(embedded_sources[i].name, target))
                continue;
            snprintf(name, sizeof name, "%.*s", (int)(strrchr(embedded_sources[i].name, '.') - embedded_sources[i].name),
                     embedded_sources[i].name);
            const struct jit_kernel kernel = {name, target, {NULL}};
            const struct jit_spec spec = {.kernel = &kernel};
            if (target == JIT_CUDA && jit_toolchain_identity(target, (char[256]){0}, 256))
                continue; /* no NVRTC */
            kernels++;
            edits += edit_all(&spec, devices[target]);
        }
    printf("%d kernels, %d edits of a file that one of them reaches\n", kernels, edits);
    CHECK(kernels >= 10 && edits > 2 * kernels);
}

static void constants_and_options(void)
{
    uint8_t key[SHA256_BYTES];
    struct jit_spec spec = multiply_spec(1), other;
    struct device device = *cpu_device();
    key_of(&spec, &device, key);
    CHECK(!differs(&spec, &device, key));

    other = multiply_spec(2);
    CHECK(differs(&other, &device, key));
    other = multiply_spec(1);
    other.constant[1]++; /* the dtype */
    CHECK(differs(&other, &device, key));

    struct jit_kernel kernel = *spec.kernel;
    kernel.constants[0] = "FACTOS";
    other = spec;
    other.kernel = &kernel;
    CHECK(differs(&other, &device, key));
    kernel = *spec.kernel;
    kernel.name = "multiplz";
    CHECK(differs(&other, &device, key));

    struct jit_text text = *spec.user;
    char letters[1024];
    snprintf(letters, sizeof letters, "%s", text.text);
    text.text = letters;
    other = spec;
    other.user = &text;
    CHECK(!differs(&other, &device, key));
    for (char *letter = letters; *letter; letter++) {
        *letter ^= 1;
        CHECK(*letter == 0 || differs(&other, &device, key));
        *letter ^= 1;
    }
    snprintf(device.isa, sizeof device.isa, "%.80s ", cpu_device()->isa);
    CHECK(differs(&spec, &device, key));
}

/* Each bit of what the options and the device say, in the text that is hashed. */
static void every_architecture(void)
{
    static const struct jit_kernel kernel = {"probe", JIT_CUDA, {NULL}};
    static const struct jit_text text = {"extern \"C\" __global__ void probe() {}\n", true};
    const struct jit_spec spec = {.kernel = &kernel, .user = &text};
    uint8_t key[16][SHA256_BYTES];
    int n = 0;
    if (jit_toolchain_identity(JIT_CUDA, (char[256]){0}, 256))
        return;
    for (const int32_t *arch = arch_numbers; *arch && n < 16; arch++, n++) {
        struct device device;
        CHECK(device_imagine(*arch, &device) == FLASHINFER_OK);
        key_of(&spec, &device, key[n]);
        for (int i = 0; i < n; i++)
            CHECK(memcmp(key[i], key[n], SHA256_BYTES));
    }
}

/* A key with a compiler that another process chooses. */
static uint8_t *shared_key;

static void one_key(void)
{
    struct jit_spec spec = multiply_spec(1);
    key_of(&spec, cpu_device(), shared_key);
}

static void key_with(const char *compiler, uint8_t *key)
{
    setenv("FLASHINFER_CC", compiler, 1);
    assert_int_equal(in_child(one_key), 0);
    unsetenv("FLASHINFER_CC");
    memcpy(key, shared_key, SHA256_BYTES);
}

static void write_script(const char *path, const char *text, time_t time)
{
    unlink(path);
    int file = open(path, O_WRONLY | O_CREAT, 0700);
    assert_true(file >= 0 && file_write(file, text, strlen(text)) && !close(file));
    assert_int_equal(utime(path, &(struct utimbuf){time, time}), 0);
}

static void test_compilers(void **state)
{
    (void)state;
    uint8_t key[5][SHA256_BYTES];
    char path[128], command[300];
    snprintf(path, sizeof path, "%s/cc", folder);
    shared_key = mmap(NULL, SHA256_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared_key, MAP_FAILED);
    key_with("cc", key[0]);
    write_script(path, "#!/bin/sh\nexec cc \"$@\"\n", 1000000000);
    key_with(path, key[1]);
    write_script(path, "#!/bin/sh\nexec cc \"$@\"\n", 1000000001); /* made anew */
    key_with(path, key[2]);
    write_script(path, "#!/bin/sh\nexec cc -g \"$@\"\n", 1000000001);
    key_with(path, key[3]);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(key[i], key[j], SHA256_BYTES);
    snprintf(command, sizeof command, "cp \"$(readlink -f \"$(command -v cc)\")\" %s", path);
    unlink(path);
    assert_int_equal(system(command), 0);
    key_with(path, key[4]); /* the same compiler in another place */
    assert_memory_equal(key[0], key[4], SHA256_BYTES);
    munmap(shared_key, SHA256_BYTES);
}

static void test_sources(void **state)
{
    (void)state;
    assert_int_equal(in_child(edits_of_sources), 0);
}

static void test_constants_and_options(void **state)
{
    (void)state;
    assert_int_equal(in_child(constants_and_options), 0);
    assert_int_equal(in_child(every_architecture), 0);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup_folder, teardown_folder)
    const struct CMUnitTest tests[] = {CASE(test_sources), CASE(test_constants_and_options), CASE(test_compilers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
