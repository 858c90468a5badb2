/* SPDX-License-Identifier: Apache-2.0 */
/* Finds NVRTC without opening it, and opens it. */
#include "backend/nvrtc.h"

#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/cuda.h"
#include "core/environment.h"
#include "core/text.h"

#ifdef __aarch64__
#define SYSTEM_FOLDER "/usr/lib/aarch64-linux-gnu"
#else
#define SYSTEM_FOLDER "/usr/lib/x86_64-linux-gnu"
#endif

/* Searched in this order, after LD_LIBRARY_PATH. */
static const char folders[] = SYSTEM_FOLDER ":/usr/lib64:/usr/lib:/usr/local/lib:/usr/local/cuda/lib64:"
    "/usr/local/cuda/lib:/usr/local/cuda-*/lib64:/usr/local/cuda-*/lib:/opt/cuda/lib64";

static char *found;     /* path, NULL if there is none */
static struct text why; /* there is none, or it cannot be used; empty if it can */
static struct nvrtc table;
static pthread_once_t find_once = PTHREAD_ONCE_INIT, open_once = PTHREAD_ONCE_INIT, exit_once = PTHREAD_ONCE_INIT;
static const pthread_rwlock_t initial = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static pthread_rwlock_t in_use = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

static char *find_in(const char *list, const char *name)
{
    char *path = NULL;
    for (const char *folder = list; *folder && !path;) {
        int length = (int)strcspn(folder, ":");
        char pattern[4096];
        glob_t matches;
        snprintf(pattern, sizeof pattern, "%.*s/%s", length, folder, name);
        if (length > 0 && glob(pattern, 0, NULL, &matches) == 0) {
            path = realpath(matches.gl_pathv[matches.gl_pathc - 1], NULL); /* the newest toolkit sorts last */
            globfree(&matches);
        }
        folder += length + (folder[length] == ':');
    }
    return path;
}

/* The path of the library that the loader opens under this name. */
static char *ask_loader(const char *name)
{
    void *library = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
    void *symbol = library ? dlsym(library, "nvrtcVersion") : NULL;
    Dl_info info;
    char *path = symbol && dladdr(symbol, &info) ? realpath(info.dli_fname, NULL) : NULL;
    if (library)
        dlclose(library);
    return path;
}

static void find(void)
{
    const char *wanted = environment()->nvrtc;
    if (*wanted) {
        found = strchr(wanted, '/') ? realpath(wanted, NULL) : ask_loader(wanted);
        if (!found)
            text_print(&why, "no NVRTC: FLASHINFER_NVRTC names %s, which is no library that can be read", wanted);
        return;
    }
    /* A driver may refuse what a compiler of a later major version makes. */
    int driver_version = 13000;
    if (cuda())
        cuda()->driver_version(&driver_version);
    const char *names[] = {"libnvrtc.so.13", "libnvrtc.so.12"};
    if (driver_version < 13000)
        names[0] = "libnvrtc.so.12", names[1] = "libnvrtc.so.13";
    for (int i = 0; i < 2 && !found; i++)
        if (!(found = find_in(environment()->library_path, names[i]))
            && !(found = find_in(folders, names[i])))
            found = ask_loader(names[i]);
    if (!found)
        text_print(&why,
                   "no NVRTC, which compiles CUDA kernels: FLASHINFER_NVRTC is unset, and neither libnvrtc.so.13 "
                   "nor libnvrtc.so.12 is in %s%s%s or known to the loader; install a CUDA toolkit or the Python "
                   "wheel nvidia-cuda-nvrtc, and point FLASHINFER_NVRTC at the library",
                   environment()->library_path, *environment()->library_path ? ":" : "", folders);
}

flashinfer_status nvrtc_path(const char **path)
{
    pthread_once(&find_once, find);
    *path = found;
    if (found)
        return FLASHINFER_OK;
    return fail(FLASHINFER_NO_COMPILER, "%s", why.data ? why.data : "no NVRTC");
}

/* NVRTC looks for its built-in functions by name alone: unless the loader searches its folder, it must find
 * them loaded. */
static void open_builtins(const struct nvrtc *nvrtc)
{
    int major, minor;
    char path[4096];
    int folder = (int)(strrchr(found, '/') - found);
    if (nvrtc->version(&major, &minor) != NVRTC_OK)
        return;
    snprintf(path, sizeof path, "%.*s/libnvrtc-builtins.so.%d.%d", folder, found, major, minor);
    dlopen(path, RTLD_LAZY | RTLD_LOCAL);
}

static void at_exit(void)
{
    pthread_rwlock_wrlock(&in_use);
}

/* The threads that were compiling do not exist here. */
static void after_fork_in_child(void)
{
    in_use = initial;
}

/* Handlers run in reverse, and NVRTC registers some of its own in the middle of its first compilation. */
static void handle_exit(void)
{
    atexit(at_exit);
}

void nvrtc_begin(void)
{
    pthread_rwlock_rdlock(&in_use);
}

void nvrtc_end(void)
{
    pthread_rwlock_unlock(&in_use);
    pthread_once(&exit_once, handle_exit);
}

/* A first compilation that is as short as one can be. */
static void compile_nothing(void)
{
    nvrtc_program program;
    nvrtc_begin();
    if (table.create(&program, "", "nothing", 0, NULL, NULL) == NVRTC_OK) {
        table.compile(program, 0, NULL);
        table.destroy(&program);
    }
    nvrtc_end();
}

static void open_library(void)
{
    static const struct {
        const char *symbol;
        size_t offset; /* in struct nvrtc */
    } functions[] = {
#define ROW(field, symbol, parameters) {#symbol, offsetof(struct nvrtc, field)},
        NVRTC_FUNCTIONS(ROW)
#undef ROW
        {"nvrtcGetErrorString", offsetof(struct nvrtc, error_string)},
    };
    void *library = dlopen(found, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        text_print(&why, "NVRTC cannot be used: %s", dlerror());
        return;
    }
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *address = dlsym(library, functions[i].symbol);
        if (!address) {
            text_print(&why, "NVRTC cannot be used: %s lacks %s", found, functions[i].symbol);
            return;
        }
        memcpy((char *)&table + functions[i].offset, &address, sizeof address);
    }
    open_builtins(&table);
    pthread_atfork(NULL, NULL, after_fork_in_child);
    if (gettid() != getpid()) /* while this compiles, the main thread may exit */
        compile_nothing();
}

flashinfer_status nvrtc_get(const struct nvrtc **out)
{
    const char *path;
    TRY(nvrtc_path(&path));
    pthread_once(&open_once, open_library);
    *out = &table;
    return why.data ? fail(FLASHINFER_NO_COMPILER, "%s", why.data) : FLASHINFER_OK;
}
