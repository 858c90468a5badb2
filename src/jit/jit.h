/* SPDX-License-Identifier: Apache-2.0 */
/* Just-in-time compilation: a spec says which kernel with which constants; a module is that, compiled and loaded.
 *
 *     module.c                                      spec -> memory -> pack -> disk -> compile
 *     source.c                                      the text reachable from a kernel's source
 *     key.c, cache.c                                the key, and the files of the cache
 *     toolchain.c                                   where compilers are
 *     compile.c, compile_cuda.c, compile_cpu.c      NVRTC; the system's C compiler
 *     progress.c                                    tells of compilations that last
 *     load.c, launch.c                              load, launch
 *     keep.c, kernel.c                              kernels and texts of users
 *     pack.c, pack_build.c                          CPU kernels compiled ahead of time
 *     record.c, cache_files.c                       for people: what a program used, what lies in the cache
 *
 * Knows nothing of ops. */
#ifndef JIT_JIT_H
#define JIT_JIT_H

#include <stdbool.h>

#include "core/device.h"

enum { JIT_MAX_CONSTANTS = 24 };

enum jit_target { JIT_CPU, JIT_CUDA };

/* A kernel as it stands in the source tree. `name` is the entry's name, its file's name (name.cu, name.c) and
 * its name in logs, profilers and benchmarks. Each constant becomes -DNAME=value; one written "NAME:dtype"
 * becomes -DNAME=f16 or the like. */
struct jit_kernel {
    const char *name;
    enum jit_target target;
    const char *constants[JIT_MAX_CONSTANTS + 1]; /* NULL ends them */
};

/* Source text of a user: the whole kernel, or the hooks that an embedded kernel takes in with #include
 * "variant.h". */
struct jit_text {
    const char *text;
    bool is_kernel;
};

/* Copies that live as long as the process, one for each different content. Kernels and texts that do not come
 * from the library's own constants must be kept before a spec names them: specs are compared by address. NULL
 * if out of memory. */
const struct jit_kernel *jit_keep_kernel(const struct jit_kernel *kernel);
const struct jit_text *jit_keep_text(const char *text, bool is_kernel);

/* What is compiled. Compared and hashed byte by byte, so it is zeroed first and has no padding. */
struct jit_spec {
    const struct jit_kernel *kernel;
    const struct jit_text *user; /* NULL: none */
    int32_t constant[JIT_MAX_CONSTANTS];
};

/* One launch. CUDA: the entry takes the struct at `args` by value as its one parameter. CPU: entry(args,
 * part, parts) is called for each part in [0, grid[0]), by up to `threads` threads. */
struct jit_launch {
    uint32_t grid[3], block[3], cluster[3], smem; /* zeros count as 1 in grid, block and cluster; smem: dynamic bytes */
    bool cooperative;
    bool follows; /* CUDA: may begin before the launch before it, of the same call, has ended */
    const void *args;
    uint32_t args_size;
    uint32_t scratch;    /* CPU: bytes that the parts share, at most JIT_MAX_SCRATCH, the first 64 of them zeros */
    uint32_t scratch_at; /* the byte of args from which on the entry finds their address */
};
enum { JIT_MAX_SCRATCH = 1 << 18, JIT_MAX_SCRATCH_ARGS = 1024 /* bytes of args with scratch */ };

/* grid[0] of work that is cut anywhere: so many parts, or fewer. Long parts are what fetching ahead is good for, and these are
 * enough for any number of threads. */
static inline uint32_t jit_parts(int64_t parts) { return (uint32_t)(parts < 1024 ? parts : 1024); }

/* Where a launch goes. */
struct jit_queue {
    const struct device *device;
    void *stream; /* CUDA */
    int threads;  /* CPU; 0: the default */
    bool pdl;     /* CUDA: may begin before what stands before it in the stream has ended */
};

struct jit_module;

/* The module for a spec: from memory, else from disk, else compiled; other threads that want the same one
 * wait for that one only. May be called while a stream captures only if the module is in memory already. */
flashinfer_status jit_load(const struct jit_spec *spec, const struct device *device, const struct jit_module **out);

/* What a launch there needs: jit_load, but a module missing while queue->stream captures is NOT_PREPARED. */
flashinfer_status jit_load_for(const struct jit_queue *queue, const struct jit_spec *spec, const struct jit_module **out);

/* Launches it; `name` is the kernel's. */
flashinfer_status jit_launch_module(const struct jit_module *module, const char *name, const struct jit_queue *queue,
                                    const struct jit_launch *launch);

/* Both. */
flashinfer_status jit_launch(const struct jit_spec *spec, const struct jit_queue *queue, const struct jit_launch *launch);

/* Compiles for any architecture, loading nothing and touching no cache; a cubin without the kernel's entry
 * is an error: tests look at the compiler's log (registers, spills, warnings). The caller frees *log, which is NULL if there is
 * none. */
flashinfer_status jit_compile_only(const struct jit_spec *spec, const struct device *device, char **log, double *seconds,
                                   size_t *binary_bytes);

/* Compiles for any architecture into the disk cache, loading nothing, unless it is there. IO if it cannot be written there. */
struct jit_stored {
    bool was_there;
    double seconds;
    size_t bytes;
};
flashinfer_status jit_compile_to_cache(const struct jit_spec *spec, const struct device *device, struct jit_stored *out);

/* Whether the disk cache holds it, whole. */
flashinfer_status jit_is_cached(const struct jit_spec *spec, const struct device *device, bool *out);

/* Reads one line of a record, see FLASHINFER_RECORD: the spec, whose kernel and text are kept, and the architecture; 0: CPU. */
flashinfer_status jit_record_parse(const char *line, struct jit_spec *spec, int32_t *arch);

/* The folder of the disk cache; "" if there is none, or none that can be trusted. *why says what is wrong
 * with it, "" if nothing is. */
const char *jit_cache_folder(const char **why);

/* The path a spec's compiled module has in the disk cache, whether or not it is there; "" without a cache. */
flashinfer_status jit_cache_path(const struct jit_spec *spec, const struct device *device, char *path, size_t size);

/* The pack of prebuilt CPU kernels that is used: "/usr/lib/flashinfer/flashinfer-cpu-x86-64-v3.pack, 120 kernels", or why none
 * is. */
const char *jit_pack(char *buffer, size_t size);

/* Compiles CPU kernels for a level ("x86-64-v3") and writes them as a pack. *count becomes how many are different.
 * `threads` at once, 0: as many as there are processors. */
flashinfer_status jit_pack_build(const struct jit_spec *specs, int *count, const char *level, int threads, const char *path);

/* A source file embedded in the library, by its bare name ("vec.cuh"); NULL if there is none. */
const char *jit_source(const char *name, size_t *size);

/* Every compiler and library the two targets need, for `flashinfer show-config`: "NVRTC 13.0 (/usr/lib/...)",
 * or why it is absent. */
const char *jit_toolchain(enum jit_target target, char *buffer, size_t size);

#endif
