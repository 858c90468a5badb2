/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files. */
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

bool file_read(const char *path, struct text *out)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0)
        return false;
    errno = EINVAL;
    bool right = !fstat(file, &status) && S_ISREG(status.st_mode);
    char *place = right ? text_extend(out, (size_t)status.st_size) : NULL;
    right = place != NULL;
    for (off_t at = 0; right && at < status.st_size;) {
        ssize_t n = pread(file, place + at, (size_t)(status.st_size - at), at);
        right = n > 0 || (n < 0 && errno == EINTR);
        at += n > 0 ? n : 0;
    }
    int error = errno;
    close(file);
    errno = error;
    return right;
}

bool file_write(int file, const void *data, size_t size)
{
    for (const char *at = data; size > 0;) {
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
