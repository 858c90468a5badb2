/* SPDX-License-Identifier: Apache-2.0 */
/* Environment variables: every one the library reads is a row of the table in environment.c, is read once,
 * and is shown by `flashinfer show-config`. Booleans: unset, empty or "0" is off, anything else is on. */
#ifndef CORE_ENVIRONMENT_H
#define CORE_ENVIRONMENT_H

#include <stdbool.h>

struct environment {                  /* no text is NULL; "" if unset */
    const char *cache_dir;            /* FLASHINFER_CACHE_DIR, else $XDG_CACHE_HOME/flashinfer-c, else
                                         ~/.cache/flashinfer-c; absolute, "" if none */
    const char *record;               /* FLASHINFER_RECORD; absolute */
    const char *pack_dir;             /* FLASHINFER_PACK_DIR */
    const char *source_dir;           /* FLASHINFER_SOURCE_DIR */
    const char *cc;                   /* FLASHINFER_CC */
    const char *build_cc;             /* CC */
    const char *nvrtc;                /* FLASHINFER_NVRTC */
    const char *path;                 /* PATH */
    const char *library_path;         /* LD_LIBRARY_PATH */
    const char *temporary_dir;        /* TMPDIR, else /tmp */
    int num_threads;                  /* FLASHINFER_NUM_THREADS; 0: the affinity mask */
    bool disable_jit;                 /* FLASHINFER_DISABLE_JIT */
    bool jit_lineinfo;                /* FLASHINFER_JIT_LINEINFO */
    bool jit_debug;                   /* FLASHINFER_JIT_DEBUG */
    bool validate_inputs;             /* FLASHINFER_VALIDATE_INPUTS */
};

const struct environment *environment(void);

/* For show-config: name, what it does, value in force ("" if unset). Returns false past the last. */
bool environment_entry(int i, const char **name, const char **meaning, const char **value);

#endif
