/* SPDX-License-Identifier: Apache-2.0 */
/* The table of environment variables, and the one time they are read. Programs that run with more rights than
 * their caller see them as unset: some of them name code to load. */
#include "core/environment.h"

#include <ctype.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/arch.h"

enum { MAX_PATH_BYTES = 3000, MAX_SHOWN = 120 };

/* TEXT may be anything: who uses it (as a compiler, a library, a list of folders) says what is wrong with it. */
enum kind { TEXT, NEW_PATH, NEW_FILE, EXISTING_FOLDER, COUNT, BOOLEAN, ARCHITECTURES };

static const struct row {
    const char *name, *meaning;
    enum kind kind;
    size_t offset; /* in struct environment */
} rows[] = {
#define ROW(kind, field, name, meaning)                          \
    {                                                            \
        name, meaning, kind, offsetof(struct environment, field) \
    }
    ROW(NEW_PATH, cache_dir, "FLASHINFER_CACHE_DIR",
        "folder of compiled kernels; default .cache/flashinfer-c under FLASHINFER_WORKSPACE_BASE, else "
        "$XDG_CACHE_HOME/flashinfer-c, else ~/.cache/flashinfer-c"),
    ROW(NEW_PATH, workspace_base, "FLASHINFER_WORKSPACE_BASE", "folder that takes the place of the home for the cache"),
    ROW(BOOLEAN, disable_jit, "FLASHINFER_DISABLE_JIT", "never compile: a kernel that is not in the cache is an error"),
    ROW(NEW_FILE, record, "FLASHINFER_RECORD",
        "file to which every kernel that is loaded adds a line, for `flashinfer compile --from`"),
    ROW(NEW_PATH, source_dir, "FLASHINFER_SOURCE_DIR",
        "tree of this library's sources from which kernels are read; default: as they were when it was built"),
    ROW(NEW_PATH, pack_dir, "FLASHINFER_PACK_DIR",
        "folder of packs of prebuilt CPU kernels; default: flashinfer/ beside the library"),
    ROW(BOOLEAN, jit_lineinfo, "FLASHINFER_JIT_LINEINFO",
        "kernels carry file names and lines for debuggers, profilers and compute-sanitizer"),
    ROW(BOOLEAN, jit_debug, "FLASHINFER_JIT_DEBUG", "kernels are compiled for debuggers, not optimised"),
    ROW(TEXT, nvrtc, "FLASHINFER_NVRTC", "path of libnvrtc, which compiles CUDA kernels; default: searched"),
    ROW(TEXT, cc, "FLASHINFER_CC", "C compiler of CPU kernels; default: CC, else cc, gcc or clang on PATH"),
    ROW(ARCHITECTURES, archs, "FLASHINFER_CUDA_ARCH_LIST",
        "what kernels are compiled for ahead of time (\"9.0a 10.0\"); default: every architecture"),
    ROW(COUNT, num_threads, "FLASHINFER_NUM_THREADS",
        "threads of a CPU kernel; default: the processors that this process may use"),
    ROW(BOOLEAN, validate_inputs, "FLASHINFER_VALIDATE_INPUTS",
        "check the contents of index tensors before each call; waits for the device"),
    ROW(TEXT, build_cc, "CC", "taken if FLASHINFER_CC is unset and it names a program"),
    ROW(TEXT, path, "PATH", "where C compilers are searched"),
    ROW(TEXT, library_path, "LD_LIBRARY_PATH", "where libnvrtc is searched first"),
    ROW(EXISTING_FOLDER, temporary_dir, "TMPDIR",
        "where compilers write, and failed sources are kept if there is no cache; default /tmp"),
#undef ROW
};

enum { ROWS = sizeof rows / sizeof *rows };

static struct environment values;
static const char *given[ROWS]; /* NULL: unset, or not accepted */
static const char *wrong[ROWS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool parse_count(const char *text, int *value)
{
    char *end;
    long number = isdigit((unsigned char)*text) ? strtol(text, &end, 10) : 0;
    if (number < 1 || number > INT_MAX || *end)
        return false;
    *value = (int)number;
    return true;
}

static bool parse_boolean(const char *text, bool *value)
{
    static const char *const words[] = {"0", "1", "false", "true", "no", "yes", "off", "on"};
    for (int i = 0; i < 8; i++)
        if (!strcasecmp(text, words[i])) {
            *value = i % 2;
            return true;
        }
    return false;
}

static bool is_folder(const char *path)
{
    struct stat status;
    return *path == '/' && !stat(path, &status) && S_ISDIR(status.st_mode);
}

static bool can_be_written(const char *path)
{
    char folder[MAX_PATH_BYTES + 1];
    struct stat status;
    if (!stat(path, &status))
        return !S_ISDIR(status.st_mode) && !access(path, W_OK);
    const char *name = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", name ? (int)(name - path) + 1 : 1, name ? path : ".");
    return !access(folder, W_OK | X_OK) && (!name || name[1]);
}

/* NULL, or what is wrong. */
static const char *parse(enum kind kind, const char *text, void *field)
{
    int32_t archs[ENVIRONMENT_MAX_ARCHS + 1];
    const char *why;
    switch (kind) {
    case NEW_PATH:
    case NEW_FILE:
    case EXISTING_FOLDER:
        if (strlen(text) > MAX_PATH_BYTES)
            return "must be a path of at most 3000 bytes";
        if (kind == NEW_FILE && !can_be_written(text))
            return "must be a file that can be written, in a folder that exists";
        if (kind == EXISTING_FOLDER && !is_folder(text))
            return "must be the absolute path of a folder that exists";
        break;
    case COUNT:
        return parse_count(text, field) ? NULL : "must be an integer of at least 1";
    case BOOLEAN:
        return parse_boolean(text, field) ? NULL : "must be 0, 1, false, true, no, yes, off or on";
    case ARCHITECTURES:
        if ((why = arch_parse_list(text, archs, ENVIRONMENT_MAX_ARCHS)))
            return why;
        memcpy(field, archs, sizeof archs);
        return NULL;
    case TEXT:
        break;
    }
    *(const char **)field = text;
    return NULL;
}

bool environment_accept(int i, const char *text, struct environment *out, char sentence[ENVIRONMENT_SENTENCE])
{
    const char *why = parse(rows[i].kind, text, (char *)out + rows[i].offset);
    char quoted[MAX_SHOWN + 4];
    size_t length = 0;
    if (!why)
        return true;
    for (; text[length] && length < MAX_SHOWN; length++)
        quoted[length] = isprint((unsigned char)text[length]) ? text[length] : '?';
    strcpy(quoted + length, text[length] ? "..." : "");
    snprintf(sentence, ENVIRONMENT_SENTENCE, "%s is \"%s\", %s; it is taken as unset", rows[i].name, quoted, why);
    return false;
}

/* Memory that cannot be had is as if the variable were unset. */
static const char *joined(const char *folder, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? "" : path;
}

/* Later calls of chdir change nothing. */
static const char *absolute(const char *path)
{
    char here[PATH_MAX];
    if (*path == '/' || !*path)
        return path;
    return getcwd(here, sizeof here) ? joined(here, path) : "";
}

static const char *find_cache_dir(void)
{
    const char *home;
    if (*values.cache_dir)
        return absolute(values.cache_dir);
    if (*values.workspace_base)
        return joined(absolute(values.workspace_base), ".cache/flashinfer-c");
    if ((home = secure_getenv("XDG_CACHE_HOME")) && *home == '/' && strlen(home) <= MAX_PATH_BYTES)
        return joined(home, "flashinfer-c");
    if ((home = secure_getenv("HOME")) && *home == '/' && strlen(home) <= MAX_PATH_BYTES)
        return joined(home, ".cache/flashinfer-c");
    return "";
}

static void read_all(void)
{
    char sentence[ENVIRONMENT_SENTENCE];
    for (int i = 0; i < ROWS; i++) {
        const char *text = secure_getenv(rows[i].name);
        if (rows[i].kind <= EXISTING_FOLDER)
            *(const char **)((char *)&values + rows[i].offset) = rows[i].kind == EXISTING_FOLDER ? "/tmp" : "";
        char *kept = text && *text ? strdup(text) : NULL;
        if (!kept)
            continue;
        if (environment_accept(i, kept, &values, sentence)) {
            given[i] = kept;
        } else {
            wrong[i] = strdup(sentence);
            free(kept);
        }
    }
    values.cache_dir = find_cache_dir();
    values.record = absolute(values.record);
    values.pack_dir = absolute(values.pack_dir);
    values.source_dir = absolute(values.source_dir);
}

const struct environment *environment(void)
{
    pthread_once(&once, read_all);
    return &values;
}

const int32_t *environment_archs(void)
{
    const struct environment *env = environment();
    return env->archs[0] ? env->archs : arch_numbers;
}

bool environment_entry(int i, struct environment_entry *out)
{
    environment();
    if (i < 0 || i >= ROWS)
        return false;
    const char *text = given[i] ? given[i] : "";
    if (rows[i].kind <= EXISTING_FOLDER)
        text = *(const char *const *)((const char *)&values + rows[i].offset);
    *out = (struct environment_entry){rows[i].name, rows[i].meaning, text, wrong[i]};
    return true;
}
