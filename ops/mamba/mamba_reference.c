/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/mamba/mamba_reference.h"

#include <float.h>
#include <math.h>

#include "ops/mamba/mamba_args.h"

double mamba_delta(double dt, bool softplus, double *error)
{
    double delta = softplus && dt <= 20 ? log1p(exp(dt)) : dt;
    *error = REFERENCE_UNIT * (2 * fabs(dt) + 8 * fabs(delta)) + FLT_MIN;
    return delta;
}

double mamba_step(const struct mamba_token *t, int64_t state_dim, double *s, double *error, double *bound, double *magnitude)
{
    const double u = REFERENCE_UNIT;
    double y = 0;
    *bound = *magnitude = 0;
    for (int64_t i = 0; i < state_dim; i++) {
        double A = t->A[i * t->A_step], b = t->B[i], c = t->C[i], before = s[i], input = b * t->x * t->delta;
        double decay = exp(A * t->delta);
        double decay_error = decay * (fabs(A) * t->delta_error + u * (2 * fabs(A * t->delta) + 4)) + FLT_MIN;
        s[i] = before * decay + input;
        error[i] = error[i] * (decay + decay_error) + fabs(before) * decay_error + fabs(b * t->x) * t->delta_error +
                   3 * u * (fabs(input) + fabs(before * decay)) + FLT_TRUE_MIN;
        y += c * s[i];
        *bound += fabs(c) * error[i];
        *magnitude += fabs(c * s[i]);
    }
    return y;
}

double mamba_gate(const DLTensor *z, int64_t at, double y, double *bound)
{
    if (!z)
        return y;
    double gate = mamba_value(z, at) / (1 + exp(-mamba_value(z, at)));
    *bound = *bound * fabs(gate) + fabs(y * gate) * REFERENCE_UNIT * (10 + 2 * fabs(mamba_value(z, at))) + FLT_TRUE_MIN;
    return y * gate;
}

/* Up if the part that is cut off and a random number, of as many bits, make one. */
static double round_at_random(enum dtype dtype, double x, uint32_t random)
{
    int bits = dtype == DTYPE_F16 ? 13 : 16, mantissa = dtype == DTYPE_F16 ? 10 : 7, exponent;
    frexp(x, &exponent);
    double unit = ldexp(1, (int)most(exponent - 1, dtype == DTYPE_F16 ? -14 : -126) - mantissa), scale = ldexp(1, bits);
    return copysign(floor((floor(fabs(x) / unit * scale) + (double)(random & ((1u << bits) - 1))) / scale) * unit, x);
}

void mamba_put(const struct reference *r, const DLTensor *states, int64_t to, int64_t from, int64_t state_dim, const double *s,
               const double *error, const flashinfer_number *seed, int rounds)
{
    double *state = (double *)states->data + to, *bound = reference_bound(r, states) + to;
    enum dtype dtype = reference_dtype(r, states);
    bool random = seed->kind != FLASHINFER_NUMBER_ABSENT && dtype != DTYPE_F32;
    bool lies = seed->kind == FLASHINFER_NUMBER_TENSOR;
    uint64_t key = lies ? (uint64_t)(int64_t)mamba_value(seed->value.tensor, 0) : (uint64_t)seed->value.i;
    for (int64_t i = 0; i < state_dim; i++) {
        state[i] = s[i];
        bound[i] = error[i];
        if (random) {
            struct philox bits = philox_rounds(key, (uint64_t)(from + i - i % 4), 0, rounds);
            double low = round_at_random(dtype, s[i] - error[i], bits.word[i % 4]),
                   high = round_at_random(dtype, s[i] + error[i], bits.word[i % 4]);
            state[i] = (low + high) / 2;
            bound[i] = (high - low) / 2;
        }
    }
}
