/* SPDX-License-Identifier: Apache-2.0 */
/* What samples are taken with, and what is made of them. */
#include <stdlib.h>
#include <time.h>

#include "core/clock.h"
#include "core/threads.h"
#include "harness/bench.h"

double bench_cpu_now(void)
{
    struct timespec now;
    clock_gettime(threads_count(0) == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_percentile(double *samples, int count, double percent)
{
    qsort(samples, (size_t)count, sizeof *samples, compare);
    return samples[(int)(percent / 100 * (count - 1) + 0.5)];
}
