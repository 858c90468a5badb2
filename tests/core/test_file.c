/* SPDX-License-Identifier: Apache-2.0 */
/* Files: what cannot be read or written is said to be so, at once; temporary ones of others stay while these live. */
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/test_file.XXXXXX";

static const char *path_of(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void make(const char *name, const char *text)
{
    int file = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(file >= 0 && file_write(file, text, strlen(text)));
    close(file);
}

static void test_read(void **state)
{
    (void)state;
    struct text text = {0};
    make("file", "content");
    assert_true(file_read(path_of("file"), &text) && file_read(path_of("file"), &text));
    assert_int_equal(text.size, 14);
    assert_memory_equal(text.data, "contentcontent", 14);
    text_free(&text);
}

/* A read that waits, or is tried again for ever, ends by the alarm. */
static void test_unreadable(void **state)
{
    (void)state;
    struct text text = {0};
    alarm(20);
    assert_int_equal(mkfifo(path_of("pipe"), 0600), 0);
    assert_false(file_read(path_of("absent"), &text));
    assert_int_equal(errno, ENOENT);
    assert_false(file_read(folder, &text));
    assert_false(file_read(path_of("pipe"), &text));
    assert_false(file_read("/dev/zero", &text));
    int file = open(path_of("file"), O_WRONLY);
    assert_false(file_read_open(file, &text));
    assert_int_equal(errno, EBADF);
    close(file);
    text_free(&text);
    alarm(0);
}

static void test_full(void **state)
{
    (void)state;
    int file = open("/dev/full", O_WRONLY);
    if (file < 0)
        skip();
    assert_false(file_write(file, "x", 1));
    assert_int_equal(errno, ENOSPC);
    assert_true(file_write(file, "x", 0));
    close(file);
}

/* A file that may not grow is an error, not the end of the process. */
static void test_limit(void **state)
{
    static const char data[200];
    struct rlimit before, limit;
    sigset_t pending;
    (void)state;
    int file = open(path_of("limited"), O_WRONLY | O_CREAT, 0600);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = (struct rlimit){.rlim_cur = 100, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    bool written = file_write(file, data, sizeof data);
    int error = errno;
    setrlimit(RLIMIT_FSIZE, &before);
    assert_false(written);
    assert_int_equal(error, EFBIG);
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGXFSZ));
    close(file);
}

static bool is_there(const char *path)
{
    return !access(path, F_OK);
}

static void test_temporary(void **state)
{
    (void)state;
    char held[PATH_MAX], held_folder[PATH_MAX], next[PATH_MAX], inside[PATH_MAX + 8];
    make("flashinfer-temporary-", "of another name");
    make("flashinfer-temporary-1234567", "of another name");
    int file = file_temporary(folder, held, sizeof held), opened = folder_temporary(folder, held_folder, sizeof held_folder);
    assert_true(file >= 0 && opened >= 0);
    snprintf(inside, sizeof inside, "%s/inside", held_folder);
    close(open(inside, O_WRONLY | O_CREAT, 0600));
    int second = file_temporary(folder, next, sizeof next);
    assert_true(second >= 0 && is_there(held) && is_there(inside) && is_there(next));
    close(file);
    close(opened);
    file = file_temporary(folder, held_folder, sizeof held_folder);
    assert_true(file >= 0 && !is_there(held) && !is_there(inside) && is_there(next));
    assert_true(is_there(path_of("flashinfer-temporary-")) && is_there(path_of("flashinfer-temporary-1234567")));
    close(file);
    close(second);
}

static void test_no_temporary(void **state)
{
    (void)state;
    char path[PATH_MAX];
    assert_int_equal(file_temporary(path_of("absent"), path, sizeof path), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(folder_temporary(path_of("file"), path, sizeof path), -1);
    assert_int_equal(errno, ENOTDIR);
    assert_int_equal(file_temporary(folder, path, strlen(folder)), -1);
    assert_int_equal(errno, ENAMETOOLONG);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    int opened = open(folder, O_RDONLY | O_DIRECTORY);
    if (opened >= 0)
        folder_remove(opened, folder);
    return is_there(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),  cmocka_unit_test(test_unreadable), cmocka_unit_test(test_full),
        cmocka_unit_test(test_limit), cmocka_unit_test(test_temporary),  cmocka_unit_test(test_no_temporary),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
