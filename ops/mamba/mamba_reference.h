/* SPDX-License-Identifier: Apache-2.0 */
/* The recurrence of Mamba-2's states in float64, and how far off it float32 may be. */
#ifndef MAMBA_REFERENCE_H
#define MAMBA_REFERENCE_H

#include "harness/reference.h"

static inline double mamba_value(const DLTensor *t, int64_t i)
{
    return ((const double *)t->data)[i];
}

/* One token of an element of head_dim. */
struct mamba_token {
    double x, delta, delta_error;
    const double *A; /* [state_dim], in steps of A_step */
    int64_t A_step;
    const double *B, *C; /* [state_dim] */
};

/* delta of a token, and in *error by how much it may be off. */
double mamba_delta(double dt, bool softplus, double *error);

/* S = exp(A delta) S + B x delta; returns C . S. *bound: by how much that may be off because S is; *magnitude: the sum of the
 * terms' magnitudes. */
double mamba_step(const struct mamba_token *t, int64_t state_dim, double *s, double *error, double *bound, double *magnitude);

/* y times z[at] sigmoid(z[at]), and *bound with it. z may be NULL. */
double mamba_gate(const DLTensor *z, int64_t at, double y, double *bound);

/* Writes a row of state_dim numbers at element `to` of states; it was read at element `from` of its pool, which random rounding
 * counts from. */
void mamba_put(const struct reference *r, const DLTensor *states, int64_t to, int64_t from, int64_t state_dim, const double *s,
               const double *error, const flashinfer_number *seed, int rounds);

#endif
