/* SPDX-License-Identifier: Apache-2.0 */
/* Times kernels.
 *
 *     bench.c           problems and rows; each is checked before it is timed
 *     bench_time.c      the clock: cold caches, medians
 *     bench_sample.c    the clock of samples, their percentiles
 *     bench_copy.c      what this machine can copy
 *     bench_overhead.c  what a call of an op costs over its bare launch
 *     bench_compile.c   compiling into an empty cache, loading from a full one */
#ifndef HARNESS_BENCH_H
#define HARNESS_BENCH_H

#include "harness/trial.h"

struct bench_options {
    const char *kernel; /* this row only; NULL: all */
    const char *shape;  /* this named shape only; NULL: all of them */
    const char *values; /* given to every problem; without `shape`, the first named shape with these values is
                           the only one; NULL */
    uint64_t seed;      /* not 0: the random problem of this seed only */
    bool unchecked;     /* time what was not compared with its reference */
    bool warm;          /* the same tensors every time; on a GPU 100 nodes of a graph, one after the other */
    bool pdl;           /* with FLASHINFER_PDL */
    /* Before the reference, and each row, which could crash: the command that does it again. May be NULL. */
    void (*trying)(void *context, const char *command);
};

struct bench_result {
    const char *op, *row, *shape, *problem;
    const struct device *device;
    double seconds;           /* median of one call; 0: not timed */
    double fastest, slowest;  /* 10th and 90th percentile */
    double bytes, operations; /* that the call must move and do */
    double ceiling;           /* bytes a second that a copy moves: a large one; beside a large call one timed with it */
    int copies;               /* of the tensors that calls took in turn */
    enum bench_outcome {
        BENCH_CHECKED,
        BENCH_UNCHECKED,
        BENCH_NOT_COMPILED,
        BENCH_WRONG,
        BENCH_FAILED
    } outcome;
    const char *why; /* it was not timed; NULL */
};

/* One result for each row that serves a problem, but one only for a kernel that does not compile. *failures
 * counts those that were not timed. */
flashinfer_status bench_op(const struct op *op, const struct device *device,
                           const struct bench_options *options,
                           void (*report)(void *context, const struct bench_result *result), void *context,
                           int *failures);

/* Seconds of one call by the row that the placement's exec names, whose workspace and modules are there; the ceiling beside it.
 * result->bytes is known. */
flashinfer_status bench_time(struct placement *placement, bool warm, struct bench_result *result);

/* Bytes a second, read and written, of a large copy on that device; measured once. */
double bench_ceiling(const struct device *device);

/* Copies on the CPU by all threads: by memcpy and past the caches. */
enum { BENCH_COPIES = 500 };
struct bench_copies {
    double seconds[2][BENCH_COPIES];
    int count;
};
void bench_copy(const struct device *device, struct bench_copies *copies); /* one of each, if there is memory and room */
double bench_copied(struct bench_copies *copies); /* bytes a second of the faster of the medians, or -1; sorts */

/* Seconds. With one thread (FLASHINFER_NUM_THREADS) by its own clock, which other programs do not move; takes 0.5 us. */
double bench_cpu_now(void);
double bench_percentile(double *samples, int count, double percent); /* sorts */

struct bench_overhead {
    const char *op, *row, *problem;
    const struct device *device;
    double call, bare; /* seconds: of op_call, and of the cuLaunchKernelEx or compiled entry in its end */
};

/* For each row that serves the smallest of the op's named shapes (or the given problem). */
flashinfer_status bench_overhead_op(const struct op *op, const struct device *device,
                                    const struct bench_options *options,
                                    void (*report)(void *context, const struct bench_overhead *result),
                                    void *context);

struct bench_compiled {
    char op[64], row[64], kernel[64], constants[200], wrong[1024];
    int arch;       /* 0: CPU */
    double compile;   /* seconds, cache empty */
    double processor; /* seconds that processors spent on that; more than `compile` if several work */
    double load;      /* seconds, from the disk cache, in a process of its own; negative without a GPU */
    size_t bytes;     /* compiled without a GPU: of the binary; else 0 */
};

struct bench_compile_options {
    const struct op *const *ops;
    const char *kernel; /* this row only; NULL: all */
    bool on_cuda;
    int arch;   /* of the imagined device where there is no GPU; 0: some */
    int rounds; /* of which the least counts; 0: one */
};

/* Compiles what the named shapes of the ops lead to, in processes of its own with a cache folder of their
 * own. The caller must not have used devices or read the environment yet. */
flashinfer_status bench_compile(const struct bench_compile_options *options,
                                void (*report)(void *context, const struct bench_compiled *result), void *context,
                                int *failures);

#endif
