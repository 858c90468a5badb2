/* SPDX-License-Identifier: Apache-2.0 */
/* Walks the folder of compiled kernels. */
#include "jit/cache_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jit/internal.h"

static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";

/* Takes apart "kernel-target-key.suffix"; what follows the suffix, or NULL if the name is another. */
static const char *parse_name(const char *name, struct jit_cache_file *file, const char **key)
{
    size_t kernel = strspn(name, letters), target = strspn(name + kernel + (name[kernel] == '-'), letters);
    if (!kernel || kernel >= sizeof file->kernel || name[kernel] != '-' || !target || target >= sizeof file->target)
        return NULL;
    const char *rest = name + kernel + 1 + target;
    if (*rest != '-' || strspn(rest + 1, "0123456789abcdef") != 2 * SHA256_BYTES)
        return NULL;
    snprintf(file->kernel, sizeof file->kernel, "%.*s", (int)kernel, name);
    snprintf(file->target, sizeof file->target, "%.*s", (int)target, name + kernel + 1);
    *key = rest + 1;
    rest += 1 + 2 * SHA256_BYTES;
    return !strncmp(rest, ".cubin", 6) ? rest + 6 : !strncmp(rest, ".so", 3) ? rest + 3 : NULL;
}

static bool recognise(const char *name, struct jit_cache_file *file, const char **key)
{
    static const char failed[] = "failed-", temporary[] = "flashinfer-temporary-";
    if (!strncmp(name, temporary, sizeof temporary - 1)) {
        name += sizeof temporary - 1;
        file->kind = JIT_CACHE_LEFTOVER;
        return strlen(name) == 6 && strspn(name, letters) == 6;
    }
    bool source = !strncmp(name, failed, sizeof failed - 1);
    const char *rest = parse_name(source ? name + sizeof failed - 1 : name, file, key);
    if (!rest)
        return false;
    file->kind = source ? JIT_CACHE_SOURCE : *rest ? JIT_CACHE_LEFTOVER : JIT_CACHE_KERNEL;
    if (source)
        return !strcmp(rest, ".cu") || !strcmp(rest, ".c");
    return !*rest || (*rest == '.' && strlen(rest) == 7 && strspn(rest + 1, letters) == 6);
}

static bool read_entry(int folder, const char *path, const char *name, struct jit_cache_file *file)
{
    struct stat status;
    const char *key = NULL;
    memset(file, 0, sizeof *file);
    if (strlen(name) >= sizeof file->name || !recognise(name, file, &key) ||
        fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) || !S_ISREG(status.st_mode))
        return false;
    snprintf(file->name, sizeof file->name, "%s", name);
    file->bytes = status.st_size;
    file->made = status.st_mtim.tv_sec;
    file->used = status.st_atim.tv_sec > file->made ? status.st_atim.tv_sec : file->made;
    if (file->kind == JIT_CACHE_KERNEL) {
        char whole[4096 + 256];
        snprintf(whole, sizeof whole, "%s/%s", path, name);
        file->wrong = jit_cache_inspect(whole, key, file->version, sizeof file->version);
        /* Looking at a file is not using it. */
        utimensat(folder, name, (struct timespec[]){status.st_atim, {.tv_nsec = UTIME_OMIT}}, AT_SYMLINK_NOFOLLOW);
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct jit_cache_file *)a)->name, ((const struct jit_cache_file *)b)->name);
}

static flashinfer_status collect(DIR *entries, const char *path, struct jit_cache_file **out, int *count)
{
    int room = 0;
    for (const struct dirent *entry; (entry = readdir(entries));) {
        if (*count == room) {
            room = room ? 2 * room : 64;
            struct jit_cache_file *files = realloc(*out, (size_t)room * sizeof *files);
            if (!files)
                return fail(FLASHINFER_MEMORY, "no memory for the list of cache files");
            *out = files;
        }
        *count += read_entry(dirfd(entries), path, entry->d_name, &(*out)[*count]);
    }
    if (*count)
        qsort(*out, (size_t)*count, sizeof **out, by_name);
    return FLASHINFER_OK;
}

flashinfer_status jit_cache_files(struct jit_cache_file **out, int *count)
{
    const char *why, *path = jit_cache_folder(&why);
    *out = NULL;
    *count = 0;
    if (!*path)
        return fail(FLASHINFER_IO, "there is no cache: %s", why);
    DIR *entries = opendir(path);
    if (!entries)
        return fail(FLASHINFER_IO, "the cache %s cannot be read: %s", path, strerror(errno));
    flashinfer_status status = collect(entries, path, out, count);
    closedir(entries);
    if (status) {
        free(*out);
        *out = NULL;
    }
    return status;
}

flashinfer_status jit_cache_remove(const struct jit_cache_file *file)
{
    char path[4096 + sizeof file->name];
    const char *why;
    snprintf(path, sizeof path, "%s/%s", jit_cache_folder(&why), file->name);
    if (unlink(path) && errno != ENOENT)
        return fail(FLASHINFER_IO, "%s cannot be removed: %s", path, strerror(errno));
    return FLASHINFER_OK;
}
