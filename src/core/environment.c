/* SPDX-License-Identifier: Apache-2.0 */
/* The table of environment variables, and the one time they are read. Programs that run with more rights than
 * their caller see them as unset: some of them name code to load. */
#include "core/environment.h"

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum kind { TEXT, NUMBER, BOOLEAN };

static const struct row {
    const char *name, *meaning;
    enum kind kind;
    size_t offset; /* in struct environment */
} rows[] = {
#define ROW(kind, field, name, meaning) {name, meaning, kind, offsetof(struct environment, field)}
    ROW(TEXT, cache_dir, "FLASHINFER_CACHE_DIR",
        "folder of compiled kernels; default $XDG_CACHE_HOME/flashinfer-c, else ~/.cache/flashinfer-c"),
    ROW(BOOLEAN, disable_jit, "FLASHINFER_DISABLE_JIT",
        "never compile: a kernel that is not in the cache is an error"),
    ROW(TEXT, record, "FLASHINFER_RECORD",
        "file to which every kernel that is loaded adds a line, for `flashinfer compile --from`"),
    ROW(TEXT, source_dir, "FLASHINFER_SOURCE_DIR",
        "tree of this library's sources from which kernels are read; default: as they were when it was built"),
    ROW(TEXT, pack_dir, "FLASHINFER_PACK_DIR",
        "folder of packs of prebuilt CPU kernels; default: flashinfer/ beside the library"),
    ROW(BOOLEAN, jit_lineinfo, "FLASHINFER_JIT_LINEINFO",
        "kernels carry file names and lines for debuggers, profilers and compute-sanitizer"),
    ROW(BOOLEAN, jit_debug, "FLASHINFER_JIT_DEBUG", "kernels are compiled for debuggers, not optimised"),
    ROW(TEXT, nvrtc, "FLASHINFER_NVRTC", "path of libnvrtc, which compiles CUDA kernels; default: searched"),
    ROW(TEXT, cc, "FLASHINFER_CC", "C compiler of CPU kernels; default: CC, else cc, gcc or clang on PATH"),
    ROW(NUMBER, num_threads, "FLASHINFER_NUM_THREADS",
        "threads of a CPU kernel; default: the processors that this process may use"),
    ROW(BOOLEAN, validate_inputs, "FLASHINFER_VALIDATE_INPUTS",
        "check the contents of index tensors before each call; waits for the device"),
    ROW(TEXT, build_cc, "CC", "taken if FLASHINFER_CC is unset and it names a program"),
    ROW(TEXT, path, "PATH", "where C compilers are searched"),
    ROW(TEXT, library_path, "LD_LIBRARY_PATH", "where libnvrtc is searched first"),
    ROW(TEXT, temporary_dir, "TMPDIR", "where compilers write, and failed sources are kept if there is no cache; default /tmp"),
#undef ROW
};

enum { ROWS = sizeof rows / sizeof *rows };

static struct environment values;
static const char *shown[ROWS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const char *copy(const char *text)
{
    const char *kept = text && *text ? strdup(text) : NULL;
    return kept ? kept : "";
}

static const char *joined(const char *folder, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? "" : path;
}

/* Later calls of chdir change nothing. */
static const char *absolute(const char *path)
{
    char here[4096];
    if (!path || !*path || *path == '/')
        return copy(path);
    return getcwd(here, sizeof here) ? joined(here, path) : "";
}

static const char *find_cache_dir(void)
{
    const char *dir = secure_getenv("FLASHINFER_CACHE_DIR"), *home;
    if (dir && *dir)
        return absolute(dir);
    if ((home = secure_getenv("XDG_CACHE_HOME")) && *home == '/')
        return joined(home, "flashinfer-c");
    if ((home = secure_getenv("HOME")) && *home == '/')
        return joined(home, ".cache/flashinfer-c");
    return "";
}

static void read_all(void)
{
    for (int i = 0; i < ROWS; i++) {
        const char *text = secure_getenv(rows[i].name);
        void *field = (char *)&values + rows[i].offset;
        shown[i] = copy(text);
        if (rows[i].kind == TEXT)
            *(const char **)field = shown[i];
        else if (rows[i].kind == BOOLEAN)
            *(bool *)field = *shown[i] && strcmp(shown[i], "0") != 0;
        else
            *(int *)field = atoi(shown[i]) > 0 ? atoi(shown[i]) : 0;
    }
    values.cache_dir = find_cache_dir();
    values.record = absolute(values.record);
    values.pack_dir = absolute(values.pack_dir);
    values.source_dir = absolute(values.source_dir);
    if (!*values.temporary_dir)
        values.temporary_dir = "/tmp";
}

const struct environment *environment(void)
{
    pthread_once(&once, read_all);
    return &values;
}

bool environment_entry(int i, const char **name, const char **meaning, const char **value)
{
    environment();
    if (i < 0 || i >= ROWS)
        return false;
    *name = rows[i].name;
    *meaning = rows[i].meaning;
    *value = rows[i].kind == TEXT ? *(const char *const *)((const char *)&values + rows[i].offset) : shown[i];
    return true;
}
