/* SPDX-License-Identifier: Apache-2.0 */
/* Environment variables: every one the library reads is a row of the table in environment.c, is read once,
 * and is shown by `flashinfer show-config`. A value that its row does not accept is as if it were unset; one
 * sentence says so. An empty value counts as unset. */
#ifndef CORE_ENVIRONMENT_H
#define CORE_ENVIRONMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ENVIRONMENT_MAX_ARCHS = 16, ENVIRONMENT_SENTENCE = 512 };

struct environment {                  /* no text is NULL; "" if unset */
    const char *cache_dir;            /* absolute, "" if none; see environment.c for the variables that tell it */
    const char *workspace_base;       /* FLASHINFER_WORKSPACE_BASE */
    const char *record;               /* FLASHINFER_RECORD; absolute */
    const char *pack_dir;             /* FLASHINFER_PACK_DIR */
    const char *source_dir;           /* FLASHINFER_SOURCE_DIR */
    const char *cc;                   /* FLASHINFER_CC */
    const char *build_cc;             /* CC */
    const char *nvrtc;                /* FLASHINFER_NVRTC */
    const char *path;                 /* PATH */
    const char *library_path;         /* LD_LIBRARY_PATH */
    const char *temporary_dir;        /* TMPDIR, else /tmp */
    int32_t archs[ENVIRONMENT_MAX_ARCHS + 1]; /* FLASHINFER_CUDA_ARCH_LIST, 0-terminated */
    int num_threads;                  /* FLASHINFER_NUM_THREADS; 0: the affinity mask */
    bool disable_jit;                 /* FLASHINFER_DISABLE_JIT */
    bool jit_lineinfo;                /* FLASHINFER_JIT_LINEINFO */
    bool jit_debug;                   /* FLASHINFER_JIT_DEBUG */
    bool validate_inputs;             /* FLASHINFER_VALIDATE_INPUTS */
};

const struct environment *environment(void);

/* The architectures that a user wants kernels compiled for, if he names none elsewhere: those of
 * FLASHINFER_CUDA_ARCH_LIST, else all of arch_numbers. 0-terminated. */
const int32_t *environment_archs(void);

struct environment_entry {
    const char *name, *meaning;
    const char *value; /* in force; "" if unset */
    const char *wrong; /* NULL, or the sentence that says what is wrong with the value that was given */
};

/* One row of the table. False past the last. */
bool environment_entry(int i, struct environment_entry *out);

/* Takes `text` as the value of row i, into its field of *out, which keeps pointing to it. False, with a sentence and *out
 * untouched, if the row does not accept it. */
bool environment_accept(int i, const char *text, struct environment *out, char wrong[ENVIRONMENT_SENTENCE]);

#endif
