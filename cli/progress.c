/* SPDX-License-Identifier: Apache-2.0 */
/* The bar. */
#include "cli/progress.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/clock.h"
#include "flashinfer/jit.h"

enum { BAR = 24, NARROWEST = 40, LINE_SECONDS = 10 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static double said; /* when the last plain line was printed */
static bool drawn;
static int last_done, last_total;

static int columns(void)
{
    struct winsize size;
    return !ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col >= NARROWEST ? size.ws_col : 80;
}

static void draw(int done, int total, const char *what)
{
    char bar[BAR + 1], line[512];
    int full = total > 0 ? (int)((long long)BAR * done / total) : 0;
    memset(bar, ' ', BAR);
    memset(bar, '#', (size_t)full);
    bar[BAR] = 0;
    if (total > 0)
        snprintf(line, sizeof line, "[%s] %d/%d %s", bar, done, total, what);
    else
        snprintf(line, sizeof line, "%s", what);
    fprintf(stderr, "\r\033[K%.*s", columns() - 1, line);
    drawn = true;
}

/* With the mutex held. */
static void show(const char *what)
{
    double now = clock_seconds();
    said = said > 0 ? said : now;
    if (isatty(STDERR_FILENO)) {
        draw(last_done, last_total, what);
    } else if (now - said >= LINE_SECONDS) {
        said = now;
        if (last_total > 0)
            fprintf(stderr, "%d of %d: %s\n", last_done, last_total, what);
        else
            fprintf(stderr, "%s\n", what);
    }
}

void progress_show(int done, int total, const char *format, ...)
{
    char what[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&mutex);
    last_done = done;
    last_total = total;
    show(what);
    pthread_mutex_unlock(&mutex);
}

static void show_compilation(const struct flashinfer_compile_progress *progress, void *context)
{
    char what[512];
    (void)context;
    snprintf(what, sizeof what, "%.0f s, %d of %d at once: %.400s", progress->seconds, progress->position, progress->length,
             progress->kernel);
    pthread_mutex_lock(&mutex);
    if (!progress->finished)
        show(what);
    pthread_mutex_unlock(&mutex);
}

void progress_watch_compiler(void)
{
    flashinfer_set_compile_callback(show_compilation, NULL);
}

void progress_clear(void)
{
    pthread_mutex_lock(&mutex);
    if (drawn)
        fputs("\r\033[K", stderr);
    drawn = false;
    pthread_mutex_unlock(&mutex);
}
