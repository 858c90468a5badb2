/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels and texts of users, copied and kept: a module is found by their addresses, so an address must never
 * come to mean something else. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "jit/internal.h"

struct kept_kernel {
    struct jit_kernel kernel;
    struct kept_kernel *next;
};

struct kept_text {
    struct jit_text text;
    struct kept_text *next;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct kept_kernel *kernels;
static struct kept_text *texts;

static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&mutex);
}

/* The child of a fork finds the lists whole, whatever other threads were doing. */
__attribute__((constructor)) static void handle_fork(void)
{
    pthread_atfork(before_fork, after_fork, after_fork);
}

static bool same_kernel(const struct jit_kernel *a, const struct jit_kernel *b)
{
    if (a->target != b->target || strcmp(a->name, b->name))
        return false;
    for (int i = 0; a->constants[i] || b->constants[i]; i++)
        if (!a->constants[i] || !b->constants[i] || strcmp(a->constants[i], b->constants[i]))
            return false;
    return true;
}

static struct kept_kernel *copy_kernel(const struct jit_kernel *kernel)
{
    struct kept_kernel *copy = calloc(1, sizeof *copy);
    bool complete = copy && (copy->kernel.name = strdup(kernel->name));
    for (int i = 0; complete && kernel->constants[i]; i++)
        complete = (copy->kernel.constants[i] = strdup(kernel->constants[i]));
    if (complete) {
        copy->kernel.target = kernel->target;
        return copy;
    }
    for (int i = 0; copy && copy->kernel.constants[i]; i++)
        free((char *)(uintptr_t)copy->kernel.constants[i]);
    if (copy)
        free((char *)(uintptr_t)copy->kernel.name);
    free(copy);
    return NULL;
}

const struct jit_kernel *jit_keep_kernel(const struct jit_kernel *kernel)
{
    pthread_mutex_lock(&mutex);
    struct kept_kernel *kept = kernels;
    while (kept && !same_kernel(&kept->kernel, kernel))
        kept = kept->next;
    if (!kept && (kept = copy_kernel(kernel))) {
        kept->next = kernels;
        kernels = kept;
    }
    pthread_mutex_unlock(&mutex);
    return kept ? &kept->kernel : NULL;
}

const struct jit_text *jit_keep_text(const char *text, bool is_kernel)
{
    pthread_mutex_lock(&mutex);
    struct kept_text *kept = texts;
    while (kept && (kept->text.is_kernel != is_kernel || strcmp(kept->text.text, text)))
        kept = kept->next;
    if (!kept && (kept = calloc(1, sizeof *kept))) {
        kept->text = (struct jit_text){strdup(text), is_kernel};
        if (kept->text.text) {
            kept->next = texts;
            texts = kept;
        } else {
            free(kept);
            kept = NULL;
        }
    }
    pthread_mutex_unlock(&mutex);
    return kept ? &kept->text : NULL;
}
