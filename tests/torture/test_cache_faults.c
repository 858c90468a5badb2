/* SPDX-License-Identifier: Apache-2.0 */
/* A cache on a disk that fails: system calls that return errors, in the middle of a file too; files that are cut short, altered,
 * swapped or replaced by what is no file; folders with odd names, and folders that disappear. The call works, and nothing wrong
 * is loaded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/file.h"
#include "jit/internal.h"
#include "tests/torture/torture.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

/* ---- system calls that fail as a case says; the library is linked into this program and calls these ---- */

static struct fault {
    int open_unnamed, open_named, link, rename, fsync, write; /* errno of the call; 0: it works */
    int bytes;                                                /* before `write` fails */
    int no_code;                                              /* nothing is loaded from the cache */
    int removes;                                              /* files of the cache before they are loaded */
    int kept;                                                 /* the file is in the cache all the same */
} fault;
static int written;

static int failing(int error)
{
    errno = error;
    return error ? -1 : 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, int) : 0;
    va_end(arguments);
    if ((flags & O_TMPFILE) == O_TMPFILE && fault.open_unnamed)
        return failing(fault.open_unnamed);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static int is_of_cache(const char *path)
{
    char cache[128];
    torture_path(cache, sizeof cache, "cache/");
    return !strncmp(path, cache, strlen(cache));
}

int mkostemp(char *path, int flags)
{
    int (*next)(char *, int);
    void *address = dlsym(RTLD_NEXT, "mkostemp");
    memcpy(&next, &address, sizeof next);
    return fault.open_named && is_of_cache(path) ? failing(fault.open_named) : next(path, flags);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    return fault.link ? failing(fault.link) : (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
}

int rename(const char *from, const char *to)
{
    return fault.rename ? failing(fault.rename) : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int fsync(int file)
{
    return fault.fsync ? failing(fault.fsync) : (int)syscall(SYS_fsync, file);
}

static int is_in_cache(int file)
{
    char link[64], path[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    return readlink(link, path, sizeof path - 1) > 0 && is_of_cache(path);
}

ssize_t write(int file, const void *data, size_t size)
{
    if (fault.write && is_in_cache(file)) {
        size_t room = written < fault.bytes ? (size_t)(fault.bytes - written) : 0;
        if (room == 0)
            return failing(fault.write);
        size = size < room ? size : room;
        written += (int)size;
    }
    return syscall(SYS_write, file, data, size);
}

void *dlopen(const char *path, int flags)
{
    void *(*next)(const char *, int);
    void *address = dlsym(RTLD_NEXT, "dlopen");
    memcpy(&next, &address, sizeof next);
    if (path && is_of_cache(path)) {
        if (fault.no_code)
            path = "/no/such/file";
        if (fault.removes)
            unlink(path);
    }
    return next(path, flags);
}

/* ---- */

static void works(void)
{
    const char *why;
    char path[4096];
    struct jit_spec spec = multiply_spec(1);
    torture_use_compiler();
    CHECK(multiply(spec) && compiled() == 1 && multiply(spec) && compiled() == 1);
    CHECK(jit_cache_path(&spec, cpu_device(), path, sizeof path) == FLASHINFER_OK);
    CHECK(access(path, F_OK) == (fault.kept ? 0 : -1));
    CHECK(torture_files("cache") == fault.kept && torture_files("tmp") == 0);
    jit_cache_folder(&why);
    if (!fault.kept && !fault.removes)
        CHECK(strstr(why, path) && strstr(why, "could not be written: "));
    else
        CHECK(!*why);
}

static void compiles_or_loads(void)
{
    torture_use_compiler();
    CHECK(multiply(multiply_spec(1)) && loaded() == (uint64_t)fault.kept && compiled() == (uint64_t)!fault.kept);
}

static int run(void (*test)(void))
{
    int status = -1;
    return waitpid(torture_start(test), &status, 0) < 0 ? -1 : status;
}

static void test_faults(void **state)
{
    static const struct fault faults[] = {
        {.kept = 1},
        {.fsync = EIO},
        {.write = ENOSPC},
        {.write = ENOSPC, .bytes = 1},
        {.write = ENOSPC, .bytes = 5000},
        {.write = EDQUOT, .bytes = 15000},
        {.write = EIO, .bytes = 100},
        {.link = EXDEV, .kept = 1},
        {.link = EPERM, .kept = 1},
        {.link = EXDEV, .rename = EXDEV},
        {.link = EPERM, .rename = EPERM},
        {.open_unnamed = EOPNOTSUPP, .kept = 1},
        {.open_unnamed = EISDIR, .kept = 1},
        {.open_unnamed = EOPNOTSUPP, .rename = EXDEV},
        {.open_unnamed = EOPNOTSUPP, .rename = EPERM},
        {.open_unnamed = EOPNOTSUPP, .fsync = EIO},
        {.open_unnamed = EOPNOTSUPP, .write = ENOSPC, .bytes = 5000},
        {.open_unnamed = EROFS, .open_named = EROFS},
        {.open_unnamed = ENOSPC, .open_named = ENOSPC},
        {.no_code = 1, .kept = 1},
        {.removes = 1},
    };
    enum { FAULTS = sizeof faults / sizeof *faults };
    (void)state;
    torture_make_compiler(1, 0);
    for (int i = 0; i < FAULTS; i++) {
        torture_empty("cache");
        fault = faults[i];
        written = 0;
        assert_int_equal(run(works), 0);
        fault = (struct fault){.kept = fault.kept};
        assert_int_equal(run(compiles_or_loads), 0);
        fault.kept = 1;
        assert_int_equal(run(compiles_or_loads), 0);
    }
    printf("%d faults of the disk: every call worked, every next process had the kernel\n", FAULTS - 1);
}

/* ---- files ---- */

static void put(const char *path, const void *data, size_t size)
{
    unlink(path);
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(file >= 0 && file_write(file, data, size) && !close(file));
}

static int is_hit(const struct jit_job *job)
{
    struct text binary = {0};
    bool hit = jit_cache_read(job, &binary);
    text_free(&binary);
    return hit;
}

/* A real kernel's file, cut at every length and with a bit of every byte flipped, but for an interval that a sanitizer makes
 * longer. */
static void damage(void)
{
    struct jit_spec spec = multiply_spec(1);
    struct jit_job job;
    struct text file = {0};
    char path[4096];
    int step = 500 / torture_rounds(500), cuts = 0, flips = 0;
    torture_use_compiler();
    CHECK(multiply(spec) && jit_job_begin(&spec, cpu_device(), &job) == FLASHINFER_OK);
    jit_cache_file(&job, path, sizeof path);
    CHECK(file_read(path, &file) && is_hit(&job));
    for (size_t size = 0; size < file.size; size += (size_t)step, cuts++) {
        put(path, file.data, size);
        CHECK(!is_hit(&job));
    }
    put(path, file.data, file.size);
    CHECK(is_hit(&job));
    int open_file = open(path, O_WRONLY);
    for (size_t i = 0; i < file.size; i += (size_t)step, flips++) {
        char flipped = (char)(file.data[i] ^ 1 << rand() % 8);
        CHECK(pwrite(open_file, &flipped, 1, (off_t)i) == 1 && !is_hit(&job));
        CHECK(pwrite(open_file, &file.data[i], 1, (off_t)i) == 1);
    }
    CHECK(is_hit(&job));
    printf("%d cuts and %d flipped bits of a file of %zu bytes: none was read\n", cuts, flips, file.size);
}

static void test_damage(void **state)
{
    (void)state;
    torture_make_compiler(1, 0);
    assert_int_equal(run(damage), 0);
}

static int factors[2]; /* of the kernels of the next child */

static void compiles_again(void)
{
    torture_use_compiler();
    CHECK(multiply(multiply_spec(factors[0])) && multiply(multiply_spec(factors[1])));
    CHECK(compiled() == 2 && loaded() == 0);
}

static void loads(void)
{
    torture_use_compiler();
    CHECK(multiply(multiply_spec(factors[0])) && multiply(multiply_spec(factors[1])));
    CHECK(compiled() == 0 && loaded() == 2);
}

static void swap(void)
{
    struct jit_spec spec[2] = {multiply_spec(1), multiply_spec(2)};
    struct text file[2] = {{0}, {0}};
    char path[2][4096];
    torture_use_compiler();
    for (int i = 0; i < 2; i++)
        CHECK(!jit_cache_path(&spec[i], cpu_device(), path[i], sizeof path[i]) && file_read(path[i], &file[i]));
    for (int i = 0; i < 2; i++)
        put(path[i], file[!i].data, file[!i].size);
}

/* What stands in the file's place and cannot be replaced by rename; it is never waited for. */
static void is_folder_and_pipe(void)
{
    struct jit_spec spec[2] = {multiply_spec(1), multiply_spec(2)};
    char path[4096];
    torture_use_compiler();
    for (int i = 0; i < 2; i++) {
        CHECK(!jit_cache_path(&spec[i], cpu_device(), path, sizeof path));
        CHECK(!(i ? mkfifo(path, 0600) : mkdir(path, 0700)));
    }
    alarm(20);
    CHECK(multiply(spec[0]) && multiply(spec[1]) && compiled() == 2);
}

static void test_swap(void **state)
{
    (void)state;
    factors[0] = 1, factors[1] = 2;
    torture_make_compiler(2, 0);
    assert_int_equal(run(compiles_again), 0);
    assert_int_equal(run(loads), 0);
    assert_int_equal(run(swap), 0);
    assert_int_equal(run(compiles_again), 0);
    assert_int_equal(run(loads), 0);
    torture_empty("cache");
    assert_int_equal(run(is_folder_and_pipe), 0);
}

/* ---- folders ---- */

static const char *odd_name;

static void odd_folder(void)
{
    char path[512], file[4096];
    struct jit_spec spec = multiply_spec(1);
    snprintf(path, sizeof path, "%s/%s", folder, odd_name);
    setenv("FLASHINFER_CACHE_DIR", path, 1);
    setenv("TMPDIR", path, 1);
    CHECK(!mkdir(path, 0700));
    CHECK(multiply(spec) && compiled() == 1);
    CHECK(!jit_cache_path(&spec, cpu_device(), file, sizeof file) && !access(file, R_OK));
    CHECK(torture_files(odd_name) == 1);
}

static void folder_disappears(void)
{
    char path[128];
    torture_use_compiler();
    CHECK(multiply(multiply_spec(1)));
    torture_empty("cache");
    torture_path(path, sizeof path, "cache");
    CHECK(!rmdir(path));
    CHECK(multiply(multiply_spec(2)) && compiled() == 2);
}

static void test_folders(void **state)
{
    static const char *const names[] = {"with spaces", "q'u\"o$te`s", "%s%n", "-o", "line\nfeed", "\xc3\xa4\xff*?;&|<>()"};
    (void)state;
    torture_make_compiler(2, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        odd_name = names[i];
        assert_int_equal(run(odd_folder), 0);
    }
    assert_int_equal(run(folder_disappears), 0);
}

static int setup(void **state)
{
    fault = (struct fault){0};
    return setup_folder(state);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown_folder)
    const struct CMUnitTest tests[] = {CASE(test_faults), CASE(test_damage), CASE(test_swap), CASE(test_folders)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
