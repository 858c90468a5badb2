/* SPDX-License-Identifier: Apache-2.0 */
/* Builds packs: each kernel becomes an object file, whose entry has a name of its own, and a table of keys and entries binds
 * them to one shared object. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/environment.h"
#include "core/file.h"
#include "core/threads.h"
#include "jit/internal.h"

enum { SYMBOL_BYTES = 128 };

struct kernel {
    const struct jit_spec *spec;
    uint8_t key[SHA256_BYTES];
    char symbol[SYMBOL_BYTES];
};

struct build {
    const struct jit_level *level;
    struct kernel *kernels;
    int count;
    char folder[512]; /* of the object files */
    atomic_int failed;
    flashinfer_status status; /* of the first that failed, and its sentence */
    char sentence[4096];
};

static void add_option(struct jit_job *job, const char *option)
{
    text_add(&job->options, option, strlen(option) + 1);
}

static flashinfer_status write_file(const char *path, const struct text *contents)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool written = file >= 0 && file_write(file, contents->data, contents->size);
    if (file >= 0 && close(file))
        written = false;
    return written ? FLASHINFER_OK : fail(FLASHINFER_IO, "%s cannot be written: %s", path, strerror(errno));
}

static void object_path(const struct build *build, const struct kernel *kernel, char *path, size_t size)
{
    snprintf(path, size, "%s/%s.o", build->folder, kernel->symbol);
}

/* The entry's name tells the kernel to people and is different for each key. */
static flashinfer_status name_kernel(const struct build *build, struct kernel *kernel)
{
    struct jit_job job;
    TRY(jit_job_begin_packed(kernel->spec, build->level, &job));
    memcpy(kernel->key, job.key, sizeof kernel->key);
    int length = snprintf(kernel->symbol, sizeof kernel->symbol, "%.64s_", kernel->spec->kernel->name);
    for (int i = 0; i < 8; i++)
        length += snprintf(kernel->symbol + length, sizeof kernel->symbol - (size_t)length, "%02x", job.key[i]);
    jit_job_end(&job);
    return FLASHINFER_OK;
}

static int compare_kernels(const void *a, const void *b)
{
    return memcmp(((const struct kernel *)a)->key, ((const struct kernel *)b)->key, SHA256_BYTES);
}

/* In the order of their keys, each once: specs may differ in addresses alone. */
static flashinfer_status name_kernels(struct build *build)
{
    int distinct = 0;
    for (int i = 0; i < build->count; i++)
        TRY(name_kernel(build, &build->kernels[i]));
    qsort(build->kernels, (size_t)build->count, sizeof *build->kernels, compare_kernels);
    for (int i = 0; i < build->count; i++)
        if (i == 0 || compare_kernels(&build->kernels[i], &build->kernels[distinct - 1]))
            build->kernels[distinct++] = build->kernels[i];
    build->count = distinct;
    return FLASHINFER_OK;
}

static flashinfer_status compile_kernel(const struct build *build, const struct kernel *kernel)
{
    struct jit_job job;
    struct text object = {0}, log = {0};
    char option[2 * SYMBOL_BYTES + 8], path[1024];
    TRY(jit_job_begin_packed(kernel->spec, build->level, &job));
    snprintf(option, sizeof option, "-D%s=%s", kernel->spec->kernel->name, kernel->symbol);
    add_option(&job, option);
    add_option(&job, "-fvisibility=hidden");
    add_option(&job, "-c");
    object_path(build, kernel, path, sizeof path);
    flashinfer_status status = jit_compile(&job, false, &object, &log);
    if (!status)
        status = write_file(path, &object);
    text_free(&object);
    text_free(&log);
    jit_job_end(&job);
    return status;
}

static void compile_part(void *context, int part)
{
    struct build *build = context;
    flashinfer_status status = compile_kernel(build, &build->kernels[part]);
    if (status && !atomic_exchange(&build->failed, 1)) {
        snprintf(build->sentence, sizeof build->sentence, "%s", flashinfer_last_error());
        build->status = status;
    }
}

static void print_table(const struct build *build, struct text *out)
{
    text_print(out, "typedef void entry(const void *, int, int);\n#pragma GCC visibility push(hidden)\n");
    for (int i = 0; i < build->count; i++)
        text_print(out, "entry %s;\n", build->kernels[i].symbol);
    text_print(out,
               "#pragma GCC visibility pop\n"
               "static const struct { unsigned char key[%d]; entry *entry; } entries[] = {\n",
               SHA256_BYTES);
    for (int i = 0; i < build->count; i++) {
        text_print(out, "{{");
        for (int b = 0; b < SHA256_BYTES; b++)
            text_print(out, "%d,", build->kernels[i].key[b]);
        text_print(out, "}, %s},\n", build->kernels[i].symbol);
    }
    text_print(out, "};\nconst struct { unsigned long count; const void *entries; } " JIT_PACK_TABLE " = {%d, entries};\n",
               build->count);
}

/* The list of object files is longer than a command line should be. */
static flashinfer_status link_kernels(const struct build *build, struct text *binary)
{
    static const struct jit_kernel table = {JIT_PACK_TABLE, JIT_CPU, {NULL}};
    static const struct jit_spec spec = {.kernel = &table};
    struct jit_job job = {.spec = &spec, .device = &build->level->device, .file = JIT_PACK_TABLE};
    struct text list = {0}, log = {0};
    char path[1024], option[1040];
    for (int i = 0; i < build->count; i++) {
        object_path(build, &build->kernels[i], path, sizeof path);
        text_print(&list, "%s\n", path);
    }
    snprintf(path, sizeof path, "%s/objects", build->folder);
    snprintf(option, sizeof option, "@%s", path);
    add_option(&job, "-shared");
    add_option(&job, "-fPIC");
    add_option(&job, "-O2");
    add_option(&job, "-Wl,-Bsymbolic");
    add_option(&job, option);
    print_table(build, &job.source);
    flashinfer_status status = text_check(&job.source);
    if (!status)
        status = text_check(&list);
    if (!status)
        status = write_file(path, &list);
    if (!status)
        status = jit_compile(&job, false, binary, &log);
    text_free(&list);
    text_free(&log);
    jit_job_end(&job);
    return status;
}

static flashinfer_status build_in_folder(struct build *build, int threads, struct text *binary)
{
    TRY(name_kernels(build));
    threads_run(compile_part, build, build->count, threads);
    return atomic_load(&build->failed) ? fail(build->status, "%s", build->sentence) : link_kernels(build, binary);
}

/* A file without a name of its own yet, in the folder of that path. -1: errno says why there is none. */
static int open_beside(const char *path, char *temporary, size_t size)
{
    const char *slash = strrchr(path, '/');
    char folder[4096];
    struct stat status;
    int length = slash ? (int)(slash - path) + (slash == path) : 1;
    if ((size_t)snprintf(folder, sizeof folder, "%.*s", length, slash ? path : ".") >= sizeof folder)
        errno = ENAMETOOLONG;
    else if (!stat(path, &status) && S_ISDIR(status.st_mode))
        errno = EISDIR;
    else
        return file_temporary(folder, temporary, size);
    return -1;
}

static flashinfer_status pack_failed(const char *path, int error)
{
    return fail(FLASHINFER_IO, "%s cannot be written: %s", path, strerror(error));
}

/* Asked before minutes of compiling. */
static flashinfer_status check_writable(const char *path)
{
    char temporary[4200];
    int file = open_beside(path, temporary, sizeof temporary);
    if (file < 0)
        return pack_failed(path, errno);
    unlink(temporary);
    close(file);
    return FLASHINFER_OK;
}

static flashinfer_status write_pack(const char *path, const struct jit_level *level, struct text *binary)
{
    char temporary[4200];
    uint8_t key[SHA256_BYTES];
    jit_pack_key(level, key);
    jit_seal(key, binary);
    TRY(text_check(binary));
    int file = open_beside(path, temporary, sizeof temporary);
    if (file < 0)
        return pack_failed(path, errno);
    bool written = file_write(file, binary->data, binary->size) && !fchmod(file, 0644) && !fsync(file) &&
                   !rename(temporary, path);
    int error = errno;
    if (!written)
        unlink(temporary);
    close(file);
    return written ? FLASHINFER_OK : pack_failed(path, error);
}

flashinfer_status jit_pack_build(const struct jit_spec *specs, int *count, const char *level, int threads, const char *path)
{
    struct build build = {.level = jit_level(level), .count = *count};
    struct text binary = {0};
    if (!build.level)
        return fail(FLASHINFER_INVALID, "there are no packs for \"%s\": must be x86-64-v2, x86-64-v3, x86-64-v4 or aarch64",
                    level);
    TRY(check_writable(path));
    int held = folder_temporary(environment()->temporary_dir, build.folder, sizeof build.folder);
    if (held < 0)
        return fail(FLASHINFER_IO, "no folder can be made in %s (TMPDIR): %s", environment()->temporary_dir, strerror(errno));
    build.kernels = calloc((size_t)*count + 1, sizeof *build.kernels);
    flashinfer_status status = build.kernels ? FLASHINFER_OK : fail(FLASHINFER_MEMORY, "out of host memory");
    for (int i = 0; i < *count && !status; i++)
        build.kernels[i].spec = &specs[i];
    if (!status)
        status = build_in_folder(&build, threads, &binary);
    folder_remove(held, build.folder);
    if (!status)
        status = write_pack(path, build.level, &binary);
    *count = build.count;
    text_free(&binary);
    free(build.kernels);
    return status;
}
