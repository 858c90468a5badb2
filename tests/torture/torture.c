/* SPDX-License-Identifier: Apache-2.0 */
/* Folders, compilers and what they leave, for the torture tests. */
#include "tests/torture/torture.h"

#include <signal.h>
#include <dirent.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/clock.h"

/* Processes of these tests exit while their threads work. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "report_thread_leaks=0:atexit_sleep_ms=0";
}

int torture_rounds(int rounds)
{
    const char *factor = getenv("FLASHINFER_TORTURE");
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    rounds = (rounds + 4) / 5;
#endif
    return factor && atoi(factor) > 0 ? rounds * atoi(factor) : rounds;
}

void torture_path(char *path, size_t size, const char *name)
{
    snprintf(path, size, "%s/%s", folder, name);
}

/* The cache and TMPDIR of this process and its children, made if they are not there. */
static void make_folders(void)
{
    char path[128];
    torture_path(path, sizeof path, "cache");
    mkdir(path, 0700);
    setenv("FLASHINFER_CACHE_DIR", path, 1);
    torture_path(path, sizeof path, "tmp");
    mkdir(path, 0700);
    setenv("TMPDIR", path, 1);
}

void torture_make_compiler(int factors, double seconds)
{
    char path[128], command[512];
    for (int factor = 1; factor <= factors; factor++) {
        snprintf(command, sizeof command,
                 "echo 'void multiply(int **a, int part, int parts) { a[1][part] = %d * a[0][part]; }' |"
                 "cc -w -O1 -shared -fPIC -x c - -o %s/prebuilt-%d",
                 factor, folder, factor);
        CHECK(system(command) == 0);
    }
    torture_path(path, sizeof path, "cc");
    FILE *file = fopen(path, "w");
    CHECK(file);
    fprintf(file,
            "#!/bin/sh\n"
            "while [ $# -gt 0 ]; do\n"
            "    case $1 in -o) output=$2 ;; -DFACTOR=*) factor=${1#*=} ;; esac\n"
            "    shift\n"
            "done\n"
            "echo $PPID $factor >>%s/compiled\n",
            folder);
    if (seconds > 0)
        fprintf(file, "sleep %f\n", seconds);
    fprintf(file, "cat %s/prebuilt-$factor >$output\n", folder);
    CHECK(!fchmod(fileno(file), 0700) && !fclose(file));
}

void torture_use_compiler(void)
{
    char path[128];
    torture_path(path, sizeof path, "cc");
    setenv("FLASHINFER_CC", path, 1);
}

static int visit(const char *name, int removes)
{
    char path[128];
    int count = 0;
    torture_path(path, sizeof path, name);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        count++;
        if (removes)
            unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir)
        closedir(dir);
    return count;
}

int torture_files(const char *name)
{
    return visit(name, 0);
}

void torture_empty(const char *name)
{
    visit(name, 1);
}

int torture_orphans_left(double seconds)
{
    double end = clock_seconds() + seconds;
    pid_t child;
    while ((child = waitpid(-1, NULL, WNOHANG)) >= 0 && clock_seconds() < end)
        if (child == 0)
            usleep(1000);
    return child >= 0;
}

pid_t torture_start(void (*run)(void))
{
    fflush(NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* what a child leaves running becomes a child of this process */
    pid_t child = fork();
    if (child == 0) {
        signal(SIGHUP, SIG_DFL); /* which nohup ignores, as a shell ignores SIGINT for what it runs in the background */
        signal(SIGINT, SIG_DFL);
        make_folders();
        run();
        fflush(NULL);
        _exit(0);
    }
    return child;
}
