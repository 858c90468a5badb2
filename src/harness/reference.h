/* SPDX-License-Identifier: Apache-2.0 */
/* What an op's reference sees: the op's struct with every tensor replaced by a dense host tensor of doubles
 * (integers and booleans too), inputs exactly as the kernel got them, outputs to be computed. It works in
 * float64, is written independently of the kernels, and states for each output element by how much float32
 * arithmetic may be off:
 *
 *     static void reference(const struct reference *r)
 *     {
 *         const struct flashinfer_rmsnorm *a = r->args;
 *         double *out = a->out->data, *bound = reference_bound(r, a->out);
 *         ...
 *     }
 *
 * An element passes if it lies between expected - bound and expected + bound, both rounded to the output's
 * dtype: that is bound and half a unit in the last place. bound is 0 at entry. An output whose bounds all are 0 is
 * exact: it must have the bits of the expected values, rounded, and so the same bits on every device; signs of zeros
 * count, and `flashinfer check` says which rows are exact. NaN matches NaN, infinities match themselves. An
 * INOUT tensor's data at entry is what the kernel found there. */
#ifndef HARNESS_REFERENCE_H
#define HARNESS_REFERENCE_H

#include "op/op.h"
#include "op/paged_tensors.h"

struct reference {
    const struct call *call; /* dimensions and the tensors as the kernel saw them */
    const void *args;        /* the op's struct over float64 tensors */
    const void *view;        /* of that, by op->view */
    struct reference_state *state;
};

/* float32's unit roundoff, 2^-24: the error of one rounded operation, relative to its result. */
#define REFERENCE_UNIT 5.9604644775390625e-08

/* The errors allowed for an output, per element, zeroed. NULL for an absent (NULL) tensor. */
double *reference_bound(const struct reference *r, const DLTensor *output);

/* For verify(): what the kernel wrote, as doubles. */
const double *reference_got(const struct reference *r, const DLTensor *output);

/* For ops that do many operations for each output element (matrix products, attention): large problems are
 * compared in some rows only, and the reference may skip the others. A row is one of the op's first output:
 * the product of all its axes but the last. The outputs that have one element, or the same number of
 * elements, for each such row are skipped in step. */
bool reference_wants(const struct reference *r, int64_t row);

/* The dtype that tensor has in the call, and a value rounded to a dtype and back. */
enum dtype reference_dtype(const struct reference *r, const DLTensor *tensor);
double reference_round(enum dtype dtype, double value);

/* A scale as kernels have it: a tensor's one element, or the number rounded to float32; absent: 1. */
double reference_scale(const flashinfer_number *scale);

/* The number of an e2m1 code, the lowest four bits; and the code of the nearest number: of two that are equally near the even
 * code, of NaN that of 6. */
double reference_e2m1_value(unsigned code);
unsigned reference_e2m1_code(double x);

/* The token's slot, counted through all pages: page * page_size + slot of the page. -1: it has no request. */
int64_t reference_slot(const struct paged_tensors *t, int64_t page_size, int64_t token);

/* A sentence for verify() to return; kept until the next one of this thread. */
const char *reference_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
