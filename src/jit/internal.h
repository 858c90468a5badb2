/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of src/jit share. */
#ifndef JIT_INTERNAL_H
#define JIT_INTERNAL_H

#include <pthread.h>

#include "core/sha256.h"
#include "core/text.h"
#include "jit/jit.h"

/* Everything that decides what is compiled, and how the result is called. */
struct jit_job {
    const struct jit_spec *spec;
    const struct device *device;
    struct text source;  /* every file that the kernel reaches, as one text */
    struct text options; /* of the compiler, each ended by a NUL */
    uint8_t key[SHA256_BYTES];
    char file[160]; /* "norm_sm80-sm_90a-<key>.cubin" */
};

/* An instruction set that packs are built for. */
struct jit_level {
    struct device device; /* its isa is the level's name: "x86-64-v3" */
    const char *march;    /* "-march=x86-64-v3" */
};

/* source.c. Made by tools/embed_sources.sh, sorted by name; texts end with a NUL that does not count. */
struct embedded_source {
    const char *name, *path, *text; /* path: "device/cpu/vec.h" */
    uint64_t size;
};
extern const struct embedded_source embedded_sources[];
extern const uint64_t embedded_source_count;
flashinfer_status jit_flatten(const struct jit_spec *spec, struct text *out);

/* key.c */
flashinfer_status jit_job_begin(const struct jit_spec *spec, const struct device *device, struct jit_job *job);
/* For a pack: `level` is its only instruction set, and the key does not depend on the compiler. */
flashinfer_status jit_job_begin_packed(const struct jit_spec *spec, const struct jit_level *level, struct jit_job *job);
void jit_job_end(struct jit_job *job);
const char *jit_describe(const struct jit_spec *spec, const struct device *device, char *buffer, size_t size);

/* cache.c. A folder that cannot be trusted or used makes every read a miss and every write false. */
bool jit_cache_read(const struct jit_job *job, struct text *binary);
bool jit_cache_write(const struct jit_job *job, const struct text *binary);
void jit_cache_file(const struct jit_job *job, char *path, size_t size);
/* Sets the time of the last use. */
void jit_cache_used(const char *path);
/* Without a job: NULL if the file is whole and of that key, else what is wrong with it. */
const char *jit_cache_inspect(const char *path, const char *key_hex, char *version, size_t size);

/* record.c: appends a line to FLASHINFER_RECORD, if that is set. */
void jit_record(const struct jit_spec *spec, const struct device *device);

/* What makes a file trustworthy: a footer with its key and the checksum of what stands before. jit_unseal takes it away, and
 * is false if it is another key's or the file is not as it was sealed. */
void jit_seal(const uint8_t *key, struct text *file);
bool jit_unseal(const uint8_t *key, struct text *file);

/* toolchain.c */
flashinfer_status jit_find_cc(const char **path);
/* Tells one build of a compiler from another without running it. */
flashinfer_status jit_toolchain_identity(enum jit_target target, char *buffer, size_t size);
/* Runs a program, its TMPDIR as given, input on its standard input, and gathers what it prints. *exit_code is -1 if
 * it did not exit by itself. It does not outlive this process. */
flashinfer_status jit_run_program(char *const *argv, const char *temporary_dir, const struct text *input, struct text *output,
                                  int *exit_code);

/* compile.c, compile_cuda.c, compile_cpu.c, compile_failed.c. `verbose` asks for registers, spills and warnings in the log. */
flashinfer_status jit_compile(const struct jit_job *job, bool verbose, struct text *binary, struct text *log);
flashinfer_status jit_compile_cuda(const struct jit_job *job, bool verbose, struct text *binary, struct text *log);
flashinfer_status jit_compile_cpu(const struct jit_job *job, bool verbose, struct text *binary, struct text *log);
flashinfer_status jit_compile_failed(const struct jit_job *job, const struct text *log);

/* progress.c. Every compilation stands between the two; `watch` lives on the stack of the thread that compiles. */
struct jit_watch {
    const struct jit_job *job;
    int64_t begin; /* of the monotonic clock */
    struct jit_watch *next;
    pthread_t thread;
    bool watched, finished;
};
void jit_watch_begin(struct jit_watch *watch, const struct jit_job *job);
void jit_watch_end(struct jit_watch *watch);

/* A compiled kernel in this process. */
typedef void (*jit_cpu_entry)(const void *args, int part, int parts);

struct jit_code {
    jit_cpu_entry entry; /* CPU */
    void *kernel;        /* CUDA: the CUkernel, for any context of the device */
    void *function;      /* CUDA: its CUfunction in the primary context */
};

/* load.c. `path` is where the binary lies in the cache; "" if it is nowhere. */
flashinfer_status jit_load_code(const struct jit_job *job, const struct text *binary, const char *path, struct jit_code *code);

/* pack.c. A pack is a shared object with the kernels of one level and, under the name of JIT_PACK_TABLE, their keys in
 * ascending order. */
struct jit_pack_entry {
    uint8_t key[SHA256_BYTES];
    jit_cpu_entry entry;
};
struct jit_pack_table {
    uint64_t count;
    const struct jit_pack_entry *entry;
};
#define JIT_PACK_TABLE "flashinfer_pack"
/* NULL: no such level. */
const struct jit_level *jit_level(const char *name);
/* What the file of a level's pack is sealed with. */
void jit_pack_key(const struct jit_level *level, uint8_t key[SHA256_BYTES]);
/* False if no pack holds the kernel, or this machine can and should compile a better one. */
bool jit_pack_find(const struct jit_spec *spec, struct jit_code *code);

/* module.c */
struct jit_module {
    struct jit_code code;
};
/* From memory only; NULL if it is not there. */
const struct jit_module *jit_find(const struct jit_spec *spec, const struct device *device);

#endif
