/* SPDX-License-Identifier: Apache-2.0 */
/* Tells a program of compilations that last. Each is watched by a thread that lives only while it lasts, and only if
 * somebody wants to be told: a compiler that runs in this process gives nobody else a chance to speak. */
#include <pthread.h>
#include <time.h>

#include "core/clock.h"
#include "core/threads.h"
#include "flashinfer/jit.h"
#include "jit/internal.h"

static const int64_t second = 1000000000;

static pthread_mutex_t calling = PTHREAD_MUTEX_INITIALIZER; /* held while the callback runs; guards the next two */
static flashinfer_compile_callback *callback;
static void *callback_context;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the queue */
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static struct jit_watch *queue; /* in the order in which they began */

static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&mutex);
}

/* Neither the threads that were compiling nor those that watched them exist here. */
static void after_fork_in_child(void)
{
    queue = NULL;
    pthread_mutex_init(&calling, NULL);
    pthread_cond_init(&ended, NULL);
    pthread_mutex_unlock(&mutex);
}

static void handle_fork(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void flashinfer_set_compile_callback(flashinfer_compile_callback *function, void *context)
{
    pthread_mutex_lock(&calling);
    callback = function;
    callback_context = context;
    pthread_mutex_unlock(&calling);
}

static void tell(const struct jit_watch *watch, bool finished)
{
    char kernel[1024];
    struct flashinfer_compile_progress progress = {
        .size = sizeof progress,
        .kernel = jit_describe(watch->job->spec, watch->job->device, kernel, sizeof kernel),
        .finished = finished,
    };
    pthread_mutex_lock(&calling);
    pthread_mutex_lock(&mutex);
    for (const struct jit_watch *other = queue; other; other = other->next) {
        progress.length++;
        if (other == watch)
            progress.position = progress.length;
    }
    pthread_mutex_unlock(&mutex);
    progress.seconds = 1e-9 * (double)(clock_ns() - watch->begin);
    if (callback)
        callback(&progress, callback_context);
    pthread_mutex_unlock(&calling);
}

/* False once the compilation has ended. */
static bool lasts_until(const struct jit_watch *watch, int64_t time)
{
    const struct timespec until = {.tv_sec = time / second, .tv_nsec = time % second};
    pthread_mutex_lock(&mutex);
    for (int timed_out = 0; !watch->finished && !timed_out;)
        timed_out = pthread_cond_clockwait(&ended, &mutex, CLOCK_MONOTONIC, &until);
    bool lasts = !watch->finished;
    pthread_mutex_unlock(&mutex);
    return lasts;
}

static void *watch_main(void *argument)
{
    const struct jit_watch *watch = argument;
    bool told = false;
    for (int64_t due = watch->begin + second; lasts_until(watch, due); due = clock_ns() + second) {
        tell(watch, false);
        told = true;
    }
    if (told)
        tell(watch, true);
    return NULL;
}

void jit_watch_begin(struct jit_watch *watch, const struct jit_job *job)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    *watch = (struct jit_watch){.job = job, .begin = clock_ns()};
    pthread_once(&once, handle_fork);
    pthread_mutex_lock(&mutex);
    struct jit_watch **end = &queue;
    while (*end)
        end = &(*end)->next;
    *end = watch;
    pthread_mutex_unlock(&mutex);

    pthread_mutex_lock(&calling);
    bool wanted = callback != NULL;
    pthread_mutex_unlock(&calling);
    watch->watched = wanted && !threads_start(&watch->thread, watch_main, watch);
}

void jit_watch_end(struct jit_watch *watch)
{
    pthread_mutex_lock(&mutex);
    watch->finished = true;
    pthread_cond_broadcast(&ended);
    pthread_mutex_unlock(&mutex);
    if (watch->watched)
        pthread_join(watch->thread, NULL);

    pthread_mutex_lock(&mutex);
    struct jit_watch **at = &queue;
    while (*at && *at != watch)
        at = &(*at)->next;
    if (*at)
        *at = watch->next;
    pthread_mutex_unlock(&mutex);
}
