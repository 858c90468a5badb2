/* SPDX-License-Identifier: Apache-2.0 */
/* The recurrence of the gated delta rule in float64, which judges kernels, and what tests put into their inputs.
 *
 * A kernel that takes 64 tokens at once rounds operands of several chained matrix products to the dtype of q; how far these
 * errors go depends on the data, so that no bound of an element follows from its own terms. What is asked is an error of at most
 * TOLERANCE of the outputs of a sequence and head, and of each of its states, by the Frobenius norm, beside the rounding of a
 * state to its dtype. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "harness/problem.h"
#include "op/program.h"
#include "ops/gated_delta/gated_delta_kernels.h"

#define TOLERANCE 5e-3
#define MAX_WORK 1e9 /* products, for one problem; beyond that some heads are left out */
#define SHORT_NORM 1.4 /* of keys where beta may be 1 */
#define LONG_NORM 11.0 /* where it is small */
enum { MAX_DIM = 128 };

/* A sequence and head; where NaN or infinities are in it, nothing is asked. state is values by keys. */
struct pair {
    const struct reference *r;
    const struct gated_delta_view *t;
    int64_t sequence, head, begin, end, num_heads, num_tokens, dim, every;
    double *state, *outputs, *added;
    bool *touched_final, *touched_kept, *touched_slots; /* rows */
};

static double value_at(const DLTensor *t, int64_t i)
{
    return ((const double *)t->data)[i];
}

static double softplus(double x)
{
    return x > 20 ? x : log1p(exp(x));
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double alpha_of_key(const struct pair *p, int64_t token, int64_t key)
{
    const struct gated_delta_view *t = p->t;
    int64_t q_head = p->head / (p->num_heads / tensor_shape(t->q, -2));
    double x = value_at(t->alpha, (token * p->num_heads + p->head) * p->dim + key);
    if (t->A_log) {
        double slope = exp(value_at(t->A_log, q_head));
        x += t->dt_bias ? value_at(t->dt_bias, q_head * p->dim + key) : 0;
        x = t->lower_bound < 0 ? t->lower_bound * sigmoid(slope * x) : -slope * softplus(x);
    }
    return exp(x);
}

/* alpha, of each key, and beta. */
static void gates_of(const struct pair *p, int64_t token, double *alpha, double *beta)
{
    const struct gated_delta_view *t = p->t;
    int64_t at = token * p->num_heads + p->head;
    double one = !t->per_key && t->alpha ? value_at(t->alpha, at) : 1;
    *beta = t->beta ? value_at(t->beta, at) : 1;
    if (t->A_log && !t->per_key)
        one = exp(-exp(value_at(t->A_log, p->head)) * softplus(one + value_at(t->dt_bias, p->head)));
    if (t->per_key ? t->beta_is_logit : t->A_log != NULL)
        *beta = sigmoid(*beta);
    for (int64_t j = 0; j < p->dim; j++)
        alpha[j] = t->per_key ? alpha_of_key(p, token, j) : one;
}

/* A token's head of q or k, normalised if asked for. */
static void row_of(const struct pair *p, const DLTensor *t, int64_t token, double *row)
{
    int64_t heads = tensor_shape(t, -2), head = p->head / (p->num_heads / heads);
    double sum = 1e-6;
    for (int64_t i = 0; i < p->dim; i++) {
        row[i] = value_at(t, (token * heads + head) * p->dim + i);
        sum += row[i] * row[i];
    }
    for (int64_t i = 0; p->t->l2norm && i < p->dim; i++)
        row[i] /= sqrt(sum);
}

static void step(const struct pair *p, int64_t token, double scale)
{
    double q[MAX_DIM], k[MAX_DIM], alpha[MAX_DIM], beta;
    int64_t v_heads = tensor_shape(p->t->v, -2), v_head = p->head / (p->num_heads / v_heads);
    row_of(p, p->t->q, token, q);
    row_of(p, p->t->k, token, k);
    gates_of(p, token, alpha, &beta);
    for (int64_t i = 0; i < p->dim; i++) {
        double *s = p->state + i * p->dim, known = 0, output = 0;
        for (int64_t j = 0; j < p->dim; j++) {
            s[j] *= alpha[j];
            known += s[j] * k[j];
        }
        double u = beta * (value_at(p->t->v, (token * v_heads + v_head) * p->dim + i) - known);
        p->added[(token - p->begin) * p->dim + i] = u;
        for (int64_t j = 0; j < p->dim; j++) {
            s[j] += u * k[j];
            output += s[j] * q[j];
        }
        p->outputs[(token - p->begin) * p->dim + i] = scale * output;
    }
}

/* Element (value i, key j) of a state, in its pool. */
static int64_t place(const struct pair *p, int64_t row, int64_t i, int64_t j)
{
    int64_t inner = p->t->values_last ? j * p->dim + i : i * p->dim + j;
    return (row * p->num_heads + p->head) * p->dim * p->dim + inner;
}

static const char *judge(const struct pair *p, const char *what, double error, double norm)
{
    if (error <= TOLERANCE * TOLERANCE * norm + DBL_MIN || !isfinite(norm))
        return NULL;
    return reference_complain(
        "%s of sequence %lld (tokens %lld to %lld), head %lld: relative error %.3g, allowed %.3g (norm %.3g)", what,
        (long long)p->sequence, (long long)p->begin, (long long)p->end, (long long)p->head, sqrt(error / norm), TOLERANCE,
        sqrt(norm));
}

/* The largest number of a dtype that saturates. */
static double largest(enum dtype dtype)
{
    return dtype == DTYPE_E4M3 ? 448 : dtype == DTYPE_E5M2 ? 57344 : INFINITY;
}

/* By how much rounding to a dtype may be off: half a unit in the last place. Of f32 only where numbers are subnormal, which a
 * decayed state was twice: as a product with alpha, and as a sum. */
static double half_unit(enum dtype dtype, double x)
{
    switch (dtype) {
    case DTYPE_F16:
        return fmax(fabs(x) * 0x1p-11, 0x1p-25);
    case DTYPE_BF16:
        return fmax(fabs(x) * 0x1p-8, 0x1p-134);
    case DTYPE_E4M3:
        return fmax(fabs(x) * 0x1p-4, 0x1p-10);
    case DTYPE_E5M2:
        return fmax(fabs(x) * 0x1p-3, 0x1p-17);
    default:
        return 0x1p-149;
    }
}

static const char *judge_state(const struct pair *p, const char *what, const DLTensor *pool, int64_t row)
{
    const double *got = reference_got(p->r, pool);
    enum dtype dtype = reference_dtype(p->r, pool);
    double error = 0, norm = 0;
    for (int64_t i = 0; i < p->dim; i++)
        for (int64_t j = 0; j < p->dim; j++) {
            double exact = p->state[i * p->dim + j];
            double value = isnan(exact) ? exact : fmin(fmax(exact, -largest(dtype)), largest(dtype));
            double off = fabs(got[place(p, row, i, j)] - value), rounding = half_unit(dtype, value);
            off = off <= rounding ? 0 : off - rounding; /* NaN stays */
            error += off * off;
            norm += value * value;
        }
    return judge(p, what, error, norm);
}

static const char *judge_outputs(const struct pair *p, bool padding)
{
    const double *got = reference_got(p->r, p->t->output);
    double error = 0, norm = 0, subnormal = half_unit(reference_dtype(p->r, p->t->output), 0);
    for (int64_t token = p->begin; token < p->end; token++)
        for (int64_t i = 0; i < p->dim; i++) {
            double expected = padding ? 0 : p->outputs[(token - p->begin) * p->dim + i];
            double off = fabs(got[(token * p->num_heads + p->head) * p->dim + i] - expected);
            off = off <= subnormal ? 0 : off - subnormal; /* NaN stays */
            error += off * off;
            norm += expected * expected;
        }
    return judge(p, "the outputs", error, norm);
}

static int64_t row_at(const DLTensor *rows, int64_t i)
{
    return rows ? (int64_t)value_at(rows, i) : i;
}

/* The state after so many tokens, where it is kept. */
static const char *judge_kept(const struct pair *p, int64_t done)
{
    const struct gated_delta_view *t = p->t;
    int64_t row;
    if (!t->kept || done % t->kept_every || (!done && !t->kept_first))
        return NULL;
    if (t->kept_starts) {
        row = row_at(t->kept_starts, p->sequence) + done / t->kept_every - (t->kept_first ? 0 : 1);
        if (row >= row_at(t->kept_starts, p->sequence + 1))
            return NULL;
        row = row_at(t->kept_rows, row);
        if (row < 0)
            return NULL;
    } else {
        int64_t rows = t->kept_rows ? tensor_shape(t->kept_rows, 1) : p->num_tokens;
        row = done <= rows ? row_at(t->kept_rows, p->sequence * rows + done - 1) : -1;
        if (row < 0)
            return NULL;
    }
    p->touched_kept[row] = true;
    return judge_state(p, "a kept state", t->kept, row);
}

static int64_t first_row(const struct pair *p)
{
    const DLTensor *rows = p->t->initial_rows;
    int64_t step = rows && rows->ndim == 2 ? tensor_shape(rows, 1) : 1;
    int64_t last = p->t->accepted ? (int64_t)value_at(p->t->accepted, p->sequence) - 1 : 0;
    return row_at(rows, p->sequence * step + (last < 0 ? 0 : last < step ? last : step - 1));
}

/* What is kept of the first tokens, in the slot of the row that was read. */
static const char *judge_slots(const struct pair *p, int64_t slot)
{
    const struct gated_delta_view *t = p->t;
    const DLTensor *caches[] = {t->added, t->given};
    int64_t k_heads = tensor_shape(t->k, -2), k_head = p->head / (p->num_heads / k_heads);
    double error = 0, norm = 0;
    for (int n = 0; n < 2; n++) {
        int64_t tokens = caches[n] ? tensor_shape(caches[n], 2) : 0, width = (n + 1) * p->dim;
        const double *got = tokens ? reference_got(p->r, caches[n]) : NULL;
        if (got)
            p->touched_slots[slot] = true;
        for (int64_t token = p->begin; token < p->end && token - p->begin < tokens; token++)
            for (int64_t i = 0; i < width; i++) {
                double is = got[((slot * p->num_heads + p->head) * tokens + token - p->begin) * width + i], key = i % p->dim;
                double k = value_at(t->k, (token * k_heads + k_head) * p->dim + (int64_t)key);
                double given = i < p->dim ? k : value_at(t->alpha, (token * p->num_heads + p->head) * p->dim + (int64_t)key);
                double expected = n ? given : p->added[(token - p->begin) * p->dim + i];
                if (n && is != expected)
                    return reference_complain("kg_cache of slot %lld, head %lld, token %lld has %g, given was %g",
                                              (long long)slot, (long long)p->head, (long long)(token - p->begin), is, expected);
                error += n ? 0 : (is - expected) * (is - expected);
                norm += n ? 0 : expected * expected;
            }
    }
    return judge(p, "correction_cache", error, norm);
}

static const char *judge_pair(const struct pair *p)
{
    const struct gated_delta_view *t = p->t;
    int64_t from = first_row(p);
    int64_t to = row_at(t->final_rows, p->sequence);
    bool padding = t->pads && from < 0;
    const char *wrong = NULL;
    double scale = t->scale > 0 ? t->scale : 1 / sqrt((double)p->dim);
    for (int64_t i = 0; i < p->dim; i++)
        for (int64_t j = 0; j < p->dim; j++)
            p->state[i * p->dim + j] = t->initial && from >= 0 ? value_at(t->initial, place(p, from, i, j)) : 0;
    if (!padding)
        wrong = judge_kept(p, 0);
    for (int64_t token = p->begin; !padding && !wrong && token < p->end; token++) {
        step(p, token, scale);
        wrong = judge_kept(p, token - p->begin + 1);
    }
    if (!wrong)
        wrong = judge_outputs(p, padding);
    if (!wrong && !padding && (t->added || t->given))
        wrong = judge_slots(p, from);
    if (wrong || !t->final || to < 0 || padding)
        return wrong;
    p->touched_final[to] = true;
    return judge_state(p, "the state", t->final, to);
}

/* Rows that nothing was to be written to, of all heads; all rows without `touched`. */
static const char *judge_rest(const struct reference *r, const DLTensor *pool, const bool *touched, const bool *too)
{
    int64_t rows = pool ? tensor_shape(pool, 0) : 0, size = rows ? tensor_elements(pool) / rows : 0;
    const double *got = rows ? reference_got(r, pool) : NULL;
    for (int64_t i = 0; i < rows * size; i++) {
        double before = value_at(pool, i);
        if (!(touched && touched[i / size]) && !(too && too[i / size]) && got[i] != before && !(isnan(got[i]) && isnan(before)))
            return reference_complain("element %lld of state %lld was %g and became %g, but belongs to no sequence",
                                      (long long)(i % size), (long long)(i / size), before, got[i]);
    }
    return NULL;
}

/* Tensors that other calls of the op write. */
static const char *judge_unused(const struct reference *r)
{
    const struct gated_delta_view *t = r->view;
    const char *wrong = NULL;
    for (const struct op_arg *arg = r->call->op->args; !wrong && arg->kind != OP_END; arg++) {
        const DLTensor *given = arg->kind == OP_INOUT ? op_tensor(r->args, arg) : NULL;
        if (given != t->output && given != t->final && given != t->kept && given != t->added && given != t->given)
            wrong = judge_rest(r, given, NULL, NULL);
    }
    return wrong;
}

static const char *judge_all(struct pair *p)
{
    const struct gated_delta_view *t = p->t;
    struct gated_delta_args a = gated_delta_args(p->r->call);
    double work = 3.0 * (double)tensor_elements(t->output) * (double)p->dim;
    int64_t pairs = a.num_sequences * p->num_heads;
    p->num_tokens = a.num_tokens;
    p->every = work > MAX_WORK ? (int64_t)(work / MAX_WORK) | 1 : 1;
    const char *wrong = NULL;
    for (int64_t i = 0; !wrong && i < pairs; i++) {
        p->sequence = i / p->num_heads;
        p->head = i % p->num_heads;
        p->begin = t->cu_seqlens ? (int64_t)value_at(t->cu_seqlens, p->sequence) : p->sequence * a.num_tokens;
        p->end = t->cu_seqlens ? (int64_t)value_at(t->cu_seqlens, p->sequence + 1) : p->begin + a.num_tokens;
        wrong = i % p->every == 0 ? judge_pair(p) : NULL;
    }
    if (wrong || p->every > 1)
        return wrong;
    bool same = t->final == t->kept;
    wrong = judge_rest(p->r, t->final, p->touched_final, same ? p->touched_kept : NULL);
    if (!wrong && !same && t->kept && (t->kept_rows || t->kept_starts))
        wrong = judge_rest(p->r, t->kept, p->touched_kept, NULL);
    if (!wrong)
        wrong = judge_rest(p->r, t->added, p->touched_slots, NULL);
    if (!wrong)
        wrong = judge_rest(p->r, t->given, p->touched_slots, NULL);
    return wrong ? wrong : judge_unused(p->r);
}

const char *gated_delta_verify(const struct reference *r)
{
    const struct gated_delta_view *t = r->view;
    struct pair p = {.r = r, .t = t, .num_heads = tensor_shape(t->output, -2), .dim = tensor_shape(t->output, -1)};
    int64_t final = t->final ? tensor_shape(t->final, 0) : 0, kept = t->kept ? tensor_elements(t->kept) / (p.dim * p.dim) : 0;
    p.state = calloc((size_t)(p.dim * p.dim), sizeof *p.state);
    p.added = calloc((size_t)(tensor_elements(t->output) / (p.num_heads ? p.num_heads : 1)) + 1, sizeof *p.added);
    p.touched_slots = calloc((size_t)(t->added ? tensor_shape(t->added, 0) : t->given ? tensor_shape(t->given, 0) : 0) + 1,
                             sizeof *p.touched_slots);
    p.outputs = calloc((size_t)(tensor_elements(t->output) / (p.num_heads ? p.num_heads : 1)) + 1, sizeof *p.outputs);
    p.touched_final = calloc((size_t) final + 1, sizeof *p.touched_final);
    p.touched_kept = calloc((size_t)kept + 1, sizeof *p.touched_kept);
    bool all = p.state && p.added && p.touched_slots && p.outputs && p.touched_final && p.touched_kept;
    const char *wrong = all ? judge_all(&p) : "no memory for the reference";
    free(p.state);
    free(p.outputs);
    free(p.added);
    free(p.touched_slots);
    free(p.touched_final);
    free(p.touched_kept);
    return wrong;
}

/* ---- inputs of tests */

static void normalise(struct problem_tensor *t, int64_t dim, double common, const double *direction)
{
    for (int64_t row = 0; row < t->elements / dim; row++) {
        double sum = 0;
        for (int64_t i = 0; i < dim; i++) {
            double x = problem_get(t, row * dim + i) + common * direction[i];
            problem_set(t, row * dim + i, x);
            sum += x * x;
        }
        for (int64_t i = 0; i < dim; i++)
            problem_set(t, row * dim + i, problem_get(t, row * dim + i) / sqrt(sum));
    }
}

/* Norms of a fifth of the largest to the largest: its square times beta stays below 2, where the recurrence does. */
static void vary_norms(struct problem *problem, struct problem_tensor *k, int64_t dim, double largest_norm)
{
    for (int64_t row = 0; row < k->elements / dim; row++) {
        double norm = largest_norm * (0.2 + 0.8 * (double)problem_random(problem, 1 << 20) / (1 << 20));
        for (int64_t i = 0; i < dim; i++)
            problem_set(k, row * dim + i, problem_get(k, row * dim + i) * norm);
    }
}

/* Uniform in (lowest, 1), and now and then 0 or 1. */
static void fill_gate(struct problem *problem, struct problem_tensor *t, double lowest, bool edges)
{
    for (int64_t i = 0; t && t->present && i < t->elements; i++) {
        double x = lowest + (1 - lowest) * (double)problem_random(problem, 1 << 20) / (1 << 20);
        if (edges && problem_random(problem, 16) == 0)
            x = (double)problem_random(problem, 2);
        problem_set(t, i, x);
    }
}

static void pad(struct problem *problem, const char *name)
{
    struct problem_tensor *rows = problem_tensor(problem, name);
    for (int64_t i = 0; problem->seed && rows && rows->present && i < rows->elements; i++)
        if (problem_random(problem, 5) == 0)
            problem_set(rows, i, -1);
}

/* NaN and infinities at the beginning of every second sequence, which the one before must not see. */
static void spoil(struct problem *problem, const struct problem_tensor *cu_seqlens)
{
    static const char *const names[] = {"q", "k", "v", "g", "beta"};
    for (int64_t i = 1; i + 1 < cu_seqlens->elements; i += 2) {
        int64_t begin = (int64_t)problem_get(cu_seqlens, i), end = (int64_t)problem_get(cu_seqlens, i + 1);
        for (int n = 0; n < 5; n++) {
            struct problem_tensor *t = problem_tensor(problem, names[n]);
            int64_t width = t->present && t->shape[0] ? t->elements / t->shape[0] : 0;
            for (int64_t at = begin * width; at < end * width && at < (begin + 2) * width; at++)
                problem_set(t, at, at % 2 ? NAN : INFINITY);
        }
    }
}

/* Now and then what is left of a state is all there is: gates and keys so small that a kernel has to see to it that f16 does not
 * lose their products, and no values. */
static void fade(struct problem *problem)
{
    static const struct {
        const char *name;
        double factor, more;
    } small[] = {{"q", 0x1p-10, 0}, {"k", 0x1p-10, 0}, {"v", 0, 0}, {"g", 1, -8}};
    int64_t batch = problem_dim(problem, "batch");
    for (int64_t i = 0; i < batch; i++) {
        bool faded = problem_random(problem, 4) == 0;
        for (int n = 0; faded && n < 4; n++) {
            struct problem_tensor *t = problem_tensor(problem, small[n].name);
            int64_t each = t->elements / batch;
            for (int64_t at = i * each; at < (i + 1) * each; at++)
                problem_set(t, at, small[n].factor * problem_get(t, at) + small[n].more);
        }
    }
}

/* The next row of a pool that nobody has yet; below 0: none. */
static double take_row(bool *used, int64_t *next, int64_t rows)
{
    while (*next < rows && used[*next])
        ++*next;
    if (*next >= rows)
        return -1;
    used[*next] = true;
    return (double)*next;
}

/* Rows that are written must be nobody else's. Problems that break a rule may have fewer rows than sequences. */
static void choose_written_rows(struct problem *problem)
{
    struct problem_tensor *from = problem_tensor(problem, "initial_state_indices"),
                          *to = problem_tensor(problem, "output_state_indices");
    struct problem_tensor *kept = problem_tensor(problem, "ssm_state_indices");
    int64_t rows = problem_dim(problem, "num_states"), batch = problem_dim(problem, "batch"), next = 0;
    bool *used = calloc((size_t)(rows > 0 ? rows : 0) + 1, sizeof *used);
    bool same = !problem_tensor(problem, "initial_state_source"); /* pool for all of them */
    for (int64_t i = 0; used && same && from && i < batch; i++) {
        int64_t row = from->present ? (int64_t)problem_get(from, i) : i;
        if (row >= 0 && row < rows)
            used[row] = true;
    }
    for (int64_t i = 0; used && to && to->present && i < batch; i++) {
        double own = from->present ? problem_get(from, i) : (double)i;
        problem_set(to, i, problem_random(problem, 3) == 0 ? own : take_row(used, &next, rows));
    }
    for (int64_t i = 0; used && kept && kept->present && i < kept->elements; i++)
        problem_set(kept, i, take_row(used, &next, rows));
    free(used);
}

/* Rows that are read name slots of caches too. */
static void limit_rows(struct problem *problem, const char *cache)
{
    static const char *const names[] = {"ssm_state_indices", "initial_state_indices"};
    const struct problem_tensor *slots = problem_tensor(problem, cache);
    for (int n = 0; slots && slots->present && n < 2; n++) {
        struct problem_tensor *rows = problem_tensor(problem, names[n]);
        for (int64_t i = 0; rows->present && i < rows->elements; i++)
            if (problem_get(rows, i) >= (double)slots->shape[0])
                problem_set(rows, i, -1);
    }
}

/* Distinct rows as far as there are any, the last one first; without rows, entries are rows. */
static void fill_checkpoints(struct problem *problem)
{
    struct problem_tensor *starts = problem_tensor(problem, "checkpoint_cu_starts"),
                          *rows = problem_tensor(problem, "checkpoint_state_indices");
    int64_t checkpoints = problem_dim(problem, "num_checkpoints");
    for (int64_t i = 0; rows && rows->present && i < rows->elements; i++)
        problem_set(rows, i, i < checkpoints ? (double)(checkpoints - 1 - i) : -1);
    if (rows && starts->present && starts->elements)
        problem_fill_indptr(problem, starts, rows->present ? rows->elements : checkpoints);
}

void gated_delta_make(struct problem *problem)
{
    static const double lowest[] = {0.999, 0.9, 0.5, 1e-4};
    struct problem_tensor *q = problem_tensor(problem, "q"), *k = problem_tensor(problem, "k");
    struct problem_tensor *cu_seqlens = problem_tensor(problem, "cu_seqlens");
    double direction[MAX_DIM], common = problem->seed % 3 == 1 ? (double)(problem->seed % 2) + 0.5 : 0;
    int64_t dim = problem_dim(problem, "head_dim");
    struct problem_tensor *beta = problem_tensor(problem, "beta");
    bool whole = cu_seqlens && !problem_tensor(problem, "kg_cache"); /* with gates as they are */
    bool long_keys = whole && beta->present && problem->seed % 14 == 2; /* as random ones are, beside a small enough beta */
    bool raw = problem_dim(problem, "use_qk_l2norm_in_kernel") > 0 || problem_dim(problem, "skip_qk_l2norm") == 0;
    if (q->elements && k->elements && !raw) {
        for (int64_t i = 0; i < dim; i++)
            direction[i] = problem_get(k, i);
        normalise(q, dim, 0, direction);
        normalise(k, dim, common, direction);
        if (problem->seed % 7 == 2)
            vary_norms(problem, k, dim, long_keys ? LONG_NORM : SHORT_NORM);
    }
    if (whole && problem->seed)
        fill_gate(problem, problem_tensor(problem, "g"), lowest[problem->seed % 4], problem->seed % 5 == 0);
    if (whole && problem->seed)
        fill_gate(problem, beta, 0, problem->seed % 5 == 0);
    for (int64_t i = 0; long_keys && i < beta->elements; i++)
        problem_set(beta, i, problem_get(beta, i) * (SHORT_NORM * SHORT_NORM) / (LONG_NORM * LONG_NORM));
    if (whole && problem->seed % 4 == 3)
        spoil(problem, cu_seqlens);
    if (cu_seqlens && !whole && cu_seqlens->present && cu_seqlens->elements)
        problem_fill_indptr(problem, cu_seqlens, problem_dim(problem, "batch") * problem_dim(problem, "tokens"));
    if (problem_tensor(problem, "kg_cache"))
        fade(problem);
    pad(problem, "state_indices");
    pad(problem, "initial_state_indices");
    choose_written_rows(problem);
    limit_rows(problem, "correction_cache");
    limit_rows(problem, "kg_cache");
    fill_checkpoints(problem);
}
