/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files, and temporary ones. */
#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char temporary_prefix[] = "flashinfer-temporary-";

enum { RANDOM_CHARACTERS = 6, MAX_TRIES = 100 };

bool file_read_open(int file, struct text *out)
{
    struct stat status;
    errno = EINVAL;
    bool right = !fstat(file, &status) && S_ISREG(status.st_mode);
    char *place = right ? text_extend(out, (size_t)status.st_size) : NULL;
    right = place != NULL;
    for (off_t at = 0; right && at < status.st_size;) {
        ssize_t n = pread(file, place + at, (size_t)(status.st_size - at), at);
        right = n > 0 || (n < 0 && errno == EINTR);
        at += n > 0 ? n : 0;
    }
    return right;
}

bool file_read(const char *path, struct text *out)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe of this name is refused, not waited for */
    if (file < 0)
        return false;
    bool right = file_read_open(file, out);
    int error = errno;
    close(file);
    errno = error;
    return right;
}

static bool write_all(int file, const char *at, size_t size)
{
    while (size > 0) {
        ssize_t n = write(file, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

/* A write past RLIMIT_FSIZE raises SIGXFSZ, which would end the process for the sake of a cache: it is taken here. */
bool file_write(int file, const void *data, size_t size)
{
    sigset_t too_large, before;
    sigemptyset(&too_large);
    sigaddset(&too_large, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &too_large, &before);
    bool written = write_all(file, data, size);
    int error = errno;
    if (!written && error == EFBIG && !sigismember(&before, SIGXFSZ))
        sigtimedwait(&too_large, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return written;
}

static bool is_temporary(const char *name)
{
    size_t prefix = sizeof temporary_prefix - 1;
    return strlen(name) == prefix + RANDOM_CHARACTERS && !memcmp(name, temporary_prefix, prefix);
}

static void remove_files(int folder)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        unlinkat(copy, entry->d_name, 0);
    if (dir)
        closedir(dir);
    else if (copy >= 0)
        close(copy);
}

static void remove_if_abandoned(int parent, const char *name)
{
    int file = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat status;
    if (file < 0)
        return;
    if (!fstat(file, &status) && status.st_uid == geteuid() && !flock(file, LOCK_EX | LOCK_NB)) {
        if (S_ISDIR(status.st_mode))
            remove_files(file);
        unlinkat(parent, name, S_ISDIR(status.st_mode) ? AT_REMOVEDIR : 0);
    }
    close(file);
}

static void remove_abandoned(const char *parent)
{
    DIR *dir = opendir(parent);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (is_temporary(entry->d_name))
            remove_if_abandoned(dirfd(dir), entry->d_name);
    if (dir)
        closedir(dir);
}

/* A new name, opened and locked; -1 with errno EAGAIN if another process took it for abandoned before it was locked. */
static int try_temporary(char *path, bool is_folder)
{
    struct stat opened, named;
    if (is_folder && !mkdtemp(path))
        return -1;
    int file = is_folder ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : mkostemp(path, O_CLOEXEC);
    while (file >= 0 && flock(file, LOCK_EX) && errno == EINTR)
        ;
    if (file >= 0 && !fstat(file, &opened) && !stat(path, &named) && opened.st_ino == named.st_ino &&
        opened.st_dev == named.st_dev)
        return file;
    if (file < 0 && !(is_folder && errno == ENOENT))
        return -1;
    if (file >= 0)
        close(file);
    errno = EAGAIN;
    return -1;
}

static int make_temporary(const char *parent, char *path, size_t size, bool is_folder)
{
    int file = -1;
    remove_abandoned(parent);
    errno = EAGAIN;
    for (int i = 0; i < MAX_TRIES && file < 0 && errno == EAGAIN; i++) {
        if ((size_t)snprintf(path, size, "%s/%sXXXXXX", parent, temporary_prefix) >= size)
            errno = ENAMETOOLONG;
        else
            file = try_temporary(path, is_folder);
    }
    return file;
}

int file_temporary(const char *parent, char *path, size_t size)
{
    return make_temporary(parent, path, size, false);
}

int folder_temporary(const char *parent, char *path, size_t size)
{
    return make_temporary(parent, path, size, true);
}

void folder_remove(int folder, const char *path)
{
    remove_files(folder);
    rmdir(path);
    close(folder);
}
