/* SPDX-License-Identifier: Apache-2.0 */
/* Judges sampled tokens in float64, and makes random problems harder. Philox itself is tested against its
 * published vectors. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness/problem.h"
#include "ops/sampling/sampling_kernels.h"
#include "philox.h"

/* The value of a number for a row, over the reference's tensors of doubles. */
static double number_at(const flashinfer_number *number, int64_t row, double absent)
{
    if (number->kind == FLASHINFER_NUMBER_ABSENT)
        return absent;
    if (number->kind != FLASHINFER_NUMBER_TENSOR)
        return number_value(number);
    const DLTensor *tensor = number->value.tensor;
    return ((const double *)tensor->data)[tensor_elements(tensor) > 1 ? row : 0];
}

static uint64_t integer_at(const flashinfer_number *number, int64_t row)
{
    return number->kind == FLASHINFER_NUMBER_INT ? (uint64_t)number->value.i
                                                 : (uint64_t)(int64_t)number_at(number, row, 0);
}

static double possible(double p) { return p > 0 && p <= FLT_MAX ? p : 0; }

static int compare_descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* The smallest probability that passes both filters lies in [low, high]. */
struct threshold {
    double low, high;
};

/* sorted: the n possible ones of the row, largest first. slack: what a sum may be off. */
static struct threshold find_threshold(const double *sorted, int64_t n, double top_k, double top_p,
                                       bool joint, double slack)
{
    int64_t kept = top_k >= 1 && top_k < (double)n ? (int64_t)top_k : n;
    while (kept < n && sorted[kept] == sorted[kept - 1])
        kept++;
    struct threshold t = {sorted[kept - 1], sorted[kept - 1]};
    if (!(top_p < 1))
        return t;
    double whole = 0, sum = 0, limit;
    for (int64_t i = 0; i < (joint ? n : kept); i++)
        whole += sorted[i];
    limit = fmax(top_p, 0) * whole;
    bool reached = false;
    for (int64_t i = 0; i < kept; i++) {
        sum += sorted[i];
        if (!reached && sum >= limit - slack) {
            t.high = sorted[i];
            reached = true;
        }
        if (sum >= limit + slack) {
            t.low = sorted[i];
            break;
        }
    }
    return t;
}

/* u: the random number in [0, 1). */
static const char *verify_token(const double *probs, int64_t vocab, int64_t token, struct threshold t,
                                double u, double slack)
{
    /* Sums of those that surely pass and of those that may pass: before the token, up to it, and over all. */
    double before_least = 0, upto_most = 0, least = 0, most = 0;
    if (possible(probs[token]) < t.low)
        return reference_complain("token %lld has probability %g, the filters leave those from %g on",
                                  (long long)token, probs[token], t.low);
    for (int64_t i = 0; i < vocab; i++) {
        double p = possible(probs[i]), sure = p >= t.high ? p : 0, may = p >= t.low ? p : 0;
        least += sure;
        most += may;
        before_least += i < token ? sure : 0;
        upto_most += i <= token ? may : 0;
    }
    if (u * most < before_least - slack || u * least > upto_most + slack)
        return reference_complain("token %lld covers %.9g to %.9g of the cumulative distribution, u is %.9g",
                                  (long long)token, before_least / least, upto_most / most, u);
    return NULL;
}

static const char *verify_row(const struct sampling_view *t, const double *probs, int64_t vocab, int64_t row, double token,
                              double valid, double *sorted)
{
    int64_t n = 0;
    for (int64_t i = 0; probs && i < vocab; i++)
        if (possible(probs[i]) > 0)
            sorted[n++] = probs[i];
    double absent = t->valid ? 0 : -1;
    if (t->valid && valid != (n > 0))
        return reference_complain("valid is %g where %lld tokens are possible", valid, (long long)n);
    if (n == 0)
        return token == absent ? NULL : reference_complain("the token is %g where none is possible", token);
    if (!(token >= 0 && token < (double)vocab))
        return reference_complain("the token is %g of %lld", token, (long long)vocab);
    qsort(sorted, (size_t)n, sizeof *sorted, compare_descending);
    /* The kernels round each probability down to a multiple of at most the largest one's 2^-38th; the sums
     * here are of doubles. */
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += sorted[i];
    double slack = (double)vocab * (sorted[0] * 0x1p-38 + sum * 0x1p-53);
    double top_k = t->has_filter ? number_at(&t->top_k, row, 0) : 0;
    double top_p = t->has_filter ? reference_round(DTYPE_F32, number_at(&t->top_p, row, 1)) : 1;
    struct threshold threshold = find_threshold(sorted, n, top_k, top_p, t->joint, slack);
    bool own_seed = t->seed.kind == FLASHINFER_NUMBER_TENSOR && tensor_elements(t->seed.value.tensor) > 1;
    uint64_t bits =
        philox_uniform(integer_at(&t->seed, row), integer_at(&t->offset, row), own_seed ? 0 : (uint64_t)row);
    return verify_token(probs, vocab, (int64_t)token, threshold, (double)bits * 0x1p-64, slack);
}

const char *sampling_verify(const struct reference *r)
{
    const struct sampling_view *t = r->view;
    const double *samples = reference_got(r, t->samples);
    const double *valid = t->valid ? reference_got(r, t->valid) : NULL;
    const double *probs = t->probs->data, *indices = t->indices ? t->indices->data : NULL;
    int64_t rows = tensor_shape(t->probs, 0), vocab = tensor_shape(t->probs, 1);
    int64_t batch = tensor_shape(t->samples, 0);
    double *sorted = malloc(((size_t)vocab + 1) * sizeof *sorted);
    const char *wrong = sorted ? NULL : "no memory to verify";
    for (int64_t row = 0; row < batch && !wrong; row++) {
        double index = indices ? indices[row] : (double)row;
        bool inside = index >= 0 && index < (double)rows;
        wrong = verify_row(t, inside ? probs + (int64_t)index * vocab : NULL, vocab, row, samples[row],
                           valid ? valid[row] : 0, sorted);
        if (wrong) {
            char sentence[256];
            snprintf(sentence, sizeof sentence, "%s", wrong);
            wrong = reference_complain("row %lld: %s", (long long)row, sentence);
        }
    }
    free(sorted);
    return wrong;
}

void sampling_make(struct problem *problem)
{
    static const double strange[] = {NAN, -NAN,         INFINITY, -INFINITY, -0.5, -0.0,
                                     0,   FLT_TRUE_MIN, 1e-39,    FLT_MAX,   1};
    struct problem_tensor *probs = problem_tensor(problem, "probs");
    int64_t rows = problem_dim(problem, "num_rows"), vocab = problem_dim(problem, "vocab");
    if (!problem->seed)
        return;
    for (int64_t row = 0; row < rows; row++) {
        uint64_t kind = problem_random(problem, 5);
        for (int64_t i = row * vocab; i < (row + 1) * vocab; i++) {
            if (kind == 0 && problem_random(problem, 8) == 0) /* whatever a float can be */
                problem_set(probs, i, strange[problem_random(problem, sizeof strange / sizeof *strange)]);
            if (kind == 1) /* ties */
                problem_set(probs, i, (double)problem_random(problem, 4) / 4);
            if (kind == 2 && vocab < 64) /* nothing to draw */
                problem_set(probs, i, problem_random(problem, 2) ? NAN : 0);
        }
    }
}
