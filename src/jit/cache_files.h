/* SPDX-License-Identifier: Apache-2.0 */
/* What lies in the folder of compiled kernels, for people: listed, verified, removed. Files that the library did not name are
 * neither seen nor removed. */
#ifndef JIT_CACHE_FILES_H
#define JIT_CACHE_FILES_H

#include "jit/jit.h"

enum jit_cache_kind {
    JIT_CACHE_KERNEL,   /* compiled */
    JIT_CACHE_LEFTOVER, /* of a process that ended while it wrote, or is writing now */
    JIT_CACHE_SOURCE    /* of a kernel that did not compile */
};

struct jit_cache_file {
    enum jit_cache_kind kind;
    char name[256], kernel[64], target[16]; /* target: "cpu", "sm_90a" */
    int64_t bytes, made, used;              /* the times in seconds since 1970 */
    char version[16];                       /* of the library that wrote it; "" if nothing in it says so */
    const char *wrong;                      /* NULL: whole, or no compiled kernel */
};

/* All of them, by name; each is read and compared with its checksum. The caller frees *out. IO if there is no folder. */
flashinfer_status jit_cache_files(struct jit_cache_file **out, int *count);

/* Removing what is not there any more is no failure. */
flashinfer_status jit_cache_remove(const struct jit_cache_file *file);

#endif
