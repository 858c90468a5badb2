/* SPDX-License-Identifier: Apache-2.0 */
/* Compiles specialisations, several at once, and reads ptxas' report. */
#include "harness/specs.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/threads.h"
#include "harness/spec_list.h"

enum { MAX_ARCHS = 32 };

struct work {
    const struct specs_options *options;
    void (*report)(void *context, const struct specs_result *result);
    void *context;
    struct device devices[MAX_ARCHS];
    struct spec_list list;
    const struct op *op;
    const struct device *device;
    pthread_mutex_t mutex;
    int done, failures;
};

static void add(void *context, const struct op_kernel *row, const char *shape, const struct jit_spec *spec)
{
    struct work *w = context;
    const char *kernel = w->options->kernel;
    if (spec->kernel->target != JIT_CUDA || (kernel && strcmp(kernel, row->name) && strcmp(kernel, spec->kernel->name)))
        return;
    spec_list_add(&w->list,
                  &(struct spec_item){.spec = *spec, .device = w->device, .op = w->op->name, .row = row->name, .shape = shape});
}

/* What no compiler sees is the same for every architecture: told for the first. */
static void refuse(void *context, const char *shape, const char *sentence)
{
    struct work *w = context;
    const struct specs_result result = {
        .op = w->op->name, .row = "", .shape = shape ? shape : "", .kernel = "", .wrong = sentence};
    if (w->device != w->devices)
        return;
    w->failures++;
    w->report(w->context, &result);
}

/* The largest number that stands before `unit` anywhere in the log: "Used 40 registers, 128 bytes smem". */
static int number_before(const char *log, const char *unit)
{
    int most = 0;
    for (const char *at = strstr(log, unit); at; at = strstr(at + 1, unit)) {
        const char *digit = at;
        while (digit > log && digit[-1] >= '0' && digit[-1] <= '9')
            digit--;
        int value = digit < at ? atoi(digit) : 0;
        most = value > most ? value : most;
    }
    return most;
}

static void read_log(const char *log, struct specs_result *result)
{
    result->registers = number_before(log, " registers");
    result->spill_bytes = number_before(log, " bytes spill stores") + number_before(log, " bytes spill loads");
    result->smem_bytes = number_before(log, " bytes smem");
    result->stack_bytes = number_before(log, " bytes stack frame");
    if (result->spill_bytes)
        result->wrong = "registers are spilled to memory";
    else if (strstr(log, "Potential Performance Loss"))
        result->wrong = "ptxas warns of a potential performance loss";
}

static void compile(void *context, int part)
{
    struct work *w = context;
    const struct spec_item *item = &w->list.items[part];
    struct specs_result result = {.op = item->op,
                                  .row = item->row,
                                  .shape = item->shape,
                                  .kernel = item->spec.kernel->name,
                                  .arch = item->device->arch,
                                  .total = w->list.count};
    char *log = NULL;
    specs_constants(&item->spec, result.constants, sizeof result.constants);
    if (jit_compile_only(&item->spec, item->device, &log, &result.seconds, &result.binary_bytes))
        result.wrong = flashinfer_last_error();
    else
        read_log(log ? log : "", &result);
    pthread_mutex_lock(&w->mutex);
    result.done = ++w->done;
    w->failures += result.wrong != NULL;
    w->report(w->context, &result);
    pthread_mutex_unlock(&w->mutex);
    free(log);
}

flashinfer_status specs_compile(const struct specs_options *options,
                                void (*report)(void *context, const struct specs_result *result), void *context, int *failures)
{
    struct work w = {.options = options, .report = report, .context = context, .mutex = PTHREAD_MUTEX_INITIALIZER};
    for (int i = 0; options->archs[i] && i < MAX_ARCHS; i++) {
        struct device *device = &w.devices[i];
        TRY(device_imagine(options->archs[i], device));
        w.device = device;
        for (const struct op *const *op = options->ops; *op; op++) {
            w.op = *op;
            specs_walk(&(struct specs_walk){
                .op = *op, .device = device, .all_dtypes = options->all_dtypes, .context = &w, .found = add, .failed = refuse});
        }
    }
    flashinfer_status status = w.list.failed ? fail(FLASHINFER_MEMORY, "no memory for the list of kernels") : FLASHINFER_OK;
    if (!status)
        threads_run(compile, &w, w.list.count, options->threads);
    *failures = w.failures;
    spec_list_free(&w.list);
    return status;
}
