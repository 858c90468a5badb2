/* SPDX-License-Identifier: Apache-2.0 */
/* A pool that hands the parts of one job at a time to threads that are already running.
 *
 * A job is published by storing `ticket`, which holds the number of parts that nobody has taken yet and how
 * many workers may take part. Whoever decrements it owns a part; only then does it read the job, which stays
 * as it is until that part is done. Workers watch the ticket for SPIN_NS after the last job and then sleep on
 * a futex: a decoder step is hundreds of kernels in a row, and waking a sleeping thread costs more than most
 * of them. While they watch, a worker on the caller's processor moves to another one, and all yield: where other
 * programs, or spinning threads of other libraries, keep every processor busy, the caller would else wait in each
 * call until a worker that took its processor has watched for SPIN_NS. */
#include "core/threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/environment.h"

enum { MAX_WORKERS = 255, SPIN_NS = 150000, SPINS_PER_CLOCK = 32 };

#define CACHE_LINE 64

static struct {
    _Alignas(CACHE_LINE) atomic_uint_fast64_t ticket; /* workers allowed << 32 | parts left */
    void (*run)(void *context, int part);
    void *context;
    int parts;
    atomic_int caller_processor;
    _Alignas(CACHE_LINE) atomic_uint unfinished; /* parts of the job; its caller sleeps on it */
    atomic_bool caller_sleeps;
    _Alignas(CACHE_LINE) atomic_uint wakes; /* workers sleep on it */
    atomic_int first_sleeper;               /* no worker with a lower number sleeps */
    atomic_bool stop;
    _Alignas(CACHE_LINE) atomic_bool busy; /* held by the call whose job this is; guards the rest */
    int workers;
    pthread_t worker[MAX_WORKERS];
} pool = {.first_sleeper = MAX_WORKERS + 1};

static inline void pause_briefly(void)
{
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("isb");
#endif
}

#define ALL UINT32_MAX

/* Sleepers and wakers name groups, as bits: who wakes up is who shares one with the waker. */
static void futex_wait(atomic_uint *word, unsigned expected, uint32_t groups)
{
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, NULL, NULL, groups);
}

static void futex_wake(atomic_uint *word, uint32_t groups)
{
    syscall(SYS_futex, word, FUTEX_WAKE_BITSET_PRIVATE, INT32_MAX, NULL, NULL, groups);
}

/* One group for each of the first 31 workers, one for all others. */
static uint32_t group_of(int worker) { return UINT32_C(1) << (worker < 32 ? worker - 1 : 31); }

static bool has_part(uint64_t ticket, int worker)
{
    return (uint32_t)ticket > 0 && (int)(ticket >> 32) > worker;
}

/* Takes and runs parts until none is left. Worker 0 is the caller. */
static void work(int worker)
{
    uint64_t ticket = atomic_load_explicit(&pool.ticket, memory_order_relaxed);
    while (has_part(ticket, worker)) {
        if (!atomic_compare_exchange_weak_explicit(&pool.ticket, &ticket, ticket - 1, memory_order_acquire,
                                                   memory_order_relaxed))
            continue;
        pool.run(pool.context, pool.parts - (int)(uint32_t)ticket);
        if (atomic_fetch_sub(&pool.unfinished, 1) == 1 && atomic_load(&pool.caller_sleeps))
            futex_wake(&pool.unfinished, ALL);
        ticket = atomic_load_explicit(&pool.ticket, memory_order_relaxed);
    }
}

/* Moves the calling thread to another processor, if there is one that it may run on. */
static bool leave(int processor)
{
    cpu_set_t own, others;
    if (sched_getaffinity(0, sizeof own, &own))
        return false;
    others = own;
    CPU_CLR(processor, &others);
    return CPU_COUNT(&others) > 0 && !sched_setaffinity(0, sizeof others, &others) &&
           !sched_setaffinity(0, sizeof own, &own);
}

/* True once there is a part to take, false if none came for SPIN_NS, or if this thread has no other processor than
 * the caller's. */
static bool watch(int worker)
{
    for (int64_t end = clock_ns() + SPIN_NS;;) {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (has_part(atomic_load_explicit(&pool.ticket, memory_order_relaxed), worker))
                return true;
            pause_briefly();
        }
        if (atomic_load_explicit(&pool.stop, memory_order_relaxed) || clock_ns() > end)
            return false;
        int processor = atomic_load_explicit(&pool.caller_processor, memory_order_relaxed);
        if (sched_getcpu() == processor && !leave(processor))
            return false;
        sched_yield();
    }
}

/* A job that is published before first_sleeper is lowered is seen here; one published later is seen to wake. */
static void sleep_until_woken(int worker)
{
    unsigned wakes = atomic_load(&pool.wakes);
    int first = atomic_load(&pool.first_sleeper);
    while (first > worker && !atomic_compare_exchange_weak(&pool.first_sleeper, &first, worker))
        ;
    if (!has_part(atomic_load(&pool.ticket), worker) && !atomic_load(&pool.stop))
        futex_wait(&pool.wakes, wakes, group_of(worker));
}

static void *worker_main(void *index)
{
    int worker = (int)(intptr_t)index;
    while (!atomic_load(&pool.stop)) {
        if (watch(worker))
            work(worker);
        else
            sleep_until_woken(worker);
    }
    return NULL;
}

/* Wakes those of workers 1 .. helpers that sleep. */
static void wake_workers(int helpers)
{
    if (atomic_load(&pool.first_sleeper) <= helpers) {
        atomic_store(&pool.first_sleeper, helpers + 1);
        atomic_fetch_add(&pool.wakes, 1);
        futex_wake(&pool.wakes, helpers < 32 ? group_of(helpers + 1) - 1 : ALL);
    }
}

static void forget_workers(void)
{
    atomic_store(&pool.ticket, 0);
    atomic_store(&pool.caller_sleeps, false);
    atomic_store(&pool.first_sleeper, MAX_WORKERS + 1);
    atomic_store(&pool.busy, false);
    pool.workers = 0;
}

int threads_start(pthread_t *thread, void *(*body)(void *context), void *context)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t others, before;
    sigfillset(&others);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&others, faults[i]);
    pthread_sigmask(SIG_BLOCK, &others, &before);
    int error = pthread_create(thread, NULL, body, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static void start_workers(int wanted)
{
    static bool handles_fork;
    if (!handles_fork && pthread_atfork(NULL, NULL, forget_workers))
        return;
    handles_fork = true;
    while (pool.workers < wanted && pool.workers < MAX_WORKERS) {
        pthread_t *thread = &pool.worker[pool.workers];
        if (threads_start(thread, worker_main, (void *)(intptr_t)(pool.workers + 1)))
            break;
        pthread_setname_np(*thread, "flashinfer");
        pool.workers++;
    }
}

__attribute__((destructor)) static void stop_workers(void)
{
    atomic_store(&pool.stop, true);
    /* A program that exits in the middle of another thread's job keeps its workers: there is nobody to wait
     * for. */
    for (int64_t end = clock_ns() + 1000000000; atomic_exchange(&pool.busy, true);) {
        if (clock_ns() > end)
            return;
        sched_yield();
    }
    atomic_store(&pool.first_sleeper, 1);
    wake_workers(MAX_WORKERS);
    for (int i = 0; i < pool.workers; i++)
        pthread_join(pool.worker[i], NULL);
    pool.workers = 0;
}

static void wait_for_workers(void)
{
    int64_t end = 0;
    for (unsigned left; (left = atomic_load_explicit(&pool.unfinished, memory_order_acquire)) > 0;) {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (atomic_load_explicit(&pool.unfinished, memory_order_acquire) == 0)
                return;
            pause_briefly();
        }
        if (end == 0)
            end = clock_ns() + SPIN_NS;
        else if (clock_ns() > end) {
            atomic_store(&pool.caller_sleeps, true);
            left = atomic_load(&pool.unfinished);
            if (left > 0)
                futex_wait(&pool.unfinished, left, ALL);
            atomic_store(&pool.caller_sleeps, false);
        }
    }
}

int threads_processors(void)
{
    static atomic_int found;
    int count = atomic_load_explicit(&found, memory_order_relaxed);
    if (count == 0) {
        cpu_set_t set;
        count = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
        atomic_store_explicit(&found, count > 0 ? count : 1, memory_order_relaxed);
    }
    return count > 0 ? count : 1;
}

int threads_count(int threads)
{
    if (threads <= 0)
        threads = environment()->num_threads;
    if (threads <= 0)
        threads = threads_processors();
    return threads < MAX_WORKERS + 1 ? threads : MAX_WORKERS + 1;
}

void threads_run(void (*run)(void *context, int part), void *context, int parts, int threads)
{
    int helpers = (threads == 1 || parts <= 1 ? 1 : threads_count(threads)) - 1;
    if (helpers > parts - 1)
        helpers = parts - 1;
    if (helpers <= 0 || atomic_load_explicit(&pool.busy, memory_order_relaxed)
        || atomic_exchange(&pool.busy, true)) {
        for (int part = 0; part < parts; part++)
            run(context, part);
        return;
    }
    if (pool.workers < helpers && !atomic_load(&pool.stop))
        start_workers(helpers);
    pool.run = run;
    pool.context = context;
    pool.parts = parts;
    atomic_store_explicit(&pool.caller_processor, sched_getcpu(), memory_order_relaxed);
    atomic_store_explicit(&pool.unfinished, (unsigned)parts, memory_order_relaxed);
    atomic_store(&pool.ticket, (uint64_t)(helpers + 1) << 32 | (uint32_t)parts);
    wake_workers(helpers);
    work(0);
    wait_for_workers();
    atomic_store_explicit(&pool.busy, false, memory_order_release);
}
