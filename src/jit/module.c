/* SPDX-License-Identifier: Apache-2.0 */
/* Modules in memory. A table of chains that only grow: looking up takes no lock, since an entry, once seen,
 * stays as it is. What is missing is read from the disk cache or compiled, by one thread for each spec and
 * device; others wait for that one. A failure is told to all who waited, and tried again by the next call. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/environment.h"
#include "jit/internal.h"

enum { BUCKET_BITS = 10 };
enum state { MISSING, BUSY, READY };

struct entry {
    struct jit_module module; /* set before READY */
    struct jit_spec spec;
    const struct device *device;
    _Atomic(enum state) state;
    flashinfer_status failure; /* of the last try; guarded, like its sentence, by the mutex */
    char *sentence;
    struct entry *next;
};

static _Atomic(struct entry *) buckets[1 << BUCKET_BITS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static struct {
    atomic_uint_fast64_t compiled, loaded, packed, compile_ns, load_ns;
} statistics;

enum { SPEC_WORDS = sizeof(struct jit_spec) / sizeof(uint64_t) };
_Static_assert(sizeof(struct jit_spec) == 2 * sizeof(void *) + JIT_MAX_CONSTANTS * sizeof(int32_t)
               && sizeof(struct jit_spec) % sizeof(uint64_t) == 0 && SPEC_WORDS % 2 == 0, "specs have no padding");

/* Two chains of multiplications at a time. An odd factor loses nothing, and the highest bits depend on
 * all. */
static size_t bucket_of(const struct jit_spec *spec, const struct device *device)
{
    const uint64_t factor = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t word[SPEC_WORDS], a = (uint64_t)(uintptr_t)device, b = factor;
    memcpy(word, spec, sizeof word);
    for (int i = 0; i < SPEC_WORDS; i += 2) {
        a = (a ^ word[i]) * factor;
        b = (b ^ word[i + 1]) * factor;
    }
    a ^= (b >> 32 | b << 32) * factor;
    a ^= a >> 32;
    return (size_t)(a * factor >> (64 - BUCKET_BITS));
}

static struct entry *find_entry(size_t bucket, const struct jit_spec *spec, const struct device *device)
{
    struct entry *entry = atomic_load_explicit(&buckets[bucket], memory_order_acquire);
    while (entry && (entry->device != device || memcmp(&entry->spec, spec, sizeof *spec)))
        entry = entry->next;
    return entry;
}

const struct jit_module *jit_find(const struct jit_spec *spec, const struct device *device)
{
    struct entry *entry = find_entry(bucket_of(spec, device), spec, device);
    return entry && atomic_load_explicit(&entry->state, memory_order_acquire) == READY ? &entry->module : NULL;
}

static flashinfer_status make_from(struct jit_job *job, struct text *binary, int64_t begin, struct jit_code *code)
{
    char path[4096];
    jit_cache_file(job, path, sizeof path);
    if (jit_cache_read(job, binary)) {
        TRY(jit_load_code(job, binary, path, code));
        jit_cache_used(path);
        atomic_fetch_add(&statistics.loaded, 1);
        atomic_fetch_add(&statistics.load_ns, (uint64_t)(clock_ns() - begin));
        return FLASHINFER_OK;
    }
    if (environment()->disable_jit) {
        char kernel[1024];
        const char *why;
        jit_cache_folder(&why);
        return fail(FLASHINFER_NOT_PREPARED,
                    "kernel %s is not in the cache (%s), and FLASHINFER_DISABLE_JIT forbids compiling it: call "
                    "flashinfer_prepare without it first",
                    jit_describe(job->spec, job->device, kernel, sizeof kernel), *path ? path : why);
    }
    struct text log = {0};
    flashinfer_status status = jit_compile(job, false, binary, &log);
    text_free(&log);
    TRY(status);
    if (!jit_cache_write(job, binary))
        *path = 0;
    TRY(jit_load_code(job, binary, path, code));
    atomic_fetch_add(&statistics.compiled, 1);
    atomic_fetch_add(&statistics.compile_ns, (uint64_t)(clock_ns() - begin));
    return FLASHINFER_OK;
}

static flashinfer_status no_compiler(const struct jit_spec *spec)
{
    char pack[1024];
    return spec->kernel->target == JIT_CUDA ? FLASHINFER_NO_COMPILER
         : fail(FLASHINFER_NO_COMPILER, "%s; kernel %s is in no pack: %s", flashinfer_last_error(), spec->kernel->name,
                jit_pack(pack, sizeof pack));
}

static flashinfer_status load_or_compile(const struct jit_spec *spec, const struct device *device, struct jit_code *code)
{
    int64_t begin = clock_ns();
    struct jit_job job;
    struct text binary = {0};
    flashinfer_status status = jit_job_begin(spec, device, &job);
    if (status)
        return status == FLASHINFER_NO_COMPILER ? no_compiler(spec) : status;
    status = make_from(&job, &binary, begin, code);
    text_free(&binary);
    jit_job_end(&job);
    return status;
}

static flashinfer_status make(const struct jit_spec *spec, const struct device *device, struct jit_code *code)
{
    if (jit_pack_find(spec, code))
        atomic_fetch_add(&statistics.packed, 1);
    else
        TRY(load_or_compile(spec, device, code));
    jit_record(spec, device);
    return FLASHINFER_OK;
}

static void before_fork(void) { pthread_mutex_lock(&mutex); }

static void after_fork_in_parent(void) { pthread_mutex_unlock(&mutex); }

/* The threads that were compiling do not exist here. */
static void after_fork_in_child(void)
{
    for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++)
        for (struct entry *entry = atomic_load(&buckets[i]); entry; entry = entry->next)
            if (atomic_load(&entry->state) == BUSY)
                atomic_store(&entry->state, MISSING);
    pthread_cond_init(&changed, NULL);
    pthread_mutex_unlock(&mutex);
}

static void handle_fork(void) { pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); }

static struct entry *add_entry(size_t bucket, const struct jit_spec *spec, const struct device *device)
{
    struct entry *entry = calloc(1, sizeof *entry);
    if (entry) {
        entry->spec = *spec;
        entry->device = device;
        entry->next = atomic_load_explicit(&buckets[bucket], memory_order_relaxed);
        atomic_store_explicit(&buckets[bucket], entry, memory_order_release);
    }
    return entry;
}

/* With the mutex held, which is released while this thread compiles. */
static flashinfer_status make_or_wait(struct entry *entry)
{
    if (atomic_load(&entry->state) == BUSY) {
        while (atomic_load(&entry->state) == BUSY)
            pthread_cond_wait(&changed, &mutex);
        if (atomic_load(&entry->state) == MISSING)
            return fail(entry->failure, "%s", entry->sentence ? entry->sentence : "");
    }
    if (atomic_load(&entry->state) == READY)
        return FLASHINFER_OK;

    atomic_store(&entry->state, BUSY);
    pthread_mutex_unlock(&mutex);
    flashinfer_status status = make(&entry->spec, entry->device, &entry->module.code);
    pthread_mutex_lock(&mutex);
    free(entry->sentence);
    entry->sentence = status ? strdup(flashinfer_last_error()) : NULL;
    entry->failure = status;
    atomic_store(&entry->state, status ? MISSING : READY);
    pthread_cond_broadcast(&changed);
    return status;
}

flashinfer_status jit_load(const struct jit_spec *spec, const struct device *device, const struct jit_module **out)
{
    *out = jit_find(spec, device);
    if (*out)
        return FLASHINFER_OK;
    pthread_once(&once, handle_fork);
    pthread_mutex_lock(&mutex);
    size_t bucket = bucket_of(spec, device);
    struct entry *entry = find_entry(bucket, spec, device);
    if (!entry)
        entry = add_entry(bucket, spec, device);
    flashinfer_status status = entry ? make_or_wait(entry) : fail(FLASHINFER_MEMORY, "out of host memory");
    pthread_mutex_unlock(&mutex);
    *out = status ? NULL : &entry->module;
    return status;
}

flashinfer_status jit_cache_path(const struct jit_spec *spec, const struct device *device, char *path, size_t size)
{
    struct jit_job job;
    TRY(jit_job_begin(spec, device, &job));
    jit_cache_file(&job, path, size);
    jit_job_end(&job);
    return FLASHINFER_OK;
}

flashinfer_status jit_is_cached(const struct jit_spec *spec, const struct device *device, bool *out)
{
    struct jit_job job;
    struct text binary = {0};
    TRY(jit_job_begin(spec, device, &job));
    *out = jit_cache_read(&job, &binary);
    text_free(&binary);
    jit_job_end(&job);
    return FLASHINFER_OK;
}

flashinfer_status flashinfer_jit_statistics(struct flashinfer_jit_statistics *out)
{
    if (!out)
        return fail(FLASHINFER_INVALID, "flashinfer_jit_statistics: out is NULL");
    struct flashinfer_jit_statistics now = {
        .size = out->size,
        .compiled = atomic_load(&statistics.compiled),
        .loaded = atomic_load(&statistics.loaded),
        .compile_seconds = 1e-9 * (double)atomic_load(&statistics.compile_ns),
        .load_seconds = 1e-9 * (double)atomic_load(&statistics.load_ns),
        .packed = atomic_load(&statistics.packed),
    };
    if (out->size < sizeof out->size)
        return fail(FLASHINFER_INVALID, "flashinfer_jit_statistics: size is %zu, must be sizeof *out", out->size);
    memcpy(out, &now, out->size < sizeof now ? out->size : sizeof now);
    return FLASHINFER_OK;
}
