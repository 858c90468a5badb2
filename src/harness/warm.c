/* SPDX-License-Identifier: Apache-2.0 */
/* Compiles a list into the disk cache. */
#include "harness/warm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/threads.h"
#include "harness/specs.h"

struct gathering {
    struct spec_list *list;
    const struct op *op;
    const struct device *device;
    char *sentence; /* of the first named shape that is none */
};

static void found(void *context, const struct op_kernel *row, const char *shape, const struct jit_spec *spec)
{
    const struct gathering *g = context;
    spec_list_add(g->list,
                  &(struct spec_item){.spec = *spec, .device = g->device, .op = g->op->name, .row = row->name, .shape = shape});
}

static void refused(void *context, const char *shape, const char *sentence)
{
    struct gathering *g = context;
    (void)shape;
    if (!g->sentence)
        g->sentence = strdup(sentence);
}

flashinfer_status warm_add(struct spec_list *list, const struct op *op, const char *values, const char *kernel,
                           const struct device *device)
{
    struct gathering g = {.list = list, .op = op, .device = device};
    const struct specs_walk walk = {
        .op = op, .device = device, .chosen_only = true, .kernel = kernel, .context = &g, .found = found, .failed = refused};
    flashinfer_status status = FLASHINFER_OK;
    if (values)
        status = specs_walk_values(&walk, values);
    else
        specs_walk(&walk);
    if (g.sentence)
        status = fail(FLASHINFER_INVALID, "%s", g.sentence);
    free(g.sentence);
    return list->failed ? fail(FLASHINFER_MEMORY, "no memory for the list of kernels") : status;
}

struct work {
    const struct spec_list *list;
    void (*report)(void *context, const struct warm_result *result);
    void *context;
    pthread_mutex_t mutex; /* guards the rest */
    int done, failures;
    flashinfer_status fatal;
    bool hopeless[2]; /* by enum jit_target */
    char sentence[2048];
};

static bool is_fatal(flashinfer_status status)
{
    return status == FLASHINFER_NO_COMPILER || status == FLASHINFER_IO || status == FLASHINFER_MEMORY;
}

/* With the mutex held. */
static void stop(struct work *w, flashinfer_status status, enum jit_target target)
{
    w->hopeless[target] = true;
    if (status != FLASHINFER_NO_COMPILER)
        w->hopeless[JIT_CPU] = w->hopeless[JIT_CUDA] = true;
    if (!w->fatal)
        snprintf(w->sentence, sizeof w->sentence, "%s", flashinfer_last_error());
    w->fatal = w->fatal ? w->fatal : status;
}

static void compile(void *context, int part)
{
    struct work *w = context;
    struct warm_result result = {.item = &w->list->items[part], .total = w->list->count};
    enum jit_target target = result.item->spec.kernel->target;
    pthread_mutex_lock(&w->mutex);
    bool hopeless = w->hopeless[target];
    pthread_mutex_unlock(&w->mutex);
    if (hopeless)
        return;
    flashinfer_status status = jit_compile_to_cache(&result.item->spec, result.item->device, &result.stored);
    pthread_mutex_lock(&w->mutex);
    if (is_fatal(status)) {
        stop(w, status, target);
    } else {
        result.wrong = status ? flashinfer_last_error() : NULL;
        result.done = ++w->done;
        w->failures += status != 0;
        w->report(w->context, &result);
    }
    pthread_mutex_unlock(&w->mutex);
}

flashinfer_status warm_compile(const struct spec_list *list, int threads,
                               void (*report)(void *context, const struct warm_result *result), void *context, int *failures)
{
    struct work w = {.list = list, .report = report, .context = context, .mutex = PTHREAD_MUTEX_INITIALIZER};
    threads_run(compile, &w, list->count, threads);
    *failures = w.failures;
    return w.fatal ? fail(w.fatal, "%s", w.sentence) : FLASHINFER_OK;
}
