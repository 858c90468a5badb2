/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of compiled kernels. A file is what the compiler made, followed by a footer with its key and
 * checksum: one that was cut short, altered, or stands under another's name is no hit. Files appear complete,
 * by link or rename; who comes second keeps the first one's. There are no locks to be left behind. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/environment.h"
#include "core/file.h"
#include "jit/internal.h"

struct footer {
    char magic[8];
    char version[16]; /* of the library that wrote the file */
    uint64_t payload_size;
    uint8_t key[SHA256_BYTES];
    uint8_t checksum[SHA256_BYTES]; /* of the payload */
};

static const char magic[8] = "FIJIT\0\0\2"; /* the last byte: the format */

static const char *folder = "";
static char reason[512], failure[512]; /* why there is none; why the first file that was not kept was not */
static atomic_int failure_state;       /* 2: `failure` stands */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_parents(const char *path)
{
    char part[4096];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(part, 0700);
        *slash = '/';
    }
}

static void choose_folder(void)
{
    const char *wanted = environment()->cache_dir;
    struct stat status;
    if (!*wanted) {
        snprintf(reason, sizeof reason,
                 "none of FLASHINFER_CACHE_DIR, FLASHINFER_WORKSPACE_BASE, XDG_CACHE_HOME and HOME is set to a folder");
        return;
    }
    make_parents(wanted);
    if ((mkdir(wanted, 0700) && errno != EEXIST) || stat(wanted, &status))
        snprintf(reason, sizeof reason, "%s cannot be made: %s", wanted, strerror(errno));
    else if (!S_ISDIR(status.st_mode))
        snprintf(reason, sizeof reason, "%s is not a folder", wanted);
    else if (status.st_uid != geteuid())
        snprintf(reason, sizeof reason, "%s belongs to user %u, this process to user %u", wanted,
                 (unsigned)status.st_uid, (unsigned)geteuid());
    else if (status.st_mode & (S_IWGRP | S_IWOTH))
        snprintf(reason, sizeof reason, "others may write to %s (mode %o) and so plant code in it; chmod go-w lets it be used",
                 wanted, (unsigned)status.st_mode & 07777);
    else
        folder = wanted;
    /* A folder that may only be read still serves what it holds. */
    if (*folder && access(folder, W_OK))
        snprintf(reason, sizeof reason, "%s cannot be written: %s", folder, strerror(errno));
}

const char *jit_cache_folder(const char **why)
{
    pthread_once(&once, choose_folder);
    *why = !*reason && atomic_load(&failure_state) == 2 ? failure : reason;
    return folder;
}

void jit_cache_file(const struct jit_job *job, char *path, size_t size)
{
    const char *why, *dir = jit_cache_folder(&why);
    if (!*dir || (size_t)snprintf(path, size, "%s/%s", dir, job->file) >= size)
        *path = 0;
}

static struct footer footer_of(const uint8_t *key, const void *payload, size_t size)
{
    struct footer footer = {.version = FLASHINFER_VERSION, .payload_size = size};
    struct sha256 hash;
    memcpy(footer.magic, magic, sizeof magic);
    memcpy(footer.key, key, sizeof footer.key);
    sha256_begin(&hash);
    sha256_add(&hash, payload, size);
    sha256_end(&hash, footer.checksum);
    return footer;
}

void jit_seal(const uint8_t *key, struct text *file)
{
    struct footer footer = footer_of(key, file->data, file->size);
    text_add(file, &footer, sizeof footer);
}

bool jit_unseal(const uint8_t *key, struct text *file)
{
    struct footer found, expected;
    if (file->size <= sizeof found)
        return false;
    size_t size = file->size - sizeof found;
    memcpy(&found, file->data + size, sizeof found);
    expected = footer_of(key, file->data, size);
    if (memcmp(&found, &expected, sizeof found))
        return false;
    file->size = size;
    return true;
}

bool jit_cache_read(const struct jit_job *job, struct text *binary)
{
    char path[4096];
    jit_cache_file(job, path, sizeof path);
    if (*path && file_read(path, binary) && jit_unseal(job->key, binary))
        return true;
    text_free(binary);
    return false;
}

static bool write_all(int file, const struct jit_job *job, const struct text *binary)
{
    struct footer footer = footer_of(job->key, binary->data, binary->size);
    return file_write(file, binary->data, binary->size) && file_write(file, &footer, sizeof footer) && !fsync(file);
}

/* A file that has no name before it is complete: of a process that is killed nothing is left. */
static bool write_and_link(const struct jit_job *job, const struct text *binary, const char *path)
{
    char descriptor[64];
    int file = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (file < 0)
        return false;
    snprintf(descriptor, sizeof descriptor, "/proc/self/fd/%d", file);
    bool written = write_all(file, job, binary) && !linkat(AT_FDCWD, descriptor, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
    close(file);
    return written;
}

/* Where files need names, and in place of a damaged one. Open until it has its own name: its lock says that it is not
 * abandoned. */
static bool write_and_rename(const struct jit_job *job, const struct text *binary, const char *path)
{
    char temporary[4200];
    int file = file_temporary(folder, temporary, sizeof temporary);
    if (file < 0)
        return false;
    bool written = write_all(file, job, binary) && !rename(temporary, path);
    int error = errno;
    if (!written)
        unlink(temporary);
    close(file);
    errno = error;
    return written;
}

static void note_failure(const char *path)
{
    int error = errno, expected = 0;
    if (!atomic_compare_exchange_strong(&failure_state, &expected, 1))
        return;
    snprintf(failure, sizeof failure, "%.400s could not be written: %s", path, strerror(error));
    atomic_store(&failure_state, 2);
}

static bool is_there(const struct jit_job *job)
{
    struct text other = {0};
    bool there = jit_cache_read(job, &other);
    text_free(&other);
    return there;
}

bool jit_cache_write(const struct jit_job *job, const struct text *binary)
{
    char path[4096];
    jit_cache_file(job, path, sizeof path);
    if (!*path)
        return false;
    /* Another process may have been faster: at first, and again while the first way was tried. */
    if (is_there(job) || write_and_link(job, binary, path) || is_there(job) || write_and_rename(job, binary, path))
        return true;
    note_failure(path);
    return false;
}

void jit_cache_used(const char *path)
{
    utimensat(AT_FDCWD, path, (struct timespec[]){{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}}, 0);
}

static const char *inspect(const struct text *file, const char *key_hex, char *version, size_t size)
{
    struct footer found, expected;
    uint8_t key[SHA256_BYTES];
    if (file->size <= sizeof found)
        return "too short";
    size_t payload = file->size - sizeof found;
    memcpy(&found, file->data + payload, sizeof found);
    if (memcmp(found.magic, magic, sizeof magic - 1))
        return "cut short or overwritten: it does not end with a footer";
    if (memcmp(found.magic, magic, sizeof magic))
        return NULL; /* another version's format */
    for (size_t i = 0; i < sizeof key; i++)
        sscanf(key_hex + 2 * i, "%2hhx", &key[i]);
    if (memcmp(found.key, key, sizeof key))
        return "another kernel's file under this name";
    snprintf(version, size, "%.*s", (int)sizeof found.version, found.version);
    expected = footer_of(key, file->data, payload);
    memcpy(expected.version, found.version, sizeof found.version);
    return memcmp(&found, &expected, sizeof found) ? "altered: the checksum differs" : NULL;
}

const char *jit_cache_inspect(const char *path, const char *key_hex, char *version, size_t size)
{
    struct text file = {0};
    version[0] = 0;
    const char *wrong = file_read(path, &file) ? inspect(&file, key_hex, version, size) : "cannot be read";
    text_free(&file);
    return wrong;
}
