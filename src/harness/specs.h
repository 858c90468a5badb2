/* SPDX-License-Identifier: Apache-2.0 */
/* Compiles every specialisation that the named shapes of all ops lead to, for every architecture, and reads
 * what the compiler says of it. A named shape that is no problem of its op, and a
 * declaration that makes no sense, are wrong too. Needs NVRTC, but no GPU. */
#ifndef HARNESS_SPECS_H
#define HARNESS_SPECS_H

#include "op/op.h"

struct specs_options {
    const struct op *const *ops; /* NULL-terminated */
    const char *kernel;          /* of this kernel (row or source) only; NULL: all */
    const int32_t *archs;        /* ended by 0 */
    bool all_dtypes;             /* every dtype that the declarations allow in place of those of the shapes */
    int threads;                 /* compile at once; 0: as many as there are processors */
};

struct specs_result {
    const char *op, *row, *shape;
    const char *kernel;  /* the source; "": none, a named shape or the declaration itself is wrong */
    char constants[256]; /* "T=bf16 VEC=8" */
    int arch;            /* 90 */
    double seconds;
    int registers, spill_bytes, smem_bytes, stack_bytes;
    size_t binary_bytes;
    const char *wrong; /* NULL; else a spill, a warning or why it does not compile */
    int done, total;
};

/* Reports each distinct specialisation once, from one thread at a time. *failures counts those that are
 * wrong. */
flashinfer_status specs_compile(const struct specs_options *options,
                                void (*report)(void *context, const struct specs_result *result), void *context, int *failures);

/* "T=bf16 VEC=8" */
void specs_constants(const struct jit_spec *spec, char *text, size_t size);

struct specs_walk {
    const struct op *op;
    const struct device *device;
    bool all_dtypes, own_dtypes; /* own: all but those of DTYPE arguments whose default is another one's */
    bool chosen_only;   /* the first row that serves a call, which is the one it takes */
    const char *kernel; /* only the row of this name; NULL: all */
    void *context;
    /* For each spec of each row that a named shape leads to on that device. */
    void (*found)(void *context, const struct op_kernel *row, const char *shape, const struct jit_spec *spec);
    /* For a named shape that is no problem of the op; shape NULL: the declaration itself is wrong. */
    void (*failed)(void *context, const char *shape, const char *sentence);
};

void specs_walk(const struct specs_walk *walk);

/* For one call: `values` as in op->shapes, the rest as in the first named shape. UNSUPPORTED if no row serves it. */
flashinfer_status specs_walk_values(const struct specs_walk *walk, const char *values);

#endif
