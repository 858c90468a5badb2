/* SPDX-License-Identifier: Apache-2.0 */
/* Prebuilt CPU kernels. A pack is one file for one level of instructions. The best one that this CPU can run, and that
 * nobody else can write to, is opened when the first CPU kernel is wanted. Its kernels are found by the key that they
 * would have here, so that one built from other sources is never used.
 *
 * Where kernels can be compiled, a pack serves those that a compiler could not do better: it must be of this CPU's own
 * level, and the source must ask for no further extension that this CPU has. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cpu_features.h"
#include "core/environment.h"
#include "core/file.h"
#include "jit/internal.h"

#define LEVEL(instructions, option)                                            \
    {                                                                          \
        {.id = {kDLCPU, 0}, .name = instructions, .isa = instructions}, option \
    }

/* Best first in a family. */
static const struct jit_level levels[] = {
    LEVEL("x86-64-v4", "-march=x86-64-v4"),
    LEVEL("x86-64-v3", "-march=x86-64-v3"),
    LEVEL("x86-64-v2", "-march=x86-64-v2"),
    LEVEL("aarch64", "-march=armv8-a"),
};

enum { LEVELS = sizeof levels / sizeof *levels };

static struct {
    const struct jit_level *level; /* NULL: there is no pack */
    const struct jit_pack_table *table;
    bool is_own_level;
    char description[1024];
} pack;
static pthread_once_t once = PTHREAD_ONCE_INIT;

const struct jit_level *jit_level(const char *name)
{
    for (int i = 0; i < LEVELS; i++)
        if (!strcmp(levels[i].device.isa, name))
            return &levels[i];
    return NULL;
}

void jit_pack_key(const struct jit_level *level, uint8_t key[SHA256_BYTES])
{
    static const char what[] = "flashinfer " FLASHINFER_VERSION " pack";
    struct sha256 hash;
    sha256_begin(&hash);
    sha256_add(&hash, what, sizeof what);
    sha256_add(&hash, level->device.isa, strlen(level->device.isa));
    sha256_end(&hash, key);
}

/* The folder of the file that holds this code, which is the library or a program. */
static bool own_folder(char *folder)
{
    Dl_info info;
    struct link_map *map = NULL;
    if (!dladdr1(&levels, &info, (void **)&map, RTLD_DL_LINKMAP) || !map ||
        !realpath(*map->l_name ? map->l_name : "/proc/self/exe", folder))
        return false;
    *strrchr(folder, '/') = 0;
    return true;
}

/* Folders where packs may lie; 0 past the last. The command stands in bin/, beside lib/. */
static bool pack_folder(int i, char *path, size_t size)
{
#ifdef __x86_64__
#define MULTIARCH "x86_64-linux-gnu"
#else
#define MULTIARCH "aarch64-linux-gnu"
#endif
    static const char *const places[] = {"flashinfer", "../lib/flashinfer", "../lib/" MULTIARCH "/flashinfer"};
    char own[PATH_MAX];
    if (*environment()->pack_dir)
        return i == 0 && (size_t)snprintf(path, size, "%s", environment()->pack_dir) < size;
    return i < (int)(sizeof places / sizeof *places) && own_folder(own) &&
           (size_t)snprintf(path, size, "%s/%s", own, places[i]) < size;
}

/* Whoever can write to a file or to its folder decides what this process runs. */
static const char *distrust(const char *path, bool is_folder)
{
    struct stat status;
    if (stat(path, &status))
        return strerror(errno);
    if (is_folder ? !S_ISDIR(status.st_mode) : !S_ISREG(status.st_mode))
        return is_folder ? "it lies in no folder" : "it is no file";
    if (status.st_uid != 0 && status.st_uid != geteuid())
        return is_folder ? "its folder belongs to another user" : "it belongs to another user";
    if (status.st_mode & (S_IWGRP | S_IWOTH))
        return is_folder ? "others may write to its folder" : "others may write to it";
    return NULL;
}

/* NULL, or why the file is not used. */
static const char *open_file(const char *folder, const char *path, const struct jit_level *level)
{
    uint8_t key[SHA256_BYTES];
    struct text file = {0};
    const char *why = distrust(folder, true);
    if (!why)
        why = distrust(path, false);
    if (why)
        return why;
    jit_pack_key(level, key);
    bool whole = file_read(path, &file) && jit_unseal(key, &file);
    text_free(&file);
    if (!whole)
        return "it is damaged, or another version's or level's";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct jit_pack_table *table = library ? dlsym(library, JIT_PACK_TABLE) : NULL;
    if (!table)
        return dlerror();
    pack.level = level;
    pack.table = table;
    return NULL;
}

static void try_level(const struct jit_level *level)
{
    char folder[PATH_MAX], path[PATH_MAX + 128];
    for (int i = 0; pack_folder(i, folder, sizeof folder); i++) {
        snprintf(path, sizeof path, "%s/flashinfer-cpu-%s.pack", folder, level->device.isa);
        if (access(path, F_OK))
            continue;
        const char *why = open_file(folder, path, level);
        if (!why) {
            snprintf(pack.description, sizeof pack.description, "%.800s, %llu kernels", path,
                     (unsigned long long)pack.table->count);
            return;
        }
        if (!*pack.description)
            snprintf(pack.description, sizeof pack.description, "%.600s is not used: %.200s", path, why);
    }
}

static void open_pack(void)
{
    char folder[PATH_MAX], isa[sizeof(((struct device *)0)->isa)];
    const struct device *cpu;
    if (device_get((DLDevice){kDLCPU, 0}, &cpu))
        return;
    snprintf(isa, sizeof isa, "%.*s", (int)strcspn(cpu->isa, " "), cpu->isa);
    const struct jit_level *own = jit_level(isa);
    for (const struct jit_level *level = own; own && !pack.level && level < levels + LEVELS; level++)
        if (level->device.isa[0] == own->device.isa[0])
            try_level(level);
    pack.is_own_level = pack.level == own;
    if (*pack.description)
        return;
    size_t length = (size_t)snprintf(pack.description, sizeof pack.description, "none for %s or less in", isa);
    for (int i = 0; pack_folder(i, folder, sizeof folder) && length < sizeof pack.description; i++)
        length += (size_t)snprintf(pack.description + length, sizeof pack.description - length, "%s %s", i ? "," : "", folder);
}

const char *jit_pack(char *buffer, size_t size)
{
    pthread_once(&once, open_pack);
    snprintf(buffer, size, "%s", pack.description);
    return buffer;
}

static bool can_compile(void)
{
    const char *path;
    return !environment()->disable_jit && !jit_find_cc(&path);
}

static int compare_key(const void *key, const void *entry)
{
    return memcmp(key, ((const struct jit_pack_entry *)entry)->key, SHA256_BYTES);
}

bool jit_pack_find(const struct jit_spec *spec, struct jit_code *code)
{
    struct jit_job job;
    if (spec->kernel->target != JIT_CPU)
        return false;
    pthread_once(&once, open_pack);
    if (!pack.level || (!pack.is_own_level && can_compile()) || jit_job_begin_packed(spec, pack.level, &job))
        return false;
    const struct jit_pack_entry *entry = cpu_extends(job.source.data) && can_compile()
                                             ? NULL
                                             : bsearch(job.key, pack.table->entry, pack.table->count, sizeof *entry, compare_key);
    if (entry)
        code->entry = entry->entry;
    jit_job_end(&job);
    return entry != NULL;
}
